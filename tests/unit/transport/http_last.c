/* SPDX-License-Identifier: Apache-2.0 */
/* What lasts: long answers handed on as they come, and connections that leave HTTP. */

#include "tests/unit/transport/http_server.h"

struct heard {
        struct mutex lock;
        struct cond changed;
        struct buf data;
        unsigned drained, ends;
        struct stream_end end;
        struct stream_events events;
};

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct heard *h = ctx;

        mutex_lock(&h->lock);
        CHECK(!is_stderr);
        CHECK_EQ(h->ends, 0);
        CHECK_EQ(buf_add(&h->data, data, size), 0);
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
}

static void on_drained(void *ctx)
{
        struct heard *h = ctx;

        mutex_lock(&h->lock);
        h->drained++;
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct heard *h = ctx;

        mutex_lock(&h->lock);
        h->ends++;
        h->end = *end;
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
}

static void heard_init(struct heard *h)
{
        *h = (struct heard){.data = BUF_INIT(64 << 20)};
        h->events = (struct stream_events){on_data, on_drained, on_end, h};
        mutex_init(&h->lock);
        cond_init(&h->changed);
}

static void heard_done(struct heard *h)
{
        buf_done(&h->data);
        cond_done(&h->changed);
        mutex_done(&h->lock);
}

static bool wait_for_size(struct heard *h, size_t size)
{
        uint64_t until = clock_after(60 * NS_PER_S);
        bool ok = true;

        mutex_lock(&h->lock);
        while (h->data.size < size && (ok = cond_wait_until(&h->changed, &h->lock, until)))
                ;
        mutex_unlock(&h->lock);
        return ok;
}

static bool wait_for_end(struct heard *h)
{
        uint64_t until = clock_after(60 * NS_PER_S);
        bool ok = true;

        mutex_lock(&h->lock);
        while (h->ends == 0 && (ok = cond_wait_until(&h->changed, &h->lock, until)))
                ;
        mutex_unlock(&h->lock);
        return ok;
}

/* ---- long answers ---- */

static void say_chunk(struct conn *k, const char *text)
{
        char chunk[256];

        (void)snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(text), text);
        (void)conn_say(k, chunk);
}

static void serve_events(struct conn *k)
{
        static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                                   "X-What: events\r\n\r\n";

        if (conn_is(k, "/empty")) {
                (void)conn_reply(k, 200, "", "");
        } else if (conn_is(k, "/refused")) {
                (void)conn_reply(k, 404, "", "{\"message\":\"no such stream\"}");
        } else if (conn_is(k, "/busy")) {
                if (server_count(k->server) < 3)
                        (void)conn_reply(k, 503, "", "later");
                else
                        (void)conn_reply(k, 200, "", "now");
        } else if (conn_is(k, "/never")) {
                server_pause(k->server, 60000);
        } else if (conn_is(k, "/slow")) {
                /* at once, so that the silence begins behind it */
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "3\r\none\r\n");
                server_pause(k->server, 60000);
        } else if (conn_is(k, "/cut")) {
                (void)conn_say(k, head);
                say_chunk(k, "one");
                conn_close(k);
        } else if (conn_is(k, "/endless")) {
                (void)conn_say(k, head);
                while (conn_say(k, "3e8\r\n") && !server_is_ending(k->server)) {
                        char data[1002];

                        memset(data, 'x', 1000);
                        memcpy(data + 1000, "\r\n", 2);
                        if (!conn_write(k, data, sizeof(data)))
                                break;
                }
        } else if (conn_is(k, "/echo")) {
                (void)conn_reply(k, 200, "", buf_str(&k->body));
        } else {
                (void)conn_say(k, head);
                say_chunk(k, "one");
                server_pause(k->server, 30);
                say_chunk(k, "two");
                (void)conn_say(k, "0\r\nTrailer: x\r\n\r\n");
        }
}

struct fixture {
        struct server server;
        struct http *http;
        struct heard heard;
        struct http_reply reply;
        struct stream *stream;
        struct call call;
};

static void begin(struct fixture *f, void (*serve)(struct conn *), bool is_unix)
{
        *f = (struct fixture){0};
        server_start(&f->server, serve, is_unix);
        f->http = connect_to(&f->server, NULL);
        heard_init(&f->heard);
        call_init(&f->call, clock_after(100 * NS_PER_S));
}

static int open_path(struct fixture *f, const char *path, uint64_t idle_ns)
{
        struct http_request q = {.path = path};

        return http_open(f->http, &f->call, &q, idle_ns, &f->heard.events, &f->reply, &f->stream);
}

static void finish(struct fixture *f)
{
        stream_close(f->stream);
        http_reply_done(&f->reply);
        http_unref(f->http);
        server_stop(&f->server);
        heard_done(&f->heard);
}

static void events_come_as_they_are_sent(void)
{
        struct fixture f;

        begin(&f, serve_events, false);
        CHECK_EQ(open_path(&f, "/events", 0), 0);
        CHECK_EQ(f.reply.status, 200);
        CHECK_STR(http_reply_header(&f.reply, "x-what"), "events");
        CHECK(wait_for_end(&f.heard));
        CHECK_STR(buf_str(&f.heard.data), "onetwo");
        CHECK_EQ(f.heard.end.error, 0);
        CHECK_EQ(stream_send(f.stream, "x", 1), -EPIPE);
        finish(&f);
}

static void an_empty_answer_ends(void)
{
        struct fixture f;

        begin(&f, serve_events, true);
        CHECK_EQ(open_path(&f, "/empty", 0), 0);
        CHECK(wait_for_end(&f.heard));
        CHECK_EQ(f.heard.end.error, 0);
        CHECK_EQ(f.heard.data.size, 0);
        finish(&f);
}

static void a_refusal_is_an_error(void)
{
        struct fixture f;

        begin(&f, serve_events, false);
        CHECK_EQ(open_path(&f, "/refused", 0), -ENOENT);
        CHECK_EQ(f.reply.status, 404);
        CHECK(strstr(f.call.sentence, "no such stream"));
        CHECK(!f.stream);
        finish(&f);
}

static void an_opening_is_repeated(void)
{
        struct fixture f;

        begin(&f, serve_events, false);
        CHECK_EQ(open_path(&f, "/busy", 0), 0);
        CHECK(wait_for_end(&f.heard));
        CHECK_STR(buf_str(&f.heard.data), "now");
        CHECK_EQ(server_counted(&f.server), 3);
        finish(&f);
}

static void silence_ends_a_stream(void)
{
        struct fixture f;

        begin(&f, serve_events, false);
        CHECK_EQ(open_path(&f, "/slow", 2 * NS_PER_S), 0);
        CHECK(wait_for_end(&f.heard));
        CHECK_EQ(f.heard.end.error, -ETIMEDOUT);
        CHECK_STR(buf_str(&f.heard.data), "one");
        finish(&f);
}

static void a_cut_stream_says_so(void)
{
        struct fixture f;

        begin(&f, serve_events, false);
        CHECK_EQ(open_path(&f, "/cut", 0), 0);
        CHECK(wait_for_end(&f.heard));
        CHECK_EQ(f.heard.end.error, -EHOSTUNREACH);
        CHECK(f.heard.end.sentence[0] != '\0');
        finish(&f);
}

static void a_stream_has_its_limit(void)
{
        struct http_request q = {.path = "/endless", .size_max = 100000};
        struct fixture f;

        begin(&f, serve_events, false);
        CHECK_EQ(http_open(f.http, &f.call, &q, 0, &f.heard.events, &f.reply, &f.stream), 0);
        CHECK(wait_for_end(&f.heard));
        CHECK_EQ(f.heard.end.error, -EFBIG);
        CHECK(f.heard.data.size <= 100000);
        finish(&f);
}

static void closing_ends_it_at_once(void)
{
        struct fixture f;

        begin(&f, serve_events, false);
        CHECK_EQ(open_path(&f, "/endless", 0), 0);
        CHECK(wait_for_size(&f.heard, 5000));
        stream_close(f.stream);
        f.stream = NULL;
        CHECK_EQ(f.heard.ends, 0);
        CHECK_EQ(open_path(&f, "/slow", 0), 0);
        stream_close(f.stream);
        f.stream = NULL;
        finish(&f);
}

static void *cancel_soon(void *arg)
{
        (void)usleep(50000);
        call_cancel(arg);
        return NULL;
}

static void an_opening_can_be_cancelled(void)
{
        struct fixture f;
        pthread_t thread;

        begin(&f, serve_events, false);
        CHECK_EQ(pthread_create(&thread, NULL, cancel_soon, &f.call), 0);
        CHECK_EQ(open_path(&f, "/never", 0), -EINTR);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        finish(&f);
}

static void what_was_asked_with_may_be_forgotten(void)
{
        struct fixture f;
        char *body = strdup("the body"), *path = strdup("/echo");
        struct http_request q = {.method = "POST", .path = path, .data = body, .size = 8};

        begin(&f, serve_events, false);
        CHECK_EQ(http_open(f.http, &f.call, &q, 0, &f.heard.events, &f.reply, &f.stream), 0);
        memset(body, 'x', 8);
        free(body);
        free(path);
        CHECK(wait_for_end(&f.heard));
        CHECK_STR(buf_str(&f.heard.data), "the body");
        finish(&f);
}

#define MANY 40

static void many_streams_share_one_thread(void)
{
        struct fixture f;
        struct heard heard[MANY];
        struct stream *streams[MANY] = {NULL};
        struct http_request q = {.path = "/events"};

        begin(&f, serve_events, false);
        for (int i = 0; i < MANY; i++) {
                heard_init(&heard[i]);
                CHECK_EQ(http_open(f.http, &f.call, &q, 0, &heard[i].events, &f.reply, &streams[i]),
                         0);
        }
        for (int i = 0; i < MANY; i++) {
                CHECK(wait_for_end(&heard[i]));
                CHECK_STR(buf_str(&heard[i].data), "onetwo");
                stream_close(streams[i]);
                heard_done(&heard[i]);
        }
        finish(&f);
}

/* ---- upgrades ---- */

static void echo(struct conn *k)
{
        (void)conn_write(k, k->in.data, k->in.size);
        buf_clear(&k->in);
        while (conn_read(k)) {
                (void)conn_write(k, k->in.data, k->in.size);
                buf_clear(&k->in);
        }
        (void)conn_say(k, "bye");
        conn_close(k);
}

static void serve_upgrade(struct conn *k)
{
        if (conn_is(k, "/refused")) {
                (void)conn_reply(k, 409, "", "{\"message\":\"it isn't running\"}");
        } else if (conn_is(k, "/refused-chunked")) {
                (void)conn_say(k, "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "5\r\nall w\r\n5\r\nrong!\r\n0\r\n\r\n");
        } else if (conn_is(k, "/busy") && server_count(k->server) < 2) {
                (void)conn_reply(k, 429, "", "");
        } else if (conn_is(k, "/no-http")) {
                (void)conn_say(k, "SSH-2.0-OpenSSH_9.2\r\n\r\n");
        } else if (conn_is(k, "/long")) {
                (void)conn_say(k, "HTTP/1.1 101 UPGRADED\r\n");
                while (conn_say(k, "X-More: and more and more and more\r\n"))
                        ;
        } else if (conn_is(k, "/put-off")) {
                while (conn_say(k, "HTTP/1.1 100 Continue\r\n\r\n"))
                        ;
        } else if (conn_is(k, "/closed")) {
                conn_close(k);
        } else if (conn_is(k, "/never")) {
                server_pause(k->server, 60000);
        } else if (conn_is(k, "/reset")) {
                (void)conn_say(k, "HTTP/1.1 101 UPGRADED\r\n\r\n");
                (void)conn_read(k);
                conn_reset(k);
        } else if (conn_is(k, "/plain-200")) {
                (void)conn_say(k, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello ");
                echo(k);
        } else {
                CHECK_STR(conn_header(k, "Upgrade"), "tcp");
                CHECK_STR(conn_header(k, "Connection"), "Upgrade");
                (void)conn_say(k, "HTTP/1.1 101 UPGRADED\r\nX-A: b\r\n"
                                  "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
                (void)conn_say(k, buf_str(&k->body));
                echo(k);
        }
}

static int upgrade_path(struct fixture *f, const char *path)
{
        struct http_request q = {.method = "POST", .path = path, .data = "{}", .size = 2};

        return http_upgrade(f->http, &f->call, &q, "tcp", &f->heard.events, &f->reply, &f->stream);
}

static void talk(struct fixture *f)
{
        CHECK_EQ(upgrade_path(f, "/exec?x=y"), 0);
        CHECK_EQ(f->reply.status, 101);
        CHECK_STR(http_reply_header(&f->reply, "X-A"), "b");
        CHECK_EQ(stream_send(f->stream, "hello", 5), 0);
        CHECK(wait_for_size(&f->heard, 7));
        CHECK_STR(buf_str(&f->heard.data), "{}hello");
        CHECK_EQ(stream_send(f->stream, " you", 4), 0);
        CHECK_EQ(stream_send_eof(f->stream), 0);
        CHECK_EQ(stream_send(f->stream, "x", 1), -EPIPE);
        CHECK(wait_for_end(&f->heard));
        CHECK_STR(buf_str(&f->heard.data), "{}hello youbye");
        CHECK_EQ(f->heard.end.error, 0);
}

static void bytes_go_both_ways(void)
{
        struct fixture f;

        begin(&f, serve_upgrade, false);
        talk(&f);
        finish(&f);
        begin(&f, serve_upgrade, true);
        talk(&f);
        finish(&f);
}

static void a_200_is_an_upgrade_too(void)
{
        struct fixture f;

        begin(&f, serve_upgrade, true);
        CHECK_EQ(upgrade_path(&f, "/plain-200"), 0);
        CHECK_EQ(stream_send(f.stream, "world", 5), 0);
        CHECK(wait_for_size(&f.heard, 11));
        CHECK_STR(buf_str(&f.heard.data), "hello world");
        finish(&f);
}

static void much_goes_through(void)
{
        static char data[1 << 20];
        struct fixture f;
        size_t bad = 0, size = sizeof(data) * 8;

        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (char)(i * 7 + i / 251);
        begin(&f, serve_upgrade, true);
        CHECK_EQ(upgrade_path(&f, "/exec"), 0);
        for (int i = 0; i < 8; i++)
                CHECK_EQ(stream_send(f.stream, data, sizeof(data)), 0);
        CHECK_EQ(stream_send_eof(f.stream), 0);
        CHECK(wait_for_end(&f.heard));
        if (CHECK_EQ(f.heard.data.size, 2 + size + 3))
                for (size_t i = 0; i < size; i++)
                        bad += f.heard.data.data[2 + i] != data[i % sizeof(data)];
        CHECK_EQ(bad, 0);
        CHECK_EQ(stream_queued(f.stream), 0);
        CHECK(f.heard.drained > 0);
        finish(&f);
}

static void refusals_are_errors(void)
{
        struct fixture f;

        begin(&f, serve_upgrade, true);
        CHECK_EQ(upgrade_path(&f, "/refused"), -EBUSY);
        CHECK(strstr(f.call.sentence, "it isn't running"));
        CHECK_EQ(upgrade_path(&f, "/refused-chunked"), -EINVAL);
        CHECK(strstr(f.call.sentence, "all wrong!"));
        CHECK_EQ(upgrade_path(&f, "/no-http"), -EPROTO);
        CHECK_EQ(upgrade_path(&f, "/long"), -EPROTO);
        CHECK_EQ(upgrade_path(&f, "/put-off"), -EPROTO);
        CHECK_EQ(upgrade_path(&f, "/closed"), -EHOSTUNREACH);
        CHECK(f.reply.was_sent);
        CHECK_EQ(server_connections(&f.server), 6); /* none was repeated */
        CHECK_EQ(upgrade_path(&f, "/busy"), 0);
        finish(&f);
}

static void an_upgrade_has_its_limits(void)
{
        struct http_request q = {.path = "/never", .all_ns = 100 * NS_PER_MS};
        struct fixture f;
        pthread_t thread;

        begin(&f, serve_upgrade, true);
        CHECK_EQ(http_upgrade(f.http, &f.call, &q, "tcp", &f.heard.events, &f.reply, &f.stream),
                 -ETIMEDOUT);
        CHECK_EQ(pthread_create(&thread, NULL, cancel_soon, &f.call), 0);
        CHECK_EQ(upgrade_path(&f, "/never"), -EINTR);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        finish(&f);
}

static void a_reset_is_an_error(void)
{
        struct fixture f;

        begin(&f, serve_upgrade, false);
        CHECK_EQ(upgrade_path(&f, "/reset"), 0);
        CHECK_EQ(stream_send(f.stream, "go on", 5), 0);
        CHECK(wait_for_end(&f.heard));
        CHECK_EQ(f.heard.end.error, -EHOSTUNREACH);
        CHECK_EQ(stream_send(f.stream, "x", 1), -EPIPE);
        CHECK_EQ(stream_send_eof(f.stream), -EPIPE);
        finish(&f);
}

static void closing_ends_a_tunnel_at_once(void)
{
        struct fixture f;

        begin(&f, serve_upgrade, false);
        CHECK_EQ(upgrade_path(&f, "/exec"), 0);
        CHECK(wait_for_size(&f.heard, 2));
        stream_close(f.stream);
        f.stream = NULL;
        CHECK_EQ(f.heard.ends, 0);
        finish(&f);
}

int main(void)
{
        RUN(events_come_as_they_are_sent);
        RUN(an_empty_answer_ends);
        RUN(a_refusal_is_an_error);
        RUN(an_opening_is_repeated);
        RUN(silence_ends_a_stream);
        RUN(a_cut_stream_says_so);
        RUN(a_stream_has_its_limit);
        RUN(closing_ends_it_at_once);
        RUN(an_opening_can_be_cancelled);
        RUN(what_was_asked_with_may_be_forgotten);
        RUN(many_streams_share_one_thread);
        RUN(bytes_go_both_ways);
        RUN(a_200_is_an_upgrade_too);
        RUN(much_goes_through);
        RUN(refusals_are_errors);
        RUN(an_upgrade_has_its_limits);
        RUN(a_reset_is_an_error);
        RUN(closing_ends_a_tunnel_at_once);
        return check_result();
}
