/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a holder: by bubblewrap, or alone for isolation=none. The socket on which it listens is
 * bound here, in the sandbox's directory, and inherited; so are the program itself and the files of
 * its /etc: nothing of ours has a path inside.
 */

#include "providers/local/local.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "providers/local/bwrap.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/file.h"
#include "transport/base/process.h"

#define ARGS_MAX (1u << 20)
#define INFO_MAX 4096
#define BACKLOG 4096 /* a frozen holder accepts nothing; each new run of ours adds one */
#define EXIT_MS 500 /* from the close of its pipes, or its child's end, to bwrap's own */
#define REAP_NS (2 * NS_PER_S)

/*
 * Descriptor numbers in the child. FD_READER is the other end of FD_INFO: with it bwrap can't die
 * of SIGPIPE when we do, which would leave what shall be the holder waiting for it for ever.
 * Whoever is left closes it.
 */
enum {
        FD_LISTENER = 3,
        FD_HOLDER,
        FD_ARGS,
        FD_INFO,
        FD_READER,
        FD_PASSWD,
        FD_GROUP,
        FD_HOSTS,
        FD_HOSTNAME,
        FD_NSSWITCH,
        FD_COUNT
};

/* Ours; closed when the child has its copies. */
struct parts {
        int fd[FD_COUNT]; /* by number in the child; -1: none */
};

static void parts_done(struct parts *p)
{
        for (unsigned i = 0; i < FD_COUNT; i++)
                closep(&p->fd[i]);
}

/* ---- what it inherits ---- */

static int open_listener(int dir, int *ret)
{
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        if (fd < 0)
                return -errno;
        /* The path may be longer than an address can be. */
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/holder.sock",
                       dir);
        if (unlinkat(dir, "holder.sock", 0) < 0 && errno != ENOENT)
                return -errno;
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
            fchmodat(dir, "holder.sock", 0600, 0) < 0 || listen(fd, BACKLOG) < 0)
                return -errno;
        *ret = STEAL_FD(fd);
        return 0;
}

/* A file in memory that is read from its start. */
static int open_text(const void *data, size_t size, int *ret)
{
        _cleanup_(closep) int fd = memfd_create("sbxfs", MFD_CLOEXEC);
        int r;

        if (fd < 0)
                return -errno;
        r = file_write_all(fd, data, size);
        if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
                return r < 0 ? r : -errno;
        *ret = STEAL_FD(fd);
        return 0;
}

static int open_holder(const struct local *local, struct call *c, int *ret)
{
        char path[4096];
        int fd = -1;

        if ((size_t)snprintf(path, sizeof(path), "%s/sbxfs-holder", local->helper_dir) <
            sizeof(path))
                fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return call_fail_errno(c, -errno, "%s, a part of sbxfs", path);
        *ret = fd;
        return 0;
}

static int open_etc(const struct plan *p, struct parts *parts)
{
        _cleanup_(buf_done) struct buf hosts = BUF_INIT(1024);
        int r = bwrap_hosts(&hosts, p);

        if (r == 0)
                r = open_text(BWRAP_PASSWD, strlen(BWRAP_PASSWD), &parts->fd[FD_PASSWD]);
        if (r == 0)
                r = open_text(BWRAP_GROUP, strlen(BWRAP_GROUP), &parts->fd[FD_GROUP]);
        if (r == 0)
                r = open_text(hosts.data, hosts.size, &parts->fd[FD_HOSTS]);
        if (r == 0)
                r = open_text(p->name, strlen(p->name), &parts->fd[FD_HOSTNAME]);
        if (r == 0)
                r = open_text(BWRAP_NSSWITCH, strlen(BWRAP_NSSWITCH), &parts->fd[FD_NSSWITCH]);
        return r;
}

static int open_args(const struct local_box *b, struct parts *parts)
{
        _cleanup_(buf_done) struct buf args = BUF_INIT(ARGS_MAX);
        const struct bwrap_fds fds = {.info = FD_INFO,
                                      .passwd = FD_PASSWD,
                                      .group = FD_GROUP,
                                      .hosts = FD_HOSTS,
                                      .hostname = FD_HOSTNAME,
                                      .nsswitch = FD_NSSWITCH};
        char workspace[4096];

        if ((size_t)snprintf(workspace, sizeof(workspace), "%s/%s/workspace", b->local->path,
                             b->base.id) >= sizeof(workspace))
                return -ENAMETOOLONG;
        if (bwrap_args(&args, &b->plan, workspace, &fds) < 0)
                return -E2BIG;
        return open_text(args.data, args.size, &parts->fd[FD_ARGS]);
}

/* ---- bwrap ---- */

static int find_bwrap(struct call *c, char *ret, size_t size)
{
        const char *path = getenv("PATH"); /* before threads write it, and nobody here does */

        for (path = path ? path : "/usr/local/bin:/usr/bin:/bin"; *path;) {
                size_t length = strcspn(path, ":");

                if (length > 0 && path[0] == '/' &&
                    (size_t)snprintf(ret, size, "%.*s/bwrap", (int)length, path) < size &&
                    access(ret, X_OK) == 0)
                        return 0;
                path += length + (path[length] == ':');
        }
        return call_fail(
                c, -EOPNOTSUPP,
                "bwrap is not installed: sandboxes of this machine need the package bubblewrap");
}

static bool file_says(const char *path, char wanted)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(64);

        return file_read(AT_FDCWD, path, &text) == 0 && buf_str(&text)[0] == wanted &&
               (buf_str(&text)[1] == '\n' || buf_str(&text)[1] == '\0');
}

static int explain_namespaces(struct call *c, const char *said)
{
        static const struct {
                const char *path;
                char bad;
                const char *remedy;
        } switches[] = {
                {"/proc/sys/kernel/unprivileged_userns_clone", '0',
                 "kernel.unprivileged_userns_clone=1"},
                {"/proc/sys/user/max_user_namespaces", '0', "user.max_user_namespaces=10000"},
                {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", '1',
                 "kernel.apparmor_restrict_unprivileged_userns=0"},
        };

        for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
                if (file_says(switches[i].path, switches[i].bad))
                        return call_fail(
                                c, -EPERM,
                                "this machine doesn't let users make namespaces: sysctl -w %s allows it (%s)",
                                switches[i].remedy, said);
        }
        return call_fail(c, -EPERM, "this machine doesn't let bwrap make namespaces (%s)", said);
}

/* The file's last line, fit to be shown. */
static void last_line(int fd, char *ret, size_t size)
{
        char text[2048];
        ssize_t n = file_pread_full(fd, text, sizeof(text) - 1, 0);
        char *line;

        text[n > 0 ? n : 0] = '\0';
        while (n > 0 && text[n - 1] == '\n')
                text[--n] = '\0';
        line = strrchr(text, '\n');
        line = line ? line + 1 : text;
        escape_text(line, strlen(line), ret, size);
}

bool launch_is_over(const struct launched *l)
{
        struct pollfd look = {.fd = l->monitor, .events = POLLIN};

        return l->monitor >= 0 && poll(&look, 1, 0) > 0;
}

/* " (bwrap: signal 9)" when it has ended, else "". It stays a zombie, and so keeps its number. */
static void describe_end(const struct launched *l, char *ret, size_t size)
{
        struct pollfd end = {.fd = l->monitor, .events = POLLIN};
        siginfo_t info = {0};

        ret[0] = '\0';
        if (l->monitor < 0 || poll(&end, 1, EXIT_MS) <= 0)
                return;
        if (waitid(P_PIDFD, (id_t)l->monitor, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid != 0)
                (void)snprintf(ret, size, " (bwrap: %s %d)",
                               info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status);
}

int launch_explain(struct launched *l, struct call *c)
{
        char said[512], how[64];

        describe_end(l, how, sizeof(how));
        launch_end_monitor(l);
        last_line(l->errors, said, sizeof(said));
        if (strstr(said, "nknown option"))
                return call_fail(c, -EOPNOTSUPP, "bubblewrap 0.8 or newer is needed (%s)", said);
        if (strstr(said, "namespace") || strstr(said, "uid map") || strstr(said, "uid_map") ||
            strstr(said, "mapping"))
                return explain_namespaces(c, said);
        if (!said[0])
                return call_fail(c, -EIO, "the sandbox ended before it was ready%s", how);
        return call_fail(c, -EIO, "%s", said);
}

void launch_end_monitor(struct launched *l)
{
        int status;

        if (l->monitor < 0)
                return;
        /* Its group: also a child that it still holds back. The holder is in another session. */
        /* it may have ended; not reaped, the number is still its own */
        (void)kill(-l->monitor_pid, SIGKILL);
        (void)process_reap(l->monitor, clock_after(REAP_NS), &status);
        closep(&l->monitor);
        l->monitor = -1;
}

void launched_done(struct launched *l)
{
        launch_end_monitor(l);
        closep(&l->pidfd);
        closep(&l->errors);
}

/*
 * "child-pid": N in all that bwrap writes (in pieces: closing the pipe before the last one would
 * kill it); 0: not all there.
 */
static pid_t find_pid(const char *text)
{
        const char *at = strchr(text, '}') ? strstr(text, "\"child-pid\":") : NULL;
        long pid = at ? strtol(at + strlen("\"child-pid\":"), NULL, 10) : 0;

        return pid > 1 && pid <= INT32_MAX ? (pid_t)pid : 0;
}

/* bwrap tells the pid of what will be the holder before it lets it go on. */
static int read_pid(int info, struct launched *l, struct call *c, pid_t *ret)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(INFO_MAX);

        while (!find_pid(buf_str(&text))) {
                struct pollfd wait = {.fd = info, .events = POLLIN};
                char part[512];
                ssize_t n;
                int r = call_check(c);

                if (r < 0)
                        return r;
                if (poll(&wait, 1, 100) <= 0)
                        continue;
                n = read(info, part, sizeof(part));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0 || buf_add(&text, part, (size_t)n) < 0)
                        return launch_explain(l, c);
        }
        *ret = find_pid(buf_str(&text));
        return 0;
}

/* ---- start ---- */

static int spawn(const struct local_box *b, const char *const *argv, const char *path,
                 const struct parts *parts, int errors, pid_t *ret_pid, int *ret_pidfd)
{
        struct process_fd fds[FD_COUNT + 1] = {{.from = errors, .to = 2}};
        struct process_spec spec = {.path = path,
                                    .argv = argv,
                                    .fds = fds,
                                    .fd_count = 1,
                                    .uid = b->local->uids ? b->plan.uid : (uid_t)-1,
                                    .gid = b->local->uids ? b->plan.gid : (gid_t)-1,
                                    .cgroup_procs = {-1, -1},
                                    .new_session = true};

        for (int i = FD_LISTENER; i < FD_COUNT; i++) {
                if (parts->fd[i] >= 0)
                        fds[spec.fd_count++] = (struct process_fd){.from = parts->fd[i], .to = i};
        }
        return process_spawn(&spec, ret_pid, ret_pidfd);
}

static int launch_isolated(const struct local_box *b, struct parts *parts, struct call *c,
                           struct launched *l)
{
        const char *const argv[] = {"bwrap",     "--args", "5", "--",       "/proc/self/fd/4",
                                    "namespace", "3",      "4", b->base.id, NULL};
        int ends[2], r;
        char path[4096];

        r = find_bwrap(c, path, sizeof(path));
        if (r < 0)
                return r;
        if (pipe2(ends, O_CLOEXEC) < 0)
                return call_fail_errno(c, -errno, "pipe");
        parts->fd[FD_READER] = ends[0];
        parts->fd[FD_INFO] = ends[1];
        r = open_etc(&b->plan, parts);
        if (r == 0)
                r = open_args(b, parts);
        if (r == 0)
                r = spawn(b, argv, path, parts, l->errors, &l->monitor_pid, &l->monitor);
        if (r < 0)
                return call_fail_errno(c, r, "start %s", path);
        closep(&parts->fd[FD_INFO]);
        parts->fd[FD_INFO] = -1;
        return read_pid(parts->fd[FD_READER], l, c, &l->holder.pid);
}

static int launch_bare(const struct local_box *b, struct parts *parts, struct call *c,
                       struct launched *l)
{
        const char *const argv[] = {
                "sbxfs-holder", b->local->uids ? "uid" : "tree", "3", "4", b->base.id, NULL};
        int r = spawn(b, argv, "/proc/self/fd/4", parts, l->errors, &l->holder.pid, &l->pidfd);

        return r < 0 ? call_fail_errno(c, r, "start the holder") : 0;
}

/* The holder is known by pid and start time; it may have ended already. */
static int identify(struct launched *l, struct call *c)
{
        int r = process_start_time(l->holder.pid, &l->holder.start_ticks);

        if (r == 0 && l->pidfd < 0)
                r = process_open(l->holder.pid, l->holder.start_ticks, &l->pidfd);
        return r < 0 ? launch_explain(l, c) : 0;
}

int launch(struct local_box *b, int dir, struct call *c, struct launched *ret)
{
        _cleanup_(parts_done) struct parts parts;
        _cleanup_(launched_done) struct launched l = {.pidfd = -1, .monitor = -1, .errors = -1};
        int r;

        for (unsigned i = 0; i < FD_COUNT; i++)
                parts.fd[i] = -1;
        r = open_text("", 0, &l.errors);
        if (r == 0)
                r = open_listener(dir, &parts.fd[FD_LISTENER]);
        if (r < 0)
                return call_fail_errno(c, r, "socket in %s/%s", b->local->path, b->base.id);
        r = open_holder(b->local, c, &parts.fd[FD_HOLDER]);
        if (r == 0)
                r = b->plan.is_isolated ? launch_isolated(b, &parts, c, &l)
                                        : launch_bare(b, &parts, c, &l);
        if (r == 0)
                r = identify(&l, c);
        if (r < 0)
                return r;
        *ret = l;
        l = (struct launched){.pidfd = -1, .monitor = -1, .errors = -1};
        return 0;
}

/* ---- environment ---- */

static int add_variable(struct buf *to, uint32_t *count, const char *key, const char *value)
{
        size_t start = to->size;
        int r = buf_addf(to, "%s=%s", key, value);

        if (r == 0)
                r = buf_add_char(to, '\0');
        if (r < 0)
                to->size = start;
        else
                *count += 1;
        return r;
}

static bool is_named(const struct spec *spec, const char *key)
{
        for (size_t i = 0; spec && i < spec->env_count; i++) {
                if (strcmp(spec->env[i].key, key) == 0)
                        return true;
        }
        return false;
}

int launch_env(const struct local_box *b, const struct spec *spec, struct buf *to, uint32_t *count)
{
        char workspace[4096];
        const struct pair defaults[] = {
                {(char *)(uintptr_t) "PATH",
                 (char *)(uintptr_t) "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                {(char *)(uintptr_t) "HOME",
                 b->plan.is_isolated ? (char *)(uintptr_t) "/home/sandbox" : workspace},
                {(char *)(uintptr_t) "USER", (char *)(uintptr_t) "sandbox"},
                {(char *)(uintptr_t) "LOGNAME", (char *)(uintptr_t) "sandbox"},
                {(char *)(uintptr_t) "SHELL", (char *)(uintptr_t) "/bin/sh"},
                {(char *)(uintptr_t) "LANG", (char *)(uintptr_t) "C.UTF-8"},
                {(char *)(uintptr_t) "TERM", (char *)(uintptr_t) "dumb"},
        };
        int r = 0;

        (void)snprintf(workspace, sizeof(workspace), "%s/%s/workspace", b->local->path, b->base.id);
        for (size_t i = 0; r == 0 && i < sizeof(defaults) / sizeof(defaults[0]); i++) {
                if (!is_named(spec, defaults[i].key))
                        r = add_variable(to, count, defaults[i].key, defaults[i].value);
        }
        for (size_t i = 0; r == 0 && spec && i < spec->env_count; i++)
                r = add_variable(to, count, spec->env[i].key, spec->env[i].value);
        return r;
}
