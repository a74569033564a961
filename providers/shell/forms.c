/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked. */

#include "providers/shell/forms.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/shell/forms_private.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"

#define NOT_SEEN 1 /* among errors */

/* ---- scripts ---- */

int forms_begin(const struct forms *f, struct buf *script)
{
        return quote_addf(script, "cd %s || exit 66\n", f->root);
}

int forms_add_path(struct buf *to, const char *path)
{
        return path[0] ? quote_addf(to, "./%s", path) : buf_add_char(to, '.');
}

int forms_add_stat(const struct forms *f, struct buf *to, const char *behind)
{
        return buf_addf(to, "stat -c '%s%s' -- ", f->can & FORM_STAT_NS ? SAY_STAT_NS : SAY_STAT,
                        behind);
}

struct collecting {
        struct shell_sink sink;
        struct buf *out;
};

static int on_data(struct shell_sink *to, const void *data, size_t size)
{
        return buf_add(container_of(to, struct collecting, sink)->out, data, size);
}

int forms_run(const struct forms *f, struct call *c, const struct buf *script, struct buf *out)
{
        struct collecting to = {.sink.data = on_data, .out = out};
        int code = 0, r = f->by->run(f->by, c, buf_str(script), &to.sink, &code);

        if (r == -E2BIG)
                r = call_fail(c, -EPROTO, "the shell in the sandbox says too much");
        return r < 0 ? r : code;
}

/* ---- what there is ---- */

static const char probe[] =
        "d=$(stat -c '%f %s %Y %Z %X %i %h %b' / 2>/dev/null) && [ \"$d\" ] && echo stat\n"
        "case $(stat -c %.9Y / 2>/dev/null) in *[0-9].[0-9]*) echo stat_ns;; esac\n"
        "[ \"$(find / -maxdepth 0 -printf x 2>/dev/null)\" = x ] && echo find\n"
        "[ \"$(find / -maxdepth 0 -print0 2>/dev/null | tr '\\000' x)\" = /x ] && echo find_0\n"
        "case $(touch --help 2>&1) in *-h*) echo touch_h;; esac\n"
        "case $(touch --version 2>&1) in *GNU*) echo touch_ns;; esac\n"
        "case $(mv -T /.sbxfs-no/a /.sbxfs-no/b 2>&1) in *nvalid*|*nrecognized*|*nknown*) ;; "
        "*) echo mv_t;; esac\n"
        "case $(tar --version 2>&1 </dev/null) in *'GNU tar'*|bsdtar*) echo tar; echo tar_ns;;\n"
        "*busybox*) echo tar;; esac\n"
        "[ \"$(stat -f -c %S / 2>/dev/null)\" ] && echo stat_fs\n"
        "exit 0\n";

static const struct {
        const char *word;
        enum form_can can;
} words[] = {
        {"stat", FORM_STAT},       {"stat_ns", FORM_STAT_NS}, {"find", FORM_FIND},
        {"find_0", FORM_FIND_0},   {"touch_h", FORM_TOUCH_H}, {"touch_ns", FORM_TOUCH_NS},
        {"mv_t", FORM_MV_T},       {"tar", FORM_TAR},         {"tar_ns", FORM_TAR_NS},
        {"stat_fs", FORM_STAT_FS},
};

static unsigned parse_words(const char *text)
{
        unsigned can = 0;

        for (size_t n; *text; text += n + (text[n] == '\n')) {
                n = strcspn(text, "\n");
                for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                        if (strlen(words[i].word) == n && memcmp(words[i].word, text, n) == 0)
                                can |= words[i].can;
                }
        }
        return can;
}

int forms_probe(struct forms *f, struct call *c)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX), out = BUF_INIT(4096);
        int r = buf_add_str(&script, probe);

        if (r == 0)
                r = forms_run(f, c, &script, &out);
        if (r < 0)
                return r;
        f->can = parse_words(buf_str(&out));
        if (!(f->can & FORM_STAT) || !(f->can & (FORM_FIND | FORM_FIND_0)))
                return call_fail(c, -EOPNOTSUPP, "the sandbox has a shell, but no stat and find");
        return 0;
}

/* ---- attributes ---- */

/*
 * A line of numbers for each, or of what stat said: "- " before that, and "\n.\n" behind it, which
 * could be forged by what a file is called; all that it then gets wrong is an error of that file.
 */
static int add_look(const struct forms *f, struct buf *to, const char *path)
{
        int r = buf_add_str(to, "s=$(");

        if (r == 0)
                r = forms_add_stat(f, to, "");
        if (r == 0)
                r = forms_add_path(to, path);
        return r == 0 ? buf_add_str(to, " 2>&1) && echo \"$s\" || printf -- '- %s\\n.\\n' \"$s\"\n")
                      : r;
}

static int take_look(const char **at, const char *end, struct stat *ret)
{
        size_t left = (size_t)(end - *at), n = say_stat(*at, left, '\n', ret);
        const char *dot;

        if (n > 0) {
                *at += n;
                return 0;
        }
        dot = left > 2 && memcmp(*at, "- ", 2) == 0 ? memmem(*at, left, "\n.\n", 3) : NULL;
        if (!dot)
                return -EPROTO;
        left = (size_t)(dot - *at);
        n = (size_t)(dot + 3 - *at);
        *at += n;
        return say_errno(dot - left, left);
}

/* Those of the paths whose error is NOT_SEEN: one stat each, and why it failed. */
static int look_closer(const struct forms *f, struct call *c, const char *const *paths,
                       size_t count, struct stat *ret, int *errors)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf out = BUF_INIT(FORMS_ANSWER_MAX);
        const char *at;
        int r = forms_begin(f, &script);

        for (size_t i = 0; r == 0 && i < count; i++) {
                if (errors[i] == NOT_SEEN)
                        r = add_look(f, &script, paths[i]);
        }
        if (r == 0)
                r = forms_run(f, c, &script, &out);
        if (r < 0)
                return r;
        at = buf_str(&out);
        for (size_t i = 0; i < count; i++) {
                if (errors[i] != NOT_SEEN)
                        continue;
                errors[i] =
                        r == FORMS_NO_ROOT ? -ENOENT : take_look(&at, out.data + out.size, &ret[i]);
                if (errors[i] == -EPROTO)
                        return call_fail(c, -EPROTO, "the shell in the sandbox said what can't be");
        }
        return 0;
}

size_t forms_take_named(const char *text, size_t size, const char *path, struct stat *ret)
{
        size_t n, length = strlen(path), dots = path[0] ? 2 : 1;
        struct stat st;

        n = say_stat(text, size, ' ', &st);
        if (n == 0 || size - n < dots + length + 1 || memcmp(text + n, "./", dots) != 0 ||
            memcmp(text + n + dots, path, length) != 0 || text[n + dots + length] != '\n')
                return 0;
        *ret = st;
        return n + dots + length + 1;
}

/* All by one stat; it names each behind its numbers. */
static int stat_some(const struct forms *f, struct call *c, const char *const *paths, size_t count,
                     struct stat *ret, int *errors)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf out = BUF_INIT(FORMS_ANSWER_MAX);
        const char *at;
        int r = forms_begin(f, &script);

        if (r == 0)
                r = forms_add_stat(f, &script, " %n");
        for (size_t i = 0; r == 0 && i < count; i++) {
                r = forms_add_path(&script, paths[i]);
                if (r == 0)
                        r = buf_add_char(&script, ' ');
        }
        if (r == 0)
                r = buf_add_str(&script, "2>/dev/null\nexit 0\n");
        if (r == 0)
                r = forms_run(f, c, &script, &out);
        if (r < 0)
                return r;
        at = buf_str(&out);
        for (size_t i = 0; i < count; i++) {
                size_t n = forms_take_named(at, (size_t)(buf_str(&out) + out.size - at), paths[i],
                                            &ret[i]);

                errors[i] = n > 0 ? 0 : NOT_SEEN;
                at += n;
        }
        return 0;
}

int forms_stat_all(const struct forms *f, struct call *c, const char *const *paths, size_t count,
                   struct stat *ret, int *errors)
{
        int r = 0;

        for (size_t at = 0, n; r == 0 && at < count; at += n) {
                size_t bytes = 0;

                for (n = 0; at + n < count && n < FORMS_PATHS_COUNT && bytes < FORMS_PATHS; n++)
                        bytes += strlen(paths[at + n]);
                if (n > 1)
                        r = stat_some(f, c, paths + at, n, ret + at, errors + at);
                else
                        errors[at] = NOT_SEEN;
                for (size_t i = at; r == 0 && i < at + n; i++) {
                        if (errors[i] != NOT_SEEN)
                                continue;
                        r = look_closer(f, c, paths + i, at + n - i, ret + i, errors + i);
                        break;
                }
        }
        return r;
}

int forms_stat(const struct forms *f, struct call *c, const char *path, struct stat *ret)
{
        int error = 0, r = forms_stat_all(f, c, &path, 1, ret, &error);

        return r < 0 ? r : error;
}

/* ---- links, space ---- */

int forms_readlink(const struct forms *f, struct call *c, const char *path, char *ret, size_t size)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf out = BUF_INIT(PATH_MAX + 16);
        struct stat st;
        int r = forms_begin(f, &script);

        if (r == 0)
                r = buf_add_str(&script, "readlink -n -- ");
        if (r == 0)
                r = forms_add_path(&script, path);
        if (r == 0)
                r = buf_add_str(&script, " || exit 1\n");
        if (r == 0)
                r = forms_run(f, c, &script, &out);
        if (r < 0)
                return r;
        if (r != 0) {
                r = forms_stat(f, c, path, &st);
                return r < 0 ? r : S_ISLNK(st.st_mode) ? -EIO : -EINVAL;
        }
        if (out.size == 0 || out.size >= size || strlen(out.data) != out.size)
                return out.size >= size ? -ENAMETOOLONG : -EIO;
        memcpy(ret, out.data, out.size + 1);
        return 0;
}

int forms_statfs(const struct forms *f, struct call *c, struct statvfs *ret)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX), out = BUF_INIT(4096);
        unsigned long long n[7] = {0};
        int r = f->can & FORM_STAT_FS ? forms_begin(f, &script) : -EOPNOTSUPP;

        if (r == 0)
                r = buf_add_str(&script, "stat -f -c '%S %b %f %a %c %d %l' . || exit 1\n");
        if (r == 0)
                r = forms_run(f, c, &script, &out);
        if (r < 0)
                return r;
        if (r != 0)
                return r == FORMS_NO_ROOT ? -ENOENT : -EIO;
        if (sscanf(buf_str(&out), "%20llu %20llu %20llu %20llu %20llu %20llu %20llu", &n[0], &n[1],
                   &n[2], &n[3], &n[4], &n[5], &n[6]) != 7)
                return call_fail(c, -EPROTO, "stat -f in the sandbox said what can't be");
        *ret = (struct statvfs){.f_bsize = n[0],
                                .f_frsize = n[0],
                                .f_blocks = n[1],
                                .f_bfree = n[2],
                                .f_bavail = n[3],
                                .f_files = n[4],
                                .f_ffree = n[5],
                                .f_favail = n[5],
                                .f_namemax = n[6]};
        return 0;
}
