/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table: slots by number, chained from buckets by a keyed hash of (parent, name). An alias, one
 * more name of a node, is a slot of its own that is found by its name like any other, but is never
 * given out.
 */

#include "fs/volume/nodes.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/volume.h"
#include "transport/base/map.h"
#include "transport/base/random.h"

#define ROOT ((uint32_t)VOLUME_ROOT)
#define ROOM_MIN 16
#define ROOM_MAX (UINT32_C(1) << 31)

struct node {
        uint32_t parent; /* 0: the root, or detached */
        uint32_t next; /* in its bucket */
        uint32_t hash;
        uint32_t generation;
        uint32_t children; /* nodes and aliases whose parent this is */
        uint32_t alias; /* of a node: its first alias; of an alias: the next one of the same node */
        uint32_t target; /* of an alias: its node; 0: a node */
        uint32_t handed_ms;
        uint64_t lookups;
        uint64_t ino; /* 0 for directories and links */
        uint64_t pages; /* stamp of nodes_same_pages */
        struct node_open *open;
        uint16_t kind; /* S_IFMT bits */
        uint16_t room; /* bytes at `name` */
        bool is_linked; /* in t->linked */
        bool was_directory; /* at that name a directory was known that wasn't removed by us */
        char name[];
};

/* A slot in no use holds the next such one, shifted left, and a bit that no pointer has. */
union node_slot {
        struct node *node;
        uintptr_t bits;
};

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

static struct node *get(const struct nodes *t, uint64_t number) REQUIRES(t->lock)
{
        if (number == 0 || number >= t->slot_count || (t->slots[number].bits & 1) != 0)
                return NULL;
        return t->slots[number].node;
}

/* A number as it comes from outside: aliases have none. */
static struct node *get_node(const struct nodes *t, uint64_t number) REQUIRES(t->lock)
{
        struct node *n = get(t, number);

        return n && n->target == 0 ? n : NULL;
}

static uint32_t find(const struct nodes *t, uint32_t parent, const char *name) REQUIRES(t->lock)
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

/* Give the detached node at slot `at` a name; its address may change. */
static int set_name(struct nodes *t, uint32_t at, const char *name) REQUIRES(t->lock)
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

/* The slot at `at`, named but in no directory, goes below `parent`. */
static void attach(struct nodes *t, uint32_t at, uint32_t parent) REQUIRES(t->lock)
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

/* Out of its directory. The parent may have become superfluous: the caller reaps it. */
static uint32_t detach(struct nodes *t, uint32_t at) REQUIRES(t->lock)
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

/* Free the node if nobody needs it, then its parent, and so on. `at` may be 0. */
static void reap(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        while (at > ROOT) {
                struct node *n = t->slots[at].node;
                uint32_t parent;

                if (n->lookups > 0 || n->children > 0 || n->open)
                        return;
                while (n->alias != 0) {
                        uint32_t alias = n->alias;
                        uint32_t above = detach(t, alias);

                        n->alias = t->slots[alias].node->alias;
                        free_slot(t, alias);
                        if (above != n->parent)
                                reap(t, above); /* a directory: it has no aliases */
                }
                parent = detach(t, at);
                free_slot(t, at);
                at = parent;
        }
}

static void drop_alias(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        struct node *alias = t->slots[at].node;
        uint32_t *link = &t->slots[alias->target].node->alias;
        uint32_t parent = detach(t, at);

        while (*link != at)
                link = &t->slots[*link].node->alias;
        *link = alias->alias;
        free_slot(t, at);
        reap(t, parent);
}

/* The first alias lends its name to the detached node at `at`. */
static void promote_alias(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        uint32_t from = t->slots[at].node->alias;
        uint32_t parent = t->slots[from].node->parent;

        if (set_name(t, at, t->slots[from].node->name) == 0)
                attach(t, at, parent);
        drop_alias(t, from);
}

/* What stands at slot `at`, a name of a node, no longer does. */
static void drop_name(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        uint32_t parent;

        if (t->slots[at].node->target != 0) {
                drop_alias(t, at);
                return;
        }
        parent = detach(t, at);
        if (t->slots[at].node->alias != 0)
                promote_alias(t, at);
        reap(t, at);
        reap(t, parent);
}

static void drop_name_at(struct nodes *t, uint32_t parent, const char *name) REQUIRES(t->lock)
{
        uint32_t at = find(t, parent, name);

        if (at != 0)
                drop_name(t, at);
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
                attach(t, *ret, parent);
        return 0;
}

static int add_node(struct nodes *t, uint32_t parent, const char *name, const struct stat *st,
                    uint32_t *ret) REQUIRES(t->lock)
{
        int r = add_slot(t, parent, name, ret);

        if (r == 0) {
                struct node *n = t->slots[*ret].node;

                n->kind = (uint16_t)(st->st_mode & S_IFMT);
                n->ino = S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode) ? 0 : st->st_ino;
        }
        return r;
}

/* (parent, name), where nothing is known, is one more name of the node at `at`. */
static int add_name(struct nodes *t, uint32_t at, uint32_t parent, const char *name)
        REQUIRES(t->lock)
{
        uint32_t alias;
        int r;

        if (t->slots[at].node->parent == 0) {
                r = set_name(t, at, name);
                if (r == 0)
                        attach(t, at, parent);
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

/* The slot that stands for this inode, 0 if none is known. */
static uint32_t find_linked(const struct nodes *t, uint64_t ino) REQUIRES(t->lock)
{
        const void *found = t->linked ? imap_get(t->linked, ino) : NULL;

        return (uint32_t)(uintptr_t)found;
}

/*
 * From now on other names of its inode find this node.
 * Without memory they don't, which is no failure.
 */
static void note_linked(struct nodes *t, uint32_t at) REQUIRES(t->lock)
{
        struct node *n = t->slots[at].node;

        if (n->is_linked || find_linked(t, n->ino) != 0)
                return;
        if (!t->linked)
                t->linked = imap_new();
        if (t->linked && imap_put(t->linked, n->ino, (void *)(uintptr_t)at) == 0)
                n->is_linked = true;
}

/* ---- what is called ---- */

static void fill(const struct nodes *t, uint32_t at, struct node_id *ret) REQUIRES(t->lock)
{
        t->slots[at].node->lookups++;
        ret->number = at;
        ret->generation = t->slots[at].node->generation;
}

static bool is_same(const struct node *n, const struct stat *st)
{
        return n->kind == (st->st_mode & S_IFMT) && (n->ino == 0 || n->ino == st->st_ino);
}

static int meet_locked(struct nodes *t, uint32_t parent, const char *name, const struct stat *st,
                       uint32_t *ret) REQUIRES(t->lock)
{
        bool may_share = S_ISREG(st->st_mode) && st->st_nlink > 1;
        uint32_t at = find(t, parent, name);
        bool was_directory = false;
        int r = 0;

        if (at != 0) {
                uint32_t node = t->slots[at].node->target ? t->slots[at].node->target : at;

                if (is_same(t->slots[node].node, st)) {
                        *ret = node;
                        goto found;
                }
                was_directory =
                        S_ISDIR(t->slots[node].node->kind) || t->slots[node].node->was_directory;
                drop_name(t, at);
        }
        *ret = may_share ? find_linked(t, st->st_ino) : 0;
        r = *ret != 0 ? add_name(t, *ret, parent, name) : add_node(t, parent, name, st, ret);
        if (r < 0)
                return r;
        t->slots[*ret].node->was_directory |= was_directory;
found:
        if (may_share)
                note_linked(t, *ret);
        return 0;
}

int nodes_meet(struct nodes *t, uint64_t parent, const char *name, const struct stat *st,
               struct node_id *ret)
{
        uint32_t at = 0;
        int r = -ESTALE;

        mutex_lock(&t->lock);
        if (get_node(t, parent)) {
                t->slots[parent].node->lookups++; /* not reaped with a child that is dropped */
                r = meet_locked(t, (uint32_t)parent, name, st, &at);
                t->slots[parent].node->lookups--;
                if (r == 0)
                        fill(t, at, ret);
                else
                        reap(t, (uint32_t)parent);
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
        if (get_node(t, parent)) {
                t->slots[parent].node->lookups++;
                drop_name_at(t, (uint32_t)parent, name);
                r = add_node(t, (uint32_t)parent, name, st, &at);
                t->slots[parent].node->lookups--;
                if (r == 0)
                        fill(t, at, ret);
                else
                        reap(t, (uint32_t)parent);
        }
        mutex_unlock(&t->lock);
        return r;
}

int nodes_link(struct nodes *t, uint64_t number, uint64_t parent, const char *name,
               struct node_id *ret)
{
        int r = -ESTALE;

        mutex_lock(&t->lock);
        if (get_node(t, number) && get_node(t, parent)) {
                t->slots[number].node->lookups++;
                t->slots[parent].node->lookups++;
                drop_name_at(t, (uint32_t)parent, name);
                r = add_name(t, (uint32_t)number, (uint32_t)parent, name);
                t->slots[parent].node->lookups--;
                t->slots[number].node->lookups--;
                if (r == 0) {
                        note_linked(t, (uint32_t)number);
                        fill(t, (uint32_t)number, ret);
                } else {
                        reap(t, (uint32_t)parent);
                        reap(t, (uint32_t)number);
                }
        }
        mutex_unlock(&t->lock);
        return r;
}

void nodes_forget(struct nodes *t, uint64_t number, uint64_t count)
{
        struct node *n;

        mutex_lock(&t->lock);
        n = get_node(t, number);
        if (n) {
                n->lookups -= count < n->lookups ? count : n->lookups;
                reap(t, (uint32_t)number);
        }
        mutex_unlock(&t->lock);
}

void nodes_remove(struct nodes *t, uint64_t parent, const char *name)
{
        mutex_lock(&t->lock);
        if (get_node(t, parent))
                drop_name_at(t, (uint32_t)parent, name);
        mutex_unlock(&t->lock);
}

bool nodes_drop_name(struct nodes *t, uint64_t number, const struct node_path *seen)
{
        const char *last = strrchr(seen->text, '/');
        struct node *n;
        bool has_other = false;

        last = last ? last + 1 : seen->text;
        mutex_lock(&t->lock);
        n = get_node(t, number);
        if (n && n->alias != 0) {
                if (n->parent != 0 && strcmp(n->name, last) == 0)
                        drop_name(t, (uint32_t)number);
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
        if (!is_below(t, parent, at) && set_name(t, at, name) == 0)
                attach(t, at, parent);
        else if (t->slots[at].node->target != 0)
                drop_alias(t, at);
        else
                reap(t, at);
}

void nodes_move(struct nodes *t, uint64_t parent, const char *name, uint64_t new_parent,
                const char *new_name)
{
        mutex_lock(&t->lock);
        if (get_node(t, parent) && get_node(t, new_parent)) {
                uint32_t at = find(t, (uint32_t)parent, name);
                uint32_t old = find(t, (uint32_t)new_parent, new_name);

                t->slots[new_parent].node->lookups++;
                if (old != 0 && old != at)
                        drop_name(t, old);
                at = find(t, (uint32_t)parent, name); /* the drop may have moved or freed it */
                if (at != 0) {
                        uint32_t above = detach(t, at);

                        place(t, at, (uint32_t)new_parent, new_name);
                        reap(t, above);
                }
                t->slots[new_parent].node->lookups--;
                reap(t, (uint32_t)new_parent);
        }
        mutex_unlock(&t->lock);
}

void nodes_exchange(struct nodes *t, uint64_t parent, const char *name, uint64_t new_parent,
                    const char *new_name)
{
        mutex_lock(&t->lock);
        if (get_node(t, parent) && get_node(t, new_parent)) {
                uint32_t a = find(t, (uint32_t)parent, name);
                uint32_t b = find(t, (uint32_t)new_parent, new_name);

                t->slots[parent].node->lookups++;
                t->slots[new_parent].node->lookups++;
                if (a != 0 && a != b)
                        (void)detach(t, a); /* a parent, and so held */
                if (b != 0 && a != b)
                        (void)detach(t, b);
                if (a != 0 && a != b)
                        place(t, a, (uint32_t)new_parent, new_name);
                if (b != 0 && a != b)
                        place(t, b, (uint32_t)parent, name);
                t->slots[parent].node->lookups--;
                t->slots[new_parent].node->lookups--;
                reap(t, (uint32_t)parent);
                reap(t, (uint32_t)new_parent);
        }
        mutex_unlock(&t->lock);
}

/* ---- paths ---- */

/* Components and bytes (with a '/' or NUL after each) up to the root; -ESTALE: not reached. */
static int measure(const struct nodes *t, uint32_t at, unsigned *depth, size_t *size)
        REQUIRES(t->lock)
{
        for (; at != ROOT; at = t->slots[at].node->parent) {
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
        for (; at != ROOT; at = t->slots[at].node->parent) {
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
        n = get_node(t, number);
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
        n = get_node(t, number);
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

/* ---- open handles and what was told ---- */

void nodes_open(struct nodes *t, uint64_t number, struct node_open *o)
{
        struct node *n;

        o->node = number;
        o->refs = 1;
        o->next = NULL;
        mutex_lock(&t->lock);
        n = get_node(t, number);
        if (n) {
                o->next = n->open;
                n->open = o;
        }
        list_add_tail(&t->open, &o->of_all);
        mutex_unlock(&t->lock);
}

struct node_open *nodes_any_open(struct nodes *t, uint64_t number)
{
        struct node_open *o = NULL;
        const struct node *n;

        mutex_lock(&t->lock);
        n = get_node(t, number);
        if (n && n->open) {
                o = n->open;
                o->refs++;
        }
        mutex_unlock(&t->lock);
        return o;
}

bool nodes_unref(struct nodes *t, struct node_open *o)
{
        bool is_last;

        mutex_lock(&t->lock);
        is_last = --o->refs == 0;
        if (is_last) {
                struct node *n = get_node(t, o->node);
                struct node_open **link = n ? &n->open : NULL;

                while (link && *link && *link != o)
                        link = &(*link)->next;
                if (link && *link)
                        *link = o->next;
                list_remove(&o->of_all);
                if (n)
                        reap(t, (uint32_t)o->node);
        }
        mutex_unlock(&t->lock);
        return is_last;
}

int nodes_all_open(struct nodes *t, uint64_t **ret, size_t *ret_count)
{
        size_t count = 0, i = 0;
        uint64_t *numbers;

        mutex_lock(&t->lock);
        list_for_each (pos, &t->open)
                count++;
        numbers = calloc(count ? count : 1, sizeof(*numbers));
        if (numbers) {
                list_for_each (pos, &t->open) {
                        uint64_t number = list_entry(pos, struct node_open, of_all)->node;
                        const struct node *n = get_node(t, number);

                        if (n && n->kind != S_IFDIR)
                                numbers[i++] = number;
                }
                *ret = numbers;
                *ret_count = i;
        }
        mutex_unlock(&t->lock);
        return numbers ? 0 : -ENOMEM;
}

bool nodes_same_pages(struct nodes *t, uint64_t number, uint64_t stamp)
{
        struct node *n;
        bool is_same_stamp = false;

        mutex_lock(&t->lock);
        n = get_node(t, number);
        if (n) {
                is_same_stamp = stamp != 0 && n->pages == stamp;
                n->pages = stamp;
        }
        mutex_unlock(&t->lock);
        return is_same_stamp;
}

bool nodes_hand_out(struct nodes *t, uint64_t number, uint32_t now_ms, uint32_t span_ms)
{
        struct node *n;
        bool is_new = true;

        mutex_lock(&t->lock);
        n = get_node(t, number);
        if (n) {
                is_new = n->handed_ms == 0 || now_ms - n->handed_ms >= span_ms ||
                         (int32_t)(n->handed_ms - t->handed_since_ms) <= 0;
                if (is_new)
                        n->handed_ms = now_ms ? now_ms : 1;
        }
        mutex_unlock(&t->lock);
        return is_new;
}

void nodes_hand_out_anew(struct nodes *t, uint32_t now_ms)
{
        mutex_lock(&t->lock);
        t->handed_since_ms = now_ms;
        mutex_unlock(&t->lock);
}

int nodes_depth(struct nodes *t, uint64_t number, unsigned *ret)
{
        unsigned depth = 0;
        size_t size = 0;
        int r = -ESTALE;

        mutex_lock(&t->lock);
        if (get_node(t, number))
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
        n = get_node(t, number);
        is = n && is_same(n, st);
        mutex_unlock(&t->lock);
        return is;
}

mode_t nodes_kind(struct nodes *t, uint64_t parent, const char *name)
{
        mode_t kind = 0;

        mutex_lock(&t->lock);
        if (get_node(t, parent)) {
                uint32_t at = find(t, (uint32_t)parent, name);

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
        if (get_node(t, parent)) {
                uint32_t at = find(t, (uint32_t)parent, name);

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

int nodes_init(struct nodes *t)
{
        int r;

        *t = (struct nodes){.slot_count = ROOT};
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

                r = add_node(t, 0, "", &root, &at);
                assert(r < 0 || at == ROOT);
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
