/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client against servers made for the case: slow, unordered, lying, endless. Each is a function
 * that gets one request after the other, on a thread that is also the stream's.
 */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"
#include "transport/sftp/batch.h"
#include "transport/sftp/wire.h"

/* ---- a server of our own ---- */

struct request {
        enum wire_kind kind;
        uint32_t id;
        const unsigned char *body;
        size_t size;
};

struct server {
        struct stream stream;
        const struct stream_events *events;
        void (*answer)(struct server *v, const struct request *r);
        struct buf out; /* what it says, until it is sent */
        struct buf kept; /* what it says later; the case's */
        unsigned seen[256]; /* requests, by kind */
        unsigned count; /* the case's */
        bool is_extended; /* it announces limits@openssh.com */
        pthread_t thread;

        struct mutex lock;
        struct cond changed;
        struct buf in;
        bool is_paused, is_over, was_high;
        size_t pending; /* of requests in `in`: bytes when it was last looked at */
};

static int server_send(struct stream *s, const void *data, size_t size)
{
        struct server *v = container_of(s, struct server, stream);
        int r;

        mutex_lock(&v->lock);
        r = buf_add(&v->in, data, size);
        v->was_high = v->was_high || v->in.size >= STREAM_QUEUE_LOW;
        cond_signal(&v->changed);
        mutex_unlock(&v->lock);
        return r;
}

static int server_send_eof(struct stream *s)
{
        (void)s;
        return 0;
}

static size_t server_queued(struct stream *s)
{
        struct server *v = container_of(s, struct server, stream);
        size_t size;

        mutex_lock(&v->lock);
        size = v->in.size;
        mutex_unlock(&v->lock);
        return size;
}

static void server_close(struct stream *s)
{
        struct server *v = container_of(s, struct server, stream);

        mutex_lock(&v->lock);
        v->is_over = true;
        cond_signal(&v->changed);
        mutex_unlock(&v->lock);
        CHECK_EQ(pthread_join(v->thread, NULL), 0);
}

static const struct stream_ops server_ops = {server_send, server_send_eof, server_queued,
                                             server_close};

static uint32_t get32(const unsigned char *at)
{
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void say32(struct server *v, uint32_t value)
{
        unsigned char bytes[] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                                 (unsigned char)(value >> 8), (unsigned char)value};

        CHECK_EQ(buf_add(&v->out, bytes, 4), 0);
}

static void say_bytes(struct server *v, const void *data, size_t size)
{
        say32(v, (uint32_t)size);
        CHECK_EQ(buf_add(&v->out, data, size), 0);
}

/* Begin an answer; to say_end. */
static size_t say(struct server *v, enum wire_kind kind, uint32_t id)
{
        size_t start = v->out.size;

        say32(v, 0);
        CHECK_EQ(buf_add_char(&v->out, (char)kind), 0);
        say32(v, id);
        return start;
}

static void say_end(struct server *v, size_t start)
{
        uint32_t size = (uint32_t)(v->out.size - start - 4);

        for (int i = 0; i < 4; i++)
                v->out.data[start + (size_t)i] = (char)(size >> (24 - 8 * i));
}

static void say_status(struct server *v, uint32_t id, uint32_t status)
{
        size_t start = say(v, WIRE_STATUS, id);

        say32(v, status);
        say_end(v, start);
}

static void say_attrs_body(struct server *v, uint32_t mode, uint64_t size)
{
        say32(v, SFTP_SET_SIZE | SFTP_SET_MODE);
        say32(v, (uint32_t)(size >> 32));
        say32(v, (uint32_t)size);
        say32(v, mode);
}

static void say_attrs(struct server *v, uint32_t id, uint32_t mode, uint64_t size)
{
        size_t start = say(v, WIRE_ATTRS, id);

        say_attrs_body(v, mode, size);
        say_end(v, start);
}

static void say_handle(struct server *v, uint32_t id)
{
        size_t start = say(v, WIRE_HANDLE, id);

        say_bytes(v, "handle", 6);
        say_end(v, start);
}

/* Give out what was said. */
static void flush(struct server *v)
{
        if (v->out.size > 0)
                v->events->data(v->events->ctx, false, v->out.data, v->out.size);
        buf_clear(&v->out);
}

static void handle(struct server *v, const unsigned char *packet, size_t size)
{
        struct request r = {.kind = (enum wire_kind)packet[0]};

        v->seen[packet[0]]++;
        if (r.kind == WIRE_INIT) {
                size_t start = say(v, WIRE_VERSION, 3);

                if (v->is_extended) {
                        say_bytes(v, "limits@openssh.com", 18);
                        say_bytes(v, "1", 1);
                }
                say_end(v, start);
                return;
        }
        r.id = get32(packet + 1);
        r.body = packet + 5;
        r.size = size - 5;
        v->answer(v, &r);
}

/* The requests that are there, or NULL at the end. */
static struct buf wait_requests(struct server *v)
{
        struct buf got = BUF_INIT(64 << 20);

        mutex_lock(&v->lock);
        while (!v->is_over && (v->in.size == v->pending || v->is_paused))
                cond_wait(&v->changed, &v->lock);
        if (!v->is_over) {
                CHECK_EQ(buf_add(&got, v->in.data, v->in.size), 0);
                buf_clear(&v->in);
        }
        mutex_unlock(&v->lock);
        return got;
}

static void *serve(void *arg)
{
        struct server *v = arg;
        struct wire_in in;
        struct buf got;
        bool was_high;

        wire_in_init(&in);
        while ((got = wait_requests(v)).size > 0) {
                const unsigned char *at = (const unsigned char *)got.data, *packet;
                size_t left = got.size, size;

                while (wire_in_next(&in, &at, &left, &packet, &size) > 0)
                        handle(v, packet, size);
                flush(v);
                buf_done(&got);
                mutex_lock(&v->lock);
                was_high = v->was_high;
                v->was_high = false;
                mutex_unlock(&v->lock);
                if (was_high)
                        v->events->drained(v->events->ctx);
        }
        wire_in_done(&in);
        return NULL;
}

static struct call in_ms(unsigned ms)
{
        struct call c;

        call_init(&c, clock_after(ms * NS_PER_MS));
        return c;
}

static struct sftp *start(struct server *v,
                          void (*answer)(struct server *v, const struct request *r),
                          bool is_ordered)
{
        struct call c = in_ms(10000);
        struct sftp *s = NULL;

        *v = (struct server){.stream = {&server_ops},
                             .answer = answer,
                             .out = BUF_INIT(64 << 20),
                             .in = BUF_INIT(64 << 20)};
        mutex_init(&v->lock);
        cond_init(&v->changed);
        CHECK_EQ(sftp_new(&s), 0);
        v->events = sftp_events(s);
        CHECK_EQ(pthread_create(&v->thread, NULL, serve, v), 0);
        CHECK_EQ(sftp_start(s, &c, &v->stream, is_ordered), 0);
        return s;
}

static void stop(struct server *v, struct sftp *s)
{
        sftp_unref(s);
        buf_done(&v->in);
        buf_done(&v->out);
        cond_done(&v->changed);
        mutex_done(&v->lock);
}

static void pause_server(struct server *v, bool is_paused)
{
        mutex_lock(&v->lock);
        v->is_paused = is_paused;
        cond_signal(&v->changed);
        mutex_unlock(&v->lock);
}

/* ---- broken protocols ---- */

static void answer_twice(struct server *v, const struct request *r)
{
        say_status(v, r->id, WIRE_OK);
        say_status(v, r->id, WIRE_OK);
}

static void answer_another(struct server *v, const struct request *r)
{
        say_status(v, r->id + 77, WIRE_OK);
}

static void answer_too_much(struct server *v, const struct request *r)
{
        size_t start = say(v, WIRE_DATA, r->id);

        say_bytes(v, "0123456789abcdef", 16);
        say_end(v, start);
}

static void answer_large(struct server *v, const struct request *r)
{
        (void)r;
        say32(v, WIRE_PACKET_MAX + 1);
}

static void answers_that_cant_be_end_the_connection(void)
{
        void (*const answers[])(struct server *, const struct request *) = {
                answer_twice, answer_another, answer_too_much, answer_large};

        for (int i = 0; i < 4; i++) {
                char buffer[8], sentence[256] = "";
                struct call c = in_ms(10000);
                struct sftp_op ops[2] = {
                        {.type = SFTP_READ, .handle.size = 1, .buffer = buffer, .size = 8},
                        {.type = SFTP_MKDIR, .path = "a"},
                };
                struct server v;
                struct sftp *s = start(&v, answers[i], true);

                CHECK_EQ(sftp_run(s, &c, ops, 2), -EPROTO);
                CHECK_EQ(sftp_error(s, sentence, sizeof(sentence)), -EPROTO);
                CHECK(sentence[0]);
                CHECK(ops[1].error == -EINPROGRESS || ops[1].error == -ECANCELED);
                stop(&v, s);
        }
}

/* ---- directories without end ---- */

static void say_names(struct server *v, uint32_t id, unsigned count, bool is_good)
{
        size_t start = say(v, WIRE_NAME, id);
        char name[32];

        say32(v, count);
        for (unsigned i = 0; i < count; i++) {
                (void)snprintf(name, sizeof(name), "%s%u", is_good ? "n" : "../", v->count++);
                say_bytes(v, name, strlen(name));
                say_bytes(v, "", 0);
                say_attrs_body(v, i % 10 ? S_IFREG | 0600 : S_IFDIR | 0700, 5);
        }
        say_end(v, start);
}

static void answer_endless(struct server *v, const struct request *r)
{
        if (r->kind == WIRE_OPENDIR)
                say_handle(v, r->id);
        else if (r->kind == WIRE_READDIR)
                say_names(v, r->id, 100, true);
        else
                say_status(v, r->id, WIRE_OK);
}

static void answer_useless(struct server *v, const struct request *r)
{
        if (r->kind == WIRE_OPENDIR)
                say_handle(v, r->id);
        else if (r->kind == WIRE_READDIR)
                say_names(v, r->id, 100, false);
        else
                say_status(v, r->id, WIRE_OK);
}

struct counts {
        size_t entries, listed;
};

static int on_entry(void *ctx, const char *path, const struct stat *st, const char *target)
{
        struct counts *n = ctx;

        (void)target;
        CHECK(!strstr(path, "..") && path[0] != '/');
        CHECK(st->st_mode & S_IFMT);
        n->entries++;
        return 0;
}

static int on_listed(void *ctx, const char *path)
{
        struct counts *n = ctx;

        (void)path;
        n->listed++;
        return 0;
}

static void endless_directories_are_cut(void)
{
        struct counts n = {0};
        struct sftp_list_sink to = {on_entry, on_listed, &n};
        struct sftp_listing what = {.root = "/r", .depth = 5000, .entries_max = 20000};
        struct call c = in_ms(20000);
        struct server v;
        struct sftp *s = start(&v, answer_endless, true);

        CHECK_EQ(sftp_list(s, &c, &what, &to), 0);
        CHECK(n.entries >= 20000 && n.entries < 21000);
        CHECK_EQ(n.listed, 0);
        stop(&v, s);

        n = (struct counts){0};
        what.entries_max = 0;
        s = start(&v, answer_useless, true);
        CHECK_EQ(sftp_list(s, &c, &what, &to), 0);
        CHECK_EQ(n.entries, 0);
        CHECK_EQ(n.listed, 0);
        stop(&v, s);
}

/* ---- files that lie ---- */

static void answer_growing(struct server *v, const struct request *r)
{
        if (r->kind == WIRE_LSTAT || r->kind == WIRE_FSTAT) {
                say_attrs(v, r->id, S_IFREG | 0644, 5 + v->count++);
        } else if (r->kind == WIRE_OPEN) {
                say_handle(v, r->id);
        } else if (r->kind == WIRE_READ) {
                size_t start = say(v, WIRE_DATA, r->id);

                say_bytes(v, "12345", 5);
                say_end(v, start);
        } else {
                say_status(v, r->id, WIRE_OK);
        }
}

static void answer_huge(struct server *v, const struct request *r)
{
        say_attrs(v, r->id, S_IFREG | 0644, UINT64_MAX);
}

static int on_error(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                    size_t size)
{
        (void)index;
        (void)st;
        CHECK(!data && size == 0);
        *(int *)ctx = error;
        return 0;
}

static void files_that_change_or_lie_are_refused(void)
{
        int error = 0;
        struct sftp_fetch_sink to = {.file = on_error, .ctx = &error};
        const char *path = "f";
        struct call c = in_ms(10000);
        struct server v;
        struct sftp *s = start(&v, answer_growing, true);

        CHECK_EQ(sftp_fetch(s, &c, &path, 1, 1 << 20, &to), 0);
        CHECK_EQ(error, -EAGAIN);
        CHECK_EQ(v.seen[WIRE_OPEN], 2);
        CHECK_EQ(v.seen[WIRE_CLOSE], 2);
        stop(&v, s);

        s = start(&v, answer_huge, true);
        CHECK_EQ(sftp_fetch(s, &c, &path, 1, SIZE_MAX / 2 - 1, &to), 0);
        CHECK_EQ(error, -EFBIG);
        stop(&v, s);
}

/* ---- a server that is honest, but answers in any order and in small portions ---- */

enum { FILE_SIZE = 3000000 };

static unsigned char file[FILE_SIZE];

static void answer_read(struct server *v, const struct request *r)
{
        const unsigned char *at = r->body + 4 + get32(r->body);
        uint64_t offset = (uint64_t)get32(at) << 32 | get32(at + 4);
        uint32_t size = get32(at + 8);
        size_t start;

        if (offset >= FILE_SIZE) {
                say_status(v, r->id, WIRE_EOF);
                return;
        }
        if (size > FILE_SIZE - offset)
                size = (uint32_t)(FILE_SIZE - offset);
        if (size > 1000 && v->count++ % 2)
                size = size / 3;
        start = say(v, WIRE_DATA, r->id);
        say_bytes(v, file + offset, size);
        say_end(v, start);
}

/* Of one READDIR 150 names, of the next the end. */
static void answer_readdir(struct server *v, const struct request *r)
{
        if (v->seen[WIRE_READDIR] % 2)
                say_names(v, r->id, 150, true);
        else
                say_status(v, r->id, WIRE_EOF);
}

static void answer_write(struct server *v, const struct request *r)
{
        const unsigned char *at = r->body + 4 + get32(r->body);
        uint64_t offset = (uint64_t)get32(at) << 32 | get32(at + 4);

        CHECK(offset + get32(at + 8) <= FILE_SIZE);
        memcpy(file + offset, at + 12, get32(at + 8));
        say_status(v, r->id, WIRE_OK);
}

static void answer_any(struct server *v, const struct request *r)
{
        switch ((unsigned)r->kind) {
        case WIRE_OPEN:
        case WIRE_OPENDIR: say_handle(v, r->id); break;
        case WIRE_READ: answer_read(v, r); break;
        case WIRE_WRITE: answer_write(v, r); break;
        case WIRE_READDIR: answer_readdir(v, r); break;
        case WIRE_LSTAT:
        case WIRE_FSTAT: say_attrs(v, r->id, S_IFREG | 0644, FILE_SIZE); break;
        default: say_status(v, r->id, WIRE_OK);
        }
}

/* The first of each two goes after the second. */
static void answer_unordered(struct server *v, const struct request *r)
{
        struct buf said = v->out;

        if (v->seen[r->kind] % 2 == 0) {
                answer_any(v, r);
                CHECK_EQ(buf_add(&v->out, v->kept.data, v->kept.size), 0);
                buf_done(&v->kept);
        } else {
                v->out = BUF_INIT(1 << 20);
                answer_any(v, r);
                v->kept = v->out;
                v->out = said;
        }
}

static int give_bytes(void *ctx, void *data, size_t size, uint64_t offset)
{
        (void)ctx;
        for (size_t i = 0; i < size; i++)
                ((unsigned char *)data)[i] = (unsigned char)((offset + i) * 13 >> 5);
        return 0;
}

static int on_file(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                   size_t size)
{
        (void)index;
        CHECK_EQ(error, 0);
        CHECK_EQ(st->st_size, FILE_SIZE);
        CHECK(size == FILE_SIZE && memcmp(data, file, size) == 0);
        ++*(unsigned *)ctx;
        return 0;
}

static void servers_without_order_serve_all_the_same(void)
{
        static unsigned char data[FILE_SIZE + 10];
        struct call c = in_ms(60000);
        struct server v;
        struct sftp *s = start(&v, answer_any, false);
        struct sftp_file f = {.s = s, .handle = {.size = 1}};
        struct sftp_source from = {give_bytes, NULL};
        const char *paths[] = {"a", "b", "c"};
        unsigned count = 0;
        struct sftp_fetch_sink files = {.file = on_file, .ctx = &count};
        struct counts n = {0};
        struct sftp_list_sink to = {on_entry, on_listed, &n};
        struct sftp_listing what = {.root = "", .depth = 1};
        struct stat st;

        CHECK_EQ(sftp_piece_max(s), 32768);
        CHECK_EQ(sftp_write(&f, 1, &c, &from, FILE_SIZE, 0), 0);
        (void)give_bytes(NULL, data, FILE_SIZE, 0);
        CHECK(memcmp(file, data, FILE_SIZE) == 0);
        memset(data, 0, sizeof(data));
        CHECK_EQ(sftp_read(&f, 1, &c, data, sizeof(data), 0, &st), FILE_SIZE);
        CHECK(memcmp(file, data, FILE_SIZE) == 0);
        CHECK_EQ(st.st_size, FILE_SIZE);
        CHECK_EQ(sftp_fetch(s, &c, paths, 3, FILE_SIZE, &files), 0);
        CHECK_EQ(count, 3);
        CHECK_EQ(sftp_list(s, &c, &what, &to), 0);
        CHECK_EQ(n.entries, 150);
        CHECK_EQ(n.listed, 1);
        stop(&v, s);
}

static void answers_may_overtake_each_other(void)
{
        static unsigned char data[FILE_SIZE];
        struct call c = in_ms(60000);
        struct server v;
        struct sftp *s = start(&v, answer_unordered, false);
        struct sftp_op ops[4] = {0};

        for (size_t i = 0; i < 4; i++)
                ops[i] = (struct sftp_op){.type = SFTP_READ,
                                          .handle.size = 1,
                                          .offset = i * 900,
                                          .size = 900,
                                          .buffer = data + i * 900};
        CHECK_EQ(sftp_run(s, &c, ops, 4), 0);
        for (int i = 0; i < 4; i++)
                CHECK_EQ(ops[i].got, 900);
        CHECK(memcmp(file, data, 3600) == 0);
        stop(&v, s);
}

/* ---- windows ---- */

static void answer_fine(struct server *v, const struct request *r)
{
        if (r->kind == WIRE_LSTAT)
                say_attrs(v, r->id, S_IFREG | 0644, 1);
        else if (r->kind == WIRE_OPEN)
                say_handle(v, r->id);
        else
                say_status(v, r->id, WIRE_OK);
}

static void metadata_in_flight_is_bounded(void)
{
        enum { COUNT = 5000 };
        struct sftp_op *ops = calloc(COUNT, sizeof(*ops));
        struct call c = in_ms(20000);
        struct server v;
        struct sftp *s = start(&v, answer_fine, true);
        struct sftp_queue q;
        struct sftp_op *op;
        size_t count = 0;

        for (int i = 0; ops && i < COUNT; i++)
                ops[i] = (struct sftp_op){.type = SFTP_LSTAT, .path = "12345"};
        pause_server(&v, true);
        sftp_queue_init(&q);
        sftp_submit(s, &q, ops, COUNT);
        CHECK_EQ(server_queued(&v.stream), (size_t)1024 * (4 + 5 + 4 + 5));
        CHECK(sftp_is_waiting(s));
        pause_server(&v, false);
        while (sftp_next(&q, &c, &op) == 0)
                count += op->error == 0;
        CHECK_EQ(count, COUNT);
        CHECK(sftp_queue_is_empty(&q));
        CHECK(!sftp_is_waiting(s));
        sftp_queue_done(&q);
        stop(&v, s);
        free(ops);
}

static void metadata_goes_before_bulk_that_waits(void)
{
        enum { COUNT = 100 };
        static char data[65536];
        struct sftp_op writes[COUNT] = {0};
        struct sftp_op stat = {.type = SFTP_LSTAT, .path = "a"};
        struct call c = in_ms(20000);
        struct server v;
        struct sftp *s = start(&v, answer_fine, true);
        struct sftp_queue q;
        struct sftp_op *op;
        size_t queued, count = 0;

        for (int i = 0; i < COUNT; i++)
                writes[i] = (struct sftp_op){.type = SFTP_WRITE,
                                             .is_bulk = true,
                                             .handle.size = 1,
                                             .data = data,
                                             .size = sizeof(data)};
        pause_server(&v, true);
        sftp_queue_init(&q);
        sftp_submit(s, &q, writes, COUNT);
        queued = server_queued(&v.stream);
        CHECK(queued >= STREAM_QUEUE_LOW && queued < STREAM_QUEUE_LOW + 2 * sizeof(data));
        sftp_submit(s, &q, &stat, 1);
        CHECK(stat.was_sent);
        CHECK(!writes[COUNT - 1].was_sent);
        pause_server(&v, false);
        while (sftp_next(&q, &c, &op) == 0)
                count += op->error == 0;
        CHECK_EQ(count, COUNT + 1);
        sftp_queue_done(&q);
        stop(&v, s);
}

/* ---- time ---- */

/* 20 bytes, each after a while. */
static void answer_slowly(struct server *v, const struct request *r)
{
        struct buf said;

        answer_fine(v, r);
        said = v->out;
        v->out = BUF_INIT(1 << 20);
        for (size_t i = 0; i < said.size; i++) {
                (void)usleep(10000);
                v->events->data(v->events->ctx, false, said.data + i, 1);
        }
        buf_done(&said);
}

static void a_deadline_moves_while_bytes_come(void)
{
        struct call c = in_ms(60);
        struct sftp_op op = {.type = SFTP_MKDIR, .path = "a"};
        struct server v;
        struct sftp *s = start(&v, answer_slowly, true);

        c.deadline_ns = clock_after(60 * NS_PER_MS);
        CHECK_EQ(sftp_run(s, &c, &op, 1), 0);
        CHECK_EQ(op.error, 0);
        CHECK(clock_mono_ns() < c.deadline_ns);
        stop(&v, s);
}

/* Everything but the LSTAT. */
static void answer_others(struct server *v, const struct request *r)
{
        if (r->kind != WIRE_LSTAT)
                answer_fine(v, r);
}

static void an_answer_that_is_withheld_is_waited_for_no_longer(void)
{
        enum { COUNT = 1000 };
        struct sftp_op *ops = calloc(COUNT, sizeof(*ops));
        struct sftp_op stat = {.type = SFTP_LSTAT, .path = "a"};
        struct sftp_op *op;
        struct call c = in_ms(10000);
        struct server v;
        struct sftp *s = start(&v, answer_others, true);
        struct sftp_queue q;

        sftp_queue_init(&q);
        sftp_submit(s, &q, &stat, 1);
        for (int k = 0; ops && k < 9; k++) {
                for (int i = 0; i < COUNT; i++)
                        ops[i] = (struct sftp_op){.type = SFTP_RMDIR, .path = "a"};
                CHECK_EQ(sftp_run(s, &c, ops, COUNT), 0);
        }
        c.deadline_ns = clock_after(50 * NS_PER_MS);
        CHECK_EQ(sftp_next(&q, &c, &op), -ETIMEDOUT);
        sftp_queue_done(&q);
        CHECK_EQ(stat.error, -EINPROGRESS);
        stop(&v, s);
        free(ops);
}

static void a_handle_that_nobody_waits_for_is_closed(void)
{
        struct sftp_op open = {.type = SFTP_OPEN, .path = "a", .flags = SFTP_FOR_READ};
        struct sftp_op sync = {.type = SFTP_LSTAT, .path = "a"};
        struct call c = in_ms(10000);
        struct server v;
        struct sftp *s = start(&v, answer_fine, true);
        struct sftp_queue q;

        pause_server(&v, true);
        sftp_queue_init(&q);
        sftp_submit(s, &q, &open, 1);
        sftp_queue_done(&q);
        CHECK_EQ(open.error, -EINPROGRESS);
        pause_server(&v, false);
        CHECK_EQ(sftp_run(s, &c, &sync, 1), 0);
        CHECK_EQ(sftp_run(s, &c, &sync, 1), 0);
        CHECK_EQ(v.seen[WIRE_CLOSE], 1);
        stop(&v, s);
}

static void unsupported_extensions_are_not_asked_for(void)
{
        static const enum sftp_type types[] = {SFTP_LSETSTAT, SFTP_POSIX_RENAME, SFTP_HARDLINK,
                                               SFTP_STATVFS};
        struct call c = in_ms(10000);
        struct server v;
        struct sftp *s = start(&v, answer_fine, true);

        for (int i = 0; i < 4; i++) {
                struct sftp_op op = {.type = types[i], .path = "a", .to = "b"};

                CHECK_EQ(sftp_run(s, &c, &op, 1), 0);
                CHECK_EQ(op.error, -EOPNOTSUPP);
                CHECK(!op.was_sent);
        }
        CHECK_EQ(v.seen[WIRE_EXTENDED], 0);
        stop(&v, s);
}

int main(void)
{
        RUN(answers_that_cant_be_end_the_connection);
        RUN(endless_directories_are_cut);
        RUN(files_that_change_or_lie_are_refused);
        RUN(servers_without_order_serve_all_the_same);
        RUN(answers_may_overtake_each_other);
        RUN(metadata_in_flight_is_bounded);
        RUN(metadata_goes_before_bulk_that_waits);
        RUN(a_deadline_moves_while_bytes_come);
        RUN(an_answer_that_is_withheld_is_waited_for_no_longer);
        RUN(a_handle_that_nobody_waits_for_is_closed);
        RUN(unsupported_extensions_are_not_asked_for);
        return check_result();
}
