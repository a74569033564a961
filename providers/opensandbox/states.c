/* SPDX-License-Identifier: Apache-2.0 */
/* What the service says; see states.h. */

#include "providers/opensandbox/states.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "providers/opensandbox/labels.h"
#include "providers/remote/settings.h"
#include "providers/remote/words.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/json.h"
#include "transport/base/units.h"

#define SIZE_OF(array) (sizeof(array) / sizeof((array)[0]))

enum box_state osb_state(const char *word)
{
        static const struct {
                const char *word;
                enum box_state state;
        } table[] = {
                {"Pending", BOX_CREATING},   {"Allocated", BOX_CREATING},
                {"Creating", BOX_CREATING},  {"Running", BOX_RUNNING},
                {"Pausing", BOX_PAUSING},    {"Paused", BOX_PAUSED},
                {"Resuming", BOX_RESUMING},  {"Stopping", BOX_STOPPING},
                {"Terminated", BOX_STOPPED}, {"Deleting", BOX_DESTROYING},
                {"Deleted", BOX_GONE},       {"Failed", BOX_ERROR},
                {"Error", BOX_ERROR},        {"Unknown", BOX_UNKNOWN},
        };

        for (size_t i = 0; word && i < SIZE_OF(table); i++)
                if (strcasecmp(table[i].word, word) == 0)
                        return table[i].state;
        return BOX_UNKNOWN;
}

/* ---- a sandbox ---- */

const char *osb_label(const struct json *sandbox, const char *key)
{
        const char *value = json_string(json_get(json_get(sandbox, "metadata"), key));

        return value ? value : "";
}

bool osb_long_label(const struct json *sandbox, const char *key, struct buf *to)
{
        _cleanup_(buf_done) struct buf escaped = BUF_INIT((size_t)LABEL_PIECES * LABEL_MAX);
        char each[64];

        for (unsigned i = 0; i < LABEL_PIECES; i++) {
                const char *piece;

                (void)snprintf(each, sizeof(each), i == 0 ? "%s" : "%s-%u", key, i);
                piece = osb_label(sandbox, each);
                if (!*piece)
                        break;
                if (label_join(&escaped, piece) < 0)
                        return false;
        }
        return escaped.size > 0 && label_unescape(to, buf_str(&escaped)) == 0;
}

static const char *text_of(const struct json *object, const char *key)
{
        const char *text = json_string(json_get(object, key));

        return text ? text : "";
}

/* Kubernetes' words: k, M and G are powers of 1000, Ki, Mi and Gi of 1024. 0: none, or unknown. */
static uint64_t bytes_of(const char *text)
{
        static const struct {
                const char *unit;
                uint64_t bytes;
        } table[] = {
                {"", 1},
                {"k", 1000},
                {"M", UINT64_C(1000000)},
                {"G", UINT64_C(1000000000)},
                {"Ki", UINT64_C(1) << 10},
                {"Mi", UINT64_C(1) << 20},
                {"Gi", UINT64_C(1) << 30},
                {"Ti", UINT64_C(1) << 40},
        };
        size_t digits = strspn(text, "0123456789");
        uint64_t n = 0;

        if (digits == 0 || digits > 12)
                return 0;
        for (size_t i = 0; i < digits; i++)
                n = n * 10 + (uint64_t)(text[i] - '0');
        for (size_t i = 0; i < SIZE_OF(table); i++)
                if (strcmp(text + digits, table[i].unit) == 0)
                        return n <= UINT64_MAX / table[i].bytes ? n * table[i].bytes : 0;
        return 0;
}

/* Where a server tells its limits: newer ones do. */
static void describe_limits(const struct json *sandbox, struct box_status *ret)
{
        const struct json *limits = json_get(sandbox, "resourceLimits");
        const char *cpu;

        if (!limits)
                limits = json_get(json_get(sandbox, "allocation"), "resourceLimits");
        cpu = text_of(limits, "cpu");
        if (*cpu && units_parse_cpu(cpu, &ret->cpu_milli) < 0)
                ret->cpu_milli = 0;
        ret->memory = bytes_of(text_of(limits, "memory"));
}

void osb_describe(const struct json *sandbox, struct box_status *ret)
{
        const struct json *status = json_get(sandbox, "status");
        const char *word = json_string(json_get(status, "state")),
                   *image = text_of(json_get(sandbox, "image"), "uri"),
                   *reason = text_of(status, "reason"), *message = text_of(status, "message");

        *ret = (struct box_status){0};
        (void)snprintf(ret->raw, sizeof(ret->raw), "%.63s", word ? word : "");
        ret->state = osb_state(word);
        if (!*image)
                image = text_of(sandbox, "snapshotId");
        (void)snprintf(ret->image, sizeof(ret->image), "%.255s", image);
        describe_limits(sandbox, ret);
        (void)words_time(json_string(json_get(sandbox, "expiresAt")), &ret->expires_real_ns);
        if (ret->state == BOX_ERROR || ret->state == BOX_STOPPED)
                (void)snprintf(ret->sentence, sizeof(ret->sentence), "%.60s%s%.190s", reason,
                               *reason && *message ? ": " : "", message);
}

bool osb_is_id(const char *id)
{
        return settings_has_only(id, SETTINGS_ALNUM "-_.") && id[0] != '-' && id[0] != '.' &&
               strlen(id) < sizeof(((struct box *)NULL)->id);
}

/* ---- errors ---- */

/* FastAPI's: a string, or what is wrong with each field. */
static const char *detail_of(const struct json *body)
{
        const struct json *detail = json_get(body, "detail");
        const char *text = json_string(detail);

        return text ? text : json_string(json_get(json_first(detail), "msg"));
}

static const char *message_of(const struct json *body)
{
        static const char *const keys[] = {"message", "error"};

        for (size_t i = 0; i < SIZE_OF(keys); i++) {
                const char *text = json_string(json_get(body, keys[i]));

                if (text && *text)
                        return text;
        }
        return detail_of(body);
}

bool osb_sentence(const char *body, size_t size, char *ret, size_t ret_size)
{
        struct json *j = NULL;
        const char *code, *message;
        bool is_there = false;

        if (json_parse(body, size, &j, NULL) < 0)
                return false;
        code = json_string(json_get(j, "code"));
        message = message_of(j);
        if (message || code) {
                (void)snprintf(ret, ret_size, "%.80s%s%.500s", code ? code : "",
                               code && message ? ": " : "", message ? message : "");
                is_there = true;
        }
        json_free(j);
        return is_there;
}

static int error_of_code(const char *code)
{
        static const struct {
                const char *code;
                int error;
        } table[] = {
                {"FILE_NOT_FOUND", ENOENT},    {"CONTEXT_NOT_FOUND", ENOENT},
                {"SESSION_NOT_FOUND", ENOENT}, {"INVALID_REQUEST_BODY", EINVAL},
                {"MISSING_QUERY", EINVAL},     {"NOT_SUPPORTED", EOPNOTSUPP},
                {"SERVICE_UNAVAILABLE", EIO},
        };

        for (size_t i = 0; code && i < SIZE_OF(table); i++)
                if (strcmp(table[i].code, code) == 0)
                        return -table[i].error;
        return 0;
}

int osb_error(const char *body, size_t size, int error)
{
        struct json *j = NULL;
        const char *message;
        int r = 0;

        if (json_parse(body, size, &j, NULL) < 0)
                return error;
        message = message_of(j);
        if (message && strstr(message, "path is a directory: "))
                r = -EISDIR;
        if (message && strstr(message, "destination path already exists: "))
                r = -EEXIST;
        if (r == 0)
                r = words_error(message);
        if (r == 0)
                r = error_of_code(json_string(json_get(j, "code")));
        json_free(j);
        return r < 0 ? r : error;
}

/* The account was known, or it had been 401. What a proxy says there is no JSON of the server's. */
bool osb_is_gone(unsigned status, const char *body, size_t size)
{
        struct json *j = NULL;
        const char *code, *message;
        bool is_gone;

        if (status != 404 || json_parse(body, size, &j, NULL) < 0)
                return false;
        code = json_string(json_get(j, "code"));
        message = message_of(j);
        if (code)
                is_gone = strstr(code, "NOT_FOUND") != NULL;
        else /* "Not Found" alone is an unknown route */
                is_gone = message && strcasestr(message, "sandbox") &&
                          strcasestr(message, "not found");
        json_free(j);
        return is_gone;
}

bool osb_is_refused(unsigned status)
{
        switch (status) {
        case 401: /* the account's */
        case 408:
        case 429: return false;
        case 501: return true;
        default: return status >= 400 && status < 500;
        }
}
