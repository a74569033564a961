/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to OpenSSH's server, as a child of the test, in a directory of its own. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/base/map.h"
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
        struct call c = in_seconds(60);
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

/* ---- the test's own connection and directory ---- */

static char temp[PATH_MAX];
static struct sftp *s;
static char room[8][PATH_MAX + 300];

/* The path of a name in the test's directory; the last eight stay. */
static inline const char *in_temp(const char *name)
{
        static unsigned next;
        char *path = room[next++ % 8];

        (void)snprintf(path, sizeof(room[0]), "%s/%s", temp, name);
        return path;
}

static inline void make_file(const char *name, const void *data, size_t size)
{
        _cleanup_(closep) int fd = open(in_temp(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

        CHECK(fd >= 0);
        CHECK_EQ(file_write_all(fd, data, size), 0);
}

/* ---- what a listing said ---- */

struct listing {
        struct map *entries; /* path -> (mode or target) */
        struct map *listed;
        size_t count;
        size_t stop_at;
};

static inline int on_entry(void *ctx, const char *path, const struct stat *st, const char *target)
{
        struct listing *l = ctx;

        CHECK(st->st_mode & S_IFMT);
        l->count++;
        CHECK_EQ(map_put(l->entries, path,
                         strdup(target                 ? target
                                : S_ISDIR(st->st_mode) ? "/"
                                                       : "-")),
                 0);
        return l->stop_at && l->count >= l->stop_at ? -ECANCELED : 0;
}

static inline int on_listed(void *ctx, const char *path)
{
        struct listing *l = ctx;

        CHECK(!map_get(l->listed, path));
        CHECK_EQ(map_put(l->listed, path, l), 0);
        return 0;
}

static inline void listing_init(struct listing *l)
{
        *l = (struct listing){.entries = map_new(), .listed = map_new()};
}

static inline void listing_done(struct listing *l)
{
        size_t cursor = 0;
        const char *key;
        void *value;

        while ((value = map_next(l->entries, &cursor, &key)))
                free(value);
        map_free(l->entries);
        map_free(l->listed);
}

static int errors[4];

static inline int on_error(void *ctx, size_t index, int error, const struct stat *st,
                           const void *data, size_t size)
{
        (void)ctx;
        (void)data;
        (void)size;
        errors[index] = error;
        CHECK(error != -EFBIG || st->st_size == 5);
        return 0;
}
