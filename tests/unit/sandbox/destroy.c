/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes go: at once by name, proven gone by the provider, tried again; or they come back. */

#include "tests/unit/sandbox/world.h"

static bool is_forgotten(uint64_t serial)
{
        struct sandbox *sb = fleet_by_serial(world.fleet, serial);

        sandbox_unref(sb);
        return !sb;
}

static void the_name_is_free_at_once(void)
{
        struct sandbox *sb;
        uint64_t serial, seq;

        world_begin(0);
        world_up();
        sb = make("web");
        serial = sandbox_serial(sb);
        fake_hang(FAKE_DESTROY, true);
        seq = begin_verb(sb, SANDBOX_DESTROY);
        CHECK(!exists("web"));
        CHECK_EQ(sandbox_state(sb), BOX_DESTROYING);
        CHECK(status_has("sandbox web fake destroying - box-1\n"));
        CHECK_EQ(try_create("web", NULL, 0), 0);
        CHECK(has_result(sandbox_results(sb), seq, "pending"));
        CHECK_EQ(sandbox_check(sb, SANDBOX_STOP, &world.call), -EBUSY);
        CHECK_EQ(sandbox_set_label(sb, "a", "b", &world.call), -EBUSY);
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x"}, 0, &world.call),
                 -EBUSY);
        /* A second one is on its way already. */
        CHECK(has_result(sandbox_results(sb), begin_verb(sb, SANDBOX_DESTROY), "ok"));
        CHECK(!is_forgotten(serial));
        fake_hang(FAKE_DESTROY, false);
        EVENTUALLY(is_done(sb, seq));
        CHECK(has_result(sandbox_results(sb), seq, "ok"));
        CHECK_EQ(sandbox_state(sb), BOX_GONE);
        CHECK(is_forgotten(serial));
        CHECK_EQ(atomic_load(&world.gone), 1);
        CHECK(!fake_exists("box-1"));
        CHECK(exists("web"));
        sandbox_unref(sb);
        world_end();
}

static void rmdir_is_more_careful_than_destroy(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), -ENOENT);
        sb = make("web");
        t = run(sb, "hold");
        (void)running(sb, t);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), -EBUSY);
        CHECK(strstr(info_of(sb).last_error, "a command runs in web"));
        CHECK_EQ(sandbox_protect(sb, true, &world.call), 0);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), -EPERM);
        CHECK_EQ(sandbox_check(sb, SANDBOX_DESTROY, &world.call), -EPERM);
        CHECK_EQ(sandbox_protect(sb, false, &world.call), 0);
        CHECK(verb_ok(sb, SANDBOX_DESTROY));
        CHECK_STR(ended(t).exit, "error the sandbox was destroyed");
        CHECK(!fake_exec_is_attached(fake_exec("box-1", 1)));
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void what_waits_in_the_queue_is_dropped(void)
{
        struct sandbox *sb;
        struct task *t;
        uint64_t stop, start, destroy;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_hang(FAKE_STOP, true);
        stop = begin_verb(sb, SANDBOX_STOP);
        EVENTUALLY(fake_calls(FAKE_STOP) == 1);
        start = begin_verb(sb, SANDBOX_START);
        t = run(sb, "hold");
        destroy = begin_verb(sb, SANDBOX_DESTROY);
        EVENTUALLY(is_done(sb, destroy));
        CHECK(fake_was_cancelled(FAKE_STOP));
        CHECK(has_result(sandbox_results(sb), stop, "error"));
        CHECK(has_result(sandbox_results(sb), start, "error"));
        CHECK(has_result(sandbox_results(sb), destroy, "ok"));
        CHECK_EQ(fake_calls(FAKE_START), 0);
        CHECK_EQ(fake_calls(FAKE_EXEC_START), 0);
        CHECK_STR(ended(t).exit, "error the sandbox was destroyed");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void a_destruction_is_tried_again(void)
{
        struct sandbox *sb;
        uint64_t seq;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_fail(FAKE_DESTROY, -EIO, 3);
        seq = begin_verb(sb, SANDBOX_DESTROY);
        EVENTUALLY(is_done(sb, seq));
        CHECK(has_result(sandbox_results(sb), seq, "ok"));
        CHECK_EQ(fake_calls(FAKE_DESTROY), 4);
        CHECK_EQ(fake_count(), 0);
        sandbox_unref(sb);
        world_end();
}

static void what_cant_be_destroyed_comes_back(void)
{
        struct sandbox *sb;
        uint64_t seq, serial;

        world_begin(0);
        world.seams.destroy_tries = 3;
        world_up();
        sb = make("web");
        serial = sandbox_serial(sb);
        fake_fail(FAKE_DESTROY, -EACCES, -1);
        CHECK_EQ(try_create("web.1", NULL, 0), 0); /* it may come back at once */
        seq = begin_verb(sb, SANDBOX_DESTROY);
        EVENTUALLY(is_done(sb, seq));
        CHECK(has_result(sandbox_results(sb), seq, "error"));
        CHECK_EQ(fake_calls(FAKE_DESTROY), 3);
        EVENTUALLY(exists("web.2")); /* web.1 is taken */
        CHECK_EQ(serial_of("web.2"), serial);
        CHECK_EQ(sandbox_state(sb), BOX_ERROR);
        CHECK_STR(info_of(sb).last_error, "could not be destroyed: fake: operation 2 fails");
        CHECK_EQ(sandbox_check(sb, SANDBOX_START, &world.call), -EBUSY);
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x"}, 0, &world.call),
                 -EBUSY);
        CHECK_EQ(fleet_rename(world.fleet, "web.2", "zombie", &world.call), 0);

        /* Once more by hand: the same again, under the new name. */
        CHECK_EQ(fleet_remove(world.fleet, "zombie", &world.call), 0);
        EVENTUALLY(exists("zombie.1"));
        sandbox_unref(sb);
        world_down();

        /* The next mount tries by itself. */
        fake_fail(FAKE_DESTROY, 0, 0);
        world_up();
        CHECK(!exists("zombie") && !exists("zombie.1"));
        EVENTUALLY(is_forgotten(serial));
        EVENTUALLY(!fake_exists("box-1"));
        world_end();
}

static void a_destruction_goes_on_after_a_restart(void)
{
        struct sandbox *sb;
        uint64_t serial;

        world_begin(0);
        world.seams.destroy_retry_ns = 3600 * NS_PER_S;
        world_up();
        sb = make("web");
        serial = sandbox_serial(sb);
        fake_fail(FAKE_DESTROY, -EIO, 2);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        EVENTUALLY(strcmp(info_of(sb).phase, "try 1 failed") == 0);
        CHECK_EQ(fake_calls(FAKE_DESTROY), 1);
        sandbox_unref(sb);
        sandbox_unref(make("web")); /* another one */
        world_down_by(0);
        CHECK(fake_exists("box-1"));

        world_up();
        EVENTUALLY(fake_calls(FAKE_DESTROY) == 2);
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        CHECK(serial_of("web") != serial);
        CHECK(status_has("sandbox web fake destroying - box-1\n"));
        world_down_by(0);

        world_up();
        EVENTUALLY(is_forgotten(serial));
        CHECK(!fake_exists("box-1"));
        CHECK_EQ(fake_count(), 1);
        world_end();
}

static void what_was_adopted_is_destroyed_after_a_restart(void)
{
        struct results *results;
        const char *theirs;
        struct sandbox *sb;
        uint64_t seq, serial;

        world_begin(0);
        world.seams.destroy_retry_ns = 3600 * NS_PER_S;
        world_up();
        results = fleet_results(world.fleet);
        theirs = fake_add("elsewhere", false);
        seq = results_add(results, "-", "adopt");
        fleet_adopt(world.fleet, NULL, theirs, "guest", seq);
        EVENTUALLY(has_result(results, seq, "ok"));
        sb = fleet_find(world.fleet, "guest");
        serial = sandbox_serial(sb);
        fake_fail(FAKE_DESTROY, -EIO, 1);
        (void)begin_verb(sb, SANDBOX_DESTROY);
        EVENTUALLY(fake_calls(FAKE_DESTROY) == 1);
        sandbox_unref(sb);
        world_down_by(0);
        world_up();
        EVENTUALLY(is_forgotten(serial));
        CHECK(!fake_exists(theirs)); /* though no list shows it */
        world_end();
}

static void destroying_what_is_gone_is_success(void)
{
        struct sandbox *sb;
        uint64_t serial;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_set_state("box-1", BOX_GONE, "");
        CHECK(verb_ok(sb, SANDBOX_DESTROY));
        sandbox_unref(sb);

        /* Also one that was gone when we came back. */
        sandbox_unref(make("two"));
        serial = serial_of("two");
        world_down();
        fake_set_state("box-2", BOX_GONE, "");
        world_up();
        EVENTUALLY(state_of("two") == BOX_GONE);
        CHECK_EQ(fleet_remove(world.fleet, "two", &world.call), 0);
        EVENTUALLY(is_forgotten(serial));
        world_end();
}

static void an_unmount_does_as_it_was_told(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sandbox_unref(make("web"));
        world_down();
        CHECK_EQ(fake_calls(FAKE_PAUSE) + fake_calls(FAKE_DESTROY), 0);

        world.config.on_unmount = ON_UNMOUNT_PAUSE;
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        world_down();
        CHECK_EQ(fake_calls(FAKE_PAUSE), 1);

        /* The next mount's command brings it back. */
        world.config.on_unmount = ON_UNMOUNT_DESTROY;
        world_up();
        EVENTUALLY(state_of("web") == BOX_PAUSED);
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(is_settled(sb));
        t = run(sb, "now 0");
        CHECK_STR(ended(t).exit, "0");
        task_unref(t);
        CHECK_EQ(sandbox_protect(sb, true, &world.call), 0);
        sandbox_unref(sb);
        sandbox_unref(make("two"));
        world_down();
        CHECK(fake_exists("box-1")); /* protected */
        CHECK(!fake_exists("box-2"));
        world_forget();
}

static void a_drain_ends_at_its_deadline(void)
{
        world_begin(0);
        world.config.on_unmount = ON_UNMOUNT_DESTROY;
        world_up();
        sandbox_unref(make("web"));
        fake_hang(FAKE_DESTROY, true);
        world_down_by(clock_after(2 * NS_PER_S)); /* it must have begun by then */
        CHECK(fake_was_cancelled(FAKE_DESTROY));
        CHECK(fake_exists("box-1"));
        fake_hang(FAKE_DESTROY, false);
        world.config.on_unmount = ON_UNMOUNT_KEEP;
        world_up();
        EVENTUALLY(!fake_exists("box-1"));
        world_end();
}

static void *tell(void *arg)
{
        atomic_bool *is_over = arg;

        while (!atomic_load(is_over))
                fake_news("box-0");
        return NULL;
}

/* Whoever tells of a change takes part in its end, and a box waits for its own threads. */
static void no_teller_releases_a_box(void)
{
        uint64_t end_ns = clock_after(30 * NS_PER_S); /* fewer rounds where each takes long */
        atomic_bool is_over;
        pthread_t tellers[3];

        world_begin(0);
        world_up();
        atomic_init(&is_over, false);
        for (unsigned i = 0; i < 3; i++)
                CHECK_EQ(pthread_create(&tellers[i], NULL, tell, &is_over), 0);
        for (unsigned i = 0; i < 200 && clock_mono_ns() < end_ns; i++) {
                struct sandbox *sb = make("web");
                uint64_t serial = sandbox_serial(sb);

                (void)begin_verb(sb, SANDBOX_DESTROY);
                sandbox_unref(sb);
                EVENTUALLY(is_forgotten(serial));
        }
        atomic_store(&is_over, true);
        for (unsigned i = 0; i < 3; i++)
                CHECK_EQ(pthread_join(tellers[i], NULL), 0);
        CHECK_EQ(fake_own_releases(), 0);
        world_end();
}

int main(void)
{
        RUN(the_name_is_free_at_once);
        RUN(rmdir_is_more_careful_than_destroy);
        RUN(what_waits_in_the_queue_is_dropped);
        RUN(a_destruction_is_tried_again);
        RUN(what_cant_be_destroyed_comes_back);
        RUN(a_destruction_goes_on_after_a_restart);
        RUN(what_was_adopted_is_destroyed_after_a_restart);
        RUN(destroying_what_is_gone_is_success);
        RUN(an_unmount_does_as_it_was_told);
        RUN(a_drain_ends_at_its_deadline);
        RUN(no_teller_releases_a_box);
        return check_result();
}
