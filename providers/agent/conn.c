/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/agent/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"

#define PROGRESS_NS (10 * NS_PER_S)
#define LOOK_NS (50 * NS_PER_MS) /* how often a waiter looks whether it was cancelled */
#define END_NS NS_PER_S /* for the end of a stream that takes no more */
#define SEND_LOOK_NS (20 * NS_PER_MS) /* likewise, and whether it moves */
/* The window, and one frame that began within it; heads count too. */
#define IN_MAX (WIRE_WINDOW + 2 * (WIRE_PAYLOAD_MAX + WIRE_HEAD))
#define ROOM_STEP (WIRE_WINDOW / 4)
#define OVERTAKEN_MAX 4096

/* ---- from the stream's thread ---- */

static struct agent_op *find_locked(struct agent *a, uint32_t id) REQUIRES(a->lock)
{
        list_for_each (at, &a->ops) {
                struct agent_op *op = container_of(at, struct agent_op, link);

                if (op->id == id)
                        return op;
        }
        return NULL;
}

static void fail_locked(struct agent *a, int error) REQUIRES(a->lock)
{
        if (a->error == 0)
                a->error = error;
        list_for_each (at, &a->ops)
                cond_broadcast(&container_of(at, struct agent_op, link)->changed);
        agent_let_go_locked(a);
}

static bool is_direct(const struct agent *a, const struct agent_op *op)
{
        return op->data && a->head.type == WIRE_DATA;
}

static int begin_frame_locked(struct agent *a) REQUIRES(a->lock)
{
        struct agent_op *op;

        wire_head_get(a->head_bytes, &a->head);
        a->left = a->head.size;
        if (a->head.size > WIRE_PAYLOAD_MAX || a->head.type < WIRE_DATA ||
            a->head.type > WIRE_TARGET || a->head.id == 0 || a->head.id > a->last_id)
                return -EPROTO;
        op = a->target = find_locked(a, a->head.id);
        if (!op)
                return 0;
        if (is_direct(a, op))
                return a->left > op->data_size - op->data_got ? -EPROTO : 0;
        /* never more than the window allows: the rest of the answer waits in the sandbox */
        return buf_add(&op->in, a->head_bytes, WIRE_HEAD) == -E2BIG ? -EPROTO : 0;
}

/*
 * Requests are carried out in about the order in which they began here: what others hear is no
 * progress for one whose answer is withheld for ever.
 */
static int count_overtaken_locked(struct agent *a, const struct agent_op *by) REQUIRES(a->lock)
{
        list_for_each (at, &a->ops) {
                struct agent_op *op = container_of(at, struct agent_op, link);

                if (op == by)
                        break;
                if (++op->overtaken > OVERTAKEN_MAX)
                        return -EPROTO;
        }
        return 0;
}

static int end_frame_locked(struct agent *a) REQUIRES(a->lock)
{
        struct agent_op *op = a->target;

        a->head_size = 0;
        a->target = NULL;
        if (!op || is_direct(a, op))
                return 0;
        op->whole = op->in.size;
        cond_signal(&op->changed);
        return a->head.type == WIRE_DONE ? count_overtaken_locked(a, op) : 0;
}

static int take_payload_locked(struct agent *a, const unsigned char *data, size_t size)
        REQUIRES(a->lock)
{
        struct agent_op *op = a->target;

        if (!op || size == 0)
                return 0;
        if (!is_direct(a, op))
                return buf_add(&op->in, data, size);
        memcpy(op->data + op->data_got, data, size);
        op->data_got += size;
        return 0;
}

/* Some of the bytes; how many, or -errno. */
static ssize_t take_locked(struct agent *a, const unsigned char *data, size_t size)
        REQUIRES(a->lock)
{
        size_t n;
        int r = 0;

        if (a->head_size < WIRE_HEAD) {
                n = WIRE_HEAD - a->head_size < size ? WIRE_HEAD - a->head_size : size;
                memcpy(a->head_bytes + a->head_size, data, n);
                a->head_size += n;
                if (a->head_size == WIRE_HEAD)
                        r = begin_frame_locked(a);
        } else {
                n = a->left < size ? a->left : size;
                r = take_payload_locked(a, data, n);
                a->left -= n;
        }
        if (r < 0)
                return r == -E2BIG ? -EPROTO : r;
        if (a->target)
                a->heard_ns = clock_mono_ns();
        if (a->head_size == WIRE_HEAD && a->left == 0)
                r = end_frame_locked(a);
        return r < 0 ? r : (ssize_t)n;
}

static void keep_locked(struct agent *a, const void *data, size_t size) REQUIRES(a->lock)
{
        size_t room = sizeof(a->said) - a->said_size;

        if (size > room)
                size = room;
        memcpy(a->said + a->said_size, data, size);
        a->said_size += size;
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct agent *a = ctx;
        const unsigned char *at = data;
        ssize_t n = 0;

        if (is_stderr)
                return; /* it says nothing there */
        mutex_lock(&a->lock);
        if (!a->is_greeted)
                keep_locked(a, data, size);
        for (; a->error == 0 && size > 0; at += n, size -= (size_t)n) {
                n = take_locked(a, at, size);
                if (n < 0)
                        break;
        }
        if (n < 0)
                fail_locked(a, (int)n);
        mutex_unlock(&a->lock);
}

static void on_drained(void *ctx)
{
        struct agent *a = ctx;

        mutex_lock(&a->lock);
        list_for_each (at, &a->ops)
                cond_broadcast(&container_of(at, struct agent_op, link)->changed);
        mutex_unlock(&a->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct agent *a = ctx;

        mutex_lock(&a->lock);
        a->end = *end;
        fail_locked(a, -EHOSTUNREACH);
        mutex_unlock(&a->lock);
}

/* ---- life ---- */

int agent_new(struct agent **ret)
{
        struct agent *a = calloc(1, sizeof(*a));

        if (!a)
                return -ENOMEM;
        atomic_init(&a->refs, 1);
        a->process = -1;
        list_init(&a->taken);
        a->events = (struct stream_events){
                .data = on_data, .drained = on_drained, .end = on_end, .ctx = a};
        mutex_init(&a->lock);
        list_init(&a->ops);
        *ret = a;
        return 0;
}

struct agent *agent_ref(struct agent *a)
{
        atomic_fetch_add(&a->refs, 1);
        return a;
}

void agent_unref(struct agent *a)
{
        if (!a || atomic_fetch_sub(&a->refs, 1) > 1)
                return;
        stream_close(a->stream);
        closep(&a->process);
        mutex_done(&a->lock);
        free(a);
}

const struct stream_events *agent_events(struct agent *a)
{
        return &a->events;
}

int agent_error(struct agent *a)
{
        int r;

        mutex_lock(&a->lock);
        r = a->error;
        mutex_unlock(&a->lock);
        return r;
}

int agent_greet(struct agent *a, struct call *c, struct stream *stream)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(WIRE_HEAD + 64);
        struct agent_op op;
        struct wire_head head;
        struct wire_in in;
        struct wire_out o;
        int r;

        assert(!a->stream);
        a->stream = stream;
        agent_op_begin(a, &op, c);
        wire_begin(&o, &frame, op.id, WIRE_HELLO);
        wire_u32(&o, WIRE_VERSION);
        r = wire_end(&o);
        if (r == 0)
                r = agent_send(&op, &frame);
        if (r == 0)
                r = agent_next(&op, &head, &in);
        if (r == 0)
                r = agent_take_done(&op, &head, &in);
        if (r == 0 && (wire_take_u32(&in) != WIRE_VERSION || !wire_is_whole(&in)))
                r = agent_is_wrong(&op, "greeting");
        agent_op_end(&op);
        mutex_lock(&a->lock);
        a->is_greeted = r == 0;
        mutex_unlock(&a->lock);
        return r;
}

/* What it said instead of a greeting, up to the end of the line. */
static int not_ours_locked(struct agent *a, struct call *c) REQUIRES(a->lock)
{
        char text[4 * AGENT_SAID_MAX + 1];
        size_t size = 0;

        while (size < a->said_size && a->said[size] != '\r' && a->said[size] != '\n')
                size++;
        escape_text(a->said, size, text, sizeof(text));
        return call_fail(c, -ENOEXEC, "%s", text);
}

int agent_start(struct agent *a, struct call *c, struct stream *stream)
{
        int r = agent_greet(a, c, stream);

        mutex_lock(&a->lock);
        if (r == -EPROTO)
                r = not_ours_locked(a, c);
        else if (r == -EHOSTUNREACH && a->said_size == 0 && a->end.error == 0 && a->end.has_code)
                r = call_fail(c, -ENOEXEC, "it ended with code %d", a->end.code);
        mutex_unlock(&a->lock);
        return r;
}

/* ---- operations ---- */

void agent_op_begin(struct agent *a, struct agent_op *op, struct call *c)
{
        *op = (struct agent_op){
                .agent = a, .call = c, .in = BUF_INIT(IN_MAX), .frames = BUF_INIT(IN_MAX)};
        cond_init(&op->changed);
        mutex_lock(&a->lock);
        op->id = ++a->last_id;
        list_add_tail(&a->ops, &op->link);
        mutex_unlock(&a->lock);
}

static void send_news(struct agent_op *op, enum wire_type type, uint32_t value)
{
        struct buf frame = BUF_INIT(WIRE_HEAD + 64);
        struct wire_out o;

        wire_begin(&o, &frame, op->id, type);
        if (type == WIRE_ROOM)
                wire_u32(&o, value);
        if (wire_end(&o) == 0) /* what can't be sent ends the connection sooner or later */
                (void)stream_send(op->agent->stream, frame.data, frame.size);
        buf_done(&frame);
}

void agent_op_end(struct agent_op *op)
{
        struct agent *a = op->agent;
        bool is_alive;

        mutex_lock(&a->lock);
        list_remove(&op->link);
        if (a->target == op)
                a->target = NULL;
        is_alive = a->error == 0;
        mutex_unlock(&a->lock);
        if (is_alive && !op->is_over)
                send_news(op, WIRE_CANCEL, 0);
        cond_done(&op->changed);
        buf_done(&op->in);
        buf_done(&op->frames);
}

static int ended_locked(struct agent *a, struct call *c) REQUIRES(a->lock)
{
        if (a->error == -EPROTO)
                return call_fail(c, -EPROTO, "the agent in the sandbox sent what can't be");
        if (a->error == -ENOMEM)
                return call_fail(c, -ENOMEM, "out of memory");
        return call_fail(c, a->error, "the agent in the sandbox ended%s%s",
                         a->end.sentence[0] ? ": " : "", a->end.sentence);
}

/* 0 to wait on: the deadline moves while something is heard. */
static int look_locked(struct agent_op *op) REQUIRES(op->agent->lock)
{
        struct call *c = op->call;
        int r;

        if (op->agent->error != 0)
                return ended_locked(op->agent, c);
        if (op->agent->heard_ns > 0 && c->deadline_ns < op->agent->heard_ns + PROGRESS_NS)
                c->deadline_ns = op->agent->heard_ns + PROGRESS_NS;
        r = call_check(c);
        return r == -ETIMEDOUT ? call_fail(c, r, "the agent in the sandbox doesn't answer") : r;
}

/* It takes no more: its end, which comes soon, says why. */
static int why_ended(struct agent_op *op)
{
        struct agent *a = op->agent;
        uint64_t until_ns = clock_after(END_NS);
        int r;

        mutex_lock(&a->lock);
        while (a->error == 0 && clock_mono_ns() < until_ns)
                (void)cond_wait_until(&op->changed, &a->lock, until_ns);
        fail_locked(a, -EHOSTUNREACH);
        r = ended_locked(a, op->call);
        mutex_unlock(&a->lock);
        return r;
}

int agent_send(struct agent_op *op, struct buf *frames)
{
        int r = stream_send(op->agent->stream, frames->data, frames->size);

        buf_clear(frames);
        if (r == -EPIPE)
                return why_ended(op);
        return r < 0 ? call_fail_errno(op->call, r, "send to the agent in the sandbox") : r;
}

int agent_wait_sent(struct agent_op *op)
{
        size_t queued, last = SIZE_MAX;
        int r = 0;

        while (r == 0 && (queued = stream_queued(op->agent->stream)) > AGENT_SEND_MAX) {
                mutex_lock(&op->agent->lock);
                if (queued < last)
                        op->agent->heard_ns = clock_mono_ns();
                last = queued;
                r = look_locked(op);
                if (r == 0)
                        (void)cond_wait_until(&op->changed, &op->agent->lock,
                                              clock_after(SEND_LOOK_NS));
                mutex_unlock(&op->agent->lock);
        }
        return r;
}

/* The whole frames that came are the caller's; 0 none. */
static size_t take_frames_locked(struct agent_op *op) REQUIRES(op->agent->lock)
{
        size_t rest = op->in.size - op->whole;
        struct buf taken = op->frames;

        if (op->whole == 0)
                return 0;
        buf_clear(&taken);
        op->frames = op->in;
        op->in = taken;
        op->frames_at = 0;
        /* the beginning of one that is coming */
        if (rest > 0 && buf_add(&op->in, op->frames.data + op->whole, rest) < 0)
                fail_locked(op->agent, -ENOMEM);
        op->frames.size = op->whole;
        op->whole = 0;
        return op->frames.size;
}

static void give_room(struct agent_op *op, size_t size)
{
        op->taken += size;
        if (op->taken < ROOM_STEP)
                return;
        send_news(op, WIRE_ROOM, (uint32_t)op->taken);
        op->taken = 0;
}

static int next_frame(struct agent_op *op, struct wire_head *head, struct wire_in *ret)
{
        const unsigned char *at = (const unsigned char *)op->frames.data + op->frames_at;

        wire_head_get(at, head);
        *ret = (struct wire_in){.at = at + WIRE_HEAD, .left = head->size};
        op->frames_at += WIRE_HEAD + head->size;
        return 1;
}

int agent_next_now(struct agent_op *op, struct wire_head *head, struct wire_in *ret)
{
        size_t came;

        if (op->frames_at == op->frames.size) {
                mutex_lock(&op->agent->lock);
                came = take_frames_locked(op);
                mutex_unlock(&op->agent->lock);
                if (came == 0)
                        return 0;
                give_room(op, came);
        }
        return next_frame(op, head, ret);
}

int agent_next(struct agent_op *op, struct wire_head *head, struct wire_in *ret)
{
        size_t came = 0;
        int r = 0;

        if (op->frames_at < op->frames.size)
                return next_frame(op, head, ret) - 1;
        mutex_lock(&op->agent->lock);
        while (r == 0 && (came = take_frames_locked(op)) == 0) {
                r = look_locked(op);
                if (r == 0)
                        (void)cond_wait_until(&op->changed, &op->agent->lock, clock_after(LOOK_NS));
        }
        mutex_unlock(&op->agent->lock);
        if (r < 0)
                return r;
        give_room(op, came);
        return next_frame(op, head, ret) - 1;
}

int agent_is_wrong(struct agent_op *op, const char *what)
{
        mutex_lock(&op->agent->lock);
        fail_locked(op->agent, -EPROTO);
        mutex_unlock(&op->agent->lock);
        return call_fail(op->call, -EPROTO, "the agent in the sandbox sent what can't be: %s",
                         what);
}

int agent_take_done(struct agent_op *op, const struct wire_head *head, struct wire_in *in)
{
        uint32_t told;

        if (head->type != WIRE_DONE)
                return agent_is_wrong(op, "another answer");
        op->is_over = true;
        told = wire_take_u32(in);
        if (in->is_bad || (told != 0 && in->left > 0))
                return agent_is_wrong(op, "an end");
        return wire_error(told);
}
