/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run of changes that go together, in three round trips however many they are:
 *
 *      open    temporary files, and those that are written in place
 *      fill    the temporary files: content, mode, times; small ones by one tar stream, without
 *              being opened (files_bulk.c)
 *      names   everything that can be seen, in the order of the changes: renames into place,
 *              directories, removals, writes in place; and behind each, what the file is now
 *
 * A connection that is not ordered (not OpenSSH) carries them out one change, and one request, at a
 * time. What is opened must not depend on an earlier change of the same run: such a change begins
 * the next one (window_add refuses it). Temporary names are beside the workspace, in the sandbox's
 * own directory, so that they depend on nothing; beside the file where that is another file system,
 * or somebody else's.
 */
#pragma once

#include "providers/ssh/files.h"
#include "transport/base/random.h"

#define WINDOW_CHANGES 2048
#define WINDOW_OPEN 256 /* files that are open there at once */
#define WINDOW_BYTES ((uint64_t)4 << 20) /* of content in memory */
#define BULK_BYTES_MAX ((uint64_t)64 << 20) /* of content that goes as a tar stream */
#define BULK_FILE_BYTES ((uint64_t)256 << 10) /* of one file of it */
#define LARGE_BYTES ((uint64_t)1 << 20) /* content of one change that is not taken into memory */

struct window_item {
        struct change *x;
        char *path, *to, *temp; /* absolute; NULL where it has none */
        struct sftp_handle handle;
        unsigned char *data; /* content, as its extents stand one behind the other */
        struct timespec atime; /* of CHANGE_SET, where only the other is given */
        int error; /* what came of it so far; 1: nothing yet */
        bool is_moved; /* temp isn't there any more */
        bool is_for_touch; /* SFTP doesn't set its times */
        bool is_bulk; /* its content may go by tar */
        bool is_filled; /* its temporary file has its content */
        bool is_refused; /* there was no room for that, it seems */
        bool has_ns; /* its time is exact, to the nanosecond */
        bool is_done; /* tar and mv did all of it */
        bool is_named; /* it had its turn */
};

struct window {
        struct spot *spot;
        struct call *call;
        struct window_item *items;
        size_t count, room;
        size_t open_count; /* of those that SFTP opens */
        uint64_t bytes; /* content that SFTP sends */
        size_t bulk_count; /* of those that tar may unpack */
        uint64_t bulk_bytes;
        char bulk_id[RANDOM_ID_SIZE]; /* begins their temporary names; "" none yet */
        bool is_beside; /* temporary names are beside the files */
};

void window_init(struct window *w, struct spot *s, struct call *c);
void window_done(struct window *w);
/* One more; false: it belongs into the next one. */
bool window_add(struct window *w, struct change *x);
/*
 * Carry them out: each has its result. -errno: the call has failed, and those whose result is not
 * known are as before.
 */
int window_run(struct window *w);

/* ---- files_bulk.c ---- */

/* Whether tar may unpack it. */
bool bulk_can(const struct window *w, const struct change *x);
/* The name for the next one of those; NULL: out of memory, or no random bytes. */
char *bulk_temp(struct window *w);
/*
 * Content of all that are is_bulk, as far as it can be had so: they are is_filled then. -errno: the
 * call has failed.
 */
int bulk_fill(struct window *w);

/* ---- files_large.c ---- */

/* The content of one large change into an open file, over several connections if it pays. */
int large_write(struct spot *s, struct call *c, const struct sftp_handle *handle, const char *path,
                const struct change *x);
