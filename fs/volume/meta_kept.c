/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of names and modes that the sandbox refused: shown all the same, until it is decided. */

#include "fs/volume/meta_tree.h"

#include <stdlib.h>
#include <string.h>

/* The entry at `path` is something else than what is kept: made anew. */
static void make_kept(struct meta *m, uint32_t slot, const struct meta_source *source,
                      const struct stat *st, const char *target) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot);

        if ((e->flags & IS_ABSENT) == 0 && ((e->mode ^ st->st_mode) & S_IFMT) == 0 && e->ino != 0)
                return;
        tree_vanish(m, slot, source);
        tree_revive(m, slot, 0);
        e->moved_ns = e->set_ns = source->sent_ns;
        tree_learn(m, slot, source, st, target, false);
}

int meta_keep_made(struct meta *m, const char *path, const struct meta_source *source,
                   const struct stat *st, const char *target)
{
        uint32_t slot;
        int r;

        mutex_lock(&m->lock);
        r = tree_take_place(m, path, &slot);
        if (r == 0) {
                make_kept(m, slot, source, st, target);
                tree_at(m, slot)->kept = KEPT_THERE;
        }
        tree_unlock(m);
        return r;
}

int meta_keep_removed(struct meta *m, const char *path, const struct meta_source *source)
{
        uint32_t slot;
        int r;

        mutex_lock(&m->lock);
        r = tree_take_place(m, path, &slot);
        if (r == 0) {
                tree_vanish(m, slot, source);
                tree_at(m, slot)->kept = KEPT_ABSENT;
        }
        tree_unlock(m);
        return r;
}

void meta_keep_mode(struct meta *m, const char *path, mode_t mode)
{
        struct entry *e;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        e = slot != 0 ? tree_at(m, slot) : NULL;
        if (e && (e->flags & IS_ABSENT) == 0) {
                e->kept |= KEPT_MODE;
                e->kept_mode = mode & 07777;
        }
        mutex_unlock(&m->lock);
}

void meta_let(struct meta *m, const char *path)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot != 0)
                tree_at(m, slot)->kept = 0;
        mutex_unlock(&m->lock);
        meta_doubt(m, path);
}
