/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names to nodes: what the kernel asks, answered by the control files or by a sandbox's volume.
 * Knows neither FUSE nor the network.
 *
 * Node numbers (also st_ino, but for files under fs/) say what they are, so that virtual files need
 * no table and keep their numbers over restarts:
 *
 *      0 | serial of the sandbox (22 bits) | task or scratch number (32) | row of the table (8)
 *      1 | 0 | serial (22)                 | node of the volume (40), for what is under fs/
 *
 * 1 is the root.
 *
 * st_ino of what is under fs/ is the real inode number with bit 62 set: it never meets one of ours.
 *
 * Waiting: an operation that can't answer yet returns -EINPROGRESS and sets op->wait_key: the
 *          caller parks it and calls again, with the same arguments, when events.wake names that
 *          key (or when op->retry_ns has come). wait_key 0: call again at once on a worker with
 *          op->may_wait set. Nothing was done and nothing is counted when -EINPROGRESS is returned.
 * Threads: any number of operations at once.
 * Locks:   one order for the whole program: fleet, sandbox, task, volume's nodes, handle, freeze.
 *          None is held across I/O, a provider call, an event or a reply.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "transport/base/call.h"

struct fleet;
struct handle; /* an open file or directory */
struct listener;
struct slot;
struct tree;

#define TREE_ROOT UINT64_C(1)

/* One request of the kernel. */
struct op {
        struct call call;
        pid_t tid; /* the calling thread, 0 when it can't be seen */
        uid_t uid;
        gid_t gid;
        mode_t umask;
        bool may_wait; /* on a worker: may block until call.deadline_ns */
        uint64_t lock_owner; /* of a flush or write */
        bool is_writeback; /* a write of the kernel's pages, not of a process */
        /* Set with -EINPROGRESS: */
        uint64_t wait_key;
        uint64_t retry_ns; /* CLOCK_MONOTONIC; NEVER_NS */
        /* wait_key 0: whose share of the workers it takes; 0: nobody's */
        uint64_t group;
        /* wait, follow: any signal of the caller ends the wait, not only one that ends it itself */
        bool any_signal;
        /* The tree's own, from the call to tree_op_done: the volume that was asked. */
        struct slot *slot;
        uint64_t slot_token;
};

struct tree_entry {
        /* 0 in a lookup's answer: no such name, and entry_ttl_ns says how long that holds */
        uint64_t node;
        uint64_t generation;
        struct stat st;
        uint64_t entry_ttl_ns, attr_ttl_ns;
};

struct tree_opened {
        struct handle *handle;
        bool is_direct; /* direct_io: control files */
        bool keep_cache;
        bool no_flush; /* a FLUSH has nothing to do */
        int backing_fd; /* for kernel passthrough, borrowed until release; -1 none */
};

struct tree_dir_sink {
        /*
         * False: it did not fit, nothing is counted for it. entry->node 0: only st.st_ino and the
         * type are valid.
         */
        bool (*add)(struct tree_dir_sink *to, const char *name, const struct tree_entry *entry,
                    uint64_t next_offset);
};

/*
 * News for the kernel's side. Called without locks; none of them blocks for long: the receiver
 * queues, but for inval_* which return when the kernel has done it (or has nothing to do), and are
 * never called from a thread that serves a request.
 */
struct tree_events {
        void (*wake)(void *ctx, uint64_t key); /* operations parked on it, and poll(2) on it */
        void (*inval_node)(void *ctx, uint64_t node, bool attributes_only);
        void (*inval_entry)(void *ctx, uint64_t parent, const char *name);
        int (*reload)(void *ctx, struct call *c); /* `reload` of the root's ctl; on a worker */
        void *ctx;
};

struct tree_config {
        uid_t uid; /* of the mounter: owner of everything */
        gid_t gid;
        uid_t shown_uid; /* uid= gid= of the command line: owner of what is under fs/ */
        gid_t shown_gid;
        mode_t shown_umask; /* umask=: bits taken away under fs/ */
        bool allow_other; /* directories and plain outputs get modes that let others in */
        bool is_readonly;
        bool has_raw_symlinks;
        bool is_sync; /* changes under fs/ are in the sandbox when they are answered */
        uint64_t attr_ttl_ns; /* -o attr_timeout, at most 1 s */
};

struct workers;

/*
 * The tree comes first, since the fleet needs its listener; tree_start then tells it the fleet.
 * Before that only the root answers.
 */
int tree_new(const struct tree_config *config, const struct tree_events *events,
             struct workers *workers, struct tree **ret);
/* for fleet_open; lives as long as the tree */
const struct listener *tree_listener(struct tree *t);
void tree_start(struct tree *t, struct fleet *fleet);
/* All handles were released, no operation runs. The fleet is closed after it. */
void tree_stop(struct tree *t);
void tree_free(struct tree *t);

void op_init(struct op *op, uint64_t deadline_ns);
/*
 * To be called after each call with `op`, once its answer has been sent: the end of a command waits
 * for what was asked before it, so that no older answer reaches the kernel after it.
 */
void tree_op_done(struct op *op);
/*
 * Before its answer, when that is an error: a sentence of the sandbox's service goes into `error`.
 */
void tree_op_failed(const struct op *op, int code);

int tree_lookup(struct tree *t, struct op *op, uint64_t parent, const char *name,
                struct tree_entry *ret);
void tree_forget(struct tree *t, uint64_t node, uint64_t count);
/* h may be NULL */
int tree_getattr(struct tree *t, struct op *op, uint64_t node, struct handle *h,
                 struct tree_entry *ret);
/* `what` are vol_set bits; owner changes are answered by the caller: success, nothing done. */
int tree_setattr(struct tree *t, struct op *op, uint64_t node, struct handle *h, unsigned what,
                 const struct stat *to, struct tree_entry *ret);
/* NUL-terminated */
int tree_readlink(struct tree *t, struct op *op, uint64_t node, char *target, size_t size);
int tree_mkdir(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
               struct tree_entry *ret);
int tree_mknod(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
               struct tree_entry *ret);
int tree_symlink(struct tree *t, struct op *op, uint64_t parent, const char *name,
                 const char *target, struct tree_entry *ret);
int tree_link(struct tree *t, struct op *op, uint64_t node, uint64_t parent, const char *name,
              struct tree_entry *ret);
int tree_unlink(struct tree *t, struct op *op, uint64_t parent, const char *name);
int tree_rmdir(struct tree *t, struct op *op, uint64_t parent, const char *name);
int tree_rename(struct tree *t, struct op *op, uint64_t parent, const char *name,
                uint64_t new_parent, const char *new_name, unsigned flags);

int tree_create(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
                int flags, struct tree_entry *ret, struct tree_opened *ret_opened);
int tree_open(struct tree *t, struct op *op, uint64_t node, int flags, struct tree_opened *ret);
ssize_t tree_read(struct tree *t, struct op *op, struct handle *h, void *data, size_t size,
                  uint64_t offset);
ssize_t tree_write(struct tree *t, struct op *op, struct handle *h, const void *data, size_t size,
                   uint64_t offset);
int tree_flush(struct tree *t, struct op *op, struct handle *h);
int tree_fsync(struct tree *t, struct op *op, struct handle *h, bool data_only);
int tree_fallocate(struct tree *t, struct op *op, struct handle *h, int mode, uint64_t offset,
                   uint64_t size);
ssize_t tree_copy_range(struct tree *t, struct op *op, struct handle *from, uint64_t from_offset,
                        struct handle *to, uint64_t to_offset, size_t size);
int64_t tree_lseek(struct tree *t, struct op *op, struct handle *h, int64_t offset, int whence);
/* commits what was written and not yet committed */
void tree_release(struct tree *t, struct handle *h);
/*
 * Ready events of poll(2) now; *ret_key is what to wait for when there are none, 0: always ready.
 */
unsigned tree_poll(struct tree *t, struct op *op, struct handle *h, uint64_t *ret_key);

int tree_opendir(struct tree *t, struct op *op, uint64_t node, struct handle **ret);
int tree_readdir(struct tree *t, struct op *op, struct handle *h, uint64_t offset, bool plus,
                 struct tree_dir_sink *to);
int tree_fsyncdir(struct tree *t, struct op *op, struct handle *h, bool data_only);
void tree_releasedir(struct tree *t, struct handle *h);

int tree_statfs(struct tree *t, struct op *op, uint64_t node, struct statvfs *ret);
