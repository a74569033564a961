/* SPDX-License-Identifier: Apache-2.0 */
/* Listings: one find by the helper shell where the host has GNU's, one round trip; else SFTP. */

#include <errno.h>
#include <string.h>

#include "providers/shell/list.h"
#include "providers/shell/runner.h"
#include "providers/ssh/files.h"
#include "transport/base/cleanup.h"

static const char *name_of(const char *path)
{
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

static int list_by_find(struct spot *s, struct call *c, const struct file_listing *what,
                        struct file_list_sink *to)
{
        struct shell_by_helpers by = shell_by_helpers(s->box->host->shell);
        _cleanup_(freep) char *root = ssh_spot_path(s, what->path);

        return root ? find_list(&by.runner, c, root, what, to) : -ENOMEM;
}

/* ---- by SFTP ---- */

static int on_sftp_entry(void *ctx, const char *path, const struct stat *st, const char *target)
{
        struct file_list_sink *to = ctx;

        return place_is_temp(name_of(path)) ? 0 : to->entry(to, path, st, target);
}

static int on_sftp_listed(void *ctx, const char *path)
{
        struct file_list_sink *to = ctx;

        return to->listed(to, path);
}

static int list_by_sftp(struct spot *s, struct call *c, const struct file_listing *what,
                        struct file_list_sink *to)
{
        const struct sftp_list_sink sink = {
                .entry = on_sftp_entry, .listed = on_sftp_listed, .ctx = to};
        _cleanup_(freep) char *root = ssh_spot_path(s, what->path);
        const struct sftp_listing listing = {.root = root,
                                             .depth = what->into ? 1 : what->depth,
                                             .entries_max = what->entries_max,
                                             .skip = what->skip,
                                             .wants_targets = true};
        struct sftp_stat_item item = {.path = root};
        int r = root ? sftp_stat(s->sftp, c, &item, 1) : -ENOMEM;

        if (r < 0 || item.error < 0)
                return r < 0 ? r : item.error;
        if (!S_ISDIR(item.st.st_mode))
                return -ENOTDIR; /* the server would follow a link */
        return sftp_list(s->sftp, c, &listing, &sink);
}

int ssh_list_files(struct box *b, struct call *c, const struct file_listing *what,
                   struct file_list_sink *to)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        int r = ssh_spot_init(&s, b, c);

        if (r < 0)
                return r;
        r = s.has_find ? list_by_find(&s, c, what, to) : list_by_sftp(&s, c, what, to);
        if (r == -ENOENT || r == -EIO)
                r = why_listing(&s, c, what->path, r);
        if (r == -ENOENT && !what->path[0])
                ssh_box_missed(s.box);
        return r;
}
