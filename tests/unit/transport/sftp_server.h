/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server made for the case: a function that gets one request after the other, on a thread that is
 * also the stream's.
 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/clock.h"
#include "transport/sftp/batch.h"
#include "transport/sftp/wire.h"

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

static inline int server_send(struct stream *s, const void *data, size_t size)
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

static inline int server_send_eof(struct stream *s)
{
        (void)s;
        return 0;
}

static inline size_t server_queued(struct stream *s)
{
        struct server *v = container_of(s, struct server, stream);
        size_t size;

        mutex_lock(&v->lock);
        size = v->in.size;
        mutex_unlock(&v->lock);
        return size;
}

static inline void server_close(struct stream *s)
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

static inline uint32_t get32(const unsigned char *at)
{
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void say32(struct server *v, uint32_t value)
{
        unsigned char bytes[] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                                 (unsigned char)(value >> 8), (unsigned char)value};

        CHECK_EQ(buf_add(&v->out, bytes, 4), 0);
}

static inline void say_bytes(struct server *v, const void *data, size_t size)
{
        say32(v, (uint32_t)size);
        CHECK_EQ(buf_add(&v->out, data, size), 0);
}

/* Begin an answer; to say_end. */
static inline size_t say(struct server *v, enum wire_kind kind, uint32_t id)
{
        size_t start = v->out.size;

        say32(v, 0);
        CHECK_EQ(buf_add_char(&v->out, (char)kind), 0);
        say32(v, id);
        return start;
}

static inline void say_end(struct server *v, size_t start)
{
        uint32_t size = (uint32_t)(v->out.size - start - 4);

        for (int i = 0; i < 4; i++)
                v->out.data[start + (size_t)i] = (char)(size >> (24 - 8 * i));
}

static inline void say_status(struct server *v, uint32_t id, uint32_t status)
{
        size_t start = say(v, WIRE_STATUS, id);

        say32(v, status);
        say_end(v, start);
}

static inline void say_attrs_body(struct server *v, uint32_t mode, uint64_t size)
{
        say32(v, SFTP_SET_SIZE | SFTP_SET_MODE);
        say32(v, (uint32_t)(size >> 32));
        say32(v, (uint32_t)size);
        say32(v, mode);
}

static inline void say_attrs(struct server *v, uint32_t id, uint32_t mode, uint64_t size)
{
        size_t start = say(v, WIRE_ATTRS, id);

        say_attrs_body(v, mode, size);
        say_end(v, start);
}

static inline void say_handle(struct server *v, uint32_t id)
{
        size_t start = say(v, WIRE_HANDLE, id);

        say_bytes(v, "handle", 6);
        say_end(v, start);
}

/* Give out what was said. */
static inline void flush(struct server *v)
{
        if (v->out.size > 0)
                v->events->data(v->events->ctx, false, v->out.data, v->out.size);
        buf_clear(&v->out);
}

static inline void handle(struct server *v, const unsigned char *packet, size_t size)
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
static inline struct buf wait_requests(struct server *v)
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

static inline void *serve(void *arg)
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

static inline struct call in_ms(unsigned ms)
{
        struct call c;

        call_init(&c, clock_after(ms * NS_PER_MS));
        return c;
}

static inline struct sftp *start(struct server *v,
                                 void (*answer)(struct server *v, const struct request *r),
                                 bool is_ordered)
{
        struct call c = in_ms(60000);
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

static inline void stop(struct server *v, struct sftp *s)
{
        sftp_unref(s);
        buf_done(&v->in);
        buf_done(&v->out);
        cond_done(&v->changed);
        mutex_done(&v->lock);
}

static inline void pause_server(struct server *v, bool is_paused)
{
        mutex_lock(&v->lock);
        v->is_paused = is_paused;
        cond_signal(&v->changed);
        mutex_unlock(&v->lock);
}
