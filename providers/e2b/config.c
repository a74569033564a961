/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator said of the service; see config.h. */

#include "providers/e2b/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"
#include "providers/remote/settings.h"
#include "transport/http/secret.h"

#define DOMAIN_DEFAULT "e2b.app"
#define ENVD_PORT "49983"

const char *const e2b_config_keys[] = {"api_key", "domain",  "api_url", "sandbox_url",
                                       "plain",   "ca_file", "files",   NULL};

void e2b_config_done(struct e2b_config *d)
{
        wipe_free(d->key);
        free(d->domain);
        free(d->api_url);
        free(d->sandbox_url);
        free(d->plain_host);
        free(d->ca_file);
        *d = (struct e2b_config){0};
}

bool e2b_is_there(void)
{
        return settings_variable("E2B_API_KEY") != NULL;
}

static int make_api_url(struct call *c, bool is_debug, struct e2b_config *d)
{
        int n = is_debug ? asprintf(&d->api_url, "http://localhost:3000")
                         : asprintf(&d->api_url, "https://api.%s", d->domain);

        if (n >= 0)
                return 0;
        d->api_url = NULL;
        return call_fail(c, -ENOMEM, "out of memory");
}

static int read_places(const struct pair *pairs, size_t count, struct call *c, struct e2b_config *d)
{
        const char *domain = settings_text(pairs, count, "domain", "E2B_DOMAIN"),
                   *debug = settings_variable("E2B_DEBUG");
        bool is_debug = debug && strcasecmp(debug, "true") == 0;
        int r = settings_keep(c, domain ? domain : DOMAIN_DEFAULT, &d->domain);

        if (r == 0 && !settings_is_host(d->domain))
                r = call_fail(c, -EINVAL, "domain = %.120s: no name of a domain", d->domain);
        if (r == 0)
                r = settings_keep_url(c, settings_text(pairs, count, "api_url", "E2B_API_URL"),
                                      &d->api_url);
        if (r == 0 && !d->api_url)
                r = make_api_url(c, is_debug, d);
        if (r == 0)
                r = settings_keep_url(c,
                                      settings_text(pairs, count, "sandbox_url", "E2B_SANDBOX_URL"),
                                      &d->sandbox_url);
        if (r == 0 && !d->sandbox_url && is_debug)
                r = settings_keep(c, "http://localhost:" ENVD_PORT, &d->sandbox_url);
        return r;
}

int e2b_config_read(const struct pair *pairs, size_t count, struct call *c, struct e2b_config *ret)
{
        struct e2b_config d = {0};
        int r = read_places(pairs, count, c, &d);

        if (r == 0)
                r = settings_keep_key(c, "api_key",
                                      settings_text(pairs, count, "api_key", "E2B_API_KEY"),
                                      &d.key);
        if (r == 0 && !d.key)
                r = call_fail(c, -EINVAL, "no key: set E2B_API_KEY, or api_key");
        if (r == 0)
                r = settings_keep(c, settings_text(pairs, count, "plain", NULL), &d.plain_host);
        if (r == 0)
                r = settings_keep(c, settings_text(pairs, count, "ca_file", NULL), &d.ca_file);
        if (r == 0)
                r = settings_read_files(settings_text(pairs, count, "files", NULL), c,
                                        &d.has_no_agent);
        if (r == 0)
                *ret = d;
        else
                e2b_config_done(&d);
        return r;
}

int e2b_envd_url(const struct e2b_config *d, const char *id, const char *domain, char **ret)
{
        int n;

        if (d->sandbox_url) {
                *ret = strdup(d->sandbox_url);
                return *ret ? 0 : -ENOMEM;
        }
        if (!domain || !*domain)
                domain = d->domain;
        if (!settings_is_host(domain) || !settings_is_host(id) || strchr(id, '.'))
                return -EPROTO;
        n = asprintf(ret, "https://" ENVD_PORT "-%s.%s", id, domain);
        return n < 0 ? -ENOMEM : 0;
}
