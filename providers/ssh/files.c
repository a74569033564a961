/* SPDX-License-Identifier: Apache-2.0 */
/* Files of an ssh sandbox: attributes, links, whole files, and parts of large ones. */

#include "providers/ssh/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/lock.h"
#include "transport/base/random.h"

#define STRIPE_READ ((size_t)4 << 20) /* one read of this size is spread over all connections */
#define FEW_FILES 8 /* they take as long as the way, so often: */
#define FEW_STEPS 3
#define AGAIN_MAX 3 /* times to fetch what changes while it is read */

int ssh_spot_init(struct spot *s, struct box *b, struct call *c)
{
        int r;

        *s = (struct spot){.box = ssh_box_of(b)};
        r = ssh_box_paths(s->box, c, &s->paths);
        if (r == 0)
                r = host_probe(s->box->host, c);
        if (r < 0)
                return r;
        s->has_shell = (r & HOST_SHELL) != 0;
        s->has_find = s->has_shell && (r & HOST_FIND_PRINTF) != 0;
        s->has_touch = s->has_find && (r & HOST_TOUCH_NS) != 0;
        s->has_tar = s->has_shell && (r & HOST_TAR) != 0 && (r & HOST_DD) != 0;
        s->has_mv = s->has_shell && (r & HOST_MV_T) != 0;
        r = host_link(s->box->host, c, HOST_CONTROL, &s->link);
        if (r < 0)
                return r;
        s->sftp = s->link->sftp;
        return 0;
}

void ssh_spot_done(struct spot *s)
{
        link_unref(s->link);
}

char *ssh_spot_path(const struct spot *s, const char *path)
{
        char *whole;

        if (!path[0])
                return strdup(s->paths->work);
        return asprintf(&whole, "%s/%s", s->paths->work, path) < 0 ? NULL : whole;
}

/* ---- attributes ---- */

/* The directory itself isn't there: then so may be the sandbox. */
static int missed(struct spot *s, const char *path, int r)
{
        if (r == -ENOENT && !path[0])
                ssh_box_missed(s->box);
        return r;
}

static int stat_plain(struct spot *s, struct call *c, const char *path, struct stat *ret)
{
        _cleanup_(freep) char *whole = ssh_spot_path(s, path);
        struct sftp_stat_item item = {.path = whole};
        int r = whole ? sftp_stat(s->sftp, c, &item, 1) : -ENOMEM;

        if (r < 0)
                return r;
        if (item.error < 0)
                return why_path(s, c, path, item.error);
        *ret = item.st;
        return 0;
}

int ssh_stat(struct box *b, struct call *c, const char *path, struct stat *ret)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        int r = ssh_spot_init(&s, b, c);

        if (r < 0)
                return r;
        r = s.has_find ? find_stat(&s, c, path, ret) : -ENOENT;
        if (r == -ENOENT)
                r = stat_plain(&s, c, path, ret);
        return missed(&s, path, r);
}

int ssh_readlink(struct box *b, struct call *c, const char *path, char *ret, size_t size)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        _cleanup_(freep) char *whole = NULL;
        int r = ssh_spot_init(&s, b, c);

        if (r < 0)
                return r;
        whole = ssh_spot_path(&s, path);
        r = whole ? sftp_readlink(s.sftp, c, whole, ret, size) : -ENOMEM;
        return r == -ENOENT || r == -EIO ? why_path(&s, c, path, r) : r;
}

int ssh_statfs(struct box *b, struct call *c, struct statvfs *ret)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        int r = ssh_spot_init(&s, b, c);

        return r < 0 ? r : missed(&s, "", sftp_statvfs(s.sftp, c, s.paths->work, ret));
}

/* ---- whole files ---- */

struct fetching {
        struct spot *spot;
        struct call *call;
        const char *const *paths; /* the caller's */
        const size_t *indexes; /* ours to the caller's */
        struct file_sink *to;
        size_t *again; /* the caller's indexes of those that changed meanwhile */
        size_t again_count;
        size_t *absent; /* of those that aren't there, as the server says */
        size_t absent_count;
        bool is_last;
};

static int on_file(void *ctx, size_t index, int error, const struct stat *st, const void *data,
                   size_t size)
{
        struct fetching *f = ctx;
        size_t at = f->indexes[index];

        if (error == -EAGAIN && !f->is_last) {
                f->again[f->again_count++] = at;
                return 0;
        }
        if (error == -ENOENT) {
                f->absent[f->absent_count++] = at;
                return 0;
        }
        return f->to->file(f->to, at, error, st, data, size);
}

/* The files of f->indexes. */
static int fetch_some(struct fetching *f, size_t count, size_t size_max)
{
        const struct sftp_fetch_sink sink = {
                .file = on_file, .ctx = f, .are_regular = f->to->are_regular};
        _cleanup_(freep) char **paths = calloc(count + 1, sizeof(*paths));
        uint64_t begin_ns = clock_mono_ns();
        int r = paths ? 0 : -ENOMEM;

        for (size_t i = 0; r == 0 && i < count; i++) {
                paths[i] = ssh_spot_path(f->spot, f->paths[f->indexes[i]]);
                r = paths[i] ? 0 : -ENOMEM;
        }
        if (r == 0)
                r = sftp_fetch(f->spot->sftp, f->call, (const char *const *)paths, count, size_max,
                               &sink);
        if (r == 0 && count > 0 && count <= FEW_FILES)
                files_took(f->spot->box, (clock_mono_ns() - begin_ns) / FEW_STEPS);
        for (size_t i = 0; paths && i < count; i++)
                free(paths[i]);
        return r;
}

/* ENOENT or ENOTDIR: the server doesn't tell. */
static int tell_absent(struct fetching *f)
{
        _cleanup_(freep) const char **paths = calloc(f->absent_count + 1, sizeof(*paths));
        _cleanup_(freep) int *errors = calloc(f->absent_count + 1, sizeof(*errors));
        const struct stat none = {0};
        int r = paths && errors ? 0 : -ENOMEM;

        for (size_t i = 0; r == 0 && i < f->absent_count; i++) {
                paths[i] = f->paths[f->absent[i]];
                errors[i] = -ENOENT;
        }
        if (r == 0 && f->absent_count > 0)
                why_paths(f->spot, f->call, paths, errors, f->absent_count);
        for (size_t i = 0; r == 0 && i < f->absent_count; i++)
                r = f->to->file(f->to, f->absent[i], errors[i], &none, NULL, 0);
        return r;
}

/* By tar where that pays. What is left for SFTP: `*count` indexes. */
static int pull_some(struct fetching *f, size_t *count, size_t size_max, size_t *indexes)
{
        _cleanup_(freep) bool *is_told = calloc(*count + 1, sizeof(*is_told));
        size_t left = 0;
        int r = is_told ? 0 : -ENOMEM;

        if (r == 0 && pull_pays(f->spot, *count))
                r = pull_files(f->spot, f->call, f->paths, *count, size_max, f->to, is_told);
        for (size_t i = 0; r == 0 && i < *count; i++) {
                if (!is_told[i])
                        indexes[left++] = i;
        }
        *count = left;
        return r;
}

int ssh_fetch(struct box *b, struct call *c, const char *const *paths, size_t count,
              size_t size_max, struct file_sink *to)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        _cleanup_(freep) size_t *indexes = calloc(3 * count + 1, sizeof(*indexes));
        struct fetching f = {.spot = &s, .call = c, .paths = paths, .to = to, .indexes = indexes};
        int r = indexes ? ssh_spot_init(&s, b, c) : -ENOMEM;

        if (r < 0)
                return r;
        f.again = indexes + count;
        f.absent = indexes + 2 * count;
        r = pull_some(&f, &count, size_max, indexes);
        for (unsigned i = 1; r == 0 && count > 0; i++) {
                f.is_last = i == AGAIN_MAX;
                f.again_count = 0;
                r = fetch_some(&f, count, size_max);
                count = f.again_count;
                memcpy(indexes, f.again, count * sizeof(*indexes));
        }
        return r == 0 ? tell_absent(&f) : r;
}

/* ---- parts of files ---- */

/* One open file: a handle on the control connection, and when it is large, on others. */
struct ssh_file {
        struct box_file base;
        char *path; /* absolute */
        struct stat st; /* as it was opened */
        uint64_t round_trip_ns; /* about */

        struct mutex lock;
        /* guarded by lock */
        struct ssh_link *links[HOST_LANES]; /* NULL: not yet; [HOST_CONTROL] always */
        struct sftp_handle handles[HOST_LANES];
        bool is_denied[HOST_LANES]; /* can't be had there, or it is another file by now */
        unsigned busy[HOST_LANES]; /* reads */
        uint64_t bytes; /* read so far */
        uint64_t tried_ns; /* when more connections were asked for last */
        bool is_widening; /* somebody is at it */
};

static int open_regular(struct spot *s, struct call *c, struct ssh_file *f)
{
        struct sftp_stat_item item = {.path = f->path};
        uint64_t begin = clock_mono_ns();
        int r = sftp_stat(s->sftp, c, &item, 1);

        if (r < 0 || item.error < 0)
                return r < 0 ? r : item.error;
        f->round_trip_ns = clock_mono_ns() - begin;
        f->st = item.st;
        /* Looked at first: the server would hang in open(2) of a FIFO. */
        if (!S_ISREG(item.st.st_mode))
                return -EINVAL;
        return sftp_open(s->sftp, c, f->path, SFTP_FOR_READ, 0, &f->handles[HOST_CONTROL]);
}

static void file_free(struct ssh_file *f)
{
        mutex_done(&f->lock);
        free(f->path);
        free(f);
}

int ssh_file_open(struct box *b, struct call *c, const char *path, struct box_file **ret,
                  struct stat *ret_st)
{
        _cleanup_(ssh_spot_done) struct spot s = {0};
        struct ssh_file *f;
        int r = ssh_spot_init(&s, b, c);

        if (r < 0)
                return r;
        f = calloc(1, sizeof(*f));
        if (!f)
                return -ENOMEM;
        mutex_init(&f->lock);
        f->path = ssh_spot_path(&s, path);
        r = f->path ? open_regular(&s, c, f) : -ENOMEM;
        if (r < 0) {
                file_free(f);
                return r == -ENOENT ? why_path(&s, c, path, r) : r;
        }
        f->base.box = b;
        mutex_lock(&f->lock);
        f->links[HOST_CONTROL] = link_ref(s.link);
        mutex_unlock(&f->lock);
        *ret_st = f->st;
        *ret = &f->base;
        return 0;
}

void ssh_file_close(struct box_file *base)
{
        struct ssh_file *f = container_of(base, struct ssh_file, base);

        for (unsigned i = 0; i < HOST_LANES; i++) {
                if (f->links[i])
                        sftp_close_later(f->links[i]->sftp, &f->handles[i]);
                link_unref(f->links[i]);
        }
        file_free(f);
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
        return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid &&
               a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec;
}

/*
 * Open it on these connections, all at the same time: the error of each is in opens[]. By now its
 * path may lead to another file, or to one that changes, or that could block: then not.
 */
static int open_on(struct ssh_file *f, struct ssh_link *const *links, struct sftp_op *opens,
                   size_t count, struct call *c)
{
        struct sftp_op looks[HOST_LANES] = {0};
        int r;

        for (size_t i = 0; i < count; i++)
                looks[i] = (struct sftp_op){.type = SFTP_LSTAT, .path = f->path};
        r = lanes_run(links, looks, count, c);
        for (size_t i = 0; r == 0 && i < count; i++) {
                opens[i] = (struct sftp_op){
                        .type = SFTP_OPEN, .path = f->path, .flags = SFTP_FOR_READ};
                if (looks[i].error < 0 || !is_same_file(&looks[i].st, &f->st))
                        opens[i].error = -ESTALE;
        }
        if (r == 0)
                r = lanes_run(links, opens, count, c);
        for (size_t i = 0; r == 0 && i < count; i++)
                looks[i] = (struct sftp_op){
                        .type = SFTP_FSTAT, .handle = opens[i].handle, .error = opens[i].error};
        if (r == 0)
                r = lanes_run(links, looks, count, c);
        for (size_t i = 0; r == 0 && i < count; i++) {
                if (opens[i].error == 0 &&
                    (looks[i].error < 0 || !is_same_file(&looks[i].st, &f->st))) {
                        sftp_close_later(links[i]->sftp, &opens[i].handle);
                        opens[i].error = -ESTALE;
                }
        }
        return r;
}

/* Which connections this file should get now; false: none, or somebody is at it. */
static bool begin_widening(struct ssh_file *f, size_t size, bool *is_wanted)
{
        uint64_t now_ns = clock_mono_ns();
        unsigned active = 1, open = 0;
        bool is_any = false, is_wide;

        mutex_lock(&f->lock);
        f->bytes += size;
        for (unsigned i = 0; i < HOST_LANES; i++) {
                active += f->busy[i];
                open += i >= HOST_BULK && f->links[i];
        }
        is_wide = active > open || size > STRIPE_READ;
        for (unsigned i = HOST_BULK; i < HOST_LANES; i++) {
                is_wanted[i] = !f->links[i] && !f->is_denied[i] &&
                               f->bytes > lanes_pay_from(i, f->round_trip_ns) &&
                               (i == HOST_BULK || is_wide);
                is_any |= is_wanted[i];
        }
        is_any &= !f->is_widening && now_ns > f->tried_ns + 20 * NS_PER_MS;
        if (is_any) {
                f->is_widening = true;
                f->tried_ns = now_ns;
        }
        mutex_unlock(&f->lock);
        return is_any;
}

static void widen(struct ssh_file *f, struct call *c, size_t size)
{
        struct sftp_op opens[HOST_LANES] = {0};
        struct ssh_link *links[HOST_LANES];
        bool is_wanted[HOST_LANES] = {0};
        size_t n;
        int r = 0;

        if (!begin_widening(f, size, is_wanted))
                return;
        n = lanes_take(ssh_box_of(f->base.box)->host, is_wanted, links);
        if (n > 0)
                r = open_on(f, links, opens, n, c);
        mutex_lock(&f->lock);
        for (size_t i = 0; i < n; i++) {
                enum host_lane lane = links[i]->lane;

                f->is_denied[lane] = r < 0 || opens[i].error < 0;
                if (f->is_denied[lane])
                        continue;
                f->handles[lane] = opens[i].handle;
                f->links[lane] = links[i];
                links[i] = NULL;
        }
        f->is_widening = false;
        mutex_unlock(&f->lock);
        for (size_t i = 0; i < n; i++)
                link_unref(links[i]);
}

static bool is_usable_locked(const struct ssh_file *f, unsigned lane) REQUIRES(f->lock)
{
        return f->links[lane] && sftp_error(f->links[lane]->sftp, NULL, 0) == 0;
}

/* The connections that carry this read: one, the least busy, or all where it is a large one. */
static size_t choose(struct ssh_file *f, size_t size, unsigned *lanes)
{
        unsigned best = HOST_CONTROL;
        size_t n = 0;

        mutex_lock(&f->lock);
        for (unsigned i = HOST_BULK; i < HOST_LANES; i++) {
                if (!is_usable_locked(f, i))
                        continue;
                lanes[n++] = i;
                if (best == HOST_CONTROL || f->busy[i] < f->busy[best])
                        best = i;
        }
        if (n == 0 || size <= STRIPE_READ) {
                lanes[0] = best;
                n = 1;
        }
        for (size_t i = 0; i < n; i++)
                f->busy[lanes[i]]++;
        mutex_unlock(&f->lock);
        return n;
}

static ssize_t read_by(struct call *c, const struct sftp_file *files, size_t count, void *data,
                       size_t size, uint64_t offset, struct stat *ret_st)
{
        ssize_t n = sftp_read(files, count, c, data, size, offset, ret_st);

        for (size_t i = 0; n < 0 && n != -EINTR && n != -ETIMEDOUT && i < count; i++) {
                if (sftp_error(files[i].s, NULL, 0) < 0)
                        return -ESTALE;
        }
        return n;
}

static void unbusy(struct ssh_file *f, const unsigned *lanes, size_t count)
{
        mutex_lock(&f->lock);
        for (size_t i = 0; i < count; i++)
                f->busy[lanes[i]]--;
        mutex_unlock(&f->lock);
}

ssize_t ssh_file_read(struct box_file *base, struct call *c, void *data, size_t size,
                      uint64_t offset, struct stat *ret_st)
{
        struct ssh_file *f = container_of(base, struct ssh_file, base);
        struct sftp_file files[HOST_LANES];
        unsigned lanes[HOST_LANES];
        size_t count;
        ssize_t n;

        widen(f, c, size);
        count = choose(f, size, lanes);
        for (size_t i = 0; i < count; i++) /* a link that is there stays until the file is closed */
                files[i] = (struct sftp_file){f->links[lanes[i]]->sftp, f->handles[lanes[i]]};
        n = read_by(c, files, count, data, size, offset, ret_st);
        unbusy(f, lanes, count);
        if (n == -ESTALE && lanes[0] != HOST_CONTROL) { /* not the handle that counts */
                files[0] =
                        (struct sftp_file){f->links[HOST_CONTROL]->sftp, f->handles[HOST_CONTROL]};
                n = read_by(c, files, 1, data, size, offset, ret_st);
        }
        return n == -ESTALE ? call_fail(c, -ESTALE, "the connection that it was open on is gone")
                            : n;
}
