/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host's find prints, in pieces: nothing comes out that leads elsewhere, and how it was cut
 * makes no difference.
 */

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "providers/shell/find.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        uint64_t sum;
        size_t count;
};

static int on_entry(void *ctx, const struct found *f)
{
        struct seen *seen = ctx;

        assert(!f->path[0] || (f->path[0] != '/' && !strstr(f->path, "//")));
        assert(strcmp(f->path, "..") != 0 && strncmp(f->path, "../", 3) != 0 &&
               !strstr(f->path, "/../"));
        assert((f->st.st_mode & S_IFMT) != 0 && f->st.st_size >= 0);
        assert(f->st.st_mtim.tv_nsec >= 0 && f->st.st_mtim.tv_nsec < 1000000000);
        assert(!f->target || S_ISLNK(f->st.st_mode));
        seen->count++;
        for (const char *p = f->path; *p; p++)
                seen->sum = seen->sum * 31 + (unsigned char)*p;
        seen->sum = seen->sum * 31 + (uint64_t)f->st.st_size + (uint64_t)f->st.st_mtim.tv_sec;
        return 0;
}

static struct seen parse(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {0};
        struct find_parser p = {
                .pending = BUF_INIT(FIND_PENDING_MAX), .entry = on_entry, .ctx = &seen};
        int r = 0;

        for (size_t at = 0; r == 0 && at < size; at += piece)
                r = find_parse(&p, data + at, size - at < piece ? size - at : piece);
        buf_done(&p.pending);
        return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen whole = parse(data, size, size), bytes = parse(data, size, 1);

        assert(whole.count == bytes.count && whole.sum == bytes.sum);
        return 0;
}
