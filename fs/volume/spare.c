/* SPDX-License-Identifier: Apache-2.0 */
/* A few, searched from the start. */

#include "fs/volume/spare.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
        return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
        return a->st_ino == b->st_ino && a->st_size == b->st_size &&
               is_same_time(&a->st_mtim, &b->st_mtim) && is_same_time(&a->st_ctim, &b->st_ctim);
}

void spares_keep(struct spares *s, const struct stat *st, const void *data, uint64_t sent_ns,
                 uint64_t epoch)
{
        size_t size = (size_t)st->st_size;
        void *copy = malloc(size ? size : 1), *old;

        if (!copy)
                return;
        memcpy(copy, data, size);
        mutex_lock(&s->lock);
        old = s->all[s->next].data;
        s->all[s->next] = (struct spare){*st, copy, sent_ns, epoch};
        s->next = (s->next + 1) % SPARES_MAX;
        mutex_unlock(&s->lock);
        free(old);
}

void *spares_take(struct spares *s, const struct stat *st, uint64_t since_ns, uint64_t epoch,
                  uint64_t *ret_sent_ns)
{
        void *data = NULL;

        mutex_lock(&s->lock);
        for (unsigned i = 0; i < SPARES_MAX && !data; i++) {
                struct spare *x = &s->all[i];

                if (!x->data || x->epoch != epoch || x->sent_ns < since_ns || !is_same(&x->st, st))
                        continue;
                data = STEAL(x->data);
                *ret_sent_ns = x->sent_ns;
        }
        mutex_unlock(&s->lock);
        return data;
}

void spares_init(struct spares *s)
{
        *s = (struct spares){0};
        mutex_init(&s->lock);
}

void spares_done(struct spares *s)
{
        mutex_lock(&s->lock);
        for (unsigned i = 0; i < SPARES_MAX; i++)
                free(s->all[i].data);
        mutex_unlock(&s->lock);
        mutex_done(&s->lock);
}
