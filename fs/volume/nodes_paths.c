/* SPDX-License-Identifier: Apache-2.0 */
/* Where nodes are, and what is known of a name; nothing is changed. */

#include "fs/volume/nodes_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- paths ---- */

/* Components and bytes (with a '/' or NUL after each) up to the root; -ESTALE: not reached. */
static int measure(const struct nodes *t, uint32_t at, unsigned *depth, size_t *size)
        REQUIRES(t->lock)
{
        for (; at != TABLE_ROOT; at = t->slots[at].node->parent) {
                if (at == 0)
                        return -ESTALE;
                (*depth)++;
                *size += strlen(t->slots[at].node->name) + 1;
        }
        return 0;
}

/* Write the path backwards, up to `end`; what is at `end` already stays. */
static char *write_path(const struct nodes *t, uint32_t at, char *end) REQUIRES(t->lock)
{
        for (; at != TABLE_ROOT; at = t->slots[at].node->parent) {
                const char *name = t->slots[at].node->name;
                size_t size = strlen(name);

                *--end = '/';
                end -= size;
                memcpy(end, name, size);
        }
        return end;
}

static int path_locked(struct nodes *t, uint32_t at, const char *name, struct node_path *p)
        REQUIRES(t->lock)
{
        size_t name_size = name ? strlen(name) + 1 : 0;
        size_t size = name_size;
        char *text = p->fixed;
        int r;

        p->depth = name ? 1 : 0;
        r = measure(t, at, &p->depth, &size);
        if (r < 0)
                return r;
        if (size > sizeof(p->fixed)) {
                text = p->heap = malloc(size);
                if (!text)
                        return -ENOMEM;
        }
        p->text = text;
        if (p->depth == 0) {
                memcpy(text, ".", 2);
                p->length = 1;
                return 0;
        }
        (void)write_path(t, at, text + size - name_size); /* back to `text`, as measured */
        if (name)
                memcpy(text + size - name_size, name, name_size);
        text[size - 1] = '\0';
        p->length = size - 1;
        return 0;
}

int nodes_path(struct nodes *t, uint64_t number, const char *name, struct node_path *ret)
{
        const struct node *n;
        int r = -ESTALE;

        ret->heap = NULL;
        ret->text = ret->fixed;
        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n) {
                ret->kind = n->kind;
                ret->ino = n->ino;
                r = path_locked(t, (uint32_t)number, name, ret);
        }
        mutex_unlock(&t->lock);
        return r;
}

void node_path_done(struct node_path *p)
{
        free(p->heap);
        p->heap = NULL;
}

bool nodes_name(struct nodes *t, uint64_t number, uint32_t *cursor, uint64_t *ret_parent,
                char name[NAME_MAX + 1])
{
        struct node *n;
        uint32_t at = 0;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        if (n) {
                at = (uint32_t)number;
                for (uint32_t i = 0; i < *cursor && at != 0; i++)
                        at = t->slots[at].node->alias;
                if (*cursor == 0 && n->parent == 0)
                        at = 0;
        }
        if (at != 0) {
                n = t->slots[at].node;
                *ret_parent = n->parent;
                (void)snprintf(name, NAME_MAX + 1, "%s",
                               n->name); /* longer ones never came from a disk */
                (*cursor)++;
        }
        mutex_unlock(&t->lock);
        return at != 0;
}

/* ---- what is known ---- */

int nodes_depth(struct nodes *t, uint64_t number, unsigned *ret)
{
        unsigned depth = 0;
        size_t size = 0;
        int r = -ESTALE;

        mutex_lock(&t->lock);
        if (table_get_node(t, number))
                r = measure(t, (uint32_t)number, &depth, &size);
        mutex_unlock(&t->lock);
        if (r == 0)
                *ret = depth;
        return r;
}

bool nodes_has_path(struct nodes *t, uint64_t number)
{
        unsigned depth;

        return nodes_depth(t, number, &depth) == 0;
}

bool nodes_is(struct nodes *t, uint64_t number, const struct stat *st)
{
        const struct node *n;
        bool is;

        mutex_lock(&t->lock);
        n = table_get_node(t, number);
        is = n && table_is_same(n, st);
        mutex_unlock(&t->lock);
        return is;
}

mode_t nodes_kind(struct nodes *t, uint64_t parent, const char *name)
{
        mode_t kind = 0;

        mutex_lock(&t->lock);
        if (table_get_node(t, parent)) {
                uint32_t at = table_find(t, (uint32_t)parent, name);

                if (at != 0 && t->slots[at].node->target != 0)
                        at = t->slots[at].node->target;
                if (at != 0)
                        kind = t->slots[at].node->kind;
        }
        mutex_unlock(&t->lock);
        return kind;
}

bool nodes_was_directory(struct nodes *t, uint64_t parent, const char *name)
{
        bool is_so = false;

        mutex_lock(&t->lock);
        if (table_get_node(t, parent)) {
                uint32_t at = table_find(t, (uint32_t)parent, name);

                if (at != 0 && t->slots[at].node->target != 0)
                        at = t->slots[at].node->target;
                is_so = at != 0 && t->slots[at].node->was_directory;
        }
        mutex_unlock(&t->lock);
        return is_so;
}

bool nodes_may_be_directory(struct nodes *t, uint64_t parent, const char *name)
{
        mode_t kind = nodes_kind(t, parent, name);

        return kind == 0 || S_ISDIR(kind) || nodes_was_directory(t, parent, name);
}

size_t nodes_count(struct nodes *t)
{
        size_t count;

        mutex_lock(&t->lock);
        count = t->count;
        mutex_unlock(&t->lock);
        return count;
}
