/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many small files: one tar stream is unpacked in a directory of a temporary name, with modes and
 * times, to DIR/NAME, DIR a number for each directory that they are for; one mv a directory brings
 * them there, and those that stayed behind go one by one, to know why. The directories among the
 * changes are made before.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/posix/place.h"
#include "providers/quote.h"
#include "providers/shell/forms_change.h"
#include "transport/archive/tar.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"
#include "transport/base/clock.h"
#include "transport/base/random.h"

struct storing {
        const struct forms *forms;
        struct call *call;
        struct change *changes;
        size_t count;
        size_t *dirs; /* of each: the first of the changes that is for the same directory */
        char stage[sizeof(PLACE_TEMP) + RANDOM_ID_SIZE];
        char token[SHELL_TOKEN_SIZE];
        struct shell_source source;
        struct shell_pipe *pipe;
        struct tar_out tar;
        struct shell_sink sink;
        struct buf out;
};

bool store_is_small(const struct change *x)
{
        return x->kind == CHANGE_STORE && x->extent_count == 0 && x->from &&
               x->from->size <= STORE_SMALL && !(x->what & (FILE_SET_ATIME | FILE_SET_SIZE)) &&
               (!(x->what & FILE_SET_MTIME) || x->mtime.tv_sec >= 0);
}

static bool is_dir(const struct change *x)
{
        return x->kind == CHANGE_MKDIR;
}

static const char *name_of(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

static bool is_for_same(const char *a, const char *b)
{
        size_t n = (size_t)(name_of(a) - a);

        return n == (size_t)(name_of(b) - b) && memcmp(a, b, n) == 0;
}

static void find_dirs(struct storing *s)
{
        for (size_t i = 0; i < s->count; i++) {
                s->dirs[i] = i;
                for (size_t k = 0; k < i && s->dirs[i] == i; k++) {
                        if (!is_dir(&s->changes[k]) && s->dirs[k] == k &&
                            is_for_same(s->changes[i].path, s->changes[k].path))
                                s->dirs[i] = k;
                }
        }
}

/* ---- the stream ---- */

static int on_bytes(struct tar_out *to, const void *data, size_t size)
{
        struct shell_pipe *pipe = container_of(to, struct storing, tar)->pipe;

        return pipe->send(pipe, data, size);
}

static int add_file(struct storing *s, struct tar_writer *to, size_t at, void *data)
{
        struct change *x = &s->changes[at];
        _cleanup_(freep) char *name = NULL;
        struct tar_entry e = {.mode = x->mode & 07777, .size = x->from->size};
        int r = e.size > 0 ? x->from->read(x->from, data, (size_t)e.size, 0) : 0;

        if (r < 0) { /* not sent: that is its result */
                x->error = r;
                return 0;
        }
        if (asprintf(&name, "%zu/%s", s->dirs[at], name_of(x->path)) < 0)
                return -ENOMEM;
        e.name = name;
        e.mtime = x->what & FILE_SET_MTIME ? x->mtime : clock_timespec(clock_real_ns());
        r = tar_add(to, &e);
        return r == 0 ? tar_write(to, data, (size_t)e.size) : r;
}

static int on_feed(struct shell_source *source, struct shell_pipe *pipe)
{
        struct storing *s = container_of(source, struct storing, source);
        _cleanup_(freep) void *data = malloc(STORE_SMALL);
        struct tar_writer *to;
        int r;

        s->pipe = pipe;
        r = data ? tar_writer_new(&s->tar, &to) : -ENOMEM;
        if (r < 0)
                return r;
        for (size_t i = 0; r == 0 && i < s->count; i++) {
                if (!is_dir(&s->changes[i]))
                        r = add_file(s, to, i, data);
        }
        if (r == 0)
                r = tar_finish(to);
        tar_writer_free(to);
        return r;
}

static int on_answer(struct shell_sink *to, const void *data, size_t size)
{
        return buf_add(&container_of(to, struct storing, sink)->out, data, size);
}

/* ---- the script ---- */

static int add_staged(struct buf *to, const struct storing *s, size_t at)
{
        _cleanup_(freep) char *path = NULL;

        if (asprintf(&path, "%s/%zu/%s", s->stage, s->dirs[at], name_of(s->changes[at].path)) < 0)
                return -ENOMEM;
        return forms_add_path(to, path);
}

/* All for one directory, by one mv. */
static int add_moves(struct buf *to, const struct storing *s, size_t first)
{
        const char *path = s->changes[first].path;
        _cleanup_(freep) char *dir = strndup(path, (size_t)(name_of(path) - path));
        int r = dir ? buf_add_str(to, "mv -f --") : -ENOMEM;

        for (size_t i = first; r == 0 && i < s->count; i++) {
                if (is_dir(&s->changes[i]) || s->dirs[i] != first ||
                    (s->changes[i].flags & CHANGE_EXCLUSIVE))
                        continue;
                r = buf_add_char(to, ' ');
                if (r == 0)
                        r = add_staged(to, s, i);
        }
        if (r == 0)
                r = quote_addf(to, " ./%s 2>/dev/null\n", dir);
        return r;
}

/* One that stayed behind, or must be new. */
static int add_rest(struct buf *to, const struct storing *s, size_t at)
{
        struct change *x = &s->changes[at];
        _cleanup_(freep) char *staged = NULL;
        int r;

        if (asprintf(&staged, "%s/%zu/%s", s->stage, s->dirs[at], name_of(x->path)) < 0)
                return -ENOMEM;
        r = buf_add_str(to, "if t ");
        if (r == 0)
                r = forms_add_path(to, staged);
        if (r == 0)
                r = buf_add_str(to, "; then ");
        if (r == 0)
                r = change_begin(to);
        if (r == 0)
                r = change_add_move(to, s->forms, staged, x->path, !(x->flags & CHANGE_EXCLUSIVE));
        if (r == 0)
                r = change_end(to, s->forms, at, NULL, s->token);
        return r == 0 ? buf_addf(to, "else echo '%zu 0 '; fi\n", at) : r;
}

static int add_script(struct buf *to, const struct storing *s)
{
        int r = buf_addf(to, "printf '\\n%s\\n'\n( ", s->token);

        if (r == 0)
                r = quote_addf(to, "cd %s && {\n", s->forms->root);
        if (r == 0)
                r = change_functions(to);
        if (r == 0)
                r = buf_add_str(to, "if [ $r = 0 ]; then\n");
        for (size_t i = 0; r == 0 && i < s->count; i++) {
                if (!is_dir(&s->changes[i]) && s->dirs[i] == i)
                        r = add_moves(to, s, i);
        }
        for (size_t i = 0; r == 0 && i < s->count; i++) {
                if (!is_dir(&s->changes[i]))
                        r = add_rest(to, s, i);
        }
        if (r == 0)
                r = buf_add_str(to, "fi\n");
        if (r == 0)
                r = quote_addf(to, "rm -rf ./%s\n}; true )\n", s->stage);
        return r;
}

/* ---- all of it ---- */

static int take_answer(struct storing *s, const int *here)
{
        char mark[SHELL_TOKEN_SIZE + 3];
        const char *text = buf_str(&s->out), *at;
        size_t from;
        int r, error;

        (void)snprintf(mark, sizeof(mark), "\n%s\n", s->token);
        at = memmem(text, s->out.size, mark, strlen(mark));
        if (!at)
                return call_fail(s->call, -EPROTO, "the shell in the sandbox said what can't be");
        error = say_errno(text, (size_t)(at - text));
        from = (size_t)(at - text) + strlen(mark);
        for (size_t i = 0; i < s->count; i++) {
                if (!is_dir(&s->changes[i]))
                        s->changes[i].error = error; /* unless it is told */
        }
        r = change_take(s->call, &s->out, from, s->token, s->changes, s->count);
        for (size_t i = 0; r == 0 && i < s->count; i++) {
                if (here[i] < 0)
                        s->changes[i].error = here[i];
        }
        return r;
}

static int run(struct storing *s)
{
        _cleanup_(buf_done) struct buf taker = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(freep) int *here = calloc(s->count + 1, sizeof(*here));
        struct shell_runner *by = s->forms->by;
        int r = here ? quote_addf(&taker,
                                  "{ cd %s && mkdir -m 0700 ./%s && cd ./%s && tar -xpof -; } 2>&1",
                                  s->forms->root, s->stage, s->stage)
                     : -ENOMEM;

        for (size_t i = 0; i < s->count; i++) {
                if (!is_dir(&s->changes[i]))
                        s->changes[i].error = 0;
        }
        if (r == 0)
                r = add_script(&script, s);
        if (r == 0)
                r = by->run_stream(by, s->call, buf_str(&taker), buf_str(&script), &s->source,
                                   &s->sink);
        for (size_t i = 0; here && i < s->count; i++) {
                if (is_dir(&s->changes[i]))
                        continue;
                here[i] = r < 0 ? 0 : s->changes[i].error;
                s->changes[i].error = -EINPROGRESS;
        }
        return r < 0 ? r : take_answer(s, here);
}

static bool has_files(const struct change *changes, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                if (!is_dir(&changes[i]))
                        return true;
        }
        return false;
}

/* What the files are now. */
static void look_at_all(const struct forms *f, struct call *c, struct change *changes, size_t count)
{
        _cleanup_(freep) const char **paths = calloc(count + 1, sizeof(*paths));
        _cleanup_(freep) struct stat *stats = calloc(count + 1, sizeof(*stats));
        _cleanup_(freep) int *errors = calloc(count + 1, sizeof(*errors));
        struct call quiet;

        if (!paths || !stats || !errors)
                return;
        for (size_t i = 0; i < count; i++)
                paths[i] = changes[i].path;
        call_init(&quiet, c->deadline_ns); /* what was done is done */
        if (forms_stat_all(f, &quiet, paths, count, stats, errors) < 0)
                return;
        for (size_t i = 0; i < count; i++) {
                struct change *x = &changes[i];

                if (is_dir(x) || x->error != 0 || errors[i] != 0)
                        continue;
                x->st = stats[i];
                x->has_st = (uint64_t)x->st.st_size == x->from->size; /* else somebody was there */
        }
}

/* Where tar could not, or there was no room: one by one, each with its own reason. */
static int store_each(const struct forms *f, struct call *c, struct change *changes, size_t count)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < count; i++) {
                if (!is_dir(&changes[i]) && changes[i].error != 0)
                        r = write_one(f, c, &changes[i]);
        }
        return r;
}

int store_many(const struct forms *f, struct call *c, struct change *changes, size_t count)
{
        struct storing s = {.forms = f,
                            .call = c,
                            .changes = changes,
                            .count = count,
                            .dirs = calloc(count + 1, sizeof(*s.dirs)),
                            .source.feed = on_feed,
                            .tar.data = on_bytes,
                            .sink.data = on_answer,
                            .out = BUF_INIT(FORMS_ANSWER_MAX)};
        char id[RANDOM_ID_SIZE];
        int r = s.dirs ? random_id(id) : -ENOMEM;
        bool has_dirs = false;

        for (size_t i = 0; i < count; i++)
                has_dirs |= is_dir(&changes[i]);
        if (r == 0)
                r = shell_token(s.token);
        if (r == 0 && has_dirs)
                r = change_names(f, c, changes, count, is_dir);
        if (r == 0 && has_files(changes, count)) {
                (void)snprintf(s.stage, sizeof(s.stage), PLACE_TEMP "%s", id);
                find_dirs(&s);
                r = run(&s);
                if (r == 0)
                        look_at_all(f, c, changes, count);
                if (r == 0)
                        r = store_each(f, c, changes, count);
        }
        free(s.dirs);
        buf_done(&s.out);
        return r;
}
