/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session ends when the kernel says that it was unmounted (ENODEV), or when we stop reading. Then
 * a broken pipe is put in the place of the descriptor: that closes /dev/fuse, which fails whatever
 * is still waiting, while a late reply of a stuck thread goes nowhere rather than to a descriptor
 * that is something else by then. A broken pipe, because it polls as an unmounted /dev/fuse does,
 * so that libfuse leaves the mount point alone, which may be another's by then.
 */

#include "fs/mount/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/mount/files.h"
#include "fs/mount/init.h"
#include "fs/mount/inval.h"
#include "fs/mount/loop.h"
#include "fs/mount/mount.h"
#include "fs/mount/mountpoint.h"
#include "fs/mount/ops.h"
#include "fs/mount/park.h"
#include "fs/mount/pollers.h"
#include "fs/tree/tree.h"
#include "transport/base/buf.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/file.h"
#include "transport/base/lock.h"
#include "transport/base/log.h"

#define THREAD_MAX 144 /* 128 stuck in one sandbox leave some */
#define UNMOUNT_NS                                                                                 \
        (200 * NS_PER_MS) /* for a detached mount to end by itself, when nothing is open */
#define ANSWER_NS                                                                                  \
        (300 * NS_PER_MS) /* for each: operations under way, parked requests, invalidations */
#define LATE_NS                                                                                    \
        (5 * NS_PER_S) /* for those of them that were only late: the mount is gone by then */

struct session {
        struct mount m;
        struct session_config config; /* fixed */
        struct tree_events events; /* fixed */

        struct mutex lock;
        struct cond ended_changed;
        struct mount_entry entry GUARDED_BY(lock); /* where is_mounted */
        bool is_mounted GUARDED_BY(lock);
        bool is_stopped GUARDED_BY(lock);
        bool is_ended GUARDED_BY(lock); /* no request is read any more */
};

/* ---- what the tree says ---- */

static void on_wake(void *ctx, uint64_t key)
{
        struct session *s = ctx;

        park_wake(s->m.park, key); /* notes the wake, which pollers rely on */
        pollers_wake(s->m.pollers, key);
}

static void on_inval_node(void *ctx, uint64_t node, bool attributes_only)
{
        struct session *s = ctx;

        inval_node(s->m.inval, node, attributes_only);
}

static void on_inval_entry(void *ctx, uint64_t parent, const char *name)
{
        struct session *s = ctx;

        inval_entry(s->m.inval, parent, name);
}

static int on_reload(void *ctx, struct call *c)
{
        struct session *s = ctx;

        return s->config.reload(s->config.reload_ctx, c);
}

const struct tree_events *session_events(struct session *s)
{
        return &s->events;
}

/* ---- what the loop serves ---- */

static int receive(void *ctx, void **data)
{
        struct session *s = ctx;
        struct fuse_buf buf = {.mem = *data};
        int n = fuse_session_receive_buf(s->m.fuse, &buf);

        *data = buf.mem;
        if (n == 0)
                return -ENODEV; /* the session is over */
        return n == -EAGAIN || n == -EINTR ? 0 : n;
}

static void serve(void *ctx, void *data, size_t size)
{
        struct session *s = ctx;
        const struct fuse_buf buf = {.mem = data, .size = size};

        fuse_session_process_buf(s->m.fuse, &buf);
}

static void *take_ready(void *ctx)
{
        struct session *s = ctx;

        return park_take_ready(s->m.park);
}

static void serve_ready(void *ctx, void *work)
{
        struct session *s = ctx;

        park_serve_ready(s->m.park, work);
}

static uint64_t next_due_ns(void *ctx)
{
        struct session *s = ctx;

        return park_next_due_ns(s->m.park);
}

static void free_data(void *ctx, void *data)
{
        (void)ctx;
        free(data); /* libfuse's malloc */
}

static const struct loop_ops loop_ops = {
        .receive = receive,
        .serve = serve,
        .take_ready = take_ready,
        .serve_ready = serve_ready,
        .next_due_ns = next_due_ns,
        .free_data = free_data,
};

/* ---- birth ---- */

/* Seconds in a file of /proc/sys; 0 also when there is none. */
static uint64_t read_seconds(const char *path)
{
        _cleanup_(buf_done) struct buf text = BUF_INIT(64);

        if (file_read(AT_FDCWD, path, &text) < 0)
                return 0;
        return strtoull(buf_str(&text), NULL, 10);
}

/* How old a request may become: a good part of the host's limit, past which the kernel aborts
 * the mount. 0: no limit. */
static uint64_t age_max_ns(void)
{
        uint64_t limit = read_seconds("/proc/sys/fs/fuse/max_request_timeout");
        uint64_t given = read_seconds("/proc/sys/fs/fuse/default_request_timeout");

        if (limit == 0 || (given > 0 && given < limit))
                limit = given;
        return limit * NS_PER_S / 4 * 3;
}

static int make_parts(struct session *s)
{
        const struct park_config park = {
                .mount = &s->m, .workers = s->config.workers, .age_max_ns = age_max_ns()};
        int r = inval_new(&s->m.inval);

        if (r == 0)
                r = files_new(&s->m.files);
        if (r == 0)
                r = pollers_new(&s->m.wakes, &s->m.pollers);
        if (r == 0)
                r = park_new(&park, &s->m.park);
        if (r == 0)
                r = loop_new(THREAD_MAX, &loop_ops, s, &s->m.loop);
        return r;
}

int session_new(const struct session_config *config, struct session **ret)
{
        struct session *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->config = *config;
        s->events = (struct tree_events){
                .wake = on_wake,
                .inval_node = on_inval_node,
                .inval_entry = on_inval_entry,
                .reload = on_reload,
                .ctx = s,
        };
        mutex_init(&s->lock);
        cond_init(&s->ended_changed);
        r = make_parts(s);
        if (r < 0) {
                session_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

void session_free(struct session *s)
{
        if (!s)
                return;
        loop_free(s->m.loop);
        park_free(s->m.park);
        pollers_free(s->m.pollers);
        files_free(s->m.files);
        inval_free(s->m.inval);
        if (s->m.fuse) {
                fuse_session_unmount(s->m.fuse); /* only frees: see above */
                fuse_session_destroy(s->m.fuse);
        }
        mutex_done(&s->lock);
        cond_done(&s->ended_changed);
        free(s);
}

/* ---- mount ---- */

static void log_fuse(enum fuse_log_level level, const char *format, va_list args)
        __attribute__((format(printf, 2, 0)));
static void log_fuse(enum fuse_log_level level, const char *format, va_list args)
{
        char line[512];
        size_t size;

        if (vsnprintf(line, sizeof(line), format, args) < 0)
                return;
        size = strlen(line);
        if (size > 0 && line[size - 1] == '\n')
                line[size - 1] = '\0';
        if (level <= FUSE_LOG_ERR)
                log_error("%s", line);
        else
                log_debug("fuse", "%s", line);
}

static int new_fuse_session(struct session *s)
{
        struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
        char options[256];

        (void)snprintf(options, sizeof(options),
                       "fsname=sbxfs,subtype=sbxfs,default_permissions,nosuid,nodev%s%s%s",
                       s->config.allow_other ? ",allow_other" : "",
                       s->config.is_readonly ? ",ro" : "",
                       s->config.no_exec ? ",noexec" : ""); /* it fits */
        fuse_set_log_func(log_fuse);
        if (fuse_opt_add_arg(&args, "sbxfs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
            fuse_opt_add_arg(&args, options) == 0 &&
            (!log_wants("fuse") || fuse_opt_add_arg(&args, "-odebug") == 0))
                s->m.fuse = fuse_session_new(&args, &mount_ops, sizeof(mount_ops), &s->m);
        fuse_opt_free_args(&args);
        return s->m.fuse ? 0 : -ENOMEM;
}

/* The descriptor: never blocks, for the loop; not for children. */
static int prepare_device(struct session *s)
{
        int fd = fuse_session_fd(s->m.fuse);

        if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
                return -errno;
        return init_hook(s->m.fuse, &s->m);
}

/* Mounted. -ECANCELED: session_stop came first. */
static int note_mounted(struct session *s)
{
        struct mount_entry e = {0};
        int r = mountpoint_find(s->config.mountpoint, &e);
        bool is_stopped;

        if (r == 0)
                r = -ENOENT; /* somebody else has detached it already, or mounted over it */
        if (r < 0)
                return r;
        mountpoint_set_readahead(&e);
        mutex_lock(&s->lock);
        s->entry = e;
        s->is_mounted = true;
        is_stopped = s->is_stopped;
        mutex_unlock(&s->lock);
        return is_stopped ? -ECANCELED : 0;
}

int session_mount(struct session *s, struct tree *tree, struct call *c)
{
        const char *path = s->config.mountpoint;
        struct stat st;
        int r;

        s->m.tree = tree;
        r = mountpoint_clear(path, c);
        if (r < 0)
                return r;
        if (stat(path, &st) < 0)
                return call_fail_errno(c, -errno, "%s", path);
        if (!S_ISDIR(st.st_mode))
                return call_fail(c, -ENOTDIR, "%s is not a directory", path);
        r = new_fuse_session(s);
        if (r < 0)
                return call_fail_errno(c, r, "start a FUSE session");
        if (fuse_session_mount(s->m.fuse, path) != 0)
                return call_fail(c, -EIO, "can't mount on %s", path);
        r = prepare_device(s);
        if (r == 0)
                r = note_mounted(s);
        if (r == 0) {
                inval_open(s->m.inval, s->m.fuse);
                r = loop_start(s->m.loop, fuse_session_fd(s->m.fuse));
        }
        if (r < 0) {
                fuse_session_unmount(s->m.fuse);
                return call_fail_errno(c, r, "mount on %s", path);
        }
        return 0;
}

/* ---- the end ---- */

/* Where it is still mounted: the entry. */
static bool entry_of(struct session *s, struct mount_entry *ret)
{
        bool is_mounted;

        mutex_lock(&s->lock);
        is_mounted = s->is_mounted;
        *ret = s->entry;
        mutex_unlock(&s->lock);
        return is_mounted;
}

static void detach(struct session *s)
{
        struct mount_entry e;
        int r;

        if (!entry_of(s, &e))
                return;
        r = mountpoint_detach(s->config.mountpoint, &e);
        if (r < 0)
                log_error("%s: unmount: %s", s->config.mountpoint, errno_name(r));
}

void session_stop(struct session *s)
{
        uint64_t deadline_ns = clock_after(UNMOUNT_NS);

        mutex_lock(&s->lock);
        s->is_stopped = true;
        mutex_unlock(&s->lock);
        detach(s);
        mutex_lock(&s->lock);
        while (s->is_mounted && !s->is_ended &&
               cond_wait_until(&s->ended_changed, &s->lock, deadline_ns))
                ;
        mutex_unlock(&s->lock);
        loop_end(s->m.loop);
}

/* From here on the kernel's side is closed. */
static void close_device(struct session *s)
{
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0) {
                log_error("close /dev/fuse: %s", errno_name(-errno));
                return;
        }
        (void)close(ends[0]); /* nothing was written */
        if (dup3(ends[1], fuse_session_fd(s->m.fuse), O_CLOEXEC) < 0)
                log_error("close /dev/fuse: %s", errno_name(-errno));
        (void)close(ends[1]); /* likewise */
}

/* Those that are read, and those that wait: answered, and their threads ended. */
static bool end_requests(struct session *s, uint64_t span_ns)
{
        bool is_joined = loop_join(s->m.loop, clock_after(span_ns));

        return park_close(s->m.park, clock_after(span_ns)) && is_joined;
}

static bool end_all(struct session *s)
{
        bool is_clean = end_requests(s, ANSWER_NS);
        struct mount_entry e;

        /* One that is in the kernel ends with the connection. */
        if (!inval_close(s->m.inval, clock_mono_ns()) && entry_of(s, &e))
                mountpoint_abort(&e);
        close_device(s);
        if (!is_clean)
                is_clean = end_requests(s, LATE_NS);
        if (!inval_close(s->m.inval, clock_after(LATE_NS)))
                is_clean = false;
        if (is_clean)
                files_release_all(s->m.files, s->m.tree);
        return is_clean;
}

bool session_run(struct session *s)
{
        bool is_clean;

        loop_wait(s->m.loop);
        mutex_lock(&s->lock);
        s->is_ended = true;
        cond_broadcast(&s->ended_changed);
        mutex_unlock(&s->lock);
        fuse_session_exit(s->m.fuse);
        is_clean = end_all(s);
        detach(s); /* it is still mounted where the connection was aborted */
        if (!is_clean)
                log_warning("%s: an operation is stuck, ending without it", s->config.mountpoint);
        return is_clean;
}
