/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the cached volume under strain: all operations at once, and listings that lie. */

#include <pthread.h>

#include "tests/unit/volume/names_support.h"

/* ---- all at once ---- */

struct stressor {
        struct fixture *f;
        unsigned seed;
        pthread_t thread;
};

static unsigned roll(unsigned *seed, unsigned sides)
{
        *seed = *seed * 1103515245 + 12345;
        return (*seed >> 16) % sides;
}

/* Any errno will do: what counts is that nothing breaks, hangs or leaks. */
static void one_step(struct fixture *f, struct vol_op *op, unsigned *seed)
{
        static const char *const names[] = {"a", "b", "c", "d"};
        const char *name = names[roll(seed, 4)], *other = names[roll(seed, 4)];
        struct vol_entry e = {.node = 0}, to = {.node = 0};
        struct seen s = {.head = {on_add}, .max = 3};
        struct vol_opened o;
        struct vol_dir *d;
        uint64_t dir = VOLUME_ROOT, held[2] = {0, 0};

        if (roll(seed, 2) == 0 && f->ops->lookup(f->v, op, VOLUME_ROOT, other, &e) == 0 &&
            e.node != 0) {
                held[0] = e.node;
                if (S_ISDIR(e.st.st_mode))
                        dir = e.node;
        }
        if (f->ops->lookup(f->v, op, dir, name, &to) == 0)
                held[1] = to.node;
        switch (roll(seed, 10)) {
        case 0:
                if (f->ops->mkdir(f->v, op, dir, name, 0755, &e) == 0)
                        f->ops->forget(f->v, e.node, 1);
                break;
        case 1: (void)f->ops->rmdir(f->v, op, dir, name); break;
        case 2: (void)f->ops->unlink(f->v, op, dir, name); break;
        case 3: (void)f->ops->rename(f->v, op, dir, name, VOLUME_ROOT, other, 0); break;
        case 4:
                if (f->ops->create(f->v, op, dir, name, 0644, O_RDWR | O_CREAT, &e, &o) == 0) {
                        (void)f->ops->write(f->v, op, o.file, name, 1, roll(seed, 100));
                        (void)f->ops->flush(f->v, op, o.file);
                        f->ops->release(f->v, o.file);
                        f->ops->forget(f->v, e.node, 1);
                }
                break;
        case 5:
                if (f->ops->symlink(f->v, op, dir, name, "../x", &e) == 0)
                        f->ops->forget(f->v, e.node, 1);
                break;
        case 6:
                if (to.node && S_ISREG(to.st.st_mode) &&
                    f->ops->link(f->v, op, to.node, VOLUME_ROOT, other, &e) == 0)
                        f->ops->forget(f->v, e.node, 1);
                break;
        case 7:
                if (f->ops->opendir(f->v, op, dir, &d) == 0) {
                        (void)f->ops->readdir(f->v, op, d, 0, false, &s.head);
                        s.in_call = 0;
                        (void)f->ops->readdir(f->v, op, d, 2, false, &s.head);
                        f->ops->releasedir(f->v, d);
                }
                break;
        case 8:
                if (to.node)
                        (void)f->ops->getattr(f->v, op, to.node, NULL, &e);
                break;
        default:
                (void)unlinkat(f->box.dir, name, 0);
                (void)renameat(f->box.dir, other, f->box.dir, name);
                if (roll(seed, 10) == 0)
                        f->ops->exec_ended(f->v);
                break;
        }
        for (int i = 0; i < 2; i++) {
                if (held[i])
                        f->ops->forget(f->v, held[i], 1);
        }
}

static void *stress(void *arg)
{
        struct stressor *x = arg;

        for (int i = 0; i < 400; i++) {
                struct call call;
                struct vol_op op = {.call = &call, .umask = 022, .may_wait = true};

                call_init(&call, clock_after(20 * NS_PER_S));
                one_step(x->f, &op, &x->seed);
        }
        return NULL;
}

static void anything_may_happen_at_once(void)
{
        struct fixture f;
        struct stressor all[6];

        if (!fixture_init_ttl(&f, 5 * NS_PER_MS))
                return;
        for (unsigned i = 0; i < 6; i++) {
                all[i] = (struct stressor){.f = &f, .seed = i * 7919 + 1};
                CHECK_EQ(pthread_create(&all[i].thread, NULL, stress, &all[i]), 0);
        }
        for (unsigned i = 0; i < 6; i++)
                CHECK_EQ(pthread_join(all[i].thread, NULL), 0);
        CHECK_EQ(f.ops->sync(f.v, &f.op) <= 0, true);
        fixture_done(&f);
}

/* ---- hostile listings ---- */

static void add_hostile(struct fake_box *box, const char *path, struct file_list_sink *to)
{
        struct stat st = {.st_mode = S_IFREG | 0644}, dir = {.st_mode = S_IFDIR | 0755};
        char *deep = malloc(40000);

        (void)box;
        (void)path;
        CHECK_EQ(to->entry(to, "..", &dir, NULL), 0);
        CHECK_EQ(to->entry(to, "../escape", &st, NULL), 0);
        CHECK_EQ(to->entry(to, "/etc/passwd", &st, NULL), 0);
        CHECK_EQ(to->entry(to, "a//b", &st, NULL), 0);
        CHECK_EQ(to->entry(to, ".", &dir, NULL), 0);
        CHECK_EQ(to->listed(to, "../.."), 0);
        if (deep) {
                for (size_t i = 0; i < 20000; i++)
                        memcpy(deep + 2 * i, "d/", 2);
                deep[39999] = '\0';
                CHECK_EQ(to->entry(to, deep, &dir, NULL), 0);
        }
        free(deep);
}

static void hostile_listings_bring_nothing(void)
{
        struct fixture f;
        struct seen s;

        if (!fixture_init(&f))
                return;
        plant(&f, "", 1, 1);
        f.box.add = add_hostile;
        CHECK_EQ(read_dir(&f, VOLUME_ROOT, &s), 0);
        CHECK_EQ(s.count, 1);
        CHECK_STR(s.last, "d0");
        CHECK_EQ(find(&f, VOLUME_ROOT), 2);
        fixture_done(&f);
}

int main(void)
{
        RUN(anything_may_happen_at_once);
        RUN(hostile_listings_bring_nothing);
        return check_result();
}
