/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long to wait after a failure: doubled each time, with jitter, so that many don't come back
 * together.
 */
#pragma once

#include <stdint.h>

/*
 * After `failures` (1 or more) in a row: between a half and all of min_ns * 2^(failures - 1), which
 * is at most max_ns.
 */
uint64_t backoff_ns(unsigned failures, uint64_t min_ns, uint64_t max_ns);
