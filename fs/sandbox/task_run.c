/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command on its way: started or re-attached by a worker, fed by the provider's thread (the
 * sink). Its end is task_end.c.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/settings.h"
#include "transport/base/log.h"

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
        r = workers_submit(t->sandbox->fleet->workers, WORKER_FAST, task_finish_job, task_ref(t));
        if (r == -ESHUTDOWN)
                task_unref(t); /* the next run asks for the end again */
        else if (r < 0)
                task_finish_job(t);
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

/*
 * No answer came in time: ask whether it runs. -ENOENT: it doesn't, and never will; what else
 * fails leaves that open.
 */
static int ask_if_started(struct task *t, struct box *box, struct exec **ret, struct call *c)
{
        const uint64_t have[2] = {0, 0};
        struct call again;
        int r;

        call_init(&again, clock_after(CALL_NS));
        r = exec_attach(box, &again, t->number, NULL, have, &t->sink, ret);
        if (r == -ENOENT)
                return call_fail(c, r, "the sandbox did not answer; the command was not started");
        if (r < 0)
                log_info("%s: asking whether it runs: %s: %s, again later", t->path, errno_name(r),
                         again.sentence);
        return r;
}

/* True: it may run, though nobody knows so far. */
static bool send_request(struct task *t, struct box *box, const struct task_request *q,
                         struct exec **ret, struct call *c, int *ret_code)
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
        bool is_open = r == -ETIMEDOUT;

        if (is_open) {
                r = ask_if_started(t, box, ret, c);
                is_open = r < 0 && r != -ENOENT;
        }
        *ret_code = r;
        return is_open;
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

/* What waited for it to run: its record, stdin, kills. */
static void go_on(struct task *t)
{
        (void)task_save(t, false); /* it says "queued": a restart asks the provider all the same */
        news_deliver(t->sandbox->fleet);
        results_end(t->sandbox->results, t->seq, 0, NULL);
        task_stdin_pump(t);
        sandbox_plan_poll(t->sandbox);
        task_send_kills(t);
}

static void clear_starting(struct task *t)
{
        mutex_lock(&t->sandbox->lock);
        t->is_starting = false;
        mutex_unlock(&t->sandbox->lock);
}

/* It is as if a former run had started it: asked for until the provider knows. */
static void attach_later(struct task *t)
{
        struct sandbox *sb = t->sandbox;
        char text[sizeof(t->name) + 80];

        (void)snprintf(text, sizeof(text),
                       "exec %.63s: no answer; it is asked again whether it runs", t->name);
        mutex_lock(&sb->lock);
        t->is_starting = false;
        t->needs_attach = true;
        t->state = TASK_RUNNING;
        sandbox_say_error_locked(sb, -ETIMEDOUT, text);
        task_change_locked(t);
        sandbox_change_locked(sb);
        mutex_unlock(&sb->lock);
        news_deliver(sb->fleet);
        (void)task_save(t, false); /* as in go_on */
        sandbox_plan_attach(sb);
}

void task_run(struct task *t, struct call *c)
{
        struct task_request *q;
        struct exec *x = NULL;
        struct box *box = NULL;
        bool is_open = false;
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
                c->deadline_ns = clock_after(CALL_NS);
                is_open = send_request(t, box, q, &x, c, &r);
        }
        task_request_free(q);
        if (is_open) {
                attach_later(t);
        } else if (r < 0) {
                clear_starting(t);
                refuse(t, c->sentence[0] ? c->sentence : strerrordesc_np(-r));
        } else if (set_running(t, x)) {
                task_finish(t);
        } else {
                go_on(t);
        }
}

/* ---- after a restart, or a start without an answer ---- */

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
        if (t->is_ending) {
                mutex_unlock(&sb->lock);
                return true; /* the sandbox went down meanwhile */
        }
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
                        task_finish(t);
                else
                        go_on(t);
                return true;
        }
        clear_starting(t);
        if (r == -ENOENT || r == -ENODEV || state == BOX_STOPPED || state == BOX_GONE ||
            state == BOX_ERROR) {
                lose(t, was_queued ? "sbxfs ended before it was sent; it never ran"
                                   : "it was sent, but the sandbox knows nothing of it any more");
                return true;
        }
        log_info("%s: attaching: %s: %s, again later", t->path, errno_name(r), one.sentence);
        return false;
}
