/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine says of a container; see states.h. */

#include "providers/docker/states.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/docker/docker.h"
#include "transport/base/json.h"

#define CODE_SIGNAL 128 /* an exit code beyond it: that signal */

enum box_state docker_state(const char *word)
{
        static const struct {
                const char *word;
                enum box_state state;
        } table[] = {
                {"created", BOX_STOPPED},
                {"running", BOX_RUNNING},
                {"paused", BOX_PAUSED},
                {"restarting", BOX_STARTING},
                {"removing", BOX_DESTROYING},
                {"exited", BOX_STOPPED},
                {"dead", BOX_ERROR},
                /* Podman's */
                {"configured", BOX_STOPPED},
                {"initialized", BOX_STOPPED},
                {"stopping", BOX_STOPPING},
                {"stopped", BOX_STOPPED},
        };

        for (size_t i = 0; word && i < sizeof(table) / sizeof(table[0]); i++)
                if (strcmp(table[i].word, word) == 0)
                        return table[i].state;
        return BOX_UNKNOWN;
}

const char *docker_label(const struct json *labels, const char *key)
{
        return json_string(json_get(labels, key));
}

static void set_text(char *to, size_t size, const char *text)
{
        (void)snprintf(to, size, "%.*s", (int)size - 1, text ? text : "");
}

static int64_t number(const struct json *object, const char *key)
{
        int64_t value;

        return json_integer(json_get(object, key), &value) ? value : 0;
}

static bool flag(const struct json *object, const char *key)
{
        bool value;

        return json_bool(json_get(object, key), &value) && value;
}

static void take_limits(const struct json *host, struct box_status *ret)
{
        int64_t nano = number(host, "NanoCpus"), quota = number(host, "CpuQuota"),
                period = number(host, "CpuPeriod"), memory = number(host, "Memory");

        if (nano <= 0 && quota > 0)
                nano = quota * 1000000000 / (period > 0 ? period : 100000);
        if (nano > 0 && nano / 1000000 <= UINT32_MAX)
                ret->cpu_milli = (uint32_t)(nano / 1000000);
        if (memory > 0)
                ret->memory = (uint64_t)memory;
}

/*
 * How a container ended that nobody told to: 0 is what `stop` gives. That memory has run out once
 * the engine remembers ever after: it is why it ended only where the kernel's KILL was its end.
 */
static void explain_end(const struct json *state, struct box_status *ret)
{
        const char *error = json_string(json_get(state, "Error"));
        int64_t code = number(state, "ExitCode");
        bool oom = code == CODE_SIGNAL + SIGKILL && flag(state, "OOMKilled");

        if (strcmp(ret->raw, "created") == 0)
                set_text(ret->sentence, sizeof(ret->sentence), "the container was never started");
        else if (oom)
                (void)snprintf(ret->sentence, sizeof(ret->sentence),
                               "the container has ended: out of memory (exit %lld)",
                               (long long)code);
        else if (error && *error)
                (void)snprintf(ret->sentence, sizeof(ret->sentence), "%.250s", error);
        else if (code > CODE_SIGNAL && code <= CODE_SIGNAL + 64)
                (void)snprintf(ret->sentence, sizeof(ret->sentence),
                               "the container was ended by signal %lld",
                               (long long)(code - CODE_SIGNAL));
        else if (code != 0)
                (void)snprintf(ret->sentence, sizeof(ret->sentence),
                               "the container has ended by itself (exit %lld)", (long long)code);
}

void docker_describe(const struct json *inspect, bool has_oom, struct box_status *ret)
{
        const struct json *state = json_get(inspect, "State");
        const char *word = json_string(json_get(state, "Status"));

        *ret = (struct box_status){0};
        set_text(ret->raw, sizeof(ret->raw), word);
        ret->state = docker_state(word);
        set_text(ret->image, sizeof(ret->image),
                 json_string(json_get(json_get(inspect, "Config"), "Image")));
        take_limits(json_get(inspect, "HostConfig"), ret);
        if (ret->state == BOX_STOPPED)
                explain_end(state, ret);
        else if (ret->state == BOX_ERROR)
                set_text(ret->sentence, sizeof(ret->sentence),
                         "the engine could not remove the container: destroy tries again");
        else if (has_oom)
                set_text(ret->sentence, sizeof(ret->sentence),
                         "out of memory: a process of the sandbox was killed");
}

/* ---- what never changes ---- */

void facts_free(struct docker_facts *f)
{
        if (f) {
                free(f->workdir);
                free(f->user);
        }
        free(f);
}

static const char *workdir_of(const char *label, const char *configured)
{
        const char *path = label ? label : configured;

        return path && path[0] == '/' && path[1] != '\0' ? path : DOCKER_WORKDIR;
}

int facts_of(const struct json *inspect, const char *owner, struct docker_facts **ret)
{
        const struct json *config = json_get(inspect, "Config"),
                          *labels = json_get(config, "Labels");
        const char *id = json_string(json_get(inspect, "Id")), *user, *mine;
        struct docker_facts *f = calloc(1, sizeof(*f));

        if (!f)
                return -ENOMEM;
        if (!config || !id || strlen(id) >= sizeof(f->container)) {
                free(f);
                return -EPROTO;
        }
        (void)snprintf(f->container, sizeof(f->container), "%s", id); /* it fits */
        mine = docker_label(labels, LABEL_OWNER);
        f->has_init = mine && strcmp(mine, owner) == 0 && docker_label(labels, LABEL_KEY);
        user = docker_label(labels, LABEL_USER);
        if (!user)
                user = json_string(json_get(config, "User"));
        f->workdir = strdup(workdir_of(docker_label(labels, LABEL_WORKDIR),
                                       json_string(json_get(config, "WorkingDir"))));
        f->user = strdup(user ? user : "");
        if (!f->workdir || !f->user) {
                facts_free(f);
                return -ENOMEM;
        }
        *ret = f;
        return 0;
}
