/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connect's envelopes in pieces: bounded, one end at most, and how they were cut makes no
 * difference.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "transport/http/envelope.h"

#define MAX 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        uint64_t sum;
        size_t count, ends;
        int r, end;
};

static int on_message(void *ctx, bool is_end, const char *data, size_t size)
{
        struct seen *seen = ctx;

        assert(size <= MAX && data[size] == '\0' && seen->ends == 0);
        for (size_t i = 0; i < size; i++)
                seen->sum = seen->sum * 31 + (unsigned char)data[i];
        seen->sum = seen->sum * 31 + size;
        seen->count++;
        seen->ends += is_end;
        return 0;
}

static struct seen parse(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {0};
        struct envelopes e = ENVELOPES_INIT(MAX, on_message, &seen);

        for (size_t at = 0; seen.r == 0 && at < size; at += piece)
                seen.r = envelopes_feed(&e, data + at, size - at < piece ? size - at : piece);
        assert(seen.r == 0 || seen.r == -EPROTO);
        seen.end = envelopes_end(&e);
        assert(seen.end == (seen.ends == 1 ? 0 : -EPROTO));
        envelopes_done(&e);
        return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen whole = parse(data, size, size), bytes = parse(data, size, 1);

        assert(whole.r == bytes.r && whole.count == bytes.count && whole.sum == bytes.sum);
        assert(whole.end == bytes.end);
        return 0;
}
