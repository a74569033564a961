/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of WebSockets; see ws.h. */

#include "transport/http/ws.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "transport/base/cleanup.h"
#include "transport/base/random.h"
#include "transport/http/http.h"
#include "transport/ssh/base64.h"

#define ACCEPT_MAX 64
#define SHA1_SIZE 20
#define HEADERS_MAX 16

/* ---- received ---- */

static bool is_control(unsigned kind)
{
        return kind >= WS_CLOSE;
}

/* Bytes that the header has, by its first two; of these, what is there is known. */
static size_t header_size(const struct ws *w)
{
        unsigned size = w->have < 2 ? 0 : w->header[1] & 0x7f;

        return 2 + (size == 126 ? 2u : size == 127 ? 8u : 0u);
}

static uint64_t payload_size(const struct ws *w)
{
        size_t end = header_size(w);
        uint64_t size = 0;

        if (end == 2)
                return w->header[1] & 0x7f;
        for (size_t i = 2; i < end; i++)
                size = size << 8 | w->header[i];
        return size;
}

/* The header is whole: what follows it? */
static int begin_frame(struct ws *w)
{
        unsigned flags = w->header[0];
        bool is_masked = w->header[1] & 0x80;

        w->kind = flags & 0x0f;
        w->is_last = flags & 0x80;
        w->left = payload_size(w);
        if ((flags & 0x70) || is_masked || w->is_closed)
                return -EPROTO;
        if (is_control(w->kind)) {
                if (w->kind > WS_PONG || !w->is_last || w->left > WS_CONTROL_MAX)
                        return -EPROTO;
                buf_clear(&w->control);
                return 0;
        }
        if (w->kind > WS_BINARY || (w->kind == 0) != (w->begun != 0) || w->left > w->whole.max ||
            w->whole.size + w->left > w->whole.max)
                return -EPROTO;
        if (w->kind != 0)
                w->begun = w->kind;
        return 0;
}

/* Its payload is whole. */
static int end_frame(struct ws *w)
{
        struct buf *of = is_control(w->kind) ? &w->control : &w->whole;
        unsigned kind = is_control(w->kind) ? w->kind : w->begun;
        int r = 0;

        w->have = 0;
        w->is_in_payload = false;
        w->is_closed = w->kind == WS_CLOSE;
        if (is_control(w->kind) || w->is_last) {
                r = w->message(w->ctx, (enum ws_kind)kind, buf_str(of), of->size);
                buf_clear(of);
        }
        if (!is_control(w->kind) && w->is_last)
                w->begun = 0;
        return r;
}

/* As much of `data` as belongs to this frame; *ret_used. */
static int take(struct ws *w, const char *data, size_t size, size_t *ret_used)
{
        int r;

        if (!w->is_in_payload) {
                w->header[w->have++] = (unsigned char)*data;
                *ret_used = 1;
                if (w->have < 2 || w->have < header_size(w))
                        return 0;
                r = begin_frame(w);
                if (r < 0)
                        return r;
                w->is_in_payload = true;
        } else {
                *ret_used = size < w->left ? size : (size_t)w->left;
                r = buf_add(is_control(w->kind) ? &w->control : &w->whole, data, *ret_used);
                if (r < 0)
                        return r == -E2BIG ? -EPROTO : r;
                w->left -= *ret_used;
        }
        return w->left == 0 ? end_frame(w) : 0;
}

int ws_feed(struct ws *w, const void *data, size_t size)
{
        const char *at = data;

        while (size > 0) {
                size_t used = 0;
                int r = take(w, at, size, &used);

                if (r != 0)
                        return r;
                at += used;
                size -= used;
        }
        return 0;
}

void ws_done(struct ws *w)
{
        buf_wipe(&w->whole);
        buf_wipe(&w->control);
}

/* ---- sent ---- */

int ws_add(struct buf *to, enum ws_kind kind, const void *data, size_t size)
{
        unsigned char header[WS_HEADER_MAX] = {(unsigned char)(0x80u | kind)}, *mask;
        size_t length = size < 126 ? 2 : size < 65536 ? 4 : 10;
        unsigned char *out;
        int r;

        header[1] = (unsigned char)(0x80u | (size < 126 ? size : size < 65536 ? 126 : 127));
        for (size_t i = length, rest = size; i > 2; i--, rest >>= 8)
                header[i - 1] = (unsigned char)rest;
        mask = header + length;
        r = random_bytes(mask, 4);
        if (r == 0)
                r = buf_add(to, header, length + 4);
        if (r == 0)
                r = buf_add(to, data, size);
        if (r < 0)
                return r;
        out = (unsigned char *)to->data + to->size - size;
        for (size_t i = 0; i < size; i++)
                out[i] ^= mask[i % 4];
        return 0;
}

/* ---- the handshake ---- */

bool ws_is_accepted(const char *key, const char *accept)
{
        static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        _cleanup_(buf_done) struct buf wanted = BUF_INIT(ACCEPT_MAX);
        unsigned char digest[SHA1_SIZE];
        char both[128];
        int size = snprintf(both, sizeof(both), "%s%s", key, guid);

        return accept && size > 0 && (size_t)size < sizeof(both) &&
               EVP_Digest(both, (size_t)size, digest, NULL, EVP_sha1(), NULL) == 1 &&
               base64_encode(&wanted, digest, sizeof(digest)) == 0 &&
               strcmp(buf_str(&wanted), accept) == 0;
}

int ws_ask(struct http *h, struct call *c, const struct http_request *request,
           const struct stream_events *events, struct http_reply *reply, struct stream **ret)
{
        _cleanup_(buf_done) struct buf key = BUF_INIT(ACCEPT_MAX);
        unsigned char bytes[16];
        struct stream *s = NULL;
        int r = random_bytes(bytes, sizeof(bytes));

        if (r == 0)
                r = base64_encode(&key, bytes, sizeof(bytes));
        if (r < 0)
                return call_fail_errno(c, r, "a key");
        struct http_header headers[HEADERS_MAX] = {
                {.name = "Sec-WebSocket-Key", .value = buf_str(&key)},
                {.name = "Sec-WebSocket-Version", .value = "13"},
        };
        struct http_request q = *request;

        assert(request->header_count + 2 <= HEADERS_MAX);
        for (size_t i = 0; i < request->header_count; i++)
                headers[2 + i] = request->headers[i];
        q.headers = headers;
        q.header_count = request->header_count + 2;
        r = http_upgrade(h, c, &q, "websocket", events, reply, &s);
        if (r < 0)
                return r;
        if (reply->status != 101 ||
            !ws_is_accepted(buf_str(&key), http_reply_header(reply, "Sec-WebSocket-Accept"))) {
                stream_close(s);
                return call_fail(c, -EPROTO, "the server doesn't speak WebSocket");
        }
        *ret = s;
        return 0;
}

int ws_connect(struct http *h, struct call *c, const char *path, const struct stream_events *events,
               unsigned *ret_status, struct stream **ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        const struct http_request q = {.path = path};
        int r = ws_ask(h, c, &q, events, &reply, ret);

        if (ret_status)
                *ret_status = reply.status;
        return r;
}
