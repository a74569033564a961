/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in a sandbox as a stream, by one of the toolbox's terminals: its shell is told to
 * become our program, which carries the one that is wanted (inside/carry.h). It ends with its
 * stream: the terminal is removed, and whoever was killed before that is missed there.
 *
 *      CREATED -> the shell gets its line -> the mark came -> words sent: open -> over
 *
 * Threads: what comes, comes on the endpoint's own; sending from any.
 * Locks:   a terminal's own is a leaf but for its stream's.
 */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/daytona/states.h"
#include "providers/daytona/toolbox.h"
#include "providers/inside/carry.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/json.h"
#include "transport/base/log.h"
#include "transport/base/random.h"
#include "transport/http/url.h"
#include "transport/http/ws.h"

#define PREFIX "sbxfs-"
#define SAID_MAX ((size_t)64 << 10) /* by a shell, before our program speaks */
#define FRAMES_MAX ((size_t)72 << 20)
#define START_NS (20 * NS_PER_S)
#define REMOVE_NS (3 * NS_PER_S)
#define LOOK_NS (100 * NS_PER_MS)

struct terminal {
        struct stream base;
        struct list link; /* guarded by the provider's lock */
        struct daytona_box *box; /* fixed, as are: */
        char name[sizeof(PREFIX) + RANDOM_ID_SIZE];
        char mark[sizeof(CARRY_MARK) + RANDOM_ID_SIZE + 1];
        struct stream_events to;
        /* the endpoint's thread only */
        struct buf in; /* what the shell said; then the beginning of a frame */
        uint32_t taken; /* of output, not yet told */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct stream *raw; /* NULL: not there yet */
        bool is_up; /* the mark came */
        bool is_over; /* its end is known */
        bool has_exited; /* that of the program */
        bool is_open; /* somebody is to hear of it */
        struct stream_end end;
};

static struct terminal *terminal_of(struct stream *s)
{
        return container_of(s, struct terminal, base);
}

/* ---- sending ---- */

static int send_frames(struct terminal *t, const struct buf *frames)
{
        int r;

        mutex_lock(&t->lock);
        r = t->is_over || !t->raw ? -EPIPE : stream_send(t->raw, frames->data, frames->size);
        mutex_unlock(&t->lock);
        return r;
}

static int send_data(struct stream *s, const void *data, size_t size)
{
        _cleanup_(buf_wipe) struct buf frames = BUF_INIT(FRAMES_MAX);
        int r = carry_add_all(&frames, CARRY_INPUT, data, size);

        return r < 0 || size == 0 ? r : send_frames(terminal_of(s), &frames);
}

static int send_empty(struct terminal *t, enum carry_type type)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(64);
        int r = carry_add(&frame, type, NULL, 0);

        return r < 0 ? r : send_frames(t, &frame);
}

static int send_eof(struct stream *s)
{
        return send_empty(terminal_of(s), CARRY_EOF);
}

static size_t queued(struct stream *s)
{
        struct terminal *t = terminal_of(s);
        size_t size;

        mutex_lock(&t->lock);
        size = t->raw ? stream_queued(t->raw) : 0;
        mutex_unlock(&t->lock);
        return size;
}

/* ---- what comes: the endpoint's thread ---- */

/* The one end: told now, or by who opens it. */
static void finish(struct terminal *t, const struct stream_end *end, bool has_exited)
{
        bool is_told;

        mutex_lock(&t->lock);
        is_told = t->is_open && !t->is_over;
        if (!t->is_over)
                t->end = *end;
        t->is_over = true;
        t->has_exited |= has_exited;
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
        if (is_told)
                t->to.end(t->to.ctx, end);
}

static void broken(struct terminal *t, int error, const char *sentence)
{
        struct stream_end end = {.error = error};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%s", sentence);
        finish(t, &end, false);
}

static bool is_over(struct terminal *t)
{
        bool is_over;

        mutex_lock(&t->lock);
        is_over = t->is_over;
        mutex_unlock(&t->lock);
        return is_over;
}

/* Output was taken: more may come. */
static void give_credit(struct terminal *t)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(64);

        if (t->taken < CARRY_WINDOW / 4)
                return;
        if (carry_add_credit(&frame, t->taken) == 0 && send_frames(t, &frame) == 0)
                t->taken = 0;
}

static void on_exited(struct terminal *t, const struct carry_frame *f)
{
        struct stream_end end = {.has_code = (unsigned char)f->data[0] != CARRY_NO_CODE,
                                 .code = (unsigned char)f->data[0],
                                 .signal = (unsigned char)f->data[1] & 0x7f};

        if (!end.has_code)
                end.code = 0;
        finish(t, &end, true);
}

static void on_frame(struct terminal *t, const struct carry_frame *f)
{
        if (f->type == CARRY_EXIT) {
                on_exited(t, f);
                return;
        }
        t->taken += (uint32_t)f->size;
        t->to.data(t->to.ctx, f->type == CARRY_ERR, f->data, f->size);
}

static void parse(struct terminal *t)
{
        struct carry_frame f;
        size_t at = 0, used;
        int r = 0;

        while (!is_over(t) &&
               (r = carry_parse(buf_str(&t->in) + at, t->in.size - at, false, &f, &used)) > 0) {
                on_frame(t, &f);
                at += used;
        }
        buf_drop(&t->in, at);
        if (r < 0)
                broken(t, -EPROTO, "what comes by the sandbox's terminal makes no sense");
        else
                give_credit(t);
}

/* Among what a shell says: is it our program's word? */
static bool take_mark(struct terminal *t)
{
        size_t size = strlen(t->mark);
        const char *at = memmem(buf_str(&t->in), t->in.size, t->mark, size);

        if (!at)
                return false;
        buf_drop(&t->in, (size_t)(at - t->in.data) + size);
        mutex_lock(&t->lock);
        t->is_up = true;
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
        return true;
}

/* {"type":"control","status":"error","error":"..."} */
static void on_control(struct terminal *t, const char *text, size_t size)
{
        struct json *j = NULL;
        const char *status, *error;
        char said[200];

        if (json_parse(text, size, &j, NULL) < 0)
                return; /* of a kind that is new */
        status = json_string(json_get(j, "status"));
        error = json_string(json_get(j, "error"));
        if (status && strcmp(status, "error") == 0) {
                error = error ? error : "no reason given";
                escape_text(error, strlen(error), said, sizeof(said));
                broken(t, -EIO, said);
        }
        json_free(j);
}

static void on_data(void *ctx, bool is_text, const void *data, size_t size)
{
        struct terminal *t = ctx;
        bool is_up;

        mutex_lock(&t->lock);
        is_up = t->is_up;
        if (t->is_over)
                size = 0;
        mutex_unlock(&t->lock);
        if (size == 0)
                return;
        if (is_text) {
                on_control(t, data, size);
                return;
        }
        if (buf_add(&t->in, data, size) < 0)
                broken(t, -EPROTO, "the sandbox's shell says too much");
        else if (is_up || take_mark(t))
                parse(t);
}

static void on_drained(void *ctx)
{
        struct terminal *t = ctx;
        bool is_open;

        mutex_lock(&t->lock);
        is_open = t->is_open && !t->is_over;
        mutex_unlock(&t->lock);
        if (is_open && t->to.drained)
                t->to.drained(t->to.ctx);
}

static void on_end(void *ctx, const struct stream_end *raw)
{
        struct stream_end end = *raw;

        if (end.error == 0) {
                char said[160];

                escape_sentence(end.sentence, strlen(end.sentence), said, sizeof(said));
                end.error = -EHOSTUNREACH;
                (void)snprintf(end.sentence, sizeof(end.sentence),
                               "the sandbox's terminal has ended: %s", said);
        }
        finish(ctx, &end, false);
}

/* ---- made, removed ---- */

static int path_of(const struct terminal *t, const char *rest, struct buf *to)
{
        int r = url_add(to, "/process/pty");

        if (r == 0)
                r = url_add_segment(to, t->name);
        return r == 0 ? url_add(to, rest) : r;
}

/* Its shell starts without the user's own files: they could do anything, or ask for a key. */
static int make(struct terminal *t, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf body = BUF_INIT(1024);
        struct http_request q = {.method = "POST", .path = "/process/pty", .accepts = {409}};
        int r = buf_addf(&body,
                         "{\"id\":\"%s\",\"cwd\":\"/\",\"cols\":80,\"rows\":24,\"envs\":{\"HOME\":"
                         "\"" DAYTONA_DIR "\",\"ZDOTDIR\":\"" DAYTONA_DIR
                         "\",\"HISTFILE\":\"/dev/null\"}}",
                         t->name);

        if (r < 0)
                return call_fail_errno(c, r, "a request");
        q.data = body.data;
        q.size = body.size;
        q.is_idempotent = true; /* its name is its own: a second one is refused */
        r = daytona_toolbox_do(t->box, c, &q, &reply, NULL);
        if (r < 0 && daytona_is_no_call(reply.status, buf_str(&reply.body), reply.body.size))
                return call_fail(c, -EOPNOTSUPP,
                                 "the sandbox's toolbox is too old: it has no terminals");
        return r == -ENOENT ? -EIO : r; /* for it is our program whose lack that means */
}

static void remove_it(struct terminal *t)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        static const struct http_header skip = DAYTONA_SKIP;
        struct http_request q = {.method = "DELETE",
                                 .headers = &skip,
                                 .header_count = 1,
                                 .accepts = {404},
                                 .is_idempotent = true};
        struct http *h;
        struct call c;
        int r = path_of(t, "", &path);

        call_init(&c, clock_after(REMOVE_NS));
        q.path = buf_str(&path);
        if (r == 0)
                r = daytona_toolbox(t->box, &c, &h);
        if (r == 0)
                r = http_do(h, &c, &q, &reply);
        if (r < 0)
                log_debug("daytona", "%s: removing a terminal: %s, ignoring",
                          t->box->remote.base.id, c.sentence);
}

static void terminal_free(struct terminal *t)
{
        buf_done(&t->in);
        cond_done(&t->changed);
        mutex_done(&t->lock);
        free(t);
}

static void close_terminal(struct stream *s)
{
        struct terminal *t = terminal_of(s);
        struct daytona_provider *d = daytona_of_box(t->box);

        mutex_lock(&d->lock);
        list_remove(&t->link);
        mutex_unlock(&d->lock);
        stream_close(t->raw); /* fixed by now; from here on, no event comes */
        if (!t->has_exited && remote_state_of(&t->box->remote) == BOX_RUNNING)
                remove_it(t);
        terminal_free(t);
}

static const struct stream_ops terminal_ops = {send_data, send_eof, queued, close_terminal};

static struct terminal *terminal_new(struct daytona_box *b, const struct stream_events *to)
{
        struct terminal *t = calloc(1, sizeof(*t));
        struct daytona_provider *d = daytona_of_box(b);
        char name[RANDOM_ID_SIZE], mark[RANDOM_ID_SIZE];

        if (!t || random_id(name) < 0 || random_id(mark) < 0) {
                free(t);
                return NULL;
        }
        t->base.ops = &terminal_ops;
        t->box = b;
        t->to = *to;
        t->in = BUF_INIT(SAID_MAX + 2 * CARRY_PART);
        (void)snprintf(t->name, sizeof(t->name), PREFIX "%s", name);
        (void)snprintf(t->mark, sizeof(t->mark), CARRY_MARK "%s\n", mark);
        mutex_init(&t->lock);
        cond_init(&t->changed);
        mutex_lock(&d->lock);
        list_add_tail(&d->terminals, &t->link);
        mutex_unlock(&d->lock);
        return t;
}

/* ---- opened ---- */

static int connect_to(struct terminal *t, struct call *c)
{
        static const struct http_header skip = DAYTONA_SKIP;
        const struct stream_events events = {
                .data = on_data, .drained = on_drained, .end = on_end, .ctx = t};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {.headers = &skip, .header_count = 1};
        struct stream *raw = NULL;
        struct again a = {0};
        struct http *h;
        int r = path_of(t, "/connect", &path);

        if (r < 0)
                return call_fail_errno(c, r, "a request");
        q.path = buf_str(&path);
        r = daytona_toolbox(t->box, c, &h);
        if (r < 0)
                return r;
        do {
                _cleanup_(http_reply_done) struct http_reply reply = {0};

                r = ws_open(h, c, &q, &events, &reply, &raw);
                if (r == 0)
                        break;
                r = daytona_toolbox_again(t->box, c, r, &reply, &a);
        } while (r == 0);
        if (r < 0)
                return r;
        mutex_lock(&t->lock);
        t->raw = raw;
        mutex_unlock(&t->lock);
        return 0;
}

/* The shell's line: what it echoes holds no mark. */
static int tell_shell(struct terminal *t, struct call *c)
{
        char line[128];
        int r, n = snprintf(line, sizeof(line), " exec " DAYTONA_DIR "/init carry %.*s; exit\r",
                            (int)(strlen(t->mark) - strlen(CARRY_MARK) - 1),
                            t->mark + strlen(CARRY_MARK));

        assert(n > 0 && (size_t)n < sizeof(line));
        mutex_lock(&t->lock);
        r = t->is_over ? 0 : stream_send(t->raw, line, (size_t)n);
        mutex_unlock(&t->lock);
        return r < 0 && r != -EPIPE ? call_fail_errno(c, r, "a terminal") : 0; /* its end tells */
}

/* Our program is there; -ENOENT it isn't, -EHOSTUNREACH the way there is lost. */
static int wait_up(struct terminal *t, struct call *c)
{
        uint64_t until_ns = clock_after(START_NS);
        int r = 0;

        mutex_lock(&t->lock);
        while (r == 0 && !t->is_up && !t->is_over) {
                (void)cond_wait_until(&t->changed, &t->lock, clock_after(LOOK_NS));
                r = clock_mono_ns() >= until_ns ? -ETIMEDOUT : call_check(c);
        }
        if (t->is_up)
                r = 0;
        else if (r < 0)
                (void)call_fail(c, r, "no word of our program in the sandbox's terminal");
        else if (t->end.error == -EHOSTUNREACH)
                r = call_fail(c, -ENOENT, "our program isn't in the sandbox: %s", t->end.sentence);
        else
                r = call_fail(c, t->end.error, "%s", t->end.sentence);
        mutex_unlock(&t->lock);
        return r;
}

static int send_words(struct terminal *t, struct call *c, const struct remote_program *p)
{
        _cleanup_(buf_wipe) struct buf words = BUF_INIT(CARRY_WORDS + CARRY_HEADER);
        int r = carry_add_argv(&words, p->argv);

        if (r == 0)
                r = send_frames(t, &words);
        return r < 0 && r != -EPIPE ? call_fail_errno(c, r, "a program in the sandbox") : 0;
}

/* From here on its events are somebody's. */
static void announce(struct terminal *t)
{
        struct stream_end end;
        bool is_over;

        mutex_lock(&t->lock);
        t->is_open = true;
        is_over = t->is_over;
        end = t->end;
        mutex_unlock(&t->lock);
        if (is_over)
                t->to.end(t->to.ctx, &end);
}

static int open_once(struct remote_box *b, struct call *c, const struct remote_program *p,
                     const struct stream_events *events, struct stream **ret)
{
        struct terminal *t = terminal_new(daytona_box_of(b), events);
        int r;

        if (!t)
                return call_fail(c, -ENOMEM, "out of memory");
        r = make(t, c);
        if (r == 0)
                r = connect_to(t, c);
        if (r == 0)
                r = tell_shell(t, c);
        if (r == 0)
                r = wait_up(t, c);
        if (r == 0)
                r = send_words(t, c, p);
        if (r < 0) {
                close_terminal(&t->base);
                return r;
        }
        announce(t);
        *ret = &t->base;
        return 0;
}

/* One that isn't our own program may be the first that needs it. */
int daytona_open(struct remote_box *b, struct call *c, const char *user,
                 const struct remote_program *p, const struct stream_events *events,
                 struct stream **ret)
{
        int r = open_once(b, c, p, events, ret);

        (void)user; /* the toolbox's own is the only one */
        if (r != -ENOENT || strcmp(p->argv[0], DAYTONA_DIR "/init") == 0)
                return r;
        c->sentence[0] = '\0';
        r = remote_put_init(b, c);
        return r == 0 ? open_once(b, c, p, events, ret) : r;
}

void daytona_ping_all(struct daytona_provider *d)
{
        mutex_lock(&d->lock);
        list_for_each (at, &d->terminals)
                (void)send_empty(container_of(at, struct terminal, link), CARRY_PING);
        mutex_unlock(&d->lock);
}
