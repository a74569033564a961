/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program sbxfs-init, put into containers: static, so that it runs in any image, or none.
 *
 *      init hold DIR WORKDIR USER      process 1: makes WORKDIR, if need be, and is the holder
 *                                      (holder.h) for commands of USER ("": root)
 *      init stay DIR WORKDIR USER      the same beside another's process 1, for an adopted container
 *      init serve DIR WORKDIR USER     the same in the background, where nothing tells inside from
 *                                      outside: whoever has our uid is sbxfs; 0 once it listens
 *      init files WORKDIR              serves its files over our input and output (agent/serve.h)
 *      init as USER PROGRAM [ARG]...   runs it as that user, where a service can't
 *      init relay DIR PROGRAM [ARG]... its input comes as files, its output goes as text (relay.h)
 *      init join DIR                   our input and output are a connection to the holder: what a
 *                                      Docker exec starts
 *      init carry MARK                 a program behind a terminal (inside/carry.h)
 *
 * DIR is ours: the socket where the holder listens, which nobody but root can reach, and the output
 * that it keeps.
 *
 * Trust: a command that runs as root could connect to the socket, too, and pass for sbxfs. So the
 *        holder looks at who connects: what a Docker exec starts has its parent outside of the
 *        container, which nothing inside can bring about.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "providers/agent/agent_main.h"
#include "providers/docker/relay.h"
#include "providers/holder/holder.h"
#include "providers/inside/carry.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

#define COPY_SIZE ((size_t)64 << 10)

/* ---- hold ---- */

static int address_of(const char *dir, struct sockaddr_un *ret)
{
        *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
        return (size_t)snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/sock", dir) <
                               sizeof(ret->sun_path)
                       ? 0
                       : -ENAMETOOLONG;
}

static int listen_at(const char *dir)
{
        struct sockaddr_un address;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0 || address_of(dir, &address) < 0)
                return -1;
        (void)unlink(address.sun_path); /* of a former run */
        (void)umask(0177);
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0)
                return -1;
        (void)umask(022);
        return fd;
}

/* The parent of a process that runs; -1 unknown. 0: it is outside of our pid namespace. */
static int parent_of(pid_t pid)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(4096);
        char path[64];
        const char *at;
        char state;
        int parent;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        if (file_read(-1, path, &text) < 0)
                return -1;
        at = strrchr(buf_str(&text), ')'); /* its name may hold anything */
        return at && sscanf(at + 1, " %c %d", &state, &parent) == 2 ? parent : -1;
}

static bool is_from_outside(int fd)
{
        struct ucred peer;
        socklen_t size = sizeof(peer);

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid() &&
               parent_of(peer.pid) == 0;
}

static bool is_empty(const char *path)
{
        _cleanup_(closedirp) DIR *dir = opendir(path);
        const struct dirent *entry;

        while (dir && (entry = readdir(dir))) {
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        return false;
        }
        return dir != NULL;
}

/*
 * The engine makes a missing working directory as root's. An empty one of root is not yet
 * anybody's: it goes to those who are to work in it.
 */
static void make_workdir(const char *path, const char *user)
{
        _cleanup_(closep) int fd = -1;
        struct user who;
        struct stat st;

        (void)file_make_dirs(path, 0755); /* that it is missing, commands will say */
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (user[0] == '\0' || fd < 0 || fstat(fd, &st) < 0 || st.st_uid != 0 || !is_empty(path) ||
            user_find(user, &who) < 0)
                return;
        (void)!fchown(fd, who.uid, who.gid); /* likewise */
}

/* What the runtime has set for us, and was not asked for: each user has a home of its own. */
static bool is_our_home(const char *variable)
{
        struct user root;

        if (strncmp(variable, "HOME=", 5) != 0)
                return false;
        return strcmp(variable + 5, "/") == 0 || strcmp(variable + 5, "/root") == 0 ||
               (user_find("0", &root) == 0 && strcmp(variable + 5, root.home) == 0);
}

static int take_env(struct holder *h)
{
        h->env.max = PROTO_FRAME_MAX;
        for (char **at = environ; *at; at++) {
                int r = is_our_home(*at) ? 0 : proto_strings_add(&h->env, &h->env_count, *at);

                if (r < 0)
                        return r;
        }
        return 0;
}

/*
 * A signal to all reaches what we started, and what that left behind: not what a Docker exec runs
 * beside us, which carries our own words.
 */
static int hold(char **argv)
{
        struct holder h = {.reach = REACH_TREE,
                           .log_dir = argv[2],
                           .user = argv[4][0] ? argv[4] : "0",
                           .may_join = is_from_outside,
                           .ends_by_signal = true};

        make_workdir(argv[3], argv[4]);
        h.listener.fd = listen_at(argv[2]);
        if (h.listener.fd < 0 || take_env(&h) < 0)
                return 1;
        holder_run(&h);
}

static bool is_of_our_uid(int fd)
{
        struct ucred peer;
        socklen_t size = sizeof(peer);

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid();
}

/* Nobody waits for our output: whoever started us may go. */
static bool go_to_background(void)
{
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        pid_t child = null < 0 ? -1 : fork();

        if (child > 0)
                _exit(0);
        if (child < 0 || setsid() < 0)
                return false;
        for (int fd = 0; fd < 3; fd++)
                if (dup2(null, fd) < 0)
                        return false;
        return true;
}

/*
 * One a directory: who was asked to start it twice, by a request that was repeated, has it already.
 * The lock is held until it listens, when holder_run closes what it doesn't know.
 */
static bool is_served(const char *dir)
{
        struct sockaddr_un address;
        char path[sizeof(address.sun_path) + 8];
        int fd;

        if (address_of(dir, &address) < 0)
                return false;
        (void)snprintf(path, sizeof(path), "%s/lock", dir);
        fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0)
                (void)flock(fd, LOCK_EX); /* without, two are as good as one */
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return false;
        (void)close(fd);
        return true;
}

static int serve(char **argv)
{
        struct holder h = {.reach = REACH_TREE,
                           .log_dir = argv[2],
                           .user = argv[4][0] ? argv[4] : "0",
                           .may_join = is_of_our_uid,
                           .ends_by_signal = true};

        if (is_served(argv[2]))
                return 0;
        make_workdir(argv[3], argv[4]);
        h.listener.fd = listen_at(argv[2]);
        if (h.listener.fd < 0 || take_env(&h) < 0 || chdir("/") < 0 || !go_to_background())
                return 1;
        holder_run(&h);
}

/* ---- join ---- */

/* One direction: what was read and not yet written. */
struct copy {
        int from, to;
        size_t at, size;
        bool is_over;
        char data[COPY_SIZE];
};

static int join_socket(const char *dir)
{
        struct sockaddr_un address;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || address_of(dir, &address) < 0)
                return -1;
        /* The holder may be at its start. */
        for (unsigned i = 0; i < 200; i++) {
                if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
                        return fd;
                if (errno != ENOENT && errno != ECONNREFUSED)
                        return -1;
                (void)usleep(10000);
        }
        return -1;
}

/* False: nothing will come or go any more. */
static bool move(struct copy *c, short from_events, short to_events)
{
        ssize_t n;

        if (c->size == 0 && (from_events & (POLLIN | POLLHUP | POLLERR))) {
                n = read(c->from, c->data, sizeof(c->data));
                if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                        return false;
                c->at = 0;
                c->size = n > 0 ? (size_t)n : 0;
                to_events = POLLOUT; /* most likely */
        }
        if (c->size > 0 && (to_events & (POLLOUT | POLLHUP | POLLERR))) {
                n = write(c->to, c->data + c->at, c->size);
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return false;
                c->at += n > 0 ? (size_t)n : 0;
                c->size -= n > 0 ? (size_t)n : 0;
        }
        return true;
}

static int join(const char *dir)
{
        static struct copy in, out;
        int fd = join_socket(dir);

        if (fd < 0)
                return 1;
        in = (struct copy){.from = 0, .to = fd};
        out = (struct copy){.from = fd, .to = 1};
        for (int i = 0; i < 2; i++)
                (void)fcntl(i, F_SETFL, fcntl(i, F_GETFL) | O_NONBLOCK);
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        for (;;) {
                struct pollfd polled[3] = {
                        {.fd = in.size == 0 ? 0 : -1, .events = POLLIN},
                        {.fd = fd,
                         .events = (short)((in.size > 0 ? POLLOUT : 0) |
                                           (out.size == 0 ? POLLIN : 0))},
                        {.fd = out.size > 0 ? 1 : -1, .events = POLLOUT},
                };

                if (poll(polled, 3, -1) < 0 && errno != EINTR)
                        return 1;
                if (!move(&in, polled[0].revents, polled[1].revents) ||
                    !move(&out, polled[1].revents, polled[2].revents))
                        return 0;
        }
}

/* ---- as ---- */

static int run_as(const char *name, char **argv)
{
        struct user who;

        if (user_find(name, &who) < 0 || setgroups(who.group_count, who.groups) < 0 ||
            setgid(who.gid) < 0 || setuid(who.uid) < 0)
                return 1;
        (void)setenv("HOME", who.home, 1); /* NOLINT(concurrency-mt-unsafe): one thread */
        (void)execvp(argv[0], argv);
        return 127;
}

int main(int argc, char **argv)
{
        (void)signal(SIGPIPE, SIG_IGN); /* commands get the default back */
        if (argc == 5 && (strcmp(argv[1], "hold") == 0 || strcmp(argv[1], "stay") == 0))
                return hold(argv);
        if (argc == 5 && strcmp(argv[1], "serve") == 0)
                return serve(argv);
        if (argc == 3 && strcmp(argv[1], "files") == 0)
                return agent_main(argc, argv);
        if (argc == 3 && strcmp(argv[1], "join") == 0)
                return join(argv[2]);
        if (argc >= 4 && strcmp(argv[1], "as") == 0)
                return run_as(argv[2], argv + 3);
        if (argc == 3 && strcmp(argv[1], "carry") == 0)
                return carry_main(argv[2]);
        if (argc >= 4 && strcmp(argv[1], "relay") == 0)
                return relay_main(argv[2], argv + 3);
        return 2;
}
