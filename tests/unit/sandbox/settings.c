/* SPDX-License-Identifier: Apache-2.0 */
/* Each setting's values, what is refused and how it is said. */

#include "fs/sandbox/settings.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct call c;

static int add(struct spec *s, const char *key, const char *value)
{
        call_init(&c, NEVER_NS);
        return settings_add(s, key, value, &c);
}

/* The number that one setting alone gives; -errno. */
static long long number(const char *key, const char *value)
{
        struct spec s;
        long long n;
        int r;

        spec_init(&s);
        r = add(&s, key, value);
        n = r < 0                           ? r
            : strcmp(key, "cpu") == 0       ? (long long)s.cpu_milli
            : strcmp(key, "memory") == 0    ? (long long)s.memory
            : strcmp(key, "disk") == 0      ? (long long)s.disk
            : strcmp(key, "processes") == 0 ? (long long)s.processes
            : strcmp(key, "timeout") == 0   ? (long long)s.timeout_ns
            : strcmp(key, "readonly") == 0  ? (long long)s.is_readonly
                                            : (long long)s.create_timeout_ns;
        if (r == 0)
                CHECK(s.given != 0 && (s.given & (s.given - 1)) == 0);
        else
                CHECK(s.given == 0 && c.sentence[0]);
        spec_done(&s);
        return n;
}

static void numbers_have_units(void)
{
        static const struct {
                const char *key, *value;
                long long expected;
        } rows[] = {
                {"cpu", "2", 2000},
                {"cpu", "0.5", 500},
                {"cpu", "500m", 500},
                {"cpu", "0", -EINVAL},
                {"cpu", "-1", -EINVAL},
                {"cpu", "two", -EINVAL},
                {"memory", "512M", 512 * MIB},
                {"memory", "4G", 4 * GIB},
                {"memory", "4GiB", 4 * GIB},
                {"memory", "4g", 4 * GIB},
                {"memory", "1048576", MIB},
                {"memory", "0", -EINVAL},
                {"memory", "1X", -EINVAL},
                {"memory", "", -EINVAL},
                {"memory", "99999999999T", -EINVAL},
                {"disk", "1.5G", 3 * GIB / 2},
                {"processes", "100", 100},
                {"processes", "0", -EINVAL},
                {"processes", "4294967296", -EINVAL},
                {"processes", "1k", -EINVAL},
                {"timeout", "90s", 90 * NS_PER_S},
                {"timeout", "1h30m", 5400 * NS_PER_S},
                {"timeout", "30", 30 * NS_PER_S},
                {"timeout", "none", 0},
                {"timeout", "0", 0},
                {"timeout", "soon", -EINVAL},
                {"timeout", "200000000h", -EINVAL},
                {"create_timeout", "5m", 300 * NS_PER_S},
                {"create_timeout", "0", -EINVAL},
                {"create_timeout", "none", -EINVAL},
                {"readonly", "on", 1},
                {"readonly", "yes", 1},
                {"readonly", "true", 1},
                {"readonly", "1", 1},
                {"readonly", "off", 0},
                {"readonly", "no", 0},
                {"readonly", "false", 0},
                {"readonly", "0", 0},
                {"readonly", "ON", -EINVAL},
                {"readonly", "", -EINVAL},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (!CHECK_EQ(number(rows[i].key, rows[i].value), rows[i].expected))
                        (void)fprintf(stderr, "    for: %s=%s\n", rows[i].key, rows[i].value);
}

static int one(const char *key, const char *value)
{
        struct spec s;
        int r;

        spec_init(&s);
        r = add(&s, key, value);
        spec_done(&s);
        return r;
}

static void words_are_words(void)
{
        static const enum setting words[] = {
                SETTING_IMAGE,    SETTING_TEMPLATE,    SETTING_SNAPSHOT,  SETTING_NET,
                SETTING_USER,     SETTING_RUNTIME,     SETTING_ISOLATION, SETTING_HOST,
                SETTING_IDENTITY, SETTING_KNOWN_HOSTS, SETTING_HOSTKEY,   SETTING_JUMP,
                SETTING_ROOT,     SETTING_BASE,        SETTING_TRANSPORT};
        char long_word[1026];

        memset(long_word, 'x', sizeof(long_word) - 1);
        long_word[sizeof(long_word) - 1] = '\0';
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                const char *key = setting_name(words[i]);
                struct spec s;

                spec_init(&s);
                CHECK_EQ(add(&s, key, "one"), 0);
                CHECK_EQ(add(&s, key, "python:3.12"), 0);
                CHECK_STR(s.text[words[i]], "python:3.12");
                CHECK_EQ(s.given, SETTING_BIT(words[i]));
                spec_done(&s);
                CHECK_EQ(one(key, ""), -EINVAL);
                CHECK_EQ(one(key, "-oProxyCommand=x"), -EINVAL); /* no option in disguise */
                CHECK_EQ(one(key, "a\nb"), -EINVAL);
                CHECK_EQ(one(key, "a\177"), -EINVAL);
                CHECK_EQ(one(key, long_word), -EINVAL);
                long_word[1024] = '\0';
                CHECK_EQ(one(key, long_word), 0);
                long_word[1024] = 'x';
        }
        CHECK_EQ(one("port", "22"), 0);
        CHECK_EQ(one("port", "0"), -EINVAL);
        CHECK_EQ(one("port", "65536"), -EINVAL);
        CHECK_EQ(one("port", "ssh"), -EINVAL);
}

static void paths_are_absolute(void)
{
        CHECK_EQ(one("workdir", "/home/me"), 0);
        CHECK_EQ(one("workdir", "/a/..b/c"), 0);
        CHECK_EQ(one("workdir", "home"), -EINVAL);
        CHECK_EQ(one("workdir", "/"), -EINVAL);
        CHECK_EQ(one("workdir", "/./"), -EINVAL);
        CHECK_EQ(one("workdir", "/a/../b"), -EINVAL);
        CHECK_EQ(one("workdir", "/a/.."), -EINVAL);
        CHECK_EQ(one("workdir", ""), -EINVAL);
}

static void unknown_ones_are_refused_with_the_nearest(void)
{
        CHECK_EQ(one("memroy", "1G"), -EINVAL);
        CHECK_STR(c.sentence, "unknown setting \"memroy\"; did you mean \"memory\"?");
        CHECK_EQ(one("colour", "blue"), -EINVAL);
        CHECK_STR(c.sentence, "unknown setting \"colour\"");
        CHECK_EQ(one("env", "x"), -EINVAL);
        CHECK_STR(c.sentence, "\"env\" needs a name behind it: env.NAME=VALUE");
        CHECK_EQ(one("provider", "x"), -EINVAL);
        CHECK_EQ(one("", "x"), -EINVAL);
        CHECK_EQ(one("memory.x", "1G"), -EINVAL);
        CHECK(settings_is_key("env.A") && settings_is_key("cpu") && settings_is_key("mount.1"));
        CHECK(!settings_is_key("env") && !settings_is_key("cpus") && !settings_is_key("kind"));
}

static void families_have_names(void)
{
        struct spec s;

        spec_init(&s);
        CHECK_EQ(add(&s, "env.A", "1"), 0);
        CHECK_EQ(add(&s, "env._b2", ""), 0);
        CHECK_EQ(add(&s, "env.A", "2"), 0);
        CHECK_EQ(s.env_count, 2);
        CHECK_STR(s.env[0].value, "2");
        CHECK_EQ(add(&s, "env.2", "x"), -EINVAL);
        CHECK_EQ(add(&s, "env.A-B", "x"), -EINVAL);
        CHECK_EQ(add(&s, "env.", "x"), -EINVAL);
        CHECK_EQ(add(&s, "label.team/a.b-c", "x y"), 0);
        CHECK_EQ(add(&s, "label.t e", "x"), -EINVAL);
        CHECK_EQ(add(&s, "label.t", "x\ty"), -EINVAL);
        CHECK_EQ(s.label_count, 1);
        CHECK_EQ(add(&s, "mount.0", "/srv/a b:/data"), 0);
        CHECK_EQ(add(&s, "mount.1", "/srv:/other:ro"), 0);
        CHECK_EQ(add(&s, "mount.2", "/elsewhere:/other"), 0); /* the same place: the last counts */
        CHECK_EQ(s.mount_count, 2);
        CHECK_STR(s.mounts[0].host, "/srv/a b");
        CHECK(!s.mounts[0].is_readonly);
        CHECK_STR(s.mounts[1].host, "/elsewhere");
        CHECK_STR(s.mounts[1].inside, "/other");
        CHECK(!s.mounts[1].is_readonly);
        CHECK_EQ(add(&s, "mount.3", "/srv"), -EINVAL);
        CHECK_EQ(add(&s, "mount.3", "srv:/x"), -EINVAL);
        CHECK_EQ(add(&s, "mount.3", "/srv:x"), -EINVAL);
        CHECK_EQ(add(&s, "mount.3", "/:/x"), -EINVAL);
        CHECK_EQ(add(&s, "mount.3", "/srv:/"), -EINVAL);
        CHECK_EQ(add(&s, "mount.3", "/srv/../etc:/x"), -EINVAL);
        CHECK_EQ(add(&s, "mount.x", "/srv:/x"), -EINVAL);
        CHECK_EQ(add(&s, "mount.1000", "/srv:/x"), -EINVAL);
        CHECK_EQ(s.mount_count, 2);
        CHECK_EQ(s.given, SETTING_BIT(SETTING_ENV) | SETTING_BIT(SETTING_LABEL) |
                                  SETTING_BIT(SETTING_MOUNT));
        spec_done(&s);
}

static void there_are_not_too_many(void)
{
        struct spec s;
        char key[32];
        int r = 0;

        spec_init(&s);
        for (int i = 0; i < 1024 && r == 0; i++) {
                (void)snprintf(key, sizeof(key), "env.A%d", i);
                r = add(&s, key, "x");
        }
        CHECK_EQ(r, 0);
        CHECK_EQ(add(&s, "env.B", "x"), -EINVAL);
        CHECK_STR(c.sentence, "more than 1024 settings env.");
        CHECK_EQ(add(&s, "env.A7", "y"), 0); /* no more than before */
        CHECK_EQ(add(&s, "label.a", "x"), 0); /* each family by itself */
        spec_done(&s);
}

static void a_copy_is_deep(void)
{
        struct spec s, copy;

        spec_init(&s);
        (void)add(&s, "image", "debian");
        (void)add(&s, "env.A", "1");
        (void)add(&s, "label.a", "b");
        (void)add(&s, "mount.0", "/srv:/data:ro");
        (void)add(&s, "memory", "1G");
        CHECK_EQ(spec_copy(&s, &copy), 0);
        spec_done(&s);
        CHECK_STR(copy.text[SETTING_IMAGE], "debian");
        CHECK_STR(copy.env[0].value, "1");
        CHECK_STR(copy.labels[0].key, "a");
        CHECK_STR(copy.mounts[0].inside, "/data");
        CHECK(copy.mounts[0].is_readonly);
        CHECK_EQ(copy.memory, GIB);
        spec_done(&copy);
        spec_init(&s);
        CHECK_EQ(spec_copy(&s, &copy), 0);
        CHECK(!copy.env && !copy.mounts);
        spec_done(&copy);
}

static unsigned needs(const char *key, const char *value)
{
        struct spec s;
        unsigned bits;

        spec_init(&s);
        CHECK_EQ(add(&s, key, value), 0);
        bits = settings_needs(&s);
        CHECK_EQ(settings_check_allowed(&s, bits, &c), 0);
        if (bits)
                CHECK_EQ(settings_check_allowed(&s, ~bits, &c), -EPERM);
        spec_done(&s);
        return bits;
}

static void some_must_be_allowed(void)
{
        CHECK_EQ(needs("isolation", "none"), ALLOW_ISOLATION);
        CHECK_STR(c.sentence, "isolation=none is not allowed here: the operator allows it with -o "
                              "allow=isolation");
        CHECK_EQ(needs("isolation", "gvisor"), 0);
        CHECK_EQ(needs("net", "host"), ALLOW_NET);
        CHECK_EQ(needs("net", "none"), 0);
        CHECK_EQ(needs("mount.0", "/srv:/x"), ALLOW_MOUNT);
        CHECK_EQ(needs("runtime", "runsc"), ALLOW_RUNTIME);
        CHECK_EQ(needs("host", "h"), ALLOW_SSH);
        CHECK_EQ(needs("port", "22"), ALLOW_SSH);
        CHECK_EQ(needs("identity", "/k"), ALLOW_SSH);
        CHECK_EQ(needs("known_hosts", "/k"), ALLOW_SSH);
        CHECK_EQ(needs("hostkey", "k"), ALLOW_SSH);
        CHECK_EQ(needs("jump", "h"), ALLOW_SSH);
        CHECK_EQ(needs("root", "/r"), ALLOW_SSH);
        CHECK_EQ(needs("image", "x"), 0);
        CHECK_EQ(needs("env.A", "x"), 0);
}

static void allow_words_are_parsed(void)
{
        unsigned bits = 77;

        CHECK_EQ(allow_parse("net", &bits, &c), 0);
        CHECK_EQ(bits, ALLOW_NET);
        CHECK_EQ(allow_parse("isolation:net,mount:runtime:ssh", &bits, &c), 0);
        CHECK_EQ(bits, ALLOW_ISOLATION | ALLOW_NET | ALLOW_MOUNT | ALLOW_RUNTIME | ALLOW_SSH);
        CHECK_EQ(allow_parse("", &bits, &c), 0);
        CHECK_EQ(bits, 0);
        CHECK_EQ(allow_parse(":net::", &bits, &c), 0);
        CHECK_EQ(bits, ALLOW_NET);
        CHECK_EQ(allow_parse("net:mout", &bits, &c), -EINVAL);
        CHECK_STR(c.sentence, "\"mout\" can't be allowed; did you mean \"mount\"?");
        CHECK_EQ(bits, ALLOW_NET); /* untouched */
        CHECK_EQ(allow_parse("everything-that-there-is-and-some-more-of-it-so-that-it-is-too-long",
                             &bits, &c),
                 -EINVAL);
        CHECK_EQ(allow_parse("NET", &bits, &c), -EINVAL);
}

static void pairs_replace_and_go(void)
{
        struct pair *pairs = NULL;
        size_t count = 0;

        CHECK_EQ(pairs_set(&pairs, &count, "a", "1"), 0);
        CHECK_EQ(pairs_set(&pairs, &count, "b", "2"), 0);
        CHECK_EQ(pairs_set(&pairs, &count, "c", "3"), 0);
        CHECK_EQ(pairs_set(&pairs, &count, "b", "4"), 0);
        CHECK_EQ(count, 3);
        pairs_remove(pairs, &count, "x");
        pairs_remove(pairs, &count, "a");
        CHECK_EQ(count, 2);
        CHECK_STR(pairs[0].key, "b");
        CHECK_STR(pairs[0].value, "4");
        CHECK_STR(pairs[1].key, "c");
        pairs_free(pairs, count);
        pairs_free(NULL, 0);
}

static int check_provider(struct provider *p, struct call *call, const struct spec *spec)
{
        (void)p;
        return spec->memory > GIB ? call_fail(call, -EINVAL, "too much") : 0;
}

static void a_provider_holds_what_its_table_says(void)
{
        const struct provider_ops ops = {
                .name = "kind",
                .settings = SETTING_BIT(SETTING_MEMORY),
                .check = check_provider,
        };
        struct provider p = {.ops = &ops, .instance = "mine"};
        struct spec s;

        spec_init(&s);
        (void)add(&s, "memory", "1G");
        (void)add(&s, "timeout", "1h"); /* these three are ours, for every provider */
        (void)add(&s, "create_timeout", "1m");
        (void)add(&s, "label.a", "b");
        CHECK_EQ(settings_check(&s, &p, &c), 0);
        (void)add(&s, "memory", "2G");
        CHECK_EQ(settings_check(&s, &p, &c), -EINVAL);
        CHECK_STR(c.sentence, "too much");
        (void)add(&s, "cpu", "1");
        CHECK_EQ(settings_check(&s, &p, &c), -EOPNOTSUPP);
        CHECK_STR(c.sentence, "provider mine (kind) has no setting \"cpu\"");
        spec_done(&s);
}

int main(void)
{
        RUN(numbers_have_units);
        RUN(words_are_words);
        RUN(paths_are_absolute);
        RUN(unknown_ones_are_refused_with_the_nearest);
        RUN(families_have_names);
        RUN(there_are_not_too_many);
        RUN(a_copy_is_deep);
        RUN(some_must_be_allowed);
        RUN(allow_words_are_parsed);
        RUN(pairs_replace_and_go);
        RUN(a_provider_holds_what_its_table_says);
        return check_result();
}
