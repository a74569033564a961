/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of the tests' own: one thread a connection, which calls `serve` with one request after
 * the other; it says whatever bytes it likes. On loopback, or a Unix socket; with TLS if a context
 * is given.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/http/http.h"

#define CONNS_MAX 256
#define IN_MAX ((size_t)64 << 20)

struct server;

struct conn {
        struct server *server;
        int fd;
        SSL *ssl;
        struct buf in; /* what came and wasn't read */
        unsigned number; /* of the connection, from 1 */
        unsigned requests; /* on it */
        /* the request */
        char method[16], target[4096];
        struct buf head, body;
};

struct server {
        /* fixed after start */
        int fd;
        char url[64];
        char path[108]; /* of a Unix socket, "" none */
        SSL_CTX *tls;
        void (*serve)(struct conn *k); /* one request; it closes by conn_close */
        void (*greet)(struct conn *k); /* before the first; NULL */
        pthread_t thread;
        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        unsigned connections, requests, running;
        int fds[CONNS_MAX];
        bool is_ending;
        unsigned count; /* the case's */
};

/* ---- what a case says ---- */

static inline bool conn_write(struct conn *k, const void *data, size_t size)
{
        const char *at = data;

        while (size > 0) {
                ssize_t n = k->ssl ? SSL_write(k->ssl, at, (int)size)
                                   : send(k->fd, at, size, MSG_NOSIGNAL);

                if (n <= 0)
                        return false;
                at += n;
                size -= (size_t)n;
        }
        return true;
}

static inline bool conn_say(struct conn *k, const char *text)
{
        return conn_write(k, text, strlen(text));
}

static inline bool conn_reply(struct conn *k, unsigned status, const char *headers,
                              const char *body)
{
        struct buf text = BUF_INIT(IN_MAX);
        bool ok = buf_addf(&text, "HTTP/1.1 %u Word\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                           strlen(body), headers, body) == 0;

        ok = ok && conn_write(k, text.data, text.size);
        buf_done(&text);
        return ok;
}

/* More of what the client sends. False: nothing more comes. */
static inline bool conn_read(struct conn *k)
{
        char *to = buf_reserve(&k->in, 65536);
        ssize_t n;

        if (!to)
                return false;
        n = k->ssl ? SSL_read(k->ssl, to, 65536) : recv(k->fd, to, 65536, 0);
        if (n <= 0)
                return false;
        k->in.size += (size_t)n;
        return true;
}

/* It is over: the client sees the end. */
static inline void conn_close(struct conn *k)
{
        (void)shutdown(k->fd, SHUT_RDWR);
}

/* With a reset instead of an end. */
static inline void conn_reset(struct conn *k)
{
        struct linger hard = {.l_onoff = 1};

        CHECK_EQ(setsockopt(k->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
        mutex_lock(&k->server->lock);
        for (size_t i = 0; i < CONNS_MAX; i++)
                if (k->server->fds[i] == k->fd)
                        k->server->fds[i] = -1;
        mutex_unlock(&k->server->lock);
        (void)close(k->fd);
        k->fd = -1;
}

/* A header of the request; NULL: none. The value ends at its line's end. */
static inline const char *conn_header(const struct conn *k, const char *name)
{
        static _Thread_local char value[4096];
        const char *at = buf_str(&k->head);
        size_t size = strlen(name);

        while ((at = strstr(at, "\r\n"))) {
                at += 2;
                if (strncasecmp(at, name, size) == 0 && at[size] == ':') {
                        at += size + 1;
                        at += strspn(at, " ");
                        (void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\r\n"), at);
                        return value;
                }
        }
        return NULL;
}

static inline bool conn_is(const struct conn *k, const char *path)
{
        size_t size = strcspn(k->target, "?");

        return strlen(path) == size && memcmp(path, k->target, size) == 0;
}

/* ---- requests ---- */

static inline bool read_sized(struct conn *k, size_t size)
{
        while (k->in.size < size)
                if (!conn_read(k))
                        return false;
        CHECK_EQ(buf_add(&k->body, k->in.data, size), 0);
        buf_drop(&k->in, size);
        return true;
}

static inline bool read_chunks(struct conn *k)
{
        for (;;) {
                char *end;
                size_t size;

                while (!(end = k->in.size ? memmem(k->in.data, k->in.size, "\r\n", 2) : NULL))
                        if (!conn_read(k))
                                return false;
                size = strtoul(k->in.data, NULL, 16);
                buf_drop(&k->in, (size_t)(end + 2 - k->in.data));
                if (!read_sized(k, size))
                        return false;
                while (k->in.size < 2)
                        if (!conn_read(k))
                                return false;
                buf_drop(&k->in, 2);
                if (size == 0)
                        return true;
        }
}

static inline bool conn_request(struct conn *k)
{
        const char *length, *coding;
        char *end;

        buf_clear(&k->head);
        buf_clear(&k->body);
        while (!(end = k->in.size ? memmem(k->in.data, k->in.size, "\r\n\r\n", 4) : NULL))
                if (!conn_read(k))
                        return false;
        CHECK_EQ(buf_add(&k->head, k->in.data, (size_t)(end + 2 - k->in.data)), 0);
        buf_drop(&k->in, (size_t)(end + 4 - k->in.data));
        if (!CHECK_EQ(sscanf(k->head.data, "%15s %4095s", k->method, k->target), 2))
                return false;
        k->requests++;
        mutex_lock(&k->server->lock);
        k->server->requests++;
        mutex_unlock(&k->server->lock);
        length = conn_header(k, "Content-Length");
        if (length)
                return read_sized(k, strtoul(length, NULL, 10));
        coding = conn_header(k, "Transfer-Encoding");
        return !coding || read_chunks(k);
}

/* ---- the server ---- */

static inline bool server_is_ending(struct server *v)
{
        bool is_ending;

        mutex_lock(&v->lock);
        is_ending = v->is_ending;
        mutex_unlock(&v->lock);
        return is_ending;
}

/* Wait that long, or until the test is over. */
static inline void server_pause(struct server *v, unsigned ms)
{
        uint64_t until = clock_after(ms * NS_PER_MS);

        mutex_lock(&v->lock);
        while (!v->is_ending && cond_wait_until(&v->changed, &v->lock, until))
                ;
        mutex_unlock(&v->lock);
}

/* The case's counter, from 1. */
static inline unsigned server_count(struct server *v)
{
        unsigned n;

        mutex_lock(&v->lock);
        n = ++v->count;
        mutex_unlock(&v->lock);
        return n;
}

static inline unsigned server_counted(struct server *v)
{
        unsigned n;

        mutex_lock(&v->lock);
        n = v->count;
        mutex_unlock(&v->lock);
        return n;
}

static inline unsigned server_connections(struct server *v)
{
        unsigned n;

        mutex_lock(&v->lock);
        n = v->connections;
        mutex_unlock(&v->lock);
        return n;
}

static inline void *conn_thread(void *arg)
{
        struct conn *k = arg;
        struct server *v = k->server;
        bool ok = true;

        if (v->tls) {
                k->ssl = SSL_new(v->tls);
                ok = k->ssl && SSL_set_fd(k->ssl, k->fd) == 1 && SSL_accept(k->ssl) == 1;
        }
        if (ok && v->greet)
                v->greet(k);
        while (ok && k->fd >= 0 && conn_request(k))
                v->serve(k);
        mutex_lock(&v->lock);
        for (size_t i = 0; i < CONNS_MAX; i++)
                if (k->fd >= 0 && v->fds[i] == k->fd)
                        v->fds[i] = -1;
        mutex_unlock(&v->lock);
        SSL_free(k->ssl);
        if (k->fd >= 0)
                (void)close(k->fd);
        buf_done(&k->in);
        buf_done(&k->head);
        buf_done(&k->body);
        free(k);
        mutex_lock(&v->lock);
        v->running--;
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
        return NULL;
}

static inline void take_conn(struct server *v, int fd)
{
        struct conn *k = calloc(1, sizeof(*k));
        pthread_t thread;

        if (!CHECK(k)) {
                (void)close(fd);
                return;
        }
        *k = (struct conn){.server = v,
                           .fd = fd,
                           .in = BUF_INIT(IN_MAX),
                           .head = BUF_INIT(IN_MAX),
                           .body = BUF_INIT(IN_MAX)};
        mutex_lock(&v->lock);
        k->number = ++v->connections;
        v->running++;
        for (size_t i = 0; i < CONNS_MAX; i++) {
                if (v->fds[i] < 0) {
                        v->fds[i] = fd;
                        break;
                }
        }
        mutex_unlock(&v->lock);
        CHECK_EQ(pthread_create(&thread, NULL, conn_thread, k), 0);
        CHECK_EQ(pthread_detach(thread), 0);
}

static inline void *server_thread(void *arg)
{
        struct server *v = arg;

        for (;;) {
                int fd = accept4(v->fd, NULL, NULL, SOCK_CLOEXEC);

                if (fd < 0)
                        return NULL;
                take_conn(v, fd);
        }
}

static inline void server_listen(struct server *v, bool is_unix)
{
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        socklen_t size = sizeof(in);

        v->fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(v->fd >= 0);
        if (is_unix) {
                (void)snprintf(v->path, sizeof(v->path), "/tmp/sbxfs-http-%d", (int)getpid());
                (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", v->path);
                (void)unlink(v->path);
                CHECK_EQ(bind(v->fd, (struct sockaddr *)&un, sizeof(un)), 0);
        } else {
                CHECK_EQ(bind(v->fd, (struct sockaddr *)&in, sizeof(in)), 0);
                CHECK_EQ(getsockname(v->fd, (struct sockaddr *)&in, &size), 0);
                (void)snprintf(v->url, sizeof(v->url), "%s://127.0.0.1:%u",
                               v->tls ? "https" : "http", ntohs(in.sin_port));
        }
        CHECK_EQ(listen(v->fd, 64), 0);
}

static inline void server_start(struct server *v, void (*serve)(struct conn *k), bool is_unix)
{
        (void)signal(SIGPIPE, SIG_IGN);
        v->serve = serve;
        mutex_init(&v->lock);
        cond_init(&v->changed);
        for (size_t i = 0; i < CONNS_MAX; i++)
                v->fds[i] = -1;
        server_listen(v, is_unix);
        CHECK_EQ(pthread_create(&v->thread, NULL, server_thread, v), 0);
}

static inline void server_stop(struct server *v)
{
        mutex_lock(&v->lock);
        v->is_ending = true;
        cond_broadcast(&v->changed);
        mutex_unlock(&v->lock);
        (void)shutdown(v->fd, SHUT_RDWR);
        CHECK_EQ(pthread_join(v->thread, NULL), 0);
        (void)close(v->fd);
        mutex_lock(&v->lock);
        for (size_t i = 0; i < CONNS_MAX; i++)
                if (v->fds[i] >= 0)
                        (void)shutdown(v->fds[i], SHUT_RDWR);
        while (v->running > 0)
                cond_wait(&v->changed, &v->lock);
        mutex_unlock(&v->lock);
        cond_done(&v->changed);
        mutex_done(&v->lock);
        if (v->path[0])
                (void)unlink(v->path);
}

/* ---- the client's side ---- */

static inline struct http *connect_to(const struct server *v, const struct http_config *more)
{
        struct http_config config = more ? *more : (struct http_config){0};
        struct http *h = NULL;
        struct call c;

        config.name = "test";
        if (v->path[0])
                config.socket_path = v->path;
        else if (!config.url)
                config.url = v->url;
        call_init(&c, clock_after(60 * NS_PER_S));
        CHECK_EQ(http_new(&config, &c, &h), 0);
        return h;
}

static inline int get(struct http *h, struct call *c, const char *path, struct http_reply *reply)
{
        struct http_request q = {.path = path};

        call_init(c, clock_after(60 * NS_PER_S));
        return http_do(h, c, &q, reply);
}
