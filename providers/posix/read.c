/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, links and whole files. */

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "providers/posix/place.h"
#include "providers/posix/posix.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

#define TRIES 3 /* at reading a file that is changed meanwhile */

int posix_stat(const struct place *p, const char *path, struct stat *ret)
{
        _cleanup_(closep) int fd = place_open(p, path, O_PATH);

        if (fd < 0)
                return fd;
        return fstat(fd, ret) < 0 ? -errno : 0;
}

int posix_readlink(const struct place *p, const char *path, char *ret, size_t size)
{
        _cleanup_(closep) int fd = place_open(p, path, O_PATH);
        ssize_t n;

        if (fd < 0)
                return fd;
        n = readlinkat(fd, "", ret, size);
        if (n < 0)
                return errno == ENOENT ? -EINVAL : -errno; /* an empty path that is no link */
        if ((size_t)n == size)
                return -ENAMETOOLONG;
        ret[n] = '\0';
        return 0;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
        return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
               a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
               a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/*
 * Content with the attributes that belong to it. Of a file that never holds still: what was read,
 * under attributes from before, so that its next look differs.
 */
ssize_t posix_read_whole(int fd, void *data, size_t size_max, struct stat *ret)
{
        struct stat after;
        ssize_t n = -EAGAIN;

        for (int i = 0; i < TRIES; i++) {
                if (fstat(fd, ret) < 0)
                        return -errno;
                if ((uint64_t)ret->st_size > size_max)
                        return -EFBIG;
                n = file_pread_full(fd, data, size_max, 0);
                if (n < 0 || fstat(fd, &after) < 0)
                        return n < 0 ? n : -errno;
                if (is_same(ret, &after) && n == ret->st_size)
                        return n;
        }
        ret->st_size = n;
        return n;
}
