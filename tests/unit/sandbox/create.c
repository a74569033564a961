/* SPDX-License-Identifier: Apache-2.0 */
/* Sandboxes come: creation, names, what is refused, and what can be set. */

#include "tests/unit/sandbox/world.h"

static char k_memory[] = "memory", k_image[] = "image", k_net[] = "net", k_host[] = "host",
            k_mount[] = "mount.0", k_env[] = "env.TOKEN", k_deadline[] = "create_timeout",
            k_readonly[] = "readonly", k_endpoint[] = "endpoint", k_what[] = "colour";

static void a_sandbox_is_there_at_once_and_runs_later(void)
{
        struct sandbox_info info;
        struct sandbox *sb;

        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        CHECK_EQ(state_of("web"), BOX_CREATING);
        CHECK(has_result(fleet_results(world.fleet), world.seq, "pending"));
        EVENTUALLY(fake_calls(FAKE_CREATE) == 1);
        CHECK(status_has("sandbox web fake creating - -\n"));
        sb = fleet_find(world.fleet, "web");
        CHECK_EQ(info_of(sb).ready_ms, 0);
        CHECK_EQ(info_of(sb).reachable, -1);
        fake_hang(FAKE_CREATE, false);
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        EVENTUALLY(has_result(fleet_results(world.fleet), world.seq, "ok"));
        info = info_of(sb);
        CHECK_STR(info.name, "web");
        CHECK_STR(info.provider, "fake");
        CHECK_STR(info.id, fake_id("web"));
        CHECK_STR(info.provider_state, "up");
        CHECK_EQ(info.reachable, 1);
        CHECK(info.ready_ms > 0);
        CHECK_STR(info.last_error, "");
        CHECK(!info.has_task && info.running == 0);
        CHECK(status_has("sandbox web fake running - box-1\n"));
        CHECK(status_has("provider fake ok -\n"));
        sandbox_unref(sb);
        world_end();
}

static void settings_reach_the_provider(void)
{
        const struct pair settings[] = {{k_memory, (char[]){"512M"}},
                                        {k_image, (char[]){"debian"}},
                                        {k_memory, (char[]){"1G"}},
                                        {k_env, (char[]){"hush"}}};
        char limit[] = "2G", readonly[] = "on", endpoint[] = "http://x";
        const struct pair defaults[] = {
                {k_memory, limit}, {k_readonly, readonly}, {k_endpoint, endpoint}};
        struct sandbox *sb;
        struct spec spec;

        world_begin(0);
        world.section.pairs = defaults;
        world.section.pair_count = 3;
        world_up();
        CHECK_EQ(try_create("web", settings, 4), 0);
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        spec = fake_spec(fake_id("web"));
        CHECK_EQ(spec.memory, UINT64_C(1) << 30); /* the last one counts, over the section's */
        CHECK(spec.is_readonly);
        CHECK_STR(fake_text(fake_id("web"), SETTING_IMAGE), "debian");
        CHECK_EQ(spec.env_count, 1);
        CHECK_STR(spec.name, "web");
        CHECK(spec.key[0] && spec.owner[0]);
        sb = fleet_find(world.fleet, "web");
        CHECK_STR(info_of(sb).image, "debian");
        CHECK_EQ(info_of(sb).memory, UINT64_C(1) << 30);
        sandbox_unref(sb);
        sandbox_unref(make("plain"));
        CHECK_EQ(fake_spec(fake_id("plain")).memory, UINT64_C(2) << 30);
        world_end();
}

static void a_creation_that_fails_says_why(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        fake_fail(FAKE_CREATE, -ENOSPC, 1);
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        sb = fleet_find(world.fleet, "web");
        t = run(sb, "true"); /* accepted: it waits for the creation */
        CHECK_EQ(task_state_of(t), TASK_QUEUED);
        fake_hang(FAKE_CREATE, false);
        EVENTUALLY(state_of("web") == BOX_ERROR);
        EVENTUALLY(has_result(fleet_results(world.fleet), world.seq, "error"));
        CHECK_STR(ended(t).exit, "error the sandbox was not created");
        EVENTUALLY(is_done(sb, 1));
        CHECK(info_of(sb).error_real_ns > 0);
        CHECK_EQ(sandbox_check(sb, SANDBOX_START, &world.call), -EBUSY);
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x"}, 0, &world.call),
                 -EBUSY);
        task_unref(t);
        sandbox_unref(sb);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        EVENTUALLY(status_has("sandbox web") == false);
        CHECK_EQ(fake_calls(FAKE_DESTROY), 0); /* the provider's list knows nothing of it */
        world_end();
}

static void a_creation_that_hangs_ends_at_its_deadline(void)
{
        const struct pair settings[] = {{k_deadline, (char[]){"1s"}}};
        struct sandbox *sb;

        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", settings, 1), 0);
        EVENTUALLY(state_of("web") == BOX_ERROR);
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(strstr(info_of(sb).last_error, "operation"));
        EVENTUALLY(status_has("provider fake down "));
        sandbox_unref(sb);
        fake_hang(FAKE_CREATE, false);
        sandbox_unref(make("two"));
        EVENTUALLY(status_has("provider fake ok "));
        world_end();
}

static void a_destruction_cancels_a_creation(void)
{
        uint64_t serial;
        struct sandbox *sb;

        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        EVENTUALLY(fake_calls(FAKE_CREATE) == 1);
        serial = serial_of("web");
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        CHECK(!exists("web"));
        EVENTUALLY(fake_was_cancelled(FAKE_CREATE));
        EVENTUALLY((sb = fleet_by_serial(world.fleet, serial)) == NULL ||
                   (sandbox_unref(sb), false));
        CHECK_EQ(fake_count(), 0);
        world_end();
}

static int refused(const char *name, char *key, char *value)
{
        const struct pair setting = {key, value};
        const struct create_options o = {
                .name = name, .settings = &setting, .setting_count = key != NULL};

        world.call.sentence[0] = '\0';
        return fleet_check_create(world.fleet, &o, 0, &world.call);
}

static bool says(const char *part)
{
        bool does = strstr(world.call.sentence, part) != NULL;

        if (!does)
                (void)fprintf(stderr, "    says: %s\n", world.call.sentence);
        return does;
}

static void what_cant_be_is_refused(void)
{
        static const char *const bad[] = {"",          ".git",   "a/b",    "-x",     "x-",
                                          "ctl",       "status", "README", "events", "providers",
                                          "templates", "by-id",  "help",   "wait",   "follow"};
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sb = make("web");
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                CHECK_EQ(refused(bad[i], NULL, NULL), -EINVAL);
        CHECK_EQ(refused("web", NULL, NULL), -EEXIST);
        CHECK_EQ(refused("a", k_what, k_what), -EINVAL);
        CHECK_EQ(refused("a", k_memory, k_what), -EINVAL);
        CHECK_EQ(refused("a", k_host, k_what), -EOPNOTSUPP);
        CHECK(says("provider fake (fake) has no setting \"host\""));
        CHECK_EQ(refused("a", k_net, (char[]){"host"}), -EPERM);
        CHECK(says("-o allow=net"));
        CHECK_EQ(refused("a", k_net, (char[]){"none"}), 0);
        CHECK_EQ(refused("a", k_mount, (char[]){"/etc:/x"}), -EPERM);
        CHECK_EQ(fleet_check_create(world.fleet,
                                    &(struct create_options){.name = "a", .provider = "nope"}, 0,
                                    &world.call),
                 -ENOENT);
        CHECK_EQ(try_create("web", NULL, 0), -EEXIST);
        CHECK_EQ(fake_count(), 1);
        sandbox_unref(sb);
        world_end();

        world_begin(0);
        world.config.allow = ALLOW_NET;
        world.section.allow = ALLOW_MOUNT;
        world_up();
        CHECK_EQ(refused("a", k_net, (char[]){"host"}), 0);
        CHECK_EQ(refused("a", k_mount, (char[]){"/etc:/x"}), 0);
        world_end();
}

static void there_are_no_more_than_allowed(void)
{
        const struct create_options o = {.name = "c"};

        world_begin(0);
        world.config.max_sandboxes = 3;
        world_up();
        sandbox_unref(make("a"));
        CHECK_EQ(fleet_check_create(world.fleet, &o, 1, &world.call), 0);
        CHECK_EQ(fleet_check_create(world.fleet, &o, 2, &world.call), -EDQUOT);
        sandbox_unref(make("b"));
        sandbox_unref(make("c"));
        CHECK_EQ(try_create("d", NULL, 0), -EDQUOT);
        CHECK_EQ(fleet_check_adopt(world.fleet, NULL, "box-9", NULL, &world.call), -EDQUOT);
        /* What is being destroyed has no name, and doesn't count up to a point. */
        fake_hang(FAKE_DESTROY, true);
        CHECK_EQ(fleet_remove(world.fleet, "a", &world.call), 0);
        CHECK_EQ(fleet_remove(world.fleet, "b", &world.call), 0);
        CHECK_EQ(try_create("a", NULL, 0), 0);
        CHECK_EQ(fleet_remove(world.fleet, "c", &world.call), 0);
        CHECK_EQ(try_create("b", NULL, 0), 0);
        sandbox_unref(make("c"));
        CHECK_EQ(fleet_remove(world.fleet, "c", &world.call), 0);
        CHECK_EQ(try_create("c", NULL, 0), -EDQUOT);
        fake_hang(FAKE_DESTROY, false);
        EVENTUALLY(try_create("c", NULL, 0) == 0);
        world_end();
}

static void names_are_listed_in_order_and_change(void)
{
        uint64_t serials[4], serial, names_ns;
        struct sandbox_info info;
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sandbox_unref(make("b"));
        sandbox_unref(make("c"));
        sandbox_unref(make("a"));
        CHECK_EQ(fleet_list(world.fleet, serials, 1), 3);
        CHECK_EQ(fleet_list(world.fleet, serials, 4), 3);
        CHECK(serials[0] == serial_of("a") && serials[1] == serial_of("b") &&
              serials[2] == serial_of("c"));

        serial = serial_of("b");
        names_ns = fleet_names_real_ns(world.fleet);
        CHECK_EQ(fleet_rename(world.fleet, "b", "c", &world.call), -EEXIST);
        CHECK_EQ(fleet_rename(world.fleet, "b", "ctl", &world.call), -EINVAL);
        CHECK_EQ(fleet_rename(world.fleet, "x", "y", &world.call), -ENOENT);
        CHECK_EQ(fleet_rename(world.fleet, "b", "b", &world.call), 0);
        CHECK_EQ(fleet_names_real_ns(world.fleet), names_ns);
        CHECK_EQ(fleet_rename(world.fleet, "b", "z", &world.call), 0);
        CHECK(fleet_names_real_ns(world.fleet) > names_ns);
        CHECK(!exists("b"));
        CHECK_EQ(serial_of("z"), serial);
        CHECK_EQ(fleet_list(world.fleet, serials, 4), 3);
        CHECK_EQ(serials[2], serial);
        sb = fleet_find(world.fleet, "z");
        sandbox_get(sb, &info);
        CHECK_STR(info.name, "z");
        CHECK_STR(info.id, fake_id("b")); /* the provider's is what it was */
        sandbox_unref(sb);
        sandbox_unref(make("b")); /* free again */
        world_down();

        world_up();
        EVENTUALLY(state_of("z") == BOX_RUNNING);
        CHECK_EQ(serial_of("z"), serial);
        CHECK(serial_of("b") != serial);
        world_end();
}

static void each_change_shows_in_the_generation(void)
{
        struct sandbox *sb;
        uint64_t before, fleet_before;

        world_begin(0);
        world_up();
        sb = make("web");
        before = sandbox_generation(sb);
        CHECK_EQ(sandbox_protect(sb, true, &world.call), 0);
        CHECK(sandbox_generation(sb) > before);
        CHECK(info_of(sb).is_protected);
        before = sandbox_generation(sb);
        CHECK_EQ(sandbox_set_label(sb, "team/a", "blue", &world.call), 0);
        CHECK(sandbox_generation(sb) > before);
        CHECK_EQ(sandbox_set_label(sb, "team a", "blue", &world.call), -EINVAL);
        CHECK_EQ(sandbox_set_label(sb, "a", "x\ny", &world.call), -EINVAL);
        before = sandbox_generation(sb);
        fleet_before = fleet_generation(world.fleet);
        sandbox_say_error(sb, -EIO, "line\nforged\033");
        CHECK_STR(info_of(sb).last_error, "line\\x0aforged\\x1b");
        sandbox_say_error(sb, -EIO,
                          "e2b: 500: no \\x1b[31m luck"); /* as transport/ has escaped it */
        CHECK_STR(info_of(sb).last_error, "e2b: 500: no \\x1b[31m luck");
        CHECK(sandbox_generation(sb) > before);
        CHECK_EQ(fleet_generation(world.fleet), fleet_before); /* the root shows none of it */
        CHECK(verb_ok(sb, SANDBOX_PAUSE));
        CHECK(fleet_generation(world.fleet) > fleet_before);
        sandbox_unref(sb);
        world_end();
}

static void variables_are_checked_and_limited(void)
{
        struct sandbox *sb;
        char key[16];
        char *large = calloc(1, 128 * 1024 + 2);
        int r = 0;

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(info_of(sb).env, ENV_NONE);
        CHECK_EQ(sandbox_set_env(sb, "1X", "v", &world.call), -EINVAL);
        CHECK_EQ(sandbox_set_env(sb, "", "v", &world.call), -EINVAL);
        memset(large, 'x', 128 * 1024 + 1);
        CHECK_EQ(sandbox_set_env(sb, "X", large, &world.call), -E2BIG);
        large[128 * 1024] = '\0';
        for (int i = 0; i < 8 && r == 0; i++) {
                (void)snprintf(key, sizeof(key), "X%d", i);
                r = sandbox_set_env(sb, key, large, &world.call);
        }
        CHECK_EQ(r, -E2BIG); /* 1 MiB in all */
        CHECK_EQ(sandbox_set_env(sb, "X0", large, &world.call), 0); /* a replacement adds nothing */
        CHECK_EQ(info_of(sb).env, ENV_SET);
        for (int i = 0; i < 8; i++) {
                (void)snprintf(key, sizeof(key), "X%d", i);
                CHECK_EQ(sandbox_set_env(sb, key, NULL, &world.call), 0);
        }
        CHECK_EQ(info_of(sb).env, ENV_NONE);
        free(large);
        sandbox_unref(sb);
        world_end();
}

static void what_others_made_is_adopted_with_care(void)
{
        const char *theirs, *ours;
        struct results *results;
        struct sandbox *sb;
        uint64_t seq;

        world_begin(0);
        world_up();
        results = fleet_results(world.fleet);
        theirs = fake_add("elsewhere", false);
        ours = fake_add("lost", true);
        CHECK_EQ(fleet_check_adopt(world.fleet, "fake", "", NULL, &world.call), -EINVAL);
        CHECK_EQ(fleet_check_adopt(world.fleet, "nope", theirs, NULL, &world.call), -ENOENT);
        seq = results_add(results, "-", "adopt");
        fleet_adopt(world.fleet, "fake", theirs, "guest", seq);
        EVENTUALLY(has_result(results, seq, "ok"));
        CHECK_EQ(state_of("guest"), BOX_RUNNING);
        sb = fleet_find(world.fleet, "guest");
        CHECK(info_of(sb).is_foreign);
        CHECK_EQ(fleet_remove(world.fleet, "guest", &world.call), -EBUSY);
        CHECK_EQ(fleet_check_adopt(world.fleet, "fake", theirs, NULL, &world.call), -EEXIST);
        sandbox_unref(sb);

        seq = results_add(results, "-", "adopt");
        fleet_adopt(world.fleet, NULL, ours, NULL, seq);
        EVENTUALLY(has_result(results, seq, "ok"));
        sb = fleet_find(world.fleet, ours); /* the id is its name */
        CHECK(sb && !info_of(sb).is_foreign);
        sandbox_unref(sb);

        seq = results_add(results, "-", "adopt");
        fleet_adopt(world.fleet, NULL, "box-77", "none", seq);
        EVENTUALLY(has_result(results, seq, "error"));
        CHECK_EQ(state_of("none"), BOX_ERROR);
        CHECK_EQ(fleet_remove(world.fleet, "none", &world.call), 0);
        world_down();

        /* At the unmount only our own are destroyed. */
        world.config.on_unmount = ON_UNMOUNT_DESTROY;
        world_up();
        EVENTUALLY(state_of("guest") == BOX_RUNNING && state_of(ours) == BOX_RUNNING);
        world_down();
        CHECK(fake_exists(theirs));
        CHECK(!fake_exists(ours));
        world_forget();
}

static void an_adoption_that_fails_destroys_nothing(void)
{
        struct results *results;
        const char *theirs;
        uint64_t seq, serial;
        struct sandbox *sb;

        world_begin(0);
        world_up();
        results = fleet_results(world.fleet);
        theirs = fake_add("elsewhere", false);
        fake_fail(FAKE_ATTACH, -ETIMEDOUT, 1);
        seq = results_add(results, "-", "adopt");
        fleet_adopt(world.fleet, NULL, theirs, "guest", seq);
        EVENTUALLY(has_result(results, seq, "error"));
        serial = serial_of("guest");
        CHECK_EQ(fleet_remove(world.fleet, "guest", &world.call), 0);
        EVENTUALLY((sb = fleet_by_serial(world.fleet, serial)) == NULL ||
                   (sandbox_unref(sb), false));
        CHECK(fake_exists(theirs));
        world_end();
}

static void a_provider_that_is_not_there_is_shown_as_down(void)
{
        world_begin(0);
        fake_fail(FAKE_OPEN, -EHOSTUNREACH, 1);
        world_up();
        CHECK(status_has("provider fake down fake: operation"));
        CHECK_EQ(refused("a", NULL, NULL), -EHOSTUNREACH);
        world_end();
}

static void wrong_sections_are_refused(void)
{
        char colour[] = "blue", memory[] = "much";
        const struct pair unknown = {k_what, colour}, bad = {k_memory, memory},
                          lacks = {k_host, colour};
        struct fleet_section two[2];

        world_begin(0);
        world.section.source = "config.ini:3";
        world.section.pairs = &unknown;
        world.section.pair_count = 1;
        CHECK_EQ(world_try_up(), -EINVAL);
        CHECK_STR(world.call.sentence, "config.ini:3: provider fake has no key \"colour\"");
        CHECK(workers_free(world.workers, NEVER_NS));

        world.section.pairs = &bad;
        CHECK_EQ(world_try_up(), -EINVAL);
        CHECK(says("config.ini:3: memory=much is not a size"));
        CHECK(workers_free(world.workers, NEVER_NS));

        world.section.pairs = &lacks;
        CHECK_EQ(world_try_up(), -EOPNOTSUPP);
        CHECK(workers_free(world.workers, NEVER_NS));

        world.section.pair_count = 0;
        world.section.kind = "other";
        CHECK_EQ(world_try_up(), -EINVAL);
        CHECK(says("there is no kind of provider \"other\""));
        CHECK(workers_free(world.workers, NEVER_NS));

        world.section.kind = "fake";
        world.config.default_provider = "other";
        CHECK_EQ(world_try_up(), -EINVAL);
        CHECK(workers_free(world.workers, NEVER_NS));

        world.config.default_provider = "fake";
        two[0] = two[1] = world.section;
        world.config.sections = two;
        world.config.section_count = 2;
        CHECK_EQ(world_try_up(), -EINVAL);
        CHECK(says("there are two providers fake"));
        CHECK(workers_free(world.workers, NEVER_NS));

        fake_fail(FAKE_OPEN, -EPERM, 1);
        world.config.section_count = 1;
        CHECK_EQ(world_try_up(), -EPERM);
        CHECK(workers_free(world.workers, NEVER_NS));
        world_forget();
}

int main(void)
{
        RUN(a_sandbox_is_there_at_once_and_runs_later);
        RUN(settings_reach_the_provider);
        RUN(a_creation_that_fails_says_why);
        RUN(a_creation_that_hangs_ends_at_its_deadline);
        RUN(a_destruction_cancels_a_creation);
        RUN(what_cant_be_is_refused);
        RUN(there_are_no_more_than_allowed);
        RUN(names_are_listed_in_order_and_change);
        RUN(each_change_shows_in_the_generation);
        RUN(variables_are_checked_and_limited);
        RUN(what_others_made_is_adopted_with_care);
        RUN(an_adoption_that_fails_destroys_nothing);
        RUN(a_provider_that_is_not_there_is_shown_as_down);
        RUN(wrong_sections_are_refused);
        return check_result();
}
