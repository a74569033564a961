/* SPDX-License-Identifier: Apache-2.0 */
/* What envd tells of a program: envelopes of JSON, one event each; bytes as base64. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/buf.h"
#include "transport/http/envelope.h"
#include "transport/stream.h"

/* Where it goes: all called from e2b_events_feed. */
struct e2b_events_to {
        void (*started)(void *ctx, uint32_t pid);
        void (*data)(void *ctx, bool is_stderr, const void *data, size_t size);
        void *ctx;
};

struct e2b_events {
        struct e2b_events_to to;
        struct envelopes envelopes;
        struct buf bytes; /* of one event */
        bool has_started;
        bool has_end; /* the program's */
        bool is_over; /* the stream's own end came */
        struct stream_end end;
};

void e2b_events_init(struct e2b_events *e, const struct e2b_events_to *to);
void e2b_events_done(struct e2b_events *e);
/* 0; -EPROTO, -ENOMEM. */
int e2b_events_feed(struct e2b_events *e, const void *data, size_t size);
/*
 * No more comes, since `error` (0: the body ended): how did the program end? As stream_end: error 0
 * with its code or signal, or why that isn't known.
 */
void e2b_events_end(struct e2b_events *e, int error, const char *sentence, struct stream_end *ret);
