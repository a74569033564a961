/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How one gets to a host: what the operator's section says, over it what a creation names, and below
 * both, when it comes to dialling, what ~/.ssh/config says.
 *
 * Where a host is (host, user, port, jump, base) makes its id, which stands in the ids of its
 * sandboxes: another section's host never takes them for its own. How one gets in (keys, known
 * hosts, transport) may change under the same id.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "providers/provider.h"
#include "providers/ssh/alias.h"
#include "transport/ssh/ssh.h"

struct record;

#define CONFIG_ID_SIZE 17
#define CONFIG_BASE ".sbxfs" /* below the home directory there */

struct ssh_config {
        /* where; NULL or 0: not said */
        char *host; /* a name, an address, or an alias of ~/.ssh/config */
        char *user;
        unsigned port;
        char *jump; /* [user@]host[:port][,...]; the last is next to the host */
        char *base; /* absolute, or below the home there */
        /* not of the host: what a section's sandboxes attach; NULL: they have their own */
        char *root;
        /* how */
        char *identity;
        char *known_hosts;
        char *hostkey; /* SHA256:... */
        bool is_openssh; /* transport=openssh */
        char *ssh_config; /* -F; "none" */
        bool uses_agent;
        unsigned bulk_lanes;
        /* A password is only for the host that the operator meant it for. */
        char *password_file;
        bool may_use_password;
};

void ssh_config_done(struct ssh_config *c);

/* Keys of a section that are this provider's own, NULL-terminated. */
extern const char *const ssh_config_keys[];

/**
 * A section's keys, checked; `ret->host` may stay NULL. Local work, no ssh -G.
 *
 * Errors: -EINVAL, -EPERM (a password file that others can read), -ENOMEM.
 */
int ssh_config_of_section(const struct provider_config *from, struct call *c,
                          struct ssh_config *ret);

/**
 * The section's, and over it what the creation names.
 *
 * Errors: -EINVAL no host, or a bad value; -EPERM `user` where the operator hasn't allowed it;
 *         -EOPNOTSUPP what doesn't go together.
 */
int ssh_config_of_spec(const struct ssh_config *section, const struct spec *spec, unsigned allow,
                       struct call *c, struct ssh_config *ret);

int ssh_config_copy(const struct ssh_config *from, struct ssh_config *ret);
void ssh_config_id(const struct ssh_config *config, char ret[CONFIG_ID_SIZE]);
/* The same place, and the same way there. */
bool ssh_config_is_same(const struct ssh_config *a, const struct ssh_config *b);

/* As a record of the state directory: no secret is in it. */
int ssh_config_save(const struct ssh_config *config, int dir, const char *name);
int ssh_config_load(int dir, const char *name, struct ssh_config *ret);

/* ---- dialling ---- */

/* A password file that can't be used: -EINVAL none, -EPERM others can read it. */
int password_check(const char *path, struct call *c);

/* A target and what it points to. */
struct ssh_plan {
        struct ssh_target target;
        struct alias alias;
        struct wordlist identities, known_hosts, proxy, proxy_env;
        char *user;
        char *password; /* secret */
};

/**
 * All that ssh_connect needs, now: asks `ssh -G`, reads the password.
 *
 * Owner:  plan_done(ret), which wipes.
 * Errors: those of alias_ask; -EPERM, -EACCES the password file; -EOPNOTSUPP a ProxyUseFdpass.
 */
int ssh_plan_make(const struct ssh_config *config, struct call *c, struct ssh_plan *ret);
void ssh_plan_done(struct ssh_plan *p);
/* The account alone, as ssh_plan_make finds it; *ret to free. Errors: those of alias_ask. */
int ssh_plan_user(const struct ssh_config *config, struct call *c, char **ret);

/* Arguments of the OpenSSH client for transport=openssh, up to and with the host. */
enum openssh_use {
        OPENSSH_MASTER, /* carries the file channel, and lends its connection to others */
        OPENSSH_SHARED, /* borrows the master's, makes its own where that can't be */
        OPENSSH_ALONE,
};
/*
 * `socket`: of the master, NULL for OPENSSH_ALONE. `command` NULL: the subsystem sftp.
 * -EOPNOTSUPP: what that client can't be told.
 */
int ssh_config_openssh(const struct ssh_config *config, enum openssh_use use, const char *socket,
                       const char *command, struct wordlist *ret);
