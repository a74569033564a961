/* SPDX-License-Identifier: Apache-2.0 */
/* The opensandbox provider's table and instance; opensandbox.h has the map. */

#include "providers/opensandbox/opensandbox.h"

#include <errno.h>
#include <stdlib.h>

#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "providers/opensandbox/api.h"
#include "providers/opensandbox/body.h"
#include "providers/opensandbox/box.h"

static void free_provider(struct osb_provider *p)
{
        http_unref(p->api);
        osb_config_done(&p->config);
        remote_done(&p->remote);
        free(p);
}

static void close_provider(struct provider *p)
{
        remote_stop(remote_of(p));
        free_provider(osb_of(p));
}

static int open_provider(const struct provider_config *config, struct call *c,
                         struct provider **ret)
{
        struct osb_provider *p = calloc(1, sizeof(*p));
        int r;

        if (!p)
                return call_fail(c, -ENOMEM, "out of memory");
        remote_init(&p->remote, &osb_remote, config);
        r = osb_config_read(config->pairs, config->pair_count, c, &p->config);
        if (r == 0)
                r = osb_api_new(&p->config, config->instance, c, &p->api);
        if (r < 0 && config->source && c->sentence[0])
                r = call_wrap(c, r, "%s: ", config->source);
        p->remote.has_no_agent = p->config.has_no_agent;
        if (r == 0)
                r = remote_start(&p->remote, c);
        if (r < 0) {
                free_provider(p);
                return r;
        }
        *ret = &p->remote.base;
        return 0;
}

static int check(struct provider *p, struct call *c, const struct spec *spec)
{
        (void)p;
        return osb_check(spec, c);
}

const struct provider_ops opensandbox_ops = {
        .name = "opensandbox",
        /* Of a disk only the refusal is ours: it says why. */
        .settings = SETTING_BIT(SETTING_IMAGE) | SETTING_BIT(SETTING_TEMPLATE) |
                    SETTING_BIT(SETTING_SNAPSHOT) | SETTING_BIT(SETTING_CPU) |
                    SETTING_BIT(SETTING_MEMORY) | SETTING_BIT(SETTING_DISK) |
                    SETTING_BIT(SETTING_TIMEOUT) | SETTING_BIT(SETTING_CREATE_TIMEOUT) |
                    SETTING_BIT(SETTING_NET) | SETTING_BIT(SETTING_USER) |
                    SETTING_BIT(SETTING_WORKDIR) | SETTING_BIT(SETTING_ENV) |
                    SETTING_BIT(SETTING_LABEL),
        .config_keys = osb_config_keys,
        .is_there = osb_is_there,
        .open = open_provider,
        .close = close_provider,
        .check = check,
        .create = osb_box_create,
        .list = osb_box_list,
        .attach = osb_box_attach,
        .stop = remote_box_pause, /* what such deployments have: start and restart resume it */
        REMOTE_TABLE,
};
