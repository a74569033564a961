/* SPDX-License-Identifier: Apache-2.0 */
/* The e2b provider's table and instance; e2b.h has the map. */

#include "providers/e2b/e2b.h"

#include <errno.h>
#include <stdlib.h>

#include "providers/e2b/api.h"
#include "providers/e2b/body.h"
#include "providers/e2b/box.h"
#include "providers/inside/files.h"
#include "providers/inside/talk.h"

static void free_provider(struct e2b_provider *e)
{
        http_unref(e->api);
        e2b_config_done(&e->config);
        remote_done(&e->remote);
        free(e);
}

static void close_provider(struct provider *p)
{
        remote_stop(remote_of(p));
        free_provider(e2b_of(p));
}

static int open_provider(const struct provider_config *config, struct call *c,
                         struct provider **ret)
{
        struct e2b_provider *e = calloc(1, sizeof(*e));
        int r;

        if (!e)
                return call_fail(c, -ENOMEM, "out of memory");
        remote_init(&e->remote, &e2b_remote, config);
        r = e2b_config_read(config->pairs, config->pair_count, c, &e->config);
        if (r == 0)
                r = e2b_api_new(&e->config, config->instance, c, &e->api);
        if (r < 0 && config->source && c->sentence[0])
                r = call_wrap(c, r, "%s: ", config->source);
        e->remote.has_no_agent = e->config.has_no_agent;
        if (r == 0)
                r = remote_start(&e->remote, c);
        if (r < 0) {
                free_provider(e);
                return r;
        }
        *ret = &e->remote.base;
        return 0;
}

static int check(struct provider *p, struct call *c, const struct spec *spec)
{
        (void)p;
        return e2b_check(spec, c);
}

const struct provider_ops e2b_ops = {
        .name = "e2b",
        .traits = PROVIDER_COSTS,
        /* Of those that a template settles only the refusal is ours: it says what to do instead. */
        .settings = SETTING_BIT(SETTING_TEMPLATE) | SETTING_BIT(SETTING_SNAPSHOT) |
                    SETTING_BIT(SETTING_IMAGE) | SETTING_BIT(SETTING_CPU) |
                    SETTING_BIT(SETTING_MEMORY) | SETTING_BIT(SETTING_DISK) |
                    SETTING_BIT(SETTING_TIMEOUT) | SETTING_BIT(SETTING_CREATE_TIMEOUT) |
                    SETTING_BIT(SETTING_NET) | SETTING_BIT(SETTING_USER) |
                    SETTING_BIT(SETTING_WORKDIR) | SETTING_BIT(SETTING_ENV) |
                    SETTING_BIT(SETTING_LABEL),
        .config_keys = e2b_config_keys,
        .is_there = e2b_is_there,
        .open = open_provider,
        .close = close_provider,
        .check = check,
        .create = e2b_box_create,
        .list = e2b_box_list,
        .attach = e2b_box_attach,
        REMOTE_TABLE,
};
