/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain file helpers for our own state: whole reads and writes that survive EINTR and short counts,
 * directories made and removed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;

/* All of `size` bytes, or -errno. */
int file_write_all(int fd, const void *data, size_t size);
int file_pwrite_all(int fd, const void *data, size_t size, uint64_t offset);
/* As many as there are up to `size`: fewer only at the end of the file. Count or -errno. */
ssize_t file_pread_full(int fd, void *data, size_t size, uint64_t offset);

/*
 * Append a whole small file to `to`; on failure nothing was appended. `dir` may be AT_FDCWD; links
 * are followed.
 *
 * Errors: -E2BIG beyond the buffer's maximum; -EISDIR; -EINVAL any other that is no regular file
 *         (it never blocks on a FIFO); -errno.
 */
int file_read(int dir, const char *path, struct buf *to);

/* mkdir -p; directories that are made get `mode`, whatever the umask is. */
int file_make_dirs(const char *path, mode_t mode);

/**
 * Remove a directory tree (or a single file) below `dir`, never following a link, never leaving its
 * file system.
 *
 * Directories without permission bits are opened up first. Descriptors and stack are bounded: works
 * for any depth and size. Somebody who changes the tree meanwhile can't lead it outside; one who
 * keeps filling it makes it fail.
 * Shape:  the directory in which the last component of `name` stands may be reached through links,
 *         the rest not.
 * Errors: the first -errno met, what could be removed is gone; -EXDEV a mount point inside. 0 when
 *         it didn't exist.
 */
int file_remove_tree(int dir, const char *name);
