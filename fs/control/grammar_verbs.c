/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs and what follows each of them on a line, except exec and execv (grammar_exec.c). */

#include "fs/control/grammar_parts.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/units.h"

#define ROOT (1U << GRAMMAR_ROOT)
#define SANDBOX (1U << GRAMMAR_SANDBOX)
#define TASK (1U << GRAMMAR_TASK)

static const struct verb_row rows[] = {
        {"create", VERB_CREATE, ROOT},       {"adopt", VERB_ADOPT, ROOT},
        {"reload", VERB_RELOAD, ROOT},       {"refresh", VERB_REFRESH, ROOT | SANDBOX},
        {"start", VERB_START, SANDBOX},      {"stop", VERB_STOP, SANDBOX},
        {"restart", VERB_RESTART, SANDBOX},  {"pause", VERB_PAUSE, SANDBOX},
        {"resume", VERB_RESUME, SANDBOX},    {"destroy", VERB_DESTROY, SANDBOX},
        {"exec", VERB_EXEC, SANDBOX},        {"execv", VERB_EXECV, SANDBOX},
        {"timeout", VERB_TIMEOUT, SANDBOX},  {"label", VERB_LABEL, SANDBOX},
        {"protect", VERB_PROTECT, SANDBOX},  {"sync", VERB_SYNC, SANDBOX},
        {"retry", VERB_RETRY, SANDBOX},      {"discard", VERB_DISCARD, SANDBOX},
        {"kill", VERB_KILL, SANDBOX | TASK}, {"eof", VERB_EOF, SANDBOX | TASK},
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

/* The words of a scope, NULL-terminated. */
static void list_words(unsigned scope, const char *words[ROW_COUNT + 1])
{
        size_t n = 0;

        for (size_t i = 0; i < ROW_COUNT; i++)
                if (rows[i].scopes & scope)
                        words[n++] = rows[i].word;
        words[n] = NULL;
}

static int unknown_verb(unsigned scope, const char *word, struct call *c)
{
        _cleanup_(buf_done) struct buf known = BUF_INIT(1024);
        const char *words[ROW_COUNT + 1], *nearest;
        struct quoted q = quoted(word, strlen(word));

        list_words(scope, words);
        nearest = name_nearest(word, words);
        if (nearest)
                return call_fail(c, -EINVAL, "unknown verb \"%s\"; did you mean \"%s\"?", q.text,
                                 nearest);
        for (size_t i = 0; words[i]; i++)
                (void)buf_addf(&known, " %s", words[i]); /* a shorter list is no harm */
        return call_fail(c, -EINVAL, "unknown verb \"%s\"; known here:%s", q.text, buf_str(&known));
}

static int foreign_verb(const struct verb_row *row, struct call *c)
{
        const char *where = "a sandbox's ctl";

        if (row->scopes == ROOT)
                where = "the root's ctl";
        return call_fail(c, -EINVAL, "\"%s\" is a command of %s", row->word, where);
}

int verb_find(enum grammar_scope scope, const char *word, const struct verb_row **ret,
              struct call *c)
{
        for (size_t i = 0; i < ROW_COUNT; i++) {
                if (strcmp(rows[i].word, word) != 0)
                        continue;
                if (!(rows[i].scopes & (1U << scope)))
                        return foreign_verb(&rows[i], c);
                *ret = &rows[i];
                return 0;
        }
        return unknown_verb(1U << scope, word, c);
}

static int no_more(struct line *l, const char *verb, struct call *c)
{
        if (line_is_end(l))
                return 0;
        line_skip_blanks(l);
        return call_fail(c, -EINVAL, "column %zu: nothing more is expected after %s",
                         line_column(l), verb);
}

/* One word that must be there; `what` it is for the sentence. */
static int need_word(struct line *l, struct buf *word, const char *what, struct call *c)
{
        int r = line_word(l, word, c);

        if (r < 0)
                return r;
        if (r == 0 || word->size == 0)
                return call_fail(c, -EINVAL, "%s", what);
        return 0;
}

static int copy(char **to, const char *text)
{
        *to = strdup(text);
        return *to ? 0 : -ENOMEM;
}

/* ---- create, adopt ---- */

static bool is_secret(const char *key)
{
        return strncmp(key, "env.", 4) == 0;
}

int command_set_setting(struct command *cmd, const char *key, const char *value, struct call *c)
{
        if (is_secret(key)) {
                int r = env_check_name(key + 4, strlen(key + 4), c);

                if (r < 0)
                        return r;
        }
        if (strcmp(key, "provider") != 0)
                return pairs_add(&cmd->options, &cmd->option_count, key, value, c);
        if (cmd->provider)
                return call_fail(c, -EINVAL, "\"provider\" is given twice");
        if (value[0] == '\0')
                return call_fail(c, -EINVAL, "\"provider\" is empty");
        return copy(&cmd->provider, value);
}

static int parse_setting(struct line *l, struct buf *word, struct command *cmd, struct call *c)
{
        _cleanup_(freep) char *key = NULL;
        size_t size = line_key(l), begin;
        int r;

        if (size == 0)
                return call_fail(c, -EINVAL, "column %zu: expected key=value", line_column(l));
        key = strndup(l->text + l->at, size);
        if (!key)
                return -ENOMEM;
        l->at += size + 1;
        begin = l->at;
        buf_clear(word);
        if (l->at < l->size && l->text[l->at] != ' ' && l->text[l->at] != '\t') {
                r = line_word(l, word, c);
                if (r < 0)
                        return r;
        }
        r = is_secret(key) ? line_hide(l, begin) : 0;
        return r < 0 ? r : command_set_setting(cmd, key, buf_str(word), c);
}

static int parse_create(struct line *l, struct buf *word, struct command *cmd, struct call *c)
{
        int r;

        line_skip_blanks(l);
        if (line_key(l) > 0)
                return call_fail(c, -EINVAL, "create needs a name before its settings");
        r = need_word(l, word, "create needs a name", c);
        if (r == 0)
                r = copy(&cmd->target, buf_str(word));
        while (r == 0 && !line_is_end(l)) {
                line_skip_blanks(l);
                r = parse_setting(l, word, cmd, c);
        }
        return r;
}

static int parse_adopt(struct line *l, struct buf *word, struct command *cmd, struct call *c)
{
        static const char usage[] = "adopt needs PROVIDER:ID, then perhaps: as NAME";
        const char *colon;
        int r = need_word(l, word, usage, c);

        if (r < 0)
                return r;
        colon = strchr(buf_str(word), ':');
        if (!colon || colon == buf_str(word) || colon[1] == '\0')
                return call_fail(c, -EINVAL, "%s", usage);
        cmd->provider = strndup(buf_str(word), (size_t)(colon - buf_str(word)));
        cmd->id = strdup(colon + 1);
        if (!cmd->provider || !cmd->id)
                return -ENOMEM;
        if (line_is_end(l))
                return 0;
        r = need_word(l, word, usage, c);
        if (r == 0 && strcmp(buf_str(word), "as") != 0)
                return call_fail(c, -EINVAL, "%s", usage);
        if (r == 0)
                r = need_word(l, word, usage, c);
        if (r == 0)
                r = copy(&cmd->target, buf_str(word));
        return r < 0 ? r : no_more(l, "its name", c);
}

/* ---- values of single words ---- */

/* Its number by its name, with or without SIG, or 0. */
static int signal_by_name(const char *name)
{
        if (strncasecmp(name, "SIG", 3) == 0)
                name += 3;
        for (int i = 1; i < 32; i++) {
                const char *abbrev = sigabbrev_np(i);

                if (abbrev && strcasecmp(abbrev, name) == 0)
                        return i;
        }
        return 0;
}

int command_set_signal(struct command *cmd, const char *word, struct call *c)
{
        uint64_t number;

        if (units_parse_count(word, SIGRTMAX, &number) == 0)
                cmd->signal = (int)number;
        else
                cmd->signal = signal_by_name(word);
        if (cmd->signal > 0)
                return 0;
        return call_fail(c, -EINVAL, "unknown signal \"%s\": write TERM, SIGTERM or 15",
                         quoted(word, strlen(word)).text);
}

static int parse_span(const char *word, uint64_t *ret_ns, struct call *c)
{
        int r;

        if (strcmp(word, "none") == 0) {
                *ret_ns = 0;
                return 0;
        }
        r = units_parse_span(word, ret_ns);
        if (r == -ERANGE)
                return call_fail(c, -EINVAL, "timeout: too long");
        if (r < 0)
                return call_fail(c, -EINVAL,
                                 "timeout: \"%s\" is no time span: write 90s, 5m, 1h30m or none",
                                 quoted(word, strlen(word)).text);
        return 0;
}

int command_set_span(struct command *cmd, const char *word, struct call *c)
{
        return parse_span(word, cmd->verb == VERB_TIMEOUT ? &cmd->span_ns : &cmd->timeout_ns, c);
}

int command_set_protect(struct command *cmd, const char *word, struct call *c)
{
        cmd->is_on = strcmp(word, "on") == 0;
        if (!cmd->is_on && strcmp(word, "off") != 0)
                return call_fail(c, -EINVAL, "protect is on or off");
        return 0;
}

int command_set_label(struct command *cmd, const char *key, const char *value, struct call *c)
{
        if (key[0] == '\0')
                return call_fail(c, -EINVAL, "label needs key=value");
        return pairs_add(&cmd->options, &cmd->option_count, key, value, c);
}

static int parse_label(struct line *l, struct buf *word, struct command *cmd, struct call *c)
{
        _cleanup_(freep) char *key = NULL;
        const char *equals;
        int r = need_word(l, word, "label needs key=value", c);

        if (r < 0)
                return r;
        equals = strchr(buf_str(word), '=');
        if (!equals)
                return call_fail(c, -EINVAL, "label needs key=value");
        key = strndup(buf_str(word), (size_t)(equals - buf_str(word)));
        if (!key)
                return -ENOMEM;
        r = command_set_label(cmd, key, equals + 1, c);
        return r < 0 ? r : no_more(l, "the label", c);
}

/* kill [-SIGNAL] [EXEC]; eof [EXEC]. */
static int parse_target(enum grammar_scope scope, struct line *l, struct buf *word,
                        struct command *cmd, struct call *c)
{
        const char *verb = cmd->verb == VERB_KILL ? "kill" : "eof";
        int r = line_word(l, word, c);

        if (r > 0 && cmd->verb == VERB_KILL && word->data[0] == '-') {
                r = command_set_signal(cmd, word->data + 1, c);
                if (r == 0)
                        r = line_word(l, word, c);
        }
        if (r <= 0)
                return r;
        if (scope == GRAMMAR_TASK)
                return call_fail(c, -EINVAL, "%s names no exec here: this ctl is of one", verb);
        if (word->size == 0)
                return call_fail(c, -EINVAL, "%s: the name of the exec is empty", verb);
        r = copy(&cmd->target, buf_str(word));
        return r < 0 ? r : no_more(l, "the exec", c);
}

/* A verb with exactly one word. */
static int parse_one(struct line *l, struct buf *word, struct command *cmd, const char *what,
                     struct call *c)
{
        int r = need_word(l, word, what, c);

        if (r == 0 && cmd->verb == VERB_TIMEOUT)
                r = command_set_span(cmd, buf_str(word), c);
        else if (r == 0 && cmd->verb == VERB_PROTECT)
                r = command_set_protect(cmd, buf_str(word), c);
        else if (r == 0)
                r = copy(&cmd->target, buf_str(word));
        return r < 0 ? r : no_more(l, "that", c);
}

static const char *word_of(enum verb verb)
{
        for (size_t i = 0; i < ROW_COUNT; i++)
                if (rows[i].verb == verb)
                        return rows[i].word;
        return "";
}

int verb_parse(enum grammar_scope scope, struct line *l, struct command *cmd, struct call *c)
{
        _cleanup_(buf_wipe) struct buf word = BUF_INIT(GRAMMAR_LINE_MAX);

        switch ((int)cmd->verb) {
        case VERB_CREATE: return parse_create(l, &word, cmd, c);
        case VERB_ADOPT: return parse_adopt(l, &word, cmd, c);
        case VERB_LABEL: return parse_label(l, &word, cmd, c);
        case VERB_KILL:
        case VERB_EOF: return parse_target(scope, l, &word, cmd, c);
        case VERB_TIMEOUT: return parse_one(l, &word, cmd, "timeout needs a time span, or none", c);
        case VERB_PROTECT: return parse_one(l, &word, cmd, "protect is on or off", c);
        case VERB_DISCARD: return parse_one(l, &word, cmd, "discard needs a path", c);
        default: return no_more(l, word_of(cmd->verb), c);
        }
}
