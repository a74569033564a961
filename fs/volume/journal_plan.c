/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a change takes out of the queue, and what goes in instead.
 */

#include "fs/volume/journal_queue.h"

#include <errno.h>
#include <stdlib.h>

#include "transport/base/hash.h"
#include "transport/base/random.h"

#define CHANGES_NONE 0 /* of no content that is written */

static void mark(struct waiting *w, struct journal_plan *p)
{
        p->victims += !w->is_victim;
        w->is_victim = true;
}

/* It may have reached the sandbox. */
static bool is_in_flight(struct journal *j, const struct content *x, const char *path)
        REQUIRES(j->lock)
{
        uint32_t hash = hash32_text(path);

        list_for_each (l, &j->all) {
                const struct waiting *w = waiting_at(l);

                if (!w->is_sending && !w->may_be_done)
                        continue;
                if ((x && w->x == x) || waiting_is_at(w, path, hash) ||
                    (w->to && strcmp(w->to, path) == 0))
                        return true;
        }
        return false;
}

/* A file of this content is being made there. */
static bool is_on_its_way(struct journal *j, const struct content *x) REQUIRES(j->lock)
{
        list_for_each (l, &j->all) {
                const struct waiting *w = waiting_at(l);

                if (w->x == x && w->is_sending && !w->is_skipped)
                        return true;
        }
        return false;
}

/* It was perhaps made, by an earlier run or when the connection was lost. */
static bool may_be_made(struct journal *j, const struct content *x) REQUIRES(j->lock)
{
        list_for_each (l, &j->all)
                if (waiting_at(l)->x == x && waiting_at(l)->may_be_done)
                        return true;
        return false;
}

/* The sandbox has no file of it, nor is one on its way. */
static bool is_nowhere(struct journal *j, struct content *x) REQUIRES(j->lock)
{
        return j->hooks.is_only_here(x) && !is_on_its_way(j, x) && !may_be_made(j, x);
}

static bool is_of_one_file(const struct waiting *w)
{
        return w->kind == CHANGE_STORE || w->kind == CHANGE_SYMLINK || w->kind == CHANGE_SET;
}

/*
 * Those that made or changed the file at `path`, back to where the path led elsewhere. True: one of
 * them made it, where there was nothing.
 */
static bool mark_file(struct journal *j, const char *path, struct journal_plan *p) REQUIRES(j->lock)
{
        uint32_t hash = hash32_text(path);
        bool is_made = false;

        list_for_each_reverse (l, &j->all) {
                struct waiting *w = waiting_at(l);

                if (w->is_sending || (w->kind == CHANGE_RENAME && waiting_concerns(w, path)))
                        break;
                if (!waiting_is_at(w, path, hash))
                        continue;
                if (!is_of_one_file(w))
                        break; /* it was something else before */
                mark(w, p);
                is_made |= w->creates && !w->may_be_done;
        }
        return is_made;
}

void journal_plan_refused(struct journal *j, const struct content *x, const char *path,
                          struct journal_plan *p)
{
        list_for_each (l, &j->refused) {
                struct waiting *w = waiting_at(l);

                if ((x && w->x == x) || (path && strcmp(w->path, path) == 0) ||
                    (path && w->to && w->kind == CHANGE_RENAME && strcmp(w->to, path) == 0))
                        mark(w, p);
        }
}

/* What this change of names or attributes makes pointless of those that were refused. */
static void mark_pointless(struct journal *j, const struct journal_change *x,
                           struct journal_plan *p) REQUIRES(j->lock)
{
        const char *path = x->kind == CHANGE_RENAME ? x->to : x->path;

        if (x->kind != CHANGE_SET) {
                journal_plan_refused(j, NULL, path, p);
                return;
        }
        list_for_each (l, &j->refused)
                if (waiting_at(l)->kind == CHANGE_SET && strcmp(waiting_at(l)->path, path) == 0)
                        mark(waiting_at(l), p);
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
                              .hash = hash32_text(path),
                              .flags = x->flags,
                              .what = x->what,
                              .mode = x->mode,
                              .atime = x->atime,
                              .mtime = x->mtime,
                              .has_links = x->has_links,
                              .is_forced = x->is_forced,
                              .creates = x->creates};
        if ((kind == CHANGE_STORE || kind == CHANGE_MKDIR) &&
            random_bytes(&w->number, sizeof(w->number)) < 0)
                w->number = 0; /* its temporary names are then nobody's */
        if (w->path && (!to || w->to))
                return w;
        waiting_free(w);
        return NULL;
}

static int plan_new(struct journal_plan *p, const struct journal_change *x, enum change_kind kind,
                    const char *path, const char *to)
{
        struct waiting *w = make(x, kind, path, to);

        if (!w)
                return -ENOMEM;
        p->news[p->count++] = w;
        return 0;
}

static int plan_store(struct journal *j, const struct journal_change *x, const char *path,
                      struct journal_plan *p) REQUIRES(j->lock)
{
        struct waiting *w, *own;
        int r = plan_new(p, x, CHANGE_STORE, path, NULL);

        if (r < 0)
                return r;
        w = p->news[p->count - 1];
        if (!x->x) {
                journal_plan_refused(j, NULL, path, p);
                return 0;
        }
        w->x = x->x;
        w->record = x->record;
        w->changes = x->changes;
        w->is_again = x->is_refused;
        w->creates = is_nowhere(j, x->x);
        own = journal_queued(j, x->x);
        if (own && !own->is_sending)
                mark(own, p);
        journal_plan_refused(j, x->x, w->creates ? path : NULL, p);
        return 0;
}

static int plan_unlink(struct journal *j, const struct journal_change *x, struct journal_plan *p)
        REQUIRES(j->lock)
{
        struct waiting *own = journal_queued(j, x->x);
        bool is_made = false;

        if (x->has_links)
                return plan_new(p, x, CHANGE_UNLINK, x->path, NULL);
        is_made = mark_file(j, x->path, p);
        if (own && !own->is_sending) {
                mark(own, p);
                is_made |= own->creates;
        }
        if (x->x) /* unless it is on its way */
                is_made |= j->hooks.is_only_here(x->x);
        journal_plan_refused(j, x->x, x->path, p);
        if (is_made && !is_in_flight(j, x->x, x->path))
                return 0; /* the sandbox never had it */
        return plan_new(p, x, CHANGE_UNLINK, x->path, NULL);
}

static int plan_rmdir(struct journal *j, const struct journal_change *x, struct journal_plan *p)
        REQUIRES(j->lock)
{
        uint32_t hash = hash32_text(x->path);
        struct waiting *made = NULL;

        list_for_each_reverse (l, &j->all) {
                struct waiting *w = waiting_at(l);

                if (w->is_sending || w->may_be_done ||
                    (w->kind == CHANGE_RENAME && waiting_concerns(w, x->path)))
                        break;
                if (waiting_is_at(w, x->path, hash) && w->kind == CHANGE_SET)
                        continue;
                if (waiting_is_at(w, x->path, hash) && w->kind == CHANGE_MKDIR)
                        made = w;
                if (path_is_within(w->path, x->path))
                        break;
        }
        if (!made)
                return plan_new(p, x, CHANGE_RMDIR, x->path, NULL);
        for (struct list *l = &made->of_all; l != &j->all; l = l->next)
                if (waiting_is_at(waiting_at(l), x->path, hash))
                        mark(waiting_at(l), p);
        return 0;
}

/* A file all of whose bytes are ours: it goes to its new name at once, and only there. */
static int plan_rename_whole(struct journal *j, const struct journal_change *x,
                             struct journal_plan *p) REQUIRES(j->lock)
{
        struct waiting *own = journal_queued(j, x->x);
        bool is_source_there = !j->hooks.is_only_here(x->x) || may_be_made(j, x->x);
        bool is_target_made = mark_file(j, x->to, p);
        bool is_target_there =
                (!is_target_made && !x->creates && (!x->over || !is_nowhere(j, x->over))) ||
                is_in_flight(j, NULL, x->to);
        struct journal_change store = *x;
        int r = 0;

        store.kind = CHANGE_STORE;
        store.flags = 0;
        p->is_there_then = is_target_there;
        p->is_moved = true;
        if (own) {
                store.record = own->record;
                store.changes = own->changes;
                store.is_forced = own->is_forced;
        } else { /* somebody writes it: nothing is sent, but a new start finds it by this */
                store.changes = CHANGES_NONE;
        }
        r = plan_store(j, &store, x->to, p);
        if (r == 0)
                p->news[0]->creates = !is_target_there;
        if (r == 0 && is_source_there)
                r = plan_new(p, x, CHANGE_UNLINK, x->path, NULL);
        return r;
}

static int plan_rename(struct journal *j, const struct journal_change *x, struct journal_plan *p)
        REQUIRES(j->lock)
{
        struct waiting *own = journal_queued(j, x->x);

        if (x->x && !x->has_links && x->is_whole && (own || j->hooks.is_only_here(x->x)) &&
            !is_on_its_way(j, x->x))
                return plan_rename_whole(j, x, p);
        return plan_new(p, x, CHANGE_RENAME, x->path, x->to);
}

/* Added to the one before, if that is about the same. */
static int plan_set(struct journal *j, const struct journal_change *x, struct journal_plan *p)
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
        mark(last, p);
        return 0;
}

int journal_plan_make(struct journal *j, const struct journal_change *x, struct journal_plan *p)
{
        if (x->kind != CHANGE_STORE)
                mark_pointless(j, x, p);
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

/* ---- carrying it out ---- */

static void end_victims(struct journal *j, struct list *of) REQUIRES(j->lock)
{
        list_for_each (l, of)
                if (waiting_at(l)->is_victim)
                        journal_log_end(j->log, waiting_at(l)->seq);
}

int journal_plan_write(struct journal *j, struct journal_plan *p)
{
        if (p->victims > 0) {
                end_victims(j, &j->all);
                end_victims(j, &j->refused);
        }
        for (size_t i = 0; i < p->count; i++) {
                p->news[i]->seq = ++j->seq;
                journal_log_change(j->log, p->news[i]);
        }
        if (p->gone != 0)
                journal_log_gone(j->log, p->gone);
        return journal_log_append(j->log);
}

void journal_plan_take_out(struct journal *j, struct journal_plan *p, struct list *dead)
{
        if (p->victims == 0)
                return;
        list_for_each_safe (l, next, &j->all) {
                if (!waiting_at(l)->is_victim)
                        continue;
                journal_leave(j, waiting_at(l));
                list_add_tail(dead, l);
        }
        list_for_each_safe (l, next, &j->refused) {
                if (!waiting_at(l)->is_victim)
                        continue;
                list_remove(l);
                j->refusals--;
                list_add_tail(dead, l);
        }
        p->victims = 0;
}

void journal_plan_forget(struct journal *j, struct journal_plan *p)
{
        list_for_each (l, &j->all)
                waiting_at(l)->is_victim = false;
        list_for_each (l, &j->refused)
                waiting_at(l)->is_victim = false;
        p->victims = 0;
}
