/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: lanes of threads with a queue each, and one thread that moves what has become due
 * into them.
 *
 * A thread that ends leaves its handle in `last_ended` and joins the one that ended before it, so
 * that none is left when the pool is freed and nobody has to collect them meanwhile. One thread of
 * the fast lane stays for good.
 *
 * Threads: everything is guarded by one lock, which is never held while a job runs.
 */

#include "transport/base/worker.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

#define IDLE_NS (20 * NS_PER_S) /* a thread without work ends after this */
#define STACK_SIZE ((size_t)1024 * 1024)

struct item {
        struct list link;
        worker_fn fn;
        void *arg;
};

struct timed {
        uint64_t due_ns;
        uint64_t id;
        enum worker_lane lane;
        struct item *item;
};

struct lane {
        struct workers *workers;
        struct list queue;
        struct cond wake;
        unsigned queued, threads, idle, max;
        bool keeps_one;
};

struct workers {
        struct mutex lock;
        struct lane lanes[WORKER_LANES];
        struct cond ended; /* a thread ended */
        unsigned threads; /* all of them, the timer's too */
        bool has_ended;
        pthread_t last_ended; /* to be joined; valid if has_ended */
        bool is_closing;

        struct cond timer_wake;
        bool has_timer;
        struct timed *heap; /* earliest first: a binary heap by (due_ns, id) */
        size_t heap_size, heap_room;
        uint64_t last_id;
};

/* ---- threads ---- */

/* The last thing that a thread does. */
static void leave(struct workers *w) RELEASE(w->lock)
{
        pthread_t before = w->last_ended;
        bool has_before = w->has_ended;

        w->last_ended = pthread_self();
        w->has_ended = true;
        w->threads--;
        cond_broadcast(&w->ended);
        mutex_unlock(&w->lock);
        if (has_before)
                (void)pthread_join(before, NULL); /* it is past its last line, or nearly */
}

/* All signals stay with the main thread. */
static int spawn(struct workers *w, void *(*run)(void *), void *arg) REQUIRES(w->lock)
{
        pthread_attr_t attr;
        pthread_t thread;
        sigset_t all, old;
        int r;

        r = pthread_attr_init(&attr);
        if (r != 0)
                return -r;
        /* else the default's, which is larger */
        (void)pthread_attr_setstacksize(&attr, STACK_SIZE);
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(&thread, &attr, run, arg);
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
        (void)pthread_attr_destroy(&attr);
        if (r != 0)
                return -r;
        w->threads++;
        return 0;
}

/* False: the thread has been idle for long and shall end. */
static bool wait_for_work(struct workers *w, struct lane *l) REQUIRES(w->lock)
{
        uint64_t until = clock_after(IDLE_NS);

        l->idle++;
        while (list_is_empty(&l->queue) && !w->is_closing) {
                bool is_last = l->keeps_one && l->threads == 1;

                if (!cond_wait_until(&l->wake, &w->lock, is_last ? NEVER_NS : until) &&
                    !(l->keeps_one && l->threads == 1))
                        break;
        }
        l->idle--;
        return !list_is_empty(&l->queue);
}

static void *run_lane(void *arg)
{
        struct lane *l = arg;
        struct workers *w = l->workers;

        mutex_lock(&w->lock);
        while (!list_is_empty(&l->queue) || wait_for_work(w, l)) {
                struct item *i = list_entry(l->queue.next, struct item, link);

                list_remove(&i->link);
                l->queued--;
                mutex_unlock(&w->lock);
                i->fn(i->arg);
                free(i);
                mutex_lock(&w->lock);
        }
        l->threads--;
        leave(w);
        return NULL;
}

static int enqueue(struct workers *w, struct lane *l, struct item *i) REQUIRES(w->lock)
{
        int r;

        if (l->queued + 1 > l->idle && l->threads < l->max) {
                r = spawn(w, run_lane, l);
                if (r < 0 && l->threads == 0)
                        return -ENOMEM;
                if (r == 0)
                        l->threads++;
        }
        list_add_tail(&l->queue, &i->link);
        l->queued++;
        cond_signal(&l->wake);
        return 0;
}

/* ---- what is due later ---- */

static bool is_before(const struct timed *a, const struct timed *b)
{
        return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->id < b->id;
}

static void swap(struct timed *a, struct timed *b)
{
        struct timed t = *a;

        *a = *b;
        *b = t;
}

static void sift_up(struct timed *heap, size_t at)
{
        for (; at > 0 && is_before(&heap[at], &heap[(at - 1) / 2]); at = (at - 1) / 2)
                swap(&heap[at], &heap[(at - 1) / 2]);
}

static void sift_down(struct timed *heap, size_t size, size_t at)
{
        for (;;) {
                size_t first = at, left = 2 * at + 1;

                for (size_t child = left; child < size && child < left + 2; child++)
                        if (is_before(&heap[child], &heap[first]))
                                first = child;
                if (first == at)
                        return;
                swap(&heap[at], &heap[first]);
                at = first;
        }
}

static struct timed heap_take(struct workers *w, size_t at) REQUIRES(w->lock)
{
        struct timed t = w->heap[at];

        w->heap[at] = w->heap[--w->heap_size];
        if (at < w->heap_size) {
                sift_up(w->heap, at);
                sift_down(w->heap, w->heap_size, at);
        }
        return t;
}

static int heap_add(struct workers *w, const struct timed *t) REQUIRES(w->lock)
{
        if (w->heap_size == w->heap_room) {
                size_t room = w->heap_room ? w->heap_room * 2 : 16;
                struct timed *heap = reallocarray(w->heap, room, sizeof(*heap));

                if (!heap)
                        return -ENOMEM;
                w->heap = heap;
                w->heap_room = room;
        }
        w->heap[w->heap_size] = *t;
        sift_up(w->heap, w->heap_size++);
        return 0;
}

static void *run_timer(void *arg)
{
        struct workers *w = arg;

        mutex_lock(&w->lock);
        while (!w->is_closing) {
                struct timed t;

                if (w->heap_size == 0 || w->heap[0].due_ns > clock_mono_ns()) {
                        (void)cond_wait_until(&w->timer_wake, &w->lock,
                                              w->heap_size ? w->heap[0].due_ns : NEVER_NS);
                        continue; /* looks again, whatever woke it */
                }
                t = heap_take(w, 0);
                if (enqueue(w, &w->lanes[t.lane], t.item) < 0) {
                        t.due_ns = clock_after(NS_PER_S); /* no thread can be made now */
                        if (heap_add(w, &t) < 0)
                                assert(false); /* there was room a moment ago */
                }
        }
        leave(w);
        return NULL;
}

/* ---- public ---- */

int workers_new(const unsigned max[WORKER_LANES], struct workers **ret)
{
        struct workers *w = calloc(1, sizeof(*w));

        if (!w)
                return -ENOMEM;
        mutex_init(&w->lock);
        cond_init(&w->ended);
        cond_init(&w->timer_wake);
        for (unsigned i = 0; i < WORKER_LANES; i++) {
                struct lane *l = &w->lanes[i];

                l->workers = w;
                list_init(&l->queue);
                cond_init(&l->wake);
                assert(max[i] > 0);
                l->max = max[i];
                l->keeps_one = i == WORKER_FAST;
        }
        *ret = w;
        return 0;
}

static void drop_timed(struct workers *w) REQUIRES(w->lock)
{
        while (w->heap_size > 0)
                free(w->heap[--w->heap_size].item);
}

bool workers_free(struct workers *w, uint64_t deadline_ns)
{
        if (!w)
                return true;
        mutex_lock(&w->lock);
        w->is_closing = true;
        cond_broadcast(&w->timer_wake);
        for (unsigned i = 0; i < WORKER_LANES; i++)
                cond_broadcast(&w->lanes[i].wake);
        while (w->threads > 0)
                if (!cond_wait_until(&w->ended, &w->lock, deadline_ns)) {
                        mutex_unlock(&w->lock);
                        return false;
                }
        drop_timed(w);
        mutex_unlock(&w->lock);

        if (w->has_ended)
                (void)pthread_join(w->last_ended, NULL);
        for (unsigned i = 0; i < WORKER_LANES; i++)
                cond_done(&w->lanes[i].wake);
        cond_done(&w->ended);
        cond_done(&w->timer_wake);
        mutex_done(&w->lock);
        free(w->heap);
        free(w);
        return true;
}

static struct item *item_new(worker_fn fn, void *arg)
{
        struct item *i = calloc(1, sizeof(*i));

        if (i) {
                list_init(&i->link);
                i->fn = fn;
                i->arg = arg;
        }
        return i;
}

int workers_submit(struct workers *w, enum worker_lane lane, worker_fn fn, void *arg)
{
        struct item *i = item_new(fn, arg);
        int r;

        if (!i)
                return -ENOMEM;
        mutex_lock(&w->lock);
        r = w->is_closing ? -ESHUTDOWN : enqueue(w, &w->lanes[lane], i);
        mutex_unlock(&w->lock);
        if (r < 0)
                free(i);
        return r;
}

static int add_timed(struct workers *w, struct timed *t) REQUIRES(w->lock)
{
        int r;

        if (w->is_closing)
                return -ESHUTDOWN;
        if (!w->has_timer) {
                r = spawn(w, run_timer, w);
                if (r < 0)
                        return -ENOMEM;
                w->has_timer = true;
        }
        t->id = ++w->last_id;
        r = heap_add(w, t);
        if (r == 0 && w->heap[0].id == t->id)
                cond_signal(&w->timer_wake);
        return r;
}

int workers_submit_at(struct workers *w, enum worker_lane lane, uint64_t due_ns, worker_fn fn,
                      void *arg, uint64_t *ret_id)
{
        struct timed t = {.due_ns = due_ns, .lane = lane, .item = item_new(fn, arg)};
        int r;

        if (!t.item)
                return -ENOMEM;
        mutex_lock(&w->lock);
        r = add_timed(w, &t);
        mutex_unlock(&w->lock);
        if (r < 0)
                free(t.item);
        else if (ret_id)
                *ret_id = t.id;
        return r;
}

bool workers_cancel(struct workers *w, uint64_t id)
{
        struct item *item = NULL;

        mutex_lock(&w->lock);
        for (size_t i = 0; i < w->heap_size && !item; i++)
                if (w->heap[i].id == id)
                        item = heap_take(w, i).item;
        mutex_unlock(&w->lock);
        free(item);
        return item != NULL;
}
