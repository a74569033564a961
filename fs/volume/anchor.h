/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbolic links never lead out: what readlink answers for the text that a link holds.
 *
 * The host's kernel resolves what is answered, starting in the link's directory. It is always
 *
 *      "../" repeated `ups` times, ups <= depth, then names without any ".."
 *
 * where `depth` is the number of components of the path of the link's directory, fs/ being 0.
 *
 * Why that never leaves fs/: a walk through the tree of fs/ stands in a directory of the kernel's
 * own tree. The walk leaves fs/ only by taking more ".." than the directory where it stands is
 * deep. It takes ".." only at the start of an answer, where it stands in the link's own directory,
 * whose depth is the `depth` above: directories are numbered by their path as the mount saw it, so
 * the kernel's tree and our table agree on it, whatever the sandbox moves inside; when it moves a
 * directory that a process outside holds, the directory keeps its place in both. Names lead down,
 * or to another link, for which the same holds at its own place. A ".." behind a name would break
 * this: "a/.." is not depth + 1 - 1 when `a` is a link to somewhere else, so with `a -> .` the text
 * "a/a/a/../../.." would climb three directories from fs/ itself. Hence such a pair is taken out
 * here, in the text, which is also what differs from a chroot: a link "a/../b" leads to b beside a,
 * also when `a` is a link. What the two trees don't agree on is a rename through the mount while it
 * is on its way: see climbs.h.
 */
#pragma once

#include <stddef.h>

/**
 * The target to answer for the link text `target`.
 *
 * Shape:   `inside` is the absolute path of fs/ as the sandbox sees it, "" when it has none. A text
 *          that is fine already comes back byte for byte.
 * Returns: the length of what is in `to`, without NUL; *ret_ups (may be NULL) the ".." it starts
 *          with.
 * Errors:  -ENAMETOOLONG when `size` doesn't hold it; -EINVAL for an empty text or `inside` that is
 *          not absolute.
 */
int anchor_target(const char *target, unsigned depth, const char *inside, char *to, size_t size,
                  unsigned *ret_ups);
