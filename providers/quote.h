/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only code that puts a value into a shell command. What it writes is one word for every POSIX
 * shell, whatever bytes the value holds; never for csh or fish: those are only given constants.
 */
#pragma once

#include <stddef.h>

struct buf;

/* Append 'value', with '\'' for its quotes. 0, -ENOMEM or -E2BIG. */
int quote_add(struct buf *to, const char *value);

/* Each of a NULL-terminated list, with blanks between. */
int quote_add_words(struct buf *to, const char *const *words);

/*
 * Append `text`, in which each %s is replaced by the next value, quoted, and %% is a '%':
 * quote_addf(b, "cd %s && rm -f %s\n", dir, name).
 */
int quote_addf(struct buf *to, const char *text, ...) __attribute__((format(printf, 2, 3)));
