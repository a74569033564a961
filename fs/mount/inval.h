/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the kernel to forget what it has cached.
 *
 * A notification about a directory takes that directory's lock in the kernel, and one about pages
 * takes theirs. While a request that we haven't answered holds them, the notification would sleep
 * in the kernel, beyond kill -9. So parked requests put a hold on their nodes, and a notification
 * waits here until its node has none; other nodes' go on. After inval_close nothing waits and
 * nothing is sent.
 *
 * Threads: any, but inval_node and inval_entry never from one that serves a request.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct fuse_session;
struct inval;

int inval_new(struct inval **ret);
void inval_free(struct inval *i); /* accepts NULL; after inval_close returned true */

/* From now on there is somebody to tell; before, inval_* do nothing. */
void inval_open(struct inval *i, struct fuse_session *fuse);

/* A request on `node` is unanswered; holds count. 0 or -ENOMEM. */
int inval_hold(struct inval *i, uint64_t node);
void inval_release(struct inval *i, uint64_t node);

/* Both return when the kernel has done it, or the mount ends. Attributes alone never wait. */
void inval_node(struct inval *i, uint64_t node, bool attributes_only);
void inval_entry(struct inval *i, uint64_t parent, const char *name);

/* Let those who wait go. True when nobody is inside any more, by `deadline_ns` at the latest. */
bool inval_close(struct inval *i, uint64_t deadline_ns);
