/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How news goes up: one table, given to the fleet at its birth. Called without locks, from workers
 * and providers' threads, never from within a function that the listener's owner called. Objects
 * are borrowed for the call.
 */
#pragma once

struct call;
struct sandbox;
struct task;

struct listener {
        /* a name came, went or changed; a provider's state; the root's results */
        void (*fleet_changed)(void *ctx);
        void (*sandbox_changed)(void *ctx, struct sandbox *sb); /* its generation rose */
        void (*task_changed)(void *ctx, struct task *t); /* state or output */
        /*
         * On a worker, after the last output was spooled and before the end can be seen: drop
         * caches, then return.
         */
        void (*task_ending)(void *ctx, struct sandbox *sb, struct task *t);
        /* On a worker: it was paused or stopped; what is cached may be from before. */
        void (*sandbox_down)(void *ctx, struct sandbox *sb);
        /*
         * On a worker: all that was written to its files is in the sandbox when it returns 0. By
         * c->deadline_ns, which moves with progress; else -errno with a sentence.
         */
        int (*deliver)(void *ctx, struct sandbox *sb, struct call *c);
        /*
         * On a worker, from memory: what the sandbox refused of that. 0: nothing; else -errno with
         * a sentence that names it. `retry` queues it once more, for deliver.
         */
        int (*check_unsent)(void *ctx, struct sandbox *sb, struct call *c);
        int (*retry)(void *ctx, struct sandbox *sb, struct call *c);
        /* The sandbox is no more (or its volume's directory is not): release what belongs to it. */
        void (*sandbox_gone)(void *ctx, struct sandbox *sb);
        void *ctx;
};
