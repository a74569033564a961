/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a sandbox's daemon; see execd.h. */

#include "providers/opensandbox/execd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "providers/opensandbox/api.h"
#include "providers/opensandbox/states.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/url.h"
#include "transport/http/secret.h"

#define PORT "44772"
#define HEADERS_MAX 10
#define TOKEN_HEADER "X-EXECD-ACCESS-TOKEN"
#define STEP_NS (50 * NS_PER_MS)
#define STEP_MAX_NS (500 * NS_PER_MS)
#define PING_NS (3 * NS_PER_S)
#define UPLOAD_SILENCE_NS (60 * NS_PER_S)
#define ANSWER_MAX ((size_t)64 << 10)
#define READY_NS (120 * NS_PER_S)
#define ASK_NS NS_PER_S /* between two questions where a silent one is */

static int explain(const struct http_reply *reply, int error, char *text, size_t size)
{
        if (!osb_sentence(buf_str(&reply->body), reply->body.size, text, size))
                (void)snprintf(text, size, "%.200s", buf_str(&reply->body));
        return osb_error(buf_str(&reply->body), reply->body.size, error);
}

/* ---- its address ---- */

/* What the server wants to be sent there; all of it secret. The count. */
static size_t read_headers(const struct json *given, struct http_header to[HEADERS_MAX])
{
        size_t count = 0;

        for (const struct json *at = json_first(given); at && count < HEADERS_MAX - 3;
             at = json_next(at)) {
                const char *name = json_key(at), *value = json_string(at);

                if (name && *name && value)
                        to[count++] = (struct http_header){
                                .name = name, .value = value, .is_secret = true};
        }
        return count;
}

static bool has_header(const struct http_header *headers, size_t count, const char *name)
{
        for (size_t i = 0; i < count; i++)
                if (strcasecmp(headers[i].name, name) == 0)
                        return true;
        return false;
}

/* The server's own address with a path below it: what goes there is the server's to read. */
static bool is_of_server(const struct osb_config *d, const char *url)
{
        size_t size = strlen(d->url) - strlen("/v1");

        return strncmp(url, d->url, size) == 0 && url[size] == '/';
}

static int connect_to(struct osb_box *b, struct call *c, const struct json *said, struct http **ret)
{
        const struct osb_config *d = &b->osb->config;
        const char *endpoint = json_string(json_get(said, "endpoint"));
        _cleanup_(freep) char *url = NULL;
        struct http_header headers[HEADERS_MAX];
        struct http_config hc = {.name = b->remote.base.provider->instance,
                                 .plain_host = d->plain_host,
                                 .ca_file = d->ca_file,
                                 .headers = headers,
                                 .probe_path = "/ping",
                                 .explain = explain};
        size_t count = read_headers(json_get(said, "headers"), headers);
        int r = endpoint ? osb_endpoint_url(d, endpoint, &url) : -EPROTO;

        if (r < 0)
                return call_fail(c, r, "the service doesn't say where the sandbox's daemon is");
        if (d->execd_token && !has_header(headers, count, TOKEN_HEADER))
                headers[count++] = (struct http_header){
                        .name = TOKEN_HEADER, .value = d->execd_token, .is_secret = true};
        if (d->has_proxy && d->key && is_of_server(d, url))
                headers[count++] = (struct http_header){
                        .name = "OPEN-SANDBOX-API-KEY", .value = d->key, .is_secret = true};
        hc.header_count = count;
        hc.url = url;
        return http_new(&hc, c, ret);
}

static struct http *known(struct osb_box *b)
{
        struct http *h;

        mutex_lock(&b->remote.lock);
        h = b->execd ? http_ref(b->execd) : NULL;
        mutex_unlock(&b->remote.lock);
        return h;
}

/* `h`, counted, where the service said `said`, is what it was (NULL: nothing). */
static void replace(struct osb_box *b, struct http *h, char *said)
{
        struct http *old;
        char *old_said;

        mutex_lock(&b->remote.lock);
        old = b->execd;
        old_said = b->execd_said;
        b->execd = h;
        b->execd_said = said;
        mutex_unlock(&b->remote.lock);
        wipe_free(old_said);
        http_unref(old);
}

void osb_execd_forget(struct osb_box *b)
{
        replace(b, NULL, NULL);
}

/* The same answer is the same daemon, with what is known of its silence. */
static int learn(struct osb_box *b, struct call *c, const struct json *j, const struct buf *answer,
                 struct http **ret)
{
        struct http *h = NULL;
        char *said;
        int r;

        if (answer->size > ANSWER_MAX)
                return call_fail(c, -EPROTO, "the address of the sandbox's daemon is too long");
        mutex_lock(&b->remote.lock);
        b->execd_asked_ns = clock_mono_ns();
        if (b->execd && strcmp(b->execd_said, buf_str(answer)) == 0)
                h = http_ref(b->execd);
        mutex_unlock(&b->remote.lock);
        if (h) {
                *ret = h;
                return 0;
        }
        r = connect_to(b, c, j, &h);
        if (r < 0)
                return r;
        said = strdup(buf_str(answer));
        if (!said) {
                http_unref(h);
                return call_fail_errno(c, -ENOMEM, "the address of the sandbox's daemon");
        }
        *ret = http_ref(h);
        replace(b, h, said);
        return 0;
}

static int ask_where(struct osb_box *b, struct call *c, struct http **ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        struct osb_ask ask = {0};
        int r = osb_api_ask_box(b, c,
                                b->osb->config.has_proxy
                                        ? "/endpoints/" PORT "?use_server_proxy=true"
                                        : "/endpoints/" PORT "?use_server_proxy=false",
                                &ask, &reply, &j);

        if (r == -ENODEV || reply.status == 404)
                r = osb_execd_why(b, c, r == -ENODEV ? -EHOSTUNREACH : r);
        return r == 0 ? learn(b, c, j, &reply.body, ret) : r;
}

int osb_execd(struct osb_box *b, struct call *c, struct http **ret)
{
        struct http *h = known(b);

        if (!h)
                return ask_where(b, c, ret);
        *ret = h;
        return 0;
}

/* Whether the daemon is elsewhere than at `h`, which gave no connection. Not asked all the time. */
static bool has_moved(struct osb_box *b, struct call *c, const struct http *h)
{
        struct http *now = NULL;
        struct call quiet;
        bool is_other, is_fresh;

        mutex_lock(&b->remote.lock);
        is_other = b->execd != h;
        is_fresh = clock_mono_ns() < b->execd_asked_ns + ASK_NS;
        mutex_unlock(&b->remote.lock);
        if (is_other || is_fresh)
                return is_other;
        call_init(&quiet, c->deadline_ns);
        if (ask_where(b, &quiet, &now) < 0)
                return false;
        is_other = now != h;
        http_unref(now);
        return is_other;
}

/* ---- requests ---- */

int osb_execd_why(struct osb_box *b, struct call *c, int r)
{
        struct box_status status;
        struct call quiet;
        int looked;

        if (r != -EHOSTUNREACH && r != -ETIMEDOUT && r != -EIO && r != -ENOENT)
                return r;
        call_init(&quiet, c->deadline_ns);
        looked = remote_look(&b->remote, &quiet, &status);
        if (looked == -ENODEV)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        if (looked < 0)
                return r;
        if (status.state == BOX_PAUSED || status.state == BOX_PAUSING)
                return call_fail(c, -EHOSTDOWN, "the sandbox is paused");
        if (status.state == BOX_STOPPED || status.state == BOX_ERROR)
                return call_fail(c, -EHOSTDOWN, "the sandbox has ended: %.200s", status.sentence);
        return r;
}

int osb_execd_do(struct osb_box *b, struct call *c, const struct http_request *q,
                 struct http_reply *reply)
{
        int r = -EHOSTUNREACH;

        for (unsigned i = 0; i < 2; i++) {
                struct http *h = NULL;
                bool is_last;

                r = osb_execd(b, c, &h);
                if (r < 0)
                        return r;
                r = http_do(h, c, q, reply);
                is_last = r != -EHOSTUNREACH || reply->was_sent || !has_moved(b, c, h);
                http_unref(h);
                if (is_last)
                        break;
        }
        return r < 0 ? osb_execd_why(b, c, r) : 0;
}

int osb_execd_upload(struct osb_box *b, struct call *c, const char *to, struct http_source *from)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf metadata = BUF_INIT(HTTP_PATH_MAX);
        int r = buf_add_str(&metadata, "{\"path\":");

        if (r == 0)
                r = json_add_string(&metadata, to);
        if (r == 0)
                r = buf_add_str(&metadata, "}");
        if (r < 0)
                return call_fail_errno(c, r, "a request");
        const struct http_part parts[] = {
                {.name = "metadata",
                 .file_name = "metadata",
                 .type = "application/json",
                 .data = metadata.data,
                 .size = metadata.size},
                {.name = "file",
                 .file_name = "file",
                 .type = "application/octet-stream",
                 .source = from},
        };
        const struct http_request q = {.method = "POST",
                                       .path = "/files/upload",
                                       .parts = parts,
                                       .part_count = 2,
                                       .silence_ns = UPLOAD_SILENCE_NS,
                                       .all_ns = NEVER_NS,
                                       .is_idempotent = true};

        return osb_execd_do(b, c, &q, &reply);
}

int osb_execd_download(struct osb_box *b, struct call *c, const char *from,
                       const struct http_range *range, struct http_sink *sink)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {.range = range, .sink = sink};
        int r = url_add(&path, "/files/download");

        if (r == 0)
                r = url_add_query(&path, "path", from);
        if (r < 0)
                return call_fail_errno(c, r, "a request");
        q.path = buf_str(&path);
        return osb_execd_do(b, c, &q, &reply);
}

/* ---- until it is there ---- */

static int ping(struct osb_box *b, struct call *c)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        const struct http_request q = {.path = "/ping", .all_ns = PING_NS};
        struct http *h = NULL;
        int r = osb_execd(b, c, &h);

        if (r < 0)
                return r;
        r = http_do(h, c, &q, &reply);
        http_unref(h);
        return r;
}

int osb_execd_wait(struct osb_box *b, struct call *c)
{
        uint64_t until_ns = clock_after(READY_NS), step_ns = STEP_NS;

        for (;;) {
                struct timespec t = clock_timespec(step_ns);
                int r = ping(b, c), known_r = r;

                if (r == 0)
                        c->sentence[0] = '\0';
                if (r == 0 || r == -EACCES || r == -EPERM || r == -EINVAL || r == -ENODEV)
                        return r;
                r = osb_execd_why(b, c, r);
                if (r == -EHOSTDOWN || r == -ENODEV)
                        return r;
                if (clock_mono_ns() >= until_ns)
                        return call_wrap(c, known_r, "the sandbox's daemon doesn't answer");
                osb_execd_forget(b); /* with it, the memory of its silence */
                (void)nanosleep(&t, NULL);
                step_ns = step_ns * 2 < STEP_MAX_NS ? step_ns * 2 : STEP_MAX_NS;
                r = call_check(c);
                if (r < 0)
                        return call_wrap(c, r, "the sandbox's daemon doesn't answer yet");
        }
}
