/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done by name. Once it is known what there is, so is the outcome: the change goes into the
 * journal, what is known and the table of nodes follow at once, and the sandbox hears of it later.
 */

#include "fs/volume/cached.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/contents.h"
#include "fs/volume/journal.h"
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

int cached_begin_change(struct cached *c, const struct vol_op *op, const char *name)
{
        struct journal *j = c->contents->journal;
        int r = cached_check_change(c);

        if (r == 0)
                r = cached_check_name(name);
        if (r == 0 && !op->may_wait && (c->config.is_sync || journal_is_full(j)))
                r = -EINPROGRESS;
        if (r == 0 && op->may_wait)
                journal_make_room(j, op->call);
        return r;
}

int cached_end_change(struct cached *c, struct vol_op *op, const char *path)
{
        struct journal *j = c->contents->journal;
        int r;

        if (!c->config.is_sync)
                return 0;
        if (!op->may_wait)
                return -EINPROGRESS;
        r = journal_settle(j, op->call, path);
        if (r == 0) {
                r = journal_take_refusal(j, path);
                if (r < 0)
                        meta_let(c->meta, path);
        }
        return r;
}

/* ---- making ---- */

static struct stat suppose(const struct journal_change *x, mode_t kind)
{
        struct stat st = {.st_mode = kind | (x->mode & 07777), .st_nlink = 1};

        st.st_mtim = st.st_ctim = st.st_atim = clock_timespec(clock_real_ns());
        if (S_ISLNK(kind))
                st.st_size = (off_t)strlen(x->to);
        return st;
}

/* `x` makes something of this kind at (parent, name), where there is nothing. */
static int make(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                struct journal_change *x, mode_t kind, struct vol_entry *ret)
{
        _cleanup_(freep) char *path = NULL;
        struct stat st = suppose(x, kind);
        struct meta_source source;
        struct meta_fact f;
        struct node_id id;
        int r = cached_begin_change(c, op, name);

        if (r == 0)
                r = cached_fact_of_name(c, op, parent, name, &path, &f);
        if (r == 0)
                return -EEXIST;
        if (r != -ENOENT)
                return r;
        x->path = path;
        x->creates = true;
        r = journal_add(c->contents->journal, x);
        refresh_source(c, &source);
        if (r == 0)
                r = meta_made(c->meta, path, &source, &st, S_ISLNK(kind) ? x->to : NULL,
                              source.sent_ns, NULL);
        if (r == 0)
                meta_own_times(c->meta, path, &source);
        if (r == 0)
                r = cached_end_change(c, op, path);
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
        struct journal_change x = {.kind = CHANGE_MKDIR, .mode = mode & 07777 & ~op->umask};

        return make(cached_of(v), op, parent, name, &x, S_IFDIR, ret);
}

int cached_mknod(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                 mode_t mode, struct vol_entry *ret)
{
        struct journal_change x = {.kind = CHANGE_STORE, .mode = mode & 07777 & ~op->umask};

        if (!S_ISREG(mode))
                return -EPERM; /* no service makes FIFOs and sockets */
        return make(cached_of(v), op, parent, name, &x, S_IFREG, ret);
}

int cached_symlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name,
                   const char *target, struct vol_entry *ret)
{
        struct journal_change x = {.kind = CHANGE_SYMLINK, .to = target, .mode = 0777};

        if (target[0] == '\0')
                return -ENOENT; /* as symlink(2) */
        if (strlen(target) > META_TARGET_MAX)
                return -ENAMETOOLONG;
        return make(cached_of(v), op, parent, name, &x, S_IFLNK, ret);
}

/* ---- removing ---- */

static bool has_other_name(struct cached *c, uint64_t node)
{
        char name[NAME_MAX + 1];
        uint64_t parent;
        uint32_t cursor = 0;

        return nodes_name(&c->nodes, node, &cursor, &parent, name) &&
               nodes_name(&c->nodes, node, &cursor, &parent, name);
}

int cached_begin_removal(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                         const struct meta_fact *f, struct removal *rm)
{
        struct node_id id;

        rm->x = meta_content(c->meta, rm->path);
        rm->last = f->k.st;
        rm->sandbox_ino = f->k.sandbox_ino;
        if (S_ISREG(rm->last.st_mode) && rm->last.st_nlink > 1 &&
            nodes_meet(&c->nodes, parent, name, &rm->last, &id) == 0)
                rm->node = id.number;
        rm->goes_on = rm->node != 0 && has_other_name(c, rm->node);
        if (!rm->x)
                return 0;
        return rm->goes_on ? content_queue(rm->x) : content_before_removal(rm->x, op);
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
        st.st_nlink = rm->last.st_nlink - 1;
        meta_set(c->meta, other, &source, &st, false, source.sent_ns);
}

void cached_removed(struct cached *c, struct removal *rm)
{
        _cleanup_(freep) char *other = NULL;

        if (rm->node != 0)
                (void)cached_path(c, rm->node, NULL, &other); /* it may have none */
        if (other && rm->x && rm->goes_on)
                pass_content(c, rm, other);
        if (other)
                meta_doubt(c->meta, other); /* it has one name less */
        if (rm->x && rm->goes_on) {
                content_moved(rm->x);
        } else if (rm->x) {
                rm->last.st_nlink = 0;
                content_after_removal(rm->x, &rm->last);
        }
}

void cached_end_removal(struct cached *c, struct removal *rm)
{
        if (rm->node != 0)
                nodes_forget(&c->nodes, rm->node, 1);
        content_unref(rm->x);
        free(rm->path);
}

static int remove_file(struct cached *c, const struct removal *rm)
{
        struct journal_change x = {.kind = CHANGE_UNLINK, .path = rm->path};
        struct meta_source source;
        int r;

        x.has_links = rm->last.st_nlink > 1;
        x.x = rm->goes_on ? NULL : rm->x;
        x.gone = x.x ? content_record(x.x) : 0;
        r = journal_add(c->contents->journal, &x);
        refresh_source(c, &source);
        if (r == 0)
                meta_removed(c->meta, rm->path, &source, source.sent_ns);
        return r;
}

int cached_unlink(struct volume *v, struct vol_op *op, uint64_t parent, const char *name)
{
        struct cached *c = cached_of(v);
        struct removal rm = {0};
        struct meta_fact f;
        int r = cached_begin_change(c, op, name);

        if (r == 0)
                r = cached_fact_of_name(c, op, parent, name, &rm.path, &f);
        if (r == 0 && S_ISDIR(f.k.st.st_mode))
                r = -EISDIR;
        if (r == 0)
                r = cached_begin_removal(c, op, parent, name, &f, &rm);
        if (r == 0) {
                mutex_lock(&c->order);
                r = remove_file(c, &rm);
                if (r == 0) {
                        nodes_remove(&c->nodes, parent, name);
                        cached_removed(c, &rm);
                }
                mutex_unlock(&c->order);
        }
        if (r == 0)
                r = cached_end_change(c, op, rm.path);
        cached_end_removal(c, &rm);
        return r;
}

int cached_rmdir(struct volume *v, struct vol_op *op, uint64_t parent, const char *name)
{
        struct cached *c = cached_of(v);
        _cleanup_(freep) char *path = NULL;
        struct journal_change x = {.kind = CHANGE_RMDIR};
        struct meta_source source;
        struct meta_fact f;
        int r = cached_begin_change(c, op, name);

        if (r == 0)
                r = cached_fact_of_name(c, op, parent, name, &path, &f);
        if (r == 0 && !S_ISDIR(f.k.st.st_mode))
                r = -ENOTDIR;
        if (r == 0)
                r = cached_check_empty(c, op, path);
        if (r == 0) {
                x.path = path;
                r = journal_add(c->contents->journal, &x);
        }
        if (r == 0) {
                refresh_source(c, &source);
                meta_removed(c->meta, path, &source, source.sent_ns);
                nodes_remove(&c->nodes, parent, name);
                r = cached_end_change(c, op, path);
        }
        return r;
}
