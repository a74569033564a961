/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generic forms: what providers/files.h asks of files, by scripts of POSIX shell and the common
 * tools of GNU or busybox. Which of them there are is asked once.
 *
 * Meaning: as files.h has it, as far as the tools go. Times are whole seconds where stat or touch
 *          have no more. Without `mv -T` what a rename replaces goes before it comes.
 * Errors:  what the tools say of a failure, in the C locale, is what system calls said.
 * Hostile: all that comes back; sizes are bounded.
 * Threads: any, everywhere.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/files.h"
#include "providers/shell/runner.h"

enum form_can {
        FORM_STAT = 1 << 0, /* stat -c; without it there are no files at all */
        FORM_STAT_NS = 1 << 1, /* %.9Y */
        FORM_FIND = 1 << 2, /* GNU find: -printf */
        FORM_FIND_0 = 1 << 3, /* any find: -maxdepth, -print0 */
        FORM_TOUCH_H = 1 << 4, /* touch -h */
        FORM_TOUCH_NS = 1 << 5, /* touch -d @S.NNN */
        FORM_MV_T = 1 << 6,
        FORM_TAR = 1 << 7,
        FORM_TAR_NS = 1 << 8, /* it keeps nanoseconds */
        FORM_STAT_FS = 1 << 9, /* stat -f -c */
};

/* The files of one directory of a sandbox. */
struct forms {
        struct shell_runner *by; /* fixed */
        const char *root; /* absolute; fixed */
        unsigned can; /* enum form_can, as forms_probe found; fixed from then on */
};

/* -EOPNOTSUPP: what there is isn't enough; with a sentence. */
int forms_probe(struct forms *f, struct call *c);

int forms_list(const struct forms *f, struct call *c, const struct file_listing *what,
               struct file_list_sink *to);
int forms_stat(const struct forms *f, struct call *c, const char *path, struct stat *ret);
int forms_readlink(const struct forms *f, struct call *c, const char *path, char *ret, size_t size);
int forms_statfs(const struct forms *f, struct call *c, struct statvfs *ret);
int forms_fetch(const struct forms *f, struct call *c, const char *const *paths, size_t count,
                size_t size_max, struct file_sink *to);
/* A part of a regular file, by its path. */
ssize_t forms_read(const struct forms *f, struct call *c, const char *path, void *data, size_t size,
                   uint64_t offset, struct stat *ret_st);
int forms_apply(const struct forms *f, struct call *c, struct change *changes, size_t count);
