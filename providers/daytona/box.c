/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox: made, found again, looked at. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "providers/daytona/api.h"
#include "providers/daytona/body.h"
#include "providers/daytona/states.h"
#include "providers/daytona/toolbox.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/base/log.h"
#include "transport/http/url.h"

#define BODY_MAX ((size_t)8 << 20)
#define PAGE 200
#define PAGES_MAX 1000
#define FIND_NS (4 * NS_PER_S) /* it may come up a little after its answer was lost */
#define FIND_STEP_NS (500 * NS_PER_MS)
#define FURNISH_NS (20 * NS_PER_S)

/* ---- birth and end ---- */

void daytona_box_free(struct remote_box *base)
{
        struct daytona_box *b = daytona_box_of(base);

        remote_box_done(base);
        http_unref(b->toolbox);
        mutex_done(&b->lock);
        free(b);
}

uint64_t daytona_timeout_s(const struct spec *spec)
{
        return (uint64_t)daytona_timeout_min(spec) * 60;
}

static struct daytona_box *box_new(struct daytona_provider *d, const char *id,
                                   const struct spec *spec)
{
        uint64_t timeout_s = spec && spec->timeout_ns > 0 ? daytona_timeout_s(spec) : 0;
        struct daytona_box *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        mutex_init(&b->lock);
        if (remote_box_init(&b->remote, &d->remote, id, spec, timeout_s) < 0) {
                mutex_done(&b->lock);
                free(b);
                return NULL;
        }
        return b;
}

int daytona_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                       struct box **ret)
{
        struct daytona_box *b;

        if (!daytona_is_id(id))
                return call_fail(c, -EINVAL, "\"%.64s\" is no sandbox's id", id);
        b = box_new(daytona_of(p), id, spec);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory");
        *ret = &b->remote.base;
        return 0;
}

/* ---- what is known of it ---- */

static int set_toolbox(struct daytona_box *b, const char *url, struct call *c)
{
        struct http *made = NULL;
        int r = daytona_toolbox_new(daytona_of_box(b), b->remote.base.id, url, c, &made);

        if (r < 0)
                return r;
        mutex_lock(&b->lock);
        if (!b->toolbox)
                b->toolbox = STEAL(made);
        mutex_unlock(&b->lock);
        http_unref(made);
        return 0;
}

static struct http *known_toolbox(struct daytona_box *b)
{
        struct http *h;

        mutex_lock(&b->lock);
        h = b->toolbox;
        mutex_unlock(&b->lock);
        return h;
}

int daytona_learn(struct daytona_box *b, struct call *c, const struct json *sandbox)
{
        const char *url = json_string(json_get(sandbox, "toolboxProxyUrl"));
        int64_t minutes;

        if (json_integer(json_get(sandbox, "autoPauseInterval"), &minutes))
                atomic_store(&b->pauses_itself, minutes > 0);
        if (json_get(sandbox, "sandboxClass"))
                atomic_store(&b->can_pause, daytona_can_pause(sandbox));
        remote_asked(&b->remote, "", daytona_label(sandbox, LABEL_WORKDIR));
        if (!url || !*url || known_toolbox(b))
                return 0;
        return set_toolbox(b, url, c);
}

/* Of older ones, who don't say it with the sandbox. */
static int ask_toolbox(struct daytona_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0}, config = {0};
        _cleanup_(json_freep) struct json *j = NULL, *all = NULL;
        struct api_ask ask = {.accepts = {404}};
        const struct api_ask of_all = {.path = "/config"};
        const char *url;
        int r = daytona_ask_box(b, c, "/toolbox-proxy-url", &ask, &reply, &j);

        if (r < 0)
                return r;
        url = reply.status == 404 ? NULL : json_string(json_get(j, "url"));
        if (!url) {
                r = daytona_ask(daytona_of_box(b), c, &of_all, &config, &all);
                if (r < 0)
                        return r;
                url = json_string(json_get(all, "proxyToolboxUrl"));
        }
        if (!url)
                return call_fail(c, -EPROTO, "the service doesn't say where the toolbox is");
        return set_toolbox(b, url, c);
}

int daytona_toolbox(struct daytona_box *b, struct call *c, struct http **ret)
{
        struct box_status status;
        int r = 0;

        if (!known_toolbox(b))
                r = remote_look(&b->remote, c, &status);
        if (r == 0 && !known_toolbox(b))
                r = ask_toolbox(b, c);
        if (r == 0)
                *ret = known_toolbox(b);
        return r;
}

int daytona_look(struct remote_box *base, struct call *c, struct box_status *ret)
{
        struct daytona_box *b = daytona_box_of(base);
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        struct api_ask ask = {0};
        int r = daytona_ask_box(b, c, "", &ask, &reply, &j);

        if (r == 0)
                r = daytona_learn(b, c, j);
        if (r < 0)
                return r;
        daytona_describe(j, remote_state_of(base), ret);
        return ret->state == BOX_GONE ? call_fail(c, -ENODEV, "the sandbox is gone") : 0;
}

/* ---- create ---- */

/* By its name, which lists of labels lag behind. -ENOENT none of ours has it. */
static int find_made(struct daytona_provider *d, struct call *c, const struct spec *spec,
                     struct json **ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        char path[DAYTONA_NAME_SIZE + 16], name[DAYTONA_NAME_SIZE];
        const struct api_ask ask = {.path = path};
        int r;

        daytona_name(spec, name);
        (void)snprintf(path, sizeof(path), "/sandbox/%s", name);
        r = daytona_ask(d, c, &ask, &reply, &j);
        if (r < 0)
                return r;
        if (strcmp(daytona_label(j, LABEL_KEY), spec->key) != 0 ||
            strcmp(daytona_label(j, LABEL_OWNER), spec->owner) != 0)
                return -ENOENT;
        *ret = STEAL(j);
        return 0;
}

/* Its answer was lost: some time, whatever is left of the call's, and more for what follows. */
static int find_lost(struct daytona_provider *d, struct call *c, const struct spec *spec,
                     struct json **ret)
{
        const struct timespec step = clock_timespec(FIND_STEP_NS);
        uint64_t until_ns = clock_after(FIND_NS);

        for (;;) {
                struct call quiet;

                call_init(&quiet, until_ns);
                if (find_made(d, &quiet, spec, ret) == 0)
                        break;
                if (call_check(c) == -EINTR || clock_after(FIND_STEP_NS) >= until_ns)
                        return -ENOENT;
                (void)nanosleep(&step, NULL);
        }
        c->sentence[0] = '\0';
        if (c->deadline_ns < clock_after(FURNISH_NS))
                c->deadline_ns = clock_after(FURNISH_NS);
        return 0;
}

static int ask_create(struct daytona_provider *d, struct call *c, const struct spec *spec,
                      struct json **ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(BODY_MAX);
        const struct api_ask ask = {
                .method = "POST", .path = "/sandbox", .body = &body, .is_slow = true};
        struct call quiet;
        int r = daytona_create_body(spec, d->config.target, &body);

        if (r < 0)
                return call_fail_errno(c, r, "the settings");
        r = daytona_ask(d, c, &ask, &reply, ret);
        if (r == 0 && !*ret)
                r = call_fail(c, -EPROTO, "the service gave no answer to a creation");
        if (reply.status == 409) { /* the name is taken: by the first of two requests, perhaps */
                call_init(&quiet, c->deadline_ns);
                return find_made(d, &quiet, spec, ret) == 0 ? 0 : r;
        }
        if (r == 0 || !reply.was_sent || !remote_may_be_made(r))
                return r;
        return find_lost(d, c, spec, ret) == 0 ? 0 : r;
}

static int set_interval(struct daytona_box *b, struct call *c, const char *which, unsigned minutes)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        struct api_ask ask = {.method = "POST", .is_idempotent = true};
        char path[64];

        (void)snprintf(path, sizeof(path), "/%s/%u", which, minutes);
        return daytona_ask_box(b, c, path, &ask, &reply, &j);
}

int daytona_retime(struct remote_box *base, struct call *c)
{
        struct daytona_box *b = daytona_box_of(base);
        unsigned minutes = (unsigned)(atomic_load(&base->timeout_s) / 60);
        int r = set_interval(b, c, atomic_load(&b->pauses_itself) ? "autopause" : "autostop",
                             minutes);

        return r < 0 ? r : daytona_put_off(base, c);
}

/* A machine that can pause does that at its time's end, instead. */
static int set_intervals(struct daytona_box *b, struct call *c, const struct spec *spec)
{
        if (atomic_load(&b->can_pause) != DAYTONA_PAUSE_CAN)
                return 0;
        for (unsigned i = 0; i < 2; i++) {
                const char *which = i == 0 ? "autostop" : "autopause";
                int r = set_interval(b, c, which, i == 0 ? 0 : daytona_timeout_min(spec));

                if (r == 0 && i == 1)
                        atomic_store(&b->pauses_itself, true);
                if (r == 0 || r == -ENODEV || call_check(c) < 0)
                        continue;
                log_debug("daytona", "%s: %s: %s, ignoring", b->remote.base.id, which, c->sentence);
                c->sentence[0] = '\0'; /* then it stops */
                return 0;
        }
        return 0;
}

int daytona_box_create(struct provider *p, struct call *c, const struct spec *spec,
                       struct box **ret)
{
        struct daytona_provider *d = daytona_of(p);
        _cleanup_(json_freep) struct json *j = NULL;
        struct daytona_box *b;
        const char *id;
        int r = daytona_check(spec, c);

        if (r < 0)
                return r;
        remote_tell(&d->remote, spec, "creating the sandbox");
        r = ask_create(d, c, spec, &j);
        if (r < 0)
                return r;
        id = json_string(json_get(j, "id"));
        if (!id || !daytona_is_id(id))
                return call_fail(c, -EPROTO, "the service gave no id for the sandbox");
        b = box_new(d, id, spec);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory"); /* found by its label */
        r = daytona_learn(b, c, j);
        if (r == 0)
                r = daytona_wait_started(b, c, spec);
        if (r == 0)
                r = set_intervals(b, c, spec);
        return remote_furnish(&b->remote, r, c, spec, ret);
}

/* ---- list ---- */

struct listing {
        struct daytona_provider *d;
        struct call *call;
        struct box_sink *to;
};

/*
 * Lists lag behind what is true: of one that we hold for something else, its own word counts.
 * False: it has none; who misses it in the list asks for it alone.
 */
static bool look_closer(struct listing *l, const char *id, struct box_status *status)
{
        enum box_state known;
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        struct api_ask ask = {0};
        struct call quiet;

        if (!remote_knows(&l->d->remote, id, &known) || known == status->state ||
            url_add(&path, "/sandbox") < 0 || url_add_segment(&path, id) < 0)
                return true;
        ask.path = buf_str(&path);
        call_init(&quiet, l->call->deadline_ns);
        if (daytona_ask(l->d, &quiet, &ask, &reply, &j) < 0)
                return false;
        daytona_describe(j, known, status);
        remote_follow_listed(&l->d->remote, id, status->state);
        return true;
}

static int report(struct listing *l, const struct json *each)
{
        struct box_found found = {.id = json_string(json_get(each, "id")),
                                  .key = daytona_label(each, LABEL_KEY),
                                  .name = daytona_label(each, LABEL_NAME)};

        if (!found.id || !daytona_is_id(found.id) ||
            strcmp(daytona_label(each, LABEL_OWNER), l->d->remote.owner) != 0)
                return 0;
        daytona_describe(each, BOX_UNKNOWN, &found.status);
        if (!look_closer(l, found.id, &found.status))
                return 0;
        return l->to->found(l->to, &found);
}

static int list_path(struct listing *l, const char *cursor, struct buf *to)
{
        _cleanup_(buf_done) struct buf labels = BUF_INIT(256);
        int r = buf_add_str(&labels, "{\"" LABEL_OWNER "\":");

        if (r == 0)
                r = json_add_string(&labels, l->d->remote.owner);
        if (r == 0)
                r = buf_add_char(&labels, '}');
        if (r == 0)
                r = url_add(to, "/sandbox");
        if (r == 0)
                r = url_add_query(to, "labels", buf_str(&labels));
        if (r == 0)
                r = url_add_query_number(to, "limit", PAGE);
        return r == 0 && *cursor ? url_add_query(to, "cursor", cursor) : r;
}

/* {"items":[...],"nextCursor":...}, or, before 0.180, all of them as an array. */
static int take_page(struct listing *l, struct call *c, const struct json *j, char *cursor,
                     size_t size)
{
        const struct json *items = json_type(j) == JSON_ARRAY ? j : json_get(j, "items");
        const char *next = json_string(json_get(j, "nextCursor"));
        int r = 0;

        if (!items || json_type(items) != JSON_ARRAY)
                return call_fail(c, -EPROTO, "the service's list of sandboxes is none");
        for (const struct json *each = json_first(items); each && r == 0; each = json_next(each))
                r = report(l, each);
        if (r == 0 && next && (strlen(next) >= size || (*next && strcmp(next, cursor) == 0)))
                return call_fail(c, -EPROTO, "the service's list of sandboxes goes in circles");
        (void)snprintf(cursor, size, "%s", next ? next : "");
        return r;
}

int daytona_box_list(struct provider *p, struct call *c, struct box_sink *to)
{
        struct listing l = {daytona_of(p), c, to};
        char cursor[4096] = "";

        for (unsigned page = 0; page < PAGES_MAX; page++) {
                _cleanup_(http_reply_done) struct http_reply reply = {0};
                _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
                _cleanup_(json_freep) struct json *j = NULL;
                struct api_ask ask = {0};
                int r = list_path(&l, cursor, &path);

                if (r < 0)
                        return call_fail_errno(c, r, "a request");
                ask.path = buf_str(&path);
                r = daytona_ask(l.d, c, &ask, &reply, &j);
                if (r == 0)
                        r = take_page(&l, c, j, cursor, sizeof(cursor));
                if (r != 0 || !cursor[0])
                        return r < 0 ? r : 0;
        }
        return call_fail(c, -EPROTO, "the service's list of sandboxes has no end");
}
