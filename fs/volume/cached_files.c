/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files. Reads are answered from what is here, or on a worker when it has been fetched; writes
 * always from here; a close sends what the file's last writer has written.
 */

#include "fs/volume/contents.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/volume/cached_parts.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"

#define WINDOW_MIN ((uint64_t)256 * 1024)
#define WINDOW_MAX ((uint64_t)8 * 1024 * 1024)
#define REORDER ((uint64_t)512 * 1024) /* the kernel's own reads ahead may overtake each other */
#define STEP_MIN ((uint64_t)128 * 1024)
#define STEP_MAX ((uint64_t)2 * 1024 * 1024)
#define FILL_MISSES 8 /* random reads after which a file is worth having */
#define FILL_MAX ((uint64_t)64 * 1024 * 1024)

static struct contents *contents_of(struct volume *v)
{
        return cached_of(v)->contents;
}

/* -ESTALE for the open files of a sandbox that is gone. */
static int check_handle(struct volume *v)
{
        return cached_check(cached_of(v)) < 0 ? -ESTALE : 0;
}

static bool is_writing(int flags)
{
        return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
}

/* ---- handles ---- */

/* A handle on x, which gets one more reference. */
static int new_handle(struct cached *c, uint64_t node, struct content *x, int flags,
                      struct vol_file **ret)
{
        struct vol_file *f = calloc(1, sizeof(*f));

        if (!f)
                return -ENOMEM;
        f->x = content_ref(x);
        f->can_write = (flags & O_ACCMODE) != O_RDONLY;
        f->is_append = (flags & O_APPEND) != 0;
        content_lock(x);
        atomic_fetch_add(&x->handles, 1);
        x->writers += f->can_write;
        blob_hold(x->blob);
        content_unlock(x);
        nodes_open(&c->nodes, node, &f->open);
        *ret = f;
        return 0;
}

static void free_handle(struct vol_file *f)
{
        struct content *x = f->x;
        bool must_send;

        content_lock(x);
        atomic_fetch_sub(&x->handles, 1);
        x->writers -= f->can_write;
        blob_release(x->blob);
        content_let_remote_go(x);
        /* A mapping may have written after the close. What was refused was told. */
        must_send = x->writers == 0 && x->kind != CONTENT_CLEAN && !x->is_removed &&
                    !x->is_uploading && x->refused == 0;
        content_unlock(x);
        if (must_send && content_queue(x) < 0)
                log_warning("a file waits to be sent until the next sync: no room for a record");
        content_unref(x);
        free(f);
}

void file_put(struct cached *c, struct vol_file *f)
{
        if (nodes_unref(&c->nodes, &f->open))
                free_handle(f);
}

void cached_release(struct volume *v, struct vol_file *f)
{
        file_put(cached_of(v), f);
}

/* ---- open ---- */

/* A file that was removed, but is open: /proc/PID/fd leads here. */
static struct content *content_of_removed(struct volume *v, uint64_t node)
{
        struct node_open *o = nodes_any_open(&cached_of(v)->nodes, node);
        struct vol_file *f = (struct vol_file *)(void *)o; /* its head */
        struct content *x;

        if (!f)
                return NULL;
        x = content_ref(f->x);
        cached_release(v, f);
        return x;
}

/* The content to open, of the version that the sandbox has now. */
static int find_content(struct volume *v, struct vol_op *op, uint64_t node, struct content **ret)
{
        struct contents *s = contents_of(v);
        struct known k;
        bool is_quiet, is_news;
        int r = cached_attr(s->c, op, node, &k);

        if (r == -ENOENT || r == -ESTALE) {
                *ret = content_of_removed(v, node);
                return *ret ? 0 : r;
        }
        if (r < 0)
                return r;
        if (!S_ISREG(k.st.st_mode))
                return -EOPNOTSUPP;
        r = contents_of_node(s, node, &k, ret);
        if (r < 0)
                return r;
        is_quiet = contents_is_quiet(s);
        content_lock(*ret);
        is_news = content_adopt(*ret, &k, is_quiet);
        content_unlock(*ret);
        if (is_news)
                content_tell_kernel(*ret);
        return 0;
}

/* Whether the pages that the kernel has are of these bytes. */
static bool keeps_pages(struct cached *c, uint64_t node, struct content *x)
{
        uint64_t stamp;

        content_lock(x);
        /* Nothing here: what comes may be newer than the version that pages were read under. */
        stamp = x->is_settled && x->present.count > 0 ? x->stamp : 0;
        if (x->kind != CONTENT_CLEAN)
                stamp = x->stamp;
        content_unlock(x);
        return nodes_same_pages(&c->nodes, node, stamp);
}

/* The kernel may have attributes of an earlier version, from a lookup: fstat is to ask again. */
static void refresh_attrs(struct cached *c, uint64_t node, struct content *x)
{
        bool is_news;

        content_lock(x);
        is_news = x->opened_generation != x->generation;
        x->opened_generation = x->generation;
        x->opened_ns = clock_mono_ns();
        content_unlock(x);
        if (is_news && c->events.inval_node)
                c->events.inval_node(c->events.ctx, node, true);
}

static int open_content(struct volume *v, uint64_t node, struct content *x, int flags,
                        struct vol_opened *ret)
{
        struct cached *c = cached_of(v);
        bool is_news = false;
        /* First of all it has a writer: what is half written is not sent. */
        int r = new_handle(c, node, x, flags, &ret->file);

        if (r == 0 && (flags & O_TRUNC)) {
                atomic_store(&ret->file->has_written, true);
                content_lock(x);
                r = content_start_whole(x, NULL);
                is_news = content_account(x);
                content_unlock(x);
                if (r < 0)
                        file_put(c, ret->file);
        }
        if (is_news)
                contents_tell(c->contents);
        if (r < 0)
                return r;
        content_used(x);
        refresh_attrs(c, node, x);
        ret->keep_cache = keeps_pages(c, node, x);
        ret->backing_fd = -1;
        return 0;
}

/*
 * Readers have the bytes of a small file, or a handle of a large one there, from now on: the version
 * that they see is that of the attributes, whatever becomes of the name.
 */
static int get_ready(struct contents *s, struct vol_op *op, struct content *x, uint64_t node)
{
        bool is_ready;
        int r = 0;

        content_lock(x);
        is_ready = x->kind != CONTENT_CLEAN || x->is_removed || x->remote ||
                   extents_cover(&x->present, 0, x->parts.size);
        content_unlock(x);
        if (is_ready)
                return 0;
        if (!op->may_wait)
                return -EINPROGRESS;
        prefetch_open(s, x, node);
        content_lock(x);
        atomic_fetch_add(&x->handles, 1); /* what is opened there is kept until ours is */
        r = x->parts.size <= CONTENT_SMALL ? content_fill_all(x, op->call)
                                           : content_keep_remote(x, op->call);
        atomic_fetch_sub(&x->handles, 1);
        content_unlock(x);
        return r;
}

int cached_open(struct volume *v, struct vol_op *op, uint64_t node, int flags,
                struct vol_opened *ret)
{
        struct cached *c = cached_of(v);
        struct content *x;
        int r = is_writing(flags) ? cached_check_change(c) : cached_check(c);

        if (r == 0)
                r = find_content(v, op, node, &x);
        if (r != 0)
                return r;
        if ((flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY)
                r = get_ready(c->contents, op, x, node);
        if (r == 0)
                r = open_content(v, node, x, flags, ret);
        content_unref(x);
        return r;
}

/* ---- create ---- */

/* A file that only we have yet. */
static int make_content(struct cached *c, uint64_t parent, const char *name, mode_t mode,
                        struct known *k, struct content **ret)
{
        struct contents *s = c->contents;
        _cleanup_(freep) char *path = NULL;
        struct content *x;
        int r = cached_path(c, parent, name, &path);

        if (r < 0)
                return r;
        *k = (struct known){.sent_ns = clock_mono_ns(), .epoch = volume_epoch(&c->v)};
        k->st.st_mode = S_IFREG | mode;
        k->st.st_nlink = 1;
        k->st.st_blksize = 4096;
        x = content_new(s, k);
        if (!x)
                return -ENOMEM;
        content_lock(x);
        x->is_only_here = true;
        r = content_start_whole(x, path);
        x->shown.st_atim = x->shown.st_mtim;
        (void)content_account(x); /* told when it has a name */
        content_attrs_locked(x, &k->st);
        content_unlock(x);
        if (r < 0)
                content_unref(x);
        else
                *ret = x;
        return r;
}

/* It got no name, or no handle: nothing of it stays. */
static void unmake_content(struct content *x)
{
        content_lock(x);
        content_unpin(x);
        (void)content_account(x); /* nor was it told */
        content_unlock(x);
}

static int create_here(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                       mode_t mode, int flags, struct vol_entry *ret, struct vol_opened *ret_opened)
{
        struct cached *c = cached_of(v);
        struct content *x;
        struct known k;
        int r = make_content(c, parent, name, mode & 07777 & ~op->umask, &k, &x);

        if (r < 0)
                return r;
        r = cached_made(c, parent, name, &k, x, ret);
        if (r < 0) {
                unmake_content(x);
        } else {
                contents_tell(c->contents);
                r = open_content(v, ret->node, x, flags & ~O_TRUNC, ret_opened);
                if (r < 0) {
                        nodes_forget(&c->nodes, ret->node, 1);
                        (void)content_queue(x); /* it is there, empty; else sync sends it */
                }
        }
        content_unref(x);
        return r;
}

/* It was there before: as open does. */
static int create_over(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                       int flags, struct vol_entry *ret, struct vol_opened *ret_opened)
{
        struct cached *c = cached_of(v);
        struct known k;
        int r = cached_lookup(v, op, parent, name, ret);

        if (r < 0)
                return r;
        if (ret->node == 0)
                return -ESTALE; /* removed in between: the kernel tries again */
        r = S_ISREG(ret->st.st_mode) ? cached_open(v, op, ret->node, flags, ret_opened) : -ESTALE;
        if (r < 0) {
                nodes_forget(&c->nodes, ret->node, 1);
                return r;
        }
        if (flags & O_TRUNC) {
                content_lock(ret_opened->file->x);
                k.st = ret->st;
                content_attrs_locked(ret_opened->file->x, &k.st);
                content_unlock(ret_opened->file->x);
                ret->st = k.st;
        }
        return 0;
}

int cached_create(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  mode_t mode, int flags, struct vol_entry *ret, struct vol_opened *ret_opened)
{
        struct cached *c = cached_of(v);
        struct known k;
        int r = cached_check_change(c);

        if (r == 0)
                r = cached_check_name(name);
        if (r == 0)
                r = cached_look(c, op, parent, name, &k);
        if (r == -ENOENT)
                return create_here(v, op, parent, name, mode, flags, ret, ret_opened);
        if (r < 0)
                return r;
        if (flags & O_EXCL)
                return -EEXIST;
        return create_over(v, op, parent, name, flags, ret, ret_opened);
}

/* ---- reading ---- */

/* Where the last read ended, or near it: then the kernel's reads ahead may come in any order. */
static bool is_in_order(const struct vol_file *f, uint64_t offset, uint64_t end)
{
        if (f->window == 0)
                return offset == f->next;
        return offset <= f->next + REORDER && end + REORDER >= f->next;
}

/* How far to read ahead; 0: nobody reads in order. */
static uint64_t next_window(struct vol_file *f, uint64_t offset, uint64_t size)
{
        uint64_t end = offset + size;

        if (!is_in_order(f, offset, end)) {
                f->next = end;
                f->ahead = f->window = 0;
        } else if (end > f->next) {
                f->next = end;
                f->window = f->window > 0 ? f->window * 2 : WINDOW_MIN;
                if (f->window > WINDOW_MAX)
                        f->window = WINDOW_MAX;
        }
        return f->window;
}

/* Ask for more before the reader comes there. */
static void read_ahead(struct vol_file *f, struct content *x, uint64_t offset, uint64_t size)
        REQUIRES(x->lock)
{
        uint64_t window, step, target;

        if (x->parts.size <= CONTENT_SMALL || x->kind == CONTENT_WHOLE || x->is_removed)
                return;
        window = next_window(f, offset, size);
        if (window == 0)
                return;
        step = window / 4 < STEP_MIN ? STEP_MIN : window / 4 > STEP_MAX ? STEP_MAX : window / 4;
        target = f->next + window;
        if (f->ahead < f->next)
                f->ahead = f->next;
        if (f->ahead >= x->parts.size || target < f->ahead + step)
                return;
        content_fill_later(x, f->ahead, target);
        f->ahead = target;
}

/* After some misses, all of a file that isn't large. */
static void note_miss(const struct vol_file *f, struct content *x, uint64_t offset, uint64_t size)
        REQUIRES(x->lock)
{
        if (f->window > 0 || x->parts.size <= CONTENT_SMALL || x->parts.size > FILL_MAX ||
            x->is_removed || extents_cover(&x->present, offset, offset + size))
                return;
        if (++x->misses == FILL_MISSES && contents_is_far(x->s))
                content_fill_later(x, 0, x->parts.size);
}

/* After a command's end, what the sandbox has now. */
static int check_version(struct volume *v, struct vol_op *op, struct vol_file *f)
{
        struct contents *s = contents_of(v);
        struct content *x = f->x;
        bool is_quiet, is_news, is_checked;
        struct known k;
        int r;

        content_lock(x);
        is_checked =
                x->checked_epoch == volume_epoch(v) || x->is_removed || x->kind == CONTENT_WHOLE;
        content_unlock(x);
        if (is_checked)
                return 0;
        r = cached_attr(s->c, op, f->open.node, &k);
        if (r == -ENOENT || r == -ESTALE)
                return 0; /* removed inside: what is here, or open there, can still be read */
        if (r < 0)
                return r;
        is_quiet = contents_is_quiet(s);
        content_lock(x);
        /* What was replaced inside stays as it was. */
        is_news = !content_is_replaced(x, &k.st) && content_adopt(x, &k, is_quiet);
        content_unlock(x);
        if (is_news)
                content_tell_kernel(x);
        return 0;
}

ssize_t cached_read(struct volume *v, struct vol_op *op, struct vol_file *f, void *data,
                    size_t size, uint64_t offset)
{
        struct content *x = f->x;
        ssize_t n = check_handle(v);

        if (n == 0)
                n = check_version(v, op, f);
        if (n < 0)
                return n;
        content_lock(x);
        if (!op->may_wait)
                note_miss(f, x, offset, size);
        read_ahead(f, x, offset, size);
        n = content_read(x, op->may_wait ? op->call : NULL, data, size, offset);
        content_unlock(x);
        return n;
}

/* ---- writing ---- */

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
        bool is_news = content_account(x);
        bool is_over = atomic_load(&x->s->spool.disk) > x->s->spool.disk_max;

        content_unlock(x);
        if (is_news)
                contents_tell(x->s);
        if (is_over)
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
        int r = check_handle(v);

        if (r == 0 && to_end)
                r = check_version(v, op, f); /* a command may have moved the end */
        if (r < 0)
                return r;
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
        int r = check_handle(v);

        if (r < 0)
                return r;
        content_lock(x);
        is_nothing = x->kind == CONTENT_CLEAN || x->is_removed;
        content_unlock(x);
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
        r = is_mine ? send(v, op, f, cached_of(v)->config.is_sync) : check_handle(v);
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
        int r = check_handle(v);

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

int64_t cached_lseek(struct volume *v, struct vol_op *op, struct vol_file *f, int64_t offset,
                     int whence)
{
        struct content *x = f->x;
        struct extent data;
        int64_t at = check_handle(v);
        uint64_t from = (uint64_t)offset, size;

        (void)op; /* nothing there is asked */
        if (at < 0)
                return at;
        if (whence != SEEK_DATA && whence != SEEK_HOLE)
                return -EINVAL;
        content_lock(x);
        size = x->parts.size;
        if (offset < 0 || from >= size) {
                at = -ENXIO;
        } else if (x->kind != CONTENT_WHOLE || x->is_uploading || x->sending.count > 0) {
                at = whence == SEEK_DATA ? offset : (int64_t)size; /* where holes are isn't known */
        } else if (whence == SEEK_DATA) {
                at = extents_next(&x->parts.dirty, from, size, &data) ? (int64_t)data.start
                                                                      : -ENXIO;
        } else {
                at = extents_gap(&x->parts.dirty, from, size, &data) ? (int64_t)data.start
                                                                     : (int64_t)size;
        }
        content_unlock(x);
        return at;
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
                x = content_of_removed(&c->v, node);
        if (!x && (what & VOL_SET_SIZE))
                return find_content(&c->v, op, node, ret);
        if (x && (what & VOL_SET_SIZE) && !file && !content_is_pinned(x)) {
                content_unref(x);
                return find_content(&c->v, op, node, ret); /* of the version that is there */
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
