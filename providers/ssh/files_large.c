/* SPDX-License-Identifier: Apache-2.0 */
/* Large content: not through memory, and over more than one connection where the way is long. */

#include <errno.h>
#include <string.h>

#include "providers/ssh/files_window.h"
#include "transport/base/clock.h"

#define CHUNK ((uint64_t)8 << 20) /* between two looks at which connections there are */
#define WIDEN_BYTES ((uint64_t)16 << 20) /* with less left, no further one pays */

struct large {
        struct spot *spot;
        struct call *call;
        const char *path;
        const struct change *x;
        struct sftp_file files[HOST_LANES];
        struct ssh_link *links[HOST_LANES]; /* of the same place among the files */
        size_t count;
        bool is_wanted[HOST_LANES];
        uint64_t round_trip_ns;
};

static int read_source(void *ctx, void *data, size_t size, uint64_t offset)
{
        const struct large *l = ctx;

        return l->x->from->read(l->x->from, data, size, offset);
}

/*
 * More connections, those that are there already. The temporary file has one name that only we
 * know; one that is written in place may have been moved, and stays with its handle.
 */
static void widen(struct large *l, uint64_t left)
{
        struct sftp_op opens[HOST_LANES] = {0};
        struct ssh_link *links[HOST_LANES];
        size_t n;
        int r;

        for (unsigned i = HOST_BULK; i < HOST_LANES; i++)
                l->is_wanted[i] &= left > lanes_pay_from(i, l->round_trip_ns);
        n = lanes_take(l->spot->box->host, l->is_wanted, links);
        for (size_t i = 0; i < n; i++)
                opens[i] = (struct sftp_op){
                        .type = SFTP_OPEN, .path = l->path, .flags = SFTP_FOR_WRITE};
        r = n > 0 ? lanes_run(links, opens, n, l->call) : 0;
        for (size_t i = 0; i < n; i++) {
                l->is_wanted[links[i]->lane] = false;
                if (r < 0 || opens[i].error < 0) {
                        link_unref(links[i]);
                        continue;
                }
                l->links[l->count] = links[i];
                l->files[l->count++] = (struct sftp_file){links[i]->sftp, opens[i].handle};
        }
}

static bool may_widen(const struct large *l, uint64_t left)
{
        bool is_any = false;

        for (unsigned i = HOST_BULK; i < HOST_LANES; i++)
                is_any |= l->is_wanted[i];
        return is_any && l->x->kind == CHANGE_STORE && left > WIDEN_BYTES;
}

static int write_extent(struct large *l, const struct file_extent *extent)
{
        const struct sftp_source source = {.read = read_source, .ctx = l};
        int r = 0;

        for (uint64_t at = 0, n; r == 0 && at < extent->size; at += n) {
                bool has_bulk;

                n = extent->size - at;
                if (may_widen(l, n)) {
                        widen(l, n);
                        n = may_widen(l, n) ? CHUNK : n;
                }
                /* the control connection stays free for others once there is another */
                has_bulk = l->count > 1;
                r = sftp_write(l->files + has_bulk, l->count - has_bulk, l->call, &source, n,
                               extent->offset + at);
        }
        return r;
}

/* What the other handles wrote must be there before the file gets its name. */
static int close_others(struct large *l)
{
        int r = 0;

        for (size_t i = 1; i < l->count; i++) {
                struct sftp_op op = {.type = SFTP_CLOSE, .handle = l->files[i].handle};
                int e = sftp_run(l->files[i].s, l->call, &op, 1);

                if (r == 0)
                        r = e < 0 ? e : op.error;
                link_unref(l->links[i]);
        }
        return r;
}

int large_write(struct spot *s, struct call *c, const struct sftp_handle *handle, const char *path,
                const struct change *x)
{
        const struct file_extent whole = {.size = x->from->size};
        struct sftp_op look = {.type = SFTP_FSTAT, .handle = *handle};
        struct large l = {.spot = s, .call = c, .path = path, .x = x, .count = 1};
        uint64_t begin = clock_mono_ns();
        int closed, r = sftp_run(s->sftp, c, &look, 1);

        if (r < 0)
                return r;
        l.round_trip_ns = clock_mono_ns() - begin;
        l.files[0] = (struct sftp_file){s->sftp, *handle};
        for (unsigned i = HOST_BULK; i <= host_bulk_lanes(s->box->host) && i < HOST_LANES; i++)
                l.is_wanted[i] = true;
        if (x->extent_count == 0)
                r = write_extent(&l, &whole);
        for (size_t i = 0; r == 0 && i < x->extent_count; i++)
                r = write_extent(&l, &x->extents[i]);
        closed = close_others(&l);
        return r < 0 ? r : closed;
}
