/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are changed inside while a change of ours waits. */

#include "fs/volume/conflict.h"

#include "tests/unit/volume/by_path.h"

#define TTL_NS (20 * NS_PER_MS)
#define LARGE ((size_t)600 * 1024) /* is not fetched whole */

static bool begin(struct world *w)
{
        *w = (struct world){.is_journaled = true, .ttl_ns = TTL_NS};
        return world_init(w);
}

/* The sandbox can't be reached, until `back`; and what was seen before was not seen lately. */
static void away(struct world *w)
{
        atomic_store(&w->box.enter_error, -EHOSTUNREACH);
        sleep_for_ms(30);
}

static void back(struct world *w)
{
        atomic_store(&w->box.enter_error, 0);
}

static unsigned told(struct world *w)
{
        return atomic_exchange(&w->box.noticed_events, 0);
}

static bool was_told(struct world *w, const char *text)
{
        bool was;

        mutex_lock(&w->box.lock);
        was = strstr(w->box.last_noticed, text) != NULL;
        mutex_unlock(&w->box.lock);
        return told(w) == 1 && was;
}

static void write_at(struct world *w, struct vol_file *f, const char *text, uint64_t at)
{
        CHECK_EQ(write_file(w, f, text, strlen(text), at), (ssize_t)strlen(text));
}

/* A file of one letter. */
static void real_fill(struct world *w, const char *path, char letter, size_t size)
{
        char *data = malloc(size);

        memset(data, letter, size);
        real_put_settled(w, path, data, size);
        free(data);
}

/* What differs from that: how many bytes, from where on. */
static size_t real_others(struct world *w, const char *path, char letter, size_t size,
                          size_t *ret_first)
{
        char *data = malloc(size + 1);
        int fd = openat(w->box.dir, path, O_RDONLY);
        size_t others = 0;

        CHECK_EQ(file_pread_full(fd, data, size + 1, 0), (ssize_t)size);
        *ret_first = size;
        for (size_t i = size; i-- > 0;) {
                if (data[i] == letter)
                        continue;
                others++;
                *ret_first = i;
        }
        (void)close(fd); /* read only */
        free(data);
        return others;
}

/* Inside, in place. */
static void real_write(struct world *w, const char *path, const char *text, off_t at)
{
        int fd = openat(w->box.dir, path, O_WRONLY);

        CHECK_EQ(pwrite(fd, text, strlen(text), at), (ssize_t)strlen(text));
        (void)close(fd); /* a test's */
}

/* ---- nothing happened ---- */

static void look_costs_one_call_and_only_when_it_must(void)
{
        struct vol_file *f[5];
        struct world w;
        char name[2] = "a";

        w = (struct world){.is_journaled = true, .ttl_ns = 3 * NS_PER_S};
        if (!world_init(&w))
                return;
        for (name[0] = 'a'; name[0] <= 'e'; name[0]++)
                real_put(&w, name, "theirs", 6);
        CHECK_EQ(put(&w, "a", "ours"), 0);
        CHECK_EQ(put(&w, "new", "ours"), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(atomic_load(&w.box.calls[FAKE_FETCH]), 0);
        for (int i = 0; i < 5; i++) {
                name[0] = (char)('a' + i);
                f[i] = open_at(&w, name, O_WRONLY | O_TRUNC);
        }
        sleep_for_ms(3100);
        atomic_store(&w.box.calls[FAKE_APPLY], 0); /* some may be sent before the last is closed */
        for (int i = 0; i < 5; i++) {
                write_at(&w, f[i], "again", 0);
                CHECK_EQ(close_file(&w, f[i]), 0);
        }
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(atomic_load(&w.box.calls[FAKE_FETCH]), atomic_load(&w.box.calls[FAKE_APPLY]));
        CHECK_STR(real_get(&w, "c"), "again");
        CHECK_EQ(told(&w), 0);
        world_done(&w);
}

static void lost_answers_are_no_conflict(void)
{
        struct vol_file *f;
        struct world w;

        if (!begin(&w))
                return;
        real_put_settled(&w, "whole", "old", 3);
        real_fill(&w, "parts", 'a', LARGE);
        f = open_at(&w, "parts", O_RDWR);
        atomic_store(&w.box.is_lost, true);
        CHECK_EQ(put(&w, "whole", "first"), 0);
        write_at(&w, f, "bb", 100);
        CHECK_EQ(flush_file(&w, f), 0);
        CHECK(sync_all(&w) < 0);
        sleep_for_ms(30);
        CHECK_EQ(put(&w, "whole", "second, longer"), 0);
        write_at(&w, f, "cc", 200);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK(sync_all(&w) < 0);
        sleep_for_ms(30);
        /* Nor after a restart: what was on its way is on disk. */
        world_unmount(&w);
        atomic_store(&w.box.is_lost, false);
        if (!world_mount(&w))
                return;
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(told(&w), 0);
        CHECK_STR(real_get(&w, "whole"), "second, longer");
        world_done(&w);
}

static void own_times_are_no_conflict(void)
{
        struct stat to = {.st_mtim = {.tv_sec = 1000000000}};
        struct vol_entry e;
        struct asking a;
        struct world w;

        /* Long enough that what was seen is known until it is renamed over. */
        w = (struct world){.is_journaled = true, .ttl_ns = 2 * NS_PER_S};
        if (!world_init(&w))
                return;
        for (int i = 0; i < 4; i++) {
                struct vol_file *f;

                real_put_settled(&w, "a", "theirs", 6);
                real_put_settled(&w, "b", "theirs", 6);
                if (i % 2 == 0)
                        CHECK_STR(get(&w, "a"), "theirs"); /* with a content, or without */
                CHECK(node_of(&w, "a") != 0 && node_of(&w, "tmp") == 0);
                atomic_store(&w.box.enter_error, -EHOSTUNREACH);
                CHECK_EQ(w.ops->setattr(w.v, ask(&a, true), node_of(&w, "a"), NULL, VOL_SET_MTIME,
                                        &to, &e),
                         0);
                if (i < 2) {
                        f = open_at(&w, "a", O_WRONLY);
                        write_at(&w, f, "OURS", 0);
                        CHECK_EQ(close_file(&w, f), 0);
                } else {
                        CHECK_EQ(put(&w, "tmp", "OURSrs"), 0);
                        CHECK_EQ(move(&w, "tmp", "a"), 0);
                }
                sleep_for_ms(2100);
                back(&w);
                CHECK_EQ(sync_all(&w), 0);
                CHECK_EQ(unsent(&w), 0);
                CHECK_EQ(told(&w), 0);
                CHECK_STR(real_get(&w, "a"), "OURSrs");
        }
        world_done(&w);
}

static void renamed_files_are_no_conflict(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put_settled(&w, "a", "theirs", 6);
        real_put_settled(&w, "b", "theirs, too", 11);
        CHECK(node_of(&w, "a") != 0 && node_of(&w, "b") != 0);
        CHECK_EQ(put(&w, "a", "ours"), 0);
        CHECK_EQ(move(&w, "a", "b"), 0);
        CHECK_EQ(move(&w, "b", "c"), 0);
        away(&w);
        back(&w);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(told(&w), 0);
        CHECK_STR(real_get(&w, "c"), "ours");
        CHECK(!is_there(&w, "a") && !is_there(&w, "b"));
        world_done(&w);
}

/* Each its own part of one file, in place, at the same time. */
static void two_programs_share_a_file_as_on_a_disk(void)
{
        struct vol_file *f;
        struct world w;
        char data[4];

        w = (struct world){.is_journaled = true, .ttl_ns = LONG_NS};
        if (!world_init(&w))
                return;
        real_fill(&w, "a", 'a', LARGE);
        f = open_at(&w, "a", O_RDWR);
        for (int i = 0; i < 10; i++) {
                write_at(&w, f, "bbbb", 100 + 4 * (uint64_t)i);
                real_write(&w, "a", "cccc", (off_t)(LARGE - 200 + 4 * i));
                CHECK_EQ(read_file(&w, f, data, 4, LARGE / 2 + 8192 * (uint64_t)i), 4);
                CHECK_EQ(w.ops->fsync(w.v, ask(&(struct asking){0}, true), f, false), 0);
        }
        CHECK_EQ(read_file(&w, f, data, 4, LARGE - 200), 4);
        CHECK(memcmp(data, "cccc", 4) == 0);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(told(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        {
                size_t first;

                CHECK_EQ(real_others(&w, "a", 'a', LARGE, &first), 80);
                CHECK_EQ(first, 100);
        }
        world_done(&w);
}

/* ---- the last close wins ---- */

static void whole_file_replaces_theirs(void)
{
        struct vol_file *f;
        struct world w;

        if (!begin(&w))
                return;
        real_put_settled(&w, "a", "theirs", 6);
        f = open_at(&w, "a", O_WRONLY | O_TRUNC);
        away(&w);
        write_at(&w, f, "ours", 0);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK(sync_all(&w) < 0);
        real_put(&w, "a", "theirs, of later", 16);
        CHECK_STR(get(&w, "a"), "ours");
        back(&w);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "ours");
        CHECK(was_told(&w, "a: changed in the sandbox while our change waited; ours replaced it"));
        CHECK_EQ(unsent(&w), 0);
        /* And that was that. */
        sleep_for_ms(30);
        CHECK_EQ(put(&w, "a", "ours again"), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(told(&w), 0);
        world_done(&w);
}

/* A listing tells of theirs before ours is sent: it is a conflict all the same. */
static void change_that_was_listed_is_still_told(void)
{
        struct vol_file *f;
        struct stat st = {0};
        struct world w;

        if (!begin(&w))
                return;
        real_put_settled(&w, "a", "theirs", 6);
        real_put_settled(&w, "b", "b", 1);
        f = open_at(&w, "a", O_WRONLY | O_TRUNC);
        write_at(&w, f, "ours", 0);
        sleep_for_ms(30);
        real_put(&w, "a", "theirs, of later", 16);
        CHECK_EQ(stat_at(&w, "b", &st), 0); /* its directory is listed */
        CHECK_EQ(stat_at(&w, "a", &st), 0);
        CHECK_EQ(st.st_size, 4);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "ours");
        CHECK(was_told(&w, "a: changed"));
        world_done(&w);
}

/* Once or twice, which takes over what the first one was based on; with its bytes here, or without. */
static void editor_that_renames_over_replaces_theirs(void)
{
        for (int i = 0; i < 4; i++) {
                struct world w = {.is_journaled = true, .ttl_ns = 2 * NS_PER_S};

                if (!world_init(&w))
                        return;
                real_put_settled(&w, "a", "theirs", 6);
                if (i % 2 == 1)
                        CHECK_STR(get(&w, "a"), "theirs");
                CHECK(node_of(&w, "a") != 0);
                atomic_store(&w.box.enter_error, -EHOSTUNREACH);
                for (int k = 0; k <= i / 2; k++) {
                        CHECK_EQ(put(&w, "a.tmp", k == 0 ? "ours" : "ours, too"), 0);
                        CHECK_EQ(move(&w, "a.tmp", "a"), 0);
                }
                sleep_for_ms(2100);
                real_put(&w, "a", "theirs, of later", 16);
                back(&w);
                CHECK_EQ(sync_all(&w), 0);
                CHECK_STR(real_get(&w, "a"), i / 2 == 1 ? "ours, too" : "ours");
                CHECK(!is_there(&w, "a.tmp"));
                CHECK(was_told(&w, "a: changed"));
                world_done(&w);
        }
}

static void parts_go_whole_where_all_is_here(void)
{
        struct vol_file *f, *reader;
        struct world w;
        char data[32];

        if (!begin(&w))
                return;
        real_put_settled(&w, "a", "aaaaaaaa", 8);
        CHECK_STR(get(&w, "a"), "aaaaaaaa");
        f = open_at(&w, "a", O_RDWR);
        reader = open_at(&w, "a", O_RDONLY);
        away(&w);
        write_at(&w, f, "BB", 2);
        CHECK_EQ(flush_file(&w, f), 0);
        real_put(&w, "a", "cccccccccccc", 12);
        CHECK(sync_all(&w) < 0);
        CHECK_EQ(read_file(&w, reader, data, 32, 0), 8);
        back(&w);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "aaBBaaaa");
        CHECK(was_told(&w, "a: changed in the sandbox"));
        CHECK_EQ(read_file(&w, reader, data, 32, 0), 8);
        CHECK(memcmp(data, "aaBBaaaa", 8) == 0);
        w.ops->release(w.v, reader);
        /* It goes on in place. */
        write_at(&w, f, "DD", 4);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "aaBBDDaa");
        CHECK_EQ(told(&w), 0);
        world_done(&w);
}

static void removed_file_is_made_anew(void)
{
        struct vol_file *whole, *parts;
        struct world w;

        if (!begin(&w))
                return;
        real_put_settled(&w, "whole", "theirs", 6);
        real_put_settled(&w, "parts", "aaaa", 4);
        CHECK_STR(get(&w, "parts"), "aaaa");
        whole = open_at(&w, "whole", O_WRONLY | O_TRUNC);
        parts = open_at(&w, "parts", O_RDWR);
        away(&w);
        write_at(&w, whole, "ours", 0);
        write_at(&w, parts, "BB", 1);
        CHECK_EQ(close_file(&w, whole), 0);
        CHECK_EQ(close_file(&w, parts), 0);
        CHECK(sync_all(&w) < 0);
        CHECK_EQ(unlinkat(w.box.dir, "whole", 0), 0);
        CHECK_EQ(unlinkat(w.box.dir, "parts", 0), 0);
        back(&w);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "whole"), "ours");
        CHECK_STR(real_get(&w, "parts"), "aBBa");
        CHECK_EQ(told(&w), 2);
        CHECK_EQ(unsent(&w), 0);
        world_done(&w);
}

static void change_that_waited_over_a_restart_wins(void)
{
        struct vol_file *f;
        struct world w;

        if (!begin(&w))
                return;
        real_put_settled(&w, "a", "theirs", 6);
        f = open_at(&w, "a", O_WRONLY | O_TRUNC);
        away(&w);
        write_at(&w, f, "ours", 0);
        CHECK_EQ(close_file(&w, f), 0);
        world_unmount(&w);
        real_put(&w, "a", "theirs, of later", 16);
        back(&w);
        if (!world_mount(&w))
                return;
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "ours");
        CHECK(was_told(&w, "a: changed"));
        world_done(&w);
}

/* ---- what can't be decided is people's ---- */

/* A large file of 'a', ours at 100 waits, and inside it is all 'c' by now; *ret still open. */
static bool make_conflict(struct world *w, struct vol_file **ret)
{
        if (!begin(w))
                return false;
        real_fill(w, "a", 'a', LARGE);
        *ret = open_at(w, "a", O_RDWR);
        if (!CHECK(*ret))
                return false;
        away(w);
        write_at(w, *ret, "BBBB", 100);
        CHECK_EQ(flush_file(w, *ret), 0);
        CHECK(sync_all(w) < 0);
        real_fill(w, "a", 'c', LARGE);
        back(w);
        return true;
}

static void parts_are_not_patched_into_another_version(void)
{
        struct vol_file *f;
        struct world w;
        char data[8];
        size_t first;

        if (!make_conflict(&w, &f))
                return;
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(real_others(&w, "a", 'c', LARGE, &first), 0);
        CHECK_EQ(told(&w), 0);
        CHECK_EQ(atomic_load(&w.box.failed_events), 1);
        mutex_lock(&w.box.lock);
        CHECK(strstr(w.box.last_failed, "writes our 4 bytes into it all the same"));
        mutex_unlock(&w.box.lock);
        /* What is ours can be read, what isn't any more can't. */
        CHECK_EQ(read_file(&w, f, data, 4, 100), 4);
        CHECK(memcmp(data, "BBBB", 4) == 0);
        CHECK_EQ(read_file(&w, f, data, 8, LARGE / 2), -ESTALE);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(w.ops->retry(w.v), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(real_others(&w, "a", 'c', LARGE, &first), 4);
        CHECK_EQ(first, 100);
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(read_file(&w, f, data, 8, 98), 8);
        CHECK(memcmp(data, "ccBBBBcc", 8) == 0);
        CHECK_EQ(close_file(&w, f), 0);
        world_done(&w);
}

static void retry_goes_through_an_open_file(void)
{
        struct vol_file *f;
        struct world w;
        char data[8];

        if (!make_conflict(&w, &f))
                return;
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(w.ops->retry(w.v), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(read_file(&w, f, data, 8, 98), 8);
        CHECK(memcmp(data, "ccBBBBcc", 8) == 0);
        write_at(&w, f, "DD", 106);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(told(&w), 0);
        world_done(&w);
}

static void discarded_one_is_theirs(void)
{
        struct vol_file *f;
        struct world w;
        char data[8];
        size_t first;

        if (!make_conflict(&w, &f))
                return;
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(close_file(&w, f), 0); /* tries once more */
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(w.ops->discard(w.v, "a"), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(dirty_files(&w), 0);
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(read_file(&w, f, data, 8, 98), 8);
        CHECK(memcmp(data, "cccccccc", 8) == 0);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(real_others(&w, "a", 'c', LARGE, &first), 0);
        world_done(&w);
}

static void conflict_outlives_a_restart(void)
{
        struct vol_file *f;
        struct world w;
        char data[8];
        size_t first;

        if (!make_conflict(&w, &f))
                return;
        w.ops->release(w.v, f);
        for (int i = 0; i < 2; i++) { /* met before the restart, or after it */
                if (i == 1)
                        CHECK_EQ(sync_all(&w), 0);
                world_unmount(&w);
                if (!world_mount(&w))
                        return;
        }
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(real_others(&w, "a", 'c', LARGE, &first), 0);
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(read_file(&w, f, data, 4, 100), 4);
        CHECK_EQ(read_file(&w, f, data, 8, LARGE / 2), -ESTALE);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(w.ops->retry(w.v), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(real_others(&w, "a", 'c', LARGE, &first), 4);
        world_done(&w);
}

static void removed_file_keeps_parts_unsent(void)
{
        struct vol_file *f;
        struct world w;

        if (!make_conflict(&w, &f))
                return;
        CHECK_EQ(unlinkat(w.box.dir, "a", 0), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK(!is_there(&w, "a"));
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(w.ops->discard(w.v, "a"), 0);
        CHECK_EQ(unsent(&w), 0);
        world_done(&w);
}

/* Theirs comes to be known by reading on, before ours is sent. */
static void reader_never_sees_a_mixture(void)
{
        struct vol_file *f;
        struct world w;
        char data[8];

        if (!begin(&w))
                return;
        real_fill(&w, "a", 'a', LARGE);
        f = open_at(&w, "a", O_RDWR);
        CHECK_EQ(read_file(&w, f, data, 8, 96), 8);
        write_at(&w, f, "BBBB", 100);
        real_fill(&w, "a", 'c', LARGE); /* takes longer than what is seen is believed */
        for (uint64_t at = LARGE / 4; at < LARGE; at += LARGE / 4) {
                CHECK_EQ(read_file(&w, f, data, 8, at), -ESTALE);
                CHECK_EQ(read_file(&w, f, data, 8, 96), 8);
                CHECK(memcmp(data, "aaaaBBBB", 8) == 0);
        }
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(w.ops->discard(w.v, "a"), 0);
        world_done(&w);
}

/* Nobody looks again at what was seen just now, but its size tells. */
static void parts_that_met_another_version_are_read_as_they_are_there(void)
{
        char *data = malloc(LARGE + 2);
        struct vol_file *f;
        struct world w = {.is_journaled = true, .ttl_ns = LONG_NS};

        if (!CHECK(data) || !world_init(&w))
                return;
        real_fill(&w, "a", 'a', LARGE);
        f = open_at(&w, "a", O_RDWR);
        for (uint64_t at = 0; at < LARGE; at += 128 * 1024) /* all of it is here */
                CHECK(read_file(&w, f, data, 128 * 1024, at) > 0);
        write_at(&w, f, "OOOO", 100);
        real_fill(&w, "a", 'b', LARGE + 1);
        CHECK_EQ(flush_file(&w, f), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(close_file(&w, f), 0);
        f = open_at(&w, "a", O_RDONLY);
        CHECK_EQ(read_file(&w, f, data, 128 * 1024, 0), 128 * 1024);
        CHECK(memcmp(data + 98, "bbOOOObb", 8) == 0);
        CHECK_EQ(read_file(&w, f, data, 128 * 1024, LARGE - 1), 2);
        CHECK(memcmp(data, "bb", 2) == 0);
        CHECK_EQ(close_file(&w, f), 0);
        world_done(&w);
        free(data);
}

static void versions_are_compared_as_far_as_they_are_told(void)
{
        struct stat a = {.st_size = 5, .st_mtim = {100, 7}}, b = a;

        CHECK(conflict_is_same(&a, &b));
        b.st_mtim.tv_nsec = 0;
        CHECK(conflict_is_same(&a, &b));
        b.st_mtim.tv_nsec = 8;
        CHECK(!conflict_is_same(&a, &b));
        b = a;
        b.st_ctim.tv_sec = 1; /* a mode was set */
        CHECK(conflict_is_same(&a, &b));
        b.st_size++;
        CHECK(!conflict_is_same(&a, &b));
        b = a;
        b.st_mtim.tv_sec++;
        CHECK(!conflict_is_same(&a, &b));
        a.st_mtim.tv_sec = -5; /* before 1970, and as SFTP tells it */
        b.st_mtim.tv_sec = 4294967291;
        CHECK(conflict_is_same(&a, &b));
}

int main(void)
{
        RUN(look_costs_one_call_and_only_when_it_must);
        RUN(lost_answers_are_no_conflict);
        RUN(own_times_are_no_conflict);
        RUN(renamed_files_are_no_conflict);
        RUN(two_programs_share_a_file_as_on_a_disk);
        RUN(whole_file_replaces_theirs);
        RUN(change_that_was_listed_is_still_told);
        RUN(editor_that_renames_over_replaces_theirs);
        RUN(parts_go_whole_where_all_is_here);
        RUN(removed_file_is_made_anew);
        RUN(change_that_waited_over_a_restart_wins);
        RUN(parts_are_not_patched_into_another_version);
        RUN(retry_goes_through_an_open_file);
        RUN(discarded_one_is_theirs);
        RUN(conflict_outlives_a_restart);
        RUN(removed_file_keeps_parts_unsent);
        RUN(reader_never_sees_a_mixture);
        RUN(parts_that_met_another_version_are_read_as_they_are_there);
        RUN(versions_are_compared_as_far_as_they_are_told);
        return check_result();
}
