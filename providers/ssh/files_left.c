/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Temporary names that a connection left behind when it broke: removed when there is one again.
 * Those of a run of ours that was killed go with the sandbox.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/files.h"
#include "transport/base/cleanup.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"

#define LEFT_MAX ((size_t)1 << 20) /* bytes of paths that are remembered */

/* A letter, 'd' or 'f', the path, NUL; one after the other. */
struct left {
        struct buf paths;
};

void left_add(struct ssh_box *b, bool is_dir, const char *path)
{
        struct left *left;
        int r = -ENOMEM;

        mutex_lock(&b->lock);
        left = b->files ? b->files : calloc(1, sizeof(*left));
        if (left && !b->files) {
                left->paths = BUF_INIT(LEFT_MAX);
                b->files = left;
        }
        if (left)
                r = buf_add_char(&left->paths, is_dir ? 'd' : 'f');
        if (r == 0) {
                r = buf_add(&left->paths, path, strlen(path) + 1);
                if (r < 0)
                        left->paths.size--;
        }
        mutex_unlock(&b->lock);
        if (r < 0)
                log_debug("ssh", "%s: ignoring: a temporary file is left: %s", b->base.id, path);
}

/* All that are remembered, which then aren't any more. */
static struct buf take(struct ssh_box *b)
{
        struct buf paths = {0};

        mutex_lock(&b->lock);
        if (b->files) {
                struct left *left = b->files;

                paths = left->paths;
                left->paths = BUF_INIT(LEFT_MAX);
        }
        mutex_unlock(&b->lock);
        return paths;
}

void left_remove(struct spot *s, struct call *c)
{
        _cleanup_(buf_done) struct buf paths = take(s->box);
        struct call quiet;

        call_init(&quiet, c->deadline_ns); /* what fails here is passed over */
        for (size_t at = 0; at < paths.size; at += strlen(paths.data + at) + 1) {
                const char *line = paths.data + at;
                struct sftp_op op = {.type = line[0] == 'd' ? SFTP_RMDIR : SFTP_UNLINK,
                                     .path = line + 1};

                if (sftp_run(s->sftp, &quiet, &op, 1) < 0)
                        left_add(s->box, line[0] == 'd', line + 1);
        }
}

void ssh_files_done(struct ssh_box *b)
{
        struct left *left = b->files;

        if (left)
                buf_done(&left->paths);
        free(left);
        b->files = NULL;
}
