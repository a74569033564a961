/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of changes on disk: a file "journal" of records, appended before a change is answered.
 *
 * Record:  size and checksum, 4 bytes each, of what follows: a kind, numbers, two strings. What was
 *          only half written is at the end, and ends the reading. One append is one write(2), which
 *          kill -9 does not divide.
 * Kinds:   a change; the end of one; its refusal; the end of a content's record, whose file is
 *          removed after the append. Numbers rise for ever.
 * Size:    an empty queue empties the file; where most of a large one has ended it is written anew.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct journal_log;
struct waiting;

/* Takes nothing over: `dir` is borrowed. */
int journal_log_open(int dir, struct journal_log **ret);
void journal_log_close(struct journal_log *l); /* accepts NULL */

/* Records of one append. */
void journal_log_change(struct journal_log *l, const struct waiting *w);
void journal_log_end(struct journal_log *l, uint64_t seq);
void journal_log_refusal(struct journal_log *l, const struct waiting *w);
void journal_log_gone(struct journal_log *l, uint64_t record);
/* Carry it out. 0 or -errno (-ENOSPC): then none of them is there. */
int journal_log_append(struct journal_log *l);
/* Nothing waits: the file is emptied. */
void journal_log_clear(struct journal_log *l);
/* Whether it is worth writing it anew; between these two all that waits is given as a change. */
bool journal_log_is_long(const struct journal_log *l);
void journal_log_begin_anew(struct journal_log *l);
int journal_log_end_anew(struct journal_log *l);

/* What the file holds, oldest first. `change`: w is owned by the callee (waiting_free). */
struct journal_log_reader {
        int (*change)(struct journal_log_reader *to, struct waiting *w);
        void (*end)(struct journal_log_reader *to, uint64_t seq);
        void (*refusal)(struct journal_log_reader *to, uint64_t seq, int error,
                        const char *sentence);
        void (*gone)(struct journal_log_reader *to, uint64_t record);
};
int journal_log_read(struct journal_log *l, struct journal_log_reader *to);
bool journal_log_any(int dir);

void waiting_free(struct waiting *w); /* its strings too; accepts NULL */
