/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run of changes that go together, in three round trips however many they are:
 *
 *      open    temporary files, and those that are written in place
 *      fill    the temporary files: content, mode, times
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

#define WINDOW_CHANGES 256
#define WINDOW_BYTES ((uint64_t)4 << 20) /* of content in memory */
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
};

struct window {
        struct spot *spot;
        struct call *call;
        struct window_item items[WINDOW_CHANGES];
        size_t count;
        uint64_t bytes;
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

/* ---- files_large.c ---- */

/* The content of one large change into an open file, over several connections if it pays. */
int large_write(struct spot *s, struct call *c, const struct sftp_handle *handle, const char *path,
                const struct change *x);
