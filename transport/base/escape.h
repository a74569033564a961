/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Foreign text (anything that a server, a program or a user wrote) made fit for one line: control
 * bytes (C0, DEL, C1 as UTF-8), the line separators U+2028 and U+2029, the backslash, and bytes
 * that are no valid UTF-8 become \xNN, so that nothing forges a line or reaches a terminal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct buf;

#define ESCAPE_LINE_MAX 1024 /* bytes of escaped text on one line; what is longer ends in "..." */

/* Append at most ESCAPE_LINE_MAX bytes of escaped text. 0, -ENOMEM or -E2BIG. */
int escape_line(struct buf *to, const char *text, size_t size);

/* The same into a fixed array; always NUL-terminated, never cut inside an escape. */
void escape_text(const char *text, size_t size, char *to, size_t to_size);

/*
 * escape_text for sentences that travel, of which parts are escaped already: each \xNN that
 * escape_text makes stays. Done twice, it is as done once. Not for what somebody unescapes: foreign
 * text that says \x1b by four characters looks the same.
 */
void escape_sentence(const char *text, size_t size, char *to, size_t to_size);

/* Length of the valid UTF-8 sequence at `text` (1-4), 0 when there is none. */
unsigned utf8_length(const char *text, size_t size);
