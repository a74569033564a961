/* SPDX-License-Identifier: Apache-2.0 */
/* A spec as the engine's JSON; see body.h. */

#include "providers/docker/body.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "providers/agent/pool.h"
#include "providers/docker/docker.h"
#include "providers/docker/states.h"
#include "providers/shell/shell.h"
#include "transport/base/buf.h"
#include "transport/base/json.h"
#include "transport/base/path.h"

#define IMAGE_DEFAULT "python:3.12"
#define IMAGE_LENGTH_MAX 255
#define MEMORY_LEAST (UINT64_C(6) << 20) /* the engine's own */
#define NANO_PER_MILLI UINT64_C(1000000)
#define LABEL_MAX 4096
#define CPU_LEAST 10 /* in thousandths: the kernel's least quota, of the engine's period */

/* What of ours runs beside the user's processes at most: process 1, `join`, and for fs/: */
#define OURS_ALWAYS 2
#define OURS_STARTING 7 /* threads that runc is seen to have beside what it starts of these */
#define OURS_AGENTS AGENT_POOL_MAX
#define OURS_SHELLS (4 * SHELL_COUNT_MAX) /* a helper, its subshell, the two tools of a pipe */

/* ---- checks ---- */

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static bool has_only(const char *text, const char *allowed)
{
        return *text && text[strspn(text, allowed)] == '\0';
}

bool image_split(const char *image, char *name, char *tag, size_t size)
{
        const char *at = strchr(image, '@'), *slash = strrchr(image, '/'), *colon;

        if (!has_only(image, ALNUM "._-/:@") || strlen(image) > IMAGE_LENGTH_MAX ||
            !strchr(ALNUM, image[0]))
                return false;
        colon = strchr(slash ? slash : image, ':'); /* before a '/' it is a port */
        if (at)
                colon = at;
        if (colon && (colon[1] == '\0' || colon == image))
                return false;
        (void)snprintf(name, size, "%.*s", (int)(colon ? colon - image : (ssize_t)strlen(image)),
                       image);
        (void)snprintf(tag, size, "%s", colon ? colon + 1 : "latest");
        return true;
}

static int check_image(const struct spec *spec, struct call *c)
{
        char name[IMAGE_LENGTH_MAX + 1], tag[IMAGE_LENGTH_MAX + 1];

        if (image_split(body_image(spec), name, tag, sizeof(name)))
                return 0;
        return call_fail(c, -EINVAL, "image=%.100s is no name of an image", body_image(spec));
}

/* "container:X" would join another's network, "host" the host's. */
static int check_net(const struct spec *spec, unsigned allow, struct call *c)
{
        const char *net = spec->text[SETTING_NET];

        if (!net)
                return 0;
        if (!has_only(net, ALNUM "_.-") || !strchr(ALNUM, net[0]))
                return call_fail(c, -EINVAL,
                                 "net=%.80s: none, bridge, host, or the name of a network", net);
        if (strcmp(net, "host") == 0 && !(allow & ALLOW_NET))
                return call_fail(c, -EPERM,
                                 "net=host is not allowed here: the operator allows it with -o "
                                 "allow=net");
        return 0;
}

static int check_user(const struct spec *spec, struct call *c)
{
        const char *user = spec->text[SETTING_USER];

        if (!user || (has_only(user, ALNUM "._-:$") && user[0] != '-' && user[0] != ':'))
                return 0;
        return call_fail(c, -EINVAL, "user=%.80s: a name or number, or USER:GROUP", user);
}

static bool is_plain_path(const char *path)
{
        size_t size = strlen(path);

        return path[0] == '/' && path[1] != '\0' && !strstr(path, "/../") && !strstr(path, "//") &&
               !strstr(path, "/./") && (size < 3 || strcmp(path + size - 3, "/..") != 0) &&
               (size < 2 || strcmp(path + size - 2, "/.") != 0);
}

static int check_places(const struct spec *spec, unsigned allow, struct call *c)
{
        const char *workdir = spec->text[SETTING_WORKDIR];

        if (workdir && !is_plain_path(workdir))
                return call_fail(c, -EINVAL, "workdir=%.80s: an absolute path, and not /", workdir);
        if (workdir && path_is_within(workdir, DOCKER_DIR))
                return call_fail(c, -EINVAL, "workdir: %s is not yours", DOCKER_DIR);
        if (spec->mount_count > 0 && !(allow & ALLOW_MOUNT))
                return call_fail(c, -EPERM,
                                 "mount.N is not allowed here: the operator allows it with -o "
                                 "allow=mount");
        for (size_t i = 0; i < spec->mount_count; i++) {
                const struct mount_spec *m = &spec->mounts[i];

                if (!is_plain_path(m->inside))
                        return call_fail(c, -EINVAL, "mount.N: %.80s: a path inside, and not /",
                                         m->inside);
                if (path_is_within(m->inside, DOCKER_DIR))
                        return call_fail(c, -EINVAL, "mount.N: %s is not yours", DOCKER_DIR);
        }
        return 0;
}

static int check_runtime(const struct spec *spec, unsigned allow, struct call *c)
{
        const char *runtime = spec->text[SETTING_RUNTIME];

        if (!runtime)
                return 0;
        if (!has_only(runtime, ALNUM "._-"))
                return call_fail(c, -EINVAL, "runtime=%.80s: the name of a runtime", runtime);
        if (!(allow & ALLOW_RUNTIME))
                return call_fail(c, -EPERM,
                                 "runtime is not allowed here: the operator allows it with -o "
                                 "allow=runtime");
        return 0;
}

static int check_labels(const struct spec *spec, struct call *c)
{
        for (size_t i = 0; i < spec->label_count; i++) {
                const struct pair *p = &spec->labels[i];

                if (strncmp(p->key, LABEL_PREFIX, strlen(LABEL_PREFIX)) == 0)
                        return call_fail(c, -EINVAL, "label.%.80s: labels %s* are ours", p->key,
                                         LABEL_PREFIX);
                if (strlen(p->key) > LABEL_MAX || strlen(p->value) > LABEL_MAX)
                        return call_fail(c, -EINVAL, "label.%.80s is too long", p->key);
        }
        return 0;
}

int body_check(const struct spec *spec, unsigned allow, struct call *c)
{
        int r = check_image(spec, c);

        if (r == 0)
                r = check_net(spec, allow, c);
        if (r == 0)
                r = check_user(spec, c);
        if (r == 0)
                r = check_places(spec, allow, c);
        if (r == 0)
                r = check_runtime(spec, allow, c);
        if (r == 0)
                r = check_labels(spec, c);
        if (r == 0 && spec->memory > 0 && spec->memory < MEMORY_LEAST)
                r = call_fail(c, -EINVAL, "memory: 6M at least, as the engine has it");
        if (r == 0 && spec->cpu_milli > 0 && spec->cpu_milli < CPU_LEAST)
                r = call_fail(c, -EINVAL, "cpu: 0.01 at least, as the engine has it");
        if (r == 0 && spec->memory > INT64_MAX)
                r = call_fail(c, -EINVAL, "memory: that much can't be");
        if (r == 0 && spec->processes > INT32_MAX)
                r = call_fail(c, -EINVAL, "processes: that many can't be");
        return r;
}

/* ---- values ---- */

const char *body_image(const struct spec *spec)
{
        return spec->text[SETTING_IMAGE] ? spec->text[SETTING_IMAGE] : IMAGE_DEFAULT;
}

const char *body_workdir(const struct spec *spec, const struct image_facts *image)
{
        if (spec->text[SETTING_WORKDIR])
                return spec->text[SETTING_WORKDIR];
        return is_plain_path(image->workdir) && !path_is_within(image->workdir, DOCKER_DIR)
                       ? image->workdir
                       : DOCKER_WORKDIR;
}

const char *body_user(const struct spec *spec, const struct image_facts *image)
{
        return spec->text[SETTING_USER] ? spec->text[SETTING_USER] : image->user;
}

/* ---- writing: the first failure sticks ---- */

struct out {
        struct buf *to;
        int failed;
};

static void raw(struct out *o, const char *text)
{
        if (o->failed == 0)
                o->failed = buf_add_str(o->to, text);
}

static void string(struct out *o, const char *text)
{
        if (o->failed == 0)
                o->failed = json_add_string(o->to, text);
}

static void member(struct out *o, const char *key, const char *value)
{
        raw(o, ",\"");
        raw(o, key);
        raw(o, "\":");
        string(o, value);
}

static void number(struct out *o, const char *key, uint64_t value)
{
        if (o->failed == 0)
                o->failed = buf_addf(o->to, ",\"%s\":%" PRIu64, key, value);
}

static void put_command(struct out *o, const char *workdir, const char *user)
{
        raw(o, ",\"Entrypoint\":[\"" DOCKER_INIT "\",\"hold\",\"" DOCKER_DIR "\",");
        string(o, workdir);
        raw(o, ",");
        string(o, user);
        raw(o, "],\"Cmd\":[]");
}

static void put_env(struct out *o, const struct spec *spec)
{
        raw(o, ",\"Env\":[");
        for (size_t i = 0; i < spec->env_count; i++) {
                struct buf each = BUF_INIT((size_t)1 << 20);

                if (o->failed == 0)
                        o->failed = buf_addf(&each, "%s=%s", spec->env[i].key, spec->env[i].value);
                raw(o, i > 0 ? "," : "");
                string(o, buf_str(&each));
                buf_wipe(&each);
        }
        raw(o, "]");
}

static void put_labels(struct out *o, const struct spec *spec, const char *workdir,
                       const char *user)
{
        raw(o, ",\"Labels\":{\"" LABEL_KEY "\":");
        string(o, spec->key);
        member(o, LABEL_NAME, spec->name);
        member(o, LABEL_OWNER, spec->owner);
        member(o, LABEL_WORKDIR, workdir);
        member(o, LABEL_USER, user);
        for (size_t i = 0; i < spec->label_count; i++) {
                raw(o, ",");
                string(o, spec->labels[i].key);
                raw(o, ":");
                string(o, spec->labels[i].value);
        }
        raw(o, "}");
}

static void put_mounts(struct out *o, const struct spec *spec)
{
        const char *comma = "";

        if (spec->mount_count == 0 && !spec->is_readonly)
                return;
        raw(o, ",\"Mounts\":[");
        for (size_t i = 0; i < spec->mount_count; i++) {
                raw(o, comma);
                raw(o, "{\"Type\":\"bind\"");
                member(o, "Source", spec->mounts[i].host);
                member(o, "Target", spec->mounts[i].inside);
                raw(o, spec->mounts[i].is_readonly ? ",\"ReadOnly\":true}" : "}");
                comma = ",";
        }
        if (spec->is_readonly) { /* ours must be written to: a volume, which goes with the container */
                raw(o, comma);
                raw(o, "{\"Type\":\"volume\",\"Target\":\"" DOCKER_DIR "\"}");
        }
        raw(o, "]");
}

static void put_host(struct out *o, const struct spec *spec, bool by_shell)
{
        unsigned ours = OURS_ALWAYS + OURS_STARTING + (by_shell ? OURS_SHELLS : OURS_AGENTS);
        const char *net = spec->text[SETTING_NET], *runtime = spec->text[SETTING_RUNTIME];

        raw(o, ",\"HostConfig\":{\"Privileged\":false,\"SecurityOpt\":[\"no-new-privileges\"],"
               "\"RestartPolicy\":{\"Name\":\"no\"}");
        if (spec->memory > 0) {
                number(o, "Memory", spec->memory);
                number(o, "MemorySwap", spec->memory); /* both together: no swap beside it */
        }
        if (spec->cpu_milli > 0)
                number(o, "NanoCpus", spec->cpu_milli * NANO_PER_MILLI);
        if (spec->processes > 0)
                number(o, "PidsLimit", spec->processes + ours);
        if (net)
                member(o, "NetworkMode", net);
        if (runtime)
                member(o, "Runtime", runtime);
        if (spec->is_readonly)
                raw(o, ",\"ReadonlyRootfs\":true");
        put_mounts(o, spec);
        raw(o, "}");
}

int body_of(const struct spec *spec, const struct image_facts *image, bool by_shell, struct buf *to)
{
        const char *workdir = body_workdir(spec, image), *user = body_user(spec, image);
        const char *net = spec->text[SETTING_NET];
        struct out o = {.to = to};

        raw(&o, "{\"Image\":");
        string(&o, body_image(spec));
        put_command(&o, workdir, user);
        member(&o, "WorkingDir", workdir);
        /* Process 1 starts what runs as others, and makes the working directory theirs. */
        member(&o, "User", "0");
        if (!(net && strcmp(net, "host") == 0) && has_only(spec->name, ALNUM "-."))
                member(&o, "Hostname", spec->name);
        member(&o, "StopSignal", "SIGTERM");
        /* It would ask after a program of the image that isn't there. */
        raw(&o, ",\"Healthcheck\":{\"Test\":[\"NONE\"]}");
        put_env(&o, spec);
        put_labels(&o, spec, workdir, user);
        put_host(&o, spec, by_shell);
        raw(&o, "}");
        return o.failed;
}
