/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of sandboxes and of execs: [A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?
 */
#pragma once

#include <stdbool.h>

#define NAME_LENGTH_MAX 63
#define NAME_SIZE (NAME_LENGTH_MAX + 1)

bool name_is_valid(const char *name);

/* A name that is all digits; those are given by us to execs. */
bool name_is_number(const char *name);

/*
 * The word of `words` (NULL-terminated) that `word` most likely meant, or NULL: at most 2
 * insertions, deletions, substitutions or swaps of neighbours away, and fewer than half the length
 * of `word`. The first of equals.
 */
const char *name_nearest(const char *word, const char *const *words);
