/* SPDX-License-Identifier: Apache-2.0 */
/* Pause, resume, destroy: one change at a time, and what surrounds the service's own calls. */

#include <errno.h>

#include "providers/inside/talk.h"
#include "providers/remote/private.h"
#include "providers/remote/remote.h"
#include "transport/base/clock.h"
#include "transport/base/log.h"

#define WAIT_NS (100 * NS_PER_MS)
#define DISCARD_NS (20 * NS_PER_S)

static int begin(struct remote_box *b, struct call *c, enum box_state meanwhile,
                 enum box_state *ret_before)
{
        int r = 0;

        mutex_lock(&b->lock);
        while (b->is_changing && r == 0) {
                (void)cond_wait_until(&b->changed, &b->lock, clock_after(WAIT_NS));
                r = call_check(c);
        }
        if (r == 0) {
                b->is_changing = true;
                *ret_before = b->state;
                b->state = meanwhile;
        }
        mutex_unlock(&b->lock);
        return r < 0 ? call_fail_errno(c, r, "another change of the sandbox goes on") : 0;
}

static void end(struct remote_box *b, enum box_state state)
{
        mutex_lock(&b->lock);
        b->state = state;
        b->refusal[0] = '\0'; /* was said */
        b->is_changing = false;
        cond_broadcast(&b->changed);
        mutex_unlock(&b->lock);
        talk_follow(b->talk, state);
        remote_wake(b);
}

/* What to hold it for after a failure. */
static enum box_state after(struct remote_box *b, int r, enum box_state before)
{
        struct box_status status;
        struct call quiet;

        if (r == -ENODEV)
                return BOX_GONE;
        call_init(&quiet, clock_after(NS_PER_S));
        return remote_look(b, &quiet, &status) == 0 && status.state != BOX_UNKNOWN ? status.state
                                                                                   : before;
}

int remote_box_pause(struct box *box, struct call *c)
{
        struct remote_box *b = remote_box_of(box);
        enum box_state before = BOX_UNKNOWN;
        int r = begin(b, c, BOX_PAUSING, &before);

        if (r < 0)
                return r;
        talk_pause(b->talk, true); /* its time-outs stand still, too */
        r = b->remote->ops->pause(b, c);
        if (r < 0)
                before = after(b, r, before);
        if (r < 0 && before != BOX_PAUSED)
                talk_pause(b->talk, false);
        end(b, r == 0 ? BOX_PAUSED : before);
        return r;
}

int remote_box_resume(struct box *box, struct call *c)
{
        struct remote_box *b = remote_box_of(box);
        enum box_state before = BOX_UNKNOWN;
        int r = begin(b, c, BOX_RESUMING, &before);

        if (r < 0)
                return r;
        r = before == BOX_GONE ? call_fail(c, -ENODEV, "the sandbox is gone")
                               : b->remote->ops->resume(b, c);
        if (r == 0)
                atomic_store(&b->renewed_ns, clock_mono_ns());
        end(b, r == 0 ? BOX_RUNNING : after(b, r, before));
        return r;
}

int remote_box_start(struct box *box, struct call *c, const struct spec *spec)
{
        (void)spec; /* what commands get is the sandbox's */
        return remote_box_resume(box, c);
}

int remote_box_stop(struct box *box, struct call *c)
{
        struct remote_box *b = remote_box_of(box);
        enum box_state before = BOX_UNKNOWN;
        int r = begin(b, c, BOX_STOPPING, &before);

        if (r < 0)
                return r;
        r = before == BOX_GONE ? call_fail(c, -ENODEV, "the sandbox is gone")
                               : b->remote->ops->stop(b, c);
        end(b, r == 0 ? BOX_STOPPED : after(b, r, before));
        return r;
}

static int remove_it(struct remote_box *b, struct call *c)
{
        int r = b->remote->ops->remove(b, c);

        if (r == -ENODEV) {
                c->sentence[0] = '\0';
                return 0;
        }
        return r;
}

int remote_box_destroy(struct box *box, struct call *c)
{
        struct remote_box *b = remote_box_of(box);
        enum box_state before = BOX_UNKNOWN;
        int r = begin(b, c, BOX_DESTROYING, &before);

        if (r < 0)
                return r;
        r = remove_it(b, c);
        end(b, r == 0 ? BOX_GONE : before);
        return r;
}

void remote_discard(struct remote_box *b)
{
        struct call c;
        int r;

        call_init(&c, clock_after(DISCARD_NS));
        r = remove_it(b, &c);
        remote_follow(b, BOX_GONE);
        if (r < 0)
                log_debug(b->remote->ops->name, "%s: removing what was made in vain: %s, ignoring",
                          b->base.id, c.sentence);
}
