/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table's functions for commands. A start is one script to a channel that waits (script.c): the
 * supervisor there outlives us and the connection, and all that we hold of a command can be had
 * again from its files by its number; the name of those is its id.
 */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/config.h"
#include "providers/ssh/exec_host.h"
#include "providers/ssh/script.h"
#include "transport/base/cleanup.h"

#define LOOK_NS (50 * NS_PER_MS) /* how often a waiter looks whether it was cancelled */
#define FIRST_LOOK_NS (20 * NS_PER_MS) /* at its output: a short command is over by then */
#define SCRIPT_MAX ((size_t)8 << 20)
#define TRIES 3

static struct ssh_exec *exec_of(struct exec *x)
{
        return container_of(x, struct ssh_exec, base);
}

/*
 * Whose sandbox it is has plain numbers; whoever adopted it counts for itself. `id`: as it was
 * recorded, NULL or "" where it wasn't; an adopter's was the plain number once.
 */
static void set_id(struct ssh_exec *x, struct ssh_box *b, const char *id)
{
        char plain[24];
        bool is_ours;

        (void)snprintf(plain, sizeof(plain), "%" PRIu64, x->number);
        mutex_lock(&b->lock);
        is_ours = strcmp(b->owner, b->ssh->owner) == 0;
        mutex_unlock(&b->lock);
        if (is_ours || (id && strcmp(id, plain) == 0))
                (void)snprintf(x->base.id, sizeof(x->base.id), "%s", plain);
        else
                (void)snprintf(x->base.id, sizeof(x->base.id), "%s-%.32s", plain, b->ssh->owner);
}

static struct ssh_exec *exec_new(struct ssh_box *b, const struct ssh_paths *paths, uint64_t number,
                                 const char *id, struct exec_sink *to)
{
        struct ssh_exec *x = calloc(1, sizeof(*x));

        if (!x)
                return NULL;
        list_init(&x->link);
        x->base.box = &b->base;
        x->host = b->host->execs;
        x->number = number;
        set_id(x, b, id);
        x->sink = to;
        x->refs = 1;
        x->due_ns = x->probe_ns = NEVER_NS;
        x->probe_pause_ns = 50 * NS_PER_MS;
        x->input = BUF_INIT((size_t)4 << 20); /* exec_write holds it far below */
        report_init(&x->report);
        x->run = strdup(paths->run);
        if (asprintf(&x->prefix, "%s/%s", paths->run, x->base.id) < 0)
                x->prefix = NULL;
        if (x->run && x->prefix)
                return x;
        free(x->run);
        free(x->prefix);
        free(x);
        return NULL;
}

static struct ssh_exec *find_locked(struct exec_host *eh, const char *prefix) REQUIRES(eh->lock)
{
        list_for_each (at, &eh->execs) {
                struct ssh_exec *x = container_of(at, struct ssh_exec, link);

                if (x->sink && strcmp(x->prefix, prefix) == 0)
                        return x;
        }
        return NULL;
}

static int add(struct ssh_exec *x, struct call *c)
{
        int r = exec_host_start(x->host, c);

        if (r < 0)
                return r;
        mutex_lock(&x->host->lock);
        if (find_locked(x->host, x->prefix))
                r = -EEXIST;
        else
                list_add_tail(&x->host->execs, &x->link);
        mutex_unlock(&x->host->lock);
        return r < 0 ? call_fail(c, r, "exec %" PRIu64 " is there already", x->number) : 0;
}

/* One that was never followed. */
static void discard(struct ssh_exec *x)
{
        struct exec_host *eh = x->host;

        channel_drop(x);
        mutex_lock(&eh->lock);
        exec_unref_locked(eh, x);
        mutex_unlock(&eh->lock);
}

static void follow(struct ssh_exec *x)
{
        struct exec_host *eh = x->host;

        mutex_lock(&eh->lock);
        x->is_followed = true;
        x->refs++;
        x->due_ns = x->channel ? clock_after(FIRST_LOOK_NS) : 0;
        if (!x->channel)
                x->probe_ns = 0;
        exec_news_locked(eh, x);
        exec_wake_locked(eh);
        mutex_unlock(&eh->lock);
}

/* Paths, and that the host runs commands. */
static int prepare(struct ssh_box *b, struct call *c, const struct ssh_paths **ret)
{
        int r = host_shell(b->host, c);

        return r < 0 ? r : ssh_box_paths(b, c, ret);
}

/* ---- start ---- */

static int check_user(const struct ssh_box *b, struct call *c, const char *user)
{
        _cleanup_(freep) char *own = NULL;
        int r = user ? ssh_plan_user(b->host->config, c, &own) : 0;

        if (r < 0)
                return c->sentence[0] ? r : call_fail_errno(c, r, "user=%s", user);
        if (!user || strcmp(user, own) == 0)
                return 0;
        return call_fail(c, -EOPNOTSUPP,
                         "user=%s: commands run as the account that sbxfs logs in with", user);
}

static int compose(struct ssh_box *b, struct call *c, const struct ssh_paths *paths,
                   const struct exec_req *in, struct ssh_exec *x, struct buf *to)
{
        const struct script_exec s = {.dir = paths->dir,
                                      .work = paths->work,
                                      .run = paths->run,
                                      .prefix = x->prefix,
                                      .box = b->key,
                                      .can = host_known(b->host),
                                      .token = x->report.token,
                                      .detaches = x->detaches,
                                      .in = in};
        int r = shell_token(x->report.token);

        if (r == 0)
                r = script_start(to, &s);
        if (r == -E2BIG)
                return call_fail(c, r, "the command is too long");
        if (r == -EINVAL)
                return call_fail(c, r, "an environment name that the host's shell can't set");
        return r < 0 ? call_fail_errno(c, r, "the command") : 0;
}

/* -EPIPE: certainly not sent. */
static int send_once(struct ssh_exec *x, struct call *c, const struct buf *script)
{
        int r = channel_take(x->host, c, x);

        if (r < 0)
                return r;
        r = stream_send(x->channel->stream, script->data, script->size);
        if (r == 0)
                (void)stream_send_eof(x->channel->stream); /* else its end will be seen */
        else
                channel_drop(x);
        return r;
}

static int send_script(struct ssh_exec *x, struct call *c, const struct buf *script)
{
        int r = -EPIPE;

        for (unsigned i = 0; i < TRIES && r == -EPIPE; i++)
                r = send_once(x, c, script);
        if (r == -EPIPE)
                return call_fail(c, -EHOSTUNREACH, "the connection ended");
        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "exec") : r;
}

static int refused(const struct report *p, struct call *c, const struct exec_req *in)
{
        const char *why = strerrordesc_np(-p->refused);

        if (strcmp(p->what, "cwd") == 0)
                return call_fail(c, p->refused, "%s: %s", in->cwd, why);
        if (strcmp(p->what, "command") == 0)
                return call_fail(c, p->refused, "%s: %s", in->argv[0], why);
        if (strcmp(p->what, "box") == 0)
                return call_fail(c, p->refused, "the sandbox's directory is gone from the host");
        if (strcmp(p->what, "shell") == 0)
                return call_fail(c, p->refused, "the host's shell could not start it");
        return call_fail(c, p->refused, "its %.15s directory on the host: %s", p->what, why);
}

/* The channel ended without a word. */
static int ended_early_locked(const struct ssh_exec *x, struct call *c)
{
        const struct stream_end *end = &x->channel->end;

        if (end->error == 0 && end->has_code)
                return call_fail(c, -EIO, "the host's shell ended (exit %d) and started nothing",
                                 end->code);
        return call_fail(c, -ETIMEDOUT,
                         "the connection ended before the host said that it runs%s%s",
                         end->sentence[0] ? ": " : "", end->sentence);
}

static int wait_started(struct ssh_exec *x, struct call *c, const struct exec_req *in)
{
        struct exec_host *eh = x->host;
        const struct report *p = &x->report;
        int r = 0;

        mutex_lock(&eh->lock);
        while (!p->has_started && p->refused == 0 && !x->channel->has_ended && r == 0) {
                uint64_t look_ns = clock_after(LOOK_NS);

                (void)cond_wait_until(&eh->changed, &eh->lock,
                                      look_ns < c->deadline_ns ? look_ns : c->deadline_ns);
                r = call_check(c);
        }
        if (p->has_started)
                r = 0;
        else if (p->refused < 0)
                r = refused(p, c, in);
        else if (x->channel->has_ended)
                r = ended_early_locked(x, c);
        else
                r = call_fail(c, -ETIMEDOUT,
                              "no word from the host whether the command was started");
        if (p->refused < 0 && p->refused != -EEXIST)
                exec_forget_locked(eh, x);
        mutex_unlock(&eh->lock);
        return r;
}

int ssh_exec_start(struct box *box, struct call *c, const struct exec_req *in, struct exec_sink *to,
                   struct exec **ret)
{
        _cleanup_(buf_wipe) struct buf script = BUF_INIT(SCRIPT_MAX);
        struct ssh_box *b = ssh_box_of(box);
        const struct ssh_paths *paths = NULL;
        struct ssh_exec *x;
        int r = check_user(b, c, in->user);

        if (r == 0)
                r = ssh_box_check_runs(b, c);
        if (r == 0)
                r = prepare(b, c, &paths);
        if (r < 0 || !paths)
                return r;
        x = exec_new(b, paths, in->number, NULL, to);
        if (!x)
                return call_fail(c, -ENOMEM, "out of memory");
        x->has_stdin = in->has_stdin;
        x->detaches = channel_detaches(x->host);
        r = compose(b, c, paths, in, x, &script);
        if (r == 0)
                r = add(x, c);
        if (r == 0)
                r = send_script(x, c, &script);
        if (r == 0)
                r = wait_started(x, c, in);
        if (r == -ENODEV)
                ssh_box_missed(b);
        if (r < 0) {
                discard(x);
                return r;
        }
        x->base.pid = x->report.pid;
        if (x->detaches)
                channel_drop(x);
        follow(x);
        *ret = &x->base;
        return 0;
}

/* ---- attach ---- */

#define PIECES_MAX 256

/* What script_attach printed. */
struct found {
        bool is_none, is_alive, has_rc;
        char rc[64];
        unsigned long long pid, took;
        unsigned long long hole[2];
        unsigned long long from[PIECES_MAX], to[PIECES_MAX];
        size_t count;
        bool has_last;
        unsigned long long last;
};

static void take_line(struct found *f, const char *line)
{
        unsigned long long a, b;
        int alive;

        if (strcmp(line, "none") == 0)
                f->is_none = true;
        else if (sscanf(line, "alive %d", &alive) == 1)
                f->is_alive = alive == 1;
        else if (strncmp(line, "rc ", 3) == 0)
                f->has_rc = snprintf(f->rc, sizeof(f->rc), "%s", line + 3) < (int)sizeof(f->rc);
        else if (sscanf(line, "pid %19llu", &a) == 1)
                f->pid = a;
        else if (sscanf(line, "took %19llu", &a) == 1)
                f->took = a;
        else if (sscanf(line, "hole.0 %19llu", &a) == 1)
                f->hole[0] = a;
        else if (sscanf(line, "hole.1 %19llu", &a) == 1)
                f->hole[1] = a;
        else if (sscanf(line, "in %19llu eo%*c", &a) == 1 && strstr(line, " eof"))
                f->has_last = true, f->last = a;
        else if (f->count < PIECES_MAX && sscanf(line, "in %19llu %19llu", &a, &b) == 2)
                f->from[f->count] = a, f->to[f->count++] = b;
}

/* Stdin up to here is there: what was taken, and the pieces that follow on it. */
static uint64_t stdin_there(const struct found *f)
{
        uint64_t at = f->took;
        bool goes_on = true;

        while (goes_on) {
                goes_on = false;
                for (size_t i = 0; i < f->count; i++) {
                        if (f->from[i] == at && f->to[i] > at) {
                                at = f->to[i];
                                goes_on = true;
                        }
                }
        }
        return at;
}

static int ask(struct ssh_box *b, struct call *c, const char *prefix, bool fence, struct found *f)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(64 * 1024);
        _cleanup_(buf_done) struct buf out = BUF_INIT(256 * 1024);
        char *save = NULL;
        int code = 0, r = script_attach(&script, prefix, host_known(b->host), fence);

        if (r == 0)
                r = shell_run_buf(b->host->shell, c, buf_str(&script), &out, &code);
        if (r < 0)
                return c->sentence[0] ? r : call_fail_errno(c, r, "attach");
        if (code != 0 || out.size == 0)
                return call_wrap(c, -EIO, "what the host knows of the command");
        for (char *line = strtok_r(out.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                take_line(f, line);
        return f->is_none ? call_fail(c, -ENOENT, "the host doesn't know this command") : 0;
}

static void resume(struct ssh_exec *x, const struct found *f, const uint64_t have[2])
{
        const char *lost = "its supervisor on the host is gone";
        char what[16] = "";
        int r;

        x->base.pid = (int64_t)f->pid;
        x->has_stdin = true; /* unless it has none: then there is nothing to take */
        x->input_at = stdin_there(f);
        x->taken = f->took < x->input_at ? f->took : x->input_at;
        x->taken_told = x->input_at;
        x->is_last = x->is_last_fed = f->has_last && f->last == x->input_at;
        x->probe_ns = 0;
        x->probe_pause_ns = 50 * NS_PER_MS;
        for (unsigned i = 0; i < 2; i++) {
                x->given[i] = have[i] > f->hole[i] ? have[i] : f->hole[i];
                x->punched[i] = f->hole[i];
        }
        if (!f->has_rc && f->is_alive)
                return;
        x->has_end = true;
        r = f->has_rc ? report_parse_rc(f->rc, &x->end, what) : 0;
        if (!f->has_rc || r == -EPROTO) {
                x->end.kind = EXEC_END_LOST;
                (void)snprintf(x->end.sentence, sizeof(x->end.sentence), "%s", lost);
        } else if (r < 0) {
                x->end.kind = EXEC_END_ERROR;
                (void)snprintf(x->end.sentence, sizeof(x->end.sentence), "%s: %s", what,
                               strerrordesc_np(-r));
        }
}

int ssh_exec_attach(struct box *box, struct call *c, uint64_t number, const char *id,
                    const uint64_t have[2], struct exec_sink *to, struct exec **ret)
{
        struct ssh_box *b = ssh_box_of(box);
        const struct ssh_paths *paths = NULL;
        struct found *f = calloc(1, sizeof(*f));
        struct ssh_exec *x;
        int r = f ? prepare(b, c, &paths) : call_fail(c, -ENOMEM, "out of memory");

        x = r == 0 && paths ? exec_new(b, paths, number, id, to) : NULL;
        if (r == 0 && !x)
                r = call_fail(c, -ENOMEM, "out of memory");
        /* Without an id it may still be on its way there: it must not start after our answer. */
        if (x && r == 0)
                r = ask(b, c, x->prefix, !id, f);
        if (x && r == 0) {
                resume(x, f, have);
                r = add(x, c);
        }
        free(f);
        if (x && r < 0)
                discard(x);
        if (!x || r < 0)
                return r;
        sink_taken(x, x->input_at); /* where stdin goes on; from follow on sinks are others' */
        follow(x);
        *ret = &x->base;
        return 0;
}

/* ---- stdin, signals, release ---- */

int ssh_exec_write(struct exec *x, struct call *c, const void *data, size_t size, bool is_last)
{
        struct ssh_exec *e = exec_of(x);
        struct exec_host *eh = e->host;
        int r = 0;

        mutex_lock(&eh->lock);
        if (e->is_ended || e->has_end || e->is_last || !e->has_stdin)
                r = -EPIPE;
        else if (e->input_at + e->input.size + size > exec_taken_locked(eh, e) + EXEC_STDIN_WINDOW)
                r = -EAGAIN;
        else if (size > 0)
                r = buf_add(&e->input, data, size);
        if (r == 0) {
                e->is_last = is_last;
                e->feed_ns = 0;
                e->due_ns = 0; /* it is told how far it is taken */
                exec_wake_locked(eh);
        }
        mutex_unlock(&eh->lock);
        return r < 0 ? call_fail_errno(c, r, "stdin") : 0;
}

int ssh_exec_signal(struct exec *x, struct call *c, int signal)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(64 * 1024);
        struct ssh_exec *e = exec_of(x);
        bool is_ended;
        int r, code = 0;

        if (signal < 1 || signal > 64)
                return call_fail(c, -EINVAL, "signal %d", signal);
        mutex_lock(&e->host->lock);
        is_ended = e->is_ended;
        mutex_unlock(&e->host->lock);
        if (is_ended)
                return call_fail(c, -ESRCH, "it has ended");
        r = script_signal(&script, e->prefix, host_known(e->host->host), signal);
        if (r == 0)
                r = shell_run_buf(e->host->host->shell, c, buf_str(&script), NULL, &code);
        if (r < 0)
                return c->sentence[0] ? r : call_fail_errno(c, r, "signal");
        if (code == 3)
                return call_fail(c, -ESRCH, "none of its processes is left");
        return code != 0 ? call_wrap(c, -EIO, "signal") : 0;
}

void ssh_exec_release(struct exec *x)
{
        struct ssh_exec *e = exec_of(x);
        struct exec_host *eh = e->host;

        mutex_lock(&eh->lock);
        e->sink = NULL;
        while (e->is_calling && !pthread_equal(e->caller, pthread_self()))
                cond_wait(&eh->changed, &eh->lock);
        if (e->is_ended)
                exec_forget_locked(eh, e);
        e->due_ns = 0;
        exec_unref_locked(eh, e);
        exec_wake_locked(eh);
        mutex_unlock(&eh->lock);
}

/* ---- all of a sandbox ---- */

int ssh_exec_signal_all(struct ssh_box *b, struct call *c, int signal)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(64 * 1024);
        _cleanup_(buf_done) struct buf out = BUF_INIT(4096);
        const struct ssh_paths *paths = NULL;
        int code = 0, r = prepare(b, c, &paths);

        if (r == 0 && paths)
                r = script_signal_all(&script, paths->run, b->key, host_known(b->host), signal);
        if (r == 0)
                r = shell_run_buf(b->host->shell, c, buf_str(&script), &out, &code);
        if (r < 0)
                return c->sentence[0] ? r : call_fail_errno(c, r, "signal");
        if (code != 0)
                return call_wrap(c, -EIO, "the sandbox's processes");
        return atoi(buf_str(&out));
}

void ssh_execs_done(struct ssh_box *b)
{
        (void)b; /* each was released, and none points to it from then on */
}
