/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the engine; see engine.h. */

#include "providers/docker/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "providers/docker/config.h"
#include "transport/base/cleanup.h"
#include "transport/base/json.h"
#include "transport/base/lock.h"
#include "transport/http/url.h"

/* What we were written for: a newer engine is asked as if it were this, an older one as itself. */
#define API_MAJOR 1
#define API_MINOR 47
#define API_MINOR_LEAST 24

struct docker_engine {
        struct http *calls, *streams;
        struct mutex lock;
        /* guarded by lock */
        char prefix[16]; /* "" until it was asked */
        bool is_arch_known;
        char arch[64];
};

int engine_new(const struct docker_config *config, const char *name, struct call *c,
               struct docker_engine **ret)
{
        const struct http_config hc = {.name = name,
                                       .url = config->url,
                                       .socket_path = config->socket_path,
                                       .plain_host = config->plain_host,
                                       .ca_file = config->ca_file,
                                       .cert_file = config->cert_file,
                                       .key_file = config->key_file,
                                       .probe_path = "/_ping"};
        struct docker_engine *e = calloc(1, sizeof(*e));
        int r;

        if (!e)
                return call_fail(c, -ENOMEM, "out of memory");
        mutex_init(&e->lock);
        r = http_new(&hc, c, &e->calls);
        if (r == 0)
                r = http_new(&hc, c, &e->streams);
        if (r < 0)
                engine_free(e);
        else
                *ret = e;
        return r;
}

void engine_free(struct docker_engine *e)
{
        if (!e)
                return;
        http_unref(e->streams);
        http_unref(e->calls);
        mutex_done(&e->lock);
        free(e);
}

struct http *engine_calls(struct docker_engine *e)
{
        return e->calls;
}

struct http *engine_streams(struct docker_engine *e)
{
        return e->streams;
}

/* ---- versions ---- */

static int ask_version(struct docker_engine *e, struct call *c, char ret[16])
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        const struct http_request q = {.path = "/_ping"};
        unsigned major = 0, minor = 0;
        const char *version;
        int r = http_do(e->calls, c, &q, &reply);

        if (r < 0)
                return r;
        version = http_reply_header(&reply, "Api-Version");
        if (!version || sscanf(version, "%3u.%3u", &major, &minor) != 2)
                return call_fail(c, -EPROTO, "what answers there is no Docker Engine");
        if (major != API_MAJOR || minor < API_MINOR_LEAST)
                return call_fail(c, -EPROTO, "the engine's API %u.%u is not one that we speak",
                                 major, minor);
        (void)snprintf(ret, 16, "/v%u.%u", major, minor < API_MINOR ? minor : API_MINOR);
        return 0;
}

int engine_prefix(struct docker_engine *e, struct call *c, char ret[16])
{
        char prefix[16];
        int r;

        mutex_lock(&e->lock);
        memcpy(ret, e->prefix, sizeof(e->prefix));
        mutex_unlock(&e->lock);
        if (ret[0])
                return 0;
        r = ask_version(e, c, prefix);
        if (r < 0)
                return r;
        mutex_lock(&e->lock);
        memcpy(e->prefix, prefix, sizeof(prefix));
        mutex_unlock(&e->lock);
        memcpy(ret, prefix, sizeof(prefix));
        return 0;
}

/* ---- requests ---- */

int engine_ask(struct docker_engine *e, struct call *c, const struct engine_ask *ask,
               struct http_reply *reply, struct json **ret)
{
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        char prefix[16];
        int r = engine_prefix(e, c, prefix);

        if (r < 0)
                return r;
        r = url_add(&path, prefix);
        if (r == 0)
                r = url_add(&path, buf_str(ask->path));
        if (r < 0)
                return call_fail_errno(c, r, "a request");
        const struct http_request q = {
                .method = ask->method,
                .path = buf_str(&path),
                .data = ask->data,
                .size = ask->size,
                .type = ask->type,
                .accepts = {ask->accepts[0], ask->accepts[1], ask->accepts[2]},
                .is_idempotent = ask->is_idempotent,
                .silence_ns = ask->is_slow ? UINT64_MAX : 0,
        };
        return ret ? http_do_json(e->calls, c, &q, reply, ret) : http_do(e->calls, c, &q, reply);
}

/* ---- processors ---- */

/* The kernel's word, in the engine's. */
static const char *arch_of(const char *machine)
{
        static const char *const names[][2] = {
                {"x86_64", "amd64"},    {"aarch64", "arm64"}, {"armv7l", "arm"},
                {"armv6l", "arm"},      {"i686", "386"},      {"ppc64le", "ppc64le"},
                {"riscv64", "riscv64"}, {"s390x", "s390x"},
        };

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (strcmp(names[i][0], machine) == 0)
                        return names[i][1];
        return machine;
}

static int ask_arch(struct docker_engine *e, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(64);
        _cleanup_(json_freep) struct json *j = NULL;
        const struct engine_ask ask = {.path = &path};
        const char *arch;
        int r = url_add(&path, "/version");

        if (r == 0)
                r = engine_ask(e, c, &ask, &reply, &j);
        if (r < 0)
                return r;
        arch = json_string(json_get(j, "Arch"));
        mutex_lock(&e->lock);
        (void)snprintf(e->arch, sizeof(e->arch), "%s", arch ? arch : "");
        e->is_arch_known = true;
        mutex_unlock(&e->lock);
        return 0;
}

int engine_check_arch(struct docker_engine *e, struct call *c)
{
        char arch[sizeof(e->arch)];
        struct utsname here;
        bool is_known;
        int r;

        mutex_lock(&e->lock);
        is_known = e->is_arch_known;
        mutex_unlock(&e->lock);
        r = is_known ? 0 : ask_arch(e, c);
        if (r < 0)
                return r;
        mutex_lock(&e->lock);
        memcpy(arch, e->arch, sizeof(arch));
        mutex_unlock(&e->lock);
        (void)uname(&here); /* can't fail */
        if (!arch[0] || strcmp(arch, arch_of(here.machine)) == 0 || strcmp(arch, here.machine) == 0)
                return 0;
        return call_fail(c, -EOPNOTSUPP,
                         "the engine's machine is %s, and this program was built for %s: what it "
                         "puts into a container doesn't run there",
                         arch, arch_of(here.machine));
}
