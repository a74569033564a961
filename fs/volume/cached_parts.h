/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the cached volume's names half share: cached.c and cached_*.c. */
#pragma once

#include "fs/volume/cached.h"
#include "fs/volume/meta.h"

/* Whether what was asked for then is good enough for an operation that began at `begin_ns`. */
bool cached_is_fresh(struct cached *c, uint64_t begin_ns, const struct known *k, bool was_quiet);

/*
 * Fresh knowledge of a path: 0 it is there; -ENOENT, with *ret telling since when; else an error as
 * cached_attr has it. A link's text is known then, too.
 */
int cached_fact(struct cached *c, struct vol_op *op, const char *path, struct meta_fact *ret);

/* A node that was told within this time isn't remembered anew. */
#define CACHED_TOLD_AGAIN_MS 250
/* How long what is known may be believed outside; remembers that it was told. */
uint64_t cached_ttl_of_node(struct cached *c, uint64_t node, const struct meta_fact *f);
uint64_t cached_ttl_of_name(struct cached *c, uint64_t parent, const char *name,
                            const struct meta_fact *f);
/*
 * Attributes as they are shown: of a link the size of what readlink answers, and content_attrs,
 * whose answer it is.
 */
bool cached_show(struct cached *c, const char *path, const struct meta_fact *f, struct stat *ret);
/* The answer for the node of `path`. */
void cached_answer(struct cached *c, const struct node_id *id, const char *path,
                   const struct meta_fact *f, struct vol_entry *ret);

/* A command has ended: what was told is taken back, what is known is of the epoch before. */
void cached_exec_ended(struct volume *v);

/* A link's text as it is answered at `path`; a length, *ret_ups as anchor_target has it. */
int cached_anchor(struct cached *c, const char *path, const char *text, char *to, size_t size,
                  unsigned *ret_ups);

/*
 * Renames that are on their way: what is not found by a path may be found by another a moment
 * later. 1: look again, 0: it isn't there, or -EINPROGRESS, or -errno of the call. *serial is
 * cached_moves() from before the path was made.
 */
uint64_t cached_moves(struct cached *c);
int cached_moved_meanwhile(struct cached *c, struct vol_op *op, uint64_t *serial);

/* Fresh attributes of a node, and its path, to free also after a failure; *ret_path is NULL before. */
int cached_fact_of_node(struct cached *c, struct vol_op *op, uint64_t node, char **ret_path,
                        struct meta_fact *ret);
int cached_fact_of_name(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                        char **ret_path, struct meta_fact *ret);

/* Last known attributes of a directory that has no path any more, but a handle; else false. */
bool cached_removed_dir(struct cached *c, uint64_t node, struct stat *ret);

/* What every change of a name begins with: it may be made, and there is room for more of them. */
int cached_begin_change(struct cached *c, const struct vol_op *op, const char *name);
/* And ends with: under `sync` it is in the sandbox, or that has said why not. */
int cached_end_change(struct cached *c, struct vol_op *op, const char *path);
/* 0, or -ENOTEMPTY: nothing is in the directory, or something is; or as cached_fact. */
int cached_check_empty(struct cached *c, struct vol_op *op, const char *path);

/*
 * Set mode and times of what is at `path`, known as `f`; *ret (may be NULL) what it is then, with
 * the inode of the sandbox.
 */
int cached_set(struct cached *c, struct vol_op *op, const char *path, const struct meta_fact *f,
               unsigned what, const struct stat *to, struct stat *ret);

/* A file that goes, with what is needed to see it go. */
struct removal {
        char *path;
        struct content *x; /* NULL: none */
        struct stat last; /* its attributes before */
        ino_t sandbox_ino; /* 0: not known */
        uint64_t node; /* with a reference, of a file with several names; 0: no matter */
        bool goes_on; /* by another name */
};
/* rm->path is set. Always followed by cached_end_removal, after cached_removed if it was. */
int cached_begin_removal(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                         const struct meta_fact *f, struct removal *rm);
void cached_removed(struct cached *c, struct removal *rm);
void cached_end_removal(struct cached *c, struct removal *rm);

/* How deep the directory of what is at `path` is; 0: the root. */
unsigned cached_depth(const char *path);
