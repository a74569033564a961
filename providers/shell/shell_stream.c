/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams to a helper, which is a loop for that: it takes not one byte more than it should, where a
 * shell that reads scripts reads ahead.
 *
 * Sent:    "l LINES\n" or "d BYTES\n" and a script, which the shell itself reads byte by byte, or dd
 *          where it is long. A short stream follows as it is: its size is in the script. A long one
 *          comes in pieces, each "SIZE\n" and its bytes, up to "0\n"; then "ok\n" says that it was
 *          whole.
 */

#include <errno.h>
#include <stdio.h>

#include "providers/shell/helper.h"
#include "providers/shell/shell.h"
#include "transport/base/cleanup.h"

#define SHORT_STREAM ((size_t)512 * 1024) /* goes in one piece, and is held until it is known */
#define SHORT_SCRIPT ((size_t)2048) /* that the shell itself reads */

/* A stream to a helper. */
struct feeding {
        struct shell_pipe pipe;
        struct helper *helper;
        struct run *run;
        struct call *call;
        const char *taker, *script;
        struct buf first; /* of the stream, while it may be a short one */
        bool is_long; /* its script was sent */
        int error;
};

/* Waits until what was queued has become little, since it was so `drains` times, or for a moment. */
static int wait_drained(struct helper *p, struct call *c, unsigned drains)
{
        struct shell *s = p->shell;
        uint64_t look_ns = clock_after(HELPER_LOOK_NS);
        int r;

        mutex_lock(&s->lock);
        if (!p->has_ended && !p->is_done && p->drains == drains)
                (void)cond_wait_until(&s->changed, &s->lock, look_ns);
        r = p->has_ended || p->is_done ? -EPIPE : call_check(c);
        mutex_unlock(&s->lock);
        return r;
}

/* Until what is queued is little enough for more. */
static int wait_room(struct feeding *pipe)
{
        struct helper *p = pipe->helper;
        struct call *c = pipe->call;
        size_t before = 0;
        int r = 0;

        while (r == 0) {
                unsigned drains;
                size_t queued;

                mutex_lock(&p->shell->lock);
                drains = p->drains;
                mutex_unlock(&p->shell->lock);
                queued = stream_queued(p->stream);
                if (queued < STREAM_QUEUE_LOW)
                        break;
                if (queued < before && c->deadline_ns < clock_after(HELPER_PROGRESS_NS))
                        c->deadline_ns = clock_after(HELPER_PROGRESS_NS);
                before = queued;
                r = wait_drained(p, c, drains);
        }
        return r;
}

/* What is read first: how much, then that. */
static int add_counted(struct buf *to, const struct buf *text)
{
        size_t lines = 0;
        int r;

        for (size_t i = 0; i < text->size; i++)
                lines += text->data[i] == '\n';
        r = text->size <= SHORT_SCRIPT ? buf_addf(to, "l %zu\n", lines)
                                       : buf_addf(to, "d %zu\n", text->size);
        return r == 0 ? buf_add(to, text->data, text->size) : r;
}

/* `reader` writes the stream, in the shell there; `end` then sees to its end. */
static int compose_stream(const struct feeding *pipe, const char *reader, const char *end,
                          struct buf *to)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(HELPER_SCRIPT_MAX);
        const char *token = pipe->run->token;
        int r = buf_addf(&text, "{ printf '%%s\\n' %s\n%s | { %s; }; r=$?%s\n{\n%s\n} </dev/null\n",
                         token, reader, pipe->taker, end, pipe->script);

        if (r == 0)
                r = buf_addf(&text, "printf '\\n%s 0\\n'; printf '\\n%s\\n' >&2; }\n", token,
                             token);
        return r == 0 ? add_counted(to, &text) : r;
}

static int send_script(struct feeding *pipe, const char *reader, const char *end)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(HELPER_SCRIPT_MAX);
        int r = compose_stream(pipe, reader, end, &text);

        return r == 0 ? stream_send(pipe->helper->stream, text.data, text.size) : r;
}

static int send_piece(struct feeding *pipe, const void *data, size_t size)
{
        char head[32];
        int n = snprintf(head, sizeof(head), "%zu\n", size), r = wait_room(pipe);

        if (r == 0)
                r = stream_send(pipe->helper->stream, head, (size_t)n);
        return r == 0 ? stream_send(pipe->helper->stream, data, size) : r;
}

static int go_long(struct feeding *pipe)
{
        int r = send_script(pipe, "take", "; read -r k; [ \"$k\" = ok ] || r=255");

        pipe->is_long = r == 0;
        if (r == 0 && pipe->first.size > 0)
                r = send_piece(pipe, pipe->first.data, pipe->first.size);
        buf_done(&pipe->first);
        return r;
}

static int pipe_send(struct shell_pipe *to, const void *data, size_t size)
{
        struct feeding *pipe = container_of(to, struct feeding, pipe);

        if (pipe->error < 0 || size == 0)
                return pipe->error;
        if (!pipe->is_long && pipe->first.size + size <= SHORT_STREAM) {
                pipe->error = buf_add(&pipe->first, data, size);
                return pipe->error;
        }
        if (!pipe->is_long)
                pipe->error = go_long(pipe);
        if (pipe->error == 0)
                pipe->error = send_piece(pipe, data, size);
        return pipe->error;
}

static int send_short(struct feeding *pipe)
{
        char reader[32];
        int r;

        (void)snprintf(reader, sizeof(reader), "some %zu", pipe->first.size);
        r = send_script(pipe, reader, "");
        return r == 0 ? stream_send(pipe->helper->stream, buf_str(&pipe->first), pipe->first.size)
                      : r;
}

/*
 * Whatever `from` says, a script that was sent is told and ends: the helper stays usable. Positive:
 * nothing was sent.
 */
static int feed(struct feeding *pipe, struct shell_source *from, int *ret_fed)
{
        struct stream *stream = pipe->helper->stream;
        bool is_whole;

        *ret_fed = from->feed(from, &pipe->pipe);
        is_whole = *ret_fed == 0 && pipe->error == 0 && (pipe->is_long || pipe->first.size > 0);
        if (!pipe->is_long)
                return is_whole ? send_short(pipe) : 1;
        if (pipe->error < 0)
                return pipe->error;
        return is_whole ? stream_send(stream, "0\nok\n", 5) : stream_send(stream, "0\nno\n", 5);
}

static int stream_on(struct feeding *pipe, struct shell_source *from)
{
        struct helper *p = pipe->helper;
        struct run *run = pipe->run;
        struct shell *s = p->shell;
        int fed, sent, r;

        p->heard_ns = 0;
        sent = r = feed(pipe, from, &fed);
        if (!pipe->is_long && (r == -EPIPE || pipe->error == -EPIPE))
                r = sent = -EAGAIN; /* it was dead before */
        if (sent <= 0 && (r == 0 || r == -EPIPE)) /* its end says why */
                r = helper_wait(p, pipe->call);
        if (r == 0 && run->error < 0)
                r = run->error;
        mutex_lock(&s->lock);
        if (r == -EOPNOTSUPP)
                s->no_streams_ns = UINT64_MAX;
        mutex_unlock(&s->lock);
        helper_let_go(p, sent > 0 || (r == 0 && sent == 0 && run_is_complete(run)));
        buf_done(&pipe->first);
        if (sent > 0)
                return fed < 0 ? fed : pipe->error < 0 ? pipe->error : -EINVAL;
        if (r == 0 && fed == -EPIPE)
                r = call_fail(pipe->call, -EHOSTUNREACH, "the connection ended");
        return r < 0 ? r : fed;
}

int shell_run_stream(struct shell *s, struct call *c, const char *taker, const char *script,
                     struct shell_source *from, struct shell_sink *to)
{
        struct run run;
        struct feeding pipe = {.pipe.send = pipe_send,
                               .run = &run,
                               .call = c,
                               .taker = taker,
                               .script = script,
                               .first = BUF_INIT(SHORT_STREAM)};
        int r = run_init(&run, to);

        if (r == 0)
                r = helper_take(s, c, HELPER_STREAMS, &run, &pipe.helper);
        if (r == 0 && pipe.helper)
                r = stream_on(&pipe, from);
        run_done(&run);
        return r;
}
