/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>

#include "tests/unit/check.h"
#include "transport/base/cleanup.h"

static bool is_open(int fd)
{
        return fcntl(fd, F_GETFD) >= 0;
}

static int leave_scope(bool steals, int *ret_fd)
{
        _cleanup_(closep) int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), none = -1;
        _cleanup_(closedirp) DIR *dir = opendir("/"), *no_dir = NULL;
        _cleanup_(freep) char *text = strdup("x"), *nothing = NULL;

        CHECK(fd >= 0 && dir && text && none == -1 && !no_dir && !nothing);
        *ret_fd = fd;
        errno = EDOM;
        return steals ? STEAL_FD(fd) : -1;
}

static void scope_closes_what_was_not_stolen(void)
{
        int fd;

        CHECK_EQ(leave_scope(false, &fd), -1);
        CHECK_EQ(errno, EDOM);
        CHECK(!is_open(fd));
        CHECK_EQ(leave_scope(true, &fd), fd);
        CHECK(is_open(fd));
        closep(&fd);
}

static void stealing_leaves_nothing_behind(void)
{
        char *p = strdup("x"), *q = STEAL(p);

        CHECK(!p && q);
        freep(&q);
}

int main(void)
{
        RUN(scope_closes_what_was_not_stolen);
        RUN(stealing_leaves_nothing_behind);
        return check_result();
}
