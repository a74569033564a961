/* SPDX-License-Identifier: Apache-2.0 */
/* Contents of entries, and walks over many entries. */

#include "fs/volume/meta_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- contents ---- */

struct content *meta_content(struct meta *m, const char *path)
{
        struct content *x = NULL;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot != 0 && tree_at(m, slot)->content)
                x = m->hooks.ref(tree_at(m, slot)->content);
        mutex_unlock(&m->lock);
        return x;
}

struct content *meta_set_content(struct meta *m, const char *path, struct content_head *x)
{
        struct content *there = NULL;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        if (slot != 0 && S_ISREG(tree_at(m, slot)->mode)) {
                struct entry *e = tree_at(m, slot);

                if (!e->content && x->entry == 0) {
                        e->content = m->hooks.ref(tree_content(x));
                        x->entry = tree_id(m, slot);
                }
                if (e->content)
                        there = m->hooks.ref(e->content);
        }
        mutex_unlock(&m->lock);
        return there;
}

void meta_drop_content(struct meta *m, const struct content_head *x)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_slot(m, x->entry);
        if (slot != 0)
                tree_lose_content(m, tree_at(m, slot));
        tree_unlock(m);
}

void meta_pass_content(struct meta *m, struct content_head *x, const char *path)
{
        uint32_t slot, old;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        old = tree_slot(m, x->entry);
        if (slot != 0 && slot != old && S_ISREG(tree_at(m, slot)->mode)) {
                m->hooks.ref(tree_content(x));
                if (old != 0)
                        tree_lose_content(m, tree_at(m, old));
                tree_lose_content(m, tree_at(m, slot));
                tree_at(m, slot)->content = tree_content(x);
                x->entry = tree_id(m, slot);
        }
        tree_unlock(m);
}

void meta_drop_contents(struct meta *m)
{
        mutex_lock(&m->lock);
        for (uint32_t i = TREE_ROOT; i < m->slot_count; i++) {
                if ((m->slots[i].bits & 1) == 0)
                        tree_lose_content(m, tree_at(m, i));
        }
        tree_unlock(m);
}

int meta_contents_below(struct meta *m, const char *path, struct content ***ret, size_t *ret_count)
{
        struct content **all = NULL;
        size_t count = 0, i = 0;
        uint32_t top;

        mutex_lock(&m->lock);
        top = tree_seek(m, path);
        for (uint32_t s = top; s != 0; s = tree_next_below(m, s, top))
                count += tree_at(m, s)->content != NULL;
        all = calloc(count ? count : 1, sizeof(struct content *));
        for (uint32_t s = top; all && s != 0; s = tree_next_below(m, s, top)) {
                if (tree_at(m, s)->content)
                        all[i++] = m->hooks.ref(tree_at(m, s)->content);
        }
        mutex_unlock(&m->lock);
        *ret = all;
        *ret_count = i;
        return all ? 0 : -ENOMEM;
}

bool meta_has_pinned(struct meta *m, const char *path)
{
        bool has = false;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = tree_seek(m, path);
        for (uint32_t s = slot; slot != 0 && !has && (s = tree_next_below(m, s, slot)) != 0;)
                has = tree_is_pinned(m, tree_at(m, s)) && (tree_at(m, s)->flags & IS_ABSENT) == 0;
        mutex_unlock(&m->lock);
        return has;
}

/* ---- walks ---- */

size_t meta_name_span(uint32_t size)
{
        size_t span = sizeof(struct meta_name) + size + 1;

        return (span + 7) / 8 * 8;
}

static void pack_names(const struct meta *m, uint32_t dir, char *to) REQUIRES(m->lock)
{
        for (uint32_t s = tree_at(m, dir)->first; s != 0; s = tree_at(m, s)->after) {
                const struct entry *e = tree_at(m, s);
                struct meta_name *name = (struct meta_name *)(void *)to;

                if ((e->flags & IS_ABSENT) != 0)
                        continue;
                name->ino = e->ino;
                name->mode = e->mode;
                name->size = (uint32_t)strlen(e->name);
                memcpy(name->text, e->name, name->size + 1);
                to += meta_name_span(name->size);
        }
}

int meta_names(struct meta *m, const char *path, bool is_any, struct meta_names *ret)
{
        uint32_t dir;
        int r = -EAGAIN;

        *ret = (struct meta_names){0};
        mutex_lock(&m->lock);
        dir = tree_seek(m, path);
        if (dir != 0 && (is_any || tree_at(m, dir)->listed_ns != 0)) {
                const struct entry *e = tree_at(m, dir);

                for (uint32_t s = e->first; s != 0; s = tree_at(m, s)->after) {
                        if ((tree_at(m, s)->flags & IS_ABSENT) == 0)
                                ret->size += meta_name_span((uint32_t)strlen(tree_at(m, s)->name));
                }
                ret->source = (struct meta_source){.sent_ns = e->listed_ns,
                                                   .epoch = e->listed_epoch,
                                                   .was_quiet = (e->flags & LISTED_QUIET) != 0};
                ret->data = calloc(1, ret->size ? ret->size : 1);
                r = ret->data ? 0 : -ENOMEM;
                if (r == 0)
                        pack_names(m, dir, ret->data);
        }
        mutex_unlock(&m->lock);
        return r;
}

static bool show_sibling(const struct meta *m, uint32_t slot, uint64_t epoch, uint64_t since_ns,
                         struct cached_sibling_sink *to) REQUIRES(m->lock)
{
        const struct entry *e = tree_at(m, slot);
        struct known k = {.sent_ns = e->sent_ns, .epoch = e->epoch};
        char *path;
        bool goes_on;

        if (!S_ISREG(e->mode) || e->sent_ns < since_ns || e->epoch != (uint32_t)epoch)
                return true;
        path = tree_path(m, slot);
        if (!path)
                return false;
        tree_get_attrs(e, &k.st);
        k.sandbox_ino = e->server_ino;
        goes_on = to->file(to, path, &k, e->content != NULL);
        free(path);
        return goes_on;
}

void meta_siblings(struct meta *m, const char *path, bool is_deep, uint64_t epoch,
                   uint64_t since_ns, struct cached_sibling_sink *to)
{
        bool goes_on = true;
        uint32_t dir;

        mutex_lock(&m->lock);
        dir = tree_seek(m, path);
        if (dir != 0 && !S_ISDIR(tree_at(m, dir)->mode))
                dir = tree_at(m, dir)->parent;
        for (uint32_t s = dir != 0 ? tree_at(m, dir)->first : 0; s != 0 && goes_on;
             s = tree_at(m, s)->after)
                goes_on = show_sibling(m, s, epoch, since_ns, to);
        for (uint32_t s = dir != 0 && is_deep ? tree_next_below(m, dir, dir) : 0; s != 0 && goes_on;
             s = tree_next_below(m, s, dir)) {
                if (tree_at(m, s)->parent != dir)
                        goes_on = show_sibling(m, s, epoch, since_ns, to);
        }
        mutex_unlock(&m->lock);
}
