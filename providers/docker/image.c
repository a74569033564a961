/* SPDX-License-Identifier: Apache-2.0 */
/* Images, and their pulling; see image.h. */

#include "providers/docker/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "providers/docker/docker.h"
#include "providers/docker/engine.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/json.h"
#include "transport/http/lines.h"
#include "transport/http/url.h"

#define LINE_MAX_BYTES ((size_t)64 << 10)
#define TELL_NS (250 * NS_PER_MS)

/* ---- what is there ---- */

static void take(char *to, size_t size, const char *text)
{
        if (text && strlen(text) < size)
                (void)snprintf(to, size, "%s", text);
}

/* 1: it is there; 0: it isn't. */
static int look(struct docker_provider *d, struct call *c, const char *image,
                struct image_facts *ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        const struct engine_ask ask = {.path = &path, .accepts = {404}};
        const struct json *config;
        int r = url_add(&path, "/images/");

        if (r == 0)
                r = url_add_path(&path, image);
        if (r == 0)
                r = url_add(&path, "/json");
        if (r == 0)
                r = engine_ask(d->engine, c, &ask, &reply, &j);
        if (r < 0)
                return r;
        if (reply.status == 404)
                return 0;
        config = json_get(j, "Config");
        *ret = (struct image_facts){0};
        take(ret->workdir, sizeof(ret->workdir), json_string(json_get(config, "WorkingDir")));
        take(ret->user, sizeof(ret->user), json_string(json_get(config, "User")));
        return 1;
}

/* ---- the lines of a pull ---- */

static void count_layer(struct pull *p, const char *id, uint64_t current, uint64_t total)
{
        unsigned i = 0;

        while (i < p->count && strcmp(p->layers[i].id, id) != 0)
                i++;
        if (i == PULL_LAYERS_MAX)
                return;
        if (i == p->count) {
                (void)snprintf(p->layers[i].id, sizeof(p->layers[i].id), "%s", id);
                p->layers[i].current = 0;
                p->count++;
        }
        p->layers[i].current = current;
        p->layers[i].total = total;
}

void pull_line(struct pull *p, const char *line, size_t size)
{
        _cleanup_(json_freep) struct json *j = NULL;
        const char *error, *status, *id;
        int64_t current, total;
        const struct json *detail;

        if (json_parse(line, size, &j, NULL) < 0)
                return;
        error = json_string(json_get(j, "error"));
        if (error)
                escape_text(error, strlen(error), p->error, sizeof(p->error));
        status = json_string(json_get(j, "status"));
        if (!status)
                return;
        escape_text(status, strlen(status), p->status, sizeof(p->status));
        id = json_string(json_get(j, "id"));
        detail = json_get(j, "progressDetail");
        if (id && strlen(id) < sizeof(p->layers[0].id) && strcmp(status, "Downloading") == 0 &&
            json_integer(json_get(detail, "current"), &current) && current >= 0 &&
            json_integer(json_get(detail, "total"), &total) && total >= current)
                count_layer(p, id, (uint64_t)current, (uint64_t)total);
        else if (id && strcmp(status, "Download complete") == 0)
                for (unsigned i = 0; i < p->count; i++)
                        if (strcmp(p->layers[i].id, id) == 0)
                                p->layers[i].current = p->layers[i].total;
}

void pull_phase(const struct pull *p, const char *image, char *ret, size_t size)
{
        uint64_t current = 0, total = 0;

        for (unsigned i = 0; i < p->count; i++) {
                current += p->layers[i].current;
                total += p->layers[i].total;
        }
        if (total > 0)
                (void)snprintf(ret, size, "pulling %.50s: %" PRIu64 " of %" PRIu64 " MiB", image,
                               current >> 20, (total + (1 << 20) - 1) >> 20);
        else
                (void)snprintf(ret, size, "pulling %.50s", image);
}

/* ---- pulling ---- */

struct pulling {
        struct http_sink sink;
        struct docker_provider *docker;
        const struct spec *spec;
        struct lines lines;
        struct pull pull;
        uint64_t told_ns;
};

static void tell(struct pulling *p, bool always)
{
        const struct provider_listener *to = &p->docker->listener;
        char phase[80];

        if (!to->box_phase || (!always && clock_mono_ns() < p->told_ns + TELL_NS))
                return;
        p->told_ns = clock_mono_ns();
        pull_phase(&p->pull, body_image(p->spec), phase, sizeof(phase));
        to->box_phase(to->ctx, p->spec->key, phase);
}

static int on_line(void *ctx, const char *text, size_t size)
{
        struct pulling *p = ctx;

        pull_line(&p->pull, text, size);
        tell(p, false);
        return 0;
}

static int on_bytes(struct http_sink *to, const void *data, size_t size)
{
        return lines_feed(&container_of(to, struct pulling, sink)->lines, data, size);
}

static int refused(struct call *c, const char *image, const char *why)
{
        return call_fail(c, -ENOENT,
                         "image %s is not there, and pulling it has failed: %.300s (\"docker pull "
                         "%s\" on the engine's machine, or \"docker load\", brings it)",
                         image, why, image);
}

static int pull(struct docker_provider *d, struct call *c, const struct spec *spec)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        struct pulling p = {.sink = {.write = on_bytes}, .docker = d, .spec = spec};
        char name[256], tag[256], prefix[16];
        const char *image = body_image(spec);
        struct http_request q = {.method = "POST", .sink = &p.sink, .silence_ns = UINT64_MAX};
        int r;

        if (!image_split(image, name, tag, sizeof(name)))
                return call_fail(c, -EINVAL, "image=%.100s is no name of an image", image);
        p.lines = LINES_INIT(LINE_MAX_BYTES, on_line, &p);
        r = engine_prefix(d->engine, c, prefix);
        if (r == 0)
                r = url_add(&path, prefix);
        if (r == 0)
                r = url_add(&path, "/images/create");
        if (r == 0)
                r = url_add_query(&path, "fromImage", name);
        if (r == 0)
                r = url_add_query(&path, "tag", tag);
        if (r < 0)
                return r;
        q.path = buf_str(&path);
        tell(&p, true);
        r = http_do(engine_calls(d->engine), c, &q, &reply);
        if (r == 0 && p.pull.error[0])
                r = refused(c, image, p.pull.error);
        else if (r < 0 && reply.status >= 400) {
                char why[CALL_SENTENCE_MAX];

                memcpy(why, c->sentence, sizeof(why));
                r = refused(c, image, why);
        }
        lines_done(&p.lines);
        return r;
}

int image_get(struct docker_provider *d, struct call *c, const struct spec *spec,
              struct image_facts *ret)
{
        const char *image = body_image(spec);
        int r = look(d, c, image, ret);

        if (r != 0)
                return r < 0 ? r : 0;
        r = pull(d, c, spec);
        if (r == 0)
                r = look(d, c, image, ret);
        if (r < 0)
                return r;
        return r > 0 ? 0 : refused(c, image, "the engine doesn't know it afterwards");
}
