/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open directories. Offsets are those of the disk's own file system, so that telldir and seekdir
 * hold. One reader at a time per handle; another waits for it, holding no lock.
 */

#include "fs/volume/direct.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define ENTRIES_SIZE 32768

struct vol_dir {
        /* fixed after opendir */
        struct vol_file head; /* first: found by its node like a file's */

        struct mutex lock;
        struct cond idle;
        bool is_busy GUARDED_BY(lock);

        /* of who made it busy */
        uint64_t at; /* offset of the entry at `used` */
        size_t used, filled; /* bytes of `entries` */
        _Alignas(struct dirent64) char entries[ENTRIES_SIZE];
};

int direct_opendir(struct volume *v, struct vol_op *op, uint64_t node, struct vol_dir **ret)
{
        struct direct *d = direct_of(v);
        struct node_path path;
        struct vol_dir *dir;
        struct stat st;
        int fd, r = direct_check(d);

        climbs_end(&d->climbs, op->tid);
        if (r < 0)
                return r;
        fd = direct_open_node(d, node, O_RDONLY | O_DIRECTORY | O_NONBLOCK, &st, &path);
        if (fd < 0)
                return fd;
        dir = fd < d->fd_limit ? malloc(sizeof(*dir)) : NULL;
        if (!dir) {
                r = fd < d->fd_limit ? -ENOMEM : -EMFILE;
                (void)close(fd); /* only opened */
                return r;
        }
        dir->head = (struct vol_file){.is_dir = true, .fd = fd};
        dir->at = 0;
        dir->used = dir->filled = 0;
        mutex_init(&dir->lock);
        cond_init(&dir->idle);
        mutex_lock(&dir->lock);
        dir->is_busy = false;
        mutex_unlock(&dir->lock);
        nodes_open(&d->nodes, node, &dir->head.open);
        *ret = dir;
        return 0;
}

void direct_releasedir(struct volume *v, struct vol_dir *dir)
{
        direct_file_put(direct_of(v), &dir->head);
}

void direct_dir_free(struct vol_file *f)
{
        struct vol_dir *dir = (struct vol_dir *)(void *)f; /* its head */

        cond_done(&dir->idle);
        mutex_done(&dir->lock);
        free(dir);
}

int direct_fsyncdir(struct volume *v, struct vol_op *op, struct vol_dir *dir, bool data_only)
{
        int r;

        (void)op; /* as in opendir */
        if (direct_check(direct_of(v)) < 0)
                return -ESTALE;
        if (dir->head.open.node == VOLUME_ROOT)
                r = syncfs(dir->head.fd); /* of fs/ itself: everything */
        else
                r = data_only ? fdatasync(dir->head.fd) : fsync(dir->head.fd);
        return r < 0 ? -errno : 0;
}

/* ---- reading ---- */

struct reading {
        struct direct *d;
        struct vol_dir *dir;
        struct vol_dir_sink *to;
        uint64_t epoch;
        bool plus;
        bool is_full;
};

static bool is_dot(const char *name)
{
        return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void add_name_only(struct reading *g, const struct dirent64 *e)
{
        struct vol_entry entry = {.st = {.st_ino = e->d_ino, .st_mode = DTTOIF(e->d_type)}};

        g->is_full = !g->to->add(g->to, e->d_name, &entry, (uint64_t)e->d_off);
}

/* Attributes as lookup would tell them. False: by name only, or not at all (*ret_vanished). */
static bool find_attrs(struct reading *g, const struct dirent64 *e, struct stat *st,
                       bool *ret_vanished)
{
        unsigned depth;

        *ret_vanished = false;
        if (fstatat(g->dir->head.fd, e->d_name, st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
                *ret_vanished = errno == ENOENT;
                return false;
        }
        if (st->st_dev != g->d->dev)
                return false; /* something is mounted there: lookup says what it is */
        if (S_ISLNK(st->st_mode)) {
                if (nodes_depth(&g->d->nodes, g->dir->head.open.node, &depth) < 0)
                        return false;
                direct_fix_link_size(g->d, g->dir->head.fd, e->d_name, depth, st);
        }
        return true;
}

static void add_with_attrs(struct reading *g, const struct dirent64 *e)
{
        struct vol_entry entry;
        struct node_id id;
        struct stat st;
        bool has_vanished;

        if (!find_attrs(g, e, &st, &has_vanished) ||
            nodes_meet(&g->d->nodes, g->dir->head.open.node, e->d_name, &st, &id) < 0) {
                if (!has_vanished)
                        add_name_only(g, e);
                return;
        }
        direct_fill(g->d, &id, &st, g->epoch, &entry);
        g->is_full = !g->to->add(g->to, e->d_name, &entry, (uint64_t)e->d_off);
        if (g->is_full)
                nodes_forget(&g->d->nodes, id.number, 1);
}

static void add_entry(struct reading *g, const struct dirent64 *e)
{
        if (e->d_type == DT_CHR || e->d_type == DT_BLK)
                return; /* as lookup has it */
        if (g->plus && !is_dot(e->d_name))
                add_with_attrs(g, e);
        else
                add_name_only(g, e);
}

/* Bytes in the buffer, 0 at the end, -errno. */
static ssize_t fill(struct vol_dir *dir)
{
        ssize_t n = getdents64(dir->head.fd, dir->entries, sizeof(dir->entries));

        if (n < 0)
                return errno == ENOENT ? 0
                                       : -errno; /* the directory itself was removed: it is empty */
        dir->used = 0;
        dir->filled = (size_t)n;
        return n;
}

static int go_to(struct vol_dir *dir, uint64_t offset)
{
        /* The start is read anew: that is what rewinddir asks for. */
        if (offset == dir->at && offset != 0)
                return 0;
        if (lseek(dir->head.fd, (off_t)offset, SEEK_SET) < 0)
                return -errno;
        dir->at = offset;
        dir->used = dir->filled = 0;
        return 0;
}

static int read_entries(struct reading *g, uint64_t offset)
{
        struct vol_dir *dir = g->dir;
        ssize_t n = go_to(dir, offset);

        while (n >= 0) {
                const struct dirent64 *e;

                if (dir->used == dir->filled && (n = fill(dir)) <= 0)
                        break;
                e = (const struct dirent64 *)(const void *)(dir->entries + dir->used);
                add_entry(g, e);
                if (g->is_full)
                        break;
                dir->used += e->d_reclen;
                dir->at = (uint64_t)e->d_off;
        }
        return n < 0 ? (int)n : 0;
}

int direct_readdir(struct volume *v, struct vol_op *op, struct vol_dir *dir, uint64_t offset,
                   bool plus, struct vol_dir_sink *to)
{
        struct reading g = {
                .d = direct_of(v), .dir = dir, .to = to, .epoch = volume_epoch(v), .plus = plus};
        int r;

        (void)op; /* as in opendir */
        if (direct_check(g.d) < 0)
                return -ESTALE;
        mutex_lock(&dir->lock);
        while (dir->is_busy)
                cond_wait(&dir->idle, &dir->lock);
        dir->is_busy = true;
        mutex_unlock(&dir->lock);

        r = read_entries(&g, offset);

        mutex_lock(&dir->lock);
        dir->is_busy = false;
        cond_signal(&dir->idle);
        mutex_unlock(&dir->lock);
        return r;
}
