/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The marker of a sandbox's directory, and small files there. While the sandbox is being made or
 * removed its name is MARKER_HALF: then it is no sandbox, but whose it is can still be seen.
 */
#pragma once

#include <stdint.h>

#include "providers/provider.h"

struct buf;
struct ssh_link;

#define MARKER "sandbox"
#define MARKER_HALF "sandbox.half"
#define STATE_FILE "state"
#define ENV_FILE "env"
#define MARKER_MAX ((size_t)256 * 1024)

/* "" and NULL: not said. */
struct marker {
        char key[32];
        char name[NAME_SIZE];
        char owner[32];
        char *root; /* absolute; NULL: work/ */
        uint64_t created_real_ns;
        uint64_t timeout_ns; /* idle time that it was made with */
};

void marker_done(struct marker *m);
int marker_format(const struct spec *spec, const char *root, struct buf *to);
/* -EBADMSG it is none. */
int marker_parse(const char *text, size_t size, struct marker *ret);

/* `export K='V'` lines. -ENOMEM, -E2BIG. */
int marker_env(const struct spec *spec, struct buf *to);

/* ---- small files of the host ---- */

/* Whole or not at all: a temporary name beside, 0600, renamed over. */
int remote_write(struct ssh_link *l, struct call *c, const char *path, const void *data,
                 size_t size);
/* As of lstat. */
int remote_stat(struct ssh_link *l, struct call *c, const char *path, struct stat *ret);
/* mkdir; that it is there already is success when it is a directory and no link. */
int remote_mkdir(struct ssh_link *l, struct call *c, const char *path, mode_t mode);
