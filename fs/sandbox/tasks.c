/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tasks of a sandbox: one table in order of their numbers, which are given once. A command is
 * accepted when its files are written; a worker starts it when those queued before it are done.
 */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/settings.h"
#include "transport/base/buf.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/log.h"

#define CMD_MAX ((size_t)16 * 1024 * 1024) /* argv as JSON may be longer than its line was */

/* ---- the table ---- */

static struct task *find_locked(struct sandbox *sb, const char *name) REQUIRES(sb->lock)
{
        for (size_t i = 0; i < sb->task_count; i++)
                if (strcmp(sb->tasks[i]->name, name) == 0)
                        return sb->tasks[i];
        return NULL;
}

static void set_latest_locked(struct sandbox *sb) REQUIRES(sb->lock)
{
        struct task *latest = NULL;

        for (size_t i = 0; i < sb->task_count; i++)
                if (sb->tasks[i]->accepted > (latest ? latest->accepted : 0))
                        latest = sb->tasks[i];
        sb->latest = latest;
}

int tasks_insert_locked(struct sandbox *sb, struct task *t)
{
        size_t at = sb->task_count;

        if (find_locked(sb, t->name))
                return -EEXIST;
        if (sb->task_count == sb->task_room) {
                size_t room = sb->task_room ? sb->task_room * 2 : 8;
                struct task **tasks = reallocarray(sb->tasks, room, sizeof(struct task *));

                if (!tasks)
                        return -ENOMEM;
                sb->tasks = tasks;
                sb->task_room = room;
        }
        while (at > 0 && sb->tasks[at - 1]->number > t->number)
                at--;
        memmove(&sb->tasks[at + 1], &sb->tasks[at], (sb->task_count - at) * sizeof(struct task *));
        sb->tasks[at] = t;
        sb->task_count++;
        if (t->state == TASK_NEW)
                sb->new_count++;
        else if (t->state != TASK_ENDED)
                sb->running++;
        if (t->number > sb->last_number)
                sb->last_number = t->number;
        if (t->accepted > sb->last_accepted)
                sb->last_accepted = t->accepted;
        set_latest_locked(sb);
        sb->tasks_real_ns = clock_real_ns();
        return 0;
}

static void take_out_locked(struct sandbox *sb, struct task *t) REQUIRES(sb->lock)
{
        for (size_t i = 0; i < sb->task_count; i++) {
                if (sb->tasks[i] != t)
                        continue;
                memmove(&sb->tasks[i], &sb->tasks[i + 1],
                        (sb->task_count - i - 1) * sizeof(struct task *));
                sb->task_count--;
                break;
        }
        if (t->state == TASK_NEW)
                sb->new_count--;
        t->is_removed = true;
        set_latest_locked(sb);
        sb->tasks_real_ns = clock_real_ns();
        sandbox_change_locked(sb);
}

struct task *sandbox_latest(struct sandbox *sb)
{
        struct task *t;

        mutex_lock(&sb->lock);
        t = sb->latest ? task_ref(sb->latest) : NULL;
        mutex_unlock(&sb->lock);
        return t;
}

struct task *sandbox_find_task(struct sandbox *sb, const char *dir_name)
{
        struct task *t;

        mutex_lock(&sb->lock);
        t = find_locked(sb, dir_name);
        if (t)
                (void)task_ref(t);
        mutex_unlock(&sb->lock);
        return t;
}

struct task *sandbox_task_by_number(struct sandbox *sb, uint64_t number)
{
        struct task *t = NULL;

        mutex_lock(&sb->lock);
        for (size_t i = 0; i < sb->task_count && !t; i++)
                if (sb->tasks[i]->number == number)
                        t = task_ref(sb->tasks[i]);
        mutex_unlock(&sb->lock);
        return t;
}

size_t sandbox_list_tasks(struct sandbox *sb, uint64_t *numbers, size_t count)
{
        size_t total;

        mutex_lock(&sb->lock);
        total = sb->task_count;
        for (size_t i = 0; i < total && i < count; i++)
                numbers[i] = sb->tasks[i]->number;
        mutex_unlock(&sb->lock);
        return total;
}

uint64_t sandbox_tasks_real_ns(struct sandbox *sb)
{
        uint64_t real_ns;

        mutex_lock(&sb->lock);
        real_ns = sb->tasks_real_ns;
        mutex_unlock(&sb->lock);
        return real_ns;
}

/* ---- checks ---- */

static int check_name(const char *name, struct call *c)
{
        if (!name_is_valid(name))
                return call_fail(
                        c, -EINVAL,
                        "\"%.80s\" is not a name: [A-Za-z0-9._-], 63 at most, a letter or digit first and last",
                        name);
        if (name_is_number(name))
                return call_fail(c, -EINVAL, "name \"%s\" is a number: those are given by sbxfs",
                                 name);
        if (strcmp(name, "last") == 0)
                return call_fail(c, -EINVAL, "name \"last\" is the link to the latest one");
        return 0;
}

static int check_options(const struct task_options *o, struct call *c)
{
        if (!o->text && (!o->argv || !o->argv[0]))
                return call_fail(c, -EINVAL, "no command");
        if (o->stdin_data && o->stdin_size > STDIN_MAX)
                return call_fail(c, -ENOSPC, "stdin is limited to 64 MiB");
        for (size_t i = 0; i < o->env_count; i++) {
                int r = settings_check_env(o->env[i].key, o->env[i].value, c);

                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_locked(struct sandbox *sb, const struct task_options *o, unsigned ahead,
                        struct call *c) REQUIRES(sb->lock)
{
        int r;

        if (sb->is_destroying)
                return call_fail(c, -EBUSY, "the sandbox is being destroyed");
        if (!sb->section || !sb->section->provider)
                return call_fail(c, -EHOSTUNREACH, "provider %s is not there", sb->provider);
        r = sandbox_check_state(sandbox_expected_locked(sb), sb->is_idle_down, sb->box != NULL, c);
        if (r < 0)
                return r;
        if (o && o->name && find_locked(sb, o->name))
                return call_fail(c, -EEXIST, "there is an exec/%s already", o->name);
        if (sb->running + ahead >= TASKS_RUNNING_MAX)
                return call_fail(c, -EAGAIN, "%d commands run already", TASKS_RUNNING_MAX);
        return 0;
}

int sandbox_check_exec(struct sandbox *sb, const struct task_options *o, unsigned ahead,
                       struct call *c)
{
        int r = check_options(o, c);

        if (r == 0 && o->name)
                r = check_name(o->name, c);
        if (r < 0)
                return r;
        mutex_lock(&sb->lock);
        r = check_locked(sb, o, ahead, c);
        mutex_unlock(&sb->lock);
        return r;
}

/* ---- accepting ---- */

static int write_cmd(struct task *t, const struct task_options *o)
{
        struct buf text = BUF_INIT(CMD_MAX);
        char path[sizeof(t->path) + 16];
        _cleanup_(closep) int fd = -1;
        int r = task_request_print(o, &text);

        if (r == 0) {
                (void)snprintf(path, sizeof(path), "%s/cmd", t->path);
                fd = openat(t->sandbox->fleet->state_dir, path,
                            O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
                r = fd < 0 ? -errno : file_write_all(fd, text.data, text.size);
        }
        buf_wipe(&text);
        return r;
}

static void set_stdin_locked(struct task *t, const struct task_options *o)
{
        bool has_data = o->stdin_data || t->stdin_size > 0;

        t->stdin_mode = o->has_stdin_open ? STDIN_OPEN : has_data ? STDIN_DATA : STDIN_NONE;
        t->has_stdin_eof = !o->has_stdin_open;
}

/* The environment is that of the moment in which the command is accepted; its own values win. */
static int merge_env_locked(const struct sandbox *sb, struct task_request *q) REQUIRES(sb->lock)
{
        struct pair *env = NULL;
        size_t count = 0;
        int r = 0;

        for (size_t i = 0; i < sb->env_count && r == 0; i++)
                r = pairs_set(&env, &count, sb->env[i].key, sb->env[i].value);
        for (size_t i = 0; i < q->env_count && r == 0; i++)
                r = pairs_set(&env, &count, q->env[i].key, q->env[i].value);
        pairs_free(q->env, q->env_count);
        q->env = env;
        q->env_count = count;
        return r;
}

/* Its files, with a record that says `queued`. On failure it is as before, but for files. */
static int prepare(struct task *t, const struct task_options *o, struct task_request **ret)
{
        struct sandbox *sb = t->sandbox;
        struct task_request *q = NULL;
        int r = task_request_new(o, &q);

        if (r == 0)
                r = write_cmd(t, o);
        if (r == 0 && o->stdin_data)
                r = task_spool_stdin(t, o->stdin_data, o->stdin_size);
        if (r == 0) {
                mutex_lock(&sb->lock);
                t->state = TASK_QUEUED;
                t->accepted = ++sb->last_accepted;
                set_stdin_locked(t, o);
                if (sb->env_count > 0)
                        r = merge_env_locked(sb, q);
                mutex_unlock(&sb->lock);
        }
        if (r == 0)
                r = task_save(t, false);
        if (r < 0)
                task_request_free(q);
        else
                *ret = q;
        return r;
}

static void accept_locked(struct sandbox *sb, struct task *t, struct task_request *q, struct job *j)
        REQUIRES(sb->lock)
{
        t->request = q;
        j->task = task_ref(t);
        set_latest_locked(sb);
        sandbox_touch(sb);
        sandbox_plan_idle_locked(sb);
        sandbox_enqueue_locked(sb, j, false);
        task_change_locked(t);
        sandbox_change_locked(sb);
}

static uint64_t next_number(struct sandbox *sb)
{
        uint64_t number;

        mutex_lock(&sb->lock);
        number = ++sb->last_number;
        mutex_unlock(&sb->lock);
        return number;
}

/* Nobody saw it: files and memory go. */
static void discard(struct task *t)
{
        t->is_removed = true;
        task_free_table(t);
}

static int fail(struct call *c, int r)
{
        return r == -ENOMEM ? call_fail(c, r, "out of memory")
                            : call_fail_errno(c, r, "writing the command to the state directory");
}

int sandbox_exec(struct sandbox *sb, const struct task_options *o, uint64_t seq, struct call *c,
                 struct task **ret)
{
        struct job *j = job_new(JOB_EXEC, NULL, 0);
        struct task *t = task_new(sb, next_number(sb), o->name);
        struct task_request *q = NULL;
        int r = -ENOMEM;

        if (t && j)
                r = task_make_dir(t);
        if (r == 0)
                r = prepare(t, o, &q);
        if (r == 0) {
                t->seq = seq;
                mutex_lock(&sb->lock);
                r = tasks_insert_locked(sb, t);
                if (r == 0) {
                        *ret = task_ref(t);
                        accept_locked(sb, t, q, j);
                }
                mutex_unlock(&sb->lock);
        }
        if (r < 0) {
                if (r == -EEXIST)
                        (void)call_fail(c, r, "there is an exec/%s already",
                                        o->name ? o->name : "of this number");
                else
                        (void)fail(c, r);
                task_request_free(q);
                if (t)
                        discard(t);
                job_free(j);
                return r;
        }
        sandbox_kick(sb);
        news_post(sb->fleet);
        return 0;
}

int sandbox_new_task(struct sandbox *sb, const char *name, struct call *c, struct task **ret)
{
        struct task *t;
        int r = check_name(name, c);

        if (r < 0)
                return r;
        mutex_lock(&sb->lock);
        if (sb->is_destroying)
                r = call_fail(c, -EBUSY, "the sandbox is being destroyed");
        else if (find_locked(sb, name))
                r = call_fail(c, -EEXIST, "there is an exec/%s already", name);
        else if (sb->new_count >= TASKS_RUNNING_MAX)
                r = call_fail(c, -EAGAIN, "%d new ones are waiting for their commands already",
                              TASKS_RUNNING_MAX);
        mutex_unlock(&sb->lock);
        if (r < 0)
                return r;

        t = task_new(sb, next_number(sb), name);
        r = t ? task_make_dir(t) : -ENOMEM;
        if (r == 0)
                r = task_save(t, false);
        if (r == 0) {
                mutex_lock(&sb->lock);
                r = tasks_insert_locked(sb, t);
                if (r == 0) {
                        *ret = task_ref(t);
                        sandbox_change_locked(sb);
                }
                mutex_unlock(&sb->lock);
        }
        if (r < 0) {
                if (t)
                        discard(t);
                return r == -EEXIST ? call_fail(c, r, "there is an exec/%s already", name)
                                    : fail(c, r);
        }
        news_post(sb->fleet);
        return 0;
}

/* One caller gets it: later ones are refused. */
static int claim(struct task *t, struct call *c)
{
        struct sandbox *sb = t->sandbox;
        int r;

        mutex_lock(&sb->lock);
        if (t->state != TASK_NEW || t->is_claimed || t->is_removed)
                r = call_fail(c, -EBUSY, "exec/%s has its command already", t->name);
        else
                r = check_locked(sb, NULL, 0, c);
        t->is_claimed |= r == 0;
        mutex_unlock(&sb->lock);
        return r;
}

static void unclaim(struct task *t)
{
        char path[sizeof(t->path) + 16];

        (void)snprintf(path, sizeof(path), "%s/cmd", t->path);
        (void)unlinkat(t->sandbox->fleet->state_dir, path, 0); /* may not be there */
        mutex_lock(&t->sandbox->lock);
        t->state = TASK_NEW;
        t->accepted = 0;
        t->is_claimed = false;
        mutex_unlock(&t->sandbox->lock);
}

int task_start(struct task *t, const struct task_options *options, struct call *c)
{
        struct sandbox *sb = t->sandbox;
        struct task_request *q = NULL;
        struct job *j;
        int r = check_options(options, c);

        if (r == 0)
                r = claim(t, c);
        if (r < 0)
                return r;
        j = job_new(JOB_EXEC, NULL, 0);
        mutex_lock(&t->stdin_lock); /* bytes that are being written come before the command */
        mutex_unlock(&t->stdin_lock);
        r = j ? prepare(t, options, &q) : -ENOMEM;
        if (r < 0) {
                job_free(j);
                unclaim(t);
                return fail(c, r);
        }
        mutex_lock(&sb->lock);
        sb->new_count--;
        sb->running++;
        accept_locked(sb, t, q, j);
        mutex_unlock(&sb->lock);
        sandbox_kick(sb);
        news_post(sb->fleet);
        return 0;
}

/* ---- removing ---- */

int sandbox_remove_task(struct sandbox *sb, const char *dir_name, struct call *c)
{
        struct task *t;
        bool is_highest = false;
        int r = 0;

        mutex_lock(&sb->lock);
        t = find_locked(sb, dir_name);
        if (!t) {
                r = call_fail(c, -ENOENT, "there is no exec/%.63s", dir_name);
        } else if (t->is_claimed && t->state != TASK_ENDED) {
                r = call_fail(c, -EBUSY, "exec/%s is starting", t->name);
        } else if (t->state != TASK_NEW && t->state != TASK_ENDED) {
                r = call_fail(c, -EBUSY, "exec/%s is %s", t->name, task_state_name(t->state));
        } else {
                is_highest = t->number == sb->last_number;
                take_out_locked(sb, t);
        }
        mutex_unlock(&sb->lock);
        if (r < 0)
                return r;
        if (is_highest)
                (void)sandbox_save(sb, false); /* its number is not given again */
        task_forget_record(t);
        task_free_table(t);
        news_post(sb->fleet);
        return 0;
}

static uint64_t bytes_of(const struct task *t)
{
        uint64_t size = t->stdin_size;

        for (unsigned i = 0; i < OUTPUT_FILES; i++)
                size += output_size(&t->output, i);
        return size;
}

/* The task that ended first, if there is more than is kept; it is out of the table then. */
static struct task *take_surplus_locked(struct sandbox *sb) REQUIRES(sb->lock)
{
        struct task *oldest = NULL;
        unsigned ended = 0;
        uint64_t size = 0;

        for (size_t i = 0; i < sb->task_count; i++) {
                struct task *t = sb->tasks[i];

                if (t->state != TASK_ENDED)
                        continue;
                ended++;
                size += bytes_of(t);
                if (!oldest || t->ended_real_ns < oldest->ended_real_ns)
                        oldest = t;
        }
        if (!oldest || oldest == sb->latest || (ended <= TASKS_KEPT && size <= OUTPUT_KEPT))
                return NULL;
        take_out_locked(sb, oldest);
        return oldest;
}

void sandbox_retain(struct sandbox *sb)
{
        for (;;) {
                struct task *t;

                mutex_lock(&sb->lock);
                t = take_surplus_locked(sb);
                mutex_unlock(&sb->lock);
                if (!t)
                        return;
                task_forget_record(t);
                task_free_table(t);
        }
}

/* ---- durable ---- */

static struct task *take_unsynced_locked(struct sandbox *sb) REQUIRES(sb->lock)
{
        for (size_t i = 0; i < sb->task_count; i++)
                if (sb->tasks[i]->needs_sync) {
                        sb->tasks[i]->needs_sync = false;
                        return task_ref(sb->tasks[i]);
                }
        return NULL;
}

void sandbox_sync_tasks(struct sandbox *sb)
{
        for (;;) {
                struct task *t;
                int r;

                mutex_lock(&sb->lock);
                t = take_unsynced_locked(sb);
                mutex_unlock(&sb->lock);
                if (!t)
                        return;
                output_sync(&t->output);
                r = task_save(t, true);
                if (r < 0 && r != -ENOENT)
                        log_warning("%s: sync: %s, ignoring", t->path, errno_name(r));
                task_unref(t);
        }
}
