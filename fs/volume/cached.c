/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cached volume: birth, and what its parts share. What is known here is of an epoch, which the
 * end of a command ends (cached_told.c), and asked for anew when it is needed (cached_facts.c).
 */

#include "fs/volume/cached.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/contents.h"
#include "fs/volume/journal.h"
#include "fs/volume/refresh.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define TTL_MAX_NS NS_PER_S

/* ---- what may be done ---- */

int cached_check(struct cached *c)
{
        return atomic_load(&c->is_gone) ? -ENODEV : 0;
}

int cached_check_change(struct cached *c)
{
        int r = cached_check(c);

        return r == 0 && c->config.is_readonly ? -EROFS : r;
}

int cached_check_name(const char *name)
{
        if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            strchr(name, '/'))
                return -EINVAL;
        return strlen(name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* ---- the box ---- */

static void learn_inside(struct cached *c, struct call *call, struct box *b)
{
        char inside[PATH_MAX];
        bool is_known;

        mutex_lock(&c->lock);
        is_known = c->inside[0] != '\0';
        mutex_unlock(&c->lock);
        if (is_known || box_workdir(b, call, inside, sizeof(inside)) < 0 || inside[0] != '/')
                return;
        mutex_lock(&c->lock);
        memcpy(c->inside, inside, strlen(inside) + 1);
        mutex_unlock(&c->lock);
}

int cached_enter(struct cached *c, struct call *call, const char *path, struct box **ret)
{
        int r = cached_check(c);

        if (r == 0 && path)
                r = journal_settle(c->contents->journal, call, path);
        if (r == 0)
                r = c->box.enter(c->box.ctx, call, ret);
        if (r == 0)
                learn_inside(c, call, *ret);
        return r;
}

int cached_enter_for(struct cached *c, struct call *call, const struct content *x, struct box **ret)
{
        _cleanup_(freep) char *path = NULL;

        if (!journal_is_empty(c->contents->journal))
                (void)cached_content_path(c, x,
                                          &path); /* NULL: it was removed, and is open there */
        return cached_enter(c, call, path, ret);
}

void cached_leave(struct cached *c, struct box *b)
{
        c->box.leave(c->box.ctx, b);
}

/* ---- paths ---- */

int cached_path(struct cached *c, uint64_t node, const char *name, char **ret)
{
        struct node_path path;
        int r = nodes_path(&c->nodes, node, name, &path);

        if (r == 0 && path.length > META_PATH_MAX)
                r = -ENAMETOOLONG;
        if (r == 0) {
                *ret = strdup(path.depth == 0 ? "" : path.text);
                r = *ret ? 0 : -ENOMEM;
        }
        node_path_done(&path);
        return r;
}

int cached_content_path(struct cached *c, const struct content *x, char **ret)
{
        *ret = meta_content_path(c->meta, (const struct content_head *)(const void *)x);
        return *ret ? 0 : -ENOENT;
}

unsigned cached_depth(const char *path)
{
        unsigned depth = 0;

        for (; *path; path++)
                depth += *path == '/';
        return depth;
}

/* ---- contents ---- */

struct content *cached_content(struct cached *c, uint64_t node)
{
        _cleanup_(freep) char *path = NULL;

        return cached_path(c, node, NULL, &path) == 0 ? meta_content(c->meta, path) : NULL;
}

struct content *cached_set_content(struct cached *c, uint64_t node, struct content *x)
{
        _cleanup_(freep) char *path = NULL;

        return cached_path(c, node, NULL, &path) == 0 ? cached_set_content_at(c, path, x) : NULL;
}

struct content *cached_content_at(struct cached *c, const char *path)
{
        return meta_content(c->meta, path);
}

struct content *cached_set_content_at(struct cached *c, const char *path, struct content *x)
{
        return meta_set_content(c->meta, path, (struct content_head *)(void *)x);
}

void cached_drop_content(struct cached *c, struct content *x)
{
        meta_drop_content(c->meta, (struct content_head *)(void *)x);
}

int cached_restore(struct cached *c, const char *path, const struct stat *st, struct content *x)
{
        struct meta_source source;
        struct meta_fact f;

        if (meta_get(c->meta, path, &f) && f.exists)
                return -EEXIST;
        refresh_source(c, &source);
        source.sent_ns = 1; /* nobody has asked */
        return meta_made(c->meta, path, &source, st, NULL, clock_mono_ns(),
                         (struct content_head *)(void *)x);
}

void cached_siblings(struct cached *c, uint64_t node, bool is_deep, uint64_t age_ns,
                     struct cached_sibling_sink *to)
{
        _cleanup_(freep) char *path = NULL;
        uint64_t now_ns = clock_mono_ns();

        if (cached_path(c, node, NULL, &path) < 0)
                return;
        meta_siblings(c->meta, path, is_deep, volume_epoch(&c->v),
                      now_ns > age_ns ? now_ns - age_ns : 0, to);
}

int cached_made(struct cached *c, uint64_t parent, const char *name, const struct known *st,
                struct content *x, struct vol_entry *ret)
{
        struct meta_source source = {.sent_ns = st->sent_ns, .epoch = st->epoch};
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f;
        struct node_id id;
        int r = cached_path(c, parent, name, &path);

        if (r == 0)
                r = meta_made(c->meta, path, &source, &st->st, NULL, clock_mono_ns(),
                              (struct content_head *)(void *)x);
        if (r == 0 && !meta_get(c->meta, path, &f))
                r = -ESTALE; /* it was removed already */
        if (r == 0)
                r = nodes_make(&c->nodes, parent, name, &f.k.st, &id);
        if (r == 0)
                cached_answer(c, &id, path, &f, ret);
        return r;
}

/* ---- the operations that are another part's ---- */

static void cached_gone(struct volume *v)
{
        struct cached *c = cached_of(v);

        atomic_store(&c->is_gone, true);
        contents_gone(c);
}

static int cached_sync(struct volume *v, struct vol_op *op)
{
        return contents_sync(cached_of(v), op);
}

static void cached_stats(struct volume *v, struct vol_stats *ret)
{
        contents_stats(cached_of(v), ret);
}

static void cached_forget(struct volume *v, uint64_t node, uint64_t count)
{
        nodes_forget(&cached_of(v)->nodes, node, count);
}

static void cached_unsent(struct volume *v, struct vol_unsent_sink *to)
{
        contents_unsent(cached_of(v), to);
}

static int cached_retry(struct volume *v)
{
        return contents_retry(cached_of(v));
}

static int cached_discard(struct volume *v, const char *path)
{
        return contents_discard(cached_of(v), path);
}

/* ---- birth and death ---- */

static void cached_free(struct volume *v)
{
        struct cached *c = cached_of(v);

        contents_stop(c->contents);
        if (c->meta)
                meta_drop_contents(c->meta);
        contents_free(c->contents);
        meta_free(c->meta);
        refresh_free(c->refresh);
        climbs_done(&c->climbs);
        recent_done(&c->recent);
        nodes_done(&c->nodes);
        cond_done(&c->moved);
        mutex_done(&c->order);
        mutex_done(&c->lock);
        volume_done(v);
        free(c);
}

static const struct vol_ops cached_ops = {
        .free = cached_free,
        .lookup = cached_lookup,
        .forget = cached_forget,
        .getattr = cached_getattr,
        .setattr = cached_setattr,
        .readlink = cached_readlink,
        .mkdir = cached_mkdir,
        .mknod = cached_mknod,
        .symlink = cached_symlink,
        .link = cached_link,
        .unlink = cached_unlink,
        .rmdir = cached_rmdir,
        .rename = cached_rename,
        .create = cached_create,
        .open = cached_open,
        .read = cached_read,
        .write = cached_write,
        .flush = cached_flush,
        .fsync = cached_fsync,
        .fallocate = cached_fallocate,
        .copy_range = cached_copy_range,
        .lseek = cached_lseek,
        .release = cached_release,
        .opendir = cached_opendir,
        .readdir = cached_readdir,
        .fsyncdir = cached_fsyncdir,
        .releasedir = cached_releasedir,
        .statfs = cached_statfs,
        .sync = cached_sync,
        .stats = cached_stats,
        .unsent = cached_unsent,
        .retry = cached_retry,
        .discard = cached_discard,
        .exec_ended = cached_exec_ended,
        .gone = cached_gone,
};

/* Everything but the content half; on failure cached_free takes what there is. */
static int init(struct cached *c, const struct volume_cached_config *config,
                const struct volume_events *events)
{
        struct meta_config meta = {.content = {.ref = content_ref,
                                               .unref = content_unref,
                                               .is_pinned = content_is_pinned}};
        int r;

        volume_init(&c->v, &cached_ops);
        mutex_init(&c->order);
        mutex_init(&c->lock);
        cond_init(&c->moved);
        c->config = config->base;
        if (c->config.attr_ttl_ns > TTL_MAX_NS)
                c->config.attr_ttl_ns = TTL_MAX_NS;
        c->events = *events;
        c->box = config->box;
        climbs_init(&c->climbs);
        /* Longer than any time-out by what isn't remembered anew, and by the way of a reply. */
        recent_init(&c->recent, c->config.attr_ttl_ns + (CACHED_TOLD_AGAIN_MS + 50) * NS_PER_MS);
        r = meta_new(&meta, &c->meta);
        if (r == 0)
                r = refresh_new(&c->refresh);
        return r;
}

int volume_cached_new(const struct volume_cached_config *config, const struct volume_events *events,
                      struct volume **ret)
{
        struct cached *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        r = nodes_init(&c->nodes);
        if (r < 0) {
                free(c);
                return r;
        }
        r = init(c, config, events);
        if (r == 0)
                r = contents_new(c, config, &c->contents);
        if (r < 0) {
                cached_free(&c->v);
                return r;
        }
        *ret = &c->v;
        return 0;
}
