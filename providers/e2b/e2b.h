/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The e2b provider: sandboxes of E2B, or of whoever speaks its API. Two services take part: the
 * control plane (REST, the account's key), and in each sandbox envd (Connect RPC, a token of that
 * sandbox). A sandbox is ours by its metadata:
 *
 *      sbxfs-key, sbxfs-name, sbxfs-owner      whose it is
 *      sbxfs-workdir, sbxfs-user               where fs/ is and as whom commands run, where said
 *
 * envd runs commands, but forgets what they print while nobody listens, knows two signals and no
 * process group, and its file calls have no POSIX meaning. So our program serves both (remote.h),
 * and envd only carries streams to it (program.c): to the holder for commands, to agents for files.
 *
 * Its parts: e2b.c (the table, the instance), config.c (what the operator said), api.c (the control
 * plane), body.c (a spec as its JSON), states.c (what it says of a sandbox), box.c (a sandbox),
 * learn.c (what is known of it), envd.c (requests to its daemon), events.c (what a program's stream
 * says), program.c (a program there as a stream), input.c (what it is sent).
 *
 * Time:    a sandbox's end pauses it.
 * Threads: any, everywhere. Each program's stream has a thread that sends.
 * Source:  github.com/e2b-dev/infra and E2B (August 2026), npm e2b 2.51.0.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "providers/e2b/config.h"
#include "providers/remote/remote.h"

struct http;

extern const struct provider_ops e2b_ops;

struct e2b_provider {
        struct remote remote;
        /* fixed after open */
        struct http *api;
        struct e2b_config config;
        /* which of the variants answered last */
        atomic_uint create_variant, resume_variant;
        atomic_bool has_old_list; /* no newer one */
};

static inline struct e2b_provider *e2b_of(struct provider *p)
{
        return container_of(remote_of(p), struct e2b_provider, remote);
}

struct e2b_box {
        struct remote_box remote;
        struct e2b_provider *e2b;
        /* guarded by the remote's lock */
        struct http *envd; /* whoever uses it has a reference: another may take its place */
        char *envd_url, *envd_token; /* by which it was made; secret */
        char version[32]; /* envd's */

        atomic_int stream_input; /* whether its daemon has that call; input.c's */
};

static inline struct e2b_box *e2b_box_of(struct remote_box *b)
{
        return container_of(b, struct e2b_box, remote);
}
