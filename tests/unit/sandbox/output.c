/* SPDX-License-Identifier: Apache-2.0 */
/* The spool of output alone: offsets, the cap, gaps, what a crash leaves, and a full disk. */

#include "fs/sandbox/output.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/unit/base/temp.h"
#include "transport/base/buf.h"
#include "transport/base/log.h"

#define BOTH 2
#define LIMIT ((size_t)1000)
#define CAP (OUTPUT_TAIL + LIMIT)

static int dir;

static void begin(struct output *o)
{
        if (mkdirat(dir, "x", 0700) < 0)
                CHECK_EQ(file_remove_tree(dir, "x"), 0);
        (void)mkdirat(dir, "x", 0700);
        output_init(o, dir, "x", CAP);
}

static int add(struct output *o, enum exec_stream stream, uint64_t offset, const char *text)
{
        return output_add(o, stream, offset, text, strlen(text));
}

/* As many bytes of one kind. */
static int fill(struct output *o, enum exec_stream stream, uint64_t offset, char c, size_t size)
{
        char *data = malloc(size);
        int r;

        if (!data)
                abort();
        memset(data, c, size);
        r = output_add(o, stream, offset, data, size);
        free(data);
        return r;
}

/* The bytes that readers see; to be freed. */
static char *shown(const struct output *o, unsigned file)
{
        struct buf text = BUF_INIT(16 << 20);
        char path[16];
        int r;

        (void)snprintf(path, sizeof(path), "x/%s", output_file_name(file));
        r = file_read(dir, path, &text);
        CHECK(r == 0 || (r == -ENOENT && output_size(o, file) == 0));
        if (CHECK(text.size >= output_size(o, file)) && text.data)
                text.data[output_size(o, file)] = '\0';
        return buf_steal(&text);
}

#define CHECK_SHOWN(o, file, expected)                                                             \
        do {                                                                                       \
                char *text_ = shown((o), (file));                                                  \
                CHECK_STR(text_, (expected));                                                      \
                free(text_);                                                                       \
        } while (0)

static void repeats_are_passed_over(void)
{
        const uint64_t none[2] = {0, 0};
        struct output o;

        begin(&o);
        CHECK_EQ(output_size(&o, 0), 0);
        CHECK_EQ(add(&o, EXEC_STDOUT, 0, "abc"), 0);
        CHECK_EQ(add(&o, EXEC_STDOUT, 0, "abc"), 0); /* all of it is known */
        CHECK_EQ(add(&o, EXEC_STDOUT, 1, "b"), 0);
        CHECK_EQ(add(&o, EXEC_STDOUT, 1, "bcde"), 0); /* the rest of it is new */
        CHECK_EQ(add(&o, EXEC_STDERR, 0, "X"), 0);
        CHECK_EQ(add(&o, EXEC_STDOUT, 5, ""), 0);
        CHECK_SHOWN(&o, EXEC_STDOUT, "abcde");
        CHECK_SHOWN(&o, EXEC_STDERR, "X");
        CHECK_SHOWN(&o, BOTH, "abcdeX");
        output_finish(&o, none);
        CHECK_SHOWN(&o, BOTH, "abcdeX");
        CHECK_EQ(atomic_load(&o.dropped[0]) + atomic_load(&o.dropped[1]), 0);
        output_done(&o);
}

static void nothing_printed_makes_no_files(void)
{
        const uint64_t dropped[2] = {3, 0};
        struct stat st;
        struct output o;

        begin(&o);
        output_finish(&o, dropped);
        for (unsigned i = 0; i < OUTPUT_FILES; i++) {
                char path[16];

                (void)snprintf(path, sizeof(path), "x/%s", output_file_name(i));
                CHECK_EQ(fstatat(dir, path, &st, 0), -1);
        }
        CHECK_EQ(atomic_load(&o.dropped[0]), 3);
        output_sync(&o);
        output_done(&o);
}

static void gaps_are_counted(void)
{
        const uint64_t none[2] = {0, 0};
        struct output o;

        begin(&o);
        CHECK_EQ(add(&o, EXEC_STDERR, 10, "abc"), 1); /* nobody has the first ten */
        CHECK_EQ(add(&o, EXEC_STDERR, 13, "d"), 0);
        CHECK_EQ(add(&o, EXEC_STDERR, 20, "e"), 1);
        CHECK_EQ(add(&o, EXEC_STDERR, 15, "zzzzz"), 0); /* too late: it would stand elsewhere */
        CHECK_SHOWN(&o, EXEC_STDERR, "abcde");
        CHECK_EQ(atomic_load(&o.dropped[1]), 16);
        CHECK_EQ(o.skew[1], 16);
        CHECK_EQ(o.position[1], 21);
        output_finish(&o, none);
        CHECK_EQ(atomic_load(&o.dropped[1]), 16);
        CHECK_SHOWN(&o, EXEC_STDERR, "abcde");
        output_done(&o);
}

/* head, `dropped` bytes missing, and the last of what was printed */
static void check_capped(const struct output *o, unsigned file, size_t dropped, const char *tail)
{
        char *text = shown(o, file), marker[64] = "";
        size_t size = strlen(text);

        if (dropped > 0)
                (void)snprintf(marker, sizeof(marker), "\n[sbxfs: %zu bytes dropped]\n", dropped);
        CHECK(strncmp(text + LIMIT, marker, strlen(marker)) == 0);
        if (dropped > 0)
                CHECK_EQ(size, LIMIT + strlen(marker) + OUTPUT_TAIL);
        CHECK_STR(text + size - strlen(tail), tail);
        free(text);
}

static void the_cap_keeps_head_and_tail(void)
{
        const uint64_t none[2] = {0, 0};
        struct output o;
        char *text;

        /* To the byte: nothing is missing, nothing is marked. */
        begin(&o);
        (void)fill(&o, EXEC_STDOUT, 0, 'a', LIMIT);
        (void)add(&o, EXEC_STDOUT, LIMIT, "bc");
        CHECK_EQ(output_size(&o, EXEC_STDOUT), LIMIT);
        CHECK_EQ(atomic_load(&o.dropped[0]), 0); /* it is kept for the end */
        output_finish(&o, none);
        CHECK_EQ(output_size(&o, EXEC_STDOUT), LIMIT + 2);
        text = shown(&o, EXEC_STDOUT);
        CHECK_STR(text + LIMIT - 1, "abc");
        free(text);
        output_done(&o);

        /* As much as the tail holds. */
        begin(&o);
        (void)fill(&o, EXEC_STDOUT, 0, 'a', LIMIT + OUTPUT_TAIL);
        output_finish(&o, none);
        CHECK_EQ(output_size(&o, EXEC_STDOUT), LIMIT + OUTPUT_TAIL);
        CHECK_EQ(atomic_load(&o.dropped[0]), 0);
        output_done(&o);

        /* One more. */
        begin(&o);
        (void)fill(&o, EXEC_STDOUT, 0, 'a', LIMIT + OUTPUT_TAIL);
        (void)add(&o, EXEC_STDOUT, LIMIT + OUTPUT_TAIL, "b");
        CHECK_EQ(atomic_load(&o.dropped[0]), 1);
        output_finish(&o, none);
        check_capped(&o, EXEC_STDOUT, 1, "ab");
        check_capped(&o, BOTH, 1, "ab");
        output_done(&o);

        /* Round the ring in odd steps. */
        begin(&o);
        {
                uint64_t at = 0;

                for (int i = 0; i < 40; i++) {
                        size_t size = 77777 + (size_t)i;

                        (void)fill(&o, EXEC_STDOUT, at, (char)('A' + i % 26), size);
                        at += size;
                }
                (void)add(&o, EXEC_STDOUT, at, "end");
                output_finish(&o, none);
                check_capped(&o, EXEC_STDOUT, at + 3 - LIMIT - OUTPUT_TAIL, "NNend");
                CHECK_EQ(atomic_load(&o.dropped[0]), at + 3 - LIMIT - OUTPUT_TAIL);
        }
        output_done(&o);
}

static void both_stops_by_itself(void)
{
        const uint64_t none[2] = {0, 0};
        struct output o;
        char *text;

        /* Each stream has room, the file with both has not. */
        begin(&o);
        (void)fill(&o, EXEC_STDOUT, 0, 'o', LIMIT - 10);
        (void)fill(&o, EXEC_STDERR, 0, 'e', 30);
        CHECK_EQ(output_size(&o, BOTH), LIMIT);
        CHECK_EQ(output_size(&o, EXEC_STDERR), 30);
        (void)add(&o, EXEC_STDOUT, LIMIT - 10, "xy");
        CHECK_EQ(output_size(&o, EXEC_STDOUT), LIMIT - 8);
        CHECK_EQ(output_size(&o, BOTH), LIMIT); /* and stays so: order is kept */
        output_finish(&o, none);
        text = shown(&o, BOTH);
        CHECK_EQ(strlen(text), LIMIT + 22);
        CHECK_STR(text + LIMIT + 18, "eexy");
        free(text);
        CHECK_EQ(atomic_load(&o.dropped[0]) + atomic_load(&o.dropped[1]), 0);
        output_done(&o);
}

static void a_restart_goes_on_from_what_was_seen(void)
{
        const int64_t skew[2] = {7, 0};
        const uint64_t none[2] = {0, 0};
        struct output o;
        int fd;

        begin(&o);
        (void)add(&o, EXEC_STDOUT, 7, "abc"); /* a gap of seven, as the record says */
        (void)add(&o, EXEC_STDERR, 0, "E");
        output_done(&o);
        /* A crash between the two files. */
        fd = openat(dir, "x/output", O_WRONLY | O_APPEND | O_CLOEXEC);
        CHECK_EQ(file_write_all(fd, "de", 2), 0);
        (void)close(fd);

        output_init(&o, dir, "x", CAP);
        output_resume(&o, skew);
        CHECK_EQ(o.position[0], 10);
        CHECK_EQ(o.position[1], 1);
        CHECK_EQ(output_size(&o, BOTH), 4);
        CHECK_EQ(atomic_load(&o.dropped[0]), 7);
        CHECK_EQ(add(&o, EXEC_STDOUT, 10, "de"), 0);
        CHECK_SHOWN(&o, BOTH, "abcEde");
        output_finish(&o, none);
        CHECK_EQ(atomic_load(&o.dropped[0]), 7);
        output_done(&o);

        output_init(&o, dir, "x", CAP);
        output_load(&o, (const uint64_t[2]){7, 0});
        CHECK_SHOWN(&o, BOTH, "abcEde");
        CHECK_EQ(output_size(&o, EXEC_STDOUT), 5);
        CHECK_EQ(atomic_load(&o.dropped[0]), 7);
        output_sync(&o);
        output_done(&o);
}

static void a_restart_beyond_the_cap_asks_for_the_tail_again(void)
{
        const int64_t skew[2] = {0, 0};
        const uint64_t none[2] = {0, 0};
        struct output o;

        begin(&o);
        (void)fill(&o, EXEC_STDOUT, 0, 'a', LIMIT + 500);
        output_done(&o);
        output_init(&o, dir, "x", CAP);
        output_resume(&o, skew);
        CHECK_EQ(o.position[0], LIMIT); /* the tail was in memory only */
        CHECK_EQ(output_size(&o, EXEC_STDOUT), LIMIT);
        (void)fill(&o, EXEC_STDOUT, LIMIT, 'a', 500);
        (void)add(&o, EXEC_STDOUT, LIMIT + 500, "!");
        output_finish(&o, none);
        CHECK_EQ(output_size(&o, EXEC_STDOUT), LIMIT + 501);
        CHECK_EQ(output_size(&o, BOTH), LIMIT + 501);
        output_done(&o);
}

static void a_full_disk_drops_and_says_so(void)
{
        const uint64_t none[2] = {0, 0};
        const struct rlimit small = {.rlim_cur = 10, .rlim_max = RLIM_INFINITY};
        struct rlimit old;
        struct output o;

        begin(&o);
        CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
        (void)signal(SIGXFSZ, SIG_IGN);
        CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
        CHECK_EQ(add(&o, EXEC_STDOUT, 0, "12345"), 0);
        CHECK_EQ(add(&o, EXEC_STDERR, 0, "abc"), 0);
        CHECK_EQ(add(&o, EXEC_STDOUT, 5, "67890"), 0); /* `output` can't take it */
        CHECK_SHOWN(&o, EXEC_STDOUT, "12345");
        CHECK_SHOWN(&o, BOTH, "12345abc");
        CHECK_EQ(add(&o, EXEC_STDERR, 3, "d"), 0); /* it stopped for good */
        CHECK_SHOWN(&o, EXEC_STDERR, "abc");
        CHECK_SHOWN(&o, BOTH, "12345abc");
        output_finish(&o, none); /* the end has no room either, in part */
        CHECK_SHOWN(&o, BOTH, "12345abc");
        CHECK_SHOWN(&o, EXEC_STDOUT, "1234567890");
        CHECK_SHOWN(&o, EXEC_STDERR, "abcd");
        CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
        output_done(&o);
}

static void a_directory_that_is_gone_drops_all(void)
{
        const uint64_t none[2] = {0, 0};
        struct output o;

        begin(&o);
        CHECK_EQ(file_remove_tree(dir, "x"), 0);
        CHECK_EQ(add(&o, EXEC_STDOUT, 0, "12345"), 0);
        CHECK_EQ(output_size(&o, EXEC_STDOUT), 0);
        output_finish(&o, none);
        CHECK_EQ(output_size(&o, EXEC_STDOUT), 0);
        CHECK_EQ(atomic_load(&o.dropped[0]), 5);
        output_sync(&o);
        output_done(&o);
}

int main(void)
{
        log_setup(LOG_LEVEL_ERROR, NULL, false);
        dir = temp_open();
        RUN(repeats_are_passed_over);
        RUN(nothing_printed_makes_no_files);
        RUN(gaps_are_counted);
        RUN(the_cap_keeps_head_and_tail);
        RUN(both_stops_by_itself);
        RUN(a_restart_goes_on_from_what_was_seen);
        RUN(a_restart_beyond_the_cap_asks_for_the_tail_again);
        RUN(a_full_disk_drops_and_says_so);
        RUN(a_directory_that_is_gone_drops_all);
        temp_close(dir);
        return check_result();
}
