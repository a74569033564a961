/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libinih reads the lines through a reader of ours, which counts them and notes the sections: inih
 * itself tells neither the line of a key nor of a section without keys, and cuts long names. The
 * keys are checked when all of a section is known, as `kind` may come last.
 */

#include "fs/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/sandbox/fleet.h"
#include "fs/sandbox/settings.h"
#include "providers/registry.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

#define FILE_MAX ((size_t)1024 * 1024)
#define SECTIONS_MAX 1024
#define SECTION_PAIRS_MAX 1024
#define LINE_MAX_SIZE (64 * 1024)

struct parse {
        const char *name;
        const char *at, *end; /* what is not read yet */
        unsigned line; /* of what was read last */
        bool is_inside; /* the line goes on */
        struct config config;
        struct call *call;
        int error; /* the first */
};

static int fail(struct parse *p, unsigned line, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
static int fail(struct parse *p, unsigned line, const char *format, ...)
{
        char text[512];
        va_list args;

        if (p->error < 0)
                return p->error;
        va_start(args, format);
        if (vsnprintf(text, sizeof(text), format, args) < 0)
                text[0] = '\0';
        va_end(args);
        p->error = call_fail(p->call, -EINVAL, "%s:%u: %s", p->name, line, text);
        return p->error;
}

static int fail_memory(struct parse *p)
{
        if (p->error == 0)
                p->error = call_fail(p->call, -ENOMEM, "out of memory");
        return p->error;
}

/* ---- sections ---- */

static void section_done(struct config_section *s)
{
        free(s->source);
        free(s->lines);
        pairs_free(s->pairs, s->pair_count);
}

void config_done(struct config *c)
{
        for (size_t i = 0; i < c->count; i++)
                section_done(&c->sections[i]);
        free(c->sections);
        *c = CONFIG_INIT;
}

const struct config_section *config_find(const struct config *c, const char *instance)
{
        for (size_t i = 0; i < c->count; i++)
                if (strcmp(c->sections[i].instance, instance) == 0)
                        return &c->sections[i];
        return NULL;
}

/* NULL: out of memory. */
static struct config_section *add_section(struct config *c)
{
        struct config_section *all;

        if (c->count % 16 == 0) {
                all = calloc(c->count + 16, sizeof(*all));
                if (!all)
                        return NULL;
                if (c->count > 0)
                        memcpy(all, c->sections, c->count * sizeof(*all));
                free(c->sections);
                c->sections = all;
        }
        return &c->sections[c->count++];
}

/* `text` begins after the bracket. */
static int begin_section(struct parse *p, const char *text, size_t size)
{
        const char *close = memchr(text, ']', size);
        struct config_section *s;
        char name[NAME_SIZE];

        if (!close || close == text || (size_t)(close - text) >= sizeof(name))
                return fail(p, p->line, "a section is [NAME], of 1 to %d characters",
                            NAME_LENGTH_MAX);
        memcpy(name, text, (size_t)(close - text));
        name[close - text] = '\0';
        if (!name_is_valid(name))
                return fail(p, p->line, "[%s]: a section's name has letters, digits and ._- only",
                            name);
        if (config_find(&p->config, name))
                return fail(p, p->line, "section [%s] stands here for the second time", name);
        if (p->config.count >= SECTIONS_MAX)
                return fail(p, p->line, "more than %d sections", SECTIONS_MAX);
        s = add_section(&p->config);
        if (!s || asprintf(&s->source, "%s:%u", p->name, p->line) < 0) {
                if (s)
                        s->source = NULL;
                return fail_memory(p);
        }
        (void)snprintf(s->instance, sizeof(s->instance), "%s", name); /* it fits */
        (void)snprintf(s->kind, sizeof(s->kind), "%s", name);
        return 0;
}

/* ---- lines ---- */

/* A section begins where inih would begin one: at the first character that is no blank. */
static void look_at_line(struct parse *p, const char *line, size_t size)
{
        while (size > 0 && isspace((unsigned char)*line)) {
                line++;
                size--;
        }
        if (size > 0 && *line == '[')
                (void)begin_section(p, line + 1, size - 1); /* kept in p->error */
}

/* As fgets, for inih. */
static char *read_line(char *to, int room, void *arg)
{
        struct parse *p = arg;
        size_t size = (size_t)(p->end - p->at), max = (size_t)room - 1;
        const char *newline = memchr(p->at, '\n', size);

        if (size == 0 || p->error < 0)
                return NULL;
        if (newline)
                size = (size_t)(newline - p->at) + 1;
        if (!p->is_inside) {
                p->line++;
                if (size >= LINE_MAX_SIZE)
                        (void)fail(p, p->line, "a line of more than %d bytes", LINE_MAX_SIZE);
                else
                        look_at_line(p, p->at, size);
        }
        p->is_inside = size > max;
        if (p->is_inside)
                size = max;
        memcpy(to, p->at, size);
        to[size] = '\0';
        p->at += size;
        return to;
}

/* Values that others must not read. */
static bool is_secret(const char *key)
{
        static const char *const words[] = {"key", "token", "password", "secret"};

        size_t size = strlen(key);

        if (strcmp(key, setting_name(SETTING_HOSTKEY)) == 0)
                return false; /* a public one */
        if (size > 5 && strcmp(key + size - 5, "_file") == 0)
                return false; /* where it is */
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                if (strcasestr(key, words[i]))
                        return true;
        return strncmp(key, "env.", 4) == 0;
}

static int add_pair(struct parse *p, struct config_section *s, const char *key, const char *value)
{
        for (size_t i = 0; i < s->pair_count; i++)
                if (strcmp(s->pairs[i].key, key) == 0)
                        return fail(p, p->line, "\"%.64s\" stands in line %u already", key,
                                    s->lines[i]);
        if (s->pair_count >= SECTION_PAIRS_MAX)
                return fail(p, p->line, "more than %d keys in a section", SECTION_PAIRS_MAX);
        if (!s->lines)
                s->lines = calloc(SECTION_PAIRS_MAX, sizeof(*s->lines));
        if (!s->lines || pairs_set(&s->pairs, &s->pair_count, key, value) < 0)
                return fail_memory(p);
        s->lines[s->pair_count - 1] = p->line;
        if (is_secret(key))
                p->config.has_secret = true;
        return 0;
}

/* inih's handler: a key. 0 ends nothing, but tells it that there was an error. */
static int on_pair(void *arg, const char *section, const char *key, const char *value)
{
        struct parse *p = arg;

        (void)section; /* cut to 49 characters */
        if (p->error < 0)
                return 0;
        if (p->config.count == 0)
                return fail(p, p->line, "\"%.64s\" stands before the first [section]", key) == 0;
        return add_pair(p, &p->config.sections[p->config.count - 1], key, value) == 0;
}

/* ---- what the keys say ---- */

/* All words that a section of this kind may begin a line with, NULL-terminated. */
static void known_keys(const struct provider_ops *ops, const char **words, size_t max)
{
        size_t n = 0;

        words[n++] = "kind";
        words[n++] = "allow";
        for (int i = 0; i < SETTING_COUNT && n + 1 < max; i++)
                words[n++] = setting_name((enum setting)i);
        for (const char *const *k = ops->config_keys; k && *k && n + 1 < max; k++)
                words[n++] = *k;
        words[n] = NULL;
}

static bool is_own_key(const struct provider_ops *ops, const char *key)
{
        for (const char *const *k = ops->config_keys; k && *k; k++)
                if (strcmp(*k, key) == 0)
                        return true;
        return false;
}

static const struct provider_ops *find_kind(struct parse *p, const char *kind, unsigned line)
{
        const struct provider_ops *ops = registry_find(kind);
        const char *words[64] = {0}, *nearest;

        if (ops)
                return ops;
        for (size_t i = 0; i + 1 < sizeof(words) / sizeof(words[0]) && registry_at(i); i++)
                words[i] = registry_at(i)->name;
        nearest = name_nearest(kind, words);
        if (nearest)
                (void)fail(p, line, "no provider is called \"%s\"; did you mean \"%s\"?", kind,
                           nearest);
        else
                (void)fail(p, line,
                           "no provider is called \"%s\"; give its kind, for instance kind = %s",
                           kind, words[0] ? words[0] : "local");
        return NULL;
}

/* `key` is none; or its value, tried on a spec, is wrong. */
static int check_pair(struct parse *p, const struct provider_ops *ops, const struct pair *pair,
                      unsigned line, struct spec *spec)
{
        const char *words[SETTING_COUNT + 64], *nearest;
        char reason[CALL_SENTENCE_MAX];
        int r;

        if (is_own_key(ops, pair->key))
                return 0;
        if (settings_is_key(pair->key)) {
                r = settings_add(spec, pair->key, pair->value, p->call);
                if (r == -ENOMEM)
                        return fail_memory(p);
                (void)snprintf(reason, sizeof(reason), "%s", p->call->sentence); /* it fits */
                return r < 0 ? fail(p, line, "%s", reason) : 0;
        }
        known_keys(ops, words, sizeof(words) / sizeof(words[0]));
        nearest = name_nearest(pair->key, words);
        if (nearest && strcmp(nearest, pair->key) == 0)
                return fail(p, line, "\"%s\" needs a name behind it: %s.NAME = VALUE", nearest,
                            nearest);
        if (nearest)
                return fail(p, line, "unknown key \"%.64s\"; did you mean \"%s\"?", pair->key,
                            nearest);
        return fail(p, line, "unknown key \"%.64s\"", pair->key);
}

/* Take a pair out of the section. Its line, 0: it wasn't there; its value goes to `value`. */
static unsigned take_pair(struct config_section *s, const char *key, char *value, size_t size)
{
        for (size_t i = 0; i < s->pair_count; i++) {
                unsigned line = s->lines[i];

                if (strcmp(s->pairs[i].key, key) != 0)
                        continue;
                /* cut: then it is no word that we know */
                (void)snprintf(value, size, "%s", s->pairs[i].value);
                pairs_remove(s->pairs, &s->pair_count, key);
                memmove(&s->lines[i], &s->lines[i + 1], (s->pair_count - i) * sizeof(*s->lines));
                return line;
        }
        return 0;
}

static int check_allow(struct parse *p, struct config_section *s)
{
        char value[128], reason[CALL_SENTENCE_MAX];
        unsigned line = take_pair(s, "allow", value, sizeof(value));

        if (line == 0 || allow_parse(value, &s->allow, p->call) == 0)
                return 0;
        (void)snprintf(reason, sizeof(reason), "%s", p->call->sentence); /* it fits */
        return fail(p, line, "%s", reason);
}

static int check_section(struct parse *p, struct config_section *s)
{
        unsigned line = take_pair(s, "kind", s->kind, sizeof(s->kind));
        const struct provider_ops *ops;
        struct spec spec;

        if (line == 0)
                line = (unsigned)strtoul(strrchr(s->source, ':') + 1, NULL, 10);
        ops = find_kind(p, s->kind, line);
        if (!ops || check_allow(p, s) < 0)
                return p->error;
        spec_init(&spec);
        for (size_t i = 0; i < s->pair_count && p->error == 0; i++)
                (void)check_pair(p, ops, &s->pairs[i], s->lines[i], &spec); /* kept in p->error */
        spec_done(&spec);
        return p->error;
}

/* ---- whole files ---- */

/* inih's settings are its own variables; they are the same for every file. */
static void set_up_inih(void)
{
        ini_use_stack = false;
        ini_allow_realloc = true;
        ini_max_line = LINE_MAX_SIZE + 3;
        ini_allow_multiline = false;
        ini_allow_inline_comments = false;
}

static unsigned line_of(const char *text, const char *at)
{
        unsigned line = 1;

        for (; text < at; text++)
                line += *text == '\n';
        return line;
}

int config_parse(const char *name, const char *text, size_t size, struct config *ret,
                 struct call *c)
{
        struct parse p = {.name = name, .at = text, .end = text + size, .call = c};
        const char *nul = memchr(text, '\0', size);
        int line;

        if (nul)
                return call_fail(c, -EINVAL, "%s:%u: a NUL byte in it", name, line_of(text, nul));
        if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
                p.at += 3; /* some editors begin a file of UTF-8 so */
        set_up_inih();
        line = ini_parse_stream(read_line, &p, on_pair, &p);
        if (p.error == 0 && line > 0)
                (void)fail(&p, (unsigned)line, "neither [section] nor key = value");
        if (p.error == 0 && line < 0)
                (void)fail_memory(&p);
        for (size_t i = 0; i < p.config.count && p.error == 0; i++)
                (void)check_section(&p, &p.config.sections[i]); /* kept in p.error */
        if (p.error < 0) {
                config_done(&p.config);
                return p.error;
        }
        c->sentence[0] = '\0';
        *ret = p.config;
        return 0;
}

/* Open it and read all of it. */
static int read_file(const char *path, struct buf *to, struct stat *ret_st, struct call *c)
{
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        ssize_t n;

        if (fd < 0 || fstat(fd, ret_st) < 0)
                return call_fail_errno(c, -errno, "%s", path);
        if (!S_ISREG(ret_st->st_mode))
                return call_fail(c, -EINVAL, "%s: not a file", path);
        if (!buf_reserve(to, FILE_MAX))
                return call_fail(c, -ENOMEM, "out of memory");
        n = file_pread_full(fd, to->data, FILE_MAX, 0);
        if (n < 0)
                return call_fail_errno(c, (int)n, "%s", path);
        if ((size_t)n == FILE_MAX)
                return call_fail(c, -EINVAL, "%s: larger than 1 MiB", path);
        to->size = (size_t)n;
        to->data[n] = '\0';
        return 0;
}

int config_read(const char *path, struct config *ret, struct call *c)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(FILE_MAX);
        struct config config = CONFIG_INIT;
        struct stat st = {0};
        int r = read_file(path, &text, &st, c);

        if (r == 0)
                r = config_parse(path, buf_str(&text), text.size, &config, c);
        if (r < 0)
                return r;
        if (st.st_mode & 0002)
                r = call_fail(c, -EPERM, "%s: everybody can write it; chmod o-w", path);
        else if (config.has_secret && (st.st_mode & 0077))
                r = call_fail(c, -EPERM, "%s: it holds secrets and others can read it; chmod 600",
                              path);
        if (r < 0)
                config_done(&config);
        else
                *ret = config;
        return r;
}

int config_add_builtin(struct config *c, const char *kind)
{
        struct config_section *s;

        if (config_find(c, kind))
                return 0;
        s = add_section(c);
        if (!s)
                return -ENOMEM;
        (void)snprintf(s->instance, sizeof(s->instance), "%s", kind); /* registry keys are short */
        (void)snprintf(s->kind, sizeof(s->kind), "%s", kind);
        return 0;
}

static bool is_same_section(const struct config_section *a, const struct config_section *b)
{
        if (strcmp(a->instance, b->instance) != 0 || strcmp(a->kind, b->kind) != 0 ||
            a->allow != b->allow || a->pair_count != b->pair_count)
                return false;
        for (size_t i = 0; i < a->pair_count; i++)
                if (strcmp(a->pairs[i].key, b->pairs[i].key) != 0 ||
                    strcmp(a->pairs[i].value, b->pairs[i].value) != 0)
                        return false;
        return true;
}

bool config_is_same(const struct config *a, const struct config *b)
{
        if (a->count != b->count)
                return false;
        for (size_t i = 0; i < a->count; i++)
                if (!is_same_section(&a->sections[i], &b->sections[i]))
                        return false;
        return true;
}

struct fleet_section *config_fleet_sections(const struct config *c)
{
        struct fleet_section *all = calloc(c->count + 1, sizeof(*all));

        for (size_t i = 0; all && i < c->count; i++) {
                const struct config_section *s = &c->sections[i];

                all[i] = (struct fleet_section){
                        .instance = s->instance,
                        .kind = s->kind,
                        .pairs = s->pairs,
                        .pair_count = s->pair_count,
                        .allow = s->allow,
                        .source = s->source,
                };
        }
        return all;
}
