/* SPDX-License-Identifier: Apache-2.0 */
/* A program by execd's command call and uploads; see relay.h. */

#include "providers/opensandbox/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/opensandbox/body.h"
#include "providers/opensandbox/events.h"
#include "providers/opensandbox/execd.h"
#include "providers/remote/content.h"
#include "providers/remote/sender.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/random.h"
#include "transport/http/url.h"
#include "transport/ssh/base64.h"

#define LINE_MAX_SIZE ((size_t)100 << 10)
#define BYTES_MAX ((size_t)64 << 10) /* of one line */
#define SILENCE_NS (30 * NS_PER_S) /* it pings every 3 s */
#define SEND_SILENCE_NS (60 * NS_PER_S)
#define END_NS (3 * NS_PER_S)
#define READY "-" /* the line before all others; no base64 */

struct relay {
        struct sender sender;
        struct osb_box *box; /* fixed, as is: */
        char dir[64]; /* of its input, there */
        struct osb_events events; /* raw's thread only, as is: */
        struct buf bytes;
        uint64_t next; /* piece; the sender's thread only */
        char id[64]; /* the command's; "" not told yet; guarded by the sender's lock */
};

static struct relay *relay_of(struct sender *s)
{
        return container_of(s, struct relay, sender);
}

/* ---- what it prints: raw's thread ---- */

static void fail(struct sender *s, int error, const char *sentence)
{
        struct stream_end end = {.error = error};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%.250s", sentence);
        sender_end(s, &end);
}

static void on_started(void *ctx, const char *id)
{
        struct relay *p = ctx;

        mutex_lock(&p->sender.lock);
        (void)snprintf(p->id, sizeof(p->id), "%.63s", id);
        mutex_unlock(&p->sender.lock);
}

static int on_line(void *ctx, const char *text)
{
        struct relay *p = ctx;

        if (strcmp(text, READY) == 0) {
                sender_ready(&p->sender);
                return 0;
        }
        buf_clear(&p->bytes);
        if (base64_decode(&p->bytes, text, strlen(text)) < 0)
                return -EPROTO;
        if (p->bytes.size > 0)
                p->sender.to.data(p->sender.to.ctx, false, p->bytes.data, p->bytes.size);
        return 0;
}

static void end_by_events(struct relay *p)
{
        struct stream_end end = {
                .error = p->events.error, .has_code = p->events.error == 0, .code = p->events.code};

        if (end.error == 0 && p->events.said[0]) /* a shell's word, on why there is no program */
                log_debug("opensandbox", "%s: %s", p->box->remote.base.id, p->events.said);
        (void)snprintf(end.sentence, sizeof(end.sentence), "%s", p->events.sentence);
        sender_end(&p->sender, &end);
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct relay *p = ctx;
        int r = p->events.has_end ? 0 : osb_events_feed(&p->events, data, size);

        (void)is_stderr; /* it is one */
        if (r < 0)
                fail(&p->sender, r, "what the sandbox's daemon says of a program makes no sense");
        else if (r > 0)
                end_by_events(p);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct relay *p = ctx;

        if (end->error < 0)
                fail(&p->sender, end->error, end->sentence);
        osb_events_finish(&p->events);
        end_by_events(p);
}

/* ---- what it is sent: the sender's thread ---- */

static int upload(struct relay *p, struct call *c, const void *data, size_t size)
{
        struct content_source source = content_of_memory(data, size);
        char name[128];
        int r;

        c->deadline_ns = clock_after(SEND_SILENCE_NS);
        (void)snprintf(name, sizeof(name), "%s/%llu.%zu", p->dir, (unsigned long long)++p->next,
                       size);
        r = osb_execd_upload(p->box, c, name, &source.base);
        return r == -ENOENT ? 0 : r; /* it was taken before the daemon was done with it */
}

static int put(struct sender *s, struct call *c, struct buf *piece)
{
        int r = sender_take(s, c, piece, SENDER_PART);

        return r < 0 ? r : upload(relay_of(s), c, piece->data, piece->size);
}

static int put_eof(struct sender *s, struct call *c)
{
        return upload(relay_of(s), c, "", 0);
}

static void ask_quietly(struct relay *p, const char *path, const char *key, const char *value)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf whole = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {.method = "DELETE", .is_idempotent = true};
        struct call c;

        call_init(&c, clock_after(END_NS));
        if (url_add(&whole, path) < 0 || url_add_query(&whole, key, value) < 0)
                return;
        q.path = buf_str(&whole);
        if (osb_execd_do(p->box, &c, &q, &reply) < 0)
                log_debug("opensandbox", "%s: ending a program: %s, ignoring",
                          p->box->remote.base.id, c.sentence);
}

/* It isn't to stay behind, nor what it was sent. */
static void end_it(struct sender *s)
{
        struct relay *p = relay_of(s);
        char id[sizeof(p->id)];

        if (remote_state_of(&p->box->remote) != BOX_RUNNING)
                return;
        mutex_lock(&s->lock);
        memcpy(id, p->id, sizeof(id));
        mutex_unlock(&s->lock);
        if (id[0])
                ask_quietly(p, "/command", "id", id);
        ask_quietly(p, "/directories", "path", p->dir);
}

static void free_relay(struct sender *s)
{
        struct relay *p = relay_of(s);

        osb_events_done(&p->events);
        buf_done(&p->bytes);
        sender_done(s);
        free(p);
}

static const struct sender_ops relay_ops = {
        .put = put,
        .put_eof = put_eof,
        .fail = fail,
        .leave = end_it,
        .free = free_relay,
};

/* ---- started ---- */

static struct relay *new_relay(struct osb_box *b, const char *mark, const struct stream_events *to)
{
        struct relay *p = calloc(1, sizeof(*p));

        if (!p)
                return NULL;
        sender_init(&p->sender, &relay_ops, to);
        p->box = b;
        (void)snprintf(p->dir, sizeof(p->dir), REMOTE_DIR "/io-%s", mark);
        p->bytes = BUF_INIT(BYTES_MAX);
        osb_events_init(&p->events, NULL);
        p->events.to = (struct osb_events_to){on_started, on_line, p};
        return p;
}

static int begin(struct relay *p, struct call *c, const char *line)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_wipe) struct buf whole = BUF_INIT(LINE_MAX_SIZE),
                                       body = BUF_INIT(2 * LINE_MAX_SIZE);
        const struct stream_events events = {.data = on_data, .end = on_end, .ctx = p};
        struct http_request q = {.method = "POST", .path = "/command", .size_max = UINT64_MAX};
        struct stream *raw = NULL;
        struct http *h = NULL;
        int r = buf_addf(&whole, "exec " REMOTE_INIT " relay %s %s", p->dir, line);

        if (r == 0)
                r = osb_command_body(buf_str(&whole), NULL, &body);
        if (r < 0)
                return call_fail_errno(c, r, "a program in the sandbox");
        q.data = body.data;
        q.size = body.size;
        r = osb_execd(p->box, c, &h);
        if (r < 0)
                return r;
        r = http_open(h, c, &q, SILENCE_NS, &events, &reply, &raw);
        http_unref(h);
        return r < 0 ? osb_execd_why(p->box, c, r) : sender_start(&p->sender, c, raw);
}

int osb_relay_open(struct osb_box *b, struct call *c, const char *line,
                   const struct stream_events *events, struct stream **ret)
{
        char mark[RANDOM_ID_SIZE];
        struct relay *p;
        int r = random_id(mark);

        if (r < 0)
                return call_fail_errno(c, r, "a name");
        p = new_relay(b, mark, events);
        if (!p)
                return call_fail(c, -ENOMEM, "out of memory");
        r = begin(p, c, line);
        if (r < 0) {
                free_relay(&p->sender);
                return r;
        }
        *ret = &p->sender.base;
        return 0;
}
