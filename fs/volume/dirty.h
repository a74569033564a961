/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits to be sent, on disk: after kill -9 the next mount finds every byte that a write was
 * answered for.
 *
 *      b-ID    the bytes (spool.h)
 *      r-ID    a record: the file's path, mode, times; whether all of it is ours, or which version
 *              of the sandbox's file was changed
 *      x-ID    for a changed file: what was written, in order. 16 bytes an entry, two uint64_t:
 *              start and end of what was written, or a number and what it is (dirty.c): a new size,
 *              how long the sandbox's file may be; of any: what was on its way to the sandbox
 *
 * Order: a record is there before the first write it stands for is answered, and goes first when
 *        all was sent. An entry of x-ID follows its bytes, except for a new size, which comes first:
 *        the bytes may only be cut off when the entry is there.
 * Guarded by the owner's lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/volume/extents.h"

struct dirty_record {
        const char *path;
        bool is_whole; /* all of the file is ours; else what x-ID says */
        bool sets_mode; /* the mode is to be set there, too */
        mode_t mode;
        struct timespec mtime; /* {0, 0}: that of b-ID */
        uint64_t seq; /* the journal's latest change that `path` knows of */
        struct stat base; /* st_mtim, st_size, st_ino, st_ctim of the changed file */
        uint64_t version_size; /* st_size as the sandbox told it; base's may be larger */
};

/* What the sandbox may have of an upload whose answer never came. */
#define DIRTY_TRIES 4
struct dirty_try {
        uint64_t size;
        struct timespec mtime;
};
struct dirty_tries {
        struct dirty_try at[DIRTY_TRIES]; /* the latest ones */
        unsigned count; /* ever; the latest is at[(count - 1) % DIRTY_TRIES] */
        bool is_cut; /* the latest went in place, and may have got there in part */
};

int dirty_write(int dir, uint64_t id, const struct dirty_record *from);
/* The record and its list. What can't be removed is sent once more by the next mount. */
void dirty_remove(int dir, uint64_t id);

/*
 * A file whose parts are changed: which bytes are ours, and how long it is. Where the sandbox's
 * file has bytes that ours lost by getting shorter, zeros are ours when it gets longer again.
 */
struct dirty_parts {
        struct extents dirty;
        uint64_t size;
        uint64_t base_size; /* how long the sandbox's file is, at most */
        bool sets_size; /* it was cut, or made longer by no write */
        struct dirty_tries tries;
};

void dirty_tried(struct dirty_tries *tries, struct dirty_try what, bool is_in_place);
int dirty_wrote(struct dirty_parts *p, uint64_t start, uint64_t end); /* 0 or -ENOMEM */
int dirty_resized(struct dirty_parts *p, uint64_t size);

/* Append to x-ID. 0 or -errno. */
int dirty_log_write(int dir, uint64_t id, uint64_t start, uint64_t end);
int dirty_log_size(int dir, uint64_t id, uint64_t size);
int dirty_log_base(int dir, uint64_t id, uint64_t base_size);
/* The latest of these, which is on its way from now on; or all, to another x-ID. */
int dirty_log_try(int dir, uint64_t id, const struct dirty_tries *tries);
int dirty_log_tries(int dir, uint64_t id, const struct dirty_tries *tries);
/* x-ID anew: what leads to these parts, whatever the record's base. */
int dirty_log_anew(int dir, uint64_t id, const struct dirty_parts *parts);

/* One that an earlier run left. */
struct dirty_found {
        uint64_t id;
        char *path; /* of `record` */
        struct dirty_record record;
        struct dirty_parts parts; /* size: of the whole file, too */
};
void dirty_found_done(struct dirty_found *f);

/**
 * All records, the latest first, and away with files that none names. One that can't be read is
 * left alone, with all that belongs to it.
 *
 * Shape:   *ret_max: the highest number in use.
 * Owner:   dirty_found_done for each of *ret, and free(*ret).
 */
int dirty_find(int dir, struct dirty_found **ret, size_t *ret_count, uint64_t *ret_max);
bool dirty_any(int dir);
