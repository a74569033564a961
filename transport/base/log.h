/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diagnostics: one line an event, to standard error or to syslog once the program is a daemon. No
 * secret and no file content at any level. Any thread may log; a line is escaped and written whole.
 * errno is kept.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/*
 * Fixed before the first thread starts. `topics`: comma-separated debug topics (fuse, local, exec,
 * ...), "all", or NULL: none, and all at LOG_LEVEL_DEBUG.
 * A topic that is named is wanted at any level.
 */
void log_setup(enum log_level level, const char *topics, bool to_syslog);

/* Whether debug lines of this topic are wanted: guards work that is only for a log line. */
bool log_wants(const char *topic);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *topic, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "ENOENT" for ENOENT or -ENOENT; never NULL. */
const char *errno_name(int code);
