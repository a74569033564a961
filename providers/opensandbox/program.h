/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs in a sandbox: short ones by execd's command call (run.c), and ones that are a stream by
 * its pipes over a WebSocket (program.c).
 *
 * Threads: any.
 */
#pragma once

#include "providers/opensandbox/opensandbox.h"

struct buf;

/*
 * As of struct remote_ops. A stream whose input can't be ended but by closing it; who it runs as is
 * our own program's affair, so `user` takes that to be there.
 */
int osb_program_open(struct remote_box *remote, struct call *c, const char *user,
                     const struct remote_program *of, const struct stream_events *events,
                     struct stream **ret);
int osb_program_run(struct remote_box *remote, struct call *c, const char *user,
                    const struct remote_program *p, struct buf *out, int *ret_code);

/* The command line of a program, for sh. -ENOMEM, -E2BIG. */
int osb_command_line(const struct remote_program *p, bool is_exec, struct buf *to);
