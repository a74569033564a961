/* SPDX-License-Identifier: Apache-2.0 */

#include "fs/volume/journal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/dirty.h"
#include "fs/volume/journal_log.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"

#define IDLE_NS (50 * NS_PER_MS) /* after the last change: then people may look */
#define AGE_NS (250 * NS_PER_MS) /* the oldest one waits no longer */
#define RUN_MIN 512 /* so many are sent at once */
#define FULL 8192
#define ROOM_NS NS_PER_S /* how long one change waits for others to be sent */
#define WAIT_NS (100 * NS_PER_MS) /* between looks at a call's cancel flag */
#define PROGRESS_NS (10 * NS_PER_S) /* a waiter's deadline, from the latest answer on */
#define RETRY_MIN_NS NS_PER_S
#define RETRY_DOUBLINGS 6
#define NEW_MAX 2 /* changes that one change becomes */

struct journal {
        /* fixed after init */
        struct journal_hooks hooks;
        void (*on_news)(void *arg, bool at_once);
        void *news_arg;

        int dir; /* borrowed */
        struct mutex lock;
        struct cond changed;
        struct journal_log *log GUARDED_BY(lock);
        struct list all GUARDED_BY(lock), refused GUARDED_BY(lock); /* struct waiting, in order */
        uint64_t seq GUARDED_BY(lock); /* the latest */
        uint64_t count GUARDED_BY(lock), names GUARDED_BY(lock); /* of all; without content */
        uint64_t refusals GUARDED_BY(lock);
        uint64_t first_ns GUARDED_BY(lock), last_ns GUARDED_BY(lock); /* when they were added */
        unsigned waiters GUARDED_BY(lock);
        unsigned failures GUARDED_BY(lock); /* in a row, for the back-off */
        uint64_t failed GUARDED_BY(lock); /* attempts, ever */
        uint64_t moved GUARDED_BY(lock); /* changes that were answered, and bytes taken; counts */
        uint64_t retry_ns GUARDED_BY(lock); /* not before; 0 */
        int error GUARDED_BY(lock); /* of the last that failed */
};

/* What journal_add has found out, before anything is done. */
struct plan {
        struct waiting *news[NEW_MAX];
        size_t count;
        bool is_there_then; /* the sandbox has a file of its name afterwards: hooks.set_there */
};

/* ---- paths ---- */

static uint32_t hash_of(const char *path)
{
        uint32_t h = UINT32_C(2166136261);

        for (; *path; path++)
                h = (h ^ (unsigned char)*path) * UINT32_C(16777619);
        return h;
}

/* `path` is `dir`, or below it. */
static bool is_at_or_below(const char *path, const char *dir)
{
        size_t n = strlen(dir);

        return n == 0 || (strncmp(path, dir, n) == 0 && (path[n] == '/' || !path[n]));
}

static bool is_related(const char *a, const char *b)
{
        return a && b && (is_at_or_below(a, b) || is_at_or_below(b, a));
}

static bool concerns(const struct waiting *w, const char *path)
{
        return is_related(w->path, path) || is_related(w->to, path);
}

static bool is_at(const struct waiting *w, const char *path, uint32_t hash)
{
        return w->hash == hash && strcmp(w->path, path) == 0;
}

static struct waiting *waiting_at(struct list *l)
{
        return list_entry(l, struct waiting, of_all);
}

/* ---- what a change takes out ---- */

/* A victim is marked by an error while the plan is made; all of it under one hold of the lock. */
#define VICTIM 1

static bool is_victim(const struct waiting *w)
{
        return w->error == VICTIM;
}

static struct waiting *queued_of(struct journal *j, struct content *x) REQUIRES(j->lock)
{
        return x ? *j->hooks.slot(x) : NULL;
}

/* It may have reached the sandbox. */
static bool is_in_flight(struct journal *j, const struct content *x, const char *path)
        REQUIRES(j->lock)
{
        uint32_t hash = hash_of(path);

        list_for_each (l, &j->all) {
                const struct waiting *w = waiting_at(l);

                if (!w->is_sending && !w->may_be_done)
                        continue;
                if ((x && w->x == x) || is_at(w, path, hash) || (w->to && strcmp(w->to, path) == 0))
                        return true;
        }
        return false;
}

static bool is_of_one_file(const struct waiting *w)
{
        return w->kind == CHANGE_STORE || w->kind == CHANGE_SYMLINK || w->kind == CHANGE_SET;
}

/*
 * Those that made or changed the file at `path`, back to where the path led elsewhere. True: one of
 * them made it, where there was nothing.
 */
static bool mark_file(struct journal *j, const char *path) REQUIRES(j->lock)
{
        uint32_t hash = hash_of(path);
        bool is_made = false;

        list_for_each_reverse(l, &j->all)
        {
                struct waiting *w = waiting_at(l);

                if (w->is_sending || (w->kind == CHANGE_RENAME && concerns(w, path)))
                        break;
                if (!is_at(w, path, hash))
                        continue;
                if (!is_of_one_file(w))
                        break; /* it was something else before */
                w->error = VICTIM;
                is_made |= w->creates && !w->may_be_done;
        }
        return is_made;
}

static void mark_refused(struct journal *j, const struct content *x, const char *path)
        REQUIRES(j->lock)
{
        list_for_each (l, &j->refused) {
                struct waiting *w = waiting_at(l);

                if ((x && w->x == x) || (path && strcmp(w->path, path) == 0) ||
                    (path && w->to && w->kind == CHANGE_RENAME && strcmp(w->to, path) == 0))
                        w->flags |= UINT32_C(1) << 31;
        }
}

/* ---- plans ---- */

static struct waiting *make(const struct journal_change *x, enum change_kind kind, const char *path,
                            const char *to)
{
        struct waiting *w = calloc(1, sizeof(*w));

        if (!w)
                return NULL;
        *w = (struct waiting){.kind = kind,
                              .path = strdup(path),
                              .to = to ? strdup(to) : NULL,
                              .hash = hash_of(path),
                              .flags = x->flags,
                              .what = x->what,
                              .mode = x->mode,
                              .atime = x->atime,
                              .mtime = x->mtime,
                              .has_links = x->has_links,
                              .is_forced = x->is_forced,
                              .creates = x->creates};
        if (w->path && (!to || w->to))
                return w;
        waiting_free(w);
        return NULL;
}

static int plan_new(struct plan *p, const struct journal_change *x, enum change_kind kind,
                    const char *path, const char *to)
{
        struct waiting *w = make(x, kind, path, to);

        if (!w)
                return -ENOMEM;
        p->news[p->count++] = w;
        return 0;
}

static int plan_store(struct journal *j, const struct journal_change *x, const char *path,
                      struct plan *p) REQUIRES(j->lock)
{
        struct waiting *w;
        int r = plan_new(p, x, CHANGE_STORE, path, NULL);

        if (r < 0 || !x->x)
                return r;
        w = p->news[p->count - 1];
        w->x = x->x;
        w->record = x->record;
        w->changes = x->changes;
        w->creates = j->hooks.is_only_here(x->x);
        w = queued_of(j, x->x);
        if (w && !w->is_sending)
                w->error = VICTIM;
        mark_refused(j, x->x, NULL);
        return 0;
}

static int plan_unlink(struct journal *j, const struct journal_change *x, struct plan *p)
        REQUIRES(j->lock)
{
        struct waiting *own = queued_of(j, x->x);
        bool is_made = false;

        if (x->has_links)
                return plan_new(p, x, CHANGE_UNLINK, x->path, NULL);
        is_made = mark_file(j, x->path);
        if (own && !own->is_sending) {
                own->error = VICTIM;
                is_made |= own->creates;
        }
        if (x->x) /* unless it is on its way */
                is_made |= j->hooks.is_only_here(x->x);
        mark_refused(j, x->x, x->path);
        if (is_made && !is_in_flight(j, x->x, x->path))
                return 0; /* the sandbox never had it */
        return plan_new(p, x, CHANGE_UNLINK, x->path, NULL);
}

static int plan_rmdir(struct journal *j, const struct journal_change *x, struct plan *p)
        REQUIRES(j->lock)
{
        uint32_t hash = hash_of(x->path);
        struct waiting *made = NULL;

        list_for_each_reverse(l, &j->all)
        {
                struct waiting *w = waiting_at(l);

                if (w->is_sending || w->may_be_done ||
                    (w->kind == CHANGE_RENAME && concerns(w, x->path)))
                        break;
                if (is_at(w, x->path, hash) && w->kind == CHANGE_SET)
                        continue;
                if (is_at(w, x->path, hash) && w->kind == CHANGE_MKDIR)
                        made = w;
                if (is_at_or_below(w->path, x->path))
                        break;
        }
        if (!made)
                return plan_new(p, x, CHANGE_RMDIR, x->path, NULL);
        for (struct list *l = &made->of_all; l != &j->all; l = l->next)
                if (is_at(waiting_at(l), x->path, hash))
                        waiting_at(l)->error = VICTIM;
        return 0;
}

/* A file all of whose bytes are ours: it goes to its new name at once, and only there. */
static int plan_rename_whole(struct journal *j, const struct journal_change *x, struct plan *p)
        REQUIRES(j->lock)
{
        struct waiting *own = queued_of(j, x->x);
        bool is_source_there = !j->hooks.is_only_here(x->x);
        bool is_target_there = !(mark_file(j, x->to) || x->creates) || is_in_flight(j, NULL, x->to);
        struct journal_change store = *x;
        int r = 0;

        store.kind = CHANGE_STORE;
        store.flags = 0;
        p->is_there_then = is_target_there;
        if (own) {
                store.record = own->record;
                store.changes = own->changes;
                store.is_forced = own->is_forced;
                r = plan_store(j, &store, x->to, p);
                if (r == 0)
                        p->news[0]->creates = !is_target_there && !is_source_there;
                if (r == 0 && is_source_there)
                        r = plan_new(p, x, CHANGE_UNLINK, x->path, NULL);
        }
        return r;
}

static int plan_rename(struct journal *j, const struct journal_change *x, struct plan *p)
        REQUIRES(j->lock)
{
        struct waiting *own = queued_of(j, x->x);

        if (x->x && !x->has_links && x->is_whole && (own || j->hooks.is_only_here(x->x)) &&
            !is_in_flight(j, x->x, x->path))
                return plan_rename_whole(j, x, p);
        return plan_new(p, x, CHANGE_RENAME, x->path, x->to);
}

/* Added to the one before, if that is about the same. */
static int plan_set(struct journal *j, const struct journal_change *x, struct plan *p)
        REQUIRES(j->lock)
{
        struct waiting *last = list_is_empty(&j->all) ? NULL : waiting_at(j->all.prev), *w;
        int r = plan_new(p, x, CHANGE_SET, x->path, NULL);

        if (r < 0 || !last || last->is_sending || last->kind != CHANGE_SET ||
            strcmp(last->path, x->path) != 0)
                return r;
        w = p->news[0];
        if ((w->what & FILE_SET_MODE) == 0)
                w->mode = last->mode;
        if ((w->what & FILE_SET_ATIME) == 0)
                w->atime = last->atime;
        if ((w->what & FILE_SET_MTIME) == 0)
                w->mtime = last->mtime;
        w->what |= last->what;
        last->error = VICTIM;
        return 0;
}

static int make_plan(struct journal *j, const struct journal_change *x, struct plan *p)
        REQUIRES(j->lock)
{
        switch (x->kind) {
        case CHANGE_STORE: return plan_store(j, x, x->path, p);
        case CHANGE_UNLINK: return plan_unlink(j, x, p);
        case CHANGE_RMDIR: return plan_rmdir(j, x, p);
        case CHANGE_RENAME: return plan_rename(j, x, p);
        case CHANGE_SET: return plan_set(j, x, p);
        case CHANGE_MKDIR: return plan_new(p, x, CHANGE_MKDIR, x->path, NULL);
        case CHANGE_SYMLINK: return plan_new(p, x, CHANGE_SYMLINK, x->path, x->to);
        case CHANGE_WRITE:
        case CHANGE_LINK: break;
        }
        return -EINVAL;
}

/* ---- carrying a plan out ---- */

static bool is_refused_victim(const struct waiting *w)
{
        return (w->flags & (UINT32_C(1) << 31)) != 0;
}

static void leave_queue(struct journal *j, struct waiting *w) REQUIRES(j->lock)
{
        list_remove(&w->of_all);
        j->count--;
        j->names -= w->x == NULL;
        if (w->x && *j->hooks.slot(w->x) == w)
                *j->hooks.slot(w->x) = NULL;
}

static void enter_queue(struct journal *j, struct waiting *w) REQUIRES(j->lock)
{
        list_add_tail(&j->all, &w->of_all);
        j->count++;
        j->names += w->x == NULL;
        if (w->x)
                *j->hooks.slot(w->x) = w;
        j->last_ns = clock_mono_ns();
        if (j->count == 1)
                j->first_ns = j->last_ns;
}

/* To be freed without the lock. */
static void free_all(struct journal *j, struct list *dead)
{
        struct list *l;

        while ((l = list_take_first(dead))) {
                struct waiting *w = waiting_at(l);

                if (w->x)
                        j->hooks.unref(w->x);
                waiting_free(w);
        }
}

static void unmark(struct journal *j) REQUIRES(j->lock)
{
        list_for_each (l, &j->all)
                if (is_victim(waiting_at(l)))
                        waiting_at(l)->error = 0;
        list_for_each (l, &j->refused)
                waiting_at(l)->flags &= ~(UINT32_C(1) << 31);
}

static int write_plan(struct journal *j, struct plan *p) REQUIRES(j->lock)
{
        list_for_each (l, &j->all)
                if (is_victim(waiting_at(l)))
                        journal_log_end(j->log, waiting_at(l)->seq);
        list_for_each (l, &j->refused)
                if (is_refused_victim(waiting_at(l)))
                        journal_log_end(j->log, waiting_at(l)->seq);
        for (size_t i = 0; i < p->count; i++) {
                p->news[i]->seq = ++j->seq;
                journal_log_change(j->log, p->news[i]);
        }
        return journal_log_append(j->log);
}

static void take_out(struct journal *j, struct list *dead) REQUIRES(j->lock)
{
        list_for_each_safe (l, next, &j->all) {
                if (!is_victim(waiting_at(l)))
                        continue;
                leave_queue(j, waiting_at(l));
                list_add_tail(dead, l);
        }
        list_for_each_safe (l, next, &j->refused) {
                if (!is_refused_victim(waiting_at(l)))
                        continue;
                list_remove(l);
                j->refusals--;
                list_add_tail(dead, l);
        }
}

static void tell(struct journal *j, bool at_once)
{
        if (j->on_news)
                j->on_news(j->news_arg, at_once);
}

int journal_add(struct journal *j, const struct journal_change *x)
{
        struct list dead;
        struct plan p = {0};
        bool at_once;
        int r;

        list_init(&dead);
        mutex_lock(&j->lock);
        r = make_plan(j, x, &p);
        if (r == 0)
                r = write_plan(j, &p);
        if (r == 0) {
                if (x->gone != 0) /* before the log may be emptied: it must not be found again */
                        dirty_remove(j->dir, x->gone);
                take_out(j, &dead);
                for (size_t i = 0; i < p.count; i++) {
                        if (p.news[i]->x)
                                j->hooks.ref(p.news[i]->x);
                        enter_queue(j, p.news[i]);
                }
                if (p.is_there_then && x->x)
                        j->hooks.set_there(x->x);
        } else {
                unmark(j);
        }
        at_once = j->count >= RUN_MIN;
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
        for (size_t i = 0; r < 0 && i < p.count; i++) {
                p.news[i]->x = NULL; /* borrowed so far */
                waiting_free(p.news[i]);
        }
        free_all(j, &dead);
        if (r == 0)
                tell(j, at_once);
        return r;
}

uint64_t journal_seq(struct journal *j)
{
        uint64_t seq;

        mutex_lock(&j->lock);
        seq = j->seq;
        mutex_unlock(&j->lock);
        return seq;
}

bool journal_has(struct journal *j, const struct journal_change *x)
{
        struct waiting *w;
        bool has;

        mutex_lock(&j->lock);
        w = queued_of(j, x->x);
        has = w && !w->is_sending && w->changes == x->changes && w->record == x->record;
        if (has)
                w->is_forced |= x->is_forced;
        mutex_unlock(&j->lock);
        return has;
}

void journal_forget(struct journal *j, struct content *x)
{
        struct waiting *w;
        struct list dead;

        list_init(&dead);
        mutex_lock(&j->lock);
        w = queued_of(j, x);
        if (w && !w->is_sending)
                w->error = VICTIM;
        mark_refused(j, x, NULL);
        (void)write_plan(j, &(struct plan){0}); /* else it is found to have nothing to send */
        take_out(j, &dead);
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
        free_all(j, &dead);
}

/* ---- waiting ---- */

static bool is_settled(struct journal *j, const char *path) REQUIRES(j->lock)
{
        if (!path || !path[0])
                return j->count == 0;
        list_for_each (l, &j->all)
                if (waiting_at(l)->has_links || concerns(waiting_at(l), path))
                        return false;
        return true;
}

bool journal_is_settled(struct journal *j, const char *path)
{
        bool is;

        mutex_lock(&j->lock);
        is = is_settled(j, path);
        mutex_unlock(&j->lock);
        return is;
}

/* The latest change that waits about this path; 0: none. */
static uint64_t latest(struct journal *j, const char *path) REQUIRES(j->lock)
{
        list_for_each_reverse(l, &j->all) if (!path || !path[0] || waiting_at(l)->has_links ||
                                              concerns(waiting_at(l), path)) return waiting_at(l)
                ->seq;
        return 0;
}

static bool has_older(struct journal *j, uint64_t seq) REQUIRES(j->lock)
{
        return !list_is_empty(&j->all) && waiting_at(j->all.next)->seq <= seq;
}

static void wait_a_little(struct journal *j, const struct call *call) REQUIRES(j->lock)
{
        uint64_t until_ns = clock_after(WAIT_NS);

        (void)cond_wait_until(&j->changed, &j->lock,
                              until_ns < call->deadline_ns ? until_ns : call->deadline_ns);
}

/* As long as it goes on, who waits for it does. */
static void go_on(struct journal *j, struct call *call, uint64_t *moved) REQUIRES(j->lock)
{
        uint64_t until_ns = clock_after(PROGRESS_NS);

        if (*moved != j->moved && call->deadline_ns < until_ns)
                call->deadline_ns = until_ns;
        *moved = j->moved;
}

int journal_settle(struct journal *j, struct call *call, const char *path)
{
        uint64_t seq, failed, moved;
        int r = 0;

        mutex_lock(&j->lock);
        seq = latest(j, path);
        if (!has_older(j, seq) || !call) {
                r = has_older(j, seq) ? -EINPROGRESS : 0;
                mutex_unlock(&j->lock);
                return r;
        }
        failed = j->failed;
        moved = j->moved;
        j->retry_ns = 0;
        j->waiters++;
        mutex_unlock(&j->lock);
        tell(j, true);
        mutex_lock(&j->lock);
        while (r == 0 && has_older(j, seq)) {
                wait_a_little(j, call);
                go_on(j, call, &moved);
                r = call_check(call);
                if (r == 0 && j->failed != failed && has_older(j, seq))
                        r = call_fail(call, j->error, "changes that wait to be sent: %s",
                                      strerrordesc_np(-j->error));
        }
        j->waiters--;
        mutex_unlock(&j->lock);
        return r;
}

bool journal_is_full(struct journal *j)
{
        bool is;

        mutex_lock(&j->lock);
        is = j->count > FULL;
        mutex_unlock(&j->lock);
        return is;
}

void journal_make_room(struct journal *j, struct call *call)
{
        uint64_t until_ns = clock_after(ROOM_NS);

        mutex_lock(&j->lock);
        while (j->count > FULL && clock_mono_ns() < until_ns && call_check(call) == 0)
                wait_a_little(j, call);
        mutex_unlock(&j->lock);
}

uint64_t journal_count_names(struct journal *j)
{
        uint64_t count;

        mutex_lock(&j->lock);
        count = j->names;
        mutex_unlock(&j->lock);
        return count;
}

/* ---- refused ones ---- */

uint64_t journal_count_refused(struct journal *j)
{
        uint64_t count;

        mutex_lock(&j->lock);
        count = j->refusals;
        mutex_unlock(&j->lock);
        return count;
}

void journal_refused(struct journal *j, struct journal_refused_sink *to)
{
        mutex_lock(&j->lock);
        list_for_each (l, &j->refused) {
                const struct waiting *w = waiting_at(l);

                to->one(to, w->path, w->error, w->sentence ? w->sentence : "");
        }
        mutex_unlock(&j->lock);
}

int journal_take_refusal(struct journal *j, const char *path)
{
        struct content *x = NULL;
        int error = 0;

        mutex_lock(&j->lock);
        list_for_each (l, &j->refused) {
                const struct waiting *w = waiting_at(l);
                const char *at = w->kind == CHANGE_RENAME ? w->to : w->path;

                if (!w->x && strcmp(at, path) == 0)
                        error = w->error;
        }
        mutex_unlock(&j->lock);
        if (error < 0)
                (void)journal_discard(j, path, &x);
        if (x)
                j->hooks.unref(x);
        return error;
}

int journal_retry(struct journal *j)
{
        struct list *l;
        int r;

        mutex_lock(&j->lock);
        list_for_each (pos, &j->refused) {
                struct waiting *w = waiting_at(pos);

                journal_log_end(j->log, w->seq);
                w->seq = ++j->seq;
                journal_log_change(j->log, w);
        }
        r = journal_log_append(j->log);
        while (r == 0 && (l = list_take_first(&j->refused))) {
                waiting_at(l)->error = 0;
                j->refusals--;
                enter_queue(j, waiting_at(l));
        }
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
        tell(j, true);
        return r;
}

int journal_discard(struct journal *j, const char *path, struct content **ret)
{
        struct content *x = NULL;
        struct list dead;
        bool is_any;

        list_init(&dead);
        mutex_lock(&j->lock);
        mark_refused(j, NULL, path);
        (void)write_plan(j, &(struct plan){0}); /* else it is there again after a restart */
        take_out(j, &dead);
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
        is_any = !list_is_empty(&dead);
        list_for_each (l, &dead)
                if (waiting_at(l)->x && !x)
                        x = j->hooks.ref(waiting_at(l)->x);
        free_all(j, &dead);
        if (is_any)
                *ret = x;
        return is_any ? 0 : -ENOENT;
}

/* ---- for the sender ---- */

void journal_on_news(struct journal *j, void (*fn)(void *arg, bool at_once), void *arg)
{
        j->on_news = fn;
        j->news_arg = arg;
}

uint64_t journal_due_ns(struct journal *j)
{
        uint64_t due_ns = 0;

        mutex_lock(&j->lock);
        if (j->count > 0) {
                due_ns = j->last_ns + IDLE_NS;
                if (due_ns > j->first_ns + AGE_NS)
                        due_ns = j->first_ns + AGE_NS;
                if (j->count >= RUN_MIN || j->waiters > 0)
                        due_ns = 1;
                if (due_ns < j->retry_ns)
                        due_ns = j->retry_ns;
        }
        mutex_unlock(&j->lock);
        return due_ns;
}

/* Whether it may not be in one run with those before. */
static bool is_apart(struct waiting **run, size_t count, size_t renames, const struct waiting *w)
{
        for (size_t i = 0; i < count && (renames > 0 || w->kind == CHANGE_RENAME); i++)
                if ((w->kind == CHANGE_RENAME || run[i]->kind == CHANGE_RENAME) &&
                    (concerns(run[i], w->path) || (w->to && concerns(run[i], w->to))))
                        return true;
        return false;
}

size_t journal_take(struct journal *j, size_t max, struct waiting **ret)
{
        size_t count = 0, renames = 0;

        mutex_lock(&j->lock);
        list_for_each (l, &j->all) {
                struct waiting *w = waiting_at(l);

                if (count == max || is_apart(ret, count, renames, w))
                        break;
                w->is_sending = true;
                renames += w->kind == CHANGE_RENAME;
                ret[count++] = w;
        }
        mutex_unlock(&j->lock);
        return count;
}

void journal_give_back(struct journal *j, struct waiting *const *all, size_t count)
{
        mutex_lock(&j->lock);
        for (size_t i = 0; i < count; i++)
                all[i]->is_sending = false;
        mutex_unlock(&j->lock);
}

void journal_note_progress(struct journal *j)
{
        mutex_lock(&j->lock);
        j->moved++;
        mutex_unlock(&j->lock);
}

static char *copy_sentence(const char *sentence, int error)
{
        return strdup(sentence && sentence[0] ? sentence : strerrordesc_np(-error));
}

void journal_note_answers(struct journal *j, struct waiting *const *all, const int *errors,
                          size_t count, const char *sentence)
{
        mutex_lock(&j->lock);
        for (size_t i = 0; i < count; i++) {
                struct waiting *w = all[i];

                j->moved += errors[i] != -EINPROGRESS;
                if (errors[i] == 0)
                        journal_log_end(j->log, w->seq);
                if (errors[i] == 0 || errors[i] == -EINPROGRESS)
                        continue;
                w->error = errors[i];
                free(w->sentence);
                w->sentence = copy_sentence(sentence, errors[i]);
                journal_log_refusal(j->log, w);
        }
        if (journal_log_append(j->log) < 0)
                log_warning("what was sent could not be noted, it would be sent again");
        mutex_unlock(&j->lock);
}

void journal_answered(struct journal *j, struct waiting *w, int error)
{
        struct list dead;

        list_init(&dead);
        mutex_lock(&j->lock);
        w->is_sending = false;
        if (error == -EINPROGRESS) {
                w->may_be_done = true;
        } else if (error == 0) {
                leave_queue(j, w);
                list_add_tail(&dead, &w->of_all);
        } else {
                leave_queue(j, w);
                list_add_tail(&j->refused, &w->of_all);
                j->refusals++;
        }
        mutex_unlock(&j->lock);
        free_all(j, &dead);
}

static void write_anew(struct journal *j) REQUIRES(j->lock)
{
        int r;

        journal_log_begin_anew(j->log);
        list_for_each (l, &j->refused) {
                journal_log_change(j->log, waiting_at(l));
                journal_log_refusal(j->log, waiting_at(l));
        }
        list_for_each (l, &j->all)
                journal_log_change(j->log, waiting_at(l));
        r = journal_log_end_anew(j->log);
        if (r < 0)
                log_error("the journal was not written anew, it grows: %s", errno_name(r));
}

void journal_run_done(struct journal *j, int error)
{
        mutex_lock(&j->lock);
        if (j->count == 0 && j->refusals == 0)
                journal_log_clear(j->log);
        else if (journal_log_is_long(j->log))
                write_anew(j);
        j->first_ns = clock_mono_ns();
        if (error < 0) {
                j->failed++;
                j->error = error;
                j->retry_ns = clock_after(RETRY_MIN_NS << j->failures);
                if (j->failures < RETRY_DOUBLINGS)
                        j->failures++;
        } else {
                j->failures = 0;
        }
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
}

bool journal_has_links(struct journal *j)
{
        bool has = false;

        mutex_lock(&j->lock);
        list_for_each (l, &j->all)
                has |= waiting_at(l)->has_links;
        mutex_unlock(&j->lock);
        return has;
}

bool journal_is_made_later(struct journal *j, const struct waiting *w)
{
        bool is = false;

        mutex_lock(&j->lock);
        list_for_each (l, &j->all) {
                const struct waiting *later = waiting_at(l);

                if (later->seq <= w->seq)
                        continue;
                is |= later->kind == CHANGE_RENAME && strcmp(later->to, w->path) == 0;
                is |= (later->kind == CHANGE_MKDIR || later->kind == CHANGE_STORE ||
                       later->kind == CHANGE_SYMLINK) &&
                      is_at(later, w->path, w->hash);
        }
        mutex_unlock(&j->lock);
        return is;
}

bool journal_is_overtaken(struct journal *j, const struct waiting *w)
{
        const char *path = w->kind == CHANGE_RENAME ? w->to : w->path;
        bool is = false;

        mutex_lock(&j->lock);
        list_for_each_reverse(l, &j->all)
        {
                const struct waiting *later = waiting_at(l);

                if (later->seq <= w->seq || is)
                        break;
                is = is_at_or_below(path, later->path) ||
                     (later->to && is_at_or_below(path, later->to));
        }
        mutex_unlock(&j->lock);
        return is;
}

/* ---- life ---- */

int journal_new(int dir, const struct journal_hooks *hooks, struct journal **ret)
{
        struct journal *j = calloc(1, sizeof(*j));
        struct journal_log *log;
        int r = j ? journal_log_open(dir, &log) : -ENOMEM;

        if (r < 0) {
                free(j);
                return r;
        }
        j->hooks = *hooks;
        j->dir = dir;
        mutex_init(&j->lock);
        cond_init(&j->changed);
        mutex_lock(&j->lock);
        j->log = log;
        list_init(&j->all);
        list_init(&j->refused);
        mutex_unlock(&j->lock);
        *ret = j;
        return 0;
}

void journal_free(struct journal *j)
{
        if (!j)
                return;
        mutex_lock(&j->lock);
        list_for_each (l, &j->all)
                if (waiting_at(l)->x)
                        *j->hooks.slot(waiting_at(l)->x) = NULL;
        mutex_unlock(&j->lock);
        free_all(j, &j->all);
        free_all(j, &j->refused);
        journal_log_close(j->log);
        cond_done(&j->changed);
        mutex_done(&j->lock);
        free(j);
}

/* ---- of an earlier run ---- */

struct loading {
        struct journal_log_reader head; /* first */
        struct journal *j;
};

static struct waiting *find_seq(struct journal *j, uint64_t seq) REQUIRES(j->lock)
{
        list_for_each (l, &j->all)
                if (waiting_at(l)->seq == seq)
                        return waiting_at(l);
        return NULL;
}

static int load_change(struct journal_log_reader *to, struct waiting *w)
{
        struct journal *j = ((struct loading *)(void *)to)->j; /* its head */

        w->hash = hash_of(w->path);
        if (w->seq > j->seq)
                j->seq = w->seq;
        list_add_tail(&j->all, &w->of_all);
        return 0;
}

/* Called by journal_load, which holds the lock. */
static void load_end(struct journal_log_reader *to, uint64_t seq) NO_THREAD_SAFETY_ANALYSIS
{
        struct journal *j = ((struct loading *)(void *)to)->j; /* its head */
        struct waiting *w = find_seq(j, seq);

        if (!w) {
                list_for_each (l, &j->refused)
                        if (waiting_at(l)->seq == seq)
                                w = waiting_at(l);
        }
        if (w) {
                list_remove(&w->of_all);
                waiting_free(w);
        }
}

static void load_refusal(struct journal_log_reader *to, uint64_t seq, int error,
                         const char *sentence) NO_THREAD_SAFETY_ANALYSIS
{
        struct journal *j = ((struct loading *)(void *)to)->j; /* its head */
        struct waiting *w = find_seq(j, seq);

        if (!w || error >= 0)
                return;
        w->error = error;
        w->sentence = strdup(sentence);
        list_remove(&w->of_all);
        list_add_tail(&j->refused, &w->of_all);
}

int journal_load(struct journal *j)
{
        struct loading loading = {.head = {load_change, load_end, load_refusal}, .j = j};
        int r;

        mutex_lock(&j->lock);
        r = journal_log_read(j->log, &loading.head);
        mutex_unlock(&j->lock);
        return r;
}

/* `path` with `from` in front replaced by `to`; NULL: it isn't there, or no memory. */
static char *moved(const char *path, const char *from, const char *to)
{
        char *ret;

        if (!is_at_or_below(path, from))
                return NULL;
        return asprintf(&ret, "%s%s", to, path + strlen(from)) < 0 ? NULL : ret;
}

char *journal_find_path(struct journal *j, uint64_t record, const char *path, uint64_t seq)
{
        char *now, *next;

        mutex_lock(&j->lock);
        list_for_each (l, &j->all) {
                const struct waiting *w = waiting_at(l);

                if (w->kind == CHANGE_STORE && w->record == record && w->seq > seq) {
                        path = w->path;
                        seq = w->seq;
                }
        }
        now = strdup(path);
        list_for_each (l, &j->all) {
                const struct waiting *w = waiting_at(l);

                if (!now || w->kind != CHANGE_RENAME || w->seq <= seq)
                        continue;
                next = moved(now, w->path, w->to);
                if (next) {
                        free(now);
                        now = next;
                }
        }
        mutex_unlock(&j->lock);
        return now;
}

static void attach(struct list *from, struct journal_restore *to, struct list *dead)
{
        list_for_each_safe (l, next, from) {
                struct waiting *w = waiting_at(l);

                if (w->kind != CHANGE_STORE || w->record == 0)
                        continue;
                w->x = to->find(to, w->record, w->error, &w->changes);
                if (w->x)
                        continue;
                list_remove(l);
                list_add_tail(dead, l);
        }
}

void journal_attach(struct journal *j, struct journal_restore *to)
{
        struct list dead, queue;
        struct list *l;

        list_init(&dead);
        list_init(&queue);
        mutex_lock(&j->lock);
        attach(&j->all, to, &dead);
        attach(&j->refused, to, &dead);
        while ((l = list_take_first(&j->all)))
                list_add_tail(&queue, l);
        while ((l = list_take_first(&queue)))
                enter_queue(j, waiting_at(l));
        list_for_each (pos, &j->refused)
                j->refusals++;
        write_anew(j);
        mutex_unlock(&j->lock);
        free_all(j, &dead);
        tell(j, false);
}

bool journal_any(int dir)
{
        return journal_log_any(dir);
}
