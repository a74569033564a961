/* SPDX-License-Identifier: Apache-2.0 */

#include <stddef.h>

#include "tests/unit/check.h"
#include "transport/base/names.h"

static void names_have_one_syntax(void)
{
        char longest[NAME_LENGTH_MAX + 2];
        static const char *const good[] = {"a", "A", "0", "web", "a-b", "a.b_c-d", "a..b", "42"};
        static const char *const bad[] = {"",    "-a", "a-",   ".git",     "a.",   "_", "a b",
                                          "a/b", "..", "a\nb", "\xc3\xa4", "a\\b", "*", "a:b"};

        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
                if (!CHECK(name_is_valid(good[i])))
                        (void)fprintf(stderr, "  %s\n", good[i]);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                if (!CHECK(!name_is_valid(bad[i])))
                        (void)fprintf(stderr, "  %s\n", bad[i]);
        memset(longest, 'a', sizeof(longest));
        longest[NAME_LENGTH_MAX + 1] = '\0';
        CHECK(!name_is_valid(longest));
        longest[NAME_LENGTH_MAX] = '\0';
        CHECK(name_is_valid(longest));
}

static void numbers_are_all_digits(void)
{
        CHECK(name_is_number("0"));
        CHECK(name_is_number("1234567890"));
        CHECK(!name_is_number(""));
        CHECK(!name_is_number("1a"));
        CHECK(!name_is_number("1.5"));
        CHECK(!name_is_number("-1"));
}

static void misspelt_words_find_their_like(void)
{
        static const char *const verbs[] = {"start",  "stop",    "restart", "pause",
                                            "resume", "destroy", "exec",    "timeout",
                                            "kill",   "eof",     NULL};
        static const char *const none[] = {NULL};

        CHECK_STR(name_nearest("strat", verbs), "start"); /* one swap */
        CHECK_STR(name_nearest("stpo", verbs), "stop");
        CHECK_STR(name_nearest("destory", verbs), "destroy");
        CHECK_STR(name_nearest("resum", verbs), "resume");
        CHECK_STR(name_nearest("timeouts", verbs), "timeout");
        CHECK_STR(name_nearest("timout", verbs), "timeout");
        CHECK_STR(name_nearest("start", verbs), "start");
        CHECK_STR(name_nearest("restrat", verbs), "restart");
        CHECK_STR(name_nearest("exce", verbs), "exec");
        CHECK_STR(name_nearest("killl", verbs), "kill");
        CHECK_STR(name_nearest("dxsxroyx", verbs), NULL); /* 3 away */
        CHECK_STR(name_nearest("xx", verbs), NULL);
        CHECK_STR(name_nearest("ex", verbs), NULL); /* half of it would have to change */
        CHECK_STR(name_nearest("", verbs), NULL);
        CHECK_STR(name_nearest("start", none), NULL);
        CHECK_STR(
                name_nearest(
                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                        verbs),
                NULL);
}

int main(void)
{
        RUN(names_have_one_syntax);
        RUN(numbers_are_all_digits);
        RUN(misspelt_words_find_their_like);
        return check_result();
}
