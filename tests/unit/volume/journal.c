/* SPDX-License-Identifier: Apache-2.0 */
/* What waits in the journal: what cancels what, in which order it goes, and what outlives a crash. */

#include "fs/volume/journal.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/unit/volume/by_path.h"
#include "tests/unit/volume/content_support.h"

#define ROUNDS 320

/* It is quiet inside: what is known stays so, however slow we are. To ask would be to wait. */
static bool begin(struct world *w)
{
        *w = (struct world){.is_journaled = true, .is_quiet = true};
        return world_init(w);
}

/*
 * From now on nothing is sent, until `sent`: the sender is in a call that does not end, with a new
 * directory of this name, and one run is answered before the next goes.
 */
static bool hold(struct world *w, const char *path)
{
        CHECK_EQ(node_of(w, path), 0); /* what is there is known */
        fake_box_zero(&w->box);
        atomic_store(&w->box.hangs[FAKE_APPLY], true);
        CHECK_EQ(make_dir(w, path), 0);
        for (int i = 0; i < 2000 && atomic_load(&w->box.calls[FAKE_APPLY]) == 0; i++)
                sleep_for_ms(5);
        return CHECK_EQ(atomic_load(&w->box.calls[FAKE_APPLY]), 1);
}

/* Changes that reached the sandbox since the last time, that of `hold` among them. */
static unsigned sent(struct world *w)
{
        unsigned count;

        atomic_store(&w->box.hangs[FAKE_APPLY], false);
        CHECK_EQ(sync_all(w), 0);
        CHECK_EQ(dirty_files(w), 0);
        CHECK_EQ(unsent(w), 0);
        count = atomic_load(&w->box.changes);
        fake_box_zero(&w->box);
        return count;
}

/* ---- what cancels each other ---- */

static void nothing_waits_for_the_sandbox(void)
{
        struct world w;

        if (!begin(&w) || !hold(&w, "first"))
                return;
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(put(&w, "d/a", "one"), 0);
        CHECK_EQ(make_link(&w, "d/l", "a"), 0);
        CHECK_EQ(set_mode(&w, "d", 0700), 0);
        CHECK_STR(get(&w, "d/a"), "one");
        CHECK_EQ(atomic_load(&w.box.changes), 0);
        CHECK_EQ(fake_box_calls(&w.box), 1); /* that of `hold` */
        CHECK(dirty_files(&w) >= 1 + 4);
        CHECK_EQ(sent(&w), 1 + 4);
        CHECK_STR(real_get(&w, "d/a"), "one");
        world_done(&w);
}

static void it_goes_by_itself_when_idle(void)
{
        struct world w;

        if (!begin(&w))
                return;
        CHECK_EQ(put(&w, "a", "one"), 0);
        for (int i = 0; i < 1000 && strcmp(real_get(&w, "a"), "one") != 0; i++)
                sleep_for_ms(20);
        CHECK_STR(real_get(&w, "a"), "one");
        world_done(&w);
}

static void names_that_come_and_go_leave_nothing(void)
{
        struct world w;

        if (!begin(&w) || !hold(&w, "first"))
                return;
        CHECK_EQ(put(&w, "lock", "1"), 0);
        CHECK_EQ(remove_at(&w, "lock", false), 0);
        CHECK_EQ(make_link(&w, "l", "x"), 0);
        CHECK_EQ(remove_at(&w, "l", false), 0);
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(put(&w, "d/a", "1"), 0);
        CHECK_EQ(remove_at(&w, "d/a", false), 0);
        CHECK_EQ(remove_at(&w, "d", true), 0);
        CHECK_EQ(sent(&w), 1 + 0);
        world_done(&w);
}

static void temporary_name_goes_to_its_last_one(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "old", 3);
        if (!hold(&w, "first"))
                return;
        CHECK_EQ(put(&w, "a.tmp", "new"), 0);
        CHECK_EQ(move(&w, "a.tmp", "a"), 0);
        CHECK_STR(get(&w, "a"), "new");
        CHECK_EQ(sent(&w), 1 + 1);
        CHECK_STR(real_get(&w, "a"), "new");
        CHECK(!is_there(&w, "a.tmp"));
        /* Twice, and removed: the first one's file is there, and has to go. */
        if (!hold(&w, "second"))
                return;
        CHECK_EQ(put(&w, "a.tmp", "two"), 0);
        CHECK_EQ(move(&w, "a.tmp", "a"), 0);
        CHECK_EQ(remove_at(&w, "a", false), 0);
        CHECK_EQ(sent(&w), 1 + 1);
        CHECK(!is_there(&w, "a"));
        world_done(&w);
}

static void file_of_the_sandbox_written_anew_and_renamed(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "old", 3);
        CHECK_EQ(put(&w, "a", "new"), 0);
        CHECK_EQ(move(&w, "a", "b"), 0);
        (void)sent(&w);
        CHECK_STR(real_get(&w, "b"), "new");
        CHECK(!is_there(&w, "a"));
        world_done(&w);
}

static void names_stay_apart_around_renames(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "first", 5);
        CHECK_EQ(move(&w, "a", "b"), 0);
        CHECK_EQ(put(&w, "a", "second"), 0);
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(put(&w, "d/x", "in d"), 0);
        CHECK_EQ(move(&w, "d", "e"), 0);
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(put(&w, "d/x", "in the other"), 0);
        CHECK_EQ(remove_at(&w, "d/x", false), 0);
        (void)sent(&w);
        CHECK_STR(real_get(&w, "a"), "second");
        CHECK_STR(real_get(&w, "b"), "first");
        CHECK_STR(real_get(&w, "e/x"), "in d");
        CHECK(is_there(&w, "d"));
        CHECK(!is_there(&w, "d/x"));
        world_done(&w);
}

/* ---- failures ---- */

static void lost_answers_are_sent_again(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "first", 5);
        real_put(&w, "gone", "", 0);
        CHECK(node_of(&w, "a") != 0);
        atomic_store(&w.box.is_lost, true);
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(move(&w, "a", "b"), 0);
        CHECK_EQ(remove_at(&w, "gone", false), 0);
        CHECK_EQ(make_link(&w, "l", "b"), 0);
        CHECK(sync_all(&w) < 0);
        CHECK_EQ(put(&w, "a", "second"), 0);
        CHECK(sync_all(&w) < 0);
        atomic_store(&w.box.is_lost, false);
        (void)sent(&w);
        CHECK_STR(real_get(&w, "a"), "second");
        CHECK_STR(real_get(&w, "b"), "first");
        CHECK(is_there(&w, "d") && is_there(&w, "l") && !is_there(&w, "gone"));
        world_done(&w);
}

/* It is there when it is made once more, and gone when that is looked into. */
static void made_without_an_answer_and_removed(void)
{
        struct world w;

        if (!begin(&w))
                return;
        atomic_store(&w.box.is_lost, true);
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK(sync_all(&w) < 0);
        CHECK(is_there(&w, "d"));
        CHECK_EQ(remove_at(&w, "d", true), 0);
        atomic_store(&w.box.is_lost, false);
        (void)sent(&w);
        CHECK(!is_there(&w, "d"));
        world_done(&w);
}

static void refused_one_holds_up_no_other(void)
{
        struct world w;

        if (!begin(&w))
                return;
        atomic_store(&w.box.change_error_kind, CHANGE_MKDIR);
        atomic_store(&w.box.change_error, -EACCES);
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(put(&w, "a", "one"), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_STR(real_get(&w, "a"), "one");
        CHECK_EQ(unsent(&w), 1);
        /* It is still known after a restart. */
        world_unmount(&w);
        if (!world_mount(&w))
                return;
        CHECK_EQ(unsent(&w), 1);
        atomic_store(&w.box.change_error, 0);
        CHECK_EQ(w.ops->retry(w.v), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK(is_there(&w, "d"));
        world_done(&w);
}

/* It waits again already when it is refused: only what becomes of that counts. */
static void refused_on_its_way_is_named_once(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "theirs", 6);
        CHECK(node_of(&w, "a") != 0);
        fake_box_zero(&w.box);
        atomic_store(&w.box.change_error_kind, CHANGE_STORE);
        atomic_store(&w.box.change_error, -ENOSPC);
        for (int round = 0; round < 2; round++) {
                atomic_store(&w.box.hangs[FAKE_APPLY], true);
                CHECK_EQ(put(&w, "a", "one"), 0);
                for (int i = 0; i < 2000 && atomic_load(&w.box.calls[FAKE_APPLY]) == 0; i++)
                        sleep_for_ms(5);
                CHECK_EQ(atomic_load(&w.box.calls[FAKE_APPLY]), 1);
                CHECK_EQ(put(&w, "a", "two"), 0);
                if (round == 1)
                        atomic_store(&w.box.change_error, 0);
                atomic_store(&w.box.hangs[FAKE_APPLY], false);
                CHECK_EQ(sync_all(&w), 0);
                CHECK_EQ(unsent(&w), round == 0);
                fake_box_zero(&w.box);
        }
        CHECK_STR(real_get(&w, "a"), "two");
        world_unmount(&w);
        if (!world_mount(&w))
                return;
        CHECK_EQ(unsent(&w), 0);
        world_done(&w);
}

static void discarded_one_is_the_sandboxs_again(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "theirs", 6);
        atomic_store(&w.box.change_error_kind, CHANGE_STORE);
        atomic_store(&w.box.change_error, -ENOSPC);
        CHECK_EQ(put(&w, "a", "ours"), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_STR(get(&w, "a"), "ours");
        CHECK_EQ(w.ops->discard(w.v, "b"), -ENOENT);
        CHECK_EQ(w.ops->discard(w.v, "a"), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(dirty_files(&w), 0);
        CHECK_STR(get(&w, "a"), "theirs");
        world_done(&w);
}

/* fsync of a directory. */
static int sync_dir(struct world *w, const char *path)
{
        struct vol_dir *d = NULL;
        struct asking a;
        int r = w->ops->opendir(w->v, ask(&a, true), path[0] ? node_of(w, path) : VOLUME_ROOT, &d);

        if (r == 0) {
                r = w->ops->fsyncdir(w->v, ask(&a, true), d, false);
                w->ops->releasedir(w->v, d);
        }
        return r;
}

static void fsync_of_a_directory_waits_for_its_names(void)
{
        struct world w;

        if (!begin(&w))
                return;
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(make_dir(&w, "e"), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(put(&w, "d/a.tmp", "one"), 0);
        CHECK_EQ(move(&w, "d/a.tmp", "d/a"), 0);
        CHECK_EQ(sync_dir(&w, "d"), 0);
        CHECK_STR(real_get(&w, "d/a"), "one");
        atomic_store(&w.box.change_error_kind, CHANGE_MKDIR);
        atomic_store(&w.box.change_error, -EACCES);
        CHECK_EQ(make_dir(&w, "d/no"), 0);
        CHECK_EQ(sync_dir(&w, "e"), 0);
        CHECK_EQ(sync_dir(&w, "d"), -EACCES);
        CHECK_EQ(sync_dir(&w, ""), -EACCES);
        CHECK_EQ(unsent(&w), 1);
        atomic_store(&w.box.change_error, 0);
        CHECK_EQ(w.ops->retry(w.v), 0);
        CHECK_EQ(sync_dir(&w, ""), 0);
        world_done(&w);
}

struct watcher {
        struct world *w;
        atomic_uint round; /* odd while something is unsent */
        atomic_bool is_over;
        atomic_uint nothing; /* how often neither number said that something is unsent */
};

static void *watch(void *arg)
{
        struct watcher *at = arg;

        while (!atomic_load(&at->is_over)) {
                struct vol_stats stats = {0};
                unsigned round = atomic_load(&at->round);

                at->w->ops->stats(at->w->v, &stats);
                if (round % 2 == 1 && atomic_load(&at->round) == round && stats.dirty_files == 0 &&
                    stats.unsent == 0)
                        atomic_fetch_add(&at->nothing, 1);
        }
        return NULL;
}

/* A removal of the sandbox looks at these numbers. */
static void refused_one_is_never_uncounted(void)
{
        struct world w;
        struct watcher at = {.w = &w};
        pthread_t thread;

        if (!begin(&w))
                return;
        real_put(&w, "a", "theirs", 6);
        atomic_store(&w.box.change_error_kind, CHANGE_STORE);
        atomic_store(&w.box.change_error, -ENOSPC);
        CHECK_EQ(pthread_create(&thread, NULL, watch, &at), 0);
        for (int i = 0; i < 200; i++) {
                CHECK_EQ(put(&w, "a", "ours"), 0);
                atomic_fetch_add(&at.round, 1);
                CHECK_EQ(sync_all(&w), 0);
                CHECK_EQ(unsent(&w), 1);
                atomic_fetch_add(&at.round, 1);
                CHECK_EQ(w.ops->discard(w.v, "a"), 0);
                CHECK_EQ(unsent(&w), 0);
        }
        atomic_store(&at.is_over, true);
        (void)pthread_join(thread, NULL);
        CHECK_EQ(atomic_load(&at.nothing), 0);
        world_done(&w);
}

static void refused_one_that_is_closed_again_waits(void)
{
        struct vol_file *f;
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "theirs", 6);
        atomic_store(&w.box.change_error_kind, CHANGE_STORE);
        atomic_store(&w.box.change_error, -ENOSPC);
        CHECK_EQ(put(&w, "a", "ours"), 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(unsent(&w), 1);
        CHECK_EQ(dirty_files(&w), 0);
        atomic_store(&w.box.enter_error, -EHOSTUNREACH);
        f = open_at(&w, "a", O_WRONLY);
        CHECK_EQ(close_file(&w, f), 0);
        CHECK_EQ(unsent(&w), 0);
        CHECK_EQ(dirty_files(&w), 1);
        atomic_store(&w.box.enter_error, 0);
        atomic_store(&w.box.change_error, 0);
        CHECK_EQ(sync_all(&w), 0);
        CHECK_EQ(dirty_files(&w), 0);
        CHECK_STR(real_get(&w, "a"), "ours");
        world_done(&w);
}

static void what_waits_is_sent_by_the_next_mount(void)
{
        struct world w;

        if (!begin(&w))
                return;
        real_put(&w, "a", "first", 5);
        CHECK(node_of(&w, "a") != 0);
        atomic_store(&w.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(make_dir(&w, "d"), 0);
        CHECK_EQ(move(&w, "a", "d/a"), 0);
        CHECK_EQ(put(&w, "b", "second"), 0);
        CHECK(sync_all(&w) < 0);
        world_unmount(&w);
        atomic_store(&w.box.enter_error, 0);
        if (!world_mount(&w))
                return;
        (void)sent(&w);
        CHECK_STR(real_get(&w, "d/a"), "first");
        CHECK_STR(real_get(&w, "b"), "second");
        CHECK(!is_there(&w, "a"));
        world_done(&w);
}

/* A second name outside for each of the files of the latest record; with `back`, again inside. */
static void keep_latest_record(struct world *w, const char *kept, bool back)
{
        DIR *d = opendir(back ? kept : w->state);
        char latest[32] = "", from[512], to[512];
        struct dirent *e;

        if (!CHECK(d))
                return;
        while ((e = readdir(d)))
                if (strncmp(e->d_name, "r-", 2) == 0 && strcmp(e->d_name + 2, latest) > 0)
                        (void)snprintf(latest, sizeof(latest), "%.29s", e->d_name + 2);
        CHECK(latest[0]);
        rewinddir(d);
        while ((e = readdir(d))) {
                if (!latest[0] || e->d_name[0] == '.' || strcmp(e->d_name + 2, latest) != 0)
                        continue;
                (void)snprintf(from, sizeof(from), "%s/%s", back ? kept : w->state, e->d_name);
                (void)snprintf(to, sizeof(to), "%s/%s", back ? w->state : kept, e->d_name);
                CHECK_EQ(link(from, to), 0);
        }
        (void)closedir(d);
}

/* As if the end had come right after the rename was logged: what it replaced still has its record. */
static void what_was_renamed_over_is_not_found_again(void)
{
        char kept[] = "/tmp/sbxfs-kept.XXXXXX";
        struct world w;

        if (!begin(&w) || !CHECK(mkdtemp(kept)))
                return;
        real_put(&w, "b", "theirs", 6);
        CHECK(node_of(&w, "b") != 0);
        atomic_store(&w.box.enter_error, -EHOSTUNREACH);
        CHECK_EQ(put(&w, "a", "new"), 0);
        CHECK_EQ(put(&w, "b", "old"), 0);
        keep_latest_record(&w, kept, false);
        CHECK_EQ(move(&w, "a", "b"), 0);
        world_unmount(&w);
        keep_latest_record(&w, kept, true);
        atomic_store(&w.box.enter_error, 0);
        if (!world_mount(&w))
                return;
        CHECK_STR(get(&w, "b"), "new");
        (void)sent(&w);
        CHECK_STR(real_get(&w, "b"), "new");
        CHECK(!is_there(&w, "a"));
        world_done(&w);
        CHECK_EQ(file_remove_tree(AT_FDCWD, kept), 0);
}

/* ---- crashes: a model of a few names, and a child that is killed at any point ---- */

static const char *const paths[] = {"a", "b", "d", "d/a", "d/b", "e", "e/a", "e/b"};
#define PATHS (sizeof(paths) / sizeof(*paths))
#define DIRECTORY UINT32_MAX

/* 0: nothing; DIRECTORY; else a file whose text is that number. */
struct names {
        uint32_t at[PATHS];
};

/* Shared with the child. */
struct story {
        struct names now, then; /* before and after the operation that was begun */
        uint32_t next; /* numbers of texts */
        bool is_odd; /* a result that the model doesn't know: a failure */
};

static bool is_dir_path(size_t i)
{
        return i == 2 || i == 5;
}

static bool is_parent_there(const struct names *n, size_t i)
{
        return strchr(paths[i], '/') == NULL || n->at[i < 5 ? 2 : 5] == DIRECTORY;
}

static int model_put(struct names *n, size_t i, uint32_t text)
{
        if (is_dir_path(i) || !is_parent_there(n, i))
                return -ENOENT;
        n->at[i] = text;
        return 0;
}

static int model_remove(struct names *n, size_t i)
{
        if (!is_parent_there(n, i) || n->at[i] == 0)
                return -ENOENT;
        if (is_dir_path(i) && (n->at[i + 1] != 0 || n->at[i + 2] != 0))
                return -ENOTEMPTY;
        n->at[i] = 0;
        return 0;
}

static int model_move(struct names *n, size_t from, size_t to)
{
        if (from == to || is_dir_path(from) != is_dir_path(to) || !is_parent_there(n, from) ||
            !is_parent_there(n, to) || n->at[from] == 0)
                return -ENOENT;
        if (is_dir_path(to) && (n->at[to + 1] != 0 || n->at[to + 2] != 0))
                return -ENOTEMPTY;
        n->at[to] = n->at[from];
        n->at[from] = 0;
        for (size_t k = 1; is_dir_path(from) && k <= 2; k++) {
                n->at[to + k] = n->at[from + k];
                n->at[from + k] = 0;
        }
        return 0;
}

static uint64_t roll(unsigned *seed)
{
        *seed = *seed * 1103515245 + 12345;
        return *seed >> 8;
}

/* One step, in the model and in the volume; a result of the two that differs is odd. */
static void step(struct world *w, struct story *s, unsigned *seed)
{
        size_t i = roll(seed) % PATHS, k = roll(seed) % PATHS;
        uint64_t what = roll(seed) % 10;
        struct names then = s->now;
        char text[32];
        int expected, r;

        if (what < 4) {
                expected =
                        is_dir_path(i) ? (then.at[i] ? -EEXIST : 0) : model_put(&then, i, s->next);
                if (is_dir_path(i))
                        then.at[i] = DIRECTORY;
        } else if (what < 6) {
                expected = model_remove(&then, i);
        } else {
                expected = model_move(&then, i, k);
        }
        if (expected != 0)
                return; /* errors are the business of others */
        (void)snprintf(text, sizeof(text), "%u", s->next++);
        s->then = then;
        if (what < 4)
                r = is_dir_path(i) ? make_dir(w, paths[i]) : put(w, paths[i], text);
        else
                r = what < 6 ? remove_at(w, paths[i], is_dir_path(i)) : move(w, paths[i], paths[k]);
        if (r != 0) {
                (void)fprintf(stderr, "%s: %s, %s: %d\n",
                              what < 4   ? "make"
                              : what < 6 ? "remove"
                                         : "move",
                              paths[i], paths[k], r);
                for (size_t n = 0; n < PATHS; n++)
                        (void)fprintf(stderr, " %s: model %d node %d real %s\n", paths[n],
                                      (int)s->now.at[n], node_of(w, paths[n]) != 0,
                                      is_dir_path(n) ? "" : real_get(w, paths[n]));
                s->is_odd = true;
        }
        s->now = then;
}

/* `before`: a file that was just being written may be there empty; NULL: none was. */
static bool is_as(struct world *w, const struct names *n, const struct names *before)
{
        char text[32];

        for (size_t i = 0; i < PATHS; i++) {
                if (n->at[i] == 0 && is_there(w, paths[i]))
                        return false;
                if (n->at[i] == DIRECTORY && !is_there(w, paths[i]))
                        return false;
                (void)snprintf(text, sizeof(text), "%u", n->at[i]);
                if (n->at[i] != 0 && n->at[i] != DIRECTORY &&
                    strcmp(real_get(w, paths[i]), text) != 0 &&
                    (!before || before->at[i] == n->at[i] || real_get(w, paths[i])[0] != '\0'))
                        return false;
        }
        return true;
}

/* What was left empty by a death between its creation and its bytes. */
static void finish_put(struct world *w, const struct names *n)
{
        char text[32];

        for (size_t i = 0; i < PATHS; i++) {
                (void)snprintf(text, sizeof(text), "%u", n->at[i]);
                if (n->at[i] != 0 && n->at[i] != DIRECTORY && real_get(w, paths[i])[0] == '\0')
                        real_put(w, paths[i], text, strlen(text));
        }
}

static void print_names(const char *what, const struct names *n)
{
        (void)fprintf(stderr, "%s:", what);
        for (size_t i = 0; i < PATHS; i++)
                (void)fprintf(stderr, " %s=%d", paths[i], (int)n->at[i]);
        (void)fprintf(stderr, "\n");
}

static void print_real(struct world *w)
{
        (void)fprintf(stderr, "real:");
        for (size_t i = 0; i < PATHS; i++)
                (void)fprintf(stderr, " %s=%s", paths[i],
                              is_dir_path(i) ? (is_there(w, paths[i]) ? "dir" : "-")
                                             : real_get(w, paths[i]));
        (void)fprintf(stderr, "\n");
}

static void print_unsent(struct vol_unsent_sink *to, const char *path, int error,
                         const char *sentence)
{
        (void)to;
        (void)fprintf(stderr, "unsent: %s: %d %s\n", path, error, sentence);
}

static void live(struct world *w, struct story *s, unsigned seed)
{
        if (!world_mount(w))
                _exit(2);
        atomic_store(&w->box.delay_ms[FAKE_APPLY], (unsigned)(roll(&seed) % 4));
        atomic_store(&w->box.delay_after_ms[FAKE_APPLY], (unsigned)(roll(&seed) % 4));
        for (int i = 0; i < 100000 && !s->is_odd; i++) {
                step(w, s, &seed);
                if (roll(&seed) % 8 == 0) {
                        struct asking a;

                        (void)w->ops->sync(w->v, ask(&a, true)); /* else little is ever sent */
                }
                if (roll(&seed) % 16 == 0)
                        sleep_for_ms(1);
        }
        _exit(s->is_odd ? 3 : 0);
}

/* Some lives after each other, on one sandbox, each ended by SIGKILL. */
static bool killed_at_any_point(struct story *s, unsigned seed)
{
        struct world w;
        bool ok = true;

        *s = (struct story){.next = 1};
        if (!begin(&w))
                return false;
        world_unmount(&w);
        for (int i = 0; ok && i < 4; i++) {
                int status = 0;
                pid_t pid = fork();

                if (pid == 0)
                        live(&w, s, seed + (unsigned)i);
                sleep_for_ms((unsigned)(roll(&seed) % 40));
                (void)kill(pid, SIGKILL);
                CHECK_EQ(waitpid(pid, &status, 0), pid);
                ok = CHECK(!s->is_odd) && CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                if (!ok || !world_mount(&w))
                        break;
                CHECK_EQ(sync_all(&w), 0);
                CHECK_EQ(atomic_load(&w.box.noticed_events), 0); /* nobody else changes anything */
                ok = CHECK_EQ(dirty_files(&w), 0) && CHECK_EQ(unsent(&w), 0) &&
                     CHECK(is_as(&w, &s->now, NULL) || is_as(&w, &s->then, &s->now));
                if (!ok) {
                        print_names("now", &s->now);
                        print_names("then", &s->then);
                        print_real(&w);
                        w.ops->unsent(w.v, &(struct vol_unsent_sink){print_unsent});
                }
                if (!is_as(&w, &s->now, NULL))
                        s->now = s->then;
                world_unmount(&w);
                finish_put(&w, &s->now);
        }
        world_done(&w);
        return ok;
}

static void what_was_answered_survives_kill_9(void)
{
        struct story *s =
                mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        unsigned seed = (unsigned)clock_real_ns();

        if (!CHECK(s != MAP_FAILED))
                return;
        for (int i = 0; i < ROUNDS / 4; i++, seed += 7919) {
                if (!killed_at_any_point(s, seed)) {
                        (void)fprintf(stderr, "seed %u, round %d\n", seed, i);
                        break;
                }
        }
        (void)munmap(s, sizeof(*s));
}

int main(void)
{
        RUN(nothing_waits_for_the_sandbox);
        RUN(it_goes_by_itself_when_idle);
        RUN(names_that_come_and_go_leave_nothing);
        RUN(temporary_name_goes_to_its_last_one);
        RUN(file_of_the_sandbox_written_anew_and_renamed);
        RUN(names_stay_apart_around_renames);
        RUN(lost_answers_are_sent_again);
        RUN(made_without_an_answer_and_removed);
        RUN(refused_one_holds_up_no_other);
        RUN(refused_on_its_way_is_named_once);
        RUN(discarded_one_is_the_sandboxs_again);
        RUN(fsync_of_a_directory_waits_for_its_names);
        RUN(refused_one_is_never_uncounted);
        RUN(refused_one_that_is_closed_again_waits);
        RUN(what_waits_is_sent_by_the_next_mount);
        RUN(what_was_renamed_over_is_not_found_again);
        RUN(what_was_answered_survives_kill_9);
        return check_result();
}
