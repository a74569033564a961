/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_remove_tree against trees that somebody hostile made or is changing. What needs another uid
 * or a mount namespace runs in a child, and is skipped, saying so, where that can't be had.
 */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/base/temp.h"
#include "transport/base/clock.h"

#define SKIPPED 77

static int dir;

static void make_file(int at, const char *name)
{
        int fd = openat(at, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        CHECK(fd >= 0);
        (void)close(fd);
}

static int make_dir(int at, const char *name)
{
        int fd;

        CHECK(mkdirat(at, name, 0700) == 0 || errno == EEXIST);
        fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(fd >= 0);
        return fd;
}

static bool exists(int at, const char *name)
{
        struct stat st;

        return fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Runs `test` in a child, which may change its ids, limits and namespaces. */
static void in_child(int (*test)(void))
{
        pid_t pid = fork();
        int status = -1;

        if (pid == 0)
                _exit(test());
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
                (void)fprintf(stderr, "%s: skipped: needs root and its capabilities\n", check_name);
        else
                CHECK_EQ(status, 0);
}

static void files_links_and_nothing_are_removed(void)
{
        int victim = make_dir(dir, "victim");

        make_file(victim, "precious");
        make_file(dir, "file");
        CHECK_EQ(symlinkat("victim", dir, "link"), 0);
        CHECK_EQ(symlinkat("nowhere", dir, "dangling"), 0);
        CHECK_EQ(mkfifoat(dir, "fifo", 0600), 0);
        CHECK_EQ(file_remove_tree(dir, "file"), 0);
        CHECK_EQ(file_remove_tree(dir, "link"), 0);
        CHECK_EQ(file_remove_tree(dir, "dangling"), 0);
        CHECK_EQ(file_remove_tree(dir, "fifo"), 0);
        CHECK_EQ(file_remove_tree(dir, "absent"), 0);
        CHECK_EQ(file_remove_tree(dir, "absent/below"), 0);
        CHECK(!exists(dir, "file") && !exists(dir, "link") && !exists(dir, "dangling"));
        CHECK(exists(victim, "precious"));
        CHECK_EQ(file_remove_tree(victim, "."), -EINVAL);
        CHECK_EQ(file_remove_tree(victim, ".."), -EINVAL);
        CHECK_EQ(file_remove_tree(AT_FDCWD, "/"), -EINVAL);
        CHECK(exists(victim, "precious"));
        (void)close(victim);
}

static void a_tree_goes_and_what_it_links_to_stays(void)
{
        int top = make_dir(dir, "tree"), sub = make_dir(top, "sub");
        char path[100];

        for (int i = 0; i < 3000; i++) {
                char name[16];

                (void)snprintf(name, sizeof(name), "%d", i);
                if (i % 3 == 0)
                        (void)close(make_dir(sub, name));
                else
                        make_file(sub, name);
        }
        CHECK_EQ(symlinkat("../victim", top, "link"), 0);
        CHECK_EQ(symlinkat("/", sub, "link"), 0);
        CHECK_EQ(linkat(dir, "victim/precious", sub, "hard", 0), 0);
        (void)close(sub);
        (void)close(top);
        (void)snprintf(path, sizeof(path), "%s/tree", temp_path);
        CHECK_EQ(file_remove_tree(AT_FDCWD, path), 0);
        CHECK(!exists(dir, "tree"));
        CHECK(exists(dir, "victim/precious"));
}

#define DEPTH 20000

static int remove_deep_tree(void)
{
        const struct rlimit few = {64, 64};
        int at = make_dir(dir, "deep"), next;

        for (int i = 0; i < DEPTH; i++) {
                next = make_dir(at, "d");
                if (i % 1000 == 0)
                        make_file(at, "file");
                (void)close(at);
                at = next;
        }
        (void)close(at);
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
        CHECK_EQ(file_remove_tree(dir, "deep"), 0);
        CHECK(!exists(dir, "deep"));
        return check_result();
}

static void depth_costs_no_descriptors(void)
{
        in_child(remove_deep_tree);
}

/* Many directories just beyond what is gone down to at once. */
static void wide_and_deep(void)
{
        int top = make_dir(dir, "wide");

        for (int i = 0; i < 200; i++) {
                char name[16];
                int at, next;

                (void)snprintf(name, sizeof(name), "%d", i);
                at = make_dir(top, name);
                for (int depth = 0; depth < 70; depth++) {
                        make_file(at, "f");
                        next = make_dir(at, depth % 2 ? "x" : "y");
                        (void)close(at);
                        at = next;
                }
                (void)close(at);
        }
        (void)close(top);
        CHECK_EQ(file_remove_tree(dir, "wide"), 0);
        CHECK(!exists(dir, "wide"));
}

static int remove_closed_directories(void)
{
        int top, at, next;

        if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
                return SKIPPED;
        top = at = make_dir(dir, "closed");
        for (int i = 0; i < 80; i++) {
                next = make_dir(at, "d");
                make_file(next, "f");
                CHECK_EQ(fchmod(at, i % 3 == 0 ? 0 : i % 3 == 1 ? 0500 : 0300), 0);
                if (at != top)
                        (void)close(at);
                at = next;
        }
        CHECK_EQ(fchmod(at, 0), 0);
        (void)close(at);
        (void)close(top);
        CHECK_EQ(file_remove_tree(dir, "closed"), 0);
        CHECK(!exists(dir, "closed"));
        return check_result();
}

static void directories_without_permissions_are_opened_up(void)
{
        CHECK_EQ(fchmod(dir, 0777), 0);
        in_child(remove_closed_directories);
        CHECK_EQ(fchmod(dir, 0700), 0);
}

static int remove_what_is_not_ours(void)
{
        int top = make_dir(dir, "foreign"), sub = make_dir(top, "sub");

        make_file(sub, "f");
        make_file(top, "h");
        (void)close(make_dir(top, "other"));
        make_file(top, "other/g");
        CHECK_EQ(fchmod(top, 0777) | fchmod(sub, 0755) | fchmodat(top, "other", 0777, 0), 0);
        if (geteuid() != 0 || setgid(65534) < 0 || setuid(65534) < 0)
                return SKIPPED;
        CHECK_EQ(file_remove_tree(dir, "foreign"), -EACCES);
        CHECK(exists(sub, "f"));
        CHECK(!exists(top, "h") && !exists(top, "other"));
        return check_result();
}

static void what_can_be_removed_is_gone_after_an_error(void)
{
        CHECK_EQ(fchmod(dir, 0755), 0);
        in_child(remove_what_is_not_ours);
        CHECK_EQ(file_remove_tree(dir, "foreign"), 0);
}

static int remove_around_mounts(void)
{
        char from[100], to[100];

        (void)close(make_dir(dir, "mounts"));
        (void)close(make_dir(dir, "mounts/bound"));
        (void)close(make_dir(dir, "mounts/other"));
        make_file(dir, "mounts/f");
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return SKIPPED;
        dir = open(temp_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* in the new namespace */
        (void)snprintf(from, sizeof(from), "%s/victim", temp_path);
        (void)snprintf(to, sizeof(to), "%s/mounts/bound", temp_path);
        if (mount(from, to, NULL, MS_BIND, NULL) <
            0) /* the same file system: st_dev tells nothing */
                return SKIPPED;
        (void)snprintf(to, sizeof(to), "%s/mounts/other", temp_path);
        CHECK_EQ(mount("tmpfs", to, "tmpfs", 0, NULL), 0);
        (void)close(make_dir(dir, "mounts/other/inside"));

        CHECK_EQ(file_remove_tree(dir, "mounts"), -EXDEV);
        CHECK(exists(dir, "victim/precious"));
        CHECK(exists(dir, "mounts/other/inside"));
        CHECK(!exists(dir, "mounts/f"));
        CHECK_EQ(file_remove_tree(AT_FDCWD, to), -EXDEV);
        CHECK(exists(dir, "mounts/other/inside"));
        return check_result();
}

static void mount_points_are_not_entered(void)
{
        in_child(remove_around_mounts);
        CHECK_EQ(file_remove_tree(dir, "mounts"), 0);
}

static atomic_bool is_over;

/*
 * Exchange a directory of the tree for a link to the victim and back, and move it out of the tree
 * and back.
 */
static void *exchange(void *arg)
{
        (void)arg;
        while (!atomic_load(&is_over)) {
                (void)mkdirat(dir, "attacked", 0700);
                (void)mkdirat(dir, "attacked/sub", 0700);
                (void)mkdirat(dir, "attacked/sub/sub", 0700);
                (void)!symlinkat("../victim", dir, "attacked/link");
                (void)!symlinkat("../../victim", dir, "attacked/sub/link");
                (void)renameat2(dir, "attacked/sub", dir, "attacked/link", RENAME_EXCHANGE);
                (void)renameat2(dir, "attacked/sub", dir, "attacked/link", RENAME_EXCHANGE);
                (void)renameat(dir, "attacked/sub/sub", dir, "victim/moved");
                (void)renameat(dir, "victim/moved", dir, "attacked/sub/sub");
                (void)renameat(dir, "attacked/sub", dir, "victim/moved");
                (void)renameat(dir, "victim/moved", dir, "attacked/link/x");
                (void)renameat2(dir, "attacked", dir, "attack-link", RENAME_EXCHANGE);
                (void)renameat2(dir, "attacked", dir, "attack-link", RENAME_EXCHANGE);
        }
        return NULL;
}

static void nobody_leads_it_outside(void)
{
        uint64_t end_ns = clock_after(2 * NS_PER_S);
        pthread_t threads[2];
        int rounds = 0;

        CHECK_EQ(symlinkat("victim", dir, "attack-link"), 0);
        atomic_store(&is_over, false);
        for (int i = 0; i < 2; i++)
                CHECK_EQ(pthread_create(&threads[i], NULL, exchange, NULL), 0);
        while (clock_mono_ns() < end_ns || rounds <= 10) {
                (void)file_remove_tree(dir, "attacked"); /* may fail, in time */
                rounds++;
                if (!CHECK(exists(dir, "victim/precious")))
                        break;
        }
        atomic_store(&is_over, true);
        for (int i = 0; i < 2; i++)
                CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(file_remove_tree(dir, "attacked"), 0);
        CHECK_EQ(file_remove_tree(dir, "attack-link"), 0);
        CHECK(exists(dir, "victim/precious"));
}

static void *refill(void *arg)
{
        (void)arg;
        for (unsigned i = 0; !atomic_load(&is_over); i++) {
                char name[32];

                (void)snprintf(name, sizeof(name), "filled/%u", i);
                (void)mkdirat(dir, name, 0700);
        }
        return NULL;
}

static void one_who_keeps_filling_does_not_hold_it_for_ever(void)
{
        uint64_t start_ns = clock_mono_ns();
        pthread_t thread;

        (void)close(make_dir(dir, "filled"));
        atomic_store(&is_over, false);
        CHECK_EQ(pthread_create(&thread, NULL, refill, NULL), 0);
        (void)file_remove_tree(dir, "filled");
        CHECK(clock_mono_ns() - start_ns < 60 * NS_PER_S);
        atomic_store(&is_over, true);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(file_remove_tree(dir, "filled"), 0);
}

int main(void)
{
        dir = temp_open();
        RUN(files_links_and_nothing_are_removed);
        RUN(a_tree_goes_and_what_it_links_to_stays);
        RUN(depth_costs_no_descriptors);
        RUN(wide_and_deep);
        RUN(directories_without_permissions_are_opened_up);
        RUN(what_can_be_removed_is_gone_after_an_error);
        RUN(mount_points_are_not_entered);
        RUN(nobody_leads_it_outside);
        RUN(one_who_keeps_filling_does_not_hold_it_for_ever);
        temp_close(dir);
        return check_result();
}
