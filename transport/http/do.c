/* SPDX-License-Identifier: Apache-2.0 */
/* One request to its end, with its repeats. */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "transport/base/backoff.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/base/log.h"
#include "transport/http/limits.h"
#include "transport/http/private.h"
#include "transport/http/url.h"

#define WAIT_MIN_NS (200 * NS_PER_MS)
#define WAIT_MAX_NS (2 * NS_PER_S)
#define SLICE_NS (50 * NS_PER_MS)

/* ---- one try ---- */

/* True: it is over, *ret says how. */
static bool take_message(CURLM *multi, CURLcode *ret)
{
        int rest;
        CURLMsg *m;

        while ((m = curl_multi_info_read(multi, &rest))) {
                if (m->msg == CURLMSG_DONE) {
                        *ret = m->data.result;
                        return true;
                }
        }
        return false;
}

static int fail_limit(struct exchange *x, struct call *c, int error, bool is_silent)
{
        if (error == -EINTR)
                return http_fail(x, c, error, "cancelled");
        return http_fail(x, c, error, is_silent ? "no byte came in time" : "it took too long");
}

static void resume(struct exchange *x)
{
        if (!x->is_waiting)
                return;
        x->is_waiting = false;
        (void)curl_easy_pause(x->easy, CURLPAUSE_CONT); /* a failure is the transfer's, too */
}

/*
 * Until it is over, a limit is reached, or a taker has its headers. *ret_code: CURLE_AGAIN while it
 * isn't over. *ret_is_silent: the server said nothing for too long.
 */
static int drive(struct lane *l, struct exchange *x, struct limits *limits, struct call *c,
                 CURLcode *ret_code, bool *ret_is_silent)
{
        CURLMcode m;
        int running, r;

        *ret_code = CURLE_AGAIN;
        *ret_is_silent = false;
        for (;;) {
                resume(x);
                m = curl_multi_perform(l->multi, &running);
                if (m == CURLM_OK && take_message(l->multi, ret_code))
                        break;
                if (x->taker && x->has_headers)
                        return 0;
                r = limits_check(limits, c, exchange_moved(x), x->is_waiting, ret_is_silent);
                if (r < 0)
                        return fail_limit(x, c, r, *ret_is_silent);
                if (m == CURLM_OK)
                        m = curl_multi_poll(l->multi, NULL, 0,
                                            limits_poll_ms(limits, x->is_waiting), NULL);
                if (m != CURLM_OK)
                        return http_fail(x, c, -EIO, "%s", curl_multi_strerror(m));
        }
        if (x->taker && x->has_headers)
                return 0; /* its end is told with what came */
        r = exchange_result(x, *ret_code, c);
        *ret_is_silent = r < 0 && *ret_code == CURLE_OPERATION_TIMEDOUT;
        return r;
}

static void trace(const struct exchange *x, int r, uint64_t start_ns, const struct call *c)
{
        if (log_wants("http"))
                log_debug("http", "%s: %s %.*s: %u %s (%llu ms, call %llu)", x->http->name,
                          request_method(x->request), (int)url_query_at(x->request->path),
                          x->request->path, x->reply->status, r < 0 ? errno_name(r) : "",
                          (unsigned long long)((clock_mono_ns() - start_ns) / NS_PER_MS),
                          (unsigned long long)c->id);
}

static int try_once(struct exchange *x, struct lane *l, struct limits *limits, struct call *c,
                    CURLcode *ret_code)
{
        uint64_t start_ns = clock_mono_ns();
        bool is_silent;
        int r;

        limits_restart(limits);
        if (curl_multi_add_handle(l->multi, x->easy) != CURLM_OK)
                return http_fail(x, c, -ENOMEM, "out of memory");
        r = drive(l, x, limits, c, ret_code, &is_silent);
        exchange_note(x);
        if (r < 0 || !(x->is_tunnel || (x->taker && x->has_headers)))
                (void)curl_multi_remove_handle(l->multi, x->easy); /* it was added */
        if (r == 0 && !x->is_tunnel)
                breaker_answered(&x->http->breaker);
        else if (is_silent)
                breaker_silent(&x->http->breaker, c->sentence);
        trace(x, r, start_ns, c);
        return r;
}

/* ---- repeats ---- */

/* True: what it was sent with, or what came of it, can be had once more. */
static bool can_rewind(const struct exchange *x)
{
        const struct http_request *q = x->request;

        if (x->has_begun && q->sink && (!q->sink->rewind || q->sink->rewind(q->sink) < 0))
                return false;
        if (!x->has_read)
                return true;
        if (q->source)
                return !q->source->is_once;
        for (size_t i = 0; i < q->part_count; i++)
                if (q->parts[i].source)
                        return !q->parts[i].source->is_once;
        return true;
}

/* `r` is what became of a try. */
static bool may_repeat(const struct exchange *x, int r)
{
        unsigned status = x->reply->status;

        if (r == 0 && exchange_accepts(x))
                return false;
        if (r == 0 && status == 429)
                return true;
        if (r == 0)
                return request_is_idempotent(x->request) &&
                       (status == 502 || status == 503 || status == 504);
        if (r != -EHOSTUNREACH || x->error < 0)
                return false;
        return !x->reply->was_sent || request_is_idempotent(x->request);
}

/* What the server asks for, also as Retry-After-BUCKET; 0: nothing. */
static uint64_t retry_after_ns(const struct http_reply *reply)
{
        static const char name[] = "Retry-After";
        size_t cursor = 0;
        const char *line;

        while ((line = reply_next_header(reply, &cursor))) {
                const char *value = strchr(line, ':');
                long long seconds;
                char *end;

                if (!value || strncasecmp(line, name, sizeof(name) - 1) != 0)
                        continue;
                value += 1 + strspn(value + 1, " \t");
                seconds = strtoll(value, &end, 10);
                if (end == value || *end) {
                        time_t then = curl_getdate(value, NULL);

                        seconds = then < 0 ? 0 : (long long)then - (long long)time(NULL);
                }
                if (seconds > 0)
                        return seconds > 1000000 ? NEVER_NS : (uint64_t)seconds * NS_PER_S;
        }
        return 0;
}

/* False: the time isn't there, or the call was cancelled. */
static bool wait_before(const struct exchange *x, unsigned tries, const struct limits *limits,
                        const struct call *c)
{
        uint64_t span_ns = backoff_ns(tries, WAIT_MIN_NS, WAIT_MAX_NS);
        uint64_t asked_ns = x->reply->status ? retry_after_ns(x->reply) : 0;
        uint64_t at_ns;

        if (asked_ns > 0)
                span_ns = asked_ns == NEVER_NS ? NEVER_NS : asked_ns + span_ns / 4;
        if (x->is_lost)
                span_ns = 0; /* a kept connection was dead: nothing is wrong with the server */
        at_ns = clock_after(span_ns);
        if (at_ns >= limits->end_ns || (asked_ns > 0 && span_ns > 60 * NS_PER_S))
                return false;
        while (call_check(c) == 0 && clock_mono_ns() < at_ns) {
                uint64_t slice_ns = at_ns - clock_mono_ns();
                struct timespec t = clock_timespec(slice_ns < SLICE_NS ? slice_ns : SLICE_NS);

                (void)nanosleep(&t, NULL); /* a signal only shortens it */
        }
        return call_check(c) == 0;
}

static int refuse_down(struct exchange *x, struct call *c)
{
        char why[256];

        if (breaker_check(&x->http->breaker, why, sizeof(why)) == 0)
                return 0;
        return call_fail(c, -EHOSTUNREACH, "%s", why);
}

bool exchange_waits_to_repeat(struct exchange *x, int r, unsigned tries,
                              const struct limits *limits, const struct call *c)
{
        return tries < HTTP_TRIES && may_repeat(x, r) && can_rewind(x) &&
               wait_before(x, tries, limits, c);
}

/* One try on a lane. 0 or -errno, final; -EINPROGRESS: once more. */
static int do_once(struct exchange *x, struct lane *l, struct limits *limits, unsigned tries,
                   struct call *c, CURLcode *ret_code)
{
        int r = try_once(x, l, limits, c, ret_code);

        if (exchange_waits_to_repeat(x, r, tries, limits, c))
                return -EINPROGRESS;
        if (r == 0 && !exchange_accepts(x))
                return http_fail_status(x, c);
        if (r == 0 && x->reply->status >= 400)
                exchange_hide_answer(x); /* accepted, but for people all the same */
        return r;
}

/* What never came as far as a connection may be in any state: libcurl says no more. */
static void give_back(struct exchange *x, struct lane *l)
{
        bool had_connection = x->starts > 0;

        exchange_done(x); /* before its handle serves another */
        if (had_connection)
                lane_put(x->http, l);
        else
                lane_free(l);
}

int http_drive(struct exchange *x, struct call *c, struct lane **ret_lane, CURLcode *ret_code)
{
        struct limits limits;
        int r = -EINPROGRESS;

        limits_init(&limits, x->request, c);
        for (unsigned tries = 1; r == -EINPROGRESS; tries++) {
                struct lane *l = lane_get(x->http);

                if (!l)
                        return http_fail(x, c, -ENOMEM, "out of memory");
                r = exchange_init(x, x->http, x->request, x->reply, l, c);
                r = r < 0 ? r : refuse_down(x, c);
                r = r < 0 ? r : do_once(x, l, &limits, tries, c, ret_code);
                if (r == 0)
                        c->sentence[0] = '\0'; /* of an earlier try */
                if (r == 0 && x->taker && ret_lane) {
                        *ret_lane = l;
                        return 0;
                }
                give_back(x, l);
        }
        return r;
}

int http_connect(struct exchange *x, struct limits *limits, struct lane **ret, struct call *c)
{
        struct lane *l = lane_new();
        CURLcode code;
        int r;

        if (!l)
                return http_fail(x, c, -ENOMEM, "out of memory");
        r = exchange_init(x, x->http, x->request, x->reply, l, c);
        r = r < 0 ? r : refuse_down(x, c);
        r = r < 0 ? r : try_once(x, l, limits, c, &code);
        if (r < 0) {
                exchange_done(x);
                lane_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

int http_do(struct http *h, struct call *c, const struct http_request *request,
            struct http_reply *reply)
{
        struct exchange x = {.http = h, .request = request, .reply = reply};
        CURLcode code;

        return http_drive(&x, c, NULL, &code);
}

int http_probe(struct http *h, struct call *c, const struct http_request *q)
{
        struct http_reply reply = {0};
        struct limits limits;
        struct lane *l = lane_get(h);
        struct exchange x = {.http = h};
        CURLcode code;
        int r;

        if (!l)
                return call_fail_errno(c, -ENOMEM, "probe");
        limits_init(&limits, q, c);
        r = exchange_init(&x, h, q, &reply, l, c);
        r = r < 0 ? r : try_once(&x, l, &limits, c, &code);
        give_back(&x, l);
        http_reply_done(&reply);
        return r;
}

int http_do_json(struct http *h, struct call *c, const struct http_request *request,
                 struct http_reply *reply, struct json **ret)
{
        struct exchange x = {.http = h, .request = request, .reply = reply};
        int r = http_do(h, c, request, reply);
        struct json *j = NULL;

        if (r < 0)
                return r;
        if (reply->body.size > 0) {
                r = json_parse(reply->body.data, reply->body.size, &j, NULL);
                if (r == -ENOMEM)
                        return http_fail(&x, c, r, "out of memory");
                if (r < 0)
                        return http_fail(&x, c, -EPROTO, "the answer is no JSON");
        }
        *ret = j;
        return 0;
}
