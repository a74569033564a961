/* SPDX-License-Identifier: Apache-2.0 */

#include "transport/ssh/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/process.h"

#define TRIES_MAX 8 /* addresses */
#define STAGGER_NS (250 * NS_PER_MS) /* before the next address is tried beside the others */
#define SLICE_NS (50 * NS_PER_MS) /* how late a cancelled call may be noticed */
#define UNSENT_MAX (128 * 1024) /* what the kernel may hold back: nothing can overtake it */
#define LIMIT_NS (DIAL_LIMIT_S * NS_PER_S)
#define PROXY_GRACE_NS (50 * NS_PER_MS) /* from TERM to KILL */

/* Connections in the making. */
struct tries {
        const struct addrinfo *next; /* the address whose turn comes */
        uint64_t next_ns; /* when */
        struct pollfd fds[TRIES_MAX];
        uint64_t until_ns[TRIES_MAX];
        size_t count, left; /* begun; still hoped for */
        int error; /* of the last that failed */
};

static void tries_close(struct tries *t)
{
        for (size_t i = 0; i < t->count; i++)
                if (t->fds[i].fd >= 0)
                        (void)close(t->fds[i].fd); /* nothing was sent */
}

static void give_up(struct tries *t, size_t i, int error)
{
        (void)close(t->fds[i].fd); /* nothing was sent */
        t->fds[i].fd = -1;
        t->left--;
        t->error = error;
        t->next_ns = 0; /* don't wait for the next one's turn */
}

static void begin(struct tries *t)
{
        const struct addrinfo *to = t->next;
        int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        t->next = to->ai_next;
        if (fd < 0 || (connect(fd, to->ai_addr, to->ai_addrlen) < 0 && errno != EINPROGRESS)) {
                t->error = -errno;
                if (fd >= 0)
                        (void)close(fd); /* nothing was sent */
                return;
        }
        t->fds[t->count] = (struct pollfd){.fd = fd, .events = POLLOUT};
        t->until_ns[t->count++] = clock_after(LIMIT_NS);
        t->left++;
        t->next_ns = clock_after(STAGGER_NS);
}

/* The descriptor of a try that has come through, or -1. */
static int look(struct tries *t)
{
        uint64_t now = clock_mono_ns();

        for (size_t i = 0; i < t->count; i++) {
                int error = 0;
                socklen_t size = sizeof(error);

                if (t->fds[i].fd < 0)
                        continue;
                if (t->fds[i].revents == 0) {
                        if (now >= t->until_ns[i])
                                give_up(t, i, -ETIMEDOUT);
                } else if (getsockopt(t->fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ||
                           error != 0) {
                        give_up(t, i, -error);
                } else {
                        return STEAL_FD(t->fds[i].fd);
                }
        }
        return -1;
}

static int connect_any(struct tries *t, struct call *c)
{
        while (t->left > 0 || t->next) {
                uint64_t slice = clock_after(SLICE_NS);
                int r = call_check(c), fd;

                if (r < 0)
                        return r;
                while (t->next && t->count < TRIES_MAX &&
                       (t->left == 0 || clock_mono_ns() >= t->next_ns))
                        begin(t);
                if (t->count == TRIES_MAX)
                        t->next = NULL;
                if (slice > c->deadline_ns)
                        slice = c->deadline_ns;
                if (t->left > 0 && poll(t->fds, t->count, clock_poll_ms(slice)) < 0 &&
                    errno != EINTR)
                        return -errno;
                fd = look(t);
                if (fd >= 0)
                        return fd;
        }
        return t->error < 0 ? t->error : -EHOSTUNREACH;
}

int dial_host(const char *host, unsigned port, struct call *c, int *ret)
{
        struct tries t = {0};
        struct addrinfo *found = NULL;
        int on = 1, unsent = UNSENT_MAX, fd, r = dial_resolve(host, port, c, &found);

        if (r < 0)
                return r;
        t.next = found;
        fd = connect_any(&t, c);
        tries_close(&t);
        freeaddrinfo(found);
        r = call_check(c);
        if (fd < 0)
                return call_fail(c, r < 0 ? r : -EHOSTUNREACH, "connect to %s port %u: %s", host,
                                 port, strerrordesc_np(-fd));
        /* without them only slower */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
        *ret = fd;
        return 0;
}

int dial_proxy(const char *const *argv, const char *const *envp, struct call *c,
               struct dial_proxy *ret)
{
        _cleanup_(closep) int ours = -1;
        _cleanup_(closep) int theirs = -1;
        _cleanup_(closep) int log = -1;
        _cleanup_(closep) int log_end = -1;
        int pair[2], pipes[2], r;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return call_fail_errno(c, -errno, "%s", argv[0]);
        ours = pair[0];
        theirs = pair[1];
        if (pipe2(pipes, O_CLOEXEC) < 0)
                return call_fail_errno(c, -errno, "%s", argv[0]);
        log = pipes[0];
        log_end = pipes[1];
        if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0 || fcntl(log, F_SETFL, O_NONBLOCK) < 0)
                return call_fail_errno(c, -errno, "%s", argv[0]);
        {
                const struct process_fd fds[] = {{theirs, 0}, {theirs, 1}, {log_end, 2}};
                const struct process_spec spec = {
                        .path = argv[0],
                        .argv = argv,
                        .envp = envp,
                        .fds = fds,
                        .fd_count = 3,
                        .uid = (uid_t)-1,
                        .cgroup_procs = {-1, -1},
                        .new_session = true,
                };

                r = process_spawn(&spec, &pid, &ret->pidfd);
        }
        if (r < 0)
                return call_fail_errno(c, r, "proxy %s", argv[0]);
        ret->pid = pid;
        ret->fd = STEAL_FD(ours);
        ret->log_fd = STEAL_FD(log);
        return 0;
}

void dial_proxy_end(struct dial_proxy *p)
{
        int status;

        if (p->pidfd < 0)
                return;
        /* The group is the program's as long as it was not reaped. */
        (void)kill(-p->pid, SIGTERM); /* it may have ended by itself */
        if (process_reap(p->pidfd, clock_after(PROXY_GRACE_NS), &status) == -ETIMEDOUT) {
                (void)kill(-p->pid, SIGKILL);
                (void)process_reap(p->pidfd, clock_after(PROXY_GRACE_NS), &status);
        }
        (void)close(p->pidfd);
        p->pidfd = -1;
}
