/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenSSH client as a stream: transport=openssh. */
#pragma once

#include "providers/ssh/config.h"
#include "transport/base/call.h"
#include "transport/stream.h"

/**
 * Start a client. `command` NULL: the SFTP subsystem.
 *
 * Shape:  its code 255 is told as the connection's end, as another transport would: -EHOSTUNREACH,
 *         or what its sentence says. Commands of ours never end with that code.
 * Owner:  *ret to stream_close.
 */
int openssh_open(const struct ssh_config *config, enum openssh_use use, const char *socket,
                 const char *command, struct call *c, const struct stream_events *events,
                 struct stream **ret);
