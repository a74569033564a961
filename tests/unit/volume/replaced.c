/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that another one takes the place of between the moment in which it is asked for by its path
 * and the answer: its open handles never get the other's bytes.
 */

#include "tests/unit/volume/content_support.h"

#define LARGE (300 * 1024) /* read in parts, from a handle there */

/* What happens inside, once, before a call of this kind is carried out. */
struct meanwhile {
        struct world w; /* first */
        enum fake_call call;
        void (*happens)(struct world *w);
};

static void hook(struct fake_box *b, enum fake_call call, const char *path, bool is_after)
{
        struct meanwhile *m = b->ctx;
        void (*happens)(struct world * w) = m->happens;

        (void)path;
        if (call != m->call || is_after || !happens)
                return;
        m->happens = NULL;
        happens(&m->w);
}

static bool start(struct meanwhile *m)
{
        m->w.ttl_ns = 1; /* each open looks at the file */
        if (!world_init(&m->w))
                return false;
        m->w.box.ctx = m;
        m->w.box.hook = hook;
        return true;
}

static void expect(struct meanwhile *m, enum fake_call call, void (*happens)(struct world *w))
{
        m->call = call;
        m->happens = happens;
}

static void replace(struct world *w)
{
        real_put(w, "new", "other", 5);
        CHECK_EQ(renameat(w->box.dir, "new", w->box.dir, "a"), 0);
}

static void replace_large(struct world *w)
{
        static char other[LARGE];

        memset(other, 'o', sizeof(other));
        real_put(w, "new", other, sizeof(other));
        CHECK_EQ(renameat(w->box.dir, "new", w->box.dir, "a"), 0);
}

static void take_away(struct world *w)
{
        CHECK_EQ(unlinkat(w->box.dir, "a", 0), 0);
}

static const char *read_by(struct world *w, struct vol_file *f)
{
        static char text[64];
        ssize_t n = read_file(w, f, text, sizeof(text) - 1, 0);

        if (n < 0)
                return n == -ESTALE ? "(stale)" : "(not read)";
        text[n] = '\0';
        return text;
}

/*
 * A file written just now may change without its attributes showing it: the second opening drops
 * its bytes. Where they can't be had again, those who had them keep them.
 */
static void lost_while_doubted(void (*happens)(struct world *w))
{
        struct meanwhile m = {0};
        struct vol_file *first, *second;

        if (!start(&m))
                return;
        m.w.box.ahead_s = 1000; /* just now, however slow we are */
        real_put(&m.w, "a", "first", 5);
        first = open_at(&m.w, "a", O_RDONLY);
        if (!CHECK(first))
                return;
        CHECK_STR(read_by(&m.w, first), "first");
        expect(&m, FAKE_FETCH, happens);
        second = open_at(&m.w, "a", O_RDONLY);
        CHECK(!m.happens); /* else the test shows nothing */
        CHECK_STR(read_by(&m.w, first), "first");
        if (second) /* opened just before that */
                CHECK_STR(read_by(&m.w, second), "first");
        CHECK_STR(get(&m.w, "a"), happens == replace ? "other" : "(not opened)");
        CHECK_STR(read_by(&m.w, first), "first");
        m.w.ops->release(m.w.v, first);
        if (second)
                m.w.ops->release(m.w.v, second);
        world_done(&m.w);
}

static void replaced_while_its_bytes_are_in_doubt_it_keeps_them(void)
{
        lost_while_doubted(replace);
}

static void removed_while_its_bytes_are_in_doubt_it_keeps_them(void)
{
        lost_while_doubted(take_away);
}

/* Its bytes of now were never here. */
static void replaced_after_a_change_it_is_stale(void)
{
        struct meanwhile m = {0};
        struct vol_file *first, *second;

        if (!start(&m))
                return;
        real_put_settled(&m.w, "a", "first", 5);
        first = open_at(&m.w, "a", O_RDONLY);
        if (!CHECK(first))
                return;
        CHECK_STR(read_by(&m.w, first), "first");
        real_put_settled(&m.w, "a", "second", 6);
        expect(&m, FAKE_FETCH, replace);
        second = open_at(&m.w, "a", O_RDONLY);
        CHECK(!m.happens);
        CHECK(!second); /* -ESTALE: the kernel walks its path again */
        CHECK_STR(read_by(&m.w, first), "(stale)");
        CHECK_STR(get(&m.w, "a"), "other");
        m.w.ops->release(m.w.v, first);
        world_done(&m.w);
}

static void large_file_replaced_while_it_is_opened_is_stale(void)
{
        static char mine[LARGE];
        struct meanwhile m = {0};
        struct vol_file *f;

        if (!start(&m))
                return;
        memset(mine, 'm', sizeof(mine));
        real_put_settled(&m.w, "a", mine, sizeof(mine));
        expect(&m, FAKE_OPEN, replace_large);
        f = open_at(&m.w, "a", O_RDONLY);
        CHECK(!m.happens);
        CHECK(!f);
        f = open_at(&m.w, "a", O_RDONLY);
        if (CHECK(f)) {
                CHECK(read_by(&m.w, f)[0] == 'o');
                m.w.ops->release(m.w.v, f);
        }
        world_done(&m.w);
}

int main(void)
{
        RUN(replaced_while_its_bytes_are_in_doubt_it_keeps_them);
        RUN(removed_while_its_bytes_are_in_doubt_it_keeps_them);
        RUN(replaced_after_a_change_it_is_stale);
        RUN(large_file_replaced_while_it_is_opened_is_stale);
        return check_result();
}
