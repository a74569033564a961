/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes and links of the cached volume. */

#include "fs/volume/cached.h"

#include <errno.h>
#include <string.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/contents.h"
#include "fs/volume/journal.h"
#include "fs/volume/refresh.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define MOVES_MAX 20 /* in a row, each before the last has settled: the link can't be told */

/* ---- getattr ---- */

/* Any open handle of a file, to be given back by file_put; NULL. */
static struct vol_file *any_handle(struct cached *c, uint64_t node)
{
        const struct stat directory = {.st_mode = S_IFDIR};

        if (nodes_is(&c->nodes, node, &directory))
                return NULL;
        return (struct vol_file *)(void *)nodes_any_open(&c->nodes, node); /* its head */
}

/* Of a sandbox that is gone: the kernel asks for a file's attributes before it reads, without a handle. */
static int answer_gone(struct cached *c, uint64_t node, const struct vol_file *file)
{
        struct vol_file *held = file ? NULL : any_handle(c, node);

        if (held)
                file_put(c, held);
        return file || held ? -ESTALE : -ENODEV;
}

/* A node that has no path any more, or whose path is another file's: what its handles see. */
static int answer_removed(struct cached *c, uint64_t node, struct vol_file *file,
                          struct vol_entry *ret)
{
        struct vol_file *held = file ? NULL : any_handle(c, node);
        struct stat st = {0};

        if (!file)
                file = held;
        if (file)
                (void)content_attrs(file_content(file), &st, 0); /* never cached */
        else if (!cached_removed_dir(c, node, &st))
                return -ESTALE;
        if (held)
                file_put(c, held);
        *ret = (struct vol_entry){.node = node, .st = st};
        return 0;
}

int cached_getattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   struct vol_entry *ret)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f;
        int r = cached_check(c);

        if (r < 0)
                return answer_gone(c, node, file);
        r = cached_fact_of_node(c, op, node, &path, &f);
        if (r == -EINPROGRESS && node == VOLUME_ROOT && meta_get(c->meta, "", &f))
                r = 0; /* fs/ itself answers locally, with what we have changed in it */
        if (r == 0 && f.has_content)
                r = content_follow(c, op, node, &f.k);
        if (r == 0)
                cached_answer(c, &(struct node_id){.number = node}, path, &f, ret);
        else if ((r == -ESTALE || r == -ENOENT) && answer_removed(c, node, file, ret) == 0)
                r = 0;
        return r;
}

/* ---- setattr ---- */

/* The attributes `st` with what is set; the change that says so. */
static struct journal_change change_of(const char *path, unsigned what, const struct stat *to,
                                       struct stat *st)
{
        struct timespec now = clock_timespec(clock_real_ns());
        struct journal_change x = {.kind = CHANGE_SET, .path = path};

        if (what & VOL_SET_MODE) {
                x.what |= FILE_SET_MODE;
                x.mode = to->st_mode & 07777;
                st->st_mode = (st->st_mode & S_IFMT) | x.mode;
        }
        if (what & (VOL_SET_ATIME | VOL_SET_ATIME_NOW)) {
                x.what |= FILE_SET_ATIME;
                st->st_atim = x.atime = what & VOL_SET_ATIME_NOW ? now : to->st_atim;
        }
        if (what & (VOL_SET_MTIME | VOL_SET_MTIME_NOW)) {
                x.what |= FILE_SET_MTIME;
                st->st_mtim = x.mtime = what & VOL_SET_MTIME_NOW ? now : to->st_mtim;
        }
        st->st_ctim = now;
        return x;
}

int cached_set(struct cached *c, struct vol_op *op, const char *path, const struct meta_fact *f,
               unsigned what, const struct stat *to, struct stat *ret)
{
        struct stat st = f->k.st;
        struct journal_change x = change_of(path, what, to, &st);
        struct meta_source source;
        int r = 0;

        st.st_ino = f->k.sandbox_ino; /* it stays the same file */
        if (x.what == 0)
                return 0;
        if (c->config.is_sync && !op->may_wait)
                return -EINPROGRESS;
        x.has_links = !S_ISDIR(st.st_mode) && st.st_nlink > 1;
        if (ret)
                *ret = st;
        r = journal_add(c->contents->journal, &x);
        refresh_source(c, &source);
        if (r == 0)
                meta_set(c->meta, path, &source, &st, true, source.sent_ns);
        return r == 0 ? cached_end_change(c, op, path) : r;
}

/* A regular file: its content may have a say. 1: done. */
static int set_content(struct cached *c, struct vol_op *op, uint64_t node, struct vol_file *file,
                       unsigned what, const struct stat *to, struct vol_entry *ret)
{
        struct known k;
        int r = contents_setattr(c, op, node, file, what, to, &k);

        if (r == 1)
                cached_fill(c, &(struct node_id){.number = node}, &k, ret);
        return r;
}

static int set_known(struct cached *c, struct vol_op *op, uint64_t node, struct vol_file *file,
                     const char *path, const struct meta_fact *f, unsigned what,
                     const struct stat *to, struct vol_entry *ret)
{
        mode_t mode = f->k.st.st_mode;
        int r;

        if (S_ISREG(mode)) {
                r = set_content(c, op, node, file, what, to, ret);
                if (r != 0)
                        return r < 0 ? r : 0;
        } else if (what & VOL_SET_SIZE) {
                return S_ISDIR(mode) ? -EISDIR : -EINVAL;
        }
        if ((what & VOL_SET_MODE) && S_ISLNK(mode))
                return -EOPNOTSUPP;
        r = cached_set(c, op, path, f, what, to, NULL);
        return r < 0 ? r : cached_getattr(&c->v, op, node, file, ret);
}

/* As answer_removed: only its handles know it. */
static int set_removed(struct cached *c, struct vol_op *op, uint64_t node, struct vol_file *file,
                       unsigned what, const struct stat *to, int error, struct vol_entry *ret)
{
        struct vol_file *held = file ? NULL : any_handle(c, node);
        int r = error;

        if (!file)
                file = held;
        if (file)
                r = set_content(c, op, node, file, what, to, ret);
        if (held)
                file_put(c, held);
        return r == 0 ? error : r < 0 ? r : 0;
}

int cached_setattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   unsigned what, const struct stat *to, struct vol_entry *ret)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f;
        int r = cached_check_change(c);

        if (r < 0)
                return file && r == -ENODEV ? -ESTALE : r;
        r = cached_fact_of_node(c, op, node, &path, &f);
        if (r == -ESTALE || r == -ENOENT)
                return set_removed(c, op, node, file, what, to, r, ret);
        return r < 0 ? r : set_known(c, op, node, file, path, &f, what, to, ret);
}

/* ---- links ---- */

/*
 * See that the kernel has carried out the latest rename to another depth (climbs.h). 0: it has now,
 * look again; -EINPROGRESS: this thread may not wait for it.
 */
static int settle(struct cached *c, const struct vol_op *op, uint64_t from, uint64_t move)
{
        if (!op->may_wait)
                return -EINPROGRESS;
        /* Takes the directory's lock in the kernel, which the rename holds; no such name exists. */
        c->events.inval_entry(c->events.ctx, from, "/");
        climbs_settled(&c->climbs, move);
        return 0;
}

/* From memory, with the path as it is now: a length; 0 when the text isn't known any more. */
static int anchor_now(struct cached *c, uint64_t node, char *target, size_t size, unsigned *ret_ups)
{
        char text[META_TARGET_MAX + 1];
        _cleanup_(freep) char *path = NULL;
        int r = cached_path(c, node, NULL, &path);

        if (r < 0)
                return r;
        if (!meta_get_target(c->meta, path, text))
                return 0;
        return cached_anchor(c, path, text, target, size, ret_ups);
}

/* One try: a length or 1; 0 when it has to be made again. */
static int try_readlink(struct cached *c, const struct vol_op *op, uint64_t node, char *target,
                        size_t size)
{
        unsigned ups = 0;
        uint64_t from, move;
        int r;

        climbs_begin(&c->climbs, op->tid, clock_mono_ns());
        r = anchor_now(c, node, target, size, &ups);
        if (r > 0 && ups > 0 && !climbs_unsettled(&c->climbs, &from, &move))
                return 1;
        climbs_end(&c->climbs, op->tid); /* a rename may wait for it */
        if (r > 0 && ups > 0)
                r = settle(c, op, from, move);
        return r;
}

static int readlink_raw(struct cached *c, const char *path, char *target, size_t size)
{
        char text[META_TARGET_MAX + 1];

        if (!meta_get_target(c->meta, path, text))
                return -ESTALE;
        if (strlen(text) >= size)
                return -ENAMETOOLONG;
        memcpy(target, text, strlen(text) + 1);
        return 0;
}

int cached_readlink(struct volume *v, struct vol_op *op, uint64_t node, char *target, size_t size)
{
        struct cached *c = cached_of(v);
        int r = cached_check(c);

        for (int i = 0; r == 0 && i < MOVES_MAX; i++) {
                _cleanup_(freep) char *path = NULL;
                struct meta_fact f;

                r = cached_fact_of_node(c, op, node, &path, &f);
                if (r == 0 && !S_ISLNK(f.k.st.st_mode))
                        r = -EINVAL;
                if (r == 0 && c->config.has_raw_symlinks)
                        return readlink_raw(c, path, target, size);
                if (r == 0)
                        r = try_readlink(c, op, node, target, size);
        }
        if (r == 0)
                return -ESTALE;
        return r < 0 ? r : 0;
}

/* ---- the file system ---- */

static bool fs_from_memory(struct cached *c, struct statvfs *ret)
{
        uint64_t epoch = volume_epoch(&c->v);
        bool is_fresh;

        mutex_lock(&c->lock);
        is_fresh = c->fs_ns != 0 && c->fs_epoch == epoch &&
                   c->fs_ns + c->config.attr_ttl_ns >= clock_mono_ns();
        if (is_fresh)
                *ret = c->fs;
        mutex_unlock(&c->lock);
        return is_fresh;
}

int cached_statfs(struct volume *v, struct vol_op *op, struct statvfs *ret)
{
        struct cached *c = cached_of(v);
        struct meta_source source;
        struct box *box;
        int r = cached_check(c);

        if (r < 0 || fs_from_memory(c, ret))
                return r;
        if (!op->may_wait)
                return -EINPROGRESS;
        refresh_source(c, &source);
        r = cached_enter(c, op->call, NULL, &box);
        if (r < 0)
                return r;
        r = box_statfs(box, op->call, ret);
        cached_leave(c, box);
        if (r == -EOPNOTSUPP) { /* this service can't say */
                *ret = (struct statvfs){.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};
                r = 0;
        }
        if (r == 0) {
                mutex_lock(&c->lock);
                c->fs = *ret;
                c->fs_ns = source.sent_ns;
                c->fs_epoch = source.epoch;
                mutex_unlock(&c->lock);
        }
        return r;
}
