/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the sandbox for what is not known, or no longer fresh: how much in one call, and never the
 * same thing twice at a time.
 *
 * How much:  one directory at its first touch, and the tree of what was asked for in it. Its
 *            parent's whole tree when a second directory below that is asked for within 2 s, or when
 *            both are read, which is what a walk does. The tree of a directory that is read. What
 *            came with a tree is asked for anew with that tree. A tree that was large and saved
 *            little, or took long, is not asked for again for a minute, or until to ask for
 *            directories one at a time, and for one file in a large directory, has cost more.
 * Bounds:    trees are cut off at REFRESH_TREE_MAX entries and REFRESH_DEPTH levels, and don't go
 *            into directories that are known to be large and dull; then these are asked for when
 *            they are touched.
 * Threads:   any; own lock. Answers go into meta as they come, so that those who wait see theirs
 *            before the call has ended.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/volume/cached.h"

#define REFRESH_TREE_MAX 20000
#define REFRESH_FIRST_MAX 3000 /* of a tree that nobody walks yet */
#define REFRESH_DEPTH 8
#define REFRESH_DIR_MAX 5000 /* for the sake of one name in it */

enum refresh_want {
        REFRESH_ATTRS, /* of what is at the path, and whether it is */
        REFRESH_NAMES, /* in the directory at the path */
};

int refresh_new(struct refresh **ret);
void refresh_free(struct refresh *r); /* accepts NULL */

/* A directory is being read, perhaps from memory. */
void refresh_note_read(struct refresh *r, const char *path);

/**
 * Ask, or wait for somebody who has. `begin_ns`: when the operation began; what was asked for
 * attr_ttl before is good enough. is_narrow: for this alone, since asking for more didn't tell.
 *
 * Returns: 0 asked, 1 waited: look into meta. -errno: what the sandbox answered for this alone, or
 *          it can't be reached; -EINTR, -ETIMEDOUT of the call.
 */
int refresh_ask(struct cached *c, struct call *call, const char *path, enum refresh_want want,
                uint64_t begin_ns, bool is_narrow);

/* The source of what is asked for now. */
struct meta_source;
void refresh_source(struct cached *c, struct meta_source *ret);
