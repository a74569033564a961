/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The INIT request and reply as the kernel has them (include/uapi/linux/fuse.h): only the fields
 * that are looked at have names, since the header of this system may be older than its kernel.
 *
 * Read-ahead: libfuse can only lower what the kernel proposes, 128 KiB; a reply with 1 MiB lets the
 * file system's own setting count.
 */

#include "fs/mount/init.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/mount/mount.h"

#define OPCODE_INIT 26
#define BACKGROUND_MAX                                                                             \
        1024 /* requests that nobody sleeps for: read-ahead, writes of many pages, RELEASE */

struct in_header {
        uint32_t size, opcode;
        uint64_t unique, node;
        uint32_t uid, gid, pid, padding;
};

struct init_out {
        uint32_t major, minor, max_readahead, flags;
        uint16_t max_background, congestion_threshold;
        uint32_t max_write, time_granularity;
        uint16_t max_pages, map_alignment;
        uint32_t flags2, max_stack_depth, unused[6];
};

void init_choose(void *userdata, struct fuse_conn_info *conn)
{
        const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC |
                                FUSE_CAP_READDIRPLUS | FUSE_CAP_PARALLEL_DIROPS |
                                FUSE_CAP_AUTO_INVAL_DATA;
        /* Splice is slower here; READDIRPLUS always, not now and then; the write-back cache
         * makes size and times the kernel's. */
        const unsigned unwanted = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                                  FUSE_CAP_SPLICE_MOVE | FUSE_CAP_READDIRPLUS_AUTO |
                                  FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_CACHE_SYMLINKS;

        (void)userdata;
        conn->want = ((conn->want | wanted) & conn->capable) & ~unwanted;
        conn->max_write = MOUNT_IO_MAX;
        conn->max_background = BACKGROUND_MAX;
        conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
}

static ssize_t hooked_read(int fd, void *data, size_t size, void *userdata)
{
        struct mount *m = userdata;
        ssize_t n = read(fd, data, size);
        struct in_header in;

        if (atomic_load_explicit(&m->is_agreed, memory_order_relaxed) || n < (ssize_t)sizeof(in))
                return n;
        memcpy(&in, data, sizeof(in));
        if (in.opcode == OPCODE_INIT)
                m->init_unique = in.unique;
        return n;
}

/* The reply to INIT: a header that names its request, then the struct. */
static void add_to_reply(struct mount *m, const struct iovec *iov, int count)
{
        struct {
                uint32_t size;
                int32_t error;
                uint64_t unique;
        } header;
        struct init_out out;

        if (count != 2 || iov[0].iov_len != sizeof(header) || iov[1].iov_len != sizeof(out))
                return;
        memcpy(&header, iov[0].iov_base, sizeof(header));
        if (header.unique != m->init_unique || header.error != 0)
                return;
        memcpy(&out, iov[1].iov_base, sizeof(out));
        out.max_readahead = MOUNT_IO_MAX;
        memcpy(iov[1].iov_base, &out, sizeof(out));
        atomic_store(&m->is_agreed, true);
}

static ssize_t hooked_writev(int fd, struct iovec *iov, int count, void *userdata)
{
        struct mount *m = userdata;
        ssize_t n;

        if (!atomic_load_explicit(&m->is_agreed, memory_order_relaxed))
                add_to_reply(m, iov, count);
        n = writev(fd, iov, count);
        /* Nobody waits for the answer any more: libfuse is quiet about ENOENT, and its callers
         * know it. */
        if (n < 0 && (errno == ENODEV || errno == ENOTCONN || errno == EPIPE))
                errno = ENOENT;
        return n;
}

int init_hook(struct fuse_session *fuse, struct mount *m)
{
        const struct fuse_custom_io io = {.writev = hooked_writev, .read = hooked_read};

        (void)m; /* libfuse passes the session's userdata, which it is */
        return fuse_session_custom_io(fuse, &io, fuse_session_fd(fuse));
}
