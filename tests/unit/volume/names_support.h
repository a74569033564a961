/* SPDX-License-Identifier: Apache-2.0 */
/* A cached volume on a fake sandbox, and short names for what is done with names. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/volume/cached.h"
#include "fs/volume/volume.h"
#include "tests/unit/check.h"
#include "tests/unit/volume/fake_box.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

#define LONG_NS (60 * NS_PER_S) /* what is known stays so, however slow we are */

struct fixture {
        struct fake_box box; /* first */
        char dir[64]; /* the volume's own */
        struct volume *v;
        const struct vol_ops *ops;
        struct call call;
        struct vol_op op;
        atomic_bool is_quiet;
        atomic_uint node_events, page_events, entry_events;
};

static void on_inval_node(void *ctx, uint64_t node, bool attributes_only)
{
        struct fixture *f = ctx;

        (void)node;
        atomic_fetch_add(attributes_only ? &f->node_events : &f->page_events, 1);
}

static void on_inval_entry(void *ctx, uint64_t parent, const char *name)
{
        struct fixture *f = ctx;

        (void)parent;
        (void)name;
        atomic_fetch_add(&f->entry_events, 1);
}

static bool on_is_quiet(void *ctx)
{
        struct fixture *f = ctx;

        return atomic_load(&f->is_quiet);
}

static inline bool fixture_init_ttl(struct fixture *f, uint64_t ttl_ns)
{
        struct volume_events events = {on_inval_node, on_inval_entry, on_is_quiet, f};
        struct volume_cached_config config = {.base = {.attr_ttl_ns = ttl_ns, .is_sync = true}};

        memset(f, 0, sizeof(*f));
        (void)umask(0);
        if (!CHECK(fake_box_init(&f->box)))
                return false;
        (void)snprintf(f->dir, sizeof(f->dir), "/tmp/sbxfs-cached.XXXXXX");
        if (!CHECK(mkdtemp(f->dir)))
                return false;
        config.dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        config.box = fake_box_volume(&f->box);
        call_init(&f->call, clock_after(60 * NS_PER_S));
        f->op = (struct vol_op){.call = &f->call, .umask = 022, .tid = getpid(), .may_wait = true};
        if (!CHECK_EQ(volume_cached_new(&config, &events, &f->v), 0))
                return false;
        f->ops = f->v->ops;
        return true;
}

/* Also more than the second that a mount may have at most. */
static inline void set_ttl(struct fixture *f, uint64_t ttl_ns)
{
        struct cached *c = cached_of(f->v);

        c->config.attr_ttl_ns = ttl_ns;
        if (c->recent.window_ns < ttl_ns)
                c->recent.window_ns = ttl_ns;
}

/* What was asked for once is known for long. */
static inline bool fixture_init(struct fixture *f)
{
        if (!fixture_init_ttl(f, NS_PER_S))
                return false;
        set_ttl(f, LONG_NS);
        return true;
}

static inline void fixture_done(struct fixture *f)
{
        f->ops->free(f->v);
        CHECK_EQ(atomic_load(&f->box.entered), 0);
        fake_box_done(&f->box);
        (void)file_remove_tree(AT_FDCWD, f->dir);
}

/* ---- the sandbox's side ---- */

static inline const char *real(const struct fixture *f, const char *name)
{
        static _Thread_local char text[4][512];
        static _Thread_local unsigned turn;
        char *to = text[turn++ % 4];

        (void)snprintf(to, sizeof(text[0]), "%s/%s", f->box.path, name);
        return to;
}

static inline void put_real(const struct fixture *f, const char *name, const char *content)
{
        int fd = open(real(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

        CHECK(fd >= 0);
        CHECK_EQ(write(fd, content, strlen(content)), (ssize_t)strlen(content));
        CHECK_EQ(close(fd), 0);
}

static inline void mkdir_real(const struct fixture *f, const char *name)
{
        CHECK_EQ(mkdir(real(f, name), 0755), 0);
}

/* `dirs` directories d0, d1, ... below `top` ("" or "x/"), each with `files` files. */
static inline void plant(const struct fixture *f, const char *top, unsigned dirs, unsigned files)
{
        char name[128];

        for (unsigned i = 0; i < dirs; i++) {
                (void)snprintf(name, sizeof(name), "%sd%u", top, i);
                mkdir_real(f, name);
                for (unsigned k = 0; k < files; k++) {
                        (void)snprintf(name, sizeof(name), "%sd%u/f%u", top, i, k);
                        put_real(f, name, "x");
                }
        }
}

/* ---- the kernel's side ---- */

static inline uint64_t look(struct fixture *f, uint64_t parent, const char *name)
{
        struct vol_entry e;

        return f->ops->lookup(f->v, &f->op, parent, name, &e) == 0 ? e.node : 0;
}

static inline uint64_t walk(struct fixture *f, const char *path)
{
        char copy[512], *save = NULL;
        uint64_t node = VOLUME_ROOT;

        (void)snprintf(copy, sizeof(copy), "%s", path);
        for (char *word = strtok_r(copy, "/", &save); word && node;
             word = strtok_r(NULL, "/", &save))
                node = look(f, node, word);
        return node;
}

/* A directory as it was read; at most `max` entries a call, as the kernel's buffer has it. */
struct seen {
        struct vol_dir_sink head; /* first */
        unsigned max, in_call;
        unsigned count, with_attrs, dirs;
        uint64_t next;
        char last[256];
        uint64_t nodes[64]; /* of directories */
        unsigned node_count;
        uint64_t min_ttl_ns;
};

static bool on_add(struct vol_dir_sink *to, const char *name, const struct vol_entry *e,
                   uint64_t next)
{
        struct seen *s = (struct seen *)(void *)to; /* its head */

        if (s->in_call == s->max)
                return false;
        s->in_call++;
        s->next = next;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return true;
        s->count++;
        s->with_attrs += e->node != 0;
        (void)snprintf(s->last, sizeof(s->last), "%s", name);
        if (S_ISDIR(e->st.st_mode)) {
                s->dirs++;
                if (e->node && s->node_count < 64)
                        s->nodes[s->node_count++] = e->node;
        }
        if (e->node && e->ttl_ns < s->min_ttl_ns)
                s->min_ttl_ns = e->ttl_ns;
        return true;
}

static inline int read_all(struct fixture *f, struct vol_dir *d, struct seen *s)
{
        int r;

        s->next = 0;
        s->count = s->with_attrs = s->dirs = s->node_count = 0;
        s->min_ttl_ns = UINT64_MAX;
        do {
                s->in_call = 0;
                r = f->ops->readdir(f->v, &f->op, d, s->next, true, &s->head);
        } while (r == 0 && s->in_call > 0);
        return r;
}

static inline int read_dir(struct fixture *f, uint64_t node, struct seen *s)
{
        struct vol_dir *d = NULL;
        int r;

        *s = (struct seen){.head = {on_add}, .max = 100};
        r = f->ops->opendir(f->v, &f->op, node, &d);
        if (r < 0)
                return r;
        r = read_all(f, d, s);
        f->ops->releasedir(f->v, d);
        return r;
}

/* find(1): reads a directory, then the directories in it. Counts entries. */
static inline unsigned find(struct fixture *f, uint64_t node)
{
        struct seen s;
        unsigned count;

        CHECK_EQ(read_dir(f, node, &s), 0);
        CHECK_EQ(s.with_attrs, s.count);
        count = s.count;
        for (unsigned i = 0; i < s.node_count; i++)
                count += find(f, s.nodes[i]);
        return count;
}

static inline off_t size_at(struct fixture *f, uint64_t node)
{
        struct vol_entry e;

        return f->ops->getattr(f->v, &f->op, node, NULL, &e) == 0 ? e.st.st_size : -1;
}

static inline void sleep_ms(unsigned ms)
{
        const struct timespec span = clock_timespec(ms * NS_PER_MS);

        (void)nanosleep(&span, NULL); /* cut short: no matter */
}

static inline unsigned lists(struct fixture *f)
{
        return atomic_load(&f->box.calls[FAKE_LIST]);
}

static inline unsigned stats(struct fixture *f)
{
        return atomic_load(&f->box.calls[FAKE_STAT]);
}
