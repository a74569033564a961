/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sandbox refused of the changes under fs/: the file `unsent`, the end of a command that
 * would not see them, and `discard`. All from memory, by any thread without locks. A volume may be
 * NULL, or one that never refuses anything later.
 */
#pragma once

#include <stdbool.h>

struct buf;
struct call;
struct volume;

/*
 * A line for each, oldest first: its path, escaped but never cut, `: ` and the reason. 0 or
 * -ENOMEM.
 */
int unsent_print(struct volume *v, struct buf *to);

/* The errno's text and the sentence, as far as they differ. */
int unsent_reason(struct buf *to, int error, const char *sentence);

/* 0: there is nothing; else the first one's errno, and a sentence that names it and what helps. */
int unsent_check(struct volume *v, struct call *c);

/**
 * Give up what was refused of one path, relative to fs/ or with `fs/` before it, as it is or as
 * `unsent` shows it.
 *
 * Errors: -ENOENT nothing of this path is unsent. With `only_check` nothing is done.
 */
int unsent_discard(struct volume *v, const char *said, bool only_check, struct call *c);
