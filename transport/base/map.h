/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash maps from a string or a 64-bit number to a pointer. The map owns copies of string keys,
 * never the values. Hashes are seeded at random: a hostile server can't choose colliding names.
 * Guarded by the owner's lock.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct map; /* string keys: any bytes but NUL */
struct imap; /* uint64_t keys */

struct map *map_new(void); /* NULL: out of memory */
void map_free(struct map *m); /* accepts NULL */
void *map_get(const struct map *m, const char *key);
int map_put(struct map *m, const char *key, void *value); /* replaces; not NULL; 0 or -ENOMEM */
void *map_remove(struct map *m, const char *key); /* the value that was there, or NULL */
size_t map_count(const struct map *m);

struct imap *imap_new(void);
void imap_free(struct imap *m);
void *imap_get(const struct imap *m, uint64_t key);
int imap_put(struct imap *m, uint64_t key, void *value);
void *imap_remove(struct imap *m, uint64_t key);
size_t imap_count(const struct imap *m);

/*
 * Walk all entries in no order: start with *cursor = 0; NULL at the end.
 * No change of the map while walking.
 */
void *map_next(const struct map *m, size_t *cursor, const char **ret_key);
void *imap_next(const struct imap *m, size_t *cursor, uint64_t *ret_key);
