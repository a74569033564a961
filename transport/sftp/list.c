/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings: many directories at a time, breadth first, a few READDIR ahead in each.
 *
 *      waiting (a path) -> OPENDIR -> READDIRs, and READLINKs of what came -> listed, or not
 *
 * Everything is bounded, since the server may invent names for ever: entries, the memory of paths
 * that wait, links whose target is awaited, READDIRs in flight, answers without one good name.
 */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/sftp/batch.h"
#include "transport/sftp/private.h"

#define DIRS_AT_ONCE 64
#define READS_AHEAD 16 /* in one directory, once it turned out to be large */
#define READS_FIRST 2 /* most directories: one with the names, one with the end */
#define READS_MAX 256 /* in all */
#define LINKS_MAX 4096 /* awaited; the rest is told without target */
#define TARGET_MAX 1024 /* of a link; a longer one isn't told */
#define USELESS_MAX 8 /* answers in a row without a name that can be */
#define ENTRIES_MAX 10000000
#define WAITING_MAX (64u << 20) /* bytes of paths that wait */

struct waiting {
        struct list link;
        unsigned depth; /* 1: the root */
        size_t size;
        char path[]; /* below the root */
};

struct dir {
        struct job *job;
        struct waiting *what; /* NULL: free */
        char *full; /* the path for the server, while OPENDIR is in flight */
        struct sftp_op op; /* OPENDIR */
        struct sftp_op reads[READS_AHEAD];
        bool is_reading[READS_AHEAD];
        unsigned ahead; /* how many may be in flight */
        unsigned reading; /* how many are */
        unsigned links; /* of its entries, awaited */
        unsigned useless;
        bool is_at_end, is_cut; /* nothing more is asked for; something is missing */
};

/* An entry about which one more thing is asked: a link's target, or what the file is. */
struct question {
        struct sftp_op op;
        struct dir *dir;
        struct list link;
        struct stat st;
        char target[TARGET_MAX];
        char *full; /* the path for the server */
        char path[]; /* below the root */
};

struct job {
        struct sftp *s;
        struct call *call;
        const struct sftp_listing *what;
        const struct sftp_list_sink *to;
        size_t entries_max, entries;
        struct list waiting;
        size_t waiting_bytes;
        unsigned active, reading, questions;
        struct list asked; /* struct question */
        int root_error;
        struct sftp_queue q;
        struct dir dirs[DIRS_AT_ONCE];
};

/* ---- paths ---- */

static bool is_full(const struct job *j)
{
        return j->entries >= j->entries_max;
}

/* The path for the server, or NULL: too long, or out of memory. */
static char *full_path(const struct job *j, const char *path)
{
        const char *root = j->what->root;
        size_t root_size = strlen(root);
        const char *joint = root_size > 0 && *path && root[root_size - 1] != '/' ? "/" : "";
        char *full;

        if (root_size + 1 + strlen(path) > WIRE_PATH_MAX)
                return NULL;
        if (asprintf(&full, "%s%s%s", root, joint, path) < 0)
                return NULL;
        return full;
}

static bool is_skipped(const struct job *j, const char *name)
{
        for (const char *const *at = j->what->skip; at && *at; at++) {
                if (strcmp(*at, name) == 0)
                        return true;
        }
        return false;
}

static int add_waiting(struct job *j, const char *path, unsigned depth)
{
        size_t size = sizeof(struct waiting) + strlen(path) + 1;
        struct waiting *w;

        if (j->waiting_bytes + size > WAITING_MAX)
                return 0; /* isn't entered, then */
        w = malloc(size);
        if (!w)
                return -ENOMEM;
        w->depth = depth;
        w->size = size;
        memcpy(w->path, path, size - sizeof(*w));
        j->waiting_bytes += size;
        list_add_tail(&j->waiting, &w->link);
        return 0;
}

/* ---- entries ---- */

/* Tell one entry; a directory's turn to be listed may come. */
static int tell(struct dir *d, const char *path, const struct stat *st, const char *target)
{
        struct job *j = d->job;
        const char *slash = strrchr(path, '/');
        int r = j->to->entry(j->to->ctx, path, st, target);

        if (r != 0 || !S_ISDIR(st->st_mode) || d->what->depth >= j->what->depth || is_full(j) ||
            is_skipped(j, slash ? slash + 1 : path))
                return r;
        return add_waiting(j, path, d->what->depth + 1);
}

static void question_free(struct question *x)
{
        list_remove(&x->link);
        free(x->full);
        free(x);
}

/* Ask about an entry before it is told. */
static int ask(struct dir *d, const char *path, const struct stat *st, enum sftp_type type)
{
        struct job *j = d->job;
        size_t size = strlen(path) + 1;
        struct question *x = calloc(1, sizeof(*x) + size);

        if (!x)
                return -ENOMEM;
        list_init(&x->link);
        memcpy(x->path, path, size);
        x->dir = d;
        x->st = *st;
        x->full = full_path(j, path);
        if (!x->full) { /* too long to ask */
                question_free(x);
                return tell(d, path, st, NULL);
        }
        x->op = (struct sftp_op){.type = type,
                                 .path = x->full,
                                 .buffer = x->target,
                                 .size = sizeof(x->target),
                                 .ctx = x};
        list_add_tail(&j->asked, &x->link);
        d->links++;
        j->questions++;
        sftp_submit(j->s, &j->q, &x->op, 1);
        return 0;
}

static int take_name(struct dir *d, const struct sftp_name *name)
{
        struct job *j = d->job;
        struct stat st = name->st;
        const char *below = d->what->path;
        char path[WIRE_PATH_MAX + 1];
        bool may_ask = j->questions < LINKS_MAX;
        int n = snprintf(path, sizeof(path), "%s%s%s", below, *below ? "/" : "", name->name);

        j->entries++;
        if (n < 0 || (size_t)n >= sizeof(path)) { /* nobody could name it */
                d->is_cut = true;
                return 0;
        }
        if (!(st.st_mode & S_IFMT) && may_ask)
                return ask(d, path, &st, SFTP_LSTAT);
        if (!(st.st_mode & S_IFMT))
                st.st_mode |= S_IFREG;
        if (S_ISLNK(st.st_mode) && j->what->wants_targets && may_ask)
                return ask(d, path, &st, SFTP_READLINK);
        return tell(d, path, &st, NULL);
}

static int take_names(struct dir *d, struct sftp_names *names)
{
        struct sftp_name name;
        size_t cursor = 0;
        bool any = false;
        int r = 0;

        while (r == 0 && !d->is_cut && sftp_names_next(names, &cursor, &name)) {
                any = true;
                if (is_full(d->job))
                        d->is_cut = true;
                else
                        r = take_name(d, &name);
        }
        d->useless = any ? 0 : d->useless + 1;
        if (d->useless > USELESS_MAX)
                d->is_cut = true;
        return r;
}

/* ---- directories ---- */

static void submit_reads(struct dir *d)
{
        struct job *j = d->job;
        struct sftp_op *ops[READS_AHEAD];
        size_t n = 0;

        for (size_t i = 0; i < READS_AHEAD && !d->is_at_end && !d->is_cut; i++) {
                if (d->is_reading[i] || d->reading >= d->ahead ||
                    (j->reading >= READS_MAX && d->reading > 0))
                        continue;
                d->reads[i] = (struct sftp_op){
                        .type = SFTP_READDIR, .handle = d->op.handle, .ctx = d, .step = 1};
                d->is_reading[i] = true;
                d->reading++;
                j->reading++;
                ops[n++] = &d->reads[i];
        }
        sftp_submit_each(j->s, &j->q, ops, n);
}

static void free_dir(struct dir *d)
{
        d->job->waiting_bytes -= d->what->size;
        free(d->what);
        d->what = NULL;
        d->job->active--;
}

/* All answers of a directory may be in. */
static int end_dir(struct dir *d)
{
        struct job *j = d->job;
        int r = 0;

        if (d->reading > 0 || !(d->is_at_end || d->is_cut))
                return 0;
        if (d->op.handle.size > 0) {
                sftp_close_later(j->s, &d->op.handle);
                d->op.handle.size = 0;
        }
        if (d->links > 0)
                return 0;
        if (!d->is_cut)
                r = j->to->listed(j->to->ctx, d->what->path);
        free_dir(d);
        return r;
}

static int take_dir(struct dir *d)
{
        if (d->op.error < 0) {
                if (d->what->depth == 1)
                        d->job->root_error = sftp_explain(d->job->s, d->job->call, &d->op);
                d->is_cut = true;
        }
        free(d->full);
        d->full = NULL;
        submit_reads(d);
        return end_dir(d);
}

static int take_reading(struct dir *d, struct sftp_op *op)
{
        struct sftp_names *names = op->names;
        int r = 0;

        op->names = NULL;
        d->is_reading[op - d->reads] = false;
        d->reading--;
        d->job->reading--;
        if (op->error < 0)
                d->is_cut = true;
        else if (!names)
                d->is_at_end = true;
        else
                r = take_names(d, names);
        sftp_names_free(names);
        if (r != 0)
                return r;
        if (d->ahead < READS_AHEAD && sftp_is_ordered(d->job->s))
                d->ahead *= 2;
        submit_reads(d);
        return end_dir(d);
}

static int take_question(struct question *x)
{
        struct dir *d = x->dir;
        const char *target = x->op.type == SFTP_READLINK && x->op.error == 0 ? x->target : NULL;
        int r;

        if (x->op.type == SFTP_LSTAT) {
                if (x->op.error == 0)
                        x->st = x->op.st;
                if (!(x->st.st_mode & S_IFMT))
                        x->st.st_mode |= S_IFREG; /* all that is left to say */
        }
        d->links--;
        d->job->questions--;
        r = tell(d, x->path, &x->st, target);
        question_free(x);
        return r != 0 ? r : end_dir(d);
}

/* Open the next that waits. 1 when it is entered, 0 not. */
static int open_dir(struct job *j, struct dir *d)
{
        *d = (struct dir){.job = j,
                          .ahead = sftp_is_ordered(j->s) ? READS_FIRST : 1,
                          .what = container_of(j->waiting.next, struct waiting, link)};
        list_remove(&d->what->link);
        j->active++;
        d->full = full_path(j, d->what->path);
        if (!d->full && d->what->depth == 1)
                return -ENAMETOOLONG;
        if (!d->full || (is_full(j) && d->what->depth > 1)) {
                free(d->full);
                free_dir(d);
                return 0;
        }
        d->op = (struct sftp_op){.type = SFTP_OPENDIR, .path = d->full, .ctx = d};
        sftp_submit(j->s, &j->q, &d->op, 1);
        return 1;
}

/* As many as may be. */
static int open_dirs(struct job *j)
{
        for (unsigned i = 0; i < DIRS_AT_ONCE; i++) {
                int r = j->dirs[i].what ? 1 : 0;

                while (r == 0 && !list_is_empty(&j->waiting))
                        r = open_dir(j, &j->dirs[i]);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- all ---- */

static int take(struct sftp_op *op)
{
        struct dir *d;

        switch ((unsigned)op->type) {
        case SFTP_OPENDIR: return take_dir(op->ctx);
        case SFTP_READDIR: d = op->ctx; return take_reading(d, op);
        default: return take_question(op->ctx);
        }
}

static int run(struct job *j)
{
        int r = open_dirs(j);

        while (r == 0 && j->active > 0) {
                struct sftp_op *op;

                r = sftp_next(&j->q, j->call, &op);
                for (; r == 0 && op; op = r == 0 ? sftp_next_now(&j->q) : NULL)
                        r = op->is_lost ? queue_lost(j->s, j->call) : take(op);
                if (r == 0)
                        r = open_dirs(j);
        }
        return r != 0 ? r : j->root_error;
}

/* Also when it ended in the middle. */
static void done(struct job *j)
{
        sftp_queue_done(&j->q);
        list_for_each_safe (at, tmp, &j->asked)
                question_free(container_of(at, struct question, link));
        list_for_each_safe (at, tmp, &j->waiting)
                free(container_of(at, struct waiting, link));
        for (unsigned i = 0; i < DIRS_AT_ONCE; i++) {
                struct dir *d = &j->dirs[i];

                if (!d->what)
                        continue;
                if (d->op.handle.size > 0)
                        sftp_close_later(j->s, &d->op.handle);
                free(d->full);
                free(d->what);
        }
}

int sftp_list(struct sftp *s, struct call *c, const struct sftp_listing *what,
              const struct sftp_list_sink *to)
{
        _cleanup_(freep) struct job *j = calloc(1, sizeof(*j));
        int r;

        if (!j)
                return call_fail_errno(c, -ENOMEM, "list");
        j->s = s;
        j->call = c;
        j->what = what;
        j->to = to;
        j->entries_max = what->entries_max ? what->entries_max : ENTRIES_MAX;
        list_init(&j->waiting);
        list_init(&j->asked);
        sftp_queue_init(&j->q);
        r = add_waiting(j, "", 1);
        if (r == 0)
                r = run(j);
        done(j);
        return r;
}
