/* SPDX-License-Identifier: Apache-2.0 */
/* What OpenSandbox is sent of a spec, and what is made of its answers and of a command's events. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/opensandbox/body.h"
#include "providers/opensandbox/config.h"
#include "providers/opensandbox/events.h"
#include "providers/opensandbox/labels.h"
#include "providers/opensandbox/program.h"
#include "providers/opensandbox/states.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"

/* Of what nobody writes to. */
#define TEXT(text) ((char *)(uintptr_t)(text))

static struct json *parse(const char *text)
{
        struct json *j = NULL;

        CHECK_EQ(json_parse(text, strlen(text), &j, NULL), 0);
        return j;
}

/* ---- states ---- */

static void every_word_has_its_state(void)
{
        static const struct {
                const char *word;
                enum box_state state;
        } table[] = {
                {"Pending", BOX_CREATING},
                {"Allocated", BOX_CREATING},
                {"creating", BOX_CREATING},
                {"Running", BOX_RUNNING},
                {"RUNNING", BOX_RUNNING},
                {"Pausing", BOX_PAUSING},
                {"Paused", BOX_PAUSED},
                {"Resuming", BOX_RESUMING},
                {"Stopping", BOX_STOPPING},
                {"Terminated", BOX_STOPPED},
                {"Failed", BOX_ERROR},
                {"Error", BOX_ERROR},
                {"Deleting", BOX_DESTROYING},
                {"Deleted", BOX_GONE},
                {"Unknown", BOX_UNKNOWN},
                {"Something", BOX_UNKNOWN},
                {"", BOX_UNKNOWN},
                {NULL, BOX_UNKNOWN},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                CHECK_EQ(osb_state(table[i].word), table[i].state);
}

static void description_takes_what_is_there(void)
{
        struct json *j = parse("{\"status\":{\"state\":\"Failed\",\"reason\":\"EXITED\","
                               "\"message\":\"code 3\"},\"image\":{\"uri\":\"debian:12\"},"
                               "\"resourceLimits\":{\"cpu\":\"1500m\",\"memory\":\"8Gi\"},"
                               "\"expiresAt\":\"1970-01-01T00:01:00.5Z\"}");
        struct box_status s;

        osb_describe(j, &s);
        CHECK_EQ(s.state, BOX_ERROR);
        CHECK_STR(s.raw, "Failed");
        CHECK_STR(s.sentence, "EXITED: code 3");
        CHECK_STR(s.image, "debian:12");
        CHECK_EQ(s.cpu_milli, 1500);
        CHECK_EQ(s.memory, UINT64_C(8) << 30);
        CHECK_EQ(s.expires_real_ns, 60 * NS_PER_S + NS_PER_S / 2);
        json_free(j);
        j = parse(
                "{\"status\":\"Running\",\"snapshotId\":\"s1\",\"resourceLimits\":{\"memory\":-1}}");
        osb_describe(j, &s);
        CHECK_EQ(s.state, BOX_UNKNOWN);
        CHECK_STR(s.image, "s1");
        CHECK_EQ(s.memory, 0);
        json_free(j);
        j = parse("[1]");
        osb_describe(j, &s);
        CHECK_EQ(s.state, BOX_UNKNOWN);
        json_free(j);
}

static void ids_are_one_segment(void)
{
        CHECK(osb_is_id("e76fb4a0-e90a-401e-88d3-70c4cc59b8dc") && osb_is_id("a.b_c"));
        CHECK(!osb_is_id("") && !osb_is_id("-x") && !osb_is_id("a/b") && !osb_is_id("..") &&
              !osb_is_id("a b") && !osb_is_id("a?b"));
}

/* ---- errors ---- */

static bool gone(unsigned status, const char *body)
{
        return osb_is_gone(status, body, strlen(body));
}

static void gone_needs_the_server_s_own_word(void)
{
        CHECK(gone(404, "{\"code\":\"DOCKER::SANDBOX_NOT_FOUND\",\"message\":\"x\"}"));
        CHECK(gone(404, "{\"code\":\"KUBERNETES::SANDBOX_NOT_FOUND\"}"));
        CHECK(gone(404, "{\"detail\":\"Sandbox x not found\"}"));
        CHECK(!gone(502, "{\"code\":\"DOCKER::SANDBOX_NOT_FOUND\"}"));
        CHECK(!gone(404, "{\"detail\":\"Not Found\"}"));
        CHECK(!gone(404, "<html>404</html>"));
        CHECK(!gone(404, "{\"code\":404}"));
        CHECK(!gone(404, ""));
}

static int error(const char *body)
{
        return osb_error(body, strlen(body), -EIO);
}

static void errors_by_words_and_by_code(void)
{
        CHECK_EQ(error("{\"code\":\"RUNTIME_ERROR\",\"message\":\"x: not a directory\"}"),
                 -ENOTDIR);
        CHECK_EQ(error("{\"code\":\"RUNTIME_ERROR\",\"message\":\"path is a directory: /a\"}"),
                 -EISDIR);
        CHECK_EQ(error("{\"message\":\"destination path already exists: /a\"}"), -EEXIST);
        CHECK_EQ(error("{\"code\":\"FILE_NOT_FOUND\",\"message\":\"?\"}"), -ENOENT);
        CHECK_EQ(error("{\"code\":\"NOT_SUPPORTED\"}"), -EOPNOTSUPP);
        CHECK_EQ(error("{\"code\":\"RUNTIME_ERROR\",\"message\":\"?\"}"), -EIO);
        CHECK_EQ(error("404 page not found"), -EIO);
}

static void sentence_of(const char *body, const char *wanted)
{
        char text[256] = "";

        CHECK_EQ(osb_sentence(body, strlen(body), text, sizeof(text)), wanted[0] != '\0');
        CHECK_STR(text, wanted);
}

static void sentences_of_all_shapes(void)
{
        sentence_of("{\"code\":\"A\",\"message\":\"b\"}", "A: b");
        sentence_of("{\"message\":\"b\"}", "b");
        sentence_of("{\"error\":\"Unauthorized\"}", "Unauthorized");
        sentence_of("{\"detail\":\"Not Found\"}", "Not Found");
        sentence_of("{\"detail\":[{\"msg\":\"too small\",\"loc\":[\"body\"]}]}", "too small");
        sentence_of("{\"detail\":[]}", "");
        sentence_of("plain", "");
}

static void refusals_that_last(void)
{
        CHECK(osb_is_refused(400) && osb_is_refused(403) && osb_is_refused(404));
        CHECK(osb_is_refused(405) && osb_is_refused(409) && osb_is_refused(422));
        CHECK(osb_is_refused(501));
        CHECK(!osb_is_refused(401) && !osb_is_refused(408) && !osb_is_refused(429));
        CHECK(!osb_is_refused(0) && !osb_is_refused(202) && !osb_is_refused(500));
        CHECK(!osb_is_refused(503));
}

/* ---- labels ---- */

static void labels_are_kubernetes_s(void)
{
        char long_one[65];

        memset(long_one, 'a', 64);
        long_one[64] = '\0';
        CHECK(label_is_value("") && label_is_value("a") && label_is_value("a_b.c-D9"));
        CHECK(!label_is_value("_a") && !label_is_value("a.") && !label_is_value("a b") &&
              !label_is_value("ä") && !label_is_value(long_one) && label_is_value(long_one + 1));
        CHECK(label_is_key("a") && label_is_key("my.domain/a_b") && !label_is_key(""));
        CHECK(!label_is_key("/a") && !label_is_key("A/b") && !label_is_key("a/") &&
              !label_is_key("a/b/c") && !label_is_key("a./b"));
}

static void any_text_survives_labels(void)
{
        static const char long_one[] = "/0123456789012345678901234567890123456789"
                                       "/0123456789_012345678901234567890123456789";
        static const char *const texts[] = {"/srv/my_dir-1", "/a", "/ä/x y/__", "/_5F_", long_one};

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
                struct buf escaped = BUF_INIT(4096), joined = BUF_INIT(4096), out = BUF_INIT(4096);
                char piece[LABEL_MAX + 1];

                CHECK_EQ(label_escape(&escaped, texts[i]), 0);
                for (size_t n = 0; label_piece(buf_str(&escaped), n, piece), piece[0]; n++) {
                        CHECK(label_is_value(piece));
                        CHECK_EQ(label_join(&joined, piece), 0);
                }
                CHECK_EQ(label_unescape(&out, buf_str(&joined)), 0);
                CHECK_STR(buf_str(&out), texts[i]);
                buf_done(&escaped);
                buf_done(&joined);
                buf_done(&out);
        }
}

static void labels_of_others_make_no_sense(void)
{
        static const char *const pieces[] = {"", "x", "xx", "abc", "xab", "abx"};
        static const char *const texts[] = {"_", "_4", "_zz", "_00", "a_4g"};
        struct buf out = BUF_INIT(100);

        for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
                CHECK_EQ(label_join(&out, pieces[i]), -EINVAL);
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
                CHECK_EQ(label_unescape(&out, texts[i]), -EINVAL);
        buf_done(&out);
}

/* ---- bodies ---- */

static struct spec new_spec(void)
{
        struct spec s;

        spec_init(&s);
        (void)snprintf(s.key, sizeof(s.key), "k1");
        (void)snprintf(s.name, sizeof(s.name), "web");
        (void)snprintf(s.owner, sizeof(s.owner), "me");
        return s;
}

static struct json *body(const struct osb_config *d, const struct spec *s)
{
        struct buf text = BUF_INIT(1 << 20);
        struct json *j;

        CHECK_EQ(osb_create_body(d, s, &text), 0);
        j = parse(buf_str(&text));
        buf_wipe(&text);
        return j;
}

static const char *limit(const struct json *j, const char *key)
{
        return json_string(json_get(json_get(j, "resourceLimits"), key));
}

static const char *image(const struct json *j)
{
        return json_string(json_get(json_get(j, "image"), "uri"));
}

static struct osb_config new_config(void)
{
        return (struct osb_config){.entrypoint = TEXT("tail  -f /dev/null "),
                                   .url = TEXT("http://localhost:8080/v1"),
                                   .scheme = TEXT("http")};
}

static void body_has_what_always_holds(void)
{
        struct osb_config d = new_config();
        struct spec s = new_spec();
        struct json *j = body(&d, &s);
        const struct json *words = json_get(j, "entrypoint");

        CHECK_STR(image(j), "python:3.12");
        CHECK_STR(json_string(json_first(words)), "tail");
        CHECK_STR(json_string(json_next(json_next(json_first(words)))), "/dev/null");
        CHECK(!json_next(json_next(json_next(json_first(words)))));
        CHECK(json_get(j, "resourceLimits") && !json_first(json_get(j, "resourceLimits")));
        CHECK_STR(osb_label(j, LABEL_KEY), "k1");
        CHECK_STR(osb_label(j, LABEL_NAME), "web");
        CHECK_STR(osb_label(j, LABEL_OWNER), "me");
        CHECK_STR(osb_label(j, LABEL_WORKDIR), "");
        CHECK(!json_get(j, "timeout") && !json_get(j, "env") && !json_get(j, "networkPolicy"));
        json_free(j);
}

static void body_has_the_settings(void)
{
        struct pair env[] = {{TEXT("A"), TEXT("it's \"x\"\n")}},
                    labels[] = {{TEXT("t"), TEXT("y")}};
        struct osb_config d = new_config();
        struct buf workdir = BUF_INIT(300);
        struct spec s = new_spec();
        const struct json *rule;
        struct json *j;
        int64_t n = 0;

        s.text[SETTING_IMAGE] = TEXT("debian:12");
        s.text[SETTING_WORKDIR] = TEXT("/srv/a_b");
        s.text[SETTING_USER] = TEXT("app");
        s.text[SETTING_NET] = TEXT("deny:a.example,*.b.example");
        s.timeout_ns = 90 * NS_PER_S + 1;
        s.cpu_milli = 500;
        s.memory = UINT64_C(8) << 30;
        s.env = env;
        s.labels = labels;
        s.env_count = s.label_count = 1;
        j = body(&d, &s);
        CHECK_STR(image(j), "debian:12");
        CHECK(json_integer(json_get(j, "timeout"), &n) && n == 91);
        CHECK_STR(limit(j, "cpu"), "500m");
        CHECK_STR(limit(j, "memory"), "8Gi");
        CHECK_STR(json_string(json_get(json_get(j, "env"), "A")), "it's \"x\"\n");
        CHECK_STR(osb_label(j, "t"), "y");
        CHECK_STR(osb_label(j, LABEL_USER), "app");
        CHECK(osb_long_label(j, LABEL_WORKDIR, &workdir));
        CHECK_STR(buf_str(&workdir), "/srv/a_b");
        CHECK_STR(json_string(json_get(json_get(j, "networkPolicy"), "defaultAction")), "allow");
        rule = json_next(json_first(json_get(json_get(j, "networkPolicy"), "egress")));
        CHECK_STR(json_string(json_get(rule, "action")), "deny");
        CHECK_STR(json_string(json_get(rule, "target")), "*.b.example");
        json_free(j);
        buf_done(&workdir);
}

static void body_has_one_source(void)
{
        struct osb_config d = new_config();
        struct spec s = new_spec();
        struct json *j;

        s.text[SETTING_IMAGE] = TEXT("debian:12"); /* somebody's default */
        s.text[SETTING_SNAPSHOT] = TEXT("snap-1");
        s.given = SETTING_BIT(SETTING_SNAPSHOT);
        j = body(&d, &s);
        CHECK_STR(json_string(json_get(j, "snapshotId")), "snap-1");
        CHECK(!json_get(j, "image"));
        json_free(j);
        s.text[SETTING_TEMPLATE] = TEXT("pool-1");
        s.given = SETTING_BIT(SETTING_TEMPLATE);
        j = body(&d, &s);
        CHECK_STR(json_string(json_get(json_get(j, "extensions"), "poolRef")), "pool-1");
        CHECK(!json_get(j, "image") && !json_get(j, "snapshotId"));
        json_free(j);
        s.given = SETTING_BIT(SETTING_IMAGE);
        d.registry = TEXT("reg.example/hub");
        j = body(&d, &s);
        CHECK_STR(image(j), "reg.example/hub/debian:12");
        json_free(j);
        s.text[SETTING_IMAGE] = TEXT("localhost/debian");
        j = body(&d, &s);
        CHECK_STR(image(j), "localhost/debian");
        json_free(j);
}

static void quantities_are_exact(void)
{
        static const struct {
                uint64_t bytes;
                const char *text;
        } sizes[] = {
                {UINT64_C(8) << 30, "8Gi"},
                {UINT64_C(4096) << 20, "4Gi"},
                {UINT64_C(1536) << 20, "1536Mi"},
                {1, "1Ki"},
                {1024, "1Ki"},
                {1025, "2Ki"},
                {UINT64_C(3) << 20, "3Mi"},
                {UINT64_MAX, "16Gi"},
        };
        char text[32];

        for (size_t i = 0; i + 1 < sizeof(sizes) / sizeof(sizes[0]); i++) {
                osb_format_memory(sizes[i].bytes, text);
                CHECK_STR(text, sizes[i].text);
        }
        osb_format_memory(UINT64_MAX, text);
        CHECK_STR(text, "17179869184Gi");
        osb_format_cpu(4000, text);
        CHECK_STR(text, "4");
        osb_format_cpu(1, text);
        CHECK_STR(text, "1m");
}

static int checked(struct spec *s, const char *words)
{
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = osb_check(s, &c);
        if (words)
                CHECK(strstr(c.sentence, words));
        return r;
}

static void settings_are_refused(void)
{
        static const struct {
                enum setting setting;
                const char *value, *words;
        } bad[] = {
                {SETTING_WORKDIR, "/", "workdir"}, {SETTING_WORKDIR, "/a/../b", "workdir"},
                {SETTING_USER, "a b", "user"},     {SETTING_USER, "_a", "label"},
                {SETTING_IMAGE, "a b", "image"},   {SETTING_SNAPSHOT, "-x", "image"},
                {SETTING_NET, "host", "net"},      {SETTING_NET, "allow:", "net"},
                {SETTING_NET, "deny:a/b", "net"},
        };
        struct pair label = {TEXT("sbxfs-owner"), TEXT("x")};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct spec s = new_spec();

                s.text[bad[i].setting] = TEXT(bad[i].value);
                CHECK_EQ(checked(&s, bad[i].words), -EINVAL);
        }
        struct spec s = new_spec();

        s.labels = &label;
        s.label_count = 1;
        CHECK_EQ(checked(&s, "ours"), -EINVAL);
        label = (struct pair){TEXT("opensandbox.io/x"), TEXT("x")};
        CHECK_EQ(checked(&s, "service's"), -EINVAL);
        label = (struct pair){TEXT("team"), TEXT("y z")};
        CHECK_EQ(checked(&s, "label"), -EINVAL);
        s.label_count = 0;
        s.timeout_ns = 59 * NS_PER_S;
        CHECK_EQ(checked(&s, "60"), -EINVAL);
        s.timeout_ns = UINT64_MAX;
        CHECK_EQ(checked(&s, "timeout"), -EINVAL);
        s.timeout_ns = 60 * NS_PER_S;
        CHECK_EQ(checked(&s, NULL), 0);
        s.disk = 1 << 20;
        CHECK_EQ(checked(&s, "disk"), -EOPNOTSUPP);
        s.disk = 0;
        s.text[SETTING_IMAGE] = s.text[SETTING_SNAPSHOT] = TEXT("x");
        s.given = SETTING_BIT(SETTING_IMAGE) | SETTING_BIT(SETTING_SNAPSHOT);
        CHECK_EQ(checked(&s, "one of"), -EINVAL);
}

static void other_bodies(void)
{
        static const char *const argv[] = {"a b", "it's", NULL};
        const struct remote_program p = {
                .argv = argv, .cwd = "/x y", .env = {{"K", "v w"}, {NULL, NULL}}};
        const struct osb_owner owner = {.uid = 5, .gid = 6};
        struct buf out = BUF_INIT(1000);

        CHECK_EQ(osb_expiry_body(60 * NS_PER_S + 1, &out), 0);
        CHECK_STR(buf_str(&out), "{\"expiresAt\":\"1970-01-01T00:01:00Z\"}");
        buf_clear(&out);
        CHECK_EQ(osb_command_body("echo \"x\"", &owner, &out), 0);
        CHECK_STR(buf_str(&out), "{\"command\":\"echo \\\"x\\\"\",\"uid\":5,\"gid\":6}");
        buf_clear(&out);
        CHECK_EQ(osb_command_line(&p, true, &out), 0);
        CHECK_STR(buf_str(&out), "cd '/x y' && export K='v w'; exec 'a b' 'it'\\''s'");
        buf_done(&out);
}

/* ---- events ---- */

/* Fed in pieces of `step` bytes; finished. */
static struct osb_events *events(const char *text, size_t step, struct buf *out)
{
        struct osb_events *e = calloc(1, sizeof(*e));
        int r = 0;

        CHECK(e);
        osb_events_init(e, out);
        for (size_t at = 0, size = strlen(text); r == 0 && at < size; at += step)
                r = osb_events_feed(e, text + at, size - at < step ? size - at : step);
        if (r < 0)
                e->error = r;
        else
                osb_events_finish(e);
        osb_events_done(e);
        return e;
}

static void events_of_a_command(void)
{
        static const char all[] =
                "{\"type\":\"init\",\"text\":\"ff87\",\"timestamp\":1}\n\n"
                "{\"type\":\"ping\",\"text\":\"pong\"}\n\n"
                "{\"type\":\"stdout\",\"text\":\"hi\"}\n\n"
                "data: {\"type\":\"stdout\",\"text\":\"\\n\"}\n\n"
                "{\"type\":\"stderr\",\"text\":\"oh\"}\n\n{\"type\":\"new\"}\n\n"
                "{\"type\":\"stdout\",\"text\":\"there\"}\n\n"
                "{\"type\":\"error\",\"error\":{\"ename\":\"CommandExecError\",\"evalue\":\"3\","
                "\"traceback\":[\"exit status 3\"]}}\n\n{\"type\":\"stdout\",\"text\":\"late\"}\n\n";

        for (size_t step = 1; step < 64; step += 7) {
                struct buf out = BUF_INIT(1000);
                struct osb_events *e = events(all, step, &out);

                CHECK_EQ(e->error, 0);
                CHECK_EQ(e->code, 3);
                CHECK_STR(buf_str(&out), "hi\n\nthere\n");
                CHECK_STR(e->said, "oh");
                free(e);
                buf_done(&out);
        }
}

static void ends_of_a_command(void)
{
        static const struct {
                const char *text;
                int error, code;
        } cases[] = {
                {"{\"type\":\"execution_complete\"}\n", 0, 0},
                {"{\"type\":\"execution_complete\"}", 0, 0},
                {"{\"type\":\"error\",\"error\":{\"evalue\":\"-1\",\"traceback\":[\"signal: "
                 "terminated\"]}}\n",
                 0, 143},
                {"{\"type\":\"error\",\"error\":{\"evalue\":\"-1\"}}\n", 0, 137},
                {"{\"type\":\"error\",\"error\":{\"evalue\":\"fork/exec /bin/sh: argument list too "
                 "long\"}}\n",
                 -E2BIG, 0},
                {"{\"type\":\"error\",\"error\":{\"evalue\":\"300\"}}\n", -EIO, 0},
                {"{\"type\":\"error\"}\n", -EIO, 0},
                {"{\"code\":\"RUNTIME_ERROR\",\"message\":\"late\"}\n", -EIO, 0},
                {"{\"type\":\"stdout\",\"text\":\"x\"}\n", -EHOSTUNREACH, 0},
                {"", -EHOSTUNREACH, 0},
                {"{broken\n", -EPROTO, 0},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct osb_events *e = events(cases[i].text, 5, NULL);

                CHECK_EQ(e->error, cases[i].error);
                CHECK_EQ(e->code, cases[i].code);
                free(e);
        }
}

static void too_much_is_told(void)
{
        struct buf out = BUF_INIT(5);
        struct osb_events *e = events("{\"type\":\"stdout\",\"text\":\"123456\"}\n"
                                      "{\"type\":\"execution_complete\"}\n",
                                      9, &out);

        CHECK(e->is_long && e->error == 0);
        free(e);
        buf_done(&out);
}

/* ---- configuration ---- */

static void where_a_sandbox_is(void)
{
        static const char *const bad[] = {"",    "/x", "user@host", "host?x",  "host#x",
                                          "a b", "-x", "ftp://x",   "http://", "a\\b"};
        struct osb_config d = new_config();
        char *url = NULL;

        CHECK_EQ(osb_endpoint_url(&d, "127.0.0.1:47453/proxy/44772/", &url), 0);
        CHECK_STR(url, "http://127.0.0.1:47453/proxy/44772");
        free(url);
        d.scheme = TEXT("https");
        CHECK_EQ(osb_endpoint_url(&d, "[::1]:1", &url), 0);
        CHECK_STR(url, "https://[::1]:1");
        free(url);
        CHECK_EQ(osb_endpoint_url(&d, "http://h", &url), -EPROTO); /* not without TLS */
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                int r = osb_endpoint_url(&d, bad[i], &url);

                CHECK(r == -EPROTO || (r == 0 && i == 7)); /* "ftp:" could be a host with a port */
                if (r == 0)
                        free(url);
        }
}

static void read_as(const char *key, const char *value, const char *url)
{
        struct pair p = {TEXT(key), TEXT(value)};
        struct osb_config d;
        struct call c;

        call_init(&c, NEVER_NS);
        CHECK_EQ(osb_config_read(&p, 1, &c, &d), url ? 0 : -EINVAL);
        if (!url)
                return;
        CHECK_STR(d.url, url);
        osb_config_done(&d);
}

static void configuration_is_checked(void)
{
        static const struct {
                const char *key, *value, *url;
        } cases[] = {
                {"domain", "sandbox.example", "http://sandbox.example/v1"},
                {"domain", "h:1/", "http://h:1/v1"},
                {"domain", "h:1/v1", "http://h:1/v1"},
                {"domain", "h/base/v1/", "http://h/base/v1"},
                {"domain", "https://h/base", "https://h/base/v1"},
                {"domain", "u@h", NULL},
                {"domain", "h?x", NULL},
                {"domain", "", NULL},
                {"protocol", "https", "https://localhost:8080/v1"},
                {"protocol", "ftp", NULL},
                {"api_key", "a b", NULL},
                {"execd_token", "a\nb", NULL},
                {"server_proxy", "perhaps", NULL},
                {"server_proxy", "yes", "http://localhost:8080/v1"},
                {"image_user", "me", NULL},
                {"registry", "a b", NULL},
                {"entrypoint", "  ", NULL},
                {"files", "x", NULL},
                {"files", "shell", "http://localhost:8080/v1"},
        };

        /* NOLINTBEGIN(concurrency-mt-unsafe): one thread */
        CHECK_EQ(unsetenv("OPEN_SANDBOX_DOMAIN") | unsetenv("OPEN_SANDBOX_API_KEY") |
                         unsetenv("OPEN_SANDBOX_PROTOCOL"),
                 0);
        CHECK(!osb_is_there());
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                read_as(cases[i].key, cases[i].value, cases[i].url);
        CHECK_EQ(setenv("OPEN_SANDBOX_DOMAIN", "https://v.example/v1", 1), 0);
        CHECK_EQ(setenv("OPEN_SANDBOX_PROTOCOL", "http", 1), 0); /* a URL's own goes before it */
        CHECK(osb_is_there());
        read_as("files", "agent", "https://v.example/v1");
        read_as("domain", "h", "http://h/v1");
        /* NOLINTEND(concurrency-mt-unsafe) */
}

int main(void)
{
        RUN(every_word_has_its_state);
        RUN(description_takes_what_is_there);
        RUN(ids_are_one_segment);
        RUN(gone_needs_the_server_s_own_word);
        RUN(errors_by_words_and_by_code);
        RUN(sentences_of_all_shapes);
        RUN(refusals_that_last);
        RUN(labels_are_kubernetes_s);
        RUN(any_text_survives_labels);
        RUN(labels_of_others_make_no_sense);
        RUN(body_has_what_always_holds);
        RUN(body_has_the_settings);
        RUN(body_has_one_source);
        RUN(quantities_are_exact);
        RUN(settings_are_refused);
        RUN(other_bodies);
        RUN(events_of_a_command);
        RUN(ends_of_a_command);
        RUN(too_much_is_told);
        RUN(where_a_sandbox_is);
        RUN(configuration_is_checked);
        return check_result();
}
