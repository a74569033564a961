/* SPDX-License-Identifier: Apache-2.0 */
/* Lines. */

#include "transport/http/lines.h"

#include <errno.h>
#include <string.h>

static int hold(struct lines *l, const char *data, size_t size)
{
        int r = size > 0 ? buf_add(&l->pending, data, size) : 0;

        return r == -E2BIG ? -EPROTO : r;
}

static int emit(struct lines *l)
{
        size_t size = l->pending.size;
        int r;

        if (size > 0 && !l->ends_at_cr && l->pending.data[size - 1] == '\r')
                l->pending.data[l->pending.size = --size] = '\0';
        r = l->line(l->ctx, buf_str(&l->pending), size);
        buf_clear(&l->pending);
        return r;
}

/* How much of the data belongs to the line: up to an end, or all. */
static size_t span(const struct lines *l, const char *data, size_t size)
{
        const char *lf = memchr(data, '\n', size);
        size_t n = lf ? (size_t)(lf - data) : size;
        const char *cr = l->ends_at_cr ? memchr(data, '\r', n) : NULL;

        return cr ? (size_t)(cr - data) : n;
}

int lines_feed(struct lines *l, const void *data, size_t size)
{
        const char *at = data, *end = at + size;

        while (at < end) {
                size_t n;
                int r;

                if (l->skips_lf && *at == '\n')
                        at++;
                l->skips_lf = false;
                n = span(l, at, (size_t)(end - at));
                r = hold(l, at, n);
                at += n;
                if (r == 0 && at < end) {
                        l->skips_lf = *at++ == '\r';
                        r = emit(l);
                }
                if (r != 0)
                        return r;
        }
        return 0;
}

int lines_end(struct lines *l)
{
        return l->pending.size > 0 ? emit(l) : 0;
}

void lines_done(struct lines *l)
{
        buf_done(&l->pending);
}
