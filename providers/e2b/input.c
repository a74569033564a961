/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes for a program's stdin; see input.h. */

#include "providers/e2b/input.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "providers/e2b/envd.h"
#include "providers/e2b/events.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/envelope.h"
#include "transport/ssh/base64.h"

#define SILENCE_NS HTTP_SILENCE_NS /* who it is for always reads */
#define IDLE_READS 5 /* of a stream without a part, each within 10 ms */

enum { UNKNOWN, THERE, MISSING }; /* of b->stream_input */

/* Whoever answers with something else didn't take it. */
static int check_taken(struct call *c, const struct http_reply *reply)
{
        _cleanup_(json_freep) struct json *j = NULL;

        if (json_parse(buf_str(&reply->body), reply->body.size, &j, NULL) < 0 ||
            json_type(j) != JSON_OBJECT)
                return call_fail(c, -EPROTO, "the answer to what was sent makes no sense");
        return 0;
}

int e2b_input_send(struct e2b_box *b, struct call *c, const char *user, uint32_t pid,
                   const struct buf *part)
{
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(2 * E2B_INPUT_PART);
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        struct http_request q = {.method = "POST",
                                 .path = "/process.Process/SendInput",
                                 .silence_ns = SILENCE_NS,
                                 .all_ns = NEVER_NS};
        int r = buf_addf(&body, "{\"process\":{\"pid\":%" PRIu32 "},\"input\":{\"stdin\":\"", pid);

        if (r == 0)
                r = base64_encode(&body, part->data, part->size);
        if (r == 0)
                r = buf_add_str(&body, "\"}}");
        if (r < 0)
                return r;
        q.data = body.data;
        q.size = body.size;
        r = e2b_envd_do(b, c, user, &q, &reply);
        return r < 0 ? r : check_taken(c, &reply);
}

/* ---- a stream ---- */

struct feed {
        struct http_source source;
        struct e2b_input *from; /* NULL: only the start, to see whether there is such a call */
        struct buf part; /* of bytes */
        struct buf out; /* as they are sent */
        uint64_t out_offset; /* in the body */
        unsigned idle;
};

static int refill(struct feed *f)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(2 * E2B_INPUT_PART);
        int r;

        f->out_offset += f->out.size;
        buf_clear(&f->out);
        buf_clear(&f->part);
        if (!f->from)
                return 0;
        r = f->from->next(f->from, &f->part);
        if (r < 0 || f->part.size == 0)
                return r < 0 ? r : f->idle++ < IDLE_READS ? -EAGAIN : 0;
        f->idle = 0;
        r = buf_add_str(&text, "{\"data\":{\"input\":{\"stdin\":\"");
        if (r == 0)
                r = base64_encode(&text, f->part.data, f->part.size);
        if (r == 0)
                r = buf_add_str(&text, "\"}}}");
        return r == 0 ? envelope_add(&f->out, text.data, text.size) : r;
}

static ssize_t read_feed(struct http_source *source, void *data, size_t size, uint64_t offset)
{
        struct feed *f = container_of(source, struct feed, source);
        size_t at = (size_t)(offset - f->out_offset), left = f->out.size - at;
        int r;

        if (left == 0) {
                r = refill(f);
                if (r < 0 || f->out.size == 0)
                        return r;
                at = 0;
                left = f->out.size;
        }
        size = size < left ? size : left;
        memcpy(data, f->out.data + at, size);
        return (ssize_t)size;
}

static int start_feed(struct feed *f, uint32_t pid, struct e2b_input *from)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(128);
        int r = buf_addf(&text, "{\"start\":{\"process\":{\"pid\":%" PRIu32 "}}}", pid);

        *f = (struct feed){
                .source = {.read = read_feed, .size = HTTP_SIZE_UNKNOWN, .is_once = from != NULL},
                .from = from,
                .part = BUF_INIT(E2B_INPUT_PART),
                .out = BUF_INIT(2 * E2B_INPUT_PART + ENVELOPE_HEADER)};
        return r == 0 ? envelope_add(&f->out, text.data, text.size) : r;
}

static void ignore_pid(void *ctx, uint32_t pid)
{
        (void)ctx;
        (void)pid;
}

static void ignore_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        (void)ctx;
        (void)is_stderr;
        (void)data;
        (void)size;
}

/* How a stream of ours was answered. */
static int outcome(struct call *c, const struct http_reply *reply)
{
        struct e2b_events events;
        int r;

        e2b_events_init(&events, &(struct e2b_events_to){ignore_pid, ignore_data, NULL});
        r = e2b_events_feed(&events, buf_str(&reply->body), reply->body.size);
        if (r == 0 && !events.is_over)
                r = call_fail(c, -EHOSTUNREACH, "the answer to what was sent was cut off");
        else if (r < 0)
                r = call_fail(c, -EPROTO, "the answer to what was sent makes no sense");
        else if (events.end.error < 0)
                r = call_fail(c, events.end.error, "%s", events.end.sentence);
        e2b_events_done(&events);
        return r;
}

static int run_stream(struct e2b_box *b, struct call *c, const char *user, uint32_t pid,
                      struct e2b_input *from, unsigned *ret_status)
{
        static const struct http_header version = {.name = "Connect-Protocol-Version",
                                                   .value = "1"};
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        struct feed f;
        struct http_request q = {.method = "POST",
                                 .path = "/process.Process/StreamInput",
                                 .type = "application/connect+json",
                                 .headers = &version,
                                 .header_count = 1,
                                 .source = &f.source,
                                 .silence_ns = SILENCE_NS,
                                 .all_ns = NEVER_NS};
        int r = start_feed(&f, pid, from);

        if (r == 0)
                r = e2b_envd_do(b, c, user, &q, &reply);
        if (r == 0)
                r = outcome(c, &reply);
        *ret_status = reply.status;
        buf_wipe(&f.part);
        buf_wipe(&f.out);
        return r;
}

int e2b_input_stream(struct e2b_box *b, struct call *c, const char *user, uint32_t pid,
                     struct e2b_input *from)
{
        unsigned status = 0;
        int r = 0;

        if (atomic_load(&b->stream_input) == UNKNOWN) {
                r = run_stream(b, c, user, pid, NULL, &status);
                if (r == 0)
                        atomic_store(&b->stream_input, THERE);
                else if (r == -EOPNOTSUPP || (status >= 400 && status < 500 && status != 429) ||
                         status == 501)
                        atomic_store(&b->stream_input, MISSING);
        }
        if (atomic_load(&b->stream_input) == MISSING) {
                c->sentence[0] = '\0';
                return -EOPNOTSUPP;
        }
        return r < 0 ? r : run_stream(b, c, user, pid, from, &status);
}
