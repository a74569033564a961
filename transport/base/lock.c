/* SPDX-License-Identifier: Apache-2.0 */
/* Mutex and condition. What pthread reports here is our mistake, never the world's: asserted. */

#include "transport/base/lock.h"

#include <assert.h>
#include <errno.h>

#include "transport/base/clock.h"

void mutex_init(struct mutex *m)
{
        int r = pthread_mutex_init(&m->m, NULL);

        assert(r == 0);
}

void mutex_done(struct mutex *m)
{
        int r = pthread_mutex_destroy(&m->m);

        assert(r == 0); /* EBUSY: somebody holds it */
}

void mutex_lock(struct mutex *m) NO_THREAD_SAFETY_ANALYSIS
{
        int r = pthread_mutex_lock(&m->m);

        assert(r == 0);
}

void mutex_unlock(struct mutex *m) NO_THREAD_SAFETY_ANALYSIS
{
        int r = pthread_mutex_unlock(&m->m);

        assert(r == 0);
}

void cond_init(struct cond *c)
{
        pthread_condattr_t attr;
        int r;

        r = pthread_condattr_init(&attr);
        assert(r == 0);
        r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        assert(r == 0);
        r = pthread_cond_init(&c->c, &attr);
        assert(r == 0);
        r = pthread_condattr_destroy(&attr);
        assert(r == 0);
}

void cond_done(struct cond *c)
{
        int r = pthread_cond_destroy(&c->c);

        assert(r == 0);
}

void cond_signal(struct cond *c)
{
        int r = pthread_cond_signal(&c->c);

        assert(r == 0);
}

void cond_broadcast(struct cond *c)
{
        int r = pthread_cond_broadcast(&c->c);

        assert(r == 0);
}

void cond_wait(struct cond *c, struct mutex *m)
{
        int r = pthread_cond_wait(&c->c, &m->m);

        assert(r == 0);
}

bool cond_wait_until(struct cond *c, struct mutex *m, uint64_t deadline_ns)
{
        struct timespec t = clock_timespec(deadline_ns);
        int r;

        if (deadline_ns == NEVER_NS) {
                cond_wait(c, m);
                return true;
        }
        r = pthread_cond_timedwait(&c->c, &m->m, &t);
        assert(r == 0 || r == ETIMEDOUT);
        return r == 0;
}
