/* SPDX-License-Identifier: Apache-2.0 */
/* A child as a stream: bytes both ways, queues, ends, and how it is made to end. */

#include "transport/child.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "tests/unit/check.h"
#include "transport/base/buf.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"

struct heard {
        struct mutex lock;
        struct cond changed;
        struct buf out, err;
        unsigned drained, ends;
        struct stream_end end;
        struct stream_events events;
};

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct heard *h = ctx;

        mutex_lock(&h->lock);
        CHECK_EQ(h->ends, 0);
        CHECK_EQ(buf_add(is_stderr ? &h->err : &h->out, data, size), 0);
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
}

static void on_drained(void *ctx)
{
        struct heard *h = ctx;

        mutex_lock(&h->lock);
        h->drained++;
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct heard *h = ctx;

        mutex_lock(&h->lock);
        h->ends++;
        h->end = *end;
        cond_broadcast(&h->changed);
        mutex_unlock(&h->lock);
}

static void heard_init(struct heard *h)
{
        *h = (struct heard){.out = BUF_INIT(64 << 20), .err = BUF_INIT(1 << 20)};
        h->events = (struct stream_events){on_data, on_drained, on_end, h};
        mutex_init(&h->lock);
        cond_init(&h->changed);
}

static void heard_done(struct heard *h)
{
        buf_done(&h->out);
        buf_done(&h->err);
        cond_done(&h->changed);
        mutex_done(&h->lock);
}

static struct stream *start(struct heard *h, const char *script)
{
        const char *argv[] = {"/bin/sh", "-c", script, NULL};
        static const char *const envp[] = {"PATH=/usr/bin:/bin", "WORD=hello", NULL};
        struct stream *s = NULL;
        struct call c;

        heard_init(h);
        call_init(&c, NEVER_NS);
        CHECK_EQ(child_open("/bin/sh", argv, envp, &h->events, &c, &s), 0);
        return s;
}

static bool wait_end(struct heard *h)
{
        uint64_t deadline_ns = clock_after(60 * NS_PER_S);
        bool has_ended;

        mutex_lock(&h->lock);
        while (h->ends == 0 && cond_wait_until(&h->changed, &h->lock, deadline_ns))
                ;
        has_ended = h->ends == 1;
        mutex_unlock(&h->lock);
        return has_ended;
}

static void wait_out(struct heard *h, size_t size)
{
        uint64_t deadline_ns = clock_after(60 * NS_PER_S);

        mutex_lock(&h->lock);
        while (h->out.size < size && cond_wait_until(&h->changed, &h->lock, deadline_ns))
                ;
        CHECK(h->out.size >= size);
        mutex_unlock(&h->lock);
}

static void both_outputs_and_the_code_come(void)
{
        struct heard h;
        struct stream *s = start(&h, "echo $WORD; echo bad >&2; exit 7");

        if (!s)
                return;
        CHECK(wait_end(&h));
        CHECK_STR(buf_str(&h.out), "hello\n");
        CHECK_STR(buf_str(&h.err), "bad\n");
        CHECK(h.end.has_code && h.end.code == 7 && h.end.error == 0 && h.end.signal == 0);
        CHECK_EQ(stream_send(s, "x", 1), -EPIPE);
        stream_close(s);
        heard_done(&h);
}

static void a_signal_is_told(void)
{
        struct heard h;
        struct stream *s = start(&h, "kill -9 $$");

        if (!s)
                return;
        CHECK(wait_end(&h));
        CHECK(!h.end.has_code);
        CHECK_EQ(h.end.signal, SIGKILL);
        stream_close(s);
        heard_done(&h);
}

/* More than any pipe holds, in pieces of all sizes, comes back the same; then the end of input. */
static void what_is_sent_arrives_in_order_and_then_its_end(void)
{
        enum { SIZE = 24 << 20 };
        struct heard h;
        struct stream *s = start(&h, "exec cat");
        unsigned char *data = malloc(SIZE);
        uint64_t deadline_ns = clock_after(100 * NS_PER_S);

        if (!s || !data)
                return;
        for (size_t i = 0; i < SIZE; i++)
                data[i] = (unsigned char)(i * 2654435761u >> 24);
        for (size_t at = 0, n = 1; at < SIZE; at += n) {
                n = n * 3 % 300007;
                if (n > SIZE - at)
                        n = SIZE - at;
                CHECK_EQ(stream_send(s, data + at, n), 0);
        }
        CHECK_EQ(stream_send_eof(s), 0);
        CHECK_EQ(stream_send(s, "x", 1), -EPIPE);
        CHECK(wait_end(&h));
        CHECK(clock_mono_ns() < deadline_ns);
        CHECK_EQ(h.out.size, SIZE);
        CHECK(h.out.size == SIZE && memcmp(h.out.data, data, SIZE) == 0);
        CHECK(h.end.has_code && h.end.code == 0);
        stream_close(s);
        heard_done(&h);
        free(data);
}

/* It reads when it is told to. */
static void drained_comes_when_the_queue_is_low_again(void)
{
        static const char piece[1 << 20];
        struct heard h;
        struct stream *s =
                start(&h, "trap 'go=1' USR1; echo $$; "
                          "while [ -z \"$go\" ]; do sleep 0.02; done; exec cat >/dev/null");
        uint64_t deadline_ns;
        pid_t pid;

        if (!s)
                return;
        wait_out(&h, 2);
        CHECK_EQ(stream_send(s, piece, sizeof(piece)), 0);
        CHECK_EQ(stream_send(s, piece, sizeof(piece)), 0);
        CHECK(stream_queued(s) >= STREAM_QUEUE_LOW);
        mutex_lock(&h.lock);
        CHECK_EQ(h.drained, 0);
        pid = (pid_t)strtol(buf_str(&h.out), NULL, 10);
        mutex_unlock(&h.lock);
        CHECK_EQ(kill(pid, SIGUSR1), 0);
        deadline_ns = clock_after(60 * NS_PER_S);
        mutex_lock(&h.lock);
        while (h.drained == 0 && cond_wait_until(&h.changed, &h.lock, deadline_ns))
                ;
        CHECK_EQ(h.drained, 1);
        mutex_unlock(&h.lock);
        stream_close(s);
        heard_done(&h);
}

static void a_child_that_reads_nothing_fills_a_bounded_queue(void)
{
        static const char piece[1 << 20];
        struct heard h;
        struct stream *s = start(&h, "exec sleep 100");
        int r = 0;

        if (!s)
                return;
        for (int i = 0; r == 0 && i < 100; i++)
                r = stream_send(s, piece, sizeof(piece));
        CHECK_EQ(r, -ENOBUFS);
        CHECK(stream_queued(s) <= 64 << 20);
        stream_close(s);
        CHECK_EQ(h.ends, 0); /* no event after the close */
        heard_done(&h);
}

static void a_child_that_ignores_term_is_killed_with_its_group(void)
{
        struct heard h;
        struct stream *s = start(&h, "trap '' TERM; sleep 100 & echo $!; wait; sleep 100");
        uint64_t since_ns;
        pid_t pid;

        if (!s)
                return;
        wait_out(&h, 2);
        mutex_lock(&h.lock);
        pid = (pid_t)strtol(buf_str(&h.out), NULL, 10);
        mutex_unlock(&h.lock);
        since_ns = clock_mono_ns();
        stream_close(s);
        CHECK(clock_mono_ns() - since_ns < 30 * NS_PER_S); /* it would be 100 s */
        for (int i = 0; i < 6000 && kill(pid, 0) == 0; i++)
                (void)usleep(10000); /* until process 1 has reaped it */
        CHECK(kill(pid, 0) < 0);
        heard_done(&h);
}

static void a_stopped_child_ends_too(void)
{
        struct heard h;
        struct stream *s = start(&h, "echo x; kill -STOP $$");
        uint64_t since_ns;

        if (!s)
                return;
        wait_out(&h, 2);
        since_ns = clock_mono_ns();
        stream_close(s);
        CHECK(clock_mono_ns() - since_ns < 30 * NS_PER_S); /* it would be for ever */
        heard_done(&h);
}

/* Its output is over, so it is made to end: nobody would ever hear of it again. */
static void a_child_without_output_is_over(void)
{
        struct heard h;
        struct stream *s = start(&h, "exec >&-; exec sleep 100");

        if (!s)
                return;
        CHECK(wait_end(&h));
        CHECK_EQ(h.end.signal, SIGTERM);
        stream_close(s);
        heard_done(&h);
}

static void what_a_grandchild_holds_open_delays_nothing(void)
{
        struct heard h;
        struct stream *s = start(&h, "setsid sleep 50 & echo done");
        uint64_t since_ns = clock_mono_ns();

        if (!s)
                return;
        CHECK(wait_end(&h));
        CHECK(clock_mono_ns() - since_ns < 40 * NS_PER_S);
        CHECK_STR(buf_str(&h.out), "done\n");
        stream_close(s);
        heard_done(&h);
}

static void a_program_that_is_not_there_is_said_at_once(void)
{
        static const char *const argv[] = {"/nowhere/ssh", NULL};
        struct stream *s = NULL;
        struct heard h;
        struct call c;

        heard_init(&h);
        call_init(&c, NEVER_NS);
        CHECK_EQ(child_open(argv[0], argv, NULL, &h.events, &c, &s), -ENOENT);
        CHECK(strstr(c.sentence, "/nowhere/ssh"));
        CHECK(!s);
        heard_done(&h);
}

int main(void)
{
        RUN(both_outputs_and_the_code_come);
        RUN(a_signal_is_told);
        RUN(what_is_sent_arrives_in_order_and_then_its_end);
        RUN(drained_comes_when_the_queue_is_low_again);
        RUN(a_child_that_reads_nothing_fills_a_bounded_queue);
        RUN(a_child_that_ignores_term_is_killed_with_its_group);
        RUN(a_stopped_child_ends_too);
        RUN(a_child_without_output_is_over);
        RUN(what_a_grandchild_holds_open_delays_nothing);
        RUN(a_program_that_is_not_there_is_said_at_once);
        return check_result();
}
