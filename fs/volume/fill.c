/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Downloads: small files whole, of others the parts that are asked for. Whoever needs bytes that
 * nobody is fetching fetches them; others who want the same wait.
 */

#include "fs/volume/contents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/conflict.h"
#include "fs/volume/journal.h"
#include "fs/volume/meta.h"
#include "transport/base/cleanup.h"
#include "transport/base/worker.h"

#define PART_MAX ((uint64_t)4 * 1024 * 1024) /* a single read */
#define BLOCK_NEAR ((uint64_t)4096)
#define BLOCK_FAR ((uint64_t)128 * 1024)
#define SMALL_CALL ((uint64_t)128 * 1024) /* takes about a round trip */
#define KEEP_WHOLE ((uint64_t)8 * 1024 * 1024) /* a removed file up to here is fetched before */
#define SEEN_NS (20 * NS_PER_MS) /* how long small reads need no look at the file after one */
#define SEEN_MAX ((uint64_t)16 * 1024)
#define TRIES 8
#define OPENINGS 3 /* whose answer our own changes overtook */
#define TRIES_STRICT 3 /* then bytes are taken that may be a moment older than their attributes */

/* ---- the handle there ---- */

/* An answer was about another file: this one has lost its path, or had another one then. */
static int lost_error(struct content *x)
{
        _cleanup_(freep) char *path = NULL;

        return cached_content_path(x->s->c, x, &path) < 0 ? -ESTALE : -EAGAIN;
}

void content_let_remote_go(struct content *x)
{
        if (!x->remote || x->remote_uses > 0)
                return;
        if (atomic_load(&x->handles) > 0 && !x->is_remote_lost)
                return;
        box_file_close(x->remote); /* doesn't wait */
        x->remote = NULL;
        x->is_remote_lost = false;
}

/*
 * Open it, without the lock. The path is of now; a file that was removed has none, and one that was
 * replaced isn't what is opened by it. -EAGAIN: nor is it, yet it has a path.
 */
static int open_remote(struct content *x, struct call *call, struct box *box) REQUIRES(x->lock)
{
        struct cached *c = x->s->c;
        struct known k = {.epoch = volume_epoch(&c->v), .sent_ns = clock_mono_ns()};
        _cleanup_(freep) char *path = NULL;
        struct box_file *remote = NULL;
        bool is_news = false, is_its = false;
        int r;

        x->is_opening = true;
        content_unlock(x);
        r = cached_content_path(c, x, &path);
        if (r == 0)
                r = box_file_open(box, call, path, &remote, &k.st);
        if (r == 0) {
                contents_measured(x->s, clock_mono_ns() - k.sent_ns);
                is_its = cached_told(c, x, &k.st, k.sent_ns, k.epoch, false);
                r = is_its ? 0 : lost_error(x);
        }
        if (!is_its)
                box_file_close(remote); /* doesn't wait */
        content_lock(x);
        x->is_opening = false;
        cond_broadcast(&x->changed);
        if (r < 0)
                return r == -ENOENT ? -ESTALE : r;
        if (!content_is_outdated(x, k.sent_ns)) {
                k.sent_ns = 0;
                is_news = content_adopt(x, &k, false);
        }
        x->remote = remote;
        x->remote_ino = k.st.st_ino;
        x->is_remote_lost = false;
        if (is_news) {
                content_unlock(x);
                content_tell_kernel(x);
                content_lock(x);
        }
        return 0;
}

/* The handle, in use until put_remote. */
static int get_remote(struct content *x, struct call *call, struct box *box) REQUIRES(x->lock)
{
        unsigned tries = 0;
        int r = 0;

        while (r == 0) {
                if (x->remote && (x->is_remote_lost || x->remote->box != box) &&
                    x->remote_uses == 0) {
                        x->is_remote_lost = true;
                        content_let_remote_go(x);
                }
                if (x->remote && !x->is_remote_lost)
                        break;
                if (x->remote || x->is_opening)
                        r = content_wait(x, call);
                else
                        r = open_remote(x, call, box);
                if (r == -EAGAIN)
                        r = ++tries < OPENINGS ? 0 : -ESTALE;
        }
        if (r == 0)
                x->remote_uses++;
        return r;
}

static void put_remote(struct content *x) REQUIRES(x->lock)
{
        x->remote_uses--;
        content_let_remote_go(x);
        cond_broadcast(&x->changed);
}

/* ---- taking bytes in ---- */

/* A file larger than all of the spool: what lies far from here is let go. */
static void keep_around(struct content *x, uint64_t start, uint64_t end) REQUIRES(x->lock)
{
        struct spool *spool = &x->s->spool;
        uint64_t around = spool_around(spool);
        uint64_t low = start > around ? start - around : 0, high = end + around;

        if (atomic_load(&spool->disk) <= spool_limit(spool) || x->kind != CONTENT_CLEAN ||
            x->is_removed || x->blob->counted <= around * 4)
                return;
        /* Noted as absent first: should that fail, all stays. */
        if (extents_remove(&x->present, 0, low) == 0)
                (void)blob_zero(spool, x->blob, 0, low); /* else it only takes room */
        if (extents_remove(&x->present, high, UINT64_MAX) == 0)
                (void)blob_zero(spool, x->blob, high, UINT64_MAX); /* likewise */
}

/* Bytes that the sandbox has leave the last of the disk to those that it hasn't. */
static bool has_room(const struct content *x, uint64_t end) REQUIRES(x->lock)
{
        if (x->kind != CONTENT_CLEAN || x->is_removed || (x->blob->id == 0 && end <= SPOOL_SMALL))
                return true;
        return !spool_is_short(&x->s->spool);
}

/* Put bytes where there are none yet. */
static int insert(struct content *x, const char *data, uint64_t start, uint64_t end)
        REQUIRES(x->lock)
{
        struct spool *spool = &x->s->spool;
        struct extent gap;
        uint64_t at = start;
        int r = 0;

        if (end > x->parts.size)
                end = x->parts.size;
        if (!has_room(x, end))
                return -ENOSPC;
        while (r == 0 && extents_gap(&x->present, at, end, &gap)) {
                r = blob_write(spool, x->blob, data + (gap.start - start),
                               (size_t)(gap.end - gap.start), gap.start);
                if (r == 0)
                        r = extents_add(&x->present, gap.start, gap.end);
                else
                        (void)blob_zero(spool, x->blob, gap.start, gap.end); /* only takes room */
                at = gap.end;
                content_drop_doubted(x);
        }
        keep_around(x, start, end);
        blob_count(spool, x->blob, extents_bytes(&x->present));
        return r;
}

/* ---- parts ---- */

static void add_fetch(struct content *x, struct content_fetch *f, uint64_t start, uint64_t end)
        REQUIRES(x->lock)
{
        f->start = start;
        f->end = end;
        f->into = NULL;
        list_add_tail(&x->fetches, &f->of_content);
}

static void end_fetch(struct content *x, struct content_fetch *f) REQUIRES(x->lock)
{
        list_remove(&f->of_content);
        cond_broadcast(&x->changed);
}

/*
 * Whether a small read may go without a look at the file, which costs as much as the bytes: one that
 * was sent just now found this version. What is read so has to be all that was asked for.
 */
static bool is_just_seen(const struct content *x, uint64_t size) REQUIRES(x->lock)
{
        return size <= SEEN_MAX && x->kind == CONTENT_CLEAN && !x->is_removed &&
               x->present.count > 0 && x->seen_ns != 0 && x->seen_generation == x->generation &&
               x->seen_epoch == volume_epoch(&x->s->c->v) && x->seen_ns + SEEN_NS > clock_mono_ns();
}

/* `n` bytes for the part `f`. */
static int take_bytes(struct content *x, struct content_fetch *f, const char *data, size_t n)
        REQUIRES(x->lock)
{
        if (!f->into)
                return insert(x, data, f->start, f->start + n);
        memcpy(f->into, data, n);
        f->got = n;
        return 0;
}

static int take_unseen(struct content *x, struct content_fetch *f, const char *data, ssize_t n)
        REQUIRES(x->lock)
{
        if ((uint64_t)n == f->end - f->start && x->kind == CONTENT_CLEAN)
                return take_bytes(x, f, data, (size_t)n);
        x->seen_ns = 0;
        return 0;
}

/* What was read, with the attributes after it. 0 also when it has to be read again. */
static int take_part(struct content *x, struct content_fetch *f, const char *data, ssize_t n,
                     const struct known *k, bool is_strict) REQUIRES(x->lock)
{
        struct known now = {.st = k->st, .epoch = k->epoch};
        unsigned generation = x->generation;
        bool was_lost = x->is_remote_lost, is_news;

        if (x->remote_ino != 0 && k->st.st_ino != 0 && x->remote_ino != k->st.st_ino) {
                x->is_remote_lost = true; /* a service without handles: it read by the path */
                return -ESTALE;
        }
        if (x->is_removed) /* by name there may be another file; the handle is ours */
                return take_bytes(x, f, data, (size_t)n);
        is_news = !content_is_outdated(x, k->sent_ns) && content_adopt(x, &now, false);
        x->is_remote_lost = was_lost; /* it is the handle that told */
        if (is_news) {
                content_unlock(x);
                content_tell_kernel(x);
                content_lock(x);
        }
        if (x->kind == CONTENT_WHOLE || x->is_torn || (is_strict && x->generation != generation))
                return 0;
        conflict_seen(x, &k->st, k->sent_ns, k->epoch);
        if (x->generation == generation) {
                x->seen_ns = k->sent_ns;
                x->seen_epoch = k->epoch;
                x->seen_generation = generation;
        }
        if (x->present.count == 0)
                content_note_data(x, k->sent_ns, k->epoch);
        return take_bytes(x, f, data, (size_t)n);
}

/* Read the part that `f` stands for; it is ended by the caller. */
static int run_part(struct content *x, struct call *call, struct content_fetch *f, bool is_strict)
        REQUIRES(x->lock)
{
        struct cached *c = x->s->c;
        size_t size = (size_t)(f->end - f->start);
        _cleanup_(freep) char *data = malloc(size);
        unsigned generation = x->generation;
        struct known k = {.epoch = volume_epoch(&c->v), .sent_ns = clock_mono_ns()};
        bool is_unseen = false;
        uint64_t begin_ns;
        struct box *box;
        ssize_t n = -ENOMEM;
        int r;

        content_unlock(x);
        r = data ? cached_enter_for(c, call, x, &box) : -ENOMEM;
        content_lock(x);
        if (r < 0)
                return r;
        r = get_remote(x, call, box);
        if (r == 0 && x->generation == generation) {
                is_unseen = is_just_seen(x, size);
                content_unlock(x);
                begin_ns = clock_mono_ns();
                n = box_file_read(x->remote, call, data, size, f->start, is_unseen ? NULL : &k.st);
                if (n >= 0 && size <= SMALL_CALL)
                        contents_measured(x->s, clock_mono_ns() - begin_ns);
                if (n >= 0 && !is_unseen && !S_ISREG(k.st.st_mode))
                        n = -EPROTO;
                if (n >= 0 && !is_unseen)
                        (void)cached_told(c, x, &k.st, k.sent_ns, k.epoch,
                                          false); /* what a handle is of, it stays */
                content_lock(x);
                if (n == -ESTALE)
                        x->is_remote_lost = true;
                put_remote(x);
                r = n < 0 ? (int)n : 0;
        } else if (r == 0) {
                put_remote(x);
                n = -EAGAIN; /* another version came in between: nothing was read */
        }
        content_unlock(x);
        cached_leave(c, box);
        content_lock(x);
        if (n >= 0 && !is_unseen && x->kind == CONTENT_PARTS && (size_t)n < size) {
                memset(data + n, 0, size - (size_t)n); /* ours is longer: a hole */
                n = (ssize_t)size;
        }
        if (n >= 0 && x->generation == generation && is_unseen)
                r = take_unseen(x, f, data, n);
        else if (n >= 0 && x->generation == generation)
                r = take_part(x, f, data, n, &k, is_strict);
        return r == -ESTALE && !x->is_removed && is_strict ? 0 : r;
}

/* The part to fetch for a gap: whole blocks, nothing that somebody else is fetching. */
static void choose_part(struct content *x, struct extent gap, struct extent *ret) REQUIRES(x->lock)
{
        uint64_t block = contents_is_far(x->s) ? BLOCK_FAR : BLOCK_NEAR;
        uint64_t start = gap.start - gap.start % block;
        uint64_t end = gap.end > UINT64_MAX - block ? gap.end
                                                    : gap.end + (block - gap.end % block) % block;
        struct extent whole;

        if (end > x->parts.size)
                end = x->parts.size;
        if (end - start > PART_MAX)
                end = start + PART_MAX;
        if (end <= gap.start)
                end = gap.end < gap.start + PART_MAX ? gap.end : gap.start + PART_MAX;
        if (extents_touch(&x->present, start, gap.start))
                start = gap.start;
        list_for_each (l, &x->fetches) {
                const struct content_fetch *f = list_entry(l, struct content_fetch, of_content);

                if (f->end > start && f->start <= gap.start)
                        start = gap.start;
                if (f->start > gap.start && f->start < end)
                        end = f->start;
        }
        /* Not what is there behind the gap. */
        if (extents_gap(&x->present, gap.start, end, &whole) && whole.end < end &&
            extents_cover(&x->present, whole.end, end))
                end = whole.end;
        *ret = (struct extent){start, end};
}

/* ---- whole small files ---- */

bool content_claim(struct content *x, struct content_fetch *fetch)
{
        if (x->kind != CONTENT_CLEAN || x->is_removed || x->parts.size > CONTENT_SMALL ||
            x->parts.size == 0 || x->present.count > 0 || !list_is_empty(&x->fetches))
                return false;
        add_fetch(x, fetch, 0, x->parts.size);
        return true;
}

void content_unclaim(struct content *x, struct content_fetch *fetch)
{
        end_fetch(x, fetch);
}

struct small_fetch {
        struct file_sink sink; /* first */
        struct contents *s;
        struct content **xs; /* those that are asked for, by the index of their path */
        struct content_fetch **fetches;
        uint64_t sent_ns, epoch;
        int first_error; /* of the first one; -ESTALE: another file has its path */
};

static void take_small(struct small_fetch *w, struct content *x, struct content_fetch *f,
                       const struct known *k, const void *data, size_t size)
{
        bool is_news;

        content_lock(x);
        is_news = !content_is_outdated(x, w->sent_ns) && content_adopt(x, k, false);
        if (x->kind != CONTENT_WHOLE && !x->is_removed && !x->is_torn && data &&
            size == (uint64_t)k->st.st_size && x->version.st_size == k->st.st_size) {
                if (x->present.count == 0)
                        content_note_data(x, w->sent_ns, w->epoch);
                (void)insert(x, data, 0, size); /* what isn't there is fetched again */
        }
        end_fetch(x, f);
        content_unlock(x);
        if (is_news)
                content_tell_kernel(x);
}

static void end_all(struct content **xs, struct content_fetch **fetches, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                if (!fetches[i])
                        continue;
                content_lock(xs[i]);
                end_fetch(xs[i], fetches[i]);
                content_unlock(xs[i]);
        }
}

static int on_small(struct file_sink *to, size_t index, int error, const struct stat *st,
                    const void *data, size_t size)
{
        struct small_fetch *w = (struct small_fetch *)(void *)to; /* its head */
        struct known k = {.epoch = w->epoch};
        struct content *x = w->xs[index];

        if (!w->fetches[index])
                return 0; /* came twice */
        if (index == 0)
                w->first_error = error;
        if ((error == 0 || error == -EFBIG) && st && S_ISREG(st->st_mode)) {
                k.st = *st;
                if (cached_told(w->s->c, x, st, w->sent_ns, w->epoch, false)) {
                        take_small(w, x, w->fetches[index], &k, error == 0 ? data : NULL, size);
                } else {
                        if (index == 0)
                                w->first_error = lost_error(x); /* -EAGAIN: is tried again */
                        if (error == 0 && data && size == (uint64_t)st->st_size)
                                spares_keep(&w->s->spares, st, data, w->sent_ns, w->epoch);
                        end_all(&x, &w->fetches[index], 1);
                }
        } else {
                if (error == -ENOENT || error == -EINVAL || error == -ENOTDIR)
                        cached_untold(w->s->c, x);
                end_all(&x, &w->fetches[index], 1);
        }
        w->fetches[index] = NULL;
        return 0;
}

/* Paths of those that still have one, packed to the front beside their contents. */
static size_t find_paths(struct contents *s, struct small_fetch *w, char **paths, size_t count)
{
        size_t n = 0;

        for (size_t i = 0; i < count; i++) {
                struct content *x = w->xs[i];

                if (cached_content_path(s->c, x, &paths[n]) < 0) {
                        end_all(&x, &w->fetches[i], 1);
                        continue;
                }
                w->xs[n] = x;
                w->fetches[n++] = w->fetches[i];
        }
        return n;
}

static int ask_small(struct contents *s, struct call *call, struct small_fetch *w, char **paths,
                     size_t count)
{
        struct box *box = NULL;
        uint64_t begin_ns;
        int r = 0;

        w->sent_ns = clock_mono_ns();
        w->epoch = volume_epoch(&s->c->v);
        for (size_t i = 0; r == 0 && i < count; i++)
                r = journal_settle(s->journal, call, paths[i]);
        if (r == 0)
                r = cached_enter(s->c, call, NULL, &box);
        if (r < 0)
                return r;
        begin_ns = clock_mono_ns();
        r = box_fetch(box, call, (const char *const *)paths, count, CONTENT_SMALL, &w->sink);
        if (r == 0 && count == 1)
                contents_measured(s, clock_mono_ns() - begin_ns);
        cached_leave(s->c, box);
        return r;
}

int contents_fetch(struct contents *s, struct call *call, struct content **xs,
                   struct content_fetch *fetches, size_t count)
{
        struct small_fetch w = {.sink = {.file = on_small, .are_regular = true}, .s = s};
        char **paths = calloc(count, sizeof(*paths));
        size_t n = 0;
        int r = -ENOMEM;

        w.xs = calloc(count, sizeof(struct content *));
        w.fetches = calloc(count, sizeof(struct content_fetch *));
        if (paths && w.xs && w.fetches) {
                for (size_t i = 0; i < count; i++) {
                        w.xs[i] = xs[i];
                        w.fetches[i] = &fetches[i];
                }
                n = find_paths(s, &w, paths, count);
                r = n > 0 ? ask_small(s, call, &w, paths, n) : -ESTALE;
                end_all(w.xs, w.fetches, n);
        } else {
                for (size_t i = 0; i < count; i++)
                        end_all(&xs[i], &(struct content_fetch *){&fetches[i]}, 1);
        }
        for (size_t i = 0; i < n; i++)
                free(paths[i]);
        free(paths);
        free(w.xs);
        free(w.fetches);
        contents_trim(s);
        /* EAGAIN: it was written all the time. What is absent is then read part by part. */
        if (r == 0 && w.first_error != 0 && w.first_error != -EFBIG && w.first_error != -EAGAIN)
                r = w.first_error == -ENOENT || w.first_error == -EINVAL ? -ESTALE : w.first_error;
        return r;
}

/* It came just now, when another file was asked for (spare.h). */
static bool take_spare(struct content *x, struct content_fetch *f) REQUIRES(x->lock)
{
        struct contents *s = x->s;
        uint64_t epoch = volume_epoch(&s->c->v), ttl_ns = s->c->config.attr_ttl_ns,
                 now_ns = clock_mono_ns(), sent_ns = 0;
        _cleanup_(freep) char *data = spares_take(
                &s->spares, &x->version, now_ns > ttl_ns ? now_ns - ttl_ns : 0, epoch, &sent_ns);

        if (!data || x->is_torn)
                return false;
        content_note_data(x, sent_ns, epoch);
        if (insert(x, data, 0, (uint64_t)x->version.st_size) < 0)
                return false;
        end_fetch(x, f);
        return true;
}

struct spare_fetch {
        struct file_sink sink; /* first */
        struct contents *s;
        const char *path;
        uint64_t sent_ns, epoch;
};

static int on_spare(struct file_sink *to, size_t index, int error, const struct stat *st,
                    const void *data, size_t size)
{
        struct spare_fetch *w = (struct spare_fetch *)(void *)to; /* its head */
        const struct meta_source source = {.sent_ns = w->sent_ns, .epoch = w->epoch};

        (void)index;
        if (error != 0 || !st || !data || !S_ISREG(st->st_mode) || size != (uint64_t)st->st_size)
                return 0;
        spares_keep(&w->s->spares, st, data, w->sent_ns, w->epoch);
        return meta_put(w->s->c->meta, w->path, &source, st, NULL);
}

void contents_fetch_spare(struct contents *s, struct call *call, const char *path)
{
        struct spare_fetch w = {.sink = {.file = on_spare, .are_regular = true},
                                .s = s,
                                .path = path,
                                .sent_ns = clock_mono_ns(),
                                .epoch = volume_epoch(&s->c->v)};
        struct box *box;

        if (cached_enter(s->c, call, NULL, &box) < 0)
                return;
        (void)box_fetch(box, call, &path, 1, CONTENT_SMALL, &w.sink); /* best effort */
        cached_leave(s->c, box);
}

static int fill_small(struct content *x, struct call *call, struct content_fetch *f)
        REQUIRES(x->lock)
{
        int r;

        if (take_spare(x, f))
                return 0;
        content_unlock(x);
        r = contents_fetch(x->s, call, &x, f, 1);
        content_lock(x);
        return r;
}

/* ---- what others call ---- */

static bool is_coming(struct content *x, uint64_t offset) REQUIRES(x->lock)
{
        list_for_each (l, &x->fetches) {
                const struct content_fetch *f = list_entry(l, struct content_fetch, of_content);

                if (f->start <= offset && offset < f->end)
                        return true;
        }
        return false;
}

static int fill_part(struct content *x, struct call *call, struct extent gap, bool is_strict)
        REQUIRES(x->lock)
{
        struct content_fetch f;
        struct extent part;
        int r;

        choose_part(x, gap, &part);
        add_fetch(x, &f, part.start, part.end);
        r = run_part(x, call, &f, is_strict);
        end_fetch(x, &f);
        return r;
}

int content_fill(struct content *x, struct call *call, uint64_t start, uint64_t end)
{
        struct content_fetch f;
        struct extent gap;
        uint64_t from = start;
        unsigned tries = 0;
        int r = 0;

        while (r == 0 &&
               extents_gap(&x->present, start, end < x->parts.size ? end : x->parts.size, &gap)) {
                if (!call)
                        return -EINPROGRESS;
                if (gap.start > from)
                        tries = 0; /* it goes on */
                from = gap.start;
                if (x->is_torn)
                        return call_fail(call, -ESTALE, "it was changed in the sandbox meanwhile");
                if (!has_room(x, x->parts.size))
                        return -ENOSPC;
                if (is_coming(x, gap.start)) {
                        r = content_wait(x, call);
                        continue;
                }
                if (++tries > TRIES)
                        return -EIO; /* the file is never as long as it says */
                if (tries == 1 && content_claim(x, &f))
                        r = fill_small(x, call, &f);
                else
                        r = fill_part(x, call, gap, tries <= TRIES_STRICT);
                if (r == -ESTALE && content_take_doubted(x))
                        r = 0;
        }
        return r;
}

int content_fill_all(struct content *x, struct call *call)
{
        return content_fill(x, call, 0, UINT64_MAX);
}

/* Some of [start, end), from what is present or without being kept. Count; 0: try again. */
static ssize_t read_through(struct content *x, struct call *call, char *data, uint64_t start,
                            uint64_t end, bool is_strict) REQUIRES(x->lock)
{
        struct content_fetch f = {.into = data};
        struct extent gap = {end, end};
        int r;

        if (extents_gap(&x->present, start, end, &gap) && gap.start == start) {
                f.start = gap.start;
                f.end = gap.end;
                r = run_part(x, call, &f, is_strict);
                return r < 0 ? r : (ssize_t)f.got;
        }
        r = blob_read(&x->s->spool, x->blob, data, (size_t)(gap.start - start), start);
        return r < 0 ? r : (ssize_t)(gap.start - start);
}

/* All of [start, end) of one version. Count or -errno; 0: there came another one. */
static ssize_t read_all_through(struct content *x, struct call *call, char *data, uint64_t start,
                                uint64_t end) REQUIRES(x->lock)
{
        unsigned generation = x->generation, tries = 0;
        uint64_t at = start;

        while (at < end) {
                ssize_t n =
                        read_through(x, call, data + (at - start), at, end, tries < TRIES_STRICT);

                if (n < 0)
                        return n;
                if (x->generation != generation || end > x->parts.size)
                        return 0;
                if (n == 0 && ++tries > TRIES)
                        return -EIO; /* as content_fill */
                at += (uint64_t)n;
        }
        return (ssize_t)(end - start);
}

ssize_t content_read(struct content *x, struct call *call, void *data, size_t size, uint64_t offset)
{
        bool has_made_room = false;

        for (;;) {
                uint64_t end = x->parts.size;
                int r;

                if (offset >= end || size == 0)
                        return 0;
                if (size < end - offset)
                        end = offset + size;
                r = content_fill(x, call, offset, end);
                if (!has_made_room && content_make_room(x, r)) {
                        has_made_room = true;
                        continue;
                }
                if (spool_is_full(r)) {
                        ssize_t n = read_all_through(x, call, data, offset, end);

                        if (n != 0)
                                return n;
                        continue;
                }
                if (r < 0)
                        return r;
                if (end > x->parts.size || !extents_cover(&x->present, offset, end))
                        continue; /* it was changed, or dropped */
                r = blob_read(&x->s->spool, x->blob, data, (size_t)(end - offset), offset);
                return r < 0 ? r : (ssize_t)(end - offset);
        }
}

int content_keep_remote(struct content *x, struct call *call)
{
        struct cached *c = x->s->c;
        struct box *box;
        int r;

        content_unlock(x);
        r = cached_enter_for(c, call, x, &box);
        content_lock(x);
        if (r < 0)
                return r;
        r = get_remote(x, call, box);
        if (r == 0)
                put_remote(x);
        content_unlock(x);
        cached_leave(c, box);
        content_lock(x);
        return r;
}

int content_keep(struct content *x, struct call *call)
{
        bool is_small =
                x->parts.size <= KEEP_WHOLE && x->parts.size <= 4 * spool_around(&x->s->spool);
        int r = is_small ? content_fill_all(x, call) : -ENOSPC;

        return spool_is_full(r) ? content_keep_remote(x, call) : r;
}

/* ---- in the background ---- */

struct fill_errand {
        struct content *x;
        struct content_fetch fetch;
};

static void run_fill_errand(void *arg)
{
        struct fill_errand *e = arg;
        struct content *x = e->x;
        struct contents *s = x->s;
        struct content_call cc;

        contents_begin_call(s, &cc);
        content_lock(x);
        if (!atomic_load(&s->is_ending) && e->fetch.start < x->parts.size)
                (void)run_part(x, &cc.call, &e->fetch, true); /* whoever needs it tries himself */
        end_fetch(x, &e->fetch);
        content_unlock(x);
        contents_end_call(s, &cc);
        contents_trim(s);
        content_unref(x);
        free(e);
}

/* One part that is absent and not on its way. */
static bool fill_part_later(struct content *x, struct extent part) REQUIRES(x->lock)
{
        struct fill_errand *e = malloc(sizeof(*e));

        if (!e)
                return false;
        e->x = content_ref(x);
        add_fetch(x, &e->fetch, part.start, part.end);
        if (workers_submit(x->s->workers, WORKER_FAST, run_fill_errand, e) == 0)
                return true;
        end_fetch(x, &e->fetch);
        atomic_fetch_sub(&x->refs, 1); /* not the last: the caller has one */
        free(e);
        return false;
}

void content_fill_later(struct content *x, uint64_t start, uint64_t end)
{
        struct extent gap;

        if (end > x->parts.size)
                end = x->parts.size;
        while (extents_gap(&x->present, start, end, &gap)) {
                if (gap.end - gap.start > PART_MAX)
                        gap.end = gap.start + PART_MAX;
                list_for_each (l, &x->fetches) {
                        const struct content_fetch *f =
                                list_entry(l, struct content_fetch, of_content);

                        if (f->start <= gap.start && gap.start < f->end)
                                gap.start = f->end;
                        else if (f->start > gap.start && f->start < gap.end)
                                gap.end = f->start;
                }
                start = gap.end > gap.start ? gap.end : gap.start;
                if (gap.start < gap.end && !fill_part_later(x, gap))
                        return;
        }
}
