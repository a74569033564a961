/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/files_window.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/random.h"

#define NOTHING_YET 1
#define FEW_REQUESTS 64 /* they take as long as the way */
#define TRIES_MAX 8 /* of content for which there may be room once what is before it was done */
#define CANCELLED_NS (250 * NS_PER_MS)
#define OPS_OF_NAMES 4 /* most requests of a change beside its content */

/* ---- what a change is made of ---- */

static uint64_t content_size(const struct change *x)
{
        uint64_t size = 0;

        if (x->kind == CHANGE_STORE && x->extent_count == 0)
                return x->from ? x->from->size : 0;
        if (x->kind != CHANGE_STORE && x->kind != CHANGE_WRITE)
                return 0;
        for (size_t i = 0; i < x->extent_count; i++)
                size += x->extents[i].size;
        return size;
}

static bool is_large(const struct change *x)
{
        return content_size(x) > LARGE_BYTES;
}

/* SFTP sets both times or none. */
static bool has_one_time(const struct change *x)
{
        unsigned times = x->what & (FILE_SET_ATIME | FILE_SET_MTIME);

        return x->kind == CHANGE_SET && times != 0 && times != (FILE_SET_ATIME | FILE_SET_MTIME);
}

/* Its times need a look at what it is. */
static bool needs_look(const struct window *w, const struct change *x)
{
        bool sets_times = x->kind == CHANGE_SET && (x->what & (FILE_SET_ATIME | FILE_SET_MTIME));

        return sets_times && !is_set_by_touch(w->spot, x) &&
               (has_one_time(x) || follows_links(w->spot));
}

static struct sftp_set set_of(const struct window_item *i)
{
        const struct change *x = i->x;
        bool is_store = x->kind == CHANGE_STORE;
        struct sftp_set set = {.mode = x->mode & 07777, .size = x->size};

        if (is_store || (x->what & FILE_SET_MODE))
                set.what |= SFTP_SET_MODE;
        if (x->what & FILE_SET_SIZE)
                set.what |= SFTP_SET_SIZE;
        if ((x->what & (FILE_SET_ATIME | FILE_SET_MTIME)) == 0 || i->is_for_touch)
                return set;
        set.what |= SFTP_SET_TIMES;
        set.atime = x->what & FILE_SET_ATIME ? x->atime
                    : x->kind == CHANGE_SET  ? i->atime
                                             : x->mtime;
        set.mtime = x->what & FILE_SET_MTIME ? x->mtime : i->atime;
        return set;
}

/* Whether one is the other, or a directory above it. */
static bool is_related(const char *a, const char *b)
{
        size_t n = 0;

        if (!a || !b)
                return false;
        while (a[n] && a[n] == b[n])
                n++;
        return (!a[n] && (!b[n] || b[n] == '/' || n == 0)) || (!b[n] && (a[n] == '/' || n == 0));
}

/* Whether what must be opened, or looked at, beforehand is first made by an earlier change. */
static bool depends(const struct window *w, const struct change *x)
{
        bool is_opened = x->kind == CHANGE_WRITE || needs_look(w, x) ||
                         (x->kind == CHANGE_STORE && w->is_beside);

        for (size_t i = 0; is_opened && i < w->count; i++) {
                const struct change *earlier = w->items[i].x;

                if (is_related(earlier->path, x->path) || is_related(earlier->to, x->path))
                        return true;
        }
        return false;
}

/* ---- filling it ---- */

void window_init(struct window *w, struct spot *s, struct call *c)
{
        *w = (struct window){.spot = s, .call = c};
        w->is_beside = !is_related(s->paths->dir, s->paths->work);
}

static void item_done(struct window_item *i)
{
        free(i->path);
        free(i->to);
        free(i->temp);
        free(i->data);
}

void window_done(struct window *w)
{
        for (size_t i = 0; i < w->count; i++)
                item_done(&w->items[i]);
        free(w->items);
        w->items = NULL;
        w->count = 0;
}

/* A name of its own, in the sandbox's directory or beside the file. */
static char *temp_of(const struct window *w, const char *path)
{
        const char *dir = w->spot->paths->dir, *slash = strrchr(path, '/');
        char id[RANDOM_ID_SIZE], *temp;
        int length = w->is_beside && slash ? (int)(slash - path) : (int)strlen(dir);

        if (random_id(id) < 0)
                return NULL;
        return asprintf(&temp, "%.*s/" TEMP_NAME "%s", length, w->is_beside ? path : dir, id) < 0
                       ? NULL
                       : temp;
}

static int read_content(struct window_item *i)
{
        const struct change *x = i->x;
        uint64_t size = content_size(x), at = 0;
        int r = 0;

        if (size == 0 || is_large(x))
                return 0;
        i->data = malloc(size);
        if (!i->data)
                return -ENOMEM;
        if (x->extent_count == 0)
                return x->from->read(x->from, i->data, size, 0);
        for (size_t k = 0; r == 0 && k < x->extent_count; k++) {
                r = x->from->read(x->from, i->data + at, x->extents[k].size, x->extents[k].offset);
                at += x->extents[k].size;
        }
        return r;
}

/* What people can't ask for, or only of fs/ itself. */
static int check(const struct change *x)
{
        if (!x->path[0] && x->kind != CHANGE_SET)
                return -EINVAL;
        if (x->kind == CHANGE_RENAME && (x->flags & ~(unsigned)RENAME_NOREPLACE) != 0)
                return -EINVAL;
        if ((x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK) && !x->to[0])
                return -EINVAL;
        return 0;
}

static int prepare(struct window *w, struct window_item *i)
{
        struct change *x = i->x;
        bool has_temp = x->kind == CHANGE_STORE || x->kind == CHANGE_MKDIR;
        int r = check(x);

        if (r < 0)
                return r;
        i->path = ssh_spot_path(w->spot, x->path);
        if (i->path && (x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK))
                i->to = ssh_spot_path(w->spot, x->to);
        if (i->path && has_temp)
                i->temp = i->is_bulk ? bulk_temp(w) : temp_of(w, i->path);
        if (!i->path || (has_temp && !i->temp) ||
            ((x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK) && !i->to))
                return -ENOMEM;
        return i->is_bulk ? 0 : read_content(i);
}

/* Whether it goes together with those that are there. */
static bool has_room(const struct window *w, const struct change *x, bool is_bulk)
{
        bool is_opened = !is_bulk && (x->kind == CHANGE_STORE || x->kind == CHANGE_WRITE);
        uint64_t size = content_size(x);

        if (w->count == 0)
                return true;
        if (w->count == WINDOW_CHANGES || !sftp_is_ordered(w->spot->sftp) || is_large(x) ||
            is_large(w->items[0].x) || depends(w, x))
                return false;
        if (is_bulk)
                return w->bulk_bytes + size <= BULK_BYTES_MAX;
        return w->bytes + size <= WINDOW_BYTES && (!is_opened || w->open_count < WINDOW_OPEN);
}

static bool grow(struct window *w)
{
        size_t room = w->room > 0 ? 2 * w->room : 16;
        struct window_item *more;

        if (w->count < w->room)
                return true;
        more = reallocarray(w->items, room, sizeof(*more));
        if (!more)
                return false;
        w->items = more;
        w->room = room;
        return true;
}

static void count(struct window *w, const struct window_item *i)
{
        if (i->is_bulk) {
                w->bulk_bytes += content_size(i->x);
                w->bulk_count++;
        } else {
                w->bytes += content_size(i->x);
                w->open_count += i->x->kind == CHANGE_STORE || i->x->kind == CHANGE_WRITE;
        }
        w->count++;
}

bool window_add(struct window *w, struct change *x)
{
        bool is_bulk = bulk_can(w, x);
        struct window_item *i;
        int r;

        if (!has_room(w, x, is_bulk) || !grow(w))
                return false;
        i = &w->items[w->count];
        *i = (struct window_item){.x = x, .is_bulk = is_bulk};
        x->has_st = false;
        x->st = (struct stat){0};
        r = prepare(w, i);
        i->error = r < 0 ? r : NOTHING_YET;
        i->is_for_touch = is_set_by_touch(w->spot, x);
        count(w, i);
        return true;
}

/* ---- requests ---- */

/* A list of requests with the item of each. */
struct batch {
        struct window *w;
        struct sftp_op *ops;
        size_t count, room;
};

static bool batch_init(struct batch *b, struct window *w, size_t room)
{
        *b = (struct batch){.w = w, .ops = calloc(room + 1, sizeof(*b->ops)), .room = room};
        return b->ops;
}

static struct sftp_op *add(struct batch *b, struct window_item *i, enum sftp_type type,
                           const char *path)
{
        struct sftp_op *op = &b->ops[b->count++];

        assert(b->count <= b->room);
        *op = (struct sftp_op){.type = type,
                               .path = path,
                               .ctx = i,
                               .is_bulk = b->w->bytes > 0,
                               .handle = i->handle};
        return op;
}

/* All at once where their order is kept, else one by one. The item has the first that failed. */
static int batch_run(struct batch *b)
{
        struct spot *s = b->w->spot;
        bool is_ordered = sftp_is_ordered(s->sftp);
        size_t step = is_ordered ? b->count : 1;
        int r = 0;

        for (size_t at = 0; r == 0 && at < b->count; at += step) {
                struct window_item *i = b->ops[at].ctx;

                if (!is_ordered && i->error < 0 && b->ops[at].type != SFTP_CLOSE) {
                        b->ops[at].error = -ECANCELED; /* what it follows has failed */
                        continue;
                }
                r = sftp_run(s->sftp, b->w->call, &b->ops[at], step);
                if (!is_ordered && r == 0 && b->ops[at].error < 0 &&
                    b->ops[at].type != SFTP_LSTAT && i->error > 0)
                        i->error = b->ops[at].error;
        }
        return r;
}

/* The first failure of those requests of an item that matter. */
static void take_errors(struct batch *b)
{
        for (size_t k = 0; k < b->count; k++) {
                struct window_item *i = b->ops[k].ctx;

                if (i->error > 0 && b->ops[k].error < 0)
                        i->error = b->ops[k].error;
        }
}

/* ---- open ---- */

static void add_open(struct batch *b, struct window_item *i)
{
        struct sftp_op *op;

        if (i->error <= 0 || i->is_filled || i->is_named || i->handle.size > 0)
                return;
        if (i->x->kind == CHANGE_STORE) {
                op = add(b, i, SFTP_OPEN, i->temp);
                op->flags = SFTP_FOR_WRITE | SFTP_CREATE | SFTP_EXCLUSIVE;
                op->set = (struct sftp_set){.what = SFTP_SET_MODE, .mode = 0600};
        } else if (i->x->kind == CHANGE_WRITE) {
                op = add(b, i, SFTP_OPEN, i->path);
                op->flags = SFTP_FOR_WRITE;
        } else if (needs_look(b->w, i->x)) {
                (void)add(b, i, SFTP_LSTAT, i->path);
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

                i->error = r < 0 ? r : NOTHING_YET;
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

static size_t write_count(const struct window *w, const struct change *x)
{
        uint32_t piece = sftp_piece_max(w->spot->sftp);

        return (size_t)(content_size(x) / piece) + x->extent_count + 1;
}

static void add_extent(struct batch *b, struct window_item *i, const struct file_extent *extent,
                       const unsigned char *data)
{
        uint32_t piece = sftp_piece_max(b->w->spot->sftp);

        for (uint64_t at = 0; at < extent->size; at += piece) {
                struct sftp_op *op = add(b, i, SFTP_WRITE, NULL);

                op->offset = extent->offset + at;
                op->size = extent->size - at < piece ? (uint32_t)(extent->size - at) : piece;
                op->data = data + at;
        }
}

/* Content, attributes, end. */
static void add_content(struct batch *b, struct window_item *i)
{
        const struct change *x = i->x;
        const struct file_extent whole = {.size = content_size(x)};
        uint64_t at = 0;
        struct sftp_op *op;

        if (i->data && x->extent_count == 0)
                add_extent(b, i, &whole, i->data);
        for (size_t k = 0; i->data && k < x->extent_count; k++) {
                add_extent(b, i, &x->extents[k], i->data + at);
                at += x->extents[k].size;
        }
        op = add(b, i, SFTP_FSETSTAT, NULL);
        op->set = set_of(i);
        if (op->set.what == 0)
                b->count--;
        if (x->kind == CHANGE_WRITE)
                (void)add(b, i, SFTP_FSTAT, NULL);
        (void)add(b, i, SFTP_CLOSE, NULL);
}

static int fill_large(struct window *w)
{
        struct window_item *i = &w->items[0];
        int r;

        if (i->error <= 0 || !is_large(i->x))
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
                room += w->items[i].data ? write_count(w, w->items[i].x) + 3 : 3;
        if (!batch_init(&b, w, room))
                return -ENOMEM;
        for (size_t i = from; i < to; i++) {
                struct window_item *at = &w->items[i];

                if (at->x->kind == CHANGE_STORE && at->handle.size > 0) {
                        add_content(&b, at);
                        at->handle.size = 0;
                }
        }
        r = batch_run(&b);
        if (r == 0)
                take_errors(&b);
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
                r = read_content(at);
                if (r < 0)
                        at->error = r;
                bytes += content_size(at->x);
                open++;
        }
        *ret = i;
        return open > 0;
}

/* Temporary files, and those in place; by SFTP what tar didn't do. */
static int fill_all(struct window *w)
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

/* ---- names ---- */

static void add_store(struct batch *b, struct window_item *i)
{
        unsigned features = sftp_features(b->w->spot->sftp);
        enum sftp_type type = SFTP_RENAME; /* plain: fails where something is */

        if ((i->x->flags & CHANGE_EXCLUSIVE) == 0 && (features & SFTP_CAN_POSIX_RENAME) != 0)
                type = SFTP_POSIX_RENAME;
        add(b, i, type, i->temp)->to = i->path;
        (void)add(b, i, SFTP_LSTAT, i->path);
}

/* By another name, for the mode: the server's umask would cut it, and chmod by path is not safe. */
static void add_mkdir(struct batch *b, struct window_item *i)
{
        const struct sftp_set first = {.what = SFTP_SET_MODE, .mode = 0700};
        const struct sftp_set mode = {.what = SFTP_SET_MODE, .mode = i->x->mode & 07777};

        add(b, i, SFTP_MKDIR, i->temp)->set = first;
        add(b, i, SFTP_SETSTAT, i->temp)->set = mode;
        add(b, i, SFTP_RENAME, i->temp)->to = i->path;
        (void)add(b, i, SFTP_LSTAT, i->path);
}

static void add_set(struct batch *b, struct window_item *i)
{
        bool can = (sftp_features(b->w->spot->sftp) & SFTP_CAN_LSETSTAT) != 0;
        struct sftp_set set = set_of(i);
        /* A mode, or a size, of a link is nothing that anybody sets. */
        bool is_of_link = can && set.what == SFTP_SET_TIMES;

        if (set.what != 0)
                add(b, i, is_of_link ? SFTP_LSETSTAT : SFTP_SETSTAT, i->path)->set = set;
        (void)add(b, i, SFTP_LSTAT, i->path);
}

static void add_rename(struct batch *b, struct window_item *i)
{
        unsigned features = sftp_features(b->w->spot->sftp);
        bool is_over = (i->x->flags & RENAME_NOREPLACE) == 0;

        add(b, i, is_over && (features & SFTP_CAN_POSIX_RENAME) ? SFTP_POSIX_RENAME : SFTP_RENAME,
            i->path)
                ->to = i->to;
        (void)add(b, i, SFTP_LSTAT, i->to);
}

static void add_names(struct batch *b, struct window_item *i)
{
        switch (i->x->kind) {
        case CHANGE_STORE: add_store(b, i); break;
        case CHANGE_WRITE:
                add_content(b, i);
                i->handle.size = 0;
                break;
        case CHANGE_MKDIR: add_mkdir(b, i); break;
        case CHANGE_SYMLINK:
                add(b, i, SFTP_SYMLINK, i->path)->to = i->x->to;
                (void)add(b, i, SFTP_LSTAT, i->path);
                break;
        case CHANGE_LINK:
                add(b, i, SFTP_HARDLINK, i->path)->to = i->to;
                (void)add(b, i, SFTP_LSTAT, i->to);
                break;
        case CHANGE_UNLINK: (void)add(b, i, SFTP_UNLINK, i->path); break;
        case CHANGE_RMDIR: (void)add(b, i, SFTP_RMDIR, i->path); break;
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
                room += OPS_OF_NAMES + (w->items[i].data ? write_count(w, w->items[i].x) : 0);
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
                at->error = NOTHING_YET;
                (void)add(&b, at, SFTP_UNLINK, at->temp);
        }
        r = batch_run(&b);
        free(b.ops);
        return r;
}

/* In their order, from the first on. */
static int name_all(struct window *w)
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
                        r = fill_all(w);
                from = to;
        }
        return r;
}

/* ---- results ---- */

/* Without posix-rename: not in one step. */
static int replace(struct window *w, struct window_item *i)
{
        const char *from = i->x->kind == CHANGE_STORE ? i->temp : i->path;
        const char *to = i->x->kind == CHANGE_STORE ? i->path : i->to;
        int r = sftp_rename(w->spot->sftp, w->call, from, to, true);

        i->is_moved = r == 0;
        return r;
}

static bool may_replace(const struct window *w, const struct window_item *i)
{
        if ((sftp_features(w->spot->sftp) & SFTP_CAN_POSIX_RENAME) != 0)
                return false;
        return (i->x->kind == CHANGE_STORE && (i->x->flags & CHANGE_EXCLUSIVE) == 0) ||
               (i->x->kind == CHANGE_RENAME && (i->x->flags & RENAME_NOREPLACE) == 0);
}

static void explain_all(struct window *w)
{
        _cleanup_(freep) struct why *whys = calloc(w->count + 1, sizeof(*whys));
        size_t count = 0;

        if (!whys)
                return; /* the server's own words stand */
        for (size_t i = 0; i < w->count; i++) {
                if (w->items[i].error < 0 && w->items[i].path)
                        whys[count++] =
                                (struct why){.x = w->items[i].x, .error = w->items[i].error};
        }
        why_changes(w->spot, w->call, whys, count);
        count = 0;
        for (size_t i = 0; i < w->count; i++) {
                struct window_item *at = &w->items[i];
                int r;

                if (at->error >= 0 || !at->path)
                        continue;
                at->error = whys[count++].error;
                if (!may_replace(w, at) || (at->error != -EIO && at->error != -ENOTEMPTY))
                        continue;
                r = replace(w, at);
                at->error = r == -EIO ? at->error : r;
        }
}

/* Nothing is left behind of what failed, or of all. */
static void clean_up(struct window *w, bool is_all)
{
        _cleanup_(freep) struct sftp_op *ops = calloc(w->count + 1, sizeof(*ops));
        uint64_t until_ns = w->call->deadline_ns;
        struct call quiet;
        size_t count = 0;

        /* Who was cancelled doesn't wait for a host that may be dead: the rest is left for later. */
        if (atomic_load(&w->call->is_cancelled) && until_ns > clock_after(CANCELLED_NS))
                until_ns = clock_after(CANCELLED_NS);
        for (size_t i = 0; ops && i < w->count; i++) {
                struct window_item *at = &w->items[i];

                if (at->error >= 0 && !is_all)
                        continue;
                if (at->handle.size > 0)
                        sftp_close_later(w->spot->sftp, &at->handle);
                at->handle.size = 0;
                if (at->temp && !at->is_moved)
                        ops[count++] = (struct sftp_op){
                                .type = at->x->kind == CHANGE_MKDIR ? SFTP_RMDIR : SFTP_UNLINK,
                                .path = at->temp};
        }
        call_init(&quiet, until_ns); /* the failure to tell is the one before */
        if (ops)
                (void)sftp_run(w->spot->sftp, &quiet, ops, count);
        for (size_t i = 0; i < count; i++) {
                if (ops[i].error == -EINPROGRESS || ops[i].error == -ECANCELED)
                        left_add(w->spot->box, ops[i].type == SFTP_RMDIR, ops[i].path);
        }
}

static void settle(struct window *w)
{
        bool has_failed = false;

        for (size_t i = 0; i < w->count; i++) {
                if (w->items[i].error == NOTHING_YET)
                        w->items[i].error = 0;
                has_failed |= w->items[i].error < 0;
        }
        if (has_failed) {
                explain_all(w);
                clean_up(w, false);
        }
        for (size_t i = 0; i < w->count; i++) {
                struct change *x = w->items[i].x;

                x->error = w->items[i].error;
                x->has_st &= x->error == 0;
        }
}

/* The call has failed: what had its answer keeps it, all else may have happened or not. */
static void settle_lost(struct window *w)
{
        clean_up(w, true);
        for (size_t i = 0; i < w->count; i++)
                w->items[i].x->has_st = false;
}

int window_run(struct window *w)
{
        int r = bulk_fill(w);

        if (r == 0)
                r = fill_all(w);
        if (r == 0)
                r = name_all(w);
        if (r == 0)
                settle(w);
        else
                settle_lost(w);
        return r;
}
