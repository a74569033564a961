/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as values of Kubernetes labels, which are of 63 letters, digits and "-_." at most and
 * begin and end with a letter or digit: "_" and what is no such character is _HH, cut in pieces,
 * an "x" around each. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct buf;

#define LABEL_MAX 63
#define LABEL_PIECES 16 /* of one text at most */

/* As a label may be. A key may have a DNS name and '/' before its own. "" is a value. */
bool label_is_value(const char *text);
bool label_is_key(const char *text);

/* All of the text, escaped, without the x's and not cut. 0, -ENOMEM, -E2BIG. */
int label_escape(struct buf *to, const char *text);
/* Piece `n` of what was escaped: its value, "" there is none. */
void label_piece(const char *escaped, size_t n, char ret[LABEL_MAX + 1]);
/* And back: all pieces in their order, then all of the text. -EINVAL; -ENOMEM; -E2BIG. */
int label_join(struct buf *escaped, const char *piece);
int label_unescape(struct buf *to, const char *escaped);
