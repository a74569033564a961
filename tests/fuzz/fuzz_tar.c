/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar stream of a host: no name comes out that leads elsewhere, nothing beyond the limits, and
 * how it was cut makes no difference.
 */

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "transport/archive/tar.h"
#include "transport/base/list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        struct tar_sink sink;
        uint64_t sum, bytes;
        size_t count;
};

struct pieces {
        struct tar_source source;
        const uint8_t *data;
        size_t size, at, piece;
};

static const struct tar_limits limits = {.file_bytes = 4096, .bytes = 16384, .count = 100};

static ssize_t next(struct tar_source *from, const void **ret)
{
        struct pieces *p = container_of(from, struct pieces, source);
        size_t left = p->size - p->at, n = left < p->piece ? left : p->piece;

        *ret = p->data + p->at;
        p->at += n;
        return (ssize_t)n;
}

static int on_file(struct tar_sink *to, const struct tar_entry *e, const void *data)
{
        struct seen *seen = container_of(to, struct seen, sink);
        const unsigned char *bytes = data;

        assert(e->name[0] && e->name[0] != '/' && !strstr(e->name, "//"));
        assert(strcmp(e->name, "..") != 0 && strncmp(e->name, "../", 3) != 0 &&
               !strstr(e->name, "/../"));
        assert(e->mtime.tv_nsec >= 0 && e->mtime.tv_nsec < 1000000000 && e->mode <= 07777);
        assert(!data || e->size <= limits.file_bytes);
        seen->count++;
        seen->bytes += data ? e->size : 0;
        assert(seen->count <= limits.count && seen->bytes <= limits.bytes);
        for (const char *p = e->name; *p; p++)
                seen->sum = seen->sum * 31 + (unsigned char)*p;
        for (size_t i = 0; data && i < e->size; i++)
                seen->sum = seen->sum * 31 + bytes[i];
        return 0;
}

static struct seen parse(const uint8_t *data, size_t size, size_t piece, int *ret)
{
        struct seen seen = {.sink.file = on_file};
        struct pieces p = {.source.read = next, .data = data, .size = size, .piece = piece};

        *ret = tar_read(&p.source, &limits, &seen.sink);
        assert(*ret <= 0);
        return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        int r, s;
        struct seen whole = parse(data, size, size, &r), parts = parse(data, size, 97, &s);

        assert(r == s && whole.count == parts.count && whole.sum == parts.sum);
        return 0;
}
