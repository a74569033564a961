/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox: made, found again, looked at, and what its service is asked for. */

#include "providers/opensandbox/box.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "providers/opensandbox/api.h"
#include "providers/opensandbox/body.h"
#include "providers/opensandbox/execd.h"
#include "providers/opensandbox/program.h"
#include "providers/opensandbox/states.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/base/log.h"
#include "transport/http/secret.h"
#include "transport/http/url.h"

#define BODY_MAX ((size_t)8 << 20)
#define PAGE_SIZE_MAX 200
#define PAGES_MAX 1000
#define ADOPTED_S 3600 /* to which the end of one is put off that names no span */
#define MARGIN_S 60 /* an idle one is to be paused by us before the service destroys it */
#define PAUSED_S (UINT64_C(30) * 86400)
#define PUT_OFF_NS (10 * NS_PER_S)
#define CONFLICT_NS (500 * NS_PER_MS)
#define CONFLICTS_MAX 4

/* ---- birth and end ---- */

static void box_free(struct remote_box *remote)
{
        struct osb_box *b = osb_box_of(remote);

        remote_box_done(remote);
        http_unref(b->execd);
        wipe_free(b->execd_said);
        free(b);
}

static struct osb_box *box_new(struct osb_provider *p, const char *id, const struct spec *spec)
{
        struct osb_box *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        b->osb = p;
        if (remote_box_init(&b->remote, &p->remote, id, spec, spec ? osb_timeout_s(spec) : 0) < 0) {
                free(b);
                return NULL;
        }
        return b;
}

int osb_box_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                   struct box **ret)
{
        struct osb_box *b;

        if (!osb_is_id(id))
                return call_fail(c, -EINVAL, "\"%.64s\" is no sandbox's id", id);
        b = box_new(osb_of(p), id, spec);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory");
        *ret = &b->remote.base;
        return 0;
}

/* ---- looked at ---- */

static void learn(struct remote_box *b, const struct json *sandbox)
{
        _cleanup_(buf_done) struct buf workdir = BUF_INIT(sizeof(b->asked_workdir));
        bool has_workdir = osb_long_label(sandbox, LABEL_WORKDIR, &workdir);

        remote_asked(b, osb_label(sandbox, LABEL_USER), has_workdir ? buf_str(&workdir) : "");
}

static int look(struct remote_box *b, struct call *c, struct box_status *ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        struct osb_ask ask = {0};
        int r = osb_api_ask_box(osb_box_of(b), c, "", &ask, &reply, &j);

        if (r < 0)
                return r;
        if (!json_get(j, "status"))
                return call_fail(c, -EPROTO, "the service's answer is no sandbox");
        learn(b, j);
        osb_describe(j, ret);
        return 0;
}

/* ---- its life ---- */

static int put_off_to(struct remote_box *b, struct call *c, uint64_t seconds)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf body = BUF_INIT(128);
        struct osb_ask ask = {.method = "POST", .body = &body, .is_idempotent = true};
        int r = osb_expiry_body(clock_real_ns() + seconds * NS_PER_S, &body);

        if (r == 0)
                r = osb_api_ask_box(osb_box_of(b), c, "/renew-expiration", &ask, &reply, NULL);
        if (r == -EBUSY) { /* it has no end */
                c->sentence[0] = '\0';
                r = 0;
        }
        return r;
}

/* What was adopted keeps its end: whose it is says when. */
static int put_off(struct remote_box *b, struct call *c)
{
        return b->timeout_s ? put_off_to(b, c, b->timeout_s + MARGIN_S) : 0;
}

static int ask_plain(struct remote_box *b, struct call *c, const char *method, const char *rest,
                     unsigned *ret_status)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        struct osb_ask ask = {.method = method, .is_slow = true, .is_idempotent = true};
        int r = osb_api_ask_box(osb_box_of(b), c, rest, &ask, &reply, NULL);

        *ret_status = reply.status;
        return r;
}

/* From one state to another, by a call that begins it. */
struct turn {
        const char *rest; /* of the call's path */
        enum box_state from, meanwhile, to;
        const char *refused;
};

/* -EOPNOTSUPP when it is refused for good; a conflict may be with a change that ends soon. */
static int begin_turn(struct remote_box *b, struct call *c, const struct turn *t)
{
        const struct timespec pause = clock_timespec(CONFLICT_NS);

        for (unsigned i = 1;; i++) {
                struct box_status now;
                struct call quiet;
                unsigned status = 0;
                int r = ask_plain(b, c, "POST", t->rest, &status);

                if (r == 0 || r == -ENODEV)
                        return r;
                call_init(&quiet, c->deadline_ns);
                if (remote_look(b, &quiet, &now) < 0)
                        return r;
                if (now.state == t->to || now.state == t->meanwhile) { /* all the same */
                        c->sentence[0] = '\0';
                        return 0;
                }
                if (now.state != t->from || !osb_is_refused(status))
                        return r;
                if (status != 409 || i == CONFLICTS_MAX || call_check(c) < 0)
                        return call_wrap(c, -EOPNOTSUPP, "%s", t->refused);
                (void)nanosleep(&pause, NULL);
        }
}

/* Its time goes on while it is paused, or about to be. */
static void put_off_paused(struct remote_box *b)
{
        struct call quiet;

        if (!b->timeout_s)
                return;
        call_init(&quiet, clock_after(PUT_OFF_NS));
        if (put_off_to(b, &quiet, PAUSED_S) < 0)
                log_warning("opensandbox %s: putting off its end: %s, ignoring", b->base.id,
                            quiet.sentence);
}

/* It was about to be paused, and may run on: then its end is where it was. */
static void put_back(struct remote_box *b)
{
        struct box_status now;
        struct call quiet;

        call_init(&quiet, clock_after(PUT_OFF_NS));
        if (look(b, &quiet, &now) == 0 && now.state == BOX_RUNNING && put_off(b, &quiet) < 0)
                log_warning("opensandbox %s: putting its end back: %s, ignoring", b->base.id,
                            quiet.sentence);
}

static int pause_box(struct remote_box *b, struct call *c)
{
        static const struct turn turn = {.rest = "/pause",
                                         .from = BOX_RUNNING,
                                         .meanwhile = BOX_PAUSING,
                                         .to = BOX_PAUSED,
                                         .refused = "this deployment can't pause it"};
        int r = begin_turn(b, c, &turn);

        if (r < 0)
                return r;
        put_off_paused(b);
        r = remote_wait_for(b, c, BOX_PAUSED);
        if (r == 0)
                osb_execd_forget(osb_box_of(b));
        else
                put_back(b);
        return r;
}

static int resume_box(struct remote_box *b, struct call *c)
{
        static const struct turn turn = {.rest = "/resume",
                                         .from = BOX_PAUSED,
                                         .meanwhile = BOX_RESUMING,
                                         .to = BOX_RUNNING,
                                         .refused = "this deployment can't resume it"};
        int r = begin_turn(b, c, &turn);

        if (r == 0)
                r = remote_wait_for(b, c, BOX_RUNNING);
        osb_execd_forget(osb_box_of(b)); /* it may be elsewhere now */
        if (r == 0)
                r = osb_execd_wait(osb_box_of(b), c);
        if (r == 0 && b->timeout_s)
                r = put_off(b, c);
        return r;
}

static int remove_box(struct remote_box *b, struct call *c)
{
        unsigned status = 0;
        struct box_status now;
        int r = ask_plain(b, c, "DELETE", "", &status);

        if (r < 0 || status == 204)
                return r;
        r = look(b, c, &now); /* that was not the API's word for it */
        if (r == 0 && (now.state == BOX_DESTROYING || now.state == BOX_GONE))
                return 0;
        return r < 0 ? r : call_fail(c, -EPROTO, "what the service says it removed is there");
}

/* ---- our program in it ---- */

/* As execd's user, which is root mostly. */
static int upload(struct remote_box *b, struct call *c, const char *user, const char *to,
                  struct http_source *from)
{
        (void)user;
        return osb_execd_upload(osb_box_of(b), c, to, from);
}

static int download(struct remote_box *b, struct call *c, const char *user, const char *from,
                    const struct http_range *range, struct http_sink *sink)
{
        (void)user;
        return osb_execd_download(osb_box_of(b), c, from, range, sink);
}

const struct remote_ops osb_remote = {
        .name = "opensandbox",
        .look = look,
        .put_off = put_off,
        .timeout_s = osb_timeout_s,
        .pause = pause_box,
        .resume = resume_box,
        .remove = remove_box,
        .open = osb_program_open,
        .run = osb_program_run,
        .upload = upload,
        .download = download,
        .free = box_free,
        .has_no_eof = true,
        .half_ns = ADOPTED_S * NS_PER_S / 2,
};

/* ---- create ---- */

static int ask_creation(struct osb_provider *p, struct call *c, const struct spec *spec,
                        bool *ret_was_sent, struct json **ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(BODY_MAX);
        const struct osb_ask ask = {
                .method = "POST", .path = "/sandboxes", .body = &body, .is_slow = true};
        int r = osb_create_body(&p->config, spec, &body);

        *ret_was_sent = false;
        if (r < 0)
                return call_fail_errno(c, r, "the settings");
        r = osb_api_ask(p, c, &ask, &reply, ret);
        *ret_was_sent = reply.was_sent;
        return r;
}

/* Made, or made by a request whose answer was lost; then its state isn't known. */
static int make(struct osb_provider *p, struct call *c, const struct spec *spec, char *ret_id,
                size_t size, enum box_state *ret)
{
        _cleanup_(json_freep) struct json *j = NULL;
        struct box_status status;
        bool was_sent;
        const char *id;
        int r = ask_creation(p, c, spec, &was_sent, &j);

        *ret = BOX_UNKNOWN;
        id = r == 0 ? json_string(json_get(j, "id")) : NULL;
        if (id && osb_is_id(id)) {
                (void)snprintf(ret_id, size, "%s", id);
                osb_describe(j, &status);
                *ret = status.state;
                return 0;
        }
        if (r == 0)
                r = call_fail(c, -EPROTO, "the service gave no id for the sandbox");
        if (was_sent && remote_may_be_made(r) &&
            remote_find_made(&p->remote.base, c, spec, ret_id, size) == 0)
                return 0;
        return r;
}

/* It may be said to run; is it so? Servers that answer early make it meanwhile. */
static int wait_made(struct osb_box *b, struct call *c, const struct spec *spec,
                     enum box_state state)
{
        int r = 0;

        remote_tell(&b->osb->remote, spec, "waiting for the sandbox's daemon");
        if (state != BOX_RUNNING)
                r = remote_wait_for(&b->remote, c, BOX_RUNNING);
        return r == 0 ? osb_execd_wait(b, c) : r;
}

int osb_box_create(struct provider *provider, struct call *c, const struct spec *spec,
                   struct box **ret)
{
        struct osb_provider *p = osb_of(provider);
        char id[sizeof((*ret)->id)];
        enum box_state state;
        struct osb_box *b;
        int r = osb_check(spec, c);

        if (r < 0)
                return r;
        remote_tell(&p->remote, spec, "creating the sandbox");
        r = make(p, c, spec, id, sizeof(id), &state);
        if (r < 0)
                return r;
        b = box_new(p, id, spec);
        if (!b)
                return call_fail(c, -ENOMEM, "out of memory"); /* found by its label */
        r = wait_made(b, c, spec, state);
        r = remote_furnish(&b->remote, r, c, spec, ret);
        if (r == 0)
                remote_touch(&b->remote); /* else its end could come before it was idle that long */
        return r;
}

/* ---- list ---- */

static int report(struct osb_provider *p, const struct json *each, struct box_sink *to)
{
        struct box_found found = {.id = json_string(json_get(each, "id")),
                                  .key = osb_label(each, LABEL_KEY),
                                  .name = osb_label(each, LABEL_NAME)};

        if (!found.id || !osb_is_id(found.id) ||
            strcmp(osb_label(each, LABEL_OWNER), p->remote.owner) != 0)
                return 0;
        osb_describe(each, &found.status);
        remote_follow_listed(&p->remote, found.id, found.status.state);
        return to->found(to, &found);
}

static int list_path(struct osb_provider *p, unsigned page, struct buf *to)
{
        char filter[80];
        int r = url_add(to, "/sandboxes");

        (void)snprintf(filter, sizeof(filter), LABEL_OWNER "=%s", p->remote.owner);
        if (r == 0)
                r = url_add_query(to, "metadata", filter);
        if (r == 0)
                r = url_add_query_number(to, "page", page);
        return r == 0 ? url_add_query_number(to, "pageSize", PAGE_SIZE_MAX) : r;
}

/* One page. */
static int list_page(struct osb_provider *p, struct call *c, unsigned page, struct box_sink *to,
                     bool *ret_has_more)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        struct osb_ask ask = {0};
        const struct json *items;
        int r = list_path(p, page, &path);

        if (r < 0)
                return call_fail_errno(c, r, "a request");
        ask.path = buf_str(&path);
        r = osb_api_ask(p, c, &ask, &reply, &j);
        if (r < 0)
                return r;
        items = json_get(j, "items");
        if (!items || json_type(items) != JSON_ARRAY)
                return call_fail(c, -EPROTO, "the service's list of sandboxes is none");
        for (const struct json *each = json_first(items); each && r == 0; each = json_next(each))
                r = report(p, each, to);
        *ret_has_more = false;
        (void)json_bool(json_get(json_get(j, "pagination"), "hasNextPage"), ret_has_more);
        *ret_has_more &= json_first(items) != NULL;
        return r;
}

int osb_box_list(struct provider *provider, struct call *c, struct box_sink *to)
{
        bool has_more = true;

        for (unsigned page = 1; page <= PAGES_MAX; page++) {
                int r = list_page(osb_of(provider), c, page, to, &has_more);

                if (r != 0 || !has_more)
                        return r < 0 ? r : 0;
        }
        return call_fail(c, -EPROTO, "the service's list of sandboxes has no end");
}
