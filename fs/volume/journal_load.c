/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of an earlier run: read from its log, then joined with the contents that were kept.
 */

#include "fs/volume/journal_queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/volume/dirty.h"
#include "transport/base/hash.h"

struct loading {
        struct journal_log_reader head; /* first */
        struct journal *j;
        uint64_t record; /* the highest that was named */
};

static void note_record(struct loading *l, uint64_t record)
{
        if (record > l->record)
                l->record = record;
}

static struct waiting *find_seq(struct journal *j, uint64_t seq) REQUIRES(j->lock)
{
        list_for_each (l, &j->all)
                if (waiting_at(l)->seq == seq)
                        return waiting_at(l);
        return NULL;
}

static int load_change(struct journal_log_reader *to, struct waiting *w)
{
        struct loading *loading = (struct loading *)(void *)to; /* its head */
        struct journal *j = loading->j;

        note_record(loading, w->record);
        w->hash = hash32_text(w->path);
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

/* The end came between the append and the removal of the record. */
static void load_gone(struct journal_log_reader *to, uint64_t record)
{
        struct loading *l = (struct loading *)(void *)to; /* its head */

        note_record(l, record);
        dirty_remove(l->j->dir, record);
}

int journal_load(struct journal *j, uint64_t *ret_record)
{
        struct loading loading = {.head = {load_change, load_end, load_refusal, load_gone}, .j = j};
        int r;

        mutex_lock(&j->lock);
        r = journal_log_read(j->log, &loading.head);
        mutex_unlock(&j->lock);
        *ret_record = loading.record;
        return r;
}

void journal_each_unsure(struct journal *j, size_t max,
                         void (*fn)(void *arg, const struct waiting *w), void *arg)
{
        size_t count = 0;

        mutex_lock(&j->lock);
        list_for_each (l, &j->all)
                if (count++ < max)
                        fn(arg, waiting_at(l));
        mutex_unlock(&j->lock);
}

/* `path` with `from` in front replaced by `to`; NULL: it isn't there, or no memory. */
static char *moved(const char *path, const char *from, const char *to)
{
        const char *rest = path_rest(path, from);
        char *ret;

        return rest && asprintf(&ret, "%s%s", to, rest) >= 0 ? ret : NULL;
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
                journal_enter(j, waiting_at(l));
        list_for_each (pos, &j->refused)
                j->refusals++;
        journal_write_anew(j);
        mutex_unlock(&j->lock);
        journal_free_all(j, &dead);
        journal_tell(j, false);
}

bool journal_any(int dir)
{
        return journal_log_any(dir);
}
