/* SPDX-License-Identifier: Apache-2.0 */
/* Asking, single answers, birth. */

#include "fs/volume/meta.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/meta_tree.h"
#include "transport/base/random.h"

#define MAX_DEFAULT 1000000
#define ROOM_MIN 64

/* ---- asking ---- */

static void use(struct meta *m, struct entry *e) REQUIRES(m->lock)
{
        e->flags |= IS_USED;
        if ((e->flags & IS_COUNTED) == 0) {
                e->flags |= IS_COUNTED;
                m->used[e->batch]++;
        }
}

static bool fill_fact(struct meta *m, uint32_t slot, struct meta_fact *ret) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot);

        *ret = (struct meta_fact){
                .id = tree_id(m, slot),
                .exists = (e->flags & IS_ABSENT) == 0,
                .is_pinned = tree_is_pinned(m, e),
                .has_content = e->content != NULL,
                .was_quiet = (e->flags & WAS_QUIET) != 0,
                .batch = e->batch,
                .k = {.sent_ns = e->sent_ns, .epoch = e->epoch},
        };
        use(m, e);
        if (ret->exists) {
                tree_get_attrs(e, &ret->k.st);
                if (e->ino == 0)
                        ret->k.st.st_ino = tree_made_up_ino(m, e, 0);
                ret->k.sandbox_ino = e->server_ino;
        }
        if (!S_ISDIR(e->mode) && e->nlink > 1 &&
            ((e->sent_ns < m->links_ns && e->set_ns < m->links_ns) ||
             (e->sent_ns == 0 && e->server_ino != 0)))
                return false; /* of a pinned one the number of names can be told */
        return e->sent_ns != 0 || ret->is_pinned;
}

/* The last entry on the way to `path` that is known; *ret_rest: components of the path below it. */
static uint32_t resolve_far(const struct meta *m, const char *path, unsigned *ret_rest)
        REQUIRES(m->lock)
{
        uint32_t slot = TREE_ROOT;

        *ret_rest = 0;
        while (path[0] != '\0') {
                size_t size = strcspn(path, "/");
                uint32_t next = *ret_rest == 0 ? tree_find(m, slot, path, size) : 0;

                if (next != 0)
                        slot = next;
                else
                        ++*ret_rest;
                path += size + (path[size] == '/');
        }
        return slot;
}

/* Nothing is known of `path` itself; a directory above may be absent, or its own one is listed. */
static bool fill_absent(struct meta *m, const char *path, struct meta_fact *ret) REQUIRES(m->lock)
{
        unsigned rest;
        uint32_t slot = resolve_far(m, path, &rest);
        struct entry *e = tree_at(m, slot);

        if ((e->flags & IS_ABSENT) != 0) {
                *ret = (struct meta_fact){
                        .was_quiet = (e->flags & WAS_QUIET) != 0,
                        .batch = e->batch,
                        .k = {.sent_ns = e->sent_ns, .epoch = e->epoch},
                };
                return e->sent_ns != 0;
        }
        use(m, e);
        if ((e->kept & KEPT_THERE) != 0) {
                *ret = (struct meta_fact){.is_pinned = true, .k = {.epoch = e->epoch}};
                return true;
        }
        if (e->listed_ns == 0)
                return false;
        *ret = (struct meta_fact){
                .was_quiet = (e->flags & LISTED_QUIET) != 0,
                .batch = e->batch,
                .k = {.sent_ns = e->listed_ns, .epoch = e->listed_epoch},
        };
        return true;
}

bool meta_get(struct meta *m, const char *path, struct meta_fact *ret)
{
        uint32_t slot;
        bool is_known;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        is_known = slot != 0 ? fill_fact(m, slot, ret) : fill_absent(m, path, ret);
        mutex_unlock(&m->lock);
        return is_known;
}

bool meta_get_content(struct meta *m, const struct content_head *x, struct meta_fact *ret)
{
        uint32_t slot;
        bool is_known;

        mutex_lock(&m->lock);
        slot = tree_slot(m, x->entry);
        is_known = slot != 0 && fill_fact(m, slot, ret);
        mutex_unlock(&m->lock);
        return is_known;
}

bool meta_get_dir(struct meta *m, const char *path, struct meta_dir *ret)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot != 0) {
                struct entry *e = tree_at(m, slot);

                use(m, e);
                *ret = (struct meta_dir){
                        .id = tree_id(m, slot),
                        .is_listed = e->listed_ns != 0,
                        .is_huge = (e->flags & IS_HUGE) != 0,
                        .is_kept = (e->kept & KEPT_THERE) != 0,
                        .was_quiet = (e->flags & LISTED_QUIET) != 0,
                        .batch = e->listed_batch,
                        .count = e->count,
                        .sent_ns = e->listed_ns,
                        .epoch = e->listed_epoch,
                };
        }
        mutex_unlock(&m->lock);
        return slot != 0;
}

bool meta_get_target(struct meta *m, const char *path, char ret[META_TARGET_MAX + 1])
{
        const struct entry *e;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        e = slot != 0 ? tree_at(m, slot) : NULL;
        if (e && e->target)
                memcpy(ret, e->target, strlen(e->target) + 1);
        else
                e = NULL;
        mutex_unlock(&m->lock);
        return e != NULL;
}

uint32_t meta_batch_used(struct meta *m, uint16_t batch)
{
        uint32_t used;

        mutex_lock(&m->lock);
        used = m->used[batch];
        mutex_unlock(&m->lock);
        return used;
}

void meta_batch_begin(struct meta *m, uint16_t batch)
{
        mutex_lock(&m->lock);
        m->used[batch] = 0;
        mutex_unlock(&m->lock);
}

char *meta_content_path(struct meta *m, const struct content_head *x)
{
        char *path = NULL;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_slot(m, x->entry);
        if (slot != 0)
                path = tree_path(m, slot);
        mutex_unlock(&m->lock);
        return path;
}

size_t meta_count(struct meta *m)
{
        size_t count;

        mutex_lock(&m->lock);
        count = m->count;
        mutex_unlock(&m->lock);
        return count;
}

/* ---- single answers ---- */

int meta_put(struct meta *m, const char *path, const struct meta_source *source,
             const struct stat *st, const char *target)
{
        const char *name = tree_base_name(path);
        uint32_t dir = TREE_ROOT;
        int r;

        if (!tree_is_shown(st))
                return 0;
        mutex_lock(&m->lock);
        if (path[0] == '\0') {
                struct entry *e = tree_at(m, TREE_ROOT);

                r = S_ISDIR(st->st_mode) ? 0 : -ENOTDIR;
                if (r == 0 && e->sent_ns <= source->sent_ns && e->set_ns < source->sent_ns)
                        tree_learn(m, TREE_ROOT, source, st, NULL, false);
        } else {
                r = tree_is_name(name, strlen(name)) ? 0 : -EINVAL;
                if (r == 0)
                        r = tree_resolve_making(m, path, tree_dir_size(path), source->sent_ns,
                                                &dir);
                if (r == 0)
                        r = tree_merge(m, dir, name, strlen(name), source, st, target);
        }
        tree_unlock(m);
        return tree_pass_over(r);
}

void meta_put_absent(struct meta *m, const char *path, const struct meta_source *source)
{
        const char *name = tree_base_name(path);
        uint32_t dir, slot;
        int r;

        if (!tree_is_name(name, strlen(name)))
                return;
        mutex_lock(&m->lock);
        r = tree_resolve_making(m, path, tree_dir_size(path), source->sent_ns, &dir);
        slot = r == 0 ? tree_find(m, dir, name, strlen(name)) : 0;
        if (r == 0 && slot == 0) {
                r = tree_add(m, dir, name, strlen(name), &slot);
                if (r == 0) {
                        tree_at(m, slot)->flags |= IS_ABSENT;
                        tree_at(m, dir)->count--;
                }
        }
        if (r == 0 && tree_at(m, slot)->moved_ns < source->sent_ns &&
            tree_at(m, slot)->sent_ns <= source->sent_ns && !tree_has_pinned(m, slot))
                tree_vanish(m, slot, source);
        tree_unlock(m);
}

void meta_put_target(struct meta *m, const char *path, const char *target)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot != 0)
                tree_set_target(tree_at(m, slot), target);
        mutex_unlock(&m->lock);
}

/* A whole file was renamed into place in it: that is not what its times are to tell. */
static void keep_times(struct meta *m, uint32_t dir, const struct meta_source *source,
                       uint64_t now_ns) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, dir);

        if (e->mtime == 0)
                return; /* nobody has told any yet */
        tree_own_times(e, source);
        e->set_ns = now_ns;
}

bool meta_told(struct meta *m, const struct content_head *x, const struct meta_source *source,
               const struct stat *st, uint64_t ours_ns)
{
        bool is_its = false;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = S_ISREG(st->st_mode) ? tree_slot(m, x->entry) : 0;
        if (slot != 0) {
                struct entry *e = tree_at(m, slot);

                /* What waits to be sent goes to the path, whichever file has it. */
                is_its = ours_ns != 0 || tree_is_pinned(m, e) || !tree_is_other_file(e, st);
                if (ours_ns != 0) {
                        tree_learn(m, slot, source, st, NULL, true);
                        tree_note_links(m, e, ours_ns);
                        keep_times(m, e->parent, source, ours_ns);
                        e->set_ns = e->moved_ns = ours_ns; /* it is there by a change of ours */
                } else if (e->sent_ns <= source->sent_ns && e->set_ns < source->sent_ns &&
                           e->moved_ns < source->sent_ns &&
                           !(tree_is_pinned(m, e) && tree_is_other_file(e, st))) {
                        tree_learn(m, slot, source, st, NULL, false);
                }
        }
        tree_unlock(m);
        return is_its;
}

void meta_doubt(struct meta *m, const char *path)
{
        bool is_shadowed = false;
        uint32_t slot, dir;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        dir = path[0] != '\0'
                      ? tree_resolve(m, TREE_ROOT, path, tree_dir_size(path), 0, &is_shadowed)
                      : 0;
        if (slot != 0)
                tree_at(m, slot)->sent_ns = 0;
        if (dir != 0)
                tree_at(m, dir)->listed_ns = 0;
        mutex_unlock(&m->lock);
}

/* ---- birth ---- */

int meta_new(const struct meta_config *config, struct meta **ret)
{
        struct meta *m = calloc(1, sizeof(*m));
        uint32_t root = 0;
        int r;

        if (!m)
                return -ENOMEM;
        mutex_init(&m->lock);
        m->max = config->max ? config->max : MAX_DEFAULT;
        m->hooks = config->content;
        r = random_bytes(m->key, sizeof(m->key));
        mutex_lock(&m->lock);
        m->slot_count = TREE_ROOT;
        m->bucket_count = ROOM_MIN;
        m->buckets = calloc(ROOM_MIN, sizeof(*m->buckets));
        m->kept = imap_new();
        if (r == 0)
                r = m->buckets && m->kept ? tree_grow_slots(m) : -ENOMEM;
        if (r == 0)
                r = tree_add(m, 0, "", 0, &root);
        if (r == 0) {
                assert(root == TREE_ROOT);
                tree_at(m, TREE_ROOT)->mode = S_IFDIR | 0755;
                tree_at(m, TREE_ROOT)->nlink = 1;
        }
        mutex_unlock(&m->lock);
        if (r < 0)
                meta_free(m);
        else
                *ret = m;
        return r;
}

void meta_free(struct meta *m)
{
        if (!m)
                return;
        meta_drop_contents(m);
        mutex_lock(&m->lock);
        for (uint32_t i = TREE_ROOT; m->slots && i < m->slot_count; i++) {
                if ((m->slots[i].bits & 1) == 0) {
                        free(tree_at(m, i)->target);
                        free(tree_at(m, i));
                }
        }
        imap_free(m->kept);
        free(m->slots);
        free(m->buckets);
        free(m->lost);
        mutex_unlock(&m->lock);
        mutex_done(&m->lock);
        free(m);
}
