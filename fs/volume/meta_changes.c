/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of ours that the sandbox has carried out. */

#include "fs/volume/meta_tree.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/clock.h"

/* ---- changes of ours ---- */

/* Its names are others now: our clock's time until the sandbox tells its own. */
static void touch_dir(struct meta *m, uint32_t dir, const struct meta_source *source,
                      uint64_t now_ns) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, dir);
        uint64_t real_ns = clock_real_ns();

        e->mtime = e->ctime = (int64_t)(real_ns / NS_PER_S);
        e->mtime_ns = e->ctime_ns = (uint32_t)(real_ns % NS_PER_S);
        tree_own_times(e, source);
        e->set_ns = now_ns;
}

/* `st` of a file that stays the same one, also where the answer doesn't tell its inode. */
static struct stat of_same_file(const struct entry *e, const struct stat *st)
{
        struct stat same = *st;

        if (same.st_ino == 0)
                same.st_ino = e->server_ino;
        return same;
}

int meta_made(struct meta *m, const char *path, const struct meta_source *source,
              const struct stat *st, const char *target, uint64_t now_ns,
              const struct content_head *x)
{
        uint32_t slot;
        int r;

        mutex_lock(&m->lock);
        r = tree_take_place(m, path, &slot);
        if (r == 0) {
                struct entry *e = tree_at(m, slot);

                tree_vanish(m, slot, source);
                tree_revive(m, slot, 0);
                e->moved_ns = e->set_ns = now_ns; /* before its number is made up */
                tree_learn(m, slot, source, st, target, false);
                if (S_ISDIR(st->st_mode)) { /* nothing is in it */
                        e->listed_ns = source->sent_ns;
                        e->listed_epoch = (uint32_t)source->epoch;
                        e->flags |= source->was_quiet ? LISTED_QUIET : 0;
                }
                if (x && x->entry == 0) {
                        e->content = m->hooks.ref(tree_content(x));
                        tree_head(e->content)->entry = tree_id(m, slot);
                }
                touch_dir(m, e->parent, source, now_ns);
        }
        tree_unlock(m);
        return r;
}

void meta_own_times(struct meta *m, const char *path, const struct meta_source *source)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot != 0 && tree_at(m, slot)->sent_ns == source->sent_ns)
                tree_own_times(tree_at(m, slot), source);
        mutex_unlock(&m->lock);
}

int meta_linked(struct meta *m, const char *path, const char *new_path,
                const struct meta_source *source, const struct stat *st, uint64_t now_ns)
{
        uint32_t slot, from;
        struct stat same;
        int r;

        mutex_lock(&m->lock);
        r = tree_take_place(m, new_path, &slot);
        if (r == 0) {
                tree_vanish(m, slot, source);
                tree_revive(m, slot, 0);
                tree_at(m, slot)->moved_ns = tree_at(m, slot)->set_ns = now_ns;
                tree_learn(m, slot, source, st, NULL, false);
                touch_dir(m, tree_at(m, slot)->parent, source, now_ns);
                from = tree_seek(m, path);
                if (from != 0 && ((tree_at(m, from)->mode ^ st->st_mode) & S_IFMT) == 0) {
                        same = of_same_file(tree_at(m, from), st);
                        tree_learn(m, from, source, &same, NULL, true);
                        tree_at(m, from)->set_ns = now_ns;
                        tree_note_links(m, tree_at(m, from), now_ns);
                        tree_at(m, slot)->ino = tree_at(m, from)->ino;
                        if (S_ISLNK(st->st_mode) && tree_at(m, from)->target)
                                tree_set_target(tree_at(m, slot), tree_at(m, from)->target);
                }
        }
        tree_unlock(m);
        return r;
}

void meta_set(struct meta *m, const char *path, const struct meta_source *source,
              const struct stat *st, bool is_here, uint64_t now_ns)
{
        uint32_t slot;

        if (!tree_is_shown(st))
                return;
        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot != 0 && (tree_at(m, slot)->flags & IS_ABSENT) == 0 &&
            ((tree_at(m, slot)->mode ^ st->st_mode) & S_IFMT) == 0) {
                struct entry *e = tree_at(m, slot);

                if (is_here) {
                        e->flags &= (uint8_t) ~(TIMES_OURS | TIMES_OPEN);
                        e->kept &= (uint8_t)~KEPT_MODE;
                }
                tree_learn(m, slot, source, st, NULL, false);
                if (is_here && !S_ISREG(st->st_mode))
                        tree_own_times(e, source);
                e->set_ns = now_ns;
                tree_note_links(m, e, now_ns);
        }
        tree_unlock(m);
}

void meta_links_sent(struct meta *m, uint64_t now_ns)
{
        mutex_lock(&m->lock);
        m->links_ns = now_ns;
        mutex_unlock(&m->lock);
}

void meta_sent(struct meta *m, const char *path, const struct meta_source *source)
{
        bool is_shadowed;
        uint32_t dir;

        mutex_lock(&m->lock);
        dir = tree_resolve(m, TREE_ROOT, path, tree_dir_size(path), 0, &is_shadowed);
        if (dir != 0 && (tree_at(m, dir)->flags & TIMES_OURS) != 0)
                tree_own_times(tree_at(m, dir), source);
        mutex_unlock(&m->lock);
}

void meta_removed(struct meta *m, const char *path, const struct meta_source *source,
                  uint64_t now_ns)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        if (tree_take_place(m, path, &slot) == 0) {
                tree_note_links(m, tree_at(m, slot), now_ns);
                tree_vanish(m, slot, source);
                tree_at(m, slot)->moved_ns = now_ns;
                touch_dir(m, tree_at(m, slot)->parent, source, now_ns);
        }
        tree_unlock(m);
}

/* The detached entry `slot` under a name that may be longer; its address may change. */
static int rename_entry(struct meta *m, uint32_t slot, const char *name) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot), *moved;
        size_t size = strlen(name);

        if (size + 1 <= e->room) {
                memcpy(e->name, name, size + 1);
                return 0;
        }
        moved = tree_new_entry(name, size);
        if (!moved)
                return -ENOMEM;
        memcpy(moved, e, offsetof(struct entry, name));
        moved->room = (uint16_t)(size + 1);
        m->slots[slot].entry = moved;
        free(e);
        return 0;
}

static bool is_below(const struct meta *m, uint32_t slot, uint32_t above) REQUIRES(m->lock)
{
        while (slot != TREE_ROOT && slot != above)
                slot = tree_at(m, slot)->parent;
        return slot == above;
}

/* Move the entry `slot` to where `to` is absent. */
static int move_entry(struct meta *m, uint32_t slot, uint32_t to, uint64_t now_ns) REQUIRES(m->lock)
{
        uint32_t parent = tree_at(m, to)->parent;
        int r;

        if (is_below(m, parent, slot))
                return -EINVAL; /* the two trees disagree: then nothing is known */
        tree_detach(m, slot);
        r = rename_entry(m, slot, tree_at(m, to)->name);
        if (r < 0) {
                tree_attach(m, slot, parent); /* under its old name, to be removed as a whole */
                tree_drop(m, slot);
                return r;
        }
        tree_drop(m, to);
        tree_attach(m, slot, parent);
        tree_at(m, slot)->moved_ns = now_ns;
        return 0;
}

static int move_locked(struct meta *m, uint32_t slot, const char *path, const char *new_path,
                       const struct meta_source *source, uint64_t now_ns) REQUIRES(m->lock)
{
        uint64_t id = tree_id(m, slot);
        uint32_t to, old;
        int r = tree_take_place(m, new_path, &to);

        if (r < 0 || to == slot || tree_slot(m, id) != slot)
                return r;
        tree_note_links(m, tree_at(m, to), now_ns);
        tree_vanish(m, to, source);
        tree_at(m, to)->moved_ns = now_ns;
        if (tree_slot(m, id) != slot)
                return 0; /* it was below what was replaced: nothing is known of it */
        touch_dir(m, tree_at(m, to)->parent, source, now_ns);
        touch_dir(m, tree_at(m, slot)->parent, source, now_ns);
        r = move_entry(m, slot, to, now_ns);
        if (r == 0 && tree_take_place(m, path, &old) == 0) {
                tree_vanish(m, old, source);
                tree_at(m, old)->moved_ns = now_ns;
        }
        return r;
}

int meta_moved(struct meta *m, const char *path, const char *new_path,
               const struct meta_source *source, const struct stat *st, uint64_t now_ns)
{
        struct stat same;
        uint32_t slot;
        int r = 0;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot > TREE_ROOT && (tree_at(m, slot)->flags & IS_ABSENT) == 0) {
                uint64_t id = tree_id(m, slot);

                r = move_locked(m, slot, path, new_path, source, now_ns);
                slot = tree_slot(m, id);
                if (slot != 0 && st && ((tree_at(m, slot)->mode ^ st->st_mode) & S_IFMT) == 0 &&
                    !tree_is_pinned(m, tree_at(m, slot))) {
                        same = of_same_file(tree_at(m, slot), st);
                        tree_learn(m, slot, source, &same, NULL, true);
                        tree_at(m, slot)->set_ns = now_ns;
                }
        } else {
                uint32_t to;

                /* Nothing was known of it: what was at the other name isn't true any more. */
                if (tree_take_place(m, new_path, &to) == 0) {
                        tree_vanish(m, to, source);
                        tree_revive(m, to, 0);
                        tree_at(m, to)->moved_ns = now_ns;
                        if (st && tree_is_shown(st))
                                tree_learn(m, to, source, st, NULL, false);
                }
                if (tree_take_place(m, path, &slot) == 0) {
                        tree_vanish(m, slot, source);
                        tree_at(m, slot)->moved_ns = now_ns;
                }
        }
        tree_unlock(m);
        return r;
}
