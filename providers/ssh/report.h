/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a supervisor (script.c) prints on its channel: pure. Frames stand on lines of their own that
 * begin with the command's token, T:
 *
 *      T started PID
 *      T refused WHAT WHY              cwd ENOENT: it was not started
 *      T end CODE MESSAGE LATE SENT    as N.rc
 *      T out, bytes, T err, bytes, T done; or T none instead of them
 *
 * What stands before the first is a banner. Bytes of output can hold no frame but by a guess of 128
 * bits; whatever the host makes of its own words, we get a wrong answer and nothing worse.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"
#include "providers/shell/shell.h"
#include "providers/ssh/script.h"
#include "transport/base/buf.h"

#define REPORT_MAX (2 * SCRIPT_INLINE + 8192)

struct report {
        char token[SHELL_TOKEN_SIZE];
        struct buf in;
        size_t seen; /* of `in`: no whole frame begins before this */
        bool has_started;
        int64_t pid;
        int refused; /* -errno, 0 not */
        char what[16]; /* that was the reason */
        bool has_end;
        struct exec_end end;
        bool is_done; /* the last frame came */
        bool has_bytes; /* with the first bytes of each stream: */
        const char *data[2]; /* in `in` */
        size_t size[2]; /* SCRIPT_INLINE: there may be more */
};

void report_init(struct report *r); /* the token is the caller's to make */
void report_done(struct report *r);

/* More of the channel. True when there is news. */
bool report_feed(struct report *r, const void *data, size_t size);

/* A line of N.rc, without newline. -EPROTO; -errno of a refusal with `what`; 0 with the end. */
int report_parse_rc(const char *line, struct exec_end *ret, char what[16]);
