/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_tree.h. */

#include "tests/unit/mount/fake_tree.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/tree/tree.h"
#include "transport/base/clock.h"

#define KEY_GATE 77
#define KEY_TURN 78
#define KEY_NEVER 79

struct tree {
        struct tree_events events;
        atomic_bool gate;
        atomic_uint turn;
        atomic_bool hangs;
        atomic_uint work_ms;
        atomic_uint handles;
        atomic_uint tries, hanging, stopped;
};

struct handle {
        uint64_t node;
        uint64_t due_ns; /* later: of the first read */
};

static const struct {
        const char *name;
        uint64_t node;
} names[] = {
        {"plain", FAKE_PLAIN}, {"block", FAKE_BLOCK}, {"wait", FAKE_WAIT},
        {"turn", FAKE_TURN},   {"later", FAKE_LATER}, {"hang", FAKE_HANG},
        {"work", FAKE_WORK},   {"dir", FAKE_DIR},     {"many", FAKE_MANY_DIR},
};
#define NAME_COUNT (sizeof(names) / sizeof(names[0]))

struct tree *fake_tree_new(const struct tree_events *events)
{
        struct tree *t = calloc(1, sizeof(*t));

        if (t)
                t->events = *events;
        return t;
}

void fake_tree_free(struct tree *t)
{
        free(t);
}

void fake_open_gate(struct tree *t)
{
        atomic_store(&t->gate, true);
        t->events.wake(t->events.ctx, KEY_GATE);
}

void fake_close_gate(struct tree *t)
{
        atomic_store(&t->gate, false);
}

void fake_turn(struct tree *t)
{
        atomic_fetch_add(&t->turn, 1);
        t->events.wake(t->events.ctx, KEY_TURN);
}

void fake_set_hang(struct tree *t, bool on)
{
        atomic_store(&t->hangs, on);
}

void fake_set_work_ms(struct tree *t, unsigned ms)
{
        atomic_store(&t->work_ms, ms);
}

unsigned fake_open_handles(struct tree *t)
{
        return atomic_load(&t->handles);
}

unsigned fake_tries(struct tree *t)
{
        return atomic_load(&t->tries);
}

unsigned fake_hanging(struct tree *t)
{
        return atomic_load(&t->hanging);
}

unsigned fake_stopped(struct tree *t)
{
        return atomic_load(&t->stopped);
}

static void sleep_ms(unsigned ms)
{
        struct timespec span = clock_timespec(ms * NS_PER_MS);

        (void)nanosleep(&span, NULL); /* a signal is blocked here */
}

/* ---- tree.h ---- */

void tree_op_failed(const struct op *op, int code)
{
        (void)op;
        (void)code;
}

void tree_op_done(struct op *op)
{
        (void)op;
}

void op_init(struct op *op, uint64_t deadline_ns)
{
        call_init(&op->call, deadline_ns);
        op->may_wait = false;
        op->lock_owner = 0;
        op->wait_key = 0;
        op->retry_ns = NEVER_NS;
        op->any_signal = false;
}

static bool is_dir(uint64_t node)
{
        return node == TREE_ROOT || node == FAKE_DIR || node == FAKE_MANY_DIR;
}

static void fill(struct tree_entry *to, uint64_t node)
{
        *to = (struct tree_entry){.node = node};
        to->st.st_ino = node;
        to->st.st_mode = is_dir(node) ? S_IFDIR | 0755 : S_IFREG | 0644;
        to->st.st_nlink = 1;
        to->st.st_uid = getuid();
        to->st.st_gid = getgid();
        to->st.st_size = is_dir(node) ? 0 : (off_t)strlen(FAKE_TEXT);
}

static uint64_t find(const char *name)
{
        for (size_t i = 0; i < NAME_COUNT; i++)
                if (strcmp(names[i].name, name) == 0)
                        return names[i].node;
        return 0;
}

static int pass_gate(struct tree *t, struct op *op)
{
        if (atomic_load(&t->gate))
                return 0;
        atomic_fetch_add(&t->stopped, 1);
        op->wait_key = KEY_GATE;
        return -EINPROGRESS;
}

int tree_lookup(struct tree *t, struct op *op, uint64_t parent, const char *name,
                struct tree_entry *ret)
{
        uint64_t node = 0;

        if (parent == TREE_ROOT)
                node = find(name);
        else if (parent == FAKE_DIR && strcmp(name, "quick") == 0)
                node = FAKE_QUICK;
        else if (parent == FAKE_DIR && strcmp(name, "slow") == 0)
                node = FAKE_SLOW;
        else if (parent == FAKE_MANY_DIR)
                node = FAKE_FIRST_OF_MANY + strtoul(name, NULL, 10);
        if (node == 0)
                return -ENOENT;
        if (node == FAKE_SLOW && pass_gate(t, op) < 0)
                return -EINPROGRESS;
        fill(ret, node);
        return 0;
}

void tree_forget(struct tree *t, uint64_t node, uint64_t count)
{
        (void)t;
        (void)node;
        (void)count;
}

int tree_getattr(struct tree *t, struct op *op, uint64_t node, struct handle *h,
                 struct tree_entry *ret)
{
        (void)t;
        (void)op;
        (void)h;
        fill(ret, node);
        return 0;
}

static void hang(struct tree *t)
{
        atomic_fetch_add(&t->hanging, 1);
        while (atomic_load(&t->hangs))
                sleep_ms(10);
        atomic_fetch_sub(&t->hanging, 1);
}

int tree_open(struct tree *t, struct op *op, uint64_t node, int flags, struct tree_opened *ret)
{
        struct handle *h = calloc(1, sizeof(*h));

        (void)op;
        (void)flags;
        if (!h)
                return -ENOMEM;
        if (node == FAKE_HANG)
                hang(t);
        h->node = node;
        atomic_fetch_add(&t->handles, 1);
        *ret = (struct tree_opened){
                .handle = h, .is_direct = node != FAKE_PLAIN, .no_flush = true, .backing_fd = -1};
        return 0;
}

static ssize_t read_turn(struct tree *t, struct op *op, char *data, size_t size, uint64_t offset)
{
        unsigned turn = atomic_load(&t->turn);
        int n;

        if (turn <= offset) {
                op->wait_key = KEY_TURN;
                return -EINPROGRESS;
        }
        n = snprintf(data, size, "%u\n", turn);
        return n < (int)size ? n : (int)size;
}

static ssize_t read_on_worker(struct tree *t, struct op *op)
{
        uint64_t end = clock_after(atomic_load(&t->work_ms) * NS_PER_MS);

        if (!op->may_wait) {
                op->wait_key = 0;
                return -EINPROGRESS;
        }
        while (clock_mono_ns() < end) {
                if (call_check(&op->call) < 0)
                        return call_check(&op->call);
                sleep_ms(1);
        }
        return 0;
}

ssize_t tree_read(struct tree *t, struct op *op, struct handle *h, void *data, size_t size,
                  uint64_t offset)
{
        ssize_t r = 0;

        atomic_fetch_add(&t->tries, 1);
        switch (h->node) {
        case FAKE_BLOCK:
        case FAKE_WAIT:
                op->any_signal = h->node == FAKE_WAIT;
                r = pass_gate(t, op);
                break;
        case FAKE_TURN: return read_turn(t, op, data, size, offset);
        case FAKE_LATER:
                if (h->due_ns == 0)
                        h->due_ns = clock_after(50 * NS_PER_MS);
                op->wait_key = KEY_NEVER;
                op->retry_ns = h->due_ns;
                r = clock_mono_ns() < h->due_ns ? -EINPROGRESS : 0;
                break;
        case FAKE_WORK: r = read_on_worker(t, op); break;
        default: break;
        }
        if (r < 0)
                return r;
        if (offset >= strlen(FAKE_TEXT))
                return 0;
        if (size > strlen(FAKE_TEXT) - offset)
                size = strlen(FAKE_TEXT) - offset;
        memcpy(data, &FAKE_TEXT[offset], size);
        return (ssize_t)size;
}

void tree_release(struct tree *t, struct handle *h)
{
        atomic_fetch_sub(&t->handles, 1);
        free(h);
}

unsigned tree_poll(struct tree *t, struct op *op, struct handle *h, uint64_t *ret_key)
{
        (void)op;
        *ret_key = 0;
        if (h->node == FAKE_BLOCK) {
                *ret_key = KEY_GATE;
                return atomic_load(&t->gate) ? POLLIN : 0;
        }
        return POLLIN | POLLOUT;
}

int tree_opendir(struct tree *t, struct op *op, uint64_t node, struct handle **ret)
{
        struct tree_opened opened;
        int r = tree_open(t, op, node, 0, &opened);

        if (r == 0)
                *ret = opened.handle;
        return r;
}

int tree_readdir(struct tree *t, struct op *op, struct handle *h, uint64_t offset, bool plus,
                 struct tree_dir_sink *to)
{
        size_t count = h->node == TREE_ROOT ? NAME_COUNT : h->node == FAKE_MANY_DIR ? FAKE_MANY : 0;

        (void)t;
        (void)op;
        for (size_t i = offset; i < count; i++) {
                const char *name = names[h->node == TREE_ROOT ? i : 0].name;
                struct tree_entry e;
                char number[24];

                fill(&e, h->node == TREE_ROOT ? names[i].node : FAKE_FIRST_OF_MANY + i);
                if (h->node != TREE_ROOT) {
                        (void)snprintf(number, sizeof(number), "%zu", i); /* it fits */
                        name = number;
                }
                if (!plus)
                        e.node = 0;
                e.attr_ttl_ns = e.entry_ttl_ns = NS_PER_S;
                if (!to->add(to, name, &e, i + 1))
                        break;
        }
        return 0;
}

void tree_releasedir(struct tree *t, struct handle *h)
{
        tree_release(t, h);
}

int tree_statfs(struct tree *t, struct op *op, uint64_t node, struct statvfs *ret)
{
        (void)t;
        (void)op;
        (void)node;
        *ret = (struct statvfs){.f_bsize = 4096, .f_namemax = 255};
        return 0;
}

/* ---- not in this tree ---- */

int tree_setattr(struct tree *t, struct op *op, uint64_t node, struct handle *h, unsigned what,
                 const struct stat *to, struct tree_entry *ret)
{
        (void)what;
        (void)to;
        return tree_getattr(t, op, node, h, ret);
}

/* Operations that nothing here tests: refused. */
#define REFUSED(type, name, ...)                                                                   \
        type name(struct tree *t, struct op *op, __VA_ARGS__)                                      \
        {                                                                                          \
                (void)t;                                                                           \
                (void)op;                                                                          \
                return -EPERM;                                                                     \
        }
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif
REFUSED(int, tree_readlink, uint64_t node, char *target, size_t size)
REFUSED(int, tree_mkdir, uint64_t parent, const char *name, mode_t mode, struct tree_entry *ret)
REFUSED(int, tree_mknod, uint64_t parent, const char *name, mode_t mode, struct tree_entry *ret)
REFUSED(int, tree_symlink, uint64_t parent, const char *name, const char *target,
        struct tree_entry *ret)
REFUSED(int, tree_link, uint64_t node, uint64_t parent, const char *name, struct tree_entry *ret)
REFUSED(int, tree_unlink, uint64_t parent, const char *name)
REFUSED(int, tree_rmdir, uint64_t parent, const char *name)
REFUSED(int, tree_rename, uint64_t parent, const char *name, uint64_t new_parent,
        const char *new_name, unsigned flags)
REFUSED(int, tree_create, uint64_t parent, const char *name, mode_t mode, int flags,
        struct tree_entry *ret, struct tree_opened *ret_opened)
REFUSED(ssize_t, tree_write, struct handle *h, const void *data, size_t size, uint64_t offset)
REFUSED(int, tree_flush, struct handle *h)
REFUSED(int, tree_fsync, struct handle *h, bool data_only)
REFUSED(int, tree_fallocate, struct handle *h, int mode, uint64_t offset, uint64_t size)
REFUSED(ssize_t, tree_copy_range, struct handle *from, uint64_t from_offset, struct handle *to,
        uint64_t to_offset, size_t size)
REFUSED(int64_t, tree_lseek, struct handle *h, int64_t offset, int whence)
REFUSED(int, tree_fsyncdir, struct handle *h, bool data_only)
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
