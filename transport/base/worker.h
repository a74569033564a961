/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded pool of threads for work that may block, and for work that is due later. Threads start
 * when needed and end when idle for long; an idle pool wakes nobody. Slow calls (creation,
 * destruction: minutes) have their own lane, so that they never keep an exec waiting; so have the
 * files of sandboxes, of which a dead service can hold many.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum worker_lane { WORKER_FAST, WORKER_SLOW, WORKER_FILES };
#define WORKER_LANES 3

struct workers;
typedef void (*worker_fn)(void *arg);

/* Threads at most, by lane. 0 or -errno. */
int workers_new(const unsigned max[WORKER_LANES], struct workers **ret);

/*
 * Runs what is queued until `deadline_ns`, drops what is due later, ends the threads. False: some
 * still ran at the deadline; the pool then isn't freed.
 */
bool workers_free(struct workers *w, uint64_t deadline_ns);

/*
 * Run fn(arg) on a thread of the lane, in order of submission as threads come free. -ENOMEM;
 * -ESHUTDOWN.
 */
int workers_submit(struct workers *w, enum worker_lane lane, worker_fn fn, void *arg);

/* Run fn(arg) at `due_ns` or soon after. *ret_id (may be NULL) is for workers_cancel. */
int workers_submit_at(struct workers *w, enum worker_lane lane, uint64_t due_ns, worker_fn fn,
                      void *arg, uint64_t *ret_id);

/* True: it will not run (the caller owns arg again). False: it ran, runs, or is no longer known. */
bool workers_cancel(struct workers *w, uint64_t id);
