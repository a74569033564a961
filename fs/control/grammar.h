/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of ctl files and of exec/<n>/cmd: lines of text to commands. Pure: no I/O, no state,
 * no knowledge of what exists.
 *
 *      line   = blank | "#"... | JSON object | verb option* text?
 *      option = key "=" word;  words are quoted as in sh ('...', "...", \x; no expansion)
 *
 * Sources: DESIGN.md sections 3 and 4 decide; tests/unit/control/grammar.c shows each rule.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"

#define GRAMMAR_LINE_MAX (1024 * 1024)

/* which ctl the line was written to */
enum grammar_scope { GRAMMAR_ROOT, GRAMMAR_SANDBOX, GRAMMAR_TASK };

enum verb {
        VERB_NONE, /* blank or comment */
        /* root */
        VERB_CREATE, /* target = NAME, options */
        VERB_ADOPT, /* provider, id, target = NAME or NULL */
        VERB_RELOAD,
        /* root and sandbox */
        VERB_REFRESH,
        /* sandbox */
        VERB_START,
        VERB_STOP,
        VERB_RESTART,
        VERB_PAUSE,
        VERB_RESUME,
        VERB_DESTROY,
        VERB_EXEC, /* text, and the exec fields */
        VERB_EXECV, /* argv, and the exec fields */
        VERB_TIMEOUT, /* span_ns */
        VERB_LABEL, /* options[0] */
        VERB_PROTECT, /* is_on */
        VERB_SYNC,
        VERB_RETRY,
        VERB_DISCARD, /* target = PATH */
        /* sandbox and task */
        VERB_KILL, /* signal (0: TERM, 5 s, KILL), target = EXEC or NULL: the latest */
        VERB_EOF, /* target likewise */
};

/* One parsed line. Owns everything that it points to. */
struct command {
        enum verb verb;
        char *target;
        char *provider; /* create (from provider=), adopt */
        char *id; /* adopt */
        struct pair *options; /* create: settings without provider; label: k=v */
        size_t option_count;
        char *text; /* exec */
        char **argv; /* execv, or JSON exec with argv; NULL-terminated */
        size_t argc;
        char *name, *cwd, *user; /* exec keys; NULL: not given */
        uint64_t timeout_ns; /* 0: not given */
        bool has_stdin_open, ignore_unsent;
        char *stdin_data; /* JSON "stdin": all of it; NULL: not given */
        size_t stdin_size;
        struct pair *env; /* env.K of exec; secret */
        size_t env_count;
        int signal;
        bool is_on;
        uint64_t span_ns; /* timeout; 0: none ("none" or "0") */
        char *shown; /* the line for results: env values and stdin replaced by ***, not escaped */
};

void command_init(struct command *cmd);
void command_done(struct command *cmd); /* wipes and frees */

/**
 * Parse one line, without its newline (a final CR is dropped).
 *
 * Errors: -EINVAL with a sentence that names the place (`unknown verb "strat"; did you mean
 *         "start"?`, `column 17: unclosed quote`), NUL included; -E2BIG over GRAMMAR_LINE_MAX;
 *         -EOPNOTSUPP never: what a provider can is not known here; -ENOMEM. A verb of another
 *         scope is named as such ("create" is a command of the root's ctl).
 */
int grammar_parse(enum grammar_scope scope, const char *line, size_t size, struct command *ret,
                  struct call *c);

/*
 * The content of exec/<n>/cmd: text for sh -c (verbatim, a final newline dropped), or one JSON
 * object with exec's keys; `ret` becomes VERB_EXEC or VERB_EXECV. Empty: -EINVAL.
 */
int grammar_parse_cmd(const char *text, size_t size, struct command *ret, struct call *c);

/*
 * One line of `env`: KEY=VALUE, verbatim after '=' (a final CR dropped), blank lines and # comments
 * give *ret_key NULL. KEY alone: -EINVAL.
 */
int grammar_parse_env(const char *line, size_t size, char **ret_key, char **ret_value,
                      struct call *c);
