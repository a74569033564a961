/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many small files, whole. LSTAT of some thousand paths tells which are files of the right size (an
 * OPEN of a FIFO would never be answered); then many at a time are opened, and behind each OPEN go
 * FSTAT, READs, FSTAT and CLOSE in one row: what both FSTAT say belongs to what was read. Where the
 * caller has just seen regular files, OPEN goes right behind each LSTAT: a round trip less.
 *
 * A server that isn't known to keep the order gets the row one step after the other.
 */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/sftp/batch.h"
#include "transport/sftp/private.h"

#define PATHS_AT_ONCE 4096
#define FILES_AT_ONCE 128 /* of a server that doesn't tell how many handles it has */
#define FILES_MAX 512
#define BYTES_MAX (8u << 20) /* in memory; one file may be more */
#define TRIES 2
#define OPS_AT_ONCE 64 /* in one submission */

/* The steps of a file; as `step` of its ops, too. */
enum step { STEP_OPEN, STEP_BEFORE, STEP_READ, STEP_AFTER, STEP_CLOSE, STEP_END };

struct file {
        struct job *job;
        size_t index; /* among the paths */
        const char *path;
        unsigned tries;
        enum step step; /* that answers are awaited for */
        size_t pending;
        struct stat st; /* as first seen */
        int error;
        bool has_changed;
        bool is_looked_at; /* `st` is right */
        struct sftp_op look, open, before, after, close;
        unsigned char *data;
        size_t size; /* to be read; 1 of an empty file, to see that it is empty */
        size_t got;
        struct sftp_op *reads;
        size_t read_count;
        struct list link; /* in job.free, or job.waiting */
};

struct job {
        struct sftp *s;
        struct call *call;
        const struct sftp_fetch_sink *to;
        const char *const *paths;
        size_t size_max;
        bool is_ordered;
        uint32_t piece;
        size_t file_count; /* at a time */
        size_t active;
        uint64_t bytes; /* in memory */
        struct file *files;
        struct list free;
        struct list waiting; /* they are open; for room in memory */
        struct sftp_queue q;
        struct sftp_op *out[OPS_AT_ONCE]; /* to be submitted, before anything is waited for */
        size_t out_count;
};

static void flush(struct job *j)
{
        if (j->out_count == 0)
                return;
        sftp_submit_each(j->s, &j->q, j->out, j->out_count);
        j->out_count = 0;
}

static void submit(struct job *j, struct sftp_op *op)
{
        j->out[j->out_count++] = op;
        if (j->out_count == OPS_AT_ONCE)
                flush(j);
}

/* ---- one file ---- */

static void submit_open(struct file *f)
{
        f->open = (struct sftp_op){
                .type = SFTP_OPEN, .path = f->path, .flags = SFTP_FOR_READ, .ctx = f};
        f->close = (struct sftp_op){0};
        f->step = STEP_OPEN;
        f->pending++;
        submit(f->job, &f->open);
}

/* LSTAT and OPEN together. */
static void submit_both(struct file *f)
{
        f->look = (struct sftp_op){.type = SFTP_LSTAT, .path = f->path, .ctx = f};
        f->is_looked_at = false;
        f->pending = 1;
        submit(f->job, &f->look);
        submit_open(f);
}

static struct sftp_op row_op(struct file *f, enum sftp_type type, enum step step)
{
        return (struct sftp_op){.type = type,
                                .is_bulk = true, /* all of the row: in its order */
                                .handle = f->open.handle,
                                .ctx = f,
                                .step = step};
}

static void make_row(struct file *f)
{
        f->before = row_op(f, SFTP_FSTAT, STEP_BEFORE);
        f->after = row_op(f, SFTP_FSTAT, STEP_AFTER);
        f->close = row_op(f, SFTP_CLOSE, STEP_CLOSE);
        f->got = 0;
        f->has_changed = false;
        f->error = 0;
        for (size_t i = 0; i < f->read_count; i++) {
                size_t at = i * f->job->piece;
                size_t left = f->size - at;
                struct sftp_op *op = &f->reads[i];

                *op = row_op(f, SFTP_READ, STEP_READ);
                op->offset = at;
                op->size = left < f->job->piece ? (uint32_t)left : f->job->piece;
                op->buffer = f->data + at;
        }
}

/* Send one step of the row, or all that is left of it. */
static void submit_row(struct file *f, enum step from, enum step to)
{
        f->step = to;
        f->pending = 0;
        for (enum step step = from; step <= to; step++) {
                size_t count = step == STEP_READ ? f->read_count : 1;
                struct sftp_op *first = step == STEP_BEFORE  ? &f->before
                                        : step == STEP_READ  ? f->reads
                                        : step == STEP_AFTER ? &f->after
                                                             : &f->close;

                f->pending += count;
                for (size_t i = 0; i < count; i++)
                        submit(f->job, &first[i]);
        }
}

static int make_room(struct file *f)
{
        struct job *j = f->job;

        f->size = f->st.st_size > 0 ? (size_t)f->st.st_size : 1;
        f->read_count = (f->size + j->piece - 1) / j->piece;
        f->data = malloc(f->size);
        f->reads = calloc(f->read_count, sizeof(*f->reads));
        if (!f->data || !f->reads)
                return -ENOMEM;
        j->bytes += f->size;
        return 0;
}

static void free_room(struct file *f)
{
        if (f->data && f->reads)
                f->job->bytes -= f->size;
        free(f->data);
        free(f->reads);
        f->data = NULL;
        f->reads = NULL;
}

/* Why there is nothing to read of a file with these attributes, or 0. */
static int refuse(const struct job *j, const struct stat *st)
{
        if (!S_ISREG(st->st_mode))
                return -EINVAL;
        return (uint64_t)st->st_size > j->size_max ? -EFBIG : 0;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
        return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
               a->st_mode == b->st_mode;
}

static int give(struct file *f, int error)
{
        struct job *j = f->job;
        int r = j->to->file(j->to->ctx, f->index, error, &f->st, error ? NULL : f->data,
                            error ? 0 : f->got);

        free_room(f);
        list_add_head(&j->free, &f->link);
        j->active--;
        return r;
}

static int start_again(struct file *f)
{
        int r;

        free_room(f);
        r = refuse(f->job, &f->st);
        if (r < 0)
                return give(f, r);
        r = make_room(f);
        if (r < 0)
                return r;
        submit_open(f);
        return 0;
}

/* All answers of the row are in. */
static int finish(struct file *f)
{
        const struct stat *before = &f->before.st, *after = &f->after.st;
        bool is_whole = f->got == (size_t)before->st_size && is_same(before, after);

        f->open.handle.size = 0;
        if (f->error < 0)
                return give(f, f->error);
        f->st = *after;
        if (is_whole && !f->has_changed)
                return give(f, 0);
        return ++f->tries < TRIES ? start_again(f) : give(f, -EAGAIN);
}

static void begin_row(struct file *f)
{
        make_row(f);
        if (f->job->is_ordered)
                submit_row(f, STEP_BEFORE, STEP_CLOSE);
        else
                submit_row(f, STEP_BEFORE, STEP_BEFORE);
}

/* It was opened unseen, and isn't to be read. */
static int turn_away(struct file *f, int error)
{
        if (f->open.error == 0)
                sftp_close_later(f->job->s, &f->open.handle);
        f->open.handle.size = 0;
        return give(f, error);
}

/* What LSTAT said of a file that was opened together with it. */
static int take_look(struct file *f)
{
        int r = f->look.error;

        f->is_looked_at = true;
        f->st = f->look.st;
        if (r == 0) {
                if (!(f->st.st_mode & S_IFMT))
                        f->st.st_mode |= S_IFREG; /* all that is left to say */
                r = refuse(f->job, &f->st);
        }
        return r;
}

static bool has_memory(const struct job *j, const struct file *f)
{
        return j->bytes == 0 || j->bytes + (uint64_t)f->st.st_size <= BYTES_MAX;
}

static int take_open(struct file *f)
{
        int r = f->is_looked_at ? 0 : take_look(f);

        if (r < 0)
                return turn_away(f, r);
        if (f->open.error < 0) /* of FAILURE it may be that it had no handle left */
                return f->open.error == -EIO && ++f->tries < TRIES ? start_again(f)
                                                                   : give(f, f->open.error);
        if (!f->data && !has_memory(f->job, f)) {
                list_add_tail(&f->job->waiting, &f->link);
                return 0;
        }
        r = f->data ? 0 : make_room(f);
        if (r == 0)
                begin_row(f);
        return r;
}

/* Those that wait for memory, in turn. */
static int go_on(struct job *j)
{
        int r = 0;

        while (r == 0 && !list_is_empty(&j->waiting)) {
                struct file *f = container_of(j->waiting.next, struct file, link);

                if (!has_memory(j, f))
                        break;
                list_remove(&f->link);
                r = make_room(f);
                if (r == 0)
                        begin_row(f);
        }
        return r;
}

static void take_read(struct file *f, struct sftp_op *op)
{
        f->got += op->got;
        if (op->got == op->size || op->got == 0)
                return; /* less than all: then it isn't what it was */
        if (f->job->is_ordered) {
                f->has_changed = true;
                return;
        }
        op->offset += op->got; /* a server may give less than asked */
        op->size -= (uint32_t)op->got;
        op->buffer = (unsigned char *)op->buffer + op->got;
        f->pending++;
        submit(f->job, op);
}

static int take(struct sftp_op *op)
{
        struct file *f = op->ctx;

        if (f->step == STEP_OPEN)
                return --f->pending > 0 ? 0 : take_open(f);
        if (op->error < 0 && op != &f->close && f->error == 0)
                f->error = op->error;
        if (op->step == STEP_READ && op->error == 0)
                take_read(f, op);
        if (--f->pending > 0)
                return 0;
        if (f->step == STEP_CLOSE)
                return finish(f);
        if (f->error < 0)
                submit_row(f, STEP_CLOSE, STEP_CLOSE);
        else
                submit_row(f, f->step + 1, f->step + 1);
        return 0;
}

/* ---- all of them ---- */

static struct file *new_file(struct job *j, const char *path, size_t index)
{
        struct file *f = container_of(j->free.next, struct file, link);

        list_remove(&f->link);
        j->active++;
        f->index = index;
        f->path = path;
        f->tries = 0;
        f->pending = 0;
        f->open = (struct sftp_op){0};
        return f;
}

/* Start on one more path, of which LSTAT said this. */
static int start(struct job *j, const struct sftp_stat_item *item, size_t index)
{
        int r = item->error ? item->error : refuse(j, &item->st);
        struct file *f;

        if (r < 0)
                return j->to->file(j->to->ctx, index, r, &item->st, NULL, 0);
        f = new_file(j, item->path, index);
        f->st = item->st;
        f->is_looked_at = true;
        r = make_room(f);
        if (r == 0)
                submit_open(f);
        return r;
}

static bool has_room(const struct job *j)
{
        return j->active == 0 ||
               (j->active < j->file_count && j->bytes < BYTES_MAX && list_is_empty(&j->waiting));
}

static int take_some(struct job *j)
{
        struct sftp_op *op;
        int r;

        flush(j);
        r = sftp_next(&j->q, j->call, &op);
        for (; r == 0 && op; op = sftp_next_now(&j->q)) {
                if (op->is_lost)
                        return queue_lost(j->s, j->call);
                r = take(op);
        }
        return r == 0 ? go_on(j) : r;
}

/* Up to PATHS_AT_ONCE paths from `first` on. */
static int fetch_some(struct job *j, struct sftp_stat_item *items, size_t first, size_t count)
{
        bool are_seen = !j->to->are_regular || !j->is_ordered;
        int r = 0;

        for (size_t i = 0; i < count; i++)
                items[i] = (struct sftp_stat_item){.path = j->paths[first + i]};
        if (are_seen)
                r = sftp_stat(j->s, j->call, items, count);
        for (size_t next = 0; r == 0 && (next < count || j->active > 0);) {
                if (next == count || !has_room(j)) {
                        r = take_some(j);
                        continue;
                }
                if (are_seen)
                        r = start(j, &items[next], first + next);
                else
                        submit_both(new_file(j, items[next].path, first + next));
                next++;
        }
        return r;
}

/* How many at a time: an eighth of the handles that the server says it has. */
static size_t files_at_once(struct sftp *s)
{
        uint64_t handles;

        mutex_lock(&s->lock);
        handles = s->handles_max;
        mutex_unlock(&s->lock);
        if (handles == 0)
                return FILES_AT_ONCE;
        handles = handles / 8 < FILES_MAX ? handles / 8 : FILES_MAX;
        return handles > 0 ? (size_t)handles : 1;
}

static void done(struct job *j)
{
        sftp_queue_done(&j->q); /* before the memory that is read into goes */
        for (size_t i = 0; i < j->file_count; i++) {
                struct file *f = &j->files[i];

                if (f->open.handle.size > 0 && !f->close.was_sent)
                        sftp_close_later(j->s, &f->open.handle);
                free_room(f);
        }
        free(j->files);
}

int sftp_fetch(struct sftp *s, struct call *c, const char *const *paths, size_t count,
               size_t size_max, const struct sftp_fetch_sink *to)
{
        size_t room = count < PATHS_AT_ONCE ? count : PATHS_AT_ONCE;
        _cleanup_(freep) struct sftp_stat_item *items = calloc(room + 1, sizeof(*items));
        struct job j = {
                .s = s,
                .call = c,
                .to = to,
                .paths = paths,
                .size_max = size_max,
                .is_ordered = sftp_is_ordered(s),
                .piece = sftp_piece_max(s),
                .file_count = files_at_once(s),
        };
        int r = 0;

        if (j.file_count > room)
                j.file_count = room;
        j.files = calloc(j.file_count + 1, sizeof(*j.files));
        if (!items || !j.files) {
                free(j.files);
                return call_fail_errno(c, -ENOMEM, "read files");
        }
        list_init(&j.free);
        list_init(&j.waiting);
        for (size_t i = 0; i < j.file_count; i++) {
                j.files[i].job = &j;
                list_add_tail(&j.free, &j.files[i].link);
        }
        sftp_queue_init(&j.q);
        for (size_t first = 0; r == 0 && first < count; first += PATHS_AT_ONCE)
                r = fetch_some(&j, items, first,
                               count - first < PATHS_AT_ONCE ? count - first : PATHS_AT_ONCE);
        done(&j);
        return r;
}
