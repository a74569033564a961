/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content of small files as one tar stream, which the host's tar unpacks to their temporary names:
 * one round trip and one process there for all of a window, times with their nanoseconds. Where
 * tar can't, whatever the reason, it leaves nothing, and SFTP does the same and knows why.
 *
 * A window of a few files and nothing else is finished by the same script: mv and find, one round
 * trip in all. What mv could not do is tried again by SFTP, which says why.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/ssh/files_window.h"
#include "transport/archive/tar.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"
#include "transport/base/random.h"

#define FEW_MIN ((size_t)2) /* files whose names the shell gives: each is a process there, */
#define FEW_MAX ((size_t)24)
#define FEW_NS (2 * NS_PER_MS) /* one more for so much of the way that is saved twice */
#define SCRIPT_MAX ((size_t)1 << 20)
#define OUT_MAX (FEW_MAX * (PATH_BYTES_MAX + 1024))
#define ID_HEAD (RANDOM_ID_SIZE - 1 - 6) /* of a temporary name; then six digits */

/* What is sent, and what was answered. */
struct bulk {
        struct window *w;
        struct shell_source source;
        struct shell_sink sink;
        struct tar_out out; /* of the stream, while it is fed */
        struct shell_pipe *pipe;
        unsigned char *data; /* one file's */
        struct buf answer;
        bool is_few;
        bool has_ns; /* tar keeps them */
        bool has_failed; /* content could not be had here */
};

/* ---- which ---- */

bool bulk_can(const struct window *w, const struct change *x)
{
        const unsigned wrong = FILE_SET_ATIME | FILE_SET_SIZE;

        return w->spot->has_tar && !w->is_beside && x->kind == CHANGE_STORE && x->from &&
               x->extent_count == 0 && x->from->size <= BULK_FILE_BYTES &&
               (x->what & FILE_SET_MTIME) && (x->what & wrong) == 0 && x->mtime.tv_sec >= 0 &&
               x->mtime.tv_sec <= UINT32_MAX && x->mtime.tv_nsec >= 0 &&
               x->mtime.tv_nsec <= 999999999;
}

char *bulk_temp(struct window *w)
{
        char *temp;

        if (!w->bulk_id[0] && random_id(w->bulk_id) < 0)
                return NULL;
        return asprintf(&temp, "%s/" PLACE_TEMP "%.*s%06zu", w->spot->paths->dir, (int)ID_HEAD,
                        w->bulk_id, w->bulk_count) < 0
                       ? NULL
                       : temp;
}

static bool is_named_twice(const struct window *w, size_t at)
{
        for (size_t i = 0; i < at; i++) {
                if (strcmp(w->items[i].x->path, w->items[at].x->path) == 0)
                        return true;
        }
        return false;
}

/* Whether the shell may give the names, too: what comes of it depends on nothing else here. */
static bool has_few(const struct window *w)
{
        size_t few = FEW_MIN + (size_t)(files_round_trip(w->spot->box) / FEW_NS);
        bool is_few =
                w->spot->has_find && w->spot->has_mv && w->count <= (few < FEW_MAX ? few : FEW_MAX);

        for (size_t i = 0; is_few && i < w->count; i++) {
                const struct window_item *at = &w->items[i];

                is_few = at->is_bulk && at->error > 0 && !(at->x->flags & CHANGE_EXCLUSIVE) &&
                         !is_named_twice(w, i);
        }
        return is_few;
}

/* ---- the stream ---- */

static int on_bytes(struct tar_out *to, const void *data, size_t size)
{
        struct shell_pipe *pipe = container_of(to, struct bulk, out)->pipe;

        return pipe->send(pipe, data, size);
}

static int add_file(struct bulk *b, struct tar_writer *to, const struct window_item *i)
{
        const struct change *x = i->x;
        const struct tar_entry e = {.name = strrchr(i->temp, '/') + 1,
                                    .mode = x->mode & 07777,
                                    .mtime = x->mtime,
                                    .size = x->from->size};
        int r = e.size > 0 ? x->from->read(x->from, b->data, (size_t)e.size, 0) : 0;

        if (r < 0) {
                b->has_failed = true;
                return r;
        }
        r = tar_add(to, &e);
        return r == 0 ? tar_write(to, b->data, (size_t)e.size) : r;
}

static int on_feed(struct shell_source *from, struct shell_pipe *pipe)
{
        struct bulk *b = container_of(from, struct bulk, source);
        struct window *w = b->w;
        struct tar_writer *to;
        int r;

        b->pipe = pipe;
        r = tar_writer_new(&b->out, &to);
        if (r < 0)
                return r;
        for (size_t i = 0; r == 0 && i < w->count; i++) {
                if (w->items[i].is_bulk && w->items[i].error > 0)
                        r = add_file(b, to, &w->items[i]);
        }
        if (r == 0)
                r = tar_finish(to);
        tar_writer_free(to);
        return r;
}

/* ---- the script ---- */

/* Each moved, and then told, by its absolute name: nothing else follows in the helper's shell. */
static int add_names(struct buf *to, const struct window *w)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < w->count; i++) {
                r = quote_addf(to, "mv -fT -- %s %s 2>/dev/null && printf 1 || printf 0\n",
                               w->items[i].temp, w->items[i].path);
        }
        if (r == 0)
                r = buf_add_str(to, "printf '\\n'\nfind");
        for (size_t i = 0; r == 0 && i < w->count; i++)
                r = quote_addf(to, " %s", w->items[i].path);
        return r == 0 ? buf_addf(to, " -maxdepth 0 %s 2>/dev/null\n", find_print_given) : r;
}

/* First a line: what tar it was, or that it failed and left nothing. */
static int add_script(struct buf *to, const struct bulk *b)
{
        int r = quote_addf(to, "if [ $r != 0 ]; then rm -f %s/", b->w->spot->paths->dir);

        if (r == 0)
                r = buf_addf(to, PLACE_TEMP "%.*s*; echo failed\nelse\necho \"$v\"\n", (int)ID_HEAD,
                             b->w->bulk_id);
        if (r == 0 && b->is_few)
                r = buf_add_str(to, "if [ \"$v\" = ns ]; then\n");
        if (r == 0 && b->is_few)
                r = add_names(to, b->w);
        if (r == 0 && b->is_few)
                r = buf_add_str(to, "fi\n");
        return r == 0 ? buf_add_str(to, "fi\n") : r;
}

static int on_answer(struct shell_sink *to, const void *data, size_t size)
{
        return buf_add(&container_of(to, struct bulk, sink)->answer, data, size);
}

/* ---- the answer ---- */

/* Files as find names them, in the order of the items. */
struct told {
        struct window *w;
        size_t next;
};

static int on_found(void *ctx, const struct found *f)
{
        struct told *t = ctx;

        while (t->next < t->w->count) {
                struct window_item *i = &t->w->items[t->next++];
                struct change *x = i->x;

                if (strcmp(f->path, i->path) != 0)
                        continue;
                x->has_st = i->is_moved && is_as_stored(x, &f->st);
                if (x->has_st)
                        x->st = f->st;
                return 0;
        }
        return -EPROTO;
}

/* A digit for each, then what find says. */
static void take_names(struct bulk *b, const char *text, size_t size)
{
        struct window *w = b->w;
        struct told told = {.w = w};
        struct find_parser parser = {.pending = BUF_INIT(FIND_PENDING_MAX),
                                     .is_given = true,
                                     .entry = on_found,
                                     .ctx = &told};

        if (size <= w->count || text[w->count] != '\n')
                return; /* it didn't try: they have their temporary names */
        for (size_t i = 0; i < w->count; i++)
                w->items[i].is_moved = w->items[i].is_done = text[i] == '1';
        /* Attributes that can't be read are not told. */
        (void)find_parse(&parser, text + w->count + 1, size - w->count - 1);
        buf_done(&parser.pending);
}

static void take_answer(struct bulk *b)
{
        const char *text = buf_str(&b->answer);
        size_t n = strcspn(text, "\n");

        b->has_ns = n == 2 && memcmp(text, "ns", 2) == 0;
        if (!b->has_ns && !(n == 1 && text[0] == 's'))
                return; /* it failed */
        for (size_t i = 0; i < b->w->count; i++) {
                struct window_item *at = &b->w->items[i];

                if (!at->is_bulk || at->error <= 0)
                        continue;
                at->is_filled = true;
                at->has_ns = b->has_ns;
        }
        if (b->is_few && text[n])
                take_names(b, text + n + 1, b->answer.size - n - 1);
}

/* Nothing was done, or undone: SFTP may try. */
static bool is_undone(const struct bulk *b, int r)
{
        return b->has_failed || r == -EAGAIN || r == -EOPNOTSUPP || r == -EMFILE || r == -ENOMEM;
}

/*
 * The shell there has ended, and not our connection: what it was doing may have been done in part,
 * which changes nothing of what SFTP does, by other names.
 */
static int rename_temps(struct window *w)
{
        size_t count = w->bulk_count;

        w->bulk_id[0] = '\0';
        w->bulk_count = 0;
        for (size_t i = 0; i < w->count; i++) {
                struct window_item *at = &w->items[i];
                char *temp;

                if (!at->is_bulk || !at->temp)
                        continue;
                temp = bulk_temp(w);
                if (!temp)
                        return -ENOMEM;
                left_add(w->spot->box, false, at->temp);
                free(at->temp);
                at->temp = temp;
                w->bulk_count++;
        }
        w->bulk_count = count;
        return 0;
}

static int run(struct bulk *b)
{
        struct window *w = b->w;
        _cleanup_(buf_done) struct buf taker = BUF_INIT(SCRIPT_MAX), script = BUF_INIT(SCRIPT_MAX);
        char sentence[256] = "";
        int lost, r;

        r = quote_addf(&taker, "[ \"$v\" ] && cd %s && exec tar -xpof - 2>/dev/null",
                       w->spot->paths->dir);
        if (r == 0)
                r = add_script(&script, b);
        if (r == 0)
                r = shell_run_stream(w->spot->box->host->shell, w->call, buf_str(&taker),
                                     buf_str(&script), &b->source, &b->sink);
        if (r == 0) {
                take_answer(b);
                return 0;
        }
        if (r == -EINTR || r == -ETIMEDOUT)
                return r;
        lost = sftp_error(w->spot->sftp, sentence, sizeof(sentence));
        if (lost < 0) /* why that ended says more than what the shell met */
                return call_fail(w->call, lost, "%s", sentence);
        w->call->sentence[0] = '\0';
        return is_undone(b, r) ? 0 : rename_temps(w);
}

int bulk_fill(struct window *w)
{
        struct bulk b = {.w = w,
                         .source.feed = on_feed,
                         .sink.data = on_answer,
                         .out.data = on_bytes,
                         .answer = BUF_INIT(OUT_MAX)};
        int r;

        if (w->bulk_count == 0)
                return 0;
        b.is_few = has_few(w);
        b.data = malloc(BULK_FILE_BYTES);
        r = b.data ? run(&b) : 0;
        free(b.data);
        buf_done(&b.answer);
        return r;
}
