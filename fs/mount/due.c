/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap; each item knows its place. */

#include "fs/mount/due.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/clock.h"

void due_heap_done(struct due_heap *h)
{
        free(h->items);
        *h = (struct due_heap){0};
}

static void put(struct due_heap *h, size_t i, struct due *d)
{
        h->items[i] = d;
        d->place = i + 1;
}

static void sift_up(struct due_heap *h, size_t i)
{
        struct due *d = h->items[i];

        for (; i > 0 && h->items[(i - 1) / 2]->at_ns > d->at_ns; i = (i - 1) / 2)
                put(h, i, h->items[(i - 1) / 2]);
        put(h, i, d);
}

static void sift_down(struct due_heap *h, size_t i)
{
        struct due *d = h->items[i];

        for (size_t child; (child = 2 * i + 1) < h->count; i = child) {
                if (child + 1 < h->count && h->items[child + 1]->at_ns < h->items[child]->at_ns)
                        child++;
                if (h->items[child]->at_ns >= d->at_ns)
                        break;
                put(h, i, h->items[child]);
        }
        put(h, i, d);
}

void due_remove(struct due_heap *h, struct due *d)
{
        size_t i = d->place - 1;
        struct due *last;

        if (d->place == 0)
                return;
        d->place = 0;
        last = h->items[--h->count];
        if (last == d)
                return;
        put(h, i, last);
        sift_up(h, i);
        sift_down(h, last->place - 1);
}

static int make_room(struct due_heap *h)
{
        size_t room = h->room > 0 ? 2 * h->room : 16;
        struct due **items;

        if (h->count < h->room)
                return 0;
        items = calloc(room, sizeof(struct due *));
        if (!items)
                return -ENOMEM;
        if (h->count > 0)
                memcpy(items, h->items, h->count * sizeof(struct due *));
        free(h->items);
        h->items = items;
        h->room = room;
        return 0;
}

int due_set(struct due_heap *h, struct due *d, uint64_t at_ns)
{
        int r;

        if (d->place > 0 && d->at_ns == at_ns)
                return 0;
        if (at_ns == NEVER_NS) {
                due_remove(h, d);
                return 0;
        }
        if (d->place == 0) {
                r = make_room(h);
                if (r < 0)
                        return r;
                d->at_ns = at_ns;
                put(h, h->count++, d);
        }
        d->at_ns = at_ns;
        sift_up(h, d->place - 1);
        sift_down(h, d->place - 1);
        return 0;
}

struct due *due_first(const struct due_heap *h)
{
        return h->count > 0 ? h->items[0] : NULL;
}
