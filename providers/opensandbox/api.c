/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the lifecycle server; see api.h. */

#include "providers/opensandbox/api.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/opensandbox/states.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/url.h"

static int explain(const struct http_reply *reply, int error, char *text, size_t size)
{
        if (!osb_sentence(buf_str(&reply->body), reply->body.size, text, size))
                (void)snprintf(text, size, "%.200s", buf_str(&reply->body));
        return error;
}

int osb_api_new(const struct osb_config *config, const char *name, struct call *c,
                struct http **ret)
{
        const struct http_header headers[] = {
                {.name = "Accept", .value = "application/json"},
                {.name = "OPEN-SANDBOX-API-KEY", .value = config->key, .is_secret = true},
        };
        const struct http_config hc = {.name = name,
                                       .url = config->url,
                                       .plain_host = config->plain_host,
                                       .ca_file = config->ca_file,
                                       .headers = headers,
                                       .header_count = config->key ? 2 : 1,
                                       .probe_path = "/health",
                                       .explain = explain};

        return http_new(&hc, c, ret);
}

int osb_api_ask(struct osb_provider *p, struct call *c, const struct osb_ask *ask,
                struct http_reply *reply, struct json **ret)
{
        const struct http_request q = {
                .method = ask->method,
                .path = ask->path,
                .data = ask->body ? ask->body->data : NULL,
                .size = ask->body ? ask->body->size : 0,
                .is_idempotent = ask->is_idempotent,
                .silence_ns = ask->is_slow ? NEVER_NS : 0, /* creation is silent until it is done */
                .all_ns = ask->is_slow ? NEVER_NS : 0,
        };

        return ret ? http_do_json(p->api, c, &q, reply, ret) : http_do(p->api, c, &q, reply);
}

int osb_api_ask_box(struct osb_box *b, struct call *c, const char *rest, struct osb_ask *ask,
                    struct http_reply *reply, struct json **ret)
{
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        int r = url_add(&path, "/sandboxes");

        if (r == 0)
                r = url_add_segment(&path, b->remote.base.id);
        if (r == 0)
                r = url_add(&path, rest);
        if (r < 0)
                return call_fail_errno(c, r, "a request");
        ask->path = buf_str(&path);
        r = osb_api_ask(b->osb, c, ask, reply, ret);
        ask->path = NULL;
        if (r < 0 && osb_is_gone(reply->status, buf_str(&reply->body), reply->body.size))
                return call_fail(c, -ENODEV, "the sandbox is gone");
        return r;
}
