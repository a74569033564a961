/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The direct volume: birth, the end of a command, and what its parts share.
 *
 * What the kernel may cache: names and attributes for config.attr_ttl_ns, at most 1 s. All that was
 * told within that time is remembered (recent.h). exec_ended begins a new epoch, waits for the
 * operations of the old one, takes back what was told, and drops the pages of open files. An
 * operation that sees the epoch change under it tells nothing with a time-out; since it remembers
 * first and looks at the epoch afterwards, none slips through.
 */

#include "fs/volume/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fs/volume/anchor.h"
#include "fs/volume/recall.h"
#include "providers/provider.h"
#include "transport/base/beneath.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/random.h"

#define TOLD_AGAIN_MS 250 /* a node that was told within this time isn't remembered anew */
#define TTL_MAX_NS NS_PER_S
#define FDS_FOR_OPERATIONS 64
#define OTHER_NAMES 64 /* names of a hard-linked file that are tried */

/* ---- what may be done ---- */

int direct_check(struct direct *d)
{
        return atomic_load(&d->is_gone) ? -ENODEV : 0;
}

int direct_check_change(struct direct *d)
{
        int r = direct_check(d);

        return r == 0 && d->config.is_readonly ? -EROFS : r;
}

int direct_check_name(const char *name)
{
        if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            strchr(name, '/'))
                return -EINVAL;
        return strlen(name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* ---- opening ---- */

static bool is_node(const struct node_path *path, const struct stat *st)
{
        return (st->st_mode & S_IFMT) == path->kind && (path->ino == 0 || path->ino == st->st_ino);
}

static int open_path(struct direct *d, const struct node_path *path, int flags, struct stat *st)
{
        int fd = beneath_open(d->root, path->text, path->length, flags, 0);

        if (fd < 0)
                return fd;
        if (fstat(fd, st) < 0 || !is_node(path, st)) {
                (void)close(fd); /* nothing was done with it */
                return -ESTALE;
        }
        return fd;
}

int direct_open_node(struct direct *d, uint64_t number, int flags, struct stat *ret_st,
                     struct node_path *path)
{
        int r = -ESTALE;

        for (int i = 0; i < OTHER_NAMES; i++) {
                r = nodes_path(&d->nodes, number, NULL, path);
                if (r == 0)
                        r = open_path(d, path, flags, ret_st);
                else
                        path->text[0] = '\0';
                if (r != -ENOENT && r != -ESTALE)
                        break;
                if (!nodes_drop_name(&d->nodes, number, path))
                        break;
                node_path_done(path);
        }
        node_path_done(path);
        return r;
}

/* Takes over `kept`. The number may be another node's by now, which the file isn't. */
static int open_kept(struct direct *d, uint64_t number, int kept, int flags, struct stat *ret_st)
{
        char path[64];
        int fd, r;

        if (fstat(kept, ret_st) < 0 || !nodes_is(&d->nodes, number, ret_st)) {
                (void)close(kept); /* O_PATH */
                return -ESTALE;
        }
        if ((flags & O_PATH) != 0)
                return kept;
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", kept); /* fits any number */
        fd = open(path, flags | O_CLOEXEC);
        r = fd < 0 ? -errno : fd;
        (void)close(kept); /* O_PATH */
        if (fd >= 0 && fstat(fd, ret_st) < 0) {
                r = -errno;
                (void)close(fd); /* nothing was done with it */
        }
        return r;
}

int direct_open_file(struct direct *d, const struct vol_op *op, uint64_t number, int flags,
                     struct stat *ret_st, struct node_path *path)
{
        _cleanup_(closep) int kept = again_take(&d->again, op->tid, number);
        int r = direct_open_node(d, number, flags, ret_st, path);

        if (r != -ESTALE)
                return r;
        if (kept >= 0)
                return open_kept(d, number, STEAL_FD(kept), flags, ret_st);
        again_note(&d->again, op->tid);
        return r;
}

int direct_open_parent(struct direct *d, uint64_t number, struct direct_parent *ret)
{
        struct node_path path;
        int r;

        if (number == VOLUME_ROOT) {
                *ret = (struct direct_parent){.fd = d->root, .is_borrowed = true};
                return 0;
        }
        r = nodes_path(&d->nodes, number, NULL, &path);
        if (r == 0 && !S_ISDIR(path.kind))
                r = -ENOTDIR;
        if (r == 0)
                r = beneath_open(d->root, path.text, path.length, O_PATH | O_DIRECTORY, 0);
        node_path_done(&path);
        if (r < 0)
                return r;
        *ret = (struct direct_parent){.fd = r, .depth = path.depth};
        return 0;
}

void direct_parent_done(struct direct_parent *p)
{
        if (!p->is_borrowed)
                closep(&p->fd);
}

/* ---- what is told ---- */

static uint64_t stir(const struct direct *d, uint64_t h, uint64_t word)
{
        unsigned __int128 p =
                (unsigned __int128)(h ^ word ^ d->stamp_key[0]) * (d->stamp_key[1] | 1);

        return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint64_t direct_stamp(const struct direct *d, const struct stat *st)
{
        uint64_t h = stir(d, 0, clock_from_timespec(st->st_mtim));

        h = stir(d, h, clock_from_timespec(st->st_ctim));
        h = stir(d, h, (uint64_t)st->st_size);
        return h ? h : 1;
}

static uint32_t ms_of(uint64_t ns)
{
        return (uint32_t)(ns / NS_PER_MS);
}

static uint64_t ttl_since(struct direct *d, uint64_t epoch)
{
        return volume_epoch(&d->v) == epoch ? d->config.attr_ttl_ns : 0;
}

uint64_t direct_ttl_of_node(struct direct *d, uint64_t number, const struct stat *st,
                            uint64_t epoch)
{
        uint64_t now_ns;

        /* Its other names may be nodes of their own, each with a cache of the kernel. */
        if (d->config.attr_ttl_ns == 0 || (!S_ISDIR(st->st_mode) && st->st_nlink > 1))
                return 0;
        if (!nodes_may_keep(&d->nodes, number, direct_stamp(d, st)))
                return 0;
        now_ns = clock_mono_ns();
        if (nodes_hand_out(&d->nodes, number, ms_of(now_ns), TOLD_AGAIN_MS))
                recent_add_node(&d->recent, number, now_ns);
        return ttl_since(d, epoch);
}

uint64_t direct_ttl_of_name(struct direct *d, uint64_t parent, const char *name, uint64_t epoch)
{
        if (d->config.attr_ttl_ns == 0 ||
            !recent_add_name(&d->recent, parent, name, clock_mono_ns()))
                return 0;
        return ttl_since(d, epoch);
}

void direct_fill(struct direct *d, const struct node_id *id, const struct stat *st, uint64_t epoch,
                 struct vol_entry *ret)
{
        ret->node = id->number;
        ret->generation = id->generation;
        ret->st = *st;
        ret->ttl_ns = direct_ttl_of_node(d, id->number, st, epoch);
}

void direct_fix_link_size(struct direct *d, int dir, const char *name, unsigned depth,
                          struct stat *st)
{
        char text[PATH_MAX], target[PATH_MAX];
        ssize_t size;
        int r;

        if (!S_ISLNK(st->st_mode) || d->config.has_raw_symlinks)
                return;
        size = readlinkat(dir, name, text, sizeof(text) - 1);
        if (size <= 0)
                return;
        text[size] = '\0';
        r = anchor_target(text, depth, d->inside, target, sizeof(target), NULL);
        if (r >= 0)
                st->st_size = r;
}

/* ---- the end of a command ---- */

static void direct_exec_ended(struct volume *v)
{
        struct direct *d = direct_of(v);

        if (!volume_turn(v))
                log_warning("an operation of a volume did not end within 2 s: going on without it");
        recall_all(&d->nodes, &d->recent, &d->events);
}

static void direct_gone(struct volume *v)
{
        struct direct *d = direct_of(v);

        atomic_store(&d->is_gone, true);
}

/* ---- birth and death ---- */

static void direct_free(struct volume *v)
{
        struct direct *d = direct_of(v);

        again_done(&d->again);
        climbs_done(&d->climbs);
        recent_done(&d->recent);
        nodes_done(&d->nodes);
        closep(&d->root);
        volume_done(v);
        free(d);
}

static void direct_forget(struct volume *v, uint64_t node, uint64_t count)
{
        nodes_forget(&direct_of(v)->nodes, node, count);
}

static const struct vol_ops direct_ops = {
        .free = direct_free,
        .lookup = direct_lookup,
        .forget = direct_forget,
        .getattr = direct_getattr,
        .setattr = direct_setattr,
        .readlink = direct_readlink,
        .mkdir = direct_mkdir,
        .mknod = direct_mknod,
        .symlink = direct_symlink,
        .link = direct_link,
        .unlink = direct_unlink,
        .rmdir = direct_rmdir,
        .rename = direct_rename,
        .create = direct_create,
        .open = direct_open,
        .read = direct_read,
        .write = direct_write,
        .flush = direct_flush,
        .fsync = direct_fsync,
        .fallocate = direct_fallocate,
        .copy_range = direct_copy_range,
        .lseek = direct_lseek,
        .release = direct_release,
        .opendir = direct_opendir,
        .readdir = direct_readdir,
        .fsyncdir = direct_fsyncdir,
        .releasedir = direct_releasedir,
        .statfs = direct_statfs,
        .exec_ended = direct_exec_ended,
        .gone = direct_gone,
};

/*
 * Handles leave some descriptors for the operations themselves: an open that fails is better than
 * an ls that fails.
 */
static int handle_limit(void)
{
        struct rlimit limit;
        rlim_t spare = FDS_FOR_OPERATIONS;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > INT_MAX)
                return INT_MAX;
        if (spare > limit.rlim_cur / 4)
                spare = limit.rlim_cur / 4;
        return (int)(limit.rlim_cur - spare);
}

int volume_direct_new(const struct box_root *root, const struct volume_config *config,
                      const struct volume_events *events, struct volume **ret)
{
        struct direct *d;
        struct stat st;
        int r;

        if (fstat(root->fd, &st) < 0)
                return -errno;
        if (!S_ISDIR(st.st_mode))
                return -ENOTDIR;
        d = calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        r = random_bytes(d->stamp_key, sizeof(d->stamp_key));
        if (r == 0)
                r = nodes_init(&d->nodes);
        if (r < 0) {
                free(d);
                return r;
        }
        volume_init(&d->v, &direct_ops);
        d->root = root->fd;
        d->dev = st.st_dev;
        d->fd_limit = handle_limit();
        d->config = *config;
        if (d->config.attr_ttl_ns > TTL_MAX_NS)
                d->config.attr_ttl_ns = TTL_MAX_NS;
        d->events = *events;
        memcpy(d->inside, root->inside, sizeof(d->inside));
        d->inside[sizeof(d->inside) - 1] = '\0';
        climbs_init(&d->climbs);
        again_init(&d->again);
        creds_init(&d->creds, root->uid, root->gid);
        /* Longer than any time-out by what isn't remembered anew, and by the way of a reply. */
        recent_init(&d->recent, d->config.attr_ttl_ns + (TOLD_AGAIN_MS + 50) * NS_PER_MS);
        *ret = &d->v;
        return 0;
}
