/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the direct volume, for its own files only: direct.c (birth, epochs, what all share),
 * direct_names.c (what is done by name), direct_attrs.c, direct_files.c, direct_dirs.c.
 *
 * Each operation builds the path of its node and opens it anew beneath the root: no descriptor is
 * kept but those of open handles. It then checks that it met what the node stands for: a directory
 * for a directory, the same inode for anything else. -ENOENT: nothing is at that path; -ESTALE:
 * something else is. The kernel then looks the path up again.
 */
#pragma once

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/volume/again.h"
#include "fs/volume/climbs.h"
#include "fs/volume/nodes.h"
#include "fs/volume/recent.h"
#include "fs/volume/volume.h"
#include "transport/base/creds.h"

struct direct {
        struct volume v;

        /* fixed after init */
        int root;
        dev_t dev;
        int fd_limit; /* handles get descriptors below it: the rest is for operations */
        uint64_t stamp_key[2];
        struct creds creds;
        struct volume_config config;
        struct volume_events events;
        char inside[256];

        struct nodes nodes; /* own lock */
        struct recent recent; /* own lock */
        struct climbs climbs; /* own lock */
        struct again again; /* own lock */
        atomic_bool is_gone;
};

struct vol_file {
        struct node_open open; /* first: a handle is found by its node */
        bool is_dir; /* the head of a vol_dir */
        int fd; /* never O_APPEND: pages are written through it, and pwrite would append them */
        bool is_append;
};

static inline struct direct *direct_of(struct volume *v)
{
        return (struct direct *)(void *)v; /* its head */
}

/* The directory that something is made or removed in. */
struct direct_parent {
        int fd;
        bool is_borrowed; /* the root's */
        unsigned depth;
};

/*
 * -ENODEV when the sandbox is gone, -EROFS where nothing may be changed,
 * or what is wrong with the name.
 */
int direct_check(struct direct *d);
int direct_check_change(struct direct *d);
int direct_check_name(const char *name);

/*
 * Open what a node stands for, and see that it is that. A descriptor, *ret_st and *path (as
 * nodes_path fills it).
 */
int direct_open_node(struct direct *d, uint64_t number, int flags, struct stat *ret_st,
                     struct node_path *path);
/*
 * The same for a file that may be replaced all the time (again.h). -ESTALE is what the kernel
 * repeats the walk for.
 */
int direct_open_file(struct direct *d, const struct vol_op *op, uint64_t number, int flags,
                     struct stat *ret_st, struct node_path *path);
int direct_open_parent(struct direct *d, uint64_t number, struct direct_parent *ret);
void direct_parent_done(struct direct_parent *p);

/* An open handle of the node, or NULL; direct_file_put gives it back. */
struct vol_file *direct_file_of(struct direct *d, uint64_t number);
/*
 * The same for a directory. It may have left its path, which is what the number stands for: for
 * those that were removed.
 */
struct vol_file *direct_dir_of(struct direct *d, uint64_t number);
/* When the last reference of a directory's handle went. */
void direct_dir_free(struct vol_file *f);
void direct_file_put(struct direct *d, struct vol_file *f);

/* Take over `fd`, opened on the node `number` by open(2)'s flags. On failure it is closed. */
int direct_file_new(struct direct *d, uint64_t number, int fd, int flags, struct vol_file **ret);
/* Whether the kernel's pages are still right for a file that was opened with these attributes. */
bool direct_keeps_cache(struct direct *d, uint64_t number, const struct stat *st, uint64_t epoch);

/* A number for a file's attributes, never 0: times and size tell one version from another. */
uint64_t direct_stamp(const struct direct *d, const struct stat *st);

/* How long what was found since `epoch` may be believed; remembers that it was told. */
uint64_t direct_ttl_of_node(struct direct *d, uint64_t number, const struct stat *st,
                            uint64_t epoch);
uint64_t direct_ttl_of_name(struct direct *d, uint64_t parent, const char *name, uint64_t epoch);

/* Answer for a node that was just given one more reference. */
void direct_fill(struct direct *d, const struct node_id *id, const struct stat *st, uint64_t epoch,
                 struct vol_entry *ret);

/*
 * A link's size is that of the text that readlink answers. (dir, name) is the link, or `dir` itself
 * with name "".
 */
void direct_fix_link_size(struct direct *d, int dir, const char *name, unsigned depth,
                          struct stat *st);

/* The table's functions, by file. */
int direct_lookup(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  struct vol_entry *ret);
int direct_mkdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret);
int direct_mknod(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret);
int direct_symlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                   const char *target, struct vol_entry *ret);
int direct_link(struct volume *v, struct vol_op *op, uint64_t node, uint64_t parent,
                const char *name, struct vol_entry *ret);
int direct_unlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name);
int direct_rmdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name);
int direct_rename(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  uint64_t new_parent, const char *new_name, unsigned flags);

int direct_getattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   struct vol_entry *ret);
int direct_setattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   unsigned what, const struct stat *to, struct vol_entry *ret);
int direct_readlink(struct volume *v, struct vol_op *op, uint64_t node, char *target, size_t size);
int direct_statfs(struct volume *v, struct vol_op *op, struct statvfs *ret);

int direct_create(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  mode_t mode, int flags, struct vol_entry *ret, struct vol_opened *ret_opened);
int direct_open(struct volume *v, struct vol_op *op, uint64_t node, int flags,
                struct vol_opened *ret);
ssize_t direct_read(struct volume *v, struct vol_op *op, struct vol_file *f, void *data,
                    size_t size, uint64_t offset);
ssize_t direct_write(struct volume *v, struct vol_op *op, struct vol_file *f, const void *data,
                     size_t size, uint64_t offset);
int direct_flush(struct volume *v, struct vol_op *op, struct vol_file *f);
int direct_fsync(struct volume *v, struct vol_op *op, struct vol_file *f, bool data_only);
int direct_fallocate(struct volume *v, struct vol_op *op, struct vol_file *f, int mode,
                     uint64_t offset, uint64_t size);
ssize_t direct_copy_range(struct volume *v, struct vol_op *op, struct vol_file *from,
                          uint64_t from_offset, struct vol_file *to, uint64_t to_offset,
                          size_t size);
int64_t direct_lseek(struct volume *v, struct vol_op *op, struct vol_file *f, int64_t offset,
                     int whence);
void direct_release(struct volume *v, struct vol_file *f);

int direct_opendir(struct volume *v, struct vol_op *op, uint64_t node, struct vol_dir **ret);
int direct_readdir(struct volume *v, struct vol_op *op, struct vol_dir *dir, uint64_t offset,
                   bool plus, struct vol_dir_sink *to);
int direct_fsyncdir(struct volume *v, struct vol_op *op, struct vol_dir *dir, bool data_only);
void direct_releasedir(struct volume *v, struct vol_dir *dir);
