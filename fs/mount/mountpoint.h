/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount point as the system sees it: what is mounted there, a dead predecessor cleared away,
 * and the unmount. Never opens or stats a path inside a mount of ours, nor the mount point itself
 * from a thread that anything waits for: a dead one would not answer.
 */
#pragma once

#include <stdbool.h>

struct call;

/* A FUSE mount of this program. */
struct mount_entry {
        unsigned major, minor; /* its device; minor names the kernel's connection */
};

/**
 * Find, in the text of /proc/self/mountinfo, what is mounted on `path`: the last one, on top.
 *
 * 1 found and it is an sbxfs; 0 nothing, or something else.
 */
int mountinfo_find(const char *text, const char *path, struct mount_entry *ret);

/* The same for the system as it is now; -errno when it can't be read. */
int mountpoint_find(const char *path, struct mount_entry *ret);

/**
 * Make sure that no dead sbxfs is mounted on `path`: its connection is aborted and it is detached.
 *
 * Errors: -EBUSY a living one is mounted there; -errno it can't be detached.
 */
int mountpoint_clear(const char *path, struct call *c);

/* Detach what is on `path`, if it is still `e`; open files keep it alive. 0 also when it isn't
 * there. Ends within a second. */
int mountpoint_detach(const char *path, const struct mount_entry *e);

/* Abort the kernel's connection: all that wait on it get an error. */
void mountpoint_abort(const struct mount_entry *e);

/* Let the kernel read ahead up to a megabyte; only root may. */
void mountpoint_set_readahead(const struct mount_entry *e);
