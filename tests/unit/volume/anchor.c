/* SPDX-License-Identifier: Apache-2.0 */
/* What readlink answers for every kind of link text. */

#include "fs/volume/anchor.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "tests/unit/check.h"

static const char *seen(const char *target, unsigned depth, const char *inside)
{
        static char to[PATH_MAX];
        int r = anchor_target(target, depth, inside, to, sizeof(to), NULL);

        CHECK(r < 0 || (size_t)r == strlen(to));
        return r < 0 ? "(error)" : to;
}

static void fine_texts_come_back_byte_for_byte(void)
{
        static const char *const texts[] = {"x",  "./x", "a//b/", "a/./b", ".",
                                            "./", "...", "..x/y", "a/..b"};

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
                CHECK_STR(seen(texts[i], 0, "/workspace"), texts[i]);
        CHECK_STR(seen("../x", 1, "/workspace"), "../x");
        CHECK_STR(seen("../../x", 3, "/workspace"), "../../x");
        CHECK_STR(seen("./.././../x/", 2, "/workspace"), "./.././../x/");
        CHECK_STR(seen("..", 1, "/workspace"), "..");
}

static void surplus_ups_stay_at_the_root(void)
{
        CHECK_STR(seen("../x", 0, "/workspace"), "x");
        CHECK_STR(seen("../../../etc/passwd", 1, "/workspace"), "../etc/passwd");
        CHECK_STR(seen("..", 0, "/workspace"), ".");
        CHECK_STR(seen("../..", 1, "/workspace"), "..");
        CHECK_STR(seen("../../", 1, "/workspace"), "../");
        CHECK_STR(seen("../", 0, "/workspace"), ".");
}

static void no_up_follows_a_name(void)
{
        CHECK_STR(seen("a/..", 0, "/workspace"), ".");
        CHECK_STR(seen("a/../b", 0, "/workspace"), "b");
        CHECK_STR(seen("a/a/a/../../../../ctl", 0, "/workspace"), "ctl");
        CHECK_STR(seen("a/../../x", 1, "/workspace"), "../x");
        CHECK_STR(seen("a/b/../c/..", 5, "/workspace"), "a");
        CHECK_STR(seen("../a/../../b", 2, "/workspace"), "../../b");
}

static void absolute_targets_inside_are_relative(void)
{
        CHECK_STR(seen("/workspace/x/y", 0, "/workspace"), "x/y");
        CHECK_STR(seen("/workspace/x", 2, "/workspace"), "../../x");
        CHECK_STR(seen("/workspace", 0, "/workspace"), ".");
        CHECK_STR(seen("/workspace/", 1, "/workspace"), "../");
        CHECK_STR(seen("//workspace/./x/../z/", 0, "/workspace/"), "z/");
        CHECK_STR(seen("/home/u/w/x", 1, "/home/u/w"), "../x");
}

static void other_absolute_targets_are_anchored_as_in_a_chroot(void)
{
        CHECK_STR(seen("/etc/passwd", 0, "/workspace"), "etc/passwd");
        CHECK_STR(seen("/etc/passwd", 2, "/workspace"), "../../etc/passwd");
        CHECK_STR(seen("/workspace/../etc", 0, "/workspace"), "etc");
        CHECK_STR(seen("/workspacex/y", 0, "/workspace"), "workspacex/y");
        CHECK_STR(seen("/", 0, "/workspace"), ".");
        CHECK_STR(seen("/", 1, "/workspace"), "..");
        CHECK_STR(seen("/../../..", 1, "/workspace"), "..");
        CHECK_STR(seen("/x", 0, ""), "x");
        CHECK_STR(seen("/proc/self/root", 1, "/"), "../proc/self/root");
}

static void impossible_input_is_refused(void)
{
        char to[8], text[PATH_MAX];

        CHECK_EQ(anchor_target("", 0, "/w", to, sizeof(to), NULL), -EINVAL);
        CHECK_EQ(anchor_target("x", 0, "w", to, sizeof(to), NULL), -EINVAL);
        CHECK_EQ(anchor_target("12345678", 0, "/w", to, sizeof(to), NULL), -ENAMETOOLONG);
        CHECK_EQ(anchor_target("1234567", 0, "/w", to, sizeof(to), NULL), 7);
        CHECK_EQ(anchor_target("/1234", 1, "/w", to, sizeof(to), NULL), 7);
        CHECK_EQ(anchor_target("/12345", 1, "/w", to, sizeof(to), NULL), -ENAMETOOLONG);
        CHECK_EQ(anchor_target("x", 0, "/w", to, 0, NULL), -ENAMETOOLONG);
        memset(text, 'x', sizeof(text));
        text[0] = '/';
        text[sizeof(text) - 1] = '\0';
        CHECK_EQ(anchor_target(text, 1000, "/w", text, 0, NULL), -ENAMETOOLONG);
}

static void ups_are_counted(void)
{
        char to[64];
        unsigned ups = 9;

        CHECK(anchor_target("../../x", 2, "/w", to, sizeof(to), &ups) > 0);
        CHECK_EQ(ups, 2);
        CHECK(anchor_target("x/../y", 2, "/w", to, sizeof(to), &ups) > 0);
        CHECK_EQ(ups, 0);
        CHECK(anchor_target("/w/y", 3, "/w", to, sizeof(to), &ups) > 0);
        CHECK_EQ(ups, 3);
}

int main(void)
{
        RUN(fine_texts_come_back_byte_for_byte);
        RUN(surplus_ups_stay_at_the_root);
        RUN(no_up_follows_a_name);
        RUN(absolute_targets_inside_are_relative);
        RUN(other_absolute_targets_are_anchored_as_in_a_chroot);
        RUN(impossible_input_is_refused);
        RUN(ups_are_counted);
        return check_result();
}
