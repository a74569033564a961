/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet: opened with its providers, drained and closed. Who is in it: fleet_names.c; how they
 * come and go: fleet_create.c.
 */

#include "fs/sandbox/fleet.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/sandbox/private.h"
#include "fs/sandbox/results.h"
#include "fs/sandbox/settings.h"
#include "providers/registry.h"
#include "transport/base/cleanup.h"
#include "transport/base/escape.h"
#include "transport/base/log.h"

#define TELLERS_NS (5 * NS_PER_S)

struct section *fleet_section(struct fleet *f, const char *instance)
{
        for (size_t i = 0; i < f->section_count; i++)
                if (strcmp(f->sections[i].instance, instance) == 0)
                        return &f->sections[i];
        return NULL;
}

void section_report(struct section *s, int code, const char *sentence)
{
        bool is_down = code == -EHOSTUNREACH || code == -ETIMEDOUT || code == -EACCES ||
                       code == -ECONNREFUSED;
        bool has_changed = false;

        if (code < 0 && !is_down)
                return; /* it answered */
        mutex_lock(&s->fleet->lock);
        if (s->is_down != is_down) {
                s->is_down = is_down;
                has_changed = true;
        }
        s->sentence[0] = '\0';
        if (is_down)
                escape_sentence(sentence, strlen(sentence), s->sentence, sizeof(s->sentence));
        mutex_unlock(&s->fleet->lock);
        if (has_changed)
                fleet_touch(s->fleet);
}

/* ---- providers ---- */

static const char *source_of(const struct fleet_section *from)
{
        return from->source ? from->source : from->instance;
}

static bool knows(const struct provider_ops *ops, const char *key)
{
        for (const char *const *k = ops->config_keys; k && *k; k++)
                if (strcmp(*k, key) == 0)
                        return true;
        return false;
}

/* A section's pairs: the provider's own keys to it, settings to the defaults. */
static int split_pairs(struct section *s, const struct fleet_section *from,
                       const struct provider_ops *ops, struct pair **own, size_t *own_count,
                       struct call *c)
{
        int r = 0;

        for (size_t i = 0; i < from->pair_count && r == 0; i++) {
                const struct pair *p = &from->pairs[i];

                if (knows(ops, p->key)) {
                        r = pairs_set(own, own_count, p->key, p->value);
                } else if (settings_is_key(p->key)) {
                        r = settings_add(&s->defaults, p->key, p->value, c);
                        if (r < 0)
                                return call_wrap(c, r, "%s", source_of(from));
                } else {
                        return call_fail(c, -EINVAL, "%s: provider %s has no key \"%.64s\"",
                                         source_of(from), from->kind, p->key);
                }
        }
        return r;
}

static int add_options(const struct fleet_config *config, const struct provider_ops *ops,
                       struct pair **own, size_t *own_count)
{
        int r = 0;

        for (size_t i = 0; i < config->provider_option_count && r == 0; i++)
                if (knows(ops, config->provider_options[i].key))
                        r = pairs_set(own, own_count, config->provider_options[i].key,
                                      config->provider_options[i].value);
        return r;
}

static int make_state_dir(struct section *s, struct call *c)
{
        struct fleet *f = s->fleet;
        char name[NAME_SIZE + 16];

        (void)snprintf(name, sizeof(name), "providers/%s", s->instance);
        (void)snprintf(s->state_path, sizeof(s->state_path), "%s/%s", f->state_path, name);
        if (mkdirat(f->state_dir, name, 0700) < 0 && errno != EEXIST)
                return call_fail_errno(c, -errno, "mkdir %s", s->state_path);
        if (fchmodat(f->state_dir, name, geteuid() == 0 ? 0711 : 0700, 0) < 0)
                return call_fail_errno(c, -errno, "chmod %s", s->state_path);
        s->state_dir = openat(f->state_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        return s->state_dir < 0 ? call_fail_errno(c, -errno, "open %s", s->state_path) : 0;
}

/* Wrong configuration is refused; a service that is not there now is shown as down. */
static int open_provider(struct section *s, const struct fleet_section *from,
                         const struct pair *own, size_t own_count, struct call *c)
{
        struct fleet *f = s->fleet;
        const struct provider_config pc = {
                .instance = s->instance,
                .pairs = own,
                .pair_count = own_count,
                .allow = s->allow |
                         settings_needs(
                                 &s->defaults), /* what the operator named by himself is allowed */
                .state_dir = s->state_dir,
                .state_path = s->state_path,
                .owner = f->owner,
                .helper_dir = f->helper_dir,
                .source = from->source,
                .listener = {.box_changed = fleet_box_changed,
                             .box_phase = fleet_box_phase,
                             .ctx = s},
        };
        int r = f->seams.open(s->kind, &pc, c, &s->provider);

        if (r == 0 && s->defaults.given) {
                /* Refused now rather than at each creation. */
                r = settings_check(&s->defaults, s->provider, c);
                return r < 0 ? call_wrap(c, r, "%s", source_of(from)) : 0;
        }
        if (r == 0 || r == -ENOMEM)
                return r;
        if (r == -EINVAL || r == -EPERM)
                return call_wrap(c, r, "%s", source_of(from));
        s->is_down = true;
        escape_sentence(c->sentence, strlen(c->sentence), s->sentence, sizeof(s->sentence));
        log_warning("provider %s: %s", s->instance, c->sentence);
        return 0;
}

static int open_section(struct fleet *f, struct section *s, const struct fleet_section *from,
                        const struct fleet_config *config, struct call *c)
{
        const struct provider_ops *ops = f->seams.find(from->kind);
        struct pair *own = NULL;
        size_t own_count = 0;
        int r;

        if (!name_is_valid(from->instance))
                return call_fail(c, -EINVAL, "%s: \"%.80s\" is not a name for a provider",
                                 source_of(from), from->instance);
        if (!ops)
                return call_fail(c, -EINVAL, "%s: there is no kind of provider \"%.64s\"",
                                 source_of(from), from->kind);
        if (fleet_section(f, from->instance))
                return call_fail(c, -EINVAL, "%s: there are two providers %s", source_of(from),
                                 from->instance);
        s->fleet = f;
        (void)snprintf(s->kind, sizeof(s->kind), "%s", from->kind);
        s->allow = from->allow | config->allow;
        r = add_options(config, ops, &own, &own_count);
        if (r == 0)
                r = split_pairs(s, from, ops, &own, &own_count, c);
        (void)snprintf(s->instance, sizeof(s->instance), "%s", from->instance);
        if (r == 0)
                r = make_state_dir(s, c);
        if (r == 0)
                r = open_provider(s, from, own, own_count, c);
        pairs_free(own, own_count);
        return r == -ENOMEM ? call_fail(c, r, "out of memory") : r;
}

static int open_sections(struct fleet *f, const struct fleet_config *config, struct call *c)
{
        f->sections = calloc(config->section_count + 1, sizeof(*f->sections));
        if (!f->sections)
                return call_fail(c, -ENOMEM, "out of memory");
        for (size_t i = 0; i < config->section_count; i++) {
                struct section *s = &f->sections[f->section_count];
                int r;

                spec_init(&s->defaults);
                s->state_dir = -1;
                r = open_section(f, s, &config->sections[i], config, c);
                f->section_count++; /* to be closed, half open as it may be */
                if (r < 0)
                        return r;
        }
        f->default_section = fleet_section(f, config->default_provider);
        if (!f->default_section)
                return call_fail(c, -EINVAL, "there is no provider \"%.64s\" to be the default",
                                 config->default_provider);
        return 0;
}

/* ---- open ---- */

static void set_seams(struct fleet *f, const struct fleet_seams *given)
{
        struct fleet_seams *s = &f->seams;

        if (given)
                *s = *given;
        s->find = s->find ? s->find : registry_find;
        s->open = s->open ? s->open : provider_open;
        s->destroy_retry_ns = s->destroy_retry_ns ? s->destroy_retry_ns : NS_PER_S;
        s->destroy_tries = s->destroy_tries ? s->destroy_tries : 7; /* about a minute in all */
        s->attach_retry_ns = s->attach_retry_ns ? s->attach_retry_ns : NS_PER_S;
        s->kill_grace_ns = s->kill_grace_ns ? s->kill_grace_ns : 5 * NS_PER_S;
        s->sync_delay_ns = s->sync_delay_ns ? s->sync_delay_ns : NS_PER_S;
        s->lost_grace_ns = s->lost_grace_ns ? s->lost_grace_ns : 5 * NS_PER_S;
        s->poll_fast_ns = s->poll_fast_ns ? s->poll_fast_ns : 10 * NS_PER_S;
        s->poll_slow_ns = s->poll_slow_ns ? s->poll_slow_ns : 60 * NS_PER_S;
}

static struct fleet *fleet_new(const struct fleet_config *config, const struct listener *listener,
                               struct workers *workers)
{
        struct fleet *f = calloc(1, sizeof(*f));

        if (!f)
                return NULL;
        f->state_dir = f->lock_fd = -1;
        f->listener = *listener;
        f->workers = workers;
        f->max_sandboxes = config->max_sandboxes;
        f->on_unmount = config->on_unmount;
        f->output_cap = config->output_cap;
        set_seams(f, config->seams);
        news_init(&f->news);
        mutex_init(&f->lock);
        mutex_init(&f->tick_lock);
        cond_init(&f->idle);
        f->tick_ns = NOTHING_DUE;
        atomic_init(&f->generation, 1);
        atomic_init(&f->changed_real_ns, clock_real_ns());
        atomic_init(&f->names_real_ns, clock_real_ns());
        f->by_serial = imap_new();
        f->results = results_new();
        f->state_path = strdup(config->state_path);
        f->helper_dir = strdup(config->helper_dir ? config->helper_dir : "");
        f->mountpoint = strdup(config->mountpoint ? config->mountpoint : "");
        return f;
}

int fleet_open(const struct fleet_config *config, const struct listener *listener,
               struct workers *workers, struct call *c, struct fleet **ret)
{
        struct fleet *f = fleet_new(config, listener, workers);
        int r = 0;

        if (!f || !f->by_serial || !f->results || !f->state_path || !f->helper_dir ||
            !f->mountpoint)
                r = call_fail(c, -ENOMEM, "out of memory");
        if (r == 0)
                r = fleet_state_open(f, config, c);
        if (r == 0)
                r = open_sections(f, config, c);
        if (r < 0) {
                if (f)
                        fleet_close(f);
                return r;
        }
        fleet_load(f);
        *ret = f;
        news_post(f);
        return 0;
}

struct results *fleet_results(struct fleet *f)
{
        return f->results;
}

/* ---- drain and close ---- */

void fleet_idle(struct fleet *f)
{
        mutex_lock(&f->lock);
        cond_broadcast(&f->idle);
        mutex_unlock(&f->lock);
}

/* What was written goes first; what can't go now stays for the next mount. */
static void deliver_one(struct sandbox *sb)
{
        struct job *j = NULL;

        mutex_lock(&sb->lock);
        if (sb->box && !sb->is_destroying && !sandbox_is_direct(sb)) {
                j = job_new(JOB_SYNC, NULL, 0);
                if (j) {
                        j->is_automatic = true;
                        sandbox_enqueue_locked(sb, j, false);
                }
        }
        mutex_unlock(&sb->lock);
        if (j)
                sandbox_kick(sb);
}

static void unmount_one(struct sandbox *sb)
{
        enum on_unmount what = sb->fleet->on_unmount;
        struct job *j = NULL;
        bool is_ours;

        mutex_lock(&sb->lock);
        is_ours = !sb->is_foreign && !sb->is_protected && !sb->is_destroying && sb->section &&
                  sb->section->provider;
        if (is_ours && what == ON_UNMOUNT_PAUSE && sb->state == BOX_RUNNING &&
            provider_can(sb->section->provider, PROVIDER_OP_PAUSE)) {
                j = job_new(JOB_PAUSE, NULL, 0);
                if (j) {
                        j->is_automatic = true; /* the next mount's exec brings it back */
                        sandbox_enqueue_locked(sb, j, false);
                }
        }
        mutex_unlock(&sb->lock);
        if (j)
                sandbox_kick(sb);
        if (is_ours && what == ON_UNMOUNT_DESTROY)
                destroy_accept(sb, NULL, 0);
}

static bool is_busy_locked(struct fleet *f) REQUIRES(f->lock)
{
        struct sandbox *sb;
        size_t cursor = 0;

        while ((sb = imap_next(f->by_serial, &cursor, NULL))) {
                bool is_busy;

                mutex_lock(&sb->lock);
                is_busy = sb->current != JOB_NONE || !list_is_empty(&sb->jobs) || sb->retry_job;
                mutex_unlock(&sb->lock);
                if (is_busy)
                        return true;
        }
        return false;
}

static void wait_for_jobs(struct fleet *f, uint64_t deadline_ns)
{
        for (;;) {
                uint64_t until = clock_after(100 * NS_PER_MS);
                bool is_busy;

                mutex_lock(&f->lock);
                is_busy = is_busy_locked(f);
                if (is_busy)
                        (void)cond_wait_until(&f->idle, &f->lock,
                                              until < deadline_ns ? until : deadline_ns);
                mutex_unlock(&f->lock);
                if (!is_busy || clock_mono_ns() >= deadline_ns || fleet_state_is_wanted(f))
                        return;
        }
}

/* What is under way is cancelled, commands are let go of; they run on. */
static void let_go(struct sandbox *sb)
{
        mutex_lock(&sb->lock);
        if (sb->call)
                call_cancel(sb->call);
        mutex_unlock(&sb->lock);
        for (uint64_t number = 0;;) {
                struct task *t = NULL;

                mutex_lock(&sb->lock);
                for (size_t i = 0; i < sb->task_count && !t; i++)
                        if (sb->tasks[i]->number > number && sb->tasks[i]->state == TASK_RUNNING)
                                t = task_ref(sb->tasks[i]);
                mutex_unlock(&sb->lock);
                if (!t)
                        break;
                number = t->number;
                task_let_go(t);
                task_unref(t);
        }
        sandbox_sync_tasks(sb);
        if (sandbox_save(sb, false) < 0)
                log_warning("%s: writing the record failed, ignoring", sb->path);
}

static void stop_timer(struct fleet *f)
{
        mutex_lock(&f->tick_lock);
        if (f->tick_ns != NOTHING_DUE)
                (void)workers_cancel(f->workers, f->tick_id);
        f->tick_ns = NOTHING_DUE;
        mutex_unlock(&f->tick_lock);
}

bool fleet_drain(struct fleet *f, uint64_t deadline_ns)
{
        size_t count;
        struct sandbox **all = fleet_all(f, &count);
        uint64_t tellers_ns;
        bool is_quiet;

        fleet_state_draining(f);
        for (size_t i = 0; i < count; i++) {
                deliver_one(all[i]);
                if (f->on_unmount != ON_UNMOUNT_KEEP)
                        unmount_one(all[i]);
        }
        wait_for_jobs(f, deadline_ns);
        tellers_ns = clock_after(TELLERS_NS);
        mutex_lock(&f->lock);
        atomic_store(&f->is_closing, true);
        while (f->tellers > 0 && clock_mono_ns() < tellers_ns) /* none of them waits for long */
                (void)cond_wait_until(&f->idle, &f->lock, tellers_ns);
        is_quiet = f->tellers == 0;
        mutex_unlock(&f->lock);
        stop_timer(f);
        for (size_t i = 0; i < count; i++) {
                let_go(all[i]);
                sandbox_unref(all[i]);
        }
        free(all);
        atomic_store(&f->is_drained, true);
        return is_quiet;
}

static void close_sandboxes(struct fleet *f)
{
        size_t count;
        struct sandbox **all = fleet_all(f, &count);

        for (size_t i = 0; i < count; i++) {
                struct sandbox *sb = all[i];

                sandbox_drop_jobs(sb, 0, NULL);
                mutex_lock(&f->lock);
                (void)imap_remove(f->by_serial, sb->serial);
                mutex_unlock(&f->lock);
                sandbox_unref(sb); /* the fleet's */
                sandbox_unref(sb);
        }
        free(all);
}

void fleet_close(struct fleet *f)
{
        if (!f)
                return;
        atomic_store(&f->is_closing, true);
        atomic_store(&f->is_drained, true);
        news_done(f);
        if (f->by_serial)
                close_sandboxes(f);
        for (size_t i = 0; i < f->section_count; i++) {
                provider_close(f->sections[i].provider);
                spec_done(&f->sections[i].defaults);
                if (f->sections[i].state_dir >= 0)
                        (void)close(f->sections[i].state_dir);
        }
        free(f->sections);
        fleet_state_close(f, true);
        imap_free(f->by_serial);
        results_free(f->results);
        free(f->named);
        free(f->state_path);
        free(f->helper_dir);
        free(f->mountpoint);
        cond_done(&f->idle);
        mutex_done(&f->lock);
        mutex_done(&f->tick_lock);
        free(f);
}
