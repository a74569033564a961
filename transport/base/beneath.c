/* SPDX-License-Identifier: Apache-2.0 */
/* glibc has no openat2. */

#include "transport/base/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "transport/base/cleanup.h"

#define TRIES 16 /* against renames at the wrong moment, and leases held inside */

static int open_one(int dir, const char *path, int flags, mode_t mode, uint64_t resolve)
{
        struct open_how how = {
                .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
                .mode = (flags & O_CREAT) != 0 ? mode & 07777 : 0,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | resolve,
        };
        long fd;

        for (int i = 0; i < TRIES; i++) {
                fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
                if (fd >= 0)
                        return (int)fd;
                if (errno != EAGAIN && errno != EINTR)
                        break;
        }
        if (errno == ELOOP || errno == ENOTDIR || errno == EXDEV)
                return -ESTALE;
        return -errno;
}

/* The longest run of whole components of `path` that one call takes. */
static size_t step(const char *path, size_t length)
{
        size_t n = length < PATH_MAX ? length : PATH_MAX - 1;

        while (n < length && n > 0 && path[n] != '/')
                n--;
        return n;
}

static int open_in_steps(int root, const char *path, size_t length, int flags, mode_t mode,
                         uint64_t resolve)
{
        _cleanup_(closep) int dir = -1;
        char part[PATH_MAX];

        while (length >= PATH_MAX) {
                size_t n = step(path, length);
                int next;

                if (n == 0)
                        return -ENAMETOOLONG; /* one component of that length */
                memcpy(part, path, n);
                part[n] = '\0';
                next = open_one(dir >= 0 ? dir : root, part, O_PATH | O_DIRECTORY, 0, resolve);
                if (next < 0)
                        return next;
                closep(&dir);
                dir = next;
                path += n + 1;
                length -= n + 1;
        }
        return open_one(dir, path, flags, mode, resolve);
}

int beneath_open(int root, const char *path, size_t length, int flags, mode_t mode)
{
        if (length < PATH_MAX)
                return open_one(root, path, flags, mode, RESOLVE_NO_XDEV);
        return open_in_steps(root, path, length, flags, mode, RESOLVE_NO_XDEV);
}

/* Each component for itself. */
static int open_each(int root, const char *path, int flags)
{
        _cleanup_(closep) int dir = -1;
        char part[NAME_MAX + 1];

        while (true) {
                size_t n = strcspn(path, "/");
                bool is_last = !path[n];
                int next;

                if (n > NAME_MAX)
                        return -ENAMETOOLONG;
                memcpy(part, path, n);
                part[n] = '\0';
                next = openat(dir >= 0 ? dir : root, part,
                              (is_last ? flags : O_PATH | O_DIRECTORY) | O_CLOEXEC | O_NOFOLLOW);
                if (next < 0)
                        return errno == ELOOP || errno == ENOTDIR ? -ESTALE : -errno;
                if (is_last)
                        return next;
                closep(&dir);
                dir = next;
                path += n + 1;
        }
}

int beneath_open_across(int root, const char *path, size_t length, int flags)
{
        int r = length < PATH_MAX ? open_one(root, path, flags, 0, 0)
                                  : open_in_steps(root, path, length, flags, 0, 0);

        return r == -ENOSYS || r == -EPERM ? open_each(root, path, flags) : r;
}
