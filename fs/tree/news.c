/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/parts.h"

static void wake(struct tree *t, uint64_t key)
{
        t->events.wake(t->events.ctx, key);
}

static uint64_t key_of(const struct sandbox *sb)
{
        return node_virtual(sandbox_serial(sb), 0, ROW_SANDBOX);
}

static void fleet_changed(void *ctx)
{
        wake(ctx, TREE_ROOT);
}

static void sandbox_changed(void *ctx, struct sandbox *sb)
{
        wake(ctx, key_of(sb));
}

static void task_changed(void *ctx, struct task *t)
{
        wake(ctx, node_virtual(sandbox_serial(task_sandbox(t)), task_number(t), ROW_TASK));
}

static void drop_caches(struct tree *t, struct sandbox *sb)
{
        struct slot *s = slot_find(t, sandbox_serial(sb));

        if (s)
                s->volume->ops->exec_ended(s->volume);
        slot_unref(s);
}

/* Promise 2: when the end is seen, so is everything that the command did. */
static void task_ending(void *ctx, struct sandbox *sb, struct task *task)
{
        (void)task; /* the volume is the sandbox's */
        drop_caches(ctx, sb);
}

/* From now on nothing changes inside; what was read before it went down may have. */
static void sandbox_down(void *ctx, struct sandbox *sb)
{
        drop_caches(ctx, sb);
}

static int deliver(void *ctx, struct sandbox *sb, struct call *c)
{
        return slot_deliver(ctx, sb, c);
}

static int check_unsent(void *ctx, struct sandbox *sb, struct call *c)
{
        return slot_check_unsent(ctx, sb, c);
}

static int retry(void *ctx, struct sandbox *sb, struct call *c)
{
        return slot_retry(ctx, sb, c);
}

static void sandbox_gone(void *ctx, struct sandbox *sb)
{
        struct tree *t = ctx;

        slot_gone(t, sandbox_serial(sb));
        scratches_drop_dir(t->scratches, key_of(sb));
        wake(t, key_of(sb));
}

struct listener news_listener(struct tree *t)
{
        return (struct listener){
                .fleet_changed = fleet_changed,
                .sandbox_changed = sandbox_changed,
                .task_changed = task_changed,
                .task_ending = task_ending,
                .sandbox_down = sandbox_down,
                .deliver = deliver,
                .check_unsent = check_unsent,
                .retry = retry,
                .sandbox_gone = sandbox_gone,
                .ctx = t,
        };
}
