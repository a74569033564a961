/* SPDX-License-Identifier: Apache-2.0 */
/* What E2B is sent of a spec, and what is made of its answers and of a program's events. */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "providers/e2b/body.h"
#include "providers/e2b/config.h"
#include "providers/e2b/events.h"
#include "providers/e2b/states.h"
#include "providers/remote/words.h"
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
        CHECK_EQ(e2b_state("running"), BOX_RUNNING);
        CHECK_EQ(e2b_state("paused"), BOX_PAUSED);
        CHECK_EQ(e2b_state("killed"), BOX_UNKNOWN);
        CHECK_EQ(e2b_state(""), BOX_UNKNOWN);
        CHECK_EQ(e2b_state(NULL), BOX_UNKNOWN);
}

static void description_takes_what_is_there(void)
{
        struct json *j = parse("{\"state\":\"running\",\"alias\":\"base\",\"templateID\":\"rki\","
                               "\"cpuCount\":2,\"memoryMB\":512,\"diskSizeMB\":10240,"
                               "\"endAt\":\"1970-01-01T00:01:00.5Z\"}");
        struct box_status s;

        e2b_describe(j, &s);
        CHECK_EQ(s.state, BOX_RUNNING);
        CHECK_STR(s.raw, "running");
        CHECK_STR(s.image, "base");
        CHECK_EQ(s.cpu_milli, 2000);
        CHECK_EQ(s.memory, UINT64_C(512) << 20);
        CHECK_EQ(s.disk, UINT64_C(10240) << 20);
        CHECK_EQ(s.expires_real_ns, 60 * NS_PER_S + NS_PER_S / 2);
        json_free(j);
        j = parse("{\"state\":\"paused\",\"templateID\":\"rki\",\"cpuCount\":-2,\"memoryMB\":\"x\","
                  "\"endAt\":\"1970-01-01T00:01:00Z\"}");
        e2b_describe(j, &s);
        CHECK_EQ(s.state, BOX_PAUSED);
        CHECK_STR(s.image, "rki");
        CHECK_EQ(s.cpu_milli, 0);
        CHECK_EQ(s.memory, 0);
        CHECK_EQ(s.expires_real_ns, 0); /* that is when it was paused */
        json_free(j);
        j = parse("[1]");
        e2b_describe(j, &s);
        CHECK_EQ(s.state, BOX_UNKNOWN);
        json_free(j);
}

static void times_are_read(void)
{
        uint64_t ns = 0;

        CHECK(words_time("2026-08-22T10:05:00Z", &ns));
        CHECK_EQ(ns, UINT64_C(1787393100) * NS_PER_S);
        CHECK(words_time("2026-08-22T12:05:00.123456789+02:00", &ns));
        CHECK_EQ(ns, UINT64_C(1787393100) * NS_PER_S + 123456789);
        CHECK(!words_time("2026-08-22", &ns));
        CHECK(!words_time("2026-08-22T10:05:00", &ns));
        CHECK(!words_time("2026-08-22T10:05:00Zx", &ns));
        CHECK(!words_time("1969-01-01T00:00:00Z", &ns));
        CHECK(!words_time("9999-01-01T00:00:00Z", &ns));
        CHECK(!words_time(NULL, &ns));
}

static void ids_and_versions(void)
{
        CHECK(e2b_is_id("iabc123") && e2b_is_id("iabc-6532622b"));
        CHECK(!e2b_is_id("") && !e2b_is_id("-x") && !e2b_is_id("a/b") && !e2b_is_id("../x"));
        CHECK(!e2b_is_id("a b") && !e2b_is_id("a.b"));
        CHECK(e2b_since("0.6.13", "0.5.7") && e2b_since("v0.5.7", "0.5.7"));
        CHECK(!e2b_since("0.5.6", "0.5.7") && !e2b_since("0.4", "0.5.2"));
        CHECK(e2b_since("1.0.0", "0.5.7") && e2b_since("", "0.5.7") && e2b_since("x", "0.5.7"));
}

/* ---- errors ---- */

static void errors_by_code_and_by_words(void)
{
        CHECK_EQ(e2b_error("not_found", "process with pid 3 not found"), -ENOENT);
        CHECK_EQ(e2b_error("internal", "x: lstat /a/b: not a directory"), -ENOTDIR);
        CHECK_EQ(e2b_error("internal", "write |1: broken pipe"), -EPIPE);
        CHECK_EQ(e2b_error("internal", "mv: No Space Left On Device"), -ENOSPC);
        CHECK_EQ(e2b_error("unauthenticated", "invalid username: 'x'"), -EACCES);
        CHECK_EQ(e2b_error("unavailable", NULL), -EHOSTUNREACH);
        CHECK_EQ(e2b_error("unimplemented", ""), -EOPNOTSUPP);
        CHECK_EQ(e2b_error("something new", "?"), -EIO);
        CHECK_EQ(e2b_error(NULL, NULL), -EIO);
}

static void gone_needs_the_api_s_own_word(void)
{
        static const char word[] = "{\"code\":404,\"message\":\"Sandbox \\\"x\\\" doesn't exist\"}",
                          route[] = "{\"code\":404,\"message\":\"validation error: no matching "
                                    "operation was found\"}",
                          other[] = "<html>404</html>", rpc[] = "{\"code\":\"not_found\"}";

        CHECK(e2b_is_gone(404, word, strlen(word)));
        CHECK(!e2b_is_gone(502, word, strlen(word)));
        CHECK(!e2b_is_gone(404, route, strlen(route)));
        CHECK(!e2b_is_gone(404, other, strlen(other)));
        CHECK(!e2b_is_gone(404, rpc, strlen(rpc)));
        CHECK(!e2b_is_gone(404, "", 0));
        CHECK(e2b_is_other_variant(404, "validation error: no matching operation was found"));
        CHECK(e2b_is_other_variant(400, "validation error: method not allowed"));
        CHECK(e2b_is_other_variant(405, "") && e2b_is_other_variant(410, ""));
        CHECK(!e2b_is_other_variant(404, "template 'x' not found"));
        CHECK(!e2b_is_other_variant(400, "Timeout must be greater than 0"));
        CHECK(e2b_is_not_there_yet(502, "The sandbox was not found"));
        CHECK(!e2b_is_not_there_yet(502, "bad gateway"));
}

static void ends_are_read(void)
{
        static const struct {
                const char *text;
                bool is_good, has_code;
                int code, signal;
        } cases[] = {
                {"{\"exited\":true,\"status\":\"exit status 0\"}", true, true, 0, 0},
                {"{\"exited\":true,\"exitCode\":3}", true, true, 3, 0},
                {"{\"exitCode\":-1,\"status\":\"signal: killed\"}", true, false, 0, SIGKILL},
                {"{\"exitCode\":-1,\"status\":\"signal: segmentation fault (core dumped)\"}", true,
                 false, 0, SIGSEGV},
                {"{\"exitCode\":-1,\"status\":\"signal: signal 42\"}", true, false, 0, 42},
                {"{\"exited\":true,\"exitCode\":300}", false, false, 0, 0},
                {"{\"exited\":true,\"exitCode\":\"0\"}", false, false, 0, 0},
                {"{\"exitCode\":-1,\"status\":\"signal: signal 999\"}", false, false, 0, 0},
                {"{}", false, false, 0, 0},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct json *j = parse(cases[i].text);
                bool has_code = false;
                int code = 0, number = 0;

                CHECK_EQ(e2b_end(j, &has_code, &code, &number), cases[i].is_good);
                if (cases[i].is_good) {
                        CHECK_EQ(has_code, cases[i].has_code);
                        CHECK_EQ(number, cases[i].signal);
                        if (has_code)
                                CHECK_EQ(code, cases[i].code);
                }
                json_free(j);
        }
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

static struct json *body(const struct spec *s, bool has_secure)
{
        struct buf text = BUF_INIT(1 << 20);
        struct json *j;

        CHECK_EQ(e2b_create_body(s, has_secure, &text), 0);
        j = parse(buf_str(&text));
        buf_wipe(&text);
        return j;
}

static int64_t number(const struct json *j, const char *key)
{
        int64_t value = -1;

        return json_integer(json_get(j, key), &value) ? value : -1;
}

static void body_has_what_always_holds(void)
{
        struct spec s = new_spec();
        struct json *j = body(&s, true);
        bool flag = false;

        CHECK_STR(json_string(json_get(j, "templateID")), "base");
        CHECK_EQ(number(j, "timeout"), 3600);
        CHECK(json_bool(json_get(j, "secure"), &flag) && flag);
        CHECK(json_bool(json_get(j, "autoPause"), &flag) && flag);
        CHECK_STR(e2b_metadata(j, METADATA_KEY), "k1");
        CHECK_STR(e2b_metadata(j, METADATA_NAME), "web");
        CHECK_STR(e2b_metadata(j, METADATA_OWNER), "me");
        CHECK_STR(e2b_metadata(j, METADATA_WORKDIR), "");
        CHECK(!json_get(j, "envVars") && !json_get(j, "allow_internet_access"));
        json_free(j);
        j = body(&s, false);
        CHECK(!json_get(j, "secure"));
        json_free(j);
}

static void body_has_the_settings(void)
{
        struct pair env[] = {{TEXT("A"), TEXT("it's \"x\"\n")}},
                    labels[] = {{TEXT("team"), TEXT("y z")}};
        struct spec s = new_spec();
        const struct json *list;
        struct json *j;
        bool flag = true;

        s.text[SETTING_TEMPLATE] = TEXT("team/tool:1");
        s.text[SETTING_WORKDIR] = TEXT("/srv");
        s.text[SETTING_USER] = TEXT("app");
        s.text[SETTING_NET] = TEXT("none");
        s.timeout_ns = 90 * NS_PER_S + 1;
        s.env = env;
        s.labels = labels;
        s.env_count = s.label_count = 1;
        j = body(&s, true);
        CHECK_STR(json_string(json_get(j, "templateID")), "team/tool:1");
        CHECK_EQ(number(j, "timeout"), 91);
        CHECK_STR(json_string(json_get(json_get(j, "envVars"), "A")), "it's \"x\"\n");
        CHECK_STR(e2b_metadata(j, "team"), "y z");
        CHECK_STR(e2b_metadata(j, METADATA_WORKDIR), "/srv");
        CHECK_STR(e2b_metadata(j, METADATA_USER), "app");
        CHECK(json_bool(json_get(j, "allow_internet_access"), &flag) && !flag);
        json_free(j);
        s.text[SETTING_NET] = TEXT("allow:a.example,10.0.0.0/8");
        j = body(&s, true);
        list = json_get(json_get(j, "network"), "allowOut");
        CHECK_STR(json_string(json_first(list)), "a.example");
        CHECK_STR(json_string(json_next(json_first(list))), "10.0.0.0/8");
        CHECK_STR(json_string(json_first(json_get(json_get(j, "network"), "denyOut"))),
                  "0.0.0.0/0");
        json_free(j);
}

static int checked(struct spec *s, const char *words)
{
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = e2b_check(s, &c);
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
                {SETTING_WORKDIR, "/", "workdir"},
                {SETTING_WORKDIR, "x", "workdir"},
                {SETTING_WORKDIR, "/a/../b", "workdir"},
                {SETTING_USER, "a b", "user"},
                {SETTING_USER, "-x", "user"},
                {SETTING_TEMPLATE, "a b", "template"},
                {SETTING_TEMPLATE, "-x", "template"},
                {SETTING_NET, "host", "net"},
                {SETTING_NET, "allow:", "net"},
                {SETTING_NET, "allow:a b", "net"},
        };
        static const enum setting of_template[] = {SETTING_CPU, SETTING_MEMORY, SETTING_DISK,
                                                   SETTING_IMAGE};
        struct pair label = {TEXT("sbxfs-owner"), TEXT("x")};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct spec s = new_spec();

                s.text[bad[i].setting] = TEXT(bad[i].value);
                CHECK_EQ(checked(&s, bad[i].words), -EINVAL);
        }
        for (size_t i = 0; i < sizeof(of_template) / sizeof(of_template[0]); i++) {
                struct spec s = new_spec();

                s.given = SETTING_BIT(of_template[i]);
                CHECK_EQ(checked(&s, "template="), -EOPNOTSUPP);
        }
        struct spec s = new_spec();

        s.labels = &label;
        s.label_count = 1;
        CHECK_EQ(checked(&s, "ours"), -EINVAL);
        s.label_count = 0;
        CHECK_EQ(checked(&s, NULL), 0);
}

/* ---- events ---- */

struct heard {
        uint32_t pid;
        struct buf out[2];
};

static void on_started(void *ctx, uint32_t pid)
{
        ((struct heard *)ctx)->pid = pid;
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        CHECK_EQ(buf_add(&((struct heard *)ctx)->out[is_stderr], data, size), 0);
}

static void add(struct buf *to, char flags, const char *text)
{
        size_t at = to->size;

        CHECK_EQ(envelope_add(to, text, strlen(text)), 0);
        to->data[at] = flags;
}

/* Fed in pieces of `step` bytes. */
static int feed(const struct buf *all, size_t step, struct heard *h, struct stream_end *ret)
{
        struct e2b_events e;
        int r = 0;

        *h = (struct heard){.out = {BUF_INIT(1 << 20), BUF_INIT(1 << 20)}};
        e2b_events_init(&e, &(struct e2b_events_to){on_started, on_data, h});
        for (size_t at = 0; r == 0 && at < all->size; at += step)
                r = e2b_events_feed(&e, all->data + at,
                                    all->size - at < step ? all->size - at : step);
        e2b_events_end(&e, r, NULL, ret);
        e2b_events_done(&e);
        return r;
}

static void heard_done(struct heard *h)
{
        buf_done(&h->out[0]);
        buf_done(&h->out[1]);
}

static void events_of_a_program(void)
{
        struct buf all = BUF_INIT(1 << 20);
        struct stream_end end;
        struct heard h;

        add(&all, 0, "{\"event\":{\"start\":{\"pid\":10345}}}");
        add(&all, 0, "{\"event\":{\"data\":{\"stdout\":\"aGkK\"}}}");
        add(&all, 0, "{\"event\":{\"keepalive\":{}}}");
        add(&all, 0, "{\"event\":{\"data\":{\"stderr\":\"/wA=\"}}}");
        add(&all, 0, "{\"event\":{\"something new\":{}}}");
        add(&all, 0, "{\"event\":{\"end\":{\"exitCode\":3,\"exited\":true}}}");
        add(&all, 2, "{}");
        for (size_t step = 1; step < 64; step += 7) {
                CHECK_EQ(feed(&all, step, &h, &end), 0);
                CHECK_EQ(h.pid, 10345);
                CHECK_STR(buf_str(&h.out[0]), "hi\n");
                CHECK_EQ(h.out[1].size, 2);
                CHECK(end.error == 0 && end.has_code && end.code == 3);
                heard_done(&h);
        }
        buf_done(&all);
}

static void end_that_is_missing_is_no_success(void)
{
        struct buf all = BUF_INIT(1 << 20);
        struct stream_end end;
        struct heard h;

        add(&all, 0, "{\"event\":{\"start\":{\"pid\":1}}}");
        CHECK_EQ(feed(&all, 1000, &h, &end), 0);
        CHECK(end.error == -EHOSTUNREACH && !end.has_code);
        heard_done(&h);
        add(&all, 2, "{\"error\":{\"code\":\"unavailable\",\"message\":\"it was paused\"}}");
        CHECK_EQ(feed(&all, 1000, &h, &end), 0);
        CHECK_EQ(end.error, -EHOSTUNREACH);
        CHECK_STR(end.sentence, "it was paused");
        heard_done(&h);
        buf_done(&all);
}

static void hostile_events_end_the_stream(void)
{
        static const char *const bad[] = {
                "no json",
                "{\"event\":{\"start\":{\"pid\":-1}}}",
                "{\"event\":{\"start\":{\"pid\":1e99}}}",
                "{\"event\":{\"data\":{\"stdout\":\"aGkK\"}}}",
                "{\"event\":{\"end\":{\"exited\":true}}}",
                "{\"event\":{\"start\":{\"pid\":1}}}{}",
        };
        static const char *const bad_later[] = {
                "{\"event\":{\"start\":{\"pid\":2}}}",
                "{\"event\":{\"data\":{\"stdout\":\"%%%\"}}}",
                "{\"event\":{\"end\":{}}}",
        };
        struct stream_end end;
        struct heard h;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct buf all = BUF_INIT(1 << 20);

                add(&all, 0, bad[i]);
                CHECK_EQ(feed(&all, 5, &h, &end), -EPROTO);
                CHECK_EQ(end.error, -EPROTO);
                heard_done(&h);
                buf_done(&all);
        }
        for (size_t i = 0; i < sizeof(bad_later) / sizeof(bad_later[0]); i++) {
                struct buf all = BUF_INIT(1 << 20);

                add(&all, 0, "{\"event\":{\"start\":{\"pid\":1}}}");
                add(&all, 0, bad_later[i]);
                CHECK_EQ(feed(&all, 5, &h, &end), -EPROTO);
                heard_done(&h);
                buf_done(&all);
        }
}

/* ---- configuration ---- */

static void where_a_sandbox_is(void)
{
        struct e2b_config d = {.domain = TEXT("e2b.app")};
        char *url = NULL;

        CHECK_EQ(e2b_envd_url(&d, "iabc", NULL, &url), 0);
        CHECK_STR(url, "https://49983-iabc.e2b.app");
        free(url);
        CHECK_EQ(e2b_envd_url(&d, "iabc", "own.example", &url), 0);
        CHECK_STR(url, "https://49983-iabc.own.example");
        free(url);
        CHECK_EQ(e2b_envd_url(&d, "iabc", "evil/x", &url), -EPROTO);
        CHECK_EQ(e2b_envd_url(&d, "i.evil", NULL, &url), -EPROTO);
        d.sandbox_url = TEXT("http://localhost:1");
        CHECK_EQ(e2b_envd_url(&d, "iabc", "evil/x", &url), 0);
        CHECK_STR(url, "http://localhost:1");
        free(url);
}

static void configuration_is_checked(void)
{
        struct pair key = {TEXT("api_key"), TEXT("e2b_1")},
                    url[2] = {key, {TEXT("api_url"), TEXT("http://localhost:3/")}},
                    bad[2] = {key, {TEXT("domain"), TEXT("a b")}},
                    files[2] = {key, {TEXT("files"), TEXT("x")}};
        struct e2b_config d;
        struct call c;

        call_init(&c, NEVER_NS);
        /* NOLINTBEGIN(concurrency-mt-unsafe): one thread so far */
        CHECK_EQ(unsetenv("E2B_API_KEY") | unsetenv("E2B_API_URL") | unsetenv("E2B_DOMAIN"), 0);
        CHECK_EQ(unsetenv("E2B_SANDBOX_URL") | unsetenv("E2B_DEBUG"), 0);
        /* NOLINTEND(concurrency-mt-unsafe) */
        CHECK(!e2b_is_there());
        CHECK_EQ(e2b_config_read(NULL, 0, &c, &d), -EINVAL);
        CHECK(strstr(c.sentence, "E2B_API_KEY"));
        CHECK_EQ(e2b_config_read(bad, 2, &c, &d), -EINVAL);
        CHECK_EQ(e2b_config_read(files, 2, &c, &d), -EINVAL);
        CHECK_EQ(e2b_config_read(&key, 1, &c, &d), 0);
        CHECK_STR(d.api_url, "https://api.e2b.app");
        CHECK(!d.sandbox_url && !d.has_no_agent);
        e2b_config_done(&d);
        CHECK_EQ(e2b_config_read(url, 2, &c, &d), 0);
        CHECK_STR(d.api_url, "http://localhost:3");
        e2b_config_done(&d);
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
        CHECK_EQ(setenv("E2B_API_KEY", "e2b_2", 1) | setenv("E2B_DEBUG", "true", 1), 0);
        CHECK(e2b_is_there());
        CHECK_EQ(e2b_config_read(NULL, 0, &c, &d), 0);
        CHECK_STR(d.key, "e2b_2");
        CHECK_STR(d.api_url, "http://localhost:3000");
        CHECK_STR(d.sandbox_url, "http://localhost:49983");
        e2b_config_done(&d);
}

int main(void)
{
        RUN(every_word_has_its_state);
        RUN(description_takes_what_is_there);
        RUN(times_are_read);
        RUN(ids_and_versions);
        RUN(errors_by_code_and_by_words);
        RUN(gone_needs_the_api_s_own_word);
        RUN(ends_are_read);
        RUN(body_has_what_always_holds);
        RUN(body_has_the_settings);
        RUN(settings_are_refused);
        RUN(events_of_a_program);
        RUN(end_that_is_missing_is_no_success);
        RUN(hostile_events_end_the_stream);
        RUN(where_a_sandbox_is);
        RUN(configuration_is_checked);
        return check_result();
}
