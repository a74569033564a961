/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread behind hub.h.
 *
 * The kernel may have handed over an event of a source just before it was removed. So the hub
 * counts its rounds, and hub_remove waits until the round that goes on has ended; on the hub's own
 * thread it strikes the source from the round instead.
 */

#include "providers/local/hub.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/lock.h"

#define EVENTS_MAX 64

struct hub {
        /* fixed after init */
        int epoll;
        int wake; /* eventfd */
        pthread_t thread;
        char *scratch;

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        uint64_t round; /* of those that have ended */
        bool is_ending;

        /* hub thread only */
        struct epoll_event events[EVENTS_MAX];
        int count, at;
};

/* False: the hub is to end. */
static bool end_round(struct hub *h)
{
        bool goes_on;

        mutex_lock(&h->lock);
        h->round++;
        goes_on = !h->is_ending;
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
        return goes_on;
}

static void clear_wake(const struct hub *h)
{
        uint64_t value;

        (void)!read(h->wake, &value, sizeof(value)); /* it is there to wake us, and has */
}

static void *run(void *arg)
{
        struct hub *h = arg;

        do {
                h->count = epoll_wait(h->epoll, h->events, EVENTS_MAX, -1);
                for (h->at = 0; h->at < h->count; h->at++) {
                        struct hub_source *s = h->events[h->at].data.ptr;

                        if (!s)
                                clear_wake(h);
                        else if (s->ready)
                                s->ready(s, h->events[h->at].events);
                }
        } while (end_round(h));
        return NULL;
}

static void wake(const struct hub *h)
{
        uint64_t one = 1;

        (void)!write(h->wake, &one, sizeof(one)); /* full: it is awake anyhow */
}

static int start_thread(struct hub *h)
{
        sigset_t all, before;
        int r;

        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
        r = pthread_create(&h->thread, NULL, run, h);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        return -r;
}

int hub_new(struct hub **ret)
{
        struct epoll_event event = {.events = EPOLLIN};
        struct hub *h = calloc(1, sizeof(*h));
        int r = -ENOMEM;

        if (!h)
                return -ENOMEM;
        mutex_init(&h->lock);
        cond_init(&h->changed);
        h->epoll = epoll_create1(EPOLL_CLOEXEC);
        h->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        h->scratch = malloc(HUB_SCRATCH);
        if (h->epoll < 0 || h->wake < 0 || epoll_ctl(h->epoll, EPOLL_CTL_ADD, h->wake, &event) < 0)
                r = -errno;
        else if (h->scratch)
                r = start_thread(h);
        if (r == 0) {
                *ret = h;
                return 0;
        }
        closep(&h->epoll);
        closep(&h->wake);
        free(h->scratch);
        free(h);
        return r;
}

void hub_free(struct hub *h)
{
        if (!h)
                return;
        mutex_lock(&h->lock);
        h->is_ending = true;
        mutex_unlock(&h->lock);
        wake(h);
        (void)pthread_join(h->thread, NULL);
        closep(&h->epoll);
        closep(&h->wake);
        cond_done(&h->changed);
        mutex_done(&h->lock);
        free(h->scratch);
        free(h);
}

int hub_add(struct hub *h, struct hub_source *s, uint32_t events)
{
        struct epoll_event event = {.events = events, .data.ptr = s};

        return epoll_ctl(h->epoll, EPOLL_CTL_ADD, s->fd, &event) < 0 ? -errno : 0;
}

void hub_watch(struct hub *h, struct hub_source *s, uint32_t events)
{
        struct epoll_event event = {.events = events, .data.ptr = s};

        /* it was added: nothing can fail */
        (void)epoll_ctl(h->epoll, EPOLL_CTL_MOD, s->fd, &event);
}

static void strike(struct hub *h, const struct hub_source *s)
{
        static struct hub_source nobody;

        for (int i = h->at + 1; i < h->count; i++) {
                if (h->events[i].data.ptr == s)
                        h->events[i].data.ptr = &nobody;
        }
}

void hub_sync(struct hub *h)
{
        uint64_t target;

        mutex_lock(&h->lock);
        /*
         * Events that the round which goes on was given are from before; those of the one after it
         * are not.
         */
        target = h->round + 1;
        /*
         * after the look at the round: woken before it, that round may have ended already, and
         * no other comes
         */
        wake(h);
        while (h->round < target)
                cond_wait(&h->changed, &h->lock);
        mutex_unlock(&h->lock);
}

void hub_remove(struct hub *h, struct hub_source *s)
{
        (void)epoll_ctl(h->epoll, EPOLL_CTL_DEL, s->fd, NULL); /* it was added: nothing can fail */
        if (hub_is_self(h))
                strike(h, s);
        else
                hub_sync(h);
}

bool hub_is_self(const struct hub *h)
{
        return pthread_equal(pthread_self(), h->thread) != 0;
}

char *hub_scratch(struct hub *h)
{
        assert(hub_is_self(h));
        return h->scratch;
}
