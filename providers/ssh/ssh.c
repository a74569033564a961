/* SPDX-License-Identifier: Apache-2.0 */
/* The ssh provider's table and instance; ssh.h has the map. */

#include "providers/ssh/ssh.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/box.h"
#include "providers/ssh/config.h"
#include "providers/ssh/host.h"
#include "transport/base/clock.h"

#define TEND_NS (5 * NS_PER_S)

static void *keep(void *arg)
{
        struct ssh_provider *ssh = arg;

        mutex_lock(&ssh->lock);
        while (!ssh->is_closing) {
                (void)cond_wait_until(&ssh->changed, &ssh->lock, clock_after(TEND_NS));
                if (ssh->is_closing)
                        break;
                mutex_unlock(&ssh->lock);
                hosts_tend(ssh);
                mutex_lock(&ssh->lock);
        }
        mutex_unlock(&ssh->lock);
        return NULL;
}

static void free_provider(struct ssh_provider *ssh)
{
        ssh_config_done(ssh->section);
        free(ssh->section);
        cond_done(&ssh->changed);
        mutex_done(&ssh->lock);
        free(ssh);
}

static void close_provider(struct provider *p)
{
        struct ssh_provider *ssh = ssh_provider_of(p);

        mutex_lock(&ssh->lock);
        ssh->is_closing = true;
        cond_broadcast(&ssh->changed);
        mutex_unlock(&ssh->lock);
        (void)pthread_join(ssh->keeper, NULL); /* it was started */
        hosts_free(ssh);
        free_provider(ssh);
}

static struct ssh_provider *provider_new(const struct provider_config *config)
{
        struct ssh_provider *ssh = calloc(1, sizeof(*ssh));

        if (!ssh)
                return NULL;
        ssh->dir = config->state_dir;
        ssh->path = config->state_path;
        ssh->owner = config->owner;
        ssh->listener = config->listener;
        list_init(&ssh->hosts);
        list_init(&ssh->boxes);
        mutex_init(&ssh->lock);
        cond_init(&ssh->changed);
        ssh->section = calloc(1, sizeof(*ssh->section));
        if (!ssh->section) {
                cond_done(&ssh->changed);
                mutex_done(&ssh->lock);
                free(ssh);
                return NULL;
        }
        return ssh;
}

static int open_provider(const struct provider_config *config, struct call *c,
                         struct provider **ret)
{
        struct ssh_provider *ssh = provider_new(config);
        int r = ssh ? ssh_config_of_section(config, c, ssh->section) : -ENOMEM;

        if (r < 0 && config->source && c->sentence[0])
                r = call_wrap(c, r, "%s: ", config->source);
        if (r == 0)
                r = -pthread_create(&ssh->keeper, NULL, keep, ssh);
        if (r < 0) {
                if (ssh)
                        free_provider(ssh);
                return r == -EOPNOTSUPP ? -EINVAL : r; /* refused at start, not shown as down */
        }
        *ret = &ssh->base;
        return 0;
}

static int check(struct provider *p, struct call *c, const struct spec *spec)
{
        struct ssh_provider *ssh = ssh_provider_of(p);
        struct ssh_config config;
        int r;

        /* A section without host is there for those that name one. */
        if (!ssh->section->host && !spec->key[0])
                return 0;
        r = ssh_config_of_spec(ssh->section, spec, p->allow, c, &config);
        if (r == 0)
                ssh_config_done(&config);
        return r;
}

const struct provider_ops ssh_ops = {
        .name = "ssh",
        .traits = PROVIDER_SURVIVES | PROVIDER_FILES_WHEN_DOWN,
        .settings = SETTING_BIT(SETTING_TIMEOUT) | SETTING_BIT(SETTING_CREATE_TIMEOUT) |
                    SETTING_BIT(SETTING_USER) | SETTING_BIT(SETTING_ENV) |
                    SETTING_BIT(SETTING_LABEL) | SETTING_BIT(SETTING_HOST) |
                    SETTING_BIT(SETTING_PORT) | SETTING_BIT(SETTING_IDENTITY) |
                    SETTING_BIT(SETTING_KNOWN_HOSTS) | SETTING_BIT(SETTING_HOSTKEY) |
                    SETTING_BIT(SETTING_JUMP) | SETTING_BIT(SETTING_ROOT) |
                    SETTING_BIT(SETTING_BASE) | SETTING_BIT(SETTING_TRANSPORT),
        .config_keys = ssh_config_keys,
        .open = open_provider,
        .close = close_provider,
        .check = check,
        .create = ssh_box_create,
        .destroy = ssh_box_destroy,
        .list = ssh_box_list,
        .state = ssh_box_state,
        .attach = ssh_box_attach,
        .release = ssh_box_release,
        .start = ssh_box_start,
        .stop = ssh_box_stop,
        .pause = ssh_box_pause,
        .resume = ssh_box_resume,
        .exec_start = ssh_exec_start,
        .exec_attach = ssh_exec_attach,
        .exec_write = ssh_exec_write,
        .exec_signal = ssh_exec_signal,
        .exec_release = ssh_exec_release,
        .list_files = ssh_list_files,
        .stat = ssh_stat,
        .readlink = ssh_readlink,
        .fetch = ssh_fetch,
        .file_open = ssh_file_open,
        .file_read = ssh_file_read,
        .file_close = ssh_file_close,
        .apply = ssh_apply,
        .statfs = ssh_statfs,
        .workdir = ssh_workdir,
};
