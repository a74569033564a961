/* SPDX-License-Identifier: Apache-2.0 */
/* Commands across a restart of ours, and their stdin. */

#include <signal.h>

#include "tests/unit/sandbox/world.h"

#define WINDOW ((size_t)EXEC_STDIN_WINDOW)

static void print(struct fake_exec *x, enum exec_stream stream, const char *text)
{
        fake_exec_print(x, stream, text, strlen(text));
}

static struct sandbox *restart(void)
{
        struct sandbox *sb;

        world_down();
        world_up();
        sb = fleet_find(world.fleet, "web");
        if (!CHECK(sb))
                abort();
        return sb;
}

static struct task *task_of(struct sandbox *sb, uint64_t number)
{
        struct task *t = sandbox_task_by_number(sb, number);

        if (!CHECK(t))
                abort();
        return t;
}

static void output_goes_on_where_it_was(void)
{
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;
        struct task_info info;
        uint64_t started;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        x = running(sb, t);
        print(x, EXEC_STDOUT, "a ");
        print(x, EXEC_STDERR, "b ");
        task_get(t, &info);
        started = info.started_real_ns;
        task_unref(t);
        sandbox_unref(sb);
        world_down();
        CHECK(!fake_exec_is_attached(x)); /* let go of; it runs on */
        print(x, EXEC_STDOUT, "c ");
        print(x, EXEC_STDERR, "d ");
        world_up();
        sb = fleet_find(world.fleet, "web");
        t = task_of(sb, 1);
        EVENTUALLY(task_size(t, TASK_OUTPUT) == 8 && task_size(t, TASK_STDERR) == 4);
        CHECK_FILE(t, TASK_STDOUT, "a c ");
        CHECK_FILE(t, TASK_STDERR, "b d ");
        CHECK_FILE(t, TASK_OUTPUT, "a b c d ");
        x = running(sb, t);
        print(x, EXEC_STDOUT, "e ");
        task_get(t, &info);
        CHECK_EQ(info.started_real_ns, started);
        CHECK_EQ(info.pid, 101);
        fake_exec_end(x, EXEC_END_CODE, 3);
        CHECK_STR(ended(t).exit, "3");
        task_unref(t);
        sandbox_unref(sb);

        sb = restart(); /* and once it has ended, it stays so */
        t = task_of(sb, 1);
        info = ended(t);
        CHECK_STR(info.exit, "3");
        CHECK_STR(info.wait, "exit 3");
        CHECK_FILE(t, TASK_STDOUT, "a c e ");
        CHECK_EQ(fake_calls(FAKE_EXEC_ATTACH), 1);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void an_end_meanwhile_is_told(void)
{
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        x = running(sb, t);
        task_unref(t);
        sandbox_unref(sb);
        world_down();
        print(x, EXEC_STDOUT, "late");
        fake_exec_end(x, EXEC_END_CODE, 5);
        world_up();
        sb = fleet_find(world.fleet, "web");
        t = task_of(sb, 1);
        CHECK_STR(ended(t).exit, "5");
        CHECK_FILE(t, TASK_STDOUT, "late");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void what_is_not_known_any_more_is_lost(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        print(running(sb, t), EXEC_STDOUT, "kept");
        fake_exec_forget(running(sb, t));
        task_unref(t);
        sandbox_unref(sb);
        sb = restart();
        t = task_of(sb, 1);
        CHECK_STR(ended(t).exit, "lost");
        CHECK_FILE(t, TASK_STDOUT, "kept");
        CHECK(strstr(info_of(sb).last_error, "knows nothing of it any more"));
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void what_waits_is_never_run_behind_somebody_s_back(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        fake_hang(FAKE_CREATE, true);
        CHECK_EQ(try_create("web", NULL, 0), 0);
        sb = fleet_find(world.fleet, "web");
        EVENTUALLY(fake_calls(FAKE_CREATE) == 1);
        t = run(sb, "hold");
        task_unref(t);
        sandbox_unref(sb);
        world_down_by(0);
        fake_hang(FAKE_CREATE, false);
        world_up();
        sb = fleet_find(world.fleet, "web");
        t = task_of(sb, 1);
        CHECK_STR(ended(t).exit, "lost");
        CHECK_EQ(fake_calls(FAKE_EXEC_START), 0);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void attaching_is_tried_until_it_works(void)
{
        int signals[4] = {0};
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        x = running(sb, t);
        task_unref(t);
        sandbox_unref(sb);
        fake_fail(FAKE_EXEC_ATTACH, -ETIMEDOUT, -1);
        sb = restart();
        t = task_of(sb, 1);
        EVENTUALLY(fake_calls(FAKE_EXEC_ATTACH) >= 3);
        CHECK_EQ(task_state_of(t), TASK_RUNNING);
        CHECK_EQ(task_kill(t, SIGHUP, 0), 0); /* sent once it can be */
        fake_fail(FAKE_EXEC_ATTACH, 0, 0);
        EVENTUALLY(fake_exec_signals(x, signals, 4) == 1);
        CHECK_EQ(signals[0], SIGHUP);
        fake_exec_end(x, EXEC_END_CODE, 0);
        CHECK_STR(ended(t).exit, "0");
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void a_gap_is_counted_and_survives(void)
{
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        x = running(sb, t);
        print(x, EXEC_STDOUT, "before ");
        fake_exec_skip(x, EXEC_STDOUT, 100);
        print(x, EXEC_STDOUT, "after ");
        CHECK_FILE(t, TASK_STDOUT, "before after ");
        task_unref(t);
        sandbox_unref(sb);
        world_down();
        print(x, EXEC_STDOUT, "more");
        world_up();
        sb = fleet_find(world.fleet, "web");
        t = task_of(sb, 1);
        x = running(sb, t);
        EVENTUALLY(task_size(t, TASK_STDOUT) == 17);
        CHECK_FILE(t, TASK_STDOUT, "before after more");
        fake_exec_end(x, EXEC_END_CODE, 0);
        CHECK_EQ(ended(t).dropped[0], 100);
        task_unref(t);
        sandbox_unref(sb);
        sb = restart();
        t = task_of(sb, 1);
        CHECK_EQ(ended(t).dropped[0], 100);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void a_sandbox_that_stopped_meanwhile_has_no_commands(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        (void)running(sb, t);
        task_unref(t);
        sandbox_unref(sb);
        world_down();
        fake_set_state("box-1", BOX_GONE, "");
        world_up();
        sb = fleet_find(world.fleet, "web");
        t = task_of(sb, 1);
        CHECK_STR(ended(t).exit, "lost");
        CHECK_EQ(sandbox_state(sb), BOX_GONE);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

static void new_ones_and_names_come_back(void)
{
        struct sandbox *sb;
        struct task *t;
        struct task_info info;
        bool eof;

        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(sandbox_new_task(sb, "build", &world.call, &t), 0);
        CHECK_EQ(task_write_stdin(t, "in", 2), 0);
        task_unref(t);
        sandbox_unref(sb);
        sb = restart();
        t = sandbox_find_task(sb, "build");
        task_get(t, &info);
        CHECK_EQ(info.state, TASK_NEW);
        CHECK(info.is_named);
        CHECK_EQ(task_stdin_size(t), 2);
        EVENTUALLY(is_settled(sb));
        CHECK_EQ(task_start(t, &(struct task_options){.text = "hold"}, &world.call), 0);
        EVENTUALLY((fake_exec_stdin(running(sb, t), NULL, 0, &eof), eof));
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

/* ---- stdin ---- */

static size_t received(struct fake_exec *x, bool *ret_eof)
{
        return fake_exec_stdin(x, NULL, 0, ret_eof);
}

static void stdin_is_spooled_and_sent_as_it_is_taken(void)
{
        const size_t size = 3 * WINDOW + 17;
        char *data = malloc(size), *got = malloc(size);
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;
        bool eof;

        if (!data || !got)
                abort();
        for (size_t i = 0; i < size; i++)
                data[i] = (char)(i * 7 + i / 251);
        world_begin(0);
        world_up();
        sb = make("web");
        t = run_with(sb, &(struct task_options){.text = "hold", .has_stdin_open = true});
        CHECK_EQ(task_write_stdin(t, data, 10), 0); /* before it runs, or while it starts */
        x = running(sb, t);
        CHECK_EQ(task_write_stdin(t, data + 10, size - 10), 0);
        CHECK_EQ(task_stdin_size(t), size);
        EVENTUALLY(received(x, &eof) == WINDOW); /* and no more, until some is taken */
        CHECK_EQ(received(x, &eof), WINDOW);
        fake_exec_take(x, 100);
        EVENTUALLY(received(x, &eof) == WINDOW + 100);
        CHECK_EQ(task_stdin_eof(t), 0);
        CHECK_EQ(task_stdin_eof(t), 0);
        CHECK_EQ(task_write_stdin(t, "x", 1), -EPIPE);
        CHECK(received(x, &eof) == WINDOW + 100 && !eof);
        fake_exec_take(x, 2 * WINDOW + 17);
        fake_exec_take(x, WINDOW); /* late news don't count */
        EVENTUALLY((received(x, &eof), eof));
        CHECK_EQ(fake_exec_stdin(x, got, size, &eof), size);
        CHECK(memcmp(data, got, size) == 0);
        fake_exec_end(x, EXEC_END_CODE, 0);
        (void)ended(t);
        CHECK_EQ(task_stdin_eof(t), 0);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
        free(data);
        free(got);
}

static void what_has_no_stdin_takes_none(void)
{
        struct sandbox *sb;
        struct task *t;
        bool eof;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run(sb, "hold");
        CHECK_EQ(task_write_stdin(t, "x", 1), -EBUSY);
        CHECK_EQ(task_stdin_eof(t), -EBUSY);
        task_unref(t);
        t = run_with(sb, &(struct task_options){.text = "hold", .stdin_data = "", .stdin_size = 0});
        EVENTUALLY((received(running(sb, t), &eof), eof));
        CHECK_EQ(received(running(sb, t), &eof), 0);
        task_unref(t);
        t = run_with(sb,
                     &(struct task_options){.text = "hold", .stdin_data = "abc", .stdin_size = 3});
        EVENTUALLY((received(running(sb, t), &eof), eof));
        CHECK_EQ(received(running(sb, t), &eof), 3);
        CHECK_EQ(task_write_stdin(t, "x", 1), -EPIPE);
        task_unref(t);
        CHECK_EQ(sandbox_check_exec(sb,
                                    &(struct task_options){.text = "x",
                                                           .stdin_data = "",
                                                           .stdin_size = STDIN_MAX + 1},
                                    0, &world.call),
                 -ENOSPC);
        sandbox_unref(sb);
        world_end();
}

static void the_spool_has_an_end(void)
{
        const size_t size = (size_t)1 << 20;
        char *data = calloc(1, size);
        struct sandbox *sb;
        struct task *t;

        if (!data)
                abort();
        world_begin(0);
        world_up();
        sb = make("web");
        CHECK_EQ(sandbox_new_task(sb, "build", &world.call, &t), 0);
        for (int i = 0; i < 63; i++)
                CHECK_EQ(task_write_stdin(t, data, size), 0);
        CHECK_EQ(task_write_stdin(t, data, size - 1), 0);
        CHECK_EQ(task_write_stdin(t, data, 2), -ENOSPC);
        CHECK_EQ(task_stdin_size(t), STDIN_MAX - 1); /* nothing of it was taken */
        CHECK_EQ(task_write_stdin(t, data, 1), 0);
        CHECK_EQ(task_write_stdin(t, data, 1), -ENOSPC);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
        free(data);
}

static void stdin_goes_on_after_a_restart(void)
{
        const size_t size = 2 * WINDOW;
        char *data = calloc(1, size), *got = calloc(1, size);
        struct fake_exec *x;
        struct sandbox *sb;
        struct task *t;
        bool eof;

        if (!data || !got)
                abort();
        for (size_t i = 0; i < size; i++)
                data[i] = (char)(i ^ (i >> 8));
        world_begin(0);
        world_up();
        sb = make("web");
        t = run_with(sb, &(struct task_options){.text = "hold", .has_stdin_open = true});
        x = running(sb, t);
        CHECK_EQ(task_write_stdin(t, data, size), 0);
        EVENTUALLY(received(x, &eof) == WINDOW);
        task_unref(t);
        sandbox_unref(sb);
        sb = restart(); /* the provider tells how much it has */
        t = task_of(sb, 1);
        x = running(sb, t);
        EVENTUALLY(received(x, &eof) == size);
        CHECK_EQ(task_stdin_eof(t), 0);
        EVENTUALLY((received(x, &eof), eof));
        CHECK_EQ(fake_exec_stdin(x, got, size, &eof), size);
        CHECK(memcmp(data, got, size) == 0);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
        free(data);
        free(got);
}

static void a_closed_stdin_swallows_the_rest(void)
{
        struct sandbox *sb;
        struct task *t;

        world_begin(0);
        world_up();
        sb = make("web");
        t = run_with(sb, &(struct task_options){.text = "hold", .has_stdin_open = true});
        (void)running(sb, t);
        fake_fail(FAKE_EXEC_WRITE, -EPIPE, -1);
        CHECK_EQ(task_write_stdin(t, "x", 1), 0);
        EVENTUALLY(fake_calls(FAKE_EXEC_WRITE) == 1);
        CHECK_EQ(task_write_stdin(t, "y", 1), 0);
        CHECK_STR(info_of(sb).last_error, "");
        task_unref(t);

        t = run_with(sb, &(struct task_options){.text = "hold", .has_stdin_open = true});
        (void)running(sb, t);
        fake_fail(FAKE_EXEC_WRITE, -EIO, -1);
        CHECK_EQ(task_write_stdin(t, "x", 1), 0);
        EVENTUALLY(strcmp(info_of(sb).last_error, "its stdin could not be sent") == 0);
        task_unref(t);
        sandbox_unref(sb);
        world_end();
}

int main(void)
{
        RUN(output_goes_on_where_it_was);
        RUN(an_end_meanwhile_is_told);
        RUN(what_is_not_known_any_more_is_lost);
        RUN(what_waits_is_never_run_behind_somebody_s_back);
        RUN(attaching_is_tried_until_it_works);
        RUN(a_gap_is_counted_and_survives);
        RUN(a_sandbox_that_stopped_meanwhile_has_no_commands);
        RUN(new_ones_and_names_come_back);
        RUN(stdin_is_spooled_and_sent_as_it_is_taken);
        RUN(what_has_no_stdin_takes_none);
        RUN(the_spool_has_an_end);
        RUN(stdin_goes_on_after_a_restart);
        RUN(a_closed_stdin_swallows_the_rest);
        return check_result();
}
