/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of a local sandbox, seen from outside. The holder numbers bytes and keeps what was not
 * acknowledged; here it is handed to the sink and then acknowledged. An end is forgotten by the
 * holder when its exec is released, not before: whoever dies before he wrote it down gets it again.
 *
 * Sinks are called on the hub's thread with no lock; `is_calling` lets exec_release wait for that.
 */

#include "providers/local/local.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "transport/base/call.h"
#include "transport/base/cleanup.h"

#define ACK_EVERY (256u << 10)
#define STDIN_TOTAL_MAX (UINT64_C(1) << 62)

static struct local_exec *local_exec(struct exec *x)
{
        return container_of(x, struct local_exec, base);
}

static struct local_exec *find_locked(struct local_box *b, uint64_t number) REQUIRES(b->lock)
{
        list_for_each (at, &b->execs_list) {
                struct local_exec *x = container_of(at, struct local_exec, link);

                if (x->number == number)
                        return x;
        }
        return NULL;
}

/* ---- from the holder: on the hub ---- */

/* The exec and its sink, marked as being called; NULL: nobody wants it. */
static struct local_exec *begin_locked(struct local_box *b, uint64_t number) REQUIRES(b->lock)
{
        struct local_exec *x = find_locked(b, number);

        if (!x || !x->sink || x->is_ended)
                return NULL;
        x->is_calling = true;
        return x;
}

static void finish(struct local_box *b, struct local_exec *x)
{
        mutex_lock(&b->lock);
        x->is_calling = false;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
}

int exec_on_output(struct local_box *b, const struct proto_msg *m)
{
        unsigned stream = m->output.stream;
        uint64_t offset = m->output.offset, end = offset + m->output.size;
        struct exec_sink *sink = NULL;
        struct local_exec *x;
        uint64_t known = 0;
        int r = 0;

        mutex_lock(&b->lock);
        x = begin_locked(b, m->output.number);
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
        mutex_unlock(&b->lock);
        if (!x)
                return r;
        if (known < m->output.size)
                sink->output(sink, (enum exec_stream)stream, offset + known,
                             (const char *)m->output.data + known, m->output.size - (size_t)known);
        finish(b, x);
        return 0;
}

int exec_on_taken(struct local_box *b, const struct proto_msg *m)
{
        uint64_t total = m->taken.total;
        struct exec_sink *sink = NULL;
        struct local_exec *x;
        int r = 0;

        mutex_lock(&b->lock);
        x = begin_locked(b, m->taken.number);
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
        mutex_unlock(&b->lock);
        if (!x)
                return r;
        if (sink->stdin_taken)
                sink->stdin_taken(sink, total);
        finish(b, x);
        return 0;
}

/* Hand on the one end of an exec that begin_locked gave. */
static void tell_end(struct local_box *b, struct local_exec *x, struct exec_sink *sink,
                     const struct exec_end *end)
{
        sink->end(sink, end);
        finish(b, x);
}

int exec_on_end(struct local_box *b, const struct proto_msg *m)
{
        static const enum exec_end_kind kinds[] = {
                [PROTO_END_CODE] = EXEC_END_CODE,
                [PROTO_END_SIGNAL] = EXEC_END_SIGNAL,
                [PROTO_END_TIMEOUT] = EXEC_END_TIMEOUT,
        };
        struct exec_end end = {.kind = kinds[m->end.kind], .value = (int)m->end.value};
        struct exec_sink *sink = NULL;
        struct local_exec *x;

        mutex_lock(&b->lock);
        x = begin_locked(b, m->end.number);
        if (x) {
                sink = x->sink;
                x->is_ended = true;
                for (unsigned i = 0; i < 2; i++)
                        end.dropped[i] =
                                m->end.total[i] > x->next[i] ? m->end.total[i] - x->next[i] : 0;
        }
        mutex_unlock(&b->lock);
        if (x)
                tell_end(b, x, sink, &end);
        return 0;
}

void exec_on_reply(struct local_box *b, const struct proto_msg *m)
{
        const struct exec_end end = {.kind = EXEC_END_LOST,
                                     .sentence = "the sandbox doesn't know this command any more"};
        struct exec_sink *sink = NULL;
        struct local_exec *x = NULL;

        mutex_lock(&b->lock);
        list_for_each (at, &b->execs_list) {
                struct local_exec *each = container_of(at, struct local_exec, link);

                if (each->attach_seq == 0 || each->attach_seq != m->reply.seq)
                        continue;
                each->attach_seq = 0;
                if (m->reply.code == 0)
                        each->base.pid = m->reply.pid;
                else
                        x = begin_locked(b, each->number);
                break;
        }
        if (x) {
                sink = x->sink;
                x->is_ended = true;
        }
        mutex_unlock(&b->lock);
        if (x)
                tell_end(b, x, sink, &end);
}

static void ack_locked(struct local_box *b, struct local_exec *x) REQUIRES(b->lock)
{
        const struct proto_msg m = {.type = PROTO_ACK,
                                    .ack = {.number = x->number, .position = x->position}};

        if (x->position - x->acked >= ACK_EVERY && !x->is_ended && conn_send_locked(b, &m, -1) == 0)
                x->acked = x->position;
}

void exec_ack_all(struct local_box *b)
{
        mutex_lock(&b->lock);
        list_for_each (at, &b->execs_list)
                ack_locked(b, container_of(at, struct local_exec, link));
        mutex_unlock(&b->lock);
}

void exec_lose_all(struct local_box *b, const char *sentence)
{
        struct exec_end end = {.kind = EXEC_END_LOST};
        struct local_exec *x;

        (void)snprintf(end.sentence, sizeof(end.sentence), "%s", sentence);
        do {
                struct exec_sink *sink = NULL;

                x = NULL;
                mutex_lock(&b->lock);
                list_for_each (at, &b->execs_list) {
                        x = begin_locked(b, container_of(at, struct local_exec, link)->number);
                        if (x)
                                break;
                }
                if (x) {
                        sink = x->sink;
                        x->is_ended = true;
                }
                mutex_unlock(&b->lock);
                if (x)
                        tell_end(b, x, sink, &end);
        } while (x);
}

/* ---- start ---- */

/* Where the holder keeps the output: a file without a name, beside the workspace where possible. */
static int open_log(const struct local_box *b)
{
        char dir[160];
        int fd;

        (void)snprintf(dir, sizeof(dir), "/proc/self/fd/%d/%s", b->local->dir, b->base.id);
        fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
        if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT))
                fd = memfd_create("sbxfs-log", MFD_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

static int pack_argv(const struct exec_req *in, struct buf *to, struct proto_strings *ret)
{
        int r = 0;

        for (size_t i = 0; r == 0 && in->argv[i]; i++)
                r = proto_strings_add(to, &ret->count, in->argv[i]);
        return r;
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
static int pack_cwd(const struct local_box *b, const struct exec_req *in, struct buf *to)
{
        char workspace[4096];
        const char *top = b->plan.workdir;
        int r;

        if (!b->plan.is_isolated) {
                (void)snprintf(workspace, sizeof(workspace), "%s/%s/workspace", b->local->path,
                               b->base.id);
                top = workspace;
        }
        if (in->cwd && in->cwd[0] == '/')
                r = buf_add_str(to, in->cwd);
        else
                r = buf_addf(to, "%s%s%s", top, in->cwd ? "/" : "", in->cwd ? in->cwd : "");
        return r == 0 ? buf_add_char(to, '\0') : r;
}

/* The strings of one request; secrets among them. */
struct packed {
        struct buf argv, env, cwd;
};

static void packed_done(struct packed *p)
{
        buf_done(&p->argv);
        buf_wipe(&p->env);
        buf_done(&p->cwd);
}

static int pack(const struct local_box *b, const struct exec_req *in, struct packed *p,
                struct proto_msg *m)
{
        int r = pack_argv(in, &p->argv, &m->exec.argv);

        if (r == 0)
                r = pack_env(in, &p->env, &m->exec.env);
        if (r == 0)
                r = pack_cwd(b, in, &p->cwd);
        m->exec.argv.data = p->argv.data;
        m->exec.argv.size = p->argv.size;
        m->exec.env.data = p->env.data;
        m->exec.env.size = p->env.size;
        m->exec.cwd = (struct proto_strings){.count = 1, .data = p->cwd.data, .size = p->cwd.size};
        return r;
}

static struct local_exec *new_exec(struct local_box *b, uint64_t number, struct exec_sink *to)
{
        struct local_exec *x = calloc(1, sizeof(*x));

        if (!x)
                return NULL;
        list_init(&x->link);
        x->base.box = &b->base;
        (void)snprintf(x->base.id, sizeof(x->base.id), "%" PRIu64, number);
        x->number = number;
        x->sink = to;
        return x;
}

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
        case ELOOP:
        case ENAMETOOLONG: return code;
        default: return -EIO;
        }
}

static int check_running_locked(struct local_box *b, struct call *c) REQUIRES(b->lock)
{
        switch (b->state) {
        case BOX_RUNNING: return 0;
        case BOX_GONE:
        case BOX_DESTROYING: return call_fail(c, -ENODEV, "the sandbox is gone");
        case BOX_CREATING:
        case BOX_STARTING:
        case BOX_PAUSING:
        case BOX_PAUSED:
        case BOX_RESUMING:
        case BOX_STOPPING:
        case BOX_STOPPED:
        case BOX_ERROR:
        case BOX_UNKNOWN:
        default: return call_fail(c, -EHOSTDOWN, "the sandbox is %s", box_state_name(b->state));
        }
}

static void no_longer_locked(struct local_box *b, struct local_exec *x) REQUIRES(b->lock)
{
        x->sink = NULL;
        while (x->is_calling && !hub_is_self(b->local->hub))
                cond_wait(&b->changed, &b->lock);
        list_remove(&x->link);
}

static void send_about_locked(struct local_box *b, enum proto_type type, uint64_t number)
        REQUIRES(b->lock)
{
        struct proto_msg m = {.type = type};

        if (type == PROTO_FORGET)
                m.forget.number = number;
        else
                m.detach.number = number;
        (void)conn_send_locked(b, &m, -1); /* without a connection there is nobody to tell */
}

/* EXEC goes out when the queue lets it; 0 once it has. */
static int request_locked(struct local_box *b, struct proto_msg *m, int log_fd,
                          struct local_exec *x, struct wait *w, struct call *c) REQUIRES(b->lock)
{
        int r = check_running_locked(b, c);

        if (r < 0)
                return r;
        if (find_locked(b, x->number))
                return call_fail(c, -EEXIST, "exec %" PRIu64 " is there already", x->number);
        wait_add_locked(b, w);
        list_add_tail(&b->execs_list, &x->link);
        m->exec.seq = w->seq;
        while ((r = conn_send_locked(b, m, log_fd)) == -EAGAIN) {
                r = box_wait_locked(b, c);
                if (r < 0)
                        break;
        }
        if (r == 0) {
                b->execs++;
                atomic_store(&b->is_quiet, false);
        }
        return r;
}

static int start_locked(struct local_box *b, struct proto_msg *m, int log_fd, struct local_exec *x,
                        struct call *c) REQUIRES(b->lock)
{
        struct wait w = {0};
        int r;

        list_init(&w.link);
        r = request_locked(b, m, log_fd, x, &w, c);
        if (r < 0) {
                list_remove(&w.link);
                no_longer_locked(b, x);
                return c->sentence[0] ? r : call_fail_errno(c, r, "exec");
        }
        r = wait_reply_locked(b, &w, c);
        if (r == -EHOSTDOWN)
                return 0; /* it may have run: its end will be `lost` */
        if (r < 0) {
                no_longer_locked(b, x);
                send_about_locked(b, PROTO_DETACH, x->number);
                return call_fail(c, -ETIMEDOUT,
                                 "no word from the sandbox whether the command was started");
        }
        r = start_error(w.code);
        if (r < 0) {
                no_longer_locked(b, x);
                return call_fail(c, r, "%s", w.sentence[0] ? w.sentence : strerrordesc_np(-r));
        }
        x->base.pid = w.pid;
        return 0;
}

int local_exec_start(struct box *box, struct call *c, const struct exec_req *in,
                     struct exec_sink *to, struct exec **ret)
{
        struct local_box *b = local_box(box);
        _cleanup_(packed_done) struct packed p = {
                BUF_INIT(PROTO_FRAME_MAX), BUF_INIT(PROTO_FRAME_MAX), BUF_INIT(PROTO_FRAME_MAX)};
        struct proto_msg m = {.type = PROTO_EXEC,
                              .exec = {.number = in->number,
                                       .timeout_ns = in->timeout_ns,
                                       .has_stdin = in->has_stdin,
                                       .user = {1, "", 1}}};
        _cleanup_(closep) int log_fd = -1;
        struct local_exec *x;
        int r;

        if (in->user && strcmp(in->user, "sandbox") != 0 && strcmp(in->user, "1000") != 0)
                return call_fail(c, -EOPNOTSUPP,
                                 "user=%s: a local sandbox has the user sandbox only", in->user);
        r = pack(b, in, &p, &m);
        if (r < 0)
                return call_fail(c, r, "the command is too long");
        log_fd = open_log(b);
        if (log_fd < 0)
                return call_fail_errno(c, log_fd, "a file for the output");
        x = new_exec(b, in->number, to);
        if (!x)
                return call_fail(c, -ENOMEM, "out of memory");
        mutex_lock(&b->lock);
        r = start_locked(b, &m, log_fd, x, c);
        mutex_unlock(&b->lock);
        if (r < 0)
                free(x);
        else
                *ret = &x->base;
        return r;
}

/* ---- attach ---- */

static int attach_locked(struct local_box *b, struct local_exec *x, struct call *c)
        REQUIRES(b->lock)
{
        struct proto_msg m = {.type = PROTO_ATTACH, .attach = {.number = x->number}};
        struct wait w = {0};
        int r;

        list_init(&w.link);
        if (b->conn.source.fd < 0)
                return call_fail(c, -ENOENT, "the sandbox is %s: what ran in it has ended",
                                 box_state_name(b->state));
        if (find_locked(b, x->number))
                return call_fail(c, -EEXIST, "exec %" PRIu64 " is attached already", x->number);
        wait_add_locked(b, &w);
        list_add_tail(&b->execs_list, &x->link);
        m.attach.seq = w.seq;
        r = conn_send_locked(b, &m, -1);
        /* A frozen holder answers when it is thawed. */
        if (r == 0 && b->state == BOX_PAUSED && !b->conn.is_greeted) {
                x->attach_seq = w.seq;
                list_remove(&w.link);
                return 0;
        }
        if (r == 0)
                r = wait_reply_locked(b, &w, c);
        list_remove(&w.link);
        if (r == 0)
                r = w.code == 0 ? 0 : -ENOENT;
        if (r < 0) {
                no_longer_locked(b, x);
                send_about_locked(b, PROTO_DETACH, x->number);
                r = r == -EHOSTDOWN ? -ENOENT : r;
                return call_fail(c, r,
                                 r == -ENOENT ? "the sandbox doesn't know this command any more"
                                              : "no word from the sandbox");
        }
        x->base.pid = w.pid;
        return 0;
}

int local_exec_attach(struct box *box, struct call *c, uint64_t number, const char *id,
                      const uint64_t have[2], struct exec_sink *to, struct exec **ret)
{
        struct local_box *b = local_box(box);
        struct local_exec *x = new_exec(b, number, to);
        int r;

        (void)id; /* it is the number */
        if (!x)
                return call_fail(c, -ENOMEM, "out of memory");
        x->next[0] = have[0];
        x->next[1] = have[1];
        x->is_attached = true;
        mutex_lock(&b->lock);
        r = attach_locked(b, x, c);
        mutex_unlock(&b->lock);
        if (r < 0)
                free(x);
        else
                *ret = &x->base;
        return r;
}

/* ---- stdin, signals, release ---- */

/* All of it or nothing: in frames of at most PROTO_CHUNK_MAX, sent as one. */
static int write_locked(struct local_box *b, struct local_exec *x, const char *data, size_t size,
                        bool is_last) REQUIRES(b->lock)
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
                r = conn_send_frames_locked(b, &frames);
        if (r < 0)
                return r;
        x->stdin_sent += size;
        x->stdin_is_last |= is_last;
        return 0;
}

int local_exec_write(struct exec *base, struct call *c, const void *data, size_t size, bool is_last)
{
        struct local_exec *x = local_exec(base);
        struct local_box *b = local_box(base->box);
        int r;

        mutex_lock(&b->lock);
        if (x->is_ended || x->stdin_is_last)
                r = -EPIPE;
        else if (x->is_attached)
                r = -EAGAIN; /* where it goes on isn't known yet: after stdin_taken */
        else
                r = write_locked(b, x, data, size, is_last);
        mutex_unlock(&b->lock);
        return r < 0 ? call_fail_errno(c, r, "stdin") : 0;
}

int local_exec_signal(struct exec *base, struct call *c, int signal)
{
        const struct local_exec *x = local_exec(base);
        struct local_box *b = local_box(base->box);
        const struct proto_msg m = {.type = PROTO_SIGNAL,
                                    .signal = {.number = x->number, .signal = (uint32_t)signal}};
        int r;

        if (signal < 1 || signal > 64)
                return call_fail(c, -EINVAL, "signal %d", signal);
        mutex_lock(&b->lock);
        r = x->is_ended ? -ESRCH : conn_send_locked(b, &m, -1);
        mutex_unlock(&b->lock);
        return r < 0 ? call_fail_errno(c, r, "signal") : 0;
}

void local_exec_release(struct exec *base)
{
        struct local_exec *x = local_exec(base);
        struct local_box *b = local_box(base->box);

        mutex_lock(&b->lock);
        no_longer_locked(b, x);
        send_about_locked(b, x->is_ended ? PROTO_FORGET : PROTO_DETACH, x->number);
        mutex_unlock(&b->lock);
        free(x);
}
