/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output kept until it is acknowledged; see log.h. A record is a head of 16 bytes (size,
 * stream, offset) and its data.
 */

#include "providers/holder/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "providers/holder/proto.h"
#include "transport/base/file.h"

#define HEAD_SIZE 16u
#define PUNCH_STEP (1u << 20)

struct head {
        uint32_t size;
        uint32_t stream;
        uint64_t offset;
};

int holder_log_file(const char *dir)
{
        int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
        char name[256];

        if (fd >= 0)
                return fd;
        if ((size_t)snprintf(name, sizeof(name), "%s/log-XXXXXX", dir) < sizeof(name)) {
                fd = mkostemp(name, O_CLOEXEC);
                if (fd >= 0)
                        (void)unlink(name); /* a name too many, else */
        }
        if (fd < 0)
                fd = memfd_create("sbxfs-log", MFD_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

void holder_log_init(struct holder_log *l, int fd)
{
        *l = (struct holder_log){.fd = fd, .tail = BUF_INIT(LOG_TAIL * 2 + HEAD_SIZE)};
}

void holder_log_done(struct holder_log *l)
{
        if (l->fd >= 0)
                (void)close(l->fd); /* nobody reads it any more */
        l->fd = -1;
        buf_done(&l->tail);
}

uint64_t holder_log_pending(const struct holder_log *l)
{
        return l->written - l->acked + l->tail.size;
}

/* 0 or -errno; on failure the file is as before: what comes next overwrites what was written. */
static int append(struct holder_log *l, const struct head *h, const void *data)
{
        struct iovec parts[2] = {{(void *)(uintptr_t)h, HEAD_SIZE},
                                 {(void *)(uintptr_t)data, h->size}};
        ssize_t n;

        do
                n = pwritev(l->fd, parts, 2, (off_t)(l->written - l->base));
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        if ((size_t)n != HEAD_SIZE + h->size)
                return -ENOSPC;
        l->written += (uint64_t)n;
        return 0;
}

/* Forget the oldest records of the tail until at most LOG_TAIL bytes are left. */
static void shorten_tail(struct holder_log *l)
{
        size_t drop = 0;

        while (l->tail.size - drop > LOG_TAIL) {
                struct head h;

                memcpy(&h, l->tail.data + drop, HEAD_SIZE);
                drop += HEAD_SIZE + h.size;
        }
        buf_drop(&l->tail, drop);
}

static void add_to_tail(struct holder_log *l, const struct head *h, const void *data)
{
        /* Shortened only at twice its size: not every record moves all others. */
        if (l->tail.size + HEAD_SIZE + h->size > l->tail.max)
                shorten_tail(l);
        if (buf_add(&l->tail, h, HEAD_SIZE) == 0 && buf_add(&l->tail, data, h->size) < 0)
                l->tail.size -= HEAD_SIZE; /* no memory: dropped */
}

/* Move what the tail holds to the file, where there is room now. */
static void flush_tail(struct holder_log *l)
{
        size_t at = 0;

        if (l->tail.size == 0 || l->written - l->acked > LOG_MAX - LOG_TAIL)
                return;
        shorten_tail(l);
        while (at < l->tail.size) {
                struct head h;

                memcpy(&h, l->tail.data + at, HEAD_SIZE);
                if (append(l, &h, l->tail.data + at + HEAD_SIZE) < 0)
                        break; /* the disk is full: tried again at the next acknowledgement */
                at += HEAD_SIZE + h.size;
        }
        buf_drop(&l->tail, at);
        if (l->tail.size == 0)
                buf_done(&l->tail);
}

void holder_log_add(struct holder_log *l, uint8_t stream, uint64_t offset, const void *data,
                    size_t size)
{
        struct head h = {.size = (uint32_t)size, .stream = stream, .offset = offset};

        flush_tail(l);
        if (l->tail.size > 0 || l->written - l->acked + size > LOG_MAX || append(l, &h, data) < 0)
                add_to_tail(l, &h, data);
}

int holder_log_next(struct holder_log *l, uint8_t *scratch, struct log_record *ret)
{
        struct head h;
        ssize_t n;

        if (l->sent == l->written)
                flush_tail(l);
        if (l->sent == l->written)
                return 0;
        n = file_pread_full(l->fd, scratch, LOG_SCRATCH, l->sent - l->base);
        if (n >= (ssize_t)HEAD_SIZE)
                memcpy(&h, scratch, HEAD_SIZE);
        if (n < (ssize_t)HEAD_SIZE || h.size > PROTO_CHUNK_MAX || (size_t)n < HEAD_SIZE + h.size) {
                l->sent = l->written; /* the disk failed: a gap */
                return n < 0 ? (int)n : -EIO;
        }
        l->sent += HEAD_SIZE + h.size;
        *ret = (struct log_record){.stream = (uint8_t)h.stream,
                                   .offset = h.offset,
                                   .data = scratch + HEAD_SIZE,
                                   .size = h.size,
                                   .position = l->sent};
        return 1;
}

/* Give the space of what was acknowledged back to the disk. */
static void free_space(struct holder_log *l)
{
        if (l->acked == l->written) {
                if (l->written > l->base && ftruncate(l->fd, 0) == 0)
                        l->base = l->punched = l->written;
        } else if (l->acked - l->punched >= PUNCH_STEP) {
                /* not on this file system: freed at the end */
                (void)fallocate(l->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (off_t)(l->punched - l->base), (off_t)(l->acked - l->punched));
                l->punched = l->acked;
        }
}

bool holder_log_ack(struct holder_log *l, uint64_t position)
{
        if (position > l->sent)
                return false;
        if (position <= l->acked)
                return true;
        l->acked = position;
        free_space(l);
        flush_tail(l);
        return true;
}

void holder_log_rewind(struct holder_log *l)
{
        l->sent = l->acked;
}
