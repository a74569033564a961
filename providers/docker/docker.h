/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The docker provider: containers of a Docker Engine (or Podman's compatible service), by its API
 * on a Unix socket or TCP. A sandbox is a container with our labels:
 *
 *      org.sbxfs.key, .name, .owner    whose it is; its container name is sbxfs-KEY
 *      org.sbxfs.workdir, .user        where fs/ is and as whom commands run
 *
 * Into each container goes, before it is started, a static program of ours (init.c), which needs
 * nothing of the image. It is process 1 there, keeps the container alive, and starts the commands
 * that it is asked for over a stream (one Docker exec, kept open): they cost no call of the
 * engine, outlive that stream, and keep their output until it was taken (holder.h).
 *
 *      /.sbxfs/init            the program, 0755
 *      /.sbxfs/sock            where process 1 listens
 *
 * Its parts: docker.c (the table, the instance), config.c (what the operator said), engine.c (its
 * API: requests, errors, versions), body.c (a spec as the engine's JSON), image.c (pulling), put.c
 * (our program), box.c and life.c (a sandbox), states.c (what the engine says of one), events.c
 * (news), program.c (a Docker exec as a stream), inside.c (commands and files, by providers/inside/).
 *
 * Threads: any, everywhere. The events of the engine come on a thread of their own; another, the
 *          keeper, connects to process 1 again where that was lost.
 * Locks:   the provider's, then a box's; none is held across I/O.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/provider.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/stream.h"

struct talk; /* inside/talk.h: the stream to process 1, and the commands */
struct inside_files;
struct inside_ops;
struct docker_engine; /* engine.h */

#define DOCKER_DIR "/.sbxfs" /* ours, in each container that we made */
#define DOCKER_INIT DOCKER_DIR "/init"
#define DOCKER_WORKDIR "/workspace" /* where nothing says another; never "/" */

extern const struct provider_ops docker_ops;

struct docker_provider {
        struct provider base;
        /* fixed after open */
        struct docker_engine *engine;
        const char *owner; /* borrowed from the config, as are: */
        const char *helper_dir;
        struct provider_listener listener;
        bool has_no_agent; /* files go by the shell of each container */
        bool has_direct; /* what serves files is on this machine: tried without the engine between */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct list boxes; /* struct docker_box */
        struct list creating; /* struct creating, box.c's */
        bool is_closing;
        struct call *listening; /* of the thread of events, while it waits for the engine */
        pthread_t keeper, events; /* fixed after open */
};

static inline struct docker_provider *docker_of(struct provider *p)
{
        return container_of(p, struct docker_provider, base);
}

/* ---- sandboxes ---- */

/* What never changes of a container. */
struct docker_facts {
        char container[72]; /* the engine's full id for it; the box's may be short, or a name */
        char *workdir; /* absolute: fs/, where commands start */
        char *user; /* as whom commands run, as the engine takes it: "1000:1000", "app"; "" root */
        bool has_init; /* ours runs as process 1: DOCKER_INIT is there */
};

struct docker_box {
        struct box base; /* its id is the container's */
        struct docker_provider *docker;
        char key[32]; /* "" when it was adopted */
        /* guarded by the provider's lock */
        struct list link;
        uint64_t due_ns; /* when the keeper looks after its talk; NEVER_NS */
        struct call *tending; /* the keeper's, while it does */
        bool is_released;

        struct mutex lock;
        struct cond changed;
        /* guarded by lock; from then on fixed: read it by docker_box_facts */
        struct docker_facts *facts; /* NULL until the engine was asked */
        /* guarded by lock */
        bool is_changing; /* start, stop, pause, resume or destroy is at work; one at a time */
        enum box_state state; /* as last seen or made */
        bool has_oom; /* the engine told of one since it was started */

        struct talk *talk; /* fixed after init, as is: */
        struct inside_files *files;
};

static inline struct docker_box *docker_box_of(struct box *b)
{
        return container_of(b, struct docker_box, base);
}

/*
 * What it is. Asks the engine the first time; from memory later. -ENODEV it isn't there any more
 * (positively); else as a request.
 */
int docker_box_facts(struct docker_box *b, struct call *c, const struct docker_facts **ret);
/* NULL while that isn't known. From memory. */
const struct docker_facts *docker_box_known_facts(struct docker_box *b);
/*
 * 0; -EHOSTDOWN with a sentence when it is stopped or paused; -ENODEV gone. From memory, once the
 * engine was asked; its events keep that fresh.
 */
int docker_box_check_runs(struct docker_box *b, struct call *c);
/* The keeper looks after its talk now. */
void docker_wake(struct docker_box *b);
/* A call found it missing, or not running: the next state call looks, and says so. */
void docker_box_missed(struct docker_box *b);

/**
 * Start a program in a running container (a Docker exec), with its input and both outputs as a
 * stream. Takes some 70 ms of the engine: for what is kept, or large.
 *
 * Shape:  argv ends with NULL; anybody who may ask the engine can read it: no secrets. argv[0] may
 *         be DOCKER_INIT where facts->has_init: it needs no shell, no library. Starts in the
 *         working directory. `user` as in docker_facts; NULL: the sandbox's own.
 * Owner:  *ret to stream_close, never from an event. The program's input ends then; nothing kills
 *         it, so it should end by itself at the end of its input.
 * Errors: -ENODEV, -EHOSTDOWN the container is gone or down; -ENOENT, -EACCES no such program; else
 *         as a request. A program that the engine can't start ends with code 126 or 127.
 */
int docker_open_program(struct docker_box *b, struct call *c, const char *const *argv,
                        const char *user, const struct stream_events *events, struct stream **ret);

/* ---- inside.c: what of the table is made of our program there ---- */

extern const struct inside_ops docker_inside;

int docker_exec_start(struct box *b, struct call *c, const struct exec_req *in,
                      struct exec_sink *to, struct exec **ret);
int docker_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                       const uint64_t have[2], struct exec_sink *to, struct exec **ret);

int docker_list_files(struct box *b, struct call *c, const struct file_listing *what,
                      struct file_list_sink *to);
int docker_stat(struct box *b, struct call *c, const char *path, struct stat *ret);
int docker_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size);
int docker_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
                 size_t size_max, struct file_sink *to);
int docker_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                     struct stat *ret_st);
int docker_apply(struct box *b, struct call *c, struct change *changes, size_t count);
int docker_statfs(struct box *b, struct call *c, struct statvfs *ret);
int docker_workdir(struct box *b, struct call *c, char *ret, size_t size);
