/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in a sandbox as a stream: a session of execd's "pty" calls in pipe mode, whose process
 * starts with its first WebSocket.
 *
 *      binary  00 bytes        to its stdin        01, 02 bytes    of its stdout, stderr
 *      text    {"type":"exit","exit_code":N}, {"type":"error",...}; others tell nothing new
 *
 * The process outlives its connection, so it is told to end when the stream is closed. There is no
 * end of input. Older ones take no command, and begin a bash that reads one from its input, byte by
 * byte, as it must.
 *
 * Threads: what it prints comes on the endpoint's thread; it is sent on any.
 */

#include "providers/opensandbox/program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/opensandbox/execd.h"
#include "providers/opensandbox/relay.h"
#include "providers/remote/words.h"
#include "providers/remote/write.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/base/log.h"
#include "transport/http/url.h"
#include "transport/http/ws.h"

#define MESSAGE_MAX ((size_t)4 << 20) /* execd's are of 32 KiB */
#define PART_MAX ((size_t)64 << 10) /* of input in one message */
#define SEND_MAX ((size_t)80 << 20)
#define LINE_MAX_SIZE ((size_t)100 << 10)
#define SESSION_MAX 64
#define END_NS (3 * NS_PER_S)

enum { INPUT = 0, STDOUT = 1, STDERR = 2, REPLAY = 3 };
enum { UNKNOWN, TAKES, IGNORES, MISSING }; /* of b->takes_command */

struct program {
        struct stream base;
        struct osb_box *box; /* fixed, as are: */
        struct http *execd; /* counted */
        char session[SESSION_MAX];
        struct stream_events to;
        struct ws ws; /* raw's thread only */

        struct mutex lock;
        /* guarded by lock */
        struct stream *raw; /* fixed once it was opened */
        bool is_ended; /* its end was handed on, or is about to be */
        bool has_exited; /* and the program's own is known */
};

static struct program *program_of(struct stream *s)
{
        return container_of(s, struct program, base);
}

/* ---- what it prints: raw's thread ---- */

static void finish(struct program *p, const struct stream_end *end)
{
        bool is_first;

        mutex_lock(&p->lock);
        is_first = !p->is_ended;
        p->is_ended = true;
        p->has_exited |= end->error == 0;
        mutex_unlock(&p->lock);
        if (is_first)
                p->to.end(p->to.ctx, end);
}

static void fail(struct program *p, int error, const char *sentence)
{
        struct stream_end end = {.error = error};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%.250s", sentence);
        finish(p, &end);
}

static bool has_ended(struct program *p)
{
        bool is_ended;

        mutex_lock(&p->lock);
        is_ended = p->is_ended;
        mutex_unlock(&p->lock);
        return is_ended;
}

/* A ping that comes before the stream is ours is not the last one. */
static int answer(struct program *p, enum ws_kind kind, const char *data, size_t size)
{
        _cleanup_(buf_done) struct buf out = BUF_INIT(WS_CONTROL_MAX + WS_HEADER_MAX);
        int r = ws_add(&out, kind, data, size);

        mutex_lock(&p->lock);
        if (r == 0 && p->raw)
                (void)stream_send(p->raw, out.data, out.size); /* its end tells why not */
        mutex_unlock(&p->lock);
        return r;
}

static int on_text(struct program *p, const char *data, size_t size)
{
        struct json *j = NULL;
        const char *type, *text;
        int64_t code = 0;
        int r = json_parse(data, size, &j, NULL);

        if (r < 0)
                return r == -ENOMEM ? r : -EPROTO;
        type = json_string(json_get(j, "type"));
        if (type && strcmp(type, "exit") == 0) {
                bool has_code =
                        json_integer(json_get(j, "exit_code"), &code) && code >= 0 && code <= 255;
                struct stream_end end = {.error = has_code ? 0 : -EHOSTUNREACH,
                                         .has_code = has_code,
                                         .code = (int)code};

                (void)snprintf(end.sentence, sizeof(end.sentence), "%s",
                               has_code ? "" : "the program was killed");
                finish(p, &end);
        } else if (type && strcmp(type, "error") == 0) {
                text = json_string(json_get(j, "error"));
                r = words_error(text);
                fail(p, r < 0 ? r : -EIO, text ? text : "no reason given");
                r = 0;
        }
        json_free(j);
        return r;
}

static int on_binary(struct program *p, const char *data, size_t size)
{
        unsigned kind = size > 0 ? (unsigned char)data[0] : REPLAY;

        if (kind == REPLAY && size >= 9) { /* output that came before we listened */
                data += 8;
                size -= 8;
                kind = STDOUT;
        }
        if ((kind == STDOUT || kind == STDERR) && size > 1)
                p->to.data(p->to.ctx, kind == STDERR, data + 1, size - 1);
        return 0;
}

static int on_message(void *ctx, enum ws_kind kind, const char *data, size_t size)
{
        struct program *p = ctx;

        if (has_ended(p))
                return 0;
        switch (kind) {
        case WS_TEXT: return on_text(p, data, size);
        case WS_BINARY: return on_binary(p, data, size);
        case WS_PING: return answer(p, WS_PONG, data, size);
        case WS_CLOSE:
                fail(p, -EHOSTUNREACH, "the sandbox's daemon closed the stream");
                return answer(p, WS_CLOSE, data, size < 2 ? size : 2);
        case WS_PONG: break;
        }
        return 0;
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct program *p = ctx;

        (void)is_stderr; /* it is one */
        if (!has_ended(p) && ws_feed(&p->ws, data, size) < 0)
                fail(p, -EPROTO, "what the sandbox's daemon says of a program makes no sense");
}

static void on_drained(void *ctx)
{
        struct program *p = ctx;

        if (p->to.drained)
                p->to.drained(p->to.ctx);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        fail(ctx, end->error < 0 ? end->error : -EHOSTUNREACH,
             end->sentence[0] ? end->sentence : "the stream ended before the program");
}

/* ---- what it is sent ---- */

/* Whole messages, one after the other. */
static int add_input(struct buf *to, const char *data, size_t size)
{
        _cleanup_(buf_wipe) struct buf message = BUF_INIT(PART_MAX + 1);
        int r = 0;

        while (size > 0 && r == 0) {
                size_t n = size < PART_MAX ? size : PART_MAX;

                buf_clear(&message);
                r = buf_add_char(&message, INPUT);
                if (r == 0)
                        r = buf_add(&message, data, n);
                if (r == 0)
                        r = ws_add(to, WS_BINARY, message.data, message.size);
                data += n;
                size -= n;
        }
        return r;
}

static int send(struct stream *s, const void *data, size_t size)
{
        struct program *p = program_of(s);
        _cleanup_(buf_wipe) struct buf out = BUF_INIT(SEND_MAX);
        int r = add_input(&out, data, size);

        if (r < 0)
                return r == -E2BIG ? -ENOBUFS : r;
        mutex_lock(&p->lock);
        r = p->is_ended || !p->raw ? -EPIPE : stream_send(p->raw, out.data, out.size);
        mutex_unlock(&p->lock);
        return r;
}

static int send_eof(struct stream *s)
{
        (void)s; /* who reads it ends with the stream */
        return 0;
}

static size_t queued(struct stream *s)
{
        struct program *p = program_of(s);
        size_t size;

        mutex_lock(&p->lock);
        size = p->raw ? stream_queued(p->raw) : 0;
        mutex_unlock(&p->lock);
        return size;
}

/* ---- its session ---- */

static int session_path(const char *session, const char *rest, struct buf *to)
{
        int r = url_add(to, "/pty");

        if (r == 0)
                r = url_add_segment(to, session);
        return r == 0 ? url_add(to, rest) : r;
}

/* Its process isn't to stay behind. Bounded; its failure is nobody's. */
static void end_session(struct osb_box *b, struct http *execd, const char *session)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {.method = "DELETE", .is_idempotent = true};
        struct call c;
        int r = session_path(session, "", &path);

        if (r < 0 || remote_state_of(&b->remote) != BOX_RUNNING)
                return;
        call_init(&c, clock_after(END_NS));
        q.path = buf_str(&path);
        r = http_do(execd, &c, &q, &reply);
        if (r < 0 && r != -ENOENT)
                log_debug("opensandbox", "%s: ending a program: %s, ignoring", b->remote.base.id,
                          c.sentence);
}

static void free_program(struct program *p)
{
        ws_done(&p->ws);
        http_unref(p->execd);
        mutex_done(&p->lock);
        free(p);
}

static void close_program(struct stream *s)
{
        struct program *p = program_of(s);
        struct stream *raw;

        mutex_lock(&p->lock);
        raw = STEAL(p->raw);
        mutex_unlock(&p->lock);
        stream_close(raw); /* from here on, no event of it comes */
        end_session(p->box, p->execd, p->session);
        free_program(p);
}

static const struct stream_ops program_ops = {send, send_eof, queued, close_program};

/* ---- started ---- */

/* Since execd 1.0.19 a session takes a command; that one has a call to list directories, too. */
static int ask_what_it_takes(struct osb_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        const struct http_request q = {.path = "/directories/list?path=%2F&depth=0"};
        int r;

        if (atomic_load(&b->takes_command) != UNKNOWN)
                return 0;
        r = osb_execd_do(b, c, &q, &reply);
        if (r < 0 && reply.status != 404)
                return r;
        c->sentence[0] = '\0';
        atomic_store(&b->takes_command, r == 0 ? TAKES : IGNORES);
        return 0;
}

static int session_body(const char *line, bool has_command, struct buf *to)
{
        struct json_out o = {.to = to};

        write_member(&o, "{", "cwd", "/");
        if (has_command)
                write_member(&o, ",", "command", line);
        write_raw(&o, "}");
        return o.failed;
}

static int new_session(struct osb_box *b, struct call *c, const char *line, char ret[SESSION_MAX])
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(2 * LINE_MAX_SIZE);
        _cleanup_(json_freep) struct json *j = NULL;
        struct http_request q = {.method = "POST", .path = "/pty"};
        const char *id;
        int r = session_body(line, atomic_load(&b->takes_command) == TAKES, &body);

        if (r < 0)
                return call_fail_errno(c, r, "a program in the sandbox");
        q.data = body.data;
        q.size = body.size;
        r = osb_execd_do(b, c, &q, &reply);
        if (r < 0 && (reply.status == 404 || reply.status == 405 || reply.status == 501)) {
                atomic_store(&b->takes_command, MISSING); /* before 1.0.10 */
                return call_fail(c, -EOPNOTSUPP, "the sandbox's daemon has no pipes to a program");
        }
        if (r < 0)
                return r;
        if (json_parse(buf_str(&reply.body), reply.body.size, &j, NULL) < 0)
                return call_fail(c, -EPROTO, "the sandbox's daemon gave no session");
        id = json_string(json_get(j, "session_id"));
        if (!id || !*id || strlen(id) >= SESSION_MAX || strspn(id, ".") == strlen(id))
                return call_fail(c, -EPROTO, "the sandbox's daemon gave no session");
        (void)snprintf(ret, SESSION_MAX, "%s", id);
        return 0;
}

static struct program *new_program(struct osb_box *b, const char *session,
                                   const struct stream_events *to)
{
        struct program *p = calloc(1, sizeof(*p));

        if (!p)
                return NULL;
        p->base.ops = &program_ops;
        p->box = b;
        p->to = *to;
        (void)snprintf(p->session, sizeof(p->session), "%s", session);
        p->ws = WS_INIT(MESSAGE_MAX, on_message, p);
        mutex_init(&p->lock);
        return p;
}

/* Its process begins with this. */
static int connect_program(struct program *p, struct call *c)
{
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        const struct stream_events events = {
                .data = on_data, .drained = on_drained, .end = on_end, .ctx = p};
        struct stream *raw = NULL;
        int r = session_path(p->session, "/ws?pty=0&since=0", &path);

        if (r < 0)
                return call_fail_errno(c, r, "a request");
        r = ws_connect(p->execd, c, buf_str(&path), &events, NULL, &raw);
        if (r < 0)
                return r;
        mutex_lock(&p->lock);
        p->raw = raw;
        mutex_unlock(&p->lock);
        return 0;
}

/* Of an old one: its bash is told what to be. */
static int send_line(struct program *p, struct call *c, const char *line)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(2 * LINE_MAX_SIZE);
        int r = 0;

        if (atomic_load(&p->box->takes_command) == TAKES)
                return 0;
        r = buf_addf(&text, "%s\n", line);
        if (r == 0)
                r = send(&p->base, text.data, text.size);
        return r < 0 ? call_fail_errno(c, r, "a program in the sandbox") : 0;
}

/* As another user by our program, which can change its own. */
static int make_line(struct osb_box *b, const char *user, const struct remote_program *p,
                     bool is_exec, struct buf *to)
{
        const char *const as[] = {REMOTE_INIT, "as", user, NULL};
        struct remote_program bare = *p;
        bool is_own = !user || strcmp(user, REMOTE_ROOT) == 0;
        int r;

        mutex_lock(&b->remote.lock);
        is_own = is_own || b->remote.asked_user[0] == '\0';
        mutex_unlock(&b->remote.lock);
        if (is_own)
                return osb_command_line(p, is_exec, to);
        bare.argv = as;
        r = osb_command_line(&bare, is_exec, to);
        if (r == 0)
                r = buf_add_char(to, ' ');
        bare = (struct remote_program){.argv = p->argv};
        return r == 0 ? osb_command_line(&bare, false, to) : r;
}

static int open_pipes(struct osb_box *b, struct call *c, const char *line,
                      const struct stream_events *events, struct stream **ret)
{
        char session[SESSION_MAX];
        struct program *p;
        int r = new_session(b, c, line, session);

        if (r < 0)
                return r;
        p = new_program(b, session, events);
        if (!p)
                return call_fail(c, -ENOMEM, "out of memory");
        r = osb_execd(b, c, &p->execd);
        if (r == 0)
                r = connect_program(p, c);
        if (r == 0)
                r = send_line(p, c, line);
        if (r < 0) {
                struct stream *raw;

                mutex_lock(&p->lock);
                raw = STEAL(p->raw);
                mutex_unlock(&p->lock);
                stream_close(raw);
                if (p->execd)
                        end_session(b, p->execd, session);
                free_program(p);
                return osb_execd_why(b, c, r);
        }
        *ret = &p->base;
        return 0;
}

int osb_program_open(struct remote_box *remote, struct call *c, const char *user,
                     const struct remote_program *of, const struct stream_events *events,
                     struct stream **ret)
{
        struct osb_box *b = osb_box_of(remote);
        _cleanup_(buf_wipe) struct buf line = BUF_INIT(LINE_MAX_SIZE),
                                       bare = BUF_INIT(LINE_MAX_SIZE);
        const struct remote_program alone = {.argv = of->argv};
        int r = make_line(b, user, of, true, &line);

        if (r == 0)
                r = make_line(b, user, &alone, false, &bare);
        if (r < 0)
                return call_fail_errno(c, r, "a program in the sandbox");
        r = ask_what_it_takes(b, c);
        if (r < 0)
                return r;
        if (atomic_load(&b->takes_command) != MISSING) {
                r = open_pipes(b, c, buf_str(&line), events, ret);
                if (r == 0 || atomic_load(&b->takes_command) != MISSING)
                        return r;
                c->sentence[0] = '\0';
        }
        if (atomic_load(&remote->is_foreign))
                return call_fail(c, -EOPNOTSUPP,
                                 "the sandbox's daemon has no pipes, and takes no program of ours");
        return osb_relay_open(b, c, buf_str(&bare), events, ret);
}
