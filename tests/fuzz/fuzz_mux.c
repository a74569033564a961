/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two outputs in one stream, in pieces: no byte comes from nowhere, and how they were cut makes no
 * difference.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "transport/http/mux.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        uint64_t sum[4];
        size_t bytes[4];
        int r;
};

static int on_output(void *ctx, enum mux_output which, const void *data, size_t size)
{
        struct seen *seen = ctx;
        const unsigned char *at = data;

        assert(which >= MUX_STDOUT && which <= MUX_ENGINE && size > 0);
        for (size_t i = 0; i < size; i++)
                seen->sum[which] = seen->sum[which] * 31 + at[i];
        seen->bytes[which] += size;
        return 0;
}

static size_t all(const struct seen *seen)
{
        return seen->bytes[1] + seen->bytes[2] + seen->bytes[3];
}

static void same(const struct seen *a, const struct seen *b)
{
        assert(a->r == b->r);
        for (int i = 0; i < 4; i++)
                assert(a->bytes[i] == b->bytes[i] && a->sum[i] == b->sum[i]);
}

static struct seen parse_frames(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {0};
        struct frames f = FRAMES_INIT(on_output, &seen);

        for (size_t at = 0; seen.r == 0 && at < size; at += piece)
                seen.r = frames_feed(&f, data + at, size - at < piece ? size - at : piece);
        if (seen.r == 0)
                seen.r = frames_end(&f);
        assert(seen.r == 0 || seen.r == -EPROTO);
        assert(all(&seen) <= size);
        return seen;
}

static struct seen parse_marks(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {0};
        struct marks m = MARKS_INIT(on_output, &seen);

        for (size_t at = 0; seen.r == 0 && at < size; at += piece)
                seen.r = marks_feed(&m, data + at, size - at < piece ? size - at : piece);
        if (seen.r == 0)
                seen.r = marks_end(&m);
        assert(seen.r == 0 && all(&seen) <= size && seen.bytes[MUX_ENGINE] == 0);
        return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen whole = parse_frames(data, size, size), bytes = parse_frames(data, size, 1);

        same(&whole, &bytes);
        whole = parse_marks(data, size, size);
        bytes = parse_marks(data, size, 1);
        same(&whole, &bytes);
        return 0;
}
