/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the service is and who we are: an INI section's keys, else the vendor's own variables.
 *
 *      domain = HOST[:PORT]       OPEN_SANDBOX_DOMAIN; localhost:8080. Or a whole URL
 *      protocol = http | https    OPEN_SANDBOX_PROTOCOL; http
 *      api_key = KEY              OPEN_SANDBOX_API_KEY; a server may ask for none
 *      execd_token = TOKEN        for each sandbox's daemon, where the service doesn't say one
 *      server_proxy = yes | no    sandboxes are reached through the server
 *      registry = HOST[/PATH]     before images whose name has no registry
 *      image_user, image_password for that registry
 *      entrypoint = WORDS         what keeps a sandbox up; tail -f /dev/null
 *      plain = HOST               the machine that may be spoken to without TLS
 *      ca_file = FILE             authorities, instead of the system's
 *      files = agent | shell      how fs/ is served: by our program in the sandbox, or by its tools
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct call;
struct pair;

/* What is absent is NULL. */
struct osb_config {
        char *url; /* of the API, with /v1; never NULL */
        char *scheme; /* "http" or "https": of sandboxes, too */
        char *key; /* secret */
        char *execd_token; /* secret */
        char *registry, *image_user, *image_password; /* the last is secret */
        char *entrypoint; /* words with blanks between; never NULL */
        char *plain_host;
        char *ca_file;
        bool has_proxy; /* server_proxy = yes */
        bool has_no_agent; /* files = shell */
};

extern const char *const osb_config_keys[];

/* Local work only. -EINVAL, -ENOMEM. */
int osb_config_read(const struct pair *pairs, size_t count, struct call *c, struct osb_config *ret);
void osb_config_done(struct osb_config *d);

/* Whether the service can be had without an INI section: its domain or key is in a variable. */
bool osb_is_there(void);

/*
 * The URL of an endpoint as the service tells it: "host[:port][/prefix]", without a scheme. *ret to
 * free. -EPROTO: it is none; -ENOMEM.
 */
int osb_endpoint_url(const struct osb_config *d, const char *endpoint, char **ret);
