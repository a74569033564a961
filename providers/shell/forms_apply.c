/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes, cut into runs that can go together: directories and small files that are new or replaced
 * (forms_store.c), one whose content is a stream of its own (forms_write.c), and what is done to
 * names, by one script, here.
 *
 * What a script says of change I: "I 0 ", what stat says of the file now, and a newline; or "I 1 ",
 * what the tool said, "\nTOKEN\n".
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "providers/posix/place.h"
#include "providers/quote.h"
#include "providers/shell/forms_change.h"
#include "transport/base/cleanup.h"
#include "transport/base/path.h"

#define NAMES_MAX 400 /* changes in one script */

/*
 * d PATH: a directory; t PATH: there is something; no PATH: there is nothing, or it says so.
 */
static const char functions[] = "d() { [ -d \"$1\" ] && ! [ -L \"$1\" ]; }\n"
                                "t() { [ -e \"$1\" ] || [ -L \"$1\" ]; }\n"
                                "say() { echo \"$1\" >&2; return 1; }\n"
                                "no() { ! t \"$1\" || say 'File exists'; }\n";

int change_functions(struct buf *to)
{
        return buf_add_str(to, functions);
}

/* `text` with each @ replaced by ./path and each # by ./other. */
static int add_form(struct buf *to, const char *text, const char *path, const char *other)
{
        int r = 0;

        for (; r == 0 && *text; text++) {
                if (*text == '@')
                        r = forms_add_path(to, path);
                else if (*text == '#')
                        r = forms_add_path(to, other);
                else
                        r = buf_add_char(to, *text);
        }
        return r;
}

/* ---- attributes ---- */

static int add_time(struct buf *to, const struct forms *f, const struct timespec *t)
{
        bool is_negative = t->tv_sec < 0 && t->tv_nsec > 0; /* -1 and a half: -0.5 */
        long long seconds = is_negative ? -(t->tv_sec + 1) : t->tv_sec;

        if (!(f->can & FORM_TOUCH_NS) || t->tv_nsec == 0)
                return buf_addf(to, "%lld", (long long)t->tv_sec);
        return buf_addf(to, "%s%lld.%09ld", is_negative ? "-" : "", seconds,
                        is_negative ? 1000000000 - t->tv_nsec : t->tv_nsec);
}

static int add_touch(struct buf *to, const struct forms *f, char which, const struct timespec *t,
                     const char *path)
{
        bool has_h = f->can & FORM_TOUCH_H;
        /* a link's own times are nothing that anybody misses */
        int r = add_form(to, has_h ? " && " : " && { [ -L @ ] || ", path, "");

        if (r == 0)
                r = buf_addf(to, "touch -c%s -%c -d @", has_h ? "h" : "", which);
        if (r == 0)
                r = add_time(to, f, t);
        if (r == 0)
                r = add_form(to, has_h ? " -- @" : " -- @; }", path, "");
        return r;
}

int change_add_set(struct buf *to, const struct forms *f, const struct change *x, const char *path,
                   bool has_mode)
{
        int r = 0;

        if (x->what & FILE_SET_SIZE) {
                r = buf_addf(to, " && dd bs=1 count=0 seek=%" PRIu64 " of=", x->size);
                if (r == 0)
                        r = add_form(to, "@ 2>&1", path, "");
        }
        if (r == 0 && has_mode) {
                r = buf_addf(to, " && chmod %04o -- ", (unsigned)x->mode & 07777);
                if (r == 0)
                        r = forms_add_path(to, path);
        }
        if (r == 0 && (x->what & FILE_SET_ATIME))
                r = add_touch(to, f, 'a', &x->atime, path);
        if (r == 0 && (x->what & FILE_SET_MTIME))
                r = add_touch(to, f, 'm', &x->mtime, path);
        return r;
}

static int add_set(struct buf *to, const struct forms *f, const struct change *x)
{
        int r;

        if (x->what & FILE_SET_SIZE)
                r = add_form(to,
                             "if d @; then say 'Is a directory'; elif ! t @; then "
                             "say 'No such file or directory'; elif [ -L @ ] || ! [ -f @ ]; then "
                             "say 'Invalid argument'; fi",
                             x->path, "");
        else
                r = add_form(to, "{ t @ || stat -- @ >/dev/null; }", x->path, "");
        if (r == 0 && (x->what & FILE_SET_MODE))
                r = add_form(to, " && { ! [ -L @ ] || say 'Invalid argument'; }", x->path, "");
        return r == 0 ? change_add_set(to, f, x, x->path, x->what & FILE_SET_MODE) : r;
}

/* ---- names ---- */

/* With what is there: neither moves into a directory. */
static const char over_t[] =
        "if d @; then if t # && ! d #; then say 'Not a directory'; else "
        "mv -fT -- @ #; fi; elif d #; then t @ || stat -- @ >/dev/null && say 'Is a directory'; "
        /* busybox refuses to replace a link to a directory */
        "else mv -fT -- @ # || { t @ && [ -L # ] && rm -f -- # && mv -fT -- @ #; }; fi";
static const char over_rm[] =
        "if d @; then if d #; then rmdir -- # && mv -f -- @ #; elif t #; then "
        "say 'Not a directory'; else mv -f -- @ #; fi; elif d #; then "
        "t @ || stat -- @ >/dev/null && say 'Is a directory'; else "
        "! [ -L # ] || rm -f -- #; mv -f -- @ #; fi";

int change_add_move(struct buf *to, const struct forms *f, const char *path, const char *other,
                    bool is_over)
{
        int r = is_over ? 0 : add_form(to, "no # && { ", path, other);

        if (r == 0)
                r = add_form(to, f->can & FORM_MV_T ? over_t : over_rm, path, other);
        return r == 0 && !is_over ? buf_add_str(to, "; }") : r;
}

static int add_rename(struct buf *to, const struct forms *f, const struct change *x)
{
        int r;

        if ((x->flags & ~(unsigned)RENAME_NOREPLACE) != 0)
                return buf_add_str(to, "say 'Invalid argument'");
        if (strcmp(x->path, x->to) == 0)
                return add_form(to, "stat -- @ >/dev/null", x->path, "");
        if (!path_is_within(x->to, x->path))
                return change_add_move(to, f, x->path, x->to, !(x->flags & RENAME_NOREPLACE));
        r = add_form(to, "if d @; then say 'Invalid argument'; else ", x->path, "");
        if (r == 0)
                r = change_add_move(to, f, x->path, x->to, true);
        return r == 0 ? buf_add_str(to, "; fi") : r;
}

static int add_symlink(struct buf *to, const struct change *x)
{
        int r = add_form(to, "no @ && ln -s -- ", x->path, "");

        if (r == 0)
                r = quote_add(to, x->to);
        return r == 0 ? add_form(to, " @", x->path, "") : r;
}

static int add_command(struct buf *to, const struct forms *f, const struct change *x)
{
        int r;

        switch (x->kind) {
        case CHANGE_MKDIR:
                r = buf_addf(to, "mkdir -m %04o -- ", (unsigned)x->mode & 07777);
                return r == 0 ? forms_add_path(to, x->path) : r;
        case CHANGE_SYMLINK: return add_symlink(to, x);
        case CHANGE_LINK:
                return add_form(to,
                                "no # && if d @; then say 'Operation not permitted'; else "
                                "ln -- @ #; fi",
                                x->path, x->to);
        case CHANGE_UNLINK:
                return add_form(to, "if d @; then say 'Is a directory'; else rm -- @; fi", x->path,
                                "");
        case CHANGE_RMDIR: return add_form(to, "rmdir -- @", x->path, "");
        case CHANGE_RENAME: return add_rename(to, f, x);
        case CHANGE_SET: return add_set(to, f, x);
        case CHANGE_STORE:
        case CHANGE_WRITE: break; /* not here */
        }
        return -EINVAL;
}

int change_begin(struct buf *to)
{
        return buf_add_str(to, "e=$({ ");
}

int change_end(struct buf *to, const struct forms *f, size_t index, const char *path,
               const char *token)
{
        int r = buf_add_str(to, "\n} 2>&1 </dev/null) && { s=");

        if (r == 0 && path) {
                r = buf_add_str(to, "$(");
                if (r == 0)
                        r = forms_add_stat(f, to, "");
                if (r == 0)
                        r = forms_add_path(to, path);
                if (r == 0)
                        r = buf_add_str(to, " 2>/dev/null)");
        }
        return r == 0 ? buf_addf(to,
                                 "; echo \"%zu 0 $s\"; } || printf '%zu 1 %%s\\n%s\\n' \"$e\"\n",
                                 index, index, token)
                      : r;
}

/* ---- answers ---- */

/* What was said of one. */
struct said {
        size_t index;
        int error;
        bool has_st;
        struct stat st;
};

/* One; the bytes it takes, 0 when it is none. */
static size_t take_one(const char *text, size_t size, const char *token, struct said *ret)
{
        char *end, mark[SHELL_TOKEN_SIZE + 3];
        const char *close, *stop = text + size;

        *ret = (struct said){.index = strtoul(text, &end, 10)};
        if (end == text || stop - end < 4 || end[0] != ' ' || end[2] != ' ')
                return 0;
        end += 3;
        if (end[-2] == '0') {
                size_t n = say_stat(end, (size_t)(stop - end), '\n', &ret->st);

                ret->has_st = n > 0;
                close = memchr(end, '\n', (size_t)(stop - end));
                return close ? (size_t)(close + 1 - text) : 0;
        }
        if (end[-2] != '1')
                return 0;
        (void)snprintf(mark, sizeof(mark), "\n%s\n", token);
        close = memmem(end, (size_t)(stop - end), mark, strlen(mark));
        if (!close)
                return 0;
        ret->error = say_errno(end, (size_t)(close - end));
        return (size_t)(close - text) + strlen(mark);
}

int change_take(struct call *c, const struct buf *out, size_t from, const char *token,
                struct change *changes, size_t count)
{
        const char *at = buf_str(out) + from;
        size_t left = out->size - from, n;
        struct said said;

        for (; left > 0; at += n, left -= n) {
                n = take_one(at, left, token, &said);
                if (n == 0 || said.index >= count)
                        return call_fail(c, -EPROTO, "the shell in the sandbox said what can't be");
                changes[said.index].error = said.error;
                changes[said.index].has_st = said.has_st;
                changes[said.index].st = said.st;
        }
        return 0;
}

/* ---- one script ---- */

static const char *path_made(const struct change *x)
{
        if (x->kind == CHANGE_UNLINK || x->kind == CHANGE_RMDIR)
                return NULL;
        return x->kind == CHANGE_RENAME || x->kind == CHANGE_LINK ? x->to : x->path;
}

static bool is_name(const struct change *x)
{
        return x->kind != CHANGE_STORE && x->kind != CHANGE_WRITE;
}

int change_names(const struct forms *f, struct call *c, struct change *changes, size_t count,
                 bool (*is_wanted)(const struct change *x))
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf out = BUF_INIT(FORMS_ANSWER_MAX);
        char token[SHELL_TOKEN_SIZE];
        int r = shell_token(token);

        if (r == 0)
                r = forms_begin(f, &script);
        if (r == 0)
                r = change_functions(&script);
        for (size_t i = 0; r == 0 && i < count; i++) {
                if (!is_wanted(&changes[i]))
                        continue;
                r = change_begin(&script);
                if (r == 0)
                        r = add_command(&script, f, &changes[i]);
                if (r == 0)
                        r = change_end(&script, f, i, path_made(&changes[i]), token);
        }
        if (r == 0)
                r = buf_add_str(&script, "exit 0\n");
        if (r == 0)
                r = forms_run(f, c, &script, &out);
        if (r < 0)
                return r;
        for (size_t i = 0; r == FORMS_NO_ROOT && i < count; i++) {
                if (is_wanted(&changes[i]))
                        changes[i].error = -ENOENT;
        }
        return r == FORMS_NO_ROOT ? 0 : change_take(c, &out, 0, token, changes, count);
}

/* ---- runs ---- */

static bool is_addition(const struct change *x)
{
        return x->kind == CHANGE_MKDIR || store_is_small(x);
}

static size_t additions(const struct forms *f, const struct change *changes, size_t count)
{
        uint64_t bytes = 0;
        size_t n = 0;

        while (f->can & FORM_TAR && n < count && n < STORE_COUNT_MAX && bytes < STORE_BYTES_MAX &&
               is_addition(&changes[n])) {
                for (size_t i = 0; i < n; i++) {
                        if (strcmp(changes[i].path, changes[n].path) == 0)
                                return n;
                }
                bytes += changes[n].from ? changes[n].from->size : 0;
                n++;
        }
        return n;
}

static size_t names(const struct change *changes, size_t count)
{
        size_t n = 0, bytes = 0;

        while (n < count && n < NAMES_MAX && bytes < 8 * FORMS_PATHS && is_name(&changes[n])) {
                bytes += strlen(changes[n].path) + (changes[n].to ? strlen(changes[n].to) : 0);
                n++;
        }
        return n;
}

static int run_some(const struct forms *f, struct call *c, struct change *changes, size_t count,
                    size_t *ret)
{
        size_t n = additions(f, changes, count);

        *ret = n;
        if (n > 1)
                return store_many(f, c, changes, n);
        *ret = n = names(changes, count);
        if (n > 0)
                return change_names(f, c, changes, n, is_name);
        *ret = 1;
        return write_one(f, c, changes);
}

int forms_apply(const struct forms *f, struct call *c, struct change *changes, size_t count)
{
        int r = 0;

        for (size_t i = 0; i < count; i++)
                changes[i].has_st = false;
        for (size_t at = 0, n = 0; r == 0 && at < count; at += n) {
                r = call_check(c);
                if (r == 0)
                        r = run_some(f, c, changes + at, count - at, &n);
        }
        return r;
}
