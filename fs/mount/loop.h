/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that read /dev/fuse.
 *
 * One of them, the leader, reads a request, serves it itself, and reads the next: no hand-over
 * between threads, which would cost more than most requests do. A second, the deputy, looks once a
 * millisecond, only while there is traffic, whether the leader has been inside one operation since
 * its last look: a disk that hangs, say. Then the deputy reads on in its place, and the former
 * leader joins the idle ones when its operation ends. So `ls` goes on while any number of
 * operations (up to the number of threads) are stuck.
 *
 *      role      waits in              becomes
 *      leader    poll, without end     idle, when it was replaced while inside an operation
 *      deputy    a condition           leader, when the leader is stuck
 *      idle      a condition           deputy, when there is none; ends when enough are idle
 *
 * Nobody wakes up in an idle mount. What was parked and is to be run again is run by the leader
 * too, between requests.
 *
 * Threads: loop_kick and loop_end from any; loop_start, loop_join and loop_free from one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct loop_thread; /* one of the loop's threads */

/* What the loop serves. `ctx` is that of loop_new. Called by loop threads; receive and
 * serve_ready by the leader only. */
struct loop_ops {
        /* Read one request into `data`. Its size, 0: none there now, -ENODEV: the session is
         * over, other -errno: try again. */
        int (*receive)(void *ctx, void **data);
        /* Serve what receive has just read. May block. */
        void (*serve)(void *ctx, void *data, size_t size);
        /* Take one piece of other work that is ready by now; NULL: there is none. */
        void *(*take_ready)(void *ctx);
        void (*serve_ready)(void *ctx, void *work);
        /* When take_ready is worth asking again, CLOCK_MONOTONIC; NEVER_NS. */
        uint64_t (*next_due_ns)(void *ctx);
        /* of receive, at a thread's end; `data` may be NULL */
        void (*free_data)(void *ctx, void *data);
};

/* At most `thread_max` threads, at least 2. 0 or -errno. */
int loop_new(unsigned thread_max, const struct loop_ops *ops, void *ctx, struct loop **ret);

/* Start the first leader and deputy. `fd` becomes readable when receive has something; borrowed.
 * 0 or -errno. */
int loop_start(struct loop *l, int fd);

/* There may be ready work, or an earlier next_due_ns: the leader looks. */
void loop_kick(struct loop *l);

/* Let all threads end after the operation that they are in. */
void loop_end(struct loop *l);

/* Wait until the session is over or loop_end was called. */
void loop_wait(struct loop *l);

/* Wait for the end of all threads. False: some were still inside an operation at `deadline_ns`;
 * the loop must not be freed. */
bool loop_join(struct loop *l, uint64_t deadline_ns);

void loop_free(struct loop *l); /* accepts NULL; all threads have ended */
