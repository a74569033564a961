/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done by name: the parent is opened beneath the root,
 * then one system call takes one component.
 */

#include "fs/volume/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "transport/base/beneath.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

/* Devices are no part of a sandbox's files: nobody inside can make one. */
static bool is_hidden(mode_t mode)
{
        return S_ISCHR(mode) || S_ISBLK(mode);
}

/* ---- lookup ---- */

static int answer_absent(struct direct *d, uint64_t parent, const char *name, uint64_t epoch,
                         struct vol_entry *ret)
{
        *ret = (struct vol_entry){.ttl_ns = direct_ttl_of_name(d, parent, name, epoch)};
        return 0;
}

/* `fd` is what was found at `path`. */
static int answer_found(struct direct *d, const struct vol_op *op, uint64_t parent,
                        const char *name, const struct node_path *path, int fd, uint64_t epoch,
                        struct vol_entry *ret)
{
        struct node_id id;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (is_hidden(st.st_mode))
                return answer_absent(d, parent, name, epoch, ret);
        direct_fix_link_size(d, fd, "", path->depth - 1, &st);
        r = nodes_meet(&d->nodes, parent, name, &st, &id);
        if (r < 0)
                return r;
        if (S_ISREG(st.st_mode))
                again_found(&d->again, op->tid, id.number, fd);
        direct_fill(d, &id, &st, epoch, ret);
        return 0;
}

int direct_lookup(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  struct vol_entry *ret)
{
        struct direct *d = direct_of(v);
        uint64_t epoch = volume_epoch(v);
        struct node_path path;
        int r = direct_check(d);

        climbs_end(&d->climbs, op->tid);
        if (r == 0)
                r = direct_check_name(name);
        if (r < 0)
                return r;
        r = nodes_path(&d->nodes, parent, name, &path);
        if (r == 0) {
                _cleanup_(closep) int fd = beneath_open(d->root, path.text, path.length, O_PATH, 0);

                r = fd;
                if (fd >= 0)
                        r = answer_found(d, op, parent, name, &path, fd, epoch, ret);
                else if (fd == -ENOENT)
                        r = answer_absent(d, parent, name, epoch, ret);
        }
        node_path_done(&path);
        return r;
}

/* ---- making ---- */

/* What mkdir, mknod and symlink make. */
struct made {
        mode_t mode; /* with S_IFMT */
        const char *target; /* of a link, else "" */
};

static int make_once(int dir, const char *name, const struct made *m, mode_t mode)
{
        int r;

        if (S_ISDIR(m->mode))
                r = mkdirat(dir, name, mode & 07777);
        else if (S_ISLNK(m->mode))
                r = symlinkat(m->target, dir, name);
        else
                r = mknodat(dir, name, mode, 0);
        return r < 0 ? -errno : 0;
}

/* As root, without set-uid bits while it is root's. Those come by chmod, as for any other file. */
static int make_and_give(struct direct *d, int dir, const char *name, const struct made *m)
{
        int r = make_once(dir, name, m, m->mode & ~(mode_t)06000);

        return r < 0 ? r : creds_give_at(&d->creds, dir, name);
}

static int make_as_owner(struct direct *d, int dir, const char *name, const struct made *m)
{
        int r;

        if (d->creds.how == CREDS_CHOWN)
                return make_and_give(d, dir, name, m);
        creds_enter(&d->creds);
        r = make_once(dir, name, m, m->mode);
        creds_leave(&d->creds);
        if (r < 0 && creds_may_retry(&d->creds, -r))
                r = make_and_give(d, dir, name, m);
        return r;
}

static int make_in(struct direct *d, const struct direct_parent *in, uint64_t parent,
                   const char *name, const struct made *m, uint64_t epoch, struct vol_entry *ret)
{
        struct node_id id;
        struct stat st;
        int r = make_as_owner(d, in->fd, name, m);

        if (r < 0)
                return r;
        if (fstatat(in->fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
                return -errno;
        if ((st.st_mode & S_IFMT) != (m->mode & S_IFMT))
                return -ESTALE; /* somebody inside has put something else there */
        direct_fix_link_size(d, in->fd, name, in->depth, &st);
        r = nodes_make(&d->nodes, parent, name, &st, &id);
        if (r == 0)
                direct_fill(d, &id, &st, epoch, ret);
        return r;
}

static int make(struct volume *v, uint64_t parent, const char *name, const struct made *m,
                struct vol_entry *ret)
{
        struct direct *d = direct_of(v);
        uint64_t epoch = volume_epoch(v);
        struct direct_parent in = {.fd = -1};
        int r = direct_check_change(d);

        if (r == 0)
                r = direct_check_name(name);
        if (r == 0)
                r = direct_open_parent(d, parent, &in);
        if (r < 0)
                return r;
        r = make_in(d, &in, parent, name, m, epoch, ret);
        direct_parent_done(&in);
        return r;
}

int direct_mkdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret)
{
        struct made m = {.mode = S_IFDIR | (mode & 07777 & ~op->umask), .target = ""};

        return make(v, parent, name, &m, ret);
}

int direct_mknod(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret)
{
        struct made m = {.mode = (mode & S_IFMT) | (mode & 07777 & ~op->umask), .target = ""};

        if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
                return -EPERM;
        return make(v, parent, name, &m, ret);
}

int direct_symlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                   const char *target, struct vol_entry *ret)
{
        struct made m = {.mode = S_IFLNK, .target = target};

        (void)op; /* links have no mode */
        return make(v, parent, name, &m, ret);
}

/* ---- hard links ---- */

/* A descriptor that stands for the file, an open handle's where there is one. */
static int link_fd(const struct direct_parent *in, const char *name, int fd, struct stat *ret_st)
{
        struct stat st;
        char source[64];

        (void)snprintf(source, sizeof(source), "/proc/self/fd/%d", fd); /* fits any number */
        if (fstat(fd, &st) < 0)
                return -errno;
        if (linkat(AT_FDCWD, source, in->fd, name, AT_SYMLINK_FOLLOW) < 0)
                return -errno;
        if (fstatat(in->fd, name, ret_st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return ret_st->st_ino == st.st_ino ? 0 : -ESTALE;
}

static int link_node(struct direct *d, const struct vol_op *op, uint64_t node,
                     const struct direct_parent *in, const char *name, struct stat *ret_st)
{
        struct vol_file *f = direct_file_of(d, node);
        struct node_path path;
        struct stat st;
        int fd, r;

        if (f) {
                r = link_fd(in, name, f->fd, ret_st);
                direct_file_put(d, f);
                return r;
        }
        fd = direct_open_file(d, op, node, O_PATH, &st, &path);
        if (fd < 0)
                return fd;
        r = link_fd(in, name, fd, ret_st);
        closep(&fd);
        return r;
}

int direct_link(struct volume *v, struct vol_op *op, uint64_t node, uint64_t parent,
                const char *name, struct vol_entry *ret)
{
        struct direct *d = direct_of(v);
        uint64_t epoch = volume_epoch(v);
        struct direct_parent in = {.fd = -1};
        struct node_id id;
        struct stat st = {0};
        int r = direct_check_change(d);

        if (r == 0)
                r = direct_check_name(name);
        if (r == 0)
                r = direct_open_parent(d, parent, &in);
        if (r < 0)
                return r;
        r = link_node(d, op, node, &in, name, &st);
        if (r == 0)
                direct_fix_link_size(d, in.fd, name, in.depth, &st);
        direct_parent_done(&in);
        if (r < 0)
                return r;
        /* What a symbolic link says depends on where it is: each name is a node (anchor.h). */
        if (S_ISREG(st.st_mode))
                r = nodes_link(&d->nodes, node, parent, name, &id);
        else
                r = nodes_make(&d->nodes, parent, name, &st, &id);
        if (r == 0 && id.number != node)
                d->events.inval_node(d->events.ctx, node, true); /* it has one more name */
        if (r == 0)
                direct_fill(d, &id, &st, epoch, ret);
        return r;
}

/* ---- removing and renaming ---- */

static int remove_name(struct volume *v, uint64_t parent, const char *name, int flags)
{
        struct direct *d = direct_of(v);
        struct direct_parent in = {.fd = -1};
        int r = direct_check_change(d);

        if (r == 0)
                r = direct_check_name(name);
        if (r == 0)
                r = direct_open_parent(d, parent, &in);
        if (r < 0)
                return r;
        r = unlinkat(in.fd, name, flags) < 0 ? -errno : 0;
        direct_parent_done(&in);
        if (r == 0)
                nodes_remove(&d->nodes, parent, name);
        return r;
}

int direct_unlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name)
{
        (void)op; /* as in lookup */
        return remove_name(v, parent, name, 0);
}

int direct_rmdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name)
{
        (void)op; /* as in lookup */
        return remove_name(v, parent, name, AT_REMOVEDIR);
}

/* What a rename is about, with its two directories opened. */
struct renaming {
        uint64_t parent, new_parent;
        const char *name, *new_name;
        unsigned flags;
        struct direct_parent from, to;
};

/* Before a rename to another depth. */
static int prepare(struct direct *d, const struct vol_op *op, const struct renaming *x)
{
        bool is_swap = (x->flags & RENAME_EXCHANGE) != 0;
        bool is_up = x->to.depth < x->from.depth;

        if (x->to.depth == x->from.depth || d->config.has_raw_symlinks)
                return 0;
        if (!nodes_may_be_directory(&d->nodes, x->parent, x->name) &&
            (!is_swap || !nodes_may_be_directory(&d->nodes, x->new_parent, x->new_name)))
                return 0;
        climbs_move(&d->climbs, x->parent);
        return is_up || is_swap ? climbs_wait(&d->climbs, op->tid, op->may_wait) : 0;
}

/*
 * The table follows what was renamed on disk. A link at another depth gets another number: who
 * found it where it was must not be answered for where it is.
 */
static void rename_nodes(struct direct *d, const struct renaming *x)
{
        bool is_swap = (x->flags & RENAME_EXCHANGE) != 0;

        if (x->to.depth != x->from.depth) {
                if (S_ISLNK(nodes_kind(&d->nodes, x->parent, x->name)))
                        nodes_remove(&d->nodes, x->parent, x->name);
                if (is_swap && S_ISLNK(nodes_kind(&d->nodes, x->new_parent, x->new_name)))
                        nodes_remove(&d->nodes, x->new_parent, x->new_name);
        }
        if (is_swap)
                nodes_exchange(&d->nodes, x->parent, x->name, x->new_parent, x->new_name);
        else
                nodes_move(&d->nodes, x->parent, x->name, x->new_parent, x->new_name);
}

static int rename_opened(struct direct *d, const struct vol_op *op, const struct renaming *x)
{
        int r = prepare(d, op, x);

        if (r < 0)
                return r;
        if (renameat2(x->from.fd, x->name, x->to.fd, x->new_name, x->flags) < 0)
                return -errno;
        rename_nodes(d, x);
        return 0;
}

static int rename_between(struct direct *d, const struct vol_op *op, struct renaming *x)
{
        int r = direct_open_parent(d, x->parent, &x->from);

        if (r < 0)
                return r;
        if (x->parent == x->new_parent) {
                x->to = x->from;
                x->to.is_borrowed = true;
        } else {
                r = direct_open_parent(d, x->new_parent, &x->to);
        }
        if (r == 0) {
                r = rename_opened(d, op, x);
                direct_parent_done(&x->to);
        }
        direct_parent_done(&x->from);
        return r;
}

int direct_rename(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  uint64_t new_parent, const char *new_name, unsigned flags)
{
        struct direct *d = direct_of(v);
        struct renaming x = {
                .parent = parent,
                .new_parent = new_parent,
                .name = name,
                .new_name = new_name,
                .flags = flags,
                .from = {.fd = -1},
                .to = {.fd = -1},
        };
        int r = direct_check_change(d);

        climbs_end(&d->climbs, op->tid);
        if (r == 0)
                r = direct_check_name(name);
        if (r == 0)
                r = direct_check_name(new_name);
        if (r < 0)
                return r;
        if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE)
                return -EINVAL;
        return rename_between(d, op, &x);
}
