/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <sys/stat.h>

#include "tests/unit/base/temp.h"
#include "transport/base/buf.h"
#include "transport/base/file.h"

static int dir;

static int make(const char *name)
{
        return openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

static void writes_and_reads_are_whole(void)
{
        static char data[300000], back[300001];
        struct buf b = BUF_INIT(1000000);
        int fd = make("f");

        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (char)(i * 7 + i / 256);
        CHECK_EQ(file_write_all(fd, data, sizeof(data)), 0);
        CHECK_EQ(file_pread_full(fd, back, sizeof(back), 0), sizeof(data));
        CHECK(memcmp(data, back, sizeof(data)) == 0);
        CHECK_EQ(file_pread_full(fd, back, 10, sizeof(data) - 3), 3);
        CHECK_EQ(file_pread_full(fd, back, 10, sizeof(data)), 0);
        CHECK_EQ(file_pread_full(fd, back, 10, UINT64_MAX), 0);
        CHECK_EQ(file_pwrite_all(fd, "xyz", 3, 100000), 0);
        memcpy(data + 100000, "xyz", 3);
        CHECK_EQ(buf_add_str(&b, "before"), 0);
        CHECK_EQ(file_read(dir, "f", &b), 0);
        CHECK_EQ(b.size, sizeof(data) + 6);
        CHECK(memcmp(b.data + 6, data, sizeof(data)) == 0);
        buf_done(&b);
        (void)close(fd);
}

static void errors_are_passed_on(void)
{
        char byte[1];
        int fd = open("/dev/full", O_RDWR | O_CLOEXEC),
            closed = open("/dev/null", O_RDONLY | O_CLOEXEC);

        CHECK_EQ(file_write_all(fd, "x", 1), -ENOSPC);
        CHECK_EQ(file_pwrite_all(fd, "x", 1, UINT64_MAX), -EFBIG);
        (void)close(fd);
        CHECK_EQ(file_write_all(closed, "x", 1), -EBADF);
        CHECK_EQ(file_pwrite_all(closed, "x", 1, 0), -EBADF);
        (void)close(closed);
        CHECK_EQ(file_pread_full(dir, byte, 1, 0), -EISDIR);
}

static void reading_stops_at_the_maximum(void)
{
        struct buf b = BUF_INIT(10);
        int fd = make("g");

        CHECK_EQ(file_write_all(fd, "12345678", 8), 0);
        CHECK_EQ(buf_add_str(&b, "ab"), 0);
        CHECK_EQ(file_read(dir, "g", &b), 0); /* just fits */
        CHECK_STR(buf_str(&b), "ab12345678");
        buf_clear(&b);
        CHECK_EQ(buf_add_str(&b, "abc"), 0);
        CHECK_EQ(file_read(dir, "g", &b), -E2BIG);
        CHECK_STR(buf_str(&b), "abc");
        buf_done(&b);
        (void)close(fd);
}

static void only_regular_files_are_read(void)
{
        struct buf b = BUF_INIT(100000);

        CHECK_EQ(mkfifoat(dir, "fifo", 0600), 0);
        CHECK_EQ(file_read(dir, "fifo", &b), -EINVAL);
        CHECK_EQ(file_read(AT_FDCWD, "/dev/zero", &b), -EINVAL);
        CHECK_EQ(file_read(AT_FDCWD, temp_path, &b), -EISDIR);
        CHECK_EQ(file_read(dir, "absent", &b), -ENOENT);
        CHECK_STR(buf_str(&b), "");
        CHECK_EQ(file_read(AT_FDCWD, "/proc/self/status", &b), 0); /* its size says 0 */
        CHECK(strncmp(buf_str(&b), "Name:", 5) == 0);
        buf_done(&b);
}

static mode_t mode_of(const char *path)
{
        struct stat st = {0};

        CHECK_EQ(fstatat(dir, path, &st, 0), 0);
        return st.st_mode & 07777;
}

static void directories_are_made_with_their_mode(void)
{
        mode_t mask = umask(077);
        char path[4200];

        (void)snprintf(path, sizeof(path), "%s/a//b/c/", temp_path);
        CHECK_EQ(file_make_dirs(path, 0711), 0);
        CHECK_EQ(mode_of("a"), 0711);
        CHECK_EQ(mode_of("a/b"), 0711);
        CHECK_EQ(mode_of("a/b/c"), 0711);
        CHECK_EQ(mode_of("."), 0700); /* was there */
        CHECK_EQ(file_make_dirs(path, 0755), 0);
        CHECK_EQ(mode_of("a/b"), 0711);
        (void)umask(mask);

        (void)snprintf(path, sizeof(path), "%s/f/x", temp_path);
        CHECK_EQ(file_make_dirs(path, 0700), -ENOTDIR);
        (void)snprintf(path, sizeof(path), "%s/f", temp_path);
        CHECK_EQ(file_make_dirs(path, 0700), -ENOTDIR);
        CHECK_EQ(file_make_dirs("", 0700), -ENOENT);
        CHECK_EQ(file_make_dirs("/", 0700), 0);
        CHECK_EQ(file_make_dirs("/proc/nowhere", 0700), -ENOENT);
        memset(path, 'a', sizeof(path) - 1);
        path[sizeof(path) - 1] = '\0';
        CHECK_EQ(file_make_dirs(path, 0700), -ENAMETOOLONG);
}

int main(void)
{
        dir = temp_open();
        RUN(writes_and_reads_are_whole);
        RUN(errors_are_passed_on);
        RUN(reading_stops_at_the_maximum);
        RUN(only_regular_files_are_read);
        RUN(directories_are_made_with_their_mode);
        temp_close(dir);
        return check_result();
}
