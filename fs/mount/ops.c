/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pair of functions an operation: on_X puts libfuse's arguments into a request, run_X calls the
 * tree and replies, as often as it takes. Texts and data of the arguments live until on_X returns.
 */

#include "fs/mount/ops.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/mount/files.h"
#include "fs/mount/init.h"
#include "fs/mount/mount.h"
#include "fs/mount/park.h"
#include "fs/mount/pollers.h"
#include "fs/mount/reply.h"
#include "fs/mount/request.h"
#include "fs/tree/tree.h"
#include "fs/volume/volume.h"
#include "transport/base/clock.h"

static struct mount *mount_of(fuse_req_t fuse)
{
        return fuse_req_userdata(fuse);
}

static struct file *file_of(const struct fuse_file_info *fi)
{
        return (struct file *)(uintptr_t)fi->fh; /* NOLINT(performance-no-int-to-ptr) */
}

/* For those operations that come with and without. */
static struct handle *handle_of(const struct file *file)
{
        return file ? file->handle : NULL;
}

static void fill_op(struct op *op, fuse_req_t fuse)
{
        const struct fuse_ctx *ctx = fuse_req_ctx(fuse);

        op_init(op, NEVER_NS);
        op->tid = ctx->pid;
        op->uid = ctx->uid;
        op->gid = ctx->gid;
        op->umask = ctx->umask;
}

/* Not an initialiser: that would clear the sentence's kilobyte each time. */
static void fill(struct request *r, fuse_req_t fuse, const char *what, request_fn run,
                 enum request_hold hold)
{
        r->fuse = fuse;
        r->run = run;
        r->what = what;
        r->hold = hold;
        fill_op(&r->op, fuse);
}

static void serve(struct request *r)
{
        park_serve(mount_of(r->fuse)->park, r);
}

/* Memory of this thread for what is read, MOUNT_IO_MAX bytes, freed at its end. NULL: none. */
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static int scratch_error;

static void make_scratch_key(void)
{
        scratch_error = pthread_key_create(&scratch_key, free);
}

static char *scratch(void)
{
        char *memory;

        (void)pthread_once(&scratch_once, make_scratch_key); /* can't fail with such arguments */
        if (scratch_error != 0)
                return NULL;
        memory = pthread_getspecific(scratch_key);
        if (memory)
                return memory;
        memory = malloc(MOUNT_IO_MAX);
        if (memory && pthread_setspecific(scratch_key, memory) != 0) {
                free(memory);
                return NULL;
        }
        return memory;
}

/* ---- names ---- */

static int run_lookup(struct mount *m, struct request *r)
{
        struct tree_entry e = {0};
        int code = tree_lookup(m->tree, &r->op, r->a.node, r->a.name, &e);

        return reply_entry(m, r, code, &e);
}

static void on_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
        struct request r;

        fill(&r, fuse, "lookup", run_lookup, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .name = name};
        serve(&r);
}

static void on_forget(fuse_req_t fuse, fuse_ino_t node, uint64_t count)
{
        tree_forget(mount_of(fuse)->tree, node, count);
        fuse_reply_none(fuse);
}

static void on_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *all)
{
        for (size_t i = 0; i < count; i++)
                tree_forget(mount_of(fuse)->tree, all[i].ino, all[i].nlookup);
        fuse_reply_none(fuse);
}

static int run_mkdir(struct mount *m, struct request *r)
{
        struct tree_entry e = {0};
        int code = tree_mkdir(m->tree, &r->op, r->a.node, r->a.name, r->a.mode, &e);

        return reply_entry(m, r, code, &e);
}

static void on_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode)
{
        struct request r;

        fill(&r, fuse, "mkdir", run_mkdir, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .name = name, .mode = mode};
        serve(&r);
}

static int run_mknod(struct mount *m, struct request *r)
{
        struct tree_entry e = {0};
        int code = tree_mknod(m->tree, &r->op, r->a.node, r->a.name, r->a.mode, &e);

        return reply_entry(m, r, code, &e);
}

static void on_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode,
                     dev_t device)
{
        struct request r;

        (void)device; /* devices are refused by their mode */
        fill(&r, fuse, "mknod", run_mknod, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .name = name, .mode = mode};
        serve(&r);
}

static int run_symlink(struct mount *m, struct request *r)
{
        struct tree_entry e = {0};
        int code = tree_symlink(m->tree, &r->op, r->a.node, r->a.name, r->a.name2, &e);

        return reply_entry(m, r, code, &e);
}

static void on_symlink(fuse_req_t fuse, const char *target, fuse_ino_t parent, const char *name)
{
        struct request r;

        fill(&r, fuse, "symlink", run_symlink, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .name = name, .name2 = target};
        serve(&r);
}

/* node2 is the file, node the directory that the link goes into. */
static int run_link(struct mount *m, struct request *r)
{
        struct tree_entry e = {0};
        int code = tree_link(m->tree, &r->op, r->a.node2, r->a.node, r->a.name, &e);

        return reply_entry(m, r, code, &e);
}

static void on_link(fuse_req_t fuse, fuse_ino_t node, fuse_ino_t parent, const char *name)
{
        struct request r;

        fill(&r, fuse, "link", run_link, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .node2 = node, .name = name};
        serve(&r);
}

static int run_unlink(struct mount *m, struct request *r)
{
        int code = tree_unlink(m->tree, &r->op, r->a.node, r->a.name);

        return code == -EINPROGRESS ? code : reply_err(r, code);
}

static void on_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
        struct request r;

        fill(&r, fuse, "unlink", run_unlink, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .name = name};
        serve(&r);
}

static int run_rmdir(struct mount *m, struct request *r)
{
        int code = tree_rmdir(m->tree, &r->op, r->a.node, r->a.name);

        return code == -EINPROGRESS ? code : reply_err(r, code);
}

static void on_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
        struct request r;

        fill(&r, fuse, "rmdir", run_rmdir, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .name = name};
        serve(&r);
}

static int run_rename(struct mount *m, struct request *r)
{
        int code = tree_rename(m->tree, &r->op, r->a.node, r->a.name, r->a.node2, r->a.name2,
                               r->a.what);

        return code == -EINPROGRESS ? code : reply_err(r, code);
}

static void on_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned flags)
{
        struct request r;

        fill(&r, fuse, "rename", run_rename, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent,
                                    .name = name,
                                    .node2 = new_parent,
                                    .name2 = new_name,
                                    .what = flags};
        serve(&r);
}

static int run_readlink(struct mount *m, struct request *r)
{
        char target[PATH_MAX];
        int code = tree_readlink(m->tree, &r->op, r->a.node, target, sizeof(target));

        return reply_text(r, code, target);
}

static void on_readlink(fuse_req_t fuse, fuse_ino_t node)
{
        struct request r;

        fill(&r, fuse, "readlink", run_readlink, HOLD_NOTHING);
        r.a = (struct request_args){.node = node};
        serve(&r);
}

/* ---- attributes ---- */

static int run_getattr(struct mount *m, struct request *r)
{
        struct tree_entry e = {0};
        int code = tree_getattr(m->tree, &r->op, r->a.node, handle_of(r->a.file), &e);

        return reply_attr(r, code, &e);
}

static void on_getattr(fuse_req_t fuse, fuse_ino_t node, struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "getattr", run_getattr, HOLD_NOTHING);
        r.a = (struct request_args){.node = node, .file = fi ? file_of(fi) : NULL};
        serve(&r);
}

/* What the tree knows; owner and ctime are answered by success. */
static unsigned set_bits(int to_set)
{
        static const struct {
                int fuse;
                unsigned vol;
        } bits[] = {
                {FUSE_SET_ATTR_MODE, VOL_SET_MODE},
                {FUSE_SET_ATTR_SIZE, VOL_SET_SIZE},
                {FUSE_SET_ATTR_ATIME, VOL_SET_ATIME},
                {FUSE_SET_ATTR_MTIME, VOL_SET_MTIME},
                {FUSE_SET_ATTR_ATIME_NOW, VOL_SET_ATIME_NOW},
                {FUSE_SET_ATTR_MTIME_NOW, VOL_SET_MTIME_NOW},
        };
        unsigned what = 0;

        for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
                if (to_set & bits[i].fuse)
                        what |= bits[i].vol;
        /* The kernel sends ATIME along with ATIME_NOW. */
        if (what & VOL_SET_ATIME_NOW)
                what &= ~(unsigned)VOL_SET_ATIME;
        if (what & VOL_SET_MTIME_NOW)
                what &= ~(unsigned)VOL_SET_MTIME;
        return what;
}

static int run_setattr(struct mount *m, struct request *r)
{
        struct tree_entry e = {0};
        int code = tree_setattr(m->tree, &r->op, r->a.node, handle_of(r->a.file), r->a.what,
                                r->a.st, &e);

        return reply_attr(r, code, &e);
}

static void on_setattr(fuse_req_t fuse, fuse_ino_t node, struct stat *st, int to_set,
                       struct fuse_file_info *fi)
{
        unsigned what = set_bits(to_set);
        struct request r;

        fill(&r, fuse, "setattr", what == 0 ? run_getattr : run_setattr, HOLD_DIRECTORY);
        r.a = (struct request_args){
                .node = node, .st = st, .what = what, .file = fi ? file_of(fi) : NULL};
        serve(&r);
}

static int run_statfs(struct mount *m, struct request *r)
{
        struct statvfs st = {0};
        int code = tree_statfs(m->tree, &r->op, r->a.node, &st);

        return reply_statfs(r, code, &st);
}

static void on_statfs(fuse_req_t fuse, fuse_ino_t node)
{
        struct request r;

        fill(&r, fuse, "statfs", run_statfs, HOLD_NOTHING);
        r.a = (struct request_args){.node = node};
        serve(&r);
}

/* ---- files ---- */

static int run_create(struct mount *m, struct request *r)
{
        struct tree_opened opened = {.backing_fd = -1};
        struct tree_entry e = {0};
        int code = tree_create(m->tree, &r->op, r->a.node, r->a.name, r->a.mode, r->a.flags, &e,
                               &opened);

        return reply_opened(m, r, code, &e, e.node, &opened);
}

static void on_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "create", run_create, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = parent, .name = name, .mode = mode, .flags = fi->flags};
        serve(&r);
}

static int run_open(struct mount *m, struct request *r)
{
        struct tree_opened opened = {.backing_fd = -1};
        int code = tree_open(m->tree, &r->op, r->a.node, r->a.flags, &opened);

        return reply_opened(m, r, code, NULL, r->a.node, &opened);
}

static void on_open(fuse_req_t fuse, fuse_ino_t node, struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "open", run_open, HOLD_NOTHING);
        r.a = (struct request_args){.node = node, .flags = fi->flags};
        serve(&r);
}

static int run_read(struct mount *m, struct request *r)
{
        char *data = scratch();
        ssize_t code = -ENOMEM;

        if (data)
                code = tree_read(m->tree, &r->op, r->a.file->handle, data, r->a.size,
                                 (uint64_t)r->a.offset);
        return reply_data(r, code, data);
}

static void on_read(fuse_req_t fuse, fuse_ino_t node, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
        struct file *file = file_of(fi);
        struct request r;

        fill(&r, fuse, "read", run_read, file->is_direct ? HOLD_NOTHING : HOLD_PAGES);
        r.a = (struct request_args){.node = node,
                                    .file = file,
                                    .size = size < MOUNT_IO_MAX ? size : MOUNT_IO_MAX,
                                    .offset = offset};
        r.op.lock_owner = fi->lock_owner;
        serve(&r);
}

static int run_write(struct mount *m, struct request *r)
{
        ssize_t code = tree_write(m->tree, &r->op, r->a.file->handle, r->a.data, r->a.size,
                                  (uint64_t)r->a.offset);

        return reply_count(r, code);
}

static void on_write(fuse_req_t fuse, fuse_ino_t node, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
        struct file *file = file_of(fi);
        struct request r;

        fill(&r, fuse, "write", run_write, file->is_direct ? HOLD_NOTHING : HOLD_PAGES);
        r.a = (struct request_args){
                .node = node, .file = file, .data = data, .size = size, .offset = offset};
        r.op.lock_owner = fi->lock_owner;
        r.op.is_writeback = fi->writepage;
        serve(&r);
}

static int run_flush(struct mount *m, struct request *r)
{
        int code = tree_flush(m->tree, &r->op, r->a.file->handle);

        return code == -EINPROGRESS ? code : reply_err(r, code);
}

static void on_flush(fuse_req_t fuse, fuse_ino_t node, struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "flush", run_flush, HOLD_NOTHING);
        r.a = (struct request_args){.node = node, .file = file_of(fi)};
        r.op.lock_owner = fi->lock_owner;
        serve(&r);
}

static int run_fsync(struct mount *m, struct request *r)
{
        int code = tree_fsync(m->tree, &r->op, r->a.file->handle, r->a.what != 0);

        return code == -EINPROGRESS ? code : reply_err(r, code);
}

static void on_fsync(fuse_req_t fuse, fuse_ino_t node, int data_only, struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "fsync", run_fsync, HOLD_NOTHING);
        r.a = (struct request_args){.node = node, .file = file_of(fi), .what = data_only != 0};
        serve(&r);
}

static int run_fallocate(struct mount *m, struct request *r)
{
        int code = tree_fallocate(m->tree, &r->op, r->a.file->handle, r->a.flags,
                                  (uint64_t)r->a.offset, (uint64_t)r->a.offset2);

        return code == -EINPROGRESS ? code : reply_err(r, code);
}

static void on_fallocate(fuse_req_t fuse, fuse_ino_t node, int mode, off_t offset, off_t size,
                         struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "fallocate", run_fallocate, HOLD_PAGES);
        r.a = (struct request_args){.node = node,
                                    .file = file_of(fi),
                                    .flags = mode,
                                    .offset = offset,
                                    .offset2 = size};
        serve(&r);
}

static int run_copy_range(struct mount *m, struct request *r)
{
        ssize_t code = tree_copy_range(m->tree, &r->op, r->a.file->handle, (uint64_t)r->a.offset,
                                       r->a.file2->handle, (uint64_t)r->a.offset2, r->a.size);

        return reply_count(r, code);
}

/* `node` is where the bytes go: its pages are held. */
static void on_copy_range(fuse_req_t fuse, fuse_ino_t from, off_t from_offset,
                          struct fuse_file_info *from_fi, fuse_ino_t to, off_t to_offset,
                          struct fuse_file_info *to_fi, size_t size, int flags)
{
        struct request r;

        (void)from;
        (void)flags; /* none are defined */
        fill(&r, fuse, "copy_file_range", run_copy_range, HOLD_PAGES);
        r.a = (struct request_args){.node = to,
                                    .file = file_of(from_fi),
                                    .offset = from_offset,
                                    .file2 = file_of(to_fi),
                                    .offset2 = to_offset,
                                    .size = size};
        serve(&r);
}

static int run_lseek(struct mount *m, struct request *r)
{
        int64_t code = tree_lseek(m->tree, &r->op, r->a.file->handle, r->a.offset, r->a.flags);

        return reply_offset(r, code);
}

static void on_lseek(fuse_req_t fuse, fuse_ino_t node, off_t offset, int whence,
                     struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "lseek", run_lseek, HOLD_NOTHING);
        r.a = (struct request_args){
                .node = node, .file = file_of(fi), .offset = offset, .flags = whence};
        serve(&r);
}

/* The kernel doesn't wait for it. */
static void on_release(fuse_req_t fuse, fuse_ino_t node, struct fuse_file_info *fi)
{
        struct mount *m = mount_of(fuse);
        struct file *file = file_of(fi);

        (void)node;
        pollers_forget(m->pollers, file);
        files_release(m->files, m->tree, file);
        (void)fuse_reply_err(fuse, 0); /* nobody waits for it */
}

static void on_poll(fuse_req_t fuse, fuse_ino_t node, struct fuse_file_info *fi,
                    struct fuse_pollhandle *handle)
{
        struct mount *m = mount_of(fuse);
        uint64_t seen = wakes_now(&m->wakes), key = 0;
        struct file *file = file_of(fi);
        unsigned events;
        struct op op;

        (void)node;
        fill_op(&op, fuse);
        events = tree_poll(m->tree, &op, file->handle, &key);
        if (handle && key != 0)
                pollers_add(m->pollers, file, key, seen, handle);
        else if (handle)
                fuse_pollhandle_destroy(handle);
        (void)fuse_reply_poll(fuse, events); /* nothing to give back */
}

/* ---- directories ---- */

static int run_opendir(struct mount *m, struct request *r)
{
        struct handle *handle = NULL;
        int code = tree_opendir(m->tree, &r->op, r->a.node, &handle);

        return reply_opendir(m, r, code, handle);
}

static void on_opendir(fuse_req_t fuse, fuse_ino_t node, struct fuse_file_info *fi)
{
        struct request r;

        (void)fi;
        fill(&r, fuse, "opendir", run_opendir, HOLD_NOTHING);
        r.a = (struct request_args){.node = node};
        serve(&r);
}

/* Entries go into the thread's memory in the kernel's form. */
struct entries {
        struct tree_dir_sink sink;
        fuse_req_t fuse;
        bool plus;
        char *data;
        size_t size, max;
};

static bool add_entry(struct tree_dir_sink *to, const char *name, const struct tree_entry *e,
                      uint64_t next_offset)
{
        struct entries *all = container_of(to, struct entries, sink);
        size_t room = all->max - all->size, size;
        char *at = all->data + all->size;

        if (all->plus) {
                struct fuse_entry_param p;

                reply_fill_entry(&p, e);
                size = fuse_add_direntry_plus(all->fuse, at, room, name, &p, (off_t)next_offset);
        } else {
                size = fuse_add_direntry(all->fuse, at, room, name, &e->st, (off_t)next_offset);
        }
        if (size > room)
                return false;
        all->size += size;
        return true;
}

static int run_readdir(struct mount *m, struct request *r)
{
        struct entries all = {
                .sink = {add_entry},
                .fuse = r->fuse,
                .plus = r->a.what != 0,
                .data = scratch(),
                .max = r->a.size,
        };
        int code = -ENOMEM;

        if (all.data)
                code = tree_readdir(m->tree, &r->op, r->a.file->handle, (uint64_t)r->a.offset,
                                    all.plus, &all.sink);
        /* Entries before an error count: the error comes with the next call. */
        return reply_data(r, code < 0 && all.size == 0 ? code : (ssize_t)all.size, all.data);
}

static void serve_readdir(fuse_req_t fuse, fuse_ino_t node, size_t size, off_t offset,
                          struct fuse_file_info *fi, bool plus)
{
        struct request r;

        fill(&r, fuse, "readdir", run_readdir, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = node,
                                    .file = file_of(fi),
                                    .size = size < MOUNT_IO_MAX ? size : MOUNT_IO_MAX,
                                    .offset = offset,
                                    .what = plus};
        serve(&r);
}

static void on_readdir(fuse_req_t fuse, fuse_ino_t node, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
        serve_readdir(fuse, node, size, offset, fi, false);
}

static void on_readdirplus(fuse_req_t fuse, fuse_ino_t node, size_t size, off_t offset,
                           struct fuse_file_info *fi)
{
        serve_readdir(fuse, node, size, offset, fi, true);
}

static int run_fsyncdir(struct mount *m, struct request *r)
{
        int code = tree_fsyncdir(m->tree, &r->op, r->a.file->handle, r->a.what != 0);

        return code == -EINPROGRESS ? code : reply_err(r, code);
}

static void on_fsyncdir(fuse_req_t fuse, fuse_ino_t node, int data_only, struct fuse_file_info *fi)
{
        struct request r;

        fill(&r, fuse, "fsyncdir", run_fsyncdir, HOLD_DIRECTORY);
        r.a = (struct request_args){.node = node, .file = file_of(fi), .what = data_only != 0};
        serve(&r);
}

const struct fuse_lowlevel_ops mount_ops = {
        .init = init_choose,
        .lookup = on_lookup,
        .forget = on_forget,
        .forget_multi = on_forget_multi,
        .getattr = on_getattr,
        .setattr = on_setattr,
        .readlink = on_readlink,
        .mknod = on_mknod,
        .mkdir = on_mkdir,
        .unlink = on_unlink,
        .rmdir = on_rmdir,
        .symlink = on_symlink,
        .rename = on_rename,
        .link = on_link,
        .create = on_create,
        .open = on_open,
        .read = on_read,
        .write = on_write,
        .flush = on_flush,
        .release = on_release,
        .fsync = on_fsync,
        .opendir = on_opendir,
        .readdir = on_readdir,
        .readdirplus = on_readdirplus,
        .releasedir = on_release,
        .fsyncdir = on_fsyncdir,
        .statfs = on_statfs,
        .poll = on_poll,
        .fallocate = on_fallocate,
        .copy_file_range = on_copy_range,
        .lseek = on_lseek,
};
