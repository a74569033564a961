/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a sandbox whose working directory is not a directory of this machine: what a
 * provider's table offers, in batches where speed matters, and what the cached volume calls.
 *
 * Paths:   relative to the working directory, "" itself; components are joined by one '/', none is
 *          "." or ".."; any other bytes but NUL. A link in the last place is never followed.
 * Stats:   a struct stat with what the service can tell, 0 elsewhere: st_ino, st_nlink, st_ctim and
 *          st_blocks may be unknown, st_mode always has its type. st_uid and st_gid say nothing.
 * Times:   st_mtim.tv_nsec is 0 where only the seconds are known; from one service both may come,
 *          by different calls (find tells them, SFTP doesn't). So two answers are about the same
 *          content when sizes and seconds are equal, and nanoseconds where neither is 0; and that
 *          proves nothing of a file that could have been changed again within that second.
 * Names:   that hold '/' or NUL, or are "", "." or "..", never come out of a provider; nor those
 *          of its own temporary files (".sbxfs-" and 20 letters or digits).
 * Errors:  of one file are a result beside it, as the file system shows them (ENOENT, EACCES,
 *          ENOTDIR, ENOTEMPTY, ENOSPC, ...); what a function itself returns concerns the whole call
 *          (-EHOSTUNREACH, -ETIMEDOUT, -EHOSTDOWN, -ENODEV, -EPROTO, -EINTR).
 * Threads: sinks are called from any thread, never two at once for one call, and not after the
 *          function returned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "transport/base/call.h"

struct box;

/* ---- listings ---- */

struct file_list_sink {
        /*
         * One entry, by its path below the directory that was asked for; that directory itself, as
         * "", may be told first. `target` of a link, NULL unknown. Non-zero ends the listing, which returns it.
         */
        int (*entry)(struct file_list_sink *to, const char *path, const struct stat *st,
                     const char *target);
        /* Everything in this directory ("": the one asked for) was named: no more is there. */
        int (*listed)(struct file_list_sink *to, const char *path);
};

struct file_listing {
        const char *path;
        unsigned depth; /* 1: its own entries only; 2: also those of its directories; ... */
        size_t entries_max; /* about this many, then the rest is left out; 0: no limit */
        const char *const *skip; /* names of directories that are not entered; NULL-terminated */
        const char *into; /* the only directory in it that is entered, if any is; NULL: all */
};

/* ---- whole files ---- */

struct file_sink {
        /*
         * What became of paths[index]: 0 with its content and the attributes that belong to it, or
         * -errno; -EFBIG (`st` is right) larger than was asked for; -EINVAL no regular file. Bytes
         * are borrowed. Non-zero ends the call, which returns it.
         */
        int (*file)(struct file_sink *to, size_t index, int error, const struct stat *st,
                    const void *data, size_t size);
        /* The caller has seen lately that all are: they may be opened without a look first. */
        bool are_regular;
};

/* ---- parts of files ---- */

/* A file that is open for reading there, or only its path where a service has no handles. */
struct box_file {
        struct box *box;
};

/* ---- changes ---- */

/* Bytes to send, in no buffer: read again from any offset when a call is repeated. */
struct file_source {
        /* Exactly `size` bytes at `offset`; 0 or -errno. Any thread. */
        int (*read)(struct file_source *from, void *data, size_t size, uint64_t offset);
        uint64_t size;
        /*
         * Of one that does more itself: all of it into this open file, which is empty; 0 or -errno.
         * NULL: it is to be read.
         */
        int (*fill)(struct file_source *from, int fd);
};

struct file_extent {
        uint64_t offset;
        uint64_t size;
};

enum change_kind {
        /*
         * The whole file anew: `from` is written to a temporary name beside and renamed over
         * `path`, with `mode`; with CHANGE_EXCLUSIVE it must not have existed. The last component
         * is replaced if it is a link. With extents: only these, holes elsewhere.
         */
        CHANGE_STORE,
        CHANGE_WRITE, /* the extents of `from` in place; then `size`, with FILE_SET_SIZE */
        CHANGE_MKDIR, /* with `mode` */
        CHANGE_SYMLINK, /* with the text `to`, as it is */
        CHANGE_LINK, /* one more name, `to` */
        CHANGE_UNLINK,
        CHANGE_RMDIR,
        /*
         * To `to`, over what is there unless RENAME_NOREPLACE in `flags`. With `what`, which only an
         * agent knows: of a regular file, of this `size` (FILE_SET_SIZE), else -EINVAL; it gets
         * `mode` and the times before.
         */
        CHANGE_RENAME,
        CHANGE_SET, /* FILE_SET_MODE, _TIMES, _SIZE of `what` */
};

#define CHANGE_EXCLUSIVE (1U << 30) /* beside RENAME_*, in flags */

enum file_set {
        FILE_SET_MODE = 1 << 0,
        FILE_SET_SIZE = 1 << 1,
        FILE_SET_ATIME = 1 << 2,
        FILE_SET_MTIME = 1 << 3,
};

struct change {
        enum change_kind kind;
        const char *path;
        const char *to;
        /*
         * Of a STORE or MKDIR: if it is made under a temporary name beside `path`, then this one,
         * where nothing is that isn't ours. NULL: any. Is a hint: who has better places uses them.
         */
        const char *temp;
        unsigned flags;
        unsigned what; /* enum file_set; also of STORE and WRITE: mtime and size */
        mode_t mode; /* permission bits */
        uint64_t size;
        struct timespec atime, mtime;
        struct file_source *from;
        const struct file_extent *extents;
        size_t extent_count;

        /* what came of it */
        int error; /* 0; -errno; -EINPROGRESS: not known, the call failed before its answer */
        bool has_st; /* `st` is what the file is now; may be false though there was no error */
        struct stat st;
};

/* ---- what callers call; -EOPNOTSUPP where the provider has no files of its own ---- */

/**
 * List a directory, or a tree.
 *
 * Errors: -ENOENT, -ENOTDIR, -EACCES of the directory itself; a directory below that can't be read
 *         is only not `listed`.
 * Repeat: always; entries may then come twice.
 */
int box_list(struct box *b, struct call *c, const struct file_listing *what,
             struct file_list_sink *to);
int box_stat(struct box *b, struct call *c, const char *path, struct stat *ret);
int box_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size);
/* Each file up to `size_max` bytes, in any order, many at once. Repeat: always. */
int box_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
              size_t size_max, struct file_sink *to);
int box_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                  struct stat *ret_st);
/*
 * Up to `size` bytes; fewer only at the end of the file. *ret_st is the file's after that read; NULL:
 * it isn't asked for.
 * Many at once on one file. -ESTALE: the handle was lost with its connection, open it again.
 */
ssize_t box_file_read(struct box_file *f, struct call *c, void *data, size_t size, uint64_t offset,
                      struct stat *ret_st);
void box_file_close(struct box_file *f); /* accepts NULL; doesn't wait */
/**
 * Carry out changes in their order. One that fails doesn't keep the later ones from being tried.
 *
 * Returns: 0 when each has its result; -errno when the call ended early: the changes that are
 *          -EINPROGRESS may or may not have happened.
 * Repeat:  CHANGE_STORE without CHANGE_EXCLUSIVE, CHANGE_WRITE and CHANGE_SET always; the others
 *          when it is known that they did not happen.
 */
int box_apply(struct box *b, struct call *c, struct change *changes, size_t count);
int box_statfs(struct box *b, struct call *c, struct statvfs *ret);
/* Where the working directory is for commands: an absolute path. From memory or -EINPROGRESS. */
int box_workdir(struct box *b, struct call *c, char *ret, size_t size);
