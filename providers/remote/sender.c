/* SPDX-License-Identifier: Apache-2.0 */
/* Input by requests; see sender.h. */

#include "providers/remote/sender.h"

#include <errno.h>

#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"

#define QUEUE_MAX ((size_t)64 << 20)

static struct sender *sender_of(struct stream *s)
{
        return container_of(s, struct sender, base);
}

/* ---- what the service says ---- */

void sender_ready(struct sender *s)
{
        mutex_lock(&s->lock);
        s->is_ready = true;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

void sender_end(struct sender *s, const struct stream_end *end)
{
        bool is_first;

        mutex_lock(&s->lock);
        is_first = !s->is_ended;
        s->is_ended = true;
        s->has_exited |= end->error == 0;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
        if (is_first)
                s->to.end(s->to.ctx, end);
}

bool sender_has_ended(struct sender *s)
{
        bool is_ended;

        mutex_lock(&s->lock);
        is_ended = s->is_ended;
        mutex_unlock(&s->lock);
        return is_ended;
}

/* ---- the thread ---- */

int sender_take(struct sender *s, struct call *c, struct buf *part, size_t size_max)
{
        size_t size;
        int r = 0;

        buf_clear(part);
        mutex_lock(&s->lock);
        size = s->queue.size < size_max ? s->queue.size : size_max;
        if (size > 0)
                r = buf_add(part, s->queue.data, size);
        if (r == 0) {
                buf_drop(&s->queue, size);
                s->on_way = size;
        }
        mutex_unlock(&s->lock);
        return r < 0 ? call_fail_errno(c, r, "what a program is sent") : 0;
}

void sender_tell_drained(struct sender *s)
{
        bool is_low;

        mutex_lock(&s->lock);
        is_low = s->queue.size < STREAM_QUEUE_LOW;
        mutex_unlock(&s->lock);
        if (is_low && s->to.drained)
                s->to.drained(s->to.ctx);
}

/* It can't be told any more: whoever has the stream hears so, unless it has ended. */
static void give_up(struct sender *s, int error, const char *sentence)
{
        struct stream *raw;

        mutex_lock(&s->lock);
        raw = s->is_ended || s->is_closing ? NULL : STEAL(s->raw);
        mutex_unlock(&s->lock);
        if (!raw)
                return;
        stream_close(raw); /* from here on, no event of it comes */
        s->ops->fail(s, error, sentence);
}

static void put_some(struct sender *s, struct buf *part, bool is_eof)
{
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        buf_clear(part);
        mutex_lock(&s->lock);
        s->sending = &c;
        if (s->is_closing)
                call_cancel(&c);
        mutex_unlock(&s->lock);
        r = is_eof ? s->ops->put_eof(s, &c) : s->ops->put(s, &c, part);
        mutex_lock(&s->lock);
        s->sending = NULL;
        s->on_way = 0;
        s->is_deaf |= r < 0;
        mutex_unlock(&s->lock);
        if (r < 0 && !(s->ops->is_of_program && s->ops->is_of_program(r)))
                give_up(s, r, c.sentence);
        else if (r == 0 && !is_eof)
                sender_tell_drained(s);
}

static bool has_work_locked(struct sender *s) REQUIRES(s->lock)
{
        return s->is_ready && !s->is_deaf && !s->is_ended &&
               (s->queue.size > 0 || (s->is_eof && !s->is_eof_sent));
}

static void *put_all(void *arg)
{
        struct sender *s = arg;
        _cleanup_(buf_wipe) struct buf part = BUF_INIT(SENDER_PART);
        bool has_exited;

        mutex_lock(&s->lock);
        while (!s->is_closing) {
                bool is_eof = s->queue.size == 0;

                if (!has_work_locked(s)) {
                        cond_wait(&s->changed, &s->lock);
                        continue;
                }
                s->is_eof_sent = is_eof;
                mutex_unlock(&s->lock);
                put_some(s, &part, is_eof);
                mutex_lock(&s->lock);
        }
        has_exited = s->has_exited;
        mutex_unlock(&s->lock);
        if (!has_exited)
                s->ops->leave(s);
        return NULL;
}

/* ---- the stream ---- */

static int send(struct stream *base, const void *data, size_t size)
{
        struct sender *s = sender_of(base);
        int r;

        mutex_lock(&s->lock);
        r = s->is_ended || s->is_deaf || s->is_eof ? -EPIPE : buf_add(&s->queue, data, size);
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
        return r == -E2BIG ? -ENOBUFS : r;
}

static int send_eof(struct stream *base)
{
        struct sender *s = sender_of(base);

        mutex_lock(&s->lock);
        s->is_eof = true;
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
        return 0;
}

static size_t queued(struct stream *base)
{
        struct sender *s = sender_of(base);
        size_t size;

        mutex_lock(&s->lock);
        size = s->queue.size + s->on_way;
        mutex_unlock(&s->lock);
        return size;
}

static void close_sender(struct stream *base)
{
        struct sender *s = sender_of(base);
        struct stream *raw;

        mutex_lock(&s->lock);
        s->is_closing = true;
        if (s->sending)
                call_cancel(s->sending);
        raw = STEAL(s->raw);
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
        stream_close(raw);
        (void)pthread_join(s->thread, NULL); /* it was started */
        s->ops->free(s);
}

static const struct stream_ops sender_stream = {send, send_eof, queued, close_sender};

/* ---- birth ---- */

void sender_init(struct sender *s, const struct sender_ops *ops, const struct stream_events *to)
{
        s->base.ops = &sender_stream;
        s->ops = ops;
        s->to = *to;
        s->queue = BUF_INIT(QUEUE_MAX);
        mutex_init(&s->lock);
        cond_init(&s->changed);
}

void sender_done(struct sender *s)
{
        buf_wipe(&s->queue);
        cond_done(&s->changed);
        mutex_done(&s->lock);
}

int sender_start(struct sender *s, struct call *c, struct stream *raw)
{
        int r;

        mutex_lock(&s->lock);
        s->raw = raw;
        mutex_unlock(&s->lock);
        r = -pthread_create(&s->thread, NULL, put_all, s);
        if (r == 0)
                return 0;
        mutex_lock(&s->lock);
        s->raw = NULL;
        mutex_unlock(&s->lock);
        stream_close(raw);
        return call_fail_errno(c, r, "a thread");
}
