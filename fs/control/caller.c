/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A direct-mapped table; a thread number that is used again within 50 ms by another program would
 * at worst see another's stale size.
 */
#include "fs/control/caller.h"

#include <stdint.h>
#include <stdlib.h>

#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/base/process.h"

#define SLOTS 64
#define KEPT_NS (50 * NS_PER_MS)

struct callers {
        struct mutex lock;
        struct {
                pid_t tid, tgid;
                uint64_t until_ns;
        } slot[SLOTS] GUARDED_BY(lock);
};

struct callers *callers_new(void)
{
        struct callers *c = calloc(1, sizeof(*c));

        if (c)
                mutex_init(&c->lock);
        return c;
}

void callers_free(struct callers *c)
{
        if (!c)
                return;
        mutex_done(&c->lock);
        free(c);
}

pid_t callers_group(struct callers *c, pid_t tid)
{
        unsigned i = (unsigned)tid % SLOTS;
        uint64_t now = clock_mono_ns(), start;
        pid_t tgid = 0;

        mutex_lock(&c->lock);
        if (c->slot[i].tid == tid && c->slot[i].until_ns > now)
                tgid = c->slot[i].tgid;
        mutex_unlock(&c->lock);
        if (tgid)
                return tgid;

        if (process_thread_group(tid, &tgid, &start) < 0)
                return tid;

        mutex_lock(&c->lock);
        c->slot[i].tid = tid;
        c->slot[i].tgid = tgid;
        c->slot[i].until_ns = now + KEPT_NS;
        mutex_unlock(&c->lock);
        return tgid;
}
