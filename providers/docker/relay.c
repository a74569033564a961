/* SPDX-License-Identifier: Apache-2.0 */
/* Files in, text out; see relay.h. Threads: one. */

#include "providers/docker/relay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/ssh/base64.h"

#define OUT_SIZE ((size_t)6144) /* of one line: 8192 characters */
#define PIECE_MAX ((size_t)4 << 20)
#define LOOK_MS 50 /* where nothing tells of new files; else only what it doesn't tell is late */

struct relay {
        const char *dir;
        int dir_fd, watch_fd;
        int in_fd, out_fd; /* the program's ends; -1 closed */
        pid_t pid;
        uint64_t next; /* piece of the input */
        struct buf piece;
        size_t written; /* of it */
};

/* ---- input ---- */

/* "12.34": the piece that is next, as a name. */
static bool find_piece(const struct relay *r, char name[64], size_t *ret_size)
{
        _cleanup_(closedirp) DIR *dir = opendir(r->dir);
        const struct dirent *entry;
        char head[32];
        size_t size = (size_t)snprintf(head, sizeof(head), "%llu.", (unsigned long long)r->next);

        while (dir && (entry = readdir(dir))) {
                char *end = NULL;
                unsigned long long bytes;

                if (strncmp(entry->d_name, head, size) != 0 || strlen(entry->d_name) > 60)
                        continue;
                bytes = strtoull(entry->d_name + size, &end, 10);
                if (end && *end == '\0' && bytes <= PIECE_MAX) {
                        (void)snprintf(name, 64, "%s", entry->d_name);
                        *ret_size = (size_t)bytes;
                        return true;
                }
        }
        return false;
}

/* The next piece, if it is whole; false: not yet. */
static bool take_piece(struct relay *r)
{
        struct stat st;
        char name[64];
        size_t size;

        if (!find_piece(r, name, &size) || fstatat(r->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            (size_t)st.st_size != size)
                return false;
        buf_clear(&r->piece);
        r->written = 0;
        if (size > 0 && (file_read(r->dir_fd, name, &r->piece) < 0 || r->piece.size != size))
                return false;
        (void)unlinkat(r->dir_fd, name, 0);
        r->next++;
        if (size == 0 && r->in_fd >= 0) {
                (void)close(r->in_fd);
                r->in_fd = -1;
        }
        return true;
}

static void write_piece(struct relay *r)
{
        ssize_t n = write(r->in_fd, r->piece.data + r->written, r->piece.size - r->written);

        if (n > 0)
                r->written += (size_t)n;
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
                r->written = r->piece.size; /* it reads no more */
}

/* ---- output ---- */

static bool write_all(int fd, const char *data, size_t size)
{
        while (size > 0) {
                ssize_t n = write(fd, data, size);

                if (n < 0 && errno != EINTR)
                        return false;
                data += n > 0 ? n : 0;
                size -= n > 0 ? (size_t)n : 0;
        }
        return true;
}

/* False: its end. */
static bool pass_output(struct relay *r)
{
        _cleanup_(buf_done) struct buf line = BUF_INIT(2 * OUT_SIZE);
        char data[OUT_SIZE];
        ssize_t n = read(r->out_fd, data, sizeof(data));

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return true;
        return n > 0 && base64_encode(&line, data, (size_t)n) == 0 &&
               buf_add_char(&line, '\n') == 0 && write_all(STDOUT_FILENO, line.data, line.size);
}

/* ---- both ---- */

static bool has_piece(const struct relay *r)
{
        return r->in_fd >= 0 && r->written < r->piece.size;
}

static void run(struct relay *r)
{
        char events[4096];

        for (;;) {
                struct pollfd polled[3] = {
                        {.fd = r->out_fd, .events = POLLIN},
                        {.fd = has_piece(r) ? r->in_fd : -1, .events = POLLOUT},
                        {.fd = has_piece(r) ? -1 : r->watch_fd, .events = POLLIN},
                };

                if (!has_piece(r) && take_piece(r))
                        continue;
                if (poll(polled, 3, has_piece(r) ? -1 : LOOK_MS) < 0 && errno != EINTR)
                        return;
                if (polled[2].revents)
                        (void)!read(r->watch_fd, events, sizeof(events)); /* that there are some */
                if (polled[1].revents)
                        write_piece(r);
                if (polled[0].revents && !pass_output(r))
                        return;
        }
}

/* ---- the program ---- */

static int start(struct relay *r, char **argv)
{
        posix_spawn_file_actions_t actions;
        int in[2], out[2], error;

        if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
                return -errno;
        error = posix_spawn_file_actions_init(&actions);
        if (error == 0)
                error = posix_spawn_file_actions_adddup2(&actions, in[0], 0);
        if (error == 0)
                error = posix_spawn_file_actions_adddup2(&actions, out[1], 1);
        if (error == 0)
                error = posix_spawnp(&r->pid, argv[0], &actions, NULL, argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
        (void)close(in[0]);
        (void)close(out[1]);
        r->in_fd = in[1];
        r->out_fd = out[0];
        (void)fcntl(r->in_fd, F_SETFL, O_NONBLOCK);
        return -error;
}

static int end_of(struct relay *r)
{
        int status = 0;

        if (r->in_fd >= 0)
                (void)close(r->in_fd);
        while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
                ;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What is left of its input goes, too. */
static void remove_dir(const struct relay *r)
{
        _cleanup_(closedirp) DIR *dir = opendir(r->dir);
        const struct dirent *entry;

        while (dir && (entry = readdir(dir)))
                (void)unlinkat(r->dir_fd, entry->d_name, 0); /* "." and ".." refuse */
        (void)rmdir(r->dir);
}

int relay_main(const char *dir, char **argv)
{
        struct relay r = {.dir = dir, .in_fd = -1, .next = 1, .piece = BUF_INIT(PIECE_MAX)};
        int code = 1;

        (void)mkdir(dir, 0700); /* it may be there: the first piece has come already */
        r.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r.watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (r.watch_fd >= 0)
                (void)inotify_add_watch(r.watch_fd, dir, IN_CLOSE_WRITE | IN_MOVED_TO | IN_MODIFY);
        if (r.dir_fd < 0)
                return code;
        if (fchmod(r.dir_fd, 0700) < 0 || !write_all(STDOUT_FILENO, "-\n", 2) ||
            start(&r, argv) < 0) {
                code = 127;
        } else {
                run(&r);
                code = end_of(&r);
        }
        remove_dir(&r);
        return code;
}
