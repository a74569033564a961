/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the service is and who we are: an INI section's keys, else the vendor's own variables.
 *
 *      api_key = KEY              DAYTONA_API_KEY
 *      jwt_token = TOKEN          DAYTONA_JWT_TOKEN, where there is no key; then also
 *      organization_id = UUID     DAYTONA_ORGANIZATION_ID
 *      api_url = URL              DAYTONA_API_URL, DAYTONA_SERVER_URL; else the vendor's
 *      target = REGION            DAYTONA_TARGET; else the organization's own
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
struct daytona_config {
        char *bearer; /* secret: "Bearer KEY" */
        char *organization; /* with a JWT only */
        char *api_url; /* never NULL */
        char *target;
        char *plain_host;
        char *ca_file;
        bool has_no_agent; /* files = shell */
};

extern const char *const daytona_config_keys[];

/* Local work only. -EINVAL, -ENOMEM. */
int daytona_config_read(const struct pair *pairs, size_t count, struct call *c,
                        struct daytona_config *ret);
void daytona_config_done(struct daytona_config *d);

/* Whether the service can be had without an INI section: a key, or a JWT, is set. */
bool daytona_is_there(void);
