/* SPDX-License-Identifier: Apache-2.0 */
/* The holder's start and its loop of events; see holder.h. */

#include "providers/holder/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "transport/base/clock.h"

#define EVENTS_MAX 64
/* nobody came after the start: sbxfs died before it wrote down that we are */
#define LONELY_NS (20 * NS_PER_S)
#define RELAY_NS (300 * NS_PER_MS)
#define STOP_GRACE_MS 5000u
#define FILES_SOFT 1024 /* what commands inherit */
#define KEYCTL_JOIN_SESSION_KEYRING 1

void source_watch(struct holder *h, struct source *s, uint32_t events)
{
        struct epoll_event event = {.events = events, .data.ptr = s};
        int op = s->events == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

        if (s->events == events)
                return;
        if (epoll_ctl(h->epoll, op, s->fd, &event) < 0)
                _exit(3); /* out of kernel memory: as good as killed */
        s->events = events;
}

void source_close(struct holder *h, struct source *s)
{
        if (s->fd < 0)
                return;
        source_watch(h, s, 0);
        (void)close(s->fd); /* a pipe or a socket */
        s->fd = -1;
}

static void signals_ready(struct holder *h, struct source *s, uint32_t events)
{
        struct signalfd_siginfo info;

        (void)events;
        while (read(s->fd, &info, sizeof(info)) > 0) {
                /* Who is outside of our namespace has no number here. */
                if (info.ssi_signo == SIGTERM && info.ssi_pid == 0 && !h->is_stopping)
                        conn_stop(h, STOP_GRACE_MS);
        }
        commands_reap(h);
}

/* ---- start ---- */

/* Everything but the listener; 0, 1 and 2 become /dev/null. */
static void close_others(struct holder *h)
{
        int null = open("/dev/null", O_RDWR);
        int listener = fcntl(h->listener.fd, F_DUPFD_CLOEXEC, 3);

        if (null < 0 || listener < 0)
                _exit(2);
        for (int fd = 0; fd < 3; fd++) {
                if (dup2(null, fd) < 0)
                        _exit(2);
        }
        h->listener.fd = listener;
        if (listener > 3) /* an old kernel: they are CLOEXEC all the same */
                (void)syscall(SYS_close_range, 3, listener - 1, 0);
        (void)syscall(SYS_close_range, listener + 1, ~0U, 0);
}

static void limit_files(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > FILES_SOFT) {
                limit.rlim_cur = FILES_SOFT;
                (void)setrlimit(RLIMIT_NOFILE, &limit); /* lowering our own can't fail */
        }
}

static void harden(struct holder *h)
{
        h->oom_fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                _exit(2);
        if (h->reach != REACH_NAMESPACE && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                _exit(2);
        (void)prctl(PR_SET_NAME, "sbxfs-holder"); /* a convenience */
        /* The mounting user's keys are not for the sandbox. A kernel without keys has none. */
        (void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
        (void)umask(022);
        limit_files();
}

static int open_signals(const struct holder *h)
{
        sigset_t all, wanted;

        (void)sigfillset(&all);
        (void)sigemptyset(&wanted);
        (void)sigaddset(&wanted, SIGCHLD);
        if (h->ends_by_signal)
                (void)sigaddset(&wanted, SIGTERM);
        if (pthread_sigmask(SIG_SETMASK, &all, NULL) != 0)
                return -1;
        return signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void start(struct holder *h)
{
        close_others(h);
        harden(h);
        list_init(&h->commands);
        h->env.max = PROTO_FRAME_MAX;
        h->is_quiet = true;
        h->stop_ns = NEVER_NS;
        h->leave_ns = h->ends_by_signal ? NEVER_NS : clock_after(LONELY_NS);
        h->conn.fd = -1;
        h->signals.fd = open_signals(h);
        h->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (h->epoll < 0 || h->signals.fd < 0)
                _exit(2);
        h->signals.ready = signals_ready;
        h->listener.ready = conn_accept;
        source_watch(h, &h->signals, EPOLLIN);
        source_watch(h, &h->listener, EPOLLIN);
}

/* ---- the loop ---- */

static uint64_t next_deadline(const struct holder *h)
{
        uint64_t next = h->is_paused ? NEVER_NS : commands_deadline(h);

        next = h->stop_ns < next ? h->stop_ns : next;
        return h->leave_ns < next ? h->leave_ns : next;
}

static void check_stop(struct holder *h, uint64_t now_ns)
{
        if (h->is_stopping && h->is_quiet && conn_is_idle(h)) {
                uint64_t relayed_ns = now_ns + RELAY_NS;

                /* Our end would be that of what carries our words outside. */
                if (!h->ends_by_signal || !commands_are_heard(h))
                        _exit(0);
                h->leave_ns = h->leave_ns < relayed_ns ? h->leave_ns : relayed_ns;
        }
        if (h->leave_ns <= now_ns)
                _exit(0); /* in a namespace, that ends all that is left */
        if (h->stop_ns <= now_ns) {
                /* Again and again, while there is a forking process that escaped this time. */
                kill_all(h, SIGKILL);
                h->stop_ns = now_ns + 20 * NS_PER_MS;
        }
}

void holder_run(struct holder *h)
{
        if (h->reach == REACH_NAMESPACE && getpid() != 1)
                _exit(2); /* kill(-1) would reach others */
        start(h);
        for (;;) {
                struct epoll_event events[EVENTS_MAX];
                int count =
                        epoll_wait(h->epoll, events, EVENTS_MAX, clock_poll_ms(next_deadline(h)));
                uint64_t now_ns;

                for (int i = 0; i < count; i++) {
                        struct source *s = events[i].data.ptr;

                        if (s->fd >= 0) /* not closed by an earlier one of this round */
                                s->ready(h, s, events[i].events);
                }
                now_ns = clock_mono_ns();
                if (!h->is_paused)
                        commands_tick(h, now_ns);
                conn_pump(h);
                check_stop(h, now_ns);
                commands_sweep(h);
        }
}
