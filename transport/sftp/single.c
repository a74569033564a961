/* SPDX-License-Identifier: Apache-2.0 */
/* One operation at a time, waited for, its error explained. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "transport/sftp/batch.h"

static int run_one(struct sftp *s, struct call *c, struct sftp_op *op)
{
        int r = sftp_run(s, c, op, 1);

        if (r < 0)
                return r;
        return op->error == -EIO ? sftp_explain(s, c, op) : op->error;
}

int sftp_open(struct sftp *s, struct call *c, const char *path, unsigned flags, mode_t mode,
              struct sftp_handle *ret)
{
        struct sftp_op op = {
                .type = SFTP_OPEN,
                .path = path,
                .flags = flags,
                .set = {.what = flags & SFTP_CREATE ? SFTP_SET_MODE : 0, .mode = mode},
        };
        int r = run_one(s, c, &op);

        if (r == 0)
                *ret = op.handle;
        return r;
}

int sftp_mkdir(struct sftp *s, struct call *c, const char *path, mode_t mode)
{
        struct sftp_op op = {
                .type = SFTP_MKDIR, .path = path, .set = {.what = SFTP_SET_MODE, .mode = mode}};

        return run_one(s, c, &op);
}

int sftp_rmdir(struct sftp *s, struct call *c, const char *path)
{
        struct sftp_op op = {.type = SFTP_RMDIR, .path = path};

        return run_one(s, c, &op);
}

int sftp_unlink(struct sftp *s, struct call *c, const char *path)
{
        struct sftp_op op = {.type = SFTP_UNLINK, .path = path};

        return run_one(s, c, &op);
}

/* A plain rename refuses to replace; what is in the way goes first. */
static int replace(struct sftp *s, struct call *c, const char *path, const char *to)
{
        struct sftp_op stats[2] = {
                {.type = SFTP_LSTAT, .path = path},
                {.type = SFTP_LSTAT, .path = to},
        };
        struct sftp_op again = {.type = SFTP_RENAME, .path = path, .to = to};
        int r = sftp_run(s, c, stats, 2);

        if (r < 0)
                return r;
        if (stats[0].error < 0)
                return stats[0].error;
        if (S_ISDIR(stats[0].st.st_mode) && !S_ISDIR(stats[1].st.st_mode))
                return -ENOTDIR;
        if (!S_ISDIR(stats[0].st.st_mode) && S_ISDIR(stats[1].st.st_mode))
                return -EISDIR;
        r = S_ISDIR(stats[1].st.st_mode) ? sftp_rmdir(s, c, to) : sftp_unlink(s, c, to);
        return r < 0 ? r : run_one(s, c, &again);
}

int sftp_rename(struct sftp *s, struct call *c, const char *path, const char *to, bool may_replace)
{
        bool is_one_step = may_replace && (sftp_features(s) & SFTP_CAN_POSIX_RENAME);
        struct sftp_op op = {
                .type = is_one_step ? SFTP_POSIX_RENAME : SFTP_RENAME, .path = path, .to = to};
        int r = run_one(s, c, &op);

        return r == -EEXIST && may_replace && !is_one_step ? replace(s, c, path, to) : r;
}

int sftp_hardlink(struct sftp *s, struct call *c, const char *path, const char *to)
{
        struct sftp_op op = {.type = SFTP_HARDLINK, .path = path, .to = to};

        return run_one(s, c, &op);
}

int sftp_symlink(struct sftp *s, struct call *c, const char *path, const char *text)
{
        struct sftp_op op = {.type = SFTP_SYMLINK, .path = path, .to = text};

        return run_one(s, c, &op);
}

/* READLINK and REALPATH. */
static int read_text(struct sftp *s, struct call *c, enum sftp_type type, const char *path,
                     char *ret, size_t size)
{
        struct sftp_op op = {
                .type = type,
                .path = path,
                .buffer = ret,
                .size = (uint32_t)(size < UINT32_MAX ? size : UINT32_MAX),
        };

        return run_one(s, c, &op);
}

int sftp_readlink(struct sftp *s, struct call *c, const char *path, char *ret, size_t size)
{
        return read_text(s, c, SFTP_READLINK, path, ret, size);
}

int sftp_realpath(struct sftp *s, struct call *c, const char *path, char *ret, size_t size)
{
        return read_text(s, c, SFTP_REALPATH, path, ret, size);
}

int sftp_setstat(struct sftp *s, struct call *c, const char *path, const struct sftp_set *set)
{
        struct sftp_op op = {.type = SFTP_SETSTAT, .path = path, .set = *set};

        return run_one(s, c, &op);
}

int sftp_fsync(struct sftp *s, struct call *c, const struct sftp_handle *handle)
{
        struct sftp_op op = {.type = SFTP_FSYNC, .handle = *handle};

        return run_one(s, c, &op);
}

int sftp_statvfs(struct sftp *s, struct call *c, const char *path, struct statvfs *ret)
{
        struct sftp_op op = {.type = SFTP_STATVFS, .path = path};
        int r = run_one(s, c, &op);

        if (r == 0)
                *ret = op.vfs;
        return r;
}
