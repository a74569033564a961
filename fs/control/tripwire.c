/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of the latest culprits: who trips 64 others' wires within a minute has other troubles. */
#include "fs/control/tripwire.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/base/process.h"

#define CULPRITS 64
#define HELD_NS (60 * NS_PER_S)

struct tripwire {
        _Atomic uint64_t until_ns; /* of the latest; before that nobody need be looked up */
        struct mutex lock;
        struct {
                pid_t tgid;
                uint64_t start;
                uint64_t until_ns;
        } culprit[CULPRITS] GUARDED_BY(lock);
        unsigned next GUARDED_BY(lock);
};

struct tripwire *tripwire_new(void)
{
        struct tripwire *w = calloc(1, sizeof(*w));

        if (w)
                mutex_init(&w->lock);
        return w;
}

void tripwire_free(struct tripwire *w)
{
        if (!w)
                return;
        mutex_done(&w->lock);
        free(w);
}

void tripwire_trip(struct tripwire *w, pid_t tid)
{
        uint64_t until_ns = clock_after(HELD_NS), start = 0;
        pid_t tgid = tid;

        if (process_thread_group(tid, &tgid, &start) < 0)
                return; /* it has ended */

        mutex_lock(&w->lock);
        w->culprit[w->next].tgid = tgid;
        w->culprit[w->next].start = start;
        w->culprit[w->next].until_ns = until_ns;
        w->next = (w->next + 1) % CULPRITS;
        mutex_unlock(&w->lock);
        atomic_store(&w->until_ns, until_ns);
}

bool tripwire_holds(struct tripwire *w, pid_t tid)
{
        uint64_t now = clock_mono_ns(), start = 0;
        bool is_held = false;
        pid_t tgid = tid;

        if (atomic_load_explicit(&w->until_ns, memory_order_relaxed) < now ||
            process_thread_group(tid, &tgid, &start) < 0)
                return false;

        mutex_lock(&w->lock);
        for (unsigned i = 0; i < CULPRITS && !is_held; i++)
                is_held = w->culprit[i].tgid == tgid && w->culprit[i].start == start &&
                          w->culprit[i].until_ns >= now;
        mutex_unlock(&w->lock);
        return is_held;
}
