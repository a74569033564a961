/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process as the system sees it: in the background once the mount answers, ended by signals.
 *
 * Order: daemon_start before any thread and library; daemon_watch_signals before any other thread,
 *        since these inherit what it blocks; daemon_ready once.
 */
#pragma once

#include <stdbool.h>

struct signal_watch;

struct daemon {
        int ready; /* how the child tells the process that the user started: a pipe's end, or -1 */
        struct signal_watch *watch; /* NULL: none */
};

/**
 * Fork, and go on in the child; the parent waits for daemon_ready and exits with 0, or with the
 * child's status when that ended before, whose standard error is still the user's.
 *
 * Errors: -errno of pipe or fork; nothing has changed then.
 */
int daemon_start(struct daemon *d);

/*
 * The mount answers: let the parent go and give back the user's terminal.
 * Does nothing in the foreground.
 */
void daemon_ready(struct daemon *d);

/**
 * Call stop(ctx) at the first SIGTERM, SIGINT or SIGHUP, on a thread of its own; a second one, once
 * stop has returned, ends the process at once. What is on disk is whole at every moment.
 *
 * Errors: -errno: no thread.
 */
int daemon_watch_signals(struct daemon *d, void (*stop)(void *ctx), void *ctx);

/* stop(ctx) is not called any more, nor does it run, when this returns. Accepts that nothing is watched. */
void daemon_forget_stop(struct daemon *d);
