/* SPDX-License-Identifier: Apache-2.0 */
/* First names and attributes, then the pages of what is open, whose attributes go with them. */

#include "fs/volume/recall.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "fs/volume/nodes.h"
#include "fs/volume/recent.h"
#include "fs/volume/volume.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

/* Open files of which the kernel keeps something, in order of their numbers, each once. */
struct kept {
        uint64_t *nodes;
        size_t count;
};

static int by_number(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

static void find_kept(struct nodes *nodes, struct kept *ret)
{
        size_t all = 0;

        *ret = (struct kept){0};
        if (nodes_recall(nodes, &ret->nodes, &all) < 0) {
                log_error(
                        "out of memory: pages of open files are dropped when they are opened again");
                return;
        }
        qsort(ret->nodes, all, sizeof(*ret->nodes), by_number);
        for (size_t i = 0; i < all; i++)
                if (i == 0 || ret->nodes[i] != ret->nodes[ret->count - 1])
                        ret->nodes[ret->count++] = ret->nodes[i];
}

static bool is_kept(const struct kept *k, uint64_t node)
{
        return k->count > 0 &&
               bsearch(&node, k->nodes, k->count, sizeof(*k->nodes), by_number) != NULL;
}

static void take_back_names(struct nodes *nodes, const struct volume_events *events, uint64_t node)
{
        char name[NAME_MAX + 1];
        uint64_t parent;
        uint32_t cursor = 0;

        while (nodes_name(nodes, node, &cursor, &parent, name))
                events->inval_entry(events->ctx, parent, name);
}

static void sleep_until(uint64_t deadline_ns)
{
        struct timespec until = clock_timespec(deadline_ns);

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
                ;
}

void recall_all(struct nodes *nodes, struct recent *recent, const struct volume_events *events)
{
        uint64_t now_ns = clock_mono_ns(), wait_until_ns;
        struct recent_item *items;
        struct kept kept;
        size_t count = recent_take(recent, now_ns, &items, &wait_until_ns);

        nodes_hand_out_anew(nodes, (uint32_t)(clock_mono_ns() / NS_PER_MS));
        find_kept(nodes, &kept);
        for (size_t i = 0; i < count; i++) {
                if (items[i].name) {
                        events->inval_entry(events->ctx, items[i].node, items[i].name);
                        continue;
                }
                if (!is_kept(&kept, items[i].node))
                        events->inval_node(events->ctx, items[i].node, true);
                take_back_names(nodes, events, items[i].node);
        }
        recent_free_items(items, count);
        for (size_t i = 0; i < kept.count; i++)
                events->inval_node(events->ctx, kept.nodes[i], false);
        nodes_recalled(nodes);
        free(kept.nodes);
        if (wait_until_ns != 0) /* too much was told to take it all back: let it run out */
                sleep_until(wait_until_ns);
}
