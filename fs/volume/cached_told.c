/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel is told, and may cache: names and attributes for what is left of attr_ttl since
 * they were asked for. What was told is remembered and taken back when a command ends, as in the
 * direct volume (direct.c).
 */

#include "fs/volume/cached.h"

#include <string.h>

#include "fs/volume/anchor.h"
#include "fs/volume/cached_parts.h"
#include "fs/volume/contents.h"
#include "fs/volume/recall.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

/* ---- telling ---- */

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
        if (!nodes_may_keep(&c->nodes, node, 0))
                return 0;
        if (nodes_hand_out(&c->nodes, node, ms_of(now_ns), CACHED_TOLD_AGAIN_MS))
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

void cached_exec_ended(struct volume *v)
{
        struct cached *c = cached_of(v);

        if (!volume_turn(v))
                log_warning("an operation of a volume did not end within 2 s: going on without it");
        contents_exec_ended(c);
        recall_all(&c->nodes, &c->recent, &c->events);
}
