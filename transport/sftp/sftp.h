/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of SFTP version 3 with OpenSSH's extensions, over any byte stream. Any number of threads
 * share one connection: each puts what it wants into a queue of its own, many at once, and takes
 * the answers from there as they come. batch.h has whole jobs made of these: trees, files, ranges.
 *
 *      struct sftp *s;
 *      r = sftp_new(&s);
 *      r = child_open(path, argv, envp, sftp_events(s), c, &stream);
 *      r = sftp_start(s, c, stream, is_openssh);
 *
 * Order:   operations of one class (metadata, or bulk: is_bulk) on one connection are sent in the
 *          order in which they were submitted. Between the classes there is none, and metadata goes
 *          first: what must come after a bulk operation either is one too or waits for its end. In
 *          what order the server carries them out is known only where sftp_is_ordered.
 * Bounds:  metadata: 1,024 in flight. Bulk: 2 MiB in flight, and no more than STREAM_QUEUE_LOW that
 *          the stream hasn't taken yet. What is beyond waits here.
 * Hostile: whatever the server sends that is not exactly an answer to a question of ours, with
 *          lengths that fit, ends the connection with -EPROTO.
 * Threads: everything from any thread, but never from a stream's event; a queue, and the operations
 *          in it, belong to one thread at a time.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "transport/base/call.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/stream.h"

/* ---- the connection ---- */

struct sftp; /* counted */

int sftp_new(struct sftp **ret); /* 0, -ENOMEM */
struct sftp *sftp_ref(struct sftp *s);
/* The last one closes the stream: never from one of its events. Accepts NULL. */
void sftp_unref(struct sftp *s);

/* What the stream is to be opened with. */
const struct stream_events *sftp_events(struct sftp *s);

/**
 * Greet the server; waits for its version.
 *
 * Owner:  takes ownership of `stream`, also on failure; until then it's the caller's.
 * Shape:  is_ordered: the server carries out one connection's requests one after the other, as they
 *         came. True of OpenSSH only; the caller knows its banner.
 * Errors: -EPROTO no version 3 server; -EHOSTUNREACH the stream ended; -ETIMEDOUT; -EINTR.
 */
int sftp_start(struct sftp *s, struct call *c, struct stream *stream, bool is_ordered);

/* 0 while it lives; else why it ended: -EPROTO, -EHOSTUNREACH, ... Never blocks. */
int sftp_error(struct sftp *s, char *sentence, size_t size);

enum sftp_feature {
        SFTP_CAN_POSIX_RENAME = 1 << 0,
        SFTP_CAN_HARDLINK = 1 << 1,
        SFTP_CAN_FSYNC = 1 << 2,
        SFTP_CAN_STATVFS = 1 << 3,
        SFTP_CAN_LSETSTAT = 1 << 4,
        SFTP_CAN_COPY_DATA = 1 << 5,
        SFTP_CAN_LIMITS = 1 << 6,
};

unsigned sftp_features(struct sftp *s); /* of enum sftp_feature; fixed once started */
bool sftp_is_ordered(const struct sftp *s);
/* CLOCK_MONOTONIC of the last byte that came, 0 none; and whether any answer is awaited. */
uint64_t sftp_heard_ns(const struct sftp *s);
bool sftp_is_waiting(struct sftp *s);

/* The most data of one READ or WRITE here; more is -EINVAL. At least 16 KiB, at most 64 KiB. */
uint32_t sftp_piece_max(struct sftp *s);

/* ---- operations ---- */

#define SFTP_HANDLE_MAX 256

struct sftp_handle {
        uint16_t size; /* 0: none */
        unsigned char bytes[SFTP_HANDLE_MAX];
};

enum sftp_type {
        SFTP_OPEN = 1, /* path, flags, set (mode of a new file) -> handle */
        SFTP_CLOSE, /* handle */
        SFTP_READ, /* handle, offset, size, buffer -> got, 0 at the end of the file */
        SFTP_WRITE, /* handle, offset, size, data */
        SFTP_LSTAT, /* path -> st */
        SFTP_STAT, /* path; follows links -> st */
        SFTP_FSTAT, /* handle -> st */
        SFTP_SETSTAT, /* path, set; follows links */
        SFTP_LSETSTAT, /* path, set without size; -EOPNOTSUPP unless SFTP_CAN_LSETSTAT */
        SFTP_FSETSTAT, /* handle, set */
        SFTP_OPENDIR, /* path -> handle */
        SFTP_READDIR, /* handle -> names, NULL at the end of the directory */
        SFTP_UNLINK, /* path; any but a directory */
        SFTP_MKDIR, /* path, set (mode) */
        SFTP_RMDIR, /* path */
        SFTP_REALPATH, /* path, buffer, size -> text in buffer with NUL, got its length */
        SFTP_READLINK, /* the same */
        SFTP_SYMLINK, /* path: the new link; to: its text */
        SFTP_RENAME, /* path, to; plain: fails where `to` exists */
        SFTP_POSIX_RENAME, /* path, to; -EOPNOTSUPP unless SFTP_CAN_POSIX_RENAME */
        SFTP_HARDLINK, /* path: what exists; to: the new name; -EOPNOTSUPP likewise */
        SFTP_FSYNC, /* handle; -EOPNOTSUPP likewise */
        SFTP_STATVFS, /* path -> vfs; -EOPNOTSUPP likewise */
        SFTP_COPY_DATA, /* handle, offset, length (0: to the end) -> other, other_offset */
};

enum sftp_open_flag { /* as they stand on the wire */
                      SFTP_FOR_READ = 0x1,
                      SFTP_FOR_WRITE = 0x2,
                      SFTP_APPEND = 0x4,
                      SFTP_CREATE = 0x8,
                      SFTP_TRUNCATE = 0x10,
                      SFTP_EXCLUSIVE = 0x20,
};

enum sftp_set_flag { /* likewise */
                     SFTP_SET_SIZE = 0x1,
                     SFTP_SET_OWNER = 0x2, /* both */
                     SFTP_SET_MODE = 0x4,
                     SFTP_SET_TIMES = 0x8, /* both */
};

/* Times on the wire are seconds from 1970 to 2106; others become the nearest of these. */
struct sftp_set {
        unsigned what; /* enum sftp_set_flag */
        mode_t mode; /* permission bits */
        uint64_t size;
        uint32_t uid, gid;
        struct timespec atime, mtime;
};

struct sftp_names; /* of one READDIR */

enum sftp_state { SFTP_IDLE, SFTP_QUEUED, SFTP_SENT, SFTP_ENDED };

/*
 * One operation. Zero all, fill in what its type needs, submit; everything that it points to, and
 * itself, stays until it has come out of its queue or the queue was emptied.
 */
struct sftp_op {
        enum sftp_type type;
        bool is_bulk;
        const char *path, *to;
        struct sftp_handle handle; /* of OPEN, OPENDIR: what came of it */
        const struct sftp_handle *other;
        uint64_t offset, other_offset, length;
        uint32_t size;
        unsigned flags; /* enum sftp_open_flag */
        const void *data;
        void *buffer;
        struct sftp_set set;
        void *ctx; /* the caller's */
        unsigned step; /* the caller's */

        /*
         * What came of it: 0; what the server said, as -errno; or why the connection ended. The
         * server's word is poor: -EIO is OpenSSH's FAILURE (exists, not empty, a directory, no
         * space, ...); sftp_explain looks closer.
         */
        int error;
        bool was_sent; /* false: certainly not carried out */
        bool is_lost; /* its answer didn't come, and won't */
        uint32_t status; /* the server's, SSH_FX_*; where it gave one */
        size_t got;
        struct stat st; /* st_mode has its type where the server told it, else 0 there */
        struct statvfs vfs;
        struct sftp_names *names; /* to sftp_names_free */

        /* the connection's */
        enum sftp_state state;
        uint32_t slot;
        atomic_ullong sent_at; /* how many answers had come */
        uint64_t since_ns; /* when it was submitted */
        struct sftp *sftp;
        struct sftp_queue *queue;
        struct list link; /* in the connection's line while queued */
        struct list in_queue;
};

/* Where the answers to one thread's operations come in, of one connection or several. */
struct sftp_queue {
        struct mutex lock;
        struct cond changed;
        struct list pending; /* guarded by lock */
        struct list ended; /* guarded by lock */
        bool wants_all; /* is woken when nothing is pending, or something failed. Fixed */
};

void sftp_queue_init(struct sftp_queue *q);
/*
 * Forgets what is pending: what hadn't been sent won't be; what had been is carried out, and its
 * answer goes nowhere. A handle that comes is closed, and one that nobody took, whose size is then
 * 0. No operation is touched after this.
 */
void sftp_queue_done(struct sftp_queue *q);
bool sftp_queue_is_empty(struct sftp_queue *q); /* nothing pending, nothing to take */

/*
 * The caller keeps a reference of `s` while they are in the queue. Failures come out there, too. One
 * call with many is far cheaper than many calls.
 */
void sftp_submit(struct sftp *s, struct sftp_queue *q, struct sftp_op *ops, size_t count);
void sftp_submit_each(struct sftp *s, struct sftp_queue *q, struct sftp_op *const *ops,
                      size_t count);

/**
 * Take the next operation that has ended, in no order; waits for it.
 *
 * c->deadline_ns moves: while bytes come on a connection of the queue, to 10 s after the last one.
 * Errors: -ENOENT the queue is empty; -ETIMEDOUT; -EINTR.
 */
int sftp_next(struct sftp_queue *q, struct call *c, struct sftp_op **ret);
/* The same if there is one already, else NULL: take all before new ones are submitted. */
struct sftp_op *sftp_next_now(struct sftp_queue *q);

/**
 * Submit and wait until all have ended.
 *
 * Returns: 0 when each has its result; -ETIMEDOUT, -EINTR, or why the connection ended (with a
 *          sentence): operations whose answer didn't come have -EINPROGRESS where they were sent,
 *          -ECANCELED where not.
 */
int sftp_run(struct sftp *s, struct call *c, struct sftp_op *ops, size_t count);

/* Close a handle without waiting. */
void sftp_close_later(struct sftp *s, const struct sftp_handle *handle);

/**
 * Look closer at an operation that ended with -EIO by FAILURE, after the fact: -EEXIST, -ENOTEMPTY,
 * -EISDIR, -ENOTDIR, -ENOSPC, -EXDEV where that is what is found now, else op->error as it is.
 * Asks the server; any error of that is passed over.
 */
int sftp_explain(struct sftp *s, struct call *c, const struct sftp_op *op);

/* ---- names of a directory ---- */

struct sftp_name {
        const char *name; /* one component: no '/', no NUL, never "", "." or ".." */
        struct stat st; /* as of LSTAT; st_mode without type: not told */
};

/* The next, or false; start with *cursor = 0. Names that can't be are passed over. */
bool sftp_names_next(struct sftp_names *names, size_t *cursor, struct sftp_name *ret);
void sftp_names_free(struct sftp_names *names); /* accepts NULL */
