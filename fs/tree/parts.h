/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the tree share; only fs/tree/ includes it.
 *
 *      tree.c      birth, and each operation sent to the virtual files or to a volume
 *      spot.c      node numbers <-> what they mean; attributes
 *      names.c     lookup, creation, removal and renaming of virtual files
 *      text.c      what KIND_TEXT files say
 *      open.c      handles of virtual files: open, release, size
 *      serve.c     their reads and polls
 *      commit.c    their writes
 *      dir.c       directories of virtual files
 *      volumes.c   the volume of each sandbox, and the operations under fs/
 *      news.c      what the fleet tells
 */
#pragma once

#include "fs/control/caller.h"
#include "fs/control/lines.h"
#include "fs/control/scratch.h"
#include "fs/control/snapshot.h"
#include "fs/control/tripwire.h"
#include "fs/sandbox/fleet.h"
#include "fs/sandbox/sandbox.h"
#include "fs/tree/rows.h"
#include "fs/tree/tree.h"
#include "fs/volume/volume.h"
#include "transport/base/buf.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/base/map.h"

#define SPANS_MAX 128 /* different SECONDS of wait.SECONDS that a mount remembers */
/* of sandboxes' directories and fs, which no file can be renamed onto */
#define DIR_TTL_NS (1 * UINT64_C(1000000000))

struct tree {
        /* fixed after tree_new */
        struct tree_config config;
        struct tree_events events;
        struct workers *workers;
        struct listener listener;
        struct snapshots *snapshots;
        struct callers *callers;
        struct tripwire *tripwire;
        struct scratches *scratches;
        uint64_t born_real_ns;

        _Atomic(struct fleet *) fleet; /* NULL before tree_start */

        struct mutex lock;
        struct list handles GUARDED_BY(lock); /* open virtual files, newest first */
        uint32_t spans[SPANS_MAX] GUARDED_BY(lock); /* seconds */
        unsigned span_count GUARDED_BY(lock);
        /* task's node -> bits of its rows that were unlinked, as a pointer's value */
        struct imap *removed GUARDED_BY(lock);
        struct imap *writers GUARDED_BY(lock); /* nodes of cmd files that are open for writing */
        struct imap *slots GUARDED_BY(lock); /* serial -> struct slot */
        struct cond made; /* is_making became false */
        bool is_making GUARDED_BY(lock); /* a volume */
};

/* ---- spot.c ---- */

#define NODE_VOLUME (UINT64_C(1) << 63)
#define INO_REAL (UINT64_C(1) << 62)
#define SERIAL_MAX ((UINT64_C(1) << 22) - 1)

static inline uint64_t node_virtual(uint64_t serial, uint64_t number, unsigned row)
{
        return serial << 40 | (number & UINT32_MAX) << 8 | row;
}

static inline uint64_t node_volume(uint64_t serial, uint64_t node)
{
        return NODE_VOLUME | serial << 40 | node;
}

static inline bool node_is_volume(uint64_t node)
{
        return node & NODE_VOLUME;
}

static inline uint64_t node_serial(uint64_t node)
{
        return node >> 40 & SERIAL_MAX;
}

/* What a virtual node means now. Holds references. */
struct spot {
        uint64_t node;
        const struct row *row;
        struct sandbox *sandbox; /* NULL at the root */
        struct task *task; /* of rows of PLACE_TASK; of a sandbox's own files: NULL */
        struct scratch *scratch; /* KIND_SCRATCH */
        uint32_t seconds; /* of wait.SECONDS */
};

/* -ENODEV the sandbox is gone, -ENOENT the exec or the scratch file is. */
int spot_find(struct tree *t, uint64_t node, struct spot *ret);
void spot_done(struct spot *s);

/*
 * The exec whose output the file shows to a thread group: its own; for the top-level files the
 * latest, or the one that a stat of that group froze. A reference, or NULL. freeze: this is a stat.
 */
struct task *spot_output_task(struct tree *t, const struct spot *s, pid_t tgid, bool freeze);

/*
 * Attributes. With op, for its thread group: sizes are those that it will read
 * (and freeze, when wanted).
 */
int spot_attr(struct tree *t, struct op *op, struct spot *s, bool freeze, struct tree_entry *ret);

/* The place whose rows stand in this directory; -ENOTDIR. */
int spot_place(const struct spot *s, enum row_place *ret);

/* ---- text.c ---- */

/* The text of KIND_TEXT and KIND_CTL files, and when it last changed. 0 or -ENOMEM. */
int text_of(struct tree *t, const struct spot *s, struct buf *to, uint64_t *ret_mtime_ns);
/* Rises when the text may have changed; 0: it never does. */
uint64_t text_version(struct tree *t, const struct spot *s);
/* NULL: out of memory */
struct snapshot *text_snapshot(struct tree *t, const struct spot *s, uint64_t *ret_mtime_ns);

/* ---- open.c ---- */

/* An entry of an open directory. */
struct name {
        char *text;
        uint64_t node;
        mode_t mode;
};

struct handle {
        /* fixed after open */
        uint64_t node;
        pid_t tgid; /* who opened it; 0 unknown */
        int flags;
        struct spot spot; /* virtual files */
        struct slot *slot; /* under fs/ */
        struct vol_file *file;
        struct vol_dir *dir;
        struct name *names; /* virtual directories */
        size_t name_count;

        struct list link; /* guarded by tree->lock */

        struct mutex lock;
        /* what is being read; wait: the answer, once there is one */
        struct snapshot *text GUARDED_BY(lock);
        bool was_read GUARDED_BY(lock);
        uint64_t version GUARDED_BY(lock); /* of what was last read, for poll */
        struct task *task GUARDED_BY(lock); /* output, wait, follow, stdin: whose */
        uint64_t base GUARDED_BY(lock); /* output: file offset at which this task's output begins */
        bool at_end GUARDED_BY(lock); /* output: the reader was told the end of this task's */
        bool is_all_read GUARDED_BY(lock); /* output: it has all of this task's, which ended */
        bool is_closed GUARDED_BY(lock); /* as far as we know: its RELEASE comes later */
        uint64_t seen GUARDED_BY(lock); /* follow: offset of the latest read's end */
        uint64_t deadline_ns GUARDED_BY(lock); /* wait.SECONDS, from the first read; 0 not begun */
        struct buf own GUARDED_BY(lock); /* ctl: the values of what this descriptor wrote */
        uint64_t own_base GUARDED_BY(lock); /* file offset at which they begin */
        /* reads give them: there was a write since the last read from before own_base */
        bool is_own GUARDED_BY(lock);
        bool own_was_read GUARDED_BY(lock);

        struct mutex write_lock; /* one commit at a time; taken before lock */
        struct lines lines GUARDED_BY(write_lock);
        struct buf cmd GUARDED_BY(write_lock); /* cmd: what was written so far */
        uint64_t writer GUARDED_BY(write_lock); /* lock owner of the last write */
};

/* takes the spot over on success */
int handle_open(struct tree *t, struct op *op, struct spot *s, int flags, struct tree_opened *ret);
void handle_release(struct tree *t, struct handle *h); /* commits what is left, frees */
struct handle *handle_new(uint64_t node); /* NULL: out of memory */
void handle_free(struct handle *h);

enum task_file output_file(const struct row *row);
/*
 * Size of what `tgid` has open of this node: false when it has nothing open. `latest`: the exec
 * that a top-level output shows now, which a handle at the end of another goes on with; else NULL.
 */
bool handles_size(struct tree *t, uint64_t node, pid_t tgid, struct task *latest,
                  uint64_t *ret_size);

/* ---- serve.c, commit.c, dir.c ---- */

ssize_t handle_read(struct tree *t, struct op *op, struct handle *h, void *data, size_t size,
                    uint64_t offset);
unsigned handle_poll(struct tree *t, struct handle *h, uint64_t *ret_key);
ssize_t handle_write(struct tree *t, struct op *op, struct handle *h, const void *data, size_t size,
                     uint64_t offset);
int handle_flush(struct tree *t, struct op *op, struct handle *h);
void handle_commit_rest(struct tree *t, struct handle *h);
/* A scratch file was renamed onto a control file. -EPERM when that can't be written. */
int commit_scratch(struct tree *t, struct spot *target, struct scratch *from);

/* takes the spot over on success */
int dir_open(struct tree *t, struct spot *s, struct handle **ret);
int dir_read(struct tree *t, struct handle *h, uint64_t offset, struct tree_dir_sink *to);

/* ---- names.c ---- */

int names_lookup(struct tree *t, struct op *op, uint64_t parent, const char *name,
                 struct tree_entry *ret);
int names_mkdir(struct tree *t, struct op *op, uint64_t parent, const char *name,
                struct tree_entry *ret);
int names_create(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
                 int flags, struct tree_entry *ret, struct tree_opened *ret_opened);
int names_unlink(struct tree *t, struct op *op, uint64_t parent, const char *name);
int names_rmdir(struct tree *t, struct op *op, uint64_t parent, const char *name);
int names_rename(struct tree *t, struct op *op, uint64_t parent, const char *name,
                 const char *new_name, unsigned flags);
/* Whether this row of an ended task was unlinked (rm -r exec/N). */
bool names_is_removed(struct tree *t, uint64_t task_node, unsigned row);

/* ---- volumes.c ---- */

struct slot {
        struct tree *tree;
        struct sandbox *sandbox;
        struct volume *volume;
        unsigned refs; /* guarded by atomics; the table counts as one */
        /* guarded by the tree's lock */
        bool has_root;
        struct vol_entry root; /* what fs/ itself was last */
};

/*
 * The volume of a sandbox, made when first asked for: a reference. -EINPROGRESS with op->wait_key
 * while it can't be there yet; -ENODEV.
 */
int slot_get(struct tree *t, struct op *op, uint64_t serial, struct slot **ret);
/* one that is there: a reference, or NULL */
struct slot *slot_find(struct tree *t, uint64_t serial);
void slot_unref(struct slot *s); /* accepts NULL */
/*
 * fs/ itself answers locally: a look at the sandbox's directory costs no call. After a getattr that
 * gave `r` and `e`: remembers them, or true with what was remembered, when it has to be asked for
 * or can't be.
 */
bool slot_root(struct slot *s, int r, struct vol_entry *e);
/* What an operation of it failed with; a sentence of the sandbox's service goes into `error`. */
void slot_failed(struct slot *s, const struct op *op, int code);
/* From now to tree_op_done the operation counts as one that the volume answers. */
void slot_enter(struct op *op, struct slot *s);
void slot_freep(struct slot **s);
void slot_gone(struct tree *t, uint64_t serial); /* the sandbox is no more */
/* All that was written through it is in the sandbox, if there is such a volume. On a worker. */
int slot_deliver(struct tree *t, struct sandbox *sb, struct call *c);
/* What it has not delivered at this moment is what status says. */
void slot_tell_dirty(struct tree *t, struct sandbox *sb);
/* What the sandbox refused of that: whether there is any; as listener.h's; as lines of `unsent`. */
bool slot_has_unsent(struct tree *t, struct sandbox *sb);
int slot_check_unsent(struct tree *t, struct sandbox *sb, struct call *c);
int slot_print_unsent(struct tree *t, struct sandbox *sb, struct buf *to);
/* All of it is queued once more. */
int slot_retry(struct tree *t, struct sandbox *sb, struct call *c);
/* What a former run left undelivered is shown and sent from now on. */
void slots_resume(struct tree *t, struct fleet *fleet);
/* No request comes any more; a worker may still be at one of them, and then frees it. */
void slots_drop(struct tree *t);
void slot_entry(struct tree *t, const struct slot *s, const struct vol_entry *from,
                struct tree_entry *ret);

/* ---- news.c ---- */

struct listener news_listener(struct tree *t);
