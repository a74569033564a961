/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many files as one stream of bytes and back: tar in its pax form, which GNU tar, bsdtar and (without
 * the nanoseconds) busybox read. The only user of libarchive. Nothing here does I/O.
 *
 * Names:   relative; components joined by one '/', none is "." or "..", any other bytes but NUL.
 *          The writer refuses others; the reader passes over files that have such, and over what is
 *          neither a file nor a directory: links are nobody's way out.
 * Threads: one at a time for one writer; readers share nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define TAR_NAME_MAX ((size_t)64 * 1024)

struct tar_entry {
        const char *name; /* read: without "./" before it */
        mode_t mode; /* permission bits */
        struct timespec mtime;
        struct timespec ctime; /* read: 0 where it isn't told; never written */
        uint64_t size; /* 0 of a directory */
        bool is_dir;
};

/* ---- writing ---- */

struct tar_writer;

struct tar_out {
        /* The next bytes of the stream, borrowed; non-zero ends it, and the writer returns it. */
        int (*data)(struct tar_out *to, const void *data, size_t size);
};

/* `to` is kept until tar_writer_free. 0 or -ENOMEM. */
int tar_writer_new(struct tar_out *to, struct tar_writer **ret);
/* One more; exactly e->size bytes of content follow, by tar_write. -EINVAL its name can't be. */
int tar_add(struct tar_writer *w, const struct tar_entry *e);
int tar_write(struct tar_writer *w, const void *data, size_t size);
/* The end of the stream. -EINVAL the last file isn't whole. */
int tar_finish(struct tar_writer *w);
/* Without tar_finish, the stream stays without its end. Accepts NULL. */
void tar_writer_free(struct tar_writer *w);

/* ---- reading ---- */

struct tar_source {
        /* The next bytes, borrowed until the next call: how many; 0 the end; -errno. */
        ssize_t (*read)(struct tar_source *from, const void **ret);
};

struct tar_sink {
        /* One file with its content, or a directory; borrowed. Non-zero ends it all, tar_read
         * returns that. */
        int (*file)(struct tar_sink *to, const struct tar_entry *e, const void *data);
};

struct tar_limits {
        uint64_t file_bytes; /* of one file; a larger one is told with `data` NULL */
        uint64_t bytes; /* of all together */
        size_t count;
};

/**
 * Read a stream to its end.
 *
 * Hostile: all of it. A name may come twice.
 * Errors:  -EPROTO it is no tar, or cut off (what came before was told); -E2BIG beyond a limit; the
 *          source's; the sink's; -ENOMEM.
 */
int tar_read(struct tar_source *from, const struct tar_limits *limits, struct tar_sink *to);
