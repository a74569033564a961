/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What E2B's daemon says of a program, in pieces: how they were cut makes no difference, a program
 * starts once, prints nothing before that, and never ends well unless its end came; and what the
 * API says of a sandbox, as any JSON.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "providers/e2b/events.h"
#include "providers/e2b/states.h"
#include "transport/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        uint64_t sum;
        unsigned starts;
        int r;
        struct stream_end end;
};

static void on_started(void *ctx, uint32_t pid)
{
        struct seen *seen = ctx;

        assert(pid > 0 && seen->starts++ == 0);
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct seen *seen = ctx;

        assert(seen->starts == 1 && size > 0);
        for (size_t i = 0; i < size; i++)
                seen->sum = seen->sum * 31 + ((const unsigned char *)data)[i] + is_stderr;
}

static struct seen parse(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {0};
        struct e2b_events e;

        e2b_events_init(&e, &(struct e2b_events_to){on_started, on_data, &seen});
        for (size_t at = 0; seen.r == 0 && at < size; at += piece)
                seen.r = e2b_events_feed(&e, data + at, size - at < piece ? size - at : piece);
        assert(seen.r == 0 || seen.r == -EPROTO);
        e2b_events_end(&e, seen.r, NULL, &seen.end);
        assert(seen.end.error < 0 || (seen.starts == 1 && (seen.end.has_code || seen.end.signal)));
        e2b_events_done(&e);
        return seen;
}

static void describe(const uint8_t *data, size_t size)
{
        struct json *j = NULL;
        struct box_status status;

        (void)e2b_is_gone(404, (const char *)data, size);
        if (json_parse((const char *)data, size, &j, NULL) < 0)
                return;
        e2b_describe(j, &status);
        assert(memchr(status.raw, '\0', sizeof(status.raw)));
        assert(memchr(status.image, '\0', sizeof(status.image)));
        json_free(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen whole = parse(data, size, size), bytes = parse(data, size, 1);

        assert(whole.r == bytes.r && whole.sum == bytes.sum && whole.starts == bytes.starts);
        assert(whole.end.error == bytes.end.error && whole.end.code == bytes.end.code);
        describe(data, size);
        return 0;
}
