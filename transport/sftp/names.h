/* SPDX-License-Identifier: Apache-2.0 */
/* The names of one READDIR's answer, kept for whoever asked. */
#pragma once

#include "transport/sftp/wire.h"

/* A copy of NAME's entries, which wire_read_answer has looked at; NULL: out of memory. */
struct sftp_names *sftp_names_new(struct wire_bytes entries);
