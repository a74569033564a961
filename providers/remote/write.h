/* SPDX-License-Identifier: Apache-2.0 */
/* JSON written piece by piece: the first failure sticks. Pure. */
#pragma once

#include <stddef.h>

struct buf;
struct pair;

struct json_out {
        struct buf *to;
        int failed; /* 0; -ENOMEM, -E2BIG */
};

void write_raw(struct json_out *o, const char *text);
void write_string(struct json_out *o, const char *text);
/* `before`, then "key":"value". */
void write_member(struct json_out *o, const char *before, const char *key, const char *value);
/* ,"key":{"name":"value",...}; nothing where there are no pairs. */
void write_pairs(struct json_out *o, const char *key, const struct pair *pairs, size_t count);
