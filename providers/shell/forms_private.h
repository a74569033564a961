/* SPDX-License-Identifier: Apache-2.0 */
/* For forms*.c only. */
#pragma once

#include "providers/shell/forms.h"
#include "providers/shell/say.h"
#include "transport/base/buf.h"

#define FORMS_SCRIPT_MAX ((size_t)6 << 20)
#define FORMS_ANSWER_MAX ((size_t)64 << 20)
#define FORMS_PATHS ((size_t)64 * 1024) /* bytes of paths in one command */
#define FORMS_PATHS_COUNT 1000
#define FORMS_NO_ROOT 66 /* exit code: the directory itself can't be entered */

/* A script that begins in the directory; paths are added as ./PATH. */
int forms_begin(const struct forms *f, struct buf *script);
int forms_add_path(struct buf *to, const char *path); /* quoted; "." for "" */
/* stat -c FORMAT, up to the first path. */
int forms_add_stat(const struct forms *f, struct buf *to, const char *behind);
/* Run it, its output into `out`; the exit code, or -errno. */
int forms_run(const struct forms *f, struct call *c, const struct buf *script, struct buf *out);

/*
 * A line of stat -c at the beginning of `text` that ends with this path: the bytes it takes, 0 when
 * it is another's, or none.
 */
size_t forms_take_named(const char *text, size_t size, const char *path, struct stat *ret);

/* Attributes of each path; errors[i] is 0 or why not. */
int forms_stat_all(const struct forms *f, struct call *c, const char *const *paths, size_t count,
                   struct stat *ret, int *errors);
