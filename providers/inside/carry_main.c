/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "sbxfs-init carry MARK": a program behind a terminal; see carry.h. One thread, one poll loop:
 * the terminal, and three pipes of the program.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "providers/inside/carry.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"

#define READ_SIZE ((size_t)32 << 10)
#define INPUT_MAX ((size_t)256 << 10) /* read from the terminal, not yet taken by the program */
#define WORDS_MAX 256

struct carry {
        struct buf in; /* of the terminal: frames */
        struct buf out; /* to the terminal: frames */
        struct buf input; /* to the program */
        int to, from[2]; /* pipes to and from the program; -1: closed, or not there */
        pid_t pid; /* 0: not started */
        uint64_t credit; /* bytes of output that may go */
        bool has_eof, is_over;
        uint64_t heard_ns;
};

/* ---- the program ---- */

static void start_child(char **argv, const int fds[3])
{
        for (int i = 0; i < 3; i++)
                if (dup2(fds[i], i) < 0)
                        _exit(126);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)execvp(argv[0], argv);
        (void)fprintf(stderr, "%s: %s\n", argv[0], strerrordesc_np(errno)); /* ends here */
        _exit(errno == ENOENT ? 127 : 126);
}

static bool make_pipes(int pipes[3][2])
{
        for (int i = 0; i < 3; i++) {
                if (pipe2(pipes[i], O_CLOEXEC) < 0)
                        return false;
                /* Not among those that the child gets. */
                for (int j = 0; j < 2; j++) {
                        int high = fcntl(pipes[i][j], F_DUPFD_CLOEXEC, 3);

                        if (high < 0)
                                return false;
                        (void)close(pipes[i][j]);
                        pipes[i][j] = high;
                }
        }
        return true;
}

static bool start(struct carry *k, const struct carry_frame *f)
{
        char *argv[WORDS_MAX + 1] = {0};
        int pipes[3][2];
        unsigned count = 0;

        for (const char *at = f->data; at < f->data + f->size; at += strlen(at) + 1) {
                if (count == WORDS_MAX)
                        return false;
                argv[count++] = (char *)(uintptr_t)at; /* execvp's type has no const */
        }
        if (count == 0 || k->pid > 0 || !make_pipes(pipes))
                return false;
        k->pid = fork();
        if (k->pid < 0)
                return false;
        if (k->pid == 0) {
                const int fds[3] = {pipes[0][0], pipes[1][1], pipes[2][1]};

                start_child(argv, fds);
        }
        (void)close(pipes[0][0]);
        (void)close(pipes[1][1]);
        (void)close(pipes[2][1]);
        k->to = pipes[0][1];
        k->from[0] = pipes[1][0];
        k->from[1] = pipes[2][0];
        (void)fcntl(k->to, F_SETFL, O_NONBLOCK);
        return true;
}

static void close_fd(int *fd)
{
        if (*fd >= 0)
                (void)close(*fd);
        *fd = -1;
}

/* Its output is over: how did it end? */
static bool reap(struct carry *k)
{
        unsigned char end[2] = {CARRY_NO_CODE, 0};
        int status = 0;

        close_fd(&k->to);
        while (waitpid(k->pid, &status, 0) < 0)
                if (errno != EINTR)
                        return false;
        if (WIFEXITED(status))
                end[0] = (unsigned char)WEXITSTATUS(status);
        else
                end[1] = (unsigned char)WTERMSIG(status);
        k->pid = 0;
        k->is_over = true;
        return carry_add(&k->out, CARRY_EXIT, end, sizeof(end)) == 0;
}

/* ---- what comes ---- */

static bool take(struct carry *k, const struct carry_frame *f)
{
        switch (f->type) {
        case CARRY_ARGV: return start(k, f);
        case CARRY_INPUT: return k->to < 0 || buf_add(&k->input, f->data, f->size) == 0;
        case CARRY_EOF: k->has_eof = true; return true;
        case CARRY_CREDIT: k->credit += carry_credit(f); return k->credit <= 2 * CARRY_WINDOW;
        case CARRY_PING: return true;
        case CARRY_OUT:
        case CARRY_ERR:
        case CARRY_EXIT: break;
        }
        return false;
}

static bool take_all(struct carry *k)
{
        struct carry_frame f;
        size_t at = 0, used;
        int r;

        while ((r = carry_parse(buf_str(&k->in) + at, k->in.size - at, true, &f, &used)) > 0) {
                if (!take(k, &f))
                        return false;
                at += used;
        }
        buf_drop(&k->in, at);
        return r == 0;
}

static bool hear(struct carry *k)
{
        char *room = buf_reserve(&k->in, READ_SIZE);
        ssize_t n = room ? read(STDIN_FILENO, room, READ_SIZE) : -1;

        if (n < 0)
                return room && (errno == EAGAIN || errno == EINTR);
        k->in.size += (size_t)n;
        k->heard_ns = clock_mono_ns();
        return n > 0 && take_all(k);
}

/* ---- what goes ---- */

/* False: it takes no more. */
static bool drain(int fd, struct buf *from)
{
        ssize_t n = write(fd, from->data, from->size);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR;
        buf_drop(from, (size_t)n);
        return true;
}

static bool feed(struct carry *k)
{
        if (k->input.size > 0 && !drain(k->to, &k->input)) {
                buf_clear(&k->input); /* its own end tells why */
                close_fd(&k->to);
        }
        return true;
}

static bool tell(struct carry *k, unsigned which)
{
        char data[READ_SIZE];
        size_t size = k->credit < sizeof(data) ? (size_t)k->credit : sizeof(data);
        ssize_t n = read(k->from[which], data, size);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        if (n <= 0) {
                close_fd(&k->from[which]);
                return true;
        }
        k->credit -= (uint64_t)n;
        return carry_add(&k->out, which == 0 ? CARRY_OUT : CARRY_ERR, data, (size_t)n) == 0;
}

/* ---- both ---- */

static bool wait_for(struct carry *k, struct pollfd p[5])
{
        bool may_tell = k->credit > 0 && k->out.size == 0;
        uint64_t until_ns = k->heard_ns + CARRY_SILENCE_S * NS_PER_S, now_ns = clock_mono_ns();

        if (now_ns >= until_ns)
                return false;
        p[0] = (struct pollfd){.fd = k->input.size < INPUT_MAX ? STDIN_FILENO : -1,
                               .events = POLLIN};
        p[1] = (struct pollfd){.fd = k->out.size > 0 ? STDOUT_FILENO : -1, .events = POLLOUT};
        p[2] = (struct pollfd){.fd = k->input.size > 0 ? k->to : -1, .events = POLLOUT};
        for (int i = 0; i < 2; i++)
                p[3 + i] = (struct pollfd){.fd = may_tell ? k->from[i] : -1, .events = POLLIN};
        return poll(p, 5, (int)((until_ns - now_ns) / NS_PER_MS) + 1) >= 0 || errno == EINTR;
}

static bool step(struct carry *k)
{
        struct pollfd p[5] = {0};
        bool is_good = wait_for(k, p);

        if (is_good && p[0].revents)
                is_good = hear(k);
        if (is_good && p[1].revents && k->out.size > 0)
                is_good = drain(STDOUT_FILENO, &k->out);
        if (is_good && p[2].revents && k->to >= 0)
                is_good = feed(k);
        for (unsigned i = 0; i < 2 && is_good; i++)
                if (p[3 + i].revents && k->from[i] >= 0 && k->credit > 0)
                        is_good = tell(k, i);
        if (is_good && k->has_eof && k->input.size == 0)
                close_fd(&k->to);
        if (is_good && k->pid > 0 && k->from[0] < 0 && k->from[1] < 0)
                is_good = reap(k);
        return is_good;
}

static bool make_raw(void)
{
        struct termios t;

        if (tcgetattr(STDIN_FILENO, &t) < 0)
                return errno == ENOTTY; /* as it is, then */
        cfmakeraw(&t);
        t.c_cc[VMIN] = 1;
        t.c_cc[VTIME] = 0;
        return tcsetattr(STDIN_FILENO, TCSAFLUSH, &t) == 0;
}

int carry_main(const char *mark)
{
        struct carry k = {.in = BUF_INIT(CARRY_WORDS + 2 * READ_SIZE),
                          .out = BUF_INIT(4 * (READ_SIZE + CARRY_HEADER)),
                          .input = BUF_INIT(INPUT_MAX + CARRY_WORDS),
                          .to = -1,
                          .from = {-1, -1},
                          .credit = CARRY_WINDOW,
                          .heard_ns = clock_mono_ns()};

        if (!make_raw() || buf_addf(&k.out, CARRY_MARK "%s\n", mark) < 0)
                return 1;
        for (int i = 0; i < 2; i++)
                (void)fcntl(i, F_SETFL, fcntl(i, F_GETFL) | O_NONBLOCK);
        while (!k.is_over || k.out.size > 0)
                if (!step(&k))
                        break;
        if (k.pid > 0)
                (void)kill(k.pid, SIGKILL);
        return k.is_over ? 0 : 1;
}
