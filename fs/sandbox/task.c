/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task: references, and what its files show. It runs in task_run.c, its stdin in task_stdin.c.
 */

#include "fs/sandbox/task.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"

const char *task_state_name(enum task_state s)
{
        static const char *const names[] = {[TASK_NEW] = "new",
                                            [TASK_QUEUED] = "queued",
                                            [TASK_RUNNING] = "running",
                                            [TASK_ENDED] = "ended"};

        assert((unsigned)s < sizeof(names) / sizeof(names[0]));
        return names[s];
}

/* ---- birth and death ---- */

struct task *task_new(struct sandbox *sb, uint64_t number, const char *name)
{
        struct task *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        atomic_init(&t->refs, 1);
        t->sandbox = sb;
        t->number = number;
        t->is_named = name != NULL;
        if (name)
                (void)snprintf(t->name, sizeof(t->name), "%s", name);
        else
                (void)snprintf(t->name, sizeof(t->name), "%" PRIu64, number);
        (void)snprintf(t->path, sizeof(t->path), "%s/exec/%" PRIu64, sb->path, number);
        output_init(&t->output, sb->fleet->state_dir, t->path, sb->fleet->output_cap);
        task_init_sink(t);
        list_init(&t->news_link);
        list_init(&t->kills);
        mutex_init(&t->record_lock);
        mutex_init(&t->stdin_lock);
        t->kill_due_ns = NOTHING_DUE;
        t->is_taken_known = true;
        t->changed_real_ns = clock_real_ns();
        atomic_init(&t->output_real_ns, t->changed_real_ns);
        return t;
}

static void task_free(struct task *t)
{
        exec_release(t->exec);
        output_done(&t->output);
        if (t->is_removed)
                task_remove_files(t->sandbox->fleet, t->path);
        task_request_free(t->request);
        task_drop_kills(t);
        free(t->exit);
        mutex_done(&t->record_lock);
        mutex_done(&t->stdin_lock);
        free(t);
}

void task_free_table(struct task *t)
{
        if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
                task_free(t);
}

struct task *task_ref(struct task *t)
{
        (void)sandbox_ref(t->sandbox); /* given back in task_unref */
        atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
        return t;
}

void task_unref(struct task *t)
{
        struct sandbox *sb;

        if (!t)
                return;
        sb = t->sandbox;
        task_free_table(t);
        sandbox_unref(sb);
}

void task_freep(struct task **t)
{
        task_unref(*t);
}

/* ---- what its files show ---- */

struct sandbox *task_sandbox(const struct task *t)
{
        return t->sandbox;
}

uint64_t task_number(const struct task *t)
{
        return t->number;
}

void task_change_locked(struct task *t)
{
        t->changed_real_ns = clock_real_ns();
        atomic_fetch_add(&t->changes, 1);
        news_task(t);
}

void task_get_locked(struct task *t, struct task_info *ret)
{
        ret->number = t->number;
        memcpy(ret->name, t->name, sizeof(ret->name));
        ret->is_named = t->is_named;
        ret->state = t->state;
        ret->started_real_ns = t->started_real_ns;
        ret->ended_real_ns = t->is_visible ? t->ended_real_ns : 0;
        ret->changed_real_ns = t->changed_real_ns;
        ret->output_real_ns = atomic_load(&t->output_real_ns);
        ret->pid = t->pid;
        for (unsigned i = 0; i < 2; i++)
                ret->dropped[i] = atomic_load(&t->output.dropped[i]);
        ret->exit[0] = ret->wait[0] = '\0';
        if (!t->is_visible)
                return;
        (void)snprintf(ret->exit, sizeof(ret->exit), "%s",
                       t->exit ? t->exit : "error out of memory");
        (void)snprintf(ret->wait, sizeof(ret->wait), "%s%.1080s",
                       name_is_number(ret->exit) ? "exit " : "", ret->exit);
}

void task_get(struct task *t, struct task_info *ret)
{
        mutex_lock(&t->sandbox->lock);
        task_get_locked(t, ret);
        mutex_unlock(&t->sandbox->lock);
}

bool task_has_ended(struct task *t)
{
        bool has_ended;

        mutex_lock(&t->sandbox->lock);
        has_ended = t->is_visible;
        mutex_unlock(&t->sandbox->lock);
        return has_ended;
}

uint64_t task_changes(struct task *t)
{
        return atomic_load(&t->changes);
}

uint64_t task_size(struct task *t, enum task_file file)
{
        return output_size(&t->output, file);
}

ssize_t task_read(struct task *t, enum task_file file, void *data, size_t size, uint64_t offset)
{
        uint64_t shown = output_size(&t->output, file);
        _cleanup_(closep) int fd = -1;
        char path[sizeof(t->path) + 16];

        if (offset >= shown || size == 0)
                return 0;
        if (size > shown - offset)
                size = (size_t)(shown - offset);
        (void)snprintf(path, sizeof(path), "%s/%s", t->path, output_file_name(file));
        fd = openat(t->sandbox->fleet->state_dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? -ESTALE : -errno; /* the sandbox was destroyed */
        return file_pread_full(fd, data, size, offset);
}

int task_print_cmd(struct task *t, struct buf *to)
{
        char path[sizeof(t->path) + 16];
        int r;

        (void)snprintf(path, sizeof(path), "%s/cmd", t->path);
        r = file_read(t->sandbox->fleet->state_dir, path, to);
        return r == -ENOENT ? 0 : r; /* new */
}
