/* SPDX-License-Identifier: Apache-2.0 */
/* The cached volume on a local disk that is small, or full: a tmpfs in a mount namespace of ours. */

#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "tests/unit/volume/content_support.h"
#include "transport/base/cleanup.h"

#define DISK "size=12m,mode=700"
#define RESERVE (12 * MIB / 16)
#define SKIPPED 77

/* ---- the disk ---- */

static bool write_text(const char *path, const char *text)
{
        int fd = open(path, O_WRONLY);
        bool is_done = fd >= 0 && file_write_all(fd, text, strlen(text)) == 0;

        if (fd >= 0)
                (void)close(fd); /* a kernel's file */
        return is_done;
}

/* Mounts of ours are seen by nobody else. False: users may not. */
static bool enter_namespace(void)
{
        bool is_root = geteuid() == 0;
        char users[32], groups[32];

        (void)snprintf(users, sizeof(users), "0 %u 1", (unsigned)geteuid());
        (void)snprintf(groups, sizeof(groups), "0 %u 1", (unsigned)getegid());
        if (unshare(CLONE_NEWNS | (is_root ? 0 : CLONE_NEWUSER)) < 0)
                return false;
        if (!is_root && (!write_text("/proc/self/uid_map", users) ||
                         !write_text("/proc/self/setgroups", "deny") ||
                         !write_text("/proc/self/gid_map", groups)))
                return false;
        return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static bool small_world_init(struct world *w)
{
        if (!world_init(w))
                return false;
        world_unmount(w);
        return CHECK_EQ(mount("none", w->state, "tmpfs", 0, DISK), 0) && world_mount(w);
}

static void small_world_done(struct world *w)
{
        world_unmount(w);
        CHECK_EQ(umount2(w->state, MNT_DETACH), 0);
        world_done(w);
}

static uint64_t left(const struct world *w)
{
        struct statvfs st = {0};

        CHECK_EQ(statvfs(w->state, &st), 0);
        return (uint64_t)st.f_bavail * st.f_frsize;
}

/* Somebody else takes all of it. */
static void fill_up(const struct world *w)
{
        int dir = open(w->state, O_RDONLY | O_DIRECTORY);
        int fd = openat(dir, "ballast", O_WRONLY | O_CREAT, 0600);
        _cleanup_(freep) char *data = pattern(4096);

        while (fd >= 0 && data && write(fd, data, 4096) > 0)
                ;
        CHECK_EQ(left(w), 0);
        (void)close(fd); /* a test's */
        (void)close(dir); /* a test's */
}

/* ---- files ---- */

/* How many bytes were taken; *ret of the first write that wasn't, or of the close. */
static uint64_t put_large(struct world *w, const char *path, const char *data, uint64_t size,
                          int *ret)
{
        struct vol_file *f = create_at(w, path, O_WRONLY | O_TRUNC);
        uint64_t at = 0;
        ssize_t n = 1;
        int r;

        *ret = -EIO;
        if (!CHECK(f))
                return 0;
        while (at < size && (n = write_file(w, f, data + at, MIB / 8, at)) > 0)
                at += (uint64_t)n;
        r = close_file(w, f);
        *ret = n < 0 ? (int)n : r;
        return at;
}

static bool is_there(struct world *w, const char *path, const char *data, size_t size)
{
        _cleanup_(freep) char *got = malloc(size + 1);
        int fd = openat(w->box.dir, path, O_RDONLY);
        ssize_t n = got && fd >= 0 ? file_pread_full(fd, got, size + 1, 0) : -1;

        if (fd >= 0)
                (void)close(fd); /* read only */
        return n == (ssize_t)size && memcmp(got, data, size) == 0;
}

static bool reads_right(struct world *w, const char *path, const char *data, uint64_t size)
{
        struct vol_file *f = open_at(w, path, O_RDONLY);
        _cleanup_(freep) char *got = malloc(MIB);
        bool is_right = CHECK(f && got);

        for (uint64_t at = 0; is_right && at < size; at += MIB) {
                size_t n = size - at < MIB ? (size_t)(size - at) : MIB;

                is_right = CHECK_EQ(read_file(w, f, got, MIB, at), n) &&
                           CHECK(memcmp(got, data + at, n) == 0) && CHECK(left(w) >= RESERVE / 2);
        }
        if (f)
                w->ops->release(w->v, f);
        return is_right;
}

static void what_is_sent_makes_room(void)
{
        struct world w = {0};
        _cleanup_(freep) char *data = pattern(8 * MIB);
        char name[16];
        int r;

        if (!small_world_init(&w) || !CHECK(data))
                return;
        for (unsigned i = 0; i < 4; i++) {
                (void)snprintf(name, sizeof(name), "f%u", i);
                CHECK_EQ(put_large(&w, name, data, 8 * MIB, &r), 8 * MIB);
                CHECK_EQ(r, 0);
                CHECK(is_there(&w, name, data, 8 * MIB));
                CHECK(left(&w) >= RESERVE);
        }
        small_world_done(&w);
}

static void larger_file_than_the_disk_is_read(void)
{
        struct world w = {0};
        _cleanup_(freep) char *data = pattern(32 * MIB);

        if (!small_world_init(&w) || !CHECK(data))
                return;
        real_put_settled(&w, "a", data, 32 * MIB);
        real_put_settled(&w, "b", data, 9 * MIB);
        for (unsigned i = 0; i < 2; i++) {
                CHECK(reads_right(&w, "a", data, 32 * MIB));
                CHECK(reads_right(&w, "b", data, 9 * MIB));
        }
        CHECK_EQ(put(&w, "c", "ours"), 0);
        CHECK_STR(real_get(&w, "c"), "ours");
        small_world_done(&w);
}

/* Not what is open and was changed, of which parts are ours. */
static void full_disk_is_read_past(void)
{
        struct world w = {.is_journaled = true};
        _cleanup_(freep) char *data = pattern(2 * MIB), *got = malloc(MIB);
        struct vol_file *f;
        uint64_t at;

        if (!small_world_init(&w) || !CHECK(data && got))
                return;
        real_put(&w, "a", data, 2 * MIB);
        memcpy(data + MIB + 100, "ours", 4);
        real_put_settled(&w, "b", data, 2 * MIB);
        f = open_at(&w, "a", O_RDWR);
        if (!CHECK(f))
                return;
        CHECK_EQ(write_file(&w, f, "ours", 4, MIB + 100), 4); /* as in b */
        fill_up(&w);
        for (at = 0; at < 2 * MIB; at += MIB) {
                CHECK_EQ(read_file(&w, f, got, MIB, at), MIB);
                CHECK(memcmp(got, data + at, MIB) == 0);
        }
        w.ops->release(w.v, f); /* a later sync finds room for its record */
        f = open_at(&w, "b", O_RDONLY);
        for (at = 0; CHECK(f) && at < 2 * MIB; at += MIB) {
                CHECK_EQ(read_file(&w, f, got, MIB, at), MIB);
                CHECK(memcmp(got, data + at, MIB) == 0);
        }
        CHECK_EQ(unlinkat(w.box.dir, "b", 0), 0); /* what is open of it goes on */
        CHECK_EQ(read_file(&w, f, got, 10, 5), 10);
        CHECK(memcmp(got, data + 5, 10) == 0);
        if (f)
                w.ops->release(w.v, f);
        small_world_done(&w);
}

static void what_waits_is_never_dropped(void)
{
        struct world w = {.is_journaled = true};
        _cleanup_(freep) char *data = pattern(16 * MIB);
        uint64_t taken;
        int r;

        if (!small_world_init(&w) || !CHECK(data))
                return;
        CHECK_EQ(put_large(&w, "clean", data, 4 * MIB, &r), 4 * MIB);
        CHECK_EQ(sync_all(&w), 0);
        atomic_store(&w.box.error[FAKE_APPLY], -EHOSTUNREACH);
        taken = put_large(&w, "ours", data, 16 * MIB, &r);
        CHECK_EQ(r, -ENOSPC);
        CHECK(taken > 10 * MIB);
        CHECK_EQ(dirty_files(&w), 1);
        atomic_store(&w.box.error[FAKE_APPLY], 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK(is_there(&w, "ours", data, taken));
        CHECK(is_there(&w, "clean", data, 4 * MIB));
        CHECK(left(&w) >= RESERVE);
        CHECK_EQ(put(&w, "next", "ours"), 0);
        small_world_done(&w);
}

int main(void)
{
        if (!enter_namespace()) {
                (void)fprintf(stderr, "skipped: this user may mount no tmpfs\n");
                return SKIPPED;
        }
        RUN(what_is_sent_makes_room);
        RUN(larger_file_than_the_disk_is_read);
        RUN(full_disk_is_read_past);
        RUN(what_waits_is_never_dropped);
        return check_result();
}
