/* SPDX-License-Identifier: Apache-2.0 */
/* One request after the other: bodies both ways, errors. */

#include "tests/unit/transport/http_fixture.h"
#include "transport/base/json.h"

/* ---- what goes out, and what comes back ---- */

static bool echoed(const struct fixture *f, const char *text)
{
        return strstr(buf_str(&f->reply.body), text) != NULL;
}

static void a_connection_is_kept(void)
{
        struct fixture f;

        begin(&f, serve_echo);
        for (int i = 0; i < 5; i++) {
                CHECK_EQ(get(f.http, &f.call, "/a?b=c", &f.reply), 0);
                CHECK_EQ(f.reply.status, 200);
                CHECK_STR(http_reply_header(&f.reply, "x-is"), "echo");
                CHECK(echoed(&f, "GET /a?b=c\n"));
        }
        CHECK_EQ(server_connections(&f.server), 1);
        CHECK(f.reply.was_sent);
        finish(&f);
}

static void methods_and_bodies_are_sent(void)
{
        static const struct http_header headers[] = {{"X-A", "b c", false}, {"X-Empty", "", false}};
        struct http_request q = {.path = "/x", .headers = headers, .header_count = 2};
        struct fixture f;

        begin(&f, serve_echo);
        q.method = "DELETE";
        CHECK_EQ(ask(&f, &q), 0);
        CHECK(echoed(&f, "DELETE /x\n") && echoed(&f, "\r\nX-A: b c\r\n"));
        CHECK(echoed(&f, "\r\nX-Empty:\r\n"));
        CHECK(!echoed(&f, "Content-Length") && !echoed(&f, "Expect"));
        CHECK(echoed(&f, "\r\nUser-Agent: sbxfs/"));
        q.method = "POST";
        CHECK_EQ(ask(&f, &q), 0);
        CHECK(echoed(&f, "\r\nContent-Length: 0\r\n"));
        q.data = "{\"a\":1}";
        q.size = 7;
        CHECK_EQ(ask(&f, &q), 0);
        CHECK(echoed(&f, "\r\nContent-Type: application/json\r\n"));
        CHECK(echoed(&f, "\r\nContent-Length: 7\r\n") && echoed(&f, "\n{\"a\":1}"));
        q.method = "PUT";
        q.type = "text/x";
        CHECK_EQ(ask(&f, &q), 0);
        CHECK(echoed(&f, "PUT /x") && echoed(&f, "\r\nContent-Type: text/x\r\n"));
        q = (struct http_request){.method = "HEAD", .path = "/x"};
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_STR(http_reply_header(&f.reply, "X-Is"), "head");
        CHECK_EQ(server_connections(&f.server), 1);
        finish(&f);
}

static void the_url_has_a_prefix(void)
{
        struct http_config config = {0};
        char url[96];
        struct fixture f;

        begin(&f, serve_echo);
        http_unref(f.http);
        (void)snprintf(url, sizeof(url), "%s/v1/", f.server.url);
        config.url = url;
        f.http = connect_to(&f.server, &config);
        CHECK_EQ(get(f.http, &f.call, "/../a", &f.reply), 0);
        CHECK(echoed(&f, "GET /v1/../a\n"));
        finish(&f);
}

static bool are_letters(const char *text, size_t size)
{
        for (size_t i = 0; i < size; i++)
                if (text[i] != (char)('a' + i % 26))
                        return false;
        return true;
}

/* Answers how many bytes came, and whether they are the letters. */
static void serve_count(struct conn *k)
{
        const char *coding = conn_header(k, "Transfer-Encoding");
        char text[64];

        (void)snprintf(text, sizeof(text), "%zu %s %s", k->body.size,
                       are_letters(buf_str(&k->body), k->body.size) ? "good" : "bad",
                       coding ? "chunked" : "sized");
        (void)conn_reply(k, 200, "", text);
}

static void sources_are_streamed(void)
{
        struct letters l = {.source = {.read = read_letters, .size = 3000000}, .have = 3000000};
        struct http_request q = {.method = "PUT", .path = "/", .source = &l.source};
        struct fixture f;

        begin(&f, serve_count);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_STR(buf_str(&f.reply.body), "3000000 good sized");
        l.source.size = HTTP_SIZE_UNKNOWN;
        l.dry = 3;
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_STR(buf_str(&f.reply.body), "3000000 good chunked");
        q.method = "POST";
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_STR(buf_str(&f.reply.body), "3000000 good chunked");
        l.have = 0;
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_STR(buf_str(&f.reply.body), "0 good chunked");
        finish(&f);
}

static void a_source_that_fails_fails_the_request(void)
{
        struct letters l = {.source = {.read = read_letters, .size = 5000}, .have = 2000};
        struct http_request q = {
                .method = "PUT", .path = "/", .source = &l.source, .is_idempotent = true};
        struct fixture f;

        begin(&f, serve_count);
        l.error = -ENXIO;
        CHECK_EQ(ask(&f, &q), -ENXIO);
        l.error = 0; /* it ends too early */
        CHECK_EQ(ask(&f, &q), -ENODATA);
        CHECK_EQ(l.calls, 6); /* neither was repeated */
        finish(&f);
}

static void serve_parts(struct conn *k)
{
        const char *type = conn_header(k, "Content-Type");

        CHECK(type && strncmp(type, "multipart/form-data; boundary=", 30) == 0);
        (void)conn_reply(k, 200, "", buf_str(&k->body));
}

static void parts_make_a_form(void)
{
        struct letters l = {.source = {.read = read_letters, .size = 30}, .have = 30};
        struct http_part parts[] = {
                {.name = "metadata",
                 .file_name = "metadata",
                 .type = "application/json",
                 .data = "{}",
                 .size = 2},
                {.name = "file",
                 .file_name = "a \"b\"",
                 .type = "application/octet-stream",
                 .source = &l.source},
        };
        struct http_request q = {
                .method = "POST", .path = "/files", .parts = parts, .part_count = 2};
        struct fixture f;

        begin(&f, serve_parts);
        for (int i = 0; i < 2; i++) {
                CHECK_EQ(ask(&f, &q), 0);
                CHECK(echoed(&f, "name=\"metadata\"; filename=\"metadata\"\r\n"
                                 "Content-Type: application/json\r\n\r\n{}\r\n"));
                CHECK(echoed(&f, "name=\"file\"; filename=\"a %22b%22\"\r\n"));
                CHECK(echoed(&f, "\r\n\r\nabcdefghijklmnopqrstuvwxyzabcd\r\n"));
        }
        l.source.size = HTTP_SIZE_UNKNOWN;
        CHECK_EQ(ask(&f, &q), 0);
        CHECK(echoed(&f, "\r\n\r\nabcdefghijklmnopqrstuvwxyzabcd\r\n"));
        finish(&f);
}

/* ---- sinks, ranges, coding ---- */

struct bucket {
        struct http_sink sink;
        struct buf data;
        unsigned begins, rewinds, status;
        int error; /* of write */
};

static int on_begin(struct http_sink *to, const struct http_reply *reply)
{
        struct bucket *b = (struct bucket *)to;

        b->begins++;
        b->status = reply->status;
        return 0;
}

static int on_write(struct http_sink *to, const void *data, size_t size)
{
        struct bucket *b = (struct bucket *)to;

        CHECK(b->begins == b->rewinds + 1);
        return b->error ? b->error : buf_add(&b->data, data, size);
}

static int on_rewind(struct http_sink *to)
{
        struct bucket *b = (struct bucket *)to;

        b->rewinds++;
        buf_clear(&b->data);
        return 0;
}

static struct bucket bucket(void)
{
        return (struct bucket){.sink = {on_begin, on_write, on_rewind}, .data = BUF_INIT(IN_MAX)};
}

#define FILE_SIZE 100000

/* A file of letters; what it does with ranges is in the path. */
static void serve_file(struct conn *k)
{
        static char file[FILE_SIZE + 1];
        const char *text = conn_header(k, "Range");
        unsigned long first = 0, last = FILE_SIZE - 1;
        char headers[128] = "";
        bool is_part = text && !conn_is(k, "/ignores");
        struct buf body = BUF_INIT(FILE_SIZE);

        for (size_t i = 0; i < FILE_SIZE; i++)
                file[i] = (char)('a' + i % 26);
        if (is_part)
                CHECK(sscanf(text, "bytes=%lu-%lu", &first, &last) >= 1);
        if (first >= FILE_SIZE) {
                (void)conn_reply(k, 416, "", "no such part");
                return;
        }
        if (conn_is(k, "/other"))
                first++;
        if (last >= FILE_SIZE)
                last = FILE_SIZE - 1;
        if (is_part)
                (void)snprintf(headers, sizeof(headers), "Content-Range: bytes %lu-%lu/%d\r\n",
                               first, last, FILE_SIZE);
        CHECK_EQ(buf_add(&body, file + first, last + 1 - first), 0);
        if (conn_is(k, "/cut") && server_count(k->server) == 1) {
                (void)conn_say(k, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nab");
                conn_close(k);
        } else {
                (void)conn_reply(k, is_part ? 206 : 200, headers, buf_str(&body));
        }
        buf_done(&body);
}

static void a_sink_takes_the_body(void)
{
        struct bucket b = bucket();
        struct http_request q = {.path = "/file", .sink = &b.sink};
        struct fixture f;

        begin(&f, serve_file);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_EQ(b.data.size, FILE_SIZE);
        CHECK(are_letters(b.data.data, b.data.size));
        CHECK_EQ(b.begins, 1);
        CHECK_EQ(b.status, 200);
        CHECK_EQ(f.reply.body.size, 0);
        q.size_max = 1000;
        b.rewinds = 1;
        CHECK_EQ(ask(&f, &q), -EFBIG);
        q.size_max = FILE_SIZE;
        b.rewinds = 2;
        CHECK_EQ(ask(&f, &q), 0);
        b.error = -ENOSPC;
        b.rewinds = 3;
        CHECK_EQ(ask(&f, &q), -ENOSPC);
        buf_done(&b.data);
        finish(&f);
}

static void a_cut_body_comes_again(void)
{
        struct bucket b = bucket();
        struct http_request q = {.path = "/cut", .sink = &b.sink};
        struct fixture f;

        begin(&f, serve_file);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_EQ(b.rewinds, 1);
        CHECK_EQ(b.data.size, FILE_SIZE);
        CHECK(are_letters(b.data.data, b.data.size));
        f.server.count = 0; /* no thread of it looks now */
        b.sink.rewind = NULL;
        b.rewinds = b.begins;
        CHECK_EQ(ask(&f, &q), -EHOSTUNREACH);
        buf_done(&b.data);
        finish(&f);
}

static void ranges_are_kept_to(void)
{
        static const char *const paths[] = {"/file", "/ignores"};
        struct http_range range = {26, 5};
        struct http_request q = {.range = &range};
        struct bucket b = bucket();
        struct fixture f;

        begin(&f, serve_file);
        for (int i = 0; i < 2; i++) {
                q.path = paths[i];
                range = (struct http_range){26, 5};
                CHECK_EQ(ask(&f, &q), 0);
                CHECK_STR(buf_str(&f.reply.body), "abcde");
                range = (struct http_range){FILE_SIZE - 4, 0};
                CHECK_EQ(ask(&f, &q), 0);
                CHECK_EQ(f.reply.body.size, 4);
                range = (struct http_range){FILE_SIZE - 4, 100};
                CHECK_EQ(ask(&f, &q), 0);
                CHECK_EQ(f.reply.body.size, 4);
        }
        q.path = "/file";
        range = (struct http_range){FILE_SIZE, 1};
        CHECK_EQ(ask(&f, &q), -ERANGE);
        q.accepts[0] = 416;
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_EQ(f.reply.status, 416);
        q.sink = &b.sink; /* isn't told what is no content */
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_EQ(b.begins, 0);
        q.sink = NULL;
        q.path = "/other";
        range = (struct http_range){5, 5};
        CHECK_EQ(ask(&f, &q), -EPROTO);
        finish(&f);
}

static void serve_gzip(struct conn *k)
{
        static const unsigned char data[] = {
                0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0xed, 0xc1, 0x31, 0x01,
                0x00, 0x00, 0x00, 0xc2, 0xa0, 0xac, 0xeb, 0x5f, 0xc2, 0x0c, 0xfe, 0x40, 0x01, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xaf, 0x01, 0x9b, 0x53,
                0x69, 0xe0, 0x40, 0x0d, 0x03, 0x00,
        };
        char head[128];

        if (conn_is(k, "/asked"))
                CHECK_STR(conn_header(k, "Accept-Encoding"), "gzip");
        else
                CHECK(!conn_header(k, "Accept-Encoding"));
        (void)snprintf(head, sizeof(head),
                       "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %zu\r\n\r\n",
                       sizeof(data));
        (void)conn_say(k, head);
        (void)conn_write(k, data, sizeof(data));
}

static void gzip_is_bounded_by_what_it_becomes(void)
{
        struct http_request q = {.path = "/asked", .takes_gzip = true};
        struct fixture f;

        begin(&f, serve_gzip);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_EQ(f.reply.body.size, 200000);
        q.size_max = 150000;
        CHECK_EQ(ask(&f, &q), -EPROTO);
        q = (struct http_request){.path = "/unasked"};
        CHECK_EQ(ask(&f, &q), 0);
        CHECK(f.reply.body.size < 1000);
        finish(&f);
}

/* ---- errors ---- */

static void serve_errors(struct conn *k)
{
        static const char *const bodies[] = {
                "{\"message\":\"no such thing\"}",
                "{\"error\":\"plain\",\"code\":7}",
                "{\"error\":{\"message\":\"inner\"}}",
                "first line\nsecond",
                "<html>page</html>",
                "",
                "{\"message\":\"bad \xff \\u001b[31m\"}",
                "[1,2",
                "the key sk-0123456789 is wrong",
                "Bearer sk-0123456789",
        };
        size_t i = (size_t)atoi(k->target + 1);

        (void)conn_reply(k, i == 9 ? 401 : 400, "", bodies[i < 10 ? i : 0]);
}

static void errors_have_the_servers_words(void)
{
        static const struct http_header key = {"Authorization", "Bearer sk-0123456789", true};
        static const char *const sentences[] = {
                "test: GET /0: 400 bad request: no such thing",
                "test: GET /1: 400 bad request: plain",
                "test: GET /2: 400 bad request: inner",
                "test: GET /3: 400 bad request: first line",
                "test: GET /4: 400 bad request",
                "test: GET /5: 400 bad request",
                "test: GET /6: 400 bad request",
                "test: GET /7: 400 bad request",
                "test: GET /8: 400 bad request: the key ************* is wrong",
                "test: GET /9: 401 the key is missing or wrong: ********************",
        };
        struct http_config config = {.headers = &key, .header_count = 1};
        struct fixture f;

        begin(&f, serve_errors);
        http_unref(f.http);
        f.http = connect_to(&f.server, &config);
        for (size_t i = 0; i < 10; i++) {
                char path[48];

                (void)snprintf(path, sizeof(path), "/%zu?token=sk-0123456789", i);
                CHECK_EQ(get(f.http, &f.call, path, &f.reply), i == 9 ? -EACCES : -EINVAL);
                CHECK_STR(f.call.sentence, sentences[i]);
        }
        finish(&f);
}

static int explain(const struct http_reply *reply, int error, char *text, size_t size)
{
        (void)snprintf(text, size, "explained \n%s", buf_str(&reply->body));
        return reply->body.size == 12 ? -EDQUOT : error;
}

static void a_provider_may_explain(void)
{
        struct http_config config = {.explain = explain};
        struct fixture f;

        begin(&f, serve_errors);
        http_unref(f.http);
        f.http = connect_to(&f.server, &config);
        CHECK_EQ(get(f.http, &f.call, "/3", &f.reply), -EINVAL);
        CHECK_STR(f.call.sentence,
                  "test: GET /3: 400 bad request: explained \\x0afirst line\\x0asecond");
        finish(&f);
}

static void serve_redirect(struct conn *k)
{
        char headers[160];

        (void)snprintf(headers, sizeof(headers), "Location: http://127.0.0.2:1/stolen?token=1\r\n");
        if (conn_is(k, "/same"))
                (void)snprintf(headers, sizeof(headers), "Location: %s/b\r\n", k->server->url);
        (void)conn_reply(k, 307, headers, "");
}

static void redirects_are_not_followed(void)
{
        struct fixture f;

        begin(&f, serve_redirect);
        CHECK_EQ(get(f.http, &f.call, "/a", &f.reply), -EPROTO);
        CHECK(strstr(f.call.sentence, "http://127.0.0.2:1/stolen"));
        CHECK(!strstr(f.call.sentence, "token"));
        CHECK_EQ(get(f.http, &f.call, "/same", &f.reply), -EPROTO);
        CHECK_EQ(server_connections(&f.server), 1);
        finish(&f);
}

static void serve_json(struct conn *k)
{
        struct buf body = BUF_INIT(IN_MAX);

        if (conn_is(k, "/good"))
                CHECK_EQ(buf_add_str(&body, " {\"a\": [1, 2]}\n"), 0);
        else if (conn_is(k, "/cut"))
                CHECK_EQ(buf_add_str(&body, "{\"a\": [1, 2]"), 0);
        else if (conn_is(k, "/utf8"))
                CHECK_EQ(buf_add_str(&body, "{\"a\": \"\xc3\x28\"}"), 0);
        for (int i = 0; conn_is(k, "/deep") && i < 100000; i++)
                CHECK_EQ(buf_add_char(&body, '['), 0);
        (void)conn_reply(k, 200, "", buf_str(&body));
        buf_done(&body);
}

static void json_is_parsed(void)
{
        static const char *const bad[] = {"/cut", "/utf8", "/deep"};
        struct http_request q = {.path = "/good"};
        struct json *j = NULL;
        struct fixture f;

        begin(&f, serve_json);
        CHECK_EQ(http_do_json(f.http, &f.call, &q, &f.reply, &j), 0);
        CHECK(json_type(json_get(j, "a")) == JSON_ARRAY);
        json_free(j);
        j = NULL;
        q.path = "/empty";
        CHECK_EQ(http_do_json(f.http, &f.call, &q, &f.reply, &j), 0);
        CHECK(!j);
        for (size_t i = 0; i < 3; i++) {
                q.path = bad[i];
                CHECK_EQ(http_do_json(f.http, &f.call, &q, &f.reply, &j), -EPROTO);
                CHECK(!j && strstr(f.call.sentence, "no JSON"));
        }
        finish(&f);
}

int main(void)
{
        RUN(a_connection_is_kept);
        RUN(methods_and_bodies_are_sent);
        RUN(the_url_has_a_prefix);
        RUN(sources_are_streamed);
        RUN(a_source_that_fails_fails_the_request);
        RUN(parts_make_a_form);
        RUN(a_sink_takes_the_body);
        RUN(a_cut_body_comes_again);
        RUN(ranges_are_kept_to);
        RUN(gzip_is_bounded_by_what_it_becomes);
        RUN(errors_have_the_servers_words);
        RUN(a_provider_may_explain);
        RUN(redirects_are_not_followed);
        RUN(json_is_parsed);
        return check_result();
}
