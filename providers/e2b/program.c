/* SPDX-License-Identifier: Apache-2.0 */
/* A program in a sandbox; see program.h. */

#include "providers/e2b/program.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/e2b/body.h"
#include "providers/e2b/box.h"
#include "providers/e2b/envd.h"
#include "providers/e2b/events.h"
#include "providers/e2b/input.h"
#include "providers/e2b/states.h"
#include "providers/remote/sender.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"

#define START_MAX ((size_t)2 << 20)
#define STREAM_LEAST                                                                               \
        ((size_t)128 << 10) /* what is more is sent by one request, with what follows */
#define SEND_SILENCE_NS HTTP_SILENCE_NS /* our programs always read */
#define KILL_NS (3 * NS_PER_S)
#define SENTENCE_BYTES 200

static_assert(SENDER_PART <= E2B_INPUT_PART, "it takes a part as a whole");

struct program {
        struct sender sender;
        struct e2b_box *box; /* fixed, as are: */
        char user[64];
        bool has_user;
        struct e2b_events events; /* raw's thread only */
        uint32_t pid; /* guarded by the sender's lock; 0: not told yet */
};

static struct program *program_of(struct sender *s)
{
        return container_of(s, struct program, sender);
}

static const char *user_of(const struct program *p)
{
        return p->has_user ? p->user : NULL;
}

/* ---- what it prints: raw's thread ---- */

static void on_started(void *ctx, uint32_t pid)
{
        struct program *p = ctx;

        mutex_lock(&p->sender.lock);
        p->pid = pid;
        mutex_unlock(&p->sender.lock);
        if (pid > 0)
                sender_ready(&p->sender);
}

static void on_output(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct program *p = ctx;

        p->sender.to.data(p->sender.to.ctx, is_stderr, data, size);
}

static void finish(struct program *p, int error, const char *sentence)
{
        struct stream_end end;

        e2b_events_end(&p->events, error, sentence, &end);
        sender_end(&p->sender, &end);
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct program *p = ctx;
        int r;

        (void)is_stderr; /* it is one */
        if (sender_has_ended(&p->sender))
                return;
        r = e2b_events_feed(&p->events, data, size);
        if (r < 0)
                finish(p, r, "what the sandbox's daemon says of a program makes no sense");
}

static void on_end(void *ctx, const struct stream_end *end)
{
        finish(ctx, end->error, end->sentence);
}

/* ---- what it is sent: the sender's thread ---- */

static int call_of(struct program *p, struct call *c, const char *method, const struct buf *body,
                   bool is_idempotent)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        char path[64];
        struct http_request q = {.method = "POST",
                                 .path = path,
                                 .data = body->data,
                                 .size = body->size,
                                 .silence_ns = SEND_SILENCE_NS,
                                 .all_ns = NEVER_NS,
                                 .is_idempotent = is_idempotent};

        (void)snprintf(path, sizeof(path), "/process.Process/%s", method);
        return e2b_envd_do(p->box, c, user_of(p), &q, &reply);
}

static int send_pid(struct program *p, struct call *c, const char *method, uint32_t pid,
                    const char *more)
{
        _cleanup_(buf_done) struct buf body = BUF_INIT(256);
        int r = buf_addf(&body, "{\"process\":{\"pid\":%" PRIu32 "}%s}", pid, more);

        return r < 0 ? r : call_of(p, c, method, &body, true);
}

static uint32_t pid_of(struct program *p)
{
        uint32_t pid;

        mutex_lock(&p->sender.lock);
        pid = p->pid;
        mutex_unlock(&p->sender.lock);
        return pid;
}

/* Many parts, as long as they come: less than two of them are sent one by one. */
struct parts {
        struct e2b_input input;
        struct program *program;
        struct call *call;
};

static int next_part(struct e2b_input *from, struct buf *to)
{
        const struct parts *parts = container_of(from, struct parts, input);
        struct sender *s = &parts->program->sender;
        int r = sender_take(s, parts->call, to, E2B_INPUT_PART);

        sender_tell_drained(s);
        return r;
}

/* What is queued now, as one part, or as many with what comes meanwhile. */
static int put(struct sender *s, struct call *c, struct buf *part)
{
        struct program *p = program_of(s);
        struct parts parts = {.input.next = next_part, .program = p, .call = c};
        uint32_t pid = pid_of(p);
        int r = stream_queued(&s->base) > STREAM_LEAST
                        ? e2b_input_stream(p->box, c, user_of(p), pid, &parts.input)
                        : -EOPNOTSUPP;

        if (r != -EOPNOTSUPP)
                return r;
        r = sender_take(s, c, part, E2B_SEND_PART);
        return r < 0 ? r : e2b_input_send(p->box, c, user_of(p), pid, part);
}

static int put_eof(struct sender *s, struct call *c)
{
        struct program *p = program_of(s);

        c->deadline_ns = clock_after(SEND_SILENCE_NS);
        (void)send_pid(p, c, "CloseStdin", pid_of(p), ""); /* an old daemon has no such call */
        return 0;
}

/* It reads no more, which its own end tells better than we. */
static bool is_of_program(int r)
{
        return r == -ENOENT || r == -EPIPE || r == -ESRCH;
}

static void fail(struct sender *s, int error, const char *sentence)
{
        finish(program_of(s), error, sentence);
}

/* It isn't to stay behind, reading a pipe that nobody writes to. */
static void kill_it(struct sender *s)
{
        struct program *p = program_of(s);
        uint32_t pid = pid_of(p);
        struct call c;

        if (pid == 0 || remote_state_of(&p->box->remote) != BOX_RUNNING)
                return;
        call_init(&c, clock_after(KILL_NS));
        (void)send_pid(p, &c, "SendSignal", pid, ",\"signal\":\"SIGNAL_SIGKILL\"");
}

static void free_program(struct sender *s)
{
        struct program *p = program_of(s);

        e2b_events_done(&p->events);
        sender_done(s);
        free(p);
}

static const struct sender_ops program_ops = {
        .put = put,
        .put_eof = put_eof,
        .is_of_program = is_of_program,
        .fail = fail,
        .leave = kill_it,
        .free = free_program,
};

/* ---- started ---- */

static int start_envelope(const struct remote_program *of, struct call *c, struct buf *to)
{
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(START_MAX);
        int r = e2b_start_body(of, &body);

        if (r == 0)
                r = envelope_add(to, body.data, body.size);
        return r < 0 ? call_fail_errno(c, r, "a program in the sandbox") : 0;
}

static struct program *new_program(struct e2b_box *b, const char *user,
                                   const struct stream_events *to)
{
        const struct e2b_events_to events = {on_started, on_output, NULL};
        struct program *p = calloc(1, sizeof(*p));

        if (!p)
                return NULL;
        sender_init(&p->sender, &program_ops, to);
        p->box = b;
        p->has_user = user != NULL;
        (void)snprintf(p->user, sizeof(p->user), "%s", user ? user : "");
        e2b_events_init(&p->events, &events);
        p->events.to.ctx = p;
        return p;
}

int e2b_program_open(struct e2b_box *b, struct call *c, const char *user,
                     const struct remote_program *of, const struct stream_events *events,
                     struct stream **ret)
{
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(START_MAX + ENVELOPE_HEADER);
        struct http_request q = {.path = "/process.Process/Start"};
        struct stream *raw = NULL;
        struct program *p;
        int r = start_envelope(of, c, &body);

        if (r < 0)
                return r;
        q.data = body.data;
        q.size = body.size;
        p = new_program(b, user, events);
        if (!p)
                return call_fail(c, -ENOMEM, "out of memory");
        r = e2b_envd_open(b, c, user, &q,
                          &(struct stream_events){.data = on_data, .end = on_end, .ctx = p}, &raw);
        if (r == 0)
                r = sender_start(&p->sender, c, raw);
        if (r < 0) {
                free_program(&p->sender);
                return r;
        }
        *ret = &p->sender.base;
        return 0;
}

/* ---- run to its end ---- */

struct outputs {
        struct buf *out;
        char said[SENTENCE_BYTES]; /* the start of stderr */
        size_t said_size;
        bool is_long;
};

static void ignore_pid(void *ctx, uint32_t pid)
{
        (void)ctx;
        (void)pid;
}

static void take_output(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct outputs *o = ctx;
        size_t room = sizeof(o->said) - o->said_size;

        if (!is_stderr) {
                o->is_long |= o->out && buf_add(o->out, data, size) < 0;
                return;
        }
        size = size < room ? size : room;
        memcpy(o->said + o->said_size, data, size);
        o->said_size += size;
}

static int ended(struct call *c, const struct stream_end *end, const struct outputs *o,
                 int *ret_code)
{
        char said[2 * SENTENCE_BYTES];

        if (end->error < 0)
                return call_fail(c, end->error, "%s", end->sentence);
        if (o->is_long)
                return call_fail(c, -EPROTO, "a program in the sandbox said too much");
        *ret_code = end->has_code ? end->code : 128 + end->signal;
        if (*ret_code != 0) {
                escape_text(o->said, o->said_size, said, sizeof(said));
                (void)call_fail(c, -EIO, "%s", said); /* for who takes that code for a failure */
        }
        return 0;
}

static int run_once(struct e2b_box *b, struct call *c, const char *user,
                    const struct remote_program *of, struct buf *out, int *ret_code)
{
        static const struct http_header version = {.name = "Connect-Protocol-Version",
                                                   .value = "1"};
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(START_MAX + ENVELOPE_HEADER);
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(e2b_events_done) struct e2b_events events;
        struct outputs o = {.out = out};
        struct http_request q = {.method = "POST",
                                 .path = "/process.Process/Start",
                                 .type = "application/connect+json",
                                 .headers = &version,
                                 .header_count = 1,
                                 .all_ns = NEVER_NS};
        struct stream_end end;
        int r;

        e2b_events_init(&events, &(struct e2b_events_to){ignore_pid, take_output, &o});
        r = start_envelope(of, c, &body);
        if (r < 0)
                return r;
        q.data = body.data;
        q.size = body.size;
        r = e2b_envd_do(b, c, user, &q, &reply);
        if (r < 0)
                return r;
        r = e2b_events_feed(&events, buf_str(&reply.body), reply.body.size);
        e2b_events_end(&events, r, NULL, &end);
        return ended(c, &end, &o, ret_code);
}

int e2b_program_run(struct e2b_box *b, struct call *c, const char *user,
                    const struct remote_program *of, struct buf *out, int *ret_code)
{
        int r = -EIO;

        for (unsigned i = 0;
             i < HTTP_TRIES && remote_is_passing(r) && (i == 0 || call_check(c) == 0); i++) {
                if (out)
                        buf_clear(out);
                r = run_once(b, c, user, of, out, ret_code);
        }
        return r;
}
