/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Escaped text is one line of valid UTF-8 without control bytes, within its limit, and JSON strings
 * are JSON.
 */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/escape.h"
#include "transport/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const char *text, size_t size)
{
        for (size_t at = 0; at < size;) {
                unsigned length = utf8_length(text + at, size - at);
                unsigned char c = (unsigned char)text[at];

                assert(length > 0 && c >= 0x20 && c != 0x7f);
                assert(c != 0xc2 || (unsigned char)text[at + 1] >= 0xa0);
                at += length;
        }
}

/* Once more changes nothing, whoever escaped it first. */
static void check_sentence(const char *text, size_t size)
{
        char once[ESCAPE_LINE_MAX + 1], twice[ESCAPE_LINE_MAX + 1];

        escape_text(text, size, once, sizeof(once));
        escape_sentence(once, strlen(once), twice, sizeof(twice));
        assert(strcmp(once, twice) == 0);
        escape_sentence(text, size, once, sizeof(once));
        escape_sentence(once, strlen(once), twice, sizeof(twice));
        assert(strcmp(once, twice) == 0);
}

static void check_json_string(const uint8_t *data, size_t size)
{
        char *text = strndup((const char *)data, size);
        struct buf b = BUF_INIT(1024 * 1024);
        struct json *j = NULL;
        int r;

        if (text && json_add_string(&b, text) == 0) {
                r = json_parse(b.data, b.size, &j, NULL);
                assert(r == 0 && json_type(j) == JSON_STRING);
        }
        json_free(j);
        buf_done(&b);
        free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct buf b = BUF_INIT(2 * ESCAPE_LINE_MAX);
        char fixed[32];

        if (escape_line(&b, (const char *)data, size) == 0) {
                assert(b.size <= ESCAPE_LINE_MAX && (size > 0) == (b.size > 0));
                check_line(buf_str(&b), b.size);
        }
        buf_done(&b);
        for (size_t room = 1; room <= sizeof(fixed); room++) {
                escape_text((const char *)data, size, fixed, room);
                assert(strlen(fixed) < room);
                check_line(fixed, strlen(fixed));
                escape_sentence((const char *)data, size, fixed, room);
                assert(strlen(fixed) < room);
                check_line(fixed, strlen(fixed));
        }
        check_sentence((const char *)data, size);
        check_json_string(data, size);
        return 0;
}
