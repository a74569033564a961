/* SPDX-License-Identifier: Apache-2.0 */
/* Writing files of the cached volume: what they hold then, here and in the sandbox. */

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/volume/content_support.h"

/* ---- content ---- */

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

int main(void)
{
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
        return check_result();
}
