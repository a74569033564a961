/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Call-throughs to the providers' tables: arguments are asserted (they are ours), what a service
 * lacks is refused with a sentence, and results are what the contract says.
 */

#include "providers/provider.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/registry.h"

/* ---- states ---- */

static const char *const state_names[BOX_STATE_COUNT] = {
        [BOX_CREATING] = "creating", [BOX_STARTING] = "starting", [BOX_RUNNING] = "running",
        [BOX_PAUSING] = "pausing",   [BOX_PAUSED] = "paused",     [BOX_RESUMING] = "resuming",
        [BOX_STOPPING] = "stopping", [BOX_STOPPED] = "stopped",   [BOX_DESTROYING] = "destroying",
        [BOX_GONE] = "gone",         [BOX_ERROR] = "error",       [BOX_UNKNOWN] = "unknown",
};

const char *box_state_name(enum box_state s)
{
        return (unsigned)s < BOX_STATE_COUNT ? state_names[s] : "unknown";
}

enum box_state box_state_parse(const char *word)
{
        for (unsigned i = 0; i < BOX_STATE_COUNT; i++) {
                if (strcmp(state_names[i], word) == 0)
                        return (enum box_state)i;
        }
        return BOX_UNKNOWN;
}

/* ---- results ---- */

/* 0 or -errno, and a sentence with each failure. */
static int checked(struct call *c, int r, const char *what)
{
        assert(r <= 0);
        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "%s", what) : r;
}

static int lacks(const struct provider *p, struct call *c, const char *what)
{
        return call_fail(c, -EOPNOTSUPP, "the provider %s has no %s", p->ops->name, what);
}

/* ---- providers ---- */

int provider_open(const char *kind, const struct provider_config *config, struct call *c,
                  struct provider **ret)
{
        const struct provider_ops *ops = registry_find(kind);
        struct provider *p;
        int r;

        assert(config->instance && config->state_dir >= 0 && config->state_path && config->owner);
        if (!ops)
                return call_fail(c, -EINVAL, "no provider is called \"%s\"", kind);
        r = checked(c, ops->open(config, c, &p), "open");
        if (r < 0)
                return r;
        p->ops = ops;
        p->allow = config->allow;
        (void)snprintf(p->instance, sizeof(p->instance), "%s", config->instance);
        *ret = p;
        return 0;
}

void provider_close(struct provider *p)
{
        if (p)
                p->ops->close(p);
}

int provider_check(struct provider *p, struct call *c, const struct spec *spec)
{
        return p->ops->check ? checked(c, p->ops->check(p, c, spec), "check") : 0;
}

int provider_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret)
{
        assert(spec->key[0] && spec->name[0]);
        return checked(c, p->ops->create(p, c, spec, ret), "create");
}

int provider_list(struct provider *p, struct call *c, struct box_sink *to)
{
        return checked(c, p->ops->list(p, c, to), "list");
}

int provider_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                    struct box **ret)
{
        assert(id && id[0]);
        return checked(c, p->ops->attach(p, c, id, spec, ret), "attach");
}

bool provider_can(const struct provider *p, enum provider_op op)
{
        switch (op) {
        case PROVIDER_OP_START: return p->ops->start != NULL;
        case PROVIDER_OP_STOP: return p->ops->stop != NULL;
        case PROVIDER_OP_PAUSE: return p->ops->pause != NULL;
        case PROVIDER_OP_RESUME: return p->ops->resume != NULL;
        case PROVIDER_OP_STDIN: return p->ops->exec_write != NULL;
        case PROVIDER_OP_SIGNAL: return p->ops->exec_signal != NULL;
        }
        return false;
}

/* ---- boxes ---- */

int box_destroy(struct box *b, struct call *c)
{
        return checked(c, b->provider->ops->destroy(b, c), "destroy");
}

int box_get_state(struct box *b, struct call *c, struct box_status *ret)
{
        return checked(c, b->provider->ops->state(b, c, ret), "state");
}

int box_start(struct box *b, struct call *c, const struct spec *spec)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->start ? checked(c, ops->start(b, c, spec), "start")
                          : lacks(b->provider, c, "start");
}

int box_stop(struct box *b, struct call *c)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->stop ? checked(c, ops->stop(b, c), "stop") : lacks(b->provider, c, "stop");
}

int box_pause(struct box *b, struct call *c)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->pause ? checked(c, ops->pause(b, c), "pause") : lacks(b->provider, c, "pause");
}

int box_resume(struct box *b, struct call *c)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->resume ? checked(c, ops->resume(b, c), "resume")
                           : lacks(b->provider, c, "resume");
}

/* ---- files ---- */

/* Ours: built from names that were checked. */
static void assert_path(const char *path)
{
        assert(path && path[0] != '/');
}

int box_list(struct box *b, struct call *c, const struct file_listing *what,
             struct file_list_sink *to)
{
        const struct provider_ops *ops = b->provider->ops;

        assert_path(what->path);
        assert(what->depth > 0);
        return ops->list_files ? checked(c, ops->list_files(b, c, what, to), "list files")
                               : lacks(b->provider, c, "files of its own");
}

int box_stat(struct box *b, struct call *c, const char *path, struct stat *ret)
{
        const struct provider_ops *ops = b->provider->ops;

        assert_path(path);
        return ops->stat ? checked(c, ops->stat(b, c, path, ret), "stat")
                         : lacks(b->provider, c, "files of its own");
}

int box_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size)
{
        const struct provider_ops *ops = b->provider->ops;

        assert_path(path);
        return ops->readlink ? checked(c, ops->readlink(b, c, path, ret, size), "readlink")
                             : lacks(b->provider, c, "files of its own");
}

int box_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
              size_t size_max, struct file_sink *to)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->fetch ? checked(c, ops->fetch(b, c, paths, count, size_max, to), "fetch")
                          : lacks(b->provider, c, "files of its own");
}

int box_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                  struct stat *ret_st)
{
        const struct provider_ops *ops = b->provider->ops;
        int r;

        assert_path(path);
        if (!ops->file_open)
                return lacks(b->provider, c, "files of its own");
        r = checked(c, ops->file_open(b, c, path, ret, ret_st), "open");
        if (r == 0)
                (*ret)->box = b;
        return r;
}

ssize_t box_file_read(struct box_file *f, struct call *c, void *data, size_t size, uint64_t offset,
                      struct stat *ret_st)
{
        ssize_t n = f->box->provider->ops->file_read(f, c, data, size, offset, ret_st);

        assert(n < 0 || (size_t)n <= size);
        return n < 0 ? checked(c, (int)n, "read") : n;
}

void box_file_close(struct box_file *f)
{
        if (f)
                f->box->provider->ops->file_close(f);
}

int box_apply(struct box *b, struct call *c, struct change *changes, size_t count)
{
        const struct provider_ops *ops = b->provider->ops;

        for (size_t i = 0; i < count; i++) {
                assert_path(changes[i].path);
                changes[i].error = -EINPROGRESS;
                changes[i].has_st = false;
        }
        return ops->apply ? checked(c, ops->apply(b, c, changes, count), "change files")
                          : lacks(b->provider, c, "files of its own");
}

int box_statfs(struct box *b, struct call *c, struct statvfs *ret)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->statfs ? checked(c, ops->statfs(b, c, ret), "statfs")
                           : lacks(b->provider, c, "files of its own");
}

int box_workdir(struct box *b, struct call *c, char *ret, size_t size)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->workdir ? checked(c, ops->workdir(b, c, ret, size), "working directory")
                            : lacks(b->provider, c, "files of its own");
}

/* ---- the direct volume ---- */

int box_root(struct box *b, struct call *c, struct box_root *ret)
{
        const struct provider_ops *ops = b->provider->ops;

        return ops->root ? checked(c, ops->root(b, c, ret), "root")
                         : lacks(b->provider, c, "directory of this machine");
}

void box_set_timeout(struct box *b, const struct spec *spec)
{
        assert(spec);
        if (b->provider->ops->set_timeout)
                b->provider->ops->set_timeout(b, spec);
}

bool box_is_quiet(const struct box *b)
{
        return b->provider->ops->is_quiet && b->provider->ops->is_quiet(b);
}

void box_release(struct box *b)
{
        if (b)
                b->provider->ops->release(b);
}

/* ---- commands ---- */

int exec_start(struct box *b, struct call *c, const struct exec_req *in, struct exec_sink *to,
               struct exec **ret)
{
        assert(in->number > 0 && in->argv && in->argv[0] && to->output && to->end);
        return checked(c, b->provider->ops->exec_start(b, c, in, to, ret), "exec");
}

int exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                const uint64_t have[2], struct exec_sink *to, struct exec **ret)
{
        const struct provider_ops *ops = b->provider->ops;

        assert(number > 0 && to->output && to->end);
        return ops->exec_attach ? checked(c, ops->exec_attach(b, c, number, id, have, to, ret),
                                          "attach to the command")
                                : lacks(b->provider, c, "way back to a running command");
}

int exec_write(struct exec *x, struct call *c, const void *data, size_t size, bool is_last)
{
        const struct provider *p = x->box->provider;

        assert(size <= EXEC_STDIN_WINDOW && (data || size == 0));
        return p->ops->exec_write
                       ? checked(c, p->ops->exec_write(x, c, data, size, is_last), "stdin")
                       : lacks(p, c, "stdin");
}

int exec_signal(struct exec *x, struct call *c, int signal)
{
        const struct provider *p = x->box->provider;

        return p->ops->exec_signal ? checked(c, p->ops->exec_signal(x, c, signal), "signal")
                                   : lacks(p, c, "signals");
}

void exec_release(struct exec *x)
{
        if (x)
                x->box->provider->ops->exec_release(x);
}

/* ---- specs ---- */

void spec_init(struct spec *s)
{
        *s = (struct spec){0};
}

static void free_text(char *text)
{
        if (text)
                explicit_bzero(text, strlen(text));
        free(text);
}

static void free_pairs(struct pair *list, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                free_text(list[i].key);
                free_text(list[i].value);
        }
        free(list);
}

void spec_done(struct spec *s)
{
        for (unsigned i = 0; i < SETTING_COUNT; i++)
                free_text(s->text[i]);
        free_pairs(s->env, s->env_count);
        free_pairs(s->labels, s->label_count);
        for (size_t i = 0; i < s->mount_count; i++) {
                free(s->mounts[i].host);
                free(s->mounts[i].inside);
        }
        free(s->mounts);
        *s = (struct spec){0};
}
