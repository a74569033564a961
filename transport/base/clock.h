/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time. Deadlines are CLOCK_MONOTONIC nanoseconds in a uint64_t, named *_ns; wall-clock times that
 * people see are CLOCK_REALTIME nanoseconds, named *_real_ns.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define NEVER_NS UINT64_MAX /* as a deadline: none */

uint64_t clock_mono_ns(void);
uint64_t clock_real_ns(void);

struct timespec clock_timespec(uint64_t ns);
uint64_t clock_from_timespec(struct timespec t);

/*
 * Milliseconds until `deadline_ns` for poll(2): 0 when passed, -1 for NEVER_NS, rounded up, at most
 * INT_MAX.
 */
int clock_poll_ms(uint64_t deadline_ns);

/* `deadline_ns` from now on; saturates at NEVER_NS. */
uint64_t clock_after(uint64_t span_ns);
