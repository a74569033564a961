/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a service reaches into a sandbox of its own, where our program (providers/docker/init.c) is:
 * what talk.h makes commands of, and files.h files.
 *
 * Threads: any, everywhere; no lock is held but for `wake`, `is_frozen`, which answer from memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "providers/provider.h"
#include "transport/stream.h"

struct shell_runner;

/* What commands and files start from; borrowed, valid as long as the box. */
struct inside_facts {
        const char *workdir; /* absolute */
        const char *user; /* as whom commands run, as the holder takes it; "" root */
};

struct inside_ops {
        const char *name; /* topic of its log lines */
        /* 0; -EHOSTDOWN paused or stopped, -ENODEV gone, with a sentence. From memory mostly. */
        int (*check_runs)(struct box *b, struct call *c);
        int (*facts)(struct box *b, struct call *c, struct inside_facts *ret);
        /* A connection to the holder in it: "init join DIR" on a stream. Says nothing itself. */
        int (*join)(struct box *b, struct call *c, const struct stream_events *events,
                    struct stream **ret);
        /*
         * That one failed with `error`, or its program ended with nobody there: start a holder and
         * return 0: join is called once more. Else `error`.
         */
        int (*revive)(struct box *b, struct call *c, int error);
        /*
         * "init files WORKDIR" as the sandbox's user. -EOPNOTSUPP our program isn't to be used, or
         * can't run there.
         */
        int (*open_files)(struct box *b, struct call *c, const struct stream_events *events,
                          struct stream **ret);
        /*
         * The process of that, on this machine; -EOPNOTSUPP where it can't be known. What it is
         * needn't be certain. NULL: it is never here.
         */
        int (*pid)(struct box *b, struct call *c, struct stream *of, pid_t *ret);
        /*
         * Content by calls of the service's own, as that user; `path` is absolute. Bytes of a
         * regular file, fewer only at its end; into one that is there and empty, in place. NULL,
         * -EOPNOTSUPP: there are none. c->deadline_ns of an upload moves with its bytes.
         */
        ssize_t (*download)(struct box *b, struct call *c, const char *path, void *data,
                            size_t size, uint64_t offset);
        int (*upload)(struct box *b, struct call *c, const char *path, struct file_source *from);
        /* A command line for any shell, as that user. */
        int (*open_shell)(struct box *b, struct call *c, const char *command,
                          const struct stream_events *events, struct stream **ret);
        /* Scripts one by one, where no shell can be kept on a stream. May be NULL. */
        struct shell_runner *(*scripts)(struct box *b);
        /* The keeper calls talk_tend soon. */
        void (*wake)(struct box *b);
        /* Its state is to be asked for: something there has ended. */
        void (*look)(struct box *b, struct call *c);
        void (*missed)(struct box *b); /* likewise, soon, by whoever polls */
        bool (*is_frozen)(struct box *b); /* paused, as far as is known */
};
