/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile process inside of a sandbox: in tight loops it changes what paths mean.
 *
 * usage: hostile DIRECTORY OUTSIDE...
 *
 * Below DIRECTORY, in a process each: swaps directories for symlinks, by two renames and by
 * exchange; moves directories up and down, so that a link checked at one depth is used at another;
 * swaps files for FIFOs, sockets and links; plants hard links. OUTSIDE are link targets that would
 * lead out, besides some common ones. Only links named s_c* and s_kind* lead to OUTSIDE alone, so
 * that a test may write through them without harm to the host if they do lead out. All names it
 * makes begin with "s_", all its files with "inside". It runs until killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

static const char *const *outside;
static int outside_count;
static unsigned turn;

static const char *target(void)
{
        static const char *const common[] = {
                "/etc",
                "/",
                "..",
                "../..",
                "../../..",
                "../../../..",
                "../../../../../../etc",
                "s_n/..",
                "s_n/../..",
                "s_n/../../s_n/../..",
                "/etc/passwd",
                "/proc/self/root",
                "/proc/self/cwd",
                "/dev/zero",
                "s_loop",
        };
        const int count = sizeof common / sizeof common[0];
        int n = (int)(turn++ % (unsigned)(count + outside_count));

        return n < count ? common[n] : outside[n - count];
}

/* One that leads to a canary or a directory of the test: host tools write through these. */
static const char *canary(void)
{
        return outside_count > 0 ? outside[turn++ % (unsigned)outside_count] : "..";
}

static void put(const char *path)
{
        int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_NOFOLLOW | O_NONBLOCK, 0666);

        if (fd >= 0) {
                if (write(fd, "inside\n", 7) < 0)
                        perror("write");
                (void)close(fd);
        }
}

/* A directory with two levels of common names below, so that walkers go deep. */
static void tree(const char *path)
{
        char name[512];

        (void)mkdir(path, 0777);
        for (int a = 0; a < 2; a++) {
                (void)snprintf(name, sizeof name, "%s/s_f%d", path, a);
                put(name);
                (void)snprintf(name, sizeof name, "%s/s_d%d", path, a);
                (void)mkdir(name, 0777);
                (void)snprintf(name, sizeof name, "%s/s_d%d/s_f0", path, a);
                put(name);
                (void)snprintf(name, sizeof name, "%s/s_d%d/s_d0", path, a);
                (void)mkdir(name, 0777);
                (void)snprintf(name, sizeof name, "%s/s_d%d/s_d0/s_f0", path, a);
                put(name);
        }
}

static void link_again(const char *path)
{
        (void)unlink(path);
        (void)symlink(target(), path);
}

static void link_to_canary(const char *path)
{
        (void)unlink(path);
        (void)symlink(canary(), path);
}

static void swap_by_two_renames(void)
{
        for (;;) {
                tree("s_swap");
                (void)rename("s_swap", "s_swap_away");
                (void)symlink(target(), "s_swap");
                (void)unlink("s_swap");
                (void)rename("s_swap_away", "s_swap");
        }
}

static void swap_by_exchange(void)
{
        tree("s_exchange");
        for (;;) {
                link_again("s_exchange_link");
                for (int n = 0; n < 50; n++)
                        (void)renameat2(AT_FDCWD, "s_exchange", AT_FDCWD, "s_exchange_link",
                                        RENAME_EXCHANGE);
        }
}

static void swap_in_the_middle(void)
{
        tree("s_mid");
        tree("s_mid/s_d0/s_d0");
        for (;;) {
                (void)rename("s_mid/s_d0", "s_mid/s_d0_away");
                (void)symlink(target(), "s_mid/s_d0");
                (void)unlink("s_mid/s_d0");
                (void)rename("s_mid/s_d0_away", "s_mid/s_d0");
        }
}

/* A link that is harmless at this depth leads out at another. */
static void move_up_and_down(void)
{
        tree("s_deep");
        tree("s_deep/s_d0/s_d0/s_d0");
        (void)symlink("../../../../s_f0", "s_deep/s_d0/s_d0/s_d0/s_up");
        (void)symlink("../../../..", "s_deep/s_d0/s_d0/s_d0/s_updir");
        (void)symlink(".", "s_deep/s_n");
        for (;;) {
                (void)rename("s_deep/s_d0/s_d0/s_d0", "s_moved");
                (void)rename("s_moved", "s_deep/s_d1/s_moved");
                (void)rename("s_deep/s_d1/s_moved", "s_deep/s_d0/s_d0/s_d0");
        }
}

static void files_for_fifos(void)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s_kind_socket"};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        (void)bind(fd, (struct sockaddr *)&address, sizeof address);
        for (;;) {
                put("s_kind_file");
                (void)mkfifo("s_kind_fifo", 0666);
                link_to_canary("s_kind_link");
                (void)rename("s_kind_file", "s_kind");
                (void)rename("s_kind_fifo", "s_kind");
                (void)rename("s_kind_link", "s_kind");
                (void)renameat2(AT_FDCWD, "s_kind", AT_FDCWD, "s_kind_socket", RENAME_EXCHANGE);
                (void)renameat2(AT_FDCWD, "s_kind", AT_FDCWD, "s_kind_socket", RENAME_EXCHANGE);
        }
}

static void plant_links(void)
{
        (void)symlink(".", "s_n");
        (void)symlink("s_loop", "s_loop");
        tree("s_links");
        for (;;) {
                char name[64];

                (void)snprintf(name, sizeof name, "s_links/s_l%u", turn % 7);
                link_again(name);
                (void)snprintf(name, sizeof name, "s_c%u", turn % 5);
                link_to_canary(name);
                (void)snprintf(name, sizeof name, "s_links/s_c%u", turn % 3);
                link_to_canary(name);
                (void)snprintf(name, sizeof name, "s_l%u", turn % 5);
                link_again(name);
                put("s_file");
                (void)unlink("s_hard");
                (void)link("s_file", "s_hard");
                (void)unlink("s_links/s_hardlink");
                (void)linkat(AT_FDCWD, name, AT_FDCWD, "s_links/s_hardlink", 0);
        }
}

static void deep_moves_with_cwd(void)
{
        tree("s_cwd");
        for (;;) {
                (void)mkdir("s_cwd/s_a", 0777);
                (void)mkdir("s_cwd/s_a/s_b", 0777);
                put("s_cwd/s_a/s_b/s_f0");
                (void)rename("s_cwd/s_a/s_b", "s_b");
                (void)unlink("s_b/s_f0");
                (void)rmdir("s_b");
                link_again("s_cwd/s_a/s_b");
                (void)unlink("s_cwd/s_a/s_b");
                (void)rmdir("s_cwd/s_a");
                link_again("s_cwd/s_a");
                (void)unlink("s_cwd/s_a");
        }
}

int main(int argc, char **argv)
{
        void (*const loops[])(void) = {swap_by_two_renames, swap_by_exchange, swap_in_the_middle,
                                       move_up_and_down,    files_for_fifos,  plant_links,
                                       deep_moves_with_cwd};
        const pid_t parent = getpid();
        int ready[2];
        char byte;

        if (argc < 2 || chdir(argv[1]) < 0) {
                perror("hostile");
                return 1;
        }
        (void)umask(0);
        outside = (const char *const *)argv + 2;
        outside_count = argc - 2;
        if (pipe(ready) < 0) {
                perror("pipe");
                return 1;
        }
        for (size_t n = 0; n < sizeof loops / sizeof loops[0]; n++) {
                pid_t pid = fork();

                if (pid < 0) {
                        perror("fork");
                        return 1;
                }
                if (pid == 0) {
                        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                        if (getppid() != parent) /* it was killed before that */
                                _exit(1);
                        turn = (unsigned)n * 5;
                        if (write(ready[1], "", 1) == 1)
                                loops[n]();
                        _exit(1);
                }
        }
        for (size_t n = 0; n < sizeof loops / sizeof loops[0]; n++)
                if (read(ready[0], &byte, 1) != 1)
                        return 1;
        puts("started");
        (void)fflush(stdout);
        while (wait(NULL) > 0 || errno == EINTR)
                ;
        return 0;
}
