/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control/commands.h"
#include "fs/control/grammar.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/worker.h"

#define SETTLE_NS (200 * NS_PER_MS)

/* ---- a name that went without the kernel's doing ---- */

struct settle {
        struct tree *tree;
        struct mutex lock;
        struct cond done;
        bool is_done;
        unsigned refs; /* guarded by lock */
        char name[NAME_SIZE];
};

static void settle_unref(struct settle *s)
{
        unsigned left;

        mutex_lock(&s->lock);
        left = --s->refs;
        mutex_unlock(&s->lock);
        if (left > 0)
                return;
        cond_done(&s->done);
        mutex_done(&s->lock);
        free(s);
}

static void settle_run(void *arg)
{
        struct settle *s = arg;

        s->tree->events.inval_entry(s->tree->events.ctx, TREE_ROOT, s->name);
        mutex_lock(&s->lock);
        s->is_done = true;
        cond_signal(&s->done);
        mutex_unlock(&s->lock);
        settle_unref(s);
}

/*
 * `destroy` frees a name while the kernel still knows it: have it forget before the writer goes on,
 * so that mkdir of the same name works.
 */
static void settle_name(struct tree *t, const char *name)
{
        uint64_t deadline_ns = clock_after(SETTLE_NS);
        struct settle *s = calloc(1, sizeof(*s));

        if (!s)
                return; /* it forgets within a second by itself */
        s->tree = t;
        s->refs = 2;
        mutex_init(&s->lock);
        cond_init(&s->done);
        memcpy(s->name, name, strlen(name) + 1);
        if (workers_submit(t->workers, WORKER_FAST, settle_run, s) < 0) {
                settle_unref(s);
                settle_unref(s);
                return;
        }
        mutex_lock(&s->lock);
        while (!s->is_done && cond_wait_until(&s->done, &s->lock, deadline_ns))
                ;
        mutex_unlock(&s->lock);
        settle_unref(s);
}

/* ---- commits ---- */

struct commit {
        struct tree *tree;
        struct spot *spot;
        struct buf values;
};

static int commit_ctl(struct commit *c, const char *text, size_t size)
{
        _cleanup_(slot_freep) struct slot *slot =
                c->spot->sandbox ? slot_find(c->tree, sandbox_serial(c->spot->sandbox)) : NULL;
        struct commands_at at = {
                .fleet = atomic_load(&c->tree->fleet),
                .sandbox = c->spot->sandbox,
                .task = c->spot->task,
                .volume = slot ? slot->volume : NULL,
                .reload = c->tree->events.reload,
                .reload_ctx = c->tree->events.ctx,
                .workers = c->tree->workers,
        };
        bool is_destroyed = false;
        char name[NAME_SIZE] = "";
        int r;

        if (!at.fleet)
                return -EAGAIN;
        if (at.sandbox)
                sandbox_get_name(at.sandbox, name);
        r = commands_run(&at, text, size, &c->values, &is_destroyed);
        if (r == 0 && is_destroyed)
                settle_name(c->tree, name);
        return r;
}

/* Whole lines of ctl or env; a lines_fn. */
static int commit_lines(void *ctx, const char *text, size_t size)
{
        struct commit *c = ctx;

        if (c->spot->row->kind == KIND_ENV)
                return commands_env(c->spot->sandbox, text, size);
        return commit_ctl(c, text, size);
}

/* What this descriptor wrote is what it reads from here on. */
static void remember_values(struct handle *h, struct commit *c, uint64_t end)
{
        mutex_lock(&h->lock);
        if (h->own_was_read || !h->is_own)
                buf_clear(&h->own);
        /* a result that is not told, not a failure */
        (void)buf_add(&h->own, c->values.data, c->values.size);
        h->own_base = end;
        h->is_own = true;
        h->own_was_read = false;
        mutex_unlock(&h->lock);
}

static int write_lines(struct tree *t, struct op *op, struct handle *h, const void *data,
                       size_t size, uint64_t offset)
{
        struct commit c = {.tree = t, .spot = &h->spot, .values = BUF_INIT(1024 * 1024)};
        int r;

        mutex_lock(&h->write_lock);
        h->writer = op->lock_owner;
        r = lines_write(&h->lines, data, size, commit_lines, &c);
        mutex_unlock(&h->write_lock);
        if (r == 0 && h->spot.row->kind == KIND_CTL)
                remember_values(h, &c, offset + size);
        buf_done(&c.values);
        snapshots_drop(t->snapshots, h->tgid);
        return r;
}

static int write_cmd(struct handle *h, const void *data, size_t size, uint64_t offset)
{
        int r = 0;

        mutex_lock(&h->write_lock);
        if (offset == h->cmd.size || (h->flags & O_APPEND))
                r = buf_add(&h->cmd, data, size);
        else if (offset < h->cmd.size && size <= h->cmd.size - offset)
                memcpy(h->cmd.data + offset, data, size);
        else
                r = -EINVAL; /* a hole in a command has no meaning */
        mutex_unlock(&h->write_lock);
        return r;
}

/* task doesn't change */
static int write_stdin(struct handle *h, const void *data, size_t size) NO_THREAD_SAFETY_ANALYSIS
{
        int r = task_write_stdin(h->task, data, size);

        if (r == -EBUSY)
                sandbox_say_error(h->spot.sandbox, r,
                                  "stdin of that exec is not open: start it with stdin=open");
        return r;
}

ssize_t handle_write(struct tree *t, struct op *op, struct handle *h, const void *data, size_t size,
                     uint64_t offset)
{
        int r = -EBADF;

        switch (h->spot.row->kind) {
        case KIND_CTL:
        case KIND_ENV: r = write_lines(t, op, h, data, size, offset); break;
        case KIND_CMD: r = write_cmd(h, data, size, offset); break;
        case KIND_STDIN: r = write_stdin(h, data, size); break;
        case KIND_SCRATCH: r = scratch_write(h->spot.scratch, data, size, offset); break;
        case KIND_TEXT:
        case KIND_OUTPUT:
        case KIND_WAIT:
        case KIND_FOLLOW:
        case KIND_DIR:
        case KIND_FS:
        case KIND_LINK: break;
        }
        return r < 0 ? r : (ssize_t)size;
}

static int flush_lines(struct tree *t, struct handle *h) REQUIRES(h->write_lock)
{
        struct commit c = {.tree = t, .spot = &h->spot, .values = BUF_INIT(1024 * 1024)};
        int r = lines_flush(&h->lines, commit_lines, &c);

        buf_done(&c.values);
        return r;
}

int handle_flush(struct tree *t, struct op *op, struct handle *h)
{
        bool is_writer = (h->flags & O_ACCMODE) == O_WRONLY;
        int r = 0;

        if (callers_group(t->callers, op->tid) == h->tgid) {
                mutex_lock(&h->lock);
                h->is_closed = true;
                mutex_unlock(&h->lock);
        }
        mutex_lock(&h->write_lock);
        if (is_writer && h->writer == op->lock_owner &&
            (h->spot.row->kind == KIND_CTL || h->spot.row->kind == KIND_ENV))
                r = flush_lines(t, h);
        else if (is_writer && h->spot.row->kind == KIND_CMD && h->cmd.size > 0)
                r = commands_cmd(h->spot.task, h->cmd.data, h->cmd.size, true);
        mutex_unlock(&h->write_lock);
        return r;
}

void handle_commit_rest(struct tree *t, struct handle *h)
{
        mutex_lock(&h->write_lock);
        if (h->spot.row->kind == KIND_CTL || h->spot.row->kind == KIND_ENV)
                (void)flush_lines(t, h); /* nobody is left to be told; the failure is in `error` */
        else if (h->spot.row->kind == KIND_CMD && h->cmd.size > 0)
                (void)commands_cmd(h->spot.task, h->cmd.data, h->cmd.size, false); /* as above */
        mutex_unlock(&h->write_lock);
}

static int commit_stdin(struct spot *s, const struct buf *text)
{
        _cleanup_(task_freep) struct task *task =
                s->task ? task_ref(s->task) : sandbox_latest(s->sandbox);

        return task ? task_write_stdin(task, text->data, text->size) : -ENOENT;
}

int commit_scratch(struct tree *t, struct spot *target, struct scratch *from)
{
        struct commit c = {.tree = t, .spot = target, .values = BUF_INIT(1024 * 1024)};
        struct buf text = BUF_INIT(SCRATCH_SIZE_MAX);
        int r = scratch_copy(from, &text);

        if (r == 0 && text.size > 0) {
                if (target->row->kind == KIND_CTL || target->row->kind == KIND_ENV)
                        r = commit_lines(&c, text.data, text.size);
                else if (target->row->kind == KIND_CMD)
                        r = commands_cmd(target->task, text.data, text.size, false);
                else if (target->row->kind == KIND_STDIN)
                        r = commit_stdin(target, &text);
        }
        buf_wipe(&text);
        buf_done(&c.values);
        return r;
}
