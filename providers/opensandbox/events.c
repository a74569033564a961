/* SPDX-License-Identifier: Apache-2.0 */
/* A command's events; see events.h. */

#include "providers/opensandbox/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/remote/words.h"
#include "transport/base/json.h"

#define EVENT_MAX ((size_t)1 << 20)
#define SIGNAL_UNKNOWN 9 /* execd says -1 of any that it doesn't name */

static int on_stdout(struct osb_events *e, const char *text)
{
        int r;

        if (e->to.line)
                return e->to.line(e->to.ctx, text);
        if (!e->out)
                return 0;
        r = strcmp(text, "\n") == 0 ? 0 : buf_add_str(e->out, text);
        if (r == 0)
                r = buf_add_char(e->out, '\n');
        e->is_long |= r == -E2BIG;
        return r == -E2BIG ? 0 : r;
}

static void on_stderr(struct osb_events *e, const char *text)
{
        size_t room = sizeof(e->said) - e->said_size;
        int n = snprintf(e->said + e->said_size, room, "%s%s", e->said_size ? "; " : "", text);

        if (n > 0)
                e->said_size += (size_t)n < room ? (size_t)n : room - 1;
}

/* It failed to start, or something broke. */
static int on_failure(struct osb_events *e, int error, const char *text)
{
        e->has_end = true;
        e->error = error;
        (void)snprintf(e->sentence, sizeof(e->sentence), "%.250s", text ? text : "no reason given");
        return 1;
}

static int on_error(struct osb_events *e, const struct json *error)
{
        const char *value = json_string(json_get(error, "evalue")),
                   *trace = json_string(json_first(json_get(error, "traceback")));
        char *end = NULL;
        long code = value && *value ? strtol(value, &end, 10) : 0;
        int number = words_signal(trace);

        if (!end || *end != '\0' || code < -1 || code > 255) {
                number = words_error(value);
                return on_failure(e, number < 0 ? number : -EIO, value ? value : trace);
        }
        e->has_end = true;
        e->code = code >= 0 ? (int)code : 128 + (number ? number : SIGNAL_UNKNOWN);
        return 1;
}

static int on_json(struct osb_events *e, const struct json *j)
{
        const char *type = json_string(json_get(j, "type")),
                   *text = json_string(json_get(j, "text"));

        if (!type) {
                text = json_string(json_get(j, "message"));
                return json_get(j, "code") ? on_failure(e, -EIO, text) : 0;
        }
        if (strcmp(type, "init") == 0 && text && e->to.started)
                e->to.started(e->to.ctx, text);
        if (strcmp(type, "stdout") == 0 && text)
                return on_stdout(e, text);
        if (strcmp(type, "stderr") == 0 && text)
                on_stderr(e, text);
        if (strcmp(type, "error") == 0)
                return on_error(e, json_get(j, "error"));
        if (strcmp(type, "execution_complete") == 0) {
                e->has_end = true;
                return 1;
        }
        return 0; /* ping, or a kind that is new */
}

static int on_event(void *ctx, const struct sse_event *event)
{
        struct osb_events *e = ctx;
        struct json *j = NULL;
        int r;

        if (e->has_end)
                return 1;
        r = json_parse(event->data, event->size, &j, NULL);
        if (r < 0)
                return r == -ENOMEM ? r : -EPROTO;
        r = on_json(e, j);
        json_free(j);
        return r;
}

void osb_events_init(struct osb_events *e, struct buf *out)
{
        *e = (struct osb_events){.out = out};
        sse_init(&e->sse, EVENT_MAX, on_event, e);
}

void osb_events_done(struct osb_events *e)
{
        sse_done(&e->sse);
}

int osb_events_feed(struct osb_events *e, const void *data, size_t size)
{
        return e->has_end ? 1 : sse_feed(&e->sse, data, size);
}

void osb_events_finish(struct osb_events *e)
{
        if (!e->has_end)
                (void)sse_end(&e->sse); /* a last line that is none changes nothing */
        if (!e->has_end)
                (void)on_failure(e, -EHOSTUNREACH, "the stream ended before the command");
}
