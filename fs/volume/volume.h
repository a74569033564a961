/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files under fs/ of one sandbox: one table of operations with an implementation per kind of
 * storage. direct.c serves a real directory of this machine (the local provider) and keeps no cache
 * of its own; cached.c serves what a provider's file calls reach, from a cache.
 *
 * Nodes:   a volume numbers its nodes; VOLUME_ROOT is fs/ itself, numbers stay below 2^40. Each
 *          lookup, create, mkdir, symlink, mknod, and each entry that readdir handed on with
 *          attributes, counts one reference, which forget gives back. A directory's number follows
 *          its path as this mount saw it, never its inode; another file's follows path and inode.
 * Waiting: an operation whose answer isn't at hand without the network returns -EINPROGRESS unless
 *          op->may_wait; the caller then repeats it on a worker with may_wait set. Local disks
 *          don't count as network.
 * Threads: any number of operations at once, from any thread. No lock of the volume is held across
 *          I/O.
 * Errors:  -errno as the file system shows it; -ESTALE a path component became a link meanwhile, or
 *          the sandbox is gone (open files); -ENODEV it is gone.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "transport/base/lock.h"

struct box;
struct box_root;
struct call;
struct volume;
struct vol_file; /* an open regular file */
struct vol_dir; /* an open directory */

#define VOLUME_ROOT UINT64_C(1)
#define VOLUME_NODE_MAX ((UINT64_C(1) << 40) - 1)

/* Who asks, and how long it may take. */
struct vol_op {
        struct call *call; /* deadline, cancel, sentence */
        mode_t umask; /* of the caller */
        pid_t tid; /* the thread that asks; 0: one of another pid namespace */
        bool may_wait;
        bool is_writeback; /* of the kernel's pages: goes where they lie, also with O_APPEND */
};

/* A node as handed to the kernel. st.st_uid and st.st_gid are set by the caller of the volume. */
struct vol_entry {
        uint64_t
                /* 0 in a lookup's answer: no such name, and ttl_ns says how long that holds */
                node;
        uint64_t generation; /* differs when a number was used before for something else */
        struct stat st;
        uint64_t ttl_ns; /* how long name and attributes may be cached */
};

/* What an open answers beside the handle. */
struct vol_opened {
        struct vol_file *file;
        bool keep_cache; /* pages that the kernel holds of this file are still right */
        int backing_fd; /* for kernel passthrough, borrowed until release; -1: none */
};

/*
 * Called for each entry; false: it did not fit (nothing is counted for it), stop. entry->node == 0:
 * name and type only.
 */
struct vol_dir_sink {
        bool (*add)(struct vol_dir_sink *to, const char *name, const struct vol_entry *entry,
                    uint64_t next_offset);
};

/* Bits of vol_ops.setattr's `what`. */
enum vol_set {
        VOL_SET_MODE = 1 << 0,
        VOL_SET_SIZE = 1 << 1,
        VOL_SET_ATIME = 1 << 2,
        VOL_SET_MTIME = 1 << 3,
        VOL_SET_ATIME_NOW = 1 << 4,
        VOL_SET_MTIME_NOW = 1 << 5,
};

/* What waits to be delivered to the sandbox. */
struct vol_stats {
        uint64_t dirty_files;
        uint64_t dirty_bytes;
        uint64_t unsent; /* changes that the sandbox refused */
};

/* For vol_ops.unsent: a change that was refused. Called under a lock: take notes only. */
struct vol_unsent_sink {
        void (*one)(struct vol_unsent_sink *to, const char *path, int error, const char *sentence);
};

struct vol_ops {
        void (*free)(struct volume *v); /* all handles were released */

        int (*lookup)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                      struct vol_entry *ret);
        void (*forget)(struct volume *v, uint64_t node, uint64_t count);
        int (*getattr)(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                       struct vol_entry *ret);
        int (*setattr)(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                       unsigned what, const struct stat *to,
                       struct vol_entry *ret); /* file may be NULL */
        int (*readlink)(struct volume *v, struct vol_op *op, uint64_t node, char *target,
                        size_t size);

        int (*mkdir)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                     mode_t mode, struct vol_entry *ret);
        int (*mknod)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                     mode_t mode,
                     struct vol_entry *ret); /* regular files, FIFOs and sockets; devices: -EPERM */
        int (*symlink)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                       const char *target, struct vol_entry *ret);
        int (*link)(struct volume *v, struct vol_op *op, uint64_t node, uint64_t parent,
                    const char *name, struct vol_entry *ret);
        int (*unlink)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name);
        int (*rmdir)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name);
        int (*rename)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                      uint64_t new_parent, const char *new_name,
                      unsigned flags); /* RENAME_NOREPLACE and RENAME_EXCHANGE, else -EINVAL */

        int (*create)(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                      mode_t mode, int flags, struct vol_entry *ret, struct vol_opened *ret_opened);
        int (*open)(struct volume *v, struct vol_op *op, uint64_t node, int flags,
                    struct vol_opened *ret);
        ssize_t (*read)(struct volume *v, struct vol_op *op, struct vol_file *f, void *data,
                        size_t size, uint64_t offset);
        ssize_t (*write)(struct volume *v, struct vol_op *op, struct vol_file *f, const void *data,
                         size_t size, uint64_t offset);
        int (*flush)(struct volume *v, struct vol_op *op, struct vol_file *f);
        int (*fsync)(struct volume *v, struct vol_op *op, struct vol_file *f, bool data_only);
        int (*fallocate)(struct volume *v, struct vol_op *op, struct vol_file *f, int mode,
                         uint64_t offset, uint64_t size);
        ssize_t (*copy_range)(struct volume *v, struct vol_op *op, struct vol_file *from,
                              uint64_t from_offset, struct vol_file *to, uint64_t to_offset,
                              size_t size);
        int64_t (*lseek)(struct volume *v, struct vol_op *op, struct vol_file *f, int64_t offset,
                         int whence); /* SEEK_DATA, SEEK_HOLE */
        void (*release)(struct volume *v, struct vol_file *f);

        int (*opendir)(struct volume *v, struct vol_op *op, uint64_t node, struct vol_dir **ret);
        int (*readdir)(struct volume *v, struct vol_op *op, struct vol_dir *d, uint64_t offset,
                       bool plus, struct vol_dir_sink *to);
        int (*fsyncdir)(struct volume *v, struct vol_op *op, struct vol_dir *d, bool data_only);
        void (*releasedir)(struct volume *v, struct vol_dir *d);

        int (*statfs)(struct volume *v, struct vol_op *op, struct statvfs *ret);

        /*
         * Everything that was written or changed before is in the sandbox when it returns 0. NULL:
         * it always is. On a worker, may_wait set.
         */
        int (*sync)(struct volume *v, struct vol_op *op);
        /*
         * The changes that the sandbox refused (not sync's failure): named, oldest first; all queued
         * once more, for sync to send; given up, those about this path below fs/ (-ENOENT: none
         * are). From memory and the local disk. NULL: nothing is ever refused later.
         */
        void (*unsent)(struct volume *v, struct vol_unsent_sink *to);
        int (*retry)(struct volume *v);
        int (*discard)(struct volume *v, const char *path);
        /* What has not been delivered; from memory. NULL: nothing ever. */
        void (*stats)(struct volume *v, struct vol_stats *ret);

        /*
         * A command has ended, or the sandbox was paused or stopped: what was cached, here or in the kernel, is no longer true. Called on
         * a worker before the end can be seen; returns when later reads are fresh. Sends the
         * kernel's invalidations through the events.
         */
        void (*exec_ended)(struct volume *v);
        /* The sandbox was destroyed: every later call fails, -ENODEV by name, -ESTALE by handle. */
        void (*gone)(struct volume *v);
};

/* Head of each implementation's struct. */
struct volume {
        const struct vol_ops *ops;

        atomic_uint_fast64_t epoch; /* rises when a command ends */
        atomic_uint busy[2]; /* operations under way, by the epoch they began in, odd or even */
        struct mutex turning_lock;
        struct cond turned;
        bool is_turning GUARDED_BY(turning_lock);
};

/**
 * Bracket an operation *and its reply to the kernel*, for those that answer something with a ttl:
 *
 *      uint64_t token = volume_enter(v);
 *      r = v->ops->lookup(v, &op, parent, name, &entry);
 *      fuse_reply_entry(...);
 *      volume_leave(v, token);
 *
 * exec_ended waits (at most 2 s) for those that entered before it, then takes back what they told.
 * Without it an answer from before the end could reach the kernel behind the invalidation, and
 * would hold for its ttl. Cheap: two atomic additions. No lock; any thread may leave for another.
 */
uint64_t volume_enter(struct volume *v);
void volume_leave(struct volume *v, uint64_t token);

/* For implementations. */
void volume_init(struct volume *v, const struct vol_ops *ops);
void volume_done(struct volume *v);
uint64_t volume_epoch(struct volume *v);
/*
 * Begin the next epoch and wait until those that entered before have left; false: some did not
 * within 2 s.
 */
bool volume_turn(struct volume *v);

/*
 * The kernel's caches, reached from below. Both may block a while; called without locks, never from
 * a handler's thread. inval_node for attributes alone takes no lock in the kernel: any thread may.
 */
struct volume_events {
        void (*inval_node)(void *ctx, uint64_t node, bool attributes_only); /* else pages too */
        /*
         * To be sent as *expire* (FUSE_LL_EXPIRE_ONLY) where the kernel has it (6.2): a plain
         * invalidation unhashes directories that are in use: getcwd(3) fails in them from then on.
         */
        void (*inval_entry)(void *ctx, uint64_t parent, const char *name);
        bool (*is_quiet)(
                void *ctx); /* nothing inside can change files at the moment (box_is_quiet) */
        void *ctx;
};

struct volume_config {
        uint64_t attr_ttl_ns; /* at most 1 s */
        bool has_raw_symlinks; /* readlink gives the text as it is */
        bool is_readonly;
        bool is_sync; /* a change is in the sandbox when it is answered (cached volume) */
};

/* How the cached volume reaches its sandbox. Called on workers, and from memory. */
struct volume_box {
        /*
         * The sandbox's box, usable for files until `leave`. From memory: -EINPROGRESS it is being
         * created; -EHOSTDOWN paused or stopped, -ENODEV gone, -EHOSTUNREACH; with a sentence.
         */
        int (*enter)(void *ctx, struct call *c, struct box **ret);
        void (*leave)(void *ctx, struct box *b);
        /* vol_stats differ; a change that failed for good: path and sentence. Any thread. */
        void (*changed)(void *ctx);
        void (*failed)(void *ctx, const char *path, int error, const char *sentence);
        /* Nothing has failed, but people should know what became of this file. Any thread. */
        void (*noticed)(void *ctx, const char *path, const char *sentence);
        void *ctx;
};

struct volume_cached_config {
        struct volume_config base;
        struct volume_box box;
        /*
         * A directory of the volume's own, mode 0700, that outlives unmount and crash: records and
         * bytes of what waits to be sent, and the content spool.
         */
        int dir;
        uint64_t spool_max; /* bytes of cached content on disk, if as many are free; 0: 1 GiB */
};

/**
 * A volume on a provider's file calls, with a cache in between. What an earlier run left in `dir`
 * waits to be sent at once.
 *
 * Owner: takes over config->dir on success; the rest is copied.
 */
int volume_cached_new(const struct volume_cached_config *config, const struct volume_events *events,
                      struct volume **ret);
/* Whether `dir` holds something that waits to be sent. */
bool volume_cached_has_dirty(int dir);

/**
 * A volume on a real directory.
 *
 * Owner: takes over root->fd on success; `events` and `config` are copied.
 */
int volume_direct_new(const struct box_root *root, const struct volume_config *config,
                      const struct volume_events *events, struct volume **ret);
