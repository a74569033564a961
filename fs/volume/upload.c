/* SPDX-License-Identifier: Apache-2.0 */

#include "fs/volume/upload.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/journal.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"
#include "transport/base/random.h"

#define HOLES_MIN ((uint64_t)1024 * 1024) /* that are worth not sending */

static int read_source(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        struct sending *w = (struct sending *)(void *)from; /* its head */
        int r;

        journal_note_progress(w->x->s->journal);
        content_lock(w->x);
        w->is_begun = true;
        r = blob_read(&w->x->s->spool, w->blob, data, size, offset);
        content_unlock(w->x);
        return r;
}

/* ---- begin and end ---- */

static int list_extents(struct sending *w, const struct extents *e)
{
        w->extents = calloc(e->count ? e->count : 1, sizeof(*w->extents));
        if (!w->extents)
                return -ENOMEM;
        w->extent_count = e->count;
        for (size_t i = 0; i < e->count; i++)
                w->extents[i] = (struct file_extent){e->at[i].start, e->at[i].end - e->at[i].start};
        return 0;
}

/* The sandbox's file may have as many bytes from now on, whatever becomes of this try. */
static void note_base(struct content *x, uint64_t size) REQUIRES(x->lock)
{
        if (x->parts.base_size >= size)
                return;
        /* The list must lead to the same parts. Where it can't be told, nor is it here. */
        if (x->kind == CONTENT_PARTS && dirty_log_base(x->s->dir, x->record, size) < 0)
                return;
        x->parts.base_size = size;
}

/* Should its answer never come, it is known again. */
static void note_try(struct content *x, const struct sending *w) REQUIRES(x->lock)
{
        struct dirty_tries *tries = &x->parts.tries;

        dirty_tried(tries, (struct dirty_try){w->size, w->shown.st_mtim},
                    w->is_in_place || !w->is_whole);
        if (!x->is_only_here && x->record != 0 && dirty_log_try(x->s->dir, x->record, tries) < 0)
                log_warning("what is sent now would be taken for another's after a crash");
}

static int list_all(struct sending *w, uint64_t size)
{
        struct extent all = {0, size};

        return list_extents(w, &(struct extents){.at = &all, .count = size > 0});
}

int sending_begin(struct content *x, const char *path, bool is_whole, struct sending *w)
{
        int r = extents_add_all(&x->sending, &x->parts.dirty);

        if (r == 0)
                r = extents_remove(&x->sending, x->parts.size, UINT64_MAX);
        if (r == 0)
                r = is_whole && x->kind == CONTENT_PARTS ? list_all(w, x->parts.size)
                                                         : list_extents(w, &x->sending);
        if (r < 0)
                return r;
        extents_done(&x->parts.dirty);
        *w = (struct sending){.x = content_ref(x),
                              .path = path,
                              .extents = w->extents,
                              .extent_count = w->extent_count};
        w->blob = blob_ref(x->blob);
        w->changes = x->changes;
        w->size = x->parts.size;
        w->source = (struct file_source){.read = read_source, .size = w->size};
        w->shown = x->shown;
        w->is_whole = is_whole || x->kind == CONTENT_WHOLE;
        w->is_in_place = x->is_in_place;
        w->is_over = x->is_torn && !w->is_whole;
        w->sets_mode = x->sets_mode;
        w->sets_size = x->parts.sets_size;
        x->parts.sets_size = false;
        note_base(x, w->size);
        w->was_cut = x->parts.tries.is_cut;
        note_try(x, w);
        w->is_begun = w->extent_count == 0 || (w->is_whole && w->is_in_place);
        x->is_uploading = true;
        return 0;
}

/* What was written meanwhile goes on as parts of the file that is there now. */
static void go_on_as_parts(struct content *x, const char *path) REQUIRES(x->lock)
{
        struct dirty_record record = {.path = path,
                                      .sets_mode = x->sets_mode,
                                      .mode = x->shown.st_mode & 07777,
                                      .seq = journal_seq(x->s->journal),
                                      .base = x->version};
        int r = dirty_log_anew(x->s->dir, x->record, &x->parts);

        if (x->has_own_mtime)
                record.mtime = x->shown.st_mtim;
        record.version_size = (uint64_t)x->version.st_size;
        record.base.st_size = (off_t)x->parts.base_size;
        if (r == 0)
                r = dirty_write(x->s->dir, x->record, &record);
        if (r == 0)
                x->kind = CONTENT_PARTS;
        /* Else it is sent once more as what the record says, which is right, too. */
}

static void end_well(struct content *x, struct sending *w, const struct stat *st) REQUIRES(x->lock)
{
        /* Parts that met another version, since it was looked at: what is here is not of that. */
        w->is_over |= !w->is_whole && (uint64_t)st->st_size != w->size;
        content_own_version(x, st);
        x->is_only_here = false;
        x->refused = 0;
        x->takes_all = x->parts.tries.is_cut = false;
        w->news = STEAL(x->news);
        extents_done(&x->sending);
        if (w->is_whole && x->remote)
                x->is_remote_lost = true; /* it is of the file that was replaced */
        if (x->is_removed || x->kind == CONTENT_CLEAN)
                return;
        if (x->blob != w->blob) /* emptied meanwhile: it is all new again */
                return;
        x->parts.base_size = w->size;
        if (x->changes == w->changes) {
                content_unpin(x);
                x->parts.base_size = x->parts.size;
                if (w->is_over)
                        content_go_on_with(x, st);
                return;
        }
        if (x->shown.st_mode == w->shown.st_mode)
                x->sets_mode = false;
        x->parts_ns = clock_mono_ns();
        go_on_as_parts(x, w->path);
        if (w->is_over)
                content_go_on_with(x, st);
}

static void end_badly(struct content *x, struct sending *w, bool is_refused) REQUIRES(x->lock)
{
        if (x->is_removed || x->kind == CONTENT_CLEAN || x->blob != w->blob)
                extents_done(&x->sending); /* nobody needs it */
        x->parts.sets_size |= w->sets_size;
        if (!w->is_begun)
                x->parts.tries.is_cut = w->was_cut;
        if (is_refused)
                x->refused = w->error;
}

void sending_end(struct sending *w, const struct stat *st, bool is_refused)
{
        struct content *x = w->x;
        struct contents *s = x->s;
        bool is_news;

        content_lock(x);
        if (w->error == 0)
                end_well(x, w, st);
        else
                end_badly(x, w, is_refused);
        blob_unref(&s->spool, w->blob);
        x->is_uploading = false;
        cond_broadcast(&x->changed);
        is_news = content_account(x);
        content_unlock(x);
        if (is_news)
                contents_tell(s);
        if (w->is_over && w->error == 0)
                content_tell_kernel(x);
        content_unref(x);
        free(w->temp);
        free(w->extents);
}

/* ---- changes ---- */

static uint64_t sum(const struct sending *w)
{
        uint64_t bytes = 0;

        for (size_t i = 0; i < w->extent_count; i++)
                bytes += w->extents[i].size;
        return bytes;
}

const char *sending_temp(struct sending *w, uint64_t number)
{
        return temp_name(number, TEMP_PROVIDER, w->temp_name) ? w->temp_name : NULL;
}

/* A name beside the file that only we use. */
static int make_temp(struct sending *w, uint64_t number)
{
        const char *slash = strrchr(w->path, '/');
        int dir = slash ? (int)(slash + 1 - w->path) : 0;
        char name[TEMP_NAME_SIZE];
        int r = 0;

        while (r == 0 && !temp_name(number, TEMP_PIECES, name))
                r = random_bytes(&number, sizeof(number));
        if (r < 0)
                return r;
        return asprintf(&w->temp, "%.*s%s", dir, w->path, name) < 0 ? -ENOMEM : 0;
}

static void fill_store(const struct sending *w, struct change *to)
{
        *to = (struct change){.kind = CHANGE_STORE,
                              .path = w->path,
                              .temp = w->temp_name[0] ? w->temp_name : NULL,
                              .what = FILE_SET_MTIME,
                              .mode = w->shown.st_mode & 07777,
                              .size = w->size,
                              .mtime = w->shown.st_mtim,
                              .from = (struct file_source *)(uintptr_t)&w->source};
}

static void fill_write(const struct sending *w, const char *path, struct change *to)
{
        *to = (struct change){.kind = CHANGE_WRITE,
                              .path = path,
                              .what = FILE_SET_MTIME,
                              .size = w->size,
                              .mtime = w->shown.st_mtim,
                              .from = (struct file_source *)(uintptr_t)&w->source,
                              .extents = w->extents,
                              .extent_count = w->extent_count};
        if (w->sets_size || w->is_whole)
                to->what |= FILE_SET_SIZE;
}

/* An empty file at another name, its pieces, and over the old one. */
static void fill_holey(struct sending *w, struct change *to)
{
        static struct file_source nothing; /* of size 0: never read */

        to[0] = (struct change){.kind = CHANGE_STORE,
                                .path = w->temp,
                                .temp = w->temp_name[0] ? w->temp_name : NULL,
                                .mode = w->shown.st_mode & 07777,
                                .from = &nothing};
        fill_write(w, w->temp, &to[1]);
        to[2] = (struct change){.kind = CHANGE_RENAME, .path = w->temp, .to = w->path};
}

int sending_fill(struct sending *w, uint64_t number, struct change *to)
{
        int n = 0;

        (void)sending_temp(w, number); /* fill_store, fill_holey */

        if (w->is_whole && !w->is_in_place) {
                uint64_t bytes = sum(w);

                if (w->size < bytes + HOLES_MIN || w->size / 2 < bytes) {
                        fill_store(w, to);
                        return 1;
                }
                n = make_temp(w, number);
                if (n < 0)
                        return n;
                fill_holey(w, to);
                return 3;
        }
        if (w->is_whole) /* what was there goes first: holes aren't sent */
                to[n++] =
                        (struct change){.kind = CHANGE_SET, .path = w->path, .what = FILE_SET_SIZE};
        fill_write(w, w->path, &to[n++]);
        if (w->sets_mode)
                to[n++] = (struct change){.kind = CHANGE_SET,
                                          .path = w->path,
                                          .what = FILE_SET_MODE | FILE_SET_MTIME,
                                          .mode = w->shown.st_mode & 07777,
                                          .mtime = w->shown.st_mtim};
        return n;
}

/* ---- the answer ---- */

/* Attributes as far as the answer has them. */
static void find_attrs(const struct sending *w, const struct change *changes, struct stat *ret)
{
        *ret = w->shown;
        ret->st_mode = S_IFREG | (w->shown.st_mode & 07777);
        ret->st_size = (off_t)w->size;
        ret->st_ino = 0;
        ret->st_nlink = 0;
        ret->st_ctim = (struct timespec){0};
        for (size_t i = 0; i < w->count; i++)
                if (changes[i].has_st)
                        *ret = changes[i].st;
        if (w->temp && !changes[2].has_st)
                ret->st_ctim = (struct timespec){0}; /* the rename changed it */
}

int sending_error(const struct sending *w, const struct change *changes)
{
        for (size_t i = 0; i < w->count; i++) {
                int e = changes[i].error;

                if (e < 0)
                        return e; /* -EINPROGRESS, too */
        }
        return 0;
}

void sending_answer(const struct sending *w, const struct change *changes, uint64_t sent_ns,
                    uint64_t epoch, struct stat *st)
{
        struct contents *s = w->x->s;
        struct known known;

        find_attrs(w, changes, st);
        if (st->st_ino == 0 && !w->is_whole && cached_last_known(s->c, w->x, &known))
                st->st_ino = known.sandbox_ino; /* parts go in place */

        if (w->shown.st_mtim.tv_nsec != 0 && st->st_mtim.tv_nsec == 0 &&
            st->st_mtim.tv_sec == w->shown.st_mtim.tv_sec)
                atomic_store(&s->has_whole_seconds, true);
        (void)cached_told(s->c, w->x, st, sent_ns, epoch, true); /* removed: nobody asks */
}
