/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder know of a connection.
 *
 *      NEW -> GREETING (INIT sent) -> READY -> DEAD; from any of them to DEAD, for good
 *
 * Locks:   the connection's, then a queue's, then the stream's own. The connection's is held while
 *          bytes are given to the stream, so that what was put in line first is sent first, and
 *          while a chunk that came is read: an operation is then either in line, in flight or has
 *          ended, for all who hold the lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/buf.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/sftp/sftp.h"
#include "transport/sftp/wire.h"

#define METADATA_MAX 1024 /* operations in flight */
#define BULK_MAX 1024 /* likewise */
#define BULK_BYTES_MAX (2u * 1024 * 1024) /* of reads and writes in flight */
#define PIECE_MIN (16u * 1024)
#define PIECE_USUAL (32u * 1024) /* of a server that doesn't tell */
#define NOT_SENT UINT64_MAX /* as sftp_op.sent_at */
#define SLOT_BITS 11
#define SLOTS (1u << SLOT_BITS) /* as many as may be in flight in all */

_Static_assert(METADATA_MAX + BULK_MAX <= SLOTS, "each operation in flight has a slot");

enum sftp_life { LIFE_NEW, LIFE_GREETING, LIFE_READY, LIFE_DEAD };

/* One request whose answer hasn't come. Its number is `id`: the slot's, and how often it was used. */
struct slot {
        uint32_t id;
        bool is_used, is_bulk;
        unsigned type; /* enum sftp_type, WIRE_LIMITS */
        uint32_t cost; /* bytes of BULK_BYTES_MAX */
        struct sftp_op *op; /* NULL: nobody waits for it any more, or ever did */
};

enum line { LINE_METADATA, LINE_BULK, LINES };

struct sftp {
        /* fixed after init */
        atomic_uint refs;
        struct stream_events events;

        /* fixed once started */
        bool is_ordered;
        unsigned features;

        atomic_ullong heard_ns;
        atomic_ullong answers; /* how many came */

        struct mutex lock;
        struct cond changed; /* of life */
        /* guarded by lock */
        enum sftp_life life;
        struct stream *stream; /* fixed once GREETING */
        int error; /* of DEAD */
        char sentence[256];
        char said[200]; /* the last of standard error */
        uint32_t piece_max;
        uint64_t handles_max; /* 0: not told */
        struct wire_in in;
        struct buf out;
        struct list lines[LINES]; /* sftp_op.link */
        unsigned in_flight[LINES];
        uint32_t bulk_bytes;
        struct list ended; /* sftp_op.link: to be given to their queues */
        struct slot slots[SLOTS];
        uint16_t free_slots[SLOTS];
        unsigned free_count;
};

/* engine.c */
/* Put an operation in line, or end it when it can't be; owned by us if it has no queue. */
void engine_add_locked(struct sftp *s, struct sftp_op *op) REQUIRES(s->lock);
/* Send what may be sent now, and give out what has ended. */
void engine_run_locked(struct sftp *s) REQUIRES(s->lock);
/* Take an answer: 0 or -EPROTO, -ENOMEM. */
int engine_answer_locked(struct sftp *s, const unsigned char *packet, size_t size)
        REQUIRES(s->lock);
/* Nobody wants the operation any more: it isn't touched after this. */
void engine_forget_locked(struct sftp *s, struct sftp_op *op) REQUIRES(s->lock);
/* Ask for the server's limits; the answer changes piece_max. */
int engine_ask_limits_locked(struct sftp *s) REQUIRES(s->lock);
/* End the connection and all that waits; the first reason counts. */
void engine_fail_locked(struct sftp *s, int error, const char *format, ...) REQUIRES(s->lock)
        __attribute__((format(printf, 3, 4)));

/* queue.c */
/* Why an operation is lost: the connection's error and sentence, into the call. */
int queue_lost(struct sftp *s, struct call *c);
