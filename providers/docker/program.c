/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Docker exec as a stream: made, started with the connection upgraded to raw bytes, its two
 * outputs taken apart.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "providers/docker/box.h"
#include "providers/docker/engine.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/json.h"
#include "transport/http/mux.h"
#include "transport/http/url.h"

#define BODY_MAX ((size_t)1 << 20)
#define ID_MAX 128
#define PID_TRIES 20

struct program {
        struct stream base;
        struct stream *raw; /* set before anybody else has us */
        struct stream_events to;
        struct frames frames; /* events only */
        bool is_broken; /* events only: no more of it is handed on */
        char id[ID_MAX]; /* of the exec; fixed */
};

/* ---- the stream ---- */

static struct program *program_of(struct stream *s)
{
        return container_of(s, struct program, base);
}

static int send(struct stream *s, const void *data, size_t size)
{
        return stream_send(program_of(s)->raw, data, size);
}

static int send_eof(struct stream *s)
{
        return stream_send_eof(program_of(s)->raw);
}

static size_t queued(struct stream *s)
{
        return stream_queued(program_of(s)->raw);
}

static void close_program(struct stream *s)
{
        struct program *p = program_of(s);

        stream_close(p->raw);
        free(p);
}

static const struct stream_ops program_ops = {send, send_eof, queued, close_program};

static int on_part(void *ctx, enum mux_output which, const void *data, size_t size)
{
        struct program *p = ctx;

        p->to.data(p->to.ctx, which != MUX_STDOUT, data, size);
        return 0;
}

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct program *p = ctx;
        struct stream_end end = {.error = -EPROTO,
                                 .sentence = "the engine's stream is not what it should be"};

        (void)is_stderr; /* it is one */
        if (p->is_broken || frames_feed(&p->frames, data, size) == 0)
                return;
        p->is_broken = true;
        p->to.end(p->to.ctx, &end);
}

static void on_drained(void *ctx)
{
        struct program *p = ctx;

        if (p->to.drained)
                p->to.drained(p->to.ctx);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct program *p = ctx;

        if (!p->is_broken)
                p->to.end(p->to.ctx, end);
}

/* ---- made and started ---- */

static int add_words(struct buf *to, const char *const *argv)
{
        int r = 0;

        for (size_t i = 0; r == 0 && argv[i]; i++) {
                r = buf_add_str(to, i > 0 ? "," : "");
                if (r == 0)
                        r = json_add_string(to, argv[i]);
        }
        return r;
}

static int add_member(struct buf *to, const char *key, const char *value)
{
        int r = value && *value ? buf_addf(to, ",\"%s\":", key) : 0;

        return r == 0 && value && *value ? json_add_string(to, value) : r;
}

static int body_of_exec(const char *const *argv, const char *user, const char *workdir,
                        bool has_streams, struct buf *to)
{
        const char *flag = has_streams ? "true" : "false";
        int r = buf_addf(to,
                         "{\"AttachStdin\":%s,\"AttachStdout\":%s,\"AttachStderr\":%s,"
                         "\"Tty\":false,\"Cmd\":[",
                         flag, flag, flag);

        if (r == 0)
                r = add_words(to, argv);
        if (r == 0)
                r = buf_add_str(to, "]");
        if (r == 0)
                r = add_member(to, "User", user);
        if (r == 0)
                r = add_member(to, "WorkingDir", workdir);
        return r == 0 ? buf_add_str(to, "}") : r;
}

/* 409: it is paused, or not running. */
static int refused(struct docker_box *b, struct call *c, int r, unsigned status)
{
        if (status == 404)
                return box_missing(b, c, r, status);
        if (status == 409) {
                docker_box_missed(b);
                return call_wrap(c, -EHOSTDOWN, "the sandbox doesn't run");
        }
        return r;
}

/* The id of a new exec. */
static int make(struct docker_box *b, struct call *c, const struct buf *body, char ret[ID_MAX])
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        _cleanup_(json_freep) struct json *j = NULL;
        /* What was made and never started is nothing: it may be made twice. */
        const struct engine_ask ask = {.method = "POST",
                                       .path = &path,
                                       .data = body->data,
                                       .size = body->size,
                                       .is_idempotent = true};
        const char *id;
        int r = box_path(b, &path, "/exec");

        if (r == 0)
                r = engine_ask(b->docker->engine, c, &ask, &reply, &j);
        if (r < 0)
                return refused(b, c, r, reply.status);
        id = json_string(json_get(j, "Id"));
        if (!id || !*id || strlen(id) >= ID_MAX || id[strspn(id, "0123456789abcdefABCDEF")] != '\0')
                return call_fail(c, -EPROTO, "the engine gave no id for an exec");
        (void)snprintf(ret, ID_MAX, "%s", id); /* it fits */
        return 0;
}

static int start_path(struct docker_box *b, struct call *c, const char *id, struct buf *to)
{
        char prefix[16];
        int r = engine_prefix(b->docker->engine, c, prefix);

        if (r == 0)
                r = url_add(to, prefix);
        if (r == 0)
                r = url_add(to, "/exec");
        if (r == 0)
                r = url_add_segment(to, id);
        return r == 0 ? url_add(to, "/start") : r;
}

int program_open(struct docker_box *b, struct http *on, struct call *c, const char *const *argv,
                 const char *user, const char *workdir, const struct stream_events *events,
                 struct stream **ret)
{
        static const char start[] = "{\"Detach\":false,\"Tty\":false}";
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf body = BUF_INIT(BODY_MAX), path = BUF_INIT(HTTP_PATH_MAX);
        struct http_request q = {.method = "POST", .data = start, .size = sizeof(start) - 1};
        struct program *p;
        char id[ID_MAX] = "";
        int r = body_of_exec(argv, user, workdir, true, &body);

        if (r == 0)
                r = make(b, c, &body, id);
        if (r == 0)
                r = start_path(b, c, id, &path);
        if (r < 0)
                return c->sentence[0] ? r : call_fail_errno(c, r, "a program in the container");
        q.path = buf_str(&path);
        p = calloc(1, sizeof(*p));
        if (!p)
                return call_fail(c, -ENOMEM, "out of memory");
        p->base.ops = &program_ops;
        memcpy(p->id, id, sizeof(id));
        p->to = *events;
        p->frames = FRAMES_INIT(on_part, p);
        r = http_upgrade(on, c, &q, "tcp", &(struct stream_events){on_data, on_drained, on_end, p},
                         &reply, &p->raw);
        if (r < 0) {
                free(p);
                return refused(b, c, r, reply.status);
        }
        *ret = &p->base;
        return 0;
}

/* 0 while the engine doesn't know it yet. */
static int ask_pid(struct docker_box *b, struct call *c, const struct buf *path, int64_t *ret)
{
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(json_freep) struct json *j = NULL;
        const struct engine_ask ask = {.path = path};
        int r = engine_ask(b->docker->engine, c, &ask, &reply, &j);

        if (r == 0 && !json_integer(json_get(j, "Pid"), ret))
                r = -EPROTO;
        return r;
}

/* What it runs may say something before the engine has heard that it is started. */
int program_pid(struct docker_box *b, struct call *c, struct stream *s, pid_t *ret)
{
        _cleanup_(buf_done) struct buf path = BUF_INIT(HTTP_PATH_MAX);
        int64_t pid = 0;
        int r = url_add(&path, "/exec");

        if (r == 0)
                r = url_add_segment(&path, program_of(s)->id);
        if (r == 0)
                r = url_add(&path, "/json");
        for (unsigned i = 0; r == 0 && pid == 0 && i < PID_TRIES; i++) {
                const struct timespec pause = {.tv_nsec = (long)(i * NS_PER_MS)};

                (void)nanosleep(&pause, NULL);
                r = ask_pid(b, c, &path, &pid);
        }
        if (r < 0)
                return r == -EINTR ? r : -EOPNOTSUPP;
        if (pid <= 1 || pid > INT32_MAX)
                return -EOPNOTSUPP;
        *ret = (pid_t)pid;
        return 0;
}

int docker_open_program(struct docker_box *b, struct call *c, const char *const *argv,
                        const char *user, const struct stream_events *events, struct stream **ret)
{
        const struct docker_facts *f = NULL;
        int r = docker_box_check_runs(b, c);

        if (r == 0)
                r = docker_box_facts(b, c, &f);
        if (r < 0 || !f)
                return r;
        return program_open(b, engine_calls(b->docker->engine), c, argv, user ? user : f->user,
                            f->workdir, events, ret);
}

int program_launch(struct docker_box *b, struct call *c, const char *const *argv, const char *user)
{
        static const char start[] = "{\"Detach\":true,\"Tty\":false}";
        _cleanup_(http_reply_done) struct http_reply reply = {0};
        _cleanup_(buf_done) struct buf body = BUF_INIT(BODY_MAX), path = BUF_INIT(HTTP_PATH_MAX);
        const struct engine_ask ask = {
                .method = "POST", .path = &path, .data = start, .size = sizeof(start) - 1};
        char id[ID_MAX] = "";
        int r = body_of_exec(argv, user, NULL, false, &body);

        if (r == 0)
                r = make(b, c, &body, id);
        if (r == 0)
                r = url_add(&path, "/exec");
        if (r == 0)
                r = url_add_segment(&path, id);
        if (r == 0)
                r = url_add(&path, "/start");
        if (r == 0)
                r = engine_ask(b->docker->engine, c, &ask, &reply, NULL);
        return r < 0 ? refused(b, c, r, reply.status) : 0;
}
