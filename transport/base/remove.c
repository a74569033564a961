/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing a tree that somebody hostile made, and may still be changing.
 *
 * A directory is only ever reached from its parent's descriptor, by one name, following no link and
 * crossing no mount point; ".." is never used, so that a directory moved away meanwhile can't lead
 * us to where it went. Descriptors and stack are bounded: what lies deeper than DEPTH_MAX is moved
 * up, by one rename, to the top directory, and its turn comes when that is read again. Each deeper
 * part is moved once, so the work is linear in the tree's size.
 */

#include "transport/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/random.h"

#define DEPTH_MAX 32 /* directories open at once */
#define TRIES_MAX 16 /* readings of one directory that somebody keeps filling */
#define AGAIN_MAX 4096 /* further readings in all: else each level multiplies those of the next */
#define SAMPLE 64 /* one entry in so many is asked for its age */
#define NEW_MAX 256 /* samples made since we began, after which whoever fills the tree has won */

struct removal {
        int top; /* descriptor of the tree's first directory */
        dev_t device;
        uint64_t start_ns; /* on the clock that gives files their times */
        uint64_t seen; /* entries */
        uint64_t young; /* samples made since start_ns */
        uint64_t moved; /* directories moved up to the top */
        unsigned again; /* readings after which a directory was not empty, or another thing */
};

static uint64_t file_time_ns(void)
{
        struct timespec t = {0};

        (void)clock_gettime(CLOCK_REALTIME_COARSE, &t); /* always there */
        return clock_from_timespec(t);
}

/* A reading never ends while somebody adds entries as fast as we remove them. */
static bool is_being_filled(struct removal *m, int dir, const char *name)
{
        struct statx st;
        uint64_t born_ns;

        if (++m->seen % SAMPLE != 0 ||
            statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &st) < 0 ||
            !(st.stx_mask & STATX_BTIME))
                return false;
        born_ns = clock_from_timespec((struct timespec){st.stx_btime.tv_sec, st.stx_btime.tv_nsec});
        if (born_ns > m->start_ns &&
            born_ns <= file_time_ns()) /* not in the future: a clock set back */
                m->young++;
        return m->young > NEW_MAX;
}

/* Open one name beneath `dir`: no link, no mount point. */
static int open_beneath(int dir, const char *name, int flags)
{
        struct open_how how = {
                .flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
                           RESOLVE_NO_XDEV,
        };
        long fd;

        do
                fd = syscall(SYS_openat2, dir, name, &how, sizeof(how));
        while (fd < 0 && (errno == EINTR || errno == EAGAIN));
        if (fd < 0 && errno == ENOSYS) /* st_dev is looked at below, too */
                fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? -errno : (int)fd;
}

/* Give a directory that its owner, us, closed to himself its permission bits back. */
static int open_up(int dir, const char *name)
{
        _cleanup_(closep) int fd = open_beneath(dir, name, O_PATH | O_DIRECTORY);
        char path[64];

        if (fd < 0)
                return fd;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd); /* fits */
        return chmod(path, 0700) < 0 ? -errno : 0;
}

/* A directory, for reading and changing. */
static int open_dir(const struct removal *m, int dir, const char *name, int *ret)
{
        _cleanup_(closep) int fd = open_beneath(dir, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
        struct stat st;

        if (fd == -EACCES) {
                int r = open_up(dir, name);

                if (r < 0)
                        return r == -EPERM ? -EACCES : r;
                fd = open_beneath(dir, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
        }
        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_dev != m->device)
                return -EXDEV;
        if ((st.st_mode & 0700) != 0700)
                (void)fchmod(fd, 0700); /* not ours: removing in it says so */
        *ret = STEAL_FD(fd);
        return 0;
}

/* Out of the depth: to the top, under a name that nobody can have foreseen. */
static int move_up(struct removal *m, int dir, const char *name)
{
        char target[RANDOM_ID_SIZE];
        int r = random_id(target);

        if (r < 0)
                return r;
        if (renameat(dir, name, m->top, target) < 0) {
                if (errno != EACCES)
                        return -errno;
                r = open_up(dir, name); /* its ".." changes, for which it must be writable */
                if (r < 0)
                        return r;
                if (renameat(dir, name, m->top, target) < 0)
                        return -errno;
        }
        m->moved++;
        return 0;
}

static int empty_dir(struct removal *m, int fd, unsigned depth);

/* What rmdir says of a name that is no directory (any more). */
static bool is_final(int error)
{
        return error == ENOENT || error == ENOTDIR;
}

static bool is_filled(int error)
{
        return error == ENOTEMPTY || error == EEXIST;
}

/* A directory with all that is in it. One that can't be removed is emptied all the same. */
static int remove_dir(struct removal *m, int dir, const char *name, unsigned depth)
{
        for (unsigned i = 0; i < TRIES_MAX; i++) {
                int error, fd = -1, r;

                if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
                        return 0;
                if (i > 0 && ++m->again > AGAIN_MAX)
                        break;
                error = errno;
                if (is_final(error))
                        return -error;
                if (depth >= DEPTH_MAX)
                        return move_up(m, dir, name);
                r = open_dir(m, dir, name, &fd);
                if (r < 0)
                        return r;
                r = empty_dir(m, fd, depth + 1);
                if (r < 0)
                        return r;
                if (!is_filled(error))
                        return -error;
        }
        return -ENOTEMPTY;
}

/* `is_dir` is what the directory's listing said; it may be wrong by now. */
static int remove_entry(struct removal *m, int dir, const char *name, bool is_dir, unsigned depth)
{
        for (unsigned i = 0; i < TRIES_MAX; i++) {
                int error = EISDIR, r;

                if (i > 0 && ++m->again > AGAIN_MAX)
                        break;
                if (!is_dir) {
                        if (unlinkat(dir, name, 0) == 0)
                                return 0;
                        error = errno;
                }
                r = remove_dir(m, dir, name, depth);
                if (r != -ENOTDIR && r != -ELOOP)
                        return r;
                if (error != EISDIR)
                        return -error;
                is_dir = false;
        }
        return -EAGAIN;
}

/*
 * Remove what one reading of the directory shows; takes `fd`.
 * Negative when the directory can't be emptied.
 */
static int empty_dir(struct removal *m, int fd, unsigned depth)
{
        _cleanup_(closedirp) DIR *dir = fdopendir(fd);
        const struct dirent *entry;
        int first = 0;

        if (!dir) {
                first = -errno;
                closep(&fd);
                return first;
        }
        rewinddir(dir); /* the top is read more than once */
        for (errno = 0; (entry = readdir(dir)); errno = 0) {
                int r;

                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                if (is_being_filled(m, fd, entry->d_name))
                        return -ENOTEMPTY;
                r = remove_entry(m, fd, entry->d_name, entry->d_type == DT_DIR, depth);
                if (r < 0 && r != -ENOENT && first == 0)
                        first = r;
        }
        return first < 0 ? first : -errno;
}

/* The top directory, without following a link; its file system is the one to stay on. */
static int open_top(struct removal *m, int dir, const char *name)
{
        _cleanup_(closep) int fd = open_beneath(dir, name, O_PATH | O_DIRECTORY);
        struct stat st;

        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        m->device = st.st_dev;
        return open_dir(m, dir, name, &m->top);
}

/* One reading of the top directory. */
static int empty_top(struct removal *m, int dir, const char *name)
{
        int fd, r = open_top(m, dir, name);

        if (r < 0)
                return r;
        fd = fcntl(m->top, F_DUPFD_CLOEXEC, 0);
        r = fd < 0 ? -errno : empty_dir(m, fd, 1);
        closep(&m->top);
        return r;
}

/* Read the top again while things are moved up to it; otherwise only a few times. */
static int remove_top(struct removal *m, int dir, const char *name)
{
        unsigned tries = 0;
        int r = -ENOTEMPTY;

        while (tries < TRIES_MAX) {
                uint64_t before = m->moved;
                int error;

                if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
                        return 0;
                error = errno;
                if (is_final(error))
                        return -error;
                r = empty_top(m, dir, name);
                if (m->moved > before)
                        continue;
                if (r < 0)
                        return r;
                if (!is_filled(error))
                        return -error;
                tries++;
        }
        return r < 0 ? r : -ENOTEMPTY;
}

/*
 * The directory in which the last component of `path` stands, as a descriptor to close. The way
 * there is ours.
 */
static int open_parent(int dir, const char *path, int *ret_fd, const char **ret_name)
{
        const char *slash = strrchr(path, '/');
        char parent[PATH_MAX] = ".";
        size_t size = slash ? (size_t)(slash - path) + 1 : 0;
        int fd;

        if (size >= sizeof(parent))
                return -ENAMETOOLONG;
        if (size > 0) {
                memcpy(parent, path, size);
                parent[size] = '\0';
        }
        fd = openat(dir, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        *ret_name = path + size;
        return 0;
}

int file_remove_tree(int dir, const char *name)
{
        _cleanup_(closep) int parent = -1;
        struct removal m = {.top = -1, .start_ns = file_time_ns()};
        int error, r;

        if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
                return 0;
        error = errno;
        r = open_parent(dir, name, &parent, &name);
        if (r < 0)
                return r;
        if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return -EINVAL;
        r = remove_top(&m, parent, name);
        if (r == -ENOTDIR || r == -ELOOP)
                return -error; /* a file that we may not remove */
        return r == -ENOENT ? 0 : r;
}
