/* SPDX-License-Identifier: Apache-2.0 */
/* The breaker of an endpoint and its probe. */

#include "transport/http/breaker.h"

#include <errno.h>
#include <stdio.h>

#include "transport/base/backoff.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define SILENCES_MAX 2
#define WAIT_MIN_NS (250 * NS_PER_MS)
#define WAIT_MAX_NS (10 * NS_PER_S)
#define PROBE_NS (10 * NS_PER_S)

void breaker_init(struct breaker *b, int (*probe)(void *ctx, struct call *c), void *ctx)
{
        *b = (struct breaker){.probe = probe, .ctx = ctx};
        mutex_init(&b->lock);
        cond_init(&b->changed);
}

void breaker_stop(struct breaker *b)
{
        mutex_lock(&b->lock);
        b->is_stopping = true;
        if (b->call)
                call_cancel(b->call);
        cond_broadcast(&b->changed);
        while (b->is_probing)
                cond_wait(&b->changed, &b->lock);
        mutex_unlock(&b->lock);
}

void breaker_done(struct breaker *b)
{
        cond_done(&b->changed);
        mutex_done(&b->lock);
}

int breaker_check(struct breaker *b, char *sentence, size_t size)
{
        int r = 0;

        mutex_lock(&b->lock);
        if (b->is_open) {
                r = -EHOSTUNREACH;
                (void)snprintf(sentence, size, "%s", b->sentence);
        }
        mutex_unlock(&b->lock);
        return r;
}

void breaker_answered(struct breaker *b)
{
        mutex_lock(&b->lock);
        b->silences = 0;
        if (b->is_open) {
                b->is_open = false;
                cond_broadcast(&b->changed);
        }
        mutex_unlock(&b->lock);
}

/* With back-off, until it answers. */
static void *probe_thread(void *arg)
{
        struct breaker *b = arg;
        unsigned failures = 1;

        mutex_lock(&b->lock);
        while (b->is_open && !b->is_stopping) {
                uint64_t at_ns = clock_after(backoff_ns(failures, WAIT_MIN_NS, WAIT_MAX_NS));
                struct call c;

                while (b->is_open && !b->is_stopping && clock_mono_ns() < at_ns)
                        (void)cond_wait_until(&b->changed, &b->lock, at_ns);
                if (!b->is_open || b->is_stopping)
                        break;
                call_init(&c, clock_after(PROBE_NS));
                b->call = &c;
                mutex_unlock(&b->lock);
                if (b->probe(b->ctx, &c) == 0)
                        breaker_answered(b);
                else
                        log_debug("http", "probe: %s", c.sentence);
                mutex_lock(&b->lock);
                b->call = NULL;
                failures++;
        }
        b->is_probing = false;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
        return NULL;
}

void breaker_silent(struct breaker *b, const char *sentence)
{
        pthread_t thread;

        mutex_lock(&b->lock);
        b->silences++;
        (void)snprintf(b->sentence, sizeof(b->sentence), "%s", sentence);
        if (b->silences >= SILENCES_MAX && !b->is_probing && !b->is_stopping) {
                b->is_open = true;
                b->is_probing = true;
                if (pthread_create(&thread, NULL, probe_thread, b) == 0)
                        (void)pthread_detach(thread); /* breaker_stop waits for it */
                else
                        b->is_probing = b->is_open = false; /* the next caller tries */
        }
        mutex_unlock(&b->lock);
}
