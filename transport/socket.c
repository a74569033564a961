/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whoever sends tries at once; what doesn't go is queued for the thread, which also reads.
 *
 * Locks: `lock` guards the queue and the flags; it is held for system calls that can't block, and
 *        never for an event.
 */

#include "transport/socket.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

#define QUEUE_MAX ((size_t)64 << 20)
#define CHUNK ((size_t)256 * 1024)
#define STACK_SIZE ((size_t)256 * 1024)

struct socket_stream {
        struct stream stream;
        struct stream_events events;
        int fd, wake_fd;
        pthread_t thread;
        unsigned char *chunk; /* the thread's */

        struct mutex lock;
        /* guarded by lock */
        struct buf queue;
        size_t head; /* bytes of the queue that are gone */
        bool is_high; /* `drained` is owed */
        bool is_last; /* nothing follows what is queued */
        bool is_over; /* nobody takes what we send */
        bool is_closing;
};

static struct socket_stream *socket_of(struct stream *s)
{
        return container_of(s, struct socket_stream, stream);
}

/* ---- sending ---- */

static size_t queued_locked(const struct socket_stream *k)
{
        return k->queue.size - k->head;
}

static void wake(struct socket_stream *k)
{
        uint64_t one = 1;

        (void)!write(k->wake_fd, &one, sizeof(one)); /* full: it is awake */
}

static void give_up_locked(struct socket_stream *k) REQUIRES(k->lock)
{
        k->is_over = true;
        buf_done(&k->queue);
        k->head = 0;
}

/* Bytes that the socket took. -EPIPE. */
static ssize_t send_some(int fd, const void *data, size_t size)
{
        ssize_t n;

        do
                n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
                return n;
        return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : -EPIPE;
}

static int queue_locked(struct socket_stream *k, const unsigned char *data, size_t size)
        REQUIRES(k->lock)
{
        bool was_empty = queued_locked(k) == 0;
        int r;

        if (was_empty || k->head > k->queue.size / 2) {
                buf_drop(&k->queue, k->head);
                k->head = 0;
        }
        r = buf_add(&k->queue, data, size);
        if (r < 0)
                return r == -E2BIG ? -ENOBUFS : r;
        k->is_high |= queued_locked(k) >= STREAM_QUEUE_LOW;
        if (was_empty)
                wake(k);
        return 0;
}

static int send_locked(struct socket_stream *k, const unsigned char *data, size_t size)
        REQUIRES(k->lock)
{
        ssize_t n = 0;
        int r = 0;

        if (k->is_over || k->is_last)
                return -EPIPE;
        if (queued_locked(k) + size > QUEUE_MAX)
                return -ENOBUFS;
        if (queued_locked(k) == 0)
                n = send_some(k->fd, data, size);
        if (n >= 0 && (size_t)n < size)
                r = queue_locked(k, data + n, size - (size_t)n);
        if (n < 0 || (r < 0 && n > 0)) /* gone, or something was cut */
                give_up_locked(k);
        return n < 0 ? (int)n : r;
}

static int do_send(struct stream *s, const void *data, size_t size)
{
        struct socket_stream *k = socket_of(s);
        int r;

        mutex_lock(&k->lock);
        r = send_locked(k, data, size);
        mutex_unlock(&k->lock);
        return r;
}

static void finish_locked(struct socket_stream *k) REQUIRES(k->lock)
{
        if (!k->is_last || k->is_over || queued_locked(k) > 0)
                return;
        (void)shutdown(k->fd, SHUT_WR); /* fails only when all is over, which is seen */
        give_up_locked(k);
}

static int do_send_eof(struct stream *s)
{
        struct socket_stream *k = socket_of(s);

        mutex_lock(&k->lock);
        k->is_last = true;
        finish_locked(k);
        mutex_unlock(&k->lock);
        return 0;
}

static size_t do_queued(struct stream *s)
{
        struct socket_stream *k = socket_of(s);
        size_t size;

        mutex_lock(&k->lock);
        size = queued_locked(k);
        mutex_unlock(&k->lock);
        return size;
}

/* ---- the thread ---- */

static void send_queued(struct socket_stream *k)
{
        bool is_due;

        mutex_lock(&k->lock);
        while (!k->is_over && queued_locked(k) > 0) {
                ssize_t n = send_some(k->fd, k->queue.data + k->head, queued_locked(k));

                if (n < 0)
                        give_up_locked(k);
                if (n <= 0)
                        break;
                k->head += (size_t)n;
        }
        finish_locked(k);
        is_due = k->is_high && queued_locked(k) < STREAM_QUEUE_LOW && !k->is_closing;
        if (is_due)
                k->is_high = false;
        mutex_unlock(&k->lock);
        if (is_due && k->events.drained)
                k->events.drained(k->events.ctx);
}

/* 1: goes on; 0: the other's end; -errno. */
static int receive_some(struct socket_stream *k)
{
        ssize_t n = recv(k->fd, k->chunk, CHUNK, MSG_DONTWAIT);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR || errno == ENOMEM ? 1 : -EHOSTUNREACH;
        if (n > 0)
                k->events.data(k->events.ctx, false, k->chunk, (size_t)n);
        return n > 0;
}

/* Wait for something to do, and do it: as receive_some; -ECANCELED it is being closed. */
static int run_once(struct socket_stream *k)
{
        struct pollfd at[2] = {{k->fd, POLLIN, 0}, {k->wake_fd, POLLIN, 0}};
        uint64_t count;

        mutex_lock(&k->lock);
        if (queued_locked(k) > 0)
                at[0].events |= POLLOUT;
        mutex_unlock(&k->lock);
        if (poll(at, 2, -1) < 0)
                return errno == EINTR ? 1 : -EHOSTUNREACH;
        if (at[1].revents) {
                bool is_closing;

                (void)!read(k->wake_fd, &count, sizeof(count)); /* only there to be emptied */
                mutex_lock(&k->lock);
                is_closing = k->is_closing;
                mutex_unlock(&k->lock);
                if (is_closing)
                        return -ECANCELED;
        }
        if (at[0].revents & (POLLOUT | POLLERR | POLLHUP))
                send_queued(k);
        return at[0].revents & (POLLIN | POLLERR | POLLHUP) ? receive_some(k) : 1;
}

static void *run(void *arg)
{
        struct socket_stream *k = arg;
        struct stream_end end = {0};
        int r;

        do
                r = run_once(k);
        while (r > 0);
        mutex_lock(&k->lock);
        give_up_locked(k);
        mutex_unlock(&k->lock);
        if (r == -ECANCELED)
                return NULL;
        end.error = r;
        if (r < 0)
                (void)snprintf(end.sentence, sizeof(end.sentence), "the connection was cut");
        k->events.end(k->events.ctx, &end);
        return NULL;
}

/* ---- life ---- */

static void socket_free(struct socket_stream *k)
{
        closep(&k->wake_fd);
        buf_done(&k->queue);
        mutex_done(&k->lock);
        free(k->chunk);
        free(k);
}

static void do_close(struct stream *s)
{
        struct socket_stream *k = socket_of(s);

        mutex_lock(&k->lock);
        k->is_closing = true;
        mutex_unlock(&k->lock);
        wake(k);
        (void)pthread_join(k->thread, NULL); /* it is ours, and waits for nothing else */
        closep(&k->fd);
        socket_free(k);
}

static const struct stream_ops ops = {do_send, do_send_eof, do_queued, do_close};

/* It takes no signals: they are for others. */
static int start_thread(struct socket_stream *k)
{
        pthread_attr_t attr;
        sigset_t all, old;
        int r = -pthread_attr_init(&attr);

        if (r < 0)
                return r;
        (void)pthread_attr_setstacksize(&attr, STACK_SIZE); /* else the usual */
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* its arguments are right */
        r = -pthread_create(&k->thread, &attr, run, k);
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
        (void)pthread_attr_destroy(&attr);
        return r;
}

int socket_stream_new(int fd, const struct stream_events *events, struct stream **ret)
{
        struct socket_stream *k = calloc(1, sizeof(*k));
        int r;

        if (!k)
                return -ENOMEM;
        k->stream.ops = &ops;
        k->events = *events;
        k->fd = fd;
        k->queue = BUF_INIT(2 * QUEUE_MAX);
        mutex_init(&k->lock);
        k->chunk = malloc(CHUNK);
        k->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = !k->chunk ? -ENOMEM : k->wake_fd < 0 ? -errno : start_thread(k);
        if (r < 0) {
                socket_free(k);
                return r;
        }
        *ret = &k->stream;
        return 0;
}
