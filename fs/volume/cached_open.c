/* SPDX-License-Identifier: Apache-2.0 */
/* Opening files, and making them. */

#include "fs/volume/contents.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/cached_parts.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"

/* ---- handles ---- */

int cached_check_handle(struct volume *v)
{
        return cached_check(cached_of(v)) < 0 ? -ESTALE : 0;
}

int cached_check_version(struct volume *v, struct vol_op *op, struct vol_file *f)
{
        struct contents *s = cached_of(v)->contents;
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
        contents_trim(x->s); /* what was read may go now */
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

static bool is_writing(int flags)
{
        return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
}

struct content *cached_content_of_removed(struct volume *v, uint64_t node)
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

int cached_find_content(struct volume *v, struct vol_op *op, uint64_t node, struct content **ret)
{
        struct contents *s = cached_of(v)->contents;
        struct known k;
        bool is_quiet, is_news;
        int r = cached_attr(s->c, op, node, &k);

        if (r == -ENOENT || r == -ESTALE) {
                *ret = cached_content_of_removed(v, node);
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
        if (content_make_room(x, r))
                r = content_keep_remote(x, op->call); /* each read may find room, or does without */
        atomic_fetch_sub(&x->handles, 1);
        content_unlock(x);
        return r;
}

/*
 * Another file is at its place: the kernel looks again, once, and finds the one that is there now,
 * with its bytes.
 */
static void look_ahead(struct cached *c, struct vol_op *op, uint64_t node)
{
        _cleanup_(freep) char *path = NULL;
        char sentence[sizeof(op->call->sentence)];

        if (!op->may_wait || cached_path(c, node, NULL, &path) < 0)
                return;
        memcpy(sentence, op->call->sentence, sizeof(sentence));
        contents_fetch_spare(c->contents, op->call, path);
        memcpy(op->call->sentence, sentence, sizeof(sentence));
}

int cached_open(struct volume *v, struct vol_op *op, uint64_t node, int flags,
                struct vol_opened *ret)
{
        struct cached *c = cached_of(v);
        struct content *x;
        int r = is_writing(flags) ? cached_check_change(c) : cached_check(c);

        if (r == 0)
                r = cached_find_content(v, op, node, &x);
        if (r == -ESTALE && !is_writing(flags))
                look_ahead(c, op, node);
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
