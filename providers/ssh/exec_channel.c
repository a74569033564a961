/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels that wait: `exec sh` was started on each, and reads what it is to do. One at least is
 * kept while commands come; more when they come faster than channels open.
 */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "providers/ssh/exec_host.h"

#define SPARES_MAX 4
#define SPARE_KEEP_NS (60 * NS_PER_S) /* more than one is kept for as long without use */
#define SPARE_LAST_NS (600 * NS_PER_S) /* and the last one */
#define SPARE_RETRY_NS (2 * NS_PER_S)
#define ROOM_NS (20 * NS_PER_MS)

static void on_data(void *ctx, bool is_stderr, const void *data, size_t size)
{
        struct exec_channel *ch = ctx;
        struct exec_host *eh = ch->host;

        if (is_stderr)
                return; /* what the login shell's rc files say; ours goes to a file */
        mutex_lock(&eh->lock);
        if (ch->exec && report_feed(&ch->exec->report, data, size)) {
                exec_news_locked(eh, ch->exec);
                exec_wake_locked(eh);
        }
        mutex_unlock(&eh->lock);
}

static void on_end(void *ctx, const struct stream_end *end)
{
        struct exec_channel *ch = ctx;
        struct exec_host *eh = ch->host;

        mutex_lock(&eh->lock);
        ch->has_ended = true;
        ch->end = *end;
        if (ch->exec)
                exec_news_locked(eh, ch->exec);
        exec_wake_locked(eh);
        mutex_unlock(&eh->lock);
}

static int channel_open(struct exec_host *eh, struct call *c, struct exec_channel **ret)
{
        struct exec_channel *ch = calloc(1, sizeof(*ch));
        int r;

        if (!ch)
                return call_fail(c, -ENOMEM, "out of memory");
        list_init(&ch->link);
        ch->host = eh;
        ch->opened_ns = clock_mono_ns();
        r = host_open_program(eh->host, c, "exec sh",
                              &(struct stream_events){.data = on_data, .end = on_end, .ctx = ch},
                              &ch->stream);
        if (r < 0)
                free(ch);
        else
                *ret = ch;
        return r;
}

static void channel_free(struct exec_channel *ch)
{
        stream_close(ch->stream);
        free(ch);
}

static struct exec_channel *take_spare_locked(struct exec_host *eh) REQUIRES(eh->lock)
{
        eh->spare_used_ns = clock_mono_ns();
        list_for_each (at, &eh->spares) {
                struct exec_channel *ch = container_of(at, struct exec_channel, link);

                if (ch->has_ended)
                        continue;
                list_remove(&ch->link);
                eh->spare_count--;
                return ch;
        }
        if (eh->spare_target < SPARES_MAX && eh->attached_max > 0)
                eh->spare_target++;
        return NULL;
}

bool channel_make_room(struct exec_host *eh, struct call *c, uint64_t until_ns)
{
        struct timespec pause = clock_timespec(ROOM_NS);
        struct exec_channel *ch = NULL;

        mutex_lock(&eh->lock);
        eh->attached_max = 0;
        eh->spare_target = 0;
        if (!list_is_empty(&eh->spares)) {
                ch = container_of(eh->spares.next, struct exec_channel, link);
                list_remove(&ch->link);
                eh->spare_count--;
        }
        mutex_unlock(&eh->lock);
        if (ch)
                channel_free(ch);
        if (clock_mono_ns() >= until_ns || call_check(c) < 0)
                return false;
        (void)nanosleep(&pause, NULL); /* until the server has heard of it */
        return true;
}

bool channel_detaches(struct exec_host *eh)
{
        unsigned count = 0;
        bool is_full;

        mutex_lock(&eh->lock);
        list_for_each (at, &eh->execs)
                count += container_of(at, struct ssh_exec, link)->channel != NULL;
        is_full = count >= eh->attached_max;
        mutex_unlock(&eh->lock);
        return is_full && host_known(eh->host) & HOST_PROC;
}

int channel_take(struct exec_host *eh, struct call *c, struct ssh_exec *x)
{
        uint64_t until_ns = clock_after(ROOM_WAIT_NS);
        struct exec_channel *ch;
        int r = 0;

        mutex_lock(&eh->lock);
        ch = take_spare_locked(eh);
        mutex_unlock(&eh->lock);
        if (!ch)
                r = channel_open(eh, c, &ch);
        while ((r == -EAGAIN || r == -EMFILE) && channel_make_room(eh, c, until_ns))
                r = channel_open(eh, c, &ch);
        if (r < 0)
                return r;
        assert(ch);
        mutex_lock(&eh->lock);
        ch->exec = x;
        x->channel = ch;
        exec_wake_locked(eh); /* another spare */
        mutex_unlock(&eh->lock);
        return 0;
}

void channel_drop(struct ssh_exec *x)
{
        struct exec_channel *ch;

        mutex_lock(&x->host->lock);
        ch = x->channel;
        x->channel = NULL;
        if (ch)
                ch->exec = NULL;
        mutex_unlock(&x->host->lock);
        if (ch)
                channel_free(ch);
}

/* ---- spares ---- */

/* Those that died, and those that nobody wanted for long. */
static void take_useless_locked(struct exec_host *eh, struct list *to, uint64_t *next_ns)
        REQUIRES(eh->lock)
{
        uint64_t now = clock_mono_ns(), idle_ns = now - eh->spare_used_ns;

        list_for_each_safe (at, tmp, &eh->spares) {
                struct exec_channel *ch = container_of(at, struct exec_channel, link);
                bool is_useless = ch->has_ended || idle_ns >= SPARE_LAST_NS ||
                                  (idle_ns >= SPARE_KEEP_NS && eh->spare_count > 1);

                if (!is_useless)
                        continue;
                list_remove(at);
                list_add_tail(to, at);
                eh->spare_count--;
        }
        if (idle_ns >= SPARE_KEEP_NS)
                eh->spare_target = 1;
        if (idle_ns >= SPARE_LAST_NS)
                eh->spare_target = 0;
        if (eh->spare_count > 0)
                *next_ns = eh->spare_used_ns +
                           (idle_ns < SPARE_KEEP_NS ? SPARE_KEEP_NS : SPARE_LAST_NS);
}

static bool wants_locked(struct exec_host *eh, uint64_t *next_ns) REQUIRES(eh->lock)
{
        if (eh->spare_count >= eh->spare_target || eh->is_ending)
                return false;
        if (clock_mono_ns() < eh->spare_retry_ns) {
                *next_ns = eh->spare_retry_ns;
                return false;
        }
        eh->spare_count++;
        return true;
}

static void open_spare(struct exec_host *eh)
{
        struct exec_channel *ch = NULL;
        struct call c;
        int r = exec_call_begin(eh, EXEC_ERRAND, &c, 10 * NS_PER_S);

        if (r == 0)
                r = channel_open(eh, &c, &ch);
        exec_call_end(eh, EXEC_ERRAND);
        mutex_lock(&eh->lock);
        if (r < 0) {
                eh->spare_count--;
                eh->spare_retry_ns = clock_after(SPARE_RETRY_NS);
        } else if (ch) {
                list_add_tail(&eh->spares, &ch->link);
        }
        mutex_unlock(&eh->lock);
}

uint64_t channel_errand(struct exec_host *eh)
{
        struct list useless = LIST_INIT(useless);
        uint64_t next_ns = NEVER_NS;
        bool wants;

        mutex_lock(&eh->lock);
        take_useless_locked(eh, &useless, &next_ns);
        wants = wants_locked(eh, &next_ns);
        mutex_unlock(&eh->lock);
        list_for_each_safe (at, tmp, &useless) {
                list_remove(at);
                channel_free(container_of(at, struct exec_channel, link));
        }
        if (!wants)
                return next_ns;
        open_spare(eh);
        return 0;
}

void channel_free_all(struct exec_host *eh)
{
        list_for_each_safe (at, tmp, &eh->spares) {
                list_remove(at);
                channel_free(container_of(at, struct exec_channel, link));
        }
}
