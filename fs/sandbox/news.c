/* SPDX-License-Identifier: Apache-2.0 */
/*
 * News on its way to the listener. What changed is put on a list, at most once, under any lock;
 * whoever holds none and is a worker or a provider's thread empties the list. Others post it: a
 * worker then does.
 */

#include "fs/sandbox/private.h"

void news_init(struct news *n)
{
        mutex_init(&n->lock);
        list_init(&n->sandboxes);
        list_init(&n->tasks);
}

void news_sandbox(struct sandbox *sb)
{
        struct news *n = &sb->fleet->news;

        mutex_lock(&n->lock);
        if (!sb->is_news) {
                sb->is_news = true;
                list_add_tail(&n->sandboxes, &sandbox_ref(sb)->news_link);
        }
        mutex_unlock(&n->lock);
}

void news_task(struct task *t)
{
        struct news *n = &t->sandbox->fleet->news;

        mutex_lock(&n->lock);
        if (!t->is_news) {
                t->is_news = true;
                list_add_tail(&n->tasks, &task_ref(t)->news_link);
        }
        mutex_unlock(&n->lock);
}

void news_fleet(struct fleet *f)
{
        mutex_lock(&f->news.lock);
        f->news.fleet = true;
        mutex_unlock(&f->news.lock);
}

static struct task *take_task(struct news *n) REQUIRES(n->lock)
{
        struct task *t;

        if (list_is_empty(&n->tasks))
                return NULL;
        t = list_entry(n->tasks.next, struct task, news_link);
        list_remove(&t->news_link);
        t->is_news = false;
        return t;
}

static struct sandbox *take_sandbox(struct news *n) REQUIRES(n->lock)
{
        struct sandbox *sb;

        if (list_is_empty(&n->sandboxes))
                return NULL;
        sb = list_entry(n->sandboxes.next, struct sandbox, news_link);
        list_remove(&sb->news_link);
        sb->is_news = false;
        return sb;
}

void news_deliver(struct fleet *f)
{
        const struct listener *l = &f->listener;

        for (;;) {
                struct task *t;
                struct sandbox *sb = NULL;
                bool fleet = false;

                mutex_lock(&f->news.lock);
                t = take_task(&f->news);
                if (!t)
                        sb = take_sandbox(&f->news);
                if (!t && !sb) {
                        fleet = f->news.fleet;
                        f->news.fleet = false;
                }
                mutex_unlock(&f->news.lock);

                if (t && l->task_changed)
                        l->task_changed(l->ctx, t);
                if (sb && l->sandbox_changed)
                        l->sandbox_changed(l->ctx, sb);
                if (fleet && l->fleet_changed)
                        l->fleet_changed(l->ctx);
                task_unref(t);
                sandbox_unref(sb);
                if (!t && !sb)
                        return;
        }
}

static void news_job(void *arg)
{
        struct fleet *f = arg;

        mutex_lock(&f->news.lock);
        f->news.is_posted = false;
        mutex_unlock(&f->news.lock);
        news_deliver(f);
}

void news_post(struct fleet *f)
{
        struct news *n = &f->news;
        bool post;

        mutex_lock(&n->lock);
        post = !n->is_posted &&
               (n->fleet || !list_is_empty(&n->sandboxes) || !list_is_empty(&n->tasks));
        n->is_posted |= post;
        mutex_unlock(&n->lock);
        if (!post || workers_submit(f->workers, WORKER_FAST, news_job, f) == 0)
                return;
        mutex_lock(&n->lock);
        n->is_posted = false; /* whoever is next delivers it */
        mutex_unlock(&n->lock);
}

void news_done(struct fleet *f)
{
        for (;;) {
                struct task *t;
                struct sandbox *sb;

                mutex_lock(&f->news.lock);
                t = take_task(&f->news);
                sb = take_sandbox(&f->news);
                mutex_unlock(&f->news.lock);
                task_unref(t);
                sandbox_unref(sb);
                if (!t && !sb)
                        break;
        }
        mutex_done(&f->news.lock);
}
