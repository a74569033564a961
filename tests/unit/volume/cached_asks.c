/* SPDX-License-Identifier: Apache-2.0 */
/* Names and attributes of the cached volume: how much is asked for them, and how old they may be. */

#include <pthread.h>

#include "tests/unit/volume/names_support.h"

/* ---- how much is asked ---- */

static void a_walk_costs_one_or_two_listings(void)
{
        struct fixture f;
        uint64_t top;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "p");
        plant(&f, "p/", 20, 10);
        top = look(&f, VOLUME_ROOT, "p");
        CHECK_EQ(find(&f, top), 220);
        CHECK_EQ(lists(&f), 1);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        /* Again at once: nothing. */
        fake_box_zero(&f.box);
        CHECK_EQ(find(&f, top), 220);
        CHECK_EQ(fake_box_calls(&f.box), 0);
        /* When it is old: the same tree in one call. */
        set_ttl(&f, 3 * NS_PER_S);
        sleep_ms(3100);
        CHECK_EQ(find(&f, top), 220);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(lists(&f), 1);
        fixture_done(&f);
        /* From fs/ itself. */
        if (!fixture_init(&f))
                return;
        plant(&f, "", 20, 10);
        CHECK_EQ(find(&f, VOLUME_ROOT), 220);
        CHECK_EQ(fake_box_calls(&f.box), 2);
        fixture_done(&f);
}

static void lookups_in_a_listed_directory_are_free(void)
{
        struct fixture f;
        struct vol_entry e;
        char name[32];

        if (!fixture_init(&f))
                return;
        plant(&f, "", 1, 3);
        CHECK(walk(&f, "d0/f0") != 0);
        CHECK_EQ(lists(&f), 1);
        fake_box_zero(&f.box);
        for (unsigned i = 0; i < 100; i++) {
                (void)snprintf(name, sizeof(name), "none%u", i);
                CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, name, &e), 0);
                CHECK_EQ(e.node, 0);
                CHECK(e.ttl_ns > 0 && e.ttl_ns <= LONG_NS);
        }
        CHECK(walk(&f, "d0/f1") != 0);
        CHECK_EQ(walk(&f, "d0/none"), 0);
        CHECK_EQ(fake_box_calls(&f.box), 0);
        /* Nothing that isn't in memory is asked for by a thread that may not wait. */
        f.op.may_wait = false;
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "none", &e), 0);
        set_ttl(&f, NS_PER_S);
        sleep_ms(1100);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "none", &e), -EINPROGRESS);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "d0", &e), -EINPROGRESS);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "new", 0755, &e), -EINPROGRESS);
        CHECK_EQ(fake_box_calls(&f.box), 0);
        fixture_done(&f);
}

static void a_second_directory_brings_the_tree_of_their_parent(void)
{
        struct fixture f;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 30, 5);
        CHECK(walk(&f, "d0/f0") != 0); /* the names of fs/, and d0 */
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(atomic_load(&f.box.listed_entries), 35);
        CHECK(walk(&f, "d1/f0") != 0); /* the tree of fs/ */
        CHECK_EQ(fake_box_calls(&f.box), 2);
        for (unsigned i = 2; i < 30; i++) {
                char path[64];

                (void)snprintf(path, sizeof(path), "d%u/f3", i);
                CHECK(walk(&f, path) != 0);
        }
        CHECK_EQ(fake_box_calls(&f.box), 2);
        fixture_done(&f);
}

/* Some files of each of many directories, as git reads its objects. */
static void a_tree_that_took_long_is_tried_again_when_it_is_missed(void)
{
        struct fixture f;
        char path[64];

        if (!fixture_init_ttl(&f, NS_PER_S))
                return;
        plant(&f, "", 80, 10);
        CHECK(walk(&f, "d0/f0") != 0);
        atomic_store(&f.box.delay_after_ms[FAKE_LIST], 600);
        CHECK(walk(&f, "d1/f0") != 0); /* the tree of fs/, which takes too long */
        atomic_store(&f.box.delay_after_ms[FAKE_LIST], 100);
        sleep_ms(1100);
        fake_box_zero(&f.box);
        for (unsigned i = 2; i < 80; i++) {
                (void)snprintf(path, sizeof(path), "d%u/f3", i);
                CHECK(walk(&f, path) != 0);
        }
        CHECK(fake_box_calls(&f.box) >= 16);
        CHECK(fake_box_calls(&f.box) < 70); /* about 18, but for the load; 78 else */
        fixture_done(&f);
}

static void what_is_below_the_first_look_comes_with_it(void)
{
        struct fixture f;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "a");
        mkdir_real(&f, "a/b");
        plant(&f, "a/b/", 3, 3);
        mkdir_real(&f, "z");
        plant(&f, "z/", 3, 3);
        CHECK(walk(&f, "a/b/d1/f2") != 0);
        CHECK_EQ(walk(&f, "a/b/none/f2"), 0);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(atomic_load(&f.box.listed_entries), 2 + 1 + 3 + 9);
        /* When that is old: the same again. */
        set_ttl(&f, 3 * NS_PER_S);
        sleep_ms(3100);
        fake_box_zero(&f.box);
        CHECK(walk(&f, "a/b/d2/f1") != 0);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        CHECK_EQ(atomic_load(&f.box.listed_entries), 2 + 1 + 3 + 9);
        fixture_done(&f);
}

static void a_lone_file_in_a_large_directory_is_asked_for_alone(void)
{
        struct fixture f;
        uint64_t node;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 1, 500);
        node = walk(&f, "d0/f7");
        CHECK_EQ(lists(&f), 1);
        set_ttl(&f, NS_PER_S);
        for (int i = 0; i < 2; i++) {
                sleep_ms(2100); /* beyond what counts as the same visit */
                fake_box_zero(&f.box);
                put_real(&f, "d0/f7", "longer");
                CHECK_EQ(size_at(&f, node), 6);
                CHECK_EQ(lists(&f), 0);
                CHECK_EQ(stats(&f), 1);
        }
        fixture_done(&f);
}

struct looker {
        struct fixture *f;
        uint64_t node;
        pthread_t thread;
};

static void *look_from_thread(void *arg)
{
        struct looker *l = arg;
        struct vol_entry e;
        struct call call;
        struct vol_op op = {.call = &call, .umask = 022, .may_wait = true};

        call_init(&call, clock_after(20 * NS_PER_S));
        if (l->f->ops->lookup(l->f->v, &op, VOLUME_ROOT, "d0", &e) == 0)
                l->node = e.node;
        return NULL;
}

static void many_at_once_ask_once(void)
{
        struct fixture f;
        struct looker all[16];

        if (!fixture_init(&f))
                return;
        plant(&f, "", 2, 2);
        atomic_store(&f.box.delay_ms[FAKE_LIST], 100);
        for (unsigned i = 0; i < 16; i++) {
                all[i] = (struct looker){.f = &f};
                CHECK_EQ(pthread_create(&all[i].thread, NULL, look_from_thread, &all[i]), 0);
        }
        for (unsigned i = 0; i < 16; i++) {
                CHECK_EQ(pthread_join(all[i].thread, NULL), 0);
                CHECK(all[i].node != 0);
        }
        CHECK_EQ(fake_box_calls(&f.box), 1);
        fixture_done(&f);
}

static void a_huge_directory_is_listed_when_it_is_read_only(void)
{
        struct fixture f;
        struct seen s;
        char name[64];
        uint64_t dir, begin_ns;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "big");
        for (unsigned i = 0; i < 8000; i++) {
                (void)snprintf(name, sizeof(name), "big/file-%u", i);
                CHECK_EQ(mknodat(f.box.dir, name, S_IFREG | 0644, 0), 0);
        }
        CHECK(walk(&f, "big/file-7000") != 0);
        CHECK(atomic_load(&f.box.listed_entries) < 6000);
        CHECK_EQ(walk(&f, "big/none"), 0);
        CHECK(atomic_load(&f.box.listed_entries) < 6000);
        dir = look(&f, VOLUME_ROOT, "big");
        begin_ns = clock_mono_ns();
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(s.count, 8000);
        CHECK(clock_mono_ns() - begin_ns < 30 * NS_PER_S);
        CHECK_EQ(walk(&f, "big/none"), 0);
        fixture_done(&f);
}

static void statfs_is_asked_once_a_second(void)
{
        struct fixture f;
        struct statvfs fs;

        if (!fixture_init(&f))
                return;
        for (int i = 0; i < 5; i++)
                CHECK_EQ(f.ops->statfs(f.v, &f.op, &fs), 0);
        CHECK(fs.f_blocks > 0);
        CHECK_EQ(atomic_load(&f.box.calls[FAKE_STATFS]), 1);
        set_ttl(&f, 100 * NS_PER_MS);
        sleep_ms(150);
        CHECK_EQ(f.ops->statfs(f.v, &f.op, &fs), 0);
        CHECK_EQ(atomic_load(&f.box.calls[FAKE_STATFS]), 2);
        fixture_done(&f);
}

/* ---- how old an answer may be ---- */

static void what_is_older_than_the_ttl_is_asked_for_anew(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t node;

        if (!fixture_init(&f))
                return;
        set_ttl(&f, 5 * NS_PER_S);
        put_real(&f, "a", "1");
        node = look(&f, VOLUME_ROOT, "a");
        put_real(&f, "a", "12");
        put_real(&f, "b", "");
        sleep_ms(100);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), 0);
        CHECK_EQ(e.st.st_size, 1);
        CHECK(e.ttl_ns <= 4900 * NS_PER_MS); /* what is left of it */
        set_ttl(&f, 200 * NS_PER_MS);
        sleep_ms(150);
        CHECK_EQ(size_at(&f, node), 2);
        CHECK(look(&f, VOLUME_ROOT, "b") != 0);
        /* A slow answer counts from when it was asked for, but is good for who asked. */
        sleep_ms(250);
        atomic_store(&f.box.delay_after_ms[FAKE_LIST], 300);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), 0);
        CHECK_EQ(e.ttl_ns, 0);
        fixture_done(&f);
}

static void a_commands_end_makes_all_old(void)
{
        struct fixture f;
        uint64_t node, dir;
        struct seen s;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 2, 2);
        node = walk(&f, "d0/f0");
        dir = look(&f, VOLUME_ROOT, "d0");
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(look(&f, dir, "new"), 0);
        put_real(&f, "d0/f0", "longer");
        put_real(&f, "d0/new", "");
        CHECK_EQ(unlink(real(&f, "d0/f1")), 0);
        f.ops->exec_ended(f.v);
        CHECK(atomic_load(&f.node_events) > 0);
        CHECK(atomic_load(&f.entry_events) > 0);
        fake_box_zero(&f.box);
        CHECK_EQ(size_at(&f, node), 6);
        CHECK(look(&f, dir, "new") != 0);
        CHECK_EQ(look(&f, dir, "f1"), 0);
        CHECK(fake_box_calls(&f.box) <= 2);
        fixture_done(&f);
}

static void what_is_quiet_stays_known(void)
{
        struct fixture f;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        put_real(&f, "a", "1");
        atomic_store(&f.is_quiet, true);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        sleep_ms(150);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        CHECK_EQ(fake_box_calls(&f.box), 1);
        atomic_store(&f.is_quiet, false);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        CHECK_EQ(fake_box_calls(&f.box), 2);
        fixture_done(&f);
}

static void nothing_old_is_served_when_the_host_is_away(void)
{
        struct fixture f;
        struct vol_entry e;
        struct seen s;
        uint64_t begin_ns;

        if (!fixture_init_ttl(&f, 100 * NS_PER_MS))
                return;
        put_real(&f, "a", "1");
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        sleep_ms(150);
        atomic_store(&f.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), -EHOSTUNREACH);
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), -EHOSTUNREACH);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0755, &e), -EHOSTUNREACH);
        atomic_store(&f.box.enter_error, 0);
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        /* A hanging one ends with the call's deadline. */
        sleep_ms(150);
        atomic_store(&f.box.hangs[FAKE_LIST], true);
        begin_ns = clock_mono_ns();
        call_init(&f.call, clock_after(200 * NS_PER_MS));
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), -ETIMEDOUT);
        CHECK(clock_mono_ns() - begin_ns < 15 * NS_PER_S);
        atomic_store(&f.box.hangs[FAKE_LIST], false);
        call_init(&f.call, clock_after(20 * NS_PER_S));
        CHECK(look(&f, VOLUME_ROOT, "a") != 0);
        f.ops->gone(f.v);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "a", &e), -ENODEV);
        fixture_done(&f);
}

/* A connection that was lost under way is made again; what fails at once isn't asked again. */
static void a_listing_that_was_cut_is_asked_for_again(void)
{
        struct fixture f;
        struct seen s;

        if (!fixture_init(&f))
                return;
        put_real(&f, "a", "1");
        atomic_store(&f.box.delay_after_ms[FAKE_LIST], 10);
        atomic_store(&f.box.delay_ms[FAKE_LIST], 10);
        atomic_store(&f.box.error[FAKE_LIST], -EHOSTUNREACH);
        atomic_store(&f.box.error_at[FAKE_LIST], 1);
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), 0);
        CHECK_EQ(lists(&f), 2);
        set_ttl(&f, 50 * NS_PER_MS);
        sleep_ms(100);
        fake_box_zero(&f.box);
        atomic_store(&f.box.error_at[FAKE_LIST], 0); /* each */
        atomic_store(&f.box.error[FAKE_LIST], -EHOSTUNREACH);
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), -EHOSTUNREACH);
        CHECK_EQ(lists(&f), 3);
        fake_box_zero(&f.box);
        atomic_store(&f.box.delay_after_ms[FAKE_LIST], 0);
        atomic_store(&f.box.delay_ms[FAKE_LIST], 0);
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), -EHOSTUNREACH);
        CHECK(lists(&f) <= 3); /* one, but on a machine that is slow just now */
        fixture_done(&f);
}

int main(void)
{
        RUN(a_walk_costs_one_or_two_listings);
        RUN(lookups_in_a_listed_directory_are_free);
        RUN(a_second_directory_brings_the_tree_of_their_parent);
        RUN(a_tree_that_took_long_is_tried_again_when_it_is_missed);
        RUN(what_is_below_the_first_look_comes_with_it);
        RUN(a_lone_file_in_a_large_directory_is_asked_for_alone);
        RUN(many_at_once_ask_once);
        RUN(a_huge_directory_is_listed_when_it_is_read_only);
        RUN(what_is_older_than_the_ttl_is_asked_for_anew);
        RUN(a_commands_end_makes_all_old);
        RUN(what_is_quiet_stays_known);
        RUN(nothing_old_is_served_when_the_host_is_away);
        RUN(a_listing_that_was_cut_is_asked_for_again);
        RUN(statfs_is_asked_once_a_second);
        return check_result();
}
