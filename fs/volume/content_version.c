/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which version of the sandbox's file a content is of: what tells it from another one, what becomes
 * of the bytes when another one is met, and which attributes are shown.
 */

#include "fs/volume/contents.h"

#include <errno.h>

#include "fs/volume/conflict.h"

#define FRESH_SECONDS 2 /* a change in the same second may come later, clocks differing a little */
#define FRESH_NS (50 * NS_PER_MS)

static uint64_t stamp_of(const struct stat *st)
{
        uint64_t h = UINT64_C(0x9e3779b97f4a7c15);
        const uint64_t words[] = {(uint64_t)st->st_size, (uint64_t)st->st_mtim.tv_sec,
                                  (uint64_t)st->st_mtim.tv_nsec, (uint64_t)st->st_ctim.tv_sec,
                                  (uint64_t)st->st_ctim.tv_nsec};

        for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
                h = (h ^ words[i]) * UINT64_C(0xff51afd7ed558ccd);
                h ^= h >> 32;
        }
        return h ? h : 1;
}

void content_take_version(struct content *x, const struct stat *st)
{
        x->version = *st;
        x->shown = *st;
        x->own_ctim = (struct timespec){0};
        x->parts.size = x->parts.base_size = (uint64_t)st->st_size;
        if (st->st_nlink != 0) /* else not told */
                x->is_in_place = st->st_nlink > 1;
        x->stamp = stamp_of(st);
        x->generation++;
        x->misses = 0;
}

bool content_is_replaced(struct content *x, const struct stat *st)
{
        bool is_other = x->ino != 0 && st->st_ino != 0 && x->ino != st->st_ino;

        if (x->ino == 0 || x->kind != CONTENT_CLEAN || x->is_uploading)
                x->ino = st->st_ino; /* what is ours is there to stay */
        return is_other && x->ino != st->st_ino && !x->is_removed;
}

/* ---- the same, and how sure ---- */

static bool same_time(const struct timespec *a, const struct timespec *b)
{
        return a->tv_sec == b->tv_sec &&
               (a->tv_nsec == b->tv_nsec || a->tv_nsec == 0 || b->tv_nsec == 0);
}

static bool is_known(const struct timespec *t)
{
        return t->tv_sec != 0 || t->tv_nsec != 0;
}

/* Inodes are not compared: those of `known` are what is shown outside. */
static bool same_version(const struct stat *a, const struct stat *b)
{
        if (a->st_size != b->st_size || !same_time(&a->st_mtim, &b->st_mtim))
                return false;
        return !is_known(&a->st_ctim) || !is_known(&b->st_ctim) ||
               same_time(&a->st_ctim, &b->st_ctim);
}

/* Whether a change from now on can't carry the same times. */
static bool is_settled_now(const struct stat *st)
{
        const struct timespec *t = is_known(&st->st_ctim) ? &st->st_ctim : &st->st_mtim;
        uint64_t now_ns = clock_real_ns();
        uint64_t then_ns = clock_from_timespec(*t);

        if (t->tv_nsec != 0 && is_known(&st->st_ctim))
                return then_ns + FRESH_NS < now_ns;
        return then_ns + FRESH_SECONDS * NS_PER_S < now_ns;
}

void content_note_data(struct content *x, uint64_t sent_ns, uint64_t epoch)
{
        x->data_ns = sent_ns;
        x->data_epoch = epoch;
        x->is_settled = is_settled_now(&x->version);
}

/* The bytes may be older than a change that the version doesn't show. */
static bool is_doubtful(const struct content *x, const struct known *k, bool is_quiet)
{
        if (x->is_settled || x->kind != CONTENT_CLEAN || x->present.count == 0)
                return false;
        if (is_quiet && k->epoch == x->data_epoch)
                return false;
        return k->sent_ns > x->data_ns;
}

bool content_is_outdated(const struct content *x, uint64_t sent_ns)
{
        return sent_ns < x->own_ns;
}

/* ---- another one ---- */

/* A version that matches: what it tells more than the known one. */
static void learn(struct content *x, const struct known *k, bool is_quiet)
{
        bool was_exact = is_known(&x->version.st_ctim);

        if (k->st.st_mtim.tv_nsec != 0)
                x->version.st_mtim = k->st.st_mtim;
        if (is_known(&k->st.st_ctim))
                x->version.st_ctim = k->st.st_ctim;
        x->version.st_mode = k->st.st_mode;
        if (k->st.st_nlink != 0)
                x->version.st_nlink = k->st.st_nlink;
        if (x->kind == CONTENT_CLEAN) {
                x->shown.st_mode = k->st.st_mode;
                x->shown.st_atim = k->st.st_atim;
                x->shown.st_ctim = k->st.st_ctim;
                if (k->st.st_nlink != 0)
                        x->is_in_place = k->st.st_nlink > 1;
        } else if (k->st.st_nlink > 1) {
                x->is_in_place = true;
        }
        if (!was_exact && is_quiet && is_known(&x->version.st_ctim))
                x->is_settled = is_settled_now(&x->version);
}

/* How long a file is of which we change parts, but not the size. */
static uint64_t base_end(const struct content *x)
{
        const struct extents *dirty = &x->parts.dirty, *sending = &x->sending;
        uint64_t end = x->parts.base_size;

        if (dirty->count > 0 && dirty->at[dirty->count - 1].end > end)
                end = dirty->at[dirty->count - 1].end;
        if (sending->count > 0 && sending->at[sending->count - 1].end > end)
                end = sending->at[sending->count - 1].end;
        return end;
}

static void take_other_version(struct content *x, const struct stat *st) REQUIRES(x->lock)
{
        x->is_remote_lost = true; /* it may be of a file that was at this name before */
        content_forget_bytes(x);
        content_take_version(x, st);
}

/* Ours go on top of another version. */
static void put_on(struct content *x, const struct stat *st) REQUIRES(x->lock)
{
        x->is_remote_lost = true;
        content_forget_bytes(x);
        x->version = *st;
        /* The list on disk must lead to the same parts. */
        if (dirty_log_base(x->s->dir, x->record, (uint64_t)st->st_size) == 0)
                x->parts.base_size = (uint64_t)st->st_size;
        if (!x->parts.sets_size)
                x->parts.size = base_end(x);
        if (x->parts.size > x->parts.base_size)
                (void)extents_add(&x->present, x->parts.base_size, x->parts.size); /* a hole */
}

void content_go_on_with(struct content *x, const struct stat *st)
{
        x->is_torn = false;
        if (x->kind == CONTENT_PARTS)
                put_on(x, st);
        else
                take_other_version(x, st);
}

/* Somebody reads it from here, and may have begun with the version that is here. */
static bool is_being_read(struct content *x) REQUIRES(x->lock)
{
        return atomic_load(&x->handles) > 0 && x->kind == CONTENT_CLEAN && !x->is_removed &&
               x->parts.size <= CONTENT_SMALL && extents_cover(&x->present, 0, x->parts.size);
}

/*
 * The version is the same, its bytes may not be: they are to be fetched again. Who has it open and
 * finds that the file was replaced meanwhile goes on with them.
 */
static void doubt(struct content *x, const struct stat *st) REQUIRES(x->lock)
{
        struct blob *blob = is_being_read(x) ? blob_ref(x->blob) : NULL;

        take_other_version(x, st);
        x->doubted = blob;
        if (x->blob == blob) /* no memory for another one */
                content_drop_doubted(x);
}

bool content_adopt(struct content *x, const struct known *k, bool is_quiet)
{
        bool is_same = same_version(&x->version, &k->st);

        if (x->is_removed || x->is_only_here || x->is_uploading)
                return false;
        if (!is_same && k->sent_ns != 0 && content_is_outdated(x, k->sent_ns))
                return false;
        if (k->epoch > x->checked_epoch)
                x->checked_epoch = k->epoch;
        conflict_seen(x, &k->st, k->sent_ns, k->epoch);
        if (x->kind == CONTENT_WHOLE) {
                x->is_in_place |= k->st.st_nlink > 1;
                return false;
        }
        if (x->kind == CONTENT_PARTS && conflict_keeps_base(x, &k->st))
                return false;
        if (is_same && !is_doubtful(x, k, is_quiet)) {
                learn(x, k, is_quiet);
                return false;
        }
        if (x->kind == CONTENT_CLEAN) {
                if (is_same)
                        doubt(x, &k->st);
                else
                        take_other_version(x, &k->st);
                return atomic_load(&x->handles) > 0;
        }
        content_go_on_with(x, &k->st);
        x->base_ns = k->sent_ns != 0 ? k->sent_ns : clock_mono_ns();
        x->base_epoch = k->sent_ns != 0 ? k->epoch : volume_epoch(&x->s->c->v);
        return atomic_load(&x->handles) > 0;
}

void content_own_version(struct content *x, const struct stat *st)
{
        x->own_ns = clock_mono_ns();
        x->own_ctim = x->shown.st_ctim;
        x->version = *st;
        x->base_ns = x->own_ns;
        x->base_epoch = volume_epoch(&x->s->c->v);
        atomic_store(&x->has_no_base, false);
        content_note_data(x, x->own_ns, volume_epoch(&x->s->c->v));
}

/* Nothing but what we have set is different. */
static bool is_only_set(const struct content *x, const struct change *change, bool is_quiet)
{
        const struct stat *st = &change->st;

        if (x->parts.size != (uint64_t)st->st_size)
                return false;
        if ((change->what & FILE_SET_MTIME) == 0)
                return same_time(&x->version.st_mtim, &st->st_mtim);
        return x->present.count == 0 || (is_quiet && x->checked_epoch == volume_epoch(&x->s->c->v));
}

bool content_own_attrs(struct content *x, const struct change *change, bool is_quiet)
{
        struct timespec ours = change->what & FILE_SET_MTIME ? change->mtime : x->shown.st_mtim;
        bool is_news = false;

        if (x->kind != CONTENT_CLEAN || x->is_removed || x->is_uploading)
                return false;
        if (is_only_set(x, change, is_quiet)) {
                x->version = x->shown = change->st;
                x->own_ctim = x->shown.st_ctim;
                x->version.st_ctim = (struct timespec){0}; /* not known before it is asked for */
        } else {
                take_other_version(x, &change->st);
                is_news = atomic_load(&x->handles) > 0;
        }
        x->own_ns = clock_mono_ns();
        if (change->st.st_mtim.tv_nsec == 0 && same_time(&ours, &change->st.st_mtim))
                x->shown.st_mtim = ours; /* which the service has rounded */
        return is_news;
}

/* ---- attributes ---- */

void content_attrs_locked(struct content *x, struct stat *st)
{
        bool is_ours = x->kind != CONTENT_CLEAN || x->is_uploading;

        if (st->st_mode == 0) {
                *st = x->last.st_mode != 0 ? x->last : x->version; /* else it lost its entry */
                if (x->ino != 0)
                        st->st_ino = x->ino;
                st->st_nlink = 0;
                is_ours = true;
        }
        if (is_ours) {
                st->st_size = (off_t)x->parts.size;
                st->st_blocks = (blkcnt_t)((x->parts.size + 511) / 512);
                st->st_mode = S_IFREG | (x->shown.st_mode & 07777);
                st->st_atim = x->shown.st_atim;
                st->st_mtim = x->shown.st_mtim;
                st->st_ctim = x->shown.st_ctim;
                return;
        }
        if (!same_version(&x->version, st)) { /* told before our upload: not taken over */
                st->st_size = (off_t)x->parts.size;
                st->st_mtim = x->shown.st_mtim;
        } else if (x->own_ctim.tv_sec != 0) {
                st->st_ctim = x->own_ctim; /* git compares it */
        }
        if (st->st_mtim.tv_nsec == 0 && same_time(&st->st_mtim, &x->shown.st_mtim))
                st->st_mtim = x->shown.st_mtim; /* ours, which the service has rounded */
}

/* Who has just opened it reads one version, though it is replaced meanwhile; not past a command. */
static bool is_just_opened(struct content *x) REQUIRES(x->lock)
{
        struct cached *c = x->s->c;

        return x->checked_epoch == volume_epoch(&c->v) &&
               clock_mono_ns() < x->opened_ns + c->config.attr_ttl_ns;
}

bool content_attrs(struct content *x, struct stat *st, uint64_t sent_ns)
{
        struct known k = {.st = *st};
        bool is_behind = false;

        content_lock(x);
        if (st->st_mode == 0 || !content_is_replaced(x, st)) {
                if (st->st_mode != 0 && !content_is_outdated(x, sent_ns)) {
                        is_behind = is_being_read(x) && !same_version(&x->version, st);
                        x->is_in_place |= st->st_nlink > 1;
                        if (!is_behind)
                                (void)content_adopt(x, &k, false); /* the answer tells the kernel */
                }
                content_attrs_locked(x, st);
        }
        content_unlock(x);
        return !is_behind;
}

int content_follow(struct cached *c, struct vol_op *op, uint64_t node, const struct known *k)
{
        struct content *x = cached_content(c, node);
        int r = 0;

        if (!x)
                return 0;
        content_lock(x);
        if (is_being_read(x) && !is_just_opened(x) && !same_version(&x->version, &k->st) &&
            !content_is_outdated(x, k->sent_ns) && !content_is_replaced(x, &k->st)) {
                if (!op->may_wait)
                        r = -EINPROGRESS;
                else if (content_adopt(x, k, false))
                        (void)content_fill_all(x, op->call); /* else whoever reads tries himself */
        }
        content_unlock(x);
        content_unref(x);
        return r;
}
