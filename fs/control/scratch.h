/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scratch files: other names beside a control file. Editors and agent tools save by writing a
 * temporary file and renaming it; so in a directory of control files a new name is a small file in
 * memory, and a rename of it onto the control file commits its content. They live until they are
 * removed, renamed onto a control file, or their directory goes.
 *
 * Threads: any; the table has a lock of its own, a leaf. A scratch file is counted: an open one
 *          outlives its name.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SCRATCH_SIZE_MAX (4 * 1024 * 1024) /* bytes a file */
#define SCRATCH_COUNT_MAX 64 /* files a directory */

struct buf;
struct scratch;
struct scratches;

struct scratch_info {
        uint32_t id; /* never 0; unique among all */
        mode_t mode; /* permission bits */
        uint64_t size;
        uint64_t mtime_real_ns, ctime_real_ns;
        bool is_named; /* false: unlinked */
};

struct scratches *scratches_new(void); /* NULL: out of memory */
void scratches_free(struct scratches *t);

struct scratch *scratch_ref(struct scratch *s);
void scratch_unref(struct scratch *s); /* accepts NULL */

/* `dir` is the directory's node number. All give references. */
struct scratch *scratches_find(struct scratches *t, uint64_t dir, const char *name);
/* also an unlinked one that is open */
struct scratch *scratches_by_id(struct scratches *t, uint32_t id);
/* -EEXIST, -ENOSPC too many, -ENAMETOOLONG, -ENOMEM */
int scratches_create(struct scratches *t, uint64_t dir, const char *name, mode_t mode,
                     struct scratch **ret);

int scratches_unlink(struct scratches *t, uint64_t dir, const char *name); /* -ENOENT */
/* Within one directory; replaces what has the new name. -ENOENT. */
int scratches_rename(struct scratches *t, uint64_t dir, const char *name, const char *new_name);
/* The directory is gone: all its files lose their names. */
void scratches_drop_dir(struct scratches *t, uint64_t dir);

/* The i-th name in the directory, in order of creation: false past the end. */
bool scratches_at(struct scratches *t, uint64_t dir, size_t i, char name[256], uint32_t *ret_id);

void scratch_get(struct scratch *s, struct scratch_info *ret);
void scratch_set_mode(struct scratch *s, mode_t mode);
void scratch_set_mtime(struct scratch *s, uint64_t real_ns);
int scratch_truncate(struct scratch *s, uint64_t size); /* -EFBIG, -ENOMEM */
ssize_t scratch_read(struct scratch *s, void *data, size_t size, uint64_t offset);
/* -EFBIG, -ENOMEM; nothing was written then */
int scratch_write(struct scratch *s, const void *data, size_t size, uint64_t offset);
int scratch_copy(struct scratch *s, struct buf *to); /* append the whole content */
