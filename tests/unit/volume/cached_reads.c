/* SPDX-License-Identifier: Apache-2.0 */
/* Reading files of the cached volume: what comes from here, and what is asked for. */

#include <dirent.h>
#include <pthread.h>

#include "fs/volume/contents.h"
#include "tests/unit/volume/content_support.h"

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
        if (!CHECK(f))
                return;
        CHECK_EQ(read_file(&w, f, got, 4096, 8 * MIB - 4096), 4096); /* it is opened there */
        before = calls(&w, FAKE_READ);
        for (int i = 0; i < 50; i++) {
                uint64_t at = (uint64_t)((i * 7919) % 2000 + 20) * 4096;

                /* The sandbox is near, however slow we are. */
                atomic_store(&cached_of(w.v)->contents->round_trip_ns, 0);
                CHECK_EQ(read_file(&w, f, got, 4096, at), 4096);
                CHECK(memcmp(got, data + at, 4096) == 0);
        }
        CHECK_EQ(calls(&w, FAKE_READ), before + 50);
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
        return check_result();
}
