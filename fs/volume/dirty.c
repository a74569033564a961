/* SPDX-License-Identifier: Apache-2.0 */
/* Records of what waits to be sent. */

#include "fs/volume/dirty.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/volume/spool.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/log.h"
#include "transport/base/record.h"

/* As the end of an entry, whose start is then: */
#define NEW_SIZE UINT64_MAX /* the file was made so long */
#define IS_SIZE (UINT64_MAX - 1) /* so long it is, and nothing is ours for that */
#define BASE_SIZE (UINT64_MAX - 2) /* so long the sandbox's file may be */
/* What is on its way: three, of which the last makes it count. */
#define TRY_SIZE (UINT64_MAX - 3)
#define TRY_SECONDS (UINT64_MAX - 4)
#define TRY_NS (UINT64_MAX - 5) /* and TRY_IN_PLACE */
#define TRY_IN_PLACE ((uint64_t)1 << 32)

/* ---- records ---- */

static int add_time(struct record *r, const char *key, struct timespec t)
{
        return record_addf(r, key, "%lld.%09ld", (long long)t.tv_sec, t.tv_nsec);
}

static int fill_record(struct record *to, const struct dirty_record *from)
{
        int r = record_add(to, "path", from->path);

        if (r == 0)
                r = record_add(to, "kind", from->is_whole ? "whole" : "parts");
        if (r == 0)
                r = record_addf(to, "sets_mode", "%d", from->sets_mode);
        if (r == 0)
                r = record_addf(to, "mode", "%o", (unsigned)from->mode);
        if (r == 0)
                r = add_time(to, "mtime", from->mtime);
        if (r == 0)
                r = record_addf(to, "seq", "%" PRIu64, from->seq);
        if (r == 0)
                r = record_addf(to, "base_size", "%" PRIu64, (uint64_t)from->base.st_size);
        if (r == 0)
                r = record_addf(to, "version_size", "%" PRIu64, from->version_size);
        if (r == 0)
                r = record_addf(to, "base_ino", "%" PRIu64, (uint64_t)from->base.st_ino);
        if (r == 0)
                r = add_time(to, "base_mtime", from->base.st_mtim);
        if (r == 0)
                r = add_time(to, "base_ctime", from->base.st_ctim);
        return r;
}

int dirty_write(int dir, uint64_t id, const struct dirty_record *from)
{
        _cleanup_(record_freep) struct record *to = record_new();
        char name[SPOOL_NAME_SIZE];
        int r = to ? fill_record(to, from) : -ENOMEM;

        if (r < 0)
                return r;
        spool_name('r', id, name);
        return record_write(to, dir, name, RECORD_NO_SYNC);
}

void dirty_remove(int dir, uint64_t id)
{
        char name[SPOOL_NAME_SIZE];

        spool_name('r', id, name);
        (void)unlinkat(dir, name, 0); /* as the header says */
        spool_name('x', id, name);
        (void)unlinkat(dir, name, 0); /* without a record it means nothing */
}

static uint64_t get_number(const struct record *r, const char *key, int base)
{
        const char *text = record_get(r, key);

        return text ? strtoull(text, NULL, base) : 0;
}

static struct timespec get_time(const struct record *r, const char *key)
{
        const char *text = record_get(r, key);
        struct timespec t = {0};
        char *end;

        if (!text)
                return t;
        t.tv_sec = strtoll(text, &end, 10);
        if (*end == '.')
                t.tv_nsec = strtol(end + 1, NULL, 10);
        if (t.tv_nsec < 0 || t.tv_nsec > 999999999)
                t.tv_nsec = 0;
        return t;
}

static int read_record(int dir, uint64_t id, struct dirty_found *ret)
{
        _cleanup_(record_freep) struct record *r = NULL;
        char name[SPOOL_NAME_SIZE];
        const char *path, *kind;
        int e;

        spool_name('r', id, name);
        e = record_read(dir, name, &r);
        if (e < 0)
                return e;
        path = record_get(r, "path");
        kind = record_get(r, "kind");
        if (!path || !kind)
                return -EBADMSG;
        ret->path = strdup(path);
        if (!ret->path)
                return -ENOMEM;
        ret->id = id;
        ret->record = (struct dirty_record){
                .path = ret->path,
                .is_whole = strcmp(kind, "whole") == 0,
                .sets_mode = get_number(r, "sets_mode", 10) != 0,
                .mode = (mode_t)get_number(r, "mode", 8) & 07777,
                .mtime = get_time(r, "mtime"),
                .seq = get_number(r, "seq", 10),
        };
        ret->record.base.st_size = (off_t)get_number(r, "base_size", 10);
        ret->record.base.st_ino = (ino_t)get_number(r, "base_ino", 10);
        ret->record.base.st_mtim = get_time(r, "base_mtime");
        ret->record.base.st_ctim = get_time(r, "base_ctime");
        ret->record.version_size = get_number(r, "version_size", 10);
        if (!record_get(r, "version_size")) /* of an earlier release: it can't be compared */
                ret->record.base.st_mtim = (struct timespec){0};
        return 0;
}

/* ---- parts ---- */

/* From its end on to `start`, which something now comes behind: zeros that are ours. */
static int fill_gap(struct dirty_parts *p, uint64_t start)
{
        uint64_t end = start < p->base_size ? start : p->base_size;

        return extents_add(&p->dirty, p->size, end); /* nothing when it is empty */
}

int dirty_wrote(struct dirty_parts *p, uint64_t start, uint64_t end)
{
        int r = start > p->size ? fill_gap(p, start) : 0;

        if (r == 0)
                r = extents_add(&p->dirty, start, end);
        if (r == 0 && end > p->size)
                p->size = end;
        return r;
}

int dirty_resized(struct dirty_parts *p, uint64_t size)
{
        int r = size > p->size ? fill_gap(p, size) : extents_remove(&p->dirty, size, UINT64_MAX);

        if (r == 0) {
                p->size = size;
                p->sets_size = true;
        }
        return r;
}

/* ---- the list of a changed file ---- */

static int append(int dir, uint64_t id, const struct extent *entries, size_t count)
{
        char name[SPOOL_NAME_SIZE];
        _cleanup_(closep) int fd = -1;
        ssize_t n;

        spool_name('x', id, name);
        fd = openat(dir, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        n = write(fd, entries, count * sizeof(*entries));
        if (n == (ssize_t)(count * sizeof(*entries)))
                return 0;
        if (n < 0)
                return -errno;
        /* Part of an entry would put all later ones out of step. */
        n = lseek(fd, 0, SEEK_END);
        if (n < 0 || ftruncate(fd, n - n % (ssize_t)sizeof(*entries)) < 0)
                return -EIO;
        return -ENOSPC;
}

int dirty_log_write(int dir, uint64_t id, uint64_t start, uint64_t end)
{
        return append(dir, id, &(struct extent){start, end}, 1);
}

int dirty_log_size(int dir, uint64_t id, uint64_t size)
{
        return append(dir, id, &(struct extent){size, NEW_SIZE}, 1);
}

int dirty_log_base(int dir, uint64_t id, uint64_t base_size)
{
        return append(dir, id, &(struct extent){base_size, BASE_SIZE}, 1);
}

/* The i-th of those that are kept, as entries. */
static void fill_try(const struct dirty_tries *tries, unsigned i, struct extent to[3])
{
        const struct dirty_try *t = &tries->at[i % DIRTY_TRIES];
        bool is_cut = tries->is_cut && i + 1 == tries->count;

        to[0] = (struct extent){t->size, TRY_SIZE};
        to[1] = (struct extent){(uint64_t)t->mtime.tv_sec, TRY_SECONDS};
        to[2] = (struct extent){(uint64_t)t->mtime.tv_nsec | (is_cut ? TRY_IN_PLACE : 0), TRY_NS};
}

int dirty_log_try(int dir, uint64_t id, const struct dirty_tries *tries)
{
        struct extent entries[3];

        fill_try(tries, tries->count - 1, entries);
        return append(dir, id, entries, 3);
}

/* Those that are kept, oldest first: how many entries. */
static size_t fill_tries(const struct dirty_tries *tries, struct extent to[3 * DIRTY_TRIES])
{
        unsigned first = tries->count > DIRTY_TRIES ? tries->count - DIRTY_TRIES : 0;
        size_t n = 0;

        for (unsigned i = first; i < tries->count; i++, n += 3)
                fill_try(tries, i, to + n);
        return n;
}

int dirty_log_tries(int dir, uint64_t id, const struct dirty_tries *tries)
{
        struct extent entries[3 * DIRTY_TRIES];
        size_t count = fill_tries(tries, entries);

        return count > 0 ? append(dir, id, entries, count) : 0;
}

int dirty_log_anew(int dir, uint64_t id, const struct dirty_parts *parts)
{
        const struct extents *dirty = &parts->dirty;
        struct extent sizes[3] = {{parts->base_size, BASE_SIZE},
                                  {parts->size, IS_SIZE},
                                  {parts->size, parts->sets_size ? NEW_SIZE : IS_SIZE}};
        struct extent tries[3 * DIRTY_TRIES];
        char name[SPOOL_NAME_SIZE], fresh[SPOOL_NAME_SIZE];
        _cleanup_(closep) int fd = -1;
        int r;

        spool_name('x', id, name);
        spool_name('y', id, fresh);
        fd = openat(dir, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        r = file_write_all(fd, sizes, sizeof(sizes));
        if (r == 0)
                r = file_write_all(fd, dirty->at, dirty->count * sizeof(*dirty->at));
        if (r == 0)
                r = file_write_all(fd, tries, fill_tries(&parts->tries, tries) * sizeof(*tries));
        if (r == 0 && renameat(dir, fresh, dir, name) < 0)
                r = -errno;
        if (r < 0)
                (void)unlinkat(dir, fresh, 0); /* else the next start removes it */
        return r;
}

void dirty_tried(struct dirty_tries *tries, struct dirty_try what, bool is_in_place)
{
        tries->at[tries->count++ % DIRTY_TRIES] = what;
        tries->is_cut = is_in_place;
}

/* `next` is put together from three entries. True: this is one of them. */
static bool replay_try(const struct extent *e, struct dirty_try *next, struct dirty_tries *to)
{
        switch (e->end) {
        case TRY_SIZE: next->size = e->start; return true;
        case TRY_SECONDS: next->mtime.tv_sec = (time_t)e->start; return true;
        case TRY_NS:
                next->mtime.tv_nsec = (long)(e->start & (TRY_IN_PLACE - 1));
                dirty_tried(to, *next, (e->start & TRY_IN_PLACE) != 0);
                return true;
        default: return false;
        }
}

static int replay(const struct extent *entries, size_t count, struct dirty_try *next,
                  struct dirty_parts *p)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < count; i++) {
                if (replay_try(&entries[i], next, &p->tries))
                        continue;
                if (entries[i].end == NEW_SIZE)
                        r = dirty_resized(p, entries[i].start);
                else if (entries[i].end == IS_SIZE)
                        p->size = entries[i].start;
                else if (entries[i].end == BASE_SIZE)
                        p->base_size = entries[i].start;
                else if (entries[i].start < entries[i].end)
                        r = dirty_wrote(p, entries[i].start, entries[i].end);
        }
        return r;
}

static int read_log(int dir, uint64_t id, struct dirty_parts *p)
{
        struct extent entries[256];
        struct dirty_try next = {0};
        char name[SPOOL_NAME_SIZE];
        _cleanup_(closep) int fd = -1;
        uint64_t at = 0;
        ssize_t n;
        int r = 0;

        spool_name('x', id, name);
        fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno; /* none was answered for */
        while (r == 0) {
                n = file_pread_full(fd, entries, sizeof(entries), at);
                if (n <= 0)
                        return (int)n;
                r = replay(entries, (size_t)n / sizeof(*entries), &next, p);
                at += (size_t)n;
        }
        return r;
}

/* ---- what an earlier run left ---- */

void dirty_found_done(struct dirty_found *f)
{
        free(f->path);
        extents_done(&f->parts.dirty);
}

/* How long the file is, when it was changed last, and which parts of it are ours. */
static int measure(int dir, struct dirty_found *f)
{
        char name[SPOOL_NAME_SIZE];
        struct stat st;

        spool_name('b', f->id, name);
        if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        if (f->record.mtime.tv_sec == 0 && f->record.mtime.tv_nsec == 0)
                f->record.mtime = st.st_mtim;
        if (f->record.is_whole) {
                int r = read_log(dir, f->id, &f->parts); /* what was tried */

                f->parts.size = (uint64_t)st.st_size;
                return r == 0 ? extents_add(&f->parts.dirty, 0, f->parts.size) : r;
        }
        f->parts.size = f->parts.base_size = (uint64_t)f->record.base.st_size;
        return read_log(dir, f->id, &f->parts);
}

static int load(int dir, uint64_t id, struct dirty_found *ret)
{
        int r;

        *ret = (struct dirty_found){0};
        r = read_record(dir, id, ret);
        if (r == 0)
                r = measure(dir, ret);
        if (r < 0)
                dirty_found_done(ret);
        return r;
}

/* Numbers of all names, by kind. */
struct ids {
        uint64_t *at;
        size_t count, room;
};

static int ids_add(struct ids *l, uint64_t id)
{
        uint64_t *at;

        if (l->count == l->room) {
                l->room = l->room ? l->room * 2 : 64;
                at = reallocarray(l->at, l->room, sizeof(*at));
                if (!at)
                        return -ENOMEM;
                l->at = at;
        }
        l->at[l->count++] = id;
        return 0;
}

static int by_number_down(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? 1 : x > y ? -1 : 0;
}

static bool ids_have(const struct ids *l, uint64_t id)
{
        return l->at && bsearch(&id, l->at, l->count, sizeof(*l->at), by_number_down);
}

static DIR *open_listing(int dir)
{
        int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);

        if (!d)
                closep(&fd);
        return d;
}

static int find_records(int dir, struct ids *ret)
{
        _cleanup_(closedirp) DIR *d = open_listing(dir);
        struct dirent *e;
        int r = 0;

        if (!d)
                return -errno;
        while (r == 0 && (e = readdir(d))) {
                uint64_t id = spool_id('r', e->d_name);

                if (id != 0)
                        r = ids_add(ret, id);
        }
        if (ret->count > 1)
                qsort(ret->at, ret->count, sizeof(*ret->at), by_number_down);
        return r;
}

/* Bytes and lists that no record names, and what was half written. */
static int sweep(int dir, const struct ids *records, uint64_t *ret_max)
{
        _cleanup_(closedirp) DIR *d = open_listing(dir);
        struct dirent *e;

        if (!d)
                return -errno;
        while ((e = readdir(d))) {
                uint64_t id = spool_id('b', e->d_name);
                bool is_lost = strncmp(e->d_name, ".tmp-", 5) == 0;

                if (id == 0)
                        id = spool_id('x', e->d_name);
                if (id != 0)
                        is_lost = !ids_have(records, id);
                if (spool_id('y', e->d_name) != 0)
                        is_lost = true;
                if (is_lost)
                        (void)unlinkat(dir, e->d_name, 0); /* the next start tries again */
                else if (id > *ret_max)
                        *ret_max = id;
        }
        return 0;
}

int dirty_find(int dir, struct dirty_found **ret, size_t *ret_count, uint64_t *ret_max)
{
        struct ids records = {0};
        struct dirty_found *found = NULL;
        size_t count = 0;
        int r = find_records(dir, &records);

        *ret_max = records.count > 0 ? records.at[0] : 0;
        if (r == 0)
                r = sweep(dir, &records, ret_max);
        if (r == 0 && records.count > 0) {
                found = calloc(records.count, sizeof(*found));
                r = found ? 0 : -ENOMEM;
        }
        for (size_t i = 0; r == 0 && i < records.count; i++) {
                int e = load(dir, records.at[i], &found[count]);

                if (e == 0)
                        count++;
                else if (e == -ENOENT)
                        dirty_remove(dir, records.at[i]); /* its bytes were given up */
                else
                        log_error("changes that wait to be sent (r-%016" PRIx64
                                  ") can't be read: %s",
                                  records.at[i], errno_name(e));
        }
        free(records.at);
        if (r < 0) {
                free(found);
                return r;
        }
        *ret = found;
        *ret_count = count;
        return 0;
}

bool dirty_any(int dir)
{
        struct ids records = {0};
        bool is_any = find_records(dir, &records) < 0 || records.count > 0;

        free(records.at);
        return is_any;
}
