/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox and its directory: made, found again, shown, removed. Its holder's life is life.c. */

#include "providers/local/local.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/local/cgroup.h"
#include "providers/local/uids.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/process.h"

struct local *local_of(struct provider *p)
{
        return container_of(p, struct local, base);
}

struct local_box *local_box(struct box *b)
{
        return container_of(b, struct local_box, base);
}

bool box_has_limits(const struct plan *p)
{
        return p->cpu_milli > 0 || p->memory > 0 || p->processes > 0;
}

int box_open_dir(const struct local *local, const char *id)
{
        int fd = openat(local->dir, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

/* Ids are keys: letters and digits, so that none leads anywhere else. */
static bool is_id(const char *id)
{
        size_t length = strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789");

        return length > 0 && length < sizeof(((struct spec *)0)->key) && id[length] == '\0';
}

/* Takes over the plan. */
static struct local_box *box_new(struct local *local, const char *id, struct plan *plan)
{
        struct local_box *b = calloc(1, sizeof(*b));

        if (!b)
                return NULL;
        b->base.provider = &local->base;
        (void)snprintf(b->base.id, sizeof(b->base.id), "%s", id);
        b->local = local;
        b->plan = *plan;
        *plan = (struct plan){0};
        mutex_init(&b->lock);
        cond_init(&b->changed);
        b->process.fd = b->conn.source.fd = -1;
        list_init(&b->waits);
        list_init(&b->execs_list);
        atomic_init(&b->is_quiet, true);
        b->state = BOX_STOPPED;
        return b;
}

void local_release(struct box *box)
{
        struct local_box *b = local_box(box);

        assert(list_is_empty(&b->execs_list)); /* execs are released before their box */
        mutex_lock(&b->lock);
        b->is_released = true;
        mutex_unlock(&b->lock);
        /* From here on the hub's functions return at once: descriptors are ours. */
        hub_sync(b->local->hub);
        conn_close(b);
        if (b->process.fd >= 0) {
                hub_remove(b->local->hub, &b->process);
                closep(&b->process.fd);
        }
        plan_done(&b->plan);
        cond_done(&b->changed);
        mutex_done(&b->lock);
        free(b);
}

/* ---- create ---- */

struct half {
        char name[sizeof(BOX_HALF) + 128];
};

/* Where a sandbox's directory is while it isn't whole. */
static struct half half_of(const char *id)
{
        struct half half;

        (void)snprintf(half.name, sizeof(half.name), BOX_HALF "%.127s", id);
        return half;
}

static void remove_dir(const struct local *local, const char *id)
{
        /* the failure to tell is the one before; list() still shows it */
        (void)file_remove_tree(local->dir, id);
}

static int make_workspace(const struct local *local, int dir, const struct plan *plan)
{
        if (mkdirat(dir, "workspace", 0700) < 0)
                return -errno;
        if (fchmodat(dir, "workspace", 0700, 0) < 0) /* whatever the umask */
                return -errno;
        if (local->uids &&
            fchownat(dir, "workspace", plan->uid, plan->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

static int fill_dir(const struct local *local, const char *name, mode_t mode,
                    const struct plan *plan)
{
        _cleanup_(closep) int dir = box_open_dir(local, name);
        const struct holder_id none = {0};
        int r = dir < 0 ? dir : fchmod(dir, mode) < 0 ? -errno : 0;

        if (r == 0)
                r = make_workspace(local, dir, plan);
        return r == 0 ? plan_save(plan, &none, dir, RECORD_SYNC) : r;
}

/*
 * The directory with its workspace and record, there at one stroke: if we die half-way, it can be
 * made again. What is there already is not ours to touch.
 */
static int make_dir(struct local *local, const struct spec *spec, const struct plan *plan,
                    struct call *c)
{
        const struct half half = half_of(spec->key);
        mode_t mode = local->uids ? 0711 : 0700;
        int r = mkdirat(local->dir, half.name, mode) < 0 ? -errno
                                                         : fill_dir(local, half.name, mode, plan);

        if (r == 0 && renameat(local->dir, half.name, local->dir, spec->key) < 0)
                r = errno == ENOTEMPTY ? -EEXIST : -errno;
        if (r < 0) {
                remove_dir(local, half.name);
                return call_fail_errno(c, r, "%s/%s", local->path, spec->key);
        }
        return 0;
}

static int take_uid(struct local *local, const char *key, struct plan *plan, struct call *c)
{
        int r = 0;

        plan->uid = geteuid();
        plan->gid = getegid();
        if (local->uids) {
                r = uids_take(local->uids, key, &plan->uid);
                plan->gid = plan->uid;
        }
        if (r == -EDQUOT)
                return call_fail(c, r, "uid-range is used up: each sandbox needs a uid of its own");
        return r;
}

static void give_uid(struct local *local, uid_t uid)
{
        if (local->uids)
                uids_give(local->uids, uid);
}

/* commands see the real path without bwrap: it must fit where they are told. */
static int check_path(const struct local *local, const char *key, const struct plan *plan,
                      struct call *c)
{
        if (!plan->is_isolated && strlen(local->path) + strlen(key) + sizeof("//workspace") >
                                          sizeof(((struct box_root *)0)->inside))
                return call_fail(c, -ENAMETOOLONG,
                                 "isolation=none: the state directory's path is too long");
        return 0;
}

static void plan_donep(struct plan *p)
{
        plan_done(p);
}

static int bring_to_life(struct local_box *b, struct call *c, const struct spec *spec)
{
        int r;

        mutex_lock(&b->lock);
        b->is_changing = true;
        b->state = BOX_STARTING;
        mutex_unlock(&b->lock);
        r = life_launch(b, c, spec);
        mutex_lock(&b->lock);
        life_end_locked(b, BOX_RUNNING);
        mutex_unlock(&b->lock);
        return r;
}

int local_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret)
{
        struct local *local = local_of(p);
        _cleanup_(plan_donep) struct plan plan = {0};
        struct local_box *b;
        uid_t uid;
        int r;

        if (!is_id(spec->key))
                return call_fail(c, -EINVAL, "key \"%s\"", spec->key);
        r = plan_from_spec(spec, p->allow, cgroups_can(local->cgroups), c, &plan);
        if (r == 0)
                r = check_path(local, spec->key, &plan, c);
        if (r == 0)
                r = take_uid(local, spec->key, &plan, c);
        if (r < 0)
                return r;
        uid = plan.uid;
        r = make_dir(local, spec, &plan, c);
        if (r < 0) {
                give_uid(local, uid);
                return r;
        }
        b = box_new(local, spec->key, &plan);
        r = b ? bring_to_life(b, c, spec) : -ENOMEM;
        if (r < 0) {
                if (b)
                        local_release(&b->base);
                remove_dir(local, spec->key);
                give_uid(local, uid);
                return r;
        }
        *ret = &b->base;
        return 0;
}

/* ---- attach ---- */

/* The record is damaged or was never written: what the caller knows, and whose the files are. */
static int guess_plan(const struct local *local, int dir, const struct spec *spec, struct call *c,
                      struct plan *ret)
{
        struct stat st;
        int r;

        if (!spec)
                return call_fail(c, -EBADMSG, "the record of the sandbox is damaged");
        r = plan_from_spec(spec, local->base.allow, cgroups_can(local->cgroups), c, ret);
        if (r < 0)
                return r;
        if (fstatat(dir, "workspace", &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_uid == 0) {
                plan_done(ret);
                return call_fail(c, -EBADMSG, "the record of the sandbox is damaged");
        }
        ret->uid = st.st_uid;
        ret->gid = st.st_gid;
        return 0;
}

static int find_holder(struct local_box *b, int dir, const struct holder_id *holder, struct call *c)
{
        int pidfd;

        if (holder->pid > 0 && process_open(holder->pid, holder->start_ticks, &pidfd) == 0)
                return life_adopt(b, dir, pidfd, holder, c);
        if (box_has_limits(&b->plan))
                cgroup_remove(b->local->cgroups, b->base.id);
        return 0;
}

int local_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                 struct box **ret)
{
        struct local *local = local_of(p);
        _cleanup_(plan_donep) struct plan plan = {0};
        _cleanup_(closep) int dir = -1;
        struct holder_id holder = {0};
        struct local_box *b;
        int r;

        if (!is_id(id))
                return call_fail(c, -EINVAL, "\"%s\" is no local sandbox's id", id);
        dir = box_open_dir(local, id);
        if (dir < 0)
                return dir == -ENOENT ? call_fail(c, -ENODEV, "the sandbox is gone")
                                      : call_fail_errno(c, dir, "%s/%s", local->path, id);
        r = plan_load(dir, &plan, &holder);
        if (r == -EBADMSG || r == -ENOENT)
                r = guess_plan(local, dir, spec, c, &plan);
        else if (r < 0)
                return call_fail_errno(c, r, "record of the sandbox");
        if (r == 0 && local->uids)
                r = uids_claim(local->uids, plan.uid);
        if (r < 0)
                return r;
        b = box_new(local, id, &plan);
        if (!b)
                return -ENOMEM;
        r = find_holder(b, dir, &holder, c);
        if (r < 0) {
                local_release(&b->base);
                return r;
        }
        *ret = &b->base;
        return 0;
}

/* ---- destroy ---- */

/* Until the workspace has gone, the sandbox is found again; the rest goes at one stroke. */
static int remove_files(struct local_box *b, struct call *c)
{
        _cleanup_(closep) int dir = box_open_dir(b->local, b->base.id);
        const struct half half = half_of(b->base.id);
        int r = dir == -ENOENT ? 0 : dir < 0 ? dir : file_remove_tree(dir, "workspace");

        if (r == 0 && renameat(b->local->dir, b->base.id, b->local->dir, half.name) < 0 &&
            errno != ENOENT)
                r = -errno;
        if (r == 0)
                r = file_remove_tree(b->local->dir, half.name);
        return r < 0 ? call_fail_errno(c, r, "remove %s/%s", b->local->path, b->base.id) : 0;
}

int local_destroy(struct box *box, struct call *c)
{
        struct local_box *b = local_box(box);
        bool was_gone;
        int r;

        mutex_lock(&b->lock);
        r = life_begin_locked(b, c);
        if (r < 0) {
                mutex_unlock(&b->lock);
                return r;
        }
        was_gone = b->state == BOX_GONE;
        b->state = BOX_DESTROYING;
        b->is_expected = true;
        mutex_unlock(&b->lock);
        if (!was_gone)
                r = life_kill(b, c);
        if (r == 0 && !was_gone)
                r = remove_files(b, c);
        if (r == 0 && !was_gone)
                give_uid(b->local, b->plan.uid);
        mutex_lock(&b->lock);
        if (r < 0)
                (void)snprintf(b->sentence, sizeof(b->sentence), "%.255s", c->sentence);
        life_end_locked(b, r == 0 ? BOX_GONE : BOX_ERROR);
        mutex_unlock(&b->lock);
        return r;
}

/* ---- state ---- */

int local_state(struct box *box, struct call *c, struct box_status *ret)
{
        struct local_box *b = local_box(box);
        bool has_ended = life_has_ended(b);

        (void)c; /* from memory */
        *ret = (struct box_status){0};
        mutex_lock(&b->lock);
        ret->state = has_ended && (b->state == BOX_RUNNING || b->state == BOX_PAUSED) ? BOX_STOPPED
                                                                                      : b->state;
        if (ret->state == BOX_STOPPED || ret->state == BOX_ERROR)
                memcpy(ret->sentence, b->sentence, sizeof(ret->sentence));
        if (ret->state != b->state && !ret->sentence[0]) /* the hub is about to say so */
                (void)snprintf(ret->sentence, sizeof(ret->sentence), LIFE_ENDED);
        mutex_unlock(&b->lock);
        (void)snprintf(ret->raw, sizeof(ret->raw), "%s", box_state_name(ret->state));
        if (!has_ended) {
                ret->cpu_milli = b->plan.cpu_milli;
                ret->memory = b->plan.memory;
        }
        return 0;
}

bool local_is_quiet(const struct box *box)
{
        return atomic_load(&local_box((struct box *)(uintptr_t)box)->is_quiet);
}

int local_root(struct box *box, struct call *c, struct box_root *ret)
{
        struct local_box *b = local_box(box);
        _cleanup_(closep) int dir = box_open_dir(b->local, b->base.id);
        struct box_root root = {.fd = -1, .uid = b->plan.uid, .gid = b->plan.gid};

        if (dir >= 0)
                root.fd = openat(dir, "workspace", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (root.fd < 0)
                return dir == -ENOENT || (dir >= 0 && errno == ENOENT)
                               ? call_fail(c, -ENODEV, "the sandbox is gone")
                               : call_fail_errno(c, dir < 0 ? dir : -errno, "workspace");
        if (b->plan.is_isolated)
                (void)snprintf(root.inside, sizeof(root.inside), "%s", b->plan.workdir);
        else
                (void)snprintf(root.inside, sizeof(root.inside), "%s/%s/workspace", b->local->path,
                               b->base.id);
        *ret = root;
        return 0;
}
