/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The opensandbox provider: sandboxes of an OpenSandbox deployment. Two services take part: the
 * lifecycle server (the account's key) and in each sandbox execd (a token of its own, at most; it
 * is untrusted and never sees the key). A sandbox is ours by its metadata, which are Kubernetes
 * labels, and hold what isn't one in escaped pieces:
 *
 *      sbxfs-key, sbxfs-name, sbxfs-owner      whose it is
 *      sbxfs-workdir[-N], sbxfs-user           where fs/ is and as whom commands run, where said
 *
 * execd's commands have no input, its output is lines of text that must be UTF-8, and its file
 * calls expand `$` in paths and have no POSIX meaning. So our program serves both (remote.h), and
 * execd's pipe over a WebSocket ("pty" calls, pipe mode) carries streams to it.
 *
 * Its parts: opensandbox.c (the table, the instance), config.c (what the operator said), api.c (the
 * lifecycle server), body.c (a spec as its JSON), states.c (what it says), labels.c (escaped
 * metadata), box.c (a sandbox), execd.c (where its daemon is, and requests to it), events.c (what a
 * command's stream says), run.c (short commands), program.c and relay.c
 * (a program there as a stream).
 *
 * Time:    a sandbox's end destroys it, also a paused one; without timeout= it has none.
 * Pause:   Docker freezes it, and requests to execd hang; Kubernetes keeps the files only.
 * Threads: any, everywhere.
 * Source:  github.com/opensandbox-group/OpenSandbox at 401a525a (July 2026), its specs/, and
 *          components/execd (pty_ws.go, pty_session.go) at 0d308dd7.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "providers/opensandbox/config.h"
#include "providers/remote/remote.h"

struct http;

extern const struct provider_ops opensandbox_ops;

struct osb_provider {
        struct remote remote;
        /* fixed after open */
        struct http *api;
        struct osb_config config;
};

static inline struct osb_provider *osb_of(struct provider *p)
{
        return container_of(remote_of(p), struct osb_provider, remote);
}

struct osb_box {
        struct remote_box remote;
        struct osb_provider *osb;
        /* guarded by the remote's lock */
        struct http *execd; /* counted; NULL: its address is to be asked for */
        char *execd_said; /* the service's answer that it is from; secret */
        uint64_t execd_asked_ns;

        atomic_int takes_command; /* whether its pipes take one; program.c's */
};

static inline struct osb_box *osb_box_of(struct remote_box *b)
{
        return container_of(b, struct osb_box, remote);
}
