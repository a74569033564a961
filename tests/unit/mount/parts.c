/* SPDX-License-Identifier: Apache-2.0 */
/* The small parts of fs/mount/ that need no mount: times, wakes, and the text of mountinfo. */

#include <errno.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "fs/mount/due.h"
#include "fs/mount/mountpoint.h"
#include "fs/mount/share.h"
#include "fs/mount/wakes.h"
#include "transport/base/clock.h"

#define ITEMS 500

/* The earliest of those that are in, by looking at all. */
static uint64_t earliest(const struct due *items)
{
        uint64_t at_ns = NEVER_NS;

        for (size_t i = 0; i < ITEMS; i++)
                if (items[i].place > 0 && items[i].at_ns < at_ns)
                        at_ns = items[i].at_ns;
        return at_ns;
}

static void the_earliest_is_first_whatever_was_moved(void)
{
        struct due items[ITEMS] = {0};
        struct due_heap heap = {0};
        unsigned seed = 1;

        for (unsigned i = 0; i < 20000; i++) {
                struct due *d = &items[(unsigned)rand_r(&seed) % ITEMS];
                unsigned at = (unsigned)rand_r(&seed) % 1000;

                CHECK_EQ(due_set(&heap, d, at < 300 ? NEVER_NS : at), 0);
                if (at > 950)
                        due_remove(&heap, d);
                if (!CHECK_EQ(due_first(&heap) ? due_first(&heap)->at_ns : NEVER_NS,
                              earliest(items)))
                        break;
        }
        for (size_t i = 0; i < ITEMS; i++)
                due_remove(&heap, &items[i]);
        CHECK(!due_first(&heap));
        due_heap_done(&heap);
}

static void a_wake_is_seen_after_now_and_not_before(void)
{
        static struct wakes w;
        uint64_t seen;

        wakes_note(&w, 7);
        seen = wakes_now(&w);
        CHECK(!wakes_since(&w, 7, seen));
        wakes_note(&w, 7);
        CHECK(wakes_since(&w, 7, seen));
        CHECK(!wakes_since(&w, 7, wakes_now(&w)));
}

static void mountinfo_names_the_topmost(void)
{
        static const char text[] =
                "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
                "30 22 0:50 / /mnt/a\\040b rw,nosuid - fuse.sbxfs sbxfs rw,user_id=0\n"
                "31 22 0:51 / /mnt/a\\040b rw shared:4 master:1 - fuse.sbxfs sbxfs rw\n"
                "32 22 0:52 / /mnt/covered rw - fuse.sbxfs sbxfs rw\n"
                "33 22 0:53 / /mnt/covered rw - tmpfs - rw\n"
                "34 22 0:54 / /mnt/other rw - fuse.sshfs host: rw\n"
                "a line that is none\n"
                "35 22 0:x / /mnt/bad rw - fuse.sbxfs sbxfs rw\n"
                "36 22 0:55 / /mnt/short rw";
        struct mount_entry e = {0};

        CHECK_EQ(mountinfo_find(text, "/mnt/a b", &e), 1);
        CHECK_EQ(e.minor, 51);
        CHECK_EQ(mountinfo_find(text, "/mnt/covered", &e), 0);
        CHECK_EQ(mountinfo_find(text, "/mnt/other", &e), 0);
        CHECK_EQ(mountinfo_find(text, "/mnt/bad", &e), 0);
        CHECK_EQ(mountinfo_find(text, "/mnt/short", &e), 0);
        CHECK_EQ(mountinfo_find(text, "/mnt", &e), 0);
        CHECK_EQ(mountinfo_find("", "/mnt", &e), 0);
        CHECK_EQ(e.minor, 51);
}

static void a_group_has_its_share_and_no_more(void)
{
        struct shares *s = shares_new();
        uint64_t id = 0;

        if (!CHECK(s))
                return;
        for (unsigned i = 0; i < SHARE_WORKERS; i++)
                CHECK_EQ(share_begin(s, 1, ++id, 0), 1);
        CHECK_EQ(share_begin(s, 1, 100, 0), 0);
        CHECK_EQ(share_begin(s, 1, 101, 0), 0);
        CHECK_EQ(share_begin(s, 2, 102, 0), 1); /* others are not held up */
        CHECK_EQ(share_end(s, 2, 0), 0);
        CHECK_EQ(share_end(s, 1, 0), 100); /* in order */
        CHECK_EQ(share_begin(s, 1, 103, 0), 0);
        CHECK_EQ(share_end(s, 1, 0), 101);
        CHECK_EQ(share_end(s, 1, 0), 103);
        CHECK_EQ(share_end(s, 1, 0), 0);
        CHECK_EQ(share_begin(s, 1, 104, 0), 1);
        for (unsigned i = 0; i < SHARE_WORKERS; i++)
                CHECK_EQ(share_end(s, 1, 0), 0);
        CHECK_EQ(share_end(s, 1, 0), 0); /* nobody is left */
        shares_free(s);
}

static void a_group_that_is_stuck_is_refused(void)
{
        struct shares *s = shares_new();

        if (!CHECK(s))
                return;
        for (unsigned i = 0; i < SHARE_STUCK; i++)
                CHECK(share_begin(s, 1, i + 1, 5) >= 0);
        CHECK_EQ(share_begin(s, 1, 1000, 4 + SHARE_STUCK_NS), 0);
        CHECK_EQ(share_begin(s, 1, 1001, 5 + SHARE_STUCK_NS), -EHOSTUNREACH);
        CHECK_EQ(share_begin(s, 2, 1002, 5 + SHARE_STUCK_NS), 1);
        CHECK_EQ(share_end(s, 1, 6 + SHARE_STUCK_NS), SHARE_WORKERS + 1);
        CHECK_EQ(share_begin(s, 1, 1003, 7 + SHARE_STUCK_NS), 0); /* it moves again */
        shares_free(s); /* with all that wait */
}

int main(void)
{
        RUN(the_earliest_is_first_whatever_was_moved);
        RUN(a_wake_is_seen_after_now_and_not_before);
        RUN(mountinfo_names_the_topmost);
        RUN(a_group_has_its_share_and_no_more);
        RUN(a_group_that_is_stuck_is_refused);
        return check_result();
}
