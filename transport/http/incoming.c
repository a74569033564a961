/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes in for an exchange: headers, and the body to where it belongs. All of it is hostile.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "transport/http/private.h"

#define HEADER_LINES_MAX 256

static bool is_status_line(const char *line, size_t size)
{
        return size > 5 && memcmp(line, "HTTP/", 5) == 0;
}

static unsigned status_of(const char *line, size_t size)
{
        const char *at = memchr(line, ' ', size);
        unsigned status = 0;

        for (int i = 1; at && i <= 3 && at + i < line + size; i++)
                if (at[i] >= '0' && at[i] <= '9')
                        status = status * 10 + (unsigned)(at[i] - '0');
        return status;
}

static size_t fail(struct exchange *x, int error, const char *reason)
{
        x->error = error;
        x->reason = reason;
        return 0;
}

bool exchange_accepts(const struct exchange *x)
{
        unsigned status = x->reply->status;

        if (status >= 200 && status < 300)
                return true;
        for (size_t i = 0; i < sizeof(x->request->accepts) / sizeof(unsigned); i++)
                if (status != 0 && x->request->accepts[i] == status)
                        return true;
        return false;
}

size_t exchange_on_header(char *line, size_t one, size_t count, void *ctx)
{
        struct exchange *x = ctx;
        size_t size = one * count;

        if (x->is_taken)
                return size; /* trailers */
        if (is_status_line(line, size)) {
                x->reply->status = status_of(line, size);
                buf_clear(&x->reply->headers);
                size = 0;
        }
        if (++x->header_lines > HEADER_LINES_MAX || memchr(line, '\0', size))
                return fail(x, -EPROTO, "the answer's headers are too many, or have NUL");
        if (reply_add_header(x->reply, line, size) < 0)
                return fail(x, -EPROTO, "the answer's headers are too long");
        x->has_headers = line[0] == '\r' || line[0] == '\n' ? exchange_accepts(x) : x->has_headers;
        return one * count;
}

static size_t take_error_body(struct exchange *x, const char *data, size_t size)
{
        struct buf *body = &x->reply->body;
        size_t room = HTTP_ERROR_BODY_MAX - body->size, n = size < room ? size : room;

        if (buf_add(body, data, n) < 0)
                return fail(x, -ENOMEM, "out of memory");
        if (n < size) {
                x->reply->is_cut = x->is_complete = true;
                return 0;
        }
        return size;
}

/* Before the first byte of a body that was asked for in part. */
static int begin_range(struct exchange *x)
{
        const struct http_range *range = x->request->range;
        const char *text = http_reply_header(x->reply, "Content-Range");
        uint64_t first = 0;

        x->left = range->size ? range->size : UINT64_MAX;
        if (x->reply->status != 206) {
                x->skip = range->offset;
                return 0;
        }
        if (!text || sscanf(text, "bytes %20" SCNu64 "-", &first) != 1 || first != range->offset)
                return -EPROTO;
        return 0;
}

/* Of what has come, what belongs to the range. */
static void cut_to_range(struct exchange *x, const char **data, size_t *size)
{
        size_t pass = x->skip < *size ? (size_t)x->skip : *size;

        x->skip -= pass;
        *data += pass;
        *size -= pass;
        /* A part ends by itself, and its connection lives; more of a whole file isn't waited for. */
        x->is_complete = *size > x->left || (*size == x->left && x->reply->status != 206);
        if (*size > x->left)
                *size = (size_t)x->left;
        x->left -= *size;
}

static int begin_body(struct exchange *x)
{
        const struct http_request *q = x->request;

        x->has_begun = true;
        if (q->range && begin_range(x) < 0) {
                x->reason = "the answer is another part than was asked for";
                return -EPROTO;
        }
        return q->sink && q->sink->begin ? q->sink->begin(q->sink, x->reply) : 0;
}

static int hand_on(struct exchange *x, const char *data, size_t size)
{
        const struct http_request *q = x->request;

        if (q->sink) {
                if (q->size_max > 0 && size > q->size_max - x->got) {
                        x->reason = "the answer is longer than was asked for";
                        return -EFBIG;
                }
                x->got += size;
                return q->sink->write(q->sink, data, size);
        }
        x->got += size;
        if (buf_add(&x->reply->body, data, size) < 0) {
                x->reason = "the answer is too long";
                return -EPROTO;
        }
        return 0;
}

size_t exchange_on_body(char *bytes, size_t one, size_t count, void *ctx)
{
        struct exchange *x = ctx;
        const char *data = bytes;
        size_t size = one * count, all = size;
        int r;

        if (!exchange_accepts(x) || (x->request->sink && x->reply->status >= 300))
                return take_error_body(x, data, size);
        if (x->taker)
                return x->taker(x, data, size);
        r = x->has_begun ? 0 : begin_body(x);
        if (r == 0 && x->request->range && x->reply->status < 300)
                cut_to_range(x, &data, &size);
        if (r == 0 && size > 0)
                r = hand_on(x, data, size);
        if (r < 0) {
                x->error = r;
                return 0;
        }
        return x->is_complete ? 0 : all;
}
