/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command where neither our program runs nor a stream can be had of another: begun by one short
 * script, asked for by others. It outlives us, and is asked again. It has no stdin.
 *
 *      /tmp/.sbxfs-MARK/       p its process group, o and e what it printed, s its code at the end
 *
 * Threads: any; each has one of its own that asks.
 */
#pragma once

#include "providers/remote/remote.h"

/* As a table has them. */
int polled_exec_start(struct remote_box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret);
int polled_exec_attach(struct remote_box *b, struct call *c, const char *id, const uint64_t have[2],
                       struct exec_sink *to, struct exec **ret);
int polled_exec_signal(struct exec *base, struct call *c, int signal);
void polled_exec_release(struct exec *base);

/* Whether this id is of such a command; NULL (it was never told) is not. */
bool polled_exec_is(const char *id);
