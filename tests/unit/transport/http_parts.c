/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of transport/http that do no I/O: URLs, statuses, secrets, heads, and the decoders. */

#include <errno.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/http/envelope.h"
#include "transport/http/head.h"
#include "transport/http/http.h"
#include "transport/http/mux.h"
#include "transport/http/secret.h"
#include "transport/http/sse.h"
#include "transport/http/url.h"

/* ---- URLs ---- */

static void names_are_escaped(void)
{
        struct buf b = BUF_INIT(HTTP_PATH_MAX);

        CHECK_EQ(url_add(&b, "/containers"), 0);
        CHECK_EQ(url_add_segment(&b, "a/b?c#d%"), 0);
        CHECK_EQ(url_add_segment(&b, ".."), 0);
        CHECK_EQ(url_add_segment(&b, "."), 0);
        CHECK_EQ(url_add_segment(&b, "..."), 0);
        CHECK_EQ(url_add_query(&b, "path", "/a b&\xff"), 0);
        CHECK_EQ(url_add_query(&b, "k e", ""), 0);
        CHECK_EQ(url_add_query_number(&b, "n", UINT64_MAX), 0);
        CHECK_STR(buf_str(&b), "/containers/a%2Fb%3Fc%23d%25/%2E%2E/%2E/..."
                               "?path=%2Fa%20b%26%FF&k%20e=&n=18446744073709551615");
        CHECK_EQ(url_query_at(buf_str(&b)), 43);
        CHECK_EQ(url_query_at("/a"), 2);
        buf_done(&b);
}

static void paths_keep_their_slashes(void)
{
        struct buf b = BUF_INIT(64);

        CHECK_EQ(url_add_path(&b, "/a b/../c//d/"), 0);
        CHECK_STR(buf_str(&b), "/a%20b/%2E%2E/c//d/");
        buf_done(&b);
        b = BUF_INIT(5);
        CHECK_EQ(url_escape(&b, "a  ", 3), -E2BIG);
        CHECK_EQ(b.size, 0);
        buf_done(&b);
}

/* ---- statuses, secrets ---- */

static void statuses_have_their_errno(void)
{
        static const struct {
                unsigned status;
                int error;
        } table[] = {
                {200, 0},       {201, 0},       {204, 0},       {206, 0},           {299, 0},
                {0, -EPROTO},   {100, -EPROTO}, {302, -EPROTO}, {304, -EPROTO},     {400, -EINVAL},
                {401, -EACCES}, {402, -EDQUOT}, {403, -EPERM},  {404, -ENOENT},     {409, -EBUSY},
                {416, -ERANGE}, {418, -EINVAL}, {422, -EINVAL}, {429, -EAGAIN},     {500, -EIO},
                {502, -EIO},    {503, -EIO},    {599, -EIO},    {501, -EOPNOTSUPP}, {600, -EPROTO},
                {507, -ENOSPC},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                CHECK_EQ(http_status_error(table[i].status), table[i].error);
}

static void secrets_are_hidden(void)
{
        const struct http_header headers[] = {
                {"Authorization", "Bearer sk-1234567", true},
                {"X-Other", "public", false},
                {"X-Short", "abc", true},
        };
        struct secrets s = {0};
        char text[] = "key sk-1234567sk-1234567 and Bearer sk-1234567, public, abc";

        CHECK_EQ(secrets_add(&s, headers, 3), 0);
        secrets_hide(&s, text);
        CHECK_STR(text, "key ******************** and *****************, public, abc");
        secrets_done(&s);
        CHECK_EQ(s.count, 0);
}

/* ---- heads ---- */

static int parse_head(const char *text, struct http_reply *reply, size_t *size)
{
        return head_parse(text, strlen(text), reply, size);
}

static void heads_are_read_strictly(void)
{
        struct http_reply reply = {0};
        size_t size = 0;

        CHECK_EQ(parse_head("HTTP/1.1 101 Up\r\nA: 1\r\na:2\r\n\r\nrest", &reply, &size), 0);
        CHECK_EQ(reply.status, 101);
        CHECK_EQ(size, 30);
        CHECK_STR(http_reply_header(&reply, "A"), "2");
        CHECK(!http_reply_header(&reply, "B"));
        CHECK_EQ(parse_head("HTTP/1.1 200", &reply, &size), -EAGAIN);
        CHECK_EQ(parse_head("HTTP/1.1 200\r\n\r\n", &reply, &size), 0);
        CHECK_EQ(parse_head("\r\n\r\n", &reply, &size), -EPROTO);
        CHECK_EQ(parse_head("HTTP/2 200 OK\r\n\r\n", &reply, &size), -EPROTO);
        CHECK_EQ(parse_head("HTTP/1.1 20 OK\r\n\r\n", &reply, &size), -EPROTO);
        CHECK_EQ(parse_head("HTTP/1.1 2000\r\n\r\n", &reply, &size), -EPROTO);
        CHECK_EQ(parse_head("HTTP/1.1 099 OK\r\n\r\n", &reply, &size), -EPROTO);
        CHECK_EQ(parse_head("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", &reply, &size), -EPROTO);
        CHECK_EQ(head_parse("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", 25, &reply, &size), -EPROTO);
        http_reply_done(&reply);
}

static void endless_heads_are_refused(void)
{
        struct buf b = BUF_INIT(1 << 20);
        struct http_reply reply = {0};
        size_t size = 0;

        CHECK_EQ(buf_add_str(&b, "HTTP/1.1 200 OK\r\n"), 0);
        for (int i = 0; i < 300; i++)
                CHECK_EQ(buf_add_str(&b, "A: b\r\n"), 0);
        CHECK_EQ(head_parse(b.data, b.size, &reply, &size), -EPROTO);
        buf_clear(&b);
        CHECK_EQ(buf_add_str(&b, "HTTP/1.1 200 OK\r\nA: "), 0);
        while (b.size < HTTP_HEADERS_MAX)
                CHECK_EQ(buf_add_char(&b, 'x'), 0);
        CHECK_EQ(head_parse(b.data, b.size, &reply, &size), -EPROTO);
        CHECK_EQ(buf_add_str(&b, "\r\n\r\n"), 0);
        CHECK_EQ(head_parse(b.data, b.size, &reply, &size), -EPROTO);
        http_reply_done(&reply);
        buf_done(&b);
}

static void refusals_have_bodies(void)
{
        struct http_reply reply = {0};
        static const char sized[] = "HTTP/1.1 400 No\r\nContent-Length: 5\r\n\r\nhello and more";
        static const char bare[] = "HTTP/1.1 400 No\r\n\r\nhello";
        size_t size = 0;

        CHECK_EQ(parse_head(sized, &reply, &size), 0);
        CHECK(!head_take_body(sized + size, 4, false, &reply));
        CHECK(head_take_body(sized + size, 4, true, &reply));
        CHECK_STR(buf_str(&reply.body), "hell");
        CHECK(head_take_body(sized + size, strlen(sized) - size, false, &reply));
        CHECK_STR(buf_str(&reply.body), "hello");
        CHECK_EQ(parse_head(bare, &reply, &size), 0);
        CHECK(!head_take_body(bare + size, 5, false, &reply));
        CHECK(head_take_body(bare + size, 5, true, &reply));
        CHECK_STR(buf_str(&reply.body), "hello");
        http_reply_done(&reply);
}

/* ---- decoders ---- */

struct text {
        struct buf b;
        int stop; /* what the callback returns */
};

static int on_event(void *ctx, const struct sse_event *e)
{
        struct text *t = ctx;

        CHECK_EQ(buf_addf(&t->b, "[%s|%s|%s]", e->name, e->id, e->data), 0);
        return t->stop;
}

static int sse_of(const char *stream, struct text *t)
{
        struct sse s;
        int r;

        buf_clear(&t->b);
        sse_init(&s, 100, on_event, t);
        r = sse_feed(&s, stream, strlen(stream));
        r = r != 0 ? r : sse_end(&s);
        sse_done(&s);
        return r;
}

static void both_dialects_are_events(void)
{
        struct text t = {.b = BUF_INIT(4096)};

        CHECK_EQ(sse_of("event: stdout\ndata: hi\ndata:\n\n: ping\n\nid: 4\nevent: exit\ndata:3\n\n"
                        "data: lost",
                        &t),
                 0);
        CHECK_STR(buf_str(&t.b), "[stdout||hi\n][exit|4|3]");
        CHECK_EQ(sse_of("{\"a\":1}\n\n{\"b\":2}\r\n\r\ndata: {\"c\":3}\n\n{\"d\":4}", &t), 0);
        CHECK_STR(buf_str(&t.b), "[||{\"a\":1}][||{\"b\":2}][||{\"c\":3}][||{\"d\":4}]");
        CHECK_EQ(sse_of("event: x\n\ndata: y\n\n", &t), 0);
        CHECK_STR(buf_str(&t.b), "[||y]");
        t.stop = 7;
        CHECK_EQ(sse_of("{}\n{}\n", &t), 7);
        CHECK_STR(buf_str(&t.b), "[||{}]");
        buf_done(&t.b);
}

static void events_are_bounded(void)
{
        struct text t = {.b = BUF_INIT(4096)};
        char line[256] = "data: ";

        memset(line + 6, 'x', 120);
        CHECK_EQ(sse_of(line, &t), -EPROTO);
        line[66] = '\0';
        (void)snprintf(line + 66, sizeof(line) - 66, "\ndata: %060d\n\n", 0);
        CHECK_EQ(sse_of(line, &t), -EPROTO);
        CHECK_EQ(t.b.size, 0);
        buf_done(&t.b);
}

static int on_message(void *ctx, bool is_end, const char *data, size_t size)
{
        struct text *t = ctx;

        CHECK_EQ(buf_addf(&t->b, "%s%zu:%s;", is_end ? "end " : "", size, data), 0);
        return t->stop;
}

static void envelopes_are_whole_messages(void)
{
        struct text t = {.b = BUF_INIT(4096)};
        struct envelopes e = ENVELOPES_INIT(10, on_message, &t);
        struct buf sent = BUF_INIT(100);

        CHECK_EQ(envelope_add(&sent, "hello", 5), 0);
        CHECK_EQ(envelope_add(&sent, NULL, 0), 0);
        CHECK_EQ(sent.size, 15);
        CHECK_EQ(envelopes_feed(&e, sent.data, 12), 0);
        CHECK_STR(buf_str(&t.b), "5:hello;");
        CHECK_EQ(envelopes_feed(&e, sent.data + 12, 3), 0);
        CHECK_EQ(envelopes_end(&e), -EPROTO);
        CHECK_EQ(envelopes_feed(&e, "\2\0\0\0\2{}", 7), 0);
        CHECK_STR(buf_str(&t.b), "5:hello;0:;end 2:{};");
        CHECK_EQ(envelopes_end(&e), 0);
        CHECK_EQ(envelopes_feed(&e, "\0", 1), -EPROTO);
        envelopes_done(&e);
        buf_done(&sent);
        buf_done(&t.b);
}

static void bad_envelopes_are_refused(void)
{
        static const char *const bad[] = {"\1\0\0\0\1x", "\4\0\0\0\1x", "\0\0\0\0\13x",
                                          "\0\377\377\377\377"};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct text t = {.b = BUF_INIT(100)};
                struct envelopes e = ENVELOPES_INIT(10, on_message, &t);

                CHECK_EQ(envelopes_feed(&e, bad[i], 5), -EPROTO);
                CHECK_EQ(t.b.size, 0);
                envelopes_done(&e);
                buf_done(&t.b);
        }
}

static int on_output(void *ctx, enum mux_output which, const void *data, size_t size)
{
        struct text *t = ctx;

        CHECK_EQ(buf_addf(&t->b, "%d:%.*s;", (int)which, (int)size, (const char *)data), 0);
        return t->stop;
}

static void frames_are_told_apart(void)
{
        static const char stream[] = "\1\0\0\0\0\0\0\3out\2\0\0\0\0\0\0\3err\0\0\0\0\0\0\0\1x"
                                     "\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\1e";
        struct text t = {.b = BUF_INIT(4096)};
        struct frames f = FRAMES_INIT(on_output, &t);

        CHECK_EQ(frames_feed(&f, stream, sizeof(stream) - 1), 0);
        CHECK_STR(buf_str(&t.b), "1:out;2:err;1:x;3:e;");
        CHECK_EQ(frames_end(&f), 0);
        CHECK_EQ(frames_feed(&f, "\1\0\0", 3), 0);
        CHECK_EQ(frames_end(&f), -EPROTO);
        CHECK_EQ(frames_feed(&f, "\1\0\0\0\2", 5), -EPROTO);
        f = FRAMES_INIT(on_output, &t);
        CHECK_EQ(frames_feed(&f, "\4\0\0\0\0\0\0\1", 8), -EPROTO);
        buf_done(&t.b);
}

static void marks_are_told_apart(void)
{
        struct text t = {.b = BUF_INIT(4096)};
        struct marks m = MARKS_INIT(on_output, &t);

        CHECK_EQ(marks_feed(&m, "lost\1\1", 6), 0);
        CHECK_EQ(marks_feed(&m, "\1out\2", 5), 0);
        CHECK_EQ(marks_feed(&m, "\2", 1), 0);
        CHECK_EQ(marks_feed(&m, "\2err", 4), 0);
        CHECK_STR(buf_str(&t.b), "1:out;2:err;");
        CHECK_EQ(marks_feed(&m, "\1", 1), 0);
        CHECK_EQ(marks_end(&m), 0);
        CHECK_STR(buf_str(&t.b), "1:out;2:err;2:\1;");
        buf_clear(&t.b);
        CHECK_EQ(marks_feed(&m, "\1\2\2\2a\2\2b", 8), 0);
        CHECK_STR(buf_str(&t.b), "2:\1;2:a;2:\2\2;2:b;");
        buf_done(&t.b);
}

int main(void)
{
        RUN(names_are_escaped);
        RUN(paths_keep_their_slashes);
        RUN(statuses_have_their_errno);
        RUN(secrets_are_hidden);
        RUN(heads_are_read_strictly);
        RUN(endless_heads_are_refused);
        RUN(refusals_have_bodies);
        RUN(both_dialects_are_events);
        RUN(events_are_bounded);
        RUN(envelopes_are_whole_messages);
        RUN(bad_envelopes_are_refused);
        RUN(frames_are_told_apart);
        RUN(marks_are_told_apart);
        return check_result();
}
