/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/stat.h>

#include "tests/unit/base/alloc.h"
#include "tests/unit/base/temp.h"
#include "transport/base/buf.h"
#include "transport/base/record.h"

static int dir;

static struct record *example(void)
{
        struct record *r = record_new();
        char all[256];

        for (int i = 0; i < 255; i++)
                all[i] = (char)(i + 1);
        all[255] = '\0';
        if (!CHECK(r))
                abort();
        CHECK_EQ(record_add(r, "name", "web"), 0);
        CHECK_EQ(record_add(r, "all", all), 0);
        CHECK_EQ(record_add(r, "empty", ""), 0);
        CHECK_EQ(record_add(r, "blank", " a  b "), 0);
        CHECK_EQ(record_add(r, "mount.1", "/x:/y"), 0);
        CHECK_EQ(record_add(r, "name", "second\nend 0"), 0);
        CHECK_EQ(record_addf(r, "n", "%d\\%s", 7, "\n"), 0);
        return r;
}

static bool is_equal(const struct record *a, const struct record *b)
{
        if (record_count(a) != record_count(b))
                return false;
        for (size_t i = 0; i < record_count(a); i++) {
                const char *a_key, *a_value, *b_key, *b_value;

                record_at(a, i, &a_key, &a_value);
                record_at(b, i, &b_key, &b_value);
                if (strcmp(a_key, b_key) != 0 || strcmp(a_value, b_value) != 0)
                        return false;
        }
        return true;
}

/* Entries of the directory that begin so. */
static int count_files(const char *prefix)
{
        DIR *d = fdopendir(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const struct dirent *entry;
        int n = 0;

        if (!CHECK(d))
                return -1;
        while ((entry = readdir(d))) /* NOLINT(concurrency-mt-unsafe): a DIR of our own */
                n += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
        (void)closedir(d);
        return n;
}

static void put_file(const char *name, const char *text, size_t size)
{
        int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        CHECK_EQ(file_write_all(fd, text, size), 0);
        (void)close(fd);
}

static void what_is_written_is_read(void)
{
        struct record *r = example(), *back = NULL;
        struct stat st;

        CHECK_EQ(record_write(r, dir, "a", RECORD_SYNC), 0);
        CHECK_EQ(record_read(dir, "a", &back), 0);
        CHECK(is_equal(r, back));
        CHECK_STR(record_get(back, "name"), "web"); /* the first */
        CHECK_STR(record_get(back, "empty"), "");
        CHECK_STR(record_get(back, "n"), "7\\\n");
        CHECK_STR(record_get(back, "absent"), NULL);
        CHECK_EQ(fstatat(dir, "a", &st, 0), 0);
        CHECK_EQ(st.st_mode, S_IFREG | 0600);
        record_free(back);

        CHECK_EQ(record_add(r, "more", "x"), 0);
        CHECK_EQ(record_write(r, dir, "a", RECORD_NO_SYNC), 0);
        CHECK_EQ(record_read(dir, "a", &back), 0);
        CHECK(is_equal(r, back));
        record_freep(&back);
        record_free(r);
        record_free(NULL);
        CHECK_EQ(count_files(".tmp-"), 0);
}

static void an_empty_record_is_one(void)
{
        struct record *r = record_new(), *back = NULL;

        CHECK_EQ(record_write(r, dir, "a", RECORD_NO_SYNC), 0);
        CHECK_EQ(record_read(dir, "a", &back), 0);
        CHECK(back && record_count(back) == 0);
        record_free(back);
        record_free(r);
}

static void bad_keys_and_names_are_refused(void)
{
        static const char *const bad[] = {"", "a b", "a\n", "a/b", "\xc3\xa4", "a="};
        struct record *r = record_new();

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                CHECK_EQ(record_add(r, bad[i], "x"), -EINVAL);
                CHECK_EQ(record_addf(r, bad[i], "%s", "x"), -EINVAL);
        }
        CHECK_EQ(record_count(r), 0);
        CHECK_EQ(record_write(r, dir, "a/b", RECORD_SYNC), -EINVAL);
        CHECK_EQ(record_write(r, dir, "", RECORD_SYNC), -EINVAL);
        record_free(r);
}

static void every_cut_and_every_damage_is_noticed(void)
{
        struct record *r = example(), *back = NULL;
        struct buf text = BUF_INIT(100000);

        CHECK_EQ(record_format(r, &text), 0);
        CHECK_EQ(record_parse(text.data, text.size, &back), 0);
        CHECK(back && is_equal(r, back));
        record_freep(&back);
        back = NULL;
        for (size_t size = 0; size < text.size; size++) {
                CHECK_EQ(record_parse(text.data, size, &back), -EBADMSG);
                if (size % 50 == 0) {
                        put_file("cut", text.data, size);
                        CHECK_EQ(record_read(dir, "cut", &back), -EBADMSG);
                }
        }
        for (size_t at = 0; at < text.size; at++)
                for (int bit = 0; bit < 8; bit++) {
                        text.data[at] = (char)(text.data[at] ^ 1 << bit);
                        CHECK_EQ(record_parse(text.data, text.size, &back), -EBADMSG);
                        text.data[at] = (char)(text.data[at] ^ 1 << bit);
                }
        CHECK_EQ(buf_add_char(&text, '\n'), 0);
        CHECK_EQ(record_parse(text.data, text.size, &back), -EBADMSG);
        memset(text.data, 0, text.size); /* what a power cut leaves of a file without fsync */
        CHECK_EQ(record_parse(text.data, text.size, &back), -EBADMSG);
        CHECK(!back);
        buf_done(&text);
        record_free(r);
}

static void what_is_no_record_is_refused_and_kept(void)
{
        struct record *back = NULL;
        char *large = calloc(1, 1024 * 1024 + 1);

        CHECK_EQ(record_read(dir, "absent", &back), -ENOENT);
        CHECK_EQ(mkdirat(dir, "d", 0700), 0);
        CHECK_EQ(record_read(dir, "d", &back), -EBADMSG);
        CHECK_EQ(mkfifoat(dir, "fifo", 0600), 0);
        CHECK_EQ(record_read(dir, "fifo", &back), -EBADMSG); /* and does not block */
        CHECK_EQ(symlinkat("a", dir, "link"), 0);
        CHECK_EQ(record_read(dir, "link", &back), -EBADMSG);
        put_file("large", large, 1024 * 1024 + 1);
        CHECK_EQ(record_read(dir, "large", &back), -EBADMSG);
        CHECK(!back);
        CHECK_EQ(faccessat(dir, "large", F_OK, 0), 0);
        free(large);
}

static void a_failed_write_leaves_the_old_record(void)
{
        static char half[600 * 1024];
        struct record *r = example(), *old = NULL;
        int before;

        CHECK_EQ(record_write(r, dir, "kept", RECORD_SYNC), 0);
        before = count_files("");
        memset(half, 'x', sizeof(half) - 1);
        CHECK_EQ(record_add(r, "x", half), 0);
        CHECK_EQ(record_add(r, "y", half), 0);
        CHECK_EQ(record_write(r, dir, "kept", RECORD_SYNC), -E2BIG);
        CHECK_EQ(record_read(dir, "kept", &old), 0);
        CHECK_EQ(record_count(old), record_count(r) - 2);
        CHECK_EQ(count_files(""), before);
        record_free(r);

        r = example();
        CHECK_EQ(record_write(r, dir, "d", RECORD_SYNC), -EISDIR); /* cannot be renamed over */
        CHECK_EQ(count_files(".tmp-"), 0);
        CHECK_EQ(record_write(r, -1, "x", RECORD_SYNC), -EBADF);
        record_free(r);
        record_free(old);
}

static void a_directory_known_by_path_only_is_synced(void)
{
        int by_path = openat(dir, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct record *r = example(), *back = NULL;

        CHECK_EQ(record_write(r, by_path, "by-path", RECORD_SYNC), 0);
        CHECK_EQ(record_read(by_path, "by-path", &back), 0);
        record_free(back);
        record_free(r);
        (void)close(by_path);
}

static void *write_often(void *arg)
{
        const char *value = arg;

        for (int i = 0; i < 300; i++) {
                struct record *r = record_new();

                for (int j = 0; j < 50; j++)
                        CHECK_EQ(record_add(r, "k", value), 0);
                CHECK_EQ(record_write(r, dir, "shared", RECORD_NO_SYNC), 0);
                record_free(r);
        }
        return NULL;
}

static void readers_see_whole_records_while_others_write(void)
{
        static char a[] = "aaaaaaaaaaaaaaaa", b[] = "b";
        pthread_t threads[2];
        int read = 0;

        (void)write_often(a);
        CHECK_EQ(pthread_create(&threads[0], NULL, write_often, a), 0);
        CHECK_EQ(pthread_create(&threads[1], NULL, write_often, b), 0);
        for (int i = 0; i < 300; i++) {
                struct record *r = NULL;
                const char *key, *value;

                if (!CHECK_EQ(record_read(dir, "shared", &r), 0))
                        continue;
                CHECK_EQ(record_count(r), 50);
                record_at(r, 49, &key, &value);
                CHECK_STR(value, record_get(r, "k"));
                read++;
                record_free(r);
        }
        CHECK_EQ(pthread_join(threads[0], NULL), 0);
        CHECK_EQ(pthread_join(threads[1], NULL), 0);
        CHECK_EQ(read, 300);
        CHECK_EQ(count_files(".tmp-"), 0);
}

static int write_and_read(void)
{
        struct record *r = record_new(), *back = NULL;
        int x = r ? 0 : -ENOMEM;

        for (int i = 0; i < 20 && x == 0; i++) {
                x = i % 2 ? record_add(r, "key", "value") : record_addf(r, "key", "%d", i);
                if (x < 0)
                        CHECK_EQ(record_count(r), i);
        }
        if (x == 0)
                x = record_write(r, dir, "memory", RECORD_NO_SYNC);
        if (x == 0)
                x = record_read(dir, "memory", &back);
        CHECK((x == 0) == (back != NULL));
        record_free(back);
        record_free(r);
        return x;
}

static void lack_of_memory_is_said(void)
{
        CHECK(alloc_fail_each(write_and_read) > 50);
        CHECK_EQ(count_files(".tmp-"), 0);
}

int main(void)
{
        dir = temp_open();
        RUN(what_is_written_is_read);
        RUN(an_empty_record_is_one);
        RUN(bad_keys_and_names_are_refused);
        RUN(every_cut_and_every_damage_is_noticed);
        RUN(what_is_no_record_is_refused_and_kept);
        RUN(a_failed_write_leaves_the_old_record);
        RUN(a_directory_known_by_path_only_is_synced);
        RUN(readers_see_whole_records_while_others_write);
        RUN(lack_of_memory_is_said);
        temp_close(dir);
        return check_result();
}
