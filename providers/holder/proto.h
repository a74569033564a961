/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sbxfs and the holder (process 1 of a sandbox) say to each other over their Unix stream
 * socket: frames of a 32-bit size, a type byte and a body, all numbers little-endian. Encoding and
 * decoding only: no I/O, no state.
 *
 * The holder's side is hostile to us: a frame that is not exactly what it should be is -EPROTO, for
 * the whole connection.
 *
 *      sbxfs                                   holder
 *      GREET version                           HELLO version flags: first on each connection
 *      ENV                                     the sandbox's environment, once in its life
 *      EXEC (+ descriptor of its log, if any)  REPLY, then OUTPUT ..., END
 *      ATTACH                                  REPLY, TAKEN, then OUTPUT ..., END: all that was not
 *                                              acknowledged
 *      DETACH                                  go on without us
 *      ACK position                            output up to there may be forgotten
 *      FORGET                                  the end was seen
 *      STDIN offset bytes                      TAKEN total
 *      SIGNAL
 *      PAUSE, RESUME                           REPLY
 *      STOP grace                              all ends, the rest of output, and the holder's exit
 *                                              QUIET: the last process has gone
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

#define PROTO_VERSION 2
#define PROTO_FRAME_MAX (4u << 20) /* size field of frames to the holder */
#define PROTO_ANSWER_MAX (80u << 10) /* of frames from it */
#define PROTO_CHUNK_MAX (64u << 10) /* output or stdin bytes in one frame */
#define PROTO_SENTENCE_MAX 200u
#define PROTO_STRINGS_MAX 65536u /* arguments, or variables, of one command */

enum proto_type {
        PROTO_GREET = 1,
        PROTO_ENV,
        PROTO_EXEC,
        PROTO_ATTACH,
        PROTO_DETACH,
        PROTO_ACK,
        PROTO_FORGET,
        PROTO_STDIN,
        PROTO_SIGNAL,
        PROTO_PAUSE,
        PROTO_RESUME,
        PROTO_STOP,

        PROTO_HELLO = 65,
        PROTO_REPLY,
        PROTO_OUTPUT,
        PROTO_TAKEN,
        PROTO_END,
        PROTO_QUIET,
};

enum proto_end { PROTO_END_CODE, PROTO_END_SIGNAL, PROTO_END_TIMEOUT };

/* Strings, each with its NUL, one after the other. */
struct proto_strings {
        uint32_t count;
        const char *data;
        size_t size;
};

/*
 * How busy the sandbox is: `is_quiet` when no process but the holder exists, as seen after `execs`
 * EXEC frames of this connection. Later ones may have changed it.
 */
struct proto_quiet {
        bool is_quiet;
        uint64_t execs;
};

struct proto_msg {
        enum proto_type type;
        union {
                struct {
                        uint32_t version;
                } greet;
                struct proto_strings env; /* K=V */
                struct {
                        uint64_t number;
                        uint32_t seq; /* comes back in the REPLY; so for the others */
                        bool has_stdin;
                        uint64_t timeout_ns; /* 0: none */
                        struct proto_strings cwd; /* one, absolute */
                        struct proto_strings argv; /* at least one */
                        struct proto_strings env; /* K=V, over the sandbox's */
                        struct proto_strings user; /* one; "": the sandbox's own */
                } exec;
                struct {
                        uint64_t number;
                        uint32_t seq;
                } attach;
                struct {
                        uint64_t number;
                } detach, forget;
                struct {
                        uint64_t number;
                        uint64_t position; /* of an OUTPUT */
                } ack;
                struct {
                        uint64_t number;
                        uint64_t offset; /* of the first byte in all of stdin */
                        bool is_last;
                        const void *data;
                        size_t size;
                } input;
                struct {
                        uint64_t number;
                        uint32_t signal;
                } signal;
                struct {
                        uint32_t seq;
                        /* false: only time-outs stand still; the processes are held otherwise */
                        bool by_signal;
                } pause, resume;
                struct {
                        uint32_t grace_ms; /* between TERM and KILL */
                } stop;

                struct {
                        uint32_t version;
                        bool is_paused;
                        struct proto_quiet quiet;
                } hello;
                struct {
                        uint32_t seq;
                        uint32_t code; /* errno, 0: done */
                        int64_t pid; /* of a command, 0: none */
                        struct proto_quiet quiet;
                        struct proto_strings sentence; /* one; "" none */
                } reply;
                struct {
                        uint64_t number;
                        uint8_t stream; /* 0 or 1 */
                        uint64_t offset; /* in that stream; a gap: bytes were dropped */
                        /* acknowledge with this; rises with each OUTPUT of an exec */
                        uint64_t position;
                        const void *data;
                        size_t size;
                } output;
                struct {
                        uint64_t number;
                        uint64_t total;
                } taken;
                struct {
                        uint64_t number;
                        enum proto_end kind;
                        uint32_t value;
                        uint64_t total[2]; /* bytes that each stream ever gave */
                        struct proto_quiet quiet;
                } end;
                struct proto_quiet quiet;
        };
};

/* Append one frame. 0, -ENOMEM or -E2BIG (then nothing was appended). */
int proto_add(struct buf *to, const struct proto_msg *m);

/**
 * Decode the frame that `data` begins with.
 *
 * Shape:   `max` bounds the frame: PROTO_FRAME_MAX in the holder, PROTO_ANSWER_MAX in sbxfs.
 * Owner:   texts and bytes in *ret point into `data`.
 * Errors:  1 with *ret and *ret_used; 0 when more bytes are needed; -EPROTO: this is no frame.
 */
int proto_parse(const void *data, size_t size, size_t max, struct proto_msg *ret, size_t *ret_used);

/* Append a string to a list under construction. 0, -ENOMEM, -E2BIG. */
int proto_strings_add(struct buf *to, uint32_t *count, const char *text);

/* Walk: NULL at the end. Start with *cursor = 0. */
const char *proto_strings_next(const struct proto_strings *s, size_t *cursor);
