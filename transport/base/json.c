/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON. cJSON builds the tree, but it is generous: it takes control bytes in strings, numbers like
 * 01, bytes that are no UTF-8, and cuts a string at \u0000. So the text is first read by a strict
 * checker (RFC 8259), which also finds the place of an error; when cJSON then refuses what the
 * checker took, it was out of memory.
 *
 * A struct json is cJSON's struct under another name.
 */

#include "transport/base/json.h"

#include <errno.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/escape.h"

#define DEPTH_MAX 64
#define NUMBER_MAX 63 /* bytes; cJSON reads a number through an array of 64 */
#define INTEGER_MAX (INT64_C(1) << 53)

struct text {
        const char *at, *end;
};

static void skip_blanks(struct text *t)
{
        while (t->at < t->end &&
               (*t->at == ' ' || *t->at == '\t' || *t->at == '\n' || *t->at == '\r'))
                t->at++;
}

static bool take(struct text *t, char c)
{
        if (t->at == t->end || *t->at != c)
                return false;
        t->at++;
        return true;
}

static bool check_word(struct text *t, const char *word)
{
        for (; *word; word++)
                if (!take(t, *word))
                        return false;
        return true;
}

static bool check_digits(struct text *t)
{
        const char *start = t->at;

        while (t->at < t->end && *t->at >= '0' && *t->at <= '9')
                t->at++;
        return t->at > start;
}

static bool check_number(struct text *t)
{
        const char *start = t->at;

        (void)take(t, '-'); /* may be absent */
        if (!take(t, '0') && !check_digits(t))
                return false;
        if (take(t, '.') && !check_digits(t))
                return false;
        if (take(t, 'e') || take(t, 'E')) {
                if (!take(t, '+'))
                        (void)take(t, '-'); /* may be absent */
                if (!check_digits(t))
                        return false;
        }
        return t->at - start <= NUMBER_MAX;
}

/* Four hex digits. */
static bool read_unit(struct text *t, unsigned *ret)
{
        unsigned unit = 0;

        for (unsigned i = 0; i < 4; i++, t->at++) {
                char c = t->at < t->end ? *t->at : '\0';

                if (c >= '0' && c <= '9')
                        unit = unit << 4 | (unsigned)(c - '0');
                else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
                        unit = unit << 4 | (unsigned)((c | 0x20) - 'a' + 10);
                else
                        return false;
        }
        *ret = unit;
        return true;
}

/* What follows the backslash: no NUL, and surrogates only in pairs. */
static bool check_escape(struct text *t)
{
        unsigned unit;

        if (t->at == t->end)
                return false;
        if (*t->at != 'u') {
                if (*t->at == '\0' || !strchr("\"\\/bfnrt", *t->at))
                        return false;
                t->at++;
                return true;
        }
        t->at++;
        if (!read_unit(t, &unit) || unit == 0 || (unit >= 0xdc00 && unit <= 0xdfff))
                return false;
        if (unit >= 0xd800 && unit <= 0xdbff)
                return check_word(t, "\\u") && read_unit(t, &unit) && unit >= 0xdc00 &&
                       unit <= 0xdfff;
        return true;
}

static bool check_string(struct text *t)
{
        if (!take(t, '"'))
                return false;
        while (!take(t, '"')) {
                unsigned length = utf8_length(t->at, (size_t)(t->end - t->at));

                if (length == 0 || (unsigned char)*t->at < 0x20)
                        return false; /* the end, too */
                t->at += length;
                if (t->at[-1] == '\\' && !check_escape(t))
                        return false;
        }
        return true;
}

static bool check_value(struct text *t, unsigned depth);

static bool check_member(struct text *t, unsigned depth)
{
        skip_blanks(t);
        if (!check_string(t))
                return false;
        skip_blanks(t);
        return take(t, ':') && check_value(t, depth);
}

/* An array or object; its opening bracket was taken. */
static bool check_members(struct text *t, char close, unsigned depth)
{
        if (depth > DEPTH_MAX)
                return false;
        skip_blanks(t);
        if (take(t, close))
                return true;
        do
                if (!(close == '}' ? check_member(t, depth) : check_value(t, depth)))
                        return false;
        while (take(t, ','));
        return take(t, close);
}

/* With the blanks around it. Recursion ends at DEPTH_MAX. */
static bool check_value(struct text *t, unsigned depth)
{
        bool ok;

        skip_blanks(t);
        if (t->at == t->end)
                return false;
        switch (*t->at) {
        case '{':
                t->at++;
                ok = check_members(t, '}', depth + 1);
                break;
        case '[':
                t->at++;
                ok = check_members(t, ']', depth + 1);
                break;
        case '"': ok = check_string(t); break;
        case 't': ok = check_word(t, "true"); break;
        case 'f': ok = check_word(t, "false"); break;
        case 'n': ok = check_word(t, "null"); break;
        default: ok = check_number(t); break;
        }
        if (ok)
                skip_blanks(t);
        return ok;
}

static const cJSON *node(const struct json *j)
{
        return (const cJSON *)(const void *)j;
}

static const struct json *value(const cJSON *c)
{
        return (const struct json *)(const void *)c;
}

static int compare_keys(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* -EINVAL when a key of this object stands twice. */
static int check_keys(const cJSON *object)
{
        const char **keys;
        size_t count = 0, i = 0;
        int r = 0;

        for (const cJSON *c = object->child; c; c = c->next)
                count++;
        if (count < 2)
                return 0;
        keys = calloc(count, sizeof(*keys));
        if (!keys)
                return -ENOMEM;
        for (const cJSON *c = object->child; c; c = c->next)
                keys[i++] = c->string;
        qsort(keys, count, sizeof(*keys), compare_keys);
        for (i = 1; i < count && r == 0; i++)
                if (strcmp(keys[i - 1], keys[i]) == 0)
                        r = -EINVAL;
        free(keys);
        return r;
}

static int check_all_keys(const cJSON *c)
{
        int r = cJSON_IsObject(c) ? check_keys(c) : 0;

        for (c = c->child; c && r == 0; c = c->next)
                r = check_all_keys(c);
        return r;
}

int json_parse(const char *text, size_t size, struct json **ret, size_t *ret_at)
{
        struct text t = {text, text + size};
        const char *end = NULL;
        cJSON *root;
        int r;

        if (!check_value(&t, 0) || t.at != t.end) {
                if (ret_at)
                        *ret_at = (size_t)(t.at - text);
                return -EINVAL;
        }
        root = cJSON_ParseWithLengthOpts(text, size, &end, false);
        if (!root)
                return -ENOMEM;
        r = check_all_keys(root);
        if (r < 0) {
                json_free((struct json *)(void *)root);
                if (r == -EINVAL && ret_at)
                        *ret_at = size;
                return r;
        }
        *ret = (struct json *)(void *)root;
        return 0;
}

static void wipe(cJSON *c)
{
        for (; c; c = c->next) {
                if (c->valuestring)
                        explicit_bzero(c->valuestring, strlen(c->valuestring));
                wipe(c->child);
        }
}

void json_free(struct json *j)
{
        cJSON *root = (cJSON *)(void *)j;

        wipe(root);
        cJSON_Delete(root);
}

void json_freep(struct json **j)
{
        json_free(*j);
}

enum json_type json_type(const struct json *j)
{
        const cJSON *c = node(j);

        if (cJSON_IsBool(c))
                return JSON_BOOL;
        if (cJSON_IsNumber(c))
                return JSON_NUMBER;
        if (cJSON_IsString(c))
                return JSON_STRING;
        if (cJSON_IsArray(c))
                return JSON_ARRAY;
        if (cJSON_IsObject(c))
                return JSON_OBJECT;
        return JSON_NULL;
}

const struct json *json_get(const struct json *object, const char *key)
{
        if (!cJSON_IsObject(node(object)))
                return NULL;
        return value(cJSON_GetObjectItemCaseSensitive(node(object), key));
}

const char *json_string(const struct json *j)
{
        return cJSON_GetStringValue(node(j));
}

bool json_bool(const struct json *j, bool *ret)
{
        if (!cJSON_IsBool(node(j)))
                return false;
        *ret = cJSON_IsTrue(node(j));
        return true;
}

bool json_integer(const struct json *j, int64_t *ret)
{
        double number;

        if (!cJSON_IsNumber(node(j)))
                return false;
        number = node(j)->valuedouble;
        if (!(number >= -(double)INTEGER_MAX && number <= (double)INTEGER_MAX) ||
            (double)(int64_t)number != number)
                return false;
        *ret = (int64_t)number;
        return true;
}

const struct json *json_first(const struct json *j)
{
        return j ? value(node(j)->child) : NULL;
}

const struct json *json_next(const struct json *child)
{
        return value(node(child)->next);
}

const char *json_key(const struct json *child)
{
        return node(child)->string;
}

static int add_char(struct buf *to, unsigned char c)
{
        static const char plain[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
        const char *at = strchr(plain, c);

        if (at)
                return buf_addf(to, "\\%c", names[at - plain]);
        if (c < 0x20)
                return buf_addf(to, "\\u%04x", c);
        return buf_add_char(to, (char)c);
}

static int add_string(struct buf *to, const char *text)
{
        size_t size = strlen(text);
        int r = buf_add_char(to, '"');

        while (r == 0 && size > 0) {
                unsigned length = utf8_length(text, size);

                if (length == 1)
                        r = add_char(to, (unsigned char)*text);
                else if (length > 1)
                        r = buf_add(to, text, length);
                else
                        r = buf_add(to, "\xef\xbf\xbd", 3);
                text += length ? length : 1;
                size -= length ? length : 1;
        }
        return r < 0 ? r : buf_add_char(to, '"');
}

int json_add_string(struct buf *to, const char *text)
{
        size_t before = to->size;
        int r = add_string(to, text);

        if (r < 0 && to->size > before) {
                to->size = before;
                to->data[before] = '\0';
        }
        return r;
}
