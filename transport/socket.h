/* SPDX-License-Identifier: Apache-2.0 */
/* A connected socket as a stream, with a thread of its own: for much, and at once. */
#pragma once

#include "transport/stream.h"

/**
 * Owner:  takes ownership of `fd` on success; *ret to stream_close, never from an event.
 * Errors: -ENOMEM, -EAGAIN no thread, -EMFILE.
 */
int socket_stream_new(int fd, const struct stream_events *events, struct stream **ret);
