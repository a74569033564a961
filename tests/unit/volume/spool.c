/* SPDX-License-Identifier: Apache-2.0 */
/* Extents, blobs, and records of what waits to be sent. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/volume/dirty.h"
#include "fs/volume/extents.h"
#include "fs/volume/spool.h"
#include "tests/unit/check.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

#define SPAN 200

/* ---- extents ---- */

static bool same_as(const struct extents *e, const bool *model)
{
        size_t i = 0;

        for (uint64_t at = 0; at < SPAN; at++) {
                while (i < e->count && e->at[i].end <= at)
                        i++;
                if ((i < e->count && e->at[i].start <= at) != model[at])
                        return false;
        }
        for (i = 1; i < e->count; i++)
                if (e->at[i].start <= e->at[i - 1].end)
                        return false; /* not joined, or out of order */
        return true;
}

static void extents_equal_a_bitmap(void)
{
        unsigned seed = (unsigned)clock_real_ns(), first = seed;
        struct extents e = {0};
        bool model[SPAN] = {false};

        for (int i = 0; i < 20000; i++) {
                uint64_t start = (uint64_t)(rand_r(&seed) % SPAN);
                uint64_t end = start + (uint64_t)(rand_r(&seed) % 12);
                bool adds = rand_r(&seed) % 2;
                struct extent part;
                uint64_t at;

                if (end > SPAN)
                        end = SPAN;
                CHECK_EQ(adds ? extents_add(&e, start, end) : extents_remove(&e, start, end), 0);
                for (uint64_t x = start; x < end; x++)
                        model[x] = adds;
                start = (uint64_t)(rand_r(&seed) % SPAN);
                for (at = start; at < SPAN && model[at]; at++)
                        ;
                if (!CHECK(same_as(&e, model)) ||
                    !CHECK_EQ(extents_gap(&e, start, SPAN, &part), at < SPAN) ||
                    (at < SPAN && !CHECK_EQ(part.start, at))) {
                        (void)fprintf(stderr, "seed %u, step %d\n", first, i);
                        break;
                }
        }
        extents_done(&e);
}

/* ---- blobs ---- */

struct place {
        char path[64];
        int dir;
        struct spool spool;
};

static bool place_init(struct place *p)
{
        (void)snprintf(p->path, sizeof(p->path), "/tmp/sbxfs-spool.XXXXXX");
        if (!CHECK(mkdtemp(p->path)))
                return false;
        p->dir = open(p->path, O_RDONLY | O_DIRECTORY);
        spool_init(&p->spool, p->dir, 1 << 20);
        return CHECK(p->dir >= 0);
}

static void place_done(struct place *p)
{
        (void)close(p->dir); /* a test's */
        CHECK_EQ(file_remove_tree(AT_FDCWD, p->path), 0);
}

static bool has(const struct place *p, const char *name)
{
        return faccessat(p->dir, name, F_OK, 0) == 0;
}

static void blob_moves_to_a_file(void)
{
        struct place p;
        struct blob *b;
        char got[16];

        if (!place_init(&p))
                return;
        b = blob_new();
        CHECK_EQ(blob_write(&p.spool, b, "hello", 5, 3), 0);
        CHECK_EQ(atomic_load(&p.spool.memory), 8);
        CHECK_EQ(blob_read(&p.spool, b, got, 10, 0), 0);
        CHECK(memcmp(got, "\0\0\0hello\0\0", 10) == 0);
        CHECK_EQ(blob_to_file(&p.spool, b), 0);
        CHECK_EQ(atomic_load(&p.spool.memory), 0);
        CHECK(has(&p, "b-0000000000000001"));
        CHECK_EQ(b->fd, -1); /* nobody holds it */
        CHECK_EQ(blob_read(&p.spool, b, got, 10, 0), 0);
        CHECK(memcmp(got, "\0\0\0hello\0\0", 10) == 0);
        blob_hold(b);
        CHECK_EQ(blob_zero(&p.spool, b, 4, 6), 0);
        CHECK(b->fd >= 0);
        CHECK_EQ(blob_read(&p.spool, b, got, 8, 0), 0);
        CHECK(memcmp(got, "\0\0\0h\0\0lo", 8) == 0);
        CHECK_EQ(blob_resize(&p.spool, b, 4), 0);
        CHECK_EQ(blob_resize(&p.spool, b, 8), 0);
        CHECK_EQ(blob_read(&p.spool, b, got, 8, 0), 0);
        CHECK(memcmp(got, "\0\0\0h\0\0\0\0", 8) == 0);
        blob_release(b);
        blob_unref(&p.spool, b);
        CHECK(!has(&p, "b-0000000000000001"));
        place_done(&p);
}

static void large_blob_is_a_file(void)
{
        struct place p;
        struct blob *b;

        if (!place_init(&p))
                return;
        b = blob_new();
        CHECK_EQ(blob_write(&p.spool, b, "x", 1, SPOOL_SMALL - 1), 0);
        CHECK_EQ(b->id, 0);
        CHECK_EQ(blob_write(&p.spool, b, "x", 1, SPOOL_SMALL), 0);
        CHECK(b->id != 0);
        blob_count(&p.spool, b, SPOOL_SMALL + 1);
        CHECK_EQ(atomic_load(&p.spool.disk), SPOOL_SMALL + 1);
        blob_unref(&p.spool, b);
        CHECK_EQ(atomic_load(&p.spool.disk), 0);
        place_done(&p);
}

/* ---- records ---- */

static void record_comes_back(void)
{
        struct place p;
        struct dirty_found *found = NULL;
        struct dirty_record r = {.path = "dir/a b\n\xff",
                                 .sets_mode = true,
                                 .mode = 0755,
                                 .mtime = {12, 34},
                                 .base = {.st_size = 100, .st_ino = 7, .st_mtim = {5, 6}}};
        size_t count = 0;
        uint64_t max = 0;
        int fd;

        if (!place_init(&p))
                return;
        CHECK(!dirty_any(p.dir));
        CHECK_EQ(dirty_write(p.dir, 9, &r), 0);
        fd = openat(p.dir, "b-0000000000000009", O_WRONLY | O_CREAT, 0600);
        (void)close(fd); /* empty */
        CHECK_EQ(dirty_log_write(p.dir, 9, 10, 20), 0);
        CHECK_EQ(dirty_log_size(p.dir, 9, 15), 0);
        CHECK_EQ(dirty_log_write(p.dir, 9, 30, 40), 0);
        fd = openat(p.dir, "b-0000000000000003", O_WRONLY | O_CREAT, 0600);
        (void)close(fd); /* of no record */
        CHECK(dirty_any(p.dir));
        CHECK_EQ(dirty_find(p.dir, &found, &count, &max), 0);
        CHECK(!has(&p, "b-0000000000000003"));
        CHECK_EQ(max, 9);
        if (CHECK_EQ(count, 1)) {
                CHECK_STR(found->path, r.path);
                CHECK_EQ(found->record.mode, 0755);
                CHECK(found->record.sets_mode && !found->record.is_whole);
                CHECK_EQ(found->record.base.st_mtim.tv_nsec, 6);
                CHECK_EQ(found->record.mtime.tv_nsec, 34);
                CHECK_EQ(found->parts.size, 40);
                CHECK_EQ(found->parts.dirty.count, 1); /* the hole up to 30 is zeros of ours */
                CHECK_EQ(found->parts.dirty.at[0].start, 10);
                dirty_found_done(found);
        }
        free(found);
        dirty_remove(p.dir, 9);
        CHECK(!dirty_any(p.dir));
        place_done(&p);
}

static void unreadable_record_is_kept(void)
{
        struct place p;
        struct dirty_found *found = NULL;
        size_t count = 0;
        uint64_t max = 0;
        int fd;

        if (!place_init(&p))
                return;
        fd = openat(p.dir, "r-0000000000000005", O_WRONLY | O_CREAT, 0600);
        CHECK_EQ(file_write_all(fd, "sbxfs record 1\npath", 19), 0);
        (void)close(fd); /* cut */
        fd = openat(p.dir, "b-0000000000000005", O_WRONLY | O_CREAT, 0600);
        (void)close(fd); /* empty */
        CHECK_EQ(dirty_find(p.dir, &found, &count, &max), 0);
        CHECK_EQ(count, 0);
        CHECK_EQ(max, 5);
        CHECK(has(&p, "b-0000000000000005") && has(&p, "r-0000000000000005"));
        free(found);
        place_done(&p);
}

static void list_made_anew_says_the_same(void)
{
        struct place p;
        struct dirty_parts parts = {.size = 50, .base_size = 50};
        struct dirty_record r = {.path = "a", .base = {.st_size = 50}};
        struct dirty_found *found = NULL;
        size_t count = 0;
        uint64_t max = 0;
        int fd;

        if (!place_init(&p))
                return;
        CHECK_EQ(dirty_wrote(&parts, 10, 20), 0);
        CHECK_EQ(dirty_resized(&parts, 30), 0);
        CHECK_EQ(dirty_wrote(&parts, 60, 70), 0);
        CHECK_EQ(dirty_resized(&parts, 80), 0);
        CHECK_EQ(parts.dirty.count, 3); /* 10-20, 30-50, 60-70 */
        fd = openat(p.dir, "b-0000000000000001", O_WRONLY | O_CREAT, 0600);
        (void)close(fd); /* empty */
        CHECK_EQ(dirty_write(p.dir, 1, &r), 0);
        CHECK_EQ(dirty_log_anew(p.dir, 1, &parts), 0);
        CHECK_EQ(dirty_find(p.dir, &found, &count, &max), 0);
        if (CHECK_EQ(count, 1)) {
                CHECK_EQ(found->parts.size, 80);
                CHECK_EQ(found->parts.dirty.count, 3);
                for (size_t i = 0; i < parts.dirty.count && i < found->parts.dirty.count; i++) {
                        CHECK_EQ(found->parts.dirty.at[i].start, parts.dirty.at[i].start);
                        CHECK_EQ(found->parts.dirty.at[i].end, parts.dirty.at[i].end);
                }
                dirty_found_done(found);
        }
        free(found);
        extents_done(&parts.dirty);
        place_done(&p);
}

int main(void)
{
        RUN(extents_equal_a_bitmap);
        RUN(blob_moves_to_a_file);
        RUN(large_blob_is_a_file);
        RUN(record_comes_back);
        RUN(unreadable_record_is_kept);
        RUN(list_made_anew_says_the_same);
        return check_result();
}
