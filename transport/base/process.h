/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: start a child with chosen descriptors, and look at others through /proc. What /proc
 * says of a process that may have ended in between is only used together with its start time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process_fd {
        int from; /* ours, borrowed; -1: /dev/null */
        int to; /* the number that the child gets */
};

struct process_spec {
        const char *path; /* absolute; executed as it is, no search */
        const char *const *argv; /* NULL-terminated */
        const char *const *envp; /* NULL-terminated; NULL: empty environment */
        const struct process_fd *fds; /* each `to` once */
        size_t fd_count; /* 0, 1 and 2 are /dev/null unless named; all others are closed */
        uid_t uid; /* (uid_t)-1: unchanged; else uid, gid and no further groups, before exec */
        gid_t gid;
        int cgroup_procs[2]; /* descriptors of cgroup.procs files to enter first; -1: none */
        bool new_session;
};

/**
 * Start a child. All signals are at their default and unblocked in it.
 *
 * Errors: -errno of what failed in the child, exec included; then no child is left.
 * Owner:  *ret_pidfd to close, and the child to reap with process_reap.
 */
int process_spawn(const struct process_spec *spec, pid_t *ret_pid, int *ret_pidfd);

/* Wait for a child of ours until `deadline_ns`; its wait status in *ret. -ETIMEDOUT; -ECHILD. */
int process_reap(int pidfd, uint64_t deadline_ns, int *ret_status);

/* Clock ticks since boot at which the process started; identifies it with its pid. -ESRCH. */
int process_start_time(pid_t pid, uint64_t *ret_ticks);

/*
 * A pidfd for (pid, start time), -ESRCH when that process has ended or the pid belongs to another.
 */
int process_open(pid_t pid, uint64_t start_ticks, int *ret_pidfd);

/*
 * The thread group of a thread, and the start time of the group's leader. -ESRCH also when it can't
 * be seen.
 */
int process_thread_group(pid_t tid, pid_t *ret_tgid, uint64_t *ret_start_ticks);

/**
 * Whether thread `tid` has a signal pending that will end it: SIGKILL; HUP INT QUIT TERM, caught or
 * not; any other whose default action ends a process and that is not caught. Blocked and ignored
 * signals don't count. 1 yes, 0 no, -ESRCH when it can't be seen.
 */
int process_is_dying(pid_t tid);

/* The boot's id (/proc/sys/kernel/random/boot_id) as text of 36 bytes and NUL. */
int process_boot_id(char ret[37]);
