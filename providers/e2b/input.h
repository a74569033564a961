/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes for a program's stdin: one SendInput after the other, a round trip each, or many parts by
 * one StreamInput, where the daemon has that.
 *
 * Threads: any; the parts of one program from one thread only.
 * Repeat:  never, but when nothing was sent.
 */
#pragma once

#include "providers/e2b/e2b.h"

struct buf;

/* One part, E2B_SEND_PART at most. -ENOENT, -EPIPE: the program reads no more. */
int e2b_input_send(struct e2b_box *b, struct call *c, const char *user, uint32_t pid,
                   const struct buf *part);

/* Where the parts of a stream come from. */
struct e2b_input {
        /* The next part into `to`, which is empty; it stays so: nothing just now. */
        int (*next)(struct e2b_input *from, struct buf *to);
};

/*
 * Parts until none comes for a moment. -EOPNOTSUPP: the daemon has no such call, no part was taken;
 * that is remembered for the sandbox.
 */
int e2b_input_stream(struct e2b_box *b, struct call *c, const char *user, uint32_t pid,
                     struct e2b_input *from);

#define E2B_INPUT_PART ((size_t)1 << 20) /* a stream's part at most */
#define E2B_SEND_PART ((size_t)64 << 10) /* of what is sent by itself */
