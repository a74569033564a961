/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file's content as a stream: to a temporary name beside, or in place. Where there are extents,
 * dd without a count moves the offset that it shares with those that write, and each of them takes
 * exactly its piece of the stream.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "providers/posix/place.h"
#include "providers/quote.h"
#include "providers/shell/forms_change.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"
#include "transport/base/random.h"

#define PIECE ((size_t)256 * 1024)
#define DD_MAX ((uint64_t)1 << 20) /* that one dd takes at once */

struct writing {
        const struct forms *forms;
        struct call *call;
        struct change *x;
        char *path; /* what is written to */
        struct shell_source source;
        struct shell_sink sink;
        struct buf out;
        int error; /* the content's */
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

/* ---- the stream ---- */

static int send_extent(struct writing *w, struct shell_pipe *pipe, const struct file_extent *e,
                       void *piece)
{
        struct file_source *from = w->x->from;
        int r = 0;

        for (uint64_t at = 0; r == 0 && at < e->size;) {
                size_t n = e->size - at < PIECE ? (size_t)(e->size - at) : PIECE;

                r = w->error = from->read(from, piece, n, e->offset + at);
                if (r == 0)
                        r = pipe->send(pipe, piece, n);
                at += n;
        }
        return r;
}

static int on_feed(struct shell_source *source, struct shell_pipe *pipe)
{
        struct writing *w = container_of(source, struct writing, source);
        const struct file_extent whole = {.size = w->x->from->size};
        _cleanup_(freep) void *piece = malloc(PIECE);
        int r = piece ? 0 : -ENOMEM;

        if (r == 0 && w->x->extent_count == 0)
                return send_extent(w, pipe, &whole, piece);
        for (size_t i = 0; r == 0 && i < w->x->extent_count; i++)
                r = send_extent(w, pipe, &w->x->extents[i], piece);
        return r;
}

static int on_answer(struct shell_sink *to, const void *data, size_t size)
{
        return buf_add(&container_of(to, struct writing, sink)->out, data, size);
}

/* ---- scripts ---- */

/* dd seeks from where the output is: each extent begins with its own. */
static int add_extents(struct buf *to, const struct change *x, const char *path)
{
        int r = buf_add_str(to, ":");

        for (size_t i = 0; r == 0 && i < x->extent_count; i++) {
                const struct file_extent *e = &x->extents[i];

                r = buf_addf(to, " && { dd bs=1 count=0 seek=%" PRIu64 " conv=notrunc 2>/dev/null",
                             e->offset);
                for (uint64_t at = 0; r == 0 && at < e->size; at += DD_MAX)
                        r = buf_addf(to, " && dd bs=%" PRIu64 " count=1 iflag=fullblock 2>&4",
                                     e->size - at < DD_MAX ? e->size - at : DD_MAX);
                if (r == 0)
                        r = buf_add_str(to, "; } 4>&1 1<>");
                if (r == 0)
                        r = forms_add_path(to, path);
        }
        return r;
}

/* Makes the file, or opens the one that is there, and fills it; what it says comes to the sink. */
static int add_taker(struct buf *to, const struct writing *w, bool has_content)
{
        const struct change *x = w->x;
        bool is_new = x->kind == CHANGE_STORE;
        int r = quote_addf(to, "{ cd %s && ", w->forms->root);

        if (r == 0 && !is_new) {
                r = change_functions(to);
                if (r == 0)
                        r = buf_add_str(to, "for p in ");
                if (r == 0)
                        r = forms_add_path(to, w->path);
                if (r == 0)
                        r = buf_add_str(to, "; do if d \"$p\"; then say 'Is a directory'; "
                                            "elif [ -L \"$p\" ]; then say 'Invalid argument'; "
                                            "elif t \"$p\" && ! [ -f \"$p\" ]; then "
                                            "say 'Invalid argument'; elif ! t \"$p\"; then "
                                            "stat -- \"$p\" >/dev/null; false; fi; done && ");
        }
        if (r == 0 && is_new) {
                /* by a tool: some shells have words of their own for errors */
                r = buf_add_str(to, "(umask 077; dd count=0 </dev/null of=");
                if (r == 0)
                        r = forms_add_path(to, w->path);
                if (r == 0)
                        r = buf_add_str(to, ") && ");
        }
        if (r == 0 && has_content && x->extent_count > 0) {
                r = add_extents(to, x, w->path);
        } else if (r == 0) {
                r = buf_add_str(to, has_content ? "cat >" : ": 1<>");
                if (r == 0)
                        r = forms_add_path(to, w->path);
        }
        return r == 0 ? buf_add_str(to, "; } 2>&1") : r;
}

/* What goes on when it is filled. */
static int add_finish(struct buf *to, const struct writing *w, const char *token)
{
        const struct change *x = w->x;
        bool is_new = x->kind == CHANGE_STORE;
        int r = buf_addf(to, "printf '\\n%s\\n'\n( ", token);

        if (r == 0)
                r = quote_addf(to, "cd %s && {\n", w->forms->root);
        if (r == 0)
                r = change_functions(to);
        if (r == 0)
                r = buf_add_str(to, "if [ $r = 0 ]; then\n");
        if (r == 0)
                r = change_begin(to);
        if (r == 0)
                r = buf_add_char(to, ':');
        if (r == 0)
                r = change_add_set(to, w->forms, x, w->path, is_new || (x->what & FILE_SET_MODE));
        if (r == 0 && is_new) {
                r = buf_add_str(to, " && {\n");
                if (r == 0)
                        r = change_add_move(to, w->forms, w->path, x->path,
                                            !(x->flags & CHANGE_EXCLUSIVE));
                if (r == 0)
                        r = buf_add_str(to, "\n}");
        }
        if (r == 0)
                r = change_end(to, w->forms, 0, x->path, token);
        if (r == 0)
                r = buf_add_str(to, "fi\n");
        if (r == 0 && is_new) {
                r = buf_add_str(to, "rm -f -- ");
                if (r == 0)
                        r = forms_add_path(to, w->path);
        }
        return r == 0 ? buf_add_str(to, "\n}; true )\n") : r;
}

/* ---- what came of it ---- */

static int take_answer(struct writing *w, const char *token)
{
        char mark[SHELL_TOKEN_SIZE + 3];
        const char *text = buf_str(&w->out), *at;
        size_t said;

        (void)snprintf(mark, sizeof(mark), "\n%s\n", token);
        at = memmem(text, w->out.size, mark, strlen(mark));
        if (!at)
                return call_fail(w->call, -EPROTO, "the shell in the sandbox said what can't be");
        said = (size_t)(at - text);
        w->x->error = say_errno(text, said);
        return change_take(w->call, &w->out, said + strlen(mark), token, w->x, 1);
}

/* Nothing is to be sent: one script does it all. */
static int run_empty(struct writing *w, const char *token)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        int r = buf_add_str(&script, "(\n");

        if (r == 0)
                r = add_taker(&script, w, false);
        if (r == 0)
                r = buf_add_str(&script, "\n)\nr=$?\n");
        if (r == 0)
                r = add_finish(&script, w, token);
        if (r == 0)
                r = forms_run(w->forms, w->call, &script, &w->out);
        return r < 0 ? r : take_answer(w, token);
}

static int run_stream(struct writing *w, const char *token)
{
        _cleanup_(buf_done) struct buf taker = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        struct shell_runner *by = w->forms->by;
        int r = add_taker(&taker, w, true);

        if (r == 0)
                r = add_finish(&script, w, token);
        if (r == 0)
                r = by->run_stream(by, w->call, buf_str(&taker), buf_str(&script), &w->source,
                                   &w->sink);
        if (w->error < 0) { /* it can't be had here: nothing is left there */
                w->x->error = w->error;
                return 0;
        }
        return r < 0 ? r : take_answer(w, token);
}

static char *temp_beside(const struct change *x)
{
        const char *path = x->path;
        const char *slash = strrchr(path, '/');
        char id[RANDOM_ID_SIZE], *temp;

        if (x->temp && place_is_temp(x->temp))
                return asprintf(&temp, "%.*s%s", slash ? (int)(slash + 1 - path) : 0, path,
                                x->temp) < 0
                               ? NULL
                               : temp;
        if (random_id(id) < 0 || asprintf(&temp, "%.*s%s%s", slash ? (int)(slash + 1 - path) : 0,
                                          path, PLACE_TEMP, id) < 0)
                return NULL;
        return temp;
}

int write_one(const struct forms *f, struct call *c, struct change *x)
{
        struct writing w = {.forms = f,
                            .call = c,
                            .x = x,
                            .source.feed = on_feed,
                            .sink.data = on_answer,
                            .out = BUF_INIT(FORMS_ANSWER_MAX)};
        char token[SHELL_TOKEN_SIZE];
        int r = shell_token(token);

        w.path = x->kind == CHANGE_STORE ? temp_beside(x) : strdup(x->path);
        if (!w.path)
                r = -ENOMEM;
        if (r == 0)
                r = content_size(x) > 0 ? run_stream(&w, token) : run_empty(&w, token);
        free(w.path);
        buf_done(&w.out);
        return r;
}
