/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scripts for dash, bash, busybox's ash and whatever else calls itself POSIX. A redirection that
 * fails ends such a shell when it stands at a special built-in (`:`, exec, export, set), hence
 * printf where a file may be refused. "kill -N -GROUP" is the one form that all take. Variables
 * have names that no environment has: an exported one would be seen by the command.
 */

#include "providers/ssh/script.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "providers/provider.h"
#include "providers/quote.h"
#include "providers/ssh/ssh.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"

#define ARG_MAX_ONE ((size_t)128 * 1024) /* of Linux: one string, with its NUL */
#define ARG_MAX_ALL ((size_t)2048 * 1024 - 64 * 1024)
#define TICK_S 5 /* of the watchdog of a long time-out: so much of a pause may be counted */

/* ---- pieces ---- */

/* sbxfs_start PID: its start time in sbxfs_s, "" when there is none. */
static const char start_by_proc[] =
        "sbxfs_start() { sbxfs_s=\n"
        "{ read -r sbxfs_s <\"/proc/$1/stat\"; } 2>/dev/null || return 1\n"
        "sbxfs_s=${sbxfs_s##*) }; set -- $sbxfs_s; sbxfs_s=${20-}\n"
        "[ \"$1\" != Z ] || { sbxfs_s=; return 1; }; }\n";
static const char start_by_kill[] =
        "sbxfs_start() { sbxfs_s=-; kill -0 \"$1\" 2>/dev/null || { sbxfs_s=; return 1; }; }\n";
/* sbxfs_lives FILE: the process that it names. */
static const char lives[] =
        "sbxfs_lives() { sbxfs_p= sbxfs_b= sbxfs_k= sbxfs_s=\n"
        "{ read -r sbxfs_p sbxfs_b sbxfs_k <\"$1\"; } 2>/dev/null\n"
        "[ -n \"$sbxfs_b\" ] && sbxfs_start \"$sbxfs_p\" && [ \"$sbxfs_s\" = \"$sbxfs_b\" ]; }\n";

/*
 * sbxfs_kill SIGNAL: the command of sbxfs_f, after sbxfs_lives. It is told that it runs when setsid
 * is about to be executed, which makes the group a moment later.
 */
static const char kill_group[] = "sbxfs_kill() { sbxfs_n=0\n"
                                 "until kill -$1 \"$sbxfs_k\" 2>/dev/null; do\n"
                                 "[ $sbxfs_n -lt %d ] && sbxfs_lives \"$sbxfs_f.pid\" || return 3\n"
                                 "sbxfs_n=$((sbxfs_n+1)); sleep %s; done; }\n";

static int add_start(struct buf *to, unsigned can)
{
        return buf_add_str(to, can & HOST_PROC ? start_by_proc : start_by_kill);
}

static int add_lives(struct buf *to, unsigned can)
{
        int r = add_start(to, can);

        return r == 0 ? buf_add_str(to, lives) : r;
}

static int add_kill(struct buf *to, unsigned can)
{
        bool is_fine = can & HOST_SLEEP_FRACTION;

        return buf_addf(to, kill_group, is_fine ? 500 : 10, is_fine ? "0.02" : "1");
}

/* ---- the start ---- */

static bool is_name(const char *key)
{
        if (!*key || (*key >= '0' && *key <= '9'))
                return false;
        for (; *key; key++) {
                if (!(*key == '_' || (*key >= '0' && *key <= '9') || (*key >= 'a' && *key <= 'z') ||
                      (*key >= 'A' && *key <= 'Z')))
                        return false;
        }
        return true;
}

static int check_sizes(const struct exec_req *in)
{
        size_t all = 0;

        for (size_t i = 0; in->argv[i]; i++) {
                size_t size = strlen(in->argv[i]) + 1;

                if (size > ARG_MAX_ONE)
                        return -E2BIG;
                all += size + sizeof(char *);
        }
        for (size_t i = 0; i < in->env_count; i++) {
                size_t size = strlen(in->env[i].key) + strlen(in->env[i].value) + 2;

                if (!is_name(in->env[i].key))
                        return -EINVAL;
                if (size > ARG_MAX_ONE)
                        return -E2BIG;
                all += size + sizeof(char *);
        }
        return all > ARG_MAX_ALL ? -E2BIG : 0;
}

static const char head[] =
        /* sbxfs_no WHAT WHY: it is not started, and never will be */
        "sbxfs_no() { printf 'refused %s %s\\n' \"$1\" \"$2\" >\"$sbxfs_f.rc\"\n"
        "printf '\\n%s refused %s %s\\n' \"$sbxfs_t\" \"$1\" \"$2\" >&9; exit 0; }\n"
        "exec 9>&1 </dev/null\n"
        "trap : HUP PIPE TERM INT QUIT\n"
        "if ! [ -d \"$sbxfs_r\" ]; then\n"
        "[ -d \"$sbxfs_d\" ] || { printf '\\n%s refused box ENODEV\\n' \"$sbxfs_t\"; exit 0; }\n"
        "mkdir -m 700 \"$sbxfs_r\" 2>/dev/null; fi\n"
        "sbxfs_start $sbxfs_u\n"
        "set -C\n"
        "{ printf '%s %s\\n' $sbxfs_u \"$sbxfs_s\" >\"$sbxfs_f.up\"; } 2>/dev/null ||\n"
        "{ [ -e \"$sbxfs_f.up\" ] && sbxfs_x=EEXIST || sbxfs_x=EACCES\n"
        "printf '\\n%s refused run %s\\n' \"$sbxfs_t\" $sbxfs_x; exit 0; }\n"
        "set +C\n"
        "exec 2>\"$sbxfs_f.sup\"\n";

/* Copies what came for stdin, piece by piece; a command that closed it swallows the rest. */
static const char feeder[] =
        "mkfifo -m 600 \"$sbxfs_f.fifo\" \"$sbxfs_f.wake\" || sbxfs_no stdin EIO\n"
        "(\n"
        "exec 9>&- >/dev/null 2>&1 4<>\"$sbxfs_f.wake\" 6>\"$sbxfs_f.fifo\"\n"
        "sbxfs_o=0 sbxfs_x=\n"
        "while :; do\n"
        "for sbxfs_i in \"$sbxfs_f\".in.$sbxfs_o.*; do\n"
        "case $sbxfs_i in *.eof) exit;; esac\n"
        "[ -e \"$sbxfs_i\" ] || break\n"
        "[ -n \"$sbxfs_x\" ] || cat \"$sbxfs_i\" >&6 || sbxfs_x=closed\n"
        "sbxfs_o=${sbxfs_i##*.}\n"
        "printf '%s\\n' \"$sbxfs_o\" >\"$sbxfs_f.took\"\n"
        "rm -f \"$sbxfs_i\"\n"
        "continue 2\n"
        "done\n"
        "read -r sbxfs_i <&4 || exit\n"
        "done\n"
        ") &\n"
        "sbxfs_e=$!\n";

/* After `sbxfs_z`'s waits. */
static const char watchdog_end[] =
        "printf 't\\n' >\"$sbxfs_f.late\"\n"
        "sbxfs_lives \"$sbxfs_f.pid\" || [ -z \"$sbxfs_s\" ] && sbxfs_kill TERM\n"
        "trap '' TERM\n"
        "sleep 5\n"
        "sbxfs_lives \"$sbxfs_f.pid\" || [ -z \"$sbxfs_s\" ] && kill -KILL \"$sbxfs_k\"\n"
        ") &\n"
        "sbxfs_w=$!\n"
        "printf '%s\\n' $sbxfs_w >\"$sbxfs_f.dog\"\n";

static int add_watchdog(struct buf *to, const struct script_exec *s)
{
        uint64_t ms = (s->in->timeout_ns + NS_PER_MS - 1) / NS_PER_MS;
        uint64_t seconds, rest_ms;
        unsigned tick = ms > UINT64_C(120000) ? TICK_S : 1;
        int r = buf_add_str(to, "(\n"
                                "exec 9>&- >/dev/null 2>&1\n"
                                "trap 'kill $sbxfs_z; exit' TERM\n"
                                "sbxfs_wait() { sleep \"$1\" & sbxfs_z=$!; wait $sbxfs_z; }\n");

        if (!(s->can & HOST_SLEEP_FRACTION))
                ms = (ms + 999) / 1000 * 1000;
        seconds = ms / 1000;
        rest_ms = ms % 1000 + seconds % tick * 1000;
        if (r == 0 && rest_ms % 1000 > 0)
                r = buf_addf(to, "sbxfs_wait %" PRIu64 ".%03" PRIu64 "\n", rest_ms / 1000,
                             rest_ms % 1000);
        else if (r == 0 && rest_ms > 0)
                r = buf_addf(to, "sbxfs_wait %" PRIu64 "\n", rest_ms / 1000);
        if (r == 0)
                r = buf_addf(to,
                             "sbxfs_n=%" PRIu64 "\n"
                             "while [ $sbxfs_n -gt 0 ]; do\n"
                             "sbxfs_wait %u; sbxfs_n=$((sbxfs_n-1)); done\n",
                             seconds / tick, tick);
        return r == 0 ? buf_add_str(to, watchdog_end) : r;
}

/* What is wrong with argv[0], if anything: before it is said that it was started. */
static const char look[] =
        "case $1 in\n"
        "*/*) [ -e \"$1\" ] || sbxfs_no command ENOENT\n"
        "[ -x \"$1\" ] && ! [ -d \"$1\" ] || sbxfs_no command EACCES;;\n"
        "*) sbxfs_x=\n"
        "sbxfs_i=$IFS; IFS=:; set -f\n"
        "for sbxfs_y in $PATH; do [ -f \"${sbxfs_y:-.}/$1\" ] && [ -x \"${sbxfs_y:-.}/$1\" ] && "
        "sbxfs_x=y && break; done\n"
        "IFS=$sbxfs_i\n"
        "[ -n \"$sbxfs_x\" ] || command -v -- \"$1\" >/dev/null 2>&1 || sbxfs_no command ENOENT;;\n"
        "esac\n";

static const char go_by_proc[] = "read -r sbxfs_s </proc/self/stat\n"
                                 "sbxfs_p=${sbxfs_s%% *} sbxfs_s=${sbxfs_s##*) }\n"
                                 "sbxfs_i() { sbxfs_s=${20}; }; sbxfs_i $sbxfs_s\n";
/* $$ is the supervisor's in a subshell: a shell of its own knows its pid. */
static const char go_by_sh[] = "sbxfs_p=$(exec sh -c 'echo $PPID') sbxfs_s=-\n";

static const char go_end[] =
        "printf '%s %s %s\\n' \"$sbxfs_p\" \"$sbxfs_s\" \"$sbxfs_k\" >\"$sbxfs_f.pid\"\n"
        "printf '\\n%s started %s\\n' \"$sbxfs_t\" \"$sbxfs_p\" >&9\n";

static int add_cd(struct buf *to, const struct script_exec *s)
{
        const char *cwd = s->in->cwd;
        int r = quote_addf(to, "cd %s 2>/dev/null || sbxfs_no work ENOENT\n", s->work);

        if (r == 0 && cwd && *cwd)
                r = quote_addf(to,
                               "sbxfs_x=%s\n"
                               "cd -- \"$sbxfs_x\" 2>/dev/null || {\n"
                               "[ -e \"$sbxfs_x\" ] || sbxfs_no cwd ENOENT\n"
                               "[ -d \"$sbxfs_x\" ] || sbxfs_no cwd ENOTDIR\n"
                               "sbxfs_no cwd EACCES; }\n",
                               cwd);
        return r;
}

static int add_env(struct buf *to, const struct script_exec *s)
{
        int r = buf_add_str(to, "[ -e \"$sbxfs_d/env\" ] && . \"$sbxfs_d/env\"\n");

        for (size_t i = 0; r == 0 && i < s->in->env_count; i++) {
                r = buf_addf(to, "export %s=", s->in->env[i].key);
                if (r == 0)
                        r = quote_add(to, s->in->env[i].value);
                if (r == 0)
                        r = buf_add_char(to, '\n');
        }
        return r == 0 ? quote_addf(to, "export SBXFS_BOX=%s\n", s->box) : r;
}

static int add_argv(struct buf *to, const struct script_exec *s)
{
        int r = buf_add_str(to, "set -- ");

        if (r == 0)
                r = quote_add_words(to, s->in->argv);
        return r == 0 ? buf_add_char(to, '\n') : r;
}

/* The child, up to the command itself. */
static int add_child(struct buf *to, const struct script_exec *s)
{
        bool has_session = s->can & HOST_SETSID;
        int r = buf_add_str(to, "(\n");

        if (r == 0)
                r = add_cd(to, s);
        if (r == 0)
                r = add_env(to, s);
        if (r == 0)
                r = buf_add_str(to, s->can & HOST_PROC ? go_by_proc : go_by_sh);
        if (r == 0)
                r = add_argv(to, s);
        if (r == 0)
                r = buf_add_str(to, look);
        if (r == 0)
                r = buf_add_str(to, has_session ? "sbxfs_k=-$sbxfs_p\n" : "sbxfs_k=$sbxfs_p\n");
        if (r == 0)
                r = buf_add_str(to, go_end);
        if (r == 0)
                r = buf_add_str(to, has_session ? "exec setsid -- \"$@\" 9>&-\n"
                                                : "exec \"$@\" 9>&-\n");
        if (r == 0)
                r = buf_addf(to, ") >>\"$sbxfs_f.out\" 2>>\"$sbxfs_f.err\"%s\n",
                             s->in->has_stdin ? " <\"$sbxfs_f.fifo\"" : "");
        return r;
}

static const char tail[] = "sbxfs_c=$?\n"
                           /* refused */
                           "[ -e \"$sbxfs_f.up\" ] && ! [ -s \"$sbxfs_f.rc\" ] || exit 0\n"
                           "[ -s \"$sbxfs_f.pid\" ] || sbxfs_no shell EIO\n"
                           "sbxfs_m=- sbxfs_l=- sbxfs_s=-\n"
                           "[ -s \"$sbxfs_f.sup\" ] && sbxfs_m=m\n"
                           "[ -s \"$sbxfs_f.late\" ] && sbxfs_l=t\n"
                           "[ -s \"$sbxfs_f.sent\" ] && read -r sbxfs_s <\"$sbxfs_f.sent\"\n"
                           "sbxfs_x=\"end $sbxfs_c $sbxfs_m $sbxfs_l $sbxfs_s\"\n"
                           "printf '%s\\n' \"$sbxfs_x\" >\"$sbxfs_f.rc\"\n"
                           "[ -n \"$sbxfs_e\" ] && kill $sbxfs_e 2>/dev/null\n"
                           "[ -n \"$sbxfs_w\" ] && [ $sbxfs_l = - ] && kill $sbxfs_w 2>/dev/null\n";

static const char report_inline[] =
        "printf '\\n%s %s\\n%s out\\n' \"$sbxfs_t\" \"$sbxfs_x\" \"$sbxfs_t\"\n"
        "[ -s \"$sbxfs_f.out\" ] && head -c 65536 \"$sbxfs_f.out\"\n"
        "printf '\\n%s err\\n' \"$sbxfs_t\"\n"
        "[ -s \"$sbxfs_f.err\" ] && head -c 65536 \"$sbxfs_f.err\"\n"
        "printf '\\n%s done\\n' \"$sbxfs_t\"\n";
/* Without head -c all is fetched. */
static const char report_only[] =
        "printf '\\n%s %s\\n%s none\\n' \"$sbxfs_t\" \"$sbxfs_x\" \"$sbxfs_t\"\n";

/*
 * In a subshell, $$ is the shell that it came from. Not by `&`: what is started so ignores SIGINT,
 * and so would the command.
 */
static const char detach[] = "(\n"
                             "read -r sbxfs_u </proc/self/stat\n"
                             "sbxfs_u=${sbxfs_u%% *}\n"
                             "kill -9 $$\n";

static int add_values(struct buf *to, const struct script_exec *s)
{
        int r = quote_addf(to,
                           "{\n"
                           "unset sbxfs_e sbxfs_w\n"
                           "sbxfs_t=%s sbxfs_d=%s sbxfs_r=%s sbxfs_f=%s\n",
                           s->token, s->dir, s->run, s->prefix);

        return r == 0 ? buf_add_str(to, s->detaches ? detach : "sbxfs_u=$$\n") : r;
}

int script_start(struct buf *to, const struct script_exec *s)
{
        int r = check_sizes(s->in);

        if (r == 0)
                r = add_values(to, s);
        if (r == 0)
                r = add_lives(to, s->can);
        if (r == 0)
                r = buf_add_str(to, head);
        if (r == 0 && s->in->has_stdin)
                r = buf_add_str(to, feeder);
        if (r == 0 && s->in->timeout_ns > 0)
                r = add_kill(to, s->can);
        if (r == 0 && s->in->timeout_ns > 0)
                r = add_watchdog(to, s);
        if (r == 0)
                r = add_child(to, s);
        if (r == 0)
                r = buf_add_str(to, tail);
        if (r == 0)
                r = buf_add_str(to, s->can & HOST_HEAD_C ? report_inline : report_only);
        return r == 0 ? buf_add_str(to, s->detaches ? "exit 0\n)\n}\n" : "exit 0\n}\n") : r;
}

/* ---- attach ---- */

static const char attach[] =
        "set -C\n"
        "if [ -n \"$sbxfs_y\" ]; then\n"
        "{ printf 'none\\n' >\"$sbxfs_f.up\"; } 2>/dev/null && echo none && exit 0; fi\n"
        "set +C\n"
        "sbxfs_x=; { read -r sbxfs_x <\"$sbxfs_f.up\"; } 2>/dev/null\n"
        "case $sbxfs_x in ''|none) echo none; exit 0;; esac\n"
        /* It is just being started. */
        "for sbxfs_i in 1 2 3 4 5 6 7 8 9 10; do\n"
        "[ -s \"$sbxfs_f.pid\" ] || [ -s \"$sbxfs_f.rc\" ] && break\n"
        "sbxfs_lives \"$sbxfs_f.up\" || break\n"
        "sleep 0.1 2>/dev/null || sleep 1\n"
        "done\n"
        "sbxfs_a=0; sbxfs_lives \"$sbxfs_f.up\" && sbxfs_a=1\n"
        "sbxfs_lives \"$sbxfs_f.pid\" && sbxfs_a=1\n"
        "echo alive $sbxfs_a\n"
        "for sbxfs_i in rc pid took hole.0 hole.1; do\n"
        "sbxfs_x=; { read -r sbxfs_x <\"$sbxfs_f.$sbxfs_i\"; } 2>/dev/null &&\n"
        "echo $sbxfs_i $sbxfs_x\n"
        "done\n"
        "for sbxfs_i in \"$sbxfs_f\".in.*; do\n"
        "[ -e \"$sbxfs_i\" ] || continue\n"
        "sbxfs_x=${sbxfs_i#\"$sbxfs_f\".in.}\n"
        "echo in ${sbxfs_x%%.*} ${sbxfs_x#*.}\n"
        "done\n"
        "exit 0\n";

int script_attach(struct buf *to, const char *prefix, unsigned can, bool fence)
{
        int r = add_lives(to, can);

        if (r == 0)
                r = quote_addf(to, "sbxfs_f=%s sbxfs_y=%s\n", prefix, fence ? "y" : "");
        return r == 0 ? buf_add_str(to, attach) : r;
}

int script_probe(struct buf *to, const char *const *prefixes, size_t count, unsigned can)
{
        int r = add_lives(to, can);

        if (r == 0)
                r = buf_add_str(to, "for sbxfs_f in");
        for (size_t i = 0; r == 0 && i < count; i++)
                r = quote_addf(to, " %s", prefixes[i]);
        if (r == 0)
                r = buf_add_str(
                        to,
                        "; do\n"
                        "sbxfs_a=dead; sbxfs_lives \"$sbxfs_f.up\" && sbxfs_a=alive\n"
                        "[ $sbxfs_a = alive ] || sbxfs_lives \"$sbxfs_f.pid\" && sbxfs_a=alive\n"
                        "sbxfs_x=; { read -r sbxfs_x <\"$sbxfs_f.rc\"; } 2>/dev/null && "
                        "sbxfs_a=\"rc $sbxfs_x\"\n"
                        "echo $sbxfs_a\n"
                        "done\n"
                        "exit 0\n");
        return r;
}

/* ---- signals, stdin, leavings ---- */

int script_signal(struct buf *to, const char *prefix, unsigned can, int signal)
{
        int r = add_lives(to, can);

        if (r == 0)
                r = add_kill(to, can);
        if (r == 0)
                r = quote_addf(to, "sbxfs_f=%s\n", prefix);
        if (r == 0)
                r = buf_addf(to,
                             "sbxfs_lives \"$sbxfs_f.pid\" || [ -z \"$sbxfs_s\" ] || exit 3\n"
                             "[ -n \"$sbxfs_k\" ] || exit 3\n"
                             "echo %d >\"$sbxfs_f.sent\"\n"
                             "sbxfs_kill %d || exit 3\n",
                             signal, signal);
        return r;
}

/* As a format of printf(1), which is built in and takes NULs as \000. */
static int add_bytes(struct buf *to, const unsigned char *data, size_t size)
{
        char *at = buf_reserve(to, 4 * size);
        size_t n = 0;

        if (!at)
                return -ENOMEM;
        for (size_t i = 0; i < size; i++) {
                if (data[i] >= ' ' && data[i] < 127 && data[i] != '\'' && data[i] != '\\' &&
                    data[i] != '%') {
                        at[n++] = (char)data[i];
                } else {
                        at[n++] = '\\';
                        at[n++] = (char)('0' + (data[i] >> 6));
                        at[n++] = (char)('0' + (data[i] >> 3 & 7));
                        at[n++] = (char)('0' + (data[i] & 7));
                }
        }
        to->size += n;
        return 0;
}

int script_feed(struct buf *to, const char *prefix, uint64_t offset, const void *data, size_t size,
                bool is_last)
{
        int r = quote_addf(to, "sbxfs_f=%s\n[ -p \"$sbxfs_f.wake\" ] || exit 3\n", prefix);

        if (r == 0 && size > 0 && data) {
                r = buf_add_str(to, "printf '");
                if (r == 0)
                        r = add_bytes(to, data, size);
                if (r == 0)
                        r = buf_add_str(to, "' >\"$sbxfs_f.feed\" || exit 1\n");
        }
        if (r == 0 && size > 0)
                r = buf_addf(to,
                             "mv -f \"$sbxfs_f.feed\" \"$sbxfs_f.in.%" PRIu64 ".%" PRIu64
                             "\" || exit 1\n",
                             offset, offset + size);
        if (r == 0 && is_last)
                r = buf_addf(to, "printf x >\"$sbxfs_f.in.%" PRIu64 ".eof\" || exit 1\n",
                             offset + size);
        return r == 0 ? buf_add_str(to, "printf '\\n' 1<>\"$sbxfs_f.wake\"\n") : r;
}

/* N.pid stays while there is somebody to signal; who went meanwhile is removed with the next. */
static const char remove_dead[] =
        "for sbxfs_i in *.pid; do\n"
        "[ -e \"$sbxfs_i\" ] && ! [ -e \"${sbxfs_i%pid}up\" ] || continue\n"
        "sbxfs_lives \"$sbxfs_i\" || [ -z \"$sbxfs_s\" ] && kill -0 \"$sbxfs_k\" 2>/dev/null "
        "|| rm -f -- \"$sbxfs_i\"\n"
        "done\n";

int script_remove(struct buf *to, const char *run, unsigned can,
                  const char (*names)[SCRIPT_NAME_SIZE], size_t count)
{
        int r = add_lives(to, can);

        if (r == 0)
                r = quote_addf(to, "cd %s 2>/dev/null || exit 0\nrm -f --", run);
        for (size_t i = 0; r == 0 && i < count; i++)
                r = quote_addf(to, " %s.[!p]*", names[i]);
        if (r == 0)
                r = buf_add_char(to, '\n');
        return r == 0 ? buf_add_str(to, remove_dead) : r;
}

int script_punch(struct buf *to, const char *prefix, unsigned stream, uint64_t size)
{
        int r = quote_addf(to, "sbxfs_f=%s\n", prefix);

        if (r == 0)
                r = buf_addf(to,
                             "fallocate -p -o 0 -l %" PRIu64 " \"$sbxfs_f.%s\" && "
                             "echo %" PRIu64 " >\"$sbxfs_f.hole.%u\"\n",
                             size, stream == 0 ? "out" : "err", size, stream);
        return r;
}

/* ---- all of a sandbox ---- */

/* sbxfs_g: the groups of its commands that may live. */
static const char groups[] =
        "sbxfs_n=0 sbxfs_g=' ' sbxfs_d=\n"
        "for sbxfs_i in \"$sbxfs_r\"/*.pid; do\n"
        "sbxfs_lives \"$sbxfs_i\" || [ -z \"$sbxfs_s\" ] || continue\n"
        "[ -n \"$sbxfs_k\" ] && kill -0 \"$sbxfs_k\" 2>/dev/null || continue\n"
        "sbxfs_g=\"$sbxfs_g$sbxfs_k \"\n"
        "sbxfs_x=; { read -r sbxfs_x <\"${sbxfs_i%.pid}.dog\"; } 2>/dev/null && "
        "sbxfs_d=\"$sbxfs_d $sbxfs_x\"\n"
        "done\n";
/*
 * sbxfs_n: how many groups have a process that is no zombie. sbxfs_o: strays, by their session, or
 * by the mark in their environment.
 */
static const char walk_proc[] =
        "sbxfs_l=' ' sbxfs_o=' '\n"
        "for sbxfs_i in /proc/[0-9]*/stat; do\n"
        "{ read -r sbxfs_x <\"$sbxfs_i\"; } 2>/dev/null || continue\n"
        "sbxfs_i=${sbxfs_i#/proc/}; sbxfs_i=${sbxfs_i%/stat}\n"
        "sbxfs_x=${sbxfs_x##*) }; set -- $sbxfs_x\n"
        "case $1 in Z|X) continue;; esac\n"
        "case $sbxfs_g in\n"
        "*\" -$3 \"*) sbxfs_i=-$3;;\n"
        "*\" -$4 \"*|*\" $sbxfs_i \"*) ;;\n"
        "*) continue;;\n"
        "esac\n"
        "case $sbxfs_l in *\" $sbxfs_i \"*) continue;; esac\n"
        "sbxfs_l=\"$sbxfs_l$sbxfs_i \" sbxfs_n=$((sbxfs_n+1))\n"
        "case $sbxfs_i in -*) ;; *) sbxfs_o=\"$sbxfs_o$sbxfs_i \";; esac\n"
        "done\n"
        "for sbxfs_i in $(grep -l -F \"SBXFS_BOX=$sbxfs_y\" /proc/[0-9]*/environ 2>/dev/null); do\n"
        "sbxfs_p=${sbxfs_i#/proc/}; sbxfs_p=${sbxfs_p%/environ}\n"
        "{ read -r sbxfs_x <\"/proc/$sbxfs_p/stat\"; } 2>/dev/null || continue\n"
        "sbxfs_x=${sbxfs_x##*) }; set -- $sbxfs_x\n"
        "case $1 in Z|X) continue;; esac\n"
        "case $sbxfs_g$sbxfs_o in *\" -$3 \"*|*\" $sbxfs_p \"*) continue;; esac\n"
        "tr '\\000' '\\n' <\"$sbxfs_i\" 2>/dev/null | "
        "grep -Fqx \"SBXFS_BOX=$sbxfs_y\" || continue\n"
        "sbxfs_n=$((sbxfs_n+1)) sbxfs_o=\"$sbxfs_o$sbxfs_p \"\n"
        "done\n";
static const char walk_groups[] = "sbxfs_o=\n"
                                  "for sbxfs_i in $sbxfs_g; do sbxfs_n=$((sbxfs_n+1)); done\n";
/* A watchdog counts no time while its command is paused. */
static const char signal_them[] =
        "case $sbxfs_q in 0) sbxfs_g= sbxfs_o= sbxfs_d=;; 18|19) ;; *) sbxfs_d=;; esac\n"
        "for sbxfs_i in $sbxfs_g $sbxfs_o $sbxfs_d; do kill -$sbxfs_q $sbxfs_i 2>/dev/null; done\n";

int script_signal_all(struct buf *to, const char *run, const char *box, unsigned can, int signal)
{
        int r = add_lives(to, can);

        if (r == 0)
                r = quote_addf(to, "sbxfs_r=%s sbxfs_y=%s ", run, box);
        if (r == 0)
                r = buf_addf(to, "sbxfs_q=%d\n", signal);
        if (r == 0)
                r = buf_add_str(to, groups);
        if (r == 0)
                r = buf_add_str(to, can & HOST_PROC ? walk_proc : walk_groups);
        if (r == 0)
                r = buf_add_str(to, signal_them);
        return r == 0 ? buf_add_str(to, "echo $sbxfs_n\nexit 0\n") : r;
}
