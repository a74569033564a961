/* SPDX-License-Identifier: Apache-2.0 */
/* What libssh2 says, as errno: the one table. */
#pragma once

#include <stdbool.h>

/* -errno for a LIBSSH2_ERROR_*; 0 for 0 and what is positive. What isn't known is -EPROTO. */
int ssh_errno(int code);

/* Whether the whole connection is over, and not only what was asked for. */
bool ssh_is_fatal(int code);
