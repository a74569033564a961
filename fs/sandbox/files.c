/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox is for its volume: where its files are, and what has not reached them yet. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/sandbox/private.h"

bool sandbox_is_direct(const struct sandbox *sb)
{
        return sb->section && sb->section->provider &&
               (sb->section->provider->ops->traits & PROVIDER_DIRECT) != 0;
}

/* Its box, as far as there is one; *ret_state what state it is in. */
static int find_box(struct sandbox *sb, struct call *c, struct box **ret, enum box_state *ret_state)
{
        struct box *box;
        bool is_coming;

        mutex_lock(&sb->lock);
        box = sb->box;
        *ret_state = sb->state;
        is_coming = sb->current == JOB_CREATE || sb->current == JOB_ATTACH ||
                    sb->current == JOB_ADOPT || !list_is_empty(&sb->jobs);
        mutex_unlock(&sb->lock);

        if (*ret_state == BOX_DESTROYING || *ret_state == BOX_GONE)
                return call_fail(c, -ENODEV, "the sandbox is %s", box_state_name(*ret_state));
        if (!sb->section || !sb->section->provider)
                return call_fail(c, -EHOSTUNREACH, "provider %s is not there", sb->provider);
        if (!box && is_coming)
                return call_fail(c, -EINPROGRESS, "the sandbox is being created");
        if (!box) {
                bool is_known = *ret_state != BOX_UNKNOWN; /* else attaching it has failed so far */
                int r = is_known ? -ENODEV : -EHOSTUNREACH;

                mutex_lock(&sb->lock);
                (void)call_fail(c, r, "the sandbox %s: %s",
                                is_known ? "was not created" : "can't be reached", sb->last_error);
                mutex_unlock(&sb->lock);
                return r;
        }
        *ret = box;
        return 0;
}

int sandbox_root(struct sandbox *sb, struct call *c, struct box_root *ret)
{
        enum box_state state;
        struct box *box = NULL;
        int r = find_box(sb, c, &box, &state);

        if (r < 0)
                return r;
        if (!sandbox_is_direct(sb))
                return call_fail(c, -EOPNOTSUPP, "provider %s has no directory on this machine",
                                 sb->provider);
        return box_root(box, c, ret);
}

int sandbox_files(struct sandbox *sb, struct call *c, struct box **ret)
{
        enum box_state state = BOX_UNKNOWN;
        struct box *box = NULL;
        int r = find_box(sb, c, &box, &state);
        bool is_down = state == BOX_PAUSED || state == BOX_PAUSING || state == BOX_STOPPED ||
                       state == BOX_STOPPING;

        if (r < 0)
                return r;
        if (is_down && (box->provider->ops->traits & PROVIDER_FILES_WHEN_DOWN) == 0)
                return call_fail(c, -EHOSTDOWN, "the sandbox is %s: write `%s` to its ctl",
                                 box_state_name(state),
                                 state == BOX_PAUSED || state == BOX_PAUSING ? "resume" : "start");
        *ret = box;
        return 0;
}

bool sandbox_is_quiet(struct sandbox *sb)
{
        struct box *box;
        bool is_running_job;

        mutex_lock(&sb->lock);
        box = sb->box;
        is_running_job = sb->current != JOB_NONE;
        mutex_unlock(&sb->lock);
        return box && !is_running_job && box_is_quiet(box);
}

int sandbox_open_volume_dir(struct sandbox *sb)
{
        char path[sizeof(sb->path) + 16];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/volume", sb->path);
        if (mkdirat(sb->fleet->state_dir, path, 0700) < 0 && errno != EEXIST)
                return -errno;
        fd = openat(sb->fleet->state_dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        return fd < 0 ? -errno : fd;
}

uint64_t sandbox_dirty_turn(struct sandbox *sb)
{
        return atomic_fetch_add(&sb->dirty_turns, 1) + 1;
}

void sandbox_set_dirty(struct sandbox *sb, uint64_t turn, uint64_t files, uint64_t bytes,
                       uint64_t unsent)
{
        bool holds_up; /* what an idle time-out does */

        mutex_lock(&sb->lock);
        if (turn < sb->dirty_turn) {
                mutex_unlock(&sb->lock);
                return;
        }
        sb->dirty_turn = turn;
        holds_up = sb->dirty_files > 0 || sb->unsent > 0;
        if (sb->unsent != unsent)
                sb->unsent_real_ns = clock_real_ns();
        if (sb->dirty_files != files || sb->dirty_bytes != bytes || sb->unsent != unsent) {
                sb->dirty_files = files;
                sb->dirty_bytes = bytes;
                sb->unsent = unsent;
                if (holds_up && files == 0)
                        sandbox_plan_idle_locked(sb);
                sandbox_change_locked(sb);
        }
        mutex_unlock(&sb->lock);
        news_deliver(sb->fleet);
}

int sandbox_deliver(struct sandbox *sb, struct call *c)
{
        const struct listener *l = &sb->fleet->listener;

        return l->deliver ? l->deliver(l->ctx, sb, c) : 0;
}

int sandbox_check_unsent(struct sandbox *sb, struct call *c)
{
        const struct listener *l = &sb->fleet->listener;

        return l->check_unsent ? l->check_unsent(l->ctx, sb, c) : 0;
}
