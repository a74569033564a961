/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a sandbox's files: a tree by path components. Pure memory; it asks nobody.
 *
 * Each entry has attributes, or is known to be absent, from a request that was sent at some time in
 * some epoch. Whether that is fresh enough is for the caller to say. A directory can be *listed*:
 * all its names are entries, and what is none of them is absent.
 *
 * Order:   answers come in any order. What was asked for earlier never replaces what was asked for
 *          later, and what was asked for before a change of ours was answered doesn't count for the
 *          names and attributes which that change was about: `moved_ns` is since when an entry is
 *          here or absent by a change of ours, `set_ns` since when its attributes are ours.
 * Pinned:  an entry whose content is pinned stays, with the directories above, until that is over.
 * Kept:    so does what was made or removed here and refused by the sandbox, and is a mode shown that
 *          it has refused, until the next change there, or meta_let.
 * Inodes:  the number shown is the one that the sandbox told first, and stays when a whole file of
 *          ours took its place there, and no other file is shown by it; another one met later is
 *          another file, without the content.
 *          Where none is told one is made up, from the path and when we brought it there.
 * Memory:  about 230 bytes and the name, an entry; at most `max` of them, then directories that
 *          nobody used for long lose theirs.
 * Paths:   as files.h has them. Names are hostile: checked here, hashed with a key.
 * Threads: one lock for all, never held over I/O or a hook but content's ref and is_pinned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/volume/cached.h"

#define META_BATCHES 1024 /* listings that are told apart at a time */
#define META_PATH_MAX 65535 /* bytes of a path; what the sandbox bears is for it to say */
#define META_TARGET_MAX 4095 /* bytes of a link's text */

struct content_hooks {
        struct content *(*ref)(struct content *x);
        void (*unref)(struct content *x); /* called without lock */
        bool (*is_pinned)(const struct content *x);
};

struct meta_config {
        size_t max; /* entries; 0: 1,000,000 */
        struct content_hooks content;
};

/* Where an answer comes from. */
struct meta_source {
        uint64_t sent_ns; /* when it was asked for; > 0 */
        uint64_t epoch;
        bool was_quiet; /* and nothing in the sandbox could change files then */
        uint16_t batch; /* of a listing: below META_BATCHES */
};

/* What is known at a path. */
struct meta_fact {
        uint64_t id; /* of the entry; 0: absence that a listing tells */
        bool exists;
        bool is_pinned;
        bool has_content;
        bool was_quiet;
        uint16_t batch;
        struct known k; /* st: 0 when it doesn't exist */
};

/* What is known of a directory's names. */
struct meta_dir {
        uint64_t id;
        bool is_listed;
        bool is_huge; /* a listing of it was cut off */
        bool is_kept; /* the sandbox has refused it: its names are those that are known */
        bool was_quiet;
        uint16_t batch;
        uint32_t count; /* names in it */
        uint64_t sent_ns;
        uint64_t epoch;
};

int meta_new(const struct meta_config *config, struct meta **ret);
void meta_free(struct meta *m); /* accepts NULL */
/* All references to contents are given back. */
void meta_drop_contents(struct meta *m);
size_t meta_count(struct meta *m);

/* False: nothing is known. Marks it as used. */
bool meta_get(struct meta *m, const char *path, struct meta_fact *ret);
bool meta_get_content(struct meta *m, const struct content_head *x, struct meta_fact *ret);
bool meta_get_dir(struct meta *m, const char *path, struct meta_dir *ret);
/* The text of a link, NUL-terminated. False: not known. */
bool meta_get_target(struct meta *m, const char *path, char ret[META_TARGET_MAX + 1]);
/* How many entries of this batch were used since. */
uint32_t meta_batch_used(struct meta *m, uint16_t batch);
void meta_batch_begin(struct meta *m, uint16_t batch);
/* The path of a content's file, to free; NULL: it has none any more, or no memory. */
char *meta_content_path(struct meta *m, const struct content_head *x);

/* ---- listings, as they come ---- */

struct meta_listing {
        struct meta *m;
        struct meta_source source;
        char *base;
        /* where the last entry went */
        char *last;
        size_t last_size, last_room;
        uint32_t last_at;
        uint64_t shape;
        size_t count; /* entries that came */
};

int meta_listing_begin(struct meta *m, const char *base, const struct meta_source *source,
                       struct meta_listing *ret);
/*
 * As file_list_sink's. What no directory can hold is passed over. A path "" is the base itself.
 * -ENOMEM.
 */
int meta_listing_entry(struct meta_listing *l, const char *path, const struct stat *st,
                       const char *target);
int meta_listing_dir(struct meta_listing *l, const char *path);
/* This directory of it is too large to be listed as it was. */
void meta_listing_cut(struct meta_listing *l, const char *path);
void meta_listing_done(struct meta_listing *l);

/* ---- single answers ---- */

/* It is there, with these attributes; `target` of a link or NULL. */
int meta_put(struct meta *m, const char *path, const struct meta_source *source,
             const struct stat *st, const char *target);
/* It isn't. */
void meta_put_absent(struct meta *m, const char *path, const struct meta_source *source);
/* The text of this link. */
void meta_put_target(struct meta *m, const char *path, const char *target);
/*
 * New attributes of a content's file; is_ours as cached_told has it, with the present time. False:
 * they are another file's, or there is none of the content's any more.
 */
bool meta_told(struct meta *m, const struct content_head *x, const struct meta_source *source,
               const struct stat *st, uint64_t ours_ns);
/* What is known of it must be asked for again; also the names of its directory. */
void meta_doubt(struct meta *m, const char *path);

/* ---- changes of ours that were carried out, at `now_ns` ---- */

/* (path) is new, whatever was there. Consumes nothing. */
int meta_made(struct meta *m, const char *path, const struct meta_source *source,
              const struct stat *st, const char *target, uint64_t now_ns,
              const struct content_head *x);
/* What was just made so, no regular file, was told with whole seconds: its times stay ours. */
void meta_own_times(struct meta *m, const char *path, const struct meta_source *source);
/* (new_path) is one more name of what is at `path`. */
int meta_linked(struct meta *m, const char *path, const char *new_path,
                const struct meta_source *source, const struct stat *st, uint64_t now_ns);
/* It has other attributes; is_here: by a change that the sandbox doesn't know yet. */
void meta_set(struct meta *m, const char *path, const struct meta_source *source,
              const struct stat *st, bool is_here, uint64_t now_ns);
/* So are some of files with several names: what is known of any such is older than that. */
void meta_links_sent(struct meta *m, uint64_t now_ns);
/* A change of this name is in the sandbox now: the times that its directory got are still ours. */
void meta_sent(struct meta *m, const char *path, const struct meta_source *source);
/* It was removed; pinned ones too. */
void meta_removed(struct meta *m, const char *path, const struct meta_source *source,
                  uint64_t now_ns);
/* It was renamed, over what was there; `st` may be NULL. -ENOMEM: then it is only gone. */
int meta_moved(struct meta *m, const char *path, const char *new_path,
               const struct meta_source *source, const struct stat *st, uint64_t now_ns);

/* ---- changes of ours that were refused, and are shown all the same ---- */

/* What was made there, no regular file; `target` of a link. -ENOMEM: the sandbox's state is shown. */
int meta_keep_made(struct meta *m, const char *path, const struct meta_source *source,
                   const struct stat *st, const char *target);
int meta_keep_removed(struct meta *m, const char *path, const struct meta_source *source);
void meta_keep_mode(struct meta *m, const char *path, mode_t mode);
/* No longer: as meta_doubt. */
void meta_let(struct meta *m, const char *path);

/* ---- contents ---- */

struct content *meta_content(struct meta *m, const char *path);
struct content *meta_set_content(struct meta *m, const char *path, struct content_head *x);
void meta_drop_content(struct meta *m, const struct content_head *x);
/* Move a content to another name of the same file. */
void meta_pass_content(struct meta *m, struct content_head *x, const char *path);
/* Those below a directory, each with a reference; *ret to free. -ENOMEM. */
int meta_contents_below(struct meta *m, const char *path, struct content ***ret, size_t *ret_count);
/* Whether something that is only here is below. */
bool meta_has_pinned(struct meta *m, const char *path);

/* ---- walks ---- */

/* The names of a listed directory, packed: each struct meta_name, its name and NUL. */
struct meta_name {
        uint64_t ino;
        uint32_t mode;
        uint32_t size; /* of the name, without NUL */
        char text[];
};
struct meta_names {
        char *data; /* to free */
        size_t size;
        struct meta_source source;
};
/* is_any: those that are known where it isn't listed. -EAGAIN: not listed; -ENOMEM. */
int meta_names(struct meta *m, const char *path, bool is_any, struct meta_names *ret);
/* Bytes from one struct meta_name to the next. */
size_t meta_name_span(uint32_t size);

void meta_siblings(struct meta *m, const char *path, bool is_deep, uint64_t epoch,
                   uint64_t since_ns, struct cached_sibling_sink *to);
