/* SPDX-License-Identifier: Apache-2.0 */
/* base64, for keys and fingerprints. */
#pragma once

#include <stddef.h>

struct buf;

/* Append the text of `size` bytes, with its padding. 0, -ENOMEM, -E2BIG. */
int base64_encode(struct buf *to, const void *data, size_t size);

/* Append the bytes of a text; blanks and line ends are passed over. -EINVAL; -ENOMEM; -E2BIG. */
int base64_decode(struct buf *to, const char *text, size_t size);
