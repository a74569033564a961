/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a control file as one reader sees them. What `status` says changes all the time;
 * tools that stat a file and then read it (tar, rsync, git, Node, emacs) need both to agree. So a
 * stat freezes the bytes for 250 ms for its thread group, an open takes the frozen bytes over, and
 * while a thread group holds a file open, its stat gives the size of that handle.
 *
 * Threads: any; the table has a lock of its own, a leaf.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;
struct snapshots;

/* Bytes that never change; counted. */
struct snapshot {
        unsigned refs; /* guarded by atomics */
        size_t size;
        char data[];
};

struct snapshot *snapshot_new(const struct buf *text); /* NULL: out of memory */
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* accepts NULL */

#define SNAPSHOT_FREEZE_NS (250 * UINT64_C(1000000))

struct snapshots *snapshots_new(void);
void snapshots_free(struct snapshots *t);

/*
 * What a stat of `node` by `tgid` sees: the bytes that an earlier one froze, which then hold for
 * 250 ms from now. A reference; NULL: there are none, or they are 250 ms old and this is no part of
 * a look that began before (open(2) asks for the attributes once more); freeze what there is now.
 */
struct snapshot *snapshots_stat(struct snapshots *t, uint64_t node, pid_t tgid);

/* What an open gets: what a stat froze and still holds: a reference, or NULL. */
struct snapshot *snapshots_frozen(struct snapshots *t, uint64_t node, pid_t tgid);

/* Freeze for 250 ms from now, in place of what was frozen. Without memory nothing is frozen. */
void snapshots_freeze(struct snapshots *t, uint64_t node, pid_t tgid, struct snapshot *s);

/*
 * That group has written to a control file, or was told that a command ended: it must see what is
 * true now.
 */
void snapshots_drop(struct snapshots *t, pid_t tgid);
