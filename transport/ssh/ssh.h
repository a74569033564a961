/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One SSH connection, by libssh2: host key verified, user authenticated, channels as streams. A
 * session has one thread of its own that alone touches libssh2; others hand it work.
 *
 * What a malicious server can do: every size that it sends is bounded, banners and sentences are
 * foreign text, and nothing it says makes us offer a key or password to an unverified host.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/call.h"
#include "transport/stream.h"

/* Whom to connect to, and how. All borrowed for the call. Lists end with NULL. */
struct ssh_target {
        const char *host; /* to connect to: a name or an address */
        unsigned port; /* 0: 22 */
        const char *host_key_alias; /* what known_hosts calls it; NULL: host (and [host]:port) */
        const char *user;
        /*
         * NULL, or a program whose pipe carries the connection (ProxyCommand, ProxyJump by
         * `ssh -W`): argv, the first absolute.
         */
        const char *const *proxy;
        const char *const *proxy_env; /* its environment; NULL: empty */
        const char *const *identities; /* key files, in order; NULL: the usual ones of ~/.ssh */
        bool uses_agent; /* SSH_AUTH_SOCK */
        const char *agent_socket; /* NULL: from the environment */
        const char *password; /* NULL: none; secret: never logged, never kept longer than needed */
        const char *const *known_hosts; /* files; those that are missing are passed over */
        const char *hostkey; /* "SHA256:..." pins it and known_hosts isn't asked; NULL */
};

struct ssh; /* counted */

/**
 * Connect, verify, authenticate.
 *
 * Errors: -EHOSTUNREACH name, route, refused; -ETIMEDOUT; -EPERM the host key is not the known one,
 *         or not known (the sentence has its fingerprint and what to do); -EACCES nothing that was
 *         offered was accepted (says what was tried, what the server takes, and that RSA keys need
 *         libssh2 1.11 where that is why); -EPROTO; -EINTR.
 */
int ssh_connect(const struct ssh_target *target, struct call *c, struct ssh **ret);
struct ssh *ssh_ref(struct ssh *s);
/* The last reference closes it: open streams get their end first. Never from an event. */
void ssh_unref(struct ssh *s);

/* 0 while it lives; else why it ended. Never blocks. */
int ssh_error(struct ssh *s, char *sentence, size_t size);
/* Smoothed round trip in ns, measured by keep-alives and openings; 0 not known yet. */
uint64_t ssh_round_trip(const struct ssh *s);
/* The server's banner: "SSH-2.0-OpenSSH_9.2p1 ...". */
const char *ssh_banner(const struct ssh *s);

enum ssh_kind { SSH_EXEC, SSH_SUBSYSTEM };

/**
 * Open a channel and start a program, or a subsystem, in it; waits for the server's word.
 *
 * Owner:  *ret to stream_close; it holds a reference of the session.
 * Errors: -EMFILE the server allows no further channel; -EOPNOTSUPP it refused the program or
 *         subsystem; -EHOSTUNREACH the connection is gone; -ETIMEDOUT; -EINTR.
 */
int ssh_open(struct ssh *s, struct call *c, enum ssh_kind kind, const char *what,
             const struct stream_events *events, struct stream **ret);

/* No answer to a keep-alive for this long, while something is awaited, ends the connection. */
#define SSH_SILENCE_NS (UINT64_C(10) * 1000000000)
