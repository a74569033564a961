/* SPDX-License-Identifier: Apache-2.0 */
/* Reading open files: from what is here, or on a worker when it has been fetched. */

#include "fs/volume/contents.h"

#include <errno.h>
#include <unistd.h>

#define WINDOW_MIN ((uint64_t)256 * 1024)
#define WINDOW_FAR ((uint64_t)1024 * 1024) /* the least where a round trip takes long */
#define WINDOW_MAX ((uint64_t)32 * 1024 * 1024)
#define REORDER ((uint64_t)512 * 1024) /* the kernel's own reads ahead may overtake each other */
#define STEP_MIN ((uint64_t)128 * 1024)
#define STEP_MAX ((uint64_t)4 * 1024 * 1024)
#define FILL_MISSES 8 /* random reads after which a file is worth having */
#define FILL_MAX ((uint64_t)64 * 1024 * 1024)

/* Where the last read ended, or near it: then the kernel's reads ahead may come in any order. */
static bool is_in_order(const struct vol_file *f, uint64_t offset, uint64_t end)
{
        if (f->window == 0)
                return offset == f->next;
        return offset <= f->next + REORDER && end + REORDER >= f->next;
}

/* What is read ahead is kept until the reader comes there. */
static uint64_t window_max(struct content *x)
{
        uint64_t kept = spool_around(&x->s->spool) * 2 / 3;

        return kept < WINDOW_MAX ? kept : WINDOW_MAX;
}

/* How far to read ahead; 0: nobody reads in order. */
static uint64_t next_window(struct vol_file *f, struct content *x, uint64_t offset, uint64_t size)
{
        bool is_far = contents_is_far(x->s);
        uint64_t max = window_max(x);
        uint64_t end = offset + size;

        if (!is_in_order(f, offset, end)) {
                f->next = end;
                f->ahead = f->window = 0;
        } else if (end > f->next) {
                f->next = end;
                if (f->window == 0)
                        f->window = is_far ? WINDOW_FAR : WINDOW_MIN;
                else
                        f->window *= is_far ? 4 : 2;
                if (f->window > max)
                        f->window = max;
        }
        return f->window;
}

/* Ask for more before the reader comes there. */
static void read_ahead(struct vol_file *f, struct content *x, uint64_t offset, uint64_t size)
        REQUIRES(x->lock)
{
        uint64_t window, step, target;

        if (x->parts.size <= CONTENT_SMALL || x->kind == CONTENT_WHOLE || x->is_removed ||
            spool_is_short(&x->s->spool))
                return;
        window = next_window(f, x, offset, size);
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
            x->parts.size > 2 * spool_around(&x->s->spool) || x->is_removed ||
            extents_cover(&x->present, offset, offset + size))
                return;
        if (++x->misses == FILL_MISSES && contents_is_far(x->s))
                content_fill_later(x, 0, x->parts.size);
}

ssize_t cached_read(struct volume *v, struct vol_op *op, struct vol_file *f, void *data,
                    size_t size, uint64_t offset)
{
        struct content *x = f->x;
        ssize_t n = cached_check_handle(v);

        if (n == 0)
                n = cached_check_version(v, op, f);
        if (n < 0)
                return n;
        nodes_keep(&cached_of(v)->nodes, f->open.node);
        content_lock(x);
        if (!op->may_wait)
                note_miss(f, x, offset, size);
        read_ahead(f, x, offset, size);
        n = content_read(x, op->may_wait ? op->call : NULL, data, size, offset);
        content_unlock(x);
        return n;
}

int64_t cached_lseek(struct volume *v, struct vol_op *op, struct vol_file *f, int64_t offset,
                     int whence)
{
        struct content *x = f->x;
        struct extent data;
        int64_t at = cached_check_handle(v);
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
