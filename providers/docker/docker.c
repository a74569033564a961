/* SPDX-License-Identifier: Apache-2.0 */
/* The docker provider's table and instance; docker.h has the map. */

#include "providers/docker/docker.h"

#include <errno.h>
#include <stdlib.h>

#include "providers/docker/body.h"
#include "providers/docker/box.h"
#include "providers/docker/config.h"
#include "providers/docker/engine.h"
#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "transport/base/clock.h"

/* ---- the keeper ---- */

void docker_wake(struct docker_box *b)
{
        struct docker_provider *d = b->docker;

        mutex_lock(&d->lock);
        b->due_ns = 0;
        cond_broadcast(&d->changed);
        mutex_unlock(&d->lock);
}

/* One that is due, marked as tended; else NULL and when one will be. */
static struct docker_box *take_due_locked(struct docker_provider *d, struct call *c,
                                          uint64_t *ret_due_ns) REQUIRES(d->lock)
{
        uint64_t now_ns = clock_mono_ns();

        *ret_due_ns = NEVER_NS;
        list_for_each (at, &d->boxes) {
                struct docker_box *b = list_entry(at, struct docker_box, link);

                if (b->is_released)
                        continue;
                if (b->due_ns <= now_ns) {
                        call_init(c, NEVER_NS);
                        b->due_ns = NEVER_NS;
                        b->tending = c;
                        return b;
                }
                *ret_due_ns = b->due_ns < *ret_due_ns ? b->due_ns : *ret_due_ns;
        }
        return NULL;
}

static void *keep(void *arg)
{
        struct docker_provider *d = arg;

        mutex_lock(&d->lock);
        while (!d->is_closing) {
                uint64_t due_ns = NEVER_NS;
                struct call c;
                struct docker_box *b = take_due_locked(d, &c, &due_ns);

                if (!b) {
                        (void)cond_wait_until(&d->changed, &d->lock, due_ns);
                        continue;
                }
                mutex_unlock(&d->lock);
                due_ns = talk_tend(b->talk, &c);
                mutex_lock(&d->lock);
                b->due_ns = due_ns < b->due_ns ? due_ns : b->due_ns;
                b->tending = NULL;
                cond_broadcast(&d->changed);
        }
        mutex_unlock(&d->lock);
        return NULL;
}

/* ---- the instance ---- */

static void free_provider(struct docker_provider *d)
{
        engine_free(d->engine);
        cond_done(&d->changed);
        mutex_done(&d->lock);
        free(d);
}

static void stop(struct docker_provider *d)
{
        mutex_lock(&d->lock);
        d->is_closing = true;
        if (d->listening)
                call_cancel(d->listening);
        cond_broadcast(&d->changed);
        mutex_unlock(&d->lock);
        (void)pthread_join(d->keeper, NULL); /* it was started */
}

static void close_provider(struct provider *p)
{
        struct docker_provider *d = docker_of(p);

        stop(d);
        (void)pthread_join(d->events, NULL); /* likewise */
        free_provider(d);
}

static int start_threads(struct docker_provider *d)
{
        int r = -pthread_create(&d->keeper, NULL, keep, d);

        if (r < 0)
                return r;
        r = -pthread_create(&d->events, NULL, events_run, d);
        if (r < 0)
                stop(d);
        return r;
}

static int open_provider(const struct provider_config *config, struct call *c,
                         struct provider **ret)
{
        struct docker_provider *d = calloc(1, sizeof(*d));
        struct docker_config found = {0};
        int r;

        if (!d)
                return call_fail(c, -ENOMEM, "out of memory");
        d->owner = config->owner;
        d->helper_dir = config->helper_dir;
        d->listener = config->listener;
        list_init(&d->boxes);
        list_init(&d->creating);
        mutex_init(&d->lock);
        cond_init(&d->changed);
        r = docker_config_read(config->pairs, config->pair_count, c, &found);
        if (r == 0)
                r = engine_new(&found, config->instance, c, &d->engine);
        if (r < 0 && r != -ENOMEM && found.is_from_env)
                r = call_wrap(c, -EHOSTUNREACH, "DOCKER_HOST");
        d->has_no_agent = found.has_no_agent;
        d->has_direct = found.socket_path && !found.has_no_direct;
        docker_config_done(&found);
        if (r < 0 && config->source && c->sentence[0])
                r = call_wrap(c, r, "%s: ", config->source);
        if (r == 0)
                r = start_threads(d);
        if (r < 0) {
                free_provider(d);
                return r == -ENOENT || r == -EACCES ? -EINVAL : r; /* a certificate */
        }
        *ret = &d->base;
        return 0;
}

static int check(struct provider *p, struct call *c, const struct spec *spec)
{
        return body_check(spec, p->allow, c);
}

const struct provider_ops docker_ops = {
        .name = "docker",
        .traits = PROVIDER_SURVIVES | PROVIDER_TELLS,
        .settings = SETTING_BIT(SETTING_IMAGE) | SETTING_BIT(SETTING_CPU) |
                    SETTING_BIT(SETTING_MEMORY) | SETTING_BIT(SETTING_PROCESSES) |
                    SETTING_BIT(SETTING_TIMEOUT) | SETTING_BIT(SETTING_CREATE_TIMEOUT) |
                    SETTING_BIT(SETTING_NET) | SETTING_BIT(SETTING_USER) |
                    SETTING_BIT(SETTING_WORKDIR) | SETTING_BIT(SETTING_READONLY) |
                    SETTING_BIT(SETTING_RUNTIME) | SETTING_BIT(SETTING_ENV) |
                    SETTING_BIT(SETTING_LABEL) | SETTING_BIT(SETTING_MOUNT),
        .config_keys = docker_config_keys,
        .is_there = docker_is_there,
        .open = open_provider,
        .close = close_provider,
        .check = check,
        .create = docker_box_create,
        .destroy = docker_box_destroy,
        .list = docker_box_list,
        .state = docker_box_state,
        .attach = docker_box_attach,
        .release = docker_box_release,
        .start = docker_box_start,
        .stop = docker_box_stop,
        .pause = docker_box_pause,
        .resume = docker_box_resume,
        .exec_start = docker_exec_start,
        .exec_attach = docker_exec_attach,
        .exec_write = talk_exec_write,
        .exec_signal = talk_exec_signal,
        .exec_release = talk_exec_release,
        .list_files = docker_list_files,
        .stat = docker_stat,
        .readlink = docker_readlink,
        .fetch = docker_fetch,
        .file_open = docker_file_open,
        .file_read = inside_file_read,
        .file_close = inside_file_close,
        .apply = docker_apply,
        .statfs = docker_statfs,
        .workdir = docker_workdir,
};
