/* SPDX-License-Identifier: Apache-2.0 */
/* Servers made for the case: endless, lying, slow, garbled, and answering what nobody asked. */

#include "tests/unit/transport/http_fixture.h"

/* Once: what is idempotent is tried thrice. */
static int post(struct fixture *f, const char *path)
{
        struct http_request q = {.method = "POST", .path = path};

        f->call.sentence[0] = '\0';
        return http_do(f->http, &f->call, &q, &f->reply);
}

/* ---- without end ---- */

/* Much at a time: an answer in memory has to reach its limit before the time is up. */
static void pour(struct conn *k, const char *text)
{
        struct buf many = BUF_INIT(IN_MAX);

        for (int i = 0; i < 300; i++)
                CHECK_EQ(buf_add_str(&many, text), 0);
        while (!server_is_ending(k->server) && conn_write(k, many.data, many.size))
                ;
        buf_done(&many);
}

static void serve_endless(struct conn *k)
{
        if (conn_is(k, "/headers")) {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\n");
                pour(k, "X-A: some more and more and more and more and more and more\r\n");
        } else if (conn_is(k, "/header")) {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nX-A: ");
                pour(k, "some more and more and more and more and more and more");
        } else if (conn_is(k, "/continue")) {
                pour(k, "HTTP/1.1 100 Continue\r\n\r\n");
        } else if (conn_is(k, "/status")) {
                pour(k, "HTTP/1.1 200 OK and on and on and on ");
        } else if (conn_is(k, "/chunks")) {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                pour(k, "20\r\n0123456789abcdef0123456789abcdef\r\n");
        } else if (conn_is(k, "/trailers")) {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
                pour(k, "X-A: some more and more and more and more and more and more\r\n");
        } else if (conn_is(k, "/extension")) {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                pour(k, "0000000000000000000000000000000");
        } else if (conn_is(k, "/error")) {
                (void)conn_say(k, "HTTP/1.1 500 No\r\n\r\n");
                pour(k, "{\"message\": \"and so on and so on and so on and so on\"}");
        } else {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\n\r\n");
                pour(k, "and so on and so on and so on and so on and so on and so on");
        }
}

static void nothing_is_endless(void)
{
        static const char *const paths[] = {"/headers", "/header",   "/continue", "/status",
                                            "/chunks",  "/trailers", "/body"};
        struct fixture f;

        begin(&f, serve_endless);
        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
                int r = post(&f, paths[i]);

                if (!CHECK(r == -EPROTO || r == -EHOSTUNREACH))
                        (void)fprintf(stderr, "%s: %d %s\n", paths[i], r, f.call.sentence);
                CHECK(f.reply.headers.size <= HTTP_HEADERS_MAX);
                CHECK(f.reply.body.size <= HTTP_BODY_MAX);
        }
        CHECK(post(&f, "/extension") < 0);
        CHECK_EQ(post(&f, "/error"), -EIO);
        CHECK(f.reply.is_cut);
        CHECK_EQ(f.reply.body.size, HTTP_ERROR_BODY_MAX);
        finish(&f);
}

/* ---- lies ---- */

static void serve_lies(struct conn *k)
{
        static const char *const lies[][2] = {
                {"/huge", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nx"},
                {"/huger", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx"},
                {"/negative", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx"},
                {"/short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"},
                {"/two", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 5\r\n\r\nshort"},
                {"/chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n"},
                {"/chunk-huge", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "ffffffffffffffffffff\r\nx"},
                {"/chunk-cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"},
                {"/gzip",
                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"},
                {"/old", "hello from 1991"},
                {"/ssh", "SSH-2.0-OpenSSH_9.2\r\n"},
                {"/icy", "ICY 200 OK\r\n\r\nx"},
                {"/rtsp", "RTSP/1.0 200 OK\r\n\r\nx"},
                {"/status", "HTTP/1.1 abc OK\r\n\r\nx"},
                {"/status0", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"},
                {"/status9", "HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n"},
                {"/switch", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nwhatever"},
                {"/http2", "HTTP/2 200\r\ncontent-length: 0\r\n\r\n"},
                {"/nothing", ""},
        };

        for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
                if (conn_is(k, lies[i][0]))
                        (void)conn_say(k, lies[i][1]);
        if (conn_is(k, "/nul"))
                (void)conn_write(k, "HTTP/1.1 200 OK\r\nA: \0b\r\nContent-Length: 0\r\n\r\n", 44);
        conn_close(k);
}

static void lies_are_errors(void)
{
        static const char *const paths[] = {
                "/huge",    "/short",  "/chunk",   "/chunk-huge", "/chunk-cut", "/gzip",
                "/old",     "/ssh",    "/icy",     "/rtsp",       "/status",    "/status0",
                "/status9", "/switch", "/nothing", "/nul",
        };
        struct fixture f;

        begin(&f, serve_lies);
        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
                int r = post(&f, paths[i]);

                if (!CHECK(r == -EPROTO || r == -EHOSTUNREACH || r == -EIO))
                        (void)fprintf(stderr, "%s: %d %s\n", paths[i], r, f.call.sentence);
                CHECK(f.call.sentence[0] != '\0');
        }
        (void)post(&f, "/negative"); /* libcurl reads these to their end */
        (void)post(&f, "/huger");
        (void)post(&f, "/two");
        (void)post(&f, "/http2");
        finish(&f);
}

/* ---- words ---- */

static void serve_words(struct conn *k)
{
        struct buf b = BUF_INIT(1 << 20);

        if (conn_is(k, "/long")) {
                CHECK_EQ(buf_add_str(&b, "{\"message\":\""), 0);
                for (int i = 0; i < 5000; i++)
                        CHECK_EQ(buf_add_str(&b, "\xc3\xa4"), 0);
                CHECK_EQ(buf_add_str(&b, "\"}"), 0);
        } else {
                CHECK_EQ(buf_add_str(&b, "a\x1b[31mb\tc\xff\xc2\x85\xe2\x80\xa8"
                                         "d"),
                         0);
        }
        (void)conn_reply(k, 400, "", buf_str(&b));
        buf_done(&b);
}

static void words_forge_no_line(void)
{
        struct fixture f;

        begin(&f, serve_words);
        CHECK_EQ(post(&f, "/words"), -EINVAL);
        CHECK_STR(f.call.sentence, "test: POST /words: 400 bad request: "
                                   "a\\x1b[31mb\\x09c\\xff\\xc2\\x85\\xe2\\x80\\xa8"
                                   "d");
        CHECK_EQ(post(&f, "/long"), -EINVAL);
        CHECK(strlen(f.call.sentence) < CALL_SENTENCE_MAX);
        finish(&f);
}

/* ---- answers that nobody asked for ---- */

static void serve_twice(struct conn *k)
{
        char body[64];

        (void)snprintf(body, sizeof(body), "answer to %.40s", k->target);
        (void)conn_reply(k, 200, "", body);
        if (conn_is(k, "/later"))
                server_pause(k->server, 20);
        (void)conn_reply(k, 200, "", "forged");
        (void)server_count(k->server);
}

static void a_forged_answer_answers_nothing(void)
{
        static const char *const paths[] = {"/first", "/later", "/next", "/later", "/last"};
        struct fixture f;

        begin(&f, serve_twice);
        for (unsigned i = 0; i < 5; i++) {
                char body[64];

                (void)snprintf(body, sizeof(body), "answer to %s", paths[i]);
                CHECK_EQ(get(f.http, &f.call, paths[i], &f.reply), 0);
                CHECK_STR(buf_str(&f.reply.body), body);
                while (server_counted(&f.server) < i + 1) /* the forged one was sent */
                        (void)usleep(1000);
                (void)usleep(100000); /* and is here */
        }
        CHECK_EQ(server_connections(&f.server), 5);
        finish(&f);
}

static void greet(struct conn *k)
{
        (void)conn_reply(k, 200, "", "before you ask");
}

static void serve_greeted(struct conn *k)
{
        (void)conn_reply(k, 200, "", "answer");
}

static void an_answer_before_the_question_is_bounded(void)
{
        struct fixture f;

        begin_greeting(&f, serve_greeted, greet);
        for (int i = 0; i < 5; i++) {
                int r = get(f.http, &f.call, "/", &f.reply);

                CHECK(r < 0 || f.reply.status == 200);
        }
        finish(&f);
}

/* ---- uploads that the server doesn't want ---- */

static ssize_t read_zeros(struct http_source *from, void *data, size_t size, uint64_t offset)
{
        (void)from;
        (void)offset;
        memset(data, 0, size);
        return (ssize_t)size;
}

/*
 * Before any of the body: the connection's own thread never reads it. It isn't cut before the client
 * had time to hear the answer.
 */
static void greet_refusing(struct conn *k)
{
        while (!(k->in.size && memmem(k->in.data, k->in.size, "\r\n\r\n", 4)))
                if (!conn_read(k))
                        return;
        (void)conn_reply(k, 413, "Connection: close\r\n", "{\"message\":\"too much\"}");
        server_pause(k->server, 5000);
        conn_close(k);
}

static void a_refused_upload_ends_early(void)
{
        struct http_source zeros = {.read = read_zeros, .size = UINT64_C(1) << 40};
        struct http_request q = {.method = "PUT", .path = "/", .source = &zeros};
        struct fixture f;

        begin_greeting(&f, serve_greeted, greet_refusing);
        CHECK_EQ(http_do(f.http, &f.call, &q, &f.reply), -EFBIG);
        CHECK(strstr(f.call.sentence, "too much"));
        finish(&f);
}

int main(void)
{
        RUN(nothing_is_endless);
        RUN(lies_are_errors);
        RUN(words_forge_no_line);
        RUN(a_forged_answer_answers_nothing);
        RUN(an_answer_before_the_question_is_bounded);
        RUN(a_refused_upload_ends_early);
        return check_result();
}
