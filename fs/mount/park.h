/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that wait: any number of them, without a thread each.
 *
 *      WAITING   for its key, its time, or a signal of its caller     -> READY
 *      READY     in line for the loop's leader, which runs it again   -> RUNNING
 *      RUNNING   the leader is in it                                  -> replied, or settled again
 *      WORKING   a worker is in it, or will be                        -> replied, or settled again
 *
 * A wake between the tree's -EINPROGRESS and WAITING is not lost (wakes.h). An interrupt is
 * honoured as DESIGN.md section 9 says, then the request is answered -EINTR; one that was ignored
 * is thought over every 100 ms until the reply. Where the host limits the age of requests, they are
 * answered -EINTR before it, since the kernel would abort the whole connection.
 *
 * Threads: any. Nothing is called with the lock held.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct mount;
struct park;
struct parked;
struct request;
struct workers;

struct park_config {
        struct mount *mount; /* `loop`, `inval` and `wakes` are used */
        struct workers *workers;
        uint64_t age_max_ns; /* of a request; 0: no limit */
};

int park_new(const struct park_config *config, struct park **ret);
void park_free(struct park *p); /* accepts NULL; after park_close returned true */

/* Run a request; park a copy when it has to wait. Always ends in one reply, now or later. */
void park_serve(struct park *p, struct request *r);

/* What waits for `key` is run again soon. */
void park_wake(struct park *p, uint64_t key);

/* For the loop's leader. Ready means: woken, due, or to be answered as interrupted. */
struct parked *park_take_ready(struct park *p);
void park_serve_ready(struct park *p, struct parked *x);
uint64_t park_next_due_ns(struct park *p);

/* Answer everything, later ones at once; workers' calls are cancelled. True when all are
 * answered, by `deadline_ns` at the latest. */
bool park_close(struct park *p, uint64_t deadline_ns);
