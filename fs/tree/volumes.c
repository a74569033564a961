/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <stdlib.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

/* ---- what the volume tells the kernel ---- */

static void on_inval_node(void *ctx, uint64_t node, bool attributes_only)
{
        struct slot *s = ctx;

        s->tree->events.inval_node(s->tree->events.ctx,
                                   node_volume(sandbox_serial(s->sandbox), node), attributes_only);
}

static void on_inval_entry(void *ctx, uint64_t parent, const char *name)
{
        struct slot *s = ctx;

        s->tree->events.inval_entry(s->tree->events.ctx,
                                    node_volume(sandbox_serial(s->sandbox), parent), name);
}

static bool on_is_quiet(void *ctx)
{
        struct slot *s = ctx;

        return sandbox_is_quiet(s->sandbox);
}

/* ---- slots ---- */

void slot_unref(struct slot *s)
{
        if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0)
                return;
        if (s->volume)
                s->volume->ops->free(s->volume);
        sandbox_unref(s->sandbox);
        free(s);
}

void slot_freep(struct slot **s)
{
        slot_unref(*s);
}

static struct slot *slot_ref(struct slot *s)
{
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
        return s;
}

void slot_enter(struct op *op, struct slot *s)
{
        if (op->slot)
                return;
        op->slot = slot_ref(s);
        op->slot_token = volume_enter(s->volume);
}

void tree_op_done(struct op *op)
{
        if (!op->slot)
                return;
        volume_leave(op->slot->volume, op->slot_token);
        slot_unref(op->slot);
        op->slot = NULL;
}

struct slot *slot_find(struct tree *t, uint64_t serial)
{
        struct slot *s;

        mutex_lock(&t->lock);
        s = imap_get(t->slots, serial);
        if (s)
                slot_ref(s);
        mutex_unlock(&t->lock);
        return s;
}

/* Makes a slot with one reference; takes the sandbox's over. */
static int slot_new(struct tree *t, struct sandbox *sb, const struct box_root *root,
                    struct slot **ret)
{
        struct volume_config config = {
                .attr_ttl_ns = t->config.attr_ttl_ns,
                .has_raw_symlinks = t->config.has_raw_symlinks,
                .is_readonly = t->config.is_readonly,
        };
        struct volume_events events = {
                .inval_node = on_inval_node,
                .inval_entry = on_inval_entry,
                .is_quiet = on_is_quiet,
        };
        struct slot *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->tree = t;
        s->refs = 1;
        s->sandbox = sandbox_ref(sb);
        events.ctx = s;
        r = volume_direct_new(root, &config, &events, &s->volume);
        if (r < 0) {
                slot_unref(s);
                return r;
        }
        *ret = s;
        return 0;
}

/* Two threads may have made one; the first stays. */
static int slot_publish(struct tree *t, uint64_t serial, struct slot *mine, struct slot **ret)
{
        struct slot *there;
        int r = 0;

        mutex_lock(&t->lock);
        there = imap_get(t->slots, serial);
        if (there) {
                slot_ref(there);
        } else {
                r = imap_put(t->slots, serial, mine);
                if (r == 0)
                        slot_ref(mine); /* the table's */
        }
        mutex_unlock(&t->lock);
        if (r < 0 || there)
                slot_unref(mine);
        if (r < 0)
                return r;
        *ret = there ? there : mine;
        return 0;
}

int slot_get(struct tree *t, struct op *op, uint64_t serial, struct slot **ret)
{
        struct fleet *fleet = atomic_load(&t->fleet);
        struct slot *s = slot_find(t, serial);
        struct sandbox *sb;
        struct box_root root;
        int r;

        if (s) {
                slot_enter(op, s);
                *ret = s;
                return 0;
        }
        sb = fleet ? fleet_by_serial(fleet, serial) : NULL;
        if (!sb)
                return -ENODEV;
        r = sandbox_root(sb, &op->call, &root);
        if (r == -EINPROGRESS) {
                op->wait_key = node_virtual(serial, 0, ROW_SANDBOX);
                op->retry_ns = NEVER_NS;
        }
        if (r == 0) {
                r = slot_new(t, sb, &root, &s);
                if (r < 0)
                        (void)close(root.fd); /* only a directory was opened */
                else
                        r = slot_publish(t, serial, s, ret);
                if (r == 0)
                        slot_enter(op, *ret);
        }
        sandbox_unref(sb);
        return r;
}

void slot_gone(struct tree *t, uint64_t serial)
{
        struct slot *s;

        mutex_lock(&t->lock);
        s = imap_remove(t->slots, serial);
        mutex_unlock(&t->lock);
        if (s)
                s->volume->ops->gone(s->volume);
        slot_unref(s);
}

void slots_free(struct tree *t) NO_THREAD_SAFETY_ANALYSIS /* nobody else is there */
{
        size_t cursor = 0;
        uint64_t serial;
        struct slot *s;

        while ((s = imap_next(t->slots, &cursor, &serial)))
                slot_unref(s);
        imap_free(t->slots);
        t->slots = NULL;
}

void slot_entry(struct tree *t, const struct slot *s, const struct vol_entry *from,
                struct tree_entry *ret)
{
        *ret = (struct tree_entry){
                .node = from->node ? node_volume(sandbox_serial(s->sandbox), from->node) : 0,
                .generation = from->generation,
                .st = from->st,
                .entry_ttl_ns = from->ttl_ns,
                .attr_ttl_ns = from->ttl_ns,
        };
        /* fs/ is there before its directory is, and has one number for the sandbox's life. */
        ret->st.st_ino = from->node == VOLUME_ROOT ? ret->node
                                                   : INO_REAL | (from->st.st_ino & (INO_REAL - 1));
        ret->st.st_uid = t->config.shown_uid;
        ret->st.st_gid = t->config.shown_gid;
        ret->st.st_mode &= ~t->config.shown_umask;
}
