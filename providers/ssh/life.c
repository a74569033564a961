/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start, stop, pause, resume, destroy: signals to the commands' groups, and the file `state`, which
 * the next run of ours finds.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/ssh/box.h"
#include "providers/ssh/host.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/sftp/batch.h"

#define PATH_SIZE 4096
#define GRACE_NS (5 * NS_PER_S)
#define KILL_NS (5 * NS_PER_S)
#define LOOK_NS (200 * NS_PER_MS)

/* ---- one change at a time ---- */

static int begin_locked(struct ssh_box *b, struct call *c) REQUIRES(b->lock)
{
        while (b->is_changing) {
                int r = call_check(c);

                if (r < 0)
                        return call_fail_errno(c, r, "another change of the sandbox goes on");
                (void)cond_wait_until(&b->changed, &b->lock, clock_after(50 * NS_PER_MS));
        }
        b->is_changing = true;
        return 0;
}

static int begin(struct ssh_box *b, struct call *c, enum box_state *ret_before)
{
        int r;

        mutex_lock(&b->lock);
        r = begin_locked(b, c);
        *ret_before = b->state;
        mutex_unlock(&b->lock);
        return r;
}

static void end(struct ssh_box *b, enum box_state state)
{
        mutex_lock(&b->lock);
        b->state = state;
        b->is_changing = false;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
}

/* ---- the file `state` ---- */

static int state_path(struct ssh_box *b, struct call *c, char ret[PATH_SIZE])
{
        const struct ssh_paths *p;
        int r = ssh_box_paths(b, c, &p);

        if (r < 0)
                return r;
        if (snprintf(ret, PATH_SIZE, "%s/" STATE_FILE, p->dir) >= PATH_SIZE)
                return call_fail(c, -ENAMETOOLONG, "the path of the sandbox is too long");
        return 0;
}

/* NULL: it runs. */
static int write_state(struct ssh_box *b, struct call *c, const char *word)
{
        char path[PATH_SIZE];
        struct ssh_link *l = NULL;
        int r = state_path(b, c, path);

        if (r == 0)
                r = host_link(b->host, c, HOST_CONTROL, &l);
        if (r < 0 || !l)
                return r;
        r = word ? remote_write(l, c, path, word, strlen(word)) : sftp_unlink(l->sftp, c, path);
        link_unref(l);
        if (!word && r == -ENOENT)
                r = 0;
        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "%s", path) : r;
}

/* ---- signals ---- */

static int on_command(void *ctx, const char *path, const struct stat *st, const char *target)
{
        (void)ctx;
        (void)path;
        (void)st;
        (void)target;
        return 1;
}

static int on_listed(void *ctx, const char *path)
{
        (void)ctx;
        (void)path;
        return 0;
}

/* 1: run/ holds something of a command; 0: none was ever started. */
static int has_commands(struct ssh_box *b, struct call *c)
{
        const struct sftp_list_sink sink = {.entry = on_command, .listed = on_listed};
        const struct ssh_paths *p = NULL;
        struct sftp_listing what = {.depth = 1};
        struct ssh_link *l = NULL;
        int r = ssh_box_paths(b, c, &p);

        if (r == 0)
                r = host_link(b->host, c, HOST_CONTROL, &l);
        if (r < 0 || !p || !l)
                return r;
        what.root = p->run;
        r = sftp_list(l->sftp, c, &what, &sink);
        link_unref(l);
        if (r == -ENOENT)
                return 0;
        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "%s", p->run) : r;
}

/* How many groups there were; 0 as well where no shell answers and none can ever have been. */
static int signal_all(struct ssh_box *b, struct call *c, int signal)
{
        int r = ssh_exec_signal_all(b, c, signal), has;

        if (r != -EOPNOTSUPP && r != -EAGAIN)
                return r;
        has = has_commands(b, c);
        if (has < 0)
                return has;
        if (has > 0)
                return call_fail(c, -EAGAIN,
                                 "%s runs no command now, and former ones may live: run/ of the "
                                 "sandbox isn't empty",
                                 host_name(b->host));
        c->sentence[0] = '\0';
        return 0;
}

/* Until none lives: 0; -ETIMEDOUT some do. */
static int wait_ended(struct ssh_box *b, struct call *c, uint64_t span_ns)
{
        uint64_t end_ns = clock_after(span_ns);
        int r;

        while ((r = signal_all(b, c, 0)) > 0) {
                int over = call_check(c);

                if (over < 0)
                        return call_fail_errno(c, over, "the sandbox's commands are still ending");
                if (clock_mono_ns() >= end_ns)
                        return -ETIMEDOUT;
                mutex_lock(&b->lock);
                (void)cond_wait_until(&b->changed, &b->lock, clock_after(LOOK_NS));
                mutex_unlock(&b->lock);
        }
        return r;
}

static int kill_all(struct ssh_box *b, struct call *c)
{
        uint64_t end_ns = clock_after(KILL_NS);
        int r;

        do {
                r = signal_all(b, c, SIGKILL);
                if (r > 0)
                        r = wait_ended(b, c, NS_PER_S);
                /* What was forked meanwhile gets it, too. */
        } while (r == -ETIMEDOUT && call_check(c) == 0 && clock_mono_ns() < end_ns);
        return r == -ETIMEDOUT && call_check(c) == 0
                       ? call_fail(c, -EBUSY, "a process of the sandbox can't be killed")
                       : r;
}

/* TERM, which what is stopped gets with its CONT; 5 s; KILL. */
static int end_all(struct ssh_box *b, struct call *c)
{
        int r = signal_all(b, c, SIGTERM);

        if (r > 0)
                r = signal_all(b, c, SIGCONT);
        if (r > 0)
                r = wait_ended(b, c, GRACE_NS);
        return r == -ETIMEDOUT && call_check(c) == 0 ? kill_all(b, c) : r;
}

/* ---- verbs ---- */

static int refuse(struct call *c, enum box_state state)
{
        if (state == BOX_GONE || state == BOX_DESTROYING)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        return call_fail(c, -EBUSY, "the sandbox is %s", box_state_name(state));
}

/* What it is, on the host, where we don't know yet. */
static int know(struct ssh_box *b, struct call *c, enum box_state *state)
{
        const struct ssh_paths *p;
        int r = ssh_box_paths(b, c, &p);

        if (r < 0 || *state != BOX_UNKNOWN)
                return r;
        mutex_lock(&b->lock);
        *state = b->state;
        mutex_unlock(&b->lock);
        if (*state == BOX_UNKNOWN) {
                struct box_status status;

                r = ssh_box_state(&b->base, c, &status);
                if (r == 0)
                        *state = status.state;
        }
        return r;
}

/* A change from `from` to `to`, in which it is `meanwhile`. */
static int change(struct box *box, struct call *c, enum box_state from, enum box_state meanwhile,
                  enum box_state to, int (*work)(struct ssh_box *b, struct call *c))
{
        struct ssh_box *b = ssh_box_of(box);
        const struct ssh_paths *p;
        enum box_state before = BOX_UNKNOWN;
        int r = ssh_box_paths(b, c, &p); /* with the state that is there, the first time */

        if (r == 0)
                r = begin(b, c, &before);
        if (r < 0)
                return r;
        r = know(b, c, &before);
        if (r == 0 && before != from) {
                if (before != to)
                        r = refuse(c, before);
                end(b, before);
                return r;
        }
        if (r == 0) {
                box_set_state(b, meanwhile);
                r = work(b, c);
        }
        end(b, r == 0 ? to : before);
        return r;
}

static int start_box(struct ssh_box *b, struct call *c)
{
        return write_state(b, c, NULL);
}

int ssh_box_start(struct box *box, struct call *c, const struct spec *spec)
{
        (void)spec; /* what commands get is on the host */
        return change(box, c, BOX_STOPPED, BOX_STARTING, BOX_RUNNING, start_box);
}

int ssh_box_stop(struct box *box, struct call *c)
{
        struct ssh_box *b = ssh_box_of(box);
        const struct ssh_paths *p;
        enum box_state before = BOX_UNKNOWN;
        int r = ssh_box_paths(b, c, &p);

        if (r == 0)
                r = begin(b, c, &before);
        if (r < 0)
                return r;
        if (before == BOX_GONE || before == BOX_DESTROYING || before == BOX_STOPPED) {
                r = before == BOX_STOPPED ? 0 : refuse(c, before);
                end(b, before);
                return r;
        }
        box_set_state(b, BOX_STOPPING);
        /* First the word: no command is started from now on, by whichever run of ours. */
        r = write_state(b, c, "stopped\n");
        if (r == 0)
                r = end_all(b, c);
        end(b, r == 0 ? BOX_STOPPED : before);
        return r < 0 ? r : 0;
}

static int resume_box(struct ssh_box *b, struct call *c)
{
        int r = signal_all(b, c, SIGCONT);

        return r < 0 ? r : write_state(b, c, NULL);
}

static int pause_box(struct ssh_box *b, struct call *c)
{
        int r = host_shell(b->host, c);

        if (r >= 0)
                r = write_state(b, c, "paused\n");
        if (r == 0) {
                r = signal_all(b, c, SIGSTOP);
                if (r > 0) /* also what was forked between */
                        r = signal_all(b, c, SIGSTOP);
                if (r < 0)
                        (void)resume_box(b, c); /* the failure to tell is the first */
        }
        return r < 0 ? r : 0;
}

int ssh_box_pause(struct box *box, struct call *c)
{
        return change(box, c, BOX_RUNNING, BOX_PAUSING, BOX_PAUSED, pause_box);
}

int ssh_box_resume(struct box *box, struct call *c)
{
        return change(box, c, BOX_PAUSED, BOX_RESUMING, BOX_RUNNING, resume_box);
}

/* ---- destroy ---- */

/* The other name: it is no sandbox any more, and it is still known whose it was. */
static int unmark(struct ssh_link *l, struct call *c, const char *base, const char *key)
{
        char marker[PATH_SIZE], half[PATH_SIZE];
        int r;

        if (snprintf(marker, sizeof(marker), "%s/%s/" MARKER, base, key) >= PATH_SIZE ||
            snprintf(half, sizeof(half), "%s/%s/" MARKER_HALF, base, key) >= PATH_SIZE)
                return call_fail(c, -ENAMETOOLONG, "the path of the sandbox is too long");
        r = sftp_rename(l->sftp, c, marker, half, true);
        return r < 0 && !c->sentence[0] ? call_fail_errno(c, r, "%s", marker) : r;
}

static int check_gone(struct ssh_link *l, struct call *c, const char *base, const char *key)
{
        struct seen seen = {0};
        int r = workspace_look(l, c, base, key, &seen);

        if (r < 0)
                return r;
        r = seen.kind == SEEN_MISSING ? 0 : call_fail(c, -EIO, "%s/%s is still there", base, key);
        seen_done(&seen);
        return r;
}

static int destroy_at(struct ssh_box *b, struct ssh_link *l, struct call *c, const char *base)
{
        struct seen seen = {0};
        int r = workspace_look(l, c, base, b->key, &seen);

        if (r < 0)
                return r;
        if (seen.kind == SEEN_UNMARKED)
                r = call_fail(c, -EPERM, "%s/%s on %s has no marker of ours: it's left alone", base,
                              b->key, host_name(b->host));
        else if (seen.kind != SEEN_MISSING)
                r = box_check_owner(b, &seen, c);
        if (r == 0 && seen.kind == SEEN_MARKED) {
                const struct ssh_paths *p;

                r = ssh_box_paths(b, c, &p); /* for the commands */
                if (r == 0)
                        r = kill_all(b, c);
                if (r >= 0)
                        r = unmark(l, c, base, b->key);
        }
        if (r == 0 && seen.kind != SEEN_MISSING)
                r = workspace_remove(b->host, l, c, base, b->key);
        if (r == 0)
                r = check_gone(l, c, base, b->key);
        seen_done(&seen);
        return r;
}

int ssh_box_destroy(struct box *box, struct call *c)
{
        struct ssh_box *b = ssh_box_of(box);
        _cleanup_(freep) char *base = NULL;
        enum box_state before = BOX_UNKNOWN;
        struct ssh_link *l = NULL;
        int r = begin(b, c, &before);

        if (r < 0)
                return r;
        box_set_state(b, BOX_DESTROYING);
        r = host_link(b->host, c, HOST_CONTROL, &l);
        if (r == 0) {
                r = workspace_base(b->host, l, c, false, &base);
                if (r == 0)
                        r = destroy_at(b, l, c, base);
                else if (r == -ENOENT)
                        r = 0;
                link_unref(l);
        }
        end(b, r == 0 ? BOX_GONE : before);
        return r;
}
