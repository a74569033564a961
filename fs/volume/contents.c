/* SPDX-License-Identifier: Apache-2.0 */
/* Contents as objects: versions, the bound on what is kept, and most of cached.h's hooks. */

#include "fs/volume/contents.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/volume/journal.h"
#include "fs/worker.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"

#define CALL_NS (10 * NS_PER_S) /* of a thread of ours; progress moves it */
#define COUNT_MAX 65536 /* contents that are kept */
#define DISK_MAX ((uint64_t)1 << 30)
#define WAIT_NS (100 * NS_PER_MS) /* between looks at a call's cancel flag */
#define TELL_NS (200 * NS_PER_MS)
#define STOP_NS (30 * NS_PER_S)
#define FRESH_SECONDS 2 /* a change in the same second may come later, clocks differing a little */
#define FRESH_NS (50 * NS_PER_MS)
#define FAR_NS (5 * NS_PER_MS)

/* ---- small things ---- */

void content_lock(struct content *x)
{
        mutex_lock(&x->lock);
}

void content_unlock(struct content *x)
{
        mutex_unlock(&x->lock);
}

int content_wait(struct content *x, struct call *call)
{
        uint64_t until_ns = clock_after(WAIT_NS);

        (void)cond_wait_until(&x->changed, &x->lock,
                              until_ns < call->deadline_ns ? until_ns : call->deadline_ns);
        return call_check(call);
}

void contents_begin_call(struct contents *s, struct content_call *cc)
{
        call_init(&cc->call, clock_after(CALL_NS));
        mutex_lock(&s->lock);
        list_add_tail(&s->calls, &cc->of_all);
        mutex_unlock(&s->lock);
        if (atomic_load(&s->is_ending))
                call_cancel(&cc->call);
}

void contents_end_call(struct contents *s, struct content_call *cc)
{
        mutex_lock(&s->lock);
        list_remove(&cc->of_all);
        mutex_unlock(&s->lock);
}

void contents_measured(struct contents *s, uint64_t span_ns)
{
        uint64_t before = atomic_load(&s->round_trip_ns);

        /* Lost updates do no harm. */
        atomic_store(&s->round_trip_ns, before == 0 ? span_ns : before - before / 4 + span_ns / 4);
}

bool contents_is_far(struct contents *s)
{
        return atomic_load(&s->round_trip_ns) > FAR_NS;
}

bool contents_is_quiet(struct contents *s)
{
        const struct volume_events *e = &s->c->events;

        return e->is_quiet && e->is_quiet(e->ctx);
}

/* ---- numbers ---- */

bool content_account(struct content *x)
{
        struct contents *s = x->s;
        bool is_pinned = x->kind != CONTENT_CLEAN && !x->is_removed;
        bool is_dirty = is_pinned && x->refused == 0; /* else it counts as unsent */
        uint64_t bytes = is_dirty ? extents_bytes(&x->parts.dirty) + extents_bytes(&x->sending) : 0;
        bool is_news = is_dirty != x->is_counted;

        atomic_store(&x->is_pinned, is_pinned);
        atomic_fetch_add(&s->dirty_bytes, bytes - x->counted);
        x->counted = bytes;
        if (is_news) {
                atomic_fetch_add(&s->dirty_files, is_dirty ? 1 : UINT64_MAX);
                x->is_counted = is_dirty;
        }
        return is_news || clock_mono_ns() > atomic_load(&s->told_ns) + TELL_NS;
}

void contents_tell(struct contents *s)
{
        atomic_store(&s->told_ns, clock_mono_ns());
        if (s->c->box.changed)
                s->c->box.changed(s->c->box.ctx);
}

void contents_stats(struct cached *c, struct vol_stats *ret)
{
        struct journal *j = c->contents->journal;

        *ret = (struct vol_stats){.dirty_files = atomic_load(&c->contents->dirty_files) +
                                                 journal_count_names(j),
                                  .dirty_bytes = atomic_load(&c->contents->dirty_bytes),
                                  .unsent = journal_count_refused(j)};
}

/* ---- life ---- */

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

static void take_version(struct content *x, const struct stat *st)
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

struct content *content_new(struct contents *s, const struct known *k)
{
        struct content *x = calloc(1, sizeof(*x));

        if (!x)
                return NULL;
        x->blob = blob_new();
        if (!x->blob) {
                free(x);
                return NULL;
        }
        x->s = s;
        atomic_init(&x->refs, 1);
        mutex_init(&x->lock);
        cond_init(&x->changed);
        content_lock(x);
        list_init(&x->fetches);
        take_version(x, &k->st);
        x->checked_epoch = k->epoch;
        x->ino = k->st.st_ino;
        content_unlock(x);
        mutex_lock(&s->lock);
        list_add_tail(&s->all, &x->of_all);
        s->count++;
        mutex_unlock(&s->lock);
        return x;
}

struct content *content_ref(struct content *x)
{
        atomic_fetch_add(&x->refs, 1);
        return x;
}

/* Nobody has it: no lock is needed, but for the analysis. */
static void destroy(struct content *x)
{
        struct contents *s = x->s;
        struct box_file *remote;
        bool is_news;

        content_lock(x);
        remote = x->remote;
        x->remote = NULL;
        if (x->record != 0)
                blob_keep(&s->spool, x->blob); /* for the next mount */
        blob_unref(&s->spool, x->blob);
        x->kind = CONTENT_CLEAN;
        is_news = content_account(x);
        extents_done(&x->present);
        extents_done(&x->sending);
        extents_done(&x->parts.dirty);
        content_unlock(x);
        box_file_close(remote);
        if (is_news && !atomic_load(&s->is_ending))
                contents_tell(s);
        cond_done(&x->changed);
        mutex_done(&x->lock);
        free(x);
}

void content_unref(struct content *x)
{
        struct contents *s;
        bool is_last;

        if (!x)
                return;
        s = x->s;
        /* Under the lock: contents_trim may be about to take a reference. */
        mutex_lock(&s->lock);
        is_last = atomic_fetch_sub(&x->refs, 1) == 1;
        if (is_last) {
                list_remove(&x->of_all);
                s->count--;
        }
        mutex_unlock(&s->lock);
        if (is_last)
                destroy(x);
}

uint64_t content_record(struct content *x)
{
        uint64_t record;

        content_lock(x);
        record = x->record;
        content_unlock(x);
        return record;
}

bool content_is_whole(struct content *x)
{
        bool is;

        content_lock(x);
        is = x->kind == CONTENT_WHOLE && !x->is_in_place && !x->is_removed;
        content_unlock(x);
        return is;
}

bool content_is_pinned(const struct content *x)
{
        return atomic_load(&x->is_pinned);
}

struct content *file_content(struct vol_file *f)
{
        return f->x;
}

void content_version(struct content *x, struct stat *ret)
{
        content_lock(x);
        *ret = x->version;
        content_unlock(x);
}

bool content_is_replaced(struct content *x, const struct stat *st)
{
        bool is_other = x->ino != 0 && st->st_ino != 0 && x->ino != st->st_ino;

        if (x->ino == 0 || x->kind != CONTENT_CLEAN || x->is_uploading)
                x->ino = st->st_ino; /* what is ours is there to stay */
        return is_other && x->ino != st->st_ino && !x->is_removed;
}

/* Its file was replaced inside: it goes on as one that was removed. False: it wasn't. */
static bool part_with_replaced(struct contents *s, struct content *x, const struct stat *st)
{
        bool is_replaced;

        content_lock(x);
        is_replaced = content_is_replaced(x, st);
        if (is_replaced) {
                x->is_removed = true;
                x->last = x->version;
        }
        content_unlock(x);
        if (is_replaced)
                cached_drop_content(s->c, x);
        return is_replaced;
}

int contents_of_node(struct contents *s, uint64_t node, const struct known *k, struct content **ret)
{
        struct content *x = cached_content(s->c, node), *now;

        if (x && part_with_replaced(s, x, &k->st)) {
                content_unref(x);
                x = NULL;
        }
        if (!x) {
                x = content_new(s, k);
                if (!x)
                        return -ENOMEM;
                now = cached_set_content(s->c, node, x);
                if (now) {
                        content_unref(x);
                        x = now;
                }
        }
        *ret = x;
        return 0;
}

/* ---- the bound ---- */

void content_used(struct content *x)
{
        struct contents *s = x->s;

        mutex_lock(&s->lock);
        list_remove(&x->of_all);
        list_add_tail(&s->all, &x->of_all);
        mutex_unlock(&s->lock);
}

static bool is_over(struct contents *s) REQUIRES(s->lock)
{
        return atomic_load(&s->spool.memory) > SPOOL_MEMORY_MAX ||
               atomic_load(&s->spool.disk) > s->spool.disk_max || s->count > COUNT_MAX;
}

/* The one that was not used for longest, with a reference; it goes to the other end. */
static struct content *take_oldest(struct contents *s, size_t *looked)
{
        struct content *ret = NULL;

        mutex_lock(&s->lock);
        while (!ret && is_over(s) && *looked < s->count) {
                struct content *x = list_entry(s->all.next, struct content, of_all);

                (*looked)++;
                list_remove(&x->of_all);
                list_add_tail(&s->all, &x->of_all);
                if (atomic_load(&x->handles) == 0 && !content_is_pinned(x))
                        ret = content_ref(x);
        }
        mutex_unlock(&s->lock);
        return ret;
}

static void drop(struct contents *s, struct content *x)
{
        bool is_idle;

        content_lock(x);
        is_idle = x->kind == CONTENT_CLEAN && list_is_empty(&x->fetches) && !x->is_uploading &&
                  x->held == 0 && atomic_load(&x->handles) == 0;
        if (is_idle)
                content_forget_bytes(x);
        content_unlock(x);
        if (is_idle)
                cached_drop_content(s->c, x);
}

void contents_trim(struct contents *s)
{
        struct content *x;
        size_t looked = 0;

        if (atomic_exchange(&s->is_trimming, true))
                return;
        while ((x = take_oldest(s, &looked))) {
                drop(s, x);
                content_unref(x);
        }
        atomic_store(&s->is_trimming, false);
}

/* ---- versions ---- */

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

void content_forget_bytes(struct content *x)
{
        struct blob *blob;

        extents_done(&x->present);
        x->generation++;
        if (x->kind == CONTENT_PARTS) {
                /* What is ours stays. Should memory be short, it is read as absent: never. */
                if (extents_add_all(&x->present, &x->parts.dirty) < 0 ||
                    extents_add_all(&x->present, &x->sending) < 0)
                        log_error("cached volume: out of memory");
                return;
        }
        blob = blob_new();
        if (!blob)
                return; /* what is in the old one is not present */
        content_replace_blob(x, blob);
}

void content_replace_blob(struct content *x, struct blob *blob)
{
        blob_pass_holds(x->blob, blob);
        blob_unref(&x->s->spool, x->blob); /* an upload may still read it */
        x->blob = blob;
}

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

/* The bytes may be older than a change that the version doesn't show. */
static bool is_doubtful(const struct content *x, const struct known *k, bool is_quiet)
{
        if (x->is_settled || x->kind != CONTENT_CLEAN || x->present.count == 0)
                return false;
        if (is_quiet && k->epoch == x->data_epoch)
                return false;
        return k->sent_ns > x->data_ns;
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

bool content_is_outdated(const struct content *x, uint64_t sent_ns)
{
        return sent_ns < x->own_ns;
}

static void take_other_version(struct content *x, const struct stat *st) REQUIRES(x->lock)
{
        x->is_remote_lost = true; /* it may be of a file that was at this name before */
        content_forget_bytes(x);
        take_version(x, st);
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
        if (x->kind == CONTENT_WHOLE) {
                x->version = k->st;
                x->is_in_place |= k->st.st_nlink > 1;
                return false;
        }
        if (is_same && !is_doubtful(x, k, is_quiet)) {
                learn(x, k, is_quiet);
                return false;
        }
        if (x->kind == CONTENT_CLEAN) {
                take_other_version(x, &k->st);
                return atomic_load(&x->handles) > 0;
        }
        x->is_remote_lost = true;
        content_forget_bytes(x);
        x->version = k->st;
        /* The list on disk must lead to the same parts. */
        if (dirty_log_base(x->s->dir, x->record, (uint64_t)k->st.st_size) == 0)
                x->parts.base_size = (uint64_t)k->st.st_size;
        if (!x->parts.sets_size)
                x->parts.size = base_end(x);
        if (x->parts.size > x->parts.base_size)
                (void)extents_add(&x->present, x->parts.base_size, x->parts.size); /* a hole */
        return atomic_load(&x->handles) > 0;
}

void content_own_version(struct content *x, const struct stat *st)
{
        x->own_ns = clock_mono_ns();
        x->own_ctim = x->shown.st_ctim;
        x->version = *st;
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

/* ---- the kernel ---- */

/*
 * It asks for attributes again, and drops its pages when they differ. Not while it is being told
 * them: what comes with an invalidation on its heels is not believed.
 */
void content_tell_kernel(struct content *x)
{
        struct contents *s = x->s;
        const struct volume_events *events = &s->c->events;
        uint64_t *nodes = NULL;
        size_t count = 0;
        bool is_found = false;

        if (!events->inval_node || nodes_all_open(&s->c->nodes, &nodes, &count) < 0)
                return;
        for (size_t i = 0; i < count && !is_found; i++) {
                struct content *y = cached_content(s->c, nodes[i]);

                content_unref(y); /* only compared */
                is_found = y == x;
                if (is_found) /* all its handles are of one node */
                        events->inval_node(events->ctx, nodes[i], true);
        }
        free(nodes);
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

/* Somebody reads it from here, and may have begun with the version that is here. */
static bool is_being_read(struct content *x) REQUIRES(x->lock)
{
        return atomic_load(&x->handles) > 0 && x->kind == CONTENT_CLEAN && !x->is_removed &&
               x->parts.size <= CONTENT_SMALL && extents_cover(&x->present, 0, x->parts.size);
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

/* ---- removals and renames ---- */

static void let_go(struct content *x) REQUIRES(x->lock)
{
        assert(x->held > 0);
        x->held--;
        cond_broadcast(&x->changed);
}

int content_before_removal(struct content *x, struct vol_op *op)
{
        int r = 0;

        content_lock(x);
        if (atomic_load(&x->handles) > 0 && !x->is_only_here && !x->is_removed &&
            !extents_cover(&x->present, 0, x->parts.size)) {
                r = op->may_wait ? content_keep(x, op->call) : -EINPROGRESS;
                if (r == -ENOENT || r == -ESTALE)
                        r = 0; /* it is gone there already */
        }
        content_unlock(x);
        return r;
}

void content_after_removal(struct content *x, const struct stat *last)
{
        bool is_news;

        content_lock(x);
        if (last)
                x->last = *last;
        x->is_removed = true;
        content_unpin(x);
        is_news = content_account(x);
        content_unlock(x);
        if (is_news)
                contents_tell(x->s);
}

int content_hold(struct content *x, struct vol_op *op)
{
        int r = content_upload(x, op->call);

        if (r < 0)
                return r;
        content_lock(x);
        while (r == 0 && x->is_uploading)
                r = content_wait(x, op->call);
        if (r == 0)
                x->held++;
        content_unlock(x);
        return r;
}

void content_let_go(struct content *x, bool is_linked)
{
        content_lock(x);
        x->is_in_place |= is_linked;
        let_go(x);
        content_unlock(x);
}

void content_moved(struct content *x)
{
        int r;

        content_lock(x);
        x->moves++;
        content_unlock(x);
        r = content_is_pinned(x) ? content_note(x) : 0;
        if (r < 0)
                log_error("ignoring that a record of what waits to be sent was not renewed: %s",
                          errno_name(r));
}

/* ---- the volume's life ---- */

void contents_exec_ended(struct cached *c)
{
        (void)c; /* each content is looked at anew in the new epoch, when it is used */
}

void contents_gone(struct cached *c)
{
        struct contents *s = c->contents;

        mutex_lock(&s->lock);
        list_for_each (l, &s->calls)
                call_cancel(&list_entry(l, struct content_call, of_all)->call);
        mutex_unlock(&s->lock);
}

/* Bytes of an earlier run, as a content of the file that they are for. */
static int restore(struct contents *s, struct dirty_found *f)
{
        struct known k = {.epoch = 0};
        _cleanup_(freep) char *path = journal_find_path(s->journal, f->id, f->path, f->record.seq);
        struct content *x;
        int r;

        if (!path)
                return -ENOMEM;
        k.st = f->record.base;
        k.st.st_mode = S_IFREG | f->record.mode;
        k.st.st_nlink = 1;
        x = content_new(s, &k);
        if (!x)
                return -ENOMEM;
        content_lock(x);
        x->kind = f->record.is_whole ? CONTENT_WHOLE : CONTENT_PARTS;
        x->record = f->id;
        x->is_only_here = f->record.is_only_here;
        x->sets_mode = f->record.sets_mode;
        x->shown.st_mtim = x->shown.st_atim = x->shown.st_ctim = f->record.mtime;
        x->has_own_mtime = true;
        x->changes = 1;
        x->parts = f->parts;
        f->parts = (struct dirty_parts){0};
        blob_adopt(&s->spool, x->blob, f->id);
        r = blob_resize(&s->spool, x->blob, x->parts.size);
        if (r == 0)
                r = x->kind == CONTENT_WHOLE ? extents_add(&x->present, 0, x->parts.size)
                                             : extents_add_all(&x->present, &x->parts.dirty);
        if (r == 0 && x->parts.size > x->parts.base_size)
                r = extents_add(&x->present, x->parts.base_size, x->parts.size);
        blob_count(&s->spool, x->blob, extents_bytes(&x->present));
        (void)content_account(x); /* nobody looks yet */
        content_unlock(x);
        if (r == 0)
                r = cached_restore(s->c, path, &k.st, x);
        content_unref(x); /* its entry has one */
        return r;
}

struct finding {
        struct journal_restore head; /* first */
        struct contents *s;
};

/* Nobody else knows them yet. */
static struct content *find_record(struct journal_restore *to, uint64_t record, int refused,
                                   uint64_t *ret_changes) NO_THREAD_SAFETY_ANALYSIS
{
        struct contents *s = ((struct finding *)(void *)to)->s; /* its head */

        list_for_each (l, &s->all) {
                struct content *x = list_entry(l, struct content, of_all);

                if (x->record != record)
                        continue;
                x->refused = refused;
                (void)content_account(x); /* nor looks */
                *ret_changes = x->changes;
                return content_ref(x);
        }
        return NULL;
}

static int restore_all(struct contents *s)
{
        struct dirty_found *found = NULL;
        uint64_t max = 0;
        size_t count = 0;
        int r = dirty_find(s->dir, &found, &count, &max);

        if (r == 0)
                r = journal_load(s->journal);
        atomic_store(&s->spool.next_id, max + 1);
        for (size_t i = 0; i < count; i++) {
                int e = restore(s, &found[i]);

                if (e == -EEXIST) /* a later one is of the same file, which was emptied then */
                        dirty_remove(s->dir, found[i].id);
                else if (e < 0)
                        log_error("what waits to be sent to a file was not restored: %s",
                                  errno_name(e));
                dirty_found_done(&found[i]);
        }
        free(found);
        if (r == 0) {
                journal_attach(s->journal, &(struct finding){{find_record}, s}.head);
                r = contents_queue_all(s); /* those that no change is queued for */
        }
        return r;
}

bool volume_cached_has_dirty(int dir)
{
        return dirty_any(dir) || journal_any(dir);
}

int contents_new(struct cached *c, const struct volume_cached_config *config, struct contents **ret)
{
        static const unsigned threads[WORKER_LANES] = {
                [WORKER_FAST] = 8, [WORKER_SLOW] = 2, [WORKER_FILES] = 1};
        struct contents *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->c = c;
        s->dir = config->dir;
        (void)snprintf(s->owner, sizeof(s->owner), "%s", config->owner ? config->owner : "x");
        spool_init(&s->spool, s->dir, config->spool_max ? config->spool_max : DISK_MAX);
        mutex_init(&s->lock);
        mutex_lock(&s->lock);
        list_init(&s->all);
        list_init(&s->calls);
        mutex_unlock(&s->lock);
        r = prefetch_new(&s->prefetch);
        if (r == 0)
                r = workers_new(threads, &s->workers);
        if (r == 0)
                r = send_new(s);
        c->contents = s;
        if (r == 0)
                r = restore_all(s);
        if (r < 0) {
                contents_stop(s);
                s->dir = -1; /* still the caller's */
                contents_free(s);
                c->contents = NULL;
                return r;
        }
        *ret = s;
        return 0;
}

void contents_stop(struct contents *s)
{
        if (!s)
                return;
        atomic_store(&s->is_ending, true);
        contents_gone(s->c);
        if (s->workers && !workers_free(s->workers, clock_after(STOP_NS))) {
                log_error("a call of the cached volume does not end");
                s->is_stuck = true;
        }
        s->workers = NULL;
}

void contents_free(struct contents *s)
{
        if (!s || s->is_stuck)
                return;
        journal_free(s->journal);
        assert(list_is_empty(&s->all));
        prefetch_free(s->prefetch);
        closep(&s->dir);
        mutex_done(&s->lock);
        free(s);
}
