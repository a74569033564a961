/* SPDX-License-Identifier: Apache-2.0 */
/* What services written in Go say; see words.h. */

#include "providers/remote/words.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "transport/base/clock.h"

#define SIZE_OF(array) (sizeof(array) / sizeof((array)[0]))

/* ---- times ---- */

/* Nanoseconds of ".123"; its length in *ret_size, 0 when there is none. */
static uint64_t fraction(const char *text, size_t *ret_size)
{
        uint64_t ns = 0, unit = NS_PER_S / 10;
        size_t i = 1;

        *ret_size = 0;
        if (text[0] != '.')
                return 0;
        for (; text[i] >= '0' && text[i] <= '9'; i++, unit /= 10)
                ns += unit * (uint64_t)(text[i] - '0');
        *ret_size = i;
        return ns;
}

/* Seconds east of "Z" or "+01:00". */
static bool offset(const char *text, int64_t *ret)
{
        unsigned hours, minutes;
        int used = 0;

        *ret = 0;
        if (strcmp(text, "Z") == 0)
                return true;
        if ((text[0] != '+' && text[0] != '-') ||
            sscanf(text + 1, "%2u:%2u%n", &hours, &minutes, &used) != 2 || text[1 + used] != '\0')
                return false;
        *ret = ((int64_t)hours * 60 + minutes) * 60 * (text[0] == '-' ? -1 : 1);
        return true;
}

bool words_time(const char *text, uint64_t *ret_real_ns)
{
        struct tm tm = {0};
        int64_t seconds, east;
        uint64_t ns;
        size_t size;
        const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;

        if (!rest)
                return false;
        ns = fraction(rest, &size);
        seconds = timegm(&tm);
        if (!offset(rest + size, &east) || seconds < east || seconds > INT64_C(1) << 33)
                return false;
        *ret_real_ns = (uint64_t)(seconds - east) * NS_PER_S + ns;
        return true;
}

/* ---- errors ---- */

static bool ends_with(const char *text, const char *end)
{
        size_t size = strlen(text), of_end = strlen(end);

        return size >= of_end && strcasecmp(text + size - of_end, end) == 0;
}

int words_error(const char *message)
{
        static const struct {
                const char *words;
                int error;
        } table[] = {
                {"no such file or directory", ENOENT},
                {"file exists", EEXIST},
                {"not a directory", ENOTDIR},
                {"is a directory", EISDIR},
                {"directory not empty", ENOTEMPTY},
                {"permission denied", EACCES},
                {"operation not permitted", EPERM},
                {"file name too long", ENAMETOOLONG},
                {"invalid cross-device link", EXDEV},
                {"too many levels of symbolic links", ELOOP},
                {"read-only file system", EROFS},
                {"no space left on device", ENOSPC},
                {"disk quota exceeded", EDQUOT},
                {"device or resource busy", EBUSY},
                {"text file busy", ETXTBSY},
                {"argument list too long", E2BIG},
                {"broken pipe", EPIPE},
        };

        for (size_t i = 0; message && i < SIZE_OF(table); i++)
                if (ends_with(message, table[i].words))
                        return -table[i].error;
        return 0;
}

/* ---- signals ---- */

int words_signal(const char *status)
{
        static const struct {
                const char *words;
                int signal;
        } table[] = {
                {"killed", SIGKILL},
                {"terminated", SIGTERM},
                {"interrupt", SIGINT},
                {"hangup", SIGHUP},
                {"segmentation fault", SIGSEGV},
                {"aborted", SIGABRT},
                {"broken pipe", SIGPIPE},
                {"quit", SIGQUIT},
                {"bus error", SIGBUS},
                {"floating point exception", SIGFPE},
                {"illegal instruction", SIGILL},
                {"alarm clock", SIGALRM},
                {"trace/breakpoint trap", SIGTRAP},
        };
        static const char head[] = "signal: ";
        int value = 0;

        if (!status || strncmp(status, head, sizeof(head) - 1) != 0)
                return 0;
        status += sizeof(head) - 1;
        for (size_t i = 0; i < SIZE_OF(table); i++)
                if (strncmp(status, table[i].words, strlen(table[i].words)) == 0)
                        return table[i].signal;
        return sscanf(status, "signal %3d", &value) == 1 && value > 0 && value <= 64 ? value : 0;
}
