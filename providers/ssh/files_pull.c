/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many small files as one tar stream of the host's: a round trip for some hundred, where SFTP takes
 * two or three. The same script then asks find what they are; a file whose ctime, mtime and size
 * are still those of its tar header is told, with all its attributes. Any other, and whatever can't
 * be had this way, is left to SFTP.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/ssh/files.h"
#include "transport/archive/tar.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/list.h"

#define MANY 8 /* files: from here on it pays, */
#define FAR_NS (20 * NS_PER_MS) /* where the way is that long: else SFTP is as fast */
#define GROUP_FILES 512
#define GROUP_BYTES ((size_t)64 * 1024) /* of their paths */
#define STREAM_MAX ((size_t)32 << 20) /* more is SFTP's */
#define SCRIPT_MAX ((size_t)1 << 20)

/* Some of the files, asked for at once. */
struct pull {
        struct spot *spot;
        const char *const *paths;
        size_t from, to; /* of the paths */
        size_t size_max;
        struct file_sink *sink;
        bool *is_told; /* by path */
        struct stat *stats; /* by path less `from`; st_mode 0: not seen */
        size_t next; /* path that find, and then tar, may tell next */
        struct buf answer;
        struct shell_sink bytes;
        const char *at; /* in the answer: of the stream, */
        size_t left;
        struct tar_source source;
        struct tar_sink files;
        int error; /* the sink's */
};

static int on_bytes(struct shell_sink *to, const void *data, size_t size)
{
        return buf_add(&container_of(to, struct pull, bytes)->answer, data, size);
}

/* ---- the script ---- */

static int add_paths(struct buf *to, const struct pull *p)
{
        int r = buf_add_str(to, "set --");

        for (size_t i = p->from; r == 0 && i < p->to; i++)
                r = quote_addf(to, " ./%s", p->paths[i]);
        return r == 0 ? buf_add_char(to, '\n') : r;
}

/*
 * tar looks only at regular files that aren't too large. The mark between its stream and what find
 * says is random: no content has it.
 */
static int add_script(struct buf *to, const struct pull *p, const char *mark)
{
        int r = quote_addf(to, "cd %s || exit\n", p->spot->paths->work);

        if (r == 0)
                r = add_paths(to, p);
        if (r == 0)
                r = buf_addf(
                        to,
                        "case $(tar --version 2>/dev/null) in *'GNU tar'*)\n"
                        "find \"$@\" -maxdepth 0 -type f -size -%zuc -print0 2>/dev/null | "
                        "tar -cf - --format=posix --hard-dereference --no-recursion --null -T - "
                        "2>/dev/null\n"
                        "printf '\\n%s\\n'\n",
                        p->size_max + 1, mark);
        if (r == 0)
                r = buf_addf(to, "find \"$@\" -maxdepth 0 %s 2>/dev/null\n;; esac\n",
                             find_print_given);
        return r;
}

/* ---- the answer ---- */

/* Which of the next paths this is, "./" before it; -1: none. */
static ssize_t find_path(struct pull *p, const char *path)
{
        while (p->next < p->to) {
                size_t at = p->next++;

                if (strncmp(path, "./", 2) == 0 && strcmp(path + 2, p->paths[at]) == 0)
                        return (ssize_t)at;
        }
        return -1;
}

static int on_found(void *ctx, const struct found *f)
{
        struct pull *p = ctx;
        ssize_t at = find_path(p, f->path);

        if (at < 0)
                return -EPROTO;
        p->stats[(size_t)at - p->from] = f->st;
        return 0;
}

static bool is_same(const struct tar_entry *e, const struct stat *st)
{
        return S_ISREG(st->st_mode) && (uint64_t)st->st_size == e->size &&
               st->st_mtim.tv_sec == e->mtime.tv_sec && st->st_mtim.tv_nsec == e->mtime.tv_nsec &&
               st->st_ctim.tv_sec == e->ctime.tv_sec && st->st_ctim.tv_nsec == e->ctime.tv_nsec;
}

static int on_file(struct tar_sink *to, const struct tar_entry *e, const void *data)
{
        struct pull *p = container_of(to, struct pull, files);
        const struct stat *st;
        size_t at = p->next;

        while (at < p->to && strcmp(e->name, p->paths[at]) != 0)
                at++;
        if (at == p->to)
                return -EPROTO;
        p->next = at + 1;
        st = &p->stats[at - p->from];
        if (e->is_dir || !data || !is_same(e, st))
                return 0;
        p->error = p->sink->file(p->sink, at, 0, st, data, (size_t)e->size);
        p->is_told[at] = p->error == 0;
        return p->error;
}

static ssize_t on_wanted(struct tar_source *from, const void **ret)
{
        struct pull *p = container_of(from, struct pull, source);
        size_t n = p->left;

        *ret = p->at;
        p->left = 0;
        return (ssize_t)n;
}

static void take_files(struct pull *p, const char *stream, size_t size)
{
        const struct tar_limits limits = {
                .file_bytes = p->size_max, .bytes = STREAM_MAX, .count = p->to - p->from};

        p->next = p->from;
        p->at = stream;
        p->left = size;
        (void)tar_read(&p->source, &limits, &p->files); /* what isn't told is SFTP's */
}

static void take_answer(struct pull *p, const char *mark)
{
        struct find_parser parser = {.pending = BUF_INIT(FIND_PENDING_MAX),
                                     .is_given = true,
                                     .entry = on_found,
                                     .ctx = p};
        const char *all = buf_str(&p->answer), *end = all + p->answer.size;
        const char *at = memmem(all, p->answer.size, mark, strlen(mark));
        int r;

        if (!at || at == all || at + strlen(mark) == end)
                return; /* no such tar */
        p->next = p->from;
        r = find_parse(&parser, at + strlen(mark) + 1, (size_t)(end - at) - strlen(mark) - 1);
        buf_done(&parser.pending);
        if (r == 0)
                take_files(p, all, (size_t)(at - all) - 1);
}

/* ---- groups ---- */

static int pull_group(struct pull *p, struct call *c)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(SCRIPT_MAX);
        char mark[SHELL_TOKEN_SIZE];
        int code, r = shell_token(mark);

        if (r == 0)
                r = add_script(&script, p, mark);
        if (r == 0)
                r = shell_run(p->spot->box->host->shell, c, buf_str(&script), &p->bytes, &code);
        if (r == 0)
                take_answer(p, mark);
        return r < 0 ? r : p->error;
}

static size_t group_end(const char *const *paths, size_t from, size_t count)
{
        size_t bytes = 0, to = from;

        while (to < count && to < from + GROUP_FILES && bytes < GROUP_BYTES)
                bytes += strlen(paths[to++]) + 3;
        return to;
}

bool pull_pays(const struct spot *s, size_t count)
{
        return s->has_find && s->has_tar && count >= MANY && files_round_trip(s->box) >= FAR_NS;
}

int pull_files(struct spot *s, struct call *c, const char *const *paths, size_t count,
               size_t size_max, struct file_sink *to, bool *is_told)
{
        _cleanup_(freep) struct stat *stats = calloc(GROUP_FILES, sizeof(*stats));
        struct pull p = {.spot = s,
                         .paths = paths,
                         .size_max = size_max,
                         .sink = to,
                         .is_told = is_told,
                         .stats = stats,
                         .bytes.data = on_bytes,
                         .source.read = on_wanted,
                         .files.file = on_file};
        int r = stats ? 0 : -ENOMEM;

        while (r == 0 && p.to < count) {
                p.from = p.to;
                p.to = group_end(paths, p.from, count);
                p.answer = BUF_INIT(STREAM_MAX);
                memset(stats, 0, GROUP_FILES * sizeof(*stats));
                r = pull_group(&p, c);
                buf_done(&p.answer);
        }
        if (p.error == 0 && r < 0 && r != -EINTR && r != -ETIMEDOUT) {
                c->sentence[0] = '\0'; /* SFTP says what it is */
                r = 0;
        }
        return r;
}
