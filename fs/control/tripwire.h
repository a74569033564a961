/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `rm -rf` must not eat a sandbox. Directories list `ctl` first, and it can't be unlinked: a
 * process that tried is refused every later unlink and rmdir in this mount for 60 s. A process is
 * its thread group and start time.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct tripwire;

struct tripwire *tripwire_new(void); /* NULL: out of memory */
void tripwire_free(struct tripwire *w);

/* `tid` tried to remove a control file. */
void tripwire_trip(struct tripwire *w, pid_t tid);

/*
 * Whether `tid` belongs to a process that did so in the last minute.
 * Costs nothing while nobody did.
 */
bool tripwire_holds(struct tripwire *w, pid_t tid);
