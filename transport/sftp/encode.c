/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as bytes. */

#include "transport/sftp/wire.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "transport/base/clock.h"

#define VERSION 3
#define FIXED_MAX 128 /* of a request: all but its texts and handles */

static unsigned char *put8(unsigned char *to, unsigned value)
{
        *to = (unsigned char)value;
        return to + 1;
}

static unsigned char *put32(unsigned char *to, uint32_t value)
{
        for (int shift = 24; shift >= 0; shift -= 8)
                *to++ = (unsigned char)(value >> shift);
        return to;
}

static unsigned char *put64(unsigned char *to, uint64_t value)
{
        return put32(put32(to, (uint32_t)(value >> 32)), (uint32_t)value);
}

static unsigned char *put_bytes(unsigned char *to, const void *data, size_t size)
{
        to = put32(to, (uint32_t)size);
        memcpy(to, data, size);
        return to + size;
}

static unsigned char *put_text(unsigned char *to, const char *text)
{
        return put_bytes(to, text, strlen(text));
}

/* "" is the directory that the server starts in. */
static unsigned char *put_path(unsigned char *to, const char *path)
{
        return put_text(to, *path ? path : ".");
}

static unsigned char *put_handle(unsigned char *to, const struct sftp_handle *handle)
{
        return put_bytes(to, handle->bytes, handle->size);
}

/* The nearest that the wire can say. */
static uint32_t seconds(struct timespec t)
{
        if (t.tv_sec < 0)
                return 0;
        return t.tv_sec > UINT32_MAX ? UINT32_MAX : (uint32_t)t.tv_sec;
}

static unsigned char *put_set(unsigned char *to, const struct sftp_set *set)
{
        to = put32(to, set->what);
        if (set->what & SFTP_SET_SIZE)
                to = put64(to, set->size);
        if (set->what & SFTP_SET_OWNER)
                to = put32(put32(to, set->uid), set->gid);
        if (set->what & SFTP_SET_MODE)
                to = put32(to, set->mode & 07777);
        if (set->what & SFTP_SET_TIMES)
                to = put32(put32(to, seconds(set->atime)), seconds(set->mtime));
        return to;
}

static const struct {
        enum wire_kind kind;
        const char *extension;
        bool has_path, has_to, has_handle;
} requests[] = {
        [SFTP_OPEN] = {.kind = WIRE_OPEN, .has_path = true},
        [SFTP_CLOSE] = {.kind = WIRE_CLOSE, .has_handle = true},
        [SFTP_READ] = {.kind = WIRE_READ, .has_handle = true},
        [SFTP_WRITE] = {.kind = WIRE_WRITE, .has_handle = true},
        [SFTP_LSTAT] = {.kind = WIRE_LSTAT, .has_path = true},
        [SFTP_STAT] = {.kind = WIRE_STAT, .has_path = true},
        [SFTP_FSTAT] = {.kind = WIRE_FSTAT, .has_handle = true},
        [SFTP_SETSTAT] = {.kind = WIRE_SETSTAT, .has_path = true},
        [SFTP_LSETSTAT] = {WIRE_EXTENDED, "lsetstat@openssh.com", .has_path = true},
        [SFTP_FSETSTAT] = {.kind = WIRE_FSETSTAT, .has_handle = true},
        [SFTP_OPENDIR] = {.kind = WIRE_OPENDIR, .has_path = true},
        [SFTP_READDIR] = {.kind = WIRE_READDIR, .has_handle = true},
        [SFTP_UNLINK] = {.kind = WIRE_REMOVE, .has_path = true},
        [SFTP_MKDIR] = {.kind = WIRE_MKDIR, .has_path = true},
        [SFTP_RMDIR] = {.kind = WIRE_RMDIR, .has_path = true},
        [SFTP_REALPATH] = {.kind = WIRE_REALPATH, .has_path = true},
        [SFTP_READLINK] = {.kind = WIRE_READLINK, .has_path = true},
        [SFTP_SYMLINK] = {.kind = WIRE_SYMLINK, .has_path = true, .has_to = true},
        [SFTP_RENAME] = {.kind = WIRE_RENAME, .has_path = true, .has_to = true},
        [SFTP_POSIX_RENAME] = {WIRE_EXTENDED, "posix-rename@openssh.com", .has_path = true,
                               .has_to = true},
        [SFTP_HARDLINK] = {WIRE_EXTENDED, "hardlink@openssh.com", .has_path = true, .has_to = true},
        [SFTP_FSYNC] = {WIRE_EXTENDED, "fsync@openssh.com", .has_handle = true},
        [SFTP_STATVFS] = {WIRE_EXTENDED, "statvfs@openssh.com", .has_path = true},
        [SFTP_COPY_DATA] = {WIRE_EXTENDED, "copy-data", .has_handle = true},
};

/* What stands behind the path or handle. */
static unsigned char *put_rest(unsigned char *to, const struct sftp_op *op)
{
        struct sftp_set set = op->set;

        switch (op->type) {
        case SFTP_OPEN: set.what &= SFTP_SET_MODE; return put_set(put32(to, op->flags), &set);
        case SFTP_MKDIR: set.what &= SFTP_SET_MODE; return put_set(to, &set);
        case SFTP_SETSTAT:
        case SFTP_LSETSTAT:
        case SFTP_FSETSTAT: return put_set(to, &set);
        case SFTP_READ: return put32(put64(to, op->offset), op->size);
        case SFTP_WRITE: /* the data follow */ return put32(put64(to, op->offset), op->size);
        case SFTP_RENAME:
        case SFTP_POSIX_RENAME:
        case SFTP_HARDLINK: return put_path(to, op->to);
        case SFTP_COPY_DATA:
                to = put64(put64(to, op->offset), op->length);
                return put64(put_handle(to, op->other), op->other_offset);
        case SFTP_CLOSE:
        case SFTP_LSTAT:
        case SFTP_STAT:
        case SFTP_FSTAT:
        case SFTP_OPENDIR:
        case SFTP_READDIR:
        case SFTP_UNLINK:
        case SFTP_RMDIR:
        case SFTP_REALPATH:
        case SFTP_READLINK:
        case SFTP_SYMLINK:
        case SFTP_FSYNC:
        case SFTP_STATVFS: break;
        }
        return to;
}

/* Give the room that was reserved at `start` its length, up to `end`, and `more` that follows. */
static void close_packet(struct buf *to, unsigned char *start, const unsigned char *end,
                         uint32_t more)
{
        size_t size = (size_t)(end - start);

        (void)put32(start, (uint32_t)size - 4 + more); /* where it ends is known */
        to->size += size;
}

/* Whether the request can be written. */
static int check(const struct sftp_op *op)
{
        size_t i = (size_t)op->type;

        if (i >= sizeof(requests) / sizeof(*requests) || requests[i].kind == 0)
                return -EINVAL;
        if ((requests[i].has_path && !op->path) || (requests[i].has_to && !op->to))
                return -EINVAL;
        if ((requests[i].has_path && strlen(op->path) > WIRE_PATH_MAX) ||
            (requests[i].has_to && strlen(op->to) > WIRE_PATH_MAX))
                return -ENAMETOOLONG;
        if (requests[i].has_handle && op->handle.size > SFTP_HANDLE_MAX)
                return -EINVAL;
        if (op->type == SFTP_COPY_DATA && (!op->other || op->other->size > SFTP_HANDLE_MAX))
                return -EINVAL;
        if (op->type == SFTP_LSETSTAT && (op->set.what & SFTP_SET_SIZE))
                return -EINVAL;
        if ((op->type == SFTP_READ || op->type == SFTP_WRITE) &&
            (op->size == 0 || op->size > WIRE_PIECE_MAX))
                return -EINVAL;
        return 0;
}

int wire_add_op(struct buf *to, uint32_t id, const struct sftp_op *op)
{
        unsigned char *start, *at;
        int r = check(op);

        if (r < 0)
                return r;
        start = (unsigned char *)buf_reserve(to, FIXED_MAX + (size_t)2 * WIRE_PATH_MAX +
                                                         (size_t)2 * SFTP_HANDLE_MAX);
        if (!start)
                return -ENOMEM;
        at = put32(put8(start + 4, requests[op->type].kind), id);
        if (requests[op->type].extension)
                at = put_text(at, requests[op->type].extension);
        if (op->type == SFTP_SYMLINK) /* OpenSSH's order; the text as it is */
                at = put_text(at, op->to);
        if (requests[op->type].has_path)
                at = put_path(at, op->path);
        if (requests[op->type].has_handle)
                at = put_handle(at, &op->handle);
        at = put_rest(at, op);
        close_packet(to, start, at, op->type == SFTP_WRITE ? op->size : 0);
        return 0;
}

int wire_add_init(struct buf *to)
{
        unsigned char *start = (unsigned char *)buf_reserve(to, FIXED_MAX);

        if (!start)
                return -ENOMEM;
        close_packet(to, start, put32(put8(start + 4, WIRE_INIT), VERSION), 0);
        return 0;
}

int wire_add_limits(struct buf *to, uint32_t id)
{
        unsigned char *start = (unsigned char *)buf_reserve(to, FIXED_MAX);
        unsigned char *at;

        if (!start)
                return -ENOMEM;
        at = put32(put8(start + 4, WIRE_EXTENDED), id);
        close_packet(to, start, put_text(at, "limits@openssh.com"), 0);
        return 0;
}
