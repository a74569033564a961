/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of a sandbox's files: order of answers, changes of ours, contents, bounds. */

#include "fs/volume/meta.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"

struct content {
        struct content_head head; /* first */
        int refs;
        bool is_pinned;
};

static struct content *ref(struct content *x)
{
        x->refs++;
        return x;
}

static void unref(struct content *x)
{
        if (x)
                x->refs--;
}

static bool is_pinned(const struct content *x)
{
        return x->is_pinned;
}

static struct meta *make_meta(size_t max)
{
        struct meta_config config = {.max = max, .content = {ref, unref, is_pinned}};
        struct meta *m = NULL;

        CHECK_EQ(meta_new(&config, &m), 0);
        return m;
}

static struct meta_source at(uint64_t sent_ns)
{
        return (struct meta_source){.sent_ns = sent_ns, .epoch = 1};
}

static struct stat file(uint64_t ino, off_t size)
{
        return (struct stat){
                .st_mode = S_IFREG | 0644, .st_ino = ino, .st_nlink = 1, .st_size = size};
}

static struct stat dir(uint64_t ino)
{
        return (struct stat){.st_mode = S_IFDIR | 0755, .st_ino = ino, .st_nlink = 2};
}

static bool exists(struct meta *m, const char *path)
{
        struct meta_fact f;

        return meta_get(m, path, &f) && f.exists;
}

static bool is_absent(struct meta *m, const char *path)
{
        struct meta_fact f;

        return meta_get(m, path, &f) && !f.exists;
}

static off_t size_of(struct meta *m, const char *path)
{
        struct meta_fact f;

        return meta_get(m, path, &f) && f.exists ? f.k.st.st_size : -1;
}

/* A listing of `base` that names `names`: those that end in '/' are directories. */
static void list(struct meta *m, const char *base, uint64_t sent_ns, const char *const *names)
{
        struct meta_source source = at(sent_ns);
        struct meta_listing l;

        CHECK_EQ(meta_listing_begin(m, base, &source, &l), 0);
        for (; *names; names++) {
                char name[300];
                size_t size = strlen(*names);
                bool is_dir = size > 0 && (*names)[size - 1] == '/';
                struct stat st = is_dir ? dir(0) : file(0, (off_t)sent_ns);

                (void)snprintf(name, sizeof(name), "%.*s", (int)(size - is_dir), *names);
                CHECK_EQ(meta_listing_entry(&l, name, &st, NULL), 0);
        }
        CHECK_EQ(meta_listing_dir(&l, ""), 0);
        meta_listing_done(&l);
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void a_listed_directory_knows_what_is_absent(void)
{
        struct meta *m = make_meta(0);
        struct meta_fact f;
        struct meta_dir d;

        CHECK(!meta_get(m, "x", &f));
        list(m, "", 10, NAMES("a", "d/"));
        CHECK(exists(m, "a"));
        CHECK(is_absent(m, "x"));
        CHECK(!meta_get(m, "d/x", &f));
        CHECK(meta_get_dir(m, "", &d) && d.is_listed && d.count == 2);
        CHECK(is_absent(m, "none/x") || !meta_get(m, "none/x", &f));
        /* What isn't named any more is gone, with all below it. */
        list(m, "d", 11, NAMES("b"));
        list(m, "", 12, NAMES("a"));
        CHECK(is_absent(m, "d"));
        CHECK_EQ(meta_count(m), 2);
        meta_free(m);
}

static void an_earlier_answer_does_not_replace_a_later_one(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s20 = at(20);
        struct stat st = file(0, 99);

        list(m, "", 10, NAMES("a"));
        CHECK_EQ(meta_put(m, "a", &s20, &st, NULL), 0);
        list(m, "", 15, NAMES("a", "b"));
        CHECK_EQ(size_of(m, "a"), 99);
        CHECK_EQ(size_of(m, "b"), 15);
        list(m, "", 12, NAMES("c"));
        CHECK(is_absent(m, "c") || !exists(m, "c") || size_of(m, "c") == 12);
        CHECK(exists(m, "b"));
        meta_free(m);
}

static void what_was_asked_before_a_change_does_not_undo_it(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s = at(20);
        struct stat st = file(0, 1), d = dir(0);

        list(m, "", 10, NAMES("old", "d/"));
        list(m, "d", 11, NAMES("x"));
        CHECK_EQ(meta_made(m, "new", &s, &st, NULL, 30, NULL), 0);
        meta_removed(m, "old", &s, 30);
        CHECK_EQ(meta_moved(m, "d", "e", &s, &d, 30), 0);
        /* Sent at 25, before the changes were answered at 30. */
        list(m, "", 25, NAMES("old", "d/", "d/x", "d/y", "e"));
        CHECK(exists(m, "new"));
        CHECK(is_absent(m, "old"));
        CHECK(is_absent(m, "d"));
        CHECK(is_absent(m, "d/y"));
        CHECK(exists(m, "e"));
        CHECK(exists(m, "e/x"));
        /* A later one counts, also against us. */
        list(m, "", 40, NAMES("old"));
        CHECK(is_absent(m, "new"));
        CHECK(exists(m, "old"));
        CHECK(is_absent(m, "e"));
        meta_free(m);
}

static void renamed_subtrees_keep_what_is_known(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s = at(20);
        struct content x = {.refs = 1};
        struct content **below;
        size_t count;
        char *path;

        list(m, "", 10, NAMES("d/", "long-name-that-needs-room/"));
        list(m, "d", 10, NAMES("s/"));
        list(m, "d/s", 10, NAMES("f"));
        CHECK(meta_set_content(m, "d/s/f", &x.head) == &x);
        CHECK_EQ(x.refs, 3);
        unref(&x);
        CHECK_EQ(meta_moved(m, "d", "long-name-that-needs-room/and-more", &s, NULL, 30), 0);
        CHECK(is_absent(m, "d"));
        CHECK(exists(m, "long-name-that-needs-room/and-more/s/f"));
        path = meta_content_path(m, &x.head);
        CHECK_STR(path, "long-name-that-needs-room/and-more/s/f");
        free(path);
        CHECK_EQ(meta_contents_below(m, "long-name-that-needs-room", &below, &count), 0);
        CHECK_EQ(count, 1);
        CHECK(below[0] == &x);
        unref(below[0]);
        free(below);
        /* Below itself: refused, and forgotten. */
        CHECK(meta_moved(m, "long-name-that-needs-room", "long-name-that-needs-room/and-more/q", &s,
                         NULL, 31) < 0);
        meta_free(m);
        CHECK_EQ(x.refs, 1);
        CHECK_EQ(x.head.entry, 0);
}

static void another_inode_is_another_file(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s10 = at(10), s20 = at(20), s30 = at(30);
        struct stat one = file(1, 1), two = file(2, 1), three = file(3, 1);
        struct content x = {.refs = 1};
        struct meta_fact f;

        CHECK_EQ(meta_put(m, "a", &s10, &one, NULL), 0);
        unref(meta_set_content(m, "a", &x.head));
        /* A whole file of ours took its place: the number stays. */
        meta_told(m, &x.head, &s20, &two, 25);
        CHECK(meta_get(m, "a", &f));
        CHECK_EQ(f.k.st.st_ino, 1);
        CHECK_EQ(f.k.sandbox_ino, 2);
        CHECK(f.has_content);
        CHECK_EQ(meta_put(m, "a", &s30, &two, NULL), 0);
        CHECK(meta_get(m, "a", &f) && f.has_content && f.k.st.st_ino == 1);
        s30.sent_ns = 31;
        CHECK_EQ(meta_put(m, "a", &s30, &three, NULL), 0);
        CHECK(meta_get(m, "a", &f) && !f.has_content && f.k.st.st_ino == 3);
        CHECK_EQ(x.refs, 1);
        meta_free(m);
}

static void numbers_are_made_up_where_there_are_none(void)
{
        struct meta *m = make_meta(0);
        struct meta_fact a = {0}, b = {0}, again;

        list(m, "", 10, NAMES("a", "b"));
        CHECK(meta_get(m, "a", &a) && meta_get(m, "b", &b));
        CHECK(a.k.st.st_ino > 1 && b.k.st.st_ino > 1 && a.k.st.st_ino != b.k.st.st_ino);
        CHECK_EQ(a.k.st.st_nlink, 1);
        CHECK_EQ(a.k.sandbox_ino, 0);
        list(m, "", 20, NAMES("a", "b"));
        CHECK(meta_get(m, "a", &again) && again.k.st.st_ino == a.k.st.st_ino);
        meta_free(m);
}

static ino_t number_of(struct meta *m, const char *path)
{
        struct meta_fact f;

        return meta_get(m, path, &f) && f.exists ? f.k.st.st_ino : 0;
}

/* A file that we have written anew frees its number there, and the next one gets it. */
static void a_number_that_is_shown_is_no_other_files(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s10 = at(10), s20 = at(20), s30 = at(30), s40 = at(40);
        struct stat one = file(1, 1), two = file(2, 1);
        struct content x = {.refs = 1};

        CHECK_EQ(meta_put(m, "a", &s10, &one, NULL), 0);
        unref(meta_set_content(m, "a", &x.head));
        meta_told(m, &x.head, &s20, &two, 25);
        CHECK_EQ(number_of(m, "a"), 1);
        CHECK_EQ(meta_put(m, "b", &s30, &one, NULL), 0);
        CHECK(number_of(m, "b") > 2);
        CHECK_EQ(number_of(m, "a"), 1);
        /* It is free again when the file is not shown by it any more. */
        meta_removed(m, "a", &s40, 41);
        meta_put_absent(m, "b", &s40);
        s40.sent_ns = 50;
        CHECK_EQ(meta_put(m, "b", &s40, &one, NULL), 0);
        CHECK_EQ(number_of(m, "b"), 1);
        CHECK_EQ(x.refs, 1);
        meta_free(m);
}

/* As `>temp; mv temp a; >temp` does, over and over. */
static void made_up_numbers_do_not_repeat(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s = at(20);
        struct stat st = file(0, 7);
        ino_t a, b;

        list(m, "", 10, NAMES("temp"));
        CHECK_EQ(meta_moved(m, "temp", "a", &s, NULL, 21), 0);
        a = number_of(m, "a");
        list(m, "", 30, NAMES("a", "temp")); /* made inside */
        CHECK(number_of(m, "a") == a && number_of(m, "temp") != a);
        s = at(40);
        CHECK_EQ(meta_moved(m, "temp", "b", &s, NULL, 41), 0);
        b = number_of(m, "b");
        CHECK(b != a);
        s = at(50);
        CHECK_EQ(meta_made(m, "temp", &s, &st, NULL, 51, NULL), 0);
        CHECK(number_of(m, "temp") != a && number_of(m, "temp") != b);
        a = number_of(m, "temp");
        CHECK_EQ(meta_moved(m, "temp", "c", &s, NULL, 52), 0);
        CHECK_EQ(meta_made(m, "temp", &s, &st, NULL, 53, NULL), 0);
        CHECK(number_of(m, "c") == a && number_of(m, "temp") != a);
        meta_free(m);
}

static void told(struct meta *m, uint64_t sent_ns, uint64_t epoch, mode_t kind, time_t seconds,
                 long ns)
{
        struct meta_source source = {.sent_ns = sent_ns, .epoch = epoch};
        struct stat st = {.st_mode = kind | 0755, .st_mtim = {.tv_sec = seconds, .tv_nsec = ns}};

        CHECK_EQ(meta_put(m, "new", &source, &st, NULL), 0);
}

static int64_t mtime_of(struct meta *m, const char *path)
{
        struct meta_fact f;

        if (!meta_get(m, path, &f) || !f.exists)
                return -1;
        return (int64_t)f.k.st.st_mtim.tv_sec * (int64_t)NS_PER_S + f.k.st.st_mtim.tv_nsec;
}

/* A service that tells seconds when it has made something, and finer times when it lists. */
static void times_of_what_we_made_stay_ours(mode_t kind)
{
        const int64_t ours = 100 * (int64_t)NS_PER_S + 500;
        struct meta *m = make_meta(0);
        struct meta_source s = {.sent_ns = 20, .epoch = 1};
        struct stat st = {.st_mode = kind | 0755, .st_mtim = {.tv_sec = 100, .tv_nsec = 500}};

        CHECK_EQ(meta_made(m, "new", &s, &st, NULL, 21, NULL), 0);
        meta_own_times(m, "new", &s);
        told(m, 30, 1, kind, 100, 300);
        CHECK_EQ(mtime_of(m, "new"), ours);
        told(m, 31, 1, kind, 100, 0); /* again by seconds */
        told(m, 32, 2, kind, 100, 300); /* nor did a command change it */
        CHECK_EQ(mtime_of(m, "new"), ours);
        told(m, 33, 2, kind, 100, 700);
        CHECK_EQ(mtime_of(m, "new"), ours + 200);
        told(m, 34, 2, kind, 100, 300);
        CHECK_EQ(mtime_of(m, "new"), ours - 200);
        /* The first that is told of it comes after a command: of ours only if it may be. */
        s = (struct meta_source){.sent_ns = 40, .epoch = 2};
        for (unsigned i = 0; i < 3; i++, s.sent_ns += 10) {
                CHECK_EQ(meta_made(m, "new", &s, &st, NULL, s.sent_ns + 1, NULL), 0);
                meta_own_times(m, "new", &s);
                told(m, s.sent_ns + 5, 3, kind, i == 0 ? 99 : i == 1 ? 50 : 100, 600);
                CHECK_EQ(mtime_of(m, "new"), i == 0   ? ours
                                             : i == 1 ? 50 * (int64_t)NS_PER_S + 600
                                                      : ours + 100);
        }
        meta_free(m);
}

static void times_of_new_directories_and_links_stay_ours(void)
{
        times_of_what_we_made_stay_ours(S_IFDIR);
        times_of_what_we_made_stay_ours(S_IFLNK);
}

/* An answer between a command's doing and its end is taken for the trace of our own change. */
static void times_that_a_running_command_set_are_not_ours_after_its_end(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s = {.sent_ns = 20, .epoch = 1};
        struct stat st = {.st_mode = S_IFDIR | 0755, .st_mtim = {.tv_sec = 100, .tv_nsec = 500}};

        CHECK_EQ(meta_made(m, "new", &s, &st, NULL, 21, NULL), 0);
        meta_own_times(m, "new", &s);
        told(m, 30, 1, S_IFDIR, 101, 700);
        CHECK_EQ(mtime_of(m, "new"), 100 * (int64_t)NS_PER_S + 500);
        told(m, 32, 2, S_IFDIR, 101, 700);
        CHECK_EQ(mtime_of(m, "new"), 101 * (int64_t)NS_PER_S + 700);
        meta_free(m);
}

static void pinned_files_stay_whatever_a_listing_says(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s = at(20);
        struct stat st = file(0, 7);
        struct content x = {.refs = 1, .is_pinned = true};

        list(m, "", 10, NAMES("d/"));
        list(m, "d", 10, NAMES(""));
        CHECK_EQ(meta_made(m, "d/f", &s, &st, NULL, 21, &x.head), 0);
        list(m, "d", 40, NAMES("g"));
        CHECK_EQ(size_of(m, "d/f"), 7);
        list(m, "", 50, NAMES("other"));
        CHECK_EQ(size_of(m, "d/f"), 7);
        CHECK(meta_has_pinned(m, "d"));
        CHECK(meta_has_pinned(m, ""));
        x.is_pinned = false;
        list(m, "", 60, NAMES("other"));
        CHECK(is_absent(m, "d"));
        CHECK_EQ(x.refs, 1);
        meta_free(m);
}

static void hostile_names_are_passed_over(void)
{
        struct meta *m = make_meta(0);
        struct meta_source source = at(10);
        struct meta_listing l;
        char name[NAME_MAX + 2];
        struct stat st = file(0, 0), device = {.st_mode = S_IFCHR | 0600}, odd = {0};
        static const char *const bad[] = {".",      "..",  "a/",   "/a", "a//b",
                                          "a/../b", "a/.", "../x", "/"};

        memset(name, 'n', sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        CHECK_EQ(meta_listing_begin(m, "", &source, &l), 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                CHECK_EQ(meta_listing_entry(&l, bad[i], &st, NULL), 0);
                CHECK_EQ(meta_listing_dir(&l, bad[i]), 0);
        }
        CHECK_EQ(meta_listing_entry(&l, name, &st, NULL), 0);
        CHECK_EQ(meta_listing_entry(&l, "device", &device, NULL), 0);
        CHECK_EQ(meta_listing_entry(&l, "odd", &odd, NULL), 0);
        st.st_size = -5;
        st.st_mode |= 0xff0000;
        st.st_mtim.tv_nsec = -1;
        CHECK_EQ(meta_listing_entry(&l, "negative", &st, NULL), 0);
        CHECK_EQ(meta_listing_entry(&l, "negative/below", &st, NULL), 0);
        CHECK_EQ(meta_listing_dir(&l, ""), 0);
        meta_listing_done(&l);
        CHECK_EQ(size_of(m, "negative"), 0);
        CHECK(is_absent(m, "device") && is_absent(m, "odd") && is_absent(m, name));
        CHECK(!exists(m, "negative/below"));
        meta_free(m);
}

static void what_nobody_used_gives_way(void)
{
        struct meta *m = make_meta(1000);
        uint64_t now_ns = clock_mono_ns();
        struct content x = {.refs = 1};
        struct meta_dir d;

        for (unsigned i = 0; i < 100; i++) {
                /* Long ago, so that they may go. */
                struct meta_source source = at(now_ns > 20 * NS_PER_S ? now_ns - 20 * NS_PER_S : 1);
                char path[32];
                struct stat st = file(0, 1);

                for (unsigned k = 0; k < 50; k++) {
                        (void)snprintf(path, sizeof(path), "d%u/f%u", i, k);
                        CHECK_EQ(meta_put(m, path, &source, &st, NULL), 0);
                }
                if (i == 0)
                        unref(meta_set_content(m, "d0/f7", &x.head));
        }
        CHECK(meta_count(m) <= 1000);
        CHECK(exists(m, "d0/f7"));
        CHECK(exists(m, "d99/f49"));
        CHECK(!meta_get_dir(m, "d0", &d) || !d.is_listed);
        meta_free(m);
}

static void names_come_in_the_order_of_the_listing(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s = at(20);
        struct stat st = file(0, 0);
        struct meta_names names;
        char all[64] = "";

        CHECK_EQ(meta_names(m, "", false, &names), -EAGAIN);
        list(m, "", 10, NAMES("b", "a", "c"));
        CHECK_EQ(meta_made(m, "z", &s, &st, NULL, 21, NULL), 0);
        meta_removed(m, "a", &s, 21);
        CHECK_EQ(meta_names(m, "", false, &names), 0);
        for (size_t i = 0; i < names.size;) {
                const struct meta_name *n = (const void *)(names.data + i);

                (void)strncat(all, n->text, sizeof(all) - strlen(all) - 1);
                i += meta_name_span(n->size);
        }
        CHECK_STR(all, "bcz");
        free(names.data);
        meta_free(m);
}

static void links_keep_their_text_while_nothing_changed(void)
{
        struct meta *m = make_meta(0);
        struct meta_source s10 = at(10), s20 = at(20), s30 = at(30);
        struct stat st = {
                .st_mode = S_IFLNK | 0777, .st_ino = 5, .st_size = 3, .st_mtim = {.tv_sec = 9}};
        char text[META_TARGET_MAX + 1];

        CHECK_EQ(meta_put(m, "l", &s10, &st, "abc"), 0);
        CHECK(meta_get_target(m, "l", text));
        CHECK_STR(text, "abc");
        CHECK_EQ(meta_put(m, "l", &s20, &st, NULL), 0);
        CHECK(meta_get_target(m, "l", text));
        st.st_mtim.tv_sec = 10;
        CHECK_EQ(meta_put(m, "l", &s30, &st, NULL), 0);
        CHECK(!meta_get_target(m, "l", text));
        meta_free(m);
}

static void a_large_directory_fits_its_budget(void)
{
        struct meta *m = make_meta(0);
        struct meta_source source = at(10);
        struct meta_listing l;
        uint64_t begin_ns = clock_mono_ns(), took_ns;

        CHECK_EQ(meta_listing_begin(m, "d", &source, &l), 0);
        for (unsigned i = 0; i < 100000; i++) {
                struct stat st = file(i + 10, i);
                char name[32];

                (void)snprintf(name, sizeof(name), "file-%u", i);
                CHECK_EQ(meta_listing_entry(&l, name, &st, NULL), 0);
        }
        CHECK_EQ(meta_listing_dir(&l, ""), 0);
        meta_listing_done(&l);
        took_ns = clock_mono_ns() - begin_ns;
        CHECK_EQ(meta_count(m), 100002);
        CHECK_EQ(size_of(m, "d/file-99999"), 99999);
        CHECK(took_ns < 60 * NS_PER_S);
        meta_free(m);
}

int main(void)
{
        RUN(a_listed_directory_knows_what_is_absent);
        RUN(an_earlier_answer_does_not_replace_a_later_one);
        RUN(what_was_asked_before_a_change_does_not_undo_it);
        RUN(renamed_subtrees_keep_what_is_known);
        RUN(another_inode_is_another_file);
        RUN(numbers_are_made_up_where_there_are_none);
        RUN(a_number_that_is_shown_is_no_other_files);
        RUN(made_up_numbers_do_not_repeat);
        RUN(times_of_new_directories_and_links_stay_ours);
        RUN(times_that_a_running_command_set_are_not_ours_after_its_end);
        RUN(pinned_files_stay_whatever_a_listing_says);
        RUN(hostile_names_are_passed_over);
        RUN(what_nobody_used_gives_way);
        RUN(names_come_in_the_order_of_the_listing);
        RUN(links_keep_their_text_while_nothing_changed);
        RUN(a_large_directory_fits_its_budget);
        return check_result();
}
