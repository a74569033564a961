/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/unit/check.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"

#define THREADS 4
#define ROUNDS 20000

struct shared {
        struct mutex lock;
        struct cond changed;
        int count GUARDED_BY(lock);
        int waiting GUARDED_BY(lock);
        bool is_open GUARDED_BY(lock);
};

static void shared_init(struct shared *s) NO_THREAD_SAFETY_ANALYSIS
{
        mutex_init(&s->lock);
        cond_init(&s->changed);
        s->count = s->waiting = 0;
        s->is_open = false;
}

static void shared_done(struct shared *s)
{
        cond_done(&s->changed);
        mutex_done(&s->lock);
}

static void *count_up(void *arg)
{
        struct shared *s = arg;

        for (int i = 0; i < ROUNDS; i++) {
                mutex_lock(&s->lock);
                s->count++;
                mutex_unlock(&s->lock);
        }
        return NULL;
}

static void one_thread_at_a_time(void)
{
        pthread_t threads[THREADS];
        struct shared s;

        shared_init(&s);
        for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, count_up, &s), 0);
        for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        mutex_lock(&s.lock);
        CHECK_EQ(s.count, THREADS * ROUNDS);
        mutex_unlock(&s.lock);
        shared_done(&s);
}

static void *wait_for_open(void *arg)
{
        struct shared *s = arg;

        mutex_lock(&s->lock);
        s->waiting++;
        cond_broadcast(&s->changed);
        while (!s->is_open)
                (void)cond_wait_until(&s->changed, &s->lock, clock_after(60 * NS_PER_S));
        s->count++;
        cond_signal(&s->changed);
        mutex_unlock(&s->lock);
        return NULL;
}

static void broadcast_wakes_all_and_signal_one(void)
{
        pthread_t threads[THREADS];
        struct shared s;

        shared_init(&s);
        for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, wait_for_open, &s), 0);
        mutex_lock(&s.lock);
        while (s.waiting < THREADS)
                cond_wait(&s.changed, &s.lock);
        s.is_open = true;
        cond_broadcast(&s.changed);
        while (s.count < THREADS)
                CHECK(cond_wait_until(&s.changed, &s.lock, NEVER_NS));
        mutex_unlock(&s.lock);
        for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        shared_done(&s);
}

static void a_wait_ends_at_its_deadline(void)
{
        uint64_t start_ns = clock_mono_ns(), deadline_ns = start_ns + 30 * NS_PER_MS;
        struct shared s;

        shared_init(&s);
        mutex_lock(&s.lock);
        while (cond_wait_until(&s.changed, &s.lock, deadline_ns))
                ;
        CHECK(clock_mono_ns() >= deadline_ns);
        CHECK(!cond_wait_until(&s.changed, &s.lock, 0)); /* long ago */
        mutex_unlock(&s.lock);
        shared_done(&s);
}

int main(void)
{
        RUN(one_thread_at_a_time);
        RUN(broadcast_wakes_all_and_signal_one);
        RUN(a_wait_ends_at_its_deadline);
        return check_result();
}
