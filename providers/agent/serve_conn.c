/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in and out. What is unsent goes before anything waits for input. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "providers/agent/serve.h"
#include "transport/base/file.h"

#define READ_AT_ONCE ((size_t)256 * 1024)
#define READ_BEHIND ((size_t)4096)
#define UNREAD_MAX (2 * (READ_AT_ONCE + WIRE_PAYLOAD_MAX))
#define UNSENT_MAX ((size_t)64 << 20)
#define FLUSH_AT ((size_t)256 * 1024)
#define WAITING_MAX ((size_t)64 << 20) /* bytes; ours never sends so much ahead */

void serve_conn_init(struct serve_conn *k, int in, int out)
{
        *k = (struct serve_conn){.in = in,
                                 .out = out,
                                 .unread = BUF_INIT(UNREAD_MAX),
                                 .unsent = BUF_INIT(UNSENT_MAX)};
        list_init(&k->waiting);
}

/* `id` 0: of all. */
static void drop_waiting(struct serve_conn *k, uint32_t id)
{
        list_for_each_safe (at, next, &k->waiting) {
                struct serve_frame *f = container_of(at, struct serve_frame, link);

                if (id != 0 && f->head.id != id)
                        continue;
                list_remove(at);
                k->waiting_bytes -= sizeof(*f) + f->head.size;
                free(f);
        }
}

void serve_conn_done(struct serve_conn *k)
{
        drop_waiting(k, 0);
        buf_done(&k->unread);
        buf_done(&k->unsent);
}

/* ---- out ---- */

int serve_conn_flush(struct serve_conn *k)
{
        int r = k->unsent.size > 0 ? file_write_all(k->out, k->unsent.data, k->unsent.size) : 0;

        buf_clear(&k->unsent);
        return r;
}

void serve_begin(struct serve_conn *k, struct wire_out *o, enum wire_type type)
{
        wire_begin(o, &k->unsent, k->id, type);
}

int serve_end_now(struct serve_conn *k, struct wire_out *o)
{
        int r = wire_end(o);

        return r == 0 && k->unsent.size >= FLUSH_AT ? serve_conn_flush(k) : r;
}

int serve_done(struct serve_conn *k, int r)
{
        struct wire_out o;

        serve_begin(k, &o, WIRE_DONE);
        wire_u32(&o, (uint32_t)-r);
        return serve_end_now(k, &o);
}

/* The numbers stay, what they stand for is another. */
int serve_conn_move(struct serve_conn *k, int fd)
{
        int r = serve_conn_flush(k);

        if (r < 0)
                return r;
        if (dup2(fd, k->in) < 0 || dup2(fd, k->out) < 0)
                return -errno;
        buf_clear(&k->unread);
        k->unread_at = 0;
        drop_waiting(k, 0);
        return 0;
}

/* ---- in ---- */

/* More of the input, waiting for it. */
static int read_more(struct serve_conn *k)
{
        char *to;
        ssize_t n;
        int r = serve_conn_flush(k);

        if (r < 0)
                return r;
        if (k->unread_at > 0) {
                buf_drop(&k->unread, k->unread_at);
                k->unread_at = 0;
        }
        to = buf_reserve(&k->unread, READ_AT_ONCE);
        if (!to)
                return -ENOMEM;
        do
                n = read(k->in, to, READ_AT_ONCE);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
                return n < 0 ? -errno : -EPIPE;
        k->unread.size += (size_t)n;
        return 0;
}

static int read_frame(struct serve_conn *k, struct serve_frame **ret)
{
        struct serve_frame *f;
        struct wire_head head;
        int r = 0;

        while (r == 0 && k->unread.size - k->unread_at < WIRE_HEAD)
                r = read_more(k);
        if (r < 0)
                return r;
        wire_head_get((const unsigned char *)k->unread.data + k->unread_at, &head);
        if (head.size > WIRE_PAYLOAD_MAX)
                return -EPROTO;
        while (r == 0 && k->unread.size - k->unread_at < WIRE_HEAD + head.size)
                r = read_more(k);
        if (r < 0)
                return r;
        f = malloc(sizeof(*f) + head.size);
        if (!f)
                return -ENOMEM;
        f->head = head;
        memcpy(f->data, k->unread.data + k->unread_at + WIRE_HEAD, head.size);
        k->unread_at += WIRE_HEAD + head.size;
        *ret = f;
        return 0;
}

/* What concerns no request that is to come is done here: true, and the frame is freed. */
static bool take_news(struct serve_conn *k, struct serve_frame *f)
{
        struct wire_in in = {.at = f->data, .left = f->head.size};

        if (f->head.type == WIRE_ROOM && f->head.id == k->id)
                k->window += wire_take_u32(&in);
        if (f->head.type == WIRE_CANCEL) {
                k->is_cancelled |= f->head.id == k->id;
                drop_waiting(k, f->head.id);
        }
        if (f->head.type != WIRE_ROOM && f->head.type != WIRE_CANCEL)
                return false;
        free(f);
        return true;
}

static int wait_later(struct serve_conn *k, struct serve_frame *f)
{
        k->waiting_bytes += sizeof(*f) + f->head.size;
        list_add_tail(&k->waiting, &f->link);
        return k->waiting_bytes > WAITING_MAX ? -E2BIG : 0;
}

/* The next frame that came and isn't news; those of others wait when `mine`. */
static int next_frame(struct serve_conn *k, bool mine, struct serve_frame **ret)
{
        struct serve_frame *f = NULL;

        list_for_each_safe (at, next, &k->waiting) {
                f = container_of(at, struct serve_frame, link);
                if (mine && f->head.id != k->id)
                        continue;
                list_remove(at);
                k->waiting_bytes -= sizeof(*f) + f->head.size;
                *ret = f;
                return 0;
        }
        while (true) {
                int r = read_frame(k, &f);

                if (r < 0)
                        return r;
                if (take_news(k, f)) {
                        if (mine && k->is_cancelled)
                                return -ECANCELED;
                        continue;
                }
                if (!mine || f->head.id == k->id) {
                        *ret = f;
                        return 0;
                }
                r = wait_later(k, f);
                if (r < 0)
                        return r;
        }
}

int serve_next(struct serve_conn *k, struct serve_frame **ret)
{
        int r;

        k->id = 0;
        r = next_frame(k, false, ret);
        if (r == 0) {
                k->id = (*ret)->head.id;
                k->window = WIRE_WINDOW;
                k->is_cancelled = false;
        }
        return r;
}

static bool has_waiting(const struct serve_conn *k)
{
        list_for_each (at, &k->waiting) {
                if (container_of(at, struct serve_frame, link)->head.id == k->id)
                        return true;
        }
        return false;
}

static size_t unread_size(const struct serve_conn *k)
{
        return k->unread.size - k->unread_at;
}

/* If the next frame is DATA for us: its head is taken, the rest is coming. */
static int take_data_head(struct serve_conn *k)
{
        struct wire_head head;
        int r = 0;

        while (r == 0 && unread_size(k) < WIRE_HEAD)
                r = read_more(k);
        if (r < 0)
                return r;
        wire_head_get((const unsigned char *)k->unread.data + k->unread_at, &head);
        if (head.type != WIRE_DATA || head.id != k->id || head.size > WIRE_PAYLOAD_MAX)
                return 0;
        k->unread_at += WIRE_HEAD;
        k->coming = head.size;
        return 0;
}

int serve_next_data(struct serve_conn *k, struct serve_frame **ret)
{
        int r = k->is_cancelled ? -ECANCELED : has_waiting(k) ? 0 : take_data_head(k);

        *ret = NULL;
        if (r < 0 || k->coming > 0)
                return r;
        r = next_frame(k, true, ret);
        if (r == 0 && (*ret)->head.type != WIRE_DATA && (*ret)->head.type != WIRE_ABORT &&
            (*ret)->head.type != WIRE_WRITTEN) {
                free(*ret);
                return -EPROTO;
        }
        return r;
}

/* Nothing is unread: the next head most likely comes along, and is. */
static int read_data(struct serve_conn *k, char *to, size_t size)
{
        int r = serve_conn_flush(k);

        buf_clear(&k->unread);
        k->unread_at = 0;
        while (r == 0 && size > 0) {
                char *more = buf_reserve(&k->unread, READ_BEHIND);
                struct iovec parts[2] = {{to, size}, {more, more ? READ_BEHIND : 0}};
                ssize_t n = readv(k->in, parts, 2);

                if (n <= 0) {
                        r = n == 0 ? -EPIPE : errno == EINTR ? 0 : -errno;
                        continue;
                }
                if ((size_t)n > size)
                        k->unread.size += (size_t)n - size;
                to += n;
                size -= (size_t)n < size ? (size_t)n : size;
        }
        return r;
}

int serve_take_data(struct serve_conn *k, void *to, size_t size)
{
        size_t n = unread_size(k) < size ? unread_size(k) : size;
        int r = 0;

        if (to)
                memcpy(to, k->unread.data + k->unread_at, n);
        k->unread_at += n;
        k->coming -= size;
        if (to && n < size)
                return read_data(k, (char *)to + n, size - n);
        for (size -= n; r == 0 && size > 0; size -= n) {
                r = read_more(k);
                n = unread_size(k) < size ? unread_size(k) : size;
                k->unread_at += n;
        }
        return r;
}

int serve_end(struct serve_conn *k, struct wire_out *o)
{
        size_t size;
        int r = wire_end(o);

        if (r < 0)
                return r;
        size = k->unsent.size - o->at;
        k->window -= size < k->window ? size : k->window;
        if (k->unsent.size >= FLUSH_AT)
                r = serve_conn_flush(k);
        while (r == 0 && k->window == 0 && !k->is_cancelled) {
                struct serve_frame *f;

                r = read_frame(k, &f);
                if (r == 0 && !take_news(k, f))
                        r = wait_later(k, f);
        }
        return r == 0 && k->is_cancelled ? -ECANCELED : r;
}
