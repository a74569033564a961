/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a local sandbox as a provider's own (local_cached_ops), as if it were far away: what
 * is asked, and what is read. Listings are files_list.c, changes files_apply.c.
 */

#include "providers/local/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/local/local.h"
#include "providers/local/place.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

#define TRIES 3 /* at reading a file that is changed meanwhile */

struct local_file {
        struct box_file base;
        int fd;
};

static int stat_in(const struct place *p, const char *path, struct stat *ret)
{
        _cleanup_(closep) int fd = place_open(p, path, O_PATH);

        if (fd < 0)
                return fd;
        return fstat(fd, ret) < 0 ? -errno : 0;
}

int local_files_stat(struct box *b, struct call *c, const char *path, struct stat *ret)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        int r = place_init(&p, b, c);

        if (r == 0)
                r = stat_in(&p, path, ret);
        return r;
}

int local_files_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        _cleanup_(closep) int fd = -1;
        ssize_t n;
        int r = place_init(&p, b, c);

        if (r < 0)
                return r;
        fd = place_open(&p, path, O_PATH);
        if (fd < 0)
                return fd;
        n = readlinkat(fd, "", ret, size);
        if (n < 0)
                return errno == ENOENT ? -EINVAL : -errno; /* an empty path that is no link */
        if ((size_t)n == size)
                return -ENAMETOOLONG;
        ret[n] = '\0';
        return 0;
}

int local_files_statfs(struct box *b, struct call *c, struct statvfs *ret)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        int r = place_init(&p, b, c);

        if (r == 0 && fstatvfs(p.root, ret) < 0)
                r = -errno;
        return r;
}

int local_files_workdir(struct box *b, struct call *c, char *ret, size_t size)
{
        struct box_root root;
        int r = local_root(b, c, &root);

        if (r < 0)
                return r;
        closep(&root.fd);
        if ((size_t)snprintf(ret, size, "%s", root.inside) >= size)
                return -ENAMETOOLONG;
        return 0;
}

/* ---- whole files ---- */

static bool is_same(const struct stat *a, const struct stat *b)
{
        return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
               a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
               a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/*
 * Content with the attributes that belong to it. Of a file that never holds still: what was read,
 * under attributes from before, so that its next look differs.
 */
static ssize_t read_whole(int fd, void *data, size_t size_max, struct stat *st)
{
        struct stat after;
        ssize_t n = -EAGAIN;

        for (int i = 0; i < TRIES; i++) {
                if (fstat(fd, st) < 0)
                        return -errno;
                if ((uint64_t)st->st_size > size_max)
                        return -EFBIG;
                n = file_pread_full(fd, data, size_max, 0);
                if (n < 0 || fstat(fd, &after) < 0)
                        return n < 0 ? n : -errno;
                if (is_same(st, &after) && n == st->st_size)
                        return n;
        }
        st->st_size = n;
        return n;
}

static int fetch_one(const struct place *p, const char *path, size_t index, void *data,
                     size_t size_max, struct file_sink *to)
{
        struct stat st = {0};
        _cleanup_(closep) int fd = place_open_file(p, path, O_RDONLY, &st);
        ssize_t n = fd < 0 ? fd : read_whole(fd, data, size_max, &st);

        return to->file(to, index, n < 0 ? (int)n : 0, &st, data, n < 0 ? 0 : (size_t)n);
}

int local_files_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
                      size_t size_max, struct file_sink *to)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        _cleanup_(freep) char *data = malloc(size_max + 1);
        int r = data ? place_init(&p, b, c) : -ENOMEM;

        for (size_t i = 0; r == 0 && i < count; i++) {
                r = call_check(c);
                if (r == 0)
                        r = fetch_one(&p, paths[i], i, data, size_max, to);
        }
        return r;
}

/* ---- parts of files ---- */

int local_files_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                     struct stat *ret_st)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        struct local_file *f;
        int fd, r = place_init(&p, b, c);

        if (r < 0)
                return r;
        fd = place_open_file(&p, path, O_RDONLY, ret_st);
        if (fd < 0)
                return fd;
        f = malloc(sizeof(*f));
        if (!f) {
                closep(&fd);
                return -ENOMEM;
        }
        *f = (struct local_file){.base.box = b, .fd = fd};
        *ret = &f->base;
        return 0;
}

ssize_t local_files_read(struct box_file *base, struct call *c, void *data, size_t size,
                         uint64_t offset, struct stat *ret_st)
{
        const struct local_file *f = container_of(base, struct local_file, base);
        ssize_t n;

        (void)c; /* a local disk: no deadline */
        n = file_pread_full(f->fd, data, size, offset);
        if (n >= 0 && fstat(f->fd, ret_st) < 0)
                return -errno;
        return n;
}

void local_files_close(struct box_file *base)
{
        struct local_file *f = container_of(base, struct local_file, base);

        closep(&f->fd);
        free(f);
}
