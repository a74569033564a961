/* SPDX-License-Identifier: Apache-2.0 */
/* Settings: one table says how each key's value is read. */

#include "fs/sandbox/settings.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/names.h"
#include "transport/base/units.h"

#define WORD_MAX ((size_t)1024)
#define ENV_VALUE_MAX ((size_t)128 * 1024) /* what one execve(2) string may hold */
#define FAMILY_MAX 1024 /* pairs of env, label or mount */
#define TIMEOUT_MAX_NS (UINT64_C(100) * 365 * 24 * 3600 * NS_PER_S)

enum kind {
        KIND_WORD, /* anything in one line that does not look like an option */
        KIND_PATH, /* absolute */
        KIND_CPU,
        KIND_SIZE,
        KIND_COUNT,
        KIND_SPAN, /* may be none */
        KIND_DEADLINE, /* a span above 0 */
        KIND_BOOL,
        KIND_PORT,
        KIND_FAMILY, /* key.K */
};

static const struct {
        const char *key;
        enum kind kind;
} table[SETTING_COUNT] = {
        [SETTING_IMAGE] = {"image", KIND_WORD},
        [SETTING_TEMPLATE] = {"template", KIND_WORD},
        [SETTING_SNAPSHOT] = {"snapshot", KIND_WORD},
        [SETTING_CPU] = {"cpu", KIND_CPU},
        [SETTING_MEMORY] = {"memory", KIND_SIZE},
        [SETTING_DISK] = {"disk", KIND_SIZE},
        [SETTING_PROCESSES] = {"processes", KIND_COUNT},
        [SETTING_TIMEOUT] = {"timeout", KIND_SPAN},
        [SETTING_CREATE_TIMEOUT] = {"create_timeout", KIND_DEADLINE},
        [SETTING_NET] = {"net", KIND_WORD},
        [SETTING_USER] = {"user", KIND_WORD},
        [SETTING_WORKDIR] = {"workdir", KIND_PATH},
        [SETTING_READONLY] = {"readonly", KIND_BOOL},
        [SETTING_RUNTIME] = {"runtime", KIND_WORD},
        [SETTING_ISOLATION] = {"isolation", KIND_WORD},
        [SETTING_ENV] = {"env", KIND_FAMILY},
        [SETTING_LABEL] = {"label", KIND_FAMILY},
        [SETTING_MOUNT] = {"mount", KIND_FAMILY},
        [SETTING_HOST] = {"host", KIND_WORD},
        [SETTING_PORT] = {"port", KIND_PORT},
        [SETTING_IDENTITY] = {"identity", KIND_WORD},
        [SETTING_KNOWN_HOSTS] = {"known_hosts", KIND_WORD},
        [SETTING_HOSTKEY] = {"hostkey", KIND_WORD},
        [SETTING_JUMP] = {"jump", KIND_WORD},
        [SETTING_ROOT] = {"root", KIND_WORD},
        [SETTING_BASE] = {"base", KIND_WORD},
        [SETTING_TRANSPORT] = {"transport", KIND_WORD},
};

const char *setting_name(enum setting s)
{
        assert((unsigned)s < SETTING_COUNT);
        return table[s].key;
}

/* The setting that a key names, and for a family what stands behind the dot; -1: none. */
static int find(const char *key, const char **ret_rest)
{
        for (int i = 0; i < SETTING_COUNT; i++) {
                size_t size = strlen(table[i].key);

                if (strncmp(key, table[i].key, size) != 0)
                        continue;
                if (table[i].kind != KIND_FAMILY && key[size] == '\0')
                        return i;
                if (table[i].kind == KIND_FAMILY && key[size] == '.') {
                        *ret_rest = key + size + 1;
                        return i;
                }
        }
        return -1;
}

bool settings_is_key(const char *key)
{
        const char *rest;

        return find(key, &rest) >= 0;
}

static int unknown_key(const char *key, struct call *c)
{
        const char *keys[SETTING_COUNT + 1] = {NULL};
        const char *nearest;

        for (unsigned i = 0; i < SETTING_COUNT; i++) {
                keys[i] = table[i].key;
                if (table[i].kind == KIND_FAMILY && strcmp(table[i].key, key) == 0)
                        return call_fail(c, -EINVAL, "\"%s\" needs a name behind it: %s.NAME=VALUE",
                                         key, key);
        }
        nearest = name_nearest(key, keys);
        if (nearest)
                return call_fail(c, -EINVAL, "unknown setting \"%.64s\"; did you mean \"%s\"?", key,
                                 nearest);
        return call_fail(c, -EINVAL, "unknown setting \"%.64s\"", key);
}

/* ---- single values ---- */

static int check_word(const char *key, const char *value, struct call *c)
{
        if (value[0] == '\0')
                return call_fail(c, -EINVAL, "%s is empty", key);
        if (value[0] == '-')
                return call_fail(c, -EINVAL, "%s starts with '-'", key);
        if (strlen(value) > WORD_MAX)
                return call_fail(c, -EINVAL, "%s is longer than %zu bytes", key, WORD_MAX);
        for (const char *p = value; *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        return call_fail(c, -EINVAL, "%s holds a control byte", key);
        return 0;
}

static bool has_dotdot(const char *path)
{
        for (const char *p = path; (p = strstr(p, "/..")); p++)
                if (p[3] == '/' || p[3] == '\0')
                        return true;
        return false;
}

static int check_path(const char *key, const char *value, struct call *c)
{
        int r = check_word(key, value, c);

        if (r < 0)
                return r;
        if (value[0] != '/')
                return call_fail(c, -EINVAL, "%s=%s is not an absolute path", key, value);
        if (has_dotdot(value))
                return call_fail(c, -EINVAL, "%s=%s holds ..", key, value);
        if (value[strspn(value, "/.")] == '\0')
                return call_fail(c, -EINVAL, "%s can't be the root directory", key);
        return 0;
}

static int set_text(struct spec *s, enum setting x, const char *value)
{
        char *text = strdup(value);

        if (!text)
                return -ENOMEM;
        free(s->text[x]);
        s->text[x] = text;
        return 0;
}

static int set_number(struct spec *s, enum setting x, const char *value, struct call *c)
{
        const char *key = table[x].key;
        uint64_t n = 0;
        uint32_t milli = 0;
        int r;

        switch ((int)table[x].kind) { /* the numbers only */
        case KIND_CPU: r = units_parse_cpu(value, &milli); break;
        case KIND_SIZE: r = units_parse_size(value, &n); break;
        case KIND_COUNT: r = units_parse_count(value, INT32_MAX, &n); break;
        default: r = strcmp(value, "none") == 0 ? 0 : units_parse_span(value, &n); break;
        }
        if (r == -ERANGE)
                return call_fail(c, -EINVAL, "%s=%.64s is out of range", key, value);
        if (r < 0)
                return call_fail(c, -EINVAL, "%s=%.64s is not a %s", key, value,
                                 table[x].kind == KIND_CPU ? "number of processors (2, 0.5, 500m)"
                                 : table[x].kind == KIND_SIZE  ? "size (512M, 4G)"
                                 : table[x].kind == KIND_COUNT ? "number"
                                                               : "span of time (90s, 1h30m)");
        if (n == 0 && milli == 0 && table[x].kind != KIND_SPAN)
                return call_fail(c, -EINVAL, "%s can't be 0", key);
        if ((x == SETTING_TIMEOUT || x == SETTING_CREATE_TIMEOUT) && n > TIMEOUT_MAX_NS)
                return call_fail(c, -EINVAL, "%s=%.64s is out of range", key, value);

        if (x == SETTING_CPU)
                s->cpu_milli = milli;
        else if (x == SETTING_MEMORY)
                s->memory = n;
        else if (x == SETTING_DISK)
                s->disk = n;
        else if (x == SETTING_PROCESSES)
                s->processes = n;
        else if (x == SETTING_TIMEOUT)
                s->timeout_ns = n;
        else
                s->create_timeout_ns = n;
        return 0;
}

static int set_bool(struct spec *s, enum setting x, const char *value, struct call *c)
{
        static const char *const yes[] = {"on", "yes", "true", "1"};
        static const char *const no[] = {"off", "no", "false", "0"};

        assert(x == SETTING_READONLY);
        for (unsigned i = 0; i < 4; i++) {
                if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
                        s->is_readonly = strcmp(value, yes[i]) == 0;
                        return 0;
                }
        }
        return call_fail(c, -EINVAL, "%s=%.64s is neither on nor off", table[x].key, value);
}

static int set_port(struct spec *s, enum setting x, const char *value, struct call *c)
{
        uint64_t n;

        if (units_parse_count(value, 65535, &n) < 0 || n == 0)
                return call_fail(c, -EINVAL, "%s=%.64s is not a port", table[x].key, value);
        return set_text(s, x, value);
}

/* ---- families ---- */

static bool is_env_key(const char *key)
{
        static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";

        return key[0] != '\0' && strchr(first, key[0]) && strlen(key) <= 255 &&
               key[strspn(key,
                          "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789")] ==
                       '\0';
}

int settings_check_env(const char *key, const char *value, struct call *c)
{
        if (!is_env_key(key))
                return call_fail(c, -EINVAL, "\"%.64s\" is not the name of a variable", key);
        if (value && strlen(value) > ENV_VALUE_MAX)
                return call_fail(c, -E2BIG, "the value of %.64s is longer than %zu bytes", key,
                                 ENV_VALUE_MAX);
        return 0;
}

int settings_check_label(const char *key, const char *value, struct call *c)
{
        size_t size = strlen(key);

        if (size == 0 || size > 255 ||
            key[strspn(key,
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-")] !=
                    '\0')
                return call_fail(c, -EINVAL,
                                 "\"%.64s\" is not the name of a label ([A-Za-z0-9._/-]+)", key);
        if (strlen(value) > WORD_MAX)
                return call_fail(c, -EINVAL, "label.%.64s is longer than %zu bytes", key, WORD_MAX);
        for (const char *p = value; *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        return call_fail(c, -EINVAL, "label.%.64s holds a control byte", key);
        return 0;
}

int pairs_set(struct pair **pairs, size_t *count, const char *key, const char *value)
{
        _cleanup_(freep) char *new_key = strdup(key), *new_value = strdup(value);
        struct pair *p;

        if (!new_key || !new_value)
                return -ENOMEM;
        for (size_t i = 0; i < *count; i++) {
                p = &(*pairs)[i];
                if (strcmp(p->key, key) == 0) {
                        explicit_bzero(p->value, strlen(p->value));
                        free(p->value);
                        p->value = STEAL(new_value);
                        return 0;
                }
        }
        p = reallocarray(*pairs, *count + 1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        *pairs = p;
        p[(*count)++] = (struct pair){.key = STEAL(new_key), .value = STEAL(new_value)};
        return 0;
}

static void pair_done(const struct pair *p)
{
        free(p->key);
        if (p->value)
                explicit_bzero(p->value, strlen(p->value));
        free(p->value);
}

void pairs_remove(struct pair *pairs, size_t *count, const char *key)
{
        for (size_t i = 0; i < *count; i++) {
                if (strcmp(pairs[i].key, key) != 0)
                        continue;
                pair_done(&pairs[i]);
                memmove(&pairs[i], &pairs[i + 1], (*count - i - 1) * sizeof(*pairs));
                (*count)--;
                return;
        }
}

void pairs_free(struct pair *pairs, size_t count)
{
        for (size_t i = 0; i < count; i++)
                pair_done(&pairs[i]);
        free(pairs);
}

/* HOST:INSIDE[:ro] */
static int set_mount(struct spec *s, const char *number, const char *value, struct call *c)
{
        _cleanup_(freep) char *host = NULL, *inside = NULL;
        struct mount_spec *m = NULL;
        size_t size = strlen(value);
        bool is_readonly = size > 3 && strcmp(value + size - 3, ":ro") == 0;
        const char *colon;
        int r;

        if (!name_is_number(number) || strlen(number) > 3)
                return call_fail(c, -EINVAL, "mount.%.64s is not mount.NUMBER", number);
        if (is_readonly)
                size -= 3;
        colon = memrchr(value, ':', size);
        if (!colon)
                return call_fail(c, -EINVAL, "mount.%s is not HOST:INSIDE or HOST:INSIDE:ro",
                                 number);
        host = strndup(value, (size_t)(colon - value));
        inside = strndup(colon + 1, size - (size_t)(colon + 1 - value));
        if (!host || !inside)
                return -ENOMEM;
        r = check_path("mount", host, c);
        if (r == 0)
                r = check_path("mount", inside, c);
        if (r < 0)
                return r;

        for (size_t i = 0; i < s->mount_count && !m; i++)
                if (strcmp(s->mounts[i].inside, inside) == 0)
                        m = &s->mounts[i];
        if (!m) {
                m = reallocarray(s->mounts, s->mount_count + 1, sizeof(*m));
                if (!m)
                        return -ENOMEM;
                s->mounts = m;
                m += s->mount_count++;
                *m = (struct mount_spec){0};
        }
        free(m->host);
        free(m->inside);
        *m = (struct mount_spec){
                .host = STEAL(host), .inside = STEAL(inside), .is_readonly = is_readonly};
        return 0;
}

/* Whether it would be one more than there may be: a key that is there already is replaced. */
static bool is_too_many(const struct pair *pairs, size_t count, const char *key)
{
        for (size_t i = 0; i < count; i++)
                if (strcmp(pairs[i].key, key) == 0)
                        return false;
        return count >= FAMILY_MAX;
}

static int set_family(struct spec *s, enum setting x, const char *rest, const char *value,
                      struct call *c)
{
        int r;

        if ((x == SETTING_ENV && is_too_many(s->env, s->env_count, rest)) ||
            (x == SETTING_LABEL && is_too_many(s->labels, s->label_count, rest)) ||
            (x == SETTING_MOUNT && s->mount_count >= FAMILY_MAX))
                return call_fail(c, -EINVAL, "more than %d settings %s.", FAMILY_MAX, table[x].key);
        if (x == SETTING_MOUNT)
                return set_mount(s, rest, value, c);
        if (x == SETTING_ENV) {
                r = settings_check_env(rest, value, c);
                return r < 0 ? r : pairs_set(&s->env, &s->env_count, rest, value);
        }
        r = settings_check_label(rest, value, c);
        return r < 0 ? r : pairs_set(&s->labels, &s->label_count, rest, value);
}

static int copy_pairs(const struct pair *from, size_t count, struct pair **to, size_t *to_count)
{
        int r = 0;

        *to = NULL;
        *to_count = 0;
        for (size_t i = 0; i < count && r == 0; i++)
                r = pairs_set(to, to_count, from[i].key, from[i].value);
        return r;
}

static int copy_mounts(const struct spec *s, struct spec *to)
{
        to->mounts = NULL;
        to->mount_count = 0;
        if (s->mount_count == 0)
                return 0;
        to->mounts = calloc(s->mount_count, sizeof(*to->mounts));
        if (!to->mounts)
                return -ENOMEM;
        for (; to->mount_count < s->mount_count; to->mount_count++) {
                const struct mount_spec *from = &s->mounts[to->mount_count];
                struct mount_spec *m = &to->mounts[to->mount_count];

                m->host = strdup(from->host);
                m->inside = strdup(from->inside);
                m->is_readonly = from->is_readonly;
                if (!m->host || !m->inside) {
                        free(m->host);
                        free(m->inside);
                        return -ENOMEM;
                }
        }
        return 0;
}

int spec_copy(const struct spec *s, struct spec *ret)
{
        int r, r_labels, r_mounts;

        *ret = *s;
        r = copy_pairs(s->env, s->env_count, &ret->env, &ret->env_count);
        r_labels = copy_pairs(s->labels, s->label_count, &ret->labels, &ret->label_count);
        r_mounts = copy_mounts(s, ret);
        if (r == 0)
                r = r_labels;
        if (r == 0)
                r = r_mounts;
        for (unsigned i = 0; i < SETTING_COUNT; i++) {
                ret->text[i] = s->text[i] ? strdup(s->text[i]) : NULL;
                if (s->text[i] && !ret->text[i])
                        r = -ENOMEM;
        }
        if (r < 0) {
                spec_done(ret);
                spec_init(ret);
        }
        return r;
}

/* ---- public ---- */

int settings_add(struct spec *s, const char *key, const char *value, struct call *c)
{
        const char *rest = NULL;
        int i = find(key, &rest), r;

        if (i < 0)
                return unknown_key(key, c);
        switch (table[i].kind) {
        case KIND_WORD:
                r = check_word(key, value, c);
                if (r == 0)
                        r = set_text(s, (enum setting)i, value);
                break;
        case KIND_PATH:
                r = check_path(key, value, c);
                if (r == 0)
                        r = set_text(s, (enum setting)i, value);
                break;
        case KIND_CPU:
        case KIND_SIZE:
        case KIND_COUNT:
        case KIND_SPAN:
        case KIND_DEADLINE: r = set_number(s, (enum setting)i, value, c); break;
        case KIND_BOOL: r = set_bool(s, (enum setting)i, value, c); break;
        case KIND_PORT: r = set_port(s, (enum setting)i, value, c); break;
        case KIND_FAMILY:
        default: r = set_family(s, (enum setting)i, rest, value, c); break;
        }
        if (r == -ENOMEM)
                return call_fail(c, r, "out of memory");
        if (r == 0)
                s->given |= SETTING_BIT(i);
        return r;
}

int settings_check(const struct spec *s, struct provider *p, struct call *c)
{
        /* What this layer does itself for every provider. */
        const uint32_t ours = SETTING_BIT(SETTING_TIMEOUT) | SETTING_BIT(SETTING_CREATE_TIMEOUT) |
                              SETTING_BIT(SETTING_LABEL);

        for (unsigned i = 0; i < SETTING_COUNT; i++)
                if ((s->given & SETTING_BIT(i)) && !((p->ops->settings | ours) & SETTING_BIT(i)))
                        return call_fail(c, -EOPNOTSUPP, "provider %s (%s) has no setting \"%s\"",
                                         p->instance, p->ops->name, table[i].key);
        return provider_check(p, c, s);
}

static const struct {
        const char *word;
        unsigned bit;
        const char *what;
} allowed[] = {
        {"isolation", ALLOW_ISOLATION, "isolation=none"},
        {"net", ALLOW_NET, "net=host"},
        {"mount", ALLOW_MOUNT, "mount.N"},
        {"runtime", ALLOW_RUNTIME, "runtime"},
        {"ssh", ALLOW_SSH, "a host, identity, jump or root that no section names"},
};
#define ALLOWED_COUNT (sizeof(allowed) / sizeof(allowed[0]))

static bool is_text(const struct spec *s, enum setting x, const char *word)
{
        return (s->given & SETTING_BIT(x)) && s->text[x] && strcmp(s->text[x], word) == 0;
}

unsigned settings_needs(const struct spec *s)
{
        const uint32_t ssh = SETTING_BIT(SETTING_HOST) | SETTING_BIT(SETTING_PORT) |
                             SETTING_BIT(SETTING_IDENTITY) | SETTING_BIT(SETTING_KNOWN_HOSTS) |
                             SETTING_BIT(SETTING_HOSTKEY) | SETTING_BIT(SETTING_JUMP) |
                             SETTING_BIT(SETTING_ROOT);
        unsigned needs = 0;

        if (is_text(s, SETTING_ISOLATION, "none"))
                needs |= ALLOW_ISOLATION;
        if (is_text(s, SETTING_NET, "host"))
                needs |= ALLOW_NET;
        if (s->given & SETTING_BIT(SETTING_MOUNT))
                needs |= ALLOW_MOUNT;
        if (s->given & SETTING_BIT(SETTING_RUNTIME))
                needs |= ALLOW_RUNTIME;
        if (s->given & ssh)
                needs |= ALLOW_SSH;
        return needs;
}

int settings_check_allowed(const struct spec *s, unsigned allow, struct call *c)
{
        unsigned missing = settings_needs(s) & ~allow;

        for (unsigned i = 0; i < ALLOWED_COUNT; i++)
                if (missing & allowed[i].bit)
                        return call_fail(
                                c, -EPERM,
                                "%s is not allowed here: the operator allows it with -o allow=%s",
                                allowed[i].what, allowed[i].word);
        return 0;
}

static int allow_word(const char *word, size_t size, unsigned *allow, struct call *c)
{
        const char *words[ALLOWED_COUNT + 1] = {NULL};
        const char *nearest;
        char text[64];

        for (unsigned i = 0; i < ALLOWED_COUNT; i++) {
                words[i] = allowed[i].word;
                if (strlen(words[i]) == size && memcmp(words[i], word, size) == 0) {
                        *allow |= allowed[i].bit;
                        return 0;
                }
        }
        if (size >= sizeof(text))
                size = sizeof(text) - 1;
        memcpy(text, word, size);
        text[size] = '\0';
        nearest = name_nearest(text, words);
        if (nearest)
                return call_fail(c, -EINVAL, "\"%s\" can't be allowed; did you mean \"%s\"?", text,
                                 nearest);
        return call_fail(c, -EINVAL,
                         "\"%s\" can't be allowed: isolation, net, mount, runtime, ssh can", text);
}

int allow_parse(const char *words, unsigned *ret, struct call *c)
{
        unsigned allow = 0;

        for (const char *at = words; *at != '\0';) {
                size_t size = strcspn(at, ":,");

                if (size > 0) {
                        int r = allow_word(at, size, &allow, c);

                        if (r < 0)
                                return r;
                }
                at += size;
                at += *at != '\0';
        }
        *ret = allow;
        return 0;
}
