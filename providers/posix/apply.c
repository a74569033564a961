/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of files of this machine. What is made belongs to the sandbox's user (creds.h). Names
 * are taken from descriptors of their directories, modes set through descriptors: somebody inside
 * who moves things about meanwhile reaches nothing but the sandbox's own files.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/posix/place.h"
#include "providers/posix/posix.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/random.h"

#define CHUNK ((size_t)256 * 1024)

/* ---- making ---- */

struct making {
        enum making_what { MAKE_FILE, MAKE_UNNAMED, MAKE_DIR, MAKE_LINK } what;
        int dir;
        const char *name;
        const char *target; /* of MAKE_LINK */
};

/* A descriptor of a file, else 0. Nobody else may open what has not its mode yet. */
static int make_once(const struct making *m)
{
        int r = -1;

        switch (m->what) {
        case MAKE_FILE:
                r = openat(m->dir, m->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                           0600);
                break;
        case MAKE_UNNAMED: r = openat(m->dir, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600); break;
        case MAKE_DIR: r = mkdirat(m->dir, m->name, 0700); break;
        case MAKE_LINK: r = symlinkat(m->target, m->dir, m->name); break;
        }
        return r < 0 ? -errno : r;
}

static int make_and_give(const struct place *p, const struct making *m)
{
        int r, fd = make_once(m);

        if (fd < 0)
                return fd;
        if (m->what == MAKE_DIR || m->what == MAKE_LINK)
                return creds_give_at(&p->creds, m->dir, m->name);
        r = creds_give(&p->creds, fd);
        if (r < 0)
                closep(&fd);
        return r < 0 ? r : fd;
}

static int make(const struct place *p, const struct making *m)
{
        int r;

        if (p->creds.how == CREDS_CHOWN)
                return make_and_give(p, m);
        creds_enter(&p->creds);
        r = make_once(m);
        creds_leave(&p->creds);
        return r < 0 && creds_may_retry(&p->creds, -r) ? make_and_give(p, m) : r;
}

/* ---- attributes ---- */

static int set_times(int fd, const struct change *x)
{
        const struct timespec times[2] = {
                x->what & FILE_SET_ATIME ? x->atime : (struct timespec){.tv_nsec = UTIME_OMIT},
                x->what & FILE_SET_MTIME ? x->mtime : (struct timespec){.tv_nsec = UTIME_OMIT},
        };

        if ((x->what & (FILE_SET_ATIME | FILE_SET_MTIME)) == 0)
                return 0;
        return utimensat(fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

/* The attributes that a file has at the end of a change to it. */
static int note(int fd, struct change *x)
{
        if (fstat(fd, &x->st) < 0)
                return -errno;
        x->has_st = true;
        return 0;
}

static int note_at(int dir, const char *name, struct change *x)
{
        x->has_st = fstatat(dir, name, &x->st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0;
        return 0; /* what was asked for was done */
}

/* ---- content ---- */

static int copy_extent(int fd, struct file_source *from, const struct file_extent *extent,
                       void *chunk, struct call *c)
{
        uint64_t end = extent->offset + extent->size;
        int r = 0;

        for (uint64_t at = extent->offset; r == 0 && at < end;) {
                size_t size = end - at < CHUNK ? (size_t)(end - at) : CHUNK;

                r = call_check(c);
                if (r == 0)
                        r = from->read(from, chunk, size, at);
                if (r == 0)
                        r = file_pwrite_all(fd, chunk, size, at);
                at += size;
        }
        return r;
}

/* What the largest extent needs. */
static size_t chunk_size(const struct file_extent *extents, size_t count)
{
        uint64_t size = 1;

        for (size_t i = 0; i < count; i++)
                size = extents[i].size > size ? extents[i].size : size;
        return size < CHUNK ? (size_t)size : CHUNK;
}

static int copy(int fd, const struct change *x, const struct file_extent *extents, size_t count,
                struct call *c)
{
        _cleanup_(freep) char *chunk = count > 0 ? malloc(chunk_size(extents, count)) : NULL;
        int r = count > 0 && !chunk ? -ENOMEM : 0;

        for (size_t i = 0; r == 0 && i < count; i++)
                r = copy_extent(fd, x->from, &extents[i], chunk, c);
        if (r == 0 && (x->what & FILE_SET_SIZE) != 0)
                r = ftruncate(fd, (off_t)x->size) < 0 ? -errno : 0;
        return r;
}

static int fill(int fd, const struct change *x, struct call *c)
{
        const struct file_extent whole = {.size = x->from ? x->from->size : 0};
        int r;

        if (x->extent_count == 0 && x->from && x->from->fill)
                r = x->from->fill(x->from, fd);
        else if (x->extent_count > 0)
                r = copy(fd, x, x->extents, x->extent_count, c);
        else
                r = copy(fd, x, &whole, whole.size > 0, c);
        if (r == 0)
                r = fchmod(fd, x->mode & 07777) < 0 ? -errno : 0;
        return r == 0 ? set_times(fd, x) : r;
}

/* Where the file system has no RENAME_NOREPLACE, a second name is as good for a file. */
static int move_new(int dir, const char *temp, const char *name)
{
        if (renameat2(dir, temp, dir, name, RENAME_NOREPLACE) == 0)
                return 0;
        if (errno != EINVAL)
                return -errno;
        if (linkat(dir, temp, dir, name, 0) < 0)
                return -errno;
        return unlinkat(dir, temp, 0) < 0 ? -errno : 0;
}

static int move(int dir, const char *temp, const char *name, const struct change *x)
{
        if (x->flags & CHANGE_EXCLUSIVE)
                return move_new(dir, temp, name);
        return renameat(dir, temp, dir, name) < 0 ? -errno : 0;
}

/* It has none until it is whole: death leaves nothing. */
static int give_name(int fd, int dir, const char *name)
{
        char self[64];

        (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
        return linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* A file of its own, without a name where the file system can; *ret_is_named: as m->name. */
static int make_file(const struct place *p, struct making *m, bool *ret_is_named)
{
        int fd;

        m->what = MAKE_UNNAMED;
        fd = make(p, m);
        *ret_is_named = fd == -EOPNOTSUPP || fd == -EISDIR || fd == -ENOENT;
        m->what = MAKE_FILE;
        return *ret_is_named ? make(p, m) : fd;
}

static int store(const struct place *p, struct change *x, struct call *c)
{
        char temp[sizeof(PLACE_TEMP) + RANDOM_ID_SIZE], id[RANDOM_ID_SIZE];
        const char *name = NULL;
        _cleanup_(closep) int dir = place_open_parent(p, x->path, &name);
        _cleanup_(closep) int fd = -1;
        struct making m = {.dir = dir, .name = temp};
        bool is_named = false;
        int r = dir < 0 ? dir : random_id(id);

        if (r < 0)
                return r;
        if (x->temp && place_is_temp(x->temp))
                (void)snprintf(temp, sizeof(temp), "%s", x->temp); /* which is as long */
        else
                (void)snprintf(temp, sizeof(temp), PLACE_TEMP "%s", id);
        fd = make_file(p, &m, &is_named);
        if (fd < 0)
                return fd;
        r = fill(fd, x, c);
        if (r == 0 && !is_named) { /* most are new */
                r = give_name(fd, dir, name);
                if (r != -EEXIST || (x->flags & CHANGE_EXCLUSIVE))
                        return r == 0 ? note(fd, x) : r;
                r = 0;
        }
        if (r == 0 && !is_named)
                r = give_name(fd, dir, temp);
        if (r == 0)
                r = move(dir, temp, name, x);
        if (r < 0) {
                (void)unlinkat(dir, temp, 0); /* the failure to tell is the one before */
                return r;
        }
        return note(fd, x);
}

/* Its owner may write in place what has become read-only since it was opened. */
static int open_read_only(const struct place *p, const char *path, struct stat *st)
{
        _cleanup_(closep) int fd = place_open(p, path, O_PATH);
        int opened, r;

        if (fd < 0 || fstat(fd, st) < 0)
                return fd < 0 ? fd : -errno;
        if (!S_ISREG(st->st_mode) || st->st_uid != geteuid() || (st->st_mode & 0200) != 0)
                return -EACCES;
        r = place_chmod(fd, st->st_mode | 0200);
        if (r < 0)
                return r;
        opened = place_open_file(p, path, O_WRONLY, st);
        r = place_chmod(fd, st->st_mode & ~(mode_t)0200);
        if (r < 0 && opened >= 0) {
                closep(&opened);
                return r;
        }
        return opened;
}

static bool is_dir(const struct place *p, const char *path)
{
        _cleanup_(closep) int fd = place_open(p, path, O_PATH | O_DIRECTORY);

        return fd >= 0;
}

static int open_to_write(const struct place *p, const char *path)
{
        struct stat st;
        int fd = place_open_file(p, path, O_WRONLY, &st);

        if (fd == -EACCES)
                fd = open_read_only(p, path, &st);
        if (fd == -EINVAL && is_dir(p, path))
                return -EISDIR;
        return fd;
}

static int write_in_place(const struct place *p, struct change *x, struct call *c)
{
        _cleanup_(closep) int fd = open_to_write(p, x->path);
        int r = fd < 0 ? fd : copy(fd, x, x->extents, x->extent_count, c);

        if (r == 0 && (x->what & FILE_SET_MODE) != 0)
                r = fchmod(fd, x->mode & 07777) < 0 ? -errno : 0;
        if (r == 0)
                r = set_times(fd, x);
        return r == 0 ? note(fd, x) : r;
}

static int set(const struct place *p, struct change *x, struct call *c)
{
        _cleanup_(closep) int fd = -1;
        int r;

        if (x->what & FILE_SET_SIZE)
                return write_in_place(p, x, c);
        fd = place_open(p, x->path, O_PATH);
        r = fd < 0 ? fd : 0;
        if (r == 0 && (x->what & FILE_SET_MODE) != 0)
                r = place_chmod(fd, x->mode);
        if (r == 0)
                r = set_times(fd, x);
        return r == 0 ? note(fd, x) : r;
}

/* ---- names ---- */

static int make_dir(const struct place *p, struct change *x)
{
        const char *name = NULL;
        _cleanup_(closep) int dir = place_open_parent(p, x->path, &name);
        _cleanup_(closep) int fd = -1;
        struct making m = {.what = MAKE_DIR, .dir = dir, .name = name};
        int r = dir < 0 ? dir : make(p, &m);

        if (r < 0)
                return r;
        fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        r = fd < 0 ? -errno : place_chmod(fd, x->mode);
        return r == 0 ? note(fd, x) : r;
}

static int make_link(const struct place *p, struct change *x)
{
        const char *name = NULL;
        _cleanup_(closep) int dir = place_open_parent(p, x->path, &name);
        struct making m = {.what = MAKE_LINK, .dir = dir, .name = name, .target = x->to};
        int r = dir < 0 ? dir : make(p, &m);

        return r < 0 ? r : note_at(dir, name, x);
}

static int unlink_name(const struct place *p, const struct change *x, int flags)
{
        const char *name = NULL;
        _cleanup_(closep) int dir = place_open_parent(p, x->path, &name);

        if (dir < 0)
                return dir;
        return unlinkat(dir, name, flags) < 0 ? -errno : 0;
}

/* What is to be known of a file, and set, before it gets its name. */
static int prepare(int dir, const char *name, const struct change *x)
{
        _cleanup_(closep) int fd =
                openat(dir, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) ||
            ((x->what & FILE_SET_SIZE) != 0 && (uint64_t)st.st_size != x->size))
                return -EINVAL;
        if ((x->what & FILE_SET_MODE) != 0 && fchmod(fd, x->mode & 07777) < 0)
                return -errno;
        return set_times(fd, x);
}

static int to_other_name(const struct place *p, struct change *x)
{
        const char *from_name = NULL, *to_name = NULL;
        _cleanup_(closep) int from = place_open_parent(p, x->path, &from_name);
        _cleanup_(closep) int to = from < 0 ? -1 : place_open_parent(p, x->to, &to_name);
        unsigned flags = x->flags & ~CHANGE_EXCLUSIVE;
        int r = 0;

        if (from < 0 || to < 0)
                return from < 0 ? from : to;
        if ((flags & ~(unsigned)RENAME_NOREPLACE) != 0)
                return -EINVAL;
        if (x->kind == CHANGE_RENAME && x->what != 0)
                r = prepare(from, from_name, x);
        if (r < 0)
                return r;
        if (x->kind == CHANGE_LINK)
                r = linkat(from, from_name, to, to_name, 0);
        else
                r = renameat2(from, from_name, to, to_name, flags);
        return r < 0 ? -errno : note_at(to, to_name, x);
}

static int apply_one(const struct place *p, struct change *x, struct call *c)
{
        switch (x->kind) {
        case CHANGE_STORE: return store(p, x, c);
        case CHANGE_WRITE: return write_in_place(p, x, c);
        case CHANGE_MKDIR: return make_dir(p, x);
        case CHANGE_SYMLINK: return make_link(p, x);
        case CHANGE_LINK:
        case CHANGE_RENAME: return to_other_name(p, x);
        case CHANGE_UNLINK: return unlink_name(p, x, 0);
        case CHANGE_RMDIR: return unlink_name(p, x, AT_REMOVEDIR);
        case CHANGE_SET: return set(p, x, c);
        }
        return -EINVAL;
}

int posix_apply(const struct place *p, struct call *c, struct change *x)
{
        int r = call_check(c);

        if (r == 0)
                x->error = apply_one(p, x, c);
        if (r == 0 && (x->error == -EINTR || x->error == -ETIMEDOUT)) {
                r = x->error; /* of the call: it may be half done */
                x->error = -EINPROGRESS;
        }
        return r;
}
