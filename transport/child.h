/* SPDX-License-Identifier: Apache-2.0 */
/* A child process as a stream: `ssh -s HOST sftp`, or sftp-server itself in tests. */
#pragma once

#include "transport/stream.h"

/**
 * Start a program with its three descriptors on us. Closing the stream ends the process group:
 * TERM, then KILL after 1 s.
 *
 * Shape:  path is absolute, argv and envp end with NULL.
 * Owner:  *ret to stream_close.
 * Errors: -errno of what failed, exec included.
 */
int child_open(const char *path, const char *const *argv, const char *const *envp,
               const struct stream_events *events, struct call *c, struct stream **ret);
