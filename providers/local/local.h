/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local provider: sandboxes of this machine, made by bubblewrap, run by our own holder
 * (holder.h), with their files in a directory that fs/ shows directly.
 *
 *      STATE/<id>/           id is the key of the sandbox's spec; 0711 when root, else 0700
 *        box                 record: settings, uid, the holder (plan.h)
 *        workspace/          0700, owned by the sandbox's uid
 *        holder.sock         where the holder listens
 *      STATE/.half-<id>/     the same, not yet complete, or no longer: removed by whoever opens the
 *                            provider next
 *
 * Its parts: local.c (the table, the instance), box.c (a sandbox and its directory), life.c (its
 * holder's life), launch.c and bwrap.c (starting the holder), conn.c (frames to and from it),
 * exec.c (commands), plan.c, uids.c, cgroup.c, hub.c (the thread that waits for all of them),
 * files.c (the workspace as a provider's files, for local-cached).
 *
 * States of a box, as seen here:
 *
 *      starting -> running <-> paused          (pausing, resuming in between)
 *         '-> stopped <- stopping <-'          destroying -> gone
 *
 * Locks: one a box. It is held while a frame is put into the (non-blocking) socket, and across
 *        nothing else that waits; never while a sink or the listener is called.
 * Threads: what the holder says is read on the hub's thread only.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "providers/local/hub.h"
#include "providers/local/plan.h"
#include "providers/holder/proto.h"
#include "providers/provider.h"
#include "transport/base/buf.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

struct cgroups;
struct uids;

extern const struct provider_ops local_ops;
/* The same, but fs/ is served through the cached volume: for tests, and to compare. */
extern const struct provider_ops local_cached_ops;

struct local {
        struct provider base;
        /* fixed after open */
        struct hub *hub;
        struct uids *uids; /* NULL unless we are root */
        struct cgroups *cgroups;
        int dir; /* the state directory; borrowed from the config, as the texts are */
        const char *path;
        const char *owner;
        const char *helper_dir;
        struct provider_listener listener;
};

/* The connection to a holder. */
struct conn {
        struct hub_source source; /* fd -1: none */
        struct buf in; /* the beginning of a frame; hub only */
        struct buf out; /* guarded by the box's lock: what didn't fit into the socket */
        bool is_greeted; /* guarded by the box's lock: HELLO came */
};

struct local_box {
        struct box base;
        struct local *local;
        struct plan plan; /* fixed after init */
        atomic_bool is_quiet;

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        enum box_state state;
        bool is_changing; /* start, stop, pause, resume or destroy is at work; one at a time */
        bool is_expected; /* that one ends the holder: no news to anybody */
        bool has_freezer; /* paused by cgroup, not by signals */
        bool is_released; /* the hub touches nothing any more */
        char sentence[256]; /* why it is stopped by itself, or in error */
        struct holder_id holder;
        struct hub_source process; /* its pidfd; -1: no holder */
        bool is_settling; /* its end was seen, until process.fd is -1: no new connection */
        struct conn conn;
        uint64_t execs; /* EXEC frames sent on this connection */
        uint32_t seq; /* of the last request */
        struct list waits; /* struct wait */
        struct list execs_list; /* struct local_exec, until released */
};

struct local_exec {
        struct exec base;
        struct list link;
        uint64_t number;
        /* guarded by the box's lock */
        struct exec_sink *sink; /* NULL: nobody wants to know any more */
        bool is_calling; /* the hub is in the sink */
        bool is_ended;
        uint32_t attach_seq; /* of an ATTACH whose reply was not waited for */
        bool is_attached; /* not started by this connection: its first TAKEN tells where stdin is */
        uint64_t next[2]; /* offsets expected */
        uint64_t position, acked; /* of the holder's log */
        uint64_t stdin_sent, stdin_taken;
        bool stdin_is_last;
};

/* A request that waits for its REPLY; on the stack of the caller. */
struct wait {
        struct list link;
        uint32_t seq;
        bool is_done;
        int code; /* 0 or -errno */
        int64_t pid;
        char sentence[PROTO_SENTENCE_MAX + 1];
};

/* ---- launch.c ---- */

/* A holder that was started; its monitor is to be ended once it answers. */
struct launched {
        struct holder_id holder;
        int pidfd; /* the caller's */
        int monitor; /* pidfd of bwrap, a child of ours and leader of its group; -1: none */
        pid_t monitor_pid;
        int errors; /* what bwrap complained, a file */
};
int launch(struct local_box *b, int dir, struct call *c, struct launched *ret);
void launched_done(struct launched *l);
/* The monitor has ended: before the holder's answer, that means that there will be none. */
bool launch_is_over(const struct launched *l);
/* Why it ended before it answered: -errno with the sentence. */
int launch_explain(struct launched *l, struct call *c);
/* End bwrap's monitor: the holder doesn't need it. */
void launch_end_monitor(struct launched *l);
/* The K=V strings that each command gets, with those of `spec`. */
int launch_env(const struct local_box *b, const struct spec *spec, struct buf *to, uint32_t *count);

/* ---- conn.c ---- */

/* Connect, greet; answers come to the hub. -EHOSTDOWN: nobody listens any more. */
int conn_open(struct local_box *b, int dir, struct call *c);
void conn_close(struct local_box *b) EXCLUDES(b->lock);
void conn_drain(struct local_box *b); /* hub only: read what is left, to its end */
/*
 * Send a frame, with a descriptor (-1: none). -EHOSTDOWN no connection, -EAGAIN too much is queued,
 * -ENOMEM, -E2BIG.
 */
int conn_send_locked(struct local_box *b, const struct proto_msg *m, int fd) REQUIRES(b->lock);
/* The same for frames that are encoded already: all of them, or none. */
int conn_send_frames_locked(struct local_box *b, const struct buf *frames) REQUIRES(b->lock);
/* Add to those that wait for replies, before the request is sent; the seq is set. */
void wait_add_locked(struct local_box *b, struct wait *w) REQUIRES(b->lock);
/*
 * Until the reply, the deadline, cancel or the holder's end. 0: see w->code.
 * The wait is removed in any case.
 */
int wait_reply_locked(struct local_box *b, struct wait *w, struct call *c) REQUIRES(b->lock);
/* Wait on b->changed for at most a moment, then look at the call. 0, -EINTR, -ETIMEDOUT. */
int box_wait_locked(struct local_box *b, struct call *c) REQUIRES(b->lock);

/* ---- life.c ---- */

int local_start(struct box *b, struct call *c, const struct spec *spec);
int local_stop(struct box *b, struct call *c);
int local_pause(struct box *b, struct call *c);
int local_resume(struct box *b, struct call *c);
/* One change at a time: wait for the one that goes on. 0, -EINTR, -ETIMEDOUT. */
int life_begin_locked(struct local_box *b, struct call *c) REQUIRES(b->lock);
void life_end_locked(struct local_box *b, enum box_state state) REQUIRES(b->lock);
/* Start the holder and wait until it answers; on failure none is left. Between begin and end. */
int life_launch(struct local_box *b, struct call *c, const struct spec *spec);
/* Watch a holder that a former run of ours started. */
int life_adopt(struct local_box *b, int dir, int pidfd, const struct holder_id *holder,
               struct call *c);
/* Kill everything and wait until it is gone. Between begin and end. */
int life_kill(struct local_box *b, struct call *c);
bool life_has_ended(struct local_box *b); /* from memory and a look at the process */
/* The holder said HELLO; or its connection is over (NULL: just so): its end. Both on the hub. */
void life_greeted(struct local_box *b, bool is_paused);
void life_broken(struct local_box *b, const char *sentence);
#define LIFE_ENDED "the sandbox has ended by itself"

/* ---- box.c ---- */

struct local *local_of(struct provider *p);
struct local_box *local_box(struct box *b);
int local_create(struct provider *p, struct call *c, const struct spec *spec, struct box **ret);
int local_attach(struct provider *p, struct call *c, const char *id, const struct spec *spec,
                 struct box **ret);
void local_release(struct box *b);
int local_destroy(struct box *b, struct call *c);
int local_state(struct box *b, struct call *c, struct box_status *ret);
int local_root(struct box *b, struct call *c, struct box_root *ret);
bool local_is_quiet(const struct box *b);
int box_open_dir(const struct local *local, const char *id); /* a descriptor or -errno */
#define BOX_HALF ".half-"
bool box_has_limits(const struct plan *p);

/* ---- exec.c ---- */

int local_exec_start(struct box *b, struct call *c, const struct exec_req *in, struct exec_sink *to,
                     struct exec **ret);
int local_exec_attach(struct box *b, struct call *c, uint64_t number, const char *id,
                      const uint64_t have[2], struct exec_sink *to, struct exec **ret);
int local_exec_write(struct exec *base, struct call *c, const void *data, size_t size,
                     bool is_last);
int local_exec_signal(struct exec *base, struct call *c, int signal);
void local_exec_release(struct exec *base);
/* Frames of a command, on the hub. 0 or -EPROTO. */
int exec_on_output(struct local_box *b, const struct proto_msg *m);
int exec_on_taken(struct local_box *b, const struct proto_msg *m);
int exec_on_end(struct local_box *b, const struct proto_msg *m);
void exec_on_reply(struct local_box *b, const struct proto_msg *m); /* that nobody waits for */
void exec_ack_all(struct local_box *b); /* after a read: acknowledge what was handed on */
void exec_lose_all(struct local_box *b, const char *sentence); /* nobody can know how they end */
