/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON: what is taken can be walked, written and taken again.
 * What is refused has its place in the text.
 */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/escape.h"
#include "transport/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
        for (size_t size = strlen(text); size > 0;) {
                unsigned length = utf8_length(text, size);

                assert(length > 0);
                text += length;
                size -= length;
        }
}

static int write_value(struct buf *to, const struct json *j);

static int write_children(struct buf *to, const struct json *j)
{
        int r = 0;

        for (const struct json *child = json_first(j); child && r == 0; child = json_next(child)) {
                const char *key = json_key(child);

                assert((key != NULL) == (json_type(j) == JSON_OBJECT));
                if (key) {
                        assert(json_get(j, key) == child); /* no other has its key */
                        check_text(key);
                        r = json_add_string(to, key);
                        if (r == 0)
                                r = buf_add_char(to, ':');
                }
                if (r == 0)
                        r = write_value(to, child);
                if (r == 0 && json_next(child))
                        r = buf_add_char(to, ',');
        }
        return r;
}

static int write_value(struct buf *to, const struct json *j)
{
        int64_t integer;
        bool yes = false;
        int r;

        switch (json_type(j)) {
        case JSON_ARRAY:
        case JSON_OBJECT:
                r = buf_add_char(to, json_type(j) == JSON_ARRAY ? '[' : '{');
                if (r == 0)
                        r = write_children(to, j);
                return r < 0 ? r : buf_add_char(to, json_type(j) == JSON_ARRAY ? ']' : '}');
        case JSON_STRING: check_text(json_string(j)); return json_add_string(to, json_string(j));
        case JSON_BOOL: (void)json_bool(j, &yes); return buf_add_str(to, yes ? "true" : "false");
        case JSON_NUMBER:
                if (!json_integer(j, &integer))
                        return buf_add_str(to, "0.5");
                return buf_addf(to, "%" PRId64, integer);
        case JSON_NULL: break;
        }
        return buf_add_str(to, "null");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct buf once = BUF_INIT(1024 * 1024), twice = BUF_INIT(1024 * 1024);
        struct json *j = NULL, *again = NULL;
        size_t at = 0;
        int r = json_parse((const char *)data, size, &j, &at);

        assert(r == 0 || r == -EINVAL || r == -ENOMEM);
        assert(at <= size && (r == 0) == (j != NULL));
        if (r == 0 && write_value(&once, j) == 0) {
                r = json_parse(once.data, once.size, &again, NULL);
                assert(r == 0);
                r = write_value(&twice, again);
                assert(r == 0);
                assert(strcmp(buf_str(&once), buf_str(&twice)) == 0);
        }
        json_free(j);
        json_free(again);
        buf_done(&once);
        buf_done(&twice);
        return 0;
}
