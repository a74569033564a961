/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of nodes, without a disk; and a long random life that is compared with a plain model.
 */

#include "fs/volume/nodes.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/volume/volume.h"
#include "tests/unit/check.h"

static const struct stat dir_st = {.st_mode = S_IFDIR | 0755, .st_ino = 1};

static struct stat file_st(uint64_t ino, unsigned links)
{
        return (struct stat){.st_mode = S_IFREG | 0644, .st_ino = ino, .st_nlink = links};
}

static uint64_t meet(struct nodes *t, uint64_t parent, const char *name, const struct stat *st)
{
        struct node_id id;

        return CHECK_EQ(nodes_meet(t, parent, name, st, &id), 0) ? id.number : 0;
}

static const char *path_of(struct nodes *t, uint64_t number)
{
        static struct node_path path;
        static char text[PATH_MAX];
        int r = nodes_path(t, number, NULL, &path);

        (void)snprintf(text, sizeof(text), "%s", r < 0 ? "(none)" : path.text);
        CHECK(r < 0 || (path.length == strlen(path.text) && !path.heap));
        node_path_done(&path);
        return text;
}

static void forgotten_nodes_are_freed_with_their_parents(void)
{
        struct stat st = file_st(7, 1);
        struct nodes t;
        uint64_t a, b, x;

        CHECK_EQ(nodes_init(&t), 0);
        a = meet(&t, VOLUME_ROOT, "a", &dir_st);
        b = meet(&t, a, "b", &dir_st);
        x = meet(&t, b, "x", &st);
        CHECK_STR(path_of(&t, x), "a/b/x");
        CHECK_STR(path_of(&t, VOLUME_ROOT), ".");
        CHECK_EQ(nodes_count(&t), 4);
        nodes_forget(&t, a, 1);
        nodes_forget(&t, b, 1);
        CHECK_EQ(nodes_count(&t), 4); /* x needs them */
        CHECK_EQ(meet(&t, b, "x", &st), x);
        nodes_forget(&t, x, 1);
        CHECK_EQ(nodes_count(&t), 4);
        nodes_forget(&t, x, 1);
        CHECK_EQ(nodes_count(&t), 1);
        CHECK_STR(path_of(&t, x), "(none)");
        nodes_forget(&t, x, 1); /* the kernel says it once too often */
        nodes_forget(&t, 99, 1);
        nodes_done(&t);
}

static void numbers_are_used_again_with_another_generation(void)
{
        struct stat st = file_st(7, 1);
        struct node_id first, second;
        struct nodes t;

        CHECK_EQ(nodes_init(&t), 0);
        CHECK_EQ(nodes_meet(&t, VOLUME_ROOT, "x", &st, &first), 0);
        nodes_forget(&t, first.number, 1);
        CHECK_EQ(nodes_meet(&t, VOLUME_ROOT, "y", &st, &second), 0);
        CHECK_EQ(first.number, second.number);
        CHECK(first.generation != second.generation);
        nodes_done(&t);
}

static void moves_never_make_a_loop(void)
{
        struct nodes t;
        uint64_t a, b;

        CHECK_EQ(nodes_init(&t), 0);
        a = meet(&t, VOLUME_ROOT, "a", &dir_st);
        b = meet(&t, a, "b", &dir_st);
        nodes_move(&t, VOLUME_ROOT, "a", b, "c");
        CHECK_STR(path_of(&t, b), "(none)");
        nodes_exchange(&t, a, "b", VOLUME_ROOT, "b");
        CHECK_STR(path_of(&t, b), "b");
        nodes_done(&t);
}

static void made_names_replace_what_was_known(void)
{
        struct node_id id;
        struct nodes t;
        uint64_t d, x;
        struct stat st = file_st(7, 1);

        CHECK_EQ(nodes_init(&t), 0);
        d = meet(&t, VOLUME_ROOT, "d", &dir_st);
        x = meet(&t, d, "x", &st);
        CHECK_EQ(nodes_make(&t, VOLUME_ROOT, "d", &dir_st, &id), 0);
        CHECK(id.number != d);
        CHECK_STR(path_of(&t, d), "(none)");
        CHECK_STR(path_of(&t, x), "(none)");
        CHECK_STR(path_of(&t, id.number), "d");
        nodes_done(&t);
}

static void paths_may_be_long(void)
{
        static struct node_path path;
        char name[NAME_MAX + 1];
        uint64_t number = VOLUME_ROOT;
        struct nodes t;

        CHECK_EQ(nodes_init(&t), 0);
        memset(name, 'n', NAME_MAX);
        name[NAME_MAX] = '\0';
        for (int i = 0; i < 100; i++)
                number = meet(&t, number, name, &dir_st);
        CHECK_EQ(nodes_path(&t, number, "last", &path), 0);
        CHECK_EQ(path.length, 100 * (NAME_MAX + 1) + 4);
        CHECK_EQ(strlen(path.text), path.length);
        CHECK_EQ(path.depth, 101);
        CHECK_STR(path.text + path.length - 5, "/last");
        node_path_done(&path);
        nodes_done(&t);
}

static void open_nodes_stay_until_they_are_closed(void)
{
        struct stat st = file_st(7, 1);
        struct node_open one = {0}, two = {0};
        struct nodes t;
        uint64_t *all, x;
        size_t count;

        CHECK_EQ(nodes_init(&t), 0);
        x = meet(&t, VOLUME_ROOT, "x", &st);
        nodes_open(&t, x, &one);
        nodes_open(&t, x, &two);
        nodes_remove(&t, VOLUME_ROOT, "x");
        nodes_forget(&t, x, 1);
        CHECK_EQ(nodes_count(&t), 2);
        CHECK_EQ(nodes_all_open(&t, &all, &count), 0);
        CHECK_EQ(count, 2);
        free(all);
        CHECK(nodes_any_open(&t, x) == &two);
        CHECK(!nodes_unref(&t, &two));
        CHECK(nodes_unref(&t, &two));
        CHECK(nodes_any_open(&t, x) == &one);
        CHECK(!nodes_unref(&t, &one));
        CHECK(nodes_unref(&t, &one));
        CHECK(!nodes_any_open(&t, x));
        CHECK_EQ(nodes_count(&t), 1);
        nodes_done(&t);
}

/* How many open files have something to take back. */
static size_t recall(struct nodes *t)
{
        uint64_t *all = NULL;
        size_t count = 0;

        CHECK_EQ(nodes_recall(t, &all, &count), 0);
        free(all);
        return count;
}

static void only_what_is_kept_is_taken_back(void)
{
        struct stat st = file_st(7, 1);
        struct node_open one = {0}, two = {0};
        struct nodes t;
        uint64_t x;

        CHECK_EQ(nodes_init(&t), 0);
        x = meet(&t, VOLUME_ROOT, "x", &st);
        CHECK(nodes_may_keep(&t, x, 1)); /* not open: recent.h remembers it */
        CHECK(nodes_may_keep(&t, x, 1));
        CHECK_EQ(recall(&t), 0);
        nodes_open(&t, x, &one);
        CHECK_EQ(recall(&t), 1);
        CHECK(!nodes_may_keep(&t, x, 1)); /* while it is taken back */
        CHECK(!nodes_may_keep(&t, x, 1));
        CHECK_EQ(recall(&t), 1);
        nodes_recalled(&t);
        CHECK_EQ(recall(&t), 0);

        CHECK(!nodes_may_keep(&t, x, 1)); /* the first attributes after it */
        CHECK_EQ(recall(&t), 0);
        CHECK(!nodes_may_keep(&t, x, 1));
        CHECK(nodes_may_keep(&t, x, 1)); /* the second */
        CHECK(nodes_may_keep(&t, x, 1));
        CHECK_EQ(recall(&t), 1);
        nodes_keep(&t, x); /* pages came meanwhile: they may be older or newer */
        nodes_recalled(&t);
        CHECK_EQ(recall(&t), 1);
        nodes_recalled(&t);

        nodes_open(&t, x, &two);
        CHECK_EQ(recall(&t), 2); /* one number, twice */
        nodes_recalled(&t);
        nodes_keep(&t, x);
        CHECK(nodes_unref(&t, &two)); /* the other handle has the pages of this one */
        CHECK_EQ(recall(&t), 1);
        CHECK(nodes_unref(&t, &one));
        nodes_done(&t);
}

static void a_node_is_told_once_in_a_while(void)
{
        struct stat st = file_st(7, 1);
        struct nodes t;
        uint64_t x;

        CHECK_EQ(nodes_init(&t), 0);
        x = meet(&t, VOLUME_ROOT, "x", &st);
        CHECK(nodes_hand_out(&t, x, 1000, 250));
        CHECK(!nodes_hand_out(&t, x, 1249, 250));
        CHECK(nodes_hand_out(&t, x, 1250, 250));
        nodes_hand_out_anew(&t, 1300);
        CHECK(nodes_hand_out(&t, x, 1301, 250));
        CHECK(!nodes_hand_out(&t, x, 1302, 250));
        nodes_done(&t);
}

/* ---- a random life ---- */

#define DIRS 6
#define NAMES 5
#define INODES 12
#define STEPS 200000

static uint64_t seed;

static unsigned pick(unsigned n)
{
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(seed >> 33) % n;
}

struct life {
        struct nodes t;
        uint64_t dirs[DIRS]; /* below the root, never forgotten */
        unsigned links[INODES]; /* how many names the inode has, for st_nlink */
        uint64_t inode[DIRS][NAMES]; /* what is there: 0 nothing, else inode + 1 */
        uint64_t held[64][2]; /* node, references */
};

static void name_of(unsigned i, char name[48])
{
        (void)snprintf(name, 48, "%.*s%u", (int)(i * 4), "a-longer-name-than-the-one-before", i);
}

static void hold(struct life *l, uint64_t node)
{
        unsigned i = pick(64);

        if (l->held[i][0])
                nodes_forget(&l->t, l->held[i][0], l->held[i][1]);
        l->held[i][0] = node;
        l->held[i][1] = 1;
}

static void set_inode(struct life *l, unsigned d, unsigned n, uint64_t to)
{
        if (l->inode[d][n])
                l->links[l->inode[d][n] - 1]--;
        l->inode[d][n] = to;
        if (to)
                l->links[to - 1]++;
}

/* Look a name up, as the kernel would, and see that its path is right. */
static void step_lookup(struct life *l, unsigned d, unsigned n)
{
        struct node_path path;
        struct node_id id;
        struct stat st;
        char name[48];

        if (l->inode[d][n] == 0)
                return;
        name_of(n, name);
        st = file_st(l->inode[d][n] + 100, l->links[l->inode[d][n] - 1]);
        if (!CHECK_EQ(nodes_meet(&l->t, l->dirs[d], name, &st, &id), 0))
                return;
        CHECK_EQ(nodes_path(&l->t, id.number, NULL, &path), 0);
        CHECK_EQ(path.ino, l->inode[d][n] + 100);
        node_path_done(&path);
        hold(l, id.number);
}

/* What the mount does on both sides, and what happens inside on one only. */
static void step(struct life *l)
{
        unsigned d = pick(DIRS), n = pick(NAMES), d2 = pick(DIRS), n2 = pick(NAMES);
        uint64_t was = l->inode[d][n], was2 = l->inode[d2][n2];
        char name[48], name2[48];

        name_of(n, name);
        name_of(n2, name2);
        switch (pick(8)) {
        case 0: /* inside */ set_inode(l, d, n, pick(INODES + 1)); break;
        case 1:
                nodes_remove(&l->t, l->dirs[d], name);
                set_inode(l, d, n, 0);
                break;
        case 2:
                if (was && was != was2) {
                        nodes_move(&l->t, l->dirs[d], name, l->dirs[d2], name2);
                        set_inode(l, d2, n2, was);
                        set_inode(l, d, n, 0);
                }
                break;
        case 3:
                if (was && was2) {
                        nodes_exchange(&l->t, l->dirs[d], name, l->dirs[d2], name2);
                        l->inode[d][n] = was2;
                        l->inode[d2][n2] = was;
                }
                break;
        default: step_lookup(l, d, n); break;
        }
}

static void a_random_life_leaves_nothing_behind(void)
{
        static struct life l;
        char name[48];

        CHECK_EQ(nodes_init(&l.t), 0);
        for (unsigned d = 0; d < DIRS; d++) {
                (void)snprintf(name, sizeof(name), "d%u", d);
                l.dirs[d] = meet(&l.t, VOLUME_ROOT, name, &dir_st);
        }
        for (unsigned i = 0; i < STEPS && atomic_load(&check_failures) == 0; i++)
                step(&l);
        for (unsigned i = 0; i < 64; i++)
                if (l.held[i][0])
                        nodes_forget(&l.t, l.held[i][0], l.held[i][1]);
        for (unsigned d = 0; d < DIRS; d++)
                nodes_forget(&l.t, l.dirs[d], 1);
        CHECK_EQ(nodes_count(&l.t), 1);
        nodes_done(&l.t);
}

int main(int argc, char **argv)
{
        seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)getpid();
        (void)fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        RUN(forgotten_nodes_are_freed_with_their_parents);
        RUN(numbers_are_used_again_with_another_generation);
        RUN(moves_never_make_a_loop);
        RUN(made_names_replace_what_was_known);
        RUN(paths_may_be_long);
        RUN(open_nodes_stay_until_they_are_closed);
        RUN(only_what_is_kept_is_taken_back);
        RUN(a_node_is_told_once_in_a_while);
        RUN(a_random_life_leaves_nothing_behind);
        return check_result();
}
