/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/units.h"

static struct fleet *fleet_of(struct tree *t)
{
        return atomic_load(&t->fleet);
}

static int find_scratch(struct tree *t, uint32_t id, struct spot *s)
{
        s->scratch = scratches_by_id(t->scratches, id);
        return s->scratch ? 0 : -ENOENT;
}

static int find_span(struct tree *t, unsigned row, struct spot *s)
{
        unsigned i = row - ROW_WAIT_SPAN;
        bool is_known;

        mutex_lock(&t->lock);
        is_known = i < t->span_count;
        s->seconds = is_known ? t->spans[i] : 0;
        mutex_unlock(&t->lock);
        return is_known ? 0 : -ENOENT;
}

/* What only a row number of the right kind can have beside it. */
static int find_inner(struct tree *t, uint64_t number, unsigned row, struct spot *s)
{
        int r = row >= ROW_WAIT_SPAN ? find_span(t, row, s) : 0;

        if (r < 0 || number == 0)
                return r;
        s->task = sandbox_task_by_number(s->sandbox, number);
        return s->task ? 0 : -ENOENT;
}

int spot_find(struct tree *t, uint64_t node, struct spot *ret)
{
        uint64_t serial = node_serial(node), number = node >> 8 & UINT32_MAX;
        unsigned row = node & 0xff;
        struct spot s = {.node = node, .row = row_by_number(row)};
        struct fleet *fleet = fleet_of(t);
        int r = 0;

        if (!s.row || (serial == 0) != (row < ROW_SANDBOX || (row == ROW_SCRATCH && serial == 0)))
                return -ENOENT;
        if (serial > 0) {
                s.sandbox = fleet ? fleet_by_serial(fleet, serial) : NULL;
                if (!s.sandbox)
                        return -ENODEV;
        }
        r = row == ROW_SCRATCH ? find_scratch(t, (uint32_t)number, &s)
            : serial           ? find_inner(t, number, row, &s)
                               : 0;
        if (r < 0) {
                spot_done(&s);
                return r;
        }
        *ret = s;
        return 0;
}

void spot_done(struct spot *s)
{
        task_unref(s->task);
        sandbox_unref(s->sandbox);
        scratch_unref(s->scratch);
        *s = (struct spot){0};
}

int spot_place(const struct spot *s, enum row_place *ret)
{
        if (s->row->kind != KIND_DIR)
                return -ENOTDIR;
        *ret = s->row->number == ROW_EXEC ? PLACE_EXEC : s->row->place;
        return 0;
}

/* ---- attributes ---- */

static void set_times(struct stat *st, uint64_t mtime_ns)
{
        st->st_mtim = st->st_ctim = st->st_atim = clock_timespec(mtime_ns);
}

static void set_size(struct stat *st, uint64_t size)
{
        st->st_size = (off_t)size;
        st->st_blocks = (blkcnt_t)((size + 511) / 512);
}

static uint64_t dir_mtime(struct tree *t, const struct spot *s)
{
        struct sandbox_info info;
        struct task_info task;

        if (s->row->number == ROW_ROOT)
                return fleet_of(t) ? fleet_names_real_ns(fleet_of(t)) : t->born_real_ns;
        if (s->row->number == ROW_EXEC)
                return sandbox_tasks_real_ns(s->sandbox);
        if (s->task) {
                task_get(s->task, &task);
                return task.changed_real_ns;
        }
        sandbox_get(s->sandbox, &info);
        return info.created_real_ns;
}

/* Of what the caller will read: its open handle's, what it froze, or what there is now. */
static int text_size(struct tree *t, struct op *op, struct spot *s, bool freeze, struct stat *st)
{
        pid_t tgid = op ? callers_group(t->callers, op->tid) : 0;
        uint64_t mtime_ns = t->born_real_ns, size;
        struct snapshot *now = text_snapshot(t, s, &mtime_ns), *frozen;

        set_times(st, mtime_ns);
        if (!now)
                return -ENOMEM;
        if (handles_size(t, s->node, tgid, NULL, &size)) {
                set_size(st, size);
                snapshot_unref(now);
                return 0;
        }
        frozen = snapshots_stat(t->snapshots, s->node, tgid);
        if (frozen) {
                snapshot_unref(now);
                now = frozen;
        } else if (freeze) {
                snapshots_freeze(t->snapshots, s->node, tgid, now);
        }
        set_size(st, now->size);
        snapshot_unref(now);
        return 0;
}

static struct task *task_of(const struct spot *s)
{
        return s->task ? task_ref(s->task) : sandbox_latest(s->sandbox);
}

/* For 250 ms: what is frozen is the number, as a text. */
static void freeze_task(struct tree *t, const struct spot *s, pid_t tgid, const struct task *task)
{
        struct buf text = BUF_INIT(64);
        struct snapshot *number = NULL;

        if (buf_addf(&text, "%" PRIu64, task_number(task)) == 0)
                number = snapshot_new(&text);
        buf_done(&text);
        if (number)
                snapshots_freeze(t->snapshots, s->node, tgid, number);
        snapshot_unref(number);
}

struct task *spot_output_task(struct tree *t, const struct spot *s, pid_t tgid, bool freeze)
{
        struct task *task = NULL;
        struct snapshot *number;
        uint64_t n;

        if (s->task)
                return task_ref(s->task);
        number = freeze ? snapshots_stat(t->snapshots, s->node, tgid)
                        : snapshots_frozen(t->snapshots, s->node, tgid);
        if (number && units_parse_count(number->data, UINT32_MAX, &n) == 0)
                task = sandbox_task_by_number(s->sandbox, n);
        snapshot_unref(number);
        if (task)
                return task;
        task = sandbox_latest(s->sandbox);
        if (task && freeze)
                freeze_task(t, s, tgid, task);
        return task;
}

static void output_size(struct tree *t, struct op *op, struct spot *s, struct stat *st)
{
        pid_t tgid = op ? callers_group(t->callers, op->tid) : 0;
        _cleanup_(task_freep) struct task *task = spot_output_task(t, s, tgid, op != NULL);
        struct task_info info;
        uint64_t size;

        set_times(st, dir_mtime(t, s));
        if (task) {
                task_get(task, &info);
                set_times(st, info.output_real_ns ? info.output_real_ns : info.changed_real_ns);
                set_size(st, task_size(task, output_file(s->row)));
        }
        /* The latest exec's files change under a reader: its own handle decides for it. */
        if (!s->task && op && handles_size(t, s->node, tgid, task, &size))
                set_size(st, size);
}

/* wait and follow have size 0 until the end, then that of their content. */
static void blocking_size(struct spot *s, struct stat *st)
{
        _cleanup_(task_freep) struct task *task = task_of(s);
        struct task_info info;

        if (!task)
                return;
        task_get(task, &info);
        set_times(st, info.changed_real_ns);
        if (info.state != TASK_ENDED)
                return;
        set_size(st,
                 s->row->kind == KIND_WAIT ? strlen(info.wait) + 1 : task_size(task, TASK_OUTPUT));
}

static void scratch_attr(struct spot *s, struct stat *st)
{
        struct scratch_info info;

        scratch_get(s->scratch, &info);
        st->st_mode = S_IFREG | info.mode;
        st->st_nlink = info.is_named;
        set_size(st, info.size);
        st->st_mtim = st->st_atim = clock_timespec(info.mtime_real_ns);
        st->st_ctim = clock_timespec(info.ctime_real_ns);
}

static void link_attr(struct spot *s, struct stat *st)
{
        _cleanup_(task_freep) struct task *task = sandbox_latest(s->sandbox);
        struct task_info info;

        if (!task)
                return;
        task_get(task, &info);
        set_size(st, strlen(info.name));
        set_times(st, sandbox_tasks_real_ns(s->sandbox));
}

static mode_t mode_for(const struct tree *t, const struct row *row)
{
        if (!t->config.allow_other || row->kind == KIND_LINK)
                return row->mode;
        if (S_ISDIR(row->mode))
                return row->mode | 0055;
        return row->mode == (S_IFREG | 0400) ? row->mode | 0044 : row->mode;
}

/* fs/ while its volume can't be asked: local, at once. */
static int fs_attr(struct tree *t, struct op *op, struct spot *s, struct tree_entry *ret)
{
        uint64_t serial = sandbox_serial(s->sandbox);
        _cleanup_(slot_freep) struct slot *slot = NULL;
        struct vol_op vop = {.call = op ? &op->call : NULL};
        struct vol_entry entry;

        ret->node = node_volume(serial, VOLUME_ROOT);
        ret->st.st_ino = ret->node;
        ret->entry_ttl_ns = DIR_TTL_NS;
        if (op && slot_get(t, op, serial, &slot) == 0 &&
            slot->volume->ops->getattr(slot->volume, &vop, VOLUME_ROOT, NULL, &entry) == 0) {
                slot_entry(t, slot, &entry, ret);
                ret->entry_ttl_ns = DIR_TTL_NS;
        }
        return 0;
}

int spot_attr(struct tree *t, struct op *op, struct spot *s, bool freeze, struct tree_entry *ret)
{
        struct stat *st = &ret->st;
        int r = 0;

        *ret = (struct tree_entry){.node = s->node};
        st->st_ino = s->node;
        st->st_mode = mode_for(t, s->row);
        st->st_nlink = 1;
        st->st_uid = t->config.uid;
        st->st_gid = t->config.gid;
        st->st_blksize = 4096;

        switch (s->row->kind) {
        case KIND_DIR:
                set_times(st, dir_mtime(t, s));
                /* The kernel looks at their modes in each walk of an absolute path. */
                if (s->row->number == ROW_SANDBOX || s->row->number == ROW_ROOT)
                        ret->entry_ttl_ns = ret->attr_ttl_ns = DIR_TTL_NS;
                break;
        case KIND_FS:
                set_times(st, dir_mtime(t, s));
                r = fs_attr(t, op, s, ret);
                break;
        case KIND_LINK: link_attr(s, st); break;
        case KIND_TEXT:
        case KIND_CTL:
        case KIND_CMD: r = text_size(t, op, s, freeze, st); break;
        case KIND_ENV:
        case KIND_STDIN: set_times(st, dir_mtime(t, s)); break;
        case KIND_OUTPUT: output_size(t, op, s, st); break;
        case KIND_WAIT:
        case KIND_FOLLOW:
                set_times(st, dir_mtime(t, s));
                blocking_size(s, st);
                break;
        case KIND_SCRATCH: scratch_attr(s, st); break;
        }
        return r;
}
