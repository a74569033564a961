/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small records on disk: "key value" lines, values escaped so that any bytes but NUL come back
 * exactly. A record is written whole: temporary name (".tmp-" and a random id), fsync, rename,
 * fsync of the directory; a crash leaves the old one or the new one, and perhaps a temporary file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct buf;
struct record; /* ordered pairs; a key may stand more than once */

struct record *record_new(void); /* NULL: out of memory */
void record_free(struct record *r); /* accepts NULL; wipes */
void record_freep(struct record **r);

/* Keys are [A-Za-z0-9_.-]+, else -EINVAL; -E2BIG; -ENOMEM. */
int record_add(struct record *r, const char *key, const char *value);
int record_addf(struct record *r, const char *key, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
/* The first, borrowed; NULL: absent. */
const char *record_get(const struct record *r, const char *key);
size_t record_count(const struct record *r);
void record_at(const struct record *r, size_t i, const char **ret_key, const char **ret_value);

enum record_sync {
        RECORD_SYNC, /* on disk when it returns: survives a power cut */
        RECORD_NO_SYNC, /* whole, and survives our death, but a power cut may take it back */
};

/*
 * `dir` is an open directory, `name` a single component. Mode 0600.
 *
 * Errors: -errno, -E2BIG over 1 MiB, -ENOMEM; the old record is then still there, unless it was the
 *         directory's fsync that failed (-EIO), when it is either.
 */
int record_write(const struct record *r, int dir, const char *name, enum record_sync sync);
/*
 * -ENOENT absent; -EBADMSG not one of ours (cut, damaged, over 1 MiB): the caller keeps it aside,
 * never deletes it; -errno.
 */
int record_read(int dir, const char *name, struct record **ret);

/*
 * The text of a record, appended, and back. -E2BIG, -ENOMEM; -EBADMSG when it is no record's text
 * to the last byte.
 */
int record_format(const struct record *r, struct buf *to);
int record_parse(const char *text, size_t size, struct record **ret);
