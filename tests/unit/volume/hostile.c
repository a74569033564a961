/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox that swaps directories for links, files for FIFOs and links, and moves directories
 * about, all the time, while the volume is used: nothing outside may be shown, changed or made, and
 * nothing may block.
 */

#include <pthread.h>

#include "tests/unit/volume/support.h"

#define RUN_MS 3000
#define RUN_MAX_MS 60000 /* where that is too short to do much */
#define SLOW_NS (30 * NS_PER_S) /* a blocked open would wait for ever */
#define SECRET "SECRET"

struct battle {
        struct fixture f;
        char outside[64]; /* what must not be touched */
        ino_t outside_ino[3];
        int d, e; /* two directories of the sandbox, wherever they are */
        atomic_bool is_over;
        atomic_uint_fast64_t done, refused;
};

/* ---- the attackers ---- */

/*
 * A sandbox can't see what is outside, this process can: to stay inside, it names everything by one
 * component below a directory that it holds. What was moved away is not there at times.
 */
static void swap(int dir, const char *name, int other_dir, const char *other)
{
        (void)renameat2(dir, name, other_dir, other, RENAME_EXCHANGE);
}

static void *swap_directories(void *arg)
{
        struct battle *b = arg;

        while (!atomic_load(&b->is_over)) {
                swap(b->f.fd, "d", b->f.fd, "to-outside");
                swap(b->f.fd, "d", b->f.fd, "to-outside");
                swap(b->d, "e", b->f.fd, "plain");
                swap(b->d, "e", b->f.fd, "plain");
                swap(b->d, "e", b->f.fd, "to-secret");
                swap(b->d, "e", b->f.fd, "to-secret");
        }
        return NULL;
}

static void *swap_files(void *arg)
{
        struct battle *b = arg;

        while (!atomic_load(&b->is_over)) {
                swap(b->d, "x", b->f.fd, "to-x");
                swap(b->d, "x", b->f.fd, "fifo");
                swap(b->d, "x", b->f.fd, "up");
                swap(b->d, "x", b->f.fd, "e-up");
        }
        return NULL;
}

static void *move_directories(void *arg)
{
        struct battle *b = arg;

        while (!atomic_load(&b->is_over)) {
                (void)renameat(b->e, "deep", b->f.fd, "deep");
                (void)renameat(b->f.fd, "deep", b->e, "deep");
                (void)renameat(b->d, "new", b->e, "new");
        }
        return NULL;
}

/* ---- the user, through the volume ---- */

struct user {
        struct battle *b;
        struct vol_op op;
        struct call call;
        unsigned turn;
};

static void count(struct battle *b, int r)
{
        atomic_fetch_add(r < 0 ? &b->refused : &b->done, 1);
}

static void check_inode(const struct battle *b, const struct stat *st)
{
        for (unsigned i = 0; i < 3; i++)
                CHECK(st->st_ino != b->outside_ino[i]);
}

static uint64_t look_up(struct user *u, uint64_t parent, const char *name)
{
        struct battle *b = u->b;
        struct vol_entry e = {0};
        int r = b->f.ops->lookup(b->f.v, &u->op, parent, name, &e);

        count(b, r);
        if (r < 0 || e.node == 0)
                return 0;
        check_inode(b, &e.st);
        return e.node;
}

static void forget(struct user *u, uint64_t node)
{
        if (node)
                u->b->f.ops->forget(u->b->f.v, node, 1);
}

static void use_handle(struct user *u, struct vol_file *file, bool may_write)
{
        struct battle *b = u->b;
        char text[16] = {0};
        ssize_t n = b->f.ops->read(b->f.v, &u->op, file, text, sizeof(text) - 1, 0);

        count(b, (int)n);
        CHECK(!strstr(text, SECRET));
        if (may_write)
                count(b, (int)b->f.ops->write(b->f.v, &u->op, file, "ours", 4, 0));
        b->f.ops->release(b->f.v, file);
}

static void use_file(struct user *u, uint64_t node, int flags)
{
        struct battle *b = u->b;
        struct vol_opened o = {0};
        int r = b->f.ops->open(b->f.v, &u->op, node, flags, &o);

        count(b, r);
        if (r == 0)
                use_handle(u, o.file, flags != O_RDONLY);
}

static void use_link(struct user *u, uint64_t node)
{
        struct battle *b = u->b;
        char target[PATH_MAX];
        int r = b->f.ops->readlink(b->f.v, &u->op, node, target, sizeof(target));
        const char *rest = target;

        count(b, r);
        if (r < 0)
                return;
        if (strncmp(rest, "../", 3) == 0) /* d/x: one directory deep */
                rest += 3;
        CHECK(rest[0] != '/');
        CHECK(strcmp(target, "..") == 0 || !strstr(rest, ".."));
}

static void change(struct user *u, uint64_t node)
{
        static const unsigned what[] = {VOL_SET_MODE, VOL_SET_SIZE,
                                        VOL_SET_MTIME | VOL_SET_ATIME_NOW};
        struct battle *b = u->b;
        struct stat to = {.st_mode = 0640, .st_size = 1};
        struct vol_entry e = {0};
        int r = b->f.ops->setattr(b->f.v, &u->op, node, NULL, what[u->turn % 3], &to, &e);

        count(b, r);
        if (r == 0)
                check_inode(b, &e.st);
        r = b->f.ops->getattr(b->f.v, &u->op, node, NULL, &e);
        count(b, r);
        if (r == 0)
                check_inode(b, &e.st);
}

static void make_in(struct user *u, uint64_t dir)
{
        struct battle *b = u->b;
        const struct vol_ops *ops = b->f.ops;
        struct vol_opened o = {0};
        struct vol_entry e = {0};
        char name[32];
        int r;

        (void)snprintf(name, sizeof(name), "%lx-%u", (unsigned long)pthread_self(), u->turn);
        switch (u->turn % 4) {
        case 0: r = ops->create(b->f.v, &u->op, dir, name, 0644, O_RDWR | O_EXCL, &e, &o); break;
        case 1: r = ops->mkdir(b->f.v, &u->op, dir, name, 0755, &e); break;
        case 2: r = ops->symlink(b->f.v, &u->op, dir, name, "/etc/passwd", &e); break;
        default: r = ops->create(b->f.v, &u->op, dir, "x", 0644, O_RDWR | O_TRUNC, &e, &o); break;
        }
        count(b, r);
        if (r < 0)
                return;
        check_inode(b, &e.st);
        if (o.file)
                use_handle(u, o.file, true);
        forget(u, e.node);
        if (u->turn % 4 == 3)
                return;
        r = ops->rename(b->f.v, &u->op, dir, name, dir, "new", 0);
        count(b, r);
        r = u->turn % 4 == 1 ? ops->rmdir(b->f.v, &u->op, dir, "new")
                             : ops->unlink(b->f.v, &u->op, dir, "new");
        count(b, r);
}

struct listing {
        struct vol_dir_sink sink;
        struct user *u;
};

static bool on_entry(struct vol_dir_sink *to, const char *name, const struct vol_entry *e,
                     uint64_t next)
{
        struct listing *l = (struct listing *)(void *)to;

        (void)next;
        CHECK(strcmp(name, "secret") != 0);
        if (e->node)
                check_inode(l->u->b, &e->st);
        forget(l->u, e->node);
        return true;
}

static void list(struct user *u, uint64_t dir)
{
        struct battle *b = u->b;
        struct listing l = {.sink = {on_entry}, .u = u};
        struct vol_dir *handle = NULL;
        int r = b->f.ops->opendir(b->f.v, &u->op, dir, &handle);

        count(b, r);
        if (r < 0)
                return;
        count(b, b->f.ops->readdir(b->f.v, &u->op, handle, 0, true, &l.sink));
        b->f.ops->releasedir(b->f.v, handle);
}

static void use_all(struct user *u)
{
        static const int flags[] = {O_RDONLY, O_RDWR, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND};
        uint64_t d = look_up(u, VOLUME_ROOT, "d");
        uint64_t x = d ? look_up(u, d, "x") : 0, e = d ? look_up(u, d, "e") : 0;

        if (x) {
                use_file(u, x, flags[u->turn % 4]);
                use_link(u, x);
                change(u, x);
        }
        if (d) {
                make_in(u, d);
                list(u, d);
        }
        if (e) {
                uint64_t deep = look_up(u, e, "deep");

                make_in(u, e);
                if (deep)
                        make_in(u, deep);
                forget(u, deep);
        }
        forget(u, x);
        forget(u, e);
        forget(u, d);
}

static void *use(void *arg)
{
        struct user u = {.b = arg};

        call_init(&u.call, NEVER_NS);
        u.op = (struct vol_op){.call = &u.call, .umask = 022, .tid = gettid(), .may_wait = true};
        while (!atomic_load(&u.b->is_over) && atomic_load(&check_failures) < 20) {
                uint64_t start_ns = clock_mono_ns();

                use_all(&u);
                CHECK(clock_mono_ns() - start_ns < SLOW_NS);
                u.turn++;
        }
        return NULL;
}

/* ---- the field ---- */

static void link_real(struct battle *b, const char *target, const char *name)
{
        CHECK_EQ(symlinkat(target, b->f.fd, name), 0);
}

static void set_up(struct battle *b)
{
        char path[128];
        struct stat st;
        int fd;

        (void)snprintf(b->outside, sizeof(b->outside), "/tmp/sbxfs-outside.XXXXXX");
        CHECK(mkdtemp(b->outside));
        CHECK_EQ(chmod(b->outside, 0777), 0);
        CHECK_EQ(stat(b->outside, &st), 0);
        b->outside_ino[0] = st.st_ino;
        (void)snprintf(path, sizeof(path), "%s/x", b->outside);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        CHECK_EQ(write(fd, SECRET, 6), 6);
        CHECK_EQ(fstat(fd, &st), 0);
        b->outside_ino[1] = st.st_ino;
        CHECK_EQ(close(fd), 0);
        (void)snprintf(path, sizeof(path), "%s/secret", b->outside);
        CHECK_EQ(mkdir(path, 0777), 0);
        CHECK_EQ(stat(path, &st), 0);
        b->outside_ino[2] = st.st_ino;

        CHECK_EQ(mkdirat(b->f.fd, "d", 0777), 0);
        CHECK_EQ(mkdirat(b->f.fd, "d/e", 0777), 0);
        CHECK_EQ(mkdirat(b->f.fd, "d/e/deep", 0777), 0);
        CHECK_EQ(mkdirat(b->f.fd, "plain", 0777), 0);
        put_real(&b->f, "d/x", "inside");
        link_real(b, b->outside, "to-outside");
        link_real(b, path, "to-secret");
        (void)snprintf(path, sizeof(path), "%s/x", b->outside);
        link_real(b, path, "to-x");
        b->d = openat(b->f.fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        b->e = openat(b->f.fd, "d/e", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        link_real(b, "../../../../../../etc/passwd", "up");
        link_real(b, "e/e/../../../../x", "e-up");
        CHECK_EQ(mkfifoat(b->f.fd, "fifo", 0666), 0);
        if (geteuid() == 0) /* what the box's user would have made */
                for (const char *const *name = (const char *const[]){"d", "d/e", "d/e/deep",
                                                                     "plain", "d/x", "fifo", NULL};
                     *name; name++)
                        CHECK_EQ(fchownat(b->f.fd, *name, BOX_UID, BOX_GID, AT_SYMLINK_NOFOLLOW),
                                 0);
}

static void check_outside(const struct battle *b, const struct stat *before)
{
        char path[128], text[16] = {0};
        struct stat st;
        int fd, names = 0;
        DIR *dir = opendir(b->outside);

        while (CHECK(dir) && readdir(dir))
                names++;
        CHECK_EQ(names, 4);
        CHECK_EQ(closedir(dir), 0);
        (void)snprintf(path, sizeof(path), "%s/x", b->outside);
        CHECK_EQ(stat(path, &st), 0);
        CHECK_EQ(st.st_mode, before->st_mode);
        CHECK_EQ(st.st_nlink, 1);
        CHECK_EQ(clock_from_timespec(st.st_mtim), clock_from_timespec(before->st_mtim));
        CHECK_EQ(clock_from_timespec(st.st_ctim), clock_from_timespec(before->st_ctim));
        fd = open(path, O_RDONLY | O_CLOEXEC);
        CHECK_EQ(read(fd, text, sizeof(text)), 6);
        CHECK_STR(text, SECRET);
        CHECK_EQ(close(fd), 0);
}

static void a_hostile_sandbox_never_reaches_outside(void)
{
        void *(*const roles[])(void *) = {
                swap_directories, swap_files, move_directories, use, use, use};
        pthread_t threads[6];
        static struct battle b;
        char path[128];
        struct stat before;

        memset(&b, 0, sizeof(b));
        if (!fixture_init(&b.f))
                return;
        set_up(&b);
        (void)snprintf(path, sizeof(path), "%s/x", b.outside);
        CHECK_EQ(stat(path, &before), 0);
        for (int i = 0; i < 6; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, roles[i], &b), 0);
        for (unsigned ms = 0;
             ms < RUN_MS || (ms < RUN_MAX_MS && (b.done <= 100 || b.refused <= 100)); ms += 100)
                (void)usleep(100000);
        atomic_store(&b.is_over, true);
        for (int i = 0; i < 6; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        check_outside(&b, &before);
        CHECK_EQ(close(b.d), 0);
        CHECK_EQ(close(b.e), 0);
        (void)fprintf(stderr, "%llu done, %llu refused\n", (unsigned long long)b.done,
                      (unsigned long long)b.refused);
        CHECK(b.done > 100 && b.refused > 100);
        CHECK_EQ(file_remove_tree(AT_FDCWD, b.outside), 0);
        fixture_done(&b.f);
}

static void tests(void)
{
        RUN(a_hostile_sandbox_never_reaches_outside);
}

int main(void)
{
        return run_twice(tests);
}
