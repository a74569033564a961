/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes by GNU find. */

#include <errno.h>
#include <stdlib.h>

#include "providers/quote.h"
#include "providers/ssh/files.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"

struct one {
        struct shell_sink sink;
        struct find_parser parser;
        struct stat st;
        bool is_found;
};

static int on_one(void *ctx, const struct found *f)
{
        struct one *one = ctx;

        one->st = f->st;
        one->is_found = true;
        return 0;
}

static int on_data(struct shell_sink *to, const void *data, size_t size)
{
        return find_parse(&container_of(to, struct one, sink)->parser, data, size);
}

int find_stat(struct spot *s, struct call *c, const char *path, struct stat *ret)
{
        struct one one = {
                .sink.data = on_data,
                .parser = {.pending = BUF_INIT(FIND_PENDING_MAX), .entry = on_one, .ctx = &one}};
        _cleanup_(buf_done) struct buf script = BUF_INIT(FIND_PENDING_MAX);
        _cleanup_(freep) char *whole = ssh_spot_path(s, path);
        int code = 0, r = whole ? quote_addf(&script, "find %s -maxdepth 0 ", whole) : -ENOMEM;

        if (r == 0)
                r = buf_addf(&script, "%s 2>/dev/null\n", find_print);
        if (r == 0)
                r = shell_run(s->box->host->shell, c, buf_str(&script), &one.sink, &code);
        buf_done(&one.parser.pending);
        if (r < 0)
                return r;
        if (!one.is_found)
                return -ENOENT;
        *ret = one.st;
        return 0;
}
