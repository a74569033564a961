/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to a host, by libssh2 or by children of the OpenSSH client. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/base/call.h"
#include "transport/stream.h"

struct sftp;
struct ssh;
struct ssh_host;

enum dial_kind {
        DIAL_CONTROL, /* a file channel, and programs */
        DIAL_FILES, /* a file channel */
        DIAL_PROGRAMS, /* programs only */
};

/* Zero: none. */
struct dialled {
        struct ssh_host *host;
        struct ssh *ssh; /* NULL: by children */
        struct sftp *sftp; /* NULL: programs only */
        char *socket; /* by children: where the first lends its connection; NULL: it doesn't */
        bool is_ordered;
};

/**
 * Connect, log in, open the file channel. `ret` may be half done on failure.
 *
 * Owner:  dialled_done(ret), also on failure.
 * Errors: those of ssh_plan_make, ssh_connect and sftp_start; -EOPNOTSUPP the host has no SFTP.
 */
int dial(struct ssh_host *h, enum dial_kind kind, struct call *c, struct dialled *ret);
void dialled_done(struct dialled *d);

/* 0 while it lives. Never blocks. */
int dialled_error(const struct dialled *d, char *sentence, size_t size);

/* A program on it; -EMFILE: no more channels. */
int dialled_open(const struct dialled *d, struct call *c, const char *command,
                 const struct stream_events *events, struct stream **ret);
