/* SPDX-License-Identifier: Apache-2.0 */
/* What the cached volume knows: fresh enough to answer from, or asked for. */

#include "fs/volume/cached.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/cached_parts.h"
#include "fs/volume/contents.h"
#include "fs/volume/refresh.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define QUIET_NS (60 * NS_PER_S) /* how old knowledge may be while nothing can change */
#define ASKS_MAX 3 /* wide, alone, and once more alone */
#define WAIT_NS (100 * NS_PER_MS)

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

bool cached_told(struct cached *c, const struct content *x, const struct stat *st, uint64_t sent_ns,
                 uint64_t epoch, bool is_ours)
{
        struct meta_source source = {.sent_ns = sent_ns, .epoch = epoch};

        return meta_told(c->meta, (const struct content_head *)(const void *)x, &source, st,
                         is_ours ? clock_mono_ns() : 0);
}

void cached_untold(struct cached *c, const struct content *x)
{
        _cleanup_(freep) char *path = NULL;

        if (cached_content_path(c, x, &path) == 0)
                meta_doubt(c->meta, path);
}
