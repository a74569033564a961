/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command on its way: started or re-attached by a worker, fed by the provider's thread (the
 * sink), ended by a worker.
 *
 * Every end, whatever its cause, comes through finish(), once: `is_ending` is set under the lock by
 * whoever brings it. Its order is the contract: the last output is in the files, the listener
 * dropped its caches, the record is written; only then the end can be seen.
 */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/settings.h"
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
                escape_text(end->sentence, strnlen(end->sentence, sizeof(end->sentence)), sentence,
                            sizeof(sentence));
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

/* On a worker; begin_end was true, and no output comes any more. */
static void finish(struct task *t)
{
        const struct listener *l = &t->sandbox->fleet->listener;
        struct sandbox *sb = t->sandbox;
        struct task_request *request;
        uint64_t kill_seq;
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
        kill_seq = t->kill_seq;
        mutex_unlock(&sb->lock);
        task_request_free(request);

        r = task_save(t, false);
        if (r < 0)
                log_error("%s: writing the record: %s: after a restart its end is lost", t->path,
                          errno_name(r));
        say_end(t, &t->end);
        if (kill_seq > 0)
                results_end(sb->results, kill_seq, 0, NULL);
        set_visible(t);
        output_close(&t->output);
        sandbox_retain(sb);
        news_deliver(sb->fleet);
}

static void finish_job(void *arg)
{
        struct task *t = arg;

        finish(t);
        task_unref(t);
}

void task_end_begun(struct task *t, const struct exec_end *end)
{
        t->end = *end;
        if (workers_submit(t->sandbox->fleet->workers, WORKER_FAST, finish_job, task_ref(t)) == 0)
                return;
        finish_job(t); /* out of memory: better here than never */
}

void task_end_now(struct task *t, const struct exec_end *end)
{
        if (!begin_end(t))
                return;
        task_let_go(t);
        t->end = *end;
        finish(t);
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

/* ---- the sink ---- */

static struct task *of_sink(struct exec_sink *to)
{
        return container_of(to, struct task, sink);
}

static void save_skew(struct task *t)
{
        mutex_lock(&t->sandbox->lock);
        for (unsigned i = 0; i < 2; i++)
                t->skew[i] = t->output.skew[i];
        mutex_unlock(&t->sandbox->lock);
        /* else a restart takes the gap for output that is still to come */
        (void)task_save(t, false);
}

static void on_output(struct exec_sink *to, enum exec_stream stream, uint64_t offset,
                      const void *data, size_t size)
{
        struct task *t = of_sink(to);

        if (output_add(&t->output, stream, offset, data, size) > 0)
                save_skew(t);
        atomic_store(&t->output_real_ns, clock_real_ns());
        atomic_fetch_add(&t->changes, 1);
        news_task(t);
        news_deliver(t->sandbox->fleet);
}

static void on_stdin_taken(struct exec_sink *to, uint64_t total)
{
        struct task *t = of_sink(to);

        mutex_lock(&t->sandbox->lock);
        if (!t->is_taken_known) {
                t->is_taken_known = true;
                t->stdin_sent = total;
        }
        if (total > t->stdin_taken)
                t->stdin_taken = total;
        mutex_unlock(&t->sandbox->lock);
        task_stdin_pump(t);
}

static void on_end(struct exec_sink *to, const struct exec_end *end)
{
        struct task *t = of_sink(to);
        bool is_mine;
        int r;

        mutex_lock(&t->sandbox->lock);
        is_mine = !t->is_ending;
        if (is_mine) {
                t->end = *end;
                t->has_end = true;
                is_mine =
                        /* else whoever starts it finishes it, on the same thread */
                        !t->is_starting;
                t->is_ending = is_mine;
        }
        mutex_unlock(&t->sandbox->lock);
        if (!is_mine)
                return;
        r = workers_submit(t->sandbox->fleet->workers, WORKER_FAST, finish_job, task_ref(t));
        if (r == -ESHUTDOWN)
                task_unref(t); /* the next run asks for the end again */
        else if (r < 0)
                finish_job(t);
}

void task_init_sink(struct task *t)
{
        t->sink = (struct exec_sink){
                .output = on_output, .stdin_taken = on_stdin_taken, .end = on_end};
}

/* ---- the start ---- */

static void refuse(struct task *t, const char *sentence)
{
        struct exec_end end = {.kind = EXEC_END_ERROR};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%.*s", (int)sizeof(end.sentence) - 1,
                       sentence);
        task_end_now(t, &end);
}

static int merge_env(struct sandbox *sb, struct task_request *q) REQUIRES(sb->lock)
{
        struct pair *env = NULL;
        size_t count = 0;
        int r = 0;

        for (size_t i = 0; i < sb->env_count && r == 0; i++)
                r = pairs_set(&env, &count, sb->env[i].key, sb->env[i].value);
        for (size_t i = 0; i < q->env_count && r == 0; i++)
                r = pairs_set(&env, &count, q->env[i].key, q->env[i].value);
        pairs_free(q->env, q->env_count);
        q->env = env;
        q->env_count = count;
        return r;
}

/*
 * Takes the request out, if it can be sent now. 0, or why not; *ret NULL: it has ended meanwhile.
 */
static int take_request(struct task *t, struct task_request **ret, struct box **ret_box,
                        struct call *c)
{
        struct sandbox *sb = t->sandbox;
        int r = 0;

        mutex_lock(&sb->lock);
        *ret = NULL;
        if (!t->is_ending && t->state == TASK_QUEUED && t->request) {
                r = sandbox_check_state(sb->state, false, sb->box != NULL, c);
                if (r == 0 && !sb->box)
                        r = call_fail(c, -EBUSY, "the sandbox is not reachable");
                *ret = t->request;
                *ret_box = sb->box;
                if (r == 0 && sb->env_count > 0)
                        r = merge_env(sb, t->request);
                if (r == 0) {
                        t->request = NULL;
                        t->is_starting = true;
                        t->started_real_ns = clock_real_ns();
                        atomic_store(&t->output_real_ns, t->started_real_ns);
                }
        }
        mutex_unlock(&sb->lock);
        return r;
}

/* No answer came in time: ask whether it runs. */
static int ask_if_started(struct task *t, struct box *box, struct exec **ret, struct call *c)
{
        const uint64_t have[2] = {0, 0};
        struct call again;
        int r;

        call_init(&again, clock_after(CALL_NS));
        r = exec_attach(box, &again, t->number, NULL, have, &t->sink, ret);
        if (r == -ENOENT)
                return call_fail(c, -ETIMEDOUT,
                                 "the sandbox did not answer; the command was not started");
        if (r < 0)
                return call_fail(
                        c, -EIO,
                        "the sandbox did not answer: nobody knows whether the command runs");
        return 0;
}

static int send_request(struct task *t, struct box *box, const struct task_request *q,
                        struct exec **ret, struct call *c)
{
        struct exec_req req = {
                .number = t->number,
                .argv = (const char *const *)q->argv,
                .cwd = q->cwd,
                .user = q->user,
                .env = q->env,
                .env_count = q->env_count,
                .timeout_ns = q->timeout_ns,
                .has_stdin = t->stdin_mode != STDIN_NONE, /* fixed since it was accepted */
        };
        int r = exec_start(box, c, &req, &t->sink, ret);

        return r == -ETIMEDOUT ? ask_if_started(t, box, ret, c) : r;
}

/* It runs. True: its end came already and is ours to finish. */
static bool set_running(struct task *t, struct exec *x)
{
        struct sandbox *sb = t->sandbox;
        bool has_end;

        mutex_lock(&sb->lock);
        t->is_starting = false;
        t->needs_attach = false;
        t->exec = x;
        t->pid = x->pid;
        (void)snprintf(t->exec_id, sizeof(t->exec_id), "%s", x->id);
        t->state = TASK_RUNNING;
        has_end = t->has_end && !t->is_ending;
        t->is_ending |= has_end;
        task_change_locked(t);
        sandbox_change_locked(sb);
        mutex_unlock(&sb->lock);
        return has_end;
}

/* What waited for it to run: its record, stdin, a kill. */
static void go_on(struct task *t)
{
        int signal;
        uint64_t seq;

        task_stdin_pump(t);
        sandbox_plan_poll(t->sandbox);
        mutex_lock(&t->sandbox->lock);
        signal = t->kill_signal;
        seq = t->kill_seq;
        t->kill_signal = 0;
        t->kill_seq = 0;
        mutex_unlock(&t->sandbox->lock);
        if (signal != 0)
                task_kill_now(t, signal < 0 ? 0 : signal, seq);
        (void)task_save(t, false); /* it says "queued": a restart asks the provider all the same */
}

static void clear_starting(struct task *t)
{
        mutex_lock(&t->sandbox->lock);
        t->is_starting = false;
        mutex_unlock(&t->sandbox->lock);
}

void task_run(struct task *t, struct call *c)
{
        struct task_request *q;
        struct exec *x = NULL;
        struct box *box = NULL;
        bool was_sent = false;
        int r = take_request(t, &q, &box, c);

        if (!q)
                return;
        if (r < 0) {
                refuse(t, c->sentence[0] ? c->sentence : strerrordesc_np(-r));
                return;
        }
        r = sandbox_deliver(t->sandbox, c); /* promise 1 */
        if (r < 0)
                (void)call_wrap(c, r, "what was written could not be delivered: ");
        else if (!q->ignore_unsent)
                r = sandbox_check_unsent(t->sandbox, c);
        if (r >= 0) {
                was_sent = true;
                c->deadline_ns = clock_after(CALL_NS);
                r = send_request(t, box, q, &x, c);
        }
        task_request_free(q);
        if (r < 0) {
                clear_starting(t);
                if (was_sent && r == -EIO)
                        task_end_now(t,
                                     &(struct exec_end){.kind = EXEC_END_LOST,
                                                        .sentence = "the sandbox did not answer"});
                else
                        refuse(t, c->sentence[0] ? c->sentence : strerrordesc_np(-r));
                return;
        }
        if (set_running(t, x)) {
                finish(t);
                return;
        }
        news_deliver(t->sandbox->fleet);
        results_end(t->sandbox->results, t->seq, 0, NULL);
        go_on(t);
}

/* ---- after a restart ---- */

static void lose(struct task *t, const char *sentence)
{
        struct exec_end end = {.kind = EXEC_END_LOST};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%.*s", (int)sizeof(end.sentence) - 1,
                       sentence);
        task_end_now(t, &end);
}

bool task_attach(struct task *t, struct call *c)
{
        struct sandbox *sb = t->sandbox;
        uint64_t have[2];
        char id[sizeof(t->exec_id)];
        struct exec *x = NULL;
        struct call one;
        enum box_state state;
        bool was_queued;
        int r;

        if (call_check(c) < 0)
                return false;
        mutex_lock(&sb->lock);
        memcpy(id, t->exec_id, sizeof(id));
        was_queued = t->state == TASK_QUEUED;
        state = sb->state;
        t->is_starting = true;
        t->is_taken_known = t->stdin_mode == STDIN_NONE;
        for (unsigned i = 0; i < 2; i++)
                have[i] = t->output.position[i];
        mutex_unlock(&sb->lock);

        call_init(&one, clock_after(CALL_NS));
        r = exec_attach(sb->box, &one, t->number, id[0] ? id : NULL, have, &t->sink, &x);
        if (r == 0) {
                if (set_running(t, x))
                        finish(t);
                else
                        go_on(t);
                return true;
        }
        clear_starting(t);
        if (r == -ENOENT || r == -ENODEV || state == BOX_STOPPED || state == BOX_GONE ||
            state == BOX_ERROR) {
                lose(t,
                     was_queued
                             ? "sbxfs ended before it was sent; it never ran"
                             : "sbxfs ended while it ran, and the sandbox knows nothing of it any more");
                return true;
        }
        log_info("%s: attaching: %s: %s, again later", t->path, errno_name(r), one.sentence);
        return false;
}

/* ---- kill ---- */

void task_kill_now(struct task *t, int signal, uint64_t seq)
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
