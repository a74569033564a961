/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A long answer as a stream. Who opens it drives the request until the answer's headers are there;
 * then the lane, in the middle of its transfer, goes to the loop's thread. What has come of the
 * body by then waits paused in libcurl.
 */

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/clock.h"
#include "transport/http/loop.h"
#include "transport/http/private.h"

struct tail {
        struct lasting w; /* first */
        /* fixed after init */
        struct http_request request; /* with copies of what libcurl still reads: */
        char *method, *path, *data;
        uint64_t idle_ns;
        /* the opener's, then the thread's */
        struct http_reply reply; /* until the opener has it; then its status */
        struct exchange x;
        struct lane *lane; /* NULL: given back */
        CURLcode code; /* CURLE_AGAIN: it goes on */
        bool is_paused;
        uint64_t heard_ns;
};

static struct tail *tail_of(struct lasting *w)
{
        return container_of(w, struct tail, w);
}

/* ---- on the thread ---- */

static size_t on_body(struct exchange *x, const char *data, size_t size)
{
        struct tail *t = container_of(x, struct tail, x);

        if (!x->is_taken) {
                t->is_paused = true;
                return CURL_WRITEFUNC_PAUSE;
        }
        t->heard_ns = clock_mono_ns();
        if (t->request.size_max > 0 && size > t->request.size_max - x->got) {
                x->error = -EFBIG;
                x->reason = "the answer is longer than was asked for";
                return 0;
        }
        x->got += size;
        t->w.events.data(t->w.events.ctx, false, data, size);
        return size;
}

static void want(struct lasting *w, int *fd, short *events, uint64_t *until_ns)
{
        struct tail *t = tail_of(w);
        long wait_ms = -1;

        *fd = lane_socket(t->lane);
        *events = POLLIN;
        if (t->x.sent < t->request.size)
                *events |= POLLOUT;
        if (curl_multi_timeout(t->lane->multi, &wait_ms) == CURLM_OK && wait_ms >= 0)
                *until_ns = clock_after((uint64_t)wait_ms * NS_PER_MS);
        if (t->idle_ns > 0 && t->heard_ns + t->idle_ns < *until_ns)
                *until_ns = t->heard_ns + t->idle_ns;
        if (t->code != CURLE_AGAIN || t->is_paused)
                *until_ns = 0;
}

static void tell_end(struct tail *t, int error, const char *sentence)
{
        struct stream_end end = {.error = error};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%.255s", sentence);
        t->w.events.end(t->w.events.ctx, &end);
}

static bool finish(struct tail *t)
{
        struct call c;
        int r;

        call_init(&c, NEVER_NS);
        r = exchange_result(&t->x, t->code, &c);
        (void)curl_multi_remove_handle(t->lane->multi, t->x.easy); /* it was added */
        exchange_done(&t->x);
        lane_put(t->w.http, t->lane);
        t->lane = NULL;
        tell_end(t, r, c.sentence);
        return false;
}

static bool step(struct lasting *w, short revents)
{
        struct tail *t = tail_of(w);
        CURLMsg *m;
        int rest;

        (void)revents;
        if (t->is_paused) {
                t->is_paused = false;
                t->heard_ns = clock_mono_ns();
                (void)curl_easy_pause(t->x.easy, CURLPAUSE_CONT); /* shows as the transfer's end */
        }
        if (t->code == CURLE_AGAIN && curl_multi_perform(t->lane->multi, &rest) != CURLM_OK)
                t->code = CURLE_OUT_OF_MEMORY;
        while (t->code == CURLE_AGAIN && (m = curl_multi_info_read(t->lane->multi, &rest)))
                if (m->msg == CURLMSG_DONE)
                        t->code = m->data.result;
        if (t->code != CURLE_AGAIN)
                return finish(t);
        if (t->idle_ns > 0 && clock_mono_ns() - t->heard_ns >= t->idle_ns) {
                t->x.error = -ETIMEDOUT;
                t->x.reason = "no byte came in time";
                t->code = CURLE_OPERATION_TIMEDOUT;
                return finish(t);
        }
        return true;
}

static void tail_free(struct lasting *w)
{
        struct tail *t = tail_of(w);

        if (t->lane) {
                (void)curl_multi_remove_handle(t->lane->multi, t->x.easy); /* or it never was in */
                exchange_done(&t->x);
                lane_free(t->lane);
        }
        http_reply_done(&t->reply);
        free(t->method);
        free(t->path);
        if (t->data)
                explicit_bzero(t->data, t->request.size);
        free(t->data);
        free(t);
}

static const struct lasting_ops tail_ops = {.want = want, .step = step, .free = tail_free};

/* ---- its user's side ---- */

static int do_send(struct stream *s, const void *data, size_t size)
{
        (void)s;
        (void)data;
        (void)size;
        return -EPIPE;
}

static int do_send_eof(struct stream *s)
{
        (void)s;
        return 0;
}

static size_t do_queued(struct stream *s)
{
        (void)s;
        return 0;
}

static void do_close(struct stream *s)
{
        loop_leave(container_of(s, struct lasting, stream));
}

static const struct stream_ops tail_stream = {do_send, do_send_eof, do_queued, do_close};

static struct tail *tail_new(struct http *h, const struct http_request *request, uint64_t idle_ns,
                             const struct stream_events *events)
{
        struct tail *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->w = (struct lasting){
                .stream.ops = &tail_stream, .ops = &tail_ops, .events = *events, .http = h};
        t->idle_ns = idle_ns == NEVER_NS ? 0 : idle_ns;
        t->request = *request;
        t->request.method = t->method = strdup(request_method(request));
        t->request.path = t->path = strdup(request->path);
        t->request.data = t->data = request->data ? malloc(request->size + 1) : NULL;
        if (t->data)
                memcpy(t->data, request->data, request->size);
        t->x = (struct exchange){
                .http = h, .request = &t->request, .reply = &t->reply, .taker = on_body};
        if (!t->method || !t->path || (request->data && !t->data)) {
                tail_free(&t->w);
                return NULL;
        }
        return t;
}

int http_open(struct http *h, struct call *c, const struct http_request *request, uint64_t idle_ns,
              const struct stream_events *events, struct http_reply *reply, struct stream **ret)
{
        struct tail *t;
        int r;

        assert(!request->source && !request->sink && !request->range && request->part_count == 0);
        http_reply_done(reply);
        t = tail_new(h, request, idle_ns, events);
        if (!t)
                return call_fail_errno(c, -ENOMEM, "%s", h->name);
        r = http_drive(&t->x, c, &t->lane, &t->code);
        t->heard_ns = clock_mono_ns();
        *reply = t->reply;
        t->reply = (struct http_reply){.status = reply->status};
        if (r == 0) {
                /* borrowed from the caller, and read by now */
                t->request.headers = NULL;
                t->request.type = NULL;
                t->x.is_taken = true;
                r = loop_add(&t->w);
                if (r < 0)
                        r = call_fail_errno(c, r, "%s", h->name);
        }
        if (r < 0) {
                tail_free(&t->w);
                return r;
        }
        *ret = &t->w.stream;
        return 0;
}
