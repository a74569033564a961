/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection that has left HTTP: bytes both ways, over libcurl's TLS or a plain socket. upgrade.c
 * makes one, and talks over its wire until the server has agreed; then it's a stream (tunnel.c).
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "transport/base/buf.h"
#include "transport/http/private.h"
#include "transport/stream.h"

struct wire {
        struct lane *lane; /* with its handle still in its multi handle */
        int fd;
        bool is_direct; /* a plain socket to the server itself: libcurl isn't asked any more */
        SSL *ssl; /* of TLS to the server; else NULL */
};

/* Neither waits. Bytes that moved; -EAGAIN; -EHOSTUNREACH; and of wire_receive 0: its end. */
ssize_t wire_send(struct wire *w, const void *data, size_t size);
ssize_t wire_receive(struct wire *w, void *data, size_t size);
/* We send no more. 0, -EAGAIN, -EHOSTUNREACH. */
int wire_shut(struct wire *w);
void wire_done(struct wire *w);

/*
 * Takes ownership of *wire and of what is in `early`, the first bytes that came, on success; the
 * stream then gets a reference of `h`.
 */
int tunnel_new(struct http *h, struct wire *wire, struct buf *early,
               const struct stream_events *events, struct stream **ret);
