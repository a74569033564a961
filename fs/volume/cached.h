/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the cached volume, for its own files only. Two halves that know each other by what this
 * file declares:
 *
 *  names     cached.c (birth, what all share), cached_facts.c (answers that are fresh enough),
 *            cached_told.c (what the kernel may keep, the end of a command), cached_names.c and
 *            cached_rename.c (what is done by name), cached_attrs.c, cached_dirs.c, meta.c (what is
 *            known of the sandbox's files), refresh.c (asking for it)
 *  content   contents.h says: bytes and open files
 *
 * and what both send: journal.c (changes that wait, in order), send.c and upload.c (sending them).
 *
 * Paths:     of the sandbox as files.h has them: "" is the working directory.
 * Entries:   what is known at a path is an entry of `meta`. An entry of a regular file may carry one
 *            `struct content`, which follows it through renames of it and of directories above. A
 *            content has no path of its own: cached_content_path says where it is now.
 * Local:     a content is *pinned* while it has bytes that the sandbox doesn't have. Its entry then
 *            stays, whatever a listing says, and is served also when the sandbox can't be reached.
 * Fresh:     an operation may use what was asked for at most attr_ttl before the operation began
 *            (60 s while the sandbox is quiet), in the present epoch. What is older is asked for
 *            anew; if that fails the operation does.
 * Own:       a change of ours is entered when it is queued; what was asked for before and comes later
 *            doesn't count for it, and nothing is asked for about its path before it is sent.
 * Locks:     meta, nodes, recent, climbs and refresh have one each, all leaves. Hooks of the content
 *            half are called without any, except content_ref and content_is_pinned.
 */
#pragma once

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs/volume/climbs.h"
#include "fs/volume/nodes.h"
#include "fs/volume/recent.h"
#include "fs/volume/volume.h"
#include "providers/provider.h"

struct content; /* what we hold of one regular file's bytes; counted. Begins with content_head */
struct contents; /* all of a volume */
struct meta;
struct refresh;

struct cached {
        struct volume v;

        /* fixed after init */
        struct volume_config config; /* attr_ttl_ns at most 1 s */
        struct volume_events events;
        struct volume_box box;

        struct nodes nodes; /* own lock */
        struct recent recent; /* own lock */
        struct climbs climbs; /* own lock */
        struct meta *meta; /* own lock */
        struct refresh *refresh; /* own lock */
        struct contents *contents;
        atomic_bool is_gone;

        /*
         * Held while a name is removed or moved in the journal and in the tables, and while a content
         * is queued by the path that it has: these must agree. Before any other lock.
         */
        struct mutex order;

        struct mutex lock;
        struct cond moved; /* no rename is under way */
        char inside[PATH_MAX] GUARDED_BY(lock); /* where fs/ is for commands; "" not known yet */
        struct statvfs fs GUARDED_BY(lock); /* as told at fs_ns; 0: never */
        uint64_t fs_ns GUARDED_BY(lock), fs_epoch GUARDED_BY(lock);
        unsigned moving GUARDED_BY(lock); /* renames between the sandbox's answer and our tables */
        uint64_t moves GUARDED_BY(lock); /* those that were carried out */
};

static inline struct cached *cached_of(struct volume *v)
{
        return (struct cached *)(void *)v; /* its head */
}

/* Head of struct content. Where it is: written by meta under its lock, 0 while it is nowhere. */
struct content_head {
        uint64_t entry;
        struct waiting *waiting; /* its change in the journal; guarded by the journal's lock */
};

/*
 * A handle of a regular file (struct vol_file, of the content half) and of a directory (struct
 * vol_dir) begin with struct node_open.
 */

/* Attributes with where they come from. */
struct known {
        struct stat st; /* st_ino and st_nlink as shown outside, never 0; st_ctim 0: not known */
        ino_t sandbox_ino; /* as provider calls tell it, which st_ino needn't be; 0: not known */
        uint64_t sent_ns; /* when the request that brought them was sent (CLOCK_MONOTONIC) */
        uint64_t epoch; /* in which */
};

/* ---- what the names half offers ---- */

/* -ENODEV when the sandbox is gone, -EROFS where nothing may be changed, and of names. */
int cached_check(struct cached *c);
int cached_check_change(struct cached *c);
int cached_check_name(const char *name);

/*
 * The box, to ask something about `path` (NULL: about no file): what waits to be sent about it, or
 * about what is below or above, is there first. -ENODEV when the sandbox is gone; what sending
 * failed with. Note the time before: what is changed from then on may not be in the answer.
 */
int cached_enter(struct cached *c, struct call *call, const char *path, struct box **ret);
int cached_enter_for(struct cached *c, struct call *call, const struct content *x,
                     struct box **ret); /* about this file, wherever it is now */
void cached_leave(struct cached *c, struct box *b);

/**
 * The sandbox's path of a node, or of `name` below it (NULL: of the node).
 *
 * Owner:  *ret to free.
 * Errors: -ESTALE no such number, or what it stood for was removed; -ENAMETOOLONG; -ENOMEM.
 */
int cached_path(struct cached *c, uint64_t node, const char *name, char **ret);
/* The same of a content; -ENOENT when it was removed, or the volume lost sight of it. */
int cached_content_path(struct cached *c, const struct content *x, char **ret);

/**
 * Fresh attributes of a node, as the sandbox has them (content_attrs is not applied), from memory
 * or, with op->may_wait, asked for: the listing of its directory, or of a tree.
 *
 * Errors: -EINPROGRESS; -ENOENT, -ESTALE it is no longer there; what the sandbox's call failed with.
 *         A pinned file's are always answered, when nothing newer can be had the last known.
 */
int cached_attr(struct cached *c, struct vol_op *op, uint64_t node, struct known *ret);
/* The same by name. -ENOENT is as certain as attributes are. */
int cached_look(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                struct known *ret);
/* What is known of a content's file, however old; false: nothing. */
bool cached_last_known(struct cached *c, const struct content *x, struct known *ret);

/*
 * New attributes of this file, from a request that was sent at `sent_ns` in `epoch`. is_ours: they
 * come from a change of ours that has just been answered (the inode may be another one, since a
 * whole file is renamed into place: the number shown outside stays); what was asked for before now
 * doesn't count any more. Otherwise older ones than those known are ignored. False: they are
 * another file's, that has its path now or had it then, or it is nowhere any more.
 */
bool cached_told(struct cached *c, const struct content *x, const struct stat *st, uint64_t sent_ns,
                 uint64_t epoch, bool is_ours);
/* What is known of this file, or of this node, is not true (-ENOENT, -ESTALE were seen). */
void cached_untold(struct cached *c, const struct content *x);

/* The content of this node's file with one more reference, or NULL. */
struct content *cached_content(struct cached *c, uint64_t node);
/*
 * Give the file one. Consumes nothing: meta takes its own reference. Returns the content that the
 * file has now, with one more reference: `x`, or another that was there first; NULL: the file was
 * removed (then go on with `x` alone), or is no regular file.
 */
struct content *cached_set_content(struct cached *c, uint64_t node, struct content *x);
/* The file has no content any more if it has this one (nothing worth keeping is in it). */
void cached_drop_content(struct cached *c, struct content *x);

/**
 * A new regular file (parent, name): a node with one reference, an entry with this content (may be
 * NULL), and the answer. Either the sandbox has made it (`is_only_here` false, `st` from there,
 * sent_ns and epoch of the request), or the content is pinned until it has (`st` ours).
 *
 * Call it right after the sandbox's answer, without locks.
 */
int cached_made(struct cached *c, uint64_t parent, const char *name, const struct known *st,
                struct content *x, struct vol_entry *ret);
/* Fill an answer for a node (that was just given one more reference), content_attrs included. */
void cached_fill(struct cached *c, const struct node_id *id, const struct known *k,
                 struct vol_entry *ret);

/*
 * A file that an earlier run left waiting: an entry with this (pinned) content, `st` as last shown.
 * Only from contents_new. -EEXIST, -ENOMEM.
 */
int cached_restore(struct cached *c, const char *path, const struct stat *st, struct content *x);

/* For prefetch: a regular file, by its path, as last listed. Return false to stop. */
struct cached_sibling_sink {
        bool (*file)(struct cached_sibling_sink *to, const char *path, const struct known *k,
                     bool has_content);
};
/*
 * The files of a directory, or of the one that a file's node is in, in listing order, then,
 * `is_deep`, those of the directories below it in turn, while they were learnt in this epoch and
 * within `age_ns`. Called from memory; `file` under a lock: it may only take notes.
 */
void cached_siblings(struct cached *c, uint64_t node, bool is_deep, uint64_t age_ns,
                     struct cached_sibling_sink *to);
/* The content of what is at `path` (as cached_content), and giving it one. */
struct content *cached_content_at(struct cached *c, const char *path);
struct content *cached_set_content_at(struct cached *c, const char *path, struct content *x);

/* vol_ops.lookup, for create. */
int cached_lookup(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  struct vol_entry *ret);

/* ---- what the content half offers: its hooks ---- */

/* Called last in volume_cached_new; restores what waits in config->dir, which it takes over. */
int contents_new(struct cached *c, const struct volume_cached_config *config,
                 struct contents **ret);
/* Both accept NULL. All contents are unreferenced in between. */
void contents_stop(struct contents *s); /* ends its threads; nothing is sent from then on */
void contents_free(struct contents *s);
/* vol_ops.sync and stats. */
int contents_sync(struct cached *c, struct vol_op *op);
void contents_stats(struct cached *c, struct vol_stats *ret);
void contents_unsent(struct cached *c, struct vol_unsent_sink *to);
int contents_retry(struct cached *c);
int contents_discard(struct cached *c, const char *path);
/* In vol_ops.exec_ended after the new epoch began, and in gone. */
void contents_exec_ended(struct cached *c);
void contents_gone(struct cached *c);

struct content *content_ref(struct content *x); /* counts only: called under meta's lock */
void content_unref(struct content *x); /* accepts NULL; no lock held */
bool content_is_pinned(const struct content *x); /* an atomic load: called under meta's lock */
/*
 * `st`, the sandbox's, as this mount shows it: size, times and mode of a file that has local
 * changes, or is being sent. All of it for a file that was removed (st_mode == 0 when called).
 * `sent_ns`: when they were asked for. False: the sandbox has another version by now, of which open
 * handles have seen nothing yet; not to be cached.
 */
bool content_attrs(struct content *x, struct stat *st, uint64_t sent_ns);
/*
 * Before getattr answers so: open handles go on with the version that `k` tells of, bytes and
 * attributes at once, unless they have only just been opened. 0 or -EINPROGRESS.
 */
int content_follow(struct cached *c, struct vol_op *op, uint64_t node, const struct known *k);
/* The version that is here, as the sandbox told it; st_ino and st_nlink say nothing. */
void content_version(struct content *x, struct stat *ret);
struct content *file_content(struct vol_file *f); /* borrowed */
/* Give back one reference of its node_open (nodes_unref), and free it if that was the last. */
void file_put(struct cached *c, struct vol_file *f);

/*
 * Before a removal, also by a rename over it: open handles can go on with what they see. 0,
 * -EINPROGRESS or -errno. After it, with its last attributes: nothing of it is sent any more.
 */
int content_before_removal(struct content *x, struct vol_op *op);
void content_after_removal(struct content *x, const struct stat *last);
/* After a rename of it, or of a directory above. */
void content_moved(struct content *x);
/*
 * Before it gets one more name: all of it is in the sandbox, and nothing of it is sent until
 * content_let_go. On a worker.
 */
int content_hold(struct content *x, struct vol_op *op);
void content_let_go(struct content *x, bool is_linked);

/*
 * setattr of a regular file: 1 when it was done (*ret is for cached_fill; as shown if the file was
 * removed), 0 when it is for the sandbox alone (nothing open or local is concerned), or -errno.
 * Sizes always are done here. `file` may be NULL.
 */
int contents_setattr(struct cached *c, struct vol_op *op, uint64_t node, struct vol_file *file,
                     unsigned what, const struct stat *to, struct known *ret);

/* vol_ops of open files, by their names there. */
int cached_create(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  mode_t mode, int flags, struct vol_entry *ret, struct vol_opened *ret_opened);
int cached_open(struct volume *v, struct vol_op *op, uint64_t node, int flags,
                struct vol_opened *ret);
ssize_t cached_read(struct volume *v, struct vol_op *op, struct vol_file *f, void *data,
                    size_t size, uint64_t offset);
ssize_t cached_write(struct volume *v, struct vol_op *op, struct vol_file *f, const void *data,
                     size_t size, uint64_t offset);
int cached_flush(struct volume *v, struct vol_op *op, struct vol_file *f);
int cached_fsync(struct volume *v, struct vol_op *op, struct vol_file *f, bool data_only);
int cached_fallocate(struct volume *v, struct vol_op *op, struct vol_file *f, int mode,
                     uint64_t offset, uint64_t size);
ssize_t cached_copy_range(struct volume *v, struct vol_op *op, struct vol_file *from,
                          uint64_t from_offset, struct vol_file *to, uint64_t to_offset,
                          size_t size);
int64_t cached_lseek(struct volume *v, struct vol_op *op, struct vol_file *f, int64_t offset,
                     int whence);
void cached_release(struct volume *v, struct vol_file *f);

/* ---- the names half's own parts ---- */

int cached_getattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   struct vol_entry *ret);
int cached_setattr(struct volume *v, struct vol_op *op, uint64_t node, struct vol_file *file,
                   unsigned what, const struct stat *to, struct vol_entry *ret);
int cached_readlink(struct volume *v, struct vol_op *op, uint64_t node, char *target, size_t size);
int cached_statfs(struct volume *v, struct vol_op *op, struct statvfs *ret);

int cached_mkdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret);
int cached_mknod(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret);
int cached_symlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                   const char *target, struct vol_entry *ret);
int cached_link(struct volume *v, struct vol_op *op, uint64_t node, uint64_t parent,
                const char *name, struct vol_entry *ret);
int cached_unlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name);
int cached_rmdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name);
int cached_rename(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  uint64_t new_parent, const char *new_name, unsigned flags);

int cached_opendir(struct volume *v, struct vol_op *op, uint64_t node, struct vol_dir **ret);
int cached_readdir(struct volume *v, struct vol_op *op, struct vol_dir *dir, uint64_t offset,
                   bool plus, struct vol_dir_sink *to);
int cached_fsyncdir(struct volume *v, struct vol_op *op, struct vol_dir *dir, bool data_only);
void cached_releasedir(struct volume *v, struct vol_dir *dir);
