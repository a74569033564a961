/* SPDX-License-Identifier: Apache-2.0 */
/* The instance and its keeper; remote.h has the map. */

#include "providers/remote/remote.h"

#include <errno.h>

#include "providers/inside/files.h"
#include "providers/inside/talk.h"
#include "transport/base/clock.h"

#define WARM_NS (5 * NS_PER_S)

/* ---- the keeper ---- */

void remote_wake(struct remote_box *b)
{
        struct remote *p = b->remote;

        mutex_lock(&p->lock);
        b->due_ns = 0;
        cond_broadcast(&p->changed);
        mutex_unlock(&p->lock);
}

/* One that is due, marked as tended; else NULL and when one will be. */
static struct remote_box *take_due_locked(struct remote *p, struct call *c, uint64_t *ret_due_ns)
        REQUIRES(p->lock)
{
        uint64_t now_ns = clock_mono_ns();

        *ret_due_ns = NEVER_NS;
        list_for_each (at, &p->boxes) {
                struct remote_box *b = list_entry(at, struct remote_box, link);

                if (b->is_released)
                        continue;
                if (b->due_ns <= now_ns) {
                        call_init(c, NEVER_NS);
                        b->due_ns = NEVER_NS;
                        b->tending = c;
                        return b;
                }
                *ret_due_ns = b->due_ns < *ret_due_ns ? b->due_ns : *ret_due_ns;
        }
        return NULL;
}

static uint64_t tend(struct remote_box *b, struct call *c)
{
        uint64_t talk_ns, renew_ns;
        enum box_state listed;

        mutex_lock(&b->remote->lock);
        listed = b->listed;
        b->listed = BOX_UNKNOWN;
        mutex_unlock(&b->remote->lock);
        remote_follow(b, listed);
        talk_ns = talk_tend(b->talk, c);
        if (!b->remote->has_no_agent && atomic_exchange(&b->is_cold, false)) {
                c->deadline_ns = clock_after(WARM_NS);
                inside_warm(b->files, c);
        }
        renew_ns = remote_renew(b, c);
        return talk_ns < renew_ns ? talk_ns : renew_ns;
}

static void *keep(void *arg)
{
        struct remote *p = arg;

        mutex_lock(&p->lock);
        while (!p->is_closing) {
                uint64_t due_ns = NEVER_NS;
                struct call c;
                struct remote_box *b = take_due_locked(p, &c, &due_ns);

                if (!b) {
                        (void)cond_wait_until(&p->changed, &p->lock, due_ns);
                        continue;
                }
                mutex_unlock(&p->lock);
                due_ns = tend(b, &c);
                mutex_lock(&p->lock);
                b->due_ns = due_ns < b->due_ns ? due_ns : b->due_ns;
                b->tending = NULL;
                cond_broadcast(&p->changed);
        }
        mutex_unlock(&p->lock);
        return NULL;
}

/* ---- the instance ---- */

void remote_init(struct remote *p, const struct remote_ops *ops,
                 const struct provider_config *config)
{
        p->ops = ops;
        p->owner = config->owner;
        p->helper_dir = config->helper_dir;
        p->listener = config->listener;
        list_init(&p->boxes);
        mutex_init(&p->lock);
        cond_init(&p->changed);
}

int remote_start(struct remote *p, struct call *c)
{
        int r = -pthread_create(&p->keeper, NULL, keep, p);

        return r < 0 ? call_fail_errno(c, r, "a thread") : 0;
}

void remote_stop(struct remote *p)
{
        mutex_lock(&p->lock);
        p->is_closing = true;
        cond_broadcast(&p->changed);
        mutex_unlock(&p->lock);
        (void)pthread_join(p->keeper, NULL); /* it was started */
}

void remote_done(struct remote *p)
{
        cond_done(&p->changed);
        mutex_done(&p->lock);
}

void remote_tell(const struct remote *p, const struct spec *spec, const char *phase)
{
        if (p->listener.box_phase)
                p->listener.box_phase(p->listener.ctx, spec->key, phase);
}
