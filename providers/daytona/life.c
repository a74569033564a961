/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start, stop, pause, resume, destroy: a call of the API each, which begins the change; then it is
 * asked how far that is. One that comes amid another change is refused (409) and asked again.
 */

#include <errno.h>
#include <string.h>
#include <time.h>

#include "providers/daytona/api.h"
#include "providers/daytona/states.h"
#include "providers/daytona/toolbox.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"

#define STEP_NS (200 * NS_PER_MS)
#define STEP_MAX_NS NS_PER_S
#define REFUSALS_MAX 20 /* of a removal: some 15 s */

/* ---- waiting ---- */

/* A moment, longer each time; -EINTR, -ETIMEDOUT with a sentence. */
static int rest(struct call *c, uint64_t *step_ns, const char *word)
{
        struct timespec t = clock_timespec(*step_ns);
        int r = call_check(c);

        if (r < 0)
                return call_fail(c, r, "the sandbox is still \"%.40s\"", word);
        (void)nanosleep(&t, NULL);
        *step_ns = *step_ns * 2 < STEP_MAX_NS ? *step_ns * 2 : STEP_MAX_NS;
        return 0;
}

static bool is_on_its_way(enum box_state state)
{
        return state == BOX_CREATING || state == BOX_STARTING || state == BOX_PAUSING ||
               state == BOX_RESUMING || state == BOX_STOPPING || state == BOX_DESTROYING;
}

/* Until it isn't changing any more; the states that are kept while it changes aren't seen. */
static int wait_settled(struct daytona_box *b, struct call *c, const struct spec *spec,
                        struct box_status *ret)
{
        uint64_t step_ns = STEP_NS;
        char told[64] = "";

        for (;;) {
                int r = daytona_look(&b->remote, c, ret);

                if (r == -ENODEV || (r == 0 && !is_on_its_way(ret->state)))
                        return r;
                if (r < 0 && !remote_is_passing(r))
                        return r;
                if (r == 0 && spec && strcmp(ret->raw, told) != 0) {
                        memcpy(told, ret->raw, sizeof(told));
                        remote_tell(b->remote.remote, spec, told);
                }
                r = rest(c, &step_ns, ret->raw);
                if (r < 0)
                        return r;
        }
}

static int failed_so(struct call *c, const struct box_status *status)
{
        return call_fail(c, -EIO, "the sandbox is %s%s%.200s", status->raw,
                         status->sentence[0] ? ": " : "", status->sentence);
}

int daytona_wait_started(struct daytona_box *b, struct call *c, const struct spec *spec)
{
        uint64_t step_ns = STEP_NS;

        for (;;) {
                struct box_status status = {0};
                int r = wait_settled(b, c, spec, &status);

                if (r < 0)
                        return r;
                if (status.state == BOX_RUNNING) {
                        remote_follow(&b->remote, BOX_RUNNING);
                        return 0;
                }
                if (status.state != BOX_UNKNOWN)
                        return failed_so(c, &status);
                r = rest(c, &step_ns, status.raw);
                if (r < 0)
                        return r;
        }
}

/* ---- changes ---- */

/* 0 begun; 1 refused since its state is another (in *ret_now), or changes: ask again. */
static int try_change(struct daytona_box *b, struct call *c, const char *method, const char *rest,
                      struct box_status *ret_now)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        /* A second time, it finds what the first did. */
        struct api_ask ask = {
                .method = method, .is_slow = true, .is_idempotent = true, .accepts = {400, 409}};
        char sentence[CALL_SENTENCE_MAX];
        int r = daytona_ask_box(b, c, rest, &ask, &reply, &j);

        if (r < 0 && daytona_is_no_call(reply.status, buf_str(&reply.body), reply.body.size))
                return call_wrap(c, -EOPNOTSUPP, "this Daytona has no such call");
        if (r < 0 || reply.status < 400)
                return r;
        daytona_sentence(buf_str(&reply.body), reply.body.size, sentence, sizeof(sentence));
        r = wait_settled(b, c, NULL, ret_now);
        if (r < 0)
                return r;
        (void)call_fail(c, -EBUSY, "the sandbox is \"%.60s\": %.200s", ret_now->raw, sentence);
        return 1;
}

/* Until it is `wanted`; what is so already is left alone. */
static int change(struct daytona_box *b, struct call *c, const char *rest_of_path,
                  enum box_state wanted)
{
        uint64_t step_ns = STEP_NS;

        for (unsigned i = 0;; i++) {
                struct box_status now = {0};
                int r = try_change(b, c, "POST", rest_of_path, &now);

                if (r == 0) {
                        r = wait_settled(b, c, NULL, &now);
                        if (r == -ENODEV && wanted == BOX_STOPPED) { /* it was ephemeral */
                                c->sentence[0] = '\0';
                                return 0;
                        }
                }
                if (r < 0)
                        return r;
                if (now.state == wanted) {
                        c->sentence[0] = '\0';
                        return 0;
                }
                if (now.state == BOX_ERROR)
                        return failed_so(c, &now);
                if (i == 3)
                        return c->sentence[0] ? -EBUSY : failed_so(c, &now);
                r = rest(c, &step_ns, now.raw);
                if (r < 0)
                        return r;
        }
}

int daytona_stop(struct remote_box *b, struct call *c)
{
        return change(daytona_box_of(b), c, "/stop", BOX_STOPPED);
}

int daytona_pause(struct remote_box *base, struct call *c)
{
        struct daytona_box *b = daytona_box_of(base);
        struct box_status status;
        struct http *h;
        int r = daytona_toolbox(b, c, &h); /* what class it is, too */

        if (r == 0 && atomic_load(&b->can_pause) != DAYTONA_PAUSE_CAN)
                r = daytona_look(base, c, &status);
        if (r < 0)
                return r;
        if (atomic_load(&b->can_pause) == DAYTONA_PAUSE_CAN_NOT)
                return call_fail(
                        c, -EOPNOTSUPP,
                        "Daytona can't pause a sandbox of this class: stop keeps its files");
        r = change(b, c, "/pause", BOX_PAUSED);
        return r == -EOPNOTSUPP ? call_wrap(c, r, "stop keeps its files") : r;
}

/* One in error that says so goes on from there; nothing else does. */
static int recover(struct daytona_box *b, struct call *c)
{
        return change(b, c, "/recover", BOX_RUNNING);
}

int daytona_resume(struct remote_box *base, struct call *c)
{
        struct daytona_box *b = daytona_box_of(base);
        struct box_status status;
        struct http *h;
        int r = daytona_look(base, c, &status);

        if (r < 0)
                return r;
        r = status.state == BOX_ERROR ? recover(b, c) : change(b, c, "/start", BOX_RUNNING);
        if (r == 0)
                r = daytona_toolbox(b, c, &h);
        if (r < 0)
                return r;
        http_renew(h); /* it is back, by new connections */
        atomic_store(&base->renewed_ns, clock_mono_ns());
        return 0;
}

int daytona_remove(struct remote_box *base, struct call *c)
{
        struct daytona_box *b = daytona_box_of(base);
        uint64_t step_ns = STEP_NS;

        for (unsigned i = 0;; i++) {
                struct box_status now = {0};
                int r = try_change(b, c, "DELETE", "", &now);

                if (r == 0)
                        r = wait_settled(b, c, NULL, &now);
                if (r == -ENODEV) {
                        c->sentence[0] = '\0';
                        return 0;
                }
                if (r == 1 && i >= REFUSALS_MAX)
                        return -EBUSY; /* with its sentence: it has forks, say */
                if (r >= 0)
                        r = rest(c, &step_ns, now.raw);
                if (r < 0)
                        return r;
        }
}

/* ---- in use ---- */

/* Any request to the toolbox that doesn't say otherwise. */
static int touch_toolbox(struct daytona_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        static const struct http_header touch = {.name = "X-Daytona-Source", .value = "sbxfs"};
        struct http_request q = {.path = "/version", .headers = &touch, .header_count = 1};

        return daytona_toolbox_do(b, c, &q, &reply, NULL);
}

int daytona_put_off(struct remote_box *base, struct call *c)
{
        struct daytona_box *b = daytona_box_of(base);
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        struct api_ask ask = {.method = "POST", .is_idempotent = true};
        int r;

        if (atomic_load(&b->has_no_touch))
                return touch_toolbox(b, c);
        r = daytona_ask_box(b, c, "/last-activity", &ask, &reply, &j);
        if (r < 0 && daytona_is_no_call(reply.status, buf_str(&reply.body), reply.body.size)) {
                atomic_store(&b->has_no_touch, true);
                c->sentence[0] = '\0';
                r = touch_toolbox(b, c);
        }
        return r;
}
