/* SPDX-License-Identifier: Apache-2.0 */
/* The client against OpenSSH's own server: every operation, many of them, and its sudden end. */

#include "transport/sftp/sftp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tests/unit/transport/sftp_real.h"
#include "transport/base/cleanup.h"
#include "transport/base/map.h"
#include "transport/base/random.h"

static char temp[PATH_MAX];
static struct sftp *s;
static char room[8][PATH_MAX + 300];

/* The path of a name in the test's directory; the last eight stay. */
static const char *in_temp(const char *name)
{
        static unsigned next;
        char *path = room[next++ % 8];

        (void)snprintf(path, sizeof(room[0]), "%s/%s", temp, name);
        return path;
}

static void make_file(const char *name, const void *data, size_t size)
{
        _cleanup_(closep) int fd = open(in_temp(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

        CHECK(fd >= 0);
        CHECK_EQ(file_write_all(fd, data, size), 0);
}

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

struct listing {
        struct map *entries; /* path -> (mode or target) */
        struct map *listed;
        size_t count;
        size_t stop_at;
};

static int on_entry(void *ctx, const char *path, const struct stat *st, const char *target)
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

static int on_listed(void *ctx, const char *path)
{
        struct listing *l = ctx;

        CHECK(!map_get(l->listed, path));
        CHECK_EQ(map_put(l->listed, path, l), 0);
        return 0;
}

static void listing_init(struct listing *l)
{
        *l = (struct listing){.entries = map_new(), .listed = map_new()};
}

static void listing_done(struct listing *l)
{
        size_t cursor = 0;
        const char *key;
        void *value;

        while ((value = map_next(l->entries, &cursor, &key)))
                free(value);
        map_free(l->entries);
        map_free(l->listed);
}

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

/* ---- files ---- */

static size_t size_of(size_t i)
{
        return i % 50 == 0 ? 0 : i % 97 == 0 ? 150000 + i : i * 7919 % 6000;
}

static unsigned char byte_of(size_t i, size_t at)
{
        return (unsigned char)(i * 31 + at * 7 + (at >> 9));
}

struct fetched {
        size_t count, good, refused;
        bool *seen;
};

static int on_file(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                   size_t size)
{
        struct fetched *f = ctx;
        const unsigned char *bytes = data;
        bool is_same = size == size_of(index);

        CHECK(!f->seen[index]);
        f->seen[index] = true;
        f->count++;
        if (error) {
                f->refused++;
                return 0;
        }
        for (size_t i = 0; is_same && i < size; i++)
                is_same = bytes[i] == byte_of(index, i);
        f->good += is_same && (size_t)st->st_size == size && S_ISREG(st->st_mode);
        return 0;
}

static void five_thousand_files_are_fetched_whole(void)
{
        enum { COUNT = 5000 };
        static unsigned char data[200000];
        static bool seen[COUNT];
        const char **paths = calloc(COUNT, sizeof(*paths));
        struct fetched f = {.seen = seen};
        struct sftp_fetch_sink to = {.file = on_file, .ctx = &f};
        struct call c = in_seconds(60);
        char name[64];

        for (size_t i = 0; paths && i < COUNT; i++) {
                (void)snprintf(name, sizeof(name), "file%zu", i);
                for (size_t k = 0; k < size_of(i); k++)
                        data[k] = byte_of(i, k);
                make_file(name, data, size_of(i));
                paths[i] = strdup(in_temp(name));
        }
        CHECK_EQ(sftp_fetch(s, &c, paths, COUNT, 1 << 20, &to), 0);
        CHECK_EQ(f.count, COUNT);
        CHECK_EQ(f.good, COUNT);
        memset(seen, 0, sizeof(seen));
        f = (struct fetched){.seen = seen};
        CHECK_EQ(sftp_fetch(s, &c, paths, COUNT, 100000, &to), 0); /* some are too large */
        CHECK_EQ(f.count, COUNT);
        CHECK_EQ(f.good, COUNT - f.refused);
        CHECK_EQ(f.refused, 50);
        to.are_regular = true; /* opened unseen */
        memset(seen, 0, sizeof(seen));
        f = (struct fetched){.seen = seen};
        CHECK_EQ(sftp_fetch(s, &c, paths, COUNT, 100000, &to), 0);
        CHECK_EQ(f.count, COUNT);
        CHECK_EQ(f.good, COUNT - f.refused);
        CHECK_EQ(f.refused, 50);
        for (size_t i = 0; paths && i < COUNT; i++) {
                CHECK_EQ(unlink(paths[i]), 0);
                free((void *)(uintptr_t)paths[i]);
        }
        free(paths);
}

static int errors[4];

static int on_error(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                    size_t size)
{
        (void)ctx;
        (void)data;
        (void)size;
        errors[index] = error;
        CHECK(error != -EFBIG || st->st_size == 5);
        return 0;
}

static void what_is_no_small_file_is_not_opened(void)
{
        const char *paths[4];
        struct sftp_fetch_sink to = {.file = on_error, .ctx = NULL};
        struct call c = in_seconds(10);

        CHECK_EQ(mkfifo(in_temp("p"), 0600), 0); /* whose OPEN would never be answered */
        make_file("f", "12345", 5);
        CHECK_EQ(symlink("f", in_temp("l")), 0);
        paths[0] = in_temp("p");
        paths[1] = in_temp("l");
        paths[2] = in_temp("no");
        paths[3] = in_temp("f");
        CHECK_EQ(sftp_fetch(s, &c, paths, 4, 4, &to), 0);
        CHECK_EQ(errors[0], -EINVAL);
        CHECK_EQ(errors[1], -EINVAL);
        CHECK_EQ(errors[2], -ENOENT);
        CHECK_EQ(errors[3], -EFBIG);
        to.are_regular = true; /* a wrong word for all, but the FIFO would be opened */
        CHECK_EQ(unlink(paths[0]), 0);
        CHECK_EQ(mkdir(paths[0], 0700), 0);
        memset(errors, 0, sizeof(errors));
        CHECK_EQ(sftp_fetch(s, &c, paths, 4, 4, &to), 0);
        CHECK_EQ(errors[0], -EINVAL);
        CHECK_EQ(errors[1], -EINVAL);
        CHECK_EQ(errors[2], -ENOENT);
        CHECK_EQ(errors[3], -EFBIG);
        CHECK_EQ(rmdir(paths[0]), 0);
        for (int i = 1; i < 4; i++)
                (void)unlink(paths[i]);
}

static atomic_bool is_over;

static void *append_for_ever(void *arg)
{
        int fd = open(arg, O_WRONLY | O_APPEND | O_CLOEXEC);

        while (!atomic_load(&is_over))
                CHECK_EQ(write(fd, "0123456789", 10), 10);
        closep(&fd);
        return NULL;
}

static int on_growing(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                      size_t size)
{
        unsigned *counts = ctx;

        (void)index;
        (void)data;
        CHECK(error == 0 || error == -EAGAIN || error == -EFBIG);
        CHECK(error || (size_t)st->st_size == size);
        counts[error != 0]++;
        return 0;
}

static void content_belongs_to_its_attributes_or_is_refused(void)
{
        unsigned counts[2] = {0};
        struct sftp_fetch_sink to = {.file = on_growing, .ctx = counts};
        const char *path = in_temp("grows");
        struct call c = in_seconds(30);
        pthread_t thread;
        unsigned i = 0;

        make_file("grows", "", 0);
        CHECK_EQ(pthread_create(&thread, NULL, append_for_ever, (void *)(uintptr_t)path), 0);
        for (; i < 50 || (counts[1] == 0 && call_check(&c) == 0);
             i++) { /* the thread may be late */
                to.are_regular = i % 2 == 1;
                CHECK_EQ(sftp_fetch(s, &c, &path, 1, 64 << 20, &to), 0);
        }
        atomic_store(&is_over, true);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(counts[0] + counts[1], i);
        CHECK(counts[1] > 0);
        CHECK_EQ(unlink(path), 0);
}

static uint32_t word_at(uint64_t at)
{
        return (uint32_t)(at * 2654435761u ^ at >> 32);
}

static int make_words(void *ctx, void *data, size_t size, uint64_t offset)
{
        uint32_t *words = data;

        (void)ctx;
        CHECK(offset % 4 == 0 && size % 4 == 0);
        for (size_t i = 0; i < size / 4; i++)
                words[i] = word_at(offset + i * 4);
        return 0;
}

static int fail_late(void *ctx, void *data, size_t size, uint64_t offset)
{
        (void)ctx;
        memset(data, 0, size);
        return offset > 8 << 20 ? -ESTALE : 0;
}

/* With `count` connections that carry one file. */
static void large(size_t count)
{
        const uint64_t size = 300u << 20;
        const char *path = in_temp("large");
        struct sftp_source from = {make_words, NULL};
        struct sftp_source failing = {fail_late, NULL};
        struct sftp_file files[3] = {0};
        struct call c = in_seconds(100);
        uint32_t *words = malloc(size + 4096);
        uint64_t at_ns;
        struct stat st = {0};
        bool is_same = true;

        if (!CHECK(words))
                return;
        make_file("large", "", 0);
        for (size_t i = 0; i < count; i++) {
                files[i].s = i == 0 ? sftp_ref(s) : connect_real();
                CHECK_EQ(sftp_open(files[i].s, &c, path, SFTP_FOR_READ | SFTP_FOR_WRITE, 0,
                                   &files[i].handle),
                         0);
        }
        at_ns = clock_mono_ns();
        CHECK_EQ(sftp_write(files, count, &c, &from, size, 0), 0);
        (void)printf("write, %zu connections: %.0f MiB/s\n", count,
                     300e9 / (double)(clock_mono_ns() - at_ns));
        at_ns = clock_mono_ns();
        CHECK_EQ(sftp_read(files, count, &c, words, size + 4096, 0, &st), (ssize_t)size);
        (void)printf("read, %zu connections: %.0f MiB/s\n", count,
                     300e9 / (double)(clock_mono_ns() - at_ns));
        CHECK_EQ(st.st_size, size);
        for (uint64_t i = 0; is_same && i < size; i += 4)
                is_same = words[i / 4] == word_at(i);
        CHECK(is_same);
        CHECK_EQ(sftp_read(files, count, &c, words, 1000, 1 << 20, &st), 1000);
        CHECK_EQ(words[0], word_at(1 << 20));
        CHECK_EQ(sftp_read(files, count, &c, words, 1000, size - 8, NULL), 8);
        CHECK_EQ(sftp_read(files, count, &c, words, 1000, size, &st), 0);
        CHECK_EQ(sftp_read(files, count, &c, words, 1000, size * 9, NULL), 0);
        CHECK_EQ(sftp_read(files, count, &c, words, 0, 0, &st), 0);
        CHECK_EQ(sftp_write(files, count, &c, &from, 0, 0), 0);
        CHECK_EQ(sftp_write(files, count, &c, &failing, size, 0), -ESTALE);
        for (size_t i = 0; i < count; i++) {
                sftp_close_later(files[i].s, &files[i].handle);
                sftp_unref(files[i].s);
        }
        CHECK_EQ(unlink(path), 0);
        free(words);
}

static void three_hundred_mib_go_and_come_back(void)
{
        large(1);
}

static void they_go_over_three_connections_too(void)
{
        large(3);
}

/* ---- many at a time ---- */

static void dependent_changes_go_in_one_row(void)
{
        struct call c = in_seconds(10);
        struct sftp_set mode = {.what = SFTP_SET_MODE, .mode = 0700};
        struct sftp_op ops[] = {
                {.type = SFTP_MKDIR, .path = in_temp("row"), .set = mode},
                {.type = SFTP_MKDIR, .path = in_temp("row/a"), .set = mode},
                {.type = SFTP_SYMLINK, .path = in_temp("row/a/l"), .to = "text"},
                {.type = SFTP_POSIX_RENAME, .path = in_temp("row/a"), .to = in_temp("row/b")},
                {.type = SFTP_LSTAT, .path = in_temp("row/b/l")},
        };

        CHECK_EQ(sftp_run(s, &c, ops, 5), 0);
        for (int i = 0; i < 5; i++)
                CHECK_EQ(ops[i].error, 0);
        CHECK(S_ISLNK(ops[4].st.st_mode));
        CHECK_EQ(file_remove_tree(AT_FDCWD, in_temp("row")), 0);
}

static void *stat_many(void *arg)
{
        enum { COUNT = 3000 };
        struct sftp_stat_item *items = calloc(COUNT, sizeof(*items));
        struct call c = in_seconds(60);

        (void)arg;
        for (int i = 0; items && i < COUNT; i++)
                items[i].path = i % 2 ? temp : "/nowhere";
        CHECK_EQ(sftp_stat(s, &c, items, COUNT), 0);
        for (int i = 0; items && i < COUNT; i++)
                CHECK_EQ(items[i].error, i % 2 ? 0 : -ENOENT);
        free(items);
        return NULL;
}

static void threads_share_a_connection(void)
{
        pthread_t threads[8];

        for (int i = 0; i < 8; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, stat_many, NULL), 0);
        for (int i = 0; i < 8; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* What was given up goes on, and its answers disturb nobody; handles that come are closed. */
static void operations_are_given_up_at_any_time(void)
{
        static char buffer[65536];
        struct call c = in_seconds(30);

        make_file("f", buffer, sizeof(buffer));
        for (int i = 0; i < 2000; i++) {
                struct sftp_op ops[] = {
                        {.type = SFTP_LSTAT, .path = temp},
                        {.type = SFTP_OPEN, .path = in_temp("f"), .flags = SFTP_FOR_READ},
                        {.type = SFTP_OPENDIR, .path = temp},
                        {.type = SFTP_LSTAT, .path = temp, .is_bulk = true},
                };
                struct sftp_queue q;
                struct sftp_op *op;

                sftp_queue_init(&q);
                sftp_submit(s, &q, ops, 4);
                if (i % 3 == 0)
                        CHECK_EQ(sftp_next(&q, &c, &op), 0);
                if (i % 3 == 0 && op->handle.size > 0)
                        sftp_close_later(s, &op->handle);
                sftp_queue_done(&q);
                memset(ops, 0xee, sizeof(ops));
        }
        CHECK_EQ(sftp_error(s, NULL, 0), 0);
        CHECK_EQ(unlink(in_temp("f")), 0);
}

/* ---- ends ---- */

static void *kill_soon(void *arg)
{
        (void)usleep(20000);
        CHECK_EQ(kill(*(pid_t *)arg, SIGKILL), 0);
        return NULL;
}

/* A server that says its pid first, on standard error; stopped at once if asked. */
static struct sftp *connect_pid(pid_t *ret)
{
        char script[PATH_MAX + 100];
        const char *argv[] = {"/bin/sh", "-c", script, NULL};
        struct sftp *server;
        _cleanup_(closep) int fd = -1;
        char text[32] = "";

        (void)snprintf(script, sizeof(script), "echo $$ >%s/pid; exec " SERVER, temp);
        server = connect_to(argv, true);
        fd = open(in_temp("pid"), O_RDONLY | O_CLOEXEC);
        CHECK(read(fd, text, sizeof(text) - 1) > 0);
        *ret = (pid_t)strtol(text, NULL, 10);
        return server;
}

static void a_killed_server_ends_all_that_is_in_flight(void)
{
        enum { COUNT = 500 };
        struct call c = in_seconds(30);
        struct sftp_op *ops = calloc(COUNT, sizeof(*ops));
        char sentence[256] = "";
        uint64_t since_ns;
        pthread_t thread;
        pid_t pid = 0;
        struct sftp *server = connect_pid(&pid);

        if (!server || !ops)
                return;
        CHECK_EQ(kill(pid, SIGSTOP), 0); /* so that all are in flight */
        for (int i = 0; i < COUNT; i++)
                ops[i] = (struct sftp_op){.type = SFTP_LSTAT, .path = temp};
        CHECK_EQ(pthread_create(&thread, NULL, kill_soon, &pid), 0);
        since_ns = clock_mono_ns();
        CHECK_EQ(sftp_run(server, &c, ops, COUNT), -EHOSTUNREACH);
        CHECK(clock_mono_ns() - since_ns < NS_PER_S);
        CHECK(strstr(c.sentence, "signal 9"));
        CHECK_EQ(pthread_join(thread, NULL), 0);
        for (int i = 0; i < COUNT; i++)
                CHECK(ops[i].error == -EINPROGRESS && ops[i].was_sent);
        CHECK_EQ(sftp_error(server, sentence, sizeof(sentence)), -EHOSTUNREACH);
        CHECK_STR(sentence, c.sentence);
        CHECK_EQ(sftp_run(server, &c, ops, 2), -EHOSTUNREACH);
        CHECK(ops[0].error == -ECANCELED && !ops[0].was_sent);
        sftp_unref(server);
        free(ops);
}

static void a_frozen_server_costs_no_more_than_the_deadline(void)
{
        struct call c, cancelled = in_seconds(30);
        struct sftp_op op = {.type = SFTP_LSTAT, .path = temp};
        struct sftp_stat_item items[3] = {{.path = temp}, {.path = temp}, {.path = temp}};
        struct listing l;
        struct sftp_list_sink to = {on_entry, on_listed, &l};
        struct sftp_listing what = {.root = temp, .depth = 2};
        const char *paths[] = {temp};
        struct sftp_fetch_sink files = {.file = on_error, .ctx = NULL};
        uint64_t since_ns;
        pid_t pid = 0;
        struct sftp *server = connect_pid(&pid);

        if (!server)
                return;
        listing_init(&l);
        CHECK_EQ(kill(pid, SIGSTOP), 0);
        since_ns = clock_mono_ns();
        call_init(&c, clock_after(200 * NS_PER_MS));
        CHECK_EQ(sftp_run(server, &c, &op, 1), -ETIMEDOUT);
        CHECK_EQ(op.error, -EINPROGRESS);
        c.deadline_ns = clock_after(200 * NS_PER_MS);
        CHECK_EQ(sftp_stat(server, &c, items, 3), -ETIMEDOUT);
        c.deadline_ns = clock_after(200 * NS_PER_MS);
        CHECK_EQ(sftp_list(server, &c, &what, &to), -ETIMEDOUT);
        c.deadline_ns = clock_after(200 * NS_PER_MS);
        CHECK_EQ(sftp_fetch(server, &c, paths, 1, 100, &files), -ETIMEDOUT);
        call_cancel(&cancelled);
        CHECK_EQ(sftp_run(server, &cancelled, &op, 1), -EINTR);
        CHECK(clock_mono_ns() - since_ns < 25 * NS_PER_S); /* 0.8 s, but for the load; 30 s else */
        CHECK_EQ(kill(pid, SIGCONT), 0); /* what comes now goes nowhere */
        c.deadline_ns = clock_after(10 * NS_PER_S);
        CHECK_EQ(sftp_run(server, &c, &op, 1), 0);
        CHECK_EQ(op.error, 0);
        listing_done(&l);
        sftp_unref(server);
}

static void a_server_that_is_none_says_what_it_said(void)
{
        static const char *const scripts[] = {
                "echo Welcome to the host; exec sleep 100",
                "echo no such thing >&2; exit 3",
                "head -c 9 >/dev/null; printf '\\0\\0\\0\\5\\2\\0\\0\\0\\4'; exec sleep 100",
        };
        static const char *const words[] = {"Welcome to the host", "no such thing", "version 4"};
        static const int codes[] = {-EPROTO, -EHOSTUNREACH, -EPROTO};

        for (int i = 0; i < 3; i++) {
                const char *argv[] = {"/bin/sh", "-c", scripts[i], NULL};
                struct call c = in_seconds(10);
                struct stream *stream = NULL;
                struct sftp *none = NULL;

                CHECK_EQ(sftp_new(&none), 0);
                CHECK_EQ(child_open(argv[0], argv, NULL, sftp_events(none), &c, &stream), 0);
                CHECK_EQ(sftp_start(none, &c, stream, true), codes[i]);
                if (!CHECK(strstr(c.sentence, words[i])))
                        (void)fprintf(stderr, "%s\n", c.sentence);
                sftp_unref(none);
        }
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
        RUN(five_thousand_files_are_fetched_whole);
        RUN(what_is_no_small_file_is_not_opened);
        RUN(content_belongs_to_its_attributes_or_is_refused);
        RUN(three_hundred_mib_go_and_come_back);
        RUN(they_go_over_three_connections_too);
        RUN(dependent_changes_go_in_one_row);
        RUN(threads_share_a_connection);
        RUN(operations_are_given_up_at_any_time);
        RUN(a_killed_server_ends_all_that_is_in_flight);
        RUN(a_frozen_server_costs_no_more_than_the_deadline);
        RUN(a_server_that_is_none_says_what_it_said);
        sftp_unref(s);
        remove_temp(temp);
        return check_result();
}
