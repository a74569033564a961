/* SPDX-License-Identifier: Apache-2.0 */
/* What was written is delivered before anything inside can miss it. */

#include "tests/unit/sandbox/world.h"

static void a_command_starts_behind_the_delivery(void)
{
        struct sandbox *sb;
        struct task *t;
        struct task_info info;

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(atomic_load(&world.delivered), 0);
        t = run(sb, "true");
        (void)running(sb, t);
        CHECK_EQ(atomic_load(&world.delivered), 1);
        task_unref(t);

        atomic_store(&world.deliver_code, -EIO); /* never "lost": it was not sent */
        t = run(sb, "true");
        info = ended(t);
        CHECK_STR(info.exit, "error what was written could not be delivered: no way there");
        CHECK_EQ(fake_calls(FAKE_EXEC_START), 1);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void it_goes_down_behind_the_delivery(void)
{
        static const enum sandbox_verb verbs[] = {SANDBOX_PAUSE, SANDBOX_STOP, SANDBOX_RESTART};
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sb = make("web");
        for (unsigned i = 0; i < 3; i++) {
                unsigned before = atomic_load(&world.delivered);

                CHECK(verb_ok(sb, SANDBOX_START));
                CHECK_EQ(atomic_load(&world.delivered), before);
                atomic_store(&world.deliver_code, -EHOSTUNREACH);
                CHECK(!verb_ok(sb, verbs[i]));
                CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
                atomic_store(&world.deliver_code, 0);
                CHECK(verb_ok(sb, verbs[i]));
                CHECK_EQ(atomic_load(&world.delivered), before + 2);
        }
        CHECK_EQ(fake_calls(FAKE_PAUSE), 1);
        CHECK_EQ(fake_calls(FAKE_STOP), 2);
        sandbox_unref(sb);
        world_end();
}

static void what_is_dirty_is_shown_and_kept(void)
{
        struct sandbox *sb;
        uint64_t generation, before;

        world_begin(0);
        world_up();
        sb = make("web");
        generation = sandbox_generation(sb);
        before = sandbox_dirty_turn(sb);
        sandbox_set_dirty(sb, sandbox_dirty_turn(sb), 2, 100, 0);
        CHECK(sandbox_generation(sb) > generation);
        CHECK_EQ(info_of(sb).dirty_files, 2);
        CHECK_EQ(info_of(sb).dirty_bytes, 100);
        sandbox_set_dirty(sb, before, 0, 0, 0); /* asked for earlier, told later */
        CHECK_EQ(info_of(sb).dirty_files, 2);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), -EBUSY);
        CHECK(strstr(world.call.sentence, "not delivered"));
        atomic_store(&world.deliver_code, -EHOSTUNREACH);
        CHECK(!verb_ok(sb, SANDBOX_SYNC));
        CHECK_EQ(info_of(sb).dirty_files, 2);
        atomic_store(&world.deliver_code, 0);
        CHECK(verb_ok(sb, SANDBOX_SYNC));
        CHECK_EQ(info_of(sb).dirty_files, 0);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        sandbox_unref(sb);
        world_end();
}

static void what_was_refused_keeps_commands_from_starting(void)
{
        struct task_options ignore = {.text = "true", .ignore_unsent = true};
        struct sandbox *sb;
        struct task *t;
        struct task_info info;

        world_begin(0);
        world_up();
        sb = make("web");
        atomic_store(&world.unsent, 2);
        t = run(sb, "true");
        info = ended(t);
        CHECK_STR(info.exit, "error unsent a/b: no");
        CHECK_EQ(fake_calls(FAKE_EXEC_START), 0);
        task_unref(t);
        t = run_with(sb, &ignore);
        (void)running(sb, t);
        task_unref(t);
        CHECK_EQ(fake_calls(FAKE_EXEC_START), 1);

        CHECK(!verb_ok(sb, SANDBOX_RETRY)); /* one is refused again */
        CHECK(verb_ok(sb, SANDBOX_RETRY));
        CHECK_EQ(atomic_load(&world.retried), 2);
        t = run(sb, "true");
        (void)running(sb, t);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void what_was_refused_is_shown_and_kept(void)
{
        struct sandbox *sb;
        uint64_t generation;

        world_begin(0);
        world_up();
        sb = make("web");
        generation = sandbox_generation(sb);
        CHECK_EQ(info_of(sb).unsent_real_ns, 0);
        sandbox_set_dirty(sb, sandbox_dirty_turn(sb), 0, 0, 3);
        CHECK(sandbox_generation(sb) > generation);
        CHECK_EQ(info_of(sb).unsent, 3);
        CHECK(info_of(sb).unsent_real_ns > 0);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), -EBUSY);
        CHECK(strstr(world.call.sentence, "web/unsent"));
        sandbox_set_dirty(sb, sandbox_dirty_turn(sb), 0, 0, 0);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        sandbox_unref(sb);
        world_end();
}

static void an_unmount_delivers(void)
{
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sb = make("web");
        sandbox_unref(sb); /* of names that wait it is not told at once */
        world_down();
        CHECK_EQ(atomic_load(&world.delivered), 1);
        world_forget();
}

static void tests(void)
{
        RUN(a_command_starts_behind_the_delivery);
        RUN(it_goes_down_behind_the_delivery);
        RUN(what_is_dirty_is_shown_and_kept);
        RUN(what_was_refused_keeps_commands_from_starting);
        RUN(what_was_refused_is_shown_and_kept);
        RUN(an_unmount_delivers);
}

int main(void)
{
        tests();
        return check_result();
}
