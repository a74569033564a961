/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of one sandbox: its jobs are carried out one after the other, each on a worker; starts
 * of commands in the fast lane, the others, which may take minutes, in the slow one. A destruction
 * goes to the head, and cancels the call that is under way.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "transport/base/log.h"

struct job *job_new(enum job_kind kind, struct results *results, uint64_t seq)
{
        struct job *j = calloc(1, sizeof(*j));

        if (j) {
                list_init(&j->link);
                j->kind = kind;
                j->results = results;
                j->seq = seq;
        }
        return j;
}

void job_free(struct job *j)
{
        if (!j)
                return;
        task_unref(j->task);
        free(j);
}

void job_end(struct job *j, int code, const char *sentence)
{
        if (j->results && j->seq > 0)
                results_end(j->results, j->seq, code, sentence);
        job_free(j);
}

static const char *job_name(enum job_kind kind)
{
        static const char *const names[] = {
                [JOB_CREATE] = "create",   [JOB_ATTACH] = "attach", [JOB_ADOPT] = "adopt",
                [JOB_START] = "start",     [JOB_STOP] = "stop",     [JOB_RESTART] = "restart",
                [JOB_PAUSE] = "pause",     [JOB_RESUME] = "resume", [JOB_EXEC] = "exec",
                [JOB_DESTROY] = "destroy", [JOB_SYNC] = "sync",     [JOB_RETRY] = "retry",
                [JOB_NONE] = "nothing",
        };

        return names[kind];
}

void sandbox_enqueue_locked(struct sandbox *sb, struct job *j, bool first)
{
        if (first)
                list_add_head(&sb->jobs, &j->link);
        else
                list_add_tail(&sb->jobs, &j->link);
        if (j->kind != JOB_EXEC)
                sb->job_count++;
}

static void dequeue_locked(struct sandbox *sb, struct job *j) REQUIRES(sb->lock)
{
        list_remove(&j->link);
        if (j->kind != JOB_EXEC)
                sb->job_count--;
}

void sandbox_drop_jobs(struct sandbox *sb, int code, const char *sentence)
{
        struct list dropped = LIST_INIT(dropped);

        mutex_lock(&sb->lock);
        list_for_each_safe (l, next, &sb->jobs) {
                struct job *j = list_entry(l, struct job, link);

                if (j->kind == JOB_DESTROY && code != 0)
                        continue;
                dequeue_locked(sb, j);
                list_add_tail(&dropped, &j->link);
        }
        mutex_unlock(&sb->lock);
        list_for_each_safe (l, next, &dropped) {
                struct job *j = list_entry(l, struct job, link);

                list_remove(&j->link);
                if (code == 0)
                        job_free(j);
                else
                        job_end(j, code, sentence);
        }
}

/* ---- states ---- */

static enum box_state after_job(enum job_kind kind, enum box_state state)
{
        switch (kind) {
        case JOB_CREATE:
        case JOB_ADOPT:
        case JOB_START:
        case JOB_RESTART:
        case JOB_RESUME: return BOX_RUNNING;
        case JOB_STOP: return BOX_STOPPED;
        case JOB_PAUSE: return state == BOX_STOPPED ? BOX_STOPPED : BOX_PAUSED;
        case JOB_DESTROY: return BOX_DESTROYING;
        case JOB_ATTACH:
        case JOB_SYNC:
        case JOB_RETRY:
        case JOB_EXEC:
        case JOB_NONE:
        default: return state;
        }
}

/* A command that comes while it falls idle is accepted, and brings it back: see wake_locked. */
enum box_state sandbox_expected_locked(struct sandbox *sb)
{
        enum box_state state = sb->is_falling_idle ? sb->state : after_job(sb->current, sb->state);

        list_for_each (l, &sb->jobs) {
                const struct job *j = list_entry(l, struct job, link);

                if (!j->is_automatic)
                        state = after_job(j->kind, state);
        }
        return state;
}

int sandbox_check_state(enum box_state state, bool is_idle_down, bool has_box, struct call *c)
{
        switch (state) {
        case BOX_PAUSED:
        case BOX_PAUSING:
                return is_idle_down ? 0
                                    : call_fail(c, -EHOSTDOWN,
                                                "the sandbox is paused: write `resume` to its ctl");
        case BOX_STOPPED:
        case BOX_STOPPING:
                return is_idle_down ? 0
                                    : call_fail(c, -EHOSTDOWN,
                                                "the sandbox is stopped: write `start` to its ctl");
        case BOX_DESTROYING: return call_fail(c, -EBUSY, "the sandbox is being destroyed");
        case BOX_GONE: return call_fail(c, -ENODEV, "the sandbox is gone");
        case BOX_ERROR:
                if (!has_box)
                        return call_fail(c, -EBUSY, "the sandbox was not created");
                return call_fail(c, -EBUSY, "the sandbox is in state error");
        case BOX_CREATING:
        case BOX_STARTING:
        case BOX_RUNNING:
        case BOX_RESUMING:
        case BOX_UNKNOWN:
        default: return 0;
        }
}

bool sandbox_job_tells_state(enum job_kind kind)
{
        switch (kind) {
        case JOB_CREATE:
        case JOB_ADOPT:
        case JOB_START:
        case JOB_STOP:
        case JOB_RESTART:
        case JOB_PAUSE:
        case JOB_RESUME:
        case JOB_DESTROY: return true;
        case JOB_ATTACH:
        case JOB_SYNC:
        case JOB_RETRY:
        case JOB_EXEC:
        case JOB_NONE:
        default: return false;
        }
}

/* ---- workers ---- */

static void set_current_locked(struct sandbox *sb, const struct job *j) REQUIRES(sb->lock)
{
        sb->current = j ? j->kind : JOB_NONE;
        sb->is_falling_idle = j && j->is_automatic && (j->kind == JOB_PAUSE || j->kind == JOB_STOP);
}

/* An idle time-out took it down and a command waits: first bring it back. */
static void wake_locked(struct sandbox *sb, const struct job *head) REQUIRES(sb->lock)
{
        bool is_down = sb->state == BOX_PAUSED || sb->state == BOX_STOPPED;
        struct job *j;

        if (head->kind != JOB_EXEC || !sb->is_idle_down || !is_down)
                return;
        j = job_new(sb->state == BOX_PAUSED ? JOB_RESUME : JOB_START, NULL, 0);
        if (!j)
                return; /* the command says that the sandbox is down */
        j->is_automatic = true;
        sandbox_enqueue_locked(sb, j, true);
}

static struct job *head_locked(struct sandbox *sb) REQUIRES(sb->lock)
{
        if (list_is_empty(&sb->jobs))
                return NULL;
        wake_locked(sb, list_entry(sb->jobs.next, struct job, link));
        return list_entry(sb->jobs.next, struct job, link);
}

static enum worker_lane lane_of(enum job_kind kind)
{
        return kind == JOB_EXEC ? WORKER_FAST : WORKER_SLOW;
}

static uint64_t deadline_of(const struct sandbox *sb, const struct job *j) REQUIRES(sb->lock)
{
        if (j->kind == JOB_EXEC)
                return clock_after(CALL_NS);
        return clock_after(sb->spec.create_timeout_ns ? sb->spec.create_timeout_ns : CREATE_NS);
}

/* Its errors are said here, once. */
static void fail(struct sandbox *sb, const struct job *j, int code, const char *sentence)
{
        char name[NAME_SIZE];

        mutex_lock(&sb->lock);
        memcpy(name, sb->name, sizeof(name));
        sandbox_say_error_locked(sb, code, sentence);
        mutex_unlock(&sb->lock);
        log_warning("%s %s (%s): %s: %s", job_name(j->kind), name, sb->provider, errno_name(code),
                    sentence);
}

static void carry_out(struct sandbox *sb, struct job *j, struct call *c)
{
        int r;

        if (j->kind == JOB_EXEC) {
                task_run(j->task, c);
                job_free(j);
                return;
        }
        if (j->kind == JOB_DESTROY) {
                r = destroy_run(sb, c);
                if (r < 0 && destroy_again(sb, j, r, c->sentence))
                        return; /* it keeps the job */
        } else {
                r = lifecycle_run(sb, j, c);
        }
        if (r == 0 && j->kind == JOB_DESTROY)
                sandbox_gone(sb);
        if (r < 0 && j->kind != JOB_DESTROY && !(r == -EINTR && atomic_load(&c->is_cancelled)))
                fail(sb, j, r, c->sentence);
        job_end(j, r < 0 ? r : 0, c->sentence);
}

/* One job, if there is one for this lane; true: there may be another. */
static bool run_next(struct sandbox *sb, enum worker_lane lane)
{
        bool tells_state;
        struct job *j;
        struct call c;

        mutex_lock(&sb->lock);
        j = head_locked(sb);
        if (!j || lane_of(j->kind) != lane || atomic_load(&sb->fleet->is_closing)) {
                set_current_locked(sb, NULL);
                mutex_unlock(&sb->lock);
                return false;
        }
        dequeue_locked(sb, j);
        call_init(&c, deadline_of(sb, j));
        set_current_locked(sb, j);
        sb->call = &c;
        tells_state = sandbox_job_tells_state(j->kind);
        sb->job_generation += tells_state;
        mutex_unlock(&sb->lock);

        carry_out(sb, j, &c);

        mutex_lock(&sb->lock);
        sb->call = NULL;
        sb->job_generation += tells_state;
        mutex_unlock(&sb->lock);
        news_deliver(sb->fleet);
        return true;
}

static void run(struct sandbox *sb, enum worker_lane lane)
{
        while (run_next(sb, lane))
                ;
        sandbox_kick(sb); /* what is left is for the other lane */
        fleet_idle(sb->fleet);
        sandbox_unref(sb);
}

static void fast_job(void *arg)
{
        run(arg, WORKER_FAST);
}

static void slow_job(void *arg)
{
        run(arg, WORKER_SLOW);
}

void sandbox_kick(struct sandbox *sb)
{
        enum worker_lane lane;
        struct job *j;
        int r;

        mutex_lock(&sb->lock);
        j = sb->current == JOB_NONE && !atomic_load(&sb->fleet->is_closing) ? head_locked(sb)
                                                                            : NULL;
        if (!j) {
                mutex_unlock(&sb->lock);
                return;
        }
        set_current_locked(sb, j); /* until the worker takes it, or another that came in between */
        lane = lane_of(j->kind);
        mutex_unlock(&sb->lock);

        r = workers_submit(sb->fleet->workers, lane, lane == WORKER_FAST ? fast_job : slow_job,
                           sandbox_ref(sb));
        if (r == 0)
                return;
        mutex_lock(&sb->lock);
        set_current_locked(sb, NULL);
        mutex_unlock(&sb->lock);
        sandbox_unref(sb);
        if (r != -ESHUTDOWN)
                fleet_due(sb->fleet, clock_after(NS_PER_S)); /* no memory: the tick kicks again */
}
