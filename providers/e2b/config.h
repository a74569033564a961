/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the service is and who we are: an INI section's keys, else the vendor's own variables.
 *
 *      api_key = KEY              E2B_API_KEY
 *      domain = e2b.app           E2B_DOMAIN
 *      api_url = URL              E2B_API_URL; else https://api.DOMAIN
 *      sandbox_url = URL          E2B_SANDBOX_URL: one host for all sandboxes; else one for each
 *      plain = HOST               the machine that may be spoken to without TLS
 *      ca_file = FILE             authorities, instead of the system's
 *      files = agent | shell      how fs/ is served: by our program in the sandbox, or by its tools
 *
 * E2B_DEBUG=true: both services are on this machine, as the vendor's client has it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct call;
struct pair;

/* What is absent is NULL. */
struct e2b_config {
        char *key; /* secret */
        char *domain; /* never NULL */
        char *api_url; /* never NULL */
        char *sandbox_url;
        char *plain_host;
        char *ca_file;
        bool has_no_agent; /* files = shell */
};

extern const char *const e2b_config_keys[];

/* Local work only. -EINVAL, -ENOMEM. */
int e2b_config_read(const struct pair *pairs, size_t count, struct call *c, struct e2b_config *ret);
void e2b_config_done(struct e2b_config *d);

/* Whether the service can be had without an INI section: E2B_API_KEY is set. */
bool e2b_is_there(void);

/*
 * The address of a sandbox's envd; `domain` as the service says, NULL unknown. *ret to free.
 * -EPROTO: a domain or id that is none; -ENOMEM.
 */
int e2b_envd_url(const struct e2b_config *d, const char *id, const char *domain, char **ret);
