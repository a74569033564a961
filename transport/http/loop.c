/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread polls for all streams of an endpoint.
 *
 * Locks: `lock` guards the list and the flags of its members. It isn't held in step, want, free and
 *        poll; a member stays valid there because only the thread frees it while it is in the list.
 */

#include "transport/http/loop.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/http/private.h"

struct loop {
        pthread_t thread;
        int wake_fd;
        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list members;
        size_t count;
        struct lasting *in_step;
        bool is_stopping;
        /* thread only */
        struct pollfd *polls; /* the first is wake_fd; then one a member, in `polled` */
        struct lasting **polled;
        size_t room;
};

static void ring(struct loop *loop)
{
        uint64_t one = 1;

        (void)!write(loop->wake_fd, &one, sizeof(one)); /* full: it is awake */
}

static void drop_locked(struct loop *loop, struct lasting *w) REQUIRES(loop->lock)
{
        list_remove(&w->link);
        loop->count--;
}

/* Free those that were left. */
static void sweep(struct loop *loop)
{
        struct list left = LIST_INIT(left);

        mutex_lock(&loop->lock);
        list_for_each_safe (l, next, &loop->members) {
                struct lasting *w = list_entry(l, struct lasting, link);

                if (w->is_left) {
                        drop_locked(loop, w);
                        list_add_tail(&left, &w->link);
                }
        }
        mutex_unlock(&loop->lock);
        list_for_each_safe (l, next, &left) {
                struct lasting *w = list_entry(l, struct lasting, link);

                w->ops->free(w);
        }
}

static bool make_room(struct loop *loop, size_t count)
{
        size_t room = loop->room ? loop->room : 16;
        struct pollfd *polls;
        struct lasting **polled;

        while (room < count + 1)
                room *= 2;
        if (room == loop->room)
                return true;
        polls = reallocarray(loop->polls, room, sizeof(*polls));
        if (polls)
                loop->polls = polls;
        polled = reallocarray(loop->polled, room, sizeof(struct lasting *));
        if (polled)
                loop->polled = polled;
        if (polls && polled)
                loop->room = room;
        return polls && polled;
}

/*
 * Who is to be polled; how many. Without memory for all, the later ones come another time.
 * *ret_is_awake: somebody is to be stepped without waiting.
 */
static size_t gather(struct loop *loop, bool *ret_goes_on, bool *ret_is_awake)
{
        size_t count = 0;

        *ret_is_awake = false;
        mutex_lock(&loop->lock);
        (void)make_room(loop, loop->count);
        list_for_each (l, &loop->members) {
                struct lasting *w = list_entry(l, struct lasting, link);

                if (count + 1 >= loop->room)
                        break;
                loop->polled[count++] = w;
                *ret_is_awake |= w->is_awake;
        }
        *ret_goes_on = !loop->is_stopping || loop->count > 0;
        mutex_unlock(&loop->lock);
        return count;
}

static void wait_for(struct loop *loop, size_t count, bool is_awake)
{
        uint64_t until_ns = is_awake ? 0 : NEVER_NS, unused;

        loop->polls[0] = (struct pollfd){.fd = loop->wake_fd, .events = POLLIN};
        for (size_t i = 0; i < count; i++) {
                struct lasting *w = loop->polled[i];
                struct pollfd *p = &loop->polls[i + 1];
                uint64_t at_ns = NEVER_NS;

                *p = (struct pollfd){.fd = -1};
                w->ops->want(w, &p->fd, &p->events, &at_ns);
                if (at_ns < until_ns)
                        until_ns = at_ns;
        }
        /* poll fails by signals only: then nothing is ready, and it is asked again */
        if (poll(loop->polls, count + 1, clock_poll_ms(until_ns)) > 0 && loop->polls[0].revents)
                (void)!read(loop->wake_fd, &unused, sizeof(unused));
}

static void step(struct loop *loop, struct lasting *w, short revents)
{
        bool goes_on, is_due;
        uint64_t until_ns = NEVER_NS;
        short events;
        int fd;

        w->ops->want(w, &fd, &events, &until_ns);
        mutex_lock(&loop->lock);
        is_due = !w->is_left && (revents || w->is_awake || clock_mono_ns() >= until_ns);
        w->is_awake = false;
        if (is_due)
                loop->in_step = w;
        mutex_unlock(&loop->lock);
        if (!is_due)
                return;
        goes_on = w->ops->step(w, revents);
        mutex_lock(&loop->lock);
        loop->in_step = NULL;
        if (!goes_on) {
                w->is_over = true;
                drop_locked(loop, w); /* nobody leaves within a step: it's in the list */
        }
        cond_broadcast(&loop->changed);
        mutex_unlock(&loop->lock);
}

static void *run(void *arg)
{
        struct loop *loop = arg;
        bool goes_on = true, is_awake;

        while (goes_on) {
                size_t count;

                sweep(loop);
                count = gather(loop, &goes_on, &is_awake);
                if (!goes_on)
                        break;
                wait_for(loop, count, is_awake);
                for (size_t i = 0; i < count; i++)
                        step(loop, loop->polled[i], loop->polls[i + 1].revents);
        }
        return NULL;
}

/* ---- birth and end ---- */

static void loop_free(struct loop *loop)
{
        closep(&loop->wake_fd);
        cond_done(&loop->changed);
        mutex_done(&loop->lock);
        free(loop->polls);
        free(loop->polled);
        free(loop);
}

static struct loop *loop_new(void)
{
        struct loop *loop = calloc(1, sizeof(*loop));

        if (!loop)
                return NULL;
        mutex_init(&loop->lock);
        cond_init(&loop->changed);
        list_init(&loop->members);
        loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (loop->wake_fd < 0 || !make_room(loop, 1) ||
            pthread_create(&loop->thread, NULL, run, loop) != 0) {
                loop_free(loop);
                return NULL;
        }
        return loop;
}

void loop_stop(struct loop *loop)
{
        if (!loop)
                return;
        mutex_lock(&loop->lock);
        loop->is_stopping = true;
        mutex_unlock(&loop->lock);
        ring(loop);
        (void)pthread_join(loop->thread, NULL); /* it is ours and joined once */
        loop_free(loop);
}

/* ---- for its members ---- */

int loop_add(struct lasting *w)
{
        struct http *h = w->http;
        struct loop *loop;

        mutex_lock(&h->lock);
        if (!h->loop)
                h->loop = loop_new();
        loop = h->loop;
        mutex_unlock(&h->lock);
        if (!loop)
                return -ENOMEM;
        (void)http_ref(h);
        mutex_lock(&loop->lock);
        w->is_awake = true;
        list_add_tail(&loop->members, &w->link);
        loop->count++;
        mutex_unlock(&loop->lock);
        ring(loop);
        return 0;
}

static struct loop *loop_of(struct lasting *w)
{
        struct loop *loop;

        mutex_lock(&w->http->lock);
        loop = w->http->loop;
        mutex_unlock(&w->http->lock);
        return loop;
}

void loop_wake(struct lasting *w)
{
        struct loop *loop = loop_of(w);

        mutex_lock(&loop->lock);
        w->is_awake = true;
        mutex_unlock(&loop->lock);
        ring(loop);
}

void loop_leave(struct lasting *w)
{
        struct loop *loop = loop_of(w);
        struct http *h = w->http;
        bool is_over;

        assert(!pthread_equal(loop->thread, pthread_self())); /* from an event */
        mutex_lock(&loop->lock);
        while (loop->in_step == w)
                cond_wait(&loop->changed, &loop->lock); /* steps don't wait, nor do events */
        w->is_left = true;
        is_over = w->is_over;
        mutex_unlock(&loop->lock);
        if (is_over)
                w->ops->free(w);
        else
                ring(loop);
        http_unref(h);
}
