/* SPDX-License-Identifier: Apache-2.0 */
/* What an answer says of one entry: attributes, which file it is, a link's text, absence. */

#include "fs/volume/meta_tree.h"

#include <stdlib.h>
#include <string.h>

#include "transport/base/clock.h"

#define NEAR_NS (2 * (int64_t)NS_PER_S)

/* ---- attributes ---- */

bool tree_is_shown(const struct stat *st)
{
        mode_t kind = st->st_mode & S_IFMT;

        return kind == S_IFREG || kind == S_IFDIR || kind == S_IFLNK || kind == S_IFIFO ||
               kind == S_IFSOCK;
}

static uint32_t nsec_of(const struct timespec *t)
{
        return t->tv_nsec >= 0 && t->tv_nsec < (long)NS_PER_S ? (uint32_t)t->tv_nsec : 0;
}

static bool is_told_again(const struct entry *e, const struct stat *st)
{
        uint32_t ns = nsec_of(&st->st_mtim);

        return e->told_seconds == (uint32_t)st->st_mtim.tv_sec &&
               (e->told_ns == ns || e->told_ns == 0 || ns == 0);
}

/* After a command's end: what lies before our time by no more than clocks and rounding make. */
static bool is_near(const struct entry *e, const struct stat *st)
{
        int64_t behind_ns = (e->mtime - st->st_mtim.tv_sec) * (int64_t)NS_PER_S + e->mtime_ns -
                            nsec_of(&st->st_mtim);

        return behind_ns >= 0 && behind_ns <= NEAR_NS;
}

/*
 * The times of a directory in which we have changed something, and of what we made where only
 * seconds are told, are ours, by our clock, until those that the sandbox tells move on from what
 * they were after that change. What was told while a command ran may already be of its doing: after
 * its end they are ours only where the sandbox's are no later.
 */
static bool keeps_times(struct entry *e, const struct meta_source *source, const struct stat *st)
{
        bool keeps = !S_ISREG(st->st_mode) && (e->flags & TIMES_OURS) != 0;

        if (keeps && (e->flags & TIMES_OPEN) == 0)
                keeps = is_told_again(e, st);
        if (keeps && e->times_epoch != (uint32_t)source->epoch)
                keeps = is_near(e, st);
        e->flags &= (uint8_t) ~(keeps ? TIMES_OPEN : TIMES_OPEN | TIMES_OURS);
        e->told_seconds = (uint32_t)st->st_mtim.tv_sec;
        if (!keeps || nsec_of(&st->st_mtim) != 0)
                e->told_ns = nsec_of(&st->st_mtim);
        return keeps;
}

void tree_own_times(struct entry *e, const struct meta_source *source)
{
        e->flags |= TIMES_OURS | TIMES_OPEN;
        e->times_epoch = (uint32_t)source->epoch;
        e->told_ns = 0;
}

static uint32_t nlink_of(const struct entry *e, const struct stat *st)
{
        if (S_ISDIR(st->st_mode) || st->st_nlink > UINT32_MAX)
                return 1;
        if (st->st_nlink > 0)
                return (uint32_t)st->st_nlink;
        return ((e->mode ^ st->st_mode) & S_IFMT) == 0 && e->nlink > 0 ? e->nlink : 1; /* as told */
}

static void set_attrs(struct entry *e, const struct meta_source *source, const struct stat *st)
{
        uint64_t size = st->st_size > 0 ? (uint64_t)st->st_size : 0;

        e->nlink = nlink_of(e, st); /* before the mode */
        e->mode = (uint32_t)(st->st_mode & (S_IFMT | 07777));
        e->size = size;
        e->blocks = st->st_blocks > 0 ? (uint64_t)st->st_blocks : size / 512 + (size % 512 != 0);
        e->atime = st->st_atim.tv_sec;
        e->atime_ns = nsec_of(&st->st_atim);
        if (keeps_times(e, source, st))
                return;
        e->mtime = st->st_mtim.tv_sec;
        e->mtime_ns = nsec_of(&st->st_mtim);
        e->ctime = st->st_ctim.tv_sec;
        e->ctime_ns = nsec_of(&st->st_ctim);
}

void tree_get_attrs(const struct entry *e, struct stat *st)
{
        *st = (struct stat){
                .st_ino = e->ino,
                .st_mode = (e->kept & KEPT_MODE) != 0 ? (e->mode & S_IFMT) | e->kept_mode : e->mode,
                .st_nlink = e->nlink,
                .st_size = (off_t)e->size,
                .st_blocks = (blkcnt_t)e->blocks,
                .st_blksize = 4096,
                .st_mtim = {.tv_sec = e->mtime, .tv_nsec = e->mtime_ns},
                .st_ctim = {.tv_sec = e->ctime, .tv_nsec = e->ctime_ns},
                .st_atim = {.tv_sec = e->atime, .tv_nsec = e->atime_ns},
        };
}

/* A link's text holds while nothing tells that the link is another. */
static void drop_old_target(struct entry *e, const struct stat *st)
{
        bool is_same = S_ISLNK(st->st_mode) && S_ISLNK(e->mode) &&
                       (st->st_mtim.tv_sec != 0 || st->st_ino != 0) &&
                       e->mtime == st->st_mtim.tv_sec && e->mtime_ns == nsec_of(&st->st_mtim) &&
                       e->server_ino == st->st_ino && (off_t)e->size == st->st_size;

        if (!is_same) {
                free(e->target);
                e->target = NULL;
        }
}

void tree_set_target(struct entry *e, const char *target)
{
        if (!target || !S_ISLNK(e->mode) || (e->target && strcmp(e->target, target) == 0))
                return;
        free(e->target);
        e->target = strnlen(target, META_TARGET_MAX + 1) <= META_TARGET_MAX ? strdup(target) : NULL;
}

/* By the path, and by when it came there if that was our doing: another may have had the name. */
uint64_t tree_made_up_ino(const struct meta *m, const struct entry *e, uint64_t there)
        REQUIRES(m->lock)
{
        uint64_t above = e->parent != 0 ? tree_at(m, e->parent)->ino : 0;
        uint64_t h = tree_hash(above ^ e->moved_ns ^ UINT64_C(0x9e3779b97f4a7c15),
                               there ^ UINT64_C(0xd1b54a32d192ed03), e->name, strlen(e->name));

        return (h >> 1) > 1 ? h >> 1 : 2;
}

bool tree_is_other_file(const struct entry *e, const struct stat *st)
{
        if (((e->mode ^ st->st_mode) & S_IFMT) != 0)
                return true;
        return e->server_ino != 0 && st->st_ino != 0 && e->server_ino != st->st_ino;
}

void tree_lose_number(struct meta *m, struct entry *e) REQUIRES(m->lock)
{
        if (e->ino != 0)
                (void)imap_remove(m->kept, e->ino); /* mostly it isn't there */
        e->ino = 0;
}

/* The sandbox's number of this file, unless another one is still shown by that. */
static uint64_t choose_number(struct meta *m, const struct entry *e, const struct stat *st)
        REQUIRES(m->lock)
{
        if (st->st_ino != 0 && !imap_get(m->kept, st->st_ino))
                return st->st_ino;
        return tree_made_up_ino(m, e, st->st_ino);
}

/* Which file it is: the number shown, and whether the content is still its own. */
static void identify(struct meta *m, uint32_t slot, const struct stat *st, bool is_ours)
        REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot);
        uint64_t before = e->server_ino;

        if (!is_ours && tree_is_other_file(e, st)) {
                tree_lose_content(m, e);
                tree_lose_number(m, e);
        }
        if (e->ino == 0)
                e->ino = choose_number(m, e, st);
        /* An answer that doesn't tell is still of this one; but a whole file of ours is a new one. */
        if (is_ours || st->st_ino != 0)
                e->server_ino = st->st_ino;
        if (e->ino == before && e->ino != e->server_ino)
                (void)imap_put(m->kept, e->ino, m); /* out of memory: two may be shown by it */
        else if (e->ino == e->server_ino)
                (void)imap_remove(m->kept, e->ino);
}

void tree_learn(struct meta *m, uint32_t slot, const struct meta_source *source,
                const struct stat *st, const char *target, bool is_ours) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot);

        drop_old_target(e, st);
        identify(m, slot, st, is_ours);
        set_attrs(e, source, st);
        tree_set_target(e, target);
        e->sent_ns = source->sent_ns;
        e->epoch = (uint32_t)source->epoch;
        e->flags = (uint8_t)((e->flags & ~WAS_QUIET) | (source->was_quiet ? WAS_QUIET : 0));
}

/* It is no directory any more. False: something pinned is below it, so it stays one. */
static bool become_leaf(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        if (tree_has_pinned(m, slot))
                return false;
        tree_drop_below(m, slot);
        tree_at(m, slot)->flags &= (uint8_t) ~(LISTED_QUIET | IS_HUGE);
        return true;
}

static void count_in(struct entry *e, const struct meta_source *source)
{
        e->seen_ns = source->sent_ns;
        e->batch = source->batch;
        e->flags &= (uint8_t)~IS_COUNTED;
}

/* Of a file that waits to be sent nothing is news but how many names it has. */
static void count_names(struct entry *e, const struct meta_source *source, const struct stat *st)
{
        if (!S_ISREG(st->st_mode) || st->st_ino == 0 || st->st_ino != e->server_ino)
                return;
        e->nlink = st->st_nlink > 0 && st->st_nlink <= UINT32_MAX ? (uint32_t)st->st_nlink : 1;
        e->sent_ns = source->sent_ns;
        e->epoch = (uint32_t)source->epoch;
}

int tree_merge(struct meta *m, uint32_t parent, const char *name, size_t size,
               const struct meta_source *source, const struct stat *st, const char *target)
        REQUIRES(m->lock)
{
        uint32_t slot = tree_find(m, parent, name, size);
        struct entry *e;
        int r;

        if (slot == 0) {
                r = tree_add(m, parent, name, size, &slot);
                if (r < 0)
                        return r;
                tree_at(m, slot)->flags = 0; /* nobody used it yet */
        }
        e = tree_at(m, slot);
        if (e->moved_ns >= source->sent_ns || e->sent_ns > source->sent_ns ||
            (e->kept & (KEPT_THERE | KEPT_ABSENT)) != 0) {
                e->seen_ns = source->sent_ns;
                return 0;
        }
        count_in(e, source);
        if ((e->flags & IS_ABSENT) != 0)
                tree_revive(m, slot, 0);
        if (e->set_ns >= source->sent_ns)
                return 0;
        if (tree_is_pinned(m, e)) {
                count_names(e, source, st);
                return 0;
        }
        if (!S_ISDIR(st->st_mode) && S_ISDIR(e->mode) && !become_leaf(m, slot))
                return 0;
        tree_learn(m, slot, source, st, target, false);
        return 0;
}

void tree_vanish(struct meta *m, uint32_t slot, const struct meta_source *source) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot);

        tree_drop_below(m, slot);
        tree_lose_content(m, e);
        free(e->target);
        e->target = NULL;
        if ((e->flags & IS_ABSENT) == 0)
                tree_at(m, e->parent)->count--;
        e->flags = (uint8_t)(IS_ABSENT | IS_USED | (source->was_quiet ? WAS_QUIET : 0));
        e->mode = 0;
        e->kept = 0;
        tree_lose_number(m, e);
        e->server_ino = 0;
        e->sent_ns = source->sent_ns;
        e->epoch = (uint32_t)source->epoch;
        m->shape++;
}
