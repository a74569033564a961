/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending what is dirty. A whole file goes to a temporary name and is renamed over; one with large
 * holes is made at such a name piece by piece; parts go in place. The file's time is set along with
 * its bytes, so that it stays the one that was shown.
 *
 * Failures: no connection, no answer: all stays dirty, and is tried again, ever less often, until
 *           the sandbox takes it. Refused for good: `failed` is told; it stays, for the next close,
 *           fsync or sync of it.
 */

#include "fs/volume/contents.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/worker.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"
#include "transport/base/random.h"

#define BATCH_MAX 256 /* files in one call */
#define BATCH_BYTES ((uint64_t)32 * 1024 * 1024)
#define CHANGES_MAX 3 /* for one file */
#define HOLES_MIN ((uint64_t)1024 * 1024) /* that are worth not sending */
#define RETRY_MIN_NS NS_PER_S
#define RETRY_DOUBLINGS 6

/* One file on its way. */
struct sending {
        struct file_source source; /* first */
        struct content *x;
        char *path;
        char *temp; /* where it is made piece by piece; NULL */
        struct blob *blob;
        struct file_extent *extents;
        size_t extent_count;
        uint64_t changes; /* x->changes when it began */
        uint64_t size;
        struct stat shown;
        bool is_whole, sets_size;
        size_t first, count; /* of its changes in the call's */
        int error;
};

static int read_source(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        struct sending *w = (struct sending *)(void *)from; /* its head */
        int r;

        content_lock(w->x);
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

/* What is dirty is being sent from now on. */
static int begin_locked(struct content *x, struct sending *w) REQUIRES(x->lock)
{
        int r = extents_add_all(&x->sending, &x->parts.dirty);

        if (r == 0)
                r = extents_remove(&x->sending, x->parts.size, UINT64_MAX);
        if (r == 0)
                r = list_extents(w, &x->sending);
        if (r < 0)
                return r;
        extents_done(&x->parts.dirty);
        w->x = content_ref(x);
        w->blob = blob_ref(x->blob);
        w->changes = x->changes;
        w->size = x->parts.size;
        w->source = (struct file_source){read_source, w->size};
        w->shown = x->shown;
        w->is_whole = x->kind == CONTENT_WHOLE;
        w->sets_size = x->parts.sets_size;
        x->parts.sets_size = false;
        note_base(x, w->size);
        x->is_uploading = true;
        x->is_upload_due = false;
        return 0;
}

/* What was written meanwhile goes on as parts of the file that is there now. */
static void go_on_as_parts(struct content *x, const struct sending *w, const char *path)
        REQUIRES(x->lock)
{
        struct dirty_record record = {.path = path,
                                      .sets_mode = x->sets_mode,
                                      .mode = x->shown.st_mode & 07777,
                                      .base = x->version};
        int r = dirty_log_anew(x->s->dir, x->record, &x->parts);

        if (x->has_own_mtime)
                record.mtime = x->shown.st_mtim;
        record.base.st_size = (off_t)w->size;
        if (r == 0 && x->kind == CONTENT_WHOLE)
                r = dirty_write(x->s->dir, x->record, &record);
        if (r == 0)
                x->kind = CONTENT_PARTS;
        /* Else it is sent once more as what the record says, which is right, too. */
}

static void end_well(struct content *x, struct sending *w, const struct stat *st) REQUIRES(x->lock)
{
        content_own_version(x, st);
        x->is_only_here = false;
        x->refused = 0;
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
                return;
        }
        if (x->shown.st_mode == w->shown.st_mode)
                x->sets_mode = false;
        go_on_as_parts(x, w, w->path);
}

/* Not the sandbox's refusal: it is tried again. */
static bool is_passing(int error)
{
        switch (error) {
        case -EHOSTUNREACH:
        case -EHOSTDOWN:
        case -ETIMEDOUT:
        case -ECONNRESET:
        case -ECONNREFUSED:
        case -ENOTCONN:
        case -EPIPE:
        case -EPROTO:
        case -EINTR:
        case -EAGAIN:
        case -EINPROGRESS:
        case -ENOMEM:
        case -EIO: return true;
        default: return false;
        }
}

static void retry_later(struct contents *s);

static void end_badly(struct content *x, struct sending *w) REQUIRES(x->lock)
{
        if (x->is_removed || x->kind == CONTENT_CLEAN || x->blob != w->blob)
                extents_done(&x->sending); /* nobody needs it */
        x->parts.sets_size |= w->sets_size;
        if (is_passing(w->error))
                x->is_upload_due = true;
        else
                x->refused = w->error;
}

static void end_sending(struct sending *w, const struct stat *st, struct call *call)
{
        struct content *x = w->x;
        struct contents *s = x->s;
        bool is_news, is_refused, must_retry, was_told;

        content_lock(x);
        was_told = x->refused == w->error;
        if (w->error == 0)
                end_well(x, w, st);
        else
                end_badly(x, w);
        blob_unref(&s->spool, w->blob);
        x->is_uploading = false;
        cond_broadcast(&x->changed);
        is_refused = x->refused != 0 && x->kind != CONTENT_CLEAN;
        must_retry = x->is_upload_due && x->kind != CONTENT_CLEAN;
        is_news = content_account(x);
        content_unlock(x);
        if (is_news)
                contents_tell(s);
        if (is_refused && !was_told && s->c->box.failed)
                s->c->box.failed(s->c->box.ctx, w->path, w->error, call->sentence);
        if (must_retry)
                retry_later(s);
        content_unref(x);
        free(w->path);
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

/* A name beside the file that only we use. */
static int make_temp(struct sending *w)
{
        const char *slash = strrchr(w->path, '/');
        int dir = slash ? (int)(slash + 1 - w->path) : 0;
        char id[RANDOM_ID_SIZE];
        int r = random_id(id);

        if (r < 0)
                return r;
        return asprintf(&w->temp, "%.*s.sbxfs-%s-%s", dir, w->path, w->x->s->owner, id) < 0
                       ? -ENOMEM
                       : 0;
}

static void fill_store(const struct sending *w, struct change *to)
{
        *to = (struct change){.kind = CHANGE_STORE,
                              .path = w->path,
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
                                .mode = w->shown.st_mode & 07777,
                                .from = &nothing};
        fill_write(w, w->temp, &to[1]);
        to[2] = (struct change){.kind = CHANGE_RENAME, .path = w->temp, .to = w->path};
}

/* How many changes, at most CHANGES_MAX; or -errno. */
static int fill_changes(struct sending *w, bool is_in_place, bool sets_mode, struct change *to)
{
        int n = 0;

        if (w->is_whole && !is_in_place) {
                uint64_t bytes = sum(w);

                if (w->size < bytes + HOLES_MIN || w->size / 2 < bytes) {
                        fill_store(w, to);
                        return 1;
                }
                n = make_temp(w);
                if (n < 0)
                        return n;
                fill_holey(w, to);
                return 3;
        }
        if (w->is_whole) /* what was there goes first: holes aren't sent */
                to[n++] =
                        (struct change){.kind = CHANGE_SET, .path = w->path, .what = FILE_SET_SIZE};
        fill_write(w, w->path, &to[n++]);
        if (sets_mode)
                to[n++] = (struct change){.kind = CHANGE_SET,
                                          .path = w->path,
                                          .what = FILE_SET_MODE | FILE_SET_MTIME,
                                          .mode = w->shown.st_mode & 07777,
                                          .mtime = w->shown.st_mtim};
        return n;
}

/* ---- one call ---- */

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
                if (changes[w->first + i].has_st)
                        *ret = changes[w->first + i].st;
        if (w->temp && !changes[w->first + 2].has_st)
                ret->st_ctim = (struct timespec){0}; /* the rename changed it */
}

static int find_error(const struct sending *w, const struct change *changes, int call_error)
{
        for (size_t i = 0; i < w->count; i++) {
                int e = changes[w->first + i].error;

                if (e == -EINPROGRESS)
                        return call_error < 0 ? call_error : -EPROTO;
                if (e < 0)
                        return e;
        }
        return 0;
}

static void tell_names(struct sending *w, struct stat *st, uint64_t sent_ns, uint64_t epoch)
{
        struct contents *s = w->x->s;
        struct known known;

        if (st->st_ino == 0 && !w->is_whole && cached_last_known(s->c, w->x, &known))
                st->st_ino = known.sandbox_ino; /* parts go in place */

        if (w->shown.st_mtim.tv_nsec != 0 && st->st_mtim.tv_nsec == 0 &&
            st->st_mtim.tv_sec == w->shown.st_mtim.tv_sec)
                atomic_store(&s->has_whole_seconds, true);
        cached_told(s->c, w->x, st, sent_ns, epoch, true);
}

/* Paths and changes of all; those that can't be sent end here with their error. */
static size_t prepare(struct sending *all, size_t count, struct change *changes)
{
        size_t n = 0;

        for (size_t i = 0; i < count; i++) {
                struct sending *w = &all[i];
                struct content *x = w->x;
                bool is_in_place, sets_mode;
                int r = cached_content_path(x->s->c, x, &w->path);

                content_lock(x);
                is_in_place = x->is_in_place;
                sets_mode = x->sets_mode;
                content_unlock(x);
                if (r == 0)
                        r = fill_changes(w, is_in_place, sets_mode, changes + n);
                w->first = n;
                w->count = r < 0 ? 0 : (size_t)r;
                w->error = r < 0 ? r : 0;
                n += w->count;
        }
        return n;
}

static int send_changes(struct contents *s, struct call *call, struct change *changes, size_t n)
{
        struct box *box;
        int r;

        for (size_t i = 0; i < n; i++)
                changes[i].error = -EINPROGRESS;
        r = cached_enter(s->c, call, &box);
        if (r < 0)
                return r;
        r = box_apply(box, call, changes, n);
        cached_leave(s->c, box);
        return r;
}

/* Send what was begun, and end it. The first error. */
static int send_all(struct contents *s, struct call *call, struct sending *all, size_t count)
{
        uint64_t sent_ns = clock_mono_ns(), epoch = volume_epoch(&s->c->v);
        struct change *changes = calloc(count * CHANGES_MAX, sizeof(*changes));
        int r = -ENOMEM, first = 0;
        size_t n = 0;

        if (changes) {
                n = prepare(all, count, changes);
                r = n > 0 ? send_changes(s, call, changes, n) : 0;
        }
        for (size_t i = 0; i < count; i++) {
                struct sending *w = &all[i];
                struct stat st = {0};

                if (!changes)
                        w->error = r;
                else if (w->error == 0)
                        w->error = find_error(w, changes, r);
                if (w->error == 0) {
                        find_attrs(w, changes, &st);
                        tell_names(w, &st, sent_ns, epoch);
                }
                if (w->error < 0 && first == 0)
                        first = w->error;
                end_sending(w, &st, call);
        }
        free(changes);
        return first;
}

/* ---- one file ---- */

/* No file may be made beside it, but perhaps it can be written itself. */
static bool may_go_in_place(struct content *x, int error) REQUIRES(x->lock)
{
        if ((error != -EACCES && error != -EPERM) || x->is_in_place || x->is_only_here ||
            x->kind != CONTENT_WHOLE)
                return false;
        x->is_in_place = true;
        return true;
}

int content_upload(struct content *x, struct call *call)
{
        struct contents *s = x->s;
        struct sending w = {0};
        bool again;
        int r = 0;

        do {
                content_lock(x);
                while (r == 0 && x->kind != CONTENT_CLEAN && (x->is_uploading || x->held > 0))
                        r = content_wait(x, call);
                if (r == 0 && x->kind != CONTENT_CLEAN) {
                        w = (struct sending){0};
                        r = begin_locked(x, &w);
                }
                content_unlock(x);
                if (r < 0 || !w.x)
                        return r;
                r = send_all(s, call, &w, 1);
                content_lock(x);
                again = may_go_in_place(x, r);
                content_unlock(x);
                w.x = NULL;
                if (again)
                        r = 0;
        } while (again);
        return r;
}

/* ---- all of them ---- */

/* Those that have something to send, with a reference each. */
static int find_pinned(struct contents *s, bool only_due, struct content ***ret, size_t *ret_count)
{
        struct content **found;
        size_t count = 0;

        mutex_lock(&s->lock);
        found = calloc(s->count ? s->count : 1, sizeof(struct content *));
        if (found)
                list_for_each (l, &s->all) {
                        struct content *x = list_entry(l, struct content, of_all);

                        if (content_is_pinned(x))
                                found[count++] = content_ref(x);
                }
        mutex_unlock(&s->lock);
        if (!found)
                return -ENOMEM;
        for (size_t i = 0; only_due && i < count; i++) {
                bool is_due;

                content_lock(found[i]);
                is_due = found[i]->is_upload_due;
                content_unlock(found[i]);
                if (!is_due) {
                        content_unref(found[i]);
                        found[i--] = found[--count];
                }
        }
        *ret = found;
        *ret_count = count;
        return 0;
}

/* As many as go into one call, of those that can be sent at once; *at goes on behind them. */
static size_t begin_some(struct content **xs, size_t count, size_t *at, struct sending *all)
{
        uint64_t bytes = 0;
        size_t n = 0;

        while (*at < count && n < BATCH_MAX && bytes < BATCH_BYTES) {
                struct content *x = xs[(*at)++];

                content_lock(x);
                if (x->kind != CONTENT_CLEAN && !x->is_uploading && x->held == 0) {
                        all[n] = (struct sending){0};
                        if (begin_locked(x, &all[n]) == 0)
                                bytes += all[n++].size;
                }
                content_unlock(x);
        }
        return n;
}

static int upload_found(struct contents *s, struct call *call, struct content **xs, size_t count)
{
        struct sending *all = calloc(BATCH_MAX, sizeof(*all));
        size_t at = 0;
        int first = 0;

        if (!all)
                return -ENOMEM;
        while (at < count) {
                size_t n = begin_some(xs, count, &at, all);
                int r = n > 0 ? send_all(s, call, all, n) : 0;

                if (is_passing(r)) {
                        first = r;
                        break; /* nor would the others get through */
                }
        }
        free(all);
        /* Those that were on their way, or changed again, or may be written in place. */
        for (size_t i = 0; first == 0 && i < count; i++)
                first = content_is_pinned(xs[i]) ? content_upload(xs[i], call) : 0;
        return first;
}

static int upload_pinned(struct contents *s, struct call *call, bool only_due)
{
        struct content **xs = NULL;
        size_t count = 0;
        int r = find_pinned(s, only_due, &xs, &count);

        if (r < 0)
                return r;
        r = upload_found(s, call, xs, count);
        for (size_t i = 0; i < count; i++)
                content_unref(xs[i]);
        free(xs);
        return r;
}

int contents_upload_all(struct contents *s, struct call *call)
{
        return upload_pinned(s, call, false);
}

int contents_sync(struct cached *c, struct vol_op *op)
{
        return contents_upload_all(c->contents, op->call);
}

/* ---- in the background ---- */

static void run_upload_errand(void *arg)
{
        struct content *x = arg;
        struct contents *s = x->s;
        struct content_call cc;
        int r = 0;

        contents_begin_call(s, &cc);
        if (!atomic_load(&s->is_ending))
                r = content_upload(x, &cc.call);
        contents_end_call(s, &cc);
        if (r < 0 && !is_passing(r))
                log_warning("a change was refused by the sandbox: %s", errno_name(r));
        content_unref(x);
}

void content_upload_later(struct content *x)
{
        struct contents *s = x->s;

        content_lock(x);
        x->is_upload_due = true;
        content_unlock(x);
        content_ref(x);
        if (workers_submit(s->workers, WORKER_SLOW, run_upload_errand, x) == 0)
                return;
        content_unref(x);
        retry_later(s);
}

static void run_retry(void *arg)
{
        struct contents *s = arg;
        struct content_call cc;
        int r = 0;

        mutex_lock(&s->lock);
        s->is_retry_due = false;
        mutex_unlock(&s->lock);
        contents_begin_call(s, &cc);
        if (!atomic_load(&s->is_ending))
                r = upload_pinned(s, &cc.call, true);
        contents_end_call(s, &cc);
        if (r == 0) {
                mutex_lock(&s->lock);
                s->retries = 0;
                mutex_unlock(&s->lock);
        }
}

static void retry_later(struct contents *s)
{
        uint64_t span_ns;
        bool is_due;

        mutex_lock(&s->lock);
        is_due = s->is_retry_due || atomic_load(&s->is_ending);
        s->is_retry_due = true;
        span_ns = RETRY_MIN_NS << (s->retries < RETRY_DOUBLINGS ? s->retries : RETRY_DOUBLINGS);
        if (!is_due)
                s->retries++;
        mutex_unlock(&s->lock);
        if (is_due)
                return;
        if (workers_submit_at(s->workers, WORKER_SLOW, clock_after(span_ns), run_retry, s, NULL) <
            0) {
                mutex_lock(&s->lock);
                s->is_retry_due = false; /* the next failure tries again */
                mutex_unlock(&s->lock);
        }
}
