/* SPDX-License-Identifier: Apache-2.0 */
/* What the service says of a sandbox; see states.h. */

#include "providers/daytona/states.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "providers/remote/words.h"
#include "transport/base/json.h"

#define SIZE_OF(array) (sizeof(array) / sizeof((array)[0]))

enum box_state daytona_state(const char *word, enum box_state before)
{
        static const struct {
                const char *word;
                enum box_state state;
        } table[] = {
                {"creating", BOX_CREATING},
                {"pending_build", BOX_CREATING},
                {"building_snapshot", BOX_CREATING},
                {"pulling_snapshot", BOX_CREATING},
                {"starting", BOX_STARTING},
                {"restoring", BOX_STARTING},
                {"started", BOX_RUNNING},
                {"pausing", BOX_PAUSING},
                {"paused", BOX_PAUSED},
                {"resuming", BOX_RESUMING},
                {"stopping", BOX_STOPPING},
                {"stopped", BOX_STOPPED},
                {"archiving", BOX_STOPPED},
                {"archived", BOX_STOPPED},
                {"destroying", BOX_DESTROYING},
                {"destroyed", BOX_GONE},
                {"error", BOX_ERROR},
                {"build_failed", BOX_ERROR},
        };
        static const char *const as_before[] = {"resizing", "snapshotting", "forking"};

        for (size_t i = 0; word && i < SIZE_OF(table); i++)
                if (strcmp(table[i].word, word) == 0)
                        return table[i].state;
        for (size_t i = 0; word && i < SIZE_OF(as_before); i++)
                if (strcmp(as_before[i], word) == 0)
                        return before == BOX_RUNNING || before == BOX_STOPPED ? before
                                                                              : BOX_UNKNOWN;
        return BOX_UNKNOWN;
}

/* ---- a sandbox ---- */

const char *daytona_label(const struct json *sandbox, const char *key)
{
        const char *value = json_string(json_get(json_get(sandbox, "labels"), key));

        return value ? value : "";
}

static uint64_t gibibytes(const struct json *sandbox, const char *key)
{
        int64_t value;

        return json_integer(json_get(sandbox, key), &value) && value > 0 && value < 1 << 20
                       ? (uint64_t)value << 30
                       : 0;
}

/* The image that it was built from, of "FROM image\n". */
static bool built_from(const struct json *sandbox, char *ret, size_t size)
{
        static const char from[] = "FROM ";
        const char *file =
                json_string(json_get(json_get(sandbox, "buildInfo"), "dockerfileContent"));

        if (!file || strncmp(file, from, strlen(from)) != 0)
                return false;
        file += strlen(from);
        (void)snprintf(ret, size, "%.*s", (int)strcspn(file, " \t\r\n"), file);
        return true;
}

static void say_why(const struct json *sandbox, struct box_status *to)
{
        const char *reason = json_string(json_get(sandbox, "errorReason"));
        bool is_recoverable = false;

        if (to->state != BOX_ERROR)
                return;
        (void)json_bool(json_get(sandbox, "recoverable"), &is_recoverable); /* absent: it isn't */
        (void)snprintf(to->sentence, sizeof(to->sentence), "%.200s%s", reason ? reason : to->raw,
                       is_recoverable ? " (start recovers it)" : "");
}

void daytona_describe(const struct json *sandbox, enum box_state before, struct box_status *ret)
{
        const char *word = json_string(json_get(sandbox, "state")),
                   *snapshot = json_string(json_get(sandbox, "snapshot"));
        int64_t cpu;

        *ret = (struct box_status){0};
        (void)snprintf(ret->raw, sizeof(ret->raw), "%.63s", word ? word : "");
        ret->state = daytona_state(word, before);
        if (!built_from(sandbox, ret->image, sizeof(ret->image)))
                (void)snprintf(ret->image, sizeof(ret->image), "%.255s", snapshot ? snapshot : "");
        if (json_integer(json_get(sandbox, "cpu"), &cpu) && cpu > 0 && cpu < UINT32_MAX / 1000)
                ret->cpu_milli = (uint32_t)cpu * 1000;
        ret->memory = gibibytes(sandbox, "memory");
        ret->disk = gibibytes(sandbox, "disk");
        say_why(sandbox, ret);
}

bool daytona_is_id(const char *id)
{
        return id[0] && strlen(id) < sizeof(((struct box *)NULL)->id) && id[0] != '-' &&
               id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")] ==
                       '\0';
}

enum daytona_pause daytona_can_pause(const struct json *sandbox)
{
        static const struct {
                const char *kind;
                enum daytona_pause pause;
        } table[] = {
                {"linux-vm", DAYTONA_PAUSE_CAN},
                {"windows", DAYTONA_PAUSE_CAN},
                {"container", DAYTONA_PAUSE_CAN_NOT},
                {"android", DAYTONA_PAUSE_CAN_NOT},
        };
        const char *kind = json_string(json_get(sandbox, "sandboxClass"));

        for (size_t i = 0; kind && i < SIZE_OF(table); i++)
                if (strcmp(kind, table[i].kind) == 0)
                        return table[i].pause;
        return DAYTONA_PAUSE_UNKNOWN;
}

/* ---- errors ---- */

static int error_of_words(const char *sentence)
{
        static const struct {
                const char *words;
                int error;
        } table[] = {
                {"permission denied", EACCES},       {"no space left on device", ENOSPC},
                {"read-only file system", EROFS},    {"not a directory", ENOTDIR},
                {"is a directory", EISDIR},          {"quota", EDQUOT},
                {"exceeds maximum allowed", EDQUOT}, {"not in a valid state", EBUSY},
                {"is not started", EBUSY},           {"is not stopped", EBUSY},
        };
        int r;

        for (size_t i = 0; i < SIZE_OF(table); i++)
                if (strcasestr(sentence, table[i].words))
                        return -table[i].error;
        r = words_error(sentence);
        return r == 0 && strcasestr(sentence, "limit") ? -EDQUOT : r;
}

int daytona_error(unsigned status, int error, const char *sentence)
{
        int r = status == 400 ? error_of_words(sentence) : 0;

        if (r < 0)
                return r;
        return status == 422 ? -EOPNOTSUPP : error;
}

/* message, error, or the first of errors. */
void daytona_sentence(const char *body, size_t size, char *text, size_t text_size)
{
        struct json *j = NULL;
        const char *said;

        text[0] = '\0';
        if (json_parse(body, size, &j, NULL) < 0)
                return;
        said = json_string(json_get(j, "message"));
        if (!said)
                said = json_string(json_first(json_get(j, "errors")));
        if (!said)
                said = json_string(json_get(j, "error"));
        if (said)
                (void)snprintf(text, text_size, "%.500s", said);
        json_free(j);
}

bool daytona_is_no_call(unsigned status, const char *body, size_t size)
{
        char said[128];

        if (status == 405 || status == 501)
                return true;
        if (status != 404)
                return false;
        daytona_sentence(body, size, said, sizeof(said));
        return strncmp(said, "Cannot ", 7) == 0 ||
               (size >= 18 && memcmp(body, "404 page not found", 18) == 0);
}

/* The account was known, or it had been 401. What another server says there is no JSON of its. */
bool daytona_is_gone(unsigned status, const char *body, size_t size)
{
        char said[128];

        if (status != 404 || daytona_is_no_call(status, body, size))
                return false;
        daytona_sentence(body, size, said, sizeof(said));
        return said[0] != '\0';
}

bool daytona_is_not_there_yet(unsigned status, const char *body, size_t size)
{
        char said[256];

        if (status == 502)
                return true;
        daytona_sentence(body, size, said, sizeof(said));
        if (status == 400)
                return strcasestr(said, "no IP address found") ||
                       strcasestr(said, "failed to get runner info");
        if (status == 401)
                return true; /* the proxy has not heard of it yet, or it is gone */
        return status == 404 && strcasestr(said, "sandbox container not found");
}
