/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/shell/find.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* A '!' before those directories that can't be read. */
#define FIND_CLOSED "\\( ! -type d -o -readable -executable -o -printf '!' \\) "
#define FIND_NUMBERS "%y %m %s %T@ %C@ %i %n %b %D "

const char find_print[] = FIND_CLOSED "-printf '" FIND_NUMBERS "%P\\0%l\\0'";
const char find_print_given[] = FIND_CLOSED "-printf '" FIND_NUMBERS "%A@ %p\\0%l\\0'";

/* Whether a path from the host stays below: no "", ".", "..", no leading '/'. */
static bool is_path_below(const char *path)
{
        while (true) {
                size_t n = strcspn(path, "/");

                if (n == 0 || (n == 1 && path[0] == '.') ||
                    (n == 2 && path[0] == '.' && path[1] == '.'))
                        return false;
                if (!path[n])
                        return true;
                path += n + 1;
        }
}

/* ---- numbers ---- */

/* Digits and one blank. */
static bool take_number(const char **at, unsigned base, uint64_t *ret)
{
        uint64_t value = 0;
        const char *p = *at;

        for (; *p >= '0' && *p < (char)('0' + base); p++) {
                if (value > (UINT64_MAX - 9) / base)
                        return false;
                value = value * base + (unsigned)(*p - '0');
        }
        if (p == *at || *p != ' ')
                return false;
        *at = p + 1;
        *ret = value;
        return true;
}

/* "-12.5000000000 ": seconds before 1970 count down, their fraction too. */
static bool take_time(const char **at, struct timespec *ret)
{
        bool is_negative = **at == '-';
        const char *p = *at + is_negative;
        int64_t seconds = 0;
        long ns = 0, unit = 100000000;

        if (*p < '0' || *p > '9')
                return false;
        for (; *p >= '0' && *p <= '9'; p++) {
                if (seconds > INT64_MAX / 100)
                        return false;
                seconds = seconds * 10 + (*p - '0');
        }
        if (*p == '.') {
                for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
                        ns += unit * (*p - '0');
        }
        if (*p != ' ')
                return false;
        *at = p + 1;
        if (is_negative) {
                seconds = -seconds - (ns > 0);
                ns = ns > 0 ? 1000000000 - ns : 0;
        }
        *ret = (struct timespec){.tv_sec = seconds, .tv_nsec = ns};
        return true;
}

static mode_t type_of(char letter)
{
        switch (letter) {
        case 'f': return S_IFREG;
        case 'd': return S_IFDIR;
        case 'l': return S_IFLNK;
        case 'p': return S_IFIFO;
        case 's': return S_IFSOCK;
        case 'b': return S_IFBLK;
        case 'c': return S_IFCHR;
        default: return 0;
        }
}

/* ---- lines ---- */

static bool parse_line(const char *at, bool is_given, struct found *ret)
{
        uint64_t mode, size, ino, nlink, blocks;
        struct stat *st = &ret->st;

        *ret = (struct found){.is_closed = at[0] == '!'};
        at += ret->is_closed;
        st->st_mode = type_of(at[0]);
        if (st->st_mode == 0 || at[1] != ' ')
                return false;
        at += 2;
        if (!take_number(&at, 8, &mode) || !take_number(&at, 10, &size) ||
            !take_time(&at, &st->st_mtim) || !take_time(&at, &st->st_ctim) ||
            !take_number(&at, 10, &ino) || !take_number(&at, 10, &nlink) ||
            !take_number(&at, 10, &blocks) || !take_number(&at, 10, &ret->dev))
                return false;
        if (mode > 07777 || size > INT64_MAX || blocks > INT64_MAX)
                return false;
        st->st_mode |= (mode_t)mode;
        st->st_size = (off_t)size;
        st->st_ino = (ino_t)ino;
        st->st_nlink = (nlink_t)nlink;
        st->st_blocks = (blkcnt_t)blocks;
        st->st_atim = st->st_mtim; /* not asked for: it would be a fifth of all that is sent */
        ret->path = at;
        return !is_given || take_time(&ret->path, &st->st_atim);
}

/* One file, if all of it is there: the bytes it took, 0 when it isn't. */
static int parse_one(struct find_parser *p, const char *data, size_t size, size_t *ret_used)
{
        const char *target = memchr(data, '\0', size);
        const char *end =
                target ? memchr(target + 1, '\0', size - (size_t)(target + 1 - data)) : NULL;
        struct found f;
        int r;

        *ret_used = 0;
        if (!end)
                return size > FIND_LINE_MAX ? -EPROTO : 0;
        target++;
        if (!parse_line(data, p->is_given, &f) ||
            (!p->is_given && f.path[0] && !is_path_below(f.path)))
                return -EPROTO;
        if (S_ISLNK(f.st.st_mode) && target[0] && strlen(target) < PATH_MAX)
                f.target = target;
        r = p->entry(p->ctx, &f);
        *ret_used = (size_t)(end + 1 - data);
        return r;
}

int find_parse(struct find_parser *p, const void *data, size_t size)
{
        size_t at = 0, used;
        int r = buf_add(&p->pending, data, size);

        while (r == 0 && at < p->pending.size) {
                r = parse_one(p, p->pending.data + at, p->pending.size - at, &used);
                if (used == 0)
                        break;
                at += used;
        }
        buf_drop(&p->pending, at);
        return r;
}
