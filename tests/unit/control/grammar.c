/* SPDX-License-Identifier: Apache-2.0 */
/* Each rule of the ctl language, and each sentence that it can answer with. */

#include "fs/control/grammar.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define S NS_PER_S

static const char *subject = ""; /* the line that is looked at, for messages */

#define HOLDS(condition)                                                                           \
        do {                                                                                       \
                if (!CHECK(condition))                                                             \
                        (void)fprintf(stderr, "    for: %s\n", subject);                           \
        } while (0)
#define SAME(is, expected)                                                                         \
        do {                                                                                       \
                if (!CHECK_STR(is, expected))                                                      \
                        (void)fprintf(stderr, "    for: %s\n", subject);                           \
        } while (0)

static int parse_sized(enum grammar_scope scope, const char *line, size_t size, struct command *ret,
                       struct call *c)
{
        /* Exactly as large as it is, so that the address sanitizer sees a read past its end. */
        char *copy = malloc(size ? size : 1);
        int r;

        if (!copy)
                abort();
        memcpy(copy, line, size);
        call_init(c, NEVER_NS);
        r = grammar_parse(scope, copy, size, ret, c);
        free(copy);
        return r;
}

static int parse(enum grammar_scope scope, const char *line, struct command *ret, struct call *c)
{
        subject = line;
        return parse_sized(scope, line, strlen(line), ret, c);
}

/* "a|b|c" of words, for comparing. */
static char *join_words(char **words, size_t count)
{
        struct buf b = BUF_INIT(1 << 20);

        for (size_t i = 0; i < count; i++)
                (void)buf_addf(&b, "%s%s", i ? "|" : "", words[i]);
        return buf_steal(&b);
}

static char *join_pairs(const struct pair *pairs, size_t count)
{
        struct buf b = BUF_INIT(1 << 20);

        for (size_t i = 0; i < count; i++)
                (void)buf_addf(&b, "%s%s=%s", i ? "|" : "", pairs[i].key, pairs[i].value);
        return buf_steal(&b);
}

/* ---- what is taken ---- */

struct good {
        enum grammar_scope scope;
        const char *line;
        enum verb verb;
        const char *shown; /* NULL: the line itself */
        const char *target, *provider, *id, *options; /* options as "k=v|k=v"; NULL: none */
        const char *text, *argv; /* argv as "a|b" */
        const char *name, *cwd, *user, *env, *stdin_data;
        uint64_t timeout_ns, span_ns;
        int signal;
        bool is_open, is_ignoring, is_on;
};

static const struct good goods[] = {
        /* nothing to do */
        {GRAMMAR_ROOT, "", VERB_NONE, .shown = ""},
        {GRAMMAR_SANDBOX, "  \t ", VERB_NONE, .shown = ""},
        {GRAMMAR_SANDBOX, "\r", VERB_NONE, .shown = ""},
        {GRAMMAR_TASK, "# kill 'it", VERB_NONE, .shown = ""},
        {GRAMMAR_SANDBOX, "  #\tstop", VERB_NONE, .shown = ""},

        /* verbs without words */
        {GRAMMAR_ROOT, "refresh", VERB_REFRESH, .shown = NULL},
        {GRAMMAR_ROOT, "reload", VERB_RELOAD, .shown = NULL},
        {GRAMMAR_SANDBOX, "refresh", VERB_REFRESH, .shown = NULL},
        {GRAMMAR_SANDBOX, "start", VERB_START, .shown = NULL},
        {GRAMMAR_SANDBOX, " stop\t\r", VERB_STOP, .shown = "stop\t"},
        {GRAMMAR_SANDBOX, "'re'start", VERB_RESTART, .shown = NULL},
        {GRAMMAR_SANDBOX, "pause", VERB_PAUSE, .shown = NULL},
        {GRAMMAR_SANDBOX, "resume", VERB_RESUME, .shown = NULL},
        {GRAMMAR_SANDBOX, "destroy", VERB_DESTROY, .shown = NULL},
        {GRAMMAR_SANDBOX, "sync", VERB_SYNC, .shown = NULL},
        {GRAMMAR_SANDBOX, "retry", VERB_RETRY, .shown = NULL},

        /* create, adopt */
        {GRAMMAR_ROOT, "create web", VERB_CREATE, .target = "web"},
        {GRAMMAR_ROOT, "create 'web'  provider=local\tcpu=2 memory=4G", VERB_CREATE,
         .target = "web", .provider = "local", .options = "cpu=2|memory=4G"},
        {GRAMMAR_ROOT, "create w image='a b' label.k=\"v w\" mount.1=/a:/b:ro workdir=",
         VERB_CREATE, .target = "w", .options = "image=a b|label.k=v w|mount.1=/a:/b:ro|workdir="},
        {GRAMMAR_ROOT, "create w env.KEY='top secret' cpu=1 env.E= env.F=x", VERB_CREATE,
         .shown = "create w env.KEY=*** cpu=1 env.E=*** env.F=***", .target = "w",
         .options = "env.KEY=top secret|cpu=1|env.E=|env.F=x"},
        {GRAMMAR_ROOT, "adopt docker:abc:d", VERB_ADOPT, .provider = "docker", .id = "abc:d"},
        {GRAMMAR_ROOT, "adopt docker:abc as web", VERB_ADOPT, .provider = "docker", .id = "abc",
         .target = "web"},

        /* exec: the text as it is */
        {GRAMMAR_SANDBOX, "exec ls", VERB_EXEC, .text = "ls"},
        {GRAMMAR_SANDBOX, "exec  echo  \"a  b\" '$x' \\n # c ", VERB_EXEC,
         .text = "echo  \"a  b\" '$x' \\n # c "},
        {GRAMMAR_SANDBOX, "exec echo it's unclosed\r", VERB_EXEC, .text = "echo it's unclosed",
         .shown = "exec echo it's unclosed"},
        {GRAMMAR_SANDBOX, "exec printf \xff\xfe", VERB_EXEC, .text = "printf \xff\xfe"},
        {GRAMMAR_SANDBOX, "exec 'ls' -l", VERB_EXEC, .text = "'ls' -l"},
        /* its options */
        {GRAMMAR_SANDBOX, "exec name=build cwd='a b' user=bob timeout=1m30s make all", VERB_EXEC,
         .text = "make all", .name = "build", .cwd = "a b", .user = "bob", .timeout_ns = 90 * S},
        {GRAMMAR_SANDBOX, "exec stdin=open unsent=ignore cat", VERB_EXEC, .text = "cat",
         .is_open = true, .is_ignoring = true},
        {GRAMMAR_SANDBOX, "exec env.A=1 env.B='x y' env.C= env.D=\"q\\\"\" env", VERB_EXEC,
         .shown = "exec env.A=*** env.B=*** env.C=*** env.D=*** env", .text = "env",
         .env = "A=1|B=x y|C=|D=q\""},
        {GRAMMAR_SANDBOX, "exec timeout=0 a", VERB_EXEC, .text = "a"},
        {GRAMMAR_SANDBOX, "exec timeout=none a", VERB_EXEC, .text = "a"},
        /* where they end */
        {GRAMMAR_SANDBOX, "exec PATH=/x make", VERB_EXEC, .text = "PATH=/x make"},
        {GRAMMAR_SANDBOX, "exec cwd=/a X=1 cwd=/b make", VERB_EXEC, .text = "X=1 cwd=/b make",
         .cwd = "/a"},
        {GRAMMAR_SANDBOX, "exec 'cwd=/a' make", VERB_EXEC, .text = "'cwd=/a' make"},
        {GRAMMAR_SANDBOX, "exec timeout 5 make", VERB_EXEC, .text = "timeout 5 make"},
        {GRAMMAR_SANDBOX, "exec =x", VERB_EXEC, .text = "=x"},
        {GRAMMAR_SANDBOX, "exec environment=x y", VERB_EXEC, .text = "environment=x y"},
        {GRAMMAR_SANDBOX, "exec env=x y", VERB_EXEC, .text = "env=x y"},
        {GRAMMAR_SANDBOX, "exec CWD=/x y", VERB_EXEC, .text = "CWD=/x y"},
        /* -- */
        {GRAMMAR_SANDBOX, "exec -- cwd=/a x", VERB_EXEC, .text = "cwd=/a x"},
        {GRAMMAR_SANDBOX, "exec cwd=/a -- PATH=/x make", VERB_EXEC, .text = "PATH=/x make",
         .cwd = "/a"},
        {GRAMMAR_SANDBOX, "exec --   two", VERB_EXEC, .text = "two"},
        {GRAMMAR_SANDBOX, "exec -- -- x", VERB_EXEC, .text = "-- x"},
        {GRAMMAR_SANDBOX, "exec make -- all", VERB_EXEC, .text = "make -- all"},
        {GRAMMAR_SANDBOX, "exec PATH=/x make -- all", VERB_EXEC, .text = "PATH=/x make -- all"},
        {GRAMMAR_SANDBOX, "exec X='a -- b", VERB_EXEC, .text = "X='a -- b"},
        {GRAMMAR_SANDBOX, "exec --version", VERB_EXEC, .text = "--version"},

        /* execv: words */
        {GRAMMAR_SANDBOX, "execv ls", VERB_EXECV, .argv = "ls"},
        {GRAMMAR_SANDBOX, "execv cwd=/tmp printf '%s\\n' \"a b\" c\\ d '' x'y'\"z\"", VERB_EXECV,
         .argv = "printf|%s\\n|a b|c d||xyz", .cwd = "/tmp"},
        {GRAMMAR_SANDBOX, "execv -- cwd=x y", VERB_EXECV, .argv = "cwd=x|y"},
        {GRAMMAR_SANDBOX, "execv git checkout -- file", VERB_EXECV, .argv = "git|checkout|--|file"},
        {GRAMMAR_SANDBOX, "execv echo $HOME ~ * `x` $(y) a;b", VERB_EXECV,
         .argv = "echo|$HOME|~|*|`x`|$(y)|a;b"},
        {GRAMMAR_SANDBOX, "execv e \"\\\\ \\\" \\$ \\` \\n \\x\" \\\\ \\n '\\n'", VERB_EXECV,
         .argv = "e|\\ \" $ ` \\n \\x|\\|n|\\n"},

        /* kill, eof */
        {GRAMMAR_SANDBOX, "kill", VERB_KILL, .shown = NULL},
        {GRAMMAR_SANDBOX, "kill 3", VERB_KILL, .target = "3"},
        {GRAMMAR_SANDBOX, "kill -9", VERB_KILL, .signal = 9},
        {GRAMMAR_SANDBOX, "kill -SIGINT build", VERB_KILL, .signal = 2, .target = "build"},
        {GRAMMAR_SANDBOX, "kill -hup 'x'", VERB_KILL, .signal = 1, .target = "x"},
        {GRAMMAR_SANDBOX, "kill -sigusr1", VERB_KILL, .signal = 10},
        {GRAMMAR_SANDBOX, "kill -64", VERB_KILL, .signal = 64},
        {GRAMMAR_TASK, "kill", VERB_KILL, .shown = NULL},
        {GRAMMAR_TASK, "kill -KILL", VERB_KILL, .signal = 9},
        {GRAMMAR_SANDBOX, "eof", VERB_EOF, .shown = NULL},
        {GRAMMAR_SANDBOX, "eof build", VERB_EOF, .target = "build"},
        {GRAMMAR_TASK, "eof", VERB_EOF, .shown = NULL},

        /* the rest */
        {GRAMMAR_SANDBOX, "timeout 1h", VERB_TIMEOUT, .span_ns = 3600 * S},
        {GRAMMAR_SANDBOX, "timeout 90", VERB_TIMEOUT, .span_ns = 90 * S},
        {GRAMMAR_SANDBOX, "timeout none", VERB_TIMEOUT, .shown = NULL},
        {GRAMMAR_SANDBOX, "timeout 0", VERB_TIMEOUT, .shown = NULL},
        {GRAMMAR_SANDBOX, "label a=b=c", VERB_LABEL, .options = "a=b=c"},
        {GRAMMAR_SANDBOX, "label 'a=x y'", VERB_LABEL, .options = "a=x y"},
        {GRAMMAR_SANDBOX, "label a=", VERB_LABEL, .options = "a="},
        {GRAMMAR_SANDBOX, "protect on", VERB_PROTECT, .is_on = true},
        {GRAMMAR_SANDBOX, "protect off", VERB_PROTECT, .shown = NULL},
        {GRAMMAR_SANDBOX, "discard 'a b/c'", VERB_DISCARD, .target = "a b/c"},

        /* JSON */
        {GRAMMAR_SANDBOX,
         "{\"verb\":\"exec\",\"argv\":[\"make\",\"te st\"],\"timeout\":\"5m\",\"env\":{\"A\":\"s3\","
         "\"B\":2},\"stdin\":\"in\\n\"}",
         VERB_EXECV,
         .shown = "{\"verb\":\"exec\",\"argv\":[\"make\",\"te st\"],\"timeout\":\"5m\",\"env\":{"
                  "\"A\":\"***\",\"B\":\"***\"},\"stdin\":\"***\"}",
         .argv = "make|te st", .timeout_ns = 300 * S, .env = "A=s3|B=2", .stdin_data = "in\n"},
        {GRAMMAR_SANDBOX, " { \"verb\" : \"exec\" , \"text\" : \"a\\nb 'c\" } ", VERB_EXEC,
         .shown = "{\"verb\":\"exec\",\"text\":\"a\\nb 'c\"}", .text = "a\nb 'c"},
        {GRAMMAR_SANDBOX,
         "{\"verb\":\"exec\",\"text\":\"x\",\"name\":\"n\",\"cwd\":\"/c\",\"user\":\"u\","
         "\"timeout\":5,\"unsent\":\"ignore\",\"env.Q\":\"secret\",\"stdin\":true}",
         VERB_EXEC,
         .shown = "{\"verb\":\"exec\",\"text\":\"x\",\"name\":\"n\",\"cwd\":\"/c\",\"user\":\"u\","
                  "\"timeout\":5,\"unsent\":\"ignore\",\"env.Q\":\"***\",\"stdin\":\"***\"}",
         .text = "x", .name = "n", .cwd = "/c", .user = "u", .timeout_ns = 5 * S,
         .is_ignoring = true, .is_open = true, .env = "Q=secret"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"stdin\":\"open\"}", VERB_EXEC,
         .shown = "{\"verb\":\"exec\",\"text\":\"x\",\"stdin\":\"***\"}", .text = "x",
         .stdin_data = "open"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"stdin\":\"\"}", VERB_EXEC,
         .shown = "{\"verb\":\"exec\",\"text\":\"x\",\"stdin\":\"***\"}", .text = "x",
         .stdin_data = ""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"stdin\":false}", VERB_EXEC,
         .shown = "{\"verb\":\"exec\",\"text\":\"x\",\"stdin\":\"***\"}", .text = "x"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"execv\",\"argv\":[\"a\",\"\"]}", VERB_EXECV, .argv = "a|"},
        {GRAMMAR_ROOT,
         "{\"verb\":\"create\",\"name\":\"web\",\"provider\":\"local\",\"cpu\":2,\"memory\":\"4G\","
         "\"readonly\":true,\"env\":{\"K\":\"v\"},\"label\":{\"l\":\"m\"},\"mount\":{\"1\":\"/a:/b\"},"
         "\"env.L\":\"w\"}",
         VERB_CREATE,
         .shown =
                 "{\"verb\":\"create\",\"name\":\"web\",\"provider\":\"local\",\"cpu\":2,\"memory\":"
                 "\"4G\",\"readonly\":true,\"env\":{\"K\":\"***\"},\"label\":{\"l\":\"m\"},\"mount\":{"
                 "\"1\":\"/a:/b\"},\"env.L\":\"***\"}",
         .target = "web", .provider = "local",
         .options = "cpu=2|memory=4G|readonly=true|env.K=v|label.l=m|mount.1=/a:/b|env.L=w"},
        {GRAMMAR_ROOT, "{\"verb\":\"adopt\",\"provider\":\"p\",\"id\":\"i\",\"name\":\"n\"}",
         VERB_ADOPT, .target = "n", .provider = "p", .id = "i"},
        {GRAMMAR_ROOT, "{\"verb\":\"refresh\"}", VERB_REFRESH, .shown = NULL},
        {GRAMMAR_SANDBOX, "{\"verb\":\"stop\"}", VERB_STOP, .shown = NULL},
        {GRAMMAR_SANDBOX, "{\"verb\":\"kill\"}", VERB_KILL, .shown = NULL},
        {GRAMMAR_SANDBOX, "{\"verb\":\"kill\",\"signal\":9,\"exec\":3}", VERB_KILL, .signal = 9,
         .target = "3"},
        {GRAMMAR_TASK, "{\"verb\":\"kill\",\"signal\":\"SIGHUP\"}", VERB_KILL, .signal = 1},
        {GRAMMAR_SANDBOX, "{\"verb\":\"eof\",\"exec\":\"build\"}", VERB_EOF, .target = "build"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"timeout\",\"timeout\":\"1h\"}", VERB_TIMEOUT,
         .span_ns = 3600 * S},
        {GRAMMAR_SANDBOX, "{\"verb\":\"label\",\"label\":{\"a\":\"b\"}}", VERB_LABEL,
         .options = "a=b"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"protect\",\"on\":true}", VERB_PROTECT, .is_on = true},
        {GRAMMAR_SANDBOX, "{\"verb\":\"discard\",\"path\":\"a\"}", VERB_DISCARD, .target = "a"},
};

static void check_lists(const struct command *cmd, const struct good *g)
{
        _cleanup_(freep) char *options = join_pairs(cmd->options, cmd->option_count);
        _cleanup_(freep) char *env = join_pairs(cmd->env, cmd->env_count);
        _cleanup_(freep) char *argv = join_words(cmd->argv, cmd->argc);

        SAME(options, g->options ? g->options : "");
        SAME(env, g->env ? g->env : "");
        SAME(argv, g->argv ? g->argv : "");
        HOLDS(!cmd->argv || cmd->argv[cmd->argc] == NULL);
}

/* What is shown without a final CR or the blanks before it. */
static char *default_shown(const char *line)
{
        line += strspn(line, " \t");
        return strndup(line, strcspn(line, "\r"));
}

static void check_good(const struct good *g, const struct command *cmd)
{
        _cleanup_(freep) char *shown = default_shown(g->line);

        HOLDS(cmd->verb == g->verb);
        SAME(cmd->shown, g->shown ? g->shown : shown);
        SAME(cmd->target, g->target);
        SAME(cmd->provider, g->provider);
        SAME(cmd->id, g->id);
        SAME(cmd->text, g->text);
        SAME(cmd->name, g->name);
        SAME(cmd->cwd, g->cwd);
        SAME(cmd->user, g->user);
        SAME(cmd->stdin_data, g->stdin_data);
        HOLDS(cmd->stdin_size == (g->stdin_data ? strlen(g->stdin_data) : 0));
        HOLDS(cmd->timeout_ns == g->timeout_ns);
        HOLDS(cmd->span_ns == g->span_ns);
        HOLDS(cmd->signal == g->signal);
        HOLDS(cmd->has_stdin_open == g->is_open);
        HOLDS(cmd->ignore_unsent == g->is_ignoring);
        HOLDS(cmd->is_on == g->is_on);
        check_lists(cmd, g);
}

static void good_lines_are_understood(void)
{
        for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
                const struct good *g = &goods[i];
                struct command cmd;
                struct call c;
                int r;

                command_init(&cmd);
                r = parse(g->scope, g->line, &cmd, &c);
                HOLDS(r == 0);
                if (r < 0)
                        (void)fprintf(stderr, "    said: %s\n", c.sentence);
                else
                        check_good(g, &cmd);
                command_done(&cmd);
        }
}

/* ---- what is refused ---- */

struct bad {
        enum grammar_scope scope;
        const char *line, *sentence;
};

#define KNOWN_SANDBOX                                                                              \
        "refresh start stop restart pause resume destroy exec execv timeout label protect sync "   \
        "retry discard kill eof"

static const struct bad bads[] = {
        /* verbs */
        {GRAMMAR_SANDBOX, "strat", "unknown verb \"strat\"; did you mean \"start\"?"},
        {GRAMMAR_SANDBOX, "STOP", "unknown verb \"STOP\"; known here: " KNOWN_SANDBOX},
        {GRAMMAR_SANDBOX, "make test", "unknown verb \"make\"; known here: " KNOWN_SANDBOX},
        {GRAMMAR_SANDBOX, "ls", "unknown verb \"ls\"; known here: " KNOWN_SANDBOX},
        {GRAMMAR_ROOT, "frobnicate",
         "unknown verb \"frobnicate\"; known here: create adopt reload refresh"},
        {GRAMMAR_ROOT, "crate x", "unknown verb \"crate\"; did you mean \"create\"?"},
        {GRAMMAR_TASK, "kil", "unknown verb \"kil\"; did you mean \"kill\"?"},
        {GRAMMAR_SANDBOX, "''", "unknown verb \"\"; known here: " KNOWN_SANDBOX},
        {GRAMMAR_SANDBOX, "create x", "\"create\" is a command of the root's ctl"},
        {GRAMMAR_SANDBOX, "adopt a:b", "\"adopt\" is a command of the root's ctl"},
        {GRAMMAR_ROOT, "exec ls", "\"exec\" is a command of a sandbox's ctl"},
        {GRAMMAR_ROOT, "kill", "\"kill\" is a command of a sandbox's ctl"},
        {GRAMMAR_TASK, "stop", "\"stop\" is a command of a sandbox's ctl"},
        {GRAMMAR_TASK, "refresh", "\"refresh\" is a command of a sandbox's ctl"},
        {GRAMMAR_SANDBOX, "stop now", "column 6: nothing more is expected after stop"},
        {GRAMMAR_SANDBOX, "stop # really", "column 6: nothing more is expected after stop"},
        /* quoting */
        {GRAMMAR_SANDBOX, "execv make test 'abc", "column 17: unclosed quote"},
        {GRAMMAR_SANDBOX, "execv a \"b", "column 9: unclosed quote"},
        {GRAMMAR_SANDBOX, "execv a \"b\\\"", "column 9: unclosed quote"},
        {GRAMMAR_SANDBOX, "exec cwd='/a b make", "column 10: unclosed quote"},
        {GRAMMAR_SANDBOX, "execv a \\", "column 9: nothing follows the backslash"},
        {GRAMMAR_SANDBOX, "'stop", "column 1: unclosed quote"},
        /* create, adopt */
        {GRAMMAR_ROOT, "create", "create needs a name"},
        {GRAMMAR_ROOT, "create ''", "create needs a name"},
        {GRAMMAR_ROOT, "create cpu=2", "create needs a name before its settings"},
        {GRAMMAR_ROOT, "create web big", "column 12: expected key=value"},
        {GRAMMAR_ROOT, "create web cpu = 2", "column 12: expected key=value"},
        {GRAMMAR_ROOT, "create web 'cpu'=2", "column 12: expected key=value"},
        {GRAMMAR_ROOT, "create web provider=", "\"provider\" is empty"},
        {GRAMMAR_ROOT, "create web provider=a provider=b", "\"provider\" is given twice"},
        {GRAMMAR_ROOT, "create web cpu=1 cpu=2", "\"cpu\" is given twice"},
        {GRAMMAR_ROOT, "create web image='x", "column 18: unclosed quote"},
        {GRAMMAR_ROOT, "create web env.A-B=x",
         "\"A-B\" can't be the name of a variable: letters, digits and _ only"},
        {GRAMMAR_ROOT, "adopt", "adopt needs PROVIDER:ID, then perhaps: as NAME"},
        {GRAMMAR_ROOT, "adopt docker", "adopt needs PROVIDER:ID, then perhaps: as NAME"},
        {GRAMMAR_ROOT, "adopt :x", "adopt needs PROVIDER:ID, then perhaps: as NAME"},
        {GRAMMAR_ROOT, "adopt x:", "adopt needs PROVIDER:ID, then perhaps: as NAME"},
        {GRAMMAR_ROOT, "adopt x:y web", "adopt needs PROVIDER:ID, then perhaps: as NAME"},
        {GRAMMAR_ROOT, "adopt x:y as", "adopt needs PROVIDER:ID, then perhaps: as NAME"},
        {GRAMMAR_ROOT, "adopt x:y as a b", "column 16: nothing more is expected after its name"},
        /* exec */
        {GRAMMAR_SANDBOX, "exec", "exec needs a command"},
        {GRAMMAR_SANDBOX, "exec  \t", "exec needs a command"},
        {GRAMMAR_SANDBOX, "exec cwd=/x", "exec needs a command"},
        {GRAMMAR_SANDBOX, "exec --", "exec needs a command"},
        {GRAMMAR_SANDBOX, "execv", "execv needs a program"},
        {GRAMMAR_SANDBOX, "execv ''", "execv needs a program"},
        {GRAMMAR_SANDBOX, "execv \"\" x", "execv needs a program"},
        {GRAMMAR_SANDBOX, "exec tmeout=5 -- make",
         "unknown option \"tmeout\"; did you mean \"timeout\"?"},
        {GRAMMAR_SANDBOX, "exec cwd=/x PATH=/y -- make",
         "unknown option \"PATH\"; known: name cwd user timeout stdin unsent env.NAME"},
        {GRAMMAR_SANDBOX, "execv X='a -- b' -- c",
         "unknown option \"X\"; known: name cwd user timeout stdin unsent env.NAME"},
        {GRAMMAR_SANDBOX, "exec name= x", "\"name\" is empty"},
        {GRAMMAR_SANDBOX, "exec cwd='' x", "\"cwd\" is empty"},
        {GRAMMAR_SANDBOX, "exec user= x", "\"user\" is empty"},
        {GRAMMAR_SANDBOX, "exec cwd=a cwd=b x", "\"cwd\" is given twice"},
        {GRAMMAR_SANDBOX, "exec timeout=1 timeout=2 x", "\"timeout\" is given twice"},
        {GRAMMAR_SANDBOX, "exec stdin=open stdin=open x", "\"stdin\" is given twice"},
        {GRAMMAR_SANDBOX, "exec env.A=s3cret env.A=t x", "\"A\" is given twice"},
        {GRAMMAR_SANDBOX, "exec stdin=x y", "\"stdin\" takes only open"},
        {GRAMMAR_SANDBOX, "exec unsent= y", "\"unsent\" takes only ignore"},
        {GRAMMAR_SANDBOX, "exec timeout=5x make",
         "timeout: \"5x\" is no time span: write 90s, 5m, 1h30m or none"},
        {GRAMMAR_SANDBOX, "exec timeout= make",
         "timeout: \"\" is no time span: write 90s, 5m, 1h30m or none"},
        {GRAMMAR_SANDBOX, "exec timeout=99999999999999999999d make", "timeout: too long"},
        {GRAMMAR_SANDBOX, "exec env.=x y",
         "\"\" can't be the name of a variable: letters, digits and _ only"},
        {GRAMMAR_SANDBOX, "exec env.1A=x y",
         "\"1A\" can't be the name of a variable: letters, digits and _ only"},
        /* kill, eof */
        {GRAMMAR_SANDBOX, "kill -0", "unknown signal \"0\": write TERM, SIGTERM or 15"},
        {GRAMMAR_SANDBOX, "kill -65", "unknown signal \"65\": write TERM, SIGTERM or 15"},
        {GRAMMAR_SANDBOX, "kill -", "unknown signal \"\": write TERM, SIGTERM or 15"},
        {GRAMMAR_SANDBOX, "kill --", "unknown signal \"-\": write TERM, SIGTERM or 15"},
        {GRAMMAR_SANDBOX, "kill -FOO", "unknown signal \"FOO\": write TERM, SIGTERM or 15"},
        {GRAMMAR_SANDBOX, "kill -SIG", "unknown signal \"SIG\": write TERM, SIGTERM or 15"},
        {GRAMMAR_SANDBOX, "kill 1 2", "column 8: nothing more is expected after the exec"},
        {GRAMMAR_SANDBOX, "kill -9 ''", "kill: the name of the exec is empty"},
        {GRAMMAR_SANDBOX, "eof a b", "column 7: nothing more is expected after the exec"},
        {GRAMMAR_TASK, "kill 3", "kill names no exec here: this ctl is of one"},
        {GRAMMAR_TASK, "eof x", "eof names no exec here: this ctl is of one"},
        /* the rest */
        {GRAMMAR_SANDBOX, "timeout", "timeout needs a time span, or none"},
        {GRAMMAR_SANDBOX, "timeout soon",
         "timeout: \"soon\" is no time span: write 90s, 5m, 1h30m or none"},
        {GRAMMAR_SANDBOX, "timeout -1",
         "timeout: \"-1\" is no time span: write 90s, 5m, 1h30m or none"},
        {GRAMMAR_SANDBOX, "timeout 1 h", "column 11: nothing more is expected after that"},
        {GRAMMAR_SANDBOX, "label", "label needs key=value"},
        {GRAMMAR_SANDBOX, "label x", "label needs key=value"},
        {GRAMMAR_SANDBOX, "label =x", "label needs key=value"},
        {GRAMMAR_SANDBOX, "label a=b c=d", "column 11: nothing more is expected after the label"},
        {GRAMMAR_SANDBOX, "protect", "protect is on or off"},
        {GRAMMAR_SANDBOX, "protect yes", "protect is on or off"},
        {GRAMMAR_SANDBOX, "discard", "discard needs a path"},
        {GRAMMAR_SANDBOX, "discard a b", "column 11: nothing more is expected after that"},
        /* JSON */
        {GRAMMAR_SANDBOX, "{", "column 2: the JSON is cut off"},
        {GRAMMAR_SANDBOX, " {\"verb\":\"stop\"", "column 16: the JSON is cut off"},
        {GRAMMAR_SANDBOX, "{verb:stop}", "column 2: this is not JSON"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"stop\"} x", "column 17: this is not JSON"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"stop\xff\"}", "column 14: this is not JSON"},
        {GRAMMAR_SANDBOX, "{}", "\"verb\" must be there, and a string"},
        {GRAMMAR_SANDBOX, "{\"verb\":1}", "\"verb\" must be there, and a string"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"strat\"}",
         "unknown verb \"strat\"; did you mean \"start\"?"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"create\",\"name\":\"x\"}",
         "\"create\" is a command of the root's ctl"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"stop\",\"verb\":\"start\"}", "\"verb\" is given twice"},
        {GRAMMAR_SANDBOX,
         "{\"verb\":\"exec\",\"text\":\"a\",\"env\":{\"B\":\"s\",\"A\":\"1\",\"B\":\"t\"}}",
         "\"B\" is given twice"},
        {GRAMMAR_SANDBOX,
         "{\"verb\":\"exec\",\"text\":\"a\",\"x\":[{\"a\":1,\"b\":{\"c\":1,\"c\":2}}]}",
         "a key in a nested object is given twice"}, /* deeper than anything that has a meaning */
        {GRAMMAR_SANDBOX, "{\"verb\":\"stop\",\"x\":1}", "unknown key \"x\""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"txt\":\"x\"}",
         "unknown key \"txt\"; did you mean \"text\"?"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\"}", "exec needs \"text\" or \"argv\""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"execv\",\"text\":\"x\"}", "execv needs \"argv\""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"argv\":[\"y\"]}",
         "\"text\" and \"argv\" exclude each other"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"\"}", "\"text\" is empty"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\" \\n\"}", "\"text\" is empty"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":1}", "\"text\" must be a string"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"a\\u0000b\"}",
         "column 31: this is not JSON"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"argv\":\"ls\"}",
         "\"argv\" must be an array of strings"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"argv\":[\"a\",1]}",
         "\"argv\" must be an array of strings"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"argv\":[]}", "\"argv\" needs a program"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"argv\":[\"\"]}", "\"argv\" needs a program"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"env\":[]}",
         "\"env\" must be an object of strings"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"env\":{\"A\":{}}}",
         "\"A\" must be a string, a whole number, or true or false"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"env\":{\"A B\":\"\"}}",
         "\"A B\" can't be the name of a variable: letters, digits and _ only"},
        {GRAMMAR_SANDBOX,
         "{\"verb\":\"exec\",\"text\":\"x\",\"env\":{\"A\":\"1\"},\"env.A\":\"2\"}",
         "\"A\" is given twice"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"cwd\":null}",
         "\"cwd\" must be a string, a whole number, or true or false"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"timeout\":1.5}",
         "\"timeout\" must be a string, a whole number, or true or false"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"exec\",\"text\":\"x\",\"stdin\":1}",
         "\"stdin\" must be a string (all of it) or true (kept open)"},
        {GRAMMAR_ROOT, "{\"verb\":\"create\"}", "create needs \"name\""},
        {GRAMMAR_ROOT, "{\"verb\":\"create\",\"name\":5}", "\"name\" must be a string"},
        {GRAMMAR_ROOT, "{\"verb\":\"create\",\"name\":\"\"}", "\"name\" is empty"},
        {GRAMMAR_ROOT, "{\"verb\":\"create\",\"name\":\"x\",\"label\":\"y\"}",
         "\"label\" must be an object of strings"},
        {GRAMMAR_ROOT, "{\"verb\":\"create\",\"name\":\"x\",\"cpu\":[]}",
         "\"cpu\" must be a string, a whole number, or true or false"},
        {GRAMMAR_ROOT, "{\"verb\":\"adopt\",\"id\":\"x\"}", "adopt needs \"provider\" and \"id\""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"kill\",\"signal\":\"X\"}",
         "unknown signal \"X\": write TERM, SIGTERM or 15"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"kill\",\"exec\":true}",
         "\"exec\" must be the name or number of an exec"},
        {GRAMMAR_TASK, "{\"verb\":\"kill\",\"exec\":\"a\"}",
         "\"exec\": none is named here, this ctl is of one"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"timeout\"}", "timeout needs \"timeout\""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"label\"}", "label needs \"label\""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"label\",\"label\":{}}",
         "\"label\" must be an object with one key"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"label\",\"label\":{\"a\":\"b\",\"c\":\"d\"}}",
         "\"label\" must be an object with one key"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"protect\"}", "protect needs \"on\""},
        {GRAMMAR_SANDBOX, "{\"verb\":\"protect\",\"on\":\"on\"}", "\"on\" must be true or false"},
        {GRAMMAR_SANDBOX, "{\"verb\":\"discard\"}", "discard needs \"path\""},
};

static void bad_lines_are_refused_with_their_place(void)
{
        for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
                struct command cmd;
                struct call c;
                int r;

                memset(&cmd, 0x5a, sizeof(cmd));
                r = parse(bads[i].scope, bads[i].line, &cmd, &c);
                HOLDS(r == -EINVAL);
                SAME(c.sentence, bads[i].sentence);
                HOLDS(*(unsigned char *)&cmd == 0x5a); /* untouched */
        }
}

static void nul_is_refused_with_its_column(void)
{
        struct command cmd;
        struct call c;

        CHECK_EQ(parse_sized(GRAMMAR_SANDBOX, "exec a\0b", 8, &cmd, &c), -EINVAL);
        CHECK_STR(c.sentence, "column 7: a NUL byte");
        CHECK_EQ(parse_sized(GRAMMAR_SANDBOX, "# a\0", 4, &cmd, &c), -EINVAL);
}

static void lines_end_at_one_mebibyte(void)
{
        char *line = malloc(GRAMMAR_LINE_MAX + 2);
        struct command cmd;
        struct call c;

        if (!line)
                abort();
        memset(line, 'x', GRAMMAR_LINE_MAX + 2);
        memcpy(line, "exec ", 5);
        line[GRAMMAR_LINE_MAX] = '\r';
        subject = "a long line";
        CHECK_EQ(parse_sized(GRAMMAR_SANDBOX, line, GRAMMAR_LINE_MAX + 1, &cmd, &c), 0);
        CHECK_EQ(strlen(cmd.text), GRAMMAR_LINE_MAX - 5);
        CHECK_EQ(strlen(cmd.shown), GRAMMAR_LINE_MAX);
        command_done(&cmd);
        line[GRAMMAR_LINE_MAX] = 'x';
        CHECK_EQ(parse_sized(GRAMMAR_SANDBOX, line, GRAMMAR_LINE_MAX + 1, &cmd, &c), -E2BIG);
        CHECK_STR(c.sentence, "longer than 1 MiB");
        free(line);
}

/* Many small options: refused in a bounded time, and the longest that is taken is shown whole. */
static void options_are_counted(void)
{
        struct buf line = BUF_INIT(GRAMMAR_LINE_MAX);
        struct command cmd;
        struct call c;

        (void)buf_add_str(&line, "exec ");
        for (unsigned i = 0; i < 4096; i++)
                (void)buf_addf(&line, "env.A%u= ", i);
        (void)buf_add_str(&line, "x");
        CHECK_EQ(parse_sized(GRAMMAR_SANDBOX, line.data, line.size, &cmd, &c), 0);
        CHECK_EQ(cmd.env_count, 4096);
        CHECK_EQ(strlen(cmd.shown), line.size + (size_t)3 * 4096);
        command_done(&cmd);
        line.data[line.size - 1] = 'e';
        (void)buf_add_str(&line, "nv.B=1 x");
        CHECK_EQ(parse_sized(GRAMMAR_SANDBOX, line.data, line.size, &cmd, &c), -EINVAL);
        CHECK_STR(c.sentence, "more than 4096 options");
        buf_done(&line);
}

static void long_words_are_cut_in_sentences(void)
{
        char line[400], expected[200];
        struct command cmd;
        struct call c;

        memset(line, 'v', sizeof(line));
        CHECK_EQ(parse_sized(GRAMMAR_ROOT, line, sizeof(line), &cmd, &c), -EINVAL);
        (void)snprintf(expected, sizeof(expected),
                       "unknown verb \"%.64s...\"; known here: create adopt reload refresh", line);
        CHECK_STR(c.sentence, expected);
        for (size_t i = 0; i + 1 < sizeof(line); i += 2)
                memcpy(line + i + 1, "\xc3\xa4", i + 2 < sizeof(line) ? 2 : 1);
        CHECK_EQ(parse_sized(GRAMMAR_ROOT, line, 101, &cmd, &c), -EINVAL);
        CHECK(strncmp(c.sentence + strlen("unknown verb \"") + 63, "...\"", 4) == 0);
}

/* ---- cmd ---- */

static int parse_cmd(const char *text, size_t size, struct command *ret, struct call *c)
{
        char *copy = malloc(size ? size : 1);
        int r;

        if (!copy)
                abort();
        memcpy(copy, text, size);
        subject = text;
        call_init(c, NEVER_NS);
        r = grammar_parse_cmd(copy, size, ret, c);
        free(copy);
        return r;
}

static void cmd_text_is_verbatim(void)
{
        static const char *const texts[][2] = {
                {"make test\n", "make test"},
                {"a\n\n", "a\n"},
                {"  exec='x'\n# c\nls\r\n", "  exec='x'\n# c\nls\r"},
                {"cwd=/x ls", "cwd=/x ls"},
                {"{ echo hi; }\n", "{ echo hi; }"},
                {"{\n\techo \"a\"\n}", "{\n\techo \"a\"\n}"},
                {"{", "{"},
                {"\xff\n", "\xff"},
        };

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
                struct command cmd;
                struct call c;

                if (!CHECK_EQ(parse_cmd(texts[i][0], strlen(texts[i][0]), &cmd, &c), 0))
                        continue;
                HOLDS(cmd.verb == VERB_EXEC);
                SAME(cmd.text, texts[i][1]);
                SAME(cmd.shown, texts[i][1]);
                command_done(&cmd);
        }
}

static void cmd_may_be_an_object(void)
{
        static const char text[] = "\n{\n \"argv\": [\"a\"],\n \"env\": {\"K\": \"s\"},\n"
                                   " \"stdin\": \"in\", \"cwd\": \"/x\"\n}\n";
        struct command cmd;
        struct call c;

        if (CHECK_EQ(parse_cmd(text, strlen(text), &cmd, &c), 0)) {
                CHECK_EQ(cmd.verb, VERB_EXECV);
                CHECK_STR(cmd.argv[0], "a");
                CHECK_STR(cmd.cwd, "/x");
                CHECK_STR(cmd.stdin_data, "in");
                CHECK_STR(cmd.shown, "{\"argv\":[\"a\"],\"env\":{\"K\":\"***\"},\"stdin\":\"***\","
                                     "\"cwd\":\"/x\"}");
                command_done(&cmd);
        }
        if (CHECK_EQ(parse_cmd("{\"verb\":\"exec\",\"text\":\"x\"}", 26, &cmd, &c), 0)) {
                CHECK_EQ(cmd.verb, VERB_EXEC);
                command_done(&cmd);
        }
}

static void bad_cmd_is_refused(void)
{
        static const char *const rows[][2] = {
                {"", "the command is empty"},
                {"\n", "the command is empty"},
                {" \t\r\n\n", "the command is empty"},
                {"{}", "exec needs \"text\" or \"argv\""},
                {"{\"text\":\"x\",\"name\":\"n\"}", "\"name\": this exec has its name already"},
                {"{\"verb\":\"stop\"}", "\"verb\" can only be exec or execv here"},
                {"{\"verb\":3,\"text\":\"x\"}", "\"verb\" can only be exec or execv here"},
                {"{\"text\":\"x\",", "column 13: the JSON is cut off"},
                {"{\"text\":\"x\",\"text\":\"y\"}", "\"text\" is given twice"},
                {"{\"text\":\"x\",\"user\":\"\"}", "\"user\" is empty"},
        };
        struct command cmd;
        struct call c;

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                HOLDS(parse_cmd(rows[i][0], strlen(rows[i][0]), &cmd, &c) == -EINVAL);
                SAME(c.sentence, rows[i][1]);
        }
        CHECK_EQ(parse_cmd("a\0b", 3, &cmd, &c), -EINVAL);
        CHECK_STR(c.sentence, "column 2: a NUL byte");
}

/* ---- env ---- */

static int parse_env(const char *line, size_t size, char **key, char **value, struct call *c)
{
        char *copy = malloc(size ? size : 1);
        int r;

        if (!copy)
                abort();
        memcpy(copy, line, size);
        subject = line;
        call_init(c, NEVER_NS);
        r = grammar_parse_env(copy, size, key, value, c);
        free(copy);
        return r;
}

static void env_lines_are_verbatim_after_the_sign(void)
{
        static const char *const rows[][3] = {
                {"A=b", "A", "b"},     {"  A_1=' b\\n\"' \r", "A_1", "' b\\n\"' "},
                {"_=", "_", ""},       {"A=b=c # d", "A", "b=c # d"},
                {"", NULL, NULL},      {" \t", NULL, NULL},
                {"# A=b", NULL, NULL}, {"\r", NULL, NULL},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                char *key = NULL, *value = NULL;
                struct call c;

                HOLDS(parse_env(rows[i][0], strlen(rows[i][0]), &key, &value, &c) == 0);
                SAME(key, rows[i][1]);
                SAME(value, rows[i][2]);
                free(key);
                free(value);
        }
}

static void bad_env_lines_are_refused_without_repeating_values(void)
{
        static const char *const rows[][2] = {
                {"s3cret", "no \"=\": a line of env is KEY=VALUE"},
                {"export A=s3cret",
                 "\"export A\" can't be the name of a variable: letters, digits and _ only"},
                {"=s3cret", "\"\" can't be the name of a variable: letters, digits and _ only"},
                {"A =s3cret", "\"A \" can't be the name of a variable: letters, digits and _ only"},
                {"1=s3cret", "\"1\" can't be the name of a variable: letters, digits and _ only"},
        };
        char *key = NULL, *value = NULL;
        struct call c;

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                HOLDS(parse_env(rows[i][0], strlen(rows[i][0]), &key, &value, &c) == -EINVAL);
                SAME(c.sentence, rows[i][1]);
                HOLDS(!strstr(c.sentence, "s3cret"));
        }
        CHECK_EQ(parse_env("A=b\0c", 5, &key, &value, &c), -EINVAL);
        CHECK(!key && !value);
}

int main(void)
{
        RUN(good_lines_are_understood);
        RUN(bad_lines_are_refused_with_their_place);
        RUN(nul_is_refused_with_its_column);
        RUN(lines_end_at_one_mebibyte);
        RUN(options_are_counted);
        RUN(long_words_are_cut_in_sentences);
        RUN(cmd_text_is_verbatim);
        RUN(cmd_may_be_an_object);
        RUN(bad_cmd_is_refused);
        RUN(env_lines_are_verbatim_after_the_sign);
        RUN(bad_env_lines_are_refused_without_repeating_values);
        return check_result();
}
