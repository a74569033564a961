/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in a sandbox as a stream: envd's Start carries what it prints, one SendInput after the
 * other what it is sent. It ends with its stream: nothing of ours stays behind.
 *
 * Threads: any. Each stream has a thread of its own that sends.
 */
#pragma once

#include "providers/e2b/e2b.h"

struct buf;

/* `user` NULL: the template's own. *ret to stream_close. */
int e2b_program_open(struct e2b_box *b, struct call *c, const char *user,
                     const struct remote_program *of, const struct stream_events *events,
                     struct stream **ret);

/*
 * Run one that is short, to its end: its stdout into `out`, the start of its stderr into the call's
 * sentence where *ret_code isn't 0. It must bear to run twice: it is repeated after a failure that
 * may pass.
 */
int e2b_program_run(struct e2b_box *b, struct call *c, const char *user,
                    const struct remote_program *of, struct buf *out, int *ret_code);
