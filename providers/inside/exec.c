/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of a sandbox, seen from outside. The holder numbers bytes and keeps what was not
 * acknowledged; here it is handed to the sink and then acknowledged. An end is forgotten by the
 * holder when its exec is released, not before: whoever dies before he wrote it down gets it again.
 *
 * Sent twice: never. When the stream ends before the answer to an EXEC, the next one asks for the
 *             command: what its predecessor had not delivered by then is never read. Only when the
 *             holder doesn't know it, it is sent again.
 */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/inside/talk.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"

#define ACK_EVERY (256u << 10)
#define STDIN_TOTAL_MAX (UINT64_C(1) << 62)
#define TRIES 3

static struct talk_exec *exec_of(struct exec *x)
{
        return container_of(x, struct talk_exec, base);
}

static struct talk *talk_of(struct talk_exec *x)
{
        return x->talk;
}

static struct talk_exec *find_locked(struct talk *a, uint64_t number) REQUIRES(a->lock)
{
        list_for_each (at, &a->execs) {
                struct talk_exec *x = container_of(at, struct talk_exec, link);

                if (x->number == number)
                        return x;
        }
        return NULL;
}

/* ---- from the holder ---- */

/* The exec and its sink, marked as being called; NULL: nobody wants it. */
static struct talk_exec *begin_locked(struct talk *a, uint64_t number) REQUIRES(a->lock)
{
        struct talk_exec *x = find_locked(a, number);

        if (!x || !x->sink || x->is_ended || x->is_calling)
                return NULL;
        x->is_calling = true;
        x->caller = pthread_self();
        return x;
}

static void finish(struct talk *a, struct talk_exec *x)
{
        mutex_lock(&a->lock);
        x->is_calling = false;
        cond_broadcast(&a->changed);
        mutex_unlock(&a->lock);
}

int talk_exec_on_output(struct talk *a, const struct proto_msg *m)
{
        unsigned stream = m->output.stream;
        uint64_t offset = m->output.offset, end = offset + m->output.size, known = 0;
        struct exec_sink *sink = NULL;
        struct talk_exec *x;
        int r = 0;

        mutex_lock(&a->lock);
        x = begin_locked(a, m->output.number);
        if (x && m->output.position <= x->position) {
                x->is_calling = false;
                x = NULL;
                r = -EPROTO;
        }
        if (x) {
                sink = x->sink;
                x->position = m->output.position;
                if (offset < x->next[stream])
                        known = x->next[stream] < end ? x->next[stream] - offset : m->output.size;
                if (end > x->next[stream])
                        x->next[stream] = end;
        }
        mutex_unlock(&a->lock);
        if (!x)
                return r;
        if (known < m->output.size)
                sink->output(sink, (enum exec_stream)stream, offset + known,
                             (const char *)m->output.data + known, m->output.size - (size_t)known);
        finish(a, x);
        return 0;
}

int talk_exec_on_taken(struct talk *a, const struct proto_msg *m)
{
        uint64_t total = m->taken.total;
        struct exec_sink *sink = NULL;
        struct talk_exec *x;
        int r = 0;

        mutex_lock(&a->lock);
        x = begin_locked(a, m->taken.number);
        if (x && x->is_attached && total < STDIN_TOTAL_MAX) {
                x->is_attached = false;
                x->stdin_sent = total;
        } else if (x && (total > x->stdin_sent || total < x->stdin_taken)) {
                x->is_calling = false;
                x = NULL;
                r = -EPROTO;
        }
        if (x) {
                sink = x->sink;
                x->stdin_taken = total;
        }
        mutex_unlock(&a->lock);
        if (!x)
                return r;
        if (sink->stdin_taken)
                sink->stdin_taken(sink, total);
        finish(a, x);
        return 0;
}

int talk_exec_on_end(struct talk *a, const struct proto_msg *m)
{
        static const enum exec_end_kind kinds[] = {
                [PROTO_END_CODE] = EXEC_END_CODE,
                [PROTO_END_SIGNAL] = EXEC_END_SIGNAL,
                [PROTO_END_TIMEOUT] = EXEC_END_TIMEOUT,
        };
        struct exec_end end = {.kind = kinds[m->end.kind], .value = (int)m->end.value};
        struct exec_sink *sink = NULL;
        struct talk_exec *x;

        mutex_lock(&a->lock);
        x = begin_locked(a, m->end.number);
        if (x) {
                sink = x->sink;
                x->is_ended = true;
                for (unsigned i = 0; i < 2; i++)
                        end.dropped[i] =
                                m->end.total[i] > x->next[i] ? m->end.total[i] - x->next[i] : 0;
        }
        mutex_unlock(&a->lock);
        if (!x)
                return 0;
        sink->end(sink, &end);
        finish(a, x);
        return 0;
}

static void tell_lost(struct talk *a, struct talk_exec *x, struct exec_sink *sink,
                      const char *sentence)
{
        struct exec_end end = {.kind = EXEC_END_LOST};

        (void)snprintf(end.sentence, sizeof(end.sentence), "%s", sentence);
        sink->end(sink, &end);
        finish(a, x);
}

void talk_exec_on_reply(struct talk *a, const struct proto_msg *m)
{
        struct exec_sink *sink = NULL;
        struct talk_exec *x = NULL;

        mutex_lock(&a->lock);
        list_for_each (at, &a->execs) {
                struct talk_exec *each = container_of(at, struct talk_exec, link);

                if (each->attach_seq == 0 || each->attach_seq != m->reply.seq)
                        continue;
                each->attach_seq = 0;
                if (m->reply.code == 0)
                        each->base.pid = m->reply.pid;
                else
                        x = begin_locked(a, each->number);
                break;
        }
        if (x) {
                sink = x->sink;
                x->is_ended = true;
        }
        mutex_unlock(&a->lock);
        if (x)
                tell_lost(a, x, sink, "the sandbox doesn't know this command any more");
}

static void ack_locked(struct talk *a, struct talk_exec *x) REQUIRES(a->lock)
{
        const struct proto_msg m = {.type = PROTO_ACK,
                                    .ack = {.number = x->number, .position = x->position}};

        if (x->position - x->acked >= ACK_EVERY && !x->is_ended && talk_send_locked(a, &m) == 0)
                x->acked = x->position;
}

void talk_exec_ack_all(struct talk *a)
{
        mutex_lock(&a->lock);
        list_for_each (at, &a->execs)
                ack_locked(a, container_of(at, struct talk_exec, link));
        mutex_unlock(&a->lock);
}

/* A stream's positions count from what was acknowledged; offsets tell what we have. */
static void expect_again_locked(struct talk_exec *x)
{
        x->position = x->acked = 0;
        x->is_attached = true;
}

void talk_exec_reattach_locked(struct talk *a)
{
        list_for_each (at, &a->execs) {
                struct talk_exec *x = container_of(at, struct talk_exec, link);
                struct proto_msg m = {.type = PROTO_ATTACH, .attach = {.number = x->number}};

                if (x->is_ended || x->is_starting)
                        continue;
                expect_again_locked(x);
                x->attach_seq = m.attach.seq = ++a->seq;
                (void)talk_send_locked(a, &m); /* a stream that ends now will be followed */
        }
}

void talk_exec_lose_all(struct talk *a, const char *sentence)
{
        struct talk_exec *x;

        do {
                struct exec_sink *sink = NULL;

                x = NULL;
                mutex_lock(&a->lock);
                list_for_each (at, &a->execs) {
                        struct talk_exec *each = container_of(at, struct talk_exec, link);

                        if (!each->is_starting)
                                x = begin_locked(a, each->number);
                        if (x)
                                break;
                }
                if (x) {
                        sink = x->sink;
                        x->is_ended = true;
                }
                mutex_unlock(&a->lock);
                if (x)
                        tell_lost(a, x, sink, sentence);
        } while (x);
}

/* ---- a request's strings; secrets among them ---- */

struct packed {
        struct buf argv, env, cwd, user;
};

static void packed_done(struct packed *p)
{
        buf_wipe(&p->argv);
        buf_wipe(&p->env);
        buf_done(&p->cwd);
        buf_done(&p->user);
}

static int pack_env(const struct exec_req *in, struct buf *to, struct proto_strings *ret)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < in->env_count; i++) {
                r = buf_addf(to, "%s=%s", in->env[i].key, in->env[i].value);
                if (r == 0)
                        r = buf_add_char(to, '\0');
                ret->count++;
        }
        return ret->count > PROTO_STRINGS_MAX ? -E2BIG : r;
}

/* Absolute; a relative one starts at the working directory. */
static int pack_cwd(const char *workdir, const struct exec_req *in, struct buf *to)
{
        int r;

        if (in->cwd && in->cwd[0] == '/')
                r = buf_add_str(to, in->cwd);
        else
                r = buf_addf(to, "%s%s%s", workdir, in->cwd ? "/" : "", in->cwd ? in->cwd : "");
        return r == 0 ? buf_add_char(to, '\0') : r;
}

static int pack(const struct inside_facts *f, const struct exec_req *in, struct packed *p,
                struct proto_msg *m)
{
        const char *user = in->user ? in->user : f->user;
        int r = 0;

        for (size_t i = 0; r == 0 && in->argv[i]; i++)
                r = proto_strings_add(&p->argv, &m->exec.argv.count, in->argv[i]);
        if (r == 0)
                r = pack_env(in, &p->env, &m->exec.env);
        if (r == 0)
                r = pack_cwd(f->workdir, in, &p->cwd);
        if (r == 0)
                r = buf_add(&p->user, user, strlen(user) + 1);
        m->exec.argv.data = p->argv.data;
        m->exec.argv.size = p->argv.size;
        m->exec.env.data = p->env.data;
        m->exec.env.size = p->env.size;
        m->exec.cwd = (struct proto_strings){.count = 1, .data = p->cwd.data, .size = p->cwd.size};
        m->exec.user =
                (struct proto_strings){.count = 1, .data = p->user.data, .size = p->user.size};
        return r;
}

static struct talk_exec *new_exec(struct talk *a, uint64_t number, struct exec_sink *to)
{
        struct talk_exec *x = calloc(1, sizeof(*x));

        if (!x)
                return NULL;
        list_init(&x->link);
        x->base.box = a->box;
        x->talk = a;
        (void)snprintf(x->base.id, sizeof(x->base.id), "%" PRIu64, number);
        x->number = number;
        x->sink = to;
        return x;
}

static void no_longer_locked(struct talk *a, struct talk_exec *x) REQUIRES(a->lock)
{
        x->sink = NULL;
        while (x->is_calling && !pthread_equal(x->caller, pthread_self()))
                cond_wait(&a->changed, &a->lock);
        list_remove(&x->link);
}

static void send_about_locked(struct talk *a, enum proto_type type, uint64_t number)
        REQUIRES(a->lock)
{
        struct proto_msg m = {.type = type};

        if (type == PROTO_FORGET)
                m.forget.number = number;
        else
                m.detach.number = number;
        (void)talk_send_locked(a, &m); /* without a stream there is nobody to tell */
}

/* ---- start ---- */

/* Codes that a start can fail with; the holder's word is not worth more. */
static int start_error(int code)
{
        switch (-code) {
        case 0:
        case ENOENT:
        case EACCES:
        case ENOTDIR:
        case ENOEXEC:
        case E2BIG:
        case EAGAIN:
        case ENOMEM:
        case EHOSTDOWN:
        case EEXIST:
        case EINVAL:
        case EPERM:
        case ELOOP:
        case ENAMETOOLONG: return code;
        default: return -EIO;
        }
}

static int no_word(struct call *c, int r)
{
        return call_fail(c, r == -EINTR ? r : -ETIMEDOUT,
                         "no word from the sandbox whether the command was started");
}

/*
 * The stream has ended before the answer: is it there? 0 with w->code. -EAGAIN it never arrived, and
 * never will.
 */
static int ask_again(struct talk *a, struct talk_exec *x, struct talk_wait *w, struct call *c)
{
        struct proto_msg m = {.type = PROTO_ATTACH, .attach = {.number = x->number}};
        int r;

        for (unsigned i = 0; i < TRIES; i++) {
                r = talk_connect(a, c);
                if (r < 0)
                        return r == -EHOSTDOWN || r == -ENODEV || r == -EOPNOTSUPP ? r
                                                                                   : no_word(c, r);
                mutex_lock(&a->lock);
                *w = (struct talk_wait){0};
                list_init(&w->link);
                expect_again_locked(x);
                talk_wait_add_locked(a, w);
                m.attach.seq = w->seq;
                r = talk_send_locked(a, &m);
                if (r == 0)
                        r = talk_wait_locked(a, w, c);
                list_remove(&w->link);
                mutex_unlock(&a->lock);
                if (r == 0)
                        return w->code == -ENOENT ? -EAGAIN : 0;
                if (r != -EHOSTDOWN)
                        return no_word(c, r);
        }
        return no_word(c, -ETIMEDOUT);
}

/* One EXEC and its answer. -EHOSTDOWN: the stream ended meanwhile. */
static int send_once(struct talk *a, struct proto_msg *m, struct talk_wait *w, struct call *c)
{
        int r;

        mutex_lock(&a->lock);
        *w = (struct talk_wait){0};
        list_init(&w->link);
        talk_wait_add_locked(a, w);
        m->exec.seq = w->seq;
        while ((r = talk_send_locked(a, m)) == -EAGAIN && call_check(c) == 0)
                (void)cond_wait_until(&a->changed, &a->lock, clock_after(NS_PER_MS));
        if (r == 0)
                r = talk_wait_locked(a, w, c);
        list_remove(&w->link);
        mutex_unlock(&a->lock);
        return r;
}

/* 0: see w->code. */
static int request(struct talk *a, struct talk_exec *x, struct proto_msg *m, struct talk_wait *w,
                   struct call *c)
{
        int r;

        for (unsigned i = 0; i < TRIES; i++) {
                r = talk_connect(a, c);
                if (r < 0)
                        return r;
                r = send_once(a, m, w, c);
                if (r == -EHOSTDOWN)
                        r = ask_again(a, x, w, c);
                else if (r == -ETIMEDOUT || r == -EINTR)
                        return no_word(c, r);
                else if (r < 0)
                        return call_fail_errno(c, r, "exec");
                if (r != -EAGAIN)
                        return r;
        }
        return call_fail(c, -EHOSTUNREACH, "the stream to the sandbox ends again and again");
}

static int add(struct talk *a, struct talk_exec *x, struct call *c)
{
        int r = 0;

        mutex_lock(&a->lock);
        if (find_locked(a, x->number))
                r = -EEXIST;
        else
                list_add_tail(&a->execs, &x->link);
        mutex_unlock(&a->lock);
        return r < 0 ? call_fail(c, r, "exec %" PRIu64 " is there already", x->number) : 0;
}

static int start(struct talk *a, struct talk_exec *x, struct proto_msg *m, struct call *c)
{
        struct talk_wait w = {0};
        int r = add(a, x, c);

        if (r < 0)
                return r;
        list_init(&w.link);
        r = request(a, x, m, &w, c);
        mutex_lock(&a->lock);
        x->is_starting = false;
        if (r == 0)
                r = start_error(w.code);
        if (r < 0) {
                no_longer_locked(a, x);
                send_about_locked(a, PROTO_DETACH, x->number);
        } else {
                x->base.pid = w.pid;
        }
        mutex_unlock(&a->lock);
        if (r < 0 && !c->sentence[0])
                return call_fail(c, r, "%s", w.sentence[0] ? w.sentence : strerrordesc_np(-r));
        a->ops->wake(a->box); /* had the stream ended just now */
        return r;
}

int talk_exec_start(struct talk *a, struct call *c, const struct exec_req *in, struct exec_sink *to,
                    struct exec **ret)
{
        _cleanup_(packed_done) struct packed p = {BUF_INIT(PROTO_FRAME_MAX),
                                                  BUF_INIT(PROTO_FRAME_MAX),
                                                  BUF_INIT(PROTO_FRAME_MAX), BUF_INIT(4096)};
        struct proto_msg m = {.type = PROTO_EXEC,
                              .exec = {.number = in->number,
                                       .timeout_ns = in->timeout_ns,
                                       .has_stdin = in->has_stdin}};
        struct inside_facts f = {"", ""};
        struct talk_exec *x;
        int r = a->ops->check_runs(a->box, c);

        if (r == 0)
                r = a->ops->facts(a->box, c, &f);
        if (r < 0)
                return r;
        r = pack(&f, in, &p, &m);
        if (r < 0)
                return call_fail(c, r, "the command is too long");
        x = new_exec(a, in->number, to);
        if (!x)
                return call_fail(c, -ENOMEM, "out of memory");
        x->is_starting = true;
        r = start(a, x, &m, c);
        if (r < 0)
                free(x);
        else
                *ret = &x->base;
        return r;
}

/* ---- attach ---- */

static int ask_for(struct talk *a, struct talk_exec *x, struct call *c)
{
        struct talk_wait w = {0};
        int r = ask_again(a, x, &w, c);

        if (r == 0 && w.code == 0) {
                x->base.pid = w.pid;
                return 0;
        }
        if (r == 0 || r == -EAGAIN || r == -EHOSTDOWN || r == -ENODEV || r == -EOPNOTSUPP)
                c->sentence[0] = '\0';
        return c->sentence[0] ? r
                              : call_fail(c, -ENOENT,
                                          "the sandbox doesn't know this command any "
                                          "more");
}

int talk_exec_attach(struct talk *a, struct call *c, uint64_t number, const uint64_t have[2],
                     struct exec_sink *to, struct exec **ret)
{
        struct talk_exec *x;
        bool is_frozen;
        int r = a->ops->check_runs(a->box, c); /* it may be down: its state is known then */

        if (r < 0 && r != -EHOSTDOWN)
                return r == -ENODEV ? -ENOENT : r;
        c->sentence[0] = '\0';
        x = new_exec(a, number, to);
        if (!x)
                return call_fail(c, -ENOMEM, "out of memory");
        x->next[0] = have[0];
        x->next[1] = have[1];
        is_frozen = a->ops->is_frozen(a->box);
        /* A frozen holder answers when it is thawed: asked then. */
        x->is_attached = true;
        x->is_starting = !is_frozen;
        r = add(a, x, c);
        if (r == 0 && !is_frozen)
                r = ask_for(a, x, c);
        mutex_lock(&a->lock);
        x->is_starting = false;
        if (r < 0) {
                no_longer_locked(a, x);
                send_about_locked(a, PROTO_DETACH, x->number);
        }
        mutex_unlock(&a->lock);
        if (r < 0) {
                free(x);
                return r;
        }
        a->ops->wake(a->box);
        *ret = &x->base;
        return 0;
}

/* ---- stdin, signals, release ---- */

/* All of it or nothing: in frames of at most PROTO_CHUNK_MAX, sent as one. */
static int write_locked(struct talk *a, struct talk_exec *x, const char *data, size_t size,
                        bool is_last) REQUIRES(a->lock)
{
        _cleanup_(buf_wipe) struct buf frames = BUF_INIT(2 * EXEC_STDIN_WINDOW);
        size_t at = 0;
        int r = 0;

        if (x->stdin_sent - x->stdin_taken + size > EXEC_STDIN_WINDOW)
                return -EAGAIN;
        do {
                size_t part = size - at < PROTO_CHUNK_MAX ? size - at : PROTO_CHUNK_MAX;
                const struct proto_msg m = {.type = PROTO_STDIN,
                                            .input = {.number = x->number,
                                                      .offset = x->stdin_sent + at,
                                                      .is_last = is_last && at + part == size,
                                                      .data = size > 0 ? data + at : "",
                                                      .size = part}};

                r = proto_add(&frames, &m);
                at += part;
        } while (r == 0 && at < size);
        if (r == 0)
                r = talk_send_frames_locked(a, &frames);
        if (r < 0)
                return r == -EHOSTDOWN ? -EAGAIN : r; /* again when it is told how far it is */
        x->stdin_sent += size;
        x->stdin_is_last |= is_last;
        return 0;
}

int talk_exec_write(struct exec *base, struct call *c, const void *data, size_t size, bool is_last)
{
        struct talk_exec *x = exec_of(base);
        struct talk *a = talk_of(x);
        int r;

        mutex_lock(&a->lock);
        if (x->is_ended || x->stdin_is_last)
                r = -EPIPE;
        else if (x->is_attached)
                r = -EAGAIN; /* where it goes on isn't known yet: after stdin_taken */
        else
                r = write_locked(a, x, data, size, is_last);
        mutex_unlock(&a->lock);
        return r < 0 ? call_fail_errno(c, r, "stdin") : 0;
}

int talk_exec_signal(struct exec *base, struct call *c, int signal)
{
        struct talk_exec *x = exec_of(base);
        struct talk *a = talk_of(x);
        const struct proto_msg m = {.type = PROTO_SIGNAL,
                                    .signal = {.number = x->number, .signal = (uint32_t)signal}};
        int r;

        if (signal < 1 || signal > 64)
                return call_fail(c, -EINVAL, "signal %d", signal);
        for (unsigned i = 0; i < TRIES; i++) {
                mutex_lock(&a->lock);
                r = x->is_ended ? -ESRCH : talk_send_locked(a, &m);
                mutex_unlock(&a->lock);
                if (r != -EHOSTDOWN)
                        return r < 0 ? call_fail_errno(c, r, "signal") : 0;
                r = talk_connect(a, c);
                if (r < 0)
                        return r;
        }
        return call_fail(c, -EHOSTUNREACH, "the stream to the sandbox ends again and again");
}

void talk_exec_release(struct exec *base)
{
        struct talk_exec *x = exec_of(base);
        struct talk *a = talk_of(x);

        mutex_lock(&a->lock);
        no_longer_locked(a, x);
        send_about_locked(a, x->is_ended ? PROTO_FORGET : PROTO_DETACH, x->number);
        mutex_unlock(&a->lock);
        free(x);
}
