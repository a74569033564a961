/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox: made, found again, looked at. */

#include "providers/docker/box.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "providers/docker/body.h"
#include "providers/docker/engine.h"
#include "providers/docker/image.h"
#include "providers/docker/states.h"
#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/url.h"

#define BODY_MAX ((size_t)32 << 20)
#define NAME_PREFIX "sbxfs-"
#define CONTAINER_NAME_SIZE 64
#define HALF_NS (10 * NS_PER_S) /* how long an engine is at a creation that nobody waits for */

/* ---- birth and end ---- */

static bool is_id(const char *id)
{
        return id[0] && strlen(id) < sizeof(((struct box *)NULL)->id) && id[0] != '-' &&
               id[0] != '.' &&
               id[strspn(id,
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")] ==
                       '\0';
}

static struct docker_box *box_new(struct docker_provider *d, const char *id, const char *key)
{
        struct docker_box *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        b->base.provider = &d->base;
        b->docker = d;
        b->state = BOX_UNKNOWN;
        (void)snprintf(b->base.id, sizeof(b->base.id), "%s", id); /* checked */
        (void)snprintf(b->key, sizeof(b->key), "%s", key);
        mutex_init(&b->lock);
        cond_init(&b->changed);
        b->talk = talk_new(&b->base, &docker_inside);
        if (!b->talk || inside_files_new(&b->base, &docker_inside, &b->files) < 0) {
                talk_free(b->talk);
                cond_done(&b->changed);
                mutex_done(&b->lock);
                free(b);
                return NULL;
        }
        mutex_lock(&d->lock);
        list_add_tail(&d->boxes, &b->link);
        cond_broadcast(&d->changed);
        mutex_unlock(&d->lock);
        return b;
}

void docker_box_release(struct box *box)
{
        struct docker_box *b = docker_box_of(box);
        struct docker_provider *d = b->docker;

        mutex_lock(&d->lock);
        b->is_released = true;
        if (b->tending)
                call_cancel(b->tending);
        while (b->tending)
                cond_wait(&d->changed, &d->lock);
        list_remove(&b->link);
        mutex_unlock(&d->lock);
        inside_files_free(b->files);
        talk_free(b->talk);
        facts_free(b->facts);
        cond_done(&b->changed);
        mutex_done(&b->lock);
        free(b);
}

static int path_of(const char *id, struct buf *to, const char *rest)
{
        int r = url_add(to, "/containers");

        if (r == 0)
                r = url_add_segment(to, id);
        return r == 0 ? url_add(to, rest) : r;
}

int box_path(const struct docker_box *b, struct buf *to, const char *rest)
{
        return path_of(b->base.id, to, rest);
}

/* Docker's and Podman's words; of whoever else may answer there, a 404 says nothing. */
static bool says_gone(const struct call *c)
{
        return strcasestr(c->sentence, "no such container") ||
               strcasestr(c->sentence, "no container with");
}

int box_missing(struct docker_box *b, struct call *c, int r, unsigned status)
{
        if (status != 404 || !says_gone(c))
                return r;
        docker_box_missed(b);
        return call_fail(c, -ENODEV, "the sandbox's container is gone");
}

void docker_box_missed(struct docker_box *b)
{
        const struct provider_listener *to = &b->docker->listener;

        if (to->box_changed)
                to->box_changed(to->ctx, b->base.id);
}

/* ---- states ---- */

static void learn(struct docker_box *b, const struct json *inspect)
{
        struct docker_facts *f = NULL;

        mutex_lock(&b->lock);
        if (!b->facts && facts_of(inspect, b->docker->owner, &f) == 0)
                b->facts = f;
        mutex_unlock(&b->lock);
}

static void follow(struct docker_box *b, enum box_state state)
{
        bool is_news;

        mutex_lock(&b->lock);
        is_news = !b->is_changing && b->state != state;
        if (is_news)
                b->state = state;
        mutex_unlock(&b->lock);
        if (is_news)
                talk_follow(b->talk, state);
}

int box_inspect(struct docker_box *b, struct call *c, struct box_status *ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        const struct engine_ask ask = {.path = &path};
        bool has_oom;
        int r = box_path(b, &path, "/json");

        if (r == 0)
                r = engine_ask(b->docker->engine, c, &ask, &reply, &j);
        if (r < 0 && reply.status == 404 && says_gone(c)) {
                follow(b, BOX_GONE);
                return call_fail(c, -ENODEV, "the sandbox's container is gone");
        }
        if (r < 0)
                return r;
        learn(b, j);
        mutex_lock(&b->lock);
        has_oom = b->has_oom;
        mutex_unlock(&b->lock);
        docker_describe(j, has_oom, ret);
        follow(b, ret->state);
        return 0;
}

int docker_box_state(struct box *box, struct call *c, struct box_status *ret)
{
        struct box_status status;
        int r = box_inspect(docker_box_of(box), c, &status);

        if (r == -ENODEV) {
                c->sentence[0] = '\0';
                status = (struct box_status){.state = BOX_GONE, .raw = "missing"};
                r = 0;
        }
        if (r == 0)
                *ret = status;
        return r;
}

const struct docker_facts *docker_box_known_facts(struct docker_box *b)
{
        const struct docker_facts *f;

        mutex_lock(&b->lock);
        f = b->facts;
        mutex_unlock(&b->lock);
        return f;
}

int docker_box_facts(struct docker_box *b, struct call *c, const struct docker_facts **ret)
{
        const struct docker_facts *f = docker_box_known_facts(b);
        struct box_status status;
        int r = 0;

        if (!f) {
                r = box_inspect(b, c, &status);
                f = docker_box_known_facts(b);
        }
        if (r == 0 && !f)
                r = call_fail(c, -EPROTO, "what the engine says of the container can't be read");
        if (r == 0)
                *ret = f;
        return r;
}

int docker_box_check_runs(struct docker_box *b, struct call *c)
{
        const struct docker_facts *f;
        enum box_state state;
        int r = docker_box_facts(b, c, &f); /* the first time, with what it is */

        if (r < 0)
                return r;
        mutex_lock(&b->lock);
        state = b->state;
        mutex_unlock(&b->lock);
        if (state == BOX_GONE || state == BOX_DESTROYING)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        if (state == BOX_RUNNING || state == BOX_UNKNOWN || state == BOX_STARTING ||
            state == BOX_RESUMING)
                return 0;
        return call_fail(c, -EHOSTDOWN, "the sandbox is %s", box_state_name(state));
}

/* ---- create ---- */

/* A creation that is under way; on its caller's stack. */
struct creating {
        struct list link;
        const char *key;
};

static bool had_oom(struct docker_provider *d, const char *id)
{
        bool has_oom = false;

        mutex_lock(&d->lock);
        list_for_each (at, &d->boxes) {
                struct docker_box *b = list_entry(at, struct docker_box, link);

                if (strcmp(b->base.id, id) != 0)
                        continue;
                mutex_lock(&b->lock);
                has_oom = b->has_oom;
                mutex_unlock(&b->lock);
        }
        mutex_unlock(&d->lock);
        return has_oom;
}

static int status_of(struct docker_provider *d, struct call *c, const char *id,
                     struct box_status *ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        const struct engine_ask ask = {.path = &path};
        bool has_oom = had_oom(d, id);
        int r = path_of(id, &path, "/json");

        if (r == 0)
                r = engine_ask(d->engine, c, &ask, &reply, &j);
        if (r == 0)
                docker_describe(j, has_oom, ret);
        return r;
}

/* What a former run of ours was about to start when it was killed: nobody has ever seen it. */
static int sweep(struct docker_provider *d, struct call *c, const char *id)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        const struct engine_ask ask = {
                .method = "DELETE",
                .path = &path,
                .accepts = {404, 409}, /* it is being removed, or has started */
                .is_idempotent = true};
        int r = path_of(id, &path, "");

        if (r == 0)
                r = url_add_query(&path, "v",
                                  "1"); /* without force: had it been started, it stays */
        return r == 0 ? engine_ask(d->engine, c, &ask, &reply, NULL) : r;
}

/* Not one that is half made, or just being removed (which is "removing", then "dead"). */
static bool has_started(const struct box_status *status)
{
        return status->state != BOX_DESTROYING && status->state != BOX_ERROR &&
               strcmp(status->raw, "created") != 0;
}

static void container_name(const struct spec *spec, char ret[CONTAINER_NAME_SIZE])
{
        (void)snprintf(ret, CONTAINER_NAME_SIZE, NAME_PREFIX "%s", spec->key); /* it fits */
}

/* -EEXIST: its name is taken: a former try of ours has got that far. */
static int make(struct docker_provider *d, struct call *c, const struct spec *spec,
                const struct image_facts *image, char *ret_id, size_t size)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(BODY_MAX);
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        struct engine_ask ask = {.method = "POST", .path = &path, .is_slow = true};
        char name[CONTAINER_NAME_SIZE];
        const char *id;
        int r = url_add(&path, "/containers/create");

        container_name(spec, name);
        if (r == 0)
                r = url_add_query(&path, "name", name);
        if (r == 0)
                r = body_of(spec, image, d->has_no_agent, &body);
        if (r < 0)
                return call_fail_errno(c, r, "the settings");
        ask.data = body.data;
        ask.size = body.size;
        r = engine_ask(d->engine, c, &ask, &reply, &j);
        if (r < 0 && reply.status == 409)
                return call_fail(c, -EEXIST, "there is a container %s already", name);
        if (r < 0)
                return r == -ENODEV ? -ENOENT : r;
        id = json_string(json_get(j, "Id"));
        if (!id || !is_id(id) || strlen(id) >= size)
                return call_fail(c, -EPROTO, "the engine gave no id for the container");
        (void)snprintf(ret_id, size, "%s", id); /* it fits */
        return 0;
}

/*
 * A run of ours was killed while it asked for this one: the engine may be at it still, and what comes
 * of that was never started.
 */
static int make_anew(struct docker_provider *d, struct call *c, const struct spec *spec,
                     const struct image_facts *image, char *ret_id, size_t size)
{
        const struct timespec pause = clock_timespec(100 * NS_PER_MS);
        uint64_t end_ns = clock_after(HALF_NS);
        char name[CONTAINER_NAME_SIZE];
        struct box_status status;
        int r;

        container_name(spec, name);
        while ((r = make(d, c, spec, image, ret_id, size)) == -EEXIST) {
                char why[CALL_SENTENCE_MAX];

                memcpy(why, c->sentence, sizeof(why));
                r = status_of(d, c, name, &status);
                if (r == 0 && strcmp(status.raw, "created") == 0)
                        (void)sweep(d, c, name); /* seen by the next try */
                else if (r == 0 && has_started(&status))
                        end_ns = 0; /* it is one that runs, or did */
                if (clock_mono_ns() >= end_ns || call_check(c) < 0)
                        return call_fail(c, -EEXIST, "%s", why);
                c->sentence[0] = '\0';
                (void)nanosleep(&pause, NULL);
        }
        return r;
}

static void tell(const struct docker_provider *d, const struct spec *spec, const char *phase)
{
        if (d->listener.box_phase)
                d->listener.box_phase(d->listener.ctx, spec->key, phase);
}

static int create(struct docker_provider *d, struct call *c, const struct spec *spec,
                  struct box **ret)
{
        struct image_facts image = {0};
        struct box_status status;
        char id[sizeof(((struct box *)NULL)->id)] = "";
        struct docker_box *b;
        int r = body_check(spec, d->base.allow, c);

        if (r == 0)
                r = engine_check_arch(d->engine, c);
        if (r == 0)
                r = image_get(d, c, spec, &image);
        if (r < 0)
                return r;
        tell(d, spec, "creating the container");
        r = make_anew(d, c, spec, &image, id, sizeof(id));
        if (r < 0)
                return r;
        b = box_new(d, id, spec->key);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory"); /* found by its label */
        tell(d, spec, "starting the container");
        r = life_start(b, c);
        if (r == 0)
                r = box_inspect(b, c, &status);
        if (r == 0 && status.state == BOX_STOPPED)
                r = call_fail(c, -EIO, "%s",
                              status.sentence[0] ? status.sentence
                                                 : "the container has ended at once");
        if (r < 0) {
                life_discard(b);
                docker_box_release(&b->base);
                return r == -ENODEV ? -EIO : r;
        }
        talk_wanted(b->talk); /* there before the first command */
        *ret = &b->base;
        return 0;
}

int docker_box_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret)
{
        struct docker_provider *d = docker_of(p);
        struct creating made = {.key = spec->key};
        int r;

        mutex_lock(&d->lock);
        list_add_tail(&d->creating, &made.link);
        mutex_unlock(&d->lock);
        r = create(d, c, spec, ret);
        mutex_lock(&d->lock);
        list_remove(&made.link);
        mutex_unlock(&d->lock);
        return r;
}

static bool is_creating(struct docker_provider *d, const char *key)
{
        bool is_it = false;

        mutex_lock(&d->lock);
        list_for_each (at, &d->creating)
                is_it |= strcmp(list_entry(at, struct creating, link)->key, key) == 0;
        mutex_unlock(&d->lock);
        return is_it;
}

/* ---- attach ---- */

static bool is_whole_id(const char *id)
{
        return strlen(id) == 64 && id[strspn(id, "0123456789abcdef")] == '\0';
}

/* What the engine calls it that is known by a name, or by the beginning of its id. */
static int find_id(struct docker_provider *d, struct call *c, const char *id, char **ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        const struct engine_ask ask = {.path = &path};
        const char *whole;
        int r = path_of(id, &path, "/json");

        if (r == 0)
                r = engine_ask(d->engine, c, &ask, &reply, &j);
        if (r < 0)
                return r == -ENOENT ? call_fail(c, -ENODEV, "there is no container %s", id) : r;
        whole = json_string(json_get(j, "Id"));
        if (!whole || !is_id(whole))
                return call_fail(c, -EPROTO, "the engine tells no id of %s", id);
        *ret = strdup(whole);
        return *ret ? 0 : call_fail(c, -ENOMEM, "out of memory");
}

int docker_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                      struct box **ret)
{
        struct docker_provider *d = docker_of(p);
        _cleanup_(freep) char *whole = NULL;
        struct docker_box *b;
        int r;

        if (!is_id(id))
                return call_fail(c, -EINVAL, "\"%.64s\" is no container's id or name", id);
        r = is_whole_id(id) ? 0 : find_id(d, c, id, &whole);
        if (r < 0)
                return r;
        b = box_new(d, whole ? whole : id, spec ? spec->key : "");
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory");
        *ret = &b->base;
        return 0;
}

/* ---- list ---- */

static int report(struct docker_provider *d, struct call *c, const struct json *each,
                  struct box_sink *to)
{
        const struct json *labels = json_get(each, "Labels");
        const char *key = docker_label(labels, LABEL_KEY), *name = docker_label(labels, LABEL_NAME),
                   *owner = docker_label(labels, LABEL_OWNER);
        struct box_found found = {.id = json_string(json_get(each, "Id")),
                                  .key = key ? key : "",
                                  .name = name ? name : ""};
        int r;

        if (!found.id || !is_id(found.id) || !owner || strcmp(owner, d->owner) != 0)
                return 0;
        r = status_of(d, c, found.id, &found.status);
        if (r == -ENOENT) { /* it went just now */
                c->sentence[0] = '\0';
                return 0;
        }
        if (r == 0 && !has_started(&found.status) && !is_creating(d, found.key)) {
                r = sweep(d, c, found.id);
                /* Its start may have been on its way: then it is still there, and runs. */
                if (r == 0)
                        r = status_of(d, c, found.id, &found.status);
                if (r == -ENOENT || (r == 0 && !has_started(&found.status))) {
                        c->sentence[0] = '\0';
                        return 0;
                }
        }
        return r < 0 ? r : to->found(to, &found);
}

int docker_box_list(struct provider *p, struct call *c, struct box_sink *to)
{
        struct docker_provider *d = docker_of(p);
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        const struct engine_ask ask = {.path = &path};
        char filter[128];
        int r = url_add(&path, "/containers/json");

        (void)snprintf(filter, sizeof(filter), "{\"label\":[\"" LABEL_OWNER "=%s\"]}", d->owner);
        if (r == 0)
                r = url_add_query(&path, "all", "1");
        if (r == 0)
                r = url_add_query(&path, "filters", filter);
        if (r == 0)
                r = engine_ask(d->engine, c, &ask, &reply, &j);
        if (r < 0)
                return r;
        for (const struct json *each = json_first(j); each && r == 0; each = json_next(each))
                r = report(d, c, each, to);
        return r < 0 ? r : 0;
}
