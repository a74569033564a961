/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is remembered of a sandbox's files: how long the way is, and temporary names that a
 * connection left behind when it broke. These are removed when there is one again; those of a run
 * of ours that was killed go with the sandbox.
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
        uint64_t round_trip_ns; /* about; 0 not known */
};

static struct left *left_of_locked(struct ssh_box *b) REQUIRES(b->lock)
{
        struct left *left = b->files ? b->files : calloc(1, sizeof(*left));

        if (left && !b->files) {
                left->paths = BUF_INIT(LEFT_MAX);
                b->files = left;
        }
        return left;
}

void files_took(struct ssh_box *b, uint64_t ns)
{
        struct left *left;

        mutex_lock(&b->lock);
        left = left_of_locked(b);
        if (left && (left->round_trip_ns == 0 || ns < left->round_trip_ns))
                left->round_trip_ns = ns;
        else if (left) /* the way may have become another */
                left->round_trip_ns += (ns - left->round_trip_ns) / 8;
        mutex_unlock(&b->lock);
}

uint64_t files_round_trip(struct ssh_box *b)
{
        const struct left *left;
        uint64_t ns;

        mutex_lock(&b->lock);
        left = b->files;
        ns = left ? left->round_trip_ns : 0;
        mutex_unlock(&b->lock);
        return ns;
}

void left_add(struct ssh_box *b, bool is_dir, const char *path)
{
        struct left *left;
        int r = -ENOMEM;

        mutex_lock(&b->lock);
        left = left_of_locked(b);
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
        _cleanup_(freep) struct sftp_op *ops = NULL;
        struct call quiet;
        size_t count = 0, n = 0;

        for (size_t at = 0; at < paths.size; at++)
                count += !paths.data[at];
        ops = calloc(count + 1, sizeof(*ops));
        if (!ops || count == 0)
                return;
        for (size_t at = 0; at < paths.size; at += strlen(paths.data + at) + 1)
                ops[n++] =
                        (struct sftp_op){.type = paths.data[at] == 'd' ? SFTP_RMDIR : SFTP_UNLINK,
                                         .path = paths.data + at + 1};
        call_init(&quiet, c->deadline_ns); /* what fails here is passed over */
        (void)sftp_run(s->sftp, &quiet, ops, n);
        for (size_t i = 0; i < n; i++) {
                if (ops[i].error == -EINPROGRESS || ops[i].error == -ECANCELED)
                        left_add(s->box, ops[i].type == SFTP_RMDIR, ops[i].path);
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
