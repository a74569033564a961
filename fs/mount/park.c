/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each parked request is known by a number, which is all that libfuse's interrupt callback gets:
 * the request may be answered and gone at any moment. It is freed by whoever takes it out of the
 * map of numbers, always the thread that runs it.
 */

#include "fs/mount/park.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "fs/mount/due.h"
#include "fs/mount/inval.h"
#include "fs/mount/interrupt.h"
#include "fs/mount/loop.h"
#include "fs/mount/reply.h"
#include "fs/mount/request.h"
#include "fs/mount/share.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/base/map.h"
#include "transport/base/worker.h"

#define WORK_NS (10 * NS_PER_S) /* for one try on a worker; progress moves it */

enum parked_state {
        PARKED_WAITING,
        PARKED_READY,
        PARKED_RUNNING,
        PARKED_QUEUED, /* for a worker */
        PARKED_WORKING,
};

/* What a worker gets: the request may be answered, as interrupted, before its turn comes. */
struct job {
        struct park *park;
        uint64_t id;
        uint64_t group;
};

/* All who wait for one key. */
struct waiters {
        uint64_t key;
        struct list all;
};

struct parked {
        /* fixed */
        struct park *park;
        struct request *r;
        uint64_t id;
        uint64_t limit_ns; /* answered by then */
        pid_t tid; /* the caller */

        /* guarded by park->lock */
        enum parked_state state;
        bool is_cancelled; /* to be answered -EINTR */
        bool any_signal; /* of the latest try */
        uint64_t look_ns; /* when the caller's signals are looked at again */
        struct due due;
        struct waiters *waiters; /* WAITING */
        struct list link; /* WAITING: waiters->all; READY: park->ready */
};

struct park {
        struct park_config config; /* fixed */
        atomic_uint_fast64_t next_due_ns;
        atomic_uint waiting; /* changes under lock */
        atomic_uint ready_count; /* likewise */

        struct mutex lock;
        struct cond emptied; /* all is empty */
        struct imap *all GUARDED_BY(lock); /* id -> struct parked */
        struct imap *by_key GUARDED_BY(lock); /* key -> struct waiters */
        struct list ready GUARDED_BY(lock);
        struct due_heap due GUARDED_BY(lock);
        struct shares *shares GUARDED_BY(lock);
        uint64_t last_id GUARDED_BY(lock);
        bool is_closed GUARDED_BY(lock);
};

int park_new(const struct park_config *config, struct park **ret)
{
        struct park *p = calloc(1, sizeof(*p));

        if (!p)
                return -ENOMEM;
        p->config = *config;
        p->all = imap_new();
        p->by_key = imap_new();
        p->shares = shares_new();
        if (!p->all || !p->by_key || !p->shares) {
                shares_free(p->shares);
                imap_free(p->all);
                imap_free(p->by_key);
                free(p);
                return -ENOMEM;
        }
        atomic_init(&p->next_due_ns, NEVER_NS);
        mutex_init(&p->lock);
        cond_init(&p->emptied);
        list_init(&p->ready);
        *ret = p;
        return 0;
}

void park_free(struct park *p)
{
        if (!p)
                return;
        assert(imap_count(p->all) == 0);
        mutex_done(&p->lock);
        cond_done(&p->emptied);
        imap_free(p->all);
        imap_free(p->by_key);
        shares_free(p->shares);
        due_heap_done(&p->due);
        free(p);
}

/* ---- times and lists ---- */

static void publish_due_locked(struct park *p) REQUIRES(p->lock)
{
        struct due *first = due_first(&p->due);

        atomic_store(&p->next_due_ns, first ? first->at_ns : NEVER_NS);
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

/* 0 or -ENOMEM. */
static int set_due_locked(struct park *p, struct parked *x) REQUIRES(p->lock)
{
        uint64_t at_ns = earliest(x->limit_ns, x->look_ns);
        int r;

        if (x->state == PARKED_WAITING)
                at_ns = earliest(at_ns, x->r->op.retry_ns);
        r = due_set(&p->due, &x->due, at_ns);
        publish_due_locked(p);
        return r;
}

static void clear_due_locked(struct park *p, struct parked *x) REQUIRES(p->lock)
{
        due_remove(&p->due, &x->due);
        publish_due_locked(p);
}

/* 0 or -ENOMEM. */
static int add_waiter_locked(struct park *p, struct parked *x, uint64_t key) REQUIRES(p->lock)
{
        struct waiters *w = imap_get(p->by_key, key);

        if (!w) {
                w = malloc(sizeof(*w));
                if (!w || imap_put(p->by_key, key, w) < 0) {
                        free(w);
                        return -ENOMEM;
                }
                w->key = key;
                list_init(&w->all);
        }
        x->waiters = w;
        list_add_tail(&w->all, &x->link);
        atomic_fetch_add(&p->waiting, 1);
        return 0;
}

static void remove_waiter_locked(struct park *p, struct parked *x) REQUIRES(p->lock)
{
        struct waiters *w = x->waiters;

        x->waiters = NULL;
        list_remove(&x->link);
        atomic_fetch_sub(&p->waiting, 1);
        if (list_is_empty(&w->all)) {
                (void)imap_remove(p->by_key, w->key); /* it is w */
                free(w);
        }
}

/* WAITING or QUEUED. The caller kicks the loop when it has unlocked. */
static void make_ready_locked(struct park *p, struct parked *x) REQUIRES(p->lock)
{
        if (x->state == PARKED_WAITING)
                remove_waiter_locked(p, x);
        else
                assert(x->state == PARKED_QUEUED);
        clear_due_locked(p, x);
        x->state = PARKED_READY;
        list_add_tail(&p->ready, &x->link);
        atomic_fetch_add(&p->ready_count, 1);
}

static void kick(struct park *p)
{
        if (p->config.mount->loop)
                loop_kick(p->config.mount->loop);
}

/* ---- the end of a request ---- */

static int hold_nodes(struct park *p, const struct request *r)
{
        struct inval *inval = p->config.mount->inval;
        int e;

        if (r->hold == HOLD_NOTHING)
                return 0;
        e = inval_hold(inval, r->a.node);
        if (e == 0 && r->hold == HOLD_DIRECTORY && r->a.node2 != 0) {
                e = inval_hold(inval, r->a.node2);
                if (e < 0)
                        inval_release(inval, r->a.node);
        }
        return e;
}

static void release_nodes(struct park *p, const struct request *r)
{
        struct inval *inval = p->config.mount->inval;

        if (r->hold == HOLD_NOTHING)
                return;
        inval_release(inval, r->a.node);
        if (r->hold == HOLD_DIRECTORY && r->a.node2 != 0)
                inval_release(inval, r->a.node2);
}

/* It was replied to. */
static void forget(struct park *p, struct parked *x)
{
        release_nodes(p, x->r);
        mutex_lock(&p->lock);
        clear_due_locked(p, x);
        (void)imap_remove(p->all, x->id); /* it is x */
        if (imap_count(p->all) == 0)
                cond_broadcast(&p->emptied);
        mutex_unlock(&p->lock);
        request_free(x->r);
        free(x);
}

static void finish(struct park *p, struct parked *x, int code)
{
        (void)reply_err(x->r, code); /* it is answered, that is all */
        forget(p, x);
}

/* ---- trying again ---- */

static void settle(struct park *p, struct parked *x, uint64_t seen);

/* Ask, and answer unless it is -EINPROGRESS. */
static int run_request(struct park *p, struct request *r)
{
        int code = r->run(p->config.mount, r);

        tree_op_done(&r->op);
        return code;
}

/* One try by this thread, which owns x. */
static void run(struct park *p, struct parked *x, bool on_worker)
{
        struct op *op = &x->r->op;
        uint64_t seen = wakes_now(&p->config.mount->wakes);

        op->may_wait = on_worker;
        op->call.deadline_ns = on_worker ? earliest(clock_after(WORK_NS), x->limit_ns) : NEVER_NS;
        op->call.sentence[0] = '\0';
        op->wait_key = 0;
        op->retry_ns = NEVER_NS;
        op->any_signal = false;
        op->group = 0;
        if (run_request(p, x->r) == -EINPROGRESS)
                settle(p, x, seen);
        else
                forget(p, x);
}

static void submit(struct park *p, uint64_t id, uint64_t group);

/* One of the group has left its worker: the next one may come. */
static void pass_on(struct park *p, uint64_t group)
{
        uint64_t next;

        mutex_lock(&p->lock);
        next = share_end(p->shares, group, clock_mono_ns());
        mutex_unlock(&p->lock);
        if (next != 0)
                submit(p, next, group);
}

static void work(void *arg)
{
        struct job *job = arg;
        struct park *p = job->park;
        uint64_t group = job->group;
        struct parked *x;

        mutex_lock(&p->lock);
        x = imap_get(p->all, job->id);
        if (x && x->state == PARKED_QUEUED)
                x->state = PARKED_WORKING;
        else
                x = NULL;
        mutex_unlock(&p->lock);
        free(job);
        if (x)
                run(p, x, true);
        pass_on(p, group);
}

/* Give a QUEUED one to the workers; it has a place in its group's share. */
static void submit(struct park *p, uint64_t id, uint64_t group)
{
        struct job *job = malloc(sizeof(*job));
        struct parked *x;
        int r = -ENOMEM;

        if (job) {
                *job = (struct job){.park = p, .id = id, .group = group};
                r = workers_submit(p->config.workers, WORKER_FILES, work, job);
        }
        if (r == 0)
                return;
        free(job);
        mutex_lock(&p->lock);
        x = imap_get(p->all, id);
        if (x && x->state == PARKED_QUEUED)
                x->state = PARKED_RUNNING; /* in this thread */
        else
                x = NULL; /* interrupted meanwhile, and answered for that */
        mutex_unlock(&p->lock);
        if (x)
                finish(p, x, r == -ESHUTDOWN ? -ENOTCONN : r);
        pass_on(p, group);
}

/* Put it where it waits. 0: it is not this thread's any more; else why it must be answered now. */
static int settle_locked(struct park *p, struct parked *x, uint64_t seen, bool *ret_in_line)
        REQUIRES(p->lock)
{
        const struct op *op = &x->r->op;
        bool to_worker = op->wait_key == 0;
        int r;

        if (p->is_closed)
                return -ENOTCONN;
        if (x->is_cancelled)
                return -EINTR;
        if (to_worker) {
                r = share_begin(p->shares, op->group, x->id, clock_mono_ns());
                if (r < 0)
                        return r;
                *ret_in_line = r == 0;
        }
        x->any_signal = op->any_signal;
        x->state = to_worker ? PARKED_QUEUED : PARKED_WAITING;
        r = to_worker ? 0 : add_waiter_locked(p, x, op->wait_key);
        if (r < 0)
                return r;
        r = set_due_locked(p, x);
        if (r < 0 && to_worker)
                r = 0; /* it is answered late at worst */
        else if (r < 0)
                remove_waiter_locked(p, x);
        else if (!to_worker && wakes_since(&p->config.mount->wakes, op->wait_key, seen))
                make_ready_locked(p, x);
        return r;
}

/* After -EINPROGRESS: this thread gives x away, or answers it. */
static void settle(struct park *p, struct parked *x, uint64_t seen)
{
        uint64_t id = x->id, group = x->r->op.group;
        bool to_worker, needs_kick, is_in_line = false;
        int r;

        mutex_lock(&p->lock);
        r = settle_locked(p, x, seen, &is_in_line);
        to_worker = r == 0 && x->state == PARKED_QUEUED;
        needs_kick = r == 0 && (x->state == PARKED_READY || due_first(&p->due) == &x->due);
        mutex_unlock(&p->lock); /* x may be gone */
        if (r < 0)
                finish(p, x, r);
        else if (to_worker && !is_in_line)
                submit(p, id, group);
        if (needs_kick)
                kick(p);
}

/* ---- signals and times ---- */

/* The caller kicks the loop when it has unlocked. */
static void cancel_locked(struct park *p, struct parked *x) REQUIRES(p->lock)
{
        x->is_cancelled = true;
        x->look_ns = NEVER_NS;
        call_cancel(&x->r->op.call);
        if (x->state == PARKED_WAITING || x->state == PARKED_QUEUED)
                make_ready_locked(p, x);
        else
                clear_due_locked(p, x);
}

/* The caller of request `id` has a signal: end the request, or look again later. */
static void look(struct park *p, uint64_t id)
{
        struct parked *x;
        bool any_signal = false, is_honoured;
        pid_t tid = 0;

        mutex_lock(&p->lock);
        x = imap_get(p->all, id);
        if (x) {
                tid = x->tid;
                any_signal = x->any_signal;
        }
        mutex_unlock(&p->lock);
        if (!x)
                return;
        is_honoured = interrupt_is_honoured(tid, any_signal);

        mutex_lock(&p->lock);
        x = imap_get(p->all, id); /* it may have been answered meanwhile */
        if (x && !x->is_cancelled) {
                x->look_ns = clock_after(INTERRUPT_LOOK_NS);
                /* It settles with look_ns where it isn't waiting; without memory for that the
                 * signal is honoured. */
                if (is_honoured || (x->state != PARKED_READY && x->state != PARKED_RUNNING &&
                                    set_due_locked(p, x) < 0))
                        cancel_locked(p, x);
        }
        mutex_unlock(&p->lock);
        kick(p);
}

static void on_interrupt(fuse_req_t fuse, void *data)
{
        struct mount *m = fuse_req_userdata(fuse);

        look(m->park, (uintptr_t)data);
}

/* Deal with the first that is due. False: nothing is. */
static bool run_first_due(struct park *p, uint64_t now)
{
        uint64_t look_id = 0;
        struct parked *x = NULL;
        struct due *first;

        mutex_lock(&p->lock);
        first = due_first(&p->due);
        if (first && first->at_ns <= now) {
                x = container_of(first, struct parked, due);
                if (x->limit_ns <= now) {
                        cancel_locked(p, x);
                } else if (x->look_ns <= now) {
                        x->look_ns = NEVER_NS;
                        look_id = x->id;
                        clear_due_locked(p, x);
                } else {
                        make_ready_locked(p, x);
                }
        }
        mutex_unlock(&p->lock);
        if (look_id != 0)
                look(p, look_id);
        return x;
}

struct parked *park_take_ready(struct park *p)
{
        uint64_t due_ns = atomic_load_explicit(&p->next_due_ns, memory_order_relaxed), now;
        struct parked *x = NULL;

        if (due_ns != NEVER_NS) {
                now = clock_mono_ns();
                while (due_ns <= now && run_first_due(p, now))
                        due_ns = atomic_load(&p->next_due_ns);
        }
        if (atomic_load(&p->ready_count) == 0)
                return NULL;
        mutex_lock(&p->lock);
        if (!list_is_empty(&p->ready)) {
                x = list_entry(p->ready.next, struct parked, link);
                list_remove(&x->link);
                atomic_fetch_sub(&p->ready_count, 1);
                x->state = PARKED_RUNNING;
        }
        mutex_unlock(&p->lock);
        return x;
}

void park_serve_ready(struct park *p, struct parked *x)
{
        int code;

        mutex_lock(&p->lock);
        code = p->is_closed ? -ENOTCONN : x->is_cancelled ? -EINTR : 0;
        mutex_unlock(&p->lock);
        if (code < 0)
                finish(p, x, code);
        else
                run(p, x, false);
}

uint64_t park_next_due_ns(struct park *p)
{
        return atomic_load(&p->next_due_ns);
}

/* ---- what others call ---- */

/* Known by its number from now on. 0 or -ENOMEM: then nothing was kept. */
static int add(struct park *p, const struct request *r, struct parked **ret)
{
        struct parked *x = calloc(1, sizeof(*x));
        int e = -ENOMEM;

        if (!x)
                return e;
        *x = (struct parked){
                .park = p,
                .r = request_copy(r),
                .limit_ns = p->config.age_max_ns > 0 ? clock_after(p->config.age_max_ns) : NEVER_NS,
                .tid = r->op.tid,
                .state = PARKED_RUNNING,
                .any_signal = r->op.any_signal,
                .look_ns = NEVER_NS,
        };
        list_init(&x->link);
        if (x->r)
                e = hold_nodes(p, x->r);
        if (e == 0) {
                mutex_lock(&p->lock);
                x->id = ++p->last_id;
                e = imap_put(p->all, x->id, x);
                mutex_unlock(&p->lock);
                if (e < 0)
                        release_nodes(p, x->r);
        }
        if (e < 0) {
                request_free(x->r);
                free(x);
                return e;
        }
        *ret = x;
        return 0;
}

void park_serve(struct park *p, struct request *r)
{
        uint64_t seen = wakes_now(&p->config.mount->wakes);
        struct parked *x;
        int e;

        if (run_request(p, r) != -EINPROGRESS)
                return;
        e = add(p, r, &x);
        if (e < 0) {
                (void)reply_err(r, e); /* it is answered, that is all */
                return;
        }
        /* A number, since x may be gone when the callback comes. It is called at once if the
         * kernel has interrupted it already. */
        fuse_req_interrupt_func(x->r->fuse, on_interrupt,
                                (void *)(uintptr_t)x->id); /* NOLINT(performance-no-int-to-ptr) */
        settle(p, x, seen);
}

void park_wake(struct park *p, uint64_t key)
{
        struct waiters *w;
        bool any = false;

        /* Noted first: who is put in line after our look at the count sees the note. */
        wakes_note(&p->config.mount->wakes, key);
        if (atomic_load(&p->waiting) == 0)
                return;
        mutex_lock(&p->lock);
        while ((w = imap_get(p->by_key, key))) { /* freed with its last */
                make_ready_locked(p, list_entry(w->all.next, struct parked, link));
                any = true;
        }
        mutex_unlock(&p->lock);
        if (any)
                kick(p);
}

static void close_all(struct park *p)
{
        struct parked *x;
        size_t cursor = 0;

        mutex_lock(&p->lock);
        p->is_closed = true;
        while ((x = imap_next(p->all, &cursor, NULL)))
                cancel_locked(p, x);
        mutex_unlock(&p->lock);
}

bool park_close(struct park *p, uint64_t deadline_ns)
{
        struct parked *x;
        bool is_empty;

        close_all(p);
        while ((x = park_take_ready(p)))
                park_serve_ready(p, x);

        mutex_lock(&p->lock);
        while (imap_count(p->all) > 0 && cond_wait_until(&p->emptied, &p->lock, deadline_ns))
                ;
        is_empty = imap_count(p->all) == 0;
        mutex_unlock(&p->lock);
        return is_empty;
}
