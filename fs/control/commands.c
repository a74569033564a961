/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control/grammar.h"
#include "fs/control/unsent.h"
#include "fs/sandbox/fleet.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/sandbox.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/worker.h"

#define LINES_AT_ONCE 4096 /* commands in one write */

/* The commands of one write. */
struct batch {
        struct command *commands;
        size_t count, room;
};

static void batch_done(struct batch *b)
{
        for (size_t i = 0; i < b->count; i++)
                command_done(&b->commands[i]);
        free(b->commands);
}

static struct command *batch_next(struct batch *b)
{
        if (b->count == b->room) {
                size_t room = b->room ? 2 * b->room : 4;
                struct command *more = reallocarray(b->commands, room, sizeof(*more));

                if (!more)
                        return NULL;
                b->commands = more;
                b->room = room;
        }
        command_init(&b->commands[b->count]);
        return &b->commands[b->count];
}

static enum grammar_scope scope_of(const struct commands_at *at)
{
        return at->task ? GRAMMAR_TASK : at->sandbox ? GRAMMAR_SANDBOX : GRAMMAR_ROOT;
}

/* ---- parse ---- */

static int parse_line(const struct commands_at *at, struct batch *b, const char *line, size_t size,
                      struct call *c)
{
        struct command *cmd = batch_next(b);
        int r;

        if (!cmd)
                return -ENOMEM;
        r = grammar_parse(scope_of(at), line, size, cmd, c);
        if (r < 0)
                return r;
        if (cmd->verb == VERB_NONE) {
                command_done(cmd);
                return 0;
        }
        if (++b->count > LINES_AT_ONCE)
                return call_fail(c, -E2BIG, "more than %d commands in one write", LINES_AT_ONCE);
        return 0;
}

static int parse(const struct commands_at *at, struct batch *b, const char *text, size_t size,
                 struct call *c)
{
        const char *end = text + size;
        int r = 0;

        while (r == 0 && text < end) {
                const char *newline = memchr(text, '\n', (size_t)(end - text));
                size_t length = (size_t)((newline ? newline : end) - text);

                r = parse_line(at, b, text, length, c);
                text += length + 1;
        }
        return r;
}

/* ---- check ---- */

static struct task_options options_of(const struct command *cmd)
{
        return (struct task_options){
                .name = cmd->name,
                .argv = (const char *const *)cmd->argv,
                .text = cmd->argv ? NULL : cmd->text,
                .cwd = cmd->cwd,
                .user = cmd->user,
                .timeout_ns = cmd->timeout_ns,
                .has_stdin_open = cmd->has_stdin_open,
                .stdin_data = cmd->stdin_data,
                .stdin_size = cmd->stdin_size,
                .ignore_unsent = cmd->ignore_unsent,
                .env = cmd->env,
                .env_count = cmd->env_count,
        };
}

/* -1: the verb is no step of the life cycle. */
static int life_verb(enum verb v)
{
        static const struct {
                enum verb verb;
                enum sandbox_verb life;
        } table[] = {
                {VERB_START, SANDBOX_START},     {VERB_STOP, SANDBOX_STOP},
                {VERB_RESTART, SANDBOX_RESTART}, {VERB_PAUSE, SANDBOX_PAUSE},
                {VERB_RESUME, SANDBOX_RESUME},   {VERB_DESTROY, SANDBOX_DESTROY},
                {VERB_REFRESH, SANDBOX_REFRESH}, {VERB_SYNC, SANDBOX_SYNC},
                {VERB_RETRY, SANDBOX_RETRY},
        };

        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                if (table[i].verb == v)
                        return (int)table[i].life;
        }
        return -1;
}

/* The task that kill and eof mean; a reference. */
static int find_task(const struct commands_at *at, const struct command *cmd, struct call *c,
                     struct task **ret)
{
        struct task *t;

        if (at->task && cmd->target)
                return call_fail(c, -EINVAL,
                                 "this ctl is of one exec: it takes no name of another");
        t = at->task      ? task_ref(at->task)
            : cmd->target ? sandbox_find_task(at->sandbox, cmd->target)
                          : sandbox_latest(at->sandbox);
        if (!t)
                return call_fail(c, -ENOENT,
                                 cmd->target ? "there is no exec/%s" : "there is no exec yet%s",
                                 cmd->target ? cmd->target : "");
        *ret = t;
        return 0;
}

static int check_task_verb(const struct commands_at *at, const struct command *cmd, struct call *c)
{
        _cleanup_(task_freep) struct task *t = NULL;
        int r = find_task(at, cmd, c, &t);

        if (r < 0)
                return r;
        if (task_has_ended(t))
                return call_fail(c, -ESRCH, "that exec has ended");
        return 0;
}

static struct create_options create_options_of(const struct command *cmd)
{
        return (struct create_options){
                .name = cmd->target,
                .provider = cmd->provider,
                .settings = cmd->options,
                .setting_count = cmd->option_count,
        };
}

static int check_create(const struct commands_at *at, const struct batch *b, size_t i,
                        struct call *c)
{
        struct create_options o = create_options_of(&b->commands[i]);
        unsigned ahead = 0;

        for (size_t k = 0; k < i; k++) {
                if (b->commands[k].verb != VERB_CREATE)
                        continue;
                ahead++;
                if (strcmp(b->commands[k].target, o.name) == 0)
                        return call_fail(c, -EEXIST, "\"%s\" stands twice in one write", o.name);
        }
        return fleet_check_create(at->fleet, &o, ahead, c);
}

static int check_exec(const struct commands_at *at, const struct batch *b, size_t i, struct call *c)
{
        struct task_options o = options_of(&b->commands[i]);
        unsigned ahead = 0;

        for (size_t k = 0; k < i; k++) {
                const struct command *other = &b->commands[k];

                if (other->verb != VERB_EXEC && other->verb != VERB_EXECV)
                        continue;
                ahead++;
                if (o.name && other->name && strcmp(o.name, other->name) == 0)
                        return call_fail(c, -EEXIST, "name=%s stands twice in one write", o.name);
        }
        return sandbox_check_exec(at->sandbox, &o, ahead, c);
}

static int check(const struct commands_at *at, const struct batch *b, size_t i, struct call *c)
{
        const struct command *cmd = &b->commands[i];

        switch (cmd->verb) {
        case VERB_CREATE: return check_create(at, b, i, c);
        case VERB_ADOPT:
                return fleet_check_adopt(at->fleet, cmd->provider, cmd->id, cmd->target, c);
        case VERB_EXEC:
        case VERB_EXECV: return check_exec(at, b, i, c);
        case VERB_KILL:
        case VERB_EOF: return check_task_verb(at, cmd, c);
        case VERB_DISCARD: return unsent_discard(at->volume, cmd->target, true, c);
        case VERB_START:
        case VERB_STOP:
        case VERB_RESTART:
        case VERB_PAUSE:
        case VERB_RESUME:
        case VERB_SYNC:
        case VERB_RETRY:
        case VERB_DESTROY:
                return sandbox_check(at->sandbox, (enum sandbox_verb)life_verb(cmd->verb), c);
        case VERB_NONE:
        case VERB_RELOAD:
        case VERB_REFRESH:
        case VERB_TIMEOUT:
        case VERB_LABEL:
        case VERB_PROTECT: return 0;
        }
        return -EINVAL;
}

/* ---- accept ---- */

struct reload_job {
        struct commands_at at;
        uint64_t seq;
};

static void reload_run(void *arg)
{
        struct reload_job *job = arg;
        struct call c;
        int r;

        call_init(&c, clock_after(10 * NS_PER_S));
        r = job->at.reload(job->at.reload_ctx, &c);
        results_end(fleet_results(job->at.fleet), job->seq, r, c.sentence);
        free(job);
}

static int reload(const struct commands_at *at, uint64_t seq, struct call *c)
{
        struct reload_job *job = malloc(sizeof(*job));
        int r;

        if (!job)
                return -ENOMEM;
        *job = (struct reload_job){.at = *at, .seq = seq};
        r = workers_submit(at->workers, WORKER_SLOW, reload_run, job);
        if (r < 0) {
                free(job);
                return call_fail_errno(c, r, "reload");
        }
        return 0;
}

static int accept_root(const struct commands_at *at, const struct command *cmd, uint64_t seq,
                       struct call *c)
{
        _cleanup_(sandbox_freep) struct sandbox *sb = NULL;
        struct create_options o;

        if (cmd->verb == VERB_CREATE) {
                o = create_options_of(cmd);
                return fleet_create(at->fleet, &o, seq, c, &sb);
        }
        if (cmd->verb == VERB_RELOAD)
                return reload(at, seq, c);
        if (cmd->verb == VERB_ADOPT)
                fleet_adopt(at->fleet, cmd->provider, cmd->id, cmd->target, seq);
        else
                fleet_refresh(at->fleet, seq);
        return 0;
}

static int accept_exec(const struct commands_at *at, const struct command *cmd, uint64_t seq,
                       struct call *c, struct buf *values)
{
        _cleanup_(task_freep) struct task *t = NULL;
        struct task_options o = options_of(cmd);
        struct task_info info;
        int r = sandbox_exec(at->sandbox, &o, seq, c, &t);

        if (r < 0)
                return r;
        task_get(t, &info);
        results_name(sandbox_results(at->sandbox), seq, info.name);
        (void)buf_addf(values, "%s\n", info.name); /* a result that is not told, not a failure */
        return 0;
}

static int accept_task_verb(const struct commands_at *at, const struct command *cmd, uint64_t seq,
                            struct call *c)
{
        _cleanup_(task_freep) struct task *t = NULL;
        int r = find_task(at, cmd, c, &t);

        if (r < 0)
                return r;
        if (cmd->verb == VERB_KILL)
                return task_kill(t, cmd->signal, seq);
        r = task_stdin_eof(t);
        if (r < 0)
                return call_fail(c, r, "its stdin is not open; start it with stdin=open");
        results_end(sandbox_results(at->sandbox), seq, 0, "");
        return 0;
}

/* What is done at once. */
static int accept_setting(const struct commands_at *at, const struct command *cmd, struct call *c)
{
        if (cmd->verb == VERB_TIMEOUT)
                return sandbox_set_timeout(at->sandbox, cmd->span_ns, c);
        if (cmd->verb == VERB_LABEL)
                return sandbox_set_label(at->sandbox, cmd->options[0].key, cmd->options[0].value,
                                         c);
        if (cmd->verb == VERB_PROTECT)
                return sandbox_protect(at->sandbox, cmd->is_on, c);
        if (cmd->verb == VERB_DISCARD)
                return unsent_discard(at->volume, cmd->target, false, c);
        return 0;
}

static int accept_command(const struct commands_at *at, const struct command *cmd, uint64_t seq,
                          struct call *c, struct buf *values)
{
        int life = life_verb(cmd->verb), r;
        char name[NAME_SIZE];

        if (!at->sandbox) {
                (void)buf_addf(values, "%s\n", cmd->target ? cmd->target : "-"); /* as above */
                return accept_root(at, cmd, seq, c);
        }
        if (cmd->verb == VERB_EXEC || cmd->verb == VERB_EXECV)
                return accept_exec(at, cmd, seq, c, values);

        sandbox_get_name(at->sandbox, name);
        (void)buf_addf(values, "%s\n", name);
        if (cmd->verb == VERB_KILL || cmd->verb == VERB_EOF)
                return accept_task_verb(at, cmd, seq, c);
        if (life >= 0) {
                sandbox_do(at->sandbox, (enum sandbox_verb)life, seq);
                return 0;
        }
        r = accept_setting(at, cmd, c);
        if (r == 0)
                results_end(sandbox_results(at->sandbox), seq, 0, "");
        return r;
}

/* ---- all of it ---- */

static struct results *results_of(const struct commands_at *at)
{
        return at->sandbox ? sandbox_results(at->sandbox) : fleet_results(at->fleet);
}

/* A refused write is told where people look: in the sandbox's `error`, at the root as a result. */
static int refuse(const struct commands_at *at, int code, const struct call *c, const char *shown)
{
        if (at->sandbox)
                sandbox_say_error(at->sandbox, code, c->sentence);
        results_end(results_of(at), results_add(results_of(at), "-", shown), code, c->sentence);
        return code;
}

static uint64_t remember(const struct commands_at *at, const struct command *cmd)
{
        char name[NAME_SIZE] = "-";
        const char *value = cmd->name                     ? cmd->name
                            : cmd->target && !at->sandbox ? cmd->target
                                                          : name;

        if (at->sandbox)
                sandbox_get_name(at->sandbox, name);
        return results_add(results_of(at), value, cmd->shown ? cmd->shown : "");
}

static int accept_all(const struct commands_at *at, const struct batch *b, struct call *c,
                      struct buf *values)
{
        int first = 0;

        for (size_t i = 0; i < b->count; i++) {
                uint64_t seq = remember(at, &b->commands[i]);
                int r = accept_command(at, &b->commands[i], seq, c, values);

                if (r == 0)
                        continue;
                results_end(results_of(at), seq, r, c->sentence);
                if (at->sandbox)
                        sandbox_say_error(at->sandbox, r, c->sentence);
                if (b->count == 1)
                        first = r; /* nothing else was done: the write can say so */
        }
        return first;
}

int commands_run(const struct commands_at *at, const char *text, size_t size, struct buf *values,
                 bool *ret_destroyed)
{
        _cleanup_(batch_done) struct batch b = {0};
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = parse(at, &b, text, size, &c);
        if (r < 0)
                return refuse(at, r, &c, "(not understood)");
        for (size_t i = 0; i < b.count; i++) {
                r = check(at, &b, i, &c);
                if (r < 0)
                        return refuse(at, r, &c, b.commands[i].shown ? b.commands[i].shown : "");
        }
        for (size_t i = 0; i < b.count; i++)
                *ret_destroyed |= b.commands[i].verb == VERB_DESTROY;
        return accept_all(at, &b, &c, values);
}

/* ---- env ---- */

/* Calls `each` for every line; stops at the first failure. */
static int for_each_line(const char *text, size_t size, struct sandbox *sb, struct call *c,
                         int (*each)(struct sandbox *sb, const char *key, const char *value,
                                     struct call *c))
{
        const char *end = text + size;
        int r = 0;

        while (r == 0 && text < end) {
                const char *newline = memchr(text, '\n', (size_t)(end - text));
                size_t length = (size_t)((newline ? newline : end) - text);
                char *key = NULL, *value = NULL;

                r = grammar_parse_env(text, length, &key, &value, c);
                if (r == 0 && key)
                        r = each(sb, key, value, c);
                if (value)
                        explicit_bzero(value, strlen(value));
                free(key);
                free(value);
                text += length + 1;
        }
        return r;
}

static int env_check(struct sandbox *sb, const char *key, const char *value, struct call *c)
{
        (void)sb; /* the same shape as sandbox_set_env */
        (void)key;
        (void)value;
        (void)c;
        return 0;
}

int commands_env(struct sandbox *sb, const char *text, size_t size)
{
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = for_each_line(text, size, sb, &c, env_check);
        r = r < 0 ? r : for_each_line(text, size, sb, &c, sandbox_set_env);
        if (r < 0)
                sandbox_say_error(sb, r, c.sentence);
        return r;
}

/* ---- cmd ---- */

int commands_cmd(struct task *t, const char *text, size_t size, bool only_check)
{
        struct command cmd;
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        command_init(&cmd);
        r = grammar_parse_cmd(text, size, &cmd, &c);
        if (r == 0 && !only_check) {
                struct task_options o = options_of(&cmd);

                r = task_start(t, &o, &c);
        }
        if (r < 0)
                sandbox_say_error(task_sandbox(t), r, c.sentence);
        command_done(&cmd);
        return r;
}
