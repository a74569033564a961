/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why an operation failed, where the server only said that it did: what is there now is looked at.
 * OpenSSH says FAILURE for every errno but a handful (sftp-server.c, errno_to_portable).
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "transport/sftp/private.h"

/* What is seen of one path. */
struct seen {
        bool is_there, is_dir;
};

static struct seen look(struct sftp *s, struct call *c, const char *path)
{
        struct sftp_op op = {.type = SFTP_LSTAT, .path = path};

        if (!path || sftp_run(s, c, &op, 1) < 0 || op.error < 0)
                return (struct seen){0};
        return (struct seen){.is_there = true, .is_dir = S_ISDIR(op.st.st_mode)};
}

/* Whether a directory has an entry. */
static bool has_entries(struct sftp *s, struct call *c, const char *path)
{
        struct sftp_op open = {.type = SFTP_OPENDIR, .path = path};
        bool has_any = false;
        int r = sftp_run(s, c, &open, 1);

        if (r < 0 || open.error < 0)
                return false;
        while (r == 0 && !has_any) {
                struct sftp_op read = {.type = SFTP_READDIR, .handle = open.handle};
                struct sftp_name name;
                size_t cursor = 0;

                r = sftp_run(s, c, &read, 1);
                if (r < 0 || read.error < 0 || !read.names)
                        break;
                has_any = sftp_names_next(read.names, &cursor, &name);
                sftp_names_free(read.names);
        }
        sftp_close_later(s, &open.handle);
        return has_any;
}

/* Whether nothing more fits on the file system of `path`, or of the directory it is in. */
static bool is_full(struct sftp *s, struct call *c, const char *path)
{
        char parent[WIRE_PATH_MAX + 1];
        const char *slash;
        struct sftp_op op = {.type = SFTP_STATVFS, .path = parent};

        if (!path || !(sftp_features(s) & SFTP_CAN_STATVFS))
                return false;
        slash = strrchr(path, '/');
        (void)snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - path) : 0,
                       path); /* longer ones were refused */
        if (slash == path)
                (void)snprintf(parent, sizeof(parent), "/"); /* fits */
        if (sftp_run(s, c, &op, 1) < 0 || op.error < 0)
                return false;
        return (op.vfs.f_blocks > 0 && op.vfs.f_bavail == 0) ||
               (op.vfs.f_files > 0 && op.vfs.f_favail == 0);
}

/* What was to be made at `path` is there already, or couldn't be. */
static int explain_new(struct sftp *s, struct call *c, const struct sftp_op *op, const char *path)
{
        if (look(s, c, path).is_there)
                return -EEXIST;
        return is_full(s, c, path) ? -ENOSPC : op->error;
}

static int explain_open(struct sftp *s, struct call *c, const struct sftp_op *op)
{
        struct seen seen = look(s, c, op->path);

        if (seen.is_there && (op->flags & SFTP_EXCLUSIVE))
                return -EEXIST;
        if (seen.is_dir)
                return -EISDIR;
        return (op->flags & SFTP_CREATE) && is_full(s, c, op->path) ? -ENOSPC : op->error;
}

static int explain_rmdir(struct sftp *s, struct call *c, const struct sftp_op *op)
{
        struct seen seen = look(s, c, op->path);

        if (seen.is_there && !seen.is_dir)
                return -ENOTDIR;
        return seen.is_dir && has_entries(s, c, op->path) ? -ENOTEMPTY : op->error;
}

static int explain_rename(struct sftp *s, struct call *c, const struct sftp_op *op)
{
        struct seen from = look(s, c, op->path);
        struct seen to = look(s, c, op->to);

        if (!from.is_there)
                return -ENOENT;
        if (to.is_there && op->type == SFTP_RENAME)
                return -EEXIST;
        if (from.is_dir && to.is_there && !to.is_dir)
                return -ENOTDIR;
        if (!from.is_dir && to.is_dir)
                return -EISDIR;
        if (to.is_dir && has_entries(s, c, op->to))
                return -ENOTEMPTY;
        return is_full(s, c, op->to) ? -ENOSPC : op->error;
}

int sftp_explain(struct sftp *s, struct call *c, const struct sftp_op *op)
{
        struct call quiet;
        int r = op->error;

        if (op->error != -EIO || op->status != WIRE_FAILURE)
                return op->error;
        call_init(&quiet, c->deadline_ns); /* what fails here is passed over */
        switch (op->type) {
        case SFTP_OPEN: r = explain_open(s, &quiet, op); break;
        case SFTP_MKDIR:
        case SFTP_SYMLINK: r = explain_new(s, &quiet, op, op->path); break;
        case SFTP_HARDLINK: r = explain_new(s, &quiet, op, op->to); break;
        case SFTP_RMDIR: r = explain_rmdir(s, &quiet, op); break;
        case SFTP_UNLINK: r = look(s, &quiet, op->path).is_dir ? -EISDIR : r; break;
        case SFTP_OPENDIR: {
                struct seen seen = look(s, &quiet, op->path);

                r = seen.is_there && !seen.is_dir ? -ENOTDIR : r;
                break;
        }
        case SFTP_RENAME:
        case SFTP_POSIX_RENAME: r = explain_rename(s, &quiet, op); break;
        case SFTP_CLOSE:
        case SFTP_READ:
        case SFTP_WRITE:
        case SFTP_LSTAT:
        case SFTP_STAT:
        case SFTP_FSTAT:
        case SFTP_SETSTAT:
        case SFTP_LSETSTAT:
        case SFTP_FSETSTAT:
        case SFTP_READDIR:
        case SFTP_REALPATH:
        case SFTP_READLINK:
        case SFTP_FSYNC:
        case SFTP_STATVFS:
        case SFTP_COPY_DATA: break;
        }
        return r;
}
