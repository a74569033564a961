/* SPDX-License-Identifier: Apache-2.0 */
/* Into the background and out of it. Each case is a process of its own. */

#include "fs/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "tests/unit/check.h"
#include "transport/base/log.h"

/* The exit status of a process that does this; 1000 + N: ended by a signal. */
static int status_of(void (*run)(void))
{
        pid_t child = fork();
        int status;

        if (child == 0) {
                run();
                _exit(99); /* it should not come back */
        }
        if (!CHECK(child > 0) || !CHECK_EQ(waitpid(child, &status, 0), child))
                return -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int report[2]; /* a pipe to what the background says */

/* What came from the background until it had closed its end. */
static void read_report(char *to, size_t size)
{
        size_t n = 0;
        ssize_t got;

        (void)close(report[1]);
        while (n + 1 < size && (got = read(report[0], to + n, size - n - 1)) != 0)
                if (got > 0)
                        n += (size_t)got;
                else if (errno != EINTR)
                        break;
        to[n] = '\0';
        (void)close(report[0]);
}

static void say(const char *text)
{
        if (write(report[1], text, strlen(text)) < 0)
                _exit(98);
}

static void mount_well(void)
{
        struct daemon d = {.ready = -1};

        if (daemon_start(&d) < 0)
                _exit(97);
        daemon_ready(&d);
        daemon_ready(&d); /* once is enough */
        say(getsid(0) == getpid() ? "session " : "none ");
        say(lseek(0, 0, SEEK_CUR) == 0 && !isatty(1) && !isatty(2) ? "null" : "open");
        _exit(7); /* nobody waits for that any more */
}

static void mount_badly(void)
{
        struct daemon d = {.ready = -1};

        if (daemon_start(&d) < 0)
                _exit(97);
        _exit(5);
}

static void mount_and_leave_too_early(void)
{
        struct daemon d = {.ready = -1};

        if (daemon_start(&d) < 0)
                _exit(97);
        _exit(0); /* without having been ready: that is a failure */
}

static void mount_and_die(void)
{
        struct daemon d = {.ready = -1};

        if (daemon_start(&d) < 0)
                _exit(97);
        (void)raise(SIGKILL);
}

static void the_parent_ends_when_the_mount_answers(void)
{
        char text[64];

        CHECK_EQ(pipe(report), 0);
        CHECK_EQ(status_of(mount_well), 0);
        read_report(text, sizeof(text));
        CHECK_STR(text, "session null");
}

static void the_parent_tells_of_a_failure(void)
{
        CHECK_EQ(status_of(mount_badly), 5);
        CHECK_EQ(status_of(mount_and_leave_too_early), EXIT_FAILURE);
        CHECK_EQ(status_of(mount_and_die), EXIT_FAILURE);
}

static void in_the_foreground_nothing_changes(void)
{
        struct daemon d = {.ready = -1};

        daemon_ready(&d);
        CHECK_EQ(d.ready, -1);
}

/* ---- signals ---- */

static int signal_sent;

static void stop(void *ctx)
{
        say(ctx);
        if (kill(getpid(), SIGTERM) < 0) /* the second one */
                _exit(96);
}

static void end_by_signals(void)
{
        struct daemon d = {.ready = -1};
        char name[] = "stopped";

        if (daemon_watch_signals(&d, stop, name) < 0)
                _exit(97);
        if (kill(getpid(), signal_sent) < 0)
                _exit(96);
        for (;;)
                (void)pause();
}

static void the_first_signal_stops_and_the_second_ends(void)
{
        static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
        char text[64];

        for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
                signal_sent = signals[i];
                CHECK_EQ(pipe(report), 0);
                CHECK_EQ(status_of(end_by_signals), EXIT_FAILURE);
                read_report(text, sizeof(text));
                CHECK_STR(text, "stopped");
        }
}

static void end_without_a_stop(void)
{
        struct daemon d = {.ready = -1}, unwatched = {.ready = -1};
        char name[] = "stopped";

        daemon_forget_stop(&unwatched);
        if (daemon_watch_signals(&d, stop, name) < 0)
                _exit(97);
        daemon_forget_stop(&d);
        for (;;) {
                if (kill(getpid(), SIGTERM) < 0)
                        _exit(96);
                (void)usleep(200);
        }
}

static void what_is_forgotten_is_not_called(void)
{
        char text[64];

        CHECK_EQ(pipe(report), 0);
        CHECK_EQ(status_of(end_without_a_stop), EXIT_FAILURE);
        read_report(text, sizeof(text));
        CHECK_STR(text, "");
}

static void write_to_nobody(void)
{
        struct daemon d = {.ready = -1};
        int ends[2];

        if (pipe(ends) < 0 || daemon_watch_signals(&d, stop, NULL) < 0)
                _exit(97);
        (void)close(ends[0]);
        _exit(write(ends[1], "x", 1) < 0 && errno == EPIPE ? 0 : 1);
}

static void a_closed_pipe_is_an_error_not_an_end(void)
{
        CHECK_EQ(status_of(write_to_nobody), 0);
}

int main(void)
{
        log_setup(LOG_LEVEL_ERROR, NULL, false);
        RUN(the_parent_ends_when_the_mount_answers);
        RUN(the_parent_tells_of_a_failure);
        RUN(in_the_foreground_nothing_changes);
        RUN(the_first_signal_stops_and_the_second_ends);
        RUN(what_is_forgotten_is_not_called);
        RUN(a_closed_pipe_is_an_error_not_an_end);
        return check_result();
}
