/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantities. Every text is read in two steps: first its shape, which decides between a quantity
 * and -EINVAL, then its value, which is exact or -ERANGE. A fraction is kept as digits until the
 * unit is known.
 */

#include "transport/base/units.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "transport/base/clock.h"

#define FRACTION_MAX 18 /* digits: a fraction times the largest unit still fits 128 bits */

struct number {
        uint64_t whole;
        uint64_t fraction; /* over 10^digits, without trailing zeros */
        unsigned digits;
        bool has_point;
        bool is_too_large; /* or too fine: no value, but its shape is right */
};

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

static void add_digit(uint64_t *value, char c, bool *ret_overflow)
{
        if (__builtin_mul_overflow(*value, UINT64_C(10), value) ||
            __builtin_add_overflow(*value, (uint64_t)(c - '0'), value))
                *ret_overflow = true;
}

/* digits [ "." digits ]; moves *at behind it. */
static bool read_number(const char **at, struct number *ret)
{
        struct number n = {0};
        const char *p = *at, *end;

        if (!is_digit(*p))
                return false;
        for (; is_digit(*p); p++)
                add_digit(&n.whole, *p, &n.is_too_large);
        if (*p == '.') {
                n.has_point = true;
                p++;
                if (!is_digit(*p))
                        return false;
                end = p + strspn(p, "0123456789");
                *at = end;
                while (end > p && end[-1] == '0')
                        end--;
                if (end - p > FRACTION_MAX)
                        n.is_too_large = true;
                for (; p < end && !n.is_too_large; p++, n.digits++)
                        add_digit(&n.fraction, *p, &n.is_too_large);
        } else {
                *at = p;
        }
        *ret = n;
        return true;
}

/* Add n * unit to *sum, exactly. */
static int add_scaled(uint64_t *sum, const struct number *n, uint64_t unit)
{
        unsigned __int128 part;
        uint64_t value, scale = 1;

        if (n->is_too_large || __builtin_mul_overflow(n->whole, unit, &value))
                return -ERANGE;
        for (unsigned i = 0; i < n->digits; i++)
                scale *= 10;
        part = (unsigned __int128)n->fraction * unit;
        if (part % scale != 0)
                return -ERANGE;
        if (__builtin_add_overflow(value, (uint64_t)(part / scale), &value) ||
            __builtin_add_overflow(*sum, value, sum))
                return -ERANGE;
        return 0;
}

int units_parse_cpu(const char *text, uint32_t *ret_milli)
{
        struct number n;
        uint64_t milli = 0, unit = 1000;
        int r;

        if (!read_number(&text, &n))
                return -EINVAL;
        if (*text == 'm' && !n.has_point) {
                unit = 1;
                text++;
        }
        if (*text != '\0')
                return -EINVAL;
        r = add_scaled(&milli, &n, unit);
        if (r < 0)
                return r;
        if (milli == 0 || milli > UINT32_MAX)
                return -ERANGE;
        *ret_milli = (uint32_t)milli;
        return 0;
}

/* [KMGT] [i] [B] in any case, an "i" only after a letter; 0 when it is none of these. */
static uint64_t size_unit(const char *text)
{
        static const char letters[] = "kmgt";
        const char *letter = *text ? strchr(letters, *text | 0x20) : NULL;
        uint64_t unit = 1;

        if (letter) {
                unit <<= 10 * (letter - letters + 1);
                text++;
                if (*text == 'i')
                        text++;
        }
        if (*text == 'B' || *text == 'b')
                text++;
        return *text == '\0' ? unit : 0;
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
        struct number n;
        uint64_t bytes = 0, unit;
        int r;

        if (!read_number(&text, &n))
                return -EINVAL;
        unit = size_unit(text);
        if (unit == 0)
                return -EINVAL;
        r = add_scaled(&bytes, &n, unit);
        if (r < 0)
                return r;
        *ret_bytes = bytes;
        return 0;
}

static const struct {
        char letter;
        uint64_t ns;
} span_units[] = {
        {'d', 86400 * NS_PER_S},
        {'h', 3600 * NS_PER_S},
        {'m', 60 * NS_PER_S},
        {'s', NS_PER_S},
};
#define SPAN_UNITS (sizeof(span_units) / sizeof(span_units[0]))

int units_parse_span(const char *text, uint64_t *ret_ns)
{
        uint64_t ns = 0;
        size_t unit = 0; /* the largest that may still come */
        bool is_first = true;
        int r = 0;

        do {
                struct number n;

                if (!read_number(&text, &n))
                        return -EINVAL;
                if (*text == '\0' && is_first) { /* a bare number */
                        unit = SPAN_UNITS - 1;
                } else {
                        while (unit < SPAN_UNITS && span_units[unit].letter != *text)
                                unit++;
                        if (unit == SPAN_UNITS || (n.has_point && text[1] != '\0'))
                                return -EINVAL; /* a fraction is for the last part only */
                        text++;
                }
                if (r == 0)
                        r = add_scaled(&ns, &n, span_units[unit].ns);
                unit++;
                is_first = false;
        } while (*text != '\0');

        if (r < 0 || ns == NEVER_NS)
                return -ERANGE;
        *ret_ns = ns;
        return 0;
}

int units_parse_count(const char *text, uint64_t max, uint64_t *ret)
{
        struct number n;

        if (!read_number(&text, &n) || n.has_point || *text != '\0')
                return -EINVAL;
        if (n.is_too_large || n.whole > max)
                return -ERANGE;
        *ret = n.whole;
        return 0;
}

void units_format_cpu(uint32_t milli, char *text, size_t size)
{
        int n;

        if (milli % 1000 == 0)
                n = snprintf(text, size, "%" PRIu32, milli / 1000);
        else
                n = snprintf(text, size, "%" PRIu32 "m", milli);
        assert(n > 0 && (size_t)n < size);
}

void units_format_size(uint64_t bytes, char *text, size_t size)
{
        static const char *const units[] = {"", "K", "M", "G", "T"};
        size_t unit = 0;
        int n;

        while (bytes > 0 && bytes % 1024 == 0 && unit < 4) {
                bytes /= 1024;
                unit++;
        }
        n = snprintf(text, size, "%" PRIu64 "%s", bytes, units[unit]);
        assert(n > 0 && (size_t)n < size);
}

/* "33.709551615s"; `ns` is below a minute. */
static int format_seconds(uint64_t ns, char *text, size_t size)
{
        int n = snprintf(text, size, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);

        assert(n > 0 && (size_t)n + 1 < size);
        while (text[n - 1] == '0')
                n--;
        if (text[n - 1] == '.')
                n--;
        text[n++] = 's';
        text[n] = '\0';
        return n;
}

void units_format_span(uint64_t ns, char *text, size_t size)
{
        size_t at = 0;

        for (size_t i = 0; i < SPAN_UNITS - 1; i++) {
                int n;

                if (ns < span_units[i].ns)
                        continue;
                n = snprintf(text + at, size - at, "%" PRIu64 "%c", ns / span_units[i].ns,
                             span_units[i].letter);
                assert(n > 0 && (size_t)n < size - at);
                at += (size_t)n;
                ns %= span_units[i].ns;
        }
        if (ns > 0 || at == 0)
                (void)format_seconds(ns, text + at, size - at);
}
