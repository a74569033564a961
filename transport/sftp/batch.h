/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole jobs over SFTP connections, each a blocking call that keeps many requests in flight:
 * attributes of many paths, trees, many small files, ranges of large ones.
 *
 * Paths:   as the server takes them: absolute, or below the directory it starts in; "" is that.
 * Errors:  of one path are a result beside it; what a function itself returns concerns the whole:
 *          why the connection ended, -ETIMEDOUT, -EINTR, -ENOMEM. c->deadline_ns moves with
 *          progress as sftp_next says.
 * Threads: sinks and sources are called on the calling thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "transport/base/call.h"
#include "transport/sftp/sftp.h"

/* ---- attributes ---- */

struct sftp_stat_item {
        const char *path;
        int error;
        struct stat st; /* the link itself; st_mode always has its type */
};

int sftp_stat(struct sftp *s, struct call *c, struct sftp_stat_item *items, size_t count);

/* ---- listings ---- */

struct sftp_list_sink {
        /* One entry, by its path below the root; non-zero ends the listing, which returns it. */
        int (*entry)(void *ctx, const char *path, const struct stat *st, const char *target);
        /* All entries of this directory ("": the root) were given. */
        int (*listed)(void *ctx, const char *path);
        void *ctx;
};

struct sftp_listing {
        const char *root;
        unsigned depth; /* 1: the root's own entries; 2: also those of its directories; ... */
        size_t entries_max; /* about; 0: 10 million */
        const char *const *skip; /* names of directories that are not entered; NULL-terminated */
        bool wants_targets; /* of links: else NULL, and no request is spent on them */
};

/**
 * List a directory, or a tree, some 64 directories at a time. Links are not entered.
 *
 * Errors: also -ENOENT, -ENOTDIR, -EACCES of the root. What is below and can't be read, or is beyond
 *         a bound, is only not `listed`.
 */
int sftp_list(struct sftp *s, struct call *c, const struct sftp_listing *what,
              const struct sftp_list_sink *to);

/* ---- whole files ---- */

struct sftp_fetch_sink {
        /*
         * What became of paths[index]. 0: content, and the attributes that it had before and after
         * it was read; -EFBIG, -EINVAL (no regular file): only `st`; -EAGAIN: it was changing,
         * twice; -errno. `data` is borrowed. Non-zero ends the call, which returns it.
         */
        int (*file)(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                    size_t size);
        void *ctx;
        /* The caller has just seen that they are: each is opened while it is looked at. */
        bool are_regular;
};

/* Each file up to size_max bytes, up to 128 at a time. Links are not followed. */
int sftp_fetch(struct sftp *s, struct call *c, const char *const *paths, size_t count,
               size_t size_max, const struct sftp_fetch_sink *to);

/* ---- ranges ---- */

/* One open file, by a handle of each connection that is to carry its data: the first also more. */
struct sftp_file {
        struct sftp *s;
        struct sftp_handle handle;
};

/**
 * Read up to `size` bytes in pieces, 2 MiB in flight on each connection.
 *
 * Returns: bytes; fewer only at the end of the file. *ret_st, if not NULL: the attributes after
 *          that, by files[0].
 * Errors:  also the server's, of the file.
 */
ssize_t sftp_read(const struct sftp_file *files, size_t file_count, struct call *c, void *data,
                  size_t size, uint64_t offset, struct stat *ret_st);

struct sftp_source {
        /* Exactly `size` bytes at `offset`; 0 or -errno. */
        int (*read)(void *ctx, void *data, size_t size, uint64_t offset);
        void *ctx;
};

/* Write `size` bytes of the source to where they stand there. Order: of the pieces, none. */
int sftp_write(const struct sftp_file *files, size_t file_count, struct call *c,
               const struct sftp_source *from, uint64_t size, uint64_t offset);

/* ---- one at a time; the error is the operation's, explained ---- */

int sftp_open(struct sftp *s, struct call *c, const char *path, unsigned flags, mode_t mode,
              struct sftp_handle *ret);
int sftp_mkdir(struct sftp *s, struct call *c, const char *path, mode_t mode);
int sftp_rmdir(struct sftp *s, struct call *c, const char *path);
int sftp_unlink(struct sftp *s, struct call *c, const char *path);
/*
 * Over what is there, in one step where the server can (SFTP_CAN_POSIX_RENAME). Else plain: then
 * with `may_replace`, and where `to` exists, it is removed first, not in one step.
 */
int sftp_rename(struct sftp *s, struct call *c, const char *path, const char *to, bool may_replace);
int sftp_hardlink(struct sftp *s, struct call *c, const char *path, const char *to);
int sftp_symlink(struct sftp *s, struct call *c, const char *path, const char *text);
int sftp_readlink(struct sftp *s, struct call *c, const char *path, char *ret, size_t size);
int sftp_realpath(struct sftp *s, struct call *c, const char *path, char *ret, size_t size);
int sftp_setstat(struct sftp *s, struct call *c, const char *path, const struct sftp_set *set);
int sftp_fsync(struct sftp *s, struct call *c, const struct sftp_handle *handle);
int sftp_statvfs(struct sftp *s, struct call *c, const char *path, struct statvfs *ret);
