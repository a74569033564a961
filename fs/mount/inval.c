/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of holds by node, and a condition for those who wait until a count is back at zero. */

#include "fs/mount/inval.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/mount.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"
#include "transport/base/map.h"

struct hold {
        unsigned count; /* never 0 */
};

struct inval {
        struct mutex lock;
        struct cond changed; /* a hold less, is_closed, or `inside` less */
        struct imap *holds GUARDED_BY(lock); /* node -> struct hold */
        unsigned inside GUARDED_BY(lock); /* callers that wait here or in the kernel */
        struct fuse_session *fuse GUARDED_BY(lock); /* NULL: not mounted yet */
        bool is_closed GUARDED_BY(lock);
};

int inval_new(struct inval **ret)
{
        struct inval *i = calloc(1, sizeof(*i));

        if (!i)
                return -ENOMEM;
        i->holds = imap_new();
        if (!i->holds) {
                free(i);
                return -ENOMEM;
        }
        mutex_init(&i->lock);
        cond_init(&i->changed);
        *ret = i;
        return 0;
}

void inval_free(struct inval *i)
{
        if (!i)
                return;
        mutex_done(&i->lock);
        cond_done(&i->changed);
        imap_free(i->holds);
        free(i);
}

void inval_open(struct inval *i, struct fuse_session *fuse)
{
        mutex_lock(&i->lock);
        i->fuse = fuse;
        mutex_unlock(&i->lock);
}

static int hold_locked(struct inval *i, uint64_t node) REQUIRES(i->lock)
{
        struct hold *h = imap_get(i->holds, node);
        int r;

        if (h) {
                h->count++;
                return 0;
        }
        h = malloc(sizeof(*h));
        if (!h)
                return -ENOMEM;
        h->count = 1;
        r = imap_put(i->holds, node, h);
        if (r < 0)
                free(h);
        return r;
}

int inval_hold(struct inval *i, uint64_t node)
{
        int r;

        mutex_lock(&i->lock);
        r = hold_locked(i, node);
        mutex_unlock(&i->lock);
        return r;
}

void inval_release(struct inval *i, uint64_t node)
{
        struct hold *h;

        mutex_lock(&i->lock);
        h = imap_get(i->holds, node);
        assert(h && h->count > 0);
        if (--h->count == 0) {
                free(imap_remove(i->holds, node));
                cond_broadcast(&i->changed);
        }
        mutex_unlock(&i->lock);
}

/* Wait until the node has no hold. NULL: nothing is to be done; else call leave afterwards. */
static struct fuse_session *enter(struct inval *i, uint64_t node, bool waits)
{
        struct fuse_session *fuse;

        mutex_lock(&i->lock);
        i->inside++;
        while (waits && !i->is_closed && imap_get(i->holds, node))
                cond_wait(&i->changed, &i->lock);
        fuse = i->is_closed ? NULL : i->fuse;
        if (!fuse) {
                i->inside--;
                cond_broadcast(&i->changed);
        }
        mutex_unlock(&i->lock);
        return fuse;
}

static void leave(struct inval *i)
{
        mutex_lock(&i->lock);
        i->inside--;
        if (i->is_closed)
                cond_broadcast(&i->changed);
        mutex_unlock(&i->lock);
}

/* ENOENT: the kernel doesn't know it, which is as good. */
static void note(const char *what, uint64_t node, int r)
{
        if (r < 0 && r != -ENOENT)
                log_debug("fuse", "%s of node %llx: %s, ignoring", what, (unsigned long long)node,
                          errno_name(r));
}

void inval_node(struct inval *i, uint64_t node, bool attributes_only)
{
        struct fuse_session *fuse = enter(i, node, !attributes_only);

        if (!fuse)
                return;
        note("invalidation", node,
             fuse_lowlevel_notify_inval_inode(fuse, node, attributes_only ? -1 : 0, 0));
        leave(i);
}

void inval_entry(struct inval *i, uint64_t parent, const char *name)
{
        struct fuse_session *fuse = enter(i, parent, true);

        if (!fuse)
                return;
        note("invalidation of a name", parent,
             fuse_lowlevel_notify_inval_entry(fuse, parent, name, strlen(name)));
        leave(i);
}

bool inval_close(struct inval *i, uint64_t deadline_ns)
{
        bool is_empty;

        mutex_lock(&i->lock);
        i->is_closed = true;
        cond_broadcast(&i->changed);
        while (i->inside > 0 && cond_wait_until(&i->changed, &i->lock, deadline_ns))
                ;
        is_empty = i->inside == 0;
        mutex_unlock(&i->lock);
        return is_empty;
}
