/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The argument list that makes bubblewrap build a sandbox. It reaches bwrap by --args, never by its
 * command line.
 */
#pragma once

struct buf;
struct plan;

/* Descriptors as bwrap sees them. */
struct bwrap_fds {
        int info; /* where it writes the holder's pid */
        int passwd, group, hosts, hostname, nsswitch; /* files of the sandbox's /etc */
};

/*
 * NUL-separated options up to, but without, the command. `workspace` is the host's path.
 * 0, -ENOMEM or -E2BIG.
 */
int bwrap_args(struct buf *to, const struct plan *p, const char *workspace,
               const struct bwrap_fds *fds);

/* Texts of those files. */
#define BWRAP_PASSWD                                                                               \
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"                                                \
        "sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/sh\n"                                      \
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
#define BWRAP_GROUP "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n"
#define BWRAP_NSSWITCH "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
int bwrap_hosts(struct buf *to, const struct plan *p);
