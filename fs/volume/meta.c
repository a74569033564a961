/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree: slots by number, chained from buckets by a keyed hash of (parent, name); the entries of
 * a directory are linked in the order in which they were listed.
 */

#include "fs/volume/meta.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/random.h"

#define ROOT UINT32_C(1)
#define MAX_DEFAULT 1000000
#define ROOM_MIN 64
#define PATH_LENGTH_MAX 65535
#define DEPTH_MAX 1024
#define KEPT_NS (5 * NS_PER_S) /* what was learnt within this time isn't evicted */
#define FULL_NS (200 * NS_PER_MS) /* nothing could be evicted: not tried again for so long */

enum entry_flag {
        IS_ABSENT = 1 << 0,
        WAS_QUIET = 1 << 1, /* of the attributes */
        LISTED_QUIET = 1 << 2,
        IS_USED = 1 << 3, /* since the hand passed */
        IS_COUNTED = 1 << 4, /* in its batch */
        IS_HUGE = 1 << 5,
};

struct entry {
        uint32_t parent;
        uint32_t next; /* in its bucket */
        uint32_t hash;
        uint32_t generation;
        uint32_t first, last; /* of its entries */
        uint32_t before, after; /* in its directory */
        uint32_t count; /* of its entries, those that exist */
        uint32_t epoch, listed_epoch; /* the low bits */
        uint16_t batch, listed_batch;
        uint16_t room; /* bytes at `name` */
        uint8_t flags;
        uint64_t sent_ns; /* attributes or absence; 0: not known */
        uint64_t seen_ns; /* the latest listing that named it */
        uint64_t moved_ns;
        uint64_t set_ns;
        uint64_t listed_ns; /* 0: not */
        uint64_t evicted_ns; /* when it lost entries last */

        uint32_t mode, nlink;
        uint64_t ino, server_ino;
        uint64_t size, blocks;
        int64_t mtime, ctime, atime;
        uint32_t mtime_ns, ctime_ns, atime_ns;
        char *target;
        struct content *content;
        char name[];
};

union slot {
        struct entry *entry;
        uintptr_t bits; /* of one in no use: the next such, shifted left, and 1 */
};

struct meta {
        struct mutex lock;

        /* fixed after init */
        uint64_t key[2];
        size_t max;
        struct content_hooks hooks;

        /* guarded by lock */
        union slot *slots GUARDED_BY(lock);
        uint32_t slot_count GUARDED_BY(lock);
        uint32_t slot_room GUARDED_BY(lock);
        uint32_t free_slot GUARDED_BY(lock);
        uint32_t *buckets GUARDED_BY(lock);
        uint32_t bucket_count GUARDED_BY(lock);
        uint32_t count GUARDED_BY(lock);
        uint32_t generation GUARDED_BY(lock);
        uint32_t hand GUARDED_BY(lock);
        uint64_t full_until_ns GUARDED_BY(lock);
        uint64_t shape GUARDED_BY(lock); /* rises when a path may lead elsewhere */
        /* contents whose reference is to be given back once the lock is */
        struct content **lost GUARDED_BY(lock);
        size_t lost_count GUARDED_BY(lock), lost_room GUARDED_BY(lock);
        uint32_t used[META_BATCHES] GUARDED_BY(lock);
};

static struct content_head *head_of(struct content *x)
{
        return (struct content_head *)(void *)x;
}

static struct content *content_of(const struct content_head *x)
{
        return (struct content *)(uintptr_t)x; /* its head */
}

static struct entry *at(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        return m->slots[slot].entry;
}

static uint64_t id_of(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        return (uint64_t)at(m, slot)->generation << 32 | slot;
}

static uint32_t slot_of(const struct meta *m, uint64_t id) REQUIRES(m->lock)
{
        uint32_t slot = (uint32_t)id;

        if (slot == 0 || slot >= m->slot_count || (m->slots[slot].bits & 1) != 0 ||
            at(m, slot)->generation != id >> 32)
                return 0;
        return slot;
}

static bool is_pinned(const struct meta *m, const struct entry *e) REQUIRES(m->lock)
{
        return e->content && m->hooks.is_pinned(e->content);
}

/* ---- contents that lost their entry ---- */

static void lose_content(struct meta *m, struct entry *e) REQUIRES(m->lock)
{
        struct content *x = e->content;

        if (!x)
                return;
        e->content = NULL;
        head_of(x)->entry = 0;
        if (m->lost_count == m->lost_room) {
                size_t room = m->lost_room ? m->lost_room * 2 : 16;
                struct content **lost = calloc(room, sizeof(struct content *));

                if (!lost) {
                        log_error("out of memory: a file's cached content is never freed");
                        return;
                }
                if (m->lost)
                        memcpy(lost, m->lost, m->lost_count * sizeof(struct content *));
                free(m->lost);
                m->lost = lost;
                m->lost_room = room;
        }
        m->lost[m->lost_count++] = x;
}

/* Unlock, and give back what was lost meanwhile. */
static void unlock(struct meta *m) RELEASE(m->lock)
{
        struct content **lost = NULL;
        size_t count = m->lost_count;

        if (count > 0) {
                lost = STEAL(m->lost);
                m->lost_count = m->lost_room = 0;
        }
        mutex_unlock(&m->lock);
        for (size_t i = 0; i < count; i++)
                m->hooks.unref(lost[i]);
        free(lost);
}

/* ---- slots and names ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
        unsigned __int128 product = (unsigned __int128)a * b;

        return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_text(uint64_t a, uint64_t b, const char *name, size_t size)
{
        uint64_t h = mix(a, b ^ size);

        while (size > 0) {
                uint64_t word = 0;
                size_t n = size < sizeof(word) ? size : sizeof(word);

                memcpy(&word, name, n);
                h = mix(h ^ word ^ a, b);
                name += n;
                size -= n;
        }
        return h ^ h >> 32;
}

static uint32_t hash_name(const struct meta *m, uint32_t parent, const char *name, size_t size)
{
        return (uint32_t)hash_text(m->key[0] ^ parent, m->key[1], name, size);
}

static uint32_t find(const struct meta *m, uint32_t parent, const char *name, size_t size)
        REQUIRES(m->lock)
{
        uint32_t hash = hash_name(m, parent, name, size);
        uint32_t slot = m->buckets[hash & (m->bucket_count - 1)];

        while (slot != 0) {
                const struct entry *e = at(m, slot);

                if (e->hash == hash && e->parent == parent && strncmp(e->name, name, size) == 0 &&
                    e->name[size] == '\0')
                        break;
                slot = e->next;
        }
        return slot;
}

static int grow_slots(struct meta *m) REQUIRES(m->lock)
{
        uint32_t room = m->slot_room ? m->slot_room * 2 : ROOM_MIN;
        union slot *slots = room < UINT32_MAX / 4 ? calloc(room, sizeof(*slots)) : NULL;

        if (!slots)
                return -ENOMEM;
        if (m->slots)
                memcpy(slots, m->slots, m->slot_count * sizeof(*slots));
        free(m->slots);
        m->slots = slots;
        m->slot_room = room;
        return 0;
}

static int take_slot(struct meta *m, uint32_t *ret) REQUIRES(m->lock)
{
        int r;

        if (m->free_slot != 0) {
                *ret = m->free_slot;
                m->free_slot = (uint32_t)(m->slots[*ret].bits >> 1);
                return 0;
        }
        if (m->slot_count == m->slot_room && (r = grow_slots(m)) < 0)
                return r;
        *ret = m->slot_count++;
        return 0;
}

/* Longer chains are no failure: out of memory here is passed over. */
static void grow_buckets(struct meta *m) REQUIRES(m->lock)
{
        uint32_t count = m->bucket_count * 2;
        uint32_t *buckets =
                m->bucket_count < UINT32_MAX / 4 ? calloc(count, sizeof(*buckets)) : NULL;

        if (!buckets)
                return;
        for (uint32_t i = 0; i < m->bucket_count; i++) {
                uint32_t slot = m->buckets[i];

                while (slot != 0) {
                        struct entry *e = at(m, slot);
                        uint32_t next = e->next, *head = &buckets[e->hash & (count - 1)];

                        e->next = *head;
                        *head = slot;
                        slot = next;
                }
        }
        free(m->buckets);
        m->buckets = buckets;
        m->bucket_count = count;
}

static struct entry *new_entry(const char *name, size_t size)
{
        struct entry *e = calloc(1, sizeof(*e) + size + 1);

        if (e) {
                e->room = (uint16_t)(size + 1);
                memcpy(e->name, name, size);
        }
        return e;
}

/* Into its directory, as the last one. */
static void attach(struct meta *m, uint32_t slot, uint32_t parent) REQUIRES(m->lock)
{
        struct entry *e = at(m, slot), *dir = at(m, parent);
        uint32_t *head;

        e->parent = parent;
        e->hash = hash_name(m, parent, e->name, strlen(e->name));
        head = &m->buckets[e->hash & (m->bucket_count - 1)];
        e->next = *head;
        *head = slot;
        e->before = dir->last;
        e->after = 0;
        if (dir->last != 0)
                at(m, dir->last)->after = slot;
        else
                dir->first = slot;
        dir->last = slot;
        if ((e->flags & IS_ABSENT) == 0)
                dir->count++;
}

static void detach(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        struct entry *e = at(m, slot), *dir = at(m, e->parent);
        uint32_t *link = &m->buckets[e->hash & (m->bucket_count - 1)];

        while (*link != slot)
                link = &at(m, *link)->next;
        *link = e->next;
        if (e->before != 0)
                at(m, e->before)->after = e->after;
        else
                dir->first = e->after;
        if (e->after != 0)
                at(m, e->after)->before = e->before;
        else
                dir->last = e->before;
        if ((e->flags & IS_ABSENT) == 0)
                dir->count--;
        e->parent = 0;
        m->shape++;
}

static void free_entry(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        struct entry *e = at(m, slot);

        lose_content(m, e);
        free(e->target);
        free(e);
        m->slots[slot].bits = (uintptr_t)m->free_slot << 1 | 1;
        m->free_slot = slot;
        m->count--;
}

/* The next one of a walk through the tree below `top`, children after their directory; 0: none. */
static uint32_t next_below(const struct meta *m, uint32_t slot, uint32_t top) REQUIRES(m->lock)
{
        if (at(m, slot)->first != 0)
                return at(m, slot)->first;
        while (slot != top) {
                if (at(m, slot)->after != 0)
                        return at(m, slot)->after;
                slot = at(m, slot)->parent;
        }
        return 0;
}

static bool has_pinned(const struct meta *m, uint32_t top) REQUIRES(m->lock)
{
        for (uint32_t slot = top; slot != 0; slot = next_below(m, slot, top)) {
                if (is_pinned(m, at(m, slot)))
                        return true;
        }
        return false;
}

static uint32_t deepest(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        while (at(m, slot)->first != 0)
                slot = at(m, slot)->first;
        return slot;
}

/* Remove all below `top`, pinned or not. */
static void drop_below(struct meta *m, uint32_t top) REQUIRES(m->lock)
{
        uint32_t slot;

        while ((slot = deepest(m, top)) != top) {
                detach(m, slot);
                free_entry(m, slot);
        }
        at(m, top)->listed_ns = 0;
}

static void drop(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        drop_below(m, slot);
        detach(m, slot);
        free_entry(m, slot);
}

/* ---- room ---- */

/* Entries of `dir` that nobody needs now go; false: none could. */
static bool evict_from(struct meta *m, uint32_t dir, uint32_t keep, uint64_t now_ns)
        REQUIRES(m->lock)
{
        uint32_t slot = at(m, dir)->first;
        bool is_done = false;

        while (slot != 0) {
                struct entry *e = at(m, slot);
                uint32_t after = e->after;
                uint64_t latest_ns = e->sent_ns > e->seen_ns ? e->sent_ns : e->seen_ns;

                if (latest_ns < e->moved_ns)
                        latest_ns = e->moved_ns;
                if (slot != keep && e->first == 0 && !e->content && latest_ns + KEPT_NS <= now_ns) {
                        detach(m, slot);
                        free_entry(m, slot);
                        is_done = true;
                }
                slot = after;
        }
        if (is_done) {
                at(m, dir)->listed_ns = 0;
                at(m, dir)->evicted_ns = now_ns;
        }
        return is_done;
}

/* Of any but `keep`. */
static bool evict(struct meta *m, uint32_t keep, uint64_t now_ns) REQUIRES(m->lock)
{
        if (now_ns < m->full_until_ns)
                return false;
        for (uint32_t i = 0; i < 2 * m->slot_count; i++) {
                struct entry *e;

                if (++m->hand >= m->slot_count)
                        m->hand = ROOT + 1;
                if (m->hand >= m->slot_count || (m->slots[m->hand].bits & 1) != 0)
                        continue;
                e = at(m, m->hand);
                if ((e->flags & IS_USED) != 0)
                        e->flags &= (uint8_t)~IS_USED;
                else if (e->first == 0 && evict_from(m, e->parent, keep, now_ns))
                        return true;
        }
        m->full_until_ns = now_ns + FULL_NS;
        return false;
}

static int add(struct meta *m, uint32_t parent, const char *name, size_t size, uint32_t *ret)
        REQUIRES(m->lock)
{
        struct entry *e;
        int r;

        if (m->count >= m->max && !evict(m, parent, clock_mono_ns()))
                return -ENOMEM;
        e = new_entry(name, size);
        if (!e)
                return -ENOMEM;
        r = take_slot(m, ret);
        if (r < 0) {
                free(e);
                return r;
        }
        e->generation = ++m->generation;
        e->flags = IS_USED;
        m->slots[*ret].entry = e;
        if (++m->count > m->bucket_count)
                grow_buckets(m);
        if (parent != 0)
                attach(m, *ret, parent);
        return 0;
}

/* ---- paths ---- */

static bool is_name(const char *name, size_t size)
{
        if (size == 0 || size > NAME_MAX)
                return false;
        return !(name[0] == '.' && (size == 1 || (size == 2 && name[1] == '.')));
}

/* Whether a component is there; `since_ns` (0: none) as resolve has it. */
static uint32_t step(const struct meta *m, uint32_t slot, const char *name, size_t size,
                     uint64_t since_ns, bool *ret_shadowed) REQUIRES(m->lock)
{
        uint32_t next = find(m, slot, name, size);

        if (next != 0 && since_ns != 0 && at(m, next)->moved_ns >= since_ns) {
                *ret_shadowed = true;
                return 0;
        }
        return next;
}

/*
 * The entry at a path, absent ones included; 0: none. With `since_ns`, what was asked for at that
 * time about this path may be about something else: *ret_shadowed, and 0.
 */
static uint32_t resolve(const struct meta *m, uint32_t from, const char *path, size_t size,
                        uint64_t since_ns, bool *ret_shadowed) REQUIRES(m->lock)
{
        const char *end = path + size;
        uint32_t slot = from;

        while (path < end && slot != 0) {
                const char *slash = memchr(path, '/', (size_t)(end - path));
                size_t length = (size_t)((slash ? slash : end) - path);

                slot = step(m, slot, path, length, since_ns, ret_shadowed);
                path += length + 1;
        }
        return slot;
}

static uint32_t lookup(const struct meta *m, const char *path) REQUIRES(m->lock)
{
        bool is_shadowed = false;

        return resolve(m, ROOT, path, strlen(path), 0, &is_shadowed);
}

/* An entry that was absent, or only a place holder, is a directory of which nothing is known. */
static void revive(struct meta *m, uint32_t slot, uint32_t mode) REQUIRES(m->lock)
{
        struct entry *e = at(m, slot);

        if ((e->flags & IS_ABSENT) != 0)
                at(m, e->parent)->count++;
        e->flags = IS_USED;
        e->mode = mode;
        e->nlink = 1;
        e->sent_ns = 0;
        e->ino = e->server_ino = 0;
}

/* As resolve from the root, but directories that are not known are entered. */
static int resolve_making(struct meta *m, const char *path, size_t size, uint64_t since_ns,
                          uint32_t *ret) REQUIRES(m->lock)
{
        const char *end = path + size;
        bool is_shadowed = false;
        uint32_t slot = ROOT;
        unsigned depth = 0;

        while (path < end) {
                const char *slash = memchr(path, '/', (size_t)(end - path));
                size_t length = (size_t)((slash ? slash : end) - path);
                uint32_t next = step(m, slot, path, length, since_ns, &is_shadowed);
                int r = 0;

                if (is_shadowed || !S_ISDIR(at(m, slot)->mode))
                        return -ESTALE;
                if (!is_name(path, length) || ++depth > DEPTH_MAX)
                        return -EINVAL;
                if (next == 0)
                        r = add(m, slot, path, length, &next);
                if (r < 0)
                        return r;
                if (at(m, next)->mode == 0)
                        revive(m, next, S_IFDIR | 0700);
                slot = next;
                path += length + 1;
        }
        *ret = slot;
        return 0;
}

static size_t dir_size(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? (size_t)(slash - path) : 0;
}

static const char *base_name(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

static char *path_of(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        size_t size = 0;
        char *text;

        for (uint32_t s = slot; s != ROOT; s = at(m, s)->parent)
                size += strlen(at(m, s)->name) + 1;
        text = malloc(size + 1);
        if (!text)
                return NULL;
        text[size > 0 ? size - 1 : 0] = '\0';
        for (uint32_t s = slot; s != ROOT; s = at(m, s)->parent) {
                size_t length = strlen(at(m, s)->name);

                size -= length + 1;
                memcpy(text + size, at(m, s)->name, length);
                if (size > 0)
                        text[size - 1] = '/';
        }
        return text;
}

/* ---- attributes ---- */

/* Something that fs/ shows at all. */
static bool is_shown(const struct stat *st)
{
        mode_t kind = st->st_mode & S_IFMT;

        return kind == S_IFREG || kind == S_IFDIR || kind == S_IFLNK || kind == S_IFIFO ||
               kind == S_IFSOCK;
}

static uint32_t nsec_of(const struct timespec *t)
{
        return t->tv_nsec >= 0 && t->tv_nsec < (long)NS_PER_S ? (uint32_t)t->tv_nsec : 0;
}

static void set_attrs(struct entry *e, const struct stat *st)
{
        uint64_t size = st->st_size > 0 ? (uint64_t)st->st_size : 0;

        e->mode = (uint32_t)(st->st_mode & (S_IFMT | 07777));
        e->nlink = S_ISDIR(st->st_mode) || st->st_nlink == 0 || st->st_nlink > UINT32_MAX
                           ? 1
                           : (uint32_t)st->st_nlink;
        e->size = size;
        e->blocks = st->st_blocks > 0 ? (uint64_t)st->st_blocks : size / 512 + (size % 512 != 0);
        e->mtime = st->st_mtim.tv_sec;
        e->mtime_ns = nsec_of(&st->st_mtim);
        e->atime = st->st_atim.tv_sec;
        e->atime_ns = nsec_of(&st->st_atim);
        e->ctime = st->st_ctim.tv_sec;
        e->ctime_ns = nsec_of(&st->st_ctim);
}

static void get_attrs(const struct entry *e, struct stat *st)
{
        *st = (struct stat){
                .st_ino = e->ino,
                .st_mode = e->mode,
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

static void set_target(struct entry *e, const char *target)
{
        if (!target || !S_ISLNK(e->mode) || (e->target && strcmp(e->target, target) == 0))
                return;
        free(e->target);
        e->target = strnlen(target, META_TARGET_MAX + 1) <= META_TARGET_MAX ? strdup(target) : NULL;
}

static uint64_t made_up_ino(const struct meta *m, const struct entry *e) REQUIRES(m->lock)
{
        uint64_t above = e->parent != 0 ? at(m, e->parent)->ino : 0;
        uint64_t h = hash_text(above ^ UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xd1b54a32d192ed03),
                               e->name, strlen(e->name));

        return (h >> 1) > 1 ? h >> 1 : 2;
}

static bool is_other_file(const struct entry *e, const struct stat *st)
{
        if (((e->mode ^ st->st_mode) & S_IFMT) != 0)
                return true;
        return e->server_ino != 0 && st->st_ino != 0 && e->server_ino != st->st_ino;
}

/* Which file it is: the number shown, and whether the content is still its own. */
static void identify(struct meta *m, uint32_t slot, const struct stat *st, bool is_ours)
        REQUIRES(m->lock)
{
        struct entry *e = at(m, slot);

        if (!is_ours && is_other_file(e, st)) {
                lose_content(m, e);
                e->ino = 0;
        }
        if (e->ino == 0)
                e->ino = st->st_ino != 0 ? st->st_ino : made_up_ino(m, e);
        e->server_ino = st->st_ino;
}

static void learn(struct meta *m, uint32_t slot, const struct meta_source *source,
                  const struct stat *st, const char *target, bool is_ours) REQUIRES(m->lock)
{
        struct entry *e = at(m, slot);

        drop_old_target(e, st);
        identify(m, slot, st, is_ours);
        set_attrs(e, st);
        set_target(e, target);
        e->sent_ns = source->sent_ns;
        e->epoch = (uint32_t)source->epoch;
        e->flags = (uint8_t)((e->flags & ~WAS_QUIET) | (source->was_quiet ? WAS_QUIET : 0));
}

/* It is no directory any more. False: something pinned is below it, so it stays one. */
static bool become_leaf(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        if (has_pinned(m, slot))
                return false;
        drop_below(m, slot);
        at(m, slot)->flags &= (uint8_t) ~(LISTED_QUIET | IS_HUGE);
        return true;
}

static void count_in(struct entry *e, const struct meta_source *source)
{
        e->seen_ns = source->sent_ns;
        e->batch = source->batch;
        e->flags &= (uint8_t)~IS_COUNTED;
}

/* An answer about (parent, name) that isn't about a change of ours. */
static int merge(struct meta *m, uint32_t parent, const char *name, size_t size,
                 const struct meta_source *source, const struct stat *st, const char *target)
        REQUIRES(m->lock)
{
        uint32_t slot = find(m, parent, name, size);
        struct entry *e;
        int r;

        if (slot == 0) {
                r = add(m, parent, name, size, &slot);
                if (r < 0)
                        return r;
                at(m, slot)->flags = 0; /* nobody used it yet */
        }
        e = at(m, slot);
        if (e->moved_ns >= source->sent_ns || e->sent_ns > source->sent_ns) {
                e->seen_ns = source->sent_ns;
                return 0;
        }
        count_in(e, source);
        if ((e->flags & IS_ABSENT) != 0)
                revive(m, slot, 0);
        if (is_pinned(m, e) || e->set_ns >= source->sent_ns)
                return 0;
        if (!S_ISDIR(st->st_mode) && S_ISDIR(e->mode) && !become_leaf(m, slot))
                return 0;
        learn(m, slot, source, st, target, false);
        return 0;
}

/* ---- asking ---- */

static void use(struct meta *m, struct entry *e) REQUIRES(m->lock)
{
        e->flags |= IS_USED;
        if ((e->flags & IS_COUNTED) == 0) {
                e->flags |= IS_COUNTED;
                m->used[e->batch]++;
        }
}

/* The whole epoch of which an entry keeps the low bits; epochs rise slowly. */
static uint64_t long_epoch(uint32_t low)
{
        return low;
}

static bool fill_fact(struct meta *m, uint32_t slot, struct meta_fact *ret) REQUIRES(m->lock)
{
        struct entry *e = at(m, slot);

        *ret = (struct meta_fact){
                .id = id_of(m, slot),
                .exists = (e->flags & IS_ABSENT) == 0,
                .is_pinned = is_pinned(m, e),
                .has_content = e->content != NULL,
                .was_quiet = (e->flags & WAS_QUIET) != 0,
                .batch = e->batch,
                .k = {.sent_ns = e->sent_ns, .epoch = long_epoch(e->epoch)},
        };
        use(m, e);
        if (ret->exists) {
                get_attrs(e, &ret->k.st);
                if (e->ino == 0)
                        ret->k.st.st_ino = made_up_ino(m, e);
                ret->k.sandbox_ino = e->server_ino;
        }
        return e->sent_ns != 0 || ret->is_pinned;
}

/* The last entry on the way to `path` that is known; *ret_rest: components of the path below it. */
static uint32_t resolve_far(const struct meta *m, const char *path, unsigned *ret_rest)
        REQUIRES(m->lock)
{
        uint32_t slot = ROOT;

        *ret_rest = 0;
        while (path[0] != '\0') {
                size_t size = strcspn(path, "/");
                uint32_t next = *ret_rest == 0 ? find(m, slot, path, size) : 0;

                if (next != 0)
                        slot = next;
                else
                        ++*ret_rest;
                path += size + (path[size] == '/');
        }
        return slot;
}

/* Nothing is known of `path` itself; a directory above may be absent, or its own one is listed. */
static bool fill_absent(struct meta *m, const char *path, struct meta_fact *ret) REQUIRES(m->lock)
{
        unsigned rest;
        uint32_t slot = resolve_far(m, path, &rest);
        struct entry *e = at(m, slot);

        if ((e->flags & IS_ABSENT) != 0) {
                *ret = (struct meta_fact){
                        .was_quiet = (e->flags & WAS_QUIET) != 0,
                        .batch = e->batch,
                        .k = {.sent_ns = e->sent_ns, .epoch = long_epoch(e->epoch)},
                };
                return e->sent_ns != 0;
        }
        if (e->listed_ns == 0)
                return false;
        use(m, e);
        *ret = (struct meta_fact){
                .was_quiet = (e->flags & LISTED_QUIET) != 0,
                .batch = e->batch,
                .k = {.sent_ns = e->listed_ns, .epoch = long_epoch(e->listed_epoch)},
        };
        return true;
}

bool meta_get(struct meta *m, const char *path, struct meta_fact *ret)
{
        uint32_t slot;
        bool is_known;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        is_known = slot != 0 ? fill_fact(m, slot, ret) : fill_absent(m, path, ret);
        mutex_unlock(&m->lock);
        return is_known;
}

bool meta_get_content(struct meta *m, const struct content_head *x, struct meta_fact *ret)
{
        uint32_t slot;
        bool is_known;

        mutex_lock(&m->lock);
        slot = slot_of(m, x->entry);
        is_known = slot != 0 && fill_fact(m, slot, ret);
        mutex_unlock(&m->lock);
        return is_known;
}

bool meta_get_dir(struct meta *m, const char *path, struct meta_dir *ret)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        if (slot != 0) {
                struct entry *e = at(m, slot);

                use(m, e);
                *ret = (struct meta_dir){
                        .id = id_of(m, slot),
                        .is_listed = e->listed_ns != 0,
                        .is_huge = (e->flags & IS_HUGE) != 0,
                        .was_quiet = (e->flags & LISTED_QUIET) != 0,
                        .batch = e->listed_batch,
                        .count = e->count,
                        .sent_ns = e->listed_ns,
                        .epoch = long_epoch(e->listed_epoch),
                };
        }
        mutex_unlock(&m->lock);
        return slot != 0;
}

bool meta_get_target(struct meta *m, const char *path, char ret[META_TARGET_MAX + 1])
{
        const struct entry *e;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        e = slot != 0 ? at(m, slot) : NULL;
        if (e && e->target)
                memcpy(ret, e->target, strlen(e->target) + 1);
        else
                e = NULL;
        mutex_unlock(&m->lock);
        return e != NULL;
}

uint32_t meta_batch_used(struct meta *m, uint16_t batch)
{
        uint32_t used;

        mutex_lock(&m->lock);
        used = m->used[batch];
        mutex_unlock(&m->lock);
        return used;
}

void meta_batch_begin(struct meta *m, uint16_t batch)
{
        mutex_lock(&m->lock);
        m->used[batch] = 0;
        mutex_unlock(&m->lock);
}

char *meta_content_path(struct meta *m, const struct content_head *x)
{
        char *path = NULL;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = slot_of(m, x->entry);
        if (slot != 0)
                path = path_of(m, slot);
        mutex_unlock(&m->lock);
        return path;
}

size_t meta_count(struct meta *m)
{
        size_t count;

        mutex_lock(&m->lock);
        count = m->count;
        mutex_unlock(&m->lock);
        return count;
}

/* ---- listings ---- */

int meta_listing_begin(struct meta *m, const char *base, const struct meta_source *source,
                       struct meta_listing *ret)
{
        assert(source->sent_ns > 0 && source->batch < META_BATCHES);
        *ret = (struct meta_listing){.m = m, .source = *source, .base = strdup(base)};
        return ret->base ? 0 : -ENOMEM;
}

void meta_listing_done(struct meta_listing *l)
{
        free(l->base);
        free(l->last);
        l->base = l->last = NULL;
}

/* The whole path of a directory of the listing, to free. */
static char *join(const char *base, const char *path, size_t size)
{
        size_t above = strlen(base);
        bool has_both = above > 0 && size > 0;
        char *text = malloc(above + size + 2);

        if (!text)
                return NULL;
        memcpy(text, base, above);
        if (has_both)
                text[above] = '/';
        memcpy(text + above + has_both, path, size);
        text[above + has_both + size] = '\0';
        return text;
}

static int keep_last(struct meta_listing *l, const char *path, size_t size)
{
        if (size + 1 > l->last_room) {
                free(l->last);
                l->last_room = 0;
                l->last = malloc(size + 256);
                if (!l->last)
                        return -ENOMEM;
                l->last_room = size + 256;
        }
        memcpy(l->last, path, size);
        l->last_size = size;
        return 0;
}

/* The directory of the listing with this path; -ESTALE: what is there now isn't what was listed. */
static int find_dir(struct meta *m, struct meta_listing *l, const char *path, size_t size,
                    uint32_t *ret) REQUIRES(m->lock)
{
        _cleanup_(freep) char *whole = NULL;
        int r;

        if (l->last_at != 0 && l->shape == m->shape && l->last_size == size &&
            memcmp(l->last, path, size) == 0) {
                *ret = l->last_at;
                return 0;
        }
        l->last_at = 0;
        whole = join(l->base, path, size);
        if (!whole)
                return -ENOMEM;
        r = resolve_making(m, whole, strlen(whole), l->source.sent_ns, ret);
        if (r == 0 && !S_ISDIR(at(m, *ret)->mode))
                r = -ESTALE;
        if (r == 0)
                r = keep_last(l, path, size);
        if (r == 0) {
                l->last_at = *ret;
                l->shape = m->shape;
        }
        return r;
}

/* What no directory holds, and what a change of ours overtook, is no failure of the listing. */
static int pass_over(int r)
{
        return r == -ESTALE || r == -EINVAL ? 0 : r;
}

static int enter_base(struct meta *m, struct meta_listing *l, const struct stat *st)
        REQUIRES(m->lock)
{
        uint32_t slot;
        int r = resolve_making(m, l->base, strlen(l->base), l->source.sent_ns, &slot);
        struct entry *e;

        if (r < 0 || !S_ISDIR(st->st_mode))
                return r;
        e = at(m, slot);
        if (e->sent_ns <= l->source.sent_ns && e->set_ns < l->source.sent_ns)
                learn(m, slot, &l->source, st, NULL, false);
        return 0;
}

int meta_listing_entry(struct meta_listing *l, const char *path, const struct stat *st,
                       const char *target)
{
        size_t size = strnlen(path, PATH_LENGTH_MAX + 1), above;
        struct meta *m = l->m;
        const char *name;
        uint32_t dir;
        int r;

        l->count++;
        if (size > PATH_LENGTH_MAX || !is_shown(st))
                return 0;
        above = dir_size(path);
        name = base_name(path);
        if (size > 0 && !is_name(name, strlen(name)))
                return 0;
        mutex_lock(&m->lock);
        if (size == 0) {
                r = enter_base(m, l, st);
        } else {
                r = find_dir(m, l, path, above, &dir);
                if (r == 0)
                        r = merge(m, dir, name, strlen(name), &l->source, st, target);
        }
        unlock(m);
        return pass_over(r);
}

/* What this listing of `dir` did not name isn't there. */
static void sweep(struct meta *m, uint32_t dir, uint64_t sent_ns) REQUIRES(m->lock)
{
        uint32_t slot = at(m, dir)->first;

        while (slot != 0) {
                const struct entry *e = at(m, slot);
                uint32_t after = e->after;

                if (e->seen_ns != sent_ns && e->moved_ns < sent_ns && e->sent_ns < sent_ns &&
                    !has_pinned(m, slot))
                        drop(m, slot);
                slot = after;
        }
}

int meta_listing_dir(struct meta_listing *l, const char *path)
{
        uint64_t sent_ns = l->source.sent_ns;
        struct meta *m = l->m;
        uint32_t slot;
        int r;

        mutex_lock(&m->lock);
        r = find_dir(m, l, path, strlen(path), &slot);
        /* An older listing than the one known tells nothing. */
        if (r == 0 && at(m, slot)->listed_ns <= sent_ns && at(m, slot)->evicted_ns < sent_ns) {
                struct entry *e = at(m, slot);

                sweep(m, slot, sent_ns);
                e->listed_ns = sent_ns;
                e->listed_epoch = (uint32_t)l->source.epoch;
                e->flags &= (uint8_t) ~(LISTED_QUIET | IS_HUGE);
                e->flags |= l->source.was_quiet ? LISTED_QUIET : 0;
                e->listed_batch = l->source.batch;
        }
        unlock(m);
        return pass_over(r);
}

void meta_listing_cut(struct meta_listing *l)
{
        struct meta *m = l->m;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = lookup(m, l->base);
        if (slot != 0)
                at(m, slot)->flags |= IS_HUGE;
        mutex_unlock(&m->lock);
}

/* ---- single answers ---- */

int meta_put(struct meta *m, const char *path, const struct meta_source *source,
             const struct stat *st, const char *target)
{
        const char *name = base_name(path);
        uint32_t dir = ROOT;
        int r;

        if (!is_shown(st))
                return 0;
        mutex_lock(&m->lock);
        if (path[0] == '\0') {
                struct entry *e = at(m, ROOT);

                r = S_ISDIR(st->st_mode) ? 0 : -ENOTDIR;
                if (r == 0 && e->sent_ns <= source->sent_ns && e->set_ns < source->sent_ns)
                        learn(m, ROOT, source, st, NULL, false);
        } else {
                r = is_name(name, strlen(name)) ? 0 : -EINVAL;
                if (r == 0)
                        r = resolve_making(m, path, dir_size(path), source->sent_ns, &dir);
                if (r == 0)
                        r = merge(m, dir, name, strlen(name), source, st, target);
        }
        unlock(m);
        return pass_over(r);
}

/* An entry is absent from now on. */
static void vanish(struct meta *m, uint32_t slot, const struct meta_source *source)
        REQUIRES(m->lock)
{
        struct entry *e = at(m, slot);

        drop_below(m, slot);
        lose_content(m, e);
        free(e->target);
        e->target = NULL;
        if ((e->flags & IS_ABSENT) == 0)
                at(m, e->parent)->count--;
        e->flags = (uint8_t)(IS_ABSENT | IS_USED | (source->was_quiet ? WAS_QUIET : 0));
        e->mode = 0;
        e->ino = e->server_ino = 0;
        e->sent_ns = source->sent_ns;
        e->epoch = (uint32_t)source->epoch;
        m->shape++;
}

void meta_put_absent(struct meta *m, const char *path, const struct meta_source *source)
{
        const char *name = base_name(path);
        uint32_t dir, slot;
        int r;

        if (!is_name(name, strlen(name)))
                return;
        mutex_lock(&m->lock);
        r = resolve_making(m, path, dir_size(path), source->sent_ns, &dir);
        slot = r == 0 ? find(m, dir, name, strlen(name)) : 0;
        if (r == 0 && slot == 0) {
                r = add(m, dir, name, strlen(name), &slot);
                if (r == 0) {
                        at(m, slot)->flags |= IS_ABSENT;
                        at(m, dir)->count--;
                }
        }
        if (r == 0 && at(m, slot)->moved_ns < source->sent_ns &&
            at(m, slot)->sent_ns <= source->sent_ns && !has_pinned(m, slot))
                vanish(m, slot, source);
        unlock(m);
}

void meta_put_target(struct meta *m, const char *path, const char *target)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        if (slot != 0)
                set_target(at(m, slot), target);
        mutex_unlock(&m->lock);
}

void meta_told(struct meta *m, const struct content_head *x, const struct meta_source *source,
               const struct stat *st, uint64_t ours_ns)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = S_ISREG(st->st_mode) ? slot_of(m, x->entry) : 0;
        if (slot != 0) {
                struct entry *e = at(m, slot);

                if (ours_ns != 0) {
                        learn(m, slot, source, st, NULL, true);
                        e->set_ns = e->moved_ns = ours_ns; /* it is there by a change of ours */
                } else if (e->sent_ns <= source->sent_ns && e->set_ns < source->sent_ns &&
                           e->moved_ns < source->sent_ns) {
                        learn(m, slot, source, st, NULL, false);
                }
        }
        unlock(m);
}

void meta_doubt(struct meta *m, const char *path)
{
        bool is_shadowed = false;
        uint32_t slot, dir;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        dir = path[0] != '\0' ? resolve(m, ROOT, path, dir_size(path), 0, &is_shadowed) : 0;
        if (slot != 0)
                at(m, slot)->sent_ns = 0;
        if (dir != 0)
                at(m, dir)->listed_ns = 0;
        mutex_unlock(&m->lock);
}

/* ---- changes of ours ---- */

/* Its names are others now: our clock's time until the sandbox tells its own. */
static void touch_dir(struct meta *m, uint32_t dir, uint64_t now_ns) REQUIRES(m->lock)
{
        struct entry *e = at(m, dir);
        uint64_t real_ns = clock_real_ns();

        e->mtime = e->ctime = (int64_t)(real_ns / NS_PER_S);
        e->mtime_ns = e->ctime_ns = (uint32_t)(real_ns % NS_PER_S);
        e->set_ns = now_ns;
}

/* The entry at `path`, made if there is none. */
static int take_place(struct meta *m, const char *path, uint32_t *ret) REQUIRES(m->lock)
{
        const char *name = base_name(path);
        uint32_t dir;
        int r = resolve_making(m, path, dir_size(path), 0, &dir);

        if (r < 0)
                return r;
        *ret = find(m, dir, name, strlen(name));
        return *ret != 0 ? 0 : add(m, dir, name, strlen(name), ret);
}

int meta_made(struct meta *m, const char *path, const struct meta_source *source,
              const struct stat *st, const char *target, uint64_t now_ns,
              const struct content_head *x)
{
        uint32_t slot;
        int r;

        mutex_lock(&m->lock);
        r = take_place(m, path, &slot);
        if (r == 0) {
                struct entry *e = at(m, slot);

                vanish(m, slot, source);
                revive(m, slot, 0);
                learn(m, slot, source, st, target, false);
                e->moved_ns = e->set_ns = now_ns;
                if (S_ISDIR(st->st_mode)) { /* nothing is in it */
                        e->listed_ns = source->sent_ns;
                        e->listed_epoch = (uint32_t)source->epoch;
                }
                if (x && x->entry == 0) {
                        e->content = m->hooks.ref(content_of(x));
                        head_of(e->content)->entry = id_of(m, slot);
                }
                touch_dir(m, e->parent, now_ns);
        }
        unlock(m);
        return r;
}

int meta_linked(struct meta *m, const char *path, const char *new_path,
                const struct meta_source *source, const struct stat *st, uint64_t now_ns)
{
        uint32_t slot, from;
        int r;

        mutex_lock(&m->lock);
        r = take_place(m, new_path, &slot);
        if (r == 0) {
                vanish(m, slot, source);
                revive(m, slot, 0);
                learn(m, slot, source, st, NULL, false);
                at(m, slot)->moved_ns = at(m, slot)->set_ns = now_ns;
                touch_dir(m, at(m, slot)->parent, now_ns);
                from = lookup(m, path);
                if (from != 0 && ((at(m, from)->mode ^ st->st_mode) & S_IFMT) == 0) {
                        learn(m, from, source, st, NULL, true);
                        at(m, from)->set_ns = now_ns;
                        at(m, slot)->ino = at(m, from)->ino;
                        if (S_ISLNK(st->st_mode) && at(m, from)->target)
                                set_target(at(m, slot), at(m, from)->target);
                }
        }
        unlock(m);
        return r;
}

void meta_set(struct meta *m, const char *path, const struct meta_source *source,
              const struct stat *st, uint64_t now_ns)
{
        uint32_t slot;

        if (!is_shown(st))
                return;
        mutex_lock(&m->lock);
        slot = lookup(m, path);
        if (slot != 0 && (at(m, slot)->flags & IS_ABSENT) == 0 &&
            ((at(m, slot)->mode ^ st->st_mode) & S_IFMT) == 0) {
                learn(m, slot, source, st, NULL, false);
                at(m, slot)->set_ns = now_ns;
        }
        unlock(m);
}

void meta_removed(struct meta *m, const char *path, const struct meta_source *source,
                  uint64_t now_ns)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        if (take_place(m, path, &slot) == 0) {
                vanish(m, slot, source);
                at(m, slot)->moved_ns = now_ns;
                touch_dir(m, at(m, slot)->parent, now_ns);
        }
        unlock(m);
}

/* The detached entry `slot` under a name that may be longer; its address may change. */
static int rename_entry(struct meta *m, uint32_t slot, const char *name) REQUIRES(m->lock)
{
        struct entry *e = at(m, slot), *moved;
        size_t size = strlen(name);

        if (size + 1 <= e->room) {
                memcpy(e->name, name, size + 1);
                return 0;
        }
        moved = new_entry(name, size);
        if (!moved)
                return -ENOMEM;
        memcpy(moved, e, offsetof(struct entry, name));
        moved->room = (uint16_t)(size + 1);
        m->slots[slot].entry = moved;
        free(e);
        return 0;
}

static bool is_below(const struct meta *m, uint32_t slot, uint32_t above) REQUIRES(m->lock)
{
        while (slot != ROOT && slot != above)
                slot = at(m, slot)->parent;
        return slot == above;
}

/* Move the entry `slot` to where `to` is absent. */
static int move_entry(struct meta *m, uint32_t slot, uint32_t to, uint64_t now_ns) REQUIRES(m->lock)
{
        uint32_t parent = at(m, to)->parent;
        int r;

        if (is_below(m, parent, slot))
                return -EINVAL; /* the two trees disagree: then nothing is known */
        detach(m, slot);
        r = rename_entry(m, slot, at(m, to)->name);
        if (r < 0) {
                attach(m, slot, parent); /* under its old name, to be removed as a whole */
                drop(m, slot);
                return r;
        }
        drop(m, to);
        attach(m, slot, parent);
        at(m, slot)->moved_ns = now_ns;
        return 0;
}

static int move_locked(struct meta *m, uint32_t slot, const char *path, const char *new_path,
                       const struct meta_source *source, uint64_t now_ns) REQUIRES(m->lock)
{
        uint64_t id = id_of(m, slot);
        uint32_t to, old;
        int r = take_place(m, new_path, &to);

        if (r < 0 || to == slot || slot_of(m, id) != slot)
                return r;
        vanish(m, to, source);
        at(m, to)->moved_ns = now_ns;
        if (slot_of(m, id) != slot)
                return 0; /* it was below what was replaced: nothing is known of it */
        touch_dir(m, at(m, to)->parent, now_ns);
        touch_dir(m, at(m, slot)->parent, now_ns);
        r = move_entry(m, slot, to, now_ns);
        if (r == 0 && take_place(m, path, &old) == 0) {
                vanish(m, old, source);
                at(m, old)->moved_ns = now_ns;
        }
        return r;
}

int meta_moved(struct meta *m, const char *path, const char *new_path,
               const struct meta_source *source, const struct stat *st, uint64_t now_ns)
{
        uint32_t slot;
        int r = 0;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        if (slot > ROOT && (at(m, slot)->flags & IS_ABSENT) == 0) {
                uint64_t id = id_of(m, slot);

                r = move_locked(m, slot, path, new_path, source, now_ns);
                slot = slot_of(m, id);
                if (slot != 0 && st && ((at(m, slot)->mode ^ st->st_mode) & S_IFMT) == 0 &&
                    !is_pinned(m, at(m, slot))) {
                        learn(m, slot, source, st, NULL, true);
                        at(m, slot)->set_ns = now_ns;
                }
        } else {
                uint32_t to;

                /* Nothing was known of it: what was at the other name isn't true any more. */
                if (take_place(m, new_path, &to) == 0) {
                        vanish(m, to, source);
                        revive(m, to, 0);
                        at(m, to)->moved_ns = now_ns;
                        if (st && is_shown(st))
                                learn(m, to, source, st, NULL, false);
                }
                if (take_place(m, path, &slot) == 0) {
                        vanish(m, slot, source);
                        at(m, slot)->moved_ns = now_ns;
                }
        }
        unlock(m);
        return r;
}

/* ---- contents ---- */

struct content *meta_content(struct meta *m, const char *path)
{
        struct content *x = NULL;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        if (slot != 0 && at(m, slot)->content)
                x = m->hooks.ref(at(m, slot)->content);
        mutex_unlock(&m->lock);
        return x;
}

struct content *meta_set_content(struct meta *m, const char *path, struct content_head *x)
{
        struct content *there = NULL;
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        if (slot != 0 && S_ISREG(at(m, slot)->mode)) {
                struct entry *e = at(m, slot);

                if (!e->content && x->entry == 0) {
                        e->content = m->hooks.ref(content_of(x));
                        x->entry = id_of(m, slot);
                }
                if (e->content)
                        there = m->hooks.ref(e->content);
        }
        mutex_unlock(&m->lock);
        return there;
}

void meta_drop_content(struct meta *m, const struct content_head *x)
{
        uint32_t slot;

        mutex_lock(&m->lock);
        slot = slot_of(m, x->entry);
        if (slot != 0)
                lose_content(m, at(m, slot));
        unlock(m);
}

void meta_pass_content(struct meta *m, struct content_head *x, const char *path)
{
        uint32_t slot, old;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        old = slot_of(m, x->entry);
        if (slot != 0 && slot != old && S_ISREG(at(m, slot)->mode)) {
                m->hooks.ref(content_of(x));
                if (old != 0)
                        lose_content(m, at(m, old));
                lose_content(m, at(m, slot));
                at(m, slot)->content = content_of(x);
                x->entry = id_of(m, slot);
        }
        unlock(m);
}

void meta_drop_contents(struct meta *m)
{
        mutex_lock(&m->lock);
        for (uint32_t i = ROOT; i < m->slot_count; i++) {
                if ((m->slots[i].bits & 1) == 0)
                        lose_content(m, at(m, i));
        }
        unlock(m);
}

int meta_contents_below(struct meta *m, const char *path, struct content ***ret, size_t *ret_count)
{
        struct content **all = NULL;
        size_t count = 0, i = 0;
        uint32_t top;

        mutex_lock(&m->lock);
        top = lookup(m, path);
        for (uint32_t s = top; s != 0; s = next_below(m, s, top))
                count += at(m, s)->content != NULL;
        all = calloc(count ? count : 1, sizeof(struct content *));
        for (uint32_t s = top; all && s != 0; s = next_below(m, s, top)) {
                if (at(m, s)->content)
                        all[i++] = m->hooks.ref(at(m, s)->content);
        }
        mutex_unlock(&m->lock);
        *ret = all;
        *ret_count = i;
        return all ? 0 : -ENOMEM;
}

bool meta_has_pinned(struct meta *m, const char *path)
{
        uint32_t slot;
        bool has;

        mutex_lock(&m->lock);
        slot = lookup(m, path);
        has = slot != 0 && has_pinned(m, slot);
        mutex_unlock(&m->lock);
        return has;
}

/* ---- walks ---- */

size_t meta_name_span(uint32_t size)
{
        size_t span = sizeof(struct meta_name) + size + 1;

        return (span + 7) / 8 * 8;
}

static void pack_names(const struct meta *m, uint32_t dir, char *to) REQUIRES(m->lock)
{
        for (uint32_t s = at(m, dir)->first; s != 0; s = at(m, s)->after) {
                const struct entry *e = at(m, s);
                struct meta_name *name = (struct meta_name *)(void *)to;

                if ((e->flags & IS_ABSENT) != 0)
                        continue;
                name->ino = e->ino;
                name->mode = e->mode;
                name->size = (uint32_t)strlen(e->name);
                memcpy(name->text, e->name, name->size + 1);
                to += meta_name_span(name->size);
        }
}

int meta_names(struct meta *m, const char *path, bool is_any, struct meta_names *ret)
{
        uint32_t dir;
        int r = -EAGAIN;

        *ret = (struct meta_names){0};
        mutex_lock(&m->lock);
        dir = lookup(m, path);
        if (dir != 0 && (is_any || at(m, dir)->listed_ns != 0)) {
                const struct entry *e = at(m, dir);

                for (uint32_t s = e->first; s != 0; s = at(m, s)->after) {
                        if ((at(m, s)->flags & IS_ABSENT) == 0)
                                ret->size += meta_name_span((uint32_t)strlen(at(m, s)->name));
                }
                ret->source = (struct meta_source){.sent_ns = e->listed_ns,
                                                   .epoch = long_epoch(e->listed_epoch),
                                                   .was_quiet = (e->flags & LISTED_QUIET) != 0};
                ret->data = calloc(1, ret->size ? ret->size : 1);
                r = ret->data ? 0 : -ENOMEM;
                if (r == 0)
                        pack_names(m, dir, ret->data);
        }
        mutex_unlock(&m->lock);
        return r;
}

static bool show_sibling(const struct meta *m, uint32_t slot, uint64_t epoch, uint64_t since_ns,
                         struct cached_sibling_sink *to) REQUIRES(m->lock)
{
        const struct entry *e = at(m, slot);
        struct known k = {.sent_ns = e->sent_ns, .epoch = long_epoch(e->epoch)};
        char *path;
        bool goes_on;

        if (!S_ISREG(e->mode) || e->sent_ns < since_ns || e->epoch != (uint32_t)epoch)
                return true;
        path = path_of(m, slot);
        if (!path)
                return false;
        get_attrs(e, &k.st);
        k.sandbox_ino = e->server_ino;
        goes_on = to->file(to, path, &k, e->content != NULL);
        free(path);
        return goes_on;
}

void meta_siblings(struct meta *m, const char *path, bool is_deep, uint64_t epoch,
                   uint64_t since_ns, struct cached_sibling_sink *to)
{
        bool goes_on = true;
        uint32_t dir;

        mutex_lock(&m->lock);
        dir = lookup(m, path);
        if (dir != 0 && !S_ISDIR(at(m, dir)->mode))
                dir = at(m, dir)->parent;
        for (uint32_t s = dir != 0 ? at(m, dir)->first : 0; s != 0 && goes_on; s = at(m, s)->after)
                goes_on = show_sibling(m, s, epoch, since_ns, to);
        for (uint32_t s = dir != 0 && is_deep ? next_below(m, dir, dir) : 0; s != 0 && goes_on;
             s = next_below(m, s, dir)) {
                if (at(m, s)->parent != dir)
                        goes_on = show_sibling(m, s, epoch, since_ns, to);
        }
        mutex_unlock(&m->lock);
}

/* ---- birth ---- */

int meta_new(const struct meta_config *config, struct meta **ret)
{
        struct meta *m = calloc(1, sizeof(*m));
        uint32_t root = 0;
        int r;

        if (!m)
                return -ENOMEM;
        mutex_init(&m->lock);
        m->max = config->max ? config->max : MAX_DEFAULT;
        m->hooks = config->content;
        r = random_bytes(m->key, sizeof(m->key));
        mutex_lock(&m->lock);
        m->slot_count = ROOT;
        m->bucket_count = ROOM_MIN;
        m->buckets = calloc(ROOM_MIN, sizeof(*m->buckets));
        if (r == 0)
                r = m->buckets ? grow_slots(m) : -ENOMEM;
        if (r == 0)
                r = add(m, 0, "", 0, &root);
        if (r == 0) {
                assert(root == ROOT);
                at(m, ROOT)->mode = S_IFDIR | 0755;
                at(m, ROOT)->nlink = 1;
        }
        mutex_unlock(&m->lock);
        if (r < 0)
                meta_free(m);
        else
                *ret = m;
        return r;
}

void meta_free(struct meta *m)
{
        if (!m)
                return;
        meta_drop_contents(m);
        mutex_lock(&m->lock);
        for (uint32_t i = ROOT; m->slots && i < m->slot_count; i++) {
                if ((m->slots[i].bits & 1) == 0) {
                        free(at(m, i)->target);
                        free(at(m, i));
                }
        }
        free(m->slots);
        free(m->buckets);
        free(m->lost);
        mutex_unlock(&m->lock);
        mutex_done(&m->lock);
        free(m);
}
