/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Things that are due at a time: a binary heap, earliest first, whose places live in the members.
 * Guarded by the owner's lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct due {
        uint64_t at_ns;
        size_t place; /* index + 1; 0: not in a heap */
};

struct due_heap {
        struct due **items;
        size_t count, room;
};

void due_heap_done(struct due_heap *h);

/* Put in, or move, to `at_ns`; NEVER_NS takes it out. 0, or -ENOMEM (only when it was not in). */
int due_set(struct due_heap *h, struct due *d, uint64_t at_ns);
void due_remove(struct due_heap *h, struct due *d); /* does nothing when it isn't in */

struct due *due_first(const struct due_heap *h); /* NULL: none */
