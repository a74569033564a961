/* SPDX-License-Identifier: Apache-2.0 */
/* Open files of the cached volume: what comes from here, what is asked for, what is sent. */

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/volume/content_support.h"

#define MIB ((uint64_t)1024 * 1024)

static unsigned calls(struct world *w, enum fake_call call)
{
        return atomic_load(&w->box.calls[call]);
}

static char *pattern(size_t size)
{
        char *data = malloc(size);

        for (size_t i = 0; data && i < size; i++)
                data[i] = (char)(i * 2654435761U >> 13);
        return data;
}

/* ---- reading ---- */

static void small_file_takes_one_call(void)
{
        struct world w = {0};

        if (!world_init(&w))
                return;
        real_put_settled(&w, "a", "hello", 5);
        CHECK_STR(get(&w, "a"), "hello");
        CHECK_EQ(calls(&w, FAKE_FETCH), 1);
        CHECK_STR(get(&w, "a"), "hello");
        CHECK_EQ(calls(&w, FAKE_FETCH), 1);
        CHECK_EQ(calls(&w, FAKE_OPEN) + calls(&w, FAKE_READ), 0);
        world_done(&w);
}

static void read_without_waiting_does_nothing(void)
{
        struct world w = {0};
        struct vol_file *f;
        struct vol_opened o;
        struct asking a;
        char data[8];

        if (!world_init(&w))
                return;
        real_put_settled(&w, "a", "hello", 5);
        CHECK_EQ(w.ops->open(w.v, ask(&a, false), node_of(&w, "a"), O_RDONLY, &o), -EINPROGRESS);
        f = open_at(&w, "a", O_RDWR); /* a reader alone has it fetched by the open */
        if (!CHECK(f))
                return;
        CHECK_EQ(w.ops->read(w.v, ask(&a, false), f, data, 8, 0), -EINPROGRESS);
        CHECK_EQ(calls(&w, FAKE_FETCH), 0);
        CHECK_EQ(read_file(&w, f, data, 8, 0), 5);
        CHECK_EQ(w.ops->read(w.v, ask(&a, false), f, data, 8, 1), 4);
        CHECK_EQ(w.ops->read(w.v, ask(&a, false), f, data, 8, 5), 0);
        w.ops->release(w.v, f);
        world_done(&w);
}

static void sequential_read_is_read_ahead(void)
{
        struct world w = {0};
        char *data = pattern(64 * MIB), *got = malloc(128 * 1024);
        struct vol_file *f;
        uint64_t at = 0;

        if (!world_init(&w) || !CHECK(data && got))
                return;
        real_put_settled(&w, "big", data, 64 * MIB);
        f = open_at(&w, "big", O_RDONLY);
        while (CHECK(f) && at < 64 * MIB) {
                if (!CHECK_EQ(read_file(&w, f, got, 128 * 1024, at), 128 * 1024) ||
                    !CHECK(memcmp(got, data + at, 128 * 1024) == 0))
                        break;
                at += 128 * 1024;
        }
        (void)printf("64 MiB in order: %u opens, %u reads\n", calls(&w, FAKE_OPEN),
                     calls(&w, FAKE_READ));
        CHECK_EQ(calls(&w, FAKE_OPEN), 1);
        CHECK(calls(&w, FAKE_READ) <= 64);
        w.ops->release(w.v, f);
        free(data);
        free(got);
        world_done(&w);
}

static void random_reads_fetch_what_is_asked(void)
{
        struct world w = {0};
        char *data = pattern(8 * MIB), got[4096];
        struct vol_file *f;
        unsigned before;

        if (!world_init(&w) || !CHECK(data))
                return;
        real_put_settled(&w, "big", data, 8 * MIB);
        f = open_at(&w, "big", O_RDONLY);
        for (int i = 0; CHECK(f) && i < 50; i++) {
                uint64_t at = (uint64_t)((i * 7919) % 2000 + 20) * 4096;

                CHECK_EQ(read_file(&w, f, got, 4096, at), 4096);
                CHECK(memcmp(got, data + at, 4096) == 0);
        }
        before = calls(&w, FAKE_READ);
        CHECK_EQ(before, 50);
        /* With a round trip of 20 ms neighbours come along. */
        atomic_store(&w.box.delay_ms[FAKE_READ], 20);
        for (int i = 0; i < 10; i++)
                CHECK_EQ(read_file(&w, f, got, 4096, 40960 + (uint64_t)i * 500 * 1024), 4096);
        before = calls(&w, FAKE_READ);
        for (int i = 0; i < 5; i++)
                CHECK_EQ(read_file(&w, f, got, 4096, 49152 + (uint64_t)(i + 4) * 500 * 1024), 4096);
        CHECK(calls(&w, FAKE_READ) <= before + 3);
        w.ops->release(w.v, f);
        free(data);
        world_done(&w);
}

struct reader {
        struct world *w;
        pthread_t thread;
        const char *path;
        uint64_t size;
        bool is_right;
        const char *data;
};

static void *read_all(void *arg)
{
        struct reader *r = arg;
        struct vol_file *f = open_at(r->w, r->path, O_RDONLY);
        char *got = malloc(65536);
        uint64_t at = 0;

        r->is_right = f && got;
        while (r->is_right && at < r->size) {
                ssize_t n = read_file(r->w, f, got, 65536, at);

                r->is_right = n > 0 && memcmp(got, r->data + at, (size_t)n) == 0;
                at += n > 0 ? (uint64_t)n : 0;
        }
        if (f)
                r->w->ops->release(r->w->v, f);
        free(got);
        return NULL;
}

static void readers_share_a_download(void)
{
        enum { READERS = 8 };
        struct world w = {0};
        struct reader r[READERS];
        char *data = pattern(200 * 1024);

        if (!world_init(&w) || !CHECK(data))
                return;
        real_put_settled(&w, "a", data, 200 * 1024);
        CHECK(node_of(&w, "a") != 0);
        atomic_store(&w.box.delay_ms[FAKE_FETCH], 100);
        for (int i = 0; i < READERS; i++) {
                r[i] = (struct reader){.w = &w, .path = "a", .size = 200 * 1024, .data = data};
                CHECK_EQ(pthread_create(&r[i].thread, NULL, read_all, &r[i]), 0);
        }
        for (int i = 0; i < READERS; i++) {
                CHECK_EQ(pthread_join(r[i].thread, NULL), 0);
                CHECK(r[i].is_right);
        }
        CHECK_EQ(calls(&w, FAKE_FETCH), 1);
        free(data);
        world_done(&w);
}

static void readers_of_a_large_file_share_it(void)
{
        enum { READERS = 6 };
        struct world w = {0};
        struct reader r[READERS];
        char *data = pattern(6 * MIB);

        if (!world_init(&w) || !CHECK(data))
                return;
        real_put_settled(&w, "a", data, 6 * MIB);
        atomic_store(&w.box.delay_ms[FAKE_READ], 5);
        for (int i = 0; i < READERS; i++) {
                r[i] = (struct reader){.w = &w, .path = "a", .size = 6 * MIB, .data = data};
                CHECK_EQ(pthread_create(&r[i].thread, NULL, read_all, &r[i]), 0);
        }
        for (int i = 0; i < READERS; i++) {
                CHECK_EQ(pthread_join(r[i].thread, NULL), 0);
                CHECK(r[i].is_right);
        }
        CHECK_EQ(calls(&w, FAKE_OPEN), 1);
        (void)printf("6 readers of 6 MiB: %u reads\n", calls(&w, FAKE_READ));
        CHECK(calls(&w, FAKE_READ) <= 60);
        free(data);
        world_done(&w);
}

static void grep_of_a_tree_takes_few_calls(void)
{
        struct world w = {0};
        char path[64], text[64];
        unsigned all;

        if (!world_init(&w))
                return;
        for (int d = 0; d < 10; d++) {
                (void)snprintf(path, sizeof(path), "d%d", d);
                CHECK_EQ(mkdirat(w.box.dir, path, 0755), 0);
                for (int i = 0; i < 20; i++) {
                        (void)snprintf(path, sizeof(path), "d%d/f%d", d, i);
                        real_put(&w, path, path, strlen(path));
                }
        }
        sleep_for_ms(100); /* as real_put_settled */
        /* As grep -r: the directory is listed, then read in that order. */
        for (int d = 0; d < 10; d++) {
                for (int i = 0; i < 20; i++) {
                        (void)snprintf(path, sizeof(path), "d%d/f%d", d, i);
                        (void)snprintf(text, sizeof(text), "%s", path);
                        CHECK_STR(get(&w, path), text);
                }
        }
        all = fake_box_calls(&w.box);
        (void)printf("200 files: %u calls, %u of them fetches of %u files\n", all,
                     calls(&w, FAKE_FETCH), atomic_load(&w.box.files));
        CHECK(all <= 10);
        world_done(&w);
}

static void other_version_replaces_all_of_it(void)
{
        struct world w = {.ttl_ns = 20 * NS_PER_MS};
        char *data = pattern(2 * MIB), *other = malloc(2 * MIB), *got = malloc(2 * MIB);
        struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
        struct vol_file *f, *g;
        ssize_t n;

        if (!world_init(&w) || !CHECK(data && other && got))
                return;
        memset(other, 'x', 2 * MIB);
        real_put(&w, "a", data, 2 * MIB);
        CHECK_EQ(utimensat(w.box.dir, "a", old, 0), 0);
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(read_file(&w, f, got, 65536, 0), 65536);
        real_put(&w, "a", other, MIB + 1);
        sleep_for_ms(40);
        g = open_at(&w, "a", O_RDONLY);
        n = read_file(&w, f, got, 2 * MIB, 0);
        CHECK_EQ(n, MIB + 1);
        CHECK(memcmp(got, other, MIB + 1) == 0);
        CHECK(atomic_load(&w.node_events) > 0);
        w.ops->release(w.v, f);
        w.ops->release(w.v, g);
        free(data);
        free(other);
        free(got);
        world_done(&w);
}

static void replaced_inside_an_open_file_stays(void)
{
        struct world w = {.ttl_ns = 20 * NS_PER_MS};
        struct vol_file *f;
        struct vol_entry e;
        struct asking a;
        char got[8];

        if (!world_init(&w))
                return;
        real_put(&w, "a", "old", 3);
        f = open_at(&w, "a", O_RDONLY);
        real_put(&w, "b", "newer", 5);
        CHECK_EQ(renameat(w.box.dir, "b", w.box.dir, "a"), 0);
        w.ops->exec_ended(w.v);
        CHECK_STR(get(&w, "a"), "newer");
        CHECK_EQ(read_file(&w, f, got, 8, 0), 3);
        CHECK(memcmp(got, "old", 3) == 0);
        if (CHECK_EQ(w.ops->getattr(w.v, ask(&a, true), node_of(&w, "a"), NULL, &e), 0))
                CHECK_EQ(e.st.st_size, 5);
        w.ops->release(w.v, f);
        world_done(&w);
}

static void change_under_a_read_is_not_mixed(void)
{
        struct world w = {0};
        char *got = malloc(2 * MIB), *old = malloc(2 * MIB), *new = malloc(2 * MIB);
        struct vol_file *f;
        ssize_t n;

        if (!world_init(&w) || !CHECK(got && old && new))
                return;
        memset(old, 'o', 2 * MIB);
        memset(new, 'n', 2 * MIB);
        real_put(&w, "a", old, 2 * MIB);
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(read_file(&w, f, got, 4096, MIB), 4096);
        real_put(&w, "a", new, MIB + 5); /* the reader's attributes are still fresh */
        n = read_file(&w, f, got, 2 * MIB, 0);
        CHECK_EQ(n, MIB + 5);
        CHECK(n > 0 && memcmp(got, new, (size_t)n) == 0);
        w.ops->release(w.v, f);
        free(got);
        free(old);
        free(new);
        world_done(&w);
}

static void exec_end_shows_same_second_changes(void)
{
        struct world w = {0};
        struct vol_file *f;
        char got[8];

        w.box.has_no_ino = true;
        if (!world_init(&w))
                return;
        w.box.has_no_ino = true; /* no ctime */
        CHECK_EQ(put(&w, "f", "a\n"), 0);
        CHECK_STR(get(&w, "f"), "a\n");
        f = open_at(&w, "f", O_RDONLY);
        /* The same length, the same second, and a service that tells no more. */
        for (int i = 0; i < 5; i++) {
                struct stat st;
                struct timespec times[2];

                CHECK_EQ(fstatat(w.box.dir, "f", &st, 0), 0);
                real_put(&w, "f", i % 2 ? "a\n" : "b\n", 2);
                times[0] = times[1] = st.st_mtim;
                CHECK_EQ(utimensat(w.box.dir, "f", times, 0), 0);
                w.ops->exec_ended(w.v);
                CHECK_STR(get(&w, "f"), i % 2 ? "a\n" : "b\n");
                CHECK_EQ(read_file(&w, f, got, 8, 0), 2);
                CHECK_EQ(got[0], i % 2 ? 'a' : 'b');
        }
        w.ops->release(w.v, f);
        world_done(&w);
}

/* What the volume has on disk. */
static uint64_t spooled(struct world *w)
{
        uint64_t bytes = 0;
        struct dirent *e;
        struct stat st;
        DIR *d = opendir(w->state);

        while (d && (e = readdir(d))) {
                if (fstatat(dirfd(d), e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
                        bytes += (uint64_t)st.st_blocks * 512;
        }
        if (d)
                (void)closedir(d); /* read only */
        return bytes;
}

static bool reads_right(struct world *w, const char *path, const char *data, size_t size)
{
        struct reader r = {.w = w, .path = path, .size = size, .data = data};

        (void)read_all(&r);
        return r.is_right;
}

static void what_was_not_used_for_longest_goes_first(void)
{
        struct world w = {.spool_max = 4 * MIB};
        char *data = pattern(MIB), path[16];
        unsigned before;

        if (!world_init(&w) || !CHECK(data))
                return;
        for (unsigned i = 0; i < 8; i++) {
                (void)snprintf(path, sizeof(path), "f%u", i);
                real_put(&w, path, data, MIB);
        }
        sleep_for_ms(100); /* as real_put_settled */
        for (unsigned i = 0; i < 8; i++) {
                (void)snprintf(path, sizeof(path), "f%u", i);
                CHECK(reads_right(&w, path, data, MIB));
                CHECK(spooled(&w) <= 6 * MIB);
        }
        before = calls(&w, FAKE_READ);
        CHECK(reads_right(&w, "f7", data, MIB));
        CHECK_EQ(calls(&w, FAKE_READ), before);
        CHECK(reads_right(&w, "f0", data, MIB));
        CHECK(calls(&w, FAKE_READ) > before);
        /* What waits to be sent is never let go. */
        atomic_store(&w.box.error[FAKE_APPLY], -EHOSTUNREACH);
        CHECK(put(&w, "f3", "ours") < 0);
        for (unsigned i = 4; i < 8; i++) {
                (void)snprintf(path, sizeof(path), "f%u", i);
                CHECK(reads_right(&w, path, data, MIB));
        }
        CHECK_STR(get(&w, "f3"), "ours");
        atomic_store(&w.box.error[FAKE_APPLY], 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "f3"), "ours");
        free(data);
        world_done(&w);
}

/* ---- writing ---- */

static void new_file_is_sent_at_close(void)
{
        struct world w = {0};
        struct vol_file *f;
        struct stat st = {0}, later = {0};
        unsigned applies;

        if (!world_init(&w))
                return;
        CHECK(node_of(&w, "nothing") == 0); /* the root is listed */
        applies = calls(&w, FAKE_APPLY);
        f = create_at(&w, "new", O_WRONLY | O_EXCL);
        if (!CHECK(f))
                return;
        CHECK_EQ(write_file(&w, f, "hello ", 6, 0), 6);
        CHECK_EQ(write_file(&w, f, "world", 5, 6), 5);
        CHECK_EQ(dirty_files(&w), 1);
        CHECK_EQ(stat_at(&w, "new", &st), 0);
        CHECK_EQ(st.st_size, 11);
        CHECK_EQ(calls(&w, FAKE_APPLY), applies);
        CHECK_STR(real_get(&w, "new"), "(not there)");
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(calls(&w, FAKE_APPLY), applies + 1);
        CHECK_STR(real_get(&w, "new"), "hello world");
        CHECK_EQ(dirty_files(&w), 0);
        CHECK_EQ(stat_at(&w, "new", &later), 0);
        CHECK(later.st_mtim.tv_sec == st.st_mtim.tv_sec &&
              later.st_mtim.tv_nsec == st.st_mtim.tv_nsec);
        CHECK_EQ(later.st_ino, st.st_ino);
        CHECK_STR(get(&w, "new"), "hello world");
        CHECK_EQ(calls(&w, FAKE_FETCH) + calls(&w, FAKE_OPEN), 0);
        CHECK_EQ(create_at(&w, "new", O_WRONLY | O_EXCL) == NULL, 1);
        world_done(&w);
}

static void write_within_needs_no_download(void)
{
        struct world w = {0};
        char *data = pattern(MIB), *got = malloc(MIB + 16);
        struct vol_file *f;

        if (!world_init(&w) || !CHECK(data && got))
                return;
        real_put(&w, "a", data, MIB);
        f = open_at(&w, "a", O_RDWR);
        CHECK_EQ(write_file(&w, f, "XYZ", 3, 5000), 3);
        CHECK_EQ(write_file(&w, f, "end", 3, MIB), 3);
        CHECK_EQ(flush_file(&w, f), 0);
        CHECK_EQ(calls(&w, FAKE_FETCH) + calls(&w, FAKE_READ), 0);
        memcpy(data + 5000, "XYZ", 3);
        CHECK_EQ(write_file(&w, f, "q", 1, 9000), 1);
        data[9000] = 'q';
        CHECK_EQ(read_file(&w, f, got, MIB + 16, 0), MIB + 3);
        CHECK(memcmp(got, data, MIB) == 0 && memcmp(got + MIB, "end", 3) == 0);
        CHECK_EQ(close_file(&w, f), 0);
        real_get(&w, "a");
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(read_file(&w, f, got, MIB + 16, 0), MIB + 3);
        CHECK(memcmp(got, data, MIB) == 0);
        w.ops->release(w.v, f);
        free(data);
        free(got);
        world_done(&w);
}

static void append_goes_to_the_end(void)
{
        struct world w = {0};
        struct vol_file *f;
        struct asking a;

        if (!world_init(&w))
                return;
        real_put(&w, "log", "one\n", 4);
        f = open_at(&w, "log", O_WRONLY | O_APPEND);
        CHECK_EQ(write_file(&w, f, "two\n", 4, 0), 4); /* the kernel's idea of the end is old */
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_STR(real_get(&w, "log"), "one\ntwo\n");
        CHECK_EQ(calls(&w, FAKE_FETCH), 0);
        f = open_at(&w, "log", O_RDWR | O_APPEND);
        ask(&a, false)->is_writeback = true; /* a page of a mapping lies where it lies */
        a.op.is_writeback = true;
        CHECK_EQ(w.ops->write(w.v, &a.op, f, "ONE", 3, 0), 3);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_STR(real_get(&w, "log"), "ONE\ntwo\n");
        world_done(&w);
}

static void truncate_shows_zeros_when_it_grows_again(void)
{
        struct world w = {0};
        struct vol_file *f;
        uint64_t node;
        char got[16];

        if (!world_init(&w))
                return;
        real_put(&w, "a", "0123456789", 10);
        node = node_of(&w, "a");
        f = open_at(&w, "a", O_RDWR);
        CHECK_EQ(resize_file(&w, f, node, 4), 0);
        CHECK_EQ(resize_file(&w, f, node, 8), 0);
        CHECK_EQ(write_file(&w, f, "x", 1, 9), 1);
        CHECK_EQ(read_file(&w, f, got, 16, 0), 10);
        CHECK(memcmp(got, "0123\0\0\0\0\0x", 10) == 0);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK(memcmp(real_get(&w, "a"), "0123\0\0\0\0\0x", 10) == 0);
        CHECK_EQ(resize_file(&w, NULL, node, 2), 0); /* by name: sent at once */
        CHECK_STR(real_get(&w, "a"), "01");
        CHECK_EQ(dirty_files(&w), 0);
        world_done(&w);
}

static void close_sends_what_its_handle_wrote(void)
{
        struct world w = {0};
        struct vol_file *f, *g;

        if (!world_init(&w))
                return;
        f = create_at(&w, "a", O_WRONLY);
        g = open_at(&w, "a", O_WRONLY);
        CHECK_EQ(write_file(&w, f, "one", 3, 0), 3);
        CHECK_EQ(flush_file(&w, g), 0); /* it has written nothing */
        CHECK_STR(real_get(&w, "a"), "(not there)");
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_STR(real_get(&w, "a"), "one");
        CHECK_EQ(write_file(&w, g, "two", 3, 3), 3);
        CHECK_EQ(sync_all(&w), 0); /* the barrier before a command */
        CHECK_STR(real_get(&w, "a"), "onetwo");
        CHECK_EQ(write_file(&w, g, "T", 1, 3), 1);
        CHECK_EQ(close_file(&w, g), 0);
        CHECK_STR(real_get(&w, "a"), "oneTwo");
        world_done(&w);
}

static void open_handle_sees_the_file_that_replaced_it(void)
{
        struct world w = {0};
        struct vol_file *f;
        char got[16];

        w.box.has_no_ino = true;
        if (!world_init(&w))
                return;
        CHECK_EQ(put(&w, "a", "0123456789"), 0);
        f = open_at(&w, "a", O_RDWR);
        for (int i = 0; i < 4; i++) {
                w.ops->exec_ended(w.v);
                CHECK_EQ(read_file(&w, f, got, 16, 0), i == 0 ? 10 : 7); /* opened there */
                CHECK_EQ(put(&w, "a", "xxxx"), 0); /* another file is there now */
                CHECK_EQ(truncate_real(&w, "a", 7), 0);
                w.ops->exec_ended(w.v);
                CHECK_EQ(read_file(&w, f, got, 16, 0), 7);
                CHECK(memcmp(got, "xxxx\0\0\0", 7) == 0);
        }
        w.ops->release(w.v, f);
        world_done(&w);
}

static void large_holes_are_not_sent(void)
{
        struct world w = {0};
        struct vol_file *f;
        struct stat st;
        char got[8];

        if (!world_init(&w))
                return;
        f = create_at(&w, "sparse", O_RDWR);
        CHECK_EQ(resize_file(&w, f, node_of(&w, "sparse"), (uint64_t)5 << 30), 0);
        CHECK_EQ(write_file(&w, f, "data", 4, (uint64_t)3 << 30), 4);
        CHECK_EQ(w.ops->lseek(w.v, NULL, f, 0, SEEK_DATA), (int64_t)3 << 30);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(fstatat(w.box.dir, "sparse", &st, 0), 0);
        CHECK_EQ(st.st_size, (int64_t)5 << 30);
        CHECK(st.st_blocks < 100);
        f = open_at(&w, "sparse", O_RDONLY);
        CHECK_EQ(read_file(&w, f, got, 8, (uint64_t)3 << 30), 8);
        CHECK(memcmp(got, "data\0\0\0\0", 8) == 0);
        w.ops->release(w.v, f);
        world_done(&w);
}

static void fallocate_extends_and_punches(void)
{
        struct world w = {0};
        struct vol_file *f;
        struct asking a;

        if (!world_init(&w))
                return;
        f = create_at(&w, "a", O_RDWR);
        CHECK_EQ(write_file(&w, f, "0123456789", 10, 0), 10);
        CHECK_EQ(w.ops->fallocate(w.v, ask(&a, false), f,
                                  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3),
                 0);
        CHECK_EQ(w.ops->fallocate(w.v, ask(&a, false), f, 0, 0, 12), 0);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK(memcmp(real_get(&w, "a"),
                     "01\0\0\0"
                     "56789\0",
                     12) == 0);
        world_done(&w);
}

static void change_behind_our_own_is_seen(void)
{
        const struct timespec before[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
        const struct timespec after[2] = {{.tv_sec = 2000000}, {.tv_sec = 2000000}};
        struct stat to = {.st_mode = 0600, .st_mtim = {.tv_sec = 3000000}};
        struct world w = {0};
        struct vol_entry e;
        struct asking a;
        uint64_t node;

        if (!world_init(&w))
                return;
        real_put(&w, "f", "old", 3);
        CHECK_EQ(utimensat(w.box.dir, "f", before, 0), 0);
        CHECK_STR(get(&w, "f"), "old");
        node = node_of(&w, "f");
        /* Just after it was looked at it is written inside, and we set its mode ... */
        real_put(&w, "f", "new", 3);
        CHECK_EQ(utimensat(w.box.dir, "f", after, 0), 0);
        CHECK_EQ(w.ops->setattr(w.v, ask(&a, true), node, NULL, VOL_SET_MODE, &to, &e), 0);
        CHECK_STR(get(&w, "f"), "new");
        /* ... or its time, which tells less. */
        real_put(&w, "f", "now", 3);
        CHECK_EQ(w.ops->setattr(w.v, ask(&a, true), node, NULL, VOL_SET_MTIME, &to, &e), 0);
        CHECK_EQ(e.st.st_mtim.tv_sec, 3000000);
        CHECK_STR(get(&w, "f"), "now");
        /* Where nothing inside can have done it, nothing is fetched again. */
        atomic_store(&w.is_quiet, true);
        fake_box_zero(&w.box);
        CHECK_EQ(w.ops->setattr(w.v, ask(&a, true), node, NULL, VOL_SET_MTIME, &to, &e), 0);
        CHECK_STR(get(&w, "f"), "now");
        CHECK_EQ(atomic_load(&w.box.calls[FAKE_FETCH]) + atomic_load(&w.box.calls[FAKE_READ]), 0);
        world_done(&w);
}

/* No more than a MiB a file, as on a disk that fills up in the middle of a write. */
static void write_to_a_full_disk(void)
{
        const struct rlimit limit = {MIB, MIB};
        struct world w = {0};
        char *data = pattern(MIB);
        struct vol_file *f;
        struct stat st;

        (void)signal(SIGXFSZ, SIG_IGN); /* so that the write itself fails */
        if (!world_init(&w) || !CHECK(data) || !CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0))
                return;
        f = create_at(&w, "a", O_RDWR);
        CHECK_EQ(write_file(&w, f, data, MIB / 2, 0), MIB / 2);
        CHECK(write_file(&w, f, data, MIB, MIB / 2) < 0);
        CHECK(stat_at(&w, "a", &st) == 0 && st.st_size == MIB / 2);
        CHECK_EQ(write_file(&w, f, "more", 4, MIB / 2), 4);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK(fstatat(w.box.dir, "a", &st, 0) == 0 && st.st_size == MIB / 2 + 4);
        CHECK(memcmp(real_get(&w, "a"), data, 65535) == 0);
        CHECK_EQ(dirty_files(&w), 0);
        free(data);
        world_done(&w);
}

static void a_full_disk_refuses_that_write_only(void)
{
        pid_t child = fork();
        int status = 0;

        if (child == 0) {
                atomic_store(&check_failures, 0);
                write_to_a_full_disk();
                _exit(check_result());
        }
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK_EQ(status, 0);
}

/* ---- names ---- */

static void removed_file_goes_on(void)
{
        struct world w = {0};
        char *data = pattern(MIB), *got = malloc(MIB);
        struct vol_file *f, *g;
        struct asking a;
        struct vol_entry e;
        unsigned before;

        if (!world_init(&w) || !CHECK(data && got))
                return;
        real_put(&w, "a", data, MIB);
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(w.ops->unlink(w.v, ask(&a, true), VOLUME_ROOT, "a"), 0);
        CHECK_STR(real_get(&w, "a"), "(not there)");
        CHECK_EQ(read_file(&w, f, got, MIB, 0), MIB);
        CHECK(memcmp(got, data, MIB) == 0);
        w.ops->release(w.v, f);

        /* One that never was in the sandbox: nothing is sent. */
        before = atomic_load(&w.box.changes);
        g = create_at(&w, "tmp", O_RDWR);
        CHECK_EQ(write_file(&w, g, "abc", 3, 0), 3);
        CHECK_EQ(w.ops->unlink(w.v, ask(&a, true), VOLUME_ROOT, "tmp"), 0);
        CHECK_EQ(write_file(&w, g, "def", 3, 3), 3);
        CHECK_EQ(read_file(&w, g, got, 16, 0), 6);
        CHECK(memcmp(got, "abcdef", 6) == 0);
        CHECK_EQ(w.ops->getattr(w.v, ask(&a, true), 0, g, &e) == 0 ? e.st.st_size : 6, 6);
        CHECK_EQ(close_file(&w, g), 0);
        CHECK_EQ(atomic_load(&w.box.changes), before);
        CHECK_EQ(dirty_files(&w), 0);
        free(data);
        free(got);
        world_done(&w);
}

static void dirty_file_is_sent_to_its_new_name(void)
{
        struct world w = {0};
        struct vol_file *f;
        struct asking a;

        if (!world_init(&w))
                return;
        real_put(&w, "b", "old", 3);
        f = create_at(&w, "a", O_RDWR);
        CHECK_EQ(write_file(&w, f, "one", 3, 0), 3);
        CHECK_EQ(w.ops->rename(w.v, ask(&a, true), VOLUME_ROOT, "a", VOLUME_ROOT, "b", 0), 0);
        CHECK_EQ(write_file(&w, f, "two", 3, 3), 3);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_STR(real_get(&w, "b"), "onetwo");
        CHECK_STR(real_get(&w, "a"), "(not there)");
        CHECK_STR(get(&w, "b"), "onetwo");
        world_done(&w);
}

static void other_name_goes_on_with_what_was_changed(void)
{
        struct world w = {0};
        struct vol_file *f, *g;
        struct vol_entry e;
        struct asking a;
        uint64_t node;

        if (!world_init(&w))
                return;
        CHECK_EQ(put(&w, "one", "long content"), 0);
        f = open_at(&w, "one", O_WRONLY | O_APPEND);
        node = node_of(&w, "one");
        CHECK_EQ(w.ops->link(w.v, ask(&a, true), node, VOLUME_ROOT, "two", &e), 0);
        CHECK_EQ(e.node, node);
        CHECK_EQ(write_file(&w, f, "!", 1, 0),
                 1); /* not sent yet: it stays one file all the same */
        g = open_at(&w, "one", O_WRONLY | O_TRUNC);
        CHECK_EQ(close_file(&w, g), 0);
        CHECK_STR(real_get(&w, "two"), "");
        CHECK_EQ(w.ops->unlink(w.v, ask(&a, true), VOLUME_ROOT, "one"), 0);
        CHECK_EQ(write_file(&w, f, "new", 3, 0), 3);
        CHECK_EQ(w.ops->getattr(w.v, ask(&a, true), node, f, &e), 0);
        CHECK_EQ(e.st.st_size, 3);
        CHECK_EQ(e.st.st_nlink, 1);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_STR(real_get(&w, "two"), "new");
        CHECK_STR(get(&w, "two"), "new");
        world_done(&w);
}

/* ---- failures ---- */

static void refused_change_stays_and_is_told(void)
{
        struct world w = {0};
        struct vol_file *f;

        if (!world_init(&w))
                return;
        f = create_at(&w, "a", O_WRONLY);
        CHECK_EQ(write_file(&w, f, "abc", 3, 0), 3);
        atomic_store(&w.box.change_error_kind, CHANGE_STORE);
        atomic_store(&w.box.change_error, -ENOSPC);
        CHECK_EQ(close_file(&w, f), -ENOSPC);
        CHECK_EQ(atomic_load(&w.box.failed_events), 1);
        CHECK(strncmp(w.box.last_failed, "a:", 2) == 0);
        CHECK_EQ(dirty_files(&w), 0);
        CHECK_STR(get(&w, "a"), "abc");
        CHECK_EQ(sync_all(&w), 0); /* it holds up nothing */
        CHECK_EQ(unsent(&w), 1);
        atomic_store(&w.box.change_error, 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(w.ops->retry(w.v), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_STR(real_get(&w, "a"), "abc");
        CHECK_EQ(dirty_files(&w), 0);
        world_done(&w);
}

static void host_away_and_back(void)
{
        struct world w = {0};

        if (!world_init(&w))
                return;
        CHECK(node_of(&w, "a") == 0);
        atomic_store(&w.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(put(&w, "a", "abc"), -EHOSTUNREACH);
        CHECK_EQ(dirty_files(&w), 1);
        CHECK_STR(get(&w, "a"), "abc");
        atomic_store(&w.box.enter_error, 0);
        for (int i = 0; i < 500 && dirty_files(&w) > 0; i++)
                sleep_for_ms(10);
        CHECK_EQ(dirty_files(&w), 0);
        CHECK_STR(real_get(&w, "a"), "abc");
        CHECK_EQ(atomic_load(&w.box.failed_events), 0);
        world_done(&w);
}

static void lost_answer_is_repeated(void)
{
        struct world w = {0};

        if (!world_init(&w))
                return;
        real_put(&w, "a", "before", 6);
        atomic_store(&w.box.is_lost, true);
        CHECK(put(&w, "a", "after") < 0);
        CHECK_EQ(dirty_files(&w), 1);
        atomic_store(&w.box.is_lost, false);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "after");
        CHECK_STR(get(&w, "a"), "after");
        world_done(&w);
}

static void sync_sends_many_in_one_call(void)
{
        struct world w = {0};
        struct vol_file *f[50];
        char name[16];
        unsigned before;

        if (!world_init(&w))
                return;
        for (int i = 0; i < 50; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                f[i] = create_at(&w, name, O_WRONLY);
                CHECK_EQ(write_file(&w, f[i], name, strlen(name), 0), strlen(name));
        }
        before = calls(&w, FAKE_APPLY);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(calls(&w, FAKE_APPLY), before + 1);
        CHECK_EQ(dirty_files(&w), 0);
        for (int i = 0; i < 50; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                CHECK_STR(real_get(&w, name), name);
                CHECK_EQ(close_file(&w, f[i]), 0);
        }
        CHECK_EQ(calls(&w, FAKE_APPLY), before + 1);
        world_done(&w);
}

/* What is written while an upload is under way. */
static void write_in_hook(struct fake_box *b, enum fake_call call, const char *path, bool is_after)
{
        struct world *w = b->ctx;
        struct vol_file *f;

        (void)path;
        if (call != FAKE_APPLY || !is_after || !w->box.hook)
                return;
        w->box.hook = NULL;
        f = open_at(w, "a", O_WRONLY);
        if (CHECK(f)) {
                CHECK_EQ(write_file(w, f, "TWO", 3, 3), 3);
                w->ops->release(w->v, f);
        }
}

static void written_during_an_upload_is_sent_next(void)
{
        struct world w = {0};
        struct vol_file *f;

        if (!world_init(&w))
                return;
        f = create_at(&w, "a", O_WRONLY);
        CHECK_EQ(write_file(&w, f, "onetwo", 6, 0), 6);
        w.box.ctx = &w;
        w.box.hook = write_in_hook;
        CHECK_EQ(flush_file(&w, f), 0);
        CHECK_STR(get(&w, "a"), "oneTWO");
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "oneTWO");
        CHECK_EQ(dirty_files(&w), 0);
        world_done(&w);
}

/* ---- against a plain file ---- */

#define MODEL_SIZE ((size_t)700 * 1024)

struct model {
        char data[MODEL_SIZE * 2];
        uint64_t size;
};

static uint64_t chance(unsigned *seed)
{
        return (uint64_t)rand_r(seed) << 16 ^ (uint64_t)rand_r(seed);
}

static void model_write(struct model *m, const char *data, size_t size, uint64_t at)
{
        memcpy(m->data + at, data, size);
        if (at + size > m->size)
                m->size = at + size;
}

static void model_resize(struct model *m, uint64_t size)
{
        if (size < m->size)
                memset(m->data + size, 0, m->size - size);
        m->size = size;
}

static bool compare_range(struct world *w, struct vol_file *f, const struct model *m, uint64_t at,
                          size_t size)
{
        char *got = malloc(size + 1);
        ssize_t n = got ? read_file(w, f, got, size, at) : -ENOMEM;
        uint64_t expected = at >= m->size ? 0 : m->size - at < size ? m->size - at : size;
        bool ok =
                CHECK_EQ(n, (int64_t)expected) && CHECK(memcmp(got, m->data + at, (size_t)n) == 0);

        free(got);
        return ok;
}

static bool compare_real(struct world *w, const char *path, const struct model *m)
{
        int fd = openat(w->box.dir, path, O_RDONLY);
        char *got = malloc(MODEL_SIZE * 2);
        ssize_t n = fd >= 0 && got ? file_pread_full(fd, got, MODEL_SIZE * 2, 0) : -1;
        bool ok = CHECK_EQ(n, (int64_t)m->size) && CHECK(got) &&
                  CHECK(memcmp(got, m->data, (size_t)n) == 0);

        free(got);
        if (fd >= 0)
                (void)close(fd); /* read only */
        return ok;
}

static void random_operations_equal_a_plain_file(void)
{
        struct world w = {.ttl_ns = 5 * NS_PER_MS};
        struct model *m = calloc(1, sizeof(*m));
        unsigned seed = (unsigned)clock_real_ns(), first = seed;
        char *noise = pattern(65536);
        const char *name = "a", *other = "b";
        struct vol_file *f;
        bool ok = true;

        if (!world_init(&w) || !CHECK(m && noise))
                return;
        real_put(&w, "a", noise, 65536);
        model_write(m, noise, 65536, 0);
        f = open_at(&w, name, O_RDWR);
        for (int i = 0; ok && i < 10000; i++) {
                uint64_t at = chance(&seed) % MODEL_SIZE, what = chance(&seed) % 100;
                size_t size = (size_t)(chance(&seed) % (what % 7 == 0 ? 60000 : 500)) + 1;
                struct asking a;

                if (at > m->size + 20000)
                        at = m->size;
                noise[chance(&seed) % 65536] ^= (char)i;
                if (what < 45) {
                        ok = compare_range(&w, f, m, at, size);
                } else if (what < 80) {
                        ok = CHECK_EQ(write_file(&w, f, noise, size, at), size);
                        model_write(m, noise, size, at);
                } else if (what < 88) {
                        ok = CHECK_EQ(write_file(&w, f, noise, size % 4000, m->size % MODEL_SIZE),
                                      size % 4000);
                        model_write(m, noise, size % 4000, m->size % MODEL_SIZE);
                } else if (what < 91) {
                        at = chance(&seed) % 3 ? at : m->size / 2;
                        ok = CHECK_EQ(resize_file(&w, f, node_of(&w, name), at), 0);
                        model_resize(m, at);
                } else if (what < 93) {
                        const char *t = name;

                        ok = CHECK_EQ(w.ops->rename(w.v, ask(&a, true), VOLUME_ROOT, name,
                                                    VOLUME_ROOT, other, 0),
                                      0);
                        name = other;
                        other = t;
                } else if (what < 97) {
                        int flags = what == 96 ? O_RDWR | O_TRUNC : O_RDWR;

                        ok = CHECK_EQ(close_file(&w, f), 0) && compare_real(&w, name, m);
                        f = open_at(&w, name, flags);
                        ok = ok && CHECK(f);
                        if (flags & O_TRUNC)
                                model_resize(m, 0);
                } else if (what == 97) {
                        ok = CHECK_EQ(w.ops->fsync(w.v, ask(&a, true), f, false), 0) &&
                             compare_real(&w, name, m);
                } else if (what == 98) {
                        uint64_t end = at + size < m->size ? at + size : m->size;

                        ok = CHECK_EQ(w.ops->fallocate(w.v, ask(&a, true), f,
                                                       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                       at, size),
                                      0);
                        if (at < end)
                                memset(m->data + at, 0, end - at);
                } else {
                        w.ops->exec_ended(w.v);
                }
                if (!ok)
                        (void)fprintf(stderr, "seed %u, step %d, what %d\n", first, i, (int)what);
        }
        if (ok) {
                CHECK_EQ(close_file(&w, f), 0);
                compare_real(&w, name, m);
        }
        free(noise);
        free(m);
        world_done(&w);
}

/* ---- crashes ---- */

/* In a child: writes to files and says what was answered, until it dies at any point. */
static void write_until_death(struct world *w, struct model *shared, unsigned seed)
{
        struct vol_file *f = NULL;
        char *noise = pattern(65536);
        uint64_t steps = chance(&seed) % 60 + 1;

        /* Its sandbox is out of reach, so that nothing is sent. */
        for (uint64_t i = 0; i < steps; i++) {
                uint64_t at = chance(&seed) % 100000, what = chance(&seed) % 10;
                size_t size = (size_t)(chance(&seed) % 3000) + 1;

                if (!f || what == 0) {
                        int flags = chance(&seed) % 4 == 0 ? O_RDWR | O_TRUNC : O_RDWR;

                        if (f)
                                w->ops->release(w->v, f);
                        f = open_at(w, "a", flags);
                        if (!f)
                                _exit(3);
                        if (flags & O_TRUNC)
                                model_resize(shared, 0);
                } else if (what == 1) {
                        if (resize_file(w, f, node_of(w, "a"), at) != 0)
                                _exit(4);
                        model_resize(shared, at);
                } else {
                        if (write_file(w, f, noise + i, size, at) != (ssize_t)size)
                                _exit(5);
                        model_write(shared, noise + i, size, at);
                }
        }
        _exit(0);
}

static bool crash_once(unsigned seed, struct model *shared)
{
        struct world w = {0};
        struct vol_file *f;
        int status = -1;
        pid_t pid;
        bool ok;

        shared->size = 0;
        memset(shared->data, 0, sizeof(shared->data));
        if (!world_init(&w))
                return false;
        world_unmount(&w);
        if (seed % 3 != 0) {
                char *data = pattern(50000);

                real_put(&w, "a", data, 50000);
                model_write(shared, data, 50000, 0);
                free(data);
        } else {
                real_put(&w, "a", "", 0);
        }
        pid = fork();
        if (pid == 0) {
                if (!world_mount(&w) || node_of(&w, "a") == 0)
                        _exit(2);
                atomic_store(&w.box.error[FAKE_APPLY], -EHOSTUNREACH);
                write_until_death(&w, shared, seed);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        ok = CHECK_EQ(status, 0);
        if (ok && world_mount(&w)) {
                f = open_at(&w, "a", O_RDONLY);
                ok = CHECK(f) && compare_range(&w, f, shared, 0, MODEL_SIZE);
                if (f)
                        w.ops->release(w.v, f);
                CHECK_EQ(sync_all(&w), 0);
                ok = ok && compare_real(&w, "a", shared);
                CHECK_EQ(dirty_files(&w), 0);
                world_unmount(&w);
        }
        world_done(&w);
        return ok;
}

static void what_was_answered_survives_death(void)
{
        struct model *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        unsigned seed = (unsigned)clock_real_ns();

        if (!CHECK(shared != MAP_FAILED))
                return;
        for (int i = 0; i < 120; i++, seed += 7) {
                if (!crash_once(seed, shared)) {
                        (void)fprintf(stderr, "seed %u, round %d\n", seed, i);
                        break;
                }
        }
        (void)munmap(shared, sizeof(*shared));
}

int main(void)
{
        RUN(small_file_takes_one_call);
        RUN(read_without_waiting_does_nothing);
        RUN(sequential_read_is_read_ahead);
        RUN(random_reads_fetch_what_is_asked);
        RUN(readers_share_a_download);
        RUN(readers_of_a_large_file_share_it);
        RUN(grep_of_a_tree_takes_few_calls);
        RUN(other_version_replaces_all_of_it);
        RUN(replaced_inside_an_open_file_stays);
        RUN(change_under_a_read_is_not_mixed);
        RUN(exec_end_shows_same_second_changes);
        RUN(what_was_not_used_for_longest_goes_first);
        RUN(new_file_is_sent_at_close);
        RUN(write_within_needs_no_download);
        RUN(append_goes_to_the_end);
        RUN(truncate_shows_zeros_when_it_grows_again);
        RUN(close_sends_what_its_handle_wrote);
        RUN(open_handle_sees_the_file_that_replaced_it);
        RUN(large_holes_are_not_sent);
        RUN(fallocate_extends_and_punches);
        RUN(change_behind_our_own_is_seen);
        RUN(a_full_disk_refuses_that_write_only);
        RUN(removed_file_goes_on);
        RUN(dirty_file_is_sent_to_its_new_name);
        RUN(other_name_goes_on_with_what_was_changed);
        RUN(refused_change_stays_and_is_told);
        RUN(host_away_and_back);
        RUN(lost_answer_is_repeated);
        RUN(sync_sends_many_in_one_call);
        RUN(written_during_an_upload_is_sent_next);
        RUN(random_operations_equal_a_plain_file);
        RUN(what_was_answered_survives_death);
        return check_result();
}
