/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/control/snapshot.h"

#include <unistd.h>

#include "fs/control/tripwire.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"

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

static void what_is_frozen_thaws(void)
{
        struct snapshots *t = snapshots_new();
        struct snapshot *s = snapshot_of("one"), *got;

        snapshots_freeze(t, 5, 100, s);
        usleep(SNAPSHOT_FREEZE_NS / 1000 + 10000);
        CHECK(snapshots_frozen(t, 5, 100) == NULL);

        /* One more stat meanwhile: an open after it gets the same, a stat after both doesn't. */
        snapshots_freeze(t, 5, 100, s);
        usleep(SNAPSHOT_FREEZE_NS / 2000);
        got = snapshots_stat(t, 5, 100);
        CHECK(got == s);
        snapshot_unref(got);
        usleep(SNAPSHOT_FREEZE_NS / 1000 * 3 / 4);
        got = snapshots_frozen(t, 5, 100);
        CHECK(got == s);
        snapshot_unref(got);
        CHECK(snapshots_stat(t, 5, 100) == NULL);

        /* The two stats of an open are one look, however old it is. */
        snapshots_freeze(t, 5, 100, s);
        for (int i = 0; i < 6; i++) {
                usleep(SNAPSHOT_FREEZE_NS / 5000);
                got = snapshots_stat(t, 5, 100);
                CHECK(got == s);
                snapshot_unref(got);
        }
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
