/* SPDX-License-Identifier: Apache-2.0 */
/* The client against OpenSSH's own server: content, of many files and of large ones. */

#include "transport/sftp/sftp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tests/unit/transport/sftp_real.h"

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
        struct call c = in_seconds(110);
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

        for (unsigned i = 0; !atomic_load(&is_over); i++) {
                CHECK_EQ(write(fd, "0123456789", 10), 10);
                if (i % 50000 == 0) /* a slow reader gets to its end, too */
                        CHECK_EQ(ftruncate(fd, 0), 0);
        }
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
        struct call c, all = in_seconds(30);
        pthread_t thread;
        unsigned i = 0;

        make_file("grows", "", 0);
        CHECK_EQ(pthread_create(&thread, NULL, append_for_ever, (void *)(uintptr_t)path), 0);
        for (; i < 50 || (counts[1] == 0 && call_check(&all) == 0);
             i++) { /* the thread may be late */
                c = in_seconds(30);
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

int main(void)
{
        make_temp(temp);
        s = connect_real();
        if (!s)
                return 1;
        RUN(five_thousand_files_are_fetched_whole);
        RUN(what_is_no_small_file_is_not_opened);
        RUN(content_belongs_to_its_attributes_or_is_refused);
        RUN(three_hundred_mib_go_and_come_back);
        RUN(they_go_over_three_connections_too);
        sftp_unref(s);
        remove_temp(temp);
        return check_result();
}
