/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to a holder. Sending is done by whoever has something to say, under the box's
 * lock, into a socket that never blocks; what doesn't fit waits in a queue that the hub empties.
 * Receiving is the hub's. Every byte from there is hostile: what is not exactly a frame that may
 * come now ends the connection.
 */

#include "providers/local/local.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define OUT_MAX (16u << 20)
#define WAIT_STEP_NS (100 * NS_PER_MS)
#define BROKEN "the holder of this sandbox broke its protocol: it can't be trusted any more"

/* ---- sending ---- */

/* Bytes that went out; the descriptor goes with the first of them. -errno, -EAGAIN none. */
static ssize_t send_some(int socket, const void *data, size_t size, int fd)
{
        union {
                struct cmsghdr align;
                char room[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec part = {(void *)(uintptr_t)data, size};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        ssize_t n;

        if (fd >= 0) {
                struct cmsghdr *c = &control.align;

                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(c), &fd, sizeof(int));
        }
        do
                n = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

static void flush_locked(struct local_box *b) REQUIRES(b->lock)
{
        while (b->conn.out.size > 0) {
                ssize_t n = send_some(b->conn.source.fd, b->conn.out.data, b->conn.out.size, -1);

                if (n == -EAGAIN)
                        return;
                if (n < 0) {
                        buf_clear(&b->conn.out); /* it has died: the hub will hear */
                        break;
                }
                explicit_bzero(b->conn.out.data, (size_t)n);
                buf_drop(&b->conn.out, (size_t)n);
        }
        buf_wipe(&b->conn.out);
        hub_watch(b->local->hub, &b->conn.source, EPOLLIN);
        cond_broadcast(&b->changed); /* a frame with a descriptor may go now */
}

static int queue_locked(struct local_box *b, const void *data, size_t size) REQUIRES(b->lock)
{
        bool was_empty = b->conn.out.size == 0;
        int r = size > 0 ? buf_add(&b->conn.out, data, size) : 0;

        if (r == 0 && was_empty && size > 0)
                hub_watch(b->local->hub, &b->conn.source, EPOLLIN | EPOLLOUT);
        return r;
}

/* A frame with others behind it in the queue can't carry a descriptor: wait until it is empty. */
static int send_locked(struct local_box *b, const struct buf *frame, int fd) REQUIRES(b->lock)
{
        ssize_t n = 0;

        if (b->conn.out.size + frame->size > OUT_MAX || (fd >= 0 && b->conn.out.size > 0))
                return -EAGAIN;
        if (b->conn.out.size == 0) {
                n = send_some(b->conn.source.fd, frame->data, frame->size, fd);
                if (n == -EAGAIN && fd < 0)
                        n = 0;
                if (n < 0)
                        return n == -EAGAIN || n == -ENOMEM || n == -ETOOMANYREFS ? -EAGAIN
                                                                                  : -EHOSTDOWN;
        }
        /* Half a frame can't be taken back: the connection is over if its rest can't be kept. */
        if (queue_locked(b, frame->data + n, frame->size - (size_t)n) < 0) {
                if (n > 0)
                        (void)shutdown(b->conn.source.fd, SHUT_RDWR);
                return -ENOMEM;
        }
        return 0;
}

int conn_send_frames_locked(struct local_box *b, const struct buf *frames)
{
        return b->conn.source.fd < 0 ? -EHOSTDOWN : send_locked(b, frames, -1);
}

int conn_send_locked(struct local_box *b, const struct proto_msg *m, int fd)
{
        _cleanup_(buf_wipe) struct buf frame = BUF_INIT(PROTO_FRAME_MAX + 16);
        int r;

        if (b->conn.source.fd < 0)
                return -EHOSTDOWN;
        r = proto_add(&frame, m);
        return r < 0 ? r : send_locked(b, &frame, fd);
}

/* ---- waiting ---- */

int box_wait_locked(struct local_box *b, struct call *c)
{
        uint64_t step_ns = clock_after(WAIT_STEP_NS);
        int r = call_check(c);

        if (r == 0) /* looked at again */
                (void)cond_wait_until(&b->changed, &b->lock,
                                      step_ns < c->deadline_ns ? step_ns : c->deadline_ns);
        return r;
}

void wait_add_locked(struct local_box *b, struct wait *w)
{
        w->seq = ++b->seq;
        list_add_tail(&b->waits, &w->link);
}

int wait_reply_locked(struct local_box *b, struct wait *w, struct call *c)
{
        int r = 0;

        while (r == 0 && !w->is_done && b->conn.source.fd >= 0)
                r = box_wait_locked(b, c);
        list_remove(&w->link);
        if (w->is_done)
                return 0;
        return r < 0 ? r : -EHOSTDOWN;
}

static int on_reply(struct local_box *b, const struct proto_msg *m)
{
        bool is_found = false;
        uint32_t last;

        mutex_lock(&b->lock);
        last = b->seq;
        list_for_each (at, &b->waits) {
                struct wait *w = container_of(at, struct wait, link);

                if (w->seq != m->reply.seq || w->is_done)
                        continue;
                w->is_done = is_found = true;
                w->code = -(int)m->reply.code;
                w->pid = m->reply.pid;
                (void)snprintf(w->sentence, sizeof(w->sentence), "%s", m->reply.sentence.data);
                cond_broadcast(&b->changed);
                break;
        }
        mutex_unlock(&b->lock);
        if (m->reply.seq > last)
                return -EPROTO; /* to a question that nobody asked */
        if (!is_found)
                exec_on_reply(b, m); /* its asker has given up, or didn't wait */
        return 0;
}

/* ---- receiving ---- */

/* What it says counts only when it has seen every command that we sent. */
static void take_quiet(struct local_box *b, const struct proto_quiet *q)
{
        mutex_lock(&b->lock);
        if (q->execs == b->execs && b->conn.source.fd >= 0)
                atomic_store(&b->is_quiet, q->is_quiet);
        mutex_unlock(&b->lock);
}

static int on_hello(struct local_box *b, const struct proto_msg *m)
{
        bool was_greeted;

        if (m->hello.version != PROTO_VERSION)
                return -EPROTO;
        mutex_lock(&b->lock);
        was_greeted = b->conn.is_greeted;
        mutex_unlock(&b->lock);
        if (was_greeted)
                return -EPROTO;
        take_quiet(b, &m->hello.quiet);
        life_greeted(b, m->hello.is_paused);
        return 0;
}

static int dispatch(struct local_box *b, const struct proto_msg *m)
{
        bool is_greeted;

        mutex_lock(&b->lock);
        is_greeted = b->conn.is_greeted;
        mutex_unlock(&b->lock);
        if (!is_greeted && m->type != PROTO_HELLO)
                return -EPROTO;
        switch ((int)m->type) {
        case PROTO_HELLO: return on_hello(b, m);
        case PROTO_REPLY: take_quiet(b, &m->reply.quiet); return on_reply(b, m);
        case PROTO_OUTPUT: return exec_on_output(b, m);
        case PROTO_TAKEN: return exec_on_taken(b, m);
        case PROTO_END: take_quiet(b, &m->end.quiet); return exec_on_end(b, m);
        case PROTO_QUIET: take_quiet(b, &m->quiet); return 0;
        default: return -EPROTO;
        }
}

/* Whole frames at the beginning of `data`; the bytes used, or -EPROTO. */
static ssize_t parse(struct local_box *b, const char *data, size_t size)
{
        size_t at = 0;

        for (;;) {
                struct proto_msg m;
                size_t used;
                int r = proto_parse(data + at, size - at, PROTO_ANSWER_MAX, &m, &used);

                if (r == 0)
                        return (ssize_t)at;
                if (r > 0)
                        r = dispatch(b, &m);
                if (r < 0)
                        return -EPROTO;
                at += used;
        }
}

/* 1: something was read; 0: nothing now; -ECONNRESET its end; -EPROTO; -ENOMEM. */
static int receive(struct local_box *b)
{
        char *scratch = hub_scratch(b->local->hub);
        size_t held = b->conn.in.size;
        ssize_t n, used;

        /* A frame's beginning goes in front: at most PROTO_ANSWER_MAX, less than the scratch. */
        if (held > 0)
                memcpy(scratch, b->conn.in.data, held);
        n = recv(b->conn.source.fd, scratch + held, HUB_SCRATCH - held, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0)
                return -ECONNRESET;
        held += (size_t)n;
        used = parse(b, scratch, held);
        buf_done(&b->conn.in);
        if (used < 0)
                return -EPROTO;
        if ((size_t)used < held && buf_add(&b->conn.in, scratch + used, held - (size_t)used) < 0)
                return -ENOMEM;
        return 1;
}

static void conn_ready(struct hub_source *s, uint32_t events)
{
        struct local_box *b = container_of(s, struct local_box, conn.source);
        bool is_released;
        int r = 1;

        mutex_lock(&b->lock);
        is_released = b->is_released;
        if ((events & EPOLLOUT) && !is_released)
                flush_locked(b);
        mutex_unlock(&b->lock);
        if (is_released)
                return;
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                r = receive(b);
                exec_ack_all(b);
        }
        if (r < 0) {
                log_debug("local", "%s: holder's connection: %s", b->base.id, errno_name(r));
                life_broken(b, r == -EPROTO ? BROKEN : r == -ENOMEM ? "out of memory" : NULL);
        }
}

static bool is_open(struct local_box *b)
{
        bool open;

        mutex_lock(&b->lock);
        open = b->conn.source.fd >= 0;
        mutex_unlock(&b->lock);
        return open;
}

void conn_drain(struct local_box *b)
{
        while (is_open(b) && receive(b) > 0)
                ;
}

/* ---- open, close ---- */

static int connect_to(int dir, int *ret)
{
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        if (fd < 0)
                return -errno;
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/holder.sock",
                       dir);
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        *ret = STEAL_FD(fd);
        return 0;
}

static int greet(struct local_box *b)
{
        const struct proto_msg m = {.type = PROTO_GREET, .greet = {.version = PROTO_VERSION}};
        int r;

        mutex_lock(&b->lock);
        r = conn_send_locked(b, &m, -1);
        mutex_unlock(&b->lock);
        return r;
}

/* Takes ownership of fd on success. */
static int take_locked(struct local_box *b, int fd) REQUIRES(b->lock)
{
        int r;

        if (b->is_settling || b->process.fd < 0)
                return -EHOSTDOWN; /* nobody would close it */
        b->conn.source = (struct hub_source){.ready = conn_ready, .fd = fd};
        b->conn.in = BUF_INIT(PROTO_ANSWER_MAX + 16);
        b->conn.out = BUF_INIT(OUT_MAX);
        b->conn.is_greeted = false;
        b->execs = 0;
        r = hub_add(b->local->hub, &b->conn.source, EPOLLIN);
        if (r < 0)
                b->conn.source.fd = -1;
        return r;
}

int conn_open(struct local_box *b, int dir, struct call *c)
{
        _cleanup_(closep) int fd = -1;
        int r = connect_to(dir, &fd);

        if (r == 0) {
                mutex_lock(&b->lock);
                r = take_locked(b, fd);
                mutex_unlock(&b->lock);
        }
        if (r == 0) {
                fd = -1;
                r = greet(b);
        }
        if (r == -ECONNREFUSED || r == -ENOENT)
                r = -EHOSTDOWN; /* its socket was closed with it */
        return r < 0 ? call_fail_errno(c, r, "connect to the holder") : 0;
}

void conn_close(struct local_box *b)
{
        if (!is_open(b))
                return;
        hub_remove(b->local->hub, &b->conn.source);
        mutex_lock(&b->lock);
        closep(&b->conn.source.fd);
        b->conn.source.fd = -1;
        buf_wipe(&b->conn.out);
        buf_done(&b->conn.in);
        cond_broadcast(&b->changed); /* no reply will come */
        mutex_unlock(&b->lock);
}
