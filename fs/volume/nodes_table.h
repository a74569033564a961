/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of nodes, for nodes*.c only: slots by number, chained from buckets by a keyed hash of
 * (parent, name). An alias, one more name of a node, is a slot of its own that is found by its name
 * like any other, but is never given out.
 *
 * A slot's node may move in memory when its name is set; a node goes when nobody needs it, at the
 * table_reap that follows. t->lock is held for all of it.
 */
#pragma once

#include "fs/volume/nodes.h"
#include "fs/volume/volume.h"

#define TABLE_ROOT ((uint32_t)VOLUME_ROOT)

/* What the kernel keeps of an open file: attributes with a time-out, pages. */
enum node_kept {
        KEPT_SOMETHING, /* it may; so from the opening on */
        KEPT_RECALLED, /* as before, and it is being taken back */
        KEPT_NOTHING, /* all was taken back */
        KEPT_ASKED, /* nothing, but it was told attributes that are right, without a time-out */
};

struct node {
        uint32_t parent; /* 0: the root, or detached */
        uint32_t next; /* in its bucket */
        uint32_t hash;
        uint32_t generation;
        uint32_t children; /* nodes and aliases whose parent this is */
        uint32_t alias; /* of a node: its first alias; of an alias: the next one of the same node */
        uint32_t target; /* of an alias: its node; 0: a node */
        uint32_t handed_ms;
        uint64_t lookups;
        uint64_t ino; /* 0 for directories and links */
        uint64_t pages; /* stamp of nodes_same_pages */
        uint64_t told; /* stamp of nodes_may_keep; 0: none */
        struct node_open *open;
        uint16_t kind; /* S_IFMT bits */
        uint16_t room; /* bytes at `name` */
        bool is_linked; /* in t->linked */
        bool was_directory; /* at that name a directory was known that wasn't removed by us */
        uint8_t kept; /* enum node_kept, of a file that is open */
        char name[];
};

/* A slot in no use holds the next such one, shifted left, and a bit that no pointer has. */
union node_slot {
        struct node *node;
        uintptr_t bits;
};

static inline struct node *table_get(const struct nodes *t, uint64_t number) REQUIRES(t->lock)
{
        if (number == 0 || number >= t->slot_count || (t->slots[number].bits & 1) != 0)
                return NULL;
        return t->slots[number].node;
}

/* A number as it comes from outside: aliases have none. */
static inline struct node *table_get_node(const struct nodes *t, uint64_t number) REQUIRES(t->lock)
{
        struct node *n = table_get(t, number);

        return n && n->target == 0 ? n : NULL;
}

/* Whether it stands for the file that `st` is of. */
static inline bool table_is_same(const struct node *n, const struct stat *st)
{
        return n->kind == (st->st_mode & S_IFMT) && (n->ino == 0 || n->ino == st->st_ino);
}

/* The slot at (parent, name), 0: nothing is known there. */
uint32_t table_find(const struct nodes *t, uint32_t parent, const char *name) REQUIRES(t->lock);
/* A new node at (parent, name), where nothing is known; parent 0: in no directory. */
int table_add_node(struct nodes *t, uint32_t parent, const char *name, const struct stat *st,
                   uint32_t *ret) REQUIRES(t->lock);
/* (parent, name), where nothing is known, is one more name of the node at `at`. */
int table_add_name(struct nodes *t, uint32_t at, uint32_t parent, const char *name)
        REQUIRES(t->lock);
/* Give the detached node at slot `at` a name; its address may change. */
int table_set_name(struct nodes *t, uint32_t at, const char *name) REQUIRES(t->lock);
/* The slot at `at`, named but in no directory, goes below `parent`. */
void table_attach(struct nodes *t, uint32_t at, uint32_t parent) REQUIRES(t->lock);
/* Out of its directory. The parent may have become superfluous: the caller reaps it. */
uint32_t table_detach(struct nodes *t, uint32_t at) REQUIRES(t->lock);
void table_drop_alias(struct nodes *t, uint32_t at) REQUIRES(t->lock);
/* What stands at slot `at`, a name of a node, no longer does. */
void table_drop_name(struct nodes *t, uint32_t at) REQUIRES(t->lock);
void table_drop_name_at(struct nodes *t, uint32_t parent, const char *name) REQUIRES(t->lock);
/* Free the node if nobody needs it, then its parent, and so on. `at` may be 0. */
void table_reap(struct nodes *t, uint32_t at) REQUIRES(t->lock);
/* The slot that stands for this inode, 0 if none is known. */
uint32_t table_find_linked(const struct nodes *t, uint64_t ino) REQUIRES(t->lock);
/*
 * From now on other names of its inode find this node.
 * Without memory they don't, which is no failure.
 */
void table_note_linked(struct nodes *t, uint32_t at) REQUIRES(t->lock);
