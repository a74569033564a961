/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks: a host's lock guards its dialer, too. sftp_error and ssh_error may be called under it;
 *        nothing that waits is.
 */

#include "providers/ssh/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "providers/ssh/dial.h"
#include "providers/ssh/host.h"
#include "providers/ssh/program.h"
#include "providers/ssh/ssh.h"
#include "transport/base/backoff.h"
#include "transport/base/cleanup.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define SPARE_LANES 4
#define LANES (HOST_LANES + SPARE_LANES)
#define DIALS_MAX 4 /* sshd's MaxStartups begins to refuse at 10 */
#define DIAL_NS (10 * NS_PER_S)
#define PROBE_NS (5 * NS_PER_S) /* callers wait for it */
#define SLICE_NS (50 * NS_PER_MS)
#define IDLE_NS (60 * NS_PER_S)
#define BACKOFF_MIN_NS (250 * NS_PER_MS)
#define BACKOFF_MAX_NS (30 * NS_PER_S)
#define BREAKER_TIMEOUTS 2
#define FURTHER_RETRY_NS (30 * NS_PER_S)

/* A link, and whose it is. */
struct pooled {
        struct ssh_link link;
        atomic_uint refs; /* one is the pool's */
        struct dialled conn; /* fixed */
        uint64_t used_ns; /* guarded by the host's lock */
};

struct lane {
        struct pooled *pooled; /* NULL: none */
        bool is_dialing;
        uint64_t retry_ns; /* a further connection was refused: not before */
};

struct ssh_dialer {
        struct ssh_host *host; /* not counted: it owns us */
        /* guarded by the host's lock */
        struct lane lanes[LANES];
        struct attempt *attempts; /* dials that are on */
        unsigned dials, threads;
        bool is_closing;
        bool has_died; /* the control lane was there: that it is back is news */
        /* what the last dial of the control lane, or the end of its connection, said */
        unsigned failures, timeouts; /* in a row */
        int error;
        char sentence[CALL_SENTENCE_MAX];
        uint64_t retry_ns;
        bool is_open; /* the breaker */
        bool is_probing;
};

/* One dial, on its thread. */
struct attempt {
        struct ssh_dialer *dialer;
        struct attempt *next; /* guarded by the host's lock */
        unsigned lane;
        struct call call;
};

/* ---- links ---- */

static struct pooled *pooled_of(struct ssh_link *l)
{
        return container_of(l, struct pooled, link);
}

struct ssh_link *link_ref(struct ssh_link *l)
{
        (void)atomic_fetch_add(&pooled_of(l)->refs, 1);
        return l;
}

void link_unref(struct ssh_link *l)
{
        struct pooled *p = NULL;

        if (!l || atomic_fetch_sub(&pooled_of(l)->refs, 1) != 1)
                return;
        p = pooled_of(l);
        dialled_done(&p->conn);
        free(p);
}

static struct pooled *pooled_new(struct ssh_host *h, unsigned lane, struct dialled *conn)
{
        struct pooled *p = calloc(1, sizeof(*p));

        if (!p)
                return NULL;
        atomic_init(&p->refs, 1);
        p->conn = *conn;
        *conn = (struct dialled){0};
        p->link = (struct ssh_link){.host = h,
                                    .lane = (enum host_lane)lane,
                                    .sftp = p->conn.sftp,
                                    .is_ordered = p->conn.is_ordered};
        p->used_ns = clock_mono_ns();
        return p;
}

/* ---- what went wrong ---- */

static void failed_locked(struct ssh_dialer *d, int error, const char *sentence)
        REQUIRES(d->host->lock)
{
        d->failures++;
        d->timeouts = error == -ETIMEDOUT ? d->timeouts + 1 : 0;
        d->error = error;
        (void)snprintf(d->sentence, sizeof(d->sentence), "%s", sentence);
        d->retry_ns = clock_after(backoff_ns(d->failures, BACKOFF_MIN_NS, BACKOFF_MAX_NS));
        d->is_open = d->timeouts >= BREAKER_TIMEOUTS;
}

static void worked_locked(struct ssh_dialer *d) REQUIRES(d->host->lock)
{
        d->failures = d->timeouts = 0;
        d->error = 0;
        d->is_open = false;
}

/*
 * A connection that was there. What was asked and the probe behind it were not answered, two
 * time-outs: nobody waits for a third. A new connection is tried at once, for this one may have been
 * lost on the way alone.
 */
static void silent_locked(struct ssh_dialer *d, const char *sentence) REQUIRES(d->host->lock)
{
        d->timeouts = BREAKER_TIMEOUTS - 1;
        failed_locked(d, -ETIMEDOUT, sentence);
        d->retry_ns = 0;
}

/* The sentence of the last failure; behind an open breaker the code is another. */
static int say_failure_locked(struct ssh_dialer *d, struct call *c) REQUIRES(d->host->lock)
{
        return call_fail(c, d->is_open ? -EHOSTUNREACH : d->error, "%s", d->sentence);
}

/*
 * Take the pool's reference of what has died. The caller gives it up, outside of the lock. A
 * connection that was cut is no failure of dialling: it's dialled again at once, unless it fell
 * silent.
 */
static struct pooled *take_dead_locked(struct ssh_dialer *d, unsigned lane) REQUIRES(d->host->lock)
{
        struct pooled *p = d->lanes[lane].pooled;
        char sentence[256] = "";
        int error = p ? dialled_error(&p->conn, sentence, sizeof(sentence)) : 0;

        if (error == 0)
                return NULL;
        log_debug("ssh", "%s lane %u: %s: %s", d->host->id, lane, errno_name(error), sentence);
        d->lanes[lane].pooled = NULL;
        if (lane == HOST_CONTROL) {
                d->has_died = true;
                if (error == -ETIMEDOUT)
                        silent_locked(d, sentence[0] ? sentence : "the host is silent");
        }
        return p;
}

/* ---- dials ---- */

struct conn_opener {
        struct program_opener opener;
        struct ssh_dialer *dialer;
        struct dialled *conn;
        struct dialled spare; /* a connection that was made because the first takes no program */
};

static int open_on_conn(struct program_opener *o, struct call *c, const char *command,
                        const struct stream_events *events, struct stream **ret)
{
        struct conn_opener *on = container_of(o, struct conn_opener, opener);
        int r = dialled_open(on->conn, c, command, events, ret);

        if (r == -EMFILE) {
                r = dial(on->dialer->host, DIAL_PROGRAMS, c, &on->spare);
                if (r == 0)
                        r = dialled_open(&on->spare, c, command, events, ret);
        }
        return r;
}

static void keep_spare(struct ssh_dialer *d, struct dialled *conn)
{
        struct pooled *p = conn->ssh ? pooled_new(d->host, HOST_LANES, conn) : NULL;

        if (p) {
                mutex_lock(&d->host->lock);
                if (!d->lanes[HOST_LANES].pooled && !d->is_closing) {
                        d->lanes[HOST_LANES].pooled = p;
                        p = NULL;
                }
                mutex_unlock(&d->host->lock);
        }
        if (p)
                link_unref(&p->link);
        dialled_done(conn);
}

/* What the host can and where its account's home is: before anybody gets the first connection. */
static int look_around(struct ssh_dialer *d, struct dialled *conn, struct call *c)
{
        struct conn_opener on = {.opener.open = open_on_conn, .dialer = d, .conn = conn};
        int can = program_probe(&on.opener, c, PROBE_NS);
        /* No answer: files can be had, and whoever needs a shell asks again. */
        int r = can < 0 && can != -EAGAIN ? can : host_learn(d->host, conn->sftp, can, c);

        keep_spare(d, &on.spare);
        return r;
}

static int dial_lane(struct attempt *a, struct pooled **ret)
{
        struct ssh_dialer *d = a->dialer;
        struct dialled conn = {0};
        struct pooled *p = NULL;
        int r = dial(d->host,
                     a->lane == HOST_CONTROL ? DIAL_CONTROL
                     : a->lane < HOST_LANES  ? DIAL_FILES
                                             : DIAL_PROGRAMS,
                     &a->call, &conn);

        if (r == 0 && a->lane == HOST_CONTROL)
                r = look_around(d, &conn, &a->call);
        if (r < 0) {
                dialled_done(&conn);
                return r;
        }
        p = pooled_new(d->host, a->lane, &conn);
        if (!p) {
                dialled_done(&conn);
                return call_fail(&a->call, -ENOMEM, "out of memory");
        }
        *ret = p;
        return 0;
}

static void forget_attempt_locked(struct ssh_dialer *d, struct attempt *a) REQUIRES(d->host->lock)
{
        for (struct attempt **at = &d->attempts; *at; at = &(*at)->next) {
                if (*at == a) {
                        *at = a->next;
                        break;
                }
        }
}

/* Settles one dial; whether the control lane came back after it had been away. */
static bool settle_locked(struct ssh_dialer *d, struct attempt *a, int r, struct pooled **p)
        REQUIRES(d->host->lock)
{
        bool is_back = false;

        d->lanes[a->lane].is_dialing = false;
        d->dials--;
        if (r == 0 && !d->is_closing) {
                d->lanes[a->lane].pooled = *p;
                *p = NULL;
        }
        if (a->lane == HOST_CONTROL && r == 0) {
                is_back = d->has_died || d->failures > 0;
                d->has_died = false;
                worked_locked(d);
        } else if (r < 0 && !d->is_closing) {
                if (a->lane == HOST_CONTROL)
                        failed_locked(d, r, a->call.sentence);
                else
                        d->lanes[a->lane].retry_ns = clock_after(FURTHER_RETRY_NS);
                log_debug("ssh", "%s lane %u: dial: %s: %s", d->host->id, a->lane, errno_name(r),
                          a->call.sentence);
        }
        cond_broadcast(&d->host->changed);
        return is_back;
}

static void keep_probing_locked(struct ssh_dialer *d) REQUIRES(d->host->lock);

/* A helper shell takes two round trips to start: the first listing is to find one. */
static void start_helper(struct ssh_host *h, struct call *c)
{
        int code;

        if (host_known(h) & HOST_SHELL)
                (void)shell_run_buf(h->shell, c, ":\n", NULL,
                                    &code); /* else whoever needs it tries */
}

static void *dial_thread(void *arg)
{
        struct attempt *a = arg;
        struct ssh_dialer *d = a->dialer;
        struct ssh_host *h = d->host;
        struct pooled *p = NULL;
        bool is_back;
        int r = dial_lane(a, &p);

        mutex_lock(&d->host->lock);
        is_back = settle_locked(d, a, r, &p);
        keep_probing_locked(d);
        mutex_unlock(&d->host->lock);
        if (p)
                link_unref(&p->link);
        if (is_back)
                host_is_back(h);
        if (r == 0 && a->lane == HOST_CONTROL)
                start_helper(h, &a->call);
        mutex_lock(&d->host->lock);
        forget_attempt_locked(d, a);
        free(a);
        d->threads--;
        cond_broadcast(&h->changed);
        mutex_unlock(&d->host->lock);
        return NULL;
}

/* 0 or -errno when no thread could be had. */
static int start_thread_locked(struct ssh_dialer *d, void *(*work)(void *), void *arg)
        REQUIRES(d->host->lock)
{
        pthread_t thread;
        int r = pthread_create(&thread, NULL, work, arg);

        if (r != 0)
                return -r;
        (void)pthread_detach(thread); /* counted instead */
        d->threads++;
        return 0;
}

static int start_dial_locked(struct ssh_dialer *d, unsigned lane) REQUIRES(d->host->lock)
{
        struct attempt *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return -ENOMEM;
        call_init(&a->call, clock_after(DIAL_NS));
        a->dialer = d;
        a->lane = lane;
        r = start_thread_locked(d, dial_thread, a);
        if (r < 0) {
                free(a);
                return r;
        }
        a->next = d->attempts;
        d->attempts = a;
        d->lanes[lane].is_dialing = true;
        d->dials++;
        return 0;
}

/* ---- the breaker ---- */

/* Tries until the host is back. */
static void *probe_thread(void *arg)
{
        struct ssh_dialer *d = arg;
        struct ssh_host *h = d->host;

        mutex_lock(&d->host->lock);
        while (d->is_open && !d->is_closing) {
                if (clock_mono_ns() < d->retry_ns || d->lanes[HOST_CONTROL].is_dialing)
                        (void)cond_wait_until(&h->changed, &d->host->lock,
                                              clock_after(100 * NS_PER_MS));
                else if (start_dial_locked(d, HOST_CONTROL) < 0)
                        d->retry_ns = clock_after(NS_PER_S);
        }
        d->is_probing = false;
        d->threads--;
        cond_broadcast(&h->changed);
        mutex_unlock(&d->host->lock);
        return NULL;
}

static void keep_probing_locked(struct ssh_dialer *d)
{
        if (!d->is_open || d->is_probing || d->is_closing)
                return;
        d->is_probing = start_thread_locked(d, probe_thread, d) == 0;
        if (!d->is_probing)
                d->is_open = false; /* the next caller tries */
}

/* ---- who wants one ---- */

/*
 * One look at a lane. 0 *ret is there; -EINPROGRESS wait; else the failure. `had_failed`: how many
 * dials had failed when the caller came; one more means that its own did.
 */
static int look_locked(struct ssh_dialer *d, unsigned lane, unsigned had_failed, struct call *c,
                       struct pooled **ret) REQUIRES(d->host->lock)
{
        struct lane *l = &d->lanes[lane];
        int r;

        if (d->is_closing)
                return call_fail(c, -EHOSTUNREACH, "the connection to the host is being closed");
        if (l->pooled) {
                l->pooled->used_ns = clock_mono_ns();
                *ret = l->pooled;
                (void)link_ref(&l->pooled->link);
                return 0;
        }
        if (d->is_open)
                return say_failure_locked(d, c);
        if (l->is_dialing)
                return -EINPROGRESS;
        if (lane != HOST_CONTROL && clock_mono_ns() < l->retry_ns)
                return call_fail(c, -EMFILE, "%s takes no further connection", host_name(d->host));
        if (d->failures > had_failed || (d->failures > 0 && clock_mono_ns() < d->retry_ns))
                return say_failure_locked(d, c);
        if (d->dials >= DIALS_MAX)
                return -EINPROGRESS;
        r = start_dial_locked(d, lane);
        return r < 0 ? call_fail_errno(c, r, "connect to %s", host_name(d->host)) : -EINPROGRESS;
}

/* A lane's connection, which is dialled where need be. */
static int want(struct ssh_dialer *d, unsigned lane, struct call *c, struct pooled **ret)
{
        struct ssh_host *h = d->host;
        struct pooled *dead;
        unsigned had_failed;
        int r;

        mutex_lock(&d->host->lock);
        dead = take_dead_locked(d, lane);
        keep_probing_locked(d);
        had_failed = d->failures;
        while ((r = look_locked(d, lane, had_failed, c, ret)) == -EINPROGRESS) {
                uint64_t until_ns = clock_after(SLICE_NS);

                if (until_ns > c->deadline_ns)
                        until_ns = c->deadline_ns;
                (void)cond_wait_until(&h->changed, &d->host->lock, until_ns);
                r = call_check(c);
                if (r < 0) {
                        r = call_fail_errno(c, r, "connect to %s", host_name(h));
                        break;
                }
        }
        mutex_unlock(&d->host->lock);
        if (dead)
                link_unref(&dead->link);
        return r;
}

int host_link(struct ssh_host *h, struct call *c, enum host_lane lane, struct ssh_link **ret)
{
        struct pooled *control = NULL, *p = NULL;
        int r;

        assert((unsigned)lane < HOST_LANES);
        /* Its state is the host's: a bulk lane is only dialled where that one is. */
        r = want(h->dialer, HOST_CONTROL, c, &control);
        if (r < 0)
                return r;
        if (lane == HOST_CONTROL || (unsigned)lane > host_bulk_lanes(h)) {
                *ret = &control->link;
                return 0;
        }
        r = want(h->dialer, (unsigned)lane, c, &p);
        if (r == 0) {
                link_unref(&control->link);
                *ret = &p->link;
                return 0;
        }
        if (r == -ETIMEDOUT || r == -EINTR) {
                link_unref(&control->link);
                return r;
        }
        c->sentence[0] = '\0';
        *ret = &control->link;
        return 0;
}

/* ---- programs ---- */

static int open_on_lane(struct ssh_dialer *d, unsigned lane, struct call *c, const char *command,
                        const struct stream_events *events, struct stream **ret)
{
        struct pooled *p = NULL;
        int r = want(d, lane, c, &p);

        if (r < 0)
                return r;
        r = dialled_open(&p->conn, c, command, events, ret);
        link_unref(&p->link);
        return r;
}

int pool_open_program(struct ssh_dialer *d, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        int r = open_on_lane(d, HOST_CONTROL, c, command, events, ret);

        for (unsigned lane = HOST_LANES; r == -EMFILE && lane < LANES; lane++)
                r = open_on_lane(d, lane, c, command, events, ret);
        if (r == -EMFILE)
                return call_fail(c, -EAGAIN, "%s runs no more commands at once",
                                 host_name(d->host));
        return r;
}

int host_open_program(struct ssh_host *h, struct call *c, const char *command,
                      const struct stream_events *events, struct stream **ret)
{
        int r = host_shell(h, c);

        return r < 0 ? r : pool_open_program(h->dialer, c, command, events, ret);
}

/* ---- birth, care and end ---- */

int pool_new(struct ssh_host *h, struct ssh_dialer **ret)
{
        struct ssh_dialer *d = calloc(1, sizeof(*d));

        if (!d)
                return -ENOMEM;
        d->host = h;
        *ret = d;
        return 0;
}

void pool_tend(struct ssh_dialer *d)
{
        struct pooled *gone[LANES] = {NULL};
        uint64_t now_ns = clock_mono_ns();

        mutex_lock(&d->host->lock);
        for (unsigned i = 0; i < LANES; i++) {
                struct pooled *p = d->lanes[i].pooled;

                gone[i] = take_dead_locked(d, i);
                if (gone[i] || !p || i == HOST_CONTROL)
                        continue;
                if (atomic_load(&p->refs) > 1)
                        p->used_ns = now_ns;
                else if (now_ns - p->used_ns > IDLE_NS)
                        gone[i] = STEAL(d->lanes[i].pooled);
        }
        keep_probing_locked(d);
        mutex_unlock(&d->host->lock);
        for (unsigned i = 0; i < LANES; i++)
                if (gone[i])
                        link_unref(&gone[i]->link);
}

void pool_stop(struct ssh_dialer *d)
{
        struct ssh_host *h;

        if (!d)
                return;
        h = d->host;
        mutex_lock(&d->host->lock);
        d->is_closing = true;
        for (struct attempt *a = d->attempts; a; a = a->next)
                call_cancel(&a->call);
        cond_broadcast(&h->changed);
        while (d->threads > 0)
                cond_wait(&h->changed, &d->host->lock);
        mutex_unlock(&d->host->lock);
}

void pool_free(struct ssh_dialer *d)
{
        if (!d)
                return;
        pool_stop(d);
        for (unsigned i = 0; i < LANES; i++)
                if (d->lanes[i].pooled)
                        link_unref(&d->lanes[i].pooled->link);
        free(d);
}
