/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec and execv. Options end at the first token that is not a known key=value; what follows is for
 * the shell and is not looked at: neither unquoted nor checked. `--` ends the options too, but only
 * where every word before it is key=value (of any key, so that a misspelt one is found): in `exec
 * make -- all` it belongs to make.
 */

#include "fs/control/grammar_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"

enum key { KEY_NAME, KEY_CWD, KEY_USER, KEY_TIMEOUT, KEY_STDIN, KEY_UNSENT, KEY_COUNT };
static const char *const keys[] = {"name", "cwd", "user", "timeout", "stdin", "unsent", NULL};

static enum key find_key(const char *key, size_t size)
{
        enum key k = KEY_NAME;

        while (k < KEY_COUNT && (strlen(keys[k]) != size || memcmp(keys[k], key, size) != 0))
                k++;
        return k;
}

bool exec_is_key(const char *key, size_t size)
{
        return find_key(key, size) < KEY_COUNT || (size >= 4 && memcmp(key, "env.", 4) == 0);
}

int exec_unknown_key(const char *key, size_t size, struct call *c)
{
        struct quoted q = quoted(key, size);
        const char *nearest = name_nearest(q.text, keys);

        if (nearest)
                return call_fail(c, -EINVAL, "unknown option \"%s\"; did you mean \"%s\"?", q.text,
                                 nearest);
        return call_fail(
                c, -EINVAL,
                "unknown option \"%s\"; known: name cwd user timeout stdin unsent env.NAME",
                q.text);
}

int env_check_name(const char *name, size_t size, struct call *c)
{
        bool ok = size > 0 && !(name[0] >= '0' && name[0] <= '9');

        for (size_t i = 0; i < size && ok; i++)
                ok = name[i] == '_' || (name[i] >= '0' && name[i] <= '9') ||
                     (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z');
        if (ok)
                return 0;
        return call_fail(c, -EINVAL,
                         "\"%s\" can't be the name of a variable: letters, digits and _ only",
                         quoted(name, size).text);
}

int exec_set_env(struct command *cmd, const char *name, const char *value, struct call *c)
{
        int r = env_check_name(name, strlen(name), c);

        return r < 0 ? r : pairs_add(&cmd->env, &cmd->env_count, name, value, c);
}

static int set_text(char **to, const char *key, const char *value, struct call *c)
{
        if (value[0] == '\0')
                return call_fail(c, -EINVAL, "\"%s\" is empty", key);
        *to = strdup(value);
        return *to ? 0 : -ENOMEM;
}

/* An option with one allowed word. */
static int set_flag(bool *to, const char *key, const char *value, const char *word, struct call *c)
{
        if (strcmp(value, word) != 0)
                return call_fail(c, -EINVAL, "\"%s\" takes only %s", key, word);
        *to = true;
        return 0;
}

int exec_set(struct command *cmd, struct exec_seen *seen, const char *key, const char *value,
             struct call *c)
{
        enum key k = find_key(key, strlen(key));

        if (k == KEY_COUNT)
                return exec_set_env(cmd, key + 4, value, c);
        if (seen->mask & (1U << k))
                return call_fail(c, -EINVAL, "\"%s\" is given twice", key);
        seen->mask |= 1U << k;
        switch (k) {
        case KEY_NAME: return set_text(&cmd->name, key, value, c);
        case KEY_CWD: return set_text(&cmd->cwd, key, value, c);
        case KEY_USER: return set_text(&cmd->user, key, value, c);
        case KEY_TIMEOUT: return command_set_span(cmd, value, c);
        case KEY_STDIN: return set_flag(&cmd->has_stdin_open, key, value, "open", c);
        case KEY_UNSENT: return set_flag(&cmd->ignore_unsent, key, value, "ignore", c);
        case KEY_COUNT: break;
        }
        return exec_unknown_key(key, strlen(key), c);
}

/* The value of KEY=; empty when nothing is attached. */
static int read_value(struct line *l, size_t key_size, struct buf *word, struct call *c)
{
        l->at += key_size + 1;
        buf_clear(word);
        if (l->at == l->size || l->text[l->at] == ' ' || l->text[l->at] == '\t')
                return 0;
        return line_word(l, word, c);
}

static bool is_dashes(const struct line *l)
{
        const char *at = l->text + l->at;
        size_t left = l->size - l->at;

        return left >= 2 && at[0] == '-' && at[1] == '-' &&
               (left == 2 || at[2] == ' ' || at[2] == '\t');
}

/*
 * Whether a `--` ends the options here: only key=value before it.
 * Broken quotes are somebody else's text.
 */
static bool has_dashes(const struct line *l, struct buf *word)
{
        struct line ahead = *l;
        struct call ignored; /* its sentence is of no interest */

        call_init(&ignored, 0);
        for (;;) {
                size_t size;

                line_skip_blanks(&ahead);
                if (is_dashes(&ahead))
                        return true;
                size = line_key(&ahead);
                if (size == 0 || read_value(&ahead, size, word, &ignored) < 0)
                        return false;
        }
}

static int parse_option(struct line *l, size_t key_size, struct buf *word, struct command *cmd,
                        struct exec_seen *seen, struct call *c)
{
        _cleanup_(freep) char *key = strndup(l->text + l->at, key_size);
        size_t begin = l->at + key_size + 1;
        int r;

        if (!key)
                return -ENOMEM;
        r = read_value(l, key_size, word, c);
        if (r >= 0 && strncmp(key, "env.", 4) == 0)
                r = line_hide(l, begin);
        return r < 0 ? r : exec_set(cmd, seen, key, buf_str(word), c);
}

/* Leaves the line at the first byte of the text. */
static int parse_options(struct line *l, struct buf *word, struct command *cmd, struct call *c)
{
        struct exec_seen seen = {0};
        bool until_dashes = has_dashes(l, word);

        for (;;) {
                size_t size;
                int r;

                line_skip_blanks(l);
                if (until_dashes && is_dashes(l)) {
                        l->at += 2;
                        line_skip_blanks(l);
                        return 0;
                }
                size = line_key(l);
                if (size == 0 || !exec_is_key(l->text + l->at, size)) {
                        if (until_dashes)
                                return exec_unknown_key(l->text + l->at, size, c);
                        return 0;
                }
                r = parse_option(l, size, word, cmd, &seen, c);
                if (r < 0)
                        return r;
        }
}

int verb_parse_exec(struct line *l, struct command *cmd, struct call *c)
{
        _cleanup_(buf_wipe) struct buf word = BUF_INIT(GRAMMAR_LINE_MAX);
        int r = parse_options(l, &word, cmd, c);

        if (r < 0)
                return r;
        if (line_is_end(l))
                return call_fail(c, -EINVAL, "exec needs a command");
        cmd->text = strndup(l->text + l->at, l->size - l->at);
        return cmd->text ? 0 : -ENOMEM;
}

int verb_parse_execv(struct line *l, struct command *cmd, struct call *c)
{
        _cleanup_(buf_wipe) struct buf word = BUF_INIT(GRAMMAR_LINE_MAX);
        int r = parse_options(l, &word, cmd, c);

        if (r < 0)
                return r;
        while ((r = line_word(l, &word, c)) > 0) {
                r = words_add(cmd, buf_str(&word));
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        if (cmd->argc == 0 || cmd->argv[0][0] == '\0')
                return call_fail(c, -EINVAL, "execv needs a program");
        return 0;
}
