/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes: sent one after the other without waiting, small content with them, large content as it
 * can be sent; or written where the agent shows, if that may be (direct.h). Their answers come in
 * the same order.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/agent/conn.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

#define FRAMES_MAX (4 * (WIRE_HEAD + WIRE_PAYLOAD_MAX))
#define SEND_AT ((size_t)256 * 1024) /* so much is put together before it is sent */
#define AHEAD_MAX 2048 /* changes whose answers are awaited; and of their bytes: */
#define AHEAD_BYTES ((size_t)16 << 20)
#define HELD_MIN ((uint64_t)4 << 20) /* what is worth two more messages */
#define HELD_CHUNK ((size_t)256 * 1024)
#define PROGRESS_NS (10 * NS_PER_S)

struct batch {
        struct agent_op *op;
        struct change *changes;
        size_t count;
        size_t answered, sent; /* all before have been */
        size_t ahead; /* bytes sent and not answered, about */
        struct buf frames;
};

static uint64_t content_size(const struct change *x)
{
        uint64_t size = 0;

        if (!x->from)
                return 0;
        if (x->extent_count == 0)
                return x->kind == CHANGE_STORE ? x->from->size : 0;
        for (size_t i = 0; i < x->extent_count; i++)
                size += x->extents[i].size;
        return size;
}

/* ---- answers ---- */

static int take_one(struct batch *b, const struct wire_head *head, struct wire_in *in)
{
        uint32_t at = wire_take_u32(in);
        int error = wire_error(wire_take_u32(in));
        bool has_st = wire_take_u32(in) != 0;
        struct stat st;

        if (has_st)
                wire_take_stat(in, &st);
        if (head->type != WIRE_CHANGED || !wire_is_whole(in) || at != b->answered ||
            at >= b->sent || (has_st && error < 0))
                return agent_is_wrong(b->op, "what became of a change");
        b->changes[at].error = error;
        b->changes[at].has_st = has_st;
        if (has_st)
                b->changes[at].st = st;
        b->answered++;
        return 0;
}

/* Those that have come; and more, while so many are awaited. */
static int take_answers(struct batch *b, size_t awaited_max)
{
        while (true) {
                struct wire_head head;
                struct wire_in in;
                int r = b->sent - b->answered > awaited_max ? agent_next(b->op, &head, &in)
                                                            : agent_next_now(b->op, &head, &in) - 1;

                if (r < 0)
                        return b->sent - b->answered > awaited_max ? r : 0;
                r = take_one(b, &head, &in);
                if (r < 0)
                        return r;
        }
}

/* ---- sending ---- */

static int send_frames(struct batch *b)
{
        int r = 0;

        b->ahead += b->frames.size;
        if (b->frames.size > 0)
                r = agent_send(b->op, &b->frames);
        return r == 0 ? agent_wait_sent(b->op) : r;
}

static int read_extent(const struct change *x, const struct file_extent *e, struct wire_out *o)
{
        char *to = buf_reserve(o->to, (size_t)e->size);
        int r;

        if (!to)
                return -ENOMEM;
        r = x->from->read(x->from, to, (size_t)e->size, e->offset);
        if (r == 0)
                o->to->size += (size_t)e->size;
        return r;
}

/* Nothing is sent of one whose content can't be had: that is its result. */
static int add_inline(struct batch *b, uint32_t index, const struct change *x, uint64_t size)
{
        const struct file_extent whole = {.size = size};
        struct wire_out o;
        int r = 0;

        wire_begin(&o, &b->frames, b->op->id, WIRE_CHANGE);
        wire_change(&o, index, x);
        if (o.error == 0 && size > 0 && x->extent_count == 0)
                r = read_extent(x, &whole, &o);
        for (size_t i = 0; r == 0 && o.error == 0 && size > 0 && i < x->extent_count; i++) {
                if (x->extents[i].size > 0)
                        r = read_extent(x, &x->extents[i], &o);
        }
        if (r < 0 && o.error == 0)
                o.error = r;
        return wire_end(&o);
}

static int add_abort(struct batch *b)
{
        struct wire_out o;

        wire_begin(&o, &b->frames, b->op->id, WIRE_ABORT);
        return wire_end(&o);
}

static int add_piece(struct batch *b, const struct change *x, const struct file_extent *piece)
{
        struct wire_out o;

        wire_begin(&o, &b->frames, b->op->id, WIRE_DATA);
        if (o.error == 0)
                o.error = read_extent(x, piece, &o);
        return wire_end(&o);
}

/* One change that is on its way, with DATA behind it. */
struct large {
        struct batch *batch;
        size_t index;
        const struct change *x;
        uint64_t left; /* of its content, to be sent */
        int error; /* 0; why the rest isn't sent: of the file */
};

/* The agent needn't have it all to know that it fails. */
static int look_at_answer(struct large *l)
{
        struct batch *b = l->batch;
        int r = take_answers(b, SIZE_MAX);

        if (r < 0 || b->answered <= l->index)
                return r;
        if (l->x->error == 0 && l->left > 0)
                return agent_is_wrong(b->op, "success too early");
        l->error = l->x->error;
        return 0;
}

static int send_extent(struct large *l, const struct file_extent *e)
{
        uint64_t n;
        int r = 0;

        for (uint64_t at = 0; r == 0 && l->error == 0 && at < e->size; at += n) {
                n = e->size - at < WIRE_PIECE ? e->size - at : WIRE_PIECE;
                l->error = add_piece(l->batch, l->x,
                                     &(struct file_extent){.offset = e->offset + at, .size = n});
                if (l->error < 0)
                        break;
                l->left -= n;
                r = send_frames(l->batch);
                if (r == 0)
                        r = look_at_answer(l);
        }
        return r;
}

/* By DATA behind it. `*ret`: the file's error, where it is known here. */
static int send_large(struct batch *b, size_t index, const struct change *x, uint64_t size,
                      int *ret)
{
        const struct file_extent whole = {.size = size};
        struct large l = {.batch = b, .index = index, .x = x, .left = size};
        struct wire_out o;
        int r = 0;

        wire_begin(&o, &b->frames, b->op->id, WIRE_CHANGE);
        wire_change(&o, (uint32_t)index, x);
        *ret = wire_end(&o);
        if (*ret < 0)
                return 0;
        b->sent++;
        if (x->extent_count == 0)
                r = send_extent(&l, &whole);
        for (size_t i = 0; r == 0 && l.error == 0 && i < x->extent_count; i++)
                r = send_extent(&l, &x->extents[i]);
        if (r == 0 && l.left > 0)
                r = add_abort(b);
        *ret = l.error;
        return r == 0 ? send_frames(b) : r;
}

/* ---- written by ourselves ---- */

static bool may_hold(const struct batch *b, const struct change *x, uint64_t size)
{
        struct agent *a = b->op->agent;
        bool may;

        if (size < HELD_MIN || x->kind != CHANGE_STORE || x->extent_count > 0 || a->process < 0)
                return false;
        mutex_lock(&a->lock);
        may = !a->has_no_targets;
        mutex_unlock(&a->lock);
        return may;
}

/* 0 or -errno of the file. */
static int copy_held(const struct batch *b, const struct change *x, int fd)
{
        _cleanup_(freep) char *chunk = malloc(HELD_CHUNK);
        struct call *c = b->op->call;
        int r = chunk ? 0 : -ENOMEM;

        for (uint64_t at = 0; r == 0 && at < x->from->size; at += HELD_CHUNK) {
                size_t n =
                        x->from->size - at < HELD_CHUNK ? (size_t)(x->from->size - at) : HELD_CHUNK;

                r = x->from->read(x->from, chunk, n, at);
                if (r == 0)
                        r = file_pwrite_all(fd, chunk, n, at);
                if (c->deadline_ns < clock_after(PROGRESS_NS))
                        c->deadline_ns = clock_after(PROGRESS_NS);
                if (r == 0)
                        r = call_check(c);
        }
        return r;
}

/* *ret: what came of the copy. */
static int answer_target(struct batch *b, size_t at, struct wire_in *in, int *ret)
{
        _cleanup_(closep) int fd = -1;
        uint32_t index = wire_take_u32(in), number = wire_take_u32(in);
        uint64_t ino = wire_take_u64(in);
        struct wire_out o;
        int r;

        if (!wire_is_whole(in) || index != at || number > INT32_MAX)
                return agent_is_wrong(b->op, "a target");
        *ret = agent_take_target(b->op->agent, (int)number, ino, &fd);
        if (*ret == 0)
                *ret = copy_held(b, &b->changes[at], fd);
        wire_begin(&o, &b->frames, b->op->id, WIRE_WRITTEN);
        wire_u32(&o, (uint32_t) - *ret);
        r = wire_end(&o);
        return r == 0 ? send_frames(b) : r;
}

/* 1: it is to be sent in another way. */
static int send_held(struct batch *b, size_t at)
{
        struct change *x = &b->changes[at];
        struct agent *a = b->op->agent;
        struct wire_head head;
        struct wire_in in;
        struct wire_out o;
        int error = 0, r = send_frames(b);

        if (r == 0)
                r = take_answers(b, 0);
        if (r < 0)
                return r;
        wire_begin(&o, &b->frames, b->op->id, WIRE_HELD);
        wire_change(&o, (uint32_t)at, x);
        if (wire_end(&o) < 0)
                return 1;
        b->sent++;
        r = send_frames(b);
        if (r == 0)
                r = agent_next(b->op, &head, &in);
        if (r == 0 && head.type == WIRE_TARGET) {
                r = answer_target(b, at, &in, &error);
                if (r == 0)
                        r = agent_next(b->op, &head, &in);
        }
        if (r == 0)
                r = take_one(b, &head, &in);
        if (r < 0)
                return r;
        if (error == 0 || x->error == 0)
                return x->error == 0 && error < 0 ? agent_is_wrong(b->op, "success") : 0;
        x->error = error;
        if (error != -EOPNOTSUPP)
                return 0;
        mutex_lock(&a->lock);
        a->has_no_targets = true;
        mutex_unlock(&a->lock);
        b->answered = b->sent = at;
        return 1;
}

/* One that can't be sent has its error, where the agent would have told it. */
static int settle_here(struct batch *b, size_t at, int error)
{
        int r = send_frames(b);

        if (r == 0)
                r = take_answers(b, 0);
        if (r < 0)
                return r;
        b->changes[at].error = error == -E2BIG ? -EFBIG : error;
        b->sent = b->answered = at + 1;
        return 0;
}

static int send_one(struct batch *b, size_t at)
{
        struct change *x = &b->changes[at];
        uint64_t size = content_size(x);
        int error = 0, r = 0;

        if (size <= WIRE_INLINE) {
                error = add_inline(b, (uint32_t)at, x, size);
                if (error == 0)
                        b->sent++;
                else
                        return settle_here(b, at, error);
                return b->frames.size >= SEND_AT ? send_frames(b) : 0;
        }
        if (may_hold(b, x, size)) {
                r = send_held(b, at);
                if (r <= 0)
                        return r;
        }
        r = send_large(b, at, x, size, &error);
        if (r < 0 || error == 0)
                return r;
        if (b->sent == at) /* it was too much for a frame */
                return settle_here(b, at, error);
        r = take_answers(b, 0);
        if (r == 0)
                x->error = error; /* the agent knows only that it was not whole */
        return r;
}

static int run(struct batch *b)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < b->count; i++) {
                r = call_check(b->op->call);
                if (r == 0)
                        r = send_one(b, i);
                if (r == 0)
                        r = take_answers(b, AHEAD_MAX);
                if (r == 0 && b->ahead > AHEAD_BYTES) {
                        r = send_frames(b);
                        if (r == 0)
                                r = take_answers(b, 0);
                        b->ahead = 0;
                }
        }
        if (r == 0)
                r = send_frames(b);
        return r == 0 ? take_answers(b, 0) : r;
}

/* What was sent and not answered may have happened; what wasn't sent, not. */
static void settle_lost(struct batch *b)
{
        for (size_t i = b->answered; i < b->count; i++)
                b->changes[i].error = -EINPROGRESS;
}

int agent_apply(struct agent *a, struct call *c, struct change *changes, size_t count)
{
        struct agent_op op;
        struct batch b = {.op = &op, .changes = changes, .count = count};
        int r;

        for (size_t i = 0; i < count; i++)
                changes[i].has_st = false;
        b.frames = BUF_INIT(FRAMES_MAX);
        agent_op_begin(a, &op, c);
        r = run(&b);
        op.is_over = r == 0;
        if (r < 0)
                settle_lost(&b);
        agent_op_end(&op);
        buf_done(&b.frames);
        return r;
}
