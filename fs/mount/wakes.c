/* SPDX-License-Identifier: Apache-2.0 */
/* A count of all wakes, and its value at the latest wake of each slot, which only rises. */

#include "fs/mount/wakes.h"

static atomic_uint_fast64_t *slot_of(struct wakes *w, uint64_t key)
{
        return &w->last[(key * UINT64_C(0x9E3779B97F4A7C15)) >> 56];
}

uint64_t wakes_now(struct wakes *w)
{
        return atomic_load(&w->count);
}

void wakes_note(struct wakes *w, uint64_t key)
{
        atomic_uint_fast64_t *slot = slot_of(w, key);
        uint_fast64_t mine = atomic_fetch_add(&w->count, 1) + 1;
        uint_fast64_t last = atomic_load(slot);

        while (last < mine && !atomic_compare_exchange_weak(slot, &last, mine))
                ; /* `last` was read again */
}

bool wakes_since(struct wakes *w, uint64_t key, uint64_t seen)
{
        return atomic_load(slot_of(w, key)) > seen;
}
