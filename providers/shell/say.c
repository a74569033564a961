/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/shell/say.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ---- errors ---- */

struct saying {
        const char *text;
        int error;
};

static const struct saying sayings[] = {
        {"No such file or directory", ENOENT},
        {"Permission denied", EACCES},
        {"Operation not permitted", EPERM},
        {"File exists", EEXIST},
        {"Not a directory", ENOTDIR},
        {"Path has non-directory component", ENOTDIR}, /* busybox */
        {"Is a directory", EISDIR},
        {"Directory not empty", ENOTEMPTY},
        {"No space left on device", ENOSPC},
        {"Read-only file system", EROFS},
        {"File name too long", ENAMETOOLONG},
        {"Filename too long", ENAMETOOLONG}, /* musl */
        {"Too many levels of symbolic links", ELOOP},
        {"Symbolic link loop", ELOOP}, /* musl */
        {"Disk quota exceeded", EDQUOT},
        {"Quota exceeded", EDQUOT}, /* musl */
        {"Invalid cross-device link", EXDEV},
        {"Cross-device link", EXDEV}, /* musl */
        {"Too many links", EMLINK},
        {"Text file busy", ETXTBSY},
        {"Device or resource busy", EBUSY},
        {"Resource busy", EBUSY}, /* musl */
        {"File too large", EFBIG},
        {"Invalid argument", EINVAL},
        {"Argument list too long", E2BIG},
};

int say_errno(const char *text, size_t size)
{
        while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
                size--;
        for (size_t i = 0; i < sizeof(sayings) / sizeof(sayings[0]); i++) {
                size_t n = strlen(sayings[i].text);

                if (size >= n && memcmp(text + size - n, sayings[i].text, n) == 0)
                        return -sayings[i].error;
        }
        return -EIO;
}

/* ---- attributes ---- */

struct reading {
        const char *at, *end;
        bool is_bad;
};

static uint64_t take_number(struct reading *r, unsigned base)
{
        const char *begin = r->at;
        uint64_t value = 0;

        for (; r->at < r->end && isxdigit((unsigned char)*r->at); r->at++) {
                unsigned digit = *r->at <= '9' ? (unsigned)(*r->at - '0')
                                               : (unsigned)((*r->at | 32) - 'a') + 10;

                if (digit >= base || value > ((uint64_t)INT64_MAX - digit) / base) {
                        r->is_bad = true;
                        return 0;
                }
                value = value * base + digit;
        }
        r->is_bad |= r->at == begin;
        return value;
}

static void take_blank(struct reading *r)
{
        if (r->at < r->end && *r->at == ' ')
                r->at++;
        else
                r->is_bad = true;
}

/* "-12.500000000": what is before 1970 counts down, its fraction up. */
static struct timespec take_time(struct reading *r)
{
        bool is_negative = r->at < r->end && *r->at == '-';
        struct timespec t = {0};
        long unit = 100000000;

        r->at += is_negative;
        t.tv_sec = (time_t)take_number(r, 10);
        if (r->at < r->end && *r->at == '.') {
                for (r->at++; r->at < r->end && isdigit((unsigned char)*r->at); r->at++, unit /= 10)
                        t.tv_nsec += unit * (*r->at - '0');
        }
        if (is_negative) {
                t.tv_sec = -t.tv_sec - (t.tv_nsec > 0);
                t.tv_nsec = t.tv_nsec > 0 ? 1000000000 - t.tv_nsec : 0;
        }
        take_blank(r);
        return t;
}

static bool is_type(mode_t mode)
{
        return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) ||
               S_ISSOCK(mode) || S_ISBLK(mode) || S_ISCHR(mode);
}

size_t say_stat(const char *text, size_t size, char end, struct stat *ret)
{
        struct reading r = {.at = text, .end = text + size};
        struct stat st = {.st_mode = (mode_t)take_number(&r, 16)};

        take_blank(&r);
        st.st_size = (off_t)take_number(&r, 10);
        take_blank(&r);
        st.st_mtim = take_time(&r);
        st.st_ctim = take_time(&r);
        st.st_atim = take_time(&r);
        st.st_ino = take_number(&r, 10);
        take_blank(&r);
        st.st_nlink = take_number(&r, 10);
        take_blank(&r);
        st.st_blocks = (blkcnt_t)take_number(&r, 10);
        if (r.is_bad || r.at == r.end || *r.at != end || !is_type(st.st_mode) ||
            (st.st_mode & ~(mode_t)(S_IFMT | 07777)) != 0)
                return 0;
        *ret = st;
        return (size_t)(r.at - text) + 1;
}
