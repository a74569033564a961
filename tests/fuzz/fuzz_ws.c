/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WebSocket frames, in pieces: how they were cut makes no difference, no message is longer than
 * allowed, and nothing comes behind the end.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "transport/http/ws.h"

#define MESSAGE_MAX 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        uint64_t sum;
        bool has_end;
        int r;
};

static int on_message(void *ctx, enum ws_kind kind, const char *data, size_t size)
{
        struct seen *seen = ctx;

        assert(!seen->has_end && data[size] == '\0');
        assert(size <= (kind >= WS_CLOSE ? WS_CONTROL_MAX : MESSAGE_MAX));
        seen->has_end = kind == WS_CLOSE;
        seen->sum = seen->sum * 31 + kind;
        for (size_t i = 0; i < size; i++)
                seen->sum = seen->sum * 31 + (unsigned char)data[i];
        return 0;
}

static struct seen parse(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {0};
        struct ws w = WS_INIT(MESSAGE_MAX, on_message, &seen);

        for (size_t at = 0; seen.r == 0 && at < size; at += piece)
                seen.r = ws_feed(&w, data + at, size - at < piece ? size - at : piece);
        assert(seen.r == 0 || seen.r == -EPROTO);
        ws_done(&w);
        return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen whole = parse(data, size, size), bytes = parse(data, size, 1);

        assert(whole.r == bytes.r && whole.sum == bytes.sum && whole.has_end == bytes.has_end);
        return 0;
}
