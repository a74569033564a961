/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine is sent of a spec, and what is made of its answers. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/docker/body.h"
#include "providers/docker/config.h"
#include "providers/docker/docker.h"
#include "providers/docker/image.h"
#include "providers/docker/states.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/json.h"

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

static struct json *body(const struct spec *s, const struct image_facts *image)
{
        struct buf text = BUF_INIT(1 << 20);
        struct json *j = NULL;

        CHECK_EQ(body_of(s, image, false, &text), 0);
        CHECK_EQ(json_parse(buf_str(&text), text.size, &j, NULL), 0);
        buf_done(&text);
        return j;
}

static const struct json *at(const struct json *j, unsigned index)
{
        j = json_first(j);
        while (j && index-- > 0)
                j = json_next(j);
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
        const struct image_facts image = {.user = "app"};
        struct json *j = body(&s, &image);
        const struct json *host = json_get(j, "HostConfig"), *labels = json_get(j, "Labels"),
                          *words = json_get(j, "Entrypoint");
        bool flag = true;

        CHECK_STR(json_string(json_get(j, "Image")), "python:3.12");
        CHECK_STR(json_string(json_get(j, "Hostname")), "web");
        CHECK_STR(json_string(json_get(j, "User")), "0");
        CHECK_STR(json_string(json_get(j, "WorkingDir")), "/workspace");
        CHECK_STR(json_string(at(words, 0)), "/.sbxfs/init");
        CHECK_STR(json_string(at(words, 3)), "/workspace");
        CHECK_STR(json_string(at(words, 4)), "app");
        CHECK_STR(json_string(json_get(labels, "org.sbxfs.key")), "k1");
        CHECK_STR(json_string(json_get(labels, "org.sbxfs.owner")), "me");
        CHECK(json_bool(json_get(host, "Privileged"), &flag) && !flag);
        CHECK_STR(json_string(at(json_get(host, "SecurityOpt"), 0)), "no-new-privileges");
        CHECK(!json_get(host, "Memory") && !json_get(host, "NetworkMode") &&
              !json_get(host, "Mounts"));
        json_free(j);
}

static void body_has_what_was_asked_for(void)
{
        struct mount_spec mount = {
                .host = (char[]){"/h \"x"}, .inside = (char[]){"/in"}, .is_readonly = true};
        struct pair env = {(char[]){"A"}, (char[]){"b\n\"c"}},
                    label = {(char[]){"k"}, (char[]){"v"}};
        struct spec s = new_spec();
        struct image_facts image = {.workdir = "/app"};
        struct json *j;
        const struct json *host;

        s.text[SETTING_NET] = (char[]){"host"};
        s.text[SETTING_USER] = (char[]){"1:2"};
        s.text[SETTING_RUNTIME] = (char[]){"runsc"};
        s.memory = 1 << 30;
        s.cpu_milli = 1500;
        s.processes = 10;
        s.is_readonly = true;
        s.env = &env;
        s.labels = &label;
        s.mounts = &mount;
        s.env_count = s.label_count = s.mount_count = 1;
        j = body(&s, &image);
        host = json_get(j, "HostConfig");
        CHECK(!json_get(j, "Hostname")); /* the host's own */
        CHECK_STR(json_string(json_get(j, "WorkingDir")), "/app");
        CHECK_STR(json_string(at(json_get(j, "Env"), 0)), "A=b\n\"c");
        CHECK_STR(json_string(json_get(json_get(j, "Labels"), "k")), "v");
        CHECK_STR(json_string(json_get(json_get(j, "Labels"), "org.sbxfs.user")), "1:2");
        CHECK_EQ(number(host, "Memory"), 1 << 30);
        CHECK_EQ(number(host, "MemorySwap"), 1 << 30);
        CHECK_EQ(number(host, "NanoCpus"), 1500000000);
        CHECK_EQ(number(host, "PidsLimit"),
                 10 + 1 + 1 + 7 + 3); /* process 1, `join`, runc, agents */
        CHECK_STR(json_string(json_get(host, "NetworkMode")), "host");
        CHECK_STR(json_string(json_get(host, "Runtime")), "runsc");
        CHECK_STR(json_string(json_get(at(json_get(host, "Mounts"), 0), "Source")), "/h \"x");
        CHECK_STR(json_string(json_get(at(json_get(host, "Mounts"), 1), "Type")), "volume");
        json_free(j);
}

static void workdir_is_never_the_root(void)
{
        struct spec s = new_spec();
        struct image_facts image = {.workdir = "/"};

        CHECK_STR(body_workdir(&s, &image), "/workspace");
        (void)snprintf(image.workdir, sizeof(image.workdir), "relative");
        CHECK_STR(body_workdir(&s, &image), "/workspace");
        (void)snprintf(image.workdir, sizeof(image.workdir), "/srv");
        CHECK_STR(body_workdir(&s, &image), "/srv");
        (void)snprintf(image.workdir, sizeof(image.workdir), "/.sbxfs/x");
        CHECK_STR(body_workdir(&s, &image), "/workspace");
        s.text[SETTING_WORKDIR] = (char[]){"/mine"};
        CHECK_STR(body_workdir(&s, &image), "/mine");
}

static int check_text(enum setting x, const char *value, unsigned allow)
{
        _cleanup_(freep) char *copy = strdup(value);
        struct spec s = new_spec();
        struct call c;

        call_init(&c, UINT64_MAX);
        s.text[x] = copy;
        return body_check(&s, allow, &c);
}

static void settings_are_checked(void)
{
        CHECK_EQ(check_text(SETTING_IMAGE, "a/b:1@sha256:abc", 0), 0);
        CHECK_EQ(check_text(SETTING_IMAGE, "--rm", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_IMAGE, "a b", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_NET, "none", 0), 0);
        CHECK_EQ(check_text(SETTING_NET, "my-net_1.x", 0), 0);
        CHECK_EQ(check_text(SETTING_NET, "host", 0), -EPERM);
        CHECK_EQ(check_text(SETTING_NET, "host", ALLOW_NET), 0);
        CHECK_EQ(check_text(SETTING_NET, "container:x", ALLOW_NET), -EINVAL);
        CHECK_EQ(check_text(SETTING_RUNTIME, "runsc", 0), -EPERM);
        CHECK_EQ(check_text(SETTING_RUNTIME, "runsc", ALLOW_RUNTIME), 0);
        CHECK_EQ(check_text(SETTING_USER, "app:staff", 0), 0);
        CHECK_EQ(check_text(SETTING_USER, ":staff", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_WORKDIR, "/", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_WORKDIR, "/a/./b", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_WORKDIR, "/a/..", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_WORKDIR, "/a b", 0), 0);
        CHECK_EQ(check_text(SETTING_WORKDIR, "/.sbxfs", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_WORKDIR, "/.sbxfs/x", 0), -EINVAL);
        CHECK_EQ(check_text(SETTING_WORKDIR, "/.sbxfs-mine", 0), 0);
}

static void a_processor_has_its_least_part(void)
{
        struct spec s = new_spec();
        struct call c;

        call_init(&c, UINT64_MAX);
        s.cpu_milli = 9;
        CHECK_EQ(body_check(&s, 0, &c), -EINVAL);
        CHECK(strstr(c.sentence, "0.01") != NULL);
        s.cpu_milli = 10;
        CHECK_EQ(body_check(&s, 0, &c), 0);
}

/* ---- images ---- */

static void image_names_are_split(void)
{
        static const struct {
                const char *image, *name, *tag;
        } table[] = {{"python", "python", "latest"},
                     {"python:3.12", "python", "3.12"},
                     {"host:5000/a/b", "host:5000/a/b", "latest"},
                     {"host:5000/a/b:c", "host:5000/a/b", "c"},
                     {"a@sha256:00", "a", "sha256:00"},
                     {"a:", NULL, NULL},
                     {":a", NULL, NULL},
                     {"", NULL, NULL}};

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                char name[256], tag[256];
                bool is_name = image_split(table[i].image, name, tag, sizeof(name));

                CHECK_EQ(is_name, table[i].name != NULL);
                if (is_name && table[i].name) {
                        CHECK_STR(name, table[i].name);
                        CHECK_STR(tag, table[i].tag);
                }
        }
}

static void feed(struct pull *p, const char *line)
{
        pull_line(p, line, strlen(line));
}

static void a_pull_is_counted(void)
{
        struct pull p = {0};
        char phase[80];

        pull_phase(&p, "python:3.12", phase, sizeof(phase));
        CHECK_STR(phase, "pulling python:3.12");
        feed(&p, "{\"status\":\"Downloading\",\"id\":\"a\",\"progressDetail\":{\"current\":1048576,"
                 "\"total\":10485760}}");
        feed(&p, "{\"status\":\"Downloading\",\"id\":\"b\",\"progressDetail\":{\"current\":0,"
                 "\"total\":10485760}}");
        feed(&p, "{\"status\":\"Download complete\",\"id\":\"b\"}");
        feed(&p, "not json");
        feed(&p, "{\"status\":\"Downloading\",\"id\":\"c\",\"progressDetail\":{\"current\":9,"
                 "\"total\":-1}}");
        pull_phase(&p, "python:3.12", phase, sizeof(phase));
        CHECK_STR(phase, "pulling python:3.12: 11 of 20 MiB");
        CHECK_STR(p.error, "");
        feed(&p, "{\"errorDetail\":{},\"error\":\"no\\nroom\"}");
        CHECK_STR(p.error, "no\\x0aroom");
}

static void a_pull_of_many_layers_is_bounded(void)
{
        struct pull p = {0};

        for (unsigned i = 0; i < 3 * PULL_LAYERS_MAX; i++) {
                char line[160];

                (void)snprintf(line, sizeof(line),
                               "{\"status\":\"Downloading\",\"id\":\"l%u\",\"progressDetail\":{"
                               "\"current\":1,\"total\":2}}",
                               i);
                feed(&p, line);
        }
        CHECK_EQ(p.count, PULL_LAYERS_MAX);
}

/* ---- states ---- */

static void every_word_has_its_state(void)
{
        CHECK_EQ(docker_state("created"), BOX_STOPPED);
        CHECK_EQ(docker_state("running"), BOX_RUNNING);
        CHECK_EQ(docker_state("paused"), BOX_PAUSED);
        CHECK_EQ(docker_state("restarting"), BOX_STARTING);
        CHECK_EQ(docker_state("removing"), BOX_DESTROYING);
        CHECK_EQ(docker_state("exited"), BOX_STOPPED);
        CHECK_EQ(docker_state("dead"), BOX_ERROR);
        CHECK_EQ(docker_state("hibernating"), BOX_UNKNOWN);
        CHECK_EQ(docker_state(NULL), BOX_UNKNOWN);
}

static struct box_status describe(const char *text, bool has_oom)
{
        struct box_status status;
        struct json *j = NULL;

        CHECK_EQ(json_parse(text, strlen(text), &j, NULL), 0);
        docker_describe(j, has_oom, &status);
        json_free(j);
        return status;
}

static void ends_are_explained(void)
{
        struct box_status s;

        s = describe("{\"State\":{\"Status\":\"exited\",\"ExitCode\":0}}", false);
        CHECK_EQ(s.state, BOX_STOPPED);
        CHECK_STR(s.sentence, "");
        s = describe("{\"State\":{\"Status\":\"exited\",\"ExitCode\":137,\"OOMKilled\":true}}",
                     false);
        CHECK(strstr(s.sentence, "out of memory") != NULL);
        s = describe("{\"State\":{\"Status\":\"exited\",\"ExitCode\":137}}", false);
        CHECK(strstr(s.sentence, "signal 9") != NULL);
        /* The engine remembers it of a process that was killed long ago. */
        s = describe("{\"State\":{\"Status\":\"exited\",\"ExitCode\":0,\"OOMKilled\":true}}", true);
        CHECK_STR(s.sentence, "");
        s = describe("{\"State\":{\"Status\":\"running\",\"OOMKilled\":true}}", false);
        CHECK_STR(s.sentence, "");
        s = describe("{\"State\":{\"Status\":\"exited\",\"ExitCode\":3}}", false);
        CHECK(strstr(s.sentence, "exit 3") != NULL);
        s = describe("{\"State\":{\"Status\":\"running\"}}", true);
        CHECK_EQ(s.state, BOX_RUNNING);
        CHECK(strstr(s.sentence, "out of memory") != NULL);
        s = describe("{}", false);
        CHECK_EQ(s.state, BOX_UNKNOWN);
        CHECK_STR(s.raw, "");
}

static void limits_are_read(void)
{
        struct box_status s =
                describe("{\"State\":{\"Status\":\"running\"},\"Config\":{\"Image\":\"x\"},"
                         "\"HostConfig\":{\"NanoCpus\":2500000000,\"Memory\":1048576}}",
                         false);

        CHECK_EQ(s.cpu_milli, 2500);
        CHECK_EQ(s.memory, 1 << 20);
        CHECK_STR(s.image, "x");
        s = describe("{\"HostConfig\":{\"CpuQuota\":50000,\"CpuPeriod\":100000}}", false);
        CHECK_EQ(s.cpu_milli, 500);
        s = describe("{\"HostConfig\":{\"CpuQuota\":-1,\"Memory\":-5}}", false);
        CHECK_EQ(s.cpu_milli, 0);
        CHECK_EQ(s.memory, 0);
}

static void facts_tell_ours_from_others(void)
{
        static const char ours[] =
                "{\"Id\":\"abc\",\"Config\":{\"WorkingDir\":\"/w\",\"User\":\"0\","
                "\"Labels\":{\"org.sbxfs.key\":\"k\",\"org.sbxfs.owner\":\"me\","
                "\"org.sbxfs.workdir\":\"/mine\",\"org.sbxfs.user\":\"app\"}}}";
        static const char theirs[] = "{\"Id\":\"abc\",\"Config\":{\"WorkingDir\":\"/\","
                                     "\"User\":\"u\",\"Labels\":null}}";
        struct docker_facts *f = NULL;
        struct json *j = NULL;

        CHECK_EQ(json_parse(ours, strlen(ours), &j, NULL), 0);
        if (CHECK_EQ(facts_of(j, "me", &f), 0)) {
                CHECK(f->has_init);
                CHECK_STR(f->workdir, "/mine");
                CHECK_STR(f->user, "app");
                facts_free(f);
        }
        if (CHECK_EQ(facts_of(j, "other", &f), 0)) {
                CHECK(!f->has_init);
                facts_free(f);
        }
        json_free(j);
        CHECK_EQ(json_parse(theirs, strlen(theirs), &j, NULL), 0);
        if (CHECK_EQ(facts_of(j, "me", &f), 0)) {
                CHECK(!f->has_init);
                CHECK_STR(f->workdir, "/workspace");
                CHECK_STR(f->user, "u");
                facts_free(f);
        }
        json_free(j);
}

/* ---- the address ---- */

static int address(const char *host, const char *tls, struct docker_config *ret)
{
        struct pair pairs[2] = {{(char[]){"host"}, NULL}, {(char[]){"tls"}, NULL}};
        _cleanup_(freep) char *h = strdup(host), *t = strdup(tls);
        struct call c;

        call_init(&c, UINT64_MAX);
        pairs[0].value = h;
        pairs[1].value = t;
        *ret = (struct docker_config){0};
        return docker_config_read(pairs, 2, &c, ret);
}

static void addresses_are_read(void)
{
        struct docker_config d;

        CHECK_EQ(address("unix:///run/x.sock", "off", &d), 0);
        CHECK_STR(d.socket_path, "/run/x.sock");
        docker_config_done(&d);
        CHECK_EQ(address("tcp://127.0.0.1:2375", "off", &d), 0);
        CHECK_STR(d.url, "http://127.0.0.1:2375");
        docker_config_done(&d);
        CHECK_EQ(address("tcp://h", "on", &d), 0);
        CHECK_STR(d.url, "https://h:2376");
        docker_config_done(&d);
        CHECK_EQ(address("tcp://[::1]", "off", &d), 0);
        CHECK_STR(d.url, "http://[::1]:2375");
        docker_config_done(&d);
        CHECK_EQ(address("unix://relative", "off", &d), -EINVAL);
        CHECK_EQ(address("ssh://host", "off", &d), -EINVAL);
        CHECK_EQ(address("tcp://user@h", "off", &d), -EINVAL);
        CHECK_EQ(address("tcp://", "off", &d), -EINVAL);
        CHECK_EQ(address("tcp://h", "maybe", &d), -EINVAL);
}

/* What is meant for others stops nobody's mount: not -EINVAL. */
static void a_variable_of_no_use_is_named(void)
{
        static const char *const values[] = {"ssh://x@y", "unix://relative", "tcp://a@b"};
        struct docker_config d = {0};
        struct call c;

        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
                (void)setenv("DOCKER_HOST", values[i], 1); /* NOLINT(concurrency-mt-unsafe) */
                call_init(&c, UINT64_MAX);
                CHECK_EQ(docker_config_read(NULL, 0, &c, &d), -EHOSTUNREACH);
                CHECK(strncmp(c.sentence, "DOCKER_HOST = ", 14) == 0);
                CHECK(strstr(c.sentence, values[i]) || i == 2);
        }
        (void)unsetenv("DOCKER_HOST"); /* NOLINT(concurrency-mt-unsafe): one thread */
}

int main(void)
{
        /* NOLINTBEGIN(concurrency-mt-unsafe): one thread so far */
        (void)unsetenv("HOME");
        (void)unsetenv("DOCKER_CERT_PATH");
        (void)unsetenv("DOCKER_HOST");
        /* NOLINTEND(concurrency-mt-unsafe) */
        RUN(body_has_what_always_holds);
        RUN(body_has_what_was_asked_for);
        RUN(workdir_is_never_the_root);
        RUN(settings_are_checked);
        RUN(a_processor_has_its_least_part);
        RUN(image_names_are_split);
        RUN(a_pull_is_counted);
        RUN(a_pull_of_many_layers_is_bounded);
        RUN(every_word_has_its_state);
        RUN(ends_are_explained);
        RUN(limits_are_read);
        RUN(facts_tell_ours_from_others);
        RUN(addresses_are_read);
        RUN(a_variable_of_no_use_is_named);
        return check_result();
}
