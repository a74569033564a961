/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to an agent in a sandbox (serve.h): any number of threads share it, each blocks for
 * its own answer. What it offers is what providers/files.h asks of a provider.
 *
 *      struct agent *a;
 *      r = agent_new(&a);
 *      r = open the stream, with agent_events(a);
 *      r = agent_start(a, c, stream);
 *
 * Hostile: whatever comes that is not exactly an answer to a question of ours, or more than was
 *          asked for, ends the connection with -EPROTO.
 * Times:   c->deadline_ns moves: while bytes of the answer come, or bytes of ours are taken, to
 *          10 s after the last one.
 * Errors:  a connection that ended is -EHOSTUNREACH, with the stream's sentence.
 * Threads: everything from any thread, but never from a stream's event.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/files.h"
#include "transport/stream.h"

struct agent; /* counted */

int agent_new(struct agent **ret); /* 0, -ENOMEM */
struct agent *agent_ref(struct agent *a);
/* The last one closes the stream: never from one of its events. Accepts NULL. */
void agent_unref(struct agent *a);

/* What the stream is to be opened with. */
const struct stream_events *agent_events(struct agent *a);

/**
 * Greet the agent; waits for its answer.
 *
 * Owner:  takes ownership of `stream`, also on failure.
 * Errors: -ENOEXEC it is none of ours: it ended before it said anything, or what it said, which is
 *         the sentence then, is no greeting (a service's word why it can't be started comes so);
 *         -EHOSTUNREACH; -ETIMEDOUT; -EINTR.
 */
int agent_start(struct agent *a, struct call *c, struct stream *stream);

/* 0 while it lives; else why it ended. Never blocks. */
int agent_error(struct agent *a);

/* As box_list and so on; all in files.h's words. */
int agent_list(struct agent *a, struct call *c, const struct file_listing *what,
               struct file_list_sink *to);
int agent_stat(struct agent *a, struct call *c, const char *path, struct stat *ret);
int agent_readlink(struct agent *a, struct call *c, const char *path, char *ret, size_t size);
int agent_statfs(struct agent *a, struct call *c, struct statvfs *ret);
int agent_fetch(struct agent *a, struct call *c, const char *const *paths, size_t count,
                size_t size_max, struct file_sink *to);
int agent_apply(struct agent *a, struct call *c, struct change *changes, size_t count);

/* A regular file, open there. -EMFILE: the agent has no more handles. */
int agent_open(struct agent *a, struct call *c, const char *path, uint32_t *ret_handle,
               struct stat *ret_st);
/* Up to 16 MiB at once. `ret_st` may be NULL. */
ssize_t agent_read(struct agent *a, struct call *c, uint32_t handle, void *data, size_t size,
                   uint64_t offset, struct stat *ret_st);
void agent_close(struct agent *a, uint32_t handle); /* doesn't wait */
