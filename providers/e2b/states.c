/* SPDX-License-Identifier: Apache-2.0 */
/* What the service says of a sandbox; see states.h. */

#include "providers/e2b/states.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "providers/remote/words.h"
#include "transport/base/json.h"

#define SIZE_OF(array) (sizeof(array) / sizeof((array)[0]))

enum box_state e2b_state(const char *word)
{
        static const struct {
                const char *word;
                enum box_state state;
        } table[] = {
                {"running", BOX_RUNNING},
                {"paused", BOX_PAUSED},
        };

        for (size_t i = 0; word && i < SIZE_OF(table); i++)
                if (strcmp(table[i].word, word) == 0)
                        return table[i].state;
        return BOX_UNKNOWN;
}

/* ---- numbers ---- */

static int64_t number(const struct json *object, const char *key)
{
        int64_t value;

        return json_integer(json_get(object, key), &value) && value > 0 ? value : 0;
}

/* ---- a sandbox ---- */

const char *e2b_metadata(const struct json *sandbox, const char *key)
{
        const char *value = json_string(json_get(json_get(sandbox, "metadata"), key));

        return value ? value : "";
}

void e2b_describe(const struct json *sandbox, struct box_status *ret)
{
        const char *word = json_string(json_get(sandbox, "state")),
                   *image = json_string(json_get(sandbox, "alias"));
        int64_t cpu = number(sandbox, "cpuCount"), memory = number(sandbox, "memoryMB"),
                disk = number(sandbox, "diskSizeMB");

        *ret = (struct box_status){0};
        (void)snprintf(ret->raw, sizeof(ret->raw), "%.63s", word ? word : "");
        ret->state = e2b_state(word);
        if (!image)
                image = json_string(json_get(sandbox, "templateID"));
        (void)snprintf(ret->image, sizeof(ret->image), "%.255s", image ? image : "");
        if (cpu < UINT32_MAX / 1000)
                ret->cpu_milli = (uint32_t)cpu * 1000;
        if (memory < INT64_C(1) << 40)
                ret->memory = (uint64_t)memory << 20;
        if (disk < INT64_C(1) << 40)
                ret->disk = (uint64_t)disk << 20;
        if (ret->state == BOX_RUNNING)
                (void)words_time(json_string(json_get(sandbox, "endAt")), &ret->expires_real_ns);
}

bool e2b_is_id(const char *id)
{
        return id[0] && strlen(id) < sizeof(((struct box *)NULL)->id) && id[0] != '-' &&
               id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")] ==
                       '\0';
}

bool e2b_since(const char *version, const char *least)
{
        unsigned is[3] = {0}, wanted[3] = {0};

        version += version[0] == 'v';
        if (sscanf(version, "%6u.%6u.%6u", &is[0], &is[1], &is[2]) < 2)
                return true;
        (void)sscanf(least, "%6u.%6u.%6u", &wanted[0], &wanted[1], &wanted[2]); /* ours */
        for (size_t i = 0; i < 3; i++)
                if (is[i] != wanted[i])
                        return is[i] > wanted[i];
        return true;
}

/* ---- errors ---- */

int e2b_error(const char *code, const char *message)
{
        static const struct {
                const char *code;
                int error;
        } table[] = {
                {"not_found", ENOENT},
                {"already_exists", EEXIST},
                {"invalid_argument", EINVAL},
                {"failed_precondition", EIO},
                {"unauthenticated", EACCES},
                {"permission_denied", EACCES},
                {"resource_exhausted", EAGAIN},
                {"unimplemented", EOPNOTSUPP},
                {"deadline_exceeded", ETIMEDOUT},
                {"canceled", EHOSTUNREACH},
                {"aborted", EHOSTUNREACH},
                {"unavailable", EHOSTUNREACH},
        };
        int r = words_error(message);

        for (size_t i = 0; r == 0 && code && i < SIZE_OF(table); i++)
                if (strcmp(table[i].code, code) == 0)
                        r = -table[i].error;
        return r < 0 ? r : -EIO;
}

/* ---- ends ---- */

bool e2b_end(const struct json *end, bool *ret_has_code, int *ret_code, int *ret_signal)
{
        const struct json *given = json_get(end, "exitCode");
        bool has_exited = false;
        int64_t code = 0;

        if (given && !json_integer(given, &code))
                return false;
        (void)json_bool(json_get(end, "exited"), &has_exited); /* absent: false */
        *ret_has_code = has_exited;
        *ret_code = (int)(code & 0xff);
        *ret_signal = has_exited ? 0 : words_signal(json_string(json_get(end, "status")));
        return has_exited ? code >= 0 && code <= 255 : *ret_signal > 0;
}

/* ---- what a 4xx means ---- */

bool e2b_is_other_variant(unsigned status, const char *sentence)
{
        return status == 405 || status == 410 ||
               (status == 400 && strcasestr(sentence, "method not allowed")) ||
               (status == 404 && strcasestr(sentence, "no matching operation"));
}

/* The account was known, or it was 401. What another server says there is no JSON of the API's. */
bool e2b_is_gone(unsigned status, const char *body, size_t size)
{
        struct json *j = NULL;
        const char *message;
        int64_t code = 0;
        bool is_gone;

        if (status != 404 || json_parse(body, size, &j, NULL) < 0)
                return false;
        message = json_string(json_get(j, "message"));
        is_gone = message && !strcasestr(message, "no matching operation") &&
                  json_integer(json_get(j, "code"), &code) && code == 404;
        json_free(j);
        return is_gone;
}

bool e2b_is_not_there_yet(unsigned status, const char *sentence)
{
        return (status == 502 && (strcasestr(sentence, "sandbox was not found") ||
                                  strcasestr(sentence, "port is not open"))) ||
               (status == 409 && strcasestr(sentence, "transitioning"));
}
