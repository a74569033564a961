/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies: what the tree answered, in the kernel's form. Each takes the tree's return code first:
 * -EINPROGRESS is passed back and nothing is replied; another error is replied as such; else the
 * result is. After a reply r->fuse is gone, and with it, maybe, the node.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct fuse_entry_param;
struct handle;
struct mount;
struct request;
struct statvfs;
struct tree_entry;
struct tree_opened;

void reply_fill_entry(struct fuse_entry_param *to, const struct tree_entry *e);

/* `code` is 0 or -errno. */
int reply_err(struct request *r, int code);
int reply_entry(struct mount *m, struct request *r, int code, const struct tree_entry *e);
int reply_attr(struct request *r, int code, const struct tree_entry *e);
int reply_text(struct request *r, int code, const char *text);
int reply_data(struct request *r, ssize_t code, const void *data); /* `code` bytes of it */
int reply_count(struct request *r, ssize_t code); /* of a write */
int reply_offset(struct request *r, int64_t code);
int reply_statfs(struct request *r, int code, const struct statvfs *st);

/*
 * Make the handle known and reply; whatever fails gives it back to the tree.
 * `e` is NULL but for create.
 */
int reply_opened(struct mount *m, struct request *r, int code, const struct tree_entry *e,
                 uint64_t node, const struct tree_opened *opened);
int reply_opendir(struct mount *m, struct request *r, int code, struct handle *handle);
