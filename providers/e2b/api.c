/* SPDX-License-Identifier: Apache-2.0 */
/* The control plane; see api.h. */

#include "providers/e2b/api.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "providers/e2b/body.h"
#include "providers/e2b/states.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/url.h"

#define BODY_MAX ((size_t)8 << 20)
/* The service takes up to 70 s for what is synchronous there. */
#define SLOW_SILENCE_NS (80 * NS_PER_S)

int e2b_api_new(const struct e2b_config *config, const char *name, struct call *c,
                struct http **ret)
{
        const struct http_header headers[] = {
                {.name = "X-API-Key", .value = config->key, .is_secret = true},
                {.name = "Accept", .value = "application/json"},
        };
        const struct http_config hc = {.name = name,
                                       .url = config->api_url,
                                       .plain_host = config->plain_host,
                                       .ca_file = config->ca_file,
                                       .headers = headers,
                                       .header_count = 2,
                                       .probe_path = "/health"};

        return http_new(&hc, c, ret);
}

/* ---- requests ---- */

int e2b_api_ask(struct e2b_provider *e, struct call *c, const struct api_ask *ask,
                struct http_reply *reply, struct json **ret)
{
        bool is_post = ask->method && strcmp(ask->method, "POST") == 0;
        const struct http_request q = {
                .method = ask->method,
                .path = ask->path,
                /* Older ones answer 400 to a POST without a body. */
                .data = ask->body ? ask->body->data
                        : is_post ? "{}"
                                  : NULL,
                .size = ask->body ? ask->body->size
                        : is_post ? 2
                                  : 0,
                .accepts = {ask->accepts},
                .is_idempotent = ask->is_idempotent,
                .silence_ns = ask->is_slow ? SLOW_SILENCE_NS : 0,
                .all_ns = ask->is_slow ? NEVER_NS : 0,
        };

        return ret ? http_do_json(e->api, c, &q, reply, ret) : http_do(e->api, c, &q, reply);
}

static int box_path(const struct e2b_box *b, const char *head, const char *rest, struct buf *to)
{
        int r = url_add(to, head);

        if (r == 0)
                r = url_add_segment(to, b->remote.base.id);
        return r == 0 ? url_add(to, rest) : r;
}

/* With `head` before its id. */
static int ask_at(struct e2b_box *b, struct call *c, const char *head, const char *rest,
                  struct api_ask *ask, struct http_reply *reply, struct json **ret)
{
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        int r = box_path(b, head, rest, &path);

        if (r < 0)
                return call_fail_errno(c, r, "a request");
        ask->path = buf_str(&path);
        r = e2b_api_ask(b->e2b, c, ask, reply, ret);
        ask->path = NULL;
        if (r < 0 && e2b_is_gone(reply->status, buf_str(&reply->body), reply->body.size))
                return call_fail(c, -ENODEV, "the sandbox is gone");
        return r;
}

int e2b_api_ask_box(struct e2b_box *b, struct call *c, const char *rest, struct api_ask *ask,
                    struct http_reply *reply, struct json **ret)
{
        return ask_at(b, c, "/sandboxes", rest, ask, reply, ret);
}

/* ---- variants ---- */

static int create_once(struct e2b_provider *e, struct call *c, const struct spec *spec,
                       unsigned variant, struct http_reply *reply, struct json **ret)
{
        _cleanup_(buf_wipe) struct buf body = BUF_INIT(BODY_MAX);
        const struct api_ask ask = {.method = "POST",
                                    .path = variant == 0 ? "/sandboxes" : "/v2/sandboxes",
                                    .body = &body,
                                    .is_slow = true};
        int r = e2b_create_body(spec, variant == 0, &body);

        return r < 0 ? call_fail_errno(c, r, "the settings") : e2b_api_ask(e, c, &ask, reply, ret);
}

int e2b_api_create(struct e2b_provider *e, struct call *c, const struct spec *spec,
                   bool *ret_was_sent, struct json **ret)
{
        unsigned first = atomic_load(&e->create_variant) % 2;
        int r = -EIO;

        *ret_was_sent = false;
        for (unsigned i = 0; i < 2; i++) {
                _cleanup_(http_reply_done) struct http_reply reply = {0};
                unsigned variant = (first + i) % 2;

                r = create_once(e, c, spec, variant, &reply, ret);
                if (r < 0 && e2b_is_other_variant(reply.status, c->sentence))
                        continue;
                if (reply.status != 0)
                        atomic_store(&e->create_variant, variant);
                *ret_was_sent = reply.was_sent;
                if (r == -EAGAIN && strcasestr(c->sentence, "maximum number"))
                        r = -EDQUOT; /* of sandboxes at once; time alone doesn't help */
                return r;
        }
        return call_wrap(c, -EPROTO, "none of the calls for a creation is there");
}

int e2b_api_resume(struct e2b_box *b, struct call *c, uint64_t timeout_s, struct json **ret)
{
        static const char *const calls[][2] = {
                {"/sandboxes", "/connect"},
                {"/v2/sandboxes", "/connect"},
                {"/sandboxes", "/resume"},
        };
        const unsigned count = sizeof(calls) / sizeof(calls[0]);
        _cleanup_(buf_done) struct buf body = BUF_INIT(64);
        struct api_ask ask = {
                .method = "POST", .body = &body, .is_slow = true, .is_idempotent = true};
        unsigned first = atomic_load(&b->e2b->resume_variant) % count;
        int r = buf_addf(&body, "{\"timeout\":%" PRIu64 "}", timeout_s);

        if (r < 0)
                return call_fail_errno(c, r, "a request");
        for (unsigned i = 0; i < count; i++) {
                _cleanup_(http_reply_done) struct http_reply reply = {0};
                unsigned variant = (first + i) % count;

                r = ask_at(b, c, calls[variant][0], calls[variant][1], &ask, &reply, ret);
                if (r < 0 && r != -ENODEV && e2b_is_other_variant(reply.status, c->sentence))
                        continue;
                if (reply.status != 0)
                        atomic_store(&b->e2b->resume_variant, variant);
                return r;
        }
        return call_wrap(c, -EPROTO, "none of the calls to resume is there");
}
