/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frozen bytes by (node, thread group). The table is small (what was looked at in the last 250 ms),
 * so it is one list, oldest first, swept at each use.
 */
#include "fs/control/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "transport/base/buf.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/lock.h"

#define FROZEN_MAX 4096 /* the oldest gives way */
#define LOOK_NS (100 * NS_PER_MS) /* between two stats of one look, at most */
#define OLD_NS NS_PER_S /* then it is renewed whatever is going on */

struct frozen {
        struct list link;
        uint64_t node;
        pid_t tgid;
        uint64_t since_ns, last_ns, until_ns;
        bool was_opened; /* after the last stat */
        struct snapshot *snapshot;
};

struct snapshots {
        struct mutex lock;
        struct list frozen GUARDED_BY(lock); /* by until_ns */
        size_t count GUARDED_BY(lock);
};

struct snapshot *snapshot_new(const struct buf *text)
{
        struct snapshot *s = malloc(sizeof(*s) + text->size + 1);

        if (!s)
                return NULL;

        s->refs = 1;
        s->size = text->size;
        memcpy(s->data, buf_str(text), text->size + 1);
        return s;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
        return s;
}

void snapshot_unref(struct snapshot *s)
{
        if (s && __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) == 0)
                free(s);
}

struct snapshots *snapshots_new(void)
{
        struct snapshots *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;

        mutex_init(&t->lock);
        list_init(&t->frozen);
        return t;
}

static void drop(struct snapshots *t, struct frozen *f) REQUIRES(t->lock)
{
        list_remove(&f->link);
        t->count--;
        snapshot_unref(f->snapshot);
        free(f);
}

void snapshots_free(struct snapshots *t) NO_THREAD_SAFETY_ANALYSIS
{
        if (!t)
                return;

        list_for_each_safe (l, tmp, &t->frozen)
                drop(t, list_entry(l, struct frozen, link));
        mutex_done(&t->lock);
        free(t);
}

static void sweep(struct snapshots *t) REQUIRES(t->lock)
{
        uint64_t now = clock_mono_ns();

        list_for_each_safe (l, tmp, &t->frozen) {
                struct frozen *f = list_entry(l, struct frozen, link);

                if (f->until_ns > now && t->count <= FROZEN_MAX)
                        break;
                drop(t, f);
        }
}

static struct frozen *find(struct snapshots *t, uint64_t node, pid_t tgid) REQUIRES(t->lock)
{
        list_for_each (l, &t->frozen) {
                struct frozen *f = list_entry(l, struct frozen, link);

                if (f->node == node && f->tgid == tgid)
                        return f;
        }
        return NULL;
}

struct snapshot *snapshots_frozen(struct snapshots *t, uint64_t node, pid_t tgid)
{
        struct snapshot *s = NULL;
        struct frozen *f;

        mutex_lock(&t->lock);
        sweep(t);
        f = find(t, node, tgid);
        if (f) {
                f->was_opened = true;
                s = snapshot_ref(f->snapshot);
        }
        mutex_unlock(&t->lock);
        return s;
}

/* Whether a stat at `now` begins a look of its own, and what is frozen is old. */
static bool is_over(const struct frozen *f, uint64_t now)
{
        if (now - f->since_ns < SNAPSHOT_FREEZE_NS)
                return false;
        return f->was_opened || now - f->last_ns > LOOK_NS || now - f->since_ns > OLD_NS;
}

struct snapshot *snapshots_stat(struct snapshots *t, uint64_t node, pid_t tgid)
{
        uint64_t now = clock_mono_ns();
        struct snapshot *s = NULL;
        struct frozen *f;

        mutex_lock(&t->lock);
        sweep(t);
        f = find(t, node, tgid);
        if (f && !is_over(f, now)) {
                f->last_ns = now;
                f->was_opened = false;
                f->until_ns = now + SNAPSHOT_FREEZE_NS;
                list_remove(&f->link);
                list_add_tail(&t->frozen, &f->link); /* by until_ns */
                s = snapshot_ref(f->snapshot);
        }
        mutex_unlock(&t->lock);
        return s;
}

void snapshots_freeze(struct snapshots *t, uint64_t node, pid_t tgid, struct snapshot *s)
{
        struct frozen *f = calloc(1, sizeof(*f)), *old;

        if (!f)
                return;

        f->node = node;
        f->tgid = tgid;
        f->since_ns = f->last_ns = clock_mono_ns();
        f->until_ns = f->since_ns + SNAPSHOT_FREEZE_NS;
        f->snapshot = snapshot_ref(s);

        mutex_lock(&t->lock);
        sweep(t);
        old = find(t, node, tgid);
        if (old)
                drop(t, old);
        list_add_tail(&t->frozen, &f->link);
        t->count++;
        mutex_unlock(&t->lock);
}

void snapshots_drop(struct snapshots *t, pid_t tgid)
{
        mutex_lock(&t->lock);
        list_for_each_safe (l, tmp, &t->frozen) {
                struct frozen *f = list_entry(l, struct frozen, link);

                if (f->tgid == tgid)
                        drop(t, f);
        }
        mutex_unlock(&t->lock);
}
