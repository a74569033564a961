/* SPDX-License-Identifier: Apache-2.0 */

#include "fs/volume/journal_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/volume/journal.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/hash.h"

#define NAME "journal"
#define NAME_ANEW "journal.new"
#define LONG ((uint64_t)8 * 1024 * 1024)
#define BUF_MAX ((size_t)256 * 1024 * 1024)
#define TEXT_MAX ((uint32_t)65536)

enum row_kind { ROW_CHANGE = 1, ROW_END, ROW_REFUSAL, ROW_GONE };

/* In front of each record's two strings. Of this machine, for this machine. */
struct row {
        uint32_t size; /* of all that follows `check` */
        uint32_t check;
        uint64_t seq, record;
        int64_t atime, mtime; /* atime: the number of what has one */
        uint32_t atime_ns, mtime_ns;
        uint32_t kind, change, flags, what, mode;
        int32_t error;
        uint32_t creates;
        uint32_t path_size, to_size; /* without NUL; none is stored */
};

#define CHECKED_FROM offsetof(struct row, seq)

struct journal_log {
        int dir; /* borrowed */
        int fd;
        uint64_t size; /* of the file */
        struct buf rows; /* of the next append */
        bool is_short; /* memory was: the append fails */
};

void waiting_free(struct waiting *w)
{
        if (!w)
                return;
        free(w->path);
        free(w->to);
        free(w->sentence);
        free(w);
}

static uint32_t check_of(const struct row *row, const char *path, const char *to)
{
        uint32_t h =
                hash32(HASH32_START, (const char *)row + CHECKED_FROM, sizeof(*row) - CHECKED_FROM);

        h = hash32(h, path, row->path_size);
        return hash32(h, to, row->to_size);
}

/* ---- writing ---- */

static void add_row(struct journal_log *l, struct row row, const char *path, const char *to)
{
        size_t before = l->rows.size;

        row.path_size = path ? (uint32_t)strlen(path) : 0;
        row.to_size = to ? (uint32_t)strlen(to) : 0;
        row.size = (uint32_t)(sizeof(row) - CHECKED_FROM) + row.path_size + row.to_size;
        row.check = check_of(&row, path ? path : "", to ? to : "");
        if (buf_add(&l->rows, &row, sizeof(row)) == 0 &&
            buf_add(&l->rows, path ? path : "", row.path_size) == 0 &&
            buf_add(&l->rows, to ? to : "", row.to_size) == 0)
                return;
        l->rows.size = before;
        l->is_short = true;
}

/* It sets no time of access. */
static bool has_number(enum change_kind kind)
{
        return kind == CHANGE_STORE || kind == CHANGE_MKDIR;
}

void journal_log_change(struct journal_log *l, const struct waiting *w)
{
        struct row row = {.seq = w->seq,
                          .record = w->record,
                          .atime = has_number(w->kind) ? (int64_t)w->number : w->atime.tv_sec,
                          .mtime = w->mtime.tv_sec,
                          .atime_ns = (uint32_t)w->atime.tv_nsec,
                          .mtime_ns = (uint32_t)w->mtime.tv_nsec,
                          .kind = ROW_CHANGE,
                          .change = w->kind,
                          .flags = w->flags,
                          .what = w->what,
                          .mode = w->mode,
                          .creates = w->creates};

        add_row(l, row, w->path, w->to);
}

void journal_log_end(struct journal_log *l, uint64_t seq)
{
        add_row(l, (struct row){.kind = ROW_END, .seq = seq}, NULL, NULL);
}

void journal_log_refusal(struct journal_log *l, const struct waiting *w)
{
        add_row(l, (struct row){.kind = ROW_REFUSAL, .seq = w->seq, .error = w->error}, w->sentence,
                NULL);
}

void journal_log_gone(struct journal_log *l, uint64_t record)
{
        add_row(l, (struct row){.kind = ROW_GONE, .record = record}, NULL, NULL);
}

int journal_log_append(struct journal_log *l)
{
        size_t size = l->rows.size;
        int r = l->is_short ? -ENOMEM : 0;

        if (r == 0 && size > 0)
                r = file_pwrite_all(l->fd, l->rows.data, size, l->size);
        if (r == 0)
                l->size += size;
        else if (ftruncate(l->fd, (off_t)l->size) < 0) /* what came of it is not to be read */
                r = -EIO;
        buf_clear(&l->rows);
        l->is_short = false;
        return r;
}

void journal_log_clear(struct journal_log *l)
{
        if (l->size > 0 && ftruncate(l->fd, 0) == 0)
                l->size = 0; /* else its ends are in it */
}

bool journal_log_is_long(const struct journal_log *l)
{
        return l->size > LONG;
}

void journal_log_begin_anew(struct journal_log *l)
{
        buf_clear(&l->rows);
        l->is_short = false;
}

int journal_log_end_anew(struct journal_log *l)
{
        int fd = openat(l->dir, NAME_ANEW, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                        0600);
        size_t size = l->rows.size;
        int r = fd < 0 ? -errno : l->is_short ? -ENOMEM : 0;

        if (r == 0)
                r = file_write_all(fd, l->rows.data, size);
        if (r == 0 && renameat(l->dir, NAME_ANEW, l->dir, NAME) < 0)
                r = -errno;
        buf_clear(&l->rows);
        l->is_short = false;
        if (r < 0) {
                closep(&fd);
                (void)unlinkat(l->dir, NAME_ANEW, 0); /* the old one stays */
                return r;
        }
        closep(&l->fd);
        l->fd = fd;
        l->size = size;
        return 0;
}

/* ---- reading ---- */

/* One record at `data`; its bytes, or 0: no whole one is there. */
static size_t parse(const char *data, size_t size, struct row *row, char **path, char **to)
{
        const char *text = data + sizeof(*row);

        if (size < sizeof(*row))
                return 0;
        memcpy(row, data, sizeof(*row));
        if (row->path_size > TEXT_MAX || row->to_size > TEXT_MAX ||
            row->size != sizeof(*row) - CHECKED_FROM + row->path_size + row->to_size ||
            size - sizeof(*row) < (size_t)row->path_size + row->to_size ||
            row->check != check_of(row, text, text + row->path_size))
                return 0;
        *path = strndup(text, row->path_size);
        *to = strndup(text + row->path_size, row->to_size);
        return sizeof(*row) + row->path_size + row->to_size;
}

static struct waiting *waiting_of(const struct row *row, char **path, char **to)
{
        struct waiting *w = calloc(1, sizeof(*w));

        if (!w)
                return NULL;
        *w = (struct waiting){.seq = row->seq,
                              .kind = (enum change_kind)row->change,
                              .path = *path,
                              .to = *to,
                              .flags = row->flags,
                              .what = row->what,
                              .mode = row->mode,
                              .atime = {row->atime, row->atime_ns},
                              .mtime = {row->mtime, row->mtime_ns},
                              .record = row->record,
                              .creates = row->creates != 0,
                              .may_be_done = true};
        if (has_number(w->kind)) {
                w->number = (uint64_t)row->atime;
                w->atime = (struct timespec){0};
        }
        *path = *to = NULL;
        return w;
}

static int give(struct journal_log_reader *to, const struct row *row, char **path, char **text)
{
        struct waiting *w;

        switch (row->kind) {
        case ROW_CHANGE:
                if (row->change > CHANGE_SET)
                        return 0;
                w = waiting_of(row, path, text);
                return w ? to->change(to, w) : -ENOMEM;
        case ROW_END: to->end(to, row->seq); return 0;
        case ROW_REFUSAL: to->refusal(to, row->seq, row->error, *path); return 0;
        case ROW_GONE: to->gone(to, row->record); return 0;
        default: return 0;
        }
}

int journal_log_read(struct journal_log *l, struct journal_log_reader *to)
{
        struct buf all = BUF_INIT(BUF_MAX);
        size_t at = 0, n = 1;
        int r = file_read(l->dir, NAME, &all);

        while (r == 0 && n > 0 && at < all.size) {
                _cleanup_(freep) char *path = NULL;
                _cleanup_(freep) char *text = NULL;
                struct row row;

                n = parse(all.data + at, all.size - at, &row, &path, &text);
                if (n > 0 && (!path || !text))
                        r = -ENOMEM;
                else if (n > 0)
                        r = give(to, &row, &path, &text);
                at += n;
        }
        if (r == 0) {
                l->size = at;
                if (ftruncate(l->fd, (off_t)at) < 0)
                        r = -errno;
        }
        buf_done(&all);
        return r;
}

/* ---- life ---- */

int journal_log_open(int dir, struct journal_log **ret)
{
        struct journal_log *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return -ENOMEM;
        l->dir = dir;
        l->rows = BUF_INIT(BUF_MAX);
        l->fd = openat(dir, NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (l->fd < 0) {
                r = -errno;
                free(l);
                return r;
        }
        *ret = l;
        return 0;
}

void journal_log_close(struct journal_log *l)
{
        if (!l)
                return;
        closep(&l->fd);
        buf_done(&l->rows);
        free(l);
}

struct any {
        struct journal_log_reader head; /* first */
        uint64_t waiting;
};

static int count_change(struct journal_log_reader *to, struct waiting *w)
{
        ((struct any *)(void *)to)->waiting++; /* its head */
        waiting_free(w);
        return 0;
}

static void count_end(struct journal_log_reader *to, uint64_t seq)
{
        (void)seq;
        ((struct any *)(void *)to)->waiting--; /* its head */
}

static void pass_refusal(struct journal_log_reader *to, uint64_t seq, int error,
                         const char *sentence)
{
        (void)to, (void)seq, (void)error, (void)sentence;
}

static void pass_gone(struct journal_log_reader *to, uint64_t record)
{
        (void)to, (void)record;
}

bool journal_log_any(int dir)
{
        struct any any = {.head = {count_change, count_end, pass_refusal, pass_gone}};
        struct journal_log *l = NULL;
        bool is_any;

        if (journal_log_open(dir, &l) < 0 || !l)
                return true; /* nobody knows */
        is_any = journal_log_read(l, &any.head) < 0 || any.waiting > 0;
        journal_log_close(l);
        return is_any;
}
