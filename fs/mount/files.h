/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is open: one struct a handle of the kernel, whose address is its fh. At the end of a mount
 * the kernel sends no RELEASE for what is still open, so all of them are known here.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "transport/base/list.h"

struct files;
struct handle;
struct tree;

struct file {
        /* fixed once replied */
        struct handle *handle; /* the tree's */
        uint64_t node;
        bool is_dir;
        bool is_direct; /* direct_io: no pages of it are in the kernel */
        bool is_passthrough; /* the kernel reads and writes it by itself */
        struct list link; /* files->all; guarded by files->lock */
};

int files_new(struct files **ret);
void files_free(struct files *f); /* accepts NULL; after files_release_all */

/* Takes over `handle` on success, a directory's or a file's. -ENOMEM. */
int files_add(struct files *f, struct handle *handle, uint64_t node, bool is_dir,
              struct file **ret);

/* Give the handle back to the tree and free the struct. */
void files_release(struct files *f, struct tree *t, struct file *file);

/* No operation runs any more. */
void files_release_all(struct files *f, struct tree *t);
