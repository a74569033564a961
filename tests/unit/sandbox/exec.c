/* SPDX-License-Identifier: Apache-2.0 */
/* Commands: accepted, queued, running, ended; what they print, and which of them are kept. */

#include <signal.h>

#include "tests/unit/sandbox/world.h"

#define MIB ((size_t)1024 * 1024)

static void print(struct fake_exec *x, enum exec_stream stream, const char *text)
{
        fake_exec_print(x, stream, text, strlen(text));
}

static void a_command_goes_from_queued_to_ended(void)
{
        char k_a[] = "A", v_a[] = "1", k_b[] = "B", v_b[] = "2", v_b2[] = "3", v_late[] = "4";
        const struct pair env[] = {{k_b, v_b2}};
        const struct task_options o = {
                .text = "make test", .env = env, .env_count = 1, .timeout_ns = 5 * NS_PER_S};
        struct buf cmd = BUF_INIT(1000);
        struct task_info info;
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;
        uint64_t changes;

        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        sb = fleet_find(world.fleet, "web");
        CHECK_EQ(sandbox_set_env(sb, k_a, v_a, &world.call), 0);
        CHECK_EQ(sandbox_set_env(sb, k_b, v_b, &world.call), 0);
        t = run_with(sb, &o);
        CHECK_EQ(sandbox_set_env(sb, k_a, v_late, &world.call), 0); /* for later ones */
        task_get(t, &info);
        CHECK_EQ(info.state, TASK_QUEUED);
        CHECK_EQ(info.number, 1);
        CHECK_STR(info.name, "1");
        CHECK(!info.is_named && info.started_real_ns == 0 && info.ended_real_ns == 0);
        CHECK_STR(info.exit, "");
        CHECK_STR(info.wait, "");
        CHECK(has_result(sandbox_results(sb), 1, "pending"));
        CHECK_EQ(info_of(sb).running, 1);
        fake_hang(FAKE_CREATE, false);

        x = running(sb, t);
        CHECK_STR(fake_exec_command(x), "make test");
        CHECK_STR(fake_exec_env(x, "A"), "1");
        CHECK_STR(fake_exec_env(x, "B"), "3"); /* the command's own wins */
        CHECK_EQ(fake_exec_timeout_ns(x), 5 * NS_PER_S);
        task_get(t, &info);
        CHECK_EQ(info.pid, 101);
        CHECK(info.started_real_ns > 0);
        EVENTUALLY(has_result(sandbox_results(sb), 1, "ok")); /* it runs: that was asked for */
        CHECK_EQ(task_print_cmd(t, &cmd), 0);
        CHECK_STR(buf_str(&cmd), "make test\n");
        buf_done(&cmd);

        changes = task_changes(t);
        print(x, EXEC_STDOUT, "one\n");
        CHECK(task_changes(t) > changes);
        CHECK_FILE(t, TASK_STDOUT, "one\n"); /* at once */
        CHECK_EQ(task_size(t, TASK_STDERR), 0);
        fake_exec_end(x, EXEC_END_CODE, 2);
        info = ended(t);
        CHECK_STR(info.exit, "2");
        CHECK_STR(info.wait, "exit 2");
        CHECK(info.ended_real_ns >= info.started_real_ns);
        EVENTUALLY(!fake_exec_is_attached(x));
        CHECK_EQ(info_of(sb).running, 0);
        CHECK(info_of(sb).has_task);
        CHECK(status_has("sandbox web fake running ended box-1\n"));
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void each_kind_of_end_has_its_word(void)
{
        static const struct {
                enum exec_end_kind kind;
                int value;
                const char *exit, *wait;
        } rows[] = {
                {EXEC_END_CODE, 0, "0", "exit 0"},
                {EXEC_END_CODE, 255, "255", "exit 255"},
                {EXEC_END_SIGNAL, 9, "signal 9", "signal 9"},
                {EXEC_END_TIMEOUT, 0, "timeout", "timeout"},
                {EXEC_END_LOST, 0, "lost", "lost"},
        };
        struct exec_end end = {.kind = EXEC_END_ERROR, .sentence = "no such\nuser"};
        struct sandbox *sb;
        struct task_info info;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                t = run(sb, "hold");
                fake_exec_end(running(sb, t), rows[i].kind, rows[i].value);
                info = ended(t);
                CHECK_STR(info.exit, rows[i].exit);
                CHECK_STR(info.wait, rows[i].wait);
                task_unref(t);
        }
        t = run(sb, "hold");
        fake_exec_end_with(running(sb, t), &end);
        CHECK_STR(ended(t).exit, "error no such\\x0auser");
        CHECK_STR(info_of(sb).last_error, "exec 6: no such\\x0auser");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void both_streams_and_how_they_came(void)
{
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;
        char part[3];

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        x = running(sb, t);
        print(x, EXEC_STDOUT, "o1 ");
        print(x, EXEC_STDERR, "e1 ");
        print(x, EXEC_STDERR, "e2 ");
        print(x, EXEC_STDOUT, "o2 ");
        CHECK_FILE(t, TASK_STDOUT, "o1 o2 ");
        CHECK_FILE(t, TASK_STDERR, "e1 e2 ");
        CHECK_FILE(t, TASK_OUTPUT, "o1 e1 e2 o2 ");
        CHECK_EQ(task_read(t, TASK_OUTPUT, part, 3, 3), 3);
        CHECK(memcmp(part, "e1 ", 3) == 0);
        CHECK_EQ(task_read(t, TASK_OUTPUT, part, 3, 10), 2);
        CHECK_EQ(task_read(t, TASK_OUTPUT, part, 3, 12), 0);
        CHECK_EQ(task_read(t, TASK_OUTPUT, part, 3, UINT64_MAX), 0);
        fake_exec_end(x, EXEC_END_CODE, 0);
        (void)ended(t);
        CHECK_FILE(t, TASK_OUTPUT, "o1 e1 e2 o2 ");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void output_beyond_the_cap_keeps_its_head_and_its_tail(void)
{
        const size_t limit = 3 * MIB; /* the cap of 4 MiB less the tail */
        char *chunk = malloc(MIB), *text, *before;
        struct task_info info;
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;
        char marker[64];

        if (!chunk)
                abort();
        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        x = running(sb, t);
        for (int i = 0; i < 6; i++) {
                memset(chunk, 'a' + i, MIB);
                fake_exec_print(x, EXEC_STDOUT, chunk, MIB);
        }
        CHECK_EQ(task_size(t, TASK_STDOUT), limit); /* it stopped */
        before = text_of(t, TASK_STDOUT);
        fake_exec_print(x, EXEC_STDOUT, "END", 3);
        task_get(t, &info);
        CHECK_EQ(info.dropped[0], 2 * MIB + 3);
        fake_exec_end_with(x, &(struct exec_end){.kind = EXEC_END_CODE, .dropped = {7, 9}});
        info = ended(t);
        CHECK_EQ(info.dropped[0], 2 * MIB + 3 + 7);
        CHECK_EQ(info.dropped[1], 9);
        (void)snprintf(marker, sizeof(marker), "\n[sbxfs: %zu bytes dropped]\n", 2 * MIB + 3);
        text = text_of(t, TASK_STDOUT);
        CHECK_EQ(strlen(text), limit + strlen(marker) + MIB);
        CHECK(memcmp(text, before, limit) == 0);
        CHECK(strncmp(text + limit, marker, strlen(marker)) == 0);
        CHECK_EQ(text[limit + strlen(marker)], 'f');
        CHECK_STR(text + strlen(text) - 4, "fEND");
        CHECK_EQ(task_size(t, TASK_OUTPUT), strlen(text));
        free(text);
        free(before);
        free(chunk);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void words_and_names_are_checked(void)
{
        static const char *const argv[] = {"ls", "a b", "\"", NULL}, *const none[] = {NULL};
        static const char *const bad[] = {"", "7", "last", "a/b", ".x", "x-"};
        char k[] = "A-B", v[] = "x";
        const struct pair env = {k, v};
        struct buf cmd = BUF_INIT(1000);
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run_with(sb, &(struct task_options){.argv = argv, .name = "list"});
        CHECK_EQ(task_print_cmd(t, &cmd), 0);
        CHECK_STR(buf_str(&cmd), "{\"argv\":[\"ls\",\"a b\",\"\\\"\"]}\n");
        buf_done(&cmd);
        CHECK_STR(fake_exec_command(running(sb, t)), "\"");
        task_unref(t);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x", .name = bad[i]},
                                            0, &world.call),
                         -EINVAL);
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.text = "x", .name = "list"}, 0,
                                    &world.call),
                 -EEXIST);
        CHECK_EQ(sandbox_check_exec(sb, &(struct task_options){.argv = none}, 0, &world.call),
                 -EINVAL);
        CHECK_EQ(sandbox_check_exec(
                         sb, &(struct task_options){.text = "x", .env = &env, .env_count = 1}, 0,
                         &world.call),
                 -EINVAL);
        t = sandbox_find_task(sb, "list");
        CHECK(t && task_number(t) == 1);
        task_unref(t);
        CHECK(!sandbox_find_task(sb, "1"));
        sandbox_unref(sb);
        world_end();
}

static void named_ones_get_their_command_later(void)
{
        struct task *t, *u = NULL;
        struct task_info info;
        struct fake_exec *x;
        struct sandbox *sb;
        char in[16];
        bool eof;

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(sandbox_new_task(sb, "build", &world.call, &t), 0);
        CHECK_EQ(sandbox_new_task(sb, "build", &world.call, &u), -EEXIST);
        CHECK_EQ(sandbox_new_task(sb, "12", &world.call, &u), -EINVAL);
        task_get(t, &info);
        CHECK_EQ(info.state, TASK_NEW);
        CHECK(info.is_named);
        CHECK_EQ(info_of(sb).running, 0);
        CHECK(!sandbox_latest(sb)); /* none was accepted yet */
        CHECK_EQ(task_kill(t, 0, 0), -ESRCH);
        CHECK_EQ(task_stdin_eof(t), -EBUSY);
        CHECK_EQ(task_write_stdin(t, "hello", 5), 0);
        CHECK_EQ(task_start(t, &(struct task_options){.text = NULL}, &world.call), -EINVAL);
        CHECK_EQ(task_start(t, &(struct task_options){.text = "hold"}, &world.call), 0);
        CHECK_EQ(task_start(t, &(struct task_options){.text = "hold"}, &world.call), -EBUSY);
        x = running(sb, t);
        EVENTUALLY((fake_exec_stdin(x, in, sizeof(in), &eof), eof)); /* they are all of it */
        CHECK_EQ(fake_exec_stdin(x, in, sizeof(in), &eof), 5);
        CHECK(memcmp(in, "hello", 5) == 0);
        CHECK_EQ(task_write_stdin(t, "x", 1), -EPIPE);
        u = sandbox_latest(sb);
        CHECK(u == t);
        task_unref(u);
        CHECK_EQ(sandbox_remove_task(sb, "build", &world.call), -EBUSY);
        fake_exec_end(x, EXEC_END_CODE, 0);
        (void)ended(t);
        CHECK_EQ(sandbox_remove_task(sb, "build", &world.call), 0);
        CHECK_EQ(sandbox_remove_task(sb, "build", &world.call), -ENOENT);
        CHECK(!sandbox_latest(sb));
        task_unref(t);

        for (int i = 0; i < 33; i++) {
                char name[8];

                (void)snprintf(name, sizeof(name), "n%d", i);
                u = NULL;
                CHECK_EQ(sandbox_new_task(sb, name, &world.call, &u), i < 32 ? 0 : -EAGAIN);
                task_unref(u);
        }
        CHECK_EQ(sandbox_remove_task(sb, "n0", &world.call), 0);
        sandbox_unref(sb);
        world_end();
}

static void thirty_two_run_at_once(void)
{
        const struct task_options o = {.text = "hold"};
        struct task *tasks[32];
        struct sandbox *sb;

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(sandbox_check_exec(sb, &o, 31, &world.call), 0);
        CHECK_EQ(sandbox_check_exec(sb, &o, 32, &world.call), -EAGAIN);
        for (int i = 0; i < 32; i++)
                tasks[i] = run(sb, "hold");
        CHECK_EQ(sandbox_check_exec(sb, &o, 0, &world.call), -EAGAIN);
        CHECK_EQ(info_of(sb).running, 32);
        fake_exec_end(running(sb, tasks[7]), EXEC_END_CODE, 0);
        (void)ended(tasks[7]);
        CHECK_EQ(sandbox_check_exec(sb, &o, 0, &world.call), 0);
        for (int i = 0; i < 32; i++)
                task_unref(tasks[i]);
        sandbox_unref(sb);
        world_end();
}

static void the_ones_that_ended_first_go_first(void)
{
        struct task *first, *held;
        uint64_t numbers[100];
        struct task_info info;
        struct sandbox *sb;
        size_t count;

        world_begin(0);
        world_up();
        sb = make("web");
        held = run(sb, "hold"); /* the oldest, and it ends last */
        first = run(sb, "hold");
        fake_exec_print(running(sb, first), EXEC_STDOUT, "kept", 4);
        fake_exec_end(running(sb, first), EXEC_END_CODE, 0);
        (void)ended(first);
        for (int i = 0; i < 66; i++) {
                struct task *t = run(sb, "now 1");

                (void)ended(t);
                task_unref(t);
        }
        EVENTUALLY(sandbox_list_tasks(sb, numbers, 100) == 65);
        count = sandbox_list_tasks(sb, numbers, 2); /* fills two, tells of all */
        CHECK_EQ(count, 65);
        CHECK_EQ(numbers[0], 1);
        CHECK_EQ(numbers[1], 5); /* 2, 3 and 4 went */
        task_get(first, &info);
        CHECK_STR(info.exit, "0");
        CHECK_FILE(first, TASK_STDOUT, "kept"); /* somebody has it open */
        task_unref(first);
        fake_exec_end(running(sb, held), EXEC_END_CODE, 0);
        (void)ended(held);
        EVENTUALLY(sandbox_list_tasks(sb, numbers, 100) == 64);
        CHECK_EQ(numbers[0], 1);
        task_unref(held);
        sandbox_unref(sb);
        world_down();
        world_up(); /* what went does not come back, and its number is not given again */
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(is_settled(sb));
        CHECK_EQ(sandbox_list_tasks(sb, numbers, 100), 64);
        held = sandbox_latest(sb);
        CHECK_EQ(task_number(held), 68);
        task_unref(held);
        CHECK_EQ(sandbox_remove_task(sb, "68", &world.call), 0);
        sandbox_unref(sb);
        world_down();
        world_up();
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(is_settled(sb));
        held = run(sb, "now 0");
        CHECK_EQ(task_number(held), 69);
        (void)ended(held);
        task_unref(held);
        sandbox_unref(sb);
        world_end();
}

/* ---- what goes wrong at the start ---- */

static void a_start_that_fails_is_its_end(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_fail(FAKE_EXEC_START, -EACCES, 1);
        t = run(sb, "hold");
        CHECK_STR(ended(t).exit, "error fake: operation 10 fails");
        EVENTUALLY(has_result(sandbox_results(sb), 1, "error"));
        CHECK_STR(info_of(sb).last_error, "exec 1: fake: operation 10 fails");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void a_start_without_an_answer_is_asked_for_never_repeated(void)
{
        struct sandbox *sb;
        struct task *t;
        struct fake_exec *x;

        world_begin(0);
        world_up();
        sb = make("web");
        /* It runs all the same. */
        fake_fail(FAKE_EXEC_START, -ETIMEDOUT, 1);
        t = run(sb, "hold");
        x = running(sb, t);
        CHECK_EQ(fake_calls(FAKE_EXEC_ATTACH), 1);
        print(x, EXEC_STDOUT, "here");
        fake_exec_end(x, EXEC_END_CODE, 4);
        CHECK_STR(ended(t).exit, "4");
        CHECK_FILE(t, TASK_STDOUT, "here");
        task_unref(t);

        /* It is certain that it doesn't. */
        fake_fail(FAKE_EXEC_START, -ETIMEDOUT, 1);
        fake_fail(FAKE_EXEC_ATTACH, -ENOENT, 1);
        t = run(sb, "hold");
        CHECK_STR(ended(t).exit, "error the sandbox did not answer; the command was not started");
        task_unref(t);

        CHECK_EQ(fake_calls(FAKE_EXEC_START), 2);
        sandbox_unref(sb);
        world_end();
}

static struct task *start_unanswered(struct sandbox *sb)
{
        unsigned asked = fake_calls(FAKE_EXEC_ATTACH);
        struct task *t;

        fake_fail(FAKE_EXEC_START, -ETIMEDOUT, 1);
        fake_fail(FAKE_EXEC_ATTACH, -ETIMEDOUT, -1);
        t = run(sb, "hold");
        EVENTUALLY(fake_calls(FAKE_EXEC_ATTACH) >= asked + 3);
        CHECK_EQ(task_state_of(t), TASK_RUNNING);
        CHECK(strstr(info_of(sb).last_error, "asked again whether it runs"));
        return t;
}

static void a_start_that_nobody_knows_of_is_asked_for_until_somebody_does(void)
{
        struct sandbox *sb;
        struct task *t;
        struct fake_exec *x;
        int signals[4] = {0};

        world_begin(0);
        world_up();
        sb = make("web");
        t = start_unanswered(sb);
        x = running(sb, t);
        print(x, EXEC_STDOUT, "while nobody listened");
        CHECK_EQ(task_kill(t, SIGHUP, 0), 0); /* sent once it can be */
        CHECK(has_result(sandbox_results(sb), 1, "pending"));
        fake_fail(FAKE_EXEC_ATTACH, 0, 0);
        EVENTUALLY(fake_exec_signals(x, signals, 4) == 1);
        EVENTUALLY(has_result(sandbox_results(sb), 1, "ok"));
        fake_exec_end(x, EXEC_END_CODE, 4);
        CHECK_STR(ended(t).exit, "4");
        CHECK_FILE(t, TASK_STDOUT, "while nobody listened");
        task_unref(t);

        /* The sandbox knows nothing of it. */
        t = start_unanswered(sb);
        fake_exec_forget(running(sb, t));
        fake_fail(FAKE_EXEC_ATTACH, 0, 0);
        CHECK_STR(ended(t).exit, "lost");
        task_unref(t);

        /* Nor does a restart change that. */
        t = start_unanswered(sb);
        x = running(sb, t);
        task_unref(t);
        sandbox_unref(sb);
        world_down();
        fake_fail(FAKE_EXEC_ATTACH, 0, 0);
        world_up();
        sb = fleet_find(world.fleet, "web");
        t = sandbox_task_by_number(sb, 3);
        fake_exec_end(x, EXEC_END_CODE, 5);
        CHECK_STR(ended(t).exit, "5");
        task_unref(t);
        CHECK_EQ(fake_calls(FAKE_EXEC_START), 3);

        t = start_unanswered(sb);
        fake_set_state("box-1", BOX_STOPPED, "");
        fake_news("box-1"); /* beside a job that asks for it all the time */
        EVENTUALLY(sandbox_state(sb) == BOX_STOPPED);
        CHECK_STR(ended(t).exit, "lost");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void a_sandbox_that_is_down_loses_its_commands(void)
{
        struct sandbox *sb;
        struct task *t, *u;

        world_begin(PROVIDER_DIRECT);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        (void)running(sb, t);
        fake_hang(FAKE_EXEC_START, true);
        u = run(sb, "hold");
        EVENTUALLY(fake_calls(FAKE_EXEC_START) == 2);
        fake_hang(FAKE_EXEC_START, false);
        (void)running(sb, u);
        fake_exec_end(running(sb, u), EXEC_END_SIGNAL, 9); /* the provider knew of this one */
        fake_set_state("box-1", BOX_STOPPED, "out of memory");
        EVENTUALLY(is_settled(sb));
        fake_news("box-1");
        CHECK_STR(ended(t).exit, "lost");
        CHECK_STR(ended(u).exit, "signal 9");
        CHECK_EQ(sandbox_state(sb), BOX_STOPPED);
        task_unref(t);
        task_unref(u);
        sandbox_unref(sb);
        world_end();
}

/* ---- kill ---- */

static void a_kill_is_a_term_and_then_a_kill(void)
{
        int signals[4] = {0};
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;
        uint64_t seq;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        x = running(sb, t);
        seq = results_add(sandbox_results(sb), "-", "kill");
        CHECK_EQ(task_kill(t, 0, seq), 0);
        EVENTUALLY(fake_exec_signals(x, signals, 4) == 2);
        CHECK_EQ(signals[0], SIGTERM);
        CHECK_EQ(signals[1], SIGKILL);
        CHECK(has_result(sandbox_results(sb), seq, "ok"));
        CHECK_EQ(task_kill(t, -1, 0), -EINVAL);
        CHECK_EQ(task_kill(t, 1000, 0), -EINVAL);
        fake_exec_end(x, EXEC_END_SIGNAL, SIGKILL);
        CHECK_STR(ended(t).exit, "signal 9");
        CHECK_EQ(task_kill(t, 0, 0), -ESRCH);
        task_unref(t);

        /* One signal by name is that one. */
        t = run(sb, "hold");
        x = running(sb, t);
        CHECK_EQ(task_kill(t, SIGHUP, 0), 0);
        EVENTUALLY(fake_exec_signals(x, signals, 4) == 1);
        CHECK_EQ(signals[0], SIGHUP);
        fake_exec_end(x, EXEC_END_CODE, 0);
        (void)ended(t);
        CHECK_EQ(fake_exec_signals(x, signals, 4), 1);
        task_unref(t);

        /* What fails is said; what has ended just now is not. */
        t = run(sb, "hold");
        (void)running(sb, t);
        seq = results_add(sandbox_results(sb), "-", "kill");
        fake_fail(FAKE_EXEC_SIGNAL, -EIO, 1);
        CHECK_EQ(task_kill(t, SIGHUP, seq), 0);
        EVENTUALLY(has_result(sandbox_results(sb), seq, "error"));
        seq = results_add(sandbox_results(sb), "-", "kill");
        fake_fail(FAKE_EXEC_SIGNAL, -ESRCH, 1);
        CHECK_EQ(task_kill(t, SIGHUP, seq), 0);
        EVENTUALLY(has_result(sandbox_results(sb), seq, "ok"));
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void a_kill_reaches_what_has_not_started(void)
{
        int signals[4] = {0};
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t, *u;
        uint64_t seq, second;

        world_begin(0);
        world_up();
        sb = make("web");
        fake_hang(FAKE_EXEC_START, true);
        t = run(sb, "hold");
        EVENTUALLY(fake_calls(FAKE_EXEC_START) == 1);
        u = run(sb, "hold");
        /* Never sent: it ends at once. */
        CHECK_EQ(task_kill(u, 0, 0), 0);
        CHECK_STR(ended(u).exit, "signal 15");
        /* Under way: as soon as it can be, and in their order. */
        seq = results_add(sandbox_results(sb), "-", "kill");
        CHECK_EQ(task_kill(t, SIGINT, seq), 0);
        CHECK(has_result(sandbox_results(sb), seq, "pending"));
        second = results_add(sandbox_results(sb), "-", "kill");
        CHECK_EQ(task_kill(t, SIGHUP, second), 0);
        fake_hang(FAKE_EXEC_START, false);
        x = running(sb, t);
        EVENTUALLY(fake_exec_signals(x, signals, 4) == 2);
        CHECK_EQ(signals[0], SIGINT);
        CHECK_EQ(signals[1], SIGHUP);
        EVENTUALLY(has_result(sandbox_results(sb), seq, "ok"));
        EVENTUALLY(has_result(sandbox_results(sb), second, "ok"));
        fake_exec_end(x, EXEC_END_SIGNAL, SIGINT);
        (void)ended(t);
        CHECK_EQ(fake_calls(FAKE_EXEC_START), 1);
        task_unref(t);
        task_unref(u);
        sandbox_unref(sb);
        world_end();
}

int main(void)
{
        RUN(a_command_goes_from_queued_to_ended);
        RUN(each_kind_of_end_has_its_word);
        RUN(both_streams_and_how_they_came);
        RUN(output_beyond_the_cap_keeps_its_head_and_its_tail);
        RUN(words_and_names_are_checked);
        RUN(named_ones_get_their_command_later);
        RUN(thirty_two_run_at_once);
        RUN(the_ones_that_ended_first_go_first);
        RUN(a_start_that_fails_is_its_end);
        RUN(a_start_without_an_answer_is_asked_for_never_repeated);
        RUN(a_start_that_nobody_knows_of_is_asked_for_until_somebody_does);
        RUN(a_sandbox_that_is_down_loses_its_commands);
        RUN(a_kill_is_a_term_and_then_a_kill);
        RUN(a_kill_reaches_what_has_not_started);
        return check_result();
}
