/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agents of one sandbox: one for what is small and waited for, some for content, started when
 * they are needed and again when they have died. Its functions are those of providers/files.h for
 * one sandbox.
 *
 * Threads: any, everywhere. One that starts an agent holds up those that want the same one.
 */
#pragma once

#include "providers/agent/agent.h"

struct agent_pool;

#define AGENT_POOL_MAX 3 /* agents of a pool, each of them a process without threads */

struct agent_opener {
        /*
         * Start an agent in the sandbox: agent_new, a stream, agent_start. Not from two threads at
         * once for one lane. `like`: another one of the sandbox, borrowed; may be NULL.
         */
        int (*open)(struct agent_opener *o, struct call *c, struct agent *like, struct agent **ret);
};

/* `opener` is kept until agent_pool_free. 0, -ENOMEM. */
int agent_pool_new(struct agent_opener *opener, struct agent_pool **ret);
/* No call is on its way, no file is open. Accepts NULL. */
void agent_pool_free(struct agent_pool *p);
/* Ends what is there; later calls start anew. */
void agent_pool_drop(struct agent_pool *p);

/* Start the one for what is small, if there is none. */
int agent_pool_warm(struct agent_pool *p, struct call *c);
int agent_pool_list(struct agent_pool *p, struct call *c, const struct file_listing *what,
                    struct file_list_sink *to);
int agent_pool_stat(struct agent_pool *p, struct call *c, const char *path, struct stat *ret);
int agent_pool_readlink(struct agent_pool *p, struct call *c, const char *path, char *ret,
                        size_t size);
int agent_pool_fetch(struct agent_pool *p, struct call *c, const char *const *paths, size_t count,
                     size_t size_max, struct file_sink *to);
int agent_pool_apply(struct agent_pool *p, struct call *c, struct change *changes, size_t count);
int agent_pool_statfs(struct agent_pool *p, struct call *c, struct statvfs *ret);

/* An open file. `ret` is the caller's storage. */
struct agent_file {
        struct agent_taken *taken; /* the file itself (direct.h); else NULL, and: */
        struct agent *agent; /* counted */
        uint32_t handle;
};
/* `reads_much`: through it, so that what is small doesn't wait. */
int agent_pool_open(struct agent_pool *p, struct call *c, const char *path, bool reads_much,
                    struct agent_file *ret, struct stat *ret_st);
/* -ESTALE: its agent has died. */
ssize_t agent_file_read(struct agent_file *f, struct call *c, void *data, size_t size,
                        uint64_t offset, struct stat *ret_st);
void agent_file_close(struct agent_file *f);
