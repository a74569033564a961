/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue itself, for the files that journal.h names.
 */
#pragma once

#include <string.h>

#include "fs/volume/journal.h"
#include "fs/volume/journal_log.h"
#include "transport/base/lock.h"
#include "transport/base/path.h"

#define JOURNAL_NEW_MAX 2 /* changes that one change becomes */
#define JOURNAL_RUN_MIN 512 /* so many are sent at once */

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
        uint64_t count GUARDED_BY(lock), names
                GUARDED_BY(lock); /* of all; as journal_count_names */
        uint64_t refusals GUARDED_BY(lock);
        uint64_t first_ns GUARDED_BY(lock), last_ns GUARDED_BY(lock); /* when they were added */
        unsigned waiters GUARDED_BY(lock);
        unsigned failures GUARDED_BY(lock); /* in a row, for the back-off */
        uint64_t failed GUARDED_BY(lock); /* attempts, ever */
        uint64_t moved GUARDED_BY(lock); /* changes that were answered, and bytes taken; counts */
        uint64_t retry_ns GUARDED_BY(lock); /* not before; 0 */
        uint64_t planned_ns GUARDED_BY(lock); /* the next try by itself, if nobody asks before */
        int error GUARDED_BY(lock); /* of the last that failed */
};

/* What a change does to the queue: found out first, then done, under one hold of the lock. */
struct journal_plan {
        struct waiting *news[JOURNAL_NEW_MAX];
        size_t count;
        size_t victims; /* those marked is_victim, of the queue and of the refused */
        uint64_t gone; /* the record of what ends with it, 0 none */
        bool is_moved; /* its bytes go to another name than so far: hooks.moved */
        bool is_there_then; /* then: the sandbox has a file of that name */
};

static inline struct waiting *waiting_at(struct list *l)
{
        return list_entry(l, struct waiting, of_all);
}

/* It is about this path, or about one above or below it. */
static inline bool waiting_concerns(const struct waiting *w, const char *path)
{
        return path_is_related(w->path, path) || path_is_related(w->to, path);
}

/* `hash`: hash32_text(path). */
static inline bool waiting_is_at(const struct waiting *w, const char *path, uint32_t hash)
{
        return w->hash == hash && strcmp(w->path, path) == 0;
}

/* The change of this content that waits; NULL: none. */
static inline struct waiting *journal_queued(struct journal *j, struct content *x) REQUIRES(j->lock)
{
        return x ? *j->hooks.slot(x) : NULL;
}

/* ---- journal.c ---- */

void journal_enter(struct journal *j, struct waiting *w) REQUIRES(j->lock);
void journal_leave(struct journal *j, struct waiting *w) REQUIRES(j->lock);
void journal_count_again_locked(struct journal *j, struct waiting *w) REQUIRES(j->lock);
void journal_free_all(struct journal *j, struct list *dead); /* without the lock */
void journal_tell(struct journal *j, bool at_once); /* likewise */

/* ---- journal_plan.c ---- */

/*
 * What is to be done for this change. Then: written to the log; and the victims are taken out, to be
 * freed without the lock; or all is forgotten. Who asked frees or queues p->news.
 *
 * Errors: -ENOMEM, -EINVAL.
 */
int journal_plan_make(struct journal *j, const struct journal_change *x, struct journal_plan *p)
        REQUIRES(j->lock);
/* Refused changes of this content, or about this path (NULL: only the former), become victims. */
void journal_plan_refused(struct journal *j, const struct content *x, const char *path,
                          struct journal_plan *p) REQUIRES(j->lock);
int journal_plan_write(struct journal *j, struct journal_plan *p) REQUIRES(j->lock);
void journal_plan_take_out(struct journal *j, struct journal_plan *p, struct list *dead)
        REQUIRES(j->lock);
void journal_plan_forget(struct journal *j, struct journal_plan *p) REQUIRES(j->lock);

/* ---- journal_run.c ---- */

/* The whole log, of what waits and what was refused. */
void journal_write_anew(struct journal *j) REQUIRES(j->lock);
