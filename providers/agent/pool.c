/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/agent/pool.h"

#include <errno.h>
#include <stdlib.h>

#include "providers/agent/direct.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"

#define LOOK_NS (50 * NS_PER_MS) /* how often a waiter looks whether it was cancelled */
#define LARGE ((uint64_t)1 << 20) /* content of so much goes where nobody waits for less */

enum lane { LANE_SMALL, LANE_CONTENT };
#define LANES AGENT_POOL_MAX /* the others of content, too */

struct agent_pool {
        struct agent_opener *opener; /* fixed after init */

        struct mutex lock;
        struct cond changed;
        /* guarded by lock */
        struct agent *agents[LANES]; /* NULL: none */
        bool is_opening[LANES];
        unsigned next; /* of content */
};

int agent_pool_new(struct agent_opener *opener, struct agent_pool **ret)
{
        struct agent_pool *p = calloc(1, sizeof(*p));

        if (!p)
                return -ENOMEM;
        p->opener = opener;
        mutex_init(&p->lock);
        cond_init(&p->changed);
        *ret = p;
        return 0;
}

void agent_pool_drop(struct agent_pool *p)
{
        for (unsigned i = 0; i < LANES; i++) {
                struct agent *a;

                mutex_lock(&p->lock);
                a = STEAL(p->agents[i]);
                mutex_unlock(&p->lock);
                agent_unref(a);
        }
}

void agent_pool_free(struct agent_pool *p)
{
        if (!p)
                return;
        agent_pool_drop(p);
        cond_done(&p->changed);
        mutex_done(&p->lock);
        free(p);
}

/* One that lives, or the right to start it (NULL). A dead one goes to *ret_dead. */
static int reserve_locked(struct agent_pool *p, struct call *c, unsigned lane, struct agent **ret,
                          struct agent **ret_dead) REQUIRES(p->lock)
{
        int r = 0;

        while (r == 0 && p->is_opening[lane]) {
                (void)cond_wait_until(&p->changed, &p->lock, clock_after(LOOK_NS));
                r = call_check(c);
        }
        if (r < 0)
                return call_fail_errno(c, r, "start the agent in the sandbox");
        if (p->agents[lane] && agent_error(p->agents[lane]) < 0)
                *ret_dead = STEAL(p->agents[lane]);
        if (p->agents[lane])
                *ret = agent_ref(p->agents[lane]);
        else
                p->is_opening[lane] = true;
        return 0;
}

static int get(struct agent_pool *p, struct call *c, unsigned lane, struct agent **ret)
{
        struct agent *found = NULL, *dead = NULL, *like = NULL;
        int r;

        mutex_lock(&p->lock);
        r = reserve_locked(p, c, lane, &found, &dead);
        if (r == 0 && !found && lane != LANE_SMALL && p->agents[LANE_SMALL])
                like = agent_ref(p->agents[LANE_SMALL]);
        mutex_unlock(&p->lock);
        agent_unref(dead);
        if (r < 0 || found) {
                *ret = found;
                return r;
        }
        r = p->opener->open(p->opener, c, like, &found);
        agent_unref(like);
        mutex_lock(&p->lock);
        if (r == 0)
                p->agents[lane] = agent_ref(found);
        p->is_opening[lane] = false;
        cond_broadcast(&p->changed);
        mutex_unlock(&p->lock);
        *ret = found;
        return r;
}

static int get_for_content(struct agent_pool *p, struct call *c, struct agent **ret)
{
        unsigned lane;

        mutex_lock(&p->lock);
        lane = LANE_CONTENT + p->next++ % (LANES - LANE_CONTENT);
        mutex_unlock(&p->lock);
        return get(p, c, lane, ret);
}

static void unrefp(struct agent **a)
{
        agent_unref(*a);
}

/* ---- one call each ---- */

int agent_pool_warm(struct agent_pool *p, struct call *c)
{
        _cleanup_(unrefp) struct agent *a = NULL;

        return get(p, c, LANE_SMALL, &a);
}

int agent_pool_list(struct agent_pool *p, struct call *c, const struct file_listing *what,
                    struct file_list_sink *to)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = get(p, c, LANE_SMALL, &a);

        return r < 0 ? r : agent_list(a, c, what, to);
}

int agent_pool_stat(struct agent_pool *p, struct call *c, const char *path, struct stat *ret)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = get(p, c, LANE_SMALL, &a);

        return r < 0 ? r : agent_stat(a, c, path, ret);
}

int agent_pool_readlink(struct agent_pool *p, struct call *c, const char *path, char *ret,
                        size_t size)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = get(p, c, LANE_SMALL, &a);

        return r < 0 ? r : agent_readlink(a, c, path, ret, size);
}

int agent_pool_fetch(struct agent_pool *p, struct call *c, const char *const *paths, size_t count,
                     size_t size_max, struct file_sink *to)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = get(p, c, LANE_SMALL, &a);

        return r < 0 ? r : agent_fetch(a, c, paths, count, size_max, to);
}

static bool is_large(const struct change *changes, size_t count)
{
        uint64_t size = 0;

        for (size_t i = 0; i < count && size < LARGE; i++) {
                if (changes[i].from)
                        size += changes[i].from->size < LARGE ? changes[i].from->size : LARGE;
        }
        return size >= LARGE;
}

int agent_pool_apply(struct agent_pool *p, struct call *c, struct change *changes, size_t count)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = is_large(changes, count) ? get_for_content(p, c, &a) : get(p, c, LANE_SMALL, &a);

        return r < 0 ? r : agent_apply(a, c, changes, count);
}

int agent_pool_statfs(struct agent_pool *p, struct call *c, struct statvfs *ret)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = get(p, c, LANE_SMALL, &a);

        return r < 0 ? r : agent_statfs(a, c, ret);
}

/* ---- open files ---- */

static int open_direct(struct agent_pool *p, struct call *c, const char *path,
                       struct agent_file *ret, struct stat *ret_st)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = get(p, c, LANE_SMALL, &a);

        *ret = (struct agent_file){0};
        return r < 0 ? r : agent_take(a, c, path, &ret->taken, ret_st);
}

int agent_pool_open(struct agent_pool *p, struct call *c, const char *path, bool reads_much,
                    struct agent_file *ret, struct stat *ret_st)
{
        _cleanup_(unrefp) struct agent *a = NULL;
        int r = open_direct(p, c, path, ret, ret_st);

        if (r != -EOPNOTSUPP)
                return r;
        r = reads_much ? get_for_content(p, c, &a) : get(p, c, LANE_SMALL, &a);
        if (r == 0)
                r = agent_open(a, c, path, &ret->handle, ret_st);
        if (r == 0)
                ret->agent = STEAL(a);
        return r;
}

ssize_t agent_file_read(struct agent_file *f, struct call *c, void *data, size_t size,
                        uint64_t offset, struct stat *ret_st)
{
        ssize_t n = f->taken ? agent_taken_read(f->taken, data, size, offset, ret_st)
                             : agent_read(f->agent, c, f->handle, data, size, offset, ret_st);

        return n == -EHOSTUNREACH ? -ESTALE : n;
}

void agent_file_close(struct agent_file *f)
{
        if (f->taken) {
                agent_taken_close(f->taken);
                return;
        }
        agent_close(f->agent, f->handle);
        agent_unref(f->agent);
}
