/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event streams (text/event-stream), in both dialects that servers speak:
 *
 *      event: stdout           {"type":"stdout","text":"hi"}
 *      data: hi
 *                              {"type":"execution_complete"}
 *
 * Left, the standard's: fields, and an empty line that ends the event. Right: one JSON object a
 * line that is an event by itself; "data:" may stand before it. No field's name begins with '{', so
 * both are read at once. Pure.
 */
#pragma once

#include <stddef.h>

#include "transport/base/buf.h"
#include "transport/http/lines.h"

#define SSE_WORD_MAX 128 /* of an event's name or id with its NUL; what is longer is cut */

struct sse_event {
        const char *name; /* "" none was given */
        const char *id; /* the last one that was given; "" none */
        const char *data; /* several data lines are joined by newlines; ends with NUL */
        size_t size;
};

struct sse {
        /* 0, or what ends the feeding; borrowed. An event without data isn't one. */
        int (*event)(void *ctx, const struct sse_event *event);
        void *ctx;
        struct lines lines;
        struct buf data;
        bool has_data, is_begun;
        char name[SSE_WORD_MAX], id[SSE_WORD_MAX];
};

/* `max` bounds a line, and the data of one event. The struct must not be moved afterwards. */
void sse_init(struct sse *s, size_t max, int (*event)(void *ctx, const struct sse_event *event),
              void *ctx);
/* 0; -EPROTO beyond the maximum; -ENOMEM; or what `event` returned. */
int sse_feed(struct sse *s, const void *data, size_t size);
/* Nothing more comes: a last line that is an event by itself; others that aren't whole are none. */
int sse_end(struct sse *s);
void sse_done(struct sse *s);
