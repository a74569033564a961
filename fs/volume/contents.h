/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of regular files, for the content half of the cached volume only: contents.c (objects,
 * the bound on what is kept, the hooks of cached.h), content_version.c, content_restore.c (what an
 * earlier run left), fill.c (downloads), change.c (what is written), upload.c, send.c, prefetch.c,
 * cached_open.c, cached_read.c and cached_write.c (the operations of open files).
 *
 * Versions: a content is the bytes of one version of the sandbox's file (mtime and size; inode and
 *           ctime where both sides tell them), as far as they are `present`. When another version
 *           is met, all of it goes at once, and open handles go on with the new one. Attributes
 *           that are shown come from the same version.
 * Changes:  what is written makes it one of
 *
 *                CLEAN   the sandbox has all of it
 *                WHOLE   created, or emptied: all bytes are ours, and replace the file when complete
 *                PARTS   `parts.dirty` are ours, the others the sandbox's
 *
 *           and it is pinned until the sandbox has them. An upload takes over what is dirty as
 *           `sending`; what is written meanwhile is dirty anew. If nothing was, it is CLEAN when the
 *           answer comes, else PARTS of what the sandbox has then. If it fails, all is dirty again.
 * Waiting:  a network call is made with no lock; others that want the same bytes wait for `changed`.
 * Locks:    content.lock guards one, also across reads and writes of its file on the local disk;
 *           contents.lock the list of all. Neither is held while the other is taken, except
 *           content.lock before contents.lock. meta's lock is never taken under either.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/volume/cached.h"
#include "fs/volume/dirty.h"
#include "fs/volume/extents.h"
#include "fs/volume/spare.h"
#include "fs/volume/spool.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

struct workers;
struct prefetch;
struct temps;

#define CONTENT_SMALL SPOOL_SMALL /* files up to here are fetched whole */

enum content_kind { CONTENT_CLEAN, CONTENT_WHOLE, CONTENT_PARTS };

/* A part that is being downloaded. */
struct content_fetch {
        struct list of_content;
        uint64_t start, end;
        char *into; /* where the bytes go instead, as the disk has no room; NULL */
        size_t got; /* how many did */
};

struct content {
        struct content_head head; /* first */
        struct contents *s; /* fixed after init */

        atomic_uint refs;
        atomic_bool is_pinned; /* kind isn't CLEAN */
        atomic_uint handles; /* open ones; changed under lock */
        struct list of_all; /* guarded by s->lock, least recently used first */

        struct mutex lock;
        struct cond changed; /* a fetch, an upload, a hold or an opening has ended */

        /* guarded by lock */
        struct stat version GUARDED_BY(lock); /* of the sandbox's file, as it told */
        uint64_t own_ns GUARDED_BY(lock); /* when our last change of it was answered; 0: none */
        /* what was shown before it was sent, and stays shown with this version; 0: none */
        struct timespec own_ctim GUARDED_BY(lock);
        /* when the sandbox was last known to have this version (conflict.h); 0: it wasn't */
        uint64_t base_ns GUARDED_BY(lock), base_epoch GUARDED_BY(lock);
        uint64_t checked_epoch GUARDED_BY(lock); /* in which the version was seen to hold */
        uint64_t data_ns GUARDED_BY(lock); /* when the first of the bytes were asked for ... */
        uint64_t data_epoch GUARDED_BY(lock); /* ... and in which epoch */
        bool is_settled GUARDED_BY(lock); /* any change since then shows in the version */
        ino_t ino GUARDED_BY(
                lock); /* as shown outside: another one is another file; 0: not yet known */
        uint64_t stamp GUARDED_BY(lock); /* of the bytes, for the kernel's pages */
        unsigned generation GUARDED_BY(lock); /* rises when all bytes are replaced */
        unsigned opened_generation GUARDED_BY(lock); /* at the latest open */
        uint64_t opened_ns GUARDED_BY(lock); /* which was then */

        struct stat shown GUARDED_BY(lock); /* mode and times as this mount shows them */
        struct dirty_parts parts GUARDED_BY(lock); /* its size, and what is dirty */
        struct extents present GUARDED_BY(lock);
        struct extents sending GUARDED_BY(lock);
        struct blob *blob GUARDED_BY(lock); /* never NULL */
        /* all of an open small file that were dropped for a doubt, while nothing else is present; NULL */
        struct blob *doubted GUARDED_BY(lock);
        struct list fetches GUARDED_BY(lock);

        enum content_kind kind GUARDED_BY(lock);
        uint64_t record GUARDED_BY(lock); /* number of its record on disk; 0: none */
        uint64_t changes GUARDED_BY(lock); /* counts them */
        atomic_bool is_only_here; /* the sandbox has no file of its name; changed under lock or
                                     before its change leaves the journal */
        atomic_bool has_no_base; /* `version` isn't what the sandbox has at its path; as above */
        uint64_t parts_ns GUARDED_BY(lock); /* when it became PARTS */
        bool is_torn GUARDED_BY(lock); /* what is absent is of another version: not to be had */
        bool takes_all GUARDED_BY(lock); /* `retry`: our parts go into whatever is there */
        const char *news GUARDED_BY(lock); /* for people, once this upload is through; NULL */
        bool sets_mode GUARDED_BY(lock);
        bool has_own_mtime GUARDED_BY(lock); /* somebody set it since the last write */
        bool is_in_place GUARDED_BY(lock); /* no file may be made beside it, or it has more names */
        bool is_removed GUARDED_BY(lock);
        struct stat last GUARDED_BY(lock); /* its attributes then */

        bool is_uploading GUARDED_BY(lock);
        unsigned moves GUARDED_BY(lock); /* counts renames of it */
        unsigned held GUARDED_BY(lock); /* by renames and removals: no upload starts */
        unsigned writers GUARDED_BY(lock); /* handles that may write */
        int refused GUARDED_BY(lock); /* why the sandbox refused the last upload, told; 0 */

        struct box_file *remote GUARDED_BY(lock);
        unsigned remote_uses GUARDED_BY(lock);
        bool is_remote_lost GUARDED_BY(lock);
        ino_t remote_ino GUARDED_BY(lock); /* as told when it was opened; 0: not known */
        bool is_opening GUARDED_BY(lock);
        unsigned misses GUARDED_BY(lock); /* random reads that had to be fetched */
        /* when the handle there was last looked at and found to be of this version; 0: never */
        uint64_t seen_ns GUARDED_BY(lock), seen_epoch GUARDED_BY(lock);
        unsigned seen_generation GUARDED_BY(lock);

        uint64_t counted GUARDED_BY(lock); /* in s->dirty_bytes */
        bool is_counted GUARDED_BY(lock); /* in s->dirty_files */
};

struct contents {
        struct cached *c;
        struct spool spool; /* atomic */
        int dir; /* owned */
        struct workers *workers;
        struct prefetch *prefetch;
        struct journal *journal; /* own lock */
        struct temps *temps; /* of the sender */
        struct spares spares; /* own lock */

        atomic_uint_fast64_t dirty_files, dirty_bytes;
        atomic_uint_fast64_t told_ns; /* when `changed` was called last */
        atomic_uint_fast64_t round_trip_ns; /* of small calls, about; 0: none was made */
        atomic_bool is_ending;
        atomic_bool is_trimming;
        atomic_bool has_told_short; /* that the local disk is */
        bool is_stuck; /* a thread of ours never ended: nothing may be freed */
        atomic_bool has_whole_seconds; /* the service keeps no finer mtime */

        struct mutex lock;
        struct list all GUARDED_BY(lock);
        size_t count GUARDED_BY(lock);
        struct list calls GUARDED_BY(lock); /* of threads of ours, to cancel */
        bool is_sending GUARDED_BY(lock); /* the sender runs */
        bool is_send_due GUARDED_BY(lock); /* or will, by this number of the workers' */
        uint64_t send_id GUARDED_BY(lock);
};

/* An open handle. */
struct vol_file {
        struct node_open open; /* first */
        struct content *x;
        bool can_write;
        bool is_append;
        atomic_bool has_written; /* since the last flush */

        /* reading ahead; guarded by x->lock */
        uint64_t next; /* where a sequential reader goes on */
        uint64_t ahead; /* asked for up to here */
        uint64_t window; /* 0: not sequential */
};

/* A call of a thread of ours; ends early when the volume does. */
struct content_call {
        struct call call;
        struct list of_all;
};
void contents_begin_call(struct contents *s, struct content_call *cc);
void contents_end_call(struct contents *s, struct content_call *cc);

/* ---- contents.c ---- */

/* One for a file with these attributes, in the hands of the caller. NULL: out of memory. */
struct content *content_new(struct contents *s, const struct known *k);
/*
 * The node's, made if it has none, or one of a file that was replaced inside (open handles go on
 * with that): 0 or -errno.
 */
int contents_of_node(struct contents *s, uint64_t node, const struct known *k,
                     struct content **ret);
uint64_t content_record(struct content *x); /* of what waits to be sent; 0 */
bool content_is_whole(struct content *x); /* all its bytes are ours, under one name */
bool content_is_refused(struct content *x); /* and has not been written since */
void content_used(struct content *x); /* lately. No lock held */
void contents_trim(struct contents *s); /* drop what is over the bound. No lock held */
/*
 * The local disk had no room (`r`): drop all that the sandbox has and nobody reads just now. Whether
 * to try once more.
 */
bool content_make_room(struct content *x, int r) REQUIRES(x->lock); /* given up meanwhile */

bool contents_is_quiet(struct contents *s); /* nothing inside can change files; no lock held */
void content_tell_kernel(struct content *x) EXCLUDES(x->lock);
/* Forget bytes that the sandbox has. */
void content_forget_bytes(struct content *x) REQUIRES(x->lock);
void content_replace_blob(struct content *x, struct blob *blob) REQUIRES(x->lock); /* takes it */
/*
 * Bytes that were dropped only because they might be old: not needed any more, or the best there is,
 * as the file has lost its path before they were fetched again. False: there are none.
 */
void content_drop_doubted(struct content *x) REQUIRES(x->lock);
bool content_take_doubted(struct content *x) REQUIRES(x->lock);

/* Keep the numbers that stats shows; returns whether to call contents_tell without locks. */
bool content_account(struct content *x) REQUIRES(x->lock);
void contents_tell(struct contents *s); /* what has been sent may be dropped */

void content_lock(struct content *x) ACQUIRE(x->lock);
void content_unlock(struct content *x) RELEASE(x->lock);
/* Wait for `changed`, not for ever: 0, -EINTR or -ETIMEDOUT. */
int content_wait(struct content *x, struct call *call) REQUIRES(x->lock);

void contents_measured(struct contents *s, uint64_t span_ns); /* a small call took that */
bool contents_is_far(struct contents *s); /* the round trip is over 5 ms */

/* ---- content_version.c ---- */

/* Of a new file, or of one of whose bytes none are here any more. */
void content_take_version(struct content *x, const struct stat *st) REQUIRES(x->lock);
/*
 * What the sandbox says of the file now. Another version replaces what is here, unless all of it is
 * ours, or what waits is in conflict with it (conflict.h). True: it did, and the file is open:
 * content_tell_kernel. With k->sent_ns the bytes are also replaced if they are older and a change
 * could have left the version the same; 0 believes it.
 */
bool content_adopt(struct content *x, const struct known *k, bool is_quiet) REQUIRES(x->lock);
/* Another version is there, of which nothing is here; of PARTS ours go on top of it. */
void content_go_on_with(struct content *x, const struct stat *st) REQUIRES(x->lock);
/* Asked for before our last change was answered: may be of the file before it. Not to be adopted. */
bool content_is_outdated(const struct content *x, uint64_t sent_ns) REQUIRES(x->lock);
/* These attributes, as shown outside, are another file's, which took the place of this one. */
bool content_is_replaced(struct content *x, const struct stat *st) REQUIRES(x->lock);
/* The first bytes of a version come from a request of that time. */
void content_note_data(struct content *x, uint64_t sent_ns, uint64_t epoch) REQUIRES(x->lock);
/* The file is this version's from now on, by our own doing. */
void content_own_version(struct content *x, const struct stat *st) REQUIRES(x->lock);
/*
 * We have set attributes, and `change` tells what the file is now. Where another change may hide
 * behind ours it is taken for another version; true as content_adopt.
 */
bool content_own_attrs(struct content *x, const struct change *change, bool is_quiet)
        REQUIRES(x->lock);
void content_attrs_locked(struct content *x, struct stat *st) REQUIRES(x->lock);

/* ---- content_restore.c ---- */

int contents_restore(struct contents *s); /* before anything else is in the volume */

/* ---- fill.c ---- */

/*
 * See that [start, end), as far as the file goes, is present. The lock may be given up meanwhile:
 * look at the size again. `call` NULL: from memory only, -EINPROGRESS.
 */
int content_fill(struct content *x, struct call *call, uint64_t start, uint64_t end)
        REQUIRES(x->lock);
/* The same for all of it. */
int content_fill_all(struct content *x, struct call *call) REQUIRES(x->lock);
/* Up to `size` bytes, from what is present or fetched. Count or -errno. */
ssize_t content_read(struct content *x, struct call *call, void *data, size_t size, uint64_t offset)
        REQUIRES(x->lock);
/* Begin to fetch [start, end) on a thread of ours. */
void content_fill_later(struct content *x, uint64_t start, uint64_t end) REQUIRES(x->lock);
/* Have a handle there. */
int content_keep_remote(struct content *x, struct call *call) REQUIRES(x->lock);
/* What is at `path` now, which the next lookup finds (spare.h). Best effort. */
void contents_fetch_spare(struct contents *s, struct call *call, const char *path);
/* Its bytes outlive its name: they are here, or a handle there. */
int content_keep(struct content *x, struct call *call) REQUIRES(x->lock);
/* The remote handle isn't needed any more, if nobody reads from it. */
void content_let_remote_go(struct content *x) REQUIRES(x->lock);

/*
 * Fetch small files whole, which were claimed: `fetches` beside `xs`, all ended when it returns. The
 * call's error, or the first file's.
 */
int contents_fetch(struct contents *s, struct call *call, struct content **xs,
                   struct content_fetch *fetches, size_t count);
/* Whether it is a small file of which nothing is here or on its way; then it is, by `fetch`. */
bool content_claim(struct content *x, struct content_fetch *fetch) REQUIRES(x->lock);
void content_unclaim(struct content *x, struct content_fetch *fetch) REQUIRES(x->lock);

/*
 * ---- change.c: 0 or -errno; nothing is changed on failure. -ESTALE: it has no path any more ----
 */

/* It is empty now, and ours. `path`: of a file that has no entry yet, else NULL. */
int content_start_whole(struct content *x, const char *path) REQUIRES(x->lock);
int content_write(struct content *x, const void *data, size_t size, uint64_t offset)
        REQUIRES(x->lock);
int content_resize(struct content *x, uint64_t size) REQUIRES(x->lock);
int content_touch(struct content *x) REQUIRES(x->lock); /* as if bytes had changed */
int content_zero(struct content *x, uint64_t start, uint64_t end) REQUIRES(x->lock);
/* VOL_SET_MODE and times of a pinned or removed file. */
int content_set(struct content *x, unsigned what, const struct stat *to) REQUIRES(x->lock);
/* Its record anew: after a rename. */
int content_note(struct content *x) EXCLUDES(x->lock);
/* The sandbox has all of it, or nobody needs it any more: no record, not pinned. */
void content_unpin(struct content *x) REQUIRES(x->lock);

/* ---- send.c ---- */

/* What is dirty goes to the end of the journal; nothing if it is there already. */
int content_queue(struct content *x) EXCLUDES(x->lock);
/* And returns when it is in the sandbox, with all that was queued before. 0 or -errno. */
int content_upload(struct content *x, struct call *call) EXCLUDES(x->lock);
/* The same for all contents that have anything. */
int contents_queue_all(struct contents *s);
/* Those that have something to send, with a reference each; *ret to free. -ENOMEM. */
int contents_find_pinned(struct contents *s, struct content ***ret, size_t *ret_count);
#define SEND_RUN_MAX 512 /* changes that are on their way at once */
int send_new(struct contents *s); /* the journal and what sends it */

/* ---- refused.c ---- */

struct journal_refused_name;
/* From now on fs/ shows it as if the sandbox had carried it out, as far as that can be. */
void refused_show(struct cached *c, const struct journal_refused_name *name);
int refused_show_all(struct cached *c); /* of an earlier run. -ENOMEM */

/* ---- cached_open.c ---- */

/* -ESTALE for the open files of a sandbox that is gone. */
int cached_check_handle(struct volume *v);
/* After a command's end, what the sandbox has now. */
int cached_check_version(struct volume *v, struct vol_op *op, struct vol_file *f);
/* The content to open, of the version that the sandbox has now, with a reference. */
int cached_find_content(struct volume *v, struct vol_op *op, uint64_t node, struct content **ret);
/* Of a file that was removed, but is open: /proc/PID/fd leads there. NULL: there is none. */
struct content *cached_content_of_removed(struct volume *v, uint64_t node);

/* ---- prefetch.c ---- */

int prefetch_new(struct prefetch **ret);
void prefetch_free(struct prefetch *p); /* accepts NULL */
/* A small file of which nothing is here is opened for reading: fetch it, and its like. */
void prefetch_open(struct contents *s, struct content *x, uint64_t node) EXCLUDES(x->lock);
