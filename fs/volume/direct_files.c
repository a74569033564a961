/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files. Every one was opened O_NONBLOCK and is a regular file: neither a FIFO nor a device
 * can hold us up.
 */

#include "fs/volume/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "transport/base/beneath.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define FRESH_NS (50 * NS_PER_MS) /* a later change could still carry the same times */

/* ---- handles ---- */

static struct vol_file *open_of(struct direct *d, uint64_t number, bool is_dir)
{
        struct node_open *o = nodes_any_open(&d->nodes, number);
        struct vol_file *f = (struct vol_file *)(void *)o; /* its head */

        if (f && f->is_dir != is_dir) {
                direct_file_put(d, f);
                f = NULL;
        }
        return f;
}

struct vol_file *direct_file_of(struct direct *d, uint64_t number)
{
        return open_of(d, number, false);
}

struct vol_file *direct_dir_of(struct direct *d, uint64_t number)
{
        return open_of(d, number, true);
}

void direct_file_put(struct direct *d, struct vol_file *f)
{
        if (!nodes_unref(&d->nodes, &f->open))
                return;
        (void)close(f->fd); /* fsync is where errors are asked for */
        if (f->is_dir)
                direct_dir_free(f);
        else
                free(f);
}

int direct_file_new(struct direct *d, uint64_t number, int fd, int flags, struct vol_file **ret)
{
        struct vol_file *f = NULL;
        int r = fd >= d->fd_limit ? -EMFILE : -ENOMEM;

        if (fd < d->fd_limit)
                f = calloc(1, sizeof(*f));
        if (!f) {
                (void)close(fd); /* nothing was written */
                return r;
        }
        f->fd = fd;
        f->is_append = (flags & O_APPEND) != 0;
        nodes_open(&d->nodes, number, &f->open);
        *ret = f;
        return 0;
}

void direct_release(struct volume *v, struct vol_file *f)
{
        direct_file_put(direct_of(v), f);
}

/* ---- pages that the kernel holds ---- */

/* A number for (mtime, ctime, size, epoch); 0: changes could go unseen. */
static uint64_t stamp_of(const struct direct *d, const struct stat *st, uint64_t epoch)
{
        uint64_t changed_ns = clock_from_timespec(st->st_ctim);
        uint64_t h = direct_stamp(d, st) + epoch;

        if (changed_ns + FRESH_NS > clock_real_ns() || st->st_nlink > 1)
                return 0;
        return h ? h : 1;
}

/*
 * Times alone don't tell: a process inside that has the file mapped changes it without a trace.
 * Hence only while nobody inside can, and nobody could since the pages were read: every command's
 * end begins another epoch.
 */
bool direct_keeps_cache(struct direct *d, uint64_t number, const struct stat *st, uint64_t epoch)
{
        bool is_quiet = d->events.is_quiet && d->events.is_quiet(d->events.ctx);
        uint64_t stamp = is_quiet ? stamp_of(d, st, epoch) : 0;

        return nodes_same_pages(&d->nodes, number, stamp) && volume_epoch(&d->v) == epoch;
}

/* ---- open ---- */

/*
 * O_DIRECT is the kernel's business with us, not ours with the disk; O_NOATIME may be refused;
 * O_APPEND is a matter of each write.
 */
static int safe_flags(int flags)
{
        return (flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC)) | O_NONBLOCK | O_NOCTTY;
}

/* What an open has found. */
struct opening {
        int fd;
        int flags;
        struct stat st;
        uint64_t epoch;
};

/*
 * What the kernel was told of this node may be of a file that was replaced since: the file system
 * gives a freed inode number to the next one. Its size with these bytes would be neither.
 */
static void take_back_others(struct direct *d, uint64_t node, const struct stat *st)
{
        if (nodes_told_others(&d->nodes, node, direct_stamp(d, st)))
                d->events.inval_node(d->events.ctx, node, true);
}

/* Takes over x->fd. */
static int answer_open(struct direct *d, uint64_t node, const struct opening *x,
                       struct vol_opened *ret)
{
        struct vol_file *f;
        int r = direct_file_new(d, node, x->fd, x->flags, &f);

        if (r < 0)
                return r;
        take_back_others(d, node, &x->st);
        ret->file = f;
        ret->keep_cache = direct_keeps_cache(d, node, &x->st, x->epoch);
        ret->backing_fd = x->fd;
        return 0;
}

static bool wants_change(int flags)
{
        return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
}

/* A file that was removed through the mount, but is open: /proc/PID/fd leads here. */
static int reopen(struct direct *d, uint64_t node, int flags, struct stat *ret_st)
{
        struct vol_file *f = direct_file_of(d, node);
        char path[64];
        int fd;

        if (!f)
                return -ESTALE;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd); /* fits any number */
        fd = open(path, safe_flags(flags) | O_CLOEXEC);
        if (fd < 0 || fstat(fd, ret_st) < 0) {
                closep(&fd);
                fd = -ESTALE;
        }
        direct_file_put(d, f);
        return fd;
}

int direct_open(struct volume *v, struct vol_op *op, uint64_t node, int flags,
                struct vol_opened *ret)
{
        struct direct *d = direct_of(v);
        struct opening x = {.flags = flags, .epoch = volume_epoch(v)};
        struct node_path path;
        int r = wants_change(flags) ? direct_check_change(d) : direct_check(d);

        climbs_end(&d->climbs, op->tid);
        if (r < 0)
                return r;
        x.fd = direct_open_file(d, op, node, safe_flags(flags), &x.st, &path);
        if (x.fd == -ENXIO)
                x.fd = -ESTALE; /* a FIFO without readers, or a socket, was put there */
        if (x.fd == -ESTALE && !nodes_has_path(&d->nodes, node))
                x.fd = reopen(d, node, flags, &x.st);
        if (x.fd < 0)
                return x.fd;
        if (!S_ISREG(x.st.st_mode)) {
                (void)close(x.fd); /* nothing was done with it */
                return -EOPNOTSUPP;
        }
        return answer_open(d, node, &x, ret);
}

/* ---- create ---- */

struct creation {
        const struct node_path *path;
        int flags;
        mode_t mode;
};

static int create_once(struct direct *d, const struct creation *c, int flags, mode_t mode)
{
        return beneath_open(d->root, c->path->text, c->path->length, flags, mode);
}

/* As root, without set-uid bits while it is root's. */
static int create_and_give(struct direct *d, const struct creation *c)
{
        int fd = create_once(d, c, c->flags | O_CREAT | O_EXCL, c->mode & ~(mode_t)06000);
        int r;

        if (fd == -EEXIST && (c->flags & O_EXCL) == 0)
                return create_once(d, c, c->flags, 0);
        if (fd < 0)
                return fd;
        r = creds_give(&d->creds, fd);
        if (r == 0 && (c->mode & 06000) != 0)
                r = fchmod(fd, c->mode) < 0 ? -errno : 0;
        if (r < 0) {
                (void)close(fd); /* it is empty */
                return r;
        }
        return fd;
}

static int create_as_owner(struct direct *d, const struct creation *c)
{
        int fd;

        if (d->creds.how == CREDS_CHOWN)
                return create_and_give(d, c);
        creds_enter(&d->creds);
        fd = create_once(d, c, c->flags | O_CREAT, c->mode);
        creds_leave(&d->creds);
        if (fd < 0 && creds_may_retry(&d->creds, -fd))
                fd = create_and_give(d, c);
        return fd;
}

/*
 * The kernel asked because it knows of nothing at that name: anything but a regular file there is
 * news to it.
 */
static int open_created(struct direct *d, const struct creation *c, struct stat *ret_st)
{
        int fd = create_as_owner(d, c);

        if (fd == -ENXIO || fd == -EISDIR)
                return -ESTALE;
        if (fd < 0)
                return fd;
        if (fstat(fd, ret_st) < 0 || !S_ISREG(ret_st->st_mode)) {
                (void)close(fd); /* nothing was done with it */
                return -ESTALE;
        }
        return fd;
}

int direct_create(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  mode_t mode, int flags, struct vol_entry *ret, struct vol_opened *ret_opened)
{
        struct direct *d = direct_of(v);
        struct opening x = {.flags = flags, .epoch = volume_epoch(v)};
        struct node_path path;
        struct creation c = {.path = &path,
                             .flags = safe_flags(flags) | (flags & O_EXCL),
                             .mode = mode & 07777 & ~op->umask};
        struct node_id id;
        int r = direct_check_change(d);

        climbs_end(&d->climbs, op->tid);
        if (r == 0)
                r = direct_check_name(name);
        if (r < 0)
                return r;
        r = nodes_path(&d->nodes, parent, name, &path);
        x.fd = r < 0 ? r : open_created(d, &c, &x.st);
        node_path_done(&path);
        if (x.fd < 0)
                return x.fd;
        if ((flags & O_EXCL) != 0)
                r = nodes_make(&d->nodes, parent, name, &x.st, &id);
        else
                r = nodes_meet(&d->nodes, parent, name, &x.st, &id);
        if (r < 0) {
                (void)close(x.fd); /* it is empty, or was there before */
                return r;
        }
        r = answer_open(d, id.number, &x, ret_opened);
        if (r < 0)
                nodes_forget(&d->nodes, id.number, 1);
        else
                direct_fill(d, &id, &x.st, x.epoch, ret);
        return r;
}

/* ---- data ---- */

/* -ESTALE for the open files of a sandbox that is gone. */
static int check_handle(struct direct *d)
{
        return direct_check(d) < 0 ? -ESTALE : 0;
}

ssize_t direct_read(struct volume *v, struct vol_op *op, struct vol_file *f, void *data,
                    size_t size, uint64_t offset)
{
        struct direct *d = direct_of(v);
        size_t done = 0;
        ssize_t n = check_handle(d);

        (void)op; /* as in open */
        if (n < 0)
                return n;
        nodes_keep(&d->nodes, f->open.node);
        while (done < size) {
                n = pread(f->fd, (char *)data + done, size - done, (off_t)(offset + done));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        break;
                done += (size_t)n;
        }
        return n < 0 && done == 0 ? -errno : (ssize_t)done;
}

/* The end of the file is where it is now, whoever has appended: the kernel's is older. */
static ssize_t write_once(const struct vol_file *f, const void *data, size_t size, uint64_t offset,
                          bool to_end)
{
        struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};

        if (to_end)
                return pwritev2(f->fd, &part, 1, 0, RWF_APPEND);
        return pwrite(f->fd, data, size, (off_t)offset);
}

ssize_t direct_write(struct volume *v, struct vol_op *op, struct vol_file *f, const void *data,
                     size_t size, uint64_t offset)
{
        struct direct *d = direct_of(v);
        size_t done = 0;
        ssize_t n = check_handle(d);

        if (n < 0)
                return n;
        nodes_keep(&d->nodes, f->open.node);
        while (done < size) {
                n = write_once(f, (const char *)data + done, size - done, offset + done,
                               f->is_append && !op->is_writeback);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        break;
                done += (size_t)n;
        }
        return n < 0 && done == 0 ? -errno : (ssize_t)done;
}

int direct_flush(struct volume *v, struct vol_op *op, struct vol_file *f)
{
        (void)op;
        (void)f;
        return check_handle(direct_of(v)); /* what was written is in the sandbox already */
}

int direct_fsync(struct volume *v, struct vol_op *op, struct vol_file *f, bool data_only)
{
        int r = check_handle(direct_of(v));

        (void)op; /* as in open */
        if (r < 0)
                return r;
        r = data_only ? fdatasync(f->fd) : fsync(f->fd);
        return r < 0 ? -errno : 0;
}

int direct_fallocate(struct volume *v, struct vol_op *op, struct vol_file *f, int mode,
                     uint64_t offset, uint64_t size)
{
        int r = check_handle(direct_of(v));

        (void)op; /* as in open */
        if (r < 0)
                return r;
        do {
                r = fallocate(f->fd, mode, (off_t)offset, (off_t)size);
        } while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
}

ssize_t direct_copy_range(struct volume *v, struct vol_op *op, struct vol_file *from,
                          uint64_t from_offset, struct vol_file *to, uint64_t to_offset,
                          size_t size)
{
        off_t in = (off_t)from_offset, out = (off_t)to_offset;
        ssize_t n = check_handle(direct_of(v));

        (void)op; /* as in open */
        if (n < 0)
                return n;
        n = copy_file_range(from->fd, &in, to->fd, &out, size, 0);
        if (n < 0 && (errno == ENOSYS || errno == EXDEV))
                return -EOPNOTSUPP; /* the kernel then copies by itself */
        return n < 0 ? -errno : n;
}

int64_t direct_lseek(struct volume *v, struct vol_op *op, struct vol_file *f, int64_t offset,
                     int whence)
{
        off_t at = check_handle(direct_of(v));

        (void)op; /* as in open */
        if (at < 0)
                return at;
        if (whence != SEEK_DATA && whence != SEEK_HOLE)
                return -EINVAL;
        at = lseek(f->fd, offset, whence);
        return at < 0 ? -errno : at;
}
