/* SPDX-License-Identifier: Apache-2.0 */
/* Any text in labels; see labels.h. */

#include "providers/opensandbox/labels.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/remote/settings.h"
#include "transport/base/buf.h"

#define PIECE_SIZE (LABEL_MAX - 2) /* without the x's */
#define HEX "0123456789ABCDEF"

static bool is_alnum(char c)
{
        return c != '\0' && strchr(SETTINGS_ALNUM, c);
}

static bool is_name(const char *text)
{
        size_t size = strlen(text);

        return size >= 1 && size <= LABEL_MAX && settings_has_only(text, SETTINGS_ALNUM "-_.") &&
               is_alnum(text[0]) && is_alnum(text[size - 1]);
}

bool label_is_value(const char *text)
{
        return text[0] == '\0' || is_name(text);
}

bool label_is_key(const char *text)
{
        const char *slash = strchr(text, '/');
        char domain[254];

        if (!slash)
                return is_name(text);
        if (slash == text || (size_t)(slash - text) >= sizeof(domain))
                return false;
        (void)snprintf(domain, sizeof(domain), "%.*s", (int)(slash - text), text);
        return settings_has_only(domain, "abcdefghijklmnopqrstuvwxyz0123456789-.") &&
               is_alnum(domain[0]) && is_alnum(slash[-1]) && is_name(slash + 1);
}

int label_escape(struct buf *to, const char *text)
{
        int r = 0;

        for (; *text && r == 0; text++) {
                unsigned char c = (unsigned char)*text;
                const char escaped[4] = {'_', HEX[c >> 4], HEX[c & 15], '\0'};

                r = is_alnum(*text) || *text == '-' || *text == '.' ? buf_add_char(to, *text)
                                                                    : buf_add_str(to, escaped);
        }
        return r;
}

void label_piece(const char *escaped, size_t n, char ret[LABEL_MAX + 1])
{
        size_t size = strlen(escaped);

        ret[0] = '\0';
        if (n * PIECE_SIZE < size)
                (void)snprintf(ret, LABEL_MAX + 1, "x%.*sx", PIECE_SIZE, escaped + n * PIECE_SIZE);
}

static int hex(char c)
{
        const char *at = c ? strchr(HEX, c) : NULL;

        return at ? (int)(at - HEX) : -1;
}

int label_join(struct buf *escaped, const char *piece)
{
        size_t size = strlen(piece);

        if (size < 3 || size > LABEL_MAX || piece[0] != 'x' || piece[size - 1] != 'x')
                return -EINVAL;
        return buf_add(escaped, piece + 1, size - 2);
}

int label_unescape(struct buf *to, const char *escaped)
{
        int r = 0;

        for (; *escaped && r == 0; escaped++) {
                int high, low;

                if (*escaped != '_') {
                        r = buf_add_char(to, *escaped);
                        continue;
                }
                high = hex(escaped[1]);
                low = high < 0 ? -1 : hex(escaped[2]);
                if (low < 0 || (high == 0 && low == 0))
                        return -EINVAL;
                r = buf_add_char(to, (char)(high << 4 | low));
                escaped += 2;
        }
        return r;
}
