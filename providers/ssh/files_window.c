/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/files_window.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/files_window_parts.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/path.h"
#include "transport/base/random.h"

#define CANCELLED_NS (250 * NS_PER_MS)

/* ---- what a change is made of ---- */

uint64_t window_content_size(const struct change *x)
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

bool window_is_large(const struct change *x)
{
        return window_content_size(x) > LARGE_BYTES;
}

/* SFTP sets both times or none. */
static bool has_one_time(const struct change *x)
{
        unsigned times = x->what & (FILE_SET_ATIME | FILE_SET_MTIME);

        return x->kind == CHANGE_SET && times != 0 && times != (FILE_SET_ATIME | FILE_SET_MTIME);
}

/* Its times need a look at what it is. */
bool window_needs_look(const struct window *w, const struct change *x)
{
        bool sets_times = x->kind == CHANGE_SET && (x->what & (FILE_SET_ATIME | FILE_SET_MTIME));

        return sets_times && !is_set_by_touch(w->spot, x) &&
               (has_one_time(x) || follows_links(w->spot));
}

struct sftp_set item_set(const struct window_item *i)
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

/* Whether what must be opened, or looked at, beforehand is first made by an earlier change. */
static bool depends(const struct window *w, const struct change *x)
{
        bool is_opened = x->kind == CHANGE_WRITE || window_needs_look(w, x) ||
                         (x->kind == CHANGE_STORE && w->is_beside);

        for (size_t i = 0; is_opened && i < w->count; i++) {
                const struct change *earlier = w->items[i].x;

                if (path_is_related(earlier->path, x->path) ||
                    path_is_related(earlier->to, x->path))
                        return true;
        }
        return false;
}

/* ---- filling it ---- */

void window_init(struct window *w, struct spot *s, struct call *c)
{
        *w = (struct window){.spot = s, .call = c};
        w->is_beside = !path_is_related(s->paths->dir, s->paths->work);
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
static char *temp_of(const struct window *w, const struct change *x, const char *path)
{
        const char *dir = w->spot->paths->dir, *slash = strrchr(path, '/');
        char id[RANDOM_ID_SIZE], *temp;
        int length = w->is_beside && slash ? (int)(slash - path) : (int)strlen(dir);

        if (w->is_beside && x->temp && place_is_temp(x->temp))
                return asprintf(&temp, "%.*s/%s", length, path, x->temp) < 0 ? NULL : temp;
        if (random_id(id) < 0)
                return NULL;
        return asprintf(&temp, "%.*s/" PLACE_TEMP "%s", length, w->is_beside ? path : dir, id) < 0
                       ? NULL
                       : temp;
}

int item_read(struct window_item *i)
{
        const struct change *x = i->x;
        uint64_t size = window_content_size(x), at = 0;
        int r = 0;

        if (size == 0 || window_is_large(x))
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
                i->temp = i->is_bulk ? bulk_temp(w) : temp_of(w, x, i->path);
        if (!i->path || (has_temp && !i->temp) ||
            ((x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK) && !i->to))
                return -ENOMEM;
        return i->is_bulk ? 0 : item_read(i);
}

/* Whether it goes together with those that are there. */
static bool has_room(const struct window *w, const struct change *x, bool is_bulk)
{
        bool is_opened = !is_bulk && (x->kind == CHANGE_STORE || x->kind == CHANGE_WRITE);
        uint64_t size = window_content_size(x);

        if (w->count == 0)
                return true;
        if (w->count == WINDOW_CHANGES || !sftp_is_ordered(w->spot->sftp) || window_is_large(x) ||
            window_is_large(w->items[0].x) || depends(w, x))
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
                w->bulk_bytes += window_content_size(i->x);
                w->bulk_count++;
        } else {
                w->bytes += window_content_size(i->x);
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
        i->error = r < 0 ? r : WINDOW_NOTHING_YET;
        i->is_for_touch = is_set_by_touch(w->spot, x);
        count(w, i);
        return true;
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
                if (w->items[i].error == WINDOW_NOTHING_YET)
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
                r = window_fill(w);
        if (r == 0)
                r = window_name(w);
        if (r == 0)
                settle(w);
        else
                settle_lost(w);
        return r;
}
