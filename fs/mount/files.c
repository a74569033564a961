/* SPDX-License-Identifier: Apache-2.0 */
/* A list of all open files under a lock. */

#include "fs/mount/files.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fs/tree/tree.h"
#include "transport/base/lock.h"

struct files {
        struct mutex lock;
        struct list all GUARDED_BY(lock);
};

int files_new(struct files **ret)
{
        struct files *f = calloc(1, sizeof(*f));

        if (!f)
                return -ENOMEM;
        mutex_init(&f->lock);
        list_init(&f->all);
        *ret = f;
        return 0;
}

void files_free(struct files *f)
{
        if (!f)
                return;
        assert(list_is_empty(&f->all));
        mutex_done(&f->lock);
        free(f);
}

int files_add(struct files *f, struct handle *handle, uint64_t node, bool is_dir, struct file **ret)
{
        struct file *file = malloc(sizeof(*file));

        if (!file)
                return -ENOMEM;
        *file = (struct file){.handle = handle, .node = node, .is_dir = is_dir};
        mutex_lock(&f->lock);
        list_add_tail(&f->all, &file->link);
        mutex_unlock(&f->lock);
        *ret = file;
        return 0;
}

static void free_file(struct tree *t, struct file *file)
{
        if (file->is_dir)
                tree_releasedir(t, file->handle);
        else
                tree_release(t, file->handle);
        free(file);
}

void files_release(struct files *f, struct tree *t, struct file *file)
{
        mutex_lock(&f->lock);
        list_remove(&file->link);
        mutex_unlock(&f->lock);
        free_file(t, file);
}

static struct file *take_any(struct files *f)
{
        struct file *file = NULL;

        mutex_lock(&f->lock);
        if (!list_is_empty(&f->all)) {
                file = list_entry(f->all.next, struct file, link);
                list_remove(&file->link);
        }
        mutex_unlock(&f->lock);
        return file;
}

void files_release_all(struct files *f, struct tree *t)
{
        struct file *file;

        while ((file = take_any(f)))
                free_file(t, file);
}
