/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames in which a script's output comes, T being its 128 random bits: stdout between "T\n" and
 * "\nT CODE\n", stderr up to "\nT\n". What comes before is a banner.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "providers/shell/shell.h"
#include "transport/base/buf.h"

enum phase { BEFORE, WITHIN, CODE, AFTER };

/* What a busy helper does. */
struct run {
        char token[SHELL_TOKEN_SIZE];
        struct shell_sink *to;
        enum phase phase;
        struct buf hold; /* of stdout: what may be the beginning of a frame */
        struct buf err;
        bool has_err_end;
        bool has_moved; /* output came since it was last looked at */
        int code;
        int error; /* the sink's, or ours */
};

int run_init(struct run *run, struct shell_sink *to); /* 0 or -errno: no random bits */
void run_done(struct run *run);
/* The next bytes of either stream; then run->error may be set. */
void run_take_out(struct run *run, const char *data, size_t size);
void run_take_err(struct run *run, const char *data, size_t size);

/* All of both came. */
static inline bool run_is_complete(const struct run *run)
{
        return run->phase == AFTER && run->has_err_end;
}
