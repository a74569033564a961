/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one sandbox: its state, the queue of what is still to be done with it, its commands,
 * its record on disk.
 *
 *      creating --> running <--> paused        (pausing, resuming in between)
 *         |          ^  |
 *         |   starting  stopping               start, stop, restart
 *         |          |  v
 *         |         stopped
 *         '--> error            destroying --> gone        unknown: three polls failed
 *
 * Commands are accepted in an instant (checked, queued) and carried out by workers, one after the
 * other for each sandbox; kill, eof, stdin and destroy don't wait in that queue. What fails later
 * is in `error`, in the results, and in the task's exit.
 *
 * Threads: any. Locks: one a sandbox, never held across I/O, a provider call or a listener's
 *          function. Reference-counted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/sandbox/task.h"
#include "providers/provider.h"

struct buf;
struct results;
struct sandbox;

enum env_state { ENV_NONE, ENV_SET, ENV_LOST };

/* All that `status` shows. Numbers 0 and texts "" are not known. Texts are escaped. */
struct sandbox_info {
        enum box_state state;
        char phase[64]; /* what goes on inside a state: "starting bwrap" */
        uint64_t since_real_ns; /* of this state */
        char name[NAME_SIZE];
        char provider[NAME_SIZE];
        char id[128];
        char provider_state[256];
        int reachable; /* 1 yes, 0 no, -1 not known */
        char image[1100];
        uint32_t cpu_milli;
        uint64_t memory, disk; /* bytes */
        uint64_t expires_real_ns;
        enum env_state env;
        bool has_task; /* the latest one; the next two are then valid */
        struct task_info task;
        unsigned running; /* tasks queued or running */
        uint64_t dirty_files, dirty_bytes;
        uint64_t unsent; /* changes of files that it refused */
        uint64_t unsent_real_ns; /* when that number last changed */
        uint64_t generation;
        uint64_t created_real_ns;
        uint64_t changed_real_ns; /* of the last change of anything shown here */
        uint64_t ready_ms; /* creation to first running; 0 not yet */
        char last_error[1100]; /* "" none */
        uint64_t error_real_ns; /* when last_error was said */
        bool is_protected;
        bool is_foreign; /* adopted from another owner id */
};

enum sandbox_verb {
        SANDBOX_START,
        SANDBOX_STOP,
        SANDBOX_RESTART,
        SANDBOX_PAUSE,
        SANDBOX_RESUME,
        SANDBOX_DESTROY,
        SANDBOX_REFRESH, /* poll the state now */
        SANDBOX_SYNC, /* deliver what was written */
        SANDBOX_RETRY, /* the same, and what was refused once more */
};

struct sandbox *sandbox_ref(struct sandbox *sb);
void sandbox_unref(struct sandbox *sb); /* accepts NULL */
void sandbox_freep(struct sandbox **sb);

/* fixed, from 1, unique in the state directory for ever: inode numbers are made of it */
uint64_t sandbox_serial(const struct sandbox *sb);
void sandbox_get(struct sandbox *sb, struct sandbox_info *ret);
void sandbox_get_name(struct sandbox *sb, char ret[NAME_SIZE]);
uint64_t sandbox_generation(struct sandbox *sb);
enum box_state sandbox_state(struct sandbox *sb);
struct results *sandbox_results(struct sandbox *sb); /* borrowed */

/* The sandbox is (again) used: extends its idle time-out. Cheap: at most one store. */
void sandbox_touch(struct sandbox *sb);

/* Somebody read status: poll more often for a minute. */
void sandbox_watched(struct sandbox *sb);

/* ---- files ---- */

/* Whether fs/ is a directory of this machine (sandbox_root), or the provider's own file calls
 * reach it (sandbox_files). */
bool sandbox_is_direct(const struct sandbox *sb);
/**
 * The real directory behind fs/: -EINPROGRESS while it is being created; -ENODEV gone or never made
 * (the sentence says why); -EOPNOTSUPP the provider isn't PROVIDER_DIRECT.
 */
int sandbox_root(struct sandbox *sb, struct call *c, struct box_root *ret);
/*
 * The box for file calls, borrowed: it stays as long as a reference of the sandbox is held. Errors
 * as above, and -EHOSTDOWN for a service whose files are out of reach while it is down.
 */
int sandbox_files(struct sandbox *sb, struct call *c, struct box **ret);
bool sandbox_is_quiet(struct sandbox *sb);
/* Where the volume keeps what outlives a mount: a directory below the sandbox's; to close. */
int sandbox_open_volume_dir(struct sandbox *sb);
/*
 * What the volume has not delivered yet, and what was refused, as status shows it. `turn` was taken
 * before the volume was asked: what was asked for earlier than what is known already is left aside.
 */
uint64_t sandbox_dirty_turn(struct sandbox *sb);
void sandbox_set_dirty(struct sandbox *sb, uint64_t turn, uint64_t files, uint64_t bytes,
                       uint64_t unsent);
/* See to it that it is delivered (listener.deliver). On a worker; 0, or -errno with a sentence. */
int sandbox_deliver(struct sandbox *sb, struct call *c);
/* 0: it refused nothing of that; else -errno, and the sentence that an exec ends with. */
int sandbox_check_unsent(struct sandbox *sb, struct call *c);

/**
 * Check, then accept: two steps, so that several lines of one write are refused together or
 * accepted together.
 *
 * Check:  -EOPNOTSUPP the provider lacks the verb; -EPERM protected; -EBUSY wrong state (being
 *         destroyed; starting what failed to be created); -EINVAL. `ahead` counts execs already
 *         checked in the same write (EAGAIN at 32 running).
 * Accept: never fails; what goes wrong is shown in results (seq), error and status.
 */
int sandbox_check(struct sandbox *sb, enum sandbox_verb verb, struct call *c);
void sandbox_do(struct sandbox *sb, enum sandbox_verb verb, uint64_t seq);
int sandbox_check_exec(struct sandbox *sb, const struct task_options *o, unsigned ahead,
                       struct call *c);
/*
 * Accepted: queued, and the latest. *ret is a reference; -ENOMEM and local disk errors (-ENOSPC)
 * are all that can fail.
 */
int sandbox_exec(struct sandbox *sb, const struct task_options *o, uint64_t seq, struct call *c,
                 struct task **ret);

/* -EINVAL out of the provider's bounds. 0: none */
int sandbox_set_timeout(struct sandbox *sb, uint64_t span_ns, struct call *c);
int sandbox_set_label(struct sandbox *sb, const char *key, const char *value, struct call *c);
int sandbox_protect(struct sandbox *sb, bool on, struct call *c);
/*
 * One KEY=VALUE for later execs, in memory only. Value NULL removes. -EINVAL bad key; -E2BIG over 1
 * MiB in all.
 */
int sandbox_set_env(struct sandbox *sb, const char *key, const char *value, struct call *c);

/* The last failure, as a sentence ("" none), escaped; `say` sets it and raises the generation. */
void sandbox_say_error(struct sandbox *sb, int code, const char *sentence);

/* ---- tasks ---- */

struct task *sandbox_latest(struct sandbox *sb); /* a reference, or NULL */
/* by name under exec/; a reference or NULL */
struct task *sandbox_find_task(struct sandbox *sb, const char *dir_name);
struct task *sandbox_task_by_number(struct sandbox *sb, uint64_t number); /* likewise */
/* mkdir exec/NAME: -EEXIST, -EINVAL name, -EAGAIN too many, -EBUSY wrong state. */
int sandbox_new_task(struct sandbox *sb, const char *name, struct call *c, struct task **ret);
/* rmdir exec/NAME: -EBUSY unless new or ended; -ENOENT. Its files go, open handles read on. */
int sandbox_remove_task(struct sandbox *sb, const char *dir_name, struct call *c);
/* Numbers of all tasks in order of creation: fills up to `count`, returns how many there are. */
size_t sandbox_list_tasks(struct sandbox *sb, uint64_t *numbers, size_t count);
uint64_t sandbox_tasks_real_ns(struct sandbox *sb); /* when the set of tasks last changed */
