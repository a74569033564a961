/* SPDX-License-Identifier: Apache-2.0 */
/* What cases of single requests have: a server, an endpoint on it, a reply; and a body's source. */
#pragma once

#include "tests/unit/transport/http_server.h"

struct fixture {
        struct server server;
        struct http *http;
        struct http_reply reply;
        struct call call;
};

static inline void begin_greeting(struct fixture *f, void (*serve)(struct conn *),
                                  void (*greet)(struct conn *))
{
        *f = (struct fixture){.server.greet = greet};
        server_start(&f->server, serve, false);
        f->http = connect_to(&f->server, NULL);
        call_init(&f->call, clock_after(100 * NS_PER_S)); /* of all that the case asks */
}

static inline void begin(struct fixture *f, void (*serve)(struct conn *))
{
        begin_greeting(f, serve, NULL);
}

static inline void finish(struct fixture *f)
{
        http_reply_done(&f->reply);
        http_unref(f->http);
        server_stop(&f->server);
}

static inline int ask(struct fixture *f, const struct http_request *q)
{
        f->call.sentence[0] = '\0';
        return http_do(f->http, &f->call, q, &f->reply);
}

/* Answers with what it was asked. */
static inline void serve_echo(struct conn *k)
{
        struct buf text = BUF_INIT(IN_MAX);

        CHECK_EQ(buf_addf(&text, "%s %s\n%s\n", k->method, k->target, buf_str(&k->head)), 0);
        if (k->body.size > 0)
                CHECK_EQ(buf_add(&text, k->body.data, k->body.size), 0);
        if (strcmp(k->method, "HEAD") == 0)
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Is: head\r\n\r\n");
        else
                (void)conn_reply(k, 200, "X-Is: echo\r\n", buf_str(&text));
        buf_done(&text);
}

/* A source: the alphabet, again and again. */
struct letters {
        struct http_source source;
        uint64_t have; /* before it fails, or ends */
        int error;
        unsigned calls, dry; /* dry: so often it has nothing yet */
};

static inline ssize_t read_letters(struct http_source *from, void *data, size_t size,
                                   uint64_t offset)
{
        struct letters *l = (struct letters *)from;
        char *to = data;
        size_t n = size < 1000 ? size : 1000;

        l->calls++;
        if (l->dry > 0) {
                l->dry--;
                return -EAGAIN;
        }
        if (offset >= l->have)
                return l->error;
        if (n > l->have - offset)
                n = (size_t)(l->have - offset);
        for (size_t i = 0; i < n; i++)
                to[i] = (char)('a' + (offset + i) % 26);
        return (ssize_t)n;
}
