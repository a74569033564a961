/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The output of one command, kept in the order in which it came until sbxfs has acknowledged it:
 * records in a file without a name. Nobody there: up to LOG_MAX bytes are kept, and of what comes
 * then the newest LOG_TAIL bytes, in memory; the rest is dropped, which shows as a gap in a
 * stream's offsets.
 *
 *      0 ... acked            forgotten; the file's space is given back
 *      acked ... sent         on its way
 *      sent ... written       to be sent
 *      tail                   goes behind `written` as soon as there is room again
 *
 * Threads: the holder has one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/base/buf.h"

#define LOG_MAX (64u << 20) /* unacknowledged bytes kept when nobody is there */
/* unacknowledged bytes at which the holder stops reading when somebody is */
#define LOG_BUSY (8u << 20)
#define LOG_TAIL (1u << 20)

struct holder_log {
        int fd; /* owned; -1: none */
        uint64_t base; /* position of the file's byte 0 */
        uint64_t acked;
        uint64_t punched;
        uint64_t sent;
        uint64_t written;
        struct buf tail; /* records */
};

struct log_record {
        uint8_t stream;
        uint64_t offset;
        const uint8_t *data;
        size_t size;
        uint64_t position; /* behind it */
};

/* A file without a name, in `dir` where that can be, else in memory; or -errno. */
int holder_log_file(const char *dir);

void holder_log_init(struct holder_log *l, int fd);
void holder_log_done(struct holder_log *l);

/* Keep at most PROTO_CHUNK_MAX bytes, or drop them when there is no room. */
void holder_log_add(struct holder_log *l, uint8_t stream, uint64_t offset, const void *data,
                    size_t size);

/* Bytes that wait for an acknowledgement. */
uint64_t holder_log_pending(const struct holder_log *l);

/*
 * The next record to send, in `scratch` of LOG_SCRATCH bytes. 1; 0: all is sent; or -errno: what
 * was not sent is lost.
 */
#define LOG_SCRATCH (16 + (64u << 10))
int holder_log_next(struct holder_log *l, uint8_t *scratch, struct log_record *ret);

/* All before `position` was handed on. False: it was never sent. */
bool holder_log_ack(struct holder_log *l, uint64_t position);

/* A new listener: send again all that is not acknowledged. */
void holder_log_rewind(struct holder_log *l);
