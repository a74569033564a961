/* SPDX-License-Identifier: Apache-2.0 */
/* Large content: not through memory, and over more than one connection where the way is long. */

#include <errno.h>
#include <string.h>

#include "providers/ssh/files_window.h"
#include "transport/base/clock.h"

#define CHUNK ((uint64_t)8 << 20) /* between two looks at which connections there are */
#define STRIPE_BYTES ((uint64_t)16 << 20)
#define STRIPE_ROUND_TRIP_NS (10 * NS_PER_MS)

struct large {
        struct spot *spot;
        struct call *call;
        const char *path;
        const struct change *x;
        struct sftp_file files[HOST_LANES];
        struct ssh_link *links[HOST_LANES]; /* of the same place among the files */
        size_t count;
        unsigned lanes; /* asked for so far */
        uint64_t round_trip_ns;
};

static int read_source(void *ctx, void *data, size_t size, uint64_t offset)
{
        const struct large *l = ctx;

        return l->x->from->read(l->x->from, data, size, offset);
}

/* The next connection, if it is there already: the dial goes on behind. */
static void widen(struct large *l)
{
        struct ssh_host *host = l->spot->box->host;
        enum host_lane lane = (enum host_lane)(HOST_BULK + l->lanes);
        struct sftp_op open = {.type = SFTP_OPEN, .path = l->path, .flags = SFTP_FOR_WRITE};
        struct ssh_link *link;
        struct call quick;

        if (l->lanes >= host_bulk_lanes(host) ||
            (l->lanes > 0 && l->round_trip_ns < STRIPE_ROUND_TRIP_NS))
                return;
        call_init(&quick, clock_after(NS_PER_MS));
        if (host_link(host, &quick, lane, &link) < 0)
                return;
        l->lanes++;
        call_init(&quick, l->call->deadline_ns);
        if (link->lane != lane || sftp_run(link->sftp, &quick, &open, 1) < 0 || open.error < 0) {
                link_unref(link);
                return;
        }
        l->links[l->count] = link;
        l->files[l->count++] = (struct sftp_file){link->sftp, open.handle};
}

/* The temporary file has one name, and only we know it; one written in place may have been moved. */
static bool may_widen(const struct large *l, uint64_t left)
{
        return l->x->kind == CHANGE_STORE && left > STRIPE_BYTES;
}

static int write_extent(struct large *l, const struct file_extent *extent)
{
        const struct sftp_source source = {.read = read_source, .ctx = l};
        int r = 0;

        for (uint64_t at = 0; r == 0 && at < extent->size; at += CHUNK) {
                uint64_t left = extent->size - at;
                bool has_bulk = l->count > 1;

                if (may_widen(l, left))
                        widen(l);
                /* the control connection stays free for others once there is another */
                r = sftp_write(l->files + has_bulk, l->count - has_bulk, l->call, &source,
                               left < CHUNK ? left : CHUNK, extent->offset + at);
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
        if (x->extent_count == 0)
                r = write_extent(&l, &whole);
        for (size_t i = 0; r == 0 && i < x->extent_count; i++)
                r = write_extent(&l, &x->extents[i]);
        closed = close_others(&l);
        return r < 0 ? r : closed;
}
