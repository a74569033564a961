/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox: made, found again, looked at, and what its service is asked for. */

#include "providers/e2b/box.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/e2b/api.h"
#include "providers/e2b/body.h"
#include "providers/e2b/envd.h"
#include "providers/e2b/program.h"
#include "providers/e2b/states.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/secret.h"
#include "transport/http/url.h"

#define REFRESH_MAX_S 3600
#define PAUSE_BUSY_NS (15 * NS_PER_S) /* how long something else may be at work there */
#define RESUME_BUSY_NS (80 * NS_PER_S) /* likewise: as another's, which the API bounds */
#define STEP_NS (250 * NS_PER_MS)
#define STEP_MAX_NS (2 * NS_PER_S)

/* ---- birth and end ---- */

static void box_free(struct remote_box *remote)
{
        struct e2b_box *b = e2b_box_of(remote);

        remote_box_done(remote);
        http_unref(b->envd);
        free(b->envd_url);
        wipe_free(b->envd_token);
        free(b);
}

static struct e2b_box *box_new(struct e2b_provider *e, const char *id, const struct spec *spec)
{
        struct e2b_box *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        b->e2b = e;
        if (remote_box_init(&b->remote, &e->remote, id, spec, spec ? e2b_timeout_s(spec) : 0) < 0) {
                free(b);
                return NULL;
        }
        return b;
}

int e2b_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                   struct box **ret)
{
        struct e2b_box *b;

        if (!e2b_is_id(id))
                return call_fail(c, -EINVAL, "\"%.64s\" is no sandbox's id", id);
        b = box_new(e2b_of(p), id, spec);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory");
        *ret = &b->remote.base;
        return 0;
}

/* ---- its life ---- */

static int look(struct remote_box *remote, struct call *c, struct box_status *ret)
{
        struct e2b_box *b = e2b_box_of(remote);
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        struct api_ask ask = {0};
        int r = e2b_api_ask_box(b, c, "", &ask, &reply, &j);

        if (r == 0)
                r = box_learn(b, c, j);
        if (r == 0)
                e2b_describe(j, ret);
        return r;
}

/* By `timeout`, which also shortens; of a sandbox that was adopted, what was there only grows. */
static int put_off(struct remote_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf body = BUF_INIT(64);
        struct api_ask ask = {.method = "POST", .body = &body, .is_idempotent = true};
        int r = b->timeout_s ? buf_addf(&body, "{\"timeout\":%" PRIu64 "}", b->timeout_s)
                             : buf_addf(&body, "{\"duration\":%d}", REFRESH_MAX_S);

        if (r < 0)
                return r;
        return e2b_api_ask_box(e2b_box_of(b), c, b->timeout_s ? "/timeout" : "/refreshes", &ask,
                               &reply, NULL);
}

static int rest(struct remote_box *b, struct call *c, uint64_t *step_ns)
{
        mutex_lock(&b->lock);
        (void)cond_wait_until(&b->changed, &b->lock, clock_after(*step_ns));
        mutex_unlock(&b->lock);
        *step_ns = *step_ns * 2 < STEP_MAX_NS ? *step_ns * 2 : STEP_MAX_NS;
        return call_check(c);
}

/*
 * 409 says that it is as wanted, or that something else is at work there, after which nothing comes
 * of what was asked: then it is asked again, for that long. -EBUSY with the service's sentence.
 */
static int insist(struct remote_box *b, struct call *c, enum box_state wanted, uint64_t for_ns,
                  int (*ask)(struct remote_box *b, struct call *c))
{
        uint64_t until_ns = clock_after(for_ns), step_ns = STEP_NS;

        for (;;) {
                struct box_status status;
                struct call look;
                int error, r = ask(b, c);

                if (r != -EBUSY)
                        return r;
                call_init(&look, c->deadline_ns);
                error = remote_look(b, &look, &status);
                if (error < 0)
                        return call_fail(c, error, "%s", look.sentence);
                if (status.state == wanted) {
                        c->sentence[0] = '\0';
                        return 0;
                }
                if (clock_mono_ns() >= until_ns)
                        return r;
                r = rest(b, c, &step_ns);
                if (r < 0)
                        return call_wrap(c, r, "the sandbox is still %s",
                                         box_state_name(status.state));
        }
}

static int ask_pause(struct remote_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf body = BUF_INIT(64);
        struct api_ask ask = {
                .method = "POST", .body = &body, .is_slow = true, .is_idempotent = true};
        int r = buf_add_str(&body, "{\"memory\":true}");

        if (r < 0)
                return call_fail_errno(c, r, "a request");
        return e2b_api_ask_box(e2b_box_of(b), c, "/pause", &ask, &reply, NULL);
}

static int pause_box(struct remote_box *b, struct call *c)
{
        return insist(b, c, BOX_PAUSED, PAUSE_BUSY_NS, ask_pause);
}

static int ask_resume(struct remote_box *remote, struct call *c)
{
        struct e2b_box *b = e2b_box_of(remote);
        uint64_t timeout_s = atomic_load(&remote->timeout_s);
        _cleanup_(json_freep) struct json *j = NULL;
        int r = e2b_api_resume(b, c, timeout_s ? timeout_s : E2B_TIMEOUT_DEFAULT_S, &j);

        return r == 0 && j ? box_learn(b, c, j) : r;
}

static int resume_box(struct remote_box *b, struct call *c)
{
        struct http *h = NULL;
        int r = insist(b, c, BOX_RUNNING, RESUME_BUSY_NS, ask_resume);

        if (r == 0)
                r = box_endpoint(e2b_box_of(b), c, &h);
        if (r < 0)
                return r;
        http_renew(h); /* it is back, by new connections */
        http_unref(h);
        return 0;
}

static int remove_box(struct remote_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        struct api_ask ask = {.method = "DELETE", .is_slow = true, .is_idempotent = true};
        struct box_status status;
        int r = e2b_api_ask_box(e2b_box_of(b), c, "", &ask, &reply, NULL);

        if (r < 0 || reply.status == 204)
                return r;
        r = look(b, c, &status); /* that was not the API's word for it */
        return r < 0 ? r : call_fail(c, -EPROTO, "what the service says it removed is there");
}

/* ---- our program in it ---- */

static int open_program(struct remote_box *b, struct call *c, const char *user,
                        const struct remote_program *p, const struct stream_events *events,
                        struct stream **ret)
{
        return e2b_program_open(e2b_box_of(b), c, user, p, events, ret);
}

static int run_program(struct remote_box *remote, struct call *c, const char *user,
                       const struct remote_program *p, struct buf *out, int *ret_code)
{
        struct e2b_box *b = e2b_box_of(remote);
        char version[32];
        struct http *h = NULL;
        int r = box_endpoint(b, c, &h); /* with it, the version */

        if (r < 0)
                return r;
        http_unref(h);
        box_version(b, version);
        if (!user && !e2b_since(version, "0.4.0"))
                user = "user"; /* no default of its own yet */
        return e2b_program_run(b, c, user, p, out, ret_code);
}

/* ---- files in it ---- */

static int add_file(struct buf *path, struct call *c, const char *user, const char *name)
{
        int r = url_add(path, "/files");

        if (r == 0)
                r = url_add_query(path, "path", name);
        if (r == 0)
                r = url_add_query(path, "username", user);
        return r < 0 ? call_fail_errno(c, r, "a request") : 0;
}

/* It truncates and isn't atomic; and gives the file to that user. */
static int upload(struct remote_box *remote, struct call *c, const char *user, const char *to,
                  struct http_source *from)
{
        struct e2b_box *b = e2b_box_of(remote);
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        const struct http_part part = {.name = "file",
                                       .file_name = "file",
                                       .type = "application/octet-stream",
                                       .source = from};
        struct http_request q = {.method = "POST", .all_ns = NEVER_NS, .is_idempotent = true};
        char version[32];
        int r = add_file(&path, c, user, to);

        if (r < 0)
                return r;
        q.path = buf_str(&path);
        box_version(b, version);
        if (e2b_since(version, "0.5.7")) {
                q.source = from;
                q.type = "application/octet-stream";
        } else {
                q.parts = &part;
                q.part_count = 1;
        }
        return e2b_envd_do(b, c, NULL, &q, &reply);
}

static int download(struct remote_box *remote, struct call *c, const char *user, const char *from,
                    const struct http_range *range, struct http_sink *sink)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {.range = range, .sink = sink};
        int r = add_file(&path, c, user, from);

        if (r < 0)
                return r;
        q.path = buf_str(&path);
        return e2b_envd_do(e2b_box_of(remote), c, NULL, &q, &reply);
}

const struct remote_ops e2b_remote = {
        .name = "e2b",
        .look = look,
        .put_off = put_off,
        .timeout_s = e2b_timeout_s,
        .pause = pause_box,
        .resume = resume_box,
        .remove = remove_box,
        .open = open_program,
        .run = run_program,
        .upload = upload,
        .download = download,
        .free = box_free,
        .half_ns = REFRESH_MAX_S * NS_PER_S / 2,
};

/* ---- create ---- */

/* Made, or made by a request whose answer was lost; it may not be known where its daemon is. */
static int make(struct e2b_provider *e, struct call *c, const struct spec *spec, char *ret_id,
                size_t size, struct json **ret)
{
        const char *id;
        bool was_sent;
        int r = e2b_api_create(e, c, spec, &was_sent, ret);

        if (r == 0) {
                id = json_string(json_get(*ret, "sandboxID"));
                if (id && e2b_is_id(id)) {
                        (void)snprintf(ret_id, size, "%s", id);
                        return 0;
                }
                r = call_fail(c, -EPROTO, "the service gave no id for the sandbox");
        }
        json_freep(ret);
        *ret = NULL;
        if (was_sent && remote_may_be_made(r) &&
            remote_find_made(&e->remote.base, c, spec, ret_id, size) == 0)
                return 0;
        return r;
}

int e2b_box_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret)
{
        struct e2b_provider *e = e2b_of(p);
        _cleanup_(json_freep) struct json *j = NULL;
        char id[sizeof((*ret)->id)];
        struct e2b_box *b;
        int r = e2b_check(spec, c);

        if (r < 0)
                return r;
        remote_tell(&e->remote, spec, "creating the sandbox");
        r = make(e, c, spec, id, sizeof(id), &j);
        if (r < 0)
                return r;
        b = box_new(e, id, spec);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory"); /* found by its label */
        r = j ? box_learn(b, c, j) : 0; /* else its daemon is asked for when it is needed */
        return remote_furnish(&b->remote, r, c, spec, ret);
}

/* ---- list ---- */

static int report(struct e2b_provider *e, const struct json *each, struct box_sink *to)
{
        struct box_found found = {.id = json_string(json_get(each, "sandboxID")),
                                  .key = e2b_metadata(each, METADATA_KEY),
                                  .name = e2b_metadata(each, METADATA_NAME)};

        if (!found.id || !e2b_is_id(found.id) ||
            strcmp(e2b_metadata(each, METADATA_OWNER), e->remote.owner) != 0)
                return 0;
        e2b_describe(each, &found.status);
        remote_follow_listed(&e->remote, found.id, found.status.state);
        return to->found(to, &found);
}

/* The older call knows those that run, all at once. */
static int list_path(struct e2b_provider *e, bool is_old, const char *next, struct buf *to)
{
        char filter[80];
        int r = url_add(to, is_old ? "/sandboxes" : "/v2/sandboxes");

        (void)snprintf(filter, sizeof(filter), METADATA_OWNER "=%s", e->remote.owner);
        if (r == 0 && !is_old)
                r = url_add_query(to, "state", "running,paused");
        if (r == 0)
                r = url_add_query(to, "metadata", filter);
        if (r < 0 || is_old)
                return r;
        if (r == 0)
                r = url_add_query_number(to, "limit", 100);
        return r == 0 && next ? url_add_query(to, "nextToken", next) : r;
}

static int ask_list(struct e2b_provider *e, struct call *c, const char *next,
                    struct http_reply *reply, struct json **ret)
{
        for (;;) {
                _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
                struct api_ask ask = {0};
                bool is_old = atomic_load(&e->has_old_list);
                int r = list_path(e, is_old, *next ? next : NULL, &path);

                if (r < 0)
                        return call_fail_errno(c, r, "a request");
                ask.path = buf_str(&path);
                r = e2b_api_ask(e, c, &ask, reply, ret);
                if (r == 0 || is_old || !e2b_is_other_variant(reply->status, c->sentence))
                        return r;
                atomic_store(&e->has_old_list, true);
                c->sentence[0] = '\0';
        }
}

/* One page; the token of the next one is left in `next`, "" the last. */
static int list_page(struct e2b_provider *e, struct call *c, struct box_sink *to, char *next,
                     size_t size)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        const char *token;
        int r = ask_list(e, c, next, &reply, &j);

        if (r < 0)
                return r;
        if (j && json_type(j) != JSON_ARRAY && json_type(j) != JSON_NULL)
                return call_fail(c, -EPROTO, "the service's list of sandboxes is none");
        for (const struct json *each = json_first(j); each && r == 0; each = json_next(each))
                r = report(e, each, to);
        token = http_reply_header(&reply, "X-Next-Token");
        if (r == 0 && token && (strlen(token) >= size || strcmp(token, next) == 0))
                return call_fail(c, -EPROTO, "the service's list of sandboxes goes in circles");
        (void)snprintf(next, size, "%s", token ? token : "");
        return r;
}

int e2b_box_list(struct provider *p, struct call *c, struct box_sink *to)
{
        char next[4096] = "";
        int r;

        for (unsigned page = 0; page < 1000; page++) {
                r = list_page(e2b_of(p), c, to, next, sizeof(next));
                if (r != 0 || !next[0])
                        return r < 0 ? r : 0;
        }
        return call_fail(c, -EPROTO, "the service's list of sandboxes has no end");
}
