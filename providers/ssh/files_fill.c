/* SPDX-License-Identifier: Apache-2.0 */
/* What is opened before anything can be seen, and the content of it. */

#include <errno.h>
#include <stdlib.h>

#include "providers/ssh/files_window_parts.h"
#include "transport/base/cleanup.h"

/* ---- open ---- */

static void add_open(struct batch *b, struct window_item *i)
{
        struct sftp_op *op;

        if (i->error <= 0 || i->is_filled || i->is_named || i->handle.size > 0)
                return;
        if (i->x->kind == CHANGE_STORE) {
                op = batch_add(b, i, SFTP_OPEN, i->temp);
                op->flags = SFTP_FOR_WRITE | SFTP_CREATE | SFTP_EXCLUSIVE;
                op->set = (struct sftp_set){.what = SFTP_SET_MODE, .mode = 0600};
        } else if (i->x->kind == CHANGE_WRITE) {
                op = batch_add(b, i, SFTP_OPEN, i->path);
                op->flags = SFTP_FOR_WRITE;
        } else if (window_needs_look(b->w, i->x)) {
                (void)batch_add(b, i, SFTP_LSTAT, i->path);
        }
}

/*
 * The owner may write in place what has become read-only since it was opened; slow, and rare.
 * Anything but a regular file is not opened: it could block.
 */
static int open_read_only(struct window *w, struct window_item *i)
{
        struct sftp *s = w->spot->sftp;
        struct sftp_op look = {.type = SFTP_LSTAT, .path = i->path};
        struct sftp_op back = {.type = SFTP_FSETSTAT, .set.what = SFTP_SET_MODE};
        struct sftp_set set = {.what = SFTP_SET_MODE};
        int r = sftp_run(s, w->call, &look, 1);

        if (r < 0 || look.error < 0 || !S_ISREG(look.st.st_mode) || (look.st.st_mode & 0200) != 0)
                return r < 0 ? r : -EACCES;
        set.mode = (look.st.st_mode & 07777) | 0200;
        r = sftp_setstat(s, w->call, i->path, &set);
        if (r == 0)
                r = sftp_open(s, w->call, i->path, SFTP_FOR_WRITE, 0, &back.handle);
        if (r < 0)
                return r;
        back.set.mode = look.st.st_mode & 07777;
        i->handle = back.handle;
        r = sftp_run(s, w->call, &back, 1);
        return r < 0 ? r : back.error;
}

static int take_opened(struct window *w, const struct sftp_op *op)
{
        struct window_item *i = op->ctx;

        if (op->type == SFTP_LSTAT) {
                i->atime = i->x->what & FILE_SET_MTIME ? op->st.st_atim : op->st.st_mtim;
                i->is_for_touch = S_ISLNK(op->st.st_mode) && follows_links(w->spot);
                if (op->error < 0)
                        i->error = op->error;
                return 0;
        }
        i->handle = op->handle;
        if (op->error == -EACCES && i->x->kind == CHANGE_WRITE) {
                int r = open_read_only(w, i);

                i->error = r < 0 ? r : WINDOW_NOTHING_YET;
                return sftp_error(w->spot->sftp, NULL, 0);
        }
        if (op->error < 0)
                i->error = op->error;
        return 0;
}

static bool is_to_write(const struct window_item *i)
{
        return i->x->kind == CHANGE_WRITE && i->error > 0 && !i->is_named && i->handle.size == 0;
}

/* A FIFO that is opened for writing would hold up the server: what is written in place is looked at
 * first, where the change before it didn't say what it is. */
static int check_in_place(struct window *w)
{
        _cleanup_(freep) struct sftp_stat_item *items = calloc(w->count, sizeof(*items));
        size_t n = 0, k = 0;
        int r = items ? 0 : -ENOMEM;

        for (size_t i = 0; r == 0 && i < w->count; i++) {
                if (is_to_write(&w->items[i]))
                        items[n++].path = w->items[i].path;
        }
        if (r == 0 && n > 0)
                r = sftp_stat(w->spot->sftp, w->call, items, n);
        for (size_t i = 0; r == 0 && i < w->count; i++) {
                struct window_item *at = &w->items[i];

                if (!is_to_write(at))
                        continue;
                if (items[k].error < 0)
                        at->error = items[k].error;
                else if (!S_ISREG(items[k].st.st_mode))
                        at->error = S_ISDIR(items[k].st.st_mode) ? -EISDIR : -EINVAL;
                k++;
        }
        return r;
}

static int open_some(struct window *w, size_t from, size_t to)
{
        struct batch b;
        int r;

        if (!batch_init(&b, w, to - from))
                return -ENOMEM;
        for (size_t i = from; i < to; i++)
                add_open(&b, &w->items[i]);
        r = batch_run(&b);
        for (size_t k = 0; k < b.count; k++) {
                int taken = r == 0 ? take_opened(w, &b.ops[k]) : 0;

                if (r < 0 && b.ops[k].error == 0)
                        ((struct window_item *)b.ops[k].ctx)->handle = b.ops[k].handle;
                if (taken < 0)
                        r = taken;
        }
        free(b.ops);
        return r;
}

/* ---- fill ---- */

size_t window_write_count(const struct window *w, const struct change *x)
{
        uint32_t piece = sftp_piece_max(w->spot->sftp);

        return (size_t)(window_content_size(x) / piece) + x->extent_count + 1;
}

static void add_extent(struct batch *b, struct window_item *i, const struct file_extent *extent,
                       const unsigned char *data)
{
        uint32_t piece = sftp_piece_max(b->w->spot->sftp);

        for (uint64_t at = 0; at < extent->size; at += piece) {
                struct sftp_op *op = batch_add(b, i, SFTP_WRITE, NULL);

                op->offset = extent->offset + at;
                op->size = extent->size - at < piece ? (uint32_t)(extent->size - at) : piece;
                op->data = data + at;
        }
}

void window_add_content(struct batch *b, struct window_item *i)
{
        const struct change *x = i->x;
        const struct file_extent whole = {.size = window_content_size(x)};
        uint64_t at = 0;
        struct sftp_op *op;

        if (i->data && x->extent_count == 0)
                add_extent(b, i, &whole, i->data);
        for (size_t k = 0; i->data && k < x->extent_count; k++) {
                add_extent(b, i, &x->extents[k], i->data + at);
                at += x->extents[k].size;
        }
        op = batch_add(b, i, SFTP_FSETSTAT, NULL);
        op->set = item_set(i);
        if (op->set.what == 0)
                b->count--;
        if (x->kind == CHANGE_WRITE)
                (void)batch_add(b, i, SFTP_FSTAT, NULL);
        (void)batch_add(b, i, SFTP_CLOSE, NULL);
}

static int fill_large(struct window *w)
{
        struct window_item *i = &w->items[0];
        int r;

        if (i->error <= 0 || !window_is_large(i->x))
                return 0;
        r = large_write(w->spot, w->call, &i->handle,
                        i->x->kind == CHANGE_STORE ? i->temp : i->path, i->x);
        if (r < 0 && (r == -EINTR || r == -ETIMEDOUT || sftp_error(w->spot->sftp, NULL, 0) < 0))
                return r;
        if (r < 0)
                i->error = r;
        return 0;
}

static int fill_some(struct window *w, size_t from, size_t to)
{
        struct batch b;
        size_t room = 0;
        int r = fill_large(w);

        if (r < 0)
                return r;
        for (size_t i = from; i < to; i++)
                room += w->items[i].data ? window_write_count(w, w->items[i].x) + 3 : 3;
        if (!batch_init(&b, w, room))
                return -ENOMEM;
        for (size_t i = from; i < to; i++) {
                struct window_item *at = &w->items[i];

                if (at->x->kind == CHANGE_STORE && at->handle.size > 0) {
                        window_add_content(&b, at);
                        at->handle.size = 0;
                }
        }
        r = batch_run(&b);
        if (r == 0)
                batch_take_errors(&b);
        for (size_t k = 0; r == 0 && k < b.count; k++) {
                struct window_item *at = b.ops[k].ctx;

                at->is_filled = at->error > 0;
                at->is_refused |= at->error == -EIO || at->error == -ENOSPC;
        }
        free(b.ops);
        return r;
}

/*
 * The next ones, from `from` on, that can be open at the same time, with their content in memory:
 * where tar didn't do it. The end of them.
 */
static int read_group(struct window *w, size_t from, size_t *ret)
{
        size_t open = 0, i = from;
        uint64_t bytes = 0;

        for (; i < w->count && open < WINDOW_OPEN && bytes < WINDOW_BYTES; i++) {
                struct window_item *at = &w->items[i];
                int r;

                if (!at->is_bulk || at->is_filled || at->error <= 0)
                        continue;
                r = item_read(at);
                if (r < 0)
                        at->error = r;
                bytes += window_content_size(at->x);
                open++;
        }
        *ret = i;
        return open > 0;
}

int window_fill(struct window *w)
{
        size_t from = 0, to;
        int r = check_in_place(w);

        while (r == 0 && from < w->count) {
                bool is_late = read_group(w, from, &to) > 0;

                r = open_some(w, from, to);
                if (r == 0)
                        r = fill_some(w, from, to);
                for (size_t i = from; r == 0 && is_late && i < to; i++) {
                        if (!w->items[i].is_bulk)
                                continue;
                        free(w->items[i].data);
                        w->items[i].data = NULL;
                }
                from = to;
        }
        return r;
}
