/* SPDX-License-Identifier: Apache-2.0 */
/* What the options leave to the user and the system: paths, the configuration file, built-in kinds. */

#include "fs/options.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/registry.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/names.h"
#include "transport/base/path.h"

#define DEFAULT_PROVIDER "local"
#define SSH_PROVIDER "ssh"

/* DIR/NAME, or -ENOMEM. */
static int join(char **to, const char *dir, const char *name, struct call *c)
{
        char *path;

        if (asprintf(&path, "%s/%s", dir, name) < 0)
                return call_fail(c, -ENOMEM, "out of memory");
        free(*to);
        *to = path;
        return 0;
}

/* The variable's value, where it is an absolute path. */
static const char *absolute_env(const char *name)
{
        const char *value = getenv(name); /* NOLINT(concurrency-mt-unsafe): nothing sets any */

        return value && value[0] == '/' ? value : NULL;
}

/* The user's home; NULL: none is known. */
static const char *home(void)
{
        const char *value = absolute_env("HOME");
        const struct passwd *user;

        if (value)
                return value;
        user = getpwuid(geteuid()); /* NOLINT(concurrency-mt-unsafe): before any thread */
        return user && user->pw_dir && user->pw_dir[0] == '/' ? user->pw_dir : NULL;
}

static int complete_state(struct options *o, struct call *c)
{
        const char *dir = absolute_env("XDG_STATE_HOME");

        if (o->state_path)
                return 0;
        if (dir)
                return join(&o->state_path, dir, "sbxfs", c);
        if (geteuid() == 0)
                return options_set_text(&o->state_path, "/var/lib/sbxfs", c);
        dir = home();
        if (!dir)
                return call_fail(c, -EINVAL, "no home directory; give -o state=DIR");
        return join(&o->state_path, dir, ".local/state/sbxfs", c);
}

/* The default file need not be there; o->config_path is NULL then. */
static int complete_config_path(struct options *o, struct call *c)
{
        const char *dir = absolute_env("XDG_CONFIG_HOME");
        int r = 0;

        if (o->config_path)
                return 0;
        if (dir)
                r = join(&o->config_path, dir, "sbxfs/config.ini", c);
        else if (geteuid() == 0)
                r = options_set_text(&o->config_path, "/etc/sbxfs/config.ini", c);
        else if ((dir = home()))
                r = join(&o->config_path, dir, ".config/sbxfs/config.ini", c);
        if (r == 0 && o->config_path && access(o->config_path, F_OK) < 0 &&
            (errno == ENOENT || errno == ENOTDIR)) {
                free(o->config_path);
                o->config_path = NULL;
        }
        return r;
}

/* Absolute, by the working directory at the start. */
static int make_absolute(char **path, struct call *c)
{
        char cwd[PATH_MAX];

        if (!*path || (*path)[0] == '/')
                return 0;
        if (!getcwd(cwd, sizeof(cwd)))
                return call_fail_errno(c, -errno, "the working directory");
        return join(path, cwd, *path, c);
}

/* Without links, as the kernel shows it in mountinfo. Crosses no mount that is dead: that takes
 * a stat. */
static int resolve_mountpoint(struct options *o, struct call *c)
{
        char *path = realpath(o->mountpoint, NULL);

        if (!path)
                return call_fail_errno(c, -errno, "%s", o->mountpoint);
        free(o->mountpoint);
        o->mountpoint = path;
        if (strcmp(path, "/") == 0)
                return call_fail(c, -EINVAL, "/ can't be the mount point");
        return 0;
}

/* The deepest directory of `path` that is there, without links, and the rest as it was. */
static int resolve_state(struct options *o, struct call *c)
{
        _cleanup_(freep) char *head = strdup(o->state_path), *real = NULL;
        size_t size;

        if (!head)
                return call_fail(c, -ENOMEM, "out of memory");
        for (size = strlen(head); size > 1; size--) {
                if (o->state_path[size] != '/' && o->state_path[size] != '\0')
                        continue;
                head[size] = '\0';
                real = realpath(head, NULL);
                if (real || (errno != ENOENT && errno != ENOTDIR))
                        break;
        }
        if (!real)
                return call_fail_errno(c, -errno, "%s", head);
        while (o->state_path[size] == '/')
                size++;
        if (o->state_path[size] == '\0')
                return options_set_text(&o->state_path, real, c);
        return join(&o->state_path, real, o->state_path + size, c);
}

/* Whether creations may name hosts of their own, or sections by provider=ssh host=NAME. */
static bool wants_ssh(const struct config *config, unsigned allow)
{
        for (size_t i = 0; i < config->count; i++)
                if (strcmp(config->sections[i].kind, SSH_PROVIDER) == 0)
                        return true;
        return (allow & ALLOW_SSH) && registry_find(SSH_PROVIDER);
}

/* Kinds whose service is there by the environment's word. */
static int add_those_there(struct config *config)
{
        const struct provider_ops *ops;
        int r = 0;

        for (size_t i = 0; r == 0 && (ops = registry_at(i)); i++)
                if (ops->is_there && ops->is_there())
                        r = config_add_builtin(config, ops->name);
        return r;
}

/*
 * Kinds that need no section: the default, the one that -o provider names, ssh where it is of use,
 * and what is there.
 */
static int add_builtins(struct config *config, const char *provider, unsigned allow)
{
        int r = config_add_builtin(config, DEFAULT_PROVIDER);

        if (r == 0 && wants_ssh(config, allow))
                r = config_add_builtin(config, SSH_PROVIDER);
        if (r == 0)
                r = add_those_there(config);
        if (r == 0 && provider && registry_find(provider))
                r = config_add_builtin(config, provider);
        return r;
}

static int complete_config(struct options *o, struct call *c)
{
        const char *words[64] = {0}, *nearest;
        int r;

        if (o->config_path) {
                r = config_read(o->config_path, &o->config, c);
                if (r < 0)
                        return r;
        }
        if (add_builtins(&o->config, o->provider, o->allow) < 0)
                return call_fail(c, -ENOMEM, "out of memory");
        if (!o->provider)
                return options_set_text(&o->provider, DEFAULT_PROVIDER, c);
        if (config_find(&o->config, o->provider))
                return 0;
        for (size_t i = 0; i < o->config.count && i + 1 < sizeof(words) / sizeof(words[0]); i++)
                words[i] = o->config.sections[i].instance;
        nearest = name_nearest(o->provider, words);
        return call_fail(c, -EINVAL, "-o provider=%s: there is none%s%s%s", o->provider,
                         nearest ? "; did you mean \"" : "", nearest ? nearest : "",
                         nearest ? "\"?" : "");
}

int options_complete(struct options *o, struct call *c)
{
        int r = resolve_mountpoint(o, c);

        if (r == 0)
                r = complete_state(o, c);
        if (r == 0)
                r = make_absolute(&o->state_path, c);
        if (r == 0)
                r = resolve_state(o, c);
        if (r == 0)
                r = complete_config_path(o, c);
        if (r == 0)
                r = make_absolute(&o->config_path, c);
        if (r < 0)
                return r;
        if (path_is_within(o->state_path, o->mountpoint))
                return call_fail(c, -EINVAL, "the state directory %s is inside of the mount point",
                                 o->state_path);
        if (o->config_path && path_is_within(o->config_path, o->mountpoint))
                return call_fail(c, -EINVAL,
                                 "the configuration file %s is inside of the mount point",
                                 o->config_path);
        if (o->uid_range && geteuid() != 0)
                return call_fail(c, -EINVAL,
                                 "-o uid-range: only root can give sandboxes uids of their own");
        return complete_config(o, c);
}

int options_reload(const struct options *o, struct call *c)
{
        struct config now = CONFIG_INIT;
        bool is_same;
        int r = o->config_path ? config_read(o->config_path, &now, c) : 0;

        if (r == 0)
                r = add_builtins(&now, o->provider, o->allow);
        if (r < 0) {
                config_done(&now);
                return r;
        }
        is_same = config_is_same(&o->config, &now);
        config_done(&now);
        return is_same ? 0
                       : call_fail(c, -EOPNOTSUPP,
                                   "%s has changed; that counts from the next mount on",
                                   o->config_path);
}
