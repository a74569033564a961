/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of a window. */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "providers/ssh/files_window_parts.h"

bool batch_init(struct batch *b, struct window *w, size_t room)
{
        *b = (struct batch){.w = w, .ops = calloc(room + 1, sizeof(*b->ops)), .room = room};
        return b->ops;
}

struct sftp_op *batch_add(struct batch *b, struct window_item *i, enum sftp_type type,
                          const char *path)
{
        struct sftp_op *op = &b->ops[b->count++];

        assert(b->count <= b->room);
        *op = (struct sftp_op){.type = type,
                               .path = path,
                               .ctx = i,
                               .is_bulk = b->w->bytes > 0,
                               .handle = i->handle};
        return op;
}

int batch_run(struct batch *b)
{
        struct spot *s = b->w->spot;
        bool is_ordered = sftp_is_ordered(s->sftp);
        size_t step = is_ordered ? b->count : 1;
        int r = 0;

        for (size_t at = 0; r == 0 && at < b->count; at += step) {
                struct window_item *i = b->ops[at].ctx;

                if (!is_ordered && i->error < 0 && b->ops[at].type != SFTP_CLOSE) {
                        b->ops[at].error = -ECANCELED; /* what it follows has failed */
                        continue;
                }
                r = sftp_run(s->sftp, b->w->call, &b->ops[at], step);
                if (!is_ordered && r == 0 && b->ops[at].error < 0 &&
                    b->ops[at].type != SFTP_LSTAT && i->error > 0)
                        i->error = b->ops[at].error;
        }
        return r;
}

void batch_take_errors(struct batch *b)
{
        for (size_t k = 0; k < b->count; k++) {
                struct window_item *i = b->ops[k].ctx;

                if (i->error > 0 && b->ops[k].error < 0)
                        i->error = b->ops[k].error;
        }
}
