/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many workers the requests of one sandbox may hold at once, so that one whose service is slow
 * or dead leaves the others theirs. What is beyond its share waits in line; what is far beyond it,
 * while nothing moves, is refused.
 *
 * Threads: none; the caller's lock guards it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SHARE_WORKERS 16 /* of one group at work */
#define SHARE_STUCK 128 /* so many at work or in line ... */
#define SHARE_STUCK_NS (UINT64_C(3) * 1000000000) /* ... while none ended for so long */

struct shares;

struct shares *shares_new(void); /* NULL: no memory */
void shares_free(struct shares *s); /* accepts NULL */

/*
 * Request `id` of `group` is to go to a worker: 1 now, 0 it waits in line until share_end names it,
 * -EHOSTUNREACH refused, -ENOMEM.
 */
int share_begin(struct shares *s, uint64_t group, uint64_t id, uint64_t now_ns);
/*
 * One that had gone to a worker is done there. The id that goes next in its place, 0: none. It may
 * be one that was answered meanwhile: then the caller ends it likewise.
 */
uint64_t share_end(struct shares *s, uint64_t group, uint64_t now_ns);
