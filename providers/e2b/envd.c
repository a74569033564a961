/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a sandbox's daemon; see envd.h. */

#include "providers/e2b/envd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "providers/e2b/box.h"
#include "providers/e2b/states.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/url.h"
#include "transport/ssh/base64.h"

#define PORT "49983"
#define KEEPALIVE_S "50"
#define SILENCE_NS (120 * NS_PER_S) /* two of them, and more */
#define LATE_NS (15 * NS_PER_S) /* how long what should run may be missing */
#define STEP_NS (50 * NS_PER_MS)
#define STEP_MAX_NS NS_PER_S

/* A Connect error, or the proxy's: {"code":"not_found"|404,"message":"..."}. */
static int explain(const struct http_reply *reply, int error, char *text, size_t size)
{
        struct json *j = NULL;
        const char *code, *message;

        if (json_parse(buf_str(&reply->body), reply->body.size, &j, NULL) < 0) {
                (void)snprintf(text, size, "%.200s", buf_str(&reply->body));
                return error;
        }
        code = json_string(json_get(j, "code"));
        message = json_string(json_get(j, "message"));
        (void)snprintf(text, size, "%.500s", message ? message : code ? code : "no reason given");
        if (code)
                error = e2b_error(code, message);
        json_free(j);
        return error;
}

int e2b_envd_new(const struct e2b_provider *e, const char *id, const char *url, const char *token,
                 struct call *c, struct http **ret)
{
        const struct http_header headers[] = {
                {.name = "E2b-Sandbox-Id", .value = id},
                {.name = "E2b-Sandbox-Port", .value = PORT},
                {.name = "Accept", .value = "*/*"},
                {.name = "X-Access-Token", .value = token, .is_secret = true},
        };
        const struct http_config hc = {.name = e->remote.base.instance,
                                       .url = url,
                                       .plain_host = e->config.plain_host,
                                       .ca_file = e->config.ca_file,
                                       .headers = headers,
                                       .header_count = token ? 4 : 3,
                                       .probe_path = "/health",
                                       .explain = explain};

        return http_new(&hc, c, ret);
}

/* ---- asked again ---- */

/* A moment, longer each time; -EINTR, -ETIMEDOUT. */
static int rest(struct call *c, uint64_t *step_ns)
{
        struct timespec t = clock_timespec(*step_ns);

        (void)nanosleep(&t, NULL);
        *step_ns = *step_ns * 2 < STEP_MAX_NS ? *step_ns * 2 : STEP_MAX_NS;
        return call_check(c);
}

/* It said that it isn't there: 0 it should be. -EHOSTDOWN, -ENODEV. */
static int ask_why(struct e2b_box *b, struct call *c)
{
        struct box_status status;
        struct call quiet;
        int r;

        call_init(&quiet, c->deadline_ns);
        r = remote_look(&b->remote, &quiet, &status);
        if (r == -ENODEV)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        if (r == 0 && status.state == BOX_PAUSED)
                return call_fail(c, -EHOSTDOWN, "the sandbox is paused");
        return 0;
}

/* After a failure: 0, ask again. */
static int again(struct e2b_box *b, struct call *c, int r, const struct http_reply *reply,
                 uint64_t until_ns, uint64_t *step_ns)
{
        int why;

        if (!e2b_is_not_there_yet(reply->status, c->sentence) || clock_mono_ns() >= until_ns)
                return r == -EBUSY ? -EIO : r;
        why = ask_why(b, c);
        if (why == 0)
                why = rest(c, step_ns);
        return why;
}

/* Its headers with who asks; `ret` is for `text`'s lifetime. */
static int add_user(const char *user, struct http_request *q, struct http_header ret[8],
                    struct buf *text)
{
        char both[80];
        int r = 0;

        for (size_t i = 0; i < q->header_count; i++)
                ret[i] = q->headers[i];
        if (user) {
                (void)snprintf(both, sizeof(both), "%s:", user);
                r = buf_add_str(text, "Basic ");
                if (r == 0)
                        r = base64_encode(text, both, strlen(both));
                ret[q->header_count++] =
                        (struct http_header){.name = "Authorization", .value = buf_str(text)};
        }
        q->headers = ret;
        return r;
}

static void unrefp(struct http *const *h)
{
        http_unref(*h);
}

int e2b_envd_do(struct e2b_box *b, struct call *c, const char *user, struct http_request *q,
                struct http_reply *reply)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(256);
        uint64_t until_ns = clock_after(LATE_NS), step_ns = STEP_NS;
        struct http_header headers[8];
        _cleanup_(unrefp) struct http *h = NULL;
        int r = box_endpoint(b, c, &h);

        if (r == 0)
                r = add_user(user, q, headers, &text);
        if (r < 0)
                return r;
        do {
                r = http_do(h, c, q, reply);
                if (r < 0)
                        r = again(b, c, r, reply, until_ns, &step_ns);
                else
                        return r;
        } while (r == 0);
        return r;
}

int e2b_envd_open(struct e2b_box *b, struct call *c, const char *user, struct http_request *q,
                  const struct stream_events *events, struct stream **ret)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(256);
        const struct http_header more[] = {
                {.name = "Connect-Protocol-Version", .value = "1"},
                {.name = "Keepalive-Ping-Interval", .value = KEEPALIVE_S},
        };
        uint64_t until_ns = clock_after(LATE_NS), step_ns = STEP_NS;
        struct http_header headers[8];
        _cleanup_(unrefp) struct http *h = NULL;
        int r = box_endpoint(b, c, &h);

        q->method = "POST";
        q->type = "application/connect+json";
        q->headers = more;
        q->header_count = 2;
        q->size_max = UINT64_MAX;
        if (r == 0)
                r = add_user(user, q, headers, &text);
        if (r < 0)
                return r;
        do {
                _cleanup_(http_reply_done) struct http_reply reply = {0};

                r = http_open(h, c, q, SILENCE_NS, events, &reply, ret);
                if (r >= 0)
                        return 0;
                r = again(b, c, r, &reply, until_ns, &step_ns);
        } while (r == 0);
        return r;
}
