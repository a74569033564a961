/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox whose files are a temporary directory, reached by the file calls of a provider only;
 * with faults, and a count of each call. Links in a path are followed as the disk does: the tests'
 * own paths have none.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/volume/volume.h"
#include "providers/provider.h"
#include "transport/base/lock.h"

enum fake_call {
        FAKE_LIST,
        FAKE_STAT,
        FAKE_READLINK,
        FAKE_FETCH,
        FAKE_OPEN,
        FAKE_READ,
        FAKE_APPLY,
        FAKE_STATFS,
        FAKE_CALLS,
};

struct fake_box {
        struct box box; /* first */
        struct provider provider;
        char path[64]; /* the real directory */
        int dir; /* of it */

        atomic_uint calls[FAKE_CALLS];
        atomic_uint changes; /* single ones, in all applies */
        atomic_uint files; /* single ones, in all fetches */
        atomic_uint listed_entries; /* in all listings */
        atomic_uint open_files; /* not yet closed */
        atomic_uint entered; /* volume_box.enter without leave */
        atomic_uint changed_events, failed_events, noticed_events;
        struct mutex lock;
        char last_failed[256] GUARDED_BY(lock); /* path, error and sentence */
        char last_noticed[256] GUARDED_BY(lock); /* path and sentence */

        /* Faults; set while no call is under way, or atomically. */
        atomic_uint delay_ms[FAKE_CALLS]; /* before its work is done; ends early when cancelled */
        atomic_uint delay_after_ms[FAKE_CALLS]; /* between the work and the answer */
        atomic_bool hangs[FAKE_CALLS]; /* until cancelled, or the deadline */
        atomic_int error[FAKE_CALLS]; /* of the call, -errno ... */
        atomic_uint error_at[FAKE_CALLS]; /* ... of the n-th from now on only, 0: of each */
        atomic_int change_error; /* of the change that this kind is of, in `change_error_kind` */
        atomic_int change_error_kind; /* enum change_kind */
        atomic_bool is_lost; /* apply: done, but its answer never comes (-EHOSTUNREACH) */
        atomic_int enter_error; /* of volume_box.enter */
        bool has_no_ino; /* st_ino, st_nlink, st_ctim and st_blocks are unknown */
        unsigned ahead_s; /* of its clock, as st_ctim shows it: files never seem to be settled */
        bool has_no_targets; /* listings don't tell them */
        bool has_no_links; /* CHANGE_LINK: -EOPNOTSUPP */
        const char *workdir; /* "/workspace"; NULL: -EINPROGRESS */

        /*
         * Called in each call, before its work and between the work and the answer. For races: may
         * change the real directory, or use the volume.
         */
        void (*hook)(struct fake_box *f, enum fake_call call, const char *path, bool is_after);
        /* Called at the start of each listing, to add what no directory could hold. */
        void (*add)(struct fake_box *f, const char *path, struct file_list_sink *to);
        void *ctx;
};

bool fake_box_init(struct fake_box *f); /* false: CHECK failed */
void fake_box_done(struct fake_box *f); /* also removes the directory */
/* For volume_cached_config. */
struct volume_box fake_box_volume(struct fake_box *f);
/* Forget all counts. */
void fake_box_zero(struct fake_box *f);
unsigned fake_box_calls(struct fake_box *f); /* of all kinds */
