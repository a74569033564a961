/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator said of the service; see config.h. */

#include "providers/daytona/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"
#include "providers/remote/settings.h"
#include "transport/http/secret.h"

#define API_URL_DEFAULT "https://app.daytona.io/api"

const char *const daytona_config_keys[] = {"api_key", "jwt_token", "organization_id",
                                           "api_url", "target",    "plain",
                                           "ca_file", "files",     NULL};

void daytona_config_done(struct daytona_config *d)
{
        wipe_free(d->bearer);
        free(d->organization);
        free(d->api_url);
        free(d->target);
        free(d->plain_host);
        free(d->ca_file);
        *d = (struct daytona_config){0};
}

bool daytona_is_there(void)
{
        return settings_variable("DAYTONA_API_KEY") || settings_variable("DAYTONA_JWT_TOKEN");
}

static int make_bearer(struct call *c, const char *name, const char *value, char **ret)
{
        char *key = NULL;
        int n, r = settings_keep_key(c, name, value, &key);

        if (r < 0 || !key)
                return r;
        n = asprintf(ret, "Bearer %s", key);
        wipe_free(key);
        if (n >= 0)
                return 0;
        *ret = NULL;
        return call_fail(c, -ENOMEM, "out of memory");
}

/* The key fixes the organization; a JWT needs it told. */
static int read_who(const struct pair *pairs, size_t count, struct call *c,
                    struct daytona_config *d)
{
        const char *organization =
                settings_text(pairs, count, "organization_id", "DAYTONA_ORGANIZATION_ID");
        int r = make_bearer(c, "api_key", settings_text(pairs, count, "api_key", "DAYTONA_API_KEY"),
                            &d->bearer);

        if (r < 0 || d->bearer)
                return r;
        r = make_bearer(c, "jwt_token",
                        settings_text(pairs, count, "jwt_token", "DAYTONA_JWT_TOKEN"), &d->bearer);
        if (r == 0 && !d->bearer)
                r = call_fail(c, -EINVAL, "no key: set DAYTONA_API_KEY, or api_key");
        if (r == 0 && !organization)
                r = call_fail(c, -EINVAL, "jwt_token needs organization_id");
        if (r == 0 && !settings_has_only(organization, SETTINGS_ALNUM "-_"))
                r = call_fail(c, -EINVAL, "organization_id = %.80s: no id", organization);
        return r == 0 ? settings_keep(c, organization, &d->organization) : r;
}

static int read_places(const struct pair *pairs, size_t count, struct call *c,
                       struct daytona_config *d)
{
        const char *url = settings_text(pairs, count, "api_url", "DAYTONA_API_URL"),
                   *target = settings_text(pairs, count, "target", "DAYTONA_TARGET");
        int r;

        if (!url)
                url = settings_variable("DAYTONA_SERVER_URL");
        r = settings_keep_url(c, url ? url : API_URL_DEFAULT, &d->api_url);
        if (r == 0 && target && !settings_has_only(target, SETTINGS_ALNUM "-_."))
                r = call_fail(c, -EINVAL, "target = %.80s: no name of a region", target);
        return r == 0 ? settings_keep(c, target, &d->target) : r;
}

int daytona_config_read(const struct pair *pairs, size_t count, struct call *c,
                        struct daytona_config *ret)
{
        struct daytona_config d = {0};
        int r = read_who(pairs, count, c, &d);

        if (r == 0)
                r = read_places(pairs, count, c, &d);
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
                daytona_config_done(&d);
        return r;
}
