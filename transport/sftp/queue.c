/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues: operations go out through them and come back into them. A queue's lock is never held when
 * a connection's is taken; the other way round is how answers are delivered.
 */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "transport/base/clock.h"
#include "transport/sftp/private.h"

#define WAIT_STEP_NS (100 * NS_PER_MS) /* a cancelled call is noticed after this */
#define OPS_AT_ONCE 128 /* in one submission */
#define PROGRESS_NS (10 * NS_PER_S)
/*
 * An honest server answers an operation before so many others: nothing that others get is progress
 * for one that it withholds.
 */
#define OVERTAKEN_MAX (4 * SLOTS)

void sftp_queue_init(struct sftp_queue *q)
{
        mutex_init(&q->lock);
        cond_init(&q->changed);
        list_init(&q->pending);
        list_init(&q->ended);
        q->wants_all = false;
}

static struct sftp_op *first(struct list *l)
{
        return list_is_empty(l) ? NULL : container_of(l->next, struct sftp_op, in_queue);
}

/* What is pending, given up one by one: each belongs to its connection until its lock is held. */
static void forget_all(struct sftp_queue *q)
{
        for (;;) {
                struct sftp_op *op;
                struct sftp *s;

                mutex_lock(&q->lock);
                op = first(&q->pending);
                mutex_unlock(&q->lock);
                if (!op)
                        return;
                s = op->sftp;
                mutex_lock(&s->lock);
                engine_forget_locked(s, op);
                mutex_lock(&q->lock);
                if (op->state == SFTP_IDLE)
                        list_remove(&op->in_queue);
                mutex_unlock(&q->lock);
                mutex_unlock(&s->lock);
        }
}

void sftp_queue_done(struct sftp_queue *q)
{
        forget_all(q);
        list_for_each_safe (at, tmp, &q->ended) { /* nobody else knows it any more */
                struct sftp_op *op = container_of(at, struct sftp_op, in_queue);

                list_remove(at);
                sftp_names_free(op->names);
                op->names = NULL;
                if ((op->type == SFTP_OPEN || op->type == SFTP_OPENDIR) && op->error == 0) {
                        sftp_close_later(op->sftp, &op->handle);
                        op->handle.size = 0;
                }
        }
        cond_done(&q->changed);
        mutex_done(&q->lock);
}

bool sftp_queue_is_empty(struct sftp_queue *q)
{
        bool is_empty;

        mutex_lock(&q->lock);
        is_empty = list_is_empty(&q->pending) && list_is_empty(&q->ended);
        mutex_unlock(&q->lock);
        return is_empty;
}

static void prepare(struct sftp *s, struct sftp_queue *q, struct sftp_op *op, uint64_t now_ns)
{
        assert(op->state == SFTP_IDLE || op->state == SFTP_ENDED);
        op->sftp = s;
        op->queue = q;
        op->since_ns = now_ns;
        atomic_store(&op->sent_at, NOT_SENT);
        op->error = 0;
        op->was_sent = op->is_lost = false;
        op->status = 0;
        op->got = 0;
        op->names = NULL;
}

void sftp_submit_each(struct sftp *s, struct sftp_queue *q, struct sftp_op *const *ops,
                      size_t count)
{
        uint64_t now_ns = clock_mono_ns();

        mutex_lock(&q->lock);
        for (size_t i = 0; i < count; i++) {
                prepare(s, q, ops[i], now_ns);
                list_add_tail(&q->pending, &ops[i]->in_queue);
        }
        mutex_unlock(&q->lock);
        mutex_lock(&s->lock);
        for (size_t i = 0; i < count; i++)
                engine_add_locked(s, ops[i]);
        engine_run_locked(s);
        mutex_unlock(&s->lock);
}

void sftp_submit(struct sftp *s, struct sftp_queue *q, struct sftp_op *ops, size_t count)
{
        struct sftp_op *some[OPS_AT_ONCE];

        while (count > 0) {
                size_t n = 0;

                while (n < count && n < OPS_AT_ONCE)
                        some[n++] = ops++;
                sftp_submit_each(s, q, some, n);
                count -= n;
        }
}

void sftp_close_later(struct sftp *s, const struct sftp_handle *handle)
{
        struct sftp_op *op = calloc(1, sizeof(*op));

        if (!op)
                return; /* one handle more over there, until the connection ends */
        op->type = SFTP_CLOSE;
        op->handle = *handle;
        mutex_lock(&s->lock);
        engine_add_locked(s, op);
        engine_run_locked(s);
        mutex_unlock(&s->lock);
}

/* When the connections of what is pending were last heard; 0 when one of them has no excuse. */
static uint64_t progress_locked(struct sftp_queue *q) REQUIRES(q->lock)
{
        uint64_t heard_ns = 0;

        list_for_each (at, &q->pending) {
                const struct sftp_op *op = container_of(at, struct sftp_op, in_queue);
                uint64_t sent_at = atomic_load(&op->sent_at);
                uint64_t at_ns = sftp_heard_ns(op->sftp);

                if (sent_at != NOT_SENT &&
                    atomic_load(&op->sftp->answers) - sent_at > OVERTAKEN_MAX)
                        return 0;
                if (at_ns > op->since_ns && at_ns > heard_ns)
                        heard_ns = at_ns;
        }
        return heard_ns;
}

/* Whether to go on waiting: until the deadline, which moves while bytes come. */
static int check_locked(struct sftp_queue *q, struct call *c) REQUIRES(q->lock)
{
        int r = call_check(c);
        uint64_t heard_ns = r == -ETIMEDOUT ? progress_locked(q) : 0;

        if (r != -ETIMEDOUT || heard_ns + PROGRESS_NS <= clock_mono_ns())
                return r;
        c->deadline_ns = heard_ns + PROGRESS_NS;
        return 0;
}

int sftp_next(struct sftp_queue *q, struct call *c, struct sftp_op **ret)
{
        struct sftp_op *op;
        int r = 0;

        mutex_lock(&q->lock);
        while (!(op = first(&q->ended))) {
                uint64_t step_ns = clock_after(WAIT_STEP_NS);

                r = list_is_empty(&q->pending) ? -ENOENT : check_locked(q, c);
                if (r < 0)
                        break;
                (void)cond_wait_until(&q->changed, &q->lock,
                                      step_ns < c->deadline_ns ? step_ns : c->deadline_ns);
        }
        if (op) {
                list_remove(&op->in_queue);
                *ret = op;
        }
        mutex_unlock(&q->lock);
        if (r == -ETIMEDOUT)
                return call_fail(c, r, "no answer from the SFTP server");
        return r;
}

struct sftp_op *sftp_next_now(struct sftp_queue *q)
{
        struct sftp_op *op;

        mutex_lock(&q->lock);
        op = first(&q->ended);
        if (op)
                list_remove(&op->in_queue);
        mutex_unlock(&q->lock);
        return op;
}

int queue_lost(struct sftp *s, struct call *c)
{
        char sentence[256] = "";
        int r = sftp_error(s, sentence, sizeof(sentence));

        return call_fail(c, r, "%s", sentence);
}

/* What no answer came to says whether it was sent. */
static int check_lost(struct sftp *s, struct call *c, struct sftp_op *ops, size_t count)
{
        bool any_lost = false;

        for (size_t i = 0; i < count; i++) {
                if (!ops[i].is_lost)
                        continue;
                ops[i].error = ops[i].was_sent ? -EINPROGRESS : -ECANCELED;
                any_lost = true;
        }
        return any_lost ? queue_lost(s, c) : 0;
}

int sftp_run(struct sftp *s, struct call *c, struct sftp_op *ops, size_t count)
{
        struct sftp_queue q;
        struct sftp_op *op;
        int r;

        sftp_queue_init(&q);
        q.wants_all = true;
        sftp_submit(s, &q, ops, count);
        do
                r = sftp_next(&q, c, &op);
        while (r == 0);
        forget_all(&q);
        while (sftp_next_now(&q)) /* in between: results like the others */
                ;
        sftp_queue_done(&q);
        return r == -ENOENT ? check_lost(s, c, ops, count) : r;
}
