/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one content has to send, as changes of box_apply. A whole file goes to a temporary name and
 * is renamed over; one with large holes is made at such a name piece by piece; parts go in place.
 * The file's time is set along with its bytes, so that it stays the one that was shown.
 */
#pragma once

#include "fs/volume/contents.h"
#include "fs/volume/temps.h"
#include "providers/files.h"

#define SENDING_CHANGES 3 /* at most, for one file */

/* A content on its way. */
struct sending {
        struct file_source source; /* first */
        struct content *x;
        const char *path; /* borrowed */
        char *temp; /* where it is made piece by piece; NULL */
        char temp_name[TEMP_NAME_SIZE]; /* the provider's */
        struct blob *blob;
        struct file_extent *extents;
        size_t extent_count;
        uint64_t changes; /* x->changes when it began */
        uint64_t size;
        struct stat shown;
        bool is_whole, is_in_place, sets_mode, sets_size;
        bool was_cut; /* dirty_tries.is_cut before */
        bool is_begun; /* bytes of it were asked for, or need not be */
        bool is_over; /* parts of ours went into another version */
        const char *news; /* when it has ended well: for people; NULL */
        size_t count; /* of its changes */
        int error;
};

/*
 * What is dirty is being sent from now on, to `path`; `is_whole`: with all else, which is here. 0 or
 * -ENOMEM: nothing was begun.
 */
int sending_begin(struct content *x, const char *path, bool is_whole, struct sending *w)
        REQUIRES(x->lock);
/* Its changes, which borrow from it: how many, at most SENDING_CHANGES, or -errno. */
int sending_fill(struct sending *w, uint64_t number, struct change *to);
/* The provider's temporary name for a change of this number, kept in *w; NULL: none. */
const char *sending_temp(struct sending *w, uint64_t number);
/* Of its changes' results the first error, -EINPROGRESS too. */
int sending_error(const struct sending *w, const struct change *changes);
/* All went well: what the file is now, told to the names half. */
void sending_answer(const struct sending *w, const struct change *changes, uint64_t sent_ns,
                    uint64_t epoch, struct stat *st);
/* What was begun ends, by w->error; all is dirty again unless it is 0. */
void sending_end(struct sending *w, const struct stat *st, bool is_refused);
