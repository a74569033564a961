/* SPDX-License-Identifier: Apache-2.0 */
/* A WebSocket as a stream; see ws.h. What comes, comes on the loop's thread. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/http/http.h"
#include "transport/http/ws.h"

#define MESSAGE_MAX ((size_t)4 << 20)
#define EARLY_MAX ((size_t)64 << 10)

struct socket {
        struct stream base;
        struct stream_events to;
        struct ws ws; /* the loop's thread only */
        bool is_over; /* likewise: its end was handed on */

        struct mutex lock;
        /* guarded by lock */
        struct stream *raw; /* NULL: not there yet */
        struct buf early; /* answers to what came before it was */
        bool is_closed; /* a CLOSE was sent */
};

static struct socket *socket_of(struct stream *s)
{
        return container_of(s, struct socket, base);
}

/* ---- sending ---- */

static int send_frame_locked(struct socket *s, enum ws_kind kind, const void *data, size_t size)
        REQUIRES(s->lock)
{
        _cleanup_(buf_wipe) struct buf frame = BUF_INIT(WS_PART + WS_HEADER_MAX);
        int r;

        if (s->is_closed)
                return -EPIPE;
        r = ws_add(&frame, kind, data, size);
        if (r < 0)
                return r;
        s->is_closed = kind == WS_CLOSE;
        return s->raw ? stream_send(s->raw, frame.data, frame.size)
                      : buf_add(&s->early, frame.data, frame.size);
}

static int send_frame(struct socket *s, enum ws_kind kind, const void *data, size_t size)
{
        int r;

        mutex_lock(&s->lock);
        r = send_frame_locked(s, kind, data, size);
        mutex_unlock(&s->lock);
        return r;
}

static int send_data(struct stream *base, const void *data, size_t size)
{
        struct socket *s = socket_of(base);
        const char *at = data;
        int r = 0;

        mutex_lock(&s->lock);
        while (r == 0 && size > 0) {
                size_t n = size < WS_PART ? size : WS_PART;

                r = send_frame_locked(s, WS_BINARY, at, n);
                at += n;
                size -= n;
        }
        mutex_unlock(&s->lock);
        return r;
}

static int send_eof(struct stream *base)
{
        static const unsigned char normal[2] = {0x03, 0xe8}; /* 1000 */

        (void)send_frame(socket_of(base), WS_CLOSE, normal, 2); /* closed already: as well */
        return 0;
}

static size_t queued(struct stream *base)
{
        struct socket *s = socket_of(base);
        size_t size;

        mutex_lock(&s->lock);
        size = s->raw ? stream_queued(s->raw) : s->early.size;
        mutex_unlock(&s->lock);
        return size;
}

/* ---- events ---- */

static void finish(struct socket *s, const struct stream_end *end)
{
        if (s->is_over)
                return;
        s->is_over = true;
        s->to.end(s->to.ctx, end);
}

static void on_close(struct socket *s, const char *data, size_t size)
{
        struct stream_end end = {0};
        const unsigned char *code = (const unsigned char *)data;

        (void)send_frame(s, WS_CLOSE, data, size >= 2 ? 2 : 0); /* it goes anyway */
        if (size >= 2)
                (void)snprintf(end.sentence, sizeof(end.sentence), "%u %.*s",
                               (unsigned)code[0] << 8 | code[1], (int)(size - 2), data + 2);
        finish(s, &end);
}

static int on_message(void *ctx, enum ws_kind kind, const char *data, size_t size)
{
        struct socket *s = ctx;

        if (s->is_over)
                return 0;

        switch (kind) {
        case WS_BINARY:
        case WS_TEXT:
                if (size > 0)
                        s->to.data(s->to.ctx, kind == WS_TEXT, data, size);
                return 0;
        case WS_PING: (void)send_frame(s, WS_PONG, data, size); return 0; /* or it ends */
        case WS_CLOSE: on_close(s, data, size); return 0;
        case WS_PONG: return 0;
        }
        return -EPROTO;
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct socket *s = ctx;
        struct stream_end end = {.error = -EPROTO, .sentence = "what came is no WebSocket"};

        (void)is_stderr;
        if (!s->is_over && ws_feed(&s->ws, data, size) < 0)
                finish(s, &end);
}

static void on_drained(void *ctx)
{
        struct socket *s = ctx;

        if (!s->is_over && s->to.drained)
                s->to.drained(s->to.ctx);
}

static void on_end(void *ctx, const struct stream_end *raw)
{
        struct stream_end end = *raw;

        if (end.error == 0) { /* without a word */
                end.error = -EHOSTUNREACH;
                (void)snprintf(end.sentence, sizeof(end.sentence), "the connection was cut");
        }
        finish(ctx, &end);
}

/* ---- opened, closed ---- */

static void socket_free(struct socket *s)
{
        ws_done(&s->ws);
        buf_wipe(&s->early);
        mutex_done(&s->lock);
        free(s);
}

static void close_socket(struct stream *base)
{
        struct socket *s = socket_of(base);

        (void)send_eof(base);
        stream_close(s->raw); /* fixed by now */
        socket_free(s);
}

static const struct stream_ops socket_ops = {send_data, send_eof, queued, close_socket};

static struct socket *socket_new(const struct stream_events *events)
{
        struct socket *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->base.ops = &socket_ops;
        s->to = *events;
        s->early = BUF_INIT(EARLY_MAX);
        mutex_init(&s->lock);
        s->ws = WS_INIT(MESSAGE_MAX, on_message, s);
        return s;
}

static int attach(struct socket *s, struct stream *raw)
{
        int r;

        mutex_lock(&s->lock);
        s->raw = raw;
        r = s->early.size > 0 ? stream_send(raw, s->early.data, s->early.size) : 0;
        mutex_unlock(&s->lock);
        return r == -EPIPE ? 0 : r; /* its end tells */
}

int ws_open(struct http *h, struct call *c, const struct http_request *request,
            const struct stream_events *events, struct http_reply *reply, struct stream **ret)
{
        struct socket *s = socket_new(events);
        const struct stream_events of_raw = {
                .data = on_data, .drained = on_drained, .end = on_end, .ctx = s};
        struct stream *raw = NULL;
        int r;

        if (!s)
                return call_fail(c, -ENOMEM, "out of memory");
        r = ws_ask(h, c, request, &of_raw, reply, &raw);
        if (r == 0) {
                r = attach(s, raw);
                if (r < 0)
                        (void)call_fail_errno(c, r, "a WebSocket");
        }
        if (r < 0) {
                stream_close(raw);
                socket_free(s);
                return r;
        }
        *ret = &s->base;
        return 0;
}
