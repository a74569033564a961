/* SPDX-License-Identifier: Apache-2.0 */
/* States: verbs, polls, what a service says late or wrong, and the idle time-out. */

#include "tests/unit/sandbox/world.h"

static bool refresh(struct sandbox *sb)
{
        return verb_ok(sb, SANDBOX_REFRESH);
}

static void verbs_go_through_their_states(void)
{
        struct sandbox *sb;
        uint64_t seq;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_hang(FAKE_STOP, true);
        seq = begin_verb(sb, SANDBOX_STOP);
        EVENTUALLY(sandbox_state(sb) == BOX_STOPPING);
        CHECK_STR(info_of(sb).phase, "stopping");
        CHECK(has_result(sandbox_results(sb), seq, "pending"));
        fake_hang(FAKE_STOP, false);
        EVENTUALLY(is_done(sb, seq));
        CHECK_EQ(sandbox_state(sb), BOX_STOPPED);
        CHECK_STR(info_of(sb).phase, "");

        CHECK(verb_ok(sb, SANDBOX_STOP)); /* it is so already */
        CHECK_EQ(fake_calls(FAKE_STOP), 1);
        CHECK_EQ(sandbox_check(sb, SANDBOX_PAUSE, &world.call), -EHOSTDOWN);

        fake_hang(FAKE_START, true);
        seq = begin_verb(sb, SANDBOX_START);
        EVENTUALLY(sandbox_state(sb) == BOX_STARTING);
        fake_hang(FAKE_START, false);
        EVENTUALLY(is_done(sb, seq));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);

        fake_hang(FAKE_PAUSE, true);
        seq = begin_verb(sb, SANDBOX_PAUSE);
        EVENTUALLY(sandbox_state(sb) == BOX_PAUSING);
        fake_hang(FAKE_PAUSE, false);
        EVENTUALLY(is_done(sb, seq));
        CHECK_EQ(sandbox_state(sb), BOX_PAUSED);
        fake_hang(FAKE_RESUME, true);
        seq = begin_verb(sb, SANDBOX_START); /* of a paused one: resume */
        EVENTUALLY(sandbox_state(sb) == BOX_RESUMING);
        fake_hang(FAKE_RESUME, false);
        EVENTUALLY(is_done(sb, seq));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
        CHECK_EQ(fake_calls(FAKE_START), 1);

        CHECK(verb_ok(sb, SANDBOX_RESTART));
        CHECK_EQ(fake_calls(FAKE_STOP), 2);
        CHECK_EQ(fake_calls(FAKE_START), 2);
        sandbox_unref(sb);
        world_end();
}

static void verbs_are_checked_against_what_comes_before_them(void)
{
        const struct task_options o = {.text = "true"};
        struct sandbox *sb;
        uint64_t first, last;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_hang(FAKE_STOP, true);
        first = begin_verb(sb, SANDBOX_STOP);
        CHECK_EQ(sandbox_check_exec(sb, &o, 0, &world.call), -EHOSTDOWN);
        CHECK_EQ(sandbox_check(sb, SANDBOX_PAUSE, &world.call), -EHOSTDOWN);
        last = begin_verb(sb, SANDBOX_START);
        CHECK_EQ(sandbox_check_exec(sb, &o, 0, &world.call), 0);
        fake_hang(FAKE_STOP, false);
        EVENTUALLY(is_done(sb, last));
        CHECK(has_result(sandbox_results(sb), first, "ok"));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);

        fake_hang(FAKE_PAUSE, true);
        (void)begin_verb(sb, SANDBOX_PAUSE);
        EVENTUALLY(fake_calls(FAKE_PAUSE) == 1);
        for (int i = 0; i < 64; i++)
                last = begin_verb(sb, i % 2 ? SANDBOX_PAUSE : SANDBOX_RESUME);
        CHECK_EQ(sandbox_check(sb, SANDBOX_RESUME, &world.call), -EAGAIN);
        fake_hang(FAKE_PAUSE, false);
        EVENTUALLY(is_done(sb, last));
        CHECK_EQ(sandbox_state(sb), BOX_PAUSED);
        sandbox_unref(sb);
        world_end();
}

static void a_verb_that_fails_leaves_the_state_and_says_why(void)
{
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_fail(FAKE_PAUSE, -EIO, 1);
        CHECK(!verb_ok(sb, SANDBOX_PAUSE));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
        CHECK(strstr(info_of(sb).last_error, "fails"));
        /* Nobody can say how it is: then what it was. */
        fake_fail(FAKE_STOP, -EIO, 1);
        fake_fail(FAKE_STATE, -EIO, 1);
        CHECK(!verb_ok(sb, SANDBOX_STOP));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
        /* It worked, and only then nobody can say: then what it should be. */
        fake_fail(FAKE_STATE, -EIO, 1);
        CHECK(verb_ok(sb, SANDBOX_STOP));
        CHECK_EQ(sandbox_state(sb), BOX_STOPPED);
        sandbox_unref(sb);
        world_end();
}

static void what_a_provider_lacks_is_refused(void)
{
        struct sandbox *sb;

        world_begin(0);
        fake_ops()->pause = NULL;
        fake_ops()->resume = NULL;
        fake_ops()->start = NULL;
        world_up();
        sb = make("web");
        CHECK_EQ(sandbox_check(sb, SANDBOX_PAUSE, &world.call), -EOPNOTSUPP);
        CHECK_STR(world.call.sentence, "provider fake can't pause a sandbox");
        CHECK_EQ(sandbox_check(sb, SANDBOX_RESUME, &world.call), -EOPNOTSUPP);
        CHECK_EQ(sandbox_check(sb, SANDBOX_RESTART, &world.call), -EOPNOTSUPP);
        CHECK_EQ(sandbox_check(sb, SANDBOX_STOP, &world.call), 0);
        sandbox_unref(sb);
        world_end();
}

static void three_failed_polls_make_it_unknown(void)
{
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_fail(FAKE_STATE, -EHOSTUNREACH, -1);
        CHECK(!refresh(sb));
        CHECK(!refresh(sb));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
        CHECK_EQ(info_of(sb).reachable, 1);
        CHECK(!refresh(sb));
        CHECK_EQ(sandbox_state(sb), BOX_UNKNOWN);
        CHECK_EQ(info_of(sb).reachable, 0);
        for (int i = 0; i < 5; i++)
                CHECK(!refresh(sb));
        CHECK_EQ(sandbox_state(sb), BOX_UNKNOWN); /* never gone */
        CHECK_EQ(atomic_load(&world.gone), 0);
        fake_fail(FAKE_STATE, 0, 0);
        CHECK(refresh(sb));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
        CHECK_EQ(info_of(sb).reachable, 1);

        /* Two, and one that works: counted anew. */
        fake_fail(FAKE_STATE, -EIO, 2);
        CHECK(!refresh(sb));
        CHECK(!refresh(sb));
        CHECK(refresh(sb));
        fake_fail(FAKE_STATE, -EIO, 2);
        CHECK(!refresh(sb));
        CHECK(!refresh(sb));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
        sandbox_unref(sb);
        world_end();
}

/* What the provider said is what is told. */
static bool ends_with_failure_of(struct results *results, enum fake_op op)
{
        struct buf text = BUF_INIT(1024 * 1024);
        char want[64];
        bool does;
        int n = snprintf(want, sizeof(want), "# EIO: fake: operation %d fails\n", (int)op);

        CHECK_EQ(results_print(results, &text), 0);
        does = text.size > (size_t)n && strcmp(buf_str(&text) + text.size - n, want) == 0;
        buf_done(&text);
        return does;
}

static void it_is_gone_on_proof_only(void)
{
        struct results *results;
        struct sandbox *sb;
        uint64_t seq;

        world_begin(0);
        world_up();
        sb = make("web");
        results = fleet_results(world.fleet);
        /* A list that leaves it out is none: it is asked for. */
        fake_set_state(fake_id("web"), BOX_RUNNING, "");
        seq = results_add(results, "-", "refresh");
        fleet_refresh(world.fleet, seq);
        EVENTUALLY(has_result(results, seq, "ok"));
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);

        fake_fail(FAKE_LIST, -EIO, 3);
        for (int i = 0; i < 3; i++) {
                seq = results_add(results, "-", "refresh");
                fleet_refresh(world.fleet, seq);
                EVENTUALLY(has_result(results, seq, "error"));
        }
        CHECK(ends_with_failure_of(results, FAKE_LIST));
        CHECK_EQ(sandbox_state(sb), BOX_UNKNOWN);
        fake_set_state(fake_id("web"), BOX_GONE, "deleted by hand");
        seq = results_add(results, "-", "refresh");
        fleet_refresh(world.fleet, seq);
        EVENTUALLY(has_result(results, seq, "ok"));
        CHECK_EQ(sandbox_state(sb), BOX_GONE);
        CHECK_STR(info_of(sb).last_error, "deleted by hand");
        EVENTUALLY(atomic_load(&world.gone) == 1);
        CHECK(exists("web")); /* until somebody removes it */
        CHECK_EQ(sandbox_check(sb, SANDBOX_START, &world.call), -ENODEV);
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x"}, 0, &world.call),
                 -ENODEV);
        CHECK_EQ(sandbox_protect(sb, true, &world.call), -ENODEV);
        sandbox_unref(sb);
        CHECK_EQ(fleet_remove(world.fleet, "web", &world.call), 0);
        EVENTUALLY(!status_has("sandbox "));
        world_end();
}

static void a_list_tells_of_all(void)
{
        struct results *results;
        uint64_t seq;
        unsigned asked;

        world_begin(0);
        world_up();
        results = fleet_results(world.fleet);
        sandbox_unref(make("a"));
        sandbox_unref(make("b"));
        fake_set_state(fake_id("a"), BOX_PAUSED, "");
        fake_set_state(fake_id("b"), BOX_STOPPED, "");
        asked = fake_calls(FAKE_STATE);
        seq = results_add(results, "-", "refresh");
        fleet_refresh(world.fleet, seq);
        EVENTUALLY(has_result(results, seq, "ok"));
        CHECK_EQ(state_of("a"), BOX_PAUSED);
        CHECK_EQ(state_of("b"), BOX_STOPPED);
        CHECK_EQ(fake_calls(FAKE_STATE), asked);
        world_end();
}

static void news_are_looked_at_at_once(void)
{
        struct sandbox *sb;

        world_begin(PROVIDER_DIRECT);
        world_up();
        sb = make("web");
        fake_set_state(fake_id("web"), BOX_ERROR, "its disk died\n");
        fake_news("box-none");
        fake_news(fake_id("web"));
        EVENTUALLY(sandbox_state(sb) == BOX_ERROR);
        CHECK_STR(info_of(sb).last_error, "its disk died\\x0a");
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x"}, 0, &world.call),
                 -EBUSY);
        sandbox_unref(sb);
        world_end();
}

static void a_poll_that_answers_late_is_void(void)
{
        struct sandbox *sb;
        uint64_t poll, stop;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_hang(FAKE_STATE, true);
        poll = begin_verb(sb, SANDBOX_REFRESH);
        EVENTUALLY(fake_calls(FAKE_STATE) == 2);
        stop = begin_verb(sb, SANDBOX_STOP);
        EVENTUALLY(fake_calls(FAKE_STATE) == 3); /* after the stop, asked again */
        fake_set_state(fake_id("web"), BOX_RUNNING, ""); /* the answer that is on its way */
        fake_hang(FAKE_STATE, false);
        EVENTUALLY(is_done(sb, poll) && is_done(sb, stop) && is_settled(sb));
        fake_set_state(fake_id("web"), BOX_STOPPED, "");
        CHECK(refresh(sb));
        CHECK_EQ(sandbox_state(sb), BOX_STOPPED);
        sandbox_unref(sb);
        world_end();
}

static void states_are_polled_without_being_asked_for(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world.seams.poll_slow_ns = 2 * NS_PER_MS;
        world_up();
        sb = make("web");
        fake_set_state(fake_id("web"), BOX_STOPPED, "");
        EVENTUALLY(sandbox_state(sb) == BOX_STOPPED);
        sandbox_unref(sb);
        world_end();

        /* Sooner while somebody looks at status, ... */
        world_begin(0);
        world.seams.poll_fast_ns = 2 * NS_PER_MS;
        world_up();
        sb = make("web");
        sandbox_watched(sb);
        fake_set_state(fake_id("web"), BOX_STOPPED, "");
        EVENTUALLY(sandbox_state(sb) == BOX_STOPPED);
        sandbox_unref(sb);
        world_end();

        /* ... and while a command runs. */
        world_begin(0);
        world.seams.poll_fast_ns = 2 * NS_PER_MS;
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        (void)running(sb, t);
        fake_set_state(fake_id("web"), BOX_STOPPED, "");
        EVENTUALLY(sandbox_state(sb) == BOX_STOPPED);
        CHECK_STR(ended(t).exit, "lost"); /* nobody ended it */
        task_unref(t);
        sandbox_unref(sb);
        world_end();

        /* After a restart too. */
        world_begin(0);
        world_up();
        sandbox_unref(make("web"));
        world_down();
        world.seams.poll_slow_ns = 2 * NS_PER_MS;
        world_up();
        EVENTUALLY(state_of("web") == BOX_RUNNING);
        fake_set_state(fake_id("web"), BOX_STOPPED, "");
        EVENTUALLY(state_of("web") == BOX_STOPPED);
        world_end();
}

/* ---- the direct volume ---- */

static void files_are_there_as_long_as_the_sandbox(void)
{
        struct box_root root = {.fd = -1};
        struct sandbox *sb;
        uint64_t seq;

        world_begin(PROVIDER_DIRECT);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        sb = fleet_find(world.fleet, "web");
        CHECK_EQ(sandbox_root(sb, &world.call, &root), -EINPROGRESS);
        CHECK(!sandbox_is_quiet(sb));
        fake_hang(FAKE_CREATE, false);
        EVENTUALLY(sandbox_state(sb) == BOX_RUNNING && is_settled(sb));
        CHECK_EQ(sandbox_root(sb, &world.call, &root), 0);
        CHECK_STR(root.inside, "/box-1");
        CHECK_EQ(close(root.fd), 0);
        CHECK(!sandbox_is_quiet(sb));
        CHECK(verb_ok(sb, SANDBOX_STOP));
        CHECK(sandbox_is_quiet(sb));
        CHECK_EQ(sandbox_root(sb, &world.call, &root), 0); /* also while it is down */
        CHECK_EQ(close(root.fd), 0);
        fake_hang(FAKE_DESTROY, true);
        seq = begin_verb(sb, SANDBOX_DESTROY);
        CHECK_EQ(sandbox_root(sb, &world.call, &root), -ENODEV);
        fake_hang(FAKE_DESTROY, false);
        EVENTUALLY(is_done(sb, seq));
        CHECK_EQ(sandbox_root(sb, &world.call, &root), -ENODEV);
        sandbox_unref(sb);

        fake_fail(FAKE_CREATE, -ENOSPC, 1);
        CHECK_EQ(try_create("two", NULL, 0), 0);
        EVENTUALLY(state_of("two") == BOX_ERROR);
        sb = fleet_find(world.fleet, "two");
        EVENTUALLY(is_settled(sb));
        CHECK_EQ(sandbox_root(sb, &world.call, &root), -ENODEV);
        CHECK(strstr(world.call.sentence, "the sandbox was not created: fake"));
        sandbox_unref(sb);
        world_end();

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(sandbox_root(sb, &world.call, &root), -EOPNOTSUPP);
        sandbox_unref(sb);
        world_end();
}

/* ---- idle ---- */

#define SOON (2 * NS_PER_MS)

static void an_unused_sandbox_is_paused_and_a_command_wakes_it(void)
{
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(info_of(sb).expires_real_ns, 0);
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        EVENTUALLY(sandbox_state(sb) == BOX_PAUSED);
        CHECK_EQ(info_of(sb).expires_real_ns, 0);
        t = run(sb, "hold");
        x = running(sb, t);
        EVENTUALLY(is_settled(sb)); /* beside a job it is not idle */
        fake_exec_end(x, EXEC_END_CODE, 0);
        CHECK_STR(ended(t).exit, "0");
        CHECK_EQ(fake_calls(FAKE_RESUME), 1);
        EVENTUALLY(sandbox_state(sb) == BOX_PAUSED); /* and again */
        task_unref(t);
        sandbox_unref(sb);
        world_down(); /* and a restart knows that it may be woken */
        world_up();
        EVENTUALLY(state_of("web") == BOX_PAUSED);
        sb = fleet_find(world.fleet, "web");
        CHECK_EQ(sandbox_set_timeout(sb, 0, &world.call), 0);
        t = run(sb, "now 3");
        CHECK_STR(ended(t).exit, "3");
        CHECK_EQ(sandbox_state(sb), BOX_RUNNING);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

/* The pause has been decided, but nobody is there yet to carry it out. */
static void a_command_that_comes_as_it_falls_idle_wakes_it(void)
{
        struct sandbox *sb;
        struct task *t;
        char name[8];

        world_begin(0);
        world_up();
        sb = make("web");
        fake_hang(FAKE_CREATE, true);
        for (unsigned i = 0; i < 8; i++) { /* as many as there are workers */
                (void)snprintf(name, sizeof(name), "b%u", i);
                CHECK_EQ(try_create(name, NULL, 0), 0);
        }
        EVENTUALLY(fake_calls(FAKE_CREATE) == 9);
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        EVENTUALLY(!is_settled(sb));
        CHECK_EQ(fake_calls(FAKE_PAUSE), 0);
        t = run(sb, "hold");
        CHECK_EQ(sandbox_set_timeout(sb, 0, &world.call), 0);
        fake_hang(FAKE_CREATE, false);
        fake_exec_end(running(sb, t), EXEC_END_CODE, 0);
        CHECK_STR(ended(t).exit, "0");
        CHECK_EQ(fake_calls(FAKE_PAUSE), 1);
        CHECK_EQ(fake_calls(FAKE_RESUME), 1);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

/* Its time comes while something else is done with it, which is no use of it. */
static void what_is_idle_beside_a_job_is_paused_after_it(void)
{
        struct sandbox *sb;
        uint64_t sync;

        world_begin(0);
        world_up();
        sb = make("web");
        atomic_store(&world.deliver_waits, true);
        sync = begin_verb(sb, SANDBOX_SYNC);
        EVENTUALLY(atomic_load(&world.delivered) > 0);
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        (void)usleep(20000); /* a failure may be missed, never made up */
        CHECK_EQ(fake_calls(FAKE_PAUSE), 0);
        atomic_store(&world.deliver_waits, false);
        EVENTUALLY(is_done(sb, sync));
        EVENTUALLY(sandbox_state(sb) == BOX_PAUSED);
        sandbox_unref(sb);
        world_end();
}

/* One whose own kind can't be paused, though the service has such. */
static void an_unused_sandbox_that_can_t_be_paused_is_stopped(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(PROVIDER_SURVIVES);
        world_up();
        fake_fail(FAKE_PAUSE, -EOPNOTSUPP, -1);
        sb = make("web");
        CHECK(!verb_ok(sb, SANDBOX_PAUSE));
        CHECK_EQ(fake_calls(FAKE_STOP), 0);
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        EVENTUALLY(sandbox_state(sb) == BOX_STOPPED);
        CHECK_EQ(sandbox_set_timeout(sb, 0, &world.call), 0);
        t = run(sb, "now 3");
        CHECK_STR(ended(t).exit, "3");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

/* As above, where a stop would lose the files, or can't be either. */
static void an_unused_sandbox_that_can_be_neither_is_destroyed(unsigned traits)
{
        struct sandbox *sb;

        world_begin(traits);
        world_up();
        fake_fail(FAKE_PAUSE, -EOPNOTSUPP, -1);
        fake_fail(FAKE_STOP, -EOPNOTSUPP, -1);
        sb = make("safe");
        CHECK_EQ(sandbox_protect(sb, true, &world.call), 0);
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        EVENTUALLY(fake_calls(FAKE_PAUSE) > 0);
        EVENTUALLY(sandbox_state(sb) == BOX_RUNNING);
        CHECK_EQ(sandbox_set_timeout(sb, 0, &world.call), 0);
        sandbox_unref(sb);
        sb = make("web");
        CHECK(!verb_ok(sb, SANDBOX_PAUSE)); /* a person's is just refused */
        CHECK(exists("web"));
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        sandbox_unref(sb);
        EVENTUALLY(!exists("web"));
        EVENTUALLY(fake_count() == 1);
        CHECK(exists("safe"));
        CHECK_EQ(fake_calls(FAKE_STOP) > 0, (traits & PROVIDER_SURVIVES) != 0);
        world_end();
}

static void what_stop_would_lose_is_destroyed_if_pause_is_refused(void)
{
        an_unused_sandbox_that_can_be_neither_is_destroyed(0);
}

static void what_refuses_pause_and_stop_is_destroyed(void)
{
        an_unused_sandbox_that_can_be_neither_is_destroyed(PROVIDER_SURVIVES);
}

static void a_person_s_pause_is_not_lifted_by_a_command(void)
{
        const struct task_options o = {.text = "true"};
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK(verb_ok(sb, SANDBOX_PAUSE));
        CHECK_EQ(sandbox_check_exec(sb, &o, 0, &world.call), -EHOSTDOWN);
        CHECK_STR(world.call.sentence, "the sandbox is paused: write `resume` to its ctl");
        CHECK(verb_ok(sb, SANDBOX_RESUME));

        /* Nor is one that a person repeats after the time-out. */
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        EVENTUALLY(sandbox_state(sb) == BOX_PAUSED);
        CHECK_EQ(sandbox_check_exec(sb, &o, 0, &world.call), 0);
        CHECK(verb_ok(sb, SANDBOX_PAUSE));
        CHECK_EQ(sandbox_check_exec(sb, &o, 0, &world.call), -EHOSTDOWN);
        sandbox_unref(sb);
        world_end();
}

static void a_used_sandbox_is_not_idle(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        (void)running(sb, t);
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        (void)usleep(20000); /* a failure may be missed, never made up */
        CHECK_EQ(fake_calls(FAKE_PAUSE), 0);
        CHECK_EQ(info_of(sb).expires_real_ns, 0);
        CHECK_EQ(sandbox_set_timeout(sb, 3600 * NS_PER_S, &world.call), 0);
        fake_exec_end(running(sb, t), EXEC_END_CODE, 0);
        (void)ended(t);
        CHECK(info_of(sb).expires_real_ns > clock_real_ns());
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void what_cant_be_paused_is_stopped_or_destroyed(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(PROVIDER_SURVIVES);
        fake_ops()->pause = NULL;
        world_up();
        sb = make("web");
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        EVENTUALLY(sandbox_state(sb) == BOX_STOPPED);
        t = run(sb, "now 0");
        CHECK_STR(ended(t).exit, "0");
        CHECK_EQ(fake_calls(FAKE_START), 1);
        task_unref(t);
        sandbox_unref(sb);
        world_end();

        world_begin(0); /* a stop would lose the files */
        fake_ops()->pause = NULL;
        world_up();
        sb = make("safe");
        CHECK_EQ(sandbox_protect(sb, true, &world.call), 0);
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        sandbox_unref(sb);
        sb = make("web");
        CHECK_EQ(sandbox_set_timeout(sb, SOON, &world.call), 0);
        sandbox_unref(sb);
        EVENTUALLY(!exists("web"));
        EVENTUALLY(fake_count() == 1);
        CHECK(exists("safe"));
        world_end();
}

static void where_time_costs_money_there_is_a_timeout(void)
{
        struct sandbox *sb;

        world_begin(PROVIDER_COSTS);
        world_up();
        sb = make("web");
        CHECK_EQ(fake_spec(fake_id("web")).timeout_ns, 3600 * NS_PER_S);
        CHECK(info_of(sb).expires_real_ns > clock_real_ns() + 3000 * NS_PER_S);
        sandbox_unref(sb);
        world_end();
}

int main(void)
{
        RUN(verbs_go_through_their_states);
        RUN(verbs_are_checked_against_what_comes_before_them);
        RUN(a_verb_that_fails_leaves_the_state_and_says_why);
        RUN(what_a_provider_lacks_is_refused);
        RUN(three_failed_polls_make_it_unknown);
        RUN(it_is_gone_on_proof_only);
        RUN(a_list_tells_of_all);
        RUN(news_are_looked_at_at_once);
        RUN(a_poll_that_answers_late_is_void);
        RUN(states_are_polled_without_being_asked_for);
        RUN(files_are_there_as_long_as_the_sandbox);
        RUN(an_unused_sandbox_is_paused_and_a_command_wakes_it);
        RUN(a_person_s_pause_is_not_lifted_by_a_command);
        RUN(a_command_that_comes_as_it_falls_idle_wakes_it);
        RUN(what_is_idle_beside_a_job_is_paused_after_it);
        RUN(an_unused_sandbox_that_can_t_be_paused_is_stopped);
        RUN(what_stop_would_lose_is_destroyed_if_pause_is_refused);
        RUN(what_refuses_pause_and_stop_is_destroyed);
        RUN(a_used_sandbox_is_not_idle);
        RUN(what_cant_be_paused_is_stopped_or_destroyed);
        RUN(where_time_costs_money_there_is_a_timeout);
        return check_result();
}
