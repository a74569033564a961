/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose a command is: what "app", "1000", "app:staff" or "1000:1000" means by a passwd and a group
 * file, which are the sandbox's and may hold anything.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define USER_GROUPS_MAX 64 /* more are left out */

struct user {
        uid_t uid;
        gid_t gid;
        gid_t groups[USER_GROUPS_MAX]; /* further ones */
        size_t group_count;
        char home[256]; /* "/" when it isn't known */
};

/**
 * As container engines read it: a name, or else a number, of which nothing needs to be known; its
 * group and further groups by the files unless a group is named, then that alone.
 *
 * Shape:   the texts are whole files; "" where there is none.
 * Errors:  -ENOENT no such name; -EINVAL nothing, or a number out of range.
 */
int user_parse(const char *spec, const char *passwd, const char *group, struct user *ret);

/* The same with /etc/passwd and /etc/group; -errno also of reading them, but for -ENOENT. */
int user_find(const char *spec, struct user *ret);
