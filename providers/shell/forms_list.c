/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings: by GNU find at once (list.h); by any other in two steps: find names everything, then
 * stat looks at it, a directory's level at a time as far as that is known.
 *
 * stat says the names again, behind its numbers: as they are known, byte by byte, whatever is in
 * them, they tell which lines are whose. One that vanished between has none.
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/agent/wire.h"
#include "providers/posix/place.h"
#include "providers/shell/forms_private.h"
#include "providers/shell/list.h"
#include "transport/base/cleanup.h"

struct walk {
        const struct forms *forms;
        struct call *call;
        const struct file_listing *what;
        struct file_list_sink *to;
        struct buf names; /* of the level at hand: paths below the root, with their NUL */
        struct buf dirs; /* of the next one: likewise, to be entered */
        size_t told;
        unsigned depth;
};

static bool is_skipped(const struct walk *w, const char *path)
{
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

        if (w->depth == 1 && w->what->into)
                return strcmp(name, w->what->into) != 0;
        for (const char *const *s = w->what->skip; s && *s; s++) {
                if (strcmp(*s, name) == 0)
                        return true;
        }
        return false;
}

/* `below`, as a path from the working directory. */
static int add_whole(struct buf *to, const struct walk *w, const char *below)
{
        _cleanup_(freep) char *whole = NULL;
        const char *base = w->what->path;

        if (asprintf(&whole, "%s%s%s", base, base[0] && below[0] ? "/" : "", below) < 0)
                return -ENOMEM;
        return forms_add_path(to, whole);
}

/* ---- names ---- */

/* Of one directory; -EACCES and the like where it can't be read: it is then not listed. */
static int list_names(struct walk *w, const char *dir)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf out = BUF_INIT(FORMS_ANSWER_MAX);
        int r = forms_begin(w->forms, &script);

        if (r == 0)
                r = buf_add_str(&script, "cd ");
        if (r == 0)
                r = add_whole(&script, w, dir);
        if (r == 0)
                r = buf_add_str(&script, " 2>/dev/null && [ -r . ] || exit 67\n"
                                         "find . -maxdepth 1 -print0 2>/dev/null || exit 68\n");
        if (r == 0)
                r = forms_run(w->forms, w->call, &script, &out);
        if (r != 0)
                return r < 0 ? r : r == FORMS_NO_ROOT ? -ENOENT : -EACCES;
        for (const char *at = buf_str(&out), *end = at + out.size; r == 0 && at < end;) {
                const char *name = strncmp(at, "./", 2) == 0 ? at + 2 : at;

                if (strcmp(at, ".") != 0 && (!wire_is_path(name, false) || strchr(name, '/')))
                        return call_fail(w->call, -EPROTO,
                                         "find in the sandbox named what can't be");
                if (strcmp(at, ".") != 0 && !place_is_temp(name)) {
                        r = buf_addf(&w->names, "%s%s%s", dir, dir[0] ? "/" : "", name);
                        if (r == 0)
                                r = buf_add_char(&w->names, '\0');
                }
                at += strlen(at) + 1;
        }
        return r;
}

/* ---- attributes ---- */

/* One of a directory's entries that stat has seen. */
struct entry {
        const char *path;
        struct stat st;
        const char *target; /* of a link that could be read */
};

/* In the directory that is listed. */
static int begin(const struct walk *w, struct buf *script)
{
        int r = forms_begin(w->forms, script);

        if (r == 0 && w->what->path[0]) {
                r = buf_add_str(script, "cd ");
                if (r == 0)
                        r = forms_add_path(script, w->what->path);
                if (r == 0)
                        r = buf_add_str(script, " || exit 66\n");
        }
        return r;
}

/* Of each link: what it leads to, or nothing, and NUL. */
static int read_links(struct walk *w, struct entry *entries, size_t count, struct buf *out)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        const char *at, *end;
        size_t links = 0;
        int r = begin(w, &script);

        for (size_t i = 0; r == 0 && i < count; i++) {
                if (!S_ISLNK(entries[i].st.st_mode))
                        continue;
                links++;
                r = buf_add_str(&script, "readlink -n -- ");
                if (r == 0)
                        r = forms_add_path(&script, entries[i].path);
                if (r == 0)
                        r = buf_add_str(&script, " 2>/dev/null; printf '\\000'\n");
        }
        if (r < 0 || links == 0)
                return r;
        r = buf_add_str(&script, "exit 0\n");
        if (r == 0)
                r = forms_run(w->forms, w->call, &script, out);
        if (r != 0)
                return r < 0 ? r : -ENOENT;
        at = buf_str(out);
        end = at + out->size;
        for (size_t i = 0; i < count && at < end; i++) {
                if (!S_ISLNK(entries[i].st.st_mode))
                        continue;
                entries[i].target = *at && strlen(at) < PATH_MAX ? at : NULL;
                at += strlen(at) + 1;
        }
        return 0;
}

static int tell(struct walk *w, const struct entry *e)
{
        int r = w->to->entry(w->to, e->path, &e->st, e->target);

        w->told++;
        if (r == 0 && S_ISDIR(e->st.st_mode) && w->depth < w->what->depth &&
            !is_skipped(w, e->path))
                r = buf_add(&w->dirs, e->path, strlen(e->path) + 1);
        return r;
}

/* Those of the names in [from, to) that stat sees. */
static int see(struct walk *w, size_t from, size_t to, struct entry *entries, size_t *ret_count)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(FORMS_SCRIPT_MAX);
        _cleanup_(buf_done) struct buf out = BUF_INIT(FORMS_ANSWER_MAX);
        const char *at, *end;
        size_t count = 0;
        int r = begin(w, &script);

        if (r == 0)
                r = forms_add_stat(w->forms, &script, " %n");
        for (size_t i = from; r == 0 && i < to; i += strlen(w->names.data + i) + 1) {
                r = forms_add_path(&script, w->names.data + i);
                if (r == 0)
                        r = buf_add_char(&script, ' ');
        }
        if (r == 0)
                r = buf_add_str(&script, "2>/dev/null\nexit 0\n");
        if (r == 0)
                r = forms_run(w->forms, w->call, &script, &out);
        if (r != 0)
                return r < 0 ? r : -ENOENT;
        at = buf_str(&out);
        end = at + out.size;
        for (size_t i = from; i < to; i += strlen(w->names.data + i) + 1) {
                struct entry *e = &entries[count];
                size_t n;

                *e = (struct entry){.path = w->names.data + i};
                n = forms_take_named(at, (size_t)(end - at), e->path, &e->st);
                count += n > 0;
                at += n;
        }
        if (at < end)
                return call_fail(w->call, -EPROTO, "stat in the sandbox said what can't be");
        *ret_count = count;
        return 0;
}

static int look_at(struct walk *w, size_t from, size_t to)
{
        _cleanup_(freep) struct entry *entries = calloc(FORMS_PATHS_COUNT + 1, sizeof(*entries));
        _cleanup_(buf_done) struct buf links = BUF_INIT(FORMS_ANSWER_MAX);
        size_t count = 0;
        int r = entries ? see(w, from, to, entries, &count) : -ENOMEM;

        if (r == 0)
                r = read_links(w, entries, count, &links);
        for (size_t i = 0; r == 0 && i < count; i++)
                r = tell(w, &entries[i]);
        return r;
}

static int look_at_all(struct walk *w)
{
        size_t from = 0;
        int r = 0;

        while (r == 0 && from < w->names.size) {
                size_t to = from, count = 0;

                while (to < w->names.size && to - from < FORMS_PATHS && count++ < FORMS_PATHS_COUNT)
                        to += strlen(w->names.data + to) + 1;
                r = look_at(w, from, to);
                from = to;
        }
        return r;
}

/* ---- all of it ---- */

static bool is_full(const struct walk *w)
{
        return w->what->entries_max > 0 && w->told >= w->what->entries_max;
}

static int list_dir(struct walk *w, const char *dir)
{
        int r;

        buf_clear(&w->names);
        r = list_names(w, dir);
        if (r == -EACCES && dir[0])
                return 0;
        if (r == 0)
                r = look_at_all(w);
        return r == 0 ? w->to->listed(w->to, dir) : r;
}

static int list_by_stat(struct walk *w)
{
        struct stat st;
        int r = forms_stat(w->forms, w->call, w->what->path, &st);

        if (r == 0 && !S_ISDIR(st.st_mode))
                r = -ENOTDIR;
        if (r == 0)
                r = w->to->entry(w->to, "", &st, NULL);
        w->depth = 1;
        if (r == 0)
                r = list_dir(w, "");
        while (r == 0 && w->dirs.size > 0 && !is_full(w)) {
                _cleanup_(buf_done) struct buf level = w->dirs;

                w->dirs = BUF_INIT(FORMS_ANSWER_MAX);
                w->depth++;
                for (size_t i = 0; r == 0 && i < level.size && !is_full(w);
                     i += strlen(level.data + i) + 1)
                        r = list_dir(w, level.data + i);
        }
        return r;
}

int forms_list(const struct forms *f, struct call *c, const struct file_listing *what,
               struct file_list_sink *to)
{
        _cleanup_(freep) char *root = NULL;
        struct walk w = {.forms = f,
                         .call = c,
                         .what = what,
                         .to = to,
                         .names = BUF_INIT(FORMS_ANSWER_MAX),
                         .dirs = BUF_INIT(FORMS_ANSWER_MAX)};
        int r;

        if (f->can & FORM_FIND) {
                if (asprintf(&root, "%s%s%s", f->root, what->path[0] ? "/" : "", what->path) < 0)
                        return -ENOMEM;
                r = find_list(f->by, c, root, what, to);
                if (r == -ENOENT) { /* it doesn't say why */
                        struct stat st;
                        int why = forms_stat(f, c, what->path, &st);

                        r = why < 0 ? why : r;
                }
                return r;
        }
        r = list_by_stat(&w);
        buf_done(&w.names);
        buf_done(&w.dirs);
        return r;
}
