/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of a sandbox but for exec and destroy: each is one call of the provider, with the state
 * that people see meanwhile, and then the provider's own word of how it is.
 *
 * Threads: one job of a sandbox at a time, on a worker. A destruction that was accepted meanwhile
 *          owns the state: jobs leave it alone then.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/settings.h"
#include "transport/base/cleanup.h"
#include "transport/base/log.h"

#define DELIVER_AGAIN_NS (200 * NS_PER_MS)

/* A state of ours while a call is under way. */
static void enter(struct sandbox *sb, enum box_state state, const char *phase)
{
        mutex_lock(&sb->lock);
        if (!sb->is_destroying) {
                sandbox_set_state_locked(sb, state);
                (void)snprintf(sb->phase, sizeof(sb->phase), "%.*s", (int)sizeof(sb->phase) - 1,
                               phase);
                sandbox_change_locked(sb);
        }
        mutex_unlock(&sb->lock);
        news_deliver(sb->fleet);
}

void sandbox_say_phase(struct sandbox *sb, const char *phase)
{
        mutex_lock(&sb->lock);
        if (sb->state == BOX_CREATING && !sb->is_destroying) {
                (void)snprintf(sb->phase, sizeof(sb->phase), "%.*s", (int)sizeof(sb->phase) - 1,
                               phase);
                sandbox_change_locked(sb);
        }
        mutex_unlock(&sb->lock);
}

static void leave(struct sandbox *sb, enum box_state state)
{
        mutex_lock(&sb->lock);
        if (!sb->is_destroying)
                sandbox_set_state_locked(sb, state);
        sb->phase[0] = '\0';
        mutex_unlock(&sb->lock);
}

/* In state error, whose reason can be read from the moment on that the state is seen. */
static void leave_failed(struct sandbox *sb, int code, const struct call *c)
{
        bool is_cancelled = code == -EINTR && atomic_load(&c->is_cancelled);

        mutex_lock(&sb->lock);
        if (!is_cancelled)
                sandbox_say_error_locked(sb, code, c->sentence);
        if (!sb->is_destroying)
                sandbox_set_state_locked(sb, BOX_ERROR);
        sb->phase[0] = '\0';
        mutex_unlock(&sb->lock);
}

/* What the provider says; `otherwise` when it can't be asked. */
static void ask_state(struct sandbox *sb, struct box *box, enum box_state otherwise)
{
        struct box_status status = {0};
        struct call c;
        int r;

        call_init(&c, clock_after(CALL_NS));
        r = box_get_state(box, &c, &status);
        section_report(sb->section, r, c.sentence);
        mutex_lock(&sb->lock);
        if (r == 0)
                sandbox_apply_locked(sb, &status);
        else if (!sb->is_destroying)
                sandbox_set_state_locked(sb, otherwise);
        sb->phase[0] = '\0';
        mutex_unlock(&sb->lock);
        if (r < 0)
                log_info("%s: asking for the state: %s: %s, ignoring", sb->key, errno_name(r),
                         c.sentence);
        sandbox_tell_gone(sb);
}

static void save(struct sandbox *sb, bool sync)
{
        int r = sandbox_save(sb, sync);

        if (r < 0)
                log_error("%s: writing the record: %s", sb->path, errno_name(r));
}

static int copy_spec(struct sandbox *sb, struct spec *ret, struct call *c)
{
        int r;

        mutex_lock(&sb->lock);
        r = spec_copy(&sb->spec, ret);
        (void)snprintf(ret->name, sizeof(ret->name), "%s", sb->name);
        mutex_unlock(&sb->lock);
        return r < 0 ? call_fail(c, r, "out of memory") : 0;
}

static void publish(struct sandbox *sb, struct box *box)
{
        mutex_lock(&sb->lock);
        sb->box = box;
        (void)snprintf(sb->box_id, sizeof(sb->box_id), "%s", box->id);
        sb->reachable = 1;
        sandbox_change_locked(sb);
        mutex_unlock(&sb->lock);
        sandbox_plan_poll(sb);
}

/* ---- create ---- */

struct by_key {
        struct box_sink sink;
        const char *key;
        char id[128];
        bool is_found;
};

static int found_key(struct box_sink *to, const struct box_found *found)
{
        struct by_key *k = container_of(to, struct by_key, sink);

        if (strcmp(found->key, k->key) != 0)
                return 0;
        (void)snprintf(k->id, sizeof(k->id), "%s", found->id);
        k->is_found = true;
        return 1;
}

int sandbox_find_made(struct sandbox *sb, struct call *c, struct box **ret)
{
        struct by_key k = {.sink.found = found_key, .key = sb->key};
        struct spec spec;
        int r = provider_list(sb->section->provider, c, &k.sink);

        if (r < 0)
                return call_wrap(c, r, "looking for what was created");
        if (!k.is_found)
                return -ENOENT;
        r = copy_spec(sb, &spec, c);
        if (r < 0)
                return r;
        r = provider_attach(sb->section->provider, c, k.id, &spec, ret);
        spec_done(&spec);
        return r;
}

static int make_record(struct sandbox *sb, struct call *c)
{
        int r;

        mutex_lock(&sb->lock);
        sb->is_recorded = true;
        sb->was_create_tried = true;
        mutex_unlock(&sb->lock);
        r = sandbox_make_dirs(sb);
        if (r == 0)
                r = sandbox_save(sb, true);
        if (r < 0) {
                mutex_lock(&sb->lock);
                sb->was_create_tried = false; /* nothing was asked of the provider */
                mutex_unlock(&sb->lock);
                return call_fail_errno(c, r, "writing the record");
        }
        return 0;
}

static int call_create(struct sandbox *sb, struct call *c, struct box **ret)
{
        struct spec spec;
        int r = call_check(c);

        c->made_nothing = true;
        if (r < 0)
                return call_fail(c, r, "cancelled");
        r = copy_spec(sb, &spec, c);
        if (r < 0)
                return r;
        c->made_nothing = false;
        r = provider_create(sb->section->provider, c, &spec, ret);
        spec_done(&spec);
        return r;
}

static int create(struct sandbox *sb, struct call *c)
{
        struct box *box = NULL;
        char phase[80];
        int r;

        (void)snprintf(phase, sizeof(phase), "created by %s", sb->provider);
        enter(sb, BOX_CREATING, phase);
        r = make_record(sb, c);
        if (r == 0) {
                r = call_create(sb, c, &box);
                section_report(sb->section, r, c->sentence);
        }
        if (r < 0) {
                mutex_lock(&sb->lock);
                sb->was_create_tried &= !c->made_nothing;
                mutex_unlock(&sb->lock);
                leave_failed(sb, r, c);
                save(sb, false);
                return r;
        }
        publish(sb, box);
        save(sb, true);
        ask_state(sb, box, BOX_RUNNING);
        save(sb, false);
        return 0;
}

/* ---- what a former run left, and what others made ---- */

int sandbox_reattach(struct sandbox *sb, struct call *c, struct box **ret)
{
        char id[128];
        struct spec spec;
        int r;

        mutex_lock(&sb->lock);
        memcpy(id, sb->box_id, sizeof(id));
        mutex_unlock(&sb->lock);
        if (id[0] == '\0')
                return sandbox_find_made(sb, c, ret);
        r = copy_spec(sb, &spec, c);
        if (r < 0)
                return r;
        r = provider_attach(sb->section->provider, c, id, &spec, ret);
        spec_done(&spec);
        return r;
}

/*
 * A run was killed before it created this one, or while it did and the provider knows nothing of it:
 * now, if we still know how.
 */
static int create_again(struct sandbox *sb, struct call *c)
{
        bool had_env;

        mutex_lock(&sb->lock);
        had_env = sb->had_env;
        mutex_unlock(&sb->lock);
        if (!had_env)
                return create(sb, c);
        (void)call_fail(
                c, -ECANCELED,
                "the creation was interrupted, and the values of its env.* are not on disk");
        leave_failed(sb, -ECANCELED, c);
        save(sb, false);
        return -ECANCELED;
}

void sandbox_plan_attach(struct sandbox *sb)
{
        uint64_t due;

        mutex_lock(&sb->lock);
        due = sb->fleet->seams.attach_retry_ns << (sb->attach_retries < 6 ? sb->attach_retries : 6);
        if (due > 60 * NS_PER_S)
                due = 60 * NS_PER_S;
        sb->attach_retries++;
        sb->attach_due_ns = clock_after(due);
        due = sb->attach_due_ns;
        mutex_unlock(&sb->lock);
        fleet_due(sb->fleet, due);
}

static int attach_box(struct sandbox *sb, struct call *c)
{
        struct box *box = NULL;
        bool was_created, has_failed, may_exist, is_over;
        int r;

        mutex_lock(&sb->lock);
        box = sb->box;
        was_created = sb->box_id[0] != '\0';
        has_failed = !was_created && sb->state == BOX_ERROR;
        may_exist = was_created || sb->was_create_tried;
        is_over = box || sb->is_destroying || (has_failed && !may_exist);
        mutex_unlock(&sb->lock);
        if (is_over)
                return 0;
        if (!sb->section || !sb->section->provider) {
                if (has_failed)
                        return 0;
                leave(sb, BOX_UNKNOWN);
                return call_fail(c, -EHOSTUNREACH, "provider %s is not there", sb->provider);
        }
        if (!may_exist)
                return create_again(sb, c);
        r = sandbox_reattach(sb, c, &box);
        if (r < 0)
                section_report(sb->section, r, c->sentence);
        if (r == 0) {
                publish(sb, box);
                if (!was_created)
                        save(sb, true);
                ask_state(sb, box, BOX_UNKNOWN);
                return 0;
        }
        if (!was_created && r == -ENOENT)
                return has_failed ? 0 : create_again(sb, c);
        if (r == -ENODEV) {
                leave(sb, BOX_GONE);
                sandbox_tell_gone(sb);
                return r;
        }
        if (!has_failed)
                leave(sb, BOX_UNKNOWN);
        sandbox_plan_attach(sb); /* what failed may be there all the same */
        return has_failed ? 0 : r;
}

/* Tasks that ran, or were to run, when a former run ended; and those whose start got no answer. */
static void attach_tasks(struct sandbox *sb, struct call *c)
{
        bool again = false;

        for (uint64_t number = 0;;) {
                struct task *t = NULL;

                mutex_lock(&sb->lock);
                for (size_t i = 0; i < sb->task_count && !t; i++)
                        if (sb->tasks[i]->number > number && sb->tasks[i]->needs_attach)
                                t = task_ref(sb->tasks[i]);
                mutex_unlock(&sb->lock);
                if (!t)
                        break;
                number = t->number;
                again |= !task_attach(t, c);
                task_unref(t);
        }
        if (again) {
                sandbox_plan_attach(sb);
                return;
        }
        mutex_lock(&sb->lock);
        sb->attach_retries = 0;
        mutex_unlock(&sb->lock);
}

static int attach(struct sandbox *sb, struct call *c)
{
        int r = attach_box(sb, c);
        bool has_box;
        enum box_state state;

        mutex_lock(&sb->lock);
        has_box = sb->box != NULL;
        state = sb->state;
        mutex_unlock(&sb->lock);
        if (has_box)
                attach_tasks(sb, c);
        else if (state == BOX_GONE || state == BOX_ERROR)
                sandbox_end_tasks(sb, &(struct exec_end){.kind = EXEC_END_LOST});
        return r;
}

static int found_id(struct box_sink *to, const struct box_found *found)
{
        struct by_key *k = container_of(to, struct by_key, sink);

        if (strcmp(found->id, k->id) == 0)
                k->is_found = true;
        return k->is_found;
}

/* The id that the provider gives it may be longer than what the user gave: another may have that. */
static int take_id(struct sandbox *sb, struct call *c, const struct box *box, struct by_key *k)
{
        bool is_known =
                strcmp(box->id, k->id) != 0 && fleet_has_id(sb->fleet, sb->section, box->id);

        if (is_known)
                return call_fail(c, -EEXIST, "it is in this mount already");
        mutex_lock(&sb->lock);
        (void)snprintf(sb->box_id, sizeof(sb->box_id), "%s", box->id);
        memcpy(k->id, sb->box_id, sizeof(k->id));
        mutex_unlock(&sb->lock);
        return 0;
}

static int adopt(struct sandbox *sb, struct call *c)
{
        struct by_key ours = {.sink.found = found_id};
        struct box *box = NULL;
        int r;

        enter(sb, BOX_CREATING, "adopting");
        mutex_lock(&sb->lock);
        memcpy(ours.id, sb->box_id, sizeof(ours.id));
        sb->is_recorded = true;
        mutex_unlock(&sb->lock);
        r = sandbox_make_dirs(sb);
        if (r < 0)
                (void)call_fail_errno(c, r, "writing the record");
        else
                r = sandbox_reattach(sb, c, &box);
        if (r == 0)
                r = take_id(sb, c, box, &ours);
        if (r < 0) {
                box_release(box);
                leave_failed(sb, r, c);
                return r;
        }
        if (provider_list(sb->section->provider, c, &ours.sink) < 0)
                ours.is_found = false; /* not known to be ours: then it is theirs */
        mutex_lock(&sb->lock);
        sb->is_foreign = !ours.is_found;
        mutex_unlock(&sb->lock);
        publish(sb, box);
        ask_state(sb, box, BOX_UNKNOWN);
        save(sb, true);
        return 0;
}

/* ---- verbs ---- */

static int start(struct sandbox *sb, struct box *box, struct call *c)
{
        struct spec spec;
        int r = copy_spec(sb, &spec, c);

        if (r < 0)
                return r;
        r = box_start(box, c, &spec);
        spec_done(&spec);
        return r;
}

static int change(struct sandbox *sb, struct box *box, enum job_kind kind, enum box_state before,
                  struct call *c)
{
        int r;

        switch (kind) {
        case JOB_STOP: enter(sb, BOX_STOPPING, "stopping"); return box_stop(box, c);
        case JOB_RESTART:
                enter(sb, BOX_STOPPING, "restarting");
                r = box_stop(box, c);
                if (r < 0)
                        return r;
                enter(sb, BOX_STARTING, "restarting");
                return start(sb, box, c);
        case JOB_PAUSE: enter(sb, BOX_PAUSING, "pausing"); return box_pause(box, c);
        case JOB_RESUME:
        case JOB_START:
                if (before == BOX_PAUSED) {
                        enter(sb, BOX_RESUMING, "resuming");
                        return box_resume(box, c);
                }
                enter(sb, BOX_STARTING, "starting");
                return start(sb, box, c);
        case JOB_CREATE:
        case JOB_ATTACH:
        case JOB_ADOPT:
        case JOB_SYNC:
        case JOB_RETRY:
        case JOB_EXEC:
        case JOB_DESTROY:
        case JOB_NONE:
        default: return -EINVAL;
        }
}

/* What is so already. */
static bool is_done(enum job_kind kind, enum box_state state)
{
        return ((kind == JOB_START || kind == JOB_RESUME) && state == BOX_RUNNING) ||
               (kind == JOB_STOP && state == BOX_STOPPED) ||
               (kind == JOB_PAUSE && state == BOX_PAUSED);
}

static enum box_state reached(enum job_kind kind)
{
        return kind == JOB_STOP ? BOX_STOPPED : kind == JOB_PAUSE ? BOX_PAUSED : BOX_RUNNING;
}

static int verb(struct sandbox *sb, const struct job *j, struct call *c)
{
        const struct listener *l = &sb->fleet->listener;
        enum box_state before;
        struct box *box;
        bool is_down = j->kind == JOB_STOP || j->kind == JOB_PAUSE, was_idle_down;
        int r;

        mutex_lock(&sb->lock);
        before = sb->state;
        box = sb->box;
        was_idle_down = sb->is_idle_down;
        if (is_down)
                sb->is_idle_down = j->is_automatic ||
                                   (was_idle_down && is_done(j->kind, before) && j->is_automatic);
        mutex_unlock(&sb->lock);
        if (!box)
                return call_fail(c, -EBUSY, "the sandbox was not created");
        if (j->kind == JOB_PAUSE && before == BOX_STOPPED)
                return call_fail(c, -EHOSTDOWN, "the sandbox is stopped");
        if (is_done(j->kind, before)) {
                save(sb, false);
                return 0;
        }

        r = is_down || j->kind == JOB_RESTART ? sandbox_deliver(sb, c) : 0;
        if (r == 0)
                r = change(sb, box, j->kind, before, c);
        if (r == 0 && is_down && l->sandbox_down)
                l->sandbox_down(l->ctx, sb);
        mutex_lock(&sb->lock);
        if (r < 0 && is_down)
                sb->is_idle_down = was_idle_down;
        if (r == 0 && !is_down)
                sb->is_idle_down = false;
        mutex_unlock(&sb->lock);
        ask_state(sb, box, r < 0 ? before : reached(j->kind));
        save(sb, false);
        return r;
}

/* For the unmount it tries again until it is cancelled: the way there may be back soon. */
static int deliver_all(struct sandbox *sb, const struct job *j, struct call *c)
{
        const struct timespec pause = clock_timespec(DELIVER_AGAIN_NS);
        int r = sandbox_deliver(sb, c);

        while (r < 0 && j->is_automatic && r != -EHOSTDOWN && r != -ENODEV && call_check(c) == 0) {
                (void)nanosleep(&pause, NULL);
                r = sandbox_deliver(sb, c);
        }
        return r;
}

/* Refused again is a failure too: its sentence says what. */
static int retry(struct sandbox *sb, struct call *c)
{
        const struct listener *l = &sb->fleet->listener;
        int r = l->retry ? l->retry(l->ctx, sb, c) : 0;

        if (r == 0)
                r = sandbox_deliver(sb, c);
        return r == 0 ? sandbox_check_unsent(sb, c) : r;
}

static bool can_stop(const struct sandbox *sb)
{
        const struct provider *p = sb->section->provider;

        return provider_can(p, PROVIDER_OP_STOP) && (p->ops->traits & PROVIDER_SURVIVES);
}

/* One that can't be paused, though its service has such, is stopped; an idle one else destroyed. */
static int pause_or_stop(struct sandbox *sb, const struct job *j, struct call *c)
{
        struct job stop = {.kind = JOB_STOP, .is_automatic = true};
        int r = verb(sb, j, c);

        if (r == -EOPNOTSUPP && j->is_automatic && can_stop(sb)) {
                c->sentence[0] = '\0';
                r = verb(sb, &stop, c);
        }
        if (r != -EOPNOTSUPP || !j->is_idle || !sandbox_idle_destroy(sb))
                return r;
        log_info("%s: destroyed, since it can't be paused: %s", sb->key, c->sentence);
        return 0;
}

int lifecycle_run(struct sandbox *sb, struct job *j, struct call *c)
{
        switch (j->kind) {
        case JOB_CREATE: return create(sb, c);
        case JOB_ATTACH: return attach(sb, c);
        case JOB_ADOPT: return adopt(sb, c);
        case JOB_START:
        case JOB_STOP:
        case JOB_RESTART:
        case JOB_RESUME: return verb(sb, j, c);
        case JOB_PAUSE: return pause_or_stop(sb, j, c);
        case JOB_SYNC: return deliver_all(sb, j, c);
        case JOB_RETRY: return retry(sb, c);
        case JOB_EXEC:
        case JOB_DESTROY:
        case JOB_NONE:
        default: return call_fail(c, -EINVAL, "no such job");
        }
}
