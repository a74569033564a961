/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdint.h>

#include "tests/unit/base/alloc.h"
#include "transport/base/map.h"

static int values[1000];

static void strings_are_found_replaced_and_removed(void)
{
        struct map *m = map_new();
        char key[] = "key";

        if (!CHECK(m))
                return;
        CHECK(map_get(m, "key") == NULL);
        CHECK(map_remove(m, "key") == NULL);
        CHECK_EQ(map_put(m, key, &values[1]), 0);
        key[0] = 'x'; /* the map has a copy */
        CHECK(map_get(m, "key") == &values[1]);
        CHECK(map_get(m, "xey") == NULL);
        CHECK_EQ(map_put(m, "key", &values[2]), 0);
        CHECK_EQ(map_count(m), 1);
        CHECK_EQ(map_put(m, "", &values[3]), 0);
        CHECK_EQ(map_put(m, "\xff\xfe long enough for several words", &values[4]), 0);
        CHECK(map_get(m, "") == &values[3]);
        CHECK(map_get(m, "\xff\xfe long enough for several words") == &values[4]);
        CHECK(map_remove(m, "key") == &values[2]);
        CHECK(map_get(m, "key") == NULL);
        CHECK_EQ(map_count(m), 2);
        map_free(m);
        map_free(NULL);
        imap_free(NULL);
}

/* Against a plain array: 1000 possible keys come and go in pseudo-random order. */
static void random_changes_agree_with_an_array(void)
{
        struct map *m = map_new();
        struct imap *im = imap_new();
        void *expected[1000] = {NULL};
        uint32_t state = 12345;
        size_t count = 0;

        if (!CHECK(m && im))
                return;
        for (int round = 0; round < 200000; round++) {
                char key[16];
                uint32_t n;
                bool is_filling = round / 20000 % 2 == 0;

                state = state * 1664525 + 1013904223;
                n = (state >> 8) % 1000;
                (void)snprintf(key, sizeof(key), "k%u", n);
                if ((state >> 24) % 4 ? is_filling : !is_filling) {
                        count += expected[n] == NULL;
                        expected[n] = &values[(state >> 4) % 1000];
                        CHECK_EQ(map_put(m, key, expected[n]), 0);
                        CHECK_EQ(imap_put(im, (uint64_t)n << 32, expected[n]), 0);
                } else {
                        count -= expected[n] != NULL;
                        CHECK(map_remove(m, key) == expected[n]);
                        CHECK(imap_remove(im, (uint64_t)n << 32) == expected[n]);
                        expected[n] = NULL;
                }
                if (round % 1000 == 0)
                        for (uint32_t i = 0; i < 1000; i++) {
                                (void)snprintf(key, sizeof(key), "k%u", i);
                                CHECK(map_get(m, key) == expected[i]);
                                CHECK(imap_get(im, (uint64_t)i << 32) == expected[i]);
                        }
                if (!CHECK(map_count(m) == count && imap_count(im) == count))
                        break;
        }
        map_free(m);
        imap_free(im);
}

static void walk_meets_each_entry_once(void)
{
        struct map *m = map_new();
        struct imap *im = imap_new();
        unsigned seen[1000] = {0}, iseen[1000] = {0};
        const char *key = NULL;
        uint64_t number = 0;
        size_t cursor = 0, icursor = 0;
        void *value;

        if (!CHECK(m && im))
                return;
        CHECK(map_next(m, &cursor, &key) == NULL);
        for (int i = 0; i < 1000; i++) {
                char text[16];

                (void)snprintf(text, sizeof(text), "%d", i);
                CHECK_EQ(map_put(m, text, &values[i]), 0);
                CHECK_EQ(imap_put(im, (uint64_t)i, &values[i]), 0);
        }
        cursor = 0;
        while ((value = map_next(m, &cursor, &key))) {
                long i = (int *)value - values;

                CHECK_EQ(strtol(key, NULL, 10), i);
                seen[i]++;
        }
        while ((value = imap_next(im, &icursor, &number))) {
                CHECK(value == &values[number]);
                iseen[number]++;
        }
        for (int i = 0; i < 1000; i++)
                CHECK(seen[i] == 1 && iseen[i] == 1);
        cursor = 0;
        CHECK(map_next(m, &cursor, NULL) != NULL);
        map_free(m);
        imap_free(im);
}

static void order_differs_from_map_to_map(void)
{
        int equal = 0;

        for (int round = 0; round < 20; round++) {
                struct imap *a = imap_new(), *b = imap_new();
                size_t a_at = 0, b_at = 0;
                uint64_t a_key = 0, b_key = 1;

                if (!CHECK(a && b))
                        return;
                for (uint64_t i = 0; i < 10; i++) {
                        CHECK_EQ(imap_put(a, i, values), 0);
                        CHECK_EQ(imap_put(b, i, values), 0);
                }
                while (imap_next(a, &a_at, &a_key) && imap_next(b, &b_at, &b_key) && a_key == b_key)
                        ;
                equal += a_key == b_key;
                imap_free(a);
                imap_free(b);
        }
        CHECK(equal < 2);
}

static int fill(void)
{
        struct map *m = map_new();
        int r = m ? 0 : -ENOMEM;

        for (size_t i = 0; i < 50 && r == 0; i++) {
                char key[16];

                (void)snprintf(key, sizeof(key), "%zu", i);
                r = map_put(m, key, values);
                if (r < 0)
                        CHECK(map_get(m, key) == NULL && map_count(m) == i);
        }
        map_free(m);
        return r;
}

static int ifill(void)
{
        struct imap *m = imap_new();
        int r = m ? 0 : -ENOMEM;

        for (size_t i = 0; i < 50 && r == 0; i++) {
                r = imap_put(m, i, values);
                if (r < 0)
                        CHECK(imap_get(m, i) == NULL && imap_count(m) == i);
        }
        imap_free(m);
        return r;
}

static void lack_of_memory_is_said(void)
{
        CHECK(alloc_fail_each(fill) > 50);
        CHECK(alloc_fail_each(ifill) > 3);
}

/* A table that can't shrink for lack of memory works on. */
static void removing_needs_no_memory(void)
{
        struct imap *m = imap_new();

        if (!CHECK(m))
                return;
        for (uint64_t i = 0; i < 1000; i++)
                CHECK_EQ(imap_put(m, i, &values[i]), 0);
        for (uint64_t i = 0; i < 1000; i++) {
                alloc_fail_at = 1;
                alloc_count = 0;
                CHECK(imap_remove(m, i) == &values[i]);
                alloc_fail_at = 0;
        }
        CHECK_EQ(imap_count(m), 0);
        imap_free(m);
}

int main(void)
{
        RUN(strings_are_found_replaced_and_removed);
        RUN(random_changes_agree_with_an_array);
        RUN(walk_meets_each_entry_once);
        RUN(order_differs_from_map_to_map);
        RUN(lack_of_memory_is_said);
        RUN(removing_needs_no_memory);
        return check_result();
}
