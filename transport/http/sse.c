/* SPDX-License-Identifier: Apache-2.0 */
/* Event streams. Source: the HTML standard, section "Server-sent events", as of 2026. */

#include "transport/http/sse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int emit(struct sse *s, const char *data, size_t size)
{
        struct sse_event event = {.name = s->name, .id = s->id, .data = data, .size = size};
        int r = s->event(s->ctx, &event);

        s->name[0] = '\0';
        s->has_data = false;
        buf_clear(&s->data);
        return r;
}

static int add_data(struct sse *s, const char *text, size_t size)
{
        int r = s->has_data ? buf_add_char(&s->data, '\n') : 0;

        s->has_data = true;
        r = r < 0 ? r : buf_add(&s->data, text, size);
        return r == -E2BIG ? -EPROTO : r;
}

static bool is_field(const char *text, size_t size, const char *name)
{
        return strlen(name) == size && memcmp(text, name, size) == 0;
}

static int take_field(struct sse *s, const char *text, size_t size)
{
        const char *colon = memchr(text, ':', size);
        size_t name = colon ? (size_t)(colon - text) : size;
        const char *value = colon ? colon + 1 : text + size;
        size_t rest = size - (size_t)(value - text);

        if (rest > 0 && *value == ' ') {
                value++;
                rest--;
        }
        if (is_field(text, name, "data"))
                return add_data(s, value, rest);
        if (is_field(text, name, "event"))
                (void)snprintf(s->name, sizeof(s->name), "%.*s", SSE_WORD_MAX - 1, value);
        else if (is_field(text, name, "id") && !memchr(value, '\0', rest))
                (void)snprintf(s->id, sizeof(s->id), "%.*s", SSE_WORD_MAX - 1, value);
        return 0; /* others mean nothing */
}

static int on_line(void *ctx, const char *text, size_t size)
{
        struct sse *s = ctx;

        if (!s->is_begun && size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
                text += 3; /* a byte order mark */
                size -= 3;
        }
        s->is_begun = true;
        if (size == 0 && s->has_data)
                return emit(s, buf_str(&s->data), s->data.size);
        if (size == 0)
                s->name[0] = '\0';
        if (size == 0 || text[0] == ':')
                return 0;
        return text[0] == '{' ? emit(s, text, size) : take_field(s, text, size);
}

void sse_init(struct sse *s, size_t max, int (*event)(void *ctx, const struct sse_event *event),
              void *ctx)
{
        *s = (struct sse){.event = event, .ctx = ctx, .data = BUF_INIT(max)};
        s->lines = LINES_INIT(max, on_line, s);
        s->lines.ends_at_cr = true;
}

int sse_feed(struct sse *s, const void *data, size_t size)
{
        return lines_feed(&s->lines, data, size);
}

int sse_end(struct sse *s)
{
        return buf_str(&s->lines.pending)[0] == '{' ? lines_end(&s->lines) : 0;
}

void sse_done(struct sse *s)
{
        lines_done(&s->lines);
        buf_done(&s->data);
}
