/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which keys were woken, and when: closes the gap between an operation that found nothing and the
 * moment it is put among the waiting. The operation takes wakes_now first; when it is in the list,
 * wakes_since tells whether it missed one. Keys share slots, so the answer may be yes without need,
 * which costs one more try, and never a wrong no.
 *
 * Threads: any; no lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define WAKES_SLOTS 256

struct wakes {
        atomic_uint_fast64_t count;
        atomic_uint_fast64_t last[WAKES_SLOTS]; /* value of count at the slot's latest wake */
};

/* The value to keep for wakes_since. */
uint64_t wakes_now(struct wakes *w);

/* Record a wake; before the waiting are looked at. */
void wakes_note(struct wakes *w, uint64_t key);

/* Whether `key` may have been woken after wakes_now returned `seen`. */
bool wakes_since(struct wakes *w, uint64_t key, uint64_t seen);
