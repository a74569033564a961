/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of a local sandbox, checked and kept; see plan.h. */

#include "providers/local/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "providers/local/cgroup.h"
#include "providers/provider.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/path.h"
#include "transport/base/process.h"

#define RECORD "box"
#define MEMORY_MIN (UINT64_C(8) << 20)
#define PROCESSES_MAX UINT64_C(4000000)

void plan_done(struct plan *p)
{
        for (size_t i = 0; i < p->mount_count; i++) {
                free(p->mounts[i].host);
                free(p->mounts[i].inside);
        }
        free(p->mounts);
        free(p->workdir);
        *p = (struct plan){0};
}

static void plan_donep(struct plan *p)
{
        plan_done(p);
}

/* ---- from the settings of a creation ---- */

/* A plain absolute path that doesn't cover what the sandbox itself is made of. */
static int check_inside(struct call *c, const char *key, const char *path)
{
        static const char *const system[] = {"/usr",    "/bin", "/sbin", "/lib", "/lib32", "/lib64",
                                             "/libx32", "/etc", "/proc", "/dev", "/sys",   NULL};
        size_t length = strlen(path);

        if (path[0] != '/' || length < 2 || length > 255 || path[length - 1] == '/' ||
            strstr(path, "//") || strstr(path, "/./") || strstr(path, "/../") ||
            strcmp(path + length - 2, "/.") == 0 ||
            (length > 2 && strcmp(path + length - 3, "/..") == 0))
                return call_fail(c, -EINVAL,
                                 "%s=%s: give a plain absolute path of at most 255 bytes", key,
                                 path);
        if (strcmp(path, "/tmp") == 0 || strcmp(path, "/home") == 0 ||
            strcmp(path, "/home/sandbox") == 0)
                return call_fail(c, -EINVAL, "%s=%s: that directory is the sandbox's own", key,
                                 path);
        for (size_t i = 0; system[i]; i++) {
                if (path_is_within(path, system[i]))
                        return call_fail(c, -EINVAL, "%s=%s: %s is the sandbox's own", key, path,
                                         system[i]);
        }
        return 0;
}

static int take_isolation(struct plan *p, const struct spec *spec, unsigned allow, struct call *c)
{
        const char *word = spec->text[SETTING_ISOLATION];

        p->is_isolated = true;
        if (!word || strcmp(word, "bwrap") == 0)
                return 0;
        if (strcmp(word, "none") != 0)
                return call_fail(c, -EINVAL, "isolation=%s: give bwrap or none", word);
        if (!(allow & ALLOW_ISOLATION))
                return call_fail(
                        c, -EPERM,
                        "isolation=none is not allowed by the operator (-o allow=isolation)");
        p->is_isolated = false;
        return 0;
}

static int take_net(struct plan *p, const struct spec *spec, unsigned allow, struct call *c)
{
        const char *word = spec->text[SETTING_NET];

        if (!word || strcmp(word, "none") == 0) {
                if (word && !p->is_isolated)
                        return call_fail(c, -EOPNOTSUPP,
                                         "net=none can't be enforced with isolation=none");
                return 0;
        }
        if (strcmp(word, "host") != 0)
                return call_fail(c, -EINVAL, "net=%s: give none or host", word);
        if (!(allow & ALLOW_NET))
                return call_fail(c, -EPERM,
                                 "net=host is not allowed by the operator (-o allow=net)");
        p->has_net = true;
        return 0;
}

static int take_user(const struct spec *spec, struct call *c)
{
        const char *word = spec->text[SETTING_USER];

        if (word && strcmp(word, "sandbox") != 0 && strcmp(word, "1000") != 0)
                return call_fail(c, -EOPNOTSUPP,
                                 "user=%s: a local sandbox has the user sandbox only", word);
        return 0;
}

static int take_paths(struct plan *p, const struct spec *spec, struct call *c)
{
        const char *workdir = spec->text[SETTING_WORKDIR];
        int r;

        if (!p->is_isolated && (workdir || spec->is_readonly))
                return call_fail(c, -EOPNOTSUPP, "%s can't be had with isolation=none",
                                 workdir ? "workdir=" : "readonly=");
        if (workdir) {
                r = check_inside(c, "workdir", workdir);
                if (r < 0)
                        return r;
        }
        p->is_readonly = spec->is_readonly;
        p->workdir = strdup(workdir ? workdir : PLAN_WORKDIR);
        return p->workdir ? 0 : -ENOMEM;
}

static int add_mount(struct plan *p, const char *host, const char *inside, bool is_readonly)
{
        struct mount_spec *list = reallocarray(p->mounts, p->mount_count + 1, sizeof(*list));
        struct mount_spec *m;

        if (!list)
                return -ENOMEM;
        p->mounts = list;
        m = &list[p->mount_count++];
        *m = (struct mount_spec){
                .host = strdup(host), .inside = strdup(inside), .is_readonly = is_readonly};
        return m->host && m->inside ? 0 : -ENOMEM;
}

static int take_mounts(struct plan *p, const struct spec *spec, unsigned allow, struct call *c)
{
        for (size_t i = 0; i < spec->mount_count; i++) {
                const struct mount_spec *m = &spec->mounts[i];
                int r;

                if (!(allow & ALLOW_MOUNT))
                        return call_fail(
                                c, -EPERM,
                                "mount of %s is not allowed by the operator (-o allow=mount)",
                                m->host);
                if (!p->is_isolated)
                        return call_fail(c, -EOPNOTSUPP, "mount can't be had with isolation=none");
                if (m->host[0] != '/')
                        return call_fail(c, -EINVAL, "mount of %s: give an absolute path", m->host);
                r = check_inside(c, "mount", m->inside);
                if (r == 0)
                        r = add_mount(p, m->host, m->inside, m->is_readonly);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int need_cgroup(unsigned can, unsigned bit, const char *key, struct call *c)
{
        if (can & bit)
                return 0;
        return call_fail(
                c, -EOPNOTSUPP,
                "%s= needs a cgroup (v2 or v1) that sbxfs may write, and there is none here", key);
}

static int take_limits(struct plan *p, const struct spec *spec, unsigned can, struct call *c)
{
        int r = 0;

        if (spec->cpu_milli > 0)
                r = need_cgroup(can, CGROUP_CPU, "cpu", c);
        if (r == 0 && spec->memory > 0)
                r = need_cgroup(can, CGROUP_MEMORY, "memory", c);
        if (r == 0 && spec->processes > 0)
                r = need_cgroup(can, CGROUP_PIDS, "processes", c);
        if (r < 0)
                return r;
        if (spec->memory > 0 && spec->memory < MEMORY_MIN)
                return call_fail(c, -EINVAL, "memory=: at least 8M");
        if (spec->processes > PROCESSES_MAX)
                return call_fail(c, -EINVAL, "processes=: at most %" PRIu64, PROCESSES_MAX);
        p->cpu_milli = spec->cpu_milli;
        p->memory = spec->memory;
        p->processes = spec->processes;
        return 0;
}

int plan_from_spec(const struct spec *spec, unsigned allow, unsigned cgroups, struct call *c,
                   struct plan *ret)
{
        _cleanup_(plan_donep) struct plan p = {0};
        int r;

        memcpy(p.name, spec->name, sizeof(p.name));
        memcpy(p.owner, spec->owner, sizeof(p.owner));
        r = take_isolation(&p, spec, allow, c);
        if (r == 0)
                r = take_net(&p, spec, allow, c);
        if (r == 0)
                r = take_user(spec, c);
        if (r == 0)
                r = take_paths(&p, spec, c);
        if (r == 0)
                r = take_mounts(&p, spec, allow, c);
        if (r == 0)
                r = take_limits(&p, spec, cgroups, c);
        if (r < 0)
                return r;
        *ret = p;
        p = (struct plan){0};
        return 0;
}

/* ---- on disk ---- */

static int add_number(struct record *r, const char *key, uint64_t value)
{
        return record_addf(r, key, "%" PRIu64, value);
}

static int add_mounts(struct record *r, const struct plan *p)
{
        int x = 0;

        for (size_t i = 0; x == 0 && i < p->mount_count; i++) {
                x = record_add(r, "mount.host", p->mounts[i].host);
                if (x == 0)
                        x = record_add(r, "mount.inside", p->mounts[i].inside);
                if (x == 0)
                        x = record_add(r, "mount.mode", p->mounts[i].is_readonly ? "ro" : "rw");
        }
        return x;
}

static int add_holder(struct record *r, const struct holder_id *holder)
{
        char boot[37];
        int x;

        if (holder->pid == 0)
                return 0;
        x = process_boot_id(boot);
        if (x == 0)
                x = record_add(r, "boot", boot);
        if (x == 0)
                x = add_number(r, "holder_pid", (uint64_t)holder->pid);
        if (x == 0)
                x = add_number(r, "holder_start", holder->start_ticks);
        return x == 0 ? record_add(r, "paused", holder->is_paused ? "yes" : "no") : x;
}

static int add_plan(struct record *r, const struct plan *p)
{
        const struct {
                const char *key;
                uint64_t value;
        } numbers[] = {
                {"version", 1},
                {"uid", p->uid},
                {"gid", p->gid},
                {"cpu", p->cpu_milli},
                {"memory", p->memory},
                {"processes", p->processes},
                {"isolated", p->is_isolated},
                {"net", p->has_net},
                {"readonly", p->is_readonly},
        };
        int x = record_add(r, "name", p->name);

        if (x == 0)
                x = record_add(r, "owner", p->owner);
        if (x == 0)
                x = record_add(r, "workdir", p->workdir);
        for (size_t i = 0; x == 0 && i < sizeof(numbers) / sizeof(numbers[0]); i++)
                x = add_number(r, numbers[i].key, numbers[i].value);
        return x == 0 ? add_mounts(r, p) : x;
}

int plan_save(const struct plan *p, const struct holder_id *holder, int dir, enum record_sync sync)
{
        _cleanup_(record_freep) struct record *r = record_new();
        int x = r ? add_plan(r, p) : -ENOMEM;

        if (x == 0)
                x = add_holder(r, holder);
        return x == 0 ? record_write(r, dir, RECORD, sync) : x;
}

/* A number that must be there; a record without it is not one of ours. */
static uint64_t get_number(const struct record *r, const char *key, bool *is_bad)
{
        const char *text = record_get(r, key);
        char *end = NULL;
        uint64_t value;

        errno = 0;
        value = text ? strtoull(text, &end, 10) : 0;
        if (!text || !*text || *end || errno)
                *is_bad = true;
        return value;
}

static int get_mounts(const struct record *r, struct plan *p)
{
        const char *host = NULL, *inside = NULL;
        int x = 0;

        for (size_t i = 0; x == 0 && i < record_count(r); i++) {
                const char *key, *value;

                record_at(r, i, &key, &value);
                if (strcmp(key, "mount.host") == 0)
                        host = value;
                else if (strcmp(key, "mount.inside") == 0)
                        inside = value;
                else if (strcmp(key, "mount.mode") == 0 && host && inside)
                        x = add_mount(p, host, inside, strcmp(value, "ro") == 0);
        }
        return x;
}

static int get_text(const struct record *r, const char *key, char *to, size_t size)
{
        const char *text = record_get(r, key);

        if (!text || strlen(text) >= size)
                return -EBADMSG;
        memcpy(to, text, strlen(text) + 1);
        return 0;
}

static int get_plan(const struct record *r, struct plan *p)
{
        const char *workdir = record_get(r, "workdir");
        bool is_bad = false;

        if (get_number(r, "version", &is_bad) != 1 || !workdir ||
            get_text(r, "name", p->name, sizeof(p->name)) < 0 ||
            get_text(r, "owner", p->owner, sizeof(p->owner)) < 0)
                return -EBADMSG;
        p->uid = (uid_t)get_number(r, "uid", &is_bad);
        p->gid = (gid_t)get_number(r, "gid", &is_bad);
        p->cpu_milli = (uint32_t)get_number(r, "cpu", &is_bad);
        p->memory = get_number(r, "memory", &is_bad);
        p->processes = get_number(r, "processes", &is_bad);
        p->is_isolated = get_number(r, "isolated", &is_bad) != 0;
        p->has_net = get_number(r, "net", &is_bad) != 0;
        p->is_readonly = get_number(r, "readonly", &is_bad) != 0;
        if (is_bad)
                return -EBADMSG;
        p->workdir = strdup(workdir);
        return p->workdir ? get_mounts(r, p) : -ENOMEM;
}

/* A holder of a former boot is none. */
static void get_holder(const struct record *r, struct holder_id *ret)
{
        const char *boot = record_get(r, "boot"), *paused = record_get(r, "paused");
        bool is_bad = false;
        char now[37];

        *ret = (struct holder_id){0};
        if (!boot || process_boot_id(now) < 0 || strcmp(boot, now) != 0)
                return;
        ret->pid = (pid_t)get_number(r, "holder_pid", &is_bad);
        ret->start_ticks = get_number(r, "holder_start", &is_bad);
        ret->is_paused = paused && strcmp(paused, "yes") == 0;
        if (is_bad || ret->pid <= 1)
                *ret = (struct holder_id){0};
}

int plan_load(int dir, struct plan *ret, struct holder_id *ret_holder)
{
        _cleanup_(record_freep) struct record *r = NULL;
        _cleanup_(plan_donep) struct plan p = {0};
        int x = record_read(dir, RECORD, &r);

        if (x == 0)
                x = get_plan(r, &p);
        if (x < 0)
                return x;
        get_holder(r, ret_holder);
        *ret = p;
        p = (struct plan){0};
        return 0;
}
