/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on a connection to an agent, for agent*.c only. Answers come on the stream's thread
 * and are put aside, whole frames, for the thread that waits; content of a READ goes where it
 * belongs at once.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "providers/agent/agent.h"
#include "providers/agent/wire.h"
#include "transport/base/buf.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

#define AGENT_SAID_MAX 256
#define AGENT_SEND_MAX ((size_t)512 * 1024) /* queued in the stream, before a sender waits */

struct agent {
        atomic_uint refs;
        struct stream_events events;
        struct stream *stream; /* fixed once started */
        /* of one that went direct (direct.h), fixed: */
        pid_t pid; /* else 0 */
        int process; /* a pidfd; else -1 */
        struct list taken; /* struct agent_taken; guarded by lock */

        struct mutex lock;
        /* guarded by lock */
        struct list ops; /* struct agent_op, oldest first */
        uint32_t last_id;
        int error; /* why it ended */
        uint64_t heard_ns; /* of the last byte of an answer, or of ours that was taken */
        bool is_greeted; /* it is ours; until then, what it said at first, for people: */
        char said[AGENT_SAID_MAX];
        size_t said_size;
        bool has_no_targets; /* they can't be had: it isn't tried again */
        struct stream_end end;
        /* of the frame that is coming; the stream's thread only, but for `target` */
        unsigned char head_bytes[WIRE_HEAD];
        size_t head_size;
        struct wire_head head;
        size_t left; /* of its payload */
        struct agent_op *target; /* guarded by lock; NULL: nobody waits for it any more */
};

/* agent_start of one that is ours already: -EPROTO what it says is no greeting. */
int agent_greet(struct agent *a, struct call *c, struct stream *stream);

/* One operation; on its caller's stack. */
struct agent_op {
        struct agent *agent;
        uint32_t id;
        struct call *call;
        struct list link;
        struct cond changed;
        /* guarded by the agent's lock */
        struct buf in; /* frames: heads and payloads */
        size_t whole; /* bytes of whole frames at its beginning */
        unsigned overtaken; /* by how many that began later and are over */
        unsigned char *data; /* of READ: where content goes */
        size_t data_size, data_got;
        /* its caller's: */
        struct buf frames; /* taken from `in` */
        size_t frames_at;
        size_t taken; /* bytes whose room the agent doesn't know of yet */
        bool is_over; /* the agent has nothing more to say of it */
};

void agent_op_begin(struct agent *a, struct agent_op *op, struct call *c);
/* Nothing comes to it any more; the agent is told if it had more to say. */
void agent_op_end(struct agent_op *op);

/* A frame of it: fill in between, then send. */
int agent_send(struct agent_op *op, struct buf *frames);
/* Until the stream has taken most of what is queued. */
int agent_wait_sent(struct agent_op *op);

/* The next frame, and its payload until the next call. Waits. */
int agent_next(struct agent_op *op, struct wire_head *head, struct wire_in *ret);
/* The same if there is one: 0 there is none. */
int agent_next_now(struct agent_op *op, struct wire_head *head, struct wire_in *ret);

/* The connection is of no use any more: what came can't be. Returns -EPROTO. */
int agent_is_wrong(struct agent_op *op, const char *what);

/* DONE, with an errno of one file: 0 and what follows in it, or -errno of that or of the call. */
int agent_take_done(struct agent_op *op, const struct wire_head *head, struct wire_in *in);

/*
 * direct.c's: the new file that TARGET has shown, to be written. -EOPNOTSUPP it can't be had, or
 * isn't one.
 */
int agent_take_target(struct agent *a, int number, uint64_t ino, int *ret);

/* direct.c's: it has ended, what was taken of it is read no more. */
void agent_let_go_locked(struct agent *a) REQUIRES(a->lock);
