/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of one host: their threads, their lives, and what their reports mean. */

#include "providers/ssh/exec_host.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STDIN_AHEAD (UINT64_C(1) << 20) /* bytes of stdin that may wait here and on the host */
#define PROBE_NS (50 * NS_PER_MS)

int exec_host_new(struct ssh_host *h, struct exec_host **ret)
{
        struct exec_host *eh = calloc(1, sizeof(*eh));

        if (!eh)
                return -ENOMEM;
        eh->host = h;
        mutex_init(&eh->lock);
        cond_init(&eh->changed);
        list_init(&eh->execs);
        list_init(&eh->spares);
        list_init(&eh->leavings);
        eh->spare_target = 1;
        eh->attached_max = EXEC_ATTACHED_MAX;
        *ret = eh;
        return 0;
}

static void end_threads(struct exec_host *eh)
{
        mutex_lock(&eh->lock);
        eh->is_ending = true;
        for (unsigned i = 0; i < EXEC_THREADS; i++) {
                if (eh->calls[i])
                        call_cancel(eh->calls[i]);
        }
        exec_wake_locked(eh);
        mutex_unlock(&eh->lock);
        for (unsigned i = 0; eh->has_threads && i < EXEC_THREADS; i++)
                (void)pthread_join(eh->threads[i], NULL);
}

void exec_host_free(struct exec_host *eh)
{
        if (!eh)
                return;
        end_threads(eh);
        assert(list_is_empty(&eh->execs)); /* each was released, and the threads are gone */
        channel_free_all(eh);
        list_for_each_safe (at, tmp, &eh->leavings) {
                struct leaving *l = container_of(at, struct leaving, link);

                free(l->run);
                free(l);
        }
        cond_done(&eh->changed);
        mutex_done(&eh->lock);
        free(eh);
}

int exec_host_start(struct exec_host *eh, struct call *c)
{
        static void *(*const mains[EXEC_THREADS])(void *) = {exec_pump, exec_ender, exec_errand};
        unsigned count = 0;
        int r = 0;

        mutex_lock(&eh->lock);
        for (; !eh->has_threads && r == 0 && count < EXEC_THREADS; count++)
                r = -pthread_create(&eh->threads[count], NULL, mains[count], eh);
        if (r == 0) {
                eh->has_threads = true;
                eh->spare_used_ns = clock_mono_ns();
        } else {
                eh->is_ending = true;
                exec_wake_locked(eh);
        }
        mutex_unlock(&eh->lock);
        if (r == 0)
                return 0;
        for (unsigned i = 0; i + 1 < count; i++) /* the last one wasn't made */
                (void)pthread_join(eh->threads[i], NULL);
        mutex_lock(&eh->lock);
        eh->is_ending = false;
        mutex_unlock(&eh->lock);
        return call_fail_errno(c, r, "a thread for the host's commands");
}

int exec_call_begin(struct exec_host *eh, enum exec_thread t, struct call *c, uint64_t span_ns)
{
        int r;

        call_init(c, clock_after(span_ns));
        mutex_lock(&eh->lock);
        r = eh->is_ending ? -ESHUTDOWN : 0;
        eh->calls[t] = c;
        mutex_unlock(&eh->lock);
        return r;
}

void exec_call_end(struct exec_host *eh, enum exec_thread t)
{
        mutex_lock(&eh->lock);
        eh->calls[t] = NULL;
        mutex_unlock(&eh->lock);
}

void exec_wake_locked(struct exec_host *eh)
{
        eh->news++;
        cond_broadcast(&eh->changed);
}

/* ---- one command ---- */

static void exec_free(struct ssh_exec *x)
{
        assert(!x->channel && !x->file_link);
        report_done(&x->report);
        buf_wipe(&x->input);
        free(x->run);
        free(x->prefix);
        free(x);
}

void exec_unref_locked(struct exec_host *eh, struct ssh_exec *x)
{
        assert(x->host == eh);
        if (--x->refs > 0)
                return;
        list_remove(&x->link);
        exec_free(x);
}

/* Nobody wants it any more: what it holds goes, by a thread that may close streams. */
static void give_up(struct ssh_exec *x)
{
        for (unsigned i = 0; i < EXEC_FILES; i++) {
                if (x->handles[i].size > 0)
                        sftp_close_later(x->file_link->sftp, &x->handles[i]);
                x->handles[i].size = 0;
        }
        link_unref(x->file_link);
        x->file_link = NULL;
        channel_drop(x);
}

void exec_let_go(struct ssh_exec *x)
{
        struct exec_host *eh = x->host;
        bool is_over;

        mutex_lock(&eh->lock);
        is_over = !x->sink;
        mutex_unlock(&eh->lock);
        if (is_over)
                give_up(x);
        mutex_lock(&eh->lock);
        x->is_busy = false;
        if (is_over && x->is_followed) {
                x->is_followed = false;
                x->refs--; /* not the last: that of this thread is below */
        } else if (!x->sink)
                x->due_ns = 0; /* released just now: once more, to give it up */
        exec_unref_locked(eh, x);
        exec_wake_locked(eh);
        mutex_unlock(&eh->lock);
}

void exec_news_locked(struct exec_host *eh, struct ssh_exec *x)
{
        struct report *r = &x->report;

        assert(x->host == eh);
        if (r->has_end && r->is_done && !x->has_end) {
                x->has_end = true;
                x->end = r->end;
                x->due_ns = 0;
        }
        if (r->refused < 0 && x->is_followed && !x->has_end) {
                x->has_end = true;
                x->end = (struct exec_end){.kind = EXEC_END_ERROR, .sentence = "it was refused"};
                x->due_ns = 0;
        }
        if (x->channel && x->channel->has_ended && !x->has_end) {
                x->probe_ns = clock_after(PROBE_NS); /* by itself from now on */
                x->probe_pause_ns = PROBE_NS;
                if (x->due_ns > x->probe_ns)
                        x->due_ns = x->probe_ns;
        }
}

uint64_t exec_taken_locked(struct exec_host *eh, const struct ssh_exec *x)
{
        uint64_t total = x->input_at + x->input.size;

        assert(x->host == eh);
        return x->taken + STDIN_AHEAD > total ? total : x->taken + STDIN_AHEAD;
}

void exec_forget_locked(struct exec_host *eh, struct ssh_exec *x)
{
        struct leaving *found = NULL;

        list_for_each (at, &eh->leavings) {
                struct leaving *l = container_of(at, struct leaving, link);

                if (strcmp(l->run, x->run) == 0 &&
                    l->count < sizeof(l->names) / sizeof(l->names[0]))
                        found = l;
        }
        if (!found) {
                found = calloc(1, sizeof(*found));
                if (found)
                        found->run = strdup(x->run);
                if (!found || !found->run) {
                        free(found);
                        return; /* it stays until the sandbox goes */
                }
                list_add_tail(&eh->leavings, &found->link);
        }
        (void)snprintf(found->names[found->count++], SCRIPT_NAME_SIZE, "%s", x->base.id);
        exec_wake_locked(eh);
}
