/* SPDX-License-Identifier: Apache-2.0 */
/* At most one climb a thread: a second target means that the first one's ".." are behind it. */

#include "fs/volume/climbs.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "transport/base/clock.h"

#define CLIMB_WAIT_NS (250 * NS_PER_MS) /* for those who were given a link's target to use it up */
#define CLIMB_STEP_NS (1 * NS_PER_MS)

static void drop(struct climbs *c, unsigned i) REQUIRES(c->lock)
{
        unsigned last = atomic_load(&c->count) - 1;

        c->all[i] = c->all[last];
        atomic_store(&c->count, last);
}

static bool is_over(const struct climb *x, uint64_t now_ns)
{
        return x->at_ns + CLIMB_MAX_NS <= now_ns;
}

void climbs_begin(struct climbs *c, pid_t tid, uint64_t now_ns)
{
        unsigned i, count;

        mutex_lock(&c->lock);
        for (i = 0; i < atomic_load(&c->count);) {
                if (c->all[i].tid == tid || is_over(&c->all[i], now_ns))
                        drop(c, i);
                else
                        i++;
        }
        count = atomic_load(&c->count);
        if (count < CLIMBS_MAX) {
                c->all[count] = (struct climb){.tid = tid, .at_ns = now_ns};
                atomic_store(&c->count, count + 1);
        } else {
                c->lost_ns = now_ns;
        }
        mutex_unlock(&c->lock);
}

void climbs_end(struct climbs *c, pid_t tid)
{
        if (tid == 0 || atomic_load(&c->count) == 0)
                return;
        mutex_lock(&c->lock);
        for (unsigned i = 0; i < atomic_load(&c->count); i++) {
                if (c->all[i].tid == tid) {
                        drop(c, i);
                        break;
                }
        }
        mutex_unlock(&c->lock);
}

/* A thread that has ended; those of other pid namespaces are never known to have. */
static bool has_ended(pid_t tid)
{
        char path[32];

        if (tid == 0)
                return false;
        (void)snprintf(path, sizeof(path), "/proc/%d", tid); /* fits any number */
        return access(path, F_OK) < 0 && errno == ENOENT && access("/proc/self", F_OK) == 0;
}

void climbs_move(struct climbs *c, uint64_t from)
{
        mutex_lock(&c->lock);
        c->moved_from = from;
        c->move++;
        mutex_unlock(&c->lock);
}

bool climbs_are_over(struct climbs *c, pid_t tid, uint64_t since_ns, uint64_t now_ns)
{
        struct climb left[CLIMBS_MAX];
        unsigned count = 0;
        bool are_over;

        mutex_lock(&c->lock);
        are_over = c->lost_ns == 0 || c->lost_ns + CLIMB_MAX_NS <= now_ns;
        for (unsigned i = 0; i < atomic_load(&c->count); i++) {
                if (c->all[i].at_ns <= since_ns && !is_over(&c->all[i], now_ns) &&
                    (c->all[i].tid != tid || tid == 0))
                        left[count++] = c->all[i];
        }
        mutex_unlock(&c->lock);
        for (unsigned i = 0; are_over && i < count; i++)
                are_over = has_ended(left[i].tid);
        return are_over;
}

int climbs_wait(struct climbs *c, pid_t tid, bool may_wait)
{
        const struct timespec step = {.tv_nsec = CLIMB_STEP_NS};
        uint64_t since_ns = clock_mono_ns(), now_ns = since_ns;

        while (!climbs_are_over(c, tid, since_ns, now_ns)) {
                if (now_ns >= since_ns + CLIMB_WAIT_NS)
                        return -EXDEV;
                if (!may_wait)
                        return -EINPROGRESS;
                (void)nanosleep(&step, NULL); /* cut short: looked at earlier */
                now_ns = clock_mono_ns();
        }
        return 0;
}

bool climbs_unsettled(struct climbs *c, uint64_t *ret_from, uint64_t *ret_move)
{
        mutex_lock(&c->lock);
        *ret_from = c->moved_from;
        *ret_move = c->move;
        mutex_unlock(&c->lock);
        return *ret_from != 0;
}

void climbs_settled(struct climbs *c, uint64_t move)
{
        mutex_lock(&c->lock);
        if (c->move == move)
                c->moved_from = 0;
        mutex_unlock(&c->lock);
}

void climbs_init(struct climbs *c)
{
        *c = (struct climbs){0};
        mutex_init(&c->lock);
}

void climbs_done(struct climbs *c)
{
        mutex_done(&c->lock);
}
