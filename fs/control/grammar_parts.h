/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the grammar share; only grammar*.c include it.
 *
 *      grammar.c        commands, the line as a whole, cmd and env
 *      grammar_line.c   words of a line, quoting, and what of it is shown
 *      grammar_verbs.c  the verbs, as words
 *      grammar_exec.c   exec and execv as words; the values of options in both forms
 *      grammar_json.c   the same verbs as JSON objects
 *      grammar_twice.c  which key of an object stands twice
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/control/grammar.h"
#include "transport/base/buf.h"

#define GRAMMAR_PAIRS_MAX 4096 /* options in one line; each is compared with those before it */
#define GRAMMAR_SHOWN_MAX (GRAMMAR_LINE_MAX + 8 * GRAMMAR_PAIRS_MAX) /* *** for shorter values */
#define QUOTED_MAX 64 /* bytes of a user's word that a sentence repeats */

/* ---- lines as words ---- */

/* A line and how far it was read. Borrows its text. */
struct line {
        const char *text;
        size_t size;
        size_t at;
        size_t shown_to; /* what is before it was added to `shown` or replaced */
        struct buf shown;
};

void line_init(struct line *l, const char *text, size_t size);
void line_done(struct line *l);

void line_skip_blanks(struct line *l);
bool line_is_end(const struct line *l); /* nothing but blanks is left */

/*
 * The next word, unquoted, replaces the content of `to`. 1; 0 at the end; -EINVAL with its column.
 */
int line_word(struct line *l, struct buf *to, struct call *c);

/* Length of the key when an unquoted KEY= stands here (letters, digits, `_`, `.`, `-`), else 0. */
size_t line_key(const struct line *l);

/* Columns are bytes, from 1. */
size_t line_column(const struct line *l);

/* Show what was read from `begin` on as ***. */
int line_hide(struct line *l, size_t begin);

/* The text to show, once: memory passes to the caller. NULL: out of memory. */
char *line_shown(struct line *l);

/* A word for a sentence: cut to QUOTED_MAX bytes, at a character. */
struct quoted {
        char text[QUOTED_MAX + sizeof("...")];
};
struct quoted quoted(const char *word, size_t size);

/* ---- commands ---- */

/* A verb's word and where it may stand. */
struct verb_row {
        const char *word;
        enum verb verb;
        unsigned scopes; /* 1 << enum grammar_scope */
};

/*
 * The verb of this word in this scope, or -EINVAL: unknown (with the nearest), or of another scope.
 */
int verb_find(enum grammar_scope scope, const char *word, const struct verb_row **ret,
              struct call *c);

/* The rest of a line after its verb, for all verbs but exec and execv. */
int verb_parse(enum grammar_scope scope, struct line *l, struct command *cmd, struct call *c);
int verb_parse_exec(struct line *l, struct command *cmd, struct call *c);
int verb_parse_execv(struct line *l, struct command *cmd, struct call *c);

/* Values that both forms take. -EINVAL with a sentence. */
int command_set_signal(struct command *cmd, const char *word, struct call *c);
int command_set_span(struct command *cmd, const char *word, struct call *c); /* timeout's */
int command_set_protect(struct command *cmd, const char *word, struct call *c);
int command_set_label(struct command *cmd, const char *key, const char *value, struct call *c);
int command_set_setting(struct command *cmd, const char *key, const char *value, struct call *c);

/* Whether it is an option of exec at all; env.K counts. */
bool exec_is_key(const char *key, size_t size);
int exec_unknown_key(const char *key, size_t size, struct call *c); /* -EINVAL naming the nearest */

/* Options of exec that were given; a second one of the same name is refused. */
struct exec_seen {
        unsigned mask;
};
int exec_set(struct command *cmd, struct exec_seen *seen, const char *key, const char *value,
             struct call *c);
int exec_set_env(struct command *cmd, const char *name, const char *value, struct call *c);
/* "env.K" needs a K that is letters, digits and `_`. */
int env_check_name(const char *name, size_t size, struct call *c);

/* Append copies; -EINVAL when the key is there already, or there are too many. */
int pairs_add(struct pair **pairs, size_t *count, const char *key, const char *value,
              struct call *c);
int words_add(struct command *cmd, const char *word); /* to argv; 0 or -ENOMEM */

/* ---- JSON ---- */

/* A whole object with blanks around it: any verb of the scope. */
int object_parse(enum grammar_scope scope, const char *text, size_t size, struct command *cmd,
                 struct call *c);
/* The same of exec/<n>/cmd: "verb" may be missing, "name" must be. */
int object_parse_cmd(const char *text, size_t size, struct command *cmd, struct call *c);
/* -EINVAL naming the first key that stands twice; 0 when the text is cut off instead. */
int object_find_twice(const char *text, size_t size, struct call *c);
