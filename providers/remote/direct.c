/* SPDX-License-Identifier: Apache-2.0 */
/* Commands by the service itself; see direct.h. */

#include "providers/remote/direct.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/remote/private.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/random.h"

#define ID "direct:" /* begins the id of each */
#define HEAD_MAX ((size_t)8 << 10) /* of stderr before our line: what a login shell says there */
#define NO_DIRECTORY 125
#define EARLY_MAX                                                                                  \
        ((size_t)16 << 20) /* of stdout that overtakes our line; then the command is lost */

/*
 * $0 our line's mark, $1 the directory, $2 seconds or 0, $3 what stdin is, or "" for our own; then
 * NAME=VALUE..., the command. What is
 * told first, on stderr: the mark, and the group's number, negative, or that of the only process
 * which signals can be sent to. A group of its own has who has no setsid, too, where the shell has
 * job control; but such shells print about it.
 */
static const char script[] =
        "cd \"$1\" || exit 125\n"
        "t=$2; if [ \"$3\" ]; then exec 3<\"$3\"; else exec 3<&0; fi; shift 3\n"
        "if command -v setsid >/dev/null 2>&1; then g=-\n"
        "setsid sh -c 'printf \"%s=%s\\n\" \"$0\" \"-$$\" >&2; exec env \"$@\"' \"$0\" \"$@\" <&3 3<&- &\n"
        "else g=\n"
        "sh -c 'printf \"%s=%s\\n\" \"$0\" \"$$\" >&2; exec env \"$@\"' \"$0\" \"$@\" <&3 3<&- &\n"
        "fi\n"
        "p=$!; exec 3<&- </dev/null\n"
        "[ \"$t\" = 0 ] || { (trap 'kill $!; exit' TERM; sleep \"$t\" & wait $!\n"
        "kill -TERM \"$g$p\"; sleep 5; kill -KILL \"$g$p\")"
        " >/dev/null 2>&1 & w=$!; }\n"
        "wait \"$p\"; s=$?\n"
        "[ \"$t\" = 0 ] || kill \"$w\" 2>/dev/null\n"
        "exit $s\n";

struct direct {
        struct exec base;
        struct remote_box *b;
        struct exec_sink *to;
        struct stream *stream; /* fixed once it was opened */
        char mark
                [RANDOM_ID_SIZE]; /* with '=' behind it our line: a shell's own begin with it, too */
        bool has_stdin;
        uint64_t due_ns; /* of its time-out; NEVER_NS */
        uint64_t at[2]; /* bytes of each stream; only events touch these */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct buf head; /* of stderr, until our line came */
        struct buf early; /* stdout, likewise */
        bool has_begun, is_over, is_last;
        bool is_calling; /* the sink */
        bool is_taken_due; /* and then it is to be told what was taken */
        uint64_t sent;
        int64_t target; /* what signals are sent to: a group, negative, or a process */
        uint64_t signals; /* those that were sent, remote_signal_bit */
        struct stream_end end;
};

static struct direct *direct_of(struct exec *x)
{
        return container_of(x, struct direct, base);
}

bool direct_exec_is(const char *id)
{
        return id && strncmp(id, ID, strlen(ID)) == 0;
}

/* ---- the sink: never two calls at once ---- */

static void begin_call_locked(struct direct *x) REQUIRES(x->lock)
{
        while (x->is_calling)
                cond_wait(&x->changed, &x->lock);
        x->is_calling = true;
}

static void tell_taken_locked(struct direct *x) REQUIRES(x->lock)
{
        while (x->is_taken_due && !x->is_over) {
                uint64_t total = x->sent;

                x->is_taken_due = false;
                mutex_unlock(&x->lock);
                x->to->stdin_taken(x->to, total);
                mutex_lock(&x->lock);
        }
}

static void end_call_locked(struct direct *x) REQUIRES(x->lock)
{
        tell_taken_locked(x);
        x->is_calling = false;
        cond_broadcast(&x->changed);
}

/* The connection holds little of it: more may come. */
static void take_locked(struct direct *x) REQUIRES(x->lock)
{
        x->is_taken_due = x->has_stdin && !x->is_over && x->to->stdin_taken;
        if (!x->is_taken_due || x->is_calling)
                return; /* whoever calls tells it afterwards */
        x->is_calling = true;
        end_call_locked(x);
}

static void put_out(struct direct *x, unsigned stream, const void *data, size_t size)
{
        uint64_t offset = x->at[stream];

        if (size == 0)
                return;
        x->at[stream] += size;
        mutex_lock(&x->lock);
        begin_call_locked(x);
        mutex_unlock(&x->lock);
        x->to->output(x->to, (enum exec_stream)stream, offset, data, size);
        mutex_lock(&x->lock);
        end_call_locked(x);
        mutex_unlock(&x->lock);
}

/* ---- from the service ---- */

/*
 * stderr up to our line: what stands before it is the shell's, what is behind it the command's, and
 * goes to `rest`. -EPROTO: it doesn't come.
 */
static int find_line_locked(struct direct *x, const void *data, size_t size, struct buf *rest)
        REQUIRES(x->lock)
{
        char begin[RANDOM_ID_SIZE + 1];
        const char *mark, *digits, *newline, *end;
        int r = buf_add(&x->head, data, size);

        if (r < 0)
                return -EPROTO;
        (void)snprintf(begin, sizeof(begin), "%s=", x->mark);
        mark = memmem(x->head.data, x->head.size, begin, strlen(begin));
        if (!mark)
                return 0;
        end = (const char *)x->head.data + x->head.size;
        digits = mark + strlen(begin);
        newline = memchr(digits, '\n', (size_t)(end - digits));
        if (!newline)
                return 0;
        x->target = strtoll(digits, NULL, 10); /* the newline ends it */
        x->base.pid = x->target < 0 ? -x->target : x->target;
        x->has_begun = true;
        r = buf_add(rest, newline + 1, (size_t)(end - newline - 1));
        cond_broadcast(&x->changed);
        return r < 0 ? -ENOMEM : 0;
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        _cleanup_(buf_done) struct buf rest = BUF_INIT(HEAD_MAX);
        struct direct *x = ctx;
        bool is_before, has_begun;
        int r = 0;

        mutex_lock(&x->lock);
        is_before = !x->has_begun;
        if (is_before)
                r = is_stderr ? find_line_locked(x, data, size, &rest)
                              : buf_add(&x->early, data, size);
        has_begun = x->has_begun;
        mutex_unlock(&x->lock);
        if (r < 0)
                log_warning("%s: no word of a command among what it said: %s", x->b->base.id,
                            errno_name(r));
        if (!is_before) {
                put_out(x, is_stderr, data, size);
        } else if (has_begun) { /* just now: from here on nothing is kept */
                put_out(x, 0, x->early.data, x->early.size);
                put_out(x, 1, rest.data, rest.size);
        }
}

static void on_drained(void *ctx)
{
        struct direct *x = ctx;

        mutex_lock(&x->lock);
        take_locked(x);
        mutex_unlock(&x->lock);
}

/* The signal that it died of; 0 none. */
static int killed_by(struct direct *x, const struct stream_end *from)
{
        uint64_t signals;

        if (from->signal != 0 || !from->has_code)
                return from->signal;
        mutex_lock(&x->lock);
        signals = x->signals;
        mutex_unlock(&x->lock);
        return remote_killed_by(from->code, signals);
}

static void tell_end(struct direct *x, const struct stream_end *from)
{
        struct exec_end end = {.kind = EXEC_END_LOST};
        int signal = killed_by(x, from);

        if (from->error < 0)
                (void)snprintf(end.sentence, sizeof(end.sentence), "%s",
                               from->sentence[0] ? from->sentence : strerrordesc_np(-from->error));
        else if (clock_mono_ns() >= x->due_ns)
                end.kind = EXEC_END_TIMEOUT;
        else if (signal != 0)
                end = (struct exec_end){.kind = EXEC_END_SIGNAL, .value = signal};
        else if (from->has_code)
                end = (struct exec_end){.kind = EXEC_END_CODE, .value = from->code};
        else
                (void)snprintf(end.sentence, sizeof(end.sentence), "it ended without a code");
        x->to->end(x->to, &end);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct direct *x = ctx;
        bool has_begun;

        mutex_lock(&x->lock);
        x->end = *end;
        has_begun = x->has_begun;
        begin_call_locked(x);
        x->is_over = true;
        mutex_unlock(&x->lock);
        if (has_begun) {
                atomic_fetch_sub(&x->b->direct_execs, 1);
                tell_end(x, end);
        }
        mutex_lock(&x->lock);
        end_call_locked(x);
        mutex_unlock(&x->lock);
}

/* ---- the start ---- */

/* Its argv: ours, the environment's, the command's. To free, the texts belong to others. */
static const char **pack(struct direct *x, const struct exec_req *in, const char *dir,
                         const char *seconds, char **env)
{
        static const size_t ours = 7; /* sh -c SCRIPT mark dir seconds stdin */
        size_t count = 0;
        const char **argv;

        while (in->argv[count])
                count++;
        argv = calloc(ours + in->env_count + count + 1, sizeof(*argv));
        if (!argv)
                return NULL;
        argv[0] = "sh";
        argv[1] = "-c";
        argv[2] = script;
        argv[3] = x->mark;
        argv[4] = dir;
        argv[5] = seconds;
        argv[6] = in->has_stdin ? "" : "/dev/null";
        for (size_t i = 0; i < in->env_count; i++)
                argv[ours + i] = env[i];
        memcpy(argv + ours + in->env_count, in->argv, count * sizeof(*argv));
        return argv;
}

static void free_env(char **env, size_t count)
{
        for (size_t i = 0; env && i < count; i++) {
                if (env[i])
                        explicit_bzero(env[i], strlen(env[i]));
                free(env[i]);
        }
        free(env);
}

/* NULL: no memory. */
static char **make_env(const struct exec_req *in)
{
        char **env = calloc(in->env_count + 1, sizeof(*env));

        for (size_t i = 0; env && i < in->env_count; i++) {
                if (asprintf(&env[i], "%s=%s", in->env[i].key, in->env[i].value) < 0) {
                        env[i] = NULL;
                        free_env(env, i);
                        return NULL;
                }
        }
        return env;
}

/* Where it starts, absolute. -ENOMEM. */
static int find_dir(const char *workdir, const char *cwd, char **ret)
{
        if (!cwd || cwd[0] == '/')
                *ret = strdup(cwd ? cwd : workdir);
        else if (asprintf(ret, "%s/%s", workdir, cwd) < 0)
                *ret = NULL;
        return *ret ? 0 : -ENOMEM;
}

static const struct stream_events *events_of(struct direct *x, struct stream_events *to)
{
        *to = (struct stream_events){
                .data = on_data, .drained = on_drained, .end = on_end, .ctx = x};
        return to;
}

static int open_stream(struct direct *x, struct call *c, const struct exec_req *in)
{
        _cleanup_(freep) const char **argv = NULL;
        _cleanup_(freep) char *dir = NULL;
        struct stream_events events;
        struct remote_place place;
        char seconds[32];
        char **env = NULL;
        int r = remote_place(x->b, c, &place);

        if (r < 0)
                return r;
        (void)snprintf(seconds, sizeof(seconds), "%" PRIu64,
                       (in->timeout_ns + NS_PER_S - 1) / NS_PER_S);
        env = make_env(in);
        r = env ? find_dir(place.workdir, in->cwd, &dir) : -ENOMEM;
        if (r == 0)
                argv = pack(x, in, dir, seconds, env);
        if (argv) {
                const struct remote_program p = {
                        .argv = argv, .cwd = "/", .has_stdin = in->has_stdin};

                r = x->b->remote->ops->open(x->b, c, in->user ? in->user : place.user, &p,
                                            events_of(x, &events), &x->stream);
        } else {
                r = call_fail(c, -ENOMEM, "out of memory");
        }
        free_env(env, in->env_count);
        return r;
}

/* Until our line came; what the shell said else. */
static int wait_begun(struct direct *x, struct call *c, const struct exec_req *in)
{
        int r = 0;

        mutex_lock(&x->lock);
        while (r == 0 && !x->has_begun && !x->is_over) {
                uint64_t until_ns = clock_after(100 * NS_PER_MS);

                (void)cond_wait_until(&x->changed, &x->lock,
                                      until_ns < c->deadline_ns ? until_ns : c->deadline_ns);
                r = call_check(c);
        }
        if (x->has_begun)
                r = 0;
        else if (r < 0)
                (void)call_fail(c, r, "no word of the command");
        else if (x->end.error < 0)
                r = call_fail(c, x->end.error, "%s", x->end.sentence);
        else if (x->end.code == NO_DIRECTORY)
                r = call_fail(c, -ENOENT, "no such directory in the sandbox: %s",
                              in->cwd ? in->cwd : "its working directory");
        else
                r = call_fail(c, -EIO, "the sandbox's shell ended with code %d: %.200s",
                              x->end.code, buf_str(&x->head));
        mutex_unlock(&x->lock);
        return r;
}

static void exec_free(struct direct *x)
{
        bool was_running;

        stream_close(x->stream);
        mutex_lock(&x->lock);
        was_running = x->has_begun && !x->is_over;
        mutex_unlock(&x->lock);
        if (was_running)
                atomic_fetch_sub(&x->b->direct_execs, 1);
        buf_done(&x->head);
        buf_done(&x->early);
        cond_done(&x->changed);
        mutex_done(&x->lock);
        free(x);
}

int direct_exec_start(struct remote_box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret)
{
        struct direct *x;
        int r;

        if (in->has_stdin && b->remote->ops->has_no_eof)
                return call_fail(c, -EOPNOTSUPP,
                                 "the service can't end a command's stdin, and our program can't "
                                 "run in this sandbox: exec it without stdin");
        x = calloc(1, sizeof(*x));
        r = x ? random_id(x->mark) : -ENOMEM;
        if (r < 0) {
                free(x);
                return call_fail_errno(c, r, "exec");
        }
        mutex_init(&x->lock);
        cond_init(&x->changed);
        x->base.box = &b->base;
        x->b = b;
        x->to = to;
        x->has_stdin = in->has_stdin;
        x->due_ns = in->timeout_ns ? clock_after(in->timeout_ns) : NEVER_NS;
        x->head = (struct buf)BUF_INIT(HEAD_MAX);
        x->early = (struct buf)BUF_INIT(EARLY_MAX);
        (void)snprintf(x->base.id, sizeof(x->base.id), ID "%" PRIu64, in->number);
        atomic_fetch_add(&b->direct_execs, 1); /* until it ends, or doesn't begin */
        r = open_stream(x, c, in);
        if (r == 0)
                r = wait_begun(x, c, in);
        if (r < 0) {
                mutex_lock(&x->lock);
                if (!x->has_begun)
                        atomic_fetch_sub(&b->direct_execs, 1);
                mutex_unlock(&x->lock);
                exec_free(x);
                return r;
        }
        *ret = &x->base;
        return 0;
}

/* ---- stdin, signals, release ---- */

int direct_exec_write(struct exec *base, struct call *c, const void *data, size_t size,
                      bool is_last)
{
        struct direct *x = direct_of(base);
        int r;

        mutex_lock(&x->lock);
        r = x->is_over || x->is_last || !x->has_stdin ? -EPIPE : 0;
        if (r == 0 && size > 0)
                r = stream_send(x->stream, data, size);
        if (r == 0) {
                x->sent += size;
                x->is_last = is_last;
        }
        if (r == 0 && is_last)
                r = stream_send_eof(x->stream);
        if (r == 0 && stream_queued(x->stream) <= STREAM_QUEUE_LOW)
                take_locked(x); /* else when it is drained */
        mutex_unlock(&x->lock);
        if (r == -ENOBUFS)
                return call_fail(c, -EAGAIN, "the service takes its stdin too slowly");
        return r < 0 ? call_fail_errno(c, r, "stdin") : 0;
}

int direct_exec_signal(struct exec *base, struct call *c, int signal)
{
        struct direct *x = direct_of(base);
        char number[16], target[32];
        const char *const argv[] = {"sh",   "-c", "kill \"-$1\" \"$2\" 2>/dev/null", "kill", number,
                                    target, NULL};
        const struct remote_program p = {.argv = argv, .cwd = "/"};
        struct remote_place place;
        int code = 0, r;
        bool is_over;

        if (signal < 1 || signal > 64)
                return call_fail(c, -EINVAL, "signal %d", signal);
        mutex_lock(&x->lock);
        is_over = x->is_over;
        x->signals |= remote_signal_bit(signal);
        (void)snprintf(target, sizeof(target), "%" PRId64, x->target);
        mutex_unlock(&x->lock);
        if (is_over)
                return call_fail_errno(c, -ESRCH, "signal");
        (void)snprintf(number, sizeof(number), "%d", signal);
        r = remote_place(x->b, c, &place);
        if (r == 0)
                r = x->b->remote->ops->run(x->b, c, place.user, &p, NULL, &code);
        return r == 0 && code != 0 ? call_fail_errno(c, -ESRCH, "signal") : r;
}

void direct_exec_release(struct exec *base)
{
        exec_free(direct_of(base));
}
