/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task's directory: sandboxes/<key>/exec/<number>/ with its record. A directory without a record
 * holds what was never accepted, or was removed: the next start clears it away.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/log.h"
#include "transport/base/record.h"
#include "transport/base/units.h"

int task_make_dir(struct task *t)
{
        int dir = t->sandbox->fleet->state_dir, r;

        if (mkdirat(dir, t->path, 0700) == 0)
                return 0;
        if (errno != ENOENT)
                return -errno;
        r = sandbox_make_dirs(t->sandbox); /* its creation has not come that far */
        if (r < 0)
                return r;
        return mkdirat(dir, t->path, 0700) < 0 ? -errno : 0;
}

int task_open_dir(struct task *t)
{
        int fd = openat(t->sandbox->fleet->state_dir, t->path,
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        return fd < 0 ? -errno : fd;
}

void task_remove_files(struct fleet *f, const char *path)
{
        int r = file_remove_tree(f->state_dir, path);

        if (r < 0)
                log_warning("%s: removing: %s, ignoring", path, errno_name(r));
}

/* ---- writing ---- */

static int add_u64(struct record *r, const char *key, uint64_t value)
{
        return value ? record_addf(r, key, "%" PRIu64, value) : 0;
}

static int fill_locked(const struct task *t, struct record *r)
{
        static const char *const stdin_words[] = {"none", "open", "data"};
        int x;

        x = record_add(r, "state", t->exit ? "ended" : task_state_name(t->state));
        if (t->is_named && x == 0)
                x = record_add(r, "name", t->name);
        if (x == 0)
                x = add_u64(r, "accepted", t->accepted);
        if (x == 0)
                x = add_u64(r, "started", t->started_real_ns);
        if (x == 0)
                x = add_u64(r, "ended", t->ended_real_ns);
        if (x == 0)
                x = add_u64(r, "changed", t->changed_real_ns);
        if (x == 0)
                x = add_u64(r, "output", atomic_load(&t->output_real_ns));
        if (x == 0)
                x = add_u64(r, "pid", t->pid > 0 ? (uint64_t)t->pid : 0);
        if (x == 0 && t->exec_id[0])
                x = record_add(r, "id", t->exec_id);
        if (x == 0 && t->exit)
                x = record_add(r, "exit", t->exit);
        if (x == 0)
                x = add_u64(r, "gap_stdout", (uint64_t)t->skew[0]);
        if (x == 0)
                x = add_u64(r, "gap_stderr", (uint64_t)t->skew[1]);
        if (x == 0)
                x = add_u64(r, "dropped_stdout", atomic_load(&t->output.dropped[0]));
        if (x == 0)
                x = add_u64(r, "dropped_stderr", atomic_load(&t->output.dropped[1]));
        if (x == 0)
                x = record_add(r, "stdin", stdin_words[t->stdin_mode]);
        if (x == 0 && t->has_stdin_eof)
                x = record_add(r, "eof", "1");
        return x;
}

static int write_record(struct task *t, bool sync)
{
        _cleanup_(record_freep) struct record *r = record_new();
        _cleanup_(closep) int dir = -1;
        bool is_removed;
        int x;

        if (!r)
                return -ENOMEM;
        mutex_lock(&t->sandbox->lock);
        is_removed = t->is_removed;
        x = fill_locked(t, r);
        mutex_unlock(&t->sandbox->lock);
        if (x < 0 || is_removed)
                return x;
        dir = task_open_dir(t);
        if (dir < 0)
                return dir;
        return record_write(r, dir, "record", sync ? RECORD_SYNC : RECORD_NO_SYNC);
}

int task_save(struct task *t, bool sync)
{
        int r;

        mutex_lock(&t->record_lock);
        r = write_record(t, sync);
        mutex_unlock(&t->record_lock);
        return r;
}

void task_forget_record(struct task *t)
{
        char path[sizeof(t->path) + 16];

        (void)snprintf(path, sizeof(path), "%s/record", t->path);
        mutex_lock(&t->record_lock);
        if (unlinkat(t->sandbox->fleet->state_dir, path, 0) < 0 && errno != ENOENT)
                log_warning("%s: %s: it will be there again after a restart", path,
                            errno_name(errno));
        mutex_unlock(&t->record_lock);
}

/* ---- reading ---- */

static uint64_t get_u64(const struct record *r, const char *key)
{
        const char *text = record_get(r, key);
        uint64_t value;

        return text && units_parse_count(text, INT64_MAX, &value) == 0 ? value : 0;
}

static enum task_state get_state(const struct record *r)
{
        const char *word = record_get(r, "state");

        if (word && strcmp(word, "new") == 0)
                return TASK_NEW;
        if (word && strcmp(word, "queued") == 0)
                return TASK_QUEUED;
        return word && strcmp(word, "running") == 0 ? TASK_RUNNING : TASK_ENDED;
}

static void load_stdin(struct task *t, const struct record *r)
{
        const char *word = record_get(r, "stdin");
        char path[sizeof(t->path) + 16];
        struct stat st;

        if (word && strcmp(word, "open") == 0)
                t->stdin_mode = STDIN_OPEN;
        else if (word && strcmp(word, "data") == 0)
                t->stdin_mode = STDIN_DATA;
        t->has_stdin_eof = record_get(r, "eof") != NULL;
        (void)snprintf(path, sizeof(path), "%s/stdin", t->path);
        if (fstatat(t->sandbox->fleet->state_dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
                t->stdin_size = (uint64_t)st.st_size;
}

static int fill_task(struct task *t, const struct record *r)
{
        const uint64_t dropped[2] = {get_u64(r, "dropped_stdout"), get_u64(r, "dropped_stderr")};
        const char *text;

        t->state = get_state(r);
        t->accepted = get_u64(r, "accepted");
        t->started_real_ns = get_u64(r, "started");
        t->ended_real_ns = get_u64(r, "ended");
        t->changed_real_ns = get_u64(r, "changed");
        atomic_store(&t->output_real_ns, get_u64(r, "output"));
        t->pid = (int64_t)get_u64(r, "pid");
        text = record_get(r, "id");
        (void)snprintf(t->exec_id, sizeof(t->exec_id), "%s", text ? text : "");
        t->skew[0] = (int64_t)get_u64(r, "gap_stdout");
        t->skew[1] = (int64_t)get_u64(r, "gap_stderr");
        load_stdin(t, r);
        if (t->state == TASK_ENDED) {
                text = record_get(r, "exit");
                t->exit = strdup(text ? text : "lost");
                if (!t->exit)
                        return -ENOMEM;
                t->is_visible = t->is_ending = true;
                output_load(&t->output, dropped);
        } else if (t->state != TASK_NEW) {
                t->needs_attach = true;
                output_resume(&t->output, t->skew);
        }
        return 0;
}

static int load_one(struct sandbox *sb, uint64_t number, int dir)
{
        _cleanup_(record_freep) struct record *r = NULL;
        const char *name;
        struct task *t;
        int x = record_read(dir, "record", &r);

        if (x < 0)
                return x;
        name = record_get(r, "name");
        if (name && (!name_is_valid(name) || name_is_number(name)))
                return -EBADMSG;
        t = task_new(sb, number, name);
        if (!t)
                return -ENOMEM;
        x = fill_task(t, r);
        if (x == 0) {
                mutex_lock(&sb->lock);
                x = tasks_insert_locked(sb, t);
                mutex_unlock(&sb->lock);
        }
        if (x < 0)
                task_free_table(t);
        return x;
}

static void load_dir(struct sandbox *sb, int exec_dir, const char *name)
{
        uint64_t number;
        _cleanup_(closep) int dir = -1;
        int r;

        if (units_parse_count(name, INT64_MAX, &number) < 0 || number == 0)
                return; /* not ours */
        dir = openat(exec_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (dir < 0)
                return;
        r = load_one(sb, number, dir);
        if (r == -ENOENT)
                r = file_remove_tree(exec_dir, name);
        if (r < 0)
                log_warning("%s/exec/%s: %s: left as it is, and not shown", sb->path, name,
                            errno_name(r));
        mutex_lock(&sb->lock);
        if (number > sb->last_number)
                sb->last_number = number;
        mutex_unlock(&sb->lock);
}

int tasks_load(struct sandbox *sb)
{
        _cleanup_(closedirp) DIR *dir = NULL;
        char path[sizeof(sb->path) + 16];
        const struct dirent *e;
        int fd;

        (void)snprintf(path, sizeof(path), "%s/exec", sb->path);
        fd = openat(sb->fleet->state_dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        dir = fdopendir(fd);
        if (!dir) {
                (void)close(fd);
                return -ENOMEM;
        }
        while ((e = readdir(dir))) // NOLINT(concurrency-mt-unsafe): a DIR of our own
                load_dir(sb, dirfd(dir), e->d_name);
        return 0;
}
