/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The latest commands that were written to a ctl file and what became of them; a read of ctl shows
 * it. Has its own lock, a leaf.
 */
#pragma once

#include <stdint.h>

struct buf;
struct results;

#define RESULTS_KEPT 32

struct results *results_new(void); /* NULL: out of memory */
void results_free(struct results *r);

/*
 * A command was accepted. `command` is shown as it is (secrets already replaced); it is escaped and
 * cut here. Returns its number, from 1.
 */
uint64_t results_add(struct results *r, const char *value, const char *command);

/* What the command made: an exec's number or name. Ignored as in results_end. */
void results_name(struct results *r, uint64_t seq, const char *value);

/*
 * It was carried out (code 0) or failed (-errno, with a sentence). Numbers no longer kept are
 * ignored; a second end too.
 */
void results_end(struct results *r, uint64_t seq, int code, const char *sentence);

/*
 * "SEQ pending|ok|error VALUE COMMAND" a line; an error's line ends in " # ERRNO: sentence". 0 or
 * -ENOMEM.
 */
int results_print(struct results *r, struct buf *to);
