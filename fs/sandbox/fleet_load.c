/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What former runs left: every record becomes a sandbox again, under its name; workers re-attach
 * them. A damaged record is kept aside (its directory becomes KEY.damaged), a directory without a
 * record is cleared away: nothing was ever made for it.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/log.h"

static void put_aside(struct fleet *f, const char *key)
{
        char from[300], to[320];

        (void)snprintf(from, sizeof(from), "sandboxes/%.255s", key);
        (void)snprintf(to, sizeof(to), "%s.damaged", from);
        if (renameat(f->state_dir, from, f->state_dir, to) < 0)
                log_error("%s/%s: %s", f->state_path, from, errno_name(errno));
        log_error("%s/%s/record is damaged: its sandbox can't be shown; it is kept as %s",
                  f->state_path, from, to);
}

static void begin(struct sandbox *sb)
{
        struct job *j;
        bool is_destroying;

        mutex_lock(&sb->lock);
        is_destroying = sb->is_destroying;
        mutex_unlock(&sb->lock);
        if (is_destroying) {
                destroy_accept(sb, NULL, 0);
                return;
        }
        j = job_new(JOB_ATTACH, NULL, 0);
        if (!j)
                return; /* shown, but as unreachable as it would be without its provider */
        mutex_lock(&sb->lock);
        sandbox_enqueue_locked(sb, j, false);
        mutex_unlock(&sb->lock);
        sandbox_kick(sb);
}

static int add(struct fleet *f, struct sandbox *sb)
{
        int r;

        mutex_lock(&f->lock);
        if (sb->serial > f->last_serial)
                f->last_serial = sb->serial;
        r = imap_get(f->by_serial, sb->serial) ? -EEXIST : fleet_insert_locked(f, sb);
        if (r == 0 && !sb->is_destroying)
                r = fleet_add_name_locked(f, sb, sb->name);
        mutex_unlock(&f->lock);
        if (r == -EEXIST) /* a crash in a rename, or files that were copied: none is lost */
                r = fleet_give_name(f, sb, sb->name);
        return r;
}

static void load_one(struct fleet *f, const char *key)
{
        struct sandbox *sb = NULL;
        int r;

        if (strchr(key, '.'))
                return; /* ., .., and what was put aside */
        r = sandbox_load(f, key, &sb);
        if (!sb) {
                char path[300];

                (void)snprintf(path, sizeof(path), "sandboxes/%.255s", key);
                if (r == -EBADMSG)
                        put_aside(f, key);
                else if (r == -ENOENT)
                        (void)file_remove_tree(f->state_dir, path); /* the next start tries again */
                else
                        log_error("%s/%s: %s", f->state_path, path, errno_name(r));
                return;
        }
        if (r < 0)
                log_error("%s/%s/exec: %s: its commands can't be shown", f->state_path, sb->path,
                          errno_name(r));
        r = add(f, sb);
        if (r < 0) {
                log_error("%s/%s: %s", f->state_path, sb->path, errno_name(r));
                sandbox_unref(sb);
        }
}

static void drop_numbers_given(struct fleet *f)
{
        mutex_lock(&f->lock);
        if (f->saved_serial < f->last_serial)
                f->saved_serial = f->last_serial;
        f->last_serial = f->saved_serial; /* what a crash left of a block is not given again */
        mutex_unlock(&f->lock);
}

void fleet_load(struct fleet *f)
{
        _cleanup_(closedirp) DIR *dir = NULL;
        const struct dirent *e;
        struct sandbox **all;
        size_t count;
        int fd = openat(f->state_dir, "sandboxes", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir) {
                log_error("%s/sandboxes: %s", f->state_path, errno_name(errno));
                return;
        }
        while ((e = readdir(dir))) // NOLINT(concurrency-mt-unsafe): a DIR of our own
                load_one(f, e->d_name);
        drop_numbers_given(f);
        all = fleet_all(f, &count);
        for (size_t i = 0; i < count; i++) {
                begin(all[i]);
                sandbox_unref(all[i]);
        }
        free(all);
}
