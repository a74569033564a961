/* SPDX-License-Identifier: Apache-2.0 */
/* What the forms of changes share; for forms_apply.c, forms_store.c and forms_write.c. */
#pragma once

#include <stdio.h>

#include "providers/shell/forms_private.h"

#define STORE_COUNT_MAX 500
#define STORE_BYTES_MAX ((uint64_t)8 << 20)
#define STORE_SMALL ((uint64_t)1 << 20)

/* The shell functions that the rest needs. */
int change_functions(struct buf *to);
/*
 * Around the commands of one change: its errors are told with its index, or what is at `path` then
 * (NULL: nothing).
 */
int change_begin(struct buf *to);
int change_end(struct buf *to, const struct forms *f, size_t index, const char *path,
               const char *token);
/* Read that, from out[from] on; the others' results stay. -EPROTO. */
int change_take(struct call *c, const struct buf *out, size_t from, const char *token,
                struct change *changes, size_t count);

/* " && ..." that sets size, mode and times of ./path, as the change asks. */
int change_add_set(struct buf *to, const struct forms *f, const struct change *x, const char *path,
                   bool has_mode);
/* Moves ./path to ./other, over what is there or not. */
int change_add_move(struct buf *to, const struct forms *f, const char *path, const char *other,
                    bool is_over);

/* Those of the changes that are wanted, by one script; none has content. */
int change_names(const struct forms *f, struct call *c, struct change *changes, size_t count,
                 bool (*is_wanted)(const struct change *x));

/* forms_store.c: directories and small files, of which no two have one path. */
bool store_is_small(const struct change *x);
int store_many(const struct forms *f, struct call *c, struct change *changes, size_t count);

/* forms_write.c: one CHANGE_STORE or CHANGE_WRITE, whatever its size. */
int write_one(const struct forms *f, struct call *c, struct change *x);
