/* SPDX-License-Identifier: Apache-2.0 */
/* The file calls of a provider over a directory. */

#include "tests/unit/volume/fake_box.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

#define CHUNK 65536

struct fake_file {
        struct box_file head; /* first */
        int fd;
};

static struct fake_box *fake_of(struct box *b)
{
        return (struct fake_box *)(void *)b; /* its head */
}

/* The working directory itself is "" in the contract. */
static const char *real_path(const char *path)
{
        return path[0] == '\0' ? "." : path;
}

/* ---- faults ---- */

static void sleep_ms(struct call *c, unsigned ms)
{
        uint64_t until_ns = clock_mono_ns() + ms * NS_PER_MS;
        struct timespec step = {.tv_nsec = (long)NS_PER_MS};

        while (clock_mono_ns() < until_ns && call_check(c) == 0)
                (void)nanosleep(&step, NULL); /* cut short: looks again */
}

static int fault_of(struct fake_box *f, enum fake_call call)
{
        int error = atomic_load(&f->error[call]);
        unsigned at = atomic_load(&f->error_at[call]);

        if (error == 0)
                return 0;
        if (at == 0)
                return error;
        if (atomic_fetch_sub(&f->error_at[call], 1) > 1)
                return 0;
        atomic_store(&f->error[call], 0);
        return error;
}

static int begin(struct fake_box *f, enum fake_call call, struct call *c, const char *path)
{
        int r;

        atomic_fetch_add(&f->calls[call], 1);
        if (f->hook)
                f->hook(f, call, path, false);
        sleep_ms(c, atomic_load(&f->delay_ms[call]));
        while (atomic_load(&f->hangs[call]) && call_check(c) == 0)
                sleep_ms(c, 5);
        r = call_check(c);
        return r < 0 ? r : fault_of(f, call);
}

static void end(struct fake_box *f, enum fake_call call, struct call *c, const char *path)
{
        if (f->hook)
                f->hook(f, call, path, true);
        sleep_ms(c, atomic_load(&f->delay_after_ms[call]));
}

static void blur(const struct fake_box *f, struct stat *st)
{
        st->st_ctim.tv_sec += f->ahead_s;
        if (!f->has_no_ino)
                return;
        st->st_ino = 0;
        st->st_nlink = 0;
        st->st_blocks = 0;
        st->st_ctim = (struct timespec){0};
}

/* ---- listings ---- */

struct listing {
        struct fake_box *f;
        const struct file_listing *what;
        struct file_list_sink *to;
        size_t count;
};

static bool is_skipped(const struct file_listing *what, const char *name)
{
        for (size_t i = 0; what->skip && what->skip[i]; i++) {
                if (strcmp(what->skip[i], name) == 0)
                        return true;
        }
        return false;
}

static int list_dir(struct listing *l, int fd, const char *path, unsigned depth);

static int list_entry_at(struct listing *l, int dir, const char *path, const char *name,
                         unsigned depth)
{
        char below[PATH_MAX], target[PATH_MAX];
        const char *text = NULL;
        struct stat st;
        int fd, r;

        if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return 0; /* gone meanwhile */
        (void)snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "/" : "", name);
        if (S_ISLNK(st.st_mode) && !l->f->has_no_targets) {
                ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);

                target[n < 0 ? 0 : n] = '\0';
                text = n < 0 ? NULL : target;
        }
        blur(l->f, &st);
        l->count++;
        atomic_fetch_add(&l->f->listed_entries, 1);
        r = l->to->entry(l->to, below, &st, text);
        if (r != 0 || !S_ISDIR(st.st_mode) || depth <= 1 || is_skipped(l->what, name))
                return r;
        if (l->what->into && depth == l->what->depth && strcmp(name, l->what->into) != 0)
                return 0;
        fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? 0 : list_dir(l, fd, below, depth - 1); /* unreadable: only not listed */
}

/* Takes over `fd`. */
static int list_dir(struct listing *l, int fd, const char *path, unsigned depth)
{
        _cleanup_(closedirp) DIR *d = fdopendir(fd);
        const struct dirent *e;

        if (!d) {
                (void)close(fd); /* only opened */
                return -ENOMEM;
        }
        while ((e = readdir(d))) {
                int r;

                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                        continue;
                if (l->what->entries_max != 0 && l->count >= l->what->entries_max)
                        return 0;
                r = list_entry_at(l, dirfd(d), path, e->d_name, depth);
                if (r != 0)
                        return r;
        }
        return l->to->listed(l->to, path);
}

static int fake_list(struct box *b, struct call *c, const struct file_listing *what,
                     struct file_list_sink *to)
{
        struct fake_box *f = fake_of(b);
        struct listing l = {.f = f, .what = what, .to = to};
        int fd, r = begin(f, FAKE_LIST, c, what->path);

        if (r < 0)
                return r;
        fd = openat(f->dir, real_path(what->path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (f->add)
                f->add(f, what->path, to);
        r = list_dir(&l, fd, "", what->depth);
        end(f, FAKE_LIST, c, what->path);
        return r;
}

static int fake_stat(struct box *b, struct call *c, const char *path, struct stat *ret)
{
        struct fake_box *f = fake_of(b);
        int r = begin(f, FAKE_STAT, c, path);

        if (r < 0)
                return r;
        r = fstatat(f->dir, real_path(path), ret, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
        if (r == 0)
                blur(f, ret);
        end(f, FAKE_STAT, c, path);
        return r;
}

static int fake_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size)
{
        struct fake_box *f = fake_of(b);
        ssize_t n;
        int r = begin(f, FAKE_READLINK, c, path);

        if (r < 0)
                return r;
        n = readlinkat(f->dir, path, ret, size);
        r = n < 0 ? -errno : 0;
        if (n >= 0 && (size_t)n == size)
                r = -ENAMETOOLONG;
        else if (n >= 0)
                ret[n] = '\0';
        end(f, FAKE_READLINK, c, path);
        return r;
}

/* ---- content ---- */

static int open_regular(struct fake_box *f, const char *path, int flags, struct stat *st)
{
        int fd = openat(f->dir, real_path(path), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        if (fstat(fd, st) < 0 || !S_ISREG(st->st_mode)) {
                (void)close(fd); /* nothing was done with it */
                return -EINVAL;
        }
        return fd;
}

static int fetch_one(struct fake_box *f, const char *path, size_t index, size_t size_max,
                     struct file_sink *to)
{
        _cleanup_(freep) char *data = NULL;
        struct stat st = {0};
        _cleanup_(closep) int fd = open_regular(f, path, O_RDONLY, &st);
        ssize_t n;

        atomic_fetch_add(&f->files, 1);
        if (fd < 0)
                return to->file(to, index, fd, &st, NULL, 0);
        if ((uint64_t)st.st_size > size_max) {
                blur(f, &st);
                return to->file(to, index, -EFBIG, &st, NULL, 0);
        }
        data = malloc((size_t)st.st_size + 1);
        n = data ? pread(fd, data, (size_t)st.st_size, 0) : -1;
        if (n < 0)
                return to->file(to, index, data ? -errno : -ENOMEM, &st, NULL, 0);
        blur(f, &st);
        return to->file(to, index, 0, &st, data, (size_t)n);
}

static int fake_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
                      size_t size_max, struct file_sink *to)
{
        struct fake_box *f = fake_of(b);
        int r = begin(f, FAKE_FETCH, c, count > 0 ? paths[0] : "");

        for (size_t i = 0; r == 0 && i < count; i++)
                r = fetch_one(f, paths[i], i, size_max, to);
        if (r == 0)
                end(f, FAKE_FETCH, c, count > 0 ? paths[0] : "");
        return r;
}

static int fake_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                     struct stat *ret_st)
{
        struct fake_box *f = fake_of(b);
        struct fake_file *file;
        int fd, r = begin(f, FAKE_OPEN, c, path);

        if (r < 0)
                return r;
        fd = open_regular(f, path, O_RDONLY, ret_st);
        if (fd < 0)
                return fd;
        file = calloc(1, sizeof(*file));
        if (!file) {
                (void)close(fd); /* nothing was done with it */
                return -ENOMEM;
        }
        blur(f, ret_st);
        file->head.box = b;
        file->fd = fd;
        atomic_fetch_add(&f->open_files, 1);
        *ret = &file->head;
        end(f, FAKE_OPEN, c, path);
        return 0;
}

static ssize_t fake_read(struct box_file *head, struct call *c, void *data, size_t size,
                         uint64_t offset, struct stat *ret_st)
{
        struct fake_file *file = (struct fake_file *)(void *)head; /* its head */
        struct fake_box *f = fake_of(head->box);
        ssize_t n;
        int r = begin(f, FAKE_READ, c, "");

        if (r < 0)
                return r;
        n = pread(file->fd, data, size, (off_t)offset);
        if (n < 0 || (ret_st && fstat(file->fd, ret_st) < 0))
                return -errno;
        if (ret_st)
                blur(f, ret_st);
        end(f, FAKE_READ, c, "");
        return n;
}

static void fake_close(struct box_file *head)
{
        struct fake_file *file = (struct fake_file *)(void *)head; /* its head */

        atomic_fetch_sub(&fake_of(head->box)->open_files, 1);
        (void)close(file->fd); /* only read */
        free(file);
}

/* ---- changes ---- */

static int write_range(int fd, struct file_source *from, uint64_t offset, uint64_t size)
{
        _cleanup_(freep) char *data = malloc(CHUNK);

        if (!data)
                return -ENOMEM;
        while (size > 0) {
                size_t n = size < CHUNK ? (size_t)size : CHUNK;
                int r = from->read(from, data, n, offset);

                if (r < 0)
                        return r;
                if (pwrite(fd, data, n, (off_t)offset) != (ssize_t)n)
                        return -EIO;
                offset += n;
                size -= n;
        }
        return 0;
}

static int set_times(int dir, const char *path, const struct change *x)
{
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

        if (x->what & FILE_SET_ATIME)
                times[0] = x->atime;
        if (x->what & FILE_SET_MTIME)
                times[1] = x->mtime;
        if ((x->what & (FILE_SET_ATIME | FILE_SET_MTIME)) == 0)
                return 0;
        return utimensat(dir, path, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int store(struct fake_box *f, const struct change *x)
{
        static atomic_uint serial;
        char name[PATH_MAX];
        _cleanup_(closep) int fd = -1;
        int r = 0;

        /* Not beside it: one that a killed process left must not keep a directory from going. */
        (void)snprintf(name, sizeof(name), ".fake-%u", atomic_fetch_add(&serial, 1));
        fd = openat(f->dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        if (x->from)
                r = write_range(fd, x->from, 0, x->from->size);
        if (r == 0 && fchmod(fd, x->mode & 07777) < 0)
                r = -errno;
        if (r == 0)
                r = set_times(f->dir, name, x);
        if (r == 0 && (x->flags & CHANGE_EXCLUSIVE) != 0)
                r = renameat2(f->dir, name, f->dir, x->path, RENAME_NOREPLACE) < 0 ? -errno : 0;
        else if (r == 0)
                r = renameat(f->dir, name, f->dir, x->path) < 0 ? -errno : 0;
        if (r < 0)
                (void)unlinkat(f->dir, name, 0); /* the temporary name */
        return r;
}

static int write_in_place(struct fake_box *f, const struct change *x)
{
        struct stat st;
        _cleanup_(closep) int fd = open_regular(f, x->path, O_WRONLY, &st);
        int r = 0;

        if (fd < 0)
                return fd;
        for (size_t i = 0; r == 0 && i < x->extent_count; i++)
                r = write_range(fd, x->from, x->extents[i].offset, x->extents[i].size);
        if (r == 0 && (x->what & FILE_SET_SIZE) && ftruncate(fd, (off_t)x->size) < 0)
                r = -errno;
        return r == 0 ? set_times(f->dir, x->path, x) : r;
}

static int set(struct fake_box *f, const struct change *x)
{
        if (x->what & FILE_SET_SIZE) {
                struct stat st;
                _cleanup_(closep) int fd = open_regular(f, x->path, O_WRONLY, &st);

                if (fd < 0)
                        return fd;
                if (ftruncate(fd, (off_t)x->size) < 0)
                        return -errno;
        }
        if ((x->what & FILE_SET_MODE) && fchmodat(f->dir, real_path(x->path), x->mode, 0) < 0)
                return -errno;
        return set_times(f->dir, real_path(x->path), x);
}

static int change(struct fake_box *f, const struct change *x)
{
        int r = 0;

        if (atomic_load(&f->change_error) != 0 &&
            atomic_load(&f->change_error_kind) == (int)x->kind)
                return atomic_load(&f->change_error);
        switch (x->kind) {
        case CHANGE_STORE: return store(f, x);
        case CHANGE_WRITE: return write_in_place(f, x);
        case CHANGE_SET: return set(f, x);
        case CHANGE_MKDIR: r = mkdirat(f->dir, x->path, x->mode & 07777); break;
        case CHANGE_SYMLINK: r = symlinkat(x->to, f->dir, x->path); break;
        case CHANGE_LINK:
                if (f->has_no_links)
                        return -EOPNOTSUPP;
                r = linkat(f->dir, x->path, f->dir, x->to, 0);
                break;
        case CHANGE_UNLINK: r = unlinkat(f->dir, x->path, 0); break;
        case CHANGE_RMDIR: r = unlinkat(f->dir, x->path, AT_REMOVEDIR); break;
        case CHANGE_RENAME:
                r = renameat2(f->dir, x->path, f->dir, x->to, x->flags & RENAME_NOREPLACE);
                break;
        default: return -EINVAL;
        }
        return r < 0 ? -errno : 0;
}

static void carry_out(struct fake_box *f, struct change *x)
{
        bool is_moved = x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK;

        atomic_fetch_add(&f->changes, 1);
        x->error = change(f, x);
        if (x->error < 0 || x->kind == CHANGE_UNLINK || x->kind == CHANGE_RMDIR)
                return;
        x->has_st = fstatat(f->dir, real_path(is_moved ? x->to : x->path), &x->st,
                            AT_SYMLINK_NOFOLLOW) == 0;
        if (x->has_st)
                blur(f, &x->st);
}

static int fake_apply(struct box *b, struct call *c, struct change *changes, size_t count)
{
        struct fake_box *f = fake_of(b);
        const char *path = count > 0 ? changes[0].path : "";
        int r;

        for (size_t i = 0; i < count; i++) {
                changes[i].error = -EINPROGRESS;
                changes[i].has_st = false;
        }
        r = begin(f, FAKE_APPLY, c, path);
        if (r < 0)
                return r;
        for (size_t i = 0; i < count; i++)
                carry_out(f, &changes[i]);
        end(f, FAKE_APPLY, c, path);
        if (atomic_load(&f->is_lost)) {
                for (size_t i = 0; i < count; i++)
                        changes[i].error = -EINPROGRESS;
                return -EHOSTUNREACH;
        }
        return 0;
}

static int fake_statfs(struct box *b, struct call *c, struct statvfs *ret)
{
        struct fake_box *f = fake_of(b);
        int r = begin(f, FAKE_STATFS, c, "");

        if (r == 0 && fstatvfs(f->dir, ret) < 0)
                r = -errno;
        return r;
}

static int fake_workdir(struct box *b, struct call *c, char *ret, size_t size)
{
        const struct fake_box *f = fake_of(b);

        (void)c; /* from memory */
        if (!f->workdir)
                return -EINPROGRESS;
        return snprintf(ret, size, "%s", f->workdir) < (int)size ? 0 : -ENAMETOOLONG;
}

static const struct provider_ops fake_ops = {
        .name = "fakebox",
        .list_files = fake_list,
        .stat = fake_stat,
        .readlink = fake_readlink,
        .fetch = fake_fetch,
        .file_open = fake_open,
        .file_read = fake_read,
        .file_close = fake_close,
        .apply = fake_apply,
        .statfs = fake_statfs,
        .workdir = fake_workdir,
};

/* ---- the volume's side ---- */

static int fake_enter(void *ctx, struct call *c, struct box **ret)
{
        struct fake_box *f = ctx;
        int r = atomic_load(&f->enter_error);

        if (r < 0)
                return call_fail(c, r, "no way in");
        atomic_fetch_add(&f->entered, 1);
        *ret = &f->box;
        return 0;
}

static void fake_leave(void *ctx, struct box *b)
{
        struct fake_box *f = ctx;

        (void)b; /* its own */
        atomic_fetch_sub(&f->entered, 1);
}

static void fake_changed(void *ctx)
{
        struct fake_box *f = ctx;

        atomic_fetch_add(&f->changed_events, 1);
}

static void fake_failed(void *ctx, const char *path, int error, const char *sentence)
{
        struct fake_box *f = ctx;

        mutex_lock(&f->lock);
        (void)snprintf(f->last_failed, sizeof(f->last_failed), "%s: %d %s", path, error, sentence);
        mutex_unlock(&f->lock);
        atomic_fetch_add(&f->failed_events, 1);
}

static void fake_noticed(void *ctx, const char *path, const char *sentence)
{
        struct fake_box *f = ctx;

        mutex_lock(&f->lock);
        (void)snprintf(f->last_noticed, sizeof(f->last_noticed), "%s: %s", path, sentence);
        mutex_unlock(&f->lock);
        atomic_fetch_add(&f->noticed_events, 1);
}

struct volume_box fake_box_volume(struct fake_box *f)
{
        return (struct volume_box){.enter = fake_enter,
                                   .leave = fake_leave,
                                   .changed = fake_changed,
                                   .failed = fake_failed,
                                   .noticed = fake_noticed,
                                   .ctx = f};
}

/* ---- birth ---- */

bool fake_box_init(struct fake_box *f)
{
        memset(f, 0, sizeof(*f));
        mutex_init(&f->lock);
        (void)snprintf(f->path, sizeof(f->path), "/tmp/sbxfs-fake-box.XXXXXX");
        if (!mkdtemp(f->path))
                return false;
        f->dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        f->provider.ops = &fake_ops;
        f->box.provider = &f->provider;
        (void)snprintf(f->box.id, sizeof(f->box.id), "fake");
        f->workdir = "/workspace";
        return f->dir >= 0;
}

void fake_box_done(struct fake_box *f)
{
        mutex_done(&f->lock);
        (void)close(f->dir); /* only looked through */
        (void)file_remove_tree(AT_FDCWD, f->path); /* what is left in /tmp is no failure */
}

void fake_box_zero(struct fake_box *f)
{
        for (int i = 0; i < FAKE_CALLS; i++)
                atomic_store(&f->calls[i], 0);
        atomic_store(&f->changes, 0);
        atomic_store(&f->files, 0);
        atomic_store(&f->listed_entries, 0);
}

unsigned fake_box_calls(struct fake_box *f)
{
        unsigned count = 0;

        for (int i = 0; i < FAKE_CALLS; i++)
                count += atomic_load(&f->calls[i]);
        return count;
}
