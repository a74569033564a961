/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/sandbox/results.h"
#include "transport/base/cleanup.h"
#include "transport/base/names.h"
#include "transport/base/units.h"

#define SPAN_SECONDS_MAX (7 * 24 * 3600)

/* ---- lookup ---- */

/*
 * The row number that stands for wait.SECONDS, 0 when the name is none, or there are too many
 * different ones.
 */
static unsigned span_row(struct tree *t, const char *name)
{
        unsigned row = 0;
        uint64_t seconds;

        if (strncmp(name, "wait.", 5) != 0 ||
            units_parse_count(name + 5, SPAN_SECONDS_MAX, &seconds) < 0)
                return 0;
        mutex_lock(&t->lock);
        for (unsigned i = 0; i < t->span_count && !row; i++) {
                if (t->spans[i] == seconds)
                        row = ROW_WAIT_SPAN + i;
        }
        if (!row && t->span_count < SPANS_MAX) {
                t->spans[t->span_count] = (uint32_t)seconds;
                row = ROW_WAIT_SPAN + t->span_count++;
        }
        mutex_unlock(&t->lock);
        return row;
}

static uint64_t child_by_row(struct tree *t, const struct spot *dir, enum row_place place,
                             const char *name)
{
        const struct row *row = row_by_name(place, name);
        unsigned number = row ? row->number : 0;
        uint64_t task = dir->task ? task_number(dir->task) : 0;

        if (!number && (place == PLACE_SANDBOX || place == PLACE_TASK))
                number = span_row(t, name);
        if (!number || (dir->task && names_is_removed(t, dir->node, number)) ||
            (number == ROW_UNSENT && !slot_has_unsent(t, dir->sandbox)))
                return 0;
        return node_virtual(node_serial(dir->node), task, number);
}

static uint64_t child_scratch(struct tree *t, const struct spot *dir, const char *name)
{
        struct scratch *s = scratches_find(t->scratches, dir->node, name);
        struct scratch_info info;

        if (!s)
                return 0;
        scratch_get(s, &info);
        scratch_unref(s);
        return node_virtual(node_serial(dir->node), info.id, ROW_SCRATCH);
}

static uint64_t child_sandbox(struct tree *t, const char *name)
{
        struct fleet *fleet = atomic_load(&t->fleet);
        _cleanup_(sandbox_freep) struct sandbox *sb =
                fleet && name_is_valid(name) ? fleet_find(fleet, name) : NULL;

        return sb ? node_virtual(sandbox_serial(sb), 0, ROW_SANDBOX) : 0;
}

static uint64_t child_task(const struct spot *dir, const char *name)
{
        _cleanup_(task_freep) struct task *task =
                name_is_valid(name) ? sandbox_find_task(dir->sandbox, name) : NULL;

        return task ? node_virtual(node_serial(dir->node), task_number(task), ROW_TASK) : 0;
}

static bool has_latest(const struct spot *dir)
{
        _cleanup_(task_freep) struct task *task = sandbox_latest(dir->sandbox);

        return task != NULL;
}

/* The node of a name in a directory of ours; 0: there is none. */
static uint64_t find_child(struct tree *t, const struct spot *dir, enum row_place place,
                           const char *name)
{
        uint64_t node = child_by_row(t, dir, place, name);

        if (node && place == PLACE_EXEC && !has_latest(dir))
                return 0; /* `last` of none */
        if (!node && place == PLACE_ROOT)
                node = child_sandbox(t, name);
        if (!node && place == PLACE_EXEC)
                return child_task(dir, name);
        return node ? node : child_scratch(t, dir, name);
}

int names_lookup(struct tree *t, struct op *op, uint64_t parent, const char *name,
                 struct tree_entry *ret)
{
        struct spot dir, child;
        enum row_place place;
        uint64_t node;
        int r = spot_find(t, parent, &dir);

        if (r < 0)
                return r;
        r = spot_place(&dir, &place);
        node = r == 0 ? find_child(t, &dir, place, name) : 0;
        spot_done(&dir);
        if (r < 0 || !node)
                return r < 0 ? r : -ENOENT;

        r = spot_find(t, node, &child);
        if (r < 0)
                return r == -ENODEV ? -ENOENT : r;
        r = spot_attr(t, op, &child, false, ret);
        spot_done(&child);
        return r;
}

/* ---- making ---- */

static int make_sandbox(struct tree *t, struct op *op, const char *name, uint64_t *ret_node)
{
        _cleanup_(sandbox_freep) struct sandbox *sb = NULL;
        struct create_options o = {.name = name};
        struct fleet *fleet = atomic_load(&t->fleet);
        uint64_t seq;
        int r;

        if (!fleet)
                return -EAGAIN;
        r = fleet_check_create(fleet, &o, 0, &op->call);
        if (r < 0)
                return r;
        seq = results_add(fleet_results(fleet), name, "mkdir");
        r = fleet_create(fleet, &o, seq, &op->call, &sb);
        if (r < 0) {
                results_end(fleet_results(fleet), seq, r, op->call.sentence);
                return r;
        }
        *ret_node = node_virtual(sandbox_serial(sb), 0, ROW_SANDBOX);
        return 0;
}

static int make_task(struct op *op, const struct spot *dir, const char *name, uint64_t *ret_node)
{
        _cleanup_(task_freep) struct task *task = NULL;
        int r = sandbox_new_task(dir->sandbox, name, &op->call, &task);

        if (r < 0) {
                sandbox_say_error(dir->sandbox, r, op->call.sentence);
                return r;
        }
        *ret_node = node_virtual(node_serial(dir->node), task_number(task), ROW_TASK);
        return 0;
}

int names_mkdir(struct tree *t, struct op *op, uint64_t parent, const char *name,
                struct tree_entry *ret)
{
        struct spot dir, child;
        enum row_place place;
        uint64_t node = 0;
        int r = spot_find(t, parent, &dir);

        if (r < 0)
                return r;
        r = spot_place(&dir, &place);
        if (r == 0 && find_child(t, &dir, place, name))
                r = -EEXIST;
        if (r == 0)
                r = place == PLACE_ROOT   ? make_sandbox(t, op, name, &node)
                    : place == PLACE_EXEC ? make_task(op, &dir, name, &node)
                                          : -EPERM;
        spot_done(&dir);
        r = r < 0 ? r : spot_find(t, node, &child);
        if (r < 0)
                return r;
        r = spot_attr(t, op, &child, false, ret);
        spot_done(&child);
        return r;
}

/* The node to open: what is there, or a new scratch file. */
static int create_node(struct tree *t, const struct spot *dir, const char *name, mode_t mode,
                       int flags, uint64_t *ret_node)
{
        struct scratch_info info;
        struct scratch *s = NULL;
        enum row_place place;
        int r = spot_place(dir, &place);

        if (r < 0)
                return r;
        *ret_node = find_child(t, dir, place, name);
        if (*ret_node)
                return flags & O_EXCL ? -EEXIST : 0;
        if (place == PLACE_EXEC)
                return -EPERM; /* an exec is a directory */
        r = scratches_create(t->scratches, dir->node, name, mode, &s);
        if (r < 0)
                return r;
        scratch_get(s, &info);
        scratch_unref(s);
        *ret_node = node_virtual(node_serial(dir->node), info.id, ROW_SCRATCH);
        return 0;
}

int names_create(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
                 int flags, struct tree_entry *ret, struct tree_opened *ret_opened)
{
        struct spot dir, child;
        uint64_t node = 0;
        int r = t->config.is_readonly ? -EROFS : spot_find(t, parent, &dir);

        if (r < 0)
                return r;
        r = create_node(t, &dir, name, mode & ~op->umask, flags, &node);
        spot_done(&dir);
        r = r < 0 ? r : spot_find(t, node, &child);
        if (r < 0)
                return r;
        r = spot_attr(t, op, &child, false, ret);
        r = r < 0 ? r : ret_opened ? handle_open(t, op, &child, flags, ret_opened) : 0;
        spot_done(&child);
        return r;
}

/* ---- removing ---- */

bool names_is_removed(struct tree *t, uint64_t task_node, unsigned row)
{
        uintptr_t bits;

        mutex_lock(&t->lock);
        bits = (uintptr_t)imap_get(t->removed, task_node);
        mutex_unlock(&t->lock);
        return row >= ROW_TASK && row < ROW_TASK + 32 && (bits >> (row - ROW_TASK) & 1);
}

/*
 * rm -r of exec/N unlinks its files one by one; they are gone with the directory, until then only
 * by name.
 */
static int unlink_of_task(struct tree *t, const struct spot *dir, unsigned row)
{
        struct task_info info;
        uintptr_t bits;
        int r;

        task_get(dir->task, &info);
        if (info.state != TASK_ENDED && info.state != TASK_NEW)
                return -EBUSY;
        mutex_lock(&t->lock);
        bits = (uintptr_t)imap_get(t->removed, dir->node) | (uintptr_t)1 << (row - ROW_TASK);
        r = imap_put(t->removed, dir->node, (void *)bits);
        mutex_unlock(&t->lock);
        return r;
}

static int unlink_child(struct tree *t, struct op *op, const struct spot *dir, enum row_place place,
                        const char *name)
{
        uint64_t node = find_child(t, dir, place, name);
        unsigned row = node & 0xff;

        if (!node)
                return -ENOENT;
        if (row == ROW_SANDBOX || row == ROW_TASK || row == ROW_EXEC || row == ROW_FS)
                return -EISDIR;
        if (row == ROW_SCRATCH)
                return scratches_unlink(t->scratches, dir->node, name);
        if (dir->task)
                return unlink_of_task(t, dir, row);
        if (place != PLACE_EXEC)
                tripwire_trip(t->tripwire, op->tid);
        return -EPERM;
}

int names_unlink(struct tree *t, struct op *op, uint64_t parent, const char *name)
{
        enum row_place place;
        struct spot dir;
        int r = spot_find(t, parent, &dir);

        if (r < 0)
                return r;
        r = spot_place(&dir, &place);
        r = r < 0 ? r : unlink_child(t, op, &dir, place, name);
        spot_done(&dir);
        return r;
}

static void forget_task(struct tree *t, uint64_t task_node)
{
        mutex_lock(&t->lock);
        (void)imap_remove(t->removed, task_node); /* may never have been there */
        mutex_unlock(&t->lock);
        scratches_drop_dir(t->scratches, task_node);
}

static int rmdir_sandbox(struct tree *t, uint64_t node, const char *name, struct call *c)
{
        struct fleet *fleet = atomic_load(&t->fleet);
        struct sandbox *sb = fleet_by_serial(fleet, node_serial(node));

        if (sb)
                slot_tell_dirty(t, sb);
        sandbox_unref(sb);
        return fleet_remove(fleet, name, c);
}

static int rmdir_child(struct tree *t, struct op *op, const struct spot *dir, enum row_place place,
                       const char *name)
{
        uint64_t node = find_child(t, dir, place, name);
        int r;

        if (!node)
                return -ENOENT;
        switch (node & 0xff) {
        case ROW_SANDBOX: return rmdir_sandbox(t, node, name, &op->call);
        case ROW_TASK:
                r = sandbox_remove_task(dir->sandbox, name, &op->call);
                if (r == 0)
                        forget_task(t, node);
                return r;
        case ROW_EXEC:
        case ROW_FS: return -EPERM;
        default: return -ENOTDIR;
        }
}

int names_rmdir(struct tree *t, struct op *op, uint64_t parent, const char *name)
{
        enum row_place place;
        struct spot dir;
        int r = spot_find(t, parent, &dir);

        if (r < 0)
                return r;
        r = spot_place(&dir, &place);
        r = r < 0 ? r : rmdir_child(t, op, &dir, place, name);
        if (r < 0 && dir.sandbox && *op->call.sentence)
                sandbox_say_error(dir.sandbox, r, op->call.sentence);
        spot_done(&dir);
        return r;
}

/* ---- renaming ---- */

/* A scratch file onto a control file: one commit. */
static int rename_onto(struct tree *t, const struct spot *dir, const char *name, uint64_t target)
{
        struct scratch *from = scratches_find(t->scratches, dir->node, name);
        struct spot to;
        int r;

        if (!from)
                return -ENOENT;
        r = spot_find(t, target, &to);
        if (r == 0) {
                r = S_ISREG(to.row->mode) && (to.row->mode & 0200) ? commit_scratch(t, &to, from)
                                                                   : -EPERM;
                spot_done(&to);
        }
        scratch_unref(from);
        return r < 0 ? r : scratches_unlink(t->scratches, dir->node, name);
}

/*
 * An editor moves the file aside before it writes it anew: the new name gets a copy, the control
 * file stays.
 */
static int rename_aside(struct tree *t, uint64_t node, const struct spot *dir, const char *new_name)
{
        struct snapshot *text = NULL;
        struct scratch *to = NULL;
        uint64_t mtime_ns;
        struct spot from;
        int r = spot_find(t, node, &from);

        if (r < 0)
                return r;
        if (!S_ISREG(from.row->mode) || !(from.row->mode & 0200))
                r = -EPERM;
        if (r == 0 && from.row->mode & 0400) {
                text = text_snapshot(t, &from, &mtime_ns);
                r = text ? 0 : -ENOMEM;
        }
        spot_done(&from);
        if (r < 0)
                return r;
        (void)scratches_unlink(t->scratches, dir->node, new_name); /* a rename replaces */
        r = scratches_create(t->scratches, dir->node, new_name, 0600, &to);
        if (r == 0 && text)
                r = scratch_write(to, text->data, text->size, 0);
        scratch_unref(to);
        snapshot_unref(text);
        return r;
}

static int rename_child(struct tree *t, struct op *op, const struct spot *dir, enum row_place place,
                        const char *name, const char *new_name, unsigned flags)
{
        uint64_t from = find_child(t, dir, place, name), to = find_child(t, dir, place, new_name);
        bool to_scratch = (to & 0xff) == ROW_SCRATCH;

        if (!from)
                return -ENOENT;
        if (flags & ~(unsigned)RENAME_NOREPLACE)
                return -EINVAL;
        if (to && (flags & RENAME_NOREPLACE))
                return -EEXIST;
        switch (from & 0xff) {
        case ROW_SANDBOX:
                return to ? -EEXIST
                          : fleet_rename(atomic_load(&t->fleet), name, new_name, &op->call);
        case ROW_SCRATCH:
                return to && !to_scratch
                               ? rename_onto(t, dir, name, to)
                               : scratches_rename(t->scratches, dir->node, name, new_name);
        default:
                return place == PLACE_EXEC || (to && !to_scratch)
                               ? -EPERM
                               : rename_aside(t, from, dir, new_name);
        }
}

int names_rename(struct tree *t, struct op *op, uint64_t parent, const char *name,
                 const char *new_name, unsigned flags)
{
        enum row_place place;
        struct spot dir;
        int r = spot_find(t, parent, &dir);

        if (r < 0)
                return r;
        r = spot_place(&dir, &place);
        r = r < 0 ? r : rename_child(t, op, &dir, place, name, new_name, flags);
        if (r == 0)
                snapshots_drop(t->snapshots, callers_group(t->callers, op->tid));
        spot_done(&dir);
        return r;
}
