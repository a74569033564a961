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

/* What is looked at: paths, each with all directories above it, in one round trip. */
struct looks {
        const struct spot *spot;
        struct sftp_op *ops;
        size_t count, room;
};

static bool add(struct looks *l, char *path, bool is_last)
{
        struct sftp_op *more;

        if (!path)
                return false;
        if (l->count == l->room) {
                l->room = l->room > 0 ? 2 * l->room : 16;
                more = reallocarray(l->ops, l->room, sizeof(*l->ops));
                if (!more) {
                        free(path);
                        return false;
                }
                l->ops = more;
        }
        l->ops[l->count++] =
                (struct sftp_op){.type = is_last ? SFTP_LSTAT : SFTP_STAT, .path = path};
        return true;
}

/* Requests for a path and for each directory above it up to fs/, the deepest first: how many. */
static size_t ask(struct looks *l, const char *path)
{
        char *at = ssh_spot_path(l->spot, path);
        size_t before = l->count, floor = strlen(l->spot->paths->work);

        while (l->count - before < LEVELS_MAX && add(l, at, l->count == before)) {
                const char *slash = strrchr(at, '/');

                if (!slash || strlen(at) <= floor)
                        break;
                at = strndup(at, (size_t)(slash - at));
        }
        return l->count - before;
}

static bool run(struct looks *l, struct call *c)
{
        struct call quiet;

        call_init(&quiet, c->deadline_ns); /* what fails here is passed over */
        return sftp_run(l->spot->sftp, &quiet, l->ops, l->count) == 0;
}

static void looks_done(struct looks *l)
{
        for (size_t i = 0; i < l->count; i++)
                free((char *)(uintptr_t)l->ops[i].path); /* ask's */
        free(l->ops);
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

/* False: it couldn't be looked at. */
static bool look(const struct spot *s, struct call *c, const char *path, struct way *ret)
{
        struct looks l = {.spot = s};
        size_t n = ask(&l, path);
        bool is_seen = run(&l, c);

        if (is_seen)
                *ret = judge(path, l.ops, n);
        looks_done(&l);
        return is_seen;
}

void why_paths(const struct spot *s, struct call *c, const char *const *paths, int *errors,
               size_t count)
{
        struct looks l = {.spot = s};
        _cleanup_(freep) size_t *sizes = calloc(count + 1, sizeof(*sizes));
        size_t at = 0;
        bool is_seen;

        for (size_t i = 0; sizes && i < count; i++)
                sizes[i] = ask(&l, paths[i]);
        is_seen = l.count > 0 && run(&l, c);
        for (size_t i = 0; is_seen && i < count; i++) {
                struct way w = judge(paths[i], l.ops + at, sizes[i]);

                at += sizes[i];
                if (w.error != 0 && errors[i] != -EACCES)
                        errors[i] = w.error;
        }
        looks_done(&l);
}

int why_path(const struct spot *s, struct call *c, const char *path, int error)
{
        why_paths(s, c, &path, &error, 1);
        return error;
}

int why_listing(const struct spot *s, struct call *c, const char *path, int error)
{
        struct way at;

        if (!look(s, c, path, &at))
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

/* Whether what the server said could be something else. */
static bool is_vague(const struct change *x, int error)
{
        bool may_be_denied = x->kind == CHANGE_LINK || x->kind == CHANGE_UNLINK;

        return error == -EIO || error == -ENOENT || error == -EINVAL ||
               (error == -EACCES && may_be_denied);
}

static const char *other_of(const struct change *x)
{
        return x->kind == CHANGE_LINK || x->kind == CHANGE_RENAME ? x->to : NULL;
}

static int why_change(const struct spot *s, struct call *c, const struct why *w,
                      const struct sftp_op *ops)
{
        const char *other = other_of(w->x);
        struct way at = judge(w->x->path, ops, w->path_looks), to = {0};

        if (other)
                to = judge(other, ops + w->path_looks, w->other_looks);
        if (at.error != 0 || to.error != 0)
                return at.error != 0 ? at.error : to.error;
        return why_full(s, c, why_kind(w->x, &at, &to, w->error));
}

void why_changes(const struct spot *s, struct call *c, struct why *list, size_t count)
{
        struct looks l = {.spot = s};
        size_t at = 0;
        bool is_seen;

        for (size_t i = 0; i < count; i++) {
                const char *other = other_of(list[i].x);

                if (!is_vague(list[i].x, list[i].error))
                        continue;
                list[i].path_looks = ask(&l, list[i].x->path);
                list[i].other_looks = other ? ask(&l, other) : 0;
        }
        is_seen = l.count > 0 && run(&l, c);
        for (size_t i = 0; is_seen && i < count; i++) {
                if (!is_vague(list[i].x, list[i].error))
                        continue;
                list[i].error = why_change(s, c, &list[i], l.ops + at);
                at += list[i].path_looks + list[i].other_looks;
        }
        looks_done(&l);
}
