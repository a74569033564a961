/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of files, but for changes. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "providers/agent/serve.h"
#include "providers/posix/place.h"
#include "providers/posix/posix.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/list.h"

#define ENTRIES_BYTES ((size_t)64 * 1024) /* in one frame, and one more entry */
#define SKIPS_MAX 64
#define BESIDE_BUFFER (1 << 20)
#define FETCH_SIZE_MAX ((size_t)64 << 20)

struct server {
        struct serve_conn *conn;
        const char *root;
        struct place place; /* opened for each request: the directory may be another by then */
        int handles[WIRE_HANDLES]; /* -1: none */
        unsigned char *piece; /* WIRE_PIECE bytes */
        int beside[2]; /* ours, theirs; -1: none */
        unsigned char nonce[WIRE_NONCE]; /* of these */
};

/* Errors of the connection end it all; those of files are told. */
static bool is_fatal(int r)
{
        return r < 0 && r != -ECANCELED;
}

/* ---- listings ---- */

struct listing {
        struct file_list_sink sink;
        struct serve_conn *conn;
        struct wire_out out;
        bool is_open; /* a frame is being filled */
        int error; /* the connection's */
};

static void open_frame(struct listing *l)
{
        if (!l->is_open)
                serve_begin(l->conn, &l->out, WIRE_ENTRIES);
        l->is_open = true;
}

static int close_frame(struct listing *l)
{
        if (!l->is_open)
                return 0;
        l->is_open = false;
        l->error = serve_end(l->conn, &l->out);
        return l->error;
}

static int close_full_frame(struct listing *l)
{
        if (l->out.error == 0 && l->out.to->size - l->out.at < ENTRIES_BYTES)
                return 0;
        return close_frame(l);
}

static int on_entry(struct file_list_sink *to, const char *path, const struct stat *st,
                    const char *target)
{
        struct listing *l = container_of(to, struct listing, sink);

        open_frame(l);
        wire_u32(&l->out, target ? 2 : 1);
        wire_text(&l->out, path);
        wire_stat(&l->out, st);
        if (target)
                wire_text(&l->out, target);
        return close_full_frame(l);
}

static int on_listed(struct file_list_sink *to, const char *path)
{
        struct listing *l = container_of(to, struct listing, sink);

        open_frame(l);
        wire_u32(&l->out, 0);
        wire_text(&l->out, path);
        return close_full_frame(l);
}

static int serve_list(struct server *s, struct wire_in *in)
{
        struct listing l = {.sink = {on_entry, on_listed}, .conn = s->conn};
        const char *skip[SKIPS_MAX + 1] = {0};
        struct file_listing what = {.path = wire_take_text(in), .skip = skip};
        struct call c;
        uint32_t has_into, skips;
        int r;

        what.depth = wire_take_u32(in);
        what.entries_max = wire_take_u64(in);
        has_into = wire_take_u32(in);
        what.into = wire_take_text(in);
        if (!has_into)
                what.into = NULL;
        skips = wire_take_u32(in);
        for (uint32_t i = 0; i < skips && i < SKIPS_MAX; i++)
                skip[i] = wire_take_text(in);
        if (!wire_is_whole(in) || !wire_is_path(what.path, true))
                return serve_done(s->conn, -EINVAL);
        call_init(&c, UINT64_MAX);
        r = posix_list(&s->place, &c, &what, &l.sink);
        if (l.error == 0)
                (void)close_frame(&l);
        if (l.error < 0)
                return l.error == -ECANCELED ? 0 : l.error;
        return serve_done(s->conn, r);
}

/* ---- attributes ---- */

static int done_with_stat(struct server *s, int r, const struct stat *st)
{
        struct wire_out o;

        if (r < 0)
                return serve_done(s->conn, r);
        serve_begin(s->conn, &o, WIRE_DONE);
        wire_u32(&o, 0);
        wire_stat(&o, st);
        return serve_end_now(s->conn, &o);
}

static int serve_stat(struct server *s, struct wire_in *in)
{
        const char *path = wire_take_text(in);
        struct stat st = {0};

        return done_with_stat(
                s, wire_is_path(path, true) ? posix_stat(&s->place, path, &st) : -EINVAL, &st);
}

static int serve_readlink(struct server *s, struct wire_in *in)
{
        const char *path = wire_take_text(in);
        char target[PATH_MAX];
        int r = wire_is_path(path, true) ? posix_readlink(&s->place, path, target, sizeof(target))
                                         : -EINVAL;
        struct wire_out o;

        if (r < 0)
                return serve_done(s->conn, r);
        serve_begin(s->conn, &o, WIRE_DONE);
        wire_u32(&o, 0);
        wire_text(&o, target);
        return serve_end_now(s->conn, &o);
}

static int serve_statfs(struct server *s)
{
        struct statvfs fs;
        struct wire_out o;

        if (fstatvfs(s->place.root, &fs) < 0)
                return serve_done(s->conn, -errno);
        serve_begin(s->conn, &o, WIRE_DONE);
        wire_u32(&o, 0);
        wire_statfs(&o, &fs);
        return serve_end_now(s->conn, &o);
}

/* ---- whole files ---- */

static int tell_file(struct server *s, uint32_t index, int error, const struct stat *st,
                     const unsigned char *data, size_t size)
{
        struct wire_out o;
        int r;

        serve_begin(s->conn, &o, WIRE_FILE);
        wire_u32(&o, index);
        wire_u32(&o, (uint32_t)-error);
        wire_u64(&o, size);
        if (error == 0 || error == -EFBIG)
                wire_stat(&o, st);
        r = serve_end(s->conn, &o);
        for (size_t at = 0; r == 0 && at < size; at += WIRE_PIECE) {
                serve_begin(s->conn, &o, WIRE_DATA);
                wire_bytes(&o, data + at, size - at < WIRE_PIECE ? size - at : WIRE_PIECE);
                r = serve_end(s->conn, &o);
        }
        return r;
}

static int fetch_one(struct server *s, uint32_t index, const char *path, unsigned char *data,
                     size_t size_max)
{
        struct stat st = {0};
        _cleanup_(closep) int fd = wire_is_path(path, true)
                                           ? place_open_file(&s->place, path, O_RDONLY, &st)
                                           : -EINVAL;
        ssize_t n = fd < 0 ? fd : posix_read_whole(fd, data, size_max, &st);

        return tell_file(s, index, n < 0 ? (int)n : 0, &st, data, n < 0 ? 0 : (size_t)n);
}

static int serve_fetch(struct server *s, struct wire_in *in)
{
        uint64_t size_max = wire_take_u64(in);
        uint32_t count = wire_take_u32(in);
        _cleanup_(freep) unsigned char *data =
                size_max <= FETCH_SIZE_MAX ? malloc(size_max + 1) : NULL;
        int r = 0;

        if (!data || in->is_bad)
                return serve_done(s->conn, data ? -EINVAL : -ENOMEM);
        for (uint32_t i = 0; r == 0 && i < count && !in->is_bad; i++) {
                const char *path = wire_take_text(in);

                if (!in->is_bad)
                        r = fetch_one(s, i, path, data, size_max);
        }
        if (r < 0)
                return r == -ECANCELED ? 0 : r;
        return serve_done(s->conn, wire_is_whole(in) ? 0 : -EINVAL);
}

/* ---- parts of files ---- */

static int *free_handle(struct server *s, uint32_t *ret)
{
        for (uint32_t i = 0; i < WIRE_HANDLES; i++) {
                if (s->handles[i] < 0) {
                        *ret = i;
                        return &s->handles[i];
                }
        }
        return NULL;
}

static int serve_open(struct server *s, struct wire_in *in)
{
        const char *path = wire_take_text(in);
        struct stat st = {0};
        uint32_t handle = 0;
        int *slot = free_handle(s, &handle);
        struct wire_out o;
        int fd = -EINVAL;

        if (!slot)
                fd = -EMFILE;
        else if (wire_is_path(path, true))
                fd = place_open_file(&s->place, path, O_RDONLY, &st);
        if (fd < 0)
                return serve_done(s->conn, fd);
        *slot = fd;
        serve_begin(s->conn, &o, WIRE_DONE);
        wire_u32(&o, 0);
        wire_u32(&o, handle);
        wire_stat(&o, &st);
        return serve_end_now(s->conn, &o);
}

static int *handle_of(struct server *s, uint32_t handle)
{
        return handle < WIRE_HANDLES && s->handles[handle] >= 0 ? &s->handles[handle] : NULL;
}

static int serve_close(struct server *s, struct wire_in *in)
{
        int *fd = handle_of(s, wire_take_u32(in));

        if (fd) {
                closep(fd);
                *fd = -1;
        }
        return 0;
}

static int done_with_number(struct server *s, int fd)
{
        struct wire_out o;

        serve_begin(s->conn, &o, WIRE_DONE);
        wire_u32(&o, 0);
        wire_u32(&o, (uint32_t)fd);
        return serve_end_now(s->conn, &o);
}

static int serve_number(struct server *s, struct wire_in *in)
{
        const int *fd = handle_of(s, wire_take_u32(in));

        return fd && wire_is_whole(in) ? done_with_number(s, *fd) : serve_done(s->conn, -EINVAL);
}

/* Straight into what is to be sent. */
static ssize_t read_piece(struct server *s, int fd, size_t size, uint64_t offset)
{
        struct wire_out o;
        ssize_t n = file_pread_full(fd, s->piece, size, offset);
        int r;

        if (n <= 0)
                return n;
        serve_begin(s->conn, &o, WIRE_DATA);
        wire_bytes(&o, s->piece, (size_t)n);
        r = serve_end_now(s->conn, &o);
        return r < 0 ? r : n;
}

static int serve_read(struct server *s, struct wire_in *in)
{
        int *fd = handle_of(s, wire_take_u32(in));
        uint64_t offset = wire_take_u64(in);
        size_t size = wire_take_u32(in), at = 0;
        struct stat st = {0};
        ssize_t n = 1;

        if (!fd || !wire_is_whole(in) || size > WIRE_READ_MAX || offset > INT64_MAX - size)
                return serve_done(s->conn, -EINVAL);
        while (n > 0 && at < size) {
                n = read_piece(s, *fd, size - at < WIRE_PIECE ? size - at : WIRE_PIECE,
                               offset + at);
                at += n > 0 ? (size_t)n : 0;
        }
        if (n >= 0 && fstat(*fd, &st) < 0)
                n = -errno;
        return done_with_stat(s, n < 0 ? (int)n : 0, &st);
}

/* ---- requests ---- */

static int serve_hello(struct server *s, struct wire_in *in)
{
        struct wire_out o;

        if (wire_take_u32(in) != WIRE_VERSION)
                return serve_done(s->conn, -EINVAL);
        serve_begin(s->conn, &o, WIRE_DONE);
        wire_u32(&o, 0);
        wire_u32(&o, WIRE_VERSION);
        return serve_end_now(s->conn, &o);
}

/* ---- another connection ---- */

static void drop_beside(struct server *s)
{
        for (unsigned i = 0; i < 2; i++) {
                closep(&s->beside[i]);
                s->beside[i] = -1;
        }
}

static int make_beside(struct server *s, const unsigned char nonce[WIRE_NONCE])
{
        int size = BESIDE_BUFFER;

        drop_beside(s);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s->beside) < 0)
                return -errno;
        for (unsigned i = 0; i < 2; i++) /* better, but not needed */
                (void)setsockopt(s->beside[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        memcpy(s->nonce, nonce, WIRE_NONCE);
        return file_write_all(s->beside[0], nonce, WIRE_NONCE);
}

static int serve_beside(struct server *s, struct wire_in *in)
{
        int r = in->left == WIRE_NONCE ? make_beside(s, in->at) : -EINVAL;

        return r < 0 ? serve_done(s->conn, r) : done_with_number(s, s->beside[1]);
}

static bool is_of_beside(const struct server *s, const struct wire_in *in)
{
        return s->beside[0] >= 0 && in->left == WIRE_NONCE &&
               memcmp(in->at, s->nonce, WIRE_NONCE) == 0;
}

static int serve_move(struct server *s, const struct wire_in *in)
{
        int r;

        if (!is_of_beside(s, in))
                return -EPROTO;
        r = serve_conn_move(s->conn, s->beside[0]);
        drop_beside(s);
        return r;
}

static void close_handles(struct server *s)
{
        for (unsigned i = 0; i < WIRE_HANDLES; i++) {
                closep(&s->handles[i]);
                s->handles[i] = -1;
        }
}

/* Who ends first doesn't matter to the other. */
static int serve_split(struct server *s, const struct wire_in *in)
{
        pid_t child;
        int r;

        if (!is_of_beside(s, in))
                return serve_done(s->conn, -EINVAL);
        r = serve_conn_flush(s->conn);
        if (r < 0)
                return r;
        child = fork();
        if (child == 0) {
                close_handles(s);
                r = serve_move(s, in);
                return r == 0 ? file_write_all(s->conn->out, "", 1) : r;
        }
        r = child < 0 ? -errno : 0;
        drop_beside(s);
        return serve_done(s->conn, r);
}

static int carry_out(struct server *s, const struct serve_frame *f)
{
        struct wire_in in = {.at = f->data, .left = f->head.size};

        switch (f->head.type) {
        case WIRE_HELLO: return serve_hello(s, &in);
        case WIRE_LIST: return serve_list(s, &in);
        case WIRE_STAT: return serve_stat(s, &in);
        case WIRE_READLINK: return serve_readlink(s, &in);
        case WIRE_STATFS: return serve_statfs(s);
        case WIRE_FETCH: return serve_fetch(s, &in);
        case WIRE_OPEN: return serve_open(s, &in);
        case WIRE_READ: return serve_read(s, &in);
        case WIRE_CLOSE: return serve_close(s, &in);
        case WIRE_NUMBER: return serve_number(s, &in);
        case WIRE_BESIDE: return serve_beside(s, &in);
        case WIRE_MOVE: return serve_move(s, &in);
        case WIRE_SPLIT: return serve_split(s, &in);
        case WIRE_HELD:
        case WIRE_CHANGE: return serve_change(s->conn, &s->place, f);
        case WIRE_DATA:
        case WIRE_WRITTEN:
        case WIRE_ABORT: return 0; /* of a change that has failed or was cancelled */
        default: return serve_done(s->conn, -EOPNOTSUPP);
        }
}

/* What asks for a path, but for changes, which have content to be taken. */
static bool needs_root(uint32_t type)
{
        return type == WIRE_LIST || type == WIRE_STAT || type == WIRE_READLINK ||
               type == WIRE_STATFS || type == WIRE_FETCH || type == WIRE_OPEN;
}

static int serve_one(struct server *s)
{
        _cleanup_(freep) struct serve_frame *f = NULL;
        int r = serve_next(s->conn, &f);

        if (r < 0)
                return r;
        s->place.root = open(s->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (s->place.root < 0 && needs_root(f->head.type))
                r = serve_done(s->conn, -errno);
        else
                r = carry_out(s, f);
        closep(&s->place.root);
        return is_fatal(r) ? r : 0;
}

int serve_files(struct serve_conn *k, const char *root)
{
        struct server s = {
                .conn = k, .root = root, .piece = malloc(WIRE_PIECE), .beside = {-1, -1}};
        int r = s.piece ? 0 : -ENOMEM;

        creds_init(&s.place.creds, geteuid(), getegid());
        s.place.is_inside = true;
        for (unsigned i = 0; i < WIRE_HANDLES; i++)
                s.handles[i] = -1;
        while (r == 0)
                r = serve_one(&s);
        close_handles(&s);
        drop_beside(&s);
        free(s.piece);
        return r == -EPIPE ? 0 : 1;
}
