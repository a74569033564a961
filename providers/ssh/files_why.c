/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a change failed. SFTP has a handful of words: OpenSSH says "no such file" also for ENOTDIR,
 * "bad message" for EINVAL and ENAMETOOLONG, and "failure" for all but a few (sftp-server.c,
 * errno_to_portable). So what stands at the paths is looked at, all in one round trip, after the
 * fact: it may have changed since; then the server's own word stands.
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/files.h"
#include "transport/base/cleanup.h"

#define LEVELS_MAX 64 /* directories above that are looked at */

/* What was seen of a path. */
struct way {
        struct stat st; /* st_mode 0: not there */
        int error; /* -ENOENT, -ENOTDIR: of the way to it; -ENAMETOOLONG; 0 */
};

static bool is_too_long(const char *path)
{
        if (strlen(path) >= PATH_MAX)
                return true;
        while (true) {
                size_t n = strcspn(path, "/");

                if (n > NAME_MAX)
                        return true;
                if (!path[n])
                        return false;
                path += n + 1;
        }
}

/* Requests for a path and for each directory above it up to fs/, the deepest first. */
static size_t ask(const struct spot *s, const char *path, struct sftp_op *ops)
{
        char *at = ssh_spot_path(s, path);
        size_t n = 0, floor = strlen(s->paths->work);

        while (at && n < LEVELS_MAX) {
                char *slash = strrchr(at, '/');

                ops[n] = (struct sftp_op){.type = n == 0 ? SFTP_LSTAT : SFTP_STAT, .path = at};
                n++;
                if (!slash || strlen(at) <= floor)
                        break;
                at = strndup(at, (size_t)(slash - at));
        }
        return n;
}

static struct way judge(const char *path, const struct sftp_op *ops, size_t count)
{
        struct way w = {0};

        if (count > 0 && ops[0].error == 0)
                w.st = ops[0].st;
        if (is_too_long(path))
                w.error = -ENAMETOOLONG;
        for (size_t i = count; w.error == 0 && i-- > 1;) {
                if (ops[i].error == -ENOENT)
                        w.error = -ENOENT;
                else if (ops[i].error == 0 && !S_ISDIR(ops[i].st.st_mode))
                        w.error = -ENOTDIR;
        }
        return w;
}

/* Look at both paths; `to` may be NULL. False: it couldn't be looked at. */
static bool look(const struct spot *s, struct call *c, const char *path, const char *to,
                 struct way *ret_path, struct way *ret_to)
{
        struct sftp_op ops[2 * LEVELS_MAX] = {0};
        struct call quiet;
        size_t n, m = 0;
        int r;

        n = ask(s, path, ops);
        if (to)
                m = ask(s, to, ops + n);
        call_init(&quiet, c->deadline_ns); /* what fails here is passed over */
        r = sftp_run(s->sftp, &quiet, ops, n + m);
        if (r == 0) {
                *ret_path = judge(path, ops, n);
                if (to)
                        *ret_to = judge(to, ops + n, m);
        }
        for (size_t i = 0; i < n + m; i++)
                free((char *)(uintptr_t)ops[i].path); /* ask's */
        return r == 0;
}

int why_path(const struct spot *s, struct call *c, const char *path, int error)
{
        struct way at;

        if (error == -EACCES || !look(s, c, path, NULL, &at, NULL) || at.error == 0)
                return error;
        return at.error;
}

int why_listing(const struct spot *s, struct call *c, const char *path, int error)
{
        struct way at;

        if (!look(s, c, path, NULL, &at, NULL))
                return error;
        if (at.error != 0)
                return at.error;
        return at.st.st_mode != 0 && !S_ISDIR(at.st.st_mode) ? -ENOTDIR : error;
}

/* ---- changes ---- */

static bool is_there(const struct way *w)
{
        return w->st.st_mode != 0;
}

static bool is_dir(const struct way *w)
{
        return S_ISDIR(w->st.st_mode);
}

static int why_full(const struct spot *s, struct call *c, int error)
{
        struct sftp_op op = {.type = SFTP_STATVFS, .path = s->paths->work};
        struct call quiet;

        call_init(&quiet, c->deadline_ns); /* what fails here is passed over */
        if (error != -EIO || (sftp_features(s->sftp) & SFTP_CAN_STATVFS) == 0 ||
            sftp_run(s->sftp, &quiet, &op, 1) < 0 || op.error < 0)
                return error;
        if ((op.vfs.f_blocks > 0 && op.vfs.f_bavail == 0) ||
            (op.vfs.f_files > 0 && op.vfs.f_favail == 0))
                return -ENOSPC;
        return error;
}

static int why_rename(const struct change *x, const struct way *from, const struct way *to,
                      int error)
{
        size_t n = strlen(x->path);

        if (!is_there(from))
                return -ENOENT;
        if (is_dir(from) && strncmp(x->to, x->path, n) == 0 && x->to[n] == '/')
                return -EINVAL;
        if (!is_there(to))
                return error;
        if (x->flags & RENAME_NOREPLACE)
                return -EEXIST;
        if (is_dir(from) && !is_dir(to))
                return -ENOTDIR;
        if (!is_dir(from) && is_dir(to))
                return -EISDIR;
        return is_dir(to) && error == -EIO ? -ENOTEMPTY : error;
}

static int why_new(const struct way *at, int error)
{
        return is_there(at) ? -EEXIST : error;
}

static int why_existing(const struct change *x, const struct way *at, int error)
{
        if (!is_there(at))
                return -ENOENT;
        switch (x->kind) {
        case CHANGE_UNLINK: return is_dir(at) ? -EISDIR : error;
        case CHANGE_RMDIR: return !is_dir(at) ? -ENOTDIR : error == -EIO ? -ENOTEMPTY : error;
        case CHANGE_WRITE: return is_dir(at) ? -EISDIR : error;
        case CHANGE_SET: return is_dir(at) && (x->what & FILE_SET_SIZE) ? -EISDIR : error;
        case CHANGE_STORE:
        case CHANGE_MKDIR:
        case CHANGE_SYMLINK:
        case CHANGE_LINK:
        case CHANGE_RENAME: break;
        }
        return error;
}

static int why_kind(const struct change *x, const struct way *at, const struct way *to, int error)
{
        switch (x->kind) {
        case CHANGE_STORE:
                if (is_there(at) && (x->flags & CHANGE_EXCLUSIVE) != 0)
                        return -EEXIST;
                return is_dir(at) ? -EISDIR : error;
        case CHANGE_MKDIR:
        case CHANGE_SYMLINK: return why_new(at, error);
        case CHANGE_LINK:
                if (!is_there(at))
                        return -ENOENT;
                return is_there(to) ? -EEXIST : is_dir(at) ? -EPERM : error;
        case CHANGE_RENAME: return why_rename(x, at, to, error);
        case CHANGE_WRITE:
        case CHANGE_UNLINK:
        case CHANGE_RMDIR:
        case CHANGE_SET: return why_existing(x, at, error);
        }
        return error;
}

int why_change(const struct spot *s, struct call *c, const struct change *x, int error)
{
        bool has_to = x->kind == CHANGE_LINK || x->kind == CHANGE_RENAME;
        struct way at = {0}, to = {0};

        if (error != -EIO && error != -ENOENT && error != -EINVAL && error != -EACCES)
                return error;
        if (!look(s, c, x->path, has_to ? x->to : NULL, &at, &to))
                return error;
        if (at.error != 0 || to.error != 0)
                return at.error != 0 ? at.error : to.error;
        if (error == -EACCES && x->kind != CHANGE_LINK && x->kind != CHANGE_UNLINK)
                return error;
        return why_full(s, c, why_kind(x, &at, &to, error));
}
