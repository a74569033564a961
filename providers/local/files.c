/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a local sandbox as a provider's own (local_cached_ops), as if it were far away: what
 * is asked, and what is read.
 */

#include "providers/local/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/local/local.h"
#include "providers/posix/place.h"
#include "providers/posix/posix.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

struct local_file {
        struct box_file base;
        int fd;
};

/* The workspace, for one call. */
static int place_init(struct place *p, struct box *b, struct call *c)
{
        struct box_root root;
        int r = local_root(b, c, &root);

        if (r < 0)
                return r;
        p->root = root.fd;
        creds_init(&p->creds, root.uid, root.gid);
        return 0;
}

static void place_done(const struct place *p)
{
        closep(&p->root);
}

int local_files_stat(struct box *b, struct call *c, const char *path, struct stat *ret)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        int r = place_init(&p, b, c);

        if (r == 0)
                r = posix_stat(&p, path, ret);
        return r;
}

int local_files_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        int r = place_init(&p, b, c);

        if (r == 0)
                r = posix_readlink(&p, path, ret, size);
        return r;
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

static int fetch_one(const struct place *p, const char *path, size_t index, void *data,
                     size_t size_max, struct file_sink *to)
{
        struct stat st = {0};
        _cleanup_(closep) int fd = place_open_file(p, path, O_RDONLY, &st);
        ssize_t n = fd < 0 ? fd : posix_read_whole(fd, data, size_max, &st);

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
        if (n >= 0 && ret_st && fstat(f->fd, ret_st) < 0)
                return -errno;
        return n;
}

void local_files_close(struct box_file *base)
{
        struct local_file *f = container_of(base, struct local_file, base);

        closep(&f->fd);
        free(f);
}

/* ---- listings and changes ---- */

int local_files_list(struct box *b, struct call *c, const struct file_listing *what,
                     struct file_list_sink *to)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        int r = place_init(&p, b, c);

        return r == 0 ? posix_list(&p, c, what, to) : r;
}

int local_files_apply(struct box *b, struct call *c, struct change *changes, size_t count)
{
        _cleanup_(place_done) struct place p = {.root = -1};
        int r = place_init(&p, b, c);

        for (size_t i = 0; r == 0 && i < count; i++)
                r = posix_apply(&p, c, &changes[i]);
        return r;
}
