/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder's connection to sbxfs: one at a time, the newest wins (its owner holds the lock of the
 * state directory). What the former one sent is carried out before the new one is heard, so that
 * nothing sent is lost.
 */

#include "providers/holder/holder.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define READ_SIZE (64u << 10)
#define OUT_ENOUGH (256u << 10) /* no more output is queued beyond this */
#define GRACE_MAX_MS 60000u
#define LEAVE_AFTER_NS NS_PER_S

/* ---- sending ---- */

static void close_fds(struct holder *h)
{
        for (unsigned i = 0; i < h->fd_count; i++)
                closep(&h->fds[i]);
        h->fd_count = 0;
}

static void lose(struct holder *h)
{
        source_close(h, &h->conn);
        close_fds(h);
        buf_done(&h->in);
        buf_done(&h->out);
        h->execs = 0;
        h->was_greeted = false;
        list_for_each (at, &h->commands) {
                struct command *x = container_of(at, struct command, link);

                x->is_attached = false;
                command_flow(h, x);
        }
}

struct proto_quiet conn_quiet(const struct holder *h)
{
        return (struct proto_quiet){.is_quiet = h->is_quiet, .execs = h->execs};
}

void conn_send(struct holder *h, const struct proto_msg *m)
{
        if (h->conn.fd >= 0 && proto_add(&h->out, m) < 0)
                lose(h); /* it doesn't read, or memory is short: it may come again */
}

static void flush(struct holder *h)
{
        while (h->conn.fd >= 0 && h->out.size > 0) {
                ssize_t n = send(h->conn.fd, h->out.data, h->out.size, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n > 0)
                        buf_drop(&h->out, (size_t)n);
                else if (n < 0 && errno == EAGAIN)
                        break;
                else if (n < 0 && errno != EINTR) {
                        /* What it sent before it died is still to be read: that finds the end. */
                        buf_clear(&h->out);
                        break;
                }
        }
        if (h->conn.fd >= 0)
                source_watch(h, &h->conn, h->out.size > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void send_end(struct holder *h, struct command *x)
{
        struct proto_msg m = {.type = PROTO_END,
                              .end = {.number = x->number,
                                      .kind = x->end_kind,
                                      .value = x->end_value,
                                      .total = {x->total[0], x->total[1]},
                                      .quiet = conn_quiet(h)}};

        x->is_end_sent = true;
        conn_send(h, &m);
}

/* One record, or the end. False: nothing to send. */
static bool pump_one(struct holder *h, struct command *x)
{
        static uint8_t scratch[LOG_SCRATCH];
        struct log_record record;
        struct proto_msg m = {.type = PROTO_OUTPUT};

        if (!x->is_attached || x->is_end_sent)
                return false;
        switch (holder_log_next(&x->log, scratch, &record)) {
        case 0:
                if (x->is_ended)
                        send_end(h, x);
                return false;
        case 1:
                m.output.number = x->number;
                m.output.stream = record.stream;
                m.output.offset = record.offset;
                m.output.position = record.position;
                m.output.data = record.data;
                m.output.size = record.size;
                conn_send(h, &m);
                return true;
        default: return true; /* a gap; go on behind it */
        }
}

/* A record of each. False: there was nothing. */
static bool pump_round(struct holder *h)
{
        bool found = false;

        list_for_each (at, &h->commands) {
                if (h->out.size >= OUT_ENOUGH)
                        break;
                found |= pump_one(h, container_of(at, struct command, link));
        }
        return found;
}

/* Ends when nothing is left, or when the rest waits for the socket: then it has EPOLLOUT. */
void conn_pump(struct holder *h)
{
        flush(h);
        while (h->conn.fd >= 0 && h->out.size < OUT_ENOUGH && pump_round(h)) {
                if (h->out.size >= OUT_ENOUGH)
                        flush(h);
        }
        flush(h);
}

bool conn_is_idle(const struct holder *h)
{
        if (h->conn.fd < 0)
                return true;
        list_for_each (at, &h->commands) {
                const struct command *x = container_of(at, struct command, link);

                if (x->is_attached && !x->is_end_sent)
                        return false;
        }
        return h->out.size == 0;
}

/* ---- requests ---- */

static void reply(struct holder *h, uint32_t seq, int code, pid_t pid, const char *sentence)
{
        struct proto_msg m = {.type = PROTO_REPLY,
                              .reply = {.seq = seq,
                                        .code = (uint32_t)-code,
                                        .pid = pid,
                                        .quiet = conn_quiet(h),
                                        .sentence = {1, sentence, strlen(sentence) + 1}}};

        conn_send(h, &m);
}

static int on_greet(struct holder *h, const struct proto_msg *m)
{
        struct proto_msg answer = {.type = PROTO_HELLO,
                                   .hello = {.version = PROTO_VERSION,
                                             .is_paused = h->is_paused,
                                             .quiet = conn_quiet(h)}};

        (void)m; /* the other side decides whether it can speak our version */
        h->was_greeted = true;
        conn_send(h, &answer);
        return 0;
}

static int on_env(struct holder *h, const struct proto_msg *m)
{
        buf_wipe(&h->env);
        h->env_count = 0;
        if (buf_add(&h->env, m->env.data, m->env.size) < 0)
                return -ENOMEM;
        h->env_count = m->env.count;
        return 0;
}

static int take_fd(struct holder *h)
{
        int fd = h->fds[0];

        h->fd_count--;
        memmove(h->fds, h->fds + 1, h->fd_count * sizeof(h->fds[0]));
        return fd;
}

static int on_exec(struct holder *h, const struct proto_msg *m)
{
        char sentence[PROTO_SENTENCE_MAX] = "";
        struct command *x = NULL;
        int fd, r;

        h->execs++;
        if (h->fd_count == 0 && !h->log_dir)
                return -EPROTO;
        fd = h->fd_count > 0 ? take_fd(h) : holder_log_file(h->log_dir);
        if (h->is_stopping || h->is_paused || command_find(h, m->exec.number)) {
                closep(&fd);
                r = h->is_stopping || h->is_paused ? -EHOSTDOWN : -EEXIST;
        } else {
                r = command_start(h, m, fd, sentence, sizeof(sentence), &x);
        }
        reply(h, m->exec.seq, r, x ? x->pid : 0, sentence);
        return 0;
}

static int on_attach(struct holder *h, const struct proto_msg *m)
{
        struct command *x = command_find(h, m->attach.number);
        struct proto_msg taken = {.type = PROTO_TAKEN, .taken = {.number = m->attach.number}};

        reply(h, m->attach.seq, x ? 0 : -ENOENT, x ? x->pid : 0, "");
        if (!x)
                return 0;
        x->is_attached = true;
        x->is_end_sent = false;
        holder_log_rewind(&x->log);
        /* All that reached us counts as taken: its sender goes on behind it. */
        x->stdin_reported = taken.taken.total = x->stdin_received;
        conn_send(h, &taken);
        command_flow(h, x);
        return 0;
}

static int on_ack(struct holder *h, const struct proto_msg *m)
{
        struct command *x = command_find(h, m->ack.number);

        if (!x)
                return 0;
        if (!holder_log_ack(&x->log, m->ack.position))
                return -EPROTO;
        command_flow(h, x);
        return 0;
}

static int on_signal(struct holder *h, const struct proto_msg *m)
{
        const struct command *x = command_find(h, m->signal.number);

        if (x && !x->is_ended)
                (void)kill(-x->pid, (int)m->signal.signal); /* it may have ended just now */
        return 0;
}

static int on_pause(struct holder *h, const struct proto_msg *m)
{
        if (!h->is_paused) {
                h->is_paused = true;
                h->paused_ns = clock_mono_ns();
        }
        if (m->pause.by_signal)
                kill_all(h, SIGSTOP);
        reply(h, m->pause.seq, 0, 0, "");
        return 0;
}

static int on_resume(struct holder *h, const struct proto_msg *m)
{
        if (h->is_paused) {
                h->is_paused = false;
                commands_shift(h, clock_mono_ns() - h->paused_ns);
        }
        if (m->resume.by_signal)
                kill_all(h, SIGCONT);
        reply(h, m->resume.seq, 0, 0, "");
        return 0;
}

void conn_stop(struct holder *h, uint32_t grace_ms)
{
        uint64_t now_ns = clock_mono_ns();

        h->is_stopping = true;
        h->stop_ns = now_ns + grace_ms * NS_PER_MS;
        h->leave_ns = h->stop_ns + LEAVE_AFTER_NS;
        if (grace_ms > 0)
                kill_all(h, SIGTERM);
        kill_all(h, SIGCONT); /* what is stopped can't end */
}

static int on_stop(struct holder *h, const struct proto_msg *m)
{
        conn_stop(h, m->stop.grace_ms < GRACE_MAX_MS ? m->stop.grace_ms : GRACE_MAX_MS);
        return 0;
}

static int on_message(struct holder *h, const struct proto_msg *m)
{
        struct command *x;

        if (!h->was_greeted && m->type != PROTO_GREET)
                return -EPROTO;
        switch ((int)m->type) {
        case PROTO_GREET: return on_greet(h, m);
        case PROTO_ENV: return on_env(h, m);
        case PROTO_EXEC: return on_exec(h, m);
        case PROTO_ATTACH: return on_attach(h, m);
        case PROTO_ACK: return on_ack(h, m);
        case PROTO_SIGNAL: return on_signal(h, m);
        case PROTO_PAUSE: return on_pause(h, m);
        case PROTO_RESUME: return on_resume(h, m);
        case PROTO_STOP: return on_stop(h, m);
        case PROTO_DETACH:
                x = command_find(h, m->detach.number);
                if (x) {
                        x->is_attached = false;
                        command_flow(h, x);
                }
                return 0;
        case PROTO_FORGET:
                x = command_find(h, m->forget.number);
                if (x)
                        command_forget(h, x);
                return 0;
        case PROTO_STDIN:
                x = command_find(h, m->input.number);
                return x ? command_stdin(h, x, m) : 0;
        default: return -EPROTO;
        }
}

/* ---- receiving ---- */

static int parse(struct holder *h)
{
        size_t at = 0;
        int r = 0;

        while (h->conn.fd >= 0) {
                struct proto_msg m;
                size_t used;

                r = proto_parse(h->in.data + at, h->in.size - at, PROTO_FRAME_MAX, &m, &used);
                if (r <= 0)
                        break;
                r = on_message(h, &m);
                if (h->conn.fd < 0)
                        break; /* the answer didn't fit: the buffer has gone with the connection */
                if (m.type == PROTO_EXEC || m.type == PROTO_ENV)
                        explicit_bzero(h->in.data + at, used); /* secrets */
                at += used;
                if (r < 0)
                        break;
        }
        if (h->conn.fd >= 0)
                buf_drop(&h->in, at);
        return r;
}

static void take_fds(struct holder *h, struct msghdr *message)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < count; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                        if (h->fd_count < sizeof(h->fds) / sizeof(h->fds[0]))
                                h->fds[h->fd_count++] = fd;
                        else
                                closep(&fd);
                }
        }
}

/* 1: something was read; 0: nothing now; or why the connection is over. */
static int receive(struct holder *h)
{
        union {
                struct cmsghdr align;
                char room[CMSG_SPACE(8 * sizeof(int))];
        } control;
        struct iovec part = {buf_reserve(&h->in, READ_SIZE), READ_SIZE};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof(control)};
        ssize_t n;

        if (!part.iov_base)
                return -ENOMEM;
        n = recvmsg(h->conn.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        take_fds(h, &message);
        if (n == 0)
                return -ECONNRESET;
        h->in.size += (size_t)n;
        return parse(h) < 0 ? -EPROTO : 1;
}

static void conn_ready(struct holder *h, struct source *s, uint32_t events)
{
        (void)s;
        if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                return; /* room to send: the pump comes at the end of each round */
        if (receive(h) < 0)
                lose(h);
}

void conn_accept(struct holder *h, struct source *s, uint32_t events)
{
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        (void)events;
        if (fd < 0)
                return;
        if (h->may_join && !h->may_join(fd)) {
                closep(&fd);
                return;
        }
        while (h->conn.fd >= 0) {
                if (receive(h) <= 0)
                        lose(h);
        }
        h->conn.fd = fd;
        h->conn.ready = conn_ready;
        h->in = BUF_INIT(PROTO_FRAME_MAX + READ_SIZE + 16);
        h->out = BUF_INIT(8u << 20);
        h->leave_ns = h->is_stopping ? h->leave_ns : NEVER_NS;
        source_watch(h, &h->conn, EPOLLIN);
}
