/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines out of writes: what a handle of ctl or env has been given and not yet committed. A line
 * commits at its newline; shells split at 4096 bytes, print sends the newline alone. One handle's;
 * guarded by the handle's lock.
 */
#pragma once

#include <stddef.h>

#include "transport/base/buf.h"

struct lines {
        struct buf rest; /* of a line whose newline hasn't come */
};

/*
 * Given each piece that is to be committed: whole lines with their newlines; the last may lack it.
 */
typedef int (*lines_fn)(void *ctx, const char *text, size_t size);

void lines_init(struct lines *l);
void lines_wipe(struct lines *l); /* wipes */

/**
 * Take one write. Complete lines, with the rest of earlier writes before them, go to `commit` in
 * one call.
 *
 * Errors: commit's; -E2BIG a line over 1 MiB; -ENOMEM. Nothing of this write was then taken, and
 *         the rest of earlier ones is dropped.
 */
int lines_write(struct lines *l, const char *data, size_t size, lines_fn commit, void *ctx);

/* Commit the rest, if there is one. It is gone afterwards in any case. */
int lines_flush(struct lines *l, lines_fn commit, void *ctx);
