/* SPDX-License-Identifier: Apache-2.0 */
/* The client against OpenSSH's own server: many operations at a time, and its sudden end. */

#include "transport/sftp/sftp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "tests/unit/transport/sftp_real.h"

/* ---- many at a time ---- */

static void dependent_changes_go_in_one_row(void)
{
        struct call c = in_seconds(10);
        struct sftp_set mode = {.what = SFTP_SET_MODE, .mode = 0700};
        struct sftp_op ops[] = {
                {.type = SFTP_MKDIR, .path = in_temp("row"), .set = mode},
                {.type = SFTP_MKDIR, .path = in_temp("row/a"), .set = mode},
                {.type = SFTP_SYMLINK, .path = in_temp("row/a/l"), .to = "text"},
                {.type = SFTP_POSIX_RENAME, .path = in_temp("row/a"), .to = in_temp("row/b")},
                {.type = SFTP_LSTAT, .path = in_temp("row/b/l")},
        };

        CHECK_EQ(sftp_run(s, &c, ops, 5), 0);
        for (int i = 0; i < 5; i++)
                CHECK_EQ(ops[i].error, 0);
        CHECK(S_ISLNK(ops[4].st.st_mode));
        CHECK_EQ(file_remove_tree(AT_FDCWD, in_temp("row")), 0);
}

static void *stat_many(void *arg)
{
        enum { COUNT = 3000 };
        struct sftp_stat_item *items = calloc(COUNT, sizeof(*items));
        struct call c = in_seconds(100);

        (void)arg;
        for (int i = 0; items && i < COUNT; i++)
                items[i].path = i % 2 ? temp : "/nowhere";
        CHECK_EQ(sftp_stat(s, &c, items, COUNT), 0);
        for (int i = 0; items && i < COUNT; i++)
                CHECK_EQ(items[i].error, i % 2 ? 0 : -ENOENT);
        free(items);
        return NULL;
}

static void threads_share_a_connection(void)
{
        pthread_t threads[8];

        for (int i = 0; i < 8; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, stat_many, NULL), 0);
        for (int i = 0; i < 8; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* What was given up goes on, and its answers disturb nobody; handles that come are closed. */
static void operations_are_given_up_at_any_time(void)
{
        static char buffer[65536];
        struct call c = in_seconds(100);

        make_file("f", buffer, sizeof(buffer));
        for (int i = 0; i < 2000; i++) {
                struct sftp_op ops[] = {
                        {.type = SFTP_LSTAT, .path = temp},
                        {.type = SFTP_OPEN, .path = in_temp("f"), .flags = SFTP_FOR_READ},
                        {.type = SFTP_OPENDIR, .path = temp},
                        {.type = SFTP_LSTAT, .path = temp, .is_bulk = true},
                };
                struct sftp_queue q;
                struct sftp_op *op;

                sftp_queue_init(&q);
                sftp_submit(s, &q, ops, 4);
                if (i % 3 == 0)
                        CHECK_EQ(sftp_next(&q, &c, &op), 0);
                if (i % 3 == 0 && op->handle.size > 0)
                        sftp_close_later(s, &op->handle);
                sftp_queue_done(&q);
                memset(ops, 0xee, sizeof(ops));
        }
        CHECK_EQ(sftp_error(s, NULL, 0), 0);
        CHECK_EQ(unlink(in_temp("f")), 0);
}

/* ---- ends ---- */

struct killer {
        struct sftp_op *last; /* of those that are submitted */
        pid_t pid;
};

/* As soon as all is in flight. */
static void *kill_soon(void *arg)
{
        struct killer *k = arg;
        uint64_t until_ns = clock_after(20 * NS_PER_S);

        while (atomic_load(&k->last->sent_at) == UINT64_MAX && clock_mono_ns() < until_ns)
                (void)usleep(1000);
        CHECK_EQ(kill(k->pid, SIGKILL), 0);
        return NULL;
}

/* A server that says its pid first, on standard error; stopped at once if asked. */
static struct sftp *connect_pid(pid_t *ret)
{
        char script[PATH_MAX + 100];
        const char *argv[] = {"/bin/sh", "-c", script, NULL};
        struct sftp *server;
        _cleanup_(closep) int fd = -1;
        char text[32] = "";

        (void)snprintf(script, sizeof(script), "echo $$ >%s/pid; exec " SERVER, temp);
        server = connect_to(argv, true);
        fd = open(in_temp("pid"), O_RDONLY | O_CLOEXEC);
        CHECK(read(fd, text, sizeof(text) - 1) > 0);
        *ret = (pid_t)strtol(text, NULL, 10);
        return server;
}

static void a_killed_server_ends_all_that_is_in_flight(void)
{
        enum { COUNT = 500 };
        struct call c = in_seconds(30);
        struct sftp_op *ops = calloc(COUNT, sizeof(*ops));
        char sentence[256] = "";
        uint64_t since_ns;
        pthread_t thread;
        pid_t pid = 0;
        struct sftp *server = connect_pid(&pid);
        struct killer killer = {ops + COUNT - 1, pid};

        if (!server || !ops)
                return;
        CHECK_EQ(kill(pid, SIGSTOP), 0); /* so that all are in flight */
        for (int i = 0; i < COUNT; i++)
                ops[i] = (struct sftp_op){
                        .type = SFTP_LSTAT, .path = temp, .sent_at = UINT64_MAX}; /* not yet */
        CHECK_EQ(pthread_create(&thread, NULL, kill_soon, &killer), 0);
        since_ns = clock_mono_ns();
        CHECK_EQ(sftp_run(server, &c, ops, COUNT), -EHOSTUNREACH);
        CHECK(clock_mono_ns() - since_ns <
              25 * NS_PER_S); /* at once, but for the load; 30 s else */
        CHECK(strstr(c.sentence, "signal 9"));
        CHECK_EQ(pthread_join(thread, NULL), 0);
        for (int i = 0; i < COUNT; i++)
                CHECK(ops[i].error == -EINPROGRESS && ops[i].was_sent);
        CHECK_EQ(sftp_error(server, sentence, sizeof(sentence)), -EHOSTUNREACH);
        CHECK_STR(sentence, c.sentence);
        CHECK_EQ(sftp_run(server, &c, ops, 2), -EHOSTUNREACH);
        CHECK(ops[0].error == -ECANCELED && !ops[0].was_sent);
        sftp_unref(server);
        free(ops);
}

static void a_frozen_server_costs_no_more_than_the_deadline(void)
{
        struct call c, cancelled = in_seconds(30);
        struct sftp_op op = {.type = SFTP_LSTAT, .path = temp};
        struct sftp_stat_item items[3] = {{.path = temp}, {.path = temp}, {.path = temp}};
        struct listing l;
        struct sftp_list_sink to = {on_entry, on_listed, &l};
        struct sftp_listing what = {.root = temp, .depth = 2};
        const char *paths[] = {temp};
        struct sftp_fetch_sink files = {.file = on_error, .ctx = NULL};
        uint64_t since_ns;
        pid_t pid = 0;
        struct sftp *server = connect_pid(&pid);

        if (!server)
                return;
        listing_init(&l);
        CHECK_EQ(kill(pid, SIGSTOP), 0);
        since_ns = clock_mono_ns();
        call_init(&c, clock_after(200 * NS_PER_MS));
        CHECK_EQ(sftp_run(server, &c, &op, 1), -ETIMEDOUT);
        CHECK_EQ(op.error, -EINPROGRESS);
        c.deadline_ns = clock_after(200 * NS_PER_MS);
        CHECK_EQ(sftp_stat(server, &c, items, 3), -ETIMEDOUT);
        c.deadline_ns = clock_after(200 * NS_PER_MS);
        CHECK_EQ(sftp_list(server, &c, &what, &to), -ETIMEDOUT);
        c.deadline_ns = clock_after(200 * NS_PER_MS);
        CHECK_EQ(sftp_fetch(server, &c, paths, 1, 100, &files), -ETIMEDOUT);
        call_cancel(&cancelled);
        CHECK_EQ(sftp_run(server, &cancelled, &op, 1), -EINTR);
        CHECK(clock_mono_ns() - since_ns < 25 * NS_PER_S); /* 0.8 s, but for the load; 30 s else */
        CHECK_EQ(kill(pid, SIGCONT), 0); /* what comes now goes nowhere */
        c.deadline_ns = clock_after(60 * NS_PER_S);
        CHECK_EQ(sftp_run(server, &c, &op, 1), 0);
        CHECK_EQ(op.error, 0);
        listing_done(&l);
        sftp_unref(server);
}

static void a_server_that_is_none_says_what_it_said(void)
{
        static const char *const scripts[] = {
                "echo Welcome to the host; exec sleep 100",
                "echo no such thing >&2; exit 3",
                "head -c 9 >/dev/null; printf '\\0\\0\\0\\5\\2\\0\\0\\0\\4'; exec sleep 100",
        };
        static const char *const words[] = {"Welcome to the host", "no such thing", "version 4"};
        static const int codes[] = {-EPROTO, -EHOSTUNREACH, -EPROTO};

        for (int i = 0; i < 3; i++) {
                const char *argv[] = {"/bin/sh", "-c", scripts[i], NULL};
                struct call c = in_seconds(60);
                struct stream *stream = NULL;
                struct sftp *none = NULL;

                CHECK_EQ(sftp_new(&none), 0);
                CHECK_EQ(child_open(argv[0], argv, NULL, sftp_events(none), &c, &stream), 0);
                CHECK_EQ(sftp_start(none, &c, stream, true), codes[i]);
                if (!CHECK(strstr(c.sentence, words[i])))
                        (void)fprintf(stderr, "%s\n", c.sentence);
                sftp_unref(none);
        }
}

int main(void)
{
        make_temp(temp);
        s = connect_real();
        if (!s)
                return 1;
        RUN(dependent_changes_go_in_one_row);
        RUN(threads_share_a_connection);
        RUN(operations_are_given_up_at_any_time);
        RUN(a_killed_server_ends_all_that_is_in_flight);
        RUN(a_frozen_server_costs_no_more_than_the_deadline);
        RUN(a_server_that_is_none_says_what_it_said);
        sftp_unref(s);
        remove_temp(temp);
        return check_result();
}
