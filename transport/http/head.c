/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of answers, strictly. */

#include "transport/http/head.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "transport/http/private.h"

#define LINES_MAX 256

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

/* "HTTP/1.1 101 Switching Protocols" */
static bool parse_status(const char *line, size_t size, unsigned *ret)
{
        if (size < 12 || memcmp(line, "HTTP/1.", 7) != 0 || !is_digit(line[7]) || line[8] != ' ')
                return false;
        if (!is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11]))
                return false;
        if (size > 12 && line[12] != ' ' && line[12] != '\r')
                return false;
        *ret = (unsigned)((line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0'));
        return *ret >= 100;
}

static int take_line(struct http_reply *reply, const char *line, size_t size, unsigned number)
{
        if (memchr(line, '\0', size) || number > LINES_MAX)
                return -EPROTO;
        if (number == 0)
                return parse_status(line, size, &reply->status) ? 0 : -EPROTO;
        if (line[0] != ' ' && line[0] != '\t' && !memchr(line, ':', size))
                return -EPROTO;
        return reply_add_header(reply, line, size) == -ENOMEM ? -ENOMEM : 0;
}

int head_parse(const char *data, size_t size, struct http_reply *reply, size_t *ret_size)
{
        const char *at = data, *end = data + size, *newline;

        reply->status = 0;
        reply->headers.max = HTTP_HEADERS_MAX;
        buf_clear(&reply->headers);
        for (unsigned number = 0; at < end && (newline = memchr(at, '\n', (size_t)(end - at)));
             number++) {
                size_t length = (size_t)(newline - at);
                int r;

                if (length > 0 && at[length - 1] == '\r')
                        length--;
                if (length == 0 && number > 0) {
                        *ret_size = (size_t)(newline + 1 - data);
                        return *ret_size <= HTTP_HEADERS_MAX ? 0 : -EPROTO;
                }
                r = take_line(reply, at, length, number);
                if (r < 0)
                        return r;
                at = newline + 1;
        }
        return size >= HTTP_HEADERS_MAX ? -EPROTO : -EAGAIN;
}

/* ---- bodies of refusals ---- */

static bool keep(struct http_reply *reply, const char *data, size_t size)
{
        size_t room = HTTP_ERROR_BODY_MAX - reply->body.size;

        if (size > room) {
                reply->is_cut = true;
                size = room;
        }
        return buf_add(&reply->body, data, size) == 0 && !reply->is_cut;
}

/* True: all chunks were there, or it makes no sense, or is too long. */
static bool take_chunks(const char *data, size_t size, struct http_reply *reply)
{
        const char *at = data, *end = data + size;

        for (;;) {
                const char *newline = memchr(at, '\n', (size_t)(end - at));
                unsigned long long length = 0;
                char *stop;

                if (!newline)
                        return false;
                errno = 0;
                length = strtoull(at, &stop, 16); /* it stops at the newline, at the latest */
                if (stop == at || errno != 0 || length == 0)
                        return true;
                at = newline + 1;
                if (length > HTTP_ERROR_BODY_MAX)
                        return keep(reply, at, (size_t)(end - at)) || true;
                if ((size_t)(end - at) < length)
                        return false;
                if (!keep(reply, at, (size_t)length))
                        return true;
                at += length;
                newline = memchr(at, '\n', (size_t)(end - at));
                if (!newline)
                        return false;
                at = newline + 1;
        }
}

bool head_take_body(const char *data, size_t size, bool is_last, struct http_reply *reply)
{
        const char *length = http_reply_header(reply, "Content-Length");
        const char *coding = http_reply_header(reply, "Transfer-Encoding");
        unsigned long long all = UINT64_MAX;

        reply->body.max = HTTP_ERROR_BODY_MAX;
        buf_clear(&reply->body);
        if (coding && strcasecmp(coding, "chunked") == 0)
                return take_chunks(data, size, reply) || is_last;
        if (length && is_digit(*length))
                all = strtoull(length, NULL, 10);
        if (size > all)
                size = (size_t)all;
        return !keep(reply, data, size) || size == all || is_last;
}
