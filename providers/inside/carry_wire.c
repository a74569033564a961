/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of a carried program; see carry.h. Pure. */

#include <errno.h>
#include <string.h>

#include "providers/inside/carry.h"
#include "transport/base/buf.h"

int carry_add(struct buf *to, enum carry_type type, const void *data, size_t size)
{
        unsigned char header[CARRY_HEADER] = {(unsigned char)type, (unsigned char)(size >> 24),
                                              (unsigned char)(size >> 16),
                                              (unsigned char)(size >> 8), (unsigned char)size};
        size_t before = to->size;
        int r = buf_add(to, header, sizeof(header));

        if (r == 0 && size > 0)
                r = buf_add(to, data, size);
        if (r < 0)
                to->size = before;
        return r;
}

int carry_add_all(struct buf *to, enum carry_type type, const void *data, size_t size)
{
        const char *at = data;
        size_t before = to->size;
        int r = 0;

        while (r == 0 && size > 0) {
                size_t n = size < CARRY_PART ? size : CARRY_PART;

                r = carry_add(to, type, at, n);
                at += n;
                size -= n;
        }
        if (r < 0)
                to->size = before;
        return r;
}

int carry_add_credit(struct buf *to, uint32_t size)
{
        const unsigned char bytes[4] = {(unsigned char)(size >> 24), (unsigned char)(size >> 16),
                                        (unsigned char)(size >> 8), (unsigned char)size};

        return carry_add(to, CARRY_CREDIT, bytes, sizeof(bytes));
}

int carry_add_argv(struct buf *to, const char *const *argv)
{
        struct buf words = BUF_INIT(CARRY_WORDS);
        int r = 0;

        for (; r == 0 && *argv; argv++)
                r = buf_add(&words, *argv, strlen(*argv) + 1);
        if (r == 0)
                r = carry_add(to, CARRY_ARGV, words.data, words.size);
        buf_wipe(&words);
        return r;
}

/* What a payload of this type may measure; false: there is no such type in this direction. */
static bool limits(char type, bool is_to_it, size_t *ret_least, size_t *ret_most)
{
        static const struct {
                char type;
                bool is_to_it;
                size_t least, most;
        } table[] = {
                {CARRY_ARGV, true, 2, CARRY_WORDS},
                {CARRY_INPUT, true, 1, CARRY_PART},
                {CARRY_EOF, true, 0, 0},
                {CARRY_CREDIT, true, 4, 4},
                {CARRY_PING, true, 0, 0},
                {CARRY_OUT, false, 1, CARRY_PART},
                {CARRY_ERR, false, 1, CARRY_PART},
                {CARRY_EXIT, false, 2, 2},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                if (table[i].type != type || table[i].is_to_it != is_to_it)
                        continue;
                *ret_least = table[i].least;
                *ret_most = table[i].most;
                return true;
        }
        return false;
}

int carry_parse(const char *data, size_t size, bool is_to_it, struct carry_frame *ret,
                size_t *ret_used)
{
        const unsigned char *p = (const unsigned char *)data;
        size_t length, least, most;

        if (size == 0)
                return 0;
        if (!limits(data[0], is_to_it, &least, &most))
                return -EPROTO;
        if (size < CARRY_HEADER)
                return 0;
        length = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
        if (length < least || length > most)
                return -EPROTO;
        if (size - CARRY_HEADER < length)
                return 0;
        if (data[0] == CARRY_ARGV && data[CARRY_HEADER + length - 1] != '\0')
                return -EPROTO;
        *ret = (struct carry_frame){(enum carry_type)data[0], data + CARRY_HEADER, length};
        *ret_used = CARRY_HEADER + length;
        return 1;
}

uint32_t carry_credit(const struct carry_frame *f)
{
        const unsigned char *p = (const unsigned char *)f->data;

        return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
