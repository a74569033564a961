/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: what it says, and each mistake with its file and line. */

#include "fs/config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/sandbox/fleet.h"
#include "tests/unit/base/temp.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"

static struct call c;

static int parse_sized(const char *text, size_t size, struct config *ret)
{
        /* Exactly as large as it is, so that the address sanitizer sees a read past its end. */
        char *copy = malloc(size + 1);
        int r;

        if (!copy)
                abort();
        memcpy(copy, text, size);
        copy[size] = '\0';
        call_init(&c, NEVER_NS);
        r = config_parse("f.ini", copy, size, ret, &c);
        free(copy);
        return r;
}

static int parse(const char *text, struct config *ret)
{
        return parse_sized(text, strlen(text), ret);
}

/* The value of a key; NULL: none. */
static const char *value_of(const struct config *config, const char *instance, const char *key)
{
        const struct config_section *s = config_find(config, instance);

        for (size_t i = 0; s && i < s->pair_count; i++)
                if (strcmp(s->pairs[i].key, key) == 0)
                        return s->pairs[i].value;
        return NULL;
}

static void a_file_is_read(void)
{
        struct config config = CONFIG_INIT;

        CHECK_EQ(parse("# a comment\n"
                       "; another\n"
                       "\n"
                       "[local]\r\n"
                       "memory = 2G\r\n"
                       "  net=none\n"
                       "env.PATH = /bin:/usr/bin # not a comment; nor this\n"
                       "[big]\n"
                       "kind: local\n"
                       "\tallow = net:mount\n"
                       "env.EMPTY =\n"
                       "label.x = \"quoted\" = kept",
                       &config),
                 0);
        CHECK_STR(c.sentence, "");
        CHECK_EQ(config.count, 2);
        CHECK(config.has_secret);
        CHECK_STR(config.sections[0].instance, "local");
        CHECK_STR(config.sections[0].kind, "local");
        CHECK_STR(config.sections[0].source, "f.ini:4");
        CHECK_EQ(config.sections[0].allow, 0);
        CHECK_EQ(config.sections[0].pair_count, 3);
        CHECK_EQ(config.sections[0].lines[0], 5);
        CHECK_STR(value_of(&config, "local", "memory"), "2G");
        CHECK_STR(value_of(&config, "local", "net"), "none");
        CHECK_STR(value_of(&config, "local", "env.PATH"),
                  "/bin:/usr/bin # not a comment; nor this");
        CHECK_STR(config.sections[1].instance, "big");
        CHECK_STR(config.sections[1].kind, "local");
        CHECK_EQ(config.sections[1].allow, ALLOW_NET | ALLOW_MOUNT);
        CHECK_EQ(config.sections[1].pair_count, 2); /* without kind and allow */
        CHECK_EQ(config.sections[1].lines[0], 11);
        CHECK_EQ(config.sections[1].lines[1], 12);
        CHECK_STR(value_of(&config, "big", "env.EMPTY"), "");
        CHECK_STR(value_of(&config, "big", "label.x"), "\"quoted\" = kept");
        CHECK(!config_find(&config, "none"));
        config_done(&config);
        CHECK_EQ(config.count, 0);

        CHECK_EQ(parse("", &config), 0);
        CHECK_EQ(config.count, 0);
        CHECK_EQ(parse("[local]", &config), 0);
        CHECK_EQ(config.count, 1);
        CHECK(!config.has_secret);
        config_done(&config);
        CHECK_EQ(parse("\xef\xbb\xbf[local]\nmemory=1G\n", &config), 0); /* as editors save it */
        CHECK_STR(value_of(&config, "local", "memory"), "1G");
        config_done(&config);
}

static void each_mistake_has_its_line(void)
{
        static const struct {
                const char *text, *sentence;
        } rows[] = {
                {"x = 1\n", "f.ini:1: \"x\" stands before the first [section]"},
                {"[local]\n\nnonsense\n", "f.ini:3: neither [section] nor key = value"},
                {"[local\nmemory=1G\n", "f.ini:1: a section is [NAME], of 1 to 63 characters"},
                {"[]\n", "f.ini:1: a section is [NAME], of 1 to 63 characters"},
                {"# x\n  [-x]\n",
                 "f.ini:2: [-x]: a section's name has letters, digits and ._- only"},
                {"[a b]\n", "f.ini:1: [a b]: a section's name has letters, digits and ._- only"},
                {"[local]\n[big]\nkind=local\n[local]\n",
                 "f.ini:4: section [local] stands here for the second time"},
                {"[local]\nmemory=1G\n\nmemory=2G\n",
                 "f.ini:4: \"memory\" stands in line 2 already"},
                {"[local]\nkind=local\nkind=local\n", "f.ini:3: \"kind\" stands in line 2 already"},
                {"\n[locl]\n", "f.ini:2: no provider is called \"locl\"; did you mean \"local\"?"},
                {"[mine]\n",
                 "f.ini:1: no provider is called \"mine\"; give its kind, for instance kind = local"},
                {"[mine]\nmemory=1G\nkind = docker-or-so\n",
                 "f.ini:3: no provider is called \"docker-or-so\"; give its kind, for instance kind = local"},
                {"[local]\nmemroy=1G\n",
                 "f.ini:2: unknown key \"memroy\"; did you mean \"memory\"?"},
                {"[local]\nkidn=local\n", "f.ini:2: unknown key \"kidn\"; did you mean \"kind\"?"},
                {"[local]\ncolour=blue\n", "f.ini:2: unknown key \"colour\""},
                {"[local]\nMemory=1G\n",
                 "f.ini:2: unknown key \"Memory\"; did you mean \"memory\"?"},
                {"[local]\nnet=none\nmemory=much\n",
                 "f.ini:3: memory=much is not a size (512M, 4G)"},
                {"[local]\nmemory=\n", "f.ini:2: memory= is not a size (512M, 4G)"},
                {"[local]\nworkdir=here\n", "f.ini:2: workdir=here is not an absolute path"},
                {"[local]\nenv=x\n", "f.ini:2: \"env\" needs a name behind it: env.NAME = VALUE"},
                {"[local]\nnet=none\nallow=mout\n",
                 "f.ini:3: \"mout\" can't be allowed; did you mean \"mount\"?"},
                {"[local]\nmemory=1G\n[big]\nkind=local\ncpu=0\n",
                 "f.ini:5: cpu=0 is out of range"},
                {"[local]\n= x\n", "f.ini:2: unknown key \"\""},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                struct config config = CONFIG_INIT;

                if (!CHECK_EQ(parse(rows[i].text, &config), -EINVAL) ||
                    !CHECK_STR(c.sentence, rows[i].sentence))
                        (void)fprintf(stderr, "    for: %s\n", rows[i].text);
                CHECK(!config.sections);
        }
}

static void nul_is_refused_where_it_stands(void)
{
        static const char text[] = "[local]\nmemory=1G\nnet=\0none\n";
        struct config config = CONFIG_INIT;

        CHECK_EQ(parse_sized(text, sizeof(text) - 1, &config), -EINVAL);
        CHECK_STR(c.sentence, "f.ini:3: a NUL byte in it");
}

/* [local] and a line of `size` bytes. */
static int parse_long(size_t size, struct config *ret)
{
        static const char before[] = "[local]\nenv.X=";
        size_t head = strlen(before), all = head + size - 6 + 1;
        char *text = malloc(all + 20);
        int r;

        if (!text)
                abort();
        memset(text, 'y', all);
        memcpy(text, before, head);
        memcpy(text + all - 1, "\nnet=none\n", 11);
        r = parse(text, ret);
        free(text);
        return r;
}

static void long_lines_have_a_limit(void)
{
        static const size_t sizes[] = {50, 199, 200, 201, 398, 399, 400, 1000, 4096, 60000, 65534};
        struct config config = CONFIG_INIT;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                const char *value;

                CHECK_EQ(parse_long(sizes[i], &config), 0);
                value = value_of(&config, "local", "env.X");
                CHECK_EQ(value ? strlen(value) : 0, sizes[i] - 6);
                CHECK_STR(value_of(&config, "local", "net"), "none");
                CHECK_EQ(config.count > 0 ? config.sections[0].lines[1] : 0, 3);
                config_done(&config);
        }
        CHECK_EQ(parse_long(65536, &config), -EINVAL);
        CHECK_STR(c.sentence, "f.ini:2: a line of more than 65536 bytes");
}

static void a_bracket_in_a_long_line_begins_no_section(void)
{
        struct config config = CONFIG_INIT;
        char text[2000] = "[local]\nenv.X=";

        memset(text + 14, '[', 1000);
        memcpy(text + 1014, "\n[big]\nkind=local\n", 19);
        CHECK_EQ(parse(text, &config), 0);
        CHECK_EQ(config.count, 2);
        config_done(&config);
}

static void there_are_not_too_many(void)
{
        struct config config = CONFIG_INIT;
        struct buf_text {
                char text[100000];
                size_t size;
        } *t = calloc(1, sizeof(*t));

        if (!t)
                abort();
        for (int i = 0; i < 1024; i++)
                t->size += (size_t)snprintf(t->text + t->size, sizeof(t->text) - t->size,
                                            "[s%d]\nkind=local\n", i);
        CHECK_EQ(parse(t->text, &config), 0);
        CHECK_EQ(config.count, 1024);
        config_done(&config);
        t->size += (size_t)snprintf(t->text + t->size, sizeof(t->text) - t->size,
                                    "[one-more]\nkind=local\n");
        CHECK_EQ(parse(t->text, &config), -EINVAL);
        CHECK_STR(c.sentence, "f.ini:2049: more than 1024 sections");

        t->size = (size_t)snprintf(t->text, sizeof(t->text), "[local]\n");
        for (int i = 0; i < 1024; i++)
                t->size += (size_t)snprintf(t->text + t->size, sizeof(t->text) - t->size,
                                            "env.A%d=x\n", i);
        CHECK_EQ(parse(t->text, &config), 0);
        config_done(&config);
        t->size += (size_t)snprintf(t->text + t->size, sizeof(t->text) - t->size, "net=none\n");
        CHECK_EQ(parse(t->text, &config), -EINVAL);
        CHECK_STR(c.sentence, "f.ini:1026: more than 1024 keys in a section");
        free(t);
}

static void what_is_built_in_gives_way(void)
{
        struct config config = CONFIG_INIT, other = CONFIG_INIT;
        struct fleet_section *sections;

        CHECK_EQ(config_add_builtin(&config, "local"), 0);
        CHECK_EQ(config.count, 1);
        CHECK(!config.sections[0].source);
        CHECK_EQ(parse("[local]\nmemory=1G\nallow=net\n[big]\nkind=local\n", &other), 0);
        CHECK(!config_is_same(&config, &other));
        CHECK_EQ(config_add_builtin(&other, "local"), 0);
        CHECK_EQ(other.count, 2);
        sections = config_fleet_sections(&other);
        CHECK_STR(sections[0].instance, "local");
        CHECK_STR(sections[0].source, "f.ini:1");
        CHECK_STR(sections[0].pairs[0].key, "memory");
        CHECK_EQ(sections[0].pair_count, 1);
        CHECK_EQ(sections[0].allow, ALLOW_NET);
        CHECK_STR(sections[1].kind, "local");
        free(sections);
        config_done(&config);
        /* Lines and comments don't count, values do. */
        CHECK_EQ(parse("\n[local]\nallow=net\n# x\nmemory=1G\n[big]\nkind=local\n", &config), 0);
        CHECK(config_is_same(&config, &other));
        config_done(&config);
        CHECK_EQ(parse("[local]\nallow=net\nmemory=2G\n[big]\nkind=local\n", &config), 0);
        CHECK(!config_is_same(&config, &other));
        config_done(&config);
        CHECK_EQ(parse("[local]\nallow=net:mount\nmemory=1G\n[big]\nkind=local\n", &config), 0);
        CHECK(!config_is_same(&config, &other));
        config_done(&config);
        config_done(&other);
}

/* ---- files ---- */

static int dir;

static int read_with(const char *text, mode_t mode)
{
        struct config config = CONFIG_INIT;
        char path[100];
        int fd = openat(dir, "c.ini", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r;

        CHECK_EQ(file_write_all(fd, text, strlen(text)), 0);
        CHECK_EQ(fchmod(fd, mode), 0);
        (void)close(fd);
        (void)snprintf(path, sizeof(path), "%s/c.ini", temp_path);
        call_init(&c, NEVER_NS);
        r = config_read(path, &config, &c);
        CHECK(r == 0 || !config.sections);
        config_done(&config);
        return r;
}

static bool says(const char *part)
{
        bool does = strstr(c.sentence, part) != NULL;

        if (!does)
                (void)fprintf(stderr, "    says: %s\n", c.sentence);
        return does;
}

static void secrets_are_for_their_owner(void)
{
        static const char secret[] = "[local]\nenv.TOKEN=x\n", open_text[] = "[local]\nmemory=1G\n";

        CHECK_EQ(read_with(open_text, 0644), 0);
        CHECK_EQ(read_with(open_text, 0664), 0);
        CHECK_EQ(read_with(open_text, 0666), -EPERM);
        CHECK(says("c.ini: everybody can write it; chmod o-w"));
        CHECK_EQ(read_with(secret, 0600), 0);
        CHECK_EQ(read_with(secret, 0400), 0);
        CHECK_EQ(read_with(secret, 0640), -EPERM);
        CHECK_EQ(read_with(secret, 0604), -EPERM);
        CHECK(says("c.ini: it holds secrets and others can read it; chmod 600"));
        CHECK_EQ(read_with("[local]\nnonsense\n", 0600), -EINVAL);
        CHECK(says("c.ini:2: neither"));
}

static void what_is_no_file_is_refused(void)
{
        struct config config = CONFIG_INIT;
        char path[100], *large;

        call_init(&c, NEVER_NS);
        CHECK_EQ(config_read("/nowhere/c.ini", &config, &c), -ENOENT);
        CHECK(says("/nowhere/c.ini: No such file"));
        CHECK_EQ(config_read(temp_path, &config, &c), -EINVAL);
        CHECK(says("not a file"));
        (void)snprintf(path, sizeof(path), "%s/fifo", temp_path);
        CHECK_EQ(mkfifo(path, 0600), 0);
        CHECK_EQ(config_read(path, &config, &c), -EINVAL); /* and nobody waits */
        large = malloc((1 << 20) + 1);
        if (!large)
                abort();
        memset(large, '\n', 1 << 20);
        large[1 << 20] = '\0';
        CHECK_EQ(read_with(large, 0600), -EINVAL);
        CHECK(says("larger than 1 MiB"));
        free(large);
}

int main(void)
{
        dir = temp_open();
        RUN(a_file_is_read);
        RUN(each_mistake_has_its_line);
        RUN(nul_is_refused_where_it_stands);
        RUN(long_lines_have_a_limit);
        RUN(a_bracket_in_a_long_line_begins_no_section);
        RUN(there_are_not_too_many);
        RUN(what_is_built_in_gives_way);
        RUN(secrets_are_for_their_owner);
        RUN(what_is_no_file_is_refused);
        temp_close(dir);
        return check_result();
}
