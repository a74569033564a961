/* SPDX-License-Identifier: Apache-2.0 */
/* Renames, and hard links: what gives a file another name, in the cached volume. */

#include "fs/volume/cached.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/conflict.h"
#include "fs/volume/contents.h"
#include "fs/volume/journal.h"
#include "fs/volume/refresh.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

/* ---- hard links ---- */

/*
 * Only where each change is in the sandbox when it is answered: how many names a file has, and which
 * of them a queued change still makes or takes, nobody could tell rightly before.
 */

static int send_link(struct cached *c, struct call *call, struct change *x,
                     struct meta_source *source)
{
        struct box *box;
        int r = cached_enter(c, call, NULL, &box);

        if (r < 0)
                return r;
        refresh_source(c, source);
        x->error = -EINPROGRESS;
        r = box_apply(box, call, x, 1);
        if (x->error == 0 && !x->has_st)
                x->has_st = box_stat(box, call, x->to, &x->st) == 0;
        cached_leave(c, box);
        if (x->error == 0)
                return 0; /* it is done, whatever became of the call */
        meta_doubt(c->meta, x->path);
        meta_doubt(c->meta, x->to);
        if (x->error == -EINPROGRESS)
                return r < 0 ? r : -EIO;
        return x->error == -EOPNOTSUPP ? -EPERM : x->error;
}

static int link_paths(struct cached *c, struct vol_op *op, const char *path, const char *new_path)
{
        struct content *x = meta_content(c->meta, path);
        struct change change = {.kind = CHANGE_LINK, .path = path, .to = new_path};
        struct meta_source source;
        int r = x ? content_hold(x, op) : journal_settle(c->contents->journal, op->call, NULL);

        if (r < 0) {
                content_unref(x);
                return r;
        }
        r = send_link(c, op->call, &change, &source);
        if (r == 0 && change.has_st)
                r = meta_linked(c->meta, path, new_path, &source, &change.st, clock_mono_ns());
        else if (r == 0)
                meta_doubt(c->meta, new_path);
        if (x)
                content_let_go(x, r == 0);
        content_unref(x);
        return r;
}

int cached_link(struct volume *v, struct vol_op *op, uint64_t node, uint64_t parent,
                const char *name, struct vol_entry *ret)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        _cleanup_(freep) char *new_path = NULL;
        struct meta_fact f;
        struct node_id id;
        int r = cached_begin_change(c, op, name);

        if (r == 0 && !c->config.is_sync)
                r = -EPERM;
        if (r == 0 && !op->may_wait)
                r = -EINPROGRESS;
        if (r == 0)
                r = cached_fact_of_node(c, op, node, &path, &f);
        if (r == 0)
                r = cached_path(c, parent, name, &new_path);
        if (r == 0)
                r = link_paths(c, op, path, new_path);
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

/* ---- renaming ---- */

struct renaming {
        uint64_t parent, new_parent;
        const char *name, *new_name;
        unsigned flags;
        char *path;
        struct meta_fact from, to; /* to.exists: it is renamed over that */
        struct content *x; /* of the file that is renamed; NULL */
        struct removal over;
};

/* Before a directory is renamed to another depth (climbs.h). */
static int prepare_climbs(struct cached *c, const struct vol_op *op, const struct renaming *x)
{
        unsigned from = cached_depth(x->path), to = cached_depth(x->over.path);

        if (to == from || c->config.has_raw_symlinks ||
            !nodes_may_be_directory(&c->nodes, x->parent, x->name))
                return 0;
        climbs_move(&c->climbs, x->parent);
        return to < from ? climbs_wait(&c->climbs, op->tid, op->may_wait) : 0;
}

/*
 * The table follows what was renamed. A link at another depth gets another number: who found it
 * where it was must not be answered for where it is.
 */
static void rename_nodes(struct cached *c, const struct renaming *x)
{
        if (cached_depth(x->path) != cached_depth(x->over.path) &&
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
static bool is_same_file(const struct renaming *x)
{
        return x->to.exists && x->from.k.st.st_nlink > 1 && x->from.k.sandbox_ino != 0 &&
               x->from.k.sandbox_ino == x->to.k.sandbox_ino;
}

/* What rename(2) says of what is there. */
static int check(struct cached *c, struct vol_op *op, const struct renaming *x)
{
        bool is_dir = S_ISDIR(x->from.k.st.st_mode), is_over_dir = S_ISDIR(x->to.k.st.st_mode);

        if (!x->to.exists)
                return 0;
        if (x->flags & RENAME_NOREPLACE)
                return -EEXIST;
        if (is_dir != is_over_dir)
                return is_dir ? -ENOTDIR : -EISDIR;
        return is_dir ? cached_check_empty(c, op, x->over.path) : 0;
}

static void follow_contents(struct cached *c, const char *path)
{
        struct content **held = NULL;
        size_t count = 0;

        if (meta_contents_below(c->meta, path, &held, &count) < 0)
                log_error("records of what waits below a renamed directory were not renewed");
        for (size_t i = 0; i < count; i++) {
                content_moved(held[i]);
                content_unref(held[i]);
        }
        free(held);
}

static int carry_out(struct cached *c, const struct renaming *x)
{
        struct journal_change change = {.kind = CHANGE_RENAME,
                                        .path = x->path,
                                        .to = x->over.path,
                                        .flags = x->flags,
                                        .x = x->x,
                                        .over = x->over.x,
                                        .record = x->x ? content_record(x->x) : 0,
                                        .is_whole = x->x && content_is_whole(x->x),
                                        .is_refused = x->x && content_is_refused(x->x),
                                        .creates = !x->to.exists};
        bool is_over_file = x->to.exists && S_ISREG(x->to.k.st.st_mode);
        struct meta_source source;
        int r;

        /* A time that was only set here goes with the file it is of: what is there isn't known. */
        if (is_over_file && x->x && journal_sets_time(c->contents->journal, x->over.path, 0))
                is_over_file = false;
        change.has_links = x->from.k.st.st_nlink > 1 || (x->to.exists && x->to.k.st.st_nlink > 1);
        if (x->to.exists && x->over.x && !x->over.goes_on)
                change.gone = content_record(x->over.x);
        begin_move(c);
        r = journal_add(c->contents->journal, &change);
        refresh_source(c, &source);
        if (r == 0) {
                (void)meta_moved(c->meta, x->path, x->over.path, &source, NULL,
                                 source.sent_ns); /* out of memory: asked for again */
                rename_nodes(c, x);
        }
        end_move(c, r == 0);
        if (r == 0 && x->x && is_over_file)
                conflict_takes_name(x->x, x->over.x, &x->to.k);
        return r;
}

static int rename_known(struct cached *c, struct vol_op *op, struct renaming *x)
{
        int r = check(c, op, x);

        if (r == 0)
                r = prepare_climbs(c, op, x);
        if (r == 0 && x->to.exists)
                r = cached_begin_removal(c, op, x->new_parent, x->new_name, &x->to, &x->over);
        if (r < 0)
                return r;
        mutex_lock(&c->order);
        r = carry_out(c, x);
        if (r == 0 && x->to.exists)
                cached_removed(c, &x->over);
        if (r == 0)
                follow_contents(c, x->over.path);
        mutex_unlock(&c->order);
        if (r < 0)
                return r;
        r = cached_end_change(c, op, x->over.path);
        if (r < 0)
                meta_doubt(c->meta, x->path);
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
        int r;

        climbs_end(&c->climbs, op->tid);
        r = cached_begin_change(c, op, name);
        if (r == 0)
                r = cached_check_name(new_name);
        if (r == 0 && flags != 0 && flags != RENAME_NOREPLACE)
                r = -EINVAL; /* no service exchanges two files */
        if (r == 0)
                r = cached_fact_of_name(c, op, parent, name, &x.path, &x.from);
        if (r == 0) {
                r = cached_fact_of_name(c, op, new_parent, new_name, &x.over.path, &x.to);
                if (r == -ENOENT)
                        r = 0;
        }
        if (r == 0 && strcmp(x.path, x.over.path) != 0 && !is_same_file(&x)) {
                x.x = meta_content(c->meta, x.path);
                r = rename_known(c, op, &x);
        }
        cached_end_removal(c, &x.over);
        content_unref(x.x);
        free(x.path);
        return r;
}
