/* SPDX-License-Identifier: Apache-2.0 */
/* See mountpoint.h. A stat(2) that may hang runs in a thread of its own; the abort frees it. */

#include "fs/mount/mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"
#include "transport/base/process.h"

#define MOUNTINFO_MAX ((size_t)16 * 1024 * 1024)
#define PROBE_NS (2 * NS_PER_S) /* the root answers from memory: what takes longer is dead */
#define FUSERMOUNT_NS (700 * NS_PER_MS)
#define STACKED_MAX 16 /* dead mounts on top of each other */

/* ---- what is mounted ---- */

/* The next word of a line; blanks and such are written \ooo in it. */
static bool take_word(const char **at, char *word, size_t size)
{
        const char *p = *at;
        size_t n = 0;

        while (*p == ' ')
                p++;
        if (*p == '\0' || *p == '\n')
                return false;
        while (*p != '\0' && *p != ' ' && *p != '\n') {
                char c = *p++;

                if (c == '\\' && p[0] >= '0' && p[0] <= '3' && p[1] >= '0' && p[1] <= '7' &&
                    p[2] >= '0' && p[2] <= '7') {
                        c = (char)((p[0] - '0') * 64 + (p[1] - '0') * 8 + (p[2] - '0'));
                        p += 3;
                }
                if (n + 1 < size)
                        word[n++] = c;
        }
        word[n] = '\0';
        *at = p;
        return true;
}

/* "36 35 98:0 /root /point options [optional...] - type source superoptions" */
static bool parse_line(const char *line, char *point, size_t point_size, struct mount_entry *ret,
                       bool *ret_ours)
{
        char word[256];
        struct mount_entry e;

        if (!take_word(&line, word, sizeof(word)) || !take_word(&line, word, sizeof(word)) ||
            !take_word(&line, word, sizeof(word)) ||
            sscanf(word, "%u:%u", &e.major, &e.minor) != 2 ||
            !take_word(&line, word, sizeof(word)) || !take_word(&line, point, point_size))
                return false;
        do {
                if (!take_word(&line, word, sizeof(word)))
                        return false;
        } while (strcmp(word, "-") != 0);
        if (!take_word(&line, word, sizeof(word)))
                return false;
        *ret = e;
        *ret_ours = strcmp(word, "fuse.sbxfs") == 0;
        return true;
}

int mountinfo_find(const char *text, const char *path, struct mount_entry *ret)
{
        struct mount_entry last = {0};
        bool found = false;

        while (*text) {
                struct mount_entry e;
                char point[4096];
                bool is_ours;

                if (parse_line(text, point, sizeof(point), &e, &is_ours) &&
                    strcmp(point, path) == 0) {
                        found = is_ours;
                        last = e;
                }
                text += strcspn(text, "\n");
                text += *text == '\n';
        }
        if (found)
                *ret = last;
        return found;
}

int mountpoint_find(const char *path, struct mount_entry *ret)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(MOUNTINFO_MAX);
        int r = file_read(AT_FDCWD, "/proc/self/mountinfo", &text);

        return r < 0 ? r : mountinfo_find(buf_str(&text), path, ret);
}

/* ---- a dead predecessor ---- */

/* A stat in a thread of its own. */
struct probe {
        struct mutex lock;
        struct cond answered;
        char *path;
        int result GUARDED_BY(lock); /* 1: none yet; 0 or -errno */
        unsigned users GUARDED_BY(lock); /* the thread and the asker: the last frees */
};

static void probe_leave(struct probe *p)
{
        bool is_last;

        mutex_lock(&p->lock);
        is_last = --p->users == 0;
        mutex_unlock(&p->lock);
        if (!is_last)
                return;
        mutex_done(&p->lock);
        cond_done(&p->answered);
        free(p->path);
        free(p);
}

static void *probe_run(void *arg)
{
        struct probe *p = arg;
        struct statx st;
        /* Its server is asked: the kernel may still know what a dead one has answered. */
        int r = statx(AT_FDCWD, p->path, AT_STATX_FORCE_SYNC, STATX_MODE, &st) < 0 ? -errno : 0;

        mutex_lock(&p->lock);
        p->result = r;
        cond_broadcast(&p->answered);
        mutex_unlock(&p->lock);
        probe_leave(p);
        return NULL;
}

static struct probe *probe_start(const char *path)
{
        struct probe *p = calloc(1, sizeof(*p));
        pthread_t thread;

        if (!p)
                return NULL;
        p->path = strdup(path);
        mutex_init(&p->lock);
        cond_init(&p->answered);
        mutex_lock(&p->lock);
        p->result = 1;
        p->users = 2;
        mutex_unlock(&p->lock);
        if (p->path && pthread_create(&thread, NULL, probe_run, p) == 0) {
                (void)pthread_detach(thread); /* it was just made */
                return p;
        }
        mutex_lock(&p->lock);
        p->users = 1;
        mutex_unlock(&p->lock);
        probe_leave(p);
        return NULL;
}

/* Whether an sbxfs that is mounted on `path` answers. */
static bool is_alive(const char *path)
{
        struct probe *p = probe_start(path);
        uint64_t deadline_ns = clock_after(PROBE_NS);
        int r;

        if (!p)
                return true; /* not known to be dead */
        mutex_lock(&p->lock);
        while (p->result == 1 && cond_wait_until(&p->answered, &p->lock, deadline_ns))
                ;
        r = p->result;
        mutex_unlock(&p->lock);
        probe_leave(p);
        return r == 0 || r == -EACCES; /* somebody else's is alive for all we know */
}

int mountpoint_clear(const char *path, struct call *c)
{
        for (unsigned i = 0; i < STACKED_MAX; i++) {
                struct mount_entry e;
                int r = mountpoint_find(path, &e);

                if (r < 0)
                        return call_fail_errno(c, r, "/proc/self/mountinfo");
                if (r == 0)
                        return 0;
                if (is_alive(path))
                        return call_fail(c, -EBUSY, "another sbxfs is mounted on %s", path);
                log_info("%s: detaching a dead sbxfs", path);
                mountpoint_abort(&e);
                r = mountpoint_detach(path, &e);
                if (r < 0)
                        return call_fail_errno(c, r, "%s: detach a dead sbxfs", path);
        }
        return call_fail(c, -EBUSY, "%s: too many dead mounts", path);
}

/* ---- unmount ---- */

/* The set-uid helper that unmounts for users. */
static int run_fusermount(const char *path)
{
        static const char *const programs[] = {"/usr/bin/fusermount3", "/bin/fusermount3",
                                               "/usr/local/bin/fusermount3"};
        const char *const argv[] = {"fusermount3", "-u", "-z", "-q", "--", path, NULL};
        struct process_spec spec = {
                .argv = argv, .uid = (uid_t)-1, .gid = (gid_t)-1, .cgroup_procs = {-1, -1}};
        _cleanup_(closep) int pidfd = -1;
        int r = -ENOENT, status;
        pid_t pid;

        for (size_t i = 0; r == -ENOENT && i < sizeof(programs) / sizeof(programs[0]); i++) {
                spec.path = programs[i];
                r = process_spawn(&spec, &pid, &pidfd);
        }
        if (r == 0)
                r = process_reap(pidfd, clock_after(FUSERMOUNT_NS), &status);
        if (r == 0 && status != 0)
                r = -EPERM; /* it says no more than that */
        return r;
}

int mountpoint_detach(const char *path, const struct mount_entry *e)
{
        struct mount_entry now;
        int r = mountpoint_find(path, &now);

        if (r < 0)
                return r;
        if (r == 0 || now.major != e->major || now.minor != e->minor)
                return 0;
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
                return 0;
        if (errno != EPERM)
                return -errno;
        return run_fusermount(path);
}

static int write_text(const char *path, const char *text)
{
        _cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

void mountpoint_abort(const struct mount_entry *e)
{
        char path[64];
        int r;

        /* it fits */
        (void)snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", e->minor);
        r = write_text(path, "1");
        if (r < 0)
                log_debug("fuse", "%s: %s, ignoring", path, errno_name(r));
}

void mountpoint_set_readahead(const struct mount_entry *e)
{
        char path[64];

        if (geteuid() != 0)
                return;
        (void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", e->major,
                       e->minor); /* it fits */
        if (write_text(path, "1024") < 0)
                log_debug("fuse", "%s: %s, ignoring", path, errno_name(-errno));
}
