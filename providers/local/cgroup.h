/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on a whole sandbox: cgroup v2, or the v1 hierarchies of the controllers that v2 doesn't
 * have here, as found in this machine's mounts. Each sandbox that needs any has the group
 * sbxfs/<key> in each hierarchy that is used.
 *
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct call;
struct cgroups;

enum cgroup_kind {
        CGROUP_CPU = 1 << 0,
        CGROUP_MEMORY = 1 << 1,
        CGROUP_PIDS = 1 << 2,
        CGROUP_FREEZER = 1 << 3
};
#define CGROUP_KINDS 4

struct cgroup_limits {
        uint32_t cpu_milli; /* 0: none; so for the others */
        uint64_t memory; /* bytes, swap included */
        uint64_t processes;
};

/* Where the hierarchies are mounted; "" where one isn't. */
struct cgroup_mounts {
        char v2[256];
        char v1[CGROUP_KINDS][256]; /* by bit number of enum cgroup_kind */
};

/* From the text of /proc/self/mountinfo. Pure. */
void cgroup_find(const char *mountinfo, struct cgroup_mounts *ret);

/* NULL: look at this machine */
int cgroups_new(const struct cgroup_mounts *mounts, struct cgroups **ret);
void cgroups_free(struct cgroups *g); /* accepts NULL */

/* enum cgroup_kind bits that work here. Looked up by trying, once. */
unsigned cgroups_can(struct cgroups *g);

/* Make the sandbox's group anew with these limits and put a process into it. */
int cgroup_enter(struct cgroups *g, const char *key, const struct cgroup_limits *limits, pid_t pid,
                 struct call *c);

/* Whether the sandbox has a group that can be frozen; freeze and thaw it, and wait: 0 or -errno. */
bool cgroup_has_freezer(struct cgroups *g, const char *key);
bool cgroup_is_frozen(struct cgroups *g, const char *key);
int cgroup_freeze(struct cgroups *g, const char *key, bool frozen);

/* All its processes have ended. What isn't there is fine. */
void cgroup_remove(struct cgroups *g, const char *key);
