/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a sandbox, by our agent or by a shell; see files.h. */

#include "providers/inside/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/agent/direct.h"
#include "providers/agent/pool.h"
#include "providers/inside/large.h"
#include "providers/shell/forms.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"
#include "transport/base/log.h"
#include "transport/base/lock.h"

struct inside_files {
        struct box *box; /* fixed, as are all up to the lock */
        const struct inside_ops *ops;
        struct agent_opener opener;
        struct agent_pool *agents;
        struct large large;
        struct shell_opener shell_opener;
        struct shell *shell;
        struct shell_by_helpers by;

        struct mutex lock;
        /* guarded by lock */
        char *root; /* of forms */
        struct forms forms; /* fixed once is_by_shell */
        bool is_by_shell;
};

struct inside_file {
        struct box_file base;
        struct inside_files *files;
        struct agent_file file; /* without a path */
        char *path; /* by the shell; else NULL, or large.h may read it, of this version: */
        struct stat opened;
        bool is_by_shell;
};

/* ---- the agent ---- */

static int start(struct inside_files *f, struct call *c, struct agent **ret, struct stream **ret_s)
{
        struct agent *a;
        int r = agent_new(&a);

        if (r < 0)
                return r;
        r = f->ops->open_files(f->box, c, agent_events(a), ret_s);
        if (r == 0)
                r = agent_start(a, c, *ret_s);
        if (r < 0)
                agent_unref(a);
        else
                *ret = a;
        return r;
}

/* It isn't told for good on one word: short of memory or processes, a start fails now and then. */
static int start_surely(struct inside_files *f, struct call *c, struct agent **ret,
                        struct stream **ret_s)
{
        int r = start(f, c, ret, ret_s);

        if (r == -ENOEXEC) {
                c->sentence[0] = '\0';
                r = start(f, c, ret, ret_s);
        }
        if (r == -ENOEXEC || r == -ENOENT || r == -EACCES)
                r = call_wrap(c, -EOPNOTSUPP, "our program can't run in this sandbox");
        return r;
}

/* Past whoever started it, where it is on this machine and may be reached. */
static int go_direct(struct inside_files *f, struct call *c, struct stream *s, struct agent **a)
{
        struct agent *direct = NULL;
        pid_t pid = 0;
        int r = f->ops->pid ? f->ops->pid(f->box, c, s, &pid) : -EOPNOTSUPP;

        if (r == 0)
                r = agent_go_direct(*a, c, pid, &direct);
        if (r == -EOPNOTSUPP) {
                c->sentence[0] = '\0';
                return 0;
        }
        if (r < 0)
                return r;
        agent_unref(*a);
        *a = direct;
        return 0;
}

static int open_agent(struct agent_opener *o, struct call *c, struct agent *like,
                      struct agent **ret)
{
        struct inside_files *f = container_of(o, struct inside_files, opener);
        struct stream *s = NULL;
        struct agent *a = NULL;
        int r = like ? agent_split(like, c, ret) : -EOPNOTSUPP;

        if (r == 0)
                return 0;
        c->sentence[0] = '\0';
        r = start_surely(f, c, &a, &s);
        if (r == 0)
                r = go_direct(f, c, s, &a);
        if (r < 0)
                agent_unref(a);
        else
                *ret = a;
        return r;
}

/* ---- the shell ---- */

static int open_shell(struct shell_opener *o, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        struct inside_files *f = container_of(o, struct inside_files, shell_opener);

        return f->ops->open_shell(f->box, c, command, events, ret);
}

/* The working directory, kept. NULL: out of memory. */
static const char *root_of(struct inside_files *f, const char *workdir)
{
        const char *root;

        mutex_lock(&f->lock);
        if (!f->root)
                f->root = strdup(workdir);
        root = f->root;
        mutex_unlock(&f->lock);
        return root;
}

/* From now on; 0, or that there is none. */
static int go_by_shell(struct inside_files *f, struct call *c)
{
        struct forms forms = {.by = &f->by.runner};
        struct inside_facts facts;
        char why[CALL_SENTENCE_MAX];
        int r = f->ops->facts(f->box, c, &facts);

        if (r < 0)
                return r;
        forms.root = root_of(f, facts.workdir);
        if (!forms.root)
                return -ENOMEM;
        (void)snprintf(why, sizeof(why), "%s", c->sentence);
        r = forms_probe(&forms, c);
        if (r == -EOPNOTSUPP && f->ops->scripts) {
                forms.by = f->ops->scripts(f->box);
                r = forms_probe(&forms, c);
        }
        if (r == -EOPNOTSUPP || r == -ENOENT || r == -EPROTO)
                return call_fail(c, -EOPNOTSUPP, "%.300s; %.300s", why, c->sentence);
        if (r < 0)
                return r;
        mutex_lock(&f->lock);
        if (!f->is_by_shell)
                f->forms = forms;
        f->is_by_shell = true;
        mutex_unlock(&f->lock);
        c->sentence[0] = '\0';
        return 0;
}

/* NULL: by agents. */
static const struct forms *forms_of(struct inside_files *f)
{
        bool is_by_shell;

        mutex_lock(&f->lock);
        is_by_shell = f->is_by_shell;
        mutex_unlock(&f->lock);
        return is_by_shell ? &f->forms : NULL;
}

/* ---- of a sandbox ---- */

void inside_files_free(struct inside_files *f)
{
        if (!f)
                return;
        agent_pool_free(f->agents);
        shell_free(f->shell);
        free(f->root);
        mutex_done(&f->lock);
        free(f);
}

int inside_files_new(struct box *b, const struct inside_ops *ops, struct inside_files **ret)
{
        struct inside_files *f = calloc(1, sizeof(*f));

        if (!f)
                return -ENOMEM;
        mutex_init(&f->lock);
        f->box = b;
        f->ops = ops;
        f->opener.open = open_agent;
        f->shell_opener = (struct shell_opener){.open = open_shell, .ended = -EHOSTUNREACH};
        if (agent_pool_new(&f->opener, &f->agents) < 0 ||
            shell_new(&f->shell_opener, &f->shell) < 0) {
                inside_files_free(f);
                return -ENOMEM;
        }
        f->by = shell_by_helpers(f->shell);
        f->large.box = b;
        f->large.ops = ops;
        f->large.agents = f->agents;
        *ret = f;
        return 0;
}

/*
 * What became of a call: positive, it is to be made again, by the shell. An agent, or a shell, that
 * ended: perhaps the sandbox has.
 */
static int end(struct inside_files *f, struct call *c, int r)
{
        struct call quiet;

        if (r == -EOPNOTSUPP && !forms_of(f)) {
                r = go_by_shell(f, c);
                return r < 0 ? r : 1;
        }
        if (r != -EHOSTUNREACH && r != -ETIMEDOUT && r != -ESTALE)
                return r;
        f->ops->missed(f->box);
        call_init(&quiet, c->deadline_ns);
        if (f->ops->check_runs(f->box, &quiet) == -EHOSTDOWN)
                return call_fail(c, -EHOSTDOWN, "%s", quiet.sentence);
        return r;
}

void inside_warm(struct inside_files *f, struct call *c)
{
        if (!forms_of(f) && agent_pool_warm(f->agents, c) < 0)
                log_debug(f->ops->name, "%s: %s, ignoring", f->box->id, c->sentence);
}

/* ---- the table's ---- */

int inside_list(struct inside_files *f, struct call *c, const struct file_listing *what,
                struct file_list_sink *to)
{
        int r = f->ops->check_runs(f->box, c);

        if (r < 0)
                return r;
        do {
                const struct forms *by = forms_of(f);

                r = end(f, c,
                        by ? forms_list(by, c, what, to) : agent_pool_list(f->agents, c, what, to));
        } while (r > 0);
        return r;
}

int inside_stat(struct inside_files *f, struct call *c, const char *path, struct stat *ret)
{
        int r = f->ops->check_runs(f->box, c);

        if (r < 0)
                return r;
        do {
                const struct forms *by = forms_of(f);

                r = end(f, c,
                        by ? forms_stat(by, c, path, ret)
                           : agent_pool_stat(f->agents, c, path, ret));
        } while (r > 0);
        return r;
}

int inside_readlink(struct inside_files *f, struct call *c, const char *path, char *ret,
                    size_t size)
{
        int r = f->ops->check_runs(f->box, c);

        if (r < 0)
                return r;
        do {
                const struct forms *by = forms_of(f);

                r = end(f, c,
                        by ? forms_readlink(by, c, path, ret, size)
                           : agent_pool_readlink(f->agents, c, path, ret, size));
        } while (r > 0);
        return r;
}

int inside_fetch(struct inside_files *f, struct call *c, const char *const *paths, size_t count,
                 size_t size_max, struct file_sink *to)
{
        int r = f->ops->check_runs(f->box, c);

        if (r < 0)
                return r;
        do {
                const struct forms *by = forms_of(f);

                r = end(f, c,
                        by ? forms_fetch(by, c, paths, count, size_max, to)
                           : agent_pool_fetch(f->agents, c, paths, count, size_max, to));
        } while (r > 0);
        return r;
}

int inside_apply(struct inside_files *f, struct call *c, struct change *changes, size_t count)
{
        int r = f->ops->check_runs(f->box, c);

        if (r < 0)
                return r;
        do {
                const struct forms *by = forms_of(f);

                r = end(f, c,
                        by ? forms_apply(by, c, changes, count)
                           : large_apply(&f->large, c, changes, count));
        } while (r > 0);
        return r;
}

int inside_statfs(struct inside_files *f, struct call *c, struct statvfs *ret)
{
        int r = f->ops->check_runs(f->box, c);

        if (r < 0)
                return r;
        do {
                const struct forms *by = forms_of(f);

                r = end(f, c, by ? forms_statfs(by, c, ret) : agent_pool_statfs(f->agents, c, ret));
        } while (r > 0);
        return r;
}

/* ---- parts of files ---- */

static int open_by_shell(const struct forms *by, struct call *c, const char *path,
                         struct inside_file *file, struct stat *ret_st)
{
        int r = forms_stat(by, c, path, ret_st);

        if (r < 0)
                return r;
        if (!S_ISREG(ret_st->st_mode))
                return -EINVAL;
        file->path = strdup(path);
        file->is_by_shell = true;
        return file->path ? 0 : -ENOMEM;
}

static int open_by_agent(struct inside_files *f, struct call *c, const char *path,
                         struct inside_file *file, struct stat *ret_st)
{
        int r = agent_pool_open(f->agents, c, path, !large_is_on(&f->large), &file->file, ret_st);

        if (r == 0 && large_may_read(&f->large, path, ret_st)) {
                file->path = strdup(path); /* NULL: by the agent */
                file->opened = *ret_st;
        }
        return r;
}

int inside_file_open(struct inside_files *f, struct call *c, const char *path,
                     struct box_file **ret, struct stat *ret_st)
{
        struct inside_file *file = calloc(1, sizeof(*file));
        int r = file ? f->ops->check_runs(f->box, c) : -ENOMEM;

        if (r == 0) {
                do {
                        const struct forms *by = forms_of(f);

                        r = end(f, c,
                                by ? open_by_shell(by, c, path, file, ret_st)
                                   : open_by_agent(f, c, path, file, ret_st));
                } while (r > 0);
        }
        if (r < 0) {
                free(file);
                return r;
        }
        file->base.box = f->box;
        file->files = f;
        *ret = &file->base;
        return 0;
}

static ssize_t read_by_agent(struct inside_file *file, struct call *c, void *data, size_t size,
                             uint64_t offset, struct stat *ret_st)
{
        ssize_t n = -EOPNOTSUPP;

        if (file->path)
                n = large_read(&file->files->large, c, file->path, &file->opened, data, size,
                               offset);
        if (n == -EOPNOTSUPP)
                return agent_file_read(&file->file, c, data, size, offset, ret_st);
        if (n >= 0 && ret_st)
                *ret_st = file->opened;
        return n;
}

ssize_t inside_file_read(struct box_file *base, struct call *c, void *data, size_t size,
                         uint64_t offset, struct stat *ret_st)
{
        struct inside_file *file = container_of(base, struct inside_file, base);
        struct inside_files *f = file->files;
        int r = f->ops->check_runs(f->box, c);
        ssize_t n;

        if (r < 0)
                return r;
        n = file->is_by_shell ? forms_read(forms_of(f), c, file->path, data, size, offset, ret_st)
                              : read_by_agent(file, c, data, size, offset, ret_st);
        return n < 0 ? end(f, c, (int)n) : n;
}

void inside_file_close(struct box_file *base)
{
        struct inside_file *file = container_of(base, struct inside_file, base);

        if (!file->is_by_shell)
                agent_file_close(&file->file);
        free(file->path);
        free(file);
}
