/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/agent/direct.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "providers/agent/conn.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/random.h"
#include "transport/socket.h"

#define SEND_BUFFER (1 << 20)
#define SENDER_MS 2000

static bool has_option(int fd, int option, int value)
{
        int found = -1;
        socklen_t size = sizeof(found);

        return getsockopt(fd, SOL_SOCKET, option, &found, &size) == 0 && found == value;
}

/* Whose first byte it is: the kernel says. -EOPNOTSUPP none came. */
static int take_sender(int fd, pid_t *ret)
{
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(struct ucred))];
        } control;
        char byte;
        struct iovec io = {&byte, 1};
        struct msghdr m = {.msg_iov = &io,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof(control.bytes)};
        struct pollfd at = {fd, POLLIN, 0};
        const struct cmsghdr *c;
        struct ucred from;
        int off = 0;

        if (poll(&at, 1, SENDER_MS) != 1 || recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
                return -EOPNOTSUPP;
        c = CMSG_FIRSTHDR(&m);
        if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS ||
            c->cmsg_len != CMSG_LEN(sizeof(from)))
                return -EOPNOTSUPP;
        memcpy(&from, CMSG_DATA(c), sizeof(from));
        *ret = from.pid;
        return setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off)) < 0 || from.pid <= 1
                       ? -EOPNOTSUPP
                       : 0;
}

/* A connected pair that this process has made, with our bytes in it. */
static int check_socket(int fd, pid_t pid, const unsigned char nonce[WIRE_NONCE])
{
        unsigned char came[WIRE_NONCE];
        struct ucred peer;
        socklen_t size = sizeof(peer);

        if (!has_option(fd, SO_DOMAIN, AF_UNIX) || !has_option(fd, SO_TYPE, SOCK_STREAM) ||
            getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid != pid)
                return -EOPNOTSUPP;
        /* What isn't ours stays where it is. */
        if (recv(fd, came, sizeof(came), MSG_PEEK | MSG_DONTWAIT) != (ssize_t)sizeof(came) ||
            memcmp(came, nonce, sizeof(came)) != 0)
                return -EOPNOTSUPP;
        return recv(fd, came, sizeof(came), MSG_DONTWAIT) == (ssize_t)sizeof(came) ? 0
                                                                                   : -EOPNOTSUPP;
}

/* Not by libc's name: it has none yet. */
static int take_fd(int process, int number)
{
        int fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);

        return fd < 0 ? -EOPNOTSUPP : fd;
}

static int take_socket(int process, pid_t pid, int number, const unsigned char nonce[WIRE_NONCE],
                       int *ret)
{
        _cleanup_(closep) int fd = take_fd(process, number);
        int size = SEND_BUFFER;
        int r = fd < 0 ? fd : check_socket(fd, pid, nonce);

        if (r < 0)
                return r;
        if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
                (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* or as it is */
        *ret = STEAL_FD(fd);
        return 0;
}

/* What is between it and us. `ret`: the number that it tells. */
static int ask(struct agent *a, struct call *c, enum wire_type type, const void *what, size_t size,
               int *ret)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(WIRE_HEAD + 64);
        struct agent_op op;
        struct wire_head head;
        struct wire_out o;
        struct wire_in in;
        uint32_t number = 0;
        int r;

        agent_op_begin(a, &op, c);
        op.is_over = type == WIRE_MOVE; /* it isn't answered */
        wire_begin(&o, &frame, op.id, type);
        wire_bytes(&o, what, size);
        r = wire_end(&o);
        if (r == 0)
                r = agent_send(&op, &frame);
        if (r == 0 && !op.is_over) {
                r = agent_next(&op, &head, &in);
                if (r == 0)
                        r = agent_take_done(&op, &head, &in);
                if (r == 0 && ret)
                        number = wire_take_u32(&in);
                if (r == 0 && (!wire_is_whole(&in) || number > INT32_MAX))
                        r = agent_is_wrong(&op, "a descriptor");
        }
        agent_op_end(&op);
        if (r == 0 && ret)
                *ret = (int)number;
        return r < 0 && agent_error(a) == 0 && r != -EINTR ? -EOPNOTSUPP : r;
}

static int start_on(int *fd, struct call *c, struct agent *a)
{
        struct stream *s = NULL;
        int r = socket_stream_new(*fd, agent_events(a), &s);

        if (r < 0)
                return r;
        *fd = -1;
        return agent_greet(a, c, s);
}

static int begin(struct agent *a, struct call *c, int process, pid_t pid,
                 unsigned char nonce[WIRE_NONCE], int *ret)
{
        int number = -1, r = random_bytes(nonce, WIRE_NONCE);

        if (r < 0)
                return -EOPNOTSUPP;
        r = ask(a, c, WIRE_BESIDE, nonce, WIRE_NONCE, &number);
        return r == 0 ? take_socket(process, pid, number, nonce, ret) : r;
}

static void unrefp(struct agent **a)
{
        agent_unref(*a);
}

int agent_go_direct(struct agent *a, struct call *c, pid_t pid, struct agent **ret)
{
        _cleanup_(unrefp) struct agent *direct = NULL;
        _cleanup_(closep) int fd = -1;
        unsigned char nonce[WIRE_NONCE];
        int r = agent_new(&direct);

        if (r < 0)
                return -EOPNOTSUPP;
        direct->pid = pid;
        direct->process = (int)syscall(SYS_pidfd_open, pid, 0);
        if (direct->process < 0)
                return -EOPNOTSUPP;
        r = begin(a, c, direct->process, pid, nonce, &fd);
        if (r == 0)
                r = ask(a, c, WIRE_MOVE, nonce, WIRE_NONCE, NULL);
        if (r == 0)
                r = start_on(&fd, c, direct);
        if (r == 0)
                *ret = STEAL(direct);
        return r;
}

int agent_split(struct agent *a, struct call *c, struct agent **ret)
{
        _cleanup_(unrefp) struct agent *other = NULL;
        _cleanup_(closep) int fd = -1;
        unsigned char nonce[WIRE_NONCE];
        int on = 1;
        int r = a->process >= 0 ? agent_new(&other) : -EOPNOTSUPP;

        if (r == 0)
                r = begin(a, c, a->process, a->pid, nonce, &fd);
        if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
                r = -EOPNOTSUPP;
        if (r == 0)
                r = ask(a, c, WIRE_SPLIT, nonce, WIRE_NONCE, NULL);
        if (r == 0)
                r = take_sender(fd, &other->pid);
        if (r == 0) /* that it answers afterwards shows that the number is still its own */
                other->process = (int)syscall(SYS_pidfd_open, other->pid, 0);
        if (r == 0)
                r = start_on(&fd, c, other);
        if (r == 0)
                *ret = STEAL(other);
        return r;
}

/* ---- files ---- */

/*
 * A regular file of a file system whose reads no sandbox can hold up, or make into something else.
 */
static bool is_plain_file(int fd, uint64_t ino)
{
        static const unsigned long known[] = {OVERLAYFS_SUPER_MAGIC, EXT4_SUPER_MAGIC,
                                              XFS_SUPER_MAGIC,       BTRFS_SUPER_MAGIC,
                                              TMPFS_MAGIC,           F2FS_SUPER_MAGIC};
        struct statfs fs;
        struct stat st;
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || (flags & O_PATH) || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0 ||
            !S_ISREG(st.st_mode) || st.st_ino != ino)
                return false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
                if ((unsigned long)fs.f_type == known[i])
                        return true;
        }
        return false;
}

/* One that nobody has a name for yet: what is written is no more than the agent could write itself. */
int agent_take_target(struct agent *a, int number, uint64_t ino, int *ret)
{
        _cleanup_(closep) int fd = a->process >= 0 ? take_fd(a->process, number) : -EOPNOTSUPP;
        struct statfs fs;
        struct stat st;

        if (fd < 0 || !is_plain_file(fd, ino) || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
                return -EOPNOTSUPP;
        if (st.st_size != 0 || st.st_nlink > 1 || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ||
            fs.f_type == TMPFS_MAGIC) /* its pages would be counted as ours */
                return -EOPNOTSUPP;
        *ret = STEAL_FD(fd);
        return 0;
}

struct agent_taken {
        struct agent *agent; /* counted */
        /* guarded by its lock */
        struct list link;
        int fd; /* -1: let go */
        unsigned uses;
};

/* By the agent's handle, which is open. */
static int take_file(struct agent *a, struct call *c, uint32_t handle, uint64_t ino, int *ret)
{
        _cleanup_(closep) int fd = -1;
        unsigned char bytes[4];
        int number = -1, r;

        for (unsigned i = 0; i < 4; i++)
                bytes[i] = (unsigned char)(handle >> 8 * i);
        r = ask(a, c, WIRE_NUMBER, bytes, sizeof(bytes), &number);
        if (r < 0)
                return r;
        fd = take_fd(a->process, number);
        if (fd < 0 || !is_plain_file(fd, ino))
                return -EOPNOTSUPP;
        *ret = STEAL_FD(fd);
        return 0;
}

static struct agent_taken *taken_new(struct agent *a, int *fd)
{
        struct agent_taken *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->agent = agent_ref(a);
        mutex_lock(&a->lock);
        t->fd = a->error == 0 ? STEAL_FD(*fd) : -1;
        list_add_tail(&a->taken, &t->link);
        mutex_unlock(&a->lock);
        return t;
}

int agent_take(struct agent *a, struct call *c, const char *path, struct agent_taken **ret,
               struct stat *ret_st)
{
        _cleanup_(closep) int fd = -1;
        uint32_t handle = 0;
        struct stat st;
        int r = a->process >= 0 ? agent_open(a, c, path, &handle, &st) : -EOPNOTSUPP;

        if (r < 0)
                return r;
        r = take_file(a, c, handle, st.st_ino, &fd);
        agent_close(a, handle);
        if (r < 0)
                return r;
        *ret = taken_new(a, &fd);
        if (!*ret)
                return -ENOMEM;
        *ret_st = st;
        return 0;
}

static void let_go_locked(const struct agent *a, struct agent_taken *t) REQUIRES(a->lock)
{
        assert(t->agent == a);
        if (t->uses > 0)
                return;
        closep(&t->fd); /* opened for reading: it doesn't wait */
        t->fd = -1;
}

void agent_let_go_locked(struct agent *a)
{
        list_for_each (at, &a->taken)
                let_go_locked(a, list_entry(at, struct agent_taken, link));
}

ssize_t agent_taken_read(struct agent_taken *t, void *data, size_t size, uint64_t offset,
                         struct stat *ret_st)
{
        struct agent *a = t->agent;
        ssize_t n = -EHOSTUNREACH;
        int fd;

        mutex_lock(&a->lock);
        fd = a->error == 0 ? t->fd : -1;
        if (fd >= 0)
                t->uses++;
        mutex_unlock(&a->lock);
        if (fd < 0)
                return n;
        n = file_pread_full(fd, data, size, offset);
        if (n >= 0 && ret_st && fstat(fd, ret_st) < 0)
                n = -errno;
        mutex_lock(&a->lock);
        t->uses--;
        if (a->error != 0)
                let_go_locked(a, t);
        mutex_unlock(&a->lock);
        return n;
}

void agent_taken_close(struct agent_taken *t)
{
        struct agent *a = t->agent;

        mutex_lock(&a->lock);
        list_remove(&t->link);
        let_go_locked(a, t);
        mutex_unlock(&a->lock);
        agent_unref(a);
        free(t);
}
