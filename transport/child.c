/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child process as a stream. Its input is a socket, so that whoever sends can try at once without
 * a signal or a wait; what doesn't fit is queued. One thread a child does the rest: it empties the
 * queue, reads both outputs, hears of the end, and carries out the killing.
 *
 *      running -> ending (no more output, or closed: it gets TERM, and KILL after 1 s) -> over
 *
 * Programs close their output just before they exit: without a close there are 100 ms before TERM, so
 * that their exit code is not lost.
 *
 * Locks:   `lock` guards the queue and the flags; it is held for system calls that can't block, and
 *          never for an event.
 */

#include "transport/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/base/process.h"

#define QUEUE_MAX (64u << 20)
#define CHUNK ((size_t)256 * 1024)
#define PIPE_SIZE (1 << 20) /* asked for; an unprivileged user may get less */
#define LEAVE_NS (100 * NS_PER_MS)
#define GRACE_NS NS_PER_S
#define STACK_SIZE ((size_t)256 * 1024)

struct child {
        struct stream stream;
        struct stream_events events;
        pid_t pid;
        pthread_t thread;
        int pidfd, wake_fd;

        /* the thread's */
        int out_fd, err_fd; /* -1: at its end */
        unsigned char *chunk;
        uint64_t kill_ns; /* when it gets next_signal; NEVER_NS */
        int next_signal; /* 0 while it runs */

        struct mutex lock;
        /* guarded by lock */
        int in_fd; /* -1: closed, or the child takes no more */
        struct buf queue;
        size_t head; /* bytes of the queue that are gone */
        bool is_high; /* `drained` is owed */
        bool is_last; /* nothing follows what is queued */
        bool is_closing;
};

/* ---- sending ---- */

static void wake(struct child *p)
{
        uint64_t one = 1;

        (void)!write(p->wake_fd, &one, sizeof(one)); /* full: it is awake */
}

static size_t queued_locked(const struct child *p)
{
        return p->queue.size - p->head;
}

/* Nothing more goes in; what is queued is dropped. */
static void close_input_locked(struct child *p) REQUIRES(p->lock)
{
        closep(&p->in_fd);
        p->in_fd = -1;
        buf_done(&p->queue);
        p->head = 0;
}

/* Bytes that the socket took. -EPIPE. */
static ssize_t send_some(int fd, const void *data, size_t size)
{
        ssize_t n;

        do
                n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
                return n;
        return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : -EPIPE;
}

/* Keep what wasn't taken; the thread waits until more goes. */
static int queue_locked(struct child *p, const unsigned char *data, size_t size) REQUIRES(p->lock)
{
        bool was_empty = queued_locked(p) == 0;
        int r;

        if (was_empty || p->head > p->queue.size / 2) {
                buf_drop(&p->queue, p->head);
                p->head = 0;
        }
        r = buf_add(&p->queue, data, size);
        if (r < 0)
                return r == -E2BIG ? -ENOBUFS : r;
        if (queued_locked(p) >= STREAM_QUEUE_LOW)
                p->is_high = true;
        if (was_empty)
                wake(p);
        return 0;
}

static int send_locked(struct child *p, const unsigned char *data, size_t size) REQUIRES(p->lock)
{
        ssize_t n = 0;
        int r = 0;

        if (p->in_fd < 0 || p->is_last)
                return -EPIPE;
        if (queued_locked(p) + size > QUEUE_MAX)
                return -ENOBUFS;
        if (queued_locked(p) == 0)
                n = send_some(p->in_fd, data, size);
        if (n >= 0 && (size_t)n < size)
                r = queue_locked(p, data + n, size - (size_t)n);
        if (n < 0 || (r < 0 && n > 0)) /* gone, or something was cut */
                close_input_locked(p);
        return n < 0 ? (int)n : r;
}

static int child_send(struct stream *s, const void *data, size_t size)
{
        struct child *p = container_of(s, struct child, stream);
        int r;

        mutex_lock(&p->lock);
        r = send_locked(p, data, size);
        mutex_unlock(&p->lock);
        return r;
}

static void finish_input_locked(struct child *p) REQUIRES(p->lock)
{
        if (p->is_last && p->in_fd >= 0 && queued_locked(p) == 0)
                close_input_locked(p);
}

static int child_send_eof(struct stream *s)
{
        struct child *p = container_of(s, struct child, stream);

        mutex_lock(&p->lock);
        p->is_last = true;
        finish_input_locked(p);
        mutex_unlock(&p->lock);
        return 0;
}

static size_t child_queued(struct stream *s)
{
        struct child *p = container_of(s, struct child, stream);
        size_t size;

        mutex_lock(&p->lock);
        size = queued_locked(p);
        mutex_unlock(&p->lock);
        return size;
}

/* The socket takes more. True when `drained` is due. */
static bool send_queued_locked(struct child *p) REQUIRES(p->lock)
{
        bool is_due;

        while (p->in_fd >= 0 && queued_locked(p) > 0) {
                ssize_t n = send_some(p->in_fd, p->queue.data + p->head, queued_locked(p));

                if (n < 0)
                        close_input_locked(p);
                if (n <= 0)
                        break;
                p->head += (size_t)n;
        }
        if (p->in_fd >= 0 && queued_locked(p) == 0) {
                buf_clear(&p->queue);
                p->head = 0;
        }
        finish_input_locked(p);
        is_due = p->is_high && queued_locked(p) < STREAM_QUEUE_LOW;
        if (is_due)
                p->is_high = false;
        return is_due;
}

/* ---- the thread ---- */

static bool is_closing(struct child *p)
{
        bool result;

        mutex_lock(&p->lock);
        result = p->is_closing;
        mutex_unlock(&p->lock);
        return result;
}

static void take_wake(struct child *p)
{
        uint64_t count;

        (void)!read(p->wake_fd, &count, sizeof(count)); /* only there to be emptied */
}

/* One read of an output. False when there is nothing (now, or any more). */
static bool read_some(struct child *p, int *fd, bool is_stderr)
{
        ssize_t n;

        if (*fd < 0)
                return false;
        do
                n = read(*fd, p->chunk, CHUNK);
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN)
                return false;
        if (n <= 0) {
                closep(fd);
                *fd = -1;
                return false;
        }
        if (!is_closing(p))
                p->events.data(p->events.ctx, is_stderr, p->chunk, (size_t)n);
        return true;
}

static void write_some(struct child *p)
{
        bool is_due;

        mutex_lock(&p->lock);
        is_due = send_queued_locked(p) && !p->is_closing;
        mutex_unlock(&p->lock);
        if (is_due && p->events.drained)
                p->events.drained(p->events.ctx);
}

/* The group can't be another's: its leader wasn't reaped. */
static void signal_group(struct child *p, int signal)
{
        (void)kill(-p->pid, signal); /* nobody left is fine */
}

/* Let it end, ask it to, once; then make it. */
static void end_it(struct child *p, bool is_closing)
{
        if (p->next_signal == 0) {
                mutex_lock(&p->lock);
                close_input_locked(p);
                mutex_unlock(&p->lock);
                p->next_signal = SIGTERM;
                p->kill_ns = clock_after(LEAVE_NS);
        }
        if (p->next_signal == SIGTERM && is_closing)
                p->kill_ns = 0;
        if (clock_mono_ns() < p->kill_ns)
                return;
        signal_group(p, p->next_signal);
        p->next_signal = SIGKILL;
        p->kill_ns = clock_after(GRACE_NS);
}

enum { AT_WAKE, AT_END, AT_OUT, AT_ERR, AT_IN, POLLED };

/* Wait for something to do, and do it. False when the child has ended. */
static bool run_once(struct child *p)
{
        struct pollfd at[POLLED] = {
                [AT_WAKE] = {p->wake_fd, POLLIN, 0}, [AT_END] = {p->pidfd, POLLIN, 0},
                [AT_OUT] = {p->out_fd, POLLIN, 0},   [AT_ERR] = {p->err_fd, POLLIN, 0},
                [AT_IN] = {-1, POLLOUT, 0},
        };
        bool is_closing;

        mutex_lock(&p->lock);
        if (queued_locked(p) > 0)
                at[AT_IN].fd = p->in_fd; /* only this thread closes it, or a sender that failed */
        is_closing = p->is_closing;
        mutex_unlock(&p->lock);
        if (is_closing || p->out_fd < 0)
                end_it(p, is_closing);
        if (poll(at, POLLED, clock_poll_ms(p->kill_ns)) < 0)
                return true; /* interrupted */
        if (at[AT_WAKE].revents)
                take_wake(p);
        if (at[AT_IN].revents)
                write_some(p);
        if (at[AT_ERR].revents)
                (void)read_some(p, &p->err_fd, true); /* once more if there is more */
        if (at[AT_OUT].revents)
                (void)read_some(p, &p->out_fd, false);
        return !at[AT_END].revents;
}

/* What is in the pipes still, not what others who hold them go on to write. */
static void read_rest(struct child *p)
{
        for (int i = 0; i < 64 && read_some(p, &p->err_fd, true); i++)
                ;
        for (int i = 0; i < 64 && read_some(p, &p->out_fd, false); i++)
                ;
}

static void report_end(struct child *p, int status)
{
        struct stream_end end = {0};

        if (WIFEXITED(status)) {
                end.has_code = true;
                end.code = WEXITSTATUS(status);
        } else {
                end.signal = WTERMSIG(status);
        }
        p->events.end(p->events.ctx, &end);
}

static void *run(void *arg)
{
        struct child *p = arg;
        int status = 0;

        while (run_once(p))
                ;
        signal_group(p, SIGKILL); /* what it started and left behind */
        read_rest(p);
        (void)process_reap(p->pidfd, NEVER_NS, &status); /* it has ended: this doesn't wait */
        mutex_lock(&p->lock);
        close_input_locked(p);
        mutex_unlock(&p->lock);
        if (!is_closing(p))
                report_end(p, status);
        return NULL;
}

/* ---- life ---- */

static void child_free(struct child *p)
{
        if (!p)
                return;
        closep(&p->pidfd);
        closep(&p->wake_fd);
        closep(&p->out_fd);
        closep(&p->err_fd);
        closep(&p->in_fd);
        buf_done(&p->queue);
        mutex_done(&p->lock);
        free(p->chunk);
        free(p);
}

static void child_freep(struct child **p)
{
        child_free(*p);
}

static void child_close(struct stream *s)
{
        struct child *p = container_of(s, struct child, stream);

        mutex_lock(&p->lock);
        p->is_closing = true;
        mutex_unlock(&p->lock);
        wake(p);
        (void)pthread_join(p->thread, NULL); /* it is ours, and ends within a second or so */
        child_free(p);
}

static const struct stream_ops ops = {
        .send = child_send,
        .send_eof = child_send_eof,
        .queued = child_queued,
        .close = child_close,
};

static struct child *child_new(const struct stream_events *events)
{
        struct child *p = calloc(1, sizeof(*p));

        if (!p)
                return NULL;
        p->stream.ops = &ops;
        p->events = *events;
        p->pidfd = p->wake_fd = p->out_fd = p->err_fd = p->in_fd = -1;
        p->kill_ns = NEVER_NS;
        p->queue = BUF_INIT(2 * (size_t)QUEUE_MAX);
        mutex_init(&p->lock);
        p->chunk = malloc(CHUNK);
        if (!p->chunk) {
                child_free(p);
                return NULL;
        }
        return p;
}

/* A pipe from the child: ours doesn't block. */
static int make_pipe(int *ret_ours, int *ret_theirs)
{
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        (void)fcntl(fds[0], F_SETPIPE_SZ, PIPE_SIZE); /* better, but not needed */
        *ret_ours = fds[0];
        *ret_theirs = fds[1];
        return fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int spawn(struct child *p, const char *path, const char *const *argv,
                 const char *const *envp)
{
        _cleanup_(closep) int in_fd = -1;
        _cleanup_(closep) int out_fd = -1;
        _cleanup_(closep) int err_fd = -1;
        int pair[2];
        int r;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        p->in_fd = pair[0];
        in_fd = pair[1];
        p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (p->wake_fd < 0)
                return -errno;
        r = make_pipe(&p->out_fd, &out_fd);
        if (r == 0)
                r = make_pipe(&p->err_fd, &err_fd);
        if (r < 0)
                return r;

        struct process_fd fds[] = {{in_fd, 0}, {out_fd, 1}, {err_fd, 2}};
        struct process_spec spec = {
                .path = path,
                .argv = argv,
                .envp = envp,
                .fds = fds,
                .fd_count = 3,
                .uid = (uid_t)-1,
                .cgroup_procs = {-1, -1},
                .new_session = true,
        };

        return process_spawn(&spec, &p->pid, &p->pidfd);
}

/* Its thread takes no signals: they are for others. */
static int start_thread(struct child *p)
{
        pthread_attr_t attr;
        sigset_t all, old;
        int r;

        r = -pthread_attr_init(&attr);
        if (r < 0)
                return r;
        (void)pthread_attr_setstacksize(&attr, STACK_SIZE); /* else the usual */
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* its arguments are right */
        r = -pthread_create(&p->thread, &attr, run, p);
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
        (void)pthread_attr_destroy(&attr);
        return r;
}

int child_open(const char *path, const char *const *argv, const char *const *envp,
               const struct stream_events *events, struct call *c, struct stream **ret)
{
        _cleanup_(child_freep) struct child *p = child_new(events);
        int status;
        int r;

        if (!p)
                return call_fail_errno(c, -ENOMEM, "start %s", path);
        r = spawn(p, path, argv, envp);
        if (r < 0)
                return call_fail_errno(c, r, "start %s", path);
        r = start_thread(p);
        if (r < 0) {
                signal_group(p, SIGKILL);
                (void)process_reap(p->pidfd, NEVER_NS, &status); /* killed: soon */
                return call_fail_errno(c, r, "start %s", path);
        }
        *ret = &STEAL(p)->stream;
        return 0;
}
