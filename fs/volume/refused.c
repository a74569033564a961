/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sandbox refused: shown as this mount has it, sent again, or given up. Only a rename isn't
 * shown: the bytes are to be had by the old name alone.
 */

#include "fs/volume/contents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/volume/journal.h"
#include "fs/volume/meta.h"
#include "fs/volume/refresh.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

/* ---- showing it ---- */

static int show_made(struct cached *c, const struct journal_refused_name *name, mode_t kind)
{
        struct stat st = {.st_mode = kind | (name->mode & 07777), .st_nlink = 1};
        struct meta_source source;

        st.st_mtim = st.st_ctim = st.st_atim = clock_timespec(clock_real_ns());
        if (S_ISLNK(kind))
                st.st_size = (off_t)strlen(name->to);
        refresh_source(c, &source);
        return meta_keep_made(c->meta, name->path, &source, &st, S_ISLNK(kind) ? name->to : NULL);
}

static int show_removed(struct cached *c, const char *path)
{
        struct meta_source source;

        refresh_source(c, &source);
        return meta_keep_removed(c->meta, path, &source);
}

void refused_show(struct cached *c, const struct journal_refused_name *name)
{
        int r = 0;

        switch (name->kind) {
        case CHANGE_MKDIR: r = show_made(c, name, S_IFDIR); break;
        case CHANGE_SYMLINK: r = show_made(c, name, S_IFLNK); break;
        case CHANGE_STORE: r = show_made(c, name, S_IFREG); break; /* an empty one */
        case CHANGE_UNLINK:
        case CHANGE_RMDIR: r = show_removed(c, name->path); break;
        case CHANGE_SET:
                if (name->what & FILE_SET_MODE)
                        meta_keep_mode(c->meta, name->path, name->mode);
                else
                        meta_doubt(c->meta, name->path);
                break;
        case CHANGE_RENAME:
                meta_doubt(c->meta, name->path);
                meta_doubt(c->meta, name->to);
                break;
        case CHANGE_WRITE:
        case CHANGE_LINK: break;
        }
        if (r < 0)
                log_warning("what was refused is shown as the sandbox has it: %s", errno_name(r));
}

int refused_show_all(struct cached *c)
{
        struct journal_refused_name *names = NULL;
        size_t count = 0;
        int r = journal_refused_names(c->contents->journal, &names, &count);

        for (size_t i = 0; i < count; i++)
                refused_show(c, &names[i]);
        journal_refused_free(names, count);
        return r;
}

/* They wait again: what is asked for comes after them. */
static int let_all(struct cached *c)
{
        struct journal_refused_name *names = NULL;
        size_t count = 0;
        int r = journal_refused_names(c->contents->journal, &names, &count);

        for (size_t i = 0; i < count; i++)
                meta_let(c->meta, names[i].path);
        journal_refused_free(names, count);
        return r;
}

/* ---- what people decide ---- */

void contents_unsent(struct cached *c, struct vol_unsent_sink *to)
{
        journal_refused(c->contents->journal, to);
}

int contents_retry(struct cached *c)
{
        struct content **xs = NULL;
        size_t count = 0;
        int r = contents_find_pinned(c->contents, &xs, &count);

        for (size_t i = 0; i < count; i++) {
                content_lock(xs[i]);
                xs[i]->takes_all |= xs[i]->refused == -ESTALE; /* conflict.h */
                xs[i]->refused = 0;
                (void)content_account(xs[i]); /* told below */
                content_unlock(xs[i]);
                content_unref(xs[i]);
        }
        free(xs);
        contents_tell(c->contents);
        if (r == 0)
                r = let_all(c);
        return r == 0 ? journal_retry(c->contents->journal) : r;
}

int contents_discard(struct cached *c, const char *path)
{
        struct content *x = NULL;
        int r = journal_discard(c->contents->journal, path, &x);

        if (r < 0)
                return r;
        if (x) {
                content_lock(x);
                x->is_removed = true;
                x->last = x->version;
                content_unpin(x);
                (void)content_account(x); /* told below */
                content_unlock(x);
                cached_drop_content(c, x);
                content_unref(x);
        }
        meta_let(c->meta, path);
        contents_tell(c->contents);
        return 0;
}
