/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes, and directories made. Removing trees has a file of its own: remove.c. */

#include "transport/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/cleanup.h"

#define PIECE ((size_t)64 * 1024)

int file_write_all(int fd, const void *data, size_t size)
{
        const char *at = data;

        while (size > 0) {
                ssize_t n = write(fd, at, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                at += n;
                size -= (size_t)n;
        }
        return 0;
}

int file_pwrite_all(int fd, const void *data, size_t size, uint64_t offset)
{
        const char *at = data;

        if (offset > INT64_MAX || size > INT64_MAX - offset)
                return -EFBIG;
        while (size > 0) {
                ssize_t n = pwrite(fd, at, size, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                at += n;
                size -= (size_t)n;
                offset += (uint64_t)n;
        }
        return 0;
}

ssize_t file_pread_full(int fd, void *data, size_t size, uint64_t offset)
{
        char *at = data;
        size_t done = 0;

        if (size > SSIZE_MAX)
                size = SSIZE_MAX;
        while (done < size) {
                ssize_t n;

                if (offset + done > INT64_MAX)
                        break; /* beyond any file */
                n = pread(fd, at + done, size - done, (off_t)(offset + done));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        return (ssize_t)done;
}

/* One read(2) of what fits; 0 at the end, -E2BIG when there is more than fits. */
static ssize_t read_piece(int fd, struct buf *to)
{
        size_t room = to->max - to->size;
        char extra, *at = &extra;
        ssize_t n;

        if (room > PIECE)
                room = PIECE;
        if (room > 0) {
                at = buf_reserve(to, room);
                if (!at)
                        return -ENOMEM;
        }
        do
                n = read(fd, at, room ? room : 1);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        if (room == 0)
                return n > 0 ? -E2BIG : 0;
        to->size += (size_t)n;
        return n;
}

int file_read(int dir, const char *path, struct buf *to)
{
        _cleanup_(closep) int fd = -1;
        size_t before = to->size;
        struct stat st;
        ssize_t n;

        fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (S_ISDIR(st.st_mode))
                return -EISDIR;
        if (!S_ISREG(st.st_mode))
                return -EINVAL; /* a FIFO or device has no end that we could wait for */

        do
                n = read_piece(fd, to);
        while (n > 0);
        if (n < 0)
                to->size = before;
        if (to->data)
                to->data[to->size] = '\0';
        return (int)n;
}

/* One directory of a path; one that is there is fine. */
static int make_dir(const char *path, mode_t mode)
{
        struct stat st;
        int r;

        if (mkdir(path, mode) == 0)
                return chmod(path, mode) < 0 ? -errno : 0; /* whatever the umask is */
        r = -errno; /* EROFS and EACCES are said even of one that is there */
        if (stat(path, &st) < 0)
                return r;
        return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int file_make_dirs(const char *path, mode_t mode)
{
        char part[PATH_MAX];
        size_t size = strlen(path);

        if (size == 0)
                return -ENOENT;
        if (size >= sizeof(part))
                return -ENAMETOOLONG;
        memcpy(part, path, size + 1);
        for (size_t i = 1; i <= size; i++) {
                int r;

                if (path[i] != '/' && path[i] != '\0')
                        continue;
                if (path[i - 1] == '/')
                        continue; /* "a//b", "a/" */
                part[i] = '\0';
                r = make_dir(part, mode);
                if (r < 0)
                        return r;
                part[i] = path[i];
        }
        return 0;
}
