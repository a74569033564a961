/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other processes, seen through pidfds and /proc. Starting children has a file of its own: spawn.c.
 */

#include "transport/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

static int pidfd_open(pid_t pid)
{
        long fd = syscall(SYS_pidfd_open, pid, 0); /* CLOEXEC by itself */

        return fd < 0 ? -errno : (int)fd;
}

static int wait_status(const siginfo_t *info)
{
        if (info->si_code == CLD_EXITED)
                return (info->si_status & 0xff) << 8;
        return info->si_status | (info->si_code == CLD_DUMPED ? 0x80 : 0);
}

int process_reap(int pidfd, uint64_t deadline_ns, int *ret_status)
{
        for (;;) {
                struct pollfd ready = {.fd = pidfd, .events = POLLIN};
                siginfo_t info = {0};
                int timeout_ms;

                if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0) {
                        if (errno != EINTR)
                                return -errno;
                        continue;
                }
                if (info.si_pid != 0) {
                        *ret_status = wait_status(&info);
                        return 0;
                }
                timeout_ms = clock_poll_ms(deadline_ns);
                if (timeout_ms == 0)
                        return -ETIMEDOUT;
                if (poll(&ready, 1, timeout_ms) < 0 && errno != EINTR)
                        return -errno;
        }
}

/* A file of /proc/PID as text; -ESRCH when it can't be seen. */
static int read_proc(pid_t pid, const char *file, char *to, size_t to_size)
{
        _cleanup_(closep) int fd = -1;
        char path[64];
        ssize_t n;

        if (pid <= 0)
                return -ESRCH;
        (void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, file); /* fits */
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT || errno == EACCES || errno == EPERM ? -ESRCH : -errno;
        n = file_pread_full(fd, to, to_size - 1, 0);
        if (n < 0)
                return (int)n;
        to[n] = '\0';
        return 0;
}

int process_start_time(pid_t pid, uint64_t *ret_ticks)
{
        char text[2048];
        const char *at;
        int r = read_proc(pid, "stat", text, sizeof(text));

        if (r < 0)
                return r;
        at = strrchr(text, ')'); /* the name before it may hold anything */
        for (unsigned field = 2; at && field < 22; field++)
                at = strchr(at + 1, ' ');
        if (!at)
                return -ESRCH;
        *ret_ticks = strtoull(at, NULL, 10);
        return 0;
}

int process_open(pid_t pid, uint64_t start_ticks, int *ret_pidfd)
{
        _cleanup_(closep) int fd = pid > 0 ? pidfd_open(pid) : -ESRCH;
        struct pollfd ended = {.fd = fd, .events = POLLIN};
        uint64_t ticks;
        int r;

        if (fd < 0)
                return fd == -EINVAL || fd == -ENOENT ? -ESRCH : fd; /* a thread, but no process */
        r = process_start_time(pid, &ticks);
        if (r < 0)
                return r;
        do
                r = poll(&ended, 1, 0);
        while (r < 0 && errno == EINTR);
        if (r < 0)
                return -errno;
        if (r > 0 ||
            ticks != start_ticks) /* still running: the pid was not given to another in between */
                return -ESRCH;
        *ret_pidfd = STEAL_FD(fd);
        return 0;
}

/* The value behind "Name:" in the text of a status file. */
static int status_field(const char *text, const char *name, int base, uint64_t *ret)
{
        size_t size = strlen(name);

        for (const char *line = text; line; line = strchr(line, '\n')) {
                line += *line == '\n';
                if (strncmp(line, name, size) == 0 && line[size] == ':') {
                        *ret = strtoull(line + size + 1, NULL, base);
                        return 0;
                }
        }
        return -ESRCH;
}

static int read_thread_group(pid_t tid, pid_t *ret)
{
        _cleanup_(closep) int leader = -1;
        char text[4096] = "";
        uint64_t tgid = 0;
        int r;

        if (tid <= 0)
                return -ESRCH;
        leader = pidfd_open(tid);
        if (leader >= 0 ||
            leader == -ESRCH) { /* only leaders have one; a tenth of the cost of /proc */
                *ret = tid;
                return leader < 0 ? leader : 0;
        }
        r = read_proc(tid, "status", text, sizeof(text));
        if (r == 0)
                r = status_field(text, "Tgid", 10, &tgid);
        if (r < 0)
                return r;
        *ret = (pid_t)tgid;
        return 0;
}

int process_thread_group(pid_t tid, pid_t *ret_tgid, uint64_t *ret_start_ticks)
{
        uint64_t ticks;
        pid_t tgid, again;
        int r = read_thread_group(tid, &tgid);

        if (r == 0)
                r = process_start_time(tgid, &ticks);
        if (r == 0 && tgid != tid) {
                r = read_thread_group(tid, &again);
                if (r == 0 && again != tgid)
                        r = -ESRCH; /* the thread's number was given to another in between */
        }
        if (r < 0)
                return r;
        *ret_tgid = tgid;
        *ret_start_ticks = ticks;
        return 0;
}

static uint64_t bit(int signal)
{
        return UINT64_C(1) << (signal - 1);
}

int process_is_dying(pid_t tid)
{
        const uint64_t harmless = bit(SIGCHLD) | bit(SIGCONT) | bit(SIGURG) | bit(SIGWINCH) |
                                  bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU);
        const uint64_t asked = bit(SIGHUP) | bit(SIGINT) | bit(SIGQUIT) | bit(SIGTERM);
        uint64_t own, shared, blocked, ignored, caught, pending;
        char text[4096] = "";
        int r = read_proc(tid, "status", text, sizeof(text));

        if (r < 0)
                return r;
        if (status_field(text, "SigPnd", 16, &own) < 0 ||
            status_field(text, "ShdPnd", 16, &shared) < 0 ||
            status_field(text, "SigBlk", 16, &blocked) < 0 ||
            status_field(text, "SigIgn", 16, &ignored) < 0 ||
            status_field(text, "SigCgt", 16, &caught) < 0)
                return -ESRCH;
        pending = (own | shared) & ~blocked & ~ignored;
        return (pending & (bit(SIGKILL) | asked)) || (pending & ~caught & ~harmless);
}

int process_boot_id(char ret[37])
{
        _cleanup_(closep) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
        char id[36];
        ssize_t n;

        if (fd < 0)
                return -errno;
        n = file_pread_full(fd, id, sizeof(id), 0);
        if (n < 0)
                return (int)n;
        if (n != sizeof(id))
                return -EIO;
        memcpy(ret, id, sizeof(id));
        ret[36] = '\0';
        return 0;
}
