/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of files are kept on this side: a blob is a buffer in memory while it is small and
 * only a copy of what the sandbox has, else a sparse file of its own in the volume's directory.
 *
 * Names:   "b-" and 16 hex digits. What is found at start without a record is removed (dirty.h).
 * Files:   are open while somebody holds the blob (blob_hold), by name otherwise, so that their
 *          number is bound by that of open handles.
 * Limits:  the spool counts bytes in memory and on disk, and sees what the disk has left: on it may
 *          be as much as is free beside, so that several spools share one. Who may drop what is for
 *          its owner to say.
 * Threads: a blob is guarded by its owner's lock, also across its reads and writes; the spool's
 *          counters are atomic.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SPOOL_MEMORY_MAX ((uint64_t)64 * 1024 * 1024) /* bytes of all blobs in memory */
#define SPOOL_SMALL ((uint64_t)256 * 1024) /* files up to here may be in memory */
#define SPOOL_NAME_SIZE 24

struct spool {
        /* fixed after init */
        int dir; /* borrowed */
        uint64_t disk_max;

        atomic_uint_fast64_t next_id;
        atomic_uint_fast64_t memory; /* bytes in use */
        atomic_uint_fast64_t disk;

        /* what the disk had left at looked_ns, when `disk` was looked_disk */
        atomic_uint_fast64_t free, reserve, looked_ns, looked_disk;
};

struct blob {
        unsigned refs;
        uint64_t id; /* of its file; 0: in memory, or empty */
        int fd; /* -1: closed */
        unsigned holds;
        char *data; /* in memory */
        size_t room; /* bytes of `data` */
        uint64_t counted; /* bytes that the spool counts for it on disk */
};

void spool_init(struct spool *s, int dir, uint64_t disk_max);
/*
 * How many bytes may be on disk now, and how many of one large file around where it is read. Short:
 * what is left is for bytes that are only here, and for the files of others.
 */
uint64_t spool_limit(struct spool *s);
uint64_t spool_around(struct spool *s);
bool spool_is_short(struct spool *s);
bool spool_is_full(int r); /* an error that says so */

void spool_name(char kind, uint64_t id, char ret[SPOOL_NAME_SIZE]);
/* The number of a name of that kind; 0: it is none. */
uint64_t spool_id(char kind, const char *name);

struct blob *blob_new(void); /* empty; NULL: out of memory */
struct blob *blob_ref(struct blob *b);
void blob_unref(struct spool *s, struct blob *b); /* accepts NULL; the last removes its file */
/* An empty blob becomes the file that an earlier run left. */
void blob_adopt(struct spool *s, struct blob *b, uint64_t id);
/* Its file is not removed with it: a record names it. */
void blob_keep(struct spool *s, struct blob *b);

/* Holds count; the file is closed with the last. */
void blob_hold(struct blob *b);
void blob_release(struct blob *b);
void blob_pass_holds(struct blob *from, struct blob *to); /* `to` has none yet */

/* From now on its bytes are in a file, which survives our death. 0 or -errno. */
int blob_to_file(struct spool *s, struct blob *b);
/*
 * All of it, or -errno (-ENOSPC). A blob whose bytes end beyond SPOOL_SMALL becomes a file.
 */
int blob_write(struct spool *s, struct blob *b, const void *data, size_t size, uint64_t offset);
/* All of it; what was never written is zero. 0 or -errno. */
int blob_read(struct spool *s, struct blob *b, void *data, size_t size, uint64_t offset);
/* Bytes beyond `size` are gone; those up to it are zero where there are none. 0 or -errno. */
int blob_resize(struct spool *s, struct blob *b, uint64_t size);
/* How many bytes the owner keeps in it, for the spool's account. */
void blob_count(struct spool *s, struct blob *b, uint64_t bytes);
/* [start, end) reads as zeros and takes no room. 0 or -errno. */
int blob_zero(struct spool *s, struct blob *b, uint64_t start, uint64_t end);
