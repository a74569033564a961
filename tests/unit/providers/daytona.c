/* SPDX-License-Identifier: Apache-2.0 */
/* What Daytona is sent of a spec, what is made of its answers, and frames of a carried program. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/daytona/body.h"
#include "providers/daytona/config.h"
#include "providers/daytona/states.h"
#include "providers/inside/carry.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"

/* Of what nobody writes to. */
#define TEXT(text) ((char *)(uintptr_t)(text))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

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
                {"creating", BOX_CREATING},
                {"pending_build", BOX_CREATING},
                {"building_snapshot", BOX_CREATING},
                {"pulling_snapshot", BOX_CREATING},
                {"restoring", BOX_STARTING},
                {"starting", BOX_STARTING},
                {"started", BOX_RUNNING},
                {"pausing", BOX_PAUSING},
                {"paused", BOX_PAUSED},
                {"resuming", BOX_RESUMING},
                {"stopping", BOX_STOPPING},
                {"stopped", BOX_STOPPED},
                {"archiving", BOX_STOPPED},
                {"archived", BOX_STOPPED},
                {"destroying", BOX_DESTROYING},
                {"destroyed", BOX_GONE},
                {"error", BOX_ERROR},
                {"build_failed", BOX_ERROR},
                {"unknown", BOX_UNKNOWN},
                {"something new", BOX_UNKNOWN},
                {"", BOX_UNKNOWN},
        };

        for (size_t i = 0; i < COUNT(table); i++)
                CHECK_EQ(daytona_state(table[i].word, BOX_RUNNING), table[i].state);
        CHECK_EQ(daytona_state(NULL, BOX_RUNNING), BOX_UNKNOWN);
}

static void change_of_both_keeps_what_was(void)
{
        static const char *const words[] = {"resizing", "snapshotting", "forking"};

        for (size_t i = 0; i < COUNT(words); i++) {
                CHECK_EQ(daytona_state(words[i], BOX_RUNNING), BOX_RUNNING);
                CHECK_EQ(daytona_state(words[i], BOX_STOPPED), BOX_STOPPED);
                CHECK_EQ(daytona_state(words[i], BOX_UNKNOWN), BOX_UNKNOWN);
                CHECK_EQ(daytona_state(words[i], BOX_GONE), BOX_UNKNOWN);
        }
}

static void description_takes_what_is_there(void)
{
        struct json *j = parse("{\"state\":\"started\",\"snapshot\":\"s:1\",\"cpu\":2,"
                               "\"memory\":4,\"disk\":8,\"sandboxClass\":\"linux-vm\"}");
        struct box_status s;

        daytona_describe(j, BOX_UNKNOWN, &s);
        CHECK_EQ(s.state, BOX_RUNNING);
        CHECK_STR(s.raw, "started");
        CHECK_STR(s.image, "s:1");
        CHECK_EQ(s.cpu_milli, 2000);
        CHECK_EQ(s.memory, UINT64_C(4) << 30);
        CHECK_EQ(s.disk, UINT64_C(8) << 30);
        CHECK_EQ(daytona_can_pause(j), DAYTONA_PAUSE_CAN);
        json_free(j);
        j = parse("{\"state\":\"error\",\"errorReason\":\"no room\",\"recoverable\":true,"
                  "\"cpu\":-1,\"memory\":1e30,\"disk\":\"x\",\"sandboxClass\":\"container\","
                  "\"buildInfo\":{\"dockerfileContent\":\"FROM debian:12\\n\"}}");
        daytona_describe(j, BOX_UNKNOWN, &s);
        CHECK_EQ(s.state, BOX_ERROR);
        CHECK_STR(s.sentence, "no room (start recovers it)");
        CHECK_STR(s.image, "debian:12");
        CHECK(s.cpu_milli == 0 && s.memory == 0 && s.disk == 0);
        CHECK_EQ(daytona_can_pause(j), DAYTONA_PAUSE_CAN_NOT);
        json_free(j);
        j = parse("{\"state\":\"started\",\"sandboxClass\":\"of the future\"}");
        CHECK_EQ(daytona_can_pause(j), DAYTONA_PAUSE_UNKNOWN);
        json_free(j);
        j = parse("[1]");
        CHECK_EQ(daytona_can_pause(j), DAYTONA_PAUSE_UNKNOWN);
        daytona_describe(j, BOX_RUNNING, &s);
        CHECK_EQ(s.state, BOX_UNKNOWN);
        CHECK_STR(daytona_label(j, LABEL_KEY), "");
        json_free(j);
}

static void ids(void)
{
        CHECK(daytona_is_id("6f1c2d3e-1111-4222-8333-444455556666"));
        CHECK(!daytona_is_id("") && !daytona_is_id("-x") && !daytona_is_id("a/b"));
        CHECK(!daytona_is_id("../x") && !daytona_is_id("a b") && !daytona_is_id("a.b"));
}

/* ---- errors ---- */

static void errors_by_status_and_by_words(void)
{
        CHECK_EQ(daytona_error(400, -EINVAL, "Total CPU limit exceeded. Maximum allowed: 3."),
                 -EDQUOT);
        CHECK_EQ(daytona_error(400, -EINVAL, "Sandbox limit reached"), -EDQUOT);
        CHECK_EQ(daytona_error(400, -EINVAL, "No space left on device: limit"), -ENOSPC);
        CHECK_EQ(daytona_error(400, -EINVAL, "Sandbox is not started"), -EBUSY);
        CHECK_EQ(daytona_error(400, -EINVAL, "mkdir /x: permission denied"), -EACCES);
        CHECK_EQ(daytona_error(400, -EINVAL, "open /x: no space left on device"), -ENOSPC);
        CHECK_EQ(daytona_error(400, -EINVAL, "Snapshot x not found"), -EINVAL);
        CHECK_EQ(daytona_error(422, -EINVAL, "Pause is not supported"), -EOPNOTSUPP);
        CHECK_EQ(daytona_error(404, -ENOENT, "quota"), -ENOENT);
}

static void sentence_of(const char *body, const char *wanted)
{
        char text[600];

        daytona_sentence(body, strlen(body), text, sizeof(text));
        CHECK_STR(text, wanted);
}

static void sentences(void)
{
        sentence_of("{\"statusCode\":404,\"error\":\"Not Found\",\"message\":\"none\"}", "none");
        sentence_of("{\"error\":\"no such terminal\"}", "no such terminal");
        sentence_of("{\"errors\":[\"/x: create\",\"y\"],\"files\":null}", "/x: create");
        sentence_of("<html>", "");
        sentence_of("", "");
        sentence_of("[]", "");
}

static void who_says_404(void)
{
        static const struct {
                const char *body;
                bool is_gone, is_no_call, is_not_there_yet;
        } cases[] = {
                {"{\"statusCode\":404,\"message\":\"Sandbox with ID or name x not found\"}", true,
                 false, false},
                {"{\"message\":\"Cannot GET /api/sandbox/x\",\"statusCode\":404}", false, true,
                 false},
                {"404 page not found", false, true, false},
                {"{\"code\":\"NOT_FOUND\",\"message\":\"sandbox container not found: x\"}", true,
                 false, true},
                {"<html>404</html>", false, false, false},
                {"", false, false, false},
        };

        for (size_t i = 0; i < COUNT(cases); i++) {
                size_t size = strlen(cases[i].body);

                CHECK_EQ(daytona_is_gone(404, cases[i].body, size), cases[i].is_gone);
                CHECK_EQ(daytona_is_no_call(404, cases[i].body, size), cases[i].is_no_call);
                CHECK_EQ(daytona_is_not_there_yet(404, cases[i].body, size),
                         cases[i].is_not_there_yet);
                CHECK(!daytona_is_gone(502, cases[i].body, size));
        }
        CHECK(daytona_is_not_there_yet(502, "", 0));
        CHECK(daytona_is_not_there_yet(400, "{\"message\":\"failed to get runner info\"}", 39));
        CHECK(!daytona_is_not_there_yet(400, "{\"message\":\"command is required\"}", 33));
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

static struct json *body(const struct spec *s, const char *target)
{
        struct buf text = BUF_INIT(1 << 20);
        struct json *j;

        CHECK_EQ(daytona_create_body(s, target, &text), 0);
        j = parse(buf_str(&text));
        buf_wipe(&text);
        return j;
}

static int64_t number(const struct json *j, const char *key)
{
        int64_t value = -7;

        return json_integer(json_get(j, key), &value) ? value : -7;
}

static const char *text(const struct json *j, const char *key)
{
        const char *found = json_string(json_get(j, key));

        return found ? found : "none";
}

static void body_has_what_always_holds(void)
{
        struct spec s = new_spec();
        struct json *j = body(&s, NULL);

        CHECK_STR(text(j, "name"), "sbxfs-k1");
        CHECK_STR(daytona_label(j, LABEL_KEY), "k1");
        CHECK_STR(daytona_label(j, LABEL_NAME), "web");
        CHECK_STR(daytona_label(j, LABEL_OWNER), "me");
        CHECK_EQ(number(j, "autoStopInterval"), 60);
        CHECK_EQ(number(j, "autoDeleteInterval"), -1);
        CHECK(!json_get(j, "snapshot") && !json_get(j, "buildInfo") && !json_get(j, "target"));
        CHECK(!json_get(j, "cpu") && !json_get(j, "env") && !json_get(j, "networkBlockAll"));
        json_free(j);
}

static void body_has_the_settings(void)
{
        struct pair env[] = {{TEXT("A"), TEXT("it's \"x\"\n")}},
                    labels[] = {{TEXT("team"), TEXT("y z")}};
        struct spec s = new_spec();
        struct json *j;

        s.text[SETTING_IMAGE] = TEXT("reg.example:5000/a/b@sha256:00");
        s.text[SETTING_WORKDIR] = TEXT("/srv");
        s.text[SETTING_USER] = TEXT("app");
        s.text[SETTING_NET] = TEXT("none");
        s.timeout_ns = 90 * NS_PER_S + 1;
        s.cpu_milli = 1001;
        s.memory = (UINT64_C(4) << 30) + 1;
        s.disk = UINT64_C(8) << 30;
        s.env = env;
        s.labels = labels;
        s.env_count = s.label_count = 1;
        j = body(&s, "eu");
        CHECK_STR(text(json_get(j, "buildInfo"), "dockerfileContent"),
                  "FROM reg.example:5000/a/b@sha256:00\n");
        CHECK_EQ(number(j, "cpu"), 2);
        CHECK_EQ(number(j, "memory"), 5);
        CHECK_EQ(number(j, "disk"), 8);
        CHECK_EQ(number(j, "autoStopInterval"), 2);
        CHECK_STR(text(j, "target"), "eu");
        CHECK_STR(text(j, "user"), "app");
        CHECK_STR(text(json_get(j, "env"), "A"), "it's \"x\"\n");
        CHECK_STR(daytona_label(j, "team"), "y z");
        CHECK_STR(daytona_label(j, LABEL_WORKDIR), "/srv");
        json_free(j);
}

static void snapshot_that_was_named_goes_before_a_default_image(void)
{
        struct spec s = new_spec();
        struct json *j;

        s.text[SETTING_IMAGE] = TEXT("default");
        s.text[SETTING_SNAPSHOT] = TEXT("team/snap:2");
        s.given = SETTING_BIT(SETTING_SNAPSHOT);
        j = body(&s, NULL);
        CHECK_STR(text(j, "snapshot"), "team/snap:2");
        CHECK(!json_get(j, "buildInfo"));
        json_free(j);
        s.given = SETTING_BIT(SETTING_IMAGE);
        j = body(&s, NULL);
        CHECK(json_get(j, "buildInfo") && !json_get(j, "snapshot"));
        json_free(j);
}

static void networks_and_domains_are_told_apart(void)
{
        struct spec s = new_spec();
        struct json *j;

        s.text[SETTING_NET] = TEXT("allow:a.example,10.0.0.0/8,,*.b.example,1.2.3.4,fe80::/10");
        j = body(&s, NULL);
        CHECK_STR(text(j, "networkAllowList"), "10.0.0.0/8,1.2.3.4/32,fe80::/10");
        CHECK_STR(text(j, "domainAllowList"), "a.example,*.b.example");
        json_free(j);
        s.text[SETTING_NET] = TEXT("allow:a.example");
        j = body(&s, NULL);
        CHECK_STR(text(j, "networkAllowList"), "none");
        json_free(j);
}

static int checked(struct spec *s, const char *words)
{
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = daytona_check(s, &c);
        if (words)
                CHECK(strstr(c.sentence, words));
        return r;
}

static void settings_are_refused(void)
{
        static const struct {
                enum setting setting;
                const char *value, *words;
                int error;
        } bad[] = {
                {SETTING_WORKDIR, "/", "workdir", -EINVAL},
                {SETTING_WORKDIR, "/a/../b", "workdir", -EINVAL},
                {SETTING_USER, "a b", "user", -EINVAL},
                {SETTING_IMAGE, "a b", "image", -EINVAL},
                {SETTING_IMAGE, "a\nRUN b", "image", -EINVAL},
                {SETTING_IMAGE, "--platform=x", "image", -EINVAL},
                {SETTING_SNAPSHOT, "-x", "snapshot", -EINVAL},
                {SETTING_NET, "host", "net", -EINVAL},
                {SETTING_NET, "allow:", "net", -EINVAL},
                {SETTING_NET, "allow:a b", "net", -EINVAL},
                {SETTING_NET, "deny:10.0.0.0/8", "deny", -EOPNOTSUPP},
        };
        struct pair label = {TEXT("sbxfs-owner"), TEXT("x")};
        struct spec s;

        for (size_t i = 0; i < COUNT(bad); i++) {
                s = new_spec();
                s.text[bad[i].setting] = TEXT(bad[i].value);
                CHECK_EQ(checked(&s, bad[i].words), bad[i].error);
        }
        s = new_spec();
        s.labels = &label;
        s.label_count = 1;
        CHECK_EQ(checked(&s, "ours"), -EINVAL);
        s.label_count = 0;
        CHECK_EQ(checked(&s, NULL), 0);
        s.cpu_milli = 500;
        CHECK_EQ(checked(&s, "image="), -EOPNOTSUPP);
        s.text[SETTING_IMAGE] = TEXT("debian:12");
        CHECK_EQ(checked(&s, NULL), 0);
        s.memory = UINT64_MAX;
        CHECK_EQ(checked(&s, "memory"), -EINVAL);
        s.memory = 0;
        s.text[SETTING_SNAPSHOT] = TEXT("snap");
        s.given = SETTING_BIT(SETTING_SNAPSHOT) | SETTING_BIT(SETTING_IMAGE);
        CHECK_EQ(checked(&s, "one of them"), -EINVAL);
}

/* ---- configuration ---- */

static void clear_environment(void)
{
        static const char *const names[] = {"DAYTONA_API_KEY",         "DAYTONA_JWT_TOKEN",
                                            "DAYTONA_ORGANIZATION_ID", "DAYTONA_API_URL",
                                            "DAYTONA_SERVER_URL",      "DAYTONA_TARGET"};

        for (size_t i = 0; i < COUNT(names); i++)
                CHECK_EQ(unsetenv(names[i]), 0); /* NOLINT(concurrency-mt-unsafe): one thread */
}

static void configuration_is_checked(void)
{
        struct pair key = {TEXT("api_key"), TEXT("dtn_1")},
                    url[2] = {key, {TEXT("api_url"), TEXT("http://localhost:3/api/")}},
                    bad[2] = {key, {TEXT("target"), TEXT("a b")}},
                    blank = {TEXT("api_key"), TEXT("a b")},
                    jwt[2] = {{TEXT("jwt_token"), TEXT("x.y.z")},
                              {TEXT("organization_id"), TEXT("6f-1")}};
        struct daytona_config d;
        struct call c;

        call_init(&c, NEVER_NS);
        clear_environment();
        CHECK(!daytona_is_there());
        CHECK_EQ(daytona_config_read(NULL, 0, &c, &d), -EINVAL);
        CHECK(strstr(c.sentence, "DAYTONA_API_KEY"));
        CHECK_EQ(daytona_config_read(bad, 2, &c, &d), -EINVAL);
        CHECK_EQ(daytona_config_read(&blank, 1, &c, &d), -EINVAL);
        CHECK_EQ(daytona_config_read(jwt, 1, &c, &d), -EINVAL);
        CHECK_EQ(daytona_config_read(jwt, 2, &c, &d), 0);
        CHECK_STR(d.bearer, "Bearer x.y.z");
        CHECK_STR(d.organization, "6f-1");
        daytona_config_done(&d);
        CHECK_EQ(daytona_config_read(url, 2, &c, &d), 0);
        CHECK_STR(d.bearer, "Bearer dtn_1");
        CHECK_STR(d.api_url, "http://localhost:3/api");
        CHECK(!d.organization && !d.target && !d.has_no_agent);
        daytona_config_done(&d);
}

static void variables_are_the_vendor_s(void)
{
        struct daytona_config d;
        struct call c;

        call_init(&c, NEVER_NS);
        clear_environment();
        /* NOLINTBEGIN(concurrency-mt-unsafe): one thread */
        CHECK_EQ(setenv("DAYTONA_API_KEY", "dtn_2", 1) | setenv("DAYTONA_TARGET", "us", 1), 0);
        CHECK(daytona_is_there());
        CHECK_EQ(daytona_config_read(NULL, 0, &c, &d), 0);
        CHECK_STR(d.api_url, "https://app.daytona.io/api");
        CHECK_STR(d.target, "us");
        daytona_config_done(&d);
        CHECK_EQ(setenv("DAYTONA_SERVER_URL", "http://old/api", 1), 0);
        CHECK_EQ(daytona_config_read(NULL, 0, &c, &d), 0);
        CHECK_STR(d.api_url, "http://old/api");
        daytona_config_done(&d);
        CHECK_EQ(setenv("DAYTONA_API_URL", "http://new/api", 1), 0);
        /* NOLINTEND(concurrency-mt-unsafe) */
        CHECK_EQ(daytona_config_read(NULL, 0, &c, &d), 0);
        CHECK_STR(d.api_url, "http://new/api");
        daytona_config_done(&d);
        clear_environment();
}

/* ---- frames of a carried program ---- */

static void frames_go_there_and_back(void)
{
        static const char *const argv[] = {"sh", "-c", "echo $1", "", NULL};
        static char data[CARRY_PART + 1];
        struct buf all = BUF_INIT(1 << 20);
        struct carry_frame f;
        size_t used = 0;

        CHECK_EQ(carry_add_argv(&all, argv), 0);
        CHECK_EQ(carry_parse(all.data, all.size, true, &f, &used), 1);
        CHECK_EQ(used, all.size);
        CHECK(f.type == CARRY_ARGV && f.size == 15 && memcmp(f.data, "sh\0-c\0echo $1\0", 15) == 0);
        for (size_t size = 0; size < all.size; size++)
                CHECK_EQ(carry_parse(all.data, size, true, &f, &used), 0);
        CHECK_EQ(carry_parse(all.data, all.size, false, &f, &used), -EPROTO);
        buf_clear(&all);
        CHECK_EQ(carry_add_all(&all, CARRY_INPUT, data, sizeof(data)), 0);
        CHECK_EQ(all.size, 2 * CARRY_HEADER + sizeof(data));
        CHECK_EQ(carry_parse(all.data, all.size, true, &f, &used), 1);
        CHECK_EQ(f.size, CARRY_PART);
        buf_clear(&all);
        CHECK_EQ(carry_add_credit(&all, 0x01020304), 0);
        CHECK_EQ(carry_parse(all.data, all.size, true, &f, &used), 1);
        CHECK_EQ(carry_credit(&f), 0x01020304);
        buf_done(&all);
}

static void frames_that_are_none(void)
{
        static const struct {
                const char *bytes;
                size_t size;
                bool is_to_it;
        } bad[] = {
                {"?", 1, false},
                {"O\0\0\0\0", 5, false}, /* of nothing */
                {"O\0\1\0\0", 5, false}, /* too long */
                {"O\377\377\377\377", 5, false},
                {"X\0\0\0\1", 5, false},
                {"I\0\0\0\1", 5, false}, /* the other way */
                {"C\0\0\0\5", 5, true},
                {"F\0\0\0\1", 5, true},
                {"A\0\0\0\2ab", 7, true}, /* a word without its end */
        };
        struct carry_frame f;
        size_t used;

        for (size_t i = 0; i < COUNT(bad); i++)
                CHECK_EQ(carry_parse(bad[i].bytes, bad[i].size, bad[i].is_to_it, &f, &used),
                         -EPROTO);
}

int main(void)
{
        RUN(every_word_has_its_state);
        RUN(change_of_both_keeps_what_was);
        RUN(description_takes_what_is_there);
        RUN(ids);
        RUN(errors_by_status_and_by_words);
        RUN(sentences);
        RUN(who_says_404);
        RUN(body_has_what_always_holds);
        RUN(body_has_the_settings);
        RUN(snapshot_that_was_named_goes_before_a_default_image);
        RUN(networks_and_domains_are_told_apart);
        RUN(settings_are_refused);
        RUN(configuration_is_checked);
        RUN(variables_are_the_vendor_s);
        RUN(frames_go_there_and_back);
        RUN(frames_that_are_none);
        return check_result();
}
