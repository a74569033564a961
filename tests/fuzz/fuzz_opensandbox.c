/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What execd says of a command, in pieces: how they were cut makes no difference, and a command
 * never ends well unless its end came. What the server says of a sandbox, or instead of an answer,
 * as any bytes; addresses and labels, as any text.
 */

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "providers/opensandbox/config.h"
#include "providers/opensandbox/events.h"
#include "providers/opensandbox/labels.h"
#include "providers/opensandbox/states.h"
#include "transport/base/json.h"

#define OUT_MAX 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
        struct buf out;
        int r, error, code;
        bool has_end;
};

static struct seen parse(const uint8_t *data, size_t size, size_t piece)
{
        struct seen seen = {.out = BUF_INIT(OUT_MAX)};
        struct osb_events e;

        osb_events_init(&e, &seen.out);
        for (size_t at = 0; seen.r == 0 && at < size; at += piece)
                seen.r = osb_events_feed(&e, data + at, size - at < piece ? size - at : piece);
        assert(seen.r == 0 || seen.r == 1 || seen.r == -EPROTO);
        if (seen.r >= 0)
                osb_events_finish(&e);
        assert(seen.r < 0 || e.has_end);
        assert(e.code >= 0 && e.code <= 255 && memchr(e.said, '\0', sizeof(e.said)));
        seen.error = e.error;
        seen.code = e.code;
        seen.has_end = e.has_end;
        osb_events_done(&e);
        return seen;
}

static void describe(const uint8_t *data, size_t size)
{
        struct buf label = BUF_INIT(64);
        struct box_status status;
        struct json *j = NULL;
        char text[128];

        (void)osb_is_gone(404, (const char *)data, size);
        (void)osb_sentence((const char *)data, size, text, sizeof(text));
        assert(osb_error((const char *)data, size, -EIO) < 0);
        if (json_parse((const char *)data, size, &j, NULL) < 0)
                return;
        osb_describe(j, &status);
        (void)osb_long_label(j, LABEL_WORKDIR, &label);
        assert(memchr(status.raw, '\0', sizeof(status.raw)));
        assert(memchr(status.image, '\0', sizeof(status.image)));
        assert(memchr(status.sentence, '\0', sizeof(status.sentence)));
        buf_done(&label);
        json_free(j);
}

/* What is accepted is one place below one scheme. */
static void locate(const char *text)
{
        struct osb_config d = {.url = (char[]){"http://h/v1"}, .scheme = (char[]){"http"}};
        char *url = NULL;

        if (osb_endpoint_url(&d, text, &url) < 0)
                return;
        assert(strncmp(url, "http", 4) == 0 && !strpbrk(url, "@?# \r\n\\"));
        free(url);
}

static void label(const char *text)
{
        struct buf escaped = BUF_INIT(1 << 20), joined = BUF_INIT(1 << 20), out = BUF_INIT(1 << 20);
        char piece[LABEL_MAX + 1];

        if (label_escape(&escaped, text) == 0) {
                for (size_t n = 0; label_piece(buf_str(&escaped), n, piece), piece[0]; n++)
                        assert(label_is_value(piece) && label_join(&joined, piece) == 0);
                assert(label_unescape(&out, buf_str(&joined)) == 0);
                assert(strcmp(buf_str(&out), text) == 0);
        }
        buf_clear(&out);
        (void)label_unescape(&out, text);
        buf_done(&escaped);
        buf_done(&joined);
        buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct seen whole = parse(data, size, size), bytes = parse(data, size, 1);
        char *text = strndup((const char *)data, size < 4096 ? size : 4096);

        assert(whole.r == bytes.r && whole.error == bytes.error && whole.code == bytes.code);
        assert(strcmp(buf_str(&whole.out), buf_str(&bytes.out)) == 0);
        buf_done(&whole.out);
        buf_done(&bytes.out);
        describe(data, size);
        if (text) {
                locate(text);
                label(text);
        }
        free(text);
        return 0;
}
