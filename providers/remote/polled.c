/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that are asked for; see polled.h. */

#include "providers/remote/polled.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/remote/private.h"
#include "providers/remote/scripts.h"
#include "transport/base/backoff.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/ssh/base64.h"

#define ID "polled:" /* begins the id of each; the directory's mark follows */
#define PREFIX "/tmp/.sbxfs-"
#define COMMAND_MAX ((size_t)40 << 10) /* quoted; it goes as base64, in one command line */
#define ANSWER_MAX ((size_t)4 << 20)
#define ASK_MIN_NS (50 * NS_PER_MS)
#define ASK_MAX_NS (2 * NS_PER_S)
#define ASK_NS (70 * NS_PER_S) /* one question */
#define MISSES_MAX 5 /* failed questions in a row, of which others look at the sandbox */

/* What a script's code says that asks for one that isn't there. */
#define IS_GONE "gone"

struct polled {
        struct exec base;
        struct remote_box *b;
        struct exec_sink *to;
        char dir[SCRIPTS_DIR_SIZE], user[64];
        pthread_t thread;
        uint64_t at[2]; /* bytes of each stream that were handed on; the thread's */
        uint64_t due_ns; /* of its time-out; NEVER_NS, also after an attach: its code tells */
        struct call asking; /* the thread's; its cancel flag is anybody's */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        bool is_released, is_over;
        uint64_t signals; /* those that were sent, remote_signal_bit */
};

static struct polled *polled_of(struct exec *x)
{
        return container_of(x, struct polled, base);
}

bool polled_exec_is(const char *id)
{
        return id && strncmp(id, ID, strlen(ID)) == 0;
}

/* ---- the thread: what it printed, how it ended ---- */

/* The status first: what was printed before it is then there. */
static const char ask_script[] = "cd \"$1\" 2>/dev/null || { echo " IS_GONE "; exit 0; }\n"
                                 "s=; [ -e s ] && s=$(cat s)\n"
                                 "tail -c \"+$2\" o | head -c 1000000 | base64; echo =\n"
                                 "tail -c \"+$3\" e | head -c 1000000 | base64; echo =\n"
                                 "echo \"$(cat p 2>/dev/null) ${s:-running}\"\n";

static int hand_on(struct polled *x, unsigned stream, const char *text, const char *end)
{
        _cleanup_(buf_done) struct buf bytes = BUF_INIT(ANSWER_MAX);
        int r = base64_decode(&bytes, text, (size_t)(end - text));

        if (r < 0 || bytes.size == 0)
                return r;
        x->to->output(x->to, (enum exec_stream)stream, x->at[stream], bytes.data, bytes.size);
        x->at[stream] += bytes.size;
        return 1;
}

/* The separator behind `text`; NULL: there is none. */
static const char *find_end(const char *text)
{
        return text[0] == '=' ? text : strstr(text, "\n=\n");
}

/*
 * 1 it goes on, 0 it has ended, with *ret_code, -ENOENT it is not known there, or another error.
 * *ret_news: it printed something.
 */
static int take_answer(struct polled *x, const char *text, int *ret_code, bool *ret_news)
{
        char *after;

        *ret_news = false;
        if (strncmp(text, IS_GONE "\n", strlen(IS_GONE) + 1) == 0)
                return -ENOENT;
        for (unsigned stream = 0; stream < 2; stream++) {
                const char *end = find_end(text);
                int r = end ? hand_on(x, stream, text, end) : -EPROTO;

                if (r < 0)
                        return -EPROTO;
                *ret_news |= r > 0;
                text = strchr(end[0] == '=' ? end : end + 1, '\n');
                if (!text)
                        return -EPROTO;
                text++;
        }
        x->base.pid = llabs(strtoll(text, &after, 10));
        if (*after != ' ')
                return -EPROTO;
        if (strcmp(after + 1, "running\n") == 0 || *ret_news)
                return 1; /* there may be more of it */
        *ret_code = (int)strtol(after + 1, NULL, 10);
        return 0;
}

static int ask(struct polled *x, int *ret_code, bool *ret_news)
{
        _cleanup_(buf_done) struct buf said = BUF_INIT(ANSWER_MAX);
        char from[2][24];
        const char *const args[] = {x->dir, from[0], from[1], NULL};
        int r;

        for (unsigned i = 0; i < 2; i++) /* tail counts from 1 */
                (void)snprintf(from[i], sizeof(from[i]), "%" PRIu64, x->at[i] + 1);
        *ret_news = false;
        x->asking.deadline_ns = clock_after(ASK_NS);
        r = scripts_run(x->b, &x->asking, x->user, ask_script, args, &said);
        return r < 0 ? r : take_answer(x, buf_str(&said), ret_code, ret_news);
}

static void forget(struct polled *x)
{
        static const char script[] = "rm -rf \"$1\"";
        const char *const args[] = {x->dir, NULL};
        struct call c;

        call_init(&c, clock_after(ASK_NS / 10));
        (void)scripts_run(x->b, &c, x->user, script, args, NULL); /* it is in /tmp */
}

static void tell_end(struct polled *x, int r, int code)
{
        struct exec_end end = {.kind = EXEC_END_CODE, .value = code};
        int signal;

        mutex_lock(&x->lock);
        x->is_over = true;
        signal = remote_killed_by(code, x->signals);
        mutex_unlock(&x->lock);
        if (r < 0) {
                end = (struct exec_end){.kind = EXEC_END_LOST};
                (void)snprintf(end.sentence, sizeof(end.sentence), "%.200s",
                               r == -ENOENT ? "the sandbox doesn't know this command any more"
                                            : x->asking.sentence);
        } else if (clock_mono_ns() >= x->due_ns) {
                end.kind = EXEC_END_TIMEOUT;
        } else if (signal != 0) {
                end = (struct exec_end){.kind = EXEC_END_SIGNAL, .value = signal};
        }
        x->to->end(x->to, &end);
}

/* False: it was released. */
static bool pause_asking(struct polled *x, uint64_t span_ns)
{
        uint64_t until_ns = clock_after(span_ns);
        bool is_released;

        mutex_lock(&x->lock);
        while (!x->is_released && clock_mono_ns() < until_ns)
                (void)cond_wait_until(&x->changed, &x->lock, until_ns);
        is_released = x->is_released;
        mutex_unlock(&x->lock);
        return !is_released;
}

/* A failure that says nothing of the command: it is asked for as long as the sandbox may be there. */
static bool may_pass(int r)
{
        return r != -ENODEV && r != -ENOENT && r != -EOPNOTSUPP;
}

static void *run_asking(void *arg)
{
        struct polled *x = arg;
        unsigned quiet = 0, misses = 0;
        bool has_news;
        int r, code = 0;

        do {
                r = ask(x, &code, &has_news);
                misses = r < 0 ? misses + 1 : 0;
                if (misses == MISSES_MAX && x->b->remote->listener.box_changed)
                        x->b->remote->listener.box_changed(x->b->remote->listener.ctx,
                                                           x->b->base.id);
                quiet = has_news && r > 0 ? 0 : quiet + 1;
        } while ((r > 0 || (r < 0 && may_pass(r))) &&
                 pause_asking(x, quiet == 0 ? 1 : backoff_ns(quiet, ASK_MIN_NS, ASK_MAX_NS)));
        mutex_lock(&x->lock);
        if (x->is_released)
                r = 1;
        mutex_unlock(&x->lock);
        if (r <= 0) {
                atomic_fetch_sub(&x->b->direct_execs, 1);
                tell_end(x, r, code);
                forget(x);
        }
        return NULL;
}

/* ---- birth ---- */

static void polled_free(struct polled *x)
{
        cond_done(&x->changed);
        mutex_done(&x->lock);
        free(x);
}

static struct polled *polled_new(struct remote_box *b, const char *mark, const char *user,
                                 struct exec_sink *to)
{
        struct polled *x = calloc(1, sizeof(*x));

        if (!x)
                return NULL;
        mutex_init(&x->lock);
        cond_init(&x->changed);
        call_init(&x->asking, NEVER_NS);
        x->base.box = &b->base;
        x->b = b;
        x->to = to;
        x->due_ns = NEVER_NS;
        (void)snprintf(x->base.id, sizeof(x->base.id), ID "%s", mark);
        (void)snprintf(x->dir, sizeof(x->dir), PREFIX "%s", mark);
        (void)snprintf(x->user, sizeof(x->user), "%s", user);
        return x;
}

static int begin_asking(struct polled *x, struct call *c)
{
        int r;

        atomic_fetch_add(&x->b->direct_execs, 1);
        r = -pthread_create(&x->thread, NULL, run_asking, x);
        if (r < 0) {
                atomic_fetch_sub(&x->b->direct_execs, 1);
                return call_fail_errno(c, r, "a thread for a command");
        }
        return 0;
}

/* ---- the start ---- */

/*
 * $1 its directory, $2 where it starts, $3 seconds or 0, $4 the command line, base64. Begun twice,
 * it runs once: the directory is made by the first.
 */
static const char start_script[] =
        "umask 077; cd \"$2\" 2>/dev/null || { echo no directory; exit 0; }\n"
        "command -v base64 >/dev/null || { echo no base64; exit 0; }\n"
        "mkdir \"$1\" 2>/dev/null || { [ -d \"$1\" ] && echo begun; exit 0; }\n"
        ": >\"$1/o\"; : >\"$1/e\"; printf %s \"$4\" | base64 -d >\"$1/c\"\n"
        "w='d=$1; t=$2; if command -v setsid >/dev/null 2>&1; then g=-; l=setsid; else g=; l=; fi\n"
        "umask 022\n"
        "$l sh -c '\\''echo \"$1$$\" >\"$0/p\"; . \"$0/c\"'\\'' \"$d\" \"$g\""
        " </dev/null >\"$d/o\" 2>\"$d/e\" & p=$!\n"
        "[ \"$t\" = 0 ] || { (trap \"kill \\$!; exit\" TERM; sleep \"$t\" & wait $!\n"
        "kill -TERM \"$g$p\"; sleep 5; kill -KILL \"$g$p\") & k=$!; }\n"
        "wait $p; s=$?\n"
        "[ \"$t\" = 0 ] || kill $k\n"
        "echo $s >\"$d/t\"; mv \"$d/t\" \"$d/s\"'\n"
        "if command -v setsid >/dev/null 2>&1; then l=setsid; else l=nohup; fi\n"
        "$l sh -c \"$w\" sh \"$1\" \"$3\" </dev/null >/dev/null 2>&1 &\n"
        "echo begun\n";

/* "export NAME='value'; exec 'word' ...": what the shell there reads. */
static int make_line(const struct exec_req *in, struct buf *to)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < in->env_count; i++) {
                r = buf_addf(to, "export %s=", in->env[i].key);
                if (r == 0)
                        r = quote_add(to, in->env[i].value);
                if (r == 0)
                        r = buf_add_char(to, '\n');
        }
        if (r == 0)
                r = buf_add_str(to, "exec ");
        return r == 0 ? quote_add_words(to, in->argv) : r;
}

static int make_dir(const struct remote_place *place, const char *cwd, struct buf *to)
{
        return cwd && cwd[0] == '/'
                       ? buf_add_str(to, cwd)
                       : buf_addf(to, "%s%s%s", place->workdir, cwd ? "/" : "", cwd ? cwd : "");
}

static int send_start(struct polled *x, struct call *c, const struct exec_req *in,
                      const struct remote_place *place)
{
        _cleanup_(buf_wipe) struct buf line = BUF_INIT(COMMAND_MAX),
                                       text = BUF_INIT(2 * COMMAND_MAX);
        _cleanup_(buf_done) struct buf dir = BUF_INIT(8192), said = BUF_INIT(4096);
        char seconds[32];
        int r = make_line(in, &line);

        if (r == 0)
                r = base64_encode(&text, line.data, line.size);
        if (r == 0)
                r = make_dir(place, in->cwd, &dir);
        if (r < 0)
                return call_fail(c, r, "the command is too long");
        (void)snprintf(seconds, sizeof(seconds), "%" PRIu64,
                       (in->timeout_ns + NS_PER_S - 1) / NS_PER_S);
        const char *const args[] = {x->dir, buf_str(&dir), seconds, buf_str(&text), NULL};

        r = scripts_run(x->b, c, x->user, start_script, args, &said);
        if (r < 0 || strcmp(buf_str(&said), "begun\n") == 0)
                return r;
        if (strcmp(buf_str(&said), "no directory\n") == 0)
                return call_fail(c, -ENOENT, "no such directory in the sandbox: %s", buf_str(&dir));
        return call_fail(c, -EOPNOTSUPP,
                         "commands can't be run in this sandbox: it takes no program of ours, and "
                         "has no base64");
}

int polled_exec_start(struct remote_box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret)
{
        struct remote_place place;
        char dir[SCRIPTS_DIR_SIZE];
        struct polled *x;
        int r = remote_place(b, c, &place);

        if (r == 0 && in->has_stdin)
                r = call_fail(c, -EOPNOTSUPP,
                              "the service has no stdin, and our program can't run in this "
                              "sandbox: exec it without stdin");
        if (r == 0)
                r = scripts_dir(dir);
        if (r < 0)
                return r;
        x = polled_new(b, dir + strlen(PREFIX), in->user ? in->user : place.user, to);
        if (!x)
                return call_fail(c, -ENOMEM, "out of memory");
        x->due_ns = in->timeout_ns ? clock_after(in->timeout_ns) : NEVER_NS;
        r = send_start(x, c, in, &place);
        if (r == 0)
                r = begin_asking(x, c);
        if (r < 0)
                polled_free(x);
        else
                *ret = &x->base;
        return r;
}

/* ---- attach ---- */

int polled_exec_attach(struct remote_box *b, struct call *c, const char *id, const uint64_t have[2],
                       struct exec_sink *to, struct exec **ret)
{
        static const char script[] = "[ -d \"$1\" ] && echo there; exit 0";
        _cleanup_(buf_done) struct buf said = BUF_INIT(64);
        struct remote_place place;
        struct polled *x;
        int r = remote_place(b, c, &place);

        if (r < 0)
                return r;
        x = polled_new(b, id + strlen(ID), place.user, to);
        if (!x)
                return call_fail(c, -ENOMEM, "out of memory");
        const char *const args[] = {x->dir, NULL};

        x->at[0] = have[0];
        x->at[1] = have[1];
        r = scripts_run(b, c, x->user, script, args, &said);
        if (r == 0 && said.size == 0)
                r = call_fail(c, -ENOENT, "the sandbox doesn't know this command any more");
        if (r == 0)
                r = begin_asking(x, c);
        if (r < 0)
                polled_free(x);
        else
                *ret = &x->base;
        return r;
}

/* ---- signals, release ---- */

int polled_exec_signal(struct exec *base, struct call *c, int signal)
{
        static const char script[] =
                "i=0; until [ -s \"$1/p\" ] || [ $i = 3 ]; do sleep 1; i=$((i+1)); done\n"
                "kill \"-$2\" \"$(cat \"$1/p\")\" 2>/dev/null && echo sent; exit 0";
        _cleanup_(buf_done) struct buf said = BUF_INIT(64);
        struct polled *x = polled_of(base);
        char number[16];
        const char *const args[] = {x->dir, number, NULL};
        bool is_over;
        int r;

        if (signal < 1 || signal > 64)
                return call_fail(c, -EINVAL, "signal %d", signal);
        mutex_lock(&x->lock);
        is_over = x->is_over;
        x->signals |= remote_signal_bit(signal);
        mutex_unlock(&x->lock);
        if (is_over)
                return call_fail_errno(c, -ESRCH, "signal");
        (void)snprintf(number, sizeof(number), "%d", signal);
        r = scripts_run(x->b, c, x->user, script, args, &said);
        return r == 0 && said.size == 0 ? call_fail_errno(c, -ESRCH, "signal") : r;
}

void polled_exec_release(struct exec *base)
{
        struct polled *x = polled_of(base);
        bool was_over;

        mutex_lock(&x->lock);
        x->is_released = true;
        was_over = x->is_over;
        cond_broadcast(&x->changed);
        mutex_unlock(&x->lock);
        call_cancel(&x->asking);
        (void)pthread_join(x->thread, NULL);
        if (!was_over && !x->is_over) /* it runs on */
                atomic_fetch_sub(&x->b->direct_execs, 1);
        polled_free(x);
}
