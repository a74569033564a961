/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that are repeated, end at a deadline, go many at once, or not at all; the breaker. */

#include "tests/unit/transport/http_fixture.h"

/* ---- repeats ---- */

/* The first N requests (the path) fail as the query says. */
static void serve_flaky(struct conn *k)
{
        unsigned n = server_count(k->server), bad = (unsigned)atoi(k->target + 1);
        const char *how = strchr(k->target, '?') + 1;

        if (n > bad)
                (void)conn_reply(k, 200, "", "good");
        else if (strcmp(how, "close") == 0)
                conn_close(k);
        else if (strcmp(how, "reset") == 0)
                conn_reset(k);
        else if (strcmp(how, "later") == 0)
                (void)conn_reply(k, 429, "Retry-After: 1000\r\n", "slow down");
        else if (strcmp(how, "soon") == 0)
                (void)conn_reply(k, 503, "X-A: b\r\nRetry-After-sandbox: 1\r\n", "");
        else
                (void)conn_reply(k, (unsigned)atoi(how), "", "");
}

static int ask_flaky(struct fixture *f, const char *method, const char *path, bool is_idempotent)
{
        struct http_request q = {.method = method, .path = path, .is_idempotent = is_idempotent};
        int r;

        mutex_lock(&f->server.lock);
        f->server.count = 0;
        mutex_unlock(&f->server.lock);
        r = ask(f, &q);
        return r;
}

static void what_is_idempotent_is_repeated(void)
{
        struct fixture f;

        begin(&f, serve_flaky);
        CHECK_EQ(ask_flaky(&f, "GET", "/2?503", false), 0);
        CHECK_EQ(server_counted(&f.server), 3);
        CHECK_EQ(ask_flaky(&f, "GET", "/1?close", false), 0);
        CHECK_EQ(server_counted(&f.server), 2);
        CHECK_EQ(ask_flaky(&f, "GET", "/1?reset", false), 0);
        CHECK_EQ(server_counted(&f.server), 2);
        CHECK_EQ(ask_flaky(&f, "PUT", "/1?502", true), 0);
        CHECK_EQ(server_counted(&f.server), 2);
        CHECK_EQ(ask_flaky(&f, "GET", "/9?504", false), -EIO);
        CHECK_EQ(server_counted(&f.server), HTTP_TRIES);
        CHECK_EQ(ask_flaky(&f, "GET", "/9?500", false), -EIO);
        CHECK_EQ(server_counted(&f.server), 1);
        finish(&f);
}

static void what_may_have_been_done_is_not_repeated(void)
{
        struct fixture f;

        begin(&f, serve_flaky);
        CHECK_EQ(ask_flaky(&f, "POST", "/1?503", false), -EIO);
        CHECK_EQ(server_counted(&f.server), 1);
        CHECK_EQ(ask_flaky(&f, "POST", "/1?close", false), -EHOSTUNREACH);
        CHECK_EQ(server_counted(&f.server), 1);
        CHECK(f.reply.was_sent);
        CHECK_EQ(ask_flaky(&f, "POST", "/1?429", false), 0);
        CHECK_EQ(server_counted(&f.server), 2);
        CHECK_EQ(ask_flaky(&f, "DELETE", "/1?reset", false), -EHOSTUNREACH);
        CHECK_EQ(server_counted(&f.server), 1);
        finish(&f);
}

/* A kept connection dies with the second request that it gets: libcurl would send that again. */
static void serve_once(struct conn *k)
{
        (void)server_count(k->server);
        if (k->requests > 1)
                conn_close(k);
        else
                (void)conn_reply(k, 200, "", "good");
}

static void a_dead_connection_repeats_nothing_by_itself(void)
{
        struct fixture f;

        begin(&f, serve_once);
        CHECK_EQ(get(f.http, &f.call, "/", &f.reply), 0);
        CHECK_EQ(ask_flaky(&f, "POST", "/", false), -EHOSTUNREACH);
        CHECK_EQ(server_counted(&f.server), 1);
        CHECK_EQ(get(f.http, &f.call, "/", &f.reply), 0);
        CHECK_EQ(ask_flaky(&f, "GET", "/", false), 0);
        CHECK_EQ(server_counted(&f.server), 2);
        finish(&f);
}

/* Nor does it speak of that: with a body, it ends otherwise. */
static void a_body_is_not_sent_twice_by_itself(void)
{
        struct http_request q = {.method = "POST", .path = "/", .data = "{}", .size = 2};
        struct fixture f;

        begin(&f, serve_once);
        CHECK_EQ(get(f.http, &f.call, "/", &f.reply), 0);
        CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
        CHECK_STR(f.call.sentence, "test: POST /: the connection was closed before an answer came");
        CHECK(f.reply.was_sent);
        CHECK_EQ(server_counted(&f.server), 2);
        CHECK_EQ(get(f.http, &f.call, "/", &f.reply), 0);
        q.is_idempotent = true;
        CHECK_EQ(ask(&f, &q), 0);
        finish(&f);
}

static void retry_after_is_honoured(void)
{
        struct fixture f;
        uint64_t start;

        begin(&f, serve_flaky);
        start = clock_mono_ns();
        CHECK_EQ(ask_flaky(&f, "GET", "/1?soon", false), 0);
        CHECK(clock_mono_ns() - start >= NS_PER_S);
        CHECK_EQ(ask_flaky(&f, "GET", "/9?later", false),
                 -EAGAIN); /* not in time: not waited for */
        CHECK_EQ(server_counted(&f.server), 1);
        CHECK(strstr(f.call.sentence, "slow down"));
        finish(&f);
}

static void what_was_read_once_is_not_repeated(void)
{
        struct letters l = {.source = {.read = read_letters, .size = 100, .is_once = true},
                            .have = 100};
        struct http_request q = {
                .method = "PUT", .path = "/1?503", .source = &l.source, .is_idempotent = true};
        struct fixture f;

        begin(&f, serve_flaky);
        CHECK_EQ(ask(&f, &q), -EIO);
        CHECK_EQ(server_counted(&f.server), 1);
        f.server.count = 0;
        l.source.is_once = false;
        CHECK_EQ(ask(&f, &q), 0);
        finish(&f);
}

static void nobody_there_proves_that_nothing_was_done(void)
{
        struct http_request q = {.method = "POST", .path = "/"};
        struct fixture f;

        begin(&f, serve_echo);
        server_stop(&f.server);
        CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
        CHECK(!f.reply.was_sent);
        CHECK_EQ(f.reply.status, 0);
        CHECK(f.call.sentence[0] != '\0');
        http_reply_done(&f.reply);
        http_unref(f.http);
}

/* ---- deadlines ---- */

static void serve_slowly(struct conn *k)
{
        if (conn_is(k, "/drip")) {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
                while (!server_is_ending(k->server) && conn_say(k, "x"))
                        server_pause(k->server, 20);
        } else if (conn_is(k, "/late")) {
                server_pause(k->server, 60000);
        } else {
                (void)conn_reply(k, 200, "", "there");
        }
}

static void *cancel_soon(void *arg)
{
        (void)usleep(50000);
        call_cancel(arg);
        return NULL;
}

static void every_wait_has_an_end(void)
{
        struct http_request q = {.path = "/late", .silence_ns = 100 * NS_PER_MS};
        struct fixture f;
        pthread_t thread;

        begin(&f, serve_slowly);
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        q.silence_ns = NEVER_NS;
        q.all_ns = 100 * NS_PER_MS;
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        q.path = "/drip";
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        q.all_ns = 0;
        f.call.deadline_ns = clock_after(100 * NS_PER_MS);
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        call_init(&f.call, NEVER_NS);
        CHECK_EQ(pthread_create(&thread, NULL, cancel_soon, &f.call), 0);
        CHECK_EQ(ask(&f, &q), -EINTR);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(get(f.http, &f.call, "/there", &f.reply), 0);
        finish(&f);
}

/* The path is silent until the test has had enough. */
static void serve_silence(struct conn *k)
{
        bool is_awake;

        mutex_lock(&k->server->lock);
        is_awake = k->server->count > 0;
        mutex_unlock(&k->server->lock);
        if (is_awake)
                (void)conn_reply(k, 404, "", "");
        else
                server_pause(k->server, 700);
        if (!is_awake)
                conn_close(k);
}

static void two_silences_open_the_breaker(void)
{
        struct http_request q = {.path = "/", .silence_ns = 50 * NS_PER_MS};
        struct fixture f;
        char why[256] = "";
        uint64_t until;

        begin(&f, serve_silence);
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        CHECK(http_is_up(f.http, why, sizeof(why)));
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        CHECK(!http_is_up(f.http, why, sizeof(why)));
        CHECK(strstr(why, "no byte came in time"));
        CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
        CHECK(!f.reply.was_sent);
        (void)server_count(&f.server);
        until = clock_after(60 * NS_PER_S);
        while (!http_is_up(f.http, why, sizeof(why)) && clock_mono_ns() < until)
                (void)usleep(10000);
        q.silence_ns = 0; /* this one may take its time */
        CHECK_EQ(ask(&f, &q), -ENOENT); /* any answer will do */
        finish(&f);
}

static void what_is_known_to_be_back_is_asked(void)
{
        struct http_request q = {.path = "/", .silence_ns = 50 * NS_PER_MS};
        struct fixture f;

        begin(&f, serve_silence);
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
        (void)server_count(&f.server);
        http_renew(f.http);
        q.silence_ns = 0;
        CHECK_EQ(ask(&f, &q), -ENOENT);
        CHECK_EQ(f.call.sentence[0] != '\0', true);
        finish(&f);
}

static void a_probe_does_not_outlive_its_endpoint(void)
{
        struct http_request q = {.path = "/", .silence_ns = 20 * NS_PER_MS};
        struct fixture f;

        begin(&f, serve_silence);
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        CHECK_EQ(ask(&f, &q), -ETIMEDOUT);
        finish(&f);
}

/* ---- many at once ---- */

#define THREADS 16
#define EACH 30

static void *ask_often(void *arg)
{
        struct fixture *f = arg;
        struct http_reply reply = {0};
        struct call c;

        for (int i = 0; i < EACH; i++) {
                char path[32], line[48];

                (void)snprintf(path, sizeof(path), "/%d/%p", i, (void *)&reply);
                (void)snprintf(line, sizeof(line), "GET %s\n", path);
                CHECK_EQ(get(f->http, &c, path, &reply), 0);
                CHECK(strncmp(buf_str(&reply.body), line, strlen(line)) == 0);
        }
        http_reply_done(&reply);
        return NULL;
}

static void many_ask_at_once(void)
{
        pthread_t threads[THREADS];
        struct fixture f;

        begin(&f, serve_echo);
        for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, ask_often, &f), 0);
        for (int i = 0; i < THREADS; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(f.server.requests, THREADS * EACH);
        CHECK(f.server.connections <= THREADS);
        finish(&f);
}

static void serve_delayed(struct conn *k)
{
        server_pause(k->server, 30);
        (void)conn_reply(k, conn_is(k, "/7") ? 404 : 200, "", k->target);
}

#define JOBS 40

static void one_caller_may_ask_much_at_once(void)
{
        struct http_request requests[JOBS];
        struct http_job jobs[JOBS];
        char paths[JOBS][8];
        struct fixture f;

        begin(&f, serve_delayed);
        memset(jobs, 0, sizeof(jobs));
        for (int i = 0; i < JOBS; i++) {
                (void)snprintf(paths[i], sizeof(paths[i]), "/%d", i);
                requests[i] = (struct http_request){.path = paths[i]};
                jobs[i].request = &requests[i];
        }
        CHECK_EQ(http_do_all(f.http, &f.call, jobs, JOBS, 8), 0);
        for (int i = 0; i < JOBS; i++) {
                CHECK_EQ(jobs[i].error, i == 7 ? -ENOENT : 0);
                CHECK_STR(buf_str(&jobs[i].reply.body), paths[i]);
                CHECK_EQ(jobs[i].sentence[0] != '\0', i == 7);
                http_reply_done(&jobs[i].reply);
        }
        CHECK(server_connections(&f.server) <= 8);
        CHECK_EQ(http_do_all(f.http, &f.call, jobs, 0, 8), 0);
        finish(&f);
}

/* When two have come to the server, which are as many as may be under way. */
static void *cancel_when_two_are_there(void *arg)
{
        struct fixture *f = arg;
        uint64_t until = clock_after(60 * NS_PER_S);
        unsigned n = 0;

        while (n < 2 && clock_mono_ns() < until) {
                (void)usleep(1000);
                mutex_lock(&f->server.lock);
                n = f->server.requests;
                mutex_unlock(&f->server.lock);
        }
        call_cancel(&f->call);
        return NULL;
}

static void a_cancel_reaches_all(void)
{
        struct http_request late = {.path = "/late"};
        struct http_job jobs[5];
        struct fixture f;
        pthread_t thread;

        begin(&f, serve_slowly);
        memset(jobs, 0, sizeof(jobs));
        for (int i = 0; i < 5; i++)
                jobs[i].request = &late;
        CHECK_EQ(pthread_create(&thread, NULL, cancel_when_two_are_there, &f), 0);
        CHECK_EQ(http_do_all(f.http, &f.call, jobs, 5, 2), -EINTR);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        for (int i = 0; i < 5; i++) {
                CHECK_EQ(jobs[i].error, -EINTR);
                CHECK_EQ(jobs[i].reply.was_sent, i < 2);
                http_reply_done(&jobs[i].reply);
        }
        finish(&f);
}

/* ---- endpoints that can't be ---- */

static int make(const struct http_config *config)
{
        struct http *h = NULL;
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = http_new(config, &c, &h);
        CHECK(r == 0 || c.sentence[0] != '\0');
        CHECK(!strstr(c.sentence, "secret"));
        http_unref(h);
        return r;
}

static void bad_endpoints_are_refused(void)
{
        static const struct {
                const char *url;
                int error;
        } table[] = {
                {"https://example.com/v1", 0},
                {"http://localhost:80", 0},
                {"http://127.9.9.9", 0},
                {"http://[::1]:8", 0},
                {"http://example.com", -EPERM},
                {"http://allowed.example", 0},
                {"http://127.0.0.1.example", -EPERM},
                {"http://localhost.example", -EPERM},
                {"https://u:secret@example.com", -EINVAL},
                {"https://example.com?a=secret", -EINVAL},
                {"ftp://example.com", -EINVAL},
                {"file:///etc/passwd", -EINVAL},
                {"example.com", -EINVAL},
                {"", -EINVAL},
                {"https://example.com/#x", -EINVAL},
                {"http://0x7f.1", 0},
        };
        struct http_header header = {"A b", "c", true};
        struct http_config config = {.name = "test", .plain_host = "allowed.example"};

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                config.url = table[i].url;
                if (!CHECK_EQ(make(&config), table[i].error))
                        (void)fprintf(stderr, "%s\n", table[i].url);
        }
        config.url = "https://example.com";
        config.headers = &header;
        config.header_count = 1;
        CHECK_EQ(make(&config), -EINVAL);
        header = (struct http_header){"A", "secret\r\nB: c", true};
        CHECK_EQ(make(&config), -EINVAL);
        config.header_count = 0;
        config.ca_file = "/nonexistent/ca.pem";
        CHECK_EQ(make(&config), -EINVAL);
        config.ca_file = NULL;
        config.cert_file = "/dev/null";
        CHECK_EQ(make(&config), -EINVAL);
}

static void bad_requests_are_not_sent(void)
{
        static const struct http_header bad = {"X", "a\r\nY: b", false};
        static const char *const paths[] = {"a", "/a b", "/a\r\nHost: x", "/\xff", "/a#b", ""};
        struct http_request q = {.path = "/", .headers = &bad, .header_count = 1};
        struct fixture f;

        begin(&f, serve_echo);
        CHECK_EQ(ask(&f, &q), -EINVAL);
        q.header_count = 0;
        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
                q.path = paths[i];
                CHECK_EQ(ask(&f, &q), -EINVAL);
        }
        CHECK_EQ(server_connections(&f.server), 0);
        finish(&f);
}

int main(void)
{
        RUN(what_is_idempotent_is_repeated);
        RUN(what_may_have_been_done_is_not_repeated);
        RUN(a_dead_connection_repeats_nothing_by_itself);
        RUN(a_body_is_not_sent_twice_by_itself);
        RUN(retry_after_is_honoured);
        RUN(what_was_read_once_is_not_repeated);
        RUN(nobody_there_proves_that_nothing_was_done);
        RUN(every_wait_has_an_end);
        RUN(two_silences_open_the_breaker);
        RUN(what_is_known_to_be_back_is_asked);
        RUN(a_probe_does_not_outlive_its_endpoint);
        RUN(many_ask_at_once);
        RUN(one_caller_may_ask_much_at_once);
        RUN(a_cancel_reaches_all);
        RUN(bad_endpoints_are_refused);
        RUN(bad_requests_are_not_sent);
        return check_result();
}
