/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: libcurl handles that one thread at a time asks with, each with a connection that is kept.
 * The one that was used last goes out first, so that few stay warm; those that nobody wants close.
 */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/base/clock.h"
#include "transport/http/private.h"

#define LANES_MAX 16 /* idle ones that are kept */
#define UNANSWERED_MS 20000 /* that the other side's kernel may owe us an acknowledgement */
#define IDLE_NS (60 * NS_PER_S)

void lane_free(struct lane *l)
{
        if (!l)
                return;
        if (l->easy)
                curl_easy_cleanup(l->easy);
        if (l->multi)
                (void)curl_multi_cleanup(l->multi); /* empty: nothing can fail */
        free(l);
}

struct lane *lane_new(void)
{
        struct lane *l = calloc(1, sizeof(*l));

        if (!l)
                return NULL;
        list_init(&l->link);
        for (size_t i = 0; i < LANE_SOCKETS; i++)
                l->sockets[i] = -1;
        l->multi = curl_multi_init();
        l->easy = curl_easy_init();
        if (!l->multi || !l->easy ||
            curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, 1L) != CURLM_OK) {
                lane_free(l);
                return NULL;
        }
        return l;
}

/* ---- its sockets, which libcurl doesn't tell while it uses them ---- */

/* Over a network, nobody waits for ever for a peer that has vanished. */
static int open_socket(const struct curl_sockaddr *address)
{
        int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
        unsigned ms = UNANSWERED_MS;

        if (fd >= 0 && address->family != AF_UNIX)
                (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms)); /* or later */
        return fd;
}

static curl_socket_t on_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
        struct lane *l = ctx;

        (void)purpose;
        for (size_t i = 0; i < LANE_SOCKETS; i++) {
                if (l->sockets[i] >= 0)
                        continue;
                l->sockets[i] = open_socket(address);
                return l->sockets[i] >= 0 ? l->sockets[i] : CURL_SOCKET_BAD;
        }
        return CURL_SOCKET_BAD;
}

static int on_close(void *ctx, curl_socket_t fd)
{
        struct lane *l = ctx;

        for (size_t i = 0; i < LANE_SOCKETS; i++)
                if (l->sockets[i] == fd)
                        l->sockets[i] = -1;
        return close(fd);
}

int lane_setup(struct lane *l)
{
        return curl_easy_setopt(l->easy, CURLOPT_OPENSOCKETFUNCTION, on_open) == CURLE_OK &&
                               curl_easy_setopt(l->easy, CURLOPT_OPENSOCKETDATA, l) == CURLE_OK &&
                               curl_easy_setopt(l->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close) ==
                                       CURLE_OK &&
                               curl_easy_setopt(l->easy, CURLOPT_CLOSESOCKETDATA, l) == CURLE_OK
                       ? 0
                       : -ENOMEM;
}

int lane_socket(const struct lane *l)
{
        for (size_t i = 0; i < LANE_SOCKETS; i++)
                if (l->sockets[i] >= 0)
                        return l->sockets[i];
        return -1;
}

/* Bytes that nobody asked for, or its end: what comes next would be no answer to us. */
static bool is_stale(const struct lane *l)
{
        struct pollfd p[LANE_SOCKETS];

        for (size_t i = 0; i < LANE_SOCKETS; i++)
                p[i] = (struct pollfd){.fd = l->sockets[i], .events = POLLIN};
        return poll(p, LANE_SOCKETS, 0) != 0;
}

/* ---- the pool ---- */

struct lane *lane_get(struct http *h)
{
        struct lane *l = NULL;

        mutex_lock(&h->lock);
        if (!list_is_empty(&h->lanes)) {
                l = list_entry(list_take_first(&h->lanes), struct lane, link);
                h->lane_count--;
        }
        mutex_unlock(&h->lock);
        if (l && is_stale(l)) {
                lane_free(l);
                l = NULL;
        }
        return l ? l : lane_new();
}

/* The last one, if there are too many, or it was long idle. */
static struct lane *take_surplus_locked(struct http *h) REQUIRES(h->lock)
{
        struct lane *l;

        if (list_is_empty(&h->lanes))
                return NULL;
        l = list_entry(h->lanes.prev, struct lane, link);
        if (h->lane_count <= LANES_MAX && clock_mono_ns() - l->idle_ns < IDLE_NS)
                return NULL;
        list_remove(&l->link);
        h->lane_count--;
        return l;
}

void lane_put(struct http *h, struct lane *l)
{
        mutex_lock(&h->lock);
        l->idle_ns = clock_mono_ns();
        list_add_head(&h->lanes, &l->link);
        h->lane_count++;
        for (;;) {
                struct lane *surplus = take_surplus_locked(h);

                if (!surplus)
                        break;
                mutex_unlock(&h->lock);
                lane_free(surplus);
                mutex_lock(&h->lock);
        }
        mutex_unlock(&h->lock);
}

void lanes_drop(struct http *h)
{
        struct list idle = LIST_INIT(idle);
        struct list *l;

        mutex_lock(&h->lock);
        while ((l = list_take_first(&h->lanes)))
                list_add_tail(&idle, l);
        h->lane_count = 0;
        mutex_unlock(&h->lock);
        while ((l = list_take_first(&idle)))
                lane_free(list_entry(l, struct lane, link));
}
