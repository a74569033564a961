/* SPDX-License-Identifier: Apache-2.0 */
/* What ~/.ssh/config says of a host, asked of the OpenSSH client: `ssh -G HOST`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "transport/base/call.h"

#define SSH_PROGRAM "/usr/bin/ssh"

/* A list of texts, NULL-terminated once anything is in it. */
struct wordlist {
        char **list;
        size_t count;
};
int wordlist_add(struct wordlist *w, const char *text,
                 size_t size); /* 0, -ENOMEM, -E2BIG past 256 */
void wordlist_done(struct wordlist *w);
/* Never NULL: an empty list is one that ends at once. */
const char *const *wordlist_get(const struct wordlist *w);

/* NULL and empty: not said. Names of files are absolute, `~` and %d %h %p %r %u %% replaced. */
struct alias {
        char *hostname;
        char *user;
        unsigned port;
        char *host_key_alias;
        char *agent; /* a socket; "none"; "SSH_AUTH_SOCK" */
        char *proxy_jump;
        char *proxy_command; /* as written, with its % */
        bool passes_fd; /* ProxyUseFdpass: not for us */
        struct wordlist identities;
        struct wordlist known_hosts; /* the user's, then the system's */
};

/* Who we are, for `~` and %u. */
struct alias_self {
        const char *home;
        const char *user;
};

/**
 * Read what `ssh -G` printed. `host` is what was asked for. Pure.
 *
 * Errors: -ENOMEM; -EPROTO it is nothing of the kind.
 */
int alias_parse(const char *text, size_t size, const char *host, const struct alias_self *self,
                struct alias *ret);
void alias_done(struct alias *a);

/*
 * Replace `~/` at the start and the % that are known; -EINVAL for one that isn't, -ENOMEM. `a` may
 * be NULL: then %h is `host`.
 */
int alias_expand(const char *text, const char *host, const struct alias *a,
                 const struct alias_self *self, char **ret);

/**
 * Ask the client. `file`: -F, NULL its own. `user` and `port` (0) as they were given, since `Match`
 * may look at them.
 *
 * Errors: -ENOENT no client is installed; -EINVAL its configuration is wrong (the sentence is the
 *         client's); -ETIMEDOUT after 5 s; -EINTR.
 */
int alias_ask(const char *host, const char *user, unsigned port, const char *file,
              const struct alias_self *self, struct call *c, struct alias *ret);

/* The environment for OpenSSH's programs: what they need, and none of our secrets. */
int alias_environment(struct wordlist *ret);
