/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that were changed inside while a change of ours waited: the last close wins, people are
 * told, and never is one version patched into another.
 *
 *      ours is        in the sandbox meanwhile        what becomes of it
 *      WHOLE          changed, or removed             replaced by ours, told
 *      PARTS, and
 *       all is here   changed, or removed             all of ours goes, told
 *       else          changed                         refused (-ESTALE): nothing is lost, nothing
 *                                                     is mixed. `retry` writes ours into it all the
 *                                                     same, `discard` drops ours
 *       else          removed                         refused (-ENOENT), as the write finds it
 *
 * Base:   what tells is the version (mtime and size) that our change was made to, `x->version`, with
 *         `base_ns`, when the sandbox was last seen to have it, or got it from us. What was seen
 *         less than attr_ttl ago is not looked at again, unless sending has failed before: an edit
 *         that is sent at once costs nothing, and two programs, one inside, that each change their own parts of a file in place, go on
 *         as on a disk. A file that only we have has no base.
 * Tries:  an upload whose answer never came may have got there: what the file is after it, is known
 *         (dirty_tries). One that went in place may have got there in part, and then looks like
 *         anybody's change of a like size: ours goes on in place, or whole where all is here.
 * Reads:  while it is in conflict only our version is read, and nothing is fetched into it.
 */
#pragma once

#include "fs/volume/contents.h"

struct box;
struct waiting;

/* What is at a file's path, asked for right before its change is sent. */
struct conflict_look {
        bool is_told; /* else nobody asked, or it can't be said */
        int error; /* -ENOENT: nothing; else 0 */
        struct stat st;
        uint64_t sent_ns, epoch;
};

/* Whether both are about the same content, as providers/files.h has it. */
bool conflict_is_same(const struct stat *a, const struct stat *b);

/**
 * Look at those of a run's files whose base was not seen lately, all at once.
 *
 * Shape:  *ret has `count`, to free; NULL: none was to be looked at.
 * Errors: of the call; -ENOMEM.
 */
int conflict_look(struct contents *s, struct box *box, struct call *call,
                  struct waiting *const *all, size_t count, struct conflict_look **ret);

/*
 * What is to become of a content that is about to be sent: 0 it goes as it is, 1 all of it goes, or
 * -ESTALE with a sentence in `sentence` (CONFLICT_SENTENCE bytes). x->news is for people once it is
 * in the sandbox.
 */
#define CONFLICT_SENTENCE 160
int conflict_settle(struct content *x, const struct conflict_look *look, char *sentence)
        REQUIRES(x->lock);

/* It was in the sandbox then, in this version. 0: not known when. */
void conflict_seen(struct content *x, const struct stat *st, uint64_t sent_ns, uint64_t epoch)
        REQUIRES(x->lock);
/*
 * Another version than PARTS' base was met: whether that stays the base (then is_torn says whether
 * bytes of it are wanted). False: ours can go on top of the new one.
 */
bool conflict_keeps_base(struct content *x, const struct stat *st) REQUIRES(x->lock);

/* A file all of which is ours has taken the name of another, which is known so: it is its base. */
void conflict_takes_name(struct content *x, struct content *over, const struct known *k)
        EXCLUDES(x->lock);
