/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open directories. The names are those that were there at the first read, or at the latest
 * rewinddir: an offset is a place among them. One reader at a time per handle; another waits for it,
 * holding no lock.
 */

#include "fs/volume/cached.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/contents.h"
#include "fs/volume/journal.h"
#include "fs/volume/refresh.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define DOTS 2 /* "." and ".." come first */
#define ASKS_MAX 3
#define NAMES_MAX 16000000 /* in one directory: their places are 32 bits */

struct vol_dir {
        struct node_open open; /* first: a handle is found by its node */

        struct mutex lock;
        struct cond idle;
        bool is_busy GUARDED_BY(lock);
        struct stat last GUARDED_BY(lock); /* last known attributes */

        /* of who made it busy */
        bool is_loaded;
        struct meta_names names;
        size_t *places; /* of each name in names.data */
        size_t count;
};

int cached_opendir(struct volume *v, struct vol_op *op, uint64_t node, struct vol_dir **ret)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f = {0};
        struct vol_dir *d;
        int r = cached_check(c);

        climbs_end(&c->climbs, op->tid);
        if (r == 0)
                r = cached_path(c, node, NULL, &path);
        if (r < 0)
                return r;
        d = calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        mutex_init(&d->lock);
        cond_init(&d->idle);
        mutex_lock(&d->lock);
        if (meta_get(c->meta, path, &f) && S_ISDIR(f.k.st.st_mode))
                d->last = f.k.st;
        else
                d->last = (struct stat){.st_mode = S_IFDIR | 0700};
        mutex_unlock(&d->lock);
        nodes_open(&c->nodes, node, &d->open);
        *ret = d;
        return 0;
}

static void put(struct cached *c, struct vol_dir *d)
{
        if (!nodes_unref(&c->nodes, &d->open))
                return;
        free(d->names.data);
        free(d->places);
        cond_done(&d->idle);
        mutex_done(&d->lock);
        free(d);
}

void cached_releasedir(struct volume *v, struct vol_dir *d)
{
        put(cached_of(v), d);
}

bool cached_removed_dir(struct cached *c, uint64_t node, struct stat *ret)
{
        const struct stat kind = {.st_mode = S_IFDIR};
        struct node_open *o;
        struct vol_dir *d;

        if (!nodes_is(&c->nodes, node, &kind))
                return false;
        o = nodes_any_open(&c->nodes, node);
        if (!o)
                return false;
        d = (struct vol_dir *)(void *)o; /* its head */
        mutex_lock(&d->lock);
        *ret = d->last;
        mutex_unlock(&d->lock);
        ret->st_nlink = 0;
        put(c, d);
        return true;
}

int cached_fsyncdir(struct volume *v, struct vol_op *op, struct vol_dir *d, bool data_only)
{
        struct cached *c = cached_of(v);
        struct journal *j = c->contents->journal;
        _cleanup_(freep) char *path = NULL;
        int r;

        (void)data_only; /* names are all there is; the root's concerns all bytes, too */
        if (cached_check(c) < 0)
                return -ESTALE;
        r = cached_path(c, d->open.node, NULL, &path);
        if (r < 0)
                return r == -ESTALE ? 0 : r; /* removed: nothing of it waits */
        r = path[0] ? journal_settle(j, op->call, path) : contents_sync(c, op);
        return r == 0 ? journal_refusal(j, path) : r;
}

/* ---- names ---- */

static const struct meta_name *name_at(const struct vol_dir *d, size_t i)
{
        return (const struct meta_name *)(const void *)(d->names.data + d->places[i]);
}

/* Takes over `names`. */
static int keep(struct vol_dir *d, struct meta_names *names)
{
        size_t count = 0, *places;

        for (size_t at = 0; at < names->size; count++)
                at += meta_name_span(
                        ((const struct meta_name *)(const void *)(names->data + at))->size);
        places = count <= NAMES_MAX ? calloc(count ? count : 1, sizeof(*places)) : NULL;
        if (!places) {
                free(names->data);
                return -ENOMEM;
        }
        free(d->names.data);
        free(d->places);
        d->names = *names;
        d->places = places;
        d->count = count;
        for (size_t at = 0, i = 0; at < names->size; i++) {
                places[i] = at;
                at += meta_name_span(name_at(d, i)->size);
        }
        d->is_loaded = true;
        return 0;
}

/* 0: kept; 1: it has to be asked for. */
static int load_from_memory(struct cached *c, struct vol_dir *d, const char *path,
                            uint64_t begin_ns)
{
        struct meta_dir info;
        struct meta_names names;
        struct known k;
        int r;

        if (!meta_get_dir(c->meta, path, &info) || (!info.is_listed && !info.is_kept))
                return 1;
        k = (struct known){.sent_ns = info.sent_ns, .epoch = info.epoch};
        if (!info.is_kept && !cached_is_fresh(c, begin_ns, &k, info.was_quiet))
                return 1;
        r = meta_names(c->meta, path, info.is_kept, &names);
        if (r == -EAGAIN)
                return 1;
        return r == 0 ? keep(d, &names) : r;
}

static bool is_known_absent(struct cached *c, const char *path, uint64_t begin_ns)
{
        struct meta_fact f;

        return meta_get(c->meta, path, &f) && !f.exists &&
               cached_is_fresh(c, begin_ns, &f.k, f.was_quiet);
}

int cached_check_empty(struct cached *c, struct vol_op *op, const char *path)
{
        uint64_t begin_ns = clock_mono_ns();
        struct meta_dir info;
        struct known k;
        int r = 0;

        for (unsigned asked = 0; r == 0 && asked <= ASKS_MAX; asked++) {
                if (meta_has_pinned(c->meta, path))
                        return -ENOTEMPTY; /* something in it is only here */
                if (meta_get_dir(c->meta, path, &info) && (info.is_listed || info.is_kept)) {
                        k = (struct known){.sent_ns = info.sent_ns, .epoch = info.epoch};
                        if (info.is_kept || cached_is_fresh(c, begin_ns, &k, info.was_quiet))
                                return info.count > 0 ? -ENOTEMPTY : 0;
                }
                if (!op->may_wait)
                        return -EINPROGRESS;
                r = refresh_ask(c, op->call, path, REFRESH_NAMES, begin_ns, asked > 0);
        }
        return r < 0 ? r : -EIO;
}

/* A directory that is not to be had, but holds something that is only here: what is known. */
static int load_known(struct cached *c, struct vol_dir *d, const char *path, int error)
{
        struct meta_names names;
        int r;

        if (!meta_has_pinned(c->meta, path))
                return error;
        r = meta_names(c->meta, path, true, &names);
        return r == 0 ? keep(d, &names) : error;
}

static int load_path(struct cached *c, struct vol_op *op, struct vol_dir *d, const char *path)
{
        uint64_t begin_ns = clock_mono_ns();
        int r = -EIO;

        refresh_note_read(c->refresh, path);
        for (unsigned asked = 0; asked <= ASKS_MAX; asked += r == 0) {
                r = load_from_memory(c, d, path, begin_ns);
                if (r <= 0)
                        return r;
                if (is_known_absent(c, path, begin_ns))
                        return -ENOENT;
                if (!op->may_wait)
                        return -EINPROGRESS;
                r = refresh_ask(c, op->call, path, REFRESH_NAMES, begin_ns, asked > 0);
                if (r < 0)
                        return load_known(c, d, path, r);
        }
        if (load_known(c, d, path, -EIO) == 0)
                return 0;
        return call_fail(op->call, -EIO, "the directory %s can't be listed as a whole", path);
}

static int load(struct cached *c, struct vol_op *op, struct vol_dir *d)
{
        uint64_t moves = cached_moves(c);
        int r;

        do {
                _cleanup_(freep) char *path = NULL;

                r = cached_path(c, d->open.node, NULL, &path);
                if (r == 0)
                        r = load_path(c, op, d, path);
                if (r == -ENOENT) {
                        int moved = cached_moved_meanwhile(c, op, &moves);

                        r = moved == 0 ? -ENOENT : moved;
                }
        } while (r == 1);
        if (r == -ESTALE) { /* the directory itself was removed: it is empty */
                struct meta_names none = {.data = calloc(1, 1)};

                r = none.data ? keep(d, &none) : -ENOMEM;
        }
        return r;
}

/* ---- reading ---- */

struct reading {
        struct cached *c;
        struct vol_dir *d;
        struct vol_dir_sink *to;
        uint64_t begin_ns;
        char *path; /* of the directory; NULL: it has none */
        bool plus;
        bool is_full;
};

static void add_name_only(struct reading *g, const char *name, uint64_t ino, uint32_t mode,
                          uint64_t next)
{
        struct vol_entry entry = {.st = {.st_ino = ino, .st_mode = mode & S_IFMT}};

        g->is_full = !g->to->add(g->to, name, &entry, next);
}

/* Whether all about it is known and fresh; *ret_vanished: that it is no longer there. */
static bool is_told(struct reading *g, const char *path, struct meta_fact *f, bool *ret_vanished)
{
        char text[META_TARGET_MAX + 1];

        *ret_vanished = false;
        if (!meta_get(g->c->meta, path, f) ||
            (!f->is_pinned && !cached_is_fresh(g->c, g->begin_ns, &f->k, f->was_quiet)))
                return false;
        *ret_vanished = !f->exists;
        if (S_ISREG(f->k.st.st_mode) && f->k.st.st_nlink > 1)
                return false; /* another name of it may know more: lookup looks */
        return f->exists && (!S_ISLNK(f->k.st.st_mode) || meta_get_target(g->c->meta, path, text));
}

static void add_with_attrs(struct reading *g, const struct meta_name *name, uint64_t next)
{
        size_t size = strlen(g->path) + name->size + 2;
        _cleanup_(freep) char *path = malloc(size);
        bool has_vanished = false;
        struct vol_entry entry;
        struct meta_fact f;
        struct node_id id;

        if (path) {
                size_t above = strlen(g->path);

                memcpy(path, g->path, above);
                if (above > 0)
                        path[above++] = '/';
                memcpy(path + above, name->text, name->size + 1);
        }
        if (!path || !is_told(g, path, &f, &has_vanished) ||
            nodes_meet(&g->c->nodes, g->d->open.node, name->text, &f.k.st, &id) < 0) {
                if (!has_vanished)
                        add_name_only(g, name->text, name->ino, name->mode, next);
                return;
        }
        cached_answer(g->c, &id, path, &f, &entry);
        g->is_full = !g->to->add(g->to, name->text, &entry, next);
        if (g->is_full)
                nodes_forget(&g->c->nodes, id.number, 1);
}

static void add(struct reading *g, uint64_t offset)
{
        const struct meta_name *name;

        if (offset < DOTS) {
                add_name_only(g, offset == 0 ? "." : "..",
                              g->d->last.st_ino ? g->d->last.st_ino : 1, S_IFDIR, offset + 1);
                return;
        }
        name = name_at(g->d, (size_t)offset - DOTS);
        if (g->plus && g->path)
                add_with_attrs(g, name, offset + 1);
        else
                add_name_only(g, name->text, name->ino, name->mode, offset + 1);
}

static int read_names(struct reading *g, struct vol_op *op, uint64_t offset)
{
        int r = 0;

        /* The start is read anew: that is what rewinddir asks for. */
        if (offset == 0 || !g->d->is_loaded)
                r = load(g->c, op, g->d);
        if (r < 0)
                return r;
        if (g->plus && cached_path(g->c, g->d->open.node, NULL, &g->path) < 0)
                g->path = NULL;
        while (!g->is_full && offset < g->d->count + DOTS)
                add(g, offset++);
        return 0;
}

int cached_readdir(struct volume *v, struct vol_op *op, struct vol_dir *d, uint64_t offset,
                   bool plus, struct vol_dir_sink *to)
{
        struct reading g = {
                .c = cached_of(v), .d = d, .to = to, .begin_ns = clock_mono_ns(), .plus = plus};
        int r = 0;

        if (cached_check(g.c) < 0)
                return -ESTALE;
        mutex_lock(&d->lock);
        if (d->is_busy && !op->may_wait)
                r = -EINPROGRESS;
        while (r == 0 && d->is_busy) {
                (void)cond_wait_until(&d->idle, &d->lock, clock_after(100 * NS_PER_MS));
                r = call_check(op->call);
        }
        if (r == 0)
                d->is_busy = true;
        mutex_unlock(&d->lock);
        if (r < 0)
                return r;

        r = read_names(&g, op, offset);
        free(g.path);

        mutex_lock(&d->lock);
        d->is_busy = false;
        cond_signal(&d->idle);
        mutex_unlock(&d->lock);
        return r;
}
