/* SPDX-License-Identifier: Apache-2.0 */
/* Connect's envelopes. */

#include "transport/http/envelope.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define FLAG_END 2 /* 1 would be: compressed */

static size_t length_of(const unsigned char *header)
{
        return (size_t)header[1] << 24 | (size_t)header[2] << 16 | (size_t)header[3] << 8 |
               header[4];
}

/* The header is there: what it says must be possible. */
static int check(const struct envelopes *e)
{
        const unsigned char *header = (const unsigned char *)e->pending.data;

        if (header[0] != 0 && header[0] != FLAG_END)
                return -EPROTO;
        return length_of(header) > e->pending.max - ENVELOPE_HEADER ? -EPROTO : 0;
}

/* How many bytes are missing until the next thing can be done. */
static size_t missing(const struct envelopes *e)
{
        size_t have = e->pending.size;

        if (have < ENVELOPE_HEADER)
                return ENVELOPE_HEADER - have;
        return ENVELOPE_HEADER + length_of((const unsigned char *)e->pending.data) - have;
}

static int emit(struct envelopes *e)
{
        bool is_end = e->pending.data[0] == FLAG_END;
        int r;

        e->has_end = is_end;
        r = e->message(e->ctx, is_end, e->pending.data + ENVELOPE_HEADER,
                       e->pending.size - ENVELOPE_HEADER);
        buf_clear(&e->pending);
        return r;
}

int envelopes_feed(struct envelopes *e, const void *data, size_t size)
{
        const char *at = data;

        while (size > 0) {
                size_t n = missing(e);
                int r;

                if (e->has_end)
                        return -EPROTO;
                if (n > size)
                        n = size;
                r = buf_add(&e->pending, at, n);
                at += n;
                size -= n;
                if (r == 0 && e->pending.size == ENVELOPE_HEADER)
                        r = check(e);
                if (r == 0 && e->pending.size >= ENVELOPE_HEADER && missing(e) == 0)
                        r = emit(e);
                if (r != 0)
                        return r;
        }
        return 0;
}

int envelopes_end(const struct envelopes *e)
{
        return e->has_end ? 0 : -EPROTO;
}

void envelopes_done(struct envelopes *e)
{
        buf_done(&e->pending);
}

int envelope_add(struct buf *to, const void *data, size_t size)
{
        unsigned char header[ENVELOPE_HEADER] = {0, (unsigned char)(size >> 24),
                                                 (unsigned char)(size >> 16),
                                                 (unsigned char)(size >> 8), (unsigned char)size};
        size_t before = to->size;
        int r = size > UINT32_MAX ? -E2BIG : buf_add(to, header, sizeof(header));

        r = r < 0 || size == 0 ? r : buf_add(to, data, size);
        if (r < 0)
                to->size = before;
        return r;
}
