/* SPDX-License-Identifier: Apache-2.0 */
/* The local provider's tables and instance; local.h has the map. */

#include "providers/local/local.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/local/cgroup.h"
#include "providers/local/files.h"
#include "providers/local/uids.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/process.h"

static const char *const config_keys[] = {"uid-range", NULL};

static const char *config_get(const struct provider_config *config, const char *key)
{
        const char *value = NULL;

        for (size_t i = 0; i < config->pair_count; i++) {
                if (strcmp(config->pairs[i].key, key) == 0)
                        value = config->pairs[i].value; /* the last one counts */
        }
        return value;
}

static void local_close(struct provider *p)
{
        struct local *local = local_of(p);

        hub_free(local->hub);
        uids_free(local->uids);
        cgroups_free(local->cgroups);
        free(local);
}

/* ---- list ---- */

/* What the record says; -ENOENT when it is none of ours. */
static int look_at(const struct local *local, const char *id, struct plan *ret,
                   struct holder_id *ret_holder)
{
        _cleanup_(closep) int dir = box_open_dir(local, id);

        return dir < 0 ? dir : plan_load(dir, ret, ret_holder);
}

static int report(const struct local *local, const char *id, struct box_sink *to)
{
        struct plan plan = {0};
        struct holder_id holder;
        struct box_found found = {.id = id, .key = id};
        int pidfd, r = look_at(local, id, &plan, &holder);

        if (r < 0)
                return 0; /* not ours, or damaged: whoever knows its id can attach */
        if (strcmp(plan.owner, local->owner) == 0) {
                found.name = plan.name;
                found.status.state = BOX_STOPPED;
                if (holder.pid > 0 && process_open(holder.pid, holder.start_ticks, &pidfd) == 0) {
                        closep(&pidfd);
                        found.status.state = holder.is_paused ? BOX_PAUSED : BOX_RUNNING;
                }
                (void)snprintf(found.status.raw, sizeof(found.status.raw), "%s",
                               box_state_name(found.status.state));
                r = to->found(to, &found);
        }
        plan_done(&plan);
        return r;
}

/* Calls `each` for the directories of sandboxes until it answers other than 0. */
static int walk(const struct local *local,
                int (*each)(const struct local *local, const char *id, void *arg), void *arg)
{
        int fd = openat(local->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        _cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;

        if (!dir) {
                r = -errno;
                closep(&fd);
                return r;
        }
        while (r == 0 && (errno = 0, entry = readdir(dir))) {
                if (entry->d_name[0] != '.')
                        r = each(local, entry->d_name, arg);
        }
        return r != 0 ? r : -errno;
}

static int report_each(const struct local *local, const char *id, void *arg)
{
        return report(local, id, arg);
}

static int local_list(struct provider *p, struct call *c, struct box_sink *to)
{
        int r = walk(local_of(p), report_each, to);

        return r < 0 ? call_fail_errno(c, r, "list %s", local_of(p)->path) : 0;
}

/* ---- open ---- */

static int claim_each(const struct local *local, const char *id, void *arg)
{
        struct plan plan = {0};
        struct holder_id holder;
        int r;

        (void)arg;
        if (look_at(local, id, &plan, &holder) < 0)
                return 0;
        r = uids_claim(local->uids, plan.uid);
        plan_done(&plan);
        return r;
}

/* What a former run of ours died over; nobody else works here now. */
static void remove_halves(const struct local *local)
{
        int fd = openat(local->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;

        if (!dir)
                closep(&fd);
        while (dir && (entry = readdir(dir))) {
                if (strncmp(entry->d_name, BOX_HALF, strlen(BOX_HALF)) == 0) /* else next time */
                        (void)file_remove_tree(local->dir, entry->d_name);
        }
}

static int open_parts(struct local *local, const struct provider_config *config, struct call *c)
{
        const char *range = config_get(config, "uid-range");
        int r = 0;

        remove_halves(local);
        if (geteuid() == 0) {
                r = uids_new(range ? range : UIDS_DEFAULT, c, &local->uids);
                if (r == -EINVAL && config->source)
                        return call_wrap(c, r, "%s: ", config->source);
                if (r == 0)
                        r = walk(local, claim_each, NULL);
        }
        if (r == 0)
                r = cgroups_new(NULL, &local->cgroups);
        if (r == 0)
                r = hub_new(&local->hub);
        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "local provider") : r;
}

static int local_open(const struct provider_config *config, struct call *c, struct provider **ret)
{
        struct local *local = calloc(1, sizeof(*local));
        int r;

        if (!local)
                return call_fail(c, -ENOMEM, "out of memory");
        local->base.ops = &local_ops;
        local->base.allow = config->allow;
        local->dir = config->state_dir;
        local->path = config->state_path;
        local->owner = config->owner;
        local->helper_dir = config->helper_dir;
        local->listener = config->listener;
        r = open_parts(local, config, c);
        if (r < 0) {
                local_close(&local->base);
                return r;
        }
        *ret = &local->base;
        return 0;
}

static int local_check(struct provider *p, struct call *c, const struct spec *spec)
{
        struct plan plan;
        int r = plan_from_spec(spec, p->allow, cgroups_can(local_of(p)->cgroups), c, &plan);

        if (r == 0)
                plan_done(&plan);
        return r;
}

/* What both tables have; they differ in how the files are reached. */
#define LOCAL_COMMON                                                                               \
        .settings = SETTING_BIT(SETTING_CPU) | SETTING_BIT(SETTING_MEMORY) |                       \
                    SETTING_BIT(SETTING_PROCESSES) | SETTING_BIT(SETTING_TIMEOUT) |                \
                    SETTING_BIT(SETTING_CREATE_TIMEOUT) | SETTING_BIT(SETTING_NET) |               \
                    SETTING_BIT(SETTING_USER) | SETTING_BIT(SETTING_WORKDIR) |                     \
                    SETTING_BIT(SETTING_READONLY) | SETTING_BIT(SETTING_ISOLATION) |               \
                    SETTING_BIT(SETTING_ENV) | SETTING_BIT(SETTING_LABEL) |                        \
                    SETTING_BIT(SETTING_MOUNT),                                                    \
        .config_keys = config_keys, .open = local_open, .close = local_close,                      \
        .check = local_check, .create = local_create, .destroy = local_destroy,                    \
        .list = local_list, .state = local_state, .attach = local_attach,                          \
        .release = local_release, .start = local_start, .stop = local_stop, .pause = local_pause,  \
        .resume = local_resume, .exec_start = local_exec_start, .exec_attach = local_exec_attach,  \
        .exec_write = local_exec_write, .exec_signal = local_exec_signal,                          \
        .exec_release = local_exec_release, .is_quiet = local_is_quiet

const struct provider_ops local_ops = {
        LOCAL_COMMON,
        .name = "local",
        .traits = PROVIDER_DIRECT | PROVIDER_SURVIVES,
        .root = local_root,
};

const struct provider_ops local_cached_ops = {
        LOCAL_COMMON,
        .name = "local-cached",
        .traits = PROVIDER_SURVIVES | PROVIDER_FILES_WHEN_DOWN,
        .list_files = local_files_list,
        .stat = local_files_stat,
        .readlink = local_files_readlink,
        .fetch = local_files_fetch,
        .file_open = local_files_open,
        .file_read = local_files_read,
        .file_close = local_files_close,
        .apply = local_files_apply,
        .statfs = local_files_statfs,
        .workdir = local_files_workdir,
};
