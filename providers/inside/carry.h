/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program in a sandbox behind a terminal: where a service offers bytes both ways only as a shell
 * on a pseudo-terminal, that shell is told to become "sbxfs-init carry MARK", which makes the
 * terminal raw, prints the mark, and from then on carries a program's input, output and end in
 * frames: a letter, the payload's length in four bytes (most significant first), the payload.
 *
 *      to it       A   the program's words, each with a NUL behind it: once, first
 *                  I   input           F   no more input
 *                  C   so many bytes of output were taken (4 bytes): more may come
 *                  P   we are still here
 *      from it     O   stdout          E   stderr
 *                  X   its end: code or 255 (a byte), signal or 0 (a byte); nothing follows
 *
 * At most CARRY_WINDOW bytes of output are on their way: services drop who reads too slowly.
 * Who is silent for CARRY_SILENCE_S is gone: then the program is killed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

#define CARRY_HEADER 5
#define CARRY_PART ((size_t)32 << 10) /* a payload at most, but for the words: */
#define CARRY_WORDS ((size_t)1 << 20)
#define CARRY_WINDOW ((size_t)1 << 20)
#define CARRY_PING_S 40
#define CARRY_SILENCE_S 150
#define CARRY_NO_CODE 255
#define CARRY_MARK "\001sbxfs "

enum carry_type {
        CARRY_ARGV = 'A',
        CARRY_INPUT = 'I',
        CARRY_EOF = 'F',
        CARRY_CREDIT = 'C',
        CARRY_PING = 'P',
        CARRY_OUT = 'O',
        CARRY_ERR = 'E',
        CARRY_EXIT = 'X',
};

struct carry_frame {
        enum carry_type type;
        const char *data; /* borrowed */
        size_t size;
};

/* Append one frame. -ENOMEM, -E2BIG. */
int carry_add(struct buf *to, enum carry_type type, const void *data, size_t size);
/* Append bytes as so many frames as it takes. */
int carry_add_all(struct buf *to, enum carry_type type, const void *data, size_t size);
int carry_add_credit(struct buf *to, uint32_t size);
/* The words of a NULL-terminated list. */
int carry_add_argv(struct buf *to, const char *const *argv);

/*
 * The frame at the start of some bytes. 1: it is whole, `*ret_used` bytes with its header; 0: more
 * must come; -EPROTO. `is_to_it`: which of the two directions.
 */
int carry_parse(const char *data, size_t size, bool is_to_it, struct carry_frame *ret,
                size_t *ret_used);
/* Of a CARRY_CREDIT frame that carry_parse gave. */
uint32_t carry_credit(const struct carry_frame *f);

/* The program itself, on our standard input and output. */
int carry_main(const char *mark);
