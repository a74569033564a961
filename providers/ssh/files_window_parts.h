/* SPDX-License-Identifier: Apache-2.0 */
/* How a window is carried out: for the files that files_window.h names. */
#pragma once

#include "providers/ssh/files_window.h"

#define WINDOW_NOTHING_YET 1 /* as an item's error */

/* ---- files_window.c ---- */

uint64_t window_content_size(const struct change *x); /* bytes that are sent */
bool window_is_large(const struct change *x); /* too large for memory */
bool window_needs_look(const struct window *w,
                       const struct change *x); /* at what it is, for times */
struct sftp_set item_set(const struct window_item *i);
int item_read(struct window_item *i); /* its content into memory. 0 or -errno */

/* ---- files_batch.c ---- */

/* A list of requests with the item of each. */
struct batch {
        struct window *w;
        struct sftp_op *ops;
        size_t count, room;
};

bool batch_init(struct batch *b, struct window *w,
                size_t room); /* false: no memory; free(b->ops) */
struct sftp_op *batch_add(struct batch *b, struct window_item *i, enum sftp_type type,
                          const char *path);
/* All at once where their order is kept, else one by one. The item has the first that failed. */
int batch_run(struct batch *b);
/* The first failure of those requests of an item that matter. */
void batch_take_errors(struct batch *b);

/* ---- files_fill.c ---- */

size_t window_write_count(const struct window *w, const struct change *x); /* most requests of it */
/* Content, attributes, end: of an open file. */
void window_add_content(struct batch *b, struct window_item *i);
/* Temporary files, and those in place; by SFTP what tar didn't do. -errno: the call has failed. */
int window_fill(struct window *w);

/* ---- files_names.c ---- */

/* All that can be seen, in its order. -errno: the call has failed. */
int window_name(struct window *w);
