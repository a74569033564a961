/* SPDX-License-Identifier: Apache-2.0 */
/* Foreign text on one line. */

#include "transport/base/escape.h"

#include <stdint.h>
#include <string.h>

#include "transport/base/buf.h"

static bool is_tail(char c)
{
        return ((unsigned char)c & 0xc0) == 0x80;
}

unsigned utf8_length(const char *text, size_t size)
{
        unsigned char first, second;
        unsigned length;

        if (size == 0)
                return 0;
        first = (unsigned char)text[0];
        if (first < 0x80)
                return 1;
        if (first < 0xc2 || first > 0xf4)
                return 0; /* a tail byte, an overlong form, or beyond U+10FFFF */
        length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        if (size < length)
                return 0;
        for (unsigned i = 1; i < length; i++)
                if (!is_tail(text[i]))
                        return 0;
        second = (unsigned char)text[1];
        if ((first == 0xe0 && second < 0xa0) ||
            (first == 0xed && second > 0x9f) || /* overlong; surrogate */
            (first == 0xf0 && second < 0x90) ||
            (first == 0xf4 && second > 0x8f)) /* overlong; too large */
                return 0;
        return length;
}

/* Whether a valid sequence is shown as it is. U+2028 and U+2029 end a line for some readers. */
static bool is_plain(const char *text, unsigned length)
{
        unsigned char c = (unsigned char)text[0];

        if (length == 1)
                return c >= 0x20 && c != 0x7f && c != '\\';
        if (length == 2)
                return c != 0xc2 || (unsigned char)text[1] >= 0xa0; /* C1 */
        return memcmp(text, "\xe2\x80\xa8", 3) != 0 && memcmp(text, "\xe2\x80\xa9", 3) != 0;
}

static void put_hex(char *to, unsigned char c)
{
        static const char digits[] = "0123456789abcdef";

        to[0] = '\\';
        to[1] = 'x';
        to[2] = digits[c >> 4];
        to[3] = digits[c & 15];
}

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether this is a byte as put_hex writes it, of those that are never shown as they are. */
static bool is_escape(const char *text, size_t size)
{
        int high, low, byte;

        if (size < 4 || text[0] != '\\' || text[1] != 'x')
                return false;
        high = hex_digit(text[2]);
        low = hex_digit(text[3]);
        if (high < 0 || low < 0)
                return false;
        byte = high * 16 + low;
        return byte < 0x20 || byte >= 0x7f || byte == '\\';
}

/*
 * The escaped form of what stands at `text`; its size, and in `*ret_used` how much of the text it
 * stands for.
 */
static size_t escape_one(const char *text, size_t size, bool is_sentence, char to[16],
                         size_t *ret_used)
{
        unsigned length = utf8_length(text, size);
        size_t used = length ? length : 1;

        if (is_sentence && is_escape(text, size)) {
                *ret_used = 4;
                memcpy(to, text, 4);
                return 4;
        }
        *ret_used = used;
        if (length > 0 && is_plain(text, length)) {
                memcpy(to, text, used);
                return used;
        }
        for (size_t i = 0; i < used; i++)
                put_hex(to + i * 4, (unsigned char)text[i]);
        return used * 4;
}

/* Returns the size of the escaped text, which is always below `to_size`. */
static size_t escape(const char *text, size_t size, bool is_sentence, char *to, size_t to_size)
{
        size_t at = 0, cut = 0; /* cut: the last place where "..." fits behind what is whole */

        while (size > 0) {
                char one[16];
                size_t used, n = escape_one(text, size, is_sentence, one, &used);

                if (at + n >= to_size) {
                        at = cut;
                        for (unsigned i = 0; i < 3 && at + 1 < to_size; i++)
                                to[at++] = '.';
                        break;
                }
                memcpy(to + at, one, n);
                at += n;
                if (at + 3 < to_size)
                        cut = at;
                text += used;
                size -= used;
        }
        to[at] = '\0';
        return at;
}

void escape_text(const char *text, size_t size, char *to, size_t to_size)
{
        if (to_size > 0)
                (void)escape(text, size, false, to, to_size);
}

void escape_sentence(const char *text, size_t size, char *to, size_t to_size)
{
        if (to_size > 0)
                (void)escape(text, size, true, to, to_size);
}

int escape_line(struct buf *to, const char *text, size_t size)
{
        char line[ESCAPE_LINE_MAX + 1];

        return buf_add(to, line, escape(text, size, false, line, sizeof(line)));
}
