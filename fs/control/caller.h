/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which program is asking: the kernel names the thread, files remember the thread group. Looking it
 * up reads /proc, so answers are kept for a moment.
 */
#pragma once

#include <sys/types.h>

struct callers;

struct callers *callers_new(void); /* NULL: out of memory */
void callers_free(struct callers *c);

/* The thread group of `tid`; `tid` itself when it can't be seen. From memory for 50 ms. */
pid_t callers_group(struct callers *c, pid_t tid);
