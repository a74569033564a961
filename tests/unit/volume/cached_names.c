/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the cached volume: changes made here and in the sandbox, as they show. */

#include "tests/unit/volume/names_support.h"

static void own_changes_are_known_at_once(void)
{
        struct fixture f;
        struct vol_entry e;
        struct stat st;
        struct seen s;
        uint64_t dir, file;

        if (!fixture_init(&f))
                return;
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), 0);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0777, &e), 0);
        dir = e.node;
        CHECK_EQ(e.st.st_mode, S_IFDIR | 0755);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, dir, "x", S_IFREG | 0640, &e), 0);
        file = e.node;
        CHECK_EQ(e.st.st_mode, S_IFREG | 0640);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, dir, "x", S_IFREG | 0640, &e), -EEXIST);
        CHECK_EQ(f.ops->mknod(f.v, &f.op, dir, "p", S_IFIFO | 0640, &e), -EPERM);
        CHECK_EQ(f.ops->symlink(f.v, &f.op, dir, "l", "x", &e), 0);
        CHECK_EQ(e.st.st_size, 1);
        fake_box_zero(&f.box);
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), 0);
        CHECK_EQ(s.count, 1);
        CHECK_EQ(look(&f, dir, "none"), 0);
        CHECK_EQ(look(&f, dir, "l") != 0, true);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), 0);
        CHECK(fake_box_calls(&f.box) <= 1); /* the EEXIST was a surprise */
        st = (struct stat){.st_mode = 0755, .st_mtim = {.tv_sec = 1234, .tv_nsec = 5}};
        CHECK_EQ(f.ops->setattr(f.v, &f.op, file, NULL, VOL_SET_MODE | VOL_SET_MTIME, &st, &e), 0);
        CHECK_EQ(e.st.st_mode, S_IFREG | 0755);
        CHECK_EQ(e.st.st_mtim.tv_sec, 1234);
        CHECK_EQ(stat(real(&f, "d/x"), &st), 0);
        CHECK_EQ(st.st_mode, S_IFREG | 0755);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d"), -ENOTEMPTY);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, dir, "x"), 0);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, dir, "l"), 0);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d"), 0);
        fake_box_zero(&f.box);
        CHECK_EQ(look(&f, VOLUME_ROOT, "d"), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ESTALE);
        fixture_done(&f);
}

/* The one directory that is answered without asking, however old what is known of it is. */
static void fs_itself_answers_at_once_with_our_changes(void)
{
        struct vol_entry before, e;
        struct fixture f;

        if (!fixture_init_ttl(&f, NS_PER_S))
                return;
        put_real(&f, "file", "x");
        f.op.may_wait = false;
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &e), -EINPROGRESS);
        f.op.may_wait = true;
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &before), 0);
        CHECK(look(&f, VOLUME_ROOT, "file") != 0);
        sleep_ms(1100);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, VOLUME_ROOT, "file"), 0);
        fake_box_zero(&f.box);
        f.op.may_wait = false;
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &e), 0);
        CHECK_EQ(e.ttl_ns, 0);
        CHECK(clock_from_timespec(e.st.st_mtim) > clock_from_timespec(before.st.st_mtim));
        CHECK_EQ(fake_box_calls(&f.box), 0);
        fixture_done(&f);
}

/* While a listing is on its way back, the volume itself changes what it was about. */
static void change_behind_a_listing(struct fake_box *box, enum fake_call call, const char *path,
                                    bool is_after)
{
        struct fixture *f = (struct fixture *)(void *)box; /* its head */
        struct vol_op op = f->op;
        struct vol_entry e;
        struct call mine;

        (void)path;
        if (call != FAKE_LIST || !is_after)
                return;
        box->hook = NULL;
        set_ttl(f, LONG_NS); /* nothing is asked for: we are within the asking, then in memory */
        call_init(&mine, clock_after(10 * NS_PER_S));
        op.call = &mine;
        CHECK_EQ(f->ops->unlink(f->v, &op, VOLUME_ROOT, "gone"), 0);
        CHECK_EQ(f->ops->mkdir(f->v, &op, VOLUME_ROOT, "new", 0755, &e), 0);
        CHECK_EQ(f->ops->rename(f->v, &op, VOLUME_ROOT, "old", VOLUME_ROOT, "moved", 0), 0);
}

/* The change comes in between the work of the listing and its entries. */
static void change_before_entries(struct fake_box *box, const char *path, struct file_list_sink *to)
{
        (void)path;
        (void)to;
        change_behind_a_listing(box, FAKE_LIST, path, true);
}

static void a_listing_does_not_undo_a_change_that_overtook_it(void)
{
        struct fixture f;
        uint64_t node;
        char names[3][16] = {"gone", "old", "moved"};

        if (!fixture_init_ttl(&f, 100 * NS_PER_MS))
                return;
        put_real(&f, "gone", "x");
        put_real(&f, "old", "xx");
        for (int i = 0; i < 3; i++)
                (void)look(&f, VOLUME_ROOT, names[i]);
        sleep_ms(150);
        f.box.hook = change_behind_a_listing;
        (void)look(&f, VOLUME_ROOT, "whatever");
        CHECK(f.box.hook == NULL);
        f.op.may_wait = false; /* from memory, as the listing has left it */
        CHECK_EQ(look(&f, VOLUME_ROOT, "gone"), 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "old"), 0);
        CHECK(look(&f, VOLUME_ROOT, "new") != 0);
        node = look(&f, VOLUME_ROOT, "moved");
        CHECK(node != 0);
        CHECK_EQ(size_at(&f, node), 2);
        f.op.may_wait = true;
        fixture_done(&f);
        /* The other way round: it was sent before, and saw it. */
        if (!fixture_init_ttl(&f, 100 * NS_PER_MS))
                return;
        put_real(&f, "gone", "x");
        put_real(&f, "old", "xx");
        (void)look(&f, VOLUME_ROOT, "old");
        sleep_ms(150);
        f.box.add = change_before_entries;
        (void)look(&f, VOLUME_ROOT, "whatever");
        f.op.may_wait = false;
        CHECK_EQ(look(&f, VOLUME_ROOT, "gone"), 0);
        CHECK(look(&f, VOLUME_ROOT, "new") != 0);
        f.op.may_wait = true;
        f.box.add = NULL;
        CHECK(look(&f, VOLUME_ROOT, "moved") != 0);
        fixture_done(&f);
}

static void rename_takes_the_subtree_along(void)
{
        struct fixture f;
        struct vol_entry e;
        struct seen s;
        struct vol_dir *d;
        uint64_t a, x, sub;

        if (!fixture_init(&f))
                return;
        mkdir_real(&f, "a");
        plant(&f, "a/", 1, 3);
        mkdir_real(&f, "b");
        a = look(&f, VOLUME_ROOT, "a");
        sub = look(&f, a, "d0");
        x = look(&f, sub, "f0");
        CHECK_EQ(f.ops->opendir(f.v, &f.op, sub, &d), 0);
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "a", look(&f, VOLUME_ROOT, "b"), "c", 0),
                 0);
        fake_box_zero(&f.box);
        CHECK_EQ(look(&f, VOLUME_ROOT, "a"), 0);
        CHECK_EQ(walk(&f, "b/c/d0/f0"), x);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, x, NULL, &e), 0);
        CHECK_EQ(e.st.st_size, 1);
        s = (struct seen){.head = {on_add}, .max = 2};
        CHECK_EQ(read_all(&f, d, &s), 0);
        CHECK_EQ(s.count, 3);
        f.ops->releasedir(f.v, d);
        CHECK(lists(&f) <= 1); /* b was not known */
        /* Onto something. */
        CHECK_EQ(f.ops->rename(f.v, &f.op, sub, "f0", sub, "f1", RENAME_NOREPLACE), -EEXIST);
        CHECK_EQ(f.ops->rename(f.v, &f.op, sub, "f0", sub, "f1", RENAME_EXCHANGE), -EINVAL);
        CHECK_EQ(f.ops->rename(f.v, &f.op, sub, "f0", sub, "f1", 0), 0);
        CHECK_EQ(look(&f, sub, "f1"), x);
        CHECK_EQ(look(&f, sub, "f0"), 0);
        CHECK_EQ(access(real(&f, "b/c/d0/f0"), F_OK), -1);
        fixture_done(&f);
}

static void a_lost_answer_is_looked_into(void)
{
        struct fixture f;
        struct vol_entry e;

        if (!fixture_init(&f))
                return;
        CHECK_EQ(look(&f, VOLUME_ROOT, "d"), 0);
        atomic_store(&f.box.is_lost, true);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0755, &e), -EHOSTUNREACH);
        atomic_store(&f.box.is_lost, false);
        CHECK(look(&f, VOLUME_ROOT, "d") != 0); /* it was made */
        fixture_done(&f);
}

static void changes_inside_show_as_other_files(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t file, dir, again;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        put_real(&f, "x", "old");
        mkdir_real(&f, "d");
        file = look(&f, VOLUME_ROOT, "x");
        dir = look(&f, VOLUME_ROOT, "d");
        put_real(&f, "new", "newer");
        CHECK_EQ(rename(real(&f, "new"), real(&f, "x")), 0);
        CHECK_EQ(rename(real(&f, "d"), real(&f, "d2")), 0);
        CHECK_EQ(mkdir(real(&f, "d"), 0700), 0);
        sleep_ms(100);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), -ESTALE);
        again = look(&f, VOLUME_ROOT, "x");
        CHECK(again != 0 && again != file);
        CHECK_EQ(size_at(&f, again), 5);
        CHECK_EQ(look(&f, VOLUME_ROOT, "d"), dir); /* the path's */
        CHECK_EQ(rmdir(real(&f, "d")), 0);
        sleep_ms(100);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, dir, NULL, &e), -ENOENT);
        fixture_done(&f);
}

static void links_answer_what_stays_inside(void)
{
        struct fixture f;
        struct vol_entry e;
        char target[4096];
        uint64_t dir;

        for (int turn = 0; turn < 2; turn++) {
                if (!fixture_init(&f))
                        return;
                f.box.has_no_targets = turn == 1;
                mkdir_real(&f, "d");
                CHECK_EQ(symlink("/etc/passwd", real(&f, "d/out")), 0);
                CHECK_EQ(symlink("/workspace/x", real(&f, "d/in")), 0);
                CHECK_EQ(symlink("../../../x", real(&f, "d/up")), 0);
                dir = look(&f, VOLUME_ROOT, "d");
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "out", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../etc/passwd");
                CHECK_EQ(e.st.st_size, strlen(target));
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "in", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../x");
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "up", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../x");
                /* The directory goes to another depth: so does the answer. */
                CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "e", 0755, &e), 0);
                CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "d", e.node, "d", 0), 0);
                CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "out", &e), 0);
                CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
                CHECK_STR(target, "../../etc/passwd");
                fixture_done(&f);
        }
}

static void hard_links_share_a_node_where_inodes_are_real(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t file;

        if (!fixture_init(&f))
                return;
        put_real(&f, "a", "x");
        file = look(&f, VOLUME_ROOT, "a");
        CHECK_EQ(f.ops->link(f.v, &f.op, file, VOLUME_ROOT, "b", &e), 0);
        CHECK_EQ(e.node, file);
        CHECK_EQ(e.st.st_nlink, 2);
        CHECK_EQ(e.ttl_ns, 0);
        CHECK_EQ(look(&f, VOLUME_ROOT, "b"), file);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, VOLUME_ROOT, "a"), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), 0);
        CHECK_EQ(e.st.st_nlink, 1);
        f.box.has_no_links = true;
        CHECK_EQ(f.ops->link(f.v, &f.op, file, VOLUME_ROOT, "c", &e), -EPERM);
        fixture_done(&f);
        if (!fixture_init(&f))
                return;
        f.box.has_no_ino = true;
        put_real(&f, "a", "x");
        file = look(&f, VOLUME_ROOT, "a");
        CHECK_EQ(f.ops->getattr(f.v, &f.op, file, NULL, &e), 0);
        CHECK(e.st.st_ino != 0 && e.st.st_nlink == 1 && e.st.st_blocks == 1);
        CHECK(e.st.st_ctim.tv_sec != 0);
        fixture_done(&f);
}

static void what_is_only_here_is_shown_though_its_directory_is_not(void)
{
        struct fixture f;
        struct vol_opened o;
        struct vol_entry e;
        struct seen s;
        uint64_t dir;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        mkdir_real(&f, "d");
        dir = look(&f, VOLUME_ROOT, "d");
        CHECK_EQ(f.ops->create(f.v, &f.op, dir, "x", 0644, O_RDWR | O_CREAT | O_EXCL, &e, &o), 0);
        CHECK_EQ(f.ops->write(f.v, &f.op, o.file, "abc", 3, 0), 3);
        sleep_ms(100);
        atomic_store(&f.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(walk(&f, "d"), dir);
        CHECK_EQ(size_at(&f, walk(&f, "d/x")), 3);
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(s.count, 1);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, dir, "y", &e), -EHOSTUNREACH);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d"), -ENOTEMPTY);
        atomic_store(&f.box.enter_error, 0);
        CHECK_EQ(file_remove_tree(f.box.dir, "d"), 0);
        CHECK_EQ(size_at(&f, walk(&f, "d/x")), 3);
        CHECK_EQ(read_dir(&f, dir, &s), 0);
        CHECK_EQ(s.count, 1);
        f.ops->release(f.v, o.file);
        fixture_done(&f);
}

/* ---- directories ---- */

static void an_open_directory_keeps_its_places(void)
{
        struct fixture f;
        struct seen s = {.head = {on_add}, .max = 2};
        struct vol_dir *d;
        uint64_t dir;

        if (!fixture_init_ttl(&f, 50 * NS_PER_MS))
                return;
        plant(&f, "", 1, 5);
        dir = look(&f, VOLUME_ROOT, "d0");
        CHECK_EQ(f.ops->opendir(f.v, &f.op, dir, &d), 0);
        CHECK_EQ(read_all(&f, d, &s), 0);
        CHECK_EQ(s.count, 5);
        put_real(&f, "d0/late", "");
        sleep_ms(100);
        /* Any offset is safe; the rest is what it was. */
        s.in_call = 0;
        CHECK_EQ(f.ops->readdir(f.v, &f.op, d, 6, false, &s.head), 0);
        CHECK_EQ(s.in_call, 1);
        s.in_call = 0;
        CHECK_EQ(f.ops->readdir(f.v, &f.op, d, UINT64_MAX, true, &s.head), 0);
        CHECK_EQ(s.in_call, 0);
        CHECK_EQ(read_all(&f, d, &s), 0); /* rewinddir */
        CHECK_EQ(s.count, 6);
        f.ops->releasedir(f.v, d);
        /* Removed while open: empty, and still has attributes. */
        CHECK_EQ(f.ops->opendir(f.v, &f.op, dir, &d), 0);
        CHECK_EQ(file_remove_tree(f.box.dir, "d0"), 0);
        sleep_ms(100);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d0", 0755, &(struct vol_entry){.node = 0}),
                 0);
        CHECK_EQ(f.ops->rmdir(f.v, &f.op, VOLUME_ROOT, "d0"), 0);
        CHECK_EQ(read_all(&f, d, &s), 0);
        CHECK_EQ(s.count, 0);
        CHECK(size_at(&f, dir) >= 0);
        f.ops->releasedir(f.v, d);
        fixture_done(&f);
}

int main(void)
{
        RUN(own_changes_are_known_at_once);
        RUN(fs_itself_answers_at_once_with_our_changes);
        RUN(a_listing_does_not_undo_a_change_that_overtook_it);
        RUN(rename_takes_the_subtree_along);
        RUN(a_lost_answer_is_looked_into);
        RUN(changes_inside_show_as_other_files);
        RUN(links_answer_what_stays_inside);
        RUN(hard_links_share_a_node_where_inodes_are_real);
        RUN(what_is_only_here_is_shown_though_its_directory_is_not);
        RUN(an_open_directory_keeps_its_places);
        return check_result();
}
