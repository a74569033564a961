/* SPDX-License-Identifier: Apache-2.0 */
/* A direct volume on a temporary directory, and short names for its operations. */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <grp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/volume/volume.h"
#include "providers/provider.h"
#include "tests/unit/check.h"
#include "transport/base/call.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"

#define BOX_UID 34567 /* of sandboxes where the tests run as root */
#define BOX_GID 34568

static const char *fixture_base = "/tmp";

struct fixture {
        char dir[64]; /* the real one */
        int fd; /* of it */
        uid_t uid;
        struct volume *v;
        const struct vol_ops *ops;
        struct call call;
        struct vol_op op;
        atomic_bool is_quiet;
        atomic_uint node_events, page_events, entry_events;
        char last_entry[256];
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
        (void)snprintf(f->last_entry, sizeof(f->last_entry), "%s", name);
        atomic_fetch_add(&f->entry_events, 1);
}

static bool on_is_quiet(void *ctx)
{
        struct fixture *f = ctx;

        return atomic_load(&f->is_quiet);
}

static inline bool fixture_open(struct fixture *f, const struct volume_config *config)
{
        struct volume_events events = {on_inval_node, on_inval_entry, on_is_quiet, f};
        struct box_root root = {.uid = geteuid() == 0 ? BOX_UID : geteuid(),
                                .gid = geteuid() == 0 ? BOX_GID : getegid(),
                                .inside = "/workspace"};

        memset(f, 0, sizeof(*f));
        (void)umask(0);
        (void)snprintf(f->dir, sizeof(f->dir), "%s/sbxfs-volume.XXXXXX", fixture_base);
        if (!CHECK(mkdtemp(f->dir)))
                return false;
        CHECK_EQ(chown(f->dir, root.uid, root.gid), 0);
        f->uid = root.uid;
        f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        root.fd = dup(f->fd);
        call_init(&f->call, NEVER_NS);
        f->op = (struct vol_op){.call = &f->call, .umask = 022, .tid = getpid(), .may_wait = true};
        if (!CHECK_EQ(volume_direct_new(&root, config, &events, &f->v), 0))
                return false;
        f->ops = f->v->ops;
        return true;
}

static inline bool fixture_init(struct fixture *f)
{
        struct volume_config config = {.attr_ttl_ns = NS_PER_S};

        return fixture_open(f, &config);
}

static inline void fixture_done(struct fixture *f)
{
        f->ops->free(f->v);
        (void)close(f->fd);
        CHECK_EQ(file_remove_tree(AT_FDCWD, f->dir), 0);
}

/* A path in the real directory, in one of four static buffers a thread. */
static inline const char *real(const struct fixture *f, const char *name)
{
        static _Thread_local char text[4][512];
        static _Thread_local unsigned turn;
        char *to = text[turn++ % 4];

        (void)snprintf(to, sizeof(text[0]), "%s/%s", f->dir, name);
        return to;
}

static inline void put_real(const struct fixture *f, const char *name, const char *content)
{
        int fd = open(real(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

        CHECK(fd >= 0);
        CHECK_EQ(write(fd, content, strlen(content)), (ssize_t)strlen(content));
        CHECK_EQ(close(fd), 0);
}

/* The node of a name, 0 when there is none or it failed. */
static inline uint64_t look(struct fixture *f, uint64_t parent, const char *name)
{
        struct vol_entry e;

        return f->ops->lookup(f->v, &f->op, parent, name, &e) == 0 ? e.node : 0;
}

/* A path of names; 0 when one is missing. */
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

static inline uint64_t make_dir(struct fixture *f, uint64_t parent, const char *name)
{
        struct vol_entry e;

        return CHECK_EQ(f->ops->mkdir(f->v, &f->op, parent, name, 0755, &e), 0) ? e.node : 0;
}

static inline struct vol_file *make_file(struct fixture *f, uint64_t parent, const char *name,
                                         uint64_t *ret_node)
{
        struct vol_opened opened = {0};
        struct vol_entry e = {0};

        if (!CHECK_EQ(f->ops->create(f->v, &f->op, parent, name, 0644, O_RDWR | O_CREAT | O_EXCL,
                                     &e, &opened),
                      0))
                return NULL;
        if (ret_node)
                *ret_node = e.node;
        return opened.file;
}

static inline void put(struct fixture *f, uint64_t parent, const char *name, const char *content)
{
        struct vol_file *file = make_file(f, parent, name, NULL);

        if (!file)
                return;
        CHECK_EQ(f->ops->write(f->v, &f->op, file, content, strlen(content), 0), strlen(content));
        f->ops->release(f->v, file);
}

static inline const char *content_of(struct fixture *f, struct vol_file *file)
{
        static _Thread_local char text[256];
        ssize_t n = f->ops->read(f->v, &f->op, file, text, sizeof(text) - 1, 0);

        if (n < 0)
                return "(error)";
        text[n] = '\0';
        return text;
}

static inline const char *content_at(struct fixture *f, uint64_t node)
{
        struct vol_opened opened;
        const char *text;
        int r = f->ops->open(f->v, &f->op, node, O_RDONLY, &opened);

        if (r < 0)
                return "(no open)";
        text = content_of(f, opened.file);
        f->ops->release(f->v, opened.file);
        return text;
}

/* Run `tests` as who we are and, if that is root, once more as an ordinary user. */
static inline int run_twice(void (*tests)(void))
{
        int status = 0;
        pid_t child;

        tests();
        if (geteuid() != 0)
                return check_result();
        child = fork();
        if (child == 0) {
                atomic_store(&check_failures, 0);
                if (setgroups(0, NULL) < 0 || setgid(BOX_GID) < 0 || setuid(BOX_UID) < 0)
                        _exit(2);
                tests();
                _exit(check_result()); /* stderr has no buffer */
        }
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK_EQ(status, 0);
        return check_result();
}
