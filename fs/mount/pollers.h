/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who sleeps in poll(2), select(2) or epoll on a file here: the kernel's poll handles by key. A
 * wake of the key notifies the kernel, which then asks again. One handle an open file, the latest.
 *
 * Threads: any. The notification neither blocks nor takes a lock of ours.
 */
#pragma once

#include <stdint.h>

struct file;
struct fuse_pollhandle;
struct pollers;
struct wakes;

int pollers_new(struct wakes *wakes, struct pollers **ret);
void pollers_free(struct pollers *p); /* accepts NULL; no operation runs any more */

/**
 * Remember that `file` is polled and waits for `key`.
 *
 * `seen` is wakes_now from before the tree was asked: a wake since then notifies at once.
 * Owner:  takes over `handle` in all cases.
 */
void pollers_add(struct pollers *p, const struct file *file, uint64_t key, uint64_t seen,
                 struct fuse_pollhandle *handle);

/* The file is being released. */
void pollers_forget(struct pollers *p, const struct file *file);

void pollers_wake(struct pollers *p, uint64_t key);
