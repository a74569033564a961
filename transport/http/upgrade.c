/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking for another protocol. libcurl connects (names, proxies, TLS) and stops there; the request
 * and the head of the answer are ours, since it would take what follows for a body.
 */

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/http/head.h"
#include "transport/http/limits.h"
#include "transport/http/tunnel.h"

#define READ_SIZE 4096
#define HEADS_MAX 16 /* of answers that aren't the last */
#define COMING_MAX (HTTP_HEADERS_MAX + HTTP_ERROR_BODY_MAX * 2)

/* ---- the request's text ---- */

/* The endpoint's URL is SCHEME://HOST/PREFIX. */
static int add_target(struct buf *to, const struct exchange *x)
{
        const char *host = strstr(x->http->url, "://") + 3;
        size_t size = strcspn(host, "/");

        return buf_addf(to, "%s %s%s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: %s\r\n",
                        request_method(x->request), host + size, x->request->path, (int)size, host,
                        x->http->user_agent);
}

/* A line as libcurl has it. */
static int add_line(struct buf *to, const char *line)
{
        size_t size = strlen(line);

        if (line[size - 1] == ';' && !memchr(line, ':', size))
                return buf_addf(to, "%.*s:\r\n", (int)size - 1, line);
        return buf_addf(to, "%s\r\n", line);
}

static int add_lines(struct buf *to, const struct exchange *x)
{
        const struct http_request *q = x->request;
        int r = 0;

        for (size_t i = 0; r == 0 && i < x->http->header_count; i++)
                r = add_line(to, x->http->headers[i]);
        for (size_t i = 0; r == 0 && i < q->header_count; i++)
                r = buf_addf(to, "%s: %s\r\n", q->headers[i].name, q->headers[i].value);
        if (r == 0 && q->data)
                r = buf_addf(to, "Content-Type: %s\r\n", q->type ? q->type : "application/json");
        return r;
}

static int write_request(struct buf *to, const struct exchange *x, const char *protocol)
{
        const struct http_request *q = x->request;
        int r = add_target(to, x);

        r = r < 0 ? r : add_lines(to, x);
        r = r < 0 ? r
                  : buf_addf(to,
                             "Connection: Upgrade\r\nUpgrade: %s\r\nContent-Length: %zu\r\n\r\n",
                             protocol, q->data ? q->size : 0);
        return r < 0 || !q->data ? r : buf_add(to, q->data, q->size);
}

/* ---- one try ---- */

struct attempt {
        struct exchange x;
        struct limits limits;
        struct wire wire;
        struct buf going, coming;
        uint64_t moved;
};

static int check_limits(struct attempt *a, struct call *c)
{
        bool is_silent;
        int r = limits_check(&a->limits, c, a->moved, false, &is_silent);

        if (r == 0)
                return 0;
        if (r == -EINTR)
                return http_fail(&a->x, c, r, "cancelled");
        (void)http_fail(&a->x, c, r, is_silent ? "no byte came in time" : "it took too long");
        if (is_silent)
                breaker_silent(&a->x.http->breaker, c->sentence);
        return r;
}

static void wait_for(const struct attempt *a, short events)
{
        struct pollfd p = {.fd = a->wire.fd, .events = events};

        (void)poll(&p, 1, limits_poll_ms(&a->limits, false)); /* or it is asked again */
}

static int send_request(struct attempt *a, struct call *c)
{
        size_t sent = 0;

        while (sent < a->going.size) {
                ssize_t n = wire_send(&a->wire, a->going.data + sent, a->going.size - sent);
                int r = check_limits(a, c);

                if (r < 0)
                        return r;
                if (n == -EAGAIN) {
                        wait_for(a, POLLOUT);
                        continue;
                }
                if (n < 0)
                        return http_fail(&a->x, c, (int)n, "the connection was closed");
                a->x.reply->was_sent = true;
                sent += (size_t)n;
                a->moved += (uint64_t)n;
        }
        return 0;
}

/* More of the answer. 1: some came; 0: its end; -errno. */
static int receive(struct attempt *a, struct call *c)
{
        for (;;) {
                char *to = buf_reserve(&a->coming, READ_SIZE);
                ssize_t n;
                int r = check_limits(a, c);

                if (r < 0)
                        return r;
                if (!to)
                        return http_fail(&a->x, c, -EPROTO, "the answer's head is too long");
                n = wire_receive(&a->wire, to, READ_SIZE);
                if (n == -EAGAIN) {
                        wait_for(a, POLLIN);
                        continue;
                }
                if (n < 0)
                        return http_fail(&a->x, c, (int)n, "the connection was cut");
                a->coming.size += (size_t)n;
                a->moved += (uint64_t)n;
                return n > 0;
        }
}

/* The head of the last answer; what follows it stays in a->coming. */
static int receive_head(struct attempt *a, struct call *c)
{
        for (unsigned heads = 0; heads < HEADS_MAX;) {
                size_t size = 0;
                int r = head_parse(buf_str(&a->coming), a->coming.size, a->x.reply, &size);

                if (r == 0) {
                        buf_drop(&a->coming, size);
                        if (a->x.reply->status == 101 || a->x.reply->status >= 200)
                                return 0;
                        heads++; /* 100 Continue and the like */
                        continue;
                }
                if (r != -EAGAIN)
                        return http_fail(&a->x, c, r, "the answer is no HTTP");
                r = receive(a, c);
                if (r == 0)
                        return http_fail(&a->x, c, -EHOSTUNREACH,
                                         "the connection was closed before an answer came");
                if (r < 0)
                        return r;
        }
        return http_fail(&a->x, c, -EPROTO, "the answer is put off for ever");
}

static int receive_refusal(struct attempt *a, struct call *c)
{
        bool is_last = false;

        while (!head_take_body(buf_str(&a->coming), a->coming.size, is_last, a->x.reply)) {
                int r = receive(a, c);

                if (r == -EINTR || r == -ETIMEDOUT)
                        return r;
                is_last = r <= 0;
        }
        return 0;
}

static int talk(struct attempt *a, const char *protocol, struct call *c)
{
        int r;

        a->going = BUF_INIT(HTTP_BODY_MAX);
        a->coming = BUF_INIT(COMING_MAX);
        r = write_request(&a->going, &a->x, protocol);
        if (r < 0)
                return http_fail(&a->x, c, r, "the request is too long");
        limits_restart(&a->limits);
        r = send_request(a, c);
        r = r < 0 ? r : receive_head(a, c);
        if (r < 0)
                return r;
        breaker_answered(&a->x.http->breaker);
        if (a->x.reply->status == 101 || a->x.reply->status == 200)
                return 0;
        return receive_refusal(a, c);
}

static bool is_granted(const struct attempt *a)
{
        return a->x.reply->status == 101 || a->x.reply->status == 200;
}

static void attempt_done(struct attempt *a)
{
        exchange_done(&a->x);
        wire_done(&a->wire);
        buf_wipe(&a->going);
        buf_done(&a->coming);
}

static int look_at_wire(struct attempt *a, struct call *c)
{
        bool has_tls = strncmp(a->x.http->url, "https:", 6) == 0;

        a->wire.fd = lane_socket(a->wire.lane);
        a->wire.ssl = a->x.ssl;
        a->wire.is_direct = a->x.http->is_local && !has_tls;
        /* The attempt ends here, the connection goes on. */
        (void)curl_easy_setopt(a->wire.lane->easy, CURLOPT_ERRORBUFFER, NULL);
        if (has_tls && !a->wire.ssl)
                return http_fail(&a->x, c, -EOPNOTSUPP,
                                 "this needs a libcurl that has its TLS from OpenSSL");
        return 0;
}

/* 0, final; -EINPROGRESS: once more. */
static int upgrade_once(struct attempt *a, const char *protocol, unsigned tries, struct call *c)
{
        int r = http_connect(&a->x, &a->limits, &a->wire.lane, c);

        r = r < 0 ? r : look_at_wire(a, c);
        r = r < 0 ? r : talk(a, protocol, c);
        if (!(r == 0 && is_granted(a)) && exchange_waits_to_repeat(&a->x, r, tries, &a->limits, c))
                return -EINPROGRESS;
        return r == 0 && !is_granted(a) ? http_fail_status(&a->x, c) : r;
}

int http_upgrade(struct http *h, struct call *c, const struct http_request *request,
                 const char *protocol, const struct stream_events *events, struct http_reply *reply,
                 struct stream **ret)
{
        struct limits limits;
        int r = -EINPROGRESS;

        assert(!request->source && !request->sink && !request->range && request->part_count == 0);
        limits_init(&limits, request, c);
        for (unsigned tries = 1; r == -EINPROGRESS; tries++) {
                struct attempt a = {.limits = limits, .wire.fd = -1};

                a.x = (struct exchange){
                        .http = h, .request = request, .reply = reply, .is_tunnel = true};
                r = upgrade_once(&a, protocol, tries, c);
                if (r == 0) {
                        r = tunnel_new(h, &a.wire, &a.coming, events, ret);
                        if (r < 0)
                                (void)http_fail(&a.x, c, r, "out of memory");
                }
                attempt_done(&a);
        }
        return r;
}
