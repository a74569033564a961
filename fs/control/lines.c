/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/lines.h"

#include <errno.h>
#include <string.h>

#include "fs/control/grammar.h"

#define LINES_MAX                                                                                  \
        (GRAMMAR_LINE_MAX + 1024 * 1024) /* a rest and the largest write that can follow it */

void lines_init(struct lines *l)
{
        l->rest = BUF_INIT(LINES_MAX);
}

void lines_wipe(struct lines *l)
{
        buf_wipe(&l->rest);
}

static int take(struct lines *l, const char *data, size_t size, lines_fn commit, void *ctx)
{
        const char *newline = memrchr(data, '\n', size);
        size_t whole = newline ? (size_t)(newline - data) + 1 : 0;
        int r;

        if (whole > 0 && l->rest.size == 0) {
                r = commit(ctx, data, whole);
        } else if (whole > 0) {
                r = buf_add(&l->rest, data, whole);
                r = r < 0 ? r : commit(ctx, l->rest.data, l->rest.size);
                buf_wipe(&l->rest);
        } else {
                r = 0;
        }
        r = r < 0 ? r : buf_add(&l->rest, data + whole, size - whole);
        return r < 0 ? r : l->rest.size > GRAMMAR_LINE_MAX ? -E2BIG : 0;
}

int lines_write(struct lines *l, const char *data, size_t size, lines_fn commit, void *ctx)
{
        int r = take(l, data, size, commit, ctx);

        if (r < 0)
                buf_wipe(&l->rest);
        return r;
}

int lines_flush(struct lines *l, lines_fn commit, void *ctx)
{
        int r = l->rest.size > 0 ? commit(ctx, l->rest.data, l->rest.size) : 0;

        buf_wipe(&l->rest);
        return r;
}
