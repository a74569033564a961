/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an interrupted request is to end. The kernel says that the caller has some signal, not
 * which, and says it once. A timer's SIGALRM must not break a git clone, so only what ends the
 * caller counts; a caller that can't be seen is believed.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* Time until the caller's signals are looked at again, after a signal that was ignored. */
#define INTERRUPT_LOOK_NS (100 * NS_PER_MS)

/* `tid` is the calling thread, 0 when it can't be seen; `any_signal`: every signal counts. Reads
 * /proc. */
bool interrupt_is_honoured(pid_t tid, bool any_signal);
