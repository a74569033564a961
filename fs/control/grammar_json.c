/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON form: {"verb": ..., ...}. Each verb has a list of keys; a key that is not in it is
 * refused with the nearest one. Numbers and booleans stand for the words that they would be on a
 * line: "cpu": 2 is cpu=2.
 *
 *      exec, execv   text | argv, name cwd user timeout unsent env.K, env {}, stdin: a string is
 *                    all of it, true is stdin=open
 *      create        name, settings as on a line, env {} label {} mount {}
 *      adopt         provider id name        kill    signal exec        eof       exec
 *      timeout       timeout                 label   label {one}        protect   on
 *      discard       path
 */

#include "fs/control/grammar_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/json.h"

struct context {
        enum grammar_scope scope;
        struct command *cmd;
        struct exec_seen seen;
        struct call *c;
};

static const char *const exec_keys[] = {"text",    "argv",  "name",   "cwd", "user",
                                        "timeout", "stdin", "unsent", "env", NULL};
static const char *const adopt_keys[] = {"provider", "id", "name", NULL};
static const char *const kill_keys[] = {"signal", "exec", NULL};
static const char *const eof_keys[] = {"exec", NULL};
static const char *const timeout_keys[] = {"timeout", NULL};
static const char *const label_keys[] = {"label", NULL};
static const char *const protect_keys[] = {"on", NULL};
static const char *const discard_keys[] = {"path", NULL};
static const char *const no_keys[] = {NULL};

/* NULL: any; they are looked at elsewhere. */
static const char *const *keys_of(enum verb verb)
{
        switch ((int)verb) {
        case VERB_EXEC:
        case VERB_EXECV: return exec_keys;
        case VERB_CREATE: return NULL;
        case VERB_ADOPT: return adopt_keys;
        case VERB_KILL: return kill_keys;
        case VERB_EOF: return eof_keys;
        case VERB_TIMEOUT: return timeout_keys;
        case VERB_LABEL: return label_keys;
        case VERB_PROTECT: return protect_keys;
        case VERB_DISCARD: return discard_keys;
        default: return no_keys;
        }
}

static int check_key(enum verb verb, const char *key, struct call *c)
{
        const char *const *keys = keys_of(verb);
        struct quoted q = quoted(key, strlen(key));
        const char *nearest;

        if (!keys || (keys == exec_keys && exec_is_key(key, strlen(key))))
                return 0;
        for (size_t i = 0; keys[i]; i++)
                if (strcmp(keys[i], key) == 0)
                        return 0;
        nearest = name_nearest(key, keys);
        if (nearest)
                return call_fail(c, -EINVAL, "unknown key \"%s\"; did you mean \"%s\"?", q.text,
                                 nearest);
        return call_fail(c, -EINVAL, "unknown key \"%s\"", q.text);
}

/* ---- values ---- */

static int wrong_type(const char *key, const char *type, struct call *c)
{
        return call_fail(c, -EINVAL, "\"%s\" must be %s", quoted(key, strlen(key)).text, type);
}

/* The word that a value stands for, in `number` unless it is a string. NULL: it stands for none. */
static const char *word_of(const struct json *value, char number[24])
{
        int64_t n;
        bool b;

        if (json_integer(value, &n)) {
                (void)snprintf(number, 24, "%" PRId64, n); /* always fits */
                return number;
        }
        if (json_bool(value, &b))
                return b ? "true" : "false";
        return json_string(value);
}

static int need_word(const struct json *value, const char *key, char number[24], const char **ret,
                     struct call *c)
{
        *ret = word_of(value, number);
        return *ret ? 0 : wrong_type(key, "a string, a whole number, or true or false", c);
}

/* A string that is kept as it is, once. */
static int set_string(char **to, const struct json *value, const char *key, struct call *c)
{
        const char *text = json_string(value);

        if (!text)
                return wrong_type(key, "a string", c);
        if (text[0] == '\0')
                return call_fail(c, -EINVAL, "\"%s\" is empty", key);
        *to = strdup(text);
        return *to ? 0 : -ENOMEM;
}

/* Names may look like numbers: "exec": 3. */
static int set_name(char **to, const struct json *value, const char *key, struct call *c)
{
        char number[24];
        const char *text = json_type(value) == JSON_BOOL ? NULL : word_of(value, number);

        if (!text || text[0] == '\0')
                return wrong_type(key, "the name or number of an exec", c);
        *to = strdup(text);
        return *to ? 0 : -ENOMEM;
}

/* ---- members ---- */

static int add_argv(struct command *cmd, const struct json *value, struct call *c)
{
        if (json_type(value) != JSON_ARRAY)
                return wrong_type("argv", "an array of strings", c);
        for (const struct json *j = json_first(value); j; j = json_next(j)) {
                const char *word = json_string(j);
                int r;

                if (!word)
                        return wrong_type("argv", "an array of strings", c);
                r = words_add(cmd, word);
                if (r < 0)
                        return r;
        }
        if (cmd->argc == 0 || cmd->argv[0][0] == '\0')
                return call_fail(c, -EINVAL, "\"argv\" needs a program");
        return 0;
}

static int set_stdin(struct command *cmd, const struct json *value, struct call *c)
{
        const char *text = json_string(value);

        if (json_bool(value, &cmd->has_stdin_open))
                return 0;
        if (!text)
                return wrong_type("stdin", "a string (all of it) or true (kept open)", c);
        cmd->stdin_data = strdup(text);
        cmd->stdin_size = strlen(text);
        return cmd->stdin_data ? 0 : -ENOMEM;
}

static int add_env(struct command *cmd, const struct json *value, struct call *c)
{
        if (json_type(value) != JSON_OBJECT)
                return wrong_type("env", "an object of strings", c);
        for (const struct json *j = json_first(value); j; j = json_next(j)) {
                char number[24];
                const char *word;
                int r = need_word(j, json_key(j), number, &word, c);

                if (r == 0)
                        r = exec_set_env(cmd, json_key(j), word, c);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int exec_member(struct context *x, const char *key, const struct json *value)
{
        struct command *cmd = x->cmd;
        char number[24];
        const char *word;
        int r;

        if (strcmp(key, "text") == 0)
                return set_string(&cmd->text, value, key, x->c);
        if (strcmp(key, "argv") == 0)
                return add_argv(cmd, value, x->c);
        if (strcmp(key, "env") == 0)
                return add_env(cmd, value, x->c);
        if (strcmp(key, "stdin") == 0)
                return set_stdin(cmd, value, x->c);
        r = need_word(value, key, number, &word, x->c);
        return r < 0 ? r : exec_set(cmd, &x->seen, key, word, x->c);
}

/* "env": {"K": "V"} is env.K=V; so with label and mount. */
static int add_family(struct command *cmd, const char *family, const struct json *value,
                      struct call *c)
{
        _cleanup_(buf_done) struct buf key = BUF_INIT(GRAMMAR_LINE_MAX + 16);

        for (const struct json *j = json_first(value); j; j = json_next(j)) {
                char number[24];
                const char *word;
                int r = need_word(j, json_key(j), number, &word, c);

                buf_clear(&key);
                if (r == 0)
                        r = buf_addf(&key, "%s.%s", family, json_key(j));
                if (r == 0)
                        r = command_set_setting(cmd, buf_str(&key), word, c);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int create_member(struct context *x, const char *key, const struct json *value)
{
        char number[24];
        const char *word;
        int r;

        if (strcmp(key, "name") == 0)
                return set_string(&x->cmd->target, value, key, x->c);
        if (strcmp(key, "env") == 0 || strcmp(key, "label") == 0 || strcmp(key, "mount") == 0) {
                if (json_type(value) != JSON_OBJECT)
                        return wrong_type(key, "an object of strings", x->c);
                return add_family(x->cmd, key, value, x->c);
        }
        r = need_word(value, key, number, &word, x->c);
        return r < 0 ? r : command_set_setting(x->cmd, key, word, x->c);
}

static int adopt_member(struct context *x, const char *key, const struct json *value)
{
        if (strcmp(key, "provider") == 0)
                return set_string(&x->cmd->provider, value, key, x->c);
        if (strcmp(key, "id") == 0)
                return set_string(&x->cmd->id, value, key, x->c);
        return set_string(&x->cmd->target, value, key, x->c);
}

static int target_member(struct context *x, const char *key, const struct json *value)
{
        char number[24];
        const char *word;
        int r;

        if (strcmp(key, "exec") == 0) {
                if (x->scope == GRAMMAR_TASK)
                        return call_fail(x->c, -EINVAL,
                                         "\"exec\": none is named here, this ctl is of one");
                return set_name(&x->cmd->target, value, key, x->c);
        }
        r = need_word(value, key, number, &word, x->c);
        return r < 0 ? r : command_set_signal(x->cmd, word, x->c);
}

static int label_member(struct context *x, const struct json *value)
{
        const struct json *one = json_first(value);
        char number[24];
        const char *word;
        int r;

        if (json_type(value) != JSON_OBJECT || !one || json_next(one))
                return wrong_type("label", "an object with one key", x->c);
        r = need_word(one, json_key(one), number, &word, x->c);
        return r < 0 ? r : command_set_label(x->cmd, json_key(one), word, x->c);
}

static int protect_member(struct context *x, const char *key, const struct json *value)
{
        return json_bool(value, &x->cmd->is_on) ? 0 : wrong_type(key, "true or false", x->c);
}

static int timeout_member(struct context *x, const char *key, const struct json *value)
{
        char number[24];
        const char *word;
        int r = need_word(value, key, number, &word, x->c);

        return r < 0 ? r : command_set_span(x->cmd, word, x->c);
}

static int member(struct context *x, const char *key, const struct json *value)
{
        switch ((int)x->cmd->verb) {
        case VERB_CREATE: return create_member(x, key, value);
        case VERB_ADOPT: return adopt_member(x, key, value);
        case VERB_EXEC:
        case VERB_EXECV: return exec_member(x, key, value);
        case VERB_KILL:
        case VERB_EOF: return target_member(x, key, value);
        case VERB_TIMEOUT: return timeout_member(x, key, value);
        case VERB_LABEL: return label_member(x, value);
        case VERB_PROTECT: return protect_member(x, key, value);
        default:
                /* discard; the others have no key */
                return set_string(&x->cmd->target, value, key, x->c);
        }
}

/* ---- whole objects ---- */

static int check_exec(const struct command *cmd, struct call *c)
{
        if (cmd->text && cmd->argv)
                return call_fail(c, -EINVAL, "\"text\" and \"argv\" exclude each other");
        if (cmd->verb == VERB_EXECV && !cmd->argv)
                return call_fail(c, -EINVAL, "execv needs \"argv\"");
        if (!cmd->text && !cmd->argv)
                return call_fail(c, -EINVAL, "exec needs \"text\" or \"argv\"");
        if (cmd->text && cmd->text[strspn(cmd->text, " \t\r\n")] == '\0')
                return call_fail(c, -EINVAL, "\"text\" is empty");
        if (cmd->stdin_data && cmd->has_stdin_open)
                return call_fail(c, -EINVAL, "\"stdin\" is given twice");
        return 0;
}

/* What must not be missing. */
static int check_complete(const struct command *cmd, const struct json *object, struct call *c)
{
        switch ((int)cmd->verb) {
        case VERB_EXEC:
        case VERB_EXECV: return check_exec(cmd, c);
        case VERB_CREATE: return cmd->target ? 0 : call_fail(c, -EINVAL, "create needs \"name\"");
        case VERB_ADOPT:
                return cmd->provider && cmd->id
                               ? 0
                               : call_fail(c, -EINVAL, "adopt needs \"provider\" and \"id\"");
        case VERB_TIMEOUT:
                return json_get(object, "timeout")
                               ? 0
                               : call_fail(c, -EINVAL, "timeout needs \"timeout\"");
        case VERB_LABEL:
                return cmd->option_count ? 0 : call_fail(c, -EINVAL, "label needs \"label\"");
        case VERB_PROTECT:
                return json_get(object, "on") ? 0 : call_fail(c, -EINVAL, "protect needs \"on\"");
        case VERB_DISCARD: return cmd->target ? 0 : call_fail(c, -EINVAL, "discard needs \"path\"");
        default: return 0;
        }
}

static int add_members(struct context *x, const struct json *object)
{
        for (const struct json *j = json_first(object); j; j = json_next(j)) {
                const char *key = json_key(j);
                int r;

                if (strcmp(key, "verb") == 0)
                        continue;
                r = check_key(x->cmd->verb, key, x->c);
                if (r == 0)
                        r = member(x, key, j);
                if (r < 0)
                        return r;
        }
        return check_complete(x->cmd, object, x->c);
}

/* ---- what is shown ---- */

static bool is_hidden(const char *key, bool is_env)
{
        return is_env || (key && (strcmp(key, "stdin") == 0 || strncmp(key, "env.", 4) == 0));
}

/*
 * The object again, in one line, secrets replaced. Only types that were understood are met: depth
 * is 2 at most.
 */
static int print(struct buf *to, const struct json *j, bool is_env, unsigned depth)
{
        enum json_type type = json_type(j);
        const char *key = json_key(j);
        char number[24];
        int r = 0;

        if (key && depth > 0) {
                r = json_add_string(to, key);
                if (r == 0)
                        r = buf_add_char(to, ':');
        }
        if (r < 0)
                return r;
        if (type != JSON_OBJECT && type != JSON_ARRAY) {
                const char *word = word_of(j, number);

                if (is_hidden(key, is_env))
                        return json_add_string(to, "***");
                if (type == JSON_STRING)
                        return json_add_string(to, word);
                return buf_add_str(to, word ? word : "null");
        }
        is_env = depth == 1 && key && strcmp(key, "env") == 0;
        r = buf_add_char(to, type == JSON_OBJECT ? '{' : '[');
        for (const struct json *i = json_first(j); i && r == 0; i = json_next(i)) {
                if (i != json_first(j))
                        r = buf_add_char(to, ',');
                if (r == 0)
                        r = print(to, i, is_env, depth + 1);
        }
        return r < 0 ? r : buf_add_char(to, type == JSON_OBJECT ? '}' : ']');
}

static int show(struct command *cmd, const struct json *object)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(GRAMMAR_SHOWN_MAX);
        int r = print(&text, object, false, 0);

        if (r < 0)
                return r;
        cmd->shown = buf_steal(&text);
        return cmd->shown ? 0 : -ENOMEM;
}

/* ---- parsing ---- */

static int read_object(const char *text, size_t size, struct json **ret, struct call *c)
{
        _cleanup_(json_freep) struct json *j = NULL;
        size_t at = 0;
        int r = json_parse(text, size, &j, &at);

        if (r == -EINVAL && at == size) {
                r = object_find_twice(text, size, c);
                return r < 0 ? r : call_fail(c, -EINVAL, "column %zu: the JSON is cut off", at + 1);
        }
        if (r == -EINVAL)
                return call_fail(c, -EINVAL, "column %zu: this is not JSON", at + 1);
        if (r < 0)
                return r;
        if (json_type(j) != JSON_OBJECT)
                return call_fail(c, -EINVAL, "not a JSON object");
        *ret = STEAL(j);
        return 0;
}

static int finish(struct context *x, const struct json *object)
{
        int r = add_members(x, object);

        if (r < 0)
                return r;
        if (x->cmd->verb == VERB_EXEC && x->cmd->argv)
                x->cmd->verb = VERB_EXECV;
        return show(x->cmd, object);
}

int object_parse(enum grammar_scope scope, const char *text, size_t size, struct command *cmd,
                 struct call *c)
{
        _cleanup_(json_freep) struct json *object = NULL;
        struct context x = {.scope = scope, .cmd = cmd, .c = c};
        const struct verb_row *row;
        const char *word;
        int r = read_object(text, size, &object, c);

        if (r < 0)
                return r;
        word = json_string(json_get(object, "verb"));
        if (!word)
                return call_fail(c, -EINVAL, "\"verb\" must be there, and a string");
        r = verb_find(scope, word, &row, c);
        if (r < 0)
                return r;
        cmd->verb = row->verb;
        return finish(&x, object);
}

int object_parse_cmd(const char *text, size_t size, struct command *cmd, struct call *c)
{
        _cleanup_(json_freep) struct json *object = NULL;
        struct context x = {.scope = GRAMMAR_SANDBOX, .cmd = cmd, .c = c};
        const struct json *verb;
        const char *word;
        int r = read_object(text, size, &object, c);

        if (r < 0)
                return r;
        if (json_get(object, "name"))
                return call_fail(c, -EINVAL, "\"name\": this exec has its name already");
        verb = json_get(object, "verb");
        word = verb ? json_string(verb) : "exec";
        if (!word || (strcmp(word, "exec") != 0 && strcmp(word, "execv") != 0))
                return call_fail(c, -EINVAL, "\"verb\" can only be exec or execv here");
        cmd->verb = word[4] ? VERB_EXECV : VERB_EXEC;
        return finish(&x, object);
}
