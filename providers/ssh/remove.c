/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing a sandbox's directory. By the host's own find where there is a shell, by SFTP where
 * there is none. The marker, under its other name, is the last file to go: a removal that was cut
 * off is taken up again by it.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/quote.h"
#include "providers/ssh/box.h"
#include "providers/ssh/host.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/sftp/batch.h"

#define PATH_SIZE 4096
#define ENTRIES_MAX ((size_t)20000) /* of one pass by SFTP */
#define PASSES_MAX 10000
#define REMOVE_NS (600 * NS_PER_S)

/* ---- by a shell ---- */

/* As /proc/self/mountinfo writes a path. */
static int add_mount_path(struct buf *to, const char *path)
{
        int r = 0;

        for (; *path && r == 0; path++)
                r = strchr(" \t\n\\", *path) ? buf_addf(to, "\\%03o", (unsigned char)*path)
                                             : buf_add_char(to, *path);
        return r;
}

/*
 * Exit codes: 0 gone; 3 it isn't what we saw; 4 a mount is inside; 5 something is left.
 *
 * A mount of the same file system is no boundary to -xdev, so the list of mounts is asked, too.
 */
static const char script_text[] =
        "cd \"$b\" && [ \"$(pwd -P)\" = \"$b\" ] || exit 3\n"
        "[ -d \"$k\" ] && [ ! -h \"$k\" ] && [ -f \"$k/$h\" ] && [ ! -h \"$k/$h\" ] || exit 3\n"
        "[ ! -e \"$k/" MARKER "\" ] || exit 3\n"
        "if [ -r /proc/self/mountinfo ]; then\n"
        "while read -r x x x x at x; do case \"$at\" in \"$m\"|\"$m\"/*)\n"
        "printf 'mounted: %s\\n' \"$at\" >&2; exit 4;; esac; done </proc/self/mountinfo || exit $?\n"
        "fi\n"
        "clear() {\n"
        "find \"$k\" -xdev -depth ! -type d ! -path \"$k/$h\" -exec rm -f -- {} + || return 1\n"
        "find \"$k\" -xdev -depth -type d ! -path \"$k\" -exec rmdir -- {} +\n"
        "}\n"
        "clear 2>/dev/null || {\n"
        "find \"$k\" -xdev -type d ! -perm -700 -exec chmod u+rwx {} \\; 2>/dev/null\n"
        "clear; }\n"
        "for x in \"$k\"/* \"$k\"/.[!.]* \"$k\"/..?*; do\n"
        "[ -e \"$x\" ] || [ -h \"$x\" ] || continue\n"
        "[ \"$x\" = \"$k/$h\" ] || { printf 'left: %s\\n' \"$x\" >&2; exit 5; }\n"
        "done\n"
        "rm -f -- \"$k/$h\" && rmdir -- \"$k\" || exit 5\n"
        "[ ! -e \"$k\" ] && [ ! -h \"$k\" ] || exit 5\n";

static int format_script(struct buf *to, const char *base, const char *key)
{
        _cleanup_(buf_done) struct buf mount = BUF_INIT(4 * PATH_SIZE);
        _cleanup_(freep) char *dir = NULL;
        int r;

        if (asprintf(&dir, "%s/%s", base, key) < 0) {
                dir = NULL;
                return -ENOMEM;
        }
        r = add_mount_path(&mount, dir);
        if (r == 0)
                r = quote_addf(to, "b=%s k=%s m=%s h=" MARKER_HALF "\n", base, key,
                               buf_str(&mount));
        return r < 0 ? r : buf_add_str(to, script_text);
}

/* What a large tree costs is its own: not the ten seconds of a call that waits for one answer. */
static int by_shell(struct ssh_host *h, struct call *c, const char *base, const char *key)
{
        _cleanup_(buf_done) struct buf script = BUF_INIT(64 * 1024);
        int r = format_script(&script, base, key);

        if (r < 0)
                return call_fail_errno(c, r, "remove %s/%s", base, key);
        r = host_script(h, c, script.data, script.size, NULL);
        switch (r) {
        case 0: return 0;
        case 3: return call_fail(c, -EPERM, "%s/%s is not what it was: it's left alone", base, key);
        case 4: return call_wrap(c, -EBUSY, "%s/%s holds a mount, and is left alone: ", base, key);
        case 5: return call_wrap(c, -EIO, "%s/%s: ", base, key);
        default: return r < 0 ? r : call_wrap(c, -EIO, "remove %s/%s: ", base, key);
        }
}

/* ---- by SFTP ---- */

struct entry {
        char *path; /* absolute */
        bool is_dir;
};

struct tree {
        const char *top;
        struct entry *entries;
        size_t count;
        int error;
};

static void tree_done(struct tree *t)
{
        for (size_t i = 0; i < t->count; i++)
                free(t->entries[i].path);
        free(t->entries);
}

static int on_entry(void *ctx, const char *path, const struct stat *st, const char *target)
{
        struct tree *t = ctx;

        (void)target;
        if (strcmp(path, MARKER_HALF) == 0)
                return 0;
        if (t->count % 1024 == 0) {
                struct entry *all = reallocarray(t->entries, t->count + 1024, sizeof(struct entry));

                if (!all)
                        return -ENOMEM;
                t->entries = all;
        }
        if (asprintf(&t->entries[t->count].path, "%s/%s", t->top, path) < 0)
                return -ENOMEM;
        t->entries[t->count++].is_dir = S_ISDIR(st->st_mode);
        return 0;
}

static int on_listed(void *ctx, const char *path)
{
        (void)ctx;
        (void)path;
        return 0;
}

/* The deepest last: a directory comes before what is in it. */
static int list(struct ssh_link *l, struct call *c, const char *top, struct tree *ret)
{
        const struct sftp_listing what = {.root = top, .depth = 1000, .entries_max = ENTRIES_MAX};
        const struct sftp_list_sink sink = {.entry = on_entry, .listed = on_listed, .ctx = ret};

        ret->top = top;
        return sftp_list(l->sftp, c, &what, &sink);
}

/* Whether a directory is of another file system than the base; 0 too where that can't be known. */
static int check_mount(struct ssh_link *l, struct call *c, const char *path, unsigned long fsid)
{
        struct statvfs vfs;
        int r = sftp_statvfs(l->sftp, c, path, &vfs);

        return r == 0 && vfs.f_fsid != fsid
                       ? call_fail(c, -EBUSY, "%s is a mount, and is left alone", path)
                       : 0;
}

static int check_mounts(struct ssh_link *l, struct call *c, const char *base, const struct tree *t)
{
        struct statvfs vfs;
        int r = 0;

        if (sftp_statvfs(l->sftp, c, base, &vfs) < 0)
                return 0;
        for (size_t i = 0; i < t->count && r == 0; i++)
                if (t->entries[i].is_dir)
                        r = check_mount(l, c, t->entries[i].path, vfs.f_fsid);
        return r;
}

/* A directory that we may not read is opened up, for the next pass. */
static void open_up(struct ssh_link *l, struct call *c, const struct tree *t)
{
        const struct sftp_set set = {.what = SFTP_SET_MODE, .mode = 0700};

        for (size_t i = 0; i < t->count; i++)
                if (t->entries[i].is_dir)
                        (void)sftp_setstat(l->sftp, c, t->entries[i].path,
                                           &set); /* the next pass sees */
}

/* What can be removed of a pass, backwards; how many went. */
static size_t remove_pass(struct ssh_link *l, struct call *c, const struct tree *t, int *ret_error)
{
        size_t done = 0;

        for (size_t i = t->count; i-- > 0;) {
                const struct entry *e = &t->entries[i];
                int r = e->is_dir ? sftp_rmdir(l->sftp, c, e->path)
                                  : sftp_unlink(l->sftp, c, e->path);

                if (r == 0 || r == -ENOENT)
                        done++;
                else if (*ret_error == 0)
                        *ret_error = r;
        }
        return done;
}

/* One pass over at most ENTRIES_MAX; 0 it's empty, 1 there may be more. */
static int pass(struct ssh_link *l, struct call *c, const char *base, const char *top, bool *opened)
{
        struct tree t = {0};
        int error = 0, r = list(l, c, top, &t);

        if (r == 0)
                r = check_mounts(l, c, base, &t);
        if (r == 0 && t.count > 0) {
                size_t done = remove_pass(l, c, &t, &error);

                r = 1;
                if (done == 0 && !*opened) {
                        open_up(l, c, &t);
                        *opened = true;
                } else if (done == 0) {
                        r = call_fail_errno(c, error < 0 ? error : -EIO, "%s", top);
                } else {
                        *opened = false;
                }
        }
        tree_done(&t);
        return r;
}

static int by_sftp(struct ssh_link *l, struct call *c, const char *base, const char *key)
{
        char top[PATH_SIZE], half[PATH_SIZE];
        bool opened = false;
        int r = 1;

        if (snprintf(half, sizeof(half), "%s/%s/" MARKER_HALF, base, key) >= (int)sizeof(half) ||
            snprintf(top, sizeof(top), "%s/%s", base, key) >= (int)sizeof(top))
                return call_fail(c, -ENAMETOOLONG, "the path of the sandbox is too long");
        for (unsigned i = 0; i < PASSES_MAX && r == 1; i++)
                r = pass(l, c, base, top, &opened);
        if (r == 1)
                r = call_fail(c, -EIO, "%s: somebody keeps filling it", top);
        if (r == 0)
                r = sftp_unlink(l->sftp, c, half);
        if (r == -ENOENT)
                r = 0;
        if (r == 0)
                r = sftp_rmdir(l->sftp, c, top);
        if (r == -ENOENT)
                r = 0;
        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "remove %s", top) : r;
}

int workspace_remove(struct ssh_host *h, struct ssh_link *l, struct call *c, const char *base,
                     const char *key)
{
        int can = host_probe(h, c);

        if (can < 0)
                return can;
        return can & HOST_SHELL ? by_shell(h, c, base, key) : by_sftp(l, c, base, key);
}
