/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

static ssize_t copy(void *to, size_t size, const char *from, size_t from_size, uint64_t offset)
{
        size_t n;

        if (offset >= from_size)
                return 0;
        n = from_size - (size_t)offset;
        n = n < size ? n : size;
        memcpy(to, from + offset, n);
        return (ssize_t)n;
}

/* ---- text and ctl ---- */

/* A reader that comes back to the start wants to see what is true now. */
static int refresh(struct tree *t, struct handle *h)
{
        uint64_t mtime_ns = 0, version = text_version(t, &h->spot);
        struct snapshot *now = text_snapshot(t, &h->spot, &mtime_ns);

        if (!now)
                return -ENOMEM;
        mutex_lock(&h->lock);
        snapshot_unref(h->text);
        h->text = now;
        h->version = version;
        h->is_own = false;
        mutex_unlock(&h->lock);
        return 0;
}

static bool is_stale(struct handle *h, uint64_t offset)
{
        bool is;

        mutex_lock(&h->lock);
        h->is_closed = false;
        is = offset == 0 ? h->was_read || h->is_own : h->is_own && offset < h->own_base;
        h->was_read = true;
        mutex_unlock(&h->lock);
        return is;
}

static ssize_t read_text(struct tree *t, struct handle *h, void *data, size_t size, uint64_t offset)
{
        ssize_t n;

        if (is_stale(h, offset)) {
                int r = refresh(t, h);

                if (r < 0)
                        return r;
        }
        mutex_lock(&h->lock);
        if (h->is_own) {
                n = copy(data, size, buf_str(&h->own), h->own.size, offset - h->own_base);
                h->own_was_read = true;
        } else {
                n = h->text ? copy(data, size, h->text->data, h->text->size, offset) : -EBADF;
        }
        mutex_unlock(&h->lock);
        return n;
}

/* ---- output ---- */

/*
 * The top-level files follow the latest exec, but a reader first gets the end of
 * the one that it reads.
 */
static struct task *task_to_read(struct handle *h, uint64_t offset, uint64_t *ret_base)
{
        struct task *latest = h->spot.task ? NULL : sandbox_latest(h->spot.sandbox), *task;

        mutex_lock(&h->lock);
        h->is_closed = false;
        if (latest && latest != h->task && (h->at_end || !h->task)) {
                h->base =
                        h->task && offset >= h->base + task_size(h->task, output_file(h->spot.row))
                                ? offset
                                : 0;
                task_unref(h->task);
                h->task = latest;
                h->at_end = h->is_all_read = false;
                latest = NULL;
        }
        if (offset < h->base)
                h->base = 0; /* it went back: offsets begin with this exec */
        task = h->task ? task_ref(h->task) : NULL;
        *ret_base = h->base;
        mutex_unlock(&h->lock);
        task_unref(latest);
        return task;
}

static ssize_t read_output(struct handle *h, void *data, size_t size, uint64_t offset)
{
        _cleanup_(task_freep) struct task *task = NULL;
        bool had_ended;
        uint64_t base;
        ssize_t n;

        task = task_to_read(h, offset, &base);
        if (!task)
                return 0;
        had_ended = task_has_ended(task);
        n = task_read(task, output_file(h->spot.row), data, size, offset - base);
        mutex_lock(&h->lock);
        if (h->task == task) {
                h->at_end = n == 0 && had_ended;
                h->is_all_read =
                        had_ended && n >= 0 &&
                        offset - base + (uint64_t)n >= task_size(task, output_file(h->spot.row));
        }
        mutex_unlock(&h->lock);
        return n;
}

/* ---- wait and follow ---- */

static int park(struct op *op, struct handle *h, uint64_t retry_ns)
{
        op->wait_key =
                node_virtual(sandbox_serial(h->spot.sandbox), task_number(h->task), ROW_TASK);
        op->retry_ns = retry_ns;
        op->any_signal = true;
        return -EINPROGRESS;
}

static uint64_t deadline_of(struct handle *h)
{
        uint64_t ns;

        if (h->spot.row->number != ROW_WAIT_SPAN)
                return NEVER_NS;
        mutex_lock(&h->lock);
        if (!h->deadline_ns)
                h->deadline_ns = clock_after(h->spot.seconds * NS_PER_S);
        ns = h->deadline_ns;
        mutex_unlock(&h->lock);
        return ns;
}

/* The answer is made once; later reads of the handle go on in it. */
static int answer_wait(struct tree *t, struct handle *h, const char *line)
{
        struct buf text = BUF_INIT(4096);
        struct snapshot *s = NULL;

        if (buf_addf(&text, "%s\n", line) == 0)
                s = snapshot_new(&text);
        buf_done(&text);
        if (!s)
                return -ENOMEM;
        mutex_lock(&h->lock);
        if (!h->text) {
                h->text = s;
                s = NULL;
        }
        mutex_unlock(&h->lock);
        snapshot_unref(s);
        snapshots_drop(t->snapshots, h->tgid);
        return 0;
}

static bool has_answer(struct handle *h)
{
        bool has;

        mutex_lock(&h->lock);
        has = h->text != NULL;
        mutex_unlock(&h->lock);
        return has;
}

static ssize_t read_wait(struct tree *t, struct op *op, struct handle *h, void *data, size_t size,
                         uint64_t offset)
        NO_THREAD_SAFETY_ANALYSIS /* task and, once set, text don't change */
{
        struct task_info info;

        if (!has_answer(h)) {
                uint64_t deadline_ns = deadline_of(h);
                int r;

                task_get(h->task, &info);
                if (info.state != TASK_ENDED && clock_mono_ns() < deadline_ns)
                        return park(op, h, deadline_ns);
                r = answer_wait(t, h, info.state == TASK_ENDED ? info.wait : "running");
                if (r < 0)
                        return r;
        }
        return copy(data, size, h->text->data, h->text->size, offset);
}

static ssize_t read_follow(struct tree *t, struct op *op, struct handle *h, void *data, size_t size,
                           uint64_t offset) NO_THREAD_SAFETY_ANALYSIS /* task doesn't change */
{
        bool had_ended = task_has_ended(h->task);
        ssize_t n = task_read(h->task, TASK_OUTPUT, data, size, offset);

        if (n == 0 && !had_ended)
                return park(op, h, NEVER_NS);
        if (n == 0)
                snapshots_drop(t->snapshots, h->tgid);
        if (n > 0) {
                mutex_lock(&h->lock);
                h->seen = offset + (uint64_t)n;
                mutex_unlock(&h->lock);
        }
        return n;
}

ssize_t handle_read(struct tree *t, struct op *op, struct handle *h, void *data, size_t size,
                    uint64_t offset)
{
        switch (h->spot.row->kind) {
        case KIND_TEXT:
        case KIND_CTL:
        case KIND_CMD: return read_text(t, h, data, size, offset);
        case KIND_OUTPUT: return read_output(h, data, size, offset);
        case KIND_WAIT: return read_wait(t, op, h, data, size, offset);
        case KIND_FOLLOW: return read_follow(t, op, h, data, size, offset);
        case KIND_SCRATCH: return scratch_read(h->spot.scratch, data, size, offset);
        case KIND_ENV:
        case KIND_STDIN:
        case KIND_DIR:
        case KIND_FS:
        case KIND_LINK: return -EBADF;
        }
        return -EBADF;
}

/* ---- poll ---- */

static unsigned poll_text(struct tree *t, struct handle *h, uint64_t *ret_key)
{
        unsigned writable = (h->spot.row->mode & 0200) ? POLLOUT | POLLWRNORM : 0;
        uint64_t version = text_version(t, &h->spot);
        bool has_news;

        mutex_lock(&h->lock);
        has_news = !h->was_read || h->version != version || h->is_own;
        mutex_unlock(&h->lock);
        if (has_news)
                return POLLIN | POLLRDNORM | POLLPRI | writable;
        *ret_key = h->spot.task
                           ? node_virtual(node_serial(h->node), task_number(h->spot.task), ROW_TASK)
                   : h->spot.sandbox ? node_virtual(node_serial(h->node), 0, ROW_SANDBOX)
                                     : TREE_ROOT;
        return writable;
}

/* task doesn't change */
static unsigned poll_task(struct handle *h, uint64_t *ret_key) NO_THREAD_SAFETY_ANALYSIS
{
        uint64_t seen;

        if (has_answer(h) || task_has_ended(h->task))
                return POLLIN | POLLRDNORM;
        mutex_lock(&h->lock);
        seen = h->seen;
        mutex_unlock(&h->lock);
        if (h->spot.row->kind == KIND_FOLLOW && task_size(h->task, TASK_OUTPUT) > seen)
                return POLLIN | POLLRDNORM;
        *ret_key = node_virtual(sandbox_serial(h->spot.sandbox), task_number(h->task), ROW_TASK);
        return 0;
}

unsigned handle_poll(struct tree *t, struct handle *h, uint64_t *ret_key)
{
        *ret_key = 0;
        switch (h->spot.row->kind) {
        case KIND_TEXT:
        case KIND_CTL: return poll_text(t, h, ret_key);
        case KIND_WAIT:
        case KIND_FOLLOW: return poll_task(h, ret_key);
        case KIND_CMD:
        case KIND_OUTPUT:
        case KIND_SCRATCH:
        case KIND_ENV:
        case KIND_STDIN:
        case KIND_DIR:
        case KIND_FS:
        case KIND_LINK: return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
        }
        return POLLERR;
}
