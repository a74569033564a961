/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What exec.c has the host's shell do, as text: pure. Each command of a sandbox has files in its
 * run directory (0700), all named by its number N (-OWNER, of who adopted the sandbox):
 *
 *      N.up     its supervisor: pid and start time; made exclusively: N is started only once
 *      N.sup    what the supervisor's shell says: "Terminated" and the like
 *      N.pid    its leader: pid, start time, and what to signal: -pid, its group
 *      N.out N.err
 *      N.late   its time was up
 *      N.sent   the last signal that we sent
 *      N.rc     how it ended; whole only with its newline
 *      N.in.A.B stdin from byte A to byte B, N.in.A.eof its end; N.feed: a piece that is being
 *               written; N.fifo, N.wake: the feeder's; N.took: how far it has got
 *      N.dog    the watchdog of its time-out
 *      N.hole   bytes of output that were given back to the host's disk
 *
 * One that ends says so by N.rc: "end CODE MESSAGE LATE SENT", each but CODE may be "-". CODE is
 * that of the shell, in which 128 + n may be an exit code or a signal: a shell prints a message
 * when a child was killed by a signal (N.sup isn't empty: MESSAGE is "m"), but for INT and PIPE.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct exec_req;

#define SCRIPT_NAME_SIZE 64 /* of N, with its NUL */
#define SCRIPT_INLINE 65536 /* bytes of each stream that the report of an end brings along */

/* A command of a sandbox. All borrowed. */
struct script_exec {
        const char *dir; /* of the sandbox */
        const char *work;
        const char *run;
        const char *prefix; /* run/N */
        const char *box; /* the value of SBXFS_BOX in the command's environment */
        unsigned can; /* enum host_can */
        const char *token;
        /*
         * The channel's own process ends at once: sshd counts a session until that has ended, also
         * when its channel was closed. HOST_PROC.
         */
        bool detaches;
        const struct exec_req *in;
};

/*
 * To start it and to be its supervisor: one compound command for `sh` that reads it from its input.
 * Its words to us: report.h. -E2BIG what an argument list doesn't hold, -EINVAL an environment name
 * that a shell can't set.
 */
int script_start(struct buf *to, const struct script_exec *s);

/* The rest is for shell_run. `prefix` is run/N. */

/*
 * How it is, as lines: "rc ...", "pid ...", "alive 0|1", "took N", "in A B", "hole.0 N". None:
 * "none", and with `fence` that number can't be started any more.
 */
int script_attach(struct buf *to, const char *prefix, unsigned can, bool fence);

/* For each: "rc LINE", "alive" or "dead", a line each, in order. */
int script_probe(struct buf *to, const char *const *prefixes, size_t count, unsigned can);

/* A signal to its group: exit code 3, none is there. */
int script_signal(struct buf *to, const char *prefix, unsigned can, int signal);

/*
 * Bytes of stdin from `offset`, for the feeder; `is_last`: and its end. `data` NULL: N.feed holds
 * them already; some shells read a long script byte by byte. Exit code 3: nobody reads them.
 */
int script_feed(struct buf *to, const char *prefix, uint64_t offset, const void *data, size_t size,
                bool is_last);

/* What is left of ended ones goes. */
int script_remove(struct buf *to, const char *run, unsigned can,
                  const char (*names)[SCRIPT_NAME_SIZE], size_t count);

/* Give back what was fetched: [0, size) of the stream's file becomes a hole. */
int script_punch(struct buf *to, const char *prefix, unsigned stream, uint64_t size);

/* A signal (0: none) to all that runs in a sandbox; prints how many groups and strays live. */
int script_signal_all(struct buf *to, const char *run, const char *box, unsigned can, int signal);
