/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes of a volume on a real directory: which number stands for which path, and how often the
 * kernel was given it.
 *
 * Identity: a directory's number follows its path as this mount saw it, never its inode, and so
 *           does a link's, whose text is asked for each time. Any other file's follows path and
 *           inode: when another inode is met at its path, the old node is
 *           *detached* (it has no path any more, its open handles go on) and a new one is made.
 *           Names of one regular file with several hard links share a node once they are seen to
 *           be the same inode: then a node has further names, *aliases*, tried when the first is
 *           gone. Links, FIFOs and sockets never share: what a link says depends on where it is.
 * Numbers:  a number is an index of the table, used again when the kernel has forgotten it, nothing
 *           below it is known and no handle is open, then with another generation.
 * Paths:    are built from parents, so a directory that was renamed takes along all below it.
 * Memory:   about 100 bytes and the name, a node.
 * Threads:  one lock for all, never held over I/O. A path is what was true when it was asked for.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "transport/base/list.h"
#include "transport/base/lock.h"

struct imap;
union node_slot;

struct nodes {
        struct mutex lock;

        /* fixed after init */
        uint64_t key[2]; /* of the hash: names are chosen by a hostile party */

        /* guarded by lock */
        union node_slot *slots GUARDED_BY(lock);
        /* slots that were ever used, the first of which is none */
        uint32_t slot_count GUARDED_BY(lock);
        uint32_t slot_room GUARDED_BY(lock);
        uint32_t free_slot GUARDED_BY(lock); /* head of those in no use, 0: none */
        uint32_t *buckets GUARDED_BY(lock); /* (parent, name) -> first slot */
        uint32_t bucket_count GUARDED_BY(lock); /* a power of 2 */
        uint32_t count GUARDED_BY(lock); /* nodes and aliases */
        uint32_t generation GUARDED_BY(lock);
        struct imap *linked GUARDED_BY(lock); /* inode with several names -> its slot */
        struct list open GUARDED_BY(lock); /* all open handles */
        /* what was handed out until then counts no more */
        uint32_t handed_since_ms GUARDED_BY(lock);
};

/* Head of whatever is open on a node. Fields are guarded by the table's lock. */
struct node_open {
        struct list of_all;
        struct node_open *next; /* of the same node */
        uint64_t node;
        unsigned refs;
};

/*
 * A path from the volume's root, "." for the root itself, with what the node was when it was built.
 */
struct node_path {
        char *text; /* in `fixed`, or `heap` when it is longer than PATH_MAX allows */
        size_t length;
        unsigned depth; /* components of `text`; 0: the root */
        mode_t kind; /* S_IFMT bits of the node that was asked for */
        uint64_t ino; /* of a node that is neither directory nor link, else 0 */
        char *heap;
        char fixed[PATH_MAX];
};

/* What a node is called outside. */
struct node_id {
        uint64_t number;
        uint64_t generation;
};

int nodes_init(struct nodes *t);
void nodes_done(struct nodes *t);

/**
 * The path of a node, or of `name` below it.
 *
 * Owner:  node_path_done(ret), also after a failure.
 * Errors: -ESTALE no such number, or detached; -ENOMEM.
 */
int nodes_path(struct nodes *t, uint64_t number, const char *name, struct node_path *ret)
        EXCLUDES(t->lock);
void node_path_done(struct node_path *p);

/* What is met at (parent, name): the node that stands for it, with one more reference. */
int nodes_meet(struct nodes *t, uint64_t parent, const char *name, const struct stat *st,
               struct node_id *ret) EXCLUDES(t->lock);

/*
 * What was just made at (parent, name), so that whatever was known there is gone: a new node with
 * one reference.
 */
int nodes_make(struct nodes *t, uint64_t parent, const char *name, const struct stat *st,
               struct node_id *ret) EXCLUDES(t->lock);

/* (parent, name) has become one more name of `number`, which gets one more reference. */
int nodes_link(struct nodes *t, uint64_t number, uint64_t parent, const char *name,
               struct node_id *ret) EXCLUDES(t->lock);

void nodes_forget(struct nodes *t, uint64_t number, uint64_t count) EXCLUDES(t->lock);

/* (parent, name) was removed through the mount. */
void nodes_remove(struct nodes *t, uint64_t parent, const char *name) EXCLUDES(t->lock);

/* The path `seen` of this node no longer leads to it. True: it has another name to go on with. */
bool nodes_drop_name(struct nodes *t, uint64_t number, const struct node_path *seen)
        EXCLUDES(t->lock);

/*
 * (parent, name) was renamed to (new_parent, new_name), or changed places with it. Never makes a
 * loop. Where memory is short the node is detached: the kernel looks it up again.
 */
void nodes_move(struct nodes *t, uint64_t parent, const char *name, uint64_t new_parent,
                const char *new_name) EXCLUDES(t->lock);
void nodes_exchange(struct nodes *t, uint64_t parent, const char *name, uint64_t new_parent,
                    const char *new_name) EXCLUDES(t->lock);

/*
 * Open handles. The first reference of `o` is the caller's; the rest is undone when nodes_unref
 * says so.
 */
void nodes_open(struct nodes *t, uint64_t number, struct node_open *o) EXCLUDES(t->lock);
/* Any open handle of this node with one more reference, or NULL. */
struct node_open *nodes_any_open(struct nodes *t, uint64_t number) EXCLUDES(t->lock);
/* True: this was the last reference, the node knows `o` no more, and the caller frees it. */
bool nodes_unref(struct nodes *t, struct node_open *o) EXCLUDES(t->lock);
/* Numbers of all files that are open, some twice; *ret to free. */
int nodes_all_open(struct nodes *t, uint64_t **ret, size_t *ret_count) EXCLUDES(t->lock);

/*
 * What the kernel keeps of open files. The first attributes after a recall are told without a
 * time-out, so that nothing is taken back while they are under way: the kernel would not believe
 * them, and a read would go by the size of before.
 */
/* Pages of this file, which is open. */
void nodes_keep(struct nodes *t, uint64_t number) EXCLUDES(t->lock);
/* Whether the node's attributes, of which `stamp` is a number, may be told with a time-out. */
bool nodes_may_keep(struct nodes *t, uint64_t number, uint64_t stamp) EXCLUDES(t->lock);
/* As nodes_all_open, only those of which something is kept; once it is taken back, nodes_recalled. */
int nodes_recall(struct nodes *t, uint64_t **ret, size_t *ret_count) EXCLUDES(t->lock);
void nodes_recalled(struct nodes *t) EXCLUDES(t->lock);

/*
 * Whether the pages of this file were last recorded under the same stamp; records the stamp. 0 is
 * never the same.
 */
bool nodes_same_pages(struct nodes *t, uint64_t number, uint64_t stamp) EXCLUDES(t->lock);

/* True: others than these were told so, which the kernel is then taken to have forgotten. */
bool nodes_told_others(struct nodes *t, uint64_t number, uint64_t stamp) EXCLUDES(t->lock);

/* False when it was recorded as handed out less than `span_ms` before; else records it. */
bool nodes_hand_out(struct nodes *t, uint64_t number, uint32_t now_ms, uint32_t span_ms)
        EXCLUDES(t->lock);
/* All that was handed out counts as taken back. */
void nodes_hand_out_anew(struct nodes *t, uint32_t now_ms) EXCLUDES(t->lock);

/**
 * The names of a node, one a call: *cursor starts at 0.
 *
 * Shape:   *ret_parent and name (NAME_MAX + 1 bytes).
 * Returns: false when there is none left.
 */
bool nodes_name(struct nodes *t, uint64_t number, uint32_t *cursor, uint64_t *ret_parent,
                char name[NAME_MAX + 1]) EXCLUDES(t->lock);

/* How deep a directory is (the root is 0); -ESTALE. */
int nodes_depth(struct nodes *t, uint64_t number, unsigned *ret) EXCLUDES(t->lock);
/* Whether a node has a path at all. */
bool nodes_has_path(struct nodes *t, uint64_t number) EXCLUDES(t->lock);
/* Whether a node stands for the file that `st` is of. */
bool nodes_is(struct nodes *t, uint64_t number, const struct stat *st) EXCLUDES(t->lock);
/* S_IFMT bits of what is known at (parent, name), 0 when nothing is. */
mode_t nodes_kind(struct nodes *t, uint64_t parent, const char *name) EXCLUDES(t->lock);
/* Whether the node known at (parent, name) took the place of a directory that nobody removed. */
bool nodes_was_directory(struct nodes *t, uint64_t parent, const char *name) EXCLUDES(t->lock);
/* What is or was a moment ago a directory: others take along nobody who follows a link. */
bool nodes_may_be_directory(struct nodes *t, uint64_t parent, const char *name) EXCLUDES(t->lock);
/* How many nodes there are, for tests and logs. */
size_t nodes_count(struct nodes *t) EXCLUDES(t->lock);
