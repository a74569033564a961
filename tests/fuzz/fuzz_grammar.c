/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ctl language. The first byte chooses: r, s, t a line for the ctl of the root, a sandbox, an
 * exec; c the content of cmd; e a line of env. What is shown of a line must be a line again, with
 * the same meaning but for what was replaced.
 */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control/grammar.h"
#include "transport/base/clock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_command(const struct command *cmd)
{
        bool is_exec = cmd->verb == VERB_EXEC, is_execv = cmd->verb == VERB_EXECV;

        assert(cmd->shown);
        assert(!cmd->text == !is_exec);
        assert(!cmd->argv == !is_execv);
        assert(!is_execv || (cmd->argc > 0 && !cmd->argv[cmd->argc]));
        assert(cmd->verb != VERB_CREATE || (cmd->target && cmd->target[0]));
        assert(cmd->signal >= 0 && cmd->signal <= 64);
        for (size_t i = 0; i < cmd->env_count; i++)
                assert(cmd->env[i].key[0] && !strchr(cmd->env[i].key, '='));
}

static void check_line(enum grammar_scope scope, const char *text, size_t size)
{
        struct command cmd, again;
        struct call c;

        call_init(&c, NEVER_NS);
        if (grammar_parse(scope, text, size, &cmd, &c) < 0) {
                assert(c.sentence[0]);
                return;
        }
        check_command(&cmd);
        /* A final CR of the text itself would be dropped now; *** may make a line too long. */
        size = strlen(cmd.shown);
        if (size <= GRAMMAR_LINE_MAX && (size == 0 || cmd.shown[size - 1] != '\r')) {
                assert(grammar_parse(scope, cmd.shown, size, &again, &c) == 0);
                assert(again.verb == cmd.verb && again.option_count == cmd.option_count);
                assert(again.env_count == cmd.env_count && again.argc == cmd.argc);
                assert(!cmd.text || strcmp(again.text, cmd.text) == 0);
                command_done(&again);
        }
        command_done(&cmd);
}

static void check_cmd(const char *text, size_t size)
{
        struct command cmd;
        struct call c;

        call_init(&c, NEVER_NS);
        if (grammar_parse_cmd(text, size, &cmd, &c) < 0) {
                assert(c.sentence[0]);
                return;
        }
        check_command(&cmd);
        command_done(&cmd);
}

static void check_env(const char *text, size_t size)
{
        char *key, *value;
        struct call c;

        call_init(&c, NEVER_NS);
        if (grammar_parse_env(text, size, &key, &value, &c) < 0) {
                assert(c.sentence[0]);
                return;
        }
        assert(!key == !value);
        free(key);
        free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const char *text = (const char *)data + 1;

        if (size == 0)
                return 0;
        switch (data[0]) {
        case 'r': check_line(GRAMMAR_ROOT, text, size - 1); break;
        case 's': check_line(GRAMMAR_SANDBOX, text, size - 1); break;
        case 't': check_line(GRAMMAR_TASK, text, size - 1); break;
        case 'c': check_cmd(text, size - 1); break;
        case 'e': check_env(text, size - 1); break;
        default: break;
        }
        return 0;
}
