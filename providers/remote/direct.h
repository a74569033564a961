/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command where our program can't run: started by the service itself, through a shell there. It
 * ends with its stream, so with the mount and with the connection; nothing of it can be asked for
 * again. All else is as everywhere: both streams, stdin, signals to its process group, a time-out.
 *
 * Threads: any, one of them at a time for one exec but for its events.
 */
#pragma once

#include "providers/remote/remote.h"

/* As a table has them. */
int direct_exec_start(struct remote_box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret);
int direct_exec_write(struct exec *base, struct call *c, const void *data, size_t size,
                      bool is_last);
int direct_exec_signal(struct exec *base, struct call *c, int signal);
void direct_exec_release(struct exec *base);

/* Whether this id is of such a command; NULL (it was never told) is not. */
bool direct_exec_is(const char *id);
