/* SPDX-License-Identifier: Apache-2.0 */
/* Flights are calls under way; plans say what the next one asks for. */

#include "fs/volume/refresh.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/meta.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/base/path.h"

#define NEAR_NS (2 * NS_PER_S)
#define SHUNNED_NS (60 * NS_PER_S) /* how long a tree that wasn't worth it is left alone */
#define SMALL_TREE 256 /* entries that are always worth it */
#define WORTH_PART 10 /* one in so many must have been used, */
#define WORTH_TIMES 2 /* or it must have saved so many times what it took */
#define MISSED_MIN 16 /* asks below a tree that wasn't worth it, before it is tried again */
#define LARGE_DIR 64 /* from here on a single file is asked for by itself first */
#define TOUCHES 32
#define TICK_NS (20 * NS_PER_MS) /* how often those who wait look */
#define WAIT_NS (100 * NS_PER_MS) /* how often they see that they were cancelled */
#define TRIES 3
#define AT_ONCE_NS (2 * NS_PER_MS)

/* Large, and rarely walked by anything but a walk. Asked for when they are touched themselves. */
static const char *const dull_names[] = {"node_modules", "objects", NULL};

/* A call under way. */
struct flight {
        struct list of_all;
        char *path;
        char *into; /* the only directory in it that is entered; NULL: all */
        unsigned depth; /* 0: the file alone */
        uint64_t sent_ns, epoch;
        uint64_t begin_ns; /* when nothing was left that it had to wait for */
        unsigned refs;
        bool is_done;
        int result;
        uint64_t ticks; /* rises when something has come */
};

/* A listing that was made: the record of its batch. */
struct record {
        char *path; /* NULL: none */
        char *into; /* as of a flight */
        bool is_tree;
        uint32_t count;
        uint64_t at_ns, took_ns;
        uint32_t missed; /* asks for what is in a tree, since */
        uint64_t missed_ns; /* what they took */
};

/* A directory that was asked for, or read. */
struct touch {
        char *path;
        uint64_t at_ns;
};

struct ring {
        struct touch all[TOUCHES];
        unsigned next;
};

struct refresh {
        struct mutex lock;
        struct cond news;

        /* guarded by lock */
        struct list flights GUARDED_BY(lock);
        struct record records[META_BATCHES] GUARDED_BY(lock);
        uint16_t batch GUARDED_BY(lock); /* the latest */
        struct ring asked GUARDED_BY(lock), read GUARDED_BY(lock);
        bool names_base GUARDED_BY(lock); /* listings tell about their own directory */
        uint64_t ask_ns GUARDED_BY(lock); /* what one file or directory takes, smoothed; 0 */
};

struct plan {
        char *path;
        char *into; /* as of a flight */
        unsigned depth; /* 0: one file */
        size_t max;
        bool is_tree;
};

static void plan_done(struct plan *p)
{
        free(p->path);
        free(p->into);
}

static char *copy(const char *text)
{
        return text ? strdup(text) : NULL;
}

static bool is_equal(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

void refresh_source(struct cached *c, struct meta_source *ret)
{
        *ret = (struct meta_source){.epoch = volume_epoch(&c->v), .sent_ns = clock_mono_ns()};
        ret->was_quiet = c->events.is_quiet && c->events.is_quiet(c->events.ctx);
}

/* ---- paths ---- */

static char *above(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? strndup(path, (size_t)(slash - path)) : strdup("");
}

/* How many levels `path` is below `top`; -1: it isn't. */
static int levels_below(const char *path, const char *top)
{
        const char *rest = path_rest(path, top);
        int levels = rest && rest[0] && rest[0] != '/'; /* below "": without its '/' */

        if (!rest)
                return -1;
        for (; *rest; rest++)
                levels += *rest == '/';
        return levels;
}

/* Whether it is `into` of this directory, or below that. */
static bool is_into(const char *dir, const char *into, const char *path)
{
        size_t size = strlen(dir) + (dir[0] != '\0');

        return levels_below(path, dir) > 0 && levels_below(path + size, into) >= 0;
}

/* ---- what was touched lately ---- */

static void note(struct ring *ring, const char *path, uint64_t now_ns)
{
        struct touch *t = &ring->all[ring->next];

        for (unsigned i = 0; i < TOUCHES; i++) {
                if (ring->all[i].path && strcmp(ring->all[i].path, path) == 0) {
                        ring->all[i].at_ns = now_ns;
                        return;
                }
        }
        free(t->path);
        t->path = strdup(path); /* NULL: not noted */
        t->at_ns = now_ns;
        ring->next = (ring->next + 1) % TOUCHES;
}

static bool was_touched(const struct ring *ring, const char *path, uint64_t now_ns)
{
        for (unsigned i = 0; i < TOUCHES; i++) {
                const struct touch *t = &ring->all[i];

                if (t->path && t->at_ns + NEAR_NS > now_ns && strcmp(t->path, path) == 0)
                        return true;
        }
        return false;
}

/* Another directory just below `top`. */
static bool was_sibling_touched(const struct ring *ring, const char *top, const char *path,
                                uint64_t now_ns)
{
        for (unsigned i = 0; i < TOUCHES; i++) {
                const struct touch *t = &ring->all[i];

                if (t->path && t->at_ns + NEAR_NS > now_ns && levels_below(t->path, top) == 1 &&
                    strcmp(t->path, path) != 0)
                        return true;
        }
        return false;
}

void refresh_note_read(struct refresh *r, const char *path)
{
        mutex_lock(&r->lock);
        note(&r->read, path, clock_mono_ns());
        mutex_unlock(&r->lock);
}

/* ---- which tree is worth it ---- */

static bool was_worth(struct cached *c, const struct refresh *r, uint16_t batch) REQUIRES(r->lock)
{
        const struct record *x = &r->records[batch];
        uint64_t used;

        if (x->took_ns > c->config.attr_ttl_ns / 2 && x->took_ns > 100 * NS_PER_MS)
                return false;
        used = meta_batch_used(c->meta, batch);
        return x->count <= SMALL_TREE || used >= x->count / WORTH_PART ||
               used * r->ask_ns >= WORTH_TIMES * x->took_ns;
}

/* To ask one by one has cost more since then. */
static bool is_missed(const struct record *x)
{
        return x->missed >= MISSED_MIN && x->missed_ns >= WORTH_TIMES * x->took_ns;
}

static bool may_list_tree(struct cached *c, const struct refresh *r, const char *path,
                          const char *into, uint64_t now_ns) REQUIRES(r->lock)
{
        const struct record *latest = NULL;

        for (unsigned i = 0; i < META_BATCHES; i++) {
                const struct record *x = &r->records[i];

                if (x->path && x->is_tree && strcmp(x->path, path) == 0 &&
                    is_equal(x->into, into) && (!latest || x->at_ns > latest->at_ns))
                        latest = x;
        }
        if (!latest || latest->at_ns + SHUNNED_NS <= now_ns)
                return true;
        /* What it has just brought wasn't it: it was cut off, or some names were passed over. */
        if (latest->at_ns + c->config.attr_ttl_ns > now_ns)
                return false;
        return was_worth(c, r, (uint16_t)(latest - r->records)) || is_missed(latest);
}

/* ---- plans ---- */

static int set_plan(struct plan *p, const char *path, unsigned depth, size_t max)
{
        p->is_tree = depth > 1;
        p->depth = depth;
        p->max = max;
        p->path = strdup(path);
        return p->path ? 0 : -ENOMEM;
}

static int plan_tree(struct plan *p, const char *path)
{
        return set_plan(p, path, REFRESH_DEPTH, REFRESH_TREE_MAX);
}

static int plan_into(struct plan *p, const char *path, const char *into)
{
        p->into = strdup(into);
        return p->into ? set_plan(p, path, REFRESH_DEPTH, REFRESH_FIRST_MAX) : -ENOMEM;
}

static bool is_dull(const char *path)
{
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

        for (size_t i = 0; dull_names[i]; i++) {
                if (strcmp(dull_names[i], name) == 0)
                        return true;
        }
        return false;
}

/* The tree that `dir` came with last time, if that is to be asked for again. */
static const struct record *tree_of(struct cached *c, const struct refresh *r,
                                    const struct meta_dir *info, const char *dir) REQUIRES(r->lock)
{
        const struct record *x = &r->records[info->batch];

        if (info->batch == 0 || !x->path || !x->is_tree || levels_below(dir, x->path) < 0 ||
            !was_worth(c, r, info->batch))
                return NULL;
        return x;
}

/* One file of a large directory where nothing else was asked for lately. */
static bool is_lone(struct cached *c, const struct refresh *r, const struct meta_dir *info,
                    const char *dir, uint64_t now_ns) REQUIRES(r->lock)
{
        if (info->is_huge)
                return true;
        return info->is_listed && info->count > LARGE_DIR &&
               meta_batch_used(c->meta, info->batch) < info->count / WORTH_PART &&
               !was_touched(&r->asked, dir, now_ns);
}

/* A walk goes through what is below `top`: its whole tree is wanted. */
static bool is_walked(struct cached *c, const struct refresh *r, const char *top, const char *dir,
                      enum refresh_want want, uint64_t now_ns) REQUIRES(r->lock)
{
        if (dir[0] == '\0' || is_dull(dir))
                return false; /* its tree would not go into it */
        return (was_sibling_touched(&r->asked, top, dir, now_ns) ||
                (want == REFRESH_NAMES && was_touched(&r->read, top, now_ns))) &&
               may_list_tree(c, r, top, NULL, now_ns);
}

/* The tree at a first look above was cut off: what is here would be, too. */
static bool is_below_large(const struct refresh *r, const char *dir, uint64_t now_ns)
        REQUIRES(r->lock)
{
        for (unsigned i = 0; i < META_BATCHES; i++) {
                const struct record *x = &r->records[i];

                if (x->path && x->into && x->count >= REFRESH_FIRST_MAX &&
                    x->at_ns + SHUNNED_NS > now_ns && is_into(x->path, x->into, dir))
                        return true;
        }
        return false;
}

/* Of one thing in a directory of which nothing was asked yet. */
static int plan_first(struct cached *c, const struct refresh *r, const char *path, const char *dir,
                      uint64_t now_ns, struct plan *p) REQUIRES(r->lock)
{
        const char *name = path + strlen(dir) + (dir[0] != '\0');

        return !is_below_large(r, dir, now_ns) && may_list_tree(c, r, dir, name, now_ns)
                       ? plan_into(p, dir, name)
                       : set_plan(p, dir, 1, REFRESH_DIR_MAX);
}

static int plan_wide(struct cached *c, struct refresh *r, const char *path, const char *dir,
                     enum refresh_want want, struct plan *p) REQUIRES(r->lock)
{
        uint64_t now_ns = clock_mono_ns();
        _cleanup_(freep) char *top = above(dir);
        const struct record *tree = NULL;
        struct meta_dir info = {0};

        if (!top)
                return -ENOMEM;
        if (meta_get_dir(c->meta, dir, &info))
                tree = tree_of(c, r, &info, dir);
        if (tree)
                return tree->into ? plan_into(p, tree->path, tree->into) : plan_tree(p, tree->path);
        if (is_walked(c, r, top, dir, want, now_ns))
                return plan_tree(p, top);
        if (want == REFRESH_NAMES) {
                if (dir[0] != '\0' && may_list_tree(c, r, dir, NULL, now_ns))
                        return plan_tree(p, dir);
                return set_plan(p, dir, 1, 0);
        }
        if (is_lone(c, r, &info, dir, now_ns))
                return set_plan(p, path, 0, 0);
        return info.is_listed ? set_plan(p, dir, 1, REFRESH_DIR_MAX)
                              : plan_first(c, r, path, dir, now_ns, p);
}

static int make_plan(struct cached *c, struct refresh *r, const char *path, enum refresh_want want,
                     bool is_narrow, struct plan *p) REQUIRES(r->lock)
{
        _cleanup_(freep) char *dir = want == REFRESH_NAMES ? strdup(path) : above(path);
        int result;

        if (!dir)
                return -ENOMEM;
        if (want == REFRESH_ATTRS && path[0] == '\0')
                return r->names_base && !is_narrow ? set_plan(p, path, 1, REFRESH_DIR_MAX)
                                                   : set_plan(p, path, 0, 0);
        if (is_narrow)
                result = set_plan(p, path, want == REFRESH_NAMES ? 1 : 0, 0);
        else
                result = plan_wide(c, r, path, dir, want, p);
        note(&r->asked, dir, clock_mono_ns());
        if (p->into)
                note(&r->asked, path, clock_mono_ns());
        return result;
}

/* ---- flights ---- */

/* Whether what this flight brings is what is wanted. */
static bool covers(const struct flight *f, const char *path, enum refresh_want want)
{
        int levels = levels_below(path, f->path);

        if (levels < 0 ||
            (f->into && levels > (want == REFRESH_ATTRS) && !is_into(f->path, f->into, path)))
                return false;
        if (want == REFRESH_ATTRS)
                return f->depth == 0 ? levels == 0 : levels > 0 && (unsigned)levels <= f->depth;
        return (unsigned)levels < f->depth;
}

static struct flight *find_flight(struct cached *c, const struct refresh *r, const char *path,
                                  enum refresh_want want, uint64_t begin_ns, bool is_narrow)
        REQUIRES(r->lock)
{
        uint64_t epoch = volume_epoch(&c->v);

        list_for_each (pos, &r->flights) {
                struct flight *f = list_entry(pos, struct flight, of_all);

                if (f->epoch == epoch && f->sent_ns + c->config.attr_ttl_ns >= begin_ns &&
                    covers(f, path, want) && (!is_narrow || f->depth <= 1))
                        return f;
        }
        return NULL;
}

static void unref_flight(struct flight *f)
{
        if (--f->refs == 0) {
                free(f->path);
                free(f->into);
                free(f);
        }
}

/* What one caller's own limits ended says nothing to the others; neither does a place. */
static bool concerns_all(int r)
{
        return r == -EHOSTUNREACH || r == -EHOSTDOWN || r == -ENODEV || r == -EPROTO ||
               r == -ESTALE || r == -EIO;
}

static int wait_for(struct refresh *r, struct call *call, struct flight *f) REQUIRES(r->lock)
{
        uint64_t ticks = f->ticks;
        int result = 0;

        f->refs++;
        while (!f->is_done && f->ticks == ticks && result == 0) {
                uint64_t until_ns = clock_after(WAIT_NS);

                if (until_ns > call->deadline_ns)
                        until_ns = call->deadline_ns;
                (void)cond_wait_until(&r->news, &r->lock, until_ns);
                result = f->is_done ? 0 : call_check(call);
        }
        if (f->is_done && concerns_all(f->result))
                result = call_fail(call, f->result, "list files: %s", strerrordesc_np(-f->result));
        unref_flight(f);
        return result < 0 ? result : 1;
}

static int add_flight(struct cached *c, struct refresh *r, const struct plan *p,
                      struct meta_source *ret_source, struct flight **ret) REQUIRES(r->lock)
{
        struct flight *f = calloc(1, sizeof(*f));
        struct record *x;

        if (!f)
                return -ENOMEM;
        f->refs = 1;
        f->path = strdup(p->path);
        f->into = copy(p->into);
        if (!f->path || (p->into && !f->into)) {
                unref_flight(f);
                return -ENOMEM;
        }
        r->batch = (uint16_t)(r->batch + 1) % META_BATCHES;
        if (r->batch == 0)
                r->batch = 1; /* 0 is what no listing brought */
        x = &r->records[r->batch];
        free(x->path);
        free(x->into);
        *x = (struct record){0};
        meta_batch_begin(c->meta, r->batch);
        ret_source->batch = r->batch;
        f->depth = p->depth;
        f->sent_ns = ret_source->sent_ns;
        f->epoch = ret_source->epoch;
        list_add_tail(&r->flights, &f->of_all);
        *ret = f;
        return 0;
}

/* One file or directory: what it took counts against the trees that it is in. */
static void note_ask(struct refresh *r, const char *path, uint64_t took_ns) REQUIRES(r->lock)
{
        r->ask_ns = r->ask_ns == 0 ? took_ns : r->ask_ns - r->ask_ns / 8 + took_ns / 8;
        for (unsigned i = 0; i < META_BATCHES; i++) {
                struct record *x = &r->records[i];

                if (!x->path || !x->is_tree || levels_below(path, x->path) < 0)
                        continue;
                x->missed++;
                x->missed_ns += took_ns;
        }
}

static void end_flight(struct refresh *r, const struct plan *p, struct flight *f, uint16_t batch,
                       size_t count, int result) REQUIRES(r->lock)
{
        struct record *x = &r->records[batch];
        uint64_t now_ns = clock_mono_ns(), took_ns = f->begin_ns > 0 ? now_ns - f->begin_ns : 0;

        if (result == 0 && took_ns > 0 && p->depth <= 1)
                note_ask(r, p->path, took_ns);
        if (result == 0 && p->depth > 0 && !x->path) {
                *x = (struct record){.path = strdup(p->path),
                                     .into = copy(p->into),
                                     .is_tree = p->is_tree,
                                     .count = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX,
                                     .at_ns = now_ns,
                                     .took_ns = took_ns};
        }
        f->is_done = true;
        f->result = result;
        list_remove(&f->of_all);
        cond_broadcast(&r->news);
        unref_flight(f);
}

/* ---- listing ---- */

struct listing {
        struct file_list_sink head; /* first */
        struct meta_listing to;
        struct refresh *r;
        struct flight *f;
        const char *into;
        size_t into_count; /* entries just below it */
        uint64_t ticked_ns;
        bool has_base, is_base_listed, is_into_listed;
};

static int on_entry(struct file_list_sink *to, const char *path, const struct stat *st,
                    const char *target)
{
        struct listing *l = (struct listing *)(void *)to; /* its head */

        l->has_base |= path[0] == '\0';
        l->into_count += l->into && levels_below(path, l->into) == 1;
        return meta_listing_entry(&l->to, path, st, target);
}

static int on_listed(struct file_list_sink *to, const char *path)
{
        struct listing *l = (struct listing *)(void *)to; /* its head */
        uint64_t now_ns = clock_mono_ns();
        int r = meta_listing_dir(&l->to, path);

        l->is_base_listed |= path[0] == '\0';
        l->is_into_listed |= l->into && strcmp(path, l->into) == 0;
        if (r == 0 && l->ticked_ns + TICK_NS <= now_ns) {
                l->ticked_ns = now_ns;
                mutex_lock(&l->r->lock);
                l->f->ticks++;
                cond_broadcast(&l->r->news);
                mutex_unlock(&l->r->lock);
        }
        return r;
}

static int list(struct cached *c, struct box *box, struct call *call, const struct plan *p,
                const struct meta_source *source, struct flight *f, size_t *ret_count)
{
        struct file_listing what = {.path = p->path,
                                    .depth = p->depth,
                                    .entries_max = p->max,
                                    .skip = p->is_tree ? dull_names : NULL,
                                    .into = p->into};
        struct listing l = {.head = {.entry = on_entry, .listed = on_listed},
                            .r = c->refresh,
                            .f = f,
                            .into = p->into};
        int r = meta_listing_begin(c->meta, p->path, source, &l.to);

        if (r < 0)
                return r;
        r = box_list(box, call, &what, &l.head);
        if (r == 0 && !l.is_base_listed && p->max != 0 && (!p->is_tree || p->into))
                meta_listing_cut(&l.to, "");
        if (r == 0 && p->into && !l.is_into_listed && l.into_count >= p->max / 2)
                meta_listing_cut(&l.to, p->into);
        if (l.has_base) {
                mutex_lock(&c->refresh->lock);
                c->refresh->names_base = true;
                mutex_unlock(&c->refresh->lock);
        }
        *ret_count = l.to.count;
        meta_listing_done(&l.to);
        return r > 0 ? -EIO : r;
}

static int stat_one(struct cached *c, struct box *box, struct call *call, const char *path,
                    const struct meta_source *source)
{
        struct stat st;
        int r = box_stat(box, call, path, &st);

        return r == 0 ? meta_put(c->meta, path, source, &st, NULL) : r;
}

/* Errors of this place, not of the way to it. */
static bool is_of_place(int r)
{
        return r == -ENOENT || r == -ENOTDIR || r == -EACCES || r == -EPERM || r == -ELOOP ||
               r == -ENAMETOOLONG;
}

/*
 * Once, and again where the connection was lost under way. What fails at once is a breaker's word,
 * or nobody listens there.
 */
static int ask_there(struct cached *c, struct box *box, struct call *call, const struct plan *p,
                     struct meta_source *source, struct flight *f, size_t *ret_count)
{
        int r = 0;

        for (unsigned tries = 1; tries <= TRIES; tries++) {
                uint64_t begin_ns = clock_mono_ns();

                *ret_count = 0;
                r = p->depth == 0 ? stat_one(c, box, call, p->path, source)
                                  : list(c, box, call, p, source, f, ret_count);
                if (r != -EHOSTUNREACH || clock_mono_ns() - begin_ns < AT_ONCE_NS ||
                    call_check(call) < 0)
                        break;
                if (tries < TRIES)
                        call->sentence[0] = '\0';
        }
        return r;
}

static int carry_out(struct cached *c, struct call *call, const struct plan *p,
                     struct meta_source *source, struct flight *f, size_t *ret_count)
{
        struct box *box;
        int r = cached_enter(c, call, p->path, &box);

        if (r < 0)
                return r;
        source->sent_ns = f->sent_ns;
        f->begin_ns = clock_mono_ns();
        r = ask_there(c, box, call, p, source, f, ret_count);
        cached_leave(c, box);
        if (r == -ENOENT && p->path[0] != '\0') {
                meta_put_absent(c->meta, p->path, source);
                return 0;
        }
        return r;
}

int refresh_ask(struct cached *c, struct call *call, const char *path, enum refresh_want want,
                uint64_t begin_ns, bool is_narrow)
{
        struct refresh *r = c->refresh;
        struct meta_source source;
        struct plan p = {0};
        struct flight *f;
        size_t count = 0;
        bool is_for_this;
        int result;

        refresh_source(c, &source);
        mutex_lock(&r->lock);
        f = find_flight(c, r, path, want, begin_ns, is_narrow);
        if (f) {
                result = wait_for(r, call, f);
                mutex_unlock(&r->lock);
                return result;
        }
        result = make_plan(c, r, path, want, is_narrow, &p);
        if (result == 0)
                result = add_flight(c, r, &p, &source, &f);
        mutex_unlock(&r->lock);
        if (result < 0) {
                plan_done(&p);
                return result;
        }
        result = carry_out(c, call, &p, &source, f, &count);
        mutex_lock(&r->lock);
        end_flight(r, &p, f, source.batch, count, result);
        mutex_unlock(&r->lock);
        is_for_this =
                is_narrow || (want == REFRESH_NAMES && strcmp(p.path, path) == 0 && !p.is_tree);
        if (is_of_place(result) && !is_for_this)
                result = 0; /* then it is asked for by itself */
        plan_done(&p);
        return result;
}

/* ---- birth ---- */

int refresh_new(struct refresh **ret)
{
        struct refresh *r = calloc(1, sizeof(*r));

        if (!r)
                return -ENOMEM;
        mutex_init(&r->lock);
        cond_init(&r->news);
        mutex_lock(&r->lock);
        list_init(&r->flights);
        mutex_unlock(&r->lock);
        *ret = r;
        return 0;
}

static void free_ring(struct ring *ring)
{
        for (unsigned i = 0; i < TOUCHES; i++)
                free(ring->all[i].path);
}

void refresh_free(struct refresh *r)
{
        if (!r)
                return;
        mutex_lock(&r->lock);
        free_ring(&r->asked);
        free_ring(&r->read);
        for (unsigned i = 0; i < META_BATCHES; i++) {
                free(r->records[i].path);
                free(r->records[i].into);
        }
        mutex_unlock(&r->lock);
        cond_done(&r->news);
        mutex_done(&r->lock);
        free(r);
}
