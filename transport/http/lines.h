/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes to lines: what one JSON value a line (newline-delimited JSON), event streams and the like
 * are cut with. Pure: fed pieces of any size, it calls `line` for each whole line, without its end
 * (LF, or CR LF).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/base/buf.h"

struct lines {
        /* 0, or what ends the feeding and is returned by it; `text` is borrowed, ends with NUL */
        int (*line)(void *ctx, const char *text, size_t size);
        void *ctx;
        bool ends_at_cr; /* a CR alone ends a line, too */
        bool skips_lf; /* the CR before was the last byte of a piece */
        struct buf pending;
};

#define LINES_INIT(max_size, fn, context)                                                          \
        ((struct lines){.line = (fn), .ctx = (context), .pending = BUF_INIT(max_size)})

/* 0; -EPROTO a line longer than the maximum; -ENOMEM; or what `line` returned. */
int lines_feed(struct lines *l, const void *data, size_t size);
/* Nothing more comes: the last line, if it has no end. */
int lines_end(struct lines *l);
void lines_done(struct lines *l);
