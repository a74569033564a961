/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children are this program itself, with a word that says what to do; what they find of themselves
 * they print.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"
#include "transport/base/process.h"

static char self[4096]; /* our executable */

/* ---- the children ---- */

static void print_fds(void)
{
        for (int fd = 0; fd < 1024; fd++) {
                struct stat st;
                char path[64], target[256];
                ssize_t n;

                if (fstat(fd, &st) < 0)
                        continue;
                (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                n = readlink(path, target, sizeof(target) - 1);
                target[n < 0 ? 0 : n] = '\0';
                (void)printf("%d%s%s\n", fd, fcntl(fd, F_GETFD) & FD_CLOEXEC ? "!" : " ",
                             S_ISFIFO(st.st_mode) ? "pipe" : target);
        }
}

static void print_ids(void)
{
        uid_t r, e, s;
        gid_t rg, eg, sg;

        (void)!getresuid(&r, &e, &s);
        (void)!getresgid(&rg, &eg, &sg);
        (void)printf("%u %u %u %u %u %u %d\n", r, e, s, rg, eg, sg, getgroups(0, NULL));
}

static void ignore_it(int signal)
{
        (void)signal;
}

/* Catches TERM and ALRM, ignores USR2, blocks HUP; says so and waits to be ended. */
static void wait_with_signals(void)
{
        sigset_t set;

        (void)signal(SIGTERM, ignore_it);
        (void)signal(SIGALRM, ignore_it);
        (void)signal(SIGUSR2, SIG_IGN);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGHUP);
        (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
        (void)printf("ready\n");
        (void)fflush(stdout);
        for (;;)
                (void)pause();
}

static int child(char **argv, char **envp)
{
        if (strcmp(argv[1], "fds") == 0)
                print_fds();
        else if (strcmp(argv[1], "ids") == 0)
                print_ids();
        else if (strcmp(argv[1], "wait") == 0)
                wait_with_signals();
        else if (strcmp(argv[1], "session") == 0)
                (void)printf("%d\n", getsid(0) == getpid() && getpgrp() == getpid());
        else if (strcmp(argv[1], "environment") == 0)
                for (; *envp; envp++)
                        (void)puts(*envp);
        else if (strcmp(argv[1], "exit") == 0)
                return (int)strtol(argv[2], NULL, 10);
        return 0;
}

/* ---- the tests ---- */

#define SPEC(words)                                                                                \
        {                                                                                          \
                .path = self, .argv = (words), .uid = (uid_t)-1, .gid = (gid_t)-1,                 \
                .cgroup_procs = {                                                                  \
                        -1,                                                                        \
                        -1                                                                         \
                }                                                                                  \
        }

/* Start with standard output on a pipe, read all of it, and reap. */
static int run(const struct process_spec *given, char *to, size_t to_size)
{
        struct process_spec spec = *given;
        struct process_fd fds[8];
        size_t have = 0;
        int ends[2], pidfd, status = -1, r;
        ssize_t n;
        pid_t pid;

        CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
        memset(to, 0, to_size);
        for (size_t i = 0; i < spec.fd_count; i++)
                fds[i] = spec.fds[i];
        fds[spec.fd_count] = (struct process_fd){.from = ends[1], .to = 1};
        spec.fds = fds;
        spec.fd_count++;
        r = process_spawn(&spec, &pid, &pidfd);
        (void)close(ends[1]);
        if (r == 0) {
                while (have < to_size - 1 && (n = read(ends[0], to + have, to_size - 1 - have)) > 0)
                        have += (size_t)n;
                CHECK_EQ(process_reap(pidfd, clock_after(30 * NS_PER_S), &status), 0);
                CHECK_EQ(process_reap(pidfd, NEVER_NS, &r), -ECHILD);
                (void)close(pidfd);
                r = status;
        }
        (void)close(ends[0]);
        return r;
}

static unsigned count_fds(void)
{
        unsigned n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static void end_is_told_as_it_was(void)
{
        static const char *const seven[] = {"x", "exit", "7", NULL};
        static const char *const waiting[] = {"x", "wait", NULL};
        struct process_spec spec = SPEC(seven);
        char out[100];
        pid_t pid;
        int pidfd, status = 0;

        CHECK_EQ(run(&spec, out, sizeof(out)), 7 << 8);
        spec = (struct process_spec)SPEC(waiting);
        CHECK_EQ(process_spawn(&spec, &pid, &pidfd), 0);
        CHECK_EQ(process_reap(pidfd, 0, &status), -ETIMEDOUT);
        CHECK_EQ(process_reap(pidfd, clock_after(20 * NS_PER_MS), &status), -ETIMEDOUT);
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK_EQ(process_reap(pidfd, NEVER_NS, &status), 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        (void)close(pidfd);
        CHECK_EQ(process_reap(pidfd, NEVER_NS, &status), -EBADF);
}

static void only_named_descriptors_are_there(void)
{
        static const char *const words[] = {"x", "fds", NULL};
        struct process_spec spec = SPEC(words);
        int many[50], a = open("/etc/hostname", O_RDONLY), b = open("/etc/passwd", O_RDONLY);
        const struct process_fd fds[] = {{b, a}, {a, b}, {-1, 30}, {a, 0}, {a, 200}};
        char out[10000], expected[1000];

        for (int i = 0; i < 50; i++)
                many[i] = open("/", O_RDONLY); /* not CLOEXEC */
        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        CHECK_STR(out, "0 /dev/null\n1 pipe\n2 /dev/null\n");

        if (!CHECK(a > 2 && b == a + 1 && b < 30))
                return;
        spec = (struct process_spec)SPEC(words);
        spec.fds = fds;
        spec.fd_count = 5;
        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        (void)snprintf(expected, sizeof(expected),
                       "0 /etc/hostname\n1 pipe\n2 /dev/null\n%d /etc/passwd\n%d /etc/hostname\n"
                       "30 /dev/null\n200 /etc/hostname\n",
                       a, b);
        CHECK_STR(out, expected);
        for (int i = 0; i < 50; i++)
                (void)close(many[i]);
        (void)close(a);
        (void)close(b);
}

static void environment_is_what_was_given(void)
{
        static const char *const words[] = {"x", "environment", NULL};
        static const char *const environment[] = {"A=1", "B=two words", NULL};
        struct process_spec spec = SPEC(words);
        char out[1000];

        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        CHECK_STR(out, "");
        spec = (struct process_spec)SPEC(words);
        spec.envp = environment;
        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        CHECK_STR(out, "A=1\nB=two words\n");
}

static void failures_leave_nothing(void)
{
        static const char *const words[] = {"x", NULL};
        struct process_spec spec = SPEC(words);
        const struct process_fd closed = {.from = 900, .to = 3};
        unsigned before = count_fds();
        pid_t pid = 77;
        int pidfd = 77;

        spec.path = "/nowhere/at/all";
        CHECK_EQ(process_spawn(&spec, &pid, &pidfd), -ENOENT);
        spec.path = "/etc/passwd";
        CHECK_EQ(process_spawn(&spec, &pid, &pidfd), -EACCES);
        spec.path = self;
        spec.fds = &closed;
        spec.fd_count = 1;
        CHECK_EQ(process_spawn(&spec, &pid, &pidfd), -EBADF);
        spec.fd_count = 0;
        spec.cgroup_procs[1] = 900;
        CHECK_EQ(process_spawn(&spec, &pid, &pidfd), -EBADF);
        CHECK(pid == 77 && pidfd == 77);
        CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
        CHECK_EQ(count_fds(), before);
}

static void ids_are_changed_for_good(void)
{
        static const char *const words[] = {"x", "ids", NULL};
        struct process_spec spec = SPEC(words);
        int before = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
        char out[1000], expected[100];
        struct stat st;

        spec.uid = 64321;
        spec.gid = 64322;
        if (geteuid() != 0) {
                CHECK_EQ(run(&spec, out, sizeof(out)), -EPERM);
                return;
        }
        if (stat(self, &st) < 0 || !(st.st_mode & 1) || run(&spec, out, sizeof(out)) == -EACCES) {
                (void)fprintf(stderr, "%s: skipped: other users can't execute %s\n", check_name,
                              self);
                return;
        }
        (void)snprintf(expected, sizeof(expected), "64321 64321 64321 64322 64322 64322 0\n");
        CHECK_STR(out, expected);
        CHECK_EQ(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), before);
        CHECK_EQ(getuid(), 0);
}

static void cgroups_are_entered_by_the_child(void)
{
        static const char *const words[] = {"x", "exit", "0", NULL};
        struct process_spec spec = SPEC(words);
        int file = memfd_create("cgroup.procs", MFD_CLOEXEC);
        char out[100], text[10] = "";

        spec.cgroup_procs[0] = file;
        spec.cgroup_procs[1] = file;
        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        CHECK_EQ(pread(file, text, sizeof(text) - 1, 0), 2);
        CHECK_STR(text, "00"); /* "0" is the writer itself, once for each descriptor */
        (void)close(file);
}

static void session_is_new_when_asked(void)
{
        static const char *const words[] = {"x", "session", NULL};
        struct process_spec spec = SPEC(words);
        char out[100];

        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        CHECK_STR(out, "0\n");
        spec = (struct process_spec)SPEC(words);
        spec.new_session = true;
        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        CHECK_STR(out, "1\n");
}

static void signals_are_as_new(void)
{
        /* cat, since a sanitizer's runtime in our own child would catch some of them */
        static const char *const words[] = {"cat", "/proc/self/status", NULL};
        struct process_spec spec = SPEC(words);
        sigset_t set, before, after;
        char out[4096];

        spec.path = "/bin/cat";
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGUSR1, ignore_it);
        (void)signal(SIGRTMIN + 3, SIG_IGN);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGRTMAX);
        CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
        memset(&before, 0, sizeof(before)); /* libc fills in what the kernel has */
        memset(&after, 0, sizeof(after));
        CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &before), 0);
        CHECK_EQ(run(&spec, out, sizeof(out)), 0);
        CHECK(strstr(out, "\nSigBlk:\t0000000000000000\n"));
        CHECK(strstr(out, "\nSigIgn:\t0000000000000000\n"));
        CHECK(strstr(out, "\nSigCgt:\t0000000000000000\n"));
        CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &after), 0);
        CHECK(memcmp(&before, &after, sizeof(set)) == 0);
        CHECK(signal(SIGUSR1, SIG_DFL) == ignore_it); /* ours are untouched */
        CHECK(signal(SIGPIPE, SIG_DFL) == SIG_IGN);
        CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
}

static void *spawn_often(void *arg)
{
        static const char *const words[] = {"x", "exit", "3", NULL};

        (void)arg;
        for (int i = 0; i < 25; i++) {
                struct process_spec spec = SPEC(words);
                char out[10];

                if (i % 5 == 4)
                        spec.path = "/nowhere";
                CHECK_EQ(run(&spec, out, sizeof(out)), i % 5 == 4 ? -ENOENT : 3 << 8);
        }
        return NULL;
}

static void threads_start_children_at_once(void)
{
        unsigned before = count_fds();
        pthread_t threads[4];

        for (int i = 0; i < 4; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, spawn_often, NULL), 0);
        for (int i = 0; i < 4; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(count_fds(), before);
}

/* A child in wait_with_signals. */
static void start_waiting(pid_t *ret_pid, int *ret_pidfd)
{
        static const char *const words[] = {"x", "wait", NULL};
        struct process_spec spec = SPEC(words);
        struct process_fd out = {.to = 1};
        int ends[2];
        char text[6];

        CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
        out.from = ends[1];
        spec.fds = &out;
        spec.fd_count = 1;
        if (!CHECK_EQ(process_spawn(&spec, ret_pid, ret_pidfd), 0))
                abort();
        (void)close(ends[1]);
        CHECK_EQ(read(ends[0], text, sizeof(text)), 6);
        (void)close(ends[0]);
}

static void a_process_is_its_pid_and_start_time(void)
{
        uint64_t ticks = 0, mine = 0;
        int pidfd, again = -1, status;
        pid_t pid;

        start_waiting(&pid, &pidfd);
        CHECK_EQ(process_start_time(getpid(), &mine), 0);
        CHECK_EQ(process_start_time(pid, &ticks), 0);
        CHECK(mine > 0 && ticks >= mine);
        CHECK_EQ(process_open(pid, ticks, &again), 0);
        CHECK(fcntl(again, F_GETFD) & FD_CLOEXEC);
        (void)close(again);
        again = 77;
        CHECK_EQ(process_open(pid, ticks + 1, &again), -ESRCH);
        CHECK_EQ(kill(pid, SIGKILL), 0);
        while (process_open(pid, ticks, &again) == 0)
                (void)close(again);
        again = 77;
        CHECK_EQ(process_start_time(pid, &mine), 0); /* a zombie still has one */
        CHECK_EQ(process_open(pid, ticks, &again), -ESRCH); /* but has ended */
        CHECK_EQ(process_reap(pidfd, NEVER_NS, &status), 0);
        CHECK_EQ(process_start_time(pid, &ticks), -ESRCH);
        CHECK_EQ(process_open(pid, ticks, &again), -ESRCH);
        CHECK_EQ(again, 77);
        CHECK_EQ(process_start_time(0, &ticks), -ESRCH);
        CHECK_EQ(process_start_time(-1, &ticks), -ESRCH);
        CHECK_EQ(process_open(0, ticks, &again), -ESRCH);
        (void)close(pidfd);
}

static void a_name_can_not_forge_the_start_time(void)
{
        uint64_t before = 0, after = 1;

        CHECK_EQ(process_start_time(getpid(), &before), 0);
        CHECK_EQ(prctl(PR_SET_NAME, "x) R 1 2 3 4 5", 0, 0, 0), 0);
        CHECK_EQ(process_start_time(getpid(), &after), 0);
        CHECK_EQ(after, before);
}

static void *find_group(void *arg)
{
        uint64_t mine = 0, ticks = 1;
        pid_t tgid = -1;

        (void)arg;
        CHECK(gettid() != getpid());
        CHECK_EQ(process_thread_group(gettid(), &tgid, &ticks), 0);
        CHECK_EQ(process_start_time(getpid(), &mine), 0);
        CHECK_EQ(tgid, getpid());
        CHECK_EQ(ticks, mine);
        CHECK_EQ(process_open(gettid(), mine, &(int){0}), -ESRCH); /* a thread is no process */
        return NULL;
}

static void a_thread_knows_its_group(void)
{
        pthread_t thread;
        uint64_t ticks;
        pid_t tgid = -1;

        CHECK_EQ(process_thread_group(getpid(), &tgid, &ticks), 0);
        CHECK_EQ(tgid, getpid());
        CHECK_EQ(pthread_create(&thread, NULL, find_group, NULL), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(process_thread_group(0, &tgid, &ticks), -ESRCH);
        CHECK_EQ(process_thread_group(4194304, &tgid, &ticks), -ESRCH); /* above the largest pid */
}

/* Send a signal while the child is stopped, so that it stays pending; then ask. */
static int is_dying_with(int signal)
{
        int pidfd, status, r;
        siginfo_t info;
        pid_t pid;

        start_waiting(&pid, &pidfd);
        CHECK_EQ(process_is_dying(pid), 0);
        CHECK_EQ(kill(pid, SIGSTOP), 0);
        CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WSTOPPED), 0);
        CHECK_EQ(kill(pid, signal), 0);
        r = process_is_dying(pid);
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK_EQ(process_reap(pidfd, NEVER_NS, &status), 0);
        (void)close(pidfd);
        return r;
}

static void dying_is_told_by_pending_signals(void)
{
        CHECK_EQ(is_dying_with(SIGTERM), 1); /* caught */
        CHECK_EQ(is_dying_with(SIGINT), 1);
        CHECK_EQ(is_dying_with(SIGQUIT), 1);
        CHECK_EQ(is_dying_with(SIGUSR1), 1); /* default */
        CHECK_EQ(is_dying_with(SIGXCPU), 1);
        CHECK_EQ(is_dying_with(SIGRTMIN), 1);
        CHECK_EQ(is_dying_with(SIGALRM), 0); /* caught */
        CHECK_EQ(is_dying_with(SIGUSR2), 0); /* ignored */
        CHECK_EQ(is_dying_with(SIGHUP), 0); /* blocked */
        CHECK_EQ(is_dying_with(SIGCHLD), 0);
        CHECK_EQ(is_dying_with(SIGWINCH), 0);
        CHECK_EQ(is_dying_with(SIGTSTP), 0);
        CHECK_EQ(process_is_dying(4194304), -ESRCH);
        CHECK_EQ(process_is_dying(0), -ESRCH);
}

static void boot_has_an_id(void)
{
        char id[37] = "", again[37] = "x";

        CHECK_EQ(process_boot_id(id), 0);
        CHECK_EQ(process_boot_id(again), 0);
        CHECK_EQ(strlen(id), 36);
        CHECK_EQ(strspn(id, "0123456789abcdef-"), 36);
        CHECK_STR(again, id);
}

int main(int argc, char **argv, char **envp)
{
        ssize_t n;

        if (argc > 1)
                return child(argv, envp);
        n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (n < 0)
                return 1;
        self[n] = '\0';
        RUN(end_is_told_as_it_was);
        RUN(only_named_descriptors_are_there);
        RUN(environment_is_what_was_given);
        RUN(failures_leave_nothing);
        RUN(ids_are_changed_for_good);
        RUN(cgroups_are_entered_by_the_child);
        RUN(session_is_new_when_asked);
        RUN(signals_are_as_new);
        RUN(threads_start_children_at_once);
        RUN(a_process_is_its_pid_and_start_time);
        RUN(a_name_can_not_forge_the_start_time);
        RUN(a_thread_knows_its_group);
        RUN(dying_is_told_by_pending_signals);
        RUN(boot_has_an_id);
        return check_result();
}
