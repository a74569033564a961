/* SPDX-License-Identifier: Apache-2.0 */
/* Escaping for paths and queries. */

#include "transport/http/url.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "transport/base/buf.h"

static bool is_plain(unsigned char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '.' || c == '_' || c == '~';
}

int url_escape(struct buf *to, const void *data, size_t size)
{
        static const char digits[] = "0123456789ABCDEF";
        const unsigned char *bytes = data;
        size_t before = to->size;
        int r = 0;

        for (size_t i = 0; r == 0 && i < size; i++) {
                char hex[3] = {'%', digits[bytes[i] >> 4], digits[bytes[i] & 15]};

                r = is_plain(bytes[i]) ? buf_add_char(to, (char)bytes[i]) : buf_add(to, hex, 3);
        }
        if (r < 0)
                to->size = before;
        return r;
}

int url_add(struct buf *to, const char *text)
{
        return buf_add_str(to, text);
}

static bool is_dots(const char *text, size_t size)
{
        return (size == 1 && text[0] == '.') || (size == 2 && memcmp(text, "..", 2) == 0);
}

/* Dots alone would be taken for a direction, even as %2E by some; but they are no plain text. */
static int add_segment(struct buf *to, const char *text, size_t size)
{
        if (is_dots(text, size))
                return buf_add_str(to, size == 1 ? "%2E" : "%2E%2E");
        return url_escape(to, text, size);
}

int url_add_segment(struct buf *to, const char *text)
{
        int r = buf_add_char(to, '/');

        return r < 0 ? r : add_segment(to, text, strlen(text));
}

int url_add_path(struct buf *to, const char *path)
{
        int r = 0;

        while (r == 0 && *path) {
                size_t size = strcspn(path, "/");

                r = add_segment(to, path, size);
                path += size;
                if (r == 0 && *path == '/') {
                        r = buf_add_char(to, '/');
                        path++;
                }
        }
        return r;
}

int url_add_query(struct buf *to, const char *key, const char *value)
{
        bool is_first = !memchr(buf_str(to), '?', to->size);
        int r = buf_add_char(to, is_first ? '?' : '&');

        r = r < 0 ? r : url_escape(to, key, strlen(key));
        r = r < 0 ? r : buf_add_char(to, '=');
        return r < 0 ? r : url_escape(to, value, strlen(value));
}

int url_add_query_number(struct buf *to, const char *key, uint64_t value)
{
        char text[24];

        (void)snprintf(text, sizeof(text), "%" PRIu64, value);
        return url_add_query(to, key, text);
}

size_t url_query_at(const char *path)
{
        return strcspn(path, "?#");
}
