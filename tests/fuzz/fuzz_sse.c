/* SPDX-License-Identifier: Apache-2.0 */
/* Event streams in pieces: bounded, and how they were cut makes no difference. */

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "transport/http/sse.h"

#define MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        uint64_t sum;
        size_t count;
        int r;
};

static void add(struct seen *seen, const char *text, size_t size)
{
        for (size_t i = 0; i < size; i++)
                seen->sum = seen->sum * 31 + (unsigned char)text[i];
        seen->sum = seen->sum * 31 + 257;
}

static int on_event(void *ctx, const struct sse_event *event)
{
        struct seen *seen = ctx;

        assert(event->size <= MAX && event->data[event->size] == '\0');
        assert(strlen(event->name) < SSE_WORD_MAX && strlen(event->id) < SSE_WORD_MAX);
        add(seen, event->name, strlen(event->name));
        add(seen, event->id, strlen(event->id));
        add(seen, event->data, event->size);
        seen->count++;
        return 0;
}

static struct seen parse(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {0};
        struct sse s;

        sse_init(&s, MAX, on_event, &seen);
        for (size_t at = 0; seen.r == 0 && at < size; at += piece)
                seen.r = sse_feed(&s, data + at, size - at < piece ? size - at : piece);
        if (seen.r == 0)
                seen.r = sse_end(&s);
        assert(seen.r == 0 || seen.r == -EPROTO);
        sse_done(&s);
        return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen whole = parse(data, size, size), bytes = parse(data, size, 1),
                    threes = parse(data, size, 3);

        assert(whole.r == bytes.r && whole.count == bytes.count && whole.sum == bytes.sum);
        assert(whole.r == threes.r && whole.count == threes.count && whole.sum == threes.sum);
        return 0;
}
