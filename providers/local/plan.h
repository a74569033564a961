/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sandbox of this machine is made of: its settings, checked, and who it runs as. Kept in the
 * record `box` of its directory, with the holder's identity; values of environment variables are
 * not in it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "transport/base/names.h"
#include "transport/base/record.h"

struct call;
struct mount_spec;
struct spec;

#define PLAN_WORKDIR "/workspace"

struct plan {
        char name[NAME_SIZE];
        char owner[32]; /* id of the state directory */
        uid_t uid; /* on the host */
        gid_t gid;
        bool is_isolated; /* false: isolation=none */
        bool has_net; /* net=host */
        bool is_readonly;
        char *workdir; /* inside */
        struct mount_spec *mounts;
        size_t mount_count;
        uint32_t cpu_milli; /* 0: no limit */
        uint64_t memory;
        uint64_t processes;
};

/* The holder that runs a sandbox; pid 0: none. */
struct holder_id {
        pid_t pid;
        uint64_t start_ticks;
        bool is_paused; /* a hint: the holder knows */
};

void plan_done(struct plan *p);

/**
 * Check the settings of a creation and take them over; uid and gid stay the caller's to set.
 *
 * Errors: -EINVAL, -EOPNOTSUPP can't be held here, -EPERM not in `allow` (enum allow), -ENOMEM.
 *         `cgroups` are the CGROUP_ bits that can be limited on this machine.
 */
int plan_from_spec(const struct spec *spec, unsigned allow, unsigned cgroups, struct call *c,
                   struct plan *ret);

/* `dir` is the sandbox's directory. The holder counts only in this boot of the machine. */
int plan_save(const struct plan *p, const struct holder_id *holder, int dir, enum record_sync sync);
/* -ENOENT, -EBADMSG, -ENOMEM. */
int plan_load(int dir, struct plan *ret, struct holder_id *ret_holder);
