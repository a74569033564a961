/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/control/unsent.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

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

/* ---- how a cached volume reaches its sandbox ---- */

static int on_enter(void *ctx, struct call *c, struct box **ret)
{
        struct slot *s = ctx;

        return sandbox_files(s->sandbox, c, ret);
}

/* A long transfer counts as use until its end. */
static void on_leave(void *ctx, struct box *b)
{
        struct slot *s = ctx;

        (void)b; /* stays as long as the sandbox, which the slot holds */
        sandbox_touch(s->sandbox);
}

static void on_changed(void *ctx)
{
        struct slot *s = ctx;
        uint64_t turn = sandbox_dirty_turn(s->sandbox);
        struct vol_stats stats = {0};

        if (s->volume && s->volume->ops->stats)
                s->volume->ops->stats(s->volume, &stats);
        sandbox_set_dirty(s->sandbox, turn, stats.dirty_files, stats.dirty_bytes, stats.unsent);
}

static void on_failed(void *ctx, const char *path, int error, const char *sentence)
{
        struct slot *s = ctx;
        struct buf text = BUF_INIT(16 * 1024);

        if (buf_addf(&text, "fs/%s: ", path) == 0 && unsent_reason(&text, error, sentence) == 0)
                sandbox_say_error(s->sandbox, error, buf_str(&text));
        buf_done(&text);
}

static void on_noticed(void *ctx, const char *path, const char *sentence)
{
        struct slot *s = ctx;
        struct buf text = BUF_INIT(16 * 1024);

        if (buf_addf(&text, "fs/%s: %s", path, sentence) == 0)
                sandbox_say_error(s->sandbox, -ESTALE, buf_str(&text));
        buf_done(&text);
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

/*
 * Of the service or the way there, not of one file. -EOPNOTSUPP has a sentence only where it says
 * why there is no fs/ at all.
 */
static bool is_of_service(int code)
{
        return code == -EHOSTUNREACH || code == -EHOSTDOWN || code == -ETIMEDOUT ||
               code == -EPROTO || code == -EIO || code == -EAGAIN || code == -EDQUOT ||
               code == -ENODEV || code == -EOPNOTSUPP;
}

void slot_failed(struct slot *s, const struct op *op, int code)
{
        const char *sentence = op->call.sentence;

        if (!sentence[0] && code == -ETIMEDOUT) /* while it waited for what another asked */
                sentence = "the sandbox did not answer in time";
        if (sentence[0] && is_of_service(code))
                sandbox_say_error(s->sandbox, code, sentence);
}

void tree_op_failed(const struct op *op, int code)
{
        if (op->slot)
                slot_failed(op->slot, op, code);
}

bool slot_root(struct slot *s, int r, struct vol_entry *e)
{
        bool is_remembered = false;

        mutex_lock(&s->tree->lock);
        if (r == 0) {
                s->root = *e;
                s->has_root = true;
        } else if (s->has_root && r != -ENODEV && r != -ESTALE) {
                *e = s->root;
                e->ttl_ns = 0;
                is_remembered = true;
        }
        mutex_unlock(&s->tree->lock);
        return is_remembered;
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

static int new_direct(struct slot *s, const struct volume_config *config,
                      const struct volume_events *events, struct call *c)
{
        struct box_root root;
        int r = sandbox_root(s->sandbox, c, &root);

        if (r < 0)
                return r;
        r = volume_direct_new(&root, config, events, &s->volume);
        if (r < 0)
                (void)close(root.fd); /* only a directory was opened */
        return r;
}

/* Whether there is anything to be served: 0, or why not. */
static int check_cached(struct sandbox *sb, struct call *c)
{
        struct box *box;
        int r = sandbox_files(sb, c, &box);

        return r == -EHOSTDOWN || r == -EHOSTUNREACH ? 0 : r;
}

static int new_cached(struct slot *s, const struct volume_config *config,
                      const struct volume_events *events, struct call *c)
{
        struct volume_cached_config cached = {
                .base = *config,
                .box = {.enter = on_enter,
                        .leave = on_leave,
                        .changed = on_changed,
                        .failed = on_failed,
                        .noticed = on_noticed,
                        .ctx = s},
        };
        int r;

        cached.dir = sandbox_open_volume_dir(s->sandbox);
        if (cached.dir < 0)
                return call_fail_errno(c, cached.dir, "the volume's directory");
        r = volume_cached_new(&cached, events, &s->volume);
        if (r < 0)
                (void)close(cached.dir); /* only a directory was opened */
        return r;
}

/* Makes a slot with one reference. */
static int slot_new(struct tree *t, struct sandbox *sb, struct call *c, struct slot **ret)
{
        struct volume_config config = {
                .attr_ttl_ns = t->config.attr_ttl_ns,
                .has_raw_symlinks = t->config.has_raw_symlinks,
                .is_readonly = t->config.is_readonly,
                .is_sync = t->config.is_sync,
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
        r = sandbox_is_direct(sb) ? new_direct(s, &config, &events, c)
                                  : new_cached(s, &config, &events, c);
        if (r < 0) {
                slot_unref(s);
                return r;
        }
        *ret = s;
        return 0;
}

/*
 * Volumes are made one at a time, since two would share what lies on disk; it takes local files at
 * most. True: it is this caller's turn; false: there is one now, in *ret with a reference.
 */
static bool begin_making(struct tree *t, uint64_t serial, struct slot **ret)
{
        mutex_lock(&t->lock);
        while (!(*ret = imap_get(t->slots, serial)) && t->is_making)
                cond_wait(&t->made, &t->lock);
        if (*ret)
                slot_ref(*ret);
        else
                t->is_making = true;
        mutex_unlock(&t->lock);
        return !*ret;
}

/* `mine` may be NULL: it was not made. */
static int end_making(struct tree *t, uint64_t serial, struct slot *mine)
{
        int r = 0;

        mutex_lock(&t->lock);
        if (mine)
                r = imap_put(t->slots, serial, mine);
        if (mine && r == 0)
                slot_ref(mine); /* the table's */
        t->is_making = false;
        cond_broadcast(&t->made);
        mutex_unlock(&t->lock);
        if (r < 0)
                slot_unref(mine);
        return r;
}

/* The volume of this sandbox, a reference; made if there is none. */
static int slot_open(struct tree *t, struct sandbox *sb, struct call *c, struct slot **ret)
{
        uint64_t serial = sandbox_serial(sb);
        struct slot *s = NULL;
        int r;

        if (!begin_making(t, serial, ret))
                return 0;
        r = slot_new(t, sb, c, &s);
        if (r < 0) {
                (void)end_making(t, serial, NULL);
                return r;
        }
        r = end_making(t, serial, s);
        if (r == 0)
                *ret = s;
        return r;
}

int slot_get(struct tree *t, struct op *op, uint64_t serial, struct slot **ret)
{
        struct fleet *fleet = atomic_load(&t->fleet);
        struct slot *s = slot_find(t, serial);
        struct sandbox *sb;
        int r;

        if (s) {
                slot_enter(op, s);
                *ret = s;
                return 0;
        }
        sb = fleet ? fleet_by_serial(fleet, serial) : NULL;
        if (!sb)
                return -ENODEV;
        r = sandbox_is_direct(sb) ? 0 : check_cached(sb, &op->call);
        if (r == 0)
                r = slot_open(t, sb, &op->call, ret);
        if (r == -EINPROGRESS) {
                op->wait_key = node_virtual(serial, 0, ROW_SANDBOX);
                op->retry_ns = NEVER_NS;
        }
        if (r == 0)
                slot_enter(op, *ret);
        sandbox_unref(sb);
        return r;
}

int slot_deliver(struct tree *t, struct sandbox *sb, struct call *c)
{
        _cleanup_(slot_freep) struct slot *s = slot_find(t, sandbox_serial(sb));
        struct vol_op op = {.call = c, .may_wait = true};

        return s && s->volume->ops->sync ? s->volume->ops->sync(s->volume, &op) : 0;
}

void slot_tell_dirty(struct tree *t, struct sandbox *sb)
{
        _cleanup_(slot_freep) struct slot *s = slot_find(t, sandbox_serial(sb));

        if (s)
                on_changed(s);
}

bool slot_has_unsent(struct tree *t, struct sandbox *sb)
{
        _cleanup_(slot_freep) struct slot *s = slot_find(t, sandbox_serial(sb));
        struct vol_stats stats = {0};

        if (s && s->volume->ops->stats)
                s->volume->ops->stats(s->volume, &stats);
        return stats.unsent > 0;
}

int slot_check_unsent(struct tree *t, struct sandbox *sb, struct call *c)
{
        _cleanup_(slot_freep) struct slot *s = slot_find(t, sandbox_serial(sb));

        return s ? unsent_check(s->volume, c) : 0;
}

int slot_print_unsent(struct tree *t, struct sandbox *sb, struct buf *to)
{
        _cleanup_(slot_freep) struct slot *s = slot_find(t, sandbox_serial(sb));

        return s ? unsent_print(s->volume, to) : 0;
}

int slot_retry(struct tree *t, struct sandbox *sb, struct call *c)
{
        _cleanup_(slot_freep) struct slot *s = slot_find(t, sandbox_serial(sb));
        int r = s && s->volume->ops->retry ? s->volume->ops->retry(s->volume) : 0;

        if (r < 0)
                return call_fail_errno(c, r, "the journal");
        if (s)
                on_changed(s);
        return 0;
}

/* Its volume, at once if something waits in it: it is to be seen before the sandbox is reached. */
static void slot_resume(struct tree *t, struct sandbox *sb)
{
        _cleanup_(slot_freep) struct slot *s = NULL;
        _cleanup_(closep) int dir = -1;
        struct call c;
        int r;

        if (sandbox_is_direct(sb))
                return;
        dir = sandbox_open_volume_dir(sb);
        if (dir < 0 || !volume_cached_has_dirty(dir))
                return;
        call_init(&c, clock_after(10 * NS_PER_S));
        r = slot_open(t, sb, &c, &s);
        if (r < 0)
                log_warning("what was written before can't be delivered yet: %s: %s", errno_name(r),
                            c.sentence);
        else
                on_changed(s);
}

void slots_resume(struct tree *t, struct fleet *fleet)
{
        size_t count = fleet_list(fleet, NULL, 0);
        _cleanup_(freep) uint64_t *serials = calloc(count + 1, sizeof(*serials));

        if (!serials)
                return; /* each is resumed when it is first used */
        count = fleet_list(fleet, serials, count);
        for (size_t i = 0; i < count; i++) {
                _cleanup_(sandbox_freep) struct sandbox *sb = fleet_by_serial(fleet, serials[i]);

                if (sb)
                        slot_resume(t, sb);
        }
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

void slots_drop(struct tree *t)
{
        struct slot *s;

        do {
                size_t cursor = 0;
                uint64_t serial;

                mutex_lock(&t->lock);
                s = imap_next(t->slots, &cursor, &serial);
                if (s)
                        (void)imap_remove(t->slots, serial);
                mutex_unlock(&t->lock);
                slot_unref(s);
        } while (s);
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
