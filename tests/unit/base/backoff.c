/* SPDX-License-Identifier: Apache-2.0 */
/* Back-off: it grows, it's bounded, and it isn't always the same. */

#include "transport/base/backoff.h"

#include "tests/unit/check.h"

static void it_doubles_up_to_its_maximum(void)
{
        uint64_t span = 100;

        for (unsigned failures = 1; failures < 100; failures++) {
                uint64_t ns = backoff_ns(failures, 100, 1500);

                CHECK(ns >= span / 2 && ns <= span);
                span = span * 2 > 1500 ? 1500 : span * 2;
        }
}

static void large_spans_do_not_wrap(void)
{
        uint64_t ns = backoff_ns(1000000, 3, UINT64_MAX - 1);

        CHECK(ns >= (UINT64_MAX - 1) / 2 && ns <= UINT64_MAX - 1);
        CHECK(backoff_ns(1, 500, 100) <= 100);
        CHECK_EQ(backoff_ns(5, 0, 100), 0);
}

static void it_is_not_always_the_same(void)
{
        uint64_t first = backoff_ns(1, UINT64_C(1) << 40, UINT64_C(1) << 41);
        unsigned same = 0;

        for (int i = 0; i < 8; i++)
                same += backoff_ns(1, UINT64_C(1) << 40, UINT64_C(1) << 41) == first;
        CHECK(same < 8);
}

int main(void)
{
        RUN(it_doubles_up_to_its_maximum);
        RUN(large_spans_do_not_wrap);
        RUN(it_is_not_always_the_same);
        return check_result();
}
