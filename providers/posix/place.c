/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/posix/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "transport/base/beneath.h"
#include "transport/base/cleanup.h"
#include "transport/base/random.h"

bool place_is_temp(const char *name)
{
        const size_t head = strlen(PLACE_TEMP);

        return strncmp(name, PLACE_TEMP, head) == 0 && strlen(name + head) == RANDOM_ID_SIZE - 1 &&
               strspn(name + head, "abcdefghijklmnopqrstuvwxyz0123456789") == RANDOM_ID_SIZE - 1;
}

int place_open(const struct place *p, const char *path, int flags)
{
        const char *at = path[0] ? path : ".";
        int fd = p->is_inside ? beneath_open_across(p->root, at, strlen(at), flags)
                              : beneath_open(p->root, at, strlen(at), flags, 0);

        return fd == -ESTALE ? -ENOTDIR : fd;
}

int place_open_file(const struct place *p, const char *path, int flags, struct stat *ret)
{
        _cleanup_(closep) int fd = -1;
        struct stat st;

        fd = place_open(p, path, flags | O_NONBLOCK | O_NOCTTY);
        if (fd == -ENXIO || fd == -EISDIR)
                return -EINVAL; /* a socket, a FIFO that nobody reads; a directory, for writing */
        if (fd == -ENOTDIR) { /* or a link in the last place */
                fd = place_open(p, path, O_PATH);
                return fd < 0 ? fd : -EINVAL;
        }
        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EINVAL;
        *ret = st;
        return STEAL_FD(fd);
}

int place_open_parent(const struct place *p, const char *path, const char **ret_name)
{
        const char *slash = strrchr(path, '/');
        _cleanup_(freep) char *parent = strndup(path, slash ? (size_t)(slash - path) : 0);
        int fd;

        if (!path[0])
                return -EINVAL; /* the working directory itself stays where it is */
        fd = parent ? place_open(p, parent, O_PATH | O_DIRECTORY) : -ENOMEM;
        if (fd >= 0)
                *ret_name = slash ? slash + 1 : path;
        return fd;
}

int place_chmod(int fd, mode_t mode)
{
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd); /* fits any number */
        return chmod(path, mode & 07777) < 0 ? -errno : 0;
}
