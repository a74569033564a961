/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WebSockets, the client's side: frames to messages and back (pure), and the handshake. The bytes
 * between come and go by the stream of http_upgrade.
 *
 *      ws_connect(h, c, "/pty/1/ws", events, &s)    what arrives is for ws_feed
 *      ws_add(&buf, WS_BINARY, data, size)          what is sent is for stream_send
 *
 * Who reads answers WS_PING with WS_PONG and the same data, and WS_CLOSE with the like.
 *
 * Source: RFC 6455. No extension is asked for, so none is accepted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/buf.h"
#include "transport/stream.h"

struct call;
struct http;
struct http_reply;
struct http_request;

enum ws_kind { WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

#define WS_CONTROL_MAX 125 /* bytes that CLOSE, PING and PONG may have */
#define WS_HEADER_MAX 14

struct ws {
        /* A whole message: 0, or what ends the feeding. Borrowed; `data` ends with NUL. */
        int (*message)(void *ctx, enum ws_kind kind, const char *data, size_t size);
        void *ctx;
        unsigned char header[WS_HEADER_MAX];
        size_t have; /* bytes of the header */
        uint64_t left; /* bytes of the payload that are to come */
        bool is_in_payload;
        bool is_last; /* this frame ends its message */
        unsigned kind; /* of this frame; 0: the message goes on */
        unsigned begun; /* kind of the message that isn't whole; 0 none */
        bool is_closed; /* WS_CLOSE came */
        struct buf whole, control;
};

/* `max` bounds one message. */
#define WS_INIT(max_size, fn, context)                                                             \
        ((struct ws){.message = (fn),                                                              \
                     .ctx = (context),                                                             \
                     .whole = BUF_INIT(max_size),                                                  \
                     .control = BUF_INIT(WS_CONTROL_MAX + 1)})

/*
 * 0; -EPROTO what no server may send, a message that is too long, or anything behind WS_CLOSE;
 * -ENOMEM; or what `message` returned.
 */
int ws_feed(struct ws *w, const void *data, size_t size);
void ws_done(struct ws *w); /* wipes */

/* Append one message, masked as a client must. 0, -ENOMEM, -E2BIG, or of getrandom(2). */
int ws_add(struct buf *to, enum ws_kind kind, const void *data, size_t size);

/* Whether a server's Sec-WebSocket-Accept (NULL: none) is the answer to `key`. */
bool ws_is_accepted(const char *key, const char *accept);

/**
 * The handshake at `path`, which is as of struct http_request.
 *
 * Owner:  *ret to stream_close.
 * Errors: of http_upgrade; -EPROTO no WebSocket. *ret_status: the answer's; 0 none. May be NULL.
 */
int ws_connect(struct http *h, struct call *c, const char *path, const struct stream_events *events,
               unsigned *ret_status, struct stream **ret);

/* The same for a request with a path and headers of its own, and with the answer. */
int ws_ask(struct http *h, struct call *c, const struct http_request *request,
           const struct stream_events *events, struct http_reply *reply, struct stream **ret);

/**
 * The same, as a stream of messages.
 *
 * Shape:  what is sent goes as binary messages of at most WS_PART bytes; those that come are data,
 *         texts come as its other output. Pings are answered. Its end has no code: error 0 when the
 *         server closed it, with "1000 REASON" as the sentence; -EPROTO; else as http_upgrade's.
 * Owner:  *ret to stream_close.
 */
int ws_open(struct http *h, struct call *c, const struct http_request *request,
            const struct stream_events *events, struct http_reply *reply, struct stream **ret);

#define WS_PART ((size_t)32 << 10)
