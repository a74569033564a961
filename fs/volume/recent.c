/* SPDX-License-Identifier: Apache-2.0 */
/* A ring that grows up to its bound, and is given back when everything in it has run out. */

#include "fs/volume/recent.h"

#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 64
#define ROOM_KEPT 1024 /* more is given back once it is empty */

static struct recent_item *item_at(const struct recent *r, size_t i) REQUIRES(r->lock)
{
        return &r->items[(r->first + i) & (r->room - 1)];
}

static void drop_old(struct recent *r, uint64_t now_ns) REQUIRES(r->lock)
{
        while (r->count > 0 && item_at(r, 0)->at_ns + r->window_ns <= now_ns) {
                free(item_at(r, 0)->name);
                r->first++;
                r->count--;
        }
        if (r->count == 0 && r->room > ROOM_KEPT) {
                free(r->items);
                r->items = NULL;
                r->room = 0;
                r->first = 0;
        }
}

static bool grow(struct recent *r) REQUIRES(r->lock)
{
        size_t room = r->room ? r->room * 2 : ROOM_MIN;
        struct recent_item *items;

        if (room > RECENT_MAX)
                return false;
        items = calloc(room, sizeof(*items));
        if (!items)
                return false;
        for (size_t i = 0; i < r->count; i++)
                items[i] = *item_at(r, i);
        free(r->items);
        r->items = items;
        r->room = room;
        r->first = 0;
        return true;
}

/* Takes ownership of item.name on success. */
static bool add(struct recent *r, struct recent_item item) REQUIRES(r->lock)
{
        drop_old(r, item.at_ns);
        if (r->count == r->room && !grow(r))
                return false;
        *item_at(r, r->count++) = item;
        return true;
}

void recent_add_node(struct recent *r, uint64_t node, uint64_t now_ns)
{
        mutex_lock(&r->lock);
        if (!add(r, (struct recent_item){.at_ns = now_ns, .node = node}))
                r->lost_ns = now_ns;
        mutex_unlock(&r->lock);
}

bool recent_add_name(struct recent *r, uint64_t parent, const char *name, uint64_t now_ns)
{
        struct recent_item item = {.at_ns = now_ns, .node = parent, .name = strdup(name)};
        bool is_added;

        if (!item.name)
                return false;
        mutex_lock(&r->lock);
        is_added = add(r, item);
        mutex_unlock(&r->lock);
        if (!is_added)
                free(item.name);
        return is_added;
}

size_t recent_take(struct recent *r, uint64_t now_ns, struct recent_item **ret,
                   uint64_t *ret_wait_until_ns)
{
        size_t count;

        mutex_lock(&r->lock);
        drop_old(r, now_ns);
        *ret_wait_until_ns = 0;
        if (r->lost_ns != 0 && r->lost_ns + r->window_ns > now_ns)
                *ret_wait_until_ns = r->lost_ns + r->window_ns;
        count = r->count;
        /* In order, so that they can be handed over as an array. */
        *ret = count > 0 ? calloc(count, sizeof(**ret)) : NULL;
        for (size_t i = 0; *ret && i < count; i++)
                (*ret)[i] = *item_at(r, i);
        if (*ret) {
                r->count = 0;
        } else if (count > 0) { /* no memory: what we can't hand over has to run out */
                *ret_wait_until_ns = now_ns + r->window_ns;
                count = 0;
        }
        mutex_unlock(&r->lock);
        return count;
}

void recent_free_items(struct recent_item *items, size_t count)
{
        for (size_t i = 0; i < count; i++)
                free(items[i].name);
        free(items);
}

void recent_init(struct recent *r, uint64_t window_ns)
{
        *r = (struct recent){.window_ns = window_ns};
        mutex_init(&r->lock);
}

void recent_done(struct recent *r)
{
        mutex_lock(&r->lock);
        for (size_t i = 0; i < r->count; i++)
                free(item_at(r, i)->name);
        free(r->items);
        r->items = NULL;
        mutex_unlock(&r->lock);
        mutex_done(&r->lock);
}
