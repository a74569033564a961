/* SPDX-License-Identifier: Apache-2.0 */
/* Slots, names and paths; and what gives way when there are too many. */

#include "fs/volume/meta_tree.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define ROOM_MIN 64
#define DEPTH_MAX 1024
#define KEPT_NS (5 * NS_PER_S) /* what was learnt within this time isn't evicted */
#define FULL_NS (200 * NS_PER_MS) /* nothing could be evicted: not tried again for so long */

uint64_t tree_id(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        return (uint64_t)tree_at(m, slot)->generation << 32 | slot;
}

uint32_t tree_slot(const struct meta *m, uint64_t id) REQUIRES(m->lock)
{
        uint32_t slot = (uint32_t)id;

        if (slot == 0 || slot >= m->slot_count || (m->slots[slot].bits & 1) != 0 ||
            tree_at(m, slot)->generation != id >> 32)
                return 0;
        return slot;
}

bool tree_is_pinned(const struct meta *m, const struct entry *e) REQUIRES(m->lock)
{
        return (e->kept & (KEPT_THERE | KEPT_ABSENT)) != 0 ||
               (e->content && m->hooks.is_pinned(e->content));
}

/* ---- contents that lost their entry ---- */

void tree_lose_content(struct meta *m, struct entry *e) REQUIRES(m->lock)
{
        struct content *x = e->content;

        if (!x)
                return;
        e->content = NULL;
        tree_head(x)->entry = 0;
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

void tree_unlock(struct meta *m) RELEASE(m->lock)
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

uint64_t tree_hash(uint64_t a, uint64_t b, const char *name, size_t size)
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
        return (uint32_t)tree_hash(m->key[0] ^ parent, m->key[1], name, size);
}

uint32_t tree_find(const struct meta *m, uint32_t parent, const char *name, size_t size)
        REQUIRES(m->lock)
{
        uint32_t hash = hash_name(m, parent, name, size);
        uint32_t slot = m->buckets[hash & (m->bucket_count - 1)];

        while (slot != 0) {
                const struct entry *e = tree_at(m, slot);

                if (e->hash == hash && e->parent == parent && strncmp(e->name, name, size) == 0 &&
                    e->name[size] == '\0')
                        break;
                slot = e->next;
        }
        return slot;
}

int tree_grow_slots(struct meta *m) REQUIRES(m->lock)
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
        if (m->slot_count == m->slot_room && (r = tree_grow_slots(m)) < 0)
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
                        struct entry *e = tree_at(m, slot);
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

struct entry *tree_new_entry(const char *name, size_t size)
{
        struct entry *e = calloc(1, sizeof(*e) + size + 1);

        if (e) {
                e->room = (uint16_t)(size + 1);
                memcpy(e->name, name, size);
        }
        return e;
}

void tree_attach(struct meta *m, uint32_t slot, uint32_t parent) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot), *dir = tree_at(m, parent);
        uint32_t *head;

        e->parent = parent;
        e->hash = hash_name(m, parent, e->name, strlen(e->name));
        head = &m->buckets[e->hash & (m->bucket_count - 1)];
        e->next = *head;
        *head = slot;
        e->before = dir->last;
        e->after = 0;
        if (dir->last != 0)
                tree_at(m, dir->last)->after = slot;
        else
                dir->first = slot;
        dir->last = slot;
        if ((e->flags & IS_ABSENT) == 0)
                dir->count++;
}

void tree_detach(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot), *dir = tree_at(m, e->parent);
        uint32_t *link = &m->buckets[e->hash & (m->bucket_count - 1)];

        while (*link != slot)
                link = &tree_at(m, *link)->next;
        *link = e->next;
        if (e->before != 0)
                tree_at(m, e->before)->after = e->after;
        else
                dir->first = e->after;
        if (e->after != 0)
                tree_at(m, e->after)->before = e->before;
        else
                dir->last = e->before;
        if ((e->flags & IS_ABSENT) == 0)
                dir->count--;
        e->parent = 0;
        m->shape++;
}

static void free_entry(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot);

        tree_lose_content(m, e);
        tree_lose_number(m, e);
        free(e->target);
        free(e);
        m->slots[slot].bits = (uintptr_t)m->free_slot << 1 | 1;
        m->free_slot = slot;
        m->count--;
}

uint32_t tree_next_below(const struct meta *m, uint32_t slot, uint32_t top) REQUIRES(m->lock)
{
        if (tree_at(m, slot)->first != 0)
                return tree_at(m, slot)->first;
        while (slot != top) {
                if (tree_at(m, slot)->after != 0)
                        return tree_at(m, slot)->after;
                slot = tree_at(m, slot)->parent;
        }
        return 0;
}

bool tree_has_pinned(const struct meta *m, uint32_t top) REQUIRES(m->lock)
{
        for (uint32_t slot = top; slot != 0; slot = tree_next_below(m, slot, top)) {
                if (tree_is_pinned(m, tree_at(m, slot)))
                        return true;
        }
        return false;
}

static uint32_t deepest(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        while (tree_at(m, slot)->first != 0)
                slot = tree_at(m, slot)->first;
        return slot;
}

void tree_drop_below(struct meta *m, uint32_t top) REQUIRES(m->lock)
{
        uint32_t slot;

        while ((slot = deepest(m, top)) != top) {
                tree_detach(m, slot);
                free_entry(m, slot);
        }
        tree_at(m, top)->listed_ns = 0;
}

void tree_drop(struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        tree_drop_below(m, slot);
        tree_detach(m, slot);
        free_entry(m, slot);
}

/* ---- room ---- */

/* Entries of `dir` that nobody needs now go; false: none could. */
static bool evict_from(struct meta *m, uint32_t dir, uint32_t keep, uint64_t now_ns)
        REQUIRES(m->lock)
{
        uint32_t slot = tree_at(m, dir)->first;
        bool is_done = false;

        while (slot != 0) {
                struct entry *e = tree_at(m, slot);
                uint32_t after = e->after;
                uint64_t latest_ns = e->sent_ns > e->seen_ns ? e->sent_ns : e->seen_ns;

                if (latest_ns < e->moved_ns)
                        latest_ns = e->moved_ns;
                if (slot != keep && e->first == 0 && !e->content && e->kept == 0 &&
                    latest_ns + KEPT_NS <= now_ns) {
                        tree_detach(m, slot);
                        free_entry(m, slot);
                        is_done = true;
                }
                slot = after;
        }
        if (is_done) {
                tree_at(m, dir)->listed_ns = 0;
                tree_at(m, dir)->evicted_ns = now_ns;
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
                        m->hand = TREE_ROOT + 1;
                if (m->hand >= m->slot_count || (m->slots[m->hand].bits & 1) != 0)
                        continue;
                e = tree_at(m, m->hand);
                if ((e->flags & IS_USED) != 0)
                        e->flags &= (uint8_t)~IS_USED;
                else if (e->first == 0 && evict_from(m, e->parent, keep, now_ns))
                        return true;
        }
        m->full_until_ns = now_ns + FULL_NS;
        return false;
}

int tree_add(struct meta *m, uint32_t parent, const char *name, size_t size, uint32_t *ret)
        REQUIRES(m->lock)
{
        struct entry *e;
        int r;

        if (m->count >= m->max && !evict(m, parent, clock_mono_ns()))
                return -ENOMEM;
        e = tree_new_entry(name, size);
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
                tree_attach(m, *ret, parent);
        return 0;
}

/* ---- paths ---- */

bool tree_is_name(const char *name, size_t size)
{
        if (size == 0 || size > NAME_MAX)
                return false;
        return !(name[0] == '.' && (size == 1 || (size == 2 && name[1] == '.')));
}

/* Whether a component is there; `since_ns` (0: none) as resolve has it. */
static uint32_t step(const struct meta *m, uint32_t slot, const char *name, size_t size,
                     uint64_t since_ns, bool *ret_shadowed) REQUIRES(m->lock)
{
        uint32_t next = tree_find(m, slot, name, size);

        if (next != 0 && since_ns != 0 && tree_at(m, next)->moved_ns >= since_ns) {
                *ret_shadowed = true;
                return 0;
        }
        return next;
}

uint32_t tree_resolve(const struct meta *m, uint32_t from, const char *path, size_t size,
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

uint32_t tree_seek(const struct meta *m, const char *path) REQUIRES(m->lock)
{
        bool is_shadowed = false;

        return tree_resolve(m, TREE_ROOT, path, strlen(path), 0, &is_shadowed);
}

void tree_revive(struct meta *m, uint32_t slot, uint32_t mode) REQUIRES(m->lock)
{
        struct entry *e = tree_at(m, slot);

        if ((e->flags & IS_ABSENT) != 0)
                tree_at(m, e->parent)->count++;
        e->flags = IS_USED;
        e->mode = mode;
        e->nlink = 1;
        e->sent_ns = 0;
        tree_lose_number(m, e);
        e->server_ino = 0;
}

int tree_resolve_making(struct meta *m, const char *path, size_t size, uint64_t since_ns,
                        uint32_t *ret) REQUIRES(m->lock)
{
        const char *end = path + size;
        bool is_shadowed = false;
        uint32_t slot = TREE_ROOT;
        unsigned depth = 0;

        while (path < end) {
                const char *slash = memchr(path, '/', (size_t)(end - path));
                size_t length = (size_t)((slash ? slash : end) - path);
                uint32_t next = step(m, slot, path, length, since_ns, &is_shadowed);
                int r = 0;

                if (is_shadowed || !S_ISDIR(tree_at(m, slot)->mode))
                        return -ESTALE;
                if (!tree_is_name(path, length) || ++depth > DEPTH_MAX)
                        return -EINVAL;
                if (next == 0)
                        r = tree_add(m, slot, path, length, &next);
                if (r < 0)
                        return r;
                if (tree_at(m, next)->mode == 0)
                        tree_revive(m, next, S_IFDIR | 0700);
                slot = next;
                path += length + 1;
        }
        *ret = slot;
        return 0;
}

int tree_take_place(struct meta *m, const char *path, uint32_t *ret) REQUIRES(m->lock)
{
        const char *name = tree_base_name(path);
        uint32_t dir;
        int r = tree_resolve_making(m, path, tree_dir_size(path), 0, &dir);

        if (r < 0)
                return r;
        *ret = tree_find(m, dir, name, strlen(name));
        return *ret != 0 ? 0 : tree_add(m, dir, name, strlen(name), ret);
}

size_t tree_dir_size(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? (size_t)(slash - path) : 0;
}

const char *tree_base_name(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

char *tree_path(const struct meta *m, uint32_t slot) REQUIRES(m->lock)
{
        size_t size = 0;
        char *text;

        for (uint32_t s = slot; s != TREE_ROOT; s = tree_at(m, s)->parent)
                size += strlen(tree_at(m, s)->name) + 1;
        text = malloc(size + 1);
        if (!text)
                return NULL;
        text[size > 0 ? size - 1 : 0] = '\0';
        for (uint32_t s = slot; s != TREE_ROOT; s = tree_at(m, s)->parent) {
                size_t length = strlen(tree_at(m, s)->name);

                size -= length + 1;
                memcpy(text + size, tree_at(m, s)->name, length);
                if (size > 0)
                        text[size - 1] = '/';
        }
        return text;
}
