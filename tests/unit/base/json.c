/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdint.h>

#include "tests/unit/base/alloc.h"
#include "transport/base/buf.h"
#include "transport/base/json.h"

/* Of <cjson/cJSON.h>, which belongs to json.c: its allocations are to fail as well. */
struct cJSON_Hooks {
        void *(*allocate)(size_t size);
        void (*release)(void *data);
};
void cJSON_InitHooks(struct cJSON_Hooks *hooks);

static int parse(const char *text, size_t size, struct json **ret, size_t *ret_at)
{
        char *copy = malloc(size ? size : 1); /* exact, so that a read past the end is seen */
        int r;

        if (!copy)
                return -ENOMEM;
        memcpy(copy, text, size);
        r = json_parse(copy, size, ret, ret_at);
        free(copy);
        return r;
}

static void values_are_found(void)
{
        static const char text[] =
                " {\"s\":\"a\\u00e4\\n\\ud83d\\ude00\",\"t\":true,\"f\":false,\"z\":null,"
                "\"n\":-12,\"A\":[1,\"x\",{}],\"a\":{\"k\":\"v\"}}\r\n";
        const struct json *child;
        struct json *j = NULL;
        int64_t n = 0;
        bool b = false;

        if (!CHECK_EQ(parse(text, sizeof(text) - 1, &j, NULL), 0))
                return;
        CHECK_EQ(json_type(j), JSON_OBJECT);
        CHECK_STR(json_string(json_get(j, "s")), "a\xc3\xa4\n\xf0\x9f\x98\x80");
        CHECK(json_bool(json_get(j, "t"), &b) && b);
        CHECK(json_bool(json_get(j, "f"), &b) && !b);
        CHECK(!json_bool(json_get(j, "z"), &b));
        CHECK_EQ(json_type(json_get(j, "z")), JSON_NULL);
        CHECK(json_integer(json_get(j, "n"), &n) && n == -12);
        CHECK_EQ(json_type(json_get(j, "n")), JSON_NUMBER);
        CHECK_EQ(json_type(json_get(j, "t")), JSON_BOOL);
        CHECK_EQ(json_type(json_get(j, "A")), JSON_ARRAY);
        CHECK_STR(json_string(json_get(json_get(j, "a"), "k")), "v");
        CHECK(json_get(j, "S") == NULL); /* case counts */
        CHECK(json_get(j, "absent") == NULL);
        CHECK(json_get(json_get(j, "A"), "x") == NULL);
        CHECK(json_get(NULL, "x") == NULL);
        CHECK(json_string(NULL) == NULL && json_string(j) == NULL);
        CHECK(!json_bool(NULL, &b) && !json_integer(NULL, &n) && json_first(NULL) == NULL);

        child = json_first(json_get(j, "A"));
        CHECK(json_integer(child, &n) && n == 1 && json_key(child) == NULL);
        child = json_next(child);
        CHECK_STR(json_string(child), "x");
        child = json_next(child);
        CHECK_EQ(json_type(child), JSON_OBJECT);
        CHECK(json_next(child) == NULL && json_first(child) == NULL);
        CHECK_STR(json_key(json_first(j)), "s");
        json_free(j);
        json_free(NULL);
}

static void good_texts_are_taken(void)
{
        static const char *const good[] = {
                "1",
                "0",
                "-0",
                "1.5",
                "1e5",
                "1E-5",
                "1.25e+3",
                "true",
                "false",
                "null",
                "\"\"",
                "[]",
                "{}",
                " [ 1 , [ ] , { } ] ",
                "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\uFFFF\"",
                "\"\x7f\"",
                "{\"a\":1,\"A\":2,\"\":3}",
                "[{\"a\":1},{\"a\":1}]",
                "\t\n\r1",
                "123456789012345678901234567890123456789012345678901234567890123",
        };

        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
                struct json *j = NULL;

                if (!CHECK_EQ(parse(good[i], strlen(good[i]), &j, NULL), 0))
                        (void)fprintf(stderr, "  %s\n", good[i]);
                json_free(j);
        }
}

static void bad_texts_are_refused_at_their_place(void)
{
        static const struct {
                const char *text;
                size_t at;
        } bad[] = {
                {"", 0},
                {"  ", 2},
                {"1 2", 2},
                {"{} x", 3},
                {"tru", 3},
                {"True", 0},
                {"nul", 3},
                {"01", 1},
                {"-", 1},
                {"+1", 0},
                {".5", 0},
                {"1.", 2},
                {"1e", 2},
                {"1e+", 3},
                {"0x1", 1},
                {"NaN", 0},
                {"[1,]", 3},
                {"[1", 2},
                {"[,1]", 1},
                {"[1 2]", 3},
                {"{\"a\"}", 4},
                {"{\"a\":}", 5},
                {"{\"a\":1,}", 7},
                {"{a:1}", 1},
                {"{\"a\":1", 6},
                {"'a'", 0},
                {"\"a", 2},
                {"\"a\nb\"", 2},
                {"\"\\x\"", 2},
                {"\"\\", 2},
                {"\"\\u12\"", 5},
                {"\"\\u0000\"", 7},
                {"\"\\ud800\"", 7},
                {"\"\\udc00\"", 7},
                {"\"\\ud800\\u0041\"", 13},
                {"\"\xff\"", 1},
                {"\"\xed\xa0\x80\"", 1},
                {"\xef\xbb\xbf{}", 0},
                {"\x0b{}", 0},
                {"/**/1", 0},
                {"{\"a\":1,\"b\":2,\"a\":3}", 19},
                {"[{\"a\":{\"x\":1,\"\\u0078\":2}}]", 26}, /* equal once unescaped */
                {"1234567890123456789012345678901234567890123456789012345678901234", 64},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct json *j = NULL;
                size_t at = 999;

                if (!CHECK_EQ(parse(bad[i].text, strlen(bad[i].text), &j, &at), -EINVAL) ||
                    !CHECK(!j) || !CHECK_EQ(at, bad[i].at))
                        (void)fprintf(stderr, "  %s\n", bad[i].text);
        }
        CHECK_EQ(json_parse("[1\0]", 4, &(struct json *){NULL}, NULL), -EINVAL);
        CHECK_EQ(json_parse("\"\0\"", 3, &(struct json *){NULL}, NULL), -EINVAL);
        CHECK_EQ(json_parse("1\0", 2, &(struct json *){NULL}, NULL), -EINVAL);
}

static int parse_nested(unsigned depth)
{
        char text[400001];
        struct json *j = NULL;
        int r;

        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        r = parse(text, (size_t)depth * 2, &j, NULL);
        json_free(j);
        return r;
}

static void depth_is_limited(void)
{
        CHECK_EQ(parse_nested(64), 0);
        CHECK_EQ(parse_nested(65), -EINVAL);
        CHECK_EQ(parse_nested(200000), -EINVAL);
}

static void integers_are_whole_and_exact(void)
{
        static const struct {
                const char *text;
                bool ok;
                int64_t value;
        } rows[] = {
                {"0", true, 0},
                {"-0", true, 0},
                {"1e2", true, 100},
                {"9007199254740992", true, INT64_C(9007199254740992)},
                {"-9007199254740992", true, INT64_C(-9007199254740992)},
                {"9007199254740994", false, 0},
                {"1.5", false, 0},
                {"1e400", false, 0},
                {"-1e400", false, 0},
                {"\"1\"", false, 0},
                {"true", false, 0},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                struct json *j = NULL;
                int64_t n = 77;

                CHECK_EQ(parse(rows[i].text, strlen(rows[i].text), &j, NULL), 0);
                CHECK_EQ(json_integer(j, &n), rows[i].ok);
                CHECK_EQ(n, rows[i].ok ? rows[i].value : 77);
                json_free(j);
        }
}

static void check_string(const char *text, const char *expected)
{
        struct buf b = BUF_INIT(1000);

        CHECK_EQ(json_add_string(&b, text), 0);
        CHECK_STR(buf_str(&b), expected);
        buf_done(&b);
}

static void strings_are_written_and_read_back(void)
{
        char all[256];
        struct buf b = BUF_INIT(10000);
        struct json *j = NULL;

        check_string("", "\"\"");
        check_string("a\"\\\b\f\n\r\t\x01\x1f\x7f/",
                     "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f/\"");
        check_string("\xc3\xa4\xf0\x9f\x98\x80", "\"\xc3\xa4\xf0\x9f\x98\x80\"");
        check_string("a\xff\xc3(", "\"a\xef\xbf\xbd\xef\xbf\xbd(\"");

        for (int i = 0; i < 127; i++)
                all[i] = (char)(i + 1);
        all[127] = '\0';
        CHECK_EQ(json_add_string(&b, all), 0);
        CHECK_EQ(parse(b.data, b.size, &j, NULL), 0);
        CHECK_STR(json_string(j), all);
        json_free(j);
        buf_done(&b);
}

static void a_string_that_does_not_fit_leaves_nothing(void)
{
        for (size_t max = 0; max < 14; max++) {
                struct buf b = BUF_INIT(max + 1);

                CHECK_EQ(buf_add_char(&b, 'x'), 0);
                CHECK_EQ(json_add_string(&b, "ab\n\x01\xff"), -E2BIG);
                CHECK_STR(buf_str(&b), "x");
                buf_done(&b);
        }
}

static int parse_something(void)
{
        static const char text[] =
                "{\"a\":[1,\"two\",{\"b\":null,\"c\":true}],\"d\":{\"e\":\"f\"}}";
        struct json *j = NULL;
        int r = json_parse(text, sizeof(text) - 1, &j, NULL);

        CHECK((r == 0) == (j != NULL));
        json_freep(&j);
        return r;
}

static int add_something(void)
{
        struct buf b = BUF_INIT(1000);
        int r = json_add_string(&b, "something");

        CHECK_STR(buf_str(&b), r == 0 ? "\"something\"" : "");
        buf_done(&b);
        return r;
}

static void *allocate(size_t size)
{
        return malloc(size);
}

static void release(void *data)
{
        free(data);
}

static void lack_of_memory_is_said(void)
{
        cJSON_InitHooks(&(struct cJSON_Hooks){allocate, release});
        CHECK(alloc_fail_each(parse_something) > 15);
        CHECK_EQ(alloc_fail_each(add_something), 1);
        cJSON_InitHooks(NULL);
}

int main(void)
{
        RUN(values_are_found);
        RUN(good_texts_are_taken);
        RUN(bad_texts_are_refused_at_their_place);
        RUN(depth_is_limited);
        RUN(integers_are_whole_and_exact);
        RUN(strings_are_written_and_read_back);
        RUN(a_string_that_does_not_fit_leaves_nothing);
        RUN(lack_of_memory_is_said);
        return check_result();
}
