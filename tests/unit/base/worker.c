/* SPDX-License-Identifier: Apache-2.0 */
/* The pool of workers: order, lanes, due times, and its end. */

#include "transport/base/worker.h"

#include <errno.h>
#include <pthread.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"

#define LONG_NS (60 * NS_PER_S) /* a deadline that only a failure meets */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char order[64]; /* what ran, one letter each */
static size_t ran;
static bool is_gate_open;
static unsigned at_gate, most_at_gate;

static void begin(void)
{
        memset(order, 0, sizeof(order));
        ran = 0;
        is_gate_open = false;
        at_gate = most_at_gate = 0;
}

static void note(void *arg)
{
        pthread_mutex_lock(&lock);
        if (ran < sizeof(order) - 1)
                order[ran] = *(const char *)arg;
        ran++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
}

/* Holds a thread until open_gate. */
static void wait_at_gate(void *arg)
{
        (void)arg;
        pthread_mutex_lock(&lock);
        at_gate++;
        if (at_gate > most_at_gate)
                most_at_gate = at_gate;
        pthread_cond_broadcast(&changed);
        while (!is_gate_open)
                pthread_cond_wait(&changed, &lock);
        at_gate--;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
}

static void open_gate(void)
{
        pthread_mutex_lock(&lock);
        is_gate_open = true;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
}

static void wait_for(const unsigned *value, unsigned expected)
{
        pthread_mutex_lock(&lock);
        while (*value < expected)
                pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
}

static void wait_ran(size_t count)
{
        pthread_mutex_lock(&lock);
        while (ran < count)
                pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
}

static struct workers *new_pool(unsigned fast, unsigned slow)
{
        struct workers *w = NULL;

        begin();
        CHECK_EQ(workers_new((const unsigned[]){fast, slow, 1}, &w), 0);
        return w;
}

static void submit(struct workers *w, enum worker_lane lane, worker_fn fn, const char *arg)
{
        CHECK_EQ(workers_submit(w, lane, fn, (void *)(uintptr_t)arg), 0);
}

static uint64_t submit_at(struct workers *w, uint64_t due_ns, const char *arg)
{
        uint64_t id = 0;

        CHECK_EQ(workers_submit_at(w, WORKER_FAST, due_ns, note, (void *)(uintptr_t)arg, &id), 0);
        return id;
}

static void an_unused_pool_ends(void)
{
        struct workers *w = new_pool(4, 4);

        CHECK(workers_free(w, 0));
        CHECK(workers_free(NULL, 0));
}

static void jobs_run_in_order(void)
{
        struct workers *w = new_pool(1, 1);

        for (const char *p = "abcdefghij"; *p; p++)
                submit(w, WORKER_FAST, note, p);
        CHECK(workers_free(w, clock_after(LONG_NS))); /* runs what is queued */
        CHECK_STR(order, "abcdefghij");
}

static void as_many_at_once_as_there_are_threads(void)
{
        struct workers *w = new_pool(3, 1);

        for (int i = 0; i < 5; i++)
                submit(w, WORKER_FAST, wait_at_gate, "");
        wait_for(&at_gate, 3);
        open_gate();
        CHECK(workers_free(w, clock_after(LONG_NS)));
        CHECK_EQ(most_at_gate, 3);
}

static void a_thread_that_is_idle_is_used_again(void)
{
        struct workers *w = new_pool(2, 2);

        for (size_t i = 0; i < 100; i++) {
                submit(w, i % 2 ? WORKER_FAST : WORKER_SLOW, note, "x");
                wait_ran(i + 1);
        }
        CHECK(workers_free(w, clock_after(LONG_NS)));
        CHECK_EQ(ran, 100);
}

static void slow_calls_keep_nobody_waiting(void)
{
        struct workers *w = new_pool(1, 2);

        for (int i = 0; i < 8; i++)
                submit(w, WORKER_SLOW, wait_at_gate, "");
        wait_for(&at_gate, 2);
        submit(w, WORKER_FAST, note, "f");
        wait_ran(1); /* while all slow threads are taken */
        CHECK_STR(order, "f");
        open_gate();
        CHECK(workers_free(w, clock_after(LONG_NS)));
        CHECK_EQ(most_at_gate, 2);
}

static void what_is_due_first_runs_first(void)
{
        struct workers *w = new_pool(1, 1);
        uint64_t start = clock_after(20 * NS_PER_MS);

        /* Were this thread stopped for longer, a later one could be due before all are said. */
        (void)submit_at(w, start + 4, "d");
        (void)submit_at(w, start + 2, "b");
        (void)submit_at(w, start + 5, "e");
        (void)submit_at(w, start + 1, "a");
        (void)submit_at(w, start + 3, "c");
        if (clock_mono_ns() < start) {
                wait_ran(5);
                CHECK_STR(order, "abcde");
        }
        CHECK(workers_free(w, clock_after(LONG_NS)));
}

static void equal_times_keep_their_order(void)
{
        struct workers *w = new_pool(1, 1);
        uint64_t due = clock_after(5 * NS_PER_MS);

        for (const char *p = "0123456789abcdefghij"; *p; p++)
                (void)submit_at(w, due, p);
        wait_ran(20);
        CHECK(workers_free(w, clock_after(LONG_NS)));
        CHECK_STR(order, "0123456789abcdefghij");
}

static void an_earlier_one_wakes_the_timer(void)
{
        struct workers *w = new_pool(1, 1);
        uint64_t start = clock_mono_ns(), late = submit_at(w, clock_after(LONG_NS), "z");

        (void)submit_at(w, clock_after(5 * NS_PER_MS), "a");
        wait_ran(1);
        CHECK(clock_mono_ns() - start >= 5 * NS_PER_MS); /* never before its time */
        CHECK_STR(order, "a");
        CHECK(workers_cancel(w, late));
        CHECK(workers_free(w, clock_after(LONG_NS)));
}

static void what_is_cancelled_does_not_run(void)
{
        struct workers *w = new_pool(1, 1);
        uint64_t ids[20], due = clock_after(LONG_NS), now;

        for (size_t i = 0; i < 20; i++)
                ids[i] = submit_at(w, due - i, "x");
        for (size_t i = 0; i < 20; i += 2)
                CHECK(workers_cancel(w, ids[(i * 7) % 20]));
        CHECK(!workers_cancel(w, ids[0])); /* once only */
        CHECK(!workers_cancel(w, 0));
        CHECK(!workers_cancel(w, 999));
        now = submit_at(w, 0, "n");
        wait_ran(1);
        CHECK(!workers_cancel(w, now)); /* it ran */
        CHECK(workers_free(w, clock_after(LONG_NS)));
        CHECK_STR(order, "n"); /* what is due later is dropped */
}

static struct workers *pool;
static int refused;
static char late[] = "x";

static void submit_more(void *arg)
{
        uint64_t id;

        wait_at_gate(arg);
        refused = workers_submit(pool, WORKER_FAST, note, late);
        CHECK_EQ(workers_submit_at(pool, WORKER_FAST, 0, note, late, &id), -ESHUTDOWN);
}

static void *end_pool(void *arg)
{
        CHECK(workers_free(arg, clock_after(LONG_NS)));
        return NULL;
}

static void nothing_new_is_taken_at_the_end(void)
{
        pthread_t thread;

        pool = new_pool(1, 1);
        refused = 0;
        submit(pool, WORKER_SLOW, submit_more, "");
        wait_for(&at_gate, 1);
        CHECK_EQ(pthread_create(&thread, NULL, end_pool, pool), 0);
        /* Until the other thread has said so. */
        while (workers_submit(pool, WORKER_FAST, note, late) == 0)
                (void)usleep(200);
        open_gate();
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(refused, -ESHUTDOWN);
}

static void a_stuck_job_is_left_behind(void)
{
        struct workers *w = new_pool(1, 1);

        submit(w, WORKER_FAST, wait_at_gate, "");
        wait_for(&at_gate, 1);
        submit(w, WORKER_SLOW, note, "s");
        CHECK(!workers_free(w, clock_after(5 * NS_PER_MS)));
        wait_ran(1); /* the other lane isn't held up */
        open_gate();
        CHECK(workers_free(w, clock_after(LONG_NS))); /* and it can be asked again */
        CHECK_STR(order, "s");
}

static void resubmit(void *arg)
{
        note(arg);
        if (*(const char *)arg == 'b')
                (void)workers_submit(pool, WORKER_SLOW, note, arg);
}

static void jobs_may_make_jobs(void)
{
        pool = new_pool(2, 2);
        for (int i = 0; i < 20; i++)
                submit(pool, WORKER_FAST, resubmit, "b");
        wait_ran(40);
        CHECK(workers_free(pool, clock_after(LONG_NS)));
        CHECK_EQ(ran, 40);
}

int main(void)
{
        RUN(an_unused_pool_ends);
        RUN(jobs_run_in_order);
        RUN(as_many_at_once_as_there_are_threads);
        RUN(a_thread_that_is_idle_is_used_again);
        RUN(slow_calls_keep_nobody_waiting);
        RUN(what_is_due_first_runs_first);
        RUN(equal_times_keep_their_order);
        RUN(an_earlier_one_wakes_the_timer);
        RUN(what_is_cancelled_does_not_run);
        RUN(nothing_new_is_taken_at_the_end);
        RUN(a_stuck_job_is_left_behind);
        RUN(jobs_may_make_jobs);
        return check_result();
}
