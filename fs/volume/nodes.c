/* SPDX-License-Identifier: Apache-2.0 */
/* Names that are met, made and taken away. */

#include "fs/volume/nodes.h"

#include <errno.h>
#include <string.h>

#include "fs/volume/nodes_table.h"

static void fill(const struct nodes *t, uint32_t at, struct node_id *ret) REQUIRES(t->lock)
{
        t->slots[at].node->lookups++;
        ret->number = at;
        ret->generation = t->slots[at].node->generation;
}

static int meet_locked(struct nodes *t, uint32_t parent, const char *name, const struct stat *st,
                       uint32_t *ret) REQUIRES(t->lock)
{
        bool may_share = S_ISREG(st->st_mode) && st->st_nlink > 1;
        uint32_t at = table_find(t, parent, name);
        bool was_directory = false;
        int r = 0;

        if (at != 0) {
                uint32_t node = t->slots[at].node->target ? t->slots[at].node->target : at;

                if (table_is_same(t->slots[node].node, st)) {
                        *ret = node;
                        goto found;
                }
                was_directory =
                        S_ISDIR(t->slots[node].node->kind) || t->slots[node].node->was_directory;
                table_drop_name(t, at);
        }
        *ret = may_share ? table_find_linked(t, st->st_ino) : 0;
        r = *ret != 0 ? table_add_name(t, *ret, parent, name)
                      : table_add_node(t, parent, name, st, ret);
        if (r < 0)
                return r;
        t->slots[*ret].node->was_directory |= was_directory;
found:
        if (may_share)
                table_note_linked(t, *ret);
        return 0;
}

int nodes_meet(struct nodes *t, uint64_t parent, const char *name, const struct stat *st,
               struct node_id *ret)
{
        uint32_t at = 0;
        int r = -ESTALE;

        mutex_lock(&t->lock);
        if (table_get_node(t, parent)) {
                t->slots[parent].node->lookups++; /* not reaped with a child that is dropped */
                r = meet_locked(t, (uint32_t)parent, name, st, &at);
                t->slots[parent].node->lookups--;
                if (r == 0)
                        fill(t, at, ret);
                else
                        table_reap(t, (uint32_t)parent);
        }
        mutex_unlock(&t->lock);
        return r;
}

int nodes_make(struct nodes *t, uint64_t parent, const char *name, const struct stat *st,
               struct node_id *ret)
{
        uint32_t at = 0;
        int r = -ESTALE;

        mutex_lock(&t->lock);
        if (table_get_node(t, parent)) {
                t->slots[parent].node->lookups++;
                table_drop_name_at(t, (uint32_t)parent, name);
                r = table_add_node(t, (uint32_t)parent, name, st, &at);
                t->slots[parent].node->lookups--;
                if (r == 0)
                        fill(t, at, ret);
                else
                        table_reap(t, (uint32_t)parent);
        }
        mutex_unlock(&t->lock);
        return r;
}

int nodes_link(struct nodes *t, uint64_t number, uint64_t parent, const char *name,
               struct node_id *ret)
{
        int r = -ESTALE;

        mutex_lock(&t->lock);
        if (table_get_node(t, number) && table_get_node(t, parent)) {
                t->slots[number].node->lookups++;
                t->slots[parent].node->lookups++;
                table_drop_name_at(t, (uint32_t)parent, name);
                r = table_add_name(t, (uint32_t)number, (uint32_t)parent, name);
                t->slots[parent].node->lookups--;
                t->slots[number].node->lookups--;
                if (r == 0) {
                        table_note_linked(t, (uint32_t)number);
                        fill(t, (uint32_t)number, ret);
                } else {
                        table_reap(t, (uint32_t)parent);
                        table_reap(t, (uint32_t)number);
                }
        }
        mutex_unlock(&t->lock);
        return r;
}

void nodes_forget(struct nodes *t, uint64_t number, uint64_t count)
{
        struct node *n;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n) {
                n->lookups -= count < n->lookups ? count : n->lookups;
                table_reap(t, (uint32_t)number);
        }
        mutex_unlock(&t->lock);
}

void nodes_remove(struct nodes *t, uint64_t parent, const char *name)
{
        mutex_lock(&t->lock);
        if (table_get_node(t, parent))
                table_drop_name_at(t, (uint32_t)parent, name);
        mutex_unlock(&t->lock);
}

bool nodes_drop_name(struct nodes *t, uint64_t number, const struct node_path *seen)
{
        const char *last = strrchr(seen->text, '/');
        struct node *n;
        bool has_other = false;

        last = last ? last + 1 : seen->text;
        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n && n->alias != 0) {
                if (n->parent != 0 && strcmp(n->name, last) == 0)
                        table_drop_name(t, (uint32_t)number);
                has_other = true;
        }
        mutex_unlock(&t->lock);
        return has_other;
}

/* Whether `number` is `above` or below it. */
static bool is_below(const struct nodes *t, uint32_t number, uint32_t above) REQUIRES(t->lock)
{
        while (number != 0 && number != above)
                number = t->slots[number].node->parent;
        return number == above;
}

/* The detached slot `at` goes to (parent, name), or nowhere when that can't be. */
static void place(struct nodes *t, uint32_t at, uint32_t parent, const char *name) REQUIRES(t->lock)
{
        if (!is_below(t, parent, at) && table_set_name(t, at, name) == 0)
                table_attach(t, at, parent);
        else if (t->slots[at].node->target != 0)
                table_drop_alias(t, at);
        else
                table_reap(t, at);
}

void nodes_move(struct nodes *t, uint64_t parent, const char *name, uint64_t new_parent,
                const char *new_name)
{
        mutex_lock(&t->lock);
        if (table_get_node(t, parent) && table_get_node(t, new_parent)) {
                uint32_t at = table_find(t, (uint32_t)parent, name);
                uint32_t old = table_find(t, (uint32_t)new_parent, new_name);

                t->slots[new_parent].node->lookups++;
                if (old != 0 && old != at)
                        table_drop_name(t, old);
                at = table_find(t, (uint32_t)parent,
                                name); /* the drop may have moved or freed it */
                if (at != 0) {
                        uint32_t above = table_detach(t, at);

                        place(t, at, (uint32_t)new_parent, new_name);
                        table_reap(t, above);
                }
                t->slots[new_parent].node->lookups--;
                table_reap(t, (uint32_t)new_parent);
        }
        mutex_unlock(&t->lock);
}

void nodes_exchange(struct nodes *t, uint64_t parent, const char *name, uint64_t new_parent,
                    const char *new_name)
{
        mutex_lock(&t->lock);
        if (table_get_node(t, parent) && table_get_node(t, new_parent)) {
                uint32_t a = table_find(t, (uint32_t)parent, name);
                uint32_t b = table_find(t, (uint32_t)new_parent, new_name);

                t->slots[parent].node->lookups++;
                t->slots[new_parent].node->lookups++;
                if (a != 0 && a != b)
                        (void)table_detach(t, a); /* a parent, and so held */
                if (b != 0 && a != b)
                        (void)table_detach(t, b);
                if (a != 0 && a != b)
                        place(t, a, (uint32_t)new_parent, new_name);
                if (b != 0 && a != b)
                        place(t, b, (uint32_t)parent, name);
                t->slots[parent].node->lookups--;
                t->slots[new_parent].node->lookups--;
                table_reap(t, (uint32_t)parent);
                table_reap(t, (uint32_t)new_parent);
        }
        mutex_unlock(&t->lock);
}
