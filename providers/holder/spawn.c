/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of a command: a session and a process group of its own, all signals as they are by
 * default, nothing open but its three streams. posix_spawn can't change the user; where that is
 * wanted, we fork.
 */

#include "providers/holder/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "providers/holder/users.h"
#include "transport/base/cleanup.h"

/* 0 or a positive errno, as posix_spawn gives it. */
static int add_actions(posix_spawn_file_actions_t *actions, const struct start *s)
{
        int r = posix_spawn_file_actions_addfchdir_np(actions, s->cwd);

        if (r == 0 && s->child[0] >= 0)
                r = posix_spawn_file_actions_adddup2(actions, s->child[0], 0);
        else if (r == 0)
                r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
        for (int i = 1; r == 0 && i < 3; i++)
                r = posix_spawn_file_actions_adddup2(actions, s->child[i], i);
        return r;
}

static int spawn_plain(const struct start *s, pid_t *ret)
{
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attr;
        sigset_t all, none;
        int r;

        (void)sigfillset(&all);
        (void)sigemptyset(&none);
        r = posix_spawn_file_actions_init(&actions);
        if (r != 0)
                return -r;
        r = posix_spawnattr_init(&attr);
        if (r != 0) {
                (void)posix_spawn_file_actions_destroy(&actions);
                return -r;
        }
        r = add_actions(&actions, s);
        if (r == 0)
                r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF |
                                                            POSIX_SPAWN_SETSIGMASK);
        if (r == 0)
                r = posix_spawnattr_setsigdefault(&attr, &all);
        if (r == 0)
                r = posix_spawnattr_setsigmask(&attr, &none);
        if (r == 0)
                r = posix_spawn(ret, s->program, &actions, &attr, s->argv, s->envp);
        (void)posix_spawnattr_destroy(&attr);
        (void)posix_spawn_file_actions_destroy(&actions);
        return -r;
}

/* ---- as another user ---- */

static int become(const struct user *u)
{
        if (setgroups(u->group_count, u->groups) < 0 || setgid(u->gid) < 0 || setuid(u->uid) < 0)
                return -errno;
        return 0;
}

static void default_signals(void)
{
        sigset_t none;

        for (int i = 1; i <= SIGRTMAX; i++)
                (void)signal(i, SIG_DFL); /* KILL, STOP and libc's own refuse */
        (void)sigemptyset(&none);
        (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

static int connect_streams(const struct start *s)
{
        int in = s->child[0] >= 0 ? s->child[0] : open("/dev/null", O_RDONLY | O_CLOEXEC);

        if (in < 0 || dup2(in, 0) < 0 || dup2(s->child[1], 1) < 0 || dup2(s->child[2], 2) < 0)
                return -errno;
        return 0;
}

/* In the child; returns why not. */
static int run_as(const struct start *s)
{
        int r;

        if (setsid() < 0 || fchdir(s->cwd) < 0)
                return -errno;
        r = connect_streams(s);
        if (r == 0)
                r = become(s->user);
        if (r < 0)
                return r;
        default_signals();
        (void)execve(s->program, s->argv, s->envp);
        return -errno;
}

static int spawn_as(const struct start *s, pid_t *ret)
{
        int ends[2], r = 0;
        pid_t pid;
        ssize_t n;

        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;
        pid = fork();
        if (pid == 0) {
                r = run_as(s);
                (void)!write(ends[1], &r, sizeof(r)); /* into an empty pipe */
                _exit(127);
        }
        r = pid < 0 ? -errno : 0;
        closep(&ends[1]);
        if (r == 0) {
                do
                        n = read(ends[0], &r, sizeof(r));
                while (n < 0 && errno == EINTR);
                if (n != (ssize_t)sizeof(r))
                        r = 0; /* it was closed by the exec */
        }
        closep(&ends[0]);
        if (pid > 0 && r < 0)
                (void)waitpid(pid, NULL, 0); /* it ends at once */
        if (r == 0)
                *ret = pid;
        return r;
}

/* ---- either ---- */

static void set_oom(const struct holder *h, const char *value)
{
        if (h->oom_fd >= 0)
                (void)!pwrite(h->oom_fd, value, strlen(value), 0); /* a preference only */
}

int spawn(const struct holder *h, const struct start *s, pid_t *ret)
{
        int r;

        /* When memory runs out, this command shall end, not we and with us the sandbox. */
        set_oom(h, "300");
        r = s->user ? spawn_as(s, ret) : spawn_plain(s, ret);
        set_oom(h, "0");
        return r;
}
