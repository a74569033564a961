/* SPDX-License-Identifier: Apache-2.0 */
/* What is remembered of what was told, and what happens past the bound. */

#include "fs/volume/recent.h"

#include <stdlib.h>

#include "tests/unit/check.h"

#define WINDOW 1000

static size_t take(struct recent *r, uint64_t now_ns, uint64_t *wait)
{
        struct recent_item *items;
        size_t count = recent_take(r, now_ns, &items, wait);

        recent_free_items(items, count);
        return count;
}

static void what_has_run_out_is_forgotten(void)
{
        struct recent_item *items;
        struct recent r;
        uint64_t wait;

        recent_init(&r, WINDOW);
        recent_add_node(&r, 7, 1);
        CHECK(recent_add_name(&r, 8, "name", 900));
        recent_add_node(&r, 9, 901);
        CHECK_EQ(recent_take(&r, 1500, &items, &wait), 2);
        CHECK_EQ(items[0].node, 8);
        CHECK_STR(items[0].name, "name");
        CHECK_EQ(items[1].node, 9);
        CHECK(!items[1].name);
        CHECK_EQ(wait, 0);
        recent_free_items(items, 2);
        CHECK_EQ(take(&r, 1500, &wait), 0);
        recent_done(&r);
}

static void past_the_bound_names_are_refused_and_nodes_waited_for(void)
{
        struct recent r;
        uint64_t wait;

        recent_init(&r, WINDOW);
        for (unsigned i = 0; i < RECENT_MAX; i++)
                recent_add_node(&r, i, 10);
        CHECK(!recent_add_name(&r, 1, "name", 20));
        CHECK_EQ(take(&r, 30, &wait), RECENT_MAX);
        CHECK_EQ(wait, 0);
        for (unsigned i = 0; i < RECENT_MAX + 1; i++)
                recent_add_node(&r, i, 40 + i / RECENT_MAX);
        CHECK_EQ(take(&r, 50, &wait), RECENT_MAX);
        CHECK_EQ(wait, 41 + WINDOW);
        CHECK_EQ(take(&r, 41 + WINDOW, &wait), 0);
        CHECK_EQ(wait, 0);
        /* It goes round, and gives back what it grew to. */
        for (unsigned i = 0; i < 3 * RECENT_MAX; i++)
                recent_add_node(&r, i, 5000 + i);
        CHECK_EQ(take(&r, 5000 + 3 * RECENT_MAX, &wait), WINDOW - 1);
        CHECK_EQ(wait, 0);
        recent_add_node(&r, 1, 1000000);
        recent_done(&r);
}

int main(void)
{
        RUN(what_has_run_out_is_forgotten);
        RUN(past_the_bound_names_are_refused_and_nodes_waited_for);
        return check_result();
}
