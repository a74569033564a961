/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox: references, what status shows, and what can be set on it. Its jobs are in queue.c,
 * lifecycle.c and destroy.c.
 */

#include "fs/sandbox/sandbox.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/settings.h"
#include "transport/base/cleanup.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"

/* ---- birth and death ---- */

struct sandbox *sandbox_new(struct fleet *f, struct section *section, uint64_t serial,
                            const char *key)
{
        struct sandbox *sb = calloc(1, sizeof(*sb));

        if (!sb)
                return NULL;
        sb->results = results_new();
        if (!sb->results) {
                free(sb);
                return NULL;
        }
        atomic_init(&sb->refs, 1);
        sb->fleet = f;
        sb->section = section;
        sb->serial = serial;
        (void)snprintf(sb->key, sizeof(sb->key), "%s", key);
        (void)snprintf(sb->path, sizeof(sb->path), "sandboxes/%s", sb->key);
        if (section)
                (void)snprintf(sb->provider, sizeof(sb->provider), "%s", section->instance);
        sb->born_ns = clock_mono_ns();
        atomic_init(&sb->used_ns, sb->born_ns);
        atomic_init(&sb->dirty_turns, 0);
        list_init(&sb->news_link);
        mutex_init(&sb->save_lock);
        mutex_init(&sb->lock);
        cond_init(&sb->exec_idle);

        mutex_lock(&sb->lock); /* nobody else knows it; for the analysis */
        spec_init(&sb->spec);
        (void)snprintf(sb->spec.key, sizeof(sb->spec.key), "%s", key);
        (void)snprintf(sb->spec.owner, sizeof(sb->spec.owner), "%s", f->owner);
        sb->state = BOX_CREATING;
        sb->current = JOB_NONE;
        sb->reachable = -1;
        sb->created_real_ns = sb->since_real_ns = sb->changed_real_ns = sb->tasks_real_ns =
                clock_real_ns();
        sb->generation = 1;
        list_init(&sb->jobs);
        sb->idle_due_ns = sb->retry_due_ns = sb->attach_due_ns = sb->sync_due_ns = sb->lost_due_ns =
                NOTHING_DUE;
        sb->shown_task = -1;
        mutex_unlock(&sb->lock);
        return sb;
}

static void sandbox_free(struct sandbox *sb)
{
        mutex_lock(&sb->lock);
        assert(list_is_empty(&sb->jobs));
        mutex_unlock(&sb->lock);
        for (size_t i = 0; i < sb->task_count; i++)
                task_free_table(sb->tasks[i]);
        free(sb->tasks);
        job_free(sb->retry_job);
        box_release(sb->box);
        spec_done(&sb->spec);
        pairs_free(sb->env, sb->env_count);
        results_free(sb->results);
        cond_done(&sb->exec_idle);
        mutex_done(&sb->lock);
        mutex_done(&sb->save_lock);
        free(sb);
}

struct sandbox *sandbox_ref(struct sandbox *sb)
{
        atomic_fetch_add_explicit(&sb->refs, 1, memory_order_relaxed);
        return sb;
}

static void free_job(void *arg)
{
        sandbox_free(arg);
}

/* A provider's thread that tells something may be the last; released there, a box waits for it. */
void sandbox_unref(struct sandbox *sb)
{
        if (!sb || atomic_fetch_sub_explicit(&sb->refs, 1, memory_order_acq_rel) > 1)
                return;
        if (!sb->box || atomic_load(&sb->fleet->is_drained) ||
            workers_submit(sb->fleet->workers, WORKER_SLOW, free_job, sb) < 0)
                sandbox_free(sb);
}

void sandbox_freep(struct sandbox **sb)
{
        sandbox_unref(*sb);
}

/* ---- changes ---- */

/* What the root's status says of the latest task. */
static int task_word_locked(const struct sandbox *sb) REQUIRES(sb->lock)
{
        return sb->latest ? (int)sb->latest->state : -1;
}

void sandbox_change_locked(struct sandbox *sb)
{
        int word = task_word_locked(sb);

        sb->generation++;
        sb->changed_real_ns = clock_real_ns();
        news_sandbox(sb);
        if (sb->shown_state != sb->state || sb->shown_task != word) {
                sb->shown_state = sb->state;
                sb->shown_task = word;
                fleet_touch(sb->fleet);
        }
}

void sandbox_set_state_locked(struct sandbox *sb, enum box_state state)
{
        if (sb->state == state)
                return;
        log_debug("sandbox", "%s: %s -> %s", sb->name, box_state_name(sb->state),
                  box_state_name(state));
        sb->state = state;
        sb->since_real_ns = clock_real_ns();
        sb->phase[0] = '\0';
        if (state == BOX_RUNNING) {
                if (sb->ready_ms == 0)
                        sb->ready_ms = (clock_mono_ns() - sb->born_ns) / NS_PER_MS + 1;
                atomic_store_explicit(&sb->used_ns, clock_mono_ns(), memory_order_relaxed);
        }
        sandbox_plan_idle_locked(sb);
        sandbox_change_locked(sb);
}

void sandbox_say_error_locked(struct sandbox *sb, int code, const char *sentence)
{
        if (!sentence || !sentence[0])
                sentence = strerrordesc_np(code < 0 ? -code : code) ?: "unknown error";
        escape_sentence(sentence, strlen(sentence), sb->last_error,
                        sizeof(sb->last_error) < ESCAPE_LINE_MAX ? sizeof(sb->last_error)
                                                                 : ESCAPE_LINE_MAX);
        sb->error_real_ns = clock_real_ns();
        sandbox_change_locked(sb);
}

void sandbox_say_error(struct sandbox *sb, int code, const char *sentence)
{
        mutex_lock(&sb->lock);
        sandbox_say_error_locked(sb, code, sentence);
        mutex_unlock(&sb->lock);
        news_post(sb->fleet);
}

/* ---- what status shows ---- */

uint64_t sandbox_serial(const struct sandbox *sb)
{
        return sb->serial;
}

static void put_text(char *to, size_t size, const char *text)
{
        escape_text(text, strlen(text), to, size);
}

static uint64_t expires_locked(const struct sandbox *sb) REQUIRES(sb->lock)
{
        uint64_t mono_ns = clock_mono_ns(), real_ns = clock_real_ns();

        if (sb->status.expires_real_ns)
                return sb->status.expires_real_ns;
        if (sb->spec.timeout_ns == 0 || sb->state != BOX_RUNNING || sb->running > 0)
                return 0;
        return real_ns - mono_ns + atomic_load_explicit(&sb->used_ns, memory_order_relaxed) +
               sb->spec.timeout_ns;
}

void sandbox_get(struct sandbox *sb, struct sandbox_info *ret)
{
        memset(ret, 0, sizeof(*ret));
        mutex_lock(&sb->lock);
        ret->state = sb->state;
        memcpy(ret->phase, sb->phase, sizeof(ret->phase));
        ret->since_real_ns = sb->since_real_ns;
        memcpy(ret->name, sb->name, sizeof(ret->name));
        memcpy(ret->provider, sb->provider, sizeof(ret->provider));
        put_text(ret->id, sizeof(ret->id), sb->box_id);
        put_text(ret->provider_state, sizeof(ret->provider_state), sb->status.raw);
        ret->reachable = sb->reachable;
        put_text(ret->image, sizeof(ret->image),
                 sb->status.image[0] || !sb->spec.text[SETTING_IMAGE]
                         ? sb->status.image
                         : sb->spec.text[SETTING_IMAGE]);
        ret->cpu_milli = sb->status.cpu_milli;
        ret->memory = sb->status.memory;
        ret->disk = sb->status.disk;
        ret->expires_real_ns = expires_locked(sb);
        ret->env = sb->env_state;
        ret->running = sb->running;
        ret->dirty_files = sb->dirty_files;
        ret->dirty_bytes = sb->dirty_bytes;
        ret->unsent = sb->unsent;
        ret->unsent_real_ns = sb->unsent_real_ns;
        ret->generation = sb->generation;
        ret->created_real_ns = sb->created_real_ns;
        ret->changed_real_ns = sb->changed_real_ns;
        ret->ready_ms = sb->ready_ms;
        memcpy(ret->last_error, sb->last_error, sizeof(ret->last_error));
        ret->error_real_ns = sb->error_real_ns;
        ret->is_protected = sb->is_protected;
        ret->is_foreign = sb->is_foreign;
        ret->has_task = sb->latest != NULL;
        if (sb->latest)
                task_get_locked(sb->latest, &ret->task);
        mutex_unlock(&sb->lock);
}

void sandbox_get_name(struct sandbox *sb, char ret[NAME_SIZE])
{
        mutex_lock(&sb->lock);
        memcpy(ret, sb->name, NAME_SIZE);
        mutex_unlock(&sb->lock);
}

uint64_t sandbox_generation(struct sandbox *sb)
{
        uint64_t generation;

        mutex_lock(&sb->lock);
        generation = sb->generation;
        mutex_unlock(&sb->lock);
        return generation;
}

enum box_state sandbox_state(struct sandbox *sb)
{
        enum box_state state;

        mutex_lock(&sb->lock);
        state = sb->state;
        mutex_unlock(&sb->lock);
        return state;
}

struct results *sandbox_results(struct sandbox *sb)
{
        return sb->results;
}

void sandbox_touch(struct sandbox *sb)
{
        atomic_store_explicit(&sb->used_ns, clock_mono_ns(), memory_order_relaxed);
}

void sandbox_watched(struct sandbox *sb)
{
        uint64_t mono_ns = clock_mono_ns(), before;

        if (!sb->section || !sb->section->provider ||
            (sb->section->provider->ops->traits & PROVIDER_DIRECT))
                return; /* it tells us by itself */
        before = atomic_exchange_explicit(&sb->watched_ns, mono_ns, memory_order_relaxed);
        if (mono_ns - before > 60 * NS_PER_S)
                fleet_due(sb->fleet, mono_ns + sb->fleet->seams.poll_fast_ns);
}

/* ---- what can be set ---- */

static int check_alive_locked(struct sandbox *sb, struct call *c) REQUIRES(sb->lock)
{
        if (sb->is_destroying)
                return call_fail(c, -EBUSY, "the sandbox is being destroyed");
        if (sb->state == BOX_GONE)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        return 0;
}

/* Saved on the caller's thread: a few microseconds without waiting for the disk. */
static void save_soon(struct sandbox *sb)
{
        (void)sandbox_save(sb, false); /* said in the log; the next save brings it */
        news_post(sb->fleet);
}

/* Whether the provider would have it so; without locks, on a copy, which it leaves on success. */
static int check_timeout(struct sandbox *sb, uint64_t span_ns, struct spec *ret, struct call *c)
{
        struct spec copy = {0};
        int r;

        mutex_lock(&sb->lock);
        r = check_alive_locked(sb, c);
        if (r == 0) {
                r = spec_copy(&sb->spec, &copy);
                if (r < 0)
                        (void)call_fail(c, r, "out of memory");
        }
        mutex_unlock(&sb->lock);
        if (r < 0)
                return r;
        copy.timeout_ns = span_ns;
        copy.given |= SETTING_BIT(SETTING_TIMEOUT);
        if (sb->section && sb->section->provider)
                r = provider_check(sb->section->provider, c, &copy);
        if (r < 0)
                spec_done(&copy);
        else
                *ret = copy;
        return r;
}

int sandbox_set_timeout(struct sandbox *sb, uint64_t span_ns, struct call *c)
{
        struct spec told = {0};
        struct box *box;
        int r = check_timeout(sb, span_ns, &told, c);

        if (r < 0)
                return r;
        mutex_lock(&sb->lock);
        box = sb->box; /* as long as the sandbox */
        sb->spec.timeout_ns = span_ns;
        sb->spec.given |= SETTING_BIT(SETTING_TIMEOUT);
        sandbox_touch(sb);
        sandbox_plan_idle_locked(sb);
        sandbox_change_locked(sb);
        mutex_unlock(&sb->lock);
        if (box)
                box_set_timeout(box, &told);
        spec_done(&told);
        save_soon(sb);
        return 0;
}

int sandbox_set_label(struct sandbox *sb, const char *key, const char *value, struct call *c)
{
        int r = settings_check_label(key, value, c);

        if (r < 0)
                return r;
        mutex_lock(&sb->lock);
        r = check_alive_locked(sb, c);
        if (r == 0) {
                r = pairs_set(&sb->spec.labels, &sb->spec.label_count, key, value);
                if (r < 0)
                        (void)call_fail(c, r, "out of memory");
        }
        if (r == 0) {
                sb->spec.given |= SETTING_BIT(SETTING_LABEL);
                sandbox_change_locked(sb);
        }
        mutex_unlock(&sb->lock);
        if (r == 0)
                save_soon(sb);
        return r;
}

int sandbox_protect(struct sandbox *sb, bool on, struct call *c)
{
        int r;

        mutex_lock(&sb->lock);
        r = check_alive_locked(sb, c);
        if (r == 0) {
                sb->is_protected = on;
                sandbox_change_locked(sb);
        }
        mutex_unlock(&sb->lock);
        if (r == 0)
                save_soon(sb);
        return r;
}

static size_t env_size(const struct pair *env, size_t count, const char *without)
{
        size_t size = 0;

        for (size_t i = 0; i < count; i++)
                if (strcmp(env[i].key, without) != 0)
                        size += strlen(env[i].key) + strlen(env[i].value) + 2;
        return size;
}

int sandbox_set_env(struct sandbox *sb, const char *key, const char *value, struct call *c)
{
        bool save = false;
        int r = settings_check_env(key, value, c);

        if (r < 0)
                return r;
        mutex_lock(&sb->lock);
        r = check_alive_locked(sb, c);
        if (r == 0 && value &&
            env_size(sb->env, sb->env_count, key) + strlen(key) + strlen(value) + 2 > ENV_MAX)
                r = call_fail(c, -E2BIG,
                              "the variables of a sandbox are limited to %zu bytes in all",
                              ENV_MAX);
        if (r == 0 && value) {
                r = pairs_set(&sb->env, &sb->env_count, key, value);
                if (r < 0)
                        (void)call_fail(c, r, "out of memory");
        } else if (r == 0) {
                pairs_remove(sb->env, &sb->env_count, key);
        }
        if (r == 0) {
                enum env_state state = sb->env_count > 0 ? ENV_SET : ENV_NONE;

                save = state != sb->env_state;
                sb->env_state = state;
                sandbox_change_locked(sb);
        }
        mutex_unlock(&sb->lock);
        if (save)
                save_soon(sb);
        else if (r == 0)
                news_post(sb->fleet);
        return r;
}

/* ---- verbs ---- */

static int check_can(struct sandbox *sb, enum sandbox_verb verb, struct call *c)
{
        static const struct {
                const char *word;
                enum provider_op op;
        } verbs[] = {
                [SANDBOX_START] = {"start", PROVIDER_OP_START},
                [SANDBOX_STOP] = {"stop", PROVIDER_OP_STOP},
                [SANDBOX_RESTART] = {"restart", PROVIDER_OP_START},
                [SANDBOX_PAUSE] = {"pause", PROVIDER_OP_PAUSE},
                [SANDBOX_RESUME] = {"resume", PROVIDER_OP_RESUME},
        };

        if (!sb->section || !sb->section->provider)
                return call_fail(c, -EHOSTUNREACH, "provider %s is not there", sb->provider);
        if (verb == SANDBOX_REFRESH || verb == SANDBOX_DESTROY || verb == SANDBOX_SYNC ||
            verb == SANDBOX_RETRY)
                return 0;
        if (!provider_can(sb->section->provider, verbs[verb].op))
                return call_fail(c, -EOPNOTSUPP, "provider %s can't %s a sandbox", sb->provider,
                                 verbs[verb].word);
        return 0;
}

static int check_verb_locked(struct sandbox *sb, enum sandbox_verb verb, struct call *c)
        REQUIRES(sb->lock)
{
        enum box_state state = sandbox_expected_locked(sb);

        if (verb == SANDBOX_DESTROY) {
                if (sb->is_protected)
                        return call_fail(c, -EPERM,
                                         "the sandbox is protected: write `protect off` first");
                return 0;
        }
        if (sb->is_destroying)
                return call_fail(c, -EBUSY, "the sandbox %s",
                                 sb->state == BOX_ERROR ? "could not be destroyed"
                                                        : "is being destroyed");
        if (verb == SANDBOX_REFRESH)
                return 0;
        if (state == BOX_GONE)
                return call_fail(c, -ENODEV, "the sandbox is gone");
        if (state == BOX_ERROR && !sb->box)
                return call_fail(c, -EBUSY, "the sandbox was not created: %s", sb->last_error);
        if (verb == SANDBOX_PAUSE && state == BOX_STOPPED)
                return call_fail(c, -EHOSTDOWN, "the sandbox is stopped");
        if (sb->job_count >= JOBS_MAX)
                return call_fail(c, -EAGAIN, "%d commands are waiting already", JOBS_MAX);
        return 0;
}

int sandbox_check(struct sandbox *sb, enum sandbox_verb verb, struct call *c)
{
        int r = check_can(sb, verb, c);

        if (r < 0)
                return r;
        mutex_lock(&sb->lock);
        r = check_verb_locked(sb, verb, c);
        mutex_unlock(&sb->lock);
        return r;
}

void sandbox_do(struct sandbox *sb, enum sandbox_verb verb, uint64_t seq)
{
        static const enum job_kind kinds[] = {
                [SANDBOX_START] = JOB_START,     [SANDBOX_STOP] = JOB_STOP,
                [SANDBOX_RESTART] = JOB_RESTART, [SANDBOX_PAUSE] = JOB_PAUSE,
                [SANDBOX_RESUME] = JOB_RESUME,   [SANDBOX_DESTROY] = JOB_DESTROY,
                [SANDBOX_REFRESH] = JOB_NONE,    [SANDBOX_SYNC] = JOB_SYNC,
                [SANDBOX_RETRY] = JOB_RETRY,
        };
        struct job *j;

        if (verb == SANDBOX_DESTROY) {
                destroy_accept(sb, sb->results, seq);
                return;
        }
        if (verb == SANDBOX_REFRESH) {
                sandbox_poll(sb, seq);
                return;
        }
        sandbox_touch(sb);
        j = job_new(kinds[verb], sb->results, seq);
        if (!j) {
                results_end(sb->results, seq, -ENOMEM, NULL);
                return;
        }
        mutex_lock(&sb->lock);
        sandbox_enqueue_locked(sb, j, false);
        mutex_unlock(&sb->lock);
        sandbox_kick(sb);
        news_post(sb->fleet);
}
