/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program's stream whose input goes by requests: what is sent is queued, and a thread of its own
 * makes one request after the other of it. What the program prints comes by another stream, `raw`,
 * whose events the service takes apart; it says when input is taken and how the program ended.
 *
 *      sender_init -> sender_start -> sender_ready -> sender_end, whatever comes first -> closed
 *
 * A service's struct begins with struct sender; stream_close ends the thread, and frees it by
 * ops->free. Once sender_start was called, nobody else closes `raw`.
 *
 * Threads: put, put_eof and leave on the sender's own, one at a time; raw's events on raw's.
 * Locks:   `lock` is a leaf, and also the service's for fields that raw's thread and the sender's
 *          share; no function of the table is called with it.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "transport/base/buf.h"
#include "transport/base/lock.h"
#include "transport/stream.h"

struct call;
struct sender;

#define SENDER_PART ((size_t)1 << 20) /* what one part may hold */

struct sender_ops {
        /*
         * Some of what is queued goes out: sender_take, then requests; `part` is empty. `c` has no
         * deadline of its own yet, and is cancelled by a close. -errno with a sentence: the program
         * takes no more input, and fail() says so unless is_of_program().
         */
        int (*put)(struct sender *s, struct call *c, struct buf *part);
        /* Likewise: there is no more. */
        int (*put_eof)(struct sender *s, struct call *c);
        /* A failure that the program's own end tells better than we; NULL: none is. */
        bool (*is_of_program)(int r);
        /* `raw` was closed, as input can't be sent: sender_end, with what is known. */
        void (*fail)(struct sender *s, int error, const char *sentence);
        /* It is closed and the program hasn't exited, as far as we know: it isn't to stay behind. */
        void (*leave)(struct sender *s);
        /* The struct of which it is the head; sender_done first. */
        void (*free)(struct sender *s);
};

struct sender {
        struct stream base;
        const struct sender_ops *ops; /* fixed after init, as is: */
        struct stream_events to;
        pthread_t thread; /* fixed after start */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct stream *raw; /* NULL: closed by the thread, which gave up, or by a close */
        struct buf queue;
        size_t on_way; /* of what was queued, being sent */
        bool is_ready; /* the program takes input */
        bool is_eof, is_eof_sent;
        bool is_deaf; /* takes no more input */
        bool is_ended; /* its end was handed on, or is about to be */
        bool has_exited; /* and the program's own is known */
        bool is_closing;
        struct call *sending; /* the thread's, while it sends */
};

/* The rest of the service's struct is its own; `to` is copied. */
void sender_init(struct sender *s, const struct sender_ops *ops, const struct stream_events *to);
/* Of ops->free, or where it was not started. */
void sender_done(struct sender *s);
/* The thread begins. Takes `raw`, which is closed if that fails; then the caller frees the struct. */
int sender_start(struct sender *s, struct call *c, struct stream *raw);

/* The program takes input from now on. */
void sender_ready(struct sender *s);
/* The program ended, or the way to it did; only the first word counts, and is handed on. */
void sender_end(struct sender *s, const struct stream_end *end);
bool sender_has_ended(struct sender *s);

/*
 * Of ops->put: what is next of the queue, into `part`, `size_max` (SENDER_PART) at most; it stays
 * empty: nothing just now.
 */
int sender_take(struct sender *s, struct call *c, struct buf *part, size_t size_max);
/* Little is queued, if so: more may come. After each part of several that ops->put takes. */
void sender_tell_drained(struct sender *s);
