/* SPDX-License-Identifier: Apache-2.0 */
/* Users and groups by files that an image brings along. */

#include <errno.h>
#include <string.h>

#include "providers/holder/users.h"
#include "tests/unit/check.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "# odd\n"
                             "app:x:1000:100:An App:/home/app:/bin/sh\n"
                             "7:x:70:71::/seven:/bin/sh\n"
                             "bad:x:-1:0::/:\n"
                             "last:x:5:6::relative:";
static const char group[] = "root:x:0:\nusers:x:100:\nstaff:x:50:other,app\nwheel:x:10:app,other\n"
                            "apps:x:51:application\n8:x:80:";

static void a_name_has_its_groups_and_home(void)
{
        struct user u;

        CHECK_EQ(user_parse("app", passwd, group, &u), 0);
        CHECK_EQ(u.uid, 1000);
        CHECK_EQ(u.gid, 100);
        CHECK_STR(u.home, "/home/app");
        CHECK_EQ(u.group_count, 2);
        CHECK_EQ(u.groups[0], 50);
        CHECK_EQ(u.groups[1], 10);
}

static void a_number_is_a_user_known_or_not(void)
{
        struct user u;

        CHECK_EQ(user_parse("1000", passwd, group, &u), 0);
        CHECK_EQ(u.gid, 100);
        CHECK_EQ(u.group_count, 2);
        CHECK_EQ(user_parse("4711", passwd, group, &u), 0);
        CHECK_EQ(u.uid, 4711);
        CHECK_EQ(u.gid, 0);
        CHECK_STR(u.home, "/");
        CHECK_EQ(user_parse("7", passwd, group, &u), 0);
        CHECK_EQ(u.uid, 70); /* the name is meant */
        CHECK_EQ(user_parse("0", "", "", &u), 0);
        CHECK_EQ(u.uid, 0);
}

static void a_group_that_is_named_is_the_only_one(void)
{
        struct user u;

        CHECK_EQ(user_parse("app:staff", passwd, group, &u), 0);
        CHECK_EQ(u.gid, 50);
        CHECK_EQ(u.group_count, 0);
        CHECK_EQ(user_parse("app:9", passwd, group, &u), 0);
        CHECK_EQ(u.gid, 9);
        CHECK_EQ(user_parse("1:8", passwd, group, &u), 0);
        CHECK_EQ(u.gid, 80);
        CHECK_EQ(user_parse("app:none", passwd, group, &u), -ENOENT);
}

static void what_is_none_is_refused(void)
{
        struct user u;

        CHECK_EQ(user_parse("nobody", passwd, group, &u), -ENOENT);
        CHECK_EQ(user_parse("bad", passwd, group, &u), -ENOENT);
        CHECK_EQ(user_parse("", passwd, group, &u), -EINVAL);
        CHECK_EQ(user_parse(":1", passwd, group, &u), -EINVAL);
        CHECK_EQ(user_parse("4294967296", passwd, group, &u), -EINVAL);
        CHECK_EQ(user_parse("2147483648", passwd, group, &u), -EINVAL);
        CHECK_EQ(user_parse("99999999999999999999", passwd, group, &u), -EINVAL);
}

static void odd_files_do_no_harm(void)
{
        struct user u;

        CHECK_EQ(user_parse("last", passwd, group, &u), 0);
        CHECK_STR(u.home, "/"); /* a relative one is none */
        CHECK_EQ(user_parse("app", ":::\n\n::::::::::\napp\napp:x\napp:x:1:2", ":", &u), 0);
        CHECK_EQ(u.uid, 1);
        CHECK_EQ(user_parse("app", "\n", "", &u), -ENOENT);
}

int main(void)
{
        RUN(a_name_has_its_groups_and_home);
        RUN(a_number_is_a_user_known_or_not);
        RUN(a_group_that_is_named_is_the_only_one);
        RUN(what_is_none_is_refused);
        RUN(odd_files_do_no_harm);
        return check_result();
}
