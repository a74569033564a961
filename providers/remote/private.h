/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. */
#pragma once

#include "providers/inside/inside.h"
#include "providers/remote/remote.h"

extern const struct inside_ops remote_inside; /* inside.c */

/* Where our things are in it, and our program. */
const char *remote_dir(const struct remote_box *b);
void remote_init_path(const struct remote_box *b, char ret[REMOTE_PATH_SIZE]);
/* Of what was made in vain; bounded, its failure is nobody's. */
void remote_discard(struct remote_box *b);

/* Of a set of signals, 1 to 64: a bit each. */
static inline uint64_t remote_signal_bit(int signal)
{
        return UINT64_C(1) << (signal - 1);
}

/*
 * The signal that a command died of, by a shell's code: that may be an exit's, too, so it is
 * believed of those that we sent. 0: of none.
 */
static inline int remote_killed_by(int code, uint64_t sent)
{
        return code > 128 && code <= 192 && (sent & remote_signal_bit(code - 128)) ? code - 128 : 0;
}
