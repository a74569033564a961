/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to OpenSSH's server, as a child of the test, in a directory of its own. */
#pragma once

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/child.h"
#include "transport/sftp/batch.h"
#include "transport/sftp/sftp.h"

#define SERVER "/usr/lib/openssh/sftp-server"

static inline struct call in_seconds(unsigned seconds)
{
        struct call c;

        call_init(&c, clock_after(seconds * NS_PER_S));
        return c;
}

/* NULL when it failed, which was reported. */
static inline struct sftp *connect_to(const char *const *argv, bool is_ordered)
{
        struct call c = in_seconds(10);
        struct stream *stream = NULL;
        struct sftp *s = NULL;

        if (!CHECK_EQ(sftp_new(&s), 0))
                return NULL;
        if (!CHECK_EQ(child_open(argv[0], argv, NULL, sftp_events(s), &c, &stream), 0) ||
            !CHECK_EQ(sftp_start(s, &c, stream, is_ordered), 0)) {
                (void)fprintf(stderr, "%s\n", c.sentence);
                sftp_unref(s);
                return NULL;
        }
        return s;
}

static inline struct sftp *connect_real(void)
{
        static const char *const argv[] = {SERVER, "-e", NULL};

        return connect_to(argv, true);
}

/* A fresh directory, in memory if there is room; to remove_temp. */
static inline void make_temp(char path[PATH_MAX])
{
        struct statvfs vfs = {0};
        bool in_memory = statvfs("/dev/shm", &vfs) == 0 &&
                         (uint64_t)vfs.f_bavail * vfs.f_frsize > UINT64_C(1) << 30 &&
                         access("/dev/shm", W_OK) == 0;

        (void)snprintf(path, PATH_MAX, "%s/unit-sftp.XXXXXX", in_memory ? "/dev/shm" : "/tmp");
        CHECK(mkdtemp(path));
}

static inline void remove_temp(const char *path)
{
        CHECK_EQ(file_remove_tree(AT_FDCWD, path), 0);
}
