/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/snapshot.h"

#include <unistd.h>

#include "fs/control/tripwire.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"

#define LOOK_NS (100 * NS_PER_MS) /* as in snapshot.c: between two stats of one look */

static struct snapshot *snapshot_of(const char *text)
{
        struct buf b = BUF_INIT(64);
        struct snapshot *s;

        CHECK_EQ(buf_add_str(&b, text), 0);
        s = snapshot_new(&b);
        buf_done(&b);
        return s;
}

static void a_stat_freezes_for_its_group_alone(void)
{
        struct snapshots *t = snapshots_new();
        struct snapshot *s = snapshot_of("one"), *got;

        snapshots_freeze(t, 5, 100, s);
        got = snapshots_frozen(t, 5, 100);
        CHECK(got == s);
        snapshot_unref(got);
        CHECK(snapshots_frozen(t, 5, 101) == NULL);
        CHECK(snapshots_frozen(t, 6, 100) == NULL);
        snapshots_drop(t, 101);
        got = snapshots_frozen(t, 5, 100);
        CHECK(got == s);
        snapshot_unref(got);
        snapshots_drop(t, 100);
        CHECK(snapshots_frozen(t, 5, 100) == NULL);
        snapshot_unref(s);
        snapshots_free(t);
}

/*
 * What comes too late finds nothing, rightly. So each of these says false where this thread was held
 * up for so long that nothing can be told, and is done again.
 */
typedef bool (*timed_fn)(struct snapshots *t, struct snapshot *s);

/* One more stat meanwhile: an open after it gets the same, a stat after both doesn't. */
static bool a_stat_prolongs_it_for_the_open(struct snapshots *t, struct snapshot *s)
{
        uint64_t frozen_ns = clock_mono_ns(), stat_ns;
        struct snapshot *got;
        bool is_in_time;

        snapshots_freeze(t, 5, 100, s);
        usleep(SNAPSHOT_FREEZE_NS / 2000);
        stat_ns = clock_mono_ns();
        got = snapshots_stat(t, 5, 100);
        is_in_time = clock_mono_ns() - frozen_ns < SNAPSHOT_FREEZE_NS;
        if (is_in_time)
                CHECK(got == s);
        snapshot_unref(got);
        if (!is_in_time)
                return false;
        usleep(SNAPSHOT_FREEZE_NS / 1000 * 3 / 4);
        got = snapshots_frozen(t, 5, 100);
        is_in_time = clock_mono_ns() - stat_ns < SNAPSHOT_FREEZE_NS;
        if (is_in_time)
                CHECK(got == s);
        snapshot_unref(got);
        if (!is_in_time)
                return false;
        CHECK(snapshots_stat(t, 5, 100) == NULL);
        return true;
}

/* The two stats of an open are one look, however old it is. */
static bool stats_of_one_look_see_the_same(struct snapshots *t, struct snapshot *s)
{
        uint64_t last_ns = clock_mono_ns();

        snapshots_freeze(t, 5, 100, s);
        for (int i = 0; i < 6; i++) {
                struct snapshot *got;
                uint64_t now_ns;
                bool is_in_time;

                usleep(SNAPSHOT_FREEZE_NS / 5000);
                now_ns = clock_mono_ns();
                got = snapshots_stat(t, 5, 100);
                is_in_time = clock_mono_ns() - last_ns < LOOK_NS;
                if (is_in_time)
                        CHECK(got == s);
                snapshot_unref(got);
                if (!is_in_time)
                        return false;
                last_ns = now_ns;
        }
        return true;
}

static void until_in_time(timed_fn test, struct snapshots *t, struct snapshot *s)
{
        unsigned tries = 1;

        while (!test(t, s) && tries < 100)
                tries++;
        CHECK(tries < 100);
}

static void what_is_frozen_thaws(void)
{
        struct snapshots *t = snapshots_new();
        struct snapshot *s = snapshot_of("one");

        snapshots_freeze(t, 5, 100, s);
        usleep(SNAPSHOT_FREEZE_NS / 1000 + 10000);
        CHECK(snapshots_frozen(t, 5, 100) == NULL);

        until_in_time(a_stat_prolongs_it_for_the_open, t, s);
        until_in_time(stats_of_one_look_see_the_same, t, s);
        snapshot_unref(s);
        snapshots_free(t);
}

static void the_wire_holds_who_tripped_it(void)
{
        struct tripwire *w = tripwire_new();

        CHECK(!tripwire_holds(w, getpid()));
        tripwire_trip(w, getpid());
        CHECK(tripwire_holds(w, getpid()));
        CHECK(!tripwire_holds(w, getppid()));
        tripwire_free(w);
}

int main(void)
{
        RUN(a_stat_freezes_for_its_group_alone);
        RUN(what_is_frozen_thaws);
        RUN(the_wire_holds_who_tripped_it);
        return check_result();
}
