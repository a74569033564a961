/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings by one GNU find, one round trip for a tree.
 *
 * A bounded tree is two walks: first the directory's own entries, then what is below, cut at the
 * bound. So the directory itself is complete, and what is cut is known: find goes into a directory
 * before it goes on to the next, hence those that are not yet through are the ones that the last
 * path it printed lies in.
 */

#include "providers/shell/list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/posix/place.h"
#include "providers/quote.h"
#include "providers/shell/find.h"
#include "providers/shell/runner.h"
#include "transport/base/cleanup.h"
#include "transport/base/list.h"
#include "transport/base/path.h"

#define SCRIPT_MAX ((size_t)1 << 20)
#define PATHS_MAX ((size_t)256 << 20) /* bytes of paths of directories that are remembered */

struct lister {
        struct shell_sink sink;
        struct find_parser parser;
        const struct file_listing *what;
        struct file_list_sink *to;

        struct stat root; /* st_mode 0: not seen */
        uint64_t dev;
        bool is_closed; /* the root */
        bool has_closed; /* any */
        struct buf dirs; /* paths of those that find goes into, with their NUL */
        struct buf last; /* path of the last entry of the second walk */
        size_t told; /* entries of the second walk */
};

static bool is_skipped(const struct file_listing *what, const char *name, size_t length)
{
        for (const char *const *s = what->skip; s && *s; s++) {
                if (strncmp(*s, name, length) == 0 && !(*s)[length])
                        return true;
        }
        return false;
}

/* Components; 0 when one of those before the last is not to be entered. */
static unsigned depth_of(const struct file_listing *what, const char *path)
{
        unsigned depth = 1;
        size_t n;

        for (; path[n = strcspn(path, "/")]; path += n + 1, depth++) {
                if (is_skipped(what, path, n))
                        return 0;
        }
        return depth;
}

static const char *name_of(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

static int on_root(struct lister *l, const struct found *f)
{
        if (l->root.st_mode != 0)
                return -EPROTO;
        l->root = f->st;
        l->dev = f->dev;
        l->is_closed = f->is_closed;
        return S_ISDIR(f->st.st_mode) ? l->to->entry(l->to, "", &f->st, NULL) : 0;
}

static int on_entry(void *ctx, const struct found *f)
{
        struct lister *l = ctx;
        const char *name = name_of(f->path);
        unsigned depth;
        int r;

        if (!f->path[0])
                return on_root(l, f);
        depth = depth_of(l->what, f->path);
        if (depth == 0)
                return 0;
        if (depth > l->what->depth || l->root.st_mode == 0)
                return -EPROTO;
        if (place_is_temp(name))
                return 0;
        l->has_closed |= f->is_closed;
        r = l->to->entry(l->to, f->path, &f->st, f->target);
        if (r == 0 && depth > 1) {
                l->told++;
                buf_clear(&l->last);
                r = buf_add_str(&l->last, f->path);
        }
        if (r == 0 && S_ISDIR(f->st.st_mode) && depth < l->what->depth && !f->is_closed &&
            f->dev == l->dev && !is_skipped(l->what, name, strlen(name)) &&
            (depth > 1 || !l->what->into || strcmp(name, l->what->into) == 0))
                r = buf_add(&l->dirs, f->path, strlen(f->path) + 1);
        return r;
}

static int on_data(struct shell_sink *to, const void *data, size_t size)
{
        return find_parse(&container_of(to, struct lister, sink)->parser, data, size);
}

/* For -name and -path: no byte of it means anything but itself. */
static int add_pattern(struct buf *to, const char *text, const char *behind)
{
        _cleanup_(buf_done) struct buf pattern = BUF_INIT(SCRIPT_MAX);
        int r = 0;

        for (; r == 0 && *text; text++) {
                if (strchr("*?[]\\", *text))
                        r = buf_add_char(&pattern, '\\');
                if (r == 0)
                        r = buf_add_char(&pattern, *text);
        }
        if (r == 0)
                r = buf_add_str(&pattern, behind);
        return r == 0 ? quote_add(to, buf_str(&pattern)) : r;
}

/* Those that are not entered; the directory itself is, whatever its name. */
static int add_prune(struct buf *to, const struct file_listing *what, const char *root)
{
        const char *own = name_of(root), *word = "\\( -type d \\( -name ";
        int r = 0;

        for (const char *const *s = what->skip; r == 0 && s && *s; s++) {
                if (strcmp(*s, own) == 0)
                        continue;
                r = buf_add_str(to, word);
                if (r == 0)
                        r = add_pattern(to, *s, "");
                word = " -o -name ";
        }
        if (r == 0 && word[0] == ' ')
                r = buf_add_str(to, " \\) -prune -o -true \\) ");
        return r;
}

/* Of the directory's own directories only this one is entered. */
static int add_into(struct buf *to, const struct file_listing *what, const char *root)
{
        _cleanup_(freep) char *into = NULL;
        int r;

        if (!what->into)
                return 0;
        if (asprintf(&into, "%s/%s", root, what->into) < 0)
                return -ENOMEM;
        r = buf_add_str(to, "\\( -type d -path ");
        if (r == 0)
                r = add_pattern(to, root, "/*");
        if (r == 0)
                r = buf_add_str(to, " ! -path ");
        if (r == 0)
                r = add_pattern(to, root, "/*/*");
        if (r == 0)
                r = buf_add_str(to, " ! -path ");
        if (r == 0)
                r = add_pattern(to, into, "");
        return r == 0 ? buf_add_str(to, " -prune -o -true \\) ") : r;
}

static int add_find(struct buf *to, const struct file_listing *what, const char *root,
                    unsigned depth, bool is_second)
{
        int r = quote_addf(to, "find %s ", root);

        if (r == 0)
                r = buf_addf(to, "-maxdepth %u -xdev -ignore_readdir_race ", depth);
        if (r == 0)
                r = add_prune(to, what, root);
        if (r == 0 && depth > 1)
                r = add_into(to, what, root);
        if (r == 0 && is_second) {
                r = buf_add_str(to, "-path ");
                if (r == 0)
                        r = add_pattern(to, root, "/*/*");
        }
        return r == 0 ? buf_addf(to, " %s 2>/dev/null", find_print) : r;
}

/*
 * Its exit code is that of find where nothing cuts it. `head` of GNU takes the NUL; without it we
 * stop reading.
 */
static int add_script(struct buf *to, const struct file_listing *what, const char *root)
{
        bool is_bounded = what->entries_max > 0 && what->depth > 1;
        int r = add_find(to, what, root, is_bounded ? 1 : what->depth, false);

        if (r < 0 || !is_bounded)
                return r == 0 ? buf_add_str(to, "\n") : r;
        r = buf_add_str(to, "\nr=$?\n");
        if (r == 0)
                r = add_find(to, what, root, what->depth, true);
        if (r == 0)
                r = buf_addf(to,
                             " | if head -z -n 0 </dev/null 2>/dev/null; then head -z -n %zu; "
                             "else cat; fi\nexit $r\n",
                             2 * what->entries_max);
        return r;
}

/* ---- what is complete ---- */

/*
 * The walk was cut at `last`: directories that hold it, or are it, are not through; and those of
 * the first walk that come after the one it lies in were not begun.
 */
static int tell_listed(struct lister *l, bool is_cut)
{
        const char *last = buf_str(&l->last);
        bool is_behind = false;
        int r = l->to->listed(l->to, "");

        for (size_t at = 0; r == 0 && at < l->dirs.size; at += strlen(l->dirs.data + at) + 1) {
                const char *dir = l->dirs.data + at;
                bool is_open = is_cut && path_is_within(last, dir);

                if (!strchr(dir, '/')) {
                        is_open |= is_cut && is_behind;
                        is_behind |= is_open;
                }
                if (!is_open)
                        r = l->to->listed(l->to, dir);
        }
        return r;
}

int find_list(struct shell_runner *by, struct call *c, const char *root,
              const struct file_listing *what, struct file_list_sink *to)
{
        struct lister l = {
                .sink.data = on_data,
                .parser = {.pending = BUF_INIT(FIND_PENDING_MAX), .entry = on_entry, .ctx = &l},
                .what = what,
                .to = to,
                .dirs = BUF_INIT(PATHS_MAX),
                .last = BUF_INIT(PATH_BYTES_MAX)};
        _cleanup_(buf_done) struct buf script = BUF_INIT(SCRIPT_MAX);
        int code = 0, r = add_script(&script, what, root);

        if (r == 0)
                r = by->run(by, c, buf_str(&script), &l.sink, &code);
        if (r == 0 && l.root.st_mode == 0)
                r = -ENOENT;
        else if (r == 0 && !S_ISDIR(l.root.st_mode))
                r = -ENOTDIR;
        else if (r == 0 && l.is_closed)
                r = -EACCES;
        /* Why find failed must be known, else nothing that it printed is all there is. */
        else if (r == 0 && (code == 0 || l.has_closed))
                r = tell_listed(&l, what->entries_max > 0 && what->depth > 1 &&
                                            l.told >= what->entries_max);
        buf_done(&l.parser.pending);
        buf_done(&l.dirs);
        buf_done(&l.last);
        return r;
}
