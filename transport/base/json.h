/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON through cJSON, which only json.c includes. Parsing takes a length, limits depth to 64, and
 * is strict (RFC 8259): it refuses what follows the value, bytes that are no UTF-8, NUL in strings,
 * and duplicate keys; also numbers of more than 63 characters. A value belongs to its root;
 * json_free the root.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct json; /* a value; opaque */

/*
 * Errors: -EINVAL not JSON; `*ret_at`, if not NULL, is the byte where it ends to be (duplicate
 * keys: the end); -ENOMEM.
 */
int json_parse(const char *text, size_t size, struct json **ret, size_t *ret_at);
void json_free(struct json *j); /* accepts NULL; wipes strings first */
void json_freep(struct json **j);

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };
enum json_type json_type(const struct json *j);

/* NULL: absent or no object. */
const struct json *json_get(const struct json *object, const char *key);
const char *json_string(const struct json *j); /* NULL: no string. Borrowed */
bool json_bool(const struct json *j, bool *ret); /* false: no boolean */
/* False: no number, not whole, or beyond 2^53. */
bool json_integer(const struct json *j, int64_t *ret);

/*
 * Children of an array or object: json_first(j), json_next(child).
 * json_key is NULL for array members.
 */
const struct json *json_first(const struct json *j);
const struct json *json_next(const struct json *child);
const char *json_key(const struct json *child);

/*
 * Append text as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD. 0, -ENOMEM or -E2BIG.
 */
int json_add_string(struct buf *to, const char *text);
