/* SPDX-License-Identifier: Apache-2.0 */
/* One script a call; see scripts.h. */

#include "providers/remote/scripts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/shell/runner.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/random.h"
#include "transport/ssh/base64.h"

#define ARGS_MAX 8
#define PIECE ((size_t)24 << 10) /* of a script or a stream, in one command line */
#define PIECES_MAX 100000
#define PROGRESS_NS (10 * NS_PER_S)
#define ANSWER_MAX ((size_t)96 << 20)

int scripts_dir(char ret[SCRIPTS_DIR_SIZE])
{
        char mark[RANDOM_ID_SIZE];
        int r = random_id(mark);

        if (r == 0)
                (void)snprintf(ret, SCRIPTS_DIR_SIZE, "/tmp/.sbxfs-%s", mark);
        return r;
}

int scripts_run(struct remote_box *b, struct call *c, const char *user, const char *script,
                const char *const *args, struct buf *out)
{
        const char *argv[ARGS_MAX + 5] = {"sh", "-c", script, "sh"};
        const struct remote_program p = {.argv = argv, .cwd = "/", .env = {{"LC_ALL", "C"}}};
        struct remote_place place;
        int code = 0, r = remote_place(b, c, &place);

        for (size_t i = 0; i < ARGS_MAX && args[i]; i++)
                argv[4 + i] = args[i];
        if (r == 0)
                r = b->remote->ops->run(b, c, user ? user : place.user, &p, out, &code);
        if (r == 0 && code != 0)
                r = call_wrap(c, -EIO, "a script in the sandbox ended with code %d", code);
        return r;
}

/* ---- pieces, each a file ---- */

static int put_piece(struct remote_box *b, struct call *c, const char *dir, unsigned number,
                     const void *data, size_t size)
{
        static const char script[] =
                "umask 077; mkdir -p \"$1\" && printf %s \"$3\" | base64 -d >\"$1/$2\"";
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(2 * PIECE);
        char name[16];
        int r = base64_encode(&text, data, size);

        if (r < 0)
                return r;
        (void)snprintf(name, sizeof(name), "%06u", number); /* they sort */
        const char *const args[] = {dir, name, buf_str(&text), NULL};

        r = scripts_run(b, c, NULL, script, args, NULL);
        if (r == 0 && c->deadline_ns < clock_after(PROGRESS_NS))
                c->deadline_ns = clock_after(PROGRESS_NS); /* it goes on */
        return r;
}

static int put_text(struct remote_box *b, struct call *c, const char *dir, const char *text)
{
        size_t size = strlen(text), at = 0;
        int r = 0;

        for (unsigned i = 0; r == 0 && at < size; i++, at += PIECE)
                r = put_piece(b, c, dir, i, text + at, size - at < PIECE ? size - at : PIECE);
        return r;
}

/* ---- a script and its answer ---- */

/* What it printed, base64, then "=CODE". */
static int take_answer(struct call *c, const struct buf *said, struct shell_sink *to, int *ret_code)
{
        _cleanup_(buf_done) struct buf bytes = BUF_INIT(ANSWER_MAX);
        const char *text = buf_str(said), *end = strrchr(text, '=');
        int r;

        if (!end || (end != text && end[-1] != '\n'))
                return call_fail(c, -EPROTO, "a script in the sandbox has not said how it ended");
        *ret_code = atoi(end + 1);
        r = base64_decode(&bytes, text, (size_t)(end - text));
        if (r == -EINVAL)
                return call_fail(c, -EPROTO, "a script in the sandbox said what can't be");
        if (r == 0 && bytes.size > 0)
                r = to->data(to, bytes.data, bytes.size);
        return r;
}

/* What `t` holds is run, as a helper shell would. */
#define RUN_T                                                                                       \
        "command -v base64 >/dev/null || exit 127\n"                                                \
        "{ r=$( { { ( eval \"$t\" ) </dev/null 2>/dev/null; echo $? >&3; } | base64 >&4; } 3>&1 );" \
        " } 4>&1\n"                                                                                 \
        "echo \"=$r\"\n"

static int run(struct shell_runner *by, struct call *c, const char *script, struct shell_sink *to,
               int *ret_code)
{
        static const char inline_script[] =
                "t=$(printf %s \"$1\" | base64 -d; echo x); t=${t%x}\n" RUN_T;
        static const char of_pieces[] =
                "t=$(cat \"$1\"/*; echo x); t=${t%x}\n" RUN_T "rm -rf \"$1\"\n";
        struct remote_box *b = container_of(by, struct remote_box, by_scripts);
        _cleanup_(buf_done) struct buf text = BUF_INIT(2 * PIECE), said = BUF_INIT(2 * ANSWER_MAX);
        const char *args[] = {NULL, NULL};
        char dir[SCRIPTS_DIR_SIZE];
        bool is_long = strlen(script) > PIECE;
        int r = is_long ? scripts_dir(dir) : base64_encode(&text, script, strlen(script));

        if (r == 0 && is_long)
                r = put_text(b, c, dir, script);
        if (r < 0)
                return r;
        args[0] = is_long ? dir : buf_str(&text);
        r = scripts_run(b, c, NULL, is_long ? of_pieces : inline_script, args, &said);
        return r < 0 ? r : take_answer(c, &said, to, ret_code);
}

/* ---- a stream ---- */

struct collected {
        struct shell_pipe pipe;
        struct remote_box *b;
        struct call *call;
        struct buf piece;
        unsigned count;
        int error;
        char dir[SCRIPTS_DIR_SIZE];
};

static int send_piece(struct collected *x)
{
        if (x->error == 0 && x->count >= PIECES_MAX)
                x->error = -EFBIG;
        if (x->error == 0)
                x->error =
                        put_piece(x->b, x->call, x->dir, x->count++, x->piece.data, x->piece.size);
        buf_clear(&x->piece);
        return x->error;
}

static int collect(struct shell_pipe *pipe, const void *data, size_t size)
{
        struct collected *x = container_of(pipe, struct collected, pipe);
        const char *at = data;

        while (size > 0 && x->error == 0) {
                size_t room = PIECE - x->piece.size, n = size < room ? size : room;

                x->error = buf_add(&x->piece, at, n);
                at += n;
                size -= n;
                if (x->error == 0 && x->piece.size == PIECE)
                        (void)send_piece(x);
        }
        return x->error;
}

static int finish_stream(struct collected *x, const char *taker, const char *script, bool is_whole,
                         struct shell_sink *to)
{
        _cleanup_(buf_done) struct buf all = BUF_INIT((size_t)8 << 20);
        int code = 0;
        int r = buf_addf(&all,
                         "cat %s/* | { ( %s\n); q=$?; cat >/dev/null; exit $q; }; r=$?\n%s%s\n"
                         "rm -rf %s\n",
                         x->dir, taker, is_whole ? "" : "r=1\n", script, x->dir);

        return r < 0 ? r : run(&x->b->by_scripts, x->call, buf_str(&all), to, &code);
}

static int run_stream(struct shell_runner *by, struct call *c, const char *taker,
                      const char *script, struct shell_source *from, struct shell_sink *to)
{
        struct collected x = {.pipe.send = collect,
                              .b = container_of(by, struct remote_box, by_scripts),
                              .call = c,
                              .piece = BUF_INIT(PIECE)};
        int fed, r = scripts_dir(x.dir);

        if (r < 0)
                return r;
        fed = from->feed(from, &x.pipe);
        if (x.piece.size > 0 && x.error == 0)
                (void)send_piece(&x);
        buf_done(&x.piece);
        if (x.error < 0)
                return x.error;
        r = finish_stream(&x, taker, script, fed == 0, to);
        return r < 0 ? r : fed;
}

void scripts_runner_init(struct shell_runner *by)
{
        *by = (struct shell_runner){run, run_stream};
}
