/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator said of the service; see config.h. */

#include "providers/opensandbox/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"
#include "providers/remote/settings.h"
#include "transport/http/secret.h"

#define DOMAIN_DEFAULT "localhost:8080"
#define ENTRYPOINT_DEFAULT "tail -f /dev/null"
#define URL_MAX_SIZE 1024
/* Of a host, a port and a path; nothing that starts a user, a query or a fragment. */
#define URL_SET SETTINGS_ALNUM "-._~:/%[]"

const char *const osb_config_keys[] = {
        "domain",     "protocol",       "api_key",    "execd_token", "server_proxy", "registry",
        "image_user", "image_password", "entrypoint", "plain",       "ca_file",      "files",
        NULL};

void osb_config_done(struct osb_config *d)
{
        wipe_free(d->key);
        wipe_free(d->execd_token);
        wipe_free(d->image_password);
        free(d->url);
        free(d->scheme);
        free(d->registry);
        free(d->image_user);
        free(d->entrypoint);
        free(d->plain_host);
        free(d->ca_file);
        *d = (struct osb_config){0};
}

bool osb_is_there(void)
{
        return settings_variable("OPEN_SANDBOX_DOMAIN") ||
               settings_variable("OPEN_SANDBOX_API_KEY");
}

/* Behind "http://" or "https://"; NULL: there is none. */
static const char *behind_scheme(const char *url, const char **ret_scheme)
{
        static const char *const schemes[] = {"http", "https"};

        for (size_t i = 0; i < 2; i++) {
                size_t size = strlen(schemes[i]);

                if (strncasecmp(url, schemes[i], size) == 0 && strncmp(url + size, "://", 3) == 0) {
                        *ret_scheme = schemes[i];
                        return url + size + 3;
                }
        }
        return NULL;
}

static bool is_place(const char *text)
{
        return settings_has_only(text, URL_SET) && text[0] != '/' && text[0] != '-' &&
               strlen(text) < URL_MAX_SIZE;
}

/* Without what follows the prefix: slashes, and one "/v1". */
static size_t place_size(const char *place)
{
        size_t size = strlen(place);

        while (size > 0 && place[size - 1] == '/')
                size--;
        if (size > 3 && strncmp(place + size - 3, "/v1", 3) == 0)
                size -= 3;
        while (size > 0 && place[size - 1] == '/')
                size--;
        return size;
}

static int read_place(const struct pair *pairs, size_t count, struct call *c, struct osb_config *d)
{
        const char *domain = settings_text(pairs, count, "domain", "OPEN_SANDBOX_DOMAIN"),
                   *scheme = settings_text(pairs, count, "protocol", "OPEN_SANDBOX_PROTOCOL"),
                   *place;
        int r;

        if (!domain)
                domain = DOMAIN_DEFAULT;
        if (!scheme)
                scheme = "http";
        if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
                return call_fail(c, -EINVAL, "protocol = %.80s: http or https", scheme);
        place = behind_scheme(domain, &scheme);
        if (!place)
                place = domain;
        if (!is_place(place))
                return call_fail(c, -EINVAL, "domain = %.120s: HOST[:PORT], or a URL", domain);
        r = settings_keep(c, scheme, &d->scheme);
        if (r == 0 &&
            asprintf(&d->url, "%s://%.*s/v1", scheme, (int)place_size(place), place) < 0) {
                d->url = NULL;
                r = call_fail(c, -ENOMEM, "out of memory");
        }
        return r;
}

static int read_proxy(const char *value, struct call *c, bool *ret)
{
        *ret = value && (strcmp(value, "yes") == 0 || strcmp(value, "true") == 0);
        return *ret || !value || strcmp(value, "no") == 0 || strcmp(value, "false") == 0
                       ? 0
                       : call_fail(c, -EINVAL, "server_proxy = %.80s: yes or no", value);
}

static int read_keys(const struct pair *pairs, size_t count, struct call *c, struct osb_config *d)
{
        int r = settings_keep_key(c, "api_key",
                                  settings_text(pairs, count, "api_key", "OPEN_SANDBOX_API_KEY"),
                                  &d->key);

        if (r == 0)
                r = settings_keep_key(c, "execd_token",
                                      settings_text(pairs, count, "execd_token", NULL),
                                      &d->execd_token);
        if (r == 0)
                r = settings_keep(c, settings_text(pairs, count, "image_user", NULL),
                                  &d->image_user);
        if (r == 0)
                r = settings_keep(c, settings_text(pairs, count, "image_password", NULL),
                                  &d->image_password);
        if (r == 0 && !d->image_user != !d->image_password)
                r = call_fail(c, -EINVAL, "image_user and image_password: both or none");
        return r;
}

static int read_image(const struct pair *pairs, size_t count, struct call *c, struct osb_config *d)
{
        const char *entrypoint = settings_text(pairs, count, "entrypoint", NULL);
        int r = settings_keep_url(c, settings_text(pairs, count, "registry", NULL), &d->registry);

        if (r == 0 && d->registry && !is_place(d->registry))
                r = call_fail(c, -EINVAL, "registry = %.120s: HOST[/PATH]", d->registry);
        if (r == 0 && entrypoint && entrypoint[strspn(entrypoint, " \t")] == '\0')
                r = call_fail(c, -EINVAL, "entrypoint: words are missing");
        return r < 0 ? r
                     : settings_keep(c, entrypoint ? entrypoint : ENTRYPOINT_DEFAULT,
                                     &d->entrypoint);
}

int osb_config_read(const struct pair *pairs, size_t count, struct call *c, struct osb_config *ret)
{
        struct osb_config d = {0};
        int r = read_place(pairs, count, c, &d);

        if (r == 0)
                r = read_keys(pairs, count, c, &d);
        if (r == 0)
                r = read_image(pairs, count, c, &d);
        if (r == 0)
                r = settings_keep(c, settings_text(pairs, count, "plain", NULL), &d.plain_host);
        if (r == 0)
                r = settings_keep(c, settings_text(pairs, count, "ca_file", NULL), &d.ca_file);
        if (r == 0)
                r = read_proxy(settings_text(pairs, count, "server_proxy", NULL), c, &d.has_proxy);
        if (r == 0)
                r = settings_read_files(settings_text(pairs, count, "files", NULL), c,
                                        &d.has_no_agent);
        if (r == 0)
                *ret = d;
        else
                osb_config_done(&d);
        return r;
}

int osb_endpoint_url(const struct osb_config *d, const char *endpoint, char **ret)
{
        const char *scheme = d->scheme, *place = behind_scheme(endpoint, &scheme);
        size_t size;

        if (place && strcmp(scheme, d->scheme) != 0 && strcmp(scheme, "https") != 0)
                return -EPROTO; /* what is asked for by TLS isn't led elsewhere */
        if (!place)
                place = endpoint;
        if (!is_place(place))
                return -EPROTO;
        for (size = strlen(place); size > 0 && place[size - 1] == '/';)
                size--;
        return asprintf(ret, "%s://%.*s", scheme, (int)size, place) < 0 ? -ENOMEM : 0;
}
