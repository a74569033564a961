/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection that has left HTTP, as a stream. Over a direct socket who sends tries at once; what
 * doesn't go is queued for the thread. libcurl's handle is the thread's alone.
 *
 * Locks: `lock` guards the queue and the flags; it is held for system calls that can't block, and
 *        never for an event.
 */

#include "transport/http/tunnel.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/http/loop.h"

#define QUEUE_MAX ((size_t)64 << 20)
#define CHUNK ((size_t)128 << 10)
#define ROUNDS 8 /* of reading in one step: others want their turn */

struct tunnel {
        struct lasting w; /* first */
        struct wire wire;
        /* thread only */
        struct buf early;
        unsigned char *chunk;
        bool has_more; /* there may be more to read than the socket shows */
        struct mutex lock;
        /* guarded by lock */
        struct buf queue;
        size_t head; /* bytes of the queue that are gone */
        bool is_high; /* `drained` is owed */
        bool has_eof; /* nothing follows what is queued */
        bool sent_eof;
        bool is_over;
};

static struct tunnel *tunnel_of(struct lasting *w)
{
        return container_of(w, struct tunnel, w);
}

static size_t queued_locked(const struct tunnel *t)
{
        return t->queue.size - t->head;
}

/* ---- on the thread ---- */

static void want(struct lasting *w, int *fd, short *events, uint64_t *until_ns)
{
        struct tunnel *t = tunnel_of(w);

        *fd = t->wire.fd;
        *events = POLLIN;
        mutex_lock(&t->lock);
        if (queued_locked(t) > 0 || (t->has_eof && !t->sent_eof))
                *events |= POLLOUT;
        mutex_unlock(&t->lock);
        if (t->has_more)
                *until_ns = 0;
}

/* 0, or -EHOSTUNREACH. */
static int send_queue_locked(struct tunnel *t) REQUIRES(t->lock)
{
        while (queued_locked(t) > 0) {
                ssize_t n = wire_send(&t->wire, t->queue.data + t->head, queued_locked(t));

                if (n == -EAGAIN)
                        return 0;
                if (n < 0)
                        return (int)n;
                t->head += (size_t)n;
        }
        buf_clear(&t->queue);
        t->head = 0;
        if (t->has_eof && !t->sent_eof) {
                int r = wire_shut(&t->wire);

                if (r == -EAGAIN)
                        return 0;
                t->sent_eof = true;
                return r;
        }
        return 0;
}

static int send_some(struct tunnel *t)
{
        bool has_drained;
        int r;

        mutex_lock(&t->lock);
        r = send_queue_locked(t);
        has_drained = t->is_high && queued_locked(t) < STREAM_QUEUE_LOW;
        if (has_drained)
                t->is_high = false;
        mutex_unlock(&t->lock);
        if (has_drained && t->w.events.drained)
                t->w.events.drained(t->w.events.ctx);
        return r;
}

/* 1: goes on; 0: the server's end; -errno. */
static int read_some(struct tunnel *t)
{
        if (t->early.size > 0) {
                t->w.events.data(t->w.events.ctx, false, t->early.data, t->early.size);
                buf_done(&t->early);
        }
        t->has_more = true;
        for (int i = 0; i < ROUNDS; i++) {
                ssize_t n = wire_receive(&t->wire, t->chunk, CHUNK);

                if (n == -EAGAIN) {
                        t->has_more = false;
                        return 1;
                }
                if (n <= 0)
                        return (int)n;
                t->w.events.data(t->w.events.ctx, false, t->chunk, (size_t)n);
        }
        return 1;
}

static bool step(struct lasting *w, short revents)
{
        struct tunnel *t = tunnel_of(w);
        struct stream_end end = {0};
        int r, sent;

        (void)revents;
        sent = send_some(t);
        r = read_some(t); /* also when sending failed: the end of what it says is still there */
        if (r > 0 && sent == 0)
                return true;
        mutex_lock(&t->lock);
        t->is_over = true;
        buf_done(&t->queue);
        t->head = 0;
        mutex_unlock(&t->lock);
        end.error = r < 0 ? r : r > 0 ? sent : 0;
        if (end.error < 0)
                (void)snprintf(end.sentence, sizeof(end.sentence), "%.200s: the connection was cut",
                               t->w.http->name);
        w->events.end(w->events.ctx, &end);
        return false;
}

static void tunnel_free(struct lasting *w)
{
        struct tunnel *t = tunnel_of(w);

        wire_done(&t->wire);
        buf_done(&t->early);
        buf_done(&t->queue);
        mutex_done(&t->lock);
        free(t->chunk);
        free(t);
}

static const struct lasting_ops tunnel_ops = {.want = want, .step = step, .free = tunnel_free};

/* ---- its user's side ---- */

static struct tunnel *from_stream(struct stream *s)
{
        return tunnel_of(container_of(s, struct lasting, stream));
}

static int queue_locked(struct tunnel *t, const unsigned char *data, size_t size) REQUIRES(t->lock)
{
        int r;

        if (t->head > t->queue.size / 2) {
                buf_drop(&t->queue, t->head);
                t->head = 0;
        }
        r = buf_add(&t->queue, data, size);
        if (queued_locked(t) >= STREAM_QUEUE_LOW)
                t->is_high = true;
        return r == -E2BIG ? -ENOBUFS : r;
}

static int send_locked(struct tunnel *t, const unsigned char *data, size_t size) REQUIRES(t->lock)
{
        if (t->is_over || t->has_eof)
                return -EPIPE;
        if (queued_locked(t) + size > QUEUE_MAX)
                return -ENOBUFS;
        if (t->wire.is_direct && queued_locked(t) == 0) {
                ssize_t n = wire_send(&t->wire, data, size);

                if (n < 0 && n != -EAGAIN)
                        return -EPIPE; /* the thread hears of it, too, and tells the end */
                if (n > 0) {
                        data += n;
                        size -= (size_t)n;
                }
        }
        return size > 0 ? queue_locked(t, data, size) : 0;
}

static int do_send(struct stream *s, const void *data, size_t size)
{
        struct tunnel *t = from_stream(s);
        bool wakes;
        int r;

        mutex_lock(&t->lock);
        wakes = queued_locked(t) == 0;
        r = send_locked(t, data, size);
        wakes = wakes && queued_locked(t) > 0;
        mutex_unlock(&t->lock);
        if (wakes)
                loop_wake(&t->w);
        return r;
}

static int do_send_eof(struct stream *s)
{
        struct tunnel *t = from_stream(s);
        int r;

        mutex_lock(&t->lock);
        r = t->is_over ? -EPIPE : 0;
        t->has_eof = true;
        mutex_unlock(&t->lock);
        loop_wake(&t->w);
        return r;
}

static size_t do_queued(struct stream *s)
{
        struct tunnel *t = from_stream(s);
        size_t size;

        mutex_lock(&t->lock);
        size = queued_locked(t);
        mutex_unlock(&t->lock);
        return size;
}

static void do_close(struct stream *s)
{
        loop_leave(container_of(s, struct lasting, stream));
}

static const struct stream_ops tunnel_stream = {do_send, do_send_eof, do_queued, do_close};

int tunnel_new(struct http *h, struct wire *wire, struct buf *early,
               const struct stream_events *events, struct stream **ret)
{
        struct tunnel *t = calloc(1, sizeof(*t));
        int r;

        if (!t)
                return -ENOMEM;
        t->w = (struct lasting){
                .stream.ops = &tunnel_stream, .ops = &tunnel_ops, .events = *events, .http = h};
        t->queue = BUF_INIT(QUEUE_MAX * 2);
        t->wire.fd = -1;
        t->chunk = malloc(CHUNK);
        mutex_init(&t->lock);
        if (!t->chunk) {
                tunnel_free(&t->w);
                return -ENOMEM;
        }
        t->wire = *wire;
        t->early = *early;
        r = loop_add(&t->w);
        if (r < 0) { /* they are the caller's still */
                t->wire = (struct wire){.fd = -1};
                t->early = (struct buf){0};
                tunnel_free(&t->w);
                return r;
        }
        *wire = (struct wire){.fd = -1};
        *early = (struct buf){0};
        *ret = &t->w.stream;
        return 0;
}
