/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing open files, and the bytes and attributes of those that aren't. A write is answered from
 * here; a close sends what the file's last writer has written.
 */

#include "fs/volume/contents.h"

#include <errno.h>
#include <linux/falloc.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/journal.h"
#include "transport/base/cleanup.h"

/*
 * A change said that the file has no path. Its node may still have one; else it was removed, and
 * goes on for those that have it open.
 */
static void find_again(struct cached *c, uint64_t node, struct content *x)
{
        struct content *now = cached_set_content(c, node, x);

        if (now != x) {
                content_lock(x);
                if (!x->is_removed)
                        x->last = x->version;
                x->is_removed = true;
                content_unlock(x);
        }
        content_unref(now);
}

/* Numbers for stats, after a change. */
static void end_change(struct content *x) RELEASE(x->lock)
{
        struct spool *spool = &x->s->spool;
        bool is_news = content_account(x);

        content_unlock(x);
        if (is_news)
                contents_tell(x->s); /* which trims */
        else if (atomic_load(&spool->disk) > spool_limit(spool)) /* without a lock, each write */
                contents_trim(x->s);
}

static int write_once(struct vol_file *f, const void *data, size_t size, uint64_t offset,
                      bool to_end)
{
        struct content *x = f->x;
        int r;

        content_lock(x);
        if (to_end)
                offset = x->parts.size;
        r = size > 0 ? content_write(x, data, size, offset) : 0;
        atomic_store(&f->has_written, true);
        end_change(x);
        return r;
}

ssize_t cached_write(struct volume *v, struct vol_op *op, struct vol_file *f, const void *data,
                     size_t size, uint64_t offset)
{
        bool to_end = f->is_append && !op->is_writeback;
        int r = cached_check_handle(v);

        if (r == 0 && to_end)
                r = cached_check_version(v, op, f); /* a command may have moved the end */
        if (r < 0)
                return r;
        nodes_keep(&cached_of(v)->nodes, f->open.node);
        r = write_once(f, data, size, offset, to_end);
        if (r == -ESTALE) {
                find_again(cached_of(v), f->open.node, f->x);
                r = write_once(f, data, size, offset, to_end);
        }
        return r < 0 ? r : (ssize_t)size;
}

static int send(struct volume *v, struct vol_op *op, struct vol_file *f, bool is_awaited)
{
        struct content *x = f->x;
        bool is_nothing;
        int r = cached_check_handle(v);

        if (r < 0)
                return r;
        content_lock(x);
        is_nothing = x->kind == CONTENT_CLEAN || x->is_removed;
        content_unlock(x);
        if (is_nothing && is_awaited) /* but perhaps its name is on the way */
                return journal_settle(x->s->journal, op->may_wait ? op->call : NULL, NULL);
        if (is_nothing)
                return 0;
        if (!is_awaited)
                return content_queue(x);
        return op->may_wait ? content_upload(x, op->call) : -EINPROGRESS;
}

/* What another handle has written goes with that one's close, or with the last writer's. */
int cached_flush(struct volume *v, struct vol_op *op, struct vol_file *f)
{
        bool is_mine;
        int r;

        content_lock(f->x);
        is_mine = f->can_write && (f->x->writers == 1 || atomic_load(&f->has_written));
        content_unlock(f->x);
        r = is_mine ? send(v, op, f, cached_of(v)->config.is_sync) : cached_check_handle(v);
        if (r != -EINPROGRESS)
                atomic_store(&f->has_written, false);
        return r;
}

int cached_fsync(struct volume *v, struct vol_op *op, struct vol_file *f, bool data_only)
{
        (void)data_only; /* all that was changed goes together */
        return send(v, op, f, true);
}

int cached_fallocate(struct volume *v, struct vol_op *op, struct vol_file *f, int mode,
                     uint64_t offset, uint64_t size)
{
        struct content *x = f->x;
        uint64_t end = offset + size;
        int r = cached_check_handle(v);

        (void)op; /* nothing there is asked */
        if (r < 0)
                return r;
        if (size == 0 || end < offset || end > (uint64_t)INT64_MAX)
                return size == 0 ? -EINVAL : -EFBIG;
        if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
                return -EOPNOTSUPP;
        content_lock(x);
        if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && end > x->parts.size)
                r = content_resize(x, end);
        else
                r = content_touch(x);
        if (r == 0 && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
                r = content_zero(x, offset, end);
        end_change(x);
        return r;
}

ssize_t cached_copy_range(struct volume *v, struct vol_op *op, struct vol_file *from,
                          uint64_t from_offset, struct vol_file *to, uint64_t to_offset,
                          size_t size)
{
        (void)v, (void)op, (void)from, (void)from_offset, (void)to, (void)to_offset, (void)size;
        return -EOPNOTSUPP; /* the kernel then copies by itself */
}

/* ---- setattr ---- */

/* It concerns bytes or attributes that are not only the sandbox's. */
static int set_here(struct content *x, unsigned what, const struct stat *to) REQUIRES(x->lock)
{
        int r = 0;

        if (what & VOL_SET_SIZE)
                r = to->st_size == 0 ? content_start_whole(x, NULL)
                                     : content_resize(x, (uint64_t)to->st_size);
        if (r == 0 && (what & ~(unsigned)VOL_SET_SIZE) != 0)
                r = content_set(x, what, to);
        return r;
}

/* In the sandbox, whose bytes stay the ones that are here. */
static int set_there(struct cached *c, struct vol_op *op, struct content *x, unsigned what,
                     const struct stat *to)
{
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f = {0};
        struct change change;
        bool is_quiet, is_news;
        struct stat st;
        int r = cached_content_path(c, x, &path);

        if (r < 0 || !meta_get(c->meta, path, &f) || !f.exists)
                return -ESTALE;
        st = f.k.st;
        r = cached_set(c, op, path, &f, what, to, &st);
        if (r < 0)
                return r;
        change = (struct change){.what = what & (VOL_SET_MTIME | VOL_SET_MTIME_NOW) ? FILE_SET_MTIME
                                                                                    : 0,
                                 .mtime = st.st_mtim,
                                 .st = st};
        is_quiet = contents_is_quiet(c->contents);
        content_lock(x);
        (void)content_adopt(x, &f.k, is_quiet); /* the version that it is done to */
        is_news = content_own_attrs(x, &change, is_quiet);
        content_unlock(x);
        if (is_news)
                content_tell_kernel(x);
        return 0;
}

/* After a change by name nobody will close the file: it is sent now. */
static int send_now(struct vol_op *op, struct content *x)
{
        bool has_writers;

        content_lock(x);
        has_writers = x->writers > 0 || x->is_removed;
        content_unlock(x);
        if (has_writers)
                return 0;
        return x->s->c->config.is_sync ? content_upload(x, op->call) : content_queue(x);
}

/* cached_fill shows it as it is here. */
static int answer_set(struct cached *c, struct content *x, struct known *ret)
{
        if (!cached_last_known(c, x, ret)) { /* removed: all of it comes from x */
                *ret = (struct known){0};
                (void)content_attrs(x, &ret->st, 0); /* cached_fill says what may be cached */
        }
        ret->sent_ns = clock_mono_ns();
        ret->epoch = volume_epoch(&c->v);
        return 1;
}

/* The content that it is about, with a reference; NULL: there is none. */
static int find_target(struct cached *c, struct vol_op *op, uint64_t node, struct vol_file *file,
                       unsigned what, struct content **ret)
{
        struct content *x = file ? content_ref(file->x) : cached_content(c, node);
        int r = 0;

        if (!x)
                x = cached_content_of_removed(&c->v, node);
        if (!x && (what & VOL_SET_SIZE))
                return cached_find_content(&c->v, op, node, ret);
        if (x && (what & VOL_SET_SIZE) && !file && !content_is_pinned(x)) {
                content_unref(x);
                return cached_find_content(&c->v, op, node, ret); /* of the version that is there */
        }
        *ret = x;
        return r;
}

int contents_setattr(struct cached *c, struct vol_op *op, uint64_t node, struct vol_file *file,
                     unsigned what, const struct stat *to, struct known *ret)
{
        struct content *x = NULL;
        bool is_here, was_here;
        int r = cached_check_change(c);

        if (r == 0)
                r = find_target(c, op, node, file, what, &x);
        if (r < 0 || !x)
                return r;
        content_lock(x);
        was_here = x->kind != CONTENT_CLEAN || x->is_removed;
        is_here = was_here || (what & VOL_SET_SIZE) != 0;
        if (!op->may_wait && c->config.is_sync && (!is_here || (x->writers == 0 && !x->is_removed)))
                r = -EINPROGRESS; /* it is sent at once */
        else if (is_here)
                r = set_here(x, what, to);
        end_change(x);
        if (r == -ESTALE && is_here && !was_here) {
                find_again(c, node, x);
                content_lock(x);
                r = set_here(x, what, to);
                end_change(x);
        }
        if (r == 0)
                r = is_here ? send_now(op, x) : set_there(c, op, x, what, to);
        if (r == 0)
                r = answer_set(c, x, ret);
        content_unref(x);
        return r;
}
