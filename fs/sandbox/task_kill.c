/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kills of a task. What has not been sent ends at once; while it is being started they wait for its
 * exec, in their order; what runs gets them on a worker, a TERM without a name a KILL behind it.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/task.h"
#include "transport/base/clock.h"

struct kill {
        struct list link; /* in the task's kills */
        struct task *task; /* a reference, on its way to a worker; NULL in the task's list */
        int signal; /* 0: TERM, then KILL */
        uint64_t seq;
};

static void send_now(struct task *t, int signal, uint64_t seq)
{
        struct sandbox *sb = t->sandbox;
        struct exec *x = task_exec_get(t);
        struct call c;
        int r = 0;

        call_init(&c, clock_after(CALL_NS));
        if (x) {
                r = exec_signal(x, &c, signal ? signal : SIGTERM);
                task_exec_put(t);
        }
        if (r == -ESRCH)
                r = 0; /* it has ended just now */
        results_end(sb->results, seq, r, c.sentence);
        mutex_lock(&sb->lock);
        if (r < 0)
                sandbox_say_error_locked(sb, r, c.sentence);
        if (r == 0 && signal == 0 && x && !t->is_ending) {
                t->kill_due_ns = clock_after(sb->fleet->seams.kill_grace_ns);
                fleet_due(sb->fleet, t->kill_due_ns);
        }
        mutex_unlock(&sb->lock);
}

static void kill_job(void *arg)
{
        struct kill *k = arg;
        struct fleet *f = k->task->sandbox->fleet;

        send_now(k->task, k->signal, k->seq);
        task_unref(k->task);
        free(k);
        news_deliver(f);
}

static int send_soon(struct task *t, struct kill *k)
{
        int r;

        k->task = task_ref(t);
        r = workers_submit(t->sandbox->fleet->workers, WORKER_FAST, kill_job, k);
        if (r < 0) {
                task_unref(t);
                free(k);
        }
        return r;
}

enum kill_way { KILL_NOBODY, KILL_LATER, KILL_UNSENT, KILL_RUNNING };

/* What a kill means in this state; an unsent command is taken out of the queue's hands at once. */
static enum kill_way choose_locked(struct task *t, struct kill *k)
{
        if (t->state == TASK_NEW || t->state == TASK_ENDED || t->is_ending)
                return KILL_NOBODY;
        if (t->is_starting || t->needs_attach) {
                list_add_tail(&t->kills, &k->link);
                return KILL_LATER;
        }
        if (t->state == TASK_RUNNING)
                return KILL_RUNNING;
        t->is_ending = true;
        return KILL_UNSENT;
}

int task_kill(struct task *t, int signal, uint64_t seq)
{
        struct sandbox *sb = t->sandbox;
        enum kill_way way;
        struct kill *k;

        if (signal < 0 || signal >= NSIG)
                return -EINVAL;
        k = calloc(1, sizeof(*k));
        if (!k)
                return -ENOMEM;
        list_init(&k->link);
        k->signal = signal;
        k->seq = seq;
        mutex_lock(&sb->lock);
        way = choose_locked(t, k);
        mutex_unlock(&sb->lock);
        switch (way) {
        case KILL_LATER: return 0;
        case KILL_RUNNING: return send_soon(t, k);
        case KILL_UNSENT:
                free(k);
                task_end_begun(t, &(struct exec_end){.kind = EXEC_END_SIGNAL,
                                                     .value = signal ? signal : SIGTERM});
                results_end(sb->results, seq, 0, NULL);
                return 0;
        case KILL_NOBODY:
        default: free(k); return -ESRCH;
        }
}

/* ---- those that waited ---- */

static struct kill *take_first(struct task *t)
{
        struct list *first;

        mutex_lock(&t->sandbox->lock);
        first = list_take_first(&t->kills);
        mutex_unlock(&t->sandbox->lock);
        return first ? list_entry(first, struct kill, link) : NULL;
}

void task_send_kills(struct task *t)
{
        struct kill *k;

        while ((k = take_first(t))) {
                send_now(t, k->signal, k->seq);
                free(k);
        }
}

void task_end_kills(struct task *t)
{
        struct kill *k;

        while ((k = take_first(t))) {
                results_end(t->sandbox->results, k->seq, 0, NULL);
                free(k);
        }
}

void task_drop_kills(struct task *t)
{
        struct list *first;

        while ((first = list_take_first(&t->kills)))
                free(list_entry(first, struct kill, link));
}
