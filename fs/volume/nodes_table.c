/* SPDX-License-Identifier: Apache-2.0 */

#include "fs/volume/nodes_table.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/map.h"
#include "transport/base/random.h"

#define ROOM_MIN 16
#define ROOM_MAX (UINT32_C(1) << 31)

static uint64_t mix(uint64_t a, uint64_t b)
{
        unsigned __int128 product = (unsigned __int128)a * b;

        return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t hash_name(const struct nodes *t, uint32_t parent, const char *name, size_t size)
{
        uint64_t h = mix(t->key[0] ^ parent, t->key[1] ^ size);

        for (; size > 0;) {
                uint64_t word = 0;
                size_t n = size < sizeof(word) ? size : sizeof(word);

                memcpy(&word, name, n);
                h = mix(h ^ word ^ t->key[0], t->key[1]);
                name += n;
                size -= n;
        }
        return (uint32_t)(h ^ h >> 32);
}

uint32_t table_find(const struct nodes *t, uint32_t parent, const char *name)
{
        uint32_t hash = hash_name(t, parent, name, strlen(name));
        uint32_t at = t->buckets[hash & (t->bucket_count - 1)];

        while (at != 0) {
                const struct node *n = t->slots[at].node;

                if (n->hash == hash && n->parent == parent && strcmp(n->name, name) == 0)
                        break;
                at = n->next;
        }
        return at;
}

/* ---- memory ---- */

static int grow_slots(struct nodes *t) REQUIRES(t->lock)
{
        uint32_t room = t->slot_room ? t->slot_room * 2 : ROOM_MIN;
        union node_slot *slots;

        if (t->slot_room >= ROOM_MAX)
                return -ENOMEM;
        slots = calloc(room, sizeof(*slots));
        if (!slots)
                return -ENOMEM;
        if (t->slots)
                memcpy(slots, t->slots, t->slot_count * sizeof(*slots));
        free(t->slots);
        t->slots = slots;
        t->slot_room = room;
        return 0;
}

static int take_slot(struct nodes *t, uint32_t *ret) REQUIRES(t->lock)
{
        int r;

        if (t->free_slot != 0) {
                *ret = t->free_slot;
                t->free_slot = (uint32_t)(t->slots[*ret].bits >> 1);
                return 0;
        }
        if (t->slot_count == t->slot_room && (r = grow_slots(t)) < 0)
                return r;
        *ret = t->slot_count++;
        return 0;
}

static void give_slot(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        t->slots[at].bits = (uintptr_t)t->free_slot << 1 | 1;
        t->free_slot = at;
}

/* Longer chains are no failure: out of memory here is passed over. */
static void grow_buckets(struct nodes *t) REQUIRES(t->lock)
{
        uint32_t count = t->bucket_count * 2;
        uint32_t *buckets = t->bucket_count < ROOM_MAX ? calloc(count, sizeof(*buckets)) : NULL;

        if (!buckets)
                return;
        for (uint32_t i = 0; i < t->bucket_count; i++) {
                uint32_t at = t->buckets[i];

                while (at != 0) {
                        struct node *n = t->slots[at].node;
                        uint32_t next = n->next;
                        uint32_t *head = &buckets[n->hash & (count - 1)];

                        n->next = *head;
                        *head = at;
                        at = next;
                }
        }
        free(t->buckets);
        t->buckets = buckets;
        t->bucket_count = count;
}

static struct node *new_node(const char *name)
{
        size_t size = strlen(name) + 1;
        struct node *n = size <= UINT16_MAX ? calloc(1, sizeof(*n) + size) : NULL;

        if (n) {
                n->room = (uint16_t)size;
                memcpy(n->name, name, size);
        }
        return n;
}

int table_set_name(struct nodes *t, uint32_t at, const char *name)
{
        struct node *n = t->slots[at].node;
        size_t size = strlen(name) + 1;
        struct node *moved;

        if (size <= n->room) {
                memcpy(n->name, name, size);
                return 0;
        }
        moved = new_node(name);
        if (!moved)
                return -ENOMEM;
        memcpy(moved, n, offsetof(struct node, name));
        moved->room = (uint16_t)size;
        t->slots[at].node = moved;
        free(n);
        return 0;
}

/* ---- names ---- */

void table_attach(struct nodes *t, uint32_t at, uint32_t parent)
{
        struct node *n = t->slots[at].node;
        uint32_t *head;

        n->parent = parent;
        n->hash = hash_name(t, parent, n->name, strlen(n->name));
        head = &t->buckets[n->hash & (t->bucket_count - 1)];
        n->next = *head;
        *head = at;
        t->slots[parent].node->children++;
}

uint32_t table_detach(struct nodes *t, uint32_t at)
{
        struct node *n = t->slots[at].node;
        uint32_t parent = n->parent;
        uint32_t *link;

        if (parent == 0)
                return 0;
        link = &t->buckets[n->hash & (t->bucket_count - 1)];
        while (*link != at)
                link = &t->slots[*link].node->next;
        *link = n->next;
        n->parent = 0;
        t->slots[parent].node->children--;
        return parent;
}

static void free_slot(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        struct node *n = t->slots[at].node;

        if (n->is_linked)
                (void)imap_remove(t->linked, n->ino); /* it is n itself */
        free(n);
        give_slot(t, at);
        t->count--;
}

void table_reap(struct nodes *t, uint32_t at)
{
        while (at > TABLE_ROOT) {
                struct node *n = t->slots[at].node;
                uint32_t parent;

                if (n->lookups > 0 || n->children > 0 || n->open)
                        return;
                while (n->alias != 0) {
                        uint32_t alias = n->alias;
                        uint32_t above = table_detach(t, alias);

                        n->alias = t->slots[alias].node->alias;
                        free_slot(t, alias);
                        if (above != n->parent)
                                table_reap(t, above); /* a directory: it has no aliases */
                }
                parent = table_detach(t, at);
                free_slot(t, at);
                at = parent;
        }
}

void table_drop_alias(struct nodes *t, uint32_t at)
{
        struct node *alias = t->slots[at].node;
        uint32_t *link = &t->slots[alias->target].node->alias;
        uint32_t parent = table_detach(t, at);

        while (*link != at)
                link = &t->slots[*link].node->alias;
        *link = alias->alias;
        free_slot(t, at);
        table_reap(t, parent);
}

/* The first alias lends its name to the detached node at `at`. */
static void promote_alias(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        uint32_t from = t->slots[at].node->alias;
        uint32_t parent = t->slots[from].node->parent;

        if (table_set_name(t, at, t->slots[from].node->name) == 0)
                table_attach(t, at, parent);
        table_drop_alias(t, from);
}

void table_drop_name(struct nodes *t, uint32_t at)
{
        uint32_t parent;

        if (t->slots[at].node->target != 0) {
                table_drop_alias(t, at);
                return;
        }
        parent = table_detach(t, at);
        if (t->slots[at].node->alias != 0)
                promote_alias(t, at);
        table_reap(t, at);
        table_reap(t, parent);
}

void table_drop_name_at(struct nodes *t, uint32_t parent, const char *name)
{
        uint32_t at = table_find(t, parent, name);

        if (at != 0)
                table_drop_name(t, at);
}

/* A new slot at (parent, name), where nothing is known. */
static int add_slot(struct nodes *t, uint32_t parent, const char *name, uint32_t *ret)
        REQUIRES(t->lock)
{
        struct node *n = new_node(name);
        int r;

        if (!n)
                return -ENOMEM;
        r = take_slot(t, ret);
        if (r < 0) {
                free(n);
                return r;
        }
        n->generation = ++t->generation;
        t->slots[*ret].node = n;
        if (++t->count > t->bucket_count)
                grow_buckets(t);
        if (parent != 0)
                table_attach(t, *ret, parent);
        return 0;
}

int table_add_node(struct nodes *t, uint32_t parent, const char *name, const struct stat *st,
                   uint32_t *ret)
{
        int r = add_slot(t, parent, name, ret);

        if (r == 0) {
                struct node *n = t->slots[*ret].node;

                n->kind = (uint16_t)(st->st_mode & S_IFMT);
                n->ino = S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode) ? 0 : st->st_ino;
        }
        return r;
}

int table_add_name(struct nodes *t, uint32_t at, uint32_t parent, const char *name)
{
        uint32_t alias;
        int r;

        if (t->slots[at].node->parent == 0) {
                r = table_set_name(t, at, name);
                if (r == 0)
                        table_attach(t, at, parent);
                return r;
        }
        r = add_slot(t, parent, name, &alias);
        if (r < 0)
                return r;
        t->slots[alias].node->target = at;
        t->slots[alias].node->alias = t->slots[at].node->alias;
        t->slots[at].node->alias = alias;
        return 0;
}

/* ---- inodes with several names ---- */

uint32_t table_find_linked(const struct nodes *t, uint64_t ino)
{
        const void *found = t->linked ? imap_get(t->linked, ino) : NULL;

        return (uint32_t)(uintptr_t)found;
}

void table_note_linked(struct nodes *t, uint32_t at)
{
        struct node *n = t->slots[at].node;

        if (n->is_linked || table_find_linked(t, n->ino) != 0)
                return;
        if (!t->linked)
                t->linked = imap_new();
        if (t->linked && imap_put(t->linked, n->ino, (void *)(uintptr_t)at) == 0)
                n->is_linked = true;
}

/* ---- birth and death ---- */

int nodes_init(struct nodes *t)
{
        int r;

        *t = (struct nodes){.slot_count = TABLE_ROOT};
        mutex_init(&t->lock);
        r = random_bytes(t->key, sizeof(t->key));
        mutex_lock(&t->lock);
        list_init(&t->open);
        t->bucket_count = ROOM_MIN;
        t->buckets = calloc(ROOM_MIN, sizeof(*t->buckets));
        if (r == 0)
                r = t->buckets ? grow_slots(t) : -ENOMEM;
        if (r == 0) {
                const struct stat root = {.st_mode = S_IFDIR};
                uint32_t at;

                r = table_add_node(t, 0, "", &root, &at);
                assert(r < 0 || at == TABLE_ROOT);
        }
        mutex_unlock(&t->lock);
        if (r < 0)
                nodes_done(t);
        return r;
}

void nodes_done(struct nodes *t)
{
        mutex_lock(&t->lock);
        for (uint32_t i = 1; i < t->slot_count; i++) {
                if ((t->slots[i].bits & 1) == 0)
                        free(t->slots[i].node);
        }
        free(t->slots);
        free(t->buckets);
        imap_free(t->linked);
        t->slots = NULL;
        t->buckets = NULL;
        t->linked = NULL;
        t->slot_count = 0;
        mutex_unlock(&t->lock);
        mutex_done(&t->lock);
}
