/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cached volume: birth, the end of a command, and what its parts share.
 *
 * What the kernel may cache: names and attributes for what is left of attr_ttl since they were asked
 * for. What was told is remembered and taken back when a command ends, as in the direct volume
 * (direct.c); what is known here is of the epoch before then, and asked for anew when it is needed.
 */

#include "fs/volume/cached.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/volume/anchor.h"
#include "fs/volume/cached_parts.h"
#include "fs/volume/contents.h"
#include "fs/volume/journal.h"
#include "fs/volume/refresh.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define TOLD_AGAIN_MS 250 /* a node that was told within this time isn't remembered anew */
#define TTL_MAX_NS NS_PER_S
#define QUIET_NS (60 * NS_PER_S) /* how old knowledge may be while nothing can change */
#define ASKS_MAX 3 /* wide, alone, and once more alone */
#define WAIT_NS (100 * NS_PER_MS)

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

        if (!journal_is_settled(c->contents->journal, NULL))
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

/* ---- renames on their way ---- */

uint64_t cached_moves(struct cached *c)
{
        uint64_t moves;

        mutex_lock(&c->lock);
        moves = c->moves;
        mutex_unlock(&c->lock);
        return moves;
}

int cached_moved_meanwhile(struct cached *c, struct vol_op *op, uint64_t *serial)
{
        int r = 0;

        mutex_lock(&c->lock);
        if (c->moving > 0 && !op->may_wait)
                r = -EINPROGRESS;
        while (r == 0 && c->moving > 0 && c->moves == *serial) {
                (void)cond_wait_until(&c->moved, &c->lock, clock_after(WAIT_NS));
                r = call_check(op->call);
        }
        if (r == 0)
                r = c->moves != *serial;
        *serial = c->moves;
        mutex_unlock(&c->lock);
        return r;
}

/* ---- what is known ---- */

bool cached_is_fresh(struct cached *c, uint64_t begin_ns, const struct known *k, bool was_quiet)
{
        if (k->sent_ns >= begin_ns)
                return true; /* also of an epoch that has ended meanwhile */
        if (k->sent_ns == 0 || (uint32_t)k->epoch != (uint32_t)volume_epoch(&c->v))
                return false;
        if (k->sent_ns + c->config.attr_ttl_ns >= begin_ns)
                return true;
        return was_quiet && k->sent_ns + QUIET_NS >= begin_ns && c->events.is_quiet &&
               c->events.is_quiet(c->events.ctx);
}

/* 0 or -ENOENT as cached_fact; 1: it has to be asked for. */
static int from_memory(struct cached *c, const char *path, uint64_t begin_ns, struct meta_fact *ret)
{
        if (!meta_get(c->meta, path, ret))
                return 1;
        if (!ret->is_pinned && !cached_is_fresh(c, begin_ns, &ret->k, ret->was_quiet))
                return 1;
        return ret->exists ? 0 : -ENOENT;
}

static int ask_target(struct cached *c, struct vol_op *op, const char *path)
{
        char text[META_TARGET_MAX + 1];
        struct box *box;
        int r;

        if (!op->may_wait)
                return -EINPROGRESS;
        r = cached_enter(c, op->call, path, &box);
        if (r < 0)
                return r;
        r = box_readlink(box, op->call, path, text, sizeof(text));
        cached_leave(c, box);
        if (r == 0 && text[0] != '\0') {
                meta_put_target(c->meta, path, text);
                return 0;
        }
        if (r == 0 || r == -ENOENT || r == -EINVAL) {
                meta_doubt(c->meta, path); /* it is another file now */
                return -ESTALE;
        }
        return r;
}

/* Known means that it can be answered: a link with its text. */
static int complete(struct cached *c, struct vol_op *op, const char *path,
                    const struct meta_fact *f)
{
        char text[META_TARGET_MAX + 1];

        if (!S_ISLNK(f->k.st.st_mode) || meta_get_target(c->meta, path, text))
                return 0;
        return ask_target(c, op, path);
}

/* A directory that is not to be had, but on the way to something that is only here. */
static int last_known(struct cached *c, const char *path, int error, struct meta_fact *ret)
{
        *ret = (struct meta_fact){0};
        (void)meta_get(c->meta, path, ret); /* also what is only supposed */
        return ret->exists && meta_has_pinned(c->meta, path) ? 0 : error;
}

int cached_fact(struct cached *c, struct vol_op *op, const char *path, struct meta_fact *ret)
{
        uint64_t begin_ns = clock_mono_ns();
        int r = -EIO;

        for (unsigned asked = 0; asked <= ASKS_MAX; asked += r == 0) {
                r = from_memory(c, path, begin_ns, ret);
                if (r == 0)
                        r = complete(c, op, path, ret);
                if (r <= 0 && r != -ESTALE)
                        return r;
                if (!op->may_wait)
                        return -EINPROGRESS;
                r = refresh_ask(c, op->call, path, REFRESH_ATTRS, begin_ns, asked > 0);
                if (r < 0)
                        return last_known(c, path, r, ret);
        }
        if (last_known(c, path, -EIO, ret) == 0)
                return 0;
        return call_fail(op->call, -EIO, "the sandbox does not say what %s is", path);
}

int cached_fact_of_name(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                        char **ret_path, struct meta_fact *ret)
{
        uint64_t moves = cached_moves(c);
        int r;

        do {
                free(*ret_path);
                *ret_path = NULL;
                r = cached_path(c, parent, name, ret_path);
                if (r == 0)
                        r = cached_fact(c, op, *ret_path, ret);
                if (r == -ENOENT) {
                        int moved = cached_moved_meanwhile(c, op, &moves);

                        r = moved == 0 ? -ENOENT : moved;
                }
        } while (r == 1);
        return r;
}

int cached_fact_of_node(struct cached *c, struct vol_op *op, uint64_t node, char **ret_path,
                        struct meta_fact *ret)
{
        int r = cached_fact_of_name(c, op, node, NULL, ret_path, ret);

        if (r == 0 && !nodes_is(&c->nodes, node, &ret->k.st))
                r = -ESTALE; /* another file is at its place */
        return r;
}

int cached_attr(struct cached *c, struct vol_op *op, uint64_t node, struct known *ret)
{
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f;
        int r = cached_check(c);

        if (r == 0)
                r = cached_fact_of_node(c, op, node, &path, &f);
        if (r == 0)
                *ret = f.k;
        return r;
}

int cached_look(struct cached *c, struct vol_op *op, uint64_t parent, const char *name,
                struct known *ret)
{
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f = {0};
        int r = cached_check(c);

        if (r == 0)
                r = cached_check_name(name);
        if (r == 0)
                r = cached_fact_of_name(c, op, parent, name, &path, &f);
        if (r == 0)
                *ret = f.k;
        return r;
}

bool cached_last_known(struct cached *c, const struct content *x, struct known *ret)
{
        struct meta_fact f;

        if (!meta_get_content(c->meta, (const struct content_head *)(const void *)x, &f) ||
            !f.exists)
                return false;
        *ret = f.k;
        return true;
}

void cached_told(struct cached *c, const struct content *x, const struct stat *st, uint64_t sent_ns,
                 uint64_t epoch, bool is_ours)
{
        struct meta_source source = {.sent_ns = sent_ns, .epoch = epoch};

        meta_told(c->meta, (const struct content_head *)(const void *)x, &source, st,
                  is_ours ? clock_mono_ns() : 0);
}

void cached_untold(struct cached *c, const struct content *x)
{
        _cleanup_(freep) char *path = NULL;

        if (cached_content_path(c, x, &path) == 0)
                meta_doubt(c->meta, path);
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
        return meta_made(c->meta, path, &source, st, NULL, source.sent_ns,
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

/* ---- what is told ---- */

static uint32_t ms_of(uint64_t ns)
{
        return (uint32_t)(ns / NS_PER_MS);
}

/* What is left of the time that this may be believed; 0 once its epoch is over. */
static uint64_t ttl_left(struct cached *c, const struct meta_fact *f, uint64_t now_ns)
{
        uint64_t ttl_ns = c->config.attr_ttl_ns;

        if ((uint32_t)f->k.epoch != (uint32_t)volume_epoch(&c->v) && !f->is_pinned)
                return 0;
        if (f->is_pinned || (f->was_quiet && c->events.is_quiet(c->events.ctx)))
                return ttl_ns;
        return f->k.sent_ns + ttl_ns > now_ns ? f->k.sent_ns + ttl_ns - now_ns : 0;
}

uint64_t cached_ttl_of_node(struct cached *c, uint64_t node, const struct meta_fact *f)
{
        uint64_t now_ns = clock_mono_ns();

        /* Its other names may be nodes of their own, each with a cache of the kernel. */
        if (ttl_left(c, f, now_ns) == 0 || (!S_ISDIR(f->k.st.st_mode) && f->k.st.st_nlink > 1))
                return 0;
        if (nodes_hand_out(&c->nodes, node, ms_of(now_ns), TOLD_AGAIN_MS))
                recent_add_node(&c->recent, node, now_ns);
        return ttl_left(c, f, now_ns);
}

uint64_t cached_ttl_of_name(struct cached *c, uint64_t parent, const char *name,
                            const struct meta_fact *f)
{
        uint64_t now_ns = clock_mono_ns();

        if (ttl_left(c, f, now_ns) == 0 || !recent_add_name(&c->recent, parent, name, now_ns))
                return 0;
        return ttl_left(c, f, now_ns);
}

int cached_anchor(struct cached *c, const char *path, const char *text, char *to, size_t size,
                  unsigned *ret_ups)
{
        char inside[PATH_MAX];

        mutex_lock(&c->lock);
        memcpy(inside, c->inside, strlen(c->inside) + 1);
        mutex_unlock(&c->lock);
        return anchor_target(text, cached_depth(path), inside, to, size, ret_ups);
}

static void show_link(struct cached *c, const char *path, struct stat *st)
{
        char text[META_TARGET_MAX + 1], target[PATH_MAX];
        int r;

        if (!meta_get_target(c->meta, path, text))
                return;
        r = c->config.has_raw_symlinks ? (int)strlen(text)
                                       : cached_anchor(c, path, text, target, sizeof(target), NULL);
        if (r >= 0)
                st->st_size = r;
}

bool cached_show(struct cached *c, const char *path, const struct meta_fact *f, struct stat *ret)
{
        struct content *x = f->has_content ? meta_content(c->meta, path) : NULL;
        bool is_latest = true;

        *ret = f->k.st;
        if (S_ISLNK(ret->st_mode))
                show_link(c, path, ret);
        if (x)
                is_latest = content_attrs(x, ret, f->k.sent_ns);
        content_unref(x);
        if (ret->st_ctim.tv_sec == 0 && ret->st_ctim.tv_nsec == 0)
                ret->st_ctim = ret->st_mtim;
        return is_latest;
}

void cached_answer(struct cached *c, const struct node_id *id, const char *path,
                   const struct meta_fact *f, struct vol_entry *ret)
{
        *ret = (struct vol_entry){.node = id->number, .generation = id->generation};
        if (cached_show(c, path, f, &ret->st))
                ret->ttl_ns = cached_ttl_of_node(c, id->number, f);
}

void cached_fill(struct cached *c, const struct node_id *id, const struct known *k,
                 struct vol_entry *ret)
{
        _cleanup_(freep) char *path = NULL;
        struct meta_fact f = {.exists = true, .k = *k}, now;

        *ret = (struct vol_entry){.node = id->number, .generation = id->generation, .st = k->st};
        if (cached_path(c, id->number, NULL, &path) != 0)
                return;
        if (meta_get(c->meta, path, &now)) {
                f.has_content = now.has_content;
                f.is_pinned = now.is_pinned;
        }
        cached_answer(c, id, path, &f, ret);
}

/* ---- the end of a command ---- */

static void take_back_node(struct cached *c, uint64_t node)
{
        char name[NAME_MAX + 1];
        uint64_t parent;
        uint32_t cursor = 0;

        c->events.inval_node(c->events.ctx, node, true);
        while (nodes_name(&c->nodes, node, &cursor, &parent, name))
                c->events.inval_entry(c->events.ctx, parent, name);
}

static void take_back(struct cached *c, uint64_t *ret_wait_until_ns)
{
        struct recent_item *items;
        uint64_t now_ns = clock_mono_ns();
        size_t count = recent_take(&c->recent, now_ns, &items, ret_wait_until_ns);

        nodes_hand_out_anew(&c->nodes, ms_of(clock_mono_ns()));
        for (size_t i = 0; i < count; i++) {
                if (items[i].name)
                        c->events.inval_entry(c->events.ctx, items[i].node, items[i].name);
                else
                        take_back_node(c, items[i].node);
        }
        recent_free_items(items, count);
}

static void drop_pages(struct cached *c)
{
        _cleanup_(freep) uint64_t *open = NULL;
        size_t count = 0;

        if (nodes_all_open(&c->nodes, &open, &count) < 0) {
                log_error(
                        "out of memory: pages of open files are dropped when they are opened again");
                return;
        }
        for (size_t i = 0; i < count; i++) {
                if (i == 0 || open[i] != open[i - 1])
                        c->events.inval_node(c->events.ctx, open[i], false);
        }
}

static void sleep_until(uint64_t deadline_ns)
{
        struct timespec until = clock_timespec(deadline_ns);

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
                ;
}

static void cached_exec_ended(struct volume *v)
{
        struct cached *c = cached_of(v);
        uint64_t wait_until_ns;

        if (!volume_turn(v))
                log_warning("an operation of a volume did not end within 2 s: going on without it");
        contents_exec_ended(c);
        take_back(c, &wait_until_ns);
        drop_pages(c);
        if (wait_until_ns != 0)
                sleep_until(
                        wait_until_ns); /* too much was told to take it all back: let it run out */
}

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
        recent_init(&c->recent, c->config.attr_ttl_ns + (TOLD_AGAIN_MS + 50) * NS_PER_MS);
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
