/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked and read. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/agent/conn.h"
#include "providers/posix/place.h"
#include "transport/base/cleanup.h"

#define REQUEST_MAX (WIRE_HEAD + WIRE_PAYLOAD_MAX)
#define FETCH_BYTES ((size_t)256 * 1024) /* of paths in one request */
#define FETCH_FILES 4096
#define ENTRIES_MAX ((size_t)1 << 24) /* of one listing that has no other limit */

/* Ask something that one DONE answers: 0 and the rest of it in *ret, until agent_op_end. */
static int ask(struct agent_op *op, struct wire_out *o, struct buf *frame, struct wire_in *ret)
{
        struct wire_head head;
        int r = wire_end(o);

        if (r == 0)
                r = agent_send(op, frame);
        if (r == 0)
                r = agent_next(op, &head, ret);
        return r == 0 ? agent_take_done(op, &head, ret) : r;
}

/* `r`, or that the answer had more, or less, than it should have. */
static int finish(struct agent_op *op, const struct wire_in *in, int r)
{
        if (r == 0 && !wire_is_whole(in))
                r = agent_is_wrong(op, "an answer of another size");
        agent_op_end(op);
        return r;
}

/* ---- attributes ---- */

int agent_stat(struct agent *a, struct call *c, const char *path, struct stat *ret)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct wire_out o;
        struct wire_in in;
        struct stat st;
        int r;

        agent_op_begin(a, &op, c);
        wire_begin(&o, &frame, op.id, WIRE_STAT);
        wire_text(&o, path);
        r = ask(&op, &o, &frame, &in);
        if (r == 0)
                wire_take_stat(&in, &st);
        r = finish(&op, &in, r);
        if (r == 0)
                *ret = st;
        return r;
}

int agent_readlink(struct agent *a, struct call *c, const char *path, char *ret, size_t size)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct wire_out o;
        struct wire_in in;
        const char *text;
        int r;

        agent_op_begin(a, &op, c);
        wire_begin(&o, &frame, op.id, WIRE_READLINK);
        wire_text(&o, path);
        r = ask(&op, &o, &frame, &in);
        if (r == 0) {
                text = wire_take_text(&in);
                if (!in.is_bad && strlen(text) >= size)
                        r = -ENAMETOOLONG;
                else
                        memcpy(ret, text, strlen(text) + 1);
        }
        return finish(&op, &in, r);
}

int agent_statfs(struct agent *a, struct call *c, struct statvfs *ret)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct wire_out o;
        struct wire_in in;
        struct statvfs fs;
        int r;

        agent_op_begin(a, &op, c);
        wire_begin(&o, &frame, op.id, WIRE_STATFS);
        r = ask(&op, &o, &frame, &in);
        if (r == 0)
                wire_take_statfs(&in, &fs);
        r = finish(&op, &in, r);
        if (r == 0)
                *ret = fs;
        return r;
}

/* ---- listings ---- */

struct listing {
        struct agent_op *op;
        struct file_list_sink *to;
        size_t left; /* entries that may still come */
};

/* The last component is none of a file that is on its way. */
static bool is_temp(const char *path)
{
        const char *slash = strrchr(path, '/');

        return place_is_temp(slash ? slash + 1 : path);
}

static int take_entry(struct listing *l, struct wire_in *in)
{
        uint32_t kind = wire_take_u32(in);
        const char *path = wire_take_text(in), *target = NULL;
        struct stat st = {0};

        if (kind > 0)
                wire_take_stat(in, &st);
        if (kind == 2)
                target = wire_take_text(in);
        if (in->is_bad || kind > 2 || !wire_is_path(path, true) || l->left == 0)
                return agent_is_wrong(l->op, "an entry");
        if (kind == 0)
                return l->to->listed(l->to, path);
        l->left--;
        if (is_temp(path))
                return 0;
        return l->to->entry(l->to, path, &st, S_ISLNK(st.st_mode) ? target : NULL);
}

static int take_listing(struct listing *l)
{
        while (true) {
                struct wire_head head;
                struct wire_in in;
                int r = agent_next(l->op, &head, &in);

                if (r < 0)
                        return r;
                if (head.type != WIRE_ENTRIES) {
                        r = agent_take_done(l->op, &head, &in);
                        return r == 0 && !wire_is_whole(&in) ? agent_is_wrong(l->op, "an end") : r;
                }
                while (r == 0 && in.left > 0)
                        r = take_entry(l, &in);
                if (r != 0)
                        return r;
        }
}

static void put_listing(struct wire_out *o, const struct file_listing *what)
{
        uint32_t skips = 0;

        while (what->skip && what->skip[skips])
                skips++;
        wire_text(o, what->path);
        wire_u32(o, what->depth);
        wire_u64(o, what->entries_max);
        wire_u32(o, what->into != NULL);
        wire_text(o, what->into);
        wire_u32(o, skips);
        for (uint32_t i = 0; i < skips; i++)
                wire_text(o, what->skip[i]);
}

int agent_list(struct agent *a, struct call *c, const struct file_listing *what,
               struct file_list_sink *to)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct listing l = {.op = &op, .to = to, .left = ENTRIES_MAX};
        struct wire_out o;
        int r;

        agent_op_begin(a, &op, c);
        wire_begin(&o, &frame, op.id, WIRE_LIST);
        put_listing(&o, what);
        r = wire_end(&o);
        if (r == 0)
                r = agent_send(&op, &frame);
        if (r == 0)
                r = take_listing(&l);
        agent_op_end(&op);
        return r;
}

/* ---- whole files ---- */

struct fetching {
        struct agent_op *op;
        const char *const *paths;
        size_t from, count; /* of this request, of all */
        size_t next; /* of this request: files come in their order */
        size_t size_max;
        struct file_sink *to;
        struct buf data;
};

static int take_content(struct fetching *f, size_t size)
{
        buf_clear(&f->data);
        while (f->data.size < size) {
                struct wire_head head;
                struct wire_in in;
                int r = agent_next(f->op, &head, &in);

                if (r == 0 &&
                    (head.type != WIRE_DATA || in.left == 0 || in.left > size - f->data.size))
                        r = agent_is_wrong(f->op, "content");
                if (r == 0)
                        r = buf_add(&f->data, in.at, in.left);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int take_file(struct fetching *f, struct wire_in *in)
{
        size_t at = wire_take_u32(in);
        int r, error = wire_error(wire_take_u32(in));
        uint64_t size = wire_take_u64(in);
        struct stat st = {0};

        if (error == 0 || error == -EFBIG)
                wire_take_stat(in, &st);
        if (!wire_is_whole(in) || at != f->next || at >= f->count || size > f->size_max ||
            (error < 0 && size > 0) || (error == 0 && !S_ISREG(st.st_mode)))
                return agent_is_wrong(f->op, "a file");
        f->next++;
        r = take_content(f, (size_t)size);
        if (r < 0)
                return r;
        return f->to->file(f->to, f->from + at, error, &st, buf_str(&f->data), (size_t)size);
}

static int take_files(struct fetching *f)
{
        while (true) {
                struct wire_head head;
                struct wire_in in;
                int r = agent_next(f->op, &head, &in);

                if (r == 0 && head.type == WIRE_FILE) {
                        r = take_file(f, &in);
                        if (r != 0)
                                return r;
                        continue;
                }
                if (r == 0)
                        r = agent_take_done(f->op, &head, &in);
                if (r == 0 && (f->next != f->count || !wire_is_whole(&in)))
                        r = agent_is_wrong(f->op, "too few files");
                return r;
        }
}

static int fetch_some(struct agent *a, struct call *c, struct fetching *f, size_t count)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct wire_out o;
        int r;

        agent_op_begin(a, &op, c);
        f->op = &op;
        f->next = 0;
        f->count = count;
        wire_begin(&o, &frame, op.id, WIRE_FETCH);
        wire_u64(&o, f->size_max);
        wire_u32(&o, (uint32_t)count);
        for (size_t i = 0; i < count; i++)
                wire_text(&o, f->paths[f->from + i]);
        r = wire_end(&o);
        if (r == 0)
                r = agent_send(&op, &frame);
        if (r == 0)
                r = take_files(f);
        agent_op_end(&op);
        f->op = NULL;
        f->from += count;
        return r;
}

int agent_fetch(struct agent *a, struct call *c, const char *const *paths, size_t count,
                size_t size_max, struct file_sink *to)
{
        struct fetching f = {
                .paths = paths, .size_max = size_max, .to = to, .data = BUF_INIT(size_max)};
        int r = 0;

        while (r == 0 && f.from < count) {
                size_t n = 0, bytes = 0;

                do
                        bytes += strlen(paths[f.from + n]);
                while (++n < FETCH_FILES && f.from + n < count && bytes < FETCH_BYTES);
                r = fetch_some(a, c, &f, n);
        }
        buf_done(&f.data);
        return r;
}

/* ---- parts of files ---- */

int agent_open(struct agent *a, struct call *c, const char *path, uint32_t *ret_handle,
               struct stat *ret_st)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct wire_out o;
        struct wire_in in;
        uint32_t handle = 0;
        struct stat st = {0};
        int r;

        agent_op_begin(a, &op, c);
        wire_begin(&o, &frame, op.id, WIRE_OPEN);
        wire_text(&o, path);
        r = ask(&op, &o, &frame, &in);
        if (r == 0) {
                handle = wire_take_u32(&in);
                wire_take_stat(&in, &st);
                if (!S_ISREG(st.st_mode))
                        r = agent_is_wrong(&op, "no regular file");
        }
        r = finish(&op, &in, r);
        if (r == 0) {
                *ret_handle = handle;
                *ret_st = st;
        }
        return r;
}

ssize_t agent_read(struct agent *a, struct call *c, uint32_t handle, void *data, size_t size,
                   uint64_t offset, struct stat *ret_st)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct wire_out o;
        struct wire_in in;
        struct stat st;
        int r;

        if (size > WIRE_READ_MAX)
                size = WIRE_READ_MAX;
        agent_op_begin(a, &op, c);
        mutex_lock(&a->lock);
        op.data = data;
        op.data_size = size;
        mutex_unlock(&a->lock);
        wire_begin(&o, &frame, op.id, WIRE_READ);
        wire_u32(&o, handle);
        wire_u64(&o, offset);
        wire_u32(&o, (uint32_t)size);
        r = ask(&op, &o, &frame, &in);
        if (r == 0)
                wire_take_stat(&in, &st);
        r = finish(&op, &in, r);
        if (r == 0 && ret_st)
                *ret_st = st;
        return r < 0 ? r : (ssize_t)op.data_got;
}

void agent_close(struct agent *a, uint32_t handle)
{
        _cleanup_(buf_done) struct buf frame = BUF_INIT(REQUEST_MAX);
        struct agent_op op;
        struct wire_out o;
        struct call quiet;

        if (agent_error(a) < 0)
                return;
        call_init(&quiet, 0);
        agent_op_begin(a, &op, &quiet);
        op.is_over = true; /* it isn't answered */
        wire_begin(&o, &frame, op.id, WIRE_CLOSE);
        wire_u32(&o, handle);
        if (wire_end(&o) == 0) /* else the handle goes with the connection */
                (void)agent_send(&op, &frame);
        agent_op_end(&op);
}
