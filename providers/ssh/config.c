/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/ssh/ssh.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/hash.h"
#include "transport/base/record.h"
#include "transport/base/units.h"

const char *const ssh_config_keys[] = {
        "host",          "user",  "port",        "identity",   "known_hosts",
        "hostkey",       "jump",  "base",        "root",       "transport",
        "password_file", "agent", "connections", "ssh_config", NULL};

void ssh_config_done(struct ssh_config *c)
{
        free(c->host);
        free(c->user);
        free(c->jump);
        free(c->base);
        free(c->root);
        free(c->identity);
        free(c->known_hosts);
        free(c->hostkey);
        free(c->ssh_config);
        free(c->password_file);
        *c = (struct ssh_config){0};
}

/* ---- single values ---- */

static int set_text(char **to, const char *value)
{
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*to);
        *to = copy;
        return 0;
}

/* No option of a program, nothing that ends a word. */
static int check_word(const char *key, const char *value, struct call *c)
{
        if (value[0] == '\0')
                return call_fail(c, -EINVAL, "%s is empty", key);
        if (value[0] == '-')
                return call_fail(c, -EINVAL, "%s starts with '-'", key);
        for (const char *p = value; *p; p++)
                if ((unsigned char)*p <= 0x20 || *p == 0x7f)
                        return call_fail(c, -EINVAL, "%s holds a blank or a control byte", key);
        return 0;
}

static int set_host(struct ssh_config *to, const char *value, struct call *c)
{
        int r = check_word("host", value, c);

        if (r == 0 && strpbrk(value, "/@'\"`$\\;&|<>()"))
                r = call_fail(c, -EINVAL,
                              "host=%.64s is not the name of a host; user= and port= "
                              "have keys of their own",
                              value);
        return r < 0 ? r : set_text(&to->host, value);
}

static int set_user(struct ssh_config *to, const char *value, struct call *c)
{
        int r = check_word("user", value, c);

        if (r == 0 && strpbrk(value, "'\"`$\\;&|<>()"))
                r = call_fail(c, -EINVAL, "user=%.64s is not the name of an account", value);
        return r < 0 ? r : set_text(&to->user, value);
}

static int set_port(struct ssh_config *to, const char *value, struct call *c)
{
        uint64_t n;

        if (units_parse_count(value, 65535, &n) < 0 || n == 0)
                return call_fail(c, -EINVAL, "port=%.64s is not a port", value);
        to->port = (unsigned)n;
        return 0;
}

static int set_jump(struct ssh_config *to, const char *value, struct call *c)
{
        int r = check_word("jump", value, c);

        if (r == 0 &&
            (strstr(value, ",-") || strstr(value, "@-") || strpbrk(value, "'\"`$\\;&|<>()")))
                r = call_fail(c, -EINVAL, "jump=%.64s is not [USER@]HOST[:PORT][,...]", value);
        return r < 0 ? r : set_text(&to->jump, value);
}

static bool has_dotdot(const char *path)
{
        for (const char *p = path; (p = strstr(p, "..")); p += 2)
                if ((p == path || p[-1] == '/') && (p[2] == '/' || p[2] == '\0'))
                        return true;
        return false;
}

/* A directory of the host: absolute, or below the home ("~/x" is "x"); without '/' at its end. */
static int set_directory(char **to, const char *key, const char *value, struct call *c)
{
        _cleanup_(freep) char *path = NULL;
        size_t size;

        if (value[0] == '~' && value[1] == '/')
                value += 2 + strspn(value + 2, "/");
        if (value[0] == '\0' || value[0] == '~' || value[0] == '-' || has_dotdot(value) ||
            strcmp(value, ".") == 0)
                return call_fail(c, -EINVAL, "%s is neither an absolute path nor one below ~/",
                                 key);
        for (const char *p = value; *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        return call_fail(c, -EINVAL, "%s holds a control byte", key);
        size = strlen(value);
        while (size > 1 && value[size - 1] == '/')
                size--;
        if (size == 1 && value[0] == '/')
                return call_fail(c, -EINVAL, "%s can't be the root directory", key);
        path = strndup(value, size);
        return path ? set_text(to, path) : -ENOMEM;
}

static int set_hostkey(struct ssh_config *to, const char *value, struct call *c)
{
        if (strncmp(value, "SHA256:", 7) != 0 || strlen(value) < 7 + 43 || strlen(value) > 7 + 44)
                return call_fail(c, -EINVAL,
                                 "hostkey is not SHA256:... as `ssh-keygen -lf` prints it");
        return set_text(&to->hostkey, value);
}

static int set_flag(bool *to, const char *key, const char *value, struct call *c)
{
        if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
                return call_fail(c, -EINVAL, "%s=%.64s is neither yes nor no", key, value);
        *to = strcmp(value, "yes") == 0;
        return 0;
}

static int set_transport(struct ssh_config *to, const char *value, struct call *c)
{
        if (strcmp(value, "libssh2") != 0 && strcmp(value, "openssh") != 0)
                return call_fail(c, -EINVAL, "transport=%.64s: there are libssh2 and openssh",
                                 value);
        to->is_openssh = strcmp(value, "openssh") == 0;
        return 0;
}

static int set_connections(struct ssh_config *to, const char *value, struct call *c)
{
        uint64_t n;

        if (units_parse_count(value, HOST_LANES - 1, &n) < 0 || n == 0)
                return call_fail(c, -EINVAL, "connections=%.64s is not 1 to %d", value,
                                 HOST_LANES - 1);
        to->bulk_lanes = (unsigned)n;
        return 0;
}

/* A file of this machine, absolute or below ~/. */
static int set_file(char **to, const char *key, const char *value, struct call *c)
{
        if (value[0] != '/' && strncmp(value, "~/", 2) != 0)
                return call_fail(c, -EINVAL, "%s is not an absolute path, nor one below ~/", key);
        return set_text(to, value);
}

static int set_pair(struct ssh_config *to, const char *key, const char *value, struct call *c)
{
        if (strcmp(key, "host") == 0)
                return set_host(to, value, c);
        if (strcmp(key, "user") == 0)
                return set_user(to, value, c);
        if (strcmp(key, "port") == 0)
                return set_port(to, value, c);
        if (strcmp(key, "jump") == 0)
                return set_jump(to, value, c);
        if (strcmp(key, "base") == 0)
                return set_directory(&to->base, key, value, c);
        if (strcmp(key, "root") == 0)
                return set_directory(&to->root, key, value, c);
        if (strcmp(key, "identity") == 0)
                return set_file(&to->identity, key, value, c);
        if (strcmp(key, "known_hosts") == 0)
                return set_file(&to->known_hosts, key, value, c);
        if (strcmp(key, "hostkey") == 0)
                return set_hostkey(to, value, c);
        if (strcmp(key, "transport") == 0)
                return set_transport(to, value, c);
        if (strcmp(key, "password_file") == 0)
                return set_file(&to->password_file, key, value, c);
        if (strcmp(key, "agent") == 0)
                return set_flag(&to->uses_agent, key, value, c);
        if (strcmp(key, "connections") == 0)
                return set_connections(to, value, c);
        if (strcmp(key, "ssh_config") == 0)
                return strcmp(value, "none") == 0 ? set_text(&to->ssh_config, value)
                                                  : set_file(&to->ssh_config, key, value, c);
        return call_fail(c, -EINVAL, "unknown key \"%.64s\"", key);
}

/* What doesn't go together. */
static int check_whole(const struct ssh_config *config, struct call *c)
{
        if (config->is_openssh && config->hostkey)
                return call_fail(c, -EOPNOTSUPP,
                                 "transport=openssh can't pin a hostkey: use known_hosts");
        if (config->is_openssh && config->password_file)
                return call_fail(c, -EOPNOTSUPP,
                                 "transport=openssh takes no password: use a key or an agent");
        if (config->is_openssh && access(SSH_PROGRAM, X_OK) < 0)
                return call_fail(c, -EOPNOTSUPP, "transport=openssh: there is no %s", SSH_PROGRAM);
        return 0;
}

/* ---- sections and creations ---- */

int ssh_config_of_section(const struct provider_config *from, struct call *c,
                          struct ssh_config *ret)
{
        struct ssh_config config = {.uses_agent = true, .bulk_lanes = HOST_LANES - 1};
        int r = 0;

        for (size_t i = 0; i < from->pair_count && r == 0; i++)
                r = set_pair(&config, from->pairs[i].key, from->pairs[i].value, c);
        if (r == 0 && config.password_file)
                r = password_check(config.password_file, c);
        if (r == 0)
                r = check_whole(&config, c);
        config.may_use_password = true;
        if (r < 0)
                ssh_config_done(&config);
        else
                *ret = config;
        return r;
}

static int copy_texts(const struct ssh_config *from, struct ssh_config *to)
{
        const struct {
                const char *from;
                char **to;
        } all[] = {{from->host, &to->host},
                   {from->user, &to->user},
                   {from->jump, &to->jump},
                   {from->base, &to->base},
                   {from->root, &to->root},
                   {from->identity, &to->identity},
                   {from->known_hosts, &to->known_hosts},
                   {from->hostkey, &to->hostkey},
                   {from->ssh_config, &to->ssh_config},
                   {from->password_file, &to->password_file}};
        int r = 0;

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) && r == 0; i++) {
                *all[i].to = NULL;
                if (all[i].from)
                        r = set_text(all[i].to, all[i].from);
        }
        return r;
}

int ssh_config_copy(const struct ssh_config *from, struct ssh_config *ret)
{
        struct ssh_config copy = {.port = from->port,
                                  .is_openssh = from->is_openssh,
                                  .uses_agent = from->uses_agent,
                                  .bulk_lanes = from->bulk_lanes,
                                  .may_use_password = from->may_use_password};
        int r = copy_texts(from, &copy);

        if (r < 0)
                ssh_config_done(&copy);
        else
                *ret = copy;
        return r;
}

static const struct {
        enum setting setting;
        const char *key;
        bool is_of_host; /* the operator's password isn't for what it names */
} named[] = {{SETTING_HOST, "host", true},          {SETTING_USER, "user", true},
             {SETTING_PORT, "port", true},          {SETTING_JUMP, "jump", true},
             {SETTING_HOSTKEY, "hostkey", true},    {SETTING_KNOWN_HOSTS, "known_hosts", true},
             {SETTING_IDENTITY, "identity", false}, {SETTING_BASE, "base", false},
             {SETTING_ROOT, "root", false},         {SETTING_TRANSPORT, "transport", false}};

static int overlay(struct ssh_config *config, const struct spec *spec, struct call *c)
{
        bool is_operators = config->host != NULL; /* the section names its host */
        int r = 0;

        /* Another host isn't got to as the section's is. */
        if (spec->text[SETTING_HOST] && config->host &&
            strcmp(spec->text[SETTING_HOST], config->host) != 0) {
                free(STEAL(config->user));
                free(STEAL(config->jump));
                free(STEAL(config->hostkey));
                free(STEAL(config->root));
                config->port = 0;
        }
        for (size_t i = 0; i < sizeof(named) / sizeof(named[0]) && r == 0; i++) {
                const char *value = spec->text[named[i].setting];

                if (!value)
                        continue;
                r = set_pair(config, named[i].key, value, c);
                if (named[i].is_of_host && is_operators)
                        config->may_use_password = false;
        }
        return r;
}

int ssh_config_of_spec(const struct ssh_config *section, const struct spec *spec, unsigned allow,
                       struct call *c, struct ssh_config *ret)
{
        struct ssh_config config;
        int r = ssh_config_copy(section, &config);

        if (r < 0)
                return r;
        if (spec->text[SETTING_USER] && !(allow & ALLOW_SSH))
                r = call_fail(c, -EPERM,
                              "another account is not allowed here: the operator allows it with "
                              "-o allow=ssh");
        if (r == 0)
                r = overlay(&config, spec, c);
        if (r == 0 && !config.host)
                r = call_fail(c, -EINVAL, "no host: name one, host=NAME");
        if (r == 0)
                r = check_whole(&config, c);
        if (r < 0)
                ssh_config_done(&config);
        else
                *ret = config;
        return r;
}

/* ---- identity ---- */

static uint64_t hash(uint64_t h, const char *text)
{
        const unsigned char is_there = text != NULL;

        if (text)
                h = hash64(h, text, strlen(text));
        return hash64(h, &is_there, 1);
}

void ssh_config_id(const struct ssh_config *config, char ret[CONFIG_ID_SIZE])
{
        uint64_t h = HASH64_START;
        char port[16];

        (void)snprintf(port, sizeof(port), "%u", config->port);
        h = hash(h, config->host);
        h = hash(h, config->user);
        h = hash(h, port);
        h = hash(h, config->jump);
        h = hash(h, config->base);
        (void)snprintf(ret, CONFIG_ID_SIZE, "%016" PRIx64, h);
}

static bool is_same(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

bool ssh_config_is_same(const struct ssh_config *a, const struct ssh_config *b)
{
        return is_same(a->host, b->host) && is_same(a->user, b->user) && a->port == b->port &&
               is_same(a->jump, b->jump) && is_same(a->base, b->base) &&
               is_same(a->identity, b->identity) && is_same(a->known_hosts, b->known_hosts) &&
               is_same(a->hostkey, b->hostkey) && a->is_openssh == b->is_openssh &&
               is_same(a->ssh_config, b->ssh_config) && a->uses_agent == b->uses_agent &&
               a->bulk_lanes == b->bulk_lanes && is_same(a->password_file, b->password_file) &&
               a->may_use_password == b->may_use_password;
}

/* ---- records ---- */

static int add_text(struct record *to, const char *key, const char *value)
{
        return value ? record_add(to, key, value) : 0;
}

int ssh_config_save(const struct ssh_config *config, int dir, const char *name)
{
        _cleanup_(record_freep) struct record *to = record_new();
        int r = to ? 0 : -ENOMEM;

        if (r == 0)
                r = add_text(to, "host", config->host);
        if (r == 0)
                r = add_text(to, "user", config->user);
        if (r == 0 && config->port)
                r = record_addf(to, "port", "%u", config->port);
        if (r == 0)
                r = add_text(to, "jump", config->jump);
        if (r == 0)
                r = add_text(to, "base", config->base);
        if (r == 0)
                r = add_text(to, "identity", config->identity);
        if (r == 0)
                r = add_text(to, "known_hosts", config->known_hosts);
        if (r == 0)
                r = add_text(to, "hostkey", config->hostkey);
        if (r == 0)
                r = add_text(to, "ssh_config", config->ssh_config);
        if (r == 0)
                r = add_text(to, "password_file", config->password_file);
        if (r == 0)
                r = record_add(to, "transport", config->is_openssh ? "openssh" : "libssh2");
        if (r == 0)
                r = record_add(to, "agent", config->uses_agent ? "yes" : "no");
        if (r == 0)
                r = record_addf(to, "connections", "%u", config->bulk_lanes);
        if (r == 0)
                r = record_add(to, "password", config->may_use_password ? "yes" : "no");
        return r < 0 ? r : record_write(to, dir, name, RECORD_SYNC);
}

int ssh_config_load(int dir, const char *name, struct ssh_config *ret)
{
        _cleanup_(record_freep) struct record *from = NULL;
        struct ssh_config config = {.bulk_lanes = 1};
        struct call c;
        int r = record_read(dir, name, &from);

        if (r < 0)
                return r;
        call_init(&c, NEVER_NS);
        for (size_t i = 0; i < record_count(from) && r == 0; i++) {
                const char *key, *value;

                record_at(from, i, &key, &value);
                r = strcmp(key, "password") == 0
                            ? set_flag(&config.may_use_password, key, value, &c)
                            : set_pair(&config, key, value, &c);
        }
        if (r == 0 && !config.host)
                r = -EINVAL;
        if (r < 0) {
                ssh_config_done(&config);
                return r == -ENOMEM ? r : -EBADMSG;
        }
        *ret = config;
        return 0;
}
