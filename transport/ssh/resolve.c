/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getaddrinfo with a deadline. It can't be interrupted, so it runs in a thread of its own, which is
 * left behind when nobody waits any more: whichever of the two is last frees what they share.
 */

#include "transport/ssh/dial.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"

#define SLICE_NS (50 * NS_PER_MS) /* how late a cancelled call may be noticed */

struct lookup {
        char *host; /* fixed after init */
        char port[8];
        struct mutex lock;
        struct cond done;
        struct addrinfo *found GUARDED_BY(lock);
        int error GUARDED_BY(lock); /* of getaddrinfo */
        bool is_done GUARDED_BY(lock);
        bool is_left GUARDED_BY(lock); /* one of the two is gone */
};

static int ask(const char *host, const char *port, int flags, struct addrinfo **ret)
{
        const struct addrinfo hints = {
                .ai_family = AF_UNSPEC,
                .ai_socktype = SOCK_STREAM,
                .ai_flags = flags | AI_NUMERICSERV,
        };

        return getaddrinfo(host, port, &hints, ret);
}

static void lookup_free(struct lookup *l)
{
        if (l->found)
                freeaddrinfo(l->found);
        cond_done(&l->done);
        mutex_done(&l->lock);
        free(l->host);
        free(l);
}

/* One of the two goes. */
static void lookup_leave(struct lookup *l)
{
        bool is_last;

        mutex_lock(&l->lock);
        is_last = l->is_left;
        l->is_left = true;
        mutex_unlock(&l->lock);
        if (is_last)
                lookup_free(l);
}

static void *lookup_main(void *arg)
{
        struct lookup *l = arg;
        struct addrinfo *found = NULL;
        int error = ask(l->host, l->port, AI_ADDRCONFIG, &found);

        mutex_lock(&l->lock);
        l->found = error == 0 ? found : NULL;
        l->error = error;
        l->is_done = true;
        cond_signal(&l->done);
        mutex_unlock(&l->lock);
        lookup_leave(l);
        return NULL;
}

/* NULL: no memory, or no thread. */
static struct lookup *lookup_new(const char *host, const char *port)
{
        struct lookup *l = calloc(1, sizeof(*l));
        pthread_attr_t attr;
        pthread_t thread;
        bool is_running = false;

        if (!l)
                return NULL;
        mutex_init(&l->lock);
        cond_init(&l->done);
        (void)snprintf(l->port, sizeof(l->port), "%s", port);
        l->host = strdup(host);
        if (l->host && pthread_attr_init(&attr) == 0) {
                (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED); /* can't fail */
                is_running = pthread_create(&thread, &attr, lookup_main, l) == 0;
                (void)pthread_attr_destroy(&attr);
        }
        if (!is_running) {
                lookup_free(l);
                return NULL;
        }
        return l;
}

static int lookup_wait(struct lookup *l, struct call *c, struct addrinfo **ret)
{
        int r = 0, error = 0;

        mutex_lock(&l->lock);
        while (!l->is_done && (r = call_check(c)) == 0) {
                uint64_t slice = clock_after(SLICE_NS);

                (void)cond_wait_until(&l->done, &l->lock,
                                      slice < c->deadline_ns ? slice : c->deadline_ns);
        }
        if (l->is_done) {
                *ret = l->found;
                l->found = NULL;
                error = l->error;
                r = 0;
        }
        mutex_unlock(&l->lock);
        if (r < 0)
                return call_fail_errno(c, r, "look up '%s'", l->host);
        if (error != 0)
                return call_fail(c, -EHOSTUNREACH, "'%s': %s", l->host, gai_strerror(error));
        return 0;
}

int dial_resolve(const char *host, unsigned port, struct call *c, struct addrinfo **ret)
{
        struct lookup *l;
        char text[8];
        int r;

        (void)snprintf(text, sizeof(text), "%u", port & 0xffff);
        if (ask(host, text, AI_NUMERICHOST, ret) == 0)
                return 0;
        l = lookup_new(host, text);
        if (!l)
                return call_fail_errno(c, -ENOMEM, "look up '%s'", host);
        r = lookup_wait(l, c, ret);
        lookup_leave(l);
        return r;
}
