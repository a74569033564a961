/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash maps: one open-addressing table with linear probing under both. A slot is in use when its
 * value is not NULL. Removing shifts the entries behind back, so there are no tombstones. The table
 * is at most 3/4 full, doubles when it grows, and halves when 1/8 full, where memory allows. Hashes
 * are SipHash-1-3 under a random key of each map.
 */

#include "transport/base/map.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/random.h"

#define ROOM_MIN 16

struct slot {
        uint64_t hash;
        void *value; /* NULL: free */
        union {
                char *text; /* ours; struct map */
                uint64_t number; /* struct imap */
        } key;
};

struct table {
        struct slot *slots;
        size_t room; /* a power of 2 */
        size_t count;
        uint64_t seed[2];
};

struct map {
        struct table t;
};

struct imap {
        struct table t;
};

/* SipHash-1-3 (Aumasson and Bernstein). */
struct sip {
        uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
        return x << bits | x >> (64 - bits);
}

static void sip_round(struct sip *s)
{
        s->v0 += s->v1;
        s->v1 = rotate(s->v1, 13) ^ s->v0;
        s->v0 = rotate(s->v0, 32);
        s->v2 += s->v3;
        s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 += s->v3;
        s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 += s->v1;
        s->v1 = rotate(s->v1, 17) ^ s->v2;
        s->v2 = rotate(s->v2, 32);
}

static void sip_word(struct sip *s, uint64_t word)
{
        s->v3 ^= word;
        sip_round(s);
        s->v0 ^= word;
}

static uint64_t sip_hash(const uint64_t seed[2], const void *data, size_t size)
{
        struct sip s = {
                seed[0] ^ UINT64_C(0x736f6d6570736575),
                seed[1] ^ UINT64_C(0x646f72616e646f6d),
                seed[0] ^ UINT64_C(0x6c7967656e657261),
                seed[1] ^ UINT64_C(0x7465646279746573),
        };
        const char *at = data;
        uint64_t word, last = (uint64_t)size << 56;

        for (; size >= 8; size -= 8, at += 8) {
                memcpy(&word, at, 8);
                sip_word(&s, word);
        }
        for (size_t i = 0; i < size; i++)
                last |= (uint64_t)(unsigned char)at[i] << (8 * i);
        sip_word(&s, last);
        s.v2 ^= 0xff;
        for (unsigned i = 0; i < 3; i++)
                sip_round(&s);
        return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static int table_init(struct table *t)
{
        int r;

        *t = (struct table){.room = ROOM_MIN};
        r = random_bytes(t->seed, sizeof(t->seed));
        if (r < 0)
                return r;
        t->slots = calloc(t->room, sizeof(*t->slots));
        return t->slots ? 0 : -ENOMEM;
}

/* Move everything to a table of `room` slots. */
static int table_resize(struct table *t, size_t room)
{
        struct slot *slots = calloc(room, sizeof(*slots));

        if (!slots)
                return -ENOMEM;
        for (size_t i = 0; i < t->room; i++) {
                size_t at = t->slots[i].hash & (room - 1);

                if (!t->slots[i].value)
                        continue;
                while (slots[at].value)
                        at = (at + 1) & (room - 1);
                slots[at] = t->slots[i];
        }
        free(t->slots);
        t->slots = slots;
        t->room = room;
        return 0;
}

/* A free slot for `hash`; grows the table first if that is due. */
static int table_make_slot(struct table *t, uint64_t hash, struct slot **ret)
{
        size_t at;

        if (t->count + 1 > t->room / 4 * 3) {
                int r = table_resize(t, t->room * 2);

                if (r < 0)
                        return r;
        }
        at = hash & (t->room - 1);
        while (t->slots[at].value)
                at = (at + 1) & (t->room - 1);
        t->count++;
        *ret = &t->slots[at];
        return 0;
}

/*
 * Free a slot and close the gap: each entry behind it that may move nearer to its own place does.
 */
static void table_vacate(struct table *t, struct slot *slot)
{
        size_t mask = t->room - 1, gap = (size_t)(slot - t->slots);

        for (size_t at = (gap + 1) & mask; t->slots[at].value; at = (at + 1) & mask) {
                size_t home = t->slots[at].hash & mask;

                if (((at - home) & mask) >= ((at - gap) & mask)) {
                        t->slots[gap] = t->slots[at];
                        gap = at;
                }
        }
        t->slots[gap] = (struct slot){0};
        t->count--;
        if (t->room > ROOM_MIN && t->count < t->room / 8)
                (void)table_resize(t, t->room / 2); /* without memory it stays large */
}

static struct slot *table_next(const struct table *t, size_t *cursor)
{
        while (*cursor < t->room) {
                struct slot *slot = &t->slots[(*cursor)++];

                if (slot->value)
                        return slot;
        }
        return NULL;
}

struct map *map_new(void)
{
        struct map *m = malloc(sizeof(*m));

        if (m && table_init(&m->t) < 0) {
                free(m);
                return NULL;
        }
        return m;
}

void map_free(struct map *m)
{
        if (!m)
                return;
        for (size_t i = 0; i < m->t.room; i++)
                free(m->t.slots[i].key.text);
        free(m->t.slots);
        free(m);
}

static struct slot *find(const struct map *m, const char *key, uint64_t hash)
{
        const struct table *t = &m->t;

        for (size_t at = hash & (t->room - 1); t->slots[at].value; at = (at + 1) & (t->room - 1))
                if (t->slots[at].hash == hash && strcmp(t->slots[at].key.text, key) == 0)
                        return &t->slots[at];
        return NULL;
}

void *map_get(const struct map *m, const char *key)
{
        const struct slot *slot = find(m, key, sip_hash(m->t.seed, key, strlen(key)));

        return slot ? slot->value : NULL;
}

int map_put(struct map *m, const char *key, void *value)
{
        uint64_t hash = sip_hash(m->t.seed, key, strlen(key));
        struct slot *slot = find(m, key, hash);
        char *copy;
        int r;

        assert(value);
        if (slot) {
                slot->value = value;
                return 0;
        }
        copy = strdup(key);
        if (!copy)
                return -ENOMEM;
        r = table_make_slot(&m->t, hash, &slot);
        if (r < 0) {
                free(copy);
                return r;
        }
        *slot = (struct slot){.hash = hash, .value = value, .key.text = copy};
        return 0;
}

void *map_remove(struct map *m, const char *key)
{
        struct slot *slot = find(m, key, sip_hash(m->t.seed, key, strlen(key)));
        void *value;

        if (!slot)
                return NULL;
        value = slot->value;
        free(slot->key.text);
        table_vacate(&m->t, slot);
        return value;
}

size_t map_count(const struct map *m)
{
        return m->t.count;
}

void *map_next(const struct map *m, size_t *cursor, const char **ret_key)
{
        struct slot *slot = table_next(&m->t, cursor);

        if (!slot)
                return NULL;
        if (ret_key)
                *ret_key = slot->key.text;
        return slot->value;
}

struct imap *imap_new(void)
{
        struct imap *m = malloc(sizeof(*m));

        if (m && table_init(&m->t) < 0) {
                free(m);
                return NULL;
        }
        return m;
}

void imap_free(struct imap *m)
{
        if (!m)
                return;
        free(m->t.slots);
        free(m);
}

static struct slot *ifind(const struct imap *m, uint64_t key, uint64_t hash)
{
        const struct table *t = &m->t;

        for (size_t at = hash & (t->room - 1); t->slots[at].value; at = (at + 1) & (t->room - 1))
                if (t->slots[at].key.number == key)
                        return &t->slots[at];
        return NULL;
}

void *imap_get(const struct imap *m, uint64_t key)
{
        const struct slot *slot = ifind(m, key, sip_hash(m->t.seed, &key, sizeof(key)));

        return slot ? slot->value : NULL;
}

int imap_put(struct imap *m, uint64_t key, void *value)
{
        uint64_t hash = sip_hash(m->t.seed, &key, sizeof(key));
        struct slot *slot = ifind(m, key, hash);
        int r;

        assert(value);
        if (slot) {
                slot->value = value;
                return 0;
        }
        r = table_make_slot(&m->t, hash, &slot);
        if (r < 0)
                return r;
        *slot = (struct slot){.hash = hash, .value = value, .key.number = key};
        return 0;
}

void *imap_remove(struct imap *m, uint64_t key)
{
        struct slot *slot = ifind(m, key, sip_hash(m->t.seed, &key, sizeof(key)));
        void *value;

        if (!slot)
                return NULL;
        value = slot->value;
        table_vacate(&m->t, slot);
        return value;
}

size_t imap_count(const struct imap *m)
{
        return m->t.count;
}

void *imap_next(const struct imap *m, size_t *cursor, uint64_t *ret_key)
{
        struct slot *slot = table_next(&m->t, cursor);

        if (!slot)
                return NULL;
        if (ret_key)
                *ret_key = slot->key.number;
        return slot->value;
}
