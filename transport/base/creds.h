/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made in the files of a sandbox of this machine belongs, inside, to the user that commands
 * run as. Mounted by that user it does anyway. Mounted by root, the one system call that makes
 * something runs under the sandbox's file-system uid and gid: nothing is root's, not even for a
 * moment.
 *
 * The kernel takes root's powers over files away while the file-system uid is another, and gives
 * them back with 0. Keeping them by SECBIT_NO_SETUID_FIXUP was rejected: the bit would pass on to
 * children of this thread, whose setuid() would then keep capabilities. Where the sandbox's user
 * may not (a directory that it made read-only), the caller repeats the call as root and hands over
 * what it made with creds_give or creds_give_at.
 *
 * Threads: the ids are those of the calling thread, and are root's again after creds_leave.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct creds {
        enum creds_how {
                CREDS_OWN, /* we are that user: nothing to do */
                CREDS_FSUID,
                CREDS_CHOWN, /* may not change ids: everything is made as root and handed over */
        } how;
        uid_t uid;
        gid_t gid;
        gid_t own_gid; /* of root's threads, to go back to */
};

void creds_init(struct creds *c, uid_t uid, gid_t gid);

/* Around the call that makes something; errno is kept by creds_leave. */
void creds_enter(const struct creds *c);
void creds_leave(const struct creds *c);

/* Whether a refusal with this errno is worth a second try as root. */
bool creds_may_retry(const struct creds *c, int error);

/* Hand over what root made; -errno. */
int creds_give(const struct creds *c, int fd);
int creds_give_at(const struct creds *c, int dir, const char *name);
