/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes of a file: disjoint ranges in rising order, those that touch joined.
 * Guarded by the owner's lock. What can't be noted for lack of memory leaves the set as it was.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct extent {
        uint64_t start;
        uint64_t end; /* the first byte behind it */
};

struct extents {
        struct extent *at;
        size_t count;
        size_t room;
};

void extents_done(struct extents *e); /* empty again */
int extents_add(struct extents *e, uint64_t start, uint64_t end); /* 0 or -ENOMEM */
int extents_remove(struct extents *e, uint64_t start, uint64_t end); /* likewise */
/* All of `from`, which keeps them. 0 or -ENOMEM, some are then added. */
int extents_add_all(struct extents *e, const struct extents *from);

bool extents_cover(const struct extents *e, uint64_t start, uint64_t end);
bool extents_touch(const struct extents *e, uint64_t start, uint64_t end); /* any byte of it */
uint64_t extents_bytes(const struct extents *e);
/* The first part of the set within [start, end); false: none. */
bool extents_next(const struct extents *e, uint64_t start, uint64_t end, struct extent *ret);
/* The first part of [start, end) that is not in the set; false: all of it is. */
bool extents_gap(const struct extents *e, uint64_t start, uint64_t end, struct extent *ret);
