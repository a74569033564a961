/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who leads is one number, `turn`: odd while the leader is inside an operation, even while it reads
 * or waits. Only the leader makes it odd; the end of an operation and the deputy's take-over both
 * are a compare-and-exchange of the odd value, so one of the two fails: either the leader goes on,
 * or the deputy is the leader now. An operation that lasts longer than two of its looks loses.
 */

#include "fs/mount/loop.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"

#define LOOK_NS (1 * NS_PER_MS) /* between two looks of the deputy */
#define QUIET_LOOKS 20 /* without a request: the deputy sleeps until there is one */
#define IDLE_MAX 4 /* idle threads that are kept */
#define STACK_SIZE ((size_t)512 * 1024)

struct loop {
        /* fixed after loop_new */
        struct loop_ops ops;
        void *ctx;
        unsigned thread_max;
        int kick_fd; /* eventfd */
        int fd; /* fixed before the first thread */

        atomic_uint_fast64_t turn;
        atomic_bool is_ended;
        atomic_bool deputy_sleeps;

        struct mutex lock;
        struct cond wake_deputy; /* the deputy has to look, or the loop ended */
        struct cond wake_idle; /* a deputy is wanted, or the loop ended */
        struct cond ended; /* is_ended, or a thread less */
        bool has_deputy GUARDED_BY(lock);
        unsigned threads GUARDED_BY(lock);
        unsigned idle GUARDED_BY(lock);
};

struct loop_thread {
        struct loop *loop;
        void *data; /* of receive */
        bool leads; /* from the start */
};

static bool is_busy(uint64_t turn)
{
        return turn % 2 == 1;
}

/* ---- leader ---- */

static void wake_deputy(struct loop *l)
{
        mutex_lock(&l->lock);
        atomic_store(&l->deputy_sleeps, false);
        cond_signal(&l->wake_deputy);
        mutex_unlock(&l->lock);
}

/* Returns the turn that end_operation needs. */
static uint64_t begin_operation(struct loop *l)
{
        uint64_t turn = atomic_load_explicit(&l->turn, memory_order_relaxed) + 1;

        atomic_store(&l->turn, turn);
        if (atomic_load(&l->deputy_sleeps))
                wake_deputy(l);
        return turn;
}

/* False: another thread leads by now. */
static bool end_operation(struct loop *l, uint64_t turn)
{
        uint_fast64_t expected = turn;

        return atomic_compare_exchange_strong(&l->turn, &expected, turn + 1);
}

enum served { SERVED_ONE, SERVED_NONE, SERVED_DEPOSED };

static enum served serve_ready(struct loop *l)
{
        void *work = l->ops.take_ready(l->ctx);
        uint64_t turn;

        if (!work)
                return SERVED_NONE;
        turn = begin_operation(l);
        l->ops.serve_ready(l->ctx, work);
        return end_operation(l, turn) ? SERVED_ONE : SERVED_DEPOSED;
}

static enum served serve_request(struct loop *l, struct loop_thread *t)
{
        int size = l->ops.receive(l->ctx, &t->data);
        uint64_t turn;

        if (size == -ENODEV)
                loop_end(l);
        if (size <= 0)
                return SERVED_NONE;
        turn = begin_operation(l);
        l->ops.serve(l->ctx, t->data, (size_t)size);
        return end_operation(l, turn) ? SERVED_ONE : SERVED_DEPOSED;
}

/* Serve until there is nothing more. False: deposed. */
static bool serve_all(struct loop *l, struct loop_thread *t)
{
        while (!atomic_load_explicit(&l->is_ended, memory_order_relaxed)) {
                enum served ready = serve_ready(l), request;

                if (ready == SERVED_DEPOSED)
                        return false;
                request = serve_request(l, t);
                if (request == SERVED_DEPOSED)
                        return false;
                if (ready == SERVED_NONE && request == SERVED_NONE)
                        break;
        }
        return true;
}

static void wait_for_work(struct loop *l)
{
        struct pollfd fds[] = {{.fd = l->fd, .events = POLLIN},
                               {.fd = l->kick_fd, .events = POLLIN}};
        uint64_t due_ns = l->ops.next_due_ns(l->ctx), now, count;
        struct timespec timeout = {0};

        if (due_ns != NEVER_NS) {
                now = clock_mono_ns();
                if (due_ns > now)
                        timeout = clock_timespec(due_ns - now);
        }
        if (ppoll(fds, 2, due_ns == NEVER_NS ? NULL : &timeout, NULL) > 0 && fds[1].revents)
                (void)!read(l->kick_fd, &count, sizeof(count)); /* only its readiness counts */
}

/* Returns when deposed, or at the loop's end. */
static void lead(struct loop *l, struct loop_thread *t)
{
        while (serve_all(l, t) && !atomic_load(&l->is_ended))
                wait_for_work(l);
}

/* ---- deputy ---- */

/* Sleep until the leader begins an operation. */
static void sleep_until_traffic(struct loop *l, uint64_t turn)
{
        mutex_lock(&l->lock);
        atomic_store(&l->deputy_sleeps, true);
        /* The leader stores its turn, then looks whether we sleep; we the other way round: one
         * of us sees the other. */
        while (atomic_load(&l->deputy_sleeps) && atomic_load(&l->turn) == turn &&
               !atomic_load(&l->is_ended))
                cond_wait(&l->wake_deputy, &l->lock);
        atomic_store(&l->deputy_sleeps, false);
        mutex_unlock(&l->lock);
}

static void sleep_a_look(struct loop *l)
{
        uint64_t until = clock_after(LOOK_NS);

        mutex_lock(&l->lock);
        while (!atomic_load(&l->is_ended) && cond_wait_until(&l->wake_deputy, &l->lock, until))
                ;
        mutex_unlock(&l->lock);
}

/* True: this thread leads now. False: the loop ended. */
static bool watch(struct loop *l)
{
        uint_fast64_t last = atomic_load(&l->turn);
        unsigned quiet = 0;

        while (!atomic_load(&l->is_ended)) {
                uint_fast64_t now;

                sleep_a_look(l);
                now = atomic_load(&l->turn);
                if (now != last) {
                        last = now;
                        quiet = 0;
                } else if (is_busy(now)) {
                        if (atomic_compare_exchange_strong(&l->turn, &now, now + 1))
                                return true;
                } else if (++quiet >= QUIET_LOOKS) {
                        sleep_until_traffic(l, now);
                        quiet = 0;
                }
        }
        return false;
}

/* ---- threads ---- */

static int spawn_locked(struct loop *l, bool leads) REQUIRES(l->lock);

/* Become the deputy. False: this thread ends, as the loop did or because enough others are idle. */
static bool wait_for_deputy_role(struct loop *l)
{
        bool is_wanted;

        mutex_lock(&l->lock);
        l->idle++;
        while (l->has_deputy && !atomic_load(&l->is_ended) && l->idle <= IDLE_MAX)
                cond_wait(&l->wake_idle, &l->lock);
        l->idle--;
        is_wanted = !l->has_deputy && !atomic_load(&l->is_ended);
        if (is_wanted)
                l->has_deputy = true;
        mutex_unlock(&l->lock);
        return is_wanted;
}

/* The deputy leads now: another one is needed. */
static void replace_deputy(struct loop *l)
{
        mutex_lock(&l->lock);
        l->has_deputy = false;
        if (l->idle > 0) {
                cond_signal(&l->wake_idle);
        } else if (l->threads < l->thread_max) {
                int r = spawn_locked(l, false);

                if (r < 0)
                        log_warning("no thread to watch the one that serves requests: %s",
                                    errno_name(r));
        }
        mutex_unlock(&l->lock);
}

static void *run(void *arg)
{
        struct loop_thread *t = arg;
        struct loop *l = t->loop;

        if (t->leads)
                lead(l, t);
        while (wait_for_deputy_role(l) && watch(l)) {
                replace_deputy(l);
                lead(l, t);
        }
        l->ops.free_data(l->ctx, t->data);
        free(t);

        mutex_lock(&l->lock);
        l->threads--;
        cond_broadcast(&l->ended);
        mutex_unlock(&l->lock);
        return NULL; /* `l` may be gone */
}

static int spawn_locked(struct loop *l, bool leads)
{
        struct loop_thread *t = calloc(1, sizeof(*t));
        pthread_attr_t attr;
        pthread_t thread;
        int r;

        if (!t)
                return -ENOMEM;
        *t = (struct loop_thread){.loop = l, .leads = leads};
        r = pthread_attr_init(&attr);
        if (r == 0) {
                (void)pthread_attr_setstacksize(&attr, STACK_SIZE); /* the default does too */
                (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
                r = pthread_create(&thread, &attr, run, t);
                (void)pthread_attr_destroy(&attr);
        }
        if (r != 0) {
                free(t);
                return -r;
        }
        l->threads++;
        return 0;
}

/* ---- what others call ---- */

int loop_new(unsigned thread_max, const struct loop_ops *ops, void *ctx, struct loop **ret)
{
        struct loop *l = calloc(1, sizeof(*l));

        assert(thread_max >= 2);
        if (!l)
                return -ENOMEM;
        l->ops = *ops;
        l->ctx = ctx;
        l->thread_max = thread_max;
        l->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (l->kick_fd < 0) {
                int r = -errno;

                free(l);
                return r;
        }
        mutex_init(&l->lock);
        cond_init(&l->wake_deputy);
        cond_init(&l->wake_idle);
        cond_init(&l->ended);
        *ret = l;
        return 0;
}

int loop_start(struct loop *l, int fd)
{
        int r;

        l->fd = fd;
        mutex_lock(&l->lock);
        r = spawn_locked(l, true);
        if (r == 0)
                r = spawn_locked(l, false);
        mutex_unlock(&l->lock);
        return r;
}

void loop_kick(struct loop *l)
{
        uint64_t one = 1;

        (void)!write(l->kick_fd, &one, sizeof(one)); /* EAGAIN: it is readable anyway */
}

void loop_end(struct loop *l)
{
        mutex_lock(&l->lock);
        atomic_store(&l->is_ended, true);
        cond_broadcast(&l->wake_deputy);
        cond_broadcast(&l->wake_idle);
        cond_broadcast(&l->ended);
        mutex_unlock(&l->lock);
        loop_kick(l);
}

void loop_wait(struct loop *l)
{
        mutex_lock(&l->lock);
        while (!atomic_load(&l->is_ended))
                cond_wait(&l->ended, &l->lock);
        mutex_unlock(&l->lock);
}

bool loop_join(struct loop *l, uint64_t deadline_ns)
{
        bool all;

        mutex_lock(&l->lock);
        while (l->threads > 0 && cond_wait_until(&l->ended, &l->lock, deadline_ns))
                ;
        all = l->threads == 0;
        mutex_unlock(&l->lock);
        return all;
}

void loop_free(struct loop *l)
{
        if (!l)
                return;
        mutex_done(&l->lock);
        cond_done(&l->wake_deputy);
        cond_done(&l->wake_idle);
        cond_done(&l->ended);
        (void)close(l->kick_fd); /* an eventfd keeps nothing */
        free(l);
}
