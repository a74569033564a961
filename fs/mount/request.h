/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request of the kernel, in a form that can be tried more than once. ops.c fills it on the
 * stack, its texts and data borrowed from the buffer that was read; a request that has to wait is
 * moved to the heap with copies of them.
 *
 * Threads: belongs to the thread that runs it; only op.call is cancelled from others.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/mount/mount.h"
#include "fs/tree/tree.h"

struct file;
struct request;

/* Makes the one call of the tree and replies. -EINPROGRESS: not yet, nothing was replied; else
 * it is done. */
typedef int (*request_fn)(struct mount *m, struct request *r);

/* What the kernel holds locked until it is answered, so that an invalidation would wait for it,
 * in the kernel. */
enum request_hold {
        HOLD_NOTHING,
        HOLD_DIRECTORY, /* the directories `node` and `node2`, where they are */
        HOLD_PAGES, /* pages of the file `node` */
};

/* The arguments; each operation uses some. */
struct request_args {
        uint64_t node, node2;
        const char *name, *name2;
        struct file *file, *file2;
        const void *data;
        size_t size;
        int64_t offset, offset2;
        const struct stat *st;
        mode_t mode;
        int flags;
        unsigned what;
};

struct request {
        fuse_req_t fuse; /* gone once replied */
        request_fn run;
        const char *what; /* for logs: "lookup" */
        enum request_hold hold;
        struct request_args a;
        struct op op;
};

/* A copy on the heap, texts and data included; NULL: out of memory. The op is copied but for its
 * cancel flag. */
struct request *request_copy(const struct request *r);
void request_free(struct request *r); /* accepts NULL; `fuse` was replied to */
