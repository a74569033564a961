/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's operations. Each fills a request and has it run: one call of the tree, one reply.
 * Extended attributes, locks, ioctl and access are not there: the kernel asks once, is told ENOSYS
 * by libfuse, and never asks again.
 */
#pragma once

struct fuse_lowlevel_ops;

/* For fuse_session_new; the userdata is a struct mount. */
extern const struct fuse_lowlevel_ops mount_ops;
