/* SPDX-License-Identifier: Apache-2.0 */

#include "fs/volume/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/dirty.h"
#include "fs/volume/journal_log.h"
#include "fs/volume/journal_queue.h"
#include "fs/volume/volume.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"

#define FULL 8192
#define ROOM_NS NS_PER_S /* how long one change waits for others to be sent */
#define WAIT_NS (100 * NS_PER_MS) /* between looks at a call's cancel flag */
#define PROGRESS_NS (10 * NS_PER_S) /* a waiter's deadline, from the latest answer on */

/* ---- the queue ---- */

void journal_leave(struct journal *j, struct waiting *w)
{
        list_remove(&w->of_all);
        j->count--;
        j->names -= !w->x || w->is_again;
        if (w->x && *j->hooks.slot(w->x) == w)
                *j->hooks.slot(w->x) = NULL;
}

void journal_enter(struct journal *j, struct waiting *w)
{
        list_add_tail(&j->all, &w->of_all);
        j->count++;
        j->names += !w->x || w->is_again;
        if (w->x)
                *j->hooks.slot(w->x) = w;
        j->last_ns = clock_mono_ns();
        if (j->count == 1)
                j->first_ns = j->last_ns;
}

void journal_free_all(struct journal *j, struct list *dead)
{
        struct list *l;

        while ((l = list_take_first(dead))) {
                struct waiting *w = waiting_at(l);

                if (w->x)
                        j->hooks.unref(w->x);
                waiting_free(w);
        }
}

void journal_tell(struct journal *j, bool at_once)
{
        if (j->on_news)
                j->on_news(j->news_arg, at_once);
}

int journal_add(struct journal *j, const struct journal_change *x)
{
        struct list dead;
        struct journal_plan p = {.gone = x->gone};
        bool at_once;
        int r;

        list_init(&dead);
        mutex_lock(&j->lock);
        r = journal_plan_make(j, x, &p);
        if (r == 0)
                r = journal_plan_write(j, &p);
        if (r == 0) {
                if (x->gone != 0) /* before the log may be emptied: it must not be found again */
                        dirty_remove(j->dir, x->gone);
                journal_plan_take_out(j, &p, &dead);
                for (size_t i = 0; i < p.count; i++) {
                        if (p.news[i]->x)
                                j->hooks.ref(p.news[i]->x);
                        journal_enter(j, p.news[i]);
                }
                if (p.is_moved && x->x)
                        j->hooks.moved(x->x, p.is_there_then);
        } else {
                journal_plan_forget(j, &p);
        }
        at_once = j->count >= JOURNAL_RUN_MIN;
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
        for (size_t i = 0; r < 0 && i < p.count; i++) {
                p.news[i]->x = NULL; /* borrowed so far */
                waiting_free(p.news[i]);
        }
        journal_free_all(j, &dead);
        if (r == 0)
                journal_tell(j, at_once);
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
        w = journal_queued(j, x->x);
        has = w && !w->is_sending && w->changes == x->changes && w->record == x->record;
        if (has)
                w->is_forced |= x->is_forced;
        mutex_unlock(&j->lock);
        return has;
}

/* ---- waiting ---- */

bool journal_is_empty(struct journal *j)
{
        bool is;

        mutex_lock(&j->lock);
        is = list_is_empty(&j->all);
        mutex_unlock(&j->lock);
        return is;
}

/* The latest change that waits about this path; 0: none. */
static uint64_t latest(struct journal *j, const char *path) REQUIRES(j->lock)
{
        list_for_each_reverse (l, &j->all)
                if (!path || !path[0] || waiting_at(l)->has_links ||
                    waiting_concerns(waiting_at(l), path))
                        return waiting_at(l)->seq;
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
        journal_tell(j, true);
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

void journal_count_again_locked(struct journal *j, struct waiting *w)
{
        if (!w->x || w->is_again)
                return;
        w->is_again = true;
        j->names++;
}

void journal_count_again(struct journal *j, struct content *x)
{
        struct waiting *w;

        mutex_lock(&j->lock);
        w = journal_queued(j, x);
        if (w)
                journal_count_again_locked(j, w);
        mutex_unlock(&j->lock);
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

int journal_refusal(struct journal *j, const char *path)
{
        int error = 0;

        mutex_lock(&j->lock);
        list_for_each (l, &j->refused) {
                const struct waiting *w = waiting_at(l);

                if (error == 0 && (path_is_within(w->path, path) ||
                                   (w->kind == CHANGE_RENAME && path_is_within(w->to, path))))
                        error = w->error;
        }
        mutex_unlock(&j->lock);
        return error;
}

void journal_refused(struct journal *j, struct vol_unsent_sink *to)
{
        mutex_lock(&j->lock);
        list_for_each (l, &j->refused) {
                const struct waiting *w = waiting_at(l);

                to->one(to, w->path, w->error, w->sentence ? w->sentence : "");
        }
        mutex_unlock(&j->lock);
}

void journal_refused_free(struct journal_refused_name *names, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                free(names[i].path);
                free(names[i].to);
        }
        free(names);
}

int journal_refused_names(struct journal *j, struct journal_refused_name **ret, size_t *ret_count)
{
        struct journal_refused_name *names;
        size_t count = 0;
        bool is_whole;

        mutex_lock(&j->lock);
        names = calloc(j->refusals ? j->refusals : 1, sizeof(*names));
        is_whole = names != NULL;
        list_for_each (l, &j->refused) {
                const struct waiting *w = waiting_at(l);

                if (!is_whole || w->x)
                        continue;
                names[count] = (struct journal_refused_name){.kind = w->kind,
                                                             .what = w->what,
                                                             .mode = w->mode,
                                                             .path = strdup(w->path),
                                                             .to = w->to ? strdup(w->to) : NULL};
                is_whole = names[count].path && (!w->to || names[count].to);
                count++;
        }
        mutex_unlock(&j->lock);
        if (!is_whole) {
                journal_refused_free(names, count);
                return -ENOMEM;
        }
        *ret = names;
        *ret_count = count;
        return 0;
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
                journal_enter(j, waiting_at(l));
        }
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
        journal_tell(j, true);
        return r;
}

int journal_discard(struct journal *j, const char *path, struct content **ret)
{
        struct journal_plan p = {0};
        struct content *x = NULL;
        struct list dead;
        bool is_any;

        list_init(&dead);
        mutex_lock(&j->lock);
        journal_plan_refused(j, NULL, path, &p);
        (void)journal_plan_write(j, &p); /* else it is there again after a restart */
        journal_plan_take_out(j, &p, &dead);
        cond_broadcast(&j->changed);
        mutex_unlock(&j->lock);
        is_any = !list_is_empty(&dead);
        list_for_each (l, &dead)
                if (waiting_at(l)->x && !x)
                        x = j->hooks.ref(waiting_at(l)->x);
        journal_free_all(j, &dead);
        if (is_any)
                *ret = x;
        return is_any ? 0 : -ENOENT;
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
        journal_free_all(j, &j->all);
        journal_free_all(j, &j->refused);
        journal_log_close(j->log);
        cond_done(&j->changed);
        mutex_done(&j->lock);
        free(j);
}

void journal_on_news(struct journal *j, void (*fn)(void *arg, bool at_once), void *arg)
{
        j->on_news = fn;
        j->news_arg = arg;
}
