/* SPDX-License-Identifier: Apache-2.0 */
/* Our own agent, reached past the stream that it was started with. */

#include "providers/agent/direct.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "providers/agent/agent.h"
#include "tests/unit/check.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/socket.h"

#define SKIPPED 77
#define SIZE ((size_t)9 << 20)

static const char *program; /* the agent */
static char dir[] = "/tmp/sbxfs-direct-XXXXXX";

static struct call *new_call(struct call *c)
{
        call_init(c, clock_after(100 * NS_PER_S));
        return c;
}

static pid_t spawn(int fd)
{
        pid_t pid = fork();

        if (pid == 0) {
                (void)dup2(fd, 0);
                (void)dup2(fd, 1);
                (void)execl(program, program, "files", dir, (char *)NULL);
                _exit(127);
        }
        return pid;
}

static struct agent *start(pid_t *ret_pid)
{
        struct stream *s = NULL;
        struct agent *a = NULL;
        struct call c;
        int pair[2];

        if (!CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0))
                _exit(1); /* there is nothing to test */
        *ret_pid = spawn(pair[1]);
        CHECK(*ret_pid > 0);
        closep(&pair[1]);
        CHECK_EQ(agent_new(&a), 0);
        CHECK_EQ(socket_stream_new(pair[0], agent_events(a), &s), 0);
        CHECK_EQ(agent_start(a, new_call(&c), s), 0);
        return a;
}

static bool serves(struct agent *a)
{
        struct stat st;
        struct call c;

        return agent_stat(a, new_call(&c), "", &st) == 0 && S_ISDIR(st.st_mode);
}

static bool reads(struct agent *a)
{
        static char data[SIZE];
        struct stat st;
        struct call c;
        uint32_t handle;
        bool is_right;

        if (agent_open(a, new_call(&c), "large", &handle, &st) != 0)
                return false;
        memset(data, 1, sizeof(data));
        is_right = agent_read(a, new_call(&c), handle, data, SIZE, 0, &st) == (ssize_t)SIZE;
        for (size_t i = 0; is_right && i < SIZE; i++)
                is_right = data[i] == (char)(i >> 12);
        agent_close(a, handle);
        return is_right;
}

static bool reads_itself(struct agent *a)
{
        char data[2] = "";
        struct agent_taken *t = NULL;
        struct stat st;
        struct call c;
        bool is_right = agent_take(a, new_call(&c), "large", &t, &st) == 0 &&
                        st.st_size == (off_t)SIZE &&
                        agent_taken_read(t, data, 2, SIZE - 1, &st) == 1 &&
                        data[0] == (char)((SIZE - 1) >> 12) && st.st_size == (off_t)SIZE;

        if (t)
                agent_taken_close(t);
        return is_right;
}

struct pattern {
        struct file_source source; /* first */
        uint64_t good; /* from here on reads fail */
};

static int read_pattern(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        const struct pattern *p = (const struct pattern *)(const void *)from; /* its head */

        if (offset + size > p->good)
                return -EIO;
        for (size_t i = 0; i < size; i++)
                ((char *)data)[i] = (char)((offset + i) >> 12);
        return 0;
}

static int stores(struct agent *a, const char *path, uint64_t good, unsigned flags)
{
        struct pattern p = {{.read = read_pattern, .size = SIZE}, good};
        struct change x = {.kind = CHANGE_STORE,
                           .path = path,
                           .mode = 0640,
                           .flags = flags,
                           .what = FILE_SET_MTIME,
                           .mtime = {1600000000, 123456789},
                           .from = &p.source,
                           .error = -EINPROGRESS};
        struct call c;

        CHECK_EQ(agent_apply(a, new_call(&c), &x, 1), 0);
        CHECK_EQ(x.has_st, x.error == 0);
        if (x.error == 0)
                CHECK(x.st.st_size == (off_t)SIZE && x.st.st_mode == (S_IFREG | 0640) &&
                      x.st.st_mtim.tv_nsec == 123456789);
        return x.error;
}

static unsigned count_names(void)
{
        _cleanup_(closedirp) DIR *at = opendir(dir);
        unsigned n = 0;

        while (at && readdir(at))
                n++;
        return n - 2;
}

static bool has_ended(pid_t pid)
{
        for (unsigned i = 0; i < 6000; i++) {
                if (waitpid(pid, NULL, WNOHANG) == pid)
                        return true;
                (void)usleep(10000);
        }
        return false;
}

static void write_large(void)
{
        static char data[SIZE];
        char path[64];
        int fd;

        for (size_t i = 0; i < SIZE; i++)
                data[i] = (char)(i >> 12);
        (void)snprintf(path, sizeof(path), "%s/large", dir);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        CHECK_EQ(file_write_all(fd, data, SIZE), 0);
        closep(&fd);
}

/* ---- tests ---- */

static void it_serves_past_its_stream_and_ends_with_the_last_connection(void)
{
        struct agent *direct = NULL, *a;
        struct call c;
        pid_t pid, other;

        a = start(&pid);
        CHECK_EQ(agent_go_direct(a, new_call(&c), pid, &direct), 0);
        agent_unref(a);
        if (!CHECK(direct))
                return;
        CHECK(serves(direct));
        CHECK(reads(direct));
        CHECK(reads_itself(direct));
        CHECK(!reads_itself(a = start(&other)));
        agent_unref(a);
        agent_unref(direct);
        CHECK(has_ended(pid));
        CHECK(has_ended(other));
}

static void what_is_no_file_is_not_opened(void)
{
        struct agent *direct = NULL, *a;
        struct stat st;
        struct call c;
        pid_t pid;
        struct agent_taken *t = NULL;

        a = start(&pid);
        CHECK_EQ(agent_take(a, new_call(&c), "large", &t, &st), -EOPNOTSUPP);
        CHECK_EQ(agent_go_direct(a, new_call(&c), pid, &direct), 0);
        agent_unref(a);
        if (!CHECK(direct))
                return;
        CHECK_EQ(agent_take(direct, new_call(&c), "none", &t, &st), -ENOENT);
        CHECK_EQ(agent_take(direct, new_call(&c), "", &t, &st), -EINVAL);
        CHECK(!t);
        agent_unref(direct);
        CHECK(has_ended(pid));
}

static void one_that_is_split_lives_on_without_the_other(void)
{
        struct agent *direct = NULL, *one = NULL, *two = NULL, *a;
        struct call c;
        pid_t pid;

        a = start(&pid);
        CHECK_EQ(agent_split(a, new_call(&c), &one), -EOPNOTSUPP);
        CHECK_EQ(agent_go_direct(a, new_call(&c), pid, &direct), 0);
        agent_unref(a);
        if (!CHECK(direct))
                return;
        CHECK_EQ(agent_split(direct, new_call(&c), &one), 0);
        CHECK_EQ(agent_split(direct, new_call(&c), &two), 0);
        CHECK(serves(direct));
        if (one && two) {
                CHECK(reads(one));
                agent_unref(one);
                CHECK(reads(two));
        }
        agent_unref(direct);
        CHECK(has_ended(pid));
        if (two)
                CHECK(reads(two));
        agent_unref(two);
}

static void what_is_large_is_whole_or_not_there(void)
{
        struct agent *both[2] = {0}, *a;
        struct call c;
        pid_t pid;
        unsigned names;

        write_large();
        names = count_names();
        a = start(&pid);
        CHECK_EQ(agent_go_direct(a, new_call(&c), pid, &both[0]), 0);
        agent_unref(a);
        if (!CHECK(both[0]) || !CHECK_EQ(agent_split(both[0], new_call(&c), &both[1]), 0))
                return;
        for (unsigned i = 0; i < 2; i++) {
                CHECK_EQ(stores(both[i], "large", SIZE, 0), 0);
                CHECK(reads(both[i]));
                CHECK_EQ(stores(both[i], "large", SIZE - 1, 0), -EIO);
                CHECK_EQ(stores(both[i], "large", SIZE, CHANGE_EXCLUSIVE), -EEXIST);
                CHECK_EQ(stores(both[i], "no/such", SIZE, 0), -ENOENT);
                CHECK(reads(both[i]));
                CHECK_EQ(count_names(), names);
                agent_unref(both[i]);
        }
        CHECK(has_ended(pid));
}

/* The number is another machine's, or of a process that has ended. */
static void another_process_is_left_alone(void)
{
        struct agent *direct = NULL, *a, *other;
        struct call c;
        pid_t pid, other_pid;

        a = start(&pid);
        other = start(&other_pid);
        CHECK_EQ(agent_go_direct(a, new_call(&c), getpid(), &direct), -EOPNOTSUPP);
        CHECK_EQ(agent_go_direct(a, new_call(&c), 0x7ffffffe, &direct), -EOPNOTSUPP);
        CHECK_EQ(agent_go_direct(a, new_call(&c), other_pid, &direct), -EOPNOTSUPP);
        CHECK(!direct);
        CHECK(serves(other));
        CHECK(serves(a));
        CHECK_EQ(agent_go_direct(a, new_call(&c), pid, &direct), 0);
        agent_unref(direct);
        agent_unref(a);
        agent_unref(other);
        CHECK(has_ended(pid));
        CHECK(has_ended(other_pid));
}

static void one_that_is_killed_is_lost(void)
{
        struct agent *direct = NULL, *a;
        struct agent_taken *t = NULL;
        char byte;
        struct stat st;
        struct call c;
        pid_t pid;

        a = start(&pid);
        CHECK_EQ(agent_go_direct(a, new_call(&c), pid, &direct), 0);
        agent_unref(a);
        if (!CHECK(direct) || !CHECK_EQ(agent_take(direct, new_call(&c), "large", &t, &st), 0))
                return;
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK(has_ended(pid));
        CHECK_EQ(agent_stat(direct, new_call(&c), "", &st), -EHOSTUNREACH);
        CHECK_EQ(agent_taken_read(t, &byte, 1, 0, NULL), -EHOSTUNREACH);
        agent_taken_close(t);
        agent_unref(direct);
}

/* A child of ours may be reached, unless a filter of system calls forbids it to all. */
static bool may_reach(void)
{
        pid_t pid = fork();
        int process, fd;

        if (pid == 0) {
                (void)pause();
                _exit(0);
        }
        process = (int)syscall(SYS_pidfd_open, pid, 0);
        fd = (int)syscall(SYS_pidfd_getfd, process, 2, 0);
        closep(&process);
        closep(&fd);
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return fd >= 0;
}

int main(int argc, char **argv)
{
        if (argc < 2 || !mkdtemp(dir))
                return 2;
        program = argv[1];
        if (!may_reach()) {
                (void)fprintf(stderr, "skipped: this process may not look into its own child\n");
                (void)rmdir(dir);
                return SKIPPED;
        }
        write_large();
        RUN(it_serves_past_its_stream_and_ends_with_the_last_connection);
        RUN(what_is_no_file_is_not_opened);
        RUN(one_that_is_split_lives_on_without_the_other);
        RUN(what_is_large_is_whole_or_not_there);
        RUN(another_process_is_left_alone);
        RUN(one_that_is_killed_is_lost);
        CHECK_EQ(file_remove_tree(AT_FDCWD, dir), 0);
        return check_result();
}
