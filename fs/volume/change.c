/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written. Before it is answered, the bytes are in a file of the spool and a record says
 * what they are for, so that they outlive this process.
 */

#include "fs/volume/contents.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/volume/journal.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"

/* ---- records ---- */

static int write_record(struct content *x, const char *path, uint64_t id, bool is_whole)
        REQUIRES(x->lock)
{
        struct dirty_record r = {.path = path,
                                 .is_whole = is_whole,
                                 .sets_mode = x->sets_mode,
                                 .mode = x->shown.st_mode & 07777,
                                 .seq = journal_seq(x->s->journal),
                                 .base = x->version};

        if (x->has_own_mtime)
                r.mtime = x->shown.st_mtim;
        if (atomic_load(&x->has_no_base))
                r.base.st_mtim = (struct timespec){0};
        r.version_size = (uint64_t)x->version.st_size;
        r.base.st_size = (off_t)x->parts.base_size;
        return dirty_write(x->s->dir, id, &r);
}

/*
 * Its path, which can't be asked for under the lock. It is the latest, or a rename is under way,
 * which comes to content_note.
 */
static int find_path(struct content *x, char **ret) REQUIRES(x->lock)
{
        unsigned moves;
        int r;

        do {
                freep(ret);
                *ret = NULL;
                moves = x->moves;
                content_unlock(x);
                r = cached_content_path(x->s->c, x, ret);
                content_lock(x);
        } while (r == 0 && moves != x->moves);
        return r;
}

int content_note(struct content *x)
{
        _cleanup_(freep) char *path = NULL;
        int r;

        content_lock(x);
        r = find_path(x, &path);
        if (r == 0 && x->record != 0)
                r = write_record(x, path, x->record, x->kind == CONTENT_WHOLE);
        content_unlock(x);
        return r == -ENOENT ? 0 : r; /* nobody needs it */
}

void content_unpin(struct content *x)
{
        x->kind = CONTENT_CLEAN;
        extents_done(&x->parts.dirty);
        if (!x->is_uploading)
                extents_done(&x->sending);
        x->parts.base_size = x->parts.size;
        x->parts.tries = (struct dirty_tries){0};
        x->is_torn = x->takes_all = false;
        x->news = NULL;
        x->has_own_mtime = x->sets_mode = x->parts.sets_size = false;
        x->refused = 0;
        if (x->record != 0)
                dirty_remove(x->s->dir, x->record);
        x->record = 0;
}

/* ---- beginning ---- */

/* Every change ends with it. */
static void note_change(struct content *x, bool is_of_bytes) REQUIRES(x->lock)
{
        struct timespec now = clock_timespec(clock_real_ns());

        if (atomic_load(&x->s->has_whole_seconds))
                now.tv_nsec = 0;
        x->changes++;
        x->shown.st_ctim = now;
        if (is_of_bytes) {
                content_drop_doubted(x);
                x->shown.st_mtim = now;
                x->has_own_mtime = false;
        }
        if (x->is_removed)
                return;
        blob_count(&x->s->spool, x->blob, extents_bytes(&x->present));
}

/* A new, empty file of the spool with a record. */
static int make_blob(struct content *x, const char *path, struct blob **ret) REQUIRES(x->lock)
{
        struct spool *spool = &x->s->spool;
        bool had_own_mtime = x->has_own_mtime;
        struct blob *blob = blob_new();
        int r = blob ? 0 : -ENOMEM;

        if (r == 0 && path)
                r = blob_to_file(spool, blob);
        x->has_own_mtime = false;
        if (r == 0 && path)
                r = write_record(x, path, blob->id, true);
        if (r < 0) {
                x->has_own_mtime = had_own_mtime;
                blob_unref(spool, blob);
                return r;
        }
        *ret = blob;
        return 0;
}

static int start_whole(struct content *x, const char *path) REQUIRES(x->lock)
{
        _cleanup_(freep) char *found = NULL;
        struct blob *blob = NULL;
        int r = 0;

        if (x->is_in_place && !x->is_removed) /* it keeps its other names */
                return content_resize(x, 0);
        if (!path && !x->is_removed) {
                r = find_path(x, &found);
                path = found;
        }
        if (x->is_removed) {
                path = NULL;
                r = 0;
        }
        if (r == 0)
                r = make_blob(x, path, &blob);
        if (r != 0)
                return r == -ENOENT ? -ESTALE : r;
        if (path && !x->is_only_here && dirty_log_tries(x->s->dir, blob->id, &x->parts.tries) < 0)
                log_warning("what is being sent would be taken for another's after a crash");
        if (x->record != 0)
                dirty_remove(x->s->dir, x->record);
        content_replace_blob(x, blob);
        x->record = path ? blob->id : 0;
        extents_done(&x->present);
        extents_done(&x->parts.dirty);
        if (!x->is_uploading)
                extents_done(&x->sending);
        x->parts.size = 0;
        x->is_torn = x->takes_all = false;
        x->kind = x->is_removed ? CONTENT_CLEAN : CONTENT_WHOLE;
        x->generation++;
        x->refused = 0;
        note_change(x, true);
        return 0;
}

int content_start_whole(struct content *x, const char *path)
{
        int r = start_whole(x, path);

        return content_make_room(x, r) ? start_whole(x, path) : r;
}

/* From now on parts of it are ours. */
static int start_parts(struct content *x) REQUIRES(x->lock)
{
        _cleanup_(freep) char *path = NULL;
        int r;

        if (x->kind != CONTENT_CLEAN || x->is_removed)
                return 0;
        r = find_path(x, &path);
        if (r == -ENOENT)
                return -ESTALE;
        if (r < 0)
                return r;
        if (x->kind != CONTENT_CLEAN || x->is_removed)
                return 0; /* another was faster */
        r = blob_to_file(&x->s->spool, x->blob);
        if (r == 0)
                r = write_record(x, path, x->blob->id, false);
        if (r < 0)
                return r;
        x->record = x->blob->id;
        x->kind = CONTENT_PARTS;
        x->parts_ns = clock_mono_ns();
        x->refused = 0;
        return 0;
}

/* ---- changes ---- */

/* [start, end) is known without asking: zeros, or ours. */
static int note_present(struct content *x, uint64_t start, uint64_t end) REQUIRES(x->lock)
{
        int r = start > x->parts.size ? extents_add(&x->present, x->parts.size, start) : 0;

        return r == 0 ? extents_add(&x->present, start, end) : r;
}

/* Bytes of the blob behind the file's end were never shown: they must not appear. */
static int clear_gap(struct content *x, uint64_t start) REQUIRES(x->lock)
{
        if (start <= x->parts.size)
                return 0;
        return blob_zero(&x->s->spool, x->blob, x->parts.size, start);
}

/* A write that failed on the way has left its bytes, or some: nobody may see them. */
static void undo_write(struct content *x, uint64_t start, uint64_t end) REQUIRES(x->lock)
{
        struct extent gap;

        if (x->kind == CONTENT_WHOLE) {
                (void)blob_resize(&x->s->spool, x->blob, x->parts.size); /* as well as it goes */
                return;
        }
        while (!x->is_removed && extents_gap(&x->parts.dirty, start, end, &gap)) {
                (void)extents_remove(&x->present, gap.start, gap.end); /* fetched again */
                start = gap.end;
        }
}

static int put_bytes(struct content *x, const void *data, size_t size, uint64_t offset)
        REQUIRES(x->lock)
{
        uint64_t end = offset + size;
        int r = clear_gap(x, offset);

        if (r == 0)
                r = blob_write(&x->s->spool, x->blob, data, size, offset);
        if (r == 0 && x->kind == CONTENT_PARTS &&
            (end > x->parts.size || !extents_cover(&x->parts.dirty, offset, end)))
                r = dirty_log_write(x->s->dir, x->record, offset, end);
        return r;
}

static int write_here(struct content *x, const void *data, size_t size, uint64_t offset)
        REQUIRES(x->lock)
{
        int r = start_parts(x);

        if (r < 0)
                return r;
        r = put_bytes(x, data, size, offset);
        if (r == 0)
                r = note_present(x, offset, offset + size);
        if (r == 0)
                r = dirty_wrote(&x->parts, offset, offset + size);
        if (r == 0)
                note_change(x, true);
        else
                undo_write(x, offset, offset + size);
        return r;
}

int content_write(struct content *x, const void *data, size_t size, uint64_t offset)
{
        int r;

        if (size > (uint64_t)INT64_MAX - offset)
                return -EFBIG;
        r = write_here(x, data, size, offset);
        return content_make_room(x, r) ? write_here(x, data, size, offset) : r;
}

static int shrink(struct content *x, uint64_t size) REQUIRES(x->lock)
{
        int r = blob_resize(&x->s->spool, x->blob, size);

        if (r == 0)
                r = extents_remove(&x->present, size, UINT64_MAX);
        if (r == 0 && !x->is_uploading)
                r = extents_remove(&x->sending, size, UINT64_MAX);
        return r;
}

/* A whole file's own length is that of its blob: it tells the next mount. */
static int grow(struct content *x, uint64_t size) REQUIRES(x->lock)
{
        int r = clear_gap(x, size);

        if (r == 0 && x->kind == CONTENT_WHOLE)
                r = blob_resize(&x->s->spool, x->blob, size);
        return r == 0 ? extents_add(&x->present, x->parts.size, size) : r;
}

static int resize(struct content *x, uint64_t size) REQUIRES(x->lock)
{
        int r = start_parts(x);

        if (r == 0 && x->kind == CONTENT_PARTS)
                r = dirty_log_size(x->s->dir, x->record, size);
        if (r == 0)
                r = size < x->parts.size ? shrink(x, size) : grow(x, size);
        if (r == 0)
                r = dirty_resized(&x->parts, size);
        if (r == 0)
                note_change(x, true);
        return r;
}

int content_resize(struct content *x, uint64_t size)
{
        int r;

        if (size > (uint64_t)INT64_MAX)
                return -EFBIG;
        r = resize(x, size);
        return content_make_room(x, r) ? resize(x, size) : r;
}

int content_zero(struct content *x, uint64_t start, uint64_t end)
{
        int r;

        if (end > x->parts.size)
                end = x->parts.size;
        if (start >= end)
                return 0;
        r = start_parts(x);
        if (r == 0)
                r = blob_zero(&x->s->spool, x->blob, start, end);
        if (r == 0 && x->kind == CONTENT_PARTS)
                r = dirty_log_write(x->s->dir, x->record, start, end);
        if (r == 0)
                r = note_present(x, start, end);
        if (r == 0)
                r = dirty_wrote(&x->parts, start, end);
        if (r == 0)
                note_change(x, true);
        return r;
}

int content_touch(struct content *x)
{
        int r = start_parts(x);

        if (r == 0)
                note_change(x, true);
        return r;
}

int content_set(struct content *x, unsigned what, const struct stat *to)
{
        struct timespec now = clock_timespec(clock_real_ns());
        struct stat before = x->shown;
        bool had_own_mtime = x->has_own_mtime, set_mode = x->sets_mode;
        _cleanup_(freep) char *path = NULL;
        int r = 0;

        note_change(x, false);
        if (atomic_load(&x->s->has_whole_seconds))
                now.tv_nsec = 0;
        if (what & VOL_SET_MODE) {
                x->shown.st_mode = S_IFREG | (to->st_mode & 07777);
                x->sets_mode = true;
        }
        if (what & (VOL_SET_ATIME | VOL_SET_ATIME_NOW))
                x->shown.st_atim = what & VOL_SET_ATIME ? to->st_atim : now;
        if (what & (VOL_SET_MTIME | VOL_SET_MTIME_NOW)) {
                x->shown.st_mtim = what & VOL_SET_MTIME ? to->st_mtim : now;
                x->has_own_mtime = true;
        }
        if (x->record != 0)
                r = find_path(x, &path);
        if (r == 0 && x->record != 0)
                r = write_record(x, path, x->record, x->kind == CONTENT_WHOLE);
        if (r < 0) {
                x->shown = before;
                x->has_own_mtime = had_own_mtime;
                x->sets_mode = set_mode;
        }
        return r == -ENOENT ? 0 : r; /* removed in between */
}
