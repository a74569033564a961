/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is agreed with the kernel at the start of a session. libfuse agrees on most of it; the rest,
 * which version 3.14 doesn't know, is added to its answer on the way out.
 */
#pragma once

struct fuse_conn_info;
struct fuse_session;
struct mount;

/* libfuse's init callback. */
void init_choose(void *userdata, struct fuse_conn_info *conn);

/* Put our hands on the session's reads and writes. After fuse_session_mount, before the first
 * request. 0 or -errno. */
int init_hook(struct fuse_session *fuse, struct mount *m);
