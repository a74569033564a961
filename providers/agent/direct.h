/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent whose process is on this machine: a socket taken out of it, so that no service stands
 * between. What comes is as hostile as over any stream; what has to be shown is that the process is
 * the agent, and that what is taken is nothing else's:
 *
 *      the number of the process comes from the service, and may be of another machine, or of one
 *      that has ended: what we find there must hand us bytes that only the agent was told;
 *      a socket of its own making has its number as the peer's, another program's hasn't;
 *      no file of the sandbox is opened, no namespace entered.
 *
 * Threads: any; of two at once for one agent, one may get -EOPNOTSUPP.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct agent;
struct call;

/**
 * Connect to the same agent once more, past its stream; then that one is of no use any more.
 *
 * Owner:  *ret to agent_unref; `a` stays the caller's.
 * Errors: -EOPNOTSUPP it can't be reached so (for want of a right, or it isn't here): `a` is as it
 *         was; else both are lost.
 */
int agent_go_direct(struct agent *a, struct call *c, pid_t pid, struct agent **ret);

/**
 * One more, beside one that went direct, which stays of use.
 *
 * Owner:  *ret to agent_unref.
 * Errors: -EOPNOTSUPP it didn't go direct, or nothing comes of it; as agent_start.
 */
int agent_split(struct agent *a, struct call *c, struct agent **ret);

/* A file that is read without the agent, for as long as that lives: then it holds up no unmount. */
struct agent_taken;

/**
 * As agent_open, of one that went direct: the file itself.
 *
 * Owner:  *ret to agent_taken_close.
 * Errors: -EOPNOTSUPP not so, but agent_open may do; as agent_open.
 */
int agent_take(struct agent *a, struct call *c, const char *path, struct agent_taken **ret,
               struct stat *ret_st);
/* As agent_read; -EHOSTUNREACH the agent has ended. */
ssize_t agent_taken_read(struct agent_taken *t, void *data, size_t size, uint64_t offset,
                         struct stat *ret_st);
void agent_taken_close(struct agent_taken *t);
