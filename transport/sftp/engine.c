/* SPDX-License-Identifier: Apache-2.0 */
/* Operations in line, in flight, and ended: the request table of one connection. */

#include "transport/sftp/private.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUT_FLUSH (64u * 1024)

/* ---- ends ---- */

static void end_locked(struct sftp *s, struct sftp_op *op, int error) REQUIRES(s->lock)
{
        op->error = error;
        if (op->state == SFTP_QUEUED)
                list_remove(&op->link);
        op->state = SFTP_ENDED;
        if (op->queue)
                list_add_tail(&s->ended, &op->link);
        else
                free(op);
}

/* An operation whose connection has ended. */
static void lose_locked(struct sftp *s, struct sftp_op *op) REQUIRES(s->lock)
{
        op->is_lost = true;
        end_locked(s, op, s->error);
}

/* All that has ended goes to the queue of the first of them, which is woken once. */
static void give_to_first_locked(struct sftp *s) REQUIRES(s->lock)
{
        struct sftp_queue *q = container_of(s->ended.next, struct sftp_op, link)->queue;
        bool has_failed = false;

        mutex_lock(&q->lock);
        list_for_each_safe (at, tmp, &s->ended) {
                struct sftp_op *op = container_of(at, struct sftp_op, link);

                if (op->queue != q)
                        continue;
                list_remove(&op->link);
                list_remove(&op->in_queue);
                list_add_tail(&q->ended, &op->in_queue);
                has_failed |= op->error < 0;
        }
        if (!q->wants_all || has_failed || list_is_empty(&q->pending))
                cond_signal(&q->changed); /* before it can be destroyed */
        mutex_unlock(&q->lock);
}

static void free_slot_locked(struct sftp *s, struct slot *slot) REQUIRES(s->lock)
{
        s->in_flight[slot->is_bulk ? LINE_BULK : LINE_METADATA]--;
        s->bulk_bytes -= slot->cost;
        slot->is_used = false;
        slot->op = NULL;
        s->free_slots[s->free_count++] = (uint16_t)(slot - s->slots);
}

void engine_fail_locked(struct sftp *s, int error, const char *format, ...)
{
        va_list args;

        if (s->life == LIFE_DEAD)
                return;
        s->life = LIFE_DEAD;
        s->error = error;
        va_start(args, format);
        (void)vsnprintf(s->sentence, sizeof(s->sentence), format, args); /* may be cut */
        va_end(args);
        for (unsigned i = 0; i < SLOTS; i++) {
                struct slot *slot = &s->slots[i];

                if (!slot->is_used)
                        continue;
                if (slot->op)
                        lose_locked(s, slot->op);
                free_slot_locked(s, slot);
        }
        for (int i = 0; i < LINES; i++) {
                list_for_each_safe (at, tmp, &s->lines[i])
                        lose_locked(s, container_of(at, struct sftp_op, link));
        }
        cond_broadcast(&s->changed);
}

/* ---- sending ---- */

static struct slot *take_slot_locked(struct sftp *s, unsigned type, bool is_bulk) REQUIRES(s->lock)
{
        struct slot *slot;

        assert(s->free_count > 0);
        slot = &s->slots[s->free_slots[--s->free_count]];
        slot->id += SLOTS;
        slot->is_used = true;
        slot->is_bulk = is_bulk;
        slot->type = type;
        slot->cost = 0;
        slot->op = NULL;
        s->in_flight[is_bulk ? LINE_BULK : LINE_METADATA]++;
        return slot;
}

static uint32_t cost_of(const struct sftp_op *op)
{
        return op->type == SFTP_READ || op->type == SFTP_WRITE ? op->size : 0;
}

static bool is_supported(const struct sftp *s, const struct sftp_op *op)
{
        static const unsigned needs[] = {
                [SFTP_LSETSTAT] = SFTP_CAN_LSETSTAT, [SFTP_POSIX_RENAME] = SFTP_CAN_POSIX_RENAME,
                [SFTP_HARDLINK] = SFTP_CAN_HARDLINK, [SFTP_FSYNC] = SFTP_CAN_FSYNC,
                [SFTP_STATVFS] = SFTP_CAN_STATVFS,   [SFTP_COPY_DATA] = SFTP_CAN_COPY_DATA,
        };
        size_t i = (size_t)op->type;

        return i >= sizeof(needs) / sizeof(*needs) || (s->features & needs[i]) == needs[i];
}

static void fail_to_send_locked(struct sftp *s, int error) REQUIRES(s->lock)
{
        engine_fail_locked(s, error == -EPIPE ? -EHOSTUNREACH : error,
                           "the SFTP connection takes no more: %s", strerrordesc_np(-error));
}

static void flush_locked(struct sftp *s) REQUIRES(s->lock)
{
        int r;

        if (s->out.size == 0 || s->life == LIFE_DEAD)
                return;
        r = stream_send(s->stream, s->out.data, s->out.size);
        buf_clear(&s->out);
        if (r < 0)
                fail_to_send_locked(s, r);
}

/* The data behind a WRITE's head, without a copy of ours. */
static void send_data_locked(struct sftp *s, const struct sftp_op *op) REQUIRES(s->lock)
{
        int r;

        flush_locked(s);
        if (s->life == LIFE_DEAD)
                return;
        r = stream_send(s->stream, op->data, op->size);
        if (r < 0)
                fail_to_send_locked(s, r);
}

/* Out of the line and onto the wire. */
static void send_locked(struct sftp *s, struct sftp_op *op) REQUIRES(s->lock)
{
        struct slot *slot = take_slot_locked(s, (unsigned)op->type, op->is_bulk);
        int r = wire_add_op(&s->out, slot->id, op);

        if (r < 0) {
                free_slot_locked(s, slot);
                end_locked(s, op, r);
                return;
        }
        list_remove(&op->link);
        if (!op->queue) { /* its answer goes nowhere */
                free(op);
                return;
        }
        op->state = SFTP_SENT;
        op->was_sent = true;
        op->slot = (uint32_t)(slot - s->slots);
        atomic_store(&op->sent_at, atomic_load(&s->answers));
        slot->op = op;
        slot->cost = cost_of(op);
        s->bulk_bytes += slot->cost;
        if (op->type == SFTP_WRITE)
                send_data_locked(s, op);
        else if (s->out.size > OUT_FLUSH)
                flush_locked(s);
}

static struct sftp_op *first_of(struct list *line)
{
        return list_is_empty(line) ? NULL : container_of(line->next, struct sftp_op, link);
}

/* Bulk waits until there is room in its window, and a write until the stream has taken others. */
static bool bulk_may_go_locked(struct sftp *s, const struct sftp_op *op) REQUIRES(s->lock)
{
        uint32_t cost = cost_of(op);

        if (s->in_flight[LINE_BULK] >= BULK_MAX)
                return false;
        if (cost > 0 && s->bulk_bytes > 0 && s->bulk_bytes + cost > BULK_BYTES_MAX)
                return false;
        return op->type != SFTP_WRITE || stream_queued(s->stream) < STREAM_QUEUE_LOW;
}

static void send_all_locked(struct sftp *s) REQUIRES(s->lock)
{
        struct sftp_op *op;

        while (s->life == LIFE_READY && s->in_flight[LINE_METADATA] < METADATA_MAX &&
               (op = first_of(&s->lines[LINE_METADATA])))
                send_locked(s, op);
        while (s->life == LIFE_READY && (op = first_of(&s->lines[LINE_BULK])) &&
               bulk_may_go_locked(s, op))
                send_locked(s, op);
        flush_locked(s);
}

void engine_run_locked(struct sftp *s)
{
        send_all_locked(s);
        while (!list_is_empty(&s->ended))
                give_to_first_locked(s);
}

void engine_add_locked(struct sftp *s, struct sftp_op *op)
{
        op->state = SFTP_QUEUED;
        list_add_tail(&s->lines[op->is_bulk ? LINE_BULK : LINE_METADATA], &op->link);
        if (s->life == LIFE_DEAD)
                lose_locked(s, op);
        else if (!is_supported(s, op))
                end_locked(s, op, -EOPNOTSUPP);
}

int engine_ask_limits_locked(struct sftp *s)
{
        return wire_add_limits(&s->out, take_slot_locked(s, WIRE_LIMITS, false)->id);
}

/* ---- answers ---- */

/* Close a handle that nobody will use: on our own account, so that memory may be short. */
static void close_locked(struct sftp *s, struct wire_bytes handle) REQUIRES(s->lock)
{
        struct sftp_op *op = calloc(1, sizeof(*op));

        if (!op)
                return; /* one handle more over there */
        op->type = SFTP_CLOSE;
        op->handle.size = (uint16_t)handle.size;
        memcpy(op->handle.bytes, handle.data, handle.size);
        engine_add_locked(s, op);
}

static uint32_t least(uint64_t a, uint64_t b)
{
        return (uint32_t)(a < b ? a : b);
}

static int take_limits_locked(struct sftp *s, const struct wire_answer *a) REQUIRES(s->lock)
{
        struct wire_limits l;
        uint32_t max = WIRE_PIECE_MAX;

        if (a->kind == WIRE_STATUS)
                return 0;
        if (wire_read_limits(a->bytes, &l) < 0)
                return -EPROTO;
        if (l.read > 0)
                max = least(max, l.read);
        if (l.write > 0)
                max = least(max, l.write);
        s->handles_max = l.handles;
        s->piece_max = max < PIECE_MIN ? PIECE_MIN : max;
        return 0;
}

int engine_answer_locked(struct sftp *s, const unsigned char *packet, size_t size)
{
        struct wire_answer a = {0};
        struct slot *slot;
        struct sftp_op *op;
        int r = wire_read_answer(packet, size, &a);

        if (r < 0)
                return r;
        slot = &s->slots[a.id & (SLOTS - 1)];
        if (!slot->is_used || slot->id != a.id || !wire_fits(slot->type, a.kind))
                return -EPROTO;
        atomic_fetch_add(&s->answers, 1);
        op = slot->op;
        if (op)
                r = wire_take(op, &a);
        else if (slot->type == WIRE_LIMITS)
                r = take_limits_locked(s, &a);
        else if (a.kind == WIRE_HANDLE)
                close_locked(s, a.bytes);
        if (r < 0)
                return r; /* the slot's operation ends with the connection */
        free_slot_locked(s, slot);
        if (op)
                end_locked(s, op, op->error);
        return 0;
}

void engine_forget_locked(struct sftp *s, struct sftp_op *op)
{
        if (op->state == SFTP_QUEUED) {
                list_remove(&op->link);
                op->error = -ECANCELED;
        } else if (op->state == SFTP_SENT) {
                s->slots[op->slot].op = NULL;
                op->error = -EINPROGRESS;
        } else {
                return; /* it has ended, and waits in its queue */
        }
        op->is_lost = true;
        op->state = SFTP_IDLE;
}
