/* SPDX-License-Identifier: Apache-2.0 */
/* Two outputs in one stream. */

#include "transport/http/mux.h"

#include <errno.h>
#include <string.h>

/* ---- frames ---- */

static int open_frame(struct frames *f)
{
        const unsigned char *h = f->header;

        f->have = 0;
        if (h[0] > MUX_ENGINE || h[1] != 0 || h[2] != 0 || h[3] != 0)
                return -EPROTO;
        f->left = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
        return 0;
}

static enum mux_output output_of(const struct frames *f)
{
        return f->header[0] == 0 ? MUX_STDOUT : (enum mux_output)f->header[0];
}

int frames_feed(struct frames *f, const void *data, size_t size)
{
        const unsigned char *at = data, *end = at + size;

        while (at < end) {
                size_t n = (size_t)(end - at);
                int r = 0;

                if (f->left == 0) {
                        f->header[f->have++] = *at++;
                        if (f->have == sizeof(f->header))
                                r = open_frame(f);
                } else {
                        if (n > f->left)
                                n = f->left;
                        r = f->output(f->ctx, output_of(f), at, n);
                        f->left -= (uint32_t)n;
                        at += n;
                }
                if (r != 0)
                        return r;
        }
        return 0;
}

int frames_end(const struct frames *f)
{
        return f->left == 0 && f->have == 0 ? 0 : -EPROTO;
}

/* ---- marks ---- */

static int give(const struct marks *m, const void *data, size_t size)
{
        return size > 0 && m->which != 0 ? m->output(m->ctx, (enum mux_output)m->which, data, size)
                                         : 0;
}

/* Bytes that looked like a mark were data. */
static int flush(struct marks *m)
{
        unsigned char held[2] = {m->mark, m->mark};
        unsigned count = m->count;

        m->count = 0;
        return give(m, held, count);
}

static size_t plain_span(const unsigned char *at, const unsigned char *end)
{
        const unsigned char *p = at;

        while (p < end && *p != MUX_STDOUT && *p != MUX_STDERR)
                p++;
        return (size_t)(p - at);
}

static int take_mark_byte(struct marks *m, unsigned char byte)
{
        int r = m->count > 0 && m->mark != byte ? flush(m) : 0;

        m->mark = byte;
        if (++m->count == 3) {
                m->which = byte;
                m->count = 0;
        }
        return r;
}

int marks_feed(struct marks *m, const void *data, size_t size)
{
        const unsigned char *at = data, *end = at + size;

        while (at < end) {
                size_t n = plain_span(at, end);
                int r = n > 0 ? flush(m) : 0;

                r = r != 0 ? r : give(m, at, n);
                at += n;
                if (r == 0 && at < end)
                        r = take_mark_byte(m, *at++);
                if (r != 0)
                        return r;
        }
        return 0;
}

int marks_end(struct marks *m)
{
        return flush(m);
}
