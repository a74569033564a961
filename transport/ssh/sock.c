/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/ssh/sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"

#define IN_SIZE ((size_t)128 << 10)
#define OUT_MAX ((size_t)8 << 20) /* a server that asks much and reads nothing */
#define SLICE_NS (50 * NS_PER_MS) /* how late a cancelled call may be noticed */
#define LOGIN_SILENCE_NS (30 * NS_PER_S)

/* -- memory */

struct block {
        struct list link; /* in sock->blocks */
        size_t size;
        char data[] __attribute__((aligned(16)));
};

void *sock_alloc(size_t size, void **abstract)
{
        struct sock *k = *abstract;
        struct block *b;

        if (size > SOCK_MEMORY_MAX - k->memory)
                return NULL;
        b = malloc(sizeof(*b) + size);
        if (!b)
                return NULL;
        b->size = size;
        list_add_tail(&k->blocks, &b->link);
        k->memory += size;
        return b->data;
}

static struct block *block_of(void *data)
{
        return container_of(data, struct block, data);
}

static void release(void *data, void **abstract)
{
        struct sock *k = *abstract;
        struct block *b;

        if (!data)
                return;
        b = block_of(data);
        list_remove(&b->link);
        k->memory -= b->size;
        if (k->is_wiping)
                explicit_bzero(b->data, b->size);
        free(b);
}

static void *resize(void *data, size_t size, void **abstract)
{
        void *to = sock_alloc(size, abstract);

        if (!to || !data)
                return to;
        memcpy(to, data, block_of(data)->size < size ? block_of(data)->size : size);
        release(data, abstract);
        return to;
}

/* What libssh2 has lost track of: some at each exchange of keys, for instance. */
static void release_all(struct sock *k)
{
        void *abstract = k;

        while (!list_is_empty(&k->blocks))
                release(list_entry(k->blocks.next, struct block, link)->data, &abstract);
}

/* -- the agent's socket, which libssh2 reads and writes by the same functions, and waits for */

static ssize_t agent_poll(const struct sock *k, int fd, short events)
{
        for (;;) {
                struct pollfd p = {.fd = fd, .events = events};
                int r = k->call ? call_check(k->call) : -ETIMEDOUT;

                if (r < 0)
                        return r;
                if (poll(&p, 1, (int)(SLICE_NS / NS_PER_MS)) > 0)
                        return 0;
        }
}

static ssize_t agent_send(const struct sock *k, int fd, const void *data, size_t size)
{
        ssize_t n = agent_poll(k, fd, POLLOUT);

        if (n < 0)
                return n;
        n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        return n < 0 ? -errno : n;
}

static ssize_t agent_recv(const struct sock *k, int fd, void *data, size_t size)
{
        ssize_t n = agent_poll(k, fd, POLLIN);

        if (n < 0)
                return n;
        n = recv(fd, data, size, MSG_DONTWAIT);
        return n < 0 ? -errno : n;
}

/* -- the connection */

static void fail(struct sock *k, int error)
{
        if (!k->is_ended)
                k->error = error;
        k->is_ended = true;
        k->is_readable = false;
}

static ssize_t on_send(libssh2_socket_t fd, const void *data, size_t size, int flags,
                       void **abstract)
{
        struct sock *k = *abstract;

        (void)flags; /* ours */
        if (fd != k->fd)
                return agent_send(k, fd, data, size);
        if (k->is_shut)
                return -ECONNRESET;
        if (buf_add(&k->out, data, size) < 0) {
                fail(k, -ENOBUFS);
                return -ECONNRESET;
        }
        return (ssize_t)size;
}

static bool refill(struct sock *k)
{
        int on = 1;
        ssize_t n;

        if (!k->is_readable || k->is_ended)
                return false;
        n = recv(k->fd, k->in, IN_SIZE, MSG_DONTWAIT);
        if (n <= 0) {
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        k->is_readable = errno == EINTR;
                else
                        fail(k, n < 0 ? -errno : 0);
                return false;
        }
        k->is_readable = (size_t)n == IN_SIZE;
        k->in_at = 0;
        k->in_size = (size_t)n;
        k->heard_ns = clock_mono_ns();
        /* a pipe knows nothing of it */
        (void)setsockopt(k->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
        return true;
}

static ssize_t on_recv(libssh2_socket_t fd, void *data, size_t size, int flags, void **abstract)
{
        struct sock *k = *abstract;

        (void)flags; /* ours */
        if (fd != k->fd)
                return agent_recv(k, fd, data, size);
        if (k->is_shut)
                return -ECONNRESET;
        if (k->turn_left == 0 || (k->in_at == k->in_size && !refill(k)))
                return -EAGAIN;
        if (size > k->in_size - k->in_at)
                size = k->in_size - k->in_at;
        memcpy(data, k->in + k->in_at, size);
        k->in_at += size;
        k->taken += size;
        k->turn_left -= size < k->turn_left ? size : k->turn_left;
        return (ssize_t)size;
}

static void on_disconnect(LIBSSH2_SESSION *session, int reason, const char *message, int size,
                          const char *language, int language_size, void **abstract)
{
        struct sock *k = *abstract;

        (void)session;
        (void)reason; /* its text says more */
        (void)language;
        (void)language_size;
        if (message && size > 0)
                escape_text(message, (size_t)size, k->parting, sizeof(k->parting));
}

static int session_new(struct sock *k)
{
        k->session = libssh2_session_init_ex(sock_alloc, release, resize, k);
        if (!k->session)
                return -ENOMEM;
        libssh2_session_set_blocking(k->session, 0);
        (void)libssh2_session_callback_set(k->session, LIBSSH2_CALLBACK_SEND, (void *)on_send);
        (void)libssh2_session_callback_set(k->session, LIBSSH2_CALLBACK_RECV, (void *)on_recv);
        (void)libssh2_session_callback_set(k->session, LIBSSH2_CALLBACK_DISCONNECT,
                                           (void *)on_disconnect);
        return 0;
}

int sock_init(struct sock *k, int fd, int log_fd)
{
        *k = (struct sock){
                .fd = fd,
                .log_fd = log_fd,
                .in = malloc(IN_SIZE),
                .out = BUF_INIT(OUT_MAX),
                .turn_left = SOCK_TURN_MAX,
                .heard_ns = clock_mono_ns(),
                .is_wiping = true,
        };
        list_init(&k->blocks);
        if (!k->in || session_new(k) < 0) {
                sock_done(k);
                return -ENOMEM;
        }
        return 0;
}

void sock_done(struct sock *k)
{
        k->is_shut = true;
        if (k->session)
                (void)libssh2_session_free(k->session); /* nothing is EAGAIN any more */
        k->session = NULL;
        release_all(k);
        if (k->fd >= 0)
                (void)close(k->fd); /* nothing to lose */
        if (k->log_fd >= 0)
                (void)close(k->log_fd);
        k->fd = k->log_fd = -1;
        free(k->in);
        k->in = NULL;
        buf_done(&k->out);
}

int sock_flush(struct sock *k)
{
        while (k->out_at < k->out.size && !k->is_ended) {
                ssize_t n = send(k->fd, k->out.data + k->out_at, k->out.size - k->out_at,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0) {
                        fail(k, -errno);
                        return k->error;
                }
                k->out_at += (size_t)n;
        }
        if (k->out_at == k->out.size) {
                buf_clear(&k->out);
                k->out_at = 0;
        } else if (k->out_at > OUT_MAX / 8) {
                buf_drop(&k->out, k->out_at);
                k->out_at = 0;
        }
        return 0;
}

bool sock_is_writable(const struct sock *k)
{
        struct pollfd p = {.fd = k->fd, .events = POLLOUT};

        return poll(&p, 1, 0) > 0;
}

void sock_polled(struct sock *k, short revents)
{
        if (revents & (POLLIN | POLLHUP | POLLERR | POLLRDHUP))
                k->is_readable = !k->is_ended;
}

/* Keep the end of it. */
void sock_read_log(struct sock *k)
{
        char text[sizeof(k->log)];
        ssize_t n = k->log_fd >= 0 ? read(k->log_fd, text, sizeof(text)) : 0;
        size_t size = n > 0 ? (size_t)n : 0, keep = sizeof(k->log) - size;

        if (n == 0 && k->log_fd >= 0) {
                (void)close(k->log_fd);
                k->log_fd = -1;
        }
        if (keep > k->log_size)
                keep = k->log_size;
        memmove(k->log, k->log + k->log_size - keep, keep);
        memcpy(k->log + keep, text, size);
        k->log_size = keep + size;
}

void sock_reason(const struct sock *k, char *text, size_t size)
{
        char log[256], error[64];

        if (k->parting[0]) {
                (void)snprintf(text, size, "the server said: %s", k->parting);
        } else if (k->log_size > 0) {
                size_t n = k->log_size;

                while (n > 0 && (k->log[n - 1] == '\n' || k->log[n - 1] == '\r'))
                        n--;
                escape_text(k->log, n, log, sizeof(log));
                (void)snprintf(text, size, "the proxy said: %s", log);
        } else if (k->error < 0) {
                (void)snprintf(text, size, "%s", strerror_r(-k->error, error, sizeof(error)));
        } else {
                (void)snprintf(text, size, "the server closed the connection");
        }
}

int sock_wait(struct sock *k, struct call *c)
{
        struct pollfd fds[2] = {{.fd = k->fd, .events = POLLIN}, {k->log_fd, POLLIN, 0}};
        uint64_t now = clock_mono_ns(), until = now + SLICE_NS;
        char why[256];
        int r = call_check(c);

        if (r == -ETIMEDOUT || now - k->heard_ns > LOGIN_SILENCE_NS)
                return call_fail(c, -ETIMEDOUT, "the server did not answer in time");
        if (r < 0)
                return call_fail_errno(c, r, "connecting");
        k->turn_left = SOCK_TURN_MAX;
        if (sock_flush(k) < 0 || (k->is_ended && k->in_at == k->in_size)) {
                sock_read_log(k);
                sock_reason(k, why, sizeof(why));
                return call_fail(c, -EHOSTUNREACH, "%s", why);
        }
        if (sock_output(k) > 0)
                fds[0].events |= POLLOUT;
        if (until > c->deadline_ns)
                until = c->deadline_ns;
        if (poll(fds, 2, clock_poll_ms(until)) > 0) {
                sock_polled(k, fds[0].revents);
                if (fds[1].revents)
                        sock_read_log(k);
        }
        return 0;
}
