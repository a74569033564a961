/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/remote/content.h"

#include <errno.h>
#include <string.h>

#include "providers/files.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"

#define PROGRESS_NS (30 * NS_PER_S)

static ssize_t read_source(struct http_source *from, void *data, size_t size, uint64_t offset)
{
        struct content_source *s = container_of(from, struct content_source, base);
        uint64_t left = offset < from->size ? from->size - offset : 0;
        size_t n = left < size ? (size_t)left : size;
        int r = 0;

        if (!s->file) {
                if (n > 0)
                        memcpy(data, s->data + offset, n);
                return (ssize_t)n;
        }
        if (s->call->deadline_ns < clock_after(PROGRESS_NS))
                s->call->deadline_ns = clock_after(PROGRESS_NS);
        if (n > 0)
                r = s->file->read(s->file, data, n, offset);
        return r < 0 ? r : (ssize_t)n;
}

struct content_source content_of_memory(const void *data, size_t size)
{
        return (struct content_source){.base = {.read = read_source, .size = size}, .data = data};
}

struct content_source content_of_file(struct file_source *file, struct call *c)
{
        return (struct content_source){
                .base = {.read = read_source, .size = file->size}, .file = file, .call = c};
}

static int write_window(struct http_sink *to, const void *data, size_t size)
{
        struct content_window *w = container_of(to, struct content_window, sink);

        if (size > w->range.size - w->got)
                return -EPROTO;
        memcpy(w->data + w->got, data, size);
        w->got += size;
        return 0;
}

static int rewind_window(struct http_sink *to)
{
        container_of(to, struct content_window, sink)->got = 0;
        return 0;
}

struct content_window content_window(void *data, size_t size, uint64_t offset)
{
        return (struct content_window){.sink = {.write = write_window, .rewind = rewind_window},
                                       .range = {.offset = offset, .size = size},
                                       .data = data};
}
