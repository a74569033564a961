/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program at the far end of a connection, seen as bytes: what it is sent, what it prints, how it
 * ends. Implemented by an SSH channel (ssh/ssh.h), a child process (child.h), a socket (socket.h)
 * and what has left HTTP (http/http.h).
 *
 * Threads: stream_send and stream_close from any thread. Events come from one thread of the
 *          connection, never two at once for one stream; they must not block, and must not close
 *          a stream of the same connection. What they are given is borrowed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/call.h"

struct stream;

struct stream_end {
        int error; /* 0: the program ended; -errno: the connection did */
        bool has_code;
        int code; /* 0-255, where has_code */
        int signal; /* its number, 0 none */
        char sentence[256]; /* why, when error is set; foreign text */
};

struct stream_events {
        void (*data)(void *ctx, bool is_stderr, const void *data, size_t size);
        /* What was queued is below STREAM_QUEUE_LOW again. May be NULL. */
        void (*drained)(void *ctx);
        /* Once, the last event. */
        void (*end)(void *ctx, const struct stream_end *end);
        void *ctx;
};

#define STREAM_QUEUE_LOW (512 * 1024)

struct stream_ops {
        int (*send)(struct stream *s, const void *data, size_t size);
        int (*send_eof)(struct stream *s);
        size_t (*queued)(struct stream *s);
        void (*close)(struct stream *s);
};

/* Head of each implementation's struct. */
struct stream {
        const struct stream_ops *ops;
};

/* Queue bytes; never blocks. -EPIPE after its end, -ENOBUFS past 64 MiB queued, -ENOMEM. */
static inline int stream_send(struct stream *s, const void *data, size_t size)
{
        return s->ops->send(s, data, size);
}

/* No more will be sent: end of input for the program, after what is queued. */
static inline int stream_send_eof(struct stream *s)
{
        return s->ops->send_eof(s);
}

/* Bytes that were queued and that the connection has not taken yet. */
static inline size_t stream_queued(struct stream *s)
{
        return s->ops->queued(s);
}

/* Ends and frees it; no event comes after it has returned. Accepts NULL. */
static inline void stream_close(struct stream *s)
{
        if (s)
                s->ops->close(s);
}
