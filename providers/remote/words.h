/* SPDX-License-Identifier: Apache-2.0 */
/* Words that many services use alike, most of them for being written in Go. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* "2026-08-22T10:05:00.123Z", "...+02:00", as CLOCK_REALTIME; false: it is none. */
bool words_time(const char *text, uint64_t *ret_real_ns);

/* The system's words at the end of a message ("...: no such file or directory") as -errno; 0 no. */
int words_error(const char *message);

/* "signal: killed", "signal: signal 42"; 0 none. */
int words_signal(const char *status);
