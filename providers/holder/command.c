/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command: started in a session and process group of its own, its output read into its log, its
 * stdin fed, its time limited, its end kept until sbxfs has seen it.
 *
 *      running -> (main process reaped, pipes drained of what they held) -> ended
 *      -> (end seen) forgotten -> (pipes closed by those that were left running; what they write
 *      meanwhile is thrown away) -> freed
 */

#include "providers/holder/holder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define KILL_AFTER_NS (5 * NS_PER_S)

static char chunk[PROTO_CHUNK_MAX];

/* ---- output ---- */

static void keep_output(struct command *x, unsigned stream, size_t size)
{
        holder_log_add(&x->log, (uint8_t)stream, x->total[stream], chunk, size);
        x->total[stream] += size;
}

/* Read once. False: nothing is there now. */
static bool read_output(struct holder *h, struct command *x, unsigned stream, size_t most)
{
        struct source *s = &x->output[stream];
        ssize_t n;

        if (s->fd < 0)
                return false;
        do
                n = read(s->fd, chunk, most < sizeof(chunk) ? most : sizeof(chunk));
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN)
                return false;
        if (n <= 0) {
                source_close(h, s);
                return false;
        }
        if (!x->is_ended)
                keep_output(x, stream, (size_t)n);
        return true;
}

void command_flow(struct holder *h, struct command *x)
{
        bool is_full = !x->is_ended && x->is_attached && holder_log_pending(&x->log) > LOG_BUSY;

        for (unsigned i = 0; i < 2; i++) {
                if (x->output[i].fd >= 0)
                        source_watch(h, &x->output[i], is_full ? 0 : EPOLLIN);
        }
}

static void output_ready(struct holder *h, struct command *x, unsigned stream)
{
        (void)read_output(h, x, stream, sizeof(chunk));
        command_flow(h, x);
}

static void stdout_ready(struct holder *h, struct source *s, uint32_t events)
{
        (void)events;
        output_ready(h, container_of(s, struct command, output[0]), 0);
}

static void stderr_ready(struct holder *h, struct source *s, uint32_t events)
{
        (void)events;
        output_ready(h, container_of(s, struct command, output[1]), 1);
}

/* What the pipe holds at this moment, and no more: somebody may be writing for ever. */
static void drain_output(struct holder *h, struct command *x, unsigned stream)
{
        int held = 0;

        if (x->output[stream].fd < 0 || ioctl(x->output[stream].fd, FIONREAD, &held) < 0)
                return;
        while (held > 0) {
                uint64_t before = x->total[stream];

                if (!read_output(h, x, stream, (size_t)held))
                        return;
                held -= (int)(x->total[stream] - before);
        }
}

/* ---- stdin ---- */

static void report_taken(struct holder *h, struct command *x)
{
        uint64_t total = x->stdin_received - x->stdin_kept.size;
        struct proto_msg m = {.type = PROTO_TAKEN, .taken = {.number = x->number, .total = total}};

        if (total <= x->stdin_reported)
                return;
        x->stdin_reported = total;
        if (x->is_attached)
                conn_send(h, &m);
}

/* Nobody reads it any more, or all was given: what comes later is swallowed. */
static void close_stdin(struct holder *h, struct command *x)
{
        source_close(h, &x->input);
        buf_done(&x->stdin_kept);
}

static void feed_stdin(struct holder *h, struct command *x)
{
        while (x->input.fd >= 0 && x->stdin_kept.size > 0) {
                ssize_t n = write(x->input.fd, x->stdin_kept.data, x->stdin_kept.size);

                if (n > 0) {
                        buf_drop(&x->stdin_kept, (size_t)n);
                } else if (n < 0 && errno == EAGAIN) {
                        source_watch(h, &x->input, EPOLLOUT);
                        break;
                } else if (n >= 0 || errno != EINTR) {
                        close_stdin(h, x);
                }
        }
        if (x->stdin_kept.size == 0 && x->input.fd >= 0) {
                source_watch(h, &x->input, 0);
                if (x->stdin_is_last)
                        close_stdin(h, x);
        }
        report_taken(h, x);
}

static void stdin_ready(struct holder *h, struct source *s, uint32_t events)
{
        (void)events;
        feed_stdin(h, container_of(s, struct command, input));
}

int command_stdin(struct holder *h, struct command *x, const struct proto_msg *m)
{
        const char *data = m->input.data;
        size_t size = m->input.size;
        uint64_t known;

        if (m->input.offset > x->stdin_received)
                return -EPROTO;
        known = x->stdin_received - m->input.offset;
        if (known < size) {
                if (x->stdin_kept.size + size > STDIN_KEPT_MAX)
                        return -EPROTO;
                if (x->input.fd >= 0 && buf_add(&x->stdin_kept, data + known, size - known) < 0)
                        close_stdin(h, x);
                x->stdin_received += size - known;
        }
        x->stdin_is_last |= m->input.is_last;
        feed_stdin(h, x);
        return 0;
}

/* ---- start ---- */

/* Our end and the command's end of a pipe. */
static int open_pipe(int *ret_ours, int *ret_theirs, bool is_input)
{
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;
        *ret_ours = ends[is_input ? 1 : 0];
        *ret_theirs = ends[is_input ? 0 : 1];
        return fcntl(*ret_ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static bool same_key(const char *a, const char *b)
{
        size_t length = strcspn(a, "=");

        return strncmp(a, b, length) == 0 && b[length] == '=';
}

static bool has_key(const struct proto_strings *list, const char *variable)
{
        size_t cursor = 0;
        const char *each;

        while ((each = proto_strings_next(list, &cursor))) {
                if (same_key(variable, each))
                        return true;
        }
        return false;
}

/* NULL-terminated pointers into `first` and those of `second` whose key isn't in `first`; room for
 * one more. */
static char **pointers(const struct proto_strings *first, const struct proto_strings *second)
{
        char **list = calloc((size_t)first->count + second->count + 2, sizeof(*list));
        size_t cursor = 0, n = 0;
        const char *each;

        while (list && (each = proto_strings_next(first, &cursor)))
                list[n++] = (char *)(uintptr_t)each;
        cursor = 0;
        while (list && (each = proto_strings_next(second, &cursor))) {
                if (!has_key(first, each))
                        list[n++] = (char *)(uintptr_t)each;
        }
        return list;
}

static const char *search_path(char *const *envp)
{
        for (; *envp; envp++) {
                if (strncmp(*envp, "PATH=", 5) == 0)
                        return *envp + 5;
        }
        return "/usr/local/bin:/usr/bin:/bin";
}

/* The file to execute, as execvp finds it. 0 or -errno. */
static int find_program(int cwd, const char *name, const char *path, char *ret, size_t size)
{
        int r = -ENOENT;

        if (strchr(name, '/'))
                return (size_t)snprintf(ret, size, "%s", name) < size ? 0 : -ENAMETOOLONG;
        while (*name) {
                size_t length = strcspn(path, ":");
                int n = snprintf(ret, size, "%.*s%s%s", (int)length, path, length > 0 ? "/" : "./",
                                 name);

                if (n > 0 && (size_t)n < size && faccessat(cwd, ret, X_OK, 0) == 0)
                        return 0;
                if (errno == EACCES)
                        r = -EACCES;
                if (!path[length])
                        break;
                path += length + 1;
        }
        return r;
}

static void start_done(struct start *s)
{
        closep(&s->cwd);
        for (unsigned i = 0; i < 3; i++)
                closep(&s->child[i]);
        free(s->argv);
        free(s->envp);
}

static void add_home(struct start *s)
{
        size_t n = 0;

        for (; s->envp[n]; n++)
                if (strncmp(s->envp[n], "HOME=", 5) == 0)
                        return;
        (void)snprintf(s->home, sizeof(s->home), "HOME=%s", s->who.home); /* one longer than that */
        s->envp[n] = s->home;
}

/* Whose it is: as the frame says, or as main has it for all. */
static int find_whose(const struct holder *h, const char *user, struct start *s, char *sentence,
                      size_t size)
{
        int r;

        if (user[0] == '\0')
                user = h->user;
        if (!user)
                return 0;
        r = user_find(user, &s->who);
        if (r < 0) {
                (void)snprintf(sentence, size, "user %.100s: %s", user,
                               r == -ENOENT ? "the sandbox has no such user" : strerrordesc_np(-r));
                return r == -ENOENT ? -EINVAL : r;
        }
        if (s->who.uid != getuid() || s->who.gid != getgid())
                s->user = &s->who;
        add_home(s);
        return 0;
}

static int prepare(struct holder *h, struct command *x, const struct proto_msg *m, struct start *s,
                   char *sentence, size_t size)
{
        struct proto_strings none = {0};
        struct proto_strings env = {
                .count = h->env_count, .data = h->env.data, .size = h->env.size};
        int r = 0;

        s->argv = pointers(&m->exec.argv, &none);
        s->envp = pointers(&m->exec.env, &env);
        if (!s->argv || !s->envp)
                return -ENOMEM;
        assert(s->argv[0]); /* proto.c passes no command without a word */
        r = find_whose(h, m->exec.user.data, s, sentence, size);
        if (r < 0)
                return r;
        s->cwd = open(m->exec.cwd.data, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (s->cwd < 0) {
                r = -errno;
                (void)snprintf(sentence, size, "cwd %.120s: %s", m->exec.cwd.data,
                               strerrordesc_np(-r));
                return r;
        }
        r = find_program(s->cwd, s->argv[0], search_path(s->envp), s->program, sizeof(s->program));
        if (r < 0) {
                (void)snprintf(sentence, size, "%.120s: %s", s->argv[0],
                               r == -ENOENT ? "command not found" : strerrordesc_np(-r));
                return r;
        }
        for (unsigned i = 0; r == 0 && i < 2; i++)
                r = open_pipe(&x->output[i].fd, &s->child[i + 1], false);
        if (r == 0 && m->exec.has_stdin)
                r = open_pipe(&x->input.fd, &s->child[0], true);
        return r;
}

static int launch(struct holder *h, struct command *x, const struct proto_msg *m, char *sentence,
                  size_t size)
{
        _cleanup_(start_done) struct start s = {.cwd = -1, .child = {-1, -1, -1}};
        int r = prepare(h, x, m, &s, sentence, size);

        if (r < 0)
                return r;
        r = spawn(h, &s, &x->pid);
        if (r == -EAGAIN)
                (void)snprintf(sentence, size, "no more processes can be started in this sandbox");
        else if (r < 0)
                (void)snprintf(sentence, size, "%.120s: %s", s.argv[0], strerrordesc_np(-r));
        return r;
}

static void command_free(struct holder *h, struct command *x)
{
        list_remove(&x->link);
        for (unsigned i = 0; i < 2; i++)
                source_close(h, &x->output[i]);
        close_stdin(h, x);
        holder_log_done(&x->log);
        free(x);
}

int command_start(struct holder *h, const struct proto_msg *m, int log_fd, char *sentence,
                  size_t size, struct command **ret)
{
        struct command *x = calloc(1, sizeof(*x));
        int r;

        if (!x) {
                closep(&log_fd);
                return -ENOMEM;
        }
        list_init(&x->link);
        x->number = m->exec.number;
        x->output[0] = (struct source){.ready = stdout_ready, .fd = -1};
        x->output[1] = (struct source){.ready = stderr_ready, .fd = -1};
        x->input = (struct source){.ready = stdin_ready, .fd = -1};
        x->stdin_kept = BUF_INIT(STDIN_KEPT_MAX);
        x->deadline_ns = m->exec.timeout_ns > 0 ? clock_after(m->exec.timeout_ns) : NEVER_NS;
        x->kill_ns = NEVER_NS;
        x->is_attached = true;
        holder_log_init(&x->log, log_fd);
        r = launch(h, x, m, sentence, size);
        if (r < 0) {
                command_free(h, x);
                return r;
        }
        h->is_quiet = false;
        list_add_tail(&h->commands, &x->link);
        command_flow(h, x);
        *ret = x;
        return 0;
}

/* ---- end ---- */

struct command *command_find(struct holder *h, uint64_t number)
{
        list_for_each (at, &h->commands) {
                struct command *x = container_of(at, struct command, link);

                if (x->number == number && !x->is_forgotten)
                        return x;
        }
        return NULL;
}

void command_forget(struct holder *h, struct command *x)
{
        if (!x->is_ended)
                return;
        x->is_forgotten = true;
        x->is_attached = false;
        holder_log_done(&x->log);
        close_stdin(h, x);
}

static void command_end(struct holder *h, struct command *x, int status)
{
        for (unsigned i = 0; i < 2; i++)
                drain_output(h, x, i);
        close_stdin(h, x);
        x->is_ended = true;
        x->deadline_ns = NEVER_NS;
        if (x->is_timed_out)
                x->end_kind = PROTO_END_TIMEOUT;
        else if (WIFSIGNALED(status))
                x->end_kind = PROTO_END_SIGNAL, x->end_value = (uint32_t)WTERMSIG(status);
        else
                x->end_kind = PROTO_END_CODE, x->end_value = (uint32_t)WEXITSTATUS(status);
        command_flow(h, x); /* what others still write is thrown away from here on */
}

static void ended(struct holder *h, pid_t pid, int status)
{
        list_for_each (at, &h->commands) {
                struct command *x = container_of(at, struct command, link);

                if (x->pid == pid && !x->is_ended) {
                        command_end(h, x, status);
                        return;
                }
        }
}

/* Ends that nobody comes for. */
static void limit_ended(struct holder *h)
{
        unsigned count = 0;

        for (struct list *at = h->commands.prev; at != &h->commands; at = at->prev) {
                struct command *x = container_of(at, struct command, link);

                if (x->is_ended && !x->is_forgotten && !x->is_attached &&
                    ++count > COMMANDS_ENDED_MAX)
                        command_forget(h, x);
        }
}

void commands_reap(struct holder *h)
{
        bool was_quiet = h->is_quiet;
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                ended(h, pid, status);
        h->is_quiet = pid < 0 && errno == ECHILD;
        limit_ended(h);
        if (h->is_quiet && !was_quiet) {
                struct proto_msg m = {.type = PROTO_QUIET, .quiet = conn_quiet(h)};

                conn_send(h, &m);
        }
}

/* ---- time ---- */

static void tick(struct command *x, uint64_t now_ns)
{
        if (x->deadline_ns <= now_ns) {
                x->deadline_ns = NEVER_NS;
                x->is_timed_out = true;
                x->kill_ns = now_ns + KILL_AFTER_NS;
                (void)kill(-x->pid, SIGTERM); /* it may have ended just now */
        }
        /* Also when the main process has gone: the rest of its group was told to end, too. */
        if (x->kill_ns <= now_ns) {
                x->kill_ns = NEVER_NS;
                (void)kill(-x->pid, SIGKILL);
        }
}

void commands_tick(struct holder *h, uint64_t now_ns)
{
        list_for_each (at, &h->commands)
                tick(container_of(at, struct command, link), now_ns);
}

uint64_t commands_deadline(const struct holder *h)
{
        uint64_t next = NEVER_NS;

        list_for_each (at, &h->commands) {
                const struct command *x = container_of(at, struct command, link);

                next = x->deadline_ns < next ? x->deadline_ns : next;
                next = x->kill_ns < next ? x->kill_ns : next;
        }
        return next;
}

static void shift(uint64_t *deadline_ns, uint64_t span_ns)
{
        if (*deadline_ns != NEVER_NS)
                *deadline_ns =
                        *deadline_ns > NEVER_NS - span_ns ? NEVER_NS : *deadline_ns + span_ns;
}

void commands_shift(struct holder *h, uint64_t span_ns)
{
        list_for_each (at, &h->commands) {
                struct command *x = container_of(at, struct command, link);

                shift(&x->deadline_ns, span_ns);
                shift(&x->kill_ns, span_ns);
        }
}

bool commands_are_heard(const struct holder *h)
{
        list_for_each (at, &h->commands) {
                const struct command *x = container_of(at, struct command, link);

                if (x->is_attached && !x->is_forgotten)
                        return true;
        }
        return false;
}

void commands_sweep(struct holder *h)
{
        list_for_each_safe (at, tmp, &h->commands) {
                struct command *x = container_of(at, struct command, link);

                if (x->is_forgotten && x->kill_ns == NEVER_NS && x->output[0].fd < 0 &&
                    x->output[1].fd < 0)
                        command_free(h, x);
        }
}
