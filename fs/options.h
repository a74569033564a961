/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: sbxfs [-o opt,...] [-f] [-d] [SOURCE] MOUNTPOINT, as sshfs and mount(8) have
 * it. Parsing looks at nothing but its arguments; options_complete then fills in what depends on
 * the user and the system, and reads the configuration file.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "fs/config.h"
#include "fs/sandbox/fleet.h"

struct call;

struct options {
        /* What to do. */
        bool wants_help;
        bool wants_version;
        bool is_foreground; /* -f or -d */
        bool is_debug; /* -d */
        char *mountpoint; /* absolute and without links after options_complete */

        /* -o */
        char *provider; /* instance that mkdir uses; "local" */
        char *config_path; /* NULL: no configuration file */
        char *state_path; /* absolute after options_complete */
        char *debug_topics; /* comma-separated; NULL: none */
        char *uid_range; /* the local provider's; NULL: its default */
        enum on_unmount on_unmount;
        uint64_t drain_ns;
        uint64_t attr_timeout_ns;
        uint64_t output_cap; /* bytes a stream */
        unsigned allow; /* enum allow */
        unsigned max_sandboxes;
        bool has_raw_symlinks;
        bool is_readonly;
        bool is_sync; /* changes are in the sandbox when they are answered */
        bool allow_other;
        bool no_exec;
        uid_t uid; /* shown under fs/; (uid_t)-1: the mounter */
        gid_t gid; /* likewise */
        mode_t umask; /* bits taken away under fs/ */

        struct config config; /* the file's sections and what is built in; after options_complete */
};

void options_init(struct options *o);
void options_done(struct options *o);

/**
 * Parse the arguments of main.
 *
 * Errors: -EINVAL with one sentence; -ENOMEM. *o is to be given to options_done in all cases.
 * Threads: one at a time (getopt).
 */
int options_parse(struct options *o, int argc, char *const *argv, struct call *c);

/**
 * Paths, the user's defaults, and the configuration file.
 *
 * Errors: -EINVAL, -ENOTDIR and others with one sentence: the mount point is no directory, the
 *         state directory is inside of it, the configuration is wrong.
 */
int options_complete(struct options *o, struct call *c);

/* Read the configuration again, for `reload`: -EOPNOTSUPP when it says something else than at
 * the start. */
int options_reload(const struct options *o, struct call *c);

void options_print_help(FILE *to);

/* For options*.c: *to is freed, and then a copy. 0 or -ENOMEM. */
int options_set_text(char **to, const char *value, struct call *c);
