/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many files, few descriptors, long paths. With an argument it is a benchmark: `scale bench` prints
 * what operations cost.
 */

#include <malloc.h>
#include <sys/resource.h>

#include "tests/unit/volume/support.h"

#define DIRS 200
#define FILES_PER_DIR 1000
#define BYTES_PER_NODE 200

struct listing {
        struct vol_dir_sink sink;
        unsigned count;
        uint64_t *nodes; /* where they are kept */
};

static bool on_entry(struct vol_dir_sink *to, const char *name, const struct vol_entry *e,
                     uint64_t next)
{
        struct listing *l = (struct listing *)(void *)to;

        (void)name;
        (void)next;
        if (e->node)
                l->nodes[l->count++] = e->node;
        return true;
}

static unsigned list(struct fixture *f, uint64_t node, uint64_t *to)
{
        struct listing l = {.sink = {on_entry}, .nodes = to};
        struct vol_dir *dir;

        if (!CHECK_EQ(f->ops->opendir(f->v, &f->op, node, &dir), 0))
                return 0;
        CHECK_EQ(f->ops->readdir(f->v, &f->op, dir, 0, true, &l.sink), 0);
        f->ops->releasedir(f->v, dir);
        return l.count;
}

static void two_hundred_thousand_files_cost_little_memory(void)
{
        uint64_t *nodes = calloc(DIRS * (FILES_PER_DIR + 1), sizeof(*nodes));
        unsigned count;
        size_t before;
        struct fixture f;
        char name[64];

        if (!CHECK(nodes) || !fixture_init(&f))
                return;
        for (int d = 0; d < DIRS; d++) {
                (void)snprintf(name, sizeof(name), "dir%d", d);
                CHECK_EQ(mkdirat(f.fd, name, 0777), 0);
                for (int i = 0; i < FILES_PER_DIR; i++) {
                        (void)snprintf(name, sizeof(name), "dir%d/file-%d.txt", d, i);
                        if (mknodat(f.fd, name, S_IFREG | 0644, 0) < 0)
                                CHECK(false);
                }
        }
        before = mallinfo2().uordblks;
        count = list(&f, VOLUME_ROOT, nodes);
        CHECK_EQ(count, DIRS);
        for (int d = 0; d < DIRS; d++)
                count += list(&f, nodes[d], nodes + count);
        CHECK_EQ(count, DIRS * (FILES_PER_DIR + 1));
        before = mallinfo2().uordblks - before;
        (void)fprintf(stderr, "%zu bytes a node\n", before / count);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        CHECK(before / count < BYTES_PER_NODE);
#endif
        for (unsigned i = 0; i < count; i++)
                f.ops->forget(f.v, nodes[i], 1);
        free(nodes);
        fixture_done(&f);
}

static void too_many_handles_leave_operations_working(void)
{
        struct rlimit old, low = {.rlim_cur = 128};
        struct vol_opened o;
        struct vol_file *open[128];
        struct vol_entry e;
        struct fixture f;
        uint64_t x;
        int count = 0, r = 0;

        CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
        low.rlim_max = old.rlim_max;
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
        if (!fixture_init(&f))
                return;
        put(&f, VOLUME_ROOT, "x", "text");
        x = look(&f, VOLUME_ROOT, "x");
        while (count < 128 && (r = f.ops->open(f.v, &f.op, x, O_RDONLY, &o)) == 0)
                open[count++] = o.file;
        CHECK_EQ(r, -EMFILE);
        CHECK(count > 60);
        CHECK_EQ(f.ops->create(f.v, &f.op, VOLUME_ROOT, "y", 0644, O_RDWR, &e, &o), -EMFILE);
        CHECK_EQ(f.ops->lookup(f.v, &f.op, VOLUME_ROOT, "x", &e), 0);
        CHECK_EQ(f.ops->getattr(f.v, &f.op, VOLUME_ROOT, NULL, &e), 0);
        CHECK_EQ(f.ops->mkdir(f.v, &f.op, VOLUME_ROOT, "d", 0755, &e), 0);
        CHECK_EQ(f.ops->rename(f.v, &f.op, VOLUME_ROOT, "x", e.node, "x", 0), 0);
        CHECK_EQ(f.ops->unlink(f.v, &f.op, e.node, "x"), 0);
        while (count > 0)
                f.ops->release(f.v, open[--count]);
        fixture_done(&f);
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

static void paths_longer_than_the_limit_work(void)
{
        struct fixture f;
        struct vol_entry e;
        uint64_t nodes[40], node = VOLUME_ROOT;
        char name[NAME_MAX + 1], target[256];

        if (!fixture_init(&f))
                return;
        memset(name, 'n', NAME_MAX);
        name[NAME_MAX] = '\0';
        for (int i = 0; i < 40; i++)
                node = nodes[i] = make_dir(&f, node, name);
        put(&f, node, "x", "deep");
        CHECK_STR(content_at(&f, look(&f, node, "x")), "deep");
        CHECK_EQ(f.ops->symlink(f.v, &f.op, node, "l", "/etc/passwd", &e), 0);
        CHECK_EQ(e.st.st_size, 40 * 3 + 10);
        CHECK_EQ(f.ops->readlink(f.v, &f.op, e.node, target, sizeof(target)), 0);
        CHECK_EQ(strlen(target), 40 * 3 + 10);
        CHECK_EQ(f.ops->rename(f.v, &f.op, node, "x", VOLUME_ROOT, "x", 0), 0);
        CHECK_STR(content_at(&f, look(&f, VOLUME_ROOT, "x")), "deep");
        CHECK_EQ(f.ops->unlink(f.v, &f.op, node, "l"), 0);
        for (int i = 39; i >= 0; i--)
                CHECK_EQ(f.ops->rmdir(f.v, &f.op, i > 0 ? nodes[i - 1] : VOLUME_ROOT, name), 0);
        fixture_done(&f);
}

/* ---- benchmark ---- */

#define ROUNDS 20000

static void report(const char *what, uint64_t start_ns)
{
        (void)printf("%-34s %6.2f us\n", what,
                     (double)(clock_mono_ns() - start_ns) / ROUNDS / 1000);
}

static void bench(void)
{
        struct fixture f;
        struct vol_opened o;
        struct vol_entry e;
        uint64_t d, x, start_ns;
        char name[32], text[4096] = {0};

        if (!fixture_init(&f))
                return;
        d = make_dir(&f, make_dir(&f, make_dir(&f, VOLUME_ROOT, "one"), "two"), "three");
        put(&f, d, "x", "text");
        x = look(&f, d, "x");
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++)
                (void)f.ops->lookup(f.v, &f.op, d, "x", &e);
        report("lookup, 4 components", start_ns);
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++)
                (void)f.ops->lookup(f.v, &f.op, d, "absent", &e);
        report("lookup of an absent name", start_ns);
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++)
                (void)f.ops->getattr(f.v, &f.op, x, NULL, &e);
        report("getattr", start_ns);
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++) {
                (void)f.ops->open(f.v, &f.op, x, O_RDONLY, &o);
                f.ops->release(f.v, o.file);
        }
        report("open and release", start_ns);
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                (void)f.ops->create(f.v, &f.op, d, name, 0644, O_WRONLY | O_EXCL, &e, &o);
                f.ops->release(f.v, o.file);
        }
        report("create and release", start_ns);
        CHECK_EQ(f.ops->open(f.v, &f.op, x, O_RDWR, &o), 0);
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++)
                (void)f.ops->write(f.v, &f.op, o.file, text, sizeof(text), 0);
        report("write of 4 KiB", start_ns);
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++)
                (void)f.ops->read(f.v, &f.op, o.file, text, sizeof(text), 0);
        report("read of 4 KiB", start_ns);
        f.ops->release(f.v, o.file);
        start_ns = clock_mono_ns();
        {
                uint64_t *nodes = calloc(ROUNDS + 8, sizeof(*nodes));

                CHECK_EQ(list(&f, d, nodes), ROUNDS + 1);
                free(nodes);
        }
        report("readdir with attributes, an entry", start_ns);
        start_ns = clock_mono_ns();
        f.ops->exec_ended(f.v);
        report("exec_ended, a node told", start_ns);
        start_ns = clock_mono_ns();
        for (int i = 0; i < ROUNDS; i++) {
                (void)snprintf(name, sizeof(name), "f%d", i);
                (void)f.ops->unlink(f.v, &f.op, d, name);
        }
        report("unlink", start_ns);
        fixture_done(&f);
}

static void tests(void)
{
        RUN(two_hundred_thousand_files_cost_little_memory);
        RUN(too_many_handles_leave_operations_working);
        RUN(paths_longer_than_the_limit_work);
}

int main(int argc, char **argv)
{
        if (access("/dev/shm", W_OK) == 0)
                fixture_base = "/dev/shm"; /* a disk makes 200,000 files in minutes */
        if (argc > 1 && strcmp(argv[1], "bench") == 0) {
                bench();
                return check_result();
        }
        return run_twice(tests);
}
