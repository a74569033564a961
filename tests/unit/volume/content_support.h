/* SPDX-License-Identifier: Apache-2.0 */
/* A cached volume on a fake sandbox, and short names for what is done with files. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/volume/cached.h"
#include "fs/volume/volume.h"
#include "tests/unit/check.h"
#include "tests/unit/volume/fake_box.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

#define MIB ((uint64_t)1024 * 1024)
#define LONG_NS (60 * NS_PER_S) /* what is known stays so, however slow we are */

struct world {
        struct fake_box box;
        struct volume *v;
        const struct vol_ops *ops;
        char state[64]; /* the volume's directory */
        uint64_t spool_max;
        uint64_t ttl_ns;
        bool is_journaled; /* changes wait; else each is sent before it is answered */
        atomic_bool is_quiet;
        atomic_uint node_events, page_events;
};

static void on_node(void *ctx, uint64_t node, bool attributes_only)
{
        struct world *w = ctx;

        (void)node;
        atomic_fetch_add(attributes_only ? &w->node_events : &w->page_events, 1);
}

static void on_entry(void *ctx, uint64_t parent, const char *name)
{
        (void)ctx;
        (void)parent;
        (void)name;
}

static bool on_quiet(void *ctx)
{
        return atomic_load(&((struct world *)ctx)->is_quiet);
}

static inline bool world_mount(struct world *w)
{
        struct volume_events events = {on_node, on_entry, on_quiet, w};
        struct volume_cached_config config = {
                .base = {.attr_ttl_ns = w->ttl_ns, .is_sync = !w->is_journaled},
                .box = fake_box_volume(&w->box),
                .dir = open(w->state, O_RDONLY | O_DIRECTORY),
                .spool_max = w->spool_max};

        if (!CHECK(config.dir >= 0) || !CHECK_EQ(volume_cached_new(&config, &events, &w->v), 0))
                return false;
        w->ops = w->v->ops;
        return true;
}

static inline void world_unmount(struct world *w)
{
        if (w->v)
                w->ops->free(w->v);
        w->v = NULL;
}

/* `w` may have its limits set; all else is zero. */
static inline bool world_init(struct world *w)
{
        if (w->ttl_ns == 0)
                w->ttl_ns = LONG_NS;
        (void)umask(0);
        (void)snprintf(w->state, sizeof(w->state), "/tmp/sbxfs-content.XXXXXX");
        if (!CHECK(mkdtemp(w->state)) || !fake_box_init(&w->box) || !world_mount(w))
                return false;
        /* Also more than the second of any other mount: nothing waits, so no thread looks at it. */
        cached_of(w->v)->config.attr_ttl_ns = w->ttl_ns;
        return true;
}

static inline void world_done(struct world *w)
{
        world_unmount(w);
        CHECK_EQ(atomic_load(&w->box.open_files), 0);
        CHECK_EQ(atomic_load(&w->box.entered), 0);
        fake_box_done(&w->box);
        CHECK_EQ(file_remove_tree(AT_FDCWD, w->state), 0);
}

/* ---- operations: each as a worker does them, unless said ---- */

struct asking {
        struct call call;
        struct vol_op op;
};

static inline struct vol_op *ask(struct asking *a, bool may_wait)
{
        call_init(&a->call, clock_after(5 * NS_PER_S));
        a->op = (struct vol_op){.call = &a->call, .umask = 022, .may_wait = may_wait};
        return &a->op;
}

/* The node at a path; 0: none. Its reference is never given back. */
static inline uint64_t node_of(struct world *w, const char *path)
{
        uint64_t node = VOLUME_ROOT;
        char copy[256], *rest = copy, *name;
        struct vol_entry e;
        struct asking a;

        (void)snprintf(copy, sizeof(copy), "%s", path);
        while ((name = strsep(&rest, "/"))) {
                if (name[0] == '\0')
                        continue;
                if (w->ops->lookup(w->v, ask(&a, true), node, name, &e) < 0 || e.node == 0)
                        return 0;
                node = e.node;
        }
        return node;
}

static inline struct vol_file *open_at(struct world *w, const char *path, int flags)
{
        struct vol_opened o = {0};
        struct asking a;
        uint64_t node = node_of(w, path);

        if (node == 0 || w->ops->open(w->v, ask(&a, true), node, flags, &o) < 0)
                return NULL;
        return o.file;
}

static inline struct vol_file *create_at(struct world *w, const char *path, int flags)
{
        const char *slash = strrchr(path, '/');
        char dir[256] = "";
        struct vol_opened o = {0};
        struct vol_entry e;
        struct asking a;

        if (slash)
                (void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
        if (w->ops->create(w->v, ask(&a, true), node_of(w, dir), slash ? slash + 1 : path, 0644,
                           flags | O_CREAT, &e, &o) < 0)
                return NULL;
        return o.file;
}

static inline ssize_t read_file(struct world *w, struct vol_file *f, void *data, size_t size,
                                uint64_t offset)
{
        struct asking a;

        return w->ops->read(w->v, ask(&a, true), f, data, size, offset);
}

static inline ssize_t write_file(struct world *w, struct vol_file *f, const void *data, size_t size,
                                 uint64_t offset)
{
        struct asking a;

        return w->ops->write(w->v, ask(&a, false), f, data, size, offset);
}

static inline int flush_file(struct world *w, struct vol_file *f)
{
        struct asking a;

        return w->ops->flush(w->v, ask(&a, true), f);
}

/* As close(2): what flush says. */
static inline int close_file(struct world *w, struct vol_file *f)
{
        int r = flush_file(w, f);

        w->ops->release(w->v, f);
        return r;
}

static inline int resize_file(struct world *w, struct vol_file *f, uint64_t node, uint64_t size)
{
        struct stat to = {.st_size = (off_t)size};
        struct vol_entry e;
        struct asking a;

        return w->ops->setattr(w->v, ask(&a, true), node, f, VOL_SET_SIZE, &to, &e);
}

static inline int stat_at(struct world *w, const char *path, struct stat *ret)
{
        struct vol_entry e;
        struct asking a;
        uint64_t node = node_of(w, path);
        int r = node ? w->ops->getattr(w->v, ask(&a, true), node, NULL, &e) : -ENOENT;

        if (r == 0)
                *ret = e.st;
        return r;
}

static inline int put(struct world *w, const char *path, const char *text)
{
        struct vol_file *f = create_at(w, path, O_WRONLY | O_TRUNC);

        if (!f)
                return -EIO;
        if (write_file(w, f, text, strlen(text), 0) != (ssize_t)strlen(text))
                return -EIO;
        return close_file(w, f);
}

/* All of a small file, through the volume. */
static inline const char *get(struct world *w, const char *path)
{
        static char text[65536];
        struct vol_file *f = open_at(w, path, O_RDONLY);
        ssize_t n;

        if (!f)
                return "(not opened)";
        n = read_file(w, f, text, sizeof(text) - 1, 0);
        w->ops->release(w->v, f);
        if (n < 0)
                return errno = (int)-n, "(not read)";
        text[n] = '\0';
        return text;
}

/* ---- the real directory ---- */

static inline void real_put(struct world *w, const char *path, const void *data, size_t size)
{
        int fd = openat(w->box.dir, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

        if (CHECK(fd >= 0))
                CHECK_EQ(file_write_all(fd, data, size), 0);
        (void)close(fd); /* a test's */
}

/* So that a change from now on shows in its times, and no byte is fetched twice to be sure. */
static inline void real_put_settled(struct world *w, const char *path, const void *data,
                                    size_t size)
{
        const struct timespec while_settling = {.tv_nsec = 100 * NS_PER_MS};

        real_put(w, path, data, size);
        (void)nanosleep(&while_settling, NULL); /* a test's */
}

static inline const char *real_get(struct world *w, const char *path)
{
        static char text[65536];
        int fd = openat(w->box.dir, path, O_RDONLY);
        ssize_t n = fd < 0 ? -1 : file_pread_full(fd, text, sizeof(text) - 1, 0);

        if (fd >= 0)
                (void)close(fd); /* read only */
        if (n < 0)
                return "(not there)";
        text[n] = '\0';
        return text;
}

static inline int truncate_real(struct world *w, const char *path, off_t size)
{
        int fd = openat(w->box.dir, path, O_WRONLY);
        int r = ftruncate(fd, size) < 0 ? -errno : 0;

        (void)close(fd); /* a test's */
        return r;
}

static inline uint64_t dirty_files(struct world *w)
{
        struct vol_stats s;

        w->ops->stats(w->v, &s);
        return s.dirty_files;
}

static inline uint64_t unsent(struct world *w)
{
        struct vol_stats s;

        w->ops->stats(w->v, &s);
        return s.unsent;
}

static inline int sync_all(struct world *w)
{
        struct asking a;

        return w->ops->sync(w->v, ask(&a, true));
}

static inline void sleep_for_ms(unsigned ms)
{
        struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

        (void)nanosleep(&t, NULL); /* a test's */
}

static inline unsigned calls(struct world *w, enum fake_call call)
{
        return atomic_load(&w->box.calls[call]);
}

/* Bytes that differ from place to place, for the caller to free; NULL: no memory. */
static inline char *pattern(size_t size)
{
        char *data = malloc(size);

        for (size_t i = 0; data && i < size; i++)
                data[i] = (char)(i * 2654435761U >> 13);
        return data;
}
