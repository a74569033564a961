/* SPDX-License-Identifier: Apache-2.0 */
/* Large content by the service's own calls; see large.h. */

#include "providers/inside/large.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/agent/pool.h"
#include "providers/posix/place.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"

#define FILE_MIN (INT64_C(2) << 20) /* a file that is worth the further round trips */
#define WINDOW_MIN ((size_t)128 << 10) /* of it, a window that is */
#define FAILURES_MAX 3
#define RETRY_NS (300 * NS_PER_S)
#define REMOVE_NS (5 * NS_PER_S)

/* ---- whether ---- */

bool large_is_on(struct large *l)
{
        return l->ops->upload && l->ops->download &&
               (atomic_load(&l->failures) < FAILURES_MAX ||
                clock_mono_ns() >= atomic_load(&l->retry_ns));
}

static void succeeded(struct large *l)
{
        atomic_store(&l->failures, 0);
}

static void was_refused(struct large *l, const struct call *c)
{
        log_debug(l->ops->name, "%s: large content goes by the agent: %s", l->box->id, c->sentence);
        atomic_store(&l->retry_ns, clock_after(RETRY_NS));
        (void)atomic_fetch_add(&l->failures, 1);
}

/* Text that every service takes as it is: no other encoding, nothing that is cut off or expanded. */
static bool is_plain(const char *path)
{
        size_t size = strlen(path), n;

        if (path[0] == ' ' || (size > 0 && path[size - 1] == ' '))
                return false;
        for (size_t at = 0; at < size; at += n) {
                unsigned char x = (unsigned char)path[at];

                n = utf8_length(path + at, size - at);
                if (n == 0 || x < ' ' || x == 0x7f || strchr("$\\\"`", x))
                        return false;
        }
        return true;
}

/* Where it is for the service. */
static int whole_path(struct large *l, struct call *c, const char *path, char **ret)
{
        struct inside_facts facts;
        int r = l->ops->facts(l->box, c, &facts);

        if (r < 0)
                return r;
        if (!is_plain(facts.workdir))
                return -EOPNOTSUPP;
        return asprintf(ret, "%s/%s", strcmp(facts.workdir, "/") == 0 ? "" : facts.workdir, path) <
                               0
                       ? -ENOMEM
                       : 0;
}

/* ---- reading ---- */

bool large_may_read(struct large *l, const char *path, const struct stat *st)
{
        return large_is_on(l) && S_ISREG(st->st_mode) && st->st_size >= FILE_MIN && is_plain(path);
}

static bool is_time(struct timespec a, struct timespec b)
{
        return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* The same file, and nobody has written, renamed or linked it. */
static bool is_unchanged(const struct stat *a, const struct stat *b)
{
        return S_ISREG(b->st_mode) && a->st_ino == b->st_ino && a->st_size == b->st_size &&
               is_time(a->st_mtim, b->st_mtim) && is_time(a->st_ctim, b->st_ctim);
}

ssize_t large_read(struct large *l, struct call *c, const char *path, const struct stat *opened,
                   void *data, size_t size, uint64_t offset)
{
        _cleanup_(freep) char *whole = NULL;
        uint64_t left = (uint64_t)opened->st_size > offset ? (uint64_t)opened->st_size - offset : 0;
        size_t wanted = left < size ? (size_t)left : size;
        struct stat now;
        ssize_t n;
        int r;

        if (wanted < WINDOW_MIN || !large_is_on(l))
                return -EOPNOTSUPP;
        r = whole_path(l, c, path, &whole);
        if (r < 0)
                return r;
        n = l->ops->download(l->box, c, whole, data, wanted, offset);
        if (n == -EINTR || n == -ETIMEDOUT)
                return n;
        r = agent_pool_stat(l->agents, c, path, &now);
        if (r == 0 && is_unchanged(opened, &now)) {
                if (n == (ssize_t)wanted) {
                        succeeded(l);
                        return n;
                }
                was_refused(l, c); /* or it can't have been the file */
        }
        c->sentence[0] = '\0';
        return r == -EINTR || r == -ETIMEDOUT ? r : -EOPNOTSUPP;
}

/* ---- storing ---- */

/* All of its bytes are sent. */
static bool is_whole(const struct change *x)
{
        uint64_t size = 0;

        for (size_t i = 0; i < x->extent_count; i++)
                size += x->extents[i].size;
        return x->extent_count == 0 || size == x->from->size;
}

static bool is_large(const struct change *x)
{
        return x->kind == CHANGE_STORE && x->from && x->from->size >= (uint64_t)FILE_MIN &&
               x->temp && place_is_temp(x->temp) && is_whole(x) && is_plain(x->path);
}

/* Of a call that ended early: nothing from here on is known to have happened. */
static int end_early(struct change *changes, size_t count, int r)
{
        for (size_t i = 0; i < count; i++)
                changes[i].error = -EINPROGRESS;
        return r;
}

static void remove_temp(struct large *l, const char *temp)
{
        struct change x = {.kind = CHANGE_UNLINK, .path = temp};
        struct call c;

        call_init(&c, clock_after(REMOVE_NS));
        if (agent_pool_apply(l->agents, &c, &x, 1) < 0)
                log_debug(l->ops->name, "%s: %s: %s, ignoring", l->box->id, temp, c.sentence);
}

static int make_temp(struct large *l, struct call *c, const char *temp, int *ret_error)
{
        static struct file_source nothing; /* of size 0: never read */
        struct change x = {.kind = CHANGE_STORE, .path = temp, .mode = 0600, .from = &nothing};
        int r = agent_pool_apply(l->agents, c, &x, 1);

        *ret_error = x.error;
        return r;
}

static int give_name(struct large *l, struct call *c, const char *temp, struct change *x)
{
        struct change y = {.kind = CHANGE_RENAME,
                           .path = temp,
                           .to = x->path,
                           .flags = x->flags & CHANGE_EXCLUSIVE ? RENAME_NOREPLACE : 0,
                           .what = (x->what & (FILE_SET_ATIME | FILE_SET_MTIME)) | FILE_SET_MODE |
                                   FILE_SET_SIZE,
                           .mode = x->mode,
                           .size = x->from->size,
                           .atime = x->atime,
                           .mtime = x->mtime};
        int r = agent_pool_apply(l->agents, c, &y, 1);

        x->error = y.error;
        x->has_st = y.has_st;
        x->st = y.st;
        return r;
}

/* 0: x has its result; 1: it is to be stored by the agent; -errno of the call. */
static int store(struct large *l, struct call *c, struct change *x)
{
        const char *slash = strrchr(x->path, '/');
        int directory = slash ? (int)(slash + 1 - x->path) : 0;
        _cleanup_(freep) char *temp = NULL, *whole = NULL;
        int r, error;

        if (asprintf(&temp, "%.*s%s", directory, x->path, x->temp) < 0)
                return -ENOMEM;
        r = whole_path(l, c, temp, &whole);
        if (r == -EOPNOTSUPP)
                return 1;
        if (r == 0)
                r = make_temp(l, c, temp, &error);
        if (r < 0)
                return r;
        x->error = error;
        if (error < 0)
                return 0;
        r = l->ops->upload(l->box, c, whole, x->from);
        if (r == 0) {
                r = give_name(l, c, temp, x);
                if (r == 0 && x->error == 0)
                        succeeded(l);
                if (r < 0 || x->error == 0)
                        return r;
                if (x->error != -EINVAL) { /* the file system's own word */
                        remove_temp(l, temp);
                        return 0;
                }
        }
        remove_temp(l, temp);
        if (r == -EINTR || r == -ETIMEDOUT)
                return r;
        was_refused(l, c);
        c->sentence[0] = '\0';
        return 1;
}

int large_apply(struct large *l, struct call *c, struct change *changes, size_t count)
{
        size_t done = 0;

        while (done < count) {
                size_t next = done;
                int r = 0;

                while (next < count && !(is_large(&changes[next]) && large_is_on(l)))
                        next++;
                if (next > done)
                        r = agent_pool_apply(l->agents, c, changes + done, next - done);
                if (r < 0)
                        return end_early(changes + next, count - next, r);
                if (next == count)
                        return 0;
                changes[next].has_st = false;
                r = store(l, c, &changes[next]);
                if (r > 0)
                        r = agent_pool_apply(l->agents, c, &changes[next], 1);
                if (r < 0)
                        return end_early(changes + next, count - next, r);
                done = next + 1;
        }
        return 0;
}
