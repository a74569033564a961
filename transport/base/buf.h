/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only growing buffer: always NUL-terminated once anything was added, length known, and a
 * maximum given at birth, so that nobody's input can fill memory. A buffer belongs to one thread at
 * a time.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

struct buf {
        char *data; /* NULL while nothing was ever added */
        size_t size; /* bytes in use, without the final NUL */
        size_t room; /* bytes allocated */
        size_t max; /* size never exceeds this */
};

#define BUF_INIT(max_size) ((struct buf){.max = (max_size)})

void buf_done(struct buf *b); /* frees; the buffer may be used again, with the same maximum */
void buf_wipe(struct buf *b); /* buf_done for secrets: overwrites the memory first */
void buf_clear(struct buf *b); /* size 0, memory kept */

/**
 * Append bytes, a string, one byte, or formatted text.
 *
 * Errors: -ENOMEM; -E2BIG when the maximum would be passed. On failure nothing was appended.
 */
int buf_add(struct buf *b, const void *data, size_t size);
int buf_add_str(struct buf *b, const char *text);
int buf_add_char(struct buf *b, char c);
int buf_addf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_addv(struct buf *b, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/*
 * Make room for `size` more bytes and return where they go, or NULL; add what was used with b->size
 * += n. The final NUL is back with the next call of any kind.
 */
char *buf_reserve(struct buf *b, size_t size);

/* Remove the first `size` bytes; there must be as many. */
void buf_drop(struct buf *b, size_t size);

/* The text, never NULL ("" while empty). Valid until the next change. */
const char *buf_str(const struct buf *b);

/*
 * Pass the memory to the caller (to free); an empty buffer gives an allocated "".
 * NULL when out of memory.
 */
char *buf_steal(struct buf *b);
