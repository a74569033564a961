/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a child from a process that is large and has threads.
 *
 * The child runs child_main on a stack of its own, in our memory (CLONE_VM), while the calling
 * thread waits for its exec or end (CLONE_VFORK): no page tables are copied. With another uid it
 * gets a copy instead, because a change of uid marks the memory as not dumpable, which would stay
 * with us. Either way it uses nothing but raw system calls: libc's wrappers may take locks, run
 * handlers, or (setresuid) try to change all threads of the parent. What went wrong comes back
 * through the mapping that also holds its stack.
 *
 * All signals are blocked from before the clone until the child has reset their handlers.
 */

#include "transport/base/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/base/cleanup.h"

#define STACK_SIZE ((size_t)256 * 1024)
#define SIGNAL_MAX 64
#define SIGSET_SIZE 8 /* the kernel's sigset_t */

/* Sanitizers keep state of a thread in its memory, which here is somebody else's. */
#define RAW __attribute__((no_sanitize("address", "thread", "undefined"), no_stack_protector))

/* The thread sanitizer's clone can only make copies. gcc says it by a macro, clang by a feature. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define SHARE_MEMORY 0
#else
#define SHARE_MEMORY CLONE_VM
#endif

struct child {
        const struct process_spec *spec;
        const char *const *envp;
        struct process_fd *fds; /* ours, with 0 to 2 complete; sorted by `to` */
        size_t fd_count;
        int error; /* written by the child; 0 while nothing failed */
};

/* At the start of the shared mapping; the stack is the rest. */
struct shared {
        struct child child;
        char stack[] __attribute__((aligned(64)));
};

RAW static long sys(long number, long a, long b, long c, long d)
{
        return syscall(number, a, b, c, d);
}

RAW static int enter_cgroups(const struct process_spec *spec)
{
        for (unsigned i = 0; i < 2; i++)
                if (spec->cgroup_procs[i] >= 0 &&
                    sys(SYS_write, spec->cgroup_procs[i], (long)"0", 1, 0) != 1)
                        return -1;
        return 0;
}

/* First out of the way of all targets, then onto them; then close what is between and behind. */
RAW static int move_fds(struct child *c)
{
        int behind = c->fds[c->fd_count - 1].to + 1, next = 0;

        for (size_t i = 0; i < c->fd_count; i++) {
                long fd = sys(SYS_fcntl, c->fds[i].from, F_DUPFD_CLOEXEC, behind, 0);

                if (fd < 0)
                        return -1;
                c->fds[i].from = (int)fd;
        }
        for (size_t i = 0; i < c->fd_count; i++) {
                int to = c->fds[i].to;

                if (sys(SYS_dup3, c->fds[i].from, to, 0, 0) < 0)
                        return -1;
                if (to > next && sys(SYS_close_range, next, to - 1, 0, 0) < 0)
                        return -1;
                next = to + 1;
        }
        return (int)sys(SYS_close_range, next, (long)UINT_MAX, 0, 0);
}

RAW static int change_ids(const struct process_spec *spec)
{
        if (spec->uid == (uid_t)-1)
                return 0;
        if (sys(SYS_setgroups, 0, 0, 0, 0) < 0 ||
            sys(SYS_setresgid, spec->gid, spec->gid, spec->gid, 0) < 0 ||
            sys(SYS_setresuid, spec->uid, spec->uid, spec->uid, 0) < 0)
                return -1;
        return 0;
}

/* Handlers are the parent's code and must not run here: they go before signals are let in. */
RAW static int reset_signals(void)
{
        static const uint64_t default_action[8]; /* the kernel's struct sigaction, all 0: SIG_DFL */
        static const uint64_t none;

        for (int i = 1; i <= SIGNAL_MAX; i++)
                if (i != SIGKILL && i != SIGSTOP &&
                    sys(SYS_rt_sigaction, i, (long)default_action, 0, SIGSET_SIZE) < 0)
                        return -1;
        return (int)sys(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, SIGSET_SIZE);
}

RAW static int child_main(void *arg)
{
        struct child *c = arg;
        const struct process_spec *spec = c->spec;

        if (enter_cgroups(spec) == 0 && (!spec->new_session || sys(SYS_setsid, 0, 0, 0, 0) >= 0) &&
            move_fds(c) == 0 && change_ids(spec) == 0 && reset_signals() == 0)
                (void)sys(SYS_execve, (long)spec->path, (long)spec->argv, (long)c->envp,
                          0); /* returns on error */
        c->error = errno;
        (void)sys(SYS_exit_group, 127, 0, 0, 0); /* does not return */
        return 127;
}

static int compare_fds(const void *a, const void *b)
{
        const struct process_fd *x = a, *y = b;

        return (x->to > y->to) - (x->to < y->to);
}

static bool is_named(const struct process_spec *spec, int to)
{
        for (size_t i = 0; i < spec->fd_count; i++)
                if (spec->fds[i].to == to)
                        return true;
        return false;
}

/* The child's descriptors in order, complete, with `null` for those that are to be /dev/null. */
static int make_fds(const struct process_spec *spec, int null, struct process_fd **ret,
                    size_t *ret_count)
{
        struct process_fd *fds = calloc(spec->fd_count + 3, sizeof(*fds));
        size_t count = 0;

        if (!fds)
                return -ENOMEM;
        for (size_t i = 0; i < spec->fd_count; i++) {
                assert(spec->fds[i].to >= 0);
                fds[count++] = (struct process_fd){
                        .from = spec->fds[i].from < 0 ? null : spec->fds[i].from,
                        .to = spec->fds[i].to,
                };
        }
        for (int to = 0; to <= 2; to++)
                if (!is_named(spec, to))
                        fds[count++] = (struct process_fd){.from = null, .to = to};
        qsort(fds, count, sizeof(*fds), compare_fds);
        *ret = fds;
        *ret_count = count;
        return 0;
}

/* Clone with all signals blocked, those that libc keeps to itself included. */
static pid_t clone_blocked(struct shared *s, int *ret_pidfd)
{
        int flags = CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
        const uint64_t all = UINT64_MAX;
        uint64_t before;
        pid_t pid;

        if (s->child.spec->uid == (uid_t)-1)
                flags |= SHARE_MEMORY;
        if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, SIGSET_SIZE) < 0)
                return -errno;
        pid = clone(child_main, (char *)s + STACK_SIZE, flags, &s->child, ret_pidfd);
        if (pid < 0)
                pid = -errno;
        (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, SIGSET_SIZE); /* as it was */
        return pid;
}

static int start(struct shared *s, pid_t *ret_pid, int *ret_pidfd)
{
        _cleanup_(closep) int pidfd = -1;
        pid_t pid = clone_blocked(s, &pidfd);
        int status;

        if (pid < 0)
                return pid;
        if (s->child.error != 0) {
                /* it is ending; its status says nothing more */
                (void)process_reap(pidfd, UINT64_MAX, &status);
                return -s->child.error;
        }
        *ret_pid = pid;
        *ret_pidfd = STEAL_FD(pidfd);
        return 0;
}

int process_spawn(const struct process_spec *spec, pid_t *ret_pid, int *ret_pidfd)
{
        static const char *const no_environment[] = {NULL};
        _cleanup_(closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        _cleanup_(freep) struct process_fd *fds = NULL;
        struct shared *s;
        size_t count;
        int r;

        if (null < 0)
                return -errno;
        r = make_fds(spec, null, &fds, &count);
        if (r < 0)
                return r;
        s = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED)
                return -errno;
        s->child = (struct child){
                .spec = spec,
                .envp = spec->envp ? spec->envp : no_environment,
                .fds = fds,
                .fd_count = count,
        };
        r = start(s, ret_pid, ret_pidfd);
        (void)munmap(s, STACK_SIZE); /* ours, whole */
        return r;
}
