/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of files.h for a local sandbox; each is what box_NAME of providers/files.h says. */
#pragma once

#include "providers/provider.h"

int local_files_list(struct box *b, struct call *c, const struct file_listing *what,
                     struct file_list_sink *to);
int local_files_stat(struct box *b, struct call *c, const char *path, struct stat *ret);
int local_files_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size);
int local_files_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
                      size_t size_max, struct file_sink *to);
int local_files_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                     struct stat *ret_st);
ssize_t local_files_read(struct box_file *base, struct call *c, void *data, size_t size,
                         uint64_t offset, struct stat *ret_st);
void local_files_close(struct box_file *base);
int local_files_apply(struct box *b, struct call *c, struct change *changes, size_t count);
int local_files_statfs(struct box *b, struct call *c, struct statvfs *ret);
int local_files_workdir(struct box *b, struct call *c, char *ret, size_t size);
