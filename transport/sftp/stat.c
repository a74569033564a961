/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of many paths: as many as may be in flight, sent by the part. */

#include <errno.h>
#include <stdlib.h>

#include "transport/base/cleanup.h"
#include "transport/sftp/batch.h"
#include "transport/sftp/private.h"

#define PARTS 4
#define PART (METADATA_MAX / PARTS)

struct job {
        struct sftp *s;
        struct sftp_stat_item *items;
        size_t count, next;
        struct sftp_queue q;
        size_t pending[PARTS];
        struct sftp_op ops[PARTS][PART];
};

/* A part whose answers are all in asks for the next paths. */
static void submit_part(struct job *j, size_t part)
{
        size_t n = 0;

        for (; n < PART && j->next < j->count; n++, j->next++) {
                j->ops[part][n] = (struct sftp_op){
                        .type = SFTP_LSTAT,
                        .path = j->items[j->next].path,
                        .ctx = &j->items[j->next],
                };
        }
        j->pending[part] = n;
        sftp_submit(j->s, &j->q, j->ops[part], n);
}

static void take(struct job *j, const struct sftp_op *op)
{
        struct sftp_stat_item *item = op->ctx;
        size_t part = (size_t)(op - &j->ops[0][0]) / PART;

        item->error = op->error;
        if (op->error == 0) {
                item->st = op->st;
                if (!(item->st.st_mode & S_IFMT))
                        item->st.st_mode |= S_IFREG; /* all that is left to say */
        }
        if (--j->pending[part] == 0)
                submit_part(j, part);
}

int sftp_stat(struct sftp *s, struct call *c, struct sftp_stat_item *items, size_t count)
{
        _cleanup_(freep) struct job *j = calloc(1, sizeof(*j));
        struct sftp_op *op;
        int r;

        if (!j)
                return call_fail_errno(c, -ENOMEM, "attributes");
        j->s = s;
        j->items = items;
        j->count = count;
        sftp_queue_init(&j->q);
        for (size_t i = 0; i < PARTS; i++)
                submit_part(j, i);
        while ((r = sftp_next(&j->q, c, &op)) == 0) {
                if (op->is_lost) {
                        r = queue_lost(s, c);
                        break;
                }
                take(j, op);
        }
        sftp_queue_done(&j->q);
        return r == -ENOENT ? 0 : r;
}
