/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue as its sender sees it: runs, and what became of them.
 */

#include "fs/volume/journal_queue.h"

#include <errno.h>
#include <stdlib.h>

#include "transport/base/clock.h"
#include "transport/base/log.h"

#define IDLE_NS (50 * NS_PER_MS) /* after the last change: then people may look */
#define AGE_NS (250 * NS_PER_MS) /* the oldest one waits no longer */
#define RETRY_MIN_NS NS_PER_S
#define RETRY_DOUBLINGS 6

uint64_t journal_due_ns(struct journal *j)
{
        uint64_t due_ns = 0;

        mutex_lock(&j->lock);
        if (j->count > 0) {
                due_ns = j->last_ns + IDLE_NS;
                if (due_ns > j->first_ns + AGE_NS)
                        due_ns = j->first_ns + AGE_NS;
                if (j->count >= JOURNAL_RUN_MIN || j->waiters > 0)
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
                    (waiting_concerns(run[i], w->path) ||
                     (w->to && waiting_concerns(run[i], w->to))))
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

bool journal_skip(struct journal *j, struct waiting *w)
{
        bool is_needed = false;

        mutex_lock(&j->lock);
        for (struct list *l = w->of_all.next; !w->is_forced && l != &j->all; l = l->next)
                is_needed |= waiting_at(l)->kind == CHANGE_RENAME &&
                             waiting_is_at(waiting_at(l), w->path, w->hash);
        w->is_skipped = !is_needed;
        w->is_forced |= is_needed;
        mutex_unlock(&j->lock);
        return !is_needed;
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
                          size_t count, const char *const *sentences)
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
                j->refusals += !w->is_counted;
                w->is_counted = true; /* from before it is no longer what waits */
                free(w->sentence);
                w->sentence = copy_sentence(sentences[i], errors[i]);
                journal_log_refusal(j->log, w);
        }
        if (journal_log_append(j->log) < 0)
                log_warning("what was sent could not be noted, it would be sent again");
        mutex_unlock(&j->lock);
}

/* A later change of its content waits: what becomes of that one decides. */
static struct waiting *find_later(struct journal *j, const struct waiting *w) REQUIRES(j->lock)
{
        struct waiting *later = journal_queued(j, w->x);

        return later != w ? later : NULL;
}

void journal_answered(struct journal *j, struct waiting *w, int error)
{
        struct waiting *later;
        struct list dead;

        list_init(&dead);
        mutex_lock(&j->lock);
        later = find_later(j, w);
        w->is_sending = w->is_skipped = false;
        j->refusals -= w->is_counted;
        w->is_counted = false;
        if (error == -EINPROGRESS) {
                w->may_be_done = true;
        } else if (error == 0 || later) {
                journal_leave(j, w);
                if (error < 0) {
                        journal_count_again_locked(j, later);
                        journal_log_end(j->log, w->seq);
                        (void)journal_log_append(j->log); /* else it is refused once more */
                }
                list_add_tail(&dead, &w->of_all);
        } else {
                journal_leave(j, w);
                w->is_again = false;
                list_add_tail(&j->refused, &w->of_all);
                j->refusals++;
        }
        mutex_unlock(&j->lock);
        journal_free_all(j, &dead);
}

void journal_write_anew(struct journal *j)
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
        uint64_t now_ns = clock_mono_ns();

        mutex_lock(&j->lock);
        if (j->count == 0 && j->refusals == 0)
                journal_log_clear(j->log);
        else if (journal_log_is_long(j->log))
                journal_write_anew(j);
        j->first_ns = now_ns;
        if (error < 0) {
                j->failed++;
                j->error = error;
                if (now_ns >= j->planned_ns) { /* else somebody had asked for it */
                        j->planned_ns = now_ns + (RETRY_MIN_NS << j->failures);
                        if (j->failures < RETRY_DOUBLINGS)
                                j->failures++;
                }
                j->retry_ns = j->planned_ns;
        } else {
                j->failures = 0;
                j->planned_ns = 0;
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

bool journal_sets_time(struct journal *j, const char *path, uint64_t seq)
{
        bool sets = false;

        mutex_lock(&j->lock);
        list_for_each (l, &j->all) {
                const struct waiting *w = waiting_at(l);

                if (sets || (seq != 0 && w->seq >= seq))
                        break;
                sets = w->kind == CHANGE_SET && (w->what & FILE_SET_MTIME) != 0 &&
                       strcmp(w->path, path) == 0;
        }
        mutex_unlock(&j->lock);
        return sets;
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
                      waiting_is_at(later, w->path, w->hash);
        }
        mutex_unlock(&j->lock);
        return is;
}

bool journal_sets_later(struct journal *j, const struct waiting *w)
{
        bool is = false;

        mutex_lock(&j->lock);
        list_for_each (l, &j->all) {
                const struct waiting *later = waiting_at(l);

                is |= later->seq > w->seq && later->kind == CHANGE_SET &&
                      (later->what & FILE_SET_MODE) && waiting_is_at(later, w->path, w->hash);
        }
        mutex_unlock(&j->lock);
        return is;
}

bool journal_is_overtaken(struct journal *j, const struct waiting *w)
{
        const char *path = w->kind == CHANGE_RENAME ? w->to : w->path;
        bool is = false;

        mutex_lock(&j->lock);
        list_for_each_reverse (l, &j->all) {
                const struct waiting *later = waiting_at(l);

                if (later->seq <= w->seq || is)
                        break;
                is = path_is_within(path, later->path) ||
                     (later->to && path_is_within(path, later->to));
        }
        mutex_unlock(&j->lock);
        return is;
}
