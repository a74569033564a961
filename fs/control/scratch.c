/* SPDX-License-Identifier: Apache-2.0 */
/* One list of all scratch files: there are few, and they live for moments. */
#include "fs/control/scratch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

struct scratch {
        struct scratches *table;
        unsigned refs; /* guarded by atomics; a name counts as one */
        uint32_t id;

        /* guarded by table->lock */
        struct list link;
        uint64_t dir; /* 0: unlinked */
        char name[256];
        mode_t mode;
        uint64_t mtime_real_ns, ctime_real_ns;
        struct buf data;
};

struct scratches {
        struct mutex lock;
        struct list all GUARDED_BY(lock);
        uint32_t last_id GUARDED_BY(lock);
};

struct scratches *scratches_new(void)
{
        struct scratches *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;

        mutex_init(&t->lock);
        list_init(&t->all);
        return t;
}

struct scratch *scratch_ref(struct scratch *s)
{
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
        return s;
}

static void unref_locked(struct scratches *t, struct scratch *s) REQUIRES(t->lock)
{
        (void)t; /* names the lock */
        if (__atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0)
                return;
        list_remove(&s->link);
        buf_wipe(&s->data);
        free(s);
}

void scratch_unref(struct scratch *s)
{
        struct scratches *t;

        if (!s)
                return;

        t = s->table;
        mutex_lock(&t->lock);
        unref_locked(t, s);
        mutex_unlock(&t->lock);
}

void scratches_free(struct scratches *t)
{
        if (!t)
                return;

        mutex_lock(&t->lock);
        list_for_each_safe (l, tmp, &t->all) {
                struct scratch *s = list_entry(l, struct scratch, link);

                list_remove(&s->link);
                buf_wipe(&s->data);
                free(s);
        }
        mutex_unlock(&t->lock);
        mutex_done(&t->lock);
        free(t);
}

static struct scratch *find(struct scratches *t, uint64_t dir, const char *name) REQUIRES(t->lock)
{
        list_for_each (l, &t->all) {
                struct scratch *s = list_entry(l, struct scratch, link);

                if (s->dir == dir && strcmp(s->name, name) == 0)
                        return s;
        }
        return NULL;
}

struct scratch *scratches_find(struct scratches *t, uint64_t dir, const char *name)
{
        struct scratch *s;

        mutex_lock(&t->lock);
        s = find(t, dir, name);
        if (s)
                scratch_ref(s);
        mutex_unlock(&t->lock);
        return s;
}

struct scratch *scratches_by_id(struct scratches *t, uint32_t id)
{
        struct scratch *ret = NULL;

        mutex_lock(&t->lock);
        list_for_each (l, &t->all) {
                struct scratch *s = list_entry(l, struct scratch, link);

                if (s->id == id) {
                        ret = scratch_ref(s);
                        break;
                }
        }
        mutex_unlock(&t->lock);
        return ret;
}

static size_t count(struct scratches *t, uint64_t dir) REQUIRES(t->lock)
{
        size_t n = 0;

        list_for_each (l, &t->all)
                n += list_entry(l, struct scratch, link)->dir == dir;
        return n;
}

static int add(struct scratches *t, uint64_t dir, const char *name, struct scratch *s)
        REQUIRES(t->lock)
{
        if (find(t, dir, name))
                return -EEXIST;
        if (count(t, dir) >= SCRATCH_COUNT_MAX)
                return -ENOSPC;

        s->table = t;
        s->id = ++t->last_id;
        s->dir = dir;
        memcpy(s->name, name, strlen(name) + 1);
        list_add_tail(&t->all, &s->link);
        return 0;
}

int scratches_create(struct scratches *t, uint64_t dir, const char *name, mode_t mode,
                     struct scratch **ret)
{
        struct scratch *s;
        int r;

        if (strlen(name) >= sizeof(s->name))
                return -ENAMETOOLONG;
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;

        s->refs = 2; /* the name's and the caller's */
        s->mode = mode & 07777;
        s->mtime_real_ns = s->ctime_real_ns = clock_real_ns();
        s->data = BUF_INIT(SCRATCH_SIZE_MAX);

        mutex_lock(&t->lock);
        r = add(t, dir, name, s);
        mutex_unlock(&t->lock);
        if (r < 0) {
                free(s);
                return r;
        }
        *ret = s;
        return 0;
}

static void unlink_locked(struct scratches *t, struct scratch *s) REQUIRES(t->lock)
{
        s->dir = 0;
        s->ctime_real_ns = clock_real_ns();
        unref_locked(t, s);
}

int scratches_unlink(struct scratches *t, uint64_t dir, const char *name)
{
        struct scratch *s;

        mutex_lock(&t->lock);
        s = find(t, dir, name);
        if (s)
                unlink_locked(t, s);
        mutex_unlock(&t->lock);
        return s ? 0 : -ENOENT;
}

int scratches_rename(struct scratches *t, uint64_t dir, const char *name, const char *new_name)
{
        struct scratch *s, *old;

        if (strlen(new_name) >= sizeof(s->name))
                return -ENAMETOOLONG;

        mutex_lock(&t->lock);
        s = find(t, dir, name);
        old = find(t, dir, new_name);
        if (s && s != old) {
                if (old)
                        unlink_locked(t, old);
                memcpy(s->name, new_name, strlen(new_name) + 1);
                s->ctime_real_ns = clock_real_ns();
        }
        mutex_unlock(&t->lock);
        return s ? 0 : -ENOENT;
}

void scratches_drop_dir(struct scratches *t, uint64_t dir)
{
        mutex_lock(&t->lock);
        list_for_each_safe (l, tmp, &t->all) {
                struct scratch *s = list_entry(l, struct scratch, link);

                if (s->dir == dir)
                        unlink_locked(t, s);
        }
        mutex_unlock(&t->lock);
}

bool scratches_at(struct scratches *t, uint64_t dir, size_t i, char name[256], uint32_t *ret_id)
{
        bool found = false;

        mutex_lock(&t->lock);
        list_for_each (l, &t->all) {
                struct scratch *s = list_entry(l, struct scratch, link);

                if (s->dir != dir || i-- > 0)
                        continue;
                memcpy(name, s->name, sizeof(s->name));
                *ret_id = s->id;
                found = true;
                break;
        }
        mutex_unlock(&t->lock);
        return found;
}

void scratch_get(struct scratch *s, struct scratch_info *ret)
{
        mutex_lock(&s->table->lock);
        *ret = (struct scratch_info){
                .id = s->id,
                .mode = s->mode,
                .size = s->data.size,
                .mtime_real_ns = s->mtime_real_ns,
                .ctime_real_ns = s->ctime_real_ns,
                .is_named = s->dir != 0,
        };
        mutex_unlock(&s->table->lock);
}

void scratch_set_mode(struct scratch *s, mode_t mode)
{
        mutex_lock(&s->table->lock);
        s->mode = mode & 07777;
        s->ctime_real_ns = clock_real_ns();
        mutex_unlock(&s->table->lock);
}

void scratch_set_mtime(struct scratch *s, uint64_t real_ns)
{
        mutex_lock(&s->table->lock);
        s->mtime_real_ns = real_ns;
        s->ctime_real_ns = clock_real_ns();
        mutex_unlock(&s->table->lock);
}

static int resize(struct scratch *s, uint64_t size) REQUIRES(s->table->lock)
{
        if (size > SCRATCH_SIZE_MAX)
                return -EFBIG;
        if (size > s->data.size) {
                size_t more = (size_t)size - s->data.size;
                char *at = buf_reserve(&s->data, more);

                if (!at)
                        return -ENOMEM;
                memset(at, 0, more);
        }
        s->data.size = (size_t)size;
        return 0;
}

int scratch_truncate(struct scratch *s, uint64_t size)
{
        int r;

        mutex_lock(&s->table->lock);
        r = resize(s, size);
        if (r == 0)
                s->mtime_real_ns = s->ctime_real_ns = clock_real_ns();
        mutex_unlock(&s->table->lock);
        return r;
}

ssize_t scratch_read(struct scratch *s, void *data, size_t size, uint64_t offset)
{
        size_t n = 0;

        mutex_lock(&s->table->lock);
        if (offset < s->data.size) {
                n = s->data.size - (size_t)offset;
                n = n < size ? n : size;
                memcpy(data, s->data.data + offset, n);
        }
        mutex_unlock(&s->table->lock);
        return (ssize_t)n;
}

int scratch_write(struct scratch *s, const void *data, size_t size, uint64_t offset)
{
        int r = 0;

        if (offset > SCRATCH_SIZE_MAX || size > SCRATCH_SIZE_MAX - offset)
                return -EFBIG;

        mutex_lock(&s->table->lock);
        if (offset + size > s->data.size)
                r = resize(s, offset + size);
        if (r == 0 && size > 0) {
                memcpy(s->data.data + offset, data, size);
                s->mtime_real_ns = s->ctime_real_ns = clock_real_ns();
        }
        mutex_unlock(&s->table->lock);
        return r;
}

int scratch_copy(struct scratch *s, struct buf *to)
{
        int r;

        mutex_lock(&s->table->lock);
        r = buf_add(to, s->data.data, s->data.size);
        mutex_unlock(&s->table->lock);
        return r;
}
