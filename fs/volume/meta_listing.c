/* SPDX-License-Identifier: Apache-2.0 */
/* Listings, entered as they come. */

#include "fs/volume/meta_tree.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"

/* ---- listings ---- */

int meta_listing_begin(struct meta *m, const char *base, const struct meta_source *source,
                       struct meta_listing *ret)
{
        assert(source->sent_ns > 0 && source->batch < META_BATCHES);
        *ret = (struct meta_listing){.m = m, .source = *source, .base = strdup(base)};
        return ret->base ? 0 : -ENOMEM;
}

void meta_listing_done(struct meta_listing *l)
{
        free(l->base);
        free(l->last);
        l->base = l->last = NULL;
}

/* The whole path of a directory of the listing, to free. */
static char *join(const char *base, const char *path, size_t size)
{
        size_t above = strlen(base);
        bool has_both = above > 0 && size > 0;
        char *text = malloc(above + size + 2);

        if (!text)
                return NULL;
        memcpy(text, base, above);
        if (has_both)
                text[above] = '/';
        memcpy(text + above + has_both, path, size);
        text[above + has_both + size] = '\0';
        return text;
}

static int keep_last(struct meta_listing *l, const char *path, size_t size)
{
        if (size + 1 > l->last_room) {
                free(l->last);
                l->last_room = 0;
                l->last = malloc(size + 256);
                if (!l->last)
                        return -ENOMEM;
                l->last_room = size + 256;
        }
        memcpy(l->last, path, size);
        l->last_size = size;
        return 0;
}

/* The directory of the listing with this path; -ESTALE: what is there now isn't what was listed. */
static int find_dir(struct meta *m, struct meta_listing *l, const char *path, size_t size,
                    uint32_t *ret) REQUIRES(m->lock)
{
        _cleanup_(freep) char *whole = NULL;
        int r;

        if (l->last_at != 0 && l->shape == m->shape && l->last_size == size &&
            memcmp(l->last, path, size) == 0) {
                *ret = l->last_at;
                return 0;
        }
        l->last_at = 0;
        whole = join(l->base, path, size);
        if (!whole)
                return -ENOMEM;
        r = tree_resolve_making(m, whole, strlen(whole), l->source.sent_ns, ret);
        if (r == 0 && !S_ISDIR(tree_at(m, *ret)->mode))
                r = -ESTALE;
        if (r == 0)
                r = keep_last(l, path, size);
        if (r == 0) {
                l->last_at = *ret;
                l->shape = m->shape;
        }
        return r;
}

static int enter_base(struct meta *m, struct meta_listing *l, const struct stat *st)
        REQUIRES(m->lock)
{
        uint32_t slot;
        int r = tree_resolve_making(m, l->base, strlen(l->base), l->source.sent_ns, &slot);
        struct entry *e;

        if (r < 0 || !S_ISDIR(st->st_mode))
                return r;
        e = tree_at(m, slot);
        if (e->sent_ns <= l->source.sent_ns && e->set_ns < l->source.sent_ns)
                tree_learn(m, slot, &l->source, st, NULL, false);
        return 0;
}

int meta_listing_entry(struct meta_listing *l, const char *path, const struct stat *st,
                       const char *target)
{
        size_t size = strnlen(path, META_PATH_MAX + 1), above;
        struct meta *m = l->m;
        const char *name;
        uint32_t dir;
        int r;

        l->count++;
        if (size > META_PATH_MAX || !tree_is_shown(st))
                return 0;
        above = tree_dir_size(path);
        name = tree_base_name(path);
        if (size > 0 && !tree_is_name(name, strlen(name)))
                return 0;
        mutex_lock(&m->lock);
        if (size == 0) {
                r = enter_base(m, l, st);
        } else {
                r = find_dir(m, l, path, above, &dir);
                if (r == 0)
                        r = tree_merge(m, dir, name, strlen(name), &l->source, st, target);
        }
        tree_unlock(m);
        return tree_pass_over(r);
}

/* What this listing of `dir` did not name isn't there. */
static void sweep(struct meta *m, uint32_t dir, uint64_t sent_ns) REQUIRES(m->lock)
{
        uint32_t slot = tree_at(m, dir)->first;

        while (slot != 0) {
                const struct entry *e = tree_at(m, slot);
                uint32_t after = e->after;

                if (e->seen_ns != sent_ns && e->moved_ns < sent_ns && e->sent_ns < sent_ns &&
                    !tree_has_pinned(m, slot))
                        tree_drop(m, slot);
                slot = after;
        }
}

int meta_listing_dir(struct meta_listing *l, const char *path)
{
        uint64_t sent_ns = l->source.sent_ns;
        struct meta *m = l->m;
        uint32_t slot;
        int r;

        mutex_lock(&m->lock);
        r = find_dir(m, l, path, strlen(path), &slot);
        /* An older listing than the one known tells nothing. */
        if (r == 0 && tree_at(m, slot)->listed_ns <= sent_ns &&
            tree_at(m, slot)->evicted_ns < sent_ns) {
                struct entry *e = tree_at(m, slot);

                sweep(m, slot, sent_ns);
                e->listed_ns = sent_ns;
                e->listed_epoch = (uint32_t)l->source.epoch;
                e->flags &= (uint8_t) ~(LISTED_QUIET | IS_HUGE);
                e->flags |= l->source.was_quiet ? LISTED_QUIET : 0;
                e->listed_batch = l->source.batch;
        }
        tree_unlock(m);
        return tree_pass_over(r);
}

void meta_listing_cut(struct meta_listing *l, const char *path)
{
        _cleanup_(freep) char *whole = join(l->base, path, strlen(path));
        struct meta *m = l->m;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = whole ? tree_seek(m, whole) : 0;
        if (slot != 0)
                tree_at(m, slot)->flags |= IS_HUGE;
        mutex_unlock(&m->lock);
}
