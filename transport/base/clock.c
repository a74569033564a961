/* SPDX-License-Identifier: Apache-2.0 */
/* Time: thin, saturating conversions around clock_gettime(2). */

#include "transport/base/clock.h"

#include <assert.h>
#include <limits.h>

static uint64_t now(clockid_t id)
{
        struct timespec t = {0};
        int r = clock_gettime(id, &t);

        assert(r == 0); /* both clocks exist on every Linux */
        return clock_from_timespec(t);
}

uint64_t clock_mono_ns(void)
{
        return now(CLOCK_MONOTONIC);
}

uint64_t clock_real_ns(void)
{
        return now(CLOCK_REALTIME);
}

struct timespec clock_timespec(uint64_t ns)
{
        return (struct timespec){
                .tv_sec = (time_t)(ns / NS_PER_S),
                .tv_nsec = (long)(ns % NS_PER_S),
        };
}

uint64_t clock_from_timespec(struct timespec t)
{
        uint64_t ns;

        if (t.tv_sec < 0)
                return 0; /* before 1970 */
        if (__builtin_mul_overflow((uint64_t)t.tv_sec, NS_PER_S, &ns) ||
            __builtin_add_overflow(ns, (uint64_t)t.tv_nsec, &ns))
                return UINT64_MAX;
        return ns;
}

int clock_poll_ms(uint64_t deadline_ns)
{
        uint64_t mono_ns, ms;

        if (deadline_ns == NEVER_NS)
                return -1;
        mono_ns = clock_mono_ns();
        if (deadline_ns <= mono_ns)
                return 0;
        ms = (deadline_ns - mono_ns - 1) / NS_PER_MS + 1;
        return ms > INT_MAX ? INT_MAX : (int)ms;
}

uint64_t clock_after(uint64_t span_ns)
{
        uint64_t ns;

        return __builtin_add_overflow(clock_mono_ns(), span_ns, &ns) ? NEVER_NS : ns;
}
