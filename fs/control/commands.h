/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the text that was written to a control file to what is done. The lines of one write are
 * parsed, then checked, then accepted, so that an error means that nothing of that write was done.
 * Never waits for the network.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct buf;
struct call;
struct fleet;
struct sandbox;
struct task;
struct volume;
struct workers;

/*
 * Where a ctl file stands: the root's has only a fleet, a sandbox's a sandbox too, an exec's a task
 * as well.
 */
struct commands_at {
        struct fleet *fleet;
        struct sandbox *sandbox;
        struct task *task;
        struct volume *volume; /* of the sandbox; NULL: there is none so far */
        int (*reload)(void *ctx, struct call *c); /* `reload` of the root */
        void *reload_ctx;
        struct workers *workers; /* reload runs there */
};

/**
 * Carry out whole lines (the last may lack its newline).
 *
 * Shape:  `values` gets one line a command: the exec's name, the sandbox's name. *ret_destroyed: a
 *         sandbox lost its name.
 * Errors: -EINVAL syntax; -E2BIG; what the checks of fleet.h and sandbox.h say. The sentence is in
 *         the sandbox's `error`, or in the root's results.
 */
int commands_run(const struct commands_at *at, const char *text, size_t size, struct buf *values,
                 bool *ret_destroyed);

/* Whole lines of `env`. */
int commands_env(struct sandbox *sb, const char *text, size_t size);

/* The content of exec/<n>/cmd; with `only_check` nothing is started. */
int commands_cmd(struct task *t, const char *text, size_t size, bool only_check);
