/* SPDX-License-Identifier: Apache-2.0 */
/* Cgroups of sandboxes; see cgroup.h. */

#include "providers/local/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/base/lock.h"

#define GROUP "sbxfs"
#define PERIOD_US 100000u
#define QUOTA_MIN_US 1000u /* the kernel's */
#define WAIT_NS (2 * NS_PER_S)

static const char *const kind_names[CGROUP_KINDS] = {"cpu", "memory", "pids", "freezer"};

struct cgroups {
        struct cgroup_mounts mounts; /* fixed after init */
        struct mutex lock;
        /* guarded by lock */
        bool is_known;
        unsigned v2; /* kinds that v2 has, and v1 */
        unsigned v1;
};

/* ---- where they are ---- */

static bool has_word(const char *list, size_t size, const char *word)
{
        size_t length = strlen(word);

        for (size_t at = 0; at < size;) {
                size_t end = at;

                while (end < size && list[end] != ',' && list[end] != ' ' && list[end] != '\n')
                        end++;
                if (end - at == length && memcmp(list + at, word, length) == 0)
                        return true;
                at = end + 1;
        }
        return false;
}

/*
 * One line: "... mount-point options ... - type source super-options". Points with escapes (blanks)
 * are passed over.
 */
static void find_in_line(const char *line, struct cgroup_mounts *ret)
{
        const char *dash = strstr(line, " - ");
        char point[256], type[32], options[256] = "";

        if (!dash || sscanf(line, "%*s %*s %*s %*s %255s", point) != 1 ||
            sscanf(dash, " - %31s %*s %255s", type, options) < 1 || strchr(point, '\\') ||
            strlen(point) > 200)
                return;
        if (strcmp(type, "cgroup2") == 0 && !ret->v2[0])
                memcpy(ret->v2, point, sizeof(point));
        for (unsigned i = 0; i < CGROUP_KINDS && strcmp(type, "cgroup") == 0; i++) {
                if (has_word(options, strlen(options), kind_names[i]) && !ret->v1[i][0])
                        memcpy(ret->v1[i], point, sizeof(point));
        }
}

void cgroup_find(const char *mountinfo, struct cgroup_mounts *ret)
{
        *ret = (struct cgroup_mounts){0};
        while (*mountinfo) {
                size_t length = strcspn(mountinfo, "\n");
                char *line = strndup(mountinfo, length);

                if (line)
                        find_in_line(line, ret);
                free(line);
                mountinfo += length + (mountinfo[length] == '\n');
        }
}

int cgroups_new(const struct cgroup_mounts *mounts, struct cgroups **ret)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(16 << 20);
        struct cgroups *g = calloc(1, sizeof(*g));

        if (!g)
                return -ENOMEM;
        mutex_init(&g->lock);
        if (mounts)
                g->mounts = *mounts;
        else if (file_read(AT_FDCWD, "/proc/self/mountinfo", &text) == 0)
                cgroup_find(buf_str(&text), &g->mounts); /* without /proc there are none */
        *ret = g;
        return 0;
}

void cgroups_free(struct cgroups *g)
{
        if (!g)
                return;
        mutex_done(&g->lock);
        free(g);
}

/* ---- files of a group ---- */

struct path {
        char text[512];
};

/* MOUNT/sbxfs/KEY/FILE; key and file may be NULL. */
static struct path path_of(const char *mount, const char *key, const char *file)
{
        struct path p;

        (void)snprintf(p.text, sizeof(p.text), "%s/" GROUP "%s%s%s%s", mount, key ? "/" : "",
                       key ? key : "", file ? "/" : "", file ? file : "");
        return p;
}

static int write_file(const char *path, const char *text)
{
        _cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

        if (fd < 0)
                return -errno;
        return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int write_number(const char *mount, const char *key, const char *file, uint64_t value)
{
        char text[32];

        (void)snprintf(text, sizeof(text), "%" PRIu64, value);
        return write_file(path_of(mount, key, file).text, text);
}

/* "" when it can't be read. */
static void read_text(const char *path, struct buf *to)
{
        buf_clear(to);
        (void)file_read(AT_FDCWD, path, to); /* absent is as good as empty */
}

/* ---- what works here ---- */

static bool can_write(const char *mount)
{
        return mount[0] && faccessat(AT_FDCWD, mount, W_OK, AT_EACCESS) == 0;
}

/* Hand a controller down to the groups of sandboxes. */
static bool delegate(const char *mount, const char *name)
{
        char text[32], path[300];

        (void)snprintf(text, sizeof(text), "+%s", name);
        (void)snprintf(path, sizeof(path), "%s/cgroup.subtree_control", mount);
        if (write_file(path, text) < 0)
                return false;
        if (mkdir(path_of(mount, NULL, NULL).text, 0755) < 0 && errno != EEXIST)
                return false;
        return write_file(path_of(mount, NULL, "cgroup.subtree_control").text, text) == 0;
}

static unsigned try_v2(const char *mount)
{
        _cleanup_(buf_done) struct buf controllers = BUF_INIT(4096);
        struct path top = path_of(mount, NULL, NULL);
        char path[300];
        unsigned can = 0;

        if (!can_write(mount) || (mkdir(top.text, 0755) < 0 && errno != EEXIST))
                return 0;
        if (access(path_of(mount, NULL, "cgroup.freeze").text, W_OK) == 0)
                can |= CGROUP_FREEZER;
        (void)snprintf(path, sizeof(path), "%s/cgroup.controllers", mount);
        read_text(path, &controllers);
        for (unsigned i = 0; i < CGROUP_KINDS; i++) {
                if (has_word(buf_str(&controllers), controllers.size, kind_names[i]) &&
                    delegate(mount, kind_names[i]))
                        can |= 1u << i;
        }
        (void)rmdir(top.text); /* others may have groups in it */
        return can;
}

static void look(struct cgroups *g)
{
        if (g->is_known)
                return;
        g->is_known = true;
        g->v2 = try_v2(g->mounts.v2);
        for (unsigned i = 0; i < CGROUP_KINDS; i++) {
                if (!(g->v2 & (1u << i)) && can_write(g->mounts.v1[i]))
                        g->v1 |= 1u << i;
        }
}

static void get_kinds(struct cgroups *g, unsigned *ret_v1, unsigned *ret_v2)
{
        mutex_lock(&g->lock);
        look(g);
        *ret_v1 = g->v1;
        *ret_v2 = g->v2;
        mutex_unlock(&g->lock);
}

unsigned cgroups_can(struct cgroups *g)
{
        unsigned v1, v2;

        get_kinds(g, &v1, &v2);
        return v1 | v2;
}

/* ---- one sandbox's ---- */

/* In all hierarchies of a set of kinds (several may be mounted together). */
static void remove_from(const char *mount, const char *key, uint64_t deadline_ns)
{
        struct path group = path_of(mount, key, NULL);

        /* Its last process may still be on its way out. */
        while (mount[0] && rmdir(group.text) < 0 && errno == EBUSY &&
               clock_mono_ns() < deadline_ns) {
                struct timespec pause = {.tv_nsec = 2000000};

                (void)nanosleep(&pause, NULL); /* an interrupted one is a short one */
        }
        if (mount[0])
                (void)rmdir(path_of(mount, NULL, NULL).text); /* others may have groups in it */
}

void cgroup_remove(struct cgroups *g, const char *key)
{
        uint64_t deadline_ns = clock_after(WAIT_NS);

        remove_from(g->mounts.v2, key, deadline_ns);
        for (unsigned i = 0; i < CGROUP_KINDS; i++)
                remove_from(g->mounts.v1[i], key, deadline_ns);
}

static int make(const char *mount, const char *key)
{
        struct path top = path_of(mount, NULL, NULL), group = path_of(mount, key, NULL);

        /* Somebody's last sandbox may go at this moment, and the directory above with it. */
        for (unsigned i = 0; i < 5; i++) {
                if (mkdir(top.text, 0755) < 0 && errno != EEXIST)
                        return -errno;
                if (mkdir(group.text, 0755) == 0 || errno == EEXIST)
                        return 0;
                if (errno != ENOENT)
                        return -errno;
        }
        return -errno;
}

static uint64_t quota_us(uint32_t cpu_milli)
{
        uint64_t quota = (uint64_t)cpu_milli * PERIOD_US / 1000;

        return quota < QUOTA_MIN_US ? QUOTA_MIN_US : quota;
}

static int limit_v1(const struct cgroup_mounts *m, const char *key,
                    const struct cgroup_limits *limits, unsigned kinds)
{
        int r = 0;

        if (limits->cpu_milli > 0 && (kinds & CGROUP_CPU)) {
                r = write_number(m->v1[0], key, "cpu.cfs_period_us", PERIOD_US);
                if (r == 0)
                        r = write_number(m->v1[0], key, "cpu.cfs_quota_us",
                                         quota_us(limits->cpu_milli));
        }
        if (r == 0 && limits->memory > 0 && (kinds & CGROUP_MEMORY)) {
                r = write_number(m->v1[1], key, "memory.limit_in_bytes", limits->memory);
                if (r == 0)
                        r = write_number(m->v1[1], key, "memory.memsw.limit_in_bytes",
                                         limits->memory);
                if (r == -ENOENT) /* a kernel that doesn't count swap: keep it out instead */
                        r = write_number(m->v1[1], key, "memory.swappiness", 0);
        }
        if (r == 0 && limits->processes > 0 && (kinds & CGROUP_PIDS)) /* and the holder */
                r = write_number(m->v1[2], key, "pids.max", limits->processes + 1);
        return r;
}

static int limit_v2(const char *mount, const char *key, const struct cgroup_limits *limits,
                    unsigned kinds)
{
        char text[64];
        int r = 0;

        if (limits->cpu_milli > 0 && (kinds & CGROUP_CPU)) {
                (void)snprintf(text, sizeof(text), "%" PRIu64 " %u", quota_us(limits->cpu_milli),
                               PERIOD_US);
                r = write_file(path_of(mount, key, "cpu.max").text, text);
        }
        if (r == 0 && limits->memory > 0 && (kinds & CGROUP_MEMORY)) {
                r = write_number(mount, key, "memory.max", limits->memory);
                if (r == 0)
                        r = write_number(mount, key, "memory.swap.max", 0);
                if (r == -ENOENT)
                        r = 0; /* a kernel without swap */
        }
        if (r == 0 && limits->processes > 0 && (kinds & CGROUP_PIDS))
                r = write_number(mount, key, "pids.max", limits->processes + 1);
        return r;
}

/* The hierarchies that these limits need, and the freezer. */
static unsigned needed(const struct cgroup_limits *limits)
{
        return (limits->cpu_milli > 0 ? CGROUP_CPU : 0u) |
               (limits->memory > 0 ? CGROUP_MEMORY : 0u) |
               (limits->processes > 0 ? CGROUP_PIDS : 0u) | CGROUP_FREEZER;
}

static int enter_v2(const struct cgroups *g, const char *key, const struct cgroup_limits *limits,
                    unsigned kinds, pid_t pid)
{
        int r = make(g->mounts.v2, key);

        /* The group above may have been made anew: its controllers with it. */
        for (unsigned i = 0; r == 0 && i < CGROUP_KINDS; i++) {
                if ((kinds & (1u << i)) && i != 3 && !delegate(g->mounts.v2, kind_names[i]))
                        r = -EOPNOTSUPP;
        }
        if (r == 0)
                r = limit_v2(g->mounts.v2, key, limits, kinds);
        return r == 0 ? write_number(g->mounts.v2, key, "cgroup.procs", (uint64_t)pid) : r;
}

static int enter(struct cgroups *g, const char *key, const struct cgroup_limits *limits, pid_t pid)
{
        unsigned v1, v2;
        int r = 0;

        get_kinds(g, &v1, &v2);
        v1 &= needed(limits);
        v2 &= needed(limits);
        for (unsigned i = 0; r == 0 && i < CGROUP_KINDS; i++) {
                if (v1 & (1u << i))
                        r = make(g->mounts.v1[i], key);
        }
        if (r == 0)
                r = limit_v1(&g->mounts, key, limits, v1);
        for (unsigned i = 0; r == 0 && i < CGROUP_KINDS; i++) {
                if (v1 & (1u << i))
                        r = write_number(g->mounts.v1[i], key, "cgroup.procs", (uint64_t)pid);
        }
        return r == 0 && v2 ? enter_v2(g, key, limits, v2, pid) : r;
}

int cgroup_enter(struct cgroups *g, const char *key, const struct cgroup_limits *limits, pid_t pid,
                 struct call *c)
{
        int r;

        cgroup_remove(g, key); /* of a former life */
        r = enter(g, key, limits, pid);
        return r < 0 ? call_fail_errno(c, r, "limits by cgroup") : 0;
}

/* ---- the freezer ---- */

/* The file that freezes, "" when there is none. */
static struct path freezer_of(const struct cgroups *g, const char *key, bool *ret_is_v2)
{
        struct path p = path_of(g->mounts.v2, key, "cgroup.freeze");

        *ret_is_v2 = g->mounts.v2[0] && access(p.text, W_OK) == 0;
        if (*ret_is_v2)
                return p;
        p = path_of(g->mounts.v1[3], key, "freezer.state");
        if (!g->mounts.v1[3][0] || access(p.text, W_OK) < 0)
                p.text[0] = '\0';
        return p;
}

bool cgroup_has_freezer(struct cgroups *g, const char *key)
{
        bool is_v2;

        return freezer_of(g, key, &is_v2).text[0] != '\0';
}

bool cgroup_is_frozen(struct cgroups *g, const char *key)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(4096);
        bool is_v2;
        struct path p = freezer_of(g, key, &is_v2);

        if (!p.text[0])
                return false;
        if (!is_v2) {
                read_text(p.text, &text);
                return has_word(buf_str(&text), text.size, "FROZEN");
        }
        read_text(path_of(g->mounts.v2, key, "cgroup.events").text, &text);
        return strstr(buf_str(&text), "frozen 1") != NULL;
}

int cgroup_freeze(struct cgroups *g, const char *key, bool frozen)
{
        uint64_t deadline_ns = clock_after(WAIT_NS);
        bool is_v2;
        struct path p = freezer_of(g, key, &is_v2);
        int r = p.text[0] ? 0 : -ENOENT;

        while (r == 0) {
                struct timespec pause = {.tv_nsec = 1000000};

                r = write_file(p.text,
                               is_v2 ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED"));
                if (r < 0 || cgroup_is_frozen(g, key) == frozen)
                        return r;
                if (clock_mono_ns() > deadline_ns)
                        r = -ETIMEDOUT;
                (void)nanosleep(&pause, NULL); /* an interrupted one is a short one */
        }
        return r;
}
