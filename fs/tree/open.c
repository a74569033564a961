/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "fs/control/grammar.h"

enum task_file output_file(const struct row *row)
{
        if (row->number == ROW_STDOUT || row->number == ROW_TASK_STDOUT)
                return TASK_STDOUT;
        return row->number == ROW_STDERR || row->number == ROW_TASK_STDERR ? TASK_STDERR
                                                                           : TASK_OUTPUT;
}

struct handle *handle_new(uint64_t node)
{
        struct handle *h = calloc(1, sizeof(*h));

        if (!h)
                return NULL;

        h->node = node;
        list_init(&h->link);
        mutex_init(&h->lock);
        mutex_init(&h->write_lock);
        lines_init(&h->lines);
        h->cmd = BUF_INIT(GRAMMAR_LINE_MAX);
        h->own = BUF_INIT(1024 * 1024);
        return h;
}

void handle_free(struct handle *h) NO_THREAD_SAFETY_ANALYSIS
{
        for (size_t i = 0; i < h->name_count; i++)
                free(h->names[i].text);
        free(h->names);
        snapshot_unref(h->text);
        task_unref(h->task);
        lines_wipe(&h->lines);
        buf_wipe(&h->cmd);
        buf_done(&h->own);
        mutex_done(&h->lock);
        mutex_done(&h->write_lock);
        slot_unref(h->slot);
        spot_done(&h->spot);
        free(h);
}

static bool can_read(int flags)
{
        return (flags & O_ACCMODE) != O_WRONLY;
}

static bool can_write(int flags)
{
        return (flags & O_ACCMODE) != O_RDONLY;
}

/* The modes say the same to everyone but root. */
static int check_access(const struct row *row, int flags)
{
        if (can_read(flags) && !(row->mode & 0400))
                return -EACCES;
        if (can_write(flags) && !(row->mode & 0200))
                return -EACCES;
        return 0;
}

/* What stat froze for this program, else what there is now. */
static int open_text(struct tree *t, struct handle *h) NO_THREAD_SAFETY_ANALYSIS
{
        uint64_t mtime_ns = 0;

        if (!can_read(h->flags))
                return 0;
        h->version = text_version(t, &h->spot);
        h->text = snapshots_frozen(t->snapshots, h->node, h->tgid);
        if (!h->text)
                h->text = text_snapshot(t, &h->spot, &mtime_ns);
        return h->text ? 0 : -ENOMEM;
}

/* One writer a cmd file, and none once it was given. */
static int open_cmd(struct tree *t, struct handle *h)
{
        struct task_info info;
        int r = 0;

        if (!can_write(h->flags))
                return 0;
        task_get(h->spot.task, &info);
        if (info.state != TASK_NEW)
                return -EBUSY;
        mutex_lock(&t->lock);
        if (imap_get(t->writers, h->node))
                r = -EBUSY;
        else
                r = imap_put(t->writers, h->node, h);
        mutex_unlock(&t->lock);
        return r;
}

static int open_task(struct tree *t, struct handle *h) NO_THREAD_SAFETY_ANALYSIS
{
        if (h->spot.row->kind == KIND_OUTPUT)
                h->task = spot_output_task(t, &h->spot, h->tgid, false);
        else
                h->task = h->spot.task ? task_ref(h->spot.task) : sandbox_latest(h->spot.sandbox);
        return h->task || h->spot.row->kind == KIND_OUTPUT ? 0 : -ENOENT;
}

static int open_kind(struct tree *t, struct handle *h, int flags)
{
        switch (h->spot.row->kind) {
        case KIND_TEXT:
        case KIND_CTL: return open_text(t, h);
        case KIND_CMD: return open_cmd(t, h) < 0 ? -EBUSY : open_text(t, h);
        case KIND_OUTPUT:
        case KIND_WAIT:
        case KIND_FOLLOW:
        case KIND_STDIN: return open_task(t, h);
        case KIND_SCRATCH:
                return can_write(flags) && (flags & O_TRUNC) ? scratch_truncate(h->spot.scratch, 0)
                                                             : 0;
        case KIND_ENV: return 0;
        case KIND_DIR:
        case KIND_FS: return -EISDIR;
        case KIND_LINK: return -ELOOP;
        }
        return -EINVAL;
}

/* Its size is the handle's while it is open: then a close must be told at once. */
static bool has_held_size(const struct handle *h)
{
        switch (h->spot.row->kind) {
        case KIND_TEXT:
        case KIND_CTL:
        case KIND_CMD: return true;
        case KIND_OUTPUT: return !h->spot.task;
        case KIND_WAIT:
        case KIND_FOLLOW:
        case KIND_STDIN:
        case KIND_SCRATCH:
        case KIND_ENV:
        case KIND_DIR:
        case KIND_FS:
        case KIND_LINK: break;
        }
        return false;
}

int handle_open(struct tree *t, struct op *op, struct spot *s, int flags, struct tree_opened *ret)
{
        struct handle *h;
        int r = s->row->kind == KIND_SCRATCH ? 0 : check_access(s->row, flags);

        if (r < 0)
                return r;
        if (t->config.is_readonly && can_write(flags))
                return -EROFS;
        h = handle_new(s->node);
        if (!h)
                return -ENOMEM;

        h->flags = flags;
        h->tgid = callers_group(t->callers, op->tid);
        h->spot = *s;
        r = open_kind(t, h, flags);
        if (r < 0) {
                h->spot = (struct spot){0}; /* still the caller's */
                handle_free(h);
                return r;
        }

        mutex_lock(&t->lock);
        list_add_head(&t->handles, &h->link);
        mutex_unlock(&t->lock);
        *s = (struct spot){0};
        *ret = (struct tree_opened){.handle = h,
                                    .is_direct = true,
                                    .no_flush = !can_write(flags) && !has_held_size(h),
                                    .backing_fd = -1};
        return 0;
}

void handle_release(struct tree *t, struct handle *h)
{
        handle_commit_rest(t, h);
        mutex_lock(&t->lock);
        list_remove(&h->link);
        if (imap_get(t->writers, h->node) == h)
                (void)imap_remove(t->writers, h->node); /* it is h */
        mutex_unlock(&t->lock);
        handle_free(h);
}

static bool size_of(struct handle *h, struct task *latest, uint64_t *ret)
{
        bool has_size = false;

        mutex_lock(&h->lock);
        if (h->is_closed) {
                /* a path's stat: what the next open gets counts */
        } else if (h->text && !h->is_own) {
                *ret = h->text->size;
                has_size = true;
        } else if (h->spot.row->kind == KIND_OUTPUT) {
                enum task_file file = output_file(h->spot.row);

                *ret = h->base + (h->task ? task_size(h->task, file) : 0);
                if (latest && latest != h->task && (h->is_all_read || !h->task))
                        *ret += task_size(latest, file);
                has_size = true;
        }
        mutex_unlock(&h->lock);
        return has_size;
}

bool handles_size(struct tree *t, uint64_t node, pid_t tgid, struct task *latest,
                  uint64_t *ret_size)
{
        bool found = false;

        mutex_lock(&t->lock);
        list_for_each (l, &t->handles) {
                struct handle *h = list_entry(l, struct handle, link);

                if (h->node == node && h->tgid == tgid && size_of(h, latest, ret_size)) {
                        found = true;
                        break;
                }
        }
        mutex_unlock(&t->lock);
        return found;
}
