/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two outputs in one stream, in the two ways that servers mix them. Pure, and nothing is held back
 * but a header or the beginning of a mark.
 *
 * Frames:  eight bytes (stream, three zeros, length, most significant byte first), then so many
 *          bytes: Docker's attach, exec and logs without a terminal. Stream 0 counts as 1, as
 *          Docker's own client has it; 3 is the engine's own complaint.
 * Marks:   01 01 01 before what belongs to stdout, 02 02 02 before what belongs to stderr; what
 *          comes before the first is dropped: Daytona's session logs. Data that has such bytes is
 *          misread: that can't be helped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mux_output { MUX_STDOUT = 1, MUX_STDERR = 2, MUX_ENGINE = 3 };

/* 0, or what ends the feeding. Borrowed; never empty. */
typedef int (*mux_fn)(void *ctx, enum mux_output which, const void *data, size_t size);

struct frames {
        mux_fn output;
        void *ctx;
        unsigned char header[8];
        unsigned have; /* bytes of the header */
        uint32_t left; /* bytes of the payload */
};

#define FRAMES_INIT(fn, context) ((struct frames){.output = (fn), .ctx = (context)})

/* 0; -EPROTO no such header; or what `output` returned. */
int frames_feed(struct frames *f, const void *data, size_t size);
/* Nothing more comes: 0, or -EPROTO within a frame. */
int frames_end(const struct frames *f);

struct marks {
        mux_fn output;
        void *ctx;
        unsigned which; /* 0: no mark came yet */
        unsigned char mark; /* of which `count` bytes came last */
        unsigned count; /* 0-2 */
};

#define MARKS_INIT(fn, context) ((struct marks){.output = (fn), .ctx = (context)})

/* 0, or what `output` returned. */
int marks_feed(struct marks *m, const void *data, size_t size);
/* Nothing more comes: the beginning of a mark was data. */
int marks_end(struct marks *m);
