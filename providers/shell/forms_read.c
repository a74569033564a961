/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content. Many files come as one stream without any frame, between two looks at their attributes:
 * where nothing changed meanwhile, and as many bytes came as they have, each has its own. Else they
 * come one by one.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/shell/forms_private.h"
#include "transport/base/cleanup.h"

#define BLOCK ((uint64_t)64 * 1024)
#define GROUP_BYTES ((uint64_t)8 << 20) /* of content that comes at once */
#define TRIES 3 /* at reading a file that is changed meanwhile */

static bool is_same(const struct stat *a, const struct stat *b)
{
        return a->st_mode == b->st_mode && a->st_size == b->st_size && a->st_ino == b->st_ino &&
               a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
               a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* ---- a part ---- */

/* Bytes, then on a line of their own, attributes: from the end of the answer. */
static int split_answer(struct buf *out, struct stat *ret)
{
        char *line;
        size_t size = out->size;

        if (size < 2 || out->data[size - 1] != '\n')
                return -EPROTO;
        line = memrchr(out->data, '\n', size - 1);
        if (!line || say_stat(line + 1, size - (size_t)(line + 1 - out->data), '\n', ret) == 0)
                return -EPROTO;
        out->size = (size_t)(line - out->data);
        return 0;
}

/* What could not be read: why. */
static int why_not(const struct forms *f, struct call *c, const char *path)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX), out = BUF_INIT(65536);
        int r = forms_begin(f, &script);

        if (r == 0)
                r = buf_add_str(&script, "e=$(dd count=0 2>&1 >/dev/null if=");
        if (r == 0)
                r = forms_add_path(&script, path);
        if (r == 0)
                r = buf_add_str(&script, ") || printf '%s' \"$e\"\n");
        if (r == 0)
                r = forms_run(f, c, &script, &out);
        if (r < 0)
                return r;
        return out.size > 0 ? say_errno(out.data, out.size) : -EIO;
}

static int read_blocks(const struct forms *f, struct call *c, const char *path, uint64_t first,
                       uint64_t count, struct buf *out, struct stat *ret)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        int r = forms_begin(f, &script);

        if (r == 0)
                r = buf_add_str(&script, "[ -f ");
        if (r == 0)
                r = forms_add_path(&script, path);
        if (r == 0)
                r = buf_add_str(&script, " ] || exit 67\ndd if=");
        if (r == 0)
                r = forms_add_path(&script, path);
        if (r == 0)
                r = buf_addf(&script,
                             " bs=%llu skip=%llu count=%llu 2>/dev/null || exit 67\n"
                             "printf '\\n'\n",
                             (unsigned long long)BLOCK, (unsigned long long)first,
                             (unsigned long long)count);
        if (r == 0)
                r = forms_add_stat(f, &script, "");
        if (r == 0)
                r = forms_add_path(&script, path);
        if (r == 0)
                r = buf_add_str(&script, " 2>/dev/null || exit 67\n");
        if (r == 0)
                r = forms_run(f, c, &script, out);
        if (r < 0)
                return r;
        if (r == FORMS_NO_ROOT)
                return -ENOENT;
        if (r != 0)
                return why_not(f, c, path);
        return split_answer(out, ret) < 0
                       ? call_fail(c, -EPROTO, "the shell in the sandbox said what can't be")
                       : 0;
}

ssize_t forms_read(const struct forms *f, struct call *c, const char *path, void *data, size_t size,
                   uint64_t offset, struct stat *ret_st)
{
        _cleanup_(buf_done) struct buf out = BUF_INIT(size + 2 * BLOCK + 65536);
        uint64_t first = offset / BLOCK, skip = offset % BLOCK, n;
        uint64_t count = (skip + size + BLOCK - 1) / BLOCK;
        struct stat st;
        int r = read_blocks(f, c, path, first, count, &out, &st);

        if (r < 0)
                return r;
        if (out.size > count * BLOCK)
                return call_fail(c, -EPROTO, "dd in the sandbox said too much");
        n = out.size > skip ? out.size - skip : 0;
        n = n < size ? n : size;
        if (n > 0)
                memcpy(data, out.data + skip, n);
        if (ret_st)
                *ret_st = st;
        return (ssize_t)n;
}

/* ---- whole files ---- */

struct fetching {
        const struct forms *forms;
        struct call *call;
        const char *const *paths;
        size_t size_max;
        struct file_sink *to;
        struct stat *stats; /* of all */
        int *errors;
};

static int tell_one(const struct fetching *f, size_t at, int error, const struct stat *st,
                    const void *data, size_t size)
{
        const struct stat none = {0};

        return f->to->file(f->to, at, error, st ? st : &none, data, size);
}

/* One that others can't come with, or that changes. */
static int fetch_one(const struct fetching *f, size_t at)
{
        _cleanup_(freep) char *data = malloc(f->size_max + 2);
        struct stat before, after;
        ssize_t n = data ? -EAGAIN : -ENOMEM;
        int r = 0;

        for (unsigned i = 0; n == -EAGAIN && i < TRIES; i++) {
                r = forms_stat(f->forms, f->call, f->paths[at], &before);
                if (r < 0)
                        return tell_one(f, at, r, NULL, NULL, 0);
                if (!S_ISREG(before.st_mode) || (uint64_t)before.st_size > f->size_max)
                        return tell_one(f, at, S_ISREG(before.st_mode) ? -EFBIG : -EINVAL, &before,
                                        NULL, 0);
                n = forms_read(f->forms, f->call, f->paths[at], data, f->size_max + 1, 0, &after);
                if (n >= 0 && i + 1 < TRIES && (!is_same(&before, &after) || n != after.st_size))
                        n = -EAGAIN;
        }
        if (n == -EINTR || n == -ETIMEDOUT || n == -EHOSTUNREACH || n == -EPROTO || n == -ENOMEM)
                return (int)n;
        if (n > (ssize_t)f->size_max)
                return tell_one(f, at, -EFBIG, &after, NULL, 0);
        if (n >= 0)
                after.st_size = n;
        return tell_one(f, at, n < 0 ? (int)n : 0, n < 0 ? NULL : &after, data,
                        n < 0 ? 0 : (size_t)n);
}

/* Those of [from, to) that have content to come. */
static bool comes(const struct fetching *f, size_t at)
{
        return f->errors[at] == 0 && S_ISREG(f->stats[at].st_mode) && f->stats[at].st_size > 0 &&
               (uint64_t)f->stats[at].st_size <= f->size_max;
}

/* Their content, one after the other, and whether nothing changed. */
static int cat_some(const struct fetching *f, size_t from, size_t to, struct buf *out,
                    bool *ret_is_good)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(freep) struct stat *after = calloc(to - from + 1, sizeof(*after));
        _cleanup_(freep) int *errors = calloc(to - from + 1, sizeof(*errors));
        uint64_t size = 0;
        int r = after && errors ? forms_begin(f->forms, &script) : -ENOMEM;

        if (r == 0)
                r = buf_add_str(&script, "cat --");
        for (size_t i = from; r == 0 && i < to; i++) {
                if (!comes(f, i))
                        continue;
                size += (uint64_t)f->stats[i].st_size;
                r = buf_add_char(&script, ' ');
                if (r == 0)
                        r = forms_add_path(&script, f->paths[i]);
        }
        if (r == 0)
                r = buf_add_str(&script, " 2>/dev/null\nexit 0\n");
        *ret_is_good = size == 0;
        if (r < 0 || size == 0)
                return r;
        r = forms_run(f->forms, f->call, &script, out);
        if (r == -EPROTO) /* one has grown beyond all bounds */
                return 0;
        if (r >= 0)
                r = forms_stat_all(f->forms, f->call, f->paths + from, to - from, after, errors);
        *ret_is_good = r == 0 && out->size == size;
        for (size_t i = from; r == 0 && i < to; i++) {
                if (comes(f, i) &&
                    (errors[i - from] < 0 || !is_same(&f->stats[i], &after[i - from])))
                        *ret_is_good = false;
        }
        return r;
}

static int tell_some(const struct fetching *f, size_t from, size_t to, const struct buf *out,
                     bool is_good)
{
        const char *at = buf_str(out);
        int r = 0;

        for (size_t i = from; r == 0 && i < to; i++) {
                const struct stat *st = &f->stats[i];

                if (f->errors[i] < 0)
                        r = tell_one(f, i, f->errors[i], NULL, NULL, 0);
                else if (!S_ISREG(st->st_mode))
                        r = tell_one(f, i, -EINVAL, st, NULL, 0);
                else if ((uint64_t)st->st_size > f->size_max)
                        r = tell_one(f, i, -EFBIG, st, NULL, 0);
                else if (st->st_size > 0 && !is_good)
                        r = fetch_one(f, i);
                else
                        r = tell_one(f, i, 0, st, at, (size_t)st->st_size);
                if (is_good && comes(f, i))
                        at += st->st_size;
        }
        return r;
}

int forms_fetch(const struct forms *f, struct call *c, const char *const *paths, size_t count,
                size_t size_max, struct file_sink *to)
{
        _cleanup_(freep) struct stat *stats = calloc(count + 1, sizeof(*stats));
        _cleanup_(freep) int *errors = calloc(count + 1, sizeof(*errors));
        const struct fetching k = {.forms = f,
                                   .call = c,
                                   .paths = paths,
                                   .size_max = size_max,
                                   .to = to,
                                   .stats = stats,
                                   .errors = errors};
        int r = stats && errors ? forms_stat_all(f, c, paths, count, stats, errors) : -ENOMEM;

        for (size_t from = 0, end; r == 0 && from < count; from = end) {
                _cleanup_(buf_done) struct buf out = BUF_INIT(GROUP_BYTES + size_max + 65536);
                uint64_t bytes = 0, names = 0;
                bool is_good = false;

                for (end = from; end < count && bytes < GROUP_BYTES && names < FORMS_PATHS; end++) {
                        bytes += comes(&k, end) ? (uint64_t)stats[end].st_size : 0;
                        names += strlen(paths[end]) + 1;
                }
                r = cat_some(&k, from, end, &out, &is_good);
                if (r == 0)
                        r = tell_some(&k, from, end, &out, is_good);
        }
        return r;
}
