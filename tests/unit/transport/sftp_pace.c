/* SPDX-License-Identifier: Apache-2.0 */
/* The client against servers that are slow or say nothing: windows, deadlines, what was given up. */

#include "tests/unit/transport/sftp_server.h"

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

/* 13 bytes of a status, each after a while. */
static void answer_slowly(struct server *v, const struct request *r)
{
        struct buf said;

        answer_fine(v, r);
        said = v->out;
        v->out = BUF_INIT(1 << 20);
        for (size_t i = 0; i < said.size; i++) {
                (void)usleep(200000);
                v->events->data(v->events->ctx, false, said.data + i, 1);
        }
        buf_done(&said);
}

/* The last one comes after the time that the first ones had. */
static void a_deadline_moves_while_bytes_come(void)
{
        struct call c = in_ms(2000);
        struct sftp_op op = {.type = SFTP_MKDIR, .path = "a"};
        struct server v;
        struct sftp *s = start(&v, answer_slowly, true);

        c.deadline_ns = clock_after(2000 * NS_PER_MS);
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
        struct call c = in_ms(60000);
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
        RUN(metadata_in_flight_is_bounded);
        RUN(metadata_goes_before_bulk_that_waits);
        RUN(a_deadline_moves_while_bytes_come);
        RUN(an_answer_that_is_withheld_is_waited_for_no_longer);
        RUN(a_handle_that_nobody_waits_for_is_closed);
        RUN(unsupported_extensions_are_not_asked_for);
        return check_result();
}
