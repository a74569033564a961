/* SPDX-License-Identifier: Apache-2.0 */
/* The daytona provider's table and instance; daytona.h has the map. */

#include "providers/daytona/daytona.h"

#include <errno.h>
#include <stdlib.h>

#include "providers/daytona/api.h"
#include "providers/daytona/body.h"
#include "providers/inside/carry.h"
#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "transport/base/clock.h"

static const struct remote_ops ops = {
        .name = "daytona",
        .dir = DAYTONA_DIR,
        .look = daytona_look,
        .put_off = daytona_put_off,
        .timeout_s = daytona_timeout_s,
        .retime = daytona_retime,
        .pause = daytona_pause,
        .resume = daytona_resume,
        .stop = daytona_stop,
        .remove = daytona_remove,
        .open = daytona_open,
        .run = daytona_run,
        .upload = daytona_upload,
        .download = daytona_download,
        .free = daytona_box_free,
        .half_ns = 5 * 60 * NS_PER_S, /* its own default is a quarter of an hour */
};

/* ---- the pinger ---- */

static void *ping(void *arg)
{
        struct daytona_provider *d = arg;
        uint64_t due_ns = clock_after(CARRY_PING_S * NS_PER_S);

        mutex_lock(&d->lock);
        while (!d->is_closing) {
                (void)cond_wait_until(&d->changed, &d->lock, due_ns);
                if (d->is_closing || clock_mono_ns() < due_ns)
                        continue;
                due_ns = clock_after(CARRY_PING_S * NS_PER_S);
                mutex_unlock(&d->lock);
                daytona_ping_all(d);
                mutex_lock(&d->lock);
        }
        mutex_unlock(&d->lock);
        return NULL;
}

static int start_pinger(struct daytona_provider *d, struct call *c)
{
        int r = -pthread_create(&d->pinger, NULL, ping, d);

        d->has_pinger = r == 0;
        return r < 0 ? call_fail_errno(c, r, "a thread") : 0;
}

static void stop_pinger(struct daytona_provider *d)
{
        mutex_lock(&d->lock);
        d->is_closing = true;
        cond_broadcast(&d->changed);
        mutex_unlock(&d->lock);
        if (d->has_pinger)
                (void)pthread_join(d->pinger, NULL); /* it was started */
}

/* ---- the instance ---- */

static void free_provider(struct daytona_provider *d)
{
        remote_stop(&d->remote);
        stop_pinger(d);
        http_unref(d->api);
        daytona_config_done(&d->config);
        remote_done(&d->remote);
        cond_done(&d->changed);
        mutex_done(&d->lock);
        free(d);
}

static void close_provider(struct provider *p)
{
        free_provider(daytona_of(p));
}

static int open_provider(const struct provider_config *config, struct call *c,
                         struct provider **ret)
{
        struct daytona_provider *d = calloc(1, sizeof(*d));
        int r;

        if (!d)
                return call_fail(c, -ENOMEM, "out of memory");
        remote_init(&d->remote, &ops, config);
        list_init(&d->terminals);
        mutex_init(&d->lock);
        cond_init(&d->changed);
        r = daytona_config_read(config->pairs, config->pair_count, c, &d->config);
        if (r == 0)
                r = daytona_api_new(&d->config, config->instance, c, &d->api);
        if (r < 0 && config->source && c->sentence[0])
                r = call_wrap(c, r, "%s: ", config->source);
        d->remote.has_no_agent = d->config.has_no_agent;
        if (r == 0)
                r = start_pinger(d, c);
        if (r == 0)
                r = remote_start(&d->remote, c);
        if (r < 0) {
                free_provider(d);
                return r;
        }
        *ret = &d->remote.base;
        return 0;
}

static int check(struct provider *p, struct call *c, const struct spec *spec)
{
        (void)p;
        return daytona_check(spec, c);
}

const struct provider_ops daytona_ops = {
        .name = "daytona",
        .traits = PROVIDER_COSTS | PROVIDER_SURVIVES,
        .settings = SETTING_BIT(SETTING_IMAGE) | SETTING_BIT(SETTING_SNAPSHOT) |
                    SETTING_BIT(SETTING_CPU) | SETTING_BIT(SETTING_MEMORY) |
                    SETTING_BIT(SETTING_DISK) | SETTING_BIT(SETTING_TIMEOUT) |
                    SETTING_BIT(SETTING_CREATE_TIMEOUT) | SETTING_BIT(SETTING_NET) |
                    SETTING_BIT(SETTING_USER) | SETTING_BIT(SETTING_WORKDIR) |
                    SETTING_BIT(SETTING_ENV) | SETTING_BIT(SETTING_LABEL),
        .config_keys = daytona_config_keys,
        .is_there = daytona_is_there,
        .open = open_provider,
        .close = close_provider,
        .check = check,
        .create = daytona_box_create,
        .list = daytona_box_list,
        .attach = daytona_box_attach,
        .stop = remote_box_stop,
        REMOTE_TABLE,
};
