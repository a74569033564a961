/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All sandboxes of one mount, by name, and the providers they come from. Owns the state directory:
 *
 *      lock owner serial                       lock file (flock), owner id, the last serial given
 *      sandboxes/<key>/record                  one a sandbox, whole at every moment
 *      sandboxes/<key>/exec/<n>/...            record, cmd, stdin, stdout, stderr, output
 *      providers/<instance>/                   the provider's own
 *
 * Threads: any. Lock order: fleet, sandbox, task.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/sandbox/listener.h"
#include "fs/sandbox/sandbox.h"
#include "providers/provider.h"

struct fleet;
struct workers;

enum on_unmount { ON_UNMOUNT_KEEP, ON_UNMOUNT_PAUSE, ON_UNMOUNT_DESTROY };

/* One provider instance: an INI section, or a kind that is on by itself. */
struct fleet_section {
        const char *instance; /* section name */
        const char *kind; /* registry key */
        /* everything else of the section: settings that are defaults, and the provider's keys */
        const struct pair *pairs;
        size_t pair_count;
        unsigned allow; /* enum allow, from the section */
        const char *source; /* "FILE:LINE", NULL: built in */
};

/* What tests replace: where providers come from, how long things take. NULL and 0: the real. */
struct fleet_seams {
        const struct provider_ops *(*find)(const char *kind);
        int (*open)(const char *kind, const struct provider_config *config, struct call *c,
                    struct provider **ret);
        uint64_t destroy_retry_ns; /* the first pause; each is twice as long as the one before */
        unsigned destroy_tries; /* then it comes back as NAME.1 */
        uint64_t attach_retry_ns; /* likewise doubling, up to a minute */
        uint64_t kill_grace_ns; /* between TERM and KILL */
        uint64_t sync_delay_ns; /* from a command's end to its record being durable */
        uint64_t lost_grace_ns; /* from a sandbox found down to its commands being lost */
        uint64_t poll_fast_ns, poll_slow_ns; /* between two polls of a provider without news */
};

struct fleet_config {
        const char *state_path; /* absolute */
        const char *default_provider; /* an instance's name */
        const struct fleet_section *sections;
        size_t section_count;
        unsigned allow; /* from the command line: for every section */
        unsigned max_sandboxes;
        enum on_unmount on_unmount;
        uint64_t output_cap; /* bytes a stream; 64 MiB */
        const char *helper_dir;
        /* written into the lock file, so that a second mount can name the first */
        const char *mountpoint;
        /* mount options of a provider's own (uid-range), for every section that knows the key */
        const struct pair *provider_options;
        size_t provider_option_count;
        const struct fleet_seams *seams; /* NULL: the real ones */
};

/**
 * Open the state directory, its providers, and every sandbox that a former run left there;
 * background work begins.
 *
 * Owner:  config and listener are copied as needed (strings are duplicated).
 * Errors: -EBUSY another mount holds the state directory (the sentence names it); -EINVAL a section
 *         is wrong (the sentence names file and line); -EACCES others can write the directory;
 *         -errno of the file system.
 */
int fleet_open(const struct fleet_config *config, const struct listener *listener,
               struct workers *workers, struct call *c, struct fleet **ret);

/*
 * First half of an unmount: what was written is delivered and on_unmount carried out, bounded by
 * `deadline_ns`; running commands of kept sandboxes are let go of. False: a provider's thread still
 * tells something, and nothing that it may use must be freed.
 */
bool fleet_drain(struct fleet *f, uint64_t deadline_ns);
/*
 * Second half: everything is released, the lock given up. All references were given back, all
 * workers ended.
 */
void fleet_close(struct fleet *f);

/*
 * Both borrowed words as in `create NAME provider=P key=value...`. Local work only: the sandbox is
 * there, `creating`, when this returns.
 */
struct create_options {
        const char *name;
        const char *provider; /* instance; NULL: the default */
        const struct pair *settings;
        size_t setting_count;
};
/*
 * -EEXIST; -EINVAL name or setting; -EOPNOTSUPP, -EPERM as settings_check; -EDQUOT too many (with
 * `ahead` others in the same write); -ENOENT no such provider.
 */
int fleet_check_create(struct fleet *f, const struct create_options *o, unsigned ahead,
                       struct call *c);
int fleet_create(struct fleet *f, const struct create_options *o, uint64_t seq, struct call *c,
                 struct sandbox **ret);

/* adopt PROVIDER:ID [as NAME]. */
int fleet_check_adopt(struct fleet *f, const char *provider, const char *id, const char *name,
                      struct call *c);
void fleet_adopt(struct fleet *f, const char *provider, const char *id, const char *name,
                 uint64_t seq);
void fleet_refresh(struct fleet *f, uint64_t seq); /* polls everything */

struct sandbox *fleet_find(struct fleet *f, const char *name); /* a reference, or NULL */
/* likewise; also one being destroyed */
struct sandbox *fleet_by_serial(struct fleet *f, uint64_t serial);
/*
 * rmdir: -EBUSY while a command runs or it is foreign, -EPERM protected; else as `destroy`: the
 * name is free when it returns.
 */
int fleet_remove(struct fleet *f, const char *name, struct call *c);
/* -EEXIST, -EINVAL, -ENOENT */
int fleet_rename(struct fleet *f, const char *name, const char *new_name, struct call *c);

/*
 * Serials of all sandboxes that have a name, sorted by name: fills up to `count`, returns how many
 * there are.
 */
size_t fleet_list(struct fleet *f, uint64_t *serials, size_t count);
uint64_t fleet_generation(struct fleet *f); /* rises with every change of the root's status */
uint64_t fleet_names_real_ns(struct fleet *f); /* when the set of names last changed */
uint64_t fleet_changed_real_ns(struct fleet *f); /* of the root's status */
struct results *fleet_results(struct fleet *f); /* borrowed */

/* The lines of the root's status. 0 or -ENOMEM. */
int fleet_print_status(struct fleet *f, struct buf *to);
