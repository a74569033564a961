/* SPDX-License-Identifier: Apache-2.0 */
/* The direct volume against a directory, with the sandbox's side played by plain system calls. */

#include <linux/falloc.h>
#include <sys/statvfs.h>
#include <sys/time.h>

#include "tests/unit/volume/support.h"

static void created_files_can_be_found_and_read(void)
{
        struct fixture f;
        struct vol_entry e;
        struct stat st;
        uint64_t dir, node;

        if (!fixture_init(&f))
                return;
        dir = make_dir(&f, VOLUME_ROOT, "d");
        put(&f, dir, "x", "hello");
        node = walk(&f, "d/x");
        CHECK_STR(content_at(&f, node), "hello");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, node, NULL, &e), 0);
        CHECK_EQ(e.st.st_size, 5);
        CHECK_EQ(e.st.st_mode, S_IFREG | 0644);
        CHECK_EQ(e.ttl_ns, NS_PER_S);
        CHECK_EQ(stat(real(&f, "d/x"), &st), 0);
        CHECK_EQ(st.st_ino, e.st.st_ino);
        CHECK_EQ(st.st_uid, f.uid);
        CHECK_EQ(stat(real(&f, "d"), &st), 0);
        CHECK_EQ(st.st_uid, f.uid);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "none", &e), 0);
        CHECK_EQ(e.node, 0);
        CHECK_EQ(e.ttl_ns, NS_PER_S);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "..", &e), -EINVAL);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "a/b", &e), -EINVAL);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, 4711, "a", &e), -ESTALE);
        fixture_done(&f);
}

static void what_is_made_belongs_to_the_box(void)
{
        struct fixture f;
        struct vol_entry e;
        struct vol_opened o;
        struct stat st;
        uint64_t dir;

        if (!fixture_init(&f))
                return;
        CHECK_EQ(f.ops->symlink(f.v, &f.op, VOLUME_ROOT, "l", "x", &e), 0);
        CHECK_EQ(lstat(real(&f, "l"), &st), 0);
        CHECK_EQ(st.st_uid, f.uid);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, VOLUME_ROOT, "p", S_IFIFO | 0666, &e), 0);
        CHECK_EQ(e.st.st_mode, S_IFIFO | 0644);
        CHECK_EQ(lstat(real(&f, "p"), &st), 0);
        CHECK_EQ(st.st_uid, f.uid);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, VOLUME_ROOT, "s", S_IFSOCK | 0600, &e), 0);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, VOLUME_ROOT, "c", S_IFCHR | 0600, &e), -EPERM);
        dir = make_dir(&f, VOLUME_ROOT, "ro");
        CHECK_EQ(chmod(real(&f, "ro"), 0555), 0);
        /* Root keeps its powers: a directory that its owner can't write in doesn't stop it. */
        if (geteuid() == 0) {
                CHECK_EQ(f.ops->create(f.v, &f.op, dir, "x", 04755, O_RDWR | O_EXCL, &e, &o), 0);
                f.ops->release(f.v, o.file);
                CHECK_EQ(stat(real(&f, "ro/x"), &st), 0);
                CHECK_EQ(st.st_uid, f.uid);
                CHECK_EQ(st.st_mode, S_IFREG | 04755);
                CHECK_EQ(f.ops->mkdir(f.v, &f.op, dir, "y", 0700, &e), 0);
                CHECK_EQ(stat(real(&f, "ro/y"), &st), 0);
                CHECK_EQ(st.st_uid, f.uid);
                CHECK_EQ(access("/root", W_OK), 0); /* the thread is root's again */
        } else {
                CHECK_EQ(f.ops->create(f.v, &f.op, dir, "x", 0755, O_RDWR | O_EXCL, &e, &o),
                         -EACCES);
                CHECK_EQ(f.ops->mkdir(f.v, &f.op, dir, "y", 0700, &e), -EACCES);
        }
        CHECK_EQ(chmod(real(&f, "ro"), 0755), 0);
        fixture_done(&f);
}

static void files_follow_their_inode_and_directories_their_path(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t dir, file, again;

        if (!fixture_init(&f))
                return;
        dir = make_dir(&f, VOLUME_ROOT, "d");
        put(&f, VOLUME_ROOT, "x", "old");
        file = look(&f, VOLUME_ROOT, "x");
        put_real(&f, "new", "new");
        CHECK_EQ(rename(real(&f, "new"), real(&f, "x")), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), -ESTALE);
        CHECK_STR(content_at(&f, file), "(no open)");
        again = look(&f, VOLUME_ROOT, "x");
        CHECK(again != file);
        CHECK_STR(content_at(&f, again), "new");
        /* The directory is another now, the number is the path's. */
        CHECK_EQ(rename(real(&f, "d"), real(&f, "d2")), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ENOENT);
        CHECK_EQ(mkdir(real(&f, "d"), 0700), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "d"), dir);
        CHECK(look(&f, VOLUME_ROOT, "d2") != dir);
        /* A file in its place has a number of its own. */
        CHECK_EQ(rmdir(real(&f, "d")), 0);
        put_real(&f, "d", "file");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ESTALE);
        CHECK(look(&f, VOLUME_ROOT, "d") != dir);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ESTALE);
        fixture_done(&f);
}

static void rename_takes_the_subtree_along(void)
{
        struct fixture f;
        uint64_t a, b, x;

        if (!fixture_init(&f))
                return;
        a = make_dir(&f, VOLUME_ROOT, "a");
        b = make_dir(&f, a, "b");
        put(&f, b, "x", "content");
        x = walk(&f, "a/b/x");
        CHECK_EQ(
                f.ops->rename(f.v, &f.op, VOLUME_ROOT, "a", VOLUME_ROOT, "a-with-a-longer-name", 0),
                0);
        CHECK_STR(content_at(&f, x), "content");
        CHECK_EQ(walk(&f, "a-with-a-longer-name/b/x"), x);
        CHECK_EQ(f.ops->rename(f.v, &f.op, b, "x", VOLUME_ROOT, "x", RENAME_NOREPLACE), 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "x"), x);
        CHECK_STR(content_at(&f, x), "content");
        put(&f, VOLUME_ROOT, "y", "other");
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "x", VOLUME_ROOT, "y", RENAME_NOREPLACE),
                 -EEXIST);
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "x", VOLUME_ROOT, "y", RENAME_EXCHANGE), 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "y"), x);
        CHECK_STR(content_at(&f, x), "content");
        CHECK_STR(content_at(&f, look(&f, VOLUME_ROOT, "x")), "other");
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "x", VOLUME_ROOT, "y", 1 << 2), -EINVAL);
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "none", VOLUME_ROOT, "y", 0), -ENOENT);
        fixture_done(&f);
}

static void open_handles_outlive_unlink_and_rename_over(void)
{
        struct fixture f;
        struct vol_entry e;
        struct vol_opened o;
        struct vol_file *file;
        struct stat to = {.st_mode = 0600};
        uint64_t node = 0;

        if (!fixture_init(&f))
                return;
        file = make_file(&f, VOLUME_ROOT, "x", &node);
        CHECK_EQ(f.ops->write(f.v, &f.op, file, "one", 3, 0), 3);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, VOLUME_ROOT, "x"), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, node, NULL, &e), 0);
        CHECK_EQ(e.st.st_nlink, 0);
        CHECK_EQ(f.ops->setattr(f.v, &f.op, node, NULL, VOL_SET_MODE, &to, &e), 0);
        CHECK_EQ(e.st.st_mode, S_IFREG | 0600);
        CHECK_STR(content_of(&f, file), "one");
        CHECK_EQ(f.ops->open(f.v, &f.op, node, O_RDONLY, &o), 0); /* /proc/PID/fd */
        CHECK_STR(content_of(&f, o.file), "one");
        f.ops->release(f.v, o.file);
        put(&f, VOLUME_ROOT, "x", "two");
        CHECK(look(&f, VOLUME_ROOT, "x") != node);
        CHECK_STR(content_of(&f, file), "one");
        f.ops->release(f.v, file);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, node, NULL, &e), -ESTALE);

        file = make_file(&f, VOLUME_ROOT, "y", &node);
        CHECK_EQ(f.ops->write(f.v, &f.op, file, "why", 3, 0), 3);
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "x", VOLUME_ROOT, "y", 0), 0);
        CHECK_STR(content_of(&f, file), "why");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, node, file, &e), 0);
        CHECK_STR(content_at(&f, look(&f, VOLUME_ROOT, "y")), "two");
        f.ops->release(f.v, file);
        fixture_done(&f);
}

static void links_say_only_what_stays_inside(void)
{
        struct fixture f;
        struct vol_entry e;
        char target[256];
        uint64_t d, l;

        if (!fixture_init(&f))
                return;
        d = make_dir(&f, VOLUME_ROOT, "d");
        CHECK_EQ(f.ops->symlink(f.v, &f.op, d, "l", "/etc/passwd", &e), 0);
        CHECK_EQ(e.st.st_size, strlen("../etc/passwd"));
        CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
        CHECK_STR(target, "../etc/passwd");
        CHECK_EQ(symlink("../../../ctl", real(&f, "d/m")), 0);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, d, "m", &e), 0);
        CHECK_EQ(e.st.st_size, strlen("../ctl"));
        l = e.node;
        CHECK_EQ(f.ops->getattr(f.v, &f.op, l, NULL, &e), 0);
        CHECK_EQ(e.st.st_size, strlen("../ctl"));
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), 0);
        CHECK_STR(target, "../ctl");
        CHECK_EQ(f.ops->readlink(f.v, &f.op, d, target, sizeof(target)), -EINVAL);
        /* Moved up inside, it is no longer at that path. */
        CHECK_EQ(rename(real(&f, "d"), real(&f, "e")), 0);
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), -ENOENT);
        fixture_done(&f);
}

static void links_wait_for_a_rename_to_settle(void)
{
        struct fixture f;
        struct vol_entry e;
        char target[256];
        uint64_t a, l;

        if (!fixture_init(&f))
                return;
        a = make_dir(&f, VOLUME_ROOT, "a");
        (void)make_dir(&f, VOLUME_ROOT, "b");
        CHECK_EQ(f.ops->symlink(f.v, &f.op, walk(&f, "b"), "l", "../../x", &e), 0);
        l = e.node;
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), 0);
        CHECK_STR(target, "../x");
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "b", a, "b", 0), 0);
        f.op.may_wait = false;
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), -EINPROGRESS);
        CHECK_EQ(atomic_load(&f.entry_events), 0);
        f.op.may_wait = true;
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), 0);
        CHECK_STR(target, "../../x");
        CHECK_EQ(atomic_load(&f.entry_events), 1); /* which waits for the kernel */
        f.op.may_wait = false;
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), 0);
        CHECK_STR(target, "../../x");
        fixture_done(&f);
}

static void nothing_rises_while_a_target_is_on_its_way(void)
{
        const pid_t others = 0; /* can't be seen, so never known to have ended */
        struct fixture f;
        struct vol_entry e;
        char target[256];
        uint64_t a, l;

        if (!fixture_init(&f))
                return;
        a = make_dir(&f, VOLUME_ROOT, "a");
        (void)make_dir(&f, a, "b");
        CHECK_EQ(f.ops->symlink(f.v, &f.op, walk(&f, "a/b"), "l", "../../x", &e), 0);
        l = e.node;
        put(&f, a, "x", "text");
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), 0);
        /* Whoever asks for something else has gone where it led. */
        CHECK_EQ(f.ops->rename(f.v, &f.op, a, "b", VOLUME_ROOT, "b", 0), 0);
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "b", a, "b", 0), 0);
        f.op.tid = others;
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), 0);
        f.op.tid = getpid();
        CHECK_EQ(f.ops->rename(f.v, &f.op, a, "b", VOLUME_ROOT, "b", 0), -EXDEV);
        CHECK(walk(&f, "a/b") != 0);
        CHECK_EQ(f.ops->rename(f.v, &f.op, a, "b", a, "c", 0), 0);
        CHECK_EQ(f.ops->rename(f.v, &f.op, a, "x", VOLUME_ROOT, "x", 0), 0);
        fixture_done(&f);
}

static void a_link_at_another_depth_has_another_number(void)
{
        struct fixture f;
        struct vol_entry e;
        char target[256];
        uint64_t a, l;

        if (!fixture_init(&f))
                return;
        a = make_dir(&f, VOLUME_ROOT, "a");
        CHECK_EQ(f.ops->symlink(f.v, &f.op, VOLUME_ROOT, "l", "../../x", &e), 0);
        l = e.node;
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), 0);
        CHECK_STR(target, "x");
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "l", a, "l", 0), 0);
        CHECK_EQ(f.ops->readlink(f.v, &f.op, l, target, sizeof(target)), -ESTALE);
        CHECK_EQ(f.ops->readlink(f.v, &f.op, walk(&f, "a/l"), target, sizeof(target)), 0);
        CHECK_STR(target, "../x");
        fixture_done(&f);
}

static void nothing_but_regular_files_is_opened(void)
{
        struct fixture f;
        struct vol_entry e;
        struct vol_opened o;
        uint64_t p, x;

        if (!fixture_init(&f))
                return;
        CHECK_EQ(mkfifo(real(&f, "p"), 0666), 0);
        p = look(&f, VOLUME_ROOT, "p");
        CHECK(p != 0);
        CHECK_EQ(f.ops->open(f.v, &f.op, p, O_RDONLY, &o), -EOPNOTSUPP);
        CHECK_EQ(f.ops->open(f.v, &f.op, p, O_WRONLY, &o), -ESTALE);
        CHECK_EQ(f.ops->create(f.v, &f.op, VOLUME_ROOT, "p", 0644, O_RDWR, &e, &o), -ESTALE);
        CHECK_EQ(f.ops->create(f.v, &f.op, VOLUME_ROOT, "p", 0644, O_WRONLY | O_TRUNC, &e, &o),
                 -ESTALE);
        put(&f, VOLUME_ROOT, "x", "text");
        x = look(&f, VOLUME_ROOT, "x");
        CHECK_EQ(unlink(real(&f, "x")), 0);
        CHECK_EQ(mkfifo(real(&f, "x"), 0666), 0);
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), -ESTALE);
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_WRONLY | O_TRUNC, &o), -ESTALE);
        CHECK_EQ(unlink(real(&f, "x")), 0);
        CHECK_EQ(symlink("/etc/passwd", real(&f, "x")), 0);
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), -ESTALE);
        CHECK_EQ(f.ops->create(f.v, &f.op, VOLUME_ROOT, "x", 0644, O_RDWR, &e, &o), -ESTALE);
        CHECK_EQ(f.ops->create(f.v, &f.op, VOLUME_ROOT, "x", 0644, O_RDWR | O_EXCL, &e, &o),
                 -EEXIST);
        fixture_done(&f);
}

static void attributes_change_what_was_asked(void)
{
        struct fixture f;
        struct vol_entry e;
        struct stat to = {.st_mode = 04755, .st_size = 2};
        uint64_t x, d, l;

        if (!fixture_init(&f))
                return;
        put(&f, VOLUME_ROOT, "x", "text");
        x = look(&f, VOLUME_ROOT, "x");
        to.st_mtim = (struct timespec){1000000000, 123456789};
        to.st_atim = (struct timespec){1000000001, 987654321};
        CHECK_EQ(f.ops->setattr(f.v, &f.op, x, NULL,
                                VOL_SET_MODE | VOL_SET_SIZE | VOL_SET_MTIME | VOL_SET_ATIME, &to,
                                &e),
                 0);
        CHECK_EQ(e.st.st_mode, S_IFREG | 04755);
        CHECK_EQ(e.st.st_size, 2);
        CHECK_EQ(e.st.st_mtim.tv_nsec, 123456789);
        CHECK_EQ(e.st.st_atim.tv_nsec, 987654321);
        CHECK_EQ(f.ops->setattr(f.v, &f.op, x, NULL, VOL_SET_MTIME_NOW, &to, &e), 0);
        CHECK(e.st.st_mtim.tv_sec > 1500000000);
        CHECK_EQ(e.st.st_atim.tv_nsec, 987654321);
        d = make_dir(&f, VOLUME_ROOT, "d");
        CHECK_EQ(f.ops->setattr(f.v, &f.op, d, NULL, VOL_SET_MODE | VOL_SET_MTIME, &to, &e), 0);
        CHECK_EQ(e.st.st_mode, S_IFDIR | 04755);
        CHECK_EQ(e.st.st_mtim.tv_nsec, 123456789);
        CHECK_EQ(f.ops->symlink(f.v, &f.op, d, "l", "/etc/passwd", &e), 0);
        l = e.node;
        CHECK_EQ(f.ops->setattr(f.v, &f.op, l, NULL, VOL_SET_MTIME, &to, &e), 0);
        CHECK_EQ(e.st.st_mtim.tv_nsec, 123456789);
        CHECK_EQ(e.st.st_size, strlen("../etc/passwd"));
        CHECK_EQ(f.ops->setattr(f.v, &f.op, l, NULL, VOL_SET_MODE, &to, &e), -EOPNOTSUPP);
        CHECK_EQ(mkfifo(real(&f, "p"), 0666), 0);
        CHECK(f.ops->setattr(f.v, &f.op, look(&f, VOLUME_ROOT, "p"), NULL, VOL_SET_SIZE, &to, &e) <
              0);
        CHECK_EQ(
                f.ops->setattr(f.v, &f.op, look(&f, VOLUME_ROOT, "p"), NULL, VOL_SET_MODE, &to, &e),
                0);
        fixture_done(&f);
}

static void data_calls_do_what_the_kernel_does(void)
{
        struct fixture f;
        struct vol_entry e;
        struct vol_opened o;
        struct vol_file *a, *b;
        uint64_t node = 0;

        if (!fixture_init(&f))
                return;
        a = make_file(&f, VOLUME_ROOT, "a", &node);
        b = make_file(&f, VOLUME_ROOT, "b", NULL);
        CHECK_EQ(f.ops->write(f.v, &f.op, a, "0123456789", 10, 0), 10);
        CHECK_EQ(f.ops->copy_range(f.v, &f.op, a, 2, b, 0, 4), 4);
        CHECK_STR(content_of(&f, b), "2345");
        CHECK_EQ(f.ops->fallocate(f.v, &f.op, b, 0, 0, 8192), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, 0, b, &e), 0);
        CHECK_EQ(e.st.st_size, 8192);
        CHECK_EQ(f.ops->fallocate(f.v, &f.op, b, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0,
                                  4096),
                 0);
        CHECK_EQ(f.ops->lseek(f.v, &f.op, a, 0, SEEK_DATA), 0);
        CHECK_EQ(f.ops->lseek(f.v, &f.op, a, 0, SEEK_HOLE), 10);
        CHECK_EQ(f.ops->lseek(f.v, &f.op, a, 10, SEEK_DATA), -ENXIO);
        CHECK_EQ(f.ops->lseek(f.v, &f.op, a, 0, SEEK_SET), -EINVAL);
        CHECK_EQ(f.ops->fsync(f.v, &f.op, a, false), 0);
        CHECK_EQ(f.ops->flush(f.v, &f.op, a), 0);
        /*
         * Somebody inside appends as well: nothing is overwritten, whatever offset the kernel
         * thinks of.
         */
        CHECK_EQ(f.ops->open(f.v, &f.op, node, O_WRONLY | O_APPEND, &o), 0);
        CHECK_EQ(f.ops->write(f.v, &f.op, o.file, "AB", 2, 3), 2);
        CHECK_STR(content_of(&f, a), "0123456789AB");
        /* But a page of a mapping goes where it lies. */
        f.op.is_writeback = true;
        CHECK_EQ(f.ops->write(f.v, &f.op, o.file, "xy", 2, 3), 2);
        f.op.is_writeback = false;
        f.ops->release(f.v, o.file);
        CHECK_STR(content_of(&f, a), "012xy56789AB");
        CHECK_EQ(f.ops->open(f.v, &f.op, node, O_RDWR | O_TRUNC, &o), 0);
        CHECK_STR(content_of(&f, a), "");
        f.ops->release(f.v, o.file);
        f.ops->release(f.v, a);
        f.ops->release(f.v, b);
        fixture_done(&f);
}

static void replace(struct fixture *f, const char *name, const char *text)
{
        put(f, VOLUME_ROOT, "new", text);
        CHECK_EQ(rename(real(f, "new"), real(f, name)), 0);
}

static void a_file_that_is_replaced_all_the_time_opens(void)
{
        struct fixture f;
        struct vol_opened o;
        struct vol_entry e;
        uint64_t x;

        if (!fixture_init(&f))
                return;
        put(&f, VOLUME_ROOT, "x", "1");
        x = look(&f, VOLUME_ROOT, "x");
        replace(&f, "x", "2");
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), -ESTALE);
        x = look(&f, VOLUME_ROOT, "x"); /* the kernel walks once more */
        replace(&f, "x", "3");
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), 0);
        CHECK_STR(content_of(&f, o.file), "2");
        f.ops->release(f.v, o.file);
        /* Without such a past it is the file of today, or none. */
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), -ESTALE);
        x = look(&f, VOLUME_ROOT, "x");
        replace(&f, "x", "4");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, x, NULL, &e), 0);
        CHECK_EQ(e.st.st_nlink, 0);
        fixture_done(&f);
}

static void a_file_that_was_kept_is_no_other_nodes(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t file, dir;

        if (!fixture_init(&f))
                return;
        put_real(&f, "x", "old");
        file = look(&f, VOLUME_ROOT, "x");
        put_real(&f, "new", "new");
        CHECK_EQ(rename(real(&f, "new"), real(&f, "x")), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), -ESTALE);
        file = look(&f, VOLUME_ROOT, "x"); /* kept for this thread, which doesn't come for it */
        f.ops->forget(f.v, file, 1);
        CHECK_EQ(mkdir(real(&f, "d"), 0700), 0);
        dir = look(&f, VOLUME_ROOT, "d");
        CHECK_EQ(dir, file); /* the number is used again */
        CHECK_EQ(rmdir(real(&f, "d")), 0);
        put_real(&f, "d", "no directory");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ESTALE);
        fixture_done(&f);
}

static void a_removed_directory_has_attributes_while_it_is_open(void)
{
        struct fixture f;
        struct vol_dir *dir;
        struct vol_entry e;
        uint64_t d;

        if (!fixture_init(&f))
                return;
        d = make_dir(&f, VOLUME_ROOT, "d");
        CHECK_EQ(f.ops->opendir(f.v, &f.op, d, &dir), 0);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d"), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, d, NULL, &e), 0);
        CHECK(S_ISDIR(e.st.st_mode));
        f.ops->releasedir(f.v, dir);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, d, NULL, &e), -ESTALE);
        fixture_done(&f);
}

static void names_of_one_inode_share_a_node(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t x, y, d, l;

        if (!fixture_init(&f))
                return;
        d = make_dir(&f, VOLUME_ROOT, "d");
        put(&f, VOLUME_ROOT, "x", "text");
        x = look(&f, VOLUME_ROOT, "x");
        CHECK_EQ(f.ops->link(f.v, &f.op, x, d, "y", &e), 0);
        CHECK_EQ(e.node, x);
        CHECK_EQ(e.st.st_nlink, 2);
        CHECK_EQ(e.ttl_ns, 0);
        CHECK_EQ(look(&f, d, "y"), x);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, VOLUME_ROOT, "x"), 0);
        CHECK_STR(content_at(&f, x), "text");
        CHECK_EQ(look(&f, VOLUME_ROOT, "x"), 0);
        /* One made inside, found by name. */
        CHECK_EQ(link(real(&f, "d/y"), real(&f, "z")), 0);
        CHECK_EQ(look(&f, d, "y"), x);
        CHECK_EQ(look(&f, VOLUME_ROOT, "z"), x);
        /* The first name goes away inside: the other one leads there. */
        CHECK_EQ(unlink(real(&f, "d/y")), 0);
        CHECK_STR(content_at(&f, x), "text");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, x, NULL, &e), 0);
        CHECK_EQ(e.st.st_nlink, 1);
        /* Another inode at one of the names is another node. */
        CHECK_EQ(link(real(&f, "z"), real(&f, "w")), 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "w"), x);
        CHECK_EQ(unlink(real(&f, "w")), 0);
        put_real(&f, "w", "other");
        y = look(&f, VOLUME_ROOT, "w");
        CHECK(y != 0 && y != x);
        CHECK_STR(content_at(&f, x), "text");
        /* What a link says depends on its place. */
        CHECK_EQ(f.ops->symlink(f.v, &f.op, d, "l", "../z", &e), 0);
        l = e.node;
        CHECK_EQ(f.ops->link(f.v, &f.op, l, VOLUME_ROOT, "m", &e), 0);
        CHECK(e.node != l && S_ISLNK(e.st.st_mode) && e.st.st_nlink == 2);
        CHECK_EQ(e.st.st_size, strlen("z"));
        CHECK_EQ(look(&f, VOLUME_ROOT, "m"), e.node);
        fixture_done(&f);
}

struct listing {
        struct vol_dir_sink sink;
        unsigned count, with_attrs, room;
        uint64_t next;
        char names[64][64];
        uint64_t offsets[64];
};

static bool on_entry(struct vol_dir_sink *to, const char *name, const struct vol_entry *e,
                     uint64_t next)
{
        struct listing *l = (struct listing *)(void *)to;

        if (l->count == l->room)
                return false;
        (void)snprintf(l->names[l->count], sizeof(l->names[0]), "%s", name);
        l->offsets[l->count++] = next;
        l->with_attrs += e->node != 0;
        l->next = next;
        return true;
}

static void directories_are_read_in_pieces(void)
{
        struct fixture f;
        struct listing l = {.sink = {on_entry}, .room = 3},
                       again = {.sink = {on_entry}, .room = 64};
        struct vol_dir *dir;
        unsigned rounds = 0;
        char name[16];

        if (!fixture_init(&f))
                return;
        for (int i = 0; i < 20; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                put_real(&f, name, "x");
        }
        CHECK_EQ(f.ops->opendir(f.v, &f.op, VOLUME_ROOT, &dir), 0);
        for (unsigned before = 1; before != l.count && rounds < 30; rounds++, l.room += 3) {
                before = l.count;
                CHECK_EQ(f.ops->readdir(f.v, &f.op, dir, l.next, true, &l.sink), 0);
        }
        CHECK_EQ(l.count, 22);
        CHECK_EQ(l.with_attrs, 20);
        /* From the middle, in any order, and without attributes. */
        CHECK_EQ(f.ops->readdir(f.v, &f.op, dir, l.offsets[9], false, &again.sink), 0);
        CHECK_EQ(again.count, 12);
        CHECK_EQ(again.with_attrs, 0);
        CHECK_STR(again.names[0], l.names[10]);
        /* From the start: what is new is seen. */
        put_real(&f, "new", "x");
        again.count = 0;
        CHECK_EQ(f.ops->readdir(f.v, &f.op, dir, 0, false, &again.sink), 0);
        CHECK_EQ(again.count, 23);
        CHECK_EQ(f.ops->fsyncdir(f.v, &f.op, dir, false), 0);
        f.ops->releasedir(f.v, dir);
        CHECK_EQ(f.ops->opendir(f.v, &f.op, look(&f, VOLUME_ROOT, "new"), &dir), -ESTALE);
        fixture_done(&f);
}

static void the_file_system_has_a_size(void)
{
        struct fixture f;
        struct statvfs st;

        if (!fixture_init(&f))
                return;
        CHECK_EQ(f.ops->statfs(f.v, &f.op, &st), 0);
        CHECK(st.f_blocks > 0 && st.f_bsize > 0);
        fixture_done(&f);
}

/* By another of the same inode number, or in place, which is as good here. */
static void opening_what_was_replaced_takes_back_its_attributes(void)
{
        struct vol_opened opened;
        struct fixture f;
        struct vol_entry e;

        if (!fixture_init(&f))
                return;
        put_real(&f, "x", "one");
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "x", &e), 0);
        CHECK_EQ(f.ops->open(f.v, &f.op, e.node, O_RDONLY, &opened), 0);
        f.ops->release(f.v, opened.file);
        CHECK_EQ(atomic_load(&f.node_events), 0);
        put_real(&f, "x", "two, longer");
        CHECK_EQ(f.ops->open(f.v, &f.op, e.node, O_RDONLY, &opened), 0);
        f.ops->release(f.v, opened.file);
        CHECK_EQ(atomic_load(&f.node_events), 1);
        CHECK_EQ(f.ops->open(f.v, &f.op, e.node, O_RDONLY, &opened), 0);
        CHECK_EQ(atomic_load(&f.node_events), 1); /* once is enough */
        f.ops->release(f.v, opened.file);
        fixture_done(&f);
}

static void the_end_of_a_command_takes_back_what_was_told(void)
{
        struct fixture f;
        struct vol_entry e;
        struct vol_file *file;
        uint64_t token, node = 0;
        char data[8];

        if (!fixture_init(&f))
                return;
        put_real(&f, "x", "one");
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "x", &e), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, e.node, NULL, &e), 0);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "absent", &e), 0);
        file = make_file(&f, VOLUME_ROOT, "open", &node);
        f.ops->exec_ended(f.v);
        CHECK_EQ(atomic_load(&f.node_events), 1); /* x once */
        CHECK_EQ(atomic_load(&f.page_events), 1); /* open: attributes go with its pages */
        CHECK_EQ(atomic_load(&f.entry_events), 3);
        /* Once is enough, but what is told again is taken back again. */
        f.ops->exec_ended(f.v);
        CHECK_EQ(atomic_load(&f.node_events), 1);
        CHECK_EQ(atomic_load(&f.page_events), 1);
        CHECK_EQ(atomic_load(&f.entry_events), 3);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "x", &e), 0);
        f.ops->exec_ended(f.v);
        CHECK_EQ(atomic_load(&f.node_events), 2);
        CHECK_STR(f.last_entry, "x");
        /* The first attributes of what is open are with the kernel before others take them back. */
        CHECK_EQ(f.ops->getattr(f.v, &f.op, node, file, &e), 0);
        CHECK_EQ(e.ttl_ns, 0);
        f.ops->exec_ended(f.v);
        CHECK_EQ(atomic_load(&f.page_events), 1);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, node, file, &e), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, node, file, &e), 0);
        CHECK(e.ttl_ns > 0);
        f.ops->exec_ended(f.v);
        CHECK_EQ(atomic_load(&f.page_events), 2);
        CHECK_EQ(f.ops->read(f.v, &f.op, file, data, sizeof(data), 0), 0);
        f.ops->exec_ended(f.v);
        CHECK_EQ(atomic_load(&f.page_events), 3);
        f.ops->release(f.v, file);
        /* An answer that isn't with the kernel yet holds up the end, but not for ever. */
        token = volume_enter(f.v);
        f.ops->exec_ended(f.v);
        volume_leave(f.v, token);
        fixture_done(&f);
}

static void pages_are_kept_only_when_nothing_can_have_changed(void)
{
        struct fixture f;
        struct vol_opened o;
        uint64_t x;

        if (!fixture_init(&f))
                return;
        put_real(&f, "x", "one");
        x = look(&f, VOLUME_ROOT, "x");
        for (int i = 0; i < 2; i++) { /* fresh, and not quiet */
                CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), 0);
                CHECK(!o.keep_cache);
                CHECK(o.backing_fd >= 0);
                f.ops->release(f.v, o.file);
        }
        (void)usleep(80000);
        atomic_store(&f.is_quiet, true);
        for (int i = 0; i < 3; i++) { /* the first only records */
                CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), 0);
                CHECK_EQ(o.keep_cache, i > 0);
                f.ops->release(f.v, o.file);
        }
        f.ops->exec_ended(f.v);
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), 0);
        CHECK(!o.keep_cache);
        f.ops->release(f.v, o.file);
        put_real(&f, "x", "two");
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDONLY, &o), 0);
        CHECK(!o.keep_cache);
        f.ops->release(f.v, o.file);
        fixture_done(&f);
}

static void a_sandbox_that_is_gone_says_so(void)
{
        struct fixture f;
        struct vol_file *file;
        struct vol_entry e;
        char text[8];

        if (!fixture_init(&f))
                return;
        file = make_file(&f, VOLUME_ROOT, "x", NULL);
        f.ops->gone(f.v);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "x", &e), -ENODEV);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &e), -ENODEV);
        CHECK_EQ(f.ops->read(f.v, &f.op, file, text, sizeof(text), 0), -ESTALE);
        CHECK_EQ(f.ops->write(f.v, &f.op, file, "x", 1, 0), -ESTALE);
        f.ops->release(f.v, file);
        fixture_done(&f);
}

static void a_read_only_volume_changes_nothing(void)
{
        struct volume_config config = {
                .attr_ttl_ns = 0, .is_readonly = true, .has_raw_symlinks = true};
        struct fixture f;
        struct vol_entry e;
        struct vol_opened o;
        char target[64];

        if (!fixture_open(&f, &config))
                return;
        put_real(&f, "x", "text");
        CHECK_EQ(symlink("/etc/passwd", real(&f, "l")), 0);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0755, &e), -EROFS);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, VOLUME_ROOT, "x"), -EROFS);
        CHECK_EQ(f.ops->open(f.v, &f.op, look(&f, VOLUME_ROOT, "x"), O_RDWR, &o), -EROFS);
        CHECK_STR(content_at(&f, look(&f, VOLUME_ROOT, "x")), "text");
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "x", &e), 0);
        CHECK_EQ(e.ttl_ns, 0);
        CHECK_EQ(f.ops->readlink(f.v, &f.op, look(&f, VOLUME_ROOT, "l"), target, sizeof(target)),
                 0);
        CHECK_STR(target, "/etc/passwd");
        fixture_done(&f);
}

static void tests(void)
{
        RUN(created_files_can_be_found_and_read);
        RUN(what_is_made_belongs_to_the_box);
        RUN(files_follow_their_inode_and_directories_their_path);
        RUN(rename_takes_the_subtree_along);
        RUN(open_handles_outlive_unlink_and_rename_over);
        RUN(links_say_only_what_stays_inside);
        RUN(links_wait_for_a_rename_to_settle);
        RUN(nothing_rises_while_a_target_is_on_its_way);
        RUN(a_link_at_another_depth_has_another_number);
        RUN(nothing_but_regular_files_is_opened);
        RUN(attributes_change_what_was_asked);
        RUN(data_calls_do_what_the_kernel_does);
        RUN(a_file_that_is_replaced_all_the_time_opens);
        RUN(a_file_that_was_kept_is_no_other_nodes);
        RUN(a_removed_directory_has_attributes_while_it_is_open);
        RUN(names_of_one_inode_share_a_node);
        RUN(directories_are_read_in_pieces);
        RUN(the_file_system_has_a_size);
        RUN(opening_what_was_replaced_takes_back_its_attributes);
        RUN(the_end_of_a_command_takes_back_what_was_told);
        RUN(pages_are_kept_only_when_nothing_can_have_changed);
        RUN(a_sandbox_that_is_gone_says_so);
        RUN(a_read_only_volume_changes_nothing);
}

int main(void)
{
        return run_twice(tests);
}
