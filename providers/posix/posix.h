/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What providers/files.h asks of files, done to a directory of the machine that this runs on: by the
 * local provider, and by the agent inside of a sandbox (providers/agent/).
 *
 * Threads: any; a place is only read.
 * Errors:  -errno of the file, as files.h has them.
 */
#pragma once

#include <sys/types.h>

#include "providers/files.h"

struct place;

int posix_list(const struct place *p, struct call *c, const struct file_listing *what,
               struct file_list_sink *to);
int posix_stat(const struct place *p, const char *path, struct stat *ret);
int posix_readlink(const struct place *p, const char *path, char *ret, size_t size);

/*
 * A whole file, with the attributes that belong to it: how many bytes, or -EFBIG, with its
 * attributes, when it has more than size_max.
 */
ssize_t posix_read_whole(int fd, void *data, size_t size_max, struct stat *ret);

/* One change; its result is in it. -EINTR, -ETIMEDOUT: the call's end came first. */
int posix_apply(const struct place *p, struct call *c, struct change *x);
