/* SPDX-License-Identifier: Apache-2.0 */
/* A short list, searched from its start. */

#include "fs/volume/again.h"

#include <fcntl.h>
#include <unistd.h>

static struct again_one *find(struct again *a, pid_t tid) REQUIRES(a->lock)
{
        for (unsigned i = 0; i < atomic_load(&a->count); i++) {
                if (a->all[i].tid == tid)
                        return &a->all[i];
        }
        return NULL;
}

static struct again_one *oldest(struct again *a) REQUIRES(a->lock)
{
        struct again_one *found = &a->all[0];

        for (unsigned i = 1; i < atomic_load(&a->count); i++) {
                if (a->all[i].order < found->order)
                        found = &a->all[i];
        }
        return found;
}

static void drop_fd(struct again_one *x)
{
        if (x->fd >= 0)
                (void)close(x->fd); /* O_PATH */
        x->fd = -1;
}

void again_note(struct again *a, pid_t tid)
{
        struct again_one *x;

        mutex_lock(&a->lock);
        x = find(a, tid);
        if (!x && atomic_load(&a->count) < AGAIN_MAX) {
                x = &a->all[atomic_fetch_add(&a->count, 1)];
                x->fd = -1;
        } else if (!x) {
                x = oldest(a);
        }
        drop_fd(x);
        x->tid = tid;
        x->order = ++a->order;
        mutex_unlock(&a->lock);
}

void again_found(struct again *a, pid_t tid, uint64_t node, int fd)
{
        struct again_one *x;

        if (atomic_load(&a->count) == 0)
                return;
        mutex_lock(&a->lock);
        x = find(a, tid);
        if (x) {
                drop_fd(x);
                x->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* -1: as without us */
                x->node = node;
        }
        mutex_unlock(&a->lock);
}

int again_take(struct again *a, pid_t tid, uint64_t node)
{
        struct again_one *x;
        int fd = -1;

        if (atomic_load(&a->count) == 0)
                return -1;
        mutex_lock(&a->lock);
        x = find(a, tid);
        if (x) {
                if (x->fd >= 0 && x->node == node) {
                        fd = x->fd;
                        x->fd = -1;
                }
                drop_fd(x);
                *x = a->all[atomic_fetch_sub(&a->count, 1) - 1];
        }
        mutex_unlock(&a->lock);
        return fd;
}

void again_init(struct again *a)
{
        *a = (struct again){0};
        mutex_init(&a->lock);
}

void again_done(struct again *a)
{
        mutex_lock(&a->lock);
        for (unsigned i = 0; i < atomic_load(&a->count); i++)
                drop_fd(&a->all[i]);
        mutex_unlock(&a->lock);
        mutex_done(&a->lock);
}
