/* SPDX-License-Identifier: Apache-2.0 */
/* Back-off with jitter. */

#include "transport/base/backoff.h"

#include "transport/base/random.h"

uint64_t backoff_ns(unsigned failures, uint64_t min_ns, uint64_t max_ns)
{
        uint64_t span_ns = min_ns, random = 0;

        for (unsigned i = 1; i < failures && span_ns < max_ns; i++)
                span_ns = span_ns > max_ns / 2 ? max_ns : span_ns * 2;
        if (span_ns > max_ns)
                span_ns = max_ns;
        (void)random_bytes(&random, sizeof(random)); /* without it, no jitter */
        return span_ns / 2 + random % (span_ns / 2 + 1);
}
