/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stream to the holder in a sandbox (holder/holder.h), and the commands that go over it, for
 * any service that can run our program there. It is made when somebody needs it, and again by the
 * service's keeper when it was lost while commands run: the holder keeps what they print, and both
 * sides count bytes, so nothing is lost or doubled.
 *
 * Threads: frames come on the thread of the stream; sinks are called there.
 * Locks:   its own is a leaf. It is held while a frame is put into the stream's queue (which
 *          never blocks), and never while a sink is called.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "providers/holder/proto.h"
#include "providers/inside/inside.h"
#include "providers/provider.h"
#include "transport/base/buf.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

struct stream;

struct talk {
        struct box *box; /* fixed */
        const struct inside_ops *ops; /* fixed */
        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct stream *stream; /* NULL: none; closed by whoever connects next, or frees us */
        uint64_t generation; /* of streams: a late event of a former one is nobody's */
        bool is_connecting; /* one at a time */
        bool is_greeted; /* HELLO came, and the stream has not ended */
        bool is_over; /* the stream has ended */
        bool is_wanted; /* connect though no command waits */
        bool is_paused; /* the holder was told so */
        uint32_t seq; /* of the last request */
        struct list waits; /* struct talk_wait */
        struct list execs; /* struct talk_exec, until released */
        uint64_t down_ns; /* since when the sandbox is known not to run; 0: it isn't */
        uint64_t retry_ns; /* no connecting before that */
        unsigned failures; /* in a row */
        char sentence[256]; /* why the last stream ended */
        struct buf in; /* the beginning of a frame */
};

struct talk_exec {
        struct exec base;
        struct talk *talk; /* fixed */
        struct list link;
        uint64_t number;
        /* guarded by the talk's lock */
        struct exec_sink *sink; /* NULL: nobody wants to know any more */
        bool is_calling; /* a thread is in the sink, this one: */
        pthread_t caller;
        bool is_ended;
        bool is_starting; /* its EXEC was not answered yet: who started it asks for it */
        uint32_t attach_seq; /* of an ATTACH whose reply nobody waits for; 0 none */
        bool is_attached; /* its first TAKEN tells where stdin is */
        uint64_t next[2]; /* offsets expected */
        uint64_t position, acked; /* of the holder's log */
        uint64_t stdin_sent, stdin_taken;
        bool stdin_is_last;
};

/* A request that waits for its REPLY; on the stack of the caller. */
struct talk_wait {
        struct list link;
        uint32_t seq;
        bool is_done;
        int code; /* 0 or -errno */
        int64_t pid;
        char sentence[PROTO_SENTENCE_MAX + 1];
};

struct talk *talk_new(struct box *b, const struct inside_ops *ops); /* NULL: out of memory */
void talk_free(struct talk *a); /* accepts NULL; no exec is left, nobody else uses it */

/* Connected, or why not; the caller's deadline holds. Also asks anew for all that run. */
int talk_connect(struct talk *a, struct call *c);
/* Soon, on the keeper's thread. */
void talk_wanted(struct talk *a);
/* What the sandbox is now: commands of one that is down have ended, those of one that is up wait. */
void talk_follow(struct talk *a, enum box_state state);
/* Tell the holder that time stands still, or goes on; nothing where there is no stream. */
void talk_pause(struct talk *a, bool is_paused);
/* The keeper's work; when to come again, NEVER_NS: when woken. */
uint64_t talk_tend(struct talk *a, struct call *c);

/* ---- commands: the table's exec_*, by exec.c ---- */

int talk_exec_start(struct talk *a, struct call *c, const struct exec_req *in, struct exec_sink *to,
                    struct exec **ret);
int talk_exec_attach(struct talk *a, struct call *c, uint64_t number, const uint64_t have[2],
                     struct exec_sink *to, struct exec **ret);
int talk_exec_write(struct exec *base, struct call *c, const void *data, size_t size, bool is_last);
int talk_exec_signal(struct exec *base, struct call *c, int signal);
void talk_exec_release(struct exec *base);
/* Whether any command runs. */
bool talk_is_busy(struct talk *a);

/* ---- for exec.c ---- */

/* -EHOSTDOWN no stream; -EAGAIN too much is queued; -ENOMEM, -E2BIG. */
int talk_send_locked(struct talk *a, const struct proto_msg *m) REQUIRES(a->lock);
int talk_send_frames_locked(struct talk *a, const struct buf *frames) REQUIRES(a->lock);
void talk_wait_add_locked(struct talk *a, struct talk_wait *w) REQUIRES(a->lock);
/*
 * Until the reply, the deadline, cancel, or the stream's end. 0: see w->code; -EHOSTDOWN the stream
 * has ended. The wait is removed in any case.
 */
int talk_wait_locked(struct talk *a, struct talk_wait *w, struct call *c) REQUIRES(a->lock);

/* Frames of commands, on the stream's thread. 0 or -EPROTO. */
int talk_exec_on_output(struct talk *a, const struct proto_msg *m);
int talk_exec_on_taken(struct talk *a, const struct proto_msg *m);
int talk_exec_on_end(struct talk *a, const struct proto_msg *m);
void talk_exec_on_reply(struct talk *a, const struct proto_msg *m); /* that nobody waits for */
void talk_exec_ack_all(struct talk *a);
/* A new stream: ask for all that run. */
void talk_exec_reattach_locked(struct talk *a) REQUIRES(a->lock);
/* Nobody can know how they end. */
void talk_exec_lose_all(struct talk *a, const char *sentence);
