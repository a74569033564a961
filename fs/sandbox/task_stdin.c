/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stdin: what is written is spooled on local disk at once, and sent on by one worker at a time as
 * far as the provider takes it (EXEC_STDIN_WINDOW beyond what the command has read). A command that
 * closed its stdin swallows the rest.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "transport/base/cleanup.h"
#include "transport/base/file.h"
#include "transport/base/log.h"

#define CHUNK ((size_t)64 * 1024)

/* ---- the spool ---- */

static int open_spool(struct task *t, int flags)
{
        char path[sizeof(t->path) + 16];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/stdin", t->path);
        fd = openat(t->sandbox->fleet->state_dir, path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
        return fd < 0 ? -errno : fd;
}

/* stdin_lock is held: nobody else appends. */
static int append(struct task *t, const void *data, size_t size)
{
        _cleanup_(closep) int fd = open_spool(t, O_WRONLY | O_CREAT);
        uint64_t offset;
        int r;

        if (fd < 0)
                return fd;
        mutex_lock(&t->sandbox->lock);
        offset = t->stdin_size;
        mutex_unlock(&t->sandbox->lock);
        r = file_pwrite_all(fd, data, size, offset);
        if (r < 0) {
                (void)!ftruncate(fd, (off_t)offset); /* the next append overwrites what is left */
                return r;
        }
        mutex_lock(&t->sandbox->lock);
        t->stdin_size += size;
        mutex_unlock(&t->sandbox->lock);
        return 0;
}

int task_spool_stdin(struct task *t, const void *data, size_t size)
{
        int r;

        if (size > STDIN_MAX)
                return -ENOSPC;
        mutex_lock(&t->stdin_lock);
        r = size > 0 ? append(t, data, size) : 0;
        mutex_unlock(&t->stdin_lock);
        return r;
}

static int check_locked(const struct task *t)
{
        if (t->state == TASK_NEW)
                return 0;
        if (t->stdin_mode == STDIN_NONE)
                return -EBUSY;
        return t->state == TASK_ENDED || t->exit || t->has_stdin_eof ? -EPIPE : 0;
}

int task_write_stdin(struct task *t, const void *data, size_t size)
{
        int r;

        mutex_lock(&t->stdin_lock);
        mutex_lock(&t->sandbox->lock);
        r = check_locked(t);
        if (r == 0 && size > STDIN_MAX - t->stdin_size)
                r = -ENOSPC;
        mutex_unlock(&t->sandbox->lock);
        if (r == 0 && size > 0)
                r = append(t, data, size);
        mutex_unlock(&t->stdin_lock);
        if (r == 0)
                task_stdin_pump(t);
        return r;
}

int task_stdin_eof(struct task *t)
{
        bool save = false;
        int r;

        mutex_lock(&t->sandbox->lock);
        r = check_locked(t);
        if (t->state == TASK_NEW)
                r = -EBUSY;
        if (r == -EPIPE)
                r = 0; /* said twice, or there is nobody to hear it */
        else if (r == 0)
                save = t->has_stdin_eof = true;
        mutex_unlock(&t->sandbox->lock);
        if (save) {
                (void)task_save(t, false); /* else `eof` has to be said again after a restart */
                task_stdin_pump(t);
        }
        return r;
}

uint64_t task_stdin_size(struct task *t)
{
        uint64_t size;

        mutex_lock(&t->sandbox->lock);
        size = t->stdin_size;
        mutex_unlock(&t->sandbox->lock);
        return size;
}

/* ---- to the provider ---- */

/* How much may be sent now; *ret_last: and that is all there will be. */
static size_t sendable_locked(const struct task *t, bool *ret_last)
{
        uint64_t size = t->stdin_size - t->stdin_sent, window;

        *ret_last = false;
        if (!t->exec || t->drop_exec || !t->is_taken_known || t->was_eof_sent)
                return 0;
        window = t->stdin_taken + EXEC_STDIN_WINDOW;
        window = window > t->stdin_sent ? window - t->stdin_sent : 0;
        if (size > window)
                size = window;
        if (size > CHUNK)
                size = CHUNK;
        *ret_last = t->has_stdin_eof && t->stdin_sent + size == t->stdin_size;
        return (size_t)size;
}

static int send_one(struct task *t, uint64_t offset, size_t size, bool is_last)
{
        char data[CHUNK];
        struct exec *x;
        struct call c;
        ssize_t n = 0;
        int r;

        if (size > 0) {
                _cleanup_(closep) int fd = open_spool(t, O_RDONLY);

                n = fd < 0 ? fd : file_pread_full(fd, data, size, offset);
        }
        if (n < 0 || (size_t)n < size)
                return n < 0 ? (int)n : -EIO;
        x = task_exec_get(t);
        if (!x)
                return -EPIPE;
        call_init(&c, clock_after(CALL_NS));
        r = exec_write(x, &c, data, size, is_last);
        task_exec_put(t);
        explicit_bzero(data, size);
        return r;
}

static void send_all(struct task *t)
{
        struct sandbox *sb = t->sandbox;

        for (;;) {
                bool is_last;
                uint64_t offset;
                size_t size;
                int r;

                mutex_lock(&sb->lock);
                size = sendable_locked(t, &is_last);
                offset = t->stdin_sent;
                if (size == 0 && !is_last)
                        t->is_pumping = false;
                mutex_unlock(&sb->lock);
                if (size == 0 && !is_last)
                        return;

                r = send_one(t, offset, size, is_last);
                mutex_lock(&sb->lock);
                if (r == 0)
                        t->stdin_sent += size;
                if (r < 0 || is_last)
                        t->was_eof_sent = true;
                if (r < 0 && r != -EPIPE && r != -ESRCH && !t->is_ending)
                        sandbox_say_error_locked(sb, r, "its stdin could not be sent");
                mutex_unlock(&sb->lock);
        }
}

static void pump_job(void *arg)
{
        struct task *t = arg;
        struct fleet *f = t->sandbox->fleet;

        send_all(t);
        task_unref(t);
        news_deliver(f);
}

void task_stdin_pump(struct task *t)
{
        struct sandbox *sb = t->sandbox;
        bool is_last = false, begin;

        mutex_lock(&sb->lock);
        begin = !t->is_pumping && t->stdin_mode != STDIN_NONE &&
                (sendable_locked(t, &is_last) > 0 || is_last);
        t->is_pumping |= begin;
        mutex_unlock(&sb->lock);
        if (!begin)
                return;
        if (workers_submit(sb->fleet->workers, WORKER_FAST, pump_job, task_ref(t)) == 0)
                return;
        mutex_lock(&sb->lock);
        t->is_pumping = false;
        mutex_unlock(&sb->lock);
        task_unref(t);
}
