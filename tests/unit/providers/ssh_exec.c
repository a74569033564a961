/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of the ssh provider without ssh: a host that is this machine, whose programs and file
 * channel are children. Arguments: the shell that is the account's (and `sh` there), default dash.
 */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/ssh/config.h"
#include "providers/ssh/exec_host.h"
#include "providers/ssh/helpers.h"
#include "providers/ssh/ssh.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"
#include "transport/child.h"
#include "transport/sftp/sftp.h"

/* ---- the host ---- */

#define SFTP_SERVER "/usr/lib/openssh/sftp-server"

static const char *account_shell[3] = {"/bin/dash", NULL, NULL};
static char top[] = "/tmp/sbxfs-ssh-exec-XXXXXX";
static char bin[64];
static struct ssh_host host;
static struct ssh_config config;
static struct ssh_provider provider = {.owner = "owner0"};
static struct ssh_box box;
static struct ssh_paths paths;
static struct mutex lock;
static struct ssh_link *current;
static unsigned link_count, opened;
static bool is_down;

static char path_variable[128];
static const char *const environment[] = {path_variable, "HOME=/", NULL};

int host_open_program(struct ssh_host *h, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        /* Not of the group that closing the stream ends: sshd ends nothing. */
        const char *argv[8] = {"/usr/bin/setsid", "-w", account_shell[0]};
        size_t n = 3;
        bool down;

        (void)h;
        if (account_shell[1])
                argv[n++] = account_shell[1];
        argv[n++] = "-c";
        argv[n++] = command;
        mutex_lock(&lock);
        down = is_down;
        opened++;
        mutex_unlock(&lock);
        if (down)
                return call_fail(c, -EHOSTUNREACH, "down");
        return child_open(argv[0], argv, environment, events, c, ret);
}

int host_link(struct ssh_host *h, struct call *c, enum host_lane lane, struct ssh_link **ret)
{
        static const char *const argv[] = {SFTP_SERVER, NULL};
        struct stream *stream;
        struct sftp *s;

        (void)lane;
        mutex_lock(&lock);
        if (is_down) {
                mutex_unlock(&lock);
                return call_fail(c, -EHOSTUNREACH, "down");
        }
        if (current && sftp_error(current->sftp, NULL, 0) < 0) {
                struct ssh_link *old = current;

                current = NULL;
                mutex_unlock(&lock);
                link_unref(old);
                mutex_lock(&lock);
        }
        if (!current) {
                CHECK(sftp_new(&s) == 0);
                CHECK(child_open(SFTP_SERVER, argv, environment, sftp_events(s), c, &stream) == 0);
                CHECK(sftp_start(s, c, stream, true) == 0);
                current = calloc(1, sizeof(*current));
                CHECK(current);
                current->host = h;
                current->sftp = s;
                link_count = 1;
        }
        link_count++;
        *ret = current;
        mutex_unlock(&lock);
        return 0;
}

struct ssh_link *link_ref(struct ssh_link *l)
{
        mutex_lock(&lock);
        link_count++;
        mutex_unlock(&lock);
        return l;
}

void link_unref(struct ssh_link *l)
{
        (void)l;
        mutex_lock(&lock);
        link_count--;
        mutex_unlock(&lock);
}

unsigned host_known(struct ssh_host *h)
{
        return h->can;
}

int host_shell(struct ssh_host *h, struct call *c)
{
        (void)c;
        return (int)h->can;
}

int ssh_box_check_runs(struct ssh_box *b, struct call *c)
{
        (void)b;
        (void)c;
        return 0;
}

int ssh_box_paths(struct ssh_box *b, struct call *c, const struct ssh_paths **ret)
{
        (void)c;
        *ret = b->paths;
        return 0;
}

void ssh_box_missed(struct ssh_box *b)
{
        (void)b;
}

/* ---- a command ---- */

struct result {
        struct exec_sink sink;
        struct mutex lock;
        struct cond changed;
        char *data[2];
        uint64_t size[2];
        uint64_t gap[2];
        uint64_t taken;
        unsigned ends;
        struct exec_end end;
};

static void on_output(struct exec_sink *to, enum exec_stream stream, uint64_t offset,
                      const void *data, size_t size)
{
        struct result *t = container_of(to, struct result, sink);
        uint64_t at = t->size[stream] + t->gap[stream];

        mutex_lock(&t->lock);
        CHECK(t->ends == 0);
        if (offset > at)
                t->gap[stream] += offset - at;
        else
                CHECK(offset == at);
        t->data[stream] = realloc(t->data[stream], t->size[stream] + size + 1);
        memcpy(t->data[stream] + t->size[stream], data, size);
        t->size[stream] += size;
        t->data[stream][t->size[stream]] = '\0';
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
}

static void on_taken(struct exec_sink *to, uint64_t total)
{
        struct result *t = container_of(to, struct result, sink);

        mutex_lock(&t->lock);
        t->taken = total;
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
}

static void on_end(struct exec_sink *to, const struct exec_end *end)
{
        struct result *t = container_of(to, struct result, sink);

        mutex_lock(&t->lock);
        t->ends++;
        t->end = *end;
        cond_broadcast(&t->changed);
        mutex_unlock(&t->lock);
}

static void init(struct result *t)
{
        *t = (struct result){.sink = {.output = on_output, .stdin_taken = on_taken, .end = on_end}};
        mutex_init(&t->lock);
        cond_init(&t->changed);
        t->data[0] = calloc(1, 1);
        t->data[1] = calloc(1, 1);
}

static void done(struct result *t)
{
        free(t->data[0]);
        free(t->data[1]);
        cond_done(&t->changed);
        mutex_done(&t->lock);
}

static bool wait_bytes(struct result *t, uint64_t size, unsigned seconds)
{
        uint64_t until = clock_after(seconds * NS_PER_S);
        bool ok;

        mutex_lock(&t->lock);
        while (t->size[0] + t->gap[0] < size && t->ends == 0 && clock_mono_ns() < until)
                (void)cond_wait_until(&t->changed, &t->lock, until);
        ok = t->size[0] + t->gap[0] >= size;
        mutex_unlock(&t->lock);
        return ok;
}

static bool wait_end(struct result *t, unsigned seconds)
{
        uint64_t until = clock_after(seconds * NS_PER_S);
        bool ok;

        mutex_lock(&t->lock);
        while (t->ends == 0 && clock_mono_ns() < until)
                (void)cond_wait_until(&t->changed, &t->lock, until);
        ok = t->ends == 1;
        mutex_unlock(&t->lock);
        return ok;
}

static uint64_t last_number;

static int start(struct result *t, const struct exec_req *like, const char *text, struct exec **ret,
                 struct call *c)
{
        const char *const argv[] = {"sh", "-c", text, NULL};
        struct exec_req in = like ? *like : (struct exec_req){0};

        in.number = ++last_number;
        if (text)
                in.argv = argv;
        call_init(c, clock_after(60 * NS_PER_S));
        init(t);
        return ssh_exec_start(&box.base, c, &in, &t->sink, ret);
}

static void run(struct result *t, const struct exec_req *like, const char *text)
{
        struct exec *x;
        struct call c;
        int r = start(t, like, text, &x, &c);

        if (r < 0)
                printf("%s: %s\n", text, c.sentence);
        CHECK(r == 0);
        CHECK(wait_end(t, 120)); /* a sanitizer on a busy machine */
        ssh_exec_release(x);
}

static void codes_and_signals_are_told_apart(void)
{
        static const int codes[] = {0, 1, 2, 127, 130, 143, 255};
        static const int signals[] = {1, 9, 15, 11};
        struct result t;
        char text[64];

        for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
                (void)snprintf(text, sizeof(text), "exit %d", codes[i]);
                run(&t, NULL, text);
                CHECK(t.end.kind == EXEC_END_CODE && t.end.value == codes[i]);
                done(&t);
        }
        for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
                (void)snprintf(text, sizeof(text), "kill -%d $$", signals[i]);
                run(&t, NULL, text);
                CHECK(t.end.kind == EXEC_END_SIGNAL && t.end.value == signals[i]);
                done(&t);
        }
}

static void words_go_verbatim(void)
{
        const char *const argv[] = {"printf", "[%s]", "a b", "",  "$HOME",
                                    "'\"\\",  "-n",   "\n",  "*", NULL};
        const struct pair env[] = {{(char *)(uintptr_t) "K", (char *)(uintptr_t) "a 'b'\n$x"}};
        struct result t;

        run(&t, &(struct exec_req){.argv = argv}, NULL);
        CHECK(strcmp(t.data[0], "[a b][][$HOME]['\"\\][-n][\n][*]") == 0);
        done(&t);
        run(&t, &(struct exec_req){.env = env, .env_count = 1},
            "printf %s \"$K\"; echo err >&2; env | grep -c sbxfs_; exit 3");
        CHECK(strcmp(t.data[0], "a 'b'\n$x0\n") == 0 && strcmp(t.data[1], "err\n") == 0);
        CHECK(t.end.value == 3);
        done(&t);
}

static void refused(const struct exec_req *in, const char *text, int code)
{
        struct exec *x;
        struct result t;
        struct call c;
        int r = start(&t, in, text, &x, &c);

        if (r != code)
                printf("%d, not %d: %s\n", r, code, c.sentence);
        CHECK(r == code);
        done(&t);
}

static void what_cannot_start_is_refused(void)
{
        const char *const none[] = {"no-such-program", NULL};
        const char *const directory[] = {"/etc", NULL};
        const char *const missing[] = {"/none/x", NULL};
        char *large = malloc(200001);
        struct result t;

        refused(&(struct exec_req){.cwd = "nowhere"}, "pwd", -ENOENT);
        refused(&(struct exec_req){.argv = none}, NULL, -ENOENT);
        refused(&(struct exec_req){.argv = directory}, NULL, -EACCES);
        refused(&(struct exec_req){.argv = missing}, NULL, -ENOENT);
        refused(&(struct exec_req){.user = "somebody"}, "id", -EOPNOTSUPP);
        memset(large, ' ', 200000);
        large[200000] = '\0';
        refused(NULL, large, -E2BIG);
        free(large);
        run(&t, NULL, "no-such-program");
        CHECK(t.end.kind == EXEC_END_CODE && t.end.value == 127);
        done(&t);
}

static void output_comes_whole(void)
{
        struct result t;
        struct exec *x;
        struct call c;

        run(&t, NULL, "i=0; while [ $i -lt 256 ]; do printf \\\\$(printf %o $i); i=$((i+1)); done");
        CHECK(t.size[0] == 256);
        for (unsigned i = 0; i < 256; i++)
                CHECK((unsigned char)t.data[0][i] == i);
        done(&t);
        run(&t, NULL, "head -c 65536 /dev/zero");
        CHECK(t.size[0] == 65536);
        done(&t);
        run(&t, NULL, "head -c 65537 /dev/zero; head -c 70000 /dev/zero >&2");
        CHECK(t.size[0] == 65537 && t.size[1] == 70000);
        done(&t);
        run(&t, NULL, "head -c 10000000 /dev/zero; echo end >&2");
        CHECK(t.size[0] == 10000000 && t.gap[0] == 0 && strcmp(t.data[1], "end\n") == 0);
        done(&t);
        CHECK(start(&t, NULL, "echo first; sleep 1000", &x, &c) == 0);
        CHECK(wait_bytes(&t, 6, 60));
        call_init(&c, clock_after(60 * NS_PER_S));
        CHECK(ssh_exec_signal(x, &c, 9) == 0);
        CHECK(wait_end(&t, 60) && t.end.kind == EXEC_END_SIGNAL && t.end.value == 9);
        CHECK(ssh_exec_signal(x, &c, 9) == -ESRCH);
        ssh_exec_release(x);
        done(&t);
}

static void signals_and_time(void)
{
        struct result t;
        struct exec *x;
        struct call c;
        uint64_t began;

        CHECK(start(&t, NULL, "sleep 1000 & sleep 1000 & echo up; wait", &x, &c) == 0);
        CHECK(wait_bytes(&t, 3, 60));
        CHECK(ssh_exec_signal(x, &c, 15) == 0);
        CHECK(wait_end(&t, 60) && t.end.kind == EXEC_END_SIGNAL && t.end.value == 15);
        ssh_exec_release(x);
        done(&t);
        CHECK(start(&t, NULL, "echo up; exec sleep 1000", &x, &c) == 0);
        CHECK(wait_bytes(&t, 3, 60));
        CHECK(ssh_exec_signal(x, &c, SIGINT) == 0);
        CHECK(wait_end(&t, 60) && t.end.kind == EXEC_END_SIGNAL && t.end.value == SIGINT);
        ssh_exec_release(x);
        done(&t);
        CHECK(start(&t, NULL,
                    "trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.05; done", &x,
                    &c) == 0);
        CHECK(wait_bytes(&t, 3, 60));
        CHECK(ssh_exec_signal(x, &c, SIGUSR1) == 0);
        CHECK(wait_end(&t, 60) && t.end.kind == EXEC_END_CODE && t.end.value == 5);
        CHECK(strcmp(t.data[0], "up\ncaught\n") == 0);
        ssh_exec_release(x);
        done(&t);

        began = clock_mono_ns();
        run(&t, &(struct exec_req){.timeout_ns = 3500 * NS_PER_MS}, "echo before; sleep 1000");
        CHECK(t.end.kind == EXEC_END_TIMEOUT && strcmp(t.data[0], "before\n") == 0);
        CHECK(clock_mono_ns() - began < 60 * NS_PER_S && clock_mono_ns() - began > 3 * NS_PER_S);
        done(&t);
        run(&t, &(struct exec_req){.timeout_ns = 100 * NS_PER_S}, "exit 4");
        CHECK(t.end.kind == EXEC_END_CODE && t.end.value == 4);
        done(&t);
}

static int write_all(struct exec *x, const char *data, size_t size, bool is_last)
{
        uint64_t until = clock_after(100 * NS_PER_S);
        struct call c;
        size_t at = 0;

        while (at < size || is_last) {
                size_t n = size - at < 65536 ? size - at : 65536;
                int r;

                call_init(&c, clock_after(60 * NS_PER_S));
                r = ssh_exec_write(x, &c, data + at, n, is_last && at + n == size);
                if (r == -EAGAIN && clock_mono_ns() < until) {
                        (void)usleep(1000);
                        continue;
                }
                if (r < 0)
                        return r;
                at += n;
                if (at == size)
                        break;
        }
        return 0;
}

static void stdin_arrives_in_order(void)
{
        const struct exec_req in = {.has_stdin = true};
        size_t size = 10 << 20;
        char *large = malloc(size);
        struct result t;
        struct exec *x;
        struct call c;

        run(&t, NULL, "cat; readlink /proc/self/fd/0");
        CHECK(strcmp(t.data[0], "/dev/null\n") == 0);
        done(&t);
        CHECK(start(&t, &in, "cat", &x, &c) == 0);
        CHECK(write_all(x, "one\n", 4, false) == 0);
        CHECK(wait_bytes(&t, 4, 60));
        CHECK(write_all(x, "two\n", 4, true) == 0);
        CHECK(wait_end(&t, 60) && strcmp(t.data[0], "one\ntwo\n") == 0);
        CHECK(write_all(x, "x", 1, false) == -EPIPE);
        ssh_exec_release(x);
        done(&t);

        for (size_t i = 0; i < size; i++)
                large[i] = (char)(i * 2654435761U >> 13);
        CHECK(start(&t, &in, "cat", &x, &c) == 0);
        CHECK(write_all(x, large, size, true) == 0);
        CHECK(wait_end(&t, 100) && t.size[0] == size && memcmp(t.data[0], large, size) == 0);
        ssh_exec_release(x);
        done(&t);
        CHECK(start(&t, &in, "exec 0<&-; echo closed; sleep 0.5; echo done", &x, &c) == 0);
        CHECK(wait_bytes(&t, 7, 60));
        CHECK(write_all(x, large, 1 << 20, true) >= -EPIPE);
        CHECK(wait_end(&t, 60) && strcmp(t.data[0], "closed\ndone\n") == 0);
        ssh_exec_release(x);
        done(&t);
        free(large);
}

static void commands_are_attached_again(void)
{
        const uint64_t none[2] = {0, 0};
        struct result t, u;
        struct exec *x;
        struct call c;

        CHECK(start(&t, NULL, "sleep 2; echo on; exit 6", &x, &c) == 0);
        ssh_exec_release(x); /* while it runs: what has ended would be removed */
        init(&u);
        CHECK(ssh_exec_attach(&box.base, &c, last_number, "", none, &u.sink, &x) == 0);
        if (!wait_end(&u, 60) || u.end.value != 6)
                printf("attach: %u %d %d %s [%s]\n", u.ends, u.end.kind, u.end.value,
                       u.end.sentence, u.data[0]);
        CHECK(wait_end(&u, 60) && u.end.value == 6 && strcmp(u.data[0], "on\n") == 0);
        ssh_exec_release(x);
        done(&t);
        done(&u);
        /* One that was never sent isn't there, and can't come later. */
        init(&u);
        CHECK(ssh_exec_attach(&box.base, &c, last_number + 1, NULL, none, &u.sink, &x) == -ENOENT);
        done(&u);
        refused(NULL, "true", -EEXIST);
        /* The supervisor dies, the command lives on; then nobody can know how it ends. */
        CHECK(start(&t, NULL, "echo up; sleep 3; echo more", &x, &c) == 0);
        CHECK(wait_bytes(&t, 3, 60));
        {
                char text[256];
                long pid = 0;
                FILE *f;

                (void)snprintf(text, sizeof(text), "%s/%" PRIu64 ".up", paths.run, last_number);
                f = fopen(text, "r");
                CHECK(f && fscanf(f, "%ld", &pid) == 1 && pid > 1);
                (void)fclose(f);
                CHECK(kill((pid_t)pid, SIGKILL) == 0);
        }
        CHECK(wait_end(&t, 60) && t.end.kind == EXEC_END_LOST);
        CHECK(strcmp(t.data[0], "up\nmore\n") == 0);
        ssh_exec_release(x);
        done(&t);
}

static void all_of_a_sandbox_is_reached(void)
{
        struct result t;
        struct exec *x;
        struct call c;

        run(&t, NULL, "sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & sleep 0.2");
        done(&t);
        CHECK(start(&t, NULL, "sleep 1000", &x, &c) == 0);
        CHECK(ssh_exec_signal_all(&box, &c, 0) >= 2);
        CHECK(ssh_exec_signal_all(&box, &c, SIGKILL) >= 2);
        CHECK(wait_end(&t, 60) && t.end.kind == EXEC_END_SIGNAL);
        call_init(&c, clock_after(60 * NS_PER_S));
        for (int i = 0; i < 600 && ssh_exec_signal_all(&box, &c, 0) > 0; i++)
                (void)usleep(50000); /* until they are dead */
        CHECK(ssh_exec_signal_all(&box, &c, 0) == 0);
        ssh_exec_release(x);
        done(&t);
}

static void many_run_at_once(void)
{
        struct result t[32];
        struct exec *x[32];
        struct call c;

        for (unsigned i = 0; i < 32; i++) {
                char text[64];

                (void)snprintf(text, sizeof(text), "sleep 0.5; echo %u; exit %u", i, i);
                CHECK(start(&t[i], NULL, text, &x[i], &c) == 0);
        }
        for (unsigned i = 0; i < 32; i++) {
                CHECK(wait_end(&t[i], 100) && t[i].end.value == (int)i);
                CHECK((unsigned)atoi(t[i].data[0]) == i);
                ssh_exec_release(x[i]);
                done(&t[i]);
        }
}

static void scripts_run_in_the_helper(void)
{
        struct buf out = BUF_INIT(64 << 20);
        struct call c;
        int code = 9;

        call_init(&c, clock_after(60 * NS_PER_S));
        CHECK(shell_run_buf(host.shell, &c, "printf 'a\\000b'; cat; exit 4", &out, &code) == 0);
        CHECK(code == 4 && out.size == 3 && memcmp(out.data, "a\0b", 3) == 0);
        buf_clear(&out);
        CHECK(shell_run_buf(host.shell, &c, "echo why >&2; false", &out, &code) == 0);
        CHECK(code == 1 && strcmp(c.sentence, "why") == 0);
        CHECK(shell_run_buf(host.shell, &c, "head -c 30000000 /dev/zero", &out, &code) == 0);
        CHECK(code == 0 && out.size == 30000000);
        call_init(&c, clock_after(300 * NS_PER_MS));
        CHECK(shell_run_buf(host.shell, &c, "sleep 5", NULL, &code) == -ETIMEDOUT);
        call_init(&c, clock_after(60 * NS_PER_S));
        buf_clear(&out);
        CHECK(shell_run_buf(host.shell, &c, "kill -9 $$", &out, &code) < 0);
        CHECK(shell_run_buf(host.shell, &c, "echo again", &out, &code) == 0);
        CHECK(code == 0 && strcmp(buf_str(&out), "again\n") == 0);
        buf_done(&out);
}

static void make_host(const char *shell)
{
        char text[256];

        CHECK(mkdtemp(top));
        (void)snprintf(bin, sizeof(bin), "%s/bin", top);
        CHECK(mkdir(bin, 0700) == 0);
        if (strstr(shell, "busybox")) {
                account_shell[0] = shell;
                account_shell[1] = "sh";
                (void)snprintf(text, sizeof(text),
                               "cd %s && for i in $(busybox --list); do ln -s %s $i; done", bin,
                               shell);
                CHECK(system(text) == 0);
        } else {
                account_shell[0] = shell;
                (void)snprintf(text, sizeof(text), "%s/sh", bin);
                CHECK(symlink(shell, text) == 0);
        }
        (void)snprintf(path_variable, sizeof(path_variable), "PATH=%s:/usr/bin:/bin", bin);
        mutex_init(&lock);
        config = (struct ssh_config){.user = (char *)(uintptr_t) "me"};
        host.config = &config;
        host.can = HOST_SHELL | HOST_SETSID | HOST_HEAD_C | HOST_PROC | HOST_MKFIFO |
                   HOST_SLEEP_FRACTION | HOST_FALLOCATE;
        CHECK(helpers_init(&host) == 0);
        /* A child's stream ends with its process, a channel when nobody has its output any more. */
        host.execs->attached_max = 64;
        (void)snprintf(text, sizeof(text), "%s/it's a \"box\"\n*", top);
        CHECK(mkdir(text, 0700) == 0);
        paths.dir = strdup(text);
        CHECK(asprintf(&paths.run, "%s/run", text) > 0 &&
              asprintf(&paths.work, "%s/work", text) > 0);
        CHECK(mkdir(paths.work, 0700) == 0);
        mutex_init(&box.lock);
        box.host = &host;
        box.ssh = &provider;
        (void)snprintf(box.owner, sizeof(box.owner), "%s", provider.owner);
        box.paths = &paths;
        (void)snprintf(box.key, sizeof(box.key), "%s", strrchr(top, '-') + 1);
}

int main(int argc, char **argv)
{
        char text[256];
        struct call c;

        (void)signal(SIGPIPE, SIG_IGN);
        make_host(argc > 1 ? argv[1] : "/bin/dash");
        RUN(scripts_run_in_the_helper);
        RUN(codes_and_signals_are_told_apart);
        RUN(words_go_verbatim);
        RUN(what_cannot_start_is_refused);
        RUN(output_comes_whole);
        RUN(signals_and_time);
        RUN(stdin_arrives_in_order);
        RUN(commands_are_attached_again);
        RUN(all_of_a_sandbox_is_reached);
        RUN(many_run_at_once);
        call_init(&c, clock_after(60 * NS_PER_S));
        CHECK(ssh_exec_signal_all(&box, &c, SIGKILL) >= 0);
        (void)usleep(300000);
        helpers_done(&host);
        sftp_unref(current->sftp);
        free(current);
        (void)snprintf(text, sizeof(text), "rm -rf %s", top);
        CHECK(system(text) == 0);
        return check_result();
}
