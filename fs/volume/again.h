/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are replaced all the time, and who tries to open one.
 *
 * A node of a regular file stands for one inode. When another is at its path by the time of an
 * open, the answer is -ESTALE, and the kernel walks the path again, once. That is not enough for a
 * file that a command saves in a loop. So for a thread that was just answered -ESTALE the file that
 * its next lookup finds is kept, and its next open of that node takes it: what was there a moment
 * ago, as with any open.
 *
 * Bounded: AGAIN_MAX threads; older ones give way, and then -ESTALE is what they see.
 * Threads: any; own lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "transport/base/lock.h"

#define AGAIN_MAX 32

struct again_one {
        pid_t tid;
        int fd; /* O_PATH; -1: nothing was looked up since */
        uint64_t node; /* what `fd` is */
        uint64_t order;
};

struct again {
        struct mutex lock;
        atomic_uint count; /* of `all`; changed under the lock */

        /* guarded by lock */
        struct again_one all[AGAIN_MAX] GUARDED_BY(lock);
        uint64_t order GUARDED_BY(lock);
};

void again_init(struct again *a);
void again_done(struct again *a);

/* This thread is answered -ESTALE for a file. */
void again_note(struct again *a, pid_t tid) EXCLUDES(a->lock);
/* It has found `node`, which `fd` (O_PATH, borrowed) is. Cheap when nobody was answered so. */
void again_found(struct again *a, pid_t tid, uint64_t node, int fd) EXCLUDES(a->lock);
/* What it has found at last, to close, if that was `node`; else -1. Forgets the thread. */
int again_take(struct again *a, pid_t tid, uint64_t node) EXCLUDES(a->lock);
