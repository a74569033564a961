/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/ssh/base64.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "transport/base/buf.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(struct buf *to, const void *data, size_t size)
{
        const uint8_t *in = data;
        char *out = buf_reserve(to, (size + 2) / 3 * 4);

        if (!out)
                return -ENOMEM;
        for (size_t i = 0; i < size; i += 3) {
                size_t left = size - i;
                uint32_t word = (uint32_t)in[i] << 16;

                if (left > 1)
                        word |= (uint32_t)in[i + 1] << 8;
                if (left > 2)
                        word |= in[i + 2];
                *out++ = digits[word >> 18];
                *out++ = digits[word >> 12 & 63];
                *out++ = left > 1 ? digits[word >> 6 & 63] : '=';
                *out++ = left > 2 ? digits[word & 63] : '=';
        }
        to->size += (size + 2) / 3 * 4;
        return 0;
}

int base64_decode(struct buf *to, const char *text, size_t size)
{
        char *start = buf_reserve(to, size / 4 * 3 + 3), *out = start;
        uint32_t word = 0;
        unsigned bits = 0;
        bool is_padded = false;

        if (!start)
                return -ENOMEM;
        for (size_t i = 0; i < size; i++) {
                const char *digit;

                if (isspace((unsigned char)text[i]))
                        continue;
                if (text[i] == '=') {
                        is_padded = true;
                        continue;
                }
                digit = text[i] ? strchr(digits, text[i]) : NULL;
                if (!digit || is_padded)
                        return -EINVAL;
                word = word << 6 | (uint32_t)(digit - digits);
                bits += 6;
                if (bits >= 8) {
                        bits -= 8;
                        *out++ = (char)(word >> bits & 255);
                }
        }
        to->size += (size_t)(out - start);
        return 0;
}
