/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of meta, for meta*.c only: entries and how they hang together.
 *
 * Slots by number, chained from buckets by a keyed hash of (parent, name); the entries of a
 * directory are linked in the order in which they were listed. A slot that is in no use holds the
 * next such one. An entry stays where it is in memory until it is renamed or freed: adding one may
 * free others (never the directory that it is added to, nor one above).
 */
#pragma once

#include <errno.h>

#include "fs/volume/meta.h"
#include "transport/base/lock.h"
#include "transport/base/map.h"

#define TREE_ROOT UINT32_C(1)

enum entry_flag {
        IS_ABSENT = 1 << 0,
        WAS_QUIET = 1 << 1, /* of the attributes */
        LISTED_QUIET = 1 << 2,
        IS_USED = 1 << 3, /* since the hand passed */
        IS_COUNTED = 1 << 4, /* in its batch */
        IS_HUGE = 1 << 5,
        /* a directory or a link: its times are not those that the sandbox tells ... */
        TIMES_OURS = 1 << 6,
        TIMES_OPEN = 1 << 7, /* ... and what it tells next is still of our change */
};

/* What the sandbox refused, and is shown all the same; cleared by what is done there next. */
enum entry_kept {
        KEPT_THERE = 1 << 0, /* ours is here, whatever the sandbox tells */
        KEPT_ABSENT = 1 << 1, /* ours is that nothing is */
        KEPT_MODE = 1 << 2, /* kept_mode instead of the one that is told */
};

struct entry {
        uint32_t parent;
        uint32_t next; /* in its bucket */
        uint32_t hash;
        uint32_t generation;
        uint32_t first, last; /* of its entries */
        uint32_t before, after; /* in its directory */
        uint32_t count; /* of its entries, those that exist */
        uint32_t epoch, listed_epoch; /* the low bits: epochs rise slowly */
        uint16_t batch, listed_batch;
        uint16_t room; /* bytes at `name` */
        uint8_t flags;
        uint8_t kept; /* enum entry_kept */
        uint16_t kept_mode;
        uint64_t sent_ns; /* attributes or absence; 0: not known */
        uint64_t seen_ns; /* the latest listing that named it */
        uint64_t moved_ns;
        uint64_t set_ns;
        uint64_t listed_ns; /* 0: not */
        uint64_t evicted_ns; /* when it lost entries last */

        uint32_t mode, nlink;
        uint64_t ino, server_ino;
        uint64_t size, blocks;
        int64_t mtime, ctime, atime;
        uint32_t mtime_ns, ctime_ns, atime_ns;
        /* where times are ours: as the sandbox told the mtime last, and the epoch of our change */
        uint32_t told_seconds, told_ns, times_epoch;
        char *target;
        struct content *content;
        char name[];
};

union slot {
        struct entry *entry;
        uintptr_t bits; /* of one in no use: the next such, shifted left, and 1 */
};

struct meta {
        struct mutex lock;

        /* fixed after init */
        uint64_t key[2];
        size_t max;
        struct content_hooks hooks;

        /* guarded by lock */
        union slot *slots GUARDED_BY(lock);
        uint32_t slot_count GUARDED_BY(lock);
        uint32_t slot_room GUARDED_BY(lock);
        uint32_t free_slot GUARDED_BY(lock);
        uint32_t *buckets GUARDED_BY(lock);
        uint32_t bucket_count GUARDED_BY(lock);
        uint32_t count GUARDED_BY(lock);
        uint32_t generation GUARDED_BY(lock);
        uint32_t hand GUARDED_BY(lock);
        uint64_t full_until_ns GUARDED_BY(lock);
        /* when a file with several names was last changed: what is older of any such isn't known */
        uint64_t links_ns GUARDED_BY(lock);
        /* numbers that are shown for files which aren't theirs there any more; to any pointer */
        struct imap *kept GUARDED_BY(lock);
        uint64_t shape GUARDED_BY(lock); /* rises when a path may lead elsewhere */
        /* contents whose reference is to be given back once the lock is */
        struct content **lost GUARDED_BY(lock);
        size_t lost_count GUARDED_BY(lock), lost_room GUARDED_BY(lock);
        uint32_t used[META_BATCHES] GUARDED_BY(lock);
};

static inline struct content_head *tree_head(struct content *x)
{
        return (struct content_head *)(void *)x;
}

static inline struct content *tree_content(const struct content_head *x)
{
        return (struct content *)(uintptr_t)x; /* its head */
}

static inline struct entry *tree_at(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        return m->slots[slot].entry;
}

/* What no directory holds, and what a change of ours overtook, is no failure of a listing. */
static inline int tree_pass_over(int r)
{
        return r == -ESTALE || r == -EINVAL ? 0 : r;
}

/* A file that may have other names was changed by us. */
static inline void tree_note_links(struct meta *m, const struct entry *e, uint64_t now_ns)
        REQUIRES(m->lock)
{
        if (!S_ISDIR(e->mode) && e->nlink > 1)
                m->links_ns = now_ns;
}

/* ---- meta_tree.c: slots, names, paths ---- */

uint64_t tree_id(const struct meta *m, uint32_t slot) REQUIRES(m->lock);
uint32_t tree_slot(const struct meta *m, uint64_t id) REQUIRES(m->lock);
bool tree_is_pinned(const struct meta *m, const struct entry *e) REQUIRES(m->lock);
void tree_lose_content(struct meta *m, struct entry *e) REQUIRES(m->lock);
/* Unlock, and give back what was lost meanwhile. */
void tree_unlock(struct meta *m) RELEASE(m->lock);
uint64_t tree_hash(uint64_t a, uint64_t b, const char *name, size_t size);
uint32_t tree_find(const struct meta *m, uint32_t parent, const char *name, size_t size)
        REQUIRES(m->lock);
int tree_grow_slots(struct meta *m) REQUIRES(m->lock);
struct entry *tree_new_entry(const char *name, size_t size);
/* Into its directory, as the last one. */
void tree_attach(struct meta *m, uint32_t slot, uint32_t parent) REQUIRES(m->lock);
void tree_detach(struct meta *m, uint32_t slot) REQUIRES(m->lock);
/* The next one of a walk through the tree below `top`, children after their directory; 0: none. */
uint32_t tree_next_below(const struct meta *m, uint32_t slot, uint32_t top) REQUIRES(m->lock);
bool tree_has_pinned(const struct meta *m, uint32_t top) REQUIRES(m->lock);
/* Remove all below `top`, pinned or not. */
void tree_drop_below(struct meta *m, uint32_t top) REQUIRES(m->lock);
void tree_drop(struct meta *m, uint32_t slot) REQUIRES(m->lock);
int tree_add(struct meta *m, uint32_t parent, const char *name, size_t size, uint32_t *ret)
        REQUIRES(m->lock);
bool tree_is_name(const char *name, size_t size);
/*
 * The entry at a path, absent ones included; 0: none. With `since_ns`, what was asked for at that
 * time about this path may be about something else: *ret_shadowed, and 0.
 */
uint32_t tree_resolve(const struct meta *m, uint32_t from, const char *path, size_t size,
                      uint64_t since_ns, bool *ret_shadowed) REQUIRES(m->lock);
uint32_t tree_seek(const struct meta *m, const char *path) REQUIRES(m->lock);
/* An entry that was absent, or only a place holder, is a directory of which nothing is known. */
void tree_revive(struct meta *m, uint32_t slot, uint32_t mode) REQUIRES(m->lock);
/* As resolve from the root, but directories that are not known are entered. */
int tree_resolve_making(struct meta *m, const char *path, size_t size, uint64_t since_ns,
                        uint32_t *ret) REQUIRES(m->lock);
/* The entry at `path`, made if there is none. */
int tree_take_place(struct meta *m, const char *path, uint32_t *ret) REQUIRES(m->lock);
size_t tree_dir_size(const char *path);
const char *tree_base_name(const char *path);
char *tree_path(const struct meta *m, uint32_t slot) REQUIRES(m->lock);

/* ---- meta_learn.c: what an answer says of one entry ---- */

/* Something that fs/ shows at all. */
bool tree_is_shown(const struct stat *st);
void tree_get_attrs(const struct entry *e, struct stat *st);
void tree_set_target(struct entry *e, const char *target);
/* What `source` is about was a change of ours: times that are told are still of that. */
void tree_own_times(struct entry *e, const struct meta_source *source);
/* It is shown by no number from now on. */
void tree_lose_number(struct meta *m, struct entry *e) REQUIRES(m->lock);
/* `there`: its number in the sandbox, or 0. */
uint64_t tree_made_up_ino(const struct meta *m, const struct entry *e, uint64_t there)
        REQUIRES(m->lock);
/* The numbers, or the kinds, tell that these attributes aren't of this entry's file. */
bool tree_is_other_file(const struct entry *e, const struct stat *st);
void tree_learn(struct meta *m, uint32_t slot, const struct meta_source *source,
                const struct stat *st, const char *target, bool is_ours) REQUIRES(m->lock);
/* An answer about (parent, name) that isn't about a change of ours. */
int tree_merge(struct meta *m, uint32_t parent, const char *name, size_t size,
               const struct meta_source *source, const struct stat *st, const char *target)
        REQUIRES(m->lock);
/* An entry is absent from now on. */
void tree_vanish(struct meta *m, uint32_t slot, const struct meta_source *source) REQUIRES(m->lock);
