/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/ssh/alias.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/process.h"
#include "transport/base/units.h"

#define WORDS_MAX 256
#define OUTPUT_MAX ((size_t)64 * 1024)
#define ASK_NS (5 * NS_PER_S)

/* ---- words ---- */

int wordlist_add(struct wordlist *w, const char *text, size_t size)
{
        char **list, *copy;

        if (w->count >= WORDS_MAX)
                return -E2BIG;
        list = reallocarray(w->list, w->count + 2, sizeof(*list));
        if (!list)
                return -ENOMEM;
        w->list = list;
        copy = strndup(text, size);
        list[w->count] = copy;
        if (!copy)
                return -ENOMEM;
        list[++w->count] = NULL;
        return 0;
}

void wordlist_done(struct wordlist *w)
{
        for (size_t i = 0; i < w->count; i++)
                free(w->list[i]);
        free(w->list);
        *w = (struct wordlist){0};
}

const char *const *wordlist_get(const struct wordlist *w)
{
        static const char *const none[] = {NULL};

        return w->list ? (const char *const *)w->list : none;
}

/* ---- expansion ---- */

static int add_percent(struct buf *to, char key, const char *host, const struct alias *a,
                       const struct alias_self *self)
{
        switch (key) {
        case '%': return buf_add_char(to, '%');
        case 'd': return buf_add_str(to, self->home);
        case 'u': return buf_add_str(to, self->user);
        case 'n': return buf_add_str(to, host);
        case 'h': return buf_add_str(to, a && a->hostname ? a->hostname : host);
        case 'p': return buf_addf(to, "%u", a && a->port ? a->port : 22);
        case 'r': return buf_add_str(to, a && a->user ? a->user : self->user);
        default: return -EINVAL;
        }
}

int alias_expand(const char *text, const char *host, const struct alias *a,
                 const struct alias_self *self, char **ret)
{
        _cleanup_(buf_done) struct buf to = BUF_INIT(OUTPUT_MAX);
        int r = 0;

        if (text[0] == '~' && (text[1] == '/' || text[1] == '\0')) {
                r = buf_add_str(&to, self->home);
                text++;
        }
        while (r == 0 && *text) {
                size_t size = strcspn(text, "%");

                r = buf_add(&to, text, size);
                text += size;
                if (r < 0 || !*text)
                        break;
                r = add_percent(&to, text[1], host, a, self);
                text += text[1] ? 2 : 1;
        }
        if (r < 0)
                return r;
        *ret = buf_steal(&to);
        return *ret ? 0 : -ENOMEM;
}

/* ---- what it printed ---- */

void alias_done(struct alias *a)
{
        free(a->hostname);
        free(a->user);
        free(a->host_key_alias);
        free(a->agent);
        free(a->proxy_jump);
        free(a->proxy_command);
        wordlist_done(&a->identities);
        wordlist_done(&a->known_hosts);
        *a = (struct alias){0};
}

static int set_text(char **to, const char *value)
{
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*to);
        *to = copy;
        return 0;
}

static int set_port(struct alias *a, const char *value)
{
        uint64_t n;

        if (units_parse_count(value, 65535, &n) < 0 || n == 0)
                return -EPROTO;
        a->port = (unsigned)n;
        return 0;
}

/*
 * "none" is no word of the list; names are separated by blanks, there is no quoting: one name with
 * blanks looks the same.
 */
static int add_names(struct wordlist *to, const char *value)
{
        int r = strchr(value, ' ') ? wordlist_add(to, value, strlen(value)) : 0;

        while (r == 0 && *value) {
                size_t size = strcspn(value, " ");

                if (size > 0 && !(size == 4 && memcmp(value, "none", 4) == 0))
                        r = wordlist_add(to, value, size);
                value += size;
                value += strspn(value, " ");
        }
        return r;
}

static int take(struct alias *a, const char *key, const char *value)
{
        bool is_none = strcasecmp(value, "none") == 0;

        if (strcmp(key, "hostname") == 0)
                return set_text(&a->hostname, value);
        if (strcmp(key, "user") == 0)
                return set_text(&a->user, value);
        if (strcmp(key, "port") == 0)
                return set_port(a, value);
        if (strcmp(key, "hostkeyalias") == 0)
                return is_none ? 0 : set_text(&a->host_key_alias, value);
        if (strcmp(key, "identityagent") == 0)
                return set_text(&a->agent, value);
        if (strcmp(key, "proxyjump") == 0)
                return is_none ? 0 : set_text(&a->proxy_jump, value);
        if (strcmp(key, "proxycommand") == 0)
                return is_none ? 0 : set_text(&a->proxy_command, value);
        if (strcmp(key, "proxyusefdpass") == 0)
                a->passes_fd = strcmp(value, "yes") == 0;
        if (strcmp(key, "identityfile") == 0) /* one a line, blanks and all */
                return is_none ? 0 : wordlist_add(&a->identities, value, strlen(value));
        if (strcmp(key, "userknownhostsfile") == 0)
                return add_names(&a->known_hosts, value);
        return 0;
}

/* The system's come last, whatever the order of the lines. */
static int take_line(struct alias *a, char *line, struct wordlist *global)
{
        char *value = strchr(line, ' ');

        if (!value)
                return 0;
        *value++ = '\0';
        if (strcmp(line, "globalknownhostsfile") == 0)
                return add_names(global, value);
        return take(a, line, value);
}

/* The names in place, without those that hold a % that we don't know. */
static int expand_names(struct wordlist *w, const char *host, const struct alias *a,
                        const struct alias_self *self)
{
        size_t kept = 0;
        int r = 0;

        for (size_t i = 0; i < w->count; i++) {
                char *name = NULL;
                int one = r == 0 ? alias_expand(w->list[i], host, a, self, &name) : -EINVAL;

                free(w->list[i]);
                if (one == 0)
                        w->list[kept++] = name;
                else if (one != -EINVAL)
                        r = one;
        }
        if (w->list)
                w->list[kept] = NULL;
        w->count = kept;
        return r;
}

static int expand_all(struct alias *a, const char *host, const struct alias_self *self)
{
        char *agent;
        int r = expand_names(&a->identities, host, a, self);

        if (r == 0)
                r = expand_names(&a->known_hosts, host, a, self);
        if (r < 0 || !a->agent)
                return r;
        r = alias_expand(a->agent, host, a, self, &agent);
        if (r == -EINVAL)
                return set_text(&a->agent, "none");
        if (r == 0) {
                free(a->agent);
                a->agent = agent;
        }
        return r;
}

int alias_parse(const char *text, size_t size, const char *host, const struct alias_self *self,
                struct alias *ret)
{
        struct alias a = {0};
        struct wordlist global = {0};
        const char *end = text + size;
        int r = 0;

        while (r == 0 && text < end) {
                const char *newline = memchr(text, '\n', (size_t)(end - text));
                size_t length = newline ? (size_t)(newline - text) : (size_t)(end - text);
                _cleanup_(freep) char *line = strndup(text, length);

                r = line ? take_line(&a, line, &global) : -ENOMEM;
                text += length + 1;
        }
        for (size_t i = 0; i < global.count && r == 0; i++)
                r = wordlist_add(&a.known_hosts, global.list[i], strlen(global.list[i]));
        wordlist_done(&global);
        if (r == 0 && (!a.hostname || a.hostname[0] == '\0' || a.port == 0))
                r = -EPROTO;
        if (r == 0)
                r = expand_all(&a, host, self);
        if (r < 0) {
                alias_done(&a);
                return r;
        }
        *ret = a;
        return 0;
}

/* ---- asking ---- */

int alias_environment(struct wordlist *ret)
{
        static const char *const names[] = {"HOME",
                                            "PATH",
                                            "USER",
                                            "LOGNAME",
                                            "SHELL",
                                            "TMPDIR",
                                            "SSH_AUTH_SOCK",
                                            "SSH_SK_PROVIDER",
                                            "SSH_PKCS11_HELPER",
                                            "KRB5CCNAME",
                                            "KRB5_CONFIG",
                                            "XDG_RUNTIME_DIR",
                                            "LANG",
                                            "TZ"};
        struct wordlist words = {0};
        int r = 0;

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && r == 0; i++) {
                const char *value =
                        getenv(names[i]); /* NOLINT(concurrency-mt-unsafe): nothing sets any */
                char *text;

                if (!value)
                        continue;
                if (asprintf(&text, "%s=%s", names[i], value) < 0) {
                        r = -ENOMEM;
                } else {
                        r = wordlist_add(&words, text, strlen(text));
                        free(text);
                }
        }
        if (r == 0)
                r = wordlist_add(&words, "LC_ALL=C", strlen("LC_ALL=C"));
        if (r < 0)
                wordlist_done(&words);
        else
                *ret = words;
        return r;
}

struct asking {
        int out[2], err[2]; /* our ends are [0] */
        pid_t pid;
        int pidfd;
};

static void asking_done(struct asking *a)
{
        int status;

        for (unsigned i = 0; i < 2; i++) {
                closep(&a->out[i]);
                closep(&a->err[i]);
        }
        if (a->pidfd >= 0) {
                (void)kill(-a->pid, SIGKILL); /* what a Match exec left */
                (void)process_reap(a->pidfd, clock_after(NS_PER_S), &status);
        }
        closep(&a->pidfd);
}

static int start(struct asking *a, const char *host, const char *user, unsigned port,
                 const char *file)
{
        _cleanup_(wordlist_done) struct wordlist env = {0};
        char port_text[16];
        const char *argv[16];
        size_t n = 0;
        struct process_fd fds[2];
        struct process_spec spec = {.path = SSH_PROGRAM,
                                    .argv = argv,
                                    .fds = fds,
                                    .fd_count = 2,
                                    .uid = (uid_t)-1,
                                    .gid = (gid_t)-1,
                                    .cgroup_procs = {-1, -1},
                                    .new_session = true};
        int r = alias_environment(&env);

        if (r < 0)
                return r;
        if (pipe2(a->out, O_CLOEXEC) < 0 || pipe2(a->err, O_CLOEXEC) < 0)
                return -errno;
        (void)snprintf(port_text, sizeof(port_text), "%u", port);
        argv[n++] = "ssh";
        if (file) {
                argv[n++] = "-F";
                argv[n++] = file;
        }
        if (user) {
                argv[n++] = "-l";
                argv[n++] = user;
        }
        if (port) {
                argv[n++] = "-p";
                argv[n++] = port_text;
        }
        argv[n++] = "-T";
        argv[n++] = "-G";
        argv[n++] = "--";
        argv[n++] = host;
        argv[n] = NULL;
        spec.envp = wordlist_get(&env);
        fds[0] = (struct process_fd){a->out[1], 1};
        fds[1] = (struct process_fd){a->err[1], 2};
        r = process_spawn(&spec, &a->pid, &a->pidfd);
        closep(&a->out[1]);
        closep(&a->err[1]);
        a->out[1] = a->err[1] = -1;
        return r;
}

/* 1 there may be more, 0 its end, -errno. Beyond the maximum it is thrown away. */
static int read_some(int fd, struct buf *to)
{
        char data[4096];
        ssize_t n = read(fd, data, sizeof(data));

        if (n < 0)
                return errno == EINTR || errno == EAGAIN ? 1 : -errno;
        if (n > 0 && buf_add(to, data, (size_t)n) == -ENOMEM)
                return -ENOMEM;
        return n > 0;
}

static int collect(struct asking *a, struct buf *out, struct buf *err, struct call *c,
                   uint64_t deadline_ns)
{
        struct pollfd fds[2] = {{.fd = a->out[0], .events = POLLIN},
                                {.fd = a->err[0], .events = POLLIN}};

        while (fds[0].fd >= 0 || fds[1].fd >= 0) {
                int r = call_check(c);

                if (r == 0 && clock_mono_ns() >= deadline_ns)
                        r = -ETIMEDOUT;
                if (r < 0)
                        return r;
                if (poll(fds, 2, 50) < 0 && errno != EINTR)
                        return -errno;
                for (unsigned i = 0; i < 2; i++) {
                        if (fds[i].fd < 0 || !fds[i].revents)
                                continue;
                        r = read_some(fds[i].fd, i == 0 ? out : err);
                        if (r < 0)
                                return r;
                        if (r == 0)
                                fds[i].fd = -1;
                }
        }
        return 0;
}

static int explain(struct call *c, const char *host, const struct buf *err)
{
        char text[256];

        escape_text(buf_str(err), strcspn(buf_str(err), "\r\n"), text, sizeof(text));
        return call_fail(c, -EINVAL, "ssh -G %s: %s", host, text[0] ? text : "it failed");
}

int alias_ask(const char *host, const char *user, unsigned port, const char *file,
              const struct alias_self *self, struct call *c, struct alias *ret)
{
        _cleanup_(asking_done) struct asking a = {.out = {-1, -1}, .err = {-1, -1}, .pidfd = -1};
        _cleanup_(buf_done) struct buf out = BUF_INIT(OUTPUT_MAX);
        _cleanup_(buf_done) struct buf err = BUF_INIT(OUTPUT_MAX);
        uint64_t deadline_ns = clock_after(ASK_NS);
        int status = 0, r;

        if (access(SSH_PROGRAM, X_OK) < 0)
                return -ENOENT;
        r = start(&a, host, user, port, file);
        if (r == 0)
                r = collect(&a, &out, &err, c, deadline_ns);
        if (r == 0)
                r = process_reap(a.pidfd, deadline_ns, &status);
        if (r < 0)
                return call_fail_errno(c, r, "ssh -G %s", host);
        closep(&a.pidfd);
        a.pidfd = -1;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return explain(c, host, &err);
        r = alias_parse(buf_str(&out), out.size, host, self, ret);
        return r < 0 ? call_fail(c, r == -EPROTO ? -EINVAL : r, "ssh -G %s: an odd answer", host)
                     : 0;
}
