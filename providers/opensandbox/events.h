/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What execd tells of a command: JSON objects, one a line, with or without "data:" before; text
 * without the ends of its lines. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/http/sse.h"

#define OSB_SAID_MAX 200

/* Where it goes as it comes; NULL: nowhere. Called from osb_events_feed. */
struct osb_events_to {
        void (*started)(void *ctx, const char *id);
        int (*line)(void *ctx, const char *text); /* of stdout; 0 or what ends the feeding */
        void *ctx;
};

struct osb_events {
        struct sse sse;
        struct osb_events_to to;
        struct buf *out; /* stdout's lines, each with a newline; NULL: nobody wants them */
        char said[OSB_SAID_MAX]; /* the start of stderr */
        size_t said_size;
        bool is_long; /* more came than `out` takes */
        bool has_end;
        int error; /* of the end: 0, or it never ran */
        int code; /* 0-255; 128 and the signal's number of one that was killed */
        char sentence[256]; /* with an error */
};

void osb_events_init(struct osb_events *e, struct buf *out);
void osb_events_done(struct osb_events *e);
/* 0; 1 once its end has come; -EPROTO, -ENOMEM. */
int osb_events_feed(struct osb_events *e, const void *data, size_t size);
/* No more comes. */
void osb_events_finish(struct osb_events *e);
