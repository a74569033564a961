/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes. What a change writes comes inline, or as DATA behind it, in the order in which it is
 * written. All of it is taken, also when it could not be written (which is told before), unless
 * ABORT says that no more comes.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "providers/agent/serve.h"
#include "providers/posix/place.h"
#include "providers/posix/posix.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"

/* Content as it comes: read once, from its beginning to its end. */
struct content {
        struct file_source source;
        struct serve_conn *conn;
        const unsigned char *at; /* of the inline part, or of `frame` */
        size_t left;
        uint64_t awaited; /* bytes that DATA will bring */
        uint32_t index;
        struct serve_frame *frame;
        bool is_aborted;
        int error; /* the connection's */
};

/* What came is counted off what is awaited. */
static int count_piece(struct content *k, size_t size)
{
        if (size > k->awaited)
                k->error = -EPROTO;
        k->awaited -= size < k->awaited ? size : k->awaited;
        return k->error;
}

static int next_piece(struct content *k)
{
        free(k->frame);
        k->frame = NULL;
        k->error = serve_next_data(k->conn, &k->frame);
        if (k->error < 0)
                return k->error;
        if (!k->frame)
                return count_piece(k, k->conn->coming);
        if (k->frame->head.type == WIRE_WRITTEN) {
                k->error = -EPROTO;
                return k->error;
        }
        if (k->frame->head.type == WIRE_ABORT) {
                k->is_aborted = true;
                k->awaited = 0;
                return -ECANCELED;
        }
        k->at = k->frame->data;
        k->left = k->frame->head.size;
        return count_piece(k, k->left);
}

/* Of what is here, or of the DATA that is coming. */
static int take_some(struct content *k, unsigned char *to, size_t size)
{
        if (k->left == 0) {
                k->error = serve_take_data(k->conn, to, size);
                return k->error;
        }
        memcpy(to, k->at, size);
        k->at += size;
        k->left -= size;
        return 0;
}

/* Asked for in the order in which it comes: `offset` needn't be looked at. */
static int read_content(struct file_source *from, void *data, size_t size, uint64_t offset)
{
        struct content *k = container_of(from, struct content, source);
        unsigned char *to = data;

        (void)offset;
        while (size > 0) {
                size_t here = k->left > 0 ? k->left : k->conn->coming;
                size_t n = size < here ? size : here;

                if (n > 0 && take_some(k, to, n) < 0)
                        return -ECANCELED;
                to += n;
                size -= n;
                if (size > 0 && (k->awaited == 0 || next_piece(k) < 0))
                        return -ECANCELED;
        }
        return 0;
}

/* They write it who sent it. */
static int fill_held(struct file_source *from, int fd)
{
        struct content *k = container_of(from, struct content, source);
        struct wire_in in;
        struct wire_out o;
        struct stat st;
        uint32_t told;

        if (fstat(fd, &st) < 0)
                return -errno;
        serve_begin(k->conn, &o, WIRE_TARGET);
        wire_u32(&o, k->index);
        wire_u32(&o, (uint32_t)fd);
        wire_u64(&o, st.st_ino);
        k->error = serve_end_now(k->conn, &o);
        if (k->error == 0)
                k->error = serve_next_data(k->conn, &k->frame);
        if (k->error == 0 && (!k->frame || k->frame->head.type != WIRE_WRITTEN))
                k->error = -EPROTO;
        if (k->error < 0)
                return -ECANCELED;
        in = (struct wire_in){.at = k->frame->data, .left = k->frame->head.size};
        told = wire_take_u32(&in);
        return wire_is_whole(&in) ? wire_error(told) : -EIO;
}

static int take_rest(struct content *k)
{
        while (k->error == 0 && (k->awaited > 0 || k->conn->coming > 0)) {
                if (k->conn->coming > 0)
                        k->error = serve_take_data(k->conn, NULL, k->conn->coming);
                else
                        (void)next_piece(k);
        }
        return k->error;
}

static int tell(struct serve_conn *conn, uint32_t index, const struct change *x)
{
        struct wire_out o;

        serve_begin(conn, &o, WIRE_CHANGED);
        wire_u32(&o, index);
        wire_u32(&o, (uint32_t)-x->error);
        wire_u32(&o, x->has_st);
        if (x->has_st)
                wire_stat(&o, &x->st);
        return serve_end_now(conn, &o);
}

int serve_change(struct serve_conn *conn, const struct place *p, const struct serve_frame *f)
{
        struct wire_in in = {.at = f->data, .left = f->head.size};
        struct wire_changing y;
        struct content k = {.source.read = read_content, .conn = conn};
        struct call c;
        int r = wire_take_change(&in, &y);

        if (r < 0)
                return r; /* where its content ends isn't known */
        k.source.size = y.source_size;
        k.at = in.at;
        k.left = in.left;
        k.awaited = in.left > 0 || f->head.type == WIRE_HELD ? 0 : y.content_size;
        k.index = y.index;
        if (f->head.type == WIRE_HELD)
                k.source.fill = fill_held;
        if (y.has_source)
                y.x.from = &k.source;
        call_init(&c, UINT64_MAX);
        if (in.left > 0 && in.left != y.content_size)
                y.x.error = -EINVAL;
        else if (p->root < 0)
                y.x.error = -ENOENT;
        else
                (void)posix_apply(p, &c, &y.x);
        y.x.has_st &= y.x.error == 0;
        r = k.error == 0 ? tell(conn, y.index, &y.x) : k.error;
        if (r == 0)
                r = take_rest(&k);
        free(k.frame);
        free(y.extents);
        return r;
}
