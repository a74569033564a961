/* SPDX-License-Identifier: Apache-2.0 */
/* A private key's file, as far as one needs to look into it before libssh2 does. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/base/buf.h"

struct keyfile {
        struct buf text; /* secret */
        bool is_encrypted;
        bool is_rsa;
};

/* -EINVAL it is no private key; -errno. Done with keyfile_done in all cases. */
int keyfile_read(const char *path, struct keyfile *ret);
void keyfile_done(struct keyfile *k); /* wipes */

/* The same of a text in memory. */
int keyfile_look(struct keyfile *k);

/* Whether a public key's blob is RSA. */
bool keyfile_is_rsa_blob(const unsigned char *blob, size_t size);
