/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel was told with a time-out that may still run: nodes, and names that don't exist.
 * When a command ends, these and no others have to be taken back.
 *
 * Bounded: past RECENT_MAX in one window a name is refused (the caller answers it without
 *          time-out), and a node sets the time until which waiting is the only way to be sure.
 * Memory:  none while idle; grows with what is told.
 * Threads: any; own lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/lock.h"

#define RECENT_MAX 32768

struct recent_item {
        uint64_t at_ns;
        uint64_t node; /* the node, or the parent of `name` */
        char *name; /* NULL: a node */
};

struct recent {
        struct mutex lock;
        uint64_t window_ns; /* fixed after init */

        /* guarded by lock: a ring of `room` items, oldest first */
        struct recent_item *items GUARDED_BY(lock);
        size_t room GUARDED_BY(lock); /* a power of 2, or 0 */
        size_t first GUARDED_BY(lock);
        size_t count GUARDED_BY(lock);
        uint64_t lost_ns GUARDED_BY(lock); /* when the latest node didn't fit; 0: never */
};

void recent_init(struct recent *r, uint64_t window_ns);
void recent_done(struct recent *r);

void recent_add_node(struct recent *r, uint64_t node, uint64_t now_ns) EXCLUDES(r->lock);
/* False: not remembered, so it must not be told with a time-out. */
bool recent_add_name(struct recent *r, uint64_t parent, const char *name, uint64_t now_ns)
        EXCLUDES(r->lock);

/**
 * Take out everything of the last window.
 *
 * Owner:   recent_free_items(*ret, count); NULL when there is nothing.
 * Returns: how many. *ret_wait_until_ns: when what did not fit has run out; 0: everything did.
 */
size_t recent_take(struct recent *r, uint64_t now_ns, struct recent_item **ret,
                   uint64_t *ret_wait_until_ns) EXCLUDES(r->lock);
void recent_free_items(struct recent_item *items, size_t count);
