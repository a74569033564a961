/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a command, brought by a worker, and how its handle at the provider is let go.
 *
 * Every end, whatever its cause, comes through task_finish(), once: `is_ending` is set under the
 * lock by whoever brings it. Its order is the contract: the last output is in the files, the
 * listener dropped its caches, the record is written; only then the end can be seen.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"

/* ---- the provider's side of it ---- */

struct exec *task_exec_get(struct task *t)
{
        struct exec *x;

        mutex_lock(&t->sandbox->lock);
        x = t->drop_exec ? NULL : t->exec;
        if (x)
                t->exec_users++;
        mutex_unlock(&t->sandbox->lock);
        return x;
}

static struct exec *take_unused_locked(struct task *t)
{
        struct exec *x = t->drop_exec && t->exec_users == 0 ? t->exec : NULL;

        if (x)
                t->exec = NULL;
        return x;
}

void task_exec_put(struct task *t)
{
        struct exec *x;

        mutex_lock(&t->sandbox->lock);
        t->exec_users--;
        x = take_unused_locked(t);
        if (t->exec_users == 0)
                cond_broadcast(&t->sandbox->exec_idle);
        mutex_unlock(&t->sandbox->lock);
        exec_release(x);
}

void task_let_go(struct task *t)
{
        struct exec *x;

        mutex_lock(&t->sandbox->lock);
        while (t->exec_users > 0) /* each for one bounded call */
                cond_wait(&t->sandbox->exec_idle, &t->sandbox->lock);
        t->drop_exec = true;
        x = take_unused_locked(t);
        mutex_unlock(&t->sandbox->lock);
        exec_release(x); /* afterwards the sink is not called any more */
}

/* ---- the end ---- */

static char *exit_text(const struct exec_end *end)
{
        char sentence[sizeof(end->sentence) * 4 + 1];
        char *text = NULL;
        int n = -1;

        switch (end->kind) {
        case EXEC_END_CODE: n = asprintf(&text, "%d", end->value & 255); break;
        case EXEC_END_SIGNAL: n = asprintf(&text, "signal %d", end->value); break;
        case EXEC_END_TIMEOUT: n = asprintf(&text, "timeout"); break;
        case EXEC_END_LOST: n = asprintf(&text, "lost"); break;
        case EXEC_END_ERROR:
        default:
                escape_sentence(end->sentence, strnlen(end->sentence, sizeof(end->sentence)),
                                sentence, sizeof(sentence));
                n = asprintf(&text, "error %s", sentence[0] ? sentence : "unknown");
                break;
        }
        return n < 0 ? NULL : text;
}

static void plan_sync_locked(struct task *t)
{
        struct sandbox *sb = t->sandbox;

        t->needs_sync = true;
        if (sb->sync_due_ns == NOTHING_DUE) {
                sb->sync_due_ns = clock_after(sb->fleet->seams.sync_delay_ns);
                fleet_due(sb->fleet, sb->sync_due_ns);
        }
}

static void set_visible(struct task *t)
{
        struct sandbox *sb = t->sandbox;
        struct exec *x;

        mutex_lock(&sb->lock);
        t->state = TASK_ENDED;
        t->is_visible = true;
        t->kill_due_ns = NOTHING_DUE;
        t->drop_exec = true;
        x = take_unused_locked(t);
        sb->running--;
        sandbox_touch(sb);
        sandbox_plan_idle_locked(sb);
        plan_sync_locked(t);
        task_change_locked(t);
        sandbox_change_locked(sb);
        mutex_unlock(&sb->lock);
        news_deliver(sb->fleet);
        exec_release(x);
}

/* What a failure to run means for `error` and the results. */
static void say_end(struct task *t, const struct exec_end *end)
{
        struct sandbox *sb = t->sandbox;
        char text[sizeof(end->sentence) + 80];

        if (end->kind != EXEC_END_ERROR && end->kind != EXEC_END_LOST) {
                results_end(sb->results, t->seq, 0, NULL); /* it ran, however it ended */
                return;
        }
        (void)snprintf(text, sizeof(text), "exec %.63s: %s", t->name,
                       end->sentence[0] ? end->sentence : "nobody knows how it ended");
        results_end(sb->results, t->seq, end->kind == EXEC_END_LOST ? -EIO : -ECANCELED, text);
        mutex_lock(&sb->lock);
        sandbox_say_error_locked(sb, -EIO, text);
        mutex_unlock(&sb->lock);
        log_info("%s: %s", sb->key, text);
}

static bool begin_end(struct task *t)
{
        bool is_first;

        mutex_lock(&t->sandbox->lock);
        is_first = !t->is_ending && t->state != TASK_NEW;
        t->is_ending = true;
        mutex_unlock(&t->sandbox->lock);
        return is_first;
}

void task_finish(struct task *t)
{
        const struct listener *l = &t->sandbox->fleet->listener;
        struct sandbox *sb = t->sandbox;
        struct task_request *request;
        int r;

        output_finish(&t->output, t->end.dropped);
        if (l->task_ending)
                l->task_ending(l->ctx, sb, t);
        mutex_lock(&sb->lock);
        t->exit = exit_text(&t->end);
        t->ended_real_ns = clock_real_ns();
        t->needs_attach = false;
        request = t->request;
        t->request = NULL;
        mutex_unlock(&sb->lock);
        task_request_free(request);

        r = task_save(t, false);
        if (r < 0)
                log_error("%s: writing the record: %s: after a restart its end is lost", t->path,
                          errno_name(r));
        say_end(t, &t->end);
        task_end_kills(t);
        set_visible(t);
        output_close(&t->output);
        sandbox_retain(sb);
        news_deliver(sb->fleet);
}

void task_finish_job(void *arg)
{
        struct task *t = arg;

        task_finish(t);
        task_unref(t);
}

void task_end_begun(struct task *t, const struct exec_end *end)
{
        t->end = *end;
        if (workers_submit(t->sandbox->fleet->workers, WORKER_FAST, task_finish_job, task_ref(t)) ==
            0)
                return;
        task_finish_job(t); /* out of memory: better here than never */
}

void task_end_now(struct task *t, const struct exec_end *end)
{
        if (!begin_end(t))
                return;
        task_let_go(t);
        t->end = *end;
        task_finish(t);
}

void sandbox_end_tasks(struct sandbox *sb, const struct exec_end *end)
{
        for (uint64_t number = 0;;) {
                struct task *t = NULL;

                mutex_lock(&sb->lock);
                for (size_t i = 0; i < sb->task_count && !t; i++)
                        if (sb->tasks[i]->number > number && (sb->tasks[i]->state == TASK_QUEUED ||
                                                              sb->tasks[i]->state == TASK_RUNNING))
                                t = task_ref(sb->tasks[i]);
                mutex_unlock(&sb->lock);
                if (!t)
                        return;
                number = t->number;
                task_end_now(t, end);
                task_unref(t);
        }
}

/* Ends of those that the provider forgot to end. */
void sandbox_lose_tasks(struct sandbox *sb)
{
        const struct exec_end end = {.kind = EXEC_END_LOST, .sentence = "the sandbox is down"};

        for (uint64_t number = 0;;) {
                struct task *t = NULL;

                mutex_lock(&sb->lock);
                for (size_t i = 0; i < sb->task_count && !t; i++)
                        if (sb->tasks[i]->number > number && sb->tasks[i]->state == TASK_RUNNING &&
                            !sb->tasks[i]->is_starting && !sb->tasks[i]->is_ending)
                                t = task_ref(sb->tasks[i]);
                mutex_unlock(&sb->lock);
                if (!t)
                        return;
                number = t->number;
                task_end_now(t, &end);
                task_unref(t);
        }
}
