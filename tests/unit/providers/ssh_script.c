/* SPDX-License-Identifier: Apache-2.0 */
/* What goes to the shell of a host, and what its supervisors report. */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"
#include "providers/ssh/report.h"
#include "providers/ssh/script.h"
#include "providers/ssh/ssh.h"
#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"

#define T "0123456789abcdef0123456789abcdef"

static void begin(struct report *r)
{
        report_init(r);
        memcpy(r->token, T, sizeof(T));
}

/* In pieces of `step` bytes. */
static void feed(struct report *r, const char *text, size_t size, size_t step)
{
        for (size_t at = 0; at < size; at += step)
                (void)report_feed(r, text + at, size - at < step ? size - at : step);
}

static void report_in_any_pieces_is_the_same(void)
{
        static const char text[] = "Welcome!\nlast login\n\n" T " started 77\n"
                                   "\n" T " end 3 - - -\n" T " out\na\0b\n\n" T " err\n\n"
                                   "\n" T " done\n";

        for (size_t step = 1; step < sizeof(text); step++) {
                struct report r;

                begin(&r);
                feed(&r, text, sizeof(text) - 1, step);
                CHECK(r.has_started && r.pid == 77 && r.is_done && r.has_end && r.has_bytes);
                CHECK(r.end.kind == EXEC_END_CODE && r.end.value == 3);
                CHECK(r.size[0] == 4 && memcmp(r.data[0], "a\0b\n", 4) == 0);
                CHECK(r.size[1] == 1 && r.data[1][0] == '\n');
                report_done(&r);
        }
}

static void output_cannot_end_a_report(void)
{
        static const char text[] = "\n" T " end 0 - - -\n" T " out\n"
                                   "\n00000000000000000000000000000000 done\n " T " err\n " T
                                   " done\n" T " err\nx\n" T " done\n";
        struct report r;

        begin(&r);
        feed(&r, text, sizeof(text) - 1, 7);
        /* A frame begins a line: even the right token within one is none. */
        CHECK(r.is_done && r.size[1] == 1 && r.data[1][0] == 'x');
        report_done(&r);
}

static void any_bytes_are_borne(void)
{
        unsigned seed = 1;
        char text[4096];

        for (unsigned round = 0; round < 300; round++) {
                struct report r;

                begin(&r);
                for (unsigned i = 0; i < 100; i++) {
                        size_t n = (seed = seed * 1103515245 + 12345) >> 20;

                        for (size_t k = 0; k < n; k++)
                                text[k] = "\n" T " endoutrstarted 0123-"[(seed >> 8) % 53 + k % 3];
                        (void)report_feed(&r, text, n);
                        (void)report_feed(&r, "\n" T " ", 34);
                }
                CHECK(r.in.size <= REPORT_MAX);
                report_done(&r);
        }
}

static void long_banner_is_passed_over(void)
{
        struct report r;
        char line[1024];

        begin(&r);
        memset(line, 'x', sizeof(line));
        for (unsigned i = 0; i < 1000; i++)
                (void)report_feed(&r, line, sizeof(line));
        CHECK(report_feed(&r, "\n" T " refused cwd ENOENT\n", 34 + 19));
        CHECK(r.refused == -ENOENT && strcmp(r.what, "cwd") == 0);
        report_done(&r);
}

static void check_rc(const char *line, enum exec_end_kind kind, int value)
{
        struct exec_end end = {.kind = EXEC_END_LOST};
        char what[16];

        CHECK(report_parse_rc(line, &end, what) == 0);
        CHECK(end.kind == kind && end.value == value);
}

static void ends_are_never_made_up(void)
{
        static const char *const bad[] = {
                "",          "end",         "end x - - -", "end 256 - - -",
                "end 0 - -", "refused cwd", "0 - - -",     "end -1 - - -"};
        struct exec_end end;
        char what[16];

        check_rc("end 0 - - -", EXEC_END_CODE, 0);
        check_rc("end 143 - - -", EXEC_END_CODE, 143);
        check_rc("end 143 - - 15", EXEC_END_CODE, 143); /* it was caught */
        check_rc("end 143 m - 15", EXEC_END_SIGNAL, 15);
        check_rc("end 137 m - -", EXEC_END_SIGNAL, 9);
        check_rc("end 1 m - -", EXEC_END_CODE, 1);
        check_rc("end 130 - - -", EXEC_END_CODE, 130);
        check_rc("end 130 - - 2", EXEC_END_SIGNAL, SIGINT);
        check_rc("end 143 m t -", EXEC_END_TIMEOUT, 0);
        check_rc("end 255 m - -", EXEC_END_CODE, 255);
        CHECK(report_parse_rc("refused command EACCES", &end, what) == -EACCES);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                CHECK(report_parse_rc(bad[i], &end, what) == -EPROTO);
}

static void what_no_shell_can_hold_is_refused(void)
{
        const char *const argv[] = {"true", NULL};
        struct pair env = {strdup("A-B"), strdup("x")};
        struct exec_req in = {.number = 1, .argv = argv, .env = &env, .env_count = 1};
        const struct script_exec s = {.dir = "/d",
                                      .work = "/w",
                                      .run = "/d/run",
                                      .prefix = "/d/run/1",
                                      .box = "k",
                                      .can = HOST_PROC | HOST_SETSID,
                                      .token = T,
                                      .in = &in};
        struct buf b = BUF_INIT(1 << 20);

        CHECK(script_start(&b, &s) == -EINVAL);
        env.key[1] = '_';
        buf_clear(&b);
        CHECK(script_start(&b, &s) == 0);
        CHECK(strstr(buf_str(&b), "export A_B='x'\n") != NULL);
        CHECK(strncmp(buf_str(&b), "{\n", 2) == 0 && strcmp(b.data + b.size - 2, "}\n") == 0);
        buf_wipe(&b);
        free(env.key);
        free(env.value);
}

static void tokens_differ(void)
{
        char a[SHELL_TOKEN_SIZE], b[SHELL_TOKEN_SIZE];

        CHECK(shell_token(a) == 0 && shell_token(b) == 0);
        CHECK(strlen(a) == 32 && strcmp(a, b) != 0);
}

int main(void)
{
        RUN(report_in_any_pieces_is_the_same);
        RUN(output_cannot_end_a_report);
        RUN(any_bytes_are_borne);
        RUN(long_banner_is_passed_over);
        RUN(ends_are_never_made_up);
        RUN(what_no_shell_can_hold_is_refused);
        RUN(tokens_differ);
        return check_result();
}
