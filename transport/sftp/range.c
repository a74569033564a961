/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of one file, in pieces, over one connection or several: a piece goes to the connection
 * that has the least of them.
 */

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "transport/base/cleanup.h"
#include "transport/sftp/batch.h"
#include "transport/sftp/private.h"

#define FILES_MAX 8
#define FILE_PIECES (BULK_BYTES_MAX / WIRE_PIECE_MAX)

/* One transfer. A piece's op has its place among the files in `step`. */
struct job {
        const struct sftp_file *files;
        size_t file_count;
        struct call *call;
        uint64_t offset; /* of its first byte in the file */
        uint64_t size;
        uint64_t next; /* what follows isn't asked for yet; from `offset` */
        uint32_t piece;
        unsigned pending[FILES_MAX]; /* by file */
        size_t op_count;
        struct sftp_op *ops;
        unsigned char *data; /* reading: the caller's; writing: a piece for each op */
        const struct sftp_source *from;
        struct sftp_op stat; /* reading: the last */
        bool wants_stat, stat_is_sent;
        bool stat_is_early; /* something was sent after it */
        struct sftp_queue q;
};

static int init(struct job *j, size_t file_count)
{
        uint64_t pieces;

        assert(file_count > 0 && file_count <= FILES_MAX);
        j->file_count = file_count;
        j->piece = WIRE_PIECE_MAX;
        for (size_t i = 0; i < file_count; i++) {
                uint32_t max = sftp_piece_max(j->files[i].s);

                if (max < j->piece)
                        j->piece = max;
        }
        pieces = j->size / j->piece + 1;
        j->op_count = pieces < file_count * FILE_PIECES ? (size_t)pieces : file_count * FILE_PIECES;
        j->ops = calloc(j->op_count, sizeof(*j->ops));
        if (!j->ops)
                return call_fail_errno(j->call, -ENOMEM, "transfer");
        sftp_queue_init(&j->q);
        return 0;
}

static void done(struct job *j)
{
        sftp_queue_done(&j->q);
        free(j->ops);
}

static unsigned least_busy(const struct job *j)
{
        unsigned best = 0;

        for (unsigned i = 1; i < j->file_count; i++) {
                if (j->pending[i] < j->pending[best])
                        best = i;
        }
        return best;
}

/* Give an op the next piece and the connection that is to carry it. */
static void aim(struct job *j, struct sftp_op *op, enum sftp_type type)
{
        uint64_t left = j->size - j->next;

        op->type = type;
        op->is_bulk = true;
        op->step = least_busy(j);
        op->handle = j->files[op->step].handle;
        op->offset = j->offset + j->next;
        op->size = left < j->piece ? (uint32_t)left : j->piece;
        j->next += op->size;
        j->pending[op->step]++;
}

/* Those that are ready, to the connection that each was aimed at; `last` to the first one. */
static void submit(struct job *j, struct sftp_op **ready, size_t count, struct sftp_op *last)
{
        for (unsigned i = 0; i < j->file_count; i++) {
                struct sftp_op *some[FILES_MAX * FILE_PIECES + 1];
                size_t n = 0;

                for (size_t k = 0; k < count; k++) {
                        if (ready[k]->step == i)
                                some[n++] = ready[k];
                }
                if (i == 0 && last)
                        some[n++] = last;
                if (n > 0)
                        sftp_submit_each(j->files[i].s, &j->q, some, n);
        }
}

/* ---- reading ---- */

static void aim_read(struct job *j, struct sftp_op *op)
{
        aim(j, op, SFTP_READ);
        op->buffer = j->data + (op->offset - j->offset);
}

/* What came of a piece. True when its op is to be sent once more, for what is missing. */
static bool take_read(struct job *j, struct sftp_op *op)
{
        uint64_t at = op->offset - j->offset;

        if (op->got == 0) { /* the end of the file: nothing counts beyond */
                if (at < j->size)
                        j->size = at;
        } else if (op->got < op->size) {
                op->offset += op->got;
                op->buffer = (unsigned char *)op->buffer + op->got;
                op->size -= (uint32_t)op->got;
                return true;
        }
        j->pending[op->step]--;
        if (j->next >= j->size)
                return false;
        aim_read(j, op);
        return true;
}

static struct sftp_op *make_stat(struct job *j)
{
        j->stat =
                (struct sftp_op){.type = SFTP_FSTAT, .is_bulk = true, .handle = j->files[0].handle};
        j->stat_is_sent = true;
        j->stat_is_early = false;
        return &j->stat;
}

/* Pieces, and behind the last of them, where that is the order of the answers, FSTAT. */
static void submit_reads(struct job *j, struct sftp_op **ready, size_t count)
{
        bool goes_last = j->wants_stat && !j->stat_is_sent && j->next >= j->size &&
                         j->file_count == 1 && sftp_is_ordered(j->files[0].s);

        if (count > 0 && j->stat_is_sent)
                j->stat_is_early = true;
        submit(j, ready, count, goes_last ? make_stat(j) : NULL);
}

/* Wait for the answers that are there and send what they make room for. */
static int read_some(struct job *j)
{
        struct sftp_op *ready[FILES_MAX * FILE_PIECES];
        struct sftp_op *op;
        size_t n = 0;
        int r = sftp_next(&j->q, j->call, &op);

        if (r < 0)
                return r;
        for (; op; op = sftp_next_now(&j->q)) {
                if (op->is_lost)
                        return queue_lost(op->sftp, j->call);
                if (op->error < 0)
                        return op->error;
                if (op != &j->stat && take_read(j, op))
                        ready[n++] = op;
        }
        submit_reads(j, ready, n);
        return 0;
}

static int read_all(struct job *j)
{
        struct sftp_op *ready[FILES_MAX * FILE_PIECES];
        size_t n = 0;
        int r;

        for (; n < j->op_count && j->next < j->size; n++) {
                aim_read(j, &j->ops[n]);
                ready[n] = &j->ops[n];
        }
        j->q.wants_all = j->next >= j->size; /* no answer makes room for more */
        submit_reads(j, ready, n);
        do {
                r = read_some(j);
                if (r == -ENOENT && j->wants_stat && (!j->stat_is_sent || j->stat_is_early)) {
                        submit(j, NULL, 0, make_stat(j));
                        r = 0;
                }
        } while (r == 0);
        return r == -ENOENT ? 0 : r;
}

ssize_t sftp_read(const struct sftp_file *files, size_t file_count, struct call *c, void *data,
                  size_t size, uint64_t offset, struct stat *ret_st)
{
        struct job j = {.files = files,
                        .call = c,
                        .offset = offset,
                        .size = size < SSIZE_MAX ? size : SSIZE_MAX,
                        .data = data,
                        .wants_stat = ret_st};
        int r = init(&j, file_count);

        if (r < 0)
                return r;
        r = read_all(&j);
        done(&j);
        if (r < 0)
                return r;
        if (ret_st)
                *ret_st = j.stat.st;
        return (ssize_t)j.size;
}

/* ---- writing ---- */

static int aim_write(struct job *j, struct sftp_op *op)
{
        unsigned char *data = j->data + (size_t)(op - j->ops) * j->piece;

        aim(j, op, SFTP_WRITE);
        op->data = data;
        return j->from->read(j->from->ctx, data, op->size, op->offset);
}

/* Fill what is free, of `ready`, and send it. */
static int write_more(struct job *j, struct sftp_op **ready, size_t count)
{
        size_t n = 0;
        int r = 0;

        while (r == 0 && n < count && j->next < j->size)
                r = aim_write(j, ready[n++]);
        if (r < 0)
                return call_fail_errno(j->call, r, "read what is to be written");
        submit(j, ready, n, NULL);
        return 0;
}

static int write_all(struct job *j)
{
        struct sftp_op *ready[FILES_MAX * FILE_PIECES];
        struct sftp_op *op;
        size_t n;
        int r;

        for (n = 0; n < j->op_count; n++)
                ready[n] = &j->ops[n];
        r = write_more(j, ready, n);
        while (r == 0) {
                r = sftp_next(&j->q, j->call, &op);
                for (n = 0; r == 0 && op; op = sftp_next_now(&j->q)) {
                        if (op->is_lost)
                                return queue_lost(op->sftp, j->call);
                        if (op->error < 0)
                                return op->error;
                        j->pending[op->step]--;
                        ready[n++] = op;
                }
                if (r == 0)
                        r = write_more(j, ready, n);
        }
        return r == -ENOENT ? 0 : r;
}

int sftp_write(const struct sftp_file *files, size_t file_count, struct call *c,
               const struct sftp_source *from, uint64_t size, uint64_t offset)
{
        struct job j = {.files = files, .call = c, .offset = offset, .size = size, .from = from};
        int r = init(&j, file_count);

        if (r < 0)
                return r;
        j.data = malloc(j.op_count * j.piece);
        r = j.data ? write_all(&j) : call_fail_errno(c, -ENOMEM, "write");
        done(&j);
        free(j.data);
        return r;
}
