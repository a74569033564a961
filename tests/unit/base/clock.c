/* SPDX-License-Identifier: Apache-2.0 */

#include <limits.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"

static void conversions_are_exact_and_saturate(void)
{
        struct timespec t = clock_timespec(5 * NS_PER_S + 7);

        CHECK_EQ(t.tv_sec, 5);
        CHECK_EQ(t.tv_nsec, 7);
        CHECK_EQ(clock_from_timespec(t), 5 * NS_PER_S + 7);
        CHECK(clock_from_timespec((struct timespec){.tv_sec = INT64_MAX}) == UINT64_MAX);
        CHECK(clock_from_timespec((struct timespec){.tv_sec = -1}) == 0);
        CHECK(clock_from_timespec(clock_timespec(UINT64_MAX)) == UINT64_MAX);
}

static void clocks_go_forward(void)
{
        uint64_t a = clock_mono_ns(), b = clock_mono_ns();

        CHECK(a > 0 && b >= a);
        CHECK(clock_real_ns() > UINT64_C(1600000000) * NS_PER_S);
}

static void deadlines_saturate_at_never(void)
{
        CHECK(clock_after(UINT64_MAX) == NEVER_NS);
        CHECK(clock_after(NEVER_NS - 1) == NEVER_NS);
        CHECK(clock_after(NS_PER_S) >= clock_mono_ns());
        CHECK(clock_after(0) <= clock_mono_ns());
}

static void poll_time_is_rounded_up_and_bounded(void)
{
        int ms;

        CHECK_EQ(clock_poll_ms(NEVER_NS), -1);
        CHECK_EQ(clock_poll_ms(0), 0);
        CHECK_EQ(clock_poll_ms(clock_mono_ns()), 0);
        CHECK_EQ(clock_poll_ms(NEVER_NS - 1), INT_MAX);
        ms = clock_poll_ms(clock_after(100 * NS_PER_S));
        CHECK(ms > 90000 && ms <= 100000);
        ms = clock_poll_ms(clock_after(NS_PER_S + 1));
        CHECK(ms <= 1001);
}

int main(void)
{
        RUN(conversions_are_exact_and_saturate);
        RUN(clocks_go_forward);
        RUN(deadlines_saturate_at_never);
        RUN(poll_time_is_rounded_up_and_bounded);
        return check_result();
}
