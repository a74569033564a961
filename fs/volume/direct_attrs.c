/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes and links. Both are changed through descriptors only: an O_PATH one stands for the
 * file whatever is done to its name meanwhile.
 *
 * Set-uid and set-gid bits are kept as given, since tools that copy modes look. They are harmless:
 * the file belongs to the sandbox's user, who can set them without us, and this mount is nosuid.
 */

#include "fs/volume/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "fs/volume/anchor.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define MOVES_MAX 20 /* in a row, each before the last has settled: the link can't be told */

/* ---- getattr ---- */

static void fill_attrs(struct direct *d, uint64_t node, const struct stat *st, uint64_t epoch,
                       struct vol_entry *ret)
{
        direct_fill(d, &(struct node_id){.number = node}, st, epoch, ret);
}

/* A directory that was removed, but is open. */
static int stat_removed(struct direct *d, uint64_t node, struct stat *st)
{
        struct vol_file *f = direct_dir_of(d, node);
        int r;

        if (!f)
                return -ESTALE;
        r = fstat(f->fd, st) < 0 ? -errno : 0;
        direct_file_put(d, f);
        return r;
}

static int stat_by_path(struct direct *d, const struct vol_op *op, uint64_t node, struct stat *st)
{
        struct node_path path;
        _cleanup_(closep) int fd = direct_open_file(d, op, node, O_PATH, st, &path);

        if (fd == -ENOENT || fd == -ESTALE)
                return stat_removed(d, node, st) == 0 ? 0 : fd;
        if (fd < 0)
                return fd;
        direct_fix_link_size(d, fd, "", path.depth - 1, st);
        return 0;
}

int direct_getattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   struct vol_entry *ret)
{
        struct direct *d = direct_of(v);
        uint64_t epoch = volume_epoch(v);
        struct vol_file *held = NULL;
        struct stat st;
        int r = direct_check(d);

        if (r < 0)
                return file ? -ESTALE : r;
        if (!file)
                file = held = direct_file_of(d, node);
        if (file) {
                r = fstat(file->fd, &st) < 0 ? -errno : 0;
        } else {
                r = stat_by_path(d, op, node, &st);
        }
        if (held)
                direct_file_put(d, held);
        if (r == 0)
                fill_attrs(d, node, &st, epoch, ret);
        return r;
}

/* ---- setattr ---- */

/* What stands for the file that is changed. */
struct target {
        int fd;
        bool is_path; /* O_PATH: only some calls take it */
};

static int set_mode(const struct target *t, mode_t mode)
{
        char path[64];

        if (!t->is_path)
                return fchmod(t->fd, mode) < 0 ? -errno : 0;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", t->fd); /* fits any number */
        return chmod(path, mode) < 0 ? -errno : 0;
}

static int set_times(const struct target *t, unsigned what, const struct stat *to)
{
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

        if (what & VOL_SET_ATIME)
                times[0] = to->st_atim;
        if (what & VOL_SET_ATIME_NOW)
                times[0].tv_nsec = UTIME_NOW;
        if (what & VOL_SET_MTIME)
                times[1] = to->st_mtim;
        if (what & VOL_SET_MTIME_NOW)
                times[1].tv_nsec = UTIME_NOW;
        if (t->is_path)
                return utimensat(t->fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
        return futimens(t->fd, times) < 0 ? -errno : 0;
}

/* Times last: the others would change them. */
static int set_on(const struct target *t, unsigned what, const struct stat *to)
{
        int r = 0;

        if (what & VOL_SET_SIZE)
                r = ftruncate(t->fd, to->st_size) < 0 ? -errno : 0;
        if (r == 0 && (what & VOL_SET_MODE))
                r = set_mode(t, to->st_mode & 07777);
        if (r == 0 &&
            (what & (VOL_SET_ATIME | VOL_SET_MTIME | VOL_SET_ATIME_NOW | VOL_SET_MTIME_NOW)))
                r = set_times(t, what, to);
        return r;
}

static int set_by_path(struct direct *d, const struct vol_op *op, uint64_t node, unsigned what,
                       const struct stat *to, struct stat *ret_st)
{
        struct target t = {.is_path = (what & VOL_SET_SIZE) == 0};
        int flags = t.is_path ? O_PATH : O_WRONLY | O_NONBLOCK | O_NOCTTY;
        struct node_path path;
        int r;

        t.fd = direct_open_file(d, op, node, flags, ret_st, &path);
        if (t.fd < 0)
                return t.fd;
        if (!t.is_path && !S_ISREG(ret_st->st_mode))
                r = -EINVAL; /* a FIFO has no size */
        else if ((what & VOL_SET_MODE) && S_ISLNK(ret_st->st_mode))
                r = -EOPNOTSUPP;
        else
                r = set_on(&t, what, to);
        if (r == 0 && fstat(t.fd, ret_st) < 0)
                r = -errno;
        if (r == 0)
                direct_fix_link_size(d, t.fd, "", path.depth - 1, ret_st);
        closep(&t.fd);
        return r;
}

static int set_by_handle(struct vol_file *f, unsigned what, const struct stat *to,
                         struct stat *ret_st)
{
        struct target t = {.fd = f->fd};
        int r = set_on(&t, what, to);

        if (r == 0 && fstat(f->fd, ret_st) < 0)
                r = -errno;
        return r;
}

int direct_setattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   unsigned what, const struct stat *to, struct vol_entry *ret)
{
        struct direct *d = direct_of(v);
        uint64_t epoch = volume_epoch(v);
        struct vol_file *held = NULL;
        struct stat st;
        int r = direct_check_change(d);

        if (r < 0)
                return file && r == -ENODEV ? -ESTALE : r;
        /* Some other handle may be read-only, which truncate can't use. */
        if (!file && (what & VOL_SET_SIZE) == 0)
                file = held = direct_file_of(d, node);
        if (file)
                r = set_by_handle(file, what, to, &st);
        else
                r = set_by_path(d, op, node, what, to, &st);
        if (held)
                direct_file_put(d, held);
        if (r == 0)
                fill_attrs(d, node, &st, epoch, ret);
        return r;
}

/* ---- links ---- */

static int read_link(struct direct *d, uint64_t node, char *text, size_t size, unsigned *ret_depth)
{
        struct node_path path;
        struct stat st;
        _cleanup_(closep) int fd = direct_open_node(d, node, O_PATH, &st, &path);
        ssize_t length;

        if (fd < 0)
                return fd;
        if (!S_ISLNK(st.st_mode))
                return -EINVAL;
        length = readlinkat(fd, "", text, size - 1);
        if (length < 0)
                return -errno;
        text[length] = '\0';
        *ret_depth = path.depth - 1;
        return 0;
}

/*
 * See that the kernel has carried out the latest rename to another depth (climbs.h). 0: it has now,
 * look again; -EINPROGRESS: this thread may not wait for it.
 */
static int settle(struct direct *d, const struct vol_op *op, uint64_t from, uint64_t move)
{
        if (!op->may_wait)
                return -EINPROGRESS;
        /* Takes the directory's lock in the kernel, which the rename holds; no such name exists. */
        d->events.inval_entry(d->events.ctx, from, "/");
        climbs_settled(&d->climbs, move);
        return 0;
}

/* One try: a length or 1; 0 when it has to be made again. */
static int try_readlink(struct direct *d, const struct vol_op *op, uint64_t node, char *target,
                        size_t size)
{
        char text[PATH_MAX];
        unsigned depth = 0, ups = 0;
        uint64_t from, move;
        int r;

        climbs_begin(&d->climbs, op->tid, clock_mono_ns());
        r = read_link(d, node, text, sizeof(text), &depth);
        if (r == 0)
                r = anchor_target(text, depth, d->inside, target, size, &ups);
        if (r >= 0 && ups > 0 && !climbs_unsettled(&d->climbs, &from, &move))
                return 1;
        climbs_end(&d->climbs, op->tid); /* a rename may wait for it */
        if (r >= 0 && ups > 0)
                r = settle(d, op, from, move);
        return r;
}

static int readlink_raw(struct direct *d, uint64_t node, char *target, size_t size)
{
        char text[PATH_MAX];
        unsigned depth;
        int r = read_link(d, node, text, sizeof(text), &depth);

        if (r < 0)
                return r;
        if (strlen(text) >= size)
                return -ENAMETOOLONG;
        memcpy(target, text, strlen(text) + 1);
        return 0;
}

int direct_readlink(struct volume *v, struct vol_op *op, uint64_t node, char *target, size_t size)
{
        struct direct *d = direct_of(v);
        int r = direct_check(d);

        if (r == 0 && d->config.has_raw_symlinks)
                return readlink_raw(d, node, target, size);
        for (int i = 0; r == 0 && i < MOVES_MAX; i++)
                r = try_readlink(d, op, node, target, size);
        if (r == 0)
                return -ESTALE;
        return r < 0 ? r : 0;
}

/* ---- the file system ---- */

int direct_statfs(struct volume *v, struct vol_op *op, struct statvfs *ret)
{
        struct direct *d = direct_of(v);
        int r = direct_check(d);

        (void)op; /* a local disk doesn't count as waiting */
        if (r < 0)
                return r;
        return fstatvfs(d->root, ret) < 0 ? -errno : 0;
}
