/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections of one host: what stands behind host_link and host_open_program.
 *
 *      lane 0           control: a file channel, and the programs
 *      lanes 1 to 4     bulk: a file channel each
 *      spare lanes      programs only, where the server takes no more channels on a connection
 *
 * A dial has a thread of its own, so that it goes on when the caller that wanted it gives up; those
 * that come meanwhile wait for the same one. After a failure others fail at once with its sentence,
 * until a span of back-off is over that doubles with each failure. After two time-outs in a row the
 * breaker is open: every call fails at once, and one thread tries on until the host is back.
 */
#pragma once

#include <stdint.h>

#include "transport/base/call.h"
#include "transport/stream.h"

struct ssh_dialer;
struct ssh_host;

int pool_new(struct ssh_host *h, struct ssh_dialer **ret);
/* Ends dials; none starts from then on. Before the host's shell goes. Accepts NULL. */
void pool_stop(struct ssh_dialer *d);
/* Ends dials, then connections. Links that somebody holds live on, dead. Accepts NULL. */
void pool_free(struct ssh_dialer *d);
/* host_open_program, also where it isn't known whether there are programs. */
int pool_open_program(struct ssh_dialer *d, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret);
/* Close what was idle for a minute, and what has died. From time to time. */
void pool_tend(struct ssh_dialer *d);
