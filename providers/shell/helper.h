/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The helpers of a shell: each idle, busy for one caller, or dead. Only its caller, or who takes a
 * dead one off the list, closes its stream; while busy, what its run holds is the stream's thread's
 * alone, until `is_done` or the end is set under the lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "providers/shell/frame.h"
#include "providers/shell/shell.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

#define HELPER_PROGRESS_NS (10 * NS_PER_S) /* without a byte */
#define HELPER_LOOK_NS (50 * NS_PER_MS) /* how often a waiter looks whether it was cancelled */
#define HELPER_SCRIPT_MAX ((size_t)8 << 20)

enum helper_kind { HELPER_SCRIPTS, HELPER_STREAMS };
#define HELPER_KINDS 2

struct shell {
        struct shell_opener *opener; /* fixed after init */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list helpers[HELPER_KINDS];
        unsigned helper_count[HELPER_KINDS]; /* with those that are being opened */
        uint64_t no_streams_ns; /* until then no helper for streams is tried */
};

struct helper {
        struct list link; /* of the shell */
        struct shell *shell;
        enum helper_kind kind;
        struct stream *stream;
        struct run *run; /* NULL while idle; set and cleared under the lock */
        bool is_proven; /* it has answered once */
        /* guarded by the shell's lock */
        bool is_done;
        bool has_ended;
        struct stream_end end;
        uint64_t heard_ns;
        unsigned drains; /* how often what was queued has become little */
};

/*
 * A helper for `run` alone, until helper_let_go. One for streams nobody waits for: -EAGAIN when all
 * are busy, -EOPNOTSUPP where there can be none just now.
 */
int helper_take(struct shell *s, struct call *c, enum helper_kind kind, struct run *run,
                struct helper **ret);
/* Until its run is complete: 0, or why not. The deadline moves on with each piece of output. */
int helper_wait(struct helper *p, struct call *c);
/* Back to the others, or closed when it isn't known to be at its prompt. */
void helper_let_go(struct helper *p, bool is_clean);
/* Closes all of a list that nobody else sees. */
void helper_bury(struct list *dead);
