/* SPDX-License-Identifier: Apache-2.0 */
/* Pollers by file, and by key in lists. */

#include "fs/mount/pollers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "fs/mount/mount.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"
#include "transport/base/map.h"

struct key_pollers {
        uint64_t key;
        struct list all; /* struct poller; never empty */
};

struct poller {
        uint64_t file; /* address of the struct file: only a number here */
        struct fuse_pollhandle *handle;
        struct key_pollers *at;
        struct list link;
};

struct pollers {
        struct wakes *wakes; /* fixed */
        atomic_uint count; /* changes under lock */

        struct mutex lock;
        struct imap *by_file GUARDED_BY(lock); /* struct poller */
        struct imap *by_key GUARDED_BY(lock); /* struct key_pollers */
};

int pollers_new(struct wakes *wakes, struct pollers **ret)
{
        struct pollers *p = calloc(1, sizeof(*p));

        if (!p)
                return -ENOMEM;
        p->wakes = wakes;
        p->by_file = imap_new();
        p->by_key = imap_new();
        if (!p->by_file || !p->by_key) {
                imap_free(p->by_file);
                imap_free(p->by_key);
                free(p);
                return -ENOMEM;
        }
        mutex_init(&p->lock);
        *ret = p;
        return 0;
}

static uint64_t file_number(const struct file *file)
{
        return (uintptr_t)file;
}

static void notify_and_free(struct fuse_pollhandle *handle)
{
        int r = fuse_lowlevel_notify_poll(handle);

        if (r < 0 && r != -ENOENT)
                log_debug("fuse", "poll: %s, ignoring", errno_name(r));
        fuse_pollhandle_destroy(handle);
}

/* Out of both maps; the caller owns the handle then. NULL: there was none. */
static struct fuse_pollhandle *take_locked(struct pollers *p, uint64_t file) REQUIRES(p->lock)
{
        struct poller *x = imap_remove(p->by_file, file);
        struct fuse_pollhandle *handle;

        if (!x)
                return NULL;
        list_remove(&x->link);
        if (list_is_empty(&x->at->all)) {
                (void)imap_remove(p->by_key, x->at->key); /* it is x->at */
                free(x->at);
        }
        handle = x->handle;
        free(x);
        atomic_fetch_sub(&p->count, 1);
        return handle;
}

static struct key_pollers *of_key_locked(struct pollers *p, uint64_t key) REQUIRES(p->lock)
{
        struct key_pollers *k = imap_get(p->by_key, key);

        if (k)
                return k;
        k = malloc(sizeof(*k));
        if (!k || imap_put(p->by_key, key, k) < 0) {
                free(k);
                return NULL;
        }
        k->key = key;
        list_init(&k->all);
        return k;
}

/* 0 or -ENOMEM: then the handle is the caller's still. */
static int put_locked(struct pollers *p, uint64_t file, uint64_t key,
                      struct fuse_pollhandle *handle) REQUIRES(p->lock)
{
        struct poller *x = malloc(sizeof(*x));
        struct key_pollers *k;

        if (!x || imap_put(p->by_file, file, x) < 0) {
                free(x);
                return -ENOMEM;
        }
        k = of_key_locked(p, key);
        if (!k) {
                (void)imap_remove(p->by_file, file); /* it is x */
                free(x);
                return -ENOMEM;
        }
        *x = (struct poller){.file = file, .handle = handle, .at = k};
        list_add_tail(&k->all, &x->link);
        atomic_fetch_add(&p->count, 1);
        return 0;
}

void pollers_add(struct pollers *p, const struct file *file, uint64_t key, uint64_t seen,
                 struct fuse_pollhandle *handle)
{
        struct fuse_pollhandle *former, *late = NULL;
        uint64_t number = file_number(file);

        mutex_lock(&p->lock);
        former = take_locked(p, number);
        if (put_locked(p, number, key, handle) < 0)
                late = handle; /* the caller of poll asks once too often rather than never again */
        else if (wakes_since(p->wakes, key, seen))
                late = take_locked(p, number);
        mutex_unlock(&p->lock);
        if (former)
                fuse_pollhandle_destroy(former);
        if (late)
                notify_and_free(late);
}

void pollers_forget(struct pollers *p, const struct file *file)
{
        struct fuse_pollhandle *handle;

        if (atomic_load(&p->count) == 0)
                return; /* its own would have been put in before */
        mutex_lock(&p->lock);
        handle = take_locked(p, file_number(file));
        mutex_unlock(&p->lock);
        if (handle)
                fuse_pollhandle_destroy(handle);
}

/* One of those who wait for the key, or NULL. */
static struct fuse_pollhandle *take_of_key(struct pollers *p, uint64_t key)
{
        struct fuse_pollhandle *handle = NULL;
        struct key_pollers *k;

        mutex_lock(&p->lock);
        k = imap_get(p->by_key, key);
        if (k)
                handle = take_locked(p, list_entry(k->all.next, struct poller, link)->file);
        mutex_unlock(&p->lock);
        return handle;
}

void pollers_wake(struct pollers *p, uint64_t key)
{
        struct fuse_pollhandle *handle;

        if (atomic_load(&p->count) == 0)
                return; /* who is put in after this sees the wake that was noted before */
        while ((handle = take_of_key(p, key)))
                notify_and_free(handle);
}

void pollers_free(struct pollers *p)
{
        struct poller *x;
        size_t cursor = 0;

        if (!p)
                return;
        mutex_lock(&p->lock);
        while ((x = imap_next(p->by_file, &cursor, NULL))) {
                list_remove(&x->link);
                if (list_is_empty(&x->at->all))
                        free(x->at);
                fuse_pollhandle_destroy(x->handle);
                free(x);
        }
        mutex_unlock(&p->lock);
        imap_free(p->by_file);
        imap_free(p->by_key);
        mutex_done(&p->lock);
        free(p);
}
