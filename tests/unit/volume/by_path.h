/* SPDX-License-Identifier: Apache-2.0 */
/* What is done by name in a world, by paths. */
#pragma once

#include "tests/unit/volume/content_support.h"

/* The directory of a path, and where its name begins. */
static inline uint64_t dir_of(struct world *w, const char *path, const char **ret_name)
{
        const char *slash = strrchr(path, '/');
        char dir[256] = "";

        if (slash)
                (void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
        *ret_name = slash ? slash + 1 : path;
        return node_of(w, dir);
}

static inline int make_dir(struct world *w, const char *path)
{
        const char *name;
        uint64_t dir = dir_of(w, path, &name);
        struct vol_entry e;
        struct asking a;

        return dir ? w->ops->mkdir(w->v, ask(&a, true), dir, name, 0755, &e) : -ENOENT;
}

static inline int make_link(struct world *w, const char *path, const char *target)
{
        const char *name;
        uint64_t dir = dir_of(w, path, &name);
        struct vol_entry e;
        struct asking a;

        return w->ops->symlink(w->v, ask(&a, true), dir, name, target, &e);
}

static inline int remove_at(struct world *w, const char *path, bool is_dir)
{
        const char *name;
        uint64_t dir = dir_of(w, path, &name);
        struct asking a;

        if (!dir)
                return -ENOENT;
        return is_dir ? w->ops->rmdir(w->v, ask(&a, true), dir, name)
                      : w->ops->unlink(w->v, ask(&a, true), dir, name);
}

static inline int move(struct world *w, const char *from, const char *to)
{
        const char *name, *new_name;
        uint64_t dir = dir_of(w, from, &name), new_dir = dir_of(w, to, &new_name);
        struct asking a;

        if (!dir || !new_dir)
                return -ENOENT;
        return w->ops->rename(w->v, ask(&a, true), dir, name, new_dir, new_name, 0);
}

static inline int set_mode(struct world *w, const char *path, mode_t mode)
{
        struct stat to = {.st_mode = mode};
        struct vol_entry e;
        struct asking a;

        return w->ops->setattr(w->v, ask(&a, true), node_of(w, path), NULL, VOL_SET_MODE, &to, &e);
}

static inline bool is_there(struct world *w, const char *path)
{
        struct stat st;

        return fstatat(w->box.dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}
