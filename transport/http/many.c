/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many requests at once, for one caller: as many threads as may be under way, each taking the next
 * job; the caller waits, and passes its cancel on. Threads are cheap beside a round trip (20 us),
 * and a job is then the same code as any other request, repeats included.
 */

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "transport/base/clock.h"
#include "transport/http/private.h"

#define AT_ONCE_MAX 64
#define SLICE_NS (50 * NS_PER_MS)

struct crew;

struct hand {
        struct crew *crew;
        struct call call;
};

struct crew {
        /* fixed */
        struct http *http;
        struct http_job *jobs;
        size_t count;
        struct hand *hands;
        unsigned hand_count;
        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        size_t next;
        unsigned running;
        int error; /* the call ended: nothing more is begun */
};

/* The next job; *ret_error: it is not to be begun. */
static struct http_job *take_job(struct crew *w, int *ret_error)
{
        struct http_job *job = NULL;

        mutex_lock(&w->lock);
        if (w->next < w->count)
                job = &w->jobs[w->next++];
        *ret_error = w->error;
        mutex_unlock(&w->lock);
        return job;
}

static void *work(void *arg)
{
        struct hand *hand = arg;
        struct crew *w = hand->crew;
        struct http_job *job;
        int error;

        while ((job = take_job(w, &error))) {
                hand->call.sentence[0] = '\0';
                job->error = error < 0 ? call_fail_errno(&hand->call, error, "%s", w->http->name)
                                       : http_do(w->http, &hand->call, job->request, &job->reply);
                (void)snprintf(job->sentence, sizeof(job->sentence), "%.255s", hand->call.sentence);
        }
        mutex_lock(&w->lock);
        w->running--;
        cond_broadcast(&w->changed);
        mutex_unlock(&w->lock);
        return NULL;
}

static void start(struct crew *w, uint64_t deadline_ns)
{
        for (unsigned i = 0; i < w->hand_count; i++) {
                pthread_t thread;

                w->hands[i].crew = w;
                call_init(&w->hands[i].call, deadline_ns);
                mutex_lock(&w->lock);
                w->running++;
                mutex_unlock(&w->lock);
                if (pthread_create(&thread, NULL, work, &w->hands[i]) == 0) {
                        (void)pthread_detach(thread); /* counted instead */
                        continue;
                }
                if (i == 0) { /* no thread at all: one after the other, by the caller */
                        (void)work(&w->hands[0]);
                        return;
                }
                mutex_lock(&w->lock);
                w->running--; /* those that are there do it all */
                mutex_unlock(&w->lock);
                return;
        }
}

static int wait_for_all(struct crew *w, const struct call *c)
{
        int r;

        mutex_lock(&w->lock);
        while (w->running > 0) {
                (void)cond_wait_until(&w->changed, &w->lock, clock_after(SLICE_NS));
                r = w->error == 0 && w->running > 0 ? call_check(c) : 0;
                if (r < 0) {
                        w->error = r;
                        for (unsigned i = 0; i < w->hand_count; i++)
                                call_cancel(&w->hands[i].call);
                }
        }
        r = w->error;
        mutex_unlock(&w->lock);
        return r;
}

int http_do_all(struct http *h, struct call *c, struct http_job *jobs, size_t count,
                unsigned at_once)
{
        struct crew w = {.http = h, .jobs = jobs, .count = count, .hand_count = at_once};
        int r;

        assert(at_once > 0);
        if (w.hand_count > AT_ONCE_MAX)
                w.hand_count = AT_ONCE_MAX;
        if (w.hand_count > count)
                w.hand_count = (unsigned)count;
        if (count == 0)
                return 0;
        w.hands = calloc(w.hand_count, sizeof(*w.hands));
        if (!w.hands)
                return call_fail_errno(c, -ENOMEM, "%s", h->name);
        mutex_init(&w.lock);
        cond_init(&w.changed);
        start(&w, c->deadline_ns);
        r = wait_for_all(&w, c);
        cond_done(&w.changed);
        mutex_done(&w.lock);
        free(w.hands);
        return r < 0 ? call_fail_errno(c, r, "%s", h->name) : 0;
}
