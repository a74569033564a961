/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"
#include "transport/base/units.h"

struct row {
        const char *text;
        int r;
        uint64_t value;
};
#define ROWS(rows) (sizeof(rows) / sizeof((rows)[0]))

#define K UINT64_C(1024)

static void check_row(const struct row *row, int r, uint64_t value)
{
        if (!CHECK_EQ(r, row->r) || !CHECK(r < 0 ? value == 77 : value == row->value))
                (void)fprintf(stderr, "  of \"%s\"\n", row->text);
}

static void processors(void)
{
        static const struct row rows[] = {
                {"2", 0, 2000},
                {"0.5", 0, 500},
                {"500m", 0, 500},
                {"1.5", 0, 1500},
                {"1.500", 0, 1500},
                {"0.001", 0, 1},
                {"1m", 0, 1},
                {"007", 0, 7000},
                {"4294967.295", 0, 4294967295},
                {"4294967295m", 0, 4294967295},
                {"0", -ERANGE, 0},
                {"0m", -ERANGE, 0},
                {"0.0005", -ERANGE, 0},
                {"4294967.296", -ERANGE, 0},
                {"99999999999999999999999999", -ERANGE, 0},
                {"0.3333333333333333333333333333", -ERANGE, 0},
                {"", -EINVAL, 0},
                {"m", -EINVAL, 0},
                {".5", -EINVAL, 0},
                {"5.", -EINVAL, 0},
                {"0.5m", -EINVAL, 0},
                {"-1", -EINVAL, 0},
                {"+1", -EINVAL, 0},
                {" 1", -EINVAL, 0},
                {"1 ", -EINVAL, 0},
                {"1e3", -EINVAL, 0},
                {"1.2.3", -EINVAL, 0},
                {"0x10", -EINVAL, 0},
                {"2M", -EINVAL, 0},
                {"99999999999999999999999999x", -EINVAL, 0},
                {"inf", -EINVAL, 0},
                {"1,5", -EINVAL, 0},
        };

        for (size_t i = 0; i < ROWS(rows); i++) {
                uint32_t milli = 77;
                int r = units_parse_cpu(rows[i].text, &milli);

                check_row(&rows[i], r, milli);
        }
}

static void sizes(void)
{
        static const struct row rows[] = {
                {"0", 0, 0},
                {"1000", 0, 1000},
                {"512M", 0, 512 * K * K},
                {"4G", 0, 4 * K * K * K},
                {"4GiB", 0, 4 * K * K * K},
                {"4GB", 0, 4 * K * K * K},
                {"4Gi", 0, 4 * K * K * K},
                {"8g", 0, 8 * K * K * K},
                {"8gb", 0, 8 * K * K * K},
                {"8gib", 0, 8 * K * K * K},
                {"1k", 0, K},
                {"2T", 0, 2 * K * K * K * K},
                {"12B", 0, 12},
                {"12b", 0, 12},
                {"1.5G", 0, 1536 * K * K},
                {"0.5K", 0, 512},
                {"0.000000000931322574615478515625G", -ERANGE,
                 0}, /* one byte, but spelt too finely */
                {"18446744073709551615", 0, UINT64_MAX},
                {"16777215T", 0, 16777215 * K * K * K * K},
                {"16777216T", -ERANGE, 0},
                {"18446744073709551616", -ERANGE, 0},
                {"0.3K", -ERANGE, 0},
                {"1.5", -ERANGE, 0},
                {"", -EINVAL, 0},
                {"G", -EINVAL, 0},
                {"4 G", -EINVAL, 0},
                {"4GG", -EINVAL, 0},
                {"4iB", -EINVAL, 0},
                {"4GIB", -EINVAL, 0},
                {"4P", -EINVAL, 0},
                {"-4G", -EINVAL, 0},
                {"4G\n", -EINVAL, 0},
                {"4Kelvin", -EINVAL, 0},
                {"4\x0b", -EINVAL, 0}, /* 0x0b | 0x20 is no letter */
        };

        for (size_t i = 0; i < ROWS(rows); i++) {
                uint64_t bytes = 77;
                int r = units_parse_size(rows[i].text, &bytes);

                check_row(&rows[i], r, bytes);
        }
}

static void spans(void)
{
        static const struct row rows[] = {
                {"0", 0, 0},
                {"90", 0, 90 * NS_PER_S},
                {"90s", 0, 90 * NS_PER_S},
                {"5m", 0, 300 * NS_PER_S},
                {"1h30m", 0, 5400 * NS_PER_S},
                {"2d", 0, 172800 * NS_PER_S},
                {"1d2h3m4s", 0, 93784 * NS_PER_S},
                {"1h90m", 0, 9000 * NS_PER_S},
                {"0.5s", 0, NS_PER_S / 2},
                {"0.25", 0, NS_PER_S / 4},
                {"1.5h", 0, 5400 * NS_PER_S},
                {"1h0.5m", 0, 3630 * NS_PER_S},
                {"0.000000001", 0, 1},
                {"213503d23h34m33.709551614s", 0, UINT64_MAX - 1},
                {"213503d23h34m33.709551615s", -ERANGE, 0}, /* NEVER_NS */
                {"213504d", -ERANGE, 0},
                {"99999999999999999999s", -ERANGE, 0},
                {"0.0000000001", -ERANGE, 0},
                {"", -EINVAL, 0},
                {"s", -EINVAL, 0},
                {"h1", -EINVAL, 0},
                {"1h30", -EINVAL, 0},
                {"30m1h", -EINVAL, 0},
                {"1h1h", -EINVAL, 0},
                {"1.5h30m", -EINVAL, 0},
                {"1ms", -EINVAL, 0},
                {"1S", -EINVAL, 0},
                {"1h 30m", -EINVAL, 0},
                {"-1s", -EINVAL, 0},
                {"1w", -EINVAL, 0},
                {"99999999999999999999s1", -EINVAL, 0},
        };

        for (size_t i = 0; i < ROWS(rows); i++) {
                uint64_t ns = 77;
                int r = units_parse_span(rows[i].text, &ns);

                check_row(&rows[i], r, ns);
        }
}

static void counts(void)
{
        static const struct row rows[] = {
                {"0", 0, 0},         {"64", 0, 64},
                {"65", -ERANGE, 0},  {"18446744073709551616", -ERANGE, 0},
                {"", -EINVAL, 0},    {"-1", -EINVAL, 0},
                {"6.0", -EINVAL, 0}, {"6k", -EINVAL, 0},
                {"x", -EINVAL, 0},
        };
        uint64_t largest;

        for (size_t i = 0; i < ROWS(rows); i++) {
                uint64_t count = 77;
                int r = units_parse_count(rows[i].text, 64, &count);

                check_row(&rows[i], r, count);
        }
        CHECK_EQ(units_parse_count("18446744073709551615", UINT64_MAX, &largest), 0);
        CHECK(largest == UINT64_MAX);
}

static void known_spellings(void)
{
        char text[32];

        units_format_cpu(2000, text, sizeof(text));
        CHECK_STR(text, "2");
        units_format_cpu(500, text, sizeof(text));
        CHECK_STR(text, "500m");
        units_format_cpu(1500, text, sizeof(text));
        CHECK_STR(text, "1500m");
        units_format_size(4 * K * K * K, text, sizeof(text));
        CHECK_STR(text, "4G");
        units_format_size(1536 * K * K, text, sizeof(text));
        CHECK_STR(text, "1536M");
        units_format_size(1000, text, sizeof(text));
        CHECK_STR(text, "1000");
        units_format_size(0, text, sizeof(text));
        CHECK_STR(text, "0");
        units_format_size(K * K * K * K * K, text, sizeof(text));
        CHECK_STR(text, "1024T");
        units_format_span(5400 * NS_PER_S, text, sizeof(text));
        CHECK_STR(text, "1h30m");
        units_format_span(90 * NS_PER_S, text, sizeof(text));
        CHECK_STR(text, "1m30s");
        units_format_span(0, text, sizeof(text));
        CHECK_STR(text, "0s");
        units_format_span(NS_PER_S / 2, text, sizeof(text));
        CHECK_STR(text, "0.5s");
        units_format_span(86400 * NS_PER_S + 1, text, sizeof(text));
        CHECK_STR(text, "1d0.000000001s");
        units_format_span(10 * NS_PER_S, text, sizeof(text));
        CHECK_STR(text, "10s");
        units_format_span(UINT64_MAX - 1, text, sizeof(text));
        CHECK_STR(text, "213503d23h34m33.709551614s");
}

/* Numbers of every size, next to powers of two and ten. */
static void every_spelling_reads_back(void)
{
        uint64_t state = 1;

        for (int i = 0; i < 100000; i++) {
                char text[32];
                uint64_t value, back = 0;
                uint32_t milli = 0;

                state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
                value = state >> (state >> 32) % 64;
                if (i % 3 == 0)
                        value &= UINT64_MAX << i % 64;
                if (value == NEVER_NS)
                        continue;
                units_format_size(value, text, sizeof(text));
                CHECK(units_parse_size(text, &back) == 0 && back == value);
                units_format_span(value, text, sizeof(text));
                CHECK(units_parse_span(text, &back) == 0 && back == value);
                if ((uint32_t)value > 0) {
                        units_format_cpu((uint32_t)value, text, sizeof(text));
                        CHECK(units_parse_cpu(text, &milli) == 0 && milli == (uint32_t)value);
                }
        }
}

int main(void)
{
        RUN(processors);
        RUN(sizes);
        RUN(spans);
        RUN(counts);
        RUN(known_spellings);
        RUN(every_spelling_reads_back);
        return check_result();
}
