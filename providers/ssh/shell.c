/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helper shells. One script as it goes to a helper, T being its 128 random bits:
 *
 *      { printf '%s\n' T; ( LC_ALL=C; export LC_ALL; SCRIPT
 *      ) </dev/null; printf '\nT %s\n' $?; printf '\nT\n' >&2; }
 *
 * What comes before the first T is a banner; stdout of the script is what stands between it and
 * "\nT CODE\n"; stderr ends with the other. A compound command is read whole before any of it runs:
 * one that a dying connection cut off does nothing.
 *
 * A helper for streams is a loop instead, which takes not one byte more than it should, where a
 * shell that reads scripts reads ahead: "l LINES\n" or "d BYTES\n" and a script, which the shell
 * itself reads byte by byte, or dd where it is long. A short stream follows as it is: its size is in
 * the script. A long one comes in pieces, each "SIZE\n" and its bytes, up to "0\n"; then "ok\n" says
 * that it was whole.
 *
 * A helper is idle, busy for one caller, or dead. Only its caller, or who takes a dead one off the
 * list, closes its stream; while busy, what its run holds is the stream's thread's alone, until
 * `is_done` or the end is set under the lock.
 */

#include "providers/ssh/shell.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/exec_host.h"
#include "providers/ssh/script.h"
#include "providers/ssh/shell_host.h"
#include "providers/ssh/ssh.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define PROGRESS_NS (10 * NS_PER_S) /* without a byte */
#define LOOK_NS (50 * NS_PER_MS) /* how often a waiter looks whether it was cancelled */
#define ANOTHER_NS (20 * NS_PER_MS) /* all were busy this long: another one */
#define STREAM_HELPERS_MAX 2
#define STREAM_AGAIN_NS                                                                            \
        (60 * NS_PER_S) /* the host had no channel left for one: not again until then */
#define SCRIPT_MAX ((size_t)8 << 20)
#define ERR_MAX ((size_t)16 * 1024) /* of stderr that is held at once */
#define ERR_HEAD ((size_t)512) /* of it that a sentence may need */
#define TOKEN_SIZE (SCRIPT_TOKEN_SIZE - 1)

enum phase { BEFORE, WITHIN, CODE, AFTER };

/* What a busy helper does. */
struct run {
        char token[TOKEN_SIZE + 1];
        struct shell_sink *to;
        enum phase phase;
        struct buf hold; /* of stdout: what may be the beginning of a frame */
        struct buf err;
        bool has_err_end;
        bool has_moved; /* output came since it was last looked at */
        int code;
        int error; /* the sink's, or ours */
};

struct helper {
        struct list link; /* of the shell */
        struct shell *shell;
        enum helper_kind kind;
        struct stream *stream;
        struct run *run; /* NULL while idle; set and cleared under the lock */
        bool is_proven; /* it has answered once */
        /* guarded by the shell's lock */
        bool is_done;
        bool has_ended;
        struct stream_end end;
        uint64_t heard_ns;
        unsigned drains; /* how often what was queued has become little */
};

static void helper_free(struct helper *p)
{
        stream_close(p->stream);
        free(p);
}

/* ---- from the stream's thread ---- */

/* Bytes at the end of `data` that may be the beginning of "\nT ". */
static size_t held_back(const char *data, size_t size, const char *mark, size_t mark_size)
{
        for (size_t n = size < mark_size ? size : mark_size - 1; n > 0; n--) {
                if (memcmp(data + size - n, mark, n) == 0)
                        return n;
        }
        return 0;
}

static void give(struct run *run, const char *data, size_t size)
{
        run->has_moved |= size > 0;
        if (size > 0 && run->error == 0 && run->to)
                run->error = run->to->data(run->to, data, size);
}

/* Takes what it can of the bytes; the number of those taken. */
static size_t take_before(struct run *run, const char *data, size_t size)
{
        char mark[TOKEN_SIZE + 2];
        const char *at;

        (void)snprintf(mark, sizeof(mark), "%s\n", run->token);
        at = memmem(data, size, mark, TOKEN_SIZE + 1);
        if (!at)
                return size - held_back(data, size, mark, TOKEN_SIZE + 1);
        run->phase = WITHIN;
        return (size_t)(at - data) + TOKEN_SIZE + 1;
}

static size_t take_within(struct run *run, const char *data, size_t size)
{
        char mark[TOKEN_SIZE + 3];
        const char *at;
        size_t n;

        (void)snprintf(mark, sizeof(mark), "\n%s ", run->token);
        at = memmem(data, size, mark, TOKEN_SIZE + 2);
        n = at ? (size_t)(at - data) : size - held_back(data, size, mark, TOKEN_SIZE + 2);
        give(run, data, n);
        if (!at)
                return n;
        run->phase = CODE;
        return n + TOKEN_SIZE + 2;
}

static size_t take_code(struct run *run, const char *data, size_t size)
{
        const char *at = memchr(data, '\n', size);
        int code = 0;

        if (!at) {
                if (size > 3)
                        run->error = -EPROTO;
                return 0;
        }
        for (const char *p = data; p < at; p++) {
                if (*p < '0' || *p > '9' || code > 255)
                        run->error = -EPROTO;
                else
                        code = code * 10 + (*p - '0');
        }
        run->code = code;
        run->phase = AFTER;
        return (size_t)(at - data) + 1;
}

static size_t take_some(struct run *run, const char *data, size_t size)
{
        switch (run->phase) {
        case BEFORE: return take_before(run, data, size);
        case WITHIN: return take_within(run, data, size);
        case CODE: return take_code(run, data, size);
        case AFTER: break;
        }
        return size;
}

static size_t take_all(struct run *run, const char *data, size_t size)
{
        size_t at = 0, n;

        while (at < size && run->error == 0 && (n = take_some(run, data + at, size - at)) > 0)
                at += n;
        return at;
}

static void take_out(struct run *run, const char *data, size_t size)
{
        size_t n;

        if (run->hold.size == 0) {
                n = take_all(run, data, size);
                data += n;
                size -= n;
        }
        if (size == 0 || run->error != 0)
                return;
        run->error = buf_add(&run->hold, data, size);
        if (run->error == 0 && run->hold.size > 0)
                buf_drop(&run->hold, take_all(run, run->hold.data, run->hold.size));
}

static void take_err(struct run *run, const char *data, size_t size)
{
        char mark[TOKEN_SIZE + 3];
        const char *at;

        (void)snprintf(mark, sizeof(mark), "\n%s\n", run->token);
        while (size > 0 && !run->has_err_end && run->error == 0) {
                size_t n = size < ERR_MAX / 2 ? size : ERR_MAX / 2;

                run->error = buf_add(&run->err, data, n);
                data += n;
                size -= n;
                at = run->err.size > 0 ? memmem(run->err.data, run->err.size, mark, TOKEN_SIZE + 2)
                                       : NULL;
                if (at) {
                        run->has_err_end = true;
                        run->err.size = (size_t)(at - run->err.data);
                } else if (run->err.size > ERR_HEAD + TOKEN_SIZE + 2) {
                        size_t tail = TOKEN_SIZE + 2;

                        memmove(run->err.data + ERR_HEAD, run->err.data + run->err.size - tail,
                                tail);
                        run->err.size = ERR_HEAD + tail;
                }
        }
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct helper *p = ctx;
        struct run *run;

        mutex_lock(&p->shell->lock);
        run = p->is_done ? NULL : p->run;
        mutex_unlock(&p->shell->lock);
        if (!run)
                return; /* nobody asked */
        if (is_stderr)
                take_err(run, data, size);
        else
                take_out(run, data, size);
        mutex_lock(&p->shell->lock);
        if (run->has_moved)
                p->heard_ns = clock_mono_ns();
        run->has_moved = false;
        if (run->error != 0 || (run->phase == AFTER && run->has_err_end)) {
                p->is_done = true;
                cond_broadcast(&p->shell->changed);
        }
        mutex_unlock(&p->shell->lock);
}

static void on_drained(void *ctx)
{
        struct helper *p = ctx;

        mutex_lock(&p->shell->lock);
        p->drains++;
        cond_broadcast(&p->shell->changed);
        mutex_unlock(&p->shell->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct helper *p = ctx;

        mutex_lock(&p->shell->lock);
        p->has_ended = true;
        p->end = *end;
        cond_broadcast(&p->shell->changed);
        mutex_unlock(&p->shell->lock);
}

/* ---- helpers ---- */

/*
 * For the account's own shell, whichever it is: nothing that csh or fish would read otherwise. `v`
 * tells a script what tar is there: ns, it takes nanoseconds; s, seconds; "", none.
 */
static const char stream_loop[] =
        "exec sh -c '"
        "LC_ALL=C; export LC_ALL; "
        "[ \"$(printf abc | dd bs=2 count=1 iflag=fullblock 2>/dev/null)\" = ab ] || exit 1; "
        "some() { dd bs=\"$1\" count=1 iflag=fullblock 2>/dev/null; }; "
        "take() { while read -r n && [ \"$n\" -gt 0 ]; do some \"$n\"; done; }; "
        "case $(tar --version 2>&1 </dev/null) in *\"GNU tar\"*|bsdtar*) v=ns;; *busybox*) v=s;; "
        "*) v=;; esac; "
        "e=$(printf \"\\nx\"); e=${e%x}; "
        "while read -r k n; do "
        "case $k in "
        "l) s=; while [ $n -gt 0 ]; do IFS= read -r l || exit; s=\"$s$l$e\"; n=$((n - 1)); done;; "
        "d) s=$(some \"$n\");; "
        "*) exit;; esac; "
        "eval \"$s\"; done'";

static const char *const commands[HELPER_KINDS] = {
        [HELPER_SCRIPTS] = "exec sh",
        [HELPER_STREAMS] = stream_loop,
};

static int helper_new(struct shell *s, struct call *c, enum helper_kind kind, struct helper **ret)
{
        struct helper *p = calloc(1, sizeof(*p));
        uint64_t until_ns = clock_after(ROOM_WAIT_NS);
        bool can_wait = kind == HELPER_SCRIPTS;
        int r;

        if (!p)
                return call_fail(c, -ENOMEM, "out of memory");
        list_init(&p->link);
        p->shell = s;
        p->kind = kind;
        do
                r = host_open_program(
                        s->host, c, commands[kind],
                        &(struct stream_events){
                                .data = on_data, .drained = on_drained, .end = on_end, .ctx = p},
                        &p->stream);
        while (can_wait && (r == -EAGAIN || r == -EMFILE) &&
               channel_make_room(s->execs, c, until_ns));
        if (r < 0) {
                free(p);
                return r;
        }
        *ret = p;
        return 0;
}

/* An idle one that lives, or NULL; dead ones go to `dead`, to be closed without the lock. */
static struct helper *take_idle_locked(struct shell *s, enum helper_kind kind, struct list *dead)
        REQUIRES(s->lock)
{
        struct helper *found = NULL;

        list_for_each_safe (at, next, &s->helpers[kind]) {
                struct helper *p = container_of(at, struct helper, link);

                if (p->run)
                        continue;
                if (p->has_ended) {
                        list_remove(&p->link);
                        list_add_tail(dead, &p->link);
                        s->helper_count[kind]--;
                } else if (!found) {
                        found = p;
                }
        }
        return found;
}

static void bury(struct list *dead)
{
        list_for_each_safe (at, next, dead) {
                list_remove(at);
                helper_free(container_of(at, struct helper, link));
        }
}

/* Counts one more that is being opened, or takes an idle one for `run`. */
static int reserve_locked(struct shell *s, struct call *c, struct run *run, struct list *dead,
                          struct helper **ret) REQUIRES(s->lock)
{
        uint64_t another_ns = clock_after(ANOTHER_NS);
        int r = 0;

        while (r == 0) {
                struct helper *p = take_idle_locked(s, HELPER_SCRIPTS, dead);
                uint64_t now = clock_mono_ns();

                if (p) {
                        p->run = run;
                        *ret = p;
                        return 0;
                }
                if (s->helper_count[HELPER_SCRIPTS] == 0 ||
                    (s->helper_count[HELPER_SCRIPTS] < SHELL_COUNT_MAX && now >= another_ns)) {
                        s->helper_count[HELPER_SCRIPTS]++;
                        *ret = NULL;
                        return 0;
                }
                (void)cond_wait_until(&s->changed, &s->lock,
                                      now < another_ns ? another_ns : now + LOOK_NS);
                r = call_check(c);
        }
        return call_fail_errno(c, r, "the host's shell is busy");
}

/* The same of those for streams; nobody waits for one: there is another way. */
static int reserve_stream_locked(struct shell *s, struct run *run, struct list *dead,
                                 struct helper **ret) REQUIRES(s->lock)
{
        struct helper *p = take_idle_locked(s, HELPER_STREAMS, dead);

        if (p)
                p->run = run;
        else if (s->helper_count[HELPER_STREAMS] >= STREAM_HELPERS_MAX)
                return -EAGAIN;
        else if (clock_mono_ns() < s->no_streams_ns)
                return -EOPNOTSUPP;
        else
                s->helper_count[HELPER_STREAMS]++;
        *ret = p;
        return 0;
}

/* A helper for `run` alone, until let_go. */
static int take(struct shell *s, struct call *c, enum helper_kind kind, struct run *run,
                struct helper **ret)
{
        struct list dead = LIST_INIT(dead);
        struct helper *p = NULL;
        int r;

        mutex_lock(&s->lock);
        r = kind == HELPER_SCRIPTS ? reserve_locked(s, c, run, &dead, &p)
                                   : reserve_stream_locked(s, run, &dead, &p);
        mutex_unlock(&s->lock);
        bury(&dead);
        if (r < 0)
                return r;
        if (!p) {
                r = helper_new(s, c, kind, &p);
                mutex_lock(&s->lock);
                if (p) {
                        p->run = run;
                        list_add_tail(&s->helpers[kind], &p->link);
                } else {
                        s->helper_count[kind]--;
                        if (kind == HELPER_STREAMS && (r == -EAGAIN || r == -EMFILE))
                                s->no_streams_ns = clock_after(STREAM_AGAIN_NS);
                }
                cond_broadcast(&s->changed);
                mutex_unlock(&s->lock);
        }
        *ret = p;
        return r;
}

/* Back to the others, or closed when it isn't known to be at its prompt. */
static void let_go(struct helper *p, bool is_clean)
{
        struct shell *s = p->shell;
        enum helper_kind kind = p->kind;

        if (!is_clean) {
                mutex_lock(&s->lock);
                list_remove(&p->link);
                mutex_unlock(&s->lock);
                helper_free(p); /* no event comes after this: the run is the caller's again */
        }
        mutex_lock(&s->lock);
        if (is_clean) {
                p->run = NULL;
                p->is_done = false;
                p->is_proven = true;
        } else {
                s->helper_count[kind]--;
        }
        cond_broadcast(&s->changed);
        mutex_unlock(&s->lock);
}

/* ---- one script ---- */

static int compose(const struct run *run, const char *script, struct buf *to)
{
        return buf_addf(to,
                        "{ printf '%%s\\n' %s; ( LC_ALL=C; export LC_ALL\n%s\n) </dev/null; "
                        "printf '\\n%s %%s\\n' $?; printf '\\n%s\\n' >&2; }\n",
                        run->token, script, run->token, run->token);
}

/* Why a helper that ended did. */
static int ended_locked(const struct helper *p, const struct run *run, struct call *c)
{
        if (p->end.error < 0)
                return call_fail(c, p->end.error, "%s",
                                 p->end.sentence[0] ? p->end.sentence : "the connection ended");
        if (!p->is_proven && run->phase == BEFORE)
                return call_fail(c, -EOPNOTSUPP, "the account runs no commands");
        return call_fail(c, -EPROTO, "the host's shell ended");
}

static int wait_done(struct helper *p, struct run *run, struct call *c)
{
        struct shell *s = p->shell;
        int r = 0;

        mutex_lock(&s->lock);
        while (!p->is_done && !p->has_ended && r == 0) {
                uint64_t look_ns = clock_after(LOOK_NS);

                if (p->heard_ns > 0 && c->deadline_ns < p->heard_ns + PROGRESS_NS)
                        c->deadline_ns = p->heard_ns + PROGRESS_NS;
                (void)cond_wait_until(&s->changed, &s->lock,
                                      look_ns < c->deadline_ns ? look_ns : c->deadline_ns);
                if (!p->is_done && !p->has_ended)
                        r = call_check(c);
        }
        if (p->is_done)
                r = 0;
        else if (p->has_ended)
                r = ended_locked(p, run, c);
        else
                r = call_fail_errno(c, r, "the host's shell");
        mutex_unlock(&s->lock);
        return r;
}

static void say_stderr(struct run *run, struct call *c)
{
        char *text;
        size_t size = run->err.size;

        if (run->code == 0 || size == 0)
                return;
        text = run->err.data;
        while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
                size--;
        (void)call_fail(c, -EIO, "%.*s", (int)size, text); /* the sentence only */
}

static int run_on(struct helper *p, struct run *run, struct call *c, const struct buf *text)
{
        int r;

        p->heard_ns = 0;
        r = stream_send(p->stream, text->data, text->size);
        if (r < 0) {
                let_go(p, false);
                return r == -EPIPE ? -EPIPE : call_fail_errno(c, r, "the host's shell");
        }
        r = wait_done(p, run, c);
        if (r == 0 && run->error < 0)
                r = run->error;
        let_go(p, r == 0 && run->phase == AFTER && run->has_err_end);
        return r;
}

static int run_script(struct shell *s, struct call *c, struct run *run, const struct buf *text)
{
        struct helper *p = NULL;
        int r = -EPIPE;

        /* -EPIPE: it was dead before anything was sent. */
        for (unsigned i = 0; i < SHELL_COUNT_MAX + 1 && r == -EPIPE; i++) {
                r = take(s, c, HELPER_SCRIPTS, run, &p);
                if (r == 0 && p)
                        r = run_on(p, run, c, text);
        }
        return r == -EPIPE ? call_fail(c, -EHOSTUNREACH, "the connection ended") : r;
}

int shell_run(struct ssh_host *h, struct call *c, const char *script, struct shell_sink *to,
              int *ret_code)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(SCRIPT_MAX);
        struct run run = {
                .to = to, .hold = BUF_INIT((size_t)2 << 20), .err = BUF_INIT(2 * ERR_MAX)};
        int r = script_token(run.token);

        if (r == 0)
                r = compose(&run, script, &text);
        if (r < 0)
                return call_fail_errno(c, r, "a script for the host");
        r = run_script(h->shell, c, &run, &text);
        if (r == 0) {
                say_stderr(&run, c);
                *ret_code = run.code;
        }
        buf_done(&run.hold);
        buf_done(&run.err);
        return r;
}

struct buf_sink {
        struct shell_sink sink;
        struct buf *out;
};

static int add_to_buf(struct shell_sink *to, const void *data, size_t size)
{
        struct buf_sink *s = container_of(to, struct buf_sink, sink);

        return s->out ? buf_add(s->out, data, size) : 0;
}

int shell_run_buf(struct ssh_host *h, struct call *c, const char *script, struct buf *out,
                  int *ret_code)
{
        struct buf_sink to = {.sink = {.data = add_to_buf}, .out = out};
        int r = shell_run(h, c, script, &to.sink, ret_code);

        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "what the host's shell said") : r;
}

/* ---- streams ---- */

#define SHORT_STREAM ((size_t)512 * 1024) /* goes in one piece, and is held until it is known */
#define SHORT_SCRIPT ((size_t)2048) /* that the shell itself reads */

struct shell_pipe {
        struct helper *helper;
        struct run *run;
        struct call *call;
        const char *taker, *script;
        struct buf first; /* of the stream, while it may be a short one */
        bool is_long; /* its script was sent */
        int error;
};

/* Waits until what was queued has become little, since it was so `drains` times, or for a moment. */
static int wait_drained(struct helper *p, struct call *c, unsigned drains)
{
        struct shell *s = p->shell;
        uint64_t look_ns = clock_after(LOOK_NS);
        int r;

        mutex_lock(&s->lock);
        if (!p->has_ended && !p->is_done && p->drains == drains)
                (void)cond_wait_until(&s->changed, &s->lock, look_ns);
        r = p->has_ended || p->is_done ? -EPIPE : call_check(c);
        mutex_unlock(&s->lock);
        return r;
}

/* Until what is queued is little enough for more. */
static int wait_room(struct shell_pipe *pipe)
{
        struct helper *p = pipe->helper;
        struct call *c = pipe->call;
        size_t before = 0;
        int r = 0;

        while (r == 0) {
                unsigned drains;
                size_t queued;

                mutex_lock(&p->shell->lock);
                drains = p->drains;
                mutex_unlock(&p->shell->lock);
                queued = stream_queued(p->stream);
                if (queued < STREAM_QUEUE_LOW)
                        break;
                if (queued < before && c->deadline_ns < clock_after(PROGRESS_NS))
                        c->deadline_ns = clock_after(PROGRESS_NS);
                before = queued;
                r = wait_drained(p, c, drains);
        }
        return r;
}

/* What is read first: how much, then that. */
static int add_counted(struct buf *to, const struct buf *text)
{
        size_t lines = 0;
        int r;

        for (size_t i = 0; i < text->size; i++)
                lines += text->data[i] == '\n';
        r = text->size <= SHORT_SCRIPT ? buf_addf(to, "l %zu\n", lines)
                                       : buf_addf(to, "d %zu\n", text->size);
        return r == 0 ? buf_add(to, text->data, text->size) : r;
}

/* `reader` writes the stream, in the shell there; `end` then sees to its end. */
static int compose_stream(const struct shell_pipe *pipe, const char *reader, const char *end,
                          struct buf *to)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(SCRIPT_MAX);
        const char *token = pipe->run->token;
        int r = buf_addf(&text, "{ printf '%%s\\n' %s\n%s | { %s; }; r=$?%s\n{\n%s\n} </dev/null\n",
                         token, reader, pipe->taker, end, pipe->script);

        if (r == 0)
                r = buf_addf(&text, "printf '\\n%s 0\\n'; printf '\\n%s\\n' >&2; }\n", token,
                             token);
        return r == 0 ? add_counted(to, &text) : r;
}

static int send_script(struct shell_pipe *pipe, const char *reader, const char *end)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(SCRIPT_MAX);
        int r = compose_stream(pipe, reader, end, &text);

        return r == 0 ? stream_send(pipe->helper->stream, text.data, text.size) : r;
}

static int send_piece(struct shell_pipe *pipe, const void *data, size_t size)
{
        char head[32];
        int n = snprintf(head, sizeof(head), "%zu\n", size), r = wait_room(pipe);

        if (r == 0)
                r = stream_send(pipe->helper->stream, head, (size_t)n);
        return r == 0 ? stream_send(pipe->helper->stream, data, size) : r;
}

static int go_long(struct shell_pipe *pipe)
{
        int r = send_script(pipe, "take", "; read -r k; [ \"$k\" = ok ] || r=255");

        pipe->is_long = r == 0;
        if (r == 0 && pipe->first.size > 0)
                r = send_piece(pipe, pipe->first.data, pipe->first.size);
        buf_done(&pipe->first);
        return r;
}

int shell_pipe_send(struct shell_pipe *pipe, const void *data, size_t size)
{
        if (pipe->error < 0 || size == 0)
                return pipe->error;
        if (!pipe->is_long && pipe->first.size + size <= SHORT_STREAM) {
                pipe->error = buf_add(&pipe->first, data, size);
                return pipe->error;
        }
        if (!pipe->is_long)
                pipe->error = go_long(pipe);
        if (pipe->error == 0)
                pipe->error = send_piece(pipe, data, size);
        return pipe->error;
}

static int send_short(struct shell_pipe *pipe)
{
        char reader[32];
        int r;

        (void)snprintf(reader, sizeof(reader), "some %zu", pipe->first.size);
        r = send_script(pipe, reader, "");
        return r == 0 ? stream_send(pipe->helper->stream, buf_str(&pipe->first), pipe->first.size)
                      : r;
}

/*
 * Whatever `from` says, a script that was sent is told and ends: the helper stays usable. Positive:
 * nothing was sent.
 */
static int feed(struct shell_pipe *pipe, struct shell_source *from, int *ret_fed)
{
        struct stream *stream = pipe->helper->stream;
        bool is_whole;

        *ret_fed = from->feed(from, pipe);
        is_whole = *ret_fed == 0 && pipe->error == 0 && (pipe->is_long || pipe->first.size > 0);
        if (!pipe->is_long)
                return is_whole ? send_short(pipe) : 1;
        if (pipe->error < 0)
                return pipe->error;
        return is_whole ? stream_send(stream, "0\nok\n", 5) : stream_send(stream, "0\nno\n", 5);
}

static int stream_on(struct shell_pipe *pipe, struct shell_source *from)
{
        struct helper *p = pipe->helper;
        struct run *run = pipe->run;
        struct shell *s = p->shell;
        int fed, sent, r;

        p->heard_ns = 0;
        sent = r = feed(pipe, from, &fed);
        if (r == -EPIPE && !pipe->is_long)
                r = sent = -EAGAIN; /* it was dead before */
        if (sent <= 0 && (r == 0 || r == -EPIPE)) /* its end says why */
                r = wait_done(p, run, pipe->call);
        if (r == 0 && run->error < 0)
                r = run->error;
        mutex_lock(&s->lock);
        if (r == -EOPNOTSUPP)
                s->no_streams_ns = UINT64_MAX;
        mutex_unlock(&s->lock);
        let_go(p, sent > 0 || (r == 0 && sent == 0 && run->phase == AFTER && run->has_err_end));
        buf_done(&pipe->first);
        if (sent > 0)
                return fed < 0 ? fed : pipe->error < 0 ? pipe->error : -EINVAL;
        return r < 0 ? r : fed;
}

int shell_run_stream(struct ssh_host *h, struct call *c, const char *taker, const char *script,
                     struct shell_source *from, struct shell_sink *to)
{
        struct run run = {
                .to = to, .hold = BUF_INIT((size_t)2 << 20), .err = BUF_INIT(2 * ERR_MAX)};
        struct shell_pipe pipe = {.run = &run,
                                  .call = c,
                                  .taker = taker,
                                  .script = script,
                                  .first = BUF_INIT(SHORT_STREAM)};
        int r = script_token(run.token);

        if (r == 0)
                r = take(h->shell, c, HELPER_STREAMS, &run, &pipe.helper);
        if (r == 0 && pipe.helper)
                r = stream_on(&pipe, from);
        buf_done(&run.hold);
        buf_done(&run.err);
        return r;
}

/* ---- life ---- */

int shell_new(struct ssh_host *h, struct shell **ret)
{
        struct shell *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->host = h;
        for (unsigned i = 0; i < HELPER_KINDS; i++)
                list_init(&s->helpers[i]);
        mutex_init(&s->lock);
        cond_init(&s->changed);
        r = exec_host_new(h, &s->execs);
        if (r < 0) {
                shell_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

void shell_free(struct shell *s)
{
        if (!s)
                return;
        exec_host_free(s->execs);
        for (unsigned i = 0; i < HELPER_KINDS; i++)
                bury(&s->helpers[i]);
        cond_done(&s->changed);
        mutex_done(&s->lock);
        free(s);
}
