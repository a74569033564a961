/* SPDX-License-Identifier: Apache-2.0 */
/* Start, stop, pause, resume, destroy: one call of the engine each, and what surrounds it. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/docker/box.h"
#include "providers/docker/engine.h"
#include "providers/inside/talk.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/http/url.h"

/* Our process 1 gives what it runs 5 s between TERM and KILL; then the engine kills. */
#define STOP_S "10"
#define STOP_OTHERS_S "5"
#define LOOK_NS (50 * NS_PER_MS)
#define DISCARD_NS (20 * NS_PER_S)

/* ---- one change at a time ---- */

static int begin(struct docker_box *b, struct call *c, enum box_state meanwhile,
                 enum box_state *ret_before)
{
        int r = 0;

        mutex_lock(&b->lock);
        while (b->is_changing && r == 0) {
                (void)cond_wait_until(&b->changed, &b->lock, clock_after(LOOK_NS));
                r = call_check(c);
        }
        if (r == 0) {
                b->is_changing = true;
                *ret_before = b->state;
                b->state = meanwhile;
        }
        mutex_unlock(&b->lock);
        return r < 0 ? call_fail_errno(c, r, "another change of the sandbox goes on") : 0;
}

static void end(struct docker_box *b, enum box_state state)
{
        mutex_lock(&b->lock);
        b->state = state;
        b->is_changing = false;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
}

/* ---- calls of the engine ---- */

/* 0 also when it is so already (304). */
static int ask(struct docker_box *b, struct call *c, const char *method, const char *what,
               const char *query, const char *value, unsigned *ret_status)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        const struct engine_ask q = {
                .method = method, .path = &path, .accepts = {304}, .is_slow = true};
        int r = box_path(b, &path, what);

        if (r == 0 && query)
                r = url_add_query(&path, query, value);
        if (r == 0)
                r = engine_ask(b->docker->engine, c, &q, &reply, NULL);
        *ret_status = reply.status;
        return reply.status == 404 ? box_missing(b, c, r, reply.status) : r;
}

/* What it is by the engine; `otherwise` when that can't be said. */
static int now(struct docker_box *b, struct call *c, enum box_state *ret)
{
        struct box_status status;
        int r = box_inspect(b, c, &status);

        if (r == 0)
                *ret = status.state;
        return r;
}

static int refuse(struct call *c, enum box_state state)
{
        return call_fail(c, -EBUSY, "the sandbox is %s", box_state_name(state));
}

/*
 * From what it is to `to`: nothing to do when it is so, else `work`, if it is `from`. What it is
 * afterwards is asked after a failure: the engine may have done it all the same.
 */
static int change(struct box *box, struct call *c, enum box_state from, enum box_state meanwhile,
                  enum box_state to, int (*work)(struct docker_box *b, struct call *c))
{
        struct docker_box *b = docker_box_of(box);
        enum box_state before = BOX_UNKNOWN, is = BOX_UNKNOWN;
        int r = begin(b, c, meanwhile, &before);

        if (r < 0)
                return r;
        r = now(b, c, &is);
        if (r == 0 && is != to) {
                r = is == from ? work(b, c) : refuse(c, is);
                if (r == 0)
                        is = to;
        }
        end(b, r == -ENODEV ? BOX_GONE : r < 0 && is == BOX_UNKNOWN ? before : is);
        talk_follow(b->talk, r < 0 ? is : to);
        return r;
}

/* ---- start, stop ---- */

int life_start(struct docker_box *b, struct call *c)
{
        unsigned status;
        int r = put_init(b, c, DOCKER_DIR);

        return r < 0 ? r : ask(b, c, "POST", "/start", NULL, NULL, &status);
}

static int start(struct docker_box *b, struct call *c)
{
        const struct docker_facts *f = NULL;
        unsigned status;
        int r = docker_box_facts(b, c, &f);

        if (r < 0)
                return r;
        /* Ours is put there anew: of a creation that was cut short it may be missing. */
        return f->has_init ? life_start(b, c) : ask(b, c, "POST", "/start", NULL, NULL, &status);
}

int docker_box_start(struct box *box, struct call *c, const struct spec *spec)
{
        (void)spec; /* what commands get is the container's */
        return change(box, c, BOX_STOPPED, BOX_STARTING, BOX_RUNNING, start);
}

static int resume(struct docker_box *b, struct call *c)
{
        unsigned status;

        return ask(b, c, "POST", "/unpause", NULL, NULL, &status);
}

/* A paused one would not hear the TERM. */
int docker_box_stop(struct box *box, struct call *c)
{
        struct docker_box *b = docker_box_of(box);
        enum box_state before = BOX_UNKNOWN, is = BOX_UNKNOWN;
        const struct docker_facts *f;
        unsigned status;
        int r = begin(b, c, BOX_STOPPING, &before);

        if (r < 0)
                return r;
        r = now(b, c, &is);
        if (r == 0 && is == BOX_PAUSED)
                r = resume(b, c);
        if (r == 0 && is != BOX_STOPPED)
                r = docker_box_facts(b, c, &f);
        if (r == 0 && is != BOX_STOPPED)
                r = ask(b, c, "POST", "/stop", "t", f->has_init ? STOP_S : STOP_OTHERS_S, &status);
        end(b, r == 0 ? BOX_STOPPED : r == -ENODEV ? BOX_GONE : is == BOX_UNKNOWN ? before : is);
        talk_follow(b->talk, r == 0 ? BOX_STOPPED : is);
        return r;
}

/* ---- pause, resume ---- */

static int pause_it(struct docker_box *b, struct call *c)
{
        unsigned status;
        int r;

        talk_pause(b->talk, true); /* its time-outs stand still, too */
        r = ask(b, c, "POST", "/pause", NULL, NULL, &status);
        if (r < 0)
                talk_pause(b->talk, false);
        return r;
}

int docker_box_pause(struct box *box, struct call *c)
{
        return change(box, c, BOX_RUNNING, BOX_PAUSING, BOX_PAUSED, pause_it);
}

int docker_box_resume(struct box *box, struct call *c)
{
        return change(box, c, BOX_PAUSED, BOX_RESUMING, BOX_RUNNING, resume);
}

/* ---- destroy ---- */

/* Until the engine doesn't know it. */
static int wait_gone(struct docker_box *b, struct call *c)
{
        for (;;) {
                struct box_status status;
                int r = box_inspect(b, c, &status);

                if (r == -ENODEV) {
                        c->sentence[0] = '\0';
                        return 0;
                }
                if (r == 0 && status.state == BOX_ERROR)
                        return call_fail(c, -EIO, "%s", status.sentence);
                if (r == 0)
                        r = call_check(c);
                if (r < 0)
                        return call_wrap(c, r, "the container is still there");
                mutex_lock(&b->lock);
                (void)cond_wait_until(&b->changed, &b->lock, clock_after(LOOK_NS));
                mutex_unlock(&b->lock);
        }
}

static int remove_it(struct docker_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        const struct engine_ask q = {.method = "DELETE",
                                     .path = &path,
                                     .accepts = {404, 409},
                                     .is_slow = true,
                                     .is_idempotent = true};
        int r = box_path(b, &path, "");

        if (r == 0)
                r = url_add_query(&path, "force", "1");
        if (r == 0)
                r = url_add_query(&path, "v", "1");
        if (r == 0)
                r = engine_ask(b->docker->engine, c, &q, &reply, NULL);
        return r < 0 ? r : wait_gone(b, c); /* 409: its removal goes on */
}

int docker_box_destroy(struct box *box, struct call *c)
{
        struct docker_box *b = docker_box_of(box);
        enum box_state before = BOX_UNKNOWN;
        int r = begin(b, c, BOX_DESTROYING, &before);

        if (r < 0)
                return r;
        r = remove_it(b, c);
        end(b, r == 0 ? BOX_GONE : before);
        if (r == 0)
                talk_follow(b->talk, BOX_GONE);
        return r;
}

void life_discard(struct docker_box *b)
{
        struct call c;
        int r;

        call_init(&c, clock_after(DISCARD_NS));
        r = remove_it(b, &c);
        if (r < 0)
                log_debug("docker", "%s: removing what was made in vain: %s, ignoring", b->base.id,
                          c.sentence);
}
