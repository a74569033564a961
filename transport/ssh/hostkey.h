/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a server is the one that it should be. Nothing is ever accepted that isn't in a
 * known_hosts file, or pinned by its fingerprint.
 *
 * Of known_hosts this reads what ssh does: lists of patterns, negation, hashed names, [host]:port.
 * A @revoked key is refused under whatever name the line has; @cert-authority lines are passed
 * over, because libssh2 knows no certificates.
 */
#pragma once

#include <libssh2.h>
#include <stdbool.h>
#include <stddef.h>

struct call;
struct ssh_target;

#define HOSTKEY_TYPE_SIZE 48
#define HOSTKEY_TRIES 4

struct hostkey_known {
        char type[HOSTKEY_TYPE_SIZE]; /* "ssh-ed25519" */
        char *key; /* base64 */
        bool is_exact; /* not only under the name without its port */
        bool is_revoked;
};

struct hostkey {
        const struct ssh_target *target; /* borrowed */
        struct hostkey_known *known; /* what the files have for this host */
        size_t count;
        /* Types that were tried: their keys are not the pinned one. */
        char excluded[HOSTKEY_TRIES][HOSTKEY_TYPE_SIZE];
        size_t excluded_count;
        char seen[HOSTKEY_TYPE_SIZE]; /* the type that the server presented */
        bool is_other; /* refused, but a key of another type may be the pinned one */
};

/* Read the files. -EINVAL a pin that is none; -errno a file that can't be read; -ENOMEM. */
int hostkey_init(struct hostkey *h, const struct ssh_target *target, struct call *c);
void hostkey_done(struct hostkey *h);

/* Before the handshake: prefer the types of key that are known. */
int hostkey_prefer(const struct hostkey *h, LIBSSH2_SESSION *session, struct call *c);
/* After it: -EPERM, with what to do, unless the key is the known one. */
int hostkey_check(struct hostkey *h, LIBSSH2_SESSION *session, struct call *c);
