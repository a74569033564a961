/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands between libssh2 and the socket: both directions are buffered here, so that libssh2 is
 * a machine that never waits.
 *
 * What it sends is taken whole, always: it never sees a half-sent packet, after which it would
 * have to be called again in exactly the same way before anything else (its read calls, which also
 * send window adjustments, fail at that). Whoever drives it lets the output grow only while
 * sock_output() is small. What it reads is asked of the kernel in large pieces, only when there is
 * something, and acknowledged at once: a server with Nagle's algorithm waits for that.
 *
 * All memory of libssh2 is counted here too, because a server may make it queue packets that
 * nobody will fetch: past SOCK_MEMORY_MAX it gets none, which ends the connection.
 *
 * One thread at a time: who connects, then the session's own.
 */
#pragma once

#include <libssh2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "transport/base/buf.h"
#include "transport/base/list.h"

struct call;

#define SOCK_MEMORY_MAX ((size_t)128 << 20)
#define SOCK_TURN_MAX ((size_t)4 << 20) /* what libssh2 may read before it gives us a turn */

struct sock {
        int fd;
        int log_fd; /* standard error of the program that is the connection; -1 */
        LIBSSH2_SESSION *session;
        char *in; /* received and not yet taken by libssh2: in_at to in_size */
        size_t in_at, in_size;
        struct buf out; /* from out_at: not yet sent */
        size_t out_at;
        size_t turn_left;
        uint64_t taken; /* bytes that libssh2 took, ever */
        uint64_t heard_ns; /* when the server last said anything */
        size_t memory; /* in libssh2's hands */
        struct list blocks; /* of it */
        int error; /* -errno of the socket; set with is_ended */
        bool is_readable; /* as poll and recv have it */
        bool is_ended; /* nothing will come any more */
        bool is_shut; /* by us: libssh2's calls fail at once */
        bool is_wiping; /* what libssh2 frees is overwritten: while secrets are about */
        const char *password; /* for its questions, while logging in; borrowed */
        struct call *call; /* whom its agent's answers may keep waiting, while logging in */
        char parting[128]; /* what the server said when it hung up; fit for a line */
        char log[256]; /* the end of what came from log_fd; raw */
        size_t log_size;
};

/* Takes the descriptors, also when it fails. -ENOMEM. */
int sock_init(struct sock *k, int fd, int log_fd);
void sock_done(struct sock *k); /* frees the session, whatever its state; never waits */

/* Send what there is, as far as it goes. -errno when the connection is gone. */
int sock_flush(struct sock *k);
/* Whether the kernel has sent most of what it has (TCP_NOTSENT_LOWAT). */
bool sock_is_writable(const struct sock *k);
static inline size_t sock_output(const struct sock *k)
{
        return k->out.size - k->out_at;
}
/* Whether libssh2 would get something to read. */
static inline bool sock_has_input(const struct sock *k)
{
        return k->in_at < k->in_size || (k->is_readable && !k->is_ended);
}
/* Take poll's word. */
void sock_polled(struct sock *k, short revents);
void sock_read_log(struct sock *k);

/**
 * While connecting: after LIBSSH2_ERROR_EAGAIN, wait until calling again may help.
 *
 * Errors: -ETIMEDOUT, -EINTR; -EHOSTUNREACH the server is gone. With their sentence.
 */
int sock_wait(struct sock *k, struct call *c);

/* Repeat `expression` until it is something else than EAGAIN: its result in rc; r < 0 stops it. */
#define SOCK_AWAIT(k, c, r, rc, expression)                                                        \
        do {                                                                                       \
                (rc) = (expression);                                                               \
                (r) = (rc) == LIBSSH2_ERROR_EAGAIN ? sock_wait(k, c) : 0;                          \
        } while ((rc) == LIBSSH2_ERROR_EAGAIN && (r) == 0)

/* Why the connection ended, for people: what the server said, or the socket. Fit for a line. */
void sock_reason(const struct sock *k, char *text, size_t size);

/* Memory that libssh2 may free. */
void *sock_alloc(size_t size, void **abstract);
