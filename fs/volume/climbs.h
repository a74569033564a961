/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Link targets with ".." that the kernel may still be following, and the latest rename that it may
 * not have carried out yet.
 *
 * A target's ".." are counted for the depth at which the link's directory stands. The process that
 * follows the link takes them in the kernel some time after our answer; a rename is carried out in
 * the kernel's own tree some time after our answer. "Some time" has no bound: whoever keeps the
 * processors busy, and the sandbox can, stretches it. Hence no waiting by the clock:
 *
 *  - After a rename to another depth, targets with ".." are held back until the kernel has carried
 *    it out, which shows when it lets go of the old directory's lock (volume_events.inval_entry).
 *    One place to remember is enough: the kernel has one rename between directories of a mount
 *    under way at a time, so the next one proves the one before.
 *  - Before a rename to a lower depth, targets that were answered must be used up. Which they are
 *    when the thread that got one has asked for anything else than attributes (which it may need on
 *    its way up), or has ended, or after CLIMB_MAX_NS. The rename waits a moment for that, and is
 *    refused otherwise.
 *
 * Threads: any; own lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "transport/base/lock.h"

#define CLIMBS_MAX 64
#define CLIMB_MAX_NS (10 * UINT64_C(1000000000))

struct climb {
        pid_t tid; /* 0: it can't be seen from here */
        uint64_t at_ns;
};

struct climbs {
        struct mutex lock;
        atomic_uint count; /* of `all`; changed under the lock */

        /* guarded by lock */
        struct climb all[CLIMBS_MAX] GUARDED_BY(lock);
        uint64_t lost_ns GUARDED_BY(lock); /* when the latest one didn't fit; 0: never */
        uint64_t moved_from GUARDED_BY(lock); /* directory of the latest rename; 0: it is settled */
        uint64_t move GUARDED_BY(lock); /* its number */
};

void climbs_init(struct climbs *c);
void climbs_done(struct climbs *c);

/* Before the path of a link is looked at: this thread may get a target with "..". */
void climbs_begin(struct climbs *c, pid_t tid, uint64_t now_ns) EXCLUDES(c->lock);
/* This thread got none after all, or has asked for something else. Cheap when there are none. */
void climbs_end(struct climbs *c, pid_t tid) EXCLUDES(c->lock);

/* A rename out of the directory `from` to another depth is about to be: targets are held back. */
void climbs_move(struct climbs *c, uint64_t from) EXCLUDES(c->lock);
/* Whether nobody but `tid` may still be on the way with a target asked for until `since_ns`. */
bool climbs_are_over(struct climbs *c, pid_t tid, uint64_t since_ns, uint64_t now_ns)
        EXCLUDES(c->lock);
/*
 * Before a rename to a lower depth: until they are over. 0; -EXDEV they take too long, and mv then
 * copies; -EINPROGRESS this thread may not wait.
 */
int climbs_wait(struct climbs *c, pid_t tid, bool may_wait) EXCLUDES(c->lock);
/* Whether a rename is not known to be settled: the directory whose lock tells, and its number. */
bool climbs_unsettled(struct climbs *c, uint64_t *ret_from, uint64_t *ret_move) EXCLUDES(c->lock);
void climbs_settled(struct climbs *c, uint64_t move) EXCLUDES(c->lock);
