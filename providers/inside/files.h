/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a sandbox, as providers/files.h has them: by our agent in it (providers/agent/), or,
 * where that can't run (another architecture, a mount without exec), by the generic forms of a
 * shell there (providers/shell/); where there is neither, not at all.
 *
 * Threads: any, everywhere.
 */
#pragma once

#include "providers/inside/inside.h"

struct inside_files;

int inside_files_new(struct box *b, const struct inside_ops *ops, struct inside_files **ret);
/* No call is on its way, no file is open. Accepts NULL. */
void inside_files_free(struct inside_files *f);

/* What files need is started before somebody waits for it. Its failure is nobody's. */
void inside_warm(struct inside_files *f, struct call *c);
int inside_list(struct inside_files *f, struct call *c, const struct file_listing *what,
                struct file_list_sink *to);
int inside_stat(struct inside_files *f, struct call *c, const char *path, struct stat *ret);
int inside_readlink(struct inside_files *f, struct call *c, const char *path, char *ret,
                    size_t size);
int inside_fetch(struct inside_files *f, struct call *c, const char *const *paths, size_t count,
                 size_t size_max, struct file_sink *to);
int inside_file_open(struct inside_files *f, struct call *c, const char *path,
                     struct box_file **ret, struct stat *ret_st);
ssize_t inside_file_read(struct box_file *base, struct call *c, void *data, size_t size,
                         uint64_t offset, struct stat *ret_st);
void inside_file_close(struct box_file *base);
int inside_apply(struct inside_files *f, struct call *c, struct change *changes, size_t count);
int inside_statfs(struct inside_files *f, struct call *c, struct statvfs *ret);
