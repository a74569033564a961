/* SPDX-License-Identifier: Apache-2.0 */
/* The stream to the holder in a sandbox; see talk.h. */

#include "providers/inside/talk.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"

#define OUT_MAX ((size_t)16 << 20)
#define WAIT_STEP_NS (100 * NS_PER_MS)
#define CONNECT_NS (20 * NS_PER_S) /* an exec of a loaded engine takes its time */
#define RETRY_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS (5 * NS_PER_S)
#define DOWN_NS (3 * NS_PER_S) /* then nothing more is on its way from a container that is down */
#define PAUSE_NS (5 * NS_PER_S)

/* ---- birth and end ---- */

struct talk *talk_new(struct box *b, const struct inside_ops *ops)
{
        struct talk *a = calloc(1, sizeof(*a));

        if (!a)
                return NULL;
        a->box = b;
        a->ops = ops;
        a->in = BUF_INIT(2 * PROTO_ANSWER_MAX + ((size_t)1 << 20));
        mutex_init(&a->lock);
        cond_init(&a->changed);
        list_init(&a->waits);
        list_init(&a->execs);
        return a;
}

void talk_free(struct talk *a)
{
        if (!a)
                return;
        stream_close(a->stream);
        buf_done(&a->in);
        cond_done(&a->changed);
        mutex_done(&a->lock);
        free(a);
}

/* ---- sending ---- */

int talk_send_frames_locked(struct talk *a, const struct buf *frames)
{
        int r;

        if (!a->stream || a->is_over)
                return -EHOSTDOWN;
        if (stream_queued(a->stream) + frames->size > OUT_MAX)
                return -EAGAIN;
        r = stream_send(a->stream, frames->data, frames->size);
        return r == -EPIPE ? -EHOSTDOWN : r == -ENOBUFS ? -EAGAIN : r;
}

int talk_send_locked(struct talk *a, const struct proto_msg *m)
{
        _cleanup_(buf_wipe) struct buf frame = BUF_INIT(PROTO_FRAME_MAX + 16);
        int r = proto_add(&frame, m);

        return r < 0 ? r : talk_send_frames_locked(a, &frame);
}

void talk_wait_add_locked(struct talk *a, struct talk_wait *w)
{
        w->seq = ++a->seq;
        list_add_tail(&a->waits, &w->link);
}

/* A moment, or until something changed. 0, -EINTR, -ETIMEDOUT. */
static int pause_locked(struct talk *a, struct call *c) REQUIRES(a->lock)
{
        uint64_t step_ns = clock_after(WAIT_STEP_NS);
        int r = call_check(c);

        if (r == 0) /* looked at again */
                (void)cond_wait_until(&a->changed, &a->lock,
                                      step_ns < c->deadline_ns ? step_ns : c->deadline_ns);
        return r;
}

int talk_wait_locked(struct talk *a, struct talk_wait *w, struct call *c)
{
        uint64_t generation = a->generation;
        int r = 0;

        while (r == 0 && !w->is_done && !a->is_over && a->generation == generation)
                r = pause_locked(a, c);
        list_remove(&w->link);
        if (w->is_done)
                return 0;
        return r < 0 ? r : -EHOSTDOWN;
}

/* ---- receiving: on the stream's thread ---- */

static int on_hello(struct talk *a, const struct proto_msg *m)
{
        const struct proto_msg resume = {.type = PROTO_RESUME};

        if (m->hello.version != PROTO_VERSION)
                return -EPROTO;
        mutex_lock(&a->lock);
        a->is_greeted = true;
        a->is_paused = false;
        a->failures = 0;
        /* A frozen one would not have answered: somebody else has thawed it. */
        if (m->hello.is_paused)
                (void)talk_send_locked(a, &resume);
        talk_exec_reattach_locked(a);
        cond_broadcast(&a->changed);
        mutex_unlock(&a->lock);
        return 0;
}

static int on_reply(struct talk *a, const struct proto_msg *m)
{
        bool is_found = false;
        uint32_t last;

        mutex_lock(&a->lock);
        last = a->seq;
        list_for_each (at, &a->waits) {
                struct talk_wait *w = container_of(at, struct talk_wait, link);

                if (w->seq != m->reply.seq || w->is_done)
                        continue;
                w->is_done = is_found = true;
                w->code = -(int)m->reply.code;
                w->pid = m->reply.pid;
                (void)snprintf(w->sentence, sizeof(w->sentence), "%s", m->reply.sentence.data);
                cond_broadcast(&a->changed);
                break;
        }
        mutex_unlock(&a->lock);
        if (m->reply.seq > last)
                return -EPROTO; /* to a question that nobody asked */
        if (!is_found)
                talk_exec_on_reply(a, m);
        return 0;
}

static int dispatch(struct talk *a, const struct proto_msg *m)
{
        bool is_greeted;

        mutex_lock(&a->lock);
        is_greeted = a->is_greeted;
        mutex_unlock(&a->lock);
        if (is_greeted == (m->type == PROTO_HELLO))
                return -EPROTO;
        switch ((int)m->type) {
        case PROTO_HELLO: return on_hello(a, m);
        case PROTO_REPLY: return on_reply(a, m);
        case PROTO_OUTPUT: return talk_exec_on_output(a, m);
        case PROTO_TAKEN: return talk_exec_on_taken(a, m);
        case PROTO_END: return talk_exec_on_end(a, m);
        case PROTO_QUIET: return 0;
        default: return -EPROTO;
        }
}

static int parse(struct talk *a)
{
        size_t at = 0;
        int r;

        for (;;) {
                struct proto_msg m;
                size_t used;

                r = proto_parse(buf_str(&a->in) + at, a->in.size - at, PROTO_ANSWER_MAX, &m, &used);
                if (r > 0)
                        r = dispatch(a, &m) < 0 ? -EPROTO : 1;
                if (r <= 0)
                        break;
                at += used;
        }
        buf_drop(&a->in, at);
        return r;
}

static void over(struct talk *a, const char *sentence)
{
        mutex_lock(&a->lock);
        if (!a->is_over) {
                a->is_over = true;
                a->is_greeted = false;
                escape_sentence(sentence, strlen(sentence), a->sentence, sizeof(a->sentence));
                cond_broadcast(&a->changed);
        }
        mutex_unlock(&a->lock);
        a->ops->wake(a->box);
}

/* What the engine complains of a program comes as its output: text, no frame. */
static void complain(struct talk *a)
{
        char text[200];
        bool is_greeted;

        mutex_lock(&a->lock);
        is_greeted = a->is_greeted;
        mutex_unlock(&a->lock);
        (void)snprintf(text, sizeof(text), "%s%.150s",
                       is_greeted ? "process 1 of the sandbox broke its protocol"
                                  : "no word of process 1: ",
                       is_greeted ? "" : buf_str(&a->in));
        over(a, text);
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct talk *a = ctx;
        bool is_over;

        mutex_lock(&a->lock);
        is_over = a->is_over;
        mutex_unlock(&a->lock);
        if (is_over || is_stderr)
                return;
        if (buf_add(&a->in, data, size) < 0)
                over(a, "out of memory");
        else if (parse(a) < 0)
                complain(a);
        else
                talk_exec_ack_all(a);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct talk *a = ctx;

        if (a->in.size > 0 && end->error == 0)
                complain(a);
        else
                over(a, end->sentence[0] ? end->sentence : "the stream to the sandbox has ended");
}

/* ---- connecting ---- */

static int join(struct talk *a, struct call *c)
{
        const struct stream_events events = {.data = on_data, .end = on_end, .ctx = a};
        const struct proto_msg greet = {.type = PROTO_GREET, .greet = {.version = PROTO_VERSION}};
        struct stream *s = NULL;
        int r = a->ops->join(a->box, c, &events, &s);

        if (r < 0)
                return r;
        mutex_lock(&a->lock);
        a->stream = s;
        r = talk_send_locked(a, &greet);
        while (r == 0 && !a->is_greeted && !a->is_over)
                r = pause_locked(a, c);
        if (r == -ETIMEDOUT || r == -EINTR)
                (void)call_fail(c, r, "no word of the sandbox's process 1");
        else if (r == 0 && !a->is_greeted)
                r = -EHOSTDOWN;
        if (r == -EHOSTDOWN)
                (void)call_fail(c, r, "%s", a->sentence);
        if (r < 0)
                a->is_over = true;
        mutex_unlock(&a->lock);
        return r;
}

static int connect_once(struct talk *a, struct call *c)
{
        struct stream *old;
        int r = a->ops->check_runs(a->box, c);

        if (r < 0)
                return r;
        r = join(a, c);
        if (r == 0 || call_check(c) < 0)
                return r;
        r = a->ops->revive(a->box, c, r);
        if (r < 0)
                return r;
        mutex_lock(&a->lock);
        old = STEAL(a->stream);
        mutex_unlock(&a->lock);
        stream_close(old);
        mutex_lock(&a->lock);
        a->is_over = false;
        a->generation++;
        buf_clear(&a->in);
        mutex_unlock(&a->lock);
        return join(a, c);
}

/* What the next stream starts from. */
static void reset_locked(struct talk *a, struct stream **ret_old) REQUIRES(a->lock)
{
        *ret_old = STEAL(a->stream);
        a->is_greeted = false;
        a->generation++;
}

int talk_connect(struct talk *a, struct call *c)
{
        struct stream *old = NULL;
        uint64_t retry_ns;
        int r = 0;

        mutex_lock(&a->lock);
        while (a->is_connecting && r == 0)
                r = pause_locked(a, c);
        if (r < 0 || (a->is_greeted && !a->is_over)) {
                mutex_unlock(&a->lock);
                return r < 0 ? call_fail_errno(c, r, "the stream to the sandbox") : 0;
        }
        a->is_connecting = true;
        reset_locked(a, &old);
        mutex_unlock(&a->lock);
        stream_close(old); /* from here on, no event of it comes */
        mutex_lock(&a->lock);
        a->is_over = false;
        buf_clear(&a->in);
        mutex_unlock(&a->lock);

        r = connect_once(a, c);

        mutex_lock(&a->lock);
        a->is_connecting = false;
        if (r == 0) {
                a->is_wanted = false;
        } else {
                retry_ns = RETRY_NS << (a->failures < 6 ? a->failures : 6);
                a->retry_ns = clock_after(retry_ns < RETRY_MAX_NS ? retry_ns : RETRY_MAX_NS);
                a->failures++;
                a->is_over = true;
        }
        cond_broadcast(&a->changed);
        mutex_unlock(&a->lock);
        return r;
}

void talk_wanted(struct talk *a)
{
        mutex_lock(&a->lock);
        a->is_wanted = true;
        mutex_unlock(&a->lock);
        a->ops->wake(a->box);
}

/* ---- states ---- */

static bool is_down(enum box_state state)
{
        return state == BOX_STOPPED || state == BOX_GONE || state == BOX_ERROR;
}

void talk_follow(struct talk *a, enum box_state state)
{
        const struct proto_msg resume = {.type = PROTO_RESUME};

        mutex_lock(&a->lock);
        if (!is_down(state))
                a->down_ns = 0;
        else if (a->down_ns == 0)
                a->down_ns = clock_mono_ns();
        if (state == BOX_RUNNING && a->is_paused) {
                a->is_paused = false;
                (void)talk_send_locked(a, &resume); /* without a stream, HELLO tells */
        }
        a->retry_ns = 0;
        mutex_unlock(&a->lock);
        a->ops->wake(a->box);
}

void talk_pause(struct talk *a, bool is_paused)
{
        struct proto_msg m = {.type = is_paused ? PROTO_PAUSE : PROTO_RESUME};
        struct talk_wait w = {0};
        struct call c;

        call_init(&c, clock_after(PAUSE_NS));
        list_init(&w.link);
        mutex_lock(&a->lock);
        if (a->is_greeted) {
                talk_wait_add_locked(a, &w);
                if (is_paused)
                        m.pause.seq = w.seq;
                else
                        m.resume.seq = w.seq;
                a->is_paused = is_paused;
                if (talk_send_locked(a, &m) == 0)
                        (void)talk_wait_locked(a, &w, &c); /* then its clocks just go on */
                list_remove(&w.link);
        }
        mutex_unlock(&a->lock);
}

/* ---- the keeper's ---- */

static bool has_running_locked(struct talk *a) REQUIRES(a->lock)
{
        list_for_each (at, &a->execs) {
                const struct talk_exec *x = container_of(at, struct talk_exec, link);

                if (!x->is_ended && !x->is_starting)
                        return true;
        }
        return false;
}

bool talk_is_busy(struct talk *a)
{
        bool is_busy;

        mutex_lock(&a->lock);
        is_busy = has_running_locked(a);
        mutex_unlock(&a->lock);
        return is_busy;
}

uint64_t talk_tend(struct talk *a, struct call *c)
{
        bool is_needed, is_lost, is_up;
        uint64_t down_ns, retry_ns;
        int r;

        mutex_lock(&a->lock);
        is_up = a->is_greeted && !a->is_over;
        is_needed = has_running_locked(a) || a->is_wanted;
        down_ns = a->down_ns;
        retry_ns = a->retry_ns;
        is_lost = down_ns > 0 && (!is_up || clock_mono_ns() >= down_ns + DOWN_NS);
        if (down_ns > 0)
                a->is_wanted = false;
        mutex_unlock(&a->lock);
        if (!is_needed || (is_up && down_ns == 0))
                return NEVER_NS;
        if (is_lost) {
                talk_exec_lose_all(a, "the sandbox has ended");
                return NEVER_NS;
        }
        if (down_ns > 0)
                return down_ns + DOWN_NS;
        if (a->ops->is_frozen(a->box))
                return NEVER_NS; /* talk_follow tells when it isn't */
        if (retry_ns > clock_mono_ns())
                return retry_ns;
        c->deadline_ns = clock_after(CONNECT_NS);
        r = talk_connect(a, c);
        if (r < 0) {
                log_debug(a->ops->name, "%s: %s", a->box->id, c->sentence);
                a->ops->look(a->box, c); /* after a failure: what is it? Follows by itself */
        }
        mutex_lock(&a->lock);
        retry_ns = r < 0 ? (a->down_ns > 0 ? clock_after(NS_PER_MS) : a->retry_ns) : NEVER_NS;
        if (retry_ns == 0)
                retry_ns = clock_after(RETRY_NS);
        mutex_unlock(&a->lock);
        return retry_ns;
}
