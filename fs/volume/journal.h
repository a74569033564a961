/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes that were answered and wait to be sent: one ordered queue a volume, on disk too.
 *
 *      journal.c         the queue, who waits for what, what was refused
 *      journal_plan.c    what cancels each other
 *      journal_run.c     runs of it, for the sender (send.c), and their answers
 *      journal_log.c     the queue on disk
 *      journal_load.c    and what an earlier run left there
 *
 * Order:    what is sent is always a prefix of the queue; a run is answered before the next goes.
 *           A rename shares a run with no other change of the names that it is about: it is the
 *           one change that may not simply be repeated when nobody knows whether it was done.
 * Folding:  a change that makes earlier ones pointless takes them out, unless they are on their
 *           way: the file of a removed name is not sent, one that was written under a temporary name
 *           goes to its last name at once, a name made and removed leaves nothing.
 * Asking:   nothing is asked of the sandbox about a path before what waits about it is there
 *           (journal_settle); an answer is never older than the changes that it shows.
 * Refused:  a change that the sandbox refuses leaves the queue for a list of its own, and holds up
 *           nothing else.
 * Locks:    one, a leaf but for the content hooks' atomics; held across appends to the local log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "providers/files.h"
#include "transport/base/call.h"
#include "transport/base/list.h"

struct cached;
struct content;
struct journal;
struct vol_unsent_sink;

/* A change that waits. */
struct waiting {
        struct list of_all;
        uint64_t seq; /* 0: not in the queue */
        enum change_kind
                kind; /* not LINK, not WRITE: what a STORE sends is for its content to say */
        char *path, *to; /* owned */
        uint32_t hash; /* of path */
        unsigned flags, what;
        mode_t mode;
        struct timespec atime, mtime;
        struct content *x; /* of a STORE, with a reference; NULL: an empty file is made */
        uint64_t record; /* of x, on disk */
        uint64_t number; /* of a STORE or MKDIR: random, for its temporary names; 0: none */
        uint64_t changes; /* of x, when it was queued */
        bool creates; /* the sandbox has nothing there */
        bool has_links; /* the file has other names, of which it says something, too */
        bool is_forced; /* a barrier sends what there is, though somebody is writing */
        bool is_sending;
        bool is_skipped; /* is_sending, but nothing of it goes */
        bool may_be_done; /* it was sent, and no answer came */
        bool is_again; /* x was refused before and counts no more: it is counted here */
        bool is_counted; /* among the refused, though it hasn't left the queue yet */
        bool is_victim; /* to be taken out by the change that is being added */
        int error; /* of a refused one */
        char *sentence; /* why; owned */
};

/* What the queue must know of a content; none may take its lock or the journal's. */
struct journal_hooks {
        struct content *(*ref)(struct content *x);
        void (*unref)(struct content *x); /* called without the journal's lock */
        struct waiting **(*slot)(struct content *x); /* where its queued change is noted */
        bool (*is_only_here)(const struct content *x);
        /* Its name is another: the sandbox has a file of that, not the one it is a version of. */
        void (*moved)(struct content *x, bool is_there);
};

/* What an op begins and ends with. */
struct journal_change {
        enum change_kind kind;
        const char *path, *to;
        unsigned flags, what;
        mode_t mode;
        struct timespec atime, mtime;
        struct content *x; /* borrowed: the content of path, if it has one */
        struct content *over; /* of a RENAME; borrowed: the content of `to`, if it has one */
        uint64_t record, changes; /* of x */
        uint64_t gone; /* record of a content that this makes pointless; 0: none */
        bool has_links; /* the file has other names: it takes nothing out */
        bool is_refused; /* x was, and has not been written since */
        bool is_whole; /* all of x is ours: it needs no earlier version there */
        bool is_forced;
        bool creates; /* nothing is at `path` (RENAME: at `to`), as this mount shows it */
};

int journal_new(int dir, const struct journal_hooks *hooks, struct journal **ret);
void journal_free(struct journal *j); /* accepts NULL */

/**
 * Queue a change, after what it cancels was taken out; it is on disk when this returns.
 *
 * Errors: -ENOSPC, -EIO of the local disk, -ENOMEM: nothing was done.
 */
int journal_add(struct journal *j, const struct journal_change *x);
uint64_t journal_seq(struct journal *j); /* of the latest change */
/* Whether this content's change is queued as it is now, or refused so; x->is_forced adds that. */
bool journal_has(struct journal *j, const struct journal_change *x);

/**
 * Wait until what waits about this path, or below or above it (NULL: about anything), is sent.
 *
 * Errors: -EINPROGRESS without `call`; -EINTR, -ETIMEDOUT; what the last attempt to send failed
 *         with, once one has failed since.
 */
int journal_settle(struct journal *j, struct call *call, const char *path);
bool journal_is_empty(struct journal *j); /* nothing waits */
/* How many wait that are no file's content, or whose content doesn't count itself. */
uint64_t journal_count_names(struct journal *j);
/* What waits of x is counted here, too: x itself doesn't any more. */
void journal_count_again(struct journal *j, struct content *x);
/* More waits than should: journal_make_room waits a while for there to be less. */
bool journal_is_full(struct journal *j);
void journal_make_room(struct journal *j, struct call *call);

/* ---- refused ones ---- */

uint64_t journal_count_refused(struct journal *j);
/* Why one was refused that is about this path or below; 0: none was. */
int journal_refusal(struct journal *j, const char *path);
void journal_refused(struct journal *j, struct vol_unsent_sink *to); /* `one`: under the lock */
/* Those that are no file's content, in their order, to journal_refused_free. -ENOMEM. */
struct journal_refused_name {
        enum change_kind kind;
        unsigned what;
        mode_t mode;
        char *path, *to;
};
int journal_refused_names(struct journal *j, struct journal_refused_name **ret, size_t *ret_count);
void journal_refused_free(struct journal_refused_name *names, size_t count);
/* The refusal of a change of names that is about this path, which is then forgotten; 0: none. */
int journal_take_refusal(struct journal *j, const char *path);
/* All of them, in their order, to the end of the queue. */
int journal_retry(struct journal *j);
/* Those about this path; *ret: one of them is this content's, with a reference, or NULL. -ENOENT. */
int journal_discard(struct journal *j, const char *path, struct content **ret);

/* ---- for the sender ---- */

/* How it is woken: after journal_add, and at once when somebody waits. Set before the first add. */
void journal_on_news(struct journal *j, void (*fn)(void *arg, bool at_once), void *arg);
/* When the next run is due (CLOCK_MONOTONIC): 0 nothing waits, 1 at once. */
uint64_t journal_due_ns(struct journal *j);
/**
 * The next run, marked as sending: up to `max` of the oldest, in order.
 *
 * Owner: borrowed until journal_answered for each and journal_run_done.
 */
size_t journal_take(struct journal *j, size_t max, struct waiting **ret);
/* The last of those that were taken are not sent in this run. */
void journal_give_back(struct journal *j, struct waiting *const *all, size_t count);
/*
 * There is nothing to send of this one: it leaves the queue when it is answered. False: a later
 * change needs the file there, so what there is has to go.
 */
bool journal_skip(struct journal *j, struct waiting *w);
/* Bytes were asked for by the call that sends: it goes on. */
void journal_note_progress(struct journal *j);
/*
 * What became of each: 0 it is there, or is not needed; -EINPROGRESS nobody knows, or it was not
 * sent: it stays where it is; else it is refused, with a sentence (NULL: none is known). On disk when
 * this returns.
 */
void journal_note_answers(struct journal *j, struct waiting *const *all, const int *errors,
                          size_t count, const char *const *sentences);
/* And then of each one: it leaves the queue, or is sent again. */
void journal_answered(struct journal *j, struct waiting *w, int error);
/* The run is over; `error`: of the call, passing. Wakes who waits. */
void journal_run_done(struct journal *j, int error);
/* Whether any waits that is about a file with several names. Walks the queue. */
bool journal_has_links(struct journal *j);
/* Whether a time is still to be set at this path, by a change before `seq` (0: by any). Walks. */
bool journal_sets_time(struct journal *j, const char *path, uint64_t seq);
/* Whether a later change that waits makes something at the path of this one. */
bool journal_is_made_later(struct journal *j, const struct waiting *w);
/* Whether a later change that waits, or goes with it, sets the mode at the path of this one. */
bool journal_sets_later(struct journal *j, const struct waiting *w);
/* Whether a later change that waits is about this path, or above or below it. */
bool journal_is_overtaken(struct journal *j, const struct waiting *w);

/* ---- of an earlier run ---- */

/*
 * What its log holds; then contents are found, and find_path says where they are. Records that ended
 * are removed. *ret_record: the highest that is named, 0 none.
 */
int journal_load(struct journal *j, uint64_t *ret_record);
/* Then: the oldest, which may have been on their way. `fn` is called under the lock. */
void journal_each_unsure(struct journal *j, size_t max,
                         void (*fn)(void *arg, const struct waiting *w), void *arg);
/*
 * Where the file is now whose record says `path`, after the change `seq`, once all changes that wait
 * are there; NULL: no memory.
 */
char *journal_find_path(struct journal *j, uint64_t record, const char *path, uint64_t seq);
/* Those with a content get it, and `changes`; those without one any more are dropped. */
struct journal_restore {
        struct content *(*find)(struct journal_restore *to, uint64_t record, int refused,
                                uint64_t *ret_changes); /* a reference */
};
void journal_attach(struct journal *j, struct journal_restore *to);
bool journal_any(int dir);
