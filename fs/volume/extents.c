/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted arrays: files have few ranges, and those that have many are asked far more than changed. */

#include "fs/volume/extents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void extents_done(struct extents *e)
{
        free(e->at);
        *e = (struct extents){0};
}

/* The first range that ends behind `offset`, or e->count. */
static size_t find(const struct extents *e, uint64_t offset)
{
        size_t low = 0, high = e->count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (e->at[middle].end > offset)
                        high = middle;
                else
                        low = middle + 1;
        }
        return low;
}

static int make_room(struct extents *e, size_t count)
{
        size_t room = e->room ? e->room : 4;
        struct extent *at;

        while (room < count)
                room *= 2;
        if (room == e->room)
                return 0;
        at = reallocarray(e->at, room, sizeof(*at));
        if (!at)
                return -ENOMEM;
        e->at = at;
        e->room = room;
        return 0;
}

/* Put `with_count` ranges in the place of those from `first` to before `last`. */
static int replace(struct extents *e, size_t first, size_t last, const struct extent *with,
                   size_t with_count)
{
        size_t count = e->count - (last - first) + with_count;
        int r = make_room(e, count);

        if (r < 0)
                return r;
        memmove(e->at + first + with_count, e->at + last, (e->count - last) * sizeof(*e->at));
        for (size_t i = 0; i < with_count; i++)
                e->at[first + i] = with[i];
        e->count = count;
        return 0;
}

int extents_add(struct extents *e, uint64_t start, uint64_t end)
{
        struct extent all = {start, end};
        size_t first = start > 0 ? find(e, start - 1) : 0; /* one that ends at `start` is joined */
        size_t last = first;

        if (start >= end)
                return 0;
        while (last < e->count && e->at[last].start <= end) {
                if (e->at[last].start < all.start)
                        all.start = e->at[last].start;
                if (e->at[last].end > all.end)
                        all.end = e->at[last].end;
                last++;
        }
        return replace(e, first, last, &all, 1);
}

int extents_remove(struct extents *e, uint64_t start, uint64_t end)
{
        struct extent rest[2];
        size_t rest_count = 0;
        size_t first = find(e, start);
        size_t last = first;

        if (start >= end)
                return 0;
        while (last < e->count && e->at[last].start < end) {
                if (e->at[last].start < start)
                        rest[rest_count++] = (struct extent){e->at[last].start, start};
                if (e->at[last].end > end)
                        rest[rest_count++] = (struct extent){end, e->at[last].end};
                last++;
        }
        return first == last ? 0 : replace(e, first, last, rest, rest_count);
}

int extents_add_all(struct extents *e, const struct extents *from)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < from->count; i++)
                r = extents_add(e, from->at[i].start, from->at[i].end);
        return r;
}

bool extents_next(const struct extents *e, uint64_t start, uint64_t end, struct extent *ret)
{
        size_t i = find(e, start);

        if (i == e->count || e->at[i].start >= end || start >= end)
                return false;
        ret->start = e->at[i].start > start ? e->at[i].start : start;
        ret->end = e->at[i].end < end ? e->at[i].end : end;
        return true;
}

bool extents_gap(const struct extents *e, uint64_t start, uint64_t end, struct extent *ret)
{
        size_t i = find(e, start);

        if (i < e->count && e->at[i].start <= start)
                start = e->at[i++].end;
        if (start >= end)
                return false;
        ret->start = start;
        ret->end = i < e->count && e->at[i].start < end ? e->at[i].start : end;
        return true;
}

bool extents_cover(const struct extents *e, uint64_t start, uint64_t end)
{
        struct extent gap;

        return !extents_gap(e, start, end, &gap);
}

bool extents_touch(const struct extents *e, uint64_t start, uint64_t end)
{
        struct extent part;

        return extents_next(e, start, end, &part);
}

uint64_t extents_bytes(const struct extents *e)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < e->count; i++)
                sum += e->at[i].end - e->at[i].start;
        return sum;
}
