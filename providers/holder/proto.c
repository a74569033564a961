/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between sbxfs and the holder; see proto.h. Pure functions. */

#include "providers/holder/proto.h"

#include <errno.h>
#include <string.h>

#include "transport/base/buf.h"

#define HEAD_SIZE 5 /* size and type */

/* ---- writing ---- */

/* The first failure sticks; proto_add looks at it once, at the end. */
struct out {
        struct buf *to;
        int failed;
};

static void put_bytes(struct out *o, const void *data, size_t size)
{
        if (o->failed == 0 && size > 0)
                o->failed = buf_add(o->to, data, size);
}

static void put_number(struct out *o, uint64_t value, unsigned width)
{
        uint8_t bytes[8];

        for (unsigned i = 0; i < width; i++)
                bytes[i] = (uint8_t)(value >> (8 * i));
        put_bytes(o, bytes, width);
}

static void put_u8(struct out *o, uint8_t value)
{
        put_number(o, value, 1);
}

static void put_u32(struct out *o, uint32_t value)
{
        put_number(o, value, 4);
}

static void put_u64(struct out *o, uint64_t value)
{
        put_number(o, value, 8);
}

static void put_strings(struct out *o, const struct proto_strings *s)
{
        put_u32(o, s->count);
        put_u32(o, (uint32_t)s->size);
        put_bytes(o, s->data, s->size);
}

static void put_data(struct out *o, const void *data, size_t size)
{
        put_u32(o, (uint32_t)size);
        put_bytes(o, data, size);
}

static void put_quiet(struct out *o, const struct proto_quiet *q)
{
        put_u8(o, q->is_quiet);
        put_u64(o, q->execs);
}

static void put_exec(struct out *o, const struct proto_msg *m)
{
        put_u64(o, m->exec.number);
        put_u32(o, m->exec.seq);
        put_u8(o, m->exec.has_stdin);
        put_u64(o, m->exec.timeout_ns);
        put_strings(o, &m->exec.cwd);
        put_strings(o, &m->exec.argv);
        put_strings(o, &m->exec.env);
        put_strings(o, &m->exec.user);
}

static void put_output(struct out *o, const struct proto_msg *m)
{
        put_u64(o, m->output.number);
        put_u8(o, m->output.stream);
        put_u64(o, m->output.offset);
        put_u64(o, m->output.position);
        put_data(o, m->output.data, m->output.size);
}

static void put_end(struct out *o, const struct proto_msg *m)
{
        put_u64(o, m->end.number);
        put_u8(o, (uint8_t)m->end.kind);
        put_u32(o, m->end.value);
        put_u64(o, m->end.total[0]);
        put_u64(o, m->end.total[1]);
        put_quiet(o, &m->end.quiet);
}

static void put_input(struct out *o, const struct proto_msg *m)
{
        put_u64(o, m->input.number);
        put_u64(o, m->input.offset);
        put_u8(o, m->input.is_last);
        put_data(o, m->input.data, m->input.size);
}

static void put_reply(struct out *o, const struct proto_msg *m)
{
        put_u32(o, m->reply.seq);
        put_u32(o, m->reply.code);
        put_u64(o, (uint64_t)m->reply.pid);
        put_quiet(o, &m->reply.quiet);
        put_strings(o, &m->reply.sentence);
}

static void put_body(struct out *o, const struct proto_msg *m)
{
        switch (m->type) {
        case PROTO_GREET: put_u32(o, m->greet.version); break;
        case PROTO_ENV: put_strings(o, &m->env); break;
        case PROTO_EXEC: put_exec(o, m); break;
        case PROTO_ATTACH:
                put_u64(o, m->attach.number);
                put_u32(o, m->attach.seq);
                break;
        case PROTO_DETACH: put_u64(o, m->detach.number); break;
        case PROTO_FORGET: put_u64(o, m->forget.number); break;
        case PROTO_ACK:
                put_u64(o, m->ack.number);
                put_u64(o, m->ack.position);
                break;
        case PROTO_STDIN: put_input(o, m); break;
        case PROTO_SIGNAL:
                put_u64(o, m->signal.number);
                put_u32(o, m->signal.signal);
                break;
        case PROTO_PAUSE:
                put_u32(o, m->pause.seq);
                put_u8(o, m->pause.by_signal);
                break;
        case PROTO_RESUME:
                put_u32(o, m->resume.seq);
                put_u8(o, m->resume.by_signal);
                break;
        case PROTO_STOP: put_u32(o, m->stop.grace_ms); break;
        case PROTO_HELLO:
                put_u32(o, m->hello.version);
                put_u8(o, m->hello.is_paused);
                put_quiet(o, &m->hello.quiet);
                break;
        case PROTO_REPLY: put_reply(o, m); break;
        case PROTO_OUTPUT: put_output(o, m); break;
        case PROTO_TAKEN:
                put_u64(o, m->taken.number);
                put_u64(o, m->taken.total);
                break;
        case PROTO_END: put_end(o, m); break;
        case PROTO_QUIET: put_quiet(o, &m->quiet); break;
        }
}

int proto_add(struct buf *to, const struct proto_msg *m)
{
        struct out o = {.to = to};
        size_t start = to->size;
        uint32_t size;

        put_u32(&o, 0);
        put_u8(&o, (uint8_t)m->type);
        put_body(&o, m);
        if (o.failed == 0 && to->size - start - 4 > PROTO_FRAME_MAX)
                o.failed = -E2BIG;
        if (o.failed != 0) {
                to->size = start;
                return o.failed;
        }
        size = (uint32_t)(to->size - start - 4);
        for (unsigned i = 0; i < 4; i++)
                to->data[start + i] = (char)(size >> (8 * i));
        return 0;
}

/* ---- reading ---- */

/*
 * What is left of a body. Reading beyond it gives zeroes and marks it bad; parse looks at that
 * once, at the end.
 */
struct in {
        const uint8_t *at;
        size_t left;
        bool is_bad;
};

static const uint8_t *get_bytes(struct in *i, size_t size)
{
        const uint8_t *at = i->at;

        if (i->is_bad || size > i->left) {
                i->is_bad = true;
                return NULL;
        }
        i->at += size;
        i->left -= size;
        return at;
}

static uint64_t get_number(struct in *i, unsigned width)
{
        const uint8_t *at = get_bytes(i, width);
        uint64_t value = 0;

        for (unsigned n = 0; at && n < width; n++)
                value |= (uint64_t)at[n] << (8 * n);
        return value;
}

static uint32_t get_u32(struct in *i)
{
        return (uint32_t)get_number(i, 4);
}

static uint64_t get_u64(struct in *i)
{
        return get_number(i, 8);
}

/* A byte from 0 to `most`. */
static uint8_t get_small(struct in *i, uint8_t most)
{
        uint8_t value = (uint8_t)get_number(i, 1);

        if (value > most)
                i->is_bad = true;
        return i->is_bad ? 0 : value;
}

static bool get_bool(struct in *i)
{
        return get_small(i, 1) != 0;
}

/* Exactly `count` strings must fill the bytes, each with its NUL. */
static void get_strings(struct in *i, uint32_t least, uint32_t most, struct proto_strings *ret)
{
        uint32_t count = get_u32(i), found = 0;
        size_t size = get_u32(i);
        const char *data = (const char *)get_bytes(i, size);
        const char *at = data, *end = data ? data + size : data;

        while (at && at < end && (at = memchr(at, 0, (size_t)(end - at)))) {
                found++;
                at++;
        }
        if (!data || !at || found != count || count < least || count > most) {
                i->is_bad = true;
                return;
        }
        *ret = (struct proto_strings){.count = count, .data = data, .size = size};
}

static void get_data(struct in *i, const void **ret, size_t *ret_size)
{
        size_t size = get_u32(i);

        if (size > PROTO_CHUNK_MAX)
                i->is_bad = true;
        *ret = get_bytes(i, size);
        *ret_size = size;
}

static void get_quiet(struct in *i, struct proto_quiet *ret)
{
        ret->is_quiet = get_bool(i);
        ret->execs = get_u64(i);
}

static void get_exec(struct in *i, struct proto_msg *m)
{
        m->exec.number = get_u64(i);
        m->exec.seq = get_u32(i);
        m->exec.has_stdin = get_bool(i);
        m->exec.timeout_ns = get_u64(i);
        get_strings(i, 1, 1, &m->exec.cwd);
        get_strings(i, 1, PROTO_STRINGS_MAX, &m->exec.argv);
        get_strings(i, 0, PROTO_STRINGS_MAX, &m->exec.env);
        get_strings(i, 1, 1, &m->exec.user);
}

static void get_input(struct in *i, struct proto_msg *m)
{
        m->input.number = get_u64(i);
        m->input.offset = get_u64(i);
        m->input.is_last = get_bool(i);
        get_data(i, &m->input.data, &m->input.size);
}

static void get_output(struct in *i, struct proto_msg *m)
{
        m->output.number = get_u64(i);
        m->output.stream = get_small(i, 1);
        m->output.offset = get_u64(i);
        m->output.position = get_u64(i);
        get_data(i, &m->output.data, &m->output.size);
        if (m->output.size == 0 || m->output.offset > UINT64_MAX / 2)
                i->is_bad = true;
}

static void get_end(struct in *i, struct proto_msg *m)
{
        uint32_t most;

        m->end.number = get_u64(i);
        m->end.kind = (enum proto_end)get_small(i, PROTO_END_TIMEOUT);
        m->end.value = get_u32(i);
        m->end.total[0] = get_u64(i);
        m->end.total[1] = get_u64(i);
        get_quiet(i, &m->end.quiet);
        most = m->end.kind == PROTO_END_CODE ? 255 : m->end.kind == PROTO_END_SIGNAL ? 127 : 0;
        if (m->end.value > most || m->end.total[0] > UINT64_MAX / 2 ||
            m->end.total[1] > UINT64_MAX / 2)
                i->is_bad = true;
}

static void get_reply(struct in *i, struct proto_msg *m)
{
        uint64_t pid;

        m->reply.seq = get_u32(i);
        m->reply.code = get_u32(i);
        pid = get_u64(i);
        m->reply.pid = (int64_t)pid;
        get_quiet(i, &m->reply.quiet);
        get_strings(i, 1, 1, &m->reply.sentence);
        if (m->reply.code > 4095 || pid > INT32_MAX)
                i->is_bad = true;
}

static void get_signal(struct in *i, struct proto_msg *m)
{
        m->signal.number = get_u64(i);
        m->signal.signal = get_u32(i);
        if (m->signal.signal > 64)
                i->is_bad = true;
}

/* Frames to the holder. False: no such type. */
static bool get_request(struct in *i, struct proto_msg *m)
{
        switch ((int)m->type) {
        case PROTO_GREET: m->greet.version = get_u32(i); return true;
        case PROTO_ENV: get_strings(i, 0, PROTO_STRINGS_MAX, &m->env); return true;
        case PROTO_EXEC: get_exec(i, m); return true;
        case PROTO_ATTACH:
                m->attach.number = get_u64(i);
                m->attach.seq = get_u32(i);
                return true;
        case PROTO_DETACH: m->detach.number = get_u64(i); return true;
        case PROTO_FORGET: m->forget.number = get_u64(i); return true;
        case PROTO_ACK:
                m->ack.number = get_u64(i);
                m->ack.position = get_u64(i);
                return true;
        case PROTO_STDIN: get_input(i, m); return true;
        case PROTO_SIGNAL: get_signal(i, m); return true;
        case PROTO_PAUSE:
                m->pause.seq = get_u32(i);
                m->pause.by_signal = get_bool(i);
                return true;
        case PROTO_RESUME:
                m->resume.seq = get_u32(i);
                m->resume.by_signal = get_bool(i);
                return true;
        case PROTO_STOP: m->stop.grace_ms = get_u32(i); return true;
        default: return false;
        }
}

/* Frames from the holder. */
static bool get_answer(struct in *i, struct proto_msg *m)
{
        switch ((int)m->type) {
        case PROTO_HELLO:
                m->hello.version = get_u32(i);
                m->hello.is_paused = get_bool(i);
                get_quiet(i, &m->hello.quiet);
                return true;
        case PROTO_REPLY: get_reply(i, m); return true;
        case PROTO_OUTPUT: get_output(i, m); return true;
        case PROTO_TAKEN:
                m->taken.number = get_u64(i);
                m->taken.total = get_u64(i);
                return true;
        case PROTO_END: get_end(i, m); return true;
        case PROTO_QUIET: get_quiet(i, &m->quiet); return true;
        default: return false;
        }
}

int proto_parse(const void *data, size_t size, size_t max, struct proto_msg *ret, size_t *ret_used)
{
        struct in i = {.at = data, .left = size};
        struct proto_msg m = {0};
        size_t length;

        if (size < HEAD_SIZE)
                return 0;
        length = get_u32(&i);
        if (length < 1 || length > max)
                return -EPROTO;
        if (length > i.left)
                return 0;
        i.left = length;
        m.type = (enum proto_type)get_number(&i, 1);
        if (!(max == PROTO_ANSWER_MAX ? get_answer(&i, &m) : get_request(&i, &m)) || i.is_bad ||
            i.left != 0)
                return -EPROTO;
        *ret = m;
        *ret_used = 4 + length;
        return 1;
}

int proto_strings_add(struct buf *to, uint32_t *count, const char *text)
{
        int r;

        if (*count >= PROTO_STRINGS_MAX)
                return -E2BIG;
        r = buf_add(to, text, strlen(text) + 1);
        if (r == 0)
                *count += 1;
        return r;
}

const char *proto_strings_next(const struct proto_strings *s, size_t *cursor)
{
        const char *text;

        if (*cursor >= s->size)
                return NULL;
        text = s->data + *cursor;
        *cursor += strlen(text) + 1;
        return text;
}
