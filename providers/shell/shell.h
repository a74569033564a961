/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helper shells in a sandbox, or on the host of many: `exec sh` on a stream that is kept, fed one
 * script after the other, so that a question costs one round trip. Each answer stands between frames that carry 128 random
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
#include <stdint.h>

#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/stream.h"

struct shell; /* the helpers */

#define SHELL_COUNT_MAX 3
#define SHELL_TOKEN_SIZE 33 /* 128 bits as hex, and NUL */

int shell_token(char ret[SHELL_TOKEN_SIZE]); /* 0 or -errno */

/* How a helper is started. */
struct shell_opener {
        /*
         * Start a program by a command line that some shell there reads, whichever it is; a stream
         * to stream_close. -EAGAIN, -EMFILE: no room for one more just now.
         */
        int (*open)(struct shell_opener *o, struct call *c, const char *command,
                    const struct stream_events *events, struct stream **ret);
        /* Asks others to make room, and waits a moment; false: no use to try again. NULL: none. */
        bool (*make_room)(struct shell_opener *o, struct call *c, uint64_t until_ns);
        /* What it means when a helper ends by itself; 0: -EPROTO. */
        int ended;
};

/* Where stdout of a script goes; called from a thread of the connection, never two at once. */
struct shell_sink {
        /* Borrowed. Non-zero ends the script's helper, and shell_run returns it. */
        int (*data)(struct shell_sink *to, const void *data, size_t size);
};

/* `opener` is kept until shell_free, when no call runs. 0, -ENOMEM. */
int shell_new(struct shell_opener *opener, struct shell **ret);
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
int shell_run(struct shell *s, struct call *c, const char *script, struct shell_sink *to,
              int *ret_code);

/* The same into a buffer; -E2BIG beyond its maximum. `out` may be NULL: stdout is dropped. */
int shell_run_buf(struct shell *s, struct call *c, const char *script, struct buf *out,
                  int *ret_code);

/* ---- a stream into a program there ---- */

struct shell_pipe {
        /* 0 or -errno, which it then keeps; waits while too much is on its way. */
        int (*send)(struct shell_pipe *pipe, const void *data, size_t size);
};

struct shell_source {
        /* All of the stream, by to->send; non-zero: it isn't whole, and says so there. */
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
int shell_run_stream(struct shell *s, struct call *c, const char *taker, const char *script,
                     struct shell_source *from, struct shell_sink *to);
