/* SPDX-License-Identifier: Apache-2.0 */
/* A server that sends our keys back: wherever its text is cut, nothing of a key is shown. */

#include "tests/unit/transport/http_fixture.h"
#include "transport/base/json.h"

#define KEY "dtn_0123456789abcdefghijklmnopqrstuv"
#define TOKEN "token-ZYXWVUTSRQPONMLKJIHGFEDCBA"

static const struct http_header endpoint_key = {"Authorization", "Bearer " KEY, true};
static const struct http_header request_key = {"X-Access-Token", TOKEN, true};

/* As a server may write them: '0' and '-' by their numbers. */
static void add_json(struct buf *to, const char *text)
{
        CHECK_EQ(buf_add_str(to, "{\"message\":\""), 0);
        for (; *text; text++) {
                if (*text == '0' || *text == '-')
                        CHECK_EQ(buf_addf(to, "\\u%04x", *text), 0);
                else
                        CHECK_EQ(buf_add_char(to, *text), 0);
        }
        CHECK_EQ(buf_add_str(to, "\"}"), 0);
}

/* The path says how; its query, how much stands before the keys. */
static void serve_keys(struct conn *k)
{
        struct buf text = BUF_INIT(IN_MAX), all = BUF_INIT(IN_MAX);

        for (int i = atoi(strchr(k->target, '?') + 1); i > 0; i--)
                CHECK_EQ(buf_add_char(&text, 'y'), 0);
        CHECK_EQ(buf_add_str(&text, KEY " " TOKEN), 0);
        if (conn_is(k, "/text")) {
                (void)conn_reply(k, 400, "", buf_str(&text));
        } else if (conn_is(k, "/data")) {
                (void)conn_reply(k, 200, "", buf_str(&text));
        } else if (conn_is(k, "/to")) {
                CHECK_EQ(buf_addf(&all, "Location: http://127.0.0.2:1/%s\r\n", buf_str(&text)), 0);
                (void)conn_reply(k, 307, buf_str(&all), "");
        } else {
                add_json(&all, buf_str(&text));
                (void)conn_reply(k, 400, "", buf_str(&all));
        }
        buf_done(&text);
        buf_done(&all);
}

/* As a provider's: it cuts. */
static int explain(const struct http_reply *reply, int error, char *text, size_t size)
{
        struct json *j = NULL;

        if (json_parse(buf_str(&reply->body), reply->body.size, &j, NULL) == 0)
                (void)snprintf(text, size, "%.200s", json_string(json_get(j, "message")));
        else
                (void)snprintf(text, size, "%.200s", buf_str(&reply->body));
        json_free(j);
        return error;
}

static void begin_keys(struct fixture *f, bool has_explain)
{
        struct http_config config = {.headers = &endpoint_key,
                                     .header_count = 1,
                                     .explain = has_explain ? explain : NULL};

        begin(f, serve_keys);
        http_unref(f->http);
        f->http = connect_to(&f->server, &config);
}

/* Six bytes of either, and all is well. */
static bool shows_a_key(const char *text)
{
        return strstr(text, "dtn_01") || strstr(text, "token-");
}

static void ask_padded(struct fixture *f, const char *path, int expected)
{
        char full[48];
        struct http_request q = {.path = full, .headers = &request_key, .header_count = 1};

        for (unsigned padding = 120; padding < 1030; padding++) {
                (void)snprintf(full, sizeof(full), "%s?%u", path, padding);
                CHECK_EQ(ask(f, &q), expected);
                if (!CHECK(!shows_a_key(f->call.sentence)))
                        (void)fprintf(stderr, "%s: %s\n", full, f->call.sentence);
                if (padding == 210)
                        padding = 850; /* between them, nothing is cut */
        }
}

static void a_key_that_is_cut_is_not_shown(void)
{
        for (int has_explain = 0; has_explain < 2; has_explain++) {
                struct fixture f;

                begin_keys(&f, has_explain);
                ask_padded(&f, "/text", -EINVAL);
                ask_padded(&f, "/json", -EINVAL);
                ask_padded(&f, "/to", -EPROTO);
                finish(&f);
        }
}

static void an_error_that_is_accepted_has_no_key(void)
{
        struct http_request q = {
                .path = "/text?3", .headers = &request_key, .header_count = 1, .accepts = {400}};
        struct fixture f;

        begin_keys(&f, false);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK(strncmp(buf_str(&f.reply.body), "yyy****", 7) == 0);
        CHECK(!shows_a_key(buf_str(&f.reply.body)));
        finish(&f);
}

static void data_stays_as_it_is(void)
{
        struct http_request q = {.path = "/data?1", .headers = &request_key, .header_count = 1};
        struct fixture f;

        begin_keys(&f, false);
        CHECK_EQ(ask(&f, &q), 0);
        CHECK_STR(buf_str(&f.reply.body), "y" KEY " " TOKEN);
        finish(&f);
}

int main(void)
{
        RUN(a_key_that_is_cut_is_not_shown);
        RUN(an_error_that_is_accepted_has_no_key);
        RUN(data_stays_as_it_is);
        return check_result();
}
