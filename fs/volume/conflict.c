/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/volume/conflict.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/volume/journal.h"
#include "providers/provider.h"
#include "transport/base/cleanup.h"

static const char replaced_news[] =
        "changed in the sandbox while our change waited; ours replaced it";
static const char remade_news[] =
        "removed in the sandbox while our change waited; ours made it anew";
static const char cut_news[] = "sending it was cut off, or it was changed in the sandbox while our "
                               "change waited; ours replaced it";

/* ---- versions ---- */

/* SFTP tells no more of the seconds than 32 bits. */
static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
        return (uint32_t)a->tv_sec == (uint32_t)b->tv_sec &&
               (a->tv_nsec == b->tv_nsec || a->tv_nsec == 0 || b->tv_nsec == 0);
}

bool conflict_is_same(const struct stat *a, const struct stat *b)
{
        return a->st_size == b->st_size && is_same_time(&a->st_mtim, &b->st_mtim);
}

/* Whether `version` is what our change was made to. */
static bool has_base(struct content *x) REQUIRES(x->lock)
{
        return !atomic_load(&x->is_only_here) && !atomic_load(&x->has_no_base) &&
               (x->version.st_mtim.tv_sec != 0 || x->version.st_mtim.tv_nsec != 0);
}

static bool is_seen_lately(struct content *x) REQUIRES(x->lock)
{
        struct cached *c = x->s->c;

        return x->base_ns != 0 && x->base_epoch == volume_epoch(&c->v) &&
               x->base_ns + c->config.attr_ttl_ns >= clock_mono_ns();
}

void conflict_seen(struct content *x, const struct stat *st, uint64_t sent_ns, uint64_t epoch)
{
        if (sent_ns <= x->base_ns || !conflict_is_same(&x->version, st))
                return;
        x->base_ns = sent_ns;
        x->base_epoch = epoch;
}

static bool is_all_here(struct content *x) REQUIRES(x->lock)
{
        return extents_cover(&x->present, 0, x->parts.size);
}

bool conflict_keeps_base(struct content *x, const struct stat *st)
{
        uint64_t ttl_ns = x->s->c->config.attr_ttl_ns;

        if (conflict_is_same(&x->version, st) || !has_base(x) || is_seen_lately(x))
                return false;
        if (is_all_here(x)) {
                x->is_torn = false;
                return true;
        }
        /* Nothing has waited: it is a disk. */
        if (!x->is_torn && x->parts_ns + ttl_ns >= clock_mono_ns())
                return false;
        x->is_torn = true;
        return true;
}

void conflict_takes_name(struct content *x, struct content *over, const struct known *k)
{
        struct dirty_tries tries = {.count = 0};
        struct known base = *k;

        if (over) {
                content_lock(over);
                tries = over->parts.tries;
                if (over->is_uploading)
                        base = (struct known){.epoch = 0}; /* nobody knows */
                else if (over->kind != CONTENT_CLEAN)
                        base = (struct known){.sent_ns = over->base_ns, .epoch = over->base_epoch};
                if (over->kind != CONTENT_CLEAN && !over->is_uploading && has_base(over))
                        base.st = over->version;
                content_unlock(over);
        }
        content_lock(x);
        /* Else it is the sandbox's, and was only given another name. */
        if (x->kind == CONTENT_WHOLE && atomic_load(&x->has_no_base) && !x->is_uploading) {
                x->version = base.st;
                x->base_ns = base.sent_ns;
                x->base_epoch = base.epoch;
                x->parts.tries = tries;
                (void)dirty_log_tries(x->s->dir, x->record, &tries); /* else it may be told */
                atomic_store(&x->has_no_base, false);
        }
        content_unlock(x);
}

/* ---- looking ---- */

struct looking {
        struct file_sink sink; /* first */
        struct conflict_look *looks;
        const size_t *indexes; /* of what is asked for, in it */
};

static int on_file(struct file_sink *to, size_t index, int error, const struct stat *st,
                   const void *data, size_t size)
{
        struct looking *l = (struct looking *)(void *)to; /* its head */
        struct conflict_look *look = &l->looks[l->indexes[index]];

        (void)data, (void)size; /* only an empty file has its bytes told */
        look->error = error == -ENOTDIR ? -ENOENT : error == -EFBIG ? 0 : error;
        look->is_told = look->error == 0 || look->error == -ENOENT;
        if (look->error == 0)
                look->st = *st;
        return 0;
}

/* No regular file, or one that may not be read. */
static void look_again(struct box *box, struct call *call, const char *path,
                       struct conflict_look *look)
{
        int r = box_stat(box, call, path, &look->st);

        look->error = r == -ENOTDIR ? -ENOENT : r;
        look->is_told = look->error == 0 || look->error == -ENOENT;
}

/* What could not be sent at once has waited, however long. */
static bool must_look(struct contents *s, const struct waiting *w)
{
        struct content *x = w->x;
        bool must;

        if (!x)
                return false;
        content_lock(x);
        must = x->kind != CONTENT_CLEAN && !x->is_removed && has_base(x) &&
               (w->may_be_done || !is_seen_lately(x));
        content_unlock(x);
        /* A time of ours that isn't there yet is in the base. */
        return must && !journal_sets_time(s->journal, w->path, w->seq);
}

/* The indexes of those that must be looked at, packed. */
static size_t find_those(struct contents *s, struct waiting *const *all, size_t count,
                         size_t *indexes)
{
        size_t n = 0;

        for (size_t i = 0; i < count; i++)
                if (must_look(s, all[i]))
                        indexes[n++] = i;
        return n;
}

static int look_at(struct contents *s, struct box *box, struct call *call,
                   struct waiting *const *all, const size_t *indexes, size_t count,
                   struct conflict_look *looks)
{
        _cleanup_(freep) const char **paths = calloc(count, sizeof(*paths));
        struct looking l = {.sink.file = on_file, .looks = looks, .indexes = indexes};
        uint64_t epoch = volume_epoch(&s->c->v), sent_ns = clock_mono_ns();
        int r;

        if (!paths)
                return -ENOMEM;
        for (size_t i = 0; i < count; i++) {
                paths[i] = all[indexes[i]]->path;
                looks[indexes[i]].error = -EINPROGRESS;
                looks[indexes[i]].sent_ns = sent_ns;
                looks[indexes[i]].epoch = epoch;
        }
        r = box_fetch(box, call, paths, count, 0, &l.sink);
        for (size_t i = 0; r == 0 && i < count; i++)
                if (!looks[indexes[i]].is_told)
                        look_again(box, call, paths[i], &looks[indexes[i]]);
        return r;
}

int conflict_look(struct contents *s, struct box *box, struct call *call,
                  struct waiting *const *all, size_t count, struct conflict_look **ret)
{
        _cleanup_(freep) size_t *indexes = calloc(count + 1, sizeof(*indexes));
        _cleanup_(freep) struct conflict_look *looks = NULL;
        size_t n = indexes ? find_those(s, all, count, indexes) : 0;
        int r = indexes ? 0 : -ENOMEM;

        *ret = NULL;
        if (n == 0)
                return r;
        looks = calloc(count, sizeof(*looks));
        if (!looks)
                return -ENOMEM;
        r = look_at(s, box, call, all, indexes, n, looks);
        if (r == 0)
                *ret = STEAL(looks);
        return r;
}

/* ---- what becomes of it ---- */

/* What is there is what we tried to send. */
static bool is_tried(const struct dirty_tries *tries, const struct stat *st)
{
        unsigned kept = tries->count < DIRTY_TRIES ? tries->count : DIRTY_TRIES;

        for (unsigned i = 0; i < kept; i++)
                if (tries->at[i].size == (uint64_t)st->st_size &&
                    is_same_time(&tries->at[i].mtime, &st->st_mtim))
                        return true;
        return false;
}

/* An upload in place that was cut off may have left it so. */
static bool may_be_cut(struct content *x, const struct stat *st) REQUIRES(x->lock)
{
        const struct dirty_tries *tries = &x->parts.tries;
        uint64_t base = (uint64_t)x->version.st_size, tried, size = (uint64_t)st->st_size;

        if (!tries->is_cut || tries->count == 0)
                return false;
        tried = tries->at[(tries->count - 1) % DIRTY_TRIES].size;
        if (x->kind == CONTENT_PARTS && size < base && size < tried)
                return false;
        return size <= (base > tried ? base : tried);
}

/* What is sent changes bytes that are there. */
static bool changes_bytes(struct content *x) REQUIRES(x->lock)
{
        return x->kind == CONTENT_WHOLE || x->parts.dirty.count > 0 || x->sending.count > 0 ||
               x->parts.sets_size;
}

static int refuse(struct content *x, char *sentence) REQUIRES(x->lock)
{
        uint64_t bytes = extents_bytes(&x->parts.dirty) + extents_bytes(&x->sending);

        (void)snprintf(sentence, CONFLICT_SENTENCE,
                       "changed in the sandbox meanwhile; `retry` writes our %" PRIu64
                       " bytes into it all the same, `discard` drops them",
                       bytes);
        return -ESTALE;
}

/* It is another version, or nothing, that is there. */
static int settle_other(struct content *x, const struct conflict_look *look, char *sentence)
        REQUIRES(x->lock)
{
        bool is_gone = look->error == -ENOENT;
        bool may_be_ours = !is_gone && S_ISREG(look->st.st_mode) && may_be_cut(x, &look->st);

        if (!changes_bytes(x))
                return 0;
        if (x->kind == CONTENT_WHOLE || is_all_here(x)) {
                x->news = is_gone ? remade_news : may_be_ours ? cut_news : replaced_news;
                return 1;
        }
        if (is_gone || may_be_ours)
                return 0;
        if (!x->takes_all)
                return refuse(x, sentence);
        x->is_torn = true; /* what was fetched is of another one */
        return 0;
}

int conflict_settle(struct content *x, const struct conflict_look *look, char *sentence)
{
        if (!look || !look->is_told || !has_base(x) || x->base_ns > look->sent_ns)
                return 0;
        if (look->error < 0 || !S_ISREG(look->st.st_mode))
                return settle_other(x, look, sentence);
        if (!conflict_is_same(&x->version, &look->st)) {
                if (!is_tried(&x->parts.tries, &look->st))
                        return settle_other(x, look, sentence);
                x->version = look->st; /* ours, of which nobody told us */
        }
        x->is_torn = false;
        conflict_seen(x, &look->st, look->sent_ns, look->epoch);
        return 0;
}
