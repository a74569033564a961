/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Temporary names in the sandbox: files that are made whole under such a name and then get their
 * own. A change draws a number when it is queued, which its names come from and which is in the
 * log of the journal; so what a run of ours leaves that was killed, or lost its connection, is
 * known by its name to the next one, which removes it before it sends anything. Nobody else's is
 * ever looked at.
 *
 * Threads: the sender only; before there is one, who restores.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct box;
struct call;
struct temps;
struct waiting;

#define TEMP_NAME_SIZE 28 /* ".sbxfs-", 20 letters or digits (providers/files.h), NUL */

enum temp_use { TEMP_PROVIDER, TEMP_PIECES, TEMP_USES }; /* one name for each */

/* The name for a change with this number. False: it has none (0). */
bool temp_name(uint64_t number, enum temp_use use, char ret[TEMP_NAME_SIZE]);

int temps_new(struct temps **ret); /* -ENOMEM */
void temps_free(struct temps *t); /* accepts NULL */
/* This change was perhaps begun, and not ended. Out of memory: they stay. */
void temps_note(struct temps *t, const struct waiting *w);
/* Remove what was noted. 0: that was tried; else the call failed, and it is to be tried again. */
int temps_remove(struct temps *t, struct box *box, struct call *call);
