/* SPDX-License-Identifier: Apache-2.0 */
/* What can be seen: renames into place, directories, removals, writes in place. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "providers/ssh/files_window_parts.h"
#include "transport/base/clock.h"

#define FEW_REQUESTS 64 /* they take as long as the way */
#define TRIES_MAX 8 /* of content for which there may be room once what is before it was done */
#define OPS_OF_NAMES 4 /* most requests of a change beside its content */

static void add_store(struct batch *b, struct window_item *i)
{
        unsigned features = sftp_features(b->w->spot->sftp);
        enum sftp_type type = SFTP_RENAME; /* plain: fails where something is */

        if ((i->x->flags & CHANGE_EXCLUSIVE) == 0 && (features & SFTP_CAN_POSIX_RENAME) != 0)
                type = SFTP_POSIX_RENAME;
        batch_add(b, i, type, i->temp)->to = i->path;
        (void)batch_add(b, i, SFTP_LSTAT, i->path);
}

/* By another name, for the mode: the server's umask would cut it, and chmod by path is not safe. */
static void add_mkdir(struct batch *b, struct window_item *i)
{
        const struct sftp_set first = {.what = SFTP_SET_MODE, .mode = 0700};
        const struct sftp_set mode = {.what = SFTP_SET_MODE, .mode = i->x->mode & 07777};

        batch_add(b, i, SFTP_MKDIR, i->temp)->set = first;
        batch_add(b, i, SFTP_SETSTAT, i->temp)->set = mode;
        batch_add(b, i, SFTP_RENAME, i->temp)->to = i->path;
        (void)batch_add(b, i, SFTP_LSTAT, i->path);
}

static void add_set(struct batch *b, struct window_item *i)
{
        bool can = (sftp_features(b->w->spot->sftp) & SFTP_CAN_LSETSTAT) != 0;
        struct sftp_set set = item_set(i);
        /* A mode, or a size, of a link is nothing that anybody sets. */
        bool is_of_link = can && set.what == SFTP_SET_TIMES;

        if (set.what != 0)
                batch_add(b, i, is_of_link ? SFTP_LSETSTAT : SFTP_SETSTAT, i->path)->set = set;
        (void)batch_add(b, i, SFTP_LSTAT, i->path);
}

static void add_rename(struct batch *b, struct window_item *i)
{
        unsigned features = sftp_features(b->w->spot->sftp);
        bool is_over = (i->x->flags & RENAME_NOREPLACE) == 0;

        batch_add(b, i,
                  is_over && (features & SFTP_CAN_POSIX_RENAME) ? SFTP_POSIX_RENAME : SFTP_RENAME,
                  i->path)
                ->to = i->to;
        (void)batch_add(b, i, SFTP_LSTAT, i->to);
}

static void add_names(struct batch *b, struct window_item *i)
{
        switch (i->x->kind) {
        case CHANGE_STORE: add_store(b, i); break;
        case CHANGE_WRITE:
                window_add_content(b, i);
                i->handle.size = 0;
                break;
        case CHANGE_MKDIR: add_mkdir(b, i); break;
        case CHANGE_SYMLINK:
                batch_add(b, i, SFTP_SYMLINK, i->path)->to = i->x->to;
                (void)batch_add(b, i, SFTP_LSTAT, i->path);
                break;
        case CHANGE_LINK:
                batch_add(b, i, SFTP_HARDLINK, i->path)->to = i->to;
                (void)batch_add(b, i, SFTP_LSTAT, i->to);
                break;
        case CHANGE_UNLINK: (void)batch_add(b, i, SFTP_UNLINK, i->path); break;
        case CHANGE_RMDIR: (void)batch_add(b, i, SFTP_RMDIR, i->path); break;
        case CHANGE_RENAME: add_rename(b, i); break;
        case CHANGE_SET: add_set(b, i); break;
        }
}

/* What it is now: exact where we set its times, or where nobody sees finer ones. */
static void take_stat(const struct window *w, struct window_item *i, const struct sftp_op *op)
{
        struct change *x = i->x;
        bool is_new = x->kind == CHANGE_MKDIR || x->kind == CHANGE_SYMLINK;
        bool is_exact = (x->what & FILE_SET_MTIME) != 0 && x->mtime.tv_sec == op->st.st_mtim.tv_sec;

        if (op->error < 0)
                return;
        x->st = op->st;
        x->has_st =
                i->is_for_touch ? !w->spot->has_shell : !w->spot->has_find || is_new || is_exact;
}

static void take_names(struct batch *b)
{
        for (size_t k = 0; k < b->count; k++) {
                const struct sftp_op *op = &b->ops[k];
                struct window_item *i = op->ctx;
                bool is_stat = op->type == SFTP_LSTAT || op->type == SFTP_FSTAT;

                if (i->error > 0 && op->error < 0 && (!is_stat || i->is_for_touch))
                        i->error = op->error;
                if (i->error > 0 && is_stat)
                        take_stat(b->w, i, op);
                if (op->error == 0 && (op->type == SFTP_RENAME || op->type == SFTP_POSIX_RENAME))
                        i->is_moved = true;
        }
}

static int name_some(struct window *w, size_t from, size_t to)
{
        uint64_t begin = clock_mono_ns();
        struct batch b;
        size_t room = 0;
        int r;

        for (size_t i = from; i < to; i++)
                room += OPS_OF_NAMES +
                        (w->items[i].data ? window_write_count(w, w->items[i].x) : 0);
        if (!batch_init(&b, w, room))
                return -ENOMEM;
        for (size_t i = from; i < to; i++) {
                if (w->items[i].error > 0 && !w->items[i].is_done)
                        add_names(&b, &w->items[i]);
                w->items[i].is_named = true;
        }
        r = batch_run(&b);
        if (r == 0 && b.count > 0 && b.count <= FEW_REQUESTS && w->bytes == 0)
                files_took(w->spot->box, clock_mono_ns() - begin);
        take_names(&b);
        free(b.ops);
        return r;
}

/* ---- content that found no room ---- */

static bool may_free(const struct window_item *i)
{
        const struct change *x = i->x;

        return i->error > 0 && (x->kind == CHANGE_UNLINK || x->kind == CHANGE_RENAME ||
                                x->kind == CHANGE_STORE || (x->what & FILE_SET_SIZE) != 0);
}

/*
 * The first, behind `from`, that was refused although what is to be done before it may free space;
 * w->count: none, or it was tried often enough.
 */
static size_t find_refused(const struct window *w, size_t from, unsigned *tries)
{
        bool is_freed = false;

        for (size_t i = from; i < w->count; i++) {
                if (w->items[i].is_refused && is_freed && *tries > 0) {
                        --*tries;
                        return i;
                }
                is_freed |= may_free(&w->items[i]);
        }
        return w->count;
}

/* What was written of those that were refused takes space, too. */
static int forgive(struct window *w)
{
        struct batch b;
        int r;

        if (!batch_init(&b, w, w->count))
                return -ENOMEM;
        for (size_t i = 0; i < w->count; i++) {
                struct window_item *at = &w->items[i];

                if (!at->is_refused)
                        continue;
                at->is_refused = false;
                at->error = WINDOW_NOTHING_YET;
                (void)batch_add(&b, at, SFTP_UNLINK, at->temp);
        }
        r = batch_run(&b);
        free(b.ops);
        return r;
}

int window_name(struct window *w)
{
        unsigned tries = TRIES_MAX;
        size_t from = 0;
        int r = 0;

        while (r == 0 && from < w->count) {
                size_t to = find_refused(w, from, &tries);

                if (to < w->count)
                        r = forgive(w);
                if (r == 0)
                        r = name_some(w, from, to);
                if (r == 0 && to < w->count)
                        r = window_fill(w);
                from = to;
        }
        return r;
}
