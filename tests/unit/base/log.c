/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/log.h"

static char said[65536];

/*
 * What `say` writes to standard error, in `said`. A file, so that nothing is lost when it is much.
 */
static const char *capture(void (*say)(void))
{
        char path[] = "/tmp/sbxfs-unit-XXXXXX";
        int fd = mkstemp(path), saved = dup(STDERR_FILENO);
        ssize_t n;

        if (fd < 0 || saved < 0 || dup2(fd, STDERR_FILENO) < 0)
                abort();
        say();
        (void)dup2(saved, STDERR_FILENO);
        n = pread(fd, said, sizeof(said) - 1, 0);
        said[n < 0 ? 0 : n] = '\0';
        (void)close(saved);
        (void)close(fd);
        (void)unlink(path);
        return said;
}

static void say_all(void)
{
        errno = EDOM;
        log_error("e%d", 1);
        log_warning("w%s", "2");
        log_info("i");
        log_debug("exec", "d%c", 'x');
        log_debug("fuse", "d");
        CHECK_EQ(errno, EDOM);
}

static void level_and_topics_choose(void)
{
        log_setup(LOG_LEVEL_ERROR, NULL, false);
        CHECK_STR(capture(say_all), "unit-base-log: error: e1\n");
        log_setup(LOG_LEVEL_WARNING, NULL, false);
        CHECK_STR(capture(say_all), "unit-base-log: error: e1\nunit-base-log: warning: w2\n");
        log_setup(LOG_LEVEL_INFO, "local,exec", false);
        CHECK_STR(capture(say_all), "unit-base-log: error: e1\nunit-base-log: warning: w2\n"
                                    "unit-base-log: i\nunit-base-log: debug: exec: dx\n");
        CHECK(log_wants("exec") && log_wants("local"));
        CHECK(!log_wants("fuse") && !log_wants("exe") && !log_wants("xec") && !log_wants("all"));
        log_setup(LOG_LEVEL_INFO, "all", false);
        CHECK(log_wants("fuse"));
        log_setup(LOG_LEVEL_DEBUG, NULL, false);
        CHECK(log_wants("fuse"));
        log_setup(LOG_LEVEL_DEBUG, "fuse", false);
        CHECK(log_wants("fuse") && !log_wants("exec"));
        log_setup(LOG_LEVEL_INFO, NULL, false);
        CHECK(!log_wants("fuse"));
}

static void say_foreign(void)
{
        log_error("server said: %s", "x\nunit-base-log: error: forged\x1b[2J");
}

static void foreign_text_stays_on_its_line(void)
{
        CHECK_STR(
                capture(say_foreign),
                "unit-base-log: error: server said: x\\x0aunit-base-log: error: forged\\x1b[2J\n");
}

static void say_much(void)
{
        static char much[100000];

        memset(much, 'a', sizeof(much) - 1);
        log_error("%s", much);
}

static void a_long_line_is_cut(void)
{
        const char *line = capture(say_much);

        CHECK(strlen(line) < 1200);
        CHECK_STR(line + strlen(line) - 5, "a...\n");
}

static void *say_often(void *arg)
{
        (void)arg;
        for (int i = 0; i < 100; i++)
                log_error("a line of some length that must stay whole");
        return NULL;
}

static void say_at_once(void)
{
        pthread_t threads[4];

        for (int i = 0; i < 4; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, say_often, NULL), 0);
        for (int i = 0; i < 4; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static void lines_of_threads_stay_whole(void)
{
        static const char expected[] =
                "unit-base-log: error: a line of some length that must stay whole\n";
        const char *at = capture(say_at_once);
        int lines = 0;

        for (; strncmp(at, expected, sizeof(expected) - 1) == 0; at += sizeof(expected) - 1)
                lines++;
        CHECK_EQ(lines, 400);
        CHECK_STR(at, "");
}

static void a_daemon_leaves_standard_error_alone(void)
{
        log_setup(LOG_LEVEL_INFO, "all", true);
        CHECK_STR(capture(say_all), "");
        log_setup(LOG_LEVEL_INFO, NULL, false);
}

static void errno_names_are_never_null(void)
{
        CHECK_STR(errno_name(ENOENT), "ENOENT");
        CHECK_STR(errno_name(-ENOENT), "ENOENT");
        CHECK_STR(errno_name(-EOPNOTSUPP), "EOPNOTSUPP");
        CHECK_STR(errno_name(-EAGAIN), "EAGAIN");
        CHECK(errno_name(0) != NULL);
        CHECK_STR(errno_name(99999), "EUNKNOWN");
        CHECK_STR(errno_name(INT_MIN), "EUNKNOWN");
}

int main(void)
{
        RUN(level_and_topics_choose);
        RUN(foreign_text_stays_on_its_line);
        RUN(a_long_line_is_cut);
        RUN(lines_of_threads_stay_whole);
        RUN(a_daemon_leaves_standard_error_alone);
        RUN(errno_names_are_never_null);
        return check_result();
}
