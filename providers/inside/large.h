/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large content past the agent's stream, by the upload and the download that the service itself
 * has: they carry bytes as they are, over connections of their own. What is small, or named so that
 * a service may take it for another name, goes by the agent; and so does what was refused.
 *
 * Reading:  a window by the file's path; then the agent is asked whether that name is still the
 *           file that was opened, unchanged. If not, the window is nothing.
 * Storing:  the agent makes an empty file under the temporary name, as the sandbox's user; the
 *           service writes into it; the agent looks at its size, gives it mode and times, and the
 *           name. So the way there, its owner and its rights are what the agent would have made.
 *
 * Threads: any, everywhere.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "providers/inside/inside.h"

struct agent_pool;

struct large {
        struct box *box; /* fixed, as are: */
        const struct inside_ops *ops;
        struct agent_pool *agents;
        atomic_uint failures; /* refusals in a row */
        _Atomic(uint64_t) retry_ns; /* after too many of them: not before that */
};

bool large_is_on(struct large *l);
/* Whether a file that was opened so may be read by large_read. */
bool large_may_read(struct large *l, const char *path, const struct stat *st);
/*
 * As box_file_read of that file; *ret_st as it was opened. -EOPNOTSUPP: it is to be read by the
 * agent.
 */
ssize_t large_read(struct large *l, struct call *c, const char *path, const struct stat *opened,
                   void *data, size_t size, uint64_t offset);
/* As box_apply. */
int large_apply(struct large *l, struct call *c, struct change *changes, size_t count);
