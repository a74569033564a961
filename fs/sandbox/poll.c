/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens without being asked for: states are polled, and what is due is done. One timer for
 * the whole fleet stands at the earliest due time; with nothing due there is none, and a provider
 * that tells its news by itself is never polled.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "transport/base/log.h"

/* ---- one sandbox ---- */

void sandbox_apply_locked(struct sandbox *sb, const struct box_status *status)
{
        bool has_changed = memcmp(&sb->status, status, sizeof(*status)) != 0;
        bool is_new = strcmp(sb->status.sentence, status->sentence) != 0;

        sb->failed_polls = 0;
        if (sb->reachable != 1) {
                sb->reachable = 1;
                has_changed = true;
        }
        sb->status = *status;
        if (!sb->is_destroying) {
                if (status->sentence[0] && (status->state != sb->state || is_new))
                        sandbox_say_error_locked(sb, -EIO, status->sentence);
                sandbox_set_state_locked(sb, status->state);
        }
        if (has_changed)
                sandbox_change_locked(sb);
        if ((sb->state == BOX_STOPPED || sb->state == BOX_GONE || sb->state == BOX_ERROR) &&
            sb->running > 0) {
                sb->lost_due_ns = clock_after(sb->fleet->seams.lost_grace_ns);
                fleet_due(sb->fleet, sb->lost_due_ns);
        }
}

void sandbox_apply_poll(struct sandbox *sb, uint64_t job_generation, int code,
                        const struct box_status *status)
{
        bool has_moved;

        mutex_lock(&sb->lock);
        if (sb->job_generation != job_generation || sandbox_job_tells_state(sb->current) ||
            sb->is_destroying) {
                mutex_unlock(&sb->lock);
                return; /* a job knows better, or will */
        }
        has_moved = sb->state != status->state && code == 0;
        if (code == 0) {
                sandbox_apply_locked(sb, status);
        } else if (sb->state == BOX_ERROR && !sb->box) {
                /* never created: it stays so */
        } else if (++sb->failed_polls >= 3 && (sb->state != BOX_UNKNOWN || sb->reachable != 0)) {
                sb->reachable = 0;
                sandbox_set_state_locked(sb, BOX_UNKNOWN);
                sandbox_change_locked(sb);
                has_moved = true;
        }
        mutex_unlock(&sb->lock);
        if (has_moved)
                (void)sandbox_save(sb, false); /* the next mount asks again anyway */
        sandbox_tell_gone(sb);
}

struct poll {
        struct sandbox *sandbox; /* a reference */
        uint64_t seq;
};

static int poll_once(struct sandbox *sb, struct call *c)
{
        struct box_status status = {0};
        struct box *box;
        uint64_t generation;
        int r;

        mutex_lock(&sb->lock);
        box = sb->box;
        generation = sb->job_generation;
        mutex_unlock(&sb->lock);
        if (!box)
                return 0; /* never created, or not yet: nothing to ask */
        r = box_get_state(box, c, &status);
        section_report(sb->section, r, c->sentence);
        sandbox_apply_poll(sb, generation, r, &status);
        return r;
}

static void poll_job(void *arg)
{
        struct poll *p = arg;
        struct fleet *f = p->sandbox->fleet;
        struct call c;
        int r;

        call_init(&c, clock_after(CALL_NS));
        r = poll_once(p->sandbox, &c);
        results_end(p->sandbox->results, p->seq, r, c.sentence);
        sandbox_unref(p->sandbox);
        free(p);
        news_deliver(f);
}

void sandbox_poll(struct sandbox *sb, uint64_t seq)
{
        struct poll *p = malloc(sizeof(*p));
        int r = -ENOMEM;

        if (p) {
                *p = (struct poll){.sandbox = sandbox_ref(sb), .seq = seq};
                r = workers_submit(sb->fleet->workers, WORKER_FAST, poll_job, p);
        }
        if (r == 0)
                return;
        results_end(sb->results, seq, r, NULL);
        if (p)
                sandbox_unref(sb);
        free(p);
}

/* News: several before the poll runs become one poll. */
static void news_poll_job(void *arg)
{
        struct sandbox *sb = arg;
        struct fleet *f = sb->fleet;
        struct call c;

        for (bool again = true; again;) {
                call_init(&c, clock_after(CALL_NS));
                (void)poll_once(sb, &c); /* counted in failed_polls */
                mutex_lock(&sb->lock);
                again = sb->poll_again;
                sb->poll_again = false;
                sb->is_polling = again;
                mutex_unlock(&sb->lock);
        }
        sandbox_unref(sb);
        news_deliver(f);
}

static void poll_for_news(struct sandbox *sb)
{
        bool begin;

        mutex_lock(&sb->lock);
        begin = !sb->is_polling;
        sb->poll_again = !begin;
        sb->is_polling = true;
        mutex_unlock(&sb->lock);
        if (!begin ||
            workers_submit(sb->fleet->workers, WORKER_FAST, news_poll_job, sandbox_ref(sb)) == 0)
                return;
        sandbox_unref(sb);
        mutex_lock(&sb->lock);
        sb->is_polling = false;
        mutex_unlock(&sb->lock);
}

/* ---- what a provider's thread tells ---- */

/* False: nobody listens any more. */
static bool begin_telling(struct fleet *f)
{
        bool begins;

        mutex_lock(&f->lock);
        begins = !atomic_load(&f->is_closing);
        f->tellers += begins;
        mutex_unlock(&f->lock);
        return begins;
}

static void end_telling(struct fleet *f)
{
        mutex_lock(&f->lock);
        f->tellers--;
        cond_broadcast(&f->idle);
        mutex_unlock(&f->lock);
}

void fleet_box_changed(void *ctx, const char *id)
{
        struct section *s = ctx;
        size_t count;
        struct sandbox **all;

        if (!begin_telling(s->fleet))
                return;
        all = fleet_all(s->fleet, &count);
        for (size_t i = 0; i < count; i++) {
                bool is_it;

                mutex_lock(&all[i]->lock);
                is_it = all[i]->section == s && strcmp(all[i]->box_id, id) == 0;
                mutex_unlock(&all[i]->lock);
                if (is_it)
                        poll_for_news(all[i]);
                sandbox_unref(all[i]);
        }
        free(all);
        end_telling(s->fleet);
}

void fleet_box_phase(void *ctx, const char *key, const char *text)
{
        struct section *s = ctx;
        size_t count;
        struct sandbox **all;

        if (!begin_telling(s->fleet))
                return;
        all = fleet_all(s->fleet, &count);
        for (size_t i = 0; i < count; i++) {
                if (all[i]->section == s && strcmp(all[i]->key, key) == 0)
                        sandbox_say_phase(all[i], text);
                sandbox_unref(all[i]);
        }
        free(all);
        news_deliver(s->fleet);
        end_telling(s->fleet);
}

/* ---- all of a provider, in one list call ---- */

struct listed {
        struct box_sink sink;
        struct section *section;
        struct sandbox **all;
        uint64_t *generations; /* before the call */
        bool *seen;
        size_t count;
};

static int on_found(struct box_sink *to, const struct box_found *found)
{
        struct listed *l = container_of(to, struct listed, sink);

        for (size_t i = 0; i < l->count; i++) {
                bool is_it;

                mutex_lock(&l->all[i]->lock);
                is_it = l->all[i]->section == l->section &&
                        strcmp(l->all[i]->box_id, found->id) == 0;
                mutex_unlock(&l->all[i]->lock);
                if (is_it && !l->seen[i]) {
                        l->seen[i] = true;
                        sandbox_apply_poll(l->all[i], l->generations[i], 0, &found->status);
                }
        }
        return 0;
}

/*
 * Those that the list left out are asked one by one: only that proves that they are gone. *ret says
 * what failed first.
 */
static int poll_section(struct section *s, struct listed *l, struct call *ret)
{
        struct call c;
        int r, first = 0;

        r = provider_list(s->provider, ret, &l->sink);
        section_report(s, r, ret->sentence);
        for (size_t i = 0; i < l->count; i++) {
                struct sandbox *sb = l->all[i];

                if (sb->section != s || l->seen[i])
                        continue;
                if (r < 0) {
                        sandbox_apply_poll(sb, l->generations[i], r, &(struct box_status){0});
                        continue;
                }
                call_init(&c, clock_after(CALL_NS));
                if (poll_once(sb, &c) < 0 && first == 0)
                        first = call_fail(ret, -EIO, "%s", c.sentence);
        }
        return r < 0 ? r : first;
}

static int poll_all_of(struct section *s, struct call *ret)
{
        struct listed l = {.sink.found = on_found, .section = s};
        int r = -ENOMEM;

        call_init(ret, clock_after(CALL_NS));
        l.all = fleet_all(s->fleet, &l.count);
        l.generations = calloc(l.count + 1, sizeof(*l.generations));
        l.seen = calloc(l.count + 1, sizeof(*l.seen));
        for (size_t i = 0; i < l.count && l.generations; i++) {
                mutex_lock(&l.all[i]->lock);
                l.generations[i] = l.all[i]->job_generation;
                mutex_unlock(&l.all[i]->lock);
        }
        if (l.generations && l.seen)
                r = poll_section(s, &l, ret);
        for (size_t i = 0; i < l.count; i++)
                sandbox_unref(l.all[i]);
        free(l.all);
        free(l.generations);
        free(l.seen);
        return r;
}

struct refresh {
        struct fleet *fleet;
        uint64_t seq;
};

static void refresh_job(void *arg)
{
        struct refresh *p = arg;
        struct call c, last = {0};
        int r = 0;

        for (size_t i = 0; i < p->fleet->section_count; i++) {
                struct section *s = &p->fleet->sections[i];
                int x = s->provider ? poll_all_of(s, &c)
                                    : call_fail(&c, -EHOSTUNREACH, "provider %s is not there",
                                                s->instance);

                if (x < 0)
                        r = call_fail(&last, x, "%s", c.sentence);
        }
        results_end(p->fleet->results, p->seq, r, last.sentence);
        news_fleet(p->fleet);
        news_deliver(p->fleet);
        free(p);
}

void fleet_refresh(struct fleet *f, uint64_t seq)
{
        struct refresh *p = malloc(sizeof(*p));
        int r = -ENOMEM;

        if (p) {
                *p = (struct refresh){.fleet = f, .seq = seq};
                r = workers_submit(f->workers, WORKER_SLOW, refresh_job, p);
        }
        if (r == 0)
                return;
        free(p);
        results_end(f->results, seq, r, NULL);
}

static void section_poll_job(void *arg)
{
        struct section *s = arg;
        struct call c;

        (void)poll_all_of(s, &c); /* counted in failed_polls */
        mutex_lock(&s->fleet->lock);
        s->is_polling = false;
        mutex_unlock(&s->fleet->lock);
        news_deliver(s->fleet);
}

/* How soon this sandbox wants its provider polled; NOTHING_DUE: never. */
static uint64_t wanted_span(struct sandbox *sb)
{
        const struct fleet_seams *seams = &sb->fleet->seams;
        uint64_t watched_ns = atomic_load_explicit(&sb->watched_ns, memory_order_relaxed);
        bool is_hot;

        if (!sb->section || !sb->section->provider ||
            (sb->section->provider->ops->traits & (PROVIDER_DIRECT | PROVIDER_TELLS)))
                return NOTHING_DUE;
        mutex_lock(&sb->lock);
        is_hot =
                sb->running > 0 || (watched_ns > 0 && clock_mono_ns() - watched_ns < 60 * NS_PER_S);
        mutex_unlock(&sb->lock);
        return is_hot ? seams->poll_fast_ns : seams->poll_slow_ns;
}

void sandbox_plan_poll(struct sandbox *sb)
{
        uint64_t span = wanted_span(sb);

        if (span != NOTHING_DUE)
                fleet_due(sb->fleet, clock_after(span));
}

/* Polls what is due of one provider; returns when it is due next. */
static uint64_t tick_section(struct section *s, struct sandbox **all, size_t count,
                             uint64_t mono_ns)
{
        uint64_t span = NOTHING_DUE, due;
        bool begin;

        for (size_t i = 0; i < count; i++)
                if (all[i]->section == s) {
                        uint64_t wanted = wanted_span(all[i]);

                        span = wanted < span ? wanted : span;
                }
        if (span == NOTHING_DUE)
                return NOTHING_DUE;
        mutex_lock(&s->fleet->lock);
        if (s->polled_ns == 0)
                s->polled_ns = mono_ns; /* it was attached just now */
        due = s->polled_ns + span;
        begin = due <= mono_ns && !s->is_polling;
        if (due <= mono_ns) {
                s->polled_ns = mono_ns;
                due = mono_ns + span;
        }
        s->is_polling |= begin;
        mutex_unlock(&s->fleet->lock);
        if (begin && workers_submit(s->fleet->workers, WORKER_SLOW, section_poll_job, s) < 0) {
                mutex_lock(&s->fleet->lock);
                s->is_polling = false;
                mutex_unlock(&s->fleet->lock);
        }
        return due;
}

/* ---- the timer ---- */

static bool take_due(uint64_t *due_ns, uint64_t mono_ns)
{
        if (*due_ns > mono_ns)
                return false;
        *due_ns = NOTHING_DUE;
        return true;
}

static uint64_t min_ns(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

/* Tasks whose TERM was not enough. */
static uint64_t tick_kills(struct sandbox *sb, uint64_t mono_ns)
{
        uint64_t next = NOTHING_DUE;

        for (;;) {
                struct task *t = NULL;

                mutex_lock(&sb->lock);
                next = NOTHING_DUE;
                for (size_t i = 0; i < sb->task_count && !t; i++) {
                        if (take_due(&sb->tasks[i]->kill_due_ns, mono_ns))
                                t = task_ref(sb->tasks[i]);
                        else
                                next = min_ns(next, sb->tasks[i]->kill_due_ns);
                }
                mutex_unlock(&sb->lock);
                if (!t)
                        return next;
                if (task_kill(t, SIGKILL, 0) < 0)
                        log_debug("sandbox", "%s: ended before its KILL", t->path);
                task_unref(t);
        }
}

static void lost_job(void *arg)
{
        struct sandbox *sb = arg;
        struct fleet *f = sb->fleet;
        enum box_state state = sandbox_state(sb);

        if (state == BOX_STOPPED || state == BOX_GONE || state == BOX_ERROR)
                sandbox_lose_tasks(sb);
        sandbox_unref(sb);
        news_deliver(f);
}

static void sync_job(void *arg)
{
        struct sandbox *sb = arg;

        sandbox_sync_tasks(sb);
        sandbox_unref(sb);
}

static void submit(struct sandbox *sb, worker_fn fn)
{
        if (workers_submit(sb->fleet->workers, WORKER_SLOW, fn, sandbox_ref(sb)) < 0)
                sandbox_unref(sb);
}

static void begin_attach(struct sandbox *sb)
{
        struct job *j = job_new(JOB_ATTACH, NULL, 0);

        if (!j)
                return;
        mutex_lock(&sb->lock);
        sandbox_enqueue_locked(sb, j, true);
        mutex_unlock(&sb->lock);
}

static void retry_destroy(struct sandbox *sb)
{
        mutex_lock(&sb->lock);
        if (sb->retry_job)
                sandbox_enqueue_locked(sb, sb->retry_job, true);
        sb->retry_job = NULL;
        mutex_unlock(&sb->lock);
}

/* Does what is due; returns when something is due next. */
static uint64_t tick_sandbox(struct sandbox *sb, uint64_t mono_ns)
{
        bool idle, retry, attach, sync, lost;
        uint64_t next;

        mutex_lock(&sb->lock);
        if (sb->idle_due_ns <= mono_ns)
                sandbox_plan_idle_locked(sb); /* it may have been used meanwhile */
        idle = take_due(&sb->idle_due_ns, mono_ns);
        retry = take_due(&sb->retry_due_ns, mono_ns);
        attach = take_due(&sb->attach_due_ns, mono_ns);
        sync = take_due(&sb->sync_due_ns, mono_ns);
        lost = take_due(&sb->lost_due_ns, mono_ns);
        next = min_ns(min_ns(sb->idle_due_ns, sb->retry_due_ns),
                      min_ns(sb->attach_due_ns, sb->sync_due_ns));
        next = min_ns(next, sb->lost_due_ns);
        mutex_unlock(&sb->lock);

        if (idle)
                sandbox_idle_over(sb);
        if (retry)
                retry_destroy(sb);
        if (attach)
                begin_attach(sb);
        if (sync)
                submit(sb, sync_job);
        if (lost)
                submit(sb, lost_job);
        sandbox_kick(sb); /* also what found no memory before */
        return min_ns(next, tick_kills(sb, mono_ns));
}

static void tick_job(void *arg)
{
        struct fleet *f = arg;
        uint64_t mono_ns = clock_mono_ns(), next = NOTHING_DUE;
        struct sandbox **all;
        size_t count;

        mutex_lock(&f->tick_lock);
        f->tick_ns = NOTHING_DUE;
        mutex_unlock(&f->tick_lock);
        if (atomic_load(&f->is_closing))
                return;
        all = fleet_all(f, &count);
        for (size_t i = 0; i < count; i++)
                next = min_ns(next, tick_sandbox(all[i], mono_ns));
        for (size_t i = 0; i < f->section_count; i++)
                next = min_ns(next, tick_section(&f->sections[i], all, count, mono_ns));
        for (size_t i = 0; i < count; i++)
                sandbox_unref(all[i]);
        free(all);
        if (next != NOTHING_DUE)
                fleet_due(f, next);
        news_deliver(f);
}

void fleet_due(struct fleet *f, uint64_t due_ns)
{
        mutex_lock(&f->tick_lock);
        if (due_ns < f->tick_ns && !atomic_load(&f->is_closing)) {
                bool was_set = f->tick_ns != NOTHING_DUE;
                uint64_t old_id = f->tick_id;

                if (workers_submit_at(f->workers, WORKER_FAST, due_ns, tick_job, f, &f->tick_id) ==
                    0) {
                        f->tick_ns = due_ns;
                        if (was_set)
                                (void)workers_cancel(f->workers, old_id); /* else it runs idly */
                }
        }
        mutex_unlock(&f->tick_lock);
}
