/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's events: what happens to a container is told by one long answer, so that nobody needs
 * to ask. While it can't be had, and when it is there again, every sandbox is looked at: that shows
 * what was missed, and that the engine is away.
 *
 * Nothing is asked of an engine before there is a sandbox on it.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/docker/box.h"
#include "providers/docker/engine.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/base/log.h"
#include "transport/http/lines.h"
#include "transport/http/url.h"

#define LINE_MAX_BYTES ((size_t)256 << 10)
#define RETRY_NS (500 * NS_PER_MS)
#define RETRY_MAX_NS (5 * NS_PER_S)
#define OPEN_NS (15 * NS_PER_S)

struct events {
        struct docker_provider *docker;
        struct lines lines; /* the stream's thread only, while there is one */
        bool is_odd; /* likewise: what came is no list of events */
        /* guarded by the provider's lock */
        bool is_over;
};

/* ---- one event ---- */

/* An id that it was attached by may be a part of its own, or its name. */
static bool is_it(struct docker_box *b, const char *id, const char *name)
{
        const struct docker_facts *f = docker_box_known_facts(b);

        if (f)
                return strcmp(f->container, id) == 0;
        return strncmp(b->base.id, id, strlen(b->base.id)) == 0 ||
               (name && strcmp(b->base.id, name) == 0);
}

/* The next box from `skip` on whose news this is; NULL id: all. False: none. */
static bool next_box(struct docker_provider *d, size_t skip, const char *id, const char *name,
                     char ret[sizeof(((struct box *)NULL)->id)])
{
        bool is_found = false;
        size_t at_index = 0;

        mutex_lock(&d->lock);
        list_for_each (at, &d->boxes) {
                struct docker_box *b = list_entry(at, struct docker_box, link);

                if (at_index++ < skip || (id && !is_it(b, id, name)))
                        continue;
                memcpy(ret, b->base.id, sizeof(b->base.id));
                is_found = true;
                break;
        }
        mutex_unlock(&d->lock);
        return is_found;
}

/* The engine itself remembers it only of those that it ended. */
static void note_oom(struct docker_provider *d, const char *id, const char *name, bool has_oom)
{
        mutex_lock(&d->lock);
        list_for_each (at, &d->boxes) {
                struct docker_box *b = list_entry(at, struct docker_box, link);

                if (!is_it(b, id, name))
                        continue;
                mutex_lock(&b->lock);
                b->has_oom = has_oom;
                mutex_unlock(&b->lock);
        }
        mutex_unlock(&d->lock);
}

static void tell_one(struct docker_provider *d, const char *id, const char *name)
{
        char found[sizeof(((struct box *)NULL)->id)];

        if (d->listener.box_changed && next_box(d, 0, id, name, found))
                d->listener.box_changed(d->listener.ctx, found);
}

static void tell_all(struct docker_provider *d)
{
        char found[sizeof(((struct box *)NULL)->id)];

        for (size_t i = 0; d->listener.box_changed && next_box(d, i, NULL, NULL, found); i++)
                d->listener.box_changed(d->listener.ctx, found);
}

static int on_line(void *ctx, const char *text, size_t size)
{
        struct events *e = ctx;
        _cleanup_(json_freep) struct json *j = NULL;
        const struct json *actor;
        const char *id, *name, *what;

        if (json_parse(text, size, &j, NULL) < 0)
                return 0;
        actor = json_get(j, "Actor");
        id = json_string(json_get(actor, "ID"));
        name = json_string(json_get(json_get(actor, "Attributes"), "name"));
        if (!id)
                id = json_string(json_get(j, "id"));
        if (!id)
                return 0;
        what = json_string(json_get(j, "Action"));
        if (what && (strcmp(what, "oom") == 0 || strcmp(what, "start") == 0))
                note_oom(e->docker, id, name, what[0] == 'o');
        tell_one(e->docker, id, name);
        return 0;
}

static void over(struct events *e)
{
        mutex_lock(&e->docker->lock);
        e->is_over = true;
        cond_broadcast(&e->docker->changed);
        mutex_unlock(&e->docker->lock);
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct events *e = ctx;

        (void)is_stderr; /* it is one */
        if (!e->is_odd && lines_feed(&e->lines, data, size) < 0)
                e->is_odd = true; /* no event is so long: what comes next can't be told */
        if (e->is_odd)
                over(e);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct events *e = ctx;

        log_debug("docker", "%s: the events have ended: %s", e->docker->base.instance,
                  end->sentence);
        over(e);
}

/* ---- the stream ---- */

static int add_path(struct docker_provider *d, struct call *c, struct buf *to)
{
        static const char filters[] =
                "{\"type\":[\"container\"],\"event\":[\"create\",\"start\",\"restart\",\"die\","
                "\"pause\",\"unpause\",\"stop\",\"kill\",\"destroy\",\"remove\",\"oom\",\"update\"]"
                "}";
        char prefix[16];
        int r = engine_prefix(d->engine, c, prefix);

        if (r == 0)
                r = url_add(to, prefix);
        if (r == 0)
                r = url_add(to, "/events");
        return r == 0 ? url_add_query(to, "filters", filters) : r;
}

/* Until it ends, or we do. 0: there was one. */
static int listen_once(struct events *e)
{
        struct docker_provider *d = e->docker;
        const struct stream_events events = {.data = on_data, .end = on_end, .ctx = e};
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {0};
        struct stream *s = NULL;
        struct call c;
        int r;

        call_init(&c, clock_after(OPEN_NS));
        mutex_lock(&d->lock);
        d->listening = &c;
        if (d->is_closing)
                call_cancel(&c);
        mutex_unlock(&d->lock);
        r = add_path(d, &c, &path);
        q.path = buf_str(&path);
        if (r == 0)
                r = http_open(engine_streams(d->engine), &c, &q, 0, &events, &reply, &s);
        mutex_lock(&d->lock);
        d->listening = NULL;
        mutex_unlock(&d->lock);
        if (r < 0) {
                log_debug("docker", "%s: no events: %s", d->base.instance, c.sentence);
                return r;
        }
        tell_all(d); /* what was missed */
        mutex_lock(&d->lock);
        while (!e->is_over && !d->is_closing)
                cond_wait(&d->changed, &d->lock);
        mutex_unlock(&d->lock);
        stream_close(s);
        e->is_over = e->is_odd = false;
        buf_clear(&e->lines.pending);
        return 0;
}

/* False: we are closing. */
static bool wait_for(struct docker_provider *d, uint64_t span_ns)
{
        uint64_t end_ns = clock_after(span_ns);
        bool goes_on;

        mutex_lock(&d->lock);
        while (!d->is_closing && (clock_mono_ns() < end_ns || list_is_empty(&d->boxes)))
                (void)cond_wait_until(&d->changed, &d->lock,
                                      list_is_empty(&d->boxes) ? NEVER_NS : end_ns);
        goes_on = !d->is_closing;
        mutex_unlock(&d->lock);
        return goes_on;
}

void *events_run(void *docker)
{
        struct events e = {.docker = docker};
        uint64_t retry_ns = 0;

        e.lines = LINES_INIT(LINE_MAX_BYTES, on_line, &e);
        while (wait_for(e.docker, retry_ns)) {
                int r = listen_once(&e);

                if (r == 0)
                        retry_ns = RETRY_NS;
                else
                        retry_ns = retry_ns < RETRY_NS           ? RETRY_NS
                                   : retry_ns * 2 < RETRY_MAX_NS ? retry_ns * 2
                                                                 : RETRY_MAX_NS;
                tell_all(e.docker);
        }
        lines_done(&e.lines);
        return NULL;
}
