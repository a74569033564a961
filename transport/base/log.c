/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diagnostics. A line is escaped as a whole, so that what a sandbox said can't forge a second one,
 * and goes out in one write. The settings below change only in log_setup, before there are threads.
 */

#include "transport/base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "transport/base/escape.h"

static enum log_level max_level = LOG_LEVEL_INFO;
static char wanted_topics[512]; /* ",fuse,local," */
static bool use_syslog;

static bool is_listed(const char *topic)
{
        size_t size = strlen(topic);

        for (const char *at = wanted_topics; (at = strstr(at, topic)); at++)
                if (at > wanted_topics && at[-1] == ',' && at[size] == ',')
                        return true;
        return false;
}

void log_setup(enum log_level level, const char *topics, bool to_syslog)
{
        max_level = level;
        if (!topics && level == LOG_LEVEL_DEBUG)
                topics = "all";
        /* a cut tail is not wanted */
        (void)snprintf(wanted_topics, sizeof(wanted_topics), ",%s,", topics ? topics : "");
        use_syslog = to_syslog;
        if (to_syslog)
                openlog(program_invocation_short_name, LOG_PID, LOG_DAEMON);
}

bool log_wants(const char *topic)
{
        return wanted_topics[0] != '\0' && (is_listed(topic) || is_listed("all"));
}

static void put(enum log_level level, const char *text)
{
        static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
        static const char *const words[] = {"error: ", "warning: ", "", "debug: "};
        char line[ESCAPE_LINE_MAX + 128];
        int n;

        if (use_syslog) {
                syslog(priorities[level], "%s%s", words[level], text);
                return;
        }
        n = snprintf(line, sizeof(line), "%.64s: %s%s\n", program_invocation_short_name,
                     words[level], text);
        if (n > 0)
                (void)!write(STDERR_FILENO, line, (size_t)n); /* nobody is left to tell */
}

static void logv(enum log_level level, const char *topic, const char *format, va_list args)
        __attribute__((format(printf, 3, 0)));
static void logv(enum log_level level, const char *topic, const char *format, va_list args)
{
        int saved = errno;
        char raw[2 * ESCAPE_LINE_MAX], text[ESCAPE_LINE_MAX + 1];
        int n = 0;

        if (topic)
                n = snprintf(raw, sizeof(raw), "%.32s: ", topic);
        if (n >= 0 && vsnprintf(raw + n, sizeof(raw) - (size_t)n, format, args) >= 0) {
                escape_sentence(raw, strlen(raw), text, sizeof(text));
                put(level, text);
        }
        errno = saved;
}

void log_error(const char *format, ...)
{
        va_list args;

        va_start(args, format);
        logv(LOG_LEVEL_ERROR, NULL, format, args);
        va_end(args);
}

void log_warning(const char *format, ...)
{
        va_list args;

        if (max_level < LOG_LEVEL_WARNING)
                return;
        va_start(args, format);
        logv(LOG_LEVEL_WARNING, NULL, format, args);
        va_end(args);
}

void log_info(const char *format, ...)
{
        va_list args;

        if (max_level < LOG_LEVEL_INFO)
                return;
        va_start(args, format);
        logv(LOG_LEVEL_INFO, NULL, format, args);
        va_end(args);
}

void log_debug(const char *topic, const char *format, ...)
{
        va_list args;

        if (!log_wants(topic))
                return;
        va_start(args, format);
        logv(LOG_LEVEL_DEBUG, topic, format, args);
        va_end(args);
}

const char *errno_name(int code)
{
        const char *name = code == INT_MIN ? NULL : strerrorname_np(code < 0 ? -code : code);

        return name ? name : "EUNKNOWN";
}
