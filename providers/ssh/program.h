/* SPDX-License-Identifier: Apache-2.0 */
/* Scripts in a channel of their own: frames around what they print; the probe of a host. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "transport/base/call.h"
#include "transport/stream.h"

struct buf;

/* How a program is started: by host_open_program, or on a connection that isn't anybody's yet. */
struct program_opener {
        int (*open)(struct program_opener *o, struct call *c, const char *command,
                    const struct stream_events *events, struct stream **ret);
};

/* As host_script; -EPROTO: it ended without our frames; -EAGAIN: something there killed it. */
int program_script(struct program_opener *o, struct call *c, const char *script, size_t size,
                   struct buf *out);

/*
 * What there is, enum host_can; 0: no programs at all, the host has shown that. -EAGAIN: no answer
 * within `span_ns`, which shows nothing: it may be slow. -errno of the connection.
 */
int program_probe(struct program_opener *o, struct call *c, uint64_t span_ns);
