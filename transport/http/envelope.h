/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of the Connect protocol's streams: one byte of flags, four of length, the payload; the
 * last one says how the stream ended. Pure.
 *
 * Source: connectrpc.com, "Protocol reference", section on streaming.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/base/buf.h"

#define ENVELOPE_HEADER 5

struct envelopes {
        /* A whole message, or with is_end the last one: 0, or what ends the feeding. Borrowed. */
        int (*message)(void *ctx, bool is_end, const char *data, size_t size);
        void *ctx;
        bool has_end;
        struct buf pending;
};

/* `max` bounds one message. */
#define ENVELOPES_INIT(max_size, fn, context)                                                      \
        ((struct envelopes){.message = (fn),                                                       \
                            .ctx = (context),                                                      \
                            .pending = BUF_INIT((max_size) + ENVELOPE_HEADER)})

/*
 * 0; -EPROTO a message that is too long, compressed (we never ask for that) or of an unknown kind,
 * or something behind the end; -ENOMEM; or what `message` returned.
 */
int envelopes_feed(struct envelopes *e, const void *data, size_t size);
/* Nothing more comes: 0, or -EPROTO when the end was never said. */
int envelopes_end(const struct envelopes *e);
void envelopes_done(struct envelopes *e);

/* Append one message. 0, -ENOMEM or -E2BIG. */
int envelope_add(struct buf *to, const void *data, size_t size);
