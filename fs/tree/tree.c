/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fs/tree/parts.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

/* ---- birth and end ---- */

int tree_new(const struct tree_config *config, const struct tree_events *events,
             struct workers *workers, struct tree **ret)
{
        struct tree *t = calloc(1, sizeof(*t));

        if (!t)
                return -ENOMEM;
        t->config = *config;
        t->events = *events;
        t->workers = workers;
        t->born_real_ns = clock_real_ns();
        mutex_init(&t->lock);
        cond_init(&t->made);
        list_init(&t->handles);
        t->listener = news_listener(t);
        t->snapshots = snapshots_new();
        t->callers = callers_new();
        t->tripwire = tripwire_new();
        t->scratches = scratches_new();
        t->removed = imap_new();
        t->writers = imap_new();
        t->slots = imap_new();
        if (!t->snapshots || !t->callers || !t->tripwire || !t->scratches || !t->removed ||
            !t->writers || !t->slots) {
                tree_free(t);
                return -ENOMEM;
        }
        *ret = t;
        return 0;
}

const struct listener *tree_listener(struct tree *t)
{
        return &t->listener;
}

void tree_start(struct tree *t, struct fleet *fleet)
{
        atomic_store(&t->fleet, fleet);
        slots_resume(t, fleet);
}

void tree_stop(struct tree *t)
{
        slots_drop(t);
        atomic_store(&t->fleet, NULL);
}

void tree_free(struct tree *t) NO_THREAD_SAFETY_ANALYSIS /* nobody else is there */
{
        if (t->slots)
                slots_drop(t);
        imap_free(t->slots);
        imap_free(t->writers);
        imap_free(t->removed);
        scratches_free(t->scratches);
        tripwire_free(t->tripwire);
        callers_free(t->callers);
        snapshots_free(t->snapshots);
        cond_done(&t->made);
        mutex_done(&t->lock);
        free(t);
}

void op_init(struct op *op, uint64_t deadline_ns)
{
        *op = (struct op){.retry_ns = NEVER_NS};
        call_init(&op->call, deadline_ns);
}

/* ---- under fs/ ---- */

static struct vol_op vol_op(struct op *op)
{
        return (struct vol_op){
                .call = &op->call,
                .umask = op->umask,
                .tid = op->tid,
                .may_wait = op->may_wait,
                .is_writeback = op->is_writeback,
        };
}

static uint64_t inner(uint64_t node)
{
        return node & VOLUME_NODE_MAX;
}

/* The volume of a node under fs/, for one operation. */
struct visit {
        struct slot *slot;
        struct volume *volume;
        const struct vol_ops *ops;
        struct vol_op op;
};

static void visit_done(struct visit *v)
{
        slot_unref(v->slot);
}

static int visit(struct tree *t, struct op *op, uint64_t node, struct visit *ret)
{
        int r = slot_get(t, op, node_serial(node), &ret->slot);

        if (r < 0)
                return r;
        ret->volume = ret->slot->volume;
        ret->ops = ret->volume->ops;
        ret->op = vol_op(op);
        op->group = node_serial(node);
        sandbox_touch(ret->slot->sandbox);
        return 0;
}

/* To change something there: not after rm -rf met a control file. */
static int visit_to_remove(struct tree *t, struct op *op, uint64_t node, struct visit *ret)
{
        if (tripwire_holds(t->tripwire, op->tid))
                return -EPERM;
        return visit(t, op, node, ret);
}

/* A new or found node of the volume as the answer. */
static int entry(struct tree *t, const struct visit *v, int r, const struct vol_entry *from,
                 struct tree_entry *ret)
{
        if (r == 0)
                slot_entry(t, v->slot, from, ret);
        return r;
}

static void opened_handle(struct handle *h, struct visit *v, const struct vol_opened *from,
                          int flags, struct tree_opened *ret)
{
        h->slot = STEAL(v->slot);
        h->file = from->file;
        h->flags = flags;
        *ret = (struct tree_opened){
                .handle = h,
                .keep_cache = from->keep_cache,
                .no_flush = (flags & O_ACCMODE) == O_RDONLY,
                .backing_fd = from->backing_fd,
        };
}

/* A handle's volume. */
#define VOLUME_OF(h) ((h)->slot->volume)
#define OPS_OF(h) ((h)->slot->volume->ops)

/* ---- names ---- */

int tree_lookup(struct tree *t, struct op *op, uint64_t parent, const char *name,
                struct tree_entry *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_entry e;
        int r;

        if (!node_is_volume(parent))
                return names_lookup(t, op, parent, name, ret);
        r = visit(t, op, parent, &v);
        r = r < 0 ? r : v.ops->lookup(v.volume, &v.op, inner(parent), name, &e);
        return entry(t, &v, r, &e, ret);
}

void tree_forget(struct tree *t, uint64_t node, uint64_t count)
{
        struct slot *s;

        if (!node_is_volume(node) || inner(node) == VOLUME_ROOT)
                return; /* those are not counted */
        s = slot_find(t, node_serial(node));
        if (s)
                s->volume->ops->forget(s->volume, inner(node), count);
        slot_unref(s);
}

int tree_readlink(struct tree *t, struct op *op, uint64_t node, char *target, size_t size)
{
        _cleanup_(visit_done) struct visit v = {0};
        _cleanup_(task_freep) struct task *latest = NULL;
        struct task_info info;
        struct spot s;
        int r;

        if (node_is_volume(node)) {
                r = visit(t, op, node, &v);
                return r < 0 ? r : v.ops->readlink(v.volume, &v.op, inner(node), target, size);
        }
        r = spot_find(t, node, &s);
        if (r < 0)
                return r;
        latest = s.row->kind == KIND_LINK ? sandbox_latest(s.sandbox) : NULL;
        spot_done(&s);
        if (!latest)
                return -EINVAL;
        task_get(latest, &info);
        if (strlen(info.name) >= size)
                return -ENAMETOOLONG;
        memcpy(target, info.name, strlen(info.name) + 1);
        return 0;
}

int tree_mkdir(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
               struct tree_entry *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_entry e;
        int r;

        if (t->config.is_readonly)
                return -EROFS;
        if (!node_is_volume(parent))
                return names_mkdir(t, op, parent, name, ret);
        r = visit(t, op, parent, &v);
        r = r < 0 ? r : v.ops->mkdir(v.volume, &v.op, inner(parent), name, mode, &e);
        return entry(t, &v, r, &e, ret);
}

int tree_mknod(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
               struct tree_entry *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_entry e;
        int r;

        if (t->config.is_readonly)
                return -EROFS;
        if (!node_is_volume(parent))
                return S_ISREG(mode) ? names_create(t, op, parent, name, mode, O_EXCL, ret, NULL)
                                     : -EPERM;
        r = visit(t, op, parent, &v);
        r = r < 0 ? r : v.ops->mknod(v.volume, &v.op, inner(parent), name, mode, &e);
        return entry(t, &v, r, &e, ret);
}

int tree_symlink(struct tree *t, struct op *op, uint64_t parent, const char *name,
                 const char *target, struct tree_entry *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_entry e;
        int r;

        if (!node_is_volume(parent))
                return -EPERM; /* links of people's own beside control files */
        r = t->config.is_readonly ? -EROFS : visit(t, op, parent, &v);
        r = r < 0 ? r : v.ops->symlink(v.volume, &v.op, inner(parent), name, target, &e);
        return entry(t, &v, r, &e, ret);
}

int tree_link(struct tree *t, struct op *op, uint64_t node, uint64_t parent, const char *name,
              struct tree_entry *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_entry e;
        int r;

        if (!node_is_volume(node) && !node_is_volume(parent))
                return -EPERM;
        if (!node_is_volume(node) || !node_is_volume(parent) ||
            node_serial(node) != node_serial(parent))
                return -EXDEV;
        r = t->config.is_readonly ? -EROFS : visit(t, op, node, &v);
        r = r < 0 ? r : v.ops->link(v.volume, &v.op, inner(node), inner(parent), name, &e);
        return entry(t, &v, r, &e, ret);
}

int tree_unlink(struct tree *t, struct op *op, uint64_t parent, const char *name)
{
        _cleanup_(visit_done) struct visit v = {0};
        int r;

        if (t->config.is_readonly)
                return -EROFS;
        if (!node_is_volume(parent))
                return tripwire_holds(t->tripwire, op->tid) ? -EPERM
                                                            : names_unlink(t, op, parent, name);
        r = visit_to_remove(t, op, parent, &v);
        return r < 0 ? r : v.ops->unlink(v.volume, &v.op, inner(parent), name);
}

int tree_rmdir(struct tree *t, struct op *op, uint64_t parent, const char *name)
{
        _cleanup_(visit_done) struct visit v = {0};
        int r;

        if (t->config.is_readonly)
                return -EROFS;
        if (!node_is_volume(parent))
                return tripwire_holds(t->tripwire, op->tid) ? -EPERM
                                                            : names_rmdir(t, op, parent, name);
        r = visit_to_remove(t, op, parent, &v);
        return r < 0 ? r : v.ops->rmdir(v.volume, &v.op, inner(parent), name);
}

int tree_rename(struct tree *t, struct op *op, uint64_t parent, const char *name,
                uint64_t new_parent, const char *new_name, unsigned flags)
{
        _cleanup_(visit_done) struct visit v = {0};
        int r;

        if (t->config.is_readonly)
                return -EROFS;
        if (!node_is_volume(parent))
                return parent == new_parent ? names_rename(t, op, parent, name, new_name, flags)
                                            : -EXDEV;
        if (!node_is_volume(new_parent) || node_serial(parent) != node_serial(new_parent))
                return -EXDEV;
        r = visit(t, op, parent, &v);
        return r < 0 ? r
                     : v.ops->rename(v.volume, &v.op, inner(parent), name, inner(new_parent),
                                     new_name, flags);
}

/* ---- attributes ---- */

int tree_getattr(struct tree *t, struct op *op, uint64_t node, struct handle *h,
                 struct tree_entry *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_entry e;
        struct spot s;
        int r;

        if (!node_is_volume(node)) {
                r = spot_find(t, node, &s);
                if (r < 0)
                        return r;
                r = spot_attr(t, op, &s, true, ret);
                spot_done(&s);
                return r;
        }
        r = visit(t, op, node, &v);
        r = r < 0 ? r : v.ops->getattr(v.volume, &v.op, inner(node), h ? h->file : NULL, &e);
        if (inner(node) == VOLUME_ROOT && v.slot && slot_root(v.slot, r, &e))
                r = 0;
        if (r < 0 && inner(node) == VOLUME_ROOT && (r == -EINPROGRESS || !v.slot) &&
            spot_find(t, node_virtual(node_serial(node), 0, ROW_FS), &s) == 0) {
                r = spot_attr(t, NULL, &s, false, ret);
                ret->entry_ttl_ns = ret->attr_ttl_ns = 0;
                spot_done(&s);
                return r;
        }
        return entry(t, &v, r, &e, ret);
}

static int set_virtual(struct tree *t, struct op *op, uint64_t node, unsigned what,
                       const struct stat *to, struct tree_entry *ret)
{
        struct spot s;
        int r = spot_find(t, node, &s);

        if (r < 0)
                return r;
        if (s.scratch) { /* other control files: success, and nothing is done */
                if (what & VOL_SET_SIZE)
                        r = scratch_truncate(s.scratch, (uint64_t)to->st_size);
                if (what & VOL_SET_MODE)
                        scratch_set_mode(s.scratch, to->st_mode);
                if (what & (VOL_SET_MTIME | VOL_SET_MTIME_NOW))
                        scratch_set_mtime(s.scratch, what & VOL_SET_MTIME_NOW
                                                             ? clock_real_ns()
                                                             : clock_from_timespec(to->st_mtim));
        }
        r = r < 0 ? r : spot_attr(t, op, &s, false, ret);
        spot_done(&s);
        return r;
}

int tree_setattr(struct tree *t, struct op *op, uint64_t node, struct handle *h, unsigned what,
                 const struct stat *to, struct tree_entry *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_entry e;
        int r;

        if (t->config.is_readonly)
                return -EROFS;
        if (!node_is_volume(node))
                return set_virtual(t, op, node, what, to, ret);
        r = visit(t, op, node, &v);
        r = r < 0 ? r
                  : v.ops->setattr(v.volume, &v.op, inner(node), h ? h->file : NULL, what, to, &e);
        return entry(t, &v, r, &e, ret);
}

int tree_statfs(struct tree *t, struct op *op, uint64_t node, struct statvfs *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        int r;

        *ret = (struct statvfs){.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
        if (!node_is_volume(node))
                return 0;
        r = visit(t, op, node, &v);
        return r < 0 ? r : v.ops->statfs(v.volume, &v.op, ret);
}

/* ---- files ---- */

int tree_create(struct tree *t, struct op *op, uint64_t parent, const char *name, mode_t mode,
                int flags, struct tree_entry *ret, struct tree_opened *ret_opened)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_opened opened;
        struct vol_entry e;
        struct handle *h;
        int r;

        if (!node_is_volume(parent))
                return names_create(t, op, parent, name, mode, flags, ret, ret_opened);
        h = handle_new(parent);
        if (!h)
                return -ENOMEM;
        r = t->config.is_readonly ? -EROFS : visit(t, op, parent, &v);
        r = r < 0 ? r
                  : v.ops->create(v.volume, &v.op, inner(parent), name, mode, flags, &e, &opened);
        if (r < 0) {
                handle_free(h);
                return r;
        }
        slot_entry(t, v.slot, &e, ret);
        h->node = ret->node;
        opened_handle(h, &v, &opened, flags, ret_opened);
        return 0;
}

static int open_virtual(struct tree *t, struct op *op, uint64_t node, int flags,
                        struct tree_opened *ret)
{
        struct spot s;
        int r = spot_find(t, node, &s);

        if (r < 0)
                return r;
        r = handle_open(t, op, &s, flags, ret);
        if (r < 0)
                spot_done(&s);
        return r;
}

int tree_open(struct tree *t, struct op *op, uint64_t node, int flags, struct tree_opened *ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct vol_opened opened;
        struct handle *h;
        int r;

        if (!node_is_volume(node))
                return open_virtual(t, op, node, flags, ret);
        if (t->config.is_readonly && (flags & O_ACCMODE) != O_RDONLY)
                return -EROFS;
        h = handle_new(node);
        if (!h)
                return -ENOMEM;
        r = visit(t, op, node, &v);
        r = r < 0 ? r : v.ops->open(v.volume, &v.op, inner(node), flags, &opened);
        if (r < 0) {
                handle_free(h);
                return r;
        }
        opened_handle(h, &v, &opened, flags, ret);
        return 0;
}

/* `r`; the sentence of an operation on a handle, which tree_op_failed knows no sandbox of. */
static ssize_t told(struct handle *h, const struct op *op, ssize_t r)
{
        if (r < 0)
                slot_failed(h->slot, op, (int)r);
        return r;
}

ssize_t tree_read(struct tree *t, struct op *op, struct handle *h, void *data, size_t size,
                  uint64_t offset)
{
        struct vol_op vop = vol_op(op);

        if (!h->file)
                return handle_read(t, op, h, data, size, offset);
        return told(h, op, OPS_OF(h)->read(VOLUME_OF(h), &vop, h->file, data, size, offset));
}

ssize_t tree_write(struct tree *t, struct op *op, struct handle *h, const void *data, size_t size,
                   uint64_t offset)
{
        struct vol_op vop = vol_op(op);

        if (!h->file)
                return handle_write(t, op, h, data, size, offset);
        return told(h, op, OPS_OF(h)->write(VOLUME_OF(h), &vop, h->file, data, size, offset));
}

int tree_flush(struct tree *t, struct op *op, struct handle *h)
{
        struct vol_op vop = vol_op(op);

        if (!h->file)
                return handle_flush(t, op, h);
        return (int)told(h, op, OPS_OF(h)->flush(VOLUME_OF(h), &vop, h->file));
}

int tree_fsync(struct tree *t, struct op *op, struct handle *h, bool data_only)
{
        struct vol_op vop = vol_op(op);

        (void)t; /* nothing of the tree's own is behind a file */
        if (!h->file)
                return 0;
        return (int)told(h, op, OPS_OF(h)->fsync(VOLUME_OF(h), &vop, h->file, data_only));
}

int tree_fallocate(struct tree *t, struct op *op, struct handle *h, int mode, uint64_t offset,
                   uint64_t size)
{
        struct vol_op vop = vol_op(op);

        (void)t; /* as above */
        return h->file ? OPS_OF(h)->fallocate(VOLUME_OF(h), &vop, h->file, mode, offset, size)
                       : -EOPNOTSUPP;
}

ssize_t tree_copy_range(struct tree *t, struct op *op, struct handle *from, uint64_t from_offset,
                        struct handle *to, uint64_t to_offset, size_t size)
{
        struct vol_op vop = vol_op(op);

        (void)t; /* as above */
        if (!from->file || !to->file || from->slot != to->slot)
                return -EXDEV; /* the caller copies by read and write */
        return OPS_OF(from)->copy_range(VOLUME_OF(from), &vop, from->file, from_offset, to->file,
                                        to_offset, size);
}

int64_t tree_lseek(struct tree *t, struct op *op, struct handle *h, int64_t offset, int whence)
{
        struct vol_op vop = vol_op(op);

        (void)t; /* as above */
        return h->file ? OPS_OF(h)->lseek(VOLUME_OF(h), &vop, h->file, offset, whence) : -ENOSYS;
}

void tree_release(struct tree *t, struct handle *h)
{
        if (!h->file) {
                handle_release(t, h);
                return;
        }
        OPS_OF(h)->release(VOLUME_OF(h), h->file);
        handle_free(h);
}

unsigned tree_poll(struct tree *t, struct op *op, struct handle *h, uint64_t *ret_key)
{
        (void)op; /* what is ready is the same for everybody */
        return handle_poll(t, h, ret_key);
}

/* ---- directories ---- */

static int opendir_virtual(struct tree *t, uint64_t node, struct handle **ret)
{
        struct spot s;
        int r = spot_find(t, node, &s);

        if (r < 0)
                return r;
        r = dir_open(t, &s, ret);
        if (r < 0)
                spot_done(&s);
        return r;
}

int tree_opendir(struct tree *t, struct op *op, uint64_t node, struct handle **ret)
{
        _cleanup_(visit_done) struct visit v = {0};
        struct handle *h;
        int r;

        if (!node_is_volume(node))
                return opendir_virtual(t, node, ret);
        h = handle_new(node);
        if (!h)
                return -ENOMEM;
        r = visit(t, op, node, &v);
        r = r < 0 ? r : v.ops->opendir(v.volume, &v.op, inner(node), &h->dir);
        if (r < 0) {
                handle_free(h);
                return r;
        }
        h->slot = STEAL(v.slot);
        *ret = h;
        return 0;
}

/* The volume's entries as the tree's. */
struct relay {
        struct vol_dir_sink sink;
        struct tree *tree;
        struct handle *handle;
        struct tree_dir_sink *to;
};

static bool relay_add(struct vol_dir_sink *sink, const char *name, const struct vol_entry *from,
                      uint64_t next_offset)
{
        struct relay *relay = container_of(sink, struct relay, sink);
        struct tree_entry e;

        slot_entry(relay->tree, relay->handle->slot, from, &e);
        return relay->to->add(relay->to, name, &e, next_offset);
}

int tree_readdir(struct tree *t, struct op *op, struct handle *h, uint64_t offset, bool plus,
                 struct tree_dir_sink *to)
{
        struct relay relay = {.sink = {relay_add}, .tree = t, .handle = h, .to = to};
        struct vol_op vop = vol_op(op);

        if (!h->dir)
                return dir_read(t, h, offset, to);
        slot_enter(op, h->slot);
        return OPS_OF(h)->readdir(VOLUME_OF(h), &vop, h->dir, offset, plus, &relay.sink);
}

int tree_fsyncdir(struct tree *t, struct op *op, struct handle *h, bool data_only)
{
        struct vol_op vop = vol_op(op);

        (void)t; /* nothing of the tree's own is behind a directory */
        if (!h->dir)
                return 0;
        return (int)told(h, op, OPS_OF(h)->fsyncdir(VOLUME_OF(h), &vop, h->dir, data_only));
}

void tree_releasedir(struct tree *t, struct handle *h)
{
        (void)t; /* open directories are in no list */
        if (h->dir)
                OPS_OF(h)->releasedir(VOLUME_OF(h), h->dir);
        handle_free(h);
}
