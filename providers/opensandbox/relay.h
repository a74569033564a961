/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in a sandbox as a stream, where execd has no pipes to one: its command call carries
 * what it prints, as text; each piece that it is sent is a file that is uploaded (docker/relay.h).
 * A tenth of a second and more each way, so program.c's is used where there is one.
 *
 * Threads: any. Each stream has a thread that sends.
 */
#pragma once

#include "providers/opensandbox/opensandbox.h"

/* `line`: the program's command line. Our own is there. *ret to stream_close. */
int osb_relay_open(struct osb_box *b, struct call *c, const char *line,
                   const struct stream_events *events, struct stream **ret);
