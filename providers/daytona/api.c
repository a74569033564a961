/* SPDX-License-Identifier: Apache-2.0 */
/* The API; see api.h. */

#include "providers/daytona/api.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/daytona/states.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/url.h"

/* create and start answer when it runs, after 30 s at the latest */
#define SLOW_SILENCE_NS (60 * NS_PER_S)

int daytona_explain(const struct http_reply *reply, int error, char *text, size_t size)
{
        daytona_sentence(buf_str(&reply->body), reply->body.size, text, size);
        if (!text[0])
                (void)snprintf(text, size, "%.200s", buf_str(&reply->body));
        return daytona_error(reply->status, error, text);
}

int daytona_api_new(const struct daytona_config *config, const char *name, struct call *c,
                    struct http **ret)
{
        const struct http_header headers[] = {
                {.name = "Authorization", .value = config->bearer, .is_secret = true},
                {.name = "Accept", .value = "application/json"},
                {.name = "X-Daytona-Source", .value = "sbxfs"},
                {.name = "X-Daytona-Organization-ID", .value = config->organization},
        };
        const struct http_config hc = {.name = name,
                                       .url = config->api_url,
                                       .plain_host = config->plain_host,
                                       .ca_file = config->ca_file,
                                       .headers = headers,
                                       .header_count = config->organization ? 4 : 3,
                                       .probe_path = "/config",
                                       .explain = daytona_explain};

        return http_new(&hc, c, ret);
}

int daytona_ask(struct daytona_provider *d, struct call *c, const struct api_ask *ask,
                struct http_reply *reply, struct json **ret)
{
        const struct http_request q = {
                .method = ask->method,
                .path = ask->path,
                .data = ask->body ? ask->body->data : NULL,
                .size = ask->body ? ask->body->size : 0,
                .accepts = {ask->accepts[0], ask->accepts[0] ? ask->accepts[1] : 0},
                .is_idempotent = ask->is_idempotent,
                .silence_ns = ask->is_slow ? SLOW_SILENCE_NS : 0,
                .all_ns = ask->is_slow ? NEVER_NS : 0,
        };

        return http_do_json(d->api, c, &q, reply, ret);
}

int daytona_ask_box(struct daytona_box *b, struct call *c, const char *rest, struct api_ask *ask,
                    struct http_reply *reply, struct json **ret)
{
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        int r = url_add(&path, "/sandbox");

        if (r == 0)
                r = url_add_segment(&path, b->remote.base.id);
        if (r == 0)
                r = url_add(&path, rest);
        if (r < 0)
                return call_fail_errno(c, r, "a request");
        ask->path = buf_str(&path);
        r = daytona_ask(daytona_of_box(b), c, ask, reply, ret);
        ask->path = NULL;
        if (r < 0 && daytona_is_gone(reply->status, buf_str(&reply->body), reply->body.size))
                return call_fail(c, -ENODEV, "the sandbox is gone");
        return r;
}
