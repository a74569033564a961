/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files that were fetched in another one's stead. A file that a command saves in a loop is
 * another each time: an open finds the next one at its path, is answered -ESTALE, and the kernel
 * looks the path up again, once. Where a round trip is longer than the loop's, that one is gone as
 * well. So what came is kept for a moment: the file that the second look finds is that one.
 *
 * Threads: any; own lock, a leaf.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "transport/base/lock.h"

#define SPARES_MAX 4

struct spare {
        struct stat st;
        void *data; /* NULL: none */
        uint64_t sent_ns; /* when it was asked for */
        uint64_t epoch; /* volume.h; knowledge of an earlier one is old */
};

struct spares {
        struct mutex lock;
        struct spare all[SPARES_MAX] GUARDED_BY(lock);
        unsigned next GUARDED_BY(lock); /* gives way first */
};

void spares_init(struct spares *s);
void spares_done(struct spares *s);

/* A copy of all of a file's bytes. Best effort: without memory nothing is kept. */
void spares_keep(struct spares *s, const struct stat *st, const void *data, uint64_t sent_ns,
                 uint64_t epoch) EXCLUDES(s->lock);
/*
 * The bytes of this version, st->st_size of them, for the caller to free; *ret_sent_ns. NULL: none
 * of this epoch that was asked for since `since_ns`.
 */
void *spares_take(struct spares *s, const struct stat *st, uint64_t since_ns, uint64_t epoch,
                  uint64_t *ret_sent_ns) EXCLUDES(s->lock);
