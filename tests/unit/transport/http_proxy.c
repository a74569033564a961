/* SPDX-License-Identifier: Apache-2.0 */
/* Proxies by the usual variables: what goes through them, and what must not. */

#include "tests/unit/transport/http_server.h"

static const struct http_header key = {"Authorization", "Bearer sk-0123456789", true};

/* It is proxy and server at once: what it was asked tells which. */
static void serve(struct conn *k)
{
        (void)server_count(k->server);
        if (strcmp(k->method, "CONNECT") == 0) {
                CHECK(!conn_header(k, "Authorization"));
                CHECK_STR(k->target, "far.example:443");
                (void)conn_reply(k, 403, "", "not there");
        } else {
                CHECK_STR(conn_header(k, "Authorization"), key.value);
                (void)conn_reply(k, 200, "", k->target);
        }
}

/* No other thread reads them yet: the server's does not. */
static void use_proxy(const struct server *v)
{
        /* NOLINTBEGIN(concurrency-mt-unsafe) */
        CHECK_EQ(setenv("http_proxy", v->url, 1), 0);
        CHECK_EQ(setenv("https_proxy", v->url, 1), 0);
        CHECK_EQ(unsetenv("no_proxy"), 0);
        CHECK_EQ(unsetenv("NO_PROXY"), 0);
        /* NOLINTEND(concurrency-mt-unsafe) */
}

static int ask(struct server *v, struct http_config *config, struct http_reply *reply)
{
        struct http *h;
        struct call c;
        int r;

        config->headers = &key;
        config->header_count = 1;
        h = connect_to(v, config);
        r = get(h, &c, "/x", reply);
        http_unref(h);
        return r;
}

static struct server server;

static void this_machine_is_asked_directly(void)
{
        struct http_config config = {0};
        struct http_reply reply = {0};

        CHECK_EQ(ask(&server, &config, &reply), 0);
        CHECK_STR(buf_str(&reply.body), "/x");
        http_reply_done(&reply);
}

static void others_are_asked_through_the_proxy(void)
{
        struct http_config config = {.url = "http://far.example", .plain_host = "far.example"};
        struct http_reply reply = {0};

        CHECK_EQ(ask(&server, &config, &reply), 0);
        CHECK_STR(buf_str(&reply.body), "http://far.example/x");
        http_reply_done(&reply);
}

static void the_proxy_gets_no_keys(void)
{
        struct http_config config = {.url = "https://far.example"};
        struct http_reply reply = {0};
        unsigned before = server_counted(&server);

        CHECK(ask(&server, &config, &reply) < 0);
        CHECK(!reply.was_sent);
        CHECK(server_counted(&server) > before);
        http_reply_done(&reply);
}

int main(void)
{
        server_start(&server, serve, false);
        use_proxy(&server);
        RUN(this_machine_is_asked_directly);
        RUN(others_are_asked_through_the_proxy);
        RUN(the_proxy_gets_no_keys);
        server_stop(&server);
        return check_result();
}
