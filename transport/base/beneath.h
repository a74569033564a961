/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening beneath a directory that a hostile party writes in: no link is followed, no mount
 * crossed, no path too long.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/**
 * openat2 with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS and NO_XDEV.
 *
 * Shape:   `path` is relative and without "." and ".." components, or "." alone; a path longer than
 *          PATH_MAX is opened in steps. O_CLOEXEC and O_NOFOLLOW are added. With O_PATH a link as
 *          the last component is opened itself.
 * Returns: a descriptor.
 * Errors:  -ESTALE something on the way is no directory any more, or is a link or a mount point;
 *          else -errno.
 */
int beneath_open(int root, const char *path, size_t length, int flags, mode_t mode);

/*
 * The same across mount points, and also where the system has no openat2, or forbids it; never
 * makes a file.
 */
int beneath_open_across(int root, const char *path, size_t length, int flags);
