/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done by name: one change is sent, and when its answer is there, what is known and the
 * table of nodes follow.
 */

#include "fs/volume/cached.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/refresh.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

/* ---- lookup ---- */

/*
 * A file with several names that share a node: its content, and what we have changed, is known by
 * the name that the node has now.
 */
static void look_by_own_name(struct cached *c, struct vol_op *op, const struct node_id *id,
                             char **path, struct meta_fact *f)
{
        _cleanup_(freep) char *own = NULL;
        struct meta_fact by_own;

        if (cached_path(c, id->number, NULL, &own) < 0 || strcmp(own, *path) == 0 ||
            cached_fact(c, op, own, &by_own) < 0 || !nodes_is(&c->nodes, id->number, &by_own.k.st))
                return;
        free(*path);
        *path = STEAL(own);
        *f = by_own;
}

int cached_lookup(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  struct vol_entry *ret)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f;
        struct node_id id;
        int r = cached_check(c);

        climbs_end(&c->climbs, op->tid);
        if (r == 0)
                r = cached_check_name(name);
        if (r == 0)
                r = cached_fact_of_name(c, op, parent, name, &path, &f);
        if (r == -ENOENT) {
                *ret = (struct vol_entry){.ttl_ns = cached_ttl_of_name(c, parent, name, &f)};
                return 0;
        }
        if (r == 0)
                r = nodes_meet(&c->nodes, parent, name, &f.k.st, &id);
        if (r == 0 && S_ISREG(f.k.st.st_mode) && f.k.st.st_nlink > 1)
                look_by_own_name(c, op, &id, &path, &f);
        if (r == 0)
                cached_answer(c, &id, path, &f, ret);
        return r;
}

/* ---- changes ---- */

/* What we knew must have been wrong, or nobody knows what became of it. */
static bool is_doubtful(int r)
{
        return r == -ENOENT || r == -EEXIST || r == -ENOTDIR || r == -EISDIR || r == -ENOTEMPTY ||
               r == -EINPROGRESS || r == -ESTALE || r == -EXDEV;
}

/* What a change doesn't tell about what it made. */
static void tell_rest(struct call *call, struct box *box, struct change *x)
{
        const char *path = x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK ? x->to : x->path;

        if (x->error == 0 && !x->has_st && x->kind != CHANGE_UNLINK && x->kind != CHANGE_RMDIR)
                x->has_st = box_stat(box, call, path, &x->st) == 0;
}

int cached_apply(struct cached *c, struct vol_op *op, struct change *x,
                 struct meta_source *ret_source)
{
        struct box *box;
        int r = cached_enter(c, op->call, &box);

        if (r < 0)
                return r;
        refresh_source(c, ret_source);
        r = box_apply(box, op->call, x, 1);
        tell_rest(op->call, box, x);
        cached_leave(c, box);
        if (x->error == 0)
                return 0; /* it is done, whatever became of the call */
        if (is_doubtful(x->error)) {
                meta_doubt(c->meta, x->path);
                if (x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK)
                        meta_doubt(c->meta, x->to);
        }
        if (x->error == -EINPROGRESS)
                return r < 0 ? r : -EIO;
        return x->error;
}

/* What every change by name begins with. */
static int begin_change(struct cached *c, const struct vol_op *op, const char *name)
{
        int r = cached_check_change(c);

        if (r == 0)
                r = cached_check_name(name);
        if (r == 0 && !op->may_wait)
                r = -EINPROGRESS;
        return r;
}

/* ---- making ---- */

/* When the sandbox didn't say: what was asked for, to be asked about soon. */
static void suppose(struct cached *c, const struct change *x, mode_t kind, struct stat *ret)
{
        (void)c; /* only ours is supposed */
        *ret = (struct stat){.st_mode = kind | (x->mode & 07777), .st_nlink = 1};
        ret->st_mtim = clock_timespec(clock_real_ns());
        ret->st_ctim = ret->st_atim = ret->st_mtim;
        if (S_ISLNK(kind)) {
                ret->st_mode = S_IFLNK | 0777;
                ret->st_size = (off_t)strlen(x->to);
        }
}

/* Where only the second is told what we made is not older than our asking for it. True: it was. */
static bool not_before(struct timespec *t, const struct timespec *begin)
{
        bool is_rounded =
                t->tv_nsec == 0 && (t->tv_sec == begin->tv_sec || t->tv_sec + 1 == begin->tv_sec);

        if (is_rounded)
                *t = *begin;
        return is_rounded;
}

/* `x` makes something of this kind at (parent, name). */
static int make(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                struct change *x, mode_t kind, struct vol_entry *ret)
{
        _cleanup_(freep) char *path = NULL;
        struct timespec begin = clock_timespec(clock_real_ns());
        struct meta_source source;
        struct meta_fact f;
        struct node_id id;
        bool is_ours;
        int r = begin_change(c, op, name);

        if (r == 0)
                r = cached_path(c, parent, name, &path);
        if (r < 0)
                return r;
        if (meta_get(c->meta, path, &f) && f.exists && f.is_pinned)
                return -EEXIST;
        x->path = path;
        r = cached_apply(c, op, x, &source);
        if (r < 0)
                return r;
        if (x->has_st && (x->st.st_mode & S_IFMT) != kind)
                return -ESTALE; /* somebody inside has put something else there */
        is_ours = !x->has_st || not_before(&x->st.st_mtim, &begin);
        if (!x->has_st)
                suppose(c, x, kind, &x->st);
        r = meta_made(c->meta, path, &source, &x->st, S_ISLNK(kind) ? x->to : NULL, clock_mono_ns(),
                      NULL);
        if (r == 0 && is_ours)
                meta_own_times(c->meta, path, &source);
        if (r == 0 && !meta_get(c->meta, path, &f))
                r = -ESTALE;
        if (r == 0)
                r = nodes_make(&c->nodes, parent, name, &f.k.st, &id);
        if (r == 0)
                cached_answer(c, &id, path, &f, ret);
        return r;
}

int cached_mkdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret)
{
        struct change x = {.kind = CHANGE_MKDIR, .mode = mode & 07777 & ~op->umask};

        return make(cached_of(v), op, parent, name, &x, S_IFDIR, ret);
}

static int read_nothing(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        (void)from;
        (void)data;
        (void)offset;
        return size == 0 ? 0 : -EINVAL;
}

int cached_mknod(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret)
{
        struct file_source nothing = {.read = read_nothing};
        struct change x = {.kind = CHANGE_STORE,
                           .flags = CHANGE_EXCLUSIVE,
                           .mode = mode & 07777 & ~op->umask,
                           .from = &nothing};

        if (!S_ISREG(mode))
                return -EPERM; /* no service makes FIFOs and sockets */
        return make(cached_of(v), op, parent, name, &x, S_IFREG, ret);
}

int cached_symlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                   const char *target, struct vol_entry *ret)
{
        struct change x = {.kind = CHANGE_SYMLINK, .to = target, .mode = 0777};

        if (target[0] == '\0')
                return -ENOENT; /* as symlink(2) */
        if (strlen(target) > META_TARGET_MAX)
                return -ENAMETOOLONG;
        return make(cached_of(v), op, parent, name, &x, S_IFLNK, ret);
}

/* ---- hard links ---- */

static int link_paths(struct cached *c, struct vol_op *op, const char *path, const char *new_path,
                      struct meta_source *source)
{
        struct content *x = meta_content(c->meta, path);
        struct change change = {.kind = CHANGE_LINK, .path = path, .to = new_path};
        int r = x ? content_before_rename(c, op, x, true) : 0;

        if (r < 0) {
                content_unref(x);
                return r;
        }
        r = cached_apply(c, op, &change, source);
        if (r == 0 && x)
                content_linked(x);
        if (r == 0 && change.has_st)
                r = meta_linked(c->meta, path, new_path, source, &change.st, clock_mono_ns());
        else if (r == 0)
                meta_doubt(c->meta, new_path);
        if (x)
                content_after_rename(c, x);
        content_unref(x);
        return r == -EOPNOTSUPP ? -EPERM : r;
}

int cached_link(struct volume *v, struct vol_op *op, uint64_t node, uint64_t parent,
                const char *name, struct vol_entry *ret)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        _cleanup_(freep) char *new_path = NULL;
        struct meta_source source;
        struct meta_fact f;
        struct node_id id;
        int r = begin_change(c, op, name);

        if (r == 0)
                r = cached_fact_of_node(c, op, node, &path, &f);
        if (r == 0)
                r = cached_path(c, parent, name, &new_path);
        if (r == 0)
                r = link_paths(c, op, path, new_path, &source);
        if (r == 0)
                r = cached_fact(c, op, new_path, &f);
        if (r != 0)
                return r;
        /*
         * What a symbolic link says depends on where it is: each name is a node (anchor.h). So does
         * what a file is whose inode isn't known.
         */
        if (S_ISREG(f.k.st.st_mode) && f.k.sandbox_ino != 0)
                r = nodes_link(&c->nodes, node, parent, name, &id);
        else
                r = nodes_make(&c->nodes, parent, name, &f.k.st, &id);
        if (r == 0 && id.number != node)
                c->events.inval_node(c->events.ctx, node, true); /* it has one more name */
        if (r == 0)
                cached_answer(c, &id, new_path, &f, ret);
        return r;
}

/* ---- removing ---- */

/* A file that goes, with what is needed to see it go. */
struct removal {
        char *path;
        struct content *x; /* NULL: none */
        struct stat last; /* st_mode 0: not known */
        ino_t sandbox_ino; /* 0: not known */
        uint64_t node; /* with a reference, of a file with several names; 0: no matter */
        bool goes_on; /* by another name */
        bool is_only_here;
        bool is_begun;
};

static bool has_other_name(struct cached *c, uint64_t node)
{
        char name[NAME_MAX + 1];
        uint64_t parent;
        uint32_t cursor = 0;

        return nodes_name(&c->nodes, node, &cursor, &parent, name) &&
               nodes_name(&c->nodes, node, &cursor, &parent, name);
}

/* With another name the content goes on under that: it is as if it was renamed. */
static int begin_removal(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                         struct removal *rm)
{
        struct node_id id;
        struct meta_fact f = {0};
        int r;

        rm->x = meta_content(c->meta, rm->path);
        (void)meta_get(c->meta, rm->path, &f); /* also what is in doubt */
        if (f.exists) {
                rm->last = f.k.st;
                rm->sandbox_ino = f.k.sandbox_ino;
        }
        if (S_ISREG(rm->last.st_mode) && rm->last.st_nlink > 1 &&
            nodes_meet(&c->nodes, parent, name, &rm->last, &id) == 0)
                rm->node = id.number;
        if (!rm->x)
                return 0;
        rm->goes_on = rm->node != 0 && has_other_name(c, rm->node);
        if (rm->goes_on) {
                r = content_before_rename(c, op, rm->x, true);
        } else {
                r = content_before_removal(c, op, rm->x);
                rm->is_only_here = r == 1;
        }
        rm->is_begun = r >= 0;
        return r < 0 ? r : 0;
}

/* What is known at the other name may be older than what we have changed by this one. */
static void pass_content(struct cached *c, const struct removal *rm, const char *other)
{
        struct meta_source source;
        struct stat st;

        refresh_source(c, &source);
        meta_pass_content(c->meta, (struct content_head *)(void *)rm->x, other);
        content_version(rm->x, &st);
        st.st_ino = rm->sandbox_ino;
        st.st_nlink = rm->last.st_nlink; /* how many are left is asked for */
        meta_set(c->meta, other, &source, &st, false, clock_mono_ns());
}

/* It was removed, and the tables know: what becomes of its content. */
static void follow_removal(struct cached *c, struct removal *rm)
{
        _cleanup_(freep) char *other = NULL;

        if (rm->node != 0)
                (void)cached_path(c, rm->node, NULL, &other); /* it may have none */
        if (other && rm->is_begun && rm->goes_on)
                pass_content(c, rm, other);
        if (other)
                meta_doubt(c->meta, other); /* it has one name less */
        if (rm->is_begun && rm->goes_on) {
                content_after_rename(c, rm->x);
        } else if (rm->is_begun) {
                rm->last.st_nlink = 0;
                content_after_removal(c, rm->x, true, &rm->last);
        }
}

static void end_removal(struct cached *c, struct removal *rm, bool is_removed)
{
        if (is_removed)
                follow_removal(c, rm);
        else if (rm->is_begun && rm->goes_on)
                content_after_rename(c, rm->x);
        else if (rm->is_begun)
                content_after_removal(c, rm->x, false, &rm->last);
        if (rm->node != 0)
                nodes_forget(&c->nodes, rm->node, 1);
        content_unref(rm->x);
        free(rm->path);
}

static int remove_file(struct cached *c, struct vol_op *op, const struct removal *rm)
{
        struct change x = {.kind = CHANGE_UNLINK, .path = rm->path};
        struct meta_source source;
        int r = 0;

        if (rm->is_only_here)
                refresh_source(c, &source);
        else
                r = cached_apply(c, op, &x, &source);
        if (r == 0)
                meta_removed(c->meta, rm->path, &source, clock_mono_ns());
        return r;
}

int cached_unlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name)
{
        struct cached *c = cached_of(v);
        struct removal rm = {0};
        int r = begin_change(c, op, name);

        if (r == 0)
                r = cached_path(c, parent, name, &rm.path);
        if (r < 0)
                return r;
        r = begin_removal(c, op, parent, name, &rm);
        if (r == 0)
                r = remove_file(c, op, &rm);
        if (r == 0)
                nodes_remove(&c->nodes, parent, name);
        end_removal(c, &rm, r == 0);
        return r;
}

int cached_rmdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        struct change x = {.kind = CHANGE_RMDIR};
        struct meta_source source;
        int r = begin_change(c, op, name);

        if (r == 0)
                r = cached_path(c, parent, name, &path);
        if (r < 0)
                return r;
        if (meta_has_pinned(c->meta, path))
                return -ENOTEMPTY; /* something in it is only here */
        x.path = path;
        r = cached_apply(c, op, &x, &source);
        if (r == 0) {
                meta_removed(c->meta, path, &source, clock_mono_ns());
                nodes_remove(&c->nodes, parent, name);
        }
        return r;
}

/* ---- renaming ---- */

struct renaming {
        uint64_t parent, new_parent;
        const char *name, *new_name;
        unsigned flags;
        char *path, *new_path;
        struct content **held; /* that move along */
        size_t held_count, begun_count;
        struct removal over; /* what it is renamed over */
};

/* Before a directory is renamed to another depth (climbs.h). */
static int prepare_climbs(struct cached *c, const struct vol_op *op, const struct renaming *x)
{
        unsigned from = cached_depth(x->path), to = cached_depth(x->new_path);

        if (to == from || c->config.has_raw_symlinks ||
            !nodes_may_be_directory(&c->nodes, x->parent, x->name))
                return 0;
        climbs_move(&c->climbs, x->parent);
        return to < from ? climbs_wait(&c->climbs, op->tid, op->may_wait) : 0;
}

static int hold_contents(struct cached *c, struct vol_op *op, struct renaming *x)
{
        int r = meta_contents_below(c->meta, x->path, &x->held, &x->held_count);

        for (size_t i = 0; r == 0 && i < x->held_count; i++) {
                r = content_before_rename(c, op, x->held[i], false);
                if (r >= 0)
                        x->begun_count++;
                r = r > 0 ? 0 : r;
        }
        return r;
}

static void let_go_contents(struct cached *c, struct renaming *x)
{
        for (size_t i = 0; i < x->held_count; i++) {
                if (i < x->begun_count)
                        content_after_rename(c, x->held[i]);
                content_unref(x->held[i]);
        }
        free(x->held);
}

/*
 * The table follows what was renamed. A link at another depth gets another number: who found it
 * where it was must not be answered for where it is.
 */
static void rename_nodes(struct cached *c, const struct renaming *x)
{
        if (cached_depth(x->path) != cached_depth(x->new_path) &&
            S_ISLNK(nodes_kind(&c->nodes, x->parent, x->name)))
                nodes_remove(&c->nodes, x->parent, x->name);
        nodes_move(&c->nodes, x->parent, x->name, x->new_parent, x->new_name);
}

static void begin_move(struct cached *c)
{
        mutex_lock(&c->lock);
        c->moving++;
        mutex_unlock(&c->lock);
}

static void end_move(struct cached *c, bool is_done)
{
        mutex_lock(&c->lock);
        c->moving--;
        c->moves += is_done;
        cond_broadcast(&c->moved);
        mutex_unlock(&c->lock);
}

/* Two names of one file: rename(2) then does nothing, and both stay. */
static bool is_same_file(struct cached *c, const struct renaming *x)
{
        struct meta_fact from = {0}, to = {0};

        (void)meta_get(c->meta, x->path, &from); /* also what is in doubt */
        (void)meta_get(c->meta, x->new_path, &to);
        return from.exists && to.exists && from.k.st.st_nlink > 1 && from.k.sandbox_ino != 0 &&
               from.k.sandbox_ino == to.k.sandbox_ino;
}

static int send_rename(struct cached *c, struct vol_op *op, const struct renaming *x)
{
        struct change change = {
                .kind = CHANGE_RENAME, .path = x->path, .to = x->new_path, .flags = x->flags};
        struct meta_source source;
        int r;

        begin_move(c);
        r = cached_apply(c, op, &change, &source);
        if (r == 0) {
                (void)meta_moved(c->meta, x->path, x->new_path, &source,
                                 change.has_st ? &change.st : NULL,
                                 clock_mono_ns()); /* out of memory: asked for again */
                rename_nodes(c, x);
        }
        end_move(c, r == 0);
        return r;
}

static int rename_prepared(struct cached *c, struct vol_op *op, struct renaming *x)
{
        struct meta_fact f;
        int r = prepare_climbs(c, op, x);

        if (r == 0 && meta_get(c->meta, x->new_path, &f) && f.exists && f.is_pinned &&
            (x->flags & RENAME_NOREPLACE) != 0)
                r = -EEXIST;
        if (r == 0 && meta_has_pinned(c->meta, x->new_path) &&
            S_ISDIR(nodes_kind(&c->nodes, x->new_parent, x->new_name)))
                r = -ENOTEMPTY;
        if (r == 0)
                r = hold_contents(c, op, x);
        if (r == 0 && (x->flags & RENAME_NOREPLACE) == 0) {
                x->over.path = strdup(x->new_path);
                r = x->over.path ? begin_removal(c, op, x->new_parent, x->new_name, &x->over)
                                 : -ENOMEM;
        }
        if (r == 0)
                r = send_rename(c, op, x);
        end_removal(c, &x->over, r == 0);
        let_go_contents(c, x);
        return r;
}

int cached_rename(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                  uint64_t new_parent, const char *new_name, unsigned flags)
{
        struct cached *c = cached_of(v);
        struct renaming x = {
                .parent = parent,
                .new_parent = new_parent,
                .name = name,
                .new_name = new_name,
                .flags = flags,
        };
        int r = cached_check_change(c);

        climbs_end(&c->climbs, op->tid);
        if (r == 0)
                r = cached_check_name(new_name);
        if (r == 0 && flags != 0 && flags != RENAME_NOREPLACE)
                r = -EINVAL; /* no service exchanges two files */
        if (r == 0)
                r = begin_change(c, op, name);
        if (r == 0)
                r = cached_path(c, parent, name, &x.path);
        if (r == 0)
                r = cached_path(c, new_parent, new_name, &x.new_path);
        if (r == 0 && strcmp(x.path, x.new_path) != 0 && !is_same_file(c, &x))
                r = rename_prepared(c, op, &x);
        free(x.path);
        free(x.new_path);
        return r;
}
