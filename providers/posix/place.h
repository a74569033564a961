/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working directory of a sandbox as files of the machine that this runs on, for one call:
 * opened beneath, as transport/base/beneath.h says, by paths as providers/files.h has them.
 * Commands run there meanwhile and are hostile: nothing is followed, nothing blocks, what was
 * opened is looked at before it is used.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "transport/base/creds.h"

struct place {
        int root; /* O_PATH; the owner's to close */
        struct creds creds;
        bool is_inside; /* we run in the sandbox: its mounts are its own, and are entered */
};

/* Names of files that are on their way; they are in no listing. */
#define PLACE_TEMP ".sbxfs-"
bool place_is_temp(const char *name);

/*
 * beneath_open with the errors of a file system: -ENOTDIR where the way leads over something that
 * is no directory, or O_DIRECTORY asks for one.
 */
int place_open(const struct place *p, const char *path, int flags);
/* A regular file, and its attributes; -EINVAL when it is something else. */
int place_open_file(const struct place *p, const char *path, int flags, struct stat *ret);
/* The directory of `path`, and its last component within `path`. -EINVAL for "". */
int place_open_parent(const struct place *p, const char *path, const char **ret_name);

/* chmod of what a descriptor of any kind, O_PATH too, stands for. */
int place_chmod(int fd, mode_t mode);
