/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of one mount, from the mount to the end of the last request.
 *
 *      session_new -> tree_new(session_events) -> session_mount -> session_run
 *              -> tree_stop -> workers_free -> session_free
 *
 * Threads: session_stop and the events may be called from any thread at any time after session_new;
 * the others from one.
 */
#pragma once

#include <stdbool.h>

struct call;
struct session;
struct tree;
struct tree_events;
struct workers;

struct session_config {
        const char *mountpoint; /* absolute, without links; borrowed until session_free */
        bool allow_other;
        bool is_readonly;
        bool no_exec;
        struct workers *workers;
        /* `reload` of the root's ctl; on a worker. */
        int (*reload)(void *ctx, struct call *c);
        void *reload_ctx;
};

int session_new(const struct session_config *config, struct session **ret);

/* What the tree tells the kernel. Before the mount nothing comes of it. */
const struct tree_events *session_events(struct session *s);

/**
 * Mount, a dead predecessor cleared away first, and start to serve.
 *
 * Errors: -EBUSY a living sbxfs is mounted there; -ECANCELED session_stop was called; -EIO and
 *         others: not mounted, why is in the sentence, or libfuse and fusermount3 say it on stderr.
 */
int session_mount(struct session *s, struct tree *tree, struct call *c);

/**
 * Wait until it is unmounted, by whomever; then answer what is still parked, end the threads, and
 * give all handles back to the tree.
 *
 * False: some thread is stuck in an operation (a hung disk): nothing that it may use must be freed.
 */
bool session_run(struct session *s);

/* Unmount, within a second even if files are open. */
void session_stop(struct session *s);

void session_free(struct session *s); /* accepts NULL */
