/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every unit test is made of: CHECKs that report and go on, and an exit status that counts.
 *
 *      static void empty_text_is_refused(void)
 *      {
 *              CHECK_EQ(units_parse_count("", 9, &n), -EINVAL);
 *      }
 *
 *      int main(void)
 *      {
 *              RUN(empty_text_is_refused);
 *              return check_result();
 *      }
 *
 * Any thread may CHECK. A test program is killed after CHECK_TIMEOUT_S, so that a wait that never
 * ends is a failure.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHECK_TIMEOUT_S 200

static atomic_uint check_failures;
static const char *check_name = "main"; /* the running test */

static inline bool check_bool(bool ok, const char *text, const char *file, int line)
{
        if (!ok) {
                (void)fprintf(stderr, "%s:%d: %s: CHECK(%s) failed\n", file, line, check_name,
                              text);
                atomic_fetch_add(&check_failures, 1);
        }
        return ok;
}

static inline bool check_numbers(long long a, long long b, const char *text, const char *file,
                                 int line)
{
        if (a != b) {
                (void)fprintf(stderr, "%s:%d: %s: CHECK_EQ(%s) failed: %lld, not %lld\n", file,
                              line, check_name, text, a, b);
                atomic_fetch_add(&check_failures, 1);
        }
        return a == b;
}

static inline bool check_strings(const char *a, const char *b, const char *text, const char *file,
                                 int line)
{
        bool ok = a && b ? strcmp(a, b) == 0 : a == b;

        if (!ok) {
                (void)fprintf(stderr, "%s:%d: %s: CHECK_STR(%s) failed: \"%s\", not \"%s\"\n", file,
                              line, check_name, text, a ? a : "(null)", b ? b : "(null)");
                atomic_fetch_add(&check_failures, 1);
        }
        return ok;
}

/*
 * Each is true when it held, so that a test can stop where going on makes no sense:
 * if (!CHECK(p)) return;
 */
#define CHECK(condition) check_bool((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(is, expected)                                                                     \
        check_numbers((long long)(is), (long long)(expected), #is ", " #expected, __FILE__,        \
                      __LINE__)
#define CHECK_STR(is, expected)                                                                    \
        check_strings((is), (expected), #is ", " #expected, __FILE__, __LINE__)

/* Run one test function; its name says the behaviour. */
#define RUN(test)                                                                                  \
        do {                                                                                       \
                check_name = #test;                                                                \
                (void)alarm(CHECK_TIMEOUT_S);                                                      \
                test();                                                                            \
        } while (0)

static inline int check_result(void)
{
        unsigned n = atomic_load(&check_failures);

        if (n > 0)
                (void)fprintf(stderr, "%u checks failed\n", n);
        return n > 0;
}
