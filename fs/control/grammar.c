/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grammar as its callers see it: commands, one line, the content of cmd, one line of env.
 *
 * A command is filled in place and handed over only when all of it was understood: on failure *ret
 * is untouched. Sentences never repeat a value, which may be secret, only keys, verbs and words
 * that are names.
 */

#include "fs/control/grammar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control/grammar_parts.h"
#include "transport/base/cleanup.h"

void command_init(struct command *cmd)
{
        *cmd = (struct command){.verb = VERB_NONE};
}

static void wipe_text(char *text)
{
        if (text)
                explicit_bzero(text, strlen(text));
        free(text);
}

static void free_pairs(struct pair *pairs, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                free(pairs[i].key);
                wipe_text(pairs[i].value);
        }
        free(pairs);
}

void command_done(struct command *cmd)
{
        free(cmd->target);
        free(cmd->provider);
        free(cmd->id);
        free_pairs(cmd->options, cmd->option_count);
        wipe_text(cmd->text);
        for (size_t i = 0; i < cmd->argc; i++)
                wipe_text(cmd->argv[i]);
        free(cmd->argv);
        free(cmd->name);
        free(cmd->cwd);
        free(cmd->user);
        if (cmd->stdin_data)
                explicit_bzero(cmd->stdin_data, cmd->stdin_size);
        free(cmd->stdin_data);
        free_pairs(cmd->env, cmd->env_count);
        free(cmd->shown);
        command_init(cmd);
}

/* Capacity is the next power of two, so an array is full whenever its count is one. */
static bool is_full(size_t count)
{
        return (count & (count - 1)) == 0;
}

/* A larger copy of an array of `count` members; the old one is freed. NULL: out of memory. */
static void *grow(void *old, size_t count, size_t member_size)
{
        void *larger = calloc(count ? 2 * count : 1, member_size);

        if (!larger)
                return NULL;
        if (old)
                memcpy(larger, old, count * member_size);
        free(old);
        return larger;
}

int pairs_add(struct pair **pairs, size_t *count, const char *key, const char *value,
              struct call *c)
{
        struct pair *p = *pairs;
        size_t n = *count;

        if (n == GRAMMAR_PAIRS_MAX)
                return call_fail(c, -EINVAL, "more than %d options", GRAMMAR_PAIRS_MAX);
        for (size_t i = 0; i < n; i++)
                if (strcmp(p[i].key, key) == 0)
                        return call_fail(c, -EINVAL, "\"%s\" is given twice",
                                         quoted(key, strlen(key)).text);
        if (is_full(n)) {
                p = grow(p, n, sizeof(*p));
                if (!p)
                        return -ENOMEM;
                *pairs = p;
        }
        p[n] = (struct pair){strdup(key), strdup(value)};
        *count = n + 1; /* also when half of it is missing: command_done frees both */
        return p[n].key && p[n].value ? 0 : -ENOMEM;
}

int words_add(struct command *cmd, const char *word)
{
        /* One more than argc, for the NULL at the end. */
        if (is_full(cmd->argc + 1)) {
                char **larger = calloc(2 * (cmd->argc + 1), sizeof(*larger));

                if (!larger)
                        return -ENOMEM;
                if (cmd->argv)
                        memcpy(larger, cmd->argv, cmd->argc * sizeof(*larger));
                free(cmd->argv);
                cmd->argv = larger;
        }
        cmd->argv[cmd->argc] = strdup(word);
        if (!cmd->argv[cmd->argc])
                return -ENOMEM;
        cmd->argc++;
        return 0;
}

static int check_size(const char *text, size_t size, struct call *c)
{
        const char *nul;

        if (size > GRAMMAR_LINE_MAX)
                return call_fail(c, -E2BIG, "longer than 1 MiB");
        nul = memchr(text, '\0', size);
        if (nul)
                return call_fail(c, -EINVAL, "column %zu: a NUL byte", (size_t)(nul - text) + 1);
        return 0;
}

static size_t without_final(const char *text, size_t size, char last)
{
        return size > 0 && text[size - 1] == last ? size - 1 : size;
}

static int parse_words(enum grammar_scope scope, struct line *l, struct command *cmd,
                       struct call *c)
{
        _cleanup_(buf_wipe) struct buf word = BUF_INIT(GRAMMAR_LINE_MAX);
        const struct verb_row *row;
        int r = line_word(l, &word, c);

        if (r >= 0)
                r = verb_find(scope, buf_str(&word), &row, c);
        if (r < 0)
                return r;
        cmd->verb = row->verb;
        if (cmd->verb == VERB_EXEC)
                r = verb_parse_exec(l, cmd, c);
        else if (cmd->verb == VERB_EXECV)
                r = verb_parse_execv(l, cmd, c);
        else
                r = verb_parse(scope, l, cmd, c);
        if (r < 0)
                return r;
        cmd->shown = line_shown(l);
        return cmd->shown ? 0 : -ENOMEM;
}

static int parse(enum grammar_scope scope, struct line *l, struct command *cmd, struct call *c)
{
        char first = l->at < l->size ? l->text[l->at] : '#';

        if (first == '#')
                return (cmd->shown = strdup("")) ? 0 : -ENOMEM;
        if (first == '{')
                return object_parse(scope, l->text, l->size, cmd, c);
        return parse_words(scope, l, cmd, c);
}

int grammar_parse(enum grammar_scope scope, const char *line, size_t size, struct command *ret,
                  struct call *c)
{
        _cleanup_(command_done) struct command cmd;
        _cleanup_(line_done) struct line l;
        int r;

        command_init(&cmd);
        size = without_final(line, size, '\r');
        line_init(&l, line, size);
        r = check_size(line, size, c);
        if (r == 0)
                r = parse(scope, &l, &cmd, c);
        if (r < 0)
                return r;
        *ret = cmd;
        command_init(&cmd);
        return 0;
}

/*
 * After the brace of an object comes a key or its end; in sh, `{ "` would be a group that starts
 * with a quoted word.
 */
static bool is_object(const struct line *l)
{
        size_t at = l->at;

        if (at == l->size || l->text[at++] != '{')
                return false;
        while (at < l->size && strchr(" \t\r\n", l->text[at]))
                at++;
        return at < l->size && (l->text[at] == '"' || l->text[at] == '}');
}

static int parse_text(const char *text, size_t size, struct command *cmd, struct call *c)
{
        cmd->verb = VERB_EXEC;
        cmd->text = strndup(text, size);
        cmd->shown = strndup(text, size);
        if (!cmd->text || !cmd->shown)
                return -ENOMEM;
        if (cmd->text[strspn(cmd->text, " \t\r\n")] == '\0')
                return call_fail(c, -EINVAL, "the command is empty");
        return 0;
}

int grammar_parse_cmd(const char *text, size_t size, struct command *ret, struct call *c)
{
        _cleanup_(command_done) struct command cmd;
        struct line l;
        int r;

        command_init(&cmd);
        size = without_final(text, size, '\n');
        r = check_size(text, size, c);
        if (r < 0)
                return r;
        l = (struct line){.text = text, .size = size};
        while (l.at < size && strchr(" \t\r\n", text[l.at]))
                l.at++;
        if (is_object(&l))
                r = object_parse_cmd(text, size, &cmd, c);
        else
                r = parse_text(text, size, &cmd, c);
        if (r < 0)
                return r;
        *ret = cmd;
        command_init(&cmd);
        return 0;
}

int grammar_parse_env(const char *line, size_t size, char **ret_key, char **ret_value,
                      struct call *c)
{
        _cleanup_(freep) char *key = NULL, *value = NULL;
        const char *end;
        int r;

        size = without_final(line, size, '\r');
        r = check_size(line, size, c);
        if (r < 0)
                return r;
        while (size > 0 && (*line == ' ' || *line == '\t')) {
                line++;
                size--;
        }
        if (size == 0 || *line == '#') {
                *ret_key = *ret_value = NULL;
                return 0;
        }
        end = memchr(line, '=', size);
        if (!end) /* not repeated: it may be the value, sent alone by mistake */
                return call_fail(c, -EINVAL, "no \"=\": a line of env is KEY=VALUE");
        r = env_check_name(line, (size_t)(end - line), c);
        if (r < 0)
                return r;
        key = strndup(line, (size_t)(end - line));
        value = strndup(end + 1, size - (size_t)(end + 1 - line));
        if (!key || !value) {
                if (value)
                        explicit_bzero(value, strlen(value));
                return -ENOMEM;
        }
        *ret_key = STEAL(key);
        *ret_value = STEAL(value);
        return 0;
}
