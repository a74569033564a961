/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The idle time-out: `timeout` after the last use, while nothing runs, a sandbox is paused, else
 * stopped, else destroyed.
 */

#include "fs/sandbox/private.h"
#include "transport/base/log.h"

void sandbox_plan_idle_locked(struct sandbox *sb)
{
        if (sb->spec.timeout_ns == 0 || sb->state != BOX_RUNNING || sb->running > 0 ||
            sb->dirty_files > 0) {
                sb->idle_due_ns = NOTHING_DUE;
                return;
        }
        sb->idle_due_ns =
                atomic_load_explicit(&sb->used_ns, memory_order_relaxed) + sb->spec.timeout_ns;
        fleet_due(sb->fleet, sb->idle_due_ns);
}

static enum job_kind choose(const struct provider *p)
{
        if (provider_can(p, PROVIDER_OP_PAUSE) && provider_can(p, PROVIDER_OP_RESUME))
                return JOB_PAUSE;
        if (provider_can(p, PROVIDER_OP_STOP) && provider_can(p, PROVIDER_OP_START) &&
            (p->ops->traits & PROVIDER_SURVIVES))
                return JOB_STOP;
        return JOB_DESTROY;
}

static bool is_unused_locked(struct sandbox *sb) REQUIRES(sb->lock)
{
        return sb->state == BOX_RUNNING && sb->running == 0 && sb->dirty_files == 0 &&
               list_is_empty(&sb->jobs);
}

/* A person said no, it isn't ours to destroy, or bytes are here that nobody has yet. */
static bool is_to_be_kept_locked(struct sandbox *sb) REQUIRES(sb->lock)
{
        return sb->is_protected || sb->is_foreign || sb->unsent > 0;
}

bool sandbox_idle_destroy(struct sandbox *sb)
{
        bool is_idle;

        mutex_lock(&sb->lock);
        is_idle = is_unused_locked(sb) && !is_to_be_kept_locked(sb) && sb->spec.timeout_ns > 0;
        mutex_unlock(&sb->lock);
        if (is_idle)
                destroy_accept(sb, NULL, 0);
        return is_idle;
}

void sandbox_idle_over(struct sandbox *sb)
{
        enum job_kind kind = choose(sb->section->provider);
        struct job *j = NULL;
        bool is_idle, is_at_work;

        if (kind != JOB_DESTROY) {
                j = job_new(kind, NULL, 0);
                if (!j)
                        return; /* the next use plans it again */
                j->is_automatic = true;
                j->is_idle = true;
        }
        mutex_lock(&sb->lock);
        is_at_work = sb->current != JOB_NONE || !list_is_empty(&sb->jobs);
        is_idle = is_unused_locked(sb) && !is_at_work &&
                  (kind != JOB_DESTROY || !is_to_be_kept_locked(sb));
        if (is_at_work && sb->state == BOX_RUNNING) { /* its end is no use of it: look again */
                sb->idle_due_ns = clock_after(NS_PER_S);
                fleet_due(sb->fleet, sb->idle_due_ns);
        }
        if (is_idle && j) {
                sandbox_enqueue_locked(sb, j, false);
                j = NULL;
        }
        mutex_unlock(&sb->lock);
        job_free(j);
        if (!is_idle)
                return;
        log_info("%s: unused for its timeout", sb->key);
        if (kind == JOB_DESTROY)
                destroy_accept(sb, NULL, 0);
        else
                sandbox_kick(sb);
}
