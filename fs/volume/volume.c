/* SPDX-License-Identifier: Apache-2.0 */
/* What all volumes share: epochs, and who is under way in which. */

#include "fs/volume/volume.h"

#include <time.h>

#include "transport/base/clock.h"

#define TURN_WAIT_NS (2 * NS_PER_S)

uint64_t volume_enter(struct volume *v)
{
        for (;;) {
                uint64_t epoch = atomic_load(&v->epoch);

                atomic_fetch_add(&v->busy[epoch & 1], 1);
                if (atomic_load(&v->epoch) == epoch)
                        return epoch;
                atomic_fetch_sub(&v->busy[epoch & 1], 1);
        }
}

void volume_leave(struct volume *v, uint64_t token)
{
        atomic_fetch_sub(&v->busy[token & 1], 1);
}

uint64_t volume_epoch(struct volume *v)
{
        return atomic_load(&v->epoch);
}

/* Leaving costs nothing but a subtraction, so the one who waits has to look. */
static bool wait_idle(atomic_uint *busy)
{
        uint64_t deadline_ns = clock_mono_ns() + TURN_WAIT_NS;
        struct timespec pause = {.tv_nsec = 20 * (long)NS_PER_US};

        while (atomic_load(busy) > 0) {
                if (clock_mono_ns() > deadline_ns)
                        return false;
                (void)nanosleep(&pause, NULL); /* cut short: looks again */
                if (pause.tv_nsec < (long)NS_PER_MS)
                        pause.tv_nsec *= 2;
        }
        return true;
}

bool volume_turn(struct volume *v)
{
        uint64_t before;
        bool is_idle;

        /* One at a time: two turns at once would count old and new operations together. */
        mutex_lock(&v->turning_lock);
        while (v->is_turning)
                cond_wait(&v->turned, &v->turning_lock);
        v->is_turning = true;
        mutex_unlock(&v->turning_lock);

        before = atomic_fetch_add(&v->epoch, 1);
        is_idle = wait_idle(&v->busy[before & 1]);

        mutex_lock(&v->turning_lock);
        v->is_turning = false;
        cond_broadcast(&v->turned);
        mutex_unlock(&v->turning_lock);
        return is_idle;
}

void volume_init(struct volume *v, const struct vol_ops *ops)
{
        v->ops = ops;
        atomic_init(&v->epoch, 1);
        atomic_init(&v->busy[0], 0);
        atomic_init(&v->busy[1], 0);
        mutex_init(&v->turning_lock);
        cond_init(&v->turned);
        mutex_lock(&v->turning_lock);
        v->is_turning = false;
        mutex_unlock(&v->turning_lock);
}

void volume_done(struct volume *v)
{
        cond_done(&v->turned);
        mutex_done(&v->turning_lock);
}
