/* SPDX-License-Identifier: Apache-2.0 */
/* Contents as objects: their life, the bound on what is kept, and most of cached.h's hooks. */

#include "fs/volume/contents.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/volume/journal.h"
#include "fs/volume/temps.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"
#include "transport/base/worker.h"

#define CALL_NS (10 * NS_PER_S) /* of a thread of ours; progress moves it */
#define COUNT_MAX 65536 /* contents that are kept */
#define DISK_MAX ((uint64_t)1 << 30)
#define WAIT_NS (100 * NS_PER_MS) /* between looks at a call's cancel flag */
#define TELL_NS (200 * NS_PER_MS)
#define STOP_NS (30 * NS_PER_S)
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

static void tell(struct contents *s)
{
        atomic_store(&s->told_ns, clock_mono_ns());
        if (s->c->box.changed)
                s->c->box.changed(s->c->box.ctx);
}

void contents_tell(struct contents *s)
{
        tell(s);
        contents_trim(s);
}

void contents_stats(struct cached *c, struct vol_stats *ret)
{
        struct journal *j = c->contents->journal;
        uint64_t before = journal_count_refused(j), after;

        /* What goes from one number to the other is in both for a moment: it is in one of these. */
        ret->dirty_files = atomic_load(&c->contents->dirty_files) + journal_count_names(j);
        ret->dirty_bytes = atomic_load(&c->contents->dirty_bytes);
        after = journal_count_refused(j);
        ret->unsent = before > after ? before : after;
}

/* ---- life ---- */

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
        content_take_version(x, &k->st);
        x->checked_epoch = x->base_epoch = k->epoch;
        x->base_ns = k->sent_ns;
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
        blob_unref(&s->spool, x->doubted);
        x->kind = CONTENT_CLEAN;
        is_news = content_account(x);
        extents_done(&x->present);
        extents_done(&x->sending);
        extents_done(&x->parts.dirty);
        content_unlock(x);
        box_file_close(remote);
        if (is_news && !atomic_load(&s->is_ending))
                tell(s);
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

bool content_is_refused(struct content *x)
{
        bool is;

        content_lock(x);
        is = x->refused != 0;
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

enum excess { EXCESS_NONE, EXCESS_DISK, EXCESS_ANY };

/* Of what waits to be sent nothing can be dropped. */
static enum excess excess_of(struct contents *s)
{
        uint64_t disk = atomic_load(&s->spool.disk);
        bool are_many;

        mutex_lock(&s->lock);
        are_many = s->count > COUNT_MAX;
        mutex_unlock(&s->lock);
        if (are_many || atomic_load(&s->spool.memory) > SPOOL_MEMORY_MAX)
                return EXCESS_ANY;
        if (disk > spool_limit(&s->spool) && disk > atomic_load(&s->dirty_bytes))
                return EXCESS_DISK;
        return EXCESS_NONE;
}

/* The one that was not used for longest, with a reference; it goes to the other end. */
static struct content *take_oldest(struct contents *s, size_t *looked)
{
        struct content *ret = NULL;

        mutex_lock(&s->lock);
        while (!ret && *looked < s->count) {
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

static void drop(struct contents *s, struct content *x, enum excess excess)
{
        bool is_idle;

        content_lock(x);
        is_idle = x->kind == CONTENT_CLEAN && list_is_empty(&x->fetches) && !x->is_uploading &&
                  x->held == 0 && atomic_load(&x->handles) == 0 &&
                  (excess == EXCESS_ANY || x->blob->id != 0);
        if (is_idle)
                content_forget_bytes(x);
        content_unlock(x);
        if (is_idle)
                cached_drop_content(s->c, x);
}

void contents_trim(struct contents *s)
{
        enum excess excess;
        struct content *x;
        size_t looked = 0;

        if (atomic_exchange(&s->is_trimming, true))
                return;
        while ((excess = excess_of(s)) != EXCESS_NONE && (x = take_oldest(s, &looked))) {
                drop(s, x, excess);
                content_unref(x);
        }
        atomic_store(&s->is_trimming, false);
}

bool content_make_room(struct content *x, int r)
{
        struct contents *s = x->s;
        struct content *y;
        size_t looked = 0;

        if (!spool_is_full(r))
                return false;
        content_unlock(x);
        if (!atomic_exchange(&s->has_told_short, true))
                log_warning("the state directory's disk is full: little is cached while it is");
        while ((y = take_oldest(s, &looked))) {
                drop(s, y, EXCESS_DISK);
                content_unref(y);
        }
        content_lock(x);
        return true;
}

/* ---- bytes ---- */

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

void content_drop_doubted(struct content *x)
{
        blob_unref(&x->s->spool, x->doubted);
        x->doubted = NULL;
}

bool content_take_doubted(struct content *x)
{
        struct blob *blob = STEAL(x->doubted);

        if (!blob || x->kind != CONTENT_CLEAN) {
                blob_unref(&x->s->spool, blob);
                return false;
        }
        content_replace_blob(x, blob);
        return extents_add(&x->present, 0, x->parts.size) == 0;
}

void content_replace_blob(struct content *x, struct blob *blob)
{
        content_drop_doubted(x);
        blob_pass_holds(x->blob, blob);
        blob_unref(&x->s->spool, x->blob); /* an upload may still read it */
        x->blob = blob;
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
        spool_init(&s->spool, s->dir, config->spool_max ? config->spool_max : DISK_MAX);
        spares_init(&s->spares);
        mutex_init(&s->lock);
        mutex_lock(&s->lock);
        list_init(&s->all);
        list_init(&s->calls);
        mutex_unlock(&s->lock);
        r = prefetch_new(&s->prefetch);
        if (r == 0)
                r = workers_new(threads, &s->workers);
        if (r == 0)
                r = temps_new(&s->temps);
        if (r == 0)
                r = send_new(s);
        c->contents = s;
        if (r == 0)
                r = contents_restore(s);
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
        spares_done(&s->spares);
        temps_free(s->temps);
        journal_free(s->journal);
        assert(list_is_empty(&s->all));
        prefetch_free(s->prefetch);
        closep(&s->dir);
        mutex_done(&s->lock);
        free(s);
}
