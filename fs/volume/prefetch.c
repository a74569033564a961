/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files are fetched before they are asked for, in one call with the one that is:
 *
 *      with the first one all of its tree that is as little as one small file may be;
 *      after two of a directory were opened, all of it, if that is little, after three also if it
 *      is more; the same of a tree, once files of two of its directories were opened;
 *      after two of a directory in the order it was listed in, the next ones: 4, 8, ... 512.
 *
 * Only opens of files that are not here count, so that whoever reads from the cache costs nothing.
 * The opened file is claimed at once: its reader waits for the batch.
 */

#include "fs/volume/contents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/worker.h"

#define DIRS 64 /* that are watched */
#define ABOVE_MAX 8 /* directories above a file that count its opens */
#define TINY_BYTES CONTENT_SMALL
#define TINY_FILES 256
#define FEW_OPENS 2
#define FEW_BYTES ((uint64_t)2 * 1024 * 1024)
#define TREE_OPENS 3
#define TREE_BYTES ((uint64_t)16 * 1024 * 1024)
#define TREE_FILES 4096
#define RUN_BYTES ((uint64_t)8 * 1024 * 1024)
#define RUN_MIN 4
#define RUN_MAX 512
#define AGE_NS (10 * NS_PER_S) /* a listing this old is good enough to guess by */

/* What was opened below one directory. */
struct watched {
        uint64_t node; /* 0: free */
        uint64_t used; /* when it was last, counted */
        uint64_t epoch;
        unsigned opens; /* below it, in this epoch */
        uint64_t child; /* directory in it that they were in, 0: itself */
        bool is_mixed; /* or in others, too */
        unsigned tree_at; /* the number of opens at which the whole tree is looked at next */
        unsigned window; /* of a run; 0: none */
        char *next; /* the file that goes on a run; NULL: none */
};

struct prefetch {
        struct mutex lock; /* a leaf */
        struct watched dirs[DIRS] GUARDED_BY(lock);
        uint64_t uses GUARDED_BY(lock);
};

int prefetch_new(struct prefetch **ret)
{
        struct prefetch *p = calloc(1, sizeof(*p));

        if (!p)
                return -ENOMEM;
        mutex_init(&p->lock);
        *ret = p;
        return 0;
}

void prefetch_free(struct prefetch *p)
{
        if (!p)
                return;
        mutex_lock(&p->lock);
        for (size_t i = 0; i < DIRS; i++)
                free(p->dirs[i].next);
        mutex_unlock(&p->lock);
        mutex_done(&p->lock);
        free(p);
}

/* ---- what to fetch ---- */

struct pick {
        char *path;
        struct known known;
};

struct picks {
        struct cached_sibling_sink sink; /* first */
        struct pick *at;
        size_t count, room;
        size_t count_max;
        uint64_t bytes, bytes_max;
        const char *after; /* begin behind this path; NULL: at once */
        bool is_over; /* there is more than the bounds allow */
};

static void picks_done(struct picks *p)
{
        for (size_t i = 0; i < p->count; i++)
                free(p->at[i].path);
        free(p->at);
}

static bool add_pick(struct picks *p, const char *path, const struct known *k)
{
        struct pick *at = p->at;

        if (p->count == p->room) {
                size_t room = p->room ? p->room * 2 : 64;

                at = reallocarray(at, room, sizeof(*at));
                if (!at)
                        return false;
                p->at = at;
                p->room = room;
        }
        at[p->count].path = strdup(path);
        if (!at[p->count].path)
                return false;
        at[p->count++].known = *k;
        p->bytes += (uint64_t)k->st.st_size;
        return true;
}

static bool on_file(struct cached_sibling_sink *to, const char *path, const struct known *k,
                    bool has_content)
{
        struct picks *p = (struct picks *)(void *)to; /* its head */

        (void)has_content; /* of which version is seen later */
        if (p->after) {
                if (strcmp(p->after, path) == 0)
                        p->after = NULL;
                return true;
        }
        /* One of several names may have its content under another. */
        if ((uint64_t)k->st.st_size > CONTENT_SMALL || k->st.st_size == 0 || k->st.st_nlink > 1)
                return true;
        if (p->count >= p->count_max || p->bytes + (uint64_t)k->st.st_size > p->bytes_max) {
                p->is_over = true;
                return false;
        }
        return add_pick(p, path, k);
}

/* ---- fetching ---- */

struct batch {
        struct contents *s;
        struct content **xs;
        struct content_fetch *fetches;
        size_t count;
};

static void batch_free(struct batch *b)
{
        for (size_t i = 0; i < b->count; i++)
                content_unref(b->xs[i]);
        free(b->xs);
        free(b->fetches);
        free(b);
}

static void run_batch(void *arg)
{
        struct batch *b = arg;
        struct content_call cc;

        contents_begin_call(b->s, &cc);
        (void)contents_fetch(b->s, &cc.call, b->xs, b->fetches, b->count); /* readers try again */
        contents_end_call(b->s, &cc);
        batch_free(b);
}

/* Nobody sees it change: what open handles go on with is not for a guess to say. */
static bool is_unused(struct contents *s, struct content *x, const struct pick *p) REQUIRES(x->lock)
{
        return x->kind == CONTENT_CLEAN && atomic_load(&x->handles) == 0 &&
               p->known.epoch == (uint32_t)volume_epoch(&s->c->v);
}

/* Its content, made if there is none, when nothing of it is here; then it is claimed. */
static bool claim_pick(struct contents *s, const struct pick *p, struct content *opened,
                       struct batch *b)
{
        struct content *x = cached_content_at(s->c, p->path), *now;
        bool is_claimed = false, is_news = false;

        if (!x) {
                x = content_new(s, &p->known);
                now = x ? cached_set_content_at(s->c, p->path, x) : NULL;
                content_unref(x);
                x = now;
        }
        if (!x)
                return false;
        content_lock(x);
        if (x != opened && is_unused(s, x, p) && !content_is_replaced(x, &p->known.st)) {
                /* else it is for an open to see */
                is_news = content_adopt(x, &p->known, true);
                is_claimed = content_claim(x, &b->fetches[b->count]);
        }
        content_unlock(x);
        if (is_news)
                content_tell_kernel(x);
        if (is_claimed)
                b->xs[b->count++] = x;
        else
                content_unref(x);
        return is_claimed;
}

static struct batch *batch_new(struct contents *s, size_t count)
{
        struct batch *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        b->s = s;
        b->xs = calloc(count, sizeof(struct content *));
        b->fetches = calloc(count, sizeof(*b->fetches));
        if (b->xs && b->fetches)
                return b;
        batch_free(b);
        return NULL;
}

/* The opened file first, so that its reader waits least. */
static void fetch_picks(struct contents *s, struct content *opened, const struct picks *p)
{
        struct batch *b = batch_new(s, p->count + 1);

        if (!b)
                return;
        content_lock(opened);
        if (content_claim(opened, &b->fetches[0]))
                b->xs[b->count++] = content_ref(opened);
        content_unlock(opened);
        if (b->count == 1)
                for (size_t i = 0; i < p->count; i++)
                        (void)claim_pick(s, &p->at[i], opened, b); /* or it is here */
        if (b->count > 1 && workers_submit(s->workers, WORKER_FAST, run_batch, b) == 0)
                return;
        for (size_t i = 0; i < b->count; i++) {
                content_lock(b->xs[i]);
                content_unclaim(b->xs[i], &b->fetches[i]);
                content_unlock(b->xs[i]);
        }
        batch_free(b);
}

/* ---- when ---- */

static struct watched *watch(struct prefetch *p, uint64_t node, uint64_t epoch) REQUIRES(p->lock)
{
        struct watched *oldest = &p->dirs[0], *d = NULL;

        for (size_t i = 0; i < DIRS && !d; i++) {
                if (p->dirs[i].node == node)
                        d = &p->dirs[i];
                else if (p->dirs[i].used < oldest->used)
                        oldest = &p->dirs[i];
        }
        if (!d || d->epoch != epoch) {
                d = d ? d : oldest;
                free(d->next);
                *d = (struct watched){.node = node, .epoch = epoch, .tree_at = FEW_OPENS};
        }
        d->used = ++p->uses;
        return d;
}

/* Directories above a file, the nearest first. */
static size_t find_above(struct cached *c, uint64_t node, uint64_t above[ABOVE_MAX])
{
        char name[NAME_MAX + 1];
        size_t n = 0;

        while (n < ABOVE_MAX && node != VOLUME_ROOT) {
                uint32_t cursor = 0;

                if (!nodes_name(&c->nodes, node, &cursor, &above[n], name))
                        break;
                node = above[n++];
        }
        return n;
}

struct due_tree {
        uint64_t node;
        unsigned opens;
};

/* Count it; those whose whole tree is to be looked at now, the smallest first. */
static size_t count_open(struct prefetch *p, uint64_t epoch, const uint64_t *above, size_t count,
                         struct due_tree due[ABOVE_MAX])
{
        size_t n = 0;

        mutex_lock(&p->lock);
        for (size_t i = 0; i < count; i++) {
                uint64_t child = i > 0 ? above[i - 1] : 0;
                struct watched *d = watch(p, above[i], epoch);

                d->is_mixed |= d->opens > 0 && d->child != child;
                d->child = child;
                if (++d->opens < d->tree_at || (child != 0 && !d->is_mixed))
                        continue;
                /* should it be too large now */
                d->tree_at = d->opens < TREE_OPENS ? TREE_OPENS : d->opens * 2;
                due[n++] = (struct due_tree){.node = above[i], .opens = d->opens};
        }
        mutex_unlock(&p->lock);
        return n;
}

static bool fetch_tree(struct contents *s, struct content *x, const struct due_tree *due)
{
        struct picks p = {.sink = {on_file},
                          .count_max = TREE_FILES,
                          .bytes_max = due->opens < TREE_OPENS ? FEW_BYTES : TREE_BYTES};
        bool is_whole;

        cached_siblings(s->c, due->node, true, AGE_NS, &p.sink);
        is_whole = !p.is_over;
        if (is_whole)
                fetch_picks(s, x, &p);
        picks_done(&p);
        return is_whole;
}

/* The largest tree around it that is hardly more than itself. */
static bool fetch_tiny(struct contents *s, struct content *x, const uint64_t *above, size_t count)
{
        struct picks best = {0};
        bool is_any;

        for (size_t i = 0; i < count; i++) {
                struct picks p = {
                        .sink = {on_file}, .count_max = TINY_FILES, .bytes_max = TINY_BYTES};

                cached_siblings(s->c, above[i], true, AGE_NS, &p.sink);
                if (p.is_over) {
                        picks_done(&p);
                        break;
                }
                picks_done(&best);
                best = p;
        }
        is_any = best.count > 1;
        if (is_any)
                fetch_picks(s, x, &best);
        picks_done(&best);
        return is_any;
}

/* How many files to fetch beside this one of the directory. */
static unsigned next_window(struct prefetch *p, uint64_t dir, uint64_t epoch, const char *path)
{
        struct watched *d;
        unsigned window;

        mutex_lock(&p->lock);
        d = watch(p, dir, epoch);
        if (!d->next || strcmp(d->next, path) != 0)
                d->window = 0; /* the first, or in no order */
        else if (d->window < RUN_MAX)
                d->window = d->window ? d->window * 2 : RUN_MIN;
        window = d->window;
        mutex_unlock(&p->lock);
        return window;
}

static void note_next(struct prefetch *p, uint64_t dir, uint64_t epoch, const char *path)
{
        struct watched *d;

        mutex_lock(&p->lock);
        d = watch(p, dir, epoch);
        free(d->next);
        d->next = path ? strdup(path) : NULL; /* NULL for want of memory: no run */
        mutex_unlock(&p->lock);
}

static void fetch_run(struct contents *s, struct content *x, uint64_t dir, uint64_t epoch)
{
        struct picks p = {.sink = {on_file}, .bytes_max = RUN_BYTES};
        char *path = NULL;
        unsigned window;

        if (cached_content_path(s->c, x, &path) < 0)
                return;
        window = next_window(s->prefetch, dir, epoch, path);
        p.after = path;
        p.count_max = window + 1; /* the last one is where the run goes on */
        cached_siblings(s->c, dir, false, AGE_NS, &p.sink);
        note_next(s->prefetch, dir, epoch, p.count > 0 ? p.at[p.count - 1].path : NULL);
        if (p.count > 1) {
                free(p.at[--p.count].path);
                fetch_picks(s, x, &p);
        }
        picks_done(&p);
        free(path);
}

void prefetch_open(struct contents *s, struct content *x, uint64_t node)
{
        uint64_t above[ABOVE_MAX], epoch = volume_epoch(&s->c->v);
        size_t count = find_above(s->c, node, above), due_count;
        struct due_tree due[ABOVE_MAX];
        uint64_t nearest = count > 0 ? above[0] : 0;
        bool is_missing;

        content_lock(x);
        is_missing = x->kind == CONTENT_CLEAN && x->present.count == 0 && x->parts.size > 0 &&
                     x->parts.size <= CONTENT_SMALL && list_is_empty(&x->fetches);
        content_unlock(x);
        if (!is_missing || count == 0)
                return;
        due_count = count_open(s->prefetch, epoch, above, count, due);
        while (due_count > 0) /* the largest tree that isn't too large */
                if (fetch_tree(s, x, &due[--due_count]))
                        return;
        if (!fetch_tiny(s, x, above, count))
                fetch_run(s, x, nearest, epoch);
}
