/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The helper shells of a host: `exec sh` on a channel that is kept, fed one script after the other,
 * so that a question costs one round trip. Each answer stands between frames that carry 128 random
 * bits of its own: nothing that a file name, a program or a login banner prints can end it.
 *
 * Threads: any number of callers. One that finds all helpers busy gets another one soon
 *          (SHELL_COUNT_MAX), so that a long listing holds up no kill. A helper that died is made
 *          anew; what it was doing fails.
 * Trust:   what comes back is the host's, hostile; its size is bounded by the sink.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/base/buf.h"
#include "transport/base/call.h"

struct ssh_host;
struct shell; /* of one host: its helpers, and what exec.c keeps beside them */

#define SHELL_COUNT_MAX 3

/* Where stdout of a script goes; called from a thread of the connection, never two at once. */
struct shell_sink {
        /* Borrowed. Non-zero ends the script's helper, and shell_run returns it. */
        int (*data)(struct shell_sink *to, const void *data, size_t size);
};

/* Only for the owner of the host: at its birth and its end. No call runs at the end. */
int shell_new(struct ssh_host *h, struct shell **ret);
void shell_free(struct shell *s); /* accepts NULL */

/**
 * Run a script in a subshell of a helper; its stdin is empty, its variables and cd stay its own.
 *
 * Shape:   POSIX sh, no here-document; each value in it came through quote.h. LC_ALL is C. stdout
 *          is handed on byte by byte as it comes, also NULs.
 * Units:   c->deadline_ns moves on to 10 s from now with each piece of output.
 * Returns: 0 when it ran; its exit code 0-255 in *ret_code, what it said on stderr (its start) in
 *          the call's sentence when that is not 0.
 * Errors:  -EOPNOTSUPP the host has no shell for us; -EHOSTUNREACH; -ETIMEDOUT and -EINTR: it may
 *          have run, or run on until its next output; what the sink returned.
 * Repeat:  as the script.
 */
int shell_run(struct ssh_host *h, struct call *c, const char *script, struct shell_sink *to,
              int *ret_code);

/* The same into a buffer; -E2BIG beyond its maximum. `out` may be NULL: stdout is dropped. */
int shell_run_buf(struct ssh_host *h, struct call *c, const char *script, struct buf *out,
                  int *ret_code);

/* ---- a stream into a program there ---- */

struct shell_pipe;

/* 0 or -errno, which it then keeps; waits while too much is on its way. */
int shell_pipe_send(struct shell_pipe *pipe, const void *data, size_t size);

struct shell_source {
        /* All of the stream, by shell_pipe_send; non-zero: it isn't whole, and says so there. */
        int (*feed)(struct shell_source *from, struct shell_pipe *to);
};

/**
 * Run a script whose first command reads a stream of ours, on a helper that is kept for such: one
 * round trip, and none more for what is sent.
 *
 * Shape:   `taker` is that command, by its input, in a subshell; where it ends early, the rest is
 *          read and dropped. Then `script` runs in the helper's own shell: no exit, no cd, no
 *          variables but r. $r is 0 when the taker succeeded and the stream was whole; $v says what
 *          tar is there: "ns" with nanoseconds, "s" seconds, "" none. A stream has one byte at least.
 * Units:   c->deadline_ns moves on also while the stream does.
 * Returns: 0 when it ran; or what from->feed returned: if the script has run, then with $r not 0.
 * Errors:  as shell_run; -EAGAIN all are busy, -EOPNOTSUPP the host can't: nothing was sent.
 */
int shell_run_stream(struct ssh_host *h, struct call *c, const char *taker, const char *script,
                     struct shell_source *from, struct shell_sink *to);
