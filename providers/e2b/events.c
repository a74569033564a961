/* SPDX-License-Identifier: Apache-2.0 */
/* A program's events; see events.h. */

#include "providers/e2b/events.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "providers/e2b/states.h"
#include "transport/base/json.h"
#include "transport/ssh/base64.h"

#define MESSAGE_MAX ((size_t)1 << 20) /* envd's are of 32 KiB */

static int on_data(struct e2b_events *e, const struct json *data)
{
        static const char *const names[] = {"stdout", "stderr"};

        for (size_t i = 0; i < 2; i++) {
                const char *text = json_string(json_get(data, names[i]));
                int r;

                if (!text)
                        continue;
                buf_clear(&e->bytes);
                r = base64_decode(&e->bytes, text, strlen(text));
                if (r < 0)
                        return r == -ENOMEM ? r : -EPROTO;
                if (e->bytes.size > 0)
                        e->to.data(e->to.ctx, i == 1, e->bytes.data, e->bytes.size);
        }
        return 0;
}

static int on_start(struct e2b_events *e, const struct json *start)
{
        int64_t pid;

        if (e->has_started || !json_integer(json_get(start, "pid"), &pid) || pid <= 0 ||
            pid > INT32_MAX)
                return -EPROTO;
        e->has_started = true;
        e->to.started(e->to.ctx, (uint32_t)pid);
        return 0;
}

static int on_event(struct e2b_events *e, const struct json *event)
{
        const struct json *start = json_get(event, "start"), *data = json_get(event, "data"),
                          *end = json_get(event, "end");

        if (start)
                return on_start(e, start);
        if (!e->has_started || e->has_end)
                return json_get(event, "keepalive") ? 0 : -EPROTO;
        if (data)
                return on_data(e, data);
        if (end) {
                e->has_end = e2b_end(end, &e->end.has_code, &e->end.code, &e->end.signal);
                return e->has_end ? 0 : -EPROTO;
        }
        return 0; /* a kind that is new */
}

static void on_last(struct e2b_events *e, const struct json *last)
{
        const struct json *error = json_get(last, "error");
        const char *code = json_string(json_get(error, "code")),
                   *message = json_string(json_get(error, "message"));

        e->is_over = true;
        if (!error)
                return;
        e->end.error = e2b_error(code, message);
        (void)snprintf(e->end.sentence, sizeof(e->end.sentence), "%.250s",
                       message ? message
                       : code  ? code
                               : "no reason given");
}

static int on_message(void *ctx, bool is_end, const char *data, size_t size)
{
        struct e2b_events *e = ctx;
        struct json *j = NULL;
        int r = json_parse(data, size, &j, NULL);

        if (r < 0)
                return r == -ENOMEM ? r : -EPROTO;
        if (is_end)
                on_last(e, j);
        else if (json_get(j, "event"))
                r = on_event(e, json_get(j, "event"));
        json_free(j);
        return r;
}

void e2b_events_init(struct e2b_events *e, const struct e2b_events_to *to)
{
        *e = (struct e2b_events){.to = *to, .bytes = BUF_INIT(MESSAGE_MAX)};
        e->envelopes = ENVELOPES_INIT(MESSAGE_MAX, on_message, e);
}

void e2b_events_done(struct e2b_events *e)
{
        envelopes_done(&e->envelopes);
        buf_done(&e->bytes);
}

int e2b_events_feed(struct e2b_events *e, const void *data, size_t size)
{
        return envelopes_feed(&e->envelopes, data, size);
}

void e2b_events_end(struct e2b_events *e, int error, const char *sentence, struct stream_end *ret)
{
        *ret = e->end;
        if (e->has_end) { /* whatever became of the stream afterwards */
                ret->error = 0;
                ret->sentence[0] = '\0';
                return;
        }
        ret->has_code = false;
        if (e->is_over && ret->error < 0)
                return;
        ret->error = error < 0 ? error : -EHOSTUNREACH;
        (void)snprintf(ret->sentence, sizeof(ret->sentence), "%.250s",
                       sentence && *sentence ? sentence : "the stream ended before the program");
}
