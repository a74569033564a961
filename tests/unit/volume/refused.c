/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of names that the sandbox refused: what is shown of them, and what ends that. */

#include <errno.h>

#include "tests/unit/volume/by_path.h"
#include "tests/unit/volume/content_support.h"

static bool begin(struct world *w)
{
        *w = (struct world){.is_journaled = true, .ttl_ns = NS_PER_MS};
        return world_init(w);
}

static void refuse(struct world *w, enum change_kind kind, int error)
{
        atomic_store(&w->box.change_error_kind, kind);
        atomic_store(&w->box.change_error, error);
}

/* What a refusal is told of comes with the end of a command; then everything is asked for anew. */
static void look_anew(struct world *w)
{
        CHECK_EQ(sync_all(w), 0);
        sleep_for_ms(5); /* beyond the time that attributes are believed */
}

static bool is_shown(struct world *w, const char *path)
{
        return node_of(w, path) != 0;
}

struct names {
        struct vol_dir_sink head; /* first */
        char text[256]; /* "a b c " */
};

static bool add_name(struct vol_dir_sink *to, const char *name, const struct vol_entry *e,
                     uint64_t next)
{
        struct names *n = (struct names *)(void *)to; /* its head */
        size_t size = strlen(n->text);

        (void)e;
        (void)next;
        if (name[0] != '.')
                (void)snprintf(n->text + size, sizeof(n->text) - size, "%s ", name);
        return true;
}

static const char *names_in(struct world *w, const char *path)
{
        static struct names n;
        struct vol_dir *d;
        struct asking a;
        int r;

        n = (struct names){.head.add = add_name};
        r = w->ops->opendir(w->v, ask(&a, true), node_of(w, path), &d);
        if (r < 0)
                return "(not opened)";
        r = w->ops->readdir(w->v, ask(&a, true), d, 0, false, &n.head);
        w->ops->releasedir(w->v, d);
        return r < 0 ? "(not read)" : n.text;
}

static void made_directory_stays(void)
{
        struct world w;

        if (!begin(&w))
                return;
        refuse(&w, CHANGE_MKDIR, -EACCES);
        CHECK_EQ(make_dir(&w, "d"), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 1);
        CHECK(is_shown(&w, "d") && !is_there(&w, "d"));
        CHECK_STR(names_in(&w, ""), "d ");
        CHECK_STR(names_in(&w, "d"), "");
        CHECK(!is_shown(&w, "d/x"));
        /* What is made in it is only here, too. */
        CHECK_EQ(put(&w, "d/x", "text"), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 2);
        CHECK_STR(names_in(&w, "d"), "x ");
        CHECK_STR(get(&w, "d/x"), "text");
        CHECK_EQ(remove_at(&w, "d", true), -ENOTEMPTY);
        refuse(&w, CHANGE_MKDIR, 0);
        CHECK_EQ(w.ops->retry(w.v), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 0);
        CHECK_STR(real_get(&w, "d/x"), "text");
        CHECK_STR(get(&w, "d/x"), "text");
        world_done(&w);
}

static void made_directory_can_be_removed_again(void)
{
        struct world w;

        if (!begin(&w))
                return;
        refuse(&w, CHANGE_MKDIR, -EACCES);
        CHECK_EQ(make_dir(&w, "d"), 0);
        look_anew(&w);
        CHECK_EQ(remove_at(&w, "d", true), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 0);
        CHECK(!is_shown(&w, "d"));
        CHECK_STR(names_in(&w, ""), "");
        world_done(&w);
}

static void removed_file_stays_away(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "theirs", 6);
        refuse(&w, CHANGE_UNLINK, -EPERM);
        CHECK_EQ(remove_at(&w, "a", false), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 1);
        CHECK(!is_shown(&w, "a") && is_there(&w, "a"));
        CHECK_STR(names_in(&w, ""), "");
        CHECK_EQ(w.ops->discard(w.v, "a"), 0);
        look_anew(&w);
        CHECK_STR(names_in(&w, ""), "a ");
        CHECK_STR(get(&w, "a"), "theirs");
        world_done(&w);
}

/* Sent again, the removal would take what came after it. */
static void later_file_ends_a_refused_removal(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "theirs", 6);
        refuse(&w, CHANGE_UNLINK, -EPERM);
        CHECK_EQ(remove_at(&w, "a", false), 0);
        look_anew(&w);
        CHECK_EQ(put(&w, "a", "ours"), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 0);
        refuse(&w, CHANGE_UNLINK, 0);
        CHECK_EQ(w.ops->retry(w.v), 0);
        look_anew(&w);
        CHECK_STR(real_get(&w, "a"), "ours");
        CHECK_STR(get(&w, "a"), "ours");
        world_done(&w);
}

static void link_stays_over_a_restart(void)
{
        struct world w;
        struct stat st = {0};

        if (!begin(&w))
                return;
        real_put(&w, "a", "text", 4);
        refuse(&w, CHANGE_SYMLINK, -EACCES);
        CHECK_EQ(make_link(&w, "l", "a"), 0);
        CHECK_EQ(make_link(&w, "m", "a"), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 2);
        world_unmount(&w);
        if (!world_mount(&w))
                return;
        look_anew(&w);
        CHECK_EQ(unsent(&w), 2);
        CHECK_EQ(stat_at(&w, "l", &st), 0);
        CHECK(S_ISLNK(st.st_mode) && st.st_size == 1);
        CHECK_EQ(w.ops->discard(w.v, "m"), 0);
        look_anew(&w);
        CHECK(is_shown(&w, "l") && !is_shown(&w, "m"));
        world_done(&w);
}

static void refused_mode_is_shown(void)
{
        struct world w;
        struct stat st = {0};

        if (!begin(&w))
                return;
        real_put(&w, "a", "text", 4);
        refuse(&w, CHANGE_SET, -EPERM);
        CHECK_EQ(set_mode(&w, "a", 0700), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(stat_at(&w, "a", &st), 0);
        CHECK_EQ(st.st_mode & 07777, 0700);
        /* Its content is the sandbox's still. */
        sleep_for_ms(20);
        real_put(&w, "a", "longer text", 11);
        look_anew(&w);
        CHECK_STR(get(&w, "a"), "longer text");
        CHECK_EQ(stat_at(&w, "a", &st), 0);
        CHECK_EQ(st.st_mode & 07777, 0700);
        /* Another one takes its place. */
        refuse(&w, CHANGE_SET, 0);
        CHECK_EQ(set_mode(&w, "a", 0750), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(stat_at(&w, "a", &st), 0);
        CHECK_EQ(st.st_mode & 07777, 0750);
        world_done(&w);
}

/* Its bytes are to be had by the old name alone. */
static void refused_rename_shows_the_old_name(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "text", 4);
        refuse(&w, CHANGE_RENAME, -EACCES);
        CHECK_EQ(move(&w, "a", "b"), 0);
        look_anew(&w);
        CHECK_EQ(unsent(&w), 1);
        CHECK_STR(get(&w, "a"), "text");
        CHECK(!is_shown(&w, "b"));
        world_done(&w);
}

int main(void)
{
        RUN(made_directory_stays);
        RUN(made_directory_can_be_removed_again);
        RUN(removed_file_stays_away);
        RUN(later_file_ends_a_refused_removal);
        RUN(link_stays_over_a_restart);
        RUN(refused_mode_is_shown);
        RUN(refused_rename_shows_the_old_name);
        return check_result();
}
