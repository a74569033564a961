/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent and we say to each other, as bytes: pure, shared by both ends.
 *
 *      frame:   u32 size of the payload, u32 id of the operation, u32 type; the payload
 *      numbers: little-endian; time: i64 seconds, u32 nanoseconds
 *      text:    u32 length, the bytes, NUL; no NUL in them
 *
 *      we ask                                        the agent tells
 *      HELLO   u32 version                           DONE i32 errno, u32 version
 *      LIST    path depth max into skip              ENTRIES..., DONE errno
 *      STAT    path                                  DONE errno, stat
 *      READLINK path                                 DONE errno, text
 *      STATFS                                        DONE errno, statfs
 *      FETCH   size_max, count, paths                FILE and DATA..., DONE errno
 *      OPEN    path                                  DONE errno, u32 handle, stat
 *      READ    handle offset size                    DATA..., DONE errno, stat
 *      CLOSE   handle                                -
 *      NUMBER  handle                                DONE errno, u32 descriptor
 *      CHANGE  one of a batch; content inline or     CHANGED index, errno, whether stat, stat
 *              as DATA up to its size, or ABORT
 *      HELD    as CHANGE, a STORE without content    TARGET index, u32 descriptor, u64 inode, unless
 *      WRITTEN u32 errno                             it fails before; CHANGED
 *      BESIDE  WIRE_NONCE bytes                      DONE errno, u32 descriptor
 *      MOVE    those bytes                           -
 *      SPLIT   those bytes                           DONE errno
 *      ROOM    u32 bytes of the answer were taken    -
 *      CANCEL                                        what was on its way, then nothing
 *
 * Requests of one connection are carried out in their order, one after the other. The agent sends
 * no more than WIRE_WINDOW bytes of an answer that ROOM hasn't acknowledged (of READ: its size is
 * known). An errno is that of Linux, positive; 0 is success, and only then more follows in DONE.
 *
 * BESIDE makes a pair of sockets, for who can reach into the agent's process (direct.h): one end has
 * that number there, the bytes of the question come out of it first. After MOVE the agent listens
 * and answers at the other end only; by SPLIT a second one does, which has no handles yet, and says
 * a byte first, for its sender to be seen.
 * NUMBER is for the same: what it is in the agent's process. HELD, too: who asks writes the content
 * into the file that TARGET shows, and tells by WRITTEN what came of it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "providers/files.h"

struct buf;

#define WIRE_VERSION 1
#define WIRE_HEAD ((size_t)12)
#define WIRE_PAYLOAD_MAX ((size_t)1 << 20) /* of any frame */
#define WIRE_PIECE ((size_t)256 * 1024) /* of content in one frame */
#define WIRE_INLINE ((size_t)128 * 1024) /* of content in a CHANGE */
#define WIRE_WINDOW ((size_t)4 << 20)
#define WIRE_READ_MAX ((size_t)16 << 20)
#define WIRE_HANDLES 256
#define WIRE_NONCE ((size_t)16)

enum wire_type {
        WIRE_HELLO = 1,
        WIRE_LIST,
        WIRE_STAT,
        WIRE_READLINK,
        WIRE_STATFS,
        WIRE_FETCH,
        WIRE_OPEN,
        WIRE_READ,
        WIRE_CLOSE,
        WIRE_CHANGE,
        WIRE_ABORT,
        WIRE_ROOM,
        WIRE_CANCEL,
        WIRE_BESIDE,
        WIRE_MOVE,
        WIRE_SPLIT,
        WIRE_NUMBER,
        WIRE_HELD,
        WIRE_WRITTEN,

        WIRE_DATA = 64,
        WIRE_ENTRIES,
        WIRE_FILE,
        WIRE_CHANGED,
        WIRE_DONE,
        WIRE_TARGET, /* the last one */
};

struct wire_head {
        uint32_t size;
        uint32_t id;
        uint32_t type;
};

void wire_head_put(unsigned char to[WIRE_HEAD], const struct wire_head *head);
void wire_head_get(const unsigned char from[WIRE_HEAD], struct wire_head *ret);

/* ---- frames to be: the first failure stays, the rest is then nothing ---- */

struct wire_out {
        struct buf *to;
        size_t at; /* where the frame begins */
        int error; /* 0; -ENOMEM, -E2BIG */
};

void wire_begin(struct wire_out *o, struct buf *to, uint32_t id, enum wire_type type);
/* Its size is known now; on failure nothing of it is left. */
int wire_end(struct wire_out *o);
void wire_u32(struct wire_out *o, uint32_t value);
void wire_u64(struct wire_out *o, uint64_t value);
void wire_time(struct wire_out *o, struct timespec t);
void wire_text(struct wire_out *o, const char *text); /* NULL: as "" */
void wire_bytes(struct wire_out *o, const void *data, size_t size); /* as they are */
void wire_stat(struct wire_out *o, const struct stat *st);
void wire_statfs(struct wire_out *o, const struct statvfs *s);
/* Everything but its content; `index` of the batch. */
void wire_change(struct wire_out *o, uint32_t index, const struct change *x);

/* ---- payloads that came: hostile. What isn't there is 0 or "", and is_bad ---- */

struct wire_in {
        const unsigned char *at;
        size_t left;
        bool is_bad;
};

uint32_t wire_take_u32(struct wire_in *in);
uint64_t wire_take_u64(struct wire_in *in);
struct timespec wire_take_time(struct wire_in *in);
const char *wire_take_text(struct wire_in *in); /* within the payload; never NULL */
void wire_take_stat(struct wire_in *in, struct stat *ret); /* with a type, and sizes that can be */
void wire_take_statfs(struct wire_in *in, struct statvfs *ret);

/* A change as the agent sees it; texts and extents are within the payload, or *extents to free. */
struct wire_changing {
        uint32_t index;
        struct change x; /* `from` is NULL */
        bool has_source;
        uint64_t source_size;
        uint64_t content_size; /* of all extents, or of the source */
        struct file_extent *extents;
};
/* The content, if it is inline, is what is left. -ENOMEM, -EPROTO. */
int wire_take_change(struct wire_in *in, struct wire_changing *ret);

/* All was taken, nothing was missing. */
bool wire_is_whole(const struct wire_in *in);

/* A path as files.h has them: relative, no "." or ".." in it; `or_root`: also "". */
bool wire_is_path(const char *path, bool or_root);

/*
 * The errno of one file that an agent told, as -errno: none that would say something of the whole
 * call; -EIO for those.
 */
int wire_error(uint32_t told);
