/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a sandbox's holder: started, watched, paused, ended. One change at a time
 * (is_changing); the end of the process is always seen by the hub (process_ready), which settles
 * everything that hung on it before others see that it is gone.
 */

#include "providers/local/local.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "providers/local/cgroup.h"
#include "transport/base/call.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"
#include "transport/base/process.h"

#define GRACE_MS 5000u
#define STOP_NS (7 * NS_PER_S) /* the holder's grace, and what it needs then */
#define KILL_NS (10 * NS_PER_S) /* from SIGKILL to the end of the last process */
#define ANSWER_NS (30 * NS_PER_S)

/* ---- one change at a time ---- */

int life_begin_locked(struct local_box *b, struct call *c)
{
        int r = 0;

        while (r == 0 && b->is_changing)
                r = box_wait_locked(b, c);
        if (r < 0)
                return call_fail(c, r, "the sandbox is still %s", box_state_name(b->state));
        b->is_changing = true;
        return 0;
}

/* `state` is what it is now if the holder lives. */
void life_end_locked(struct local_box *b, enum box_state state)
{
        bool has_holder = b->process.fd >= 0;

        b->is_changing = b->is_expected = false;
        b->state = has_holder || state == BOX_GONE || state == BOX_DESTROYING || state == BOX_ERROR
                           ? state
                           : BOX_STOPPED;
        cond_broadcast(&b->changed);
}

/* ---- the end of a holder, on the hub ---- */

/* isolation=none under a uid of its own: what the holder left behind, if it was killed. */
static void kill_uid(const struct local_box *b)
{
        char path[4096];
        const char *const argv[] = {"sbxfs-holder", "kill", NULL};
        struct process_spec spec = {.path = path,
                                    .argv = argv,
                                    .uid = b->plan.uid,
                                    .gid = b->plan.gid,
                                    .cgroup_procs = {-1, -1}};
        int pidfd, status;
        pid_t pid;

        if (b->plan.is_isolated || !b->local->uids)
                return;
        (void)snprintf(path, sizeof(path), "%s/sbxfs-holder", b->local->helper_dir);
        if (process_spawn(&spec, &pid, &pidfd) < 0)
                return; /* nothing more can be done */
        (void)process_reap(pidfd, clock_after(NS_PER_S), &status);
        closep(&pidfd);
}

/* A holder without bwrap is our child. */
static void reap(int pidfd)
{
        siginfo_t info;

        (void)waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG); /* -ECHILD: somebody else's */
}

/* True: nobody asked for this end. Then there is a sentence about it. */
static bool is_news_locked(struct local_box *b) REQUIRES(b->lock)
{
        if (!b->is_expected && !b->sentence[0])
                (void)snprintf(b->sentence, sizeof(b->sentence), LIFE_ENDED);
        return !b->is_expected;
}

/* No holder from here on. True: it is news. */
static bool forget_process(struct local_box *b)
{
        bool is_news;

        mutex_lock(&b->lock);
        is_news = is_news_locked(b); /* a launch that thought itself done may have ended since */
        closep(&b->process.fd);
        b->process.fd = -1;
        b->is_settling = false;
        b->holder = (struct holder_id){0};
        b->has_freezer = false;
        atomic_store(&b->is_quiet, true);
        if (!b->is_changing)
                b->state = BOX_STOPPED;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
        return is_news;
}

static void settle(struct local_box *b)
{
        char sentence[sizeof(b->sentence)];

        mutex_lock(&b->lock);
        b->is_settling = true;
        (void)snprintf(sentence, sizeof(sentence), "%s",
                       is_news_locked(b) ? b->sentence : "the sandbox was stopped");
        mutex_unlock(&b->lock);
        conn_drain(b);
        conn_close(b);
        exec_lose_all(b, sentence);
        kill_uid(b);
        if (box_has_limits(&b->plan))
                cgroup_remove(b->local->cgroups, b->base.id);
        if (forget_process(b) && b->local->listener.box_changed)
                b->local->listener.box_changed(b->local->listener.ctx, b->base.id);
}

static void process_ready(struct hub_source *s, uint32_t events)
{
        struct local_box *b = container_of(s, struct local_box, process);
        bool is_released;

        (void)events;
        mutex_lock(&b->lock);
        is_released = b->is_released;
        mutex_unlock(&b->lock);
        if (is_released)
                return;
        hub_remove(b->local->hub, s);
        reap(s->fd);
        settle(b);
}

static void kill_holder_locked(struct local_box *b) REQUIRES(b->lock)
{
        if (b->process.fd >= 0) /* it may have ended */
                (void)syscall(SYS_pidfd_send_signal, b->process.fd, SIGKILL, NULL, 0);
}

/* It can't be spoken to: end it. */
static void give_up(struct local_box *b, const char *sentence)
{
        mutex_lock(&b->lock);
        if (sentence && !b->is_expected && !b->sentence[0])
                (void)snprintf(b->sentence, sizeof(b->sentence), "%s", sentence);
        kill_holder_locked(b);
        mutex_unlock(&b->lock);
}

void life_broken(struct local_box *b, const char *sentence)
{
        give_up(b, sentence);
        conn_close(b);
}

void life_greeted(struct local_box *b, bool is_paused)
{
        const struct proto_msg resume = {.type = PROTO_RESUME,
                                         .resume = {.seq = 0, .by_signal = false}};

        mutex_lock(&b->lock);
        b->conn.is_greeted = true;
        if (!b->is_changing && (b->state == BOX_RUNNING || b->state == BOX_PAUSED)) {
                if (!b->has_freezer)
                        b->state = is_paused ? BOX_PAUSED : BOX_RUNNING;
                else if (is_paused && b->state == BOX_RUNNING) /* we died beside a freeze or thaw */
                        (void)conn_send_locked(b, &resume, -1);
        }
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
}

static bool has_ended_locked(struct local_box *b) REQUIRES(b->lock)
{
        struct pollfd look = {.fd = b->process.fd, .events = POLLIN};

        return look.fd < 0 || poll(&look, 1, 0) > 0;
}

bool life_has_ended(struct local_box *b)
{
        bool has_ended;

        mutex_lock(&b->lock);
        has_ended = has_ended_locked(b);
        mutex_unlock(&b->lock);
        return has_ended;
}

/* ---- start ---- */

static int watch(struct local_box *b, int pidfd, const struct holder_id *holder)
{
        mutex_lock(&b->lock);
        b->process = (struct hub_source){.ready = process_ready, .fd = pidfd};
        b->holder = *holder;
        b->sentence[0] = '\0';
        atomic_store(&b->is_quiet, false);
        mutex_unlock(&b->lock);
        return hub_add(b->local->hub, &b->process, EPOLLIN);
}

/* The hub can't be told: end it here. */
static void unwatched(struct local_box *b)
{
        struct pollfd end = {.events = POLLIN};

        mutex_lock(&b->lock);
        kill_holder_locked(b);
        end.fd = b->process.fd;
        mutex_unlock(&b->lock);
        (void)poll(&end, 1, (int)(KILL_NS / NS_PER_MS)); /* it can't refuse */
        reap(end.fd);
        settle(b);
}

static int set_limits(struct local_box *b, pid_t pid, struct call *c)
{
        const struct cgroup_limits limits = {.cpu_milli = b->plan.cpu_milli,
                                             .memory = b->plan.memory,
                                             .processes = b->plan.processes};
        bool can_freeze;
        int r;

        if (!box_has_limits(&b->plan))
                return 0;
        r = cgroup_enter(b->local->cgroups, b->base.id, &limits, pid, c);
        if (r < 0)
                return r == -ESRCH ? -EHOSTDOWN : r; /* it has ended */
        can_freeze = cgroup_has_freezer(b->local->cgroups, b->base.id);
        mutex_lock(&b->lock);
        b->has_freezer = can_freeze;
        mutex_unlock(&b->lock);
        return 0;
}

static int send_env(struct local_box *b, const struct spec *spec)
{
        _cleanup_(buf_wipe) struct buf text = BUF_INIT(PROTO_FRAME_MAX);
        struct proto_msg m = {.type = PROTO_ENV};
        int r = launch_env(b, spec, &text, &m.env.count);

        if (r < 0)
                return r;
        m.env.data = text.data;
        m.env.size = text.size;
        mutex_lock(&b->lock);
        r = conn_send_locked(b, &m, -1);
        mutex_unlock(&b->lock);
        return r;
}

/* Until HELLO, which never comes when bwrap dies while what shall be the holder waits for it. */
static int wait_greeted(struct local_box *b, const struct launched *l, struct call *c)
{
        uint64_t deadline_ns = clock_after(ANSWER_NS);
        int r = 0;

        mutex_lock(&b->lock);
        while (r == 0 && b->conn.source.fd >= 0 && !b->conn.is_greeted) {
                if (launch_is_over(l))
                        r = -EHOSTDOWN;
                else if (clock_mono_ns() > deadline_ns)
                        r = -ETIMEDOUT;
                else
                        r = box_wait_locked(b, c);
        }
        if (r == 0 && b->conn.source.fd < 0)
                r = -EHOSTDOWN;
        mutex_unlock(&b->lock);
        return r < 0 ? call_fail(c, r, "the sandbox's holder doesn't answer") : 0;
}

/* -EHOSTDOWN: it has ended. */
static int bring_up(struct local_box *b, int dir, struct launched *l, struct call *c,
                    const struct spec *spec)
{
        int r = set_limits(b, l->holder.pid, c);

        if (r < 0)
                return r;
        /* Written down before anybody speaks to it: without that it ends by itself (holder.c). */
        r = plan_save(&b->plan, &l->holder, dir, RECORD_NO_SYNC);
        if (r < 0)
                return call_fail_errno(c, r, "record of the sandbox");
        r = conn_open(b, dir, c);
        if (r < 0)
                return r;
        r = send_env(b, spec);
        if (r < 0)
                return call_fail_errno(c, r, "environment of the sandbox");
        return wait_greeted(b, l, c);
}

/* Wait for the hub to settle the end. */
static int wait_ended_locked(struct local_box *b, uint64_t span_ns) REQUIRES(b->lock)
{
        uint64_t deadline_ns = clock_after(span_ns);

        while (b->process.fd >= 0) {
                if (!cond_wait_until(&b->changed, &b->lock, deadline_ns) && b->process.fd >= 0)
                        return -ETIMEDOUT;
        }
        return 0;
}

static int launch_in(struct local_box *b, int dir, struct call *c, const struct spec *spec)
{
        _cleanup_(launched_done) struct launched l = {.pidfd = -1, .monitor = -1, .errors = -1};
        int pidfd, r = launch(b, dir, c, &l);

        if (r < 0)
                return r;
        pidfd = STEAL_FD(l.pidfd);
        mutex_lock(&b->lock);
        b->is_expected = true; /* an end now is the launch's failure, and the caller's news */
        mutex_unlock(&b->lock);
        r = watch(b, pidfd, &l.holder);
        if (r < 0) {
                unwatched(b);
                return call_fail_errno(c, r, "watch the holder");
        }
        r = bring_up(b, dir, &l, c, spec);
        mutex_lock(&b->lock);
        if (r < 0) {
                kill_holder_locked(b);
                /* what can't be killed is shown by its state */
                (void)wait_ended_locked(b, KILL_NS);
        } else if (b->process.fd < 0) {
                r = -EHOSTDOWN; /* it ended as soon as it was greeted */
        }
        b->is_expected = false;
        mutex_unlock(&b->lock);
        return r == -EHOSTDOWN ? launch_explain(&l, c) : r;
}

int life_launch(struct local_box *b, struct call *c, const struct spec *spec)
{
        _cleanup_(closep) int dir = box_open_dir(b->local, b->base.id);

        if (dir < 0)
                return call_fail_errno(c, dir, "directory of the sandbox");
        return launch_in(b, dir, c, spec);
}

int life_adopt(struct local_box *b, int dir, int pidfd, const struct holder_id *holder,
               struct call *c)
{
        bool can_freeze =
                box_has_limits(&b->plan) && cgroup_has_freezer(b->local->cgroups, b->base.id);
        bool is_frozen = can_freeze && cgroup_is_frozen(b->local->cgroups, b->base.id);
        int r;

        mutex_lock(&b->lock);
        b->has_freezer = can_freeze;
        b->state = is_frozen || (holder->is_paused && !can_freeze) ? BOX_PAUSED : BOX_RUNNING;
        mutex_unlock(&b->lock);
        r = watch(b, pidfd, holder);
        if (r < 0) {
                /* Not ours to end: it may be attached again. */
                mutex_lock(&b->lock);
                closep(&b->process.fd);
                b->process.fd = -1;
                mutex_unlock(&b->lock);
                return call_fail_errno(c, r, "watch the holder");
        }
        r = conn_open(b, dir, c);
        if (r != -EHOSTDOWN)
                return r; /* 0, or a shortage of ours: no reason to end it */
        give_up(b, "the holder of this sandbox couldn't be reached");
        return 0;
}

/*
 * A holder that has ended is gone only when the hub has settled that.
 * Between begin and end, which comes on failure.
 */
static int wait_settled_locked(struct local_box *b, struct call *c) REQUIRES(b->lock)
{
        int r = 0;

        while (r == 0 && b->process.fd >= 0 && has_ended_locked(b))
                r = box_wait_locked(b, c);
        if (r < 0)
                life_end_locked(b, b->state);
        return r < 0 ? call_fail(c, r, "the sandbox is still ending") : 0;
}

int local_start(struct box *box, struct call *c, const struct spec *spec)
{
        struct local_box *b = local_box(box);
        int r;

        mutex_lock(&b->lock);
        r = life_begin_locked(b, c);
        if (r == 0)
                r = wait_settled_locked(b, c);
        if (r < 0) {
                mutex_unlock(&b->lock);
                return r;
        }
        if (b->process.fd >= 0 || b->state == BOX_GONE || b->state == BOX_DESTROYING) {
                r = b->state == BOX_RUNNING ? 0
                    : b->state == BOX_PAUSED
                            ? call_fail(c, -EBUSY, "the sandbox is paused: resume it")
                            : call_fail(c, -ENODEV, "the sandbox is gone");
                life_end_locked(b, b->state);
                mutex_unlock(&b->lock);
                return r;
        }
        b->state = BOX_STARTING;
        mutex_unlock(&b->lock);
        r = life_launch(b, c, spec);
        mutex_lock(&b->lock);
        if (r < 0)
                (void)snprintf(b->sentence, sizeof(b->sentence), "%.255s", c->sentence);
        life_end_locked(b, BOX_RUNNING);
        mutex_unlock(&b->lock);
        return r;
}

/* ---- stop, kill ---- */

static bool has_freezer(struct local_box *b)
{
        bool has;

        mutex_lock(&b->lock);
        has = b->has_freezer;
        mutex_unlock(&b->lock);
        return has;
}

static void thaw(struct local_box *b)
{
        int r = has_freezer(b) ? cgroup_freeze(b->local->cgroups, b->base.id, false) : 0;

        if (r < 0)
                log_debug("local", "%s: thaw: %s", b->base.id, errno_name(r));
}

/* The holder ends everything and itself. */
static void ask_to_stop(struct local_box *b, uint32_t grace_ms, uint64_t span_ns)
{
        const struct proto_msg m = {.type = PROTO_STOP, .stop = {.grace_ms = grace_ms}};

        mutex_lock(&b->lock);
        if (conn_send_locked(b, &m, -1) == 0)
                (void)wait_ended_locked(b, span_ns); /* killed below */
        mutex_unlock(&b->lock);
}

int life_kill(struct local_box *b, struct call *c)
{
        int r;

        if (!b->plan.is_isolated)
                ask_to_stop(b, 0, 3 * NS_PER_S); /* what the holder leaves behind would live on */
        mutex_lock(&b->lock);
        kill_holder_locked(b);
        mutex_unlock(&b->lock);
        thaw(b); /* frozen by cgroup v1, it couldn't die */
        mutex_lock(&b->lock);
        r = wait_ended_locked(b, KILL_NS);
        mutex_unlock(&b->lock);
        return r < 0 ? call_fail(c, r, "a process of the sandbox can't be killed") : 0;
}

static void forget_holder(struct local_box *b)
{
        _cleanup_(closep) int dir = box_open_dir(b->local, b->base.id);
        const struct holder_id none = {0};
        int r = dir < 0 ? dir : plan_save(&b->plan, &none, dir, RECORD_NO_SYNC);

        if (r < 0) /* it is found dead by its start time, too */
                log_debug("local", "%s: ignoring: record: %s", b->base.id, errno_name(r));
}

/* The time for a gentle end: the caller's, if that is shorter. */
static uint64_t grace_ns(const struct call *c)
{
        uint64_t now_ns = clock_mono_ns();
        uint64_t left_ns = c->deadline_ns == NEVER_NS ? NEVER_NS
                           : c->deadline_ns > now_ns  ? c->deadline_ns - now_ns
                                                      : 0;

        return left_ns < STOP_NS ? left_ns : STOP_NS;
}

int local_stop(struct box *box, struct call *c)
{
        struct local_box *b = local_box(box);
        int r;

        mutex_lock(&b->lock);
        r = life_begin_locked(b, c);
        if (r < 0) {
                mutex_unlock(&b->lock);
                return r;
        }
        if (b->process.fd < 0) {
                r = b->state == BOX_GONE ? call_fail(c, -ENODEV, "the sandbox is gone") : 0;
                life_end_locked(b, b->state);
                mutex_unlock(&b->lock);
                return r;
        }
        b->state = BOX_STOPPING;
        b->is_expected = true;
        mutex_unlock(&b->lock);
        thaw(b);
        ask_to_stop(b, GRACE_MS, grace_ns(c));
        r = life_kill(b, c);
        if (r == 0)
                forget_holder(b);
        mutex_lock(&b->lock);
        life_end_locked(b, BOX_STOPPING);
        mutex_unlock(&b->lock);
        return r;
}

/* ---- pause, resume ---- */

/* PAUSE or RESUME, and its reply. */
static int request(struct local_box *b, enum proto_type type, struct call *c)
{
        struct wait w = {0};
        struct proto_msg m = {.type = type};
        int r;

        list_init(&w.link);
        mutex_lock(&b->lock);
        wait_add_locked(b, &w);
        if (type == PROTO_PAUSE) {
                m.pause.seq = w.seq;
                m.pause.by_signal = !b->has_freezer;
        } else {
                m.resume.seq = w.seq;
                m.resume.by_signal = !b->has_freezer;
        }
        r = conn_send_locked(b, &m, -1);
        if (r == 0)
                r = wait_reply_locked(b, &w, c);
        list_remove(&w.link);
        mutex_unlock(&b->lock);
        if (r == 0 && w.code != 0)
                r = -EPROTO;
        return r < 0 ? call_fail_errno(c, r, "the sandbox's holder") : 0;
}

/* Only a hint for the next run of ours. */
static void save_paused(struct local_box *b, bool is_paused)
{
        _cleanup_(closep) int dir = box_open_dir(b->local, b->base.id);
        struct holder_id holder;
        int r;

        mutex_lock(&b->lock);
        b->holder.is_paused = is_paused;
        holder = b->holder;
        mutex_unlock(&b->lock);
        r = dir < 0 ? dir : plan_save(&b->plan, &holder, dir, RECORD_NO_SYNC);
        if (r < 0)
                log_debug("local", "%s: ignoring: record: %s", b->base.id, errno_name(r));
}

static int pause_box(struct local_box *b, struct call *c)
{
        int r = request(b, PROTO_PAUSE, c);

        if (r == 0 && has_freezer(b)) {
                r = cgroup_freeze(b->local->cgroups, b->base.id, true);
                if (r < 0) {
                        thaw(b);
                        /* the failure to tell is the first one */
                        (void)request(b, PROTO_RESUME, c);
                        return call_fail_errno(c, r, "freeze");
                }
        }
        if (r == 0)
                save_paused(b, true);
        return r;
}

static int resume_box(struct local_box *b, struct call *c)
{
        int r = has_freezer(b) ? cgroup_freeze(b->local->cgroups, b->base.id, false) : 0;

        if (r < 0)
                return call_fail_errno(c, r, "thaw");
        r = request(b, PROTO_RESUME, c);
        if (r == 0)
                save_paused(b, false);
        return r;
}

static int change(struct local_box *b, struct call *c, enum box_state from,
                  enum box_state meanwhile, enum box_state to,
                  int (*work)(struct local_box *b, struct call *c))
{
        enum box_state before;
        int r;

        mutex_lock(&b->lock);
        r = life_begin_locked(b, c);
        if (r < 0) {
                mutex_unlock(&b->lock);
                return r;
        }
        before = b->state;
        if (before != from) {
                if (before == BOX_GONE || before == BOX_DESTROYING)
                        r = call_fail(c, -ENODEV, "the sandbox is gone");
                else if (before != to)
                        r = call_fail(c, -EBUSY, "the sandbox is %s", box_state_name(before));
                life_end_locked(b, before);
                mutex_unlock(&b->lock);
                return r;
        }
        b->state = meanwhile;
        mutex_unlock(&b->lock);
        r = work(b, c);
        mutex_lock(&b->lock);
        life_end_locked(b, r == 0 ? to : before);
        mutex_unlock(&b->lock);
        return r;
}

int local_pause(struct box *box, struct call *c)
{
        return change(local_box(box), c, BOX_RUNNING, BOX_PAUSING, BOX_PAUSED, pause_box);
}

int local_resume(struct box *box, struct call *c)
{
        return change(local_box(box), c, BOX_PAUSED, BOX_RESUMING, BOX_RUNNING, resume_box);
}
