/* SPDX-License-Identifier: Apache-2.0 */
/* The client against OpenSSH's own server: every operation, and listings. */

#include "transport/sftp/sftp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "tests/unit/transport/sftp_real.h"

/* ---- one by one ---- */

static void it_tells_what_it_can(void)
{
        CHECK_EQ(sftp_features(s), SFTP_CAN_POSIX_RENAME | SFTP_CAN_HARDLINK | SFTP_CAN_FSYNC |
                                           SFTP_CAN_STATVFS | SFTP_CAN_LSETSTAT |
                                           SFTP_CAN_COPY_DATA | SFTP_CAN_LIMITS);
        CHECK(sftp_is_ordered(s));
        CHECK_EQ(sftp_piece_max(s), 65536);
        CHECK_EQ(sftp_error(s, NULL, 0), 0);
}

static void directories_are_made_and_removed(void)
{
        struct call c = in_seconds(10);
        struct stat st;

        CHECK_EQ(sftp_mkdir(s, &c, in_temp("d"), 0751), 0);
        CHECK(lstat(in_temp("d"), &st) == 0 && (st.st_mode & 07777) == 0751);
        CHECK_EQ(sftp_mkdir(s, &c, in_temp("d"), 0751), -EEXIST);
        CHECK_EQ(sftp_mkdir(s, &c, in_temp("no/d"), 0751), -ENOENT);
        make_file("d/f", "", 0);
        CHECK_EQ(sftp_rmdir(s, &c, in_temp("d")), -ENOTEMPTY);
        CHECK_EQ(sftp_rmdir(s, &c, in_temp("d/f")), -ENOENT); /* its ENOTDIR is no FAILURE */
        CHECK_EQ(sftp_unlink(s, &c, in_temp("d")), -EISDIR);
        CHECK_EQ(sftp_unlink(s, &c, in_temp("d/f")), 0);
        CHECK_EQ(sftp_unlink(s, &c, in_temp("d/f")), -ENOENT);
        CHECK_EQ(sftp_rmdir(s, &c, in_temp("d")), 0);
        CHECK_EQ(sftp_rmdir(s, &c, in_temp("d")), -ENOENT);
}

static void renames_replace_or_refuse(void)
{
        struct call c = in_seconds(10);
        struct stat st;

        make_file("a", "a", 1);
        make_file("b", "bb", 2);
        CHECK_EQ(sftp_rename(s, &c, in_temp("a"), in_temp("b"), false), -EEXIST);
        CHECK_EQ(sftp_rename(s, &c, in_temp("a"), in_temp("b"), true), 0);
        CHECK(lstat(in_temp("b"), &st) == 0 && st.st_size == 1);
        CHECK_EQ(sftp_rename(s, &c, in_temp("a"), in_temp("b"), true), -ENOENT);
        CHECK_EQ(sftp_rename(s, &c, in_temp("b"), in_temp("c"), false), 0);
        CHECK_EQ(sftp_mkdir(s, &c, in_temp("d"), 0755), 0);
        CHECK_EQ(sftp_rename(s, &c, in_temp("c"), in_temp("d"), true), -EISDIR);
        CHECK_EQ(sftp_rename(s, &c, in_temp("d"), in_temp("c"), true), -ENOENT); /* ENOTDIR */
        CHECK_EQ(sftp_mkdir(s, &c, in_temp("e"), 0755), 0);
        make_file("e/f", "", 0);
        CHECK_EQ(sftp_rename(s, &c, in_temp("d"), in_temp("e"), true), -ENOTEMPTY);
        CHECK_EQ(sftp_rename(s, &c, in_temp("e"), in_temp("d"), true), 0);
        CHECK_EQ(file_remove_tree(AT_FDCWD, in_temp("d")), 0);
        CHECK_EQ(unlink(in_temp("c")), 0);
}

static void links_are_made_and_read(void)
{
        struct call c = in_seconds(10);
        char text[PATH_MAX];
        ssize_t n;

        CHECK_EQ(sftp_symlink(s, &c, in_temp("l"), "../some where\n"), 0);
        n = readlink(in_temp("l"), text, sizeof(text) - 1);
        text[n < 0 ? 0 : n] = '\0';
        CHECK_STR(text, "../some where\n");
        CHECK_EQ(sftp_readlink(s, &c, in_temp("l"), text, sizeof(text)), 0);
        CHECK_STR(text, "../some where\n");
        CHECK_EQ(sftp_readlink(s, &c, in_temp("l"), text, 14), -ENAMETOOLONG);
        CHECK_EQ(sftp_symlink(s, &c, in_temp("l"), "x"), -EEXIST);
        CHECK_EQ(sftp_readlink(s, &c, temp, text, sizeof(text)), -EINVAL);
        CHECK_EQ(unlink(in_temp("l")), 0);

        make_file("f", "12345", 5);
        CHECK_EQ(sftp_hardlink(s, &c, in_temp("f"), in_temp("g")), 0);
        CHECK_EQ(sftp_hardlink(s, &c, in_temp("f"), in_temp("g")), -EEXIST);
        CHECK_EQ(sftp_hardlink(s, &c, in_temp("no"), in_temp("h")), -ENOENT);
        CHECK_EQ(unlink(in_temp("f")), 0);
        CHECK_EQ(unlink(in_temp("g")), 0);
        CHECK_EQ(sftp_realpath(s, &c, "/tmp/../tmp/.", text, sizeof(text)), 0);
        CHECK_STR(text, "/tmp");
}

static void attributes_are_set(void)
{
        struct call c = in_seconds(10);
        struct sftp_set set = {
                .what = SFTP_SET_SIZE | SFTP_SET_MODE | SFTP_SET_TIMES,
                .mode = 0604,
                .size = 2,
                .atime.tv_sec = 1000000000,
                .mtime.tv_sec = 4000000000,
        };
        struct sftp_op on_link = {.type = SFTP_LSETSTAT, .set = set};
        struct stat st;

        make_file("f", "12345", 5);
        CHECK_EQ(symlink("f", in_temp("l")), 0);
        CHECK_EQ(sftp_setstat(s, &c, in_temp("f"), &set), 0);
        CHECK_EQ(lstat(in_temp("f"), &st), 0);
        CHECK_EQ(st.st_size, 2);
        CHECK_EQ(st.st_mode & 07777, 0604);
        CHECK_EQ(st.st_atim.tv_sec, 1000000000);
        CHECK_EQ(st.st_mtim.tv_sec, 4000000000);
        CHECK_EQ(sftp_setstat(s, &c, in_temp("no"), &set), -ENOENT);

        on_link.path = in_temp("l");
        CHECK_EQ(sftp_run(s, &c, &on_link, 1), 0);
        CHECK_EQ(on_link.error, -EINVAL); /* a link has no size to set */
        on_link.set.what = SFTP_SET_TIMES;
        on_link.set.mtime.tv_sec = 5;
        CHECK_EQ(sftp_run(s, &c, &on_link, 1), 0);
        CHECK_EQ(on_link.error, 0);
        CHECK(lstat(in_temp("l"), &st) == 0 && st.st_mtim.tv_sec == 5);
        CHECK(lstat(in_temp("f"), &st) == 0 && st.st_mtim.tv_sec == 4000000000);
        CHECK_EQ(unlink(in_temp("f")), 0);
        CHECK_EQ(unlink(in_temp("l")), 0);
}

static void handles_read_write_copy_and_sync(void)
{
        struct call c = in_seconds(10);
        struct sftp_handle from = {0}, to = {0};
        struct sftp_op copy = {.type = SFTP_COPY_DATA, .offset = 1, .length = 3, .other = &to};
        struct statvfs vfs = {0};
        char data[8] = "";
        struct sftp_file file = {.s = s};
        int fd;

        make_file("f", "12345", 5);
        CHECK_EQ(sftp_open(s, &c, in_temp("f"), SFTP_FOR_WRITE | SFTP_CREATE | SFTP_EXCLUSIVE, 0600,
                           &to),
                 -EEXIST);
        CHECK_EQ(sftp_open(s, &c, in_temp("no/f"), SFTP_FOR_READ, 0, &from), -ENOENT);
        CHECK_EQ(sftp_open(s, &c, temp, SFTP_FOR_WRITE, 0, &from), -EISDIR);
        CHECK_EQ(sftp_open(s, &c, in_temp("f"), SFTP_FOR_READ, 0, &from), 0);
        CHECK_EQ(sftp_open(s, &c, in_temp("g"), SFTP_FOR_READ | SFTP_FOR_WRITE | SFTP_CREATE, 0640,
                           &to),
                 0);
        copy.handle = from;
        CHECK_EQ(sftp_run(s, &c, &copy, 1), 0);
        CHECK_EQ(copy.error, 0);
        CHECK_EQ(sftp_fsync(s, &c, &to), 0);
        file.handle = to;
        CHECK_EQ(sftp_read(&file, 1, &c, data, sizeof(data), 0, NULL), 3);
        CHECK_STR(data, "234");
        sftp_close_later(s, &from);
        sftp_close_later(s, &to);
        CHECK_EQ(sftp_statvfs(s, &c, temp, &vfs), 0);
        CHECK(vfs.f_blocks > 0 && vfs.f_namemax >= 255);
        CHECK_EQ(sftp_read(&file, 1, &c, data, sizeof(data), 0, NULL), -EIO); /* it is closed */
        fd = open(in_temp("g"), O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0);
        closep(&fd);
        CHECK_EQ(unlink(in_temp("f")), 0);
        CHECK_EQ(unlink(in_temp("g")), 0);
}

/* ---- listings ---- */

static int list(struct listing *l, struct sftp_listing what)
{
        struct sftp_list_sink to = {on_entry, on_listed, l};
        struct call c = in_seconds(30);

        return sftp_list(s, &c, &what, &to);
}

static void make_tree(void)
{
        CHECK_EQ(mkdir(in_temp("t"), 0755), 0);
        CHECK_EQ(mkdir(in_temp("t/a"), 0755), 0);
        CHECK_EQ(mkdir(in_temp("t/a/deep"), 0755), 0);
        CHECK_EQ(mkdir(in_temp("t/skip"), 0755), 0);
        CHECK_EQ(mkdir(in_temp("t/empty"), 0755), 0);
        make_file("t/a/deep/f", "", 0);
        make_file("t/skip/f", "", 0);
        make_file("t/\xff\xfe\n \"'$x", "", 0);
        CHECK_EQ(symlink("a/deep", in_temp("t/l")), 0);
        CHECK_EQ(mkfifo(in_temp("t/p"), 0600), 0);
}

static void a_tree_is_listed_as_deep_as_asked(void)
{
        static const char *const skip[] = {"skip", NULL};
        struct listing l;

        make_tree();
        listing_init(&l);
        CHECK_EQ(list(&l, (struct sftp_listing){.root = in_temp("t"),
                                                .depth = 9,
                                                .skip = skip,
                                                .wants_targets = true}),
                 0);
        CHECK_EQ(l.count, 8);
        CHECK_STR(map_get(l.entries, "a/deep/f"), "-");
        CHECK_STR(map_get(l.entries, "\xff\xfe\n \"'$x"), "-");
        CHECK_STR(map_get(l.entries, "l"), "a/deep");
        CHECK_STR(map_get(l.entries, "skip"), "/");
        CHECK_EQ(map_count(l.listed), 4);
        CHECK(map_get(l.listed, "") && map_get(l.listed, "a") && map_get(l.listed, "a/deep") &&
              map_get(l.listed, "empty"));
        listing_done(&l);

        listing_init(&l);
        CHECK_EQ(list(&l, (struct sftp_listing){.root = in_temp("t"), .depth = 2}), 0);
        CHECK_EQ(l.count, 8); /* with what is in "skip", without what is in "a/deep" */
        CHECK_STR(map_get(l.entries, "l"), "-");
        CHECK(!map_get(l.listed, "a/deep"));
        listing_done(&l);
}

static void a_root_that_cant_be_listed_says_why(void)
{
        struct listing l;

        listing_init(&l);
        CHECK_EQ(list(&l, (struct sftp_listing){.root = in_temp("no"), .depth = 1}), -ENOENT);
        CHECK_EQ(list(&l, (struct sftp_listing){.root = in_temp("t/p"), .depth = 1}), -ENOENT);
        l.stop_at = 3;
        CHECK_EQ(list(&l, (struct sftp_listing){.root = in_temp("t"), .depth = 9}), -ECANCELED);
        CHECK_EQ(l.count, 3);
        listing_done(&l);
        CHECK_EQ(file_remove_tree(AT_FDCWD, in_temp("t")), 0);
}

static void a_directory_of_20000_entries_is_listed_or_cut(void)
{
        struct listing l;
        char name[64];

        CHECK_EQ(mkdir(in_temp("many"), 0755), 0);
        for (int i = 0; i < 20000; i++) {
                (void)snprintf(name, sizeof(name), "many/%d", i);
                if (i % 20 == 0)
                        CHECK_EQ(symlink(name, in_temp(name)), 0);
                else
                        make_file(name, "", 0);
        }
        listing_init(&l);
        CHECK_EQ(list(&l, (struct sftp_listing){.root = in_temp("many"),
                                                .depth = 1,
                                                .wants_targets = true}),
                 0);
        CHECK_EQ(l.count, 20000);
        CHECK_EQ(map_count(l.entries), 20000);
        CHECK_STR(map_get(l.entries, "19980"), "many/19980");
        CHECK(map_get(l.listed, ""));
        listing_done(&l);

        listing_init(&l);
        CHECK_EQ(list(&l, (struct sftp_listing){.root = in_temp("many"),
                                                .depth = 1,
                                                .entries_max = 1000}),
                 0);
        CHECK(l.count >= 1000 && l.count < 1200);
        CHECK(!map_get(l.listed, ""));
        listing_done(&l);
        CHECK_EQ(file_remove_tree(AT_FDCWD, in_temp("many")), 0);
}

int main(void)
{
        make_temp(temp);
        s = connect_real();
        if (!s)
                return 1;
        RUN(it_tells_what_it_can);
        RUN(directories_are_made_and_removed);
        RUN(renames_replace_or_refuse);
        RUN(links_are_made_and_read);
        RUN(attributes_are_set);
        RUN(handles_read_write_copy_and_sync);
        RUN(a_tree_is_listed_as_deep_as_asked);
        RUN(a_root_that_cant_be_listed_says_why);
        RUN(a_directory_of_20000_entries_is_listed_or_cut);
        sftp_unref(s);
        remove_temp(temp);
        return check_result();
}
